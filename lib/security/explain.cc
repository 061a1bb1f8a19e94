#include "lib/security/explain.h"

#include <linux/seccomp.h>

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "lib/base/errno_error.h"
#include "lib/security/capabilities.h"
#include "lib/security/syscall_numbers.h"

namespace caisson::security {
namespace {

constexpr int kLabelWidth = 16;
constexpr size_t kLineWidth = 80;

// "label           text", wrapped with the text aligned.
class Listing {
 public:
  void Section(absl::string_view title) {
    absl::StrAppend(&text_, title, "\n");
  }

  void Row(absl::string_view label, absl::string_view value) {
    absl::StrAppendFormat(&text_, "  %-*s%s\n", kLabelWidth, label, value);
  }

  void Words(absl::string_view label, const std::vector<std::string>& words) {
    std::string line;
    for (const std::string& word : words) {
      if (!line.empty() &&
          2 + kLabelWidth + line.size() + 1 + word.size() > kLineWidth) {
        Row(label, line);
        label = "";
        line.clear();
      }
      absl::StrAppend(&line, line.empty() ? "" : " ", word);
    }
    Row(label, words.empty() ? "none" : line);
  }

  std::string Take() && { return std::move(text_); }

 private:
  std::string text_;
};

std::vector<std::string> CapabilityNames(uint64_t set) {
  std::vector<std::string> names;
  for (int i = 0; i < 64; ++i) {
    if ((set >> i & 1) != 0) names.push_back(CapabilityName(i));
  }
  return names;
}

void AddSets(Listing& out, absl::string_view who, const CapabilityMasks& sets) {
  const std::pair<absl::string_view, uint64_t> all[] = {
      {"effective", sets.effective},
      {"permitted", sets.permitted},
      {"inheritable", sets.inheritable},
      {"ambient", sets.ambient}};
  out.Section(absl::StrCat("capabilities of ", who));
  for (const auto& [name, set] : all) {
    if (set != 0 && set == sets.bounding) {
      out.Row(name, "the bounding set");
    } else {
      out.Words(name, CapabilityNames(set));
    }
  }
}

void AddCapabilities(Listing& out, const SecurityPolicy::State& state) {
  out.Section("capabilities");
  out.Words("bounding", CapabilityNames(state.root.bounding));
  if (!state.missing_capabilities.empty()) {
    out.Words("not granted", state.missing_capabilities);
    out.Row("", "(the bounding set of the host's process lacks them)");
  }
  AddSets(out, "root", state.root);
  AddSets(out, "other users", state.user);
  out.Section("privileges");
  out.Row("no_new_privs", state.no_new_privileges ? "yes" : "no");
  if (state.securebits != 0) {
    out.Row("securebits", absl::StrFormat("%#x", state.securebits));
  }
  out.Row("session keyring",
          state.own_session_keyring ? "empty, its own" : "the host's");
  if (!state.apparmor_profile.empty()) {
    out.Row("AppArmor", state.apparmor_profile);
  }
  if (!state.selinux_label.empty()) out.Row("SELinux", state.selinux_label);
}

std::string RuleText(const FilterTable& table, RuleId rule) {
  return rule < 0 ? "an architecture that is not allowed"
                  : table.rules[static_cast<size_t>(rule)];
}

std::string DecisionText(const FilterTable& table, const Decision& decision) {
  std::string text;
  for (const Clause& clause : decision.clauses) {
    absl::StrAppend(&text, AnswerText(clause.answer), " if ",
                    ClauseText(clause), " (", RuleText(table, clause.rule),
                    "); ");
  }
  absl::StrAppend(&text, decision.clauses.empty() ? "" : "otherwise ",
                  AnswerText(decision.answer), " (",
                  RuleText(table, decision.rule), ")");
  return text;
}

// Those that one rule decides alone, by answer and rule; then the others.
void AddNative(Listing& out, const FilterTable& table) {
  const EntryTable& entry = table.entries[0];
  // Allowed ones first.
  std::map<std::pair<std::string, RuleId>, std::vector<std::string>> groups;
  std::vector<std::pair<std::string, std::string>> others;
  for (const auto& [number, name] :
       NumbersOf(WaysInto(kNativeArchitecture)[0]).names) {
    const Decision& decision = *FindDecision(table, entry.audit_arch, number);
    if (decision.clauses.empty()) {
      groups[{AnswerText(decision.answer), decision.rule}].push_back(name);
    } else {
      others.emplace_back(name, DecisionText(table, decision));
    }
  }
  for (auto& [key, names] : groups) {
    std::sort(names.begin(), names.end());
    out.Section(
        absl::StrCat("  ", key.first, ": ", RuleText(table, key.second)));
    out.Words("", names);
  }
  if (!others.empty()) out.Section("  by their arguments");
  for (const auto& [name, text] : others) out.Row(name, text);
}

std::string FlagNames(uint32_t flags) {
  std::vector<std::string> names;
  if ((flags & SECCOMP_FILTER_FLAG_LOG) != 0) names.emplace_back("log");
  if ((flags & SECCOMP_FILTER_FLAG_SPEC_ALLOW) != 0) {
    names.emplace_back("spec_allow");
  }
  if ((flags & SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV) != 0) {
    names.emplace_back("wait_killable_recv");
  }
  return names.empty() ? "none" : absl::StrJoin(names, " ");
}

void AddFilter(Listing& out, const SecurityPolicy::State& state) {
  out.Section("system calls");
  if (state.program.empty()) {
    out.Row("filter", "none: every call reaches the kernel");
    return;
  }
  std::vector<std::string> ways;
  for (const SeccompArchitecture way : state.table.ways) {
    ways.emplace_back(NameOf(way));
  }
  out.Row("filter", absl::StrCat(state.program.size(), " instructions"));
  out.Words("architectures", ways);
  out.Row("flags", FlagNames(state.filter_flags));
  out.Row("asks the host", state.listener ? "yes" : "no");
  AddNative(out, state.table);
}

// LANDLOCK_ACCESS_FS_EXECUTE, _WRITE_FILE, _READ_FILE in words.
std::string AccessText(uint64_t access) {
  return absl::StrCat((access & 4) != 0 ? "read" : "",
                      (access & 2) != 0 ? " write" : "",
                      (access & 1) != 0 ? " exec" : "");
}

void AddLandlock(Listing& out, const Landlock& landlock) {
  if (landlock.empty() && landlock.missing.empty()) return;
  out.Section("Landlock");
  for (const LandlockPath& path : landlock.paths) {
    out.Row(AccessText(path.file_access),
            absl::StrCat(Quoted(path.path),
                         path.if_exists ? " (if it exists)" : ""));
  }
  if (!landlock.paths.empty()) out.Row("other paths", "refused with EACCES");
  if (landlock.attr.handled_access_net != 0) {
    std::vector<std::string> ports[2];
    for (const LandlockPortAttr& rule : landlock.ports) {
      ports[rule.allowed_access - 1].push_back(absl::StrCat(rule.port));
    }
    const absl::string_view names[] = {"TCP bind", "TCP connect"};
    for (int i = 0; i < 2; ++i) {
      if ((landlock.attr.handled_access_net >> i & 1) == 0) continue;
      out.Words(names[i], ports[i]);
    }
  }
  if ((landlock.attr.scoped & 1) != 0) out.Row("abstract sockets", "its own");
  if ((landlock.attr.scoped & 2) != 0) out.Row("signals", "its own");
  for (const std::string& missing : landlock.missing) {
    out.Row("missing", missing);
  }
}

}  // namespace

std::string ExplainPolicy(const SecurityPolicy::State& state) {
  Listing out;
  AddCapabilities(out, state);
  AddLandlock(out, state.landlock);
  AddFilter(out, state);
  if (!state.notes.empty()) out.Section("without effect");
  for (const std::string& note : state.notes) out.Row("", note);
  return std::move(out).Take();
}

std::string ExplainAccess(const Landlock& landlock, absl::string_view path) {
  if (landlock.attr.handled_access_fs == 0) {
    return absl::StrCat(Quoted(path), ": the policy has no rules for paths");
  }
  uint64_t access = 0;
  std::vector<std::string> rules;
  for (const LandlockPath& rule : landlock.paths) {
    const absl::string_view place = absl::StripSuffix(rule.path, "/");
    const bool below =
        absl::StartsWith(path, place) &&
        (path.size() == place.size() || path[place.size()] == '/');
    if (!below) continue;
    access |= rule.file_access;
    rules.push_back(Quoted(rule.path));
  }
  if (rules.empty()) {
    return absl::StrCat(Quoted(path),
                        ": refused with EACCES (no rule reaches it)");
  }
  return absl::StrCat(Quoted(path), ": ", AccessText(access), " (",
                      absl::StrJoin(rules, ", "),
                      "); anything else is refused with EACCES");
}

std::string ExplainEvent(const FilterTable& table, const SyscallEvent& event) {
  const std::string name = SyscallName(event.audit_arch, event.number);
  if (table.entries.empty()) {
    return absl::StrCat(name, ": allowed (the policy has no filter)");
  }
  const Decision* decision =
      FindDecision(table, event.audit_arch, event.number);
  if (decision != nullptr && !event.args.has_value()) {
    return absl::StrCat(name, ": ", DecisionText(table, *decision));
  }
  uint64_t args[6] = {};
  if (event.args.has_value()) {
    std::copy(event.args->begin(), event.args->end(), args);
  }
  const Verdict verdict = Decide(table, event.audit_arch, event.number, args);
  return absl::StrCat(
      name, ": ", AnswerText(verdict.answer), " (",
      RuleText(table, verdict.rule), ")",
      IsCarriedOut(verdict.answer)
          ? "; an error comes from elsewhere: capabilities, Landlock, "
            "permissions"
          : "");
}

}  // namespace caisson::security
