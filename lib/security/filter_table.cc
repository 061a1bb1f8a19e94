#include "lib/security/filter_table.h"

#include <linux/seccomp.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lib/base/errno_error.h"

namespace caisson::security {
namespace {

constexpr uint64_t kLowHalf = 0xffffffff;

std::string Number(uint64_t value) {
  // Small ones are families and counts, large ones are bits.
  if (value < 10) return absl::StrCat(value);
  return absl::StrCat("0x", absl::Hex(value));
}

const char* Sign(SeccompOperator op) {
  switch (op) {
    case SeccompOperator::kNotEqual:
      return " != ";
    case SeccompOperator::kLess:
      return " < ";
    case SeccompOperator::kLessEqual:
      return " <= ";
    case SeccompOperator::kEqual:
    case SeccompOperator::kMaskedEqual:
      return " == ";
    case SeccompOperator::kGreaterEqual:
      return " >= ";
    case SeccompOperator::kGreater:
      return " > ";
  }
  return " ? ";
}

}  // namespace

bool Condition::Holds(uint64_t given) const {
  const uint64_t seen = low_half ? given & kLowHalf : given;
  switch (op) {
    case SeccompOperator::kNotEqual:
      return seen != value;
    case SeccompOperator::kLess:
      return seen < value;
    case SeccompOperator::kLessEqual:
      return seen <= value;
    case SeccompOperator::kEqual:
      return seen == value;
    case SeccompOperator::kGreaterEqual:
      return seen >= value;
    case SeccompOperator::kGreater:
      return seen > value;
    case SeccompOperator::kMaskedEqual:
      return (seen & value) == value_two;
  }
  return false;
}

RuleId FilterTable::AddRule(std::string text) {
  const auto known = std::find(rules.begin(), rules.end(), text);
  if (known != rules.end()) return static_cast<RuleId>(known - rules.begin());
  rules.push_back(std::move(text));
  return static_cast<RuleId>(rules.size() - 1);
}

size_t FilterTable::AddDecision(Decision decision) {
  decisions.push_back(std::move(decision));
  return decisions.size() - 1;
}

void AppendRange(std::vector<NumberRange>& ranges, uint32_t first,
                 size_t decision) {
  if (!ranges.empty() && ranges.back().first == first) ranges.pop_back();
  if (!ranges.empty() && ranges.back().decision == decision) return;
  ranges.push_back({first, decision});
}

const Decision* FindDecision(const FilterTable& table, uint32_t audit_arch,
                             uint32_t number) {
  for (const EntryTable& entry : table.entries) {
    if (entry.audit_arch != audit_arch) continue;
    const uint32_t masked = number & entry.number_mask;
    auto after = std::upper_bound(
        entry.ranges.begin(), entry.ranges.end(), masked,
        [](uint32_t n, const NumberRange& range) { return n < range.first; });
    return &table.decisions[std::prev(after)->decision];
  }
  return nullptr;
}

Verdict Decide(const FilterTable& table, uint32_t audit_arch, uint32_t number,
               const uint64_t (&args)[6]) {
  const Decision* decision = FindDecision(table, audit_arch, number);
  if (decision == nullptr) return {.answer = table.foreign_answer, .rule = -1};
  for (const Clause& clause : decision->clauses) {
    const bool holds =
        std::all_of(clause.conditions.begin(), clause.conditions.end(),
                    [&args](const Condition& condition) {
                      return condition.Holds(args[condition.argument]);
                    });
    if (holds) return {.answer = clause.answer, .rule = clause.rule};
  }
  return {.answer = decision->answer, .rule = decision->rule};
}

std::string AnswerText(uint32_t answer) {
  const uint32_t data = answer & SECCOMP_RET_DATA;
  switch (answer & SECCOMP_RET_ACTION_FULL) {
    case SECCOMP_RET_ALLOW:
      return "allowed";
    case SECCOMP_RET_LOG:
      return "allowed and logged";
    case SECCOMP_RET_ERRNO:
      if (data == 0) return "answered with success, without being carried out";
      return absl::StrCat("answered ", ErrnoName(static_cast<int>(data)));
    case SECCOMP_RET_USER_NOTIF:
      return "handed to the host";
    case SECCOMP_RET_TRACE:
      return absl::StrCat("handed to a tracer (", data, ")");
    case SECCOMP_RET_TRAP:
      return "answered by the signal SIGSYS";
    case SECCOMP_RET_KILL_THREAD:
      return "the end of the thread";
    default:
      return "the end of the process";
  }
}

std::string ConditionText(const Condition& condition) {
  const std::string argument = absl::StrCat("arg", condition.argument);
  if (condition.op == SeccompOperator::kMaskedEqual) {
    return absl::StrCat(argument, " & 0x", absl::Hex(condition.value),
                        " == ", Number(condition.value_two));
  }
  return absl::StrCat(argument, Sign(condition.op), Number(condition.value));
}

std::string ClauseText(const Clause& clause) {
  return absl::StrJoin(clause.conditions, " and ",
                       [](std::string* out, const Condition& condition) {
                         out->append(ConditionText(condition));
                       });
}

bool IsCarriedOut(uint32_t answer) {
  const uint32_t action = answer & SECCOMP_RET_ACTION_FULL;
  return action == SECCOMP_RET_ALLOW || action == SECCOMP_RET_LOG;
}

}  // namespace caisson::security
