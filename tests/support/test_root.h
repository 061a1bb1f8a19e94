// A small root directory for tests that start containers: busybox with its
// applets, a passwd and a group file.
#ifndef CAISSON_TESTS_SUPPORT_TEST_ROOT_H_
#define CAISSON_TESTS_SUPPORT_TEST_ROOT_H_

#include <array>
#include <deque>
#include <mutex>
#include <string>

#include "caisson/root_fs.h"
#include "caisson/unique_fd.h"

namespace caisson::testing {

// Makes the directory in the constructor and removes it in the destructor.
// Aborts the test program if it cannot: nothing can be tested then.
class TestRoot final {
 public:
  TestRoot();
  TestRoot(const TestRoot&) = delete;
  TestRoot& operator=(const TestRoot&) = delete;
  ~TestRoot();

  const std::string& path() const { return path_; }
  BorrowedFd fd() const { return fd_.borrow(); }
  void Write(const std::string& name, const std::string& content,
             unsigned mode = 0755) const;

  // Options for a root whose writes go to memory. Before Linux 6.15: into new
  // directories beside this one, whose descriptors stay open and are in no
  // snapshot; and if this process is not root, into this root itself.
  // Thread-safe.
  RootFsOptions Options() const;
  // Without writes, for a test that says itself where they go.
  RootFsOptions ReadOnlyOptions() const;

 private:
  void WriteIntoNewDirectories(RootFsOptions& options) const;

  std::string path_;
  UniqueFd fd_;
  mutable std::mutex mutex_;
  mutable std::deque<std::array<UniqueFd, 2>> pairs_;
};

// Whether a descriptor's file is one that TestRoot::Options() has opened.
bool IsWritesOfTestRoot(const std::string& path);

// What a test may leave behind of each kind: nothing. Compare two snapshots.
struct HostSnapshot {
  std::string mounts;       // /proc/self/mountinfo
  std::string descriptors;  // of this process, with what they refer to
  std::string children;     // of all threads of this process
  std::string cgroups;      // directories below /caisson-test in any hierarchy
};
HostSnapshot TakeHostSnapshot();

}  // namespace caisson::testing

#endif  // CAISSON_TESTS_SUPPORT_TEST_ROOT_H_
