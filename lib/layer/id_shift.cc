#include "lib/layer/id_shift.h"

#include <linux/capability.h>
#include <linux/posix_acl_xattr.h>

#include <cstdint>
#include <cstring>
#include <optional>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"

namespace caisson::layer {
namespace {

// linux/posix_acl.h of the kernel, which is not exported.
constexpr uint16_t kAclUser = 0x02;
constexpr uint16_t kAclGroup = 0x08;

std::optional<uint32_t> Inside(const std::vector<IdRange>& ranges,
                               uint32_t outside) {
  for (const IdRange& range : ranges) {
    if (outside >= range.outside && outside - range.outside < range.count) {
      return range.inside + (outside - range.outside);
    }
  }
  return std::nullopt;
}

absl::Status Shift(const std::vector<IdRange>& ranges, const char* what,
                   const std::string& path, uint32_t& id) {
  const std::optional<uint32_t> inside = Inside(ranges, id);
  if (!inside.has_value()) {
    return absl::FailedPreconditionError(absl::StrCat(
        Quoted(path), " belongs to ", what, " ", id,
        " of the host, which the maps in DiffOptions::ids do not have"));
  }
  id = *inside;
  return absl::OkStatus();
}

template <typename T>
T Get(const std::string& value, size_t offset) {
  T number;
  std::memcpy(&number, value.data() + offset, sizeof(number));
  return number;
}

template <typename T>
void Set(std::string& value, size_t offset, T number) {
  std::memcpy(value.data() + offset, &number, sizeof(number));
}

// A version and entries of 8 bytes: tag, permissions, id; little-endian, as
// both architectures are.
absl::Status ShiftAcl(const IdMap& ids, const std::string& path,
                      std::string& value) {
  for (size_t at = sizeof(posix_acl_xattr_header);
       at + sizeof(posix_acl_xattr_entry) <= value.size();
       at += sizeof(posix_acl_xattr_entry)) {
    const uint16_t tag = Get<uint16_t>(value, at);
    if (tag != kAclUser && tag != kAclGroup) continue;
    uint32_t id = Get<uint32_t>(value, at + 4);
    RETURN_IF_ERROR(tag == kAclUser ? Shift(ids.users, "user", path, id)
                                    : Shift(ids.groups, "group", path, id));
    Set(value, at + 4, id);
  }
  return absl::OkStatus();
}

// Capabilities that a user namespace gave are of revision 3, with the host's id
// of its root; inside they are of revision 2 (capabilities(7)).
void ShiftCapability(const IdMap& ids, std::string& value) {
  if (value.size() != XATTR_CAPS_SZ_3) return;
  const uint32_t magic = Get<uint32_t>(value, 0);
  if ((magic & VFS_CAP_REVISION_MASK) != VFS_CAP_REVISION_3) return;
  if (Inside(ids.users, Get<uint32_t>(value, XATTR_CAPS_SZ_2)) != 0u) return;
  Set(value, 0, (magic & ~VFS_CAP_REVISION_MASK) | VFS_CAP_REVISION_2);
  value.resize(XATTR_CAPS_SZ_2);
}

}  // namespace

absl::Status ShiftIds(const IdMap& ids, const std::string& path,
                      FileAttributes& attributes) {
  if (ids.users.empty() && ids.groups.empty()) return absl::OkStatus();
  RETURN_IF_ERROR(Shift(ids.users, "user", path, attributes.uid));
  RETURN_IF_ERROR(Shift(ids.groups, "group", path, attributes.gid));
  for (auto& [key, value] : attributes.xattrs) {
    if (absl::StartsWith(key, "system.posix_acl_")) {
      RETURN_IF_ERROR(ShiftAcl(ids, path, value));
    } else if (key == "security.capability") {
      ShiftCapability(ids, value);
    }
  }
  return absl::OkStatus();
}

}  // namespace caisson::layer
