#include "lib/layer/tar_sparse.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"
#include "lib/layer/tar_header.h"

namespace caisson::layer {
namespace {

constexpr size_t kPairNumber = 12;
// 10^18 is below 2^63: that many digits need no check for overflow.
constexpr int kMaxDigits = 18;

}  // namespace

absl::Status AddSparseExtent(uint64_t offset, uint64_t length,
                             size_t max_sparse_extents,
                             std::vector<TarExtent>& extents) {
  if (extents.size() >= max_sparse_extents) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the sparse map has more than max_sparse_extents (",
                     max_sparse_extents, ")"));
  }
  extents.push_back({offset, length});
  return absl::OkStatus();
}

absl::Status AddGnuSparsePairs(absl::string_view pairs,
                               size_t max_sparse_extents,
                               std::vector<TarExtent>& extents) {
  while (pairs.size() >= 2 * kPairNumber && pairs[0] != '\0') {
    const std::optional<int64_t> offset =
        TarNumber(pairs.substr(0, kPairNumber));
    const std::optional<int64_t> length =
        TarNumber(pairs.substr(kPairNumber, kPairNumber));
    if (!offset.has_value() || *offset < 0 || !length.has_value() ||
        *length < 0) {
      return absl::InvalidArgumentError("invalid number in the sparse map");
    }
    RETURN_IF_ERROR(AddSparseExtent(static_cast<uint64_t>(*offset),
                                    static_cast<uint64_t>(*length),
                                    max_sparse_extents, extents));
    pairs.remove_prefix(2 * kPairNumber);
  }
  return absl::OkStatus();
}

absl::Status CheckSparseExtents(const std::vector<TarExtent>& extents,
                                uint64_t size, uint64_t stored) {
  uint64_t end = 0;
  uint64_t total = 0;
  for (const TarExtent& extent : extents) {
    if (extent.offset < end || extent.offset > size ||
        extent.length > size - extent.offset) {
      return absl::InvalidArgumentError(absl::StrCat(
          "sparse region ", extent.offset, "+", extent.length,
          " overlaps another one or the end of the file at ", size));
    }
    end = extent.offset + extent.length;
    total += extent.length;
  }
  if (total != stored) {
    return absl::InvalidArgumentError(
        absl::StrCat("the sparse map describes ", total,
                     " bytes of data, the archive has ", stored));
  }
  return absl::OkStatus();
}

absl::Status SparseMapText::FinishLine() {
  if (digits_ == 0) {
    return absl::InvalidArgumentError("empty line in the sparse map");
  }
  if (!count_.has_value()) {
    count_ = number_;
    if (number_ > max_sparse_extents_) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the sparse map has ", number_,
                       " regions, more than max_sparse_extents (",
                       max_sparse_extents_, ")"));
    }
  } else if (!offset_.has_value()) {
    offset_ = number_;
  } else {
    RETURN_IF_ERROR(
        AddSparseExtent(*offset_, number_, max_sparse_extents_, extents_));
    offset_.reset();
  }
  number_ = 0;
  digits_ = 0;
  return absl::OkStatus();
}

absl::StatusOr<bool> SparseMapText::Feed(absl::string_view block) {
  for (const char c : block) {
    if (c == '\n') {
      RETURN_IF_ERROR(FinishLine());
      if (complete()) return true;
      continue;
    }
    if (!absl::ascii_isdigit(static_cast<unsigned char>(c)) ||
        ++digits_ > kMaxDigits) {
      return absl::InvalidArgumentError("invalid number in the sparse map");
    }
    number_ = number_ * 10 + static_cast<uint64_t>(c - '0');
  }
  return false;
}

}  // namespace caisson::layer
