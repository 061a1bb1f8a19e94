#!/bin/bash
# bench/run.sh in a few rounds: every row is there with every field, and nothing
# is left of a run, finished or interrupted, or of programs that were killed
# before. How long anything took is not tested.
set -uo pipefail

if ((EUID != 0)); then
  echo "needs root: it starts containers"
  exit "$((${CAISSON_TESTS_MUST_RUN:-0} == 1))"
fi
run=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/run.sh
bin=$TEST_SRCDIR/$TEST_WORKSPACE/bench
work=$(mktemp -d "${TEST_TMPDIR:-/tmp}/bench.XXXXXX")
export TMPDIR=$work
failures=0
trap 'rm -rf "$work"' EXIT

check() {
  local name=$1
  shift
  if "$@"; then
    echo "ok       $name"
  else
    echo "FAILED   $name"
    ((failures += 1))
  fi
}

# Everything that a start, a network or a killed program may leave on a host.
host_state() {
  grep -F "$work" /proc/self/mounts
  ip -o link | cut -d: -f2 | grep '^ c[sf]'
  nft list tables | grep caisson-bench
  find /sys/fs/cgroup -path '*/caisson-bench-*' -type d
  ls -d /run/caisson-bench-* "$work"/caisson-bench.* 2>/dev/null
}

# rows_against PEER: 1 if it is installed, and so gets a row.
rows_against() {
  command -v "$1" >/dev/null
  echo "$((!$?))"
}

number='-?[0-9]+(\.[0-9]+)?' text='"[^"]+"'
machine="\"kernel\": $text, \"cpu\": $text, \"cores\": [1-9][0-9]*, \"date\": $text"

# count_rows PATTERN: lines of the JSON file that have these fields and no others but
# those of the machine.
count_rows() {
  grep -cxE "\{$1, $machine\}" "$work/rows.json"
}

# has_rows N NAME AGAINST
has_rows() {
  local pattern
  pattern="\"name\": \"$2\", \"unit\": \"us\", \"median\": $number, \"p90\": $number, \"n\": 20, "
  pattern+="\"against\": \"$3\", \"against_median\": $number, \"ratio\": $number, "
  pattern+="\"ratio_q1\": $number, \"ratio_q3\": $number"
  (($(count_rows "$pattern") == $1))
}

has_memory_row() {
  local pattern field
  pattern="\"name\": \"memory_per_container\", \"unit\": \"bytes\", \"value\": $number, \"n\": 100"
  for field in host launcher program kernel_memory {host,launcher}_descriptors; do
    pattern+=", \"$field\": $number"
  done
  (($(count_rows "$pattern") == 1))
}

rejects() {
  local status=0
  "$run" "$@" >"$work/output" 2>&1 || status=$?
  ((status != 0)) && [[ -s $work/output ]]
}

# The first line comes before the measurement: the signal meets it anywhere.
interrupt() {
  local _ status=0 pid
  exec {lines}< <(exec "$run" --bin "$bin" --rounds 1000000 2>&1)
  pid=$!
  read -r -u "$lines" _
  kill -"$1" "$pid"
  cat <&"$lines" >/dev/null # until the last of them has ended
  wait "$pid" || status=$?
  exec {lines}<&-
  ((status == $2))
}

# Kills a program after a round; false unless that leaves something.
kill_program() {
  local pid answered
  rm -f "$work"/{to,from}
  mkfifo "$work"/{to,from}
  "$bin/$1" "$work/root" --net <"$work/to" >"$work/from" &
  pid=$!
  exec {to}>"$work/to" {from}<"$work/from"
  printf g >&"$to"
  answered=$(head -c 8 <&"$from" | wc -c)
  kill -KILL "$pid"
  wait "$pid" 2>/dev/null
  exec {to}>&- {from}<&-
  ((answered == 8)) && [[ -d /run/caisson-bench-$pid ]]
}

make_root() {
  mkdir -p "$work"/root/{dev,etc,proc,sys} &&
    touch "$work"/root/etc/{passwd,group,hostname,hosts,resolv.conf} &&
    install -m 755 "$bin/true" "$bin/wait" "$work/root"
}

before=$(host_state)
make_root || exit 1
check "killed worker" kill_program worker
check "killed floor" kill_program floor
check "20 rounds" \
  "$run" --bin "$bin" --rounds 20 --containers 100 --json "$work/rows.json"
cat "$work/rows.json"
for row in start:floor start_net:floor_net start_heap:start \
  start_throughput:floor_throughput exec:start cgroup_stats:open_read_close; do
  check "row $row" has_rows 1 "${row%:*}" "${row#*:}"
done
rows=7
for peer in runc crun bwrap; do
  installed=$(rows_against "$peer")
  ((rows += installed))
  check "$installed rows against $peer" has_rows "$installed" start "$peer"
  [[ $peer != bwrap ]] || continue
  ((rows += installed))
  check "$installed rows of oci_run against $peer" has_rows "$installed" oci_run "$peer"
done
check "row memory_per_container" has_memory_row
check "$rows rows" [ "$(wc -l <"$work/rows.json")" = "$rows" ]
check "interrupted by SIGTERM" interrupt TERM 143
check "interrupted by SIGINT" interrupt INT 130
after=$(host_state)
check "nothing left" diff <(echo "$before") <(echo "$after")
check "--help" [ -n "$("$run" --help)" ]
check "an unknown option" rejects --sideways
check "a bad number of rounds" rejects --rounds 0
check "a bad number of containers" rejects --containers many
check "programs that are not there" rejects --bin "$work"
exit "$((failures != 0))"
