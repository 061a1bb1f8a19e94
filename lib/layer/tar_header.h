// The 512-byte header block of tar archives: fields, numbers, dialects.
// Internal to tar_reader.h. See tar(5) of FreeBSD and POSIX.1-2001 pax.
#ifndef CAISSON_LIB_LAYER_TAR_HEADER_H_
#define CAISSON_LIB_LAYER_TAR_HEADER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/strings/string_view.h"

namespace caisson::layer {

inline constexpr size_t kTarBlock = 512;

// Bytes from `size` up to the next block boundary.
inline constexpr uint64_t TarPadding(uint64_t size) {
  return (kTarBlock - size % kTarBlock) % kTarBlock;
}

// Position and width of a field.
struct TarField {
  size_t offset;
  size_t size;
};

namespace tar_field {
inline constexpr TarField kName = {0, 100};
inline constexpr TarField kMode = {100, 8};
inline constexpr TarField kUid = {108, 8};
inline constexpr TarField kGid = {116, 8};
inline constexpr TarField kSize = {124, 12};
inline constexpr TarField kMtime = {136, 12};
inline constexpr TarField kChecksum = {148, 8};
inline constexpr TarField kType = {156, 1};
inline constexpr TarField kLinkname = {157, 100};
inline constexpr TarField kMagic = {257, 8};  // with the version
inline constexpr TarField kDevmajor = {329, 8};
inline constexpr TarField kDevminor = {337, 8};
inline constexpr TarField kPrefix = {345, 155};
inline constexpr TarField kStarPrefix = {345, 131};
inline constexpr TarField kStarMagic = {508, 4};
inline constexpr TarField kGnuAtime = {345, 12};
inline constexpr TarField kGnuCtime = {357, 12};
inline constexpr TarField kGnuSparse = {386, 96};  // 4 pairs
inline constexpr TarField kGnuIsExtended = {482, 1};
inline constexpr TarField kGnuRealSize = {483, 12};
// Of the blocks that continue a sparse map.
inline constexpr TarField kSparseContinued = {0, 504};  // 21 pairs
inline constexpr TarField kSparseIsExtended = {504, 1};
}  // namespace tar_field

enum class TarDialect { kV7, kUstar, kStar, kGnu };

// A copy of one header block.
class TarHeader final {
 public:
  // Precondition: block.size() == kTarBlock.
  explicit TarHeader(absl::string_view block) {
    block.copy(bytes_.data(), bytes_.size());
  }

  absl::string_view Raw(TarField field) const {
    return absl::string_view(bytes_.data() + field.offset, field.size);
  }
  // Up to the first NUL.
  absl::string_view Text(TarField field) const;
  // nullopt if the field is not a number or does not fit.
  std::optional<int64_t> Number(TarField field) const;

  bool ChecksumMatches() const;
  TarDialect Dialect() const;
  char type() const { return Raw(tar_field::kType)[0]; }
  // The part of the name that ustar and star keep apart; empty if there is
  // none.
  absl::string_view Prefix() const;

 private:
  std::array<char, kTarBlock> bytes_;
};

// `field` up to its first NUL.
absl::string_view TarText(absl::string_view field);

// An octal number with spaces or NULs around it, or a big-endian two's
// complement one ("base-256") if the first bit is set. An empty field is 0.
std::optional<int64_t> TarNumber(absl::string_view field);

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_TAR_HEADER_H_
