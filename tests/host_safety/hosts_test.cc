// Hosts that are unusual processes: whatever they are, they remain it.
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "caisson/caisson.h"
#include "gtest/gtest.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/sys/open.h"
#include "tests/host_safety/scenario.h"
#include "tests/host_safety/workload.h"
#include "tests/support/test_root.h"

namespace caisson {
namespace {

using ::caisson::testing::LeavesTheHostAlone;
using ::caisson::testing::Passes;
using ::caisson::testing::StartMany;
using ::caisson::testing::TestRoot;

constexpr int kStarts = 60;

absl::Status StartsAndStaysAsItWas() {
  const TestRoot root;
  return LeavesTheHostAlone([&] { return StartMany(root, kStarts); });
}

// The kernel collects the children of such a process: a library that waited for
// a child of its own would get ECHILD.
absl::Status IgnoresSigchld() {
  ::signal(SIGCHLD, SIG_IGN);
  return StartsAndStaysAsItWas();
}

absl::Status CollectsNothing() {
  struct sigaction action = {};
  action.sa_handler = SIG_DFL;
  action.sa_flags = SA_NOCLDWAIT;
  ::sigaction(SIGCHLD, &action, nullptr);
  return StartsAndStaysAsItWas();
}

absl::Status BlocksAllSignals() {
  sigset_t all;
  ::sigfillset(&all);
  ::sigprocmask(SIG_BLOCK, &all, nullptr);
  return StartsAndStaysAsItWas();
}

// The numbers below 1024, which select(2) could take, are all in use, and none
// of what is open may get into a container or be closed.
absl::Status HasManyDescriptors() {
  const rlimit many = {8192, 8192};
  if (::setrlimit(RLIMIT_NOFILE, &many) != 0) {
    return absl::InternalError("setrlimit");
  }
  const TestRoot root;
  int fd = -1;
  while (fd < 1500) {
    // Without O_CLOEXEC.
    if ((fd = ::open("/dev/null", O_RDONLY)) < 0) {
      return absl::InternalError("open");
    }
  }
  return LeavesTheHostAlone([&] { return StartMany(root, kStarts); });
}

absl::Status HasNoStreams() {
  const TestRoot root;
  const int err = ::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 10);
  for (const int fd : {0, 1, 2}) ::close(fd);
  const absl::Status status =
      LeavesTheHostAlone([&] { return StartMany(root, kStarts); });
  ::dup2(err, STDERR_FILENO);
  return status;
}

// A keeper is no more the host's than a launcher is, and a container gets as
// little of all this from it.
absl::Status KeepsContainers() {
  ::signal(SIGCHLD, SIG_IGN);
  ::signal(SIGPIPE, SIG_IGN);
  sigset_t all;
  ::sigfillset(&all);
  ::sigprocmask(SIG_BLOCK, &all, nullptr);
  ::umask(0777);
  const TestRoot root;
  while (true) {
    const int fd = ::open("/dev/null", O_RDONLY);
    if (fd < 0) return absl::InternalError("open");
    if (fd > 100) break;
  }
  const int err = ::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 10);
  for (const int fd : {0, 1, 2}) ::close(fd);
  const absl::Status status =
      LeavesTheHostAlone([&] { return testing::KeepOne(root); });
  ::dup2(err, STDERR_FILENO);
  return status;
}

// Orphans become its children, the launcher among them.
absl::Status IsSubreaper() {
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  return StartsAndStaysAsItWas();
}

// As init programs do: collects whatever there is, also what is not its own.
absl::Status IsGreedySubreaper() {
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  const TestRoot root;
  // The C library's first thread installs a signal handler.
  std::thread([] {}).join();
  return LeavesTheHostAlone([&] {
    std::atomic<bool> stop{false};
    std::thread collector([&stop] {
      while (!stop) {
        if (::waitpid(-1, nullptr, WNOHANG) <= 0) ::usleep(200);
      }
      while (::waitpid(-1, nullptr, 0) > 0) {
      }
    });
    const absl::Status status = StartMany(root, kStarts);
    stop = true;
    collector.join();
    return status;
  });
}

