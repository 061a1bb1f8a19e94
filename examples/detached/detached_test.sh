#!/bin/bash
# Each call is another program, which finds what the one before has left.
set -uo pipefail
detached=$1

if ((EUID != 0)); then
  echo "needs root: it starts containers"
  exit "$((${CAISSON_TESTS_MUST_RUN:-0} == 1))"
fi
scratch=$(mktemp -d "${TEST_TMPDIR:-/tmp}/detached.XXXXXX") || exit 1
root=$scratch/root jobs=$scratch/jobs
stop_all() {
  "$detached" "$jobs" stop web >/dev/null 2>&1
  rm -rf "$scratch"
}
trap stop_all EXIT
mkdir -p "$root/bin" "$root/etc"
chmod 755 "$scratch" "$root"
cp /bin/busybox "$root/bin/busybox"
for name in sh sleep ps echo cat; do ln -s busybox "$root/bin/$name"; done

failures=0
# expect CODE PATTERN WORD...: exit code and output.
expect() {
  local code=$1 pattern=$2 output actual=0
  shift 2
  output=$("$detached" "$jobs" "$@" 2>&1) || actual=$?
  [[ $actual == "$code" && $output =~ $pattern ]] && return
  echo "FAILED   $*: exit code $actual, not $code, or output not like \"$pattern\": $output"
  ((failures += 1))
}

expect 125 'No such file|no such file' list
expect 0 '^$' run web "$root" sh -c 'trap "exit 7" TERM; echo hello; while :; do sleep 1000 & wait; done'
expect 125 'web' run web "$root" sh -c 'sleep 1000'
expect 0 'web +running' list
expect 0 'sleep 1000' exec web ps
expect 3 '^$' exec web sh -c 'exit 3'
expect 125 'runs' forget web
expect 0 '^$' stop web
expect 0 'web +exited with code 7' list
expect 7 '^$' wait web
expect 125 'ListDetached|no launcher' exec web ps
[[ $(<"$jobs/web.log") == hello ]] || {
  echo "FAILED   the log: $(<"$jobs/web.log")"
  ((failures += 1))
}
expect 0 '^$' forget web
expect 125 'no launcher' wait web
expect 0 '^$' run web "$root" sh -c 'exec sleep 0.2'
expect 0 '^$' wait web
expect 2 'see --help' run web
compgen -G '/sys/fs/cgroup/*/caisson-detached' && {
  echo "FAILED   control groups are left"
  ((failures += 1))
}
[[ $("$detached" --help) == usage:* ]] || ((failures += 1))
exit "$((failures > 0))"
