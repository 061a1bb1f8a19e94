#include <errno.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/layer/layer_finish.h"
#include "lib/layer/unpack_host.h"
#include "lib/sys/directory.h"
#include "lib/sys/remove_tree.h"

namespace caisson::layer {
namespace {

// ---- overlay formats ----

class OverlayWhiteouts final {
 public:
  OverlayWhiteouts(LayerDirectory& directory, LowerLayers& lowers,
                   UnpackHost* host, UnpackStats& stats)
      : directory_(directory),
        tree_(directory.tree()),
        lowers_(lowers),
        host_(host),
        stats_(stats) {}

  absl::Status Apply(absl::FunctionRef<absl::Status()> report) {
    RETURN_IF_ERROR(ExpandOpaqueRoot());
    RETURN_IF_ERROR(MakeOpaqueDirectories());
    FindHidden();
    size_t steps = 0;
    for (const auto& [dir, name] : tree_.whiteouts()) {
      if (++steps % kReportSteps == 0) RETURN_IF_ERROR(report());
      RETURN_IF_ERROR(Write(dir, name));
    }
    return absl::OkStatus();
  }

 private:
  // overlayfs takes no notice of an opaque mark at the root of a layer.
  absl::Status ExpandOpaqueRoot() {
    if (!tree_[kRootDir].opaque) return absl::OkStatus();
    if (!lowers_.known()) {
      return absl::FailedPreconditionError(
          "the layer makes the root opaque, which can only be stored as "
          "whiteouts of what the lower layers have; they are not known");
    }
    tree_[kRootDir].opaque = false;
    ASSIGN_OR_RETURN(const std::vector<OverlayFile> files, lowers_.List(""));
    for (const OverlayFile& file : files) {
      tree_.AddWhiteout(kRootDir, file.name);
    }
    return directory_.CheckMemory();
  }

  // A marker inside a directory says that the directory is there.
  absl::Status MakeOpaqueDirectories() {
    for (DirId id = 0; id < tree_.size(); ++id) {
      if (!tree_[id].opaque) continue;
      if (!tree_.IsAlive(id)) continue;
      ASSIGN_OR_RETURN(tree_[id].opaque, directory_.Materialize(id));
      stats_.whiteouts += tree_[id].opaque ? 1 : 0;
    }
    return absl::OkStatus();
  }

  // hidden_[id]: nothing that lower layers have in the directory is visible, so
  // whiteouts there have nothing to hide but would be listed.
  void FindHidden() {
    hidden_.assign(tree_.size(), false);
    for (DirId id = 1; id < tree_.size(); ++id) {
      const LayerDir& dir = tree_[id];
      hidden_[id] = hidden_[dir.parent] || dir.opaque ||
                    tree_.HasWhiteout(dir.parent, dir.name);
    }
  }

  absl::Status Write(DirId dir, const std::string& name) {
    if (hidden_[dir] || !tree_.IsAlive(dir)) return absl::OkStatus();
    if (lowers_.known()) {
      ASSIGN_OR_RETURN(const std::optional<OverlayFile> file,
                       lowers_.Find(tree_.Path(dir), name));
      if (!file.has_value()) return absl::OkStatus();
    }
    const std::optional<DirId> child = tree_.Find(dir, name);
    if (child.has_value() && tree_[*child].in_layer) {
      stats_.whiteouts += tree_[*child].opaque ? 0 : 1;
      tree_[*child].opaque = true;
      return absl::OkStatus();
    }
    ASSIGN_OR_RETURN(const bool made, directory_.Materialize(dir));
    if (!made) return absl::OkStatus();
    ASSIGN_OR_RETURN(const int error, MakeWhiteout(dir, name));
    if (error == 0) {
      ++stats_.whiteouts;
      return absl::OkStatus();
    }
    // A file of this layer hides by itself.
    if (error == EEXIST) return absl::OkStatus();
    return directory_.Error(
        error, "mknodat", dir, name,
        error == EPERM ? "a whiteout is a character device 0:0" : "");
  }

