// Bundle: a container as the OCI runtime specification describes it (a
// directory with a config.json), turned into what Launcher starts.
//
//   auto bundle = caisson::Bundle::Load("/run/bundles/web");
//   if (!bundle.ok()) return bundle.status();
//   auto parent = caisson::CgroupParent::Open({.path = "/pods",
//                                              .prescribed = true});
//   auto group = parent->Create({.name = "web", .limits = *bundle->Limits()});
//   auto parts = bundle->Compose({.id = "web", .launcher = &*launcher,
//                                 .cgroup = &*group});
//   if (!parts.ok()) return parts.status();
//   parts->spec().out = caisson::Stdio::Inherit(log);
//   auto process = launcher->CreateProcess(parts->spec());   // `create`
//   absl::Status status = process->Start();                  // `start`
//
// The document says all: nothing of caisson's defaults is added to it, neither
// capabilities nor masked paths nor a system call filter; see doc/oci.md for
// each field and for where caisson is stricter. A field that cannot be honoured
// is refused with UNIMPLEMENTED and its name
// ("config.json: linux.rootfsPropagation: ...").
//
// Not for: the state of a container between commands, and the command line of a
// runtime, which examples/oci has.
#ifndef CAISSON_BUNDLE_H_
#define CAISSON_BUNDLE_H_

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/cgroup_limits.h"
#include "caisson/hooks.h"
#include "caisson/process.h"

namespace caisson {

class Cgroup;
class Launcher;
class Namespace;
class RootFs;
class SecurityPolicy;
namespace spec {
struct RuntimeConfig;
}  // namespace spec

struct BundleOptions {
  // Of the container, as hooks are told.
  std::string id;
  // Makes user namespaces and runs hooks; must outlive what is started.
  // Required.
  Launcher* launcher = nullptr;
  // The group that the process lives in; must outlive the start. Null: the
  // host's own, without limits.
  const Cgroup* cgroup = nullptr;
  // false: the host's session keyring is kept (`--no-new-keyring`).
  bool new_session_keyring = true;
  // The caller puts the process into the resctrl group of `linux.intelRdt`, as
  // OciRuntime does; refused otherwise.
  bool handles_intel_rdt = false;
};

// What an agent that answers system calls is told
// (config-linux.md, "The Container Process State").
struct SeccompAgent {
  std::string path;      // of its UNIX socket, SOCK_STREAM
  std::string metadata;  // opaque
};

// A composed container: a ProcessSpec and all that it points to. Move-only;
// spec() is valid as long as the object, which may be moved. Thread-compatible.
class [[nodiscard]] BundleParts final {
 public:
  BundleParts(BundleParts&&) noexcept;
  BundleParts& operator=(BundleParts&&) noexcept;
  ~BundleParts();

  // To be completed with streams (unless it has a terminal), descriptors and
  // whatever the document does not say.
  ProcessSpec& spec();

  // What was left out because it cannot be granted, which the specification
  // does not take for an error: "process.capabilities.ambient: CAP_KILL is not
  // inheritable".
  const std::vector<std::string>& warnings() const;

  struct State;  // for the library itself
  explicit BundleParts(std::unique_ptr<State> state);

 private:
  std::unique_ptr<State> state_;
};

// A loaded document. Immutable, hence thread-safe; copies share it.
class Bundle final {
 public:
  // Reads `directory`/config.json, which is at most 4 MiB. INVALID_ARGUMENT
  // names the field that is wrong: "config.json: linux.resources.memory.limit:
  // expected an integer, found string".
  static absl::StatusOr<Bundle> Load(const std::string& directory);
  // The same of a text that was kept; `directory` is absolute.
  static absl::StatusOr<Bundle> Parse(const std::string& directory,
                                      absl::string_view config);

  // Absolute, and the text as it was read.
  const std::string& directory() const;
  const std::string& text() const;
  // The document itself: lib/spec/runtime_config.h.
  const spec::RuntimeConfig& config() const;
  const std::map<std::string, std::string>& annotations() const;

  // `linux.cgroupsPath` as a path from the root of every hierarchy:
  // "/kubepods/pod1/web", also for systemd's "kubepods.slice:cri:web"
  // ("/kubepods.slice/cri-web.scope"; systemd is not told). Empty if the
  // document has none. INVALID_ARGUMENT if it leads upwards.
  absl::StatusOr<std::string> CgroupsPath() const;
  // `linux.resources` with the devices that every container may use, as other
  // runtimes add them, also if the document has none; a caller without
  // privileges, who cannot limit them, resets `devices`. INVALID_ARGUMENT for
  // values that the kernel does not know, UNIMPLEMENTED for what no control
  // group of caisson has.
  absl::StatusOr<CgroupLimits> Limits() const;
  // What `update --resources` is given, for Cgroup::SetLimits(). The version
  // of the bundle's document says what a pids limit of 0 means. `devices` is
  // left as it is if the text has none.
  absl::StatusOr<CgroupLimits> LimitsOfUpdate(absl::string_view text) const;

  // Where the listener goes that Process::TakeSeccompListener() returns.
  std::optional<SeccompAgent> seccomp_agent() const;

  // Opens and makes everything up to the start: the root (mount points are
  // created in it), joined namespaces, user namespaces, the policy. Nothing is
  // left after a failure but such mount points. UNIMPLEMENTED and
  // INVALID_ARGUMENT name the field; other errors are those of the classes that
  // are composed.
  absl::StatusOr<BundleParts> Compose(const BundleOptions& options) const;

  // The hooks alone, as Compose() has them, for Launcher::Adopt().
  Hooks MakeHooks(const BundleOptions& options) const;

  // For Launcher::Exec(), from what `exec --process` is given: a "process"
  // object; if it is empty, that of the container. The system call filter is
  // the container's.
  absl::StatusOr<BundleParts> ComposeExec(absl::string_view process,
                                          const BundleOptions& options) const;

 private:
  struct State;
  explicit Bundle(std::shared_ptr<const State> state);
  std::shared_ptr<const State> state_;
};

// The features document of this library (features.md), with annotations of the
// runtime, and a config.json to begin with: a shell at a terminal in "rootfs",
// with fewer capabilities than SecurityPolicy's default, and its system calls.
// `rootless`: with a user namespace in which the caller is root.
std::string OciFeatures(const std::map<std::string, std::string>& annotations);
std::string OciDefaultConfig(bool rootless);

}  // namespace caisson

#endif  // CAISSON_BUNDLE_H_
