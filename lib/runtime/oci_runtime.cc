#include "caisson/oci_runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "caisson/bundle.h"
#include "caisson/cgroup.h"
#include "caisson/launcher.h"
#include "lib/base/deadline.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/runtime/check_program.h"
#include "lib/runtime/container_group.h"
#include "lib/runtime/descriptor_socket.h"
#include "lib/runtime/init_process.h"
#include "lib/runtime/resctrl.h"
#include "lib/runtime/state_directory.h"
#include "lib/spec/documents.h"
#include "lib/spec/runtime_config.h"
#include "lib/sys/open.h"
#include "lib/sys/pidfd.h"
#include "lib/sys/pidfd_open.h"

namespace caisson {
namespace {

using ::caisson::runtime::ContainerDirectory;
using ::caisson::runtime::ContainerRecord;
using ::caisson::runtime::OpenGroup;
using ::caisson::runtime::OpenInit;
using ::caisson::runtime::ProcessRecord;
using ::caisson::runtime::ResctrlGroup;

constexpr absl::Duration kKillTimeout = absl::Seconds(10);

absl::Status NotRunning() {
  // containerd knows this text.
  return absl::FailedPreconditionError("container not running");
}

// ---- What a record says ----------------------------------------------------

// A container as it is now.
struct Found {
  ContainerDirectory directory;
  ContainerRecord record;
  pid_t pid = 0;  // 0 until there is a process
  UniqueFd init;  // invalid if it has ended
};

absl::StatusOr<Found> Look(ContainerDirectory directory) {
  ASSIGN_OR_RETURN(ContainerRecord record, directory.Read());
  ASSIGN_OR_RETURN(const ProcessRecord process, directory.ReadProcess());
  ASSIGN_OR_RETURN(UniqueFd init, OpenInit(process));
  return Found{std::move(directory), std::move(record), process.pid(),
               std::move(init)};
}

absl::StatusOr<OciStatus> StatusOf(const Found& found) {
  if (!found.init.valid()) {
    if (found.pid != 0) return OciStatus::kStopped;
    ASSIGN_OR_RETURN(const bool busy, found.directory.IsLocked());
    return busy ? OciStatus::kCreating : OciStatus::kStopped;
  }
  if (runtime::IsFrozen(found.record)) return OciStatus::kPaused;
  return found.directory.HasGate() ? OciStatus::kCreated : OciStatus::kRunning;
}

absl::StatusOr<OciState> StateOf(const Found& found) {
  ASSIGN_OR_RETURN(const OciStatus status, StatusOf(found));
  ASSIGN_OR_RETURN(const Bundle bundle,
                   Bundle::Parse(found.record.bundle(), found.record.config()));
  const std::string& root = bundle.config().root.path;
  return OciState{
      .id = found.record.id(),
      .status = status,
      .pid = status == OciStatus::kStopped ? 0 : found.pid,
      .bundle = found.record.bundle(),
      .rootfs = absl::StartsWith(root, "/")
                    ? root
                    : absl::StrCat(found.record.bundle(), "/", root),
      .created = absl::FromUnixNanos(found.record.created_unix_ns()),
      .owner = found.record.owner_uid(),
      .annotations = bundle.annotations()};
}

// ---- Processes -------------------------------------------------------------

absl::Status WritePidFile(const std::string& path, pid_t pid) {
  if (path.empty()) return absl::OkStatus();
  const size_t name = path.rfind('/') + 1;
  const std::string fresh =
      absl::StrCat(path.substr(0, name), ".", path.substr(name));
  ASSIGN_OR_RETURN(
      const UniqueFd file,
      sys::Open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0644));
  RETURN_IF_ERROR(sys::WriteAll(file.borrow(), absl::StrCat(pid), fresh));
  if (::rename(fresh.c_str(), path.c_str()) == 0) return absl::OkStatus();
  return ErrnoError(errno, absl::StrCat("rename(", Quoted(path), ")"),
                    {.step = "pid file", .path = path});
}

void UseStreams(const OciStreams& streams, ProcessSpec& spec) {
  if (!spec.terminal) {
    spec.in = streams.in;
    spec.out = streams.out;
    spec.err = streams.err;
  }
  spec.descriptors = streams.descriptors;
}

absl::Status CheckStreams(const OciStreams& streams, const ProcessSpec& spec) {
  if (streams.console_socket.empty() || spec.terminal) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "a console socket is for a process with a terminal (process.terminal)");
}

