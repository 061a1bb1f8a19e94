#include "caisson/notation.h"

#include <string>

#include "lib/base/status_matchers.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(NotationTest, Ports) {
  ASSERT_OK_AND_ASSIGN(PortMapping port, ParsePortMapping("8080:80"));
  EXPECT_EQ(port.host_address, "");
  EXPECT_EQ(port.host_port, 8080);
  EXPECT_EQ(port.container_port, 80);
  EXPECT_EQ(port.protocol, PortMapping::Protocol::kTcp);
  ASSERT_OK_AND_ASSIGN(port, ParsePortMapping("127.0.0.1:0:53/udp"));
  EXPECT_EQ(port.host_address, "127.0.0.1");
  EXPECT_EQ(port.host_port, 0);
  EXPECT_EQ(port.protocol, PortMapping::Protocol::kUdp);
  for (const char* bad :
       {"", "80", "1:2:3:4", "a:80", "80:", ":80", "80:0", "65536:80", "80:+1",
        "80: 1", "80:80/icmp", "80:80/", ":80:80", "-1:80"}) {
    EXPECT_THAT(ParsePortMapping(bad),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("expected [ADDRESS:]HOSTPORT:PORT")))
        << bad;
  }
}

TEST(NotationTest, Binds) {
  ASSERT_OK_AND_ASSIGN(BindMount bind, ParseBindMount("/a:/b"));
  EXPECT_EQ(bind.source, "/a");
  EXPECT_EQ(bind.destination, "/b");
  EXPECT_FALSE(bind.read_only);
  ASSERT_OK_AND_ASSIGN(bind, ParseBindMount("/a:/b:ro"));
  EXPECT_TRUE(bind.read_only);
  for (const char* bad : {"", "/a", "a:/b", "/a:b", "/a:/b:rx", "/a:/b:ro:x"}) {
    EXPECT_THAT(ParseBindMount(bad),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("expected /SOURCE:/DESTINATION")))
        << bad;
  }
}

TEST(NotationTest, Bytes) {
  EXPECT_EQ(*ParseBytes("1"), 1);
  EXPECT_EQ(*ParseBytes("7b"), 7);
  EXPECT_EQ(*ParseBytes("64m"), 64 << 20);
  EXPECT_EQ(*ParseBytes("2G"), int64_t{2} << 30);
  for (const char* bad : {"", "m", "0", "-1", "1.5g", "1t", " 1", "1kb",
                          "9999999999g", "99999999999999999999"}) {
    EXPECT_THAT(ParseBytes(bad), StatusIs(absl::StatusCode::kInvalidArgument,
                                          HasSubstr("number of bytes")))
        << bad;
  }
}

TEST(NotationTest, AdditionsWin) {
  EXPECT_THAT(MergeEnvironment({"A=1", "B=2", "AB=3"}, {"A=x", "C=y", "C=z"}),
              ElementsAre("A=x", "B=2", "AB=3", "C=z"));
}

}  // namespace
}  // namespace caisson
