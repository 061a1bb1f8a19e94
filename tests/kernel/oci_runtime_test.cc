// The verbs of an OCI runtime. The test is the subreaper that an engine's shim
// is.
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "caisson/caisson.h"
#include "lib/base/status_macros.h"
#include "lib/runtime/state_directory.h"
#include "lib/sys/open.h"
#include "lib/sys/pidfd.h"
#include "tests/support/container_test.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::nlohmann::json;
using ::testing::AnyOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr int kPatience = 20000;  // ms
constexpr char kForever[] =
    "trap 'exit 9' TERM; echo ready; while :; do sleep 1000 & wait; done";

constexpr char kBase[] = R"({
  "ociVersion": "1.0.2",
  "process": {
    "user": {"uid": 0, "gid": 0}, "args": ["sh"], "env": ["PATH=/bin"],
    "cwd": "/", "noNewPrivileges": true
  },
  "root": {"path": "rootfs"},
  "mounts": [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
     "options": ["mode=755", "size=65536k"]},
    {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
     "options": ["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
    {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
     "options": ["ro"]},
    {"destination": "/sys", "type": "sysfs", "source": "sysfs",
     "options": ["ro"]}
  ],
  "linux": {
    "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"},
                   {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"}]
  }
})";

bool IsReadable(BorrowedFd fd, int patience = kPatience) {
  pollfd poll = {fd.get(), POLLIN, 0};
  return ::poll(&poll, 1, patience) == 1;
}

std::string ReadText(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

struct Received {
  std::string text;
  UniqueFd descriptor;
};

// Who listens at a UNIX socket, as engines and agents do.
class Receiver {
 public:
  Receiver() : socket_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    // The test's own directory may have a name too long for an address.
    EXPECT_NE(::mkdtemp(directory_), nullptr);
    path_ = absl::StrCat(directory_, "/socket");
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    path_.copy(address.sun_path, sizeof(address.sun_path) - 1);
    EXPECT_EQ(::bind(socket_.get(), reinterpret_cast<sockaddr*>(&address),
                     sizeof(address)),
              0);
    EXPECT_EQ(::listen(socket_.get(), 1), 0);
  }
  Receiver(const Receiver&) = delete;
  Receiver& operator=(const Receiver&) = delete;
  ~Receiver() {
    EXPECT_EQ(::unlink(path_.c_str()), 0);
    EXPECT_EQ(::rmdir(directory_), 0);
  }

  const std::string& path() const { return path_; }

  // What the next one sends until it closes the connection.
  Received Receive() const {
    Received received;
    if (!IsReadable(socket_.borrow())) return received;
    const UniqueFd connection(
        ::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    for (;;) {
      char text[512];
      iovec iov = {text, sizeof(text)};
      alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
      msghdr message = {};
      message.msg_iov = &iov;
      message.msg_iovlen = 1;
      message.msg_control = control;
      message.msg_controllen = sizeof(control);
      const ssize_t size =
          ::recvmsg(connection.get(), &message, MSG_CMSG_CLOEXEC);
      if (size <= 0) return received;
      received.text.append(text, static_cast<size_t>(size));
      if (CMSG_FIRSTHDR(&message) == nullptr) continue;
      int number = -1;
      memcpy(&number, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(number));
      received.descriptor.reset(number);
    }
  }

 private:
  char directory_[32] = "/tmp/caisson-socket.XXXXXX";
  std::string path_;
  UniqueFd socket_;
};

class OciRuntimeTest : public testing::ContainerTest {
 protected:
  void SetUp() override {
    ASSERT_EQ(::prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    directory_ = absl::StrCat(absl::StripSuffix(::testing::TempDir(), "/"),
                              "/oci-", ::getpid());
    std::filesystem::create_directories(directory_ + "/rootfs");
    std::filesystem::copy(root_->path(), directory_ + "/rootfs",
                          std::filesystem::copy_options::recursive |
                              std::filesystem::copy_options::copy_symlinks);
    group_ = absl::StrCat("/caisson-test-", ::getpid());
    ContainerTest::SetUp();
    ASSERT_OK_AND_ASSIGN(OciRuntime runtime,
                         OciRuntime::Open({.root = directory_ + "/state"}));
    runtime_.emplace(std::move(runtime));
    int fds[2];
    ASSERT_EQ(::pipe2(fds, O_CLOEXEC), 0);
    output_.reset(fds[0]);
    input_.reset(fds[1]);
  }
  void TearDown() override {
    EXPECT_THAT(runtime_->List(), IsEmpty());
    output_.reset();
    input_.reset();
    while (::waitpid(-1, nullptr, 0) > 0) {
    }
    runtime_.reset();
    ContainerTest::TearDown();
    std::filesystem::remove_all(directory_);  // plain files
    EXPECT_EQ(::prctl(PR_SET_CHILD_SUBREAPER, 0), 0);
  }

  // A bundle that runs `script`, with `patch` (RFC 7396).
  void MakeBundle(const std::string& script, const std::string& patch = "{}") {
    json config = json::parse(kBase);
    config["linux"]["cgroupsPath"] = group_ + "/web";
    config["process"]["args"] = {"sh", "-c", script};
    config.merge_patch(json::parse(patch));
    std::ofstream(directory_ + "/config.json") << config.dump();
  }
  OciStreams ToPipe() {
    OciStreams streams;
    streams.out = Stdio::Inherit(input_.borrow());
    streams.err = Stdio::LikeStdout();
    return streams;
  }
  absl::StatusOr<OciProcess> Create(const std::string& id = "web") {
    return runtime_->Create(id, {.bundle = directory_, .streams = ToPipe()});
  }
  // Created and started, when it has written something.
  OciProcess Running(const std::string& patch = "{}") {
    MakeBundle(kForever, patch);
    auto process = Create();
    EXPECT_OK(process);
    EXPECT_OK(runtime_->Start("web"));
    EXPECT_TRUE(IsReadable(output_.borrow()));
    EXPECT_EQ(Line(), "ready");
    return process.ok() ? *std::move(process) : OciProcess();
  }
  std::string Line() {
    std::string line;
    char c;
    while (IsReadable(output_.borrow()) && ::read(output_.get(), &c, 1) == 1 &&
           c != '\n') {
      line += c;
    }
    return line;
  }
  std::string Written() {
    input_.reset();
    auto text = sys::ReadAll(output_.borrow(), 1 << 20, "output");
    return text.value_or("");
  }
  OciStatus Status() {
    auto state = runtime_->State("web");
    EXPECT_OK(state);
    return state.ok() ? state->status : OciStatus::kCreating;
  }
  static std::string Process(const std::string& script,
                             const std::string& patch = "{}") {
    json process = json::parse(kBase)["process"];
    process["args"] = {"sh", "-c", script};
    process.merge_patch(json::parse(patch));
    return process.dump();
  }
  static int ExitStatus(pid_t pid) {
    int status = 0;
    EXPECT_EQ(::waitpid(pid, &status, 0), pid);
    return status;
  }

  std::string directory_;
  std::string group_;
  std::optional<OciRuntime> runtime_;
  UniqueFd output_;
  UniqueFd input_;
};

TEST_F(OciRuntimeTest, LivesFromCreateToDelete) {
  MakeBundle("echo runs; exit 7", R"({"annotations": {"a": "b"}})");
  const std::string pid_file = directory_ + "/pid";
  ASSERT_OK_AND_ASSIGN(const OciProcess process,
                       runtime_->Create("web", {.bundle = directory_,
                                                .streams = ToPipe(),
                                                .pid_file = pid_file}));
  EXPECT_EQ(ReadText(pid_file), absl::StrCat(process.pid));
  ASSERT_OK_AND_ASSIGN(const OciState state, runtime_->State("web"));
  EXPECT_EQ(state.status, OciStatus::kCreated);
  EXPECT_EQ(state.pid, process.pid);
  EXPECT_EQ(state.bundle, directory_);
  EXPECT_EQ(state.rootfs, directory_ + "/rootfs");
  EXPECT_EQ(state.annotations.at("a"), "b");
  const json document = json::parse(state.ToJson());
  EXPECT_EQ(document["status"], "created");
  EXPECT_EQ(document["pid"], process.pid);
  EXPECT_THAT(Create(),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("web")));
  EXPECT_FALSE(IsReadable(output_.borrow(), 50));

  EXPECT_OK(runtime_->Start("web"));
  EXPECT_EQ(Written(), "runs\n");
  EXPECT_TRUE(IsReadable(process.pidfd.borrow()));
  EXPECT_EQ(Status(), OciStatus::kStopped);
  EXPECT_EQ(ExitStatus(process.pid), 7 << 8);
  EXPECT_THAT(runtime_->Start("web"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("has stopped")));
  EXPECT_THAT(runtime_->Kill("web", SIGTERM),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("container not running")));
  EXPECT_OK(runtime_->Delete("web"));
  EXPECT_THAT(runtime_->State("web"), StatusIs(absl::StatusCode::kNotFound,
                                               HasSubstr("does not exist")));
  EXPECT_THAT(runtime_->Delete("web"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("web")));
  EXPECT_OK(runtime_->Delete("web", /*force=*/true));
}

