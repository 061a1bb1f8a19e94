#include "lib/layer/layer_changes.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/layer/id_shift.h"
#include "lib/sys/open.h"

namespace caisson {

std::string LayerChange::ToString() const {
  const char letter = kind == kAdded ? 'A' : kind == kChanged ? 'C' : 'D';
  return absl::StrCat(absl::string_view(&letter, 1), " ", path);
}

namespace layer {
namespace {

constexpr size_t kBuffer = 256 << 10;
// PATH_MAX without its NUL. No image can have longer paths, and a chain of many
// thousand directories would take memory with the square of its length.
constexpr size_t kMaxPath = 4095;
// What one directory may have if max_entries is less: all of it is in memory.
constexpr uint64_t kMaxInDirectory = 1'000'000;

std::string Join(const std::string& dir, const std::string& name) {
  return dir.empty() ? name : absl::StrCat(dir, "/", name);
}

absl::Status ReadError(absl::string_view call, const std::string& path) {
  return ErrnoError(errno, absl::StrCat(call, "(", Quoted(path), ")"),
                    {.step = "layer.diff", .path = path});
}

absl::Status Replaced(const std::string& path) {
  return absl::AbortedError(
      absl::StrCat(Quoted(path), " was replaced while it was read"));
}

absl::StatusOr<std::string> TargetOf(const OverlayFile& file) {
  char target[PATH_MAX];
  const ssize_t size =
      ::readlinkat(file.dir.get(), file.name.c_str(), target, sizeof(target));
  if (size >= 0) return std::string(target, static_cast<size_t>(size));
  if (errno == EINVAL) return Replaced(file.name);
  return ReadError("readlinkat", file.name);
}

// Somebody may have put a device or a pipe in the place of the file since it
// was looked at: opening one as root of the host can do anything.
absl::StatusOr<UniqueFd> OpenForReading(const OverlayFile& file) {
  ASSIGN_OR_RETURN(
      UniqueFd found,
      sys::OpenAt2(file.dir, file.name, O_PATH | O_NOFOLLOW, sys::kNoSymlinks));
  struct stat status;
  if (::fstat(found.get(), &status) != 0) return ReadError("fstat", file.name);
  if (!S_ISREG(status.st_mode)) return Replaced(file.name);
  return sys::OpenFound(std::move(found), file.name, O_RDONLY | O_NONBLOCK);
}

// Fills `buffer` from `offset` on, up to the end of the file.
absl::StatusOr<size_t> ReadAt(BorrowedFd fd, char* buffer, off_t offset) {
  size_t done = 0;
  while (done < kBuffer) {
    const ssize_t n = ::pread(fd.get(), buffer + done, kBuffer - done,
                              offset + static_cast<off_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ReadError("pread", "layer");
    if (n == 0) break;
    done += static_cast<size_t>(n);
  }
  return done;
}

absl::StatusOr<bool> ContentDiffers(const OverlayFile& a,
                                    const OverlayFile& b) {
  ASSIGN_OR_RETURN(const UniqueFd a_fd, OpenForReading(a));
  ASSIGN_OR_RETURN(const UniqueFd b_fd, OpenForReading(b));
  const auto buffers = std::make_unique<char[]>(2 * kBuffer);
  char* const other = buffers.get() + kBuffer;
  for (off_t offset = 0;; offset += kBuffer) {
    ASSIGN_OR_RETURN(const size_t n,
                     ReadAt(a_fd.borrow(), buffers.get(), offset));
    ASSIGN_OR_RETURN(const size_t m, ReadAt(b_fd.borrow(), other, offset));
    if (n != m || ::memcmp(buffers.get(), other, n) != 0) return true;
    if (n < kBuffer) return false;
  }
}

bool SameAttributes(const FileAttributes& a, const FileAttributes& b) {
  return a.mode == b.mode && a.uid == b.uid && a.gid == b.gid &&
         a.mtime_sec == b.mtime_sec && a.mtime_nsec == b.mtime_nsec &&
         a.xattrs == b.xattrs;
}

}  // namespace

LayerChanges::LayerChanges(LayerChangesOptions options)
    : options_(std::move(options)),
      tops_(options_.tops, options_.format),
      lowers_(options_.lowers, options_.format) {}

absl::StatusOr<LayerEntry> LayerChanges::EntryOf(const std::string& dir,
                                                 OverlayFile file) {
  LayerEntry entry;
  entry.path = Join(dir, file.name);
  if (entry.path.size() > kMaxPath) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a path has more than ", kMaxPath, " bytes; it begins ",
                     Quoted(entry.path.substr(0, 80))));
  }
  ASSIGN_OR_RETURN(entry.attributes,
                   ReadImageAttributes(file.dir, file.name, file.status,
                                       options_.format, entry.path));
  RETURN_IF_ERROR(ShiftIds(options_.ids, entry.path, entry.attributes));
  entry.file = std::move(file);
  return entry;
}

