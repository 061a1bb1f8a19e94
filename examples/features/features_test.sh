#!/bin/bash
# The program prints a table, answers questions by its exit code, and says what
# is wrong with them.
set -euo pipefail
features=$1

fail() {
  echo "$*" >&2
  exit 1
}

table=$("$features")
grep -qE '^kernel +linux +yes +[0-9]+\.' <<<"$table" || fail "no kernel: $table"
grep -qE '^ +user namespaces +(yes|no)' <<<"$table" || fail "no user namespaces: $table"
# Each "no" has a reason.
! grep -E '  no *$' <<<"$table" || fail "a reason is missing"

"$features" linux pidfds || fail "linux: $?"
code=0
"$features" nonsense 2>/dev/null || code=$?
((code == 2)) || fail "nonsense: $code"
missing=$(sed -nE 's/^.{12}(.*[^ ]) +no  +.*/\1/p' <<<"$table" | head -n 1)
if [[ -n $missing ]]; then
  code=0
  "$features" "$missing" 2>/dev/null || code=$?
  ((code == 1)) || fail "$missing: $code"
fi
"$features" --help | grep -q '^usage: features' || fail "no help"
