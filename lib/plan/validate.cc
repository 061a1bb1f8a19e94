// Compiled twice: into the library (for tests and the fuzzer) and into the
// freestanding launcher. Calls nothing.
#include "lib/plan/format.h"

namespace caisson::plan {
namespace {

// Every CLONE_NEW* flag but CLONE_NEWCGROUP, which takes the group of the
// *caller* of clone: the child unshares it once it is in its own group.
constexpr uint64_t kCloneNewTime = 0x00000080;
constexpr uint64_t kCloneNewNs = 0x00020000;
constexpr uint64_t kCloneNewUts = 0x04000000;
constexpr uint64_t kCloneNewIpc = 0x08000000;
constexpr uint64_t kCloneNewUser = 0x10000000;
constexpr uint64_t kCloneNewPid = 0x20000000;
constexpr uint64_t kCloneNewNet = 0x40000000;
constexpr uint64_t kAllowedCloneFlags =
    kCloneNewTime | kCloneNewNs | kCloneNewUts | kCloneNewIpc | kCloneNewUser |
    kCloneNewPid | kCloneNewNet;
// clone(2) takes the rest of the low byte for a signal.
constexpr uint64_t kAllowedForkFlags = kAllowedCloneFlags & ~kCloneNewTime;

// A table of `count` entries of `entry` bytes at `offset`, inside `size`.
bool TableFits(uint64_t offset, uint64_t count, uint64_t entry, uint64_t size) {
  return offset >= sizeof(Header) && offset % 8 == 0 && offset <= size &&
         count * entry <= size - offset;
}

bool RangeFits(const Range& range, const Header& header) {
  return range.size == 0 ||
         (range.size <= kMaxIdMap && range.offset >= header.data_offset &&
          uint64_t{range.offset} + range.size <= header.size);
}

bool IsImmediate(const Op& op, int argument) {
  return op.arg_kind[argument] == kImmediate;
}

// What the interpreter relies on beside the ranges of slots and offsets.
Reject CheckArguments(const Header& header, const Op& op) {
  switch (op.kind) {
    case kStoreSlot: {
      const bool aligned = op.args[0] % 4 == 0;
      const bool inside = op.args[0] >= header.data_offset &&
                          op.args[0] < header.size &&
                          header.size - op.args[0] >= 4;
      if (!aligned || !inside) return kBadOpArg;
      return op.args[1] < header.slot_count ? kAccepted : kBadOpSlot;
    }
    case kFork:
      if (!IsImmediate(op, 0)) return kBadOpArg;
      if ((op.args[0] & ~kAllowedForkFlags) != 0) return kBadCloneFlags;
      return op.arg_kind[1] != kData ? kAccepted : kBadOpArg;
    case kInit:
      return op.arg_kind[0] != kSlot ? kAccepted : kBadOpArg;
    case kAwait:
      return op.arg_kind[0] == kSlot ? kAccepted : kBadOpSlot;
    default:
      return kAccepted;
  }
}

Reject CheckOp(const Header& header, const Op& op, uint32_t index,
               uint32_t previous_step) {
  if (op.kind > kAwait || op.reserved != 0 || (op.flags & ~kTryNext) != 0) {
    return kBadOpKind;
  }
  if (op.step >= kMaxSteps || op.step < previous_step) return kBadOpStep;
  if (op.skip >= header.op_count - index) return kBadOpSkip;
  if (op.result_slot < -1 ||
      op.result_slot >= static_cast<int64_t>(header.slot_count)) {
    return kBadOpSlot;
  }
  for (int i = 0; i < 6; ++i) {
    switch (op.arg_kind[i]) {
      case kImmediate:
        break;
      case kSlot:
        if (op.args[i] >= header.slot_count) return kBadOpSlot;
        break;
      case kData:
        if (op.args[i] >= header.size) return kBadOpArg;
        break;
      default:
        return kBadOpArg;
    }
  }
  return CheckArguments(header, op);
}

}  // namespace

Reject Validate(const void* base, uint64_t mapped_size, uint32_t fd_count,
                uint32_t* position) {
  *position = 0;
  if (mapped_size < sizeof(Header) + 1 || mapped_size > kMaxSize) {
    return kBadSize;
  }
  const Header& header = *static_cast<const Header*>(base);
  const char* bytes = static_cast<const char*>(base);
  if (header.magic != kMagic) return kBadMagic;
  if (header.version != kVersion) return kBadVersion;
  if (header.size != mapped_size) return kBadSize;
  if (bytes[header.size - 1] != '\0') return kNotTerminated;
  if (header.op_count == 0 || header.op_count > kMaxOps ||
      !TableFits(header.ops_offset, header.op_count, sizeof(Op), header.size) ||
      !TableFits(header.relocs_offset, header.reloc_count, sizeof(Reloc),
                 header.size) ||
      !TableFits(header.data_offset, 0, 1, header.size) ||
      header.ops_offset + uint64_t{header.op_count} * sizeof(Op) >
          header.data_offset ||
      header.relocs_offset + uint64_t{header.reloc_count} * sizeof(Reloc) >
          header.data_offset) {
    return kBadTables;
  }
  if (header.fd_count != fd_count || header.fd_count > kMaxFds ||
      header.slot_count > kMaxSlots || header.slot_count < header.fd_count ||
      header.cgroup_slot < -1 ||
      header.cgroup_slot >= static_cast<int64_t>(header.fd_count)) {
    return kBadOpSlot;
  }
  if ((header.clone_flags & ~kAllowedCloneFlags) != 0) return kBadCloneFlags;
  if (!RangeFits(header.uid_map, header) ||
      !RangeFits(header.gid_map, header)) {
    return kBadIdMap;
  }
  const Reloc* relocs =
      reinterpret_cast<const Reloc*>(bytes + header.relocs_offset);
  uint64_t previous_end = header.data_offset;
  for (uint32_t i = 0; i < header.reloc_count; ++i) {
    *position = i;
    const uint64_t offset = relocs[i].offset;
    // In ascending order, so that no word is relocated twice.
    if (offset % 8 != 0 || offset < previous_end || offset + 8 > header.size) {
      return kBadReloc;
    }
    previous_end = offset + 8;
    if (*reinterpret_cast<const uint64_t*>(bytes + offset) >= header.size) {
      return kBadReloc;
    }
  }
  const Op* ops = reinterpret_cast<const Op*>(bytes + header.ops_offset);
  uint32_t step = 0;
  for (uint32_t i = 0; i < header.op_count; ++i) {
    *position = i;
    const Reject reject = CheckOp(header, ops[i], i, step);
    if (reject != kAccepted) return reject;
    step = ops[i].step;
  }
  *position = 0;
  return kAccepted;
}

void Relocate(void* base) {
  const Header& header = *static_cast<const Header*>(base);
  char* bytes = static_cast<char*>(base);
  const Reloc* relocs =
      reinterpret_cast<const Reloc*>(bytes + header.relocs_offset);
  for (uint32_t i = 0; i < header.reloc_count; ++i) {
    uint64_t* word = reinterpret_cast<uint64_t*>(bytes + relocs[i].offset);
    *word += reinterpret_cast<uint64_t>(bytes);
  }
}

}  // namespace caisson::plan
