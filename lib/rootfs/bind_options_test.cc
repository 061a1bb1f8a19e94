// What a bind mount can be asked for beside its source and place.
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status_matchers.h"
#include "lib/rootfs/test_container.h"
#include "lib/sys/open.h"

namespace caisson::rootfs {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr uint32_t kFirst = 100000;

// The lines of mountinfo for a mount point.
std::string MountLine(const char* path) {
  return absl::StrCat("while read -r l; do case $l in *' ", path,
                      " '*) echo \"$l\";; esac; done < /proc/self/mountinfo\n");
}

class BindOptionsTest : public RootFsTestBase,
                        public ::testing::WithParamInterface<KernelLimits> {
 protected:
  KernelLimits limits() const override { return GetParam(); }

  // A tmpfs on `path`, whatever the propagation of what it is mounted in.
  void MountTmpfs(const std::string& path, unsigned long propagation) {
    ASSERT_EQ(::mount("none", path.c_str(), "tmpfs", 0, nullptr), 0);
    ASSERT_EQ(::mount(nullptr, path.c_str(), nullptr, propagation, nullptr), 0);
    RememberMounts();
  }
  void Unmount(const std::string& path) {
    EXPECT_EQ(::umount2(path.c_str(), MNT_DETACH), 0) << path;
    RememberMounts();
  }

  // What a container sees in sub/ of its bind mount of `source` after the host
  // mounted something there.
  std::string SeenAfterMountOnHost(const std::string& source,
                                   MountPropagation propagation) {
    RootFsOptions options = BaseOptions();
    options.binds = {
        {.destination = "/srv", .source = source, .propagation = propagation}};
    auto root = BuiltRoot::Build(options, limits());
    EXPECT_OK(root);
    if (!root.ok()) return "";
    const std::string sub = source + "/sub";
    std::thread host([&] {
      for (int i = 0; i < 1000; ++i) {
        if (::access((source + "/ready").c_str(), F_OK) == 0) break;
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
      }
      EXPECT_EQ(::mount("none", sub.c_str(), "tmpfs", 0, nullptr), 0);
      std::ofstream(sub + "/from-host") << "x";
      std::ofstream(source + "/go") << "x";
    });
    const auto result =
        Run(**root,
            "touch /srv/ready; i=0; until [ -e /srv/go ] || [ $i = 1000 ]; do "
            "busybox sleep 0.01; i=$((i+1)); done; ls /srv/sub");
    host.join();
    EXPECT_OK(result);
    EXPECT_EQ(::umount2(sub.c_str(), MNT_DETACH), 0);
    return result.ok() ? result->output : "";
  }
};

INSTANTIATE_TEST_SUITE_P(Kernels, BindOptionsTest,
                         ::testing::ValuesIn(AllKernels()), KernelName);

TEST_P(BindOptionsTest, PrivateSeesNothingOfTheHostsLaterMounts) {
  const std::string source = MakeLayer("source", {"sub/"});
  EXPECT_EQ(SeenAfterMountOnHost(source, MountPropagation::kPrivate), "");
}

TEST_P(BindOptionsTest, SlaveSeesTheHostsLaterMounts) {
  const std::string source = MakeLayer("source", {"sub/"});
  EXPECT_EQ(SeenAfterMountOnHost(source, MountPropagation::kUnsafeSlave),
            "from-host\n");
}

TEST_P(BindOptionsTest, SlaveSendsNothingToTheHost) {
  const std::string source = MakeLayer("source", {"sub/"});
  RootFsOptions options = BaseOptions();
  options.binds = {{.destination = "/srv",
                    .source = source,
                    .propagation = MountPropagation::kUnsafeSlave}};
  // RunWith() compares the host's mounts.
  const ScriptResult result =
      RunWith(options, "mount -t tmpfs none /srv/sub && touch /srv/sub/x");
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_NE(::access((source + "/sub/x").c_str(), F_OK), 0);
}

TEST_P(BindOptionsTest, SharedSendsMountsToTheHost) {
  const std::string source = MakeLayer("source", {"sub/"});
  RootFsOptions options = BaseOptions();
  options.binds = {{.destination = "/srv",
                    .source = source,
                    .propagation = MountPropagation::kUnsafeShared}};
  ASSERT_OK_AND_ASSIGN(auto root, BuiltRoot::Build(options, limits()));
  ASSERT_OK_AND_ASSIGN(
      const ScriptResult result,
      Run(*root, "mount -t tmpfs none /srv/sub && touch /srv/sub/x"));
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_EQ(::access((source + "/sub/x").c_str(), F_OK), 0);
  EXPECT_EQ(::umount2((source + "/sub").c_str(), MNT_DETACH), 0);
}

TEST_P(BindOptionsTest, PropagationNeedsAMountThatHasIt) {
  const std::string source = MakeLayer("source", {});
  MountTmpfs(source, MS_PRIVATE);
  const absl::Cleanup unmount = [&] { Unmount(source); };
  RootFsOptions options = BaseOptions();
  options.binds = {{.destination = "/srv", .source = source}};
  for (const auto& [propagation, name] :
       {std::pair(MountPropagation::kUnsafeSlave, "kUnsafeSlave"),
        std::pair(MountPropagation::kUnsafeShared, "kUnsafeShared")}) {
    options.binds[0].propagation = propagation;
    EXPECT_THAT(
        BuiltRoot::Build(options, limits()),
        StatusIs(absl::StatusCode::kFailedPrecondition,
                 AllOf(HasSubstr("RootFsOptions.binds[0]"), HasSubstr(name),
                       HasSubstr(source), HasSubstr("is private"))));
  }
}

TEST_P(BindOptionsTest, ReadOnlyCanStopAtSubmounts) {
  const std::string source = MakeLayer("source", {"inner/"});
  MountTmpfs(source + "/inner", MS_PRIVATE);
  const absl::Cleanup unmount = [&] { Unmount(source + "/inner"); };
  RootFsOptions options = BaseOptions();
  options.binds = {
      {.destination = "/deep", .source = source, .read_only = true},
      {.destination = "/top",
       .source = source,
       .read_only = true,
       .unsafe_writable_submounts = true}};
  const ScriptResult result = RunWith(
      options,
      "for d in deep deep/inner top top/inner; do touch /$d/x 2>/dev/null; "
      "echo $d=$?; done");
  EXPECT_EQ(result.output, "deep=1\ndeep/inner=1\ntop=1\ntop/inner=0\n");
}

TEST_P(BindOptionsTest, FlagsShowInTheContainer) {
  const std::string source = MakeLayer("source", {"file=x", "link -> file"});
  RootFsOptions options = BaseOptions();
  options.binds = {
      {.destination = "/never",
       .source = source,
       .nodiratime = true,
       .access_times = AccessTimes::kNever},
      {.destination = "/always",
       .source = source,
       .access_times = AccessTimes::kAlways},
      {.destination = "/nolinks", .source = source, .nosymfollow = true}};
  const ScriptResult result = RunWith(
      options, absl::StrCat(MountLine("/never"), MountLine("/always"),
                            "cat /nolinks/file; cat /nolinks/link "
                            "2>/dev/null; echo link=$?; cat /never/link"));
  EXPECT_THAT(result.output,
              AllOf(HasSubstr("/never rw,nodev,noatime,nodiratime"),
                    HasSubstr("/always rw,nodev - "), HasSubstr("link=1\nx")));
}

TEST_P(BindOptionsTest, IdMappedBind) {
  const std::string source = MakeLayer("source", {"file=x"});
  ASSERT_EQ(::chown((source + "/file").c_str(), 7, 8), 0);
  ASSERT_OK_AND_ASSIGN(UniqueFd user, NewUserNamespace(session(), kFirst));
  RootFsOptions options = BaseOptions();
  options.binds = {{.destination = "/mapped",
                    .source = source,
                    .idmap_user_namespace = user.borrow()},
                   {.destination = "/plain", .source = source}};
  const ScriptResult result = RunWith(
      options,
      "stat -c mapped=%u:%g /mapped/file; stat -c plain=%u:%g /plain/file");
  EXPECT_EQ(result.Value("mapped"), "100007:100008");
  EXPECT_EQ(result.Value("plain"), "7:8");
}

TEST_P(BindOptionsTest, IdMappingThatTheFileSystemRefuses) {
  ASSERT_OK_AND_ASSIGN(UniqueFd user, NewUserNamespace(session(), kFirst));
  RootFsOptions options = BaseOptions();
  options.binds = {{.destination = "/srv",
                    .source = "/proc/sys",
                    .recursive = false,
                    .idmap_user_namespace = user.borrow()}};
  EXPECT_THAT(
      BuiltRoot::Build(options, limits()),
      StatusIs(absl::StatusCode::kInvalidArgument,
               AllOf(HasSubstr("RootFsOptions.binds[0], \"/proc/sys\", IDMAP"),
                     HasSubstr("EINVAL"), HasSubstr("\"proc\""),
                     HasSubstr("must support idmapped mounts"))));
  options.binds[0].source = dir();
  ASSERT_OK_AND_ASSIGN(const UniqueFd initial,
                       sys::Open("/proc/self/ns/user", O_RDONLY));
  options.binds[0].idmap_user_namespace = initial.borrow();
  EXPECT_THAT(BuiltRoot::Build(options, limits()),
              StatusIs(absl::StatusCode::kPermissionDenied,
                       HasSubstr("must not be the initial user namespace")));
}

TEST_P(BindOptionsTest, OpenSourceIsShownWhatItCovers) {
  const std::string source = MakeLayer("source", {"file=bound", "in/"});
  RootFsOptions options = BaseOptions({MakeLayer(
      "top", {"way -> ../../../../data", "sub/dir/x=image", "file=text"})});
  std::vector<std::string> seen;
  const auto open = [&](BorrowedFd covered) -> absl::StatusOr<UniqueFd> {
    std::string names = covered.valid() ? "" : "nothing";
    if (covered.valid()) {
      for (const auto& entry : std::filesystem::directory_iterator(
               absl::StrCat("/proc/self/fd/", covered.get()))) {
        names += entry.path().filename();
      }
    }
    seen.push_back(names);
    return sys::Open(source, O_PATH);
  };
  options.binds = {{.destination = "/way", .open_source = open},
                   {.destination = "/missing/dir", .open_source = open},
                   {.destination = "/sub", .source = source},
                   // What "/sub" shows there is not the image's.
                   {.destination = "/sub/in", .open_source = open}};
  const ScriptResult result =
      RunWith(options, "cat /data/file /missing/dir/file /sub/in/file");
  EXPECT_EQ(result.output, "boundboundbound");
  EXPECT_EQ(seen, (std::vector<std::string>{"lower", "nothing", "nothing"}));
}

TEST_P(BindOptionsTest, OpenSourceThatFails) {
  RootFsOptions options = BaseOptions();
  options.binds = {{.destination = "/data",
                    .open_source = [](BorrowedFd) -> absl::StatusOr<UniqueFd> {
                      return absl::UnavailableError("not today");
                    }}};
  EXPECT_THAT(BuiltRoot::Build(options, limits()),
              StatusIs(absl::StatusCode::kUnavailable,
                       "RootFsOptions.binds[0] for \"/data\": not today"));
  options.binds[0].open_source = [](BorrowedFd) -> absl::StatusOr<UniqueFd> {
    return UniqueFd();
  };
  EXPECT_THAT(BuiltRoot::Build(options, limits()),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("gave no descriptor")));
}

