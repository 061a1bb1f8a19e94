#!/bin/bash
# Process 1 of the VM: completes the machine, runs the tests that /run/work/list
# names and powers off. Started by tests/vm/init.sh, and nowhere else.
#
# /run/work is a directory of the machine, which tests/vm/run.sh made. For each
# line of its "list" this leaves, in the directory of that number, "log", "status"
# (exit code, milliseconds) and what GoogleTest reports in "test.xml".
set -uo pipefail
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
work=/run/work

mount_all() {
  mount -t proc proc /proc
  mount -t sysfs sysfs /sys
  mount -t devtmpfs devtmpfs /dev
  mkdir -p /dev/pts /dev/shm /dev/mqueue
  ln -s /proc/self/fd /dev/fd
  ln -s fd/0 /dev/stdin
  ln -s fd/1 /dev/stdout
  ln -s fd/2 /dev/stderr
  mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
  mount -t tmpfs -o mode=1777 tmpfs /dev/shm
  mount -t mqueue mqueue /dev/mqueue
  mount -t tmpfs -o mode=755 tmpfs /run
  mkdir "$work"
  mount -t virtiofs work "$work"
  provide_modules
  mount_over_tmp
  mount -t tmpfs -o mode=1777 tmpfs /var/tmp
  mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
  mount -t securityfs securityfs /sys/kernel/security
  ! grep -q selinuxfs /proc/filesystems || mount -t selinuxfs selinuxfs /sys/fs/selinux
}

# An empty file system, with the directories in it that the tests come from. ext4:
# overlayfs takes no upper directory on overlayfs, and the tmpfs of this kernel has
# neither idmapped mounts nor attributes of users.
mount_over_tmp() {
  local directory number=0
  while read -r directory; do
    [[ $directory == /tmp/* ]] || continue
    mkdir "/run/kept.$number"
    mount --bind "$directory" "/run/kept.$number"
    number=$((number + 1))
  done <"$work/directories"
  mount -t ext4 /dev/vda /tmp
  chmod 1777 /tmp
  number=0
  while read -r directory; do
    [[ $directory == /tmp/* ]] || continue
    mkdir -p "$directory"
    mount --move "/run/kept.$number" "$directory"
    rmdir "/run/kept.$number"
    number=$((number + 1))
  done <"$work/directories"
}

# What the kernel loads by itself, it loads with /sbin/modprobe.
provide_modules() {
  mkdir -p /lib/modules
  mount -t virtiofs modules /lib/modules
  [[ -x /sbin/modprobe ]] || ln -s /bin/busybox /sbin/modprobe
}

# An RDMA device without hardware, over an interface that leads nowhere.
provide_rdma() {
  modprobe rdma_rxe && modprobe dummy numdummies=0 || return
  ip link add rdma0 type dummy && ip link set rdma0 up
  rdma link add rxe0 type rxe netdev rdma0
}

# The number of kernel's milliseconds since it booted.
uptime_ms() {
  local up
  read -r up _ </proc/uptime
  echo "${up/./}0"
}

# run_one NUMBER DIRECTORY SECONDS ENVIRONMENT PROGRAM ARGUMENT...
run_one() {
  local number=$1 directory=$2 seconds=$3 environment=$4 out=$work/$1 start code=0 variables
  shift 4
  read -ra variables <<<"$environment"
  mkdir -p "/tmp/test.$number"
  start=$(uptime_ms)
  (
    cd "$directory" || exit 1
    # As bazel sets it, with what is particular to the VM.
    exec env -i PATH="$PATH" HOME="/tmp/test.$number" TEST_TMPDIR="/tmp/test.$number" TZ=UTC USER=root \
      TEST_SRCDIR="${directory%/*}" RUNFILES_DIR="${directory%/*}" TEST_WORKSPACE="${directory##*/}" \
      XML_OUTPUT_FILE="$out/test.xml" CAISSON_TESTS_MUST_RUN=0 CAISSON_TEST_DIVISOR=10 "${variables[@]}" \
      timeout --kill-after=5 "$seconds" "$@"
  ) >"$out/log" 2>&1 </dev/null || code=$?
  echo "$code $(($(uptime_ms) - start))" >"$out/status.new"
  mv "$out/status.new" "$out/status"
}

# As many at a time as the VM has processors; those that need it alone at the end.
run_all() {
  local number alone directory seconds environment words running=0 workers
  workers=$(nproc)
  while IFS='|' read -r number alone directory seconds environment words; do
    if ((alone)); then
      wait
      running=0
    fi
    if ((running == workers)); then
      wait -n
      running=$((running - 1))
    fi
    # shellcheck disable=SC2086 # The words of the command.
    run_one "$number" "$directory" "$seconds" "$environment" $words &
    running=$((running + 1))
    if ((alone)); then
      wait
      running=0
    fi
  done < <(sort -s -t '|' -k 2,2 "$work/list")
  wait
}

# Each alone.
repeat_failed() {
  local number directory seconds environment words code _
  while IFS='|' read -r number _ directory seconds environment words; do
    read -r code _ <"$work/$number/status"
    [[ $code != 0 ]] || continue
    mv "$work/$number/log" "$work/$number/log.1"
    rm -f "$work/$number/test.xml"
    # shellcheck disable=SC2086 # The words of the command.
    run_one "$number" "$directory" "$seconds" "$environment" $words
  done <"$work/list"
}

mount_all
provide_rdma
# Its device node comes with the module.
modprobe loop
ip link set lo up
echo caisson-vm >/proc/sys/kernel/hostname
ulimit -n 20000
run_all
[[ ! -e $work/repeat ]] || repeat_failed
sync
echo o >/proc/sysrq-trigger
sleep 60
