// What the tests on the real kernel share (tests only). Every test runs below
// /caisson-test-<pid> and leaves nothing there.
#ifndef CAISSON_LIB_CGROUP_KERNEL_FIXTURE_H_
#define CAISSON_LIB_CGROUP_KERNEL_FIXTURE_H_

#include <sys/resource.h>
#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

#include "caisson/cgroup.h"
#include "gtest/gtest.h"

namespace caisson {

// A child of the test, born in a group by a copy of the test's memory; killed
// and reaped by the destructor.
class Child final {
 public:
  // The child's exit code is what `body` returns.
  Child(const Cgroup& group, const std::function<int()>& body);
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  pid_t pid() const { return pid_; }
  // The wait status.
  int Wait();

 private:
  pid_t pid_ = -1;
};

// One byte or one PID from a child says that it has come so far.
class Signal final {
 public:
  Signal();
  void Send() const;
  void SendPid(pid_t pid) const;
  void Await();
  pid_t AwaitPid();
  // Waits until the children that have a copy have ended or become programs.
  void AwaitExec();

 private:
  UniqueFd read_;
  UniqueFd write_;
};

// For bodies of children: waits to be killed, but not for ever, in case that
// the test itself was killed.
int Sleep();
// Becomes a program that does the same.
int ExecSleep();
// Whether a fork bomb should give up, for the same reason.
bool ShouldGiveUp();
// Becomes a user of its own with few processes.
bool BecomeLimitedUser(rlim_t processes);

class CgroupKernelTest : public ::testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;

  // Fails if CAISSON_TESTS_MUST_RUN is set; does nothing if `missing` is empty.
  void SkipIf(const std::string& missing);

  // A CgroupParent that does not see mounts whose line in mountinfo contains
  // one of `hidden`.
  CgroupParent Open(std::vector<std::string> hidden = {});

  CgroupVersion VersionOf(CgroupController controller) const;
  static std::string DirectoryOf(const Cgroup& group,
                                 CgroupController controller);
  // A whole disk of this machine, "MAJOR:MINOR", and its name; "" without one.
  static std::string AnyDisk(std::string* name);
  // Without white space at the ends.
  static std::string ReadFile(const std::string& path);

  const CgroupParentOptions& options() const { return options_; }
  const CgroupLayout& layout() const { return layout_; }

 private:
  CgroupParentOptions options_;
  CgroupLayout layout_;
  int fds_ = 0;
};

}  // namespace caisson

#endif  // CAISSON_LIB_CGROUP_KERNEL_FIXTURE_H_
