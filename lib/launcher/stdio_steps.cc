#include "lib/launcher/stdio_steps.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/plan/send_fds.h"
#include "lib/sys/open.h"

namespace caisson::launcher {
namespace {

using ::caisson::plan::PlanBuilder;
using ::caisson::plan::Slot;

// Opens a stream's file; only regular files, so that nothing blocks or answers.
absl::StatusOr<UniqueFd> OpenFile(const std::string& path, int number) {
  const int flags =
      number == STDIN_FILENO ? O_RDONLY : O_WRONLY | O_APPEND | O_CREAT;
  ASSIGN_OR_RETURN(UniqueFd file,
                   sys::Open(path, flags | O_NOCTTY | O_NONBLOCK, 0600));
  struct stat stat;
  if (::fstat(file.get(), &stat) != 0 || !S_ISREG(stat.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat("stream ", number, " of ProcessSpec: ", Quoted(path),
                     " is no regular file"));
  }
  if (::fcntl(file.get(), F_SETFL, flags & O_APPEND) != 0) {
    return ErrnoError(errno, "fcntl(F_SETFL)", {.step = "stdio", .path = path});
  }
  return file;
}

absl::StatusOr<Slot> AddPipe(PlanBuilder& plan, int number, const User& user,
                             UniqueFd& host_end) {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) {
    return ErrnoError(errno, "pipe2()", {.step = "stdio"});
  }
  UniqueFd ends[2] = {UniqueFd(fds[0]), UniqueFd(fds[1])};
  const int child = number == STDIN_FILENO ? 0 : 1;
  const Slot slot = plan.Send(std::move(ends[child]));
  host_end = std::move(ends[1 - child]);
  // So that the user can open it again by /dev/stdout.
  // In a user namespace that does not map the host's user it stays the host's.
  plan.Call(SYS_fchown, {slot, user.uid, user.gid}, "fchown(pipe)")
      .Tolerate(EPERM)
      .Hint("ProcessSpec.user is not mapped in the user namespace");
  return slot;
}

absl::Status AddStream(PlanBuilder& plan, const Stdio& stream, int number,
                       const DeviceSlots& devices, const User& user,
                       UniqueFd& host_end) {
  Slot slot;
  switch (stream.kind()) {
    case Stdio::Kind::kNull:
      // The container's own: root inside may chmod what its streams refer to.
      slot = plan.NewSlot();
      plan.Call(SYS_openat,
                {devices.dev, plan.String("null"),
                 O_RDWR | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC, 0},
                "open(\"/dev/null\")")
          .Into(slot);
      break;
    case Stdio::Kind::kInherit:
      RETURN_IF_ERROR(CheckInherited(
          stream.fd(), absl::StrCat("stream ", number, " of ProcessSpec")));
      slot = plan.Send(stream.fd());
      break;
    case Stdio::Kind::kPipe: {
      ASSIGN_OR_RETURN(slot, AddPipe(plan, number, user, host_end));
      break;
    }
    case Stdio::Kind::kFile: {
      ASSIGN_OR_RETURN(UniqueFd file, OpenFile(stream.path(), number));
      slot = plan.Send(std::move(file));
      break;
    }
    case Stdio::Kind::kLikeStdout:
      plan.Call(SYS_dup3, {STDOUT_FILENO, number, 0}, "dup3(1, 2)");
      return absl::OkStatus();
  }
  plan.Call(SYS_dup3, {slot, number, 0}, absl::StrCat("dup3(", number, ")"));
  return absl::OkStatus();
}

// The terminal lives in the container's own devpts, so that ttyname(3) works
// there and no name of the host's is needed. TIOCGPTPEER opens the other side
// without looking up a path that something in the container could replace.
absl::Status AddTerminal(PlanBuilder& plan, TerminalSize size,
                         const DeviceSlots& devices, uid_t uid,
                         UniqueFd& host_socket) {
  if (!devices.devpts.valid()) {
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
  plan.Call(SYS_openat,
            {devices.devpts, plan.String("ptmx"),
             O_RDWR | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC, 0},
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
  for (int i = 0; i < 3; ++i) {
    plan.Call(SYS_dup3, {peer, i, 0}, absl::StrCat("dup3(terminal, ", i, ")"));
  }
  for (const Slot slot : {master, peer, socket}) {
    plan.Call(SYS_close, {slot}, "close(terminal)");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckInherited(BorrowedFd fd, absl::string_view what) {
  const std::string named = absl::StrCat(what, ": descriptor ", fd.get());
  const int flags = ::fcntl(fd.get(), F_GETFL);
  struct stat stat;
  if (flags < 0 || ::fstat(fd.get(), &stat) != 0) {
    return absl::InvalidArgumentError(absl::StrCat(named, " is not open"));
  }
  if ((flags & O_PATH) != 0 || S_ISDIR(stat.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(
        named, " is a directory or O_PATH: it would be a way out of the root"));
  }
  return absl::OkStatus();
}

DeviceSlots AddOpenDevices(PlanBuilder& plan, bool terminal) {
  // Of a container that runs: its root may have made anything of these names.
  const open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
                        .resolve = RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS};
  const plan::Data data = plan.Object(how);
  DeviceSlots devices;
  devices.dev = plan.NewSlot();
  plan.Call(SYS_openat2, {AT_FDCWD, plan.String("/dev"), data, sizeof(how)},
            "open(\"/dev\")")
      .Into(devices.dev)
      .Path("/dev");
  if (!terminal) return devices;
  devices.devpts = plan.NewSlot();
  plan.Call(SYS_openat2, {AT_FDCWD, plan.String("/dev/pts"), data, sizeof(how)},
            "open(\"/dev/pts\")")
      .Into(devices.devpts)
      .Path("/dev/pts");
  return devices;
}

absl::Status AddStreams(PlanBuilder& plan, const ProcessSpec& spec,
                        const DeviceSlots& devices, const User& user,
                        HostEnds& ends) {
  if (spec.terminal.has_value()) {
    plan.Step("terminal");
    return AddTerminal(plan, *spec.terminal, devices, user.uid,
                       ends.terminal_socket);
  }
  plan.Step("stdio");
  RETURN_IF_ERROR(AddStream(plan, spec.in, 0, devices, user, ends.in));
  RETURN_IF_ERROR(AddStream(plan, spec.out, 1, devices, user, ends.out));
  return AddStream(plan, spec.err, 2, devices, user, ends.err);
}

void AddConsole(PlanBuilder& plan, Slot dev) {
  const Slot console = plan.NewSlot();
  plan.Call(SYS_openat,
            {dev, plan.String("console"),
             O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0600},
            "open(\"/dev/console\", O_CREAT)")
      .Into(console)
      // In a /dev that somebody else made.
      .Tolerate(EEXIST, 2);
  const Slot mount = plan.NewSlot();
  plan.Call(SYS_open_tree,
            {STDIN_FILENO, plan.String(""),
             AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC},
            "open_tree(terminal)")
      .Into(mount);
  plan.Call(SYS_move_mount,
            {mount, plan.String(""), console, plan.String(""),
             MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH},
            "move_mount(terminal, \"/dev/console\")");
}

void AddSession(PlanBuilder& plan, const ProcessSpec& spec) {
  // No terminal of the host can be stolen or pushed into.
  if (spec.new_session || spec.terminal) {
    plan.Call(SYS_setsid, {}, "setsid()");
  } else {
    // The launcher's process group would reach into other containers.
    plan.Call(SYS_setpgid, {0, 0}, "setpgid(0, 0)");
  }
  if (spec.terminal) {
    plan.Call(SYS_ioctl, {STDIN_FILENO, TIOCSCTTY, 0}, "ioctl(TIOCSCTTY)");
  }
}

absl::StatusOr<std::vector<Slot>> AddSetAside(PlanBuilder& plan,
                                              const ProcessSpec& spec) {
  std::vector<Slot> set_aside;
  for (const InheritedFd& inherited : spec.descriptors) {
    RETURN_IF_ERROR(CheckInherited(
        inherited.fd,
        absl::StrCat("ProcessSpec.descriptors[", inherited.number, "]")));
    const Slot slot = plan.NewSlot();
    plan.Call(SYS_fcntl,
              {plan.Send(inherited.fd), F_DUPFD_CLOEXEC, plan::kFirstSetAside},
              "fcntl(F_DUPFD_CLOEXEC)")
        .Into(slot);
    set_aside.push_back(slot);
  }
  return set_aside;
}

void AddInherited(PlanBuilder& plan, const ProcessSpec& spec,
                  const std::vector<Slot>& set_aside) {
  for (size_t i = 0; i < set_aside.size(); ++i) {
    const int number = spec.descriptors[i].number;
    plan.Call(SYS_dup3, {set_aside[i], number, 0},
              absl::StrCat("dup3(", number, ")"))
        .Hint("the limit RLIMIT_NOFILE is below the number");
  }
  // By name, a program could come through them before exec closes them.
  for (const Slot slot : set_aside) {
    plan.Call(SYS_close, {slot}, "close(set aside)");
  }
}

}  // namespace caisson::launcher
