// bpf(2) as far as control groups need it: programs that decide about devices.
#ifndef CAISSON_LIB_SYS_BPF_H_
#define CAISSON_LIB_SYS_BPF_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/unique_fd.h"

namespace caisson::sys {

// One instruction, as <linux/bpf.h>'s struct bpf_insn.
struct BpfInstruction {
  uint8_t code;
  uint8_t registers;  // destination in the low four bits, source in the high
  int16_t offset;
  int32_t immediate;
};
static_assert(sizeof(BpfInstruction) == 8);

// BPF_PROG_LOAD of a BPF_PROG_TYPE_CGROUP_DEVICE. An error has what the
// kernel's verifier says. `name`: at most 15 letters, digits, "_", ".".
absl::StatusOr<UniqueFd> LoadDeviceProgram(
    const std::vector<BpfInstruction>& program, absl::string_view name);

// Makes `program` the one of that name of the group: it is added beside those
// of others (BPF_F_ALLOW_MULTI), or replaces its predecessor, atomically
// (BPF_F_REPLACE, Linux 5.6). The group keeps it until it is removed.
absl::Status AttachDeviceProgram(BorrowedFd cgroup, const std::string& path,
                                 BorrowedFd program, absl::string_view name);

}  // namespace caisson::sys

#endif  // CAISSON_LIB_SYS_BPF_H_
