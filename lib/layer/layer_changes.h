// What some layers change in those below them, entry by entry: the difference
// of two trees, without looking at what is the same in both.
//
//   LayerChanges changes({.tops = {upper}, .lowers = roots});
//   for (;;) {
//     ASSIGN_OR_RETURN(std::optional<LayerEntry> entry, changes.Next());
//     if (!entry.has_value()) break;
//     ... entry->kind, entry->path ...
//   }
//
// An entry is there if something really differs: type, owner, mode, time,
// extended attributes, device number, target, content. A file that overlayfs
// copied up and nobody changed is none, unless it has several names. A
// directory is also changed if anything in it is. Of what was removed with all
// that is in it, only the top is listed.
//
// Order: a directory, what was deleted in it, its files, then its directories;
// each sorted by name. Thread-compatible.
#ifndef CAISSON_LIB_LAYER_LAYER_CHANGES_H_
#define CAISSON_LIB_LAYER_LAYER_CHANGES_H_

#include <sys/stat.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "caisson/id_range.h"
#include "caisson/layer_diff.h"
#include "caisson/unique_fd.h"
#include "lib/layer/file_attributes.h"
#include "lib/layer/overlay_view.h"
#include "lib/layer/unpack.h"

namespace caisson::layer {

struct LayerChangesOptions {
  // The layers that change something, and those below; each top first. They
  // must outlive the object.
  std::vector<BorrowedFd> tops;
  std::vector<BorrowedFd> lowers;
  LayerFormat format = LayerFormat::kOverlayTrusted;
  // What owners in `tops` mean: the user namespace that wrote there. Empty: the
  // same as in `lowers`.
  IdMap ids;
  uint64_t max_entries = 5'000'000;
  // Keeps what nobody changed: for a tree that is to be complete.
  bool all = false;
  // If set, only this name of the root, without the root itself; NOT_FOUND if
  // there is none.
  std::string only;
};

struct LayerEntry {
  LayerChange::Kind kind = LayerChange::kAdded;
  std::string path;  // relative, "." for the root
  // The rest not for kDeleted. `file` is valid until the next call of Next; of
  // a directory, only its status.
  OverlayFile file;
  FileAttributes attributes;  // as a tar has them
};

class LayerChanges final {
 public:
  explicit LayerChanges(LayerChangesOptions options);

  // nullopt after the last. An owner without a mapping, and a tree that was
  // written with redirect_dir or metacopy, is FAILED_PRECONDITION. What is
  // removed or replaced between two looks at it is left out. A path of more
  // than 4095 bytes is RESOURCE_EXHAUSTED.
  absl::StatusOr<std::optional<LayerEntry>> Next();

 private:
  // A directory on the way to where the walk is.
  struct Level {
    std::string path;  // "" for the root
    // Set as long as the directory itself has not been answered.
    std::optional<LayerEntry> self;
    bool lower = false;  // it is a directory in the lower layers, too
    std::vector<std::string> directories;  // still to be entered, last first
  };

  absl::StatusOr<LayerEntry> EntryOf(const std::string& dir, OverlayFile file);
  absl::StatusOr<bool> Differs(const LayerEntry& entry,
                               const OverlayFile& lower);
  absl::Status EnterDirectory(const std::string& dir, const std::string& name);
  static absl::Status KeepOnly(const std::string& name,
                               std::vector<OverlayFile>& files);
  absl::Status ListDirectory();
  absl::Status AddDeleted(const std::string& path,
                          const std::vector<OverlayFile>& files);
  absl::Status AddFile(OverlayFile file);
  absl::Status Add(LayerEntry entry);
  absl::Status AddPending();
  absl::Status CountEntry();

  const LayerChangesOptions options_;
  OverlayView tops_;
  OverlayView lowers_;
  bool started_ = false;
  uint64_t count_ = 0;
  std::vector<Level> levels_;
  // Of the directory that was entered last: what is none itself.
  std::vector<OverlayFile> files_;
  size_t next_file_ = 0;
  std::deque<LayerEntry> ready_;
};

// What a symbolic link says, and the data of a regular file. ABORTED if it is
// something else by now, which is not opened; NOT_FOUND if it is gone.
absl::StatusOr<std::string> LinkTargetOf(const LayerEntry& entry);
absl::StatusOr<UniqueFd> OpenFileOf(const LayerEntry& entry);

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_LAYER_CHANGES_H_
