// Starting a program that is nobody's child.
#ifndef CAISSON_LIB_SYS_DETACHED_CHILD_H_
#define CAISSON_LIB_SYS_DETACHED_CHILD_H_

#include "absl/status/status.h"
#include "caisson/unique_fd.h"

namespace caisson::sys {

struct DetachedOptions {
  // Descriptor 4 of the program, if valid.
  BorrowedFd second_socket;
  // Also in a new user namespace, with all capabilities there. No id is mapped
  // yet: the program finds its maps empty and has to wait until the caller has
  // written them. Needs no privilege.
  bool new_user_namespace = false;
  // PID 1 of a new pid namespace: when it ends, the kernel kills all that it
  // started. Needs CAP_SYS_ADMIN, or the user namespace.
  bool new_pid_namespace = true;
};

// Executes the file behind `program` with `socket` as descriptor 3 and no other
// descriptor, no environment, no controlling terminal and "/" as its directory.
//
// The calling process is not forked: two clone(CLONE_VM | CLONE_VFORK) lead to
// the exec, so that the cost does not depend on the caller's memory. The first
// of the two ends at once without ever executing a program, and is therefore
// invisible to a waitpid(-1) of the caller; the program becomes the child of
// init or of the nearest subreaper. (If that is the caller itself, it sees the
// program's end as it sees that of any orphan.)
//
// Blocks until the program executes. Changes nothing in the caller; the calling
// thread's signals are blocked for the duration. Thread-safe.
absl::Status SpawnDetached(BorrowedFd program, const char* name,
                           BorrowedFd socket,
                           const DetachedOptions& options = {});

}  // namespace caisson::sys

#endif  // CAISSON_LIB_SYS_DETACHED_CHILD_H_
