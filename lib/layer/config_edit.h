// The configuration of an image that is made from another one.
#ifndef CAISSON_LIB_LAYER_CONFIG_EDIT_H_
#define CAISSON_LIB_LAYER_CONFIG_EDIT_H_

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/image.h"
#include "caisson/image_commit.h"
#include "lib/layer/digest.h"

namespace caisson::layer {

struct ConfigEdit {
  std::string base;   // config_json of the base image; empty if there is none
  Platform platform;  // without a base
  ImageChanges changes;
  // Of all layers of the new image, bottom first. The first `kept` are layers
  // of the base image.
  std::vector<Digest> diff_ids;
  size_t kept = 0;
  // The step that made the new image; its time is the image's, its author, too,
  // unless empty.
  HistoryEntry step;
};

// What the base says beyond this library's knowledge stays. The history has as
// many steps with layers as there are layers: those that a base without history
// lacks are added, those of layers that went into a new one become empty. The
// same edit is always the same text. Pure.
absl::StatusOr<std::string> EditConfig(const ConfigEdit& edit);

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_CONFIG_EDIT_H_
