#include "caisson/launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/netlink.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "caisson/error.h"
#include "caisson/namespace.h"
#include "caisson/root_fs.h"
#include "caisson/security.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/cgroup/attach.h"
#include "lib/launcher/compose.h"
#include "lib/launcher/detached_directory.h"
#include "lib/launcher/hooked_process.h"
#include "lib/launcher/id_map.h"
#include "lib/launcher/id_maps.h"
#include "lib/launcher/launcher_state.h"
#include "lib/launcher/process_note.h"
#include "lib/launcher/process_state.h"
#include "lib/launcher/program.h"
#include "lib/launcher/remote_mounts.h"
#include "lib/launcher/session.h"
#include "lib/launcher/unprivileged.h"
#include "lib/plan/send_fds.h"
#include "lib/sys/capability.h"
#include "lib/sys/open.h"
#include "lib/sys/pidfd.h"

namespace caisson {
namespace {

using ::caisson::launcher::HookPoint;
using ::caisson::plan::PlanBuilder;
using ::caisson::plan::Slot;

using ::caisson::launcher::DetachedDirectory;

constexpr char kExecStep[] = "exec";

// A plan whose child makes namespaces and sends descriptors back.
class NamespacePlan {
 public:
  static absl::StatusOr<NamespacePlan> Create() {
    int fds[2];
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) != 0) {
      return ErrnoError(errno, "socketpair()", {.step = "namespaces"});
    }
    return NamespacePlan(UniqueFd(fds[0]), UniqueFd(fds[1]));
  }

  PlanBuilder& plan() { return plan_; }

  // Opens the child's namespace `kind`: "user", "net".
  void Open(const std::string& kind) {
    const std::string path = absl::StrCat("/proc/self/ns/", kind);
    const Slot slot = plan_.NewSlot();
    plan_
        .Call(SYS_openat,
              {AT_FDCWD, plan_.String(path), O_RDONLY | O_CLOEXEC, 0},
              absl::StrCat("open(", Quoted(path), ")"))
        .Into(slot);
    slots_.push_back(slot);
  }

  void OpenRouteSocket() {
    const Slot slot = plan_.NewSlot();
    plan_
        .Call(SYS_socket, {AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE},
              "socket(AF_NETLINK, NETLINK_ROUTE)")
        .Into(slot);
    slots_.push_back(slot);
  }

  // Runs it; the descriptors in the order of the calls above.
  absl::StatusOr<std::vector<UniqueFd>> Run(const launcher::Session& session) {
    plan::AppendSendFds(plan_, socket_, slots_);
    plan_.Exit();
    RETURN_IF_ERROR(session.Run(plan_).status());
    return plan::ReceiveFds(mine_.borrow(), slots_.size());
  }

 private:
  NamespacePlan(UniqueFd mine, UniqueFd childs) : mine_(std::move(mine)) {
    plan_.Step("namespaces");
    socket_ = plan_.Send(std::move(childs));
  }

  UniqueFd mine_;
  PlanBuilder plan_;
  Slot socket_;
  std::vector<Slot> slots_;
};

}  // namespace

absl::StatusOr<SecurityPolicy> Launcher::State::PolicyOf(
    const ProcessSpec& spec) {
  if (spec.security != nullptr) return *spec.security;
  return DefaultPolicy();
}

absl::StatusOr<SecurityPolicy> Launcher::State::DefaultPolicy() {
  MutexLock lock(&mutex);
  if (!default_policy.has_value()) {
    ASSIGN_OR_RETURN(default_policy, SecurityPolicy::Create({}));
  }
  return *default_policy;
}

Launcher::Launcher(std::unique_ptr<State> state) : state_(std::move(state)) {}
Launcher::Launcher(Launcher&&) noexcept = default;

Launcher& Launcher::operator=(Launcher&& other) noexcept {
  Launcher old(std::move(*this));
  state_ = std::move(other.state_);
  return *this;
}

Launcher::~Launcher() {
  if (state_ != nullptr) {
    state_->session->Close(/*wait=*/false).IgnoreError();
  }
}

