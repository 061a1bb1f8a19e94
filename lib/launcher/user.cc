#include "lib/launcher/user.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"

namespace caisson::launcher {
namespace {

// 2^32 - 1 means "unchanged" to the kernel.
constexpr uint64_t kMaxId = 4294967294;

// NGROUPS_MAX
constexpr size_t kMaxGroups = 65536;

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

// The fields of a line; empty if they are not `count` or if the line is no
// entry of the file itself: without a name, or one that refers to NIS ("+",
// "-name"), whose ids are not the file's to say. C libraries read a line up to
// a NUL only, so nobody agrees with us on what one with a NUL says.
std::vector<absl::string_view> Fields(absl::string_view line, size_t count) {
  std::vector<absl::string_view> fields =
      absl::StrSplit(line, absl::MaxSplits(':', count));
  if (fields.size() != count || fields[0].empty() || fields[0][0] == '+' ||
      fields[0][0] == '-' || absl::StrContains(line, '\0')) {
    fields.clear();
  }
  return fields;
}

std::vector<PasswdEntry> ParsePasswd(absl::string_view text) {
  std::vector<PasswdEntry> entries;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::vector<absl::string_view> f = Fields(line, 7);
    if (f.empty()) continue;
    const auto uid = ParseId(f[2]);
    const auto gid = ParseId(f[3]);
    if (uid && gid) entries.push_back({f[0], *uid, *gid, f[5]});
  }
  return entries;
}

std::vector<GroupEntry> ParseGroup(absl::string_view text) {
  std::vector<GroupEntry> entries;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::vector<absl::string_view> f = Fields(line, 4);
    if (f.empty()) continue;
    const auto gid = ParseId(f[2]);
    if (gid) entries.push_back({f[0], *gid, f[3]});
  }
  return entries;
}

constexpr char kUserField[] = "ProcessSpec.user";
constexpr char kGroupsField[] = "ProcessSpec.additional_groups";

absl::Status NotFound(absl::string_view field, absl::string_view kind,
                      absl::string_view name, absl::string_view file) {
  return absl::NotFoundError(absl::StrCat(field, ": ", kind, " ", Quoted(name),
                                          " is not in the root's ", file));
}

absl::Status BadNumber(absl::string_view field, absl::string_view kind,
                       absl::string_view text) {
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": ", kind, " id ", Quoted(text),
                   " is not a number from 0 to ", kMaxId));
}

absl::Status FindUser(absl::string_view name, absl::string_view passwd,
                      User& user, std::string& login) {
  // A name made of digits is a number, and a bad one if it is too large: "0" is
  // root, and 2^32 nobody, whatever a hostile passwd file calls its users.
  const auto id = ParseId(name);
  if (!id && LooksNumeric(name)) return BadNumber(kUserField, "user", name);
  for (const PasswdEntry& entry : ParsePasswd(passwd)) {
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
  return NotFound(kUserField, "user", name, "/etc/passwd");
}

absl::StatusOr<gid_t> FindGroup(absl::string_view field, absl::string_view name,
                                absl::string_view group) {
  const auto id = ParseId(name);
  if (id) return *id;
  if (name.empty() || LooksNumeric(name))
    return BadNumber(field, "group", name);
  for (const GroupEntry& entry : ParseGroup(group)) {
    if (entry.name == name) return entry.gid;
  }
  return NotFound(field, "group", name, "/etc/group");
}

bool IsMember(absl::string_view members, absl::string_view login) {
  for (const absl::string_view member : absl::StrSplit(members, ',')) {
    if (member == login) return true;
  }
  return false;
}

// Appends the groups that list `login`, each once.
absl::Status AddGroupsOf(const std::string& login, absl::string_view group,
                         User& user) {
  std::set<gid_t> known(user.groups.begin(), user.groups.end());
  for (const GroupEntry& entry : ParseGroup(group)) {
    if (known.count(entry.gid) != 0 || !IsMember(entry.members, login)) {
      continue;
    }
    if (known.size() == kMaxGroups) {
      return absl::FailedPreconditionError(absl::StrCat(
          "ProcessSpec.user: the root's /etc/group lists ", Quoted(login),
          " in more groups than the ", kMaxGroups, " that a process can have"));
    }
    known.insert(entry.gid);
    user.groups.push_back(entry.gid);
  }
  return absl::OkStatus();
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
  if (has_group) {
    ASSIGN_OR_RETURN(user.gid, FindGroup(kUserField, parts.second, group));
  }
  // The own group is listed, too: a set-group-ID program could drop it
  // otherwise and pass a check for "not this group" (CVE-2022-36109).
  user.groups = {user.gid};
  if (has_group || login.empty()) return user;
  RETURN_IF_ERROR(AddGroupsOf(login, group, user));
  return user;
}

absl::Status AddGroups(const std::vector<std::string>& names,
                       absl::string_view group, User& user) {
  for (const std::string& name : names) {
    ASSIGN_OR_RETURN(const gid_t gid, FindGroup(kGroupsField, name, group));
    if (std::find(user.groups.begin(), user.groups.end(), gid) ==
        user.groups.end()) {
      user.groups.push_back(gid);
    }
  }
  return absl::OkStatus();
}

}  // namespace caisson::launcher
