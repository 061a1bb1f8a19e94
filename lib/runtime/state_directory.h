// Where the containers of an OCI runtime are remembered: one directory for
// each, below one root. doc/oci-runtime.md lists what is in it.
//
// Thread-safe, also between processes.
#ifndef CAISSON_LIB_RUNTIME_STATE_DIRECTORY_H_
#define CAISSON_LIB_RUNTIME_STATE_DIRECTORY_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/unique_fd.h"
#include "lib/runtime/record.pb.h"

namespace caisson::runtime {

inline constexpr uint32_t kRecordVersion = 1;

// INVALID_ARGUMENT unless `id` can be a container's: letters, digits and
// "_+.-", at most 1024, and neither "." nor "..".
absl::Status CheckId(absl::string_view id);

// The directory of one container.
class ContainerDirectory final {
 public:
  ContainerDirectory(ContainerDirectory&&) = default;
  ContainerDirectory& operator=(ContainerDirectory&&) = default;

  const std::string& id() const { return id_; }

  // One process changes a container at a time: waits until the others are done.
  // FAILED_PRECONDITION if it was removed meanwhile.
  absl::Status Lock();
  // Whether somebody is changing it.
  absl::StatusOr<bool> IsLocked() const;

  // DATA_LOSS if it is unreadable.
  absl::StatusOr<ContainerRecord> Read() const;
  absl::Status Write(const ContainerRecord& record) const;
  // Without a pid until there is a process.
  absl::StatusOr<ProcessRecord> ReadProcess() const;
  absl::Status WriteProcess(const ProcessRecord& record) const;

  // The FIFO by which the container is started (ProcessSpec::gate).
  absl::StatusOr<UniqueFd> MakeGate() const;
  // Whether it is there: the container was not started.
  bool HasGate() const;
  // Opens it again. FAILED_PRECONDITION if nobody waits there.
  absl::StatusOr<UniqueFd> FindGate() const;
  absl::Status RemoveGate() const;

  // Removes it with everything in it.
  absl::Status Remove();

 private:
  friend class StateDirectory;
  ContainerDirectory(std::string id, std::string path, UniqueFd parent,
                     UniqueFd fd, UniqueFd lock)
      : id_(std::move(id)),
        path_(std::move(path)),
        parent_(std::move(parent)),
        fd_(std::move(fd)),
        lock_(std::move(lock)) {}

  absl::Status WriteFile(const char* name,
                         const google::protobuf::MessageLite& record) const;
  template <typename Record>
  absl::StatusOr<Record> ReadFile(const char* name) const;

  std::string id_;
  std::string path_;
  UniqueFd parent_;
  UniqueFd fd_;
  UniqueFd lock_;
};

class StateDirectory final {
 public:
  // Makes it with mode 0700 if it is missing. PERMISSION_DENIED if others can
  // look into it.
  static absl::StatusOr<StateDirectory> Open(const std::string& path);

  // A new one, locked. ALREADY_EXISTS if there is a container of that id.
  absl::StatusOr<ContainerDirectory> Create(const std::string& id) const;
  // NOT_FOUND if there is none.
  absl::StatusOr<ContainerDirectory> Find(const std::string& id) const;
  std::vector<std::string> Ids() const;

 private:
  StateDirectory(UniqueFd fd, std::string path)
      : fd_(std::move(fd)), path_(std::move(path)) {}
  absl::StatusOr<ContainerDirectory> Open(const std::string& id,
                                          UniqueFd dir) const;

  UniqueFd fd_;
  std::string path_;
};

}  // namespace caisson::runtime

#endif  // CAISSON_LIB_RUNTIME_STATE_DIRECTORY_H_
