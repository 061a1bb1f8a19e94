#!/bin/bash
# `containers` as a person uses it: each command, what it prints, its exit codes,
# and a clean host at the end. Each call is a process of its own.
# What stands in single quotes is for the shell in the container.
# shellcheck disable=SC2016
set -uo pipefail
program=$1

if ((EUID != 0)); then
  echo "needs root: it starts containers"
  exit "$((${CAISSON_TESTS_MUST_RUN:-0} == 1))"
fi
root=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/../..
images=${CAISSON_IMAGES:-$("$root/examples/make_images.sh")} || exit 1
work=$(mktemp -d "${TEST_TMPDIR:-/tmp}/containers.XXXXXX") || exit 1
group=/caisson-containers-$$
failures=0
containers() { "$program" --store "$work/store" "$@"; }
# create and run, where the test may leave traces.
quiet() { containers "$1" --network none --cgroup-parent "$group" "${@:2}"; }

remove_all() {
  # shellcheck disable=SC2046
  containers rm -f -v $(containers ps -aq) >/dev/null 2>&1
  rm -rf --one-file-system "$work"
}
trap remove_all EXIT

# Everything that a container may leave on a host.
host_state() {
  cat /proc/self/mounts
  ip -o link | cut -d: -f2
  nft list tables
  find /sys/fs/cgroup -path "*$group*" -type d 2>/dev/null
  ls "$work"/store/{writable,kept,containers/names} 2>/dev/null
  # A keeper has its container's directory open; others may have keepers, too.
  find /proc/[0-9]*/fd -lname "$work/*" 2>/dev/null
}

fail() {
  echo "FAILED   $1"
  ((failures += 1))
}

# expect CODE PATTERN COMMAND...: exit code and output.
expect() {
  local code=$1 pattern=$2 output actual=0
  shift 2
  output=$("$@" 2>&1 </dev/null) || actual=$?
  ((actual == code)) && grep -qE -- "$pattern" <<<"$output" && return
  fail "$*: exit code $actual, not $code, or output not like \"$pattern\":"
  printf '%s\n' "$output" | sed 's/^/         /'
}

# was CODE PATTERN ACTUAL OUTPUT: the same of what has run already.
was() {
  (($1 == $3)) && [[ $4 == *$2* ]] && return
  fail "exit code $3, not $1, or output not like \"$2\": $4"
}

# Waits until a condition holds, at most ten seconds.
await() {
  for _ in {1..200}; do
    "$@" && return
    read -r -t 0.05 <> <(:) || true
  done
  fail "awaited in vain: $*"
  return 1
}
in_terminal() { script -qec "stty rows 40 cols 100; '$program' --store '$work/store' $*" /dev/null; }
prints() { grep -qE -- "$1" <<<"$("${@:2}" 2>&1)"; }

# What it is for a person who asks.
expect 0 '^usage: containers \[--store' containers --help
while read -r command; do
  expect 0 "^usage: containers $command" containers "$command" --help
done < <("$program" --help | sed -n 's/^  \([a-z]*\) .*/\1/p')
expect 1 'no command; see' containers
expect 1 '"nonesuch" is no command' containers nonesuch
expect 1 'see containers ps --help' containers ps --nonesuch
expect 1 'expected \[OPTIONS\] CONTAINER' containers logs

# Images. The directory of containers is made first, by a look at it.
expect 0 '^CONTAINER ID +IMAGE +COMMAND +CREATED +STATUS +PORTS +NAMES$' containers ps
expect 0 '^busybox:latest$' containers import "$images/busybox.docker.tar"
expect 0 '^b:1, busybox:latest$' containers import --name b:1 "$images/busybox.oci.tar"
expect 0 'b:1.* linux/' containers images
expect 0 '^b:1$' containers rmi b:1
expect 0 '^busybox$' containers rmi busybox
expect 0 'busybox:latest$' containers import --confined "$images/busybox.oci.tar"
expect 1 'none.tar' containers import "$work/none.tar"

