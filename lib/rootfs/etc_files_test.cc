#include "lib/rootfs/etc_files.h"

#include <string>

#include "lib/base/status_matchers.h"

namespace caisson::rootfs {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(RenderHostsTest, StandardNamesThenTheEntries) {
  ASSERT_OK_AND_ASSIGN(const std::string hosts,
                       RenderHosts("web", {{"172.20.0.2", {"web", "web.test"}},
                                           {"fd00::1", {"db"}}}));
  EXPECT_EQ(hosts,
            "127.0.0.1\tlocalhost\n"
            "::1\tlocalhost ip6-localhost ip6-loopback\n"
            "fe00::\tip6-localnet\n"
            "ff00::\tip6-mcastprefix\n"
            "ff02::1\tip6-allnodes\n"
            "ff02::2\tip6-allrouters\n"
            "172.20.0.2\tweb web.test\n"
            "fd00::1\tdb\n");
}

TEST(RenderHostsTest, OwnNameIsAlwaysKnown) {
  ASSERT_OK_AND_ASSIGN(std::string hosts, RenderHosts("web", {}));
  EXPECT_THAT(hosts, EndsWith("127.0.0.1\tweb\n"));
  ASSERT_OK_AND_ASSIGN(hosts, RenderHosts("", {}));
  EXPECT_THAT(hosts, EndsWith("ip6-allrouters\n"));
  ASSERT_OK_AND_ASSIGN(hosts, RenderHosts("localhost", {}));
  EXPECT_THAT(hosts, EndsWith("ip6-allrouters\n"));
}

TEST(RenderHostsTest, RefusesWhatWouldBeReadAsSomethingElse) {
  const std::pair<HostsEntry, const char*> kCases[] = {
      {{"1.2.3", {"a"}}, "hosts[0].address"},
      {{"::1%lo", {"a"}}, "hosts[0].address"},
      {{std::string("1.2.3.4\0", 8), {"a"}}, "hosts[0].address"},
      {{"1.2.3.4", {}}, "gives 1.2.3.4 no name"},
      {{"1.2.3.4", {"a", ""}}, "\"\" is no host name"},
      {{"1.2.3.4", {"a\n6.6.6.6\tbank.test"}}, "no host name"},
      {{"1.2.3.4", {"a b"}}, "no host name"},
      {{"1.2.3.4", {"a#b"}}, "no host name"},
      {{"1.2.3.4", {std::string(254, 'x')}}, "no host name"},
  };
  for (const auto& [entry, problem] : kCases) {
    EXPECT_THAT(RenderHosts("web", {entry}),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         AllOf(HasSubstr("RootFsOptions.hosts[0]"),
                               HasSubstr(problem))));
  }
  EXPECT_OK(CheckHostname(""));
  EXPECT_OK(CheckHostname("web_1.test"));
  EXPECT_THAT(CheckHostname("a\nb"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("RootFsOptions.hostname \"a\\nb\"")));
}

TEST(ResolvConfTest, LoopbackServersAreRemoved) {
  struct Case {
    const char* text;
    const char* filtered;
    size_t servers;
    size_t loopbacks;
  };
  const Case kCases[] = {
      {"", "", 0, 0},
      {"nameserver 10.0.0.1\n", "nameserver 10.0.0.1\n", 1, 0},
      {"nameserver 10.0.0.1", "nameserver 10.0.0.1\n", 1, 0},
      {"nameserver 127.0.0.53\nsearch x\n", "search x\n", 0, 1},
      {"search x\nnameserver 127.1.2.3", "search x\n", 0, 1},
      {"nameserver ::1\nnameserver\t::\nnameserver  0.0.0.0 \n", "", 0, 3},
      {"nameserver ::ffff:127.0.0.1\nnameserver ::ffff:10.0.0.1\n",
       "nameserver ::ffff:10.0.0.1\n", 1, 1},
      {"nameserver fe80::1%eth0\n", "nameserver fe80::1%eth0\n", 1, 0},
      {"# nameserver 127.0.0.1\n; x\noptions edns0\n",
       "# nameserver 127.0.0.1\n; x\noptions edns0\n", 0, 0},
      {"nameserver\n", "nameserver\n", 0, 0},
      {"nameserver 1270.0.0.1\n", "nameserver 1270.0.0.1\n", 1, 0},
      {"a\n\nb\n", "a\n\nb\n", 0, 0},
  };
  for (const Case& c : kCases) {
    const FilteredResolvConf result = RemoveLoopbackServers(c.text);
    EXPECT_EQ(result.text, c.filtered);
    EXPECT_EQ(result.servers, c.servers) << c.text;
    EXPECT_EQ(result.loopbacks, c.loopbacks) << c.text;
  }
}

TEST(ResolvConfTest, OfTheHost) {
  ASSERT_OK_AND_ASSIGN(const std::string text,
                       HostResolvConf(LoopbackServers::kRemove));
  EXPECT_THAT(text, Not(HasSubstr("nameserver 127.")));
}

}  // namespace
}  // namespace caisson::rootfs
