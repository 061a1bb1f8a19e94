// What a test may expect of the machine that it runs on.
#ifndef CAISSON_TESTS_SUPPORT_MACHINE_H_
#define CAISSON_TESTS_SUPPORT_MACHINE_H_

#include <string>

#include "gtest/gtest.h"
#include "lib/base/status_matchers.h"

namespace caisson::testing {

bool IsKernelAtLeast(int major, int minor);

// How often a test repeats what only shows now and then: `times`, divided by
// $CAISSON_TEST_DIVISOR where that is set, as it is where a start takes 50
// times as long; at least once.
int Repetitions(int times);

}  // namespace caisson::testing

// Skips a test, or fails it where all must run (CAISSON_TESTS_MUST_RUN).
#define NEED_KERNEL(major, minor)                                             \
  if (!::caisson::testing::IsKernelAtLeast(major, minor)) {                   \
    const std::string caisson_reason =                                        \
        "needs Linux " + std::to_string(major) + "." + std::to_string(minor); \
    if (::caisson::testing::TestsMustRun()) {                                 \
      FAIL() << caisson_reason;                                               \
    }                                                                         \
    GTEST_SKIP() << caisson_reason;                                           \
  }                                                                           \
  static_assert(true)

#endif  // CAISSON_TESTS_SUPPORT_MACHINE_H_