absl::StatusOr<Launcher> Launcher::Create(const LauncherOptions& options) {
  if (options.directory.empty()) return State::Create(options);
  if (options.releases) {
    return absl::InvalidArgumentError(
        "LauncherOptions.directory and releases exclude each other: detached "
        "processes end with their launcher, released ones do not");
  }
  ASSIGN_OR_RETURN(const DetachedDirectory directory,
                   DetachedDirectory::Open(options.directory,
                                           DetachedDirectory::Missing::kMake));
  ASSIGN_OR_RETURN(const DetachedDirectory::Place place, directory.Take());
  auto launcher = State::Create(options);
  if (launcher.ok()) {
    const absl::Status status = launcher->state_->session->Listen(
        place.listening.borrow(), directory.fd(), place.lock.borrow());
    if (status.ok()) return launcher;
    launcher = status;
  }
  directory.GiveBack();
  return launcher;
}

absl::StatusOr<LauncherStart> LauncherStart::Begin(
    const LauncherOptions& options) {
  LauncherStart start;
  start.options_ = options;
  if (options.directory.empty() && sys::HasCapability(CAP_SYS_ADMIN)) {
    ASSIGN_OR_RETURN(start.control_,
                     launcher::Session::Spawn(options.releases));
  }
  return start;
}

absl::StatusOr<Launcher> LauncherStart::Finish() {
  if (!control_.valid()) return Launcher::Create(options_);
  ASSIGN_OR_RETURN(launcher::Session session,
                   launcher::Session::Connect(std::move(control_)));
  return Launcher(std::make_unique<Launcher::State>(std::move(session)));
}

absl::StatusOr<Launcher> Launcher::State::Create(
    const LauncherOptions& options) {
  if (sys::HasCapability(CAP_SYS_ADMIN)) {
    ASSIGN_OR_RETURN(launcher::Session session,
                     launcher::Session::Create(options.releases));
    return Launcher(std::make_unique<State>(std::move(session)));
  }
  if (options.releases) {
    return absl::PermissionDeniedError(
        "LauncherOptions.releases needs CAP_SYS_ADMIN: without it a launcher "
        "has namespaces of its own, which end with it");
  }
  ASSIGN_OR_RETURN(auto created,
                   launcher::Session::CreateInUserNamespace(options.ids));
  ASSIGN_OR_RETURN(launcher::Session shared, created.launcher.Share());
  auto state = std::make_unique<State>(std::move(created.launcher));
  state->identity = created.identity;
  state->mounts = std::make_shared<launcher::RemoteMounts>(
      std::move(shared), std::move(created.mounts),
      std::move(created.identity));
  return Launcher(std::move(state));
}

namespace {

// One that is about to end takes nobody any more, and is gone the next time.
absl::StatusOr<launcher::Session> ConnectTo(
    const DetachedDirectory& directory) {
  constexpr int kTries = 100;
  absl::Status status;
  for (int i = 0; i < kTries; ++i) {
    auto control = directory.Connect();
    if (absl::IsNotFound(control.status())) return control.status();
    status = control.status();
    if (control.ok()) {
      auto session = launcher::Session::Attach(*std::move(control));
      if (!absl::IsUnavailable(session.status())) return session;
      status = session.status();
    }
    absl::SleepFor(absl::Milliseconds(1));
  }
  return Annotate(status,
                  absl::StrCat("the launcher in ", Quoted(directory.path()),
                               " takes no connection"));
}

}  // namespace

absl::StatusOr<Launcher> Launcher::Attach(const std::string& directory) {
  ASSIGN_OR_RETURN(
      const DetachedDirectory opened,
      DetachedDirectory::Open(directory, DetachedDirectory::Missing::kIsError));
  ASSIGN_OR_RETURN(launcher::Session session, ConnectTo(opened));
  auto state = std::make_unique<State>(std::move(session));
  if (state->session->own_user_namespace()) {
    ASSIGN_OR_RETURN(state->identity,
                     launcher::IdentityOf(sys::PidOf(state->session->pidfd())));
  }
  return Launcher(std::move(state));
}

