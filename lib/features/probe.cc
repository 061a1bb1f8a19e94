#include "lib/features/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "lib/sys/raw_clone.h"

namespace caisson::features {
namespace {

constexpr size_t kStackSize = 32 << 10;
constexpr size_t kMaxLinks = 8;
constexpr size_t kMaxRequest = 128;
constexpr size_t kMaxKind = 32;

// One netlink request and what the kernel said.
struct Request {
  alignas(8) char bytes[kMaxRequest];
  size_t size = 0;
  int protocol = 0;
  volatile int error = kNotTried;
};

struct Job {
  bool overlay;
  size_t request_count;
  Request requests[kMaxLinks + 1];
  volatile int mount_namespace = kNotTried;
  volatile int net_namespace = kNotTried;
  volatile int tmpfs = kNotTried;
  volatile int clone_detached = kNotTried;
  volatile int overlay_open = kNotTried;
  volatile int overlay_by_fd = kNotTried;
  volatile int overlay_userxattr = kNotTried;
};

CAISSON_RAW int ErrnoOf(long result) { return result < 0 ? errno : 0; }

// The descriptor of a detached tmpfs, or negative.
CAISSON_RAW long NewTmpfs() {
  const long context = ::syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC);
  if (context < 0) return context;
  const long created = ::syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE,
                                 nullptr, nullptr, 0);
  if (created < 0) return created;
  return ::syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, 0);
}

CAISSON_RAW void TryMounts(Job& job) {
  const long tmpfs = NewTmpfs();
  job.tmpfs = ErrnoOf(tmpfs);
  if (tmpfs < 0) return;
  job.clone_detached =
      ErrnoOf(::syscall(SYS_open_tree, tmpfs, "",
                        AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
  if (!job.overlay) return;
  const long overlay = ::syscall(SYS_fsopen, "overlay", FSOPEN_CLOEXEC);
  job.overlay_open = ErrnoOf(overlay);
  if (overlay < 0) return;
  job.overlay_userxattr = ErrnoOf(::syscall(
      SYS_fsconfig, overlay, FSCONFIG_SET_FLAG, "userxattr", nullptr, 0));
  job.overlay_by_fd = ErrnoOf(::syscall(SYS_fsconfig, overlay, FSCONFIG_SET_FD,
                                        "lowerdir+", nullptr, tmpfs));
}

// The errno in the answer to `request`; the buffer is the request's own.
CAISSON_RAW int Ask(Request& request) {
  const long socket = ::syscall(SYS_socket, AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC,
                                request.protocol);
  if (socket < 0) return errno;
  int error = 0;
  if (::syscall(SYS_sendto, socket, request.bytes, request.size, 0, nullptr,
                0) < 0) {
    error = errno;
  } else {
    const long size = ::syscall(SYS_recvfrom, socket, request.bytes,
                                kMaxRequest, 0, nullptr, nullptr);
    const nlmsghdr* header = reinterpret_cast<const nlmsghdr*>(request.bytes);
    if (size < 0) {
      error = errno;
    } else if (header->nlmsg_type == NLMSG_ERROR) {
      error = -*reinterpret_cast<const int*>(request.bytes + NLMSG_HDRLEN);
    }
  }
  ::syscall(SYS_close, socket);
  return error;
}

CAISSON_RAW int Child(void* argument) {
  Job& job = *static_cast<Job*>(argument);
  job.mount_namespace = ErrnoOf(::syscall(SYS_unshare, CLONE_NEWNS));
  if (job.mount_namespace == 0) TryMounts(job);
  job.net_namespace = ErrnoOf(::syscall(SYS_unshare, CLONE_NEWNET));
  for (size_t i = 0; job.net_namespace == 0 && i < job.request_count; ++i) {
    job.requests[i].error = Ask(job.requests[i]);
  }
  ::syscall(SYS_exit, 0);
  return 0;
}

// RTM_NEWLINK of an interface of this kind.
void FillLink(const std::string& kind, Request& request) {
  struct {
    nlmsghdr header;
    ifinfomsg link;
    rtattr info;
    rtattr kind;
    char name[kMaxKind];
  } message = {};
  static_assert(sizeof(message) <= kMaxRequest);
  const size_t length = std::min(kind.size(), kMaxKind - 1) + 1;
  memcpy(message.name, kind.c_str(), length - 1);
  message.kind.rta_type = IFLA_INFO_KIND;
  message.kind.rta_len = static_cast<uint16_t>(RTA_LENGTH(length));
  message.info.rta_type = IFLA_LINKINFO;
  message.info.rta_len =
      static_cast<uint16_t>(RTA_LENGTH(RTA_ALIGN(message.kind.rta_len)));
  request.size =
      offsetof(decltype(message), info) + RTA_ALIGN(message.info.rta_len);
  message.header.nlmsg_type = RTM_NEWLINK;
  message.header.nlmsg_flags =
      NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
  message.header.nlmsg_len = static_cast<uint32_t>(request.size);
  memcpy(request.bytes, &message, sizeof(message));
  request.protocol = NETLINK_ROUTE;
}

// NFT_MSG_GETGEN: reads a number that every nf_tables has.
void FillNfTables(Request& request) {
  struct {
    nlmsghdr header;
    nfgenmsg family;
  } message = {};
  message.header.nlmsg_type = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN;
  message.header.nlmsg_flags = NLM_F_REQUEST;
  message.header.nlmsg_len = sizeof(message);
  memcpy(request.bytes, &message, sizeof(message));
  request.size = sizeof(message);
  request.protocol = NETLINK_NETFILTER;
}

}  // namespace

ProbeResult Probe(const ProbeOptions& options) {
  ProbeResult result;
  Job job = {.overlay = options.overlay, .request_count = 0};
  const size_t links = std::min(options.link_kinds.size(), kMaxLinks);
  for (size_t i = 0; i < links; ++i) {
    FillLink(options.link_kinds[i], job.requests[job.request_count++]);
  }
  if (options.nf_tables) FillNfTables(job.requests[job.request_count++]);

  void* stack = ::mmap(nullptr, kStackSize, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
  if (stack == MAP_FAILED) return result;
  // A handler of the host must not run in a child that shares its memory.
  sigset_t all;
  sigset_t saved;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &saved);
  // Exit signal 0: the caller gets no SIGCHLD, and only __WALL waits for it.
  const pid_t pid = sys::RawClone(
      Child, static_cast<char*>(stack) + kStackSize,
      CLONE_VM | CLONE_VFORK | (options.user_namespace ? CLONE_NEWUSER : 0),
      &job);
  result.clone = pid < 0 ? errno : 0;
  if (pid >= 0) {
    while (::waitpid(pid, nullptr, __WALL) < 0 && errno == EINTR) {
    }
  }
  ::pthread_sigmask(SIG_SETMASK, &saved, nullptr);
  ::munmap(stack, kStackSize);

  result.mount_namespace = job.mount_namespace;
  result.net_namespace = job.net_namespace;
  result.tmpfs = job.tmpfs;
  result.clone_detached = job.clone_detached;
  result.overlay = job.overlay_open;
  result.overlay_by_fd = job.overlay_by_fd;
  result.overlay_userxattr = job.overlay_userxattr;
  for (size_t i = 0; i < links; ++i) {
    const int error = job.requests[i].error;
    result.links.push_back(error);
  }
  if (options.nf_tables) {
    result.nf_tables = job.requests[job.request_count - 1].error;
  }
  return result;
}

}  // namespace caisson::features
