#include "lib/keeper/keeper_image.h"

// The assembler file that the build makes.
extern "C" const char caisson_keeper_image[];
extern "C" const char caisson_keeper_image_end[];

namespace caisson::keeper {

absl::string_view KeeperImage() {
  return {caisson_keeper_image,
          static_cast<size_t>(caisson_keeper_image_end - caisson_keeper_image)};
}

}  // namespace caisson::keeper
