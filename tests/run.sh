#!/bin/bash
# Installs, builds and runs every test. The last line of standard output, alone:
#   N passed, N failed, N skipped
# counts test cases: those that GoogleTest reports, one for each shell test, one
# for each further check (formatting, the other compiler, sanitizers, fuzzers),
# and a failed one for each target that did not build, crashed or timed out.
set -uo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd) || exit 1
cd "$root" || exit 1
# shellcheck source=third_party/progress.sh
. third_party/progress.sh

usage() {
  cat <<'USAGE'
usage: tests/run.sh [--quick] [BAZEL OPTION...] [TARGET...]

Without arguments: installs missing packages, makes the test images, runs every
test with gcc 12 and kernel tests once more in a VM (tests/vm), has containerd,
docker and podman drive caisson-oci (tests/engines), exchanges images with them,
skopeo, umoci and buildah (tests/interop), checks formatting and shell scripts, builds the
library and the examples with clang 14, ASan and UBSan, runs the unprivileged tests and those tagged "asan" so, those tagged
"tsan" with TSan, and each fuzzer for some seconds.

  --quick      only the formatting and the tests that are not tagged "slow",
               taking unchanged results from the last run
  --config=C   only the tests, in a configuration of .bazelrc: asan, tsan, clang
  TARGET       only these tests, by default //...; an option or a target for
               bazel leaves the further checks out

Environment:
  CAISSON_TESTS_MUST_RUN=0  accept tests that skip what this machine cannot do;
                            by default a skipped test fails the run
  CAISSON_TEST_ATTEMPTS=2   repeat a test that failed, and list it as flaky (1)
  CAISSON_CACHE_DIR         images and builds of other configurations (.cache)
  CAISSON_FUZZ_SECONDS      for each fuzzer (10)
USAGE
}

quick=0 config='' options=() patterns=()
for argument in "$@"; do
  case $argument in
    --quick) quick=1 ;;
    -h | --help) usage && exit 0 ;;
    --config=*) config+=${argument#--config=} options+=("$argument") ;;
    -*) options+=("$argument") ;;
    *) patterns+=("$argument") ;;
  esac
