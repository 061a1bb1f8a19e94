#!/bin/bash
# examples/run as a person uses it: exit codes, messages, and a clean host after
# every failure.
# What stands in single quotes is for the shell in the container.
# shellcheck disable=SC2016
set -uo pipefail

if ((EUID != 0)); then
  echo "needs root: it starts containers"
  exit "$((${CAISSON_TESTS_MUST_RUN:-0} == 1))"
fi
root=$(dirname -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")")
run=$TEST_SRCDIR/$TEST_WORKSPACE/examples/run/run
images=${CAISSON_IMAGES:-$("$root/examples/make_images.sh")} || exit 1
busybox=docker-archive:$images/busybox.docker.tar
work=$(mktemp -d "${TEST_TMPDIR:-/tmp}/run.XXXXXX")
failures=0
trap 'rm -rf "$work"' EXIT

# Everything that a container may leave on a host.
host_state() {
  cat /proc/self/mounts
  ip -o link | cut -d: -f2
  nft list tables
  find /sys/fs/cgroup -path '*/caisson*' -type d 2>/dev/null
  find /run/caisson/net -mindepth 1 ! -name '*.lock' 2>/dev/null
  ls "$work/store/writable" 2>/dev/null
  grep -lx caisson-launch /proc/[0-9]*/comm 2>/dev/null
}

# The kernel takes a dead container's interfaces down in the background.
unchanged() { [[ $(host_state) == "$before" ]]; }
expect_clean() {
  await unchanged && return
  echo "FAILED   something was left behind $1:"
  diff <(printf '%s\n' "$before") <(host_state)
  ((failures += 1))
}

# expect NAME CODE PATTERN COMMAND...: exit code and output of a command.
expect() {
  local name=$1 code=$2 pattern=$3 output status=0
  shift 3
  output=$("$@" 2>&1 </dev/null) || status=$?
  if ((status == code)) && grep -qE -- "$pattern" <<<"$output"; then
    echo "ok       $name"
  else
    echo "FAILED   $name: exit code $status, expected $code; output:"
    printf '%s\n' "$output" | sed 's/^/         /'
    ((failures += 1))
  fi
}

in_container() { "$run" --store "$work/store" --rm --network none "$@"; }

# Waits until a condition holds, at most ten seconds.
await() {
  for _ in {1..200}; do
    "$@" && return
    read -r -t 0.05 <> <(:) || true
  done
  return 1
}

mkdir "$work/store"
in_container "$busybox" true || exit 1
before=$(host_state)

# Exit codes.
expect "exit code of the program" 42 '' in_container busybox sh -c 'exit 42'
expect "signal" 137 '' in_container busybox sh -c 'sh -c "kill -9 \$\$"; exit $?'
expect "unknown command" 127 'executable file not found in \$PATH' in_container busybox nonesuch
expect "missing file" 127 'execve\("/no/such"\): ENOENT' in_container busybox /no/such
expect "not executable" 126 'not executable' in_container busybox /etc/passwd
expect "directory" 126 'directory' in_container busybox /etc

# What it says when a container cannot be set up.
expect "unknown image" 125 'nonesuch' in_container nonesuch true
expect "no image" 125 'no image' "$run"
expect "unknown option" 125 '' "$run" --nonesuch
expect "unknown user" 125 'user "nobody-here" is not in' in_container --user nobody-here busybox true
expect "bad memory" 125 '--memory "1x": expected' in_container -m 1x busybox true
expect "bad port" 125 '--publish "80x": expected' in_container -p 80x busybox true
expect "missing volume" 125 '/no/such/source' in_container -v /no/such/source:/x busybox true
expect "bad name" 125 'name' in_container --name 'a/b' busybox true
printf 'no archive at all' >"$work/garbage.tar"
expect "garbage image" 125 'garbage.tar' in_container "docker-archive:$work/garbage.tar" true
head -c 300000 "$images/busybox.docker.tar" >"$work/short.tar"
expect "truncated image" 125 'short.tar' in_container "docker-archive:$work/short.tar" true
expect "no permission" 125 'EACCES|EPERM|permitted|ermission' \
  setpriv --reuid=65534 --regid=65534 --clear-groups "$run" --store "$work/store" --network none busybox true
# Of v1; on v2 the lists of controllers decide, which a test cannot take away.
! mountpoint -q /sys/fs/cgroup/memory ||
  expect "no memory controller" 125 'memory' unshare -m --propagation private sh -c \
  "umount /sys/fs/cgroup/memory && exec '$run' --store '$work/store' --rm --network none -m 64m busybox true"
