# shellcheck shell=bash
# shellcheck disable=SC2154 # run.sh sets root, engine, work, runtime, image and group.
# containerd's own shim, which calls the runtime as it does for Kubernetes and for docker.

readonly busybox=docker.io/library/busybox:latest

ctr() {
  timeout --foreground 30 /usr/bin/ctr -a "$work/containerd.sock" "$@"
}

# run ID [OPTION...] COMMAND...: ctr run, with the options (--name=value) first.
run() {
  local id=$1 own=()
  shift
  while [[ $1 == -* ]]; do own+=("$1") && shift; done
  ctr run --runtime io.containerd.runc.v2 --runc-binary "$runtime" --cgroup "/$group/$id" "${own[@]}" "$busybox" "$id" "$@"
}

start_containerd() {
  cat >containerd.toml <<FILE
version = 2
root = "$work/state/root"
state = "$work/state/run"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "$work/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "$work/state/opt"
FILE
  containerd --config containerd.toml >&4 2>&4 &
  within 20 ctr version
}

# is_status STATUS ID
is_status() {
  local said
  said=$(ctr task ls | awk -v id="$2" '$1 == id { print $3 }')
  [[ $said == "$1" ]] || { echo "$2 is $said" && return 1; }
}

task_processes() {
  local pid
  pid=$(ctr task ps c | awk 'NR == 2 { print $1 }') && says "sleep 1000 " sh -c "tr '\\0' ' ' </proc/$pid/cmdline"
}

# delete ID STATUS: a stopped task, of which ctr tells the status, and its container.
delete() {
  within 10 is_status STOPPED "$1" || return 1
  says_like "exit code $2\"" ctr task delete "$1" && ctr container delete "$1"
}

pause_and_resume() {
  ctr task pause c && is_status PAUSED c && refuses ctr task exec --exec-id late c true &&
    ctr task resume c && is_status RUNNING c && ctr task exec --exec-id later c true
}

memory_limit() {
  run limited -d --memory-limit=67108864 sleep 1000 && limit_of "$group/limited" memory 67108864 &&
    ctr task kill -s KILL limited && delete limited 137
}

kill_and_delete() {
  ctr task kill -s KILL c && delete c 137
}

signals() {
  # shellcheck disable=SC2016
  run trap -d sh -c 'trap "exit 7" TERM; while :; do sleep 0.05; done' && ctr task kill -s TERM trap && delete trap 7
}

kill_all() {
  run tree -d sh -c 'sleep 1000 & sleep 1000 & wait' && ctr task kill --all -s KILL tree && delete tree 137
}

nothing_is_left() {
  says "" ctr task ls -q && says "" ctr container ls -q && within 5 no_groups
}

test_containerd() {
  expect "starts" 0 '' start_containerd || return
  expect "image import" 0 busybox ctr image import "$image"
  expect "run, its output" 0 '^hello$' run hello --rm echo hello
  expect "run, its exit code" 42 '' run code --rm sh -c 'exit 42'
  expect "run on a terminal" 0 '/dev/pts/0' on_terminal /usr/bin/ctr -a "$work/containerd.sock" run --rm -t \
    --runtime io.containerd.runc.v2 --runc-binary "$runtime" --cgroup "/$group/tty" "$busybox" tty tty
  expect "run of a program that does not exist" '*' 'no-such-program.*(no such file|not found)' run missing --rm /no-such-program
  expect "run with a read-only root" '*' 'Read-only file system' run fixed --rm --read-only touch /file
  expect "run with a memory limit" 0 '' memory_limit
  expect "run -d" 0 '' run c -d sleep 1000
  expect "task list" 0 '' is_status RUNNING c
  expect "task ps" 0 '' task_processes
  expect "exec, its exit code" 7 '' ctr task exec --exec-id one c sh -c 'exit 7'
  expect "exec on a terminal" 0 '/dev/pts/0' on_terminal /usr/bin/ctr -a "$work/containerd.sock" task exec -t --exec-id two c tty
  expect "exec of a program that does not exist" '*' 'no-such-program.*(no such file|not found)' ctr task exec --exec-id three c /no-such-program
  expect "pause and resume" 0 '' pause_and_resume
  expect "metrics" 0 'memory' ctr task metrics c
  expect "kill and delete" 0 '' kill_and_delete
  expect "kill with a signal that is caught" 0 '' signals
  expect "kill of all processes" 0 '' kill_all
  expect "nothing is left" 0 '' nothing_is_left
}
