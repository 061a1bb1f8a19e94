#include "caisson/tree_copy.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/layer/byte_source.h"
#include "lib/layer/decompress.h"
#include "lib/layer/file_attributes.h"
#include "lib/layer/layer_tar.h"
#include "lib/layer/tar_data.h"
#include "lib/layer/tar_reader.h"
#include "lib/sys/file_size.h"
#include "lib/sys/open.h"
#include "lib/sys/pidfd.h"

namespace caisson {
namespace {

using layer::FileAttributes;
using layer::LayerFormat;
using layer::LayerTarOptions;
using layer::TarEntry;
using layer::TarType;

absl::Status CopyError(absl::string_view call, const std::string& path,
                       absl::string_view hint = {}) {
  return ErrnoError(errno, absl::StrCat(call, "(", Quoted(path), ")"),
                    {.step = "tree_copy", .path = path, .hint = hint});
}

absl::StatusOr<UniqueFd> OpenDirectoryInRoot(BorrowedFd root,
                                             const std::string& path) {
  return sys::OpenAt2(root, path.empty() ? "." : path, O_PATH | O_DIRECTORY,
                      sys::kInRoot);
}

absl::Status CheckName(const std::string& name) {
  if (!absl::StrContains(name, '/') && name != "." && name != "..") {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "TreeCopyOptions::name: ", Quoted(name), ", expected a single name"));
}

// ---- out ----

// A path of which a tar is made: the directory that is read, which name of it,
// none for all of it, and what this is called in the tar.
struct Source {
  UniqueFd dir;
  std::string only;
  std::string name;
};

absl::StatusOr<Source> OpenSource(BorrowedFd root, absl::string_view path,
                                  const TreeCopyOptions& options) {
  RETURN_IF_ERROR(CheckName(options.name));
  const size_t slash = path.rfind('/');
  const bool has_parent = slash != absl::string_view::npos;
  std::string only(has_parent ? path.substr(slash + 1) : path);
  std::string parent(has_parent ? path.substr(0, slash + 1) : "");
  if (only == "." || only == "..") {
    absl::StrAppend(&parent, only);
    only.clear();
  }
  ASSIGN_OR_RETURN(UniqueFd dir, OpenDirectoryInRoot(root, parent));
  if (only.empty()) return Source{.dir = std::move(dir)};
  // A directory is entered here: below it, mounts are not.
  UniqueFd inner(sys::OpenAt2Raw(dir.get(), only.c_str(),
                                 O_PATH | O_DIRECTORY | O_NOFOLLOW,
                                 sys::kNoSymlinks));
  if (!inner.valid()) {
    return Source{std::move(dir), std::move(only), options.name};
  }
  return Source{.dir = std::move(inner),
                .name = options.name.empty() ? only : options.name};
}

LayerTarOptions TarOptions(const Source& source,
                           const TreeCopyOptions& options) {
  return {.changes = {.tops = {source.dir.borrow()},
                      .format = LayerFormat::kPlain,
                      .max_entries = options.max_entries,
                      .all = true,
                      .only = source.only},
          .plain = true,
          .name = source.name,
          .max_bytes = options.max_bytes};
}

// ---- in ----

class TreeWriter final {
 public:
  TreeWriter(layer::ByteSource& tar, BorrowedFd root,
             absl::string_view directory, const TreeCopyOptions& options)
      : reader_(tar, {}),
        root_(root),
        directory_(directory),
        options_(options) {}

  absl::Status Run() {
    RETURN_IF_ERROR(OpenKnown(directory_, O_PATH).status());
    for (uint64_t count = 0;; ++count) {
      ASSIGN_OR_RETURN(std::optional<TarEntry> entry, reader_.Next());
      if (!entry.has_value()) break;
      if (count == options_.max_entries) {
        return absl::ResourceExhaustedError(absl::StrCat(
            "more than max_entries (", options_.max_entries, ") to copy"));
      }
      RETURN_IF_ERROR(Apply(*entry));
    }
    // Last, because of their times, and because files would inherit default
    // access control lists.
    for (auto it = finish_.rbegin(); it != finish_.rend(); ++it) {
      RETURN_IF_ERROR(Finish(*it));
    }
    return absl::OkStatus();
  }

