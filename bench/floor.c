/* The floor: starts a container of the shape that bench/worker starts, with the
 * system calls that this takes and nothing else. What the two have in common
 * and what is left out here is in README.md.
 *
 * Like the worker it does one start for each byte on standard input and answers
 * how long it took, in nanoseconds, as 8 bytes. */
#define _GNU_SOURCE
#include "bench/floor.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define OPEN_TREE_ATTR 467 /* SYS_open_tree_attr, Linux 6.15 */
#define DETACH 2 /* MNT_DETACH; <sys/mount.h> and <linux/mount.h> ... */
#define PRIVATE (1 << 18) /* ... cannot be had together */
#define RECURSIVE (1 << 14)
#define NOSUID 2
#define NODEV 4
#define NOEXEC 8
#define NO_PRIVILEGES (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)

/* Docker's 14, as SecurityPolicy has them. */
#define CAPABILITIES 0xa80425fbu

static const struct sock_filter kFilter[] = {
#include "bench/policy.inc"
};

static const char kUsage[] =
    "usage: floor ROOT [--net] [--throughput | --latencies]\n"
    "\n"
    "Starts the program /true of the directory ROOT with the system calls "
    "that\n"
    "a container takes, waits for its end and removes everything, once for "
    "each\n"
    "byte on standard input. Answers each with its duration in ns (8 bytes).\n"
    "\n"
    "  --net         with a veth pair in a bridge\n"
    "  --throughput  8 processes do 5 starts each at once, without --net; the\n"
    "                answer is a 40th of the time\n"
    "  --latencies   instead, start 200 times and print the median of each "
    "step\n";

enum { kWorkers = 8, kStartsOfWorker = 5 };

static bool with_network;
static pid_t own_pid;
static int null_device, last_capability;
static uint32_t capabilities;

/* ---- Errors ---- */

static int error_output;

static void CleanUp(void) {
  if (getpid() != own_pid) return;
  if (with_network) CloseNetwork();
  CloseCgroups();
}

long Must(long result, const char* call) {
  if (result >= 0) return result;
  dprintf(error_output, "floor: %s: %s\n", call, strerror(errno));
  if (getpid() != own_pid) _exit(1);
  exit(1);
}

/* ---- Latencies ---- */

enum Step {
  kBegin,
  kNetwork,
  kScratch,
  kOverlay,
  kAttach,
  kCgroup,
  kUser,
  kClone,
  kJoin,
  kMounts,
  kPivot,
  kSecurity,
  kExit,
  kRemove,
  kSteps
};

static const char* const kStepNames[] = {
    "",      "network", "scratch", "overlay", "attach",   "cgroup", "user",
    "clone", "join",    "mounts",  "pivot",   "security", "exit",   "remove"};

static uint64_t* times; /* shared with the container's process; or NULL */

static uint64_t Now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void Mark(enum Step step) {
  if (times != NULL) times[step] = Now();
}

/* ---- System calls ---- */

static int NewFileSystem(const char* type) {
  return (int)MUST(syscall(SYS_fsopen, type, FSOPEN_CLOEXEC));
}

static void SetString(int context, const char* key, const char* value) {
  MUST(syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, key, value, 0));
}

static void SetFd(int context, const char* key, int fd) {
  MUST(syscall(SYS_fsconfig, context, FSCONFIG_SET_FD, key, NULL, fd));
}

static int Mount(int context, unsigned attributes) {
  MUST(syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
  return (int)MUST(syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, attributes));
}

/* Of the namespaces of the caller. */
static int MountSystem(const char* type, unsigned attributes) {
  const int context = NewFileSystem(type);
  SetString(context, "source", type);
  return Mount(context, attributes);
}

static void Attach(int mount, int dir, const char* path) {
  MUST(syscall(SYS_move_mount, mount, "", dir, path, MOVE_MOUNT_F_EMPTY_PATH));
}

static int Clone(int dir, const char* path) {
  return (int)MUST(
      syscall(SYS_open_tree, dir, path,
              OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW));
}

