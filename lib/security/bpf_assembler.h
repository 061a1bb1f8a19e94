// BpfAssembler: classic BPF, written from the last instruction to the first.
//
//   BpfAssembler assembler;
//   const auto allow = assembler.Return(SECCOMP_RET_ALLOW);
//   const auto deny = assembler.Return(SECCOMP_RET_ERRNO | EPERM);
//   const auto test = assembler.Branch(BPF_JEQ, SYS_read, allow, deny);
//   assembler.Load(offsetof(seccomp_data, nr), test);
//   std::vector<BpfInstruction> program = std::move(assembler).Finish();
//
// Jumps of classic BPF only go forwards, so that whatever can be jumped to has
// already been written and its distance is known. A conditional jump reaches
// 255 instructions; what is further away is reached by a jump in between.
// Thread-compatible.
#ifndef CAISSON_LIB_SECURITY_BPF_ASSEMBLER_H_
#define CAISSON_LIB_SECURITY_BPF_ASSEMBLER_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "caisson/security.h"

namespace caisson::security {

class BpfAssembler final {
 public:
  // An instruction; counted from the end of the program.
  using Label = size_t;

  // Ends the program with `value`. Equal returns nearby are shared.
  Label Return(uint32_t value);

  // Loads the 32-bit word at `offset` of the data into the accumulator and goes
  // on at `next`.
  Label Load(uint32_t offset, Label next);

  // Clears the bits of the accumulator that `mask` lacks, goes on at `next`.
  Label And(uint32_t mask, Label next);

  // Compares the accumulator with `k`; `comparison` is BPF_JEQ, BPF_JGE,
  // BPF_JGT or BPF_JSET.
  Label Branch(uint16_t comparison, uint32_t k, Label if_true, Label if_false);

  // The program; it begins with the instruction that was written last.
  std::vector<BpfInstruction> Finish() &&;

 private:
  Label Append(BpfInstruction instruction);
  size_t DistanceTo(Label target) const {
    return reversed_.size() - target - 1;
  }
  // Writes what does not jump by itself, before `next`.
  Label AppendBefore(Label next, BpfInstruction instruction);
  // `target`, or a jump to it if a conditional jump could not reach it.
  Label Near(Label target);

  std::vector<BpfInstruction> reversed_;
  std::map<uint32_t, Label> returns_;
};

}  // namespace caisson::security

#endif  // CAISSON_LIB_SECURITY_BPF_ASSEMBLER_H_
