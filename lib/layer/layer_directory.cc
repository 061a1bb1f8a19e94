#include "lib/layer/layer_directory.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/limits.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <deque>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/sys/directory.h"
#include "lib/sys/open.h"
#include "lib/sys/remove_tree.h"

namespace caisson::layer {
namespace {

constexpr uint64_t kHere = sys::kNoSymlinks | RESOLVE_NO_XDEV;
constexpr char kDefaultAcl[] = "system.posix_acl_default";
// MAXSYMLINKS of the kernel.
constexpr int kMaxSymlinks = 40;

absl::Status TooLong(absl::string_view option, size_t limit) {
  return absl::ResourceExhaustedError(
      absl::StrCat("the path has more than ", option, " (", limit, ")"));
}

}  // namespace

absl::StatusOr<LayerName> ParseLayerName(absl::string_view text,
                                         const UnpackOptions& options) {
  LayerName name;
  size_t size = 0;
  for (const absl::string_view component : absl::StrSplit(text, '/')) {
    if (component.empty() || component == ".") continue;
    if (component == "..") {
      return absl::InvalidArgumentError(
          absl::StrCat("the path ", Quoted(text), " contains \"..\""));
    }
    if (component.size() > NAME_MAX) {
      return TooLong("NAME_MAX bytes in a component", NAME_MAX);
    }
    name.components.push_back(component);
    size += component.size() + 1;
  }
  if (size > options.max_path_bytes + 1) {
    return TooLong("max_path_bytes", options.max_path_bytes);
  }
  if (name.components.size() > options.max_path_depth) {
    return TooLong("max_path_depth", options.max_path_depth);
  }
  if (!name.components.empty()) {
    name.parent_text =
        text.substr(0, static_cast<size_t>(name.base().data() - text.data()));
  }
  return name;
}

// A path being resolved: where it has come to and what is left of it.
struct LayerDirectory::Walk {
  std::vector<absl::string_view> pending;  // last component first
  std::deque<std::string> targets;         // text of the links followed
  std::optional<DirId> at = kRootDir;  // nullopt: there is no such directory
  const FileAttributes* entry_attributes = nullptr;
};

absl::StatusOr<std::unique_ptr<LayerDirectory>> LayerDirectory::Open(
    BorrowedFd dir, const UnpackOptions& options) {
  ASSIGN_OR_RETURN(UniqueFd root,
                   sys::OpenAt2(dir, ".", O_RDONLY | O_DIRECTORY, kHere));
  if (options.format != LayerFormat::kPlain) {
    ASSIGN_OR_RETURN(const std::vector<std::string> names,
                     sys::ListDirectory(root.borrow()));
    if (!names.empty()) {
      return absl::FailedPreconditionError(
          absl::StrCat("the directory to unpack into is not empty: it has ",
                       Quoted(names[0])));
    }
  }
  auto directory = std::unique_ptr<LayerDirectory>(
      new LayerDirectory(std::move(root), options));
  // For the overlay formats, too: all of it is written anew at the end.
  RETURN_IF_ERROR(directory->SaveForeign(kRootDir, directory->root_.borrow()));
  return directory;
}

absl::Status LayerDirectory::Error(int error, absl::string_view call,
                                   DirId parent, absl::string_view name,
                                   absl::string_view hint) const {
  const std::string path = tree_.Path(parent, name);
  return ErrnoError(error, absl::StrCat(call, "(", Quoted(path), ")"),
                    {.step = "layer.unpack", .path = path, .hint = hint});
}

absl::Status LayerDirectory::CheckMemory() const {
  if (tree_.memory() <= options_.max_layer_memory) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("the directories and whiteouts of the layer need more than "
                   "max_layer_memory (",
                   options_.max_layer_memory, ")"));
}

// ---- descriptors ----

BorrowedFd LayerDirectory::CachedFdOf(DirId id) {
  if (id == kRootDir) return root_.borrow();
  for (CachedFd& cached : fds_) {
    if (cached.id == id && cached.fd.valid()) {
      cached.used = ++clock_;
      return cached.fd.borrow();
    }
  }
  return BorrowedFd();
}

