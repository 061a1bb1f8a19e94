// `root`, `mounts` and what else of a document is about files, as
// RootFsOptions. Opens and makes what the options refer to.
#ifndef CAISSON_LIB_CONTAINER_MOUNTS_H_
#define CAISSON_LIB_CONTAINER_MOUNTS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "caisson/id_range.h"
#include "caisson/launcher.h"
#include "caisson/root_fs.h"
#include "caisson/unique_fd.h"
#include "lib/container/refusal.h"
#include "lib/spec/runtime_config.h"

namespace caisson::container {

// What the translation needs to know beside the document.
struct MountScene {
  std::string bundle;  // absolute
  Launcher& launcher;
  // Of the container's user namespace; empty maps: none.
  const IdMap& ids;
  BorrowedFd user_namespace;  // invalid: none
};

struct TranslatedRoot {
  RootFsOptions options;
  std::vector<UniqueFd> held;  // what `options` refers to
  FieldNames names;
};

absl::StatusOr<TranslatedRoot> TranslateRoot(const spec::RuntimeConfig& config,
                                             const MountScene& scene);

// What of it can be refused without opening anything.
absl::Status CheckRoot(const spec::RuntimeConfig& config);

// The id outside of `id` in a container with these ranges; `id` itself without
// any. INVALID_ARGUMENT if it has none.
absl::StatusOr<uint32_t> OutsideOf(const std::string& field, uint32_t id,
                                   const std::vector<IdRange>& ranges);

}  // namespace caisson::container

#endif  // CAISSON_LIB_CONTAINER_MOUNTS_H_
