#!/bin/bash
# Runs the kernel tests in a VM: another kernel (Debian's 6.1), control groups of
# version 2 alone, every capability, AppArmor. The last line of standard output:
#   N passed, N failed, N skipped
set -uo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd) || exit 1
self=$root/tests/vm/run.sh
# shellcheck source=third_party/progress.sh
. "$root/third_party/progress.sh"
# shellcheck source=third_party/test_cases.sh
. "$root/third_party/test_cases.sh"

usage() {
  cat <<'USAGE'
usage: tests/vm/run.sh [--bad FILE] [--append WORDS] [--keep DIR] [TARGET...]
       tests/vm/run.sh [--append WORDS] --command COMMAND

Boots Debian's kernel in qemu (without KVM) on a root that is this machine's
"/" with all writes kept in memory, and runs tests there that bazel built, two at a
time; by default all that carry the tag "kernel" and tests/vm/exceptions.txt does
not leave out. Nothing of it outlives the script, however that ends. Needs root.

  --bad FILE      append a line for each case that did not pass
  --append WORDS  more words for the kernel's command line
  --keep DIR      keep the logs and the console there
  --command COMMAND  only run this with bash in the VM, and show what it says
  TARGET          only these tests

Environment:
  CAISSON_VM_SECONDS       for all tests together (480)
  CAISSON_VM_TEST_SECONDS  for one test (150)
  CAISSON_TEST_ATTEMPTS=2  repeat a test that failed, and list it as flaky (1)
  CAISSON_CACHE_DIR        where the kernel is unpacked (.cache)
USAGE
}

# ---- in namespaces of its own ---------------------------------------------------

share() {
  local tag=$1 directory=$2
  /usr/lib/qemu/virtiofsd --socket-path="$work/$tag.sock" --rlimit-nofile=0 -o sandbox=chroot \
    -o source="$directory" -o cache=always >"$work/$tag.log" 2>&1 &
  daemons+=($!)
  devices+=(-chardev "socket,id=$tag,path=$work/$tag.sock"
    -device "vhost-user-fs-pci,queue-size=1024,chardev=$tag,tag=$tag")
}

# Process 1 of a PID namespace: its end takes every process along.
boot_in() {
  local work=$1 seconds=$2 append=$3 kernel disk devices=() daemons=() tag
  read -r kernel <"$work/kernel"
  # To virtiofsd the VM's root user is this machine's: nothing but the work
  # directory can be written to from here on, and the place of virtiofsd's lock.
  mount --bind "$work" "$work" && mount -o remount,bind,ro / && mount -t tmpfs run /run || return 1
  share machine /
  share work "$work"
  share modules "$kernel/lib/modules"
  for tag in machine work modules; do
    until [[ -S $work/$tag.sock ]]; do
      kill -0 "${daemons[@]}" || return 1
      read -r -t 0.02 <> <(:)
    done
  done
  # Nobody else needs its name, and it goes with the last who has it open.
  exec {disk}<>"$work/disk"
  rm "$work/disk"
  timeout --kill-after=5 "$seconds" qemu-system-x86_64 \
    -machine pc -accel tcg,thread=multi -cpu max -smp 2 -m 3G \
    -object memory-backend-memfd,id=memory,size=3G,share=on -numa node,memdev=memory \
    -nodefaults -no-user-config -display none -no-reboot -serial "file:$work/console" \
    -drive "file=/proc/self/fd/$disk,format=raw,if=virtio,cache=unsafe" "${devices[@]}" -kernel "$kernel"/boot/vmlinuz-* -initrd "$work/initrd" \
    -append "console=ttyS0 loglevel=5 panic=-1 softlockup_panic=1 watchdog_thresh=15 rdinit=/init mitigations=off caisson.guest=$root/tests/vm/guest.sh $append" \
    >"$work/qemu.log" 2>&1
}

if [[ ${1:-} == --boot-in ]]; then
  shift
  boot_in "$@"
  exit
fi

# ---- what to run ----------------------------------------------------------------

bad='' append='' keep='' command='' targets=()
while (($#)); do
  case $1 in
    --bad) bad=$2 && shift ;;
    --append) append=$2 && shift ;;
    --keep) keep=$2 && shift ;;
    --command) command=$2 && shift ;;
    -h | --help) usage && exit 0 ;;
    -*) usage >&2 && exit 2 ;;
    *) targets+=("$1") ;;
  esac
  shift
