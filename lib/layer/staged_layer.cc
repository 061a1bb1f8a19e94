#include "lib/layer/staged_layer.h"

#include <utility>

#include "lib/base/status_macros.h"
#include "lib/layer/store_dir.h"
#include "lib/sys/directory.h"

namespace caisson::layer {

absl::StatusOr<std::unique_ptr<StagedLayer>> StagedLayer::Create(
    BorrowedFd parent, const std::string& name, UnpackOptions options) {
  std::unique_ptr<StagedLayer> layer(new StagedLayer);
  RETURN_IF_ERROR(sys::MakeDirectory(parent, name, 0700));
  ASSIGN_OR_RETURN(const UniqueFd dir, sys::OpenDirectory(parent, name));
  RETURN_IF_ERROR(sys::MakeDirectory(dir.borrow(), kDiff, 0700));
  ASSIGN_OR_RETURN(const UniqueFd diff,
                   sys::OpenDirectory(dir.borrow(), kDiff));
  RETURN_IF_ERROR(layer->split_.Create(dir.borrow(), kTarSplit));
  options.split = &layer->split_;
  ASSIGN_OR_RETURN(layer->unpack_, LayerUnpack::Open(diff.borrow(), options));
  return layer;
}

absl::Status StagedLayer::Write(ByteSource& tar) {
  RETURN_IF_ERROR(unpack_->Apply(tar));
  return split_.Finish();
}

absl::StatusOr<UnpackStats> StagedLayer::Finish(
    std::optional<absl::Span<const BorrowedFd>> lowers) {
  return unpack_->Finish(lowers);
}

absl::Status StagedLayer::KeepWhole(BorrowedFd parent, const std::string& name,
                                    ByteSource& tar) {
  constexpr size_t kBuffer = 64 << 10;
  ASSIGN_OR_RETURN(const UniqueFd dir, sys::OpenDirectory(parent, name));
  TarSplitWriter split;
  RETURN_IF_ERROR(split.Create(dir.borrow(), kTarSplit));
  const auto buffer = std::make_unique<char[]>(kBuffer);
  for (;;) {
    ASSIGN_OR_RETURN(const size_t n,
                     tar.Read(absl::MakeSpan(buffer.get(), kBuffer)));
    if (n == 0) return split.Finish();
    split.Raw(absl::string_view(buffer.get(), n));
  }
}

}  // namespace caisson::layer
