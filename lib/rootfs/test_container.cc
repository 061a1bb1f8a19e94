#include "lib/rootfs/test_container.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/base/status_matchers.h"
#include "lib/plan/builder.h"
#include "lib/plan/send_fds.h"
#include "lib/sys/open.h"

namespace caisson::rootfs {
namespace {

using ::caisson::launcher::ReceiveMessage;
using ::caisson::launcher::Session;
using ::caisson::launcher::Started;
using ::caisson::plan::PlanBuilder;
using ::caisson::plan::Slot;

constexpr char kBusybox[] = "/bin/busybox";
constexpr size_t kMaxOutput = 1 << 20;

void AddNamespaces(PlanBuilder& plan, const ScriptOptions& options) {
  plan.Step("namespaces");
  const uint64_t flags = CLONE_NEWNS | CLONE_NEWUTS |
                         (options.new_pid_namespace ? CLONE_NEWPID : 0) |
                         (options.new_ipc_namespace ? CLONE_NEWIPC : 0) |
                         (options.new_net_namespace ? CLONE_NEWNET : 0);
  if (options.user_namespace.valid()) {
    plan.Call(SYS_setns, {plan.Send(options.user_namespace), CLONE_NEWUSER},
              "setns(user namespace)");
    plan.Fork(flags, Slot(), "clone3()");
    plan.Call(SYS_setgroups, {0, 0}, "setgroups([])");
    plan.Call(SYS_setresgid, {0, 0, 0}, "setresgid(0)");
    plan.Call(SYS_setresuid, {0, 0, 0}, "setresuid(0)");
  } else {
    plan.set_clone_flags(flags);
  }
  if (options.own_cgroup2) {
    plan.Call(SYS_unshare, {CLONE_NEWCGROUP}, "unshare(CLONE_NEWCGROUP)");
  }
}

}  // namespace

std::string ScriptResult::Value(const std::string& name) const {
  for (absl::string_view line : absl::StrSplit(output, '\n')) {
    if (absl::StartsWith(line, name + "=")) {
      return std::string(line.substr(name.size() + 1));
    }
  }
  return "(none)";
}

bool IsKernelAtLeast(int major, int minor) {
  utsname name = {};
  int actual_major = 0;
  int actual_minor = 0;
  ::uname(&name);
  ::sscanf(name.release, "%d.%d", &actual_major, &actual_minor);
  return actual_major > major ||
         (actual_major == major && actual_minor >= minor);
}

std::vector<KernelLimits> AllKernels() {
  std::vector<KernelLimits> kernels = {{false, LayerSyntax::kDescriptors},
                                       {true, LayerSyntax::kJoined}};
  if (IsKernelAtLeast(6, 5)) kernels.push_back({true, LayerSyntax::kStrings});
  return kernels;
}

std::string KernelName(const ::testing::TestParamInfo<KernelLimits>& info) {
  switch (info.param.layer_syntax) {
    case LayerSyntax::kDescriptors:
      return "ThisKernel";
    case LayerSyntax::kStrings:
      return "Linux6_5";
    case LayerSyntax::kJoined:
      return "Linux5_15";
  }
  return "";
}

std::string ReadHostFile(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

size_t OpenDescriptors() {
  size_t count = 0;
  for (int fd = 0; fd < 4096; ++fd) {
    if (::fcntl(fd, F_GETFD) >= 0) ++count;
  }
  return count;
}

absl::StatusOr<UniqueFd> NewUserNamespace(const Session& session,
                                          uint32_t first) {
  int fds[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) != 0) {
    return ErrnoError(errno, "socketpair()");
  }
  UniqueFd mine(fds[0]);
  PlanBuilder plan;
  const Slot socket = plan.Send(UniqueFd(fds[1]));
  plan.set_clone_flags(CLONE_NEWUSER);
  const std::string map = absl::StrCat("0 ", first, " 65536\n");
  plan.set_id_maps(map, map, /*deny_setgroups=*/false);
  plan.Step("user");
  const Slot ns = plan.NewSlot();
  plan.Call(SYS_openat,
            {AT_FDCWD, plan.String("/proc/self/ns/user"), O_RDONLY | O_CLOEXEC,
             0},
            "open(\"/proc/self/ns/user\")")
      .Into(ns);
  plan::AppendSendFds(plan, socket, {ns});
  plan.Exit();
  RETURN_IF_ERROR(session.Run(plan).status());
  ASSIGN_OR_RETURN(std::vector<UniqueFd> received,
                   plan::ReceiveFds(mine.borrow(), 1));
  return std::move(received[0]);
}

void RootFsTestBase::SetUpTestSuite() {
  // As on hosts with systemd: what is mounted below a bind mount would show on
  // the host unless somebody sees to it. In a mount namespace of the test's.
  static const bool done = [] {
    return ::unshare(CLONE_NEWNS) == 0 &&
           ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
           ::mount(nullptr, "/", nullptr, MS_REC | MS_SHARED, nullptr) == 0;
  }();
  EXPECT_TRUE(done || ::geteuid() != 0);
}

void RootFsTestBase::Need(bool condition, const std::string& what) {
  if (condition) return;
  ASSERT_FALSE(testing::TestsMustRun()) << "needs " << what;
  GTEST_SKIP() << "needs " << what;
}

void RootFsTestBase::NeedKernel(int major, int minor) {
  Need(IsKernelAtLeast(major, minor),
       absl::StrCat("Linux ", major, ".", minor));
}

void RootFsTestBase::SetUp() {
  Need(::geteuid() == 0, "root");
  Need(::access(kBusybox, X_OK) == 0, "/bin/busybox (busybox-static)");
  if (IsSkipped() || HasFatalFailure()) return;
  char name[] = "/tmp/caisson-rootfs-test-XXXXXX";
  ASSERT_NE(::mkdtemp(name), nullptr);
  dir_ = name;
  // The work directory of an overlay and mount points are reached by name.
  ASSERT_EQ(::chmod(name, 0755), 0);
  auto session = Session::Create();
  ASSERT_OK(session);
  session_ = std::make_unique<Session>(*std::move(session));
  RememberMounts();
  descriptors_before_ = OpenDescriptors();
}

void RootFsTestBase::RememberMounts() {
  mounts_before_ = ReadHostFile("/proc/self/mountinfo");
}

void RootFsTestBase::TearDown() {
  held_.clear();
  if (session_ != nullptr) {
    EXPECT_EQ(OpenDescriptors(), descriptors_before_);
    EXPECT_OK(session_->Close(/*wait=*/true));
    EXPECT_EQ(ReadHostFile("/proc/self/mountinfo"), mounts_before_);
  }
  if (!dir_.empty()) {
    std::error_code error;
    std::filesystem::remove_all(dir_, error);
    EXPECT_FALSE(error) << error.message();
  }
}

std::string RootFsTestBase::MakeLayer(const std::string& name,
                                      const std::vector<std::string>& entries) {
  namespace fs = std::filesystem;
  const fs::path layer = fs::path(dir_) / "layers" / name;
  fs::create_directories(layer);
  for (const std::string& entry : entries) {
    const std::vector<std::string> link = absl::StrSplit(entry, " -> ");
    if (link.size() == 2) {
      fs::create_directories((layer / link[0]).parent_path());
      fs::create_symlink(link[1], layer / link[0]);
      continue;
    }
    if (absl::EndsWith(entry, "/")) {
      fs::create_directories(layer / entry);
      continue;
    }
    const std::vector<std::string> file =
        absl::StrSplit(entry, absl::MaxSplits('=', 1));
    fs::create_directories((layer / file[0]).parent_path());
    std::ofstream(layer / file[0]) << (file.size() > 1 ? file[1] : "");
  }
  return layer;
}

void RootFsTestBase::AddShell(const std::string& layer) {
  namespace fs = std::filesystem;
  fs::create_directories(layer + "/bin");
  if (!fs::copy_file(kBusybox, layer + "/bin/busybox",
                     fs::copy_options::skip_existing)) {
    return;
  }
  for (const char* applet : {"sh", "cat", "stat", "ls", "touch", "mkdir", "rm",
                             "df", "readlink", "id", "mount", "umount", "dd"}) {
    fs::create_symlink("busybox", layer + "/bin/" + applet);
  }
}

std::string RootFsTestBase::BaseLayer() {
  const std::string layer = MakeLayer(
      "base", {"proc/", "sys/", "dev/", "tmp/", "etc/hostname=image",
               "etc/hosts=image", "etc/resolv.conf=image",
               "etc/passwd=root:x:0:0::/:/bin/sh\n", "data/lower=lower"});
  AddShell(layer);
  return layer;
}

RootFsOptions RootFsTestBase::BaseOptions(
    const std::vector<std::string>& upper_layers) {
  RootFsOptions options;
  for (const std::string& layer : upper_layers) {
    options.layers.push_back(Hold(layer));
  }
  options.layers.push_back(Hold(BaseLayer()));
  UseDirectories(options);
  options.resolv_conf = "nameserver 192.0.2.1\n";
  return options;
}

BorrowedFd RootFsTestBase::Hold(const std::string& path) {
  auto fd = sys::Open(path, O_PATH);
  EXPECT_OK(fd);
  if (!fd.ok()) return BorrowedFd();
  held_.push_back(*std::move(fd));
  return held_.back().borrow();
}

void RootFsTestBase::UseDirectories(RootFsOptions& options) {
  const std::string base = absl::StrCat(dir_, "/writable", held_.size());
  std::filesystem::create_directories(base + "/upper");
  std::filesystem::create_directories(base + "/work");
  options.writes = RootWrites::kDirectories;
  options.upper_directory = Hold(base + "/upper");
  options.work_directory = Hold(base + "/work");
}

absl::StatusOr<ScriptResult> RootFsTestBase::Run(BuiltRoot& root,
                                                 const std::string& script,
                                                 const ScriptOptions& options) {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) return ErrnoError(errno, "pipe2()");
  UniqueFd output(fds[0]);
  UniqueFd input(fds[1]);
  PlanBuilder plan;
  AddNamespaces(plan, options);
  MountContext context;
  context.isolated_launcher = session_->isolated() && options.isolated_launcher;
  context.user_namespace = options.user_namespace.valid();
  context.new_pid_namespace = options.new_pid_namespace;
  context.new_net_namespace = options.new_net_namespace;
  context.new_ipc_namespace = options.new_ipc_namespace;
  context.own_cgroup2 = options.own_cgroup2;
  context.v1_groups = options.v1_groups;
  plan.Step("mounts");
  ASSIGN_OR_RETURN(const RootFsSlots slots, root.AddTo(plan, context));
  EXPECT_TRUE(slots.dev.valid() && slots.root.valid());
  plan.Step("stdio");
  UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  plan.Call(SYS_dup3, {plan.Send(std::move(null)), 0, 0}, "dup3(0)");
  const Slot out = plan.Send(std::move(input));
  plan.Call(SYS_dup3, {out, 1, 0}, "dup3(1)");
  plan.Call(SYS_dup3, {out, 2, 0}, "dup3(2)");
  plan.CloseDescriptors();
  plan.Step("exec");
  plan.Exec(SYS_execve,
            {plan.String("/bin/sh"), plan.StringArray({"sh", "-c", script}),
             plan.StringArray({"PATH=/bin"})},
            "execve(\"/bin/sh\")", /*try_next=*/false);
  auto started = session_->Run(plan);
  root.MarkAttached();
  RETURN_IF_ERROR(started.status());
  plan = PlanBuilder();  // closes our end of the pipe
  ScriptResult result;
  ASSIGN_OR_RETURN(result.output,
                   sys::ReadAll(output.borrow(), kMaxOutput, "output"));
  ASSIGN_OR_RETURN(const auto message,
                   ReceiveMessage(started->channel.borrow(), nullptr, 0));
  result.exit_code = WIFEXITED(message.wait_status)
                         ? WEXITSTATUS(message.wait_status)
                         : 128 + WTERMSIG(message.wait_status);
  return result;
}

ScriptResult RootFsTestBase::RunWith(const RootFsOptions& options,
                                     const std::string& script,
                                     const ScriptOptions& script_options) {
  auto root = BuiltRoot::Build(options, limits());
  EXPECT_OK(root);
  if (!root.ok()) return {};
  EXPECT_EQ(ReadHostFile("/proc/self/mountinfo"), mounts_before_);
  auto result = Run(**root, script, script_options);
  EXPECT_OK(result);
  EXPECT_EQ(ReadHostFile("/proc/self/mountinfo"), mounts_before_);
  return result.ok() ? *result : ScriptResult{};
}

}  // namespace caisson::rootfs