done
((EUID == 0)) || die "needs root: the VM reads this machine's files as its own"
cd "$root" || exit 1
"$root/third_party/install_deps.sh" --vm || exit 1
kernel=$("$root/third_party/debian_kernel.sh") || exit 1

work=$(mktemp -d "${TMPDIR:-/tmp}/caisson-vm.XXXXXX") || exit 1
bazel_log=$work/bazel.log
# shellcheck source=third_party/bazel.sh
. "$root/third_party/bazel.sh"
clean_up() {
  local job
  # The VM, a build, and what counts the seconds, for which nobody shall wait.
  for job in $(jobs -p); do
    kill -KILL "$job" 2>/dev/null
  done
  wait 2>/dev/null
  [[ -z $keep ]] || { mkdir -p "$keep" && cp -a "$work/." "$keep/"; }
  rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
touch "$work/bad" "$work/list"
echo "$kernel" >"$work/kernel"
echo "$root" >"$work/directories"

# exceptions VERB TARGET: "pattern reason" of each line of the table.
exceptions() {
  awk -v verb="$1" -v target="$2" \
    '$1 == verb && $2 == target { $1 = $2 = ""; sub(/^ +/, ""); print }' tests/vm/exceptions.txt
}

# Sets targets, and writes what bazel knows about them.
find_targets() {
  local all=${targets[*]:-//...}
  bazel_in "" query --keep_going --output=xml "attr(tags, \"[\\[ ]kernel[,\\]]\", tests(set($all)))" \
    2>"$bazel_log" >"$work/targets.xml"
  # TARGET TAGS ARGUMENTS, each list with commas.
  awk '
    function value(name) {
      match($0, " " name "=\"[^\"]*\"")
      return substr($0, RSTART + length(name) + 3, RLENGTH - length(name) - 4)
    }
    /<rule / { target = value("name"); tags = args = "," }
    /<list / { list = value("name") }
    /<string value=/ && list == "tags" { tags = tags value("value") "," }
    /<string value=/ && list == "args" { args = args value("value") "," }
    /<\/list>/ { list = "" }
    /<\/rule>/ { print target "\t" tags "\t" args }' "$work/targets.xml" | sort >"$work/targets"
  [[ -s $work/targets ]] || { without_noise <"$bazel_log" && die "no kernel tests in $all"; }
}

# in_runfiles PACKAGE LABEL: where the file of a label lies.
in_runfiles() {
  local label=$2
  [[ $label != :* ]] || label=$1$label
  label=${label#//}
  [[ $label == *:* ]] || label=$label:${label##*/}
  echo "${label/://}"
}

# Writes the lines of the VM's list, and sets labels.
write_list() {
  local target tags args package name number=0 alone words argument omitted environment pattern _
  while IFS=$'\t' read -r target tags args; do
    environment='' omitted=''
    while read -r pattern _; do
      [[ $pattern == '*' ]] && continue 2
      omitted+=:$pattern
    done < <(exceptions omit "$target")
    [[ -z $omitted ]] || environment="GTEST_FILTER=-${omitted#:} "
    while read -r pattern _; do
      environment+="$pattern "
    done < <(exceptions env "$target")
    package=${target#//} name=${target##*:}
    package=${package%:*}
    words=./$package/$name
    IFS=, read -ra args <<<"${args#,}"
    # shellcheck disable=SC2016 # Bazel's, not the shell's.
    for argument in "${args[@]}"; do
      [[ $argument != '$(location '*')' ]] || argument=$(in_runfiles "$package" "${argument:11:-1}")
      words+=" $argument"
    done
    alone=0
    [[ $tags != *,exclusive,* ]] || alone=1
    labels[number]=$target
    mkdir "$work/$number"
    printf '%s|%s|%s|%s|%s|%s\n' "$number" "$alone" "$bin/$package/$name.runfiles/caisson" \
      "${CAISSON_VM_TEST_SECONDS:-150}" "$environment" "$words" >>"$work/list"
    number=$((number + 1))
  done <"$work/targets"
}

# ---- the VM ---------------------------------------------------------------------

# In the order of their dependencies.
modules=(
  drivers/virtio/virtio_ring drivers/virtio/virtio drivers/virtio/virtio_pci_legacy_dev
  drivers/virtio/virtio_pci_modern_dev drivers/virtio/virtio_pci
  drivers/block/virtio_blk fs/fuse/fuse fs/fuse/virtiofs fs/overlayfs/overlay
)

make_disks() {
  local module tree=$work/initrd.tree
  mkdir -p "$tree/bin" "$tree/modules"
  cp /bin/busybox "$tree/bin/"
  cp tests/vm/init.sh "$tree/init"
  chmod 755 "$tree/init"
  for module in "${modules[@]}"; do
    cp "$kernel"/lib/modules/*/kernel/"$module.ko" "$tree/modules/" || return 1
    echo "${module##*/}.ko" >>"$tree/modules/order"
  done
  truncate -s 4G "$work/disk"
  mkfs.ext4 -q -m 0 -O ^has_journal "$work/disk" || return 1
  (cd "$tree" && find . | busybox cpio -o -H newc) >"$work/initrd" 2>/dev/null
  rm -r "$tree"
}

step_detail() {
  local finished=("$work"/*/status)
  [[ -e ${finished[0]} ]] || finished=()
  echo "${#finished[@]} of ${#labels[@]} finished"
}

# Runs in namespaces that end with this script, be it by SIGKILL.
boot() {
  setpriv --pdeathsig KILL unshare --mount --propagation private --pid --fork --kill-child --mount-proc \
    "$self" --boot-in "$work" "${CAISSON_VM_SECONDS:-480}" "$append" </dev/null &
  wait "$!"
}

# Debian's 6.1 kernel, emulated, locks up now and then, with all processors at once and
# whatever the test (watchdog: BUG: soft lockup), and panics then, as it is told to.
locked_up() {
  grep -q 'Kernel panic - not syncing: softlockup' "$work/console" 2>/dev/null
}

# Runs the tests; those that a kernel that locked up has not finished, in another one.
boot_until_done() {
  local attempt number unfinished status
  boot
  status=$?
  for attempt in 1 2; do
    locked_up || break
    unfinished=()
    for number in "${!labels[@]}"; do
      [[ -e $work/$number/status ]] || unfinished+=("$number")
    done
    ((${#unfinished[@]})) || break
    echo "flaky    the kernel locked up: ${#unfinished[@]} tests ran in another VM" >>"$work/bad"
    mv "$work/console" "$work/console.$attempt"
    mv "$work/list" "$work/list.$attempt"
    for number in "${unfinished[@]}"; do
      rm -f "$work/$number/"*
      grep "^$number|" "$work/list.$attempt" >>"$work/list"
    done
    make_disks || return 1
    boot
    status=$?
  done
  return "$status"
}

console_tail() {
  echo "the last lines of the VM's console:"
  tail -n 25 "$work/console" 2>/dev/null | sed 's/\x1b\[[0-9;?]*[a-zA-Z]//g; s/\r//; s/^/  /'
  sed 's/^/  /' "$work/qemu.log" 2>/dev/null
}

# ---- what came out --------------------------------------------------------------

# failing_parts LOG: of GoogleTest's output what belongs to a failed case, and what
# no end of a case follows; of anything else the end.
failing_parts() {
  awk '
    /^\[ RUN      \]/ { text = ""; inside = tests = 1 }
    inside { text = text "    " $0 "\n" }
    !inside && !tests { other[n++ % 40] = $0 }
    /^\[       OK \]|^\[  SKIPPED \]/ { text = ""; inside = 0 }
    /^\[  FAILED  \].*ms\)/ { printf "%s", text; text = ""; inside = 0; shown = 1 }
    END {
      printf "%s", text
      if (text != "" || shown) exit
      for (i = n > 40 ? n - 40 : 0; i < n; i++) print "    " other[i % 40]
    }' "$1" | tail -n 120
}

# settle TARGET DIRECTORY: takes the expected skips out of the lines of new_bad, fails the
# others, and the expected ones that did not happen. Sets s, f and expected.
settle() {
  local target=$1 out=$2 line name reason pattern wanted found
  local -A used=()
  expected=0
  while IFS= read -r line; do
    if [[ $line != skipped* ]]; then
      echo "$line" >>"$work/bad"
      continue
    fi
    name=${line#skipped * } reason=${line#*: } found=0
    name=${name%%: *}
    name=${name##* }
    while read -r pattern wanted; do
      # shellcheck disable=SC2053 # A pattern.
      if [[ $name == $pattern && $reason == *"$wanted"* ]]; then
        used[$pattern]=1 found=1
        break
      fi
    done < <(exceptions skip "$target")
    if ((found)); then
      expected=$((expected + 1)) s=$((s - 1))
    else
      echo "$line (not in tests/vm/exceptions.txt)" >>"$work/bad"
    fi
  done <"$work/new_bad"
  [[ -s $out/test.xml ]] || return
  while read -r pattern wanted; do
    [[ -z ${used[$pattern]:-} ]] || continue
    echo "failed   $target $pattern: was expected to skip itself (tests/vm/exceptions.txt): $wanted" >>"$work/bad"
    f=$((f + 1))
  done < <(exceptions skip "$target")
}

# count NUMBER: adds one target to the totals, with a line.
count() {
  local number=$1 target=${labels[$1]} out=$work/$1 code='' ms=0 p=0 f=0 s=0 expected=0 line
  [[ ! -e $out/status ]] || read -r code ms <"$out/status"
  : >"$work/new_bad"
  [[ ! -s $out/test.xml ]] || read -r p f s < <(cases "$target" "$work/new_bad" "$out/test.xml")
  ((p + f + s)) || [[ $code != 0 ]] || p=1
  settle "$target" "$out"
  if [[ $code != 0 ]] && ((f == 0)); then
    f=1
    line="exit status $code"
    [[ $code != 124 && $code != 137 ]] || line="took more than ${CAISSON_VM_TEST_SECONDS:-150} s"
    if [[ -z $code ]]; then
      line="was running when the VM ended"
      [[ -e $out/log ]] || line="not run: the VM ended before"
    fi
    echo "failed   $target $line" >>"$work/bad"
  fi
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s)) impossible=$((impossible + expected))
  line="$p passed"
  ((f == 0)) || line+=", $f failed"
  ((s == 0)) || line+=", $s skipped"
  ((expected == 0)) || line+=", $expected impossible"
  printf '  %-52s %12s  %s\n' "$target" "$(format_ms "$ms")" "$line"
  if [[ -e $out/log.1 ]] && ((f == 0)); then
    echo "flaky    $target passed only when repeated" >>"$work/bad"
    failing_parts "$out/log.1"
  fi
  [[ $code == 0 ]] || ((f == 0)) || [[ ! -e $out/log ]] || failing_parts "$out/log"
}

passed=0 failed=0 skipped=0 impossible=0 labels=()

if [[ -n $command ]]; then
  labels=(command)
  mkdir "$work/0"
  printf '%s\n' "$command" >"$work/0/command"
  printf '0|0|/|%s||bash /run/work/0/command\n' "${CAISSON_VM_SECONDS:-480}" >"$work/list"
  make_disks && boot
  [[ ! -e $work/0/log ]] || cat "$work/0/log"
  code=''
  [[ ! -e $work/0/status ]] || read -r code _ <"$work/0/status"
  [[ -n $code ]] || console_tail
  exit "${code:-1}"
fi

find_targets
mapfile -t tests < <(cut -f 1 "$work/targets" | while read -r target; do
  exceptions omit "$target" | grep -q '^\* ' || echo "$target"
done)
step "building ${#tests[@]} kernel tests" logged_bazel "" build --keep_going "${tests[@]}" ||
  { failed=1 && echo "failed   build of the VM's tests" >>"$work/bad"; }
bin=$(bazel_in "" info bazel-bin 2>/dev/null)
bazel_in "" info output_base 2>/dev/null >>"$work/directories"
write_list
((${CAISSON_TEST_ATTEMPTS:-1} == 1)) || : >"$work/repeat"
make_disks || die "cannot make the VM's disks"
start=$(now_ms)
_tick "running ${#labels[@]} tests in the VM" &
ticker=$!
boot_until_done
status=$?
kill "$ticker"
wait "$ticker" 2>/dev/null
[[ ! -t 1 ]] || printf '\r\033[K'
echo "running ${#labels[@]} tests in the VM ... $(format_ms $(($(now_ms) - start)))"

for number in "${!labels[@]}"; do
  count "$number"
done
if ((status != 0)); then
  failed=$((failed + 1))
  line="the VM ended with status $status"
  ((status != 124 && status != 137)) || line="the VM took more than ${CAISSON_VM_SECONDS:-480} s"
  echo "failed   $line" >>"$work/bad"
  console_tail
fi
[[ -z $bad ]] || sed 's/^\([a-z]* *\)/\1in the VM: /' "$work/bad" >>"$bad"
if [[ -s $work/bad ]]; then
  printf '\nfailed, skipped or flaky in the VM:\n'
  sed 's/^/  /' "$work/bad"
fi
((impossible == 0)) ||
  printf '%s\n' "$impossible cases are impossible on this kernel or layout (tests/vm/exceptions.txt says why)"
printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
((failed == 0 && passed > 0))
