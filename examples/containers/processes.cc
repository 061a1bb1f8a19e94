#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <optional>
#include <sstream>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "examples/containers/commands.h"
#include "examples/containers/output.h"

namespace containers {
namespace {

std::string ReadProcFile(pid_t pid, const char* name) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/", name));
  return {std::istreambuf_iterator<char>(file), {}};
}

// proc_pid_stat(5), from the field after the command's name, which may hold
// anything, on: "S PPID ...". Empty if the process has ended.
std::vector<std::string> StatFields(pid_t pid) {
  const std::string stat = ReadProcFile(pid, "stat");
  const size_t end = stat.rfind(')');
  if (end == std::string::npos) return {};
  return absl::StrSplit(stat.substr(end + 1), ' ', absl::SkipEmpty());
}

std::string UserOf(pid_t pid) {
  for (absl::string_view line :
       absl::StrSplit(ReadProcFile(pid, "status"), '\n')) {
    if (!absl::ConsumePrefix(&line, "Uid:")) continue;
    const std::vector<std::string> ids =
        absl::StrSplit(line, '\t', absl::SkipEmpty());
    if (ids.size() > 1) return ids[1];  // the effective one
  }
  return "?";
}

std::string CommandOf(pid_t pid) {
  std::string command = ReadProcFile(pid, "cmdline");
  while (!command.empty() && command.back() == '\0') command.pop_back();
  for (char& c : command) {
    if (c >= 0 && c < ' ') c = ' ';
  }
  return command;
}

std::string CpuTime(const std::vector<std::string>& stat) {
  int64_t user = 0, system = 0;
  if (stat.size() < 13 || !absl::SimpleAtoi(stat[11], &user) ||
      !absl::SimpleAtoi(stat[12], &system)) {
    return "?";
  }
  const int64_t seconds = (user + system) / sysconf(_SC_CLK_TCK);
  return absl::StrFormat("%02d:%02d:%02d", seconds / 3600, seconds / 60 % 60,
                         seconds % 60);
}

// A container whose use of the machine is shown.
struct Watched {
  caisson::Container container;
  std::string name;
  std::optional<caisson::ContainerStats> before;
};

std::vector<Watched> FindWatched(const caisson::ContainerStore& store,
                                 const std::vector<std::string>& names) {
  std::vector<Watched> watched;
  for (const std::string& name : names) {
    caisson::Container container = Check(store.Find(name));
    const std::string own_name = Check(container.Inspect()).spec.name;
    watched.push_back({std::move(container), own_name, std::nullopt});
  }
  if (!names.empty()) return watched;
  for (const caisson::ContainerInfo& info : Check(store.List())) {
    auto container = store.Find(info.id);
    if (!container.ok()) continue;  // removed meanwhile
    watched.push_back({*std::move(container), info.spec.name, std::nullopt});
  }
  return watched;
}

// What the host has: the limit of one that has no other.
int64_t HostMemory() {
  return int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE);
}

std::vector<std::string> StatsRow(const Watched& one,
                                  const caisson::ContainerStats& now) {
  const caisson::CgroupStats& group = now.cgroup;
  const auto cpu = one.before ? caisson::CpuPercent(one.before->cgroup, group)
                              : std::nullopt;
  const auto used = caisson::MemoryWithoutInactiveFile(group.memory);
  int64_t limit = group.memory.limit.value_or(-1);
  if (limit < 0) limit = HostMemory();
  const double share = 100.0 * static_cast<double>(used.value_or(0)) /
                       static_cast<double>(std::max<int64_t>(limit, 1));
  return {ShortId(one.container.id()),
          one.name,
          cpu ? absl::StrFormat("%.2f%%", *cpu) : "-",
          absl::StrCat(Bytes(used), " / ", Bytes(limit)),
          used ? absl::StrFormat("%.2f%%", share) : "-",
          absl::StrCat(Bytes(now.received_bytes), " / ", Bytes(now.sent_bytes)),
          absl::StrCat(Bytes(group.io.read_bytes()), " / ",
                       Bytes(group.io.write_bytes())),
          group.pids.current ? absl::StrCat(*group.pids.current) : "-"};
}

// Measures all, and says of each what it has used since the time before.
std::string StatsTable(std::vector<Watched>& watched) {
  Table table({"CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %",
               "NET I/O", "BLOCK I/O", "PIDS"});
  for (Watched& one : watched) {
    const auto now = one.container.Stats();
    if (absl::IsFailedPrecondition(now.status()) ||
        absl::IsNotFound(now.status())) {
      one.before.reset();  // it does not run
      table.Add({ShortId(one.container.id()), one.name, "-", "- / -", "-",
                 "- / -", "- / -", "-"});
      continue;
    }
    table.Add(StatsRow(one, Check(now)));
    one.before = *now;
  }
  return table.ToString();
}

}  // namespace

int Top(const Call& call) {
  const auto words = call.Parse({});
  const caisson::Container container = Check(call.Containers().Find(words[0]));
  Table table({"UID", "PID", "PPID", "STATE", "TIME", "COMMAND"});
  for (const pid_t pid : Check(container.Processes())) {
    const std::vector<std::string> stat = StatFields(pid);
    if (stat.size() < 2) continue;  // it has ended
    table.Add({UserOf(pid), absl::StrCat(pid), stat[1], stat[0], CpuTime(stat),
               CommandOf(pid)});
  }
  std::cout << table.ToString();
  return 0;
}

int Stats(const Call& call) {
  bool once = false;
  const auto names = call.Parse(
      {Switch(0, "no-stream", "once, and not again and again", once)});
  const caisson::ContainerStore store = call.Containers();
  std::vector<Watched> watched = FindWatched(store, names);
  StatsTable(watched);  // what the next is compared with
  if (once) {
    absl::SleepFor(absl::Milliseconds(250));
    std::cout << StatsTable(watched);
    return 0;
  }
  const bool in_place = isatty(STDOUT_FILENO) != 0;
  for (;;) {
    absl::SleepFor(absl::Seconds(1));
    const std::string text = StatsTable(watched);
    std::cout << (in_place ? "\x1b[H\x1b[J" : "") << text << std::flush;
    if (!std::cout) return 0;  // nobody reads it
  }
}

}  // namespace containers
