#!/bin/bash
# The command line: exit codes, options and what is refused. The verbs are
# tests/kernel/oci_runtime_test's.
# What stands in single quotes is for the shell in the container.
# shellcheck disable=SC2016
set -uo pipefail
oci=$1

if ((EUID != 0)); then
  echo "needs root: it starts containers"
  exit "$((${CAISSON_TESTS_MUST_RUN:-0} == 1))"
fi
work=$(mktemp -d "${TEST_TMPDIR:-/tmp}/oci.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/bundle/rootfs/bin" "$work/bundle/rootfs/tmp" "$work/bundle/below"
cp /bin/busybox "$work/bundle/rootfs/bin/busybox"
ln -s busybox "$work/bundle/rootfs/bin/sh"

failures=0
failed() {
  echo "FAILED   $*"
  ((failures += 1))
}
# expect CODE PATTERN COMMAND...: exit code and output.
expect() {
  local code=$1 pattern=$2 output actual=0
  shift 2
  output=$("$@" 2>&1 </dev/null) || actual=$?
  [[ $actual == "$code" && $output =~ $pattern ]] && return
  failed "$*: exit code $actual, not $code, or output not like \"$pattern\": $output"
}
runtime() { "$oci" --root "$work/state" "$@"; }

# bundle SCRIPT [TERMINAL [HOOKS]]
bundle() {
  cat >"$work/bundle/config.json" <<CONFIG
{"ociVersion": "1.0.2", "root": {"path": "rootfs"},
 "process": {"terminal": ${2:-false}, "cwd": "/", "env": ["PATH=/bin"],
             "noNewPrivileges": true, "args": ["sh", "-c", "$1"],
             "user": {"uid": 7, "gid": 8, "additionalGids": [9], "umask": 7}},
 "hooks": ${3:-{\}},
 "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
 "linux": {"cgroupsPath": "/caisson-oci-test-$$/web",
           "namespaces": [{"type": "pid"}, {"type": "mount"}]}}
CONFIG
}

run=(runtime run -b "$work/bundle")
bundle 'exit 7'
expect 7 '' "${run[@]}" web
expect 7 '' "${run[@]}" --no-subreaper web
expect 1 'no such file' runtime run -b "$work/none" web
expect 1 'does not exist' runtime state web
expect 255 'does not exist' runtime exec web busybox true

# What the runtime has opened for itself is nobody's to be preserved.
bundle 'busybox cat <&3'
preserve() { runtime --log "$work/log" run -b "$work/bundle" --preserve-fds 1 web; }
preserve_closed() { preserve 3>&-; }
preserve_open() { preserve 3<<<'from outside'; }
expect 1 'descriptor 3 is not open' preserve_closed
expect 0 'from outside' preserve_open

# A signal that comes while the container is created is for the container.
bundle 'busybox true; exit 5' false \
  "{\"createRuntime\": [{\"path\": \"/bin/sh\", \"args\": [\"sh\", \"-c\", \"kill -TERM \$(cat $work/pid)\"]}]}"
signalled() { sh -c 'echo $$ >"$1/pid"; shift; exec "$@"' - "$work" "$oci" --root "$work/state" run -b "$work/bundle" web; }
expect 5 '' signalled

# Nobody would have the terminal.
bundle 'busybox true' true
expect 1 'cannot allocate tty' runtime create -b "$work/bundle" web
expect 1 'cannot allocate tty' runtime run -d -b "$work/bundle" web
[[ -z $(ls -A "$work/state") ]] || failed "something is left: $(ls "$work/state")"

# ".." behind a link is where the kernel finds it.
bundle 'exec busybox sleep 1000'
ln -s bundle/below "$work/link"
# Its output is none that expect() would wait for.
runtime run -d -b "$work/link/.." web >/dev/null 2>&1 </dev/null || failed "run -d"
expect 0 "\"bundle\": \"$work/bundle\"" runtime state web

expect 0 'uid=7 gid=8 groups=8,9' runtime exec web busybox id
expect 0 'uid=5 gid=8 groups=8,9' runtime exec -u 5 web busybox id
expect 0 'uid=5 gid=6 groups=6,9' runtime exec -u 5:6 web busybox id
expect 0 '^0007' runtime exec -u 5 web sh -c umask
expect 255 'cannot allocate tty' runtime exec -t -d web busybox touch /tmp/ran
[[ ! -e $work/bundle/rootfs/tmp/ran ]] || failed "exec -t -d runs the program"
expect 255 'is not UTF-8' runtime exec web busybox echo $'\xff'
expect 1 'is not UTF-8' runtime update --cpuset-cpus $'\xff' web
expect 255 'would stop before' runtime exec --ignore-paused web busybox true
expect 1 'unknown option' runtime create --pidfd-socket x -b "$work/bundle" other
expect 1 'unknown option --=x' runtime create --=x -b "$work/bundle" other
expect 0 '' runtime delete -f web

bundle 'busybox true' false '{"poststop": [{"path": "/bin/false"}]}'
expect 0 'level=warning.*/bin/false' sh -c '"$1" --root "$2/state" --log /dev/stdout run -b "$2/bundle" web 2>&1' - "$oci" "$work"
[[ -z $(ls -A "$work/state") ]] || failed "something is left: $(ls "$work/state")"
((failures == 0))
