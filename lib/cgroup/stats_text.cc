#include "lib/cgroup/stats_text.h"

#include <algorithm>
#include <limits>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "caisson/cgroup_limits.h"
#include "lib/base/errno_error.h"

namespace caisson::cgroup {

absl::Status Malformed(absl::string_view line) {
  constexpr size_t kShown = 200;
  return absl::DataLossError(
      absl::StrCat("cannot read ", Quoted(line.substr(0, kShown))));
}

absl::string_view Take(absl::string_view& rest, char separator) {
  const size_t at = rest.find(separator);
  const absl::string_view taken = rest.substr(0, at);
  rest.remove_prefix(at == absl::string_view::npos ? rest.size() : at + 1);
  return taken;
}

absl::StatusOr<int64_t> ParseCount(absl::string_view text) {
  text = absl::StripAsciiWhitespace(text);
  if (text == "max") return CgroupLimits::kUnlimited;
  if (text.empty() || !std::all_of(text.begin(), text.end(), [](char c) {
        return absl::ascii_isdigit(static_cast<unsigned char>(c));
      })) {
    return Malformed(text);
  }
  uint64_t count = 0;
  constexpr uint64_t kMost = std::numeric_limits<int64_t>::max();
  if (!absl::SimpleAtoi(text, &count)) count = kMost;  // too large
  return static_cast<int64_t>(std::min(count, kMost));
}

absl::Status SetCount(absl::string_view key, absl::string_view text,
                      std::optional<int64_t>& value) {
  const auto count = ParseCount(text);
  if (!count.ok()) return Malformed(absl::StrCat(key, " ", text));
  value = *count;
  return absl::OkStatus();
}

absl::Status SetDuration(absl::string_view key, absl::string_view text,
                         absl::Duration unit,
                         std::optional<absl::Duration>& value) {
  std::optional<int64_t> count;
  RETURN_IF_ERROR(SetCount(key, text, count));
  value = *count * unit;
  return absl::OkStatus();
}

}  // namespace caisson::cgroup
