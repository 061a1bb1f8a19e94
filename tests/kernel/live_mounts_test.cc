// Mounts that are added to and removed from a running container.
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "caisson/caisson.h"
#include "lib/sys/open.h"
#include "tests/support/container_test.h"
#include "tests/support/machine.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kForever[] = "echo ready; while :; do sleep 1000; done";

class LiveMountsTest : public testing::ContainerTest {
 protected:
  void SetUp() override {
    ContainerTest::SetUp();
    source_ = root_->path() + "/../source";
    ASSERT_EQ(::mkdir(source_.c_str(), 0755), 0);
    Write("file", "from the host\n");
  }
  void TearDown() override {
    ::unlink((source_ + "/file").c_str());
    ::unlink((source_ + "/written").c_str());
    ::rmdir(source_.c_str());
    ContainerTest::TearDown();
  }
  void Write(const std::string& name, const std::string& text) {
    const std::string path = source_ + "/" + name;
    UniqueFd file(::open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
    ASSERT_OK(sys::WriteAll(file.borrow(), text, path));
  }

  std::string source_;
};

TEST_F(LiveMountsTest, BindComesAndGoes) {
  ASSERT_OK_AND_ASSIGN(Running container, StartUntilOutput(Shell(kForever)));
  ASSERT_OK(launcher_->AddMount(
      *container.process,
      BindMount{.destination = "/deep/new/place", .source = source_}));
  EXPECT_EQ(ExecOutput(*container.process,
                       "cat /deep/new/place/file; "
                       "echo x > /deep/new/place/written && echo written"),
            "from the host\nwritten\n");
  ASSERT_OK(launcher_->RemoveMount(*container.process, "/deep/new/place"));
  EXPECT_EQ(ExecOutput(*container.process, "ls /deep/new/place"), "");
  EXPECT_THAT(launcher_->RemoveMount(*container.process, "/deep/new/place"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("nothing that could be removed is mounted")));
}

TEST_F(LiveMountsTest, ReadOnlyFile) {
  ASSERT_OK_AND_ASSIGN(Running container, StartUntilOutput(Shell(kForever)));
  ASSERT_OK(launcher_->AddMount(*container.process,
                                BindMount{.destination = "/etc/one-file",
                                          .source = source_ + "/file",
                                          .read_only = true}));
  EXPECT_THAT(ExecOutput(*container.process,
                         "cat /etc/one-file; echo x >> /etc/one-file"),
              HasSubstr("from the host\nsh: can't create /etc/one-file"));
  ASSERT_OK(launcher_->RemoveMount(*container.process, "/etc/one-file"));
  EXPECT_EQ(ExecOutput(*container.process, "cat /etc/one-file"), "");
}

TEST_F(LiveMountsTest, Tmpfs) {
  ASSERT_OK_AND_ASSIGN(Running container, StartUntilOutput(Shell(kForever)));
  ASSERT_OK(launcher_->AddMount(
      *container.process,
      TmpfsMount{.destination = "/scratch", .size_bytes = 1 << 20}));
  EXPECT_THAT(ExecOutput(*container.process, "df -k /scratch | tail -n 1"),
              HasSubstr(" 1024 "));
  ASSERT_OK(launcher_->RemoveMount(*container.process, "/scratch"));
}

TEST_F(LiveMountsTest, InAUserNamespace) {
  NEED_KERNEL(6, 15);
  ASSERT_OK_AND_ASSIGN(UniqueFd user,
                       launcher_->NewUserNamespace({0, 300000, 65536}));
  NamespaceOptions options;
  ASSERT_OK_AND_ASSIGN(options.user, sys::Duplicate(user.borrow()));
  ASSERT_OK_AND_ASSIGN(Namespace ns, Namespace::Create(std::move(options)));
  RootFsOptions root_options = root_->Options();
  root_options.root_uid = root_options.root_gid = 300000;
  root_options.idmap_user_namespace = user.borrow();
  ASSERT_OK_AND_ASSIGN(RootFs root, RootFs::Create(root_options));
  ProcessSpec spec = Shell("sleep 1000");
  spec.root = &root;
  spec.namespaces = &ns;
  ASSERT_OK_AND_ASSIGN(Process process, launcher_->Start(spec));
  ASSERT_OK(launcher_->AddMount(
      process, BindMount{.destination = "/made/here", .source = source_}));
  EXPECT_EQ(ExecOutput(process, "cat /made/here/file; stat -c %u /made"),
            "from the host\n0\n");
  ASSERT_OK(launcher_->RemoveMount(process, "/made/here"));
  EXPECT_EQ(ExecOutput(process, "ls /made/here"), "");
}

// ---- What a container could do to it ---------------------------------------

TEST_F(LiveMountsTest, LinksLeadNowhereOutside) {
  const std::string outside = root_->path() + "/../outside";
  ASSERT_OK_AND_ASSIGN(
      Running container,
      StartUntilOutput(Shell(absl::StrCat(
          "ln -s ", outside, " /link; ln -s /proc/1/root/", outside,
          " /magic; ln -s ../../../../../../../.. /up; echo; sleep 1000"))));
  ASSERT_OK(launcher_->AddMount(
      *container.process,
      BindMount{.destination = "/link/x", .source = source_}));
  EXPECT_NE(::access(outside.c_str(), F_OK), 0);
  EXPECT_FALSE(
      launcher_
          ->AddMount(*container.process,
                     BindMount{.destination = "/magic/x", .source = source_})
          .ok());
  ASSERT_OK(launcher_->AddMount(
      *container.process,
      BindMount{.destination = "/up/tmp/x", .source = source_}));
  EXPECT_EQ(ExecOutput(*container.process, "cat /tmp/x/file"),
            "from the host\n");
  EXPECT_NE(::access("/tmp/x/file", F_OK), 0);
}

TEST_F(LiveMountsTest, ProcIsNeitherCoveredNorUncovered) {
  ASSERT_OK_AND_ASSIGN(Running container, StartUntilOutput(Shell(kForever)));
  for (const char* place : {"/proc", "/proc/self", "/proc/sys", "/sys/fs"}) {
    EXPECT_FALSE(
        launcher_
            ->AddMount(*container.process,
                       BindMount{.destination = place, .source = source_})
            .ok())
        << place;
  }
  // A read-only part of /proc stays one.
  EXPECT_THAT(launcher_->RemoveMount(*container.process, "/proc/sys"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("/proc or /sys")));
  for (const char* place : {"/proc", "/sys"}) {
    EXPECT_THAT(launcher_->RemoveMount(*container.process, place),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("/proc or /sys")));
  }
  EXPECT_THAT(launcher_->RemoveMount(*container.process, "/"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("\"/\" names no mount point")));
}