// docker run --volumes-from.
TEST_P(BindOptionsTest, BindsOfAnotherRoot) {
  const std::string a = MakeLayer("a", {"file=a"});
  const std::string b = MakeLayer("b", {"file=b"});
  const std::string c = MakeLayer("c", {"file=c"});
  RootFsOptions options = BaseOptions();
  {
    ASSERT_OK_AND_ASSIGN(const UniqueFd fd, sys::Open(b, O_PATH));
    options.binds = {{.destination = "/a", .source = a, .read_only = true},
                     {.destination = "/b", .source_fd = fd.borrow()},
                     {.destination = "/c", .open_source = [&](BorrowedFd) {
                        return sys::Open(c, O_PATH);
                      }}};
    ASSERT_OK_AND_ASSIGN(auto first, BuiltRoot::Build(options, limits()));
    ASSERT_OK(Run(*first, "true"));
    RootFsOptions others = BaseOptions();
    others.binds = first->binds();
    ASSERT_EQ(others.binds.size(), 3u);
    const ScriptResult result =
        RunWith(others,
                "cat /a/file /b/file /c/file; touch /a/x 2>/dev/null; echo "
                "a=$?; touch /b/x; echo b=$?");
    EXPECT_EQ(result.output, "abca=1\nb=0\n");
    std::filesystem::rename(a, a + "-moved");
    MakeLayer("a", {"file=other"});
    EXPECT_THAT(
        BuiltRoot::Build(others, limits()),
        StatusIs(absl::StatusCode::kFailedPrecondition,
                 AllOf(HasSubstr("\"/a\""),
                       HasSubstr("is not what the other root has mounted"))));
  }
}

