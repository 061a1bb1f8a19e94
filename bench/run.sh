#!/bin/bash
# Builds and runs the benchmarks, prints how caisson compares, and writes it down.
set -uo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd) || exit 1
# shellcheck source=third_party/progress.sh
. "$root/third_party/progress.sh"

usage() {
  cat <<'USAGE'
usage: bench/run.sh [--json FILE] [--rounds N] [--containers N] [--bin DIR]

Measures, as root, a start of a static `true` in the full default composition
with everything that follows until nothing of it is left:

  start             beside bench/floor, a C program that makes the same system calls,
                    and beside `runc run`, `crun run` and `bwrap`, where they are
                    installed (third_party/install_deps.sh --bench)
  oci_run           `caisson-oci run` of the bundle that runc and crun get, beside
                    these
  start_net         with an endpoint in a bridge network, beside the floor with one
  start_heap        from a host with 4 GiB of touched heap and 500 threads, beside start
  start_throughput  a start when 8 threads do them at once, beside 8 processes of the
                    floor
  exec              the program in a container that runs already, beside start
  cgroup_stats      a snapshot of all statistics of a control group, beside a bare loop
                    of open, read and close over the same files

All run in turn, one start each, N times. Then

  memory_per_container  of the host and its launcher, while many run

is printed. bench/README.md says more.

  --json FILE     write one JSON object a row
  --rounds N      500 by default
  --containers N  that run at once for the last row, 1000 by default
  --bin DIR       of the programs, instead of building them with -c opt; that of
                  caisson-oci is ../examples/oci from there
USAGE
}

json='' rounds=500 containers=1000 bin=''
while (($#)); do
  case $1 in
    -h | --help) usage && exit 0 ;;
    --json | --rounds | --containers | --bin)
      (($# > 1)) || die "$1 needs a value"
      case $1 in
        --json) json=$2 ;;
        --rounds) rounds=$2 ;;
        --containers) containers=$2 ;;
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
[[ $containers =~ ^[1-9][0-9]{0,4}$ ]] || die "--containers $containers is not a number of containers"
((EUID == 0)) || die "only root can start these containers"
[[ -z $json || $json == /* ]] || json=$PWD/$json
[[ -z $bin || $bin == /* ]] || bin=$PWD/$bin
cd "$root" || exit 1

scratch=$(mktemp -d "${TMPDIR:-/tmp}/caisson-bench.XXXXXX") || exit 1
built=0
bazel_log=$scratch/bazel.log
# shellcheck source=third_party/bazel.sh
. third_party/bazel.sh

# What measured programs leave when they are killed, and the parent of the peers'
# control groups, which is of this script: their names end in a pid.
remove_remains() {
  local remains pid bridge
  for remains in /run/caisson-bench-* /sys/fs/cgroup/{,*/}caisson-bench-*; do
    pid=${remains##*-}
    [[ -d $remains ]] || continue
    [[ $pid == "$$" || ! -e /proc/$pid ]] || continue
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
  step "building the benchmarks" logged_bazel "" build -c opt //bench/... //examples/oci:caisson-oci || return 1
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
  install -m 755 "$bin/true" "$bin/wait" "$image"
}

# For runc and crun: the same program with the same limits, capabilities and names
# of system calls, and Docker's mounts, in a root of its own.
make_bundle() {
  local bundle=$scratch/bundle
  mkdir "$bundle" && cp -a "$scratch/root" "$bundle/rootfs" || return 1
  local capabilities='["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD",
    "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE"]'
  cat >"$bundle/config.json" <<CONFIG
{
  "ociVersion": "1.0.2",
  "hostname": "bench",
  "root": {"path": "rootfs"},
  "process": {
    "args": ["/true"],
    "cwd": "/",
    "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"],
    "user": {"uid": 0, "gid": 0},
    "noNewPrivileges": true,
    "capabilities": {
      "bounding": $capabilities,
      "effective": $capabilities,
      "permitted": $capabilities
    }
  },
  "mounts": [
    {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
      "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
    {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
      "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
    {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
      "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
    {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
      "options": ["nosuid", "noexec", "nodev"]},
    {"destination": "/sys", "type": "sysfs", "source": "sysfs",
      "options": ["nosuid", "noexec", "nodev", "ro"]},
    {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
      "options": ["nosuid", "noexec", "nodev", "ro"]}
  ],
  "linux": {
    "cgroupsPath": "/caisson-bench-$$/peer",
    "resources": {"memory": {"limit": 268435456}, "pids": {"limit": 64}},
    "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"},
      {"type": "mount"}, {"type": "cgroup"}],
    "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
      "/proc/latency_stats", "/proc/scsi", "/proc/timer_list", "/sys/devices/virtual/powercap",
      "/sys/firmware"],
    "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    "seccomp": $(<"$bin/seccomp.json")
  }
}
CONFIG
}

