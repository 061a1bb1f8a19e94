#include "lib/security/default_table.h"

#include <errno.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sys/socket.h>

#include <map>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lib/base/errno_error.h"
#include "lib/security/capabilities.h"
#include "lib/security/default_profile.h"

namespace caisson::security {

constexpr uint32_t kEperm = SECCOMP_RET_ERRNO | EPERM;
constexpr uint32_t kEnosys = SECCOMP_RET_ERRNO | ENOSYS;
const uint32_t kAnswerEperm = kEperm;

namespace {

// What is done to other processes.
constexpr absl::string_view kDebugging[] = {
    "ptrace",          "process_vm_readv", "process_vm_writev", "kcmp",
    "process_madvise", "pidfd_getfd",      "perf_event_open",
};

std::string CapabilityList(uint64_t capabilities) {
  std::vector<std::string> names;
  for (int i = 0; i < 64; ++i) {
    if ((capabilities >> i & 1) != 0) names.push_back(CapabilityName(i));
  }
  return absl::StrJoin(names, " or ");
}

Condition LowHalf(int argument, SeccompOperator op, uint64_t value,
                  uint64_t value_two = 0) {
  return {.argument = static_cast<uint8_t>(argument),
          .op = op,
          .low_half = true,
          .value = value,
          .value_two = value_two};
}

class Maker {
 public:
  explicit Maker(const DefaultTableOptions& options) : options_(options) {
    not_listed_ = table_.AddRule("not in the allow-list");
    unassigned_ = table_.AddRule("no such call when this list was made");
    table_.foreign_answer = SECCOMP_RET_KILL_PROCESS;
    AddGroups();
    AddArgumentRules();
    for (const std::string& name : options_.allow) {
      Set(name, SECCOMP_RET_ALLOW, "unsafe_allow_syscalls");
    }
    if (options_.no_network) ForbidNetwork();
    if (options_.no_new_processes) ForbidProcesses();
    if (options_.no_debugging) {
      for (const absl::string_view name : kDebugging) {
        Set(name, options_.denied, "no_debugging");
      }
    }
    for (const std::string& name : options_.notify) {
      Set(name, SECCOMP_RET_USER_NOTIF, "notify_syscalls");
    }
    for (const std::string& name : options_.deny) {
      Set(name, options_.denied, "deny_syscalls");
    }
  }

  FilterTable Make(Architecture architecture) && {
    const size_t unassigned = table_.AddDecision(
        {.clauses = {}, .answer = kEnosys, .rule = unassigned_});
    const size_t not_listed = table_.AddDecision(
        {.clauses = {}, .answer = options_.denied, .rule = not_listed_});
    absl::flat_hash_map<absl::string_view, size_t> indices;
    for (auto& [name, decision] : decisions_) {
      indices[name] = table_.AddDecision(decision);
    }
    const auto ways = WaysInto(architecture);
    table_.ways.assign(ways.begin(), ways.end());
    for (const Entry& entry : EntriesOf(architecture)) {
      EntryTable out = {.audit_arch = entry.audit_arch,
                        .number_mask = entry.number_mask,
                        .ranges = {}};
      AppendRange(out.ranges, 0, unassigned);
      for (const auto& [number, name] : entry.names) {
        const auto found = indices.find(name);
        AppendRange(out.ranges, number,
                    found == indices.end() ? not_listed : found->second);
        AppendRange(out.ranges, number + 1, unassigned);
      }
      table_.entries.push_back(std::move(out));
    }
    return std::move(table_);
  }

 private:
  // Whatever the arguments. A call that is also reached through an older one is
  // treated alike there.
  void Set(absl::string_view name, uint32_t answer, absl::string_view rule) {
    const RuleId id = table_.AddRule(std::string(rule));
    decisions_[std::string(name)] = {
        .clauses = {}, .answer = answer, .rule = id};
    const Multiplexed older = MultiplexedOf(SeccompArchitecture::kX86, name);
    if (older.number == 0) return;
    const std::string& carrier =
        NumbersOf(SeccompArchitecture::kX86).names.at(older.number);
    auto& clauses = decisions_[carrier].clauses;
    clauses.insert(
        clauses.begin(),
        {.conditions = {LowHalf(0, SeccompOperator::kEqual, older.selector)},
         .answer = answer,
         .rule = id});
  }

  void AddGroups() {
    for (const SyscallGroup& group : AllowedGroups()) {
      const bool allowed = group.capabilities == 0 ||
                           (group.capabilities & options_.capabilities) != 0;
      const RuleId rule = table_.AddRule(
          allowed ? absl::StrCat("allow-list, ", group.subsystem)
                  : absl::StrCat("allow-list, ", group.subsystem, ": needs ",
                                 CapabilityList(group.capabilities)));
      for (const absl::string_view name : group.names) {
        decisions_[std::string(name)] = {
            .clauses = {},
            .answer = allowed ? uint32_t{SECCOMP_RET_ALLOW} : options_.denied,
            .rule = rule};
      }
    }
    const RuleId hidden = table_.AddRule(
        "hidden, because its flags lie in memory; programs use clone");
    for (const absl::string_view name : HiddenCalls()) {
      Decision& decision = decisions_[std::string(name)];
      if (IsCarriedOut(decision.answer)) continue;
      decision = {.clauses = {}, .answer = kEnosys, .rule = hidden};
    }
  }

