// From a specification to a container's record. Thread-safe functions.
#ifndef CAISSON_LIB_KEEPER_CREATION_H_
#define CAISSON_LIB_KEEPER_CREATION_H_

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "caisson/bundle.h"
#include "caisson/container_spec.h"
#include "caisson/image.h"
#include "lib/keeper/composition.h"
#include "lib/keeper/record.pb.h"

namespace caisson::keeper {

// INVALID_ARGUMENT names the field. Looks at nothing outside of `spec`.
absl::Status CheckSpec(const ContainerSpec& spec);

// The record of a container without a name or anonymous volumes. `image` if
// spec.image names one.
absl::StatusOr<ContainerRecord> MakeRecord(const std::string& id,
                                           const ContainerSpec& spec,
                                           const Image* image);

// Makes the volumes that the specification or the image wants without naming
// one, and adds them to the record. After a failure none is left.
absl::Status MakeAnonymousVolumes(const ContainerSpec& spec, const Image* image,
                                  const Places& places,
                                  ContainerRecord& record);
void RemoveAnonymousVolumes(const Places& places,
                            const ContainerRecord& record);

}  // namespace caisson::keeper

#endif  // CAISSON_LIB_KEEPER_CREATION_H_