// A root that holds a bind mount does not keep the host from unmounting it.
TEST_P(BindOptionsTest, SourcesByPathAreNotHeldOpen) {
  const std::string source = MakeLayer("source", {});
  MountTmpfs(source, MS_PRIVATE);
  RootFsOptions options = BaseOptions();
  options.binds = {{.destination = "/srv", .source = source}};
  ASSERT_OK_AND_ASSIGN(auto root, BuiltRoot::Build(options, limits()));
  EXPECT_EQ(::umount2(source.c_str(), 0), 0);
  RememberMounts();
  ASSERT_OK_AND_ASSIGN(const ScriptResult result,
                       Run(*root, "touch /srv/x; echo touch=$?"));
  EXPECT_EQ(result.output, "touch=0\n");
}

TEST_P(BindOptionsTest, TenThousandMountsBelowTheSource) {
  constexpr int kMounts = 10000;
  const std::string source = MakeLayer("source", {"x=x"});
  MountTmpfs(source, MS_PRIVATE);
  const absl::Cleanup unmount = [&] { Unmount(source); };
  std::ofstream(source + "/file") << "x";
  for (int i = 0; i < kMounts; ++i) {
    const std::string place = absl::StrCat(source, "/", i);
    std::ofstream(place).flush();
    ASSERT_EQ(::mount((source + "/file").c_str(), place.c_str(), nullptr,
                      MS_BIND, nullptr),
              0);
  }
  RememberMounts();
  RootFsOptions options = BaseOptions();
  options.binds = {{.destination = "/all", .source = source, .read_only = true},
                   {.destination = "/flat",
                    .source = source,
                    .read_only = true,
                    .recursive = false}};
  const ScriptResult result = RunWith(
      options,
      "cat /all/0 /all/9999; echo; echo y 2>/dev/null > /all/9999; echo "
      "write=$?; echo flat=$(cat /flat/9999); n=0; while read -r l; do "
      "n=$((n+1)); done < /proc/self/mountinfo; [ $n -gt 10000 ]; echo all=$?");
  EXPECT_THAT(result.output, HasSubstr("xx\n"));
  EXPECT_EQ(result.Value("write"), "1");
  EXPECT_EQ(result.Value("flat"), "");
  EXPECT_EQ(result.Value("all"), "0");
}