TEST_F(OciRuntimeTest, RunningOneIsStoppedBeforeItIsDeleted) {
  const OciProcess process = Running();
  EXPECT_EQ(Status(), OciStatus::kRunning);
  EXPECT_THAT(runtime_->Start("web"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("already running")));
  EXPECT_THAT(runtime_->Delete("web"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("not stopped: running")));
  EXPECT_OK(runtime_->Kill("web", SIGTERM));
  EXPECT_TRUE(IsReadable(process.pidfd.borrow()));
  EXPECT_EQ(ExitStatus(process.pid), 9 << 8);
  EXPECT_OK(runtime_->Delete("web"));
}

TEST_F(OciRuntimeTest, ForcedDeletionTakesEverythingAlong) {
  const OciProcess process = Running();
  ASSERT_OK_AND_ASSIGN(
      const OciProcess other,
      runtime_->Exec("web", {.process = Process("sleep 1000; :")}));
  ASSERT_OK_AND_ASSIGN(const std::vector<pid_t> pids,
                       runtime_->Processes("web"));
  EXPECT_THAT(pids, Contains(process.pid));
  EXPECT_THAT(pids, Contains(other.pid));
  EXPECT_OK(runtime_->Delete("web", /*force=*/true));
  // The namespace ends with the last one that is collected.
  EXPECT_EQ(ExitStatus(other.pid), SIGKILL);
  EXPECT_EQ(ExitStatus(process.pid), SIGKILL);
}

TEST_F(OciRuntimeTest, CreatedOneCanBeDeleted) {
  MakeBundle("echo runs");
  ASSERT_OK_AND_ASSIGN(const OciProcess process, Create());
  EXPECT_OK(runtime_->Delete("web"));
  EXPECT_EQ(ExitStatus(process.pid), SIGKILL);
  EXPECT_EQ(Written(), "");
}

