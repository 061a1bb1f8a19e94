#include "lib/launcher/process_note.h"

#include <optional>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "caisson/cgroup_layout.h"
#include "lib/base/errno_error.h"
#include "lib/base/record.h"
#include "lib/base/status_macros.h"

namespace caisson::launcher {
namespace {

constexpr char kType[] = "caisson-note";

absl::Status Unreadable(absl::string_view key) {
  return absl::DataLossError(
      absl::StrCat("the note of the detached process has no readable ", key));
}

std::optional<CgroupController> ControllerOf(absl::string_view name) {
  for (int i = 0; i < kCgroupControllerCount; ++i) {
    const auto controller = static_cast<CgroupController>(i);
    if (CgroupControllerName(controller) == name) return controller;
  }
  return std::nullopt;
}

std::string GroupValue(const CgroupPath& place) {
  return absl::StrCat(
      place.version == CgroupVersion::kV2 ? "2" : "1",
      place.killed ? "-killed " : " ",
      absl::StrJoin(place.controllers, ",",
                    [](std::string* out, CgroupController controller) {
                      absl::StrAppend(out, CgroupControllerName(controller));
                    }),
      " ", absl::CEscape(place.directory));
}

// "2 cpu,memory /sys/fs/cgroup/...", "2-killed cpu,memory /sys/fs/cgroup/..."
std::optional<CgroupPath> ParseGroup(absl::string_view value) {
  const std::vector<absl::string_view> parts =
      absl::StrSplit(value, absl::MaxSplits(' ', 2));
  CgroupPath place;
  if (parts.size() != 3 || !absl::CUnescape(parts[2], &place.directory)) {
    return std::nullopt;
  }
  place.killed = parts[0] == "2-killed";
  place.version =
      place.killed || parts[0] == "2" ? CgroupVersion::kV2 : CgroupVersion::kV1;
  for (const absl::string_view name :
       absl::StrSplit(parts[1], ',', absl::SkipEmpty())) {
    const auto controller = ControllerOf(name);
    if (!controller) return std::nullopt;
    place.controllers.push_back(*controller);
  }
  return place;
}

}  // namespace

std::string WriteNote(const ProcessNote& note) {
  Record record(kType);
  record.Add("first_namespaces", absl::StrCat(note.first_namespaces));
  record.Add("second_namespaces", absl::StrCat(note.second_namespaces));
  record.Add("own_pid_namespace", absl::StrCat(note.own_pid_namespace));
  record.Add("has_init", absl::StrCat(note.has_init));
  record.Add("default_policy", absl::StrCat(note.default_policy));
  record.Add("oom_kills_before", absl::StrCat(note.oom_kills_before));
  for (const CgroupPath& place : note.group) {
    record.Add("group", GroupValue(place));
  }
  for (const std::string& what : note.descriptors) {
    record.Add("descriptor", what);
  }
  return record.ToString();
}

absl::StatusOr<ProcessNote> ReadNote(absl::string_view text) {
  auto parsed = Record::Parse(kType, text);
  if (!parsed.ok()) {
    return Annotate(parsed.status(), "the note of the detached process");
  }
  const Record& record = *parsed;
  ProcessNote note;
  absl::Status status;
  auto read = [&](absl::string_view key, auto parse, auto* value) {
    const auto text_of = record.Get(key);
    if (!text_of.ok() || !parse(*text_of, value))
      status.Update(Unreadable(key));
  };
  const auto number = [](const std::string& word, auto* value) {
    return absl::SimpleAtoi(word, value);
  };
  const auto boolean = [](const std::string& word, bool* value) {
    return absl::SimpleAtob(word, value);
  };
  read("first_namespaces", number, &note.first_namespaces);
  read("second_namespaces", number, &note.second_namespaces);
  read("own_pid_namespace", boolean, &note.own_pid_namespace);
  read("has_init", boolean, &note.has_init);
  read("default_policy", boolean, &note.default_policy);
  read("oom_kills_before", number, &note.oom_kills_before);
  for (const std::string& value : record.GetAll("group")) {
    auto place = ParseGroup(value);
    if (!place) return Unreadable("group");
    note.group.push_back(*std::move(place));
  }
  note.descriptors = record.GetAll("descriptor");
  RETURN_IF_ERROR(status);
  return note;
}

}  // namespace caisson::launcher
