#!/bin/bash
# From a fresh Debian 12 to containers: installs, builds, makes two images and
# shows four of them running through examples/run.
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=third_party/progress.sh
. "$root/third_party/progress.sh"

usage() {
  cat <<'USAGE'
usage: examples/quickstart.sh [--check]

Installs what is missing, builds examples/run, makes a busybox image and a Debian
image with Python 3, and shows in containers: what a program sees of itself; a
web server with a published port; a program over its memory limit; a program that
tries to break out. Needs root. Leaves nothing behind but the build and the images.

  --check  also verify each result, and that nothing was left on this machine

Environment:
  CAISSON_RUN        an examples/run that is built already
  CAISSON_IMAGES     the answer of examples/make_images.sh
  CAISSON_CACHE_DIR  images and temporary files (.cache of the checkout)
USAGE
}

check=0
for argument in "$@"; do
  case $argument in
    --check) check=1 ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
  esac
done
((EUID == 0)) || die "containers with a bridge network need root; run it with sudo"

start=$(now_ms)
# shellcheck source=third_party/bazel.sh
. "$root/third_party/bazel.sh"
scratch=$CAISSON_CACHE_DIR/quickstart/$$
store=$scratch/store bazel_log=$scratch/bazel.log server='' failures=0

stop_server() {
  local pid=$server watchdog
  [[ -n $pid ]] || return 0
  server=
  # The first signal is for the program, which as PID 1 may ignore it; the second
  # ends it.
  kill -INT "$pid" 2>/dev/null || true
  kill -TERM "$pid" 2>/dev/null || true
  (read -r -t 10 <> <(:) || kill -KILL "$pid") 2>/dev/null &
  watchdog=$!
  wait "$pid" 2>/dev/null || true
  kill "$watchdog" 2>/dev/null || true
  wait "$watchdog" 2>/dev/null || true
}

