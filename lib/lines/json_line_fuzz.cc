// Any bytes: as a line they are read or refused, as text they come back from a
// line as they went in, but for what is not UTF-8, wherever they are cut.
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "lib/lines/json_line.h"

namespace {

using namespace caisson::lines;  // NOLINT: the one thing that is tested

void Require(bool condition) {
  if (!condition) abort();
}

std::string Json(absl::string_view text) {
  std::string json;
  AppendJsonString(json, text);
  return json;
}

std::string ThereAndBack(absl::string_view text) {
  const std::string json = Json(text);
  Require(json.find('\n') == std::string::npos);
  std::optional<std::string> value;
  Require(ReadStrings(absl::StrCat("{\"k\":", json, "}"),
                      [&value](absl::string_view object, absl::string_view name,
                               std::string& read) {
                        Require(object.empty() && name == "k");
                        value = read;
                      }));
  Require(value.has_value());
  return *value;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  ReadStrings(text, [](absl::string_view, absl::string_view, std::string&) {});
  if (const auto time = ParseLineTime(text); time.has_value()) {
    Require(ParseLineTime(FormatLineTime(*time)).has_value());
  }
  const std::string all = ThereAndBack(text);
  Require(ThereAndBack(all) == all);
  if (size == 0) return 0;
  const absl::string_view before = text.substr(0, data[0] % size);
  const size_t incomplete = IncompleteCharacter(before);
  Require(incomplete <= 3 && incomplete <= before.size());
  const size_t cut = before.size() - incomplete;
  Require(ThereAndBack(text.substr(0, cut)) + ThereAndBack(text.substr(cut)) ==
          all);
  return 0;
}
