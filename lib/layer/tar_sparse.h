// Sparse maps of GNU tar: old GNU (type S) and PAX 0.0, 0.1 and 1.0; see
// "Storing Sparse Files" in its manual. Internal to tar_reader.h.
#ifndef CAISSON_LIB_LAYER_TAR_SPARSE_H_
#define CAISSON_LIB_LAYER_TAR_SPARSE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lib/layer/tar_reader.h"

namespace caisson::layer {

// Appends a region; RESOURCE_EXHAUSTED beyond `max_sparse_extents`.
absl::Status AddSparseExtent(uint64_t offset, uint64_t length,
                             size_t max_sparse_extents,
                             std::vector<TarExtent>& extents);

// Appends the pairs of 12-byte numbers in a header up to the first empty one.
absl::Status AddGnuSparsePairs(absl::string_view pairs,
                               size_t max_sparse_extents,
                               std::vector<TarExtent>& extents);

// Regions ascend without overlap and end within `size`, and their lengths add
// up to `stored`, the data that the archive has.
absl::Status CheckSparseExtents(const std::vector<TarExtent>& extents,
                                uint64_t size, uint64_t stored);

// The map of version 1.0: decimal lines at the start of the data, a count and
// that many pairs, padded to a block.
class SparseMapText final {
 public:
  explicit SparseMapText(size_t max_sparse_extents)
      : max_sparse_extents_(max_sparse_extents) {}

  // Takes the next block; true when the map is complete.
  absl::StatusOr<bool> Feed(absl::string_view block);

  // Precondition: Feed has answered true.
  std::vector<TarExtent> TakeExtents() { return std::move(extents_); }

 private:
  absl::Status FinishLine();
  bool complete() const {
    return count_.has_value() && extents_.size() == *count_ &&
           !offset_.has_value();
  }

  const size_t max_sparse_extents_;
  uint64_t number_ = 0;  // of the line so far
  int digits_ = 0;
  std::optional<uint64_t> count_;
  std::optional<uint64_t> offset_;
  std::vector<TarExtent> extents_;
};

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_TAR_SPARSE_H_
