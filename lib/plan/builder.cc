#include "lib/plan/builder.h"

#include <string.h>

#include <algorithm>
#include <cstddef>

#include "absl/strings/str_cat.h"

namespace caisson::plan {
namespace {

constexpr size_t kAlign = 8;

size_t AlignUp(size_t value) { return (value + kAlign - 1) & ~(kAlign - 1); }

absl::Status TooMany(absl::string_view what, size_t count, size_t limit) {
  return absl::ResourceExhaustedError(
      absl::StrCat("the plan of this process has ", count, " ", what,
                   "; the limit is ", limit));
}

}  // namespace

PlanBuilder::OpRef& PlanBuilder::OpRef::Into(Slot slot) {
  plan_.ops_[index_].result_slot = static_cast<int16_t>(slot.index());
  return *this;
}

PlanBuilder::OpRef& PlanBuilder::OpRef::Tolerate(int error, uint16_t skip) {
  plan_.ops_[index_].tolerated_errno = static_cast<uint16_t>(error);
  plan_.ops_[index_].skip = skip;
  return *this;
}

PlanBuilder::OpRef& PlanBuilder::OpRef::Hint(absl::string_view hint) {
  plan_.explanations_[index_].hint = std::string(hint);
  return *this;
}

PlanBuilder::OpRef& PlanBuilder::OpRef::Path(absl::string_view path) {
  plan_.explanations_[index_].path = std::string(path);
  return *this;
}

void PlanBuilder::Step(absl::string_view name) {
  steps_.push_back(std::string(name));
}

Slot PlanBuilder::Send(UniqueFd fd) {
  const Slot slot = Send(fd.borrow());
  owned_.push_back(std::move(fd));
  return slot;
}

Slot PlanBuilder::Send(BorrowedFd fd) {
  slot_fd_.push_back(static_cast<int>(fds_.size()));
  fds_.push_back(fd);
  return Slot(static_cast<int>(slot_fd_.size()) - 1);
}

Slot PlanBuilder::NewSlot() {
  slot_fd_.push_back(-1);
  return Slot(static_cast<int>(slot_fd_.size()) - 1);
}

Data PlanBuilder::String(absl::string_view text) {
  const Data data(static_cast<uint32_t>(data_.size()));
  data_.append(text.data(), text.size());
  data_.push_back('\0');
  return data;
}

Data PlanBuilder::Bytes(const void* bytes, size_t size) {
  data_.resize(AlignUp(data_.size()));
  const Data data(static_cast<uint32_t>(data_.size()));
  data_.append(static_cast<const char*>(bytes), size);
  return data;
}

Data PlanBuilder::StringArray(const std::vector<std::string>& strings) {
  const std::vector<uint64_t> null_pointers(strings.size() + 1, 0);
  const Data array =
      Bytes(null_pointers.data(), null_pointers.size() * sizeof(uint64_t));
  for (size_t i = 0; i < strings.size(); ++i) {
    PointTo(array.at(static_cast<uint32_t>(i * sizeof(uint64_t))),
            String(strings[i]));
  }
  return array;
}

void PlanBuilder::PointTo(Data where, Data target) {
  pointers_.emplace_back(where.offset_, target.offset_);
}

PlanBuilder::OpRef PlanBuilder::Append(OpKind kind, long number,
                                       std::initializer_list<Arg> args,
                                       absl::string_view call) {
  Op op = {};
  op.kind = kind;
  op.number = static_cast<uint16_t>(number);
  op.step = static_cast<uint8_t>(steps_.empty() ? 0 : steps_.size() - 1);
  op.result_slot = -1;
  size_t i = 0;
  for (const Arg& arg : args) {
    op.arg_kind[i] = arg.kind_;
    op.args[i] = arg.value_;
    ++i;
  }
  ops_.push_back(op);
  explanations_.push_back({.call = std::string(call)});
  return OpRef(*this, ops_.size() - 1);
}

PlanBuilder::OpRef PlanBuilder::Call(long number,
                                     std::initializer_list<Arg> args,
                                     absl::string_view call) {
  return Append(kSyscall, number, args, call);
}

void PlanBuilder::Store(Data where, Slot slot) {
  // The first argument is an offset into the data area, the second a slot;
  // Serialize() turns both into those of the block.
  Append(kStoreSlot, 0, {where, slot}, "store descriptor");
}

void PlanBuilder::CloseDescriptors(bool limited) {
  Append(kCloseDescriptors, 0, {limited ? 1 : 0}, "close_range(3, 299)");
}

PlanBuilder::OpRef PlanBuilder::Exec(long number,
                                     std::initializer_list<Arg> args,
                                     absl::string_view call, bool try_next) {
  OpRef op = Append(kExec, number, args, call);
  if (try_next) ops_.back().flags = kTryNext;
  return op;
}

void PlanBuilder::Exit() { Append(kExit, 0, {}, "exit(0)"); }

PlanBuilder::OpRef PlanBuilder::Fork(uint64_t flags, Slot cgroup,
                                     absl::string_view call) {
  forks_ = true;
  if (!cgroup.valid()) return Append(kFork, 0, {flags}, call);
  return Append(kFork, 0, {flags, cgroup}, call);
}

PlanBuilder::OpRef PlanBuilder::Init(Data filter) {
  has_init_ = true;
  return Append(kInit, 0, {filter}, "clone3(init)");
}

void PlanBuilder::Await(Slot socket) {
  Append(kAwait, 0, {socket}, "read(host)");
}

void PlanBuilder::set_id_maps(std::string uid_map, std::string gid_map,
                              bool deny_setgroups) {
  uid_map_ = std::move(uid_map);
  gid_map_ = std::move(gid_map);
  deny_setgroups_ = deny_setgroups;
}

const Explanation& PlanBuilder::explanation(size_t index) const {
  return explanations_[index];
}

absl::string_view PlanBuilder::step_of(size_t index) const {
  return steps_.empty() ? absl::string_view() : steps_[ops_[index].step];
}

absl::StatusOr<std::string> PlanBuilder::Serialize() const {
  if (ops_.size() > kMaxOps) return TooMany("operations", ops_.size(), kMaxOps);
  if (fds_.size() > kMaxFds)
    return TooMany("descriptors", fds_.size(), kMaxFds);
  if (slot_fd_.size() > kMaxSlots) {
    return TooMany("descriptor slots", slot_fd_.size(), kMaxSlots);
  }
  if (steps_.size() > kMaxSteps)
    return TooMany("steps", steps_.size(), kMaxSteps);
  if (uid_map_.size() > kMaxIdMap || gid_map_.size() > kMaxIdMap) {
    return TooMany("bytes of id map",
                   std::max(uid_map_.size(), gid_map_.size()), kMaxIdMap);
  }

  std::vector<int> block_slot(slot_fd_.size());
  int next_result = static_cast<int>(fds_.size());
  for (size_t i = 0; i < slot_fd_.size(); ++i) {
    block_slot[i] = slot_fd_[i] >= 0 ? slot_fd_[i] : next_result++;
  }

  const size_t ops_offset = AlignUp(sizeof(Header));
  const size_t relocs_offset = ops_offset + ops_.size() * sizeof(Op);
  const size_t data_offset =
      AlignUp(relocs_offset + pointers_.size() * sizeof(Reloc));
  const size_t uid_offset = data_offset + data_.size();
  const size_t gid_offset = uid_offset + uid_map_.size();
  const size_t size = AlignUp(gid_offset + gid_map_.size() + 1);
  if (size > kMaxSize)
    return TooMany("bytes (arguments and environment)", size, kMaxSize);

  std::string block(size, '\0');
  Header header = {};
  header.magic = kMagic;
  header.version = kVersion;
  header.size = static_cast<uint32_t>(size);
  header.op_count = static_cast<uint32_t>(ops_.size());
  header.ops_offset = static_cast<uint32_t>(ops_offset);
  header.reloc_count = static_cast<uint32_t>(pointers_.size());
  header.relocs_offset = static_cast<uint32_t>(relocs_offset);
  header.data_offset = static_cast<uint32_t>(data_offset);
  header.slot_count = static_cast<uint32_t>(slot_fd_.size());
  header.fd_count = static_cast<uint32_t>(fds_.size());
  header.cgroup_slot =
      cgroup_.valid() ? block_slot[static_cast<size_t>(cgroup_.index())] : -1;
  header.deny_setgroups = deny_setgroups_ ? 1 : 0;
  header.clone_flags = clone_flags_;
  header.uid_map = {static_cast<uint32_t>(uid_offset),
                    static_cast<uint32_t>(uid_map_.size())};
  header.gid_map = {static_cast<uint32_t>(gid_offset),
                    static_cast<uint32_t>(gid_map_.size())};
  memcpy(block.data(), &header, sizeof(header));

  for (size_t i = 0; i < ops_.size(); ++i) {
    Op op = ops_[i];
    for (int a = 0; a < 6; ++a) {
      if (op.arg_kind[a] == kData) op.args[a] += data_offset;
      if (op.arg_kind[a] == kSlot) {
        op.args[a] = static_cast<uint64_t>(block_slot[op.args[a]]);
      }
    }
    if (op.result_slot >= 0) {
      op.result_slot = static_cast<int16_t>(block_slot[op.result_slot]);
    }
    if (op.kind == kStoreSlot) {
      op.arg_kind[0] = op.arg_kind[1] = kImmediate;
    }
    memcpy(block.data() + ops_offset + i * sizeof(Op), &op, sizeof(op));
  }

  std::vector<std::pair<uint32_t, uint32_t>> pointers = pointers_;
  std::sort(pointers.begin(), pointers.end());
  memcpy(block.data() + data_offset, data_.data(), data_.size());
  for (size_t i = 0; i < pointers.size(); ++i) {
    const Reloc reloc = {
        static_cast<uint32_t>(data_offset + pointers[i].first)};
    const uint64_t target = data_offset + pointers[i].second;
    memcpy(block.data() + relocs_offset + i * sizeof(Reloc), &reloc,
           sizeof(reloc));
    memcpy(block.data() + reloc.offset, &target, sizeof(target));
  }
  memcpy(block.data() + uid_offset, uid_map_.data(), uid_map_.size());
  memcpy(block.data() + gid_offset, gid_map_.data(), gid_map_.size());
  return block;
}

}  // namespace caisson::plan
