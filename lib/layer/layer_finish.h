// What can be done only after the last entry of a layer: hiding lower layers,
// whatever the order of the entries, and the attributes of directories.
// Internal to unpack.h.
#ifndef CAISSON_LIB_LAYER_LAYER_FINISH_H_
#define CAISSON_LIB_LAYER_LAYER_FINISH_H_

#include "absl/status/status.h"
#include "lib/layer/layer_directory.h"
#include "lib/layer/overlay_view.h"
#include "lib/layer/unpack.h"

namespace caisson::layer {

// Writes whiteouts and opaque marks, or removes what they hide (kPlain).
absl::Status ApplyWhiteouts(LayerDirectory& directory, OverlayView& lowers,
                            const UnpackOptions& options, UnpackStats& stats);

// Writes owners, modes, times and attributes of all directories.
absl::Status FinishDirectories(LayerDirectory& directory, OverlayView& lowers,
                               const UnpackOptions& options,
                               UnpackStats& stats);

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_LAYER_FINISH_H_
