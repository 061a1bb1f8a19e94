// One layer on its way from a stream into a directory of its own.
//
//   ASSIGN_OR_RETURN(auto layer, StagedLayer::Create(dir, "new", options));
//   RETURN_IF_ERROR(layer->Write(tar));                // needs no other layer
//   ASSIGN_OR_RETURN(UnpackStats stats, layer->Finish(lowers));
//
// Whatever looks at the tar that the author of an image has written is behind
// this interface: a stream of bytes, a directory and limits go in; a tree, its
// tar-split and counts come out.
#ifndef CAISSON_LIB_LAYER_STAGED_LAYER_H_
#define CAISSON_LIB_LAYER_STAGED_LAYER_H_

#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "caisson/unique_fd.h"
#include "lib/layer/byte_source.h"
#include "lib/layer/tar_split.h"
#include "lib/layer/unpack.h"

namespace caisson::layer {

// Thread-compatible; layers in different directories are independent of each
// other. After an error the directory holds a partial layer.
class StagedLayer final {
 public:
  // Makes the directory `name` in `parent`, with an empty diff/ and tar-split.
  // The limits and progress are those of `options`; its lowers and split are
  // not used.
  static absl::StatusOr<std::unique_ptr<StagedLayer>> Create(
      BorrowedFd parent, const std::string& name, UnpackOptions options);

  // Reads `tar` to its very end. Call once.
  absl::Status Write(ByteSource& tar);

  // Completes the layer, for which those below it (UnpackOptions::lowers) must
  // be complete. Call once, after Write.
  absl::StatusOr<UnpackStats> Finish(
      std::optional<absl::Span<const BorrowedFd>> lowers);

  // For a layer that lacks some of its data (UnpackStats::replaced): makes its
  // tar-split hold all of `tar`.
  static absl::Status KeepWhole(BorrowedFd parent, const std::string& name,
                                ByteSource& tar);

 private:
  StagedLayer() = default;

  TarSplitWriter split_;
  std::unique_ptr<LayerUnpack> unpack_;
};

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_STAGED_LAYER_H_
