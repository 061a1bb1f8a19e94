#include "lib/events/event_line.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/lines/json_line.h"

namespace caisson::events {

using lines::AppendJsonString;

std::string RenderEvent(const ContainerEvent& event) {
  std::string line =
      absl::StrCat("{\"time\":\"", lines::FormatLineTime(event.time), "\"");
  line += ",\"id\":";
  AppendJsonString(line, event.id);
  line += ",\"name\":";
  AppendJsonString(line, event.name);
  line += ",\"action\":";
  AppendJsonString(line, event.action);
  line += ",\"attributes\":{";
  const char* separator = "";
  for (const auto& [key, value] : event.attributes) {
    line += separator;
    AppendJsonString(line, key);
    line += ":";
    AppendJsonString(line, value);
    separator = ",";
  }
  line += "}}\n";
  return line;
}

std::optional<ContainerEvent> ParseEvent(absl::string_view line) {
  ContainerEvent event;
  std::string time;
  const bool object =
      lines::ReadStrings(line, [&](absl::string_view parent,
                                   absl::string_view name, std::string& value) {
        if (parent == "attributes") {
          event.attributes[std::string(name)] = std::move(value);
        } else if (parent.empty() && name == "time") {
          time = std::move(value);
        } else if (parent.empty() && name == "id") {
          event.id = std::move(value);
        } else if (parent.empty() && name == "name") {
          event.name = std::move(value);
        } else if (parent.empty() && name == "action") {
          event.action = std::move(value);
        }
      });
  const auto when = lines::ParseLineTime(time);
  if (!object || !when.has_value() || event.action.empty()) {
    return std::nullopt;
  }
  event.time = *when;
  return event;
}

}  // namespace caisson::events
