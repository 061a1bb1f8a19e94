#include <errno.h>
#include <linux/bpf_common.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "caisson/security.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/security/capabilities.h"
#include "lib/security/default_table.h"
#include "lib/security/explain.h"
#include "lib/security/filter_compiler.h"
#include "lib/security/landlock.h"
#include "lib/security/lsm.h"
#include "lib/security/policy_state.h"
#include "lib/security/profile_table.h"

namespace caisson {
namespace {

constexpr size_t kMaxInstructions = 4096;  // BPF_MAXINSNS

// A name of its own for SecurityPolicy::State.
using State = SecurityPolicy::State;

absl::Status CheckSecurebits(const SecurityOptions& options) {
  constexpr uint32_t kUnsafe = kSecbitNoSetuidFixup | kSecbitKeepCaps;
  constexpr uint32_t kAll = 0xff;
  if ((options.securebits & kUnsafe) != 0) {
    return absl::InvalidArgumentError(
        "SecurityOptions.securebits has kSecbitNoSetuidFixup or "
        "kSecbitKeepCaps: they belong into unsafe_securebits, because "
        "capabilities stay when the user changes");
  }
  if (((options.securebits | options.unsafe_securebits) & ~kAll) != 0) {
    return absl::InvalidArgumentError(
        "SecurityOptions.securebits: bits above kSecbit* are unknown");
  }
  return absl::OkStatus();
}

// ---- The filter ------------------------------------------------------------

bool ChangesDefaultList(const SecurityOptions& options) {
  return options.no_network || options.no_new_processes ||
         options.no_debugging || options.kill_on_violation ||
         !options.deny_syscalls.empty() || !options.notify_syscalls.empty() ||
         !options.unsafe_allow_syscalls.empty();
}

absl::Status CheckFilterOptions(const SecurityOptions& options) {
  const bool profile = options.unsafe_seccomp_profile.has_value();
  const bool none = options.unsafe_seccomp.has_value();
  if (profile && none) {
    return absl::InvalidArgumentError(
        "SecurityOptions: unsafe_seccomp and unsafe_seccomp_profile exclude "
        "each other");
  }
  if ((profile || none) && ChangesDefaultList(options)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "SecurityOptions.", none ? "unsafe_seccomp" : "unsafe_seccomp_profile",
        " takes the place of the default list, which no_*, *_syscalls and "
        "kill_on_violation change: leave them alone"));
  }
  if (none && options.unsafe_seccomp_log_only.has_value()) {
    return absl::InvalidArgumentError(
        "SecurityOptions: unsafe_seccomp leaves no filter that could log");
  }
  RETURN_IF_ERROR(security::CheckSyscallNames("SecurityOptions.deny_syscalls",
                                              options.deny_syscalls));
  RETURN_IF_ERROR(security::CheckSyscallNames("SecurityOptions.notify_syscalls",
                                              options.notify_syscalls));
  return security::CheckSyscallNames("SecurityOptions.unsafe_allow_syscalls",
                                     options.unsafe_allow_syscalls);
}

absl::Status MakeTable(const SecurityOptions& options, State& state) {
  if (options.unsafe_seccomp_profile.has_value()) {
    const SeccompProfile& profile = *options.unsafe_seccomp_profile;
    ASSIGN_OR_RETURN(auto made, security::MakeProfileTable(
                                    security::kNativeArchitecture, profile));
    state.table = std::move(made.table);
    state.notes = std::move(made.notes);
    if (profile.log) state.filter_flags |= SECCOMP_FILTER_FLAG_LOG;
    if (profile.spec_allow) {
      state.filter_flags |= SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    }
  } else {
    state.table = security::MakeDefaultTable(
        security::kNativeArchitecture,
        {.capabilities = state.root.bounding,
         .denied = options.kill_on_violation
                       ? uint32_t{SECCOMP_RET_KILL_PROCESS}
                       : security::kAnswerEperm,
         .allow = options.unsafe_allow_syscalls,
         .no_network = options.no_network,
         .no_new_processes = options.no_new_processes,
         .no_debugging = options.no_debugging,
         .notify = options.notify_syscalls,
         .deny = options.deny_syscalls});
  }
  if (options.unsafe_seccomp_log_only.has_value()) {
    security::MakeLogOnly(state.table);
  }
  return absl::OkStatus();
}

