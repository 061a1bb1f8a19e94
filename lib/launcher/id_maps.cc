#include "lib/launcher/id_maps.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/sys/helper_program.h"
#include "lib/sys/open.h"

namespace caisson::launcher {
namespace {

constexpr size_t kMaxFile = 16 << 20;

absl::StatusOr<std::string> ReadHostFile(const std::string& path) {
  ASSIGN_OR_RETURN(const UniqueFd file, sys::Open(path, O_RDONLY | O_NOCTTY));
  return sys::ReadAll(file.borrow(), kMaxFile, path);
}

absl::StatusOr<std::string> FindProgram(const std::string& name,
                                        const IdFiles& files) {
  for (const std::string& directory : files.directories) {
    const std::string path = absl::StrCat(directory, "/", name);
    if (::access(path.c_str(), X_OK) == 0) return path;
  }
  return absl::FailedPreconditionError(
      absl::StrCat(name,
                   " is not installed (Debian, Ubuntu: package uidmap; Fedora: "
                   "shadow-utils)"));
}

absl::StatusOr<std::vector<IdRange>> FindRanges(
    const std::string& file, const std::vector<std::string>& owners,
    absl::string_view option) {
  auto text = ReadHostFile(file);
  std::vector<IdRange> ranges;
  if (text.ok()) ranges = ParseSubordinateIds(*text, owners);
  if (!ranges.empty()) return ranges;
  return absl::FailedPreconditionError(
      absl::StrCat(file, text.ok() ? "" : " cannot be read and", " gives ",
                   owners.front(), " no ids (as root: usermod ", option,
                   " 100000-165535 ", owners.front(), ")"));
}

absl::Status WriteMap(pid_t pid, absl::string_view name,
                      absl::string_view text) {
  const std::string path = absl::StrCat("/proc/", pid, "/", name);
  const UniqueFd file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  const bool written =
      file.valid() && ::write(file.get(), text.data(), text.size()) ==
                          static_cast<ssize_t>(text.size());
  if (written) return absl::OkStatus();
  const int error = errno;
  return ErrnoError(
      error,
      absl::StrCat(file.valid() ? "write" : "open", "(\"/proc/PID/", name,
                   "\")"),
      {.step = "launcher.user",
       .path = path,
       .hint = error == ENOENT ? "the host needs its /proc"
               : error == EPERM || error == EACCES
                   ? "the sysctl "
                     "kernel.apparmor_restrict_unprivileged_userns = 1 takes "
                     "the capabilities in a new user namespace away (Ubuntu); "
                     "the host program needs an AppArmor profile with "
                     "\"userns,\""
                   : ""});
}

std::string MapText(const IdRange& range) {
  return absl::StrCat(range.inside, " ", range.outside, " ", range.count, "\n");
}

absl::Status RunMapper(const std::string& program, pid_t pid,
                       const std::vector<IdRange>& map) {
  std::vector<std::string> argv = {program, absl::StrCat(pid)};
  for (const IdRange& range : map) {
    argv.push_back(absl::StrCat(range.inside));
    argv.push_back(absl::StrCat(range.outside));
    argv.push_back(absl::StrCat(range.count));
  }
  return sys::RunHelperProgram(argv);
}

}  // namespace

std::vector<std::string> NamesOf(absl::string_view passwd, uid_t uid) {
  std::vector<std::string> names;
  for (absl::string_view line : absl::StrSplit(passwd, '\n')) {
    const std::vector<absl::string_view> fields = absl::StrSplit(line, ':');
    uint32_t number;
    if (fields.size() >= 4 && !fields[0].empty() &&
        absl::SimpleAtoi(fields[2], &number) && number == uid) {
      names.emplace_back(fields[0]);
    }
  }
  return names;
}

std::vector<IdRange> ParseSubordinateIds(
    absl::string_view text, const std::vector<std::string>& owners) {
  std::vector<IdRange> ranges;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::vector<absl::string_view> fields = absl::StrSplit(line, ':');
    IdRange range;
    if (fields.size() != 3 ||
        std::find(owners.begin(), owners.end(), fields[0]) == owners.end() ||
        !absl::SimpleAtoi(fields[1], &range.outside) ||
        !absl::SimpleAtoi(fields[2], &range.count) || range.count == 0 ||
        range.count > std::numeric_limits<uint32_t>::max() - range.outside) {
      continue;
    }
    ranges.push_back(range);
  }
  return ranges;
}

