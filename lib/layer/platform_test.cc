#include "lib/layer/platform.h"

#include <sys/utsname.h>

#include "gtest/gtest.h"

namespace caisson::layer {
namespace {

Platform P(const char* os, const char* architecture, const char* variant = "") {
  return {.os = os, .architecture = architecture, .variant = variant};
}

TEST(PlatformTest, Distance) {
  const struct {
    Platform wanted;
    Platform offered;
    int distance;
  } cases[] = {
      {P("linux", "amd64"), P("linux", "amd64"), 0},
      {P("linux", "amd64"), P("linux", "x86_64"), 0},
      {P("linux", "amd64"), P("linux", "amd64", "v1"), 0},
      {P("linux", "amd64"), P("linux", "amd64", "v3"), -1},
      {P("linux", "amd64", "v3"), P("linux", "amd64", "v2"), 1},
      {P("linux", "amd64", "v3"), P("linux", "amd64"), 2},
      {P("linux", "amd64"), P("linux", "386"), -1},
      {P("linux", "amd64"), P("linux", "arm64"), -1},
      {P("linux", "amd64"), P("windows", "amd64"), -1},
      {P("linux", "amd64"), P("unknown", "unknown"), -1},
      {P("linux", "amd64"), P("", ""), 0},
      {P("linux", "amd64"), P("linux", ""), 0},
      {P("linux", "arm64", "v8"), P("linux", "arm64"), 0},
      {P("linux", "arm64"), P("linux", "aarch64", "8"), 0},
      {P("linux", "arm64", "v9"), P("linux", "arm64", "v8"), 1},
      {P("linux", "arm", "v7"), P("linux", "arm", "v6"), 1},
      {P("linux", "arm", "v6"), P("linux", "arm", "v7"), -1},
      {P("linux", "arm", "v7"), P("linux", "arm", "odd"), -1},
      {P("linux", "riscv64"), P("linux", "riscv64"), 0},
  };
  for (const auto& c : cases) {
    EXPECT_EQ(PlatformDistance(c.wanted, c.offered), c.distance)
        << c.wanted.ToString() << " offered " << c.offered.ToString();
  }
}

TEST(PlatformTest, NamesMachinesAsGoDoes) {
  EXPECT_EQ(PlatformOfMachine("x86_64").ToString(), "linux/amd64");
  EXPECT_EQ(PlatformOfMachine("aarch64").ToString(), "linux/arm64/v8");
  EXPECT_EQ(PlatformOfMachine("armv7l").ToString(), "linux/arm/v7");
  EXPECT_EQ(PlatformOfMachine("i686").ToString(), "linux/386");
  EXPECT_EQ(PlatformOfMachine("s390x").ToString(), "linux/s390x");
  EXPECT_EQ(Platform().ToString(), "unknown/unknown");
}

TEST(PlatformTest, HostIsThisMachine) {
  utsname name = {};
  ASSERT_EQ(::uname(&name), 0);
  EXPECT_EQ(HostPlatform().ToString(),
            PlatformOfMachine(name.machine).ToString());
}

}  // namespace
}  // namespace caisson::layer
