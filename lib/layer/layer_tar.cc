#include "lib/layer/layer_tar.h"

#include <errno.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/layer/tar_header.h"
#include "lib/layer/tar_writer.h"

namespace caisson::layer {
namespace {

constexpr absl::string_view kWhiteoutPrefix = ".wh.";
constexpr uint64_t kProgressInterval = 1 << 20;

// "a/.wh.b" for "a/b".
std::string WhiteoutOf(absl::string_view path) {
  const size_t base = path.rfind('/') + 1;  // 0 if there is none
  return absl::StrCat(path.substr(0, base), kWhiteoutPrefix, path.substr(base));
}

bool LooksLikeWhiteout(absl::string_view path) {
  return absl::StartsWith(path.substr(path.rfind('/') + 1), kWhiteoutPrefix);
}

std::optional<TarType> TypeOf(const struct stat& status) {
  switch (status.st_mode & S_IFMT) {
    case S_IFREG:
      return TarType::kFile;
    case S_IFDIR:
      return TarType::kDirectory;
    case S_IFLNK:
      return TarType::kSymlink;
    case S_IFCHR:
      return TarType::kCharDevice;
    case S_IFBLK:
      return TarType::kBlockDevice;
    case S_IFIFO:
      return TarType::kFifo;
    default:
      return std::nullopt;
  }
}

}  // namespace

absl::Status LayerTarSource::AddHeader(const TarEntry& entry) {
  ASSIGN_OR_RETURN(const std::string header, TarHeaderOf(entry));
  pending_ += header;
  return absl::OkStatus();
}

// Opens the file; its size is what it has from now on.
absl::Status LayerTarSource::StartFile(const LayerEntry& change,
                                       TarEntry& entry) {
  ASSIGN_OR_RETURN(file_, OpenFileOf(change));
  struct stat status;
  if (::fstat(file_.get(), &status) != 0) {
    return ErrnoError(errno, absl::StrCat("fstat(", Quoted(change.path), ")"),
                      {.step = "layer.diff", .path = change.path});
  }
  if (!S_ISREG(status.st_mode)) {
    return absl::AbortedError(absl::StrCat(
        Quoted(change.path), " was replaced while the layer was read"));
  }
  entry.size = static_cast<uint64_t>(status.st_size);
  if (entry.size > options_.max_bytes - file_bytes_) {
    return absl::ResourceExhaustedError(absl::StrCat(
        Quoted(change.path), ": its ", entry.size,
        " bytes take the files beyond max_bytes (", options_.max_bytes, ")"));
  }
  file_bytes_ += entry.size;
  path_ = change.path;
  offset_ = 0;
  size_ = entry.size;
  return absl::OkStatus();
}

std::string LayerTarSource::NameOf(const std::string& path) const {
  const std::string& only = options_.changes.only;
  if (options_.name.empty()) return path;
  if (!only.empty()) return options_.name + path.substr(only.size());
  return path == "." ? options_.name : absl::StrCat(options_.name, "/", path);
}

// For an entry that has just been removed.
absl::Status LayerTarSource::LeaveOut(const TarEntry& entry,
                                      const struct stat& status) {
  const auto first = links_.find({status.st_dev, status.st_ino});
  if (first != links_.end() && first->second == entry.name) {
    links_.erase(first);
  }
  return absl::OkStatus();
}

absl::Status LayerTarSource::AddEntry(const LayerEntry& change) {
  TarEntry entry;
  if (change.kind == LayerChange::kDeleted) {
    entry.name = WhiteoutOf(change.path);
    return AddHeader(entry);
  }
  const struct stat& status = change.file.status;
  const std::optional<TarType> type = TypeOf(status);
  if (!type.has_value()) {  // a socket
    // What it took the place of must not come back.
    if (change.kind != LayerChange::kChanged) return absl::OkStatus();
    entry.name = WhiteoutOf(change.path);
    return AddHeader(entry);
  }
  if (!options_.plain && LooksLikeWhiteout(change.path)) {
    return absl::FailedPreconditionError(absl::StrCat(
        Quoted(change.path), " cannot be in an image: names that begin with ",
        "\".wh.\" stand for deleted files"));
  }
  const FileAttributes& attributes = change.attributes;
  entry = {.name = NameOf(change.path),
           .type = *type,
           .mode = attributes.mode,
           .uid = attributes.uid,
           .gid = attributes.gid,
           .mtime_sec = attributes.mtime_sec,
           .mtime_nsec = attributes.mtime_nsec,
           .xattrs = attributes.xattrs};
  if (*type == TarType::kDirectory) {
    entry.name += '/';
  } else if (status.st_nlink > 1) {
    const auto [first, is_first] =
        links_.try_emplace({status.st_dev, status.st_ino}, entry.name);
    if (!is_first) {
      entry.type = TarType::kHardlink;
      entry.linkname = first->second;
      entry.xattrs.clear();
    }
  }
  if (entry.type == TarType::kSymlink) {
    auto target = LinkTargetOf(change);
    if (absl::IsNotFound(target.status())) return LeaveOut(entry, status);
    RETURN_IF_ERROR(target.status());
    entry.linkname = *std::move(target);
  } else if (entry.type == TarType::kFile) {
    const absl::Status started = StartFile(change, entry);
    if (absl::IsNotFound(started)) return LeaveOut(entry, status);
    RETURN_IF_ERROR(started);
  } else if (entry.type == TarType::kCharDevice ||
             entry.type == TarType::kBlockDevice) {
    entry.devmajor = major(status.st_rdev);
    entry.devminor = minor(status.st_rdev);
  }
  return AddHeader(entry);
}

// Makes more of the stream: the next entry, or the end.
absl::Status LayerTarSource::Advance() {
  pending_.clear();
  given_ = 0;
  ASSIGN_OR_RETURN(const std::optional<LayerEntry> change, changes_.Next());
  if (change.has_value()) return AddEntry(*change);
  ended_ = true;
  pending_ = TarEnd();
  return absl::OkStatus();
}

absl::StatusOr<size_t> LayerTarSource::ReadData(absl::Span<char> buffer) {
  const size_t want = std::min<uint64_t>(buffer.size(), size_ - offset_);
  ssize_t n;
  do {
    n = ::pread(file_.get(), buffer.data(), want, static_cast<off_t>(offset_));
  } while (n < 0 && errno == EINTR);
  if (n < 0) {
    return ErrnoError(errno, absl::StrCat("pread(", Quoted(path_), ")"),
                      {.step = "layer.diff", .path = path_});
  }
  if (n == 0) {
    return absl::AbortedError(
        absl::StrCat(Quoted(path_),
                     " became shorter while it was read; freeze the "
                     "container meanwhile"));
  }
  offset_ += static_cast<uint64_t>(n);
  if (offset_ == size_) {
    file_.reset();
    pending_.assign(TarPadding(size_), '\0');
    given_ = 0;
  }
  return static_cast<size_t>(n);
}

absl::Status LayerTarSource::Report(size_t bytes) {
  bytes_ += bytes;
  if (!options_.progress || bytes_ - reported_ < kProgressInterval) {
    return absl::OkStatus();
  }
  reported_ = bytes_;
  if (options_.progress(bytes_)) return absl::OkStatus();
  return absl::CancelledError("cancelled by progress");
}

absl::StatusOr<size_t> LayerTarSource::Read(absl::Span<char> buffer) {
  if (buffer.empty()) return 0;
  size_t n = 0;
  while (n == 0) {
    if (given_ < pending_.size()) {
      n = std::min(buffer.size(), pending_.size() - given_);
      pending_.copy(buffer.data(), n, given_);
      given_ += n;
    } else if (file_.valid() && size_ > 0) {
      ASSIGN_OR_RETURN(n, ReadData(buffer));
    } else if (ended_) {
      return 0;
    } else {
      file_.reset();
      RETURN_IF_ERROR(Advance());
    }
  }
  RETURN_IF_ERROR(Report(n));
  return n;
}

}  // namespace caisson::layer
