#!/bin/bash
# What it takes to make an image ready to run from an archive, beside other programs and
# beside the least that it could take.
set -uo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd) || exit 1
self=$root/bench/images.sh
# shellcheck source=third_party/progress.sh
. "$root/third_party/progress.sh"

usage() {
  cat <<'USAGE'
usage: bench/images.sh [--json FILE] [--rounds N] [--threads N] [--bin DIR] [PEER...]

Measures, as root, the import of Debian 12 with Python and an application (three
layers, gzip) from an OCI archive into a new store, until it could be run and is on
disk, in turn with the PEERs (all that are installed):

  umoci_unpack  docker_load  podman_load  ctr_import  skopeo_copy

and with three programs that do one part of it alone: inflate, sha256, write_tree.
Before each round what the one before has made is removed, and the page cache
dropped. Then, how much memory the import takes, also of a layer of 1 GiB.

  --json FILE  write one JSON object a row
  --rounds N   10 by default; 3 take about a minute
  --threads N  beside the import's own: 3 by default
  --bin DIR    of the benchmarks' programs, instead of building them
USAGE
}

# ---- in namespaces of its own ---------------------------------------------------

readonly work=/run/images disk=/run/images/disk

# Whether it answers within 30 seconds.
within_30() {
  local i
  for ((i = 0; i < 300; ++i)); do
    "$@" >&4 2>&4 && return
    sleep 0.1
  done
  return 1
}

# peer NAME PROGRAM COMMAND...: a row beside the command, which is as durable as ours: it
# syncs the file system at the end.
peer() {
  local name=$1 program=$2
  shift 2
  [[ " $peers " == *" $name "* ]] || return 0
  if ! command -v "$program" >/dev/null; then
    echo "$program is not installed: no row for $name"
    return
  fi
  printf '#!/bin/sh\n%s >/dev/null 2>%s && exec sync -f %s\n' "$*" "$work/$name.log" "$disk" >"$work/$name" &&
    chmod 755 "$work/$name"
  rows+=("image_import:$name")
  programs+=("$name=$bin/peer $work/$name")
}

# Before each round, by compare: $1 is the program whose turn it is.
write_hook() {
  cat >"$work/before" <<HOOK
#!/bin/bash
case \$1 in
  image_import) rm -rf --one-file-system $disk/store ;;
  write_tree) rm -rf --one-file-system $disk/tree ;;
  umoci_unpack) rm -rf --one-file-system $disk/umoci ;;
  podman_load) podman --root $disk/podman --runroot $work/podman rmi -af ;;
  skopeo_copy) podman --root $disk/skopeo --runroot $work/skopeo rmi -af ;;
  docker_load) [[ -z \$($docker images -q) ]] || $docker rmi -f \$($docker images -q) ;;
  ctr_import) [[ -z \$($ctr image ls -q) ]] || $ctr image rm --sync \$($ctr image ls -q) ;;
esac >$work/before.log 2>&1 || { cat $work/before.log >&2 && exit 1; }
sync -f $disk && echo 3 >/proc/sys/vm/drop_caches
HOOK
  chmod 755 "$work/before"
}

start_containerd() {
  cat >"$work/containerd.toml" <<FILE
version = 2
root = "$disk/containerd"
state = "$work/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "$work/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "$work/opt"
FILE
  containerd --config "$work/containerd.toml" >&4 2>&4 &
  # shellcheck disable=SC2086 # Words.
  within_30 $ctr version
}

start_dockerd() {
  printf '{}' >"$work/daemon.json"
  dockerd --config-file "$work/daemon.json" --data-root "$disk/docker" --exec-root "$work/docker" -H "unix://$work/docker.sock" \
    -p "$work/dockerd.pid" --storage-driver overlay2 --iptables=false --ip6tables=false --bridge=none >&4 2>&4 &
  # shellcheck disable=SC2086 # Words.
  within_30 $docker version
}

add_peers() {
  local image=$images/debian-python.oci.tar
  ctr="/usr/bin/ctr -a $work/containerd.sock" docker="/usr/bin/docker -H unix://$work/docker.sock"
  peer umoci_unpack umoci "umoci unpack --image $disk/layout:latest $disk/umoci"
  peer podman_load podman "podman --root $disk/podman --runroot $work/podman load -q -i $image"
  peer skopeo_copy skopeo "skopeo --insecure-policy copy -q oci-archive:$image containers-storage:[overlay@$disk/skopeo+$work/skopeo]debian-python:latest"
  # It reads no OCI archive: a tar of its own kind, in which layers are not compressed.
  peer docker_load dockerd "$docker load -q -i $images/debian-python.docker.tar"
  peer ctr_import containerd "$ctr image import $image"
  [[ " ${rows[*]} " != *:docker_load\ * ]] || start_dockerd || return 1
  [[ " ${rows[*]} " != *:ctr_import\ * ]] || start_containerd || return 1
  [[ " ${rows[*]} " != *:umoci_unpack\ * ]] ||
    skopeo --insecure-policy copy -q "oci:$images/debian-python.oci:debian-python:latest" "oci:$disk/layout:latest" >&4 2>&4
}

