# shellcheck shell=bash
# shellcheck disable=SC2154 # run.sh sets root, engine, work, runtime, image and group.
# The checks of an engine. To be sourced where tests/engines/run.sh runs one: with the
# engine's log at descriptor 4, and 3 taking the results.

# result NAME OK MS: one case, with a line.
result() {
  local word=passed
  (($2)) || word=failed
  echo "$word $engine: $1" >&3
  printf '  %-52s %12s  %s\n' "$engine: $1" "$(format_ms "$3")" "1 $word"
}

# expect NAME STATUS PATTERN COMMAND...: one case: the command or function, in a subshell,
# ends with that status, and what it says matches the extended regular expression. A
# STATUS "*" is any but 0.
expect() {
  local name=$1 wanted=$2 pattern=$3 out got start logged
  shift 3
  start=$(now_ms)
  logged=$(stat -L -c %s /proc/self/fd/4)
  (
    exec 3>&- 5>trace
    BASH_XTRACEFD=5
    set -x
    "$@"
  ) >out 2>&1 </dev/null
  got=$?
  # A terminal ends its lines as such do.
  out=$(tr -d '\0\r' <out)
  if [[ ($got == "$wanted" || ($wanted == '*' && $got != 0)) && $out =~ $pattern ]]; then
    result "$name" 1 $(($(now_ms) - start))
    return
  fi
  result "$name" 0 $(($(now_ms) - start))
  {
    echo "expected status $wanted and output like /$pattern/; status $got, and output:"
    tail -n 40 out | cut -c 1-1000
    echo "the commands:"
    grep '^+' trace | tail -n 40 | cut -c 1-400
    echo "the engine's log meanwhile:"
    tail -c "+$((logged + 1))" /proc/self/fd/4 | tail -n 30 | cut -c 1-1000
  } | sed 's/^/    /'
  return 1
}

# within SECONDS COMMAND...: asks until it succeeds; what it said last is said.
within() {
  local end=$((SECONDS + $1)) said
  shift
  until said=$("$@" 2>&1); do
    ((SECONDS < end)) || { echo "$* did not succeed in time: $said" && return 1; }
    read -r -t 0.05 <> <(:)
  done
  echo "$said"
}

# on_terminal COMMAND...: whose input does not end.
on_terminal() {
  script -qec "$(printf '%q ' "$@")" /dev/null <> <(:)
}

# says TEXT COMMAND...: exactly that.
says() {
  local text=$1 said
  shift
  if said=$("$@" 2>&1) && [[ $said == "$text" ]]; then return; fi
  echo "\"$text\" was expected of: $*; it said: $said"
  return 1
}

# says_like PATTERN COMMAND...
says_like() {
  local pattern=$1 said
  shift
  if said=$("$@" 2>&1) && [[ $said =~ $pattern ]]; then return; fi
  echo "/$pattern/ was expected of: $*; it said: $said"
  return 1
}

# refuses COMMAND...
refuses() {
  ! "$@" || { echo "was expected to fail: $*" && return 1; }
}

# limit_of GROUP CONTROLLER VALUE: the machine's own view, in either version.
limit_of() {
  local file
  for file in /sys/fs/cgroup/{"$2/",,unified/}"$1"/{memory.limit_in_bytes,memory.max,pids.max,cpu.cfs_quota_us,cpu.max}; do
    [[ $file == */"$2".* && -e $file ]] || continue
    says "$3" cat "$file"
    return
  done
  echo "no $2 of $1 below /sys/fs/cgroup" && return 1
}

# No control group of a container, anywhere; conmon's is podman's.
no_groups() {
  says "" find /sys/fs/cgroup -mindepth 1 -maxdepth 5 -type d -path "*/$group/*" -not -name conmon
}
