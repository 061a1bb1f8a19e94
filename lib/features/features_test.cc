#include "caisson/features.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gtest/gtest.h"
#include "lib/features/probe.h"

namespace caisson {
namespace {

// Mounts, modules, interfaces, namespaces and descriptors of the process.
std::string HostState() {
  std::string state;
  for (const char* path : {"/proc/self/mountinfo", "/proc/modules"}) {
    std::ifstream file(path);
    state.append(std::istreambuf_iterator<char>(file), {});
  }
  for (const char* dir : {"/proc/self/ns", "/proc/self/fd", "/sys/class/net"}) {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(dir)) {
      std::error_code error;
      names.insert(absl::StrCat(
          entry.path().string(), " ",
          dir == std::string("/proc/self/ns")
              ? std::filesystem::read_symlink(entry.path(), error).string()
              : ""));
    }
    for (const std::string& name : names) absl::StrAppend(&state, name, "\n");
  }
  return absl::StrCat(state, "dumpable ", ::prctl(PR_GET_DUMPABLE));
}

TEST(FeaturesTest, EveryItemHasANameOfItsOwnAndAReason) {
  const FeatureReport report = Features();
  std::set<std::string> names;
  for (const Feature& item : report.items) {
    EXPECT_FALSE(item.area.empty());
    EXPECT_TRUE(names.insert(item.name).second) << item.name;
    EXPECT_TRUE(item.available || !item.detail.empty()) << item.name;
    EXPECT_EQ(report.Find(item.name), &item);
    EXPECT_FALSE(absl::StrContains(item.detail, "\n")) << item.detail;
  }
  EXPECT_EQ(report.Find("nonsense"), nullptr);
}

TEST(FeaturesTest, SaysWhatIsKnownOfThisMachine) {
  const FeatureReport report = Features();
  for (const char* name : {"linux", "processor", "detached mounts", "pidfds",
                           "seccomp filters", "/proc of the host"}) {
    const Feature* feature = report.Find(name);
    ASSERT_NE(feature, nullptr) << name;
    EXPECT_TRUE(feature->available) << name << ": " << feature->detail;
  }
  EXPECT_EQ(report.Find("CAP_SYS_ADMIN")->available, ::geteuid() == 0);
}

TEST(FeaturesTest, ChangesNothing) {
  const std::string before = HostState();
  Features();
  EXPECT_EQ(HostState(), before);
  EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG | __WALL), -1);
  EXPECT_EQ(errno, ECHILD);
}

TEST(FeaturesTest, TextIsInColumns) {
  FeatureReport report;
  report.items = {{"a", "long name", true, "detail"},
                  {"a", "b", false, "why"},
                  {"area", "c", true, ""}};
  EXPECT_EQ(report.ToString(),
            "a     long name  yes  detail\n"
            "      b          no   why\n"
            "area  c          yes\n");
}

TEST(FeaturesTest, OrdinaryUserSeesTheSameKernel) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  const pid_t child = ::fork();
  if (child == 0) {
    if (::setresgid(61234, 61234, 61234) != 0) ::_exit(1);
    if (::setresuid(61234, 61234, 61234) != 0) ::_exit(2);
    const FeatureReport report = Features();
    if (report.Find("CAP_SYS_ADMIN")->available) ::_exit(3);
    if (!report.Find("user namespaces")->available) ::_exit(4);
    if (!report.Find("detached mounts")->available) ::_exit(5);
    if (report.Find("bridge networks and published ports")->available) {
      ::_exit(6);
    }
    for (const Feature& item : report.items) {
      if (item.area == "cgroups" && item.name != "cgroups" && item.available) {
        ::_exit(8);
      }
    }
    const Feature* ids = report.Find("subordinate ids");
    if (ids->available || !absl::StrContains(ids->detail, "61234")) ::_exit(7);
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_TRUE(WIFEXITED(status));
}

TEST(ProbeTest, UnknownInterfacesAreUnknown) {
  const features::ProbeResult result = features::Probe(
      {.user_namespace = true, .link_kinds = {"no-such-kind", "dummy"}});
  ASSERT_EQ(result.clone, 0);
  ASSERT_EQ(result.links.size(), 2u);
  EXPECT_EQ(result.links[0], EOPNOTSUPP);
}

}  // namespace
}  // namespace caisson
