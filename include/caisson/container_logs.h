// What a container has written to its standard output and error, read from the
// files in which its keeper stores it.
//
//   auto logs = caisson::ContainerLogReader::Open(directory,
//                                                 {.follow = true, .tail =
//                                                 10});
//   while (!logs->at_end()) {
//     for (const caisson::ContainerLogEntry& entry :
//          *logs->Wait(absl::InfiniteDuration())) {
//       std::cout << entry.text;
//     }
//   }
//
// Any number of processes may read while the container runs, and after it; they
// hold up neither it nor each other. The files are those of Docker's json-file
// driver: doc/container-logs.md. They are not meant for audits: nothing is
// synced to disk, and a full disk loses lines (which one line then says).
#ifndef CAISSON_CONTAINER_LOGS_H_
#define CAISSON_CONTAINER_LOGS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "caisson/unique_fd.h"

namespace caisson {

namespace logs {
class LogSource;
}  // namespace logs

enum class LogStream { kOut, kErr };

// How much of a container's output is kept. The defaults are those of Docker's
// "local" driver; json-file's is no rotation, which fills the disk.
struct ContainerLogOptions {
  // The size in bytes at which a new file is begun; 0: never.
  int64_t max_size_bytes = int64_t{20} << 20;
  // How many files there are at most, with the one that is written; 1 to 1000.
  // With 1, what is old is given up at once.
  int max_files = 5;
};

// A line, or a part of one.
struct ContainerLogEntry {
  absl::Time time;  // when the keeper wrote it
  LogStream stream = LogStream::kOut;
  // What was written, with the "\n" at its end: to join the texts of a stream
  // gives the stream. Bytes that are not UTF-8 are U+FFFD, one for each.
  std::string text;
  // There is no "\n" at the end: the line goes on in the next entry of the
  // stream, because it has more than 16 KiB, or it was the last.
  bool partial = false;
};

struct ContainerLogReadOptions {
  // Waits for more, until no keeper writes any longer; otherwise the end of the
  // file is the end.
  bool follow = false;
  // Entries of this time and later.
  std::optional<absl::Time> since;
  // Entries of this time and before: the first later one is the end. With
  // `follow`, so is this time itself.
  std::optional<absl::Time> until;
  // The last so many lines of those that the other options ask for, not
  // counting what comes later; all without it. Not negative.
  std::optional<int64_t> tail;
  // Which streams.
  bool out = true;
  bool err = true;
};

// A place in a container's log. Thread-compatible. Independent of the lifetime
// of the container and of its directory; the destructor changes nothing.
//
// Rotation does not disturb it, unless it falls behind by all files that are
// kept: it goes on with the oldest one then.
class [[nodiscard]] ContainerLogReader final {
 public:
  // `directory` is that of the log, held open by the caller during the call. A
  // directory without a log has no entries and ends at once. With `follow` this
  // takes an inotify instance, of which a user has 128 by default
  // (fs.inotify.max_user_instances).
  static absl::StatusOr<ContainerLogReader> Open(
      BorrowedFd directory, const ContainerLogReadOptions& options = {});

  ContainerLogReader(ContainerLogReader&&) noexcept;
  ContainerLogReader& operator=(ContainerLogReader&&) noexcept;
  ~ContainerLogReader();

  // Readable (POLLIN, level-triggered) while there may be something to Read()
  // and at the end; an epoll descriptor, not to be read by others.
  BorrowedFd fd() const;

  // The next entries, at most `max`, without waiting; none is a result, too.
  // Lines that are not entries, such as one that a killed keeper left half
  // written, are skipped.
  absl::StatusOr<std::vector<ContainerLogEntry>> Read(size_t max = 1024);

  // poll(2) and Read(), until there are entries, the end is reached or the time
  // has passed. For programs without a loop.
  absl::StatusOr<std::vector<ContainerLogEntry>> Wait(absl::Duration timeout,
                                                      size_t max = 1024);

  // Whether Read() has given the last entry there will be. With `follow` that
  // is when no keeper has the log open: the kernel knows, also of one that was
  // killed.
  bool at_end() const;

 private:
  explicit ContainerLogReader(std::unique_ptr<logs::LogSource> source);

  std::unique_ptr<logs::LogSource> source_;  // null when moved from
};

}  // namespace caisson

#endif  // CAISSON_CONTAINER_LOGS_H_
