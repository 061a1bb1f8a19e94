// Owners of files that a user namespace wrote, as that namespace sees them.
// Internal to layer_changes.h.
#ifndef CAISSON_LIB_LAYER_ID_SHIFT_H_
#define CAISSON_LIB_LAYER_ID_SHIFT_H_

#include <string>

#include "absl/status/status.h"
#include "caisson/id_range.h"
#include "lib/layer/file_attributes.h"

namespace caisson::layer {

// Translates owner, group, access control lists and the root of capabilities
// from the host's ids to those inside. Empty maps change nothing. An owner
// without a mapping is FAILED_PRECONDITION; `path` names the file.
absl::Status ShiftIds(const IdMap& ids, const std::string& path,
                      FileAttributes& attributes);

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_ID_SHIFT_H_
