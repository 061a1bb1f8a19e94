#include "lib/volume/volume_record.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/errno_error.h"
#include "lib/base/record.h"
#include "lib/base/status_macros.h"

namespace caisson::volume {
namespace {

constexpr char kVolumeType[] = "caisson-volume";
constexpr char kUseType[] = "caisson-volume-use";
constexpr size_t kMaxName = 255;          // NAME_MAX
constexpr size_t kMaxLabels = 60 * 1024;  // less than Record::kMaxSize
constexpr size_t kMaxQuotedName = 300;

absl::Status Damaged(absl::string_view key, absl::string_view value) {
  return absl::DataLossError(
      absl::StrCat("a record has ", key, " ", Quoted(value)));
}

absl::StatusOr<int64_t> GetNumber(const Record& record, absl::string_view key) {
  ASSIGN_OR_RETURN(const std::string text, record.Get(key));
  int64_t number = 0;
  if (absl::SimpleAtoi(text, &number)) return number;
  return Damaged(key, text);
}

std::string RenderLabel(absl::string_view key, absl::string_view value) {
  return absl::StrCat(absl::CHexEscape(key), "=", absl::CHexEscape(value));
}

}  // namespace

absl::Status CheckName(absl::string_view name) {
  const bool characters = std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' ||
           c == '.' || c == '-';
  });
  if (!name.empty() && name.size() <= kMaxName && characters &&
      absl::ascii_isalnum(static_cast<unsigned char>(name.front()))) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "name of a volume: ", Quoted(name.substr(0, kMaxQuotedName)),
      ", expected a letter or digit, then up to 254 letters, digits, \"_\", "
      "\".\" and \"-\""));
}

absl::Status CheckLabels(const VolumeLabels& labels) {
  size_t size = 0;
  for (const auto& [key, value] : labels) {
    if (key.empty() || key.find('=') != std::string::npos) {
      return absl::InvalidArgumentError(
          absl::StrCat("VolumeOptions.labels: the key ", Quoted(key),
                       key.empty() ? "" : " has a \"=\"", " is no key"));
    }
    size += RenderLabel(key, value).size() + sizeof("label \n");
  }
  if (size <= kMaxLabels) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("VolumeOptions.labels: they take ", size, " bytes of ",
                   kMaxLabels, " that a record has for them"));
}

std::string RenderVolume(const VolumeInfo& info) {
  Record record(kVolumeType);
  record.Add("name", info.name);
  record.Add("created", absl::StrCat(absl::ToUnixNanos(info.created)));
  record.Add("anonymous", info.anonymous ? "1" : "0");
  for (const auto& [key, value] : info.labels) {
    record.Add("label", RenderLabel(key, value));
  }
  return record.ToString();
}

absl::StatusOr<VolumeInfo> ParseVolume(absl::string_view text) {
  ASSIGN_OR_RETURN(const Record record, Record::Parse(kVolumeType, text));
  VolumeInfo info;
  ASSIGN_OR_RETURN(info.name, record.Get("name"));
  ASSIGN_OR_RETURN(const int64_t created, GetNumber(record, "created"));
  info.created = absl::FromUnixNanos(created);
  ASSIGN_OR_RETURN(const int64_t anonymous, GetNumber(record, "anonymous"));
  info.anonymous = anonymous != 0;
  for (const std::string& line : record.GetAll("label")) {
    const std::pair<absl::string_view, absl::string_view> parts =
        absl::StrSplit(line, absl::MaxSplits('=', 1));
    std::string key;
    std::string value;
    if (!absl::CUnescape(parts.first, &key) ||
        !absl::CUnescape(parts.second, &value)) {
      return Damaged("label", line);
    }
    info.labels[std::move(key)] = std::move(value);
  }
  return info;
}

std::string RenderUser(const VolumeUser& user) {
  Record record(kUseType);
  record.Add("user", absl::CHexEscape(user.name));
  record.Add("pid", absl::StrCat(user.pid));
  return record.ToString();
}

absl::StatusOr<VolumeUser> ParseUser(absl::string_view text) {
  ASSIGN_OR_RETURN(const Record record, Record::Parse(kUseType, text));
  VolumeUser user;
  ASSIGN_OR_RETURN(const std::string name, record.Get("user"));
  if (!absl::CUnescape(name, &user.name)) return Damaged("user", name);
  ASSIGN_OR_RETURN(const int64_t pid, GetNumber(record, "pid"));
  user.pid = static_cast<pid_t>(pid);
  return user;
}

std::string DescribeUsers(const std::vector<VolumeUser>& users) {
  std::string text;
  for (const VolumeUser& user : users) {
    const bool uses_it =
        std::any_of(users.begin(), users.end(), [&](const VolumeUser& other) {
          return other.hold.empty() && other.name == user.name;
        });
    if (!user.hold.empty() && uses_it) continue;
    absl::StrAppend(&text, text.empty() ? "" : ", ", Quoted(user.name));
    absl::StrAppend(&text, user.hold.empty()
                               ? absl::StrCat(" (process ", user.pid, ")")
                               : " (not running)");
  }
  return text;
}

bool Matches(const VolumeFilter& filter, const VolumeInfo& info) {
  if (filter.in_use.has_value() && *filter.in_use == info.users.empty()) {
    return false;
  }
  for (const auto& [key, value] : filter.labels) {
    const auto found = info.labels.find(key);
    if (found == info.labels.end()) return false;
    if (value.has_value() && *value != found->second) return false;
  }
  return true;
}

}  // namespace caisson::volume
