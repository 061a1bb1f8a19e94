#include "lib/launcher/compose.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "caisson/namespace.h"
#include "caisson/root_fs.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/cgroup/attach.h"
#include "lib/launcher/attribute_steps.h"
#include "lib/launcher/init_filter.h"
#include "lib/launcher/program.h"
#include "lib/launcher/security_steps.h"
#include "lib/launcher/spec_check.h"
#include "lib/launcher/unprivileged.h"
#include "lib/launcher/user.h"
#include "lib/rootfs/mount_context.h"
#include "lib/security/policy_state.h"
#include "lib/sys/open.h"
#include "lib/sys/pidfd.h"

namespace caisson::launcher {
namespace {

using ::caisson::plan::Data;
using ::caisson::plan::PlanBuilder;
using ::caisson::plan::Slot;

constexpr char kDefaultPath[] =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
constexpr size_t kMaxPasswd = 1 << 20;

// ---- What the root says ----------------------------------------------------

absl::StatusOr<std::string> ReadInside(const OpenInside& open,
                                       const char* path) {
  auto file = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
  if (file.ok()) return sys::ReadAll(file->borrow(), kMaxPasswd, path);
  const auto detail = GetErrorDetail(file.status());
  if (detail && (detail->error == ENOENT || detail->error == ENOTDIR)) {
    return std::string();
  }
  return file.status();
}

absl::StatusOr<User> FindUser(const ProcessSpec& spec, const OpenInside& open) {
  ASSIGN_OR_RETURN(const std::string passwd, ReadInside(open, "/etc/passwd"));
  ASSIGN_OR_RETURN(const std::string group, ReadInside(open, "/etc/group"));
  ASSIGN_OR_RETURN(User user, ResolveUser(spec.user, passwd, group));
  RETURN_IF_ERROR(AddGroups(spec.additional_groups, group, user));
  return user;
}

bool Has(const std::vector<std::string>& env, absl::string_view name) {
  for (const std::string& variable : env) {
    if (absl::StartsWith(variable, name)) return true;
  }
  return false;
}

std::vector<std::string> Environment(const ProcessSpec& spec,
                                     const User& user) {
  std::vector<std::string> env = spec.env;
  const bool defaults = spec.default_path_and_term;
  if (defaults && !Has(env, "PATH=")) {
    env.push_back(absl::StrCat("PATH=", kDefaultPath));
  }
  if (!Has(env, "HOME=")) env.push_back(absl::StrCat("HOME=", user.home));
  if (defaults && spec.terminal && !Has(env, "TERM=")) {
    env.push_back("TERM=xterm");
  }
  return env;
}

// The root of a process, as that process may have changed it.
absl::StatusOr<OpenInside> RootOf(BorrowedFd pidfd) {
  const pid_t pid = sys::PidOf(pidfd);
  if (pid <= 0) {
    return absl::NotFoundError("Exec: the container's process has ended");
  }
  ASSIGN_OR_RETURN(
      UniqueFd root,
      sys::Open(absl::StrCat("/proc/", pid, "/root"), O_PATH | O_DIRECTORY));
  if (sys::PidOf(pidfd) != pid) {
    return absl::NotFoundError("Exec: the container's process has ended");
  }
  auto shared = std::make_shared<UniqueFd>(std::move(root));
  return OpenInside([shared](const std::string& path, int flags) {
    return sys::OpenRegularInRoot(shared->borrow(), path, flags);
  });
}

// ---- Steps -----------------------------------------------------------------

absl::Status MakeAwaitSocket(Composition& out, Slot& socket) {
  int fds[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) != 0) {
    return ErrnoError(errno, "socketpair()", {.step = "launcher"});
  }
  out.await_socket.reset(fds[0]);
  socket = out.plan.Send(UniqueFd(fds[1]));
  return absl::OkStatus();
}

// As the container's user, through no magic link: with "/proc/self/fd/N" a
// descriptor that is still open here would become the working directory
// (CVE-2024-21626).
void AddWorkingDirectory(PlanBuilder& plan, const std::string& cwd) {
  const open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
                        .resolve = RESOLVE_NO_MAGICLINKS};
  const Slot directory = plan.NewSlot();
  const std::string call = absl::StrCat("chdir(", Quoted(cwd), ")");
  plan.Call(SYS_openat2,
            {AT_FDCWD, plan.String(cwd), plan.Object(how), sizeof(how)}, call)
      .Into(directory)
      .Path(cwd)
      .Hint("ProcessSpec.cwd must be a directory of the root");
  plan.Call(SYS_fchdir, {directory}, call).Path(cwd);
  plan.Call(SYS_close, {directory}, call);
}