absl::StatusOr<Process> Launcher::Find(absl::string_view name) {
  RETURN_IF_ERROR(launcher::CheckDetachedName(name));
  ASSIGN_OR_RETURN(launcher::Session::Found found, state_->session->Find(name));
  return state_->Adopt(std::move(found));
}

absl::StatusOr<Process> Launcher::State::Adopt(launcher::Session::Found found) {
  ASSIGN_OR_RETURN(
      const std::string text,
      sys::ReadFileAt(BorrowedFd(AT_FDCWD),
                      absl::StrCat("/proc/self/fd/", found.kept[0].get()),
                      /*resolve=*/0, /*limit=*/1 << 20));
  ASSIGN_OR_RETURN(const launcher::ProcessNote note, launcher::ReadNote(text));
  const size_t first = note.has_init ? 2 : 1;
  if (found.kept.size() != first + note.descriptors.size()) {
    return absl::ResourceExhaustedError(
        "Find: descriptors got lost; the process has reached RLIMIT_NOFILE");
  }
  std::optional<SecurityPolicy> policy;
  if (note.default_policy) {
    ASSIGN_OR_RETURN(policy, DefaultPolicy());
  }
  auto state = std::make_unique<Process::State>(session, std::move(policy));
  state->started = std::move(found.process);
  if (note.has_init) state->started.plan = std::move(found.kept[1]);
  state->namespaces = {note.first_namespaces, note.second_namespaces};
  state->own_pid_namespace = note.own_pid_namespace;
  state->has_init = note.has_init;
  state->default_policy = note.default_policy;
  state->group = note.group;
  state->oom_kills_before = note.oom_kills_before;
  {
    MutexLock lock(&state->mutex);
    state->runs = true;
    state->custody = Process::State::Custody::kDetached;
    for (size_t i = 0; i < note.descriptors.size(); ++i) {
      state->Keep(note.descriptors[i], std::move(found.kept[first + i]));
    }
  }
  return Process(std::move(state));
}

absl::StatusOr<Process> Launcher::Adopt(BorrowedFd pidfd) {
  return Adopt(pidfd, ProcessSpec());
}

absl::StatusOr<Process> Launcher::Adopt(BorrowedFd pidfd,
                                        const ProcessSpec& created_from) {
  if (!state_->session->releases()) {
    return absl::FailedPreconditionError(
        "Launcher::Adopt(): a launcher without LauncherOptions.releases cannot "
        "enter the pid namespaces of others");
  }
  const absl::Status gone =
      absl::NotFoundError("Launcher::Adopt(): the process has ended");
  const pid_t pid = sys::PidOf(pidfd);
  if (pid <= 0) return gone;
  std::optional<SecurityPolicy> policy;
  if (created_from.security != nullptr) policy = *created_from.security;
  auto state =
      std::make_unique<Process::State>(state_->session, std::move(policy));
  state->hooks = created_from.hooks;
  state->inside = launcher::SpecInside(created_from);
  std::optional<Process::State::Pending> pending;
  if (created_from.gate.valid()) {
    pending.emplace();
    ASSIGN_OR_RETURN(pending->composition.gate,
                     sys::Duplicate(created_from.gate));
  }
  ASSIGN_OR_RETURN(state->started.pidfd, sys::Duplicate(pidfd));
  ASSIGN_OR_RETURN(state->started.channel, sys::Duplicate(pidfd));
  auto namespaces = launcher::NamespacesOf(pid);
  auto group = cgroup::PathsOf(pid);
  // Otherwise the number was another process's.
  if (sys::PidOf(pidfd) != pid) return gone;
  ASSIGN_OR_RETURN(state->namespaces, std::move(namespaces));
  ASSIGN_OR_RETURN(state->group, std::move(group));
  state->own_pid_namespace =
      ((state->namespaces.first | state->namespaces.second) & CLONE_NEWPID) !=
      0;
  state->adopted = true;
  {
    MutexLock lock(&state->mutex);
    state->runs = !pending.has_value();
    state->pending = std::move(pending);
    state->custody = Process::State::Custody::kReleased;
  }
  return Process(std::move(state));
}

