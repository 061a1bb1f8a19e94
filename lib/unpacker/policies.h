// What the processes of a confined unpacker may do.
#ifndef CAISSON_LIB_UNPACKER_POLICIES_H_
#define CAISSON_LIB_UNPACKER_POLICIES_H_

#include "absl/status/statusor.h"
#include "caisson/security.h"

namespace caisson::unpacker {

// For what reads one socket and writes another.
absl::StatusOr<SecurityPolicy> DecompressorPolicy();

// For what also makes files below kLayerPath.
absl::StatusOr<SecurityPolicy> UnpackerPolicy();

}  // namespace caisson::unpacker

#endif  // CAISSON_LIB_UNPACKER_POLICIES_H_
