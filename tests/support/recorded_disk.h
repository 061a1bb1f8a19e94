// A disk that remembers every write and flush in the order in which it received
// them, so that a test can tell what a power failure at any instant would have
// left of it.
//
//   ASSERT_OK_AND_ASSIGN(UniqueFd empty, MakeDisk(mkfs, 32 << 20));
//   ASSERT_OK_AND_ASSIGN(auto disk, RecordedDisk::Create(empty.borrow(), 512));
//   ... mount disk->device(), write, disk->Mark("written"), unmount ...
//   ASSERT_OK_AND_ASSIGN(auto events, disk->Finish());
//
// It is a loop device above a file of a FUSE file system that nobody can see:
// its mount is detached. A forked process answers the kernel's requests. Kill
// that or its parent, and reads and writes fail; loop device and mount go with
// the last who uses them.
#ifndef CAISSON_TESTS_SUPPORT_RECORDED_DISK_H_
#define CAISSON_TESTS_SUPPORT_RECORDED_DISK_H_

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/unique_fd.h"

namespace caisson::testing {

struct DiskEvent {
  enum Kind : uint64_t {
    kWrite,
    kZero,   // as a write of zeros
    kFlush,  // what was written before is on the disk
    kMark,   // of the test: `data`
  };
  Kind kind = kFlush;
  uint64_t offset = 0;
  uint64_t size = 0;
  std::string data;  // empty for kZero and kFlush
};

// A loop device, until the last descriptor of it is closed and it is mounted
// nowhere.
struct LoopDevice {
  std::string path;
  UniqueFd fd;
};
absl::StatusOr<LoopDevice> AttachLoop(BorrowedFd file, uint32_t block_size);

// Files in memory: one of `size` bytes that the shell command `mkfs`, with the
// file's path behind it, has filled; a copy.
absl::StatusOr<UniqueFd> MakeDisk(const std::string& mkfs, uint64_t size);
absl::StatusOr<UniqueFd> CopyDisk(BorrowedFd disk);

// Does to `disk` what an event says, from `begin` to `end`, bytes of the event.
absl::Status Apply(const DiskEvent& event, BorrowedFd disk, uint64_t begin,
                   uint64_t end);
inline absl::Status Apply(const DiskEvent& event, BorrowedFd disk) {
  return Apply(event, disk, 0, event.size);
}

// Thread-hostile: it forks.
class RecordedDisk final {
 public:
  // A disk with the content of `disk`, which stays as it is.
  static absl::StatusOr<std::unique_ptr<RecordedDisk>> Create(
      BorrowedFd disk, uint32_t block_size);
  RecordedDisk(const RecordedDisk&) = delete;
  RecordedDisk& operator=(const RecordedDisk&) = delete;
  ~RecordedDisk();

  const std::string& device() const { return loop_.path; }
  // Puts `text` behind everything that has happened so far.
  absl::Status Mark(absl::string_view text);

  // All events. The disk must be unmounted; it is gone afterwards.
  absl::StatusOr<std::vector<DiskEvent>> Finish();

 private:
  RecordedDisk() = default;
  void StopServer();

  UniqueFd log_;
  UniqueFd marks_;
  LoopDevice loop_;
  pid_t server_ = -1;
};

}  // namespace caisson::testing

#endif  // CAISSON_TESTS_SUPPORT_RECORDED_DISK_H_