TEST_F(OciRuntimeTest, ExecutesInside) {
  const OciProcess container = Running(R"({"hostname": "inside"})");
  const std::string pid_file = directory_ + "/pid";
  ASSERT_OK_AND_ASSIGN(
      const OciProcess process,
      runtime_->Exec("web", {.process = Process("hostname; id -u; exit 5",
                                                R"({"user": {"uid": 8}})"),
                             .streams = ToPipe(),
                             .pid_file = pid_file}));
  EXPECT_EQ(ReadText(pid_file), absl::StrCat(process.pid));
  EXPECT_EQ(Line(), "inside");
  EXPECT_EQ(Line(), "8");
  EXPECT_EQ(ExitStatus(process.pid), 5 << 8);
  EXPECT_THAT(runtime_->Exec(
                  "web", {.process = Process(":", R"({"args": ["nosuch"]})")}),
              StatusIs(absl::StatusCode::kNotFound,
                       HasSubstr("no such file or directory")));
  EXPECT_OK(runtime_->Pause("web"));
  EXPECT_EQ(Status(), OciStatus::kPaused);
  EXPECT_THAT(runtime_->Exec("web", {.process = Process(":")}),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("paused container")));
  EXPECT_OK(runtime_->Resume("web"));
  EXPECT_EQ(Status(), OciStatus::kRunning);
  EXPECT_THAT(
      runtime_->Resume("web"),
      StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("not paused")));
  EXPECT_OK(runtime_->Kill("web", SIGKILL, /*all=*/true));
  EXPECT_TRUE(IsReadable(container.pidfd.borrow()));
  EXPECT_THAT(runtime_->Exec("web", {.process = Process(":")}),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("not running")));
  EXPECT_OK(runtime_->Delete("web"));
}

TEST_F(OciRuntimeTest, PausedOneDiesOfSigkill) {
  const OciProcess process = Running();
  EXPECT_OK(runtime_->Pause("web"));
  EXPECT_OK(runtime_->Kill("web", SIGKILL));
  EXPECT_TRUE(IsReadable(process.pidfd.borrow()));
  EXPECT_OK(runtime_->Delete("web"));
}

TEST_F(OciRuntimeTest, GroupIsAtItsPlaceAndChanges) {
  const OciProcess process = Running(
      R"({"linux": {"resources": {"pids": {"limit": 40},
                                  "memory": {"limit": 67108864}}}})");
  EXPECT_THAT(ReadText(absl::StrCat("/proc/", process.pid, "/cgroup")),
              HasSubstr(group_ + "/web\n"));
  ASSERT_OK_AND_ASSIGN(CgroupStats stats, runtime_->Stats("web"));
  EXPECT_EQ(stats.pids.limit, 40);
  EXPECT_EQ(stats.memory.limit, 67108864);
  EXPECT_OK(runtime_->Update("web", R"({"pids": {"limit": 50}})"));
  ASSERT_OK_AND_ASSIGN(stats, runtime_->Stats("web"));
  EXPECT_EQ(stats.pids.limit, 50);
  EXPECT_EQ(stats.memory.limit, 67108864);
  EXPECT_THAT(
      runtime_->Update("web", R"({"pids": {"limit": "x"}})"),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("pids.limit")));
  EXPECT_OK(runtime_->Delete("web", /*force=*/true));
}

// The kernel's view of what hooks see is in hooks_test; here, that each is
// called, by the verb that the specification names.
TEST_F(OciRuntimeTest, WatchTellsOfMemoryAndOfTheEnd) {
  MakeBundle(
      "echo ready; read line < /etc/passwd; tail /dev/zero; echo $?;"
      "exec sleep 1000",
      R"({"linux": {"resources": {"memory": {"limit": 16777216,
                                                     "swap": 16777216}}}})");
  ASSERT_OK_AND_ASSIGN(const OciProcess process, Create());
  ASSERT_OK_AND_ASSIGN(const OciWatch watch, runtime_->Watch("web"));
  ASSERT_TRUE(watch.out_of_memory.has_value());
  EXPECT_THAT(*watch.out_of_memory->Read(), IsEmpty());
  EXPECT_FALSE(IsReadable(watch.end.borrow(), 0));
  EXPECT_OK(runtime_->Start("web"));
  EXPECT_EQ(Line(), "ready");
  ASSERT_TRUE(IsReadable(watch.out_of_memory->fd()));
  EXPECT_THAT(*watch.out_of_memory->Read(), Not(IsEmpty()));
  // The shell tells of the killed one, too.
  std::string line = Line();
  while (!line.empty() && line != "137") line = Line();
  EXPECT_EQ(line, "137");
  EXPECT_OK(runtime_->Kill("web", SIGKILL));
  EXPECT_TRUE(IsReadable(watch.end.borrow()));
  EXPECT_THAT(runtime_->Watch("web"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("container not running")));
  EXPECT_OK(runtime_->Delete("web"));
}

