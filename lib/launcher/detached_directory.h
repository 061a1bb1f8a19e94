// The directory of a launcher whose processes can be detached: its socket, and
// the records of the processes (doc/detached.md).
#ifndef CAISSON_LIB_LAUNCHER_DETACHED_DIRECTORY_H_
#define CAISSON_LIB_LAUNCHER_DETACHED_DIRECTORY_H_

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/unique_fd.h"
#include "lib/launcher/protocol.h"

namespace caisson::launcher {

// What a record says.
struct ProcessRecord {
  // As the launcher told it; nullopt if it has not.
  std::optional<Message> exited;
  bool lost = false;  // it never will

  bool running() const { return !exited && !lost; }
};

// nullopt for a text that is no record or not whole.
std::optional<ProcessRecord> ParseRecord(absl::string_view text);

// INVALID_ARGUMENT unless a detached process can have the name.
absl::Status CheckDetachedName(absl::string_view name);

class DetachedDirectory final {
 public:
  enum class Missing { kIsError, kMake };
  // `path` must be absolute, belong to the caller and have mode 0700.
  static absl::StatusOr<DetachedDirectory> Open(const std::string& path,
                                                Missing missing);

  // What a launcher gets.
  struct Place {
    UniqueFd listening;
    UniqueFd lock;  // held as long as a duplicate is open
  };
  // Takes the directory for a launcher that is to come. ALREADY_EXISTS if one
  // lives there. Takes away the socket of one that is dead, and records that
  // its processes are lost.
  absl::StatusOr<Place> Take() const;
  // Gives it back if that launcher did not come to be. The lock goes with the
  // Place.
  void GiveBack() const;

  // NOT_FOUND if no launcher lives there, UNAVAILABLE if it is about to end or
  // does not answer.
  absl::StatusOr<UniqueFd> Connect() const;
  absl::StatusOr<bool> HasLauncher() const;

  // The names of the records, sorted.
  absl::StatusOr<std::vector<std::string>> Names() const;
  // nullopt if there is none; one that cannot be read is of a process that
  // is lost.
  absl::StatusOr<std::optional<ProcessRecord>> Read(
      const std::string& name) const;
  // Moves the record to where nobody finds it, if its process does not run.
  absl::Status Forget(const std::string& name) const;

  BorrowedFd fd() const { return fd_.borrow(); }
  const std::string& path() const { return path_; }

 private:
  DetachedDirectory(UniqueFd fd, std::string path)
      : fd_(std::move(fd)), path_(std::move(path)) {}

  // What was being written or forgotten when somebody was killed.
  absl::Status RemoveUnfinished() const;
  absl::StatusOr<UniqueFd> OpenLock(Missing missing) const;
  absl::Status RecordLost() const;
  absl::Status Rename(const std::string& from, const std::string& to) const;

  UniqueFd fd_;
  std::string path_;
};

}  // namespace caisson::launcher

#endif  // CAISSON_LIB_LAUNCHER_DETACHED_DIRECTORY_H_
