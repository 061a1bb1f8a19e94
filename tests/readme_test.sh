#!/bin/bash
# The program in the README is the one that is compiled.
set -euo pipefail
if ! awk '/^```cpp$/ {on = 1; next} /^```$/ {on = 0} on' README.md | diff - examples/hello/hello.cc; then
  echo "README.md and examples/hello/hello.cc differ"
  exit 1
fi
