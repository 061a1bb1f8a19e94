# shellcheck shell=bash
# How the scripts call bazel: quietly, and with a log that is shown only when
# something fails. To be sourced with $root set to the checkout, and used with
# $bazel_log set to a file for bazel's output.
export CAISSON_CACHE_DIR=${CAISSON_CACHE_DIR:-${root:?}/.cache}
[[ $CAISSON_CACHE_DIR == /* ]] || CAISSON_CACHE_DIR=$PWD/$CAISSON_CACHE_DIR
# bazel keeps its builds below the home directory, which a CI job may not have.
[[ -n ${HOME:-} ]] || HOME=$(getent passwd "$EUID" | cut -d: -f6)
[[ -d ${HOME:-} && -w $HOME ]] || HOME=$CAISSON_CACHE_DIR
export HOME

# bazel_in BASE COMMAND...: "" is bazel's own place for the checkout. Each further
# configuration has an output base, so that none undoes another's work.
bazel_in() {
  local base=$1 startup=()
  shift
  [[ -z $base ]] || startup=(--output_base="$CAISSON_CACHE_DIR/bazel-$base")
  bazel "${startup[@]}" "$@"
}

# logged_bazel BASE COMMAND...
logged_bazel() {
  local base=$1 command=$2 status=0 symlinks=()
  shift 2
  [[ -z $base ]] || symlinks=(--symlink_prefix=/)
  bazel_in "$base" "$command" --show_progress --curses=no --show_progress_rate_limit=5 \
    "${symlinks[@]}" "$@" >"${bazel_log:?}" 2>&1 || status=$?
  ((status == 0)) || without_noise <"$bazel_log"
  return "$status"
}

# What bazel and its Java say that nobody can act on.
without_noise() {
  local noise=(
    '\[[0-9,]+ / [0-9,]+\]' 'Loading:' 'Analyzing:' 'Extracting Bazel'
    'Starting local Bazel server' 'OpenJDK 64-Bit Server VM warning'
    'INFO: (Invocation ID|Analyzed|Found|Elapsed time|[0-9]+ process|Build completed|Build option)'
    'WARNING: (An illegal reflective|Illegal reflective|Please consider reporting)'
    'WARNING: (Use --illegal-access|All illegal access)'
    '//[^ ]+ +(\(cached\) )?PASSED in' 'Executed [0-9]+ out of'
    'There were tests whose specified size'
    '\[ RUN      \]|\[       OK \]|\[-{10}\]|\[={10}\]|\[  PASSED  \]' 'Running main\(\)'
  )
  local IFS='|'
  grep -v -E "^(${noise[*]})"
}

# "[12 / 345] compiling x", bazel's latest word, beside the seconds of a step.
step_detail() {
  [[ ! -e $bazel_log ]] ||
    tac "$bazel_log" 2>/dev/null | grep -m 1 -E '^\[[0-9,]+ / [0-9,]+\]' | cut -c 1-90
}
