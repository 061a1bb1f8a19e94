// The layer tar of what LayerChanges finds, made while it is read: the same
// changes are always the same bytes.
//
//   LayerTarSource tar({.changes = {.tops = {upper}, .lowers = roots}});
//   ... tar.Read(buffer) ...
//
// Deleted names are explicit whiteouts (OCI image-spec, layer.md), never opaque
// marks. Of a file with several names the first one has the data and the others
// are hard links. Sockets are left out, which a tar cannot say; what they took
// the place of is deleted.
// Thread-compatible.
#ifndef CAISSON_LIB_LAYER_LAYER_TAR_H_
#define CAISSON_LIB_LAYER_LAYER_TAR_H_

#include <sys/stat.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "caisson/unique_fd.h"
#include "lib/layer/byte_source.h"
#include "lib/layer/layer_changes.h"
#include "lib/layer/tar_reader.h"

namespace caisson::layer {

struct LayerTarOptions {
  LayerChangesOptions changes;
  // For a tree that nobody takes for a layer: files may be called ".wh.x",
  // which is otherwise FAILED_PRECONDITION.
  bool plain = false;
  // If set, takes the place of LayerChangesOptions::only in names or, without
  // that, of the root.
  std::string name;
  uint64_t max_bytes = uint64_t{64} << 30;  // of files
  // As DiffOptions::progress.
  std::function<bool(uint64_t bytes)> progress;
};

class LayerTarSource final : public ByteSource {
 public:
  explicit LayerTarSource(LayerTarOptions options)
      : options_(std::move(options)), changes_(options_.changes) {}

  absl::StatusOr<size_t> Read(absl::Span<char> buffer) override;

 private:
  absl::Status Advance();
  std::string NameOf(const std::string& path) const;
  absl::Status AddEntry(const LayerEntry& change);
  absl::Status LeaveOut(const TarEntry& entry, const struct stat& status);
  absl::Status AddHeader(const TarEntry& entry);
  absl::Status StartFile(const LayerEntry& change, TarEntry& entry);
  absl::StatusOr<size_t> ReadData(absl::Span<char> buffer);
  absl::Status Report(size_t bytes);

  const LayerTarOptions options_;
  LayerChanges changes_;
  std::string pending_;  // headers and padding
  size_t given_ = 0;     // of pending_
  UniqueFd file_;        // whose data follows
  std::string path_;
  uint64_t offset_ = 0;
  uint64_t size_ = 0;
  bool ended_ = false;
  // The first name of files with several, by device and inode.
  std::map<std::pair<dev_t, ino_t>, std::string> links_;
  uint64_t file_bytes_ = 0;
  uint64_t bytes_ = 0;
  uint64_t reported_ = 0;
};

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_LAYER_TAR_H_
