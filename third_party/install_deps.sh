#!/bin/bash
# Installs the packages of Debian 12 that caisson is built, tested and shown
# with. Says nothing and does nothing when all are there.
set -euo pipefail
export LC_ALL=C
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=third_party/progress.sh
. "$root/third_party/progress.sh"

usage() {
  cat <<'USAGE'
usage: third_party/install_deps.sh [--bench] [--vm] [--engines] [--list]

Installs, with apt-get and as root, what is missing of the Debian 12 packages
that building, testing and the examples need.

  --bench  also the container runtimes that bench/run.sh compares with
  --vm     also what tests/vm boots: qemu, and Debian's kernel, which is
           unpacked beside the builds and not installed (debian_kernel.sh)
  --engines
           also the engines that tests/engines drives, without letting their
           packages start anything
  --list   only print the names of the packages, one a line
USAGE
}

build=(
  bazel-bootstrap g++ gcc-12 clang-14 lld-14 libclang-rt-14-dev
  clang-format-14 clang-tidy-14
  libabsl-dev libprotobuf-dev protobuf-compiler
  libseccomp-dev libmnl-dev libnftnl-dev
  libsqlite3-dev libisal-dev libzstd-dev liblzma-dev libbz2-dev libssl-dev zlib1g-dev
  libgtest-dev libgmock-dev libbenchmark-dev nlohmann-json3-dev
)
# The freestanding launcher is also built for the other architecture.
cross=(g++-aarch64-linux-gnu binutils-aarch64-linux-gnu libc6-dev-arm64-cross)
# What makes the images, and the independent tools that tests check results
# with. Library code runs none of them.
tools=(
  busybox-static mmdebstrap debian-archive-keyring umoci skopeo
  ca-certificates curl e2fsprogs git iproute2 libcap2-bin mount nftables python3-minimal
  libarchive-tools pigz runc shellcheck uidmap util-linux xfsprogs xz-utils zstd
)
peers=(crun bubblewrap)
# AppArmor profiles and an SELinux policy are compiled and loaded in the VM.
vm=(qemu-system-x86 qemu-system-common apparmor checkpolicy)
engines=(docker.io containerd podman buildah conmon catatonit iptables)

list=0 kernel=0 services=1
packages=("${build[@]}" "${tools[@]}")
while (($#)); do
  case $1 in
    --bench) packages+=("${peers[@]}") ;;
    --vm) packages+=("${vm[@]}") kernel=1 ;;
    --engines) packages+=("${engines[@]}") services=0 ;;
    --list) list=1 ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
  esac
  shift
done

command -v dpkg-query >/dev/null ||
  die "this is not a Debian system (no dpkg-query): caisson's dependencies are packages of Debian 12"
if [[ $(dpkg --print-architecture) == amd64 ]]; then
  packages+=("${cross[@]}")
fi
if ((list)); then
  printf '%s\n' "${packages[@]}"
  exit 0
fi

# Sets the array missing.
find_missing() {
  local installed name
  installed=" $(dpkg-query -W -f '${db:Status-Status}=${Package} ' "${packages[@]}" 2>/dev/null || true)"
  missing=()
  for name in "${packages[@]}"; do
    [[ $installed == *" installed=$name "* ]] || missing+=("$name")
  done
}

# Everything is installed.
finish() {
  ((kernel == 0)) || "$root/third_party/debian_kernel.sh" >/dev/null
  exit
}

apt() {
  apt-get -q -y -o DPkg::Lock::Timeout=300 "$@" </dev/null
}

install_missing() {
  apt install --no-install-recommends "${missing[@]}"
}

# Debian's way to keep packages from starting their services. A policy of the machine's
# own has to say the same.
forbid_services() {
  local status=0
  policy=/usr/sbin/policy-rc.d
  if [[ -e $policy ]]; then
    "$policy" docker start >/dev/null 2>&1 || status=$?
    ((status != 101)) || return 0
    die "$policy lets packages start services, such as docker: install ${missing[*]} yourself"
  fi
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
}

# Package lists that are absent or older than the mirror make apt-get fail
# before it changes anything, so they are fetched only then.
install_or_update() {
  exec {lock}<&- # Not for services that a package may start.
  ((services)) || forbid_services
  if apt-get -s install --no-install-recommends "${missing[@]}" >/dev/null 2>&1 &&
    install_missing; then
    return
  fi
  apt update
  install_missing
}

find_missing
((${#missing[@]})) || finish

codename=$(. /etc/os-release && echo "${ID:-} ${VERSION_CODENAME:-}")
[[ $codename == "debian bookworm" ]] ||
  die "this is not Debian 12 but \"$codename\"; install the equivalents of: ${missing[*]}"
((EUID == 0)) ||
  die "only root can install packages; run it with sudo, or install: ${missing[*]}"

# One at a time: the second finds the work of the first.
exec {lock}<"${BASH_SOURCE[0]}"
flock "$lock"
find_missing
((${#missing[@]})) || finish

export DEBIAN_FRONTEND=noninteractive
echo "installing ${#missing[@]} Debian packages: ${missing[*]}"
step "installing ${#missing[@]} Debian packages" install_or_update
find_missing
((${#missing[@]} == 0)) || die "apt-get succeeded, but still missing: ${missing[*]}"
finish
