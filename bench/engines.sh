#!/bin/bash
# What a container of docker and of podman takes with caisson-oci, beside runc and crun.
set -uo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd) || exit 1
self=$root/bench/engines.sh
# shellcheck source=third_party/progress.sh
. "$root/third_party/progress.sh"

usage() {
  cat <<'USAGE'
usage: bench/engines.sh [--json FILE] [--rounds N] [--bin DIR] [docker|podman...]

Measures, as root, `docker run --rm --network none` and `podman run --rm --network none`
of busybox's `true`, a process from its start to its end, in turn with each of the
runtimes that are installed:

  docker_run   with caisson-oci, beside runc and crun
  podman_run   with caisson-oci, beside runc and crun

The engines are started as tests/engines/run.sh does it: with their state in memory, in
namespaces that end with the script.

  --json FILE   write one JSON object a row
  --rounds N    50 by default
  --bin DIR     of the benchmarks' programs, instead of building them with -c opt; that
                of caisson-oci is ../examples/oci from there
USAGE
}

# ---- in namespaces of its own ---------------------------------------------------

# The engine's first container makes what the others find; rows go to descriptor 3.
measure() {
  local each other rows=() programs=()
  "${client[@]}" run --rm --network none "${placed[@]}" "$image_name" true >&4 2>&4 || return 1
  for each in caisson runc crun; do
    [[ -x $work/$each ]] || continue
    "${client[@]}" "${global[@]/RUNTIME/$each}" run --rm --network none "${chosen[@]/RUNTIME/$each}" "${placed[@]}" "$image_name" \
      true >&4 2>&4 || {
      echo "$engine does not run $each here: no row for it"
      continue
    }
    other=${engine}_run_$each
    [[ $each != caisson ]] || other=${engine}_run
    [[ $each == caisson ]] || rows+=("${engine}_run:$other")
    programs+=("$other=$bin/peer ${client[*]} ${global[*]/RUNTIME/$each} run --rm --network none ${chosen[*]/RUNTIME/$each} ${placed[*]} $image_name true")
  done
  "$bin/compare" --rounds "$rounds" --json "$work/rows" "${rows[@]}" -- "${programs[@]}" 2>&4 && cat "$work/rows" >&3
}

measure_docker() {
  # shellcheck source=tests/engines/dockerd.sh
  . "$root/tests/engines/dockerd.sh"
  global=() chosen=(--runtime=RUNTIME) placed=()
  daemon_options=(--add-runtime "crun=$work/crun")
  start_dockerd >&4 && "${client[@]}" load -q -i "$image" >&4 && measure
}

measure_podman() {
  # shellcheck source=tests/engines/podman.sh
  . "$root/tests/engines/podman.sh"
  podman_options "$work/state"
  # Without the runtime, which each command names.
  client=("${client[@]:0:${#client[@]}-2}")
  global=(--runtime "$work/RUNTIME") chosen=() placed=(--cgroup-parent "/$group")
  "${client[@]}" load -q -i "$image" >&4 2>&4 && measure
}

# Process 1 of a PID namespace: its end takes every process along, and with the last of
# them go the mounts and the network.
run_in() {
  readonly engine=$1 bin=$2 group=$4 rounds=$5 work=/run/engine runtime=/run/engine/caisson image=/run/engine/busybox.tar
  local place other
  # shellcheck source=tests/engines/checks.sh
  . "$root/tests/engines/checks.sh"
  mount -t tmpfs -o mode=755 caisson-engines /run && mkdir -p "$work"/{etc,etc.work,state} && cd "$work" &&
    cp -- "$bin/../examples/oci/caisson-oci" "$runtime" && cp -- "$3" "$image" && chmod 755 "$runtime" || return 1
  for other in runc crun; do
    ! command -v "$other" >/dev/null || cp -- "$(command -v "$other")" "$work/"
  done
  for place in /tmp /var/tmp /var/lib /dev/shm; do
    mount -t tmpfs -o mode=1777 caisson-engines "$place" || return 1
  done
  # crun refuses to work where both versions of control groups are mounted.
  ! mountpoint -q /sys/fs/cgroup/unified || umount /sys/fs/cgroup/unified || return 1
  mount -t overlay -o "lowerdir=/etc,upperdir=$work/etc,workdir=$work/etc.work" overlay /etc &&
    mount -o remount,bind,ro / && ip link set lo up && "measure_$engine"
}

if [[ ${1:-} == --in ]]; then
  shift
  run_in "$@"
  exit
fi

# ---- what to run ----------------------------------------------------------------

json='' rounds=50 bin='' engines=()
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
      shift
      ;;
    docker | podman) engines+=("$1") ;;
    *) usage >&2 && exit 2 ;;
  esac
  shift
done
((${#engines[@]})) || engines=(docker podman)
[[ $rounds =~ ^[1-9][0-9]{0,5}$ ]] || die "--rounds $rounds is not a number of rounds"
((EUID == 0)) || die "needs root: engines make namespaces, mounts and control groups"
[[ -z $json || $json == /* ]] || json=$PWD/$json
[[ -z $bin || $bin == /* ]] || bin=$PWD/$bin
cd "$root" || exit 1

scratch=$(mktemp -d "${TMPDIR:-/tmp}/caisson-bench-engines.XXXXXX") || exit 1
group=caisson-bench-engines-$$
bazel_log=$scratch/bazel.log
# shellcheck source=third_party/bazel.sh
. third_party/bazel.sh

# shellcheck disable=SC2317  # called by a trap
clean_up() {
  local job place
  for job in $(jobs -p); do
    kill -KILL "$job" 2>/dev/null
  done
  wait 2>/dev/null
  for place in /sys/fs/cgroup/{,*/}"$group"; do
    [[ ! -d $place ]] || find "$place" -depth -type d -exec rmdir {} +
  done
  rm -rf --one-file-system "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

third_party/install_deps.sh --bench && third_party/install_deps.sh --engines && images=$(examples/make_images.sh) || exit 1
if [[ -z $bin ]]; then
  step "building the benchmarks" logged_bazel "" build -c opt //bench/... //examples/oci:caisson-oci || exit 1
  bin=$(bazel_in "" info -c opt bazel-bin 2>/dev/null)/bench
fi

# Sets the fields that say where a row was measured.
describe_machine() {
  local cpu
  cpu=$(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1 | tr -d '"' | tr -s ' ')
  machine=$(printf '"kernel": "%s", "cpu": "%s", "cores": %d, "date": "%s"' "$(uname -r)" "${cpu:-$(uname -m)}" "$(nproc)" "$(date -u +%Y-%m-%d)")
}

: >"$scratch/rows"
for engine in "${engines[@]}"; do
  env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C HOME=/run/engine \
    setpriv --pdeathsig KILL unshare --mount --propagation private --net --pid --fork --kill-child --mount-proc \
    "$self" --in "$engine" "$bin" "$images/busybox.docker.tar" "$group" "$rounds" \
    </dev/null 3>>"$scratch/rows" 4>>"$scratch/log" &
  wait "$!" || {
    tail -n 30 "$scratch/log" >&2
    die "the measurement of $engine failed"
  }
done
echo "A ratio of 0.2 means 5 times faster than what it is set against."
if [[ -n $json ]]; then
  describe_machine
  sed "s/}\$/, $machine}/" "$scratch/rows" >"$json" || die "$json could not be written"
fi
