// Builds plans (format.h) on the host side.
//
// The modules that know how a container is put together append operations; the
// launcher sends the result. Everything that can be looked up, allocated or
// checked is done here, before a process exists.
//
//   PlanBuilder plan;
//   plan.Step("mounts");
//   Slot proc = plan.NewSlot();
//   plan.Call(SYS_fsopen, {plan.String("proc"), FSOPEN_CLOEXEC},
//             "fsopen(proc)").Into(proc);
//
// Thread-compatible.
#ifndef CAISSON_LIB_PLAN_BUILDER_H_
#define CAISSON_LIB_PLAN_BUILDER_H_

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/unique_fd.h"
#include "lib/plan/format.h"

namespace caisson::plan {

// A descriptor of the child: one that the host sends or one that an operation
// opens.
class Slot final {
 public:
  constexpr Slot() = default;
  constexpr bool valid() const { return index_ >= 0; }
  constexpr int index() const { return index_; }

 private:
  friend class PlanBuilder;
  constexpr explicit Slot(int index) : index_(index) {}
  int index_ = -1;
};

// Bytes inside the plan; `at` refers into them.
class Data final {
 public:
  constexpr Data() = default;
  constexpr Data at(uint32_t offset) const { return Data(offset_ + offset); }

 private:
  friend class PlanBuilder;
  friend class Arg;
  constexpr explicit Data(uint32_t offset) : offset_(offset) {}
  uint32_t offset_ = 0;  // in the data area
};

// An argument of a system call.
class Arg final {
 public:
  template <typename Integer,
            typename = std::enable_if_t<std::is_integral_v<Integer> ||
                                        std::is_enum_v<Integer>>>
  constexpr Arg(Integer value)  // NOLINT: an integer is an argument
      : kind_(kImmediate),
        value_(static_cast<uint64_t>(static_cast<int64_t>(value))) {}
  constexpr Arg(Slot slot)  // NOLINT: a slot is an argument
      : kind_(kSlot), value_(static_cast<uint64_t>(slot.index())) {}
  constexpr Arg(Data data)  // NOLINT: a piece of data is an argument
      : kind_(kData), value_(data.offset_) {}

 private:
  friend class PlanBuilder;
  ArgKind kind_;
  uint64_t value_;
};

// What an operation is, for people: "move_mount(proc, \"/proc\")", and what the
// errors that it is known for mean.
struct Explanation {
  std::string call;
  std::string path;  // for ErrorDetail; may be empty
  std::string hint;  // may be empty
};

class PlanBuilder final {
 public:
  // Refines the operation that was appended last; valid until the next one.
  class OpRef final {
   public:
    // The result is a descriptor; it goes into `slot`.
    OpRef& Into(Slot slot);
    // Failing with `error` is no failure; `skip` operations that follow are
    // left out then.
    OpRef& Tolerate(int error, uint16_t skip = 0);
    // What to tell the reader when it fails.
    OpRef& Hint(absl::string_view hint);
    OpRef& Path(absl::string_view path);

   private:
    friend class PlanBuilder;
    OpRef(PlanBuilder& plan, size_t index) : plan_(plan), index_(index) {}
    PlanBuilder& plan_;
    size_t index_;
  };

  PlanBuilder() = default;
  PlanBuilder(PlanBuilder&&) = default;
  PlanBuilder& operator=(PlanBuilder&&) = default;

  // Begins a named step; its duration is reported with the process. A second
  // step of the same name is another step. At most kMaxSteps.
  void Step(absl::string_view name);

  // A descriptor to send along. The builder takes it, or only borrows it: then
  // it must stay open until the plan was sent.
  Slot Send(UniqueFd fd);
  Slot Send(BorrowedFd fd);
  // A slot for the result of an operation.
  Slot NewSlot();

  Data String(absl::string_view text);         // NUL-terminated
  Data Bytes(const void* bytes, size_t size);  // 8-aligned
  template <typename T>
  Data Object(const T& object) {
    static_assert(std::is_trivially_copyable_v<T>);
    return Bytes(&object, sizeof(object));
  }
  // A NULL-terminated array of pointers to strings: argv, envp.
  Data StringArray(const std::vector<std::string>& strings);
  // Makes the 8 bytes at `where` a pointer to `target`.
  void PointTo(Data where, Data target);

  // Appends a system call. `call` explains it in errors.
  OpRef Call(long number, std::initializer_list<Arg> args,
             absl::string_view call);
  // Stores the descriptor of `slot` as int32 at `where`, at run time.
  void Store(Data where, Slot slot);
  // `limited`: the plan set RLIMIT_NOFILE.
  void CloseDescriptors(bool limited = false);
  // Replaces the program; see kExec and kTryNext.
  OpRef Exec(long number, std::initializer_list<Arg> args,
             absl::string_view call, bool try_next);
  // Ends the child: for plans that make namespaces and send them back.
  void Exit();
  // The rest of the plan runs in a new process with these CLONE_NEW* flags; see
  // kFork. `cgroup` may be invalid.
  OpRef Fork(uint64_t flags, Slot cgroup, absl::string_view call);
  // The rest runs in a child of a minimal init; see kInit. `filter` is a
  // sock_fprog.
  OpRef Init(Data filter);
  // Waits for a byte from the host over `socket`; see kAwait.
  void Await(Slot socket);

  // Clone flags, CLONE_NEW* without CLONE_NEWCGROUP.
  void set_clone_flags(uint64_t flags) { clone_flags_ = flags; }
  uint64_t clone_flags() const { return clone_flags_; }
  // The v2 control group that the child is born in (CLONE_INTO_CGROUP).
  void set_cgroup(Slot slot) { cgroup_ = slot; }
  // Text for /proc/PID/uid_map and gid_map, written by the launcher before the
  // first operation.
  void set_id_maps(std::string uid_map, std::string gid_map,
                   bool deny_setgroups);

  // Lays the block out. RESOURCE_EXHAUSTED when a limit of format.h is passed,
  // naming it (argv and environment too large, for example).
  absl::StatusOr<std::string> Serialize() const;

  const std::vector<BorrowedFd>& fds() const { return fds_; }
  // Closes what the builder owns, once the plan was sent.
  void DropDescriptors() { owned_.clear(); }
  const std::vector<std::string>& steps() const { return steps_; }
  size_t op_count() const { return ops_.size(); }
  // Whether the process at the end is another one than at the start.
  bool forks() const { return forks_; }
  bool has_init() const { return has_init_; }
  // The step and explanation of operation `index`.
  const Explanation& explanation(size_t index) const;
  absl::string_view step_of(size_t index) const;

 private:
  OpRef Append(OpKind kind, long number, std::initializer_list<Arg> args,
               absl::string_view call);

  std::vector<Op> ops_;
  std::vector<Explanation> explanations_;
  std::vector<std::string> steps_;
  std::string data_;
  std::vector<std::pair<uint32_t, uint32_t>> pointers_;  // data offsets
  std::vector<UniqueFd> owned_;
  // Sent descriptors take the first slots of the block, whatever the order of
  // the calls, because they arrive together.
  std::vector<BorrowedFd> fds_;
  std::vector<int> slot_fd_;  // index into fds_, or -1 for a result slot
  uint64_t clone_flags_ = 0;
  Slot cgroup_;
  std::string uid_map_;
  std::string gid_map_;
  bool deny_setgroups_ = false;
  bool forks_ = false;
  bool has_init_ = false;
};

}  // namespace caisson::plan

#endif  // CAISSON_LIB_PLAN_BUILDER_H_
