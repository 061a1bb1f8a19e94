#include "examples/containers/output.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"

namespace containers {

std::string Table::ToString() const {
  constexpr size_t kGap = 3;
  std::vector<size_t> widths;
  for (const std::vector<std::string>& row : rows_) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], row[i].size());
    }
  }
  std::string text;
  for (const std::vector<std::string>& row : rows_) {
    for (size_t i = 0; i < row.size(); ++i) {
      text += row[i];
      if (i + 1 < row.size())
        text.append(widths[i] + kGap - row[i].size(), ' ');
    }
    text += "\n";
  }
  return text;
}

std::string ShortId(const std::string& id) {
  return std::string(absl::StripPrefix(id, "sha256:")).substr(0, 12);
}

std::string NamesText(const std::vector<std::string>& names) {
  return names.empty() ? "<none>" : absl::StrJoin(names, ", ");
}

std::string Bytes(std::optional<int64_t> bytes) {
  if (!bytes) return "-";
  if (*bytes == caisson::CgroupLimits::kUnlimited) return "no limit";
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(*bytes);
  size_t unit = 0;
  for (; value >= 1024 && unit + 1 < std::size(kUnits); ++unit) value /= 1024;
  return absl::StrFormat("%.*f%s", unit == 0 ? 0 : 1, value, kUnits[unit]);
}

std::string HumanDuration(absl::Duration duration) {
  const int64_t seconds = absl::ToInt64Seconds(duration);
  const int64_t minutes = seconds / 60, hours = minutes / 60, days = hours / 24;
  if (seconds < 1) return "Less than a second";
  if (seconds == 1) return "1 second";
  if (minutes < 1) return absl::StrCat(seconds, " seconds");
  if (minutes == 1) return "About a minute";
  if (hours < 1) return absl::StrCat(minutes, " minutes");
  if (hours == 1) return "About an hour";
  if (days < 2) return absl::StrCat(hours, " hours");
  if (days < 14) return absl::StrCat(days, " days");
  if (days < 60) return absl::StrCat(days / 7, " weeks");
  if (days < 730) return absl::StrCat(days / 30, " months");
  return absl::StrCat(days / 365, " years");
}

std::string Timestamp(absl::Time time) {
  if (time == absl::InfinitePast()) return "";
  return absl::FormatTime("%Y-%m-%dT%H:%M:%E9SZ", time, absl::UTCTimeZone());
}

std::string StatusText(const caisson::ContainerInfo& info) {
  const absl::Time now = absl::Now();
  const std::string ended = absl::StrCat(
      "(", info.exit_code, ") ", HumanDuration(now - info.finished), " ago");
  std::string up = absl::StrCat("Up ", HumanDuration(now - info.started));
  switch (info.status) {
    case caisson::ContainerStatus::kCreated:
      return "Created";
    case caisson::ContainerStatus::kExited:
      return absl::StrCat("Exited ", ended);
    case caisson::ContainerStatus::kRestarting:
      return absl::StrCat("Restarting ", ended);
    case caisson::ContainerStatus::kPaused:
      return absl::StrCat(up, " (Paused)");
    case caisson::ContainerStatus::kRunning:
      break;
  }
  switch (info.health.status) {
    case caisson::HealthStatus::kNone:
      return up;
    case caisson::HealthStatus::kStarting:
      return absl::StrCat(up, " (health: starting)");
    default:
      return absl::StrCat(up, " (",
                          caisson::HealthStatusName(info.health.status), ")");
  }
}

std::string PortText(const caisson::PortMapping& port) {
  return absl::StrCat(
      port.host_address.empty() ? "0.0.0.0" : port.host_address, ":",
      port.host_port, "->", port.container_port,
      port.protocol == caisson::PortMapping::Protocol::kUdp ? "/udp" : "/tcp");
}

}  // namespace containers
