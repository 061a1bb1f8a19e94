#include "lib/layer/hard_links.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/layer/unpack_host.h"

namespace caisson::layer {

absl::StatusOr<bool> HardLinks::Exists(DirId parent, const std::string& name) {
  ASSIGN_OR_RETURN(const BorrowedFd fd, directory_.Fd(parent));
  struct stat status;
  if (::fstatat(fd.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0) {
    return true;
  }
  if (errno == ENOENT) return false;
  return directory_.Error(errno, "fstatat", parent, name);
}

absl::Status HardLinks::Link(DirId parent, const std::string& name,
                             absl::string_view target) {
  ASSIGN_OR_RETURN(const LayerName parsed, ParseLayerName(target, options_));
  if (parsed.components.empty()) {
    return absl::InvalidArgumentError("a hard link to the root directory");
  }
  ASSIGN_OR_RETURN(const bool linked, LinkInLayer(parent, name, parsed));
  if (linked) return absl::OkStatus();
  // Whatever an earlier entry made of the name is replaced by this one; what a
  // later entry makes of it stays.
  RETURN_IF_ERROR(directory_.Remove(parent, name));
  directory_.tree().Charge(3 * sizeof(Pending) + name.size() + target.size());
  RETURN_IF_ERROR(directory_.CheckMemory());
  pending_.push_back({parent, name, std::string(target)});
  return absl::OkStatus();
}

// False if the target is not there (yet).
absl::StatusOr<bool> HardLinks::LinkInLayer(DirId parent,
                                            const std::string& name,
                                            const LayerName& target) {
  const std::string base(target.base());
  for (int attempt = 0;; ++attempt) {
    ASSIGN_OR_RETURN(const std::optional<DirId> from,
                     directory_.Find(target.parent()));
    if (!from.has_value()) return false;
    if (*from == parent && base == name) return Exists(parent, name);
    ASSIGN_OR_RETURN(const int error, MakeLink(*from, base, parent, name));
    if (error == 0) return true;
    if (error == ENOENT) return false;
    if (error != EEXIST || attempt > 0) {
      return directory_.Error(
          error, "linkat", *from, base,
          error == EPERM ? "the target of a hard link must not be a directory"
                         : "");
    }
    RETURN_IF_ERROR(directory_.Remove(parent, name));
  }
}

// 0 or an errno.
absl::StatusOr<int> HardLinks::MakeLink(DirId from, const std::string& base,
                                        DirId to, const std::string& name) {
  ASSIGN_OR_RETURN(const BorrowedFd from_fd, directory_.Fd(from));
  ASSIGN_OR_RETURN(const BorrowedFd to_fd, directory_.Fd(to));
  // No AT_SYMLINK_FOLLOW: a link to a symbolic link is one to the link itself.
  int error = 0;
  if (::linkat(from_fd.get(), base.c_str(), to_fd.get(), name.c_str(), 0) !=
      0) {
    error = errno;
  }
  // Landlock: who may not make a device may not link one.
  if (error == EACCES && options_.host != nullptr) {
    const LayerTree& tree = directory_.tree();
    error =
        options_.host->LinkDevice(tree.Path(from, base), tree.Path(to, name));
  }
  if (error == 0) directory_.FileMade(to, name);
  return error;
}

absl::Status HardLinks::Finish(LowerLayers& lowers) {
  // Of several links of one name the last counts, as of other entries.
  std::map<std::pair<DirId, absl::string_view>, const Pending*> last;
  for (const Pending& link : pending_) last[{link.parent, link.name}] = &link;
  for (const Pending& link : pending_) {
    if (last.at({link.parent, link.name}) != &link) continue;
    // Replaced by a later entry, itself or a directory above it.
    if (!directory_.tree().IsAlive(link.parent)) continue;
    ASSIGN_OR_RETURN(const bool replaced, Exists(link.parent, link.name));
    if (replaced) continue;
    ASSIGN_OR_RETURN(const LayerName target,
                     ParseLayerName(link.target, options_));
    ASSIGN_OR_RETURN(const bool linked,
                     LinkInLayer(link.parent, link.name, target));
    if (linked) continue;
    const absl::Status status = LinkToLower(link, target, lowers);
    if (!status.ok()) {
      return Annotate(
          status,
          absl::StrCat("hard link ",
                       Quoted(directory_.tree().Path(link.parent, link.name)),
                       " to ", Quoted(link.target)));
    }
  }
  return absl::OkStatus();
}

absl::Status HardLinks::LinkToLower(const Pending& link,
                                    const LayerName& target,
                                    LowerLayers& lowers) {
  const std::string dir = absl::StrJoin(target.parent(), "/");
  const std::string base(target.base());
  ASSIGN_OR_RETURN(const std::optional<OverlayFile> file,
                   lowers.Find(dir, base));
  if (!file.has_value()) {
    return absl::NotFoundError(
        lowers.known()
            ? "the target is neither in this layer nor in a lower one"
            : "the target is not in this layer, and lower layers are not "
              "known");
  }
  if (S_ISDIR(file->status.st_mode)) {
    return absl::InvalidArgumentError("the target is a directory");
  }
  const Source source = {lowers, dir, base,
                         S_ISREG(file->status.st_mode)
                             ? static_cast<uint64_t>(file->status.st_size)
                             : 0};
  ASSIGN_OR_RETURN(const bool hidden, IsHidden(target));
  if (!hidden) {
    // As overlayfs does: the target itself is copied up, then linked.
    ASSIGN_OR_RETURN(const DirId parent,
                     directory_.ParentFor(target, FileAttributes()));
    RETURN_IF_ERROR(CopyTo(source, parent, base));
    return LinkInLayer(link.parent, link.name, target).status();
  }
  // The name of the target stays hidden; the first link takes its place.
  auto [copy, first] = copies_.try_emplace(
      absl::StrJoin(target.components, "/"), link.parent, link.name);
  if (first) return CopyTo(source, link.parent, link.name);
  const auto& [copy_dir, copy_name] = copy->second;
  ASSIGN_OR_RETURN(const int error,
                   MakeLink(copy_dir, copy_name, link.parent, link.name));
  if (error == 0) return absl::OkStatus();
  return directory_.Error(error, "linkat", link.parent, link.name);
}

// Whether this layer hides what lower layers have at `target`.
absl::StatusOr<bool> HardLinks::IsHidden(const LayerName& target) {
  LayerTree& tree = directory_.tree();
  DirId at = kRootDir;
  for (const absl::string_view name : target.components) {
    if (tree[at].opaque || tree.HasWhiteout(at, std::string(name))) return true;
    const std::optional<DirId> child = tree.Find(at, name);
    if (!child.has_value()) break;
    at = *child;
  }
  // A parent that this layer made something else than a directory, or a
  // symbolic link to another one.
  ASSIGN_OR_RETURN(const std::optional<DirId> parent,
                   directory_.Note(target.parent()));
  return !parent.has_value() ||
         tree.Path(*parent) != absl::StrJoin(target.parent(), "/");
}

absl::Status HardLinks::CopyTo(const Source& from, DirId parent,
                               const std::string& name) {
  if (from.size > options_.max_bytes - stats_.bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the files of the layer have more than ",
                     options_.max_bytes_name, " (", options_.max_bytes, ")"));
  }
  ASSIGN_OR_RETURN(const BorrowedFd fd, directory_.Fd(parent));
  RETURN_IF_ERROR(from.lowers.CopyUp(from.dir, from.name, fd, name,
                                     directory_.tree().Path(parent, name)));
  directory_.FileMade(parent, name);
  stats_.bytes += from.size;
  ++stats_.copied_up;
  return absl::OkStatus();
}

}  // namespace caisson::layer
