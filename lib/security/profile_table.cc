#include "lib/security/profile_table.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/seccomp.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"

namespace caisson::security {
namespace {

constexpr uint32_t kMaxErrno = 4095;  // include/linux/err.h
constexpr uint32_t kEnosys = SECCOMP_RET_ERRNO | ENOSYS;
constexpr uint32_t kIoctlRequest = 1;

absl::StatusOr<uint32_t> AnswerOf(absl::string_view field, SeccompAction action,
                                  std::optional<uint32_t> errno_ret) {
  const bool takes_data =
      action == SeccompAction::kErrno || action == SeccompAction::kTrace;
  if (errno_ret.has_value() && !takes_data) {
    return absl::InvalidArgumentError(absl::StrCat(
        field, ": only the actions kErrno and kTrace take an errno"));
  }
  const uint32_t data = errno_ret.value_or(EPERM);
  const uint32_t limit =
      action == SeccompAction::kErrno ? kMaxErrno : SECCOMP_RET_DATA;
  if (data > limit) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": errno ", data, " is above ", limit));
  }
  switch (action) {
    case SeccompAction::kKillThread:
      return uint32_t{SECCOMP_RET_KILL_THREAD};
    case SeccompAction::kKillProcess:
      return uint32_t{SECCOMP_RET_KILL_PROCESS};
    case SeccompAction::kTrap:
      return uint32_t{SECCOMP_RET_TRAP};
    case SeccompAction::kErrno:
      return uint32_t{SECCOMP_RET_ERRNO} | data;
    case SeccompAction::kTrace:
      return uint32_t{SECCOMP_RET_TRACE} | data;
    case SeccompAction::kNotify:
      return uint32_t{SECCOMP_RET_USER_NOTIF};
    case SeccompAction::kLog:
      return uint32_t{SECCOMP_RET_LOG};
    case SeccompAction::kAllow:
      return uint32_t{SECCOMP_RET_ALLOW};
  }
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": ", static_cast<int>(action), " is no action"));
}

absl::Status CheckArguments(absl::string_view field, const SeccompRule& rule) {
  for (const SeccompArgument& argument : rule.args) {
    if (argument.index > 5) {
      return absl::InvalidArgumentError(absl::StrCat(
          field, ".args: index ", argument.index, " is not between 0 and 5"));
    }
    if (argument.op < SeccompOperator::kNotEqual ||
        argument.op > SeccompOperator::kMaskedEqual) {
      return absl::InvalidArgumentError(absl::StrCat(
          field, ".args: ", static_cast<int>(argument.op), " is no operator"));
    }
  }
  return absl::OkStatus();
}

// As runc: conditions of one rule hold together, but where two look at the same
// argument, one is enough.
std::vector<std::vector<SeccompArgument>> Alternatives(
    const SeccompRule& rule) {
  std::set<uint32_t> indices;
  for (const SeccompArgument& argument : rule.args) {
    if (indices.insert(argument.index).second) continue;
    std::vector<std::vector<SeccompArgument>> each;
    for (const SeccompArgument& one : rule.args) each.push_back({one});
    return each;
  }
  return {rule.args};
}

Condition Compare(const SeccompArgument& argument, bool low_half) {
  const uint64_t bits = low_half ? uint64_t{UINT32_MAX} : UINT64_MAX;
  Condition condition = {.argument = static_cast<uint8_t>(argument.index),
                         .op = argument.op,
                         .low_half = low_half,
                         .value = argument.value & bits,
                         .value_two = 0};
  if (argument.op == SeccompOperator::kMaskedEqual) {
    condition.value_two = argument.value_two & condition.value;
  }
  return condition;
}

// What the rules say about one number.
struct Collected {
  std::optional<Clause> always;  // without conditions
  std::vector<Clause> clauses;
};

// A rule that was checked.
struct CheckedRule {
  const SeccompRule* rule;
  uint32_t answer;
  RuleId id;
};

