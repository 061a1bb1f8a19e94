// A cgroupfs of plain files in a temporary directory (tests only): coarse, but
// with the rules that matter for errors. New groups have their control files,
// busy groups cannot be removed, controllers must be enabled from the top, and
// any operation can be made to fail.
#ifndef CAISSON_LIB_CGROUP_FAKE_CGROUPFS_H_
#define CAISSON_LIB_CGROUP_FAKE_CGROUPFS_H_

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "lib/cgroup/filesystem.h"

namespace caisson::cgroup {

class FakeCgroupfs final : public Filesystem {
 public:
  // The full ones have every controller that has limits.
  enum class Kind { kV1, kV2, kHybrid, kFullV1, kFullV2 };
  explicit FakeCgroupfs(Kind kind);
  ~FakeCgroupfs() override;

  // "mkdir <path>", "rmdir <path>" or "write <path> <value>" with the path
  // below root(): returns the errno that the operation fails with, or 0.
  std::function<int(const std::string& operation)> fault;
  std::map<std::string, std::string> proc;  // more files of /proc
  mutable std::vector<std::string> log;     // operations that were let through

  // Of the calling process in every hierarchy; follows moves of `own_pid`.
  mutable std::string own_path = "/";
  std::string own_pid;
  bool systemd = false;
  std::string delegated;  // the group that systemd gave away

  const std::string& root() const { return root_; }
  std::string Get(const std::string& path) const;
  void Set(const std::string& path, const std::string& value) const;
  bool Exists(const std::string& path) const;
  void Remove(const std::string& path) const;
  // All directories below root().
  std::vector<std::string> Directories() const;
  // Names of the files in a group.
  std::vector<std::string> Files(const std::string& group) const;

  absl::StatusOr<std::string> ReadProc(const std::string& name) const override;
  absl::StatusOr<UniqueFd> OpenMount(const Mount& mount) const override;
  int MakeDir(BorrowedFd parent, const std::string& name,
              mode_t mode) const override;
  int RemoveDir(BorrowedFd parent, const std::string& name) const override;
  bool SystemdBooted() const override { return systemd; }
  bool IsDelegated(const Dir& dir) const override;
  // The programs are files "device_program".
  absl::Status ProbeDevicePrograms() const override;
  absl::Status SetDeviceProgram(
      const Dir& dir,
      const std::vector<sys::BpfInstruction>& program) const override;
  absl::Status Write(const Dir& dir, absl::string_view file,
                     absl::string_view value) const override;

 private:
  void AddMount(const std::string& name, bool v2);
  void Populate(const std::string& group) const;
  std::string PathOf(BorrowedFd dir) const;
  void Move(const std::string& pid, const std::string& group) const;
  int Allow(const std::string& operation) const;

  std::string root_;
  std::string mountinfo_;
  std::string controllers_v2_;
  int next_mount_id_ = 1;
};

}  // namespace caisson::cgroup

#endif  // CAISSON_LIB_CGROUP_FAKE_CGROUPFS_H_