bool AsksTheHost(uint32_t answer) {
  return (answer & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_USER_NOTIF;
}

bool AsksTheHost(const security::Decision& decision) {
  return AsksTheHost(decision.answer) ||
         std::any_of(decision.clauses.begin(), decision.clauses.end(),
                     [](const security::Clause& clause) {
                       return AsksTheHost(clause.answer);
                     });
}

bool Notifies(const security::FilterTable& table) {
  return std::any_of(
      table.decisions.begin(), table.decisions.end(),
      [](const security::Decision& decision) { return AsksTheHost(decision); });
}

// A call between the filter and the program's first instruction.
struct StartCall {
  const char* name;
  uint32_t number;
  bool needed;
  const char* purpose;
};

// Nobody could answer a notification then: the host waits for the start.
absl::Status CheckIsCarriedOut(const State& state, const StartCall& call) {
  if (!call.needed) return absl::OkStatus();
  const uint32_t arch = NativeAuditArch();
  const uint64_t args[6] = {};
  auto verdict = security::Decide(state.table, arch, call.number, args);
  // Whether a condition holds then need not be found out.
  for (const security::Clause& clause :
       security::FindDecision(state.table, arch, call.number)->clauses) {
    if (AsksTheHost(clause.answer)) verdict = {clause.answer, clause.rule};
  }
  if (security::IsCarriedOut(verdict.answer)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "SecurityOptions: no program could be started: ", call.name, "(2), ",
      call.purpose, ", is ", security::AnswerText(verdict.answer), " (",
      verdict.rule < 0 ? "" : state.table.rules[verdict.rule], ")"));
}

absl::Status CheckStartIsPossible(const State& state) {
  const StartCall calls[] = {
      {"execve", SYS_execve, true, "which starts the program"},
      {"capset", SYS_capset, !state.no_new_privileges,
       "which gives up what loading a filter without no_new_privs needs"},
      {"sendmsg", SYS_sendmsg, state.listener,
       "which hands the listener to the host"},
      {"dup3", SYS_dup3, state.listener,
       "which precedes the closing of descriptors"},
      {"close_range", SYS_close_range, state.listener,
       "which closes descriptors before the program starts"},
  };
  for (const StartCall& call : calls) {
    RETURN_IF_ERROR(CheckIsCarriedOut(state, call));
  }
  const uint32_t arch = NativeAuditArch();
  const uint64_t args[6] = {};
  const auto end = security::Decide(state.table, arch, SYS_exit_group, args);
  const uint32_t action = end.answer & SECCOMP_RET_ACTION_FULL;
  if (security::IsCarriedOut(end.answer) ||
      action == SECCOMP_RET_KILL_PROCESS || action == SECCOMP_RET_KILL_THREAD) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "SecurityOptions: exit_group(2), which ends a start that failed, is ",
      security::AnswerText(end.answer), " (", state.table.rules[end.rule],
      ")"));
}

// What the kernel says to flags, which it looks at before the program, which is
// not there: EFAULT if it knows them.
int ProbeFlags(uint32_t flags) {
  const long result =
      ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, nullptr);
  return result == 0 ? EFAULT : errno;
}

absl::Status CheckFlags(const SecurityOptions& options, State& state) {
  const std::optional<SeccompProfile>& profile = options.unsafe_seccomp_profile;
  if (state.listener) {
    constexpr uint32_t kKillable = SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    const bool wanted = profile.has_value()
                            ? profile->wait_killable_recv
                            : ProbeFlags(SECCOMP_FILTER_FLAG_NEW_LISTENER |
                                         kKillable) == EFAULT;
    if (wanted) state.filter_flags |= kKillable;
  }
  const uint32_t flags =
      state.filter_flags |
      (state.listener ? SECCOMP_FILTER_FLAG_NEW_LISTENER : 0);
  const int error = flags == 0 ? EFAULT : ProbeFlags(flags);
  if (error == EFAULT) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "seccomp(SECCOMP_SET_MODE_FILTER, flags ", flags, "): ", ErrnoText(error),
      "; the kernel lacks a flag of the profile (wait_killable_recv: Linux "
      "5.19)"));
}

absl::Status MakeFilter(const SecurityOptions& options, State& state) {
  RETURN_IF_ERROR(CheckFilterOptions(options));
  if (options.unsafe_seccomp.has_value()) return absl::OkStatus();
  RETURN_IF_ERROR(MakeTable(options, state));
  state.program = security::CompileTable(state.table);
  if (state.program.size() > kMaxInstructions) {
    return absl::ResourceExhaustedError(
        absl::StrCat("SecurityOptions: the filter has ", state.program.size(),
                     " instructions, the kernel takes ", kMaxInstructions));
  }
  state.listener = Notifies(state.table);
  RETURN_IF_ERROR(CheckStartIsPossible(state));
  state.with_gate = CheckIsCarriedOut(
      state, {"read", SYS_read, state.listener || !state.no_new_privileges,
              "by which a created process waits for its start"});
  return CheckFlags(options, state);
}

