// Hostile plans: Validate() must keep every access inside the block, whatever
// the bytes say, and what it accepts must be safe to relocate and to walk.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <memory>

#include "lib/plan/format.h"

namespace {

using ::caisson::plan::Header;
using ::caisson::plan::Op;

void Require(bool condition) {
  if (!condition) abort();
}

// What the launcher's child relies on.
void Walk(const char* block) {
  const Header& header = *reinterpret_cast<const Header*>(block);
  const Op* ops = reinterpret_cast<const Op*>(block + header.ops_offset);
  for (uint32_t i = 0; i < header.op_count; ++i) {
    const Op& op = ops[i];
    Require(op.result_slot < static_cast<int64_t>(header.slot_count));
    Require(i + 1 + op.skip <= header.op_count);
    Require(op.step < caisson::plan::kMaxSteps);
    if (op.kind == caisson::plan::kStoreSlot) {
      Require(op.args[0] >= header.data_offset &&
              op.args[0] + 4 <= header.size && op.args[0] % 4 == 0);
      Require(op.args[1] < header.slot_count);
    }
    if (op.kind == caisson::plan::kAwait) {
      Require(op.arg_kind[0] == caisson::plan::kSlot);
    }
    for (int a = 0; a < 6; ++a) {
      if (op.arg_kind[a] == caisson::plan::kSlot) {
        Require(op.args[a] < header.slot_count);
      } else if (op.arg_kind[a] == caisson::plan::kData) {
        // A string that starts here ends inside the block.
        Require(strnlen(block + op.args[a], header.size - op.args[a]) <
                header.size - op.args[a]);
      }
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // The kernel maps plans page-aligned; 8 is what the format needs.
  const size_t words = (size + 7) / 8;
  auto block = std::make_unique<uint64_t[]>(words);
  memcpy(block.get(), data, size);
  char* bytes = reinterpret_cast<char*>(block.get());
  uint32_t fd_count = 0;
  if (size >= sizeof(Header)) {
    fd_count = reinterpret_cast<const Header*>(bytes)->fd_count;
  }
  uint32_t position = 0;
  if (caisson::plan::Validate(bytes, size, fd_count, &position) ==
      caisson::plan::kAccepted) {
    Walk(bytes);
    caisson::plan::Relocate(bytes);
  }
  return 0;
}
