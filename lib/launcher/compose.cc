#include "lib/launcher/compose.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "caisson/cgroup.h"
#include "caisson/namespace.h"
#include "caisson/net_endpoint.h"
#include "caisson/root_fs.h"
#include "caisson/security.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/launcher/program.h"
#include "lib/launcher/security_steps.h"
#include "lib/launcher/sysctl_steps.h"
#include "lib/launcher/unprivileged.h"
#include "lib/launcher/user.h"
#include "lib/plan/send_fds.h"
#include "lib/rootfs/mount_context.h"
#include "lib/sys/open.h"

namespace caisson::launcher {
namespace {

using ::caisson::plan::Data;
using ::caisson::plan::PlanBuilder;
using ::caisson::plan::Slot;

constexpr char kDefaultPath[] =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
constexpr size_t kMaxPasswd = 1 << 20;

// ---- Validation ------------------------------------------------------------

absl::Status CheckString(absl::string_view field, absl::string_view value) {
  if (value.find('\0') == absl::string_view::npos) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("ProcessSpec.", field, " ", Quoted(value), " has a NUL"));
}

absl::Status CheckSpec(const ProcessSpec& spec) {
  if (spec.argv.empty() || spec.argv[0].empty()) {
    return absl::InvalidArgumentError(
        "ProcessSpec.argv is empty: there is no program to run");
  }
  if (spec.root == nullptr) {
    return absl::InvalidArgumentError(
        "ProcessSpec.root is null: a process needs a RootFs");
  }
  for (const std::string& arg : spec.argv) {
    RETURN_IF_ERROR(CheckString("argv", arg));
  }
  for (const std::string& variable : spec.env) {
    RETURN_IF_ERROR(CheckString("env", variable));
    const size_t equals = variable.find('=');
    if (equals == 0 || equals == std::string::npos) {
      return absl::InvalidArgumentError(absl::StrCat(
          "ProcessSpec.env ", Quoted(variable), " is not NAME=value"));
    }
  }
  RETURN_IF_ERROR(CheckString("cwd", spec.cwd));
  if (!absl::StartsWith(spec.cwd, "/")) {
    return absl::InvalidArgumentError(absl::StrCat(
        "ProcessSpec.cwd ", Quoted(spec.cwd), " is not an absolute path"));
  }
  if (spec.terminal.has_value()) {
    for (const Stdio& stream : {spec.in, spec.out, spec.err}) {
      if (stream.kind() == Stdio::Kind::kNull) continue;
      return absl::InvalidArgumentError(
          "ProcessSpec.terminal takes the place of in, out and err: leave them "
          "as they are");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadInside(const RootFs& root, const char* path) {
  auto file = root.Open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
  if (file.ok()) return sys::ReadAll(file->borrow(), kMaxPasswd, path);
  const auto detail = GetErrorDetail(file.status());
  if (detail && (detail->error == ENOENT || detail->error == ENOTDIR)) {
    return std::string();
  }
  return file.status();
}

absl::StatusOr<User> FindUser(const ProcessSpec& spec) {
  ASSIGN_OR_RETURN(const std::string passwd,
                   ReadInside(*spec.root, "/etc/passwd"));
  ASSIGN_OR_RETURN(const std::string group,
                   ReadInside(*spec.root, "/etc/group"));
  return ResolveUser(spec.user, passwd, group);
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
  if (!Has(env, "PATH=")) env.push_back(absl::StrCat("PATH=", kDefaultPath));
  if (!Has(env, "HOME=")) env.push_back(absl::StrCat("HOME=", user.home));
  if (spec.terminal && !Has(env, "TERM=")) env.push_back("TERM=xterm");
  return env;
}

// ---- Steps, in the order in which they run ---------------------------------

// The control group's descriptors, in the plan.
struct GroupSlots {
  Slot v2_directory;
  std::vector<Slot> join_files;
};

absl::StatusOr<GroupSlots> SendGroup(PlanBuilder& plan, const Cgroup* cgroup) {
  GroupSlots slots;
  if (cgroup == nullptr) return slots;
  ASSIGN_OR_RETURN(CgroupEntry entry, cgroup->OpenEntry());
  if (!entry.v2_directory.valid() && entry.join_files.empty()) {
    return absl::FailedPreconditionError(
        "ProcessSpec.cgroup was destroyed: the process would run without "
        "limits");
  }
  if (entry.v2_directory.valid()) {
    slots.v2_directory = plan.Send(std::move(entry.v2_directory));
  }
  for (UniqueFd& file : entry.join_files) {
    slots.join_files.push_back(plan.Send(std::move(file)));
  }
  return slots;
}

// Clones the process that the plan is about: at once, or from a process that
// has joined the user namespace and stays out of the control group.
void AddClone(PlanBuilder& plan, uint64_t flags, BorrowedFd user,
              Slot v2_directory) {
  if (!user.valid()) {
    plan.set_clone_flags(flags);
    plan.set_cgroup(v2_directory);
    return;
  }
  plan.Step("user namespace");
  plan.Call(SYS_setns, {plan.Send(user), CLONE_NEWUSER},
            "setns(user namespace)")
      .Hint("the launcher needs CAP_SYS_ADMIN in it");
  plan.Fork(flags, v2_directory, "clone3()");
}

void AddCgroup(PlanBuilder& plan, const GroupSlots& group,
               NamespaceSource source) {
  plan.Step("cgroup");
  const Data zero = plan.String("0");
  for (const Slot file : group.join_files) {
    plan.Call(SYS_write, {file, zero, 1}, "write(cgroup, \"0\")")
        .Hint("the control group was removed, or its cpuset is empty");
  }
  if (source == NamespaceSource::kNew) {
    // After the move: the namespace's root is the group of this moment.
    plan.Call(SYS_unshare, {CLONE_NEWCGROUP}, "unshare(CLONE_NEWCGROUP)");
  }
}

void AddLoopback(PlanBuilder& plan) {
  const Slot socket = plan.NewSlot();
  plan.Call(SYS_socket, {AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0},
            "socket(AF_INET)")
      .Into(socket);
  ifreq request = {};
  strncpy(request.ifr_name, "lo", sizeof(request.ifr_name) - 1);
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  plan.Call(SYS_ioctl, {socket, SIOCSIFFLAGS, plan.Object(request)},
            "ioctl(\"lo\", SIOCSIFFLAGS, IFF_UP)");
}

absl::StatusOr<uint64_t> CloneFlags(const Namespace& namespaces,
                                    const NetEndpoint* network) {
  const uint64_t flags = namespaces.clone_flags();
  if (network == nullptr) return flags;
  if ((flags & CLONE_NEWNET) == 0) {
    return absl::InvalidArgumentError(
        "ProcessSpec.network brings a network namespace, but "
        "NamespaceOptions.net is the host's");
  }
  return flags & ~static_cast<uint64_t>(CLONE_NEWNET);
}

void AddNamespaces(PlanBuilder& plan, const NamespaceOptions& options,
                   uint64_t clone_flags, const NetEndpoint* network) {
  plan.Step("namespaces");
  if (options.user.valid()) {
    // From here on as the root of the user namespace: files that are made
    // below belong to it.
    plan.Call(SYS_setgroups, {0, 0}, "setgroups([])");
    plan.Call(SYS_setresgid, {0, 0, 0}, "setresgid(0)")
        .Hint("group 0 is not mapped in the user namespace");
    plan.Call(SYS_setresuid, {0, 0, 0}, "setresuid(0)")
        .Hint("user 0 is not mapped in the user namespace");
  }
  if (network != nullptr) {
    plan.Call(SYS_setns, {plan.Send(network->netns()), CLONE_NEWNET},
              "setns(network namespace)")
        .Hint(
            "with a user namespace, make the network namespace with "
            "Launcher::NewNetNamespace(user namespace)");
  } else if ((clone_flags & CLONE_NEWNET) != 0) {
    AddLoopback(plan);
  }
  if (!options.hostname.empty()) {
    plan.Call(SYS_sethostname,
              {plan.String(options.hostname), options.hostname.size()},
              "sethostname()");
  }
}

absl::Status CheckInherited(BorrowedFd fd, int number) {
  const std::string what =
      absl::StrCat("stream ", number, " of ProcessSpec: descriptor ", fd.get());
  const int flags = ::fcntl(fd.get(), F_GETFL);
  struct stat stat;
  if (flags < 0 || ::fstat(fd.get(), &stat) != 0) {
    return absl::InvalidArgumentError(absl::StrCat(what, " is not open"));
  }
  if ((flags & O_PATH) != 0 || S_ISDIR(stat.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(
        what, " is a directory or O_PATH: it would be a way out of the root"));
  }
  return absl::OkStatus();
}

absl::Status AddStream(PlanBuilder& plan, const Stdio& stream, int number,
                       const RootFsSlots& root, const User& user,
                       UniqueFd& host_end) {
  Slot slot;
  switch (stream.kind()) {
    case Stdio::Kind::kNull:
      // The container's own: root inside may chmod what its streams refer to.
      slot = plan.NewSlot();
      plan.Call(SYS_openat,
                {root.dev, plan.String("null"),
                 O_RDWR | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC, 0},
                "open(\"/dev/null\")")
          .Into(slot);
      break;
    case Stdio::Kind::kInherit:
      RETURN_IF_ERROR(CheckInherited(stream.fd(), number));
      slot = plan.Send(stream.fd());
      break;
    case Stdio::Kind::kPipe: {
      int fds[2];
      if (::pipe2(fds, O_CLOEXEC) != 0) {
        return ErrnoError(errno, "pipe2()", {.step = "stdio"});
      }
      UniqueFd ends[2] = {UniqueFd(fds[0]), UniqueFd(fds[1])};
      const int child = number == STDIN_FILENO ? 0 : 1;
      slot = plan.Send(std::move(ends[child]));
      host_end = std::move(ends[1 - child]);
      // So that the user can open it again by /dev/stdout.
      plan.Call(SYS_fchown, {slot, user.uid, user.gid}, "fchown(pipe)")
          .Hint("ProcessSpec.user is not mapped in the user namespace");
      break;
    }
  }
  plan.Call(SYS_dup3, {slot, number, 0}, absl::StrCat("dup3(", number, ")"));
  return absl::OkStatus();
}

// The terminal lives in the container's own devpts, so that ttyname(3) works
// there and no name of the host's is needed. TIOCGPTPEER opens the other side
// without looking up a path that something in the container could replace.
absl::Status AddTerminal(PlanBuilder& plan, TerminalSize size,
                         const RootFsSlots& root, uid_t uid,
                         UniqueFd& host_socket) {
  plan.Step("terminal");
  if (!root.devpts.valid()) {
    return absl::InvalidArgumentError(
        "ProcessSpec.terminal needs the root's own /dev/pts, but a mount of "
        "RootFsOptions takes its place");
  }
  int fds[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) != 0) {
    return ErrnoError(errno, "socketpair()", {.step = "terminal"});
  }
  host_socket.reset(fds[0]);
  const Slot socket = plan.Send(UniqueFd(fds[1]));
  const Slot master = plan.NewSlot();
  const Slot peer = plan.NewSlot();
  plan.Call(
          SYS_openat,
          {root.devpts, plan.String("ptmx"), O_RDWR | O_NOCTTY | O_CLOEXEC, 0},
          "open(\"/dev/pts/ptmx\")")
      .Into(master);
  plan.Call(SYS_ioctl, {master, TIOCSPTLCK, plan.Object<int64_t>(0)},
            "ioctl(TIOCSPTLCK)");
  plan.Call(SYS_ioctl, {master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC},
            "ioctl(TIOCGPTPEER)")
      .Into(peer);
  const winsize window = {.ws_row = size.rows, .ws_col = size.columns};
  plan.Call(SYS_ioctl, {master, TIOCSWINSZ, plan.Object(window)},
            "ioctl(TIOCSWINSZ)");
  plan.Call(SYS_fchown, {peer, uid, -1}, "fchown(terminal)")
      .Hint("ProcessSpec.user is not mapped in the user namespace");
  plan::AppendSendFds(plan, socket, {master});

  const Slot console = plan.NewSlot();
  plan.Call(SYS_openat,
            {root.dev, plan.String("console"),
             O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0600},
            "open(\"/dev/console\", O_CREAT)")
      .Into(console);
  const Slot mount = plan.NewSlot();
  plan.Call(SYS_open_tree,
            {peer, plan.String(""),
             AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC},
            "open_tree(terminal)")
      .Into(mount);
  plan.Call(SYS_move_mount,
            {mount, plan.String(""), console, plan.String(""),
             MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH},
            "move_mount(terminal, \"/dev/console\")");

  plan.Call(SYS_setsid, {}, "setsid()");
  plan.Call(SYS_ioctl, {peer, TIOCSCTTY, 0}, "ioctl(TIOCSCTTY)");
  for (int i = 0; i < 3; ++i) {
    plan.Call(SYS_dup3, {peer, i, 0}, absl::StrCat("dup3(terminal, ", i, ")"));
  }
  return absl::OkStatus();
}

absl::Status AddStreams(const ProcessSpec& spec, const RootFsSlots& root,
                        const User& user, Composition& out) {
  if (spec.terminal.has_value()) {
    return AddTerminal(out.plan, *spec.terminal, root, user.uid,
                       out.terminal_socket);
  }
  out.plan.Step("stdio");
  RETURN_IF_ERROR(AddStream(out.plan, spec.in, 0, root, user, out.in));
  RETURN_IF_ERROR(AddStream(out.plan, spec.out, 1, root, user, out.out));
  RETURN_IF_ERROR(AddStream(out.plan, spec.err, 2, root, user, out.err));
  // A session of its own: no terminal of the host can be stolen or pushed into.
  out.plan.Call(SYS_setsid, {}, "setsid()");
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
}

void AddExec(const ProcessSpec& spec, const std::vector<std::string>& env,
             Composition& out) {
  PlanBuilder& plan = out.plan;
  const Data argv = plan.StringArray(spec.argv);
  const Data envp = plan.StringArray(env);
  out.candidates = Candidates(spec.argv[0], env);
  for (size_t i = 0; i < out.candidates.size(); ++i) {
    const std::string& path = out.candidates[i];
    plan.Exec(SYS_execve, {plan.String(path), argv, envp},
              absl::StrCat("execve(", Quoted(path), ")"),
              /*try_next=*/i + 1 < out.candidates.size())
        .Path(path);
  }
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

}  // namespace

absl::StatusOr<Composition> Compose(const ProcessSpec& spec,
                                    const SecurityPolicy& default_policy,
                                    bool isolated,
                                    const LauncherIdentity& identity) {
  RETURN_IF_ERROR(CheckSpec(spec));
  ASSIGN_OR_RETURN(const User user, FindUser(spec));
  const std::vector<std::string> env = Environment(spec, user);
  if (Candidates(spec.argv[0], env).empty()) {
    return absl::InvalidArgumentError(
        "ProcessSpec.env: PATH has no directory to look for argv[0] in");
  }
  std::optional<Namespace> default_namespaces;
  const Namespace* namespaces = spec.namespaces;
  if (namespaces == nullptr) {
    ASSIGN_OR_RETURN(default_namespaces, Namespace::Create({}));
    namespaces = &*default_namespaces;
  }
  const NamespaceOptions& options = namespaces->options();
  const SecurityPolicy& policy =
      spec.security != nullptr ? *spec.security : default_policy;

  // In another user namespace, that one's map counts.
  if (!options.user.valid()) {
    RETURN_IF_ERROR(CheckUser(spec.user, user, identity));
  }

  Composition out;
  ASSIGN_OR_RETURN(const uint64_t clone_flags,
                   CloneFlags(*namespaces, spec.network));
  ASSIGN_OR_RETURN(const GroupSlots group, SendGroup(out.plan, spec.cgroup));
  const bool own_cgroup2 = group.v2_directory.valid();
  AddClone(out.plan, clone_flags, options.user.borrow(), group.v2_directory);
  AddCgroup(out.plan, group, options.cgroup);
  AddSessionKeyring(out.plan, policy);
  AddNamespaces(out.plan, options, clone_flags, spec.network);
  RETURN_IF_ERROR(AddSysctls(out.plan, options));
  AddLabels(out.plan, policy);
  const MountContext context = {
      .isolated_launcher = isolated,
      // What is shared does not belong to the user namespace of the child.
      .user_namespace = options.user.valid() || identity.own_user_namespace,
      .new_net_namespace = options.net == NamespaceSource::kNew,
      .new_ipc_namespace = options.ipc == NamespaceSource::kNew,
      .new_cgroup_namespace = options.cgroup == NamespaceSource::kNew,
      .own_cgroup2 = own_cgroup2 && options.cgroup == NamespaceSource::kNew,
      .v1_groups = V1Groups(spec.cgroup),
      .terminal = spec.terminal.has_value(),
  };
  out.plan.Step("mounts");
  ASSIGN_OR_RETURN(const RootFsSlots root, spec.root->AddTo(out.plan, context));
  RETURN_IF_ERROR(AddStreams(spec, root, user, out));
  out.plan.Step("security");
  AddCredentials(out.plan, policy, user, identity.setgroups);
  AddWorkingDirectory(out.plan, spec.cwd);
  out.plan.DieWithLauncher();
  RETURN_IF_ERROR(AddFilter(out.plan, policy, user, out.listener_socket));
  out.plan.Step("exec");
  AddExec(spec, env, out);
  return out;
}

}  // namespace caisson::launcher
