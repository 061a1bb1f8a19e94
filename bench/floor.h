/* What the parts of the floor (floor.c) share. */
#ifndef CAISSON_BENCH_FLOOR_H_
#define CAISSON_BENCH_FLOOR_H_

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Ends the program unless `result` is a success; in the container's process
 * only that. */
long Must(long result, const char* call);
#define MUST(call) Must((long)(call), #call)

/* Creates and writes a small file below `dir`. */
void WriteAt(int dir, const char* path, int flags, const void* data,
             size_t size);

/* ---- Control groups: floor_cgroup.c ---- */

/* Makes the directory under which the groups of the rounds lie, in every
 * hierarchy that is needed: where memory and pids are, and that of version 2.
 */
void OpenCgroups(void);
void CloseCgroups(void);

/* For one of several processes that start containers at once. */
void NameCgroup(int worker);

struct Cgroup {
  int directory; /* of version 2, for CLONE_INTO_CGROUP; or -1 */
  int join[2];   /* the `tasks` files of version 1, or -1 */
};

struct Cgroup MakeCgroup(void);
void RemoveCgroup(void);

/* ---- Networks: floor_net.c ---- */

/* Makes a bridge with a directory for leases, and removes both. */
void OpenNetwork(void);
void CloseNetwork(void);

/* A network namespace with an interface in the network; its descriptor. */
int MakeEndpoint(void);
void RemoveEndpoint(void);

#endif /* CAISSON_BENCH_FLOOR_H_ */
