// Owner, mode, times and extended attributes of files in a layer: which of them
// are taken over from an image, and how they are written so that none undoes
// another. Internal to unpack.h. Thread-safe functions.
#ifndef CAISSON_LIB_LAYER_FILE_ATTRIBUTES_H_
#define CAISSON_LIB_LAYER_FILE_ATTRIBUTES_H_

#include <sys/stat.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/unique_fd.h"
#include "lib/layer/tar_reader.h"
#include "lib/layer/unpack.h"

namespace caisson::layer {

class UnpackHost;

struct FileAttributes {
  uint32_t mode = 0755;
  uint32_t uid = 0;
  uint32_t gid = 0;
  int64_t mtime_sec = 0;
  int32_t mtime_nsec = 0;
  // As they are to be on disk.
  std::vector<std::pair<std::string, std::string>> xattrs;
};

// "trusted.overlay." or "user.overlay.": what overlayfs reads in `format`;
// empty for kPlain.
absl::string_view OverlayXattrPrefix(LayerFormat format);

// The name under which the attribute `key` of an image is stored; nullopt if it
// is not taken over (see unpack.h).
std::optional<std::string> XattrKeyOnDisk(absl::string_view key,
                                          LayerFormat format);

// Of an entry, whose xattrs it takes. Counts attributes that are not taken over
// in `skipped`.
FileAttributes TakeAttributes(TarEntry& entry, LayerFormat format,
                              const std::optional<LayerOwner>& owner,
                              uint64_t& skipped);

// What UnpackOptions::owner makes of the attributes of a directory or another
// file.
void SetOwner(const LayerOwner& owner, bool directory,
              FileAttributes& attributes);

// Of the file `name` in a layer on disk, without what overlayfs keeps for
// itself. `status` is its lstat.
absl::StatusOr<FileAttributes> ReadAttributes(BorrowedFd dir,
                                              const std::string& name,
                                              const struct stat& status,
                                              LayerFormat format);

// The same as an image has them: without what overlayfs escapes, sorted by
// name. FAILED_PRECONDITION if overlayfs keeps the file's data or children
// elsewhere (metacopy, redirect_dir); `path` names the file.
absl::StatusOr<FileAttributes> ReadImageAttributes(BorrowedFd dir,
                                                   const std::string& name,
                                                   const struct stat& status,
                                                   LayerFormat format,
                                                   const std::string& path);

// Writes everything to an open regular file or directory: owner, xattrs, mode,
// times, in this order, because chown(2) clears set-id bits and capabilities.
// What the file system refuses to store is counted in `skipped`; `path` is for
// errors, and for `host`, if it is set (unpack_host.h).
absl::Status WriteAttributes(BorrowedFd fd, const FileAttributes& attributes,
                             const std::string& path, uint64_t& skipped,
                             UnpackHost* host = nullptr);

// fsetxattr(2), by `host` if it is set and that is its to do: 0 or an errno.
int SetXattr(BorrowedFd fd, const std::string& path, const std::string& key,
             absl::string_view value, UnpackHost* host);

// The same for a symbolic link, device node or FIFO `name`, which is not
// followed.
absl::Status WriteAttributesAt(BorrowedFd dir, const std::string& name,
                               bool is_symlink,
                               const FileAttributes& attributes,
                               const std::string& path, uint64_t& skipped);

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_FILE_ATTRIBUTES_H_
