#include "lib/cgroup/stats_parse.h"

#include <unistd.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "caisson/cgroup.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/cgroup/limits.h"

namespace caisson::cgroup {
namespace {

// cpuacct.stat counts in USER_HZ, which is 100 on every architecture but alpha
// and ia64.
constexpr absl::Duration kTick = absl::Milliseconds(10);

absl::Status Malformed(absl::string_view line) {
  constexpr size_t kShown = 200;
  return absl::DataLossError(
      absl::StrCat("cannot read ", Quoted(line.substr(0, kShown))));
}

// Takes what is before the first `separator` off `rest`, or all of it.
absl::string_view Take(absl::string_view& rest, char separator) {
  const size_t at = rest.find(separator);
  const absl::string_view taken = rest.substr(0, at);
  rest.remove_prefix(at == absl::string_view::npos ? rest.size() : at + 1);
  return taken;
}

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

absl::Status Set(absl::string_view key, absl::string_view text,
                 std::optional<int64_t>& value) {
  const auto count = ParseCount(text);
  if (!count.ok()) return Malformed(absl::StrCat(key, " ", text));
  value = *count;
  return absl::OkStatus();
}

absl::Status Set(absl::string_view key, absl::string_view text,
                 absl::Duration unit, std::optional<absl::Duration>& value) {
  std::optional<int64_t> count;
  RETURN_IF_ERROR(Set(key, text, count));
  value = *count * unit;
  return absl::OkStatus();
}

// Which key goes where.
template <typename T>
struct Field {
  absl::string_view v2;
  absl::string_view v1;  // empty: not there
  std::optional<int64_t> T::*member;
};

using Use = CgroupMemoryUse;
// In the kernel's order (mm/memcontrol.c, memory_stats), which makes look-ups
// of one line after the other short.
constexpr Field<Use> kUse[] = {
    {"anon", "rss", &Use::anon},
    {"file", "cache", &Use::file},
    {"kernel", "", &Use::kernel},
    {"kernel_stack", "", &Use::kernel_stack},
    {"pagetables", "", &Use::page_tables},
    {"sec_pagetables", "", &Use::secondary_page_tables},
    {"percpu", "", &Use::per_cpu},
    {"sock", "", &Use::sockets},
    {"vmalloc", "", &Use::vmalloc},
    {"shmem", "shmem", &Use::shmem},
    {"zswap", "", &Use::zswap},
    {"zswapped", "", &Use::zswapped},
    {"file_mapped", "mapped_file", &Use::file_mapped},
    {"file_dirty", "dirty", &Use::file_dirty},
    {"file_writeback", "writeback", &Use::file_writeback},
    {"swapcached", "swapcached", &Use::swap_cached},
    {"anon_thp", "rss_huge", &Use::anon_thp},
    {"file_thp", "", &Use::file_thp},
    {"shmem_thp", "", &Use::shmem_thp},
    {"inactive_anon", "inactive_anon", &Use::inactive_anon},
    {"active_anon", "active_anon", &Use::active_anon},
    {"inactive_file", "inactive_file", &Use::inactive_file},
    {"active_file", "active_file", &Use::active_file},
    {"unevictable", "unevictable", &Use::unevictable},
    {"slab_reclaimable", "", &Use::slab_reclaimable},
    {"slab_unreclaimable", "", &Use::slab_unreclaimable},
    {"slab", "", &Use::slab},
    {"hugetlb", "", &Use::hugetlb},
};

using Memory = CgroupMemoryStats;
constexpr Field<Memory> kMemory[] = {
    {"workingset_refault_anon", "workingset_refault_anon",
     &Memory::refaults_anon},
    {"workingset_refault_file", "workingset_refault_file",
     &Memory::refaults_file},
    {"pgscan", "", &Memory::pages_scanned},
    {"pgsteal", "", &Memory::pages_reclaimed},
    {"pgfault", "pgfault", &Memory::page_faults},
    {"pgmajfault", "pgmajfault", &Memory::major_page_faults},
    // v2 has it in a file of its own.
    {"", "swap", &Memory::swap},
};

using Events = CgroupMemoryEvents;
constexpr Field<Events> kEvents[] = {
    {"low", "", &Events::low},
    {"high", "", &Events::high},
    {"max", "", &Events::max},
    {"oom", "", &Events::oom},
    {"oom_kill", "", &Events::oom_kill},
    {"oom_group_kill", "", &Events::oom_group_kill},
    {"sock_throttled", "", &Events::sock_throttled},
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

absl::Status ParseMemoryStat(absl::string_view text, CgroupVersion version,
                             CgroupMemoryStats& mem) {
  Finder uses(kUse, version);
  Finder counters(kMemory, version);
  return EachLine(text, ' ',
                  [&](absl::string_view key, absl::string_view value) {
                    // v1 has the group alone first, then the same with
                    // descendants.
                    if (version == CgroupVersion::kV1 &&
                        !absl::ConsumePrefix(&key, "total_")) {
                      return absl::OkStatus();
                    }
                    if (const auto* use = uses.Find(key)) {
                      return Set(key, value, mem.use.*use->member);
                    }
                    if (const auto* counter = counters.Find(key)) {
                      return Set(key, value, mem.*counter->member);
                    }
                    if (const auto count = ParseCount(value); count.ok()) {
                      mem.other.emplace_back(key, *count);
                    }
                    return absl::OkStatus();
                  });
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

CgroupMemoryNode& NodeOf(CgroupMemoryStats& mem, int node) {
  for (CgroupMemoryNode& known : mem.nodes) {
    if (known.node == node) return known;
  }
  CgroupMemoryNode& added = mem.nodes.emplace_back();
  added.node = node;
  return added;
}

// The entry of `list` whose `name` is `key`, made if it is new.
template <typename T>
T& Named(std::vector<T>& list, std::string T::*name, absl::string_view key) {
  for (T& item : list) {
    if (item.*name == key) return item;
  }
  T& added = list.emplace_back();
  added.*name = std::string(key);
  return added;
}

std::optional<std::pair<int, int>> ParseDevice(absl::string_view text) {
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(text, absl::MaxSplits(':', 1));
  std::pair<int, int> device;
  if (!absl::SimpleAtoi(parts.first, &device.first) ||
      !absl::SimpleAtoi(parts.second, &device.second)) {
    return std::nullopt;
  }
  return device;
}

CgroupIoDevice& DeviceOf(CgroupIoStats& io, std::pair<int, int> number) {
  for (CgroupIoDevice& device : io.devices) {
    if (device.major == number.first && device.minor == number.second) {
      return device;
    }
  }
  CgroupIoDevice& added = io.devices.emplace_back();
  added.major = number.first;
  added.minor = number.second;
  return added;
}

using Io = CgroupIoDevice;
constexpr Field<Io> kIo[] = {
    {"rbytes", "", &Io::read_bytes},    {"wbytes", "", &Io::write_bytes},
    {"rios", "", &Io::read_count},      {"wios", "", &Io::write_count},
    {"dbytes", "", &Io::discard_bytes}, {"dios", "", &Io::discard_count},
};

}  // namespace

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

absl::Status ParseValue(absl::string_view text, std::optional<int64_t>& value) {
  ASSIGN_OR_RETURN(value, ParseCount(text));
  return absl::OkStatus();
}

absl::Status ParseLimitV1(absl::string_view text,
                          std::optional<int64_t>& value) {
  const auto bytes = ParseV1Bytes(text);
  if (!bytes.ok()) return Malformed(text);
  value = *bytes;
  return absl::OkStatus();
}

absl::Status ParseKey(absl::string_view text, absl::string_view key,
                      std::optional<int64_t>& value) {
  return EachLine(
      text, ' ', [&](absl::string_view found, absl::string_view rest) {
        return found == key ? Set(key, rest, value) : absl::OkStatus();
      });
}

absl::Status ParsePressure(absl::string_view text,
                           std::optional<CgroupPressure>& pressure) {
  CgroupPressure parsed;
  RETURN_IF_ERROR(
      EachLine(text, ' ', [&](absl::string_view key, absl::string_view rest) {
        if (key != "some" && key != "full") return absl::OkStatus();
        CgroupStall stall;
        const absl::string_view line = rest;
        while (!rest.empty()) {
          absl::string_view value = Take(rest, ' ');
          const absl::string_view name = Take(value, '=');
          int64_t total = 0;
          double* const average = name == "avg10"    ? &stall.avg10
                                  : name == "avg60"  ? &stall.avg60
                                  : name == "avg300" ? &stall.avg300
                                                     : nullptr;
          if (average != nullptr
                  ? !absl::SimpleAtod(value, average)
                  : name == "total" && !absl::SimpleAtoi(value, &total)) {
            return Malformed(line);
          }
          if (name == "total") stall.total = absl::Microseconds(total);
        }
        (key == "some" ? parsed.some : parsed.full) = stall;
        return absl::OkStatus();
      }));
  pressure = parsed;
  return absl::OkStatus();
}

absl::Status ParseCpuStatV2(absl::string_view text, CgroupCpuStats& cpu) {
  constexpr absl::Duration kUnit = absl::Microseconds(1);
  return EachLine(text, ' ',
                  [&](absl::string_view key, absl::string_view value) {
                    if (key == "usage_usec")
                      return Set(key, value, kUnit, cpu.usage);
                    if (key == "user_usec")
                      return Set(key, value, kUnit, cpu.user);
                    if (key == "system_usec")
                      return Set(key, value, kUnit, cpu.system);
                    if (key == "nice_usec")
                      return Set(key, value, kUnit, cpu.nice);
                    if (key == "core_sched.force_idle_usec") {
                      return Set(key, value, kUnit, cpu.core_sched_force_idle);
                    }
                    if (key == "nr_periods")
                      return Set(key, value, cpu.periods);
                    if (key == "nr_throttled") {
                      return Set(key, value, cpu.throttled_periods);
                    }
                    if (key == "throttled_usec") {
                      return Set(key, value, kUnit, cpu.throttled);
                    }
                    if (key == "nr_bursts") return Set(key, value, cpu.bursts);
                    if (key == "burst_usec")
                      return Set(key, value, kUnit, cpu.burst);
                    return absl::OkStatus();
                  });
}

absl::Status ParseCpuStatV1(absl::string_view text, CgroupCpuStats& cpu) {
  constexpr absl::Duration kUnit = absl::Nanoseconds(1);
  return EachLine(text, ' ',
                  [&](absl::string_view key, absl::string_view value) {
                    if (key == "nr_periods")
                      return Set(key, value, cpu.periods);
                    if (key == "nr_throttled") {
                      return Set(key, value, cpu.throttled_periods);
                    }
                    if (key == "throttled_time") {
                      return Set(key, value, kUnit, cpu.throttled);
                    }
                    if (key == "nr_bursts") return Set(key, value, cpu.bursts);
                    if (key == "burst_time")
                      return Set(key, value, kUnit, cpu.burst);
                    if (key == "wait_sum")
                      return Set(key, value, kUnit, cpu.waited);
                    return absl::OkStatus();
                  });
}

absl::Status ParseCpuacctStat(absl::string_view text, CgroupCpuStats& cpu) {
  return EachLine(text, ' ',
                  [&](absl::string_view key, absl::string_view value) {
                    if (key == "user") return Set(key, value, kTick, cpu.user);
                    if (key == "system") {
                      return Set(key, value, kTick, cpu.system);
                    }
                    return absl::OkStatus();
                  });
}

absl::Status ParseCpuacctPerCpu(absl::string_view text, CgroupCpuStats& cpu) {
  cpu.per_cpu.clear();
  text = absl::StripAsciiWhitespace(text);
  while (!text.empty()) {
    ASSIGN_OR_RETURN(const int64_t used, ParseCount(Take(text, ' ')));
    cpu.per_cpu.push_back(absl::Nanoseconds(used));
  }
  return absl::OkStatus();
}

absl::Status ParseMemoryStatV2(absl::string_view text, CgroupMemoryStats& mem) {
  return ParseMemoryStat(text, CgroupVersion::kV2, mem);
}

absl::Status ParseMemoryStatV1(absl::string_view text, CgroupMemoryStats& mem) {
  return ParseMemoryStat(text, CgroupVersion::kV1, mem);
}

absl::Status ParseNumaStatV2(absl::string_view text, CgroupMemoryStats& mem) {
  Finder uses(kUse, CgroupVersion::kV2);
  return EachLine(text, ' ',
                  [&](absl::string_view key, absl::string_view nodes) {
                    const auto* use = uses.Find(key);
                    if (use == nullptr) return absl::OkStatus();
                    return EachNode(nodes, [&](int node, int64_t value) {
                      NodeOf(mem, node).use.*use->member = value;
                    });
                  });
}

absl::Status ParseNumaStatV1(absl::string_view text, CgroupMemoryStats& mem) {
  const int64_t page = ::sysconf(_SC_PAGESIZE);
  return EachLine(text, '=',
                  [&](absl::string_view key, absl::string_view rest) {
                    if (!absl::ConsumePrefix(&key, "hierarchical_")) {
                      return absl::OkStatus();
                    }
                    (void)Take(rest, ' ');  // the sum
                    return EachNode(rest, [&](int node, int64_t pages) {
                      CgroupMemoryNode& known = NodeOf(mem, node);
                      if (key == "total") known.total = pages * page;
                      if (key == "file") known.use.file = pages * page;
                      if (key == "anon") known.use.anon = pages * page;
                      if (key == "unevictable")
                        known.use.unevictable = pages * page;
                    });
                  });
}

absl::Status ParseMemoryEvents(absl::string_view text,
                               CgroupMemoryEvents& events) {
  Finder finder(kEvents, CgroupVersion::kV2);
  return EachLine(
      text, ' ', [&](absl::string_view key, absl::string_view value) {
        const auto* event = finder.Find(key);
        return event == nullptr ? absl::OkStatus()
                                : Set(key, value, events.*event->member);
      });
}

absl::Status ParseIoStat(absl::string_view text, CgroupIoStats& io) {
  Finder finder(kIo, CgroupVersion::kV2);
  while (!text.empty()) {
    absl::string_view line = Take(text, '\n');
    std::optional<std::pair<int, int>> device;
    while (!line.empty()) {
      const absl::string_view item = Take(line, ' ');
      absl::string_view value = item;
      const absl::string_view key = Take(value, '=');
      if (key.size() == item.size()) {
        // Some kernels before 5.19 print the numbers of disks without values in
        // front of one with values, on one line.
        if (!item.empty()) device = ParseDevice(item);
        continue;
      }
      if (!device.has_value()) return Malformed(item);
      CgroupIoDevice& known = DeviceOf(io, *device);
      if (const auto* field = finder.Find(key)) {
        RETURN_IF_ERROR(Set(key, value, known.*field->member));
      } else if (const auto count = ParseCount(value); count.ok()) {
        known.other.emplace_back(key, *count);
      }
    }
  }
  return absl::OkStatus();
}

absl::Status ParseBlkio(absl::string_view text, BlkioUnit unit,
                        CgroupIoStats& io) {
  const bool bytes = unit == BlkioUnit::kBytes;
  return EachLine(
      text, ' ', [&](absl::string_view name, absl::string_view rest) {
        const auto number = ParseDevice(name);
        if (!number.has_value()) return absl::OkStatus();  // "Total"
        const absl::string_view kind = Take(rest, ' ');
        CgroupIoDevice& device = DeviceOf(io, *number);
        std::optional<int64_t>* field = nullptr;
        if (kind == "Read") {
          field = bytes ? &device.read_bytes : &device.read_count;
        } else if (kind == "Write") {
          field = bytes ? &device.write_bytes : &device.write_count;
        } else if (kind == "Discard") {
          field = bytes ? &device.discard_bytes : &device.discard_count;
        }
        if (field == nullptr || field->has_value()) return absl::OkStatus();
        return Set(kind, rest, *field);
      });
}

absl::Status ParseRdma(absl::string_view text, bool limit,
                       std::vector<CgroupRdmaStats>& rdma) {
  return EachLine(
      text, ' ', [&](absl::string_view name, absl::string_view rest) {
        CgroupRdmaStats& device = Named(rdma, &CgroupRdmaStats::device, name);
        while (!rest.empty()) {
          absl::string_view value = Take(rest, ' ');
          const absl::string_view key = Take(value, '=');
          std::optional<int64_t>* field = nullptr;
          if (key == "hca_handle") {
            field = limit ? &device.hca_handles_limit : &device.hca_handles;
          } else if (key == "hca_object") {
            field = limit ? &device.hca_objects_limit : &device.hca_objects;
          }
          if (field != nullptr) RETURN_IF_ERROR(Set(key, value, *field));
        }
        return absl::OkStatus();
      });
}

absl::Status ParseMisc(absl::string_view text,
                       std::optional<int64_t> CgroupMiscStats::*field,
                       std::vector<CgroupMiscStats>& misc) {
  return EachLine(
      text, ' ', [&](absl::string_view name, absl::string_view value) {
        return Set(name, value,
                   Named(misc, &CgroupMiscStats::resource, name).*field);
      });
}

absl::Status ParseMiscEvents(absl::string_view text,
                             std::vector<CgroupMiscStats>& misc) {
  return EachLine(
      text, ' ', [&](absl::string_view name, absl::string_view value) {
        if (!absl::ConsumeSuffix(&name, ".max")) return absl::OkStatus();
        return Set(name, value,
                   Named(misc, &CgroupMiscStats::resource, name).max_events);
      });
}

absl::Status ParseHugetlbNuma(absl::string_view text,
                              CgroupHugetlbStats& hugetlb) {
  hugetlb.nodes.clear();
  return EachLine(text, '=',
                  [&](absl::string_view key, absl::string_view rest) {
                    // v1 has the group alone first, then the sum with its
                    // descendants.
                    if (key != "total" && key != "hierarchical_total") {
                      return absl::OkStatus();
                    }
                    (void)Take(rest, ' ');
                    hugetlb.nodes.clear();
                    return EachNode(rest, [&](int node, int64_t bytes) {
                      hugetlb.nodes.emplace_back(node, bytes);
                    });
                  });
}

}  // namespace caisson::cgroup