# What an import shows, and a signal in the middle of it; not SIGINT, which a shell has
# ignored in what it runs in the background.
expect 0 '^busybox$' containers rmi busybox
expect 0 '^layer 1 of 1: [0-9a-f]{12}, [0-9.]+[KM]iB, [0-9]{3} entries$' containers import "$images/busybox.oci.tar"
expect 0 '^busybox$' containers rmi busybox
output=$(in_terminal "import '$images/busybox.oci.tar'" </dev/null)
was 0 '] 0 of 1 MiB, 0 entries, 0 of 1 layers' $? "$output"
mkfifo "$work/fifo"
"$program" --store "$work/store" import "$work/fifo" >"$work/out" 2>&1 &
pid=$!
exec {archive}>"$work/fifo"
head -c 2000000 "$images/debian-python.docker.tar" >&"$archive"
kill -TERM "$pid"
{ head -c 2000000 "$images/debian-python.docker.tar" >&"$archive"; } 2>/dev/null
exec {archive}>&-
wait "$pid"
was 143 'interrupted: nothing was imported' $? "$(<"$work/out")"
expect 0 '^0$' sh -c "ls '$work/store/staging' | wc -l"
before=$(host_state)

# Exit codes of run, and what it says.
expect 42 '^out$' quiet run --rm busybox sh -c 'echo out; exit 42'
expect 137 "" quiet run --rm --init busybox sh -c 'kill -9 $$'
expect 127 'ENOENT' quiet run --rm busybox /no/such
expect 126 'not executable' quiet run --rm busybox /etc/passwd
expect 125 'no image "nonesuch"' quiet run --rm nonesuch true
expect 125 '--memory "1x": expected' quiet run -m 1x busybox true
expect 125 '--cpus "x": expected' quiet run --cpus x busybox true
expect 125 'expected max-size' quiet run --log-opt x=1 busybox true
expect 125 'need --health-cmd' quiet run --health-interval 1s busybox true
expect 125 'excludes a restart policy' quiet run --rm --restart always busybox true
expect 125 'see containers run --help' quiet run --nonesuch
[[ $(quiet run --rm busybox sh -c 'echo out; echo err >&2' 2>/dev/null) == out ]] ||
  fail "standard output and standard error are apart"
[[ $(echo piped | quiet run -i --rm busybox cat) == piped ]] || fail "standard input"
[[ $(head -c 3000000 /dev/zero | quiet run -i --rm busybox cat | wc -c) == 3000000 ]] ||
  fail "much of it"
expect 0 '^$' containers ps -aq

# Whoever reads its output goes: so does the client, as Docker's.
first=$(quiet run --rm --name endless busybox yes 2>"$work/err" | head -n 1)
was 0 y 0 "$first"
await grep -qs 'write to stdout: Broken pipe; the container goes on' "$work/err"
expect 0 ' Up .* endless$' containers ps
expect 0 '^endless$' containers rm -f endless

# Options do what they say.
expect 0 '^1 here$' env HERE=here "$program" --store "$work/store" run --network none \
  --cgroup-parent "$group" --rm -e A=1 -e HERE busybox sh -c 'echo $A $HERE'
expect 0 '^5 /var/new box$' quiet run --rm -u 5 -w /var/new --hostname box busybox \
  sh -c 'echo $(id -u) $PWD $(hostname)'
expect 1 'Read-only file system' quiet run --rm --read-only busybox touch /x
expect 0 '^a b$' quiet run --rm --entrypoint /bin/echo busybox a b
expect 0 ' 64 ' quiet run --rm --tmpfs /scratch:size=64k busybox df -k /scratch
expect 0 '0000000000000000$' quiet run --rm --cap-drop ALL busybox grep CapEff /proc/self/status
expect 0 '10.0.0.7.db' quiet run --rm --add-host db:10.0.0.7 busybox cat /etc/hosts
expect 0 '^kept$' quiet run --rm -v data:/data -v /anonymous busybox sh -c 'echo kept | tee /data/f'
expect 0 '^kept$' quiet run --rm -v data:/data:ro busybox cat /data/f
expect 137 '' quiet run --rm -m 24m busybox tail /dev/zero
expect 0 "can't fork" quiet run --rm --pids-limit 3 busybox \
  sh -c '(sleep 9 & sleep 9 & sleep 9 & sleep 9 &) ; exit 0'

