// A program in the place of the confined unpacker: what one could do that an
// image has taken over. What it is to try is the first line of what it is to
// decode. It reports as an unpacker reports a failure (wire.h): the error
// FAILED_PRECONDITION, with what became of the attempt.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

enum {
  kControl = 3,
  kApplied = 33,
  kRaw = 35,
  kSetXattr = 38,
  kMakeDevice = 39,
  kCopyUp = 45,
  kFailedPrecondition = 9,
};

static unsigned char out[1 << 16];
static size_t size;

static void Number(uint64_t value) {
  for (int i = 0; i < 8; ++i) out[size++] = (unsigned char)(value >> (8 * i));
}

static void Text(const char* text) {
  Number(strlen(text));
  memcpy(out + size, text, strlen(text));
  size += strlen(text);
}

static void Begin(int type) {
  size = 4;
  out[size++] = (unsigned char)type;
}

static void Send(void) {
  const size_t payload = size - 5;
  for (int i = 0; i < 4; ++i) out[i] = (unsigned char)(payload >> (8 * i));
  if (write(kControl, out, size) < 0) _exit(72);
}

static void Report(const char* text) {
  Begin(kApplied);
  Number(kFailedPrecondition);
  Text(text);
  Number(0);
  Send();
  _exit(0);
}

static void ReportErrno(const char* what, long result) {
  char text[128];
  snprintf(text, sizeof(text), "%s: %s", what,
           result < 0 ? strerrorname_np(errno) : "possible");
  Report(text);
}

// The answer to a question: an errno.
static int Ask(void) {
  unsigned char answer[4096];
  Send();
  const ssize_t n = read(kControl, answer, sizeof(answer));
  if (n < 13) _exit(72);
  return answer[5];
}

static int Begins(const char* attempt, const char* with) {
  return strncmp(attempt, with, strlen(with)) == 0;
}

static void ListDescriptors(void) {
  char text[256] = "descriptors";
  for (int fd = 0; fd < 256; ++fd) {
    if (fcntl(fd, F_GETFD) < 0) continue;
    snprintf(text + strlen(text), sizeof(text) - strlen(text), " %d", fd);
  }
  Report(text);
}

static void UseDevice(void) {
  Begin(kMakeDevice);
  Text("zero");
  Number(S_IFCHR | 0666);
  Number(makedev(1, 5));
  if (Ask() != 0) Report("no device");
  ReportErrno("device", open("/layer/zero", O_RDONLY));
}

static void RunProgram(void) {
  const int fd = open("/layer/program", O_WRONLY | O_CREAT, 0700);
  if (fd < 0 || write(fd, "#!/bin/sh\n", 10) != 10 || fchmod(fd, 0755) != 0) {
    Report("no program");
  }
  close(fd);
  char* const argv[] = {(char*)"program", NULL};
  ReportErrno("execve", execve("/layer/program", argv, argv));
}

static void AskForMore(const char* attempt) {
  if (strcmp(attempt, "ask redirect") == 0) {
    Begin(kSetXattr);
    Text(".");
    Text("trusted.overlay.redirect");
    Text("/etc");
  } else if (strcmp(attempt, "ask outside") == 0) {
    Begin(kSetXattr);
    Text("../outside");
    Text("trusted.x");
    Text("y");
  } else if (strcmp(attempt, "ask through a link") == 0) {
    if (symlinkat("/etc", AT_FDCWD, "/layer/link") != 0) Report("no link");
    Begin(kSetXattr);
    Text("link/passwd");
    Text("trusted.x");
    Text("y");
    errno = Ask();
    ReportErrno("through a link", errno == 0 ? 0 : -1);
  } else {
    Begin(kCopyUp);
    Text("");
    Text("passwd");
    Text("passwd");
  }
  Ask();
  Report("was done");
}