// What is told of a process before it is left to itself.
absl::StatusOr<OciProcess> HandOver(const Process& process,
                                    const OciStreams& streams,
                                    const std::string& pid_file,
                                    const std::vector<std::string>& warnings) {
  OciProcess out;
  out.pid = process.pid();
  ASSIGN_OR_RETURN(out.pidfd, sys::Duplicate(process.pidfd()));
  if (process.terminal().valid()) {
    if (streams.console_socket.empty()) {
      ASSIGN_OR_RETURN(out.terminal, sys::Duplicate(process.terminal()));
    } else {
      RETURN_IF_ERROR(
          runtime::SendTerminal(streams.console_socket, process.terminal()));
    }
  }
  RETURN_IF_ERROR(WritePidFile(pid_file, out.pid));
  out.warnings = warnings;
  out.warnings.insert(out.warnings.end(), process.omissions().begin(),
                      process.omissions().end());
  return out;
}

// Gives the system calls that the filter hands out to the agent that the
// document names. `pid` is that of the container's first process.
absl::Status TellAgent(const Bundle& bundle, const std::string& id,
                       OciStatus status, pid_t pid, Process& process) {
  const UniqueFd listener = process.TakeSeccompListener();
  const std::optional<SeccompAgent> agent = bundle.seccomp_agent();
  if (!listener.valid() || !agent) return absl::OkStatus();
  const std::string state =
      spec::SeccompProcessJson(process.pid(), agent->metadata,
                               {.id = id,
                                .status = std::string(OciStatusName(status)),
                                .pid = pid,
                                .bundle = bundle.directory(),
                                .annotations = bundle.annotations()});
  const absl::Status sent =
      runtime::SendListener(agent->path, state, listener.borrow());
  return sent.ok() ? sent
                   : Annotate(sent, "config.json: linux.seccomp.listenerPath");
}

absl::Status SignalAll(const Cgroup& group, int signal) {
  if (signal == SIGKILL) return group.Kill();
  ASSIGN_OR_RETURN(const std::vector<pid_t> pids, group.Processes());
  for (const pid_t pid : pids) {
    if (pid <= 0) continue;
    const auto pidfd = sys::OpenPidfd(pid);
    if (absl::IsNotFound(pidfd.status())) continue;
    RETURN_IF_ERROR(pidfd.status());
    const absl::Status sent = sys::SendSignal(pidfd->borrow(), signal);
    if (!sent.ok() && !absl::IsNotFound(sent)) return sent;
  }
  return absl::OkStatus();
}

absl::Status KillAndWait(BorrowedFd init) {
  const absl::Status sent = sys::SendSignal(init, SIGKILL);
  if (absl::IsNotFound(sent)) return absl::OkStatus();
  RETURN_IF_ERROR(sent);
  const Deadline deadline(kKillTimeout);
  pollfd poll = {.fd = init.get(), .events = POLLIN, .revents = 0};
  for (;;) {
    const int ready = deadline.Poll(absl::MakeSpan(&poll, 1));
    if (ready > 0) return absl::OkStatus();
    if (ready == 0 && deadline.expired()) {
      return absl::DeadlineExceededError(
          absl::StrCat("process ", sys::PidOf(init), " outlived SIGKILL by ",
                       absl::FormatDuration(kKillTimeout)));
    }
    if (ready < 0 && errno != EINTR) {
      return ErrnoError(errno, "ppoll(pidfd)", {.step = "delete"});
    }
  }
}

// ---- Parts of the operations -----------------------------------------------

