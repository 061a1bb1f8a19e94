// What can be done only after the last entry of a layer: hiding lower layers,
// whatever the order of the entries, and the attributes of directories.
// Internal to unpack.h.
#ifndef CAISSON_LIB_LAYER_LAYER_FINISH_H_
#define CAISSON_LIB_LAYER_LAYER_FINISH_H_

#include <cstddef>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "lib/layer/layer_directory.h"
#include "lib/layer/overlay_view.h"
#include "lib/layer/unpack.h"

namespace caisson::layer {

// How often `report` below is called: once per so many steps. Its error ends
// the work.
inline constexpr size_t kReportSteps = 1024;

// Writes whiteouts and opaque marks, or removes what they hide (kPlain).
absl::Status ApplyWhiteouts(LayerDirectory& directory, OverlayView& lowers,
                            const UnpackOptions& options, UnpackStats& stats,
                            absl::FunctionRef<absl::Status()> report);

// Writes owners, modes, times and attributes of all directories.
absl::Status FinishDirectories(LayerDirectory& directory, OverlayView& lowers,
                               const UnpackOptions& options, UnpackStats& stats,
                               absl::FunctionRef<absl::Status()> report);

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_LAYER_FINISH_H_
