# shellcheck shell=bash
# One readable line for each step of a script that takes longer than a second.
# To be sourced:
#
#   . third_party/progress.sh
#   step "making the busybox image" make_busybox arg...
#
# step runs a command or function in a subshell with errexit, its output kept
# back, and returns its status. A step of less than a second says nothing. A
# longer one counts its seconds: in place on a terminal, in a line every 30 s
# elsewhere. The output appears only when the step fails. As everywhere in bash,
# a function does not stop at its first error where step's status is tested.
#
# What a function step_detail prints, if the script has one, follows the seconds.

die() {
  echo "$(basename -- "$0"): $*" >&2
  exit 1
}

# Milliseconds of the clock.
now_ms() {
  local us=${EPOCHREALTIME/[.,]/}
  echo $((us / 1000))
}

# 1234 -> "1.2 s", 34567 -> "34 s", 95000 -> "1 min 35 s"
format_ms() {
  local ms=$1
  if ((ms < 10000)); then
    echo "$((ms / 1000)).$((ms % 1000 / 100)) s"
  elif ((ms < 60000)); then
    echo "$((ms / 1000)) s"
  else
    echo "$((ms / 60000)) min $((ms / 1000 % 60)) s"
  fi
}

# _tick TITLE: counts until it is killed or the script is gone. The wait is a read
# that times out: a sleep would outlive the script and keep its pipes open.
_tick() {
  local title=$1 seconds=0 never text
  exec {never}<> <(:)
  while kill -0 "$$" 2>/dev/null; do
    read -r -t 1 -u "$never" || true
    seconds=$((seconds + 1))
    [[ -t 1 || $((seconds % 30)) == 0 ]] || continue
    text="$title ... $(format_ms $((seconds * 1000)))"
    ! declare -F step_detail >/dev/null || text+="  $(step_detail)"
    if [[ -t 1 ]]; then
      printf '\r\033[K%.*s' "$((${COLUMNS:-80} - 1))" "$text"
    else
      printf '%s\n' "$text"
    fi
  done
}

# run_step TITLE COMMAND...: step without its closing line; sets step_ms.
run_step() {
  local title=$1 start errexit=0 status log name ticker
  shift
  name=$(mktemp "${TMPDIR:-/tmp}/caisson-step.XXXXXX") || return 1
  exec {log}<>"$name"
  rm -f -- "$name"
  start=$(now_ms)
  _tick "$title" &
  ticker=$!

  # A subshell whose status were tested with || would ignore errexit.
  [[ $- != *e* ]] || errexit=1
  set +e
  (
    set -e
    exec {log}>&-
    "$@"
  ) >&"$log" 2>&1 </dev/null
  status=$?
  kill "$ticker" 2>/dev/null
  wait "$ticker" 2>/dev/null
  ((errexit)) && set -e

  step_ms=$(($(now_ms) - start))
  [[ ! -t 1 ]] || printf '\r\033[K'
  if ((status != 0)); then
    printf '%s ... failed after %s\n' "$title" "$(format_ms "$step_ms")"
    sed 's/^/  /' "/dev/fd/$log"
  fi
  exec {log}>&-
  return "$status"
}

step() {
  local status
  run_step "$@"
  status=$?
  ((status == 0)) || return "$status"
  ((step_ms < 1000)) || printf '%s ... %s\n' "$1" "$(format_ms "$step_ms")"
}