absl::StatusOr<BorrowedFd> LayerDirectory::Fd(DirId id) {
  const BorrowedFd cached = CachedFdOf(id);
  if (cached.valid()) return cached;
  const LayerDir& dir = tree_[id];
  const BorrowedFd parent = CachedFdOf(dir.parent);
  absl::StatusOr<UniqueFd> fd =
      parent.valid()
          ? sys::OpenAt2(parent, dir.name, O_PATH | O_DIRECTORY, kHere)
          : sys::OpenAt2(root_.borrow(), tree_.Path(id), O_PATH | O_DIRECTORY,
                         kHere);
  RETURN_IF_ERROR(fd.status());
  CachedFd& oldest = *std::min_element(
      fds_.begin(), fds_.end(),
      [](const CachedFd& a, const CachedFd& b) { return a.used < b.used; });
  oldest.id = id;
  oldest.used = ++clock_;
  oldest.fd = *std::move(fd);
  return oldest.fd.borrow();
}

// ---- look-up ----

absl::StatusOr<DirId> LayerDirectory::ParentFor(
    const LayerName& name, const FileAttributes& entry_attributes) {
  if (last_parent_.has_value() && name.parent_text == last_parent_text_) {
    return *last_parent_;
  }
  ASSIGN_OR_RETURN(const std::optional<DirId> parent,
                   Resolve(name.parent(), Purpose::kCreate, &entry_attributes));
  last_parent_text_ = std::string(name.parent_text);
  last_parent_ = parent;
  return *parent;
}

absl::StatusOr<std::optional<DirId>> LayerDirectory::Note(
    absl::Span<const absl::string_view> components) {
  return Resolve(components, Purpose::kNote, nullptr);
}

absl::StatusOr<std::optional<DirId>> LayerDirectory::Find(
    absl::Span<const absl::string_view> components) {
  return Resolve(components, Purpose::kFind, nullptr);
}

absl::StatusOr<std::optional<DirId>> LayerDirectory::Resolve(
    absl::Span<const absl::string_view> components, Purpose purpose,
    const FileAttributes* entry_attributes) {
  Walk walk;
  walk.entry_attributes = entry_attributes;
  walk.pending.assign(components.rbegin(), components.rend());
  while (walk.at.has_value() && !walk.pending.empty()) {
    const absl::string_view name = walk.pending.back();
    walk.pending.pop_back();
    if (name == "..") {  // of a link target; "/.." is "/"
      walk.at = tree_[*walk.at].parent;
    } else {
      RETURN_IF_ERROR(Step(name, purpose, walk));
    }
  }
  if (!walk.at.has_value() && purpose == Purpose::kCreate) {
    return absl::InternalError("a parent directory was not made");
  }
  return walk.at;
}

// Goes to the directory `name` in walk.at.
absl::Status LayerDirectory::Step(absl::string_view name, Purpose purpose,
                                  Walk& walk) {
  const DirId parent = *walk.at;
  std::optional<DirId> child = tree_.Find(parent, name);
  Kind kind = Kind::kMissing;
  const std::string base(name);
  if (!child.has_value() && tree_[parent].on_disk) {
    std::string target;
    ASSIGN_OR_RETURN(kind, Probe(parent, base, target));
    const bool own =
        options_.format != LayerFormat::kPlain || tree_.HasFile(parent, base);
    if (kind == Kind::kSymlink && own) {
      return FollowSymlink(std::move(target), walk);
    }
    if (kind == Kind::kDirectory) {
      ASSIGN_OR_RETURN(child, Adopt(parent, base));
    }
  }
  // "missing/.." in a link target: neither is there anything to leave, nor is
  // it to be made.
  if (!child.has_value() && !walk.pending.empty() &&
      walk.pending.back() == "..") {
    walk.pending.pop_back();
    return absl::OkStatus();
  }
  switch (purpose) {
    case Purpose::kFind:
      walk.at =
          child.has_value() && tree_[*child].on_disk ? child : std::nullopt;
      return absl::OkStatus();
    case Purpose::kNote:
      if (!child.has_value() && kind == Kind::kMissing) {
        ASSIGN_OR_RETURN(child, AddChecked(parent, base));
      }
      walk.at = child;
      return absl::OkStatus();
    case Purpose::kCreate:
      break;
  }
  if (!child.has_value()) {
    if (kind != Kind::kMissing) RETURN_IF_ERROR(RemoveFile(parent, base));
    ASSIGN_OR_RETURN(child, AddChecked(parent, base));
  }
  LayerDir& dir = tree_[*child];
  if (!dir.on_disk) RETURN_IF_ERROR(MakeOnDisk(*child));
  if (!dir.in_layer) {
    dir.attributes.mtime_sec = walk.entry_attributes->mtime_sec;
    dir.attributes.mtime_nsec = walk.entry_attributes->mtime_nsec;
  }
  dir.in_layer = true;
  walk.at = child;
  return absl::OkStatus();
}

