#include "lib/security/filter_compiler.h"

#include <linux/bpf_common.h>
#include <linux/seccomp.h>
#include <stddef.h>

#include <algorithm>
#include <map>
#include <set>
#include <tuple>
#include <utility>

#include "absl/types/span.h"
#include "lib/security/bpf_assembler.h"

namespace caisson::security {
namespace {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "where the low half of an argument is");

constexpr uint32_t Low(uint64_t value) { return static_cast<uint32_t>(value); }
constexpr uint32_t High(uint64_t value) {
  return static_cast<uint32_t>(value >> 32);
}

constexpr uint32_t LowOffset(int argument) {
  return static_cast<uint32_t>(offsetof(seccomp_data, args) +
                               sizeof(uint64_t) * argument);
}
constexpr uint32_t HighOffset(int argument) { return LowOffset(argument) + 4; }

// A decision by what it does, whatever rule it comes from.
using Key = std::pair<std::vector<std::pair<std::vector<Condition>, uint32_t>>,
                      uint32_t>;

Key KeyOf(const Decision& decision) {
  Key key;
  for (const Clause& clause : decision.clauses) {
    key.first.emplace_back(clause.conditions, clause.answer);
  }
  key.second = decision.answer;
  return key;
}

// From `first` to the next span of values or numbers, `target`.
struct Span {
  uint32_t first;
  size_t target;
};

// Whether the decision hangs on the low half of one argument alone, by its
// size: the upper half is not looked at, or decides alone where it is not 0.
bool IsByInterval(const Decision& decision) {
  const Condition* first = nullptr;
  for (const Clause& clause : decision.clauses) {
    for (const Condition& condition : clause.conditions) {
      if (first == nullptr) first = &condition;
      if (condition.argument != first->argument ||
          condition.low_half != first->low_half ||
          condition.op == SeccompOperator::kMaskedEqual ||
          condition.value > UINT32_MAX) {
        return false;
      }
    }
  }
  return first != nullptr;
}

uint32_t Evaluate(const Decision& decision, uint64_t value) {
  for (const Clause& clause : decision.clauses) {
    if (std::all_of(clause.conditions.begin(), clause.conditions.end(),
                    [value](const Condition& c) { return c.Holds(value); })) {
      return clause.answer;
    }
  }
  return decision.answer;
}

// The values at which the answer may change.
std::set<uint32_t> Boundaries(const Decision& decision) {
  std::set<uint32_t> boundaries = {0};
  for (const Clause& clause : decision.clauses) {
    for (const Condition& condition : clause.conditions) {
      const uint32_t value = Low(condition.value);
      boundaries.insert(value);
      if (value != UINT32_MAX) boundaries.insert(value + 1);
    }
  }
  return boundaries;
}

class Compiler {
 public:
  explicit Compiler(const FilterTable& table) : table_(table) {
    canonical_.reserve(table.decisions.size());
    for (size_t i = 0; i < table.decisions.size(); ++i) {
      canonical_.push_back(
          known_.emplace(KeyOf(table.decisions[i]), i).first->second);
    }
  }

  std::vector<BpfInstruction> Compile() && {
    EmitBlocks();
    Label dispatch = assembler_.Return(table_.foreign_answer);
    // Backwards, so that the native entry is compared first.
    for (auto entry = table_.entries.rbegin(); entry != table_.entries.rend();
         ++entry) {
      Label numbers = Tree(SpansOf(*entry));
      if (entry->number_mask != UINT32_MAX) {
        numbers = assembler_.And(entry->number_mask, numbers);
      }
      numbers = assembler_.Load(offsetof(seccomp_data, nr), numbers);
      dispatch =
          assembler_.Branch(BPF_JEQ, entry->audit_arch, numbers, dispatch);
    }
    assembler_.Load(offsetof(seccomp_data, arch), dispatch);
    return std::move(assembler_).Finish();
  }

 private:
  using Label = BpfAssembler::Label;

  std::vector<Span> SpansOf(const EntryTable& entry) const {
    std::vector<Span> spans;
    for (const NumberRange& range : entry.ranges) {
      const size_t target = canonical_[range.decision];
      if (!spans.empty() && spans.back().target == target) continue;
      spans.push_back({range.first, target});
    }
    return spans;
  }

  // Those that look at arguments, once each, at the end of the program.
  void EmitBlocks() {
    std::set<size_t> used;
    for (const EntryTable& entry : table_.entries) {
      for (const NumberRange& range : entry.ranges) {
        used.insert(canonical_[range.decision]);
      }
    }
    for (const size_t index : used) {
      const Decision& decision = table_.decisions[index];
      if (decision.clauses.empty()) continue;
      blocks_[index] =
          IsByInterval(decision) ? ByInterval(decision) : ByClause(decision);
    }
  }

  Label Target(size_t decision) {
    const auto block = blocks_.find(decision);
    if (block != blocks_.end()) return block->second;
    return assembler_.Return(table_.decisions[decision].answer);
  }

