#include "lib/cgroup/stats_parse.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "lib/base/status_macros.h"
#include "lib/cgroup/limits.h"
#include "lib/cgroup/stats_text.h"

namespace caisson::cgroup {
namespace {

// cpuacct.stat counts in USER_HZ, which is 100 on every architecture but alpha
// and ia64.
constexpr absl::Duration kTick = absl::Milliseconds(10);

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
        return found == key ? SetCount(key, rest, value) : absl::OkStatus();
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
  return EachLine(
      text, ' ', [&](absl::string_view key, absl::string_view value) {
        if (key == "usage_usec")
          return SetDuration(key, value, kUnit, cpu.usage);
        if (key == "user_usec") return SetDuration(key, value, kUnit, cpu.user);
        if (key == "system_usec")
          return SetDuration(key, value, kUnit, cpu.system);
        if (key == "nice_usec") return SetDuration(key, value, kUnit, cpu.nice);
        if (key == "core_sched.force_idle_usec") {
          return SetDuration(key, value, kUnit, cpu.core_sched_force_idle);
        }
        if (key == "nr_periods") return SetCount(key, value, cpu.periods);
        if (key == "nr_throttled") {
          return SetCount(key, value, cpu.throttled_periods);
        }
        if (key == "throttled_usec") {
          return SetDuration(key, value, kUnit, cpu.throttled);
        }
        if (key == "nr_bursts") return SetCount(key, value, cpu.bursts);
        if (key == "burst_usec")
          return SetDuration(key, value, kUnit, cpu.burst);
        return absl::OkStatus();
      });
}

absl::Status ParseCpuStatV1(absl::string_view text, CgroupCpuStats& cpu) {
  constexpr absl::Duration kUnit = absl::Nanoseconds(1);
  return EachLine(text, ' ',
                  [&](absl::string_view key, absl::string_view value) {
                    if (key == "nr_periods")
                      return SetCount(key, value, cpu.periods);
                    if (key == "nr_throttled") {
                      return SetCount(key, value, cpu.throttled_periods);
                    }
                    if (key == "throttled_time") {
                      return SetDuration(key, value, kUnit, cpu.throttled);
                    }
                    if (key == "nr_bursts")
                      return SetCount(key, value, cpu.bursts);
                    if (key == "burst_time")
                      return SetDuration(key, value, kUnit, cpu.burst);
                    if (key == "wait_sum")
                      return SetDuration(key, value, kUnit, cpu.waited);
                    return absl::OkStatus();
                  });
}

absl::Status ParseCpuacctStat(absl::string_view text, CgroupCpuStats& cpu) {
  return EachLine(text, ' ',
                  [&](absl::string_view key, absl::string_view value) {
                    if (key == "user")
                      return SetDuration(key, value, kTick, cpu.user);
                    if (key == "system") {
                      return SetDuration(key, value, kTick, cpu.system);
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
        RETURN_IF_ERROR(SetCount(key, value, known.*field->member));
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
        return SetCount(kind, rest, *field);
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
          if (field != nullptr) RETURN_IF_ERROR(SetCount(key, value, *field));
        }
        return absl::OkStatus();
      });
}

absl::Status ParseMisc(absl::string_view text,
                       std::optional<int64_t> CgroupMiscStats::*field,
                       std::vector<CgroupMiscStats>& misc) {
  return EachLine(
      text, ' ', [&](absl::string_view name, absl::string_view value) {
        return SetCount(name, value,
                        Named(misc, &CgroupMiscStats::resource, name).*field);
      });
}

absl::Status ParseMiscEvents(absl::string_view text,
                             std::vector<CgroupMiscStats>& misc) {
  return EachLine(
      text, ' ', [&](absl::string_view name, absl::string_view value) {
        if (!absl::ConsumeSuffix(&name, ".max")) return absl::OkStatus();
        return SetCount(
            name, value,
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
