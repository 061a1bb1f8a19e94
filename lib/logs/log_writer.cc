#include "lib/logs/log_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/lines/json_line.h"
#include "lib/lines/line_follower.h"
#include "lib/logs/log_files.h"
#include "lib/sys/file_lock.h"
#include "lib/sys/open.h"

namespace caisson::logs {
namespace {

using lines::NumberedName;

constexpr char kStep[] = "log";
constexpr size_t kMaxText = 16 << 10;  // of one entry
constexpr size_t kMaxBatch = 1 << 20;
constexpr int kMaxFiles = 1000;

absl::Status LogError(int error, absl::string_view call,
                      absl::string_view name) {
  return ErrnoError(error, absl::StrCat(call, "(", Quoted(name), ")"),
                    {.step = kStep, .path = name});
}

absl::Status CheckOptions(const ContainerLogOptions& options) {
  if (options.max_size_bytes < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("ContainerLogOptions::max_size_bytes is ",
                     options.max_size_bytes, "; want 0 or more"));
  }
  if (options.max_files < 1 || options.max_files > kMaxFiles) {
    return absl::InvalidArgumentError(
        absl::StrCat("ContainerLogOptions::max_files is ", options.max_files,
                     "; want 1 to ", kMaxFiles));
  }
  return absl::OkStatus();
}

// The writer's end of the FIFO, which nobody else has.
absl::StatusOr<UniqueFd> BeTheWriter(BorrowedFd directory) {
  if (::mkfifoat(directory.get(), kWriterFifo, 0600) != 0 && errno != EEXIST) {
    return LogError(errno, "mkfifoat", kWriterFifo);
  }
  // For reading, too: otherwise ENXIO as long as there is no reader.
  ASSIGN_OR_RETURN(UniqueFd fifo,
                   sys::OpenAt2(directory, kWriterFifo, O_RDWR | O_NONBLOCK,
                                sys::kNoSymlinks));
  ASSIGN_OR_RETURN(const bool locked,
                   sys::TryLockExclusive(fifo.borrow(), kWriterFifo));
  if (locked) return fifo;
  return absl::FailedPreconditionError(absl::StrCat(
      Quoted(kLogFile), " is already written, by this process or another"));
}

size_t CountLines(absl::string_view lines) {
  return static_cast<size_t>(std::count(lines.begin(), lines.end(), '\n'));
}

void AppendEntry(std::string& json, LogStream stream, absl::string_view text,
                 absl::string_view time) {
  json += "{\"log\":";
  lines::AppendJsonString(json, text);
  absl::StrAppend(&json, ",\"stream\":\"",
                  stream == LogStream::kOut ? "stdout" : "stderr",
                  "\",\"time\":\"", time, "\"}\n");
}

// How much of `text`, which is longer than an entry may be, goes into one: no
// character is cut in two.
size_t PartOf(absl::string_view text) {
  const absl::string_view part = text.substr(0, kMaxText);
  return part.size() - lines::IncompleteCharacter(part);
}

// Writes as much as it can; `error` is why not all.
size_t WriteSome(BorrowedFd file, absl::string_view data, int& error) {
  size_t written = 0;
  while (written < data.size()) {
    const ssize_t n =
        ::write(file.get(), data.data() + written, data.size() - written);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      error = n < 0 ? errno : EIO;
      break;
    }
    written += static_cast<size_t>(n);
  }
  return written;
}

}  // namespace

absl::StatusOr<LogWriter> LogWriter::Open(BorrowedFd directory,
                                          const ContainerLogOptions& options) {
  RETURN_IF_ERROR(CheckOptions(options));
  LogWriter writer;
  writer.options_ = options;
  ASSIGN_OR_RETURN(writer.directory_, sys::Duplicate(directory));
  ASSIGN_OR_RETURN(writer.alive_, BeTheWriter(directory));
  RETURN_IF_ERROR(writer.OpenFile());
  writer.RemoveSurplus();
  writer.WriteBatch();
  return writer;
}

absl::Status LogWriter::OpenFile() {
  ASSIGN_OR_RETURN(
      file_, sys::OpenAt2(directory_.borrow(), kLogFile,
                          O_RDWR | O_APPEND | O_CREAT, sys::kNoSymlinks, 0600));
  struct stat status;
  if (::fstat(file_.get(), &status) != 0) {
    return LogError(errno, "fstat", kLogFile);
  }
  size_ = status.st_size;
  char last = '\n';
  if (size_ > 0 && ::pread(file_.get(), &last, 1, size_ - 1) != 1) {
    return LogError(errno, "pread", kLogFile);
  }
  // A writer was killed in the middle of a line, which readers skip.
  if (last != '\n') rest_ = "\n";
  return absl::OkStatus();
}

void LogWriter::Write(LogStream stream, absl::string_view bytes,
                      absl::Time now) {
  Begin(now);
  std::string& incomplete = incomplete_[static_cast<size_t>(stream)];
  while (!bytes.empty()) {
    const size_t newline = bytes.find('\n');
    const bool whole = newline != absl::string_view::npos;
    // Of the line or, if it is too long, so much that there is one part.
    const size_t length =
        std::min(whole ? newline + 1 : bytes.size(),
                 kMaxText + 1 - std::min(kMaxText, incomplete.size()));
    absl::string_view line = bytes.substr(0, length);
    if (!incomplete.empty()) {
      absl::StrAppend(&incomplete, line);
      line = incomplete;
    }
    bytes.remove_prefix(length);
    if (line.size() > kMaxText) {
      const size_t part = PartOf(line);
      Emit(stream, line.substr(0, part));
      incomplete = std::string(line.substr(part));
      // A line that ends just behind its part.
      line = incomplete;
    }
    if (line.empty()) continue;
    if (line.back() == '\n') {
      Emit(stream, line);
      incomplete.clear();
    } else if (incomplete.empty()) {
      incomplete = std::string(line);
    }
  }
  WriteBatch();
}