absl::StatusOr<OciProcess> CreateIn(const ContainerDirectory& directory,
                                    const Bundle& bundle,
                                    const OciCreateOptions& options) {
  // Gets ready while the group is made.
  ASSIGN_OR_RETURN(LauncherStart start,
                   LauncherStart::Begin({.releases = true}));
  ContainerRecord record;
  record.set_version(runtime::kRecordVersion);
  record.set_id(directory.id());
  record.set_bundle(bundle.directory());
  record.set_config(bundle.text());
  record.set_created_unix_ns(absl::ToUnixNanos(absl::Now()));
  record.set_owner_uid(::getuid());
  const spec::Hooks& hooks = bundle.config().hooks;
  record.set_has_start_hooks(!hooks.start_container.empty() ||
                             !hooks.poststart.empty());
  record.set_has_poststop_hooks(!hooks.poststop.empty());
  const auto& rdt = bundle.config().linux_config.intel_rdt;
  if (rdt) {
    ASSIGN_OR_RETURN(*record.mutable_resctrl(), runtime::FindResctrl());
  }
  ASSIGN_OR_RETURN(std::optional<Cgroup> group,
                   runtime::MakeGroup(directory, bundle, record));
  std::optional<ResctrlGroup> resctrl;
  if (rdt) {
    ASSIGN_OR_RETURN(
        ResctrlGroup made,
        ResctrlGroup::Make(record.resctrl(), *rdt, directory.id()));
    resctrl.emplace(std::move(made));
  }

  ASSIGN_OR_RETURN(Launcher launcher, start.Finish());
  ASSIGN_OR_RETURN(
      BundleParts parts,
      bundle.Compose({.id = directory.id(),
                      .launcher = &launcher,
                      .cgroup = group ? &*group : nullptr,
                      .new_session_keyring = options.new_session_keyring,
                      .handles_intel_rdt = true}));
  ProcessSpec& spec = parts.spec();
  RETURN_IF_ERROR(CheckStreams(options.streams, spec));
  RETURN_IF_ERROR(runtime::CheckProgram(spec, bundle.config()));
  UseStreams(options.streams, spec);
  ASSIGN_OR_RETURN(const UniqueFd gate, directory.MakeGate());
  spec.gate = gate.borrow();
  ASSIGN_OR_RETURN(Process process, launcher.CreateProcess(spec));
  if (resctrl) RETURN_IF_ERROR(resctrl->Assign(process.pid()));
  ASSIGN_OR_RETURN(const ProcessRecord init,
                   runtime::Remember(process.pidfd()));
  RETURN_IF_ERROR(directory.WriteProcess(init));
  ASSIGN_OR_RETURN(
      OciProcess out,
      HandOver(process, options.streams, options.pid_file, parts.warnings()));
  RETURN_IF_ERROR(process.Release());
  absl::Cleanup kill = [&out] {
    sys::SendSignal(out.pidfd.borrow(), SIGKILL).IgnoreError();
  };
  RETURN_IF_ERROR(TellAgent(bundle, directory.id(), OciStatus::kCreating,
                            out.pid, process));
  std::move(kill).Cancel();
  if (group) group->Disown();
  if (resctrl) resctrl->Keep();
  // From its end on, the process is the subreaper's child.
  RETURN_IF_ERROR(launcher.Shutdown());
  return out;
}

absl::Status RunPoststopHooks(const Found& found) {
  if (!found.record.has_poststop_hooks()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const Bundle bundle,
                   Bundle::Parse(found.record.bundle(), found.record.config()));
  ASSIGN_OR_RETURN(Launcher launcher, Launcher::Create({.releases = true}));
  const Hooks hooks =
      bundle.MakeHooks({.id = found.record.id(), .launcher = &launcher});
  const HookState state = {.id = hooks.id,
                           .status = "stopped",
                           .bundle = hooks.bundle,
                           .annotations = hooks.annotations};
  absl::Status first;
  for (const Hook& hook : hooks.poststop) first.Update(hook(state));
  return first;
}

absl::Status RemoveResctrl(const ContainerRecord& record) {
  if (record.resctrl().empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const Bundle bundle,
                   Bundle::Parse(record.bundle(), record.config()));
  const auto& rdt = bundle.config().linux_config.intel_rdt;
  if (!rdt) return absl::OkStatus();
  return runtime::RemoveResctrlGroup(record.resctrl(), *rdt, record.id());
}

