#include "lib/layer/tar_header.h"

#include <algorithm>

#include "absl/strings/ascii.h"

namespace caisson::layer {
namespace {

std::optional<int64_t> ParseBase256(absl::string_view field) {
  const bool negative = (field[0] & 0x40) != 0;
  const uint8_t invert = negative ? 0xff : 0;
  uint64_t value = 0;
  for (size_t i = 0; i < field.size(); ++i) {
    uint8_t byte = static_cast<uint8_t>(field[i]) ^ invert;
    if (i == 0) byte &= 0x7f;
    if (value >> 55 != 0) return std::nullopt;
    value = value << 8 | byte;
  }
  return negative ? static_cast<int64_t>(~value) : static_cast<int64_t>(value);
}

bool IsPadding(char c) { return c == ' ' || c == '\0'; }

}  // namespace

absl::string_view TarText(absl::string_view field) {
  return field.substr(0, field.find('\0'));
}

std::optional<int64_t> TarNumber(absl::string_view field) {
  if (!field.empty() && (field[0] & 0x80) != 0) return ParseBase256(field);
  while (!field.empty() && IsPadding(field.front())) field.remove_prefix(1);
  while (!field.empty() && IsPadding(field.back())) field.remove_suffix(1);
  uint64_t value = 0;
  for (const char c : TarText(field)) {
    if (c < '0' || c > '7' || value >> 60 != 0) return std::nullopt;
    value = value << 3 | static_cast<uint64_t>(c - '0');
  }
  return static_cast<int64_t>(value);
}

absl::string_view TarHeader::Text(TarField field) const {
  return TarText(Raw(field));
}

std::optional<int64_t> TarHeader::Number(TarField field) const {
  return TarNumber(Raw(field));
}

bool TarHeader::ChecksumMatches() const {
  const std::optional<int64_t> stored = Number(tar_field::kChecksum);
  // Some old archivers summed signed characters.
  int64_t unsigned_sum = 0;
  int64_t signed_sum = 0;
  for (size_t i = 0; i < kTarBlock; ++i) {
    const bool blank =
        i >= tar_field::kChecksum.offset &&
        i < tar_field::kChecksum.offset + tar_field::kChecksum.size;
    const char c = blank ? ' ' : bytes_[i];
    unsigned_sum += static_cast<uint8_t>(c);
    signed_sum += static_cast<int8_t>(c);
  }
  return stored.has_value() &&
         (*stored == unsigned_sum || *stored == signed_sum);
}

TarDialect TarHeader::Dialect() const {
  const absl::string_view magic = Raw(tar_field::kMagic);
  if (magic == absl::string_view("ustar  \0", 8)) return TarDialect::kGnu;
  if (magic.substr(0, 6) != absl::string_view("ustar\0", 6)) {
    return TarDialect::kV7;
  }
  return Raw(tar_field::kStarMagic) == absl::string_view("tar\0", 4)
             ? TarDialect::kStar
             : TarDialect::kUstar;
}

absl::string_view TarHeader::Prefix() const {
  switch (Dialect()) {
    case TarDialect::kV7:
      return {};
    case TarDialect::kUstar:
      return Text(tar_field::kPrefix);
    case TarDialect::kStar:
      return Text(tar_field::kStarPrefix);
    case TarDialect::kGnu:
      break;
  }
  // GNU archives have times here. Go before 1.8 wrote a prefix nevertheless,
  // which is told by times that are no numbers.
  if (Number(tar_field::kGnuAtime).has_value() &&
      Number(tar_field::kGnuCtime).has_value()) {
    return {};
  }
  const absl::string_view prefix = Text(tar_field::kPrefix);
  return std::all_of(prefix.begin(), prefix.end(),
                     [](unsigned char c) { return absl::ascii_isascii(c); })
             ? prefix
             : absl::string_view();
}

}  // namespace caisson::layer