  // A binary search for the span of the accumulator.
  template <typename TargetOf>
  Label Search(absl::Span<const Span> spans, TargetOf target_of) {
    if (spans.size() == 1) return target_of(spans[0].target);
    const bool one_exception = spans.size() == 3 &&
                               spans[0].target == spans[2].target &&
                               spans[1].first + 1 == spans[2].first;
    if (one_exception) {
      const Label rule = target_of(spans[0].target);
      const Label exception = target_of(spans[1].target);
      return assembler_.Branch(BPF_JEQ, spans[1].first, exception, rule);
    }
    const size_t middle = spans.size() / 2;
    const Label upper = Search(spans.subspan(middle), target_of);
    const Label lower = Search(spans.first(middle), target_of);
    return assembler_.Branch(BPF_JGE, spans[middle].first, upper, lower);
  }

  Label Tree(absl::Span<const Span> spans) {
    return Search(spans, [this](size_t decision) { return Target(decision); });
  }

  Label ByInterval(const Decision& decision) {
    std::vector<Span> spans;
    for (const uint32_t value : Boundaries(decision)) {
      const uint32_t answer = Evaluate(decision, value);
      if (!spans.empty() && spans.back().target == answer) continue;
      spans.push_back({value, answer});
    }
    const Condition& condition = FirstCondition(decision);
    const Label low = assembler_.Load(
        LowOffset(condition.argument), Search(spans, [this](size_t answer) {
          return assembler_.Return(static_cast<uint32_t>(answer));
        }));
    if (condition.low_half) return low;
    const Label above = assembler_.Return(Evaluate(decision, UINT64_MAX));
    return assembler_.Load(HighOffset(condition.argument),
                           assembler_.Branch(BPF_JEQ, 0, low, above));
  }

  static const Condition& FirstCondition(const Decision& decision) {
    for (const Clause& clause : decision.clauses) {
      if (!clause.conditions.empty()) return clause.conditions[0];
    }
    return decision.clauses[0].conditions[0];
  }

  Label ByClause(const Decision& decision) {
    Label next = assembler_.Return(decision.answer);
    for (auto clause = decision.clauses.rbegin();
         clause != decision.clauses.rend(); ++clause) {
      Label holds = assembler_.Return(clause->answer);
      for (auto condition = clause->conditions.rbegin();
           condition != clause->conditions.rend(); ++condition) {
        holds = Test(*condition, holds, next);
      }
      next = holds;
    }
    return next;
  }

  Label Test(const Condition& c, Label yes, Label no) {
    switch (c.op) {
      case SeccompOperator::kEqual:
        return Equal(c, yes, no);
      case SeccompOperator::kNotEqual:
        return Equal(c, no, yes);
      case SeccompOperator::kGreater:
        return Above(c, BPF_JGT, yes, no);
      case SeccompOperator::kGreaterEqual:
        return Above(c, BPF_JGE, yes, no);
      case SeccompOperator::kLess:
        return Above(c, BPF_JGE, no, yes);
      case SeccompOperator::kLessEqual:
        return Above(c, BPF_JGT, no, yes);
      case SeccompOperator::kMaskedEqual:
        return Masked(c, yes, no);
    }
    return no;
  }

  Label Equal(const Condition& c, Label yes, Label no) {
    const Label low =
        assembler_.Load(LowOffset(c.argument),
                        assembler_.Branch(BPF_JEQ, Low(c.value), yes, no));
    if (c.low_half) return low;
    return assembler_.Load(HighOffset(c.argument),
                           assembler_.Branch(BPF_JEQ, High(c.value), low, no));
  }

  // `comparison` for the low half; the upper half decides where it differs.
  Label Above(const Condition& c, uint16_t comparison, Label yes, Label no) {
    const Label low =
        assembler_.Load(LowOffset(c.argument),
                        assembler_.Branch(comparison, Low(c.value), yes, no));
    if (c.low_half) return low;
    const Label same = assembler_.Branch(BPF_JEQ, High(c.value), low, no);
    return assembler_.Load(
        HighOffset(c.argument),
        assembler_.Branch(BPF_JGT, High(c.value), yes, same));
  }

  Label Masked(const Condition& c, Label yes, Label no) {
    Label half = MaskedHalf(LowOffset(c.argument), Low(c.value),
                            Low(c.value_two), yes, no);
    if (c.low_half || High(c.value) == 0) return half;
    return MaskedHalf(HighOffset(c.argument), High(c.value), High(c.value_two),
                      half, no);
  }

  Label MaskedHalf(uint32_t offset, uint32_t mask, uint32_t value, Label yes,
                   Label no) {
    if (value == 0) {
      return assembler_.Load(offset,
                             assembler_.Branch(BPF_JSET, mask, no, yes));
    }
    Label compare = assembler_.Branch(BPF_JEQ, value, yes, no);
    if (mask != UINT32_MAX) compare = assembler_.And(mask, compare);
    return assembler_.Load(offset, compare);
  }

  const FilterTable& table_;
  BpfAssembler assembler_;
  std::map<Key, size_t> known_;    // to the first decision that does the same
  std::vector<size_t> canonical_;  // by decision
  std::map<size_t, Label> blocks_;
};

}  // namespace

std::vector<BpfInstruction> CompileTable(const FilterTable& table) {
  return Compiler(table).Compile();
}

}  // namespace caisson::security