TEST_F(OciRuntimeTest, HooksOfEachVerb) {
  json hooks;
  for (const char* point :
       {"prestart", "createRuntime", "poststart", "poststop"}) {
    const std::string script = absl::StrCat("read state; echo ", point,
                                            " $(echo \"$state\" | grep -o "
                                            "'\"status\":\"[a-z]*\"') >>",
                                            directory_, "/hooks");
    hooks[point] = {{{"path", "/bin/sh"}, {"args", {"sh", "-c", script}}}};
  }
  hooks["startContainer"] = {
      {{"path", "/bin/sh"},
       {"args", {"sh", "-c", "cat >/dev/null; echo inside >/tmp/hook"}}}};
  MakeBundle("cat /tmp/hook", json({{"hooks", hooks}}).dump());
  const auto calls = [&] { return ReadText(directory_ + "/hooks"); };
  ASSERT_OK(Create());
  EXPECT_EQ(calls(),
            "prestart \"status\":\"creating\"\n"
            "createRuntime \"status\":\"creating\"\n");
  EXPECT_OK(runtime_->Start("web"));
  EXPECT_EQ(Written(), "inside\n");
  EXPECT_THAT(calls(),
              ::testing::EndsWith("poststart \"status\":\"running\"\n"));
  EXPECT_OK(runtime_->Delete("web", /*force=*/true));
  EXPECT_THAT(calls(),
              ::testing::EndsWith("poststop \"status\":\"stopped\"\n"));
}

TEST_F(OciRuntimeTest, TerminalGoesToTheConsoleSocket) {
  MakeBundle("tty; stty size",
             R"({"process": {"terminal": true,
                             "consoleSize": {"height": 30, "width": 90}}})");
  const Receiver receiver;
  OciCreateOptions options = {.bundle = directory_};
  options.streams.console_socket = receiver.path();
  ASSERT_OK(runtime_->Create("web", options));
  const Received received = receiver.Receive();
  EXPECT_EQ(received.text, "/dev/ptmx");
  const UniqueFd& terminal = received.descriptor;
  ASSERT_TRUE(terminal.valid());
  EXPECT_OK(runtime_->Start("web"));
  std::string output;
  char text[64];
  ssize_t size;
  while (IsReadable(terminal.borrow()) &&
         (size = ::read(terminal.get(), text, sizeof(text))) > 0) {
    output.append(text, static_cast<size_t>(size));
  }
  EXPECT_THAT(output, HasSubstr("/dev/pts/0"));
  EXPECT_THAT(output, HasSubstr("30 90"));
  EXPECT_OK(runtime_->Delete("web", /*force=*/true));
}

// A profile that hands mkdir to an agent, and what else `rule` says.
std::string Notifying(const std::string& agent, const std::string& rule = "") {
  return absl::StrCat(R"({"linux": {"seccomp": {
      "defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "of web",
      "listenerPath": ")",
                      agent, R"(", "syscalls": [)", rule,
                      R"({"names": ["mkdir", "mkdirat"],
                          "action": "SCMP_ACT_NOTIFY"}]}}})");
}

// Answers one call with an error.
void FailOne(Received received, int error) {
  ASSERT_TRUE(received.descriptor.valid());
  SeccompListener listener(std::move(received.descriptor));
  ASSERT_OK_AND_ASSIGN(const auto call, listener.Receive());
  EXPECT_THAT(call.name, AnyOf("mkdir", "mkdirat"));
  EXPECT_OK(listener.Fail(call.id, error));
}

TEST_F(OciRuntimeTest, SeccompAgentIsThereBeforeTheProgram) {
  const Receiver agent;
  MakeBundle("mkdir /tmp/x; exec sleep 1000", Notifying(agent.path()));
  ASSERT_OK_AND_ASSIGN(const OciProcess process, Create());
  EXPECT_EQ(Status(), OciStatus::kCreated);
  Received first = agent.Receive();
  const json state = json::parse(first.text, nullptr, false);
  EXPECT_EQ(state["fds"], json({"seccompFd"}));
  EXPECT_EQ(state["pid"], process.pid);
  EXPECT_EQ(state["metadata"], "of web");
  EXPECT_EQ(state["state"]["id"], "web");
  EXPECT_EQ(state["state"]["status"], "creating");
  EXPECT_EQ(state["state"]["pid"], process.pid);
  EXPECT_EQ(state["state"]["bundle"], directory_);

  EXPECT_OK(runtime_->Start("web"));
  FailOne(std::move(first), EXDEV);
  EXPECT_THAT(Line(), HasSubstr("Invalid cross-device link"));

  ASSERT_OK_AND_ASSIGN(
      const OciProcess other,
      runtime_->Exec(
          "web", {.process = Process("mkdir /tmp/y"), .streams = ToPipe()}));
  Received second = agent.Receive();
  const json exec = json::parse(second.text, nullptr, false);
  EXPECT_EQ(exec["pid"], other.pid);
  EXPECT_EQ(exec["state"]["pid"], process.pid);
  EXPECT_EQ(exec["state"]["status"], "running");
  FailOne(std::move(second), EDOM);
  EXPECT_THAT(Line(), HasSubstr("Numerical argument out of domain"));
  EXPECT_OK(runtime_->Delete("web", /*force=*/true));
}

TEST_F(OciRuntimeTest, WithoutItsSeccompAgentNothingIsCreated) {
  MakeBundle("true", Notifying("/no/such/agent"));
  EXPECT_THAT(Create(), StatusIs(absl::StatusCode::kNotFound,
                                 HasSubstr("linux.seccomp.listenerPath")));
  // Nobody could tell the process that waits there to start.
  const Receiver agent;
  MakeBundle("true", Notifying(agent.path(), R"({"names": ["read"],
      "action": "SCMP_ACT_ERRNO"}, )"));
  EXPECT_THAT(Create(), StatusIs(absl::StatusCode::kInvalidArgument,
                                 HasSubstr("waits for its start")));
  EXPECT_TRUE(std::filesystem::is_empty(directory_ + "/state"));
}

