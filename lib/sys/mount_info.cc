#include "lib/sys/mount_info.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/sys/open.h"

namespace caisson::sys {
namespace {

constexpr char kMountInfo[] = "/proc/thread-self/mountinfo";
constexpr size_t kMaxMountInfo = size_t{256} << 20;

// "\040" for a space, as the kernel writes it (seq_path()).
std::string Unescape(absl::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool escape = text[i] == '\\' && i + 3 < text.size() &&
                        text[i + 1] >= '0' && text[i + 1] <= '3';
    if (!escape) {
      result += text[i];
      continue;
    }
    result += static_cast<char>((text[i + 1] - '0') * 64 +
                                (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
    i += 3;
  }
  return result;
}

}  // namespace

std::optional<MountInfo> FindMountInfo(absl::string_view text, uint64_t id) {
  const std::string start = absl::StrCat(id, " ");
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    if (!absl::StartsWith(line, start)) continue;
    const std::vector<absl::string_view> fields = absl::StrSplit(line, ' ');
    MountInfo info;
    // 36 35 98:0 /root /mount/point rw,noatime [tags...] - ext3 source options
    constexpr size_t kMountPoint = 4;
    constexpr size_t kTags = 6;
    size_t i = kTags;
    for (; i < fields.size() && fields[i] != "-"; ++i) {
      info.shared = info.shared || absl::StartsWith(fields[i], "shared:");
      info.slave = info.slave || absl::StartsWith(fields[i], "master:");
    }
    if (i + 1 >= fields.size()) return std::nullopt;
    info.mount_point = Unescape(fields[kMountPoint]);
    info.type = std::string(fields[i + 1]);
    return info;
  }
  return std::nullopt;
}

absl::StatusOr<uint64_t> MountIdOf(BorrowedFd file, absl::string_view what) {
  struct statx status;
  if (::statx(file.get(), "", AT_EMPTY_PATH, STATX_MNT_ID, &status) == 0) {
    return status.stx_mnt_id;
  }
  return ErrnoError(errno, absl::StrCat("statx(", what, ", STATX_MNT_ID)"),
                    {.step = "statx", .path = what});
}

absl::StatusOr<MountInfo> MountInfoOf(BorrowedFd file, absl::string_view what) {
  ASSIGN_OR_RETURN(const uint64_t id, MountIdOf(file, what));
  ASSIGN_OR_RETURN(const UniqueFd table, Open(kMountInfo, O_RDONLY));
  ASSIGN_OR_RETURN(const std::string text,
                   ReadAll(table.borrow(), kMaxMountInfo, kMountInfo));
  std::optional<MountInfo> info = FindMountInfo(text, id);
  if (info.has_value()) return *std::move(info);
  return absl::NotFoundError(absl::StrCat(
      what, " lies in mount ", id, ", which is not in this mount namespace"));
}

}  // namespace caisson::sys
