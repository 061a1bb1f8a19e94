#!/bin/bash
# examples/run as an ordinary user, with a directory as the root.
# What stands in single quotes is for the shell in the container.
# shellcheck disable=SC2016
set -uo pipefail

if ((EUID != 0)); then
  echo "needs root: it becomes an ordinary user"
  exit "$((${CAISSON_TESTS_MUST_RUN:-0} == 1))"
fi
work=$(mktemp -d /tmp/caisson-run.XXXXXX)
trap 'rm -rf "$work"' EXIT
failures=0
user=61234
# What the user can read: not the build's directory.
cp "$1" "$work/run"
mkdir -p "$work/root/bin" "$work/root/tmp"
cp /bin/busybox "$work/root/bin/"
ln -s busybox "$work/root/bin/sh"
chmod 755 "$work"
chown -R $user:$user "$work/root"

as_user() { setpriv --reuid "$user" --regid "$user" --clear-groups --no-new-privs "$@"; }

# expect NAME CODE PATTERN COMMAND...: exit code and output of a command.
expect() {
  local name=$1 code=$2 pattern=$3 output status=0
  shift 3
  output=$("$@" 2>&1 </dev/null) || status=$?
  if ((status == code)) && grep -qE -- "$pattern" <<<"$output"; then
    echo "ok       $name"
  else
    echo "FAILED   $name: exit code $status, expected $code; output:"
    printf '%s\n' "$output" | sed 's/^/         /'
    ((failures += 1))
  fi
}

expect "exit code" 7 '' as_user "$work/run" --rootfs "$work/root" sh -c 'exit 7'
expect "root inside" 0 '^0 0$' as_user "$work/run" --rootfs "$work/root" \
  sh -c 'echo $(busybox id -u) $(busybox id -g)'
expect "writes are kept" 0 '' as_user "$work/run" --rootfs "$work/root" sh -c 'echo x > /kept'
[[ $(stat -c %u "$work/root/kept") == "$user" ]] || { echo "FAILED   owner of what was written" && ((failures += 1)); }
expect "--rm drops writes" 0 '^x$' as_user "$work/run" --rm --rootfs "$work/root" \
  sh -c 'echo y > /dropped; busybox cat /kept'
[[ ! -e $work/root/dropped ]] || { echo "FAILED   --rm kept a file" && ((failures += 1)); }
expect "command that is not there" 127 'not found|ENOENT' as_user "$work/run" --rootfs "$work/root" nothing
expect "no command" 125 'no command given' as_user "$work/run" --rootfs "$work/root"
expect "no directory" 125 'No such file' as_user "$work/run" --rootfs "$work/none" sh
expect "terminal" 0 '/dev/pts/0' as_user script -qec \
  "$work/run -it --rm --rootfs $work/root busybox tty" /dev/null
expect "bridge network" 125 'run: .*(CAP_NET_ADMIN|EACCES|EPERM)' as_user "$work/run" --network bridge --rootfs "$work/root" sh
expect "limits" 125 'run: .*cgroup' as_user "$work/run" --pids-limit 5 --rootfs "$work/root" sh
expect "user that does not exist" 125 'user 5 does not exist.*(newuidmap|subuid)' \
  as_user "$work/run" --user 5 --rootfs "$work/root" sh
expect "root of the host, too" 3 '' "$work/run" --rm --network none --rootfs "$work/root" sh -c 'exit 3'
# The kernel ends a dead host's launcher in the background.
launchers() {
  local comm
  grep -lx caisson-launch /proc/[0-9]*/comm 2>/dev/null | while read -r comm; do
    [[ $(stat -c %u "${comm%/comm}" 2>/dev/null) != "$user" ]] || echo "$comm"
  done
}
for _ in {1..200}; do
  left=$(launchers)
  [[ -n $left ]] || break
  read -r -t 0.05 <> <(:) || true
done
[[ -z $left ]] || { echo "FAILED   left behind: $left" && ((failures += 1)); }
exit $((failures > 0))
