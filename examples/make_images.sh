#!/bin/bash
# Makes the two images of the examples and tests with tools that are not ours:
# GNU tar, mmdebstrap, umoci and skopeo. Nothing of caisson runs here, so that
# what caisson reads is what the field writes.
set -euo pipefail
export LC_ALL=C
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
self=$root/examples/make_images.sh
# shellcheck source=third_party/progress.sh
. "$root/third_party/progress.sh"

usage() {
  cat <<'USAGE'
usage: examples/make_images.sh [--help]

Makes, once, the images below and prints the directory that holds them, alone,
on standard output; progress goes to standard error. Needs root and Debian's
mirror as the machine's own apt knows it. A later run finds them made.

  busybox.docker.tar         static busybox, one layer: docker-archive (plain tar)
  busybox.oci.tar            the same: OCI archive, gzip
  busybox.oci/               the same: OCI layout directory, gzip
  busybox-zstd.oci.tar       the same: OCI archive, zstd
  debian-python.oci.tar      Debian 12 and its Python 3, three layers: OCI archive
  debian-python.docker.tar   the same: docker-archive
  debian-python-zstd.oci.tar the same: OCI archive, zstd
  *.tree                     what a correct unpacker makes of the image (umoci's
                             result): path, type, mode, uid:gid, size, links,
                             mtime, link target, SHA-256; tab-separated
  *.caps                     its file capabilities, as getcap prints them
  MANIFEST                   size and SHA-256 of every file; the digests of the
                             OCI layouts' manifests, configs, layers and diff IDs

They lie in $CAISSON_CACHE_DIR/images/current, by default below .cache/ of the
checkout, keyed by a hash of this script. Remove that directory to make them anew.
USAGE
}

# Every time stamp in the images, so that the same packages give the same bytes.
readonly epoch=1735689600 created=2025-01-01T00:00:00Z
export SOURCE_DATE_EPOCH=$epoch

# ---- tools --------------------------------------------------------------------

# pack DIR FILE [tar option...]: a layer or an archive, in a fixed order.
pack() {
  local dir=$1 file=$2
  shift 2
  tar --create --file "$file" --directory "$dir" --sort=name --numeric-owner \
    --format=posix --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime \
    --mtime="@$epoch" "$@" .
}

skopeo_copy() {
  skopeo --insecure-policy --tmpdir "$work" copy --quiet "$@"
}

umoci_config() {
  umoci config --created "$created" --no-history --author caisson "$@"
}

# export_image LAYOUT NAME: every form of the image from umoci's layout.
export_image() {
  local layout=$1 name=$2 ref=$2:latest
  umoci gc --layout "$layout"
  skopeo_copy --preserve-digests "oci:$layout:latest" "oci:$out/$name.oci:$ref"
  skopeo_copy "oci:$layout:latest" "docker-archive:$out/$name.docker.tar:$ref"
  skopeo_copy --dest-compress-format zstd "oci:$layout:latest" "oci:$work/$name-zstd.oci:$ref"
  archive "$out/$name.oci" "$out/$name.oci.tar"
  archive "$work/$name-zstd.oci" "$out/$name-zstd.oci.tar"
  rm -r "$work/$name-zstd.oci"
  umoci unpack --image "$layout:latest" "$work/$name.check"
  describe "$work/$name.check/rootfs" >"$out/$name.tree"
  getcap -r "$work/$name.check/rootfs" | sed "s|^$work/$name.check/rootfs||" | sort >"$out/$name.caps"
  rm -r "$work/$name.check"
}

# An OCI archive is a tar of the layout, its marker file first.
archive() {
  tar --create --file "$2" --directory "$1" --sort=name --owner=0 --group=0 --numeric-owner \
    --mode=u=rwX,go=rX --mtime="@$epoch" oci-layout index.json blobs
}

# describe DIR: one line for each path, sorted, tab-separated. Hard links are
# hashed once.
describe() {
  cd "$1"
  find . -type f -printf '%i\t%p\0' | sort -z -u -t $'\t' -k 1,1n >"$work/inodes"
  cut -z -f 2- <"$work/inodes" | xargs -0 -r sha256sum -z | tr '\0' '\n' | cut -c 1-64 |
    paste <(tr '\0' '\n' <"$work/inodes" | cut -f 1) - >"$work/sums"
  find . -mindepth 1 -printf '%i\t%P\t%y\t%m\t%U:%G\t%s\t%n\t%T@\t%l\n' |
    awk -F '\t' -v OFS='\t' -v sums="$work/sums" '
      BEGIN { while ((getline <sums) > 0) sum[$1] = $2 }
      {
        sub(/\..*/, "", $8)
        if ($3 != "f") $6 = "-"
        if ($3 == "d") $7 = "-"
        if ($9 == "") $9 = "-"
        print $2, $3, $4, $5, $6, $7, $8, $9, ($3 == "f" ? sum[$1] : "-")
      }' |
    sort
  cd "$OLDPWD"
}