# The three parts of the work, each with what it needs in memory.
add_floors() {
  local blob blobs=() tars=()
  while read -r blob; do
    blobs+=("$images/debian-python.oci/blobs/sha256/$blob")
    tars+=("$disk/$blob.tar")
    gzip -dc <"${blobs[-1]}" >"${tars[-1]}" || return 1
  done < <(sed -n 's/^config,layers\tdebian-python.oci\t[^\t]*//p' "$images/MANIFEST" | grep -o '[0-9a-f]\{64\}')
  "$bin/import_image" "$images/debian-python.oci.tar" "$disk/source" || return 1
  rows+=(image_import:inflate image_import:sha256 image_import:write_tree)
  programs+=("inflate=$bin/import_floor inflate ${blobs[*]}" "sha256=$bin/import_floor sha256 ${blobs[*]} ${tars[*]}"
    "write_tree=$bin/import_floor write $disk/source/layers/overlay $disk/tree")
}

# memory NAME ARCHIVE
memory() {
  local value
  rm -rf --one-file-system "$disk/store"
  value=$("$bin/import_image" "$2" "$disk/store" --threads "$threads" --memory) || return 1
  echo "$1: $value bytes"
  printf '{"name": "%s", "unit": "bytes", "value": %s, "n": 1}\n' "$1" "$value" >>"$work/rows"
}

