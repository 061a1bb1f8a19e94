// Landlock rules: from intents to what the kernel takes.
#ifndef CAISSON_LIB_SECURITY_LANDLOCK_H_
#define CAISSON_LIB_SECURITY_LANDLOCK_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "caisson/security.h"

namespace caisson::security {

// linux/landlock.h of Linux 6.12; older headers lack the later members.
struct LandlockRulesetAttr {
  uint64_t handled_access_fs = 0;
  uint64_t handled_access_net = 0;
  uint64_t scoped = 0;
};
struct LandlockPortAttr {
  uint64_t allowed_access = 0;
  uint64_t port = 0;
};

inline constexpr int kLandlockRulePath = 1;
inline constexpr int kLandlockRulePort = 2;

struct LandlockPath {
  std::string path;
  uint64_t directory_access = 0;
  uint64_t file_access = 0;  // the part of it that a file can have
  bool if_exists = false;
};

struct Landlock {
  LandlockRulesetAttr attr;
  std::vector<LandlockPath> paths;
  std::vector<LandlockPortAttr> ports;
  std::vector<std::string> missing;  // what the kernel cannot do

  bool empty() const {
    return attr.handled_access_fs == 0 && attr.handled_access_net == 0 &&
           attr.scoped == 0;
  }
};

// The version of the running kernel's Landlock; 0: it has none. Changes
// nothing.
int LandlockAbi();

// What `options` ask for, as far as version `abi` can do it. Without
// unsafe_landlock_best_effort, FAILED_PRECONDITION if it is not all.
absl::StatusOr<Landlock> MakeLandlock(const SecurityOptions& options, int abi);

}  // namespace caisson::security

#endif  // CAISSON_LIB_SECURITY_LANDLOCK_H_
