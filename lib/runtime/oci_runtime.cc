#include "caisson/oci_runtime.h"

#include <errno.h>
#include <fcntl.h>
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
#include "lib/sys/boot_id.h"
#include "lib/sys/open.h"
#include "lib/sys/pidfd.h"
#include "lib/sys/pidfd_open.h"

namespace caisson {
namespace {

using ::caisson::runtime::ContainerDirectory;
using ::caisson::runtime::ContainerRecord;
using ::caisson::runtime::FindGroup;
using ::caisson::runtime::KillInit;
using ::caisson::runtime::OpenGroup;
using ::caisson::runtime::OpenInit;
using ::caisson::runtime::ProcessRecord;
using ::caisson::runtime::ResctrlGroup;
using ::caisson::runtime::Until;

using Phase = ContainerDirectory::Phase;

constexpr absl::Duration kKillTimeout = absl::Seconds(10);
constexpr absl::Duration kLockTimeout = absl::Seconds(10);

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
  // Hooks of the creation run, or its creator died meanwhile.
  bool creating = false;

  bool IsThere() const { return init.valid() && !creating; }
};

absl::StatusOr<Found> Look(ContainerDirectory directory) {
  ASSIGN_OR_RETURN(ContainerRecord record, directory.Read());
  ASSIGN_OR_RETURN(ProcessRecord process,
                   directory.ReadProcess(Phase::kCreated));
  bool creating = false;
  if (process.pid() == 0) {
    ASSIGN_OR_RETURN(process, directory.ReadProcess(Phase::kCreating));
    creating = process.pid() != 0;
  }
  ASSIGN_OR_RETURN(const std::string boot_id, sys::BootId());
  // The directory is on no tmpfs: somebody else's group may be there now.
  if (record.boot_id() != boot_id) {
    record.clear_group_path();
    record.clear_group();
  }
  ASSIGN_OR_RETURN(UniqueFd init, OpenInit(process, boot_id));
  return Found{std::move(directory), std::move(record), process.pid(),
               std::move(init), creating};
}

absl::StatusOr<OciStatus> StatusOf(const Found& found) {
  if (found.creating || found.pid == 0) {
    ASSIGN_OR_RETURN(const bool busy, found.directory.IsLocked());
    return busy ? OciStatus::kCreating : OciStatus::kStopped;
  }
  if (!found.init.valid()) return OciStatus::kStopped;
  if (runtime::IsFrozen(found.record)) return OciStatus::kPaused;
  return found.directory.IsAwaited() ? OciStatus::kCreated
                                     : OciStatus::kRunning;
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
  // Whatever is there, a FIFO or a link, is not what is written to.
  ::unlink(fresh.c_str());
  ASSIGN_OR_RETURN(
      const UniqueFd file,
      sys::Open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0644));
  absl::Cleanup remove = [&fresh] { ::unlink(fresh.c_str()); };
  RETURN_IF_ERROR(sys::WriteAll(file.borrow(), absl::StrCat(pid), fresh));
  if (::rename(fresh.c_str(), path.c_str()) != 0) {
    return ErrnoError(errno, absl::StrCat("rename(", Quoted(path), ")"),
                      {.step = "pid file", .path = path});
  }
  std::move(remove).Cancel();
  return absl::OkStatus();
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
  if (spec.terminal && streams.console_socket.empty() &&
      streams.needs_console_socket) {
    // As runc says it.
    return absl::InvalidArgumentError(
        "cannot allocate tty if caisson will detach without setting console "
        "socket");
  }
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

// ---- Parts of the operations -----------------------------------------------

absl::StatusOr<ContainerRecord> RecordOf(const ContainerDirectory& directory,
                                         const Bundle& bundle) {
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
  ASSIGN_OR_RETURN(*record.mutable_boot_id(), sys::BootId());
  if (bundle.config().linux_config.intel_rdt) {
    ASSIGN_OR_RETURN(*record.mutable_resctrl(), runtime::FindResctrl());
  }
  return record;
}

// Before the first hook of the creation, if there is any: a hook may hang, and
// who wants the container to end shall find its process. `began` is set then.
void RememberBeforeHooks(const ContainerDirectory& directory, Hooks& hooks,
                         bool& began) {
  if (hooks.prestart.empty() && hooks.create_runtime.empty() &&
      hooks.create_container.empty()) {
    return;
  }
  hooks.prestart.insert(
      hooks.prestart.begin(),
      [&directory, &began](const HookState& state) -> absl::Status {
        began = true;
        ASSIGN_OR_RETURN(const ProcessRecord process,
                         runtime::Remember(state.pidfd));
        return directory.WriteProcess(process, Phase::kCreating);
      });
}

// Leaves the process to itself, when everybody knows of it.
absl::StatusOr<OciProcess> LetGo(const ContainerDirectory& directory,
                                 const Bundle& bundle,
                                 const OciCreateOptions& options,
                                 const std::vector<std::string>& warnings,
                                 Process& process) {
  ASSIGN_OR_RETURN(const ProcessRecord init,
                   runtime::Remember(process.pidfd()));
  RETURN_IF_ERROR(directory.WriteProcess(init, Phase::kCreated));
  ASSIGN_OR_RETURN(OciProcess out, HandOver(process, options.streams,
                                            options.pid_file, warnings));
  RETURN_IF_ERROR(process.Release());
  absl::Cleanup kill = [&out] {
    sys::SendSignal(out.pidfd.borrow(), SIGKILL).IgnoreError();
  };
  RETURN_IF_ERROR(TellAgent(bundle, directory.id(), OciStatus::kCreating,
                            out.pid, process));
  std::move(kill).Cancel();
  return out;
}

// From the launcher's end on, what was released is the subreaper's child. It is
// out of our hands, so nothing that fails now is a failure.
void EndLauncher(Launcher& launcher, std::vector<std::string>& warnings) {
  const absl::Status ended = launcher.Shutdown();
  if (!ended.ok()) warnings.push_back(std::string(ended.message()));
}

absl::StatusOr<OciProcess> CreateIn(const ContainerDirectory& directory,
                                    const Bundle& bundle,
                                    const OciCreateOptions& options,
                                    bool& hooks_began) {
  // Gets ready while the group is made.
  ASSIGN_OR_RETURN(LauncherStart start,
                   LauncherStart::Begin({.releases = true}));
  ASSIGN_OR_RETURN(ContainerRecord record, RecordOf(directory, bundle));
  ASSIGN_OR_RETURN(std::optional<Cgroup> group,
                   runtime::MakeGroup(directory, bundle, record));
  std::optional<ResctrlGroup> resctrl;
  if (const auto& rdt = bundle.config().linux_config.intel_rdt) {
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
  RememberBeforeHooks(directory, spec.hooks, hooks_began);
  ASSIGN_OR_RETURN(const UniqueFd gate, directory.MakeGate());
  spec.gate = gate.borrow();
  ASSIGN_OR_RETURN(Process process, launcher.CreateProcess(spec));
  if (resctrl) RETURN_IF_ERROR(resctrl->Assign(process.pid()));
  ASSIGN_OR_RETURN(OciProcess out, LetGo(directory, bundle, options,
                                         parts.warnings(), process));
  if (group) group->Disown();
  if (resctrl) resctrl->Keep();
  EndLauncher(launcher, out.warnings);
  return out;
}

absl::Status RunPoststopHooks(const Bundle& bundle, const std::string& id) {
  if (bundle.config().hooks.poststop.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(Launcher launcher, Launcher::Create({.releases = true}));
  const Hooks hooks = bundle.MakeHooks({.id = id, .launcher = &launcher});
  const HookState state = {.id = hooks.id,
                           .status = "stopped",
                           .bundle = hooks.bundle,
                           .annotations = hooks.annotations};
  absl::Status first;
  for (const Hook& hook : hooks.poststop) first.Update(hook(state));
  return first;
}

absl::Status RunPoststopHooks(const ContainerRecord& record) {
  if (!record.has_poststop_hooks()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const Bundle bundle,
                   Bundle::Parse(record.bundle(), record.config()));
  return RunPoststopHooks(bundle, record.id());
}

absl::Status RemoveResctrl(const ContainerRecord& record) {
  if (record.resctrl().empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const Bundle bundle,
                   Bundle::Parse(record.bundle(), record.config()));
  const auto& rdt = bundle.config().linux_config.intel_rdt;
  if (!rdt) return absl::OkStatus();
  return runtime::RemoveResctrlGroup(record.resctrl(), *rdt, record.id());
}

// What is in the group is gone then, but for what its parent did not collect.
absl::Status Destroy(const Found& found) {
  absl::Status status;
  bool recover = !found.record.group_path().empty();
  auto until = Until::kEnded;
  auto group = FindGroup(found.record);
  if (!group.ok()) {
    status = group.status();
  } else if (group->has_value()) {
    recover = (*group)->IsBelowMadeDirectory();
    status = (*group)->Destroy();
    until = Until::kExiting;
  }
  // It may have left the group.
  if (found.init.valid()) {
    status.Update(KillInit(found.init.borrow(), until, kKillTimeout));
  }
  RETURN_IF_ERROR(status);
  // Beside the container, and somebody else's to remove as well.
  if (recover) runtime::RemoveMadeParents(found.record).IgnoreError();
  return RemoveResctrl(found.record);
}

// Of a container whose record nobody can read: what else is known of it.
absl::Status DestroyUnreadable(ContainerDirectory& directory,
                               const absl::Status& unreadable) {
  const auto process = directory.ReadProcess(Phase::kCreated);
  const auto boot_id = sys::BootId();
  if (process.ok() && boot_id.ok()) {
    ASSIGN_OR_RETURN(const UniqueFd init, OpenInit(*process, *boot_id));
    if (init.valid()) {
      RETURN_IF_ERROR(KillInit(init.borrow(), Until::kExiting, kKillTimeout));
    }
  }
  RETURN_IF_ERROR(directory.Remove());
  return Annotate(unreadable,
                  absl::StrCat("container ", Quoted(directory.id()),
                               " is removed, but what its record named may be "
                               "left (its control group, and what is in it)"));
}

// A process that hangs in a hook keeps the lock: without the container's
// process it lets go.
absl::Status LockByForce(ContainerDirectory& directory) {
  ASSIGN_OR_RETURN(const bool busy, directory.IsLocked());
  if (busy) {
    ASSIGN_OR_RETURN(const std::string boot_id, sys::BootId());
    for (const Phase phase : {Phase::kCreating, Phase::kCreated}) {
      ASSIGN_OR_RETURN(const ProcessRecord process,
                       directory.ReadProcess(phase));
      ASSIGN_OR_RETURN(const UniqueFd init, OpenInit(process, boot_id));
      if (!init.valid()) continue;
      sys::SendSignal(init.borrow(), SIGKILL).IgnoreError();
    }
  }
  return directory.Lock(kLockTimeout);
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
  bool hooks_began = false;
  auto out = CreateIn(directory, bundle, options, hooks_began);
  if (out.ok()) return out;
  // What the hooks made is undone by hooks; the first error tells more.
  if (hooks_began) RunPoststopHooks(bundle, id).IgnoreError();
  directory.Remove().IgnoreError();
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
    if (status == OciStatus::kRunning) {
      found.directory.RemoveGate().IgnoreError();
    }
    return absl::FailedPreconditionError(
        "cannot start an already running container");
  }
  ASSIGN_OR_RETURN(const UniqueFd gate, found.directory.FindGate());
  if (!found.record.has_start_hooks()) {
    RETURN_IF_ERROR(sys::WriteAll(gate.borrow(), "s", "the container's gate"));
    // One that nobody waits at is without effect.
    found.directory.RemoveGate().IgnoreError();
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const Bundle bundle,
                   Bundle::Parse(found.record.bundle(), found.record.config()));
  ASSIGN_OR_RETURN(Launcher launcher, Launcher::Create({.releases = true}));
  const BundleOptions options = {.id = id, .launcher = &launcher};
  // Under the policy, and as the user, of the container's program.
  ASSIGN_OR_RETURN(BundleParts parts, bundle.ComposeExec("", options));
  parts.spec().gate = gate.borrow();
  Hooks& hooks = parts.spec().hooks;
  hooks = bundle.MakeHooks(options);
  // The container runs as of then; a hook may take its time.
  hooks.poststart.insert(hooks.poststart.begin(),
                         [&found](const HookState&) -> absl::Status {
                           found.directory.RemoveGate().IgnoreError();
                           return absl::OkStatus();
                         });
  ASSIGN_OR_RETURN(Process process,
                   launcher.Adopt(found.init.borrow(), parts.spec()));
  RETURN_IF_ERROR(process.Start());
  launcher.Shutdown().IgnoreError();
  return absl::OkStatus();
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
    ASSIGN_OR_RETURN(const auto group, FindGroup(found.record));
    if (!group) return NotRunning();
    absl::Status status = group->Signal(signal);
    // It may have left the group.
    if (signal == SIGKILL && found.init.valid()) {
      status.Update(
          KillInit(found.init.borrow(), Until::kExiting, kKillTimeout));
    }
    return status;
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

absl::Status OciRuntime::Delete(const std::string& id, bool force,
                                std::vector<std::string>* warnings) const {
  absl::Status status = DeleteFound(id, force, warnings);
  if (!absl::IsNotFound(status)) return status;
  // A `kill -9` before anything else was made, or after it was removed.
  ASSIGN_OR_RETURN(const bool removed, state_->RemoveRest(id));
  return removed || force ? absl::OkStatus() : status;
}

absl::Status OciRuntime::DeleteFound(const std::string& id, bool force,
                                     std::vector<std::string>* warnings) const {
  ASSIGN_OR_RETURN(ContainerDirectory directory, state_->Find(id));
  RETURN_IF_ERROR(force ? LockByForce(directory) : directory.Lock());
  const absl::Status readable = directory.Read().status();
  // A `kill -9` before anything else was made.
  if (absl::IsNotFound(readable)) return directory.Remove();
  if (force && absl::IsDataLoss(readable)) {
    return DestroyUnreadable(directory, readable);
  }
  ASSIGN_OR_RETURN(Found found, Look(std::move(directory)));
  ASSIGN_OR_RETURN(const OciStatus status, StatusOf(found));
  if (!force && status != OciStatus::kStopped &&
      status != OciStatus::kCreated) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot delete container ", id,
                     " that is not stopped: ", OciStatusName(status)));
  }
  RETURN_IF_ERROR(Destroy(found));
  const absl::Status hooks = RunPoststopHooks(found.record);
  if (!hooks.ok() && warnings != nullptr) {
    warnings->push_back(std::string(hooks.message()));
  }
  return found.directory.Remove();
}

absl::StatusOr<OciProcess> OciRuntime::Exec(
    const std::string& id, const OciExecOptions& options) const {
  ASSIGN_OR_RETURN(ContainerDirectory directory, state_->Find(id));
  ASSIGN_OR_RETURN(const Found found, Look(std::move(directory)));
  ASSIGN_OR_RETURN(const OciStatus status, StatusOf(found));
  if (!found.IsThere()) {
    return absl::FailedPreconditionError(
        "cannot exec in a container that is not running");
  }
  if (status == OciStatus::kPaused) {
    return absl::FailedPreconditionError("cannot exec in a paused container");
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
  EndLauncher(launcher, out.warnings);
  return out;
}

absl::Status OciRuntime::Pause(const std::string& id) const {
  ASSIGN_OR_RETURN(ContainerDirectory directory, state_->Find(id));
  ASSIGN_OR_RETURN(const Found found, Look(std::move(directory)));
  if (!found.IsThere()) return NotRunning();
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
  if (!found.IsThere()) return NotRunning();
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
  if (!found.IsThere()) return NotRunning();
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
