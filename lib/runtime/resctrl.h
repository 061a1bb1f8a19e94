// `linux.intelRdt`: a container in a group of resctrl, in which processors of
// Intel and AMD allocate caches and memory bandwidth and count their use.
//
// Sources: config-linux.md, "IntelRdt"; Documentation/filesystems/resctrl.rst.
#ifndef CAISSON_LIB_RUNTIME_RESCTRL_H_
#define CAISSON_LIB_RUNTIME_RESCTRL_H_

#include <sys/types.h>

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lib/spec/runtime_config.h"

namespace caisson::runtime {

// Where resctrl is mounted. FAILED_PRECONDITION, which says what is missing, if
// it is nowhere.
absl::StatusOr<std::string> FindResctrl();

// The group that a container is to be in. Thread-compatible; the destructor
// removes what Make() made unless Keep() was called.
class [[nodiscard]] ResctrlGroup final {
 public:
  // Finds or makes the directories below `root`, and sets the schemata of one
  // that is new. FAILED_PRECONDITION if one that was there has others,
  // NOT_FOUND if it should be there and is not, ALREADY_EXISTS if there is one
  // of the container's own name.
  static absl::StatusOr<ResctrlGroup> Make(const std::string& root,
                                           const spec::IntelRdt& rdt,
                                           const std::string& id);

  ResctrlGroup(ResctrlGroup&& other) noexcept;
  ResctrlGroup& operator=(ResctrlGroup&&) = delete;
  ~ResctrlGroup();

  // Puts a process there, and so what it starts from then on.
  absl::Status Assign(pid_t pid) const;
  void Keep();

 private:
  ResctrlGroup() = default;

  std::string root_;
  std::string directory_;   // of the class of service
  std::string monitoring_;  // the group below it; empty: none
  bool made_directory_ = false;
  bool made_monitoring_ = false;
};

// Removes what Make() made for the container, and leaves what has a name of its
// own (`closID`). OK if it is gone.
absl::Status RemoveResctrlGroup(const std::string& root,
                                const spec::IntelRdt& rdt,
                                const std::string& id);

}  // namespace caisson::runtime

#endif  // CAISSON_LIB_RUNTIME_RESCTRL_H_