  uint32_t ValueOf(Answer answer) const {
    switch (answer) {
      case Answer::kAllow:
        return SECCOMP_RET_ALLOW;
      case Answer::kEperm:
        return options_.denied;
      case Answer::kEnosys:
        return kEnosys;
    }
    return options_.denied;
  }

  void AddArgumentRules() {
    for (const ArgumentRule& rule : ArgumentRules()) {
      if ((rule.unless_capabilities & options_.capabilities) != 0) continue;
      // A rule restricts what is allowed; it never opens anything.
      Decision& decision = decisions_[std::string(rule.name)];
      if (decision.answer != SECCOMP_RET_ALLOW) continue;
      const RuleId id =
          table_.AddRule(absl::StrCat("arguments of ", rule.name));
      const RuleId group = decision.rule;
      decision.answer = ValueOf(rule.other);
      decision.rule = rule.other == Answer::kAllow ? group : id;
      if (rule.denied_bits != 0) {
        decision.clauses.push_back(
            {.conditions = {LowHalf(rule.argument,
                                    SeccompOperator::kMaskedEqual,
                                    rule.denied_bits, 0)},
             .answer = ValueOf(rule.other),
             .rule = group});
        decision.answer = options_.denied;
        decision.rule = id;
      }
      const RuleId listed = rule.listed == Answer::kAllow ? group : id;
      for (const ValueRange& value : rule.values) {
        decision.clauses.push_back({.conditions = InRange(rule.argument, value),
                                    .answer = ValueOf(rule.listed),
                                    .rule = listed});
      }
    }
  }

  static std::vector<Condition> InRange(int argument, const ValueRange& value) {
    if (value.first == value.last) {
      return {LowHalf(argument, SeccompOperator::kEqual, value.first)};
    }
    std::vector<Condition> range;
    if (value.first != 0) {
      range.push_back(
          LowHalf(argument, SeccompOperator::kGreaterEqual, value.first));
    }
    range.push_back(LowHalf(argument, SeccompOperator::kLessEqual, value.last));
    return range;
  }

  // Sockets of this machine's programs alone. An open one that is handed in
  // stays what it is.
  void ForbidNetwork() {
    const RuleId id = table_.AddRule("no_network");
    for (const char* name : {"socket", "socketpair"}) {
      Decision& decision = decisions_[name];
      decision = {.clauses = {{.conditions = {LowHalf(
                                   0, SeccompOperator::kEqual, AF_UNIX)},
                               .answer = SECCOMP_RET_ALLOW,
                               .rule = id}},
                  .answer = options_.denied,
                  .rule = id};
    }
    // Its family lies in memory.
    decisions_["socketcall"] = {
        .clauses = {}, .answer = options_.denied, .rule = id};
  }

  void ForbidProcesses() {
    for (const char* name : {"fork", "vfork"}) {
      Set(name, options_.denied, "no_new_processes");
    }
    const RuleId id = table_.AddRule("no_new_processes");
    // Threads, and no namespaces; where the flags lie in memory, none at all.
    Condition thread =
        LowHalf(0, SeccompOperator::kMaskedEqual, CLONE_THREAD, CLONE_THREAD);
    Decision& clone = decisions_["clone"];
    Clause allowed = {.conditions = {thread},
                      .answer = SECCOMP_RET_ALLOW,
                      .rule = clone.rule};
    for (const Clause& clause : clone.clauses) {
      allowed.conditions.insert(allowed.conditions.end(),
                                clause.conditions.begin(),
                                clause.conditions.end());
    }
    clone = {.clauses = {allowed}, .answer = options_.denied, .rule = id};
    decisions_["clone3"] = {.clauses = {}, .answer = kEnosys, .rule = id};
  }

  const DefaultTableOptions& options_;
  FilterTable table_;
  RuleId not_listed_;
  RuleId unassigned_;
  std::map<std::string, Decision, std::less<>> decisions_;
};

}  // namespace

FilterTable MakeDefaultTable(Architecture architecture,
                             const DefaultTableOptions& options) {
  return Maker(options).Make(architecture);
}

absl::Status CheckSyscallNames(absl::string_view field,
                               const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    bool known = false;
    for (int i = 0; i <= static_cast<int>(SeccompArchitecture::kArm); ++i) {
      known =
          known ||
          NumbersOf(static_cast<SeccompArchitecture>(i)).numbers.count(name) !=
              0;
    }
    if (known) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": ", Quoted(name.substr(0, 64)),
                     " is no system call; syscalls(2) lists those that exist"));
  }
  return absl::OkStatus();
}

void MakeLogOnly(FilterTable& table) {
  const auto weaken = [](uint32_t& answer) {
    const uint32_t action = answer & SECCOMP_RET_ACTION_FULL;
    if (IsCarriedOut(answer) || action == SECCOMP_RET_USER_NOTIF) return;
    answer = SECCOMP_RET_LOG;
  };
  weaken(table.foreign_answer);
  for (Decision& decision : table.decisions) {
    weaken(decision.answer);
    for (Clause& clause : decision.clauses) weaken(clause.answer);
  }
}

}  // namespace caisson::security
