// Hard links of a layer, also to files that come later in the tar or are in a
// lower layer only. Internal to unpack.h.
#ifndef CAISSON_LIB_LAYER_HARD_LINKS_H_
#define CAISSON_LIB_LAYER_HARD_LINKS_H_

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lib/layer/layer_directory.h"
#include "lib/layer/lower_layers.h"
#include "lib/layer/unpack.h"

namespace caisson::layer {

// Thread-compatible; all arguments must outlive it.
class HardLinks final {
 public:
  HardLinks(LayerDirectory& directory, const UnpackOptions& options,
            UnpackStats& stats)
      : directory_(directory), options_(options), stats_(stats) {}

  // Makes the entry `name` in `parent` a link to `target`, now or in Finish.
  absl::Status Link(DirId parent, const std::string& name,
                    absl::string_view target);

  // Makes the links whose targets were missing; call it after the last entry.
  absl::Status Finish(LowerLayers& lowers);

 private:
  struct Pending {
    DirId parent;
    std::string name;
    std::string target;
  };

  absl::StatusOr<bool> LinkInLayer(DirId parent, const std::string& name,
                                   const LayerName& target);
  absl::StatusOr<int> MakeLink(DirId from, const std::string& base, DirId to,
                               const std::string& name);
  absl::Status LinkToLower(const Pending& link, const LayerName& target,
                           LowerLayers& lowers);
  absl::StatusOr<bool> IsHidden(const LayerName& target);
  struct Source {  // a file of a lower layer
    LowerLayers& lowers;
    std::string dir;
    std::string name;
    uint64_t size;
  };
  absl::Status CopyTo(const Source& from, DirId parent,
                      const std::string& name);
  absl::StatusOr<bool> Exists(DirId parent, const std::string& name);

  LayerDirectory& directory_;
  const UnpackOptions& options_;
  UnpackStats& stats_;
  std::vector<Pending> pending_;
  // Where hidden files of lower layers have been copied to, by their path.
  std::map<std::string, std::pair<DirId, std::string>> copies_;
};

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_HARD_LINKS_H_
