#include "lib/namespace/sysctl.h"

#include <string>

#include "lib/base/status_matchers.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr SysctlScope kAll = {
    .net = true, .ipc = true, .uts = true, .user = true};

TEST(ValidateSysctlTest, FirstSeparatorDecides) {
  const struct {
    const char* name;
    const char* path;
  } kCases[] = {
      {"net.ipv4.ip_forward", "net/ipv4/ip_forward"},
      {"net/ipv4/ip_forward", "net/ipv4/ip_forward"},
      {"net.ipv4.conf.eth0/100.forwarding",
       "net/ipv4/conf/eth0.100/forwarding"},
      {"net/ipv4/conf/eth0.100/forwarding",
       "net/ipv4/conf/eth0.100/forwarding"},
      {"net/ipv4/conf/.../forwarding", "net/ipv4/conf/.../forwarding"},
      {"kernel.shm_rmid_forced", "kernel/shm_rmid_forced"},
      {"fs.mqueue.msg_max", "fs/mqueue/msg_max"},
      {"fs/mqueue/queues_max", "fs/mqueue/queues_max"},
      {"kernel.domainname", "kernel/domainname"},
      {"user.max_user_namespaces", "user/max_user_namespaces"},
      {"user.max_inotify_watches", "user/max_inotify_watches"},
  };
  for (const auto& c : kCases) {
    const auto path = ValidateSysctl(c.name, "1", kAll);
    ASSERT_OK(path) << c.name;
    EXPECT_EQ(*path, c.path);
  }
}

TEST(ValidateSysctlTest, EachNeedsItsNamespace) {
  const struct {
    const char* name;
    bool SysctlScope::*scope;
    const char* kind;
  } kCases[] = {
      {"net.ipv4.ip_forward", &SysctlScope::net, "a network namespace"},
      {"net/core/somaxconn", &SysctlScope::net, "a network namespace"},
      {"net.ipv4.ping_group_range", &SysctlScope::net, "a network namespace"},
      {"kernel.msgmax", &SysctlScope::ipc, "an ipc namespace"},
      {"kernel.msgmnb", &SysctlScope::ipc, "an ipc namespace"},
      {"kernel.msgmni", &SysctlScope::ipc, "an ipc namespace"},
      {"kernel.sem", &SysctlScope::ipc, "an ipc namespace"},
      {"kernel.shmall", &SysctlScope::ipc, "an ipc namespace"},
      {"kernel.shmmax", &SysctlScope::ipc, "an ipc namespace"},
      {"kernel.shmmni", &SysctlScope::ipc, "an ipc namespace"},
      {"kernel.shm_rmid_forced", &SysctlScope::ipc, "an ipc namespace"},
      {"kernel.msg_next_id", &SysctlScope::ipc, "an ipc namespace"},
      {"kernel.sem_next_id", &SysctlScope::ipc, "an ipc namespace"},
      {"kernel.shm_next_id", &SysctlScope::ipc, "an ipc namespace"},
      {"fs.mqueue.msg_max", &SysctlScope::ipc, "an ipc namespace"},
      {"kernel.domainname", &SysctlScope::uts, "a uts namespace"},
      {"user.max_net_namespaces", &SysctlScope::user, "a user namespace"},
      {"user.max_fanotify_marks", &SysctlScope::user, "a user namespace"},
  };
  for (const auto& c : kCases) {
    SysctlScope only;
    only.*c.scope = true;
    EXPECT_OK(ValidateSysctl(c.name, "1", only)) << c.name;
    SysctlScope others = kAll;
    others.*c.scope = false;
    EXPECT_THAT(ValidateSysctl(c.name, "1", others),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         AllOf(HasSubstr(c.name), HasSubstr(c.kind),
                               HasSubstr("it would change the host's"))));
  }
}

TEST(ValidateSysctlTest, WhatIsTheHostsIsRefused) {
  for (const char* name :
       {"vm.swappiness", "vm.max_map_count", "kernel.pid_max", "kernel.msg",
        "kernel.shmmax2", "kernel.core_pattern", "kernel.sem.x", "fs.file-max",
        "fs.mqueue", "fs.mqueuex.a", "fs.inotify.max_user_watches", "net",
        "netx.ipv4", "dev.cdrom.autoclose", "user.maximum", "kernel.ostype",
        "user.max_x", "abi/vsyscall32", "kernel.modprobe"}) {
    EXPECT_THAT(ValidateSysctl(name, "1", kAll),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(name)));
  }
  EXPECT_THAT(ValidateSysctl("vm.swappiness", "1", kAll),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("belongs to no namespace")));
  for (const char* name :
       {"net.core.rmem_max", "net/netfilter/nf_conntrack_max",
        "net.nf_conntrack_max", "net.ipv4.tcp_mem",
        "net.ipv4.neigh.default.gc_thresh3"}) {
    EXPECT_THAT(ValidateSysctl(name, "1", kAll),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         AllOf(HasSubstr(name), HasSubstr("whole host's"))));
  }
  EXPECT_THAT(ValidateSysctl("kernel.hostname", "web", kAll),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("NamespaceOptions.hostname")));
}

TEST(ValidateSysctlTest, PathsStayBelow) {
  using namespace std::string_literals;
  for (const std::string& name : {""s,
                                  "."s,
                                  "/"s,
                                  ".."s,
                                  "net"s,
                                  "net."s,
                                  "net/"s,
                                  ".net.ipv4.x"s,
                                  "/net/ipv4/x"s,
                                  "/proc/sys/net/x"s,
                                  "net..ipv4"s,
                                  "net//ipv4"s,
                                  "net/../vm/swappiness"s,
                                  "net/./x"s,
                                  "net/.."s,
                                  "net.//.x"s,
                                  "net.ipv4.//.//.vm.swappiness"s,
                                  "net./.x"s,
                                  "net.ipv4.x."s,
                                  "net.ipv4\0.x"s,
                                  "net.ipv4.\n"s,
                                  "net.ipv4.a b"s,
                                  "net.ipv4.\xc3"s,
                                  "fs/mqueue/../file-max"s,
                                  "fs/mqueue/"s}) {
    EXPECT_THAT(ValidateSysctl(name, "1", kAll),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("NamespaceOptions.sysctls: \"")))
        << name;
  }
}

TEST(ValidateSysctlTest, ValuesAreOneLine) {
  using namespace std::string_literals;
  const auto check = [](const std::string& value) {
    return ValidateSysctl("net.ipv4.ip_forward", value, kAll).status();
  };
  EXPECT_OK(check("0"));
  EXPECT_OK(check("250\t32000 32\t128"));
  EXPECT_OK(check(std::string(4095, '1')));
  for (const std::string& bad : {""s, "1\n"s, "1\n2"s, "1\0"s, "\x7f"s, "\xff"s,
                                 std::string(4096, '1')}) {
    EXPECT_THAT(check(bad), StatusIs(absl::StatusCode::kInvalidArgument,
                                     HasSubstr("net.ipv4.ip_forward")));
  }
}

}  // namespace
}  // namespace caisson
