// Rules about devices in the one form from which both versions are made.
#ifndef CAISSON_LIB_CGROUP_DEVICES_H_
#define CAISSON_LIB_CGROUP_DEVICES_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/cgroup_devices.h"
#include "lib/sys/bpf.h"

namespace caisson::cgroup {

// The kernel's bits (BPF_DEVCG_ACC_*, and DEVCG_ACC_* of version 1).
inline constexpr uint8_t kMknod = 1;
inline constexpr uint8_t kRead = 2;
inline constexpr uint8_t kWrite = 4;
inline constexpr uint8_t kAllAccess = kMknod | kRead | kWrite;

// "rwm" in that order.
std::string AccessText(uint8_t access);

// All devices of a type, or with one number, or one device, and what is allowed
// to them. Of the regions that match a device the most specific one decides:
// (major, minor), (major, *), (*, minor), (*, *).
struct DeviceRegion {
  char type = 'c';  // or 'b'
  std::optional<uint32_t> major;
  std::optional<uint32_t> minor;
  uint8_t access = 0;
};
std::string RegionText(const DeviceRegion& region);  // "c 1:3 rwm"

// Each type's regions, the most specific ones first; (*, *) is always there.
// INVALID_ARGUMENT if the rules make too many.
absl::StatusOr<std::vector<DeviceRegion>> DeviceRegions(
    const CgroupDeviceRules& rules);

// What BPF_CGROUP_DEVICE runs.
std::vector<sys::BpfInstruction> DeviceProgram(
    const std::vector<DeviceRegion>& regions);

// Version 1: allow or refuse by default, and exceptions from that.
struct DeviceListV1 {
  bool allow_by_default = false;
  std::vector<DeviceRegion> exceptions;  // `access` of each: what is excepted
  bool complete = true;                  // or there may be more exceptions
};
// INVALID_ARGUMENT, naming the regions, for what version 1 cannot express.
absl::StatusOr<DeviceListV1> DeviceListOf(
    const std::vector<DeviceRegion>& regions);

// devices.list. Exceptions from "allow" are not shown there: not complete then.
absl::StatusOr<DeviceListV1> ParseDeviceList(absl::string_view text);

struct DeviceWrite {
  bool allow = false;  // to devices.allow, else to devices.deny
  std::string text;
};
// From what is to what shall be. What both allow is allowed all the time,
// unless the default changes; what both refuse is refused all the time, unless
// OpensForAMoment().
std::vector<DeviceWrite> PlanDeviceList(const DeviceListV1& current,
                                        const DeviceListV1& wanted);

// Whether everything is allowed between two of the writes.
bool OpensForAMoment(const DeviceListV1& current, const DeviceListV1& wanted);

}  // namespace caisson::cgroup

#endif  // CAISSON_LIB_CGROUP_DEVICES_H_
