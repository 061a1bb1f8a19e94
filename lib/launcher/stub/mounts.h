// The launcher's private mount namespace.
#ifndef CAISSON_LIB_LAUNCHER_STUB_MOUNTS_H_
#define CAISSON_LIB_LAUNCHER_STUB_MOUNTS_H_

namespace caisson::launcher {

// Moves the caller into a mount namespace of its own whose root is a tmpfs that
// holds a fresh procfs and sysfs and nothing else: children find nothing of the
// host by path, and copying the namespace costs the same however much the host
// has mounted. (The procfs and sysfs are there because the kernel lets a user
// namespace mount its own only where it sees one already.)
//
// Returns 0 or an errno; EPERM without CAP_SYS_ADMIN. After a failure the
// caller may be in a private copy of the host's mounts, which serves as well.
int IsolateMounts();

}  // namespace caisson::launcher

#endif  // CAISSON_LIB_LAUNCHER_STUB_MOUNTS_H_
