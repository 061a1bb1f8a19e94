// The control group of a container, and what its record says of it.
#ifndef CAISSON_LIB_RUNTIME_CONTAINER_GROUP_H_
#define CAISSON_LIB_RUNTIME_CONTAINER_GROUP_H_

#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "caisson/bundle.h"
#include "caisson/cgroup.h"
#include "lib/runtime/record.pb.h"
#include "lib/runtime/state_directory.h"

namespace caisson::runtime {

// Writes the record with the group's place, then makes the group with the
// document's limits; in every hierarchy, since engines read statistics and
// freeze by whatever they know. ALREADY_EXISTS if something is there. None
// where the document asks for none and this process may make none, as root of a
// user namespace that has not been given any.
absl::StatusOr<std::optional<Cgroup>> MakeGroup(
    const ContainerDirectory& directory, const Bundle& bundle,
    ContainerRecord& record);

// None if there never was one, or it is gone.
absl::StatusOr<std::optional<Cgroup>> FindGroup(const ContainerRecord& record);

// NOT_FOUND if there is none, FAILED_PRECONDITION if it is gone.
absl::StatusOr<Cgroup> OpenGroup(const ContainerRecord& record);

// Whether the group, or one above, is frozen or about to be.
bool IsFrozen(const ContainerRecord& record);

// Of a group that is gone.
absl::Status RemoveMadeParents(const ContainerRecord& record);

}  // namespace caisson::runtime

#endif  // CAISSON_LIB_RUNTIME_CONTAINER_GROUP_H_
