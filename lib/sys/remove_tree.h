// Removal of directory trees that may be hostile: of any depth, and never
// through a symbolic link or across a mount.
#ifndef CAISSON_LIB_SYS_REMOVE_TREE_H_
#define CAISSON_LIB_SYS_REMOVE_TREE_H_

#include <string>

#include "absl/status/status.h"
#include "caisson/unique_fd.h"

namespace caisson::sys {

// Removes `name`, a single path component below `parent`, with everything in
// it. What is missing already is success. Needs a bounded number of descriptors
// and no path limit: directories nested too deeply are renamed to the top of
// the tree first. Goes on after a failure and returns the first one; calling
// again removes the rest. Thread-safe; two removals of one tree may race.
absl::Status RemoveTree(BorrowedFd parent, const std::string& name);

// Removes everything in the directory `dir`, not the directory itself.
absl::Status RemoveContents(BorrowedFd dir);

}  // namespace caisson::sys

#endif  // CAISSON_LIB_SYS_REMOVE_TREE_H_