 private:
  // Where an entry goes: the path of its directory, relative to the root, and
  // its name there; "" for the directory of the copy itself.
  struct Place {
    std::string dir;
    std::string name;
  };
  using Identity = std::pair<dev_t, ino_t>;
  // Of memory for known_ and finish_, and of one entry without its strings.
  static constexpr size_t kMaxMemory = size_t{256} << 20;
  static constexpr size_t kOverhead = 128;

  absl::StatusOr<Place> PlaceOf(absl::string_view name) const {
    std::vector<absl::string_view> parts;
    for (const absl::string_view part : absl::StrSplit(name, '/')) {
      if (part.empty() || part == ".") continue;
      if (part == "..") {
        return absl::InvalidArgumentError(
            absl::StrCat("the path ", Quoted(name), " contains \"..\""));
      }
      parts.push_back(part);
    }
    if (parts.empty()) return Place{.dir = directory_};
    Place place{.name = std::string(parts.back())};
    parts.back() = directory_;
    std::rotate(parts.begin(), parts.end() - 1, parts.end());
    place.dir = absl::StrJoin(parts, "/");
    return place;
  }

  // Opens the directory. Once seen it must stay the same: else a user of the
  // container could, by exchanging it for a link, have files made and owners
  // changed where it may not.
  absl::StatusOr<UniqueFd> OpenKnown(const std::string& path, int flags) {
    ASSIGN_OR_RETURN(UniqueFd fd,
                     sys::OpenAt2(root_, path.empty() ? "." : path,
                                  flags | O_DIRECTORY, sys::kInRoot));
    RETURN_IF_ERROR(CheckKnown(path, fd.borrow()));
    return fd;
  }

  absl::Status CheckKnown(const std::string& path, BorrowedFd fd) {
    struct stat status;
    if (::fstat(fd.get(), &status) != 0) return CopyError("fstat", path);
    const Identity identity(status.st_dev, status.st_ino);
    const auto [known, added] = known_.emplace(path, identity);
    if (added) RETURN_IF_ERROR(Charge(path.size()));
    if (known->second == identity) return absl::OkStatus();
    return absl::AbortedError(absl::StrCat(
        Quoted(path), " was exchanged for something else while it was copied"));
  }

  // For what is kept of a directory.
  absl::Status Charge(size_t bytes) {
    memory_ += bytes + kOverhead;
    if (memory_ <= kMaxMemory) return absl::OkStatus();
    return absl::ResourceExhaustedError(absl::StrCat(
        "the directories to copy take more than ", kMaxMemory, " bytes"));
  }

  // The directory `name` itself, not what a link of that name leads to.
  static UniqueFd OpenItself(BorrowedFd parent, const std::string& name,
                             int flags) {
    return UniqueFd(sys::OpenAt2Raw(parent.get(), name.c_str(),
                                    flags | O_DIRECTORY | O_NOFOLLOW,
                                    sys::kNoSymlinks));
  }

  // The same, making what is missing of it.
  absl::StatusOr<UniqueFd> OpenParent(const std::string& path) {
    absl::StatusOr<UniqueFd> found = OpenKnown(path, O_PATH);
    if (!absl::IsNotFound(found.status()) || path.size() <= directory_.size()) {
      return found;
    }
    const size_t slash = path.rfind('/');
    ASSIGN_OR_RETURN(const UniqueFd above, OpenParent(path.substr(0, slash)));
    const std::string name = path.substr(slash + 1);
    if (::mkdirat(above.get(), name.c_str(), 0755) != 0) {
      if (errno != EEXIST) return CopyError("mkdirat", path);
      return OpenKnown(path, O_PATH);
    }
    UniqueFd made = OpenItself(above.borrow(), name, O_RDONLY);
    if (!made.valid()) return CopyError("openat2", path);
    RETURN_IF_ERROR(CheckKnown(path, made.borrow()));
    FileAttributes attributes;
    SetOwner(attributes);
    if (::fchown(made.get(), attributes.uid, attributes.gid) != 0) {
      return CopyError("fchown", path);
    }
    // The umask is the host's.
    if (::fchmod(made.get(), 0755) != 0) return CopyError("fchmod", path);
    return made;
  }

  void SetOwner(FileAttributes& attributes) const {
    attributes.uid = options_.uid.value_or(attributes.uid);
    attributes.gid = options_.gid.value_or(attributes.gid);
  }

