// Unpacking layers in tests and looking at the result as overlayfs shows it.
#ifndef CAISSON_LIB_LAYER_TEST_UNPACK_H_
#define CAISSON_LIB_LAYER_TEST_UNPACK_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lib/layer/test_dir.h"
#include "lib/layer/unpack.h"

namespace caisson::layer {

// Unpacks a whole tar in memory.
absl::StatusOr<UnpackStats> Unpack(absl::string_view tar, const TestDir& dir,
                                   const UnpackOptions& options = {});

// Some layers, bottom first, each unpacked onto the ones below it.
class TestLayers final {
 public:
  explicit TestLayers(LayerFormat format = LayerFormat::kOverlayTrusted)
      : format_(format) {}

  absl::Status Add(absl::string_view tar);

  // The directory of layer `i`; for kPlain there is one for all.
  const TestDir& dir(size_t i) const { return *dirs_[i]; }
  const TestDir& top() const { return *dirs_.back(); }
  const UnpackStats& stats() const { return stats_; }  // of the last layer

  // TestDir::Dump of the tree as a container sees it: a read-only overlay of
  // all layers, or the one directory of kPlain.
  absl::StatusOr<std::string> Merged() const;
  // The names in Merged, separated by spaces.
  absl::StatusOr<std::string> MergedNames() const;

 private:
  absl::StatusOr<UniqueFd> Mount() const;

  const LayerFormat format_;
  std::vector<std::unique_ptr<TestDir>> dirs_;
  UnpackStats stats_;
};

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_TEST_UNPACK_H_