expect "full disk at import" 125 'ENOSPC|no space' unshare -m --propagation private sh -c \
  "mkdir '$work/small' && mount -t tmpfs -o size=300k none '$work/small' &&
   mkdir '$work/small/store' && '$run' --store '$work/small/store' --network none '$busybox' true; c=\$?
   test -z \"\$(ls '$work/small/store/staging' 2>/dev/null)\" || echo left behind; exit \$c"

# Options do what they say.
expect "environment" 0 '^A=1$' in_container -e A=1 busybox env
expect "working directory" 0 '^/var/new$' in_container -w /var/new busybox pwd
expect "user" 0 '^1234 5678$' in_container -u 1234:5678 busybox sh -c 'echo $(id -u) $(id -g)'
expect "host name" 0 '^box$' in_container --name box busybox hostname
expect "read-only" 1 'Read-only file system' in_container --read-only busybox touch /x
echo content >"$work/file"
expect "volume" 0 '^content$' in_container -v "$work/file:/in:ro" busybox cat /in
expect "read-only volume" 1 'Read-only file system' in_container -v "$work/file:/in:ro" busybox sh -c 'echo x > /in'
expect "named volume" 0 '^kept$' sh -c "
  '$run' --store '$work/store' --rm --network none -v data:/data busybox sh -c 'echo kept > /data/file' &&
  '$run' --store '$work/store' --rm --network none -v data:/elsewhere:ro busybox cat /elsewhere/file"
expect "read-only named volume" 1 'Read-only file system' in_container -v data:/data:ro busybox touch /data/x
expect "volume with the image's content" 0 '^root:' in_container -v etc:/etc busybox cat /etc/passwd
expect "volume without it" 1 'No such file' in_container -v empty:/etc:nocopy busybox cat /etc/passwd
expect "anonymous volume" 0 '' in_container -v /scratch busybox touch /scratch/x
expect "it goes with its container" 0 '^data empty etc $' sh -c "ls '$work/store/volumes/volumes' | tr '\n' ' '"
expect "bad volume" 125 'name of a volume' in_container -v 'a+b:/x' busybox true
expect "bad volume option" 125 '--volume "a:/x:what": expected' in_container -v a:/x:what busybox true
expect "tmpfs" 0 '^tmpfs  *64 ' in_container --tmpfs /run:size=64k busybox df -k /run
expect "tmpfs with the image's content" 0 '^root:' in_container --tmpfs /etc:tmpcopyup busybox cat /etc/passwd
expect "device" 0 '^5$' in_container --device /dev/zero:/dev/my/zero busybox sh -c 'head -c 5 /dev/my/zero | wc -c'
expect "no device" 125 'is not a device node' in_container --device "$work/file:/dev/x" busybox true
expect "memory limit" 137 'out of memory: the kernel killed 1 process' in_container -m 24m busybox tail /dev/zero
expect "process limit" 0 "can't fork" in_container --pids-limit 3 busybox sh -c '(sleep 9 & sleep 9 & sleep 9 & sleep 9 &) ; exit 0'
expect "published port is in use" 125 'already|in use' sh -c "
  '$run' --store '$work/store' --rm --name first -p 127.0.0.1:28471:80 busybox \
    sh -c 'trap exit TERM; sleep 100 & wait' & pid=\$!
  i=0; until ip -o link | grep -q 'cs.*master'; do i=\$((i + 1)); test \$i -lt 200 || exit 9; sleep 0.05; done
  '$run' --store '$work/store' --rm --name second -p 127.0.0.1:28471:80 busybox true; code=\$?
  kill -TERM \$pid; wait \$pid; exit \$code"
expect "terminal" 3 '/dev/pts/0' script -qec \
  "'$run' --store '$work/store' --rm --network none -it busybox sh -c 'tty; stty size; exit 3'" /dev/null
expect "kept without --rm" 0 '' "$run" --store "$work/store" --network none --name keeper busybox touch /kept
[[ -e $work/store/kept/keeper/upper/kept ]] || { echo "FAILED   kept layer is not there" && ((failures += 1)); }

# Ctrl-C reaches the program.
"$run" --store "$work/store" --rm --network none busybox \
  sh -c 'trap "exit 7" INT; echo ready; while :; do sleep 0.1; done' >"$work/out" &
pid=$!
await grep -qs ready "$work/out"
kill -INT "$pid"
wait "$pid"
expect "interrupt" 7 '' sh -c "exit $?"
rm "$work/out"

expect_clean "by a container or a failure"

# kill -9 in the middle: the container dies with its host, and the next run cleans up.
"$run" --store "$work/store" --rm --name victim busybox sh -c 'echo ready; sleep 1000' >"$work/out" &
pid=$!
await grep -qs ready "$work/out"
kill -KILL "$pid"
wait "$pid" 2>/dev/null
"$run" --store "$work/store" --rm --name next busybox true
expect_clean "by kill -9 and the next run"

echo "$failures failed"
exit "$((failures > 0))"