absl::StatusOr<Slot> AddSetAsideExecutable(PlanBuilder& plan, BorrowedFd fd) {
  Slot slot;
  if (!fd.valid()) return slot;
  struct stat stat;
  if (::fstat(fd.get(), &stat) != 0 || !S_ISREG(stat.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat("ProcessSpec.executable_fd: descriptor ", fd.get(),
                     " is no open regular file"));
  }
  slot = plan.NewSlot();
  plan.Call(SYS_fcntl, {plan.Send(fd), F_DUPFD_CLOEXEC, plan::kFirstSetAside},
            "fcntl(F_DUPFD_CLOEXEC)")
      .Into(slot);
  return slot;
}

// Out of the way of what is closed before; a FIFO that is open for reading only
// would let everything pass as long as nobody has it open for writing.
absl::StatusOr<Slot> AddSetAsideGate(PlanBuilder& plan, const ProcessSpec& spec,
                                     Composition& out) {
  Slot slot;
  if (!spec.gate.valid()) return slot;
  struct stat stat;
  const int flags = ::fcntl(spec.gate.get(), F_GETFL);
  if (flags < 0 || (flags & O_ACCMODE) != O_RDWR || (flags & O_NONBLOCK) != 0 ||
      ::fstat(spec.gate.get(), &stat) != 0 || !S_ISFIFO(stat.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat("ProcessSpec.gate: descriptor ", spec.gate.get(),
                     " is no FIFO that is open for reading and writing, and "
                     "blocks (O_RDWR without O_NONBLOCK)"));
  }
  ASSIGN_OR_RETURN(out.gate, sys::Duplicate(spec.gate));
  slot = plan.NewSlot();
  plan.Call(SYS_fcntl,
            {plan.Send(spec.gate), F_DUPFD_CLOEXEC, plan::kFirstSetAside},
            "fcntl(F_DUPFD_CLOEXEC)")
      .Into(slot);
  return slot;
}

// exec closes it: a filter may refuse every other way.
void AddGate(PlanBuilder& plan, Slot gate) {
  plan.Call(SYS_read, {gate, plan.Object(char{}), 1}, "read(gate)");
}

absl::Status AddExec(const ProcessSpec& spec,
                     const std::vector<std::string>& env, Slot executable,
                     Composition& out) {
  PlanBuilder& plan = out.plan;
  const Data argv = plan.StringArray(spec.argv);
  const Data envp = plan.StringArray(env);
  if (executable.valid()) {
    plan.Exec(SYS_execveat,
              {executable, plan.String(""), argv, envp, AT_EMPTY_PATH},
              "execveat(ProcessSpec.executable_fd)", /*try_next=*/false)
        .Hint("ENOENT: a script, whose interpreter could not open it again");
    return absl::OkStatus();
  }
  const std::string& program =
      spec.executable.empty() ? spec.argv[0] : spec.executable;
  out.candidates = Candidates(program, env);
  if (out.candidates.empty()) {
    return absl::InvalidArgumentError(
        "ProcessSpec.env: PATH has no directory to look for the program in");
  }
  for (size_t i = 0; i < out.candidates.size(); ++i) {
    const std::string& path = out.candidates[i];
    plan.Exec(SYS_execve, {plan.String(path), argv, envp},
              absl::StrCat("execve(", Quoted(path), ")"),
              /*try_next=*/i + 1 < out.candidates.size())
        .Path(path);
  }
  return absl::OkStatus();
}

std::vector<V1Group> V1Groups(const Cgroup* cgroup) {
  std::vector<V1Group> groups;
  if (cgroup == nullptr) return groups;
  for (CgroupV1Directory& directory : cgroup->v1_directories()) {
    groups.push_back({std::move(directory.hierarchy),
                      std::move(directory.controllers), directory.directory});
  }
  return groups;
}

MountContext ContextOf(const ProcessSpec& spec, const NamespaceOptions& options,
                       const LauncherView& launcher, bool own_cgroup2) {
  return {
      .isolated_launcher = launcher.isolated,
      // What is shared does not belong to the user namespace of the child.
      .user_namespace =
          options.user.valid() || launcher.identity.own_user_namespace,
      .new_pid_namespace = options.pid.is_new(),
      .new_net_namespace = options.net.is_new(),
      .new_ipc_namespace = options.ipc.is_new(),
      .new_cgroup_namespace = options.cgroup.is_new(),
      .own_cgroup2 = own_cgroup2 && options.cgroup.is_new(),
      .v1_groups = V1Groups(spec.cgroup),
      .terminal = spec.terminal.has_value(),
  };
}

