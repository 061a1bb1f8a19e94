# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # run.sh sets root, work, tool and image; checks.sh uses engine.
# shellcheck disable=SC2016 # Words for another shell.
# What each program is asked for. To be sourced by run.sh.

ours() {
  "$tool" "$work/store" "$@"
}

# theirs COMMAND...: another store, new for each archive that another program wrote.
theirs() {
  rm -rf "$work/other"
  "$tool" "$work/other" "$@"
}

# One line for each file below a directory: path, type, mode, owner, size, links, seconds
# of the last change, target; then digests, of several names of a file for the first, and
# capabilities. Sizes, links and times of directories depend on the file system or on the
# tool.
tree_of() {
  (
    cd "$1" || exit
    find . -mindepth 1 \( -type d -printf '%P\td\t%m\t%U:%G\n' \) -o \
      -printf '%P\t%y\t%m\t%U:%G\t%s\t%n\t%Ts\t%l\n' | sort
    find . -type f -printf '%i\t%p\n' | sort -t '	' -k 2 | awk -F '\t' '!seen[$1]++ { print $2 }' | xargs -d '\n' sha256sum
    getcap -r . | sort
  )
}

# extract TAR DIRECTORY: by GNU tar, into a new one.
extract() {
  rm -rf "$2" && mkdir "$2" && tar -C "$2" --numeric-owner -p --xattrs --xattrs-include='*' -xf "$1"
}

# same_tree DIRECTORY: as what we export of odd:1.
same_tree() {
  tree_of "$1" >tree.theirs && diff tree.ours tree.theirs
}

# A base image, and a layer with all that layers can have.
make_images() {
  ours import "$image" base:1 && ours commit base:1 odd:1 '
    set -e
    umask 022
    # As overlayfs writes them: a deleted file, and a directory in the place of another.
    mkdir bin home && mknod bin/arch c 0 0 && echo new >home/file
    /usr/bin/python3 -c "import os; os.setxattr(\"home\", \"trusted.overlay.opaque\", b\"y\")"
    mkdir -p deep/er && echo text >deep/er/file && ln deep/er/file deep/link && ln -s ../er deep/symlink
    printf "%0200d" 1 >"deep/$(printf "%0180d" 2)"
    mkfifo fifo && mknod null c 1 3 && mknod block b 7 0 && chmod 666 null
    truncate -s 300000 sparse && echo end >>sparse
    echo suid >suid && chmod 4755 suid && chown 3000000:1234567 deep/er/file
    cp /bin/true capable && setcap cap_net_bind_service+ep capable
    find . -exec touch -h -d @1600000000 {} +
    touch -d "2001-02-03 04:05:06.789" deep/er/file && touch -d @0 suid
    chmod 1777 home && touch -d @1000000000.5 deep home
  ' && ours export odd:1 odd.tar && extract odd.tar odd && tree_of odd >tree.ours &&
    grep deep/link tree.ours && refuses grep -E 'bin/arch|home/alice' tree.ours
}

# What images can be beside it: squashed, without layers, with a layer that has nothing in
# it and with annotations, with several names.
make_more_images() {
  ours squash odd:1 0 flat:1 && says 1 count_layers flat:1 && umoci init --layout none && umoci new --image none:latest &&
    ours import "$work/none" none:1 && says 0 count_layers none:1 && saved annotated layout none && tar -cf nothing.tar -T /dev/null &&
    umoci raw add-layer --image "$work/annotated:docker.io/library/odd:1" nothing.tar &&
    umoci config --image "$work/annotated:docker.io/library/odd:1" --manifest.annotation org.example.key=value &&
    ours import "$work/annotated" empty:1 && says 3 count_layers empty:1 && ours tag odd:1 registry.example:5000/other/name:2
}

count_layers() {
  ours layers "$1" | wc -l
}

