// A seccomp filter as data: between what asks for it (the default profile, a
// SeccompProfile) and what comes of it (BPF, explanations).
//
// A table is interpreted by Decide(), which is what the compiled program is
// tested against and what an explanation is made from.
#ifndef CAISSON_LIB_SECURITY_FILTER_TABLE_H_
#define CAISSON_LIB_SECURITY_FILTER_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "caisson/seccomp.h"

namespace caisson::security {

// "Argument `argument` compares like this."
struct Condition {
  uint8_t argument = 0;
  SeccompOperator op = SeccompOperator::kEqual;
  // Only the low 32 bits of the argument are looked at; those of `value` above
  // are 0.
  bool low_half = false;
  uint64_t value = 0;      // kMaskedEqual: the mask
  uint64_t value_two = 0;  // kMaskedEqual: within the mask

  bool operator==(const Condition&) const = default;
  // NOLINTNEXTLINE(modernize-use-nullptr): of the compiler's own comparison.
  auto operator<=>(const Condition&) const = default;
  bool Holds(uint64_t given) const;
};

// Where a decision comes from: an index into FilterTable::rules.
using RuleId = int;

// If all conditions hold, `answer` (a SECCOMP_RET_* value with its data).
struct Clause {
  std::vector<Condition> conditions;
  uint32_t answer = 0;
  RuleId rule = 0;
};

// The first clause that holds, or else `answer`.
struct Decision {
  std::vector<Clause> clauses;
  uint32_t answer = 0;
  RuleId rule = 0;
};

// From `first` to the next range; `decision` is an index.
struct NumberRange {
  uint32_t first = 0;
  size_t decision = 0;
};

// The first range of an entry begins at 0; they ascend.
struct EntryTable {
  uint32_t audit_arch = 0;
  uint32_t number_mask = UINT32_MAX;
  std::vector<NumberRange> ranges;
};

struct FilterTable {
  std::vector<EntryTable> entries;        // the native one first
  std::vector<SeccompArchitecture> ways;  // that the entries cover
  std::vector<Decision> decisions;
  uint32_t foreign_answer = 0;  // to an `arch` that no entry has
  std::vector<std::string> rules;

  RuleId AddRule(std::string text);
  size_t AddDecision(Decision decision);
};

// Appends a range; one that begins where the last one did replaces it, one that
// has the same decision as its predecessor is left out.
void AppendRange(std::vector<NumberRange>& ranges, uint32_t first,
                 size_t decision);

// The decision about a number; null if the arch is foreign.
const Decision* FindDecision(const FilterTable& table, uint32_t audit_arch,
                             uint32_t number);

struct Verdict {
  uint32_t answer = 0;
  RuleId rule = -1;  // -1: the arch is foreign
};

// What the filter says to a call.
Verdict Decide(const FilterTable& table, uint32_t audit_arch, uint32_t number,
               const uint64_t (&args)[6]);

// "allowed", "answered EPERM", "ends the process".
std::string AnswerText(uint32_t answer);

// "arg1 & 0xffffffff == 0x5412": for people.
std::string ConditionText(const Condition& condition);
std::string ClauseText(const Clause& clause);  // joined by "and"

// Whether a call with this answer is carried out (allowed, or logged).
bool IsCarriedOut(uint32_t answer);

}  // namespace caisson::security

#endif  // CAISSON_LIB_SECURITY_FILTER_TABLE_H_
