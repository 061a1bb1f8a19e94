// Copying a directory tree as it is: owners, modes, times, extended attributes,
// symbolic links, hard links, holes, device nodes (made, never opened).
#ifndef CAISSON_LIB_SYS_COPY_TREE_H_
#define CAISSON_LIB_SYS_COPY_TREE_H_

#include <sys/types.h>

#include <string>

#include "absl/status/status.h"
#include "caisson/unique_fd.h"

namespace caisson::sys {

// Copies what is in the directory `from`, and its own attributes, to the
// directory `to`, which must be empty and be reached by nobody else. Either may
// be O_PATH.
//
// The source may be hostile and may change meanwhile: no symbolic link is
// followed, no mount is entered (a mount point becomes an empty directory), and
// a tree of any depth takes a handful of descriptors. What changes may be
// copied in part, or end the copy with ABORTED.
//
// Left out: what overlayfs keeps in extended attributes, labels of security
// modules, and attributes that the file system of `to` cannot store, unless
// they change what a file may do (capabilities, access control lists): those
// are errors. After a failure `to` holds a part of the tree. Nothing is synced.
// Thread-safe.
absl::Status CopyTree(BorrowedFd from, BorrowedFd to);

// The same for the attributes of a directory alone.
absl::Status CopyAttributes(BorrowedFd from, BorrowedFd to);

// Copies the first `size` bytes of a regular file to an empty one; holes stay
// holes. `name` is for errors.
absl::Status CopyFileData(BorrowedFd from, BorrowedFd to, off_t size,
                          const std::string& name);

}  // namespace caisson::sys

#endif  // CAISSON_LIB_SYS_COPY_TREE_H_