// Runs what is to happen while the process waits, and lets it go on.
absl::Status Launcher::State::AtAwait(const launcher::Composition& composition,
                                      Process::State& process,
                                      absl::Duration timeout,
                                      absl::FunctionRef<absl::Status()> hooks) {
  RETURN_IF_ERROR(session->ReachAwait(composition.plan, process.started,
                                      composition.await_socket.borrow(),
                                      Deadline(timeout)));
  absl::Status status = hooks();
  if (status.ok()) status = ReleaseAwait(composition.await_socket.borrow());
  if (!status.ok()) session->Abandon(process.started);
  return status;
}

absl::Status Launcher::State::RunCreationHooks(
    const launcher::Composition& composition, Process::State& process,
    absl::Duration timeout) {
  const Hooks& hooks = process.hooks;
  if (composition.early_await) {
    RETURN_IF_ERROR(AtAwait(composition, process, timeout, [&] {
      const HookState state = process.HookStateOf("creating");
      RETURN_IF_ERROR(RunHooks("prestart", hooks.prestart, state));
      return RunHooks("create_runtime", hooks.create_runtime, state);
    }));
  }
  if (!composition.mounted_await) return absl::OkStatus();
  return AtAwait(composition, process, timeout, [&] {
    return RunHooks(
        "create_container", hooks.create_container,
        process.HookStateOf("creating", HookPoint::kCreateContainer));
  });
}

absl::Status Launcher::State::Advance(launcher::Composition& composition,
                                      Process::State& process,
                                      const ProcessSpec& spec) {
  const absl::Duration timeout = spec.start_timeout;
  ASSIGN_OR_RETURN(process.started,
                   session->Begin(composition.plan, Deadline(timeout),
                                  composition.await_socket.borrow(),
                                  [&] { composition.plan.DropDescriptors(); }));
  if (spec.root != nullptr) spec.root->MarkAttached();
  RETURN_IF_ERROR(RunCreationHooks(composition, process, timeout));
  if (composition.late_await) {
    return session->ReachAwait(composition.plan, process.started,
                               composition.await_socket.borrow(),
                               Deadline(timeout));
  }
  auto latencies =
      session->Finish(composition.plan, process.started, Deadline(timeout));
  if (!latencies.ok()) return ExplainFailure(latencies.status(), composition);
  process.Publish(*std::move(latencies));
  return absl::OkStatus();
}

absl::StatusOr<Process> Launcher::State::Complete(
    std::unique_ptr<Process::State> state, launcher::Composition composition,
    const ProcessSpec& spec) {
  state->omissions = std::move(composition.omissions);
  ReportOomScore(spec, *state);
  {
    MutexLock lock(&state->mutex);
    state->in = std::move(composition.ends.in);
    state->out = std::move(composition.ends.out);
    state->err = std::move(composition.ends.err);
  }
  Process process(std::move(state));
  if (composition.ends.terminal_socket.valid()) {
    ASSIGN_OR_RETURN(
        std::vector<UniqueFd> master,
        plan::ReceiveFds(composition.ends.terminal_socket.borrow(), 1));
    process.state_->terminal = std::move(master[0]);
    composition.ends.terminal_socket.reset();
  }
  if (composition.late_await) {
    MutexLock lock(&process.state_->mutex);
    process.state_->pending = {std::move(composition), spec.start_timeout};
  }
  if (composition.listener_socket.valid() && !composition.late_await) {
    ASSIGN_OR_RETURN(std::vector<UniqueFd> listener,
                     plan::ReceiveFds(composition.listener_socket.borrow(), 1));
    MutexLock lock(&process.state_->mutex);
    process.state_->listener = std::move(listener[0]);
  }
  return process;
}

