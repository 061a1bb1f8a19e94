#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "caisson/seccomp.h"
#include "lib/base/errno_error.h"

namespace caisson {
namespace {

constexpr size_t kShown = 200;

// The value of "key=" in `line`: one word.
std::optional<absl::string_view> Field(absl::string_view line,
                                       absl::string_view key) {
  for (const absl::string_view word :
       absl::StrSplit(line, absl::ByAnyChar(" \t\n"))) {
    if (word.size() > key.size() && word.substr(0, key.size()) == key &&
        word[key.size()] == '=') {
      return word.substr(key.size() + 1);
    }
  }
  return std::nullopt;
}

// In hexadecimal digits, as audit writes `arch` and arguments.
bool ParseHex(std::optional<absl::string_view> text, uint64_t* value) {
  return text.has_value() && text->size() <= 16 &&
         absl::SimpleHexAtoi(*text, value);
}

}  // namespace

absl::StatusOr<SyscallEvent> ParseAuditRecord(absl::string_view line) {
  SyscallEvent event;
  uint64_t arch = 0;
  const auto number = Field(line, "syscall");
  if (!ParseHex(Field(line, "arch"), &arch) || arch > UINT32_MAX ||
      !number.has_value() || !absl::SimpleAtoi(*number, &event.number)) {
    return absl::InvalidArgumentError(
        absl::StrCat("ParseAuditRecord: no \"arch=\" and \"syscall=\" in ",
                     Quoted(line.substr(0, kShown))));
  }
  event.audit_arch = static_cast<uint32_t>(arch);
  std::array<uint64_t, 6> args = {};
  for (int i = 0; i < 4; ++i) {
    if (!ParseHex(Field(line, absl::StrCat("a", i)), &args[i])) return event;
  }
  event.args = args;
  return event;
}

}  // namespace caisson
