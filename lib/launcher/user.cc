#include "lib/launcher/user.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"

namespace caisson::launcher {
namespace {

// 2^32 - 1 means "unchanged" to the kernel.
constexpr uint64_t kMaxId = 4294967294;

// Digits only; nullopt for anything else. The wrap of a larger number to 0 was
// CVE-2024-40635.
std::optional<uint32_t> ParseId(absl::string_view text) {
  if (text.empty() || text.size() > 10) return std::nullopt;
  uint64_t value = 0;
  for (const char c : text) {
    if (!absl::ascii_isdigit(c)) return std::nullopt;
    value = value * 10 + static_cast<uint64_t>(c - '0');
  }
  if (value > kMaxId) return std::nullopt;
  return static_cast<uint32_t>(value);
}

// True if `text` is meant as a number, well-formed or not.
bool LooksNumeric(absl::string_view text) {
  const size_t start = text[0] == '-' || text[0] == '+' ? 1 : 0;
  return text.size() > start &&
         std::all_of(text.begin() + start, text.end(), absl::ascii_isdigit);
}

struct PasswdEntry {
  absl::string_view name;
  uint32_t uid;
  uint32_t gid;
  absl::string_view home;
};

struct GroupEntry {
  absl::string_view name;
  uint32_t gid;
  absl::string_view members;
};

std::vector<PasswdEntry> ParsePasswd(absl::string_view text) {
  std::vector<PasswdEntry> entries;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::vector<absl::string_view> f = absl::StrSplit(line, ':');
    if (f.size() != 7 || f[0].empty()) continue;
    const auto uid = ParseId(f[2]);
    const auto gid = ParseId(f[3]);
    if (uid && gid) entries.push_back({f[0], *uid, *gid, f[5]});
  }
  return entries;
}

std::vector<GroupEntry> ParseGroup(absl::string_view text) {
  std::vector<GroupEntry> entries;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::vector<absl::string_view> f = absl::StrSplit(line, ':');
    if (f.size() != 4 || f[0].empty()) continue;
    const auto gid = ParseId(f[2]);
    if (gid) entries.push_back({f[0], *gid, f[3]});
  }
  return entries;
}

absl::Status NotFound(absl::string_view kind, absl::string_view name,
                      absl::string_view file) {
  return absl::NotFoundError(absl::StrCat("ProcessSpec.user: ", kind, " ",
                                          Quoted(name),
                                          " is not in the root's ", file));
}

absl::Status BadNumber(absl::string_view kind, absl::string_view text) {
  return absl::InvalidArgumentError(
      absl::StrCat("ProcessSpec.user: ", kind, " id ", Quoted(text),
                   " is not a number from 0 to ", kMaxId));
}

absl::Status FindUser(absl::string_view name, absl::string_view passwd,
                      User& user, std::string& login) {
  const auto id = ParseId(name);
  for (const PasswdEntry& entry : ParsePasswd(passwd)) {
    // A name made of digits is a number: "0" is root whatever a hostile passwd
    // file calls its users.
    if (id ? entry.uid != *id : entry.name != name) continue;
    user.uid = entry.uid;
    user.gid = entry.gid;
    login = std::string(entry.name);
    if (absl::string_view(entry.home).substr(0, 1) == "/") {
      user.home = std::string(entry.home);
    }
    return absl::OkStatus();
  }
  if (id) {
    user.uid = *id;
    return absl::OkStatus();
  }
  if (LooksNumeric(name)) return BadNumber("user", name);
  return NotFound("user", name, "/etc/passwd");
}

absl::Status FindGroup(absl::string_view name, absl::string_view group,
                       User& user) {
  const auto id = ParseId(name);
  if (id) {
    user.gid = *id;
    return absl::OkStatus();
  }
  if (name.empty() || LooksNumeric(name)) return BadNumber("group", name);
  for (const GroupEntry& entry : ParseGroup(group)) {
    if (entry.name != name) continue;
    user.gid = entry.gid;
    return absl::OkStatus();
  }
  return NotFound("group", name, "/etc/group");
}

}  // namespace

absl::StatusOr<User> ResolveUser(absl::string_view spec,
                                 absl::string_view passwd,
                                 absl::string_view group) {
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(spec, absl::MaxSplits(':', 1));
  const bool has_group = spec.find(':') != absl::string_view::npos;
  if (has_group && parts.first.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("ProcessSpec.user ", Quoted(spec), " names no user"));
  }
  User user;
  std::string login;
  RETURN_IF_ERROR(
      FindUser(parts.first.empty() ? "0" : parts.first, passwd, user, login));
  if (has_group) RETURN_IF_ERROR(FindGroup(parts.second, group, user));
  // The own group is listed, too: a set-group-ID program could drop it
  // otherwise and pass a check for "not this group" (CVE-2022-36109).
  user.groups = {user.gid};
  if (has_group || login.empty()) return user;
  for (const GroupEntry& entry : ParseGroup(group)) {
    const std::vector<absl::string_view> members =
        absl::StrSplit(entry.members, ',');
    if (std::find(members.begin(), members.end(), login) != members.end() &&
        entry.gid != user.gid) {
      user.groups.push_back(entry.gid);
    }
  }
  return user;
}

}  // namespace caisson::launcher