# Process 1 of a PID namespace: its end takes every process along, and with the last of
# them go the mounts and the network.
run_in() {
  readonly bin=$1 images=$2 large=$3 rounds=$5 threads=$6 peers=$7
  local place docker ctr rows=() programs=()
  mount -t tmpfs -o mode=755 caisson-images /run && mkdir -p "$disk" "$work"/{etc,etc.work} && mount --bind "$4" "$disk" &&
    mkdir "$disk/tmp" && export TMPDIR=$disk/tmp || return 1
  for place in /tmp /var/lib /var/tmp; do
    # What is measured may lie there.
    [[ $bin/ == $place/* || $images/ == $place/* || $large == $place/* ]] ||
      mount -t tmpfs -o mode=1777 caisson-images "$place" || return 1
  done
  mount -t overlay -o "lowerdir=/etc,upperdir=$work/etc,workdir=$work/etc.work" overlay /etc && ip link set lo up || return 1
  programs+=("image_import=$bin/peer $bin/import_image $images/debian-python.oci.tar $disk/store --threads $threads")
  add_peers && add_floors && write_hook || return 1
  "$bin/compare" --rounds "$rounds" --warm-up 1 --unmeasured 0 --before "$work/before" --json "$work/rows" "${rows[@]}" \
    -- "${programs[@]}" || return 1
  memory image_import_memory "$images/debian-python.oci.tar" && memory image_import_memory_1gib "$large" && cat "$work/rows" >&3
}

if [[ ${1:-} == --in ]]; then
  shift
  run_in "$@"
  exit
fi

# ---- what to run ----------------------------------------------------------------

json='' rounds=10 threads=3 bin='' peers=()
while (($#)); do
  case $1 in
    -h | --help) usage && exit 0 ;;
    --json | --rounds | --threads | --bin)
      (($# > 1)) || die "$1 needs a value"
      case $1 in
        --json) json=$2 ;;
        --rounds) rounds=$2 ;;
        --threads) threads=$2 ;;
        --bin) bin=$2 ;;
      esac
      shift
      ;;
    umoci_unpack | docker_load | podman_load | ctr_import | skopeo_copy) peers+=("$1") ;;
    *) usage >&2 && exit 2 ;;
  esac
  shift
done
((${#peers[@]})) || peers=(umoci_unpack docker_load podman_load ctr_import skopeo_copy)
[[ $rounds =~ ^[1-9][0-9]{0,5}$ ]] || die "--rounds $rounds is not a number of rounds"
[[ $threads =~ ^[0-9]{1,4}$ ]] || die "--threads $threads is not a number of threads"
((EUID == 0)) || die "needs root: layers have owners and devices"
[[ -z $json || $json == /* ]] || json=$PWD/$json
[[ -z $bin || $bin == /* ]] || bin=$PWD/$bin
cd "$root" || exit 1

scratch=$(mktemp -d "${TMPDIR:-/tmp}/caisson-bench-images.XXXXXX") || exit 1
# For bazel.sh.
# shellcheck disable=SC2034
bazel_log=$scratch/bazel.log
# shellcheck source=third_party/bazel.sh
. third_party/bazel.sh
mkdir -p "$CAISSON_CACHE_DIR/bench" || exit 1
state=$(mktemp -d "$CAISSON_CACHE_DIR/bench/state.XXXXXX") || exit 1

# shellcheck disable=SC2317  # called by a trap
clean_up() {
  local job
  for job in $(jobs -p); do
    kill -KILL "$job" 2>/dev/null
  done
  wait 2>/dev/null
  rm -rf --one-file-system "$scratch" "$state"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# An image of one layer with one file of 1 GiB that compresses by a quarter.
make_large() {
  local out=$1 made=$scratch/large tar files blob diff_id digest config manifest size
  tar=$scratch/large.tar files=$made/blobs/sha256
  mkdir -p "$scratch/tree" "$files" &&
    openssl enc -aes-128-ctr -K 0 -iv 0 -in /dev/zero 2>/dev/null | base64 -w 0 | head -c 1G >"$scratch/tree/file"
  tar --create --file "$tar" --directory "$scratch/tree" --owner=0 --group=0 --mtime=@0 file && rm -r "$scratch/tree" || return 1
  # put FILE: moves it among the blobs; sets digest and size.
  put() {
    digest=$(sha256sum "$1" | cut -c 1-64) && size=$(stat -c %s "$1") && mv "$1" "$files/$digest"
  }
  diff_id=$(sha256sum "$tar" | cut -c 1-64) && pigz -1 "$tar" && put "$tar.gz" || return 1
  blob="{\"mediaType\": \"application/vnd.oci.image.layer.v1.tar+gzip\", \"digest\": \"sha256:$digest\", \"size\": $size}"
  echo "{\"architecture\": \"$(dpkg --print-architecture)\", \"os\": \"linux\", \"rootfs\": {\"type\": \"layers\", \"diff_ids\": [\"sha256:$diff_id\"]}}" >"$scratch/json"
  put "$scratch/json"
  config="{\"mediaType\": \"application/vnd.oci.image.config.v1+json\", \"digest\": \"sha256:$digest\", \"size\": $size}"
  echo "{\"schemaVersion\": 2, \"config\": $config, \"layers\": [$blob]}" >"$scratch/json"
  put "$scratch/json"
  manifest="{\"mediaType\": \"application/vnd.oci.image.manifest.v1+json\", \"digest\": \"sha256:$digest\", \"size\": $size}"
  echo '{"imageLayoutVersion": "1.0.0"}' >"$made/oci-layout"
  echo "{\"schemaVersion\": 2, \"manifests\": [$manifest]}" >"$made/index.json"
  tar --create --file "$out.part" --directory "$made" oci-layout index.json blobs && mv "$out.part" "$out" && rm -r "$made"
}

third_party/install_deps.sh --engines && images=$(examples/make_images.sh) || exit 1
large=$CAISSON_CACHE_DIR/bench/large.oci.tar
[[ -e $large ]] || step "making an image of 1 GiB" make_large "$large" || exit 1
if [[ -z $bin ]]; then
  step "building the benchmarks" logged_bazel "" build -c opt //bench:{compare,peer,import_image,import_floor} || exit 1
  bin=$(bazel_in "" info -c opt bazel-bin 2>/dev/null)/bench
fi

# Sets the fields that say where a row was measured.
describe_machine() {
  local cpu
  cpu=$(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1 | tr -d '"' | tr -s ' ')
  machine=$(printf '"kernel": "%s", "cpu": "%s", "cores": %d, "date": "%s"' "$(uname -r)" "${cpu:-$(uname -m)}" "$(nproc)" "$(date -u +%Y-%m-%d)")
}

env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C HOME=/run/images \
  setpriv --pdeathsig KILL unshare --mount --propagation private --net --pid --fork --kill-child --mount-proc \
  "$self" --in "$bin" "$images" "$large" "$state" "$rounds" "$threads" "${peers[*]}" \
  </dev/null 3>"$scratch/rows" 4>"$scratch/log" &
wait "$!" || {
  tail -n 30 "$scratch/log" >&2
  die "the measurement failed"
}
echo "A ratio of 0.33 means 3 times faster than what it is set against."
if [[ -n $json ]]; then
  describe_machine
  sed "s/}\$/, $machine}/" "$scratch/rows" >"$json" || die "$json could not be written"
fi
