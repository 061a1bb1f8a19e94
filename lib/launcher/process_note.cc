#include "lib/launcher/process_note.h"

#include <optional>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "caisson/cgroup_layout.h"
#include "lib/base/errno_error.h"

namespace caisson::launcher {
namespace {

constexpr char kFirstLine[] = "caisson-note 1";

std::optional<CgroupController> ControllerOf(absl::string_view name) {
  for (int i = 0; i < kCgroupControllerCount; ++i) {
    const auto controller = static_cast<CgroupController>(i);
    if (CgroupControllerName(controller) == name) return controller;
  }
  return std::nullopt;
}

std::string GroupLine(const CgroupPath& place) {
  return absl::StrCat(
      "group ", place.version == CgroupVersion::kV2 ? "2" : "1", " ",
      absl::StrJoin(place.controllers, ",",
                    [](std::string* out, CgroupController controller) {
                      absl::StrAppend(out, CgroupControllerName(controller));
                    }),
      " ", absl::CEscape(place.directory), "\n");
}

// "2 cpu,memory /sys/fs/cgroup/..."
std::optional<CgroupPath> ParseGroup(absl::string_view value) {
  const std::vector<absl::string_view> parts =
      absl::StrSplit(value, absl::MaxSplits(' ', 2));
  CgroupPath place;
  if (parts.size() != 3 || !absl::CUnescape(parts[2], &place.directory)) {
    return std::nullopt;
  }
  place.version = parts[0] == "2" ? CgroupVersion::kV2 : CgroupVersion::kV1;
  for (const absl::string_view name :
       absl::StrSplit(parts[1], ',', absl::SkipEmpty())) {
    const auto controller = ControllerOf(name);
    if (!controller) return std::nullopt;
    place.controllers.push_back(*controller);
  }
  return place;
}

bool ParseLine(absl::string_view key, absl::string_view value,
               ProcessNote& note) {
  if (key == "first_namespaces") {
    return absl::SimpleAtoi(value, &note.first_namespaces);
  }
  if (key == "second_namespaces") {
    return absl::SimpleAtoi(value, &note.second_namespaces);
  }
  if (key == "own_pid_namespace") {
    return absl::SimpleAtob(value, &note.own_pid_namespace);
  }
  if (key == "has_init") return absl::SimpleAtob(value, &note.has_init);
  if (key == "default_policy") {
    return absl::SimpleAtob(value, &note.default_policy);
  }
  if (key == "oom_kills_before") {
    return absl::SimpleAtoi(value, &note.oom_kills_before);
  }
  if (key == "group") {
    auto place = ParseGroup(value);
    if (place) note.group.push_back(*std::move(place));
    return place.has_value();
  }
  if (key == "descriptor") note.descriptors.emplace_back(value);
  // What a later version of the library may add is not for this one.
  return true;
}

}  // namespace

std::string WriteNote(const ProcessNote& note) {
  std::string text = absl::StrCat(
      kFirstLine, "\nfirst_namespaces ", note.first_namespaces,
      "\nsecond_namespaces ", note.second_namespaces, "\nown_pid_namespace ",
      note.own_pid_namespace ? 1 : 0, "\nhas_init ", note.has_init ? 1 : 0,
      "\ndefault_policy ", note.default_policy ? 1 : 0, "\noom_kills_before ",
      note.oom_kills_before, "\n");
  for (const CgroupPath& place : note.group) text += GroupLine(place);
  for (const std::string& what : note.descriptors) {
    absl::StrAppend(&text, "descriptor ", what, "\n");
  }
  return text + "end\n";
}

absl::StatusOr<ProcessNote> ReadNote(absl::string_view text) {
  const std::vector<absl::string_view> lines = absl::StrSplit(text, '\n');
  if (lines.size() < 3 || lines[lines.size() - 2] != "end") {
    return absl::DataLossError("the note of the detached process is cut off");
  }
  if (lines[0] != kFirstLine) {
    return absl::FailedPreconditionError(
        absl::StrCat("the detached process was left by another version of the "
                     "library, which writes ",
                     Quoted(lines[0].substr(0, 40)), "; this one reads ",
                     Quoted(kFirstLine)));
  }
  ProcessNote note;
  for (size_t i = 1; i + 2 < lines.size(); ++i) {
    const std::pair<absl::string_view, absl::string_view> parts =
        absl::StrSplit(lines[i], absl::MaxSplits(' ', 1));
    if (!ParseLine(parts.first, parts.second, note)) {
      return absl::DataLossError(
          absl::StrCat("the note of the detached process has an unreadable "
                       "line: ",
                       Quoted(lines[i].substr(0, 100))));
    }
  }
  return note;
}

}  // namespace caisson::launcher
