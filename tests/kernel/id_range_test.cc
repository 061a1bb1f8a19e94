// Containers with ids of their own: who owns what, inside and outside.
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <optional>
#include <string>
#include <utility>

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
using ::testing::Not;

constexpr size_t kMaxOutput = 1 << 16;

class IdRangeTest : public ::testing::Test {
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
    directory_ = absl::StrCat(::testing::TempDir(), "id-range-XXXXXX");
    ASSERT_NE(::mkdtemp(directory_.data()), nullptr);
    ASSERT_EQ(::chmod(directory_.c_str(), 0755), 0);
    // Where every container may write, as in a shared volume.
    ASSERT_EQ(::mkdir(Shared("").c_str(), 0777), 0);
    ASSERT_EQ(::chmod(Shared("").c_str(), 0777), 0);
    auto pool = IdRangePool::Open(
        {.directory = directory_ + "/ids", .range = {1000000000, 2 * 65536}});
    ASSERT_OK(pool);
    pool_.emplace(*std::move(pool));
  }

  void TearDown() override {
    pool_.reset();
    std::filesystem::remove_all(directory_);
    const auto after = testing::TakeHostSnapshot();
    EXPECT_EQ(after.mounts, before_.mounts);
    EXPECT_EQ(after.descriptors, before_.descriptors);
    EXPECT_EQ(after.children, before_.children);
  }

  std::string Shared(const std::string& file) const {
    return absl::StrCat(directory_, "/shared/", file);
  }

  // What `script` prints as `user` in a container that maps `lease`.
  absl::StatusOr<std::string> Run(const IdRangeLease& lease,
                                  const std::string& user,
                                  const std::string& script) {
    ASSIGN_OR_RETURN(UniqueFd ns_fd, launcher_->NewUserNamespace(lease.uids()));
    RootFsOptions root_options = root_->Options();
    root_options.idmap_user_namespace = ns_fd.borrow();
    root_options.root_uid = lease.uids().outside;
    root_options.root_gid = lease.gids().outside;
    root_options.binds.push_back(
        {.destination = "/shared", .source = Shared("")});
    NamespaceOptions options;
    ASSIGN_OR_RETURN(options.user, sys::Duplicate(ns_fd.borrow()));
    ASSIGN_OR_RETURN(const Namespace ns, Namespace::Create(std::move(options)));
    ASSIGN_OR_RETURN(RootFs root, RootFs::Create(root_options));
    int fds[2];
    if (::pipe2(fds, O_CLOEXEC) != 0) return absl::InternalError("pipe2");
    const UniqueFd reader(fds[0]);
    UniqueFd writer(fds[1]);
    ProcessSpec spec;
    spec.argv = {"sh", "-c", script};
    spec.user = user;
    spec.root = &root;
    spec.namespaces = &ns;
    spec.out = Stdio::Inherit(writer.borrow());
    spec.err = Stdio::Inherit(writer.borrow());
    ASSIGN_OR_RETURN(Process process, launcher_->Start(spec));
    writer.reset();
    ASSIGN_OR_RETURN(std::string output,
                     sys::ReadAll(reader.borrow(), kMaxOutput, "output"));
    RETURN_IF_ERROR(process.Wait().status());
    return output;
  }

  static TestRoot* root_;
  static Launcher* launcher_;
  testing::HostSnapshot before_;
  std::string directory_;
  std::optional<IdRangePool> pool_;
};

TestRoot* IdRangeTest::root_ = nullptr;
Launcher* IdRangeTest::launcher_ = nullptr;

TEST_F(IdRangeTest, FilesBelongToTheRangeOutside) {
  NEED_KERNEL(6, 15);
  ASSERT_OK_AND_ASSIGN(const IdRangeLease lease, pool_->Allocate());
  ASSERT_OK_AND_ASSIGN(
      std::string output,
      Run(lease, "", "touch /shared/root; stat -c '%u %g' /shared/root"));
  EXPECT_EQ(output, "0 0\n");
  ASSERT_OK_AND_ASSIGN(
      output, Run(lease, "user",
                  "touch /shared/user; stat -c '%u %g' /shared/user; id -G"));
  EXPECT_EQ(output, "1000 1001\n1001 1002\n");
  const uint32_t first = lease.uids().outside;
  struct stat info;
  ASSERT_EQ(::stat(Shared("root").c_str(), &info), 0);
  EXPECT_EQ(info.st_uid, first);
  EXPECT_EQ(info.st_gid, lease.gids().outside);
  ASSERT_EQ(::stat(Shared("user").c_str(), &info), 0);
  EXPECT_EQ(info.st_uid, first + 1000);
  EXPECT_EQ(info.st_gid, lease.gids().outside + 1001);
}

TEST_F(IdRangeTest, RootOfOneContainerIsNobodyInAnother) {
  NEED_KERNEL(6, 15);
  ASSERT_OK_AND_ASSIGN(const IdRangeLease one, pool_->Allocate());
  ASSERT_OK_AND_ASSIGN(const IdRangeLease other, pool_->Allocate());
  ASSERT_OK(Run(one, "",
                "umask 077; echo secret > /shared/file; mkdir /shared/dir; "
                "touch /shared/dir/file"));
  ASSERT_OK_AND_ASSIGN(
      const std::string output,
      Run(other, "",
          "stat -c '%u %g' /shared/file; cat /shared/file; "
          "echo x >> /shared/file; chmod 777 /shared/file; ls /shared/dir; "
          "grep CapEff /proc/self/status"));
  EXPECT_THAT(output, AllOf(::testing::StartsWith("65534 65534\n"),
                            Not(HasSubstr("secret")),
                            // It has CAP_DAC_OVERRIDE and CAP_FOWNER, but
                            // over ids of its own alone.
                            HasSubstr("CapEff:\t00000000a80425fb")));
  EXPECT_EQ(*sys::ReadFileAt(BorrowedFd(AT_FDCWD), Shared("file"), 0, 64),
            "secret\n");
  struct stat info;
  ASSERT_EQ(::stat(Shared("file").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0600u);
  // Its owner can.
  ASSERT_OK_AND_ASSIGN(const std::string again,
                       Run(one, "", "cat /shared/file"));
  EXPECT_EQ(again, "secret\n");
}

TEST_F(IdRangeTest, GroupsCanBeSetWithinTheRangeOnly) {
  NEED_KERNEL(6, 15);
  ASSERT_OK_AND_ASSIGN(const IdRangeLease lease, pool_->Allocate());
  ASSERT_OK_AND_ASSIGN(const std::string output,
                       Run(lease, "", "cat /proc/self/setgroups"));
  EXPECT_EQ(output, "allow\n");
  EXPECT_OK(Run(lease, "65535:65535", "true"));
  EXPECT_THAT(Run(lease, "65536:0", "true"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("not mapped in the user namespace")));
  EXPECT_THAT(Run(lease, "0:65536", "true"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("not mapped in the user namespace")));
}

}  // namespace
}  // namespace caisson
