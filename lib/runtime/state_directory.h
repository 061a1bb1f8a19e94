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
#include "absl/time/time.h"
#include "caisson/unique_fd.h"
#include "lib/runtime/record.pb.h"

namespace caisson::runtime {

inline constexpr uint32_t kRecordVersion = 2;

// INVALID_ARGUMENT unless `id` can be a container's: letters, digits and
// "_+.-", at most 1024, and neither "." nor "..".
absl::Status CheckId(absl::string_view id);

// The directory of one container.
class ContainerDirectory final {
 public:
  ContainerDirectory(ContainerDirectory&&) = default;
  ContainerDirectory& operator=(ContainerDirectory&&) = default;

  const std::string& id() const { return id_; }

  // One process changes a container at a time: waits until the others are done,
  // or no longer than `timeout`, looking again and again (the kernel has no
  // such wait): DEADLINE_EXCEEDED. NOT_FOUND if it was removed meanwhile.
  absl::Status Lock(absl::Duration timeout = absl::InfiniteDuration());
  // Whether somebody is changing it.
  absl::StatusOr<bool> IsLocked() const;

  // DATA_LOSS if it is unreadable. NOT_FOUND, as of a container that does not
  // exist, before it is first written.
  absl::StatusOr<ContainerRecord> Read() const;
  absl::Status Write(const ContainerRecord& record) const;
  // Without a pid until there is a process. The one that hooks of the creation
  // are told of has a record of its own: the container is not created yet.
  enum class Phase { kCreating, kCreated };
  absl::StatusOr<ProcessRecord> ReadProcess(Phase phase) const;
  absl::Status WriteProcess(const ProcessRecord& record, Phase phase) const;

  // The FIFO by which the container is started (ProcessSpec::gate).
  absl::StatusOr<UniqueFd> MakeGate() const;
  // Whether somebody waits there, so that the container was not started. It may
  // be there without: whoever started the container died before removing it.
  bool IsAwaited() const;
  // Opens it again. FAILED_PRECONDITION if nobody waits there.
  absl::StatusOr<UniqueFd> FindGate() const;
  absl::Status RemoveGate() const;

  // Removes it with everything in it; nothing of another container that has
  // got the same id meanwhile.
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

  absl::Status LockWithin(absl::Duration timeout);
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
  // ABORTED if somebody deletes it at once.
  absl::StatusOr<ContainerDirectory> Create(const std::string& id) const;
  // NOT_FOUND if there is none.
  absl::StatusOr<ContainerDirectory> Find(const std::string& id) const;
  // Removes what a creation or a removal leaves that was killed, which is no
  // container: an empty directory. False if there is none.
  absl::StatusOr<bool> RemoveRest(const std::string& id) const;
  std::vector<std::string> Ids() const;

 private:
  StateDirectory(UniqueFd fd, std::string path)
      : fd_(std::move(fd)), path_(std::move(path)) {}
  absl::StatusOr<ContainerDirectory> Open(const std::string& id, UniqueFd dir,
                                          int flags) const;
  absl::StatusOr<ContainerDirectory> MakeOnce(const std::string& id) const;

  UniqueFd fd_;
  std::string path_;
};

}  // namespace caisson::runtime

#endif  // CAISSON_LIB_RUNTIME_STATE_DIRECTORY_H_