absl::Status CheckComposition(const ProcessSpec& spec,
                              const NamespaceOptions& options, Until until) {
  if (options.mount.is_joined() && spec.root != nullptr) {
    return absl::InvalidArgumentError(
        "ProcessSpec.root and a joined NamespaceOptions.mount exclude each "
        "other: the process lives in the root of the one that it joins");
  }
  if (!options.mount.is_joined() && spec.root == nullptr) {
    return absl::InvalidArgumentError(
        "ProcessSpec.root is null: a process needs a RootFs");
  }
  if (spec.gate.valid() && until != Until::kStartCall) {
    return absl::InvalidArgumentError(
        "ProcessSpec.gate is for Launcher::CreateProcess()");
  }
  if (spec.init && !options.pid.is_new()) {
    return absl::InvalidArgumentError(
        "ProcessSpec.init needs a new pid namespace: it is its PID 1");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Composition::OpenGate() const {
  if (!gate.valid()) return absl::OkStatus();
  return sys::WriteAll(gate.borrow(), "g", "ProcessSpec.gate");
}

absl::StatusOr<Composition> Compose(const ProcessSpec& spec,
                                    const SecurityPolicy& policy,
                                    const LauncherView& launcher, Until until) {
  RETURN_IF_ERROR(CheckSpec(spec));
  std::optional<Namespace> default_namespaces;
  const Namespace* namespaces = spec.namespaces;
  if (namespaces == nullptr) {
    ASSIGN_OR_RETURN(default_namespaces, Namespace::Create({}));
    namespaces = &*default_namespaces;
  }
  const NamespaceOptions& options = namespaces->options();
  RETURN_IF_ERROR(CheckComposition(spec, options, until));

  Composition out;
  if (spec.root != nullptr) {
    out.open_inside = [root = spec.root](const std::string& path, int flags) {
      return root->Open(path, flags);
    };
  } else {
    // A joined mount namespace has no process to look through.
    out.open_inside = [](const std::string& path, int) {
      return ErrnoError(ENOENT, absl::StrCat("open(", Quoted(path), ")"), {});
    };
  }
  ASSIGN_OR_RETURN(const User user, FindUser(spec, out.open_inside));
  // In another user namespace, that one's map counts.
  if (!options.user.valid()) {
    RETURN_IF_ERROR(CheckUser(spec.user, user, launcher.identity));
  }
  const std::vector<std::string> env = Environment(spec, user);
  PlanBuilder& plan = out.plan;
  ASSIGN_OR_RETURN(const NamespaceSteps steps,
                   NamespaceSteps::Create(*namespaces, spec.network));
  out.namespaces = steps.container();
  ASSIGN_OR_RETURN(const GroupSlots group, SendGroup(plan, spec.cgroup));
  out.early_await =
      !spec.hooks.prestart.empty() || !spec.hooks.create_runtime.empty();
  out.mounted_await = !spec.hooks.create_container.empty();
  out.late_await = until == Until::kStartCall;
  Slot await;
  if (out.early_await || out.mounted_await || out.late_await) {
    RETURN_IF_ERROR(MakeAwaitSocket(out, await));
  }

  // While /proc is the launcher's: a joined one may lead anywhere
  // (CVE-2019-16884).
  const bool early = options.mount.is_joined();
  if (early) {
    AddOomScore(plan, spec);
    AddLabels(plan, policy);
  }
  steps.AddClone(plan, group.v2_directory);
  plan.Step("cgroup");
  if (!early) AddOomScore(plan, spec);
  AddJoinGroup(plan, group);
  AddSessionKeyring(plan, policy);
  RETURN_IF_ERROR(steps.AddRest(plan));
  if (!early) AddLabels(plan, policy);
  if (out.early_await) plan.Await(await);
  DeviceSlots devices;
  if (spec.root != nullptr) {
    plan.Step("mounts");
    MountContext context =
        ContextOf(spec, options, launcher, group.v2_directory.valid());
    if (out.mounted_await) context.await = await;
    ASSIGN_OR_RETURN(const RootFsSlots root, spec.root->AddTo(plan, context));
    devices = {.dev = root.dev, .devpts = root.devpts};
  } else {
    if (out.mounted_await) plan.Await(await);
    devices = AddOpenDevices(plan, spec.terminal.has_value());
  }
  if (spec.init) {
    plan.Init(AddInitFilter(plan));
  }
  RETURN_IF_ERROR(AddStreams(plan, spec, devices, user, out.ends));
  if (spec.terminal && spec.root != nullptr) AddConsole(plan, devices.dev);
  AddSession(plan, spec);
  plan.Step("security");
  ASSIGN_OR_RETURN(const Slot executable,
                   AddSetAsideExecutable(plan, spec.executable_fd));
  ASSIGN_OR_RETURN(const std::vector<Slot> set_aside, AddSetAside(plan, spec));
  ASSIGN_OR_RETURN(const Slot gate, AddSetAsideGate(plan, spec, out));
  RETURN_IF_ERROR(
      AddAttributes(plan, spec, options.user.valid(), out.omissions));
  AddCredentials(plan, policy, user, spec.umask, launcher.identity.setgroups);
  AddWorkingDirectory(plan, spec.cwd);
  if (out.late_await) plan.Await(await);
  ASSIGN_OR_RETURN(const Slot listener,
                   AddListenerSocket(plan, policy, out.listener_socket));
  plan.CloseDescriptors(LimitsDescriptors(spec));
  // Nothing of the host is open while it waits at the gate, perhaps for days.
  // Who takes the listener is there before. And without no_new_privs, loading
  // the filter takes a right that the program may lack: another container in
  // the same pid namespace may trace what waits with it.
  const bool filter_first =
      gate.valid() && (listener.valid() || !policy.no_new_privileges());
  if (filter_first) {
    RETURN_IF_ERROR(policy.state().with_gate);
  } else if (gate.valid()) {
    AddGate(plan, gate);
  }
  AddInherited(plan, spec, set_aside);
  RETURN_IF_ERROR(AddLateLimits(plan, spec, options.user.valid()));
  plan.Step("exec");
  AddFilter(plan, policy, user, listener);
  if (filter_first) AddGate(plan, gate);
  RETURN_IF_ERROR(AddExec(spec, env, executable, out));
  return out;
}

// The order is what keeps the container out: everything that takes rights or
// descriptors of the host happens in a process that only joined the pid
// namespace, and so is not in it; the one that is born there has no more than
// its program will have. (Its filter comes last: a process that can trace it
// could have it make system calls that the filter refuses, with the same
// rights.)
absl::StatusOr<Composition> ComposeExec(const Container& container,
                                        const ProcessSpec& spec,
                                        const SecurityPolicy& policy,
                                        const LauncherView& launcher) {
  RETURN_IF_ERROR(CheckSpec(spec));
  RETURN_IF_ERROR(CheckExecSpec(spec));
  Composition out;
  ASSIGN_OR_RETURN(out.open_inside, RootOf(container.pidfd));
  ASSIGN_OR_RETURN(const User user, FindUser(spec, out.open_inside));
  const bool user_namespace =
      (container.namespaces.second & CLONE_NEWUSER) != 0;
  if (!user_namespace) {
    RETURN_IF_ERROR(CheckUser(spec.user, user, launcher.identity));
  }
  const std::vector<std::string> env = Environment(spec, user);
  PlanBuilder& plan = out.plan;
  GroupSlots group;
  if (spec.cgroup != nullptr) {
    ASSIGN_OR_RETURN(group, SendGroup(plan, spec.cgroup));
  } else {
    RETURN_IF_ERROR(cgroup::CheckNotFrozen(container.group));
    ASSIGN_OR_RETURN(CgroupEntry entry, cgroup::OpenEntry(container.group));
    group = SendEntry(plan, std::move(entry));
  }
  plan.set_cgroup(group.v2_directory);

  plan.Step("cgroup");
  AddOomScore(plan, spec);
  AddJoinGroup(plan, group);
  AddSessionKeyring(plan, policy);
  AddLabels(plan, policy);
  plan.Step("namespaces");
  AddEnterContainer(plan, container.pidfd, container.namespaces);
  const DeviceSlots devices = AddOpenDevices(plan, spec.terminal.has_value());
  RETURN_IF_ERROR(AddStreams(plan, spec, devices, user, out.ends));
  plan.Step("security");
  ASSIGN_OR_RETURN(const Slot executable,
                   AddSetAsideExecutable(plan, spec.executable_fd));
  ASSIGN_OR_RETURN(const std::vector<Slot> set_aside, AddSetAside(plan, spec));
  RETURN_IF_ERROR(AddAttributes(plan, spec, user_namespace, out.omissions));
  AddCredentials(plan, policy, user, spec.umask, launcher.identity.setgroups);
  ASSIGN_OR_RETURN(const Slot listener,
                   AddListenerSocket(plan, policy, out.listener_socket));
  plan.CloseDescriptors(LimitsDescriptors(spec));
  // The change of user may have made it so again (fs.suid_dumpable).
  plan.Call(SYS_prctl, {PR_SET_DUMPABLE, 0, 0, 0, 0},
            "prctl(PR_SET_DUMPABLE, 0)");
  // Without no_new_privs, loading it takes a right that the program may lack.
  const bool filter_first = !policy.no_new_privileges();
  if (filter_first) AddFilter(plan, policy, user, listener);
  plan.Fork(0, Slot(), "clone3()");
  AddSession(plan, spec);
  AddWorkingDirectory(plan, spec.cwd);
  AddInherited(plan, spec, set_aside);
  RETURN_IF_ERROR(AddLateLimits(plan, spec, user_namespace));
  plan.Step("exec");
  if (!filter_first) AddFilter(plan, policy, user, listener);
  RETURN_IF_ERROR(AddExec(spec, env, executable, out));
  return out;
}

}  // namespace caisson::launcher
