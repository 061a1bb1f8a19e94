// JSON objects of strings, one on a line: written fast, read with suspicion.
//
// Functions only: thread-safe.
#ifndef CAISSON_LIB_LINES_JSON_LINE_H_
#define CAISSON_LIB_LINES_JSON_LINE_H_

#include <cstddef>
#include <optional>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace caisson::lines {

// Appends `text` as a JSON string with its quotes. Control characters are
// escaped, so that it has no line break; each byte that is not part of valid
// UTF-8 becomes U+FFFD, as Go's encoding/json does it.
void AppendJsonString(std::string& json, absl::string_view text);

// How many bytes at the end of `text` begin a character of UTF-8 and lack its
// rest: 0 to 3.
size_t IncompleteCharacter(absl::string_view text);

// "2026-11-21T23:00:00.123456789Z": always nine digits and UTC, so that the
// texts sort as the times do.
std::string FormatLineTime(absl::Time time);
// RFC 3339, any number of digits and any zone; nothing for other texts.
std::optional<absl::Time> ParseLineTime(absl::string_view text);

// Calls `field` for each string of an object and for each in an object directly
// in it, whose name is `object` (otherwise empty). False if `line` is not one
// JSON object; some calls may have been made then. Other values are ignored.
using StringField = absl::FunctionRef<void(
    absl::string_view object, absl::string_view name, std::string& value)>;
bool ReadStrings(absl::string_view line, StringField field);

}  // namespace caisson::lines

#endif  // CAISSON_LIB_LINES_JSON_LINE_H_
