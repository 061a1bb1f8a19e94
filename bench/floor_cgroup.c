/* The floor's control groups. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/floor.h"

#define MEMORY_LIMIT "268435456"
#define PIDS_LIMIT "64"

/* A mounted hierarchy that is needed. A round makes its group in `group`, two
 * levels below `mount`, as deep as the library's. */
struct Hierarchy {
  char path[256];
  int mount, parent, group;
  bool v2;
  bool memory, pids; /* whether these controllers are there */
};

static char parent_name[64];
static char group_name[16] = "bench";
static struct Hierarchy hierarchies[3];
static int count;

/* The hierarchy that is mounted at `mount`, added if it is new. */
static struct Hierarchy* Add(const char* mount) {
  for (int i = 0; i < count; ++i) {
    if (strcmp(hierarchies[i].path, mount) == 0) return &hierarchies[i];
  }
  MUST(count < 3 ? 0 : -1);
  struct Hierarchy* added = &hierarchies[count++];
  snprintf(added->path, sizeof(added->path), "%s", mount);
  return added;
}

static bool HasOption(const char* options, const char* option) {
  const size_t size = strlen(option);
  for (const char* at = options; (at = strstr(at, option)) != NULL; ++at) {
    const char end = at[size];
    if ((at == options || at[-1] == ',') &&
        (end == ',' || end == '\n' || end == '\0')) {
      return true;
    }
  }
  return false;
}

/* proc(5), /proc/pid/mountinfo. */
static void FindHierarchies(void) {
  FILE* mounts = fopen("/proc/self/mountinfo", "re");
  MUST(mounts == NULL ? -1 : 0);
  char line[4096], mount[256], type[64], options[1024];
  while (fgets(line, sizeof(line), mounts) != NULL) {
    const char* rest = strstr(line, " - ");
    if (rest == NULL || sscanf(line, "%*s %*s %*s %*s %255s", mount) != 1 ||
        sscanf(rest, " - %63s %*s %1023s", type, options) != 2) {
      continue;
    }
    if (strcmp(type, "cgroup2") == 0) Add(mount)->v2 = true;
    if (strcmp(type, "cgroup") != 0) continue;
    if (HasOption(options, "memory")) Add(mount)->memory = true;
    if (HasOption(options, "pids")) Add(mount)->pids = true;
  }
  fclose(mounts);
}

static int OpenDirectory(int parent, const char* name) {
  return (int)MUST(openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

static int MakeDirectory(int parent, const char* name) {
  MUST(mkdirat(parent, name, 0755));
  return OpenDirectory(parent, name);
}

static void EnableControllers(int group) {
  WriteAt(group, "cgroup.subtree_control", O_WRONLY, "+memory +pids", 13);
}

void OpenCgroups(void) {
  snprintf(parent_name, sizeof(parent_name), "caisson-bench-%d", getpid());
  FindHierarchies();
  bool v1 = false;
  for (int i = 0; i < count; ++i) {
    v1 = v1 || hierarchies[i].memory || hierarchies[i].pids;
  }
  for (int i = 0; i < count; ++i) {
    struct Hierarchy* hierarchy = &hierarchies[i];
    hierarchy->mount = OpenDirectory(AT_FDCWD, hierarchy->path);
    hierarchy->parent = MakeDirectory(hierarchy->mount, parent_name);
    hierarchy->group = MakeDirectory(hierarchy->parent, "floor");
    if (v1) continue;
    hierarchy->memory = hierarchy->pids = true;
    EnableControllers(hierarchy->mount);
    EnableControllers(hierarchy->parent);
    EnableControllers(hierarchy->group);
  }
}

void CloseCgroups(void) {
  for (int i = 0; i < count; ++i) {
    unlinkat(hierarchies[i].group, group_name, AT_REMOVEDIR);
    unlinkat(hierarchies[i].parent, "floor", AT_REMOVEDIR);
    unlinkat(hierarchies[i].mount, parent_name, AT_REMOVEDIR);
  }
}

void NameCgroup(int worker) {
  snprintf(group_name, sizeof(group_name), "bench%d", worker);
}

/* A file of this round's group. */
static int OpenFile(const struct Hierarchy* hierarchy, const char* name) {
  char path[64];
  snprintf(path, sizeof(path), "%s/%s", group_name, name);
  return (int)MUST(openat(hierarchy->group, path, O_WRONLY | O_CLOEXEC));
}

static void WriteFile(const struct Hierarchy* hierarchy, const char* name,
                      const char* text) {
  const int file = OpenFile(hierarchy, name);
  MUST(write(file, text, strlen(text)));
  close(file);
}

struct Cgroup MakeCgroup(void) {
  struct Cgroup group = {.directory = -1, .join = {-1, -1}};
  int joins = 0;
  for (int i = 0; i < count; ++i) {
    const struct Hierarchy* hierarchy = &hierarchies[i];
    MUST(mkdirat(hierarchy->group, group_name, 0755));
    if (hierarchy->memory) {
      WriteFile(hierarchy,
                hierarchy->v2 ? "memory.max" : "memory.limit_in_bytes",
                MEMORY_LIMIT);
    }
    if (hierarchy->pids) WriteFile(hierarchy, "pids.max", PIDS_LIMIT);
    if (hierarchy->v2) {
      group.directory = OpenDirectory(hierarchy->group, group_name);
    } else {
      group.join[joins++] = OpenFile(hierarchy, "tasks");
    }
  }
  return group;
}

void RemoveCgroup(void) {
  for (int i = 0; i < count; ++i) {
    MUST(unlinkat(hierarchies[i].group, group_name, AT_REMOVEDIR));
  }
}
