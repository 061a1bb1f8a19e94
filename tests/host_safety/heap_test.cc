// A host with 4 GiB of memory in use: none of it is copied or write-protected
// by a start, as fork(2) would do to all of it.
#include <errno.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <cstddef>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "tests/host_safety/scenario.h"
#include "tests/host_safety/workload.h"
#include "tests/support/test_root.h"

namespace caisson {
namespace {

constexpr size_t kHeap = size_t{4} << 30;
// At most a huge page, each of which would fault once.
constexpr size_t kStep = size_t{2} << 20;
constexpr int kStarts = 60;

long MinorFaults() {
  rusage usage = {};
  ::getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt;
}

// Not instrumented: the sanitizers' own memory for it would fault, too.
__attribute__((no_sanitize("address"), no_sanitize("thread"), noinline)) void
WriteAll(volatile char* bytes) {
  for (size_t i = 0; i < kHeap; i += kStep) bytes[i] = 1;
}

absl::Status HasHeap() {
  void* memory = ::mmap(nullptr, kHeap, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (memory == MAP_FAILED) return ErrnoError(errno, "mmap(4 GiB)");
  const testing::TestRoot root;
  RETURN_IF_ERROR(testing::LeavesTheHostAlone(
      [&] { return testing::StartMany(root, kStarts); }));
  const long before = MinorFaults();
  WriteAll(static_cast<char*>(memory));
  const long faults = MinorFaults() - before;
  ::munmap(memory, kHeap);
  if (faults < static_cast<long>(kHeap / kStep / 10)) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat(faults, " page faults in memory that was in use"));
}

TEST(HeapTest, Has4GiB) { EXPECT_TRUE(testing::Passes("heap")); }

}  // namespace
}  // namespace caisson

int main(int argc, char** argv) {
  return caisson::testing::RunTestsOrScenario(argc, argv,
                                              {{"heap", caisson::HasHeap}});
}
