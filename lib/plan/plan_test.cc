#include <errno.h>
#include <string.h>
#include <sys/syscall.h>

#include <string>
#include <vector>

#include "lib/base/status_matchers.h"
#include "lib/plan/builder.h"
#include "lib/plan/format.h"

namespace caisson::plan {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::HasSubstr;

// A block with 8-byte alignment, as the launcher maps it.
class Block {
 public:
  explicit Block(const std::string& bytes) : words_((bytes.size() + 7) / 8) {
    memcpy(words_.data(), bytes.data(), bytes.size());
    size_ = bytes.size();
  }
  char* bytes() { return reinterpret_cast<char*>(words_.data()); }
  Header& header() { return *reinterpret_cast<Header*>(bytes()); }
  Op& op(int i) {
    return reinterpret_cast<Op*>(bytes() + header().ops_offset)[i];
  }
  Reloc& reloc(int i) {
    return reinterpret_cast<Reloc*>(bytes() + header().relocs_offset)[i];
  }
  Reject Check() {
    return Validate(bytes(), size_, header().fd_count, &position_);
  }
  uint32_t position() const { return position_; }
  size_t size() const { return size_; }

 private:
  std::vector<uint64_t> words_;
  size_t size_;
  uint32_t position_ = 0;
};

std::string SamplePlan() {
  PlanBuilder plan;
  plan.Step("one");
  const Slot result = plan.NewSlot();
  const Slot sent = plan.Send(BorrowedFd(0));
  plan.Call(SYS_dup, {sent}, "dup(0)").Into(result);
  const Data where = plan.Object<int64_t>(0);
  plan.Store(where, result);
  plan.Call(SYS_close, {result}, "close()").Tolerate(EBADF, 1);
  plan.Call(SYS_close, {result}, "close()");
  plan.Step("two");
  plan.Exec(SYS_execve,
            {plan.String("/bin/sh"), plan.StringArray({"sh", "-c"}),
             plan.StringArray({})},
            "execve()", /*try_next=*/false);
  return plan.Serialize().value();
}

TEST(PlanTest, SentDescriptorsTakeTheFirstSlots) {
  Block block(SamplePlan());
  ASSERT_EQ(block.Check(), kAccepted);
  EXPECT_EQ(block.header().fd_count, 1u);
  EXPECT_EQ(block.header().slot_count, 2u);
  EXPECT_EQ(block.op(0).args[0], 0u);     // the sent descriptor
  EXPECT_EQ(block.op(0).result_slot, 1);  // the result
  EXPECT_EQ(block.op(1).args[1], 1u);
}

TEST(PlanTest, RelocationMakesPointers) {
  Block block(SamplePlan());
  ASSERT_EQ(block.Check(), kAccepted);
  Relocate(block.bytes());
  char** argv = reinterpret_cast<char**>(block.bytes() + block.op(4).args[1]);
  EXPECT_STREQ(argv[0], "sh");
  EXPECT_STREQ(argv[1], "-c");
  EXPECT_EQ(argv[2], nullptr);
  EXPECT_EQ(*reinterpret_cast<char**>(block.bytes() + block.op(4).args[2]),
            nullptr);
}

struct Corruption {
  const char* name;
  void (*apply)(Block&);
  Reject expected;
};

class CorruptPlanTest : public ::testing::TestWithParam<Corruption> {};

TEST_P(CorruptPlanTest, IsRefused) {
  Block block(SamplePlan());
  GetParam().apply(block);
  EXPECT_EQ(block.Check(), GetParam().expected);
}

INSTANTIATE_TEST_SUITE_P(
    All, CorruptPlanTest,
    ::testing::Values(
        Corruption{"magic", [](Block& b) { b.header().magic++; }, kBadMagic},
        Corruption{"version", [](Block& b) { b.header().version++; },
                   kBadVersion},
        Corruption{"size", [](Block& b) { b.header().size -= 8; }, kBadSize},
        Corruption{"terminator",
                   [](Block& b) { b.bytes()[b.size() - 1] = 'x'; },
                   kNotTerminated},
        Corruption{"no_ops", [](Block& b) { b.header().op_count = 0; },
                   kBadTables},
        Corruption{"many_ops",
                   [](Block& b) { b.header().op_count = 0x1000000; },
                   kBadTables},
        Corruption{"ops_outside",
                   [](Block& b) { b.header().ops_offset = 0xfffffff8; },
                   kBadTables},
        Corruption{"ops_over_header",
                   [](Block& b) { b.header().ops_offset = 8; }, kBadTables},
        Corruption{
            "data_over_ops",
            [](Block& b) { b.header().data_offset = b.header().ops_offset; },
            kBadTables},
        Corruption{"fd_count", [](Block& b) { b.header().slot_count = 0; },
                   kBadOpSlot},
        Corruption{"cgroup_slot", [](Block& b) { b.header().cgroup_slot = 1; },
                   kBadOpSlot},
        Corruption{"fork_flags",
                   [](Block& b) {
                     b.op(0).kind = kFork;
                     b.op(0).arg_kind[0] = kImmediate;
                     b.op(0).args[0] = 0x100;
                   },
                   kBadCloneFlags},
        Corruption{"fork_cgroup",
                   [](Block& b) {
                     b.op(0).kind = kFork;
                     b.op(0).arg_kind[0] = kImmediate;
                     b.op(0).args[0] = 0;
                     b.op(0).arg_kind[1] = kData;
                   },
                   kBadOpArg},
        Corruption{"init_filter", [](Block& b) { b.op(0).kind = kInit; },
                   kBadOpArg},
        Corruption{"await_socket", [](Block& b) { b.op(4).kind = kAwait; },
                   kBadOpSlot},
        Corruption{"clone_flags",
                   [](Block& b) { b.header().clone_flags = 0x100; },
                   kBadCloneFlags},
        Corruption{"uid_map",
                   [](Block& b) {
                     b.header().uid_map = {b.header().size - 1, 2};
                   },
                   kBadIdMap},
        Corruption{"reloc_outside",
                   [](Block& b) { b.reloc(0).offset = b.header().size - 4; },
                   kBadReloc},
        Corruption{"reloc_in_ops",
                   [](Block& b) { b.reloc(0).offset = b.header().ops_offset; },
                   kBadReloc},
        Corruption{"reloc_twice",
                   [](Block& b) { b.reloc(1).offset = b.reloc(0).offset; },
                   kBadReloc},
        Corruption{"op_kind", [](Block& b) { b.op(2).kind = 99; }, kBadOpKind},
        Corruption{"op_step",
                   [](Block& b) {
                     b.op(4).step = 0;
                     b.op(3).step = 1;
                   },
                   kBadOpStep},
        Corruption{"op_skip", [](Block& b) { b.op(4).skip = 1; }, kBadOpSkip},
        Corruption{"op_slot", [](Block& b) { b.op(0).args[0] = 2; },
                   kBadOpSlot},
        Corruption{"op_data",
                   [](Block& b) { b.op(4).args[0] = b.header().size; },
                   kBadOpArg},
        Corruption{"op_arg_kind", [](Block& b) { b.op(0).arg_kind[0] = 7; },
                   kBadOpArg},
        Corruption{"store_outside",
                   [](Block& b) { b.op(1).args[0] = b.header().size; },
                   kBadOpArg},
        Corruption{"store_in_ops",
                   [](Block& b) { b.op(1).args[0] = b.header().ops_offset; },
                   kBadOpArg}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(PlanTest, TooManyDescriptorsIsAnError) {
  PlanBuilder plan;
  for (uint32_t i = 0; i <= kMaxFds; ++i) plan.Send(BorrowedFd(0));
  plan.Exit();
  EXPECT_THAT(plan.Serialize(),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("251 descriptors; the limit is 250")));
}

TEST(PlanTest, HugeArgumentsAreAnError) {
  PlanBuilder plan;
  plan.String(std::string(kMaxSize, 'x'));
  plan.Exit();
  EXPECT_THAT(plan.Serialize(), StatusIs(absl::StatusCode::kResourceExhausted,
                                         HasSubstr("arguments")));
}

}  // namespace
}  // namespace caisson::plan
