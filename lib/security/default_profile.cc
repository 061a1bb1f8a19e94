#include "lib/security/default_profile.h"

#include <linux/capability.h>
#include <linux/personality.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cstdint>

namespace caisson::security {
namespace {

constexpr uint64_t Mask(int capability) { return uint64_t{1} << capability; }

constexpr absl::string_view kReadWrite[] = {
    "read",      "write",        "readv",           "writev",     "pread64",
    "pwrite64",  "preadv",       "pwritev",         "preadv2",    "pwritev2",
    "lseek",     "_llseek",      "sendfile",        "sendfile64", "splice",
    "tee",       "vmsplice",     "copy_file_range", "readahead",  "fadvise64",
    "cachestat", "fadvise64_64", "fsync",           "fdatasync",  "sync",
    "syncfs",    "truncate",     "sync_file_range", "truncate64", "ftruncate",
    "fallocate", "ftruncate64",
};

constexpr absl::string_view kDescriptors[] = {
    "open",    "openat",      "openat2", "creat", "name_to_handle_at",
    "close",   "close_range", "dup",     "dup2",  "dup3",
    "fcntl",   "fcntl64",     "flock",   "pipe",  "pipe2",
    "eventfd", "eventfd2",    "ioctl",
};

constexpr absl::string_view kPolling[] = {
    "poll",           "ppoll",       "ppoll_time64",    "select",
    "_newselect",     "pselect6",    "pselect6_time64", "epoll_create",
    "epoll_create1",  "epoll_ctl",   "epoll_ctl_old",   "epoll_wait",
    "epoll_wait_old", "epoll_pwait", "epoll_pwait2",
};

constexpr absl::string_view kDirectories[] = {
    "chdir",   "fchdir",   "getcwd",     "getdents",  "getdents64", "mkdir",
    "mkdirat", "rmdir",    "link",       "linkat",    "unlink",     "unlinkat",
    "rename",  "renameat", "renameat2",  "symlink",   "symlinkat",  "readlink",
    "mknod",   "mknodat",  "readlinkat", "listmount", "statmount",
};

constexpr absl::string_view kInodes[] = {
    "stat",       "stat64",     "lstat",
    "lstat64",    "fstat",      "fstat64",
    "fstatat64",  "newfstatat", "statx",
    "statfs",     "statfs64",   "fstatfs",
    "fstatfs64",  "access",     "faccessat",
    "faccessat2", "chmod",      "fchmod",
    "fchmodat",   "fchmodat2",  "chown",
    "chown32",    "fchown",     "fchown32",
    "fchownat",   "lchown",     "lchown32",
    "utime",      "utimes",     "futimesat",
    "utimensat",  "umask",      "utimensat_time64",
};

constexpr absl::string_view kExtendedAttributes[] = {
    "getxattr",    "lgetxattr",    "fgetxattr",    "getxattrat",
    "setxattr",    "lsetxattr",    "fsetxattr",    "setxattrat",
    "listxattr",   "llistxattr",   "flistxattr",   "listxattrat",
    "removexattr", "lremovexattr", "fremovexattr", "removexattrat",
};

// fanotify_init, which yields the descriptor, needs CAP_SYS_ADMIN.
constexpr absl::string_view kFileEvents[] = {
    "inotify_init",     "inotify_init1", "inotify_add_watch",
    "inotify_rm_watch", "fanotify_mark",
};

// Of libaio. io_uring is not here: its requests pass by every filter.
constexpr absl::string_view kAsynchronousIo[] = {
    "io_setup",
    "io_destroy",
    "io_submit",
    "io_cancel",
    "io_getevents",
    "io_pgetevents",
    "io_pgetevents_time64",
};

constexpr absl::string_view kMemory[] = {
    "brk",
    "mmap",
    "mmap2",
    "munmap",
    "mremap",
    "mprotect",
    "madvise",
    "mincore",
    "msync",
    "mlock",
    "mlock2",
    "mlockall",
    "munlock",
    "munlockall",
    "memfd_create",
    "memfd_secret",
    "pkey_alloc",
    "pkey_free",
    "remap_file_pages",
    "pkey_mprotect",
    "membarrier",
    "mseal",
    "map_shadow_stack",
};

constexpr absl::string_view kProcesses[] = {
    "fork",
    "vfork",
    "clone",
    "execve",
    "execveat",
    "exit",
    "exit_group",
    "wait4",
    "waitid",
    "waitpid",
    "getpid",
    "getppid",
    "gettid",
    "getpgid",
    "getpgrp",
    "setpgid",
    "getsid",
    "setsid",
    "pidfd_open",
    "set_tid_address",
    "pidfd_send_signal",
    "prctl",
    "personality",
    "process_mrelease",
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
};

// Threads, and what a C library needs for them.
constexpr absl::string_view kThreads[] = {
    "futex",
    "futex_time64",
    "futex_waitv",
    "futex_wait",
    "futex_wake",
    "futex_requeue",
    "get_robust_list",
    "set_robust_list",
    "get_thread_area",
    "set_thread_area",
    "rseq",
    "restart_syscall",
};

constexpr absl::string_view kSignals[] = {
    "kill",
    "tkill",
    "tgkill",
    "pause",
    "signalfd",
    "signalfd4",
    "sigaltstack",
    "sigprocmask",
    "sigreturn",
    "rt_sigaction",
    "rt_sigpending",
    "rt_sigprocmask",
    "rt_sigqueueinfo",
    "rt_sigreturn",
    "rt_sigsuspend",
    "rt_sigtimedwait",
    "rt_sigtimedwait_time64",
    "rt_tgsigqueueinfo",
};

constexpr absl::string_view kScheduling[] = {
    "getcpu",
    "getpriority",
    "setpriority",
    "ioprio_get",
    "ioprio_set",
    "sched_yield",
    "sched_getaffinity",
    "sched_setaffinity",
    "sched_getattr",
    "sched_setattr",
    "sched_getparam",
    "sched_setparam",
    "sched_getscheduler",
    "sched_setscheduler",
    "sched_get_priority_max",
    "sched_get_priority_min",
    "sched_rr_get_interval",
    "sched_rr_get_interval_time64",
};

constexpr absl::string_view kResources[] = {
    "getrlimit", "setrlimit", "ugetrlimit", "prlimit64", "getrusage",
    "times",     "sysinfo",   "uname",      "getrandom",
};

constexpr absl::string_view kCredentials[] = {
    "getuid",      "getuid32",    "geteuid",    "geteuid32",   "getgid",
    "getgid32",    "getegid",     "getegid32",  "getresuid",   "getresuid32",
    "getresgid",   "getresgid32", "getgroups",  "getgroups32", "setuid",
    "setuid32",    "setgid",      "setgid32",   "setreuid",    "setreuid32",
    "setregid",    "setregid32",  "setresuid",  "setresuid32", "setresgid",
    "setresgid32", "setfsuid",    "setfsuid32", "setfsgid",    "setfsgid32",
    "setgroups",   "setgroups32", "capget",     "capset",
};

// What a process uses to give up more.
constexpr absl::string_view kSandboxing[] = {
    "seccomp",
    "landlock_create_ruleset",
    "landlock_add_rule",
    "landlock_restrict_self",
};

// The kernel lets only CAP_SYS_TIME set a clock by adjtimex and clock_adjtime;
// others may read it.
constexpr absl::string_view kTime[] = {
    "time",
    "gettimeofday",
    "clock_getres",
    "clock_getres_time64",
    "clock_gettime",
    "clock_gettime64",
    "clock_nanosleep",
    "clock_nanosleep_time64",
    "clock_adjtime",
    "clock_adjtime64",
    "adjtimex",
    "nanosleep",
    "alarm",
    "getitimer",
    "setitimer",
    "timer_create",
    "timer_delete",
    "timer_getoverrun",
    "timer_gettime",
    "timer_gettime64",
    "timer_settime",
    "timer_settime64",
    "timerfd_create",
    "timerfd_gettime",
    "timerfd_gettime64",
    "timerfd_settime",
    "timerfd_settime64",
};

// socketcall is i386's older way to all of them; its arguments lie behind a
// pointer, so that the rule for socket does not reach it.
constexpr absl::string_view kSockets[] = {
    "socket",      "socketpair",      "bind",       "connect",
    "listen",      "accept",          "accept4",    "shutdown",
    "getsockname", "getsockopt",      "setsockopt", "getpeername",
    "send",        "sendto",          "sendmsg",    "sendmmsg",
    "recv",        "recvfrom",        "recvmsg",    "recvmmsg",
    "socketcall",  "recvmmsg_time64",
};

constexpr absl::string_view kSystemVIpc[] = {
    "ipc",    "msgget", "msgctl", "msgrcv",     "msgsnd",
    "semget", "semctl", "semop",  "semtimedop", "semtimedop_time64",
    "shmget", "shmctl", "shmat",  "shmdt",
};

constexpr absl::string_view kMessageQueues[] = {
    "mq_open",      "mq_unlink",           "mq_getsetattr",
    "mq_notify",    "mq_timedreceive",     "mq_timedreceive_time64",
    "mq_timedsend", "mq_timedsend_time64",
};

constexpr absl::string_view kX86[] = {
    "arch_prctl",
    "modify_ldt",
    "uretprobe",
};

constexpr absl::string_view kArm[] = {
    "arm_fadvise64_64", "arm_sync_file_range", "breakpoint", "cacheflush",
    "set_tls",
};

constexpr absl::string_view kMounting[] = {
    "mount",      "umount", "umount2",  "mount_setattr",
    "move_mount", "fsopen", "fsmount",  "open_tree",
    "fsconfig",   "fspick", "quotactl", "quotactl_fd",
};

constexpr absl::string_view kAdministration[] = {
    "clone3",
    "setns",
    "unshare",
    "sethostname",
    "setdomainname",
    "fanotify_init",
    "lookup_dcookie",
    "lsm_get_self_attr",
    "lsm_set_self_attr",
    "lsm_list_modules",
};

constexpr absl::string_view kFileHandles[] = {"open_by_handle_at"};
constexpr absl::string_view kReboot[] = {"reboot"};
constexpr absl::string_view kChroot[] = {"chroot"};
constexpr absl::string_view kModules[] = {"init_module", "finit_module",
                                          "delete_module"};
constexpr absl::string_view kAccounting[] = {"acct"};
constexpr absl::string_view kTracing[] = {"kcmp", "pidfd_getfd",
                                          "process_madvise"};
constexpr absl::string_view kPorts[] = {"iopl", "ioperm"};
constexpr absl::string_view kClocks[] = {"settimeofday", "stime",
                                         "clock_settime", "clock_settime64"};
constexpr absl::string_view kTerminals[] = {"vhangup"};
constexpr absl::string_view kNuma[] = {"get_mempolicy", "set_mempolicy",
                                       "mbind", "set_mempolicy_home_node"};
constexpr absl::string_view kKernelLog[] = {"syslog"};
constexpr absl::string_view kBpf[] = {"bpf"};
constexpr absl::string_view kPerf[] = {"perf_event_open"};

constexpr SyscallGroup kAllowed[] = {
    {"reading and writing", 0, kReadWrite},
    {"file descriptors", 0, kDescriptors},
    {"polling", 0, kPolling},
    {"directories", 0, kDirectories},
    {"inodes", 0, kInodes},
    {"extended attributes", 0, kExtendedAttributes},
    {"file events", 0, kFileEvents},
    {"asynchronous I/O", 0, kAsynchronousIo},
    {"memory", 0, kMemory},
    {"processes", 0, kProcesses},
    {"threads", 0, kThreads},
    {"signals", 0, kSignals},
    {"scheduling", 0, kScheduling},
    {"resources", 0, kResources},
    {"credentials", 0, kCredentials},
    {"sandboxing", 0, kSandboxing},
    {"time", 0, kTime},
    {"sockets", 0, kSockets},
    {"System V IPC", 0, kSystemVIpc},
    {"POSIX message queues", 0, kMessageQueues},
    {"x86", 0, kX86},
    {"arm", 0, kArm},
    {"mounting", Mask(CAP_SYS_ADMIN), kMounting},
    {"administration", Mask(CAP_SYS_ADMIN), kAdministration},
    {"file handles", Mask(CAP_DAC_READ_SEARCH), kFileHandles},
    {"reboot", Mask(CAP_SYS_BOOT), kReboot},
    {"chroot", Mask(CAP_SYS_CHROOT), kChroot},
    {"kernel modules", Mask(CAP_SYS_MODULE), kModules},
    {"process accounting", Mask(CAP_SYS_PACCT), kAccounting},
    {"tracing", Mask(CAP_SYS_PTRACE), kTracing},
    {"I/O ports", Mask(CAP_SYS_RAWIO), kPorts},
    {"setting clocks", Mask(CAP_SYS_TIME), kClocks},
    {"terminals", Mask(CAP_SYS_TTY_CONFIG), kTerminals},
    {"NUMA policy", Mask(CAP_SYS_NICE), kNuma},
    {"kernel log", Mask(CAP_SYS_ADMIN) | Mask(CAP_SYSLOG), kKernelLog},
    {"bpf", Mask(CAP_SYS_ADMIN) | Mask(CAP_BPF), kBpf},
    {"perf", Mask(CAP_SYS_ADMIN) | Mask(CAP_PERFMON), kPerf},
};

constexpr absl::string_view kHidden[] = {"clone3"};

// No new namespaces. CLONE_NEWTIME is not here: to clone it is part of the exit
// signal.
constexpr uint32_t kNamespaceFlags =
    CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC |
    CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET;
static_assert(kNamespaceFlags == 0x7e020000);

// Linux, 32-bit Linux, each with or without UNAME26; and the query. Above all
// not READ_IMPLIES_EXEC or ADDR_NO_RANDOMIZE.
constexpr uint32_t kQueryPersonality = 0xffffffff;
constexpr uint32_t kOldLinux32 = uint32_t{UNAME26} | uint32_t{PER_LINUX32};
constexpr ValueRange kPersonalities[] = {
    {PER_LINUX, PER_LINUX},
    {PER_LINUX32, PER_LINUX32},
    {UNAME26, UNAME26},
    {kOldLinux32, kOldLinux32},
    {kQueryPersonality, kQueryPersonality},
};

constexpr ValueRange kTerminalInjection[] = {
    {TIOCSTI, TIOCSTI},
    {TIOCLINUX, TIOCLINUX},
};

// AF_VSOCK reaches the hypervisor and other guests whatever the network
// namespace; AF_ALG is a large part of the kernel that programs do without.
// Missing beside them: families that the kernel no longer has.
constexpr uint32_t kMctp = 45;  // AF_MCTP, 5.15
constexpr ValueRange kSocketFamilies[] = {
    {AF_UNSPEC, AF_ROSE},       {AF_NETBEUI, AF_ASH}, {AF_RDS, AF_SNA},
    {AF_PPPOX, AF_PPPOX},       {AF_LLC, AF_TIPC},    {AF_BLUETOOTH, AF_RXRPC},
    {AF_PHONET, AF_IEEE802154}, {AF_NFC, AF_NFC},     {AF_KCM, kMctp},
};

// Set in the types S_IFCHR and S_IFBLK and in no other that can be created.
// Docker lets a container make any device node and refuses to open it, by a
// rule of the control group; here there is none to open.
constexpr uint32_t kDeviceBit = S_IFCHR;
static_assert((S_IFBLK & kDeviceBit) != 0 && (S_IFIFO & kDeviceBit) == 0 &&
              (S_IFREG & kDeviceBit) == 0 && (S_IFSOCK & kDeviceBit) == 0);

constexpr ArgumentRule kArgumentRules[] = {
    {.name = "mknod",
     .unless_capabilities = 0,
     .argument = 1,
     .denied_bits = kDeviceBit,
     .listed = Answer::kAllow,
     .other = Answer::kAllow,
     .values = {}},
    {.name = "mknodat",
     .unless_capabilities = 0,
     .argument = 2,
     .denied_bits = kDeviceBit,
     .listed = Answer::kAllow,
     .other = Answer::kAllow,
     .values = {}},
    {.name = "clone",
     .unless_capabilities = Mask(CAP_SYS_ADMIN),
     .argument = 0,
     .denied_bits = kNamespaceFlags,
     .listed = Answer::kAllow,
     .other = Answer::kAllow,
     .values = {}},
    {.name = "personality",
     .unless_capabilities = 0,
     .argument = 0,
     .denied_bits = 0,
     .listed = Answer::kAllow,
     .other = Answer::kEperm,
     .values = kPersonalities},
    {.name = "socket",
     .unless_capabilities = 0,
     .argument = 0,
     .denied_bits = 0,
     .listed = Answer::kAllow,
     .other = Answer::kEperm,
     .values = kSocketFamilies},
    {.name = "ioctl",
     .unless_capabilities = 0,
     .argument = 1,
     .denied_bits = 0,
     .listed = Answer::kEperm,
     .other = Answer::kAllow,
     .values = kTerminalInjection},
};

}  // namespace

absl::Span<const SyscallGroup> AllowedGroups() { return kAllowed; }

absl::Span<const absl::string_view> HiddenCalls() { return kHidden; }

absl::Span<const ArgumentRule> ArgumentRules() { return kArgumentRules; }

}  // namespace caisson::security
