// The directory of a launcher whose processes can be detached: its socket, and
// the records of the processes (doc/detached.md).
#ifndef CAISSON_LIB_LAUNCHER_DETACHED_DIRECTORY_H_
#define CAISSON_LIB_LAUNCHER_DETACHED_DIRECTORY_H_

#include <optional>
#include <string>
#include <utility>

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

  // A socket that listens in the directory. ALREADY_EXISTS if a launcher is
  // there. Takes away the socket of one that is dead, and records that its
  // processes are lost.
  absl::StatusOr<UniqueFd> Listen() const;
  // NOT_FOUND if no launcher listens.
  absl::StatusOr<UniqueFd> Connect() const;

  // For a launcher that did not come to be.
  void RemoveSocket() const;

  BorrowedFd fd() const { return fd_.borrow(); }
  const std::string& path() const { return path_; }

 private:
  absl::StatusOr<UniqueFd> Bind() const;
  absl::Status RecordLost() const;

  DetachedDirectory(UniqueFd fd, std::string path)
      : fd_(std::move(fd)), path_(std::move(path)) {}

  UniqueFd fd_;
  std::string path_;
};

}  // namespace caisson::launcher

#endif  // CAISSON_LIB_LAUNCHER_DETACHED_DIRECTORY_H_
