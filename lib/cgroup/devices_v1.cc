// The devices controller of version 1, security/device_cgroup.c.
//
// With "refuse" by default a request is allowed if one exception has all that
// it asks for; with "allow" it is refused if any exception has some of it. So
// exceptions only ever add up, and what a more specific rule takes back from a
// wider one cannot be said.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/cgroup/devices.h"

namespace caisson::cgroup {
namespace {

bool IsWithin(const DeviceRegion& inner, const DeviceRegion& outer) {
  return inner.type == outer.type &&
         (!outer.major.has_value() || outer.major == inner.major) &&
         (!outer.minor.has_value() || outer.minor == inner.minor);
}

bool SamePlace(const DeviceRegion& a, const DeviceRegion& b) {
  return a.type == b.type && a.major == b.major && a.minor == b.minor;
}

// What is excepted in the region, given the default.
uint8_t Excepted(const DeviceRegion& region, bool allow_by_default) {
  return allow_by_default ? kAllAccess & ~region.access : region.access;
}

absl::Status CannotExpress(const DeviceRegion& inner,
                           const DeviceRegion& outer) {
  return absl::InvalidArgumentError(absl::StrCat(
      "limits.devices allow ", Quoted(RegionText(outer)), " but only ",
      Quoted(RegionText(inner)),
      " of it: the devices controller of cgroup v1 cannot take back a part; "
      "allow its devices one by one"));
}

}  // namespace

absl::StatusOr<DeviceListV1> DeviceListOf(
    const std::vector<DeviceRegion>& regions) {
  DeviceListV1 list;
  list.allow_by_default =
      std::all_of(regions.begin(), regions.end(), [](const DeviceRegion& r) {
        return r.major.has_value() || r.minor.has_value() ||
               r.access == kAllAccess;
      });
  for (const DeviceRegion& region : regions) {
    const uint8_t excepted = Excepted(region, list.allow_by_default);
    bool implied = false;
    for (const DeviceRegion& outer : regions) {
      if (SamePlace(region, outer) || !IsWithin(region, outer)) continue;
      const uint8_t wider = Excepted(outer, list.allow_by_default);
      if ((wider & ~excepted) != 0) return CannotExpress(region, outer);
      implied = implied || wider == excepted;
    }
    if (excepted == 0 || implied) continue;
    DeviceRegion& exception = list.exceptions.emplace_back(region);
    exception.access = excepted;
  }
  return list;
}

absl::StatusOr<DeviceListV1> ParseDeviceList(absl::string_view text) {
  DeviceListV1 list;
  for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    ASSIGN_OR_RETURN(const CgroupDeviceRule rule,
                     CgroupDeviceRule::Parse(line));
    if (rule.type == CgroupDeviceRule::Type::kAll) {
      list.allow_by_default = true;
      list.complete = false;
      continue;
    }
    DeviceRegion& exception = list.exceptions.emplace_back();
    exception.type = rule.type == CgroupDeviceRule::Type::kBlock ? 'b' : 'c';
    exception.major = rule.major;
    exception.minor = rule.minor;
    exception.access = (rule.mknod ? kMknod : 0) | (rule.read ? kRead : 0) |
                       (rule.write ? kWrite : 0);
  }
  return list;
}

namespace {

// The kernel changes the default only together with dropping all exceptions,
// and those from "allow" that are not known can go in no other way.
bool StartsAnew(const DeviceListV1& current, const DeviceListV1& wanted) {
  return current.allow_by_default != wanted.allow_by_default ||
         !current.complete;
}

}  // namespace

bool OpensForAMoment(const DeviceListV1& current, const DeviceListV1& wanted) {
  return wanted.allow_by_default && !wanted.exceptions.empty() &&
         StartsAnew(current, wanted);
}

std::vector<DeviceWrite> PlanDeviceList(const DeviceListV1& current,
                                        const DeviceListV1& wanted) {
  std::vector<DeviceWrite> writes;
  const bool anew = StartsAnew(current, wanted);
  if (anew) writes.push_back({wanted.allow_by_default, "a"});
  for (const DeviceRegion& exception : wanted.exceptions) {
    writes.push_back({!wanted.allow_by_default, RegionText(exception)});
  }
  if (anew) return writes;
  for (const DeviceRegion& old : current.exceptions) {
    DeviceRegion gone = old;
    for (const DeviceRegion& kept : wanted.exceptions) {
      if (SamePlace(old, kept)) {
        gone.access &= static_cast<uint8_t>(~kept.access);
      }
    }
    if (gone.access != 0) {
      writes.push_back({wanted.allow_by_default, RegionText(gone)});
    }
  }
  return writes;
}

}  // namespace caisson::cgroup