  // 0 or an errno.
  absl::StatusOr<int> MakeWhiteout(DirId dir, const std::string& name) {
    if (host_ != nullptr) {
      return host_->MakeDevice(tree_.Path(dir, name), S_IFCHR, makedev(0, 0));
    }
    ASSIGN_OR_RETURN(const BorrowedFd fd, directory_.Fd(dir));
    const int result =
        ::mknodat(fd.get(), name.c_str(), S_IFCHR, makedev(0, 0));
    return result == 0 ? 0 : errno;
  }

  LayerDirectory& directory_;
  LayerTree& tree_;
  LowerLayers& lowers_;
  UnpackHost* const host_;
  UnpackStats& stats_;
  std::vector<bool> hidden_;
};

// ---- kPlain ----

class PlainWhiteouts final {
 public:
  PlainWhiteouts(LayerDirectory& directory, UnpackStats& stats)
      : directory_(directory), tree_(directory.tree()), stats_(stats) {}

  absl::Status Apply(absl::FunctionRef<absl::Status()> report) {
    // All marked directories first: one may be inside another.
    for (DirId id = 0; id < tree_.size(); ++id) {
      if (!tree_[id].opaque || !tree_.IsAlive(id)) continue;
      ASSIGN_OR_RETURN(tree_[id].opaque, directory_.Materialize(id));
    }
    for (DirId id = 0; id < tree_.size(); ++id) {
      if (tree_[id].opaque && tree_.IsAlive(id)) RETURN_IF_ERROR(Prune(id));
    }
    size_t steps = 0;
    for (const auto& [dir, name] : tree_.whiteouts()) {
      if (++steps % kReportSteps == 0) RETURN_IF_ERROR(report());
      if (tree_.IsAlive(dir) && tree_[dir].on_disk) {
        RETURN_IF_ERROR(Hide(dir, name));
      }
    }
    return absl::OkStatus();
  }

 private:
  absl::Status Hide(DirId dir, const std::string& name) {
    const std::optional<DirId> child = tree_.Find(dir, name);
    if (child.has_value() && tree_[*child].in_layer) return Prune(*child);
    return RemoveForeign(dir, name);
  }

  absl::Status RemoveForeign(DirId dir, const std::string& name) {
    if (tree_.HasFile(dir, name)) return absl::OkStatus();
    ++stats_.whiteouts;
    return directory_.Remove(dir, name);
  }

  // Removes what this layer has not brought from a directory that it has.
  absl::Status Prune(DirId id) {
    std::vector<DirId> pending = {id};
    while (!pending.empty()) {
      const DirId at = pending.back();
      pending.pop_back();
      ASSIGN_OR_RETURN(const BorrowedFd fd, directory_.Fd(at));
      ASSIGN_OR_RETURN(const std::vector<std::string> names,
                       sys::ListDirectory(fd));
      for (const std::string& name : names) {
        const std::optional<DirId> child = tree_.Find(at, name);
        if (child.has_value() && tree_[*child].in_layer) {
          pending.push_back(*child);
        } else {
          RETURN_IF_ERROR(RemoveForeign(at, name));
        }
      }
    }
    return absl::OkStatus();
  }

  LayerDirectory& directory_;
  LayerTree& tree_;
  UnpackStats& stats_;
};

}  // namespace

absl::Status ApplyWhiteouts(LayerDirectory& directory, LowerLayers& lowers,
                            const UnpackOptions& options, UnpackStats& stats,
                            absl::FunctionRef<absl::Status()> report) {
  if (options.format == LayerFormat::kPlain) {
    return PlainWhiteouts(directory, stats).Apply(report);
  }
  return OverlayWhiteouts(directory, lowers, options.host, stats).Apply(report);
}

}  // namespace caisson::layer
