// The one door to cgroupfs and to the files of /proc that describe it. Tests
// replace it by a tree of plain files; nothing else is virtual.
#ifndef CAISSON_LIB_CGROUP_FILESYSTEM_H_
#define CAISSON_LIB_CGROUP_FILESYSTEM_H_

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/cgroup_layout.h"
#include "caisson/unique_fd.h"
#include "lib/base/mutex.h"
#include "lib/sys/bpf.h"

namespace caisson::cgroup {

// A directory and the name that errors call it by.
struct Dir {
  UniqueFd fd;
  std::string path;
};

// A mount of cgroupfs as /proc/self/mountinfo has it.
struct Mount {
  uint64_t id = 0;
  CgroupVersion version = CgroupVersion::kV2;
  std::string mount_point;
};

class Filesystem {
 public:
  virtual ~Filesystem() = default;

  // "self/mountinfo", "self/cgroup", "PID/cgroup" or "cgroups" below /proc.
  virtual absl::StatusOr<std::string> ReadProc(const std::string& name) const;

  // The root of a mount. NOT_FOUND if something else is mounted on top of it.
  virtual absl::StatusOr<UniqueFd> OpenMount(const Mount& mount) const;

  // mkdirat(2) with `mode` whatever the umask, and rmdir: 0 or errno.
  virtual int MakeDir(BorrowedFd parent, const std::string& name,
                      mode_t mode) const;
  virtual int RemoveDir(BorrowedFd parent, const std::string& name) const;

  // One control file of `dir`, opened, read or written once, and closed.
  virtual absl::StatusOr<std::string> Read(const Dir& dir,
                                           absl::string_view file) const;
  virtual absl::Status Write(const Dir& dir, absl::string_view file,
                             absl::string_view value) const;

  // Whether systemd manages the hierarchies, and whether it gave `dir` away.
  virtual bool SystemdBooted() const;
  virtual bool IsDelegated(const Dir& dir) const;

  // Whether this process may filter devices by eBPF programs; tries to load
  // one.
  virtual absl::Status ProbeDevicePrograms() const;
  // Makes `program` the group's, in place of the last one that was set here.
  // The last program is kept loaded, for many groups have the same rules and
  // verifying takes longer than everything else.
  virtual absl::Status SetDeviceProgram(
      const Dir& dir, const std::vector<sys::BpfInstruction>& program) const;

  // `name` (one component or several, never through a symlink) below `parent`.
  absl::StatusOr<Dir> OpenDir(BorrowedFd parent, absl::string_view parent_path,
                              const std::string& name) const;
  absl::StatusOr<UniqueFd> OpenFile(const Dir& dir, const std::string& file,
                                    int flags) const;

  // Names of the child groups.
  absl::StatusOr<std::vector<std::string>> Children(const Dir& dir) const;

 private:
  struct LoadedProgram {
    Mutex mutex;
    std::vector<sys::BpfInstruction> code ABSL_GUARDED_BY(mutex);
    UniqueFd fd ABSL_GUARDED_BY(mutex);
  };
  std::shared_ptr<LoadedProgram> loaded_ = std::make_shared<LoadedProgram>();
};

// "key value" lines, as in memory.events; NOT_FOUND if `key` is missing.
absl::StatusOr<int64_t> FlatKeyedValue(absl::string_view text,
                                       absl::string_view key);

// `path` and `name` joined by one slash.
std::string Join(absl::string_view path, absl::string_view name);

}  // namespace caisson::cgroup

#endif  // CAISSON_LIB_CGROUP_FILESYSTEM_H_
