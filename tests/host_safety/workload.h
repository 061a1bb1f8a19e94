// What the hosts of these tests do with the library.
#ifndef CAISSON_TESTS_HOST_SAFETY_WORKLOAD_H_
#define CAISSON_TESTS_HOST_SAFETY_WORKLOAD_H_

#include "absl/status/status.h"
#include "caisson/launcher.h"
#include "tests/support/test_root.h"

namespace caisson::testing {

// Starts a container that exits with a code of its own and waits for it; every
// tenth `number` also executes a second program in it. Fails if anything is
// not as it should be, also if something of the host is inside.
absl::Status StartOne(Launcher& launcher, const TestRoot& root, int number);

// A launcher, `starts` containers one after another, and its end.
absl::Status StartMany(const TestRoot& root, int starts);

// A Container from its creation to its removal, with a second program. Fails as
// StartOne() does.
absl::Status KeepOne(const TestRoot& root);

}  // namespace caisson::testing

#endif  // CAISSON_TESTS_HOST_SAFETY_WORKLOAD_H_
