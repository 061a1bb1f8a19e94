#include "lib/launcher/init_filter.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/syscall.h>

#include <vector>

namespace caisson::launcher {
namespace {

#if defined(__x86_64__)
constexpr unsigned kArchitecture = AUDIT_ARCH_X86_64;
#else
constexpr unsigned kArchitecture = AUDIT_ARCH_AARCH64;
#endif

constexpr unsigned kAllowed[] = {SYS_rt_sigtimedwait, SYS_wait4, SYS_kill,
                                 SYS_exit_group, SYS_restart_syscall};

}  // namespace

plan::Data AddInitFilter(plan::PlanBuilder& plan) {
  std::vector<sock_filter> program = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kArchitecture, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
  };
  for (const unsigned number : kAllowed) {
    program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1));
    program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  }
  program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS));

  sock_fprog filter = {};
  filter.len = static_cast<unsigned short>(program.size());
  const plan::Data data = plan.Object(filter);
  plan.PointTo(
      data.at(offsetof(sock_fprog, filter)),
      plan.Bytes(program.data(), program.size() * sizeof(sock_filter)));
  return data;
}

}  // namespace caisson::launcher
