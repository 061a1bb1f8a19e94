#!/bin/bash
# Has other programs read what LayerStore writes, and LayerStore what they write: skopeo,
# umoci, buildah, podman and docker. The same ids, the same diffIDs, the same trees. The
# last line of standard output:
#   N passed, N failed, N skipped
set -uo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd) || exit 1
self=$root/tests/interop/run.sh
# shellcheck source=third_party/progress.sh
. "$root/third_party/progress.sh"

usage() {
  cat <<'USAGE'
usage: tests/interop/run.sh [--bad FILE]

Runs each program in namespaces of its own with its state in memory. Nothing of it
outlives the script, however that ends. Needs root.

  --bad FILE  append a line for each case that did not pass

Environment:
  CAISSON_INTEROP_SECONDS  for all (240)
  CAISSON_CACHE_DIR        images (.cache)
USAGE
}

# Process 1 of a PID namespace: its end takes every process along, and with the last of
# them go the mounts and the network.
run_in() {
  readonly work=/run/interop tool=/run/interop/layer_tool image=/run/interop/busybox.tar
  local place
  # shellcheck source=tests/engines/checks.sh
  . "$root/tests/engines/checks.sh"
  # shellcheck source=tests/interop/programs.sh
  . "$root/tests/interop/programs.sh"
  mount -t tmpfs -o mode=755 caisson-interop /run && mkdir -p "$work"/{etc,etc.work,state} && cd "$work" &&
    cp -- "$1" "$tool" && cp -- "$2" "$image" && chmod 755 "$tool" || return 1
  # What the programs write to fixed places goes to memory, and nothing else of the
  # machine's can be written to.
  for place in /tmp /var/tmp /var/lib /dev/shm; do
    mount -t tmpfs -o mode=1777 caisson-interop "$place" || return 1
  done
  mount -t overlay -o "lowerdir=/etc,upperdir=$work/etc,workdir=$work/etc.work" overlay /etc &&
    mount -o remount,bind,ro / && ip link set lo up || return 1
  test_programs
  echo end >&3
}

if [[ ${1:-} == --in ]]; then
  shift
  run_in "$@"
  exit
fi

bad=''
while (($#)); do
  case $1 in
    --bad) bad=$2 && shift ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
  esac
  shift
done
((EUID == 0)) || die "needs root: layers have owners, devices and attributes"
cd "$root" || exit 1

scratch=$(mktemp -d "${TMPDIR:-/tmp}/caisson-interop.XXXXXX") || exit 1
# For bazel.sh.
# shellcheck disable=SC2034
bazel_log=$scratch/bazel.log
# shellcheck source=third_party/bazel.sh
. "$root/third_party/bazel.sh"
clean_up() {
  local job
  for job in $(jobs -p); do
    kill -KILL "$job" 2>/dev/null
  done
  wait 2>/dev/null
  rm -rf --one-file-system "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

"$root/third_party/install_deps.sh" --engines || exit 1
images=$("$root/examples/make_images.sh") || exit 1
if [[ -z ${CAISSON_LAYER_TOOL:-} ]]; then
  step "building layer_tool" logged_bazel "" build //tests/interop:layer_tool || exit 1
  CAISSON_LAYER_TOOL=$(bazel_in "" info bazel-bin 2>/dev/null)/tests/interop/layer_tool
fi
cp "$CAISSON_LAYER_TOOL" "$scratch/" || exit 1

# Descriptor 3 takes a line for each case, 4 the programs' logs.
env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C HOME=/run/interop \
  setpriv --pdeathsig KILL timeout --kill-after=1 "${CAISSON_INTEROP_SECONDS:-240}" setpriv --pdeathsig KILL \
  unshare --mount --propagation private --net --pid --fork --kill-child --mount-proc \
  "$self" --in "$scratch/layer_tool" "$images/busybox.docker.tar" \
  </dev/null 3>"$scratch/cases" 4>>"$scratch/log" &
wait "$!"
status=$?
passed=$(grep -c '^passed ' "$scratch/cases") failed=$(grep -c '^failed ' "$scratch/cases")
grep '^failed ' "$scratch/cases" | sed "s/^failed/& /; s/\$/ (tests\/interop)/" >"$scratch/bad"
if [[ $(tail -n 1 "$scratch/cases") != end ]]; then
  failed=$((failed + 1))
  echo "failed   came to no end after \"$(tail -n 1 "$scratch/cases")\": status $status (tests/interop)" >>"$scratch/bad"
  echo "the last lines of the log:"
  tail -n 30 "$scratch/log" | sed 's/^/    /'
fi
[[ -z $bad ]] || cat "$scratch/bad" >>"$bad"
printf '%d passed, %d failed, 0 skipped\n' "$passed" "$failed"
((failed == 0 && passed > 0))
