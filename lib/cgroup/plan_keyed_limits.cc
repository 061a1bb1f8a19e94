// Limits of files with one line for each disk, device or resource.
#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/cgroup/limits.h"

namespace caisson::cgroup {
namespace {

constexpr int64_t kUnlimited = CgroupLimits::kUnlimited;

using Writes = std::vector<LimitWrite>;

std::string Numbers(const CgroupBlockDevice& device) {
  return absl::StrCat(device.major, ":", device.minor);
}

// What writing `key` and this to a file of version 2 makes of its line.
struct Default {
  absl::string_view file;
  absl::string_view rest;
};
constexpr Default kDefaults[] = {
    {kIoMax, " rbps=max wbps=max riops=max wiops=max"},
    {kIoWeight, " default"},
    {kIoBfqWeight, " default"},
    {"io.latency", " target=0"},
    {"rdma.max", " hca_handle=max hca_object=max"},
    {"misc.max", " max"},
    {"dmem.max", " max"},
    {"dmem.low", " 0"},
    {"dmem.min", " 0"},
};

void AddKeyed(CgroupController controller, absl::string_view file,
              const std::string& key, absl::string_view value, Writes& writes) {
  const auto* it =
      std::find_if(std::begin(kDefaults), std::end(kDefaults),
                   [&](const Default& d) { return d.file == file; });
  // v1's throttles and priorities: 0 stands for none.
  const absl::string_view rest = it == std::end(kDefaults) ? " 0" : it->rest;
  writes.push_back({controller, std::string(file),
                    absl::StrCat(key, " ", value), key,
                    absl::StrCat(key, rest)});
}

// io.weight's scale to BFQ's: 100 is normal in both (as systemd maps it).
uint64_t BfqWeight(uint64_t weight) {
  return weight <= 100 ? weight : 100 + (weight - 100) * 900 / 9900;
}

void PlanWeights(const CgroupLimits& limits, bool v2, const Current& current,
                 Writes& writes) {
  const bool bfq = !v2 || current.has_bfq_weight;
  const bool cost = v2 && current.has_io_weight;
  const auto add = [&](const char* file, uint64_t weight) {
    // In v2 the line of all disks is called "default".
    writes.push_back({CgroupController::kIo, file, absl::StrCat(weight),
                      v2 ? "default" : "", v2 ? "default 100" : ""});
  };
  const char* bfq_file = v2 ? kIoBfqWeight : kBlkioBfqWeightV1;
  if (limits.io_weight.has_value()) {
    if (bfq) add(bfq_file, BfqWeight(*limits.io_weight));
    if (cost) add(kIoWeight, *limits.io_weight);
  } else if (limits.blkio_weight.has_value()) {
    if (bfq) add(bfq_file, *limits.blkio_weight);
    if (cost) add(kIoWeight, CgroupIoWeightOfBlkio(*limits.blkio_weight));
  }
  for (const CgroupIoLimit& io : limits.io) {
    if (!io.weight.has_value()) continue;
    const std::string key = Numbers(io.device);
    const auto value = [&](uint64_t weight) {
      return weight == 0 ? std::string("default") : absl::StrCat(weight);
    };
    if (bfq) {
      AddKeyed(CgroupController::kIo,
               v2 ? kIoBfqWeight : "blkio.bfq.weight_device", key,
               v2 ? value(BfqWeight(*io.weight))
                  : absl::StrCat(BfqWeight(*io.weight)),
               writes);
    }
    if (cost) {
      AddKeyed(CgroupController::kIo, kIoWeight, key, value(*io.weight),
               writes);
    }
  }
}

// The kernel's mem_fmt() of mm/hugetlb_cgroup.c.
std::string PageSizeName(int64_t bytes) {
  if (bytes >= 1 << 30) return absl::StrCat(bytes >> 30, "GB");
  if (bytes >= 1 << 20) return absl::StrCat(bytes >> 20, "MB");
  return absl::StrCat(bytes >> 10, "KB");
}

}  // namespace

void PlanIo(const CgroupLimits& limits, const Versions& versions,
            const Current& current, Writes& writes) {
  const bool v2 = versions.IsV2(CgroupController::kIo);
  PlanWeights(limits, v2, current, writes);
  for (const CgroupIoLimit& io : limits.io) {
    const struct {
      const std::optional<int64_t>& value;
      const char* v2;
      const char* v1;
    } fields[] = {{io.read_bps, "rbps", "blkio.throttle.read_bps_device"},
                  {io.write_bps, "wbps", "blkio.throttle.write_bps_device"},
                  {io.read_iops, "riops", "blkio.throttle.read_iops_device"},
                  {io.write_iops, "wiops", "blkio.throttle.write_iops_device"}};
    std::string line;
    for (const auto& field : fields) {
      if (!field.value.has_value()) continue;
      if (v2) {
        absl::StrAppend(&line, line.empty() ? "" : " ", field.v2, "=",
                        MaxOr(*field.value));
      } else {
        AddKeyed(CgroupController::kIo, field.v1, Numbers(io.device),
                 *field.value == kUnlimited ? "0" : absl::StrCat(*field.value),
                 writes);
      }
    }
    if (!line.empty()) {
      AddKeyed(CgroupController::kIo, kIoMax, Numbers(io.device), line, writes);
    }
  }
}

void PlanHugetlb(const CgroupLimits& limits, const Versions& versions,
                 Writes& writes) {
  const bool v2 = versions.IsV2(CgroupController::kHugetlb);
  for (const CgroupHugetlbLimit& huge : limits.hugetlb) {
    const auto add = [&](const std::optional<int64_t>& value,
                         const char* middle) {
      if (!value.has_value()) return;
      writes.push_back({CgroupController::kHugetlb,
                        absl::StrCat("hugetlb.", PageSizeName(huge.page_size),
                                     middle, v2 ? "max" : "limit_in_bytes"),
                        v2 ? MaxOr(*value) : absl::StrCat(*value)});
    };
    add(huge.max, ".");
    add(huge.reserved_max, ".rsvd.");
  }
}

void PlanResources(const CgroupLimits& limits, Writes& writes) {
  for (const CgroupRdmaLimit& rdma : limits.rdma) {
    std::string line;
    if (rdma.hca_handles.has_value()) {
      line = absl::StrCat("hca_handle=", MaxOr(*rdma.hca_handles));
    }
    if (rdma.hca_objects.has_value()) {
      absl::StrAppend(&line, line.empty() ? "" : " ",
                      "hca_object=", MaxOr(*rdma.hca_objects));
    }
    if (line.empty()) continue;
    AddKeyed(CgroupController::kRdma, "rdma.max", rdma.device, line, writes);
  }
  for (const CgroupMiscLimit& misc : limits.misc) {
    AddKeyed(CgroupController::kMisc, "misc.max", misc.resource,
             MaxOr(misc.max), writes);
  }
  for (const CgroupDmemLimit& dmem : limits.dmem) {
    const auto add = [&](const char* file,
                         const std::optional<int64_t>& value) {
      if (!value.has_value()) return;
      AddKeyed(CgroupController::kDmem, file, dmem.region, MaxOr(*value),
               writes);
    };
    add("dmem.max", dmem.max);
    add("dmem.low", dmem.low);
    add("dmem.min", dmem.min);
  }
  if (limits.net_class.has_value()) {
    writes.push_back({CgroupController::kNetCls, "net_cls.classid",
                      absl::StrCat(*limits.net_class)});
  }
  for (const CgroupNetPriority& net : limits.net_priorities) {
    AddKeyed(CgroupController::kNetPrio, "net_prio.ifpriomap", net.interface,
             absl::StrCat(net.priority), writes);
  }
}

void PlanUnified(const CgroupLimits& limits, Writes& writes) {
  for (const auto& [file, text] : limits.unified) {
    const bool keyed =
        std::any_of(std::begin(kDefaults), std::end(kDefaults),
                    [name = absl::string_view(file)](const Default& d) {
                      return d.file == name;
                    });
    for (absl::string_view line :
         absl::StrSplit(text, '\n', absl::SkipWhitespace())) {
      line = absl::StripAsciiWhitespace(line);
      const size_t space = line.find(' ');
      const std::optional<CgroupController> controller =
          ControllerOfFile(file).value_or(std::nullopt);
      if (keyed && space != absl::string_view::npos) {
        AddKeyed(*controller, file, std::string(line.substr(0, space)),
                 absl::StripAsciiWhitespace(line.substr(space)), writes);
      } else {
        writes.push_back({controller, file, std::string(line)});
      }
    }
  }
}

}  // namespace caisson::cgroup