// Each of these ends the process.
static void Call(const char* name) {
  static const struct {
    const char* name;
    long number;
  } kCalls[] = {{"socket", SYS_socket},
                {"connect", SYS_connect},
                {"ptrace", SYS_ptrace},
                {"process_vm_writev", SYS_process_vm_writev},
                {"kill", SYS_kill},
                {"mount", SYS_mount},
                {"open_tree", SYS_open_tree},
                {"move_mount", SYS_move_mount},
                {"open_by_handle_at", SYS_open_by_handle_at},
                {"setns", SYS_setns},
                {"unshare", SYS_unshare},
                {"clone", SYS_clone},
                {"clone3", SYS_clone3},
                {"chroot", SYS_chroot},
                {"bpf", SYS_bpf},
                {"io_uring_setup", SYS_io_uring_setup},
                {"userfaultfd", SYS_userfaultfd},
                {"keyctl", SYS_keyctl},
                {"memfd_create", SYS_memfd_create},
                {"ioctl", SYS_ioctl},
                {"setuid", SYS_setuid},
                {"pidfd_getfd", SYS_pidfd_getfd}};
  for (size_t i = 0; i < sizeof(kCalls) / sizeof(kCalls[0]); ++i) {
    if (strcmp(kCalls[i].name, name) != 0) continue;
    ReportErrno(name, syscall(kCalls[i].number, 0, 0, 0, 0, 0, 0));
  }
  Report("no such call");
}

static void Misbehave(const char* attempt) {
  if (strcmp(attempt, "crash") == 0) {
    volatile uintptr_t nowhere = 16;
    *(volatile int*)nowhere = 1;
  }
  if (strcmp(attempt, "exit") == 0) _exit(3);
  if (strcmp(attempt, "hang") == 0) {
    for (volatile int i = 0;; ++i) continue;
  }
  if (strcmp(attempt, "garbage") == 0) {
    memset(out, 0xff, sizeof(out));
    size = 64;
    if (write(kControl, out, size) < 0) _exit(72);
    for (;;) continue;
  }
  if (strcmp(attempt, "early") == 0) {
    Begin(kApplied);
    Number(0);
    Text("");
    Number(0);
    Send();
    for (;;) continue;
  }
  if (strcmp(attempt, "flood") == 0) {
    static char bytes[32 << 10];
    memset(bytes, 'x', sizeof(bytes) - 1);
    for (;;) {
      Begin(kRaw);
      Text(bytes);
      Send();
    }
  }
}

int main(void) {
  static char request[4096];
  if (read(kControl, request, sizeof(request)) <= 0) _exit(72);
  static char attempt[4096];
  if (read(0, attempt, sizeof(attempt) - 1) <= 0) _exit(72);
  attempt[strcspn(attempt, "\n")] = '\0';
  const char* argument = strchr(attempt, ':');
  argument = argument == NULL ? "" : argument + 1;
  if (Begins(attempt, "read:")) {
    ReportErrno("read", open(argument, O_RDONLY));
  } else if (Begins(attempt, "write:")) {
    ReportErrno("write", open(argument, O_WRONLY | O_CREAT, 0600));
  } else if (Begins(attempt, "call:")) {
    Call(argument);
  } else if (strcmp(attempt, "descriptors") == 0) {
    ListDescriptors();
  } else if (strcmp(attempt, "make device") == 0) {
    ReportErrno("mknodat", mknodat(AT_FDCWD, "/layer/device", S_IFCHR | 0600,
                                   makedev(1, 5)));
  } else if (strcmp(attempt, "use device") == 0) {
    UseDevice();
  } else if (strcmp(attempt, "trusted attribute") == 0) {
    const int fd = open("/layer", O_RDONLY | O_DIRECTORY);
    ReportErrno("fsetxattr", fsetxattr(fd, "trusted.x", "y", 1, 0));
  } else if (strcmp(attempt, "run program") == 0) {
    RunProgram();
  } else if (strcmp(attempt, "bring code") == 0) {
    ReportErrno("mmap", (long)mmap(NULL, 4096, PROT_READ | PROT_EXEC,
                                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  } else if (Begins(attempt, "ask")) {
    AskForMore(attempt);
  }
  Misbehave(attempt);
  Report("no such attempt");
}
