// The processes that the launcher has cloned, and who wants to know how they
// end.
#ifndef CAISSON_LIB_LAUNCHER_STUB_CHILDREN_H_
#define CAISSON_LIB_LAUNCHER_STUB_CHILDREN_H_

#include <stdint.h>

namespace caisson::launcher {

// Hosts have numbers from 1 on; a detached process has none.
inline constexpr uint32_t kNoHost = 0;

bool ChildrenAreFull();

// Takes `channel`. The result is the serial number of the start. `forks`: a
// successor is to come (plan::kFork).
uint64_t AddChild(int pid, int channel, uint32_t host, bool forks);

// Kills what became of a start of a host, or of all its starts.
void Abandon(uint64_t serial, uint32_t host);
void AbandonAllOf(uint32_t host);
bool AnyChildOf(uint32_t host);

// Serve kDetach and kFind: 0, or an errno. `fds` are duplicated. A repeated
// kDetach is 0, too.
long DetachChild(uint64_t serial, uint32_t host, const char* name,
                 bool has_init, const int* fds, int count);
long FindChild(const char* name, int channel);
// Serves kRelease: 0, or an errno. Nobody here collects it from then on.
long ReleaseChild(uint64_t serial, uint32_t host);

// The launcher is no PID 1: what it started may outlive it.
void SetReleases();
bool Releases();

// Takes note of one child that ended and tells who wants to know; false if
// there is none.
bool Reap();

// A duplicate of `fd` out of the range that requests use (kOwnFds), or a
// negative errno.
long Keep(int fd);

}  // namespace caisson::launcher

#endif  // CAISSON_LIB_LAUNCHER_STUB_CHILDREN_H_