TEST_F(OciRuntimeTest, HostsPidNamespaceWhereTheDocumentHasNone) {
  MakeBundle("readlink /proc/self/ns/pid",
             R"({"linux": {"namespaces": [{"type": "mount"}]}})");
  ASSERT_OK(Create());
  EXPECT_OK(runtime_->Start("web"));
  char own[64] = {};
  ASSERT_GT(::readlink("/proc/self/ns/pid", own, sizeof(own) - 1), 0);
  EXPECT_EQ(Written(), absl::StrCat(own, "\n"));
  EXPECT_OK(runtime_->Delete("web", /*force=*/true));
}

// Nobody would hear of it later.
TEST_F(OciRuntimeTest, MissingProgramFailsTheCreation) {
  const auto creation_of = [&](const std::string& program) {
    MakeBundle(":", json({{"process", {{"args", {program}}}}}).dump());
    return Create().status();
  };
  EXPECT_THAT(creation_of("nosuch"),
              StatusIs(absl::StatusCode::kNotFound,
                       HasSubstr("executable file not found in $PATH")));
  EXPECT_THAT(creation_of("/bin/nosuch"),
              StatusIs(absl::StatusCode::kNotFound,
                       HasSubstr("no such file or directory")));
  EXPECT_THAT(creation_of("/etc/passwd"),
              StatusIs(absl::StatusCode::kPermissionDenied,
                       HasSubstr("permission denied")));
}

TEST_F(OciRuntimeTest, WithoutResctrlNoneIsPromised) {
  if (ReadText("/proc/filesystems").find("\tresctrl\n") != std::string::npos) {
    GTEST_SKIP() << "this machine has resctrl";
  }
  MakeBundle(":", R"({"linux": {"intelRdt": {"enableMonitoring": true}}})");
  EXPECT_THAT(Create(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                 HasSubstr("linux.intelRdt: this kernel has")));
}

TEST_F(OciRuntimeTest, FailedCreationLeavesNothing) {
  MakeBundle(":", R"({"linux": {"sysctl": {"net.nosuch": "1"}}})");
  EXPECT_FALSE(Create().ok());
  MakeBundle(":", R"({"hooks": {"createRuntime": [{"path": "/bin/false"}]}})");
  EXPECT_THAT(Create().status(),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("create_runtime")))
      << "or whatever a failed hook is";
  MakeBundle(":");
  EXPECT_THAT(runtime_->Create("../x", {.bundle = directory_}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("../x")));
  EXPECT_FALSE(runtime_->Create("web", {.bundle = directory_ + "/none"}).ok());
  EXPECT_TRUE(std::filesystem::is_empty(directory_ + "/state"));
}

// What a runtime that was killed on its way leaves, `delete --force` removes.
TEST_F(OciRuntimeTest, KilledCreationIsRemoved) {
  MakeBundle(kForever,
             absl::StrCat(
                 R"({"hooks": {"createRuntime": [{"path": "/bin/sleep",
          "args": ["sleep", "0.05"]}]}})"));
  for (int delay = 0; delay < 40; delay += 3) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      (void)Create();
      ::_exit(0);
    }
    ::usleep(static_cast<useconds_t>(delay) * 1000);
    ASSERT_EQ(::kill(pid, SIGKILL), 0);
    ASSERT_EQ(::waitpid(pid, nullptr, 0), pid);
    EXPECT_OK(runtime_->Delete("web", /*force=*/true)) << delay;
    EXPECT_TRUE(std::filesystem::is_empty(directory_ + "/state"));
    for (const auto& entry :
         std::filesystem::directory_iterator("/sys/fs/cgroup")) {
      EXPECT_FALSE(std::filesystem::exists(entry.path().string() + group_))
          << entry.path();
    }
  }
}

// ---- What a hostile or hasty caller finds ----------------------------------

// The kernel calls the process a zombie, and its cgroup.kill leaves it alone.
TEST_F(OciRuntimeTest, ProgramWhoseFirstThreadEndsIsStillThere) {
  std::filesystem::copy_file("tests/support/leaderless",
                             directory_ + "/rootfs/leaderless");
  const char* const kHostsPids =
      R"([{"type": "mount"}, {"type": "cgroup"}, {"type": "ipc"}])";
  for (const bool pid1 : {true, false}) {
    json patch = {{"process", {{"args", {"/leaderless"}}}}};
    if (!pid1) patch["linux"]["namespaces"] = json::parse(kHostsPids);
    MakeBundle(":", patch.dump());
    ASSERT_OK_AND_ASSIGN(const OciProcess process, Create());
    ASSERT_OK(runtime_->Start("web"));
    EXPECT_EQ(Line(), "ready");
    EXPECT_EQ(Status(), OciStatus::kRunning) << pid1;
    EXPECT_OK(runtime_->Kill("web", SIGKILL, /*all=*/pid1));
    EXPECT_TRUE(IsReadable(process.pidfd.borrow()));
    EXPECT_EQ(Status(), OciStatus::kStopped);
    EXPECT_EQ(ExitStatus(process.pid), SIGKILL);
    EXPECT_OK(runtime_->Delete("web"));

    ASSERT_OK_AND_ASSIGN(const OciProcess second, Create());
    ASSERT_OK(runtime_->Start("web"));
    EXPECT_EQ(Line(), "ready");
    EXPECT_OK(runtime_->Delete("web", /*force=*/true));
    EXPECT_EQ(ExitStatus(second.pid), SIGKILL);
  }
}

