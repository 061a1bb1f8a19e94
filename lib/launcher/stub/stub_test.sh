#!/bin/bash
# The launcher is static, small, has no interpreter and no executable stack, and
# builds for both architectures.
set -euo pipefail

check() {
  local file=$1 machine=$2 headers
  headers=$(readelf -hlW "$file")
  grep -q "Machine: *${machine}" <<<"$headers" || { echo "$file: not for ${machine}"; exit 1; }
  grep -q "Type: *EXEC" <<<"$headers" || { echo "$file: not a static executable"; exit 1; }
  ! grep -qE 'INTERP|DYNAMIC' <<<"$headers" || { echo "$file: dynamic"; exit 1; }
  grep -qE 'GNU_STACK.* RW ' <<<"$headers" || { echo "$file: executable stack"; exit 1; }
  local size
  size=$(stat -Lc %s "$file")
  [ "$size" -le 32768 ] || { echo "$file: $size bytes"; exit 1; }
}

check "$1" 'Advanced Micro Devices X86-64\|AArch64'
check "$2" AArch64
