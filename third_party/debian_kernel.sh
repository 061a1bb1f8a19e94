#!/bin/bash
# Unpacks Debian 12's kernel, which tests/vm boots, without installing it:
# an installed kernel would enter the machine's boot menu.
set -euo pipefail
export LC_ALL=C
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=third_party/progress.sh
. "$root/third_party/progress.sh"

usage() {
  cat <<'USAGE'
usage: third_party/debian_kernel.sh

Prints the directory that has boot/vmlinuz-VERSION and lib/modules/VERSION of the
package that linux-image-amd64 stands for; downloads and unpacks it first if
it is not there. apt checks its signature.

Environment:
  CAISSON_CACHE_DIR  where it is unpacked, in "kernel" (.cache)
USAGE
}

case ${1:-} in
  '') ;;
  -h | --help) usage && exit 0 ;;
  *) usage >&2 && exit 2 ;;
esac
[[ $(dpkg --print-architecture) == amd64 ]] || die "the VM is for amd64"

cache=${CAISSON_CACHE_DIR:-$root/.cache}/kernel
[[ $cache == /* ]] || cache=$PWD/$cache

# The name of the package, without a package list of apt's: nothing.
find_package() {
  apt-cache depends linux-image-amd64 2>/dev/null |
    sed -n 's/^ *Depends: \(linux-image-[0-9][^ ]*-amd64\)$/\1/p' | head -n 1
}

# In a directory of its own, published by one rename.
unpack() {
  local package
  [[ -n $(find_package) ]] || apt-get -q update
  cd "$work"
  # The list may be older than the mirror.
  apt-get -q download "$(find_package)" || {
    apt-get -q update
    apt-get -q download "$(find_package)"
  }
  package=$(echo linux-image-*.deb)
  mkdir tree
  dpkg-deb -x "$package" tree
  # Debian's package makes these lists when it is installed.
  busybox depmod -b "$work/tree" "$(ls tree/lib/modules)"
  mv tree "$cache/${package%%_*}"
  cd "$cache"
}

answer() {
  local kernels
  kernels=("$cache"/linux-image-*[0-9]-amd64)
  [[ -e ${kernels[-1]} ]] || return 0
  echo "${kernels[-1]}"
  exit 0
}

answer
mkdir -p "$cache"
exec {lock}>"$cache/.lock"
flock "$lock"
answer
work=$(mktemp -d "$cache/.work.XXXXXX")
trap 'rm -rf "$work"' EXIT
# apt's own user must be able to write here.
chmod 755 "$work"
[[ $EUID != 0 ]] || chown _apt "$work"
step "unpacking Debian's kernel" unpack >&2
rm -rf "$work"
answer
die "no kernel was unpacked into $cache"