// What is in the group is gone then, but for what its parent did not collect; a
// first process waits for those that are in its pid namespace.
absl::Status Destroy(const Found& found) {
  auto group = OpenGroup(found.record);
  bool recover = !found.record.group_path().empty();
  if (group.ok()) {
    recover = group->IsBelowMadeDirectory();
    RETURN_IF_ERROR(group->Destroy());
  } else if (!absl::IsNotFound(group.status()) &&
             !absl::IsFailedPrecondition(group.status())) {
    return group.status();
  } else if (found.init.valid()) {
    RETURN_IF_ERROR(KillAndWait(found.init.borrow()));
  }
  if (recover) RETURN_IF_ERROR(runtime::RemoveMadeParents(found.record));
  return RemoveResctrl(found.record);
}

}  // namespace

// ---- OciRuntime ------------------------------------------------------------

absl::string_view OciStatusName(OciStatus status) {
  switch (status) {
    case OciStatus::kCreating:
      return "creating";
    case OciStatus::kCreated:
      return "created";
    case OciStatus::kRunning:
      return "running";
    case OciStatus::kPaused:
      return "paused";
    case OciStatus::kStopped:
      return "stopped";
  }
  return "unknown";
}

OciRuntime::OciRuntime(std::unique_ptr<runtime::StateDirectory> state)
    : state_(std::move(state)) {}
OciRuntime::OciRuntime(OciRuntime&&) noexcept = default;
OciRuntime& OciRuntime::operator=(OciRuntime&&) noexcept = default;
OciRuntime::~OciRuntime() = default;

absl::StatusOr<OciRuntime> OciRuntime::Open(const OciRuntimeOptions& options) {
  ASSIGN_OR_RETURN(runtime::StateDirectory state,
                   runtime::StateDirectory::Open(options.root));
  return OciRuntime(
      std::make_unique<runtime::StateDirectory>(std::move(state)));
}

absl::StatusOr<OciProcess> OciRuntime::Create(
    const std::string& id, const OciCreateOptions& options) const {
  ASSIGN_OR_RETURN(const Bundle bundle, Bundle::Load(options.bundle));
  ASSIGN_OR_RETURN(ContainerDirectory directory, state_->Create(id));
  absl::Cleanup remove = [&] { directory.Remove().IgnoreError(); };
  ASSIGN_OR_RETURN(OciProcess out, CreateIn(directory, bundle, options));
  std::move(remove).Cancel();
  return out;
}

absl::Status OciRuntime::Start(const std::string& id) const {
  ASSIGN_OR_RETURN(ContainerDirectory directory, state_->Find(id));
  RETURN_IF_ERROR(directory.Lock());
  ASSIGN_OR_RETURN(const Found found, Look(std::move(directory)));
  ASSIGN_OR_RETURN(const OciStatus status, StatusOf(found));
  if (status == OciStatus::kStopped) {
    return absl::FailedPreconditionError(
        "cannot start a container that has stopped");
  }
  if (status != OciStatus::kCreated) {
    return absl::FailedPreconditionError(
        "cannot start an already running container");
  }
  ASSIGN_OR_RETURN(const UniqueFd gate, found.directory.FindGate());
  if (!found.record.has_start_hooks()) {
    RETURN_IF_ERROR(sys::WriteAll(gate.borrow(), "s", "the container's gate"));
    return found.directory.RemoveGate();
  }
  ASSIGN_OR_RETURN(const Bundle bundle,
                   Bundle::Parse(found.record.bundle(), found.record.config()));
  ASSIGN_OR_RETURN(Launcher launcher, Launcher::Create({.releases = true}));
  const BundleOptions options = {.id = id, .launcher = &launcher};
  // Under the policy, and as the user, of the container's program.
  ASSIGN_OR_RETURN(BundleParts parts, bundle.ComposeExec("", options));
  parts.spec().gate = gate.borrow();
  parts.spec().hooks = bundle.MakeHooks(options);
  ASSIGN_OR_RETURN(Process process,
                   launcher.Adopt(found.init.borrow(), parts.spec()));
  RETURN_IF_ERROR(process.Start());
  RETURN_IF_ERROR(found.directory.RemoveGate());
  return launcher.Shutdown();
}

absl::StatusOr<OciState> OciRuntime::State(const std::string& id) const {
  ASSIGN_OR_RETURN(ContainerDirectory directory, state_->Find(id));
  ASSIGN_OR_RETURN(const Found found, Look(std::move(directory)));
  return StateOf(found);
}