std::string StatusLine(pid_t pid, const std::string& field) {
  std::ifstream status(absl::StrCat("/proc/", pid, "/status"));
  for (std::string line; std::getline(status, line);) {
    if (line.rfind(field + ":", 0) == 0) {
      return std::string(absl::StripAsciiWhitespace(
          absl::string_view(line).substr(field.size() + 1)));
    }
  }
  return "";
}

// Loading a filter without no_new_privs takes CAP_SYS_ADMIN: not while the
// process waits for its start, where another container could trace it.
TEST_F(OciRuntimeTest, CreatedOneWaitsWithItsFilterAndWithoutRights) {
  MakeBundle("echo runs", R"({
      "process": {"noNewPrivileges": false, "user": {"uid": 1000, "gid": 1000}},
      "linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
          {"names": ["chroot", "close_range"], "action": "SCMP_ACT_ERRNO"}]}}})");
  ASSERT_OK_AND_ASSIGN(const OciProcess process, Create());
  const auto has_none = [&] {
    return StatusLine(process.pid, "CapPrm") == "0000000000000000" &&
           StatusLine(process.pid, "Seccomp") == "2";
  };
  // It is on its way there.
  for (int i = 0; i < 2000 && !has_none(); ++i) ::usleep(1000);
  EXPECT_EQ(StatusLine(process.pid, "CapPrm"), "0000000000000000");
  EXPECT_EQ(StatusLine(process.pid, "CapEff"), "0000000000000000");
  EXPECT_EQ(StatusLine(process.pid, "Seccomp"), "2");
  EXPECT_EQ(Status(), OciStatus::kCreated);
  EXPECT_OK(runtime_->Start("web"));
  EXPECT_EQ(Line(), "runs");
  EXPECT_OK(runtime_->Delete("web", /*force=*/true));
}

TEST_F(OciRuntimeTest, DeletionIsNotThatOfAnotherOne) {
  MakeBundle(":",
             json({{"linux",
                    {{"cgroupsPath", group_ + "/caisson-1-0123456789abcdef"}}}})
                 .dump());
  EXPECT_THAT(Create(), StatusIs(absl::StatusCode::kInvalidArgument,
                                 HasSubstr("library's own")));
  EXPECT_THAT(std::filesystem::is_empty(directory_ + "/state"), true);
}

TEST_F(OciRuntimeTest, RecordsGoWithTheirContainerAlone) {
  using runtime::ContainerDirectory;
  using runtime::StateDirectory;
  const std::string state = directory_ + "/state";
  ASSERT_OK_AND_ASSIGN(const StateDirectory all, StateDirectory::Open(state));
  {
    ASSERT_OK_AND_ASSIGN(ContainerDirectory old, all.Create("a"));
    std::filesystem::rename(state + "/a", state + "/elsewhere");
    ASSERT_OK_AND_ASSIGN(ContainerDirectory next, all.Create("a"));
    EXPECT_OK(old.Remove());
    EXPECT_TRUE(std::filesystem::exists(state + "/a/lock"));
    EXPECT_OK(next.Remove());
    EXPECT_OK(runtime_->Delete("elsewhere"));
  }
  // Whoever looks leaves nothing, and what is no container yet can go.
  std::filesystem::create_directory(state + "/rest");
  EXPECT_THAT(runtime_->State("rest"), StatusIs(absl::StatusCode::kNotFound,
                                                HasSubstr("does not exist")));
  EXPECT_TRUE(std::filesystem::is_empty(state + "/rest"));
  EXPECT_OK(runtime_->Delete("rest"));
  // Its record is not written yet.
  {
    ASSERT_OK_AND_ASSIGN(ContainerDirectory made, all.Create("made"));
    EXPECT_THAT(runtime_->State("made"), StatusIs(absl::StatusCode::kNotFound,
                                                  HasSubstr("does not exist")));
    EXPECT_OK(made.Remove());
  }
  EXPECT_TRUE(std::filesystem::is_empty(state));
}

TEST_F(OciRuntimeTest, RecordsComeAndGoWhileOthersLook) {
  using runtime::ContainerDirectory;
  using runtime::StateDirectory;
  ASSERT_OK_AND_ASSIGN(const StateDirectory all,
                       StateDirectory::Open(directory_ + "/state"));
  std::atomic<bool> done = false;
  std::thread reader([&] {
    while (!done) (void)runtime_->State("a");
  });
  std::thread remover([&] {
    while (!done) EXPECT_OK(runtime_->Delete("a", /*force=*/true));
  });
  const absl::Cleanup end = [&] {
    done = true;
    reader.join();
    remover.join();
  };
  for (int i = 0; i < 500; ++i) {
    auto made = all.Create("a");
    if (absl::IsAborted(made.status())) continue;
    ASSERT_OK(made);
    EXPECT_OK(made->Remove());
  }
}

// What `kill -9` of a start leaves when it was about to remove the gate.
TEST_F(OciRuntimeTest, GateWithoutAnybodyWaitingMeansRunning) {
  const OciProcess process = Running();
  const std::string gate = directory_ + "/state/web/gate";
  ASSERT_EQ(::mkfifo(gate.c_str(), 0600), 0);
  EXPECT_EQ(Status(), OciStatus::kRunning);
  EXPECT_THAT(runtime_->Delete("web"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("not stopped: running")));
  EXPECT_THAT(runtime_->Start("web"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("already running")));
  EXPECT_FALSE(std::filesystem::exists(gate));
  EXPECT_OK(runtime_->Delete("web", /*force=*/true));
  EXPECT_EQ(ExitStatus(process.pid), SIGKILL);
}

