#!/bin/busybox sh
# shellcheck shell=dash
# The first program in the VM, from its initial memory file system: makes the
# machine's own "/", read-only below a layer in memory, the VM's root.
# What this lacks is in tests/vm/guest.sh, which runs there.
set -e
bb=/bin/busybox
$bb mkdir -p /dev /proc /machine /memory /root
$bb mount -t devtmpfs dev /dev
$bb mount -t proc proc /proc
for module in $($bb cat /modules/order); do
  $bb insmod "/modules/$module"
done
$bb mount -t virtiofs -o ro machine /machine
$bb mount -t tmpfs -o mode=755 memory /memory
$bb mkdir /memory/upper /memory/work
$bb mount -t overlay -o lowerdir=/machine,upperdir=/memory/upper,workdir=/memory/work overlay /root
# The overlay holds what it is made of; no program in the VM shall find it.
$bb umount -l /machine
$bb umount -l /memory
guest=$($bb sed -n 's/.*\bcaisson\.guest=\([^ ]*\).*/\1/p' /proc/cmdline)
$bb umount /proc
$bb umount /dev
exec $bb switch_root -c /dev/console /root /bin/bash "$guest"
