// Kernel parameters of containers, on the real kernel.
#include "lib/namespace/sysctl.h"

#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "caisson/caisson.h"
#include "lib/base/status_matchers.h"
#include "lib/sys/open.h"
#include "tests/support/machine.h"
#include "tests/support/test_root.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::caisson::testing::TestRoot;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr size_t kMaxOutput = 1 << 16;

class SysctlTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    root_ = new TestRoot;
    auto launcher = Launcher::Create();
    ASSERT_OK(launcher);
    launcher_ = new Launcher(*std::move(launcher));
  }

  static void TearDownTestSuite() {
    EXPECT_OK(launcher_->Shutdown());
    delete launcher_;
    delete root_;
  }

  void SetUp() override {
    before_ = testing::TakeHostSnapshot();
    values_ = HostValues();
  }

  void TearDown() override {
    EXPECT_EQ(HostValues(), values_);
    const auto after = testing::TakeHostSnapshot();
    EXPECT_EQ(after.mounts, before_.mounts);
    EXPECT_EQ(after.descriptors, before_.descriptors);
    EXPECT_EQ(after.children, before_.children);
  }

  // What no test may change.
  static std::vector<std::string> HostValues() {
    std::vector<std::string> values;
    for (const char* name :
         {"net/ipv4/ip_default_ttl", "net/core/somaxconn",
          "net/ipv4/conf/lo/log_martians", "kernel/msgmax", "kernel/sem",
          "kernel/shm_rmid_forced", "kernel/domainname", "fs/mqueue/msg_max",
          "user/max_net_namespaces", "user/max_inotify_watches"}) {
      values.push_back(*sys::ReadFileAt(
          BorrowedFd(AT_FDCWD), absl::StrCat("/proc/sys/", name), 0, 4096));
    }
    return values;
  }

  // The output of `script` in a container with these options.
  static absl::StatusOr<std::string> Run(NamespaceOptions options,
                                         RootFsOptions root_options,
                                         const std::string& script) {
    ASSIGN_OR_RETURN(const Namespace ns, Namespace::Create(std::move(options)));
    ASSIGN_OR_RETURN(RootFs root, RootFs::Create(root_options));
    ProcessSpec spec;
    spec.argv = {"sh", "-c", script};
    spec.root = &root;
    spec.namespaces = &ns;
    int fds[2];
    if (::pipe2(fds, O_CLOEXEC) != 0) return absl::InternalError("pipe2");
    const UniqueFd reader(fds[0]);
    UniqueFd writer(fds[1]);
    spec.out = Stdio::Inherit(writer.borrow());
    spec.err = Stdio::Inherit(writer.borrow());
    ASSIGN_OR_RETURN(Process process, launcher_->Start(spec));
    writer.reset();
    ASSIGN_OR_RETURN(std::string output,
                     sys::ReadAll(reader.borrow(), kMaxOutput, "output"));
    RETURN_IF_ERROR(process.Wait().status());
    return output;
  }

  static absl::StatusOr<std::string> Run(std::vector<Sysctl> sysctls,
                                         const std::string& script) {
    NamespaceOptions options;
    options.sysctls = std::move(sysctls);
    return Run(std::move(options), root_->Options(), script);
  }

  // The same with a user namespace whose ids are of a pool.
  static absl::StatusOr<std::string> RunAsUser(std::vector<Sysctl> sysctls,
                                               const std::string& script) {
    std::string state = ::testing::TempDir() + "sysctl-ids-XXXXXX";
    if (::mkdtemp(state.data()) == nullptr) return absl::InternalError(state);
    ASSIGN_OR_RETURN(
        IdRangePool pool,
        IdRangePool::Open({.directory = state, .range = {1000000000, 65536}}));
    ASSIGN_OR_RETURN(const IdRangeLease lease, pool.Allocate());
    NamespaceOptions options;
    options.sysctls = std::move(sysctls);
    ASSIGN_OR_RETURN(options.user, launcher_->NewUserNamespace(lease.uids()));
    ASSIGN_OR_RETURN(const UniqueFd user,
                     sys::Duplicate(options.user.borrow()));
    RootFsOptions root = root_->Options();
    root.idmap_user_namespace = user.borrow();
    root.root_uid = lease.uids().outside;
    root.root_gid = lease.gids().outside;
    return Run(std::move(options), std::move(root), script);
  }

  static TestRoot* root_;
  static Launcher* launcher_;
  testing::HostSnapshot before_;
  std::vector<std::string> values_;
};

TestRoot* SysctlTest::root_ = nullptr;
Launcher* SysctlTest::launcher_ = nullptr;

