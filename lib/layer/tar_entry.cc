#include "lib/layer/tar_entry.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"

namespace caisson::layer {
namespace {

constexpr uint64_t kMaxUint32 = std::numeric_limits<uint32_t>::max();

absl::Status Malformed(absl::string_view problem) {
  return absl::InvalidArgumentError(problem);
}

// The type of an entry; nullopt for flags that no entry has.
std::optional<TarType> TypeOf(char flag) {
  switch (flag) {
    case '0':
    case '\0':
    case '7':  // contiguous
    case 'S':  // GNU sparse
      return TarType::kFile;
    case '1':
      return TarType::kHardlink;
    case '2':
      return TarType::kSymlink;
    case '3':
      return TarType::kCharDevice;
    case '4':
      return TarType::kBlockDevice;
    case '5':
    case 'D':  // GNU directory with a list of names as data
      return TarType::kDirectory;
    case '6':
      return TarType::kFifo;
    default:
      return std::nullopt;
  }
}

// A field that no archive has negative, or what PAX says instead.
absl::Status SetNumber(const TarHeader& header, TarField field,
                       absl::string_view name,
                       const std::optional<uint64_t>& pax, uint64_t max,
                       uint64_t& out) {
  const std::optional<int64_t> number = header.Number(field);
  if (!number.has_value()) {
    return Malformed(absl::StrCat("the ", name, " is not a number"));
  }
  if (*number < 0) return Malformed(absl::StrCat("the ", name, " is negative"));
  out = pax.value_or(static_cast<uint64_t>(*number));
  if (out > max) {
    return Malformed(
        absl::StrCat("the ", name, " (", out, ") is greater than ", max));
  }
  return absl::OkStatus();
}

// What PAX and GNU headers say; GNU tar and Go prefer one or the other where
// both do and differ.
absl::Status Merge(absl::string_view what, std::optional<std::string> pax,
                   std::optional<std::string> gnu, std::string& out) {
  if (pax.has_value() && gnu.has_value() && *pax != *gnu) {
    return Malformed(
        absl::StrCat("PAX and GNU headers give it two different ", what));
  }
  if (!pax.has_value()) pax = std::move(gnu);
  if (pax.has_value()) out = *std::move(pax);
  return absl::OkStatus();
}

absl::Status SetNames(const TarHeader& header, const TarLimits& limits,
                      TarExtensions& extensions, TarEntry& entry) {
  const absl::string_view prefix = header.Prefix();
  const absl::string_view name = header.Text(tar_field::kName);
  entry.name =
      prefix.empty() ? std::string(name) : absl::StrCat(prefix, "/", name);
  std::optional<std::string> pax_name;
  std::optional<std::string> pax_linkname;
  if (extensions.pax.has_value()) {
    PaxRecords& pax = *extensions.pax;
    pax_name =
        std::move(pax.sparse_name.has_value() ? pax.sparse_name : pax.path);
    pax_linkname = std::move(pax.linkpath);
  }
  RETURN_IF_ERROR(Merge("names", std::move(pax_name),
                        std::move(extensions.long_name), entry.name));
  if (entry.name.empty()) return Malformed("the name is empty");

  const bool is_link =
      entry.type == TarType::kHardlink || entry.type == TarType::kSymlink;
  if (is_link) {
    entry.linkname = std::string(header.Text(tar_field::kLinkname));
    RETURN_IF_ERROR(Merge("link targets", std::move(pax_linkname),
                          std::move(extensions.long_linkname), entry.linkname));
    if (entry.linkname.empty()) return Malformed("the link target is empty");
  }
  const size_t name_size =
      entry.name.size() - (absl::EndsWith(entry.name, "/") ? 1 : 0);
  if (std::max(name_size, entry.linkname.size()) > limits.max_path_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the name or link target is longer than max_path_bytes (",
                     limits.max_path_bytes, ")"));
  }
  return absl::OkStatus();
}

absl::Status SetAttributes(const TarHeader& header, TarExtensions& extensions,
                           TarEntry& entry) {
  uint64_t mode = 0;
  uint64_t uid = 0;
  uint64_t gid = 0;
  PaxRecords none;
  PaxRecords& pax = extensions.pax.has_value() ? *extensions.pax : none;
  constexpr uint64_t kMaxNumber = std::numeric_limits<int64_t>::max();
  RETURN_IF_ERROR(SetNumber(header, tar_field::kMode, "mode", std::nullopt,
                            kMaxNumber, mode));
  RETURN_IF_ERROR(
      SetNumber(header, tar_field::kUid, "uid", pax.uid, kMaxUint32 - 1, uid));
  RETURN_IF_ERROR(
      SetNumber(header, tar_field::kGid, "gid", pax.gid, kMaxUint32 - 1, gid));
  entry.mode = static_cast<uint32_t>(mode & 07777);
  entry.uid = static_cast<uint32_t>(uid);
  entry.gid = static_cast<uint32_t>(gid);
  const std::optional<int64_t> mtime = header.Number(tar_field::kMtime);
  if (!mtime.has_value()) return Malformed("the mtime is not a number");
  const PaxTime time = pax.mtime.value_or(PaxTime{*mtime, 0});
  entry.mtime_sec = time.sec;
  entry.mtime_nsec = time.nsec;
  entry.xattrs.reserve(pax.xattrs.size());
  for (auto& [key, value] : pax.xattrs) {
    entry.xattrs.emplace_back(key, std::move(value));
  }
  return absl::OkStatus();
}

absl::Status SetDevice(const TarHeader& header, const TarExtensions& extensions,
                       TarEntry& entry) {
  PaxRecords none;
  const PaxRecords& pax = extensions.pax.has_value() ? *extensions.pax : none;
  uint64_t major = pax.devmajor.value_or(0);
  uint64_t minor = pax.devminor.value_or(0);
  // v7 has other bytes in the place of these fields.
  if (header.Dialect() != TarDialect::kV7) {
    RETURN_IF_ERROR(SetNumber(header, tar_field::kDevmajor, "device major",
                              pax.devmajor, kMaxUint32, major));
    RETURN_IF_ERROR(SetNumber(header, tar_field::kDevminor, "device minor",
                              pax.devminor, kMaxUint32, minor));
  }
  if (std::max(major, minor) > kMaxUint32) {
    return Malformed("the device number is greater than 2^32-1");
  }
  entry.devmajor = static_cast<uint32_t>(major);
  entry.devminor = static_cast<uint32_t>(minor);
  return absl::OkStatus();
}

}  // namespace

