// Roots of a host without privileges, on this kernel and, as far as it can act
// like them, on older ones.
#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/base/status_matchers.h"
#include "lib/launcher/remote_mounts.h"
#include "lib/launcher/session.h"
#include "lib/rootfs/built_root.h"
#include "lib/sys/open.h"
#include "tests/support/ordinary_user.h"
#include "tests/support/test_root.h"

namespace caisson::rootfs {
namespace {

using ::caisson::launcher::RemoteMounts;
using ::caisson::launcher::Session;
using ::caisson::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr KernelLimits kLinux5_15 = {.attached_mounts_only = true,
                                     .layer_syntax = LayerSyntax::kJoined};

constexpr char kScript[] =
    "echo x > /dev/null && head -c 3 /dev/zero | wc -c; stat -c %t:%T "
    "/dev/tty; cat /etc/hosts | head -n 1; wc -c < /proc/keys; (echo x > "
    "/proc/keys) 2>&1; ls -A /sys/firmware; touch /x; ls /x /data";

class UnprivilegedTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto created = Session::CreateInUserNamespace(LauncherIds::kOwn);
    ASSERT_OK(created);
    auto shared = created->launcher.Share();
    ASSERT_OK(shared);
    options_ = root_.Options();
    options_.writes = RootWrites::kInPlace;
    options_.binds = {
        {.destination = "/data", .source = root_.path() + "/home"}};
    options_.mounts = std::make_shared<RemoteMounts>(
        *std::move(shared), std::move(created->mounts), created->identity);
    session_.emplace(std::move(created->launcher));
  }

  void TearDown() override {
    if (!session_.has_value()) return;
    EXPECT_OK(session_->Close(/*wait=*/true));
  }

  // The output of kScript in a root of options_.
  absl::StatusOr<std::string> Run(const KernelLimits& limits) {
    ASSIGN_OR_RETURN(const auto root, BuiltRoot::Build(options_, limits));
    int fds[2];
    if (::pipe2(fds, O_CLOEXEC) != 0) return ErrnoError(errno, "pipe2()");
    const UniqueFd output(fds[0]);
    {
      plan::PlanBuilder plan;
      plan.Step("namespaces");
      plan.set_clone_flags(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWPID |
                           CLONE_NEWIPC | CLONE_NEWNET);
      RETURN_IF_ERROR(root->AddTo(plan, {}).status());
      const plan::Slot out = plan.Send(UniqueFd(fds[1]));
      for (int i = 0; i < 3; ++i) plan.Call(SYS_dup3, {out, i, 0}, "dup3()");
      plan.CloseDescriptors();
      plan.Step("exec");
      plan.Exec(
          SYS_execve,
          {plan.String("/bin/sh"), plan.StringArray({"sh", "-c", kScript}),
           plan.StringArray({"PATH=/bin"})},
          "execve(\"/bin/sh\")", /*try_next=*/false);
      RETURN_IF_ERROR(session_->Run(plan).status());
    }
    root->MarkAttached();
    return sys::ReadAll(output.borrow(), 1 << 16, "output");
  }

  testing::TestRoot root_;
  RootFsOptions options_;
  std::optional<Session> session_;
};

TEST_F(UnprivilegedTest, OneLayerOnEveryKernel) {
  root_.Write("home/file", "");
  ASSERT_OK_AND_ASSIGN(const std::string now, Run({}));
  EXPECT_THAT(now, AllOf(HasSubstr("3\n5:0\n127.0.0.1"), HasSubstr("\n0\n"),
                         HasSubstr("keys: Read-only file system"),
                         HasSubstr("/x\n\n/data:\nfile\n")));
  ASSERT_OK_AND_ASSIGN(const std::string then, Run(kLinux5_15));
  EXPECT_EQ(then, now);
}

TEST_F(UnprivilegedTest, ReadOnlyOnEveryKernel) {
  for (const char* name : {"proc", "sys", "dev", "data"}) {
    ASSERT_EQ(::mkdir(absl::StrCat(root_.path(), "/", name).c_str(), 0755), 0);
  }
  root_.Write("etc/hosts", "");
  root_.Write("etc/resolv.conf", "");
  options_.writes = RootWrites::kNone;
  ASSERT_OK_AND_ASSIGN(const std::string now, Run({}));
  EXPECT_THAT(now, HasSubstr("touch: /x: Read-only file system"));
  ASSERT_OK_AND_ASSIGN(const std::string then, Run(kLinux5_15));
  EXPECT_EQ(then, now);
}

TEST_F(UnprivilegedTest, OverlayOnOlderKernelsSaysWhatItNeeds) {
  options_.writes = RootWrites::kNone;
  options_.layers.push_back(root_.fd());
  EXPECT_THAT(Run(kLinux5_15),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("an overlay of a host without privileges "
                                 "needs Linux 6.15")));
}

}  // namespace
}  // namespace caisson::rootfs

int main(int argc, char** argv) {
  return caisson::testing::RunTestsAsOrdinaryUser(argc, argv);
}
