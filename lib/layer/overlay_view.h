// Several layers on disk, seen as overlayfs would show them: what a name is,
// and what a directory has. Nothing is mounted.
//
//   OverlayView lowers(roots, LayerFormat::kOverlayTrusted);  // top first
//   ASSIGN_OR_RETURN(std::optional<OverlayFile> file, lowers.Find("etc", "x"));
#ifndef CAISSON_LIB_LAYER_OVERLAY_VIEW_H_
#define CAISSON_LIB_LAYER_OVERLAY_VIEW_H_

#include <sys/stat.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "caisson/unique_fd.h"
#include "lib/layer/lower_layers.h"
#include "lib/layer/unpack.h"

namespace caisson::layer {

// A character device 0:0.
bool IsWhiteout(const struct stat& status);

// Reads only, and follows no symbolic link. Keeps the directories on the way to
// the one last asked for open, as long as these are few. Thread-compatible.
class OverlayView final : public LowerLayers {
 public:
  // `roots` top first; nullopt if the layers are not known, then nothing is
  // ever found.
  OverlayView(std::optional<absl::Span<const BorrowedFd>> roots,
              LayerFormat format)
      : roots_(roots), format_(format) {}

  bool known() const override { return roots_.has_value(); }

  // LowerLayers:
  absl::StatusOr<std::optional<OverlayFile>> Find(
      const std::string& dir, const std::string& name) override;
  absl::StatusOr<std::vector<OverlayFile>> List(
      const std::string& dir) override {
    return List(dir, UINT64_MAX);
  }
  absl::StatusOr<FileAttributes> Attributes(const std::string& dir,
                                            const std::string& name) override;
  absl::Status CopyUp(const std::string& dir, const std::string& name,
                      BorrowedFd to, const std::string& to_name,
                      const std::string& path) override;

  // The same; more than `limit` is RESOURCE_EXHAUSTED.
  absl::StatusOr<std::vector<OverlayFile>> List(const std::string& dir,
                                                uint64_t limit);

  // Whether the directory `dir` would show nothing of layers further down: it
  // or one above it is opaque, or hides another file.
  absl::StatusOr<bool> IsClosed(const std::string& dir);

 private:
  // The directories that merge into one, top first.
  struct Level {
    std::string name;
    std::vector<UniqueFd> dirs;
    bool closed = false;
  };

  absl::Status Enter(const std::string& dir);
  absl::Status Descend(absl::string_view name);
  absl::Status OpenRoots();

  std::optional<absl::Span<const BorrowedFd>> roots_;
  LayerFormat format_;
  std::vector<Level>
      levels_;           // from the root; what is on the way may be closed
  size_t reusable_ = 0;  // levels_ before this one have given up theirs
};

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_OVERLAY_VIEW_H_