absl::Status FillTarEntry(const TarHeader& header, const TarLimits& limits,
                          TarExtensions& extensions, TarEntry& entry,
                          uint64_t& stored) {
  const std::optional<TarType> type = TypeOf(header.type());
  if (!type.has_value()) {
    const char flag = header.type();
    return Malformed(absl::StrCat(
        "its type ", Quoted(absl::string_view(&flag, 1)), " is not supported"));
  }
  entry.type = *type;
  RETURN_IF_ERROR(SetNames(header, limits, extensions, entry));
  // v7 marks directories by their name alone.
  if (header.type() == '\0' && absl::EndsWith(entry.name, "/")) {
    entry.type = TarType::kDirectory;
  }
  RETURN_IF_ERROR(SetAttributes(header, extensions, entry));
  if (entry.type == TarType::kCharDevice ||
      entry.type == TarType::kBlockDevice) {
    RETURN_IF_ERROR(SetDevice(header, extensions, entry));
  }
  RETURN_IF_ERROR(SetNumber(
      header, tar_field::kSize, "size",
      extensions.pax.has_value() ? extensions.pax->size : std::nullopt,
      std::numeric_limits<int64_t>::max(), stored));
  if (entry.type == TarType::kFile) {
    entry.size = stored;
  } else if (header.type() != 'D') {
    stored = 0;
  }
  return absl::OkStatus();
}

}  // namespace caisson::layer