# saved NAME FORMAT COMPRESSION [IMAGE...]: our archive of odd:1 as a file or directory of
# that name.
saved() {
  local which=("${@:4}")
  ((${#which[@]})) || which=(odd:1)
  rm -rf "$1" && ours save "$2" "$3" "$work/$1" "${which[@]}"
}

# comes_back ARCHIVE [IMAGE]: read by us, it is the image that it was.
comes_back() {
  local id wanted=${2:-odd:1}
  id=$(theirs import "$work/$1") && says "$(ours id "$wanted")" echo "$id" &&
    says "$(ours layers "$wanted")" "$tool" "$work/other" layers "$id"
}

# ---- skopeo -------------------------------------------------------------------

skopeo() {
  command skopeo --insecure-policy --tmpdir /tmp "$@"
}

# skopeo_reads TRANSPORT:ARCHIVE [IMAGE]: the configuration is ours, and each digest is right.
skopeo_reads() {
  rm -rf copy && says "$(ours id "${2:-odd:1}")" bash -c \
    'set -o pipefail; skopeo --insecure-policy --tmpdir /tmp inspect --config --raw "$1" | sha256sum | sed "s/^/sha256:/; s/ .*//"' - "$1" &&
    skopeo copy -q "$1" dir:copy
}

skopeo_writes() {
  rm -rf "written.$2" && skopeo copy -q "oci-archive:$work/oci.tar" "$1:$work/written.$2$3" && comes_back "written.$2"
}

# skopeo_passes_on IMAGE: through a directory of its own kind, and back as zstd.
skopeo_passes_on() {
  rm -rf copy passed.tar && saved pass.tar oci gzip "$1" && skopeo copy -q "oci-archive:$work/pass.tar" dir:copy &&
    skopeo copy -q --dest-compress --dest-compress-format zstd dir:copy "oci-archive:$work/passed.tar:$1" && comes_back passed.tar "$1"
}

manifest_digest() {
  skopeo inspect --raw "oci-archive:$work/$1" | sha256sum | sed 's/^/sha256:/; s/ .*//'
}

# The manifest of uncompressed layers stays what it is: for skopeo, for us, and for both again.
skopeo_keeps_manifests() {
  rm -f kept.tar again.tar && skopeo copy -q --preserve-digests "oci-archive:$work/oci.tar" "oci-archive:$work/kept.tar:odd:1" &&
    says "$(manifest_digest oci.tar)" manifest_digest kept.tar && comes_back kept.tar &&
    says "$(manifest_digest oci.tar)" "$tool" "$work/other" digest odd:1 && "$tool" "$work/other" save oci none "$work/again.tar" odd:1 &&
    says "$(manifest_digest oci.tar)" manifest_digest again.tar
}

skopeo_sees_annotations() {
  local compression
  for compression in none gzip; do
    saved annotated.tar oci "$compression" empty:1 &&
      says_like '"org.example.key": ?"value"' skopeo inspect --raw "oci-archive:$work/annotated.tar" || return
  done
}

test_skopeo() {
  engine=skopeo
  saved docker.tar docker none && saved dockergz.tar docker gzip && saved many.tar docker none odd:1 registry.example:5000/other/name:2 flat:1 &&
    saved oci.tar oci none && saved gzip.tar oci gzip && saved zstd.tar oci zstd && saved layout layout gzip || return
  expect "reads our Docker archive" 0 '' skopeo_reads "docker-archive:$work/docker.tar"
  expect "reads our Docker archive as OCI" 0 '' skopeo_reads "oci-archive:$work/docker.tar"
  expect "reads our OCI archive" 0 '' skopeo_reads "oci-archive:$work/oci.tar"
  expect "reads our OCI archive, gzip" 0 '' skopeo_reads "oci-archive:$work/gzip.tar"
  expect "reads our OCI archive, zstd" 0 '' skopeo_reads "oci-archive:$work/zstd.tar"
  expect "reads our OCI layout by its name" 0 '' skopeo_reads "oci:$work/layout:docker.io/library/odd:1"
  expect "writes a Docker archive for us" 0 '' skopeo_writes docker-archive docker :odd:1
  expect "writes an OCI archive for us" 0 '' skopeo_writes oci-archive archive :odd:1
  expect "writes an OCI layout for us" 0 '' skopeo_writes oci layout :odd:1
  expect "finds an image by each name" 0 '' eval 'skopeo_reads "docker-archive:$work/many.tar:registry.example:5000/other/name:2" &&
    skopeo_reads "docker-archive:$work/many.tar:docker.io/library/flat:1" flat:1'
  for more in flat:1 none:1 empty:1; do
    expect "passes on $more, zstd" 0 '' skopeo_passes_on "$more"
  done
  expect "keeps manifests" 0 '' skopeo_keeps_manifests
  expect "sees annotations" 0 '' skopeo_sees_annotations
}

# ---- umoci --------------------------------------------------------------------

umoci_unpacks() {
  rm -rf bundle && umoci unpack --image "$work/layout:docker.io/library/odd:1" bundle && same_tree bundle/rootfs
}

# A layer of umoci's above ours.
umoci_repacks() {
  local id
  echo added >bundle/rootfs/added && rm -r bundle/rootfs/deep && touch -d @5 bundle/rootfs/added bundle/rootfs &&
    umoci repack --image "$work/layout:docker.io/library/odd:1" bundle && id=$(theirs import "$work/layout") &&
    "$tool" "$work/other" export "$id" "$work/repacked.tar" && extract repacked.tar repacked && tree_of bundle/rootfs >tree.umoci &&
    tree_of repacked >tree.repacked && diff tree.umoci tree.repacked
}

umoci_unpacks_more() {
  local more
  for more in flat:1 empty:1; do
    rm -rf rootfs && saved more layout gzip "$more" && umoci raw unpack --image "$work/more:docker.io/library/$more" rootfs && same_tree rootfs ||
      return
  done
}

test_umoci() {
  engine=umoci
  expect "unpacks our OCI layout" 0 '' umoci_unpacks
  expect "repacks it for us" 0 '' umoci_repacks
  expect "unpacks one layer, and nothing of an empty one" 0 '' umoci_unpacks_more
}

# ---- buildah ------------------------------------------------------------------

buildah() {
  timeout --foreground 30 /usr/bin/buildah --root "$work/state/buildah" --runroot "$work/state/run.buildah" "$@"
}

# buildah_reads TRANSPORT:ARCHIVE [IMAGE]: the same image, and the same tree with all its
# attributes, which it shows as mounted.
buildah_reads() {
  local id
  id=$(buildah pull -q "$1") && says "$(ours id "${2:-odd:1}")" echo "sha256:$id" &&
    container=$(buildah from --pull-never "$id") && tree_of "$(buildah mount "$container")" >tree.theirs &&
    diff <(without_links tree.ours) <(without_links tree.theirs)
}

# An overlay counts names of a file that a layer above hides, too.
without_links() {
  sed -E 's/^(([^	]*	){5})[0-9]+	/\1-	/' "$1"
}

# buildah_writes FORMAT ARCHIVE OPTION...: a layer of its own above ours, or all in one.
buildah_writes() {
  local id
  rm -f built.tar && buildah_reads "docker-archive:$work/docker.tar" && echo added >added && buildah copy -q "$container" added /home/added &&
    rm -r "$(buildah mount "$container")/deep" && buildah config --env NAME=value "$container" &&
    buildah commit -q --format "$1" "${@:3}" "$container" "$2:$work/built.tar:docker.io/library/built:1" && id=$(theirs import "$work/built.tar") &&
    "$tool" "$work/other" export "$id" "$work/exported.tar" && extract exported.tar exported && tree_of exported >tree.built &&
    tree_of "$(buildah mount "$container")" >tree.buildah && diff <(without_links tree.built) <(without_links tree.buildah) && refuses grep deep/er tree.built
}

test_buildah() {
  local container
  engine=buildah
  saved layout layout gzip || return
  expect "reads our Docker archive" 0 '' buildah_reads "docker-archive:$work/docker.tar"
  expect "reads our Docker archive, gzip" 0 '' buildah_reads "docker-archive:$work/dockergz.tar"
  expect "reads our OCI archive, zstd" 0 '' buildah_reads "oci-archive:$work/zstd.tar"
  expect "reads our OCI layout" 0 '' buildah_reads "oci:$work/layout:docker.io/library/odd:1"
  expect "builds an OCI archive for us" 0 '' buildah_writes oci oci-archive
  expect "builds a Docker archive for us" 0 '' buildah_writes docker docker-archive
  expect "builds one of a single layer" 0 '' buildah_writes oci oci-archive --squash
  buildah rm -a >/dev/null 2>&1
}

# ---- podman and docker, which have much in common -------------------------------

podman() {
  timeout --foreground 30 /usr/bin/podman --root "$work/state/podman" --runroot "$work/state/run" --tmpdir "$work/state/tmp" \
    --cgroup-manager cgroupfs --events-backend file "$@"
}

docker() {
  timeout --foreground 30 /usr/bin/docker -H "unix://$work/docker.sock" "$@"
}

# loads ARCHIVE: the id and the diffIDs are ours.
loads() {
  "$engine" rmi -f "$reference" >/dev/null 2>&1
  "$engine" load -i "$1" && has odd:1
}

# has IMAGE [NAME]: as ours. Sets name; podman has what came as a Docker archive as its own.
has() {
  for name in "${2:-${reference%odd:1}$1}" "localhost/$1"; do
    ! "$engine" image inspect "$name" >/dev/null 2>&1 || break
  done
  says "$(ours id "$1" | sed "$id_prefix")" "$engine" image inspect -f '{{.Id}}' "$name" &&
    says "$(ours layers "$1")" "$engine" image inspect -f '{{range $i, $d := .RootFS.Layers}}{{if $i}}{{"\n"}}{{end}}{{$d}}{{end}}' "$name"
}

loads_many() {
  "$engine" load -i many.tar && has odd:1 registry.example:5000/other/name:2 && has flat:1
}

# exchanges IMAGE: there and back.
exchanges() {
  local name
  rm -f there.tar back.tar && saved there.tar docker none "$1" && "$engine" load -i there.tar && has "$1" &&
    "$engine" save "${save_options[@]}" -o back.tar "$name" && comes_back back.tar "$1"
}

# What a container of it has, but for what the engine puts there itself.
exports() {
  local id
  id=$("$engine" create "$reference" true) && "$engine" export -o exported.tar "$id" && extract exported.tar exported && "$engine" rm "$id" ||
    return
  # Neither has capabilities in its export.
  without_own <(grep -v ' cap_net' tree.ours) >wanted && tree_of exported | grep -v ' cap_net' >all && without_own all >got && diff wanted got
}

without_own() {
  grep -Ev '^(dev|proc|sys|etc|run|\.dockerenv|tmp)(/|	)|  \./(dev|proc|sys|etc|run|\.dockerenv|tmp)' "$1"
}

saves() {
  rm -f saved.tar && "$engine" save "${save_options[@]}" -o saved.tar "$reference" && comes_back saved.tar
}

# A container's changes, committed by the engine, and squashed by us.
commits() {
  local id
  id=$("$engine" create "$reference" true) && echo committed >file && "$engine" cp file "$id:/committed" && "$engine" commit "$id" made:1 &&
    "$engine" rm "$id" && rm -f made.tar && "$engine" save "${save_options[@]}" -o made.tar "$made" && id=$(theirs import "$work/made.tar") &&
    "$tool" "$work/other" squash "$id" 0 flat:1 && "$tool" "$work/other" export flat:1 "$work/flat.tar" &&
    says committed tar -xOf flat.tar committed
}

common_checks() {
  expect "loads our Docker archive" 0 '' loads docker.tar
  expect "has the same tree" 0 '' exports
  expect "saves it for us" 0 '' saves
  expect "commits for us" 0 '' commits
}

more_checks() {
  expect "loads our Docker archive, gzip" 0 '' loads dockergz.tar
  expect "loads several images and names" 0 '' loads_many
  for more in flat:1 empty:1; do
    expect "exchanges $more" 0 '' exchanges "$more"
  done
}

test_podman() {
  engine=podman reference=docker.io/library/odd:1 id_prefix='s/^sha256://' made=localhost/made:1 save_options=(-q)
  common_checks
  save_options=(-q --format oci-archive)
  expect "saves an OCI archive for us" 0 '' saves
  expect "loads our OCI archive" 0 '' loads oci.tar
  expect "loads our OCI archive, gzip" 0 '' loads gzip.tar
  expect "loads our OCI archive, zstd" 0 '' loads zstd.tar
  # What it has by two names from a Docker archive, it saves with a configuration of its own.
  save_options=(-q)
  more_checks
  podman rm -f -a >/dev/null 2>&1
}

test_docker() {
  engine=docker reference=odd:1 id_prefix='' made=made:1 save_options=()
  printf '{}' >daemon.json
  dockerd --config-file "$work/daemon.json" --data-root "$work/state/docker" --exec-root "$work/state/exec" -H "unix://$work/docker.sock" \
    -p "$work/dockerd.pid" --storage-driver overlay2 --exec-opt native.cgroupdriver=cgroupfs --bridge none --iptables=false \
    --ip6tables=false >&4 2>&4 &
  expect "the daemon starts" 0 '' within 30 docker version || return
  common_checks
  more_checks
}

test_programs() {
  engine=layers
  expect "an image with everything" 0 '' make_images || return
  expect "and others" 0 '' make_more_images || return
  test_skopeo
  test_umoci
  test_buildah
  test_podman
  test_docker
}