// Whether the entry is another than what lower layers have at its place.
absl::StatusOr<bool> LayerChanges::Differs(const LayerEntry& entry,
                                           const OverlayFile& lower) {
  const struct stat& ours = entry.file.status;
  const struct stat& theirs = lower.status;
  const mode_t type = ours.st_mode & S_IFMT;
  if (type != (theirs.st_mode & S_IFMT)) return true;
  if (type != S_IFDIR && ours.st_nlink > 1) return true;
  ASSIGN_OR_RETURN(const FileAttributes attributes,
                   ReadImageAttributes(lower.dir, lower.name, theirs,
                                       options_.format, entry.path));
  if (!SameAttributes(entry.attributes, attributes)) return true;
  if (type == S_IFCHR || type == S_IFBLK) {
    return ours.st_rdev != theirs.st_rdev;
  }
  if (type != S_IFREG && type != S_IFLNK) return false;
  if (ours.st_size != theirs.st_size) return true;
  if (type == S_IFREG) return ContentDiffers(entry.file, lower);
  ASSIGN_OR_RETURN(const std::string target, TargetOf(entry.file));
  ASSIGN_OR_RETURN(const std::string other, TargetOf(lower));
  return target != other;
}

// Answers `entry` after the directories that lead to it.
absl::Status LayerChanges::Add(LayerEntry entry) {
  RETURN_IF_ERROR(AddPending());
  ready_.push_back(std::move(entry));
  return CountEntry();
}

absl::Status LayerChanges::AddPending() {
  for (Level& level : levels_) {
    if (!level.self.has_value()) continue;
    ready_.push_back(*std::move(level.self));
    level.self.reset();
    RETURN_IF_ERROR(CountEntry());
  }
  return absl::OkStatus();
}

absl::Status LayerChanges::CountEntry() {
  if (++count_ <= options_.max_entries) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      "more than max_entries (", options_.max_entries, ") have changed"));
}

// Opens the directory `name` in `dir`; "." in "" is the root.
absl::Status LayerChanges::EnterDirectory(const std::string& dir,
                                          const std::string& name) {
  ASSIGN_OR_RETURN(std::optional<OverlayFile> file, tops_.Find(dir, name));
  // Removed, or replaced, since its parent was listed.
  if (!file.has_value() || !S_ISDIR(file->status.st_mode)) {
    return absl::OkStatus();
  }
  const bool is_root = name == ".";
  auto read = EntryOf(dir, *std::move(file));
  if (!is_root && absl::IsNotFound(read.status())) return absl::OkStatus();
  RETURN_IF_ERROR(read.status());
  LayerEntry self = *std::move(read);
  Level level{.path = is_root ? "" : self.path};
  bool changed = true;
  if (levels_.empty() || levels_.back().lower) {
    ASSIGN_OR_RETURN(const std::optional<OverlayFile> lower,
                     lowers_.Find(dir, name));
    level.lower = lower.has_value() && S_ISDIR(lower->status.st_mode);
    if (lower.has_value()) {
      self.kind = LayerChange::kChanged;
      ASSIGN_OR_RETURN(changed, Differs(self, *lower));
    }
  }
  if (!is_root || options_.only.empty()) level.self = std::move(self);
  levels_.push_back(std::move(level));
  if (changed || options_.all) RETURN_IF_ERROR(AddPending());
  return ListDirectory();
}

absl::Status LayerChanges::KeepOnly(const std::string& name,
                                    std::vector<OverlayFile>& files) {
  files.erase(std::remove_if(files.begin(), files.end(),
                             [&name](const OverlayFile& file) {
                               return file.name != name;
                             }),
              files.end());
  if (!files.empty()) return absl::OkStatus();
  return absl::NotFoundError(absl::StrCat("there is no ", Quoted(name)));
}