static int CloneReadOnly(int dir, const char* path) {
  const struct mount_attr attributes = {.attr_set = MOUNT_ATTR_RDONLY};
  return (int)MUST(
      syscall(OPEN_TREE_ATTR, dir, path,
              OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW,
              &attributes, sizeof(attributes)));
}

void WriteAt(int dir, const char* path, int flags, const void* data,
             size_t size) {
  const int file = (int)MUST(openat(dir, path, flags | O_CLOEXEC, 0644));
  MUST(write(file, data, size));
  close(file);
}

/* ---- What is made once ---- */

struct Path {
  bool system; /* below /sys; else below /proc */
  const char* path;
  bool exists;
};

/* As RootFs has them, and like there without what this kernel lacks. */
static struct Path masked_files[] = {
    {false, "kcore", false},         {false, "keys", false},
    {false, "latency_stats", false}, {false, "timer_list", false},
    {false, "interrupts", false},
};
static struct Path masked_directories[] = {
    {false, "acpi", false},    {false, "asound", false},
    {false, "scsi", false},    {true, "devices/virtual/powercap", false},
    {true, "firmware", false},
};
static struct Path read_only_paths[] = {
    {false, "bus", false},           {false, "fs", false},
    {false, "irq", false},           {false, "sys", false},
    {false, "sysrq-trigger", false},
};

#define EACH(path, paths)           \
  for (struct Path* path = (paths); \
       path < (paths) + sizeof(paths) / sizeof((paths)[0]); ++path)