// Whatever of a start or a deletion was done, a forced deletion does the rest.
TEST_F(OciRuntimeTest, KilledStartAndDeletionAreFinished) {
  MakeBundle(kForever);
  for (int delay = 0; delay < 4000; delay += 400) {  // us
    for (const bool start : {true, false}) {
      ASSERT_OK_AND_ASSIGN(const OciProcess process, Create());
      const pid_t pid = ::fork();
      if (pid == 0) {
        const absl::Status status =
            start ? runtime_->Start("web") : runtime_->Delete("web");
        ::_exit(status.ok() ? 0 : 1);
      }
      ::usleep(static_cast<useconds_t>(delay));
      ASSERT_EQ(::kill(pid, SIGKILL), 0);
      ASSERT_EQ(::waitpid(pid, nullptr, 0), pid);
      EXPECT_OK(runtime_->Delete("web", /*force=*/true)) << delay << start;
      EXPECT_EQ(ExitStatus(process.pid), SIGKILL);
      EXPECT_TRUE(std::filesystem::is_empty(directory_ + "/state"));
    }
  }
}

json ShellHook(const std::string& script) {
  return {{{"path", "/bin/sh"}, {"args", {"sh", "-c", script}}}};
}

TEST_F(OciRuntimeTest, PoststartHookFindsItRunning) {
  const std::string seen = directory_ + "/seen";
  const std::string gate = directory_ + "/state/web/gate";
  MakeBundle(kForever,
             json({{"hooks",
                    {{"poststart", ShellHook(absl::StrCat("test -e ", gate,
                                                          " && echo gate >",
                                                          seen, "; true"))}}}})
                 .dump());
  ASSERT_OK(Create());
  EXPECT_OK(runtime_->Start("web"));
  EXPECT_FALSE(std::filesystem::exists(seen));
  EXPECT_OK(runtime_->Delete("web", /*force=*/true));
}

// The groups of the machine's root, in every hierarchy.
void LeaveGroups(pid_t pid) {
  std::ifstream groups(absl::StrCat("/proc/", pid, "/cgroup"));
  for (std::string line; std::getline(groups, line);) {
    const std::vector<std::string> fields = absl::StrSplit(line, ':');
    std::string hierarchy = fields[1].empty() ? "unified" : fields[1];
    hierarchy = std::string(absl::StripPrefix(hierarchy, "name="));
    for (const std::string& mount :
         {"/sys/fs/cgroup/" + hierarchy, std::string("/sys/fs/cgroup")}) {
      if (std::ofstream(mount + "/cgroup.procs") << pid << std::flush) break;
    }
  }
}

TEST_F(OciRuntimeTest, ForcedDeletionFindsTheFirstProcessOutsideOfItsGroup) {
  const OciProcess process = Running();
  LeaveGroups(process.pid);
  ASSERT_THAT(ReadText(absl::StrCat("/proc/", process.pid, "/cgroup")),
              Not(HasSubstr(group_)));
  EXPECT_OK(runtime_->Delete("web", /*force=*/true));
  EXPECT_TRUE(IsReadable(process.pidfd.borrow()));
  EXPECT_EQ(ExitStatus(process.pid), SIGKILL);
}

TEST_F(OciRuntimeTest, HungHookEndsWithTheContainersProcess) {
  const std::string began = directory_ + "/began";
  for (const bool force : {false, true}) {
    MakeBundle(":", json({{"hooks",
                           {{"createRuntime",
                             ShellHook(absl::StrCat("echo >", began,
                                                    "; exec sleep 1000"))}}}})
                        .dump());
    absl::Status created;
    std::thread creator([&] { created = Create().status(); });
    while (!std::filesystem::exists(began)) ::usleep(1000);
    EXPECT_EQ(Status(), OciStatus::kCreating);
    EXPECT_THAT(runtime_->Exec("web", {.process = Process(":")}),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("not running")));
    if (force) {
      EXPECT_OK(runtime_->Delete("web", /*force=*/true));
    } else {
      EXPECT_OK(runtime_->Kill("web", SIGKILL));
    }
    creator.join();
    EXPECT_THAT(created, StatusIs(absl::StatusCode::kAborted,
                                  HasSubstr("container's process ended")));
    EXPECT_TRUE(std::filesystem::is_empty(directory_ + "/state"));
    std::filesystem::remove(began);
  }
}

TEST_F(OciRuntimeTest, FailedCreationCallsThePoststopHooks) {
  const auto note = [&](const std::string& point) {
    return ShellHook(absl::StrCat("echo ", point, " >>", directory_, "/hooks"));
  };
  json hooks = {{"prestart", note("prestart")},
                {"createRuntime", {{{"path", "/bin/false"}}}},
                {"poststop", note("poststop")}};
  MakeBundle(":", json({{"hooks", hooks}}).dump());
  EXPECT_THAT(Create(), StatusIs(absl::StatusCode::kAborted,
                                 HasSubstr("create_runtime")));
  EXPECT_EQ(ReadText(directory_ + "/hooks"), "prestart\npoststop\n");
  // Before the first hook there is nothing to undo.
  MakeBundle(
      ":",
      json({{"hooks", hooks}, {"process", {{"args", {"nosuch"}}}}}).dump());
  EXPECT_FALSE(Create().ok());
  EXPECT_EQ(ReadText(directory_ + "/hooks"), "prestart\npoststop\n");
}

TEST_F(OciRuntimeTest, FailureOfAPoststopHookIsAWarning) {
  MakeBundle(":", R"({"hooks": {"poststop": [{"path": "/bin/false"}]}})");
  ASSERT_OK(Create());
  std::vector<std::string> warnings;
  EXPECT_OK(runtime_->Delete("web", /*force=*/true, &warnings));
  EXPECT_THAT(warnings, ElementsAre(HasSubstr("/bin/false")));
}

