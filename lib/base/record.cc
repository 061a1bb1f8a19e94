#include "lib/base/record.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "lib/base/errno_error.h"

namespace caisson {
namespace {

constexpr char kVersion[] = " 1";
// The last line: a record without it was cut off.
constexpr char kEnd[] = "end\n";

}  // namespace

absl::StatusOr<Record> Record::Parse(absl::string_view type,
                                     absl::string_view text) {
  Record record{std::string(type)};
  const std::string header = absl::StrCat(type, kVersion, "\n");
  if (!absl::ConsumePrefix(&text, header) ||
      !absl::ConsumeSuffix(&text, kEnd)) {
    return absl::DataLossError(absl::StrCat(
        "not a whole record of type ", Quoted(absl::StrCat(type, kVersion))));
  }
  for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    const std::pair<absl::string_view, absl::string_view> parts =
        absl::StrSplit(line, absl::MaxSplits(' ', 1));
    record.Add(parts.first, parts.second);
  }
  return record;
}

void Record::Add(absl::string_view key, absl::string_view value) {
  lines_.emplace_back(std::string(key), std::string(value));
}

absl::StatusOr<std::string> Record::Get(absl::string_view key) const {
  for (const auto& [name, value] : lines_) {
    if (name == key) return value;
  }
  return absl::DataLossError(absl::StrCat("a record of type ", Quoted(type_),
                                          " lacks the key ", Quoted(key)));
}

std::vector<std::string> Record::GetAll(absl::string_view key) const {
  std::vector<std::string> values;
  for (const auto& [name, value] : lines_) {
    if (name == key) values.push_back(value);
  }
  return values;
}

std::string Record::ToString() const {
  std::string text = absl::StrCat(type_, kVersion, "\n");
  for (const auto& [key, value] : lines_) {
    absl::StrAppend(&text, key, " ", value, "\n");
  }
  return absl::StrCat(text, kEnd);
}

}  // namespace caisson
