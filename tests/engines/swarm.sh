# shellcheck shell=bash
# shellcheck disable=SC2154 # run.sh sets root, engine, work, runtime, image and group.
# Swarm takes the daemon's default runtime, for its tasks and what it runs beside them.

# shellcheck source=tests/engines/dockerd.sh
. "$root/tests/engines/dockerd.sh"

# running NUMBER [FORMAT]: so many tasks of the service are.
running() {
  local said
  said=$(docker ps -q --filter label=com.docker.swarm.service.name=web | grep -c .)
  [[ $said == "$1" ]] || { echo "$said containers run, of: $(docker service ps web --no-trunc)" && return 1; }
}

# variable_everywhere VALUE NUMBER: the tasks, and no others, have been updated to it.
variable_everywhere() {
  local id said=''
  for id in $(docker ps -q --filter label=com.docker.swarm.service.name=web); do
    said+="$(docker exec "$id" sh -c 'echo $VERSION') "
  done
  [[ $said == "$(yes "$1" | head -n "$2" | tr '\n' ' ')" ]] || { echo "VERSION is $said" && return 1; }
}

create() {
  docker service create --detach --name web --replicas 3 --no-resolve-image --stop-grace-period 0s --env VERSION=1 \
    --mount "type=bind,src=$work/www,dst=/www" --limit-memory 32m --restart-delay 100ms \
    --update-parallelism 2 --update-delay 0s --update-monitor 100ms "$image_name" httpd -f -h /www &&
    within 30 running 3
}

replaced() {
  local id
  id=$(docker ps -q --filter label=com.docker.swarm.service.name=web | head -n 1) && docker kill "$id" &&
    within 10 refuses docker top "$id" && within 30 running 5
}

scale() {
  docker service scale --detach web=5 && within 30 running 5
}

rolling() {
  docker service update --detach --no-resolve-image --env-add VERSION=2 web && within 40 variable_everywhere 2 5 &&
    within 20 says completed docker service inspect -f '{{.UpdateStatus.State}}' web
}

reaches() {
  docker network create -d overlay --attachable --subnet 10.78.0.0/24 mesh &&
    docker service update --detach --no-resolve-image --network-add mesh --env-add VERSION=3 web &&
    within 40 variable_everywhere 3 5 &&
    within 20 says "hello from outside" docker run --rm --network mesh "$image_name" wget -q -O - http://tasks.web/
}

remove() {
  docker service rm web && within 30 running 0
}

test_swarm() {
  mkdir www && echo "hello from outside" >www/index.html
  expect "starts" 0 '' start_dockerd || return
  docker load -i "$image" >&4 2>&4
  expect "init" 0 'now a manager' docker swarm init --advertise-addr 127.0.0.1 --listen-addr 127.0.0.1
  expect "service create with 3 replicas" 0 '' create
  expect "scale to 5" 0 '' scale
  expect "a killed task is replaced" 0 '' replaced
  expect "rolling update" 0 '' rolling
  expect "tasks answer on an overlay network" 0 '' reaches
  expect "service rm" 0 '' remove
  expect "leave" 0 'left the swarm' docker swarm leave --force
  expect "nothing is left" 0 '' no_containers
}