class WayMaker {
 public:
  WayMaker(SeccompArchitecture way, uint32_t default_answer)
      : way_(way), numbers_(NumbersOf(way)), default_(default_answer) {}

  // Counts for the last number, even if it has no effect.
  void See(const SeccompRule& rule, std::set<std::string>& known) {
    for (const std::string& name : rule.names) {
      const auto [begin, end] = numbers_.numbers.equal_range(name);
      for (auto number = begin; number != end; ++number) {
        last_ = std::max(last_.value_or(0), number->second);
      }
      const Multiplexed older = MultiplexedOf(way_, name);
      if (older.number != 0) {
        last_ = std::max(last_.value_or(0), older.number);
      }
      if (begin != end || older.number != 0) known.insert(name);
    }
  }

  void Add(const CheckedRule& checked) {
    for (const std::string& name : checked.rule->names) {
      const auto [begin, end] = numbers_.numbers.equal_range(name);
      for (auto number = begin; number != end; ++number) {
        AddTo(number->second, name, checked);
      }
      AddMultiplexed(name, checked);
    }
  }

  // Appends ranges from `base` on.
  void Finish(FilterTable& table, std::vector<NumberRange>& ranges,
              uint32_t base, RuleId default_rule) {
    const size_t other = table.AddDecision(
        {.clauses = {}, .answer = default_, .rule = default_rule});
    AppendRange(ranges, base, other);
    for (auto& [number, collected] : collected_) {
      Decision decision = {
          .clauses = {}, .answer = default_, .rule = default_rule};
      if (collected.always.has_value()) {
        decision.answer = collected.always->answer;
        decision.rule = collected.always->rule;
      } else {
        decision.clauses = std::move(collected.clauses);
      }
      AppendRange(ranges, number, table.AddDecision(std::move(decision)));
      AppendRange(ranges, number + 1, other);
    }
    const uint32_t action = default_ & SECCOMP_RET_ACTION_FULL;
    const bool permissive =
        IsCarriedOut(default_) || action == SECCOMP_RET_TRACE;
    if (permissive || !last_.has_value()) return;
    AppendRange(ranges, *last_ + 1,
                table.AddDecision({.clauses = {},
                                   .answer = kEnosys,
                                   .rule = table.AddRule(
                                       "newer than every call that the profile "
                                       "names")}));
  }

 private:
  void AddTo(uint32_t number, absl::string_view name,
             const CheckedRule& checked) {
    Collected& collected = collected_[number];
    if (checked.rule->args.empty()) {
      if (!collected.always.has_value()) {
        collected.always = {
            .conditions = {}, .answer = checked.answer, .rule = checked.id};
      }
      return;
    }
    for (const auto& alternative : Alternatives(*checked.rule)) {
      Clause clause = {
          .conditions = {}, .answer = checked.answer, .rule = checked.id};
      for (const SeccompArgument& argument : alternative) {
        const bool narrow = name == "ioctl" && argument.index == kIoctlRequest;
        clause.conditions.push_back(Compare(argument, Is32Bit(way_) || narrow));
      }
      collected.clauses.push_back(std::move(clause));
    }
  }

  // The arguments lie in memory there: the rule holds whatever they are.
  void AddMultiplexed(absl::string_view name, const CheckedRule& checked) {
    const Multiplexed older = MultiplexedOf(way_, name);
    if (older.number == 0) return;
    collected_[older.number].clauses.push_back(
        {.conditions = {{.argument = 0,
                         .op = SeccompOperator::kEqual,
                         .low_half = true,
                         .value = older.selector,
                         .value_two = 0}},
         .answer = checked.answer,
         .rule = checked.id});
  }

  SeccompArchitecture way_;
  const NumberTable& numbers_;
  uint32_t default_;
  std::optional<uint32_t> last_;
  std::map<uint32_t, Collected> collected_;
};

