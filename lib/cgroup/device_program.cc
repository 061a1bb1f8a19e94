// The eBPF program that decides about devices.
//
// It gets a struct bpf_cgroup_dev_ctx in R1: {access << 16 | type, major,
// minor}, and answers 1 for yes in R0. It is a chain without loops: the first
// region that matches answers.
#include <linux/bpf.h>

#include "lib/cgroup/devices.h"

namespace caisson::cgroup {
namespace {

using sys::BpfInstruction;

constexpr int32_t kTypeMask = 0xffff;
constexpr int32_t kAccessShift = 16;

// R1 is free once R2 to R5 are loaded.
constexpr uint8_t kResult = BPF_REG_0;
constexpr uint8_t kContext = BPF_REG_1;
constexpr uint8_t kType = BPF_REG_2;
constexpr uint8_t kAccess = BPF_REG_3;
constexpr uint8_t kMajor = BPF_REG_4;
constexpr uint8_t kMinor = BPF_REG_5;

BpfInstruction Load(uint8_t to, int16_t offset) {
  return {BPF_LDX | BPF_MEM | BPF_W, static_cast<uint8_t>(to | kContext << 4),
          offset, 0};
}

BpfInstruction Copy(uint8_t to, uint8_t from) {
  return {BPF_ALU | BPF_MOV | BPF_X, static_cast<uint8_t>(to | from << 4), 0,
          0};
}

BpfInstruction Alu(uint8_t operation, uint8_t to, uint32_t immediate) {
  return {static_cast<uint8_t>(BPF_ALU | operation | BPF_K), to, 0,
          static_cast<int32_t>(immediate)};
}

// 32-bit comparison: numbers above 2^31 are not sign-extended.
BpfInstruction SkipUnlessEqual(uint8_t what, uint32_t immediate, size_t skip) {
  return {BPF_JMP32 | BPF_JNE | BPF_K, what, static_cast<int16_t>(skip),
          static_cast<int32_t>(immediate)};
}

constexpr BpfInstruction kExit = {BPF_JMP | BPF_EXIT, 0, 0, 0};

// R0 = whether nothing but `allowed` is asked for; exit.
std::vector<BpfInstruction> Answer(uint8_t allowed) {
  if (allowed == 0) return {Alu(BPF_MOV, kResult, 0), kExit};
  if (allowed == kAllAccess) return {Alu(BPF_MOV, kResult, 1), kExit};
  return {Copy(kResult, kAccess),
          Alu(BPF_AND, kResult, kAllAccess & ~allowed),
          SkipUnlessEqual(kResult, 0, 2),
          Alu(BPF_MOV, kResult, 1),
          kExit,
          Alu(BPF_MOV, kResult, 0),
          kExit};
}

}  // namespace

std::vector<BpfInstruction> DeviceProgram(
    const std::vector<DeviceRegion>& regions) {
  std::vector<BpfInstruction> program = {Load(kType, 0),
                                         Copy(kAccess, kType),
                                         Alu(BPF_AND, kType, kTypeMask),
                                         Alu(BPF_RSH, kAccess, kAccessShift),
                                         Load(kMajor, 4),
                                         Load(kMinor, 8)};
  for (const DeviceRegion& region : regions) {
    const std::vector<BpfInstruction> answer = Answer(region.access);
    const size_t minor = region.minor.has_value() ? 1 : 0;
    const size_t major = region.major.has_value() ? 1 : 0;
    program.push_back(SkipUnlessEqual(
        kType, region.type == 'b' ? BPF_DEVCG_DEV_BLOCK : BPF_DEVCG_DEV_CHAR,
        major + minor + answer.size()));
    if (major != 0) {
      program.push_back(
          SkipUnlessEqual(kMajor, *region.major, minor + answer.size()));
    }
    if (minor != 0) {
      program.push_back(SkipUnlessEqual(kMinor, *region.minor, answer.size()));
    }
    program.insert(program.end(), answer.begin(), answer.end());
  }
  const std::vector<BpfInstruction> none = Answer(0);
  program.insert(program.end(), none.begin(), none.end());
  return program;
}

}  // namespace caisson::cgroup
