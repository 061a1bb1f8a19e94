// A small file system of any type for tests, on a loop device in a mount
// namespace of its own: however the test ends, nothing of it is left.
#ifndef CAISSON_LIB_LAYER_TEST_DISK_H_
#define CAISSON_LIB_LAYER_TEST_DISK_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"

namespace caisson::layer {

struct TestDisk {
  std::string mkfs;  // a command that the path of the image is appended to
  std::string type = "ext4";
  std::string options;  // of mount(2), the file system's own
  uint64_t bytes = uint64_t{64} << 20;
};

// Makes the file system, in a file that loses its name at once, and mounts it
// at `target`, a directory, for as long as the caller's mount namespace is
// there. Call in a child that has one of its own.
absl::Status MountDisk(const TestDisk& disk, const std::string& target);

// Runs `body` in a child with the disk at `target`, mode 0700; `body` gets what
// came of mounting it.
void OnDisk(const TestDisk& disk, const std::string& target,
            const std::function<void(const absl::Status& mounted)>& body);

// Whether this is the VM of tests/vm, whose kernel has everything that these
// tests look for.
bool InTheVm();

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_TEST_DISK_H_