absl::StatusOr<Process> Launcher::State::Run(
    std::unique_ptr<Process::State> state, launcher::Composition composition,
    const ProcessSpec& spec) {
  state->hooks = spec.hooks;
  state->inside = launcher::SpecInside(spec);
  RETURN_IF_ERROR(Advance(composition, *state, spec));
  return Complete(std::move(state), std::move(composition), spec);
}

absl::StatusOr<Process> Launcher::State::Begin(const ProcessSpec& spec,
                                               launcher::Until until) {
  ASSIGN_OR_RETURN(const SecurityPolicy policy, PolicyOf(spec));
  ASSIGN_OR_RETURN(launcher::Composition composition,
                   launcher::Compose(spec, policy, view(), until));
  auto state = std::make_unique<Process::State>(session, policy);
  state->namespaces = composition.namespaces;
  state->has_init = spec.init;
  state->default_policy = spec.security == nullptr;
  state->own_pid_namespace =
      spec.namespaces == nullptr || spec.namespaces->options().pid.is_new();
  if (spec.cgroup != nullptr) {
    state->group = spec.cgroup->paths();
    state->oom_kills_before = spec.cgroup->OomKills().value_or(0);
  }
  return Run(std::move(state), std::move(composition), spec);
}

absl::StatusOr<Process> Launcher::State::Exec(const Process::State& container,
                                              const ProcessSpec& spec) {
  if (container.session != session) {
    return absl::InvalidArgumentError(
        "Exec: the container belongs to another Launcher, whose pid namespace "
        "this one cannot enter");
  }
  if (spec.security == nullptr && !container.policy) {
    return absl::FailedPreconditionError(
        "Exec: the container was started by another host with a policy of its "
        "own, which is not known here: name it in ProcessSpec.security");
  }
  const SecurityPolicy policy =
      spec.security != nullptr ? *spec.security : *container.policy;
  ASSIGN_OR_RETURN(
      launcher::Composition composition,
      launcher::ComposeExec({.pidfd = container.started.pidfd.borrow(),
                             .namespaces = container.namespaces,
                             .group = container.group},
                            spec, policy, view()));
  auto state = std::make_unique<Process::State>(session, policy);
  state->namespaces = container.namespaces;
  state->group =
      spec.cgroup != nullptr ? spec.cgroup->paths() : container.group;
  state->oom_kills_before = cgroup::OomKills(state->group).value_or(0);
  return Run(std::move(state), std::move(composition), spec);
}

absl::StatusOr<Process> Launcher::CreateProcess(const ProcessSpec& spec) {
  return state_->Begin(spec, launcher::Until::kStartCall);
}

absl::StatusOr<Process> Launcher::Start(const ProcessSpec& spec) {
  if (spec.hooks.start_container.empty() && spec.hooks.poststart.empty()) {
    return state_->Begin(spec, launcher::Until::kProgram);
  }
  ASSIGN_OR_RETURN(Process process, CreateProcess(spec));
  RETURN_IF_ERROR(process.Start());
  return process;
}

absl::StatusOr<Process> Launcher::Exec(const Process& container,
                                       const ProcessSpec& spec) {
  return state_->Exec(*container.state_, spec);
}

// The one write whose refusal does not fail a start.
void Launcher::State::ReportOomScore(const ProcessSpec& spec,
                                     Process::State& state) {
  if (!spec.oom_score_adj) return;
  const pid_t pid = sys::PidOf(state.started.pidfd.borrow());
  const auto text = sys::ReadFileAt(
      BorrowedFd(AT_FDCWD), absl::StrCat("/proc/", pid, "/oom_score_adj"),
      /*resolve=*/0, /*limit=*/64);
  int actual = 0;
  if (!text.ok() || !absl::SimpleAtoi(*text, &actual) ||
      actual == *spec.oom_score_adj) {
    return;
  }
  state.omissions.push_back(absl::StrCat(
      "oom_score_adj: ", *spec.oom_score_adj,
      " is below what the host may give, which needs CAP_SYS_RESOURCE; it is ",
      actual));
}