// Until it runs, a root that will be read-only takes new directories, also
// after a start that did not come off.
TEST_P(BindOptionsTest, ReadOnlyRootIsWritableUntilItRuns) {
  RootFsOptions options = BaseOptions();
  options.read_only = true;
  ASSERT_OK_AND_ASSIGN(auto root, BuiltRoot::Build(options, limits()));
  {
    plan::PlanBuilder abandoned;
    ASSERT_OK(root->AddTo(abandoned, MountContext()));
  }
  EXPECT_OK(root->MakeDirectory("/made/later", 0755));
  ASSERT_OK_AND_ASSIGN(
      const ScriptResult result,
      Run(*root,
          "ls -d /made/later; touch /made/x 2>/dev/null; echo x=$?; "
          "touch /tmp/x 2>/dev/null; echo tmp=$?; touch /dev/shm/x; "
          "echo shm=$?"));
  EXPECT_EQ(result.output, "/made/later\nx=1\ntmp=1\nshm=0\n");
}

TEST_P(BindOptionsTest, ContradictionsAreNamed) {
  RootFsOptions options = BaseOptions();
  options.binds = {{.destination = "/srv",
                    .source = dir(),
                    .unsafe_writable_submounts = true}};
  EXPECT_THAT(BuiltRoot::Build(options, limits()),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("unsafe_writable_submounts is for read_only "
                                 "only")));
}

}  // namespace
}  // namespace caisson::rootfs