# add_peer ROWS PROGRAM ARGUMENT...: rows that set it beside start and whatever else
# is named, if it is there. wrapper goes before the program that spawns it.
add_peer() {
  local beside=$1 name=$2 path row
  shift 2
  if ! path=$(command -v "$name"); then
    echo "$name is not installed: no row for it"
    return
  fi
  for row in $beside; do
    rows+=("$row:$name")
  done
  programs+=("$name=${wrapper[*]} $bin/peer $path $*")
}

# crun refuses to work where both versions of control groups are mounted; it gets a
# mount namespace without the second.
hide_unified() {
  mountpoint -q /sys/fs/cgroup/unified || return 0
  cat >"$scratch/without_unified" <<'SCRIPT'
umount /sys/fs/cgroup/unified && exec "$@"
SCRIPT
  wrapper=("$(command -v unshare)" -m --propagation private
    "$(command -v sh)" "$scratch/without_unified")
}

add_peers() {
  local wrapper=() image=$scratch/root
  add_peer "start oci_run" runc --root "$scratch/runc" run --bundle "$scratch/bundle" "caisson-bench-runc-$$"
  add_peer start bwrap --unshare-all --die-with-parent --new-session --ro-bind "$image" / \
    --proc /proc --dev /dev --tmpfs /tmp /true
  hide_unified
  add_peer "start oci_run" crun --root "$scratch/crun" run --bundle "$scratch/bundle" "caisson-bench-crun-$$"
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

# In the background: a trap interrupts this, but not a command in the foreground.
interruptible() {
  "$@" </dev/null &
  wait "$!"
}

measure() {
  local image=$scratch/root
  local rows=(start:floor)
  local programs=(
    "start=$bin/worker $image"
    "oci_run=$bin/peer $bin/../examples/oci/caisson-oci --root $scratch/oci run --bundle $scratch/bundle caisson-bench-oci-$$"
    "start_net=$bin/worker $image --net"
    "start_heap=$bin/worker $image --heap-mib 4096 --threads 500"
    "start_throughput=$bin/worker $image --throughput"
    "exec=$bin/worker $image --exec"
    "cgroup_stats=$bin/worker $image --stats"
    "open_read_close=$bin/read_stats"
    "floor=$bin/floor $image"
    "floor_net=$bin/floor $image --net"
    "floor_throughput=$bin/floor $image --throughput"
  )
  add_peers
  rows+=(start_net:floor_net start_heap:start start_throughput:floor_throughput exec:start
    cgroup_stats:open_read_close)
  interruptible "$bin/compare" --rounds "$rounds" --json "$scratch/rows" "${rows[@]}" \
    -- "${programs[@]}" || return 1
  echo "A ratio of 0.2 means 5 times faster than what it is set against."
}

# A session of its own: a terminal's signals must not reach the launcher.
measure_memory() {
  interruptible setsid "$bin/memory" "$scratch/root" "$containers" >"$scratch/memory" || return 1
  cat "$scratch/memory" >>"$scratch/rows"
  sed -E 's/^\{"name": "([^"]+)", "unit": "([^"]+)", "value": ([^,]+), /\1: \3 \2; /; s/["{}]//g' "$scratch/memory"
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
make_bundle || die "the bundle could not be made"
describe_machine
measure || die "the measurement failed"
measure_memory || die "the measurement of memory failed"
[[ -z $json ]] || write_json || die "$json could not be written"
