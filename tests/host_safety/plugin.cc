// A plugin that brings the library along: a host loads it and unloads it.
#include <stdio.h>

#include "absl/status/status.h"
#include "tests/host_safety/workload.h"
#include "tests/support/test_root.h"

// Starts that many containers; 0 on success.
extern "C" __attribute__((visibility("default"))) int StartFromPlugin(
    int starts) {
  const caisson::testing::TestRoot root;
  const absl::Status status = caisson::testing::StartMany(root, starts);
  if (!status.ok()) fprintf(stderr, "plugin: %s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