absl::Status ExplainFailure(const absl::Status& status,
                            const launcher::Composition& composition) {
  const auto detail = GetErrorDetail(status);
  if (status.ok() || !detail.has_value() || detail->step != kExecStep ||
      composition.candidates.empty()) {
    return status;
  }
  return launcher::ExplainExecFailure(detail->error, composition.candidates,
                                      composition.open_inside);
}

absl::StatusOr<UniqueFd> Launcher::NewUserNamespace(IdRange ids) {
  return NewUserNamespace(IdMap{.users = {ids}, .groups = {ids}});
}

absl::StatusOr<UniqueFd> Launcher::NewUserNamespace(const IdMap& ids) {
  RETURN_IF_ERROR(launcher::CheckIdMap("IdMap.users", ids.users));
  RETURN_IF_ERROR(launcher::CheckIdMap("IdMap.groups", ids.groups));
  std::string users;
  for (const IdRange& range : ids.users) {
    RETURN_IF_ERROR(launcher::CheckMapped(range, state_->identity));
    users += launcher::MapBelow(range, state_->identity.users);
  }
  std::string groups;
  for (const IdRange& range : ids.groups) {
    RETURN_IF_ERROR(launcher::CheckMapped(range, state_->identity));
    groups += launcher::MapBelow(range, state_->identity.groups);
  }
  ASSIGN_OR_RETURN(NamespacePlan maker, NamespacePlan::Create());
  maker.plan().set_clone_flags(CLONE_NEWUSER);
  maker.plan().set_id_maps(std::move(users), std::move(groups),
                           ids.deny_setgroups);
  maker.Open("user");
  ASSIGN_OR_RETURN(std::vector<UniqueFd> fds, maker.Run(*state_->session));
  return std::move(fds[0]);
}

absl::StatusOr<NetNamespace> Launcher::NewNetNamespace(
    BorrowedFd user_namespace) {
  ASSIGN_OR_RETURN(NamespacePlan maker, NamespacePlan::Create());
  PlanBuilder& plan = maker.plan();
  if (user_namespace.valid()) {
    plan.Call(SYS_setns, {plan.Send(user_namespace), CLONE_NEWUSER},
              "setns(user namespace)")
        .Hint("the launcher needs CAP_SYS_ADMIN in it");
  }
  plan.Call(SYS_unshare, {CLONE_NEWNET}, "unshare(CLONE_NEWNET)");
  maker.Open("net");
  maker.OpenRouteSocket();
  ASSIGN_OR_RETURN(std::vector<UniqueFd> fds, maker.Run(*state_->session));
  return NetNamespace{.ns = std::move(fds[0]), .rtnetlink = std::move(fds[1])};
}

absl::StatusOr<NetNamespace> Launcher::OpenNetNamespaceOf(BorrowedFd pidfd) {
  ASSIGN_OR_RETURN(NamespacePlan opener, NamespacePlan::Create());
  PlanBuilder& plan = opener.plan();
  plan.Call(SYS_setns, {plan.Send(pidfd), CLONE_NEWNET},
            "setns(pidfd, CLONE_NEWNET)")
      .Hint("ESRCH: the process has ended");
  opener.Open("net");
  opener.OpenRouteSocket();
  ASSIGN_OR_RETURN(std::vector<UniqueFd> fds, opener.Run(*state_->session));
  return NetNamespace{.ns = std::move(fds[0]), .rtnetlink = std::move(fds[1])};
}

const LauncherIdentity& Launcher::identity() const { return state_->identity; }

std::shared_ptr<const sys::MountExecutor> Launcher::mounts() const {
  return state_->mounts;
}

BorrowedFd Launcher::pidfd() const { return state_->session->pidfd(); }

absl::Status Launcher::Shutdown() {
  return state_->session->Close(/*wait=*/true);
}

int ExecFailure(const absl::Status& status) {
  const auto detail = GetErrorDetail(status);
  if (!detail.has_value() || detail->step != kExecStep) return 0;
  return detail->error == ENOENT ? 127 : 126;
}

}  // namespace caisson