// ---- Security modules ------------------------------------------------------

absl::Status MakeLabels(const SecurityOptions& options, State& state) {
  constexpr absl::string_view kProfile = "SecurityOptions.apparmor_profile";
  constexpr absl::string_view kLabel = "SecurityOptions.selinux_label";
  if (!options.apparmor_profile.empty() &&
      options.apparmor_profile != "unconfined") {
    RETURN_IF_ERROR(security::CheckLabel(kProfile, options.apparmor_profile));
    RETURN_IF_ERROR(security::RequireLsm(kProfile, "apparmor"));
    state.apparmor_profile = options.apparmor_profile;
  }
  if (!options.selinux_label.empty()) {
    RETURN_IF_ERROR(security::CheckLabel(kLabel, options.selinux_label));
    RETURN_IF_ERROR(security::RequireLsm(kLabel, "selinux"));
    state.selinux_label = options.selinux_label;
  }
  return absl::OkStatus();
}

bool AsksForLandlock(const SecurityOptions& options) {
  return !options.read_only_paths.empty() || !options.writable_paths.empty() ||
         !options.path_rules.empty() || options.tcp_bind_ports.has_value() ||
         options.tcp_connect_ports.has_value() || options.scope_signals ||
         options.scope_abstract_sockets;
}

}  // namespace

absl::StatusOr<SecurityPolicy> SecurityPolicy::Create(
    const SecurityOptions& options) {
  ASSIGN_OR_RETURN(const auto kernel, security::ReadKernelCapabilities());
  auto state = std::make_shared<State>();
  ASSIGN_OR_RETURN(auto choice, security::ChooseSets(options, kernel));
  state->root = choice.root;
  state->user = choice.user;
  state->last_capability = kernel.last;
  state->missing_capabilities = std::move(choice.missing);
  RETURN_IF_ERROR(CheckSecurebits(options));
  state->securebits = options.securebits | options.unsafe_securebits;
  state->no_new_privileges = !options.unsafe_new_privileges.has_value();
  state->own_session_keyring = !options.unsafe_session_keyring.has_value();
  RETURN_IF_ERROR(MakeFilter(options, *state));
  if (AsksForLandlock(options)) {
    ASSIGN_OR_RETURN(state->landlock,
                     security::MakeLandlock(options, security::LandlockAbi()));
  }
  RETURN_IF_ERROR(MakeLabels(options, *state));
  return SecurityPolicy(std::move(state));
}

SecurityPolicy::SecurityPolicy(std::shared_ptr<const State> state)
    : state_(std::move(state)) {}
SecurityPolicy::SecurityPolicy(const SecurityPolicy&) = default;
SecurityPolicy& SecurityPolicy::operator=(const SecurityPolicy&) = default;
SecurityPolicy::SecurityPolicy(SecurityPolicy&&) noexcept = default;
SecurityPolicy& SecurityPolicy::operator=(SecurityPolicy&&) noexcept = default;
SecurityPolicy::~SecurityPolicy() = default;

const CapabilityMasks& SecurityPolicy::CapabilitiesOf(bool is_root) const {
  return is_root ? state_->root : state_->user;
}

uint64_t SecurityPolicy::capabilities() const { return state_->root.bounding; }

int SecurityPolicy::last_capability() const { return state_->last_capability; }

const std::vector<std::string>& SecurityPolicy::missing_capabilities() const {
  return state_->missing_capabilities;
}

bool SecurityPolicy::no_new_privileges() const {
  return state_->no_new_privileges;
}

absl::Span<const BpfInstruction> SecurityPolicy::seccomp_program() const {
  return state_->program;
}

bool SecurityPolicy::has_seccomp_listener() const { return state_->listener; }

std::string SecurityPolicy::Explain() const {
  return security::ExplainPolicy(*state_);
}

std::string SecurityPolicy::ExplainViolation(const SyscallEvent& event) const {
  return security::ExplainEvent(state_->table, event);
}

std::string SecurityPolicy::ExplainPath(absl::string_view path) const {
  return security::ExplainAccess(state_->landlock, path);
}

}  // namespace caisson
