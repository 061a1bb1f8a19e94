#include <string>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/spec/field_reader.h"
#include "lib/spec/linux_config.h"

namespace caisson::spec {
namespace {

constexpr auto kRequired = Presence::kRequired;
constexpr absl::string_view kRuleTypes[] = {"a", "b", "c"};
constexpr int64_t kUnlimited = -1;

void CheckDeviceNumber(const char* field, const std::optional<int64_t>& number,
                       FieldReader& read) {
  // -1 is a wildcard for runc and crun, as a missing number is.
  if (number.value_or(0) < -1 || number.value_or(0) > UINT32_MAX) {
    read.Fail(field, absl::StrCat(*number, " is no device number"));
  }
}

absl::Status ReadDeviceRule(const JsonObject& json, DeviceRule& out) {
  FieldReader read(json);
  read.Bool("allow", out.allow, kRequired);
  read.Word("type", kRuleTypes, out.type);
  read.Number("major", out.major);
  CheckDeviceNumber("major", out.major, read);
  read.Number("minor", out.minor);
  CheckDeviceNumber("minor", out.minor, read);
  read.Text("access", out.access);
  if (out.access.find_first_not_of("rwm") != std::string::npos) {
    read.Fail("access", absl::StrCat(Quoted(out.access.substr(0, 80)),
                                     " has other letters than r, w and m"));
  }
  return read.status();
}

// -1 is no limit; what is below says nothing.
void CheckLimit(const char* field, const std::optional<int64_t>& value,
                FieldReader& read) {
  if (value.value_or(0) >= kUnlimited) return;
  read.Fail(field, absl::StrCat(*value, " is below -1 (no limit)"));
}

absl::Status ReadMemory(const JsonObject& json, Memory& out) {
  FieldReader read(json);
  const auto limit = [&](const char* field, std::optional<int64_t>& value) {
    read.Number(field, value);
    CheckLimit(field, value, read);
  };
  limit("limit", out.limit);
  limit("reservation", out.reservation);
  limit("swap", out.swap);
  limit("kernel", out.kernel);
  limit("kernelTCP", out.kernel_tcp);
  read.Number("swappiness", out.swappiness);
  read.Bool("disableOOMKiller", out.disable_oom_killer);
  read.Bool("useHierarchy", out.use_hierarchy);
  read.Bool("checkBeforeUpdate", out.check_before_update);
  return read.status();
}

absl::Status ReadCpu(const JsonObject& json, Cpu& out) {
  FieldReader read(json);
  read.Number("shares", out.shares);
  read.Number("quota", out.quota);
  read.Number("burst", out.burst);
  read.Number("period", out.period);
  read.Number("realtimeRuntime", out.realtime_runtime);
  read.Number("realtimePeriod", out.realtime_period);
  read.Text("cpus", out.cpus);
  read.Text("mems", out.mems);
  read.Number("idle", out.idle);
  if (out.idle.value_or(0) < 0 || out.idle.value_or(0) > 1) {
    read.Fail("idle", absl::StrCat(*out.idle, " is neither 0 nor 1"));
  }
  return read.status();
}

absl::Status ReadPids(const JsonObject& json, Pids& out) {
  FieldReader read(json);
  read.Number("limit", out.limit);
  CheckLimit("limit", out.limit, read);
  return read.status();
}

absl::Status ReadWeightDevice(const JsonObject& json, WeightDevice& out) {
  FieldReader read(json);
  read.Number("major", out.major, kRequired);
  read.Number("minor", out.minor, kRequired);
  read.Number("weight", out.weight);
  read.Number("leafWeight", out.leaf_weight);
  return read.status();
}

absl::Status ReadThrottleDevice(const JsonObject& json, ThrottleDevice& out) {
  FieldReader read(json);
  read.Number("major", out.major, kRequired);
  read.Number("minor", out.minor, kRequired);
  read.Number("rate", out.rate, kRequired);
  return read.status();
}

absl::Status ReadBlockIo(const JsonObject& json, BlockIo& out) {
  FieldReader read(json);
  read.Number("weight", out.weight);
  read.Number("leafWeight", out.leaf_weight);
  read.Objects("weightDevice", out.weight_device, ReadWeightDevice);
  read.Objects("throttleReadBpsDevice", out.throttle_read_bps_device,
               ReadThrottleDevice);
  read.Objects("throttleWriteBpsDevice", out.throttle_write_bps_device,
               ReadThrottleDevice);
  read.Objects("throttleReadIOPSDevice", out.throttle_read_iops_device,
               ReadThrottleDevice);
  read.Objects("throttleWriteIOPSDevice", out.throttle_write_iops_device,
               ReadThrottleDevice);
  return read.status();
}

absl::Status ReadHugepageLimit(const JsonObject& json, HugepageLimit& out) {
  FieldReader read(json);
  read.Text("pageSize", out.page_size, kRequired);
  read.Number("limit", out.limit, kRequired);
  return read.status();
}

absl::Status ReadPriority(const JsonObject& json, InterfacePriority& out) {
  FieldReader read(json);
  read.Text("name", out.name, kRequired);
  read.Number("priority", out.priority, kRequired);
  return read.status();
}

absl::Status ReadNetwork(const JsonObject& json, NetworkResources& out) {
  FieldReader read(json);
  read.Number("classID", out.class_id);
  read.Objects("priorities", out.priorities, ReadPriority);
  return read.status();
}

absl::Status ReadRdma(const JsonObject& json, Rdma& out) {
  FieldReader read(json);
  read.Number("hcaHandles", out.hca_handles);
  read.Number("hcaObjects", out.hca_objects);
  return read.status();
}

}  // namespace

absl::Status ReadResources(const JsonObject& json, Resources& out) {
  FieldReader read(json);
  read.Objects("devices", out.devices, ReadDeviceRule);
  read.Object("memory", out.memory, ReadMemory);
  read.Object("cpu", out.cpu, ReadCpu);
  read.Object("pids", out.pids, ReadPids);
  read.Object("blockIO", out.block_io, ReadBlockIo);
  read.Objects("hugepageLimits", out.hugepage_limits, ReadHugepageLimit);
  read.Object("network", out.network, ReadNetwork);
  read.ObjectMap("rdma", out.rdma, ReadRdma);
  read.TextMap("unified", out.unified);
  return read.status();
}

}  // namespace caisson::spec