absl::StatusOr<std::string> OciRuntime::Config(const std::string& id) const {
  ASSIGN_OR_RETURN(const ContainerDirectory directory, state_->Find(id));
  ASSIGN_OR_RETURN(const ContainerRecord record, directory.Read());
  return record.config();
}

std::vector<OciState> OciRuntime::List() const {
  std::vector<OciState> states;
  for (const std::string& id : state_->Ids()) {
    auto state = State(id);
    if (state.ok()) states.push_back(*std::move(state));
  }
  return states;
}

absl::Status OciRuntime::Kill(const std::string& id, int signal,
                              bool all) const {
  ASSIGN_OR_RETURN(ContainerDirectory directory, state_->Find(id));
  ASSIGN_OR_RETURN(const Found found, Look(std::move(directory)));
  // Without a group, the end of the first process is that of all.
  if (all && !found.record.group_path().empty()) {
    const auto group = OpenGroup(found.record);
    if (!group.ok()) return NotRunning();
    return SignalAll(*group, signal);
  }
  if (!found.init.valid()) return NotRunning();
  const absl::Status sent = sys::SendSignal(found.init.borrow(), signal);
  if (absl::IsNotFound(sent)) return NotRunning();
  RETURN_IF_ERROR(sent);
  // On version 1 what is frozen dies when it is thawed.
  if (signal != SIGKILL) return absl::OkStatus();
  if (!runtime::IsFrozen(found.record)) return absl::OkStatus();
  const auto group = OpenGroup(found.record);
  return group.ok() ? group->Thaw() : absl::OkStatus();
}

absl::Status OciRuntime::Delete(const std::string& id, bool force) const {
  auto directory = state_->Find(id);
  if (force && absl::IsNotFound(directory.status())) return absl::OkStatus();
  RETURN_IF_ERROR(directory.status());
  RETURN_IF_ERROR(directory->Lock());
  auto record = directory->Read();
  // A `kill -9` before anything else was made.
  if (absl::IsNotFound(record.status())) return directory->Remove();
  ASSIGN_OR_RETURN(Found found, Look(*std::move(directory)));
  ASSIGN_OR_RETURN(const OciStatus status, StatusOf(found));
  if (!force && status != OciStatus::kStopped &&
      status != OciStatus::kCreated) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot delete container ", id,
                     " that is not stopped: ", OciStatusName(status)));
  }
  RETURN_IF_ERROR(Destroy(found));
  const absl::Status hooks = RunPoststopHooks(found);
  RETURN_IF_ERROR(found.directory.Remove());
  return hooks;
}

absl::StatusOr<OciProcess> OciRuntime::Exec(
    const std::string& id, const OciExecOptions& options) const {
  ASSIGN_OR_RETURN(ContainerDirectory directory, state_->Find(id));
  ASSIGN_OR_RETURN(const Found found, Look(std::move(directory)));
  ASSIGN_OR_RETURN(const OciStatus status, StatusOf(found));
  if (!found.init.valid()) {
    return absl::FailedPreconditionError(
        "cannot exec in a container that is not running");
  }
  if (status == OciStatus::kPaused && !options.ignore_paused) {
    return absl::FailedPreconditionError(
        "cannot exec in a paused container (use --ignore-paused to override)");
  }
  ASSIGN_OR_RETURN(const Bundle bundle,
                   Bundle::Parse(found.record.bundle(), found.record.config()));
  ASSIGN_OR_RETURN(Launcher launcher, Launcher::Create({.releases = true}));
  ASSIGN_OR_RETURN(
      BundleParts parts,
      bundle.ComposeExec(options.process,
                         {.id = id,
                          .launcher = &launcher,
                          .new_session_keyring = options.new_session_keyring}));
  ProcessSpec& spec = parts.spec();
  RETURN_IF_ERROR(CheckStreams(options.streams, spec));
  UseStreams(options.streams, spec);
  ASSIGN_OR_RETURN(const Process container,
                   launcher.Adopt(found.init.borrow()));
  ASSIGN_OR_RETURN(Process process, launcher.Exec(container, spec));
  ASSIGN_OR_RETURN(
      OciProcess out,
      HandOver(process, options.streams, options.pid_file, parts.warnings()));
  // Before it is released: a process whose calls nobody takes ends.
  RETURN_IF_ERROR(
      TellAgent(bundle, id, OciStatus::kRunning, found.pid, process));
  RETURN_IF_ERROR(process.Release());
  RETURN_IF_ERROR(launcher.Shutdown());
  return out;
}

