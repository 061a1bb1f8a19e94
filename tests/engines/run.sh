#!/bin/bash
# Drives caisson-oci with real engines: Debian's containerd, docker (with Swarm) and
# podman. The last line of standard output:
#   N passed, N failed, N skipped
set -uo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd) || exit 1
self=$root/tests/engines/run.sh
# shellcheck source=third_party/progress.sh
. "$root/third_party/progress.sh"
all=(containerd docker swarm podman podman_rootless)

usage() {
  cat <<'USAGE'
usage: tests/engines/run.sh [--bad FILE] [--runtime PROGRAM] [ENGINE...]

Starts engines by hand, each in namespaces of its own with its state in memory, and
has them run containers with caisson-oci. ENGINE is containerd, docker, swarm, podman
or podman_rootless; by default all. Nothing of it outlives the script, however that
ends, but for an empty directory and empty control groups if it is killed with
SIGKILL. Needs root, and network namespaces.

  --bad FILE         append a line for each case that did not pass
  --runtime PROGRAM  another command in the place of caisson-oci, such as runc, to
                     see what the engine and this machine are to blame for

Environment:
  CAISSON_ENGINE_SECONDS  for one engine (120)
  CAISSON_CACHE_DIR       images (.cache)
USAGE
}

# ---- in namespaces of its own ---------------------------------------------------

# Process 1 of a PID namespace: its end takes every process along, and with the last of
# them go the mounts and the network.
run_in() {
  readonly engine=$1 group=$4 work=/run/engine runtime=/run/engine/${2##*/} image=/run/engine/busybox.tar
  local place
  # shellcheck source=tests/engines/checks.sh
  . "$root/tests/engines/checks.sh"
  # shellcheck source=/dev/null
  . "$root/tests/engines/$engine.sh"
  mount -t tmpfs -o mode=755 caisson-engines /run && mkdir -p "$work"/{etc,etc.work,state} && cd "$work" &&
    cp -- "$2" "$runtime" && cp -- "$3" "$image" && chmod 755 "$runtime" && chmod 644 "$image" || return 1
  # What engines write to fixed places goes to memory, and nothing else of the machine's
  # can be written to.
  for place in /tmp /var/tmp /var/lib /dev/shm; do
    mount -t tmpfs -o mode=1777 caisson-engines "$place" || return 1
  done
  mount -t overlay -o "lowerdir=/etc,upperdir=$work/etc,workdir=$work/etc.work" overlay /etc &&
    mount -o remount,bind,ro / && ip link set lo up || return 1
  "test_$engine"
  echo end >&3
}

if [[ ${1:-} == --in ]]; then
  shift
  run_in "$@"
  exit
fi

# ---- what to run ----------------------------------------------------------------

bad='' runtime='' engines=()
while (($#)); do
  case $1 in
    --bad) bad=$2 && shift ;;
    --runtime)
      runtime=$(command -v -- "$2") || die "no program $2"
      shift
      ;;
    -h | --help) usage && exit 0 ;;
    -*) usage >&2 && exit 2 ;;
    *)
      [[ " ${all[*]} " == *" $1 "* ]] || die "no engine $1; there are: ${all[*]}"
      engines+=("$1")
      ;;
  esac
  shift
done
((${#engines[@]})) || engines=("${all[@]}")
((EUID == 0)) || die "needs root: engines make namespaces, mounts and control groups"
cd "$root" || exit 1

scratch=$(mktemp -d "${TMPDIR:-/tmp}/caisson-engines.XXXXXX") || exit 1
group=caisson-engines-$$
bazel_log=$scratch/bazel.log
# shellcheck source=third_party/bazel.sh
. "$root/third_party/bazel.sh"
# remove_groups NAME: the control groups of that name and below, everywhere, once their
# processes, which have been killed, are gone.
remove_groups() {
  local left=() places=() i
  mapfile -t places < <(awk -v name="$1" '$3 ~ /^cgroup2?$/ { print $2 "/" name }' /proc/self/mounts)
  for ((i = 0; i < 100; i++)); do
    mapfile -t left < <(find "${places[@]}" -maxdepth 0 2>/dev/null)
    ((${#left[@]})) || return 0
    find "${left[@]}" -depth -type d -exec rmdir {} + 2>/dev/null
    read -r -t 0.05 <> <(:)
  done
}
clean_up() {
  local job
  # An engine, a build, and what counts the seconds, for which nobody shall wait.
  for job in $(jobs -p); do
    kill -KILL "$job" 2>/dev/null
  done
  wait 2>/dev/null
  remove_groups "$group"
  rm -rf --one-file-system "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

"$root/third_party/install_deps.sh" --engines || exit 1
images=$("$root/examples/make_images.sh") || exit 1
if [[ -z $runtime ]]; then
  step "building caisson-oci" logged_bazel "" build //examples/oci:caisson-oci || exit 1
  cp "$(bazel_in "" info bazel-bin 2>/dev/null)/examples/oci/caisson-oci" "$scratch/" || exit 1
  runtime=$scratch/caisson-oci
fi

# run_engine ENGINE: in namespaces that end with this script, be it by SIGKILL. Descriptor
# 3 takes a line for each case, 4 the engine's log.
run_engine() {
  local engine=$1 work=$scratch/$1 status p f start
  start=$(now_ms)
  env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C HOME=/run/engine \
    setpriv --pdeathsig KILL timeout --kill-after=1 "${CAISSON_ENGINE_SECONDS:-120}" setpriv --pdeathsig KILL \
    unshare --mount --propagation private --net --pid --fork --kill-child --mount-proc \
    "$self" --in "$engine" "$runtime" "$images/busybox.docker.tar" "$group" \
    </dev/null 3>"$work.cases" 4>>"$work.log" &
  wait "$!"
  status=$?
  p=$(grep -c '^passed ' "$work.cases") f=$(grep -c '^failed ' "$work.cases")
  grep '^failed ' "$work.cases" | sed "s/^failed/& /; s/\$/ (tests\/engines)/" >>"$scratch/bad"
  if [[ $(tail -n 1 "$work.cases") != end ]]; then
    f=$((f + 1))
    ((status != 124 && status != 137)) || status="$status, which may be for taking longer than ${CAISSON_ENGINE_SECONDS:-120} s"
    echo "failed   $engine: came to no end after \"$(tail -n 1 "$work.cases")\": status $status (tests/engines)" >>"$scratch/bad"
    echo "the last lines of the log:"
    tail -n 30 "$work.log" | sed 's/^/    /'
  fi
  passed=$((passed + p)) failed=$((failed + f))
  printf '  %-52s %12s  %s\n' "$engine in all" "$(format_ms $(($(now_ms) - start)))" "$p passed, $f failed"
}

passed=0 failed=0
: >"$scratch/bad"
for engine in "${engines[@]}"; do
  run_engine "$engine"
done
[[ -z $bad ]] || cat "$scratch/bad" >>"$bad"
if [[ -s $scratch/bad ]]; then
  printf '\nfailed with the engines:\n'
  sed 's/^/  /' "$scratch/bad"
fi
printf '%d passed, %d failed, 0 skipped\n' "$passed" "$failed"
((failed == 0 && passed > 0))
