// Copying one file of a lower layer into the layer that is unpacked. Internal
// to unpack.h.
#ifndef CAISSON_LIB_LAYER_COPY_UP_H_
#define CAISSON_LIB_LAYER_COPY_UP_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "caisson/unique_fd.h"
#include "lib/layer/overlay_view.h"
#include "lib/layer/unpack.h"

namespace caisson::layer {

// Makes `name` in `dir`, where nothing of that name may exist, a copy of `file`
// with all its attributes; holes stay holes. Anything but a directory is
// possible. `path` names the new file in errors.
absl::Status CopyUp(const OverlayFile& file, BorrowedFd dir,
                    const std::string& name, LayerFormat format,
                    const std::string& path);

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_COPY_UP_H_
