// Copying files in and out of a container's tree: `docker cp`.
//
//   // Of a container that is stopped: its RootFs, put together once more.
//   ASSIGN_OR_RETURN(UniqueFd root, root_fs.Open("/", O_PATH | O_DIRECTORY));
//   // Of one that runs: by its first process, in this or any other host.
//   ASSIGN_OR_RETURN(UniqueFd root, OpenRootOf(process.pidfd()));
//   RETURN_IF_ERROR(CopyOut(root.borrow(), "/var/log", tar.borrow()));
//   RETURN_IF_ERROR(CopyIn(tar.borrow(), root.borrow(), "/srv"));
//   RETURN_IF_ERROR(Copy(host.borrow(), "etc/app.conf", root.borrow(),
//   "/etc"));
//
// The tree may be hostile and may change meanwhile. A path is looked up with
// the root as "/": symbolic links and ".." cannot leave it, however they are
// exchanged, and links of procfs are not followed (CVE-2018-15664,
// CVE-2019-14271: nothing of the container is ever run or loaded, either).
// What is copied is never followed: links are copied as links; devices and
// pipes are made, never opened. Mounts are followed on the way to a path, so
// volumes can be reached, and not entered below it: a mount point in what is
// copied is copied as an empty directory.
//
// Owners, modes, times to the nanosecond, extended attributes, hard links and
// holes are copied; sockets are left out. A directory merges with one that is
// there; a file takes the place of another; neither takes the place of the
// other kind (FAILED_PRECONDITION, as Docker). After a failure a part has been
// copied. Nothing is synced. The functions block on the disk and are
// thread-safe.
#ifndef CAISSON_TREE_COPY_H_
#define CAISSON_TREE_COPY_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/unique_fd.h"

namespace caisson {

struct TreeCopyOptions {
  // Owner of all that is made; default: the source's. A container with a user
  // namespace wants the host's ids of its root.
  std::optional<uint32_t> uid;
  std::optional<uint32_t> gid;
  // The name at the destination; default: the source's. Not for CopyIn.
  std::string name;
  uint64_t max_entries = 5'000'000;
  uint64_t max_bytes = uint64_t{64} << 30;  // of files
  // Called about once per MiB with the bytes so far; false cancels: CANCELLED.
  // It must not throw.
  std::function<bool(uint64_t bytes)> progress;
};

// The root directory of a running process (O_PATH), for the functions below:
// the tree that it sees, with its volumes and other mounts, which go with the
// last process of its mount namespace. `pidfd` is a process's descriptor,
// pidfd_open(2). NOT_FOUND if it has ended or is none of this PID namespace;
// PERMISSION_DENIED without the right to trace it (ptrace(2)).
absl::StatusOr<UniqueFd> OpenRootOf(BorrowedFd pidfd);

// Writes what is at `path`, a file or directory with all that is in it, as a
// tar to a file, pipe or socket. The names in the tar begin with the last
// component of `path`; with "/" or "/." at its end they are those in the
// directory. A last component that is a symbolic link is copied as one. Whoever
// passes a pipe has SIGPIPE ignored or blocked. `uid` and `gid` do not matter.
absl::Status CopyOut(BorrowedFd root, absl::string_view path, BorrowedFd tar,
                     const TreeCopyOptions& options = {});

// Unpacks a tar, compressed or not, into the existing directory `directory`.
// Directories that entries need and that are missing are made, 0755. Parents
// that are symbolic links are followed inside the root. A name with ".." is
// INVALID_ARGUMENT; directories whose paths and extended attributes take more
// than 256 MiB are RESOURCE_EXHAUSTED.
absl::Status CopyIn(BorrowedFd tar, BorrowedFd root,
                    absl::string_view directory,
                    const TreeCopyOptions& options = {});

// Both at once: from one tree into an existing directory of another.
absl::Status Copy(BorrowedFd from, absl::string_view path, BorrowedFd to,
                  absl::string_view directory,
                  const TreeCopyOptions& options = {});

}  // namespace caisson

#endif  // CAISSON_TREE_COPY_H_
