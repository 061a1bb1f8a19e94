#include "caisson/container_logs.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "lib/base/deadline.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/lines/change_watch.h"
#include "lib/lines/line_follower.h"
#include "lib/logs/log_entry.h"
#include "lib/logs/log_files.h"
#include "lib/sys/open.h"

namespace caisson {
namespace logs {
namespace {

using Entries = std::vector<ContainerLogEntry>;

// The readers' end of the writer's FIFO; nothing if there was never a writer.
absl::StatusOr<UniqueFd> OpenFifo(BorrowedFd directory) {
  auto fifo = sys::OpenAt2(directory, kWriterFifo, O_RDONLY | O_NONBLOCK,
                           sys::kNoSymlinks);
  if (absl::IsNotFound(fifo.status())) return UniqueFd();
  return fifo;
}

bool HasWriter(BorrowedFd fifo) {
  char byte;
  ssize_t n;
  do {
    n = ::read(fifo.get(), &byte, 1);
  } while (n > 0 || (n < 0 && errno == EINTR));
  return n < 0 && errno == EAGAIN;  // 0: nobody has the other end
}

}  // namespace

class LogSource final {
 public:
  static absl::StatusOr<std::unique_ptr<LogSource>> Open(
      BorrowedFd directory, const ContainerLogReadOptions& options);

  BorrowedFd fd() const { return watch_.fd(); }
  bool at_end() const { return at_end_; }
  absl::StatusOr<Entries> Read(size_t max);

 private:
  LogSource(const ContainerLogReadOptions& options, UniqueFd directory,
            lines::ChangeWatch watch, UniqueFd fifo)
      : options_(options),
        watch_(std::move(watch)),
        fifo_(std::move(fifo)),
        lines_(std::move(directory), kLogFile) {}

  absl::Status Begin();
  absl::Status GoBackLines(int64_t count);
  bool IsWanted(const ContainerLogEntry& entry) const;
  bool IsLate(const ContainerLogEntry& entry) const {
    return options_.until.has_value() && entry.time > *options_.until;
  }
  bool MoreMayCome() const;

  ContainerLogReadOptions options_;
  lines::ChangeWatch watch_;
  UniqueFd fifo_;
  lines::LineFollower lines_;
  bool at_end_ = false;
};

absl::StatusOr<std::unique_ptr<LogSource>> LogSource::Open(
    BorrowedFd directory, const ContainerLogReadOptions& options) {
  if (options.tail.value_or(0) < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("ContainerLogReadOptions::tail is ", *options.tail,
                     "; want 0 or more"));
  }
  ASSIGN_OR_RETURN(UniqueFd own, sys::Duplicate(directory));
  ASSIGN_OR_RETURN(auto watch,
                   lines::ChangeWatch::Create(directory, options.follow));
  UniqueFd fifo;
  if (options.follow) {
    ASSIGN_OR_RETURN(fifo, OpenFifo(directory));
    if (fifo.valid()) RETURN_IF_ERROR(watch.AddHangup(fifo.borrow()));
  }
  std::unique_ptr<LogSource> source(new LogSource(
      options, std::move(own), std::move(watch), std::move(fifo)));
  RETURN_IF_ERROR(source->Begin());
  return source;
}

absl::Status LogSource::Begin() {
  watch_.WakeAt(absl::InfinitePast());
  if (options_.tail.has_value()) return GoBackLines(*options_.tail);
  if (options_.since.has_value()) {
    return lines_.SkipFilesBefore(*options_.since);
  }
  return absl::OkStatus();
}

// Counts the ends of lines: a line of several parts is one, and so is one that
// has no end yet.
absl::Status LogSource::GoBackLines(int64_t count) {
  std::array<bool, 2> inside = {};  // by stream: a part was seen
  return lines_.GoBackWhile([&](absl::string_view line) {
    const auto entry = ParseLogEntry(line);
    if (!entry.has_value() || IsLate(*entry)) return true;
    if (!IsWanted(*entry)) {
      // Nothing older is asked for, unless the clock was set.
      return !options_.since.has_value() || entry->time >= *options_.since;
    }
    bool& seen = inside[static_cast<size_t>(entry->stream)];
    if (entry->partial && seen) return true;
    seen = true;
    return --count >= 0;
  });
}

bool LogSource::IsWanted(const ContainerLogEntry& entry) const {
  const bool stream =
      entry.stream == LogStream::kOut ? options_.out : options_.err;
  return stream &&
         (!options_.since.has_value() || entry.time >= *options_.since);
}

bool LogSource::MoreMayCome() const {
  return options_.follow && fifo_.valid() && HasWriter(fifo_.borrow()) &&
         (!options_.until.has_value() || absl::Now() <= *options_.until);
}

absl::StatusOr<Entries> LogSource::Read(size_t max) {
  Entries entries;
  if (at_end_) return entries;
  // Asked before reading: what was written before the answer is read below.
  watch_.Clear();
  const bool more = MoreMayCome();
  while (entries.size() < max) {
    ASSIGN_OR_RETURN(const auto line, lines_.Next());
    if (!line.has_value()) {
      at_end_ = !more;
      break;
    }
    auto entry = ParseLogEntry(*line);
    if (!entry.has_value()) continue;
    if (IsLate(*entry)) {
      at_end_ = true;
      break;
    }
    if (IsWanted(*entry)) entries.push_back(*std::move(entry));
  }
  const bool now = at_end_ || entries.size() == max;
  watch_.WakeAt(now ? absl::InfinitePast()
                    : options_.until.value_or(absl::InfiniteFuture()));
  return entries;
}

}  // namespace logs

absl::StatusOr<ContainerLogReader> ContainerLogReader::Open(
    BorrowedFd directory, const ContainerLogReadOptions& options) {
  ASSIGN_OR_RETURN(auto source, logs::LogSource::Open(directory, options));
  return ContainerLogReader(std::move(source));
}

ContainerLogReader::ContainerLogReader(std::unique_ptr<logs::LogSource> source)
    : source_(std::move(source)) {}
ContainerLogReader::ContainerLogReader(ContainerLogReader&&) noexcept = default;
ContainerLogReader& ContainerLogReader::operator=(
    ContainerLogReader&&) noexcept = default;
ContainerLogReader::~ContainerLogReader() = default;

BorrowedFd ContainerLogReader::fd() const { return source_->fd(); }

absl::StatusOr<std::vector<ContainerLogEntry>> ContainerLogReader::Read(
    size_t max) {
  return source_->Read(max);
}

absl::StatusOr<std::vector<ContainerLogEntry>> ContainerLogReader::Wait(
    absl::Duration timeout, size_t max) {
  const Deadline deadline(timeout);
  for (;;) {
    ASSIGN_OR_RETURN(auto entries, Read(max));
    if (!entries.empty() || at_end() || deadline.expired()) return entries;
    pollfd poll = {.fd = fd().get(), .events = POLLIN};
    deadline.Poll({&poll, 1});
  }
}

bool ContainerLogReader::at_end() const { return source_->at_end(); }

}  // namespace caisson
