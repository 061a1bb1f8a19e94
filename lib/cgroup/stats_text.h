// What the parsers of statistics share: lines, keys and tables of keys.
#ifndef CAISSON_LIB_CGROUP_STATS_TEXT_H_
#define CAISSON_LIB_CGROUP_STATS_TEXT_H_

#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "caisson/cgroup_layout.h"
#include "lib/base/status_macros.h"

namespace caisson::cgroup {

// DATA_LOSS with as much of the line as helps.
absl::Status Malformed(absl::string_view line);

// A count, saturated at INT64_MAX; "max" is kUnlimited.
absl::StatusOr<int64_t> ParseCount(absl::string_view text);

// The value `text` of the line of `key`, which the error names.
absl::Status SetCount(absl::string_view key, absl::string_view text,
                      std::optional<int64_t>& value);
absl::Status SetDuration(absl::string_view key, absl::string_view text,
                         absl::Duration unit,
                         std::optional<absl::Duration>& value);

// Takes what is before the first `separator` off `rest`, or all of it.
absl::string_view Take(absl::string_view& rest, char separator);

// Calls fn(key, rest of the line) for each line that is not empty.
template <typename Fn>
absl::Status EachLine(absl::string_view text, char separator, const Fn& fn) {
  while (!text.empty()) {
    absl::string_view line = Take(text, '\n');
    if (line.empty()) continue;
    const absl::string_view key = Take(line, separator);
    RETURN_IF_ERROR(fn(key, line));
  }
  return absl::OkStatus();
}

// `list` is "N0=1 N1=2"; calls fn(node, value).
template <typename Fn>
absl::Status EachNode(absl::string_view list, const Fn& fn) {
  while (!list.empty()) {
    absl::string_view item = Take(list, ' ');
    if (item.empty()) continue;
    const absl::string_view whole = item;
    absl::string_view node_text = Take(item, '=');
    int node = 0;
    if (!absl::ConsumePrefix(&node_text, "N") ||
        !absl::SimpleAtoi(node_text, &node) || node < 0) {
      return Malformed(whole);
    }
    const auto value = ParseCount(item);
    if (!value.ok()) return Malformed(whole);
    fn(node, *value);
  }
  return absl::OkStatus();
}

// Which key goes where.
template <typename T>
struct Field {
  absl::string_view v2;
  absl::string_view v1;  // empty: not there
  std::optional<int64_t> T::*member;
};

// Finds keys in a table, beginning behind the one that was found last.
template <typename T, size_t N>
class Finder final {
 public:
  Finder(const Field<T> (&fields)[N], CgroupVersion version)
      : fields_(fields), v2_(version == CgroupVersion::kV2) {}

  const Field<T>* Find(absl::string_view key) {
    for (size_t i = 0; i < N; ++i) {
      const size_t at = (next_ + i) % N;
      const absl::string_view name = v2_ ? fields_[at].v2 : fields_[at].v1;
      if (name.empty() || name != key) continue;
      next_ = at + 1;
      return &fields_[at];
    }
    return nullptr;
  }

 private:
  const Field<T> (&fields_)[N];
  bool v2_;
  size_t next_ = 0;
};

}  // namespace caisson::cgroup

#endif  // CAISSON_LIB_CGROUP_STATS_TEXT_H_
