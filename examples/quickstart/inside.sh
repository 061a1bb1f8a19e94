#!/bin/sh
# What a program sees of itself inside a container. Runs with busybox.

row() { printf '%-12s %s\n' "$1" "$2"; }

# read_first FILE...: into $value. Version 2 of control groups has one directory,
# version 1 one for each controller; where a host has version 1, a container may
# not see them at all.
read_first() {
  for file in "$@"; do
    if [ -r "$file" ]; then
      read -r value <"$file"
      return
    fi
  done
  return 1
}
cg=/sys/fs/cgroup

memory() {
  if read_first $cg/memory.max $cg/memory/memory.limit_in_bytes; then
    row memory "at most $value bytes"
  else
    row memory "limit not visible in here"
  fi
}

# The quota, or what half a second of spinning gets.
cpu() {
  if read_first $cg/cpu.max $cg/cpu/cpu.cfs_quota_us; then
    row cpu "at most ${value% *} us of each 100000 us"
    return
  fi
  hundredths() { read -r now _ </proc/uptime && now=${now%.*}${now#*.}; }
  ticks() { read -r _ _ _ _ _ _ _ _ _ _ _ _ _ user system _ </proc/self/stat; }
  ticks && before=$((user + system)) && hundredths && start=$now
  while [ $((now - start)) -lt 50 ]; do hundredths; done
  ticks
  row cpu "about $(((user + system - before) * 2000)) us of each 100000 us, measured"
}

# The limit, or how many there are when the kernel refuses one more.
processes() {
  if read_first $cg/pids.max $cg/pids/pids.max; then
    row processes "at most $value"
    return
  fi
  most=$(sh -c '
    i=0
    while [ $i -lt 100 ]; do
      sleep 10 &
      set -- /proc/[0-9]*
      echo $#
      i=$((i + 1))
    done' 2>/dev/null | tail -n 1)
  kill -9 -1 2>/dev/null
  wait
  row processes "at most $most, counted"
}

row hostname "$(hostname)"
row "pid 1" "$(cat /proc/1/comm), this script: pid $$"
row user "$(id)"
row "uid map" "$(awk '{ printf "%s here is %s on the host, %s ids", $1, $2, $3 }' /proc/self/uid_map)"
row privileges "$(awk '
  /^CapBnd/ { print "capabilities " $2 }
  /^NoNewPrivs/ { print ($2 ? "no new ones" : "new ones possible") }
  /^Seccomp:/ { print ($2 == 2 ? "system calls filtered" : "all system calls") }
' /proc/self/status | paste -s -d , | sed 's/,/, /g')"
row "open files" "at most $(awk '/^Max open files/ { print $4 }' /proc/self/limits)"
memory
cpu
processes
awk '{ for (i = 7; $i != "-"; i++); printf "%-24s %-8s %s\n", $5, $(i + 1), $6 }' /proc/self/mountinfo |
  sort |
  awk '{ printf "%-12s %s\n", NR == 1 ? "mounts" : "", $0 }'
