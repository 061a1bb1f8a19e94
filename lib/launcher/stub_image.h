// The launcher program, as the build made it.
#ifndef CAISSON_LIB_LAUNCHER_STUB_IMAGE_H_
#define CAISSON_LIB_LAUNCHER_STUB_IMAGE_H_

#include "absl/strings/string_view.h"

namespace caisson::launcher {

// An ELF executable: static, freestanding, for the machine of this library.
absl::string_view StubImage();

}  // namespace caisson::launcher

#endif  // CAISSON_LIB_LAUNCHER_STUB_IMAGE_H_
