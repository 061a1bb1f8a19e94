#include "tests/support/machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/utsname.h>

#include <algorithm>

namespace caisson::testing {

bool IsKernelAtLeast(int major, int minor) {
  utsname name = {};
  int this_major = 0;
  int this_minor = 0;
  return ::uname(&name) == 0 &&
         ::sscanf(name.release, "%d.%d", &this_major, &this_minor) == 2 &&
         (this_major > major || (this_major == major && this_minor >= minor));
}

int Repetitions(int times) {
  const char* divisor = ::getenv("CAISSON_TEST_DIVISOR");
  return divisor == nullptr ? times
                            : std::max(1, times / std::max(1, ::atoi(divisor)));
}

}  // namespace caisson::testing