done
only_tests=$((${#options[@]} + ${#patterns[@]}))

# //..., without the convenience symlinks into another output base, which bazel
# would follow.
everything=(//:all)
for directory in */; do
  [[ -L ${directory%/} ]] || [[ -z $(find "$directory" -name BUILD.bazel -print -quit) ]] ||
    everything+=("//$directory...")
done
((${#patterns[@]})) || patterns=("${everything[@]}")

export CAISSON_TESTS_MUST_RUN=${CAISSON_TESTS_MUST_RUN:-1}

passed=0 failed=0 skipped=0
start=$(now_ms)
scratch=$(mktemp -d "${TMPDIR:-/tmp}/caisson-tests.XXXXXX") || exit 1
bazel_log=$scratch/bazel.log
# shellcheck source=third_party/bazel.sh
. third_party/bazel.sh
# shellcheck source=third_party/test_cases.sh
. third_party/test_cases.sh
mkdir -p "$CAISSON_CACHE_DIR" || exit 1

shut_down() {
  [[ -d $CAISSON_CACHE_DIR/bazel-$1 ]] || return 0
  bazel_in "$1" shutdown >/dev/null 2>&1
}

clean_up() {
  local base
  for base in asan tsan fuzz "$config"; do
    [[ -z $base ]] || shut_down "$base"
  done
  [[ -z ${CI:-} ]] || ! command -v bazel >/dev/null || bazel shutdown >/dev/null 2>&1
  rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# The end of every run.
finish() {
  local status=0
  ((failed == 0 && passed > 0)) || status=1
  ((skipped == 0 || CAISSON_TESTS_MUST_RUN == 0)) || status=1
  if [[ -s $scratch/bad ]]; then
    printf '\nfailed, skipped or flaky:\n'
    sed 's/^/  /' "$scratch/bad"
  fi
  trap - EXIT
  clean_up
  printf '\n%s in all\n' "$(format_ms $(($(now_ms) - start)))"
  printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
  exit "$status"
}

# ---- the tests ----------------------------------------------------------------

# count TARGET STATUS TIME: adds one target to the totals, with a line.
count() {
  local target=$1 status=$2 took=$3 path xml=() p=0 f=0 s=0 line
  path=$testlogs/${target#//}
  path=${path/:/\/}
  case $status in
    PASSED | FLAKY | FAILED | TIMEOUT)
      mapfile -t xml < <(find -L "$path" -name test.xml 2>/dev/null)
      ((${#xml[@]} == 0)) || read -r p f s < <(cases "$target" "$scratch/bad" "${xml[@]}")
      ;;
  esac
  if [[ $status == PASSED || $status == FLAKY ]]; then
    ((p + f + s)) || p=1
    [[ $status == PASSED ]] || printf '%-8s %s passed only when repeated\n' flaky "$target" >>"$scratch/bad"
  elif ((f == 0)); then
    # No case says so: it did not build, crashed at its end or timed out.
    f=1
    printf '%-8s %s %s\n' failed "$target" "${status,,}" >>"$scratch/bad"
  fi
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
  line="$p passed"
  ((f == 0)) || line+=", $f failed"
  ((s == 0)) || line+=", $s skipped"
  printf '  %-52s %12s  %s\n' "$target" "$took" "$line"
}

run_tests() {
  local excluded='slow|manual|fuzz' filters=-slow cache=auto status=0 query target outcome took
  if ((!quick)); then
    excluded='manual|fuzz' filters='' cache=no
  fi
  query="let all = tests(set(${patterns[*]})) in \$all except attr(tags, \"[\\[ ]($excluded)[,\\]]\", \$all)"
  if ! bazel_in "$config" query --keep_going "$query" >"$scratch/labels" 2>"$scratch/error"; then
    without_noise <"$scratch/error"
    failed=$((failed + 1))
    echo "failed   bazel query of ${patterns[*]}: a package is broken" >>"$scratch/bad"
  fi
  sort -u "$scratch/labels" >"$scratch/targets"

  step "building, and testing $(wc -l <"$scratch/targets") targets" \
    logged_bazel "$config" test --keep_going --test_summary=short --cache_test_results="$cache" \
    --test_tag_filters="$filters" --build_tests_only=false \
    --test_env=CAISSON_IMAGES="$images" --flaky_test_attempts="${CAISSON_TEST_ATTEMPTS:-1}" \
    "${options[@]}" -- "${patterns[@]}" || status=$?

  testlogs=$(bazel_in "$config" info "${options[@]}" bazel-testlogs 2>/dev/null)
  # //pkg:name (cached) PASSED in 0.3s -> name, status, time
  awk -v OFS='\t' '
    /^\/\/[^ ]+ / {
      for (outcome in order) delete order[outcome]
      n = split("FAILED TO BUILD,REMOTE FAILURE,NO STATUS,INCOMPLETE,TIMEOUT,FLAKY,FAILED,PASSED", order, ",")
      for (i = 1; i <= n; i++) {
        at = index($0, " " order[i])
        if (at == 0) continue
        took = ""
        if (match($0, / in [0-9.]+s/)) took = substr($0, RSTART + 4, RLENGTH - 5) " s"
        print $1, order[i], ($2 == "(cached)" ? "unchanged" : took)
        break
      }
    }' "$bazel_log" >"$scratch/outcomes"
  while read -r target; do
    outcome=$(awk -F '\t' -v target="$target" '$1 == target { print $2 "\t" $3; exit }' "$scratch/outcomes")
    IFS=$'\t' read -r outcome took <<<"$outcome"
    count "$target" "${outcome:-NOT RUN}" "${took:-}"
  done <"$scratch/targets"
  # bazel's exit status is 1 when something did not build, 3 when only tests
  # failed. What did not build may be no test, such as an example.
  if ((status == 1)) && ! grep -q 'FAILED TO BUILD\|NO STATUS' "$scratch/outcomes"; then
    failed=$((failed + 1))
    echo "failed   build of a target that is no test" >>"$scratch/bad"
  elif ((status != 0 && failed == 0)); then
    failed=$((failed + 1))
    echo "failed   bazel test: exit status $status" >>"$scratch/bad"
  fi
}

# ---- the tests in the VM ------------------------------------------------------

# run_script ATTEMPTS SCRIPT ARGUMENT...: one that counts as this does, and says itself what
# fails.
run_script() {
  local attempts=$1 script=$2 line bad=$scratch/script_bad
  shift 2
  while :; do
    : >"$bad"
    setpriv --pdeathsig TERM "$script" --bad "$bad" "$@" </dev/null | tee "$scratch/said"
    line=$(tail -n 1 "$scratch/said")
    attempts=$((attempts - 1))
    [[ $line != *' passed, 0 failed, '* ]] || break
    ((attempts > 0)) || break
    # What fails again is listed again.
    sed 's/^failed /flaky  /' "$bad" >>"$scratch/bad"
  done
  cat "$bad" >>"$scratch/bad"
  if [[ $line =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then
    passed=$((passed + BASH_REMATCH[1]))
    failed=$((failed + BASH_REMATCH[2]))
    skipped=$((skipped + BASH_REMATCH[3]))
  else
    failed=$((failed + 1))
    echo "failed   $script came to no end" >>"$scratch/bad"
  fi
}

# Those of the kernel tests that have passed there, on another kernel. It takes
# AppArmor or SELinux, not both. What fails is repeated in the same VM.
run_vm_tests() {
  run_script 1 tests/vm/run.sh "${vm_targets[@]}"
  run_script 1 tests/vm/run.sh --append lsm=landlock,lockdown,yama,integrity,selinux,bpf //tests/kernel:selinux_test
}
vm_targets=(
  //lib/{cgroup,features,rootfs,security,sys,volume}/... //lib/launcher:session_test
  //lib/net:{lifelines,net_endpoint,network,recover,traffic}_test
  //tests/hostile:{descriptors,detached,programs,races,roots}_test
  //tests/kernel:{apparmor,exec,hooks,id_range,live_mounts,namespaces,process,release,security,start,sysctl,volume}_test
  //tests/rootless:{cgroup,security,start}_test
)

# ---- further checks -----------------------------------------------------------

# check NAME COMMAND...: one test case.
check() {
  local name=$1 line
  : >"$bazel_log"
  if run_step "$@"; then
    passed=$((passed + 1)) line="1 passed"
  else
    failed=$((failed + 1)) line="1 failed"
    echo "failed   $name" >>"$scratch/bad"
  fi
  printf '  %-52s %12s  %s\n' "$name" "$(format_ms "$step_ms")" "$line"
}

check_format() {
  local files
  # root may run this in somebody else's checkout.
  mapfile -d '' -t files < <(git -c safe.directory="$root" ls-files -z \
    --cached --others --exclude-standard '*.cc' '*.h' '*.c')
  ((${#files[@]} > 100)) || { echo "git lists ${#files[@]} files to check" && return 1; }
  clang-format-14 --dry-run -Werror "${files[@]}"
}

check_shell() {
  local script status=0 scripts
  mapfile -d '' -t scripts < <(git -c safe.directory="$root" ls-files -z '*.sh' .ci/run)
  ((${#scripts[@]} > 5)) || { echo "git lists ${#scripts[@]} scripts to check" && return 1; }
  for script in "${scripts[@]}"; do
    bash -n "$script" || status=1
  done
  shellcheck "${scripts[@]}" || status=1
  return "$status"
}

# Targets that are no tests but carry a tag.
tagged() {
  bazel_in "$1" query "attr(tags, \"[\\[ ]$2[,\\]]\", set(${everything[*]}))" 2>/dev/null | grep '^//'
}

# fuzz_one TARGET: from its corpus, NAME_corpus or corpus beside it. What it finds
# stays in the cache directory.
fuzz_one() {
  local target=$1 package name seeds=() corpus found=$CAISSON_CACHE_DIR/fuzz
  package=${target#//} name=${target##*:}
  package=${package%:*}
  for corpus in "$package/${name}_corpus" "$package/${name%_fuzz}_corpus" "$package/corpus"; do
    [[ ! -d $corpus ]] || {
      seeds=("$corpus")
      break
    }
  done
  ((${#seeds[@]})) || {
    echo "$target has no corpus directory beside it"
    return 1
  }
  mkdir -p "$found" "$scratch/fuzz/$name"
  "$fuzz_bin/$package/$name" -max_total_time="${CAISSON_FUZZ_SECONDS:-10}" -timeout=10 -rss_limit_mb=1500 \
    -artifact_prefix="$found/$name-" "$scratch/fuzz/$name" "${seeds[@]}"
}

# fuzz_all TARGET...: one for each processor at a time, each with a .log and a .status. A
# shell of its own, which waits for nothing but them.
fuzz_all() (
  running=0
  mkdir -p "$scratch/fuzz"
  for target in "$@"; do
    if ((running == $(nproc))); then
      wait -n
      running=$((running - 1))
    fi
    (
      fuzz_one "$target" >"$scratch/fuzz/${target##*:}.log" 2>&1
      echo "$?" >"$scratch/fuzz/${target##*:}.status"
    ) &
    running=$((running + 1))
  done
  wait
)

# fuzz_result TARGET
fuzz_result() {
  local status=1
  [[ ! -e $scratch/fuzz/${1##*:}.status ]] || read -r status <"$scratch/fuzz/${1##*:}.status"
  ((status == 0)) || cat "$scratch/fuzz/${1##*:}.log"
  return "$status"
}

further_checks() {
  local targets target
  check "shell scripts" check_shell
  # What users compile, in the build whose tests follow.
  mapfile -t targets < <(bazel_in asan query "let all = set(${everything[*]}) in
    kind('cc_(library|binary) rule', \$all) except attr(testonly, 1, \$all)" 2>/dev/null | grep '^//')
  check "build of ${#targets[@]} targets with clang" logged_bazel asan build --config=asan --keep_going \
    "${targets[@]:-//:no_target}"
  check "unprivileged tests with ASan and UBSan" logged_bazel asan test --config=asan --keep_going --build_tests_only \
    --flaky_test_attempts="${CAISSON_TEST_ATTEMPTS:-1}" \
    --test_summary=short --test_tag_filters=-kernel,-exclusive,-slow,-fuzz,-noasan "${everything[@]}"
  mapfile -t targets < <(tagged asan asan)
  ((${#targets[@]} == 0)) ||
    check "host safety and kernel with ASan and UBSan" logged_bazel asan test --config=asan --keep_going \
      --flaky_test_attempts="${CAISSON_TEST_ATTEMPTS:-1}" \
      --test_summary=short --test_env=CAISSON_IMAGES="$images" "${targets[@]}"
  shut_down asan

  mapfile -t targets < <(tagged tsan tsan)
  if ((${#targets[@]})); then
    check "host safety and threaded tests with TSan" logged_bazel tsan test --config=tsan --keep_going \
      --flaky_test_attempts="${CAISSON_TEST_ATTEMPTS:-1}" \
      --test_summary=short --test_env=CAISSON_IMAGES="$images" "${targets[@]}"
    shut_down tsan
  fi

  mapfile -t targets < <(tagged fuzz fuzz)
  if ((${#targets[@]})); then
    check "build of ${#targets[@]} fuzzers" logged_bazel fuzz build --config=fuzz --keep_going "${targets[@]}"
    fuzz_bin=$(bazel_in fuzz info --config=fuzz bazel-bin 2>/dev/null)
    shut_down fuzz
    step "running ${#targets[@]} fuzzers for ${CAISSON_FUZZ_SECONDS:-10} s each" fuzz_all "${targets[@]}"
    for target in "${targets[@]}"; do
      check "fuzz $target" fuzz_result "$target"
    done
  fi
}

# ---- all ----------------------------------------------------------------------

exec </dev/null
if ! third_party/install_deps.sh || ! images=$(examples/make_images.sh); then
  failed=1
  finish
fi
((only_tests)) || check "formatting" check_format
run_tests
if ((!only_tests && !quick)); then
  [[ $(uname -m) != x86_64 ]] || run_vm_tests
  run_script "${CAISSON_TEST_ATTEMPTS:-1}" tests/engines/run.sh
  run_script "${CAISSON_TEST_ATTEMPTS:-1}" tests/interop/run.sh
  further_checks
fi
finish