// The ways into the kernel that the profile covers, the native one first.
std::vector<SeccompArchitecture> Covered(Architecture architecture,
                                         const SeccompProfile& profile) {
  std::vector<SeccompArchitecture> covered;
  for (const SeccompArchitecture way : WaysInto(architecture)) {
    const bool listed =
        std::find(profile.architectures.begin(), profile.architectures.end(),
                  way) != profile.architectures.end();
    if (covered.empty() || listed) covered.push_back(way);
  }
  return covered;
}

std::string FieldOf(size_t index) {
  return absl::StrCat("SeccompProfile.syscalls[", index, "]");
}

absl::StatusOr<std::vector<CheckedRule>> CheckRules(
    const SeccompProfile& profile, uint32_t default_answer,
    ProfileTable& result) {
  std::vector<CheckedRule> checked;
  for (size_t i = 0; i < profile.syscalls.size(); ++i) {
    const SeccompRule& rule = profile.syscalls[i];
    const std::string field = FieldOf(i);
    if (rule.names.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(field, ".names is empty"));
    }
    RETURN_IF_ERROR(CheckArguments(field, rule));
    ASSIGN_OR_RETURN(const uint32_t answer,
                     AnswerOf(field, rule.action, rule.errno_ret));
    if (answer == default_answer) {
      result.notes.push_back(absl::StrCat(
          "syscalls[", i, "] says what the default says, and is left out"));
      continue;
    }
    checked.push_back(
        {&rule, answer,
         result.table.AddRule(absl::StrCat("syscalls[", i, "]"))});
  }
  return checked;
}

void NoteUnknown(const SeccompProfile& profile,
                 const std::set<std::string>& known, ProfileTable& result) {
  for (size_t i = 0; i < profile.syscalls.size(); ++i) {
    for (const std::string& name : profile.syscalls[i].names) {
      if (known.count(name) != 0) continue;
      result.notes.push_back(absl::StrCat(
          "syscalls[", i, "]: ", Quoted(name.substr(0, 64)),
          " is no system call of the profile's architectures, and is left "
          "out"));
    }
  }
}

}  // namespace

absl::StatusOr<ProfileTable> MakeProfileTable(Architecture architecture,
                                              const SeccompProfile& profile) {
  ProfileTable result;
  FilterTable& table = result.table;
  table.foreign_answer = SECCOMP_RET_KILL_PROCESS;
  ASSIGN_OR_RETURN(const uint32_t default_answer,
                   AnswerOf("SeccompProfile.default_errno_ret",
                            profile.default_action, profile.default_errno_ret));
  const RuleId default_rule = table.AddRule("default_action");
  ASSIGN_OR_RETURN(const std::vector<CheckedRule> rules,
                   CheckRules(profile, default_answer, result));
  std::set<std::string> known;
  bool x32 = false;
  table.ways = Covered(architecture, profile);
  for (const SeccompArchitecture way : table.ways) {
    WayMaker maker(way, default_answer);
    for (const SeccompRule& rule : profile.syscalls) maker.See(rule, known);
    for (const CheckedRule& rule : rules) maker.Add(rule);
    if (way == SeccompArchitecture::kX32) {
      x32 = true;
      maker.Finish(table, table.entries[0].ranges, kX32Bit, default_rule);
      continue;
    }
    EntryTable entry = {.audit_arch = NumbersOf(way).audit_arch};
    maker.Finish(table, entry.ranges, 0, default_rule);
    table.entries.push_back(std::move(entry));
  }
  if (architecture == Architecture::kX86_64 && !x32) {
    AppendRange(
        table.entries[0].ranges, kX32Bit,
        table.AddDecision({.clauses = {},
                           .answer = kEnosys,
                           .rule = table.AddRule("the profile lacks x32")}));
  }
  NoteUnknown(profile, known, result);
  return result;
}

}  // namespace caisson::security
