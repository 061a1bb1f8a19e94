#include "lib/security/filter_compiler.h"

#include <errno.h>
#include <linux/bpf_common.h>
#include <linux/seccomp.h>
#include <stddef.h>

#include <map>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "lib/security/bpf_assembler.h"
#include "lib/security/default_profile.h"

namespace caisson::security {
namespace {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "where the low half of an argument is");

// What happens to a call: an answer, or what `check` says.
struct Decision {
  Answer answer = Answer::kEnosys;
  const ArgumentRule* check = nullptr;

  bool operator==(const Decision&) const = default;
};

// From `first` to the next range. The first of a list begins at 0, neighbours
// differ.
struct Range {
  uint32_t first;
  Decision decision;
};
using Ranges = std::vector<Range>;

using Decisions = absl::flat_hash_map<absl::string_view, Decision>;

uint32_t ReturnValue(Answer answer) {
  switch (answer) {
    case Answer::kAllow:
      return SECCOMP_RET_ALLOW;
    case Answer::kEperm:
      return SECCOMP_RET_ERRNO | EPERM;
    case Answer::kEnosys:
      return SECCOMP_RET_ERRNO | ENOSYS;
  }
  return SECCOMP_RET_KILL_PROCESS;
}

// By name; a name that is not in it is answered with EPERM.
Decisions Decide(uint64_t capabilities) {
  Decisions decisions;
  for (const SyscallGroup& group : AllowedGroups()) {
    const bool allowed =
        group.capabilities == 0 || (group.capabilities & capabilities) != 0;
    if (!allowed) continue;
    for (const absl::string_view name : group.names) {
      decisions[name] = {.answer = Answer::kAllow};
    }
  }
  for (const absl::string_view name : HiddenCalls()) {
    decisions.try_emplace(name, Decision{.answer = Answer::kEnosys});
  }
  for (const ArgumentRule& rule : ArgumentRules()) {
    if ((rule.unless_capabilities & capabilities) != 0) continue;
    // A rule restricts what is allowed; it never opens anything.
    const auto found = decisions.find(rule.name);
    if (found == decisions.end()) continue;
    if (found->second.answer == Answer::kAllow) found->second.check = &rule;
  }
  return decisions;
}

void Extend(Ranges& ranges, uint32_t first, Decision decision) {
  if (!ranges.empty() && ranges.back().first == first) ranges.pop_back();
  if (!ranges.empty() && ranges.back().decision == decision) return;
  ranges.push_back({first, decision});
}

Ranges RangesOf(const Entry& entry, const Decisions& decisions) {
  Ranges ranges;
  Extend(ranges, 0, {.answer = Answer::kEnosys});
  for (const auto& [number, name] : entry.names) {
    const auto found = decisions.find(name);
    Extend(ranges, number,
           found == decisions.end() ? Decision{.answer = Answer::kEperm}
                                    : found->second);
    Extend(ranges, number + 1, {.answer = Answer::kEnosys});
  }
  return ranges;
}

Ranges RangesOf(const ArgumentRule& rule) {
  Ranges ranges;
  Extend(ranges, 0, {.answer = rule.other});
  for (const ValueRange& value : rule.values) {
    Extend(ranges, value.first, {.answer = rule.listed});
    if (value.last == UINT32_MAX) break;
    Extend(ranges, value.last + 1, {.answer = rule.other});
  }
  return ranges;
}

class Compiler {
 public:
  std::vector<BpfInstruction> Compile(const std::vector<Entry>& entries,
                                      const Decisions& decisions) && {
    for (const ArgumentRule& rule : ArgumentRules()) {
      checks_[&rule] = Check(rule);
    }
    Label dispatch = assembler_.Return(SECCOMP_RET_KILL_PROCESS);
    // Backwards, so that the native entry is compared first.
    for (auto entry = entries.rbegin(); entry != entries.rend(); ++entry) {
      Label numbers = Tree(RangesOf(*entry, decisions));
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

  Label Target(const Decision& decision) {
    if (decision.check != nullptr) return checks_[decision.check];
    return assembler_.Return(ReturnValue(decision.answer));
  }

  // A binary search for the range of the accumulator.
  Label Tree(absl::Span<const Range> ranges) {
    if (ranges.size() == 1) return Target(ranges[0].decision);
    const bool one_exception = ranges.size() == 3 &&
                               ranges[0].decision == ranges[2].decision &&
                               ranges[1].first + 1 == ranges[2].first;
    if (one_exception) {
      const Label rule = Target(ranges[0].decision);
      const Label exception = Target(ranges[1].decision);
      return assembler_.Branch(BPF_JEQ, ranges[1].first, exception, rule);
    }
    const size_t middle = ranges.size() / 2;
    const Label upper = Tree(ranges.subspan(middle));
    const Label lower = Tree(ranges.first(middle));
    return assembler_.Branch(BPF_JGE, ranges[middle].first, upper, lower);
  }

  Label Check(const ArgumentRule& rule) {
    Label next = Tree(RangesOf(rule));
    if (rule.denied_bits != 0) {
      const Label denied = assembler_.Return(ReturnValue(Answer::kEperm));
      next = assembler_.Branch(BPF_JSET, rule.denied_bits, denied, next);
    }
    return assembler_.Load(
        offsetof(seccomp_data, args) + sizeof(uint64_t) * rule.argument, next);
  }

  BpfAssembler assembler_;
  std::map<const ArgumentRule*, Label> checks_;
};

}  // namespace

std::vector<BpfInstruction> CompileDefaultProfile(Architecture architecture,
                                                  uint64_t capabilities) {
  return Compiler().Compile(EntriesOf(architecture), Decide(capabilities));
}

}  // namespace caisson::security
