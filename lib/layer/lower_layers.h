// What the unpacker wants to know of the layers below: looked up by itself
// (OverlayView) or asked from somebody else (UnpackHost).
#ifndef CAISSON_LIB_LAYER_LOWER_LAYERS_H_
#define CAISSON_LIB_LAYER_LOWER_LAYERS_H_

#include <sys/stat.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "caisson/unique_fd.h"
#include "lib/layer/file_attributes.h"

namespace caisson::layer {

struct OverlayFile {
  BorrowedFd dir;  // of the layer that has it; valid until the next call
  std::string name;
  struct stat status;
};

// Thread-compatible.
class LowerLayers {
 public:
  virtual ~LowerLayers() = default;

  // Without, nothing is ever found.
  virtual bool known() const = 0;

  // The file `name` ("." for itself) in the directory `dir` ("" for the root);
  // nullopt if no layer has it or an upper one hides it. Of others than an
  // OverlayView, the status has only mode and size, and there is no `dir`.
  virtual absl::StatusOr<std::optional<OverlayFile>> Find(
      const std::string& dir, const std::string& name) = 0;

  // Everything in the directory `dir`, sorted by name; empty if there is no
  // such directory. Whiteouts are listed, too, if they are what a layer has of
  // a name. Of others than an OverlayView, there are only names.
  virtual absl::StatusOr<std::vector<OverlayFile>> List(
      const std::string& dir) = 0;

  // ReadAttributes() of what Find() finds.
  virtual absl::StatusOr<FileAttributes> Attributes(
      const std::string& dir, const std::string& name) = 0;

  // layer::CopyUp() of what Find() finds to `to_name` in `to`; `path` is where
  // that is in the layer.
  virtual absl::Status CopyUp(const std::string& dir, const std::string& name,
                              BorrowedFd to, const std::string& to_name,
                              const std::string& path) = 0;
};

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_LOWER_LAYERS_H_
