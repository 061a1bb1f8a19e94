// The units of the OCI specification and of Docker's flags.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "caisson/cgroup_limits.h"

namespace caisson {
namespace {

constexpr uint64_t kMinShares = 2;
constexpr uint64_t kMaxShares = 262144;

// daemon/daemon_unix.go, linuxMinMemory.
constexpr int64_t kDockerMinMemory = 6 << 20;

}  // namespace

uint64_t CgroupWeightOfShares(uint64_t shares) {
  if (shares <= kMinShares) return 1;
  if (shares >= kMaxShares) return 10000;
  const double log = std::log2(static_cast<double>(shares));
  const double exponent = (log * log + 125 * log) / 612.0 - 7.0 / 34.0;
  return static_cast<uint64_t>(std::ceil(std::pow(10, exponent)));
}

uint64_t CgroupWeightOfSharesLinear(uint64_t shares) {
  shares = std::clamp(shares, kMinShares, kMaxShares);
  return 1 + (shares - kMinShares) * 9999 / (kMaxShares - kMinShares);
}

uint64_t CgroupIoWeightOfBlkio(uint64_t weight) {
  return 1 + (std::clamp<uint64_t>(weight, 10, 1000) - 10) * 9999 / 990;
}

absl::Status SetDockerMemory(const DockerMemory& flags, CgroupLimits& limits) {
  const auto refuse = [](const auto&... parts) {
    return absl::InvalidArgumentError(
        absl::StrCat("docker memory: ", parts...));
  };
  if (flags.memory < 0 || flags.memory_reservation < 0 ||
      flags.memory_swap < -1) {
    return refuse("negative sizes mean nothing, but for memory_swap -1");
  }
  if (flags.memory > 0 && flags.memory < kDockerMinMemory) {
    return refuse("memory is ", flags.memory, "; want 6 MiB or more");
  }
  if (flags.memory_swap > 0 && flags.memory == 0) {
    return refuse("memory_swap is ", flags.memory_swap,
                  " without memory: it is the sum of both");
  }
  if (flags.memory_swap > 0 && flags.memory_swap < flags.memory) {
    return refuse("memory_swap is ", flags.memory_swap,
                  "; it is the sum with memory, and so at least ",
                  flags.memory);
  }
  if (flags.memory_reservation > 0 &&
      flags.memory_reservation < kDockerMinMemory) {
    return refuse("memory_reservation is ", flags.memory_reservation,
                  "; want 6 MiB or more");
  }
  if (flags.memory > 0 && flags.memory < flags.memory_reservation) {
    return refuse("memory_reservation is ", flags.memory_reservation,
                  ", more than memory, ", flags.memory);
  }
  if (flags.memory > 0) limits.memory_max = flags.memory;
  if (flags.memory_reservation > 0)
    limits.memory_low = flags.memory_reservation;
  if (flags.memory_swap == -1) {
    limits.memory_swap_max = CgroupLimits::kUnlimited;
  } else if (flags.memory > 0) {
    limits.memory_swap_max =
        flags.memory_swap > 0 ? flags.memory_swap - flags.memory : flags.memory;
  }
  return absl::OkStatus();
}

}  // namespace caisson