TEST_F(SysctlTest, HoldInsideAndNowhereElse) {
  ASSERT_OK_AND_ASSIGN(
      const std::string output,
      Run({{"net.ipv4.ip_default_ttl", "33"},
           {"net/core/somaxconn", "777"},
           {"net.ipv4.conf.lo.log_martians", "1"},
           {"kernel.msgmax", "12345"},
           {"kernel.sem", "251 32001\t33 129"},
           {"kernel.shm_rmid_forced", "1"},
           {"kernel.domainname", "inside.test"},
           {"fs.mqueue.msg_max", "21"}},
          "cd /proc/sys; cat net/ipv4/ip_default_ttl net/core/somaxconn "
          "net/ipv4/conf/lo/log_martians kernel/msgmax kernel/sem "
          "kernel/shm_rmid_forced kernel/domainname fs/mqueue/msg_max; "
          "echo 44 > net/ipv4/ip_default_ttl"));
  // They are read-only for the container itself.
  EXPECT_THAT(output, ::testing::StartsWith(
                          "33\n777\n1\n12345\n251\t32001\t33\t129\n1\n"
                          "inside.test\n21\n"));
  EXPECT_THAT(output, HasSubstr("Read-only file system"));
}

TEST_F(SysctlTest, NextContainerHasTheDefaults) {
  ASSERT_OK(Run({{"net.ipv4.ip_default_ttl", "33"}}, "true"));
  ASSERT_OK_AND_ASSIGN(const std::string output,
                       Run({}, "cat /proc/sys/net/ipv4/ip_default_ttl"));
  EXPECT_EQ(output, "64\n");
}

TEST_F(SysctlTest, UserNamespaceHasItsOwn) {
  NEED_KERNEL(6, 15);
  ASSERT_OK_AND_ASSIGN(
      const std::string output,
      RunAsUser({{"net.ipv4.ip_default_ttl", "33"},
                 {"user.max_net_namespaces", "7"},
                 {"user.max_inotify_watches", "99"},
                 {"kernel.domainname", "inside.test"}},
                "cd /proc/sys; cat net/ipv4/ip_default_ttl "
                "user/max_net_namespaces user/max_inotify_watches "
                "kernel/domainname; cat /proc/self/uid_map"));
  EXPECT_THAT(output, AllOf(::testing::StartsWith("33\n7\n99\ninside.test\n"),
                            HasSubstr("1000000000")));
}

// Not on older kernels; the error says so then.
TEST_F(SysctlTest, IpcOfAUserNamespace) {
  NEED_KERNEL(6, 15);
  const auto output =
      RunAsUser({{"kernel.msgmax", "12345"}, {"fs.mqueue.msg_max", "21"}},
                "cat /proc/sys/kernel/msgmax /proc/sys/fs/mqueue/msg_max");
  if (output.ok()) {
    EXPECT_EQ(*output, "12345\n21\n");
  } else {
    EXPECT_THAT(output, StatusIs(absl::StatusCode::kPermissionDenied,
                                 AllOf(HasSubstr("kernel.msgmax"),
                                       HasSubstr("older kernels"))));
  }
}

TEST_F(SysctlTest, RefusedValueNamesTheParameter) {
  const auto result = Run({{"net.ipv4.ip_default_ttl", "256"}}, "true");
  EXPECT_THAT(
      result,
      StatusIs(absl::StatusCode::kInvalidArgument,
               AllOf(HasSubstr("write(\"/proc/sys/net/ipv4/ip_default_ttl\", "
                               "\"256\"): EINVAL"),
                     HasSubstr("\"net.ipv4.ip_default_ttl\""))));
  const auto detail = GetErrorDetail(result.status());
  ASSERT_TRUE(detail.has_value());
  EXPECT_EQ(detail->step, "namespaces");
  EXPECT_EQ(detail->path, "/proc/sys/net/ipv4/ip_default_ttl");
}

TEST_F(SysctlTest, UnknownParameterIsExplained) {
  EXPECT_THAT(Run({{"net.ipv4.no_such_thing", "1"}}, "true"),
              StatusIs(absl::StatusCode::kNotFound,
                       AllOf(HasSubstr("ENOENT"),
                             HasSubstr("\"net.ipv4.no_such_thing\""))));
  EXPECT_THAT(Run({{"kernel.domainname", std::string(65, 'a')}}, "true"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("at most 64 bytes")));
}

// The list of those that are the host's must not grow stale.
TEST_F(SysctlTest, WhateverANetworkNamespaceHasIsAccepted) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    EXPECT_EQ(::unshare(CLONE_NEWNET), 0);
    int count = 0;
    const std::string base = "/proc/sys/";
    for (const auto& entry :
         std::filesystem::recursive_directory_iterator(base + "net")) {
      struct stat info;
      EXPECT_EQ(::stat(entry.path().c_str(), &info), 0);
      if (!S_ISREG(info.st_mode) || (info.st_mode & 0200) == 0) continue;
      ++count;
      EXPECT_OK(ValidateSysctl(entry.path().string().substr(base.size()), "1",
                               {.net = true}));
    }
    EXPECT_GT(count, 100);
    ::_exit(HasFailure() ? 1 : 0);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace caisson