  absl::Status Apply(TarEntry& entry) {
    ASSIGN_OR_RETURN(const Place place, PlaceOf(entry.name));
    // The directory of the copy is the container's and stays as it is.
    if (place.name.empty()) return absl::OkStatus();
    ASSIGN_OR_RETURN(const UniqueFd parent, OpenParent(place.dir));
    FileAttributes attributes = layer::TakeAttributes(
        entry, LayerFormat::kPlain, std::nullopt, skipped_);
    SetOwner(attributes);
    const std::string path = absl::StrCat(place.dir, "/", place.name);
    if (entry.type == TarType::kDirectory) {
      return MakeDirectory(parent.borrow(), place.name, path, attributes);
    }
    RETURN_IF_ERROR(MakeRoom(parent.borrow(), place.name, path));
    if (entry.type == TarType::kFile) {
      return MakeFile(entry, parent.borrow(), place.name, path, attributes);
    }
    if (entry.type == TarType::kHardlink) {
      return MakeLink(entry, parent.borrow(), place.name, path);
    }
    RETURN_IF_ERROR(MakeSpecial(entry, parent.borrow(), place.name, path));
    return layer::WriteAttributesAt(parent.borrow(), place.name,
                                    entry.type == TarType::kSymlink, attributes,
                                    path, skipped_);
  }

  absl::Status MakeDirectory(BorrowedFd parent, const std::string& name,
                             const std::string& path,
                             const FileAttributes& attributes) {
    if (::mkdirat(parent.get(), name.c_str(), 0700) != 0 && errno != EEXIST) {
      return CopyError("mkdirat", path);
    }
    const UniqueFd itself = OpenItself(parent, name, O_PATH);
    if (itself.valid()) {
      // Only this very directory gets the attributes.
      RETURN_IF_ERROR(CheckKnown(path, itself.borrow()));
      size_t size = path.size();
      for (const auto& [key, value] : attributes.xattrs) {
        size += key.size() + value.size() + kOverhead;
      }
      RETURN_IF_ERROR(Charge(size));
      finish_.emplace_back(path, attributes);
      return absl::OkStatus();
    }
    // A symbolic link to a directory serves as one, which stays as it is.
    const absl::Status made = OpenKnown(path, O_PATH).status();
    if (made.ok() || absl::IsResourceExhausted(made)) return made;
    return absl::FailedPreconditionError(absl::StrCat(
        Quoted(path), " is there and no directory, but one is to be copied: ",
        made.message()));
  }

  absl::Status Finish(const std::pair<std::string, FileAttributes>& directory) {
    const auto& [path, attributes] = directory;
    absl::StatusOr<UniqueFd> fd = OpenKnown(path, O_RDONLY);
    if (absl::IsNotFound(fd.status())) return absl::OkStatus();  // removed
    RETURN_IF_ERROR(fd.status());
    return layer::WriteAttributes(fd->borrow(), attributes, path, skipped_);
  }

  // Removes a file of that name.
  absl::Status MakeRoom(BorrowedFd parent, const std::string& name,
                        const std::string& path) {
    if (::unlinkat(parent.get(), name.c_str(), 0) == 0 || errno == ENOENT) {
      return absl::OkStatus();
    }
    if (errno == EISDIR) {
      return absl::FailedPreconditionError(absl::StrCat(
          Quoted(path), " is a directory, but something else is to be copied"));
    }
    return CopyError("unlinkat", path,
                     errno == EBUSY ? "something is mounted there" : "");
  }