// Lists the directory that was entered last.
absl::Status LayerChanges::ListDirectory() {
  const std::string path = levels_.back().path;
  ASSIGN_OR_RETURN(
      std::vector<OverlayFile> files,
      tops_.List(path, std::max(options_.max_entries, kMaxInDirectory)));
  if (path.empty() && !options_.only.empty()) {
    RETURN_IF_ERROR(KeepOnly(options_.only, files));
  }
  if (levels_.back().lower) {
    RETURN_IF_ERROR(AddDeleted(path, files));
    // Looking at the lower layers has not moved this one.
  }
  std::vector<std::string>& directories = levels_.back().directories;
  files_.clear();
  next_file_ = 0;
  for (OverlayFile& file : files) {
    if (S_ISDIR(file.status.st_mode)) {
      directories.push_back(std::move(file.name));
    } else if (!IsWhiteout(file.status)) {
      files_.push_back(std::move(file));
    }
  }
  std::reverse(directories.begin(), directories.end());
  return absl::OkStatus();
}

absl::Status LayerChanges::AddDeleted(const std::string& path,
                                      const std::vector<OverlayFile>& files) {
  ASSIGN_OR_RETURN(const bool closed, tops_.IsClosed(path));
  std::vector<std::string> deleted;
  absl::flat_hash_set<absl::string_view> present;
  for (const OverlayFile& file : files) {
    if (!IsWhiteout(file.status)) {
      if (closed) present.insert(file.name);
      continue;
    }
    if (closed) continue;
    ASSIGN_OR_RETURN(const auto lower, lowers_.Find(path, file.name));
    if (lower.has_value()) deleted.push_back(file.name);
  }
  if (closed) {
    ASSIGN_OR_RETURN(const std::vector<OverlayFile> lower, lowers_.List(path));
    for (const OverlayFile& file : lower) {
      if (IsWhiteout(file.status) || present.contains(file.name)) continue;
      deleted.push_back(file.name);
    }
  }
  for (const std::string& name : deleted) {
    LayerEntry entry;
    entry.kind = LayerChange::kDeleted;
    entry.path = Join(path, name);
    RETURN_IF_ERROR(Add(std::move(entry)));
  }
  return absl::OkStatus();
}

absl::Status LayerChanges::AddFile(OverlayFile file) {
  const Level& level = levels_.back();
  auto read = EntryOf(level.path, file);
  if (absl::IsNotFound(read.status())) return absl::OkStatus();  // just removed
  RETURN_IF_ERROR(read.status());
  LayerEntry entry = *std::move(read);
  if (level.lower) {
    ASSIGN_OR_RETURN(const auto lower, lowers_.Find(level.path, file.name));
    if (lower.has_value()) {
      entry.kind = LayerChange::kChanged;
      const absl::StatusOr<bool> differs = Differs(entry, *lower);
      // Just removed, or replaced.
      if (absl::IsNotFound(differs.status())) return absl::OkStatus();
      if (absl::IsAborted(differs.status())) return absl::OkStatus();
      RETURN_IF_ERROR(differs.status());
      if (!*differs && !options_.all) return absl::OkStatus();
    }
  }
  return Add(std::move(entry));
}

absl::StatusOr<std::optional<LayerEntry>> LayerChanges::Next() {
  if (!started_) {
    started_ = true;
    RETURN_IF_ERROR(EnterDirectory("", "."));
  }
  while (ready_.empty()) {
    if (next_file_ < files_.size()) {
      RETURN_IF_ERROR(AddFile(std::move(files_[next_file_++])));
    } else if (levels_.empty()) {
      return std::optional<LayerEntry>();
    } else if (!levels_.back().directories.empty()) {
      const std::string name = std::move(levels_.back().directories.back());
      levels_.back().directories.pop_back();
      RETURN_IF_ERROR(EnterDirectory(levels_.back().path, name));
    } else {
      levels_.pop_back();
    }
  }
  std::optional<LayerEntry> entry = std::move(ready_.front());
  ready_.pop_front();
  return entry;
}

absl::StatusOr<std::string> LinkTargetOf(const LayerEntry& entry) {
  return TargetOf(entry.file);
}

absl::StatusOr<UniqueFd> OpenFileOf(const LayerEntry& entry) {
  return OpenForReading(entry.file);
}

}  // namespace layer
}  // namespace caisson