void LogWriter::Begin(absl::Time now) {
  time_ = lines::FormatLineTime(now);
  may_rotate_ = true;
}

void LogWriter::Flush(LogStream stream, absl::Time now) {
  Begin(now);
  std::string& incomplete = incomplete_[static_cast<size_t>(stream)];
  if (!incomplete.empty()) Emit(stream, incomplete);
  incomplete.clear();
  WriteBatch();
}

void LogWriter::Emit(LogStream stream, absl::string_view text) {
  const size_t before = batch_.size();
  AppendEntry(batch_, stream, text, time_);
  const int64_t max = options_.max_size_bytes;
  if (max > 0 && may_rotate_ && size_ + static_cast<int64_t>(before) > 0 &&
      size_ + static_cast<int64_t>(batch_.size()) > max) {
    const std::string entry = batch_.substr(before);
    batch_.resize(before);
    WriteBatch();
    may_rotate_ = Rotate();
    batch_ = entry;
  } else if (batch_.size() > kMaxBatch) {
    WriteBatch();
  }
}

void LogWriter::WriteBatch() {
  const size_t note_begin = rest_.size();
  std::string note;
  if (lost_unreported_ > 0) {
    AppendEntry(note, LogStream::kErr,
                absl::StrCat("caisson: ", lost_unreported_,
                             lost_unreported_ == 1 ? " entry" : " entries",
                             " of this log could not be written: ",
                             ErrnoText(lost_error_), "\n"),
                time_);
  }
  const size_t note_end = note_begin + note.size();
  if (note_end > 0) batch_.insert(0, absl::StrCat(rest_, note));
  if (batch_.empty()) return;
  const size_t written = WriteSome(file_.borrow(), batch_, lost_error_);
  size_ += static_cast<int64_t>(written);
  if (written < batch_.size()) {
    KeepUnwritten(written, note_begin, note_end);
  } else {
    rest_.clear();
    lost_unreported_ = 0;
  }
  batch_.clear();
}

// The line that is half in the file will be completed; what is behind it is
// lost.
void LogWriter::KeepUnwritten(size_t written, size_t note_begin,
                              size_t note_end) {
  const absl::string_view batch = batch_;
  const bool in_line =
      written > 0 ? batch[written - 1] != '\n' : !rest_.empty();
  size_t kept = written;
  if (in_line) kept = batch.find('\n', written) + 1;
  rest_ = std::string(batch.substr(written, kept - written));
  if (written > note_begin && note_end > note_begin) lost_unreported_ = 0;
  const size_t lost = CountLines(batch.substr(std::max(kept, note_end)));
  lost_unreported_ += static_cast<int64_t>(lost);
  lost_total_ += static_cast<int64_t>(lost);
}

// The new file is made first: if there is no room for it, nothing has changed.
bool LogWriter::Rotate() {
  if (!rest_.empty()) return false;
  struct stat status;
  // Somebody may have truncated it.
  if (::fstat(file_.get(), &status) != 0) return false;
  if (status.st_size < size_) {
    size_ = status.st_size;
    return true;
  }
  const int dir = directory_.get();
  auto next = sys::OpenAt2(directory_.borrow(), kNewLogFile,
                           O_RDWR | O_APPEND | O_CREAT | O_TRUNC,
                           sys::kNoSymlinks, 0600);
  if (!next.ok()) return false;
  for (int number = LastNumber(); number > 0; --number) {
    const std::string from = NumberedName(kLogFile, number - 1);
    const std::string to = NumberedName(kLogFile, number);
    if (::renameat(dir, from.c_str(), dir, to.c_str()) != 0 &&
        errno != ENOENT) {
      return false;
    }
  }
  if (::renameat(dir, kNewLogFile, dir, kLogFile) != 0) return false;
  file_ = *std::move(next);
  size_ = 0;
  return true;
}

// The number that the last file to be renamed gets: that of the first hole, or
// of a file that is given up.
int LogWriter::LastNumber() const {
  for (int number = 1; number < options_.max_files - 1; ++number) {
    struct stat status;
    if (::fstatat(directory_.get(), NumberedName(kLogFile, number).c_str(),
                  &status, AT_SYMLINK_NOFOLLOW) != 0) {
      return number;
    }
  }
  return options_.max_files - 1;
}

// What was kept by other options, and what a rotation left that was killed.
void LogWriter::RemoveSurplus() const {
  const int dir = directory_.get();
  ::unlinkat(dir, kNewLogFile, 0);
  if (options_.max_size_bytes == 0) return;
  int missing = 0;
  for (int number = options_.max_files; missing < 2; ++number) {
    const std::string name = NumberedName(kLogFile, number);
    missing = ::unlinkat(dir, name.c_str(), 0) == 0 ? 0 : missing + 1;
  }
}

}  // namespace caisson::logs
