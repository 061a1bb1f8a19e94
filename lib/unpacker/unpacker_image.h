// The program of a confined unpacker, embedded in the library.
#ifndef CAISSON_LIB_UNPACKER_UNPACKER_IMAGE_H_
#define CAISSON_LIB_UNPACKER_UNPACKER_IMAGE_H_

#include "absl/strings/string_view.h"

namespace caisson::unpacker {

// Empty in builds with sanitizers, whose programs need shared libraries.
absl::string_view UnpackerImage();

}  // namespace caisson::unpacker

#endif  // CAISSON_LIB_UNPACKER_UNPACKER_IMAGE_H_
