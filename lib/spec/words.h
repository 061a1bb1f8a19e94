// The words that the OCI runtime specification has for values, each list in the
// order in which the features document prints it.
#ifndef CAISSON_LIB_SPEC_WORDS_H_
#define CAISSON_LIB_SPEC_WORDS_H_

#include "absl/strings/string_view.h"

namespace caisson::spec {

inline constexpr absl::string_view kNamespaceTypes[] = {
    "cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"};

inline constexpr absl::string_view kSeccompActions[] = {
    "SCMP_ACT_ALLOW",        "SCMP_ACT_ERRNO",       "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",       "SCMP_ACT_TRACE",       "SCMP_ACT_TRAP"};

inline constexpr absl::string_view kSeccompOperators[] = {
    "SCMP_CMP_EQ", "SCMP_CMP_GE",        "SCMP_CMP_GT", "SCMP_CMP_LE",
    "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"};

inline constexpr absl::string_view kSeccompArchitectures[] = {
    "SCMP_ARCH_AARCH64",     "SCMP_ARCH_ARM",    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_M68K",        "SCMP_ARCH_MIPS",   "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",   "SCMP_ARCH_MIPSEL", "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32", "SCMP_ARCH_PARISC", "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_PPC",         "SCMP_ARCH_PPC64",  "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_RISCV64",     "SCMP_ARCH_S390",   "SCMP_ARCH_S390X",
    "SCMP_ARCH_SH",          "SCMP_ARCH_SHEB",   "SCMP_ARCH_X32",
    "SCMP_ARCH_X86",         "SCMP_ARCH_X86_64"};

inline constexpr absl::string_view kSeccompFlags[] = {
    "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"};

inline constexpr absl::string_view kSchedulerPolicies[] = {
    "SCHED_BATCH", "SCHED_DEADLINE", "SCHED_FIFO", "SCHED_IDLE",
    "SCHED_ISO",   "SCHED_OTHER",    "SCHED_RR"};

inline constexpr absl::string_view kSchedulerFlags[] = {
    "SCHED_FLAG_DL_OVERRUN",    "SCHED_FLAG_KEEP_PARAMS",
    "SCHED_FLAG_KEEP_POLICY",   "SCHED_FLAG_RECLAIM",
    "SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_UTIL_CLAMP_MAX",
    "SCHED_FLAG_UTIL_CLAMP_MIN"};

inline constexpr absl::string_view kIoClasses[] = {
    "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE", "IOPRIO_CLASS_RT"};

inline constexpr absl::string_view kMemoryPolicyModes[] = {
    "MPOL_BIND",
    "MPOL_DEFAULT",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE"};

inline constexpr absl::string_view kMemoryPolicyFlags[] = {
    "MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"};

inline constexpr absl::string_view kPropagations[] = {
    "private", "rprivate", "rshared",    "rslave",
    "shared",  "slave",    "unbindable", "runbindable"};

inline constexpr absl::string_view kPersonalityDomains[] = {"LINUX", "LINUX32"};

inline constexpr absl::string_view kHookPoints[] = {
    "prestart",       "createRuntime", "createContainer",
    "startContainer", "poststart",     "poststop"};

}  // namespace caisson::spec

#endif  // CAISSON_LIB_SPEC_WORDS_H_