TEST_F(OciRuntimeTest, BundleHasAnyName) {
  const std::string bundle = directory_ + "/\xff";
  MakeBundle(kForever,
             json({{"root", {{"path", directory_ + "/rootfs"}}}}).dump());
  std::filesystem::create_directory(bundle);
  std::filesystem::rename(directory_ + "/config.json", bundle + "/config.json");
  ASSERT_OK(runtime_->Create("web", {.bundle = bundle}));
  ASSERT_OK_AND_ASSIGN(const OciState state, runtime_->State("web"));
  EXPECT_EQ(state.bundle, bundle);
  EXPECT_OK(runtime_->Delete("web"));
}

TEST_F(OciRuntimeTest, UnreadableRecordIsRemovedByForce) {
  MakeBundle(kForever);
  ASSERT_OK_AND_ASSIGN(const OciProcess process, Create());
  const std::string record = directory_ + "/state/web/state.pb";
  const std::string text = ReadText(record);
  // Of another version: field 1 is 1.
  std::ofstream(record) << "\x08\x01";
  EXPECT_THAT(runtime_->Delete("web"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("is of version 1; this library knows")));
  std::ofstream(record) << "\xff";
  EXPECT_THAT(runtime_->Delete("web"),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("state.pb")));
  EXPECT_THAT(
      runtime_->Delete("web", /*force=*/true),
      StatusIs(absl::StatusCode::kDataLoss, HasSubstr("control group")));
  EXPECT_EQ(ExitStatus(process.pid), SIGKILL);
  EXPECT_TRUE(std::filesystem::is_empty(directory_ + "/state"));
  // With the record again, the group is found.
  std::filesystem::create_directory(directory_ + "/state/web");
  std::ofstream(directory_ + "/state/web/lock");
  std::ofstream(record) << text;
  EXPECT_OK(runtime_->Delete("web"));
}

TEST_F(OciRuntimeTest, GroupOfAnotherBootIsSomebodyElses) {
  using runtime::ContainerDirectory;
  using runtime::StateDirectory;
  const OciProcess process = Running();
  ASSERT_OK_AND_ASSIGN(const StateDirectory all,
                       StateDirectory::Open(directory_ + "/state"));
  ASSERT_OK_AND_ASSIGN(ContainerDirectory web, all.Find("web"));
  ASSERT_OK_AND_ASSIGN(const auto record, web.Read());
  auto other = record;
  other.set_boot_id("another");
  ASSERT_OK(web.Write(other));
  EXPECT_THAT(runtime_->Processes("web"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("web")));
  ASSERT_OK(web.Write(record));
  EXPECT_OK(runtime_->Delete("web", /*force=*/true));
  EXPECT_EQ(ExitStatus(process.pid), SIGKILL);
}

TEST_F(OciRuntimeTest, PidFileIsAFreshFile) {
  MakeBundle(":");
  const std::string fresh = directory_ + "/.pid";
  ASSERT_EQ(::mkfifo(fresh.c_str(), 0600), 0);
  ASSERT_OK_AND_ASSIGN(
      const OciProcess process,
      runtime_->Create(
          "web", {.bundle = directory_, .pid_file = directory_ + "/pid"}));
  EXPECT_EQ(ReadText(directory_ + "/pid"), absl::StrCat(process.pid));
  EXPECT_FALSE(std::filesystem::exists(fresh));
  EXPECT_OK(runtime_->Delete("web"));
  // A directory is in the way of the file's name.
  std::filesystem::create_directory(directory_ + "/taken");
  EXPECT_FALSE(runtime_
                   ->Create("web", {.bundle = directory_,
                                    .pid_file = directory_ + "/taken"})
                   .ok());
  EXPECT_FALSE(std::filesystem::exists(directory_ + "/.taken"));
}

// As in a container of another engine, whose control groups are read-only.
int CreateWithoutWritableGroups(const OciRuntime& runtime,
                                const OciCreateOptions& options) {
  if (::unshare(CLONE_NEWNS) != 0 ||
      ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    return 1;
  }
  std::ifstream mounts("/proc/self/mounts");
  for (std::string line; std::getline(mounts, line);) {
    const std::vector<std::string> fields = absl::StrSplit(line, ' ');
    if (fields[2].rfind("cgroup", 0) == 0 &&
        ::mount(nullptr, fields[1].c_str(), nullptr,
                MS_REMOUNT | MS_BIND | MS_RDONLY, nullptr) != 0) {
      return 2;
    }
  }
  const auto created = runtime.Create("web", options);
  if (!created.ok()) {
    std::cerr << created.status() << "\n";
    return 3;
  }
  if (!runtime.Start("web").ok()) return 4;
  pollfd ended = {created->pidfd.get(), POLLIN, 0};
  if (::poll(&ended, 1, kPatience) != 1) return 5;
  return runtime.Delete("web").ok() ? 0 : 6;
}

TEST_F(OciRuntimeTest, NeedsNoGroupWhereNoneCanBeWritten) {
  MakeBundle("echo runs", R"({"linux": {"cgroupsPath": null}})");
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::_exit(CreateWithoutWritableGroups(
        *runtime_, {.bundle = directory_, .streams = ToPipe()}));
  }
  EXPECT_EQ(ExitStatus(pid), 0);
  EXPECT_EQ(Written(), "runs\n");
}

}  // namespace
}  // namespace caisson
