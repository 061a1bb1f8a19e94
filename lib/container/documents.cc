#include "lib/spec/documents.h"

#include <unistd.h>

#include <string>
#include <vector>

#include "caisson/bundle.h"
#include "caisson/root_fs.h"
#include "lib/container/mount_options.h"
#include "lib/security/capabilities.h"

namespace caisson {
namespace {

constexpr int kLastNamedCapability = 40;  // CAP_CHECKPOINT_RESTORE

// What `runc spec` gives; a container of Docker has fourteen.
constexpr const char* kFewCapabilities[] = {"CAP_AUDIT_WRITE", "CAP_KILL",
                                            "CAP_NET_BIND_SERVICE"};

#if defined(__x86_64__)
constexpr const char* kArchitectures[] = {"SCMP_ARCH_X32", "SCMP_ARCH_X86",
                                          "SCMP_ARCH_X86_64"};
#elif defined(__aarch64__)
constexpr const char* kArchitectures[] = {"SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"};
#endif

}  // namespace

std::string OciFeatures(const std::map<std::string, std::string>& annotations) {
  spec::Features features;
  features.mount_options = container::KnownMountOptions();
  for (int i = 0; i <= kLastNamedCapability; ++i) {
    features.capabilities.push_back(security::CapabilityName(i));
  }
  features.seccomp_architectures.assign(std::begin(kArchitectures),
                                        std::end(kArchitectures));
  features.annotations = annotations;
  return spec::FeaturesJson(features);
}

std::string OciDefaultConfig(bool rootless) {
  spec::Defaults defaults;
  defaults.capabilities.assign(std::begin(kFewCapabilities),
                               std::end(kFewCapabilities));
  defaults.masked_paths = DefaultMaskedPaths();
  defaults.readonly_paths = DefaultReadOnlyPaths();
  if (rootless)
    defaults.rootless = spec::Defaults::Owner{::geteuid(), ::getegid()};
  return spec::DefaultConfigJson(defaults);
}

}  // namespace caisson
