#include "lib/layer/test_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "caisson/unique_fd.h"
#include "gtest/gtest.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/layer/test_store.h"
#include "lib/sys/open.h"

namespace caisson::layer {
namespace {

absl::StatusOr<UniqueFd> MakeImage(const TestDisk& disk) {
  char path[] = "/tmp/caisson-disk-XXXXXX";
  UniqueFd image(::mkostemp(path, O_CLOEXEC));
  if (!image.valid()) return ErrnoError(errno, "mkostemp()");
  const bool sized =
      ::ftruncate(image.get(), static_cast<off_t>(disk.bytes)) == 0;
  const int status =
      sized ? ::system(absl::StrCat(disk.mkfs, " ", path, " >&2").c_str()) : -1;
  ::unlink(path);
  if (status == 0) return image;
  return absl::InternalError(absl::StrCat(disk.mkfs, ": status ", status));
}

// A device that goes with its last user, which is the mount.
absl::StatusOr<UniqueFd> MakeDevice(BorrowedFd image, std::string& path) {
  ASSIGN_OR_RETURN(const UniqueFd control,
                   sys::Open("/dev/loop-control", O_RDWR));
  struct loop_config config = {};
  config.fd = static_cast<uint32_t>(image.get());
  config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
  for (;;) {
    const int number = ::ioctl(control.get(), LOOP_CTL_GET_FREE);
    if (number < 0) return ErrnoError(errno, "ioctl(LOOP_CTL_GET_FREE)");
    path = absl::StrCat("/dev/loop", number);
    absl::StatusOr<UniqueFd> device = sys::Open(path, O_RDWR);
    if (!device.ok() && !absl::IsNotFound(device.status())) return device;
    if (!device.ok()) continue;
    if (::ioctl(device->get(), LOOP_CONFIGURE, &config) == 0) return device;
    // Somebody else was faster.
    if (errno != EBUSY) return ErrnoError(errno, "ioctl(LOOP_CONFIGURE)");
  }
}

}  // namespace

absl::Status MountDisk(const TestDisk& disk, const std::string& target) {
  ASSIGN_OR_RETURN(const UniqueFd image, MakeImage(disk));
  std::string path;
  ASSIGN_OR_RETURN(const UniqueFd device, MakeDevice(image.borrow(), path));
  if (::mount(path.c_str(), target.c_str(), disk.type.c_str(), 0,
              disk.options.c_str()) != 0) {
    return ErrnoError(
        errno, absl::StrCat("mount(", disk.type, ", ", disk.options, ")"));
  }
  return absl::OkStatus();
}

void OnDisk(const TestDisk& disk, const std::string& target,
            const std::function<void(const absl::Status& mounted)>& body) {
  if (::access(target.c_str(), F_OK) != 0) {
    ASSERT_EQ(::mkdir(target.c_str(), 0700), 0);
  }
  ExpectInChild([&] {
    EXPECT_EQ(::unshare(CLONE_NEWNS), 0);
    EXPECT_EQ(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
    body(MountDisk(disk, target));
    return true;
  });
}

bool InTheVm() {
  return absl::StrContains(ReadFile("/proc/cmdline"), "caisson.guest=");
}

}  // namespace caisson::layer
