/* The least that a snapshot of a control group's statistics costs a program
 * that keeps nothing open: for each byte on standard input, opens, reads and
 * closes the files that the library's snapshot reads, and answers with the time
 * that it took. The group is of its own, made like that of `worker --stats`. */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <mntent.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MOST_FILES 256
#define MOST_GROUPS 16

static const char* const names_v2[] = {"cgroup.events",
                                       "cgroup.stat",
                                       "cpu.stat",
                                       "cpu.stat.local",
                                       "cpu.pressure",
                                       "irq.pressure",
                                       "memory.current",
                                       "memory.max",
                                       "memory.peak",
                                       "memory.swap.current",
                                       "memory.swap.max",
                                       "memory.swap.peak",
                                       "memory.swap.events",
                                       "memory.zswap.max",
                                       "memory.stat",
                                       "memory.numa_stat",
                                       "memory.events",
                                       "memory.events.local",
                                       "memory.pressure",
                                       "io.stat",
                                       "io.pressure",
                                       "pids.current",
                                       "pids.peak",
                                       "pids.max",
                                       "pids.events",
                                       "pids.events.local",
                                       "rdma.current",
                                       "rdma.max",
                                       "misc.current",
                                       "misc.max",
                                       "misc.peak",
                                       "misc.events",
                                       NULL};
static const char* const names_v1[] = {
    "cpu.stat",
    "cpu.stat.local",
    "cpuacct.usage",
    "cpuacct.stat",
    "cpuacct.usage_percpu",
    "memory.usage_in_bytes",
    "memory.limit_in_bytes",
    "memory.max_usage_in_bytes",
    "memory.failcnt",
    "memory.oom_control",
    "memory.kmem.usage_in_bytes",
    "memory.kmem.tcp.usage_in_bytes",
    "memory.memsw.usage_in_bytes",
    "memory.memsw.limit_in_bytes",
    "memory.memsw.max_usage_in_bytes",
    "memory.memsw.failcnt",
    "memory.stat",
    "memory.numa_stat",
    "blkio.throttle.io_service_bytes_recursive",
    "blkio.throttle.io_serviced_recursive",
    "blkio.bfq.io_service_bytes_recursive",
    "blkio.bfq.io_serviced_recursive",
    "pids.current",
    "pids.peak",
    "pids.max",
    "pids.events",
    "rdma.current",
    "rdma.max",
    "misc.current",
    "misc.max",
    "misc.peak",
    "misc.events",
    NULL};
static const char* const hugetlb_v2[] = {
    ".current",      ".max",      ".events",    ".events.local",
    ".rsvd.current", ".rsvd.max", ".numa_stat", NULL};
static const char* const hugetlb_v1[] = {
    ".usage_in_bytes",      ".limit_in_bytes",
    ".max_usage_in_bytes",  ".failcnt",
    ".rsvd.usage_in_bytes", ".rsvd.limit_in_bytes",
    ".numa_stat",           NULL};
/* Controllers of v1 that have statistics. */
static const char* const counting_v1[] = {"cpu",   "cpuacct", "memory",
                                          "blkio", "pids",    "hugetlb",
                                          "rdma",  "misc",    NULL};

static char* groups[MOST_GROUPS];
static int group_count;
static char* files[MOST_FILES];
static int file_count;
static char text[1 << 16];

static void Fail(const char* what) {
  perror(what);
  exit(1);
}

static void RemoveGroups(void) {
  while (group_count > 0) rmdir(groups[--group_count]);
}

static char* Path(const char* directory, const char* name) {
  char* path = NULL;
  if (asprintf(&path, "%s/%s", directory, name) < 0) Fail("asprintf");
  return path;
}

static void AddFile(char* path) {
  if (access(path, R_OK) == 0 && file_count < MOST_FILES) {
    files[file_count++] = path;
  } else {
    free(path);
  }
}

static bool EndsWith(const char* name, const char* suffix) {
  const size_t n = strlen(name), s = strlen(suffix);
  return n > s && strcmp(name + n - s, suffix) == 0;
}

