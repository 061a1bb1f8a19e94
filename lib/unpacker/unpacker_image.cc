#include "lib/unpacker/unpacker_image.h"

// The assembler file that the build makes.
extern "C" const char caisson_unpacker_image[];
extern "C" const char caisson_unpacker_image_end[];

namespace caisson::unpacker {

absl::string_view UnpackerImage() {
  return {
      caisson_unpacker_image,
      static_cast<size_t>(caisson_unpacker_image_end - caisson_unpacker_image)};
}

}  // namespace caisson::unpacker
