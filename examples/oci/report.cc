#include "examples/oci/report.h"

#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"

extern char** environ;

namespace oci {
namespace {

using nlohmann::json;

// The output of a program.
absl::StatusOr<std::string> OutputOf(const std::vector<std::string>& words) {
  int fds[2];
  if (pipe(fds) != 0) return absl::InternalError("pipe");
  caisson::UniqueFd reader(fds[0]);
  caisson::UniqueFd writer(fds[1]);
  std::vector<char*> argv;
  for (const std::string& word : words) {
    argv.push_back(const_cast<char*>(word.c_str()));
  }
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, writer.get(), STDOUT_FILENO);
  posix_spawn_file_actions_addclose(&actions, reader.get());
  pid_t pid = 0;
  const int error =
      posix_spawnp(&pid, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) {
    return absl::NotFoundError(absl::StrCat(words[0], ": ", strerror(error)));
  }
  writer.reset();
  std::string output;
  char buffer[4096];
  ssize_t size;
  while ((size = read(reader.get(), buffer, sizeof(buffer))) > 0) {
    output.append(buffer, static_cast<size_t>(size));
  }
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (status != 0) {
    return absl::InternalError(absl::StrCat(words[0], " failed"));
  }
  return output;
}

// Where in its lines the process's number is.
std::optional<size_t> PidColumn(const std::string& header) {
  const std::vector<std::string> names =
      absl::StrSplit(header, ' ', absl::SkipEmpty());
  const auto it = std::find(names.begin(), names.end(), "PID");
  if (it == names.end()) return std::nullopt;
  return static_cast<size_t>(it - names.begin());
}

uint64_t Number(const std::optional<int64_t>& value) {
  return value && *value > 0 ? static_cast<uint64_t>(*value) : 0;
}

uint64_t Nanoseconds(const std::optional<absl::Duration>& value) {
  return value ? static_cast<uint64_t>(absl::ToInt64Nanoseconds(*value)) : 0;
}

json Entry(const std::optional<int64_t>& usage,
           const std::optional<int64_t>& limit,
           const std::optional<int64_t>& peak,
           const std::optional<int64_t>& failures) {
  return {{"usage", Number(usage)},
          {"limit", limit ? static_cast<uint64_t>(*limit) : 0},
          {"max", Number(peak)},
          {"failcnt", Number(failures)}};
}

json CpuJson(const caisson::CgroupCpuStats& cpu) {
  json usage = {{"total", Nanoseconds(cpu.usage)},
                {"kernel", Nanoseconds(cpu.system)},
                {"user", Nanoseconds(cpu.user)}};
  for (const absl::Duration time : cpu.per_cpu) {
    usage["percpu"].push_back(absl::ToInt64Nanoseconds(time));
  }
  return {{"usage", std::move(usage)},
          {"throttling",
           {{"periods", Number(cpu.periods)},
            {"throttledPeriods", Number(cpu.throttled_periods)},
            {"throttledTime", Nanoseconds(cpu.throttled)}}}};
}

json MemoryJson(const caisson::CgroupMemoryStats& memory) {
  json raw = {{"anon", Number(memory.use.anon)},
              {"file", Number(memory.use.file)},
              {"inactive_file", Number(memory.use.inactive_file)},
              {"active_file", Number(memory.use.active_file)}};
  // The names that version 1 has, which readers look for.
  raw["cache"] = raw["file"];
  raw["rss"] = raw["anon"];
  raw["total_inactive_file"] = raw["inactive_file"];
  return {{"cache", Number(memory.use.file)},
          {"usage",
           Entry(memory.usage, memory.limit, memory.peak, memory.events.max)},
          {"swap", Entry(memory.swap, memory.swap_limit, memory.swap_peak,
                         memory.swap_max_events)},
          {"kernel",
           Entry(memory.use.kernel, std::nullopt, std::nullopt, std::nullopt)},
          {"raw", std::move(raw)}};
}

json IoJson(const caisson::CgroupIoStats& io) {
  json bytes = json::array();
  json counts = json::array();
  for (const caisson::CgroupIoDevice& device : io.devices) {
    const auto add = [&](json& list, const char* operation,
                         const std::optional<int64_t>& value) {
      if (!value) return;
      list.push_back({{"major", device.major},
                      {"minor", device.minor},
                      {"op", operation},
                      {"value", Number(value)}});
    };
    add(bytes, "Read", device.read_bytes);
    add(bytes, "Write", device.write_bytes);
    add(counts, "Read", device.read_count);
    add(counts, "Write", device.write_count);
  }
  return {{"ioServiceBytesRecursive", std::move(bytes)},
          {"ioServicedRecursive", std::move(counts)}};
}

}  // namespace

