# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # run.sh sets root, engine, work, runtime, image and group.
# A docker daemon with caisson-oci as its default runtime. To be sourced; daemon_options
# are more of its options.

daemon_options=()
readonly image_name=busybox:latest client=(/usr/bin/docker -H "unix://$work/docker.sock")

# Checks fail rather than wait for ever.
docker() {
  timeout --foreground 30 "${client[@]}" "$@"
}

start_dockerd() {
  printf '{}' >daemon.json
  # The firewall is that of a network namespace of its own.
  dockerd --config-file "$work/daemon.json" --data-root "$work/state/root" --exec-root "$work/state/run" -H "unix://$work/docker.sock" \
    -p "$work/dockerd.pid" --storage-driver overlay2 --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent "/$group" \
    --add-runtime "caisson=$runtime" --default-runtime caisson "${daemon_options[@]}" >&4 2>&4 &
  within 30 docker version && says caisson docker info -f '{{.DefaultRuntime}}'
}

# inspected TEXT FORMAT CONTAINER
inspected() {
  says "$1" docker inspect -f "$2" "$3"
}

no_containers() {
  local ids
  mapfile -t ids < <(docker ps -aq)
  ((${#ids[@]} == 0)) || docker rm -f "${ids[@]}" || return 1
  within 10 no_groups
}