static void LookFor(struct Path* path) {
  char full[64];
  snprintf(full, sizeof(full), "/%s/%s", path->system ? "sys" : "proc",
           path->path);
  path->exists = faccessat(AT_FDCWD, full, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* A mount namespace with nothing but the layer, so that no start has to copy
 * the mounts of the machine. Returns the layer. */
static int IsolateMounts(const char* root) {
  MUST(unshare(CLONE_NEWNS));
  MUST(syscall(SYS_mount, NULL, "/", NULL, PRIVATE | RECURSIVE, NULL));
  const int layer = Clone(AT_FDCWD, root);
  const int top = Mount(NewFileSystem("tmpfs"), 0);
  Attach(top, AT_FDCWD, "/");
  MUST(fchdir(top));
  MUST(mkdirat(top, "proc", 0555));
  MUST(mkdirat(top, "sys", 0555));
  MUST(mkdirat(top, "layer", 0555));
  Attach(MountSystem("proc", NO_PRIVILEGES), top, "proc");
  Attach(MountSystem("sysfs", NO_PRIVILEGES), top, "sys");
  Attach(layer, top, "layer");
  MUST(syscall(SYS_pivot_root, ".", "."));
  MUST(syscall(SYS_umount2, ".", DETACH));
  MUST(chdir("/"));
  return layer;
}

static void FindCapabilities(void) {
  while (prctl(PR_CAPBSET_READ, last_capability + 1) >= 0) ++last_capability;
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct sets[2];
  MUST(syscall(SYS_capget, &header, sets));
  capabilities = CAPABILITIES & sets[0].permitted;
}

/* ---- One start ---- */

struct Root {
  int scratch, dev, overlay;
};

static void WriteEtcFile(const struct Root* root, const char* name,
                         const char* place, const char* text) {
  WriteAt(root->scratch, name, O_WRONLY | O_CREAT | O_EXCL, text, strlen(text));
  Attach(Clone(root->scratch, name), root->overlay, place);
}

static void MakeScratch(struct Root* root) {
  const int context = NewFileSystem("tmpfs");
  SetString(context, "source", "tmpfs");
  SetString(context, "mode", "0755");
  root->scratch = Mount(context, MOUNT_ATTR_NOSUID);
  MUST(mkdirat(root->scratch, "dev", 0755));
  root->dev = Clone(root->scratch, "dev");
  static const struct {
    const char* name;
    unsigned major, minor;
  } nodes[] = {{"null", 1, 3},   {"zero", 1, 5},    {"full", 1, 7},
               {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}};
  for (size_t i = 0; i < sizeof(nodes) / sizeof(nodes[0]); ++i) {
    MUST(mknodat(root->dev, nodes[i].name, S_IFCHR | 0666,
                 makedev(nodes[i].major, nodes[i].minor)));
  }
  MUST(symlinkat("/proc/self/fd", root->dev, "fd"));
  MUST(symlinkat("/proc/self/fd/0", root->dev, "stdin"));
  MUST(symlinkat("/proc/self/fd/1", root->dev, "stdout"));
  MUST(symlinkat("/proc/self/fd/2", root->dev, "stderr"));
  MUST(symlinkat("pts/ptmx", root->dev, "ptmx"));
  MUST(mkdirat(root->dev, "pts", 0755));
  MUST(mkdirat(root->dev, "shm", 0755));
  MUST(mkdirat(root->dev, "mqueue", 0755));
  MUST(mkdirat(root->scratch, "upper", 0755));
  MUST(mkdirat(root->scratch, "work", 0700));
}

static void MakeOverlay(struct Root* root, int layer) {
  const int flags = O_PATH | O_DIRECTORY | O_CLOEXEC;
  const int upper = (int)MUST(openat(root->scratch, "upper", flags));
  const int work = (int)MUST(openat(root->scratch, "work", flags));
  const int context = NewFileSystem("overlay");
  SetFd(context, "lowerdir+", layer);
  SetString(context, "source", "overlay");
  SetString(context, "redirect_dir", "nofollow");
  SetString(context, "metacopy", "off");
  SetString(context, "index", "off");
  SetString(context, "xino", "off");
  SetFd(context, "upperdir", upper);
  SetFd(context, "workdir", work);
  MUST(syscall(SYS_fsconfig, context, FSCONFIG_SET_FLAG, "volatile", NULL, 0));
  root->overlay = Mount(context, MOUNT_ATTR_NODEV);
}

static void AttachToRoot(const struct Root* root) {
  Attach(root->dev, root->overlay, "dev");
  const int context = NewFileSystem("tmpfs");
  SetString(context, "source", "shm");
  SetString(context, "mode", "1777");
  SetString(context, "size", "67108864");
  Attach(Mount(context, NO_PRIVILEGES), root->overlay, "dev/shm");
  WriteEtcFile(root, "hostname", "etc/hostname", "bench\n");
  WriteEtcFile(root, "hosts", "etc/hosts",
               "127.0.0.1\tlocalhost\n"
               "::1\tlocalhost ip6-localhost ip6-loopback\n"
               "fe00::\tip6-localnet\nff00::\tip6-mcastprefix\n"
               "ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
               "127.0.0.1\tbench\n");
  WriteEtcFile(root, "resolv.conf", "etc/resolv.conf", "");
}

/* The container's user is looked up in its own files. */
static void ReadFile(int dir, const char* path) {
  char text[4096];
  const int file = (int)MUST(openat(dir, path, O_RDONLY | O_CLOEXEC));
  MUST(read(file, text, sizeof(text)));
  close(file);
}

static void JoinNamespaces(const struct Cgroup* cgroup, int netns) {
  for (int i = 0; i < 2; ++i) {
    if (cgroup->join[i] >= 0) MUST(write(cgroup->join[i], "0", 1));
  }
  MUST(unshare(CLONE_NEWCGROUP));
  if (netns >= 0) {
    MUST(setns(netns, CLONE_NEWNET));
    return;
  }
  const int control = (int)MUST(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  struct ifreq loopback = {.ifr_name = "lo"};
  loopback.ifr_flags = IFF_UP | IFF_RUNNING;
  MUST(ioctl(control, SIOCSIFFLAGS, &loopback));
}

static void EnterMounts(const struct Root* root, bool own_cgroup2) {
  const int proc = MountSystem("proc", NO_PRIVILEGES);
  const int sys = MountSystem("sysfs", NO_PRIVILEGES | MOUNT_ATTR_RDONLY);
  Attach(root->overlay, AT_FDCWD, "/");
  /* Goes with the old root, below which it lies from here on. */
  Attach(root->scratch, AT_FDCWD, "/sys");
  Attach(proc, root->overlay, "proc");
  Attach(sys, root->overlay, "sys");
  if (own_cgroup2) {
    Attach(MountSystem("cgroup2", NO_PRIVILEGES | MOUNT_ATTR_RDONLY), sys,
           "fs/cgroup");
  }
  MUST(fchdir(root->dev));
  MUST(syscall(SYS_mount, "devpts", "pts", "devpts", NOSUID | NOEXEC,
               "newinstance,ptmxmode=0666,mode=0620,gid=5"));
  MUST(syscall(SYS_mount, "mqueue", "mqueue", "mqueue", NOSUID | NODEV | NOEXEC,
               NULL));
  EACH(path, masked_files) {
    if (!path->exists) continue;
    Attach(Clone(root->dev, "null"), path->system ? sys : proc, path->path);
  }
  EACH(path, masked_directories) {
    if (!path->exists) continue;
    Attach(CloneReadOnly(root->scratch, "dev/mqueue"),
           path->system ? sys : proc, path->path);
  }
  EACH(path, read_only_paths) {
    if (!path->exists) continue;
    const int tree = path->system ? sys : proc;
    Attach(CloneReadOnly(tree, path->path), tree, path->path);
  }
}

static void Pivot(const struct Root* root) {
  MUST(fchdir(root->overlay));
  MUST(syscall(SYS_pivot_root, ".", "."));
  MUST(syscall(SYS_umount2, ".", DETACH));
}

static void Restrict(void) {
  for (int i = 0; i < 3; ++i) MUST(dup3(null_device, i, 0));
  MUST(setsid());
  signal(SIGPIPE, SIG_DFL); /* which bench/compare ignores */
  for (int i = 0; i <= last_capability; ++i) {
    if (i < 32 && (capabilities >> i & 1) != 0) continue;
    MUST(prctl(PR_CAPBSET_DROP, i, 0, 0, 0));
  }
  const gid_t group = 0;
  MUST(syscall(SYS_setgroups, 1, &group));
  MUST(syscall(SYS_setresgid, 0, 0, 0));
  MUST(syscall(SYS_setresuid, 0, 0, 0));
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct sets[2] = {{capabilities, capabilities, 0}};
  MUST(syscall(SYS_capset, &header, sets));
  MUST(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0));
  umask(022);
  MUST(prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0));
  MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
  const struct sock_fprog program = {
      .len = sizeof(kFilter) / sizeof(kFilter[0]),
      .filter = (struct sock_filter*)kFilter};
  MUST(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program));
}