absl::Status OciRuntime::Pause(const std::string& id) const {
  ASSIGN_OR_RETURN(ContainerDirectory directory, state_->Find(id));
  ASSIGN_OR_RETURN(const Found found, Look(std::move(directory)));
  if (!found.init.valid()) return NotRunning();
  ASSIGN_OR_RETURN(const Cgroup group, OpenGroup(found.record));
  return group.Freeze();
}

absl::Status OciRuntime::Resume(const std::string& id) const {
  ASSIGN_OR_RETURN(ContainerDirectory directory, state_->Find(id));
  ASSIGN_OR_RETURN(const Found found, Look(std::move(directory)));
  ASSIGN_OR_RETURN(const OciStatus status, StatusOf(found));
  if (status != OciStatus::kPaused) {
    return absl::FailedPreconditionError("container not paused");
  }
  ASSIGN_OR_RETURN(const Cgroup group, OpenGroup(found.record));
  return group.Thaw();
}

absl::Status OciRuntime::Update(const std::string& id,
                                absl::string_view resources) const {
  ASSIGN_OR_RETURN(ContainerDirectory directory, state_->Find(id));
  RETURN_IF_ERROR(directory.Lock());
  ASSIGN_OR_RETURN(const Found found, Look(std::move(directory)));
  if (!found.init.valid()) return NotRunning();
  ASSIGN_OR_RETURN(const Bundle bundle,
                   Bundle::Parse(found.record.bundle(), found.record.config()));
  ASSIGN_OR_RETURN(const CgroupLimits limits, bundle.LimitsOfUpdate(resources));
  ASSIGN_OR_RETURN(Cgroup group, OpenGroup(found.record));
  return group.SetLimits(limits);
}

absl::StatusOr<std::vector<pid_t>> OciRuntime::Processes(
    const std::string& id) const {
  ASSIGN_OR_RETURN(ContainerDirectory directory, state_->Find(id));
  ASSIGN_OR_RETURN(const Found found, Look(std::move(directory)));
  ASSIGN_OR_RETURN(const Cgroup group, OpenGroup(found.record));
  return group.Processes();
}

absl::StatusOr<CgroupStats> OciRuntime::Stats(const std::string& id) const {
  ASSIGN_OR_RETURN(ContainerDirectory directory, state_->Find(id));
  ASSIGN_OR_RETURN(const Found found, Look(std::move(directory)));
  ASSIGN_OR_RETURN(const Cgroup group, OpenGroup(found.record));
  ASSIGN_OR_RETURN(const CgroupStatsReader reader, group.OpenStats());
  return reader.Read();
}

absl::StatusOr<OciWatch> OciRuntime::Watch(const std::string& id) const {
  ASSIGN_OR_RETURN(ContainerDirectory directory, state_->Find(id));
  ASSIGN_OR_RETURN(Found found, Look(std::move(directory)));
  if (!found.init.valid()) return NotRunning();
  ASSIGN_OR_RETURN(const Cgroup group, OpenGroup(found.record));
  OciWatch watch;
  const auto paths = group.paths();
  const bool v1 =
      std::any_of(paths.begin(), paths.end(), [](const CgroupPath& path) {
        return path.version == CgroupVersion::kV1 &&
               std::count(path.controllers.begin(), path.controllers.end(),
                          CgroupController::kMemory) > 0;
      });
  auto events = group.Watch(
      {.kinds = {v1 ? CgroupEventKind::kOom : CgroupEventKind::kOomKill}});
  if (events.ok()) {
    watch.out_of_memory = *std::move(events);
  } else if (!absl::IsFailedPrecondition(events.status())) {
    return events.status();
  }
  watch.end = std::move(found.init);
  return watch;
}

}  // namespace caisson
