#!/bin/bash
# What is shown of a command with limits, and how its end is told.
set -uo pipefail
limits=$1

if ((EUID != 0)); then
  echo "needs root: it starts containers"
  exit "$((${CAISSON_TESTS_MUST_RUN:-0} == 1))"
fi
root=$(mktemp -d "${TEST_TMPDIR:-/tmp}/limits.XXXXXX") || exit 1
trap 'rm -rf "$root"' EXIT
mkdir "$root/bin" "$root/etc"
install -d -m 1777 "$root/tmp"
chmod 755 "$root"
cp /bin/busybox "$root/bin/busybox"

failures=0
# expect CODE PATTERN COMMAND...: exit code and output.
expect() {
  local code=$1 pattern=$2 output actual=0
  shift 2
  output=$("$@" 2>&1) || actual=$?
  [[ $actual == "$code" && $output =~ $pattern ]] && return
  echo "FAILED   $*: exit code $actual, not $code, or output not like \"$pattern\": $output"
  ((failures += 1))
}
limited() { "$limits" -i 0.05 "$@"; }
shell() { limited -m 32m -c 0.5 -p 8 "$root" busybox sh -c "$1"; }

header='   CPU %  MEMORY / LIMIT           PIDS / LIMIT     READ / WRITTEN         WAITED %   THROTTLED'
bytes='[0-9.]+ (B|KiB|MiB)'
row=" +([0-9.]+|-)  $bytes / 32.0 MiB +[0-9]+ / 8 +"
expect 0 "^$header"$'\n'"$row" shell 'busybox usleep 200000'
expect 7 'exited with code 7; .* of CPU, ' shell 'exit 7'
expect 143 'killed by signal 15' shell 'kill -TERM $$'
expect 0 '^ +CPU.* / no limit +' limited "$root" busybox true
# Three forks fit below the limit no more: the shell says so.
expect 2 "can't fork" limited -p 2 "$root" busybox sh -c 'busybox sleep 1 & busybox sleep 1 & wait'
expect 137 'out of memory' limited -m 16m "$root" busybox sh -c \
  'exec busybox dd if=/dev/zero of=/dev/null bs=64M count=1'
# The output of the command is its own.
[[ $(limited "$root" busybox echo out 2>/dev/null) == out ]] || {
  echo "FAILED   standard output"
  ((failures += 1))
}
# On a terminal the table is drawn over the one before, and --plain does not do so.
in_terminal() { script -qec "$*" /dev/null </dev/null; }
up=$'\e\\[2A\e\\[J'
expect 0 "$up" in_terminal "$limits" -i 0.05 "$root" busybox usleep 300000
plain=$(in_terminal "$limits" -i 0.05 --plain "$root" busybox usleep 300000)
[[ $plain == *"CPU %"* && $plain != *$'\e'* ]] || {
  echo "FAILED   --plain: $plain"
  ((failures += 1))
}
expect 125 'is no directory' "$limits" "$root/bin/busybox" x
expect 125 'nonsense' "$limits" "$root" nonsense
expect 2 'see --help' "$limits"
expect 2 'expected a number' "$limits" -c many "$root" x
expect 0 '^usage: limits' "$limits" --help
((failures == 0))
