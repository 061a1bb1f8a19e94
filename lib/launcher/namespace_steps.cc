#include "lib/launcher/namespace_steps.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <net/if.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "caisson/error.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/launcher/sysctl_steps.h"
#include "lib/sys/open.h"

// Debian 12's headers lack it (Linux 5.6).
#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

namespace caisson::launcher {
namespace {

using ::caisson::plan::Data;
using ::caisson::plan::PlanBuilder;
using ::caisson::plan::Slot;

constexpr int kNewNamespaces =
    CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS;

bool IsSame(BorrowedFd ns, BorrowedFd other) {
  struct stat a;
  struct stat b;
  return ::fstat(ns.get(), &a) == 0 && ::fstat(other.get(), &b) == 0 &&
         a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

// Whether namespace `ns` belongs to user namespace `user`.
bool BelongsTo(BorrowedFd ns, BorrowedFd user) {
  const UniqueFd owner(::ioctl(ns.get(), NS_GET_USERNS));
  return owner.valid() && IsSame(owner.borrow(), user);
}

bool IsMissing(const absl::Status& status) {
  const auto detail = GetErrorDetail(status);
  return detail && detail->error == ENOENT;
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

void AddName(PlanBuilder& plan, long number, absl::string_view call,
             const std::string& name) {
  if (name.empty()) return;
  plan.Call(number, {plan.String(name), name.size()}, call);
}

// "monotonic 3600 5\n": seconds may be negative, nanoseconds not.
std::string OffsetLine(absl::string_view clock, absl::Duration offset) {
  const timespec time = absl::ToTimespec(offset);
  return absl::StrCat(clock, " ", time.tv_sec, " ", time.tv_nsec, "\n");
}

// What is done through /proc must not meet that of a container, and what is set
// up with the launcher's rights must not be seen by it.
absl::Status CheckJoins(const NamespaceOptions& options) {
  if (options.mount.is_joined() &&
      (options.time.is_new() || !options.sysctls.empty())) {
    return absl::InvalidArgumentError(
        "NamespaceOptions.mount is joined: a new time namespace and sysctls "
        "need the launcher's /proc");
  }
  if (options.pid.is_joined() && !options.user.valid() &&
      !options.unsafe_joined_pid) {
    return absl::InvalidArgumentError(
        "NamespaceOptions.pid is joined without NamespaceOptions.user: a "
        "process there that has CAP_SYS_PTRACE could take the new one while it "
        "is set up with the host's rights; share a user namespace, or trust "
        "those processes with unsafe_joined_pid");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ContainerNamespaces> NamespacesOf(pid_t pid) {
  constexpr std::pair<const char*, uint64_t> kKinds[] = {
      {"user", CLONE_NEWUSER}, {"mnt", CLONE_NEWNS},
      {"pid", CLONE_NEWPID},   {"net", CLONE_NEWNET},
      {"ipc", CLONE_NEWIPC},   {"uts", CLONE_NEWUTS},
      {"time", CLONE_NEWTIME}, {"cgroup", CLONE_NEWCGROUP},
  };
  ContainerNamespaces in;
  UniqueFd user;  // if it is another
  for (const auto& [name, flag] : kKinds) {
    const std::string path = absl::StrCat("/proc/", pid, "/ns/", name);
    auto theirs = sys::Open(path, O_RDONLY);
    // A kernel without namespaces of that kind.
    if (IsMissing(theirs.status()) && flag == CLONE_NEWTIME) continue;
    RETURN_IF_ERROR(theirs.status());
    ASSIGN_OR_RETURN(const UniqueFd own,
                     sys::Open(absl::StrCat("/proc/self/ns/", name), O_RDONLY));
    if (IsSame(own.borrow(), theirs->borrow())) continue;
    if (flag == CLONE_NEWUSER) user = *std::move(theirs);
    const bool of_user =
        flag == CLONE_NEWUSER ||
        (user.valid() && BelongsTo(theirs->borrow(), user.borrow()));
    (of_user ? in.second : in.first) |= flag;
  }
  return in;
}

absl::StatusOr<GroupSlots> SendGroup(PlanBuilder& plan, const Cgroup* cgroup) {
  if (cgroup == nullptr) return GroupSlots();
  ASSIGN_OR_RETURN(CgroupEntry entry, cgroup->OpenEntry());
  if (!entry.v2_directory.valid() && entry.join_files.empty()) {
    return absl::FailedPreconditionError(
        "ProcessSpec.cgroup was destroyed: the process would run without "
        "limits");
  }
  return SendEntry(plan, std::move(entry));
}

GroupSlots SendEntry(PlanBuilder& plan, CgroupEntry entry) {
  GroupSlots slots;
  if (entry.v2_directory.valid()) {
    slots.v2_directory = plan.Send(std::move(entry.v2_directory));
  }
  for (UniqueFd& file : entry.join_files) {
    slots.join_files.push_back(plan.Send(std::move(file)));
  }
  return slots;
}

void AddJoinGroup(PlanBuilder& plan, const GroupSlots& group) {
  const Data zero = plan.String("0");
  for (const Slot file : group.join_files) {
    plan.Call(SYS_write, {file, zero, 1}, "write(cgroup, \"0\")")
        .Hint("the control group was removed, or its cpuset is empty");
  }
}

void AddEnterContainer(PlanBuilder& plan, BorrowedFd pidfd,
                       const ContainerNamespaces& namespaces) {
  // The launcher's groups mean nothing inside, and may not be left there.
  plan.Call(SYS_setgroups, {0, 0}, "setgroups([])").Tolerate(EPERM);
  const Slot container = plan.Send(pidfd);
  for (const uint64_t flags : {namespaces.first, namespaces.second}) {
    if (flags == 0) continue;
    plan.Call(SYS_setns, {container, flags}, "setns(pidfd of the container)")
        .Hint("ESRCH: the container's process has ended");
  }
  plan.Call(SYS_close, {container}, "close(pidfd)");
  if ((namespaces.second & CLONE_NEWUSER) == 0) return;
  plan.Call(SYS_setgroups, {0, 0}, "setgroups([])").Tolerate(EPERM);
  plan.Call(SYS_setresgid, {0, 0, 0}, "setresgid(0)");
  plan.Call(SYS_setresuid, {0, 0, 0}, "setresuid(0)");
}

absl::StatusOr<NamespaceSteps> NamespaceSteps::Create(
    const Namespace& namespaces, const NetEndpoint* network) {
  RETURN_IF_ERROR(CheckJoins(namespaces.options()));
  NamespaceSteps steps(namespaces, network);
  const NamespaceOptions& options = namespaces.options();
  steps.clone_flags_ = namespaces.clone_flags();
  if (network != nullptr) {
    if (!options.net.is_new()) {
      return absl::InvalidArgumentError(
          "ProcessSpec.network brings a network namespace, but "
          "NamespaceOptions.net is joined or the host's");
    }
    steps.clone_flags_ &= ~static_cast<uint64_t>(CLONE_NEWNET);
  }
  // The mount namespace comes last: "/proc" is another one from there on.
  const std::pair<const NamespaceSource*, int> kinds[] = {
      {&options.ipc, CLONE_NEWIPC},   {&options.uts, CLONE_NEWUTS},
      {&options.net, CLONE_NEWNET},   {&options.cgroup, CLONE_NEWCGROUP},
      {&options.time, CLONE_NEWTIME}, {&options.pid, CLONE_NEWPID},
      {&options.mount, CLONE_NEWNS},
  };
  for (const auto& [source, flag] : kinds) {
    if (!source->is_joined()) continue;
    const bool of_user =
        options.user.valid() && BelongsTo(source->ns(), options.user.borrow());
    steps.joins_.push_back({source, flag, of_user});
  }
  return steps;
}

void NamespaceSteps::AddJoins(PlanBuilder& plan, bool of_user_namespace) const {
  for (const Join& join : joins_) {
    if (join.of_user_namespace != of_user_namespace) continue;
    plan.Call(SYS_setns, {plan.Send(join.source->ns()), join.flag},
              absl::StrCat("setns(", join.flag == CLONE_NEWPID ? "pid" : "",
                           join.flag == CLONE_NEWNS ? "mount" : "",
                           " namespace)"))
        .Hint(join.flag == CLONE_NEWPID
                  ? "only the pid namespace of what the same launcher started "
                    "can be joined, and the host's with "
                    "LauncherOptions.releases"
                  : "the namespace belongs to a user namespace in which the "
                    "process has no rights");
  }
}

void NamespaceSteps::AddClone(PlanBuilder& plan, Slot v2_directory) const {
  if (!options_.user.valid() && joins_.empty()) {
    plan.set_clone_flags(clone_flags_);
    plan.set_cgroup(v2_directory);
    return;
  }
  plan.Step("joined namespaces");
  AddJoins(plan, /*of_user_namespace=*/false);
  if (options_.user.valid()) {
    // The launcher's groups mean nothing inside, and may not be left there.
    plan.Call(SYS_setgroups, {0, 0}, "setgroups([])").Tolerate(EPERM);
    plan.Call(SYS_setns, {plan.Send(options_.user.borrow()), CLONE_NEWUSER},
              "setns(user namespace)")
        .Hint("the launcher needs CAP_SYS_ADMIN in it");
  }
  AddJoins(plan, /*of_user_namespace=*/true);
  plan.Fork(clone_flags_, v2_directory, "clone3()");
}

// The offsets can be written until the first process is in the namespace.
void NamespaceSteps::AddTimeNamespace(PlanBuilder& plan) const {
  plan.Call(SYS_unshare, {CLONE_NEWTIME}, "unshare(CLONE_NEWTIME)")
      .Hint("a kernel without CONFIG_TIME_NS");
  const std::string offsets =
      OffsetLine("monotonic", options_.monotonic_offset) +
      OffsetLine("boottime", options_.boottime_offset);
  const Slot file = plan.NewSlot();
  plan.Call(SYS_openat,
            {AT_FDCWD, plan.String("/proc/self/timens_offsets"),
             O_WRONLY | O_CLOEXEC, 0},
            "open(\"/proc/self/timens_offsets\")")
      .Into(file);
  plan.Call(SYS_write, {file, plan.String(offsets), offsets.size()},
            "write(\"/proc/self/timens_offsets\")")
      .Hint("ERANGE: a clock would be negative, or above 146 years");
  const Slot ns = plan.NewSlot();
  plan.Call(SYS_openat,
            {AT_FDCWD, plan.String("/proc/self/ns/time_for_children"),
             O_RDONLY | O_CLOEXEC, 0},
            "open(\"/proc/self/ns/time_for_children\")")
      .Into(ns);
  plan.Call(SYS_setns, {ns, CLONE_NEWTIME}, "setns(time namespace)");
}

absl::Status NamespaceSteps::AddRest(PlanBuilder& plan) const {
  if (options_.cgroup.is_new()) {
    plan.Call(SYS_unshare, {CLONE_NEWCGROUP}, "unshare(CLONE_NEWCGROUP)");
  }
  plan.Step("namespaces");
  if (options_.time.is_new()) AddTimeNamespace(plan);
  if (options_.user.valid()) {
    // From here on as the root of the user namespace: files that are made
    // below belong to it.
    plan.Call(SYS_setgroups, {0, 0}, "setgroups([])")
        .Tolerate(EPERM);  // denied in the user namespace
    plan.Call(SYS_setresgid, {0, 0, 0}, "setresgid(0)")
        .Hint("group 0 is not mapped in the user namespace");
    plan.Call(SYS_setresuid, {0, 0, 0}, "setresuid(0)")
        .Hint("user 0 is not mapped in the user namespace");
  }
  if (network_ != nullptr) {
    plan.Call(SYS_setns, {plan.Send(network_->netns()), CLONE_NEWNET},
              "setns(network namespace)")
        .Hint(
            "with a user namespace, make the network namespace with "
            "Launcher::NewNetNamespace(user namespace)");
  } else if ((clone_flags_ & CLONE_NEWNET) != 0) {
    AddLoopback(plan);
  }
  AddName(plan, SYS_sethostname, "sethostname()", options_.hostname);
  AddName(plan, SYS_setdomainname, "setdomainname()", options_.domainname);
  return AddSysctls(plan, options_);
}

ContainerNamespaces NamespaceSteps::container() const {
  ContainerNamespaces in;
  uint64_t& own = options_.user.valid() ? in.second : in.first;
  own = clone_flags_ & kNewNamespaces;
  if (options_.cgroup.is_new()) own |= CLONE_NEWCGROUP;
  if (options_.time.is_new()) own |= CLONE_NEWTIME;
  if (options_.user.valid()) own |= CLONE_NEWUSER;
  for (const Join& join : joins_) {
    (join.of_user_namespace ? in.second : in.first) |=
        static_cast<uint64_t>(join.flag);
  }
  if (network_ != nullptr) {
    const bool of_user = options_.user.valid() &&
                         BelongsTo(network_->netns(), options_.user.borrow());
    (of_user ? in.second : in.first) |= CLONE_NEWNET;
  }
  return in;
}

}  // namespace caisson::launcher
