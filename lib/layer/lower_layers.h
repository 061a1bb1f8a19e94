// The layers below the one that is unpacked, seen as overlayfs would show them.
// Internal to unpack.h.
#ifndef CAISSON_LIB_LAYER_LOWER_LAYERS_H_
#define CAISSON_LIB_LAYER_LOWER_LAYERS_H_

#include <sys/stat.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "caisson/unique_fd.h"
#include "lib/layer/unpack.h"

namespace caisson::layer {

struct LowerFile {
  BorrowedFd dir;  // of the layer that has it; valid until the next call
  std::string name;
  struct stat status;
};

// Reads only, and follows no symbolic link. Keeps one descriptor for each layer
// that has the directory last asked for. Thread-compatible.
class LowerLayers final {
 public:
  // `roots` top first; nullopt if the layers are not known, then nothing is
  // ever found.
  LowerLayers(std::optional<absl::Span<const BorrowedFd>> roots,
              LayerFormat format)
      : roots_(roots), format_(format) {}

  bool known() const { return roots_.has_value(); }

  // The file `name` ("." for itself) in the directory `dir` ("" for the root);
  // nullopt if no layer has it or an upper one hides it.
  absl::StatusOr<std::optional<LowerFile>> Find(const std::string& dir,
                                                const std::string& name);

  // Every name in any of the roots.
  absl::StatusOr<std::vector<std::string>> RootNames() const;

 private:
  absl::Status Enter(const std::string& dir);
  absl::StatusOr<std::vector<UniqueFd>> OpenLevel(
      const std::vector<UniqueFd>& stack, const std::string& name) const;
  absl::StatusOr<std::vector<UniqueFd>> OpenRoots() const;

  std::optional<absl::Span<const BorrowedFd>> roots_;
  LayerFormat format_;
  std::optional<std::string> entered_;
  std::vector<UniqueFd> stack_;  // directories that merge into `entered_`
};

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_LOWER_LAYERS_H_
