// The objects "linux" and "linux.resources" of config.json.
#ifndef CAISSON_LIB_SPEC_LINUX_CONFIG_H_
#define CAISSON_LIB_SPEC_LINUX_CONFIG_H_

#include "absl/status/status.h"
#include "lib/base/json_document.h"
#include "lib/spec/runtime_config.h"

namespace caisson::spec {

absl::Status ReadIdMapping(const JsonObject& json, IdMapping& out);
absl::Status ReadLinux(const JsonObject& json, Linux& out);
absl::Status ReadResources(const JsonObject& json, Resources& out);
absl::Status ReadSeccomp(const JsonObject& json, Seccomp& out);

}  // namespace caisson::spec

#endif  // CAISSON_LIB_SPEC_LINUX_CONFIG_H_
