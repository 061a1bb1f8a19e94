#include "lib/layer/pax_records.h"

#include <limits>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"

namespace caisson::layer {
namespace {

constexpr absl::string_view kXattrPrefix = "SCHILY.xattr.";
constexpr absl::string_view kSparsePrefix = "GNU.sparse.";
constexpr uint64_t kMaxNumber = std::numeric_limits<int64_t>::max();

absl::Status BadRecord(absl::string_view key, absl::string_view problem) {
  return absl::InvalidArgumentError(
      absl::StrCat("PAX record ", Quoted(key), ": ", problem));
}

bool HasNul(absl::string_view text) {
  return text.find('\0') != absl::string_view::npos;
}

absl::Status SetText(absl::string_view key, absl::string_view value,
                     std::optional<std::string>& field) {
  if (HasNul(value)) return BadRecord(key, "contains a NUL");
  field.reset();
  if (!value.empty()) field = std::string(value);
  return absl::OkStatus();
}

absl::Status SetNumber(absl::string_view key, absl::string_view value,
                       std::optional<uint64_t>& field) {
  field.reset();
  if (value.empty()) return absl::OkStatus();
  field = ParseDecimal(value);
  if (!field.has_value()) {
    return BadRecord(key, absl::StrCat(Quoted(value.substr(0, 40)),
                                       " is not a number in 0..2^63-1"));
  }
  return absl::OkStatus();
}

absl::Status SetXattr(absl::string_view key, absl::string_view value,
                      PaxRecords& records) {
  const absl::string_view name = absl::StripPrefix(key, kXattrPrefix);
  if (name.empty() || HasNul(name)) return BadRecord(key, "no attribute name");
  records.xattrs[std::string(name)] = std::string(value);
  return absl::OkStatus();
}

absl::Status AddToSparseMap(absl::string_view key, absl::string_view value,
                            size_t max_sparse_extents, PaxRecords& records) {
  const std::optional<uint64_t> number = ParseDecimal(value);
  if (!number.has_value()) {
    return BadRecord(key, absl::StrCat(Quoted(value.substr(0, 40)),
                                       " is not a number in 0..2^63-1"));
  }
  if (records.sparse_map.size() / 2 >= max_sparse_extents) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the sparse map has more than max_sparse_extents (",
                     max_sparse_extents, ")"));
  }
  records.sparse_map.push_back(*number);
  return absl::OkStatus();
}

// Version 0.1 has the whole map in one record.
absl::Status SetSparseMap(absl::string_view key, absl::string_view value,
                          size_t max_sparse_extents, PaxRecords& records) {
  if (!records.sparse_map.empty()) return BadRecord(key, "a second sparse map");
  records.sparse_map_is_text = true;
  for (const absl::string_view number : absl::StrSplit(value, ',')) {
    RETURN_IF_ERROR(AddToSparseMap(key, number, max_sparse_extents, records));
  }
  return absl::OkStatus();
}

// Version 0.0 has a pair of records for each region.
absl::Status AddSparsePair(absl::string_view key, bool is_offset,
                           absl::string_view value, size_t max_sparse_extents,
                           PaxRecords& records) {
  if (records.sparse_map_is_text) return BadRecord(key, "a second sparse map");
  if ((records.sparse_map.size() % 2 == 0) != is_offset) {
    return BadRecord(key, "offset and numbytes do not alternate");
  }
  return AddToSparseMap(key, value, max_sparse_extents, records);
}

absl::Status SetSparse(absl::string_view key, absl::string_view value,
                       size_t max_sparse_extents, PaxRecords& records) {
  const absl::string_view name = absl::StripPrefix(key, kSparsePrefix);
  if (name == "major") return SetNumber(key, value, records.sparse_major);
  if (name == "minor") return SetNumber(key, value, records.sparse_minor);
  if (name == "name") return SetText(key, value, records.sparse_name);
  if (name == "size" || name == "realsize") {
    return SetNumber(key, value, records.sparse_size);
  }
  if (name == "numblocks") return SetNumber(key, value, records.sparse_blocks);
  if (name == "map")
    return SetSparseMap(key, value, max_sparse_extents, records);
  if (name == "offset" || name == "numbytes") {
    return AddSparsePair(key, name == "offset", value, max_sparse_extents,
                         records);
  }
  return absl::OkStatus();
}

