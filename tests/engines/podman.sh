# shellcheck shell=bash
# shellcheck disable=SC2154 # run.sh sets root, engine, work, runtime, image and group.
# shellcheck disable=SC2016 # Words for the shells of containers.
# podman, whose conmon calls the runtime; and what both users' podman has in common.

readonly image_name=docker.io/library/busybox:latest

podman_options() {
  client=(/usr/bin/podman --root "$1/root" --runroot "$1/run" --tmpdir "$1/tmp" --cgroup-manager cgroupfs --events-backend file
    --runtime "$runtime")
}

podman() {
  timeout --foreground 30 "${client[@]}" "$@"
}

# run OPTION... -- COMMAND...: podman run --rm without a network.
run() {
  local own=()
  while [[ $1 != -- ]]; do own+=("$1") && shift; done
  shift
  podman run --rm --network none "${placed[@]}" "${own[@]}" "$image_name" "$@"
}

# run_named NAME [OPTION...] -- COMMAND...: podman run -d.
run_named() {
  local name=$1 own=()
  shift
  while [[ $1 != -- ]]; do own+=("$1") && shift; done
  shift
  podman run -d --name "$name" --network none "${placed[@]}" "${own[@]}" "$image_name" "$@"
}

# inspected TEXT FORMAT CONTAINER
inspected() {
  says "$1" podman container inspect -f "$2" "$3"
}

pause_and_unpause() {
  podman pause c && inspected paused '{{.State.Status}}' c && refuses podman exec c true && podman unpause c &&
    inspected running '{{.State.Status}}' c && podman exec c true
}

limits() {
  run_named limited --memory 64m --pids-limit 50 -- sleep 1000 && podman exec limited true &&
    limit_of "$group/libpod-$(podman inspect -f '{{.Id}}' limited)" memory 67108864 &&
    limit_of "$group/libpod-$(podman inspect -f '{{.Id}}' limited)" pids 50 && podman rm -f -t 0 limited
}

stop_of_trap() {
  run_named trap -- sh -c 'trap "exit 7" TERM; echo ready; while :; do sleep 0.05; done' &&
    within 10 says ready podman logs trap && podman stop -t 10 trap && inspected 7 '{{.State.ExitCode}}' trap
}

start_and_kill() {
  podman start trap && inspected running '{{.State.Status}}' trap && podman kill trap &&
    within 10 inspected 'exited 137' '{{.State.Status}} {{.State.ExitCode}}' trap && podman rm trap
}

capabilities() {
  says 0000000000000000 run --cap-drop ALL -- sed -n 's/^CapEff:\t//p' /proc/self/status &&
    refuses run --cap-drop ALL -- chown 1 /tmp && run -- chown 1 /tmp
}

volumes() {
  mkdir -p "$1" && chmod 777 "$1" && echo there >"$1/file" &&
    says there run -v "$1:/data" -- cat /data/file && run -v "$1:/data" -- touch /data/made && [[ -e $1/made ]] &&
    says_like 'Read-only file system' refuses run -v "$1:/data:ro" -- touch /data/no
}

# Containers of a pod share the namespaces of catatonit's.
pod() {
  podman pod create --name p --network none "${placed_pod[@]}" &&
    podman run -d --name in_pod --pod p "${placed[@]}" "$image_name" sh -c 'hostname; sleep 1000' &&
    says "$(podman exec in_pod readlink /proc/self/ns/net)" podman run --rm --pod p "${placed[@]}" "$image_name" readlink /proc/self/ns/net &&
    says p podman run --rm --pod p "${placed[@]}" "$image_name" hostname && podman pod rm -f -t 0 p && refuses podman pod exists p
}

nothing_is_left() {
  podman rm -f -a -t 0 && says "" podman ps -aq && within 10 no_groups
}

# What needs no control group.
common_checks() {
  expect "load" 0 'busybox' podman load -q -i "$image" || return
  expect "run, its output" 0 '^hello$' run -- echo hello
  expect "run, its exit code" 42 '' run -- sh -c 'exit 42'
  expect "run -it" 0 '/dev/pts/0' on_terminal "${client[@]}" run --rm -it --network none "${placed[@]}" "$image_name" tty
  expect "run -d" 0 '' run_named c -- sh -c 'echo one; echo two >&2; sleep 1000'
  expect "exec, its exit code" 7 '' podman exec c sh -c 'exit 7'
  expect "exec -it" 0 '/dev/pts/0' on_terminal "${client[@]}" exec -it c tty
  expect "exec of a program that does not exist" 127 'no-such-program' podman exec c /no-such-program
  expect "top" 0 'sleep 1000' podman top c pid args
  expect "logs" 0 '' within 5 says $'one\ntwo' podman logs c
  expect "stop, its exit code" 0 '' stop_of_trap
  expect "start and kill" 0 '' start_and_kill
  expect "run --user" 0 '^1000 1000$' run --user alice -- sh -c 'echo $(id -u) $(id -g)'
  expect "run --cap-drop" 0 '' capabilities
  expect "run --read-only" '*' 'Read-only file system' run --read-only -- touch /file
  expect "run -v" 0 '' volumes /tmp/data
  expect "run of a program that does not exist" 127 'no-such-program' run -- /no-such-program
  expect "run of what is not executable" 126 '[Pp]ermission denied' run -- /etc/passwd
}

test_podman() {
  podman_options "$work/state"
  placed=(--cgroup-parent "/$group") placed_pod=("${placed[@]}")
  common_checks
  expect "stats" 0 '^[1-9].*B / ' podman stats --no-stream --format '{{.MemUsage}}' c
  expect "pause and unpause" 0 '' pause_and_unpause
  expect "run with limits" 0 '' limits
  expect "pod create, and run in it" 0 '' pod
  expect "rm -f, and nothing is left" 0 '' nothing_is_left
}
