#include "lib/lines/line_follower.h"

#include <errno.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/sys/open.h"

namespace caisson::lines {
namespace {

constexpr char kStep[] = "read lines";
constexpr size_t kBlock = 64 << 10;
// Rotation leaves one number without a file for a moment, or for longer if it
// is killed; a second one may be seen when the next begins.
constexpr int kMissingInARow = 3;

absl::Time ModifiedAt(const struct stat& status) {
  return absl::TimeFromTimespec(status.st_mtim);
}

absl::Status StatError(int error, const std::string& name) {
  return ErrnoError(error, absl::StrCat("fstat(", Quoted(name), ")"),
                    {.step = kStep, .path = name});
}

// Appends what is at `offset` to `data`; the number of bytes, 0 at the end.
absl::StatusOr<size_t> ReadAt(BorrowedFd file, int64_t offset, size_t size,
                              const std::string& name, std::string& data) {
  const size_t used = data.size();
  data.resize(used + size);
  ssize_t n;
  do {
    n = ::pread(file.get(), data.data() + used, size, offset);
  } while (n < 0 && errno == EINTR);
  const int error = errno;
  data.resize(used + static_cast<size_t>(std::max<ssize_t>(n, 0)));
  if (n >= 0) return static_cast<size_t>(n);
  return ErrnoError(
      error, absl::StrCat("pread(", Quoted(name), ", offset ", offset, ")"),
      {.step = kStep, .path = name});
}

}  // namespace

std::string NumberedName(absl::string_view name, int number) {
  return number == 0 ? std::string(name) : absl::StrCat(name, ".", number);
}

// Newest first, until `visit` answers false; it may take the file. A file that
// is renamed meanwhile may be seen again, but not twice in a row.
absl::Status LineFollower::ForEachFile(
    absl::FunctionRef<bool(File&)> visit) const {
  struct stat last = {};
  int missing = 0;
  for (int number = 0; missing < kMissingInARow; ++number) {
    auto fd = sys::OpenAt2(directory_.borrow(), NumberedName(name_, number),
                           O_RDONLY | O_NOCTTY | O_NONBLOCK, sys::kNoSymlinks);
    if (absl::IsNotFound(fd.status())) {
      ++missing;
      continue;
    }
    if (!fd.ok()) return WithStep(fd.status(), kStep);
    missing = 0;
    File file{.fd = *std::move(fd)};
    if (::fstat(file.fd.get(), &file.status) != 0) {
      return StatError(errno, name_);
    }
    if (file.Is(last)) continue;
    last = file.status;
    if (!visit(file)) break;
  }
  return absl::OkStatus();
}

absl::StatusOr<LineFollower::File> LineFollower::Newest() const {
  File newest;
  RETURN_IF_ERROR(ForEachFile([&newest](File& file) {
    newest = std::move(file);
    return false;
  }));
  return newest;
}

absl::StatusOr<LineFollower::File> LineFollower::OlderThan(
    const File& file) const {
  File older;
  bool found = false;
  RETURN_IF_ERROR(ForEachFile([&](File& candidate) {
    if (found) {
      older = std::move(candidate);
      return false;
    }
    found = file.Is(candidate.status);
    return true;
  }));
  return older;
}

// The oldest of all for no file.
absl::StatusOr<LineFollower::File> LineFollower::NewerThan(
    const File& file) const {
  struct stat now = {};
  if (file.valid()) {
    if (::fstatat(directory_.get(), name_.c_str(), &now, AT_SYMLINK_NOFOLLOW) ==
            0 &&
        file.Is(now)) {
      return File();
    }
    if (::fstat(file.fd.get(), &now) != 0) return StatError(errno, name_);
  }
  bool found = false;
  ASSIGN_OR_RETURN(File newer, OldestUntil(file, absl::InfinitePast(), found));
  if (found || !file.valid()) return newer;
  // It was removed: not what was complete before it was.
  return OldestUntil(file, ModifiedAt(now), found);
}

// The oldest of the files that are newer than `end`, if that is found, and were
// written at `not_before` or later.
absl::StatusOr<LineFollower::File> LineFollower::OldestUntil(
    const File& end, absl::Time not_before, bool& found) const {
  File oldest;
  RETURN_IF_ERROR(ForEachFile([&](File& candidate) {
    found = end.Is(candidate.status);
    if (!found && ModifiedAt(candidate.status) >= not_before) {
      oldest = std::move(candidate);
    }
    return !found;
  }));
  return oldest;
}

absl::Status LineFollower::SkipFilesBefore(absl::Time not_before) {
  ASSIGN_OR_RETURN(File file, Newest());
  while (file.valid()) {
    ASSIGN_OR_RETURN(File older, OlderThan(file));
    if (!older.valid() || ModifiedAt(older.status) < not_before) break;
    file = std::move(older);
  }
  MoveTo(std::move(file), 0);
  return absl::OkStatus();
}

absl::Status LineFollower::GoBackWhile(
    absl::FunctionRef<bool(absl::string_view)> skip) {
  ASSIGN_OR_RETURN(File file, Newest());
  while (file.valid()) {
    ASSIGN_OR_RETURN(const std::optional<int64_t> offset, GoBackIn(file, skip));
    File older;
    if (!offset.has_value()) {
      ASSIGN_OR_RETURN(older, OlderThan(file));
    }
    if (!older.valid()) {
      MoveTo(std::move(file), offset.value_or(0));
      break;
    }
    file = std::move(older);
  }
  return absl::OkStatus();
}

// Where in `file` to begin; nothing if `skip` was true for all of its lines.
absl::StatusOr<std::optional<int64_t>> LineFollower::GoBackIn(
    const File& file, absl::FunctionRef<bool(absl::string_view)> skip) const {
  struct stat status;
  if (::fstat(file.fd.get(), &status) != 0) return StatError(errno, name_);
  int64_t position = status.st_size;  // where `rest` begins
  std::string rest;       // the end of a line whose beginning was not read yet
  bool cut = false;       // some of it was dropped, as it is too long
  bool complete = false;  // there is a "\n" behind it
  while (position > 0) {
    const int64_t begin =
        std::max<int64_t>(0, position - static_cast<int64_t>(kBlock));
    std::string data;
    ASSIGN_OR_RETURN(
        const size_t size,
        ReadAt(file.fd.borrow(), begin, static_cast<size_t>(position - begin),
               name_, data));
    if (size < static_cast<size_t>(position - begin)) return 0;  // truncated
    data += rest;
    position = begin;
    for (;;) {
      const size_t newline = data.rfind('\n');
      if (newline == std::string::npos && begin > 0) break;
      const size_t first = newline == std::string::npos ? 0 : newline + 1;
      const absl::string_view line = absl::string_view(data).substr(first);
      const bool fits = !cut && !line.empty() && line.size() <= kMaxLine;
      if (complete && fits && !skip(line)) {
        return begin + static_cast<int64_t>(data.size()) + 1;
      }
      complete = true;
      cut = false;
      if (newline == std::string::npos) return std::nullopt;
      data.resize(newline);
    }
    if (data.size() > kMaxLine) {
      cut = true;
      data.clear();
    }
    rest = std::move(data);
  }
  return std::nullopt;
}

void LineFollower::MoveTo(File file, int64_t offset) {
  file_ = std::move(file);
  offset_ = offset;
  buffer_.clear();
  begin_ = scanned_ = 0;
  skipping_ = false;
}

std::optional<absl::string_view> LineFollower::TakeLine() {
  for (;;) {
    const size_t newline = buffer_.find('\n', scanned_);
    if (newline == std::string::npos) break;
    const absl::string_view line =
        absl::string_view(buffer_).substr(begin_, newline - begin_);
    begin_ = scanned_ = newline + 1;
    const bool skip = skipping_ || line.empty() || line.size() > kMaxLine;
    skipping_ = false;
    if (!skip) return line;
  }
  scanned_ = buffer_.size();
  if (buffer_.size() - begin_ > kMaxLine) {
    skipping_ = true;
    begin_ = scanned_;
  }
  return std::nullopt;
}

// Reads on in file_; false at its end.
absl::StatusOr<bool> LineFollower::Fill() {
  if (!file_.valid()) return false;
  buffer_.erase(0, begin_);
  scanned_ -= begin_;
  begin_ = 0;
  ASSIGN_OR_RETURN(const size_t size,
                   ReadAt(file_.fd.borrow(), offset_, kBlock, name_, buffer_));
  offset_ += static_cast<int64_t>(size);
  return size > 0;
}

// By somebody who wants his disk back: `> container.log`.
absl::StatusOr<bool> LineFollower::WasTruncated() {
  if (!file_.valid()) return false;
  struct stat status;
  if (::fstat(file_.fd.get(), &status) != 0) return StatError(errno, name_);
  return status.st_size < offset_;
}

absl::StatusOr<std::optional<absl::string_view>> LineFollower::Next() {
  for (;;) {
    if (const auto line = TakeLine(); line.has_value()) return line;
    ASSIGN_OR_RETURN(const bool filled, Fill());
    if (filled) continue;
    ASSIGN_OR_RETURN(const bool truncated, WasTruncated());
    if (truncated) {
      MoveTo(std::move(file_), 0);
      continue;
    }
    if (next_.valid()) {
      MoveTo(std::move(next_), 0);
      continue;
    }
    // What was written between the last look and the rotation is read before
    // the successor's lines.
    ASSIGN_OR_RETURN(next_, NewerThan(file_));
    if (!next_.valid()) return std::nullopt;
  }
}

}  // namespace caisson::lines