# ---- busybox ------------------------------------------------------------------

make_busybox() {
  local tree=$work/busybox applet
  mkdir -p "$tree"/{bin,dev,etc,proc,sys,tmp,usr/bin,usr/sbin,var/tmp,root,home/alice,home/bob}
  cp /bin/busybox "$tree/bin/busybox"
  while read -r applet; do
    [[ -e $tree/bin/$applet ]] || ln "$tree/bin/busybox" "$tree/bin/$applet"
  done < <("$tree/bin/busybox" --list)
  ln -s ../../bin/env "$tree/usr/bin/env"
  ln -s bin "$tree/sbin"

  cat >"$tree/etc/passwd" <<'FILE'
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
alice:x:1000:1000:Alice:/home/alice:/bin/sh
bob:x:1001:1001:Bob:/home/bob:/bin/sh
nobody:x:65534:65534:nobody:/home:/bin/false
FILE
  cat >"$tree/etc/group" <<'FILE'
root:x:0:
daemon:x:1:
bin:x:2:
wheel:x:10:alice
shadow:x:42:
media:x:2000:alice,bob
alice:x:1000:
bob:x:1001:
nogroup:x:65534:
FILE
  printf 'root:*:19000:0:99999:7:::\nalice:*:19000:0:99999:7:::\n' >"$tree/etc/shadow"

  find "$tree" -type d -exec chmod 0755 {} +
  find "$tree/etc" -type f -exec chmod 0644 {} +
  chmod 0755 "$tree/bin/busybox"
  chown -Rh 0:0 "$tree"
  chown 0:42 "$tree/etc/shadow"
  chmod 0640 "$tree/etc/shadow"
  chmod 1777 "$tree/tmp" "$tree/var/tmp"
  chmod 0700 "$tree/root"
  chown 1000:1000 "$tree/home/alice"
  chown 1001:1001 "$tree/home/bob"
  chmod 0750 "$tree/home/alice" "$tree/home/bob"
  pack "$tree" "$work/busybox.tar"
  rm -r "$tree"

  local layout=$work/busybox.layout
  umoci init --layout "$layout"
  umoci new --image "$layout:latest"
  umoci raw add-layer --image "$layout:latest" --history.created "$created" \
    --history.created_by "busybox-static of Debian 12" "$work/busybox.tar"
  umoci_config --image "$layout:latest" \
    --config.env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    --config.cmd sh
  export_image "$layout" busybox
}

# ---- debian-python ------------------------------------------------------------