TEST_F(LiveMountsTest, MasksStay) {
  ASSERT_OK_AND_ASSIGN(
      Running container,
      StartUntilOutput(Shell("ln -s /proc/keys /keys; ln -s /proc /p; echo; "
                             "while :; do sleep 1000; done")));
  // A masked file is a mount of another file system.
  for (const char* way : {"/proc/keys", "/keys", "/p/keys", "/p/../p/keys"}) {
    EXPECT_FALSE(launcher_->RemoveMount(*container.process, way).ok()) << way;
  }
  EXPECT_EQ(ExecOutput(*container.process, "wc -c < /proc/keys"), "0\n");
}

// What enters the mount namespace later has what lies over its root as root.
TEST_F(LiveMountsTest, RootIsNotCovered) {
  ASSERT_OK_AND_ASSIGN(
      Running container,
      StartUntilOutput(Shell("ln -s / /link; ln -s ../../.. /up; echo; "
                             "while :; do sleep 1000; done")));
  for (const char* way : {"/", "/link", "/up", "/tmp/.."}) {
    EXPECT_THAT(
        launcher_->AddMount(*container.process,
                            BindMount{.destination = way, .source = source_}),
        StatusIs(absl::StatusCode::kFailedPrecondition,
                 HasSubstr("is its root")))
        << way;
    EXPECT_FALSE(
        launcher_->AddMount(*container.process, TmpfsMount{.destination = way})
            .ok())
        << way;
  }
  EXPECT_EQ(ExecOutput(*container.process, "ls -d /link"), "/link\n");
}

// There it would be privileged enough to make the mount writable.
TEST_F(LiveMountsTest, MountNamespaceOfItsOwnGetsNothing) {
  SecurityOptions options;
  options.unsafe_seccomp = SeccompUnconfined{};
  ASSERT_OK_AND_ASSIGN(const SecurityPolicy policy,
                       SecurityPolicy::Create(std::move(options)));
  ProcessSpec spec = Shell(
      "exec /bin/busybox unshare -r -m /bin/sh -c "
      "'echo ready; while :; do sleep 1000; done'");
  spec.security = &policy;
  ASSERT_OK_AND_ASSIGN(Running container, StartUntilOutput(spec));
  EXPECT_THAT(
      launcher_->AddMount(*container.process,
                          BindMount{.destination = "/x", .source = source_}),
      StatusIs(absl::StatusCode::kFailedPrecondition,
               HasSubstr("has left that of the container")));
}

TEST_F(LiveMountsTest, ContainerThatHasEnded) {
  ASSERT_OK_AND_ASSIGN(Running container, StartUntilOutput(Shell(kForever)));
  ASSERT_OK(container.process->Destroy());
  EXPECT_THAT(
      launcher_->AddMount(*container.process,
                          BindMount{.destination = "/x", .source = source_}),
      StatusIs(absl::StatusCode::kNotFound, HasSubstr("has ended")));
}

TEST_F(LiveMountsTest, BadRequestsAreExplained) {
  ASSERT_OK_AND_ASSIGN(Running container, StartUntilOutput(Shell(kForever)));
  EXPECT_THAT(
      launcher_->AddMount(*container.process,
                          BindMount{.destination = "x", .source = source_}),
      StatusIs(absl::StatusCode::kInvalidArgument,
               HasSubstr("\"x\" is not an absolute path")));
  EXPECT_THAT(
      launcher_->AddMount(*container.process,
                          BindMount{.destination = "/x", .source = "/nowhere"}),
      StatusIs(absl::StatusCode::kNotFound, HasSubstr("/nowhere")));
}

}  // namespace
}  // namespace caisson