  absl::Status MakeFile(const TarEntry& entry, BorrowedFd parent,
                        const std::string& name, const std::string& path,
                        const FileAttributes& attributes) {
    if (entry.size > options_.max_bytes - bytes_) {
      return absl::ResourceExhaustedError(
          absl::StrCat(Quoted(path), " takes the files beyond max_bytes (",
                       options_.max_bytes, ")"));
    }
    RETURN_IF_ERROR(sys::CheckFileSize(entry.size));
    bytes_ += entry.size;
    const UniqueFd file(
        ::openat(parent.get(), name.c_str(),
                 O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!file.valid()) return CopyError("openat", path);
    bool reader_failed = false;
    RETURN_IF_ERROR(layer::WriteTarData(
        reader_, entry, file.borrow(), path,
        [this](uint64_t bytes) { return Report(bytes); }, reader_failed));
    return layer::WriteAttributes(file.borrow(), attributes, path, skipped_);
  }

  // To a file of the same archive.
  absl::Status MakeLink(const TarEntry& entry, BorrowedFd parent,
                        const std::string& name, const std::string& path) {
    ASSIGN_OR_RETURN(const Place target, PlaceOf(entry.linkname));
    ASSIGN_OR_RETURN(const UniqueFd from, OpenKnown(target.dir, O_PATH));
    if (::linkat(from.get(), target.name.c_str(), parent.get(), name.c_str(),
                 0) == 0) {
      return absl::OkStatus();
    }
    return CopyError("linkat", path);
  }

  absl::Status MakeSpecial(const TarEntry& entry, BorrowedFd parent,
                           const std::string& name, const std::string& path) {
    if (entry.type == TarType::kSymlink) {
      if (::symlinkat(entry.linkname.c_str(), parent.get(), name.c_str()) ==
          0) {
        return absl::OkStatus();
      }
      return CopyError("symlinkat", path);
    }
    const mode_t type = entry.type == TarType::kFifo         ? S_IFIFO
                        : entry.type == TarType::kCharDevice ? S_IFCHR
                                                             : S_IFBLK;
    if (::mknodat(parent.get(), name.c_str(), type | 0600,
                  makedev(entry.devmajor, entry.devminor)) == 0) {
      return absl::OkStatus();
    }
    return CopyError("mknodat", path,
                     errno == EPERM ? "making a device needs CAP_MKNOD" : "");
  }

  absl::Status Report(uint64_t bytes) {
    constexpr uint64_t kInterval = 1 << 20;
    done_ += bytes;
    if (!options_.progress || done_ - reported_ < kInterval) {
      return absl::OkStatus();
    }
    reported_ = done_;
    if (options_.progress(done_)) return absl::OkStatus();
    return absl::CancelledError("cancelled by TreeCopyOptions::progress");
  }

  layer::TarReader reader_;
  const BorrowedFd root_;
  const std::string directory_;
  const TreeCopyOptions& options_;
  std::map<std::string, Identity> known_;
  std::vector<std::pair<std::string, FileAttributes>> finish_;
  size_t memory_ = 0;
  uint64_t bytes_ = 0;
  uint64_t done_ = 0;
  uint64_t reported_ = 0;
  uint64_t skipped_ = 0;
};

}  // namespace

absl::StatusOr<UniqueFd> OpenRootOf(BorrowedFd pidfd) {
  const absl::Status ended = absl::NotFoundError(
      "OpenRootOf: the process has ended, or is not of this PID namespace");
  const pid_t pid = sys::PidOf(pidfd);
  if (pid <= 0) return ended;
  absl::StatusOr<UniqueFd> root =
      sys::Open(absl::StrCat("/proc/", pid, "/root"), O_PATH | O_DIRECTORY);
  // Only now is it sure whose number that was.
  if (absl::IsNotFound(sys::SendSignal(pidfd, 0))) return ended;
  if (absl::IsNotFound(root.status())) return ended;
  return root;
}

absl::Status CopyOut(BorrowedFd root, absl::string_view path, BorrowedFd tar,
                     const TreeCopyOptions& options) {
  ASSIGN_OR_RETURN(const Source source, OpenSource(root, path, options));
  LayerTarOptions what = TarOptions(source, options);
  what.progress = options.progress;
  layer::LayerTarSource stream(std::move(what));
  return layer::CopyTo(stream, tar, "tar").status();
}

absl::Status CopyIn(BorrowedFd tar, BorrowedFd root,
                    absl::string_view directory,
                    const TreeCopyOptions& options) {
  layer::FdSource file(tar);
  ASSIGN_OR_RETURN(const auto stream, layer::Decompress(file, {}));
  return TreeWriter(*stream, root, directory, options).Run();
}

absl::Status Copy(BorrowedFd from, absl::string_view path, BorrowedFd to,
                  absl::string_view directory, const TreeCopyOptions& options) {
  ASSIGN_OR_RETURN(const Source source, OpenSource(from, path, options));
  layer::LayerTarSource stream(TarOptions(source, options));
  return TreeWriter(stream, to, directory, options).Run();
}

}  // namespace caisson
