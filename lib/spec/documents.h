// What a runtime says: the state document (runtime.md, "State"), the features
// document (features.md, features-linux.md) and a config.json to begin with.
//
// Functions only: thread-safe.
#ifndef CAISSON_LIB_SPEC_DOCUMENTS_H_
#define CAISSON_LIB_SPEC_DOCUMENTS_H_

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lib/spec/runtime_config.h"

namespace caisson::spec {

// The version that documents of ours follow.
inline constexpr char kDocumentVersion[] = "1.2.0";

struct State {
  std::string id;
  std::string status;  // "creating", "created", "running" or "stopped"
  pid_t pid = 0;       // of the host; 0 once stopped
  std::string bundle;  // absolute
  std::map<std::string, std::string> annotations;
};

// With a "pid" always, as engines read it: 0 if it is not above.
std::string StateJson(const State& state);

// What the agent behind `linux.seccomp.listenerPath` is sent together with the
// listener (config-linux.md, "The Container Process State"). `pid` is that of
// the process whose listener it is; of an `exec` not the state's.
std::string SeccompProcessJson(pid_t pid, const std::string& metadata,
                               const State& state);

struct Features {
  // The options of mounts that are not the file system's.
  std::vector<std::string> mount_options;
  // "CAP_CHOWN"
  std::vector<std::string> capabilities;
  // "SCMP_ARCH_X86_64": those that have an effect on this kernel
  std::vector<std::string> seccomp_architectures;
  std::map<std::string, std::string> annotations;
};

std::string FeaturesJson(const Features& features);

// What DefaultConfigJson() is made of.
struct Defaults {
  std::vector<std::string> capabilities;  // bounding, effective, permitted
  std::vector<std::string> masked_paths;
  std::vector<std::string> readonly_paths;
  std::optional<Seccomp> seccomp;
  // For a runtime without privileges: a user namespace in which root is this
  // user and group of the host.
  struct Owner {
    uint32_t uid = 0;
    uint32_t gid = 0;
  };
  std::optional<Owner> rootless;
};

// A config.json that starts a shell at a terminal in the directory "rootfs",
// as `runc spec` prints it.
std::string DefaultConfigJson(const Defaults& defaults);

}  // namespace caisson::spec

#endif  // CAISSON_LIB_SPEC_DOCUMENTS_H_
