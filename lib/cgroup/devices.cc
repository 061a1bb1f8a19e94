#include "lib/cgroup/devices.h"

#include <errno.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"

namespace caisson::cgroup {
namespace {

// Such a program has 4096 instructions at most, which any kernel takes.
constexpr size_t kMaxRegions = 400;

using Type = CgroupDeviceRule::Type;

uint8_t AccessOf(const CgroupDeviceRule& rule) {
  return (rule.mknod ? kMknod : 0) | (rule.read ? kRead : 0) |
         (rule.write ? kWrite : 0);
}

bool IsAbout(const CgroupDeviceRule& rule, char type) {
  return rule.type == Type::kAll ||
         (rule.type == Type::kCharacter) == (type == 'c');
}

// What is allowed in the region, where "*" is a number that no rule names.
uint8_t Evaluate(const CgroupDeviceRules& rules, char type,
                 std::optional<uint32_t> major, std::optional<uint32_t> minor) {
  uint8_t allowed = 0;
  for (const CgroupDeviceRule& rule : rules.rules) {
    if (!IsAbout(rule, type)) continue;
    if (rule.major.has_value() && rule.major != major) continue;
    if (rule.minor.has_value() && rule.minor != minor) continue;
    if (rule.allow) {
      allowed |= AccessOf(rule);
    } else {
      allowed &= static_cast<uint8_t>(~AccessOf(rule));
    }
  }
  return allowed;
}

void AddRegions(const CgroupDeviceRules& rules, char type,
                std::vector<DeviceRegion>& regions) {
  std::map<uint32_t, std::set<uint32_t>> majors;
  std::set<uint32_t> minors_of_all;
  for (const CgroupDeviceRule& rule : rules.rules) {
    if (!IsAbout(rule, type)) continue;
    if (rule.major.has_value()) {
      std::set<uint32_t>& minors = majors[*rule.major];
      if (rule.minor.has_value()) minors.insert(*rule.minor);
    } else if (rule.minor.has_value()) {
      minors_of_all.insert(*rule.minor);
    }
  }
  const auto add = [&](std::optional<uint32_t> major,
                       std::optional<uint32_t> minor) {
    regions.push_back(
        {type, major, minor, Evaluate(rules, type, major, minor)});
  };
  for (auto& [major, minors] : majors) {
    minors.insert(minors_of_all.begin(), minors_of_all.end());
    for (const uint32_t minor : minors) {
      if (regions.size() > kMaxRegions) return;
      add(major, minor);
    }
  }
  for (const auto& [major, minors] : majors) add(major, std::nullopt);
  for (const uint32_t minor : minors_of_all) add(std::nullopt, minor);
  add(std::nullopt, std::nullopt);
}

absl::StatusOr<std::optional<uint32_t>> ParseNumber(absl::string_view text) {
  if (text == "*") return std::optional<uint32_t>();
  uint32_t number = 0;
  if (!text.empty() &&
      std::all_of(text.begin(), text.end(), absl::ascii_isdigit) &&
      absl::SimpleAtoi(text, &number)) {
    return std::optional<uint32_t>(number);
  }
  return absl::InvalidArgumentError(
      absl::StrCat(Quoted(text), " is neither a number nor \"*\""));
}

absl::StatusOr<uint8_t> ParseAccess(absl::string_view text) {
  uint8_t access = 0;
  for (const char c : text) {
    const uint8_t bit = c == 'r'   ? kRead
                        : c == 'w' ? kWrite
                        : c == 'm' ? kMknod
                                   : 0;
    if (bit == 0 || (access & bit) != 0) {
      access = 0;
      break;
    }
    access |= bit;
  }
  if (access != 0) return access;
  return absl::InvalidArgumentError(
      absl::StrCat(Quoted(text), " is not some of \"rwm\""));
}

void SetAccess(uint8_t access, CgroupDeviceRule& rule) {
  rule.read = (access & kRead) != 0;
  rule.write = (access & kWrite) != 0;
  rule.mknod = (access & kMknod) != 0;
}

std::string NumberText(std::optional<uint32_t> number) {
  return number.has_value() ? absl::StrCat(*number) : "*";
}

absl::StatusOr<CgroupDeviceRule> ParseRule(absl::string_view text) {
  const std::vector<absl::string_view> words =
      absl::StrSplit(text, ' ', absl::SkipEmpty());
  CgroupDeviceRule rule;
  if (words.size() == 1 && words[0] == "a") return rule;
  const std::vector<absl::string_view> numbers =
      words.size() == 3 ? absl::StrSplit(words[1], ':')
                        : std::vector<absl::string_view>();
  if (numbers.size() != 2 || words[0].size() != 1 ||
      absl::string_view("acb").find(words[0][0]) == absl::string_view::npos) {
    return absl::InvalidArgumentError(
        "want \"TYPE MAJOR:MINOR ACCESS\" such as \"c 10:229 rwm\", or \"a\"");
  }
  if (words[0] != "a") {
    rule.type = words[0] == "c" ? Type::kCharacter : Type::kBlock;
  }
  ASSIGN_OR_RETURN(rule.major, ParseNumber(numbers[0]));
  ASSIGN_OR_RETURN(rule.minor, ParseNumber(numbers[1]));
  ASSIGN_OR_RETURN(const uint8_t access, ParseAccess(words[2]));
  SetAccess(access, rule);
  return rule;
}

}  // namespace

std::string AccessText(uint8_t access) {
  return absl::StrCat((access & kRead) != 0 ? "r" : "",
                      (access & kWrite) != 0 ? "w" : "",
                      (access & kMknod) != 0 ? "m" : "");
}

std::string RegionText(const DeviceRegion& region) {
  return absl::StrCat(std::string(1, region.type), " ",
                      NumberText(region.major), ":", NumberText(region.minor),
                      " ", AccessText(region.access));
}

absl::StatusOr<std::vector<DeviceRegion>> DeviceRegions(
    const CgroupDeviceRules& rules) {
  std::vector<DeviceRegion> regions;
  for (const char type : {'c', 'b'}) {
    // Refused before they are all made: a few rules can make a million.
    AddRegions(rules, type, regions);
    if (regions.size() > kMaxRegions) {
      return absl::InvalidArgumentError(absl::StrCat(
          "limits.devices: ", rules.rules.size(), " rules tell more than ",
          kMaxRegions, " sets of devices apart"));
    }
  }
  return regions;
}

}  // namespace caisson::cgroup

