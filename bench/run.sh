#!/bin/bash
# Builds and runs the benchmarks, prints how caisson compares, and writes it down.
set -uo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd) || exit 1
# shellcheck source=third_party/progress.sh
. "$root/third_party/progress.sh"

usage() {
  cat <<'USAGE'
usage: bench/run.sh [--json FILE] [--rounds N] [--bin DIR]

Measures, as root, a start of a static `true` in the full default composition
with everything that follows until nothing of it is left:

  start       beside bench/floor, a C program that makes the same system calls
  start_net   with an endpoint in a bridge network, beside the floor with one
  start_heap  from a host with 2 GiB of touched heap and 200 threads, beside start

All run in turn, one start each, N times. bench/README.md says more.

  --json FILE  write one JSON object a row
  --rounds N   500 by default
  --bin DIR    of the programs, instead of building them with -c opt
USAGE
}

json='' rounds=500 bin=''
while (($#)); do
  case $1 in
    -h | --help) usage && exit 0 ;;
    --json | --rounds | --bin)
      (($# > 1)) || die "$1 needs a value"
      case $1 in
        --json) json=$2 ;;
        --rounds) rounds=$2 ;;
        --bin) bin=$2 ;;
      esac
      shift 2
      ;;
    *)
      usage >&2
      exit 2
      ;;
  esac
done
[[ $rounds =~ ^[1-9][0-9]{0,6}$ ]] || die "--rounds $rounds is not a number of rounds"
((EUID == 0)) || die "only root can start these containers"
[[ -z $json || $json == /* ]] || json=$PWD/$json
[[ -z $bin || $bin == /* ]] || bin=$PWD/$bin
cd "$root" || exit 1

scratch=$(mktemp -d "${TMPDIR:-/tmp}/caisson-bench.XXXXXX") || exit 1
built=0
bazel_log=$scratch/bazel.log
# shellcheck source=third_party/bazel.sh
. third_party/bazel.sh

# What measured programs leave when they are killed: their names end in a pid.
remove_remains() {
  local remains pid bridge
  for remains in /run/caisson-bench-* /sys/fs/cgroup/{,*/}caisson-bench-*; do
    pid=${remains##*-}
    [[ -d $remains && ! -e /proc/$pid ]] || continue
    if [[ $remains == /sys/* ]]; then
      find "$remains" -depth -type d -exec rmdir {} \;
      continue
    fi
    bridge=$(sed -n 's/^bridge //p' "$remains"/{,*/}network 2>/dev/null)
    [[ -z $bridge ]] || ip link delete "$bridge" 2>/dev/null
    rm -rf -- "$remains"
  done
}

# shellcheck disable=SC2317  # called by traps
clean_up() {
  local measuring
  trap - EXIT INT TERM HUP
  # It lets its programs clean up.
  mapfile -t measuring < <(jobs -p)
  ((!${#measuring[@]})) || kill -TERM "${measuring[@]}" 2>/dev/null
  wait
  remove_remains
  ((!built)) || bazel_in "" shutdown >/dev/null 2>&1
  rm -rf -- "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

build() {
  mkdir -p "$CAISSON_CACHE_DIR" || return 1
  built=1
  step "building the benchmarks" logged_bazel "" build -c opt //bench/... || return 1
  bin=$(bazel_in "" info -c opt bazel-bin 2>/dev/null)/bench
}

make_root() {
  local image=$scratch/root
  mkdir -p "$image"/{dev,etc,proc,sys,tmp} || return 1
  chmod -R 755 "$image"
  echo 'root:x:0:0:root:/root:/bin/sh' >"$image/etc/passwd"
  echo 'root:x:0:' >"$image/etc/group"
  : >"$image/etc/hostname"
  : >"$image/etc/hosts"
  : >"$image/etc/resolv.conf"
  install -m 755 "$bin/true" "$image/true"
}

# Sets the fields that say where a row was measured.
describe_machine() {
  local cpu kernel cores date
  cpu=$(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1 | tr -d '"' | tr -s ' ')
  kernel=$(uname -r) cores=$(nproc) date=$(date -u +%Y-%m-%d)
  machine=$(printf '"kernel": "%s", "cpu": "%s", "cores": %d, "date": "%s"' \
    "$kernel" "${cpu:-$(uname -m)}" "$cores" "$date")
  printf 'Linux %s, %s, %d cores, %s, load %s\n' "$kernel" "${cpu:-$(uname -m)}" "$cores" \
    "$date" "$(cut -d ' ' -f 1 /proc/loadavg)"
}

measure() {
  local image=$scratch/root
  "$bin/compare" --rounds "$rounds" --json "$scratch/rows" \
    start:floor start_net:floor_net start_heap:start -- \
    "start=$bin/worker $image" \
    "start_net=$bin/worker $image --net" \
    "start_heap=$bin/worker $image --heap-mib 2048 --threads 200" \
    "floor=$bin/floor $image" \
    "floor_net=$bin/floor $image --net" </dev/null &
  # A trap interrupts this, but not a command in the foreground.
  wait "$!"
}

write_json() {
  local row
  while read -r row; do
    printf '%s, %s}\n' "${row%\}}" "$machine"
  done <"$scratch/rows" >"$scratch/json" && cat "$scratch/json" >"$json"
}

if [[ -z $bin ]]; then
  third_party/install_deps.sh && build || exit 1
fi
make_root || die "the root directory could not be made"
describe_machine
measure || die "the measurement failed"
[[ -z $json ]] || write_json || die "$json could not be written"
