#include "caisson/launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/netlink.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "caisson/error.h"
#include "caisson/root_fs.h"
#include "caisson/security.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/launcher/compose.h"
#include "lib/launcher/process_state.h"
#include "lib/launcher/program.h"
#include "lib/launcher/remote_mounts.h"
#include "lib/launcher/session.h"
#include "lib/launcher/unprivileged.h"
#include "lib/plan/send_fds.h"
#include "lib/sys/capability.h"

namespace caisson {
namespace {

using ::caisson::plan::PlanBuilder;
using ::caisson::plan::Slot;

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

struct Launcher::State {
  explicit State(launcher::Session s) : session(std::move(s)) {}

  // A RootFs may still hold `mounts`, and with it a way to the launcher.
  ~State() {
    if (mounts != nullptr) session.Close(/*wait=*/false).IgnoreError();
  }

  absl::StatusOr<const SecurityPolicy*> DefaultPolicy() {
    absl::MutexLock lock(&mutex);
    if (!default_policy.has_value()) {
      ASSIGN_OR_RETURN(default_policy, SecurityPolicy::Create({}));
    }
    return &*default_policy;
  }

  launcher::Session session;
  LauncherIdentity identity;
  std::shared_ptr<const sys::MountExecutor> mounts;
  absl::Mutex mutex;
  // Compiled when the first process without a policy of its own starts.
  std::optional<SecurityPolicy> default_policy ABSL_GUARDED_BY(mutex);
};

Launcher::Launcher(std::unique_ptr<State> state) : state_(std::move(state)) {}
Launcher::Launcher(Launcher&&) noexcept = default;
Launcher& Launcher::operator=(Launcher&&) noexcept = default;
Launcher::~Launcher() = default;

absl::StatusOr<Launcher> Launcher::Create(const LauncherOptions& options) {
  if (sys::HasCapability(CAP_SYS_ADMIN)) {
    ASSIGN_OR_RETURN(launcher::Session session, launcher::Session::Create());
    return Launcher(std::make_unique<State>(std::move(session)));
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

absl::StatusOr<Process> Launcher::Start(const ProcessSpec& spec) {
  const SecurityPolicy* default_policy = spec.security;
  if (default_policy == nullptr) {
    ASSIGN_OR_RETURN(default_policy, state_->DefaultPolicy());
  }
  ASSIGN_OR_RETURN(
      launcher::Composition composition,
      launcher::Compose(spec, *default_policy, state_->session.isolated(),
                        state_->identity));
  const Deadline deadline(spec.start_timeout);
  ASSIGN_OR_RETURN(launcher::Running running,
                   state_->session.Begin(composition.plan, deadline));
  spec.root->MarkAttached();
  auto started =
      state_->session.Finish(composition.plan, std::move(running), deadline);
  if (!started.ok()) {
    const auto detail = GetErrorDetail(started.status());
    if (!detail.has_value() || detail->step != kExecStep) {
      return started.status();
    }
    return launcher::ExplainExecFailure(
        detail->error, composition.candidates,
        [&spec](const std::string& path, int flags) {
          return spec.root->Open(path, flags);
        });
  }
  auto state = std::make_unique<Process::State>();
  state->started = *std::move(started);
  {
    absl::MutexLock lock(&state->mutex);
    state->in = std::move(composition.in);
    state->out = std::move(composition.out);
    state->err = std::move(composition.err);
  }
  Process process(std::move(state));
  if (composition.terminal_socket.valid()) {
    ASSIGN_OR_RETURN(std::vector<UniqueFd> master,
                     plan::ReceiveFds(composition.terminal_socket.borrow(), 1));
    process.state_->terminal = std::move(master[0]);
  }
  if (composition.listener_socket.valid()) {
    ASSIGN_OR_RETURN(std::vector<UniqueFd> listener,
                     plan::ReceiveFds(composition.listener_socket.borrow(), 1));
    absl::MutexLock lock(&process.state_->mutex);
    process.state_->listener = std::move(listener[0]);
  }
  return process;
}

absl::StatusOr<UniqueFd> Launcher::NewUserNamespace(IdRange ids) {
  if (ids.count == 0) {
    return absl::InvalidArgumentError("IdRange.count is 0: nothing is mapped");
  }
  ASSIGN_OR_RETURN(NamespacePlan maker, NamespacePlan::Create());
  RETURN_IF_ERROR(launcher::CheckMapped(ids, state_->identity));
  maker.plan().set_clone_flags(CLONE_NEWUSER);
  maker.plan().set_id_maps(launcher::MapBelow(ids, state_->identity.users),
                           launcher::MapBelow(ids, state_->identity.groups),
                           /*deny_setgroups=*/false);
  maker.Open("user");
  ASSIGN_OR_RETURN(std::vector<UniqueFd> fds, maker.Run(state_->session));
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
  ASSIGN_OR_RETURN(std::vector<UniqueFd> fds, maker.Run(state_->session));
  return NetNamespace{.ns = std::move(fds[0]), .rtnetlink = std::move(fds[1])};
}

const LauncherIdentity& Launcher::identity() const { return state_->identity; }

std::shared_ptr<const sys::MountExecutor> Launcher::mounts() const {
  return state_->mounts;
}

BorrowedFd Launcher::pidfd() const { return state_->session.pidfd(); }

absl::Status Launcher::Shutdown() {
  return state_->session.Close(/*wait=*/true);
}

int ExecFailure(const absl::Status& status) {
  const auto detail = GetErrorDetail(status);
  if (!detail.has_value() || detail->step != kExecStep) return 0;
  return detail->error == ENOENT ? 127 : 126;
}

}  // namespace caisson
