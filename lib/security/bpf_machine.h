// Runs a seccomp filter as the kernel would (tests only): the part of classic
// BPF that BpfAssembler and libseccomp write.
#ifndef CAISSON_LIB_SECURITY_BPF_MACHINE_H_
#define CAISSON_LIB_SECURITY_BPF_MACHINE_H_

#include <linux/bpf_common.h>
#include <linux/seccomp.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "absl/types/span.h"
#include "caisson/security.h"

namespace caisson::security {

struct BpfResult {
  uint32_t value = 0;
  int steps = 0;
  // Left the program, or met an instruction that is not known here.
  bool broken = false;
};

inline BpfResult RunFilter(absl::Span<const BpfInstruction> program,
                           const seccomp_data& data) {
  uint32_t accumulator = 0;
  BpfResult result;
  for (size_t at = 0; at < program.size(); ++at) {
    const BpfInstruction& now = program[at];
    ++result.steps;
    const auto jump = [&](bool taken) {
      at += taken ? now.jump_true : now.jump_false;
    };
    switch (now.code) {
      case BPF_LD | BPF_W | BPF_ABS:
        if (now.k % 4 != 0 || now.k + 4 > sizeof(data)) {
          return {.value = 0, .steps = result.steps, .broken = true};
        }
        std::memcpy(&accumulator, reinterpret_cast<const char*>(&data) + now.k,
                    sizeof(accumulator));
        break;
      case BPF_JMP | BPF_JA:
        at += now.k;
        break;
      case BPF_JMP | BPF_JEQ | BPF_K:
        jump(accumulator == now.k);
        break;
      case BPF_JMP | BPF_JGE | BPF_K:
        jump(accumulator >= now.k);
        break;
      case BPF_JMP | BPF_JSET | BPF_K:
        jump((accumulator & now.k) != 0);
        break;
      case BPF_JMP | BPF_JGT | BPF_K:
        jump(accumulator > now.k);
        break;
      case BPF_ALU | BPF_AND | BPF_K:
        accumulator &= now.k;
        break;
      case BPF_RET | BPF_K:
        result.value = now.k;
        return result;
      default:
        result.broken = true;
        return result;
    }
  }
  result.broken = true;
  return result;
}

}  // namespace caisson::security

#endif  // CAISSON_LIB_SECURITY_BPF_MACHINE_H_
