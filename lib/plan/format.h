// The plan: what the launcher's child does between clone and exec.
//
// A plan is one flat, position-independent block of memory in a sealed memfd:
// a header, a table of operations, a table of relocations and data. Offsets
// count from the start of the block. doc/plan-format.md describes it; this file
// is its definition, shared by the host side and the freestanding launcher, so
// it includes nothing but <stdint.h>.
#ifndef CAISSON_LIB_PLAN_FORMAT_H_
#define CAISSON_LIB_PLAN_FORMAT_H_

#include <stdint.h>

namespace caisson::plan {

inline constexpr uint32_t kMagic = 0x4e4c5043;  // "CPLN"
inline constexpr uint32_t kVersion = 2;

inline constexpr uint32_t kMaxSize = 8u << 20;
inline constexpr uint32_t kMaxOps = 4096;
// SCM_MAX_FD is 253; three descriptors of a request are not the plan's.
inline constexpr uint32_t kMaxFds = 250;
// All of them, and what a child has beside, lie below what it sets aside.
inline constexpr uint32_t kMaxSlots = 280;
inline constexpr uint32_t kMaxSteps = 16;
inline constexpr uint32_t kMaxIdMap = 4096;
// Descriptors with these numbers survive kCloseDescriptors.
inline constexpr int kFirstSetAside = 320;

// What an argument of an operation holds.
enum ArgKind : uint8_t {
  kImmediate = 0,  // the value itself
  kSlot = 1,       // the number of a descriptor slot; the descriptor is passed
  kData = 2,       // an offset into the plan; the address is passed
};

enum OpKind : uint16_t {
  // A system call. A result slot takes what it returns.
  kSyscall = 0,
  // Stores descriptor slot args[1] as int32 at offset args[0] of the plan.
  kStoreSlot = 1,
  // Closes the descriptors from 3 on, up to those that were set aside from
  // kFirstSetAside on, and gives the process the host's RLIMIT_NOFILE unless
  // args[0] is not 0. Slots are gone afterwards.
  kCloseDescriptors = 2,
  // A system call that replaces the program (execve). With kTryNext a failure
  // that another directory of $PATH might not have goes on to the next
  // operation; the last one reports the most telling failure.
  kExec = 3,
  // Ends the child with status 0: a plan that only makes namespaces.
  kExit = 4,
  // Clones the process that runs the rest of the plan, as the launcher's child
  // in this one's place, with the CLONE_NEW* flags args[0], in the v2 control
  // group of slot args[1] unless that is immediate. This process then ends. It
  // is how a plan gets into a pid namespace that it joined, and how a process
  // can give up its privileges before anything inside can see it.
  kFork = 5,
  // Clones the process that runs the rest of the plan and stays as its parent,
  // PID 1: it forwards signals, collects what ends and ends as its child did.
  // args[0] is the sock_fprog that confines it (kData), or immediate.
  kInit = 6,
  // Sends a byte over the socket in slot args[0] and waits for one; ends when
  // the other end is closed.
  kAwait = 7,
};

enum OpFlags : uint8_t {
  kTryNext = 1,
};

struct Op {
  uint16_t kind;        // OpKind
  uint16_t number;      // system call number
  uint8_t flags;        // OpFlags
  uint8_t step;         // index of the step that it belongs to; never decreases
  uint8_t arg_kind[6];  // ArgKind
  int16_t result_slot;  // slot that takes the result; -1: none
  // If the call fails with this errno, `skip` operations after it are left out
  // and nothing is wrong. 0: every failure ends the plan.
  uint16_t tolerated_errno;
  uint16_t skip;
  uint16_t reserved;
  uint64_t args[6];
};
static_assert(sizeof(Op) == 72);

// The 8 bytes at `offset` hold an offset and become an address.
struct Reloc {
  uint32_t offset;
};

struct Range {
  uint32_t offset;
  uint32_t size;
};

enum State : uint32_t {
  kPending = 0,    // nothing ran yet
  kRunning = 1,    // the child executes operations
  kExecuting = 2,  // the last thing that the child did was an exec
  kFailed = 3,     // operation `op` failed with `error`
  kDone = 4,       // kExit was reached
};

// Written by the child, read by the host when the status pipe is closed.
struct Result {
  uint32_t state;  // State
  uint32_t op;     // index of the current or failed operation
  int32_t error;   // errno of the failed operation
  uint32_t steps;  // number of steps entered
  // By kInit: how its child ended, as wait4(2) reports it.
  uint32_t init_ended;
  int32_t init_status;
  // CLOCK_MONOTONIC in ns: [0] when the launcher took the request, [1] when the
  // child began, [2 + i] when step i ended.
  uint64_t time[2 + kMaxSteps];
};

struct Header {
  uint32_t magic;
  uint32_t version;
  uint32_t size;  // of the whole block, the memfd's
  uint32_t op_count;
  uint32_t ops_offset;
  uint32_t reloc_count;
  uint32_t relocs_offset;
  uint32_t data_offset;  // relocations and stores lie in [data_offset, size)
  uint32_t slot_count;   // slots [0, fd_count) are the descriptors received
  uint32_t fd_count;
  int32_t cgroup_slot;  // directory of a v2 group for CLONE_INTO_CGROUP; or -1
  uint32_t deny_setgroups;  // write "deny" before the gid map
  uint64_t clone_flags;     // CLONE_NEW*; nothing else is allowed
  Range uid_map;            // text for /proc/PID/uid_map; size 0: none
  Range gid_map;
  Result result;
};

// Why the launcher refuses a plan; also an index into RejectText().
enum Reject : uint32_t {
  kAccepted = 0,
  kBadSize,
  kBadMagic,
  kBadVersion,
  kBadTables,
  kBadReloc,
  kBadOpKind,
  kBadOpArg,
  kBadOpSlot,
  kBadOpStep,
  kBadOpSkip,
  kBadCloneFlags,
  kBadIdMap,
  kNotTerminated,
};

// Checks that nothing in the block points outside of it, that its last byte is
// NUL (so that every string in it ends), and that no operation names a slot or
// step that does not exist. `mapped_size` is the size of the mapping at `base`;
// `fd_count` the number of descriptors that came with it. On failure
// `*position` is the index of the offending table entry. Writes nothing.
Reject Validate(const void* base, uint64_t mapped_size, uint32_t fd_count,
                uint32_t* position);

// Turns the offsets that the relocation table names into addresses. Only for a
// block that Validate accepted; not idempotent.
void Relocate(void* base);

}  // namespace caisson::plan

#endif  // CAISSON_LIB_PLAN_FORMAT_H_
