#include "lib/logs/log_entry.h"

#include <string>
#include <utility>

#include "lib/lines/json_line.h"

namespace caisson::logs {

std::optional<ContainerLogEntry> ParseLogEntry(absl::string_view line) {
  ContainerLogEntry entry;
  std::string stream;
  std::string time;
  const bool object =
      lines::ReadStrings(line, [&](absl::string_view parent,
                                   absl::string_view name, std::string& value) {
        if (!parent.empty()) return;
        if (name == "log") {
          entry.text = std::move(value);
        } else if (name == "stream") {
          stream = std::move(value);
        } else if (name == "time") {
          time = std::move(value);
        }
      });
  if (!object || entry.text.empty()) return std::nullopt;
  if (stream != "stdout" && stream != "stderr") return std::nullopt;
  const auto when = lines::ParseLineTime(time);
  if (!when.has_value()) return std::nullopt;
  entry.time = *when;
  entry.stream = stream == "stdout" ? LogStream::kOut : LogStream::kErr;
  entry.partial = entry.text.back() != '\n';
  return entry;
}

}  // namespace caisson::logs
