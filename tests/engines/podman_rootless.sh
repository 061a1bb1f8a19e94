# shellcheck shell=bash
# shellcheck disable=SC2154 # run.sh sets root, engine, work, runtime, image and group.
# podman of an ordinary user: the runtime is root of podman's user namespace, and nowhere else.

# shellcheck source=tests/engines/podman.sh
. "$root/tests/engines/podman.sh"

# The /etc here is a copy.
make_user() {
  user=caisson-test
  echo "$user:x:61234:61234::$work/home:/bin/sh" >>/etc/passwd
  echo "$user:x:61234:" >>/etc/group
  echo "$user:1000000:65536" | tee -a /etc/subuid >>/etc/subgid
  mkdir -p home run_user && chown "$user:" home run_user && chmod 700 run_user
}

podman() {
  timeout --foreground 30 "${as_user[@]}" "${client[@]}" "$@"
}

test_podman_rootless() {
  make_user
  podman_options "$work/home/state"
  as_user=(setpriv --reuid "$user" --regid "$user" --init-groups env HOME="$work/home" USER="$user" XDG_RUNTIME_DIR="$work/run_user")
  client=("${as_user[@]}" "${client[@]}")
  as_user=()
  placed=() placed_pod=()
  common_checks
  expect "pod create, and run in it" 0 '' pod
  expect "rm -f, and nothing is left" 0 '' nothing_is_left
}
