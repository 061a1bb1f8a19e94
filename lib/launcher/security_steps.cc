#include "lib/launcher/security_steps.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "absl/strings/str_cat.h"

namespace caisson::launcher {
namespace {

using ::caisson::plan::Data;
using ::caisson::plan::PlanBuilder;

constexpr mode_t kUmask = 022;

static_assert(sizeof(BpfInstruction) == sizeof(sock_filter));
static_assert(offsetof(BpfInstruction, jump_true) == offsetof(sock_filter, jt));
static_assert(offsetof(BpfInstruction, k) == offsetof(sock_filter, k));

void AddFilter(PlanBuilder& plan, const SecurityPolicy& policy) {
  const auto program = policy.seccomp_program();
  if (program.empty()) return;
  sock_fprog filter = {};
  filter.len = static_cast<unsigned short>(program.size());
  const Data data = plan.Object(filter);
  plan.PointTo(
      data.at(offsetof(sock_fprog, filter)),
      plan.Bytes(program.data(), program.size() * sizeof(BpfInstruction)));
  plan.Call(SYS_seccomp, {SECCOMP_SET_MODE_FILTER, 0, data},
            "seccomp(SECCOMP_SET_MODE_FILTER)");
}

// Everything above `capabilities`. While CAP_SETPCAP is still there.
void AddBoundingSet(PlanBuilder& plan, const SecurityPolicy& policy) {
  for (int i = 0; i <= policy.last_capability(); ++i) {
    if ((policy.capabilities() >> i & 1) != 0) continue;
    plan.Call(SYS_prctl, {PR_CAPBSET_DROP, i, 0, 0, 0},
              absl::StrCat("prctl(PR_CAPBSET_DROP, ", i, ")"));
  }
}

void AddIds(PlanBuilder& plan, const User& user) {
  static_assert(sizeof(gid_t) == 4);
  plan.Call(
          SYS_setgroups,
          {user.groups.size(),
           plan.Bytes(user.groups.data(), user.groups.size() * sizeof(gid_t))},
          "setgroups()")
      .Hint("a supplementary group is not mapped in the user namespace");
  plan.Call(SYS_setresgid, {user.gid, user.gid, user.gid},
            absl::StrCat("setresgid(", user.gid, ")"))
      .Hint("the group is not mapped in the user namespace");
  plan.Call(SYS_setresuid, {user.uid, user.uid, user.uid},
            absl::StrCat("setresuid(", user.uid, ")"))
      .Hint("the user is not mapped in the user namespace");
}

void AddCapabilitySets(PlanBuilder& plan, uint64_t capabilities) {
  const __user_cap_header_struct header = {
      .version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  __user_cap_data_struct sets[2] = {};
  sets[0].effective = sets[0].permitted = static_cast<uint32_t>(capabilities);
  sets[1].effective = sets[1].permitted =
      static_cast<uint32_t>(capabilities >> 32);
  plan.Call(SYS_capset, {plan.Object(header), plan.Bytes(sets, sizeof(sets))},
            "capset()");
}

}  // namespace

void AddCredentials(PlanBuilder& plan, const SecurityPolicy& policy,
                    const User& user) {
  if (!policy.no_new_privileges()) AddFilter(plan, policy);
  AddBoundingSet(plan, policy);
  AddIds(plan, user);
  AddCapabilitySets(plan, user.uid == 0 ? policy.capabilities() : 0);
  plan.Call(SYS_prctl, {PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0},
            "prctl(PR_CAP_AMBIENT_CLEAR_ALL)");
  plan.Call(SYS_umask, {kUmask}, "umask()");
}

void AddFilters(PlanBuilder& plan, const SecurityPolicy& policy) {
  if (!policy.no_new_privileges()) return;
  plan.Call(SYS_prctl, {PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0},
            "prctl(PR_SET_NO_NEW_PRIVS)");
  AddFilter(plan, policy);
}

}  // namespace caisson::launcher