# One that is created, started, and looked at.
forever='trap "exit 3" TERM; echo ready; echo bad >&2; while :; do sleep 0.1; done'
expect 0 '^[0-9a-f]{64}$' quiet create --name web --label tier=front -m 64m --cpus 1.5 \
  --health-cmd 'test -e /well' --health-interval 50ms --log-opt max-size=1m --log-opt max-file=2 \
  --stop-timeout 7 busybox sh -c "$forever"
expect 0 ' Created +web$' containers ps -a
expect 1 'container "web" is not running' containers top web
expect 1 'image "busybox" is used by the containers web' containers rmi busybox
expect 0 '^web$' containers start web
expect 1 'is running already' containers start web
await prints ready containers logs web
expect 0 '^[0-9a-f]{12} +busybox +"sh -c trap "exit ..." .* Up .* web$' containers ps
expect 0 ' web$' containers ps --filter status=running --filter label=tier=front --filter name=we
expect 0 '^CONTAINER ID[^w]*$' containers ps --filter label=tier=back
[[ $(containers logs web 2>/dev/null) == ready ]] || fail "logs: standard output"
expect 0 '^20[0-9-]+T[0-9:.]+Z (bad|ready)$' containers logs -t --tail 1 web
expect 0 '^$' containers logs --until 1h web
expect 1 'expected a duration' containers logs --since yesterday web
expect 0 '^UID +PID +PPID' containers top web
expect 0 ' sh -c trap' containers top web
expect 0 '^[0-9a-f]{12} +web +[0-9.]+% .* / 64.0MiB' containers stats --no-stream
expect 4 '^1 7 /tmp$' containers exec -e A=1 -u 7 -w /tmp web sh -c 'echo $A $(id -u) $PWD; exit 4'
[[ $(echo piped | containers exec -i web cat) == piped ]] || fail "exec -i"
expect 127 'ENOENT' containers exec web /no/such
expect 0 '^$' containers exec -d web touch /well
await prints 'Up .* \(healthy\)' containers ps
containers inspect web | python3 -c '
import json, sys
it, = json.load(sys.stdin)
assert it["Name"] == "web" and it["State"]["Status"] == "running", it
assert it["State"]["Health"]["Status"] == "healthy", it
assert it["Config"]["Labels"] == {"tier": "front"}, it
assert it["Config"]["Cmd"][:2] == ["sh", "-c"], it
assert it["HostConfig"]["Resources"]["Memory"] == 64 << 20, it
assert it["HostConfig"]["LogConfig"] == {"max-size": 1 << 20, "max-file": 2}, it
' || fail "inspect"
expect 0 '^web$' containers pause web
expect 0 '\(Paused\)' containers ps
expect 1 'is paused' containers exec web true
expect 0 '^web$' containers unpause web
expect 0 '^web$' containers update -m 80m --pids-limit 40 web
expect 0 ' / 80.0MiB' containers stats --no-stream web
expect 0 '^$' containers rename web site
expect 1 'no container "web"' containers inspect web
mkdir -p "$work/files/sub" && echo one >"$work/files/sub/a" && echo two >"$work/files/b"
expect 0 '^$' containers cp "$work/files" site:/tmp
expect 0 '^$' containers cp "$work/files/." site:/tmp/new
expect 0 '^$' containers cp "$work/files/b" site:/tmp/new/sub/a
expect 0 '^one two two$' containers exec site sh -c 'echo $(cat /tmp/files/sub/a /tmp/new/sub/a /tmp/new/b)'
expect 0 '^$' containers cp site:/tmp/new "$work/copy"
expect 0 '^new/sub/a$' tar -t -f <(containers cp site:/tmp/new -)
[[ $(<"$work/copy/sub/a") == two ]] || fail "cp to the host"
expect 1 'none' containers cp site:/none "$work/copy"
expect 1 'one of the two is' containers cp "$work/copy" "$work/copy2"
expect 0 '^site$' containers restart -t 5 site
expect 1 'stop it, or remove it with force' containers rm site
expect 0 '^site$' containers kill -s TERM site
expect 0 '^3$' containers wait site
expect 0 'Exited \(3\) .* site$' containers ps -a
expect 0 '^$' containers cp site:/tmp/new/b "$work/later"
[[ $(<"$work/later") == two ]] || fail "cp from a stopped container"
expect 0 '^site$' containers start site
expect 0 '^site$' containers stop -t 20 site
expect 1 'no container "other"' containers stop other site
expect 0 'container die [0-9a-f]{64} \(exitCode=3, .*name=site, tier=front\)$' \
  containers events --since 10m --until 0s --filter container=site --filter event=die
