// Which images fit which machine.
#ifndef CAISSON_LIB_LAYER_PLATFORM_H_
#define CAISSON_LIB_LAYER_PLATFORM_H_

#include "absl/strings/string_view.h"
#include "caisson/image.h"

namespace caisson::layer {

// How well an image for `offered` runs where `wanted` is asked for: 0 is a
// perfect match, higher is worse, -1 means not at all. Spellings are normalised
// as containerd does ("x86_64" is amd64, arm64 is v8, arm is v7). A processor
// runs its own and lower variants (arm v7: v6; amd64 v3: v2), never another
// architecture. What an image leaves empty fits everything.
int PlatformDistance(const Platform& wanted, const Platform& offered);

// Platform for a `machine` as uname(2) names it.
Platform PlatformOfMachine(absl::string_view machine);

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_PLATFORM_H_