static void AddFiles(const char* group, bool v2) {
  const char* const* names = v2 ? names_v2 : names_v1;
  for (; *names != NULL; ++names) AddFile(Path(group, *names));
  DIR* directory = opendir(group);
  if (directory == NULL) Fail(group);
  const struct dirent* entry;
  while ((entry = readdir(directory)) != NULL) {
    if (strncmp(entry->d_name, "hugetlb.", 8) != 0) continue;
    const char* const* suffixes = v2 ? hugetlb_v2 : hugetlb_v1;
    for (; *suffixes != NULL; ++suffixes) {
      if (EndsWith(entry->d_name, *suffixes) &&
          strchr(entry->d_name + 8, '.') ==
              entry->d_name + strlen(entry->d_name) - strlen(*suffixes)) {
        AddFile(Path(group, entry->d_name));
      }
    }
  }
  closedir(directory);
}

/* v2: for the children of `group`, what its parent offers. */
static void EnableControllers(const char* group) {
  char* offered = Path(group, "cgroup.controllers");
  char* enabled = Path(group, "cgroup.subtree_control");
  FILE* list = fopen(offered, "re");
  if (list == NULL) Fail(offered);
  char name[64], change[66];
  while (fscanf(list, "%63s", name) == 1) {
    const int size = snprintf(change, sizeof(change), "+%s", name);
    const int file = open(enabled, O_WRONLY | O_CLOEXEC);
    /* One that cannot be had has no files. */
    if (write(file, change, (size_t)size) < 0) fprintf(stderr, "no %s\n", name);
    close(file);
  }
  fclose(list);
  free(offered);
  free(enabled);
}

static char* AddGroup(const char* parent, const char* name) {
  if (group_count == MOST_GROUPS) return NULL;
  char* group = Path(parent, name);
  if (mkdir(group, 0755) != 0) Fail(group);
  return groups[group_count++] = group;
}

static bool Counts(const struct mntent* mount) {
  const char* const* controller = counting_v1;
  for (; *controller != NULL; ++controller) {
    if (hasmntopt(mount, *controller) != NULL) return true;
  }
  return false;
}

static void MakeGroups(void) {
  char name[64];
  snprintf(name, sizeof(name), "caisson-bench-%d", getpid());
  FILE* mounts = setmntent("/proc/self/mounts", "re");
  if (mounts == NULL) Fail("/proc/self/mounts");
  const struct mntent* mount;
  while ((mount = getmntent(mounts)) != NULL) {
    const bool v2 = strcmp(mount->mnt_type, "cgroup2") == 0;
    if (!v2 && (strcmp(mount->mnt_type, "cgroup") != 0 || !Counts(mount))) {
      continue;
    }
    if (v2) EnableControllers(mount->mnt_dir);
    const char* parent = AddGroup(mount->mnt_dir, name);
    if (parent == NULL) continue;
    if (v2) EnableControllers(parent);
    const char* group = AddGroup(parent, "stats");
    if (group != NULL) AddFiles(group, v2);
  }
  endmntent(mounts);
}

static void ReadAll(void) {
  for (int i = 0; i < file_count; ++i) {
    const int file = open(files[i], O_RDONLY | O_CLOEXEC);
    if (file < 0) Fail(files[i]);
    while (read(file, text, sizeof(text)) == (ssize_t)sizeof(text)) continue;
    close(file);
  }
}

static uint64_t Now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* In a round; one alone is mostly what the pause before it has cost. */
enum { kReadings = 16 };

int main(int argc, char** argv) {
  if (argc > 1) {
    fprintf(stderr, "usage: %s\n", argv[0]);
    return 2;
  }
  atexit(RemoveGroups);
  MakeGroups();
  char byte;
  while (read(STDIN_FILENO, &byte, 1) == 1) {
    const uint64_t begin = Now();
    for (int i = 0; i < kReadings; ++i) ReadAll();
    const uint64_t duration = (Now() - begin) / kReadings;
    if (write(STDOUT_FILENO, &duration, sizeof(duration)) != sizeof(duration)) {
      break;
    }
  }
  return 0;
}