// Runs `host` in a child; what failed is on standard error. LeakSanitizer looks
// at the caller alone: it needs ptrace(2) and a thread, which these cannot
// have.
absl::Status InChild(const std::function<absl::Status()>& host) {
  const pid_t child = ::fork();
  if (child == 0) {
    const absl::Status status = host();
    if (!status.ok()) fprintf(stderr, "%s\n", status.ToString().c_str());
    ::_exit(status.ok() ? 0 : 1);
  }
  int status = -1;
  if (::waitpid(child, &status, 0) != child || status != 0) {
    return absl::InternalError(absl::StrCat("wait status ", status));
  }
  return absl::OkStatus();
}

// A mount namespace whose mounts the machine never sees.
absl::Status UnshareMounts(int more_flags = 0) {
  if (::unshare(CLONE_NEWNS | more_flags) != 0) {
    return ErrnoError(errno, "unshare");
  }
  if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    return ErrnoError(errno, "mount(private)");
  }
  return absl::OkStatus();
}

absl::Status MountProc(const std::string& target) {
  if (::mount("proc", target.c_str(), "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC,
              nullptr) != 0) {
    return ErrnoError(errno, absl::StrCat("mount(", target, ")"));
  }
  return absl::OkStatus();
}

absl::Status IsPid1() {
  return InChild([]() -> absl::Status {
    RETURN_IF_ERROR(UnshareMounts(CLONE_NEWPID));
    return InChild([]() -> absl::Status {
      if (::getpid() != 1) return absl::InternalError("not PID 1");
      RETURN_IF_ERROR(MountProc("/proc"));
      return StartsAndStaysAsItWas();
    });
  });
}

constexpr char kProbe[] = "tests/support/syscall_probe";

// A container has root's right to chroot, with which its working directory gets
// out of its root. Above that there must be nothing, the machine's /usr least
// of all.
absl::Status ContainersStayInside(BorrowedFd probe) {
  const TestRoot root;
  ASSIGN_OR_RETURN(const std::string program,
                   sys::ReadAll(probe, /*max_size=*/16 << 20, "probe"));
  root.Write("bin/probe", program);
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) return ErrnoError(errno, "pipe2");
  const UniqueFd reader(fds[0]);
  UniqueFd writer(fds[1]);
  ASSIGN_OR_RETURN(Launcher launcher, Launcher::Create());
  ASSIGN_OR_RETURN(RootFs tree, RootFs::Create(root.Options()));
  const auto number = [](long call) { return absl::StrCat(call); };
  ProcessSpec spec;
  spec.root = &tree;
  spec.argv = {"probe",
               number(SYS_chroot),
               "s:/tmp",
               ",",
               number(SYS_chdir),
               "s:../../../../../../../../../..",
               ",",
               number(SYS_faccessat),
               "-100",
               "s:bin/probe",
               "0",
               ",",
               number(SYS_faccessat),
               "-100",
               "s:usr",
               "0"};
  spec.out = Stdio::Inherit(writer.borrow());
  ASSIGN_OR_RETURN(const Process process, launcher.Start(spec));
  writer.reset();
  ASSIGN_OR_RETURN(const std::string seen,
                   sys::ReadAll(reader.borrow(), /*max_size=*/4096, "output"));
  RETURN_IF_ERROR(process.Wait().status());
  if (seen == "0\n0\n0\n-2\n") return launcher.Shutdown();
  return absl::InternalError(absl::StrCat("a container got out: ", seen));
}

absl::StatusOr<UniqueFd> OpenProbe() {
  UniqueFd probe(::open(kProbe, O_RDONLY | O_CLOEXEC));
  if (!probe.valid()) return ErrnoError(errno, kProbe);
  return probe;
}

absl::Status Chroot(const std::string& path) {
  if (::chroot(path.c_str()) != 0 || ::chdir("/") != 0) {
    return ErrnoError(errno, "chroot");
  }
  ::unsetenv("TEST_TMPDIR");
  return absl::OkStatus();
}

// In a directory that is no mount point and has nothing but busybox and /proc.
// Another process removes it, in whose namespace nothing is mounted there.
absl::Status IsChrooted() {
  const TestRoot host_root;
  const std::string proc = host_root.path() + "/proc";
  if (::mkdir(proc.c_str(), 0555) != 0) return ErrnoError(errno, "mkdir");
  return InChild([&]() -> absl::Status {
    RETURN_IF_ERROR(UnshareMounts());
    RETURN_IF_ERROR(MountProc(proc));
    ASSIGN_OR_RETURN(const UniqueFd probe, OpenProbe());
    RETURN_IF_ERROR(Chroot(host_root.path()));
    RETURN_IF_ERROR(StartsAndStaysAsItWas());
    return ContainersStayInside(probe.borrow());
  });
}

