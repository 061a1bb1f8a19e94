#include "lib/layer/layer_finish.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/layer/file_attributes.h"
#include "lib/layer/unpack_host.h"
#include "lib/sys/open.h"
#include "lib/sys/xattr.h"

namespace caisson::layer {
namespace {

constexpr uint64_t kHere = sys::kNoSymlinks | RESOLVE_NO_XDEV;

class DirectoryFinisher final {
 public:
  DirectoryFinisher(LayerDirectory& directory, LowerLayers& lowers,
                    const UnpackOptions& options, UnpackStats& stats)
      : directory_(directory),
        tree_(directory.tree()),
        lowers_(lowers),
        options_(options),
        stats_(stats),
        plain_(options.format == LayerFormat::kPlain) {}

  absl::Status Run(absl::FunctionRef<absl::Status()> report) {
    FindReplaced();
    // Children first: nobody can lock himself out of a directory.
    for (DirId id = tree_.size(); id-- > 0;) {
      if ((id + 1) % kReportSteps == 0) RETURN_IF_ERROR(report());
      if (alive_[id] && tree_[id].on_disk) RETURN_IF_ERROR(Finish(id));
    }
    return absl::OkStatus();
  }

 private:
  // replaced_[id]: what lower layers have of this name is hidden, so nothing of
  // it must show through.
  void FindReplaced() {
    alive_.assign(tree_.size(), true);
    replaced_.assign(tree_.size(), false);
    for (DirId id = 1; id < tree_.size(); ++id) {
      const LayerDir& dir = tree_[id];
      const DirId parent = dir.parent;
      alive_[id] = dir.alive && alive_[parent];
      replaced_[id] = replaced_[parent] || tree_[parent].opaque ||
                      tree_.HasWhiteout(parent, dir.name);
    }
  }

  absl::Status Finish(DirId id) {
    LayerDir& dir = tree_[id];
    const std::string path = id == kRootDir ? "." : tree_.Path(id);
    ASSIGN_OR_RETURN(UniqueFd fd, sys::OpenAt2(directory_.root(), path,
                                               O_RDONLY | O_DIRECTORY, kHere));
    if (dir.before != nullptr && plain_ && !dir.has_entry && !replaced_[id]) {
      return Restore(fd.borrow(), *dir.before, path);
    }
    if (dir.before != nullptr) {
      RETURN_IF_ERROR(options_.host != nullptr
                          ? options_.host->ClearXattrs(path)
                          : ClearXattrs(fd.borrow(), path, options_.format));
    }
    if (!dir.has_entry) RETURN_IF_ERROR(SetImpliedAttributes(id));
    if (options_.owner.has_value()) {
      SetOwner(*options_.owner, /*directory=*/true, dir.attributes);
    }
    if (dir.opaque && !plain_) RETURN_IF_ERROR(MakeOpaque(fd.borrow(), path));
    return WriteAttributes(fd.borrow(), dir.attributes, path,
                           stats_.skipped_xattrs, options_.host);
  }

  // An attribute that may be missing elsewhere must not be here.
  absl::Status MakeOpaque(BorrowedFd fd, const std::string& path) {
    const std::string key =
        absl::StrCat(OverlayXattrPrefix(options_.format), "opaque");
    const int error = SetXattr(fd, path, key, "y", options_.host);
    if (error == 0) return absl::OkStatus();
    const bool refused = error == EPERM || error == ENOTSUP;
    const absl::string_view hint =
        options_.format == LayerFormat::kOverlayTrusted
            ? "it needs CAP_SYS_ADMIN in the initial user namespace; without, "
              "use kOverlayUser"
            : "the file system has no user attributes";
    return ErrnoError(
        refused ? EPERM : error,
        absl::StrCat("setxattr(", Quoted(path), ", ", Quoted(key), ")"),
        {.step = "layer.unpack", .path = path, .hint = refused ? hint : ""});
  }

  // Of a directory without an entry: as in the lower layers, else the defaults
  // with the time of the entry that it was made for.
  absl::Status SetImpliedAttributes(DirId id) {
    LayerDir& dir = tree_[id];
    if (plain_ || replaced_[id]) return absl::OkStatus();
    const std::string parent = id == kRootDir ? "" : tree_.Path(dir.parent);
    const std::string name = id == kRootDir ? "." : dir.name;
    ASSIGN_OR_RETURN(const std::optional<OverlayFile> lower,
                     lowers_.Find(parent, name));
    if (!lower.has_value() || !S_ISDIR(lower->status.st_mode)) {
      return absl::OkStatus();
    }
    ASSIGN_OR_RETURN(dir.attributes, lowers_.Attributes(parent, name));
    return absl::OkStatus();
  }

  // Puts back what LayerDirectory has saved of a directory of a lower layer.
  absl::Status Restore(BorrowedFd fd, const FileAttributes& before,
                       const std::string& path) {
    for (const auto& [key, value] : before.xattrs) {
      if (::fsetxattr(fd.get(), key.c_str(), value.data(), value.size(), 0) !=
          0) {
        return ErrnoError(
            errno, absl::StrCat("setxattr(", Quoted(path), ", ", key, ")"),
            {.step = "layer.unpack", .path = path});
      }
    }
    const timespec times[2] = {{0, UTIME_OMIT},
                               {before.mtime_sec, before.mtime_nsec}};
    if (::futimens(fd.get(), times) != 0) {
      return ErrnoError(errno, absl::StrCat("futimens(", Quoted(path), ")"),
                        {.step = "layer.unpack", .path = path});
    }
    return absl::OkStatus();
  }

  LayerDirectory& directory_;
  LayerTree& tree_;
  LowerLayers& lowers_;
  const UnpackOptions& options_;
  UnpackStats& stats_;
  const bool plain_;
  std::vector<bool> alive_;
  std::vector<bool> replaced_;
};

}  // namespace

absl::Status ClearXattrs(BorrowedFd fd, const std::string& path,
                         LayerFormat format) {
  ASSIGN_OR_RETURN(const std::vector<sys::Xattr> xattrs,
                   sys::ReadXattrs(fd, path));
  for (const auto& [key, value] : xattrs) {
    if (!XattrKeyOnDisk(key, format).has_value()) continue;
    if (::fremovexattr(fd.get(), key.c_str()) != 0 && errno != ENODATA &&
        errno != EPERM) {
      return ErrnoError(
          errno, absl::StrCat("removexattr(", Quoted(path), ", ", key, ")"),
          {.step = "layer.unpack", .path = path});
    }
  }
  return absl::OkStatus();
}

absl::Status FinishDirectories(LayerDirectory& directory, LowerLayers& lowers,
                               const UnpackOptions& options, UnpackStats& stats,
                               absl::FunctionRef<absl::Status()> report) {
  return DirectoryFinisher(directory, lowers, options, stats).Run(report);
}

}  // namespace caisson::layer
