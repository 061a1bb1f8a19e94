#include <iostream>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "caisson/notation.h"
#include "examples/containers/commands.h"
#include "examples/containers/output.h"

namespace containers {
namespace {

using caisson::ContainerStatus;

// "KEY" or "KEY=VALUE".
std::pair<std::string, std::optional<std::string>> ParseLabel(
    const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos) return {text, std::nullopt};
  return {text.substr(0, equals), text.substr(equals + 1)};
}

// The two sides of a --filter.
std::pair<std::string, std::string> SplitFilter(const std::string& text) {
  const auto [key, value] = ParseLabel(text);
  if (value) return {key, *value};
  throw Failure{absl::StrCat("\"", text, "\": expected NAME=VALUE")};
}

ContainerStatus ParseStatus(const std::string& text) {
  for (const ContainerStatus status :
       {ContainerStatus::kCreated, ContainerStatus::kRunning,
        ContainerStatus::kPaused, ContainerStatus::kRestarting,
        ContainerStatus::kExited}) {
    if (text == caisson::ContainerStatusName(status)) return status;
  }
  throw Failure{absl::StrCat("\"", text,
                             "\": expected created, running, paused, "
                             "restarting or exited")};
}

void AddFilter(const std::string& text, caisson::ContainerFilter& filter) {
  const auto [key, value] = SplitFilter(text);
  if (key == "status") {
    filter.statuses.push_back(ParseStatus(value));
  } else if (key == "label") {
    filter.labels.insert(ParseLabel(value));
  } else if (key == "name") {
    filter.name = value;
  } else if (key == "ancestor") {
    filter.image = value;
  } else {
    throw Failure{absl::StrCat("\"", text,
                               "\": expected status, label, name or ancestor")};
  }
}

void AddEventFilter(const std::string& text,
                    caisson::ContainerEventOptions& options) {
  const auto [key, value] = SplitFilter(text);
  if (key == "container") {
    options.containers.push_back(value);
  } else if (key == "event") {
    options.actions.push_back(value);
  } else if (key == "label") {
    options.labels.insert(ParseLabel(value));
  } else {
    throw Failure{
        absl::StrCat("\"", text, "\": expected container, event or label")};
  }
}

std::string CommandText(const caisson::ContainerInfo& info, bool whole) {
  constexpr size_t kWidth = 20;
  std::string text = absl::StrJoin(info.argv, " ");
  for (char& c : text) {
    if (c < ' ') c = ' ';
  }
  if (!whole && text.size() > kWidth) {
    text = absl::StrCat(text.substr(0, kWidth - 3), "...");
  }
  return absl::StrCat("\"", text, "\"");
}

Flag TimeFlag(const char* name, const char* help,
              std::optional<absl::Time>& time) {
  return {0, name, "TIME", help, [&time](const std::string& v) {
            time = Check(caisson::ParseTime(v, absl::Now()));
          }};
}

// Writes entries of a log, of each stream to ours.
class LogPrinter final {
 public:
  explicit LogPrinter(bool timestamps) : timestamps_(timestamps) {}

  void Print(const caisson::ContainerLogEntry& entry) {
    const bool out = entry.stream == caisson::LogStream::kOut;
    bool& in_line = out ? in_out_ : in_err_;
    std::ostream& stream = out ? std::cout : std::cerr;
    if (timestamps_ && !in_line) stream << Timestamp(entry.time) << " ";
    stream << entry.text << std::flush;
    in_line = entry.partial;
  }

 private:
  bool timestamps_;
  bool in_out_ = false;  // within a line
  bool in_err_ = false;
};

}  // namespace

int Ps(const Call& call) {
  bool quiet = false, whole = false;
  caisson::ContainerFilter filter;
  call.Parse({Switch('a', "all", "also those that do not run", filter.all),
              Switch('q', "quiet", "ids alone", quiet),
              Switch(0, "no-trunc", "whole ids and commands", whole),
              {'f', "filter", "NAME=VALUE", "status, label, name or ancestor",
               [&](const std::string& v) { AddFilter(v, filter); }}});
  Table table({"CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS",
               "NAMES"});
  for (const auto& info : Check(call.Containers().List(filter))) {
    const std::string id = whole ? info.id : ShortId(info.id);
    if (quiet) std::cout << id << "\n";
    std::vector<std::string> ports;
    for (const auto& port : info.ports) ports.push_back(PortText(port));
    table.Add({id, info.spec.image, CommandText(info, whole),
               absl::StrCat(HumanDuration(absl::Now() - info.created), " ago"),
               StatusText(info), absl::StrJoin(ports, ", "), info.spec.name});
  }
  if (!quiet) std::cout << table.ToString();
  return 0;
}

int Logs(const Call& call) {
  bool timestamps = false;
  caisson::ContainerLogReadOptions options;
  const auto words = call.Parse(
      {Switch('f', "follow", "wait for more, to its end", options.follow),
       Switch('t', "timestamps", "begin lines with their times", timestamps),
       {'n', "tail", "LINES", "the last so many; all",
        [&](const std::string& v) {
          if (v != "all") options.tail = ParseNumber(v, 0, 1 << 30);
        }},
       TimeFlag("since", "10m, seconds since 1970, or RFC 3339", options.since),
       TimeFlag("until", "the same", options.until)});
  auto logs = Check(Check(call.Containers().Find(words[0])).Logs(options));
  LogPrinter printer(timestamps);
  while (!logs.at_end()) {
    for (const auto& entry : Check(logs.Wait(absl::InfiniteDuration()))) {
      printer.Print(entry);
    }
  }
  return 0;
}

int Events(const Call& call) {
  caisson::ContainerEventOptions options;
  call.Parse({TimeFlag("since", "from then on; 10m, RFC 3339", options.since),
              TimeFlag("until", "to then; without it, for ever", options.until),
              {'f', "filter", "NAME=VALUE", "container, event or label",
               [&](const std::string& v) { AddEventFilter(v, options); }}});
  auto events = Check(call.Containers().Events(options));
  while (!events.at_end()) {
    for (const auto& event : Check(events.Wait(absl::InfiniteDuration()))) {
      auto attributes = event.attributes;
      attributes["name"] = event.name;
      std::cout << absl::StrFormat("%s container %s %s (%s)\n",
                                   Timestamp(event.time), event.action,
                                   event.id,
                                   absl::StrJoin(attributes, ", ",
                                                 absl::PairFormatter("=")))
                << std::flush;
    }
  }
  return 0;
}

int Inspect(const Call& call) {
  const caisson::ContainerStore store = call.Containers();
  std::vector<caisson::ContainerInfo> all;
  for (const std::string& name : call.Parse({})) {
    all.push_back(Check(Check(store.Find(name)).Inspect()));
  }
  std::cout << InspectJson(all);
  return 0;
}

int Port(const Call& call) {
  bool found = false;
  const auto words = call.Parse({});
  const auto info = Check(Check(call.Containers().Find(words[0])).Inspect());
  for (const caisson::PortMapping& port : info.ports) {
    const std::string text = PortText(port);
    const std::pair<std::string, std::string> sides =
        absl::StrSplit(text, "->");
    if (words.size() == 1) {
      std::cout << sides.second << " -> " << sides.first << "\n";
    } else if (sides.second == words[1] ||
               sides.second == absl::StrCat(words[1], "/tcp")) {
      std::cout << sides.first << "\n";
      found = true;
    }
  }
  if (words.size() == 1 || found) return 0;
  throw Failure{absl::StrCat("port \"", words[1], "\" of \"", info.spec.name,
                             "\" is not published")};
}

}  // namespace containers
