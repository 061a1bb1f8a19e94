#include "lib/launcher/security_steps.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/landlock.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/plan/send_fds.h"
#include "lib/security/policy_state.h"

namespace caisson::launcher {
namespace {

using ::caisson::plan::Data;
using ::caisson::plan::PlanBuilder;
using ::caisson::plan::Slot;
using ::caisson::security::LandlockPath;
using ::caisson::security::LandlockPortAttr;

constexpr uint64_t Bit(int capability) { return uint64_t{1} << capability; }

static_assert(sizeof(BpfInstruction) == sizeof(sock_filter));
static_assert(offsetof(BpfInstruction, jump_true) == offsetof(sock_filter, jt));
static_assert(offsetof(BpfInstruction, k) == offsetof(sock_filter, k));

// ---- Labels ----------------------------------------------------------------

void AddLabel(PlanBuilder& plan, const std::string& path,
              const std::string& text, absl::string_view hint) {
  const Slot file = plan.NewSlot();
  plan.Call(SYS_openat, {AT_FDCWD, plan.String(path), O_WRONLY | O_CLOEXEC, 0},
            absl::StrCat("open(", Quoted(path), ")"))
      .Into(file)
      .Path(path);
  plan.Call(SYS_write, {file, plan.String(text), text.size()},
            absl::StrCat("write(", Quoted(path), ", ", Quoted(text), ")"))
      .Path(path)
      .Hint(hint);
  plan.Call(SYS_close, {file}, absl::StrCat("close(", Quoted(path), ")"));
}

// ---- Capabilities ----------------------------------------------------------

// Everything above the bounding set. While CAP_SETPCAP is still there.
void AddBoundingSet(PlanBuilder& plan, const SecurityPolicy& policy) {
  for (int i = 0; i <= policy.last_capability(); ++i) {
    if ((policy.capabilities() >> i & 1) != 0) continue;
    plan.Call(SYS_prctl, {PR_CAPBSET_DROP, i, 0, 0, 0},
              absl::StrCat("prctl(PR_CAPBSET_DROP, ", i, ")"));
  }
}

void AddIds(PlanBuilder& plan, const User& user, bool setgroups) {
  static_assert(sizeof(gid_t) == 4);
  if (setgroups) {
    auto call = plan.Call(
        SYS_setgroups,
        {user.groups.size(),
         plan.Bytes(user.groups.data(), user.groups.size() * sizeof(gid_t))},
        "setgroups()");
    call.Hint(
        "a supplementary group is not mapped in the user namespace, or it "
        "denies setgroups(2)");
    // Where that is denied there are none, and only the own one was wanted.
    if (user.groups.size() <= 1) call.Tolerate(EPERM);
  }
  plan.Call(SYS_setresgid, {user.gid, user.gid, user.gid},
            absl::StrCat("setresgid(", user.gid, ")"))
      .Hint("the group is not mapped in the user namespace");
  plan.Call(SYS_setresuid, {user.uid, user.uid, user.uid},
            absl::StrCat("setresuid(", user.uid, ")"))
      .Hint("the user is not mapped in the user namespace");
}

// `sets`, and `kept` in permitted and effective beside them.
void AddCapset(PlanBuilder& plan, const CapabilityMasks& sets, uint64_t kept) {
  const __user_cap_header_struct header = {
      .version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  __user_cap_data_struct data[2] = {};
  for (int half = 0; half < 2; ++half) {
    const auto part = [half](uint64_t set) {
      return static_cast<uint32_t>(set >> 32 * half);
    };
    data[half] = {.effective = part(sets.effective | kept),
                  .permitted = part(sets.permitted | kept),
                  .inheritable = part(sets.inheritable)};
  }
  plan.Call(SYS_capset, {plan.Object(header), plan.Bytes(data, sizeof(data))},
            "capset()");
}

void AddAmbientSet(PlanBuilder& plan, uint64_t ambient) {
  plan.Call(SYS_prctl, {PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0},
            "prctl(PR_CAP_AMBIENT_CLEAR_ALL)");
  for (int i = 0; i < 64; ++i) {
    if ((ambient >> i & 1) == 0) continue;
    plan.Call(SYS_prctl, {PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, i, 0, 0},
              absl::StrCat("prctl(PR_CAP_AMBIENT_RAISE, ", i, ")"));
  }
}

// What the calls after the change of user need beyond what the process is to
// have: without no_new_privs, only CAP_SYS_ADMIN may load filters and rules.
uint64_t KeptForFilter(const SecurityPolicy& policy) {
  const bool restricted =
      !policy.seccomp_program().empty() || !policy.state().landlock.empty();
  return !policy.no_new_privileges() && restricted ? Bit(CAP_SYS_ADMIN) : 0;
}

void AddUserAndSets(PlanBuilder& plan, const SecurityPolicy& policy,
                    const User& user, bool setgroups) {
  const CapabilityMasks& sets = policy.CapabilitiesOf(user.uid == 0);
  const uint32_t securebits = policy.state().securebits;
  const uint64_t late = KeptForFilter(policy);
  const uint64_t kept = late | (securebits != 0 ? Bit(CAP_SETPCAP) : 0);
  // The change of user takes the permitted set otherwise; exec clears the flag.
  const bool keep = user.uid != 0 && (sets.permitted | kept) != 0;
  if (keep) {
    plan.Call(SYS_prctl, {PR_SET_KEEPCAPS, 1, 0, 0, 0},
              "prctl(PR_SET_KEEPCAPS)");
  }
  AddIds(plan, user, setgroups);
  AddCapset(plan, sets, kept);
  AddAmbientSet(plan, sets.ambient);
  if (keep) {
    plan.Call(SYS_prctl, {PR_SET_KEEPCAPS, 0, 0, 0, 0},
              "prctl(PR_SET_KEEPCAPS, 0)");
  }
  if (securebits != 0) {
    plan.Call(SYS_prctl, {PR_SET_SECUREBITS, securebits, 0, 0, 0},
              absl::StrCat("prctl(PR_SET_SECUREBITS, ", securebits, ")"))
        .Hint("the host's process has locked securebits");
    AddCapset(plan, sets, late);
  }
}

// ---- Landlock --------------------------------------------------------------

constexpr char kAddRule[] = "landlock_add_rule(path)";

// What exists is either a directory or something else, which takes fewer
// rights; those that it takes anyway are added twice.
void AddPathRule(PlanBuilder& plan, Slot ruleset, Slot path,
                 const LandlockPath& rule) {
  const open_how how = {.flags = O_PATH | O_CLOEXEC,
                        .resolve = RESOLVE_NO_MAGICLINKS};
  auto open =
      plan.Call(
              SYS_openat2,
              {AT_FDCWD, plan.String(rule.path), plan.Object(how), sizeof(how)},
              absl::StrCat("open(", Quoted(rule.path), ")"))
          .Into(path)
          .Path(rule.path)
          .Hint(
              "a Landlock rule of SecurityOptions names it; what lies behind a "
              "magic link (/proc/self/fd/1) is out of its reach");
  if (rule.if_exists) open.Tolerate(ENOENT, /*skip=*/5);
  for (const bool directory : {true, false}) {
    landlock_path_beneath_attr attr = {};
    attr.allowed_access = directory ? rule.directory_access : rule.file_access;
    const Data data = plan.Object(attr);
    plan.Store(data.at(offsetof(landlock_path_beneath_attr, parent_fd)), path);
    auto add =
        plan.Call(SYS_landlock_add_rule,
                  {ruleset, security::kLandlockRulePath, data, 0}, kAddRule)
            .Path(rule.path);
    if (directory) add.Tolerate(EINVAL);
  }
  plan.Call(SYS_close, {path}, absl::StrCat("close(", Quoted(rule.path), ")"));
}

// Built in the child, where everything is mounted: a rule is about a file, not
// about a name, and what is mounted over a file is another one.
Slot AddRuleset(PlanBuilder& plan, const security::Landlock& landlock) {
  const Slot ruleset = plan.NewSlot();
  plan.Call(SYS_landlock_create_ruleset,
            {plan.Object(landlock.attr), sizeof(landlock.attr), 0},
            "landlock_create_ruleset()")
      .Into(ruleset);
  const Slot path = plan.NewSlot();
  for (const LandlockPath& rule : landlock.paths) {
    AddPathRule(plan, ruleset, path, rule);
  }
  for (const LandlockPortAttr& rule : landlock.ports) {
    plan.Call(SYS_landlock_add_rule,
              {ruleset, security::kLandlockRulePort, plan.Object(rule), 0},
              absl::StrCat("landlock_add_rule(port ", rule.port, ")"));
  }
  return ruleset;
}

// ---- The filter ------------------------------------------------------------

// The descriptor of the listener comes into `listener`, if it is valid.
void AddSeccomp(PlanBuilder& plan, const SecurityPolicy& policy,
                Slot listener) {
  const auto program = policy.seccomp_program();
  sock_fprog filter = {};
  filter.len = static_cast<unsigned short>(program.size());
  const Data data = plan.Object(filter);
  plan.PointTo(
      data.at(offsetof(sock_fprog, filter)),
      plan.Bytes(program.data(), program.size() * sizeof(BpfInstruction)));
  const uint32_t flags =
      policy.state().filter_flags |
      (listener.valid() ? SECCOMP_FILTER_FLAG_NEW_LISTENER : 0);
  auto load = plan.Call(SYS_seccomp, {SECCOMP_SET_MODE_FILTER, flags, data},
                        "seccomp(SECCOMP_SET_MODE_FILTER)");
  if (!listener.valid()) return;
  load.Into(listener).Hint(
      "EBUSY: the host itself runs under a filter that has a listener, and "
      "there can be one only");
}

}  // namespace

void AddSessionKeyring(PlanBuilder& plan, const SecurityPolicy& policy) {
  if (!policy.state().own_session_keyring) return;
  plan.Call(SYS_keyctl, {KEYCTL_JOIN_SESSION_KEYRING, 0},
            "keyctl(KEYCTL_JOIN_SESSION_KEYRING)")
      .Tolerate(ENOSYS)
      .Hint(
          "EDQUOT: the user's keys are used up (/proc/key-users, "
          "/proc/sys/kernel/keys); SecurityOptions.unsafe_session_keyring "
          "needs none");
}

void AddLabels(PlanBuilder& plan, const SecurityPolicy& policy) {
  const SecurityPolicy::State& state = policy.state();
  if (!state.apparmor_profile.empty()) {
    AddLabel(plan, "/proc/thread-self/attr/apparmor/exec",
             absl::StrCat("exec ", state.apparmor_profile),
             "ENOENT: the profile is not loaded (apparmor_parser -r)");
  }
  if (!state.selinux_label.empty()) {
    AddLabel(plan, "/proc/thread-self/attr/exec", state.selinux_label,
             "the label does not exist in the loaded policy, or the policy "
             "does not let this process set it");
  }
}

void AddCredentials(PlanBuilder& plan, const SecurityPolicy& policy,
                    const User& user, mode_t umask, bool setgroups) {
  const SecurityPolicy::State& state = policy.state();
  Slot ruleset;
  if (!state.landlock.empty()) ruleset = AddRuleset(plan, state.landlock);
  AddBoundingSet(plan, policy);
  AddUserAndSets(plan, policy, user, setgroups);
  plan.Call(SYS_umask, {umask}, "umask()");
  if (policy.no_new_privileges()) {
    plan.Call(SYS_prctl, {PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0},
              "prctl(PR_SET_NO_NEW_PRIVS)");
  }
  if (ruleset.valid()) {
    plan.Call(SYS_landlock_restrict_self, {ruleset, 0},
              "landlock_restrict_self()")
        .Hint("E2BIG: the host itself runs under 16 layers of rules");
  }
}

absl::StatusOr<Slot> AddListenerSocket(PlanBuilder& plan,
                                       const SecurityPolicy& policy,
                                       UniqueFd& host_end) {
  Slot socket;
  if (!policy.has_seccomp_listener()) return socket;
  int fds[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) != 0) {
    return ErrnoError(errno, "socketpair()", {.step = "security"});
  }
  host_end.reset(fds[0]);
  socket = plan.NewSlot();
  plan.Call(
          SYS_fcntl,
          {plan.Send(UniqueFd(fds[1])), F_DUPFD_CLOEXEC, plan::kFirstSetAside},
          "fcntl(F_DUPFD_CLOEXEC)")
      .Into(socket);
  return socket;
}

void AddFilter(PlanBuilder& plan, const SecurityPolicy& policy,
               const User& user, Slot listener_socket) {
  if (listener_socket.valid()) {
    const Slot listener = plan.NewSlot();
    AddSeccomp(plan, policy, listener);
    plan::AppendSendFds(plan, listener_socket, {listener});
    // Calls fail once the host has closed its copy, so there may be no other.
    for (const Slot slot : {listener, listener_socket}) {
      plan.Call(SYS_close_range, {slot, slot, 0}, "close(listener)");
    }
  } else if (!policy.seccomp_program().empty()) {
    AddSeccomp(plan, policy, Slot());
  }
  if (KeptForFilter(policy) != 0) {
    AddCapset(plan, policy.CapabilitiesOf(user.uid == 0), 0);
  }
}

void AddOnlyCapability(PlanBuilder& plan, int capability) {
  AddCapset(plan, {.effective = Bit(capability), .permitted = Bit(capability)},
            0);
  plan.Call(SYS_prctl, {PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0},
            "prctl(PR_SET_NO_NEW_PRIVS)");
}

}  // namespace caisson::launcher
