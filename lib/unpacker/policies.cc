#include "lib/unpacker/policies.h"

#include <string>
#include <utility>
#include <vector>

#include "lib/base/status_macros.h"
#include "lib/unpacker/places.h"

namespace caisson::unpacker {
namespace {

// What a process needs to begin, to have memory and to end. The launcher
// executes it with the filter in place. There is nothing else to execute: all
// that it could find is mounted noexec.
constexpr const char* kProcess[] = {
    "execve", "execveat",
    // libc's beginning.
    "arch_prctl", "set_tid_address", "set_robust_list", "rseq", "prlimit64",
    "readlinkat", "readlink", "getrandom", "futex",
    // Memory.
    "brk", "munmap", "mremap", "madvise",
    // The end.
    "exit", "exit_group"};

constexpr const char* kStreams[] = {"read", "write", "close"};

constexpr const char* kFiles[] = {
    "openat", "openat2", "pread64", "pwrite64", "ftruncate", "lseek",
    "getdents64", "fcntl",
    // What is there.
    "fstat", "newfstatat",
    // Names.
    "mkdirat", "symlinkat", "linkat", "unlinkat", "mknodat",
    // Attributes.
    "fchown", "fchownat", "fchmod", "utimensat", "fsetxattr", "fgetxattr",
    "flistxattr", "fremovexattr"};

// mmap(2) and mprotect(2) without PROT_EXEC, which is all that is left to
// whoever wants to bring his own code.
constexpr uint64_t kProtExec = 4;

template <size_t kCount>
void Allow(const char* const (&names)[kCount], SeccompProfile& profile) {
  SeccompRule rule;
  rule.names.assign(names, names + kCount);
  profile.syscalls.push_back(std::move(rule));
}

SeccompProfile MakeProfile(bool files) {
  SeccompProfile profile;
  profile.default_action = SeccompAction::kKillProcess;
  Allow(kProcess, profile);
  Allow(kStreams, profile);
  if (files) Allow(kFiles, profile);
  profile.syscalls.push_back({.names = {"mmap", "mprotect"},
                              .args = {{.index = 2,
                                        .value = kProtExec,
                                        .value_two = 0,
                                        .op = SeccompOperator::kMaskedEqual}}});
  return profile;
}

// As much of Landlock as there is. The mount namespace alone keeps the process
// from everything but the layer; this keeps it there if that should fail.
absl::StatusOr<SecurityPolicy> WithLandlock(SecurityOptions options) {
  if (options.path_rules.empty()) {
    // A rule for nothing, so that the rest is out of reach.
    options.path_rules.push_back(
        {.path = "/nothing", .access = PathAccess::kRead, .if_exists = true});
  }
  SecurityOptions all = options;
  all.tcp_bind_ports.emplace();
  all.tcp_connect_ports.emplace();
  all.scope_signals = true;
  all.scope_abstract_sockets = true;
  auto policy = SecurityPolicy::Create(all);
  if (!absl::IsFailedPrecondition(policy.status())) return policy;
  // Linux 6.2 to 6.11. (Before 5.19, Landlock forbids all hard links between
  // directories.)
  policy = SecurityPolicy::Create(options);
  if (!absl::IsFailedPrecondition(policy.status())) return policy;
  options.path_rules.clear();
  return SecurityPolicy::Create(options);
}

}  // namespace

absl::StatusOr<SecurityPolicy> DecompressorPolicy() {
  SecurityOptions options;
  options.unsafe_capability_sets = CapabilitySets();
  options.unsafe_seccomp_profile = MakeProfile(/*files=*/false);
  return WithLandlock(std::move(options));
}

absl::StatusOr<SecurityPolicy> UnpackerPolicy() {
  // Owners; files of others (kPlain); modes and times of files given away;
  // set-group-ID bits of such; file capabilities.
  const std::vector<std::string> capabilities = {
      "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID",
      "CAP_SETFCAP"};
  SecurityOptions options;
  options.unsafe_capability_sets = CapabilitySets{.bounding = capabilities,
                                                  .effective = capabilities,
                                                  .permitted = capabilities};
  options.unsafe_seccomp_profile = MakeProfile(/*files=*/true);
  options.path_rules.push_back(
      {.path = kLayerPath, .access = PathAccess::kWrite});
  return WithLandlock(std::move(options));
}

}  // namespace caisson::unpacker