// What `name` is on disk; for links also the target.
absl::StatusOr<LayerDirectory::Kind> LayerDirectory::Probe(
    DirId parent, const std::string& name, std::string& target) {
  ASSIGN_OR_RETURN(const BorrowedFd dir, Fd(parent));
  char buffer[PATH_MAX];
  const ssize_t size =
      ::readlinkat(dir.get(), name.c_str(), buffer, sizeof(buffer));
  if (size >= 0) {
    target.assign(buffer, static_cast<size_t>(size));
    return Kind::kSymlink;
  }
  if (errno == ENOENT) return Kind::kMissing;
  if (errno != EINVAL) return Error(errno, "readlinkat", parent, name);
  struct stat status;
  if (::fstatat(dir.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
    return Error(errno, "fstatat", parent, name);
  }
  return S_ISDIR(status.st_mode) ? Kind::kDirectory : Kind::kOther;
}

absl::Status LayerDirectory::FollowSymlink(std::string target, Walk& walk) {
  if (walk.targets.size() >= kMaxSymlinks) {
    return absl::InvalidArgumentError(absl::StrCat(
        "more than ", kMaxSymlinks, " symbolic links in the path, the last to ",
        Quoted(target)));
  }
  if (target.size() > options_.max_path_bytes) {
    return TooLong("max_path_bytes", options_.max_path_bytes);
  }
  walk.targets.push_back(std::move(target));
  const std::string& text = walk.targets.back();
  if (!text.empty() && text[0] == '/') walk.at = kRootDir;
  std::vector<absl::string_view> components =
      absl::StrSplit(text, '/', absl::SkipEmpty());
  for (auto it = components.rbegin(); it != components.rend(); ++it) {
    if (*it != ".") walk.pending.push_back(*it);
  }
  return absl::OkStatus();
}

// ---- changes ----

absl::StatusOr<DirId> LayerDirectory::AddChecked(DirId parent,
                                                 absl::string_view name) {
  if (tree_[parent].path_size + name.size() + 1 > options_.max_path_bytes + 1) {
    return TooLong("max_path_bytes", options_.max_path_bytes);
  }
  if (tree_[parent].depth >= options_.max_path_depth) {
    return TooLong("max_path_depth", options_.max_path_depth);
  }
  const DirId id = tree_.Add(parent, name);
  RETURN_IF_ERROR(CheckMemory());
  return id;
}

// Remembers what this layer is going to disturb in a directory that was there
// before: its time changes with every file made in it, and its default access
// control list, which all of them would inherit, is taken off meanwhile.
absl::Status LayerDirectory::SaveForeign(DirId id, BorrowedFd fd) {
  LayerDir& dir = tree_[id];
  struct stat status;
  if (::fstat(fd.get(), &status) != 0) {
    return Error(errno, "fstat", dir.parent, dir.name);
  }
  dir.before = std::make_unique<FileAttributes>();
  dir.before->mtime_sec = status.st_mtim.tv_sec;
  dir.before->mtime_nsec = static_cast<int32_t>(status.st_mtim.tv_nsec);
  char value[XATTR_SIZE_MAX];
  const ssize_t size = ::fgetxattr(fd.get(), kDefaultAcl, value, sizeof(value));
  if (size < 0) {
    if (errno == ENODATA || errno == ENOTSUP) return absl::OkStatus();
    return Error(errno, "fgetxattr", dir.parent, dir.name);
  }
  dir.before->xattrs.emplace_back(
      kDefaultAcl, std::string(value, static_cast<size_t>(size)));
  if (::fremovexattr(fd.get(), kDefaultAcl) != 0) {
    return Error(errno, "fremovexattr", dir.parent, dir.name);
  }
  return absl::OkStatus();
}

// Takes a directory of a lower layer into the tree (kPlain).
absl::StatusOr<DirId> LayerDirectory::Adopt(DirId parent,
                                            const std::string& name) {
  ASSIGN_OR_RETURN(const BorrowedFd fd, Fd(parent));
  ASSIGN_OR_RETURN(const UniqueFd dir,
                   sys::OpenAt2(fd, name, O_RDONLY | O_DIRECTORY, kHere));
  ASSIGN_OR_RETURN(const DirId id, AddChecked(parent, name));
  tree_[id].on_disk = true;
  RETURN_IF_ERROR(SaveForeign(id, dir.borrow()));
  return id;
}

absl::Status LayerDirectory::MakeOnDisk(DirId id) {
  LayerDir& dir = tree_[id];
  ASSIGN_OR_RETURN(const BorrowedFd fd, Fd(dir.parent));
  if (::mkdirat(fd.get(), dir.name.c_str(), 0700) != 0) {
    return Error(errno, "mkdirat", dir.parent, dir.name);
  }
  dir.on_disk = true;
  return absl::OkStatus();
}

absl::StatusOr<DirId> LayerDirectory::MakeDirectory(DirId parent,
                                                    absl::string_view name) {
  const std::string base(name);
  std::optional<DirId> id = tree_.Find(parent, base);
  if (!id.has_value()) {
    ASSIGN_OR_RETURN(const BorrowedFd fd, Fd(parent));
    if (::mkdirat(fd.get(), base.c_str(), 0700) == 0) {
      ASSIGN_OR_RETURN(id, AddChecked(parent, base));
      tree_[*id].on_disk = true;
    } else if (errno != EEXIST) {
      return Error(errno, "mkdirat", parent, base);
    } else {
      std::string target;
      ASSIGN_OR_RETURN(const Kind kind, Probe(parent, base, target));
      if (kind == Kind::kDirectory) {
        ASSIGN_OR_RETURN(id, Adopt(parent, base));
      } else {
        RETURN_IF_ERROR(RemoveFile(parent, base));
        ASSIGN_OR_RETURN(id, AddChecked(parent, base));
      }
    }
  }
  if (!tree_[*id].on_disk) RETURN_IF_ERROR(MakeOnDisk(*id));
  tree_[*id].in_layer = true;
  return *id;
}

absl::StatusOr<bool> LayerDirectory::Materialize(DirId id) {
  std::vector<DirId> missing;
  for (DirId at = id; !tree_[at].on_disk; at = tree_[at].parent) {
    missing.push_back(at);
  }
  for (auto it = missing.rbegin(); it != missing.rend(); ++it) {
    const LayerDir& dir = tree_[*it];
    std::string target;
    ASSIGN_OR_RETURN(const Kind kind, Probe(dir.parent, dir.name, target));
    if (kind != Kind::kMissing) return false;
    RETURN_IF_ERROR(MakeOnDisk(*it));
  }
  for (DirId at = id; !tree_[at].in_layer; at = tree_[at].parent) {
    tree_[at].in_layer = true;
  }
  return true;
}

absl::Status LayerDirectory::Remove(DirId parent, const std::string& name) {
  // What this path led through may be gone.
  last_parent_.reset();
  ASSIGN_OR_RETURN(const BorrowedFd dir, Fd(parent));
  struct stat found;
  if (::fstatat(dir.get(), name.c_str(), &found, AT_SYMLINK_NOFOLLOW) == 0) {
    replaced_ = true;
  }
  const absl::Status status = sys::RemoveTree(dir, name);
  if (!status.ok()) {
    return Annotate(
        status, absl::StrCat("replacing ", Quoted(tree_.Path(parent, name))));
  }
  const std::optional<DirId> id = tree_.Find(parent, name);
  if (id.has_value()) tree_.Retire(*id);
  return absl::OkStatus();
}

// Whether something on disk that is no directory of the tree is of this layer.
bool LayerDirectory::IsOwn(DirId parent, const std::string& name) const {
  return options_.format != LayerFormat::kPlain || tree_.HasFile(parent, name);
}

// Makes room for a directory. A file of this layer has hidden what lower layers
// have under the name, and a directory in its place must go on doing so.
absl::Status LayerDirectory::RemoveFile(DirId parent, const std::string& name) {
  if (IsOwn(parent, name)) tree_.AddWhiteout(parent, name);
  return Remove(parent, name);
}

void LayerDirectory::FileMade(DirId parent, absl::string_view name) {
  // A directory that is only noted, for whiteouts in it: they have no place
  // now.
  const std::optional<DirId> noted = tree_.Find(parent, name);
  if (noted.has_value()) tree_.Retire(*noted);
  if (options_.format == LayerFormat::kPlain) tree_.AddFile(parent, name);
}

}  // namespace caisson::layer
