#include "caisson/namespace.h"

#include <fcntl.h>
#include <sched.h>

#include <string>
#include <utility>

#include "lib/base/status_matchers.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::HasSubstr;

absl::Status Check(NamespaceOptions options) {
  return Namespace::Create(std::move(options)).status();
}

NamespaceOptions WithHostname(const std::string& name) {
  NamespaceOptions options;
  options.hostname = name;
  return options;
}

TEST(NamespaceTest, EverythingIsNewByDefault) {
  ASSERT_OK_AND_ASSIGN(Namespace ns, Namespace::Create({}));
  EXPECT_EQ(ns.clone_flags(), uint64_t{CLONE_NEWNS} | CLONE_NEWPID |
                                  CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET);
}

TEST(NamespaceTest, SharedKindsAreNotCloned) {
  NamespaceOptions options;
  options.net = NamespaceSource::ShareWithHost();
  ASSERT_OK_AND_ASSIGN(Namespace ns, Namespace::Create(std::move(options)));
  EXPECT_EQ(ns.clone_flags() & CLONE_NEWNET, 0u);
}

TEST(NamespaceTest, HostnamesAreChecked) {
  EXPECT_OK(Check(WithHostname("web-1.example")));
  for (const char* bad : {"a b", "a/b", "-a", ".a", "a\n", "\xff"}) {
    EXPECT_THAT(Check(WithHostname(bad)),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("NamespaceOptions.hostname")))
        << bad;
  }
  EXPECT_OK(Check(WithHostname(std::string(64, 'a'))));
  EXPECT_THAT(Check(WithHostname(std::string(65, 'a'))),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("65")));
}

TEST(NamespaceTest, HostIsNeverRenamed) {
  NamespaceOptions options = WithHostname("web");
  options.uts = NamespaceSource::ShareWithHost();
  EXPECT_THAT(Check(std::move(options)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("would rename the host")));
}

TEST(NamespaceTest, UserNamespaceIsCheckedForItsKind) {
  NamespaceOptions options;
  options.user = UniqueFd(::open("/proc/self/ns/uts", O_RDONLY | O_CLOEXEC));
  EXPECT_THAT(Check(std::move(options)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("of kind uts, not user")));
  NamespaceOptions file;
  file.user = UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  EXPECT_THAT(Check(std::move(file)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("NamespaceOptions.user is no namespace")));
}

TEST(NamespaceTest, JoinedNamespacesAreCheckedForTheirKind) {
  ASSERT_OK_AND_ASSIGN(UniqueFd net,
                       OpenNamespace("/proc/self/ns/net", NamespaceKind::kNet));
  NamespaceOptions options;
  options.net = NamespaceSource::Join(std::move(net));
  ASSERT_OK_AND_ASSIGN(Namespace ns, Namespace::Create(std::move(options)));
  EXPECT_EQ(ns.clone_flags() & CLONE_NEWNET, 0u);

  ASSERT_OK_AND_ASSIGN(UniqueFd ipc,
                       OpenNamespace("/proc/self/ns/ipc", NamespaceKind::kIpc));
  NamespaceOptions wrong;
  wrong.net = NamespaceSource::Join(std::move(ipc));
  EXPECT_THAT(Check(std::move(wrong)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("NamespaceOptions.net is a namespace of kind "
                                 "ipc, not net")));
}

TEST(NamespaceTest, PathsAreCheckedForTheirKind) {
  EXPECT_THAT(OpenNamespace("/proc/self/ns/uts", NamespaceKind::kNet),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("of kind uts, not net")));
  EXPECT_THAT(OpenNamespace("/dev/null", NamespaceKind::kNet),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("\"/dev/null\" is no namespace")));
  EXPECT_THAT(OpenNamespace("/nowhere", NamespaceKind::kNet),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/nowhere")));
}

TEST(NamespaceTest, HostsMountAndPidNamespacesAreNotShared) {
  NamespaceOptions mount;
  mount.mount = NamespaceSource::ShareWithHost();
  EXPECT_THAT(Check(std::move(mount)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("NamespaceOptions.mount cannot be")));
  NamespaceOptions pid;
  pid.pid = NamespaceSource::ShareWithHost();
  EXPECT_THAT(Check(std::move(pid)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("NamespaceOptions.pid cannot be")));
}

TEST(NamespaceTest, TimeOffsetsNeedANewTimeNamespace) {
  NamespaceOptions options;
  options.boottime_offset = absl::Hours(1);
  EXPECT_THAT(Check(std::move(options)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("need a new time namespace")));
}

TEST(NamespaceTest, UserNamespaceOwnsWhatItIsUsedWith) {
  NamespaceOptions options;
  options.user = UniqueFd(::open("/proc/self/ns/user", O_RDONLY | O_CLOEXEC));
  options.ipc = NamespaceSource::ShareWithHost();
  EXPECT_THAT(Check(std::move(options)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("NamespaceOptions.ipc")));
}

TEST(NamespaceTest, SysctlsAreChecked) {
  NamespaceOptions good;
  good.sysctls = {{"net.ipv4.ip_forward", "1"}, {"kernel.sem", "1 2 3 4"}};
  EXPECT_OK(Check(std::move(good)));
  NamespaceOptions shared;
  shared.net = NamespaceSource::ShareWithHost();
  shared.sysctls = {{"net.ipv4.ip_forward", "1"}};
  EXPECT_THAT(Check(std::move(shared)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("needs a network namespace of its own")));
  NamespaceOptions user;
  user.sysctls = {{"user.max_net_namespaces", "1"}};
  EXPECT_THAT(Check(std::move(user)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("needs a user namespace of its own")));
  NamespaceOptions twice;
  twice.sysctls = {{"net.ipv4.ip_forward", "1"}, {"net/ipv4/ip_forward", "0"}};
  EXPECT_THAT(Check(std::move(twice)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("\"net/ipv4/ip_forward\" is there twice")));
}

}  // namespace
}  // namespace caisson