namespace caisson {

absl::StatusOr<CgroupDeviceRule> CgroupDeviceRule::Parse(absl::string_view text,
                                                         bool allow) {
  auto rule = cgroup::ParseRule(text);
  if (!rule.ok()) {
    return Annotate(rule.status(), absl::StrCat("device rule ", Quoted(text)));
  }
  rule->allow = allow;
  return rule;
}

absl::StatusOr<CgroupDeviceRule> CgroupDeviceRule::ForNode(
    const std::string& path, absl::string_view access) {
  struct stat st = {};
  if (::stat(path.c_str(), &st) != 0) {
    return ErrnoError(errno, absl::StrCat("stat(", Quoted(path), ")"),
                      {.step = "cgroup.devices", .path = path});
  }
  if (!S_ISCHR(st.st_mode) && !S_ISBLK(st.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat(Quoted(path), " is not a device node"));
  }
  CgroupDeviceRule rule;
  rule.allow = true;
  rule.type = S_ISCHR(st.st_mode) ? Type::kCharacter : Type::kBlock;
  rule.major = major(st.st_rdev);
  rule.minor = minor(st.st_rdev);
  ASSIGN_OR_RETURN(const uint8_t bits, cgroup::ParseAccess(access));
  cgroup::SetAccess(bits, rule);
  return rule;
}

std::string CgroupDeviceRule::ToString() const {
  return absl::StrCat(allow ? "allow " : "deny ",
                      type == Type::kAll     ? "a"
                      : type == Type::kBlock ? "b"
                                             : "c",
                      " ", cgroup::NumberText(major), ":",
                      cgroup::NumberText(minor), " ",
                      cgroup::AccessText(cgroup::AccessOf(*this)));
}

// oci/defaults.go of moby and specconv.AllowedDevices of runc. /dev/net/tun was
// taken out by both runc and crun, and put back because users missed it.
CgroupDeviceRules CgroupDeviceRules::ContainerDefault() {
  CgroupDeviceRules all;
  for (const CgroupDeviceRule::Type type :
       {CgroupDeviceRule::Type::kCharacter, CgroupDeviceRule::Type::kBlock}) {
    CgroupDeviceRule& rule = all.rules.emplace_back();
    rule.allow = true;
    rule.type = type;
    rule.read = rule.write = false;
  }
  const auto character = [&](uint32_t major, std::optional<uint32_t> minor) {
    CgroupDeviceRule& rule = all.rules.emplace_back();
    rule.allow = true;
    rule.type = CgroupDeviceRule::Type::kCharacter;
    rule.major = major;
    rule.minor = minor;
  };
  character(1, 3);               // null
  character(1, 5);               // zero
  character(1, 7);               // full
  character(1, 8);               // random
  character(1, 9);               // urandom
  character(5, 0);               // tty
  character(5, 1);               // console
  character(5, 2);               // ptmx
  character(10, 200);            // net/tun
  character(136, std::nullopt);  // pts/*
  return all;
}

bool CgroupDeviceRules::Allows(CgroupDeviceRule::Type type, uint32_t major,
                               uint32_t minor, absl::string_view access) const {
  const auto wanted = cgroup::ParseAccess(access);
  if (!wanted.ok()) return false;
  const auto allows = [&](char c) {
    return (*wanted & ~cgroup::Evaluate(*this, c, major, minor)) == 0;
  };
  switch (type) {
    case CgroupDeviceRule::Type::kCharacter:
      return allows('c');
    case CgroupDeviceRule::Type::kBlock:
      return allows('b');
    case CgroupDeviceRule::Type::kAll:
      break;
  }
  return allows('c') && allows('b');
}

}  // namespace caisson
