// Processes that outlive their host: what is kept open for each, and its record
// on disk (doc/detached.md).
#ifndef CAISSON_LIB_LAUNCHER_STUB_DETACHED_H_
#define CAISSON_LIB_LAUNCHER_STUB_DETACHED_H_

#include <stdint.h>

#include "lib/launcher/protocol.h"

namespace caisson::launcher {

struct Detached {
  uint64_t serial;
  char name[kNameSize];
  bool has_init;  // kept[1] is the plan, in which it leaves a status
  int kept_count;
  int kept[kMaxKept];
};

// Where records go, from now on.
void SetRecordDirectory(int directory);
// Takes away the socket in it: nobody can attach any more.
void RemoveSocket();

bool AnyDetached();
const Detached* FindDetached(const char* name);

// 0, or an errno, and then nothing is kept: EEXIST if there is a record of the
// name. `fds` are duplicated.
long BeginDetached(uint64_t serial, const char* name, bool has_init,
                   const int* fds, int count);

// Records the end of a process, if it is a detached one, and closes what was
// kept. An init's child decides what `exited.wait_status` is.
void EndDetached(uint64_t serial, Message& exited);

}  // namespace caisson::launcher

#endif  // CAISSON_LIB_LAUNCHER_STUB_DETACHED_H_