// In a tmpfs that has nothing but busybox and /proc, mounted on a directory of
// an empty root. Another process removes that, in whose namespace nothing is
// mounted there.
absl::Status IsChrootedToMount() {
  const TestRoot outer;
  return InChild([&]() -> absl::Status {
    RETURN_IF_ERROR(UnshareMounts());
    const std::string busybox = outer.path() + "/bin/busybox";
    const UniqueFd program(::open(busybox.c_str(), O_RDONLY | O_CLOEXEC));
    if (::mount("tmpfs", outer.path().c_str(), "tmpfs", 0, nullptr) != 0) {
      return ErrnoError(errno, "mount(tmpfs)");
    }
    ASSIGN_OR_RETURN(const UniqueFd probe, OpenProbe());
    RETURN_IF_ERROR(Chroot(outer.path()));
    for (const char* name : {"/bin", "/proc", "/tmp"}) ::mkdir(name, 0755);
    const UniqueFd copy(
        ::open("/bin/busybox", O_WRONLY | O_CREAT | O_CLOEXEC, 0755));
    while (::sendfile(copy.get(), program.get(), nullptr, 1 << 20) > 0) {
    }
    RETURN_IF_ERROR(MountProc("/proc"));
    RETURN_IF_ERROR(StartsAndStaysAsItWas());
    return ContainersStayInside(probe.borrow());
  });
}

// As hosts in containers have it.
absl::Status LoadFilter() {
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ptrace, 3, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 2, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_userfaultfd, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
  };
  const sock_fprog program = {sizeof(code) / sizeof(code[0]), code};
  ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  if (::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
    return ErrnoError(errno, "prctl(PR_SET_SECCOMP)");
  }
  return absl::OkStatus();
}

absl::Status HasFilter() {
  const TestRoot root;
  return InChild([&]() -> absl::Status {
    RETURN_IF_ERROR(LoadFilter());
    return LeavesTheHostAlone([&] { return StartMany(root, kStarts); });
  });
}

TEST(HostsTest, IgnoresSigchld) { EXPECT_TRUE(Passes("ignores SIGCHLD")); }
TEST(HostsTest, CollectsNothing) { EXPECT_TRUE(Passes("collects nothing")); }
TEST(HostsTest, BlocksAllSignals) { EXPECT_TRUE(Passes("blocks signals")); }
TEST(HostsTest, HasManyDescriptors) { EXPECT_TRUE(Passes("descriptors")); }
TEST(HostsTest, HasNoStreams) { EXPECT_TRUE(Passes("no streams")); }
TEST(HostsTest, KeepsContainers) { EXPECT_TRUE(Passes("containers")); }
TEST(HostsTest, IsSubreaper) { EXPECT_TRUE(Passes("subreaper")); }
TEST(HostsTest, IsGreedySubreaper) { EXPECT_TRUE(Passes("greedy subreaper")); }
TEST(HostsTest, IsPid1) { EXPECT_TRUE(Passes("pid 1")); }
TEST(HostsTest, IsChrooted) { EXPECT_TRUE(Passes("chroot")); }
TEST(HostsTest, IsChrootedToMount) { EXPECT_TRUE(Passes("chroot to mount")); }
TEST(HostsTest, HasFilter) { EXPECT_TRUE(Passes("filter")); }

}  // namespace
}  // namespace caisson

int main(int argc, char** argv) {
  return caisson::testing::RunTestsOrScenario(
      argc, argv,
      {{"ignores SIGCHLD", caisson::IgnoresSigchld},
       {"collects nothing", caisson::CollectsNothing},
       {"blocks signals", caisson::BlocksAllSignals},
       {"descriptors", caisson::HasManyDescriptors},
       {"no streams", caisson::HasNoStreams},
       {"containers", caisson::KeepsContainers},
       {"subreaper", caisson::IsSubreaper},
       {"greedy subreaper", caisson::IsGreedySubreaper},
       {"pid 1", caisson::IsPid1},
       {"chroot", caisson::IsChrooted},
       {"chroot to mount", caisson::IsChrootedToMount},
       {"filter", caisson::HasFilter}});
}