absl::Status SetTime(absl::string_view key, absl::string_view value,
                     std::optional<PaxTime>& field) {
  field.reset();
  if (value.empty()) return absl::OkStatus();
  field = ParsePaxTime(value);
  if (!field.has_value()) {
    return BadRecord(
        key, absl::StrCat(Quoted(value.substr(0, 40)), " is not a time"));
  }
  return absl::OkStatus();
}

absl::Status SetRecord(absl::string_view key, absl::string_view value,
                       size_t max_sparse_extents, PaxRecords& records) {
  if (key == "path") return SetText(key, value, records.path);
  if (key == "linkpath") return SetText(key, value, records.linkpath);
  if (key == "size") return SetNumber(key, value, records.size);
  if (key == "uid") return SetNumber(key, value, records.uid);
  if (key == "gid") return SetNumber(key, value, records.gid);
  if (key == "mtime") return SetTime(key, value, records.mtime);
  if (key == "SCHILY.devmajor") return SetNumber(key, value, records.devmajor);
  if (key == "SCHILY.devminor") return SetNumber(key, value, records.devminor);
  if (absl::StartsWith(key, kXattrPrefix)) return SetXattr(key, value, records);
  if (absl::StartsWith(key, kSparsePrefix)) {
    return SetSparse(key, value, max_sparse_extents, records);
  }
  return absl::OkStatus();
}

// Splits the first record off `payload`.
absl::Status TakeRecord(absl::string_view& payload, absl::string_view& key,
                        absl::string_view& value) {
  const size_t space = payload.find(' ');
  const std::optional<uint64_t> length =
      space == absl::string_view::npos ? std::nullopt
                                       : ParseDecimal(payload.substr(0, space));
  // "N k=\n" is the shortest record.
  if (!length.has_value() || *length > payload.size() ||
      *length < space + 1 + 3 || payload[*length - 1] != '\n') {
    return absl::InvalidArgumentError(
        absl::StrCat("malformed PAX record ", Quoted(payload.substr(0, 40))));
  }
  const absl::string_view record =
      payload.substr(space + 1, *length - space - 2);
  const size_t equals = record.find('=');
  if (equals == absl::string_view::npos || equals == 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "PAX record without a key: ", Quoted(record.substr(0, 40))));
  }
  key = record.substr(0, equals);
  value = record.substr(equals + 1);
  payload.remove_prefix(*length);
  return absl::OkStatus();
}

}  // namespace

std::optional<uint64_t> ParseDecimal(absl::string_view text) {
  if (text.empty()) return std::nullopt;
  uint64_t value = 0;
  for (const char c : text) {
    if (!absl::ascii_isdigit(static_cast<unsigned char>(c))) {
      return std::nullopt;
    }
    const uint64_t digit = static_cast<uint64_t>(c - '0');
    if (value > (kMaxNumber - digit) / 10) return std::nullopt;
    value = value * 10 + digit;
  }
  return value;
}

std::optional<PaxTime> ParsePaxTime(absl::string_view text) {
  const bool negative = absl::ConsumePrefix(&text, "-");
  const size_t dot = text.find('.');
  const absl::string_view whole = text.substr(0, dot);
  const absl::string_view fraction =
      dot == absl::string_view::npos ? "" : text.substr(dot + 1);
  for (const char c : absl::StrCat(whole, fraction)) {
    if (!absl::ascii_isdigit(static_cast<unsigned char>(c))) {
      return std::nullopt;
    }
  }
  if (whole.empty()) return std::nullopt;
  PaxTime time;
  time.sec = static_cast<int64_t>(ParseDecimal(whole).value_or(kMaxNumber));
  int32_t unit = 100'000'000;
  for (const char c : fraction.substr(0, 9)) {
    time.nsec += (c - '0') * unit;
    unit /= 10;
  }
  if (negative) {
    time.sec = -time.sec;
    if (time.nsec > 0) {
      --time.sec;
      time.nsec = 1'000'000'000 - time.nsec;
    }
  }
  return time;
}

absl::StatusOr<PaxRecords> ParsePaxRecords(absl::string_view payload,
                                           size_t max_sparse_extents) {
  PaxRecords records;
  while (!payload.empty()) {
    absl::string_view key;
    absl::string_view value;
    RETURN_IF_ERROR(TakeRecord(payload, key, value));
    RETURN_IF_ERROR(SetRecord(key, value, max_sparse_extents, records));
  }
  if (records.sparse_map.size() % 2 != 0) {
    return absl::InvalidArgumentError("the PAX sparse map has an odd length");
  }
  return records;
}

}  // namespace caisson::layer
