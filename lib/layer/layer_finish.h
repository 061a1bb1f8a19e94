// What can be done only after the last entry of a layer: hiding lower layers,
// whatever the order of the entries, and the attributes of directories.
// Internal to unpack.h.
#ifndef CAISSON_LIB_LAYER_LAYER_FINISH_H_
#define CAISSON_LIB_LAYER_LAYER_FINISH_H_

#include <cstddef>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "lib/layer/layer_directory.h"
#include "lib/layer/lower_layers.h"
#include "lib/layer/unpack.h"

namespace caisson::layer {

// How often `report` below is called: once per so many steps. Its error ends
// the work.
inline constexpr size_t kReportSteps = 1024;

// Writes whiteouts and opaque marks, or removes what they hide (kPlain).
absl::Status ApplyWhiteouts(LayerDirectory& directory, LowerLayers& lowers,
                            const UnpackOptions& options, UnpackStats& stats,
                            absl::FunctionRef<absl::Status()> report);

// Writes owners, modes, times and attributes of all directories.
absl::Status FinishDirectories(LayerDirectory& directory, LowerLayers& lowers,
                               const UnpackOptions& options, UnpackStats& stats,
                               absl::FunctionRef<absl::Status()> report);

// Removes from a directory that was there before what its entry does not
// mention: every attribute that an image may have.
absl::Status ClearXattrs(BorrowedFd fd, const std::string& path,
                         LayerFormat format);

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_LAYER_FINISH_H_