static pid_t CloneProcess(const struct Cgroup* cgroup) {
  int pidfd = -1;
  struct clone_args args = {
      .flags = CLONE_PIDFD | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC |
               CLONE_NEWPID,
      .pidfd = (uint64_t)(uintptr_t)&pidfd,
      .exit_signal = SIGCHLD,
  };
  if (!with_network) args.flags |= CLONE_NEWNET;
  if (cgroup->directory >= 0) {
    args.flags |= CLONE_INTO_CGROUP;
    args.cgroup = (uint64_t)cgroup->directory;
  }
  return (pid_t)MUST(syscall(SYS_clone3, &args, sizeof(args)));
}

static void Start(int layer) {
  Mark(kBegin);
  const int netns = with_network ? MakeEndpoint() : -1;
  Mark(kNetwork);
  struct Root root;
  MakeScratch(&root);
  Mark(kScratch);
  MakeOverlay(&root, layer);
  Mark(kOverlay);
  AttachToRoot(&root);
  Mark(kAttach);
  const struct Cgroup cgroup = MakeCgroup();
  Mark(kCgroup);
  ReadFile(root.overlay, "etc/passwd");
  ReadFile(root.overlay, "etc/group");
  Mark(kUser);
  const pid_t pid = CloneProcess(&cgroup);
  if (pid == 0) {
    Mark(kClone);
    JoinNamespaces(&cgroup, netns);
    Mark(kJoin);
    EnterMounts(&root, cgroup.directory >= 0);
    Mark(kMounts);
    Pivot(&root);
    Mark(kPivot);
    Restrict();
    Mark(kSecurity);
    char* const argv[] = {"/true", NULL};
    char* const env[] = {
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME=/root", NULL};
    MUST(execve(argv[0], argv, env));
  }
  /* What was opened above. */
  MUST(close_range((unsigned)root.scratch, ~0u, 0));
  int status;
  MUST(waitpid(pid, &status, 0));
  errno = ECHILD;
  Must(status == 0 ? 0 : -1, "the container's process");
  Mark(kExit);
  RemoveCgroup();
  if (with_network) RemoveEndpoint();
  Mark(kRemove);
}

static void StartManyAtOnce(int layer) {
  pid_t workers[kWorkers];
  for (int i = 0; i < kWorkers; ++i) {
    workers[i] = (pid_t)MUST(fork());
    if (workers[i] != 0) continue;
    NameCgroup(i);
    for (int start = 0; start < kStartsOfWorker; ++start) Start(layer);
    _exit(0);
  }
  bool failed = false;
  for (int i = 0; i < kWorkers; ++i) {
    int status;
    MUST(waitpid(workers[i], &status, 0));
    failed = failed || status != 0;
  }
  errno = ECHILD;
  Must(failed ? -1 : 0, "a worker");
}

/* ---- The program ---- */

static int Compare(const void* a, const void* b) {
  const uint64_t x = *(const uint64_t*)a, y = *(const uint64_t*)b;
  return x < y ? -1 : x > y;
}

static void PrintLatencies(int layer) {
  enum { kRounds = 200 };
  static uint64_t durations[kSteps][kRounds];
  times = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
               -1, 0);
  for (int round = 0; round < kRounds; ++round) {
    Start(layer);
    for (int step = 1; step < kSteps; ++step) {
      durations[step][round] = times[step] - times[step - 1];
    }
  }
  for (int step = 1; step < kSteps; ++step) {
    qsort(durations[step], kRounds, sizeof(uint64_t), Compare);
    printf("%s\t%.1fus\n", kStepNames[step],
           (double)durations[step][kRounds / 2] / 1000);
  }
}

