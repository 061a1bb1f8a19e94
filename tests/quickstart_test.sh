#!/bin/bash
# The quickstart with the examples/run of this build.
set -euo pipefail

if ((EUID != 0)); then
  echo "needs root: it makes containers with a bridge network"
  exit "$((${CAISSON_TESTS_MUST_RUN:-0} == 1))"
fi
# In the checkout itself, whose cache directory has the images.
root=$(dirname -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")")
export CAISSON_RUN=$TEST_SRCDIR/$TEST_WORKSPACE/examples/run/run
exec "$root/examples/quickstart.sh" --check
