// `linux.namespaces` and what belongs to them, as NamespaceOptions and IdMap.
#ifndef CAISSON_LIB_CONTAINER_NAMESPACES_H_
#define CAISSON_LIB_CONTAINER_NAMESPACES_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "caisson/id_range.h"
#include "caisson/launcher.h"
#include "caisson/namespace.h"
#include "lib/spec/runtime_config.h"

namespace caisson::container {

struct TranslatedNamespaces {
  NamespaceOptions options;  // with the user namespace
  IdMap ids;                 // of that; empty: none
};

// What of it can be refused without opening anything.
absl::Status CheckNamespaces(const spec::RuntimeConfig& config);

// Opens what is joined, makes a user namespace.
absl::StatusOr<TranslatedNamespaces> TranslateNamespaces(
    const spec::RuntimeConfig& config, Launcher& launcher);

}  // namespace caisson::container

#endif  // CAISSON_LIB_CONTAINER_NAMESPACES_H_
