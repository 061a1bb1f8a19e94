#!/bin/bash
# What a judged program may do, and what is said about the rest.
set -uo pipefail
judge=$1

if ((EUID != 0)); then
  echo "needs root: it starts containers"
  exit "$((${CAISSON_TESTS_MUST_RUN:-0} == 1))"
fi
root=$(mktemp -d "${TEST_TMPDIR:-/tmp}/judge.XXXXXX") || exit 1
trap 'rm -rf "$root"' EXIT
mkdir "$root/bin" "$root/etc" "$root/secret"
install -d -m 1777 "$root/tmp"
chmod 755 "$root"
cp /bin/busybox "$root/bin/busybox"
echo hidden >"$root/secret/file"
chmod 755 "$root/secret"

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
judged() { "$judge" "$root" busybox "$@"; }

expect 0 '^in' judged cat <<<in
expect 0 'exited with code 0' judged sh -c 'echo x >/tmp/x && read line </tmp/x'
expect 1 'exited with code 1' judged cat /secret/file
expect 1 "can't open '/secret/file': Permission denied" judged sh -c 'exec 2>&1; exec busybox cat /secret/file'
expect 1 'forbidden system call' judged sh -c 'busybox true; busybox true'
expect 1 'forbidden system call' judged nc -l -p 1
expect 1 'forbidden system call' judged unshare true
expect 3 'nonsense' "$judge" "$root" nonsense
expect 3 'ROOT is no directory' "$judge" "$root/bin/busybox" x
expect 2 '^usage: judge' "$judge"
expect 0 'the end of the process: no_new_processes' "$judge" --explain
case $(uname -m) in
  x86_64) socket='arch=c000003e syscall=41' ;;
  *) socket='arch=c00000b7 syscall=198' ;;
esac
expect 0 '^socket: .*no_network' "$judge" --explain-log \
  <<<"audit: type=1326 sig=31 $socket compat=0"
((failures == 0))
