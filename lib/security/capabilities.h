// Capabilities by name and as bit masks (bit n is capability number n of
// linux/capability.h). Pure, but for KernelCapabilities. Thread-safe.
#ifndef CAISSON_LIB_SECURITY_CAPABILITIES_H_
#define CAISSON_LIB_SECURITY_CAPABILITIES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "caisson/security.h"

namespace caisson::security {

// What Docker gives by default (moby daemon/pkg/oci/caps): CHOWN, DAC_OVERRIDE,
// FSETID, FOWNER, MKNOD, NET_RAW, SETGID, SETUID, SETFCAP, SETPCAP,
// NET_BIND_SERVICE, SYS_CHROOT, KILL, AUDIT_WRITE.
uint64_t DefaultCapabilities();

// "CAP_CHOWN" for 0; "CAP_41" for a number that has no name here.
std::string CapabilityName(int capability);

// The number of "CAP_CHOWN", "CHOWN" or "chown". INVALID_ARGUMENT begins with
// `field` and says which name may have been meant.
absl::StatusOr<int> ParseCapability(absl::string_view field,
                                    absl::string_view name);

struct KernelCapabilities {
  // The highest number that the running kernel knows.
  int last = 0;
  // The bounding set of the calling thread: nothing outside can be had.
  uint64_t bounding = 0;

  // Every capability that the kernel knows.
  uint64_t all() const { return ~uint64_t{0} >> (63 - last); }
};

// Asks the kernel by prctl(PR_CAPBSET_READ), which changes nothing.
absl::StatusOr<KernelCapabilities> ReadKernelCapabilities();

struct CapabilityChoice {
  uint64_t granted = 0;
  // Chosen, but outside the bounding set or unknown to the kernel.
  std::vector<std::string> missing;
};

// The default set without `drop`, then with `add`, as far as `kernel` can grant
// it. "ALL" is allowed in both.
absl::StatusOr<CapabilityChoice> ChooseCapabilities(
    absl::Span<const std::string> drop, absl::Span<const std::string> add,
    const KernelCapabilities& kernel);

struct SetsChoice {
  CapabilityMasks root;
  CapabilityMasks user;  // of everybody else
  std::vector<std::string> missing;
};

// What `options` ask for, as far as `kernel` can grant it. `options` may have
// either the sets or the differences to the default.
absl::StatusOr<SetsChoice> ChooseSets(const SecurityOptions& options,
                                      const KernelCapabilities& kernel);

}  // namespace caisson::security

#endif  // CAISSON_LIB_SECURITY_CAPABILITIES_H_
