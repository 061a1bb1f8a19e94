# shellcheck shell=bash
# shellcheck disable=SC2154 # run.sh sets root, engine, work, runtime, image and group.
# shellcheck disable=SC2016 # Words for the shells of containers.
# docker: containerd's shim once more, with all that docker's command line can ask for.

# shellcheck source=tests/engines/dockerd.sh
. "$root/tests/engines/dockerd.sh"

# run OPTION... -- COMMAND...: docker run --rm without a network.
run() {
  local own=()
  while [[ $1 != -- ]]; do own+=("$1") && shift; done
  shift
  docker run --rm --network none "${own[@]}" "$image_name" "$@"
}

serve() {
  docker run -d --name box --memory 64m --cpus 0.5 --pids-limit 50 -p 8099:80 -v "$work/www:/www" "$image_name" \
    httpd -f -h /www
}

answers() {
  within 10 says "hello from outside" curl -s --noproxy '*' --max-time 2 http://127.0.0.1:8099/
}

limits_inside() {
  local where
  # Version 1 or 2.
  where=$(docker exec box sh -c 'cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes pids/pids.max cpu/cpu.cfs_quota_us 2>/dev/null ||
    cat memory.max pids.max cpu.max')
  [[ ${where//$'\n'/ } =~ ^67108864\ 50\ 50000 ]] || { echo "$where" && return 1; }
}

pause_and_unpause() {
  # The daemon hears of either by an event, which may come after the answer.
  docker pause box && within 10 inspected paused '{{.State.Status}}' box && says_like 'is paused' refuses docker exec box true &&
    docker unpause box && within 10 inspected running '{{.State.Status}}' box && docker exec box true
}

logs() {
  docker run --name logged --network none "$image_name" sh -c 'echo one; echo two >&2' &&
    says one sh -c "/usr/bin/docker -H unix://$work/docker.sock logs logged 2>/dev/null" &&
    says two sh -c "/usr/bin/docker -H unix://$work/docker.sock logs logged 2>&1 >/dev/null" && docker rm logged
}

update() {
  local id
  docker update --memory 32m --memory-swap 32m --pids-limit 40 --cpus 0.25 box && id=$(docker inspect -f '{{.Id}}' box) &&
    limit_of "$group/$id" memory 33554432 && limit_of "$group/$id" pids 40
}

copy() {
  docker cp /etc/hostname box:/copied && docker exec box cat /copied && docker exec box sh -c 'echo inside >/from' &&
    docker cp box:/from from && says inside cat from
}

commit() {
  docker exec box sh -c 'echo kept >/kept' && docker commit box kept:latest &&
    says kept docker run --rm --network none kept:latest cat /kept
}

restart() {
  local before after
  before=$(docker inspect -f '{{.State.Pid}}' box) && docker restart -t 0 box && after=$(docker inspect -f '{{.State.Pid}}' box) &&
    [[ $before != "$after" ]] && answers
}

stop_of_trap() {
  docker run -d --name trap --network none "$image_name" sh -c 'trap "exit 7" TERM; echo ready; while :; do sleep 0.05; done' &&
    within 10 says ready docker logs trap && docker stop -t 10 trap && inspected 7 '{{.State.ExitCode}}' trap
}

start_and_kill() {
  docker start trap && inspected running '{{.State.Status}}' trap && docker kill trap &&
    within 10 inspected 'exited 137' '{{.State.Status}} {{.State.ExitCode}}' trap && docker rm trap
}

own_network() {
  docker network create --subnet 10.77.0.0/24 own && docker run -d --name named --network own -v "$work/www:/www" "$image_name" httpd -f -h /www &&
    within 10 says "hello from outside" docker run --rm --network own "$image_name" wget -q -O - http://named/ &&
    says_like ' 10\.77\.0\.' docker run --rm --network own "$image_name" ip addr show eth0
}

networks_of_others() {
  says "$(ip -o link show | grep -c .)" run_on host sh -c 'ip -o link show | grep -c .' &&
    says 1 run_on none sh -c 'ip -o link show | grep -c .' &&
    says "$(docker exec named cat /sys/class/net/eth0/address)" run_on container:named cat /sys/class/net/eth0/address &&
    docker rm -f named && docker network rm own
}

run_on() {
  local network=$1
  shift
  docker run --rm --network "$network" "$image_name" "$@"
}

capabilities() {
  says 0000000000000000 run --cap-drop ALL -- sed -n 's/^CapEff:\t//p' /proc/self/status &&
    refuses run --cap-drop ALL -- chown 1 /tmp && run -- chown 1 /tmp &&
    says 0000000000000400 run --cap-drop ALL --cap-add NET_BIND_SERVICE -- sed -n 's/^CapEff:\t//p' /proc/self/status
}

# What the machine's root itself has.
privileged() {
  run --privileged -- sh -c 'mkdir /m && mount -t tmpfs none /m && [ -c /dev/full ] && [ ! -d /dev/.udev ] && touch /proc/sys/kernel/domainname'
}

seccomp() {
  printf '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}' >profile.json
  says_like 'Operation not permitted' refuses run --security-opt "seccomp=$work/profile.json" -- mkdir /d &&
    run -- mkdir /d &&
    says 2 run -- sed -n 's/^Seccomp:\t//p' /proc/self/status &&
    says 0 run --security-opt seccomp=unconfined -- sed -n 's/^Seccomp:\t//p' /proc/self/status
}

volumes() {
  mkdir -p data && echo there >data/file &&
    says there run -v "$work/data:/data" -- cat /data/file && run -v "$work/data:/data" -- touch /data/made && [[ -e data/made ]] &&
    says_like 'Read-only file system' refuses run -v "$work/data:/data:ro" -- touch /data/no &&
    docker volume create kept && run -v kept:/v -- touch /v/file && says /v/file run -v kept:/v -- ls /v/file && docker volume rm kept
}

out_of_memory() {
  docker run -d --name oom --network none --memory 16m --memory-swap 16m "$image_name" sh -c 'tail /dev/zero' &&
    within 20 inspected 'exited true 137' '{{.State.Status}} {{.State.OOMKilled}} {{.State.ExitCode}}' oom && docker rm oom
}

host_pids() {
  # Process 1 is the one that runs these checks, and the container's is another.
  says "$(tr '\0' ' ' </proc/1/cmdline)" run --pid host -- sh -c 'tr "\0" " " </proc/1/cmdline' &&
    docker run -d --name shared --pid host --network none "$image_name" sh -c 'sleep 1001 & sleep 1001' &&
    docker rm -f shared && within 5 no_process "sleep 1001 "
}

# no_process COMMAND-LINE
no_process() {
  local file
  for file in /proc/[0-9]*/cmdline; do
    ! { tr '\0' ' ' <"$file"; } 2>/dev/null | grep -q -x -F -- "$1" || { echo "${file%/cmdline} still runs $1" && return 1; }
  done
}

pid_of_another() {
  says_like 'httpd -f' run --pid container:box -- ps
}

test_docker() {
  mkdir www && echo "hello from outside" >www/index.html
  expect "starts" 0 '' start_dockerd || return
  expect "load" 0 'busybox' docker load -i "$image"
  expect "run, its output" 0 '^hello$' run -- echo hello
  expect "run, its exit code" 42 '' run -- sh -c 'exit 42'
  expect "run -it" 0 '/dev/pts/0' on_terminal "${client[@]}" run --rm -it --network none "$image_name" tty
  expect "run -i" 0 '^through$' bash -c "echo through | $(printf '%q ' "${client[@]}") run --rm -i --network none $image_name cat"
  expect "run -d with limits and a published port" 0 '' serve
  expect "the published port answers" 0 '' answers
  expect "limits seen inside" 0 '' limits_inside
  expect "exec, its exit code" 7 '' docker exec box sh -c 'exit 7'
  expect "exec -it" 0 '/dev/pts/0' on_terminal "${client[@]}" exec -it box tty
  expect "exec as a user, in a directory, with a variable" 0 '^1000 /tmp there$' \
    docker exec -u alice -w /tmp -e VARIABLE=there box sh -c 'echo $(id -u) $PWD $VARIABLE'
  expect "exec of a program that does not exist" 126 'no-such-program.*(no such file|not found)' docker exec box /no-such-program
  expect "stats" 0 '^[1-9][0-9.]*[kKM]iB / 64MiB [1-9]' docker stats --no-stream --format '{{.MemUsage}} {{.PIDs}}' box
  expect "top" 0 'httpd -f -h /www' docker top box
  expect "pause and unpause" 0 '' pause_and_unpause
  expect "logs" 0 '' logs
  expect "update" 0 '' update
  expect "cp, both ways" 0 '' copy
  expect "commit, and run of it" 0 '' commit
  expect "restart" 0 '' restart
  expect "run --pid container:" 0 '' pid_of_another
  expect "stop, its exit code" 0 '' stop_of_trap
  expect "start and kill" 0 '' start_and_kill
  expect "run --network with one of its own" 0 '' own_network
  expect "run --network host, none, container:" 0 '' networks_of_others
  expect "run --read-only" '*' 'Read-only file system' run --read-only -- touch /file
  expect "run --user with --group-add" 0 '^1000 1000 1000 ?10? ?2000' run --user alice --group-add media -- sh -c 'echo $(id -u) $(id -g) $(id -G)'
  expect "run --cap-drop and --cap-add" 0 '' capabilities
  expect "run --privileged" 0 '' privileged
  expect "run --security-opt seccomp" 0 '' seccomp
  expect "run --security-opt no-new-privileges" 0 '^1$' run --security-opt no-new-privileges -- sed -n 's/^NoNewPrivs:\t//p' /proc/self/status
  expect "run --init" 0 'docker-init' run --init -- cat /proc/1/cmdline
  expect "run -v" 0 '' volumes
  expect "run --tmpfs" 0 '^tmpfs 1024 .*noexec' run --tmpfs /t:size=1m,noexec -- sh -c 'echo $(df -k /t | tail -n 1) $(grep " /t " /proc/mounts)'
  expect "run --device" 0 '^crw.*/dev/full$' run --device /dev/null:/dev/other --device /dev/full -- sh -c 'echo >/dev/other && ls -l /dev/full'
  expect "run --ulimit" 0 '^100 200$' run --ulimit nofile=100:200 -- sh -c 'echo $(ulimit -Sn) $(ulimit -Hn)'
  expect "run --sysctl" 0 '^77$' run --sysctl net.core.somaxconn=77 -- cat /proc/sys/net/core/somaxconn
  expect "run out of memory" 0 '' out_of_memory
  expect "run --shm-size" 0 '^ *8192 ' run --shm-size 8m -- sh -c 'df -k /dev/shm | tail -n 1 | sed "s/^shm//"'
  expect "run --ipc host" 0 "^$(readlink /proc/self/ns/ipc | tr -d '[]')\$" run --ipc host -- sh -c 'readlink /proc/self/ns/ipc | tr -d "[]"'
  expect "run --uts host" 0 "^$(readlink /proc/self/ns/uts | tr -d '[]')\$" run --uts host -- sh -c 'readlink /proc/self/ns/uts | tr -d "[]"'
  expect "run --hostname" 0 '^somewhere$' run --hostname somewhere -- hostname
  expect "run --pid host" 0 '' host_pids
  expect "run of a program that does not exist" 127 'no-such-program.*(no such file|not found)' run -- /no-such-program
  expect "run of a name that is not in PATH" 127 'not found in \$PATH' run -- no-such-program
  expect "run of what is not executable" 126 'permission denied' run -- /etc/passwd
  expect "rm -f, and nothing is left" 0 '' no_containers
}
