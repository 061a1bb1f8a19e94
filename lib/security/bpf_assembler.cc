#include "lib/security/bpf_assembler.h"

#include <linux/bpf_common.h>

#include <utility>

namespace caisson::security {
namespace {

// The reach of a conditional jump, less one instruction that the other target
// of the same jump may need in between.
constexpr size_t kReach = 254;

// Close enough that what is written next still reaches it.
constexpr size_t kShare = 200;

}  // namespace

BpfAssembler::Label BpfAssembler::Append(BpfInstruction instruction) {
  reversed_.push_back(instruction);
  return reversed_.size() - 1;
}

BpfAssembler::Label BpfAssembler::Near(Label target) {
  const size_t distance = DistanceTo(target);
  if (distance <= kReach) return target;
  return Append({BPF_JMP | BPF_JA, 0, 0, static_cast<uint32_t>(distance)});
}

BpfAssembler::Label BpfAssembler::Return(uint32_t value) {
  const auto known = returns_.find(value);
  if (known != returns_.end() && DistanceTo(known->second) <= kShare) {
    return known->second;
  }
  return returns_[value] = Append({BPF_RET | BPF_K, 0, 0, value});
}

BpfAssembler::Label BpfAssembler::AppendBefore(Label next,
                                               BpfInstruction instruction) {
  const size_t distance = DistanceTo(next);
  if (distance > 0) {
    Append({BPF_JMP | BPF_JA, 0, 0, static_cast<uint32_t>(distance)});
  }
  return Append(instruction);
}

BpfAssembler::Label BpfAssembler::Load(uint32_t offset, Label next) {
  return AppendBefore(next, {BPF_LD | BPF_W | BPF_ABS, 0, 0, offset});
}

BpfAssembler::Label BpfAssembler::And(uint32_t mask, Label next) {
  return AppendBefore(next, {BPF_ALU | BPF_AND | BPF_K, 0, 0, mask});
}

BpfAssembler::Label BpfAssembler::Branch(uint16_t comparison, uint32_t k,
                                         Label if_true, Label if_false) {
  if_true = Near(if_true);
  if_false = Near(if_false);
  return Append({static_cast<uint16_t>(BPF_JMP | comparison | BPF_K),
                 static_cast<uint8_t>(DistanceTo(if_true)),
                 static_cast<uint8_t>(DistanceTo(if_false)), k});
}

std::vector<BpfInstruction> BpfAssembler::Finish() && {
  return {reversed_.rbegin(), reversed_.rend()};
}

}  // namespace caisson::security
