#include "lib/layer/tar_writer.h"

#include <cstdint>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/layer/tar_header.h"

namespace caisson::layer {
namespace {

using Records = std::map<std::string, std::string>;

char TypeFlag(TarType type) {
  switch (type) {
    case TarType::kFile:
      return '0';
    case TarType::kHardlink:
      return '1';
    case TarType::kSymlink:
      return '2';
    case TarType::kCharDevice:
      return '3';
    case TarType::kBlockDevice:
      return '4';
    case TarType::kDirectory:
      return '5';
    case TarType::kFifo:
      return '6';
  }
  return '0';
}

// What fits a field of `size` bytes in octal with a NUL behind it.
constexpr uint64_t MaxOctal(TarField field) {
  return (uint64_t{1} << (3 * (field.size - 1))) - 1;
}

void Put(std::string& block, TarField field, absl::string_view text) {
  text = text.substr(0, field.size);
  block.replace(field.offset, text.size(), text.data(), text.size());
}

// A number that does not fit is in the PAX header, and 0 here.
void PutNumber(std::string& block, TarField field, uint64_t number) {
  if (number > MaxOctal(field)) number = 0;
  Put(block, field,
      absl::StrFormat("%0*o", static_cast<int>(field.size - 1), number));
}

std::string Block(const TarEntry& entry, char type) {
  std::string block(kTarBlock, '\0');
  Put(block, tar_field::kName, entry.name);
  PutNumber(block, tar_field::kMode, entry.mode & 07777);
  PutNumber(block, tar_field::kUid, entry.uid);
  PutNumber(block, tar_field::kGid, entry.gid);
  PutNumber(block, tar_field::kSize, entry.size);
  PutNumber(block, tar_field::kMtime,
            entry.mtime_sec < 0 ? 0 : static_cast<uint64_t>(entry.mtime_sec));
  block[tar_field::kType.offset] = type;
  Put(block, tar_field::kLinkname, entry.linkname);
  Put(block, tar_field::kMagic, absl::string_view("ustar\00000", 8));
  PutNumber(block, tar_field::kDevmajor, entry.devmajor);
  PutNumber(block, tar_field::kDevminor, entry.devminor);
  Put(block, tar_field::kChecksum, "        ");
  uint64_t sum = 0;
  for (const char c : block) sum += static_cast<uint8_t>(c);
  // Six digits, NUL, space: as everybody writes it.
  Put(block, tar_field::kChecksum, absl::StrFormat("%06o", sum));
  block[tar_field::kChecksum.offset + 6] = '\0';
  return block;
}

// "12.345", "-1.5": what ParsePaxTime reads.
std::string PaxTime(int64_t sec, int32_t nsec) {
  if (nsec == 0) return absl::StrCat(sec);
  const bool negative = sec < 0;
  if (negative) {
    sec = -(sec + 1);
    nsec = 1'000'000'000 - nsec;
  }
  std::string fraction = absl::StrFormat("%09d", nsec);
  fraction.erase(fraction.find_last_not_of('0') + 1);
  return absl::StrCat(negative ? "-" : "", sec, ".", fraction);
}

absl::StatusOr<Records> RecordsOf(const TarEntry& entry) {
  Records records;
  if (entry.name.size() > tar_field::kName.size) records["path"] = entry.name;
  if (entry.linkname.size() > tar_field::kLinkname.size) {
    records["linkpath"] = entry.linkname;
  }
  const auto number = [&records](const char* key, TarField field,
                                 uint64_t value) {
    if (value > MaxOctal(field)) records[key] = absl::StrCat(value);
  };
  number("uid", tar_field::kUid, entry.uid);
  number("gid", tar_field::kGid, entry.gid);
  number("size", tar_field::kSize, entry.size);
  if (entry.mtime_nsec != 0 || entry.mtime_sec < 0 ||
      static_cast<uint64_t>(entry.mtime_sec) > MaxOctal(tar_field::kMtime)) {
    records["mtime"] = PaxTime(entry.mtime_sec, entry.mtime_nsec);
  }
  for (const auto& [key, value] : entry.xattrs) {
    if (key.find('=') != std::string::npos) {
      return absl::InvalidArgumentError(absl::StrCat(
          Quoted(entry.name), ": the extended attribute ", Quoted(key),
          " has a \"=\" in its name, which a tar cannot say"));
    }
    records[absl::StrCat("SCHILY.xattr.", key)] = value;
  }
  return records;
}

// A record begins with its own length, in decimal.
std::string PaxRecord(absl::string_view key, absl::string_view value) {
  const size_t rest = key.size() + value.size() + 3;  // " ", "=" and newline
  size_t length = rest + absl::StrCat(rest).size();
  length = rest + absl::StrCat(length).size();
  return absl::StrCat(length, " ", key, "=", value, "\n");
}

}  // namespace

absl::StatusOr<std::string> TarHeaderOf(const TarEntry& entry) {
  if (entry.name.find('\0') != std::string::npos ||
      entry.linkname.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("name with a NUL: ", Quoted(entry.name)));
  }
  ASSIGN_OR_RETURN(const Records records, RecordsOf(entry));
  if (records.empty()) return Block(entry, TypeFlag(entry.type));
  std::string payload;
  for (const auto& [key, value] : records) payload += PaxRecord(key, value);
  TarEntry pax;
  // Only readers without PAX show this name.
  pax.name = absl::StrCat("PaxHeaders.0/", entry.name.substr(0, 80));
  pax.mode = 0644;
  pax.size = payload.size();
  std::string header = Block(pax, 'x');
  payload.append(TarPadding(payload.size()), '\0');
  return absl::StrCat(header, payload, Block(entry, TypeFlag(entry.type)));
}

std::string TarEnd() { return std::string(2 * kTarBlock, '\0'); }

}  // namespace caisson::layer