expect 0 'Containers +1 +0 ' containers system df
expect 0 '^[0-9a-f]{64}$' containers prune -f
expect 0 '^$' containers ps -aq

# Started again by its policy, and recovered.
expect 0 '^[0-9a-f]{64}$' quiet run -d --name again --restart on-failure:2 busybox sh -c 'echo run; exit 5'
await prints '"RestartCount": 2' containers inspect again
await prints 'Exited \(5\)' containers ps -a
[[ $(containers logs -f again) == $'run\nrun\nrun' ]] || fail "restarts: $(containers logs again)"
expect 0 '^[0-9a-f]{64}$' quiet run -d --name lost --restart always busybox sleep 1000
id=$(containers ps -q --no-trunc)
keeper=$(containers inspect lost | sed -n 's/.*"KeeperPid": \([1-9][0-9]*\),/\1/p')
kill -KILL "$keeper"
await prints 'Exited \(137\) .* lost$' containers ps -a
expect 0 "^started +$id$" containers recover
expect 0 ' Up .* lost$' containers ps
expect 0 '^$' containers recover
expect 0 '^lost$' containers rm -f lost
expect 0 '^again$' containers rm again

# A network, and a port of the host.
network=ct$$
expect 0 '^[0-9a-f]{64}$' containers run -d --name server --network "$network" --cgroup-parent "$group" \
  -p 127.0.0.1::80 busybox sh -c 'mkdir /www; echo page >/www/index.html; exec httpd -f -h /www'
expect 0 '127.0.0.1:[0-9]+->80/tcp +server$' containers ps
expect 0 '^80/tcp -> 127.0.0.1:[1-9][0-9]*$' containers port server
expect 0 '^127.0.0.1:[1-9][0-9]*$' containers port server 80
expect 1 'port "81" of "server" is not published' containers port server 81
fetch() { containers run --rm --network "$network" --cgroup-parent "$group" busybox wget -qO- http://server/; }
await prints '^page$' fetch
expect 0 '^server$' containers rm -f server

# Signals and terminals.
"$program" --store "$work/store" run --network none --cgroup-parent "$group" --rm busybox \
  sh -c 'trap "exit 7" INT; echo ready; while :; do sleep 0.1; done' >"$work/out" &
pid=$!
await grep -qs ready "$work/out"
kill -INT "$pid"
wait "$pid"
was 7 ready $? "$(<"$work/out")"
run_options="--network none --cgroup-parent $group"
output=$(in_terminal "run -it --rm $run_options busybox sh -c 'stty size; exit 3'" </dev/null)
was 3 '40 100' $? "$output"
# Left alone with Ctrl-P Ctrl-Q, and attached to again.
output=$({
  await prints ready containers logs shell >&2
  printf '\020\021'
} | in_terminal "run -it --name shell $run_options busybox sh -c 'echo ready; read x; echo got \$x; exit 6'") ||
  fail "leaving: $output"
expect 0 ' Up .* shell$' containers ps
output=$({
  await prints 'container attach' containers events --since 10m --until 0s --filter event=attach >&2
  printf 'word\r'
} | in_terminal "attach shell")
was 6 'got word' $? "$output"
output=$(printf 'again\r' | in_terminal "start -a -i shell")
was 6 'got again' $? "$output"
expect 0 '^shell$' containers rm -f shell
quiet run -d --name sleeper busybox sleep 1000 >/dev/null
output=$(in_terminal "exec -t sleeper sh -c 'stty size; exit 8'" </dev/null)
was 8 '40 100' $? "$output"
expect 0 '^sleeper$' containers rm -f sleeper

# The kernel takes a dead container's interfaces down in the background.
unchanged() { [[ $(host_state) == "$before" ]]; }
await unchanged || diff <(printf '%s\n' "$before") <(host_state)
echo "$failures failed"
exit "$((failures > 0))"
