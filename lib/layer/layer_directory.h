// The directory that a layer is unpacked into: the tree in memory and the files
// on disk, changed together. Internal to unpack.h.
//
// Every look-up goes one component at a time from a descriptor, follows no
// symbolic link in the kernel and crosses no mount; the links that are to be
// followed are read and resolved here, as if the directory were "/".
// Thread-compatible.
#ifndef CAISSON_LIB_LAYER_LAYER_DIRECTORY_H_
#define CAISSON_LIB_LAYER_LAYER_DIRECTORY_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "caisson/unique_fd.h"
#include "lib/layer/layer_tree.h"
#include "lib/layer/unpack.h"

namespace caisson::layer {

// A name of an entry or hard link target, taken apart. Refers to the text.
struct LayerName {
  std::vector<absl::string_view> components;  // none for the root
  absl::string_view parent_text;              // the text before the last one

  absl::Span<const absl::string_view> parent() const {
    return absl::MakeConstSpan(components).first(components.size() - 1);
  }
  absl::string_view base() const { return components.back(); }
};

// INVALID_ARGUMENT for "..", RESOURCE_EXHAUSTED for what is too long or deep.
absl::StatusOr<LayerName> ParseLayerName(absl::string_view text,
                                         const UnpackOptions& options);

class LayerDirectory final {
 public:
  // `options` must outlive it. FAILED_PRECONDITION if `dir` is not empty,
  // except for kPlain.
  static absl::StatusOr<std::unique_ptr<LayerDirectory>> Open(
      BorrowedFd dir, const UnpackOptions& options);

  LayerTree& tree() { return tree_; }
  BorrowedFd root() const { return root_.borrow(); }

  // The directory in which an entry is to be made. Missing ones are made, with
  // the time of `entry_attributes`, and what is no directory is replaced by
  // one.
  absl::StatusOr<DirId> ParentFor(const LayerName& name,
                                  const FileAttributes& entry_attributes);

  // The directory of these components, for a whiteout: nothing is made, only
  // noted. nullopt if something else than a directory is in the way.
  absl::StatusOr<std::optional<DirId>> Note(
      absl::Span<const absl::string_view> components);

  // The directory of these components, if it is on disk.
  absl::StatusOr<std::optional<DirId>> Find(
      absl::Span<const absl::string_view> components);

  // An O_PATH descriptor, valid at least until the call after the next one.
  // Precondition: the directory is on disk.
  absl::StatusOr<BorrowedFd> Fd(DirId id);

  // Makes a directory for an entry, or takes the one that is there.
  absl::StatusOr<DirId> MakeDirectory(DirId parent, absl::string_view name);

  // Makes the directory and those above it that are only noted. False if
  // something else than a directory is in the way.
  absl::StatusOr<bool> Materialize(DirId id);

  // Whether Remove has ever found anything.
  bool replaced() const { return replaced_; }

  // Removes whatever has this name.
  absl::Status Remove(DirId parent, const std::string& name);

  // Tells that `name` is now a file of this layer.
  void FileMade(DirId parent, absl::string_view name);

  // RESOURCE_EXHAUSTED if the tree needs more memory than it may.
  absl::Status CheckMemory() const;

  // An error of the kernel about a file in the directory.
  absl::Status Error(int error, absl::string_view call, DirId parent,
                     absl::string_view name, absl::string_view hint = {}) const;

 private:
  enum class Purpose { kCreate, kNote, kFind };
  enum class Kind { kMissing, kSymlink, kDirectory, kOther };
  struct Walk;
  struct CachedFd {
    DirId id = 0;
    uint64_t used = 0;
    UniqueFd fd;
  };

  LayerDirectory(UniqueFd root, const UnpackOptions& options)
      : root_(std::move(root)), options_(options) {}

  absl::StatusOr<std::optional<DirId>> Resolve(
      absl::Span<const absl::string_view> components, Purpose purpose,
      const FileAttributes* entry_attributes);
  absl::Status Step(absl::string_view name, Purpose purpose, Walk& walk);
  absl::StatusOr<Kind> Probe(DirId parent, const std::string& name,
                             std::string& target);
  absl::Status FollowSymlink(std::string target, Walk& walk);
  absl::StatusOr<DirId> AddChecked(DirId parent, absl::string_view name);
  absl::Status SaveForeign(DirId id, BorrowedFd fd);
  absl::StatusOr<DirId> Adopt(DirId parent, const std::string& name);
  absl::Status MakeOnDisk(DirId id);
  bool IsOwn(DirId parent, const std::string& name) const;
  absl::Status RemoveFile(DirId parent, const std::string& name);
  BorrowedFd CachedFdOf(DirId id);

  const UniqueFd root_;
  bool replaced_ = false;
  const UnpackOptions& options_;
  LayerTree tree_;
  // The parent of the last entry: entries come in the order of directories.
  std::string last_parent_text_;
  std::optional<DirId> last_parent_;
  std::array<CachedFd, 16> fds_;
  uint64_t clock_ = 0;
};

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_LAYER_DIRECTORY_H_
