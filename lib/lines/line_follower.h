// The lines of a file that is rotated while it is read.
//
// `name` is what is written; `name`.1 was before it, `name`.2 before that, and
// so on. Rotation renames them from the highest number on, so that whoever
// looks at ever higher numbers misses none, and makes the new `name` at last.
// Nothing is written to a file that has a successor.
#ifndef CAISSON_LIB_LINES_LINE_FOLLOWER_H_
#define CAISSON_LIB_LINES_LINE_FOLLOWER_H_

#include <sys/stat.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "caisson/unique_fd.h"

namespace caisson::lines {

// The file with the number `number` (0: `name` itself).
std::string NumberedName(absl::string_view name, int number);

// A place between two lines. Thread-compatible.
class LineFollower final {
 public:
  // Longer lines are skipped.
  static constexpr size_t kMaxLine = 1 << 20;

  // Before the first line there is.
  LineFollower(UniqueFd directory, std::string name)
      : directory_(std::move(directory)), name_(std::move(name)) {}

  // Each is called at most once, before Next(). Without them, and if there is
  // no file yet, the first line there will be is the next.

  // Leaves out files that were written last before `not_before`.
  absl::Status SkipFilesBefore(absl::Time not_before);
  // Goes back from the end, line by line, until `skip` answers false: the next
  // line is the one behind that.
  absl::Status GoBackWhile(absl::FunctionRef<bool(absl::string_view)> skip);

  // The next line, without its "\n", which is valid until the next call;
  // nothing if there is none at the moment. Empty lines are skipped; a last
  // line without
  // "\n" is none yet.
  absl::StatusOr<std::optional<absl::string_view>> Next();

 private:
  struct File {
    UniqueFd fd;
    struct stat status = {};  // when it was opened

    bool valid() const { return fd.valid(); }
    bool Is(const struct stat& other) const {
      return valid() && status.st_dev == other.st_dev &&
             status.st_ino == other.st_ino;
    }
  };

  absl::Status ForEachFile(absl::FunctionRef<bool(File&)> visit) const;
  absl::StatusOr<File> Newest() const;
  absl::StatusOr<File> OlderThan(const File& file) const;
  absl::StatusOr<File> NewerThan(const File& file) const;
  absl::StatusOr<File> OldestUntil(const File& end, absl::Time not_before,
                                   bool& found) const;
  absl::StatusOr<std::optional<int64_t>> GoBackIn(
      const File& file, absl::FunctionRef<bool(absl::string_view)> skip) const;

  void MoveTo(File file, int64_t offset);
  std::optional<absl::string_view> TakeLine();
  absl::StatusOr<bool> Fill();
  absl::StatusOr<bool> WasTruncated();

  UniqueFd directory_;
  std::string name_;
  File file_;
  File next_;  // the successor of file_, which has no more to come then
  int64_t offset_ = 0;  // in file_, of what comes behind the buffer

  std::string buffer_;
  size_t begin_ = 0;       // of the next line in the buffer
  size_t scanned_ = 0;     // up to where there is no "\n" from there
  bool skipping_ = false;  // the rest of a line that is too long
};

}  // namespace caisson::lines

#endif  // CAISSON_LIB_LINES_LINE_FOLLOWER_H_