void PrintList(const std::vector<caisson::OciState>& states, bool quiet,
               bool as_json) {
  if (quiet) {
    for (const auto& state : states) std::cout << state.id << "\n";
    return;
  }
  if (as_json) {
    json list = json::array();
    for (const auto& state : states) {
      list.push_back(json::parse(state.ToJson(), nullptr, false));
    }
    std::cout << list.dump(-1, ' ', false, json::error_handler_t::replace)
              << "\n";
    return;
  }
  size_t width = strlen("ID");
  for (const auto& state : states) width = std::max(width, state.id.size());
  const auto line = [&](absl::string_view id, const std::string& pid,
                        absl::string_view status, absl::string_view bundle,
                        absl::string_view created) {
    std::cout << absl::StrFormat("%-*s  %7s  %-8s  %-20s  %s\n", width, id, pid,
                                 status, created, bundle);
  };
  line("ID", "PID", "STATUS", "BUNDLE", "CREATED");
  for (const auto& state : states) {
    line(state.id, absl::StrCat(state.pid),
         caisson::OciStatusName(state.status), state.bundle,
         absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", state.created,
                          absl::UTCTimeZone()));
  }
}

absl::StatusOr<int> PrintProcesses(const std::vector<pid_t>& pids,
                                   const std::vector<std::string>& options) {
  std::vector<std::string> words = {"ps"};
  words.insert(words.end(), options.begin(), options.end());
  if (options.empty()) words.emplace_back("-ef");
  const auto output = OutputOf(words);
  if (!output.ok()) return output.status();
  const std::vector<std::string> lines = absl::StrSplit(*output, '\n');
  const auto column = PidColumn(lines[0]);
  if (!column) {
    return absl::InvalidArgumentError(
        "the options of ps leave out the column PID");
  }
  std::cout << lines[0] << "\n";
  for (size_t i = 1; i < lines.size(); ++i) {
    const std::vector<std::string> fields =
        absl::StrSplit(lines[i], ' ', absl::SkipEmpty());
    pid_t pid = 0;
    if (fields.size() <= *column || !absl::SimpleAtoi(fields[*column], &pid) ||
        std::find(pids.begin(), pids.end(), pid) == pids.end()) {
      continue;
    }
    std::cout << lines[i] << "\n";
  }
  return 0;
}

std::string OutOfMemoryJson(const std::string& id) {
  return json({{"type", "oom"}, {"id", id}}).dump();
}

std::string StatsJson(const std::string& id,
                      const caisson::CgroupStats& stats) {
  json data = {{"cpu", CpuJson(stats.cpu)},
               {"memory", MemoryJson(stats.memory)},
               {"pids",
                {{"current", Number(stats.pids.current)},
                 {"limit", Number(stats.pids.limit)}}},
               {"blkio", IoJson(stats.io)},
               {"hugetlb", json::object()}};
  for (const auto& pages : stats.hugetlb) {
    data["hugetlb"][pages.page_size] =
        Entry(pages.usage, std::nullopt, pages.peak, pages.max_events);
  }
  return json({{"type", "stats"}, {"id", id}, {"data", std::move(data)}})
      .dump();
}

}  // namespace oci