int main(int argc, char** argv) {
  const char* root = NULL;
  bool throughput = false, latencies = false;
  for (int i = 1; i < argc; ++i) {
    if (strcmp(argv[i], "--net") == 0) {
      with_network = true;
    } else if (strcmp(argv[i], "--throughput") == 0) {
      throughput = true;
    } else if (strcmp(argv[i], "--latencies") == 0) {
      latencies = true;
    } else if (root == NULL && argv[i][0] != '-') {
      root = argv[i];
    } else {
      fputs(kUsage, stderr);
      return strcmp(argv[i], "--help") == 0 ? 0 : 2;
    }
  }
  if (root == NULL || (throughput && (with_network || latencies))) {
    fputs(kUsage, stderr);
    return 2;
  }
  own_pid = getpid();
  umask(0);
  close_range(STDERR_FILENO + 1, ~0u, 0);
  error_output = (int)MUST(fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3));
  null_device = (int)MUST(open("/dev/null", O_RDWR | O_CLOEXEC));
  FindCapabilities();
  OpenCgroups();
  if (with_network) OpenNetwork();
  atexit(CleanUp);
  const int layer = IsolateMounts(root);
  EACH(path, masked_files) LookFor(path);
  EACH(path, masked_directories) LookFor(path);
  EACH(path, read_only_paths) LookFor(path);

  if (latencies) {
    PrintLatencies(layer);
    return 0;
  }
  char byte;
  while (read(STDIN_FILENO, &byte, 1) == 1) {
    const uint64_t begin = Now();
    if (throughput) {
      StartManyAtOnce(layer);
    } else {
      Start(layer);
    }
    uint64_t duration = Now() - begin;
    if (throughput) duration /= kWorkers * kStartsOfWorker;
    if (write(STDOUT_FILENO, &duration, sizeof(duration)) != sizeof(duration)) {
      break;
    }
  }
  return 0;
}