std::vector<IdRange> BuildMap(uint32_t own,
                              const std::vector<IdRange>& others) {
  std::vector<IdRange> map = {{.inside = 0, .outside = own, .count = 1}};
  uint32_t next = 1;
  for (IdRange range : others) {
    // The last id is no id.
    range.count =
        std::min(range.count, std::numeric_limits<uint32_t>::max() - next);
    if (range.count == 0) break;
    range.inside = next;
    next += range.count;
    map.push_back(range);
  }
  return map;
}

absl::StatusOr<Subordinates> FindSubordinates(uid_t uid, const IdFiles& files) {
  Subordinates found;
  ASSIGN_OR_RETURN(found.newuidmap, FindProgram("newuidmap", files));
  ASSIGN_OR_RETURN(found.newgidmap, FindProgram("newgidmap", files));
  ASSIGN_OR_RETURN(const std::string passwd, ReadHostFile(files.passwd));
  std::vector<std::string> owners = NamesOf(passwd, uid);
  owners.push_back(absl::StrCat(uid));
  ASSIGN_OR_RETURN(found.users,
                   FindRanges(files.subuid, owners, "--add-subuids"));
  ASSIGN_OR_RETURN(found.groups,
                   FindRanges(files.subgid, owners, "--add-subgids"));
  return found;
}

std::vector<IdRange> ParseMap(absl::string_view text) {
  std::vector<IdRange> map;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::vector<absl::string_view> fields =
        absl::StrSplit(line, ' ', absl::SkipEmpty());
    IdRange range;
    if (fields.size() == 3 && absl::SimpleAtoi(fields[0], &range.inside) &&
        absl::SimpleAtoi(fields[1], &range.outside) &&
        absl::SimpleAtoi(fields[2], &range.count)) {
      map.push_back(range);
    }
  }
  return map;
}

absl::StatusOr<LauncherIdentity> IdentityOf(pid_t pid) {
  const std::string directory = absl::StrCat("/proc/", pid);
  LauncherIdentity identity;
  identity.own_user_namespace = true;
  ASSIGN_OR_RETURN(const std::string users,
                   ReadHostFile(directory + "/uid_map"));
  ASSIGN_OR_RETURN(const std::string groups,
                   ReadHostFile(directory + "/gid_map"));
  ASSIGN_OR_RETURN(const std::string setgroups,
                   ReadHostFile(directory + "/setgroups"));
  identity.users = ParseMap(users);
  identity.groups = ParseMap(groups);
  identity.setgroups = setgroups == "allow\n";
  if (identity.users.size() == 1 && identity.users[0].count == 1) {
    identity.why_single = "the launcher was made so by its first host";
  }
  return identity;
}

absl::StatusOr<LauncherIdentity> MapOwnIds(pid_t pid) {
  LauncherIdentity identity;
  identity.own_user_namespace = true;
  identity.setgroups = false;
  identity.users = BuildMap(::geteuid(), {});
  identity.groups = BuildMap(::getegid(), {});
  RETURN_IF_ERROR(WriteMap(pid, "uid_map", MapText(identity.users[0])));
  // The kernel's condition for a group map without privileges (CVE-2014-8989).
  RETURN_IF_ERROR(WriteMap(pid, "setgroups", "deny"));
  RETURN_IF_ERROR(WriteMap(pid, "gid_map", MapText(identity.groups[0])));
  return identity;
}

absl::StatusOr<LauncherIdentity> MapSubordinateIds(
    pid_t pid, const Subordinates& subordinates) {
  LauncherIdentity identity;
  identity.own_user_namespace = true;
  identity.users = BuildMap(::geteuid(), subordinates.users);
  identity.groups = BuildMap(::getegid(), subordinates.groups);
  RETURN_IF_ERROR(RunMapper(subordinates.newuidmap, pid, identity.users));
  RETURN_IF_ERROR(RunMapper(subordinates.newgidmap, pid, identity.groups));
  return identity;
}

}  // namespace caisson::launcher
