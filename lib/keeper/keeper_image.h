// The keeper's program, embedded in the library.
#ifndef CAISSON_LIB_KEEPER_KEEPER_IMAGE_H_
#define CAISSON_LIB_KEEPER_KEEPER_IMAGE_H_

#include "absl/strings/string_view.h"

namespace caisson::keeper {

absl::string_view KeeperImage();

}  // namespace caisson::keeper

#endif  // CAISSON_LIB_KEEPER_KEEPER_IMAGE_H_