clean_up() {
  stop_server
  rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# ---- output -------------------------------------------------------------------

bold='' plain=''
if [[ -t 1 ]]; then
  bold=$'\e[1m' plain=$'\e[0m'
fi

headline() {
  printf '\n%s%s%s\n' "$bold" "$1" "$plain"
}

fail() {
  printf '  FAILED  %s\n' "$1"
  failures=$((failures + 1))
}

# expect WHAT FILE REGEX: that a line of the file matches.
expect() {
  if ! grep -q -E -e "$3" "$2"; then
    fail "$1: no line matches $3"
  elif ((check)); then
    printf '  ok      %s\n' "$1"
  fi
}

# A command line as it can be typed in the checkout, but for --store.
show_command() {
  local line=run word
  for word in "$@"; do
    [[ $word =~ ^[[:alnum:]_./:=,@+-]+$ ]] || word="'${word//\'/\'\\\'\'}'"
    line+=" ${word//"$root"/\$PWD}"
  done
  printf '  $ %s\n\n' "$line"
}

# The container ends with this script, however that ends.
caisson() {
  exec setpriv --pdeathsig KILL "$run" --store "$store" "$@"
}

# container NAME ARGUMENT...: shows a command and what it prints, which is left
# in $scratch/NAME, and its exit code in $scratch/NAME.exit.
container() {
  local name=$1
  shift
  show_command "$@"
  run_step "  running" quietly "$name" "$@"
  sed 's/^./  &/' "$scratch/$name"
}

quietly() {
  local name=$1 code=0
  shift
  (caisson "$@") >"$scratch/$name" 2>&1 || code=$?
  echo "$code" >"$scratch/$name.exit"
}

# ---- before the containers ----------------------------------------------------

build() {
  cd "$root"
  logged_bazel '' build -c opt //examples/run
}

import_images() {
  (caisson --rm --network none "docker-archive:$images/busybox.docker.tar" true)
  (caisson --rm --network none "oci-archive:$images/debian-python.oci.tar" true)
}

# A directory of this run, locked; those of runs that were killed are not.
make_scratch() {
  local old lock
  for old in "${scratch%/*}"/*; do
    [[ -d $old ]] || continue
    exec {lock}<"$old"
    ! flock --nonblock "$lock" || rm -rf "$old"
    exec {lock}<&-
  done
  mkdir -p "$scratch"
  chmod 0700 "$scratch"
  exec {scratch_lock}<"$scratch"
  flock "$scratch_lock"
}

prepare() {
  make_scratch
  if [[ -z ${CAISSON_RUN:-} ]]; then
    "$root/third_party/install_deps.sh"
    step "building examples/run" build
    run=$(cd "$root" && bazel_in '' info -c opt bazel-bin 2>/dev/null)/examples/run/run
  else
    run=$CAISSON_RUN
  fi
  images=${CAISSON_IMAGES:-$("$root/examples/make_images.sh")}
  step "importing the images" import_images
}

# What a container might leave on the machine, a line each.
traces() {
  ip -o link | sed -E 's/^[0-9]+: ([^:@]+).*/interface \1/'
  nft list tables 2>/dev/null || true
  awk '{ print "mount", $5 }' /proc/self/mountinfo
  find /sys/fs/cgroup -maxdepth 4 -type d \( -path '*/caisson' -o -path '*/caisson/*' \) || true
  ip netns list
}

# ---- the four -----------------------------------------------------------------

show_itself() {
  headline "1. A container, seen from inside"
  container inside --rm --name box -m 64m --cpus 0.5 --pids-limit 32 \
    -v "$root/examples/quickstart:/quickstart:ro" busybox sh /quickstart/inside.sh
  expect "its own host name" "$scratch/inside" '^hostname +box$'
  expect "it is process 1" "$scratch/inside" '^pid 1 .* pid 1$'
  expect "its memory limit" "$scratch/inside" '^memory +(at most 67108864 bytes|limit not visible in here)$'
  expect "its CPU limit" "$scratch/inside" '^cpu +(at most 50000|about [1-5]?[0-9]{1,4}) us '
  expect "its limit of processes" "$scratch/inside" '^processes +at most 32(, counted)?$'
  expect "its map of users" "$scratch/inside" '^uid map +0 here is [0-9]+ on the host, [0-9]+ ids$'
  expect "its root is an overlay" "$scratch/inside" '^mounts +/ +overlay '
  expect "its own /proc" "$scratch/inside" '^ +/proc +proc '
  expect "its exit code" "$scratch/inside.exit" '^0$'
}

free_port() {
  local tries
  for tries in {1..100}; do
    port=$((20000 + (RANDOM + tries) % 12000))
    [[ -n $(ss -Hltn "sport = :$port") ]] || return 0
  done
  die "no free port from 20000 to 32000"
}

# Until the server answers, at most 15 s.
fetch_from_host() {
  local deadline=$((SECONDS + 15)) never
  exec {never}<> <(:)
  until curl -fsS --noproxy '*' --max-time 3 "http://$1:$port/" >"$scratch/fetched.$2" 2>"$scratch/error"; do
    if ((SECONDS >= deadline)) || ! kill -0 "$server" 2>/dev/null; then
      cat "$scratch/error" "$scratch/server"
      return 1
    fi
    read -r -t 0.05 -u "$never" || true
  done
}

serve_web() {
  local address
  headline "2. A web server with a published port"
  free_port
  show_command --rm --name web -p "$port:8000" debian-python
  caisson --rm --name web -p "$port:8000" debian-python >"$scratch/server" 2>&1 &
  server=$!

  printf '  $ curl http://127.0.0.1:%s/\n\n' "$port"
  run_step "  fetching" fetch_from_host 127.0.0.1 loopback
  sed 's/^/  /' "$scratch/fetched.loopback"
  expect "its page from the host" "$scratch/fetched.loopback" 'from inside a caisson container'
  address=$(ip -4 -o addr show scope global | awk '{ sub(/\/.*/, "", $4); print $4; exit }')
  if [[ -n $address ]]; then
    printf '\n  $ curl http://%s:%s/\n\n' "$address" "$port"
    run_step "  fetching" fetch_from_host "$address" address
    sed 's/^/  /' "$scratch/fetched.address"
    expect "its page by the host's own address" "$scratch/fetched.address" 'from inside a caisson container'
  fi

  printf '\n'
  container second --rm --name client busybox wget -q -O - http://web:8000/
  expect "its page from another container, by name" "$scratch/second" 'from inside a caisson container'
  stop_server
}

exceed_memory() {
  headline "3. A program over its memory limit"
  container memory --rm --name greedy -m 64m debian-python \
    python3 -c 'print("taking 256 MiB of 64", flush=True); b = b"x" * (256 << 20)'
  printf '  exit code %s\n' "$(<"$scratch/memory.exit")"
  expect "it is reported as out of memory" "$scratch/memory" '[Oo]ut of memory'
  expect "it was killed" "$scratch/memory.exit" '^137$'
}

distrust() {
  local disk
  headline "4. A program that tries to break out"
  disk=$(findmnt -n -o MAJ:MIN --target "$root" | head -n 1 | tr -d ' ')
  [[ $disk != 0:* ]] || disk=
  echo "a secret of the host" >"$scratch/secret"
  container untrusted --rm --name untrusted -v "$root/examples/untrusted:/untrusted:ro" debian-python \
    python3 /untrusted/attempts.py --host-file "$scratch/secret" --host-pid $$ --host-disk="$disk"
  expect "every attempt was refused" "$scratch/untrusted" '^([1-9][0-9]*) attempts, \1 refused$'
  [[ ! -e $scratch/secret.written ]] || fail "it has written a file of the host"
}

# The kernel takes some things down in the background.
check_traces() {
  local deadline=$((SECONDS + 10)) never
  ((check)) || return 0
  headline "Left on the machine"
  exec {never}<> <(:)
  until traces >"$scratch/after" && diff "$scratch/before" "$scratch/after" >"$scratch/diff"; do
    ((SECONDS < deadline)) || {
      fail "not as before (<: gone, >: new)"
      sed 's/^/  /' "$scratch/diff"
      return 0
    }
    read -r -t 0.1 -u "$never" || true
  done
  printf '  ok      nothing\n'
}

prepare
traces >"$scratch/before"
show_itself
serve_web
exceed_memory
distrust
check_traces
headline "Done in $(format_ms $(($(now_ms) - start)))."
((failures == 0)) || die "$failures of the results above are not as they should be"