# The machine's own source entries for Debian, each with its options, into
# files that mmdebstrap takes in place of a mirror.
copy_apt_sources() {
  local origin entries entry file number
  for origin in 'Origin: Debian' 'Component: main'; do
    # shellcheck disable=SC2016 # The variables are apt's.
    entries=$(apt-get indextargets --format '$(SOURCESENTRY) $(RELEASE)' 'Identifier: Packages' "$origin" |
      sed -n -E 's/ bookworm(-updates|-security)?$//p' | sort -u)
    [[ -z $entries ]] || break
  done
  [[ -n $entries ]] || {
    echo "apt knows no source for Debian bookworm: see /etc/apt/sources.list"
    return 1
  }
  sources=()
  while read -r entry; do
    file=${entry%:*} number=${entry##*:}
    if [[ $file == *.sources ]]; then
      sources+=("$work/${#sources[@]}.sources")
      # The stanza of that number, without its comments.
      grep -v '^#' "$file" | awk -v RS= -v n="$number" 'NR == n' >"${sources[-1]}"
    else
      sources+=("$work/${#sources[@]}.list")
      sed -n "${number}p" "$file" >"${sources[-1]}"
    fi
  done <<<"$entries"
  # Proxies and the like, which mmdebstrap's own configuration would hide.
  apt-config dump --no-empty |
    grep -E '^Acquire::(https?::|Retries|Check-Date|Check-Valid-Until|ForceIPv)' >"$work/apt.conf" || true
}

# Layer 1, and the packages of layer 2 from the same package lists.
make_debian_base() {
  copy_apt_sources || {
    apt-get -q update
    copy_apt_sources
  }
  mkdir -p "$work/debs/partial"
  # shellcheck disable=SC2016 # Expanded by mmdebstrap's shell.
  DEBS=$work/debs mmdebstrap --mode=root --variant=minbase --format=tar --skip=output/dev \
    --aptopt="$work/apt.conf" \
    --customize-hook='APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get -q -y --download-only -o Dir::Cache::Archives="$DEBS" install python3' \
    --customize-hook='rm -f "$1"/etc/resolv.conf "$1"/etc/hostname "$1"/etc/apt/apt.conf.d/99mmdebstrap' \
    bookworm "$work/base.tar" "${sources[@]}"
  # mmdebstrap leaves /dev out together with its nodes.
  mkdir "$work/dev"
  tar --append --file "$work/base.tar" --directory "$work" --owner=0 --group=0 --numeric-owner \
    --mode=0755 --mtime="@$epoch" ./dev
}

# Layer 2: Debian's packages, installed by Debian's tools in umoci's bundle.
install_python() {
  local rootfs=$1
  mount --bind /dev "$rootfs/dev"
  mount -t proc proc "$rootfs/proc"
  mount --bind "$work/debs" "$rootfs/mnt"
  # shellcheck disable=SC2016 # Expanded in the chroot.
  env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive PYTHONHASHSEED=0 \
    SOURCE_DATE_EPOCH="$epoch" LC_ALL=C.UTF-8 chroot "$rootfs" \
    sh -c 'apt-get -q -y --no-install-recommends -o APT::Sandbox::User=root install /mnt/*.deb'
  umount "$rootfs/mnt" "$rootfs/proc" "$rootfs/dev"
  rm -rf "$rootfs"/var/log/{dpkg.log,alternatives.log,apt/*} "$rootfs"/var/cache/ldconfig/aux-cache \
    "$rootfs"/var/cache/apt/* "$rootfs"/var/lib/apt/lists/* "$rootfs"/tmp/* "$rootfs"/var/cache/debconf/*-old \
    "$rootfs"/var/lib/dpkg/*-old
  find "$rootfs" -xdev -newermt "@$epoch" -exec touch --no-dereference --date="@$epoch" {} +
}

# Layer 3: a small application, with what is hard in a layer: whiteouts of a
# file, of a directory and of another layer's file, an opaque directory, a
# set-user-ID file, a file with capabilities, hard links, symlinks, a FIFO,
# a sticky directory, owners, long and 8-bit names.
make_app_layer() {
  local rootfs=$1 tree=$work/app long
  mkdir -p "$tree"/{app/www,app/spool,app/bin,etc,usr/bin,usr/share/doc,usr/share/base-files}
  cat >"$tree/app/www/index.html" <<'FILE'
<!doctype html>
<title>caisson</title>
<p>Served by python3 from inside a caisson container.</p>
FILE
  printf 'caisson example application\n' >"$tree/app/README"
  ln "$tree/app/README" "$tree/app/README.hardlink"
  ln -s www "$tree/app/current"
  ln -s /app/www "$tree/app/absolute"
  ln -s ../../../../../../etc/passwd "$tree/app/upwards"
  mkfifo "$tree/app/fifo"
  printf -v long 'n%.0s' {1..180}
  printf 'long\n' >"$tree/app/$long"
  printf '8 bit\n' >"$tree/app/"$'gr\xfc\xdf-\xe2\x82\xac'
  cp "$rootfs/usr/bin/id" "$tree/app/bin/suid-id"
  cp "$rootfs/usr/bin/cat" "$tree/app/bin/cap-cat"

  # Hidden: a file and a directory of layer 1, a file of layer 2, and all that
  # layer 1 has in an opaque directory.
  : >"$tree/etc/.wh.issue.net"
  : >"$tree/usr/share/doc/.wh.base-files"
  : >"$tree/usr/bin/.wh.pydoc3"
  : >"$tree/usr/share/base-files/.wh..wh..opq"
  printf 'only this file\n' >"$tree/usr/share/base-files/README"

  find "$tree" -type d -exec chmod 0755 {} +
  find "$tree" -type f -exec chmod 0644 {} +
  chown -Rh 0:0 "$tree"
  chmod 1777 "$tree/app/spool"
  chmod 0640 "$tree/app/fifo"
  chown -R 1000:1000 "$tree/app/www"
  chmod 4755 "$tree/app/bin/suid-id"
  chmod 0755 "$tree/app/bin/cap-cat"
  setcap cap_dac_read_search=ep "$tree/app/bin/cap-cat"
  pack "$tree" "$work/app.tar" --xattrs --xattrs-include='security.capability'
  rm -r "$tree"
}

make_debian_python() {
  local layout=$work/debian-python.layout bundle=$work/bundle hidden
  make_debian_base
  umoci init --layout "$layout"
  umoci new --image "$layout:latest"
  umoci raw add-layer --image "$layout:latest" --history.created "$created" \
    --history.created_by "mmdebstrap --variant=minbase bookworm" "$work/base.tar"
  umoci unpack --image "$layout:latest" "$bundle"
  install_python "$bundle/rootfs"
  umoci repack --image "$layout:latest" --history.created "$created" \
    --history.created_by "apt-get install python3" "$bundle"
  for hidden in etc/issue.net usr/share/doc/base-files usr/bin/pydoc3 usr/share/base-files; do
    [[ -e $bundle/rootfs/$hidden || -L $bundle/rootfs/$hidden ]] || {
      echo "layer 3 hides /$hidden, which Debian no longer has"
      return 1
    }
  done
  make_app_layer "$bundle/rootfs"
  umoci raw add-layer --image "$layout:latest" --history.created "$created" \
    --history.created_by "example application" "$work/app.tar"
  umoci_config --image "$layout:latest" \
    --config.env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    --config.env LANG=C.UTF-8 --config.workingdir /app/www --config.exposedports 8000/tcp \
    --config.cmd python3 --config.cmd -m --config.cmd http.server --config.cmd 8000
  rm -r "$bundle" "$work/base.tar" "$work/app.tar"
  export_image "$layout" debian-python
}

# ---- all ----------------------------------------------------------------------

# digests FILE: every digest in a document of an OCI layout, in its order, each
# with a tab before it.
digests() {
  grep -o 'sha256:[0-9a-f]\{64\}' "$1" | sed 's/^/\t/' | tr -d '\n'
}

write_manifest() {
  local name layout manifest config
  cd "$out"
  {
    for name in *.tar *.tree *.caps; do
      printf 'file\t%s\t%s\t%s\n' "$name" "$(stat -c %s "$name")" "$(sha256sum <"$name" | cut -d' ' -f1)"
    done
    for name in *.oci; do
      layout=$name/blobs/sha256
      manifest=$(grep -o '[0-9a-f]\{64\}' "$name/index.json")
      config=$(grep -o '[0-9a-f]\{64\}' "$layout/$manifest" | head -n 1)
      printf 'manifest\t%s\tsha256:%s\n' "$name" "$manifest"
      printf 'config,layers\t%s%s\n' "$name" "$(digests "$layout/$manifest")"
      printf 'diff_ids\t%s%s\n' "$name" "$(digests "$layout/$config")"
    done
  } >"$work/MANIFEST"
  mv "$work/MANIFEST" MANIFEST
}

# Runs in namespaces of its own, whose end takes every process and mount along.
make_all() {
  out=$work/out
  export TMPDIR=$work HOME=$work
  mkdir "$out"
  umask 022
  step "making busybox image" make_busybox
  step "making debian-python image" make_debian_python
  step "writing the images' manifest" write_manifest
  sync -f "$out"
}

if [[ ${1:-} == --make-all-in ]]; then
  work=$2
  make_all
  exit 0
fi
case ${1:-} in
  '') ;;
  -h | --help) usage && exit 0 ;;
  *) usage >&2 && exit 2 ;;
esac

cache=${CAISSON_CACHE_DIR:-$root/.cache}/images
key=$({ cat "$self" && dpkg --print-architecture; } | sha256sum | cut -c1-16)

answer() {
  echo "$cache/$key"
  exit 0
}
publish_link() {
  [[ $(readlink "$cache/current" 2>/dev/null) == "$key" ]] || {
    ln -s "$key" "$cache/.current.$$"
    mv -T "$cache/.current.$$" "$cache/current"
  }
}
if [[ -e $cache/$key/MANIFEST && $(readlink "$cache/current") == "$key" ]]; then
  answer
fi

exec {stdout}>&1 1>&2
((EUID == 0)) || die "only root can make images with the owners and modes of Debian's packages; run it with sudo"
"$root/third_party/install_deps.sh"
mkdir -p "$cache"
exec {lock}>"$cache/.lock"
flock --nonblock "$lock" || {
  echo "waiting for another examples/make_images.sh to finish"
  flock "$lock"
}
if [[ ! -e $cache/$key/MANIFEST ]]; then
  # Only the holder of the lock has a work directory: others were killed.
  rm -rf "$cache"/.work.*
  work=$(mktemp -d "$cache/.work.XXXXXX")
  maker=
  clean_up() {
    [[ -z $maker ]] || kill -KILL "$maker" 2>/dev/null || true
    wait 2>/dev/null
    rm -rf "$work"
  }
  trap clean_up EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  setpriv --pdeathsig KILL unshare --mount --propagation private --pid --fork --kill-child --mount-proc \
    "$self" --make-all-in "$work" <&- {lock}>&- {stdout}>&- &
  maker=$!
  wait "$maker" || die "making the images failed; nothing was kept"
  maker=
  rm -rf "${cache:?}/$key"
  mv "$work/out" "$cache/$key"
fi
publish_link
# Images of earlier versions of this script.
for old in "$cache"/*; do
  case ${old##*/} in current | "$key") ;; *) rm -rf "$old" ;; esac
done
exec 1>&"$stdout"
answer
