#!/bin/bash
# Runs every test of the workspace, one suite after the other, and adds the results up.
#
#   run-tests.sh [ARGUMENTS OF cargo test]         by default --workspace --lib --bins --tests
#
# Each suite's own output goes to target/test-logs; that of a suite that failed is shown. The last two lines are
#   N passed, N failed, N skipped
#   RESULT test passed=N failed=N skipped=N
# and the exit status is 0 only when something passed and nothing failed. A suite that runs whole networks in real time
# and failed while the host of a virtual machine took its processors away is run once more at the end; what counts then
# is that run, and both are shown.
set -uo pipefail
# shellcheck source=lib.sh
. "$(dirname "$(readlink -f "$0")")/lib.sh"
cd "$LAB_DIR/../.." || exit 1
[ -x "$HOME/.cargo/bin/cargo" ] && PATH=$HOME/.cargo/bin:$PATH
TARGET=${CARGO_TARGET_DIR:-target}
LOGS=$TARGET/test-logs
mkdir -p "$LOGS"
whole=
[ $# -gt 0 ] || { whole=1; set -- --workspace --lib --bins --tests; }
LONGEST=${CAUSEWAY_TEST_LIMIT:-1200} # seconds one suite may take
passed=0 failed=0 skipped=0

finish() {
  echo
  echo "$passed passed, $failed failed, $skipped skipped"
  echo "RESULT test passed=$passed failed=$failed skipped=$skipped"
  [ "$passed" -gt 0 ] && [ "$failed" = 0 ]
  exit
}

# count FILE: the sum of a suite's `test result:` lines as "passed failed skipped"
count() {
  awk '/^test result:/ { for (i = 1; i < NF; i++) {
      if ($(i+1) ~ /^passed/) p += $i; if ($(i+1) ~ /^failed/) f += $i; if ($(i+1) ~ /^ignored/) s += $i } }
    END { print p + 0, f + 0, s + 0 }' "$1"
}

say "building programs and tests"
# In one go with the tests: built apart, the libraries would be built twice, for two sets of features.
if ! cargo build --workspace --bins --tests; then
  echo "FAILED to build the programs and tests"; failed=1; finish
fi
suites=$(mktemp)
trap 'rm -f "$suites"' EXIT
# Rendered messages go on to the screen; what cargo built is read from the JSON.
if ! cargo test "$@" --no-run --message-format=json-render-diagnostics >"$suites"; then
  echo "FAILED to build the tests"; failed=1; finish
fi
folder=$(readlink -f "$TARGET")/debug
export CAUSEWAY_BIN=$folder

# Ticks of 10 ms that the host took of all processors since the start of the machine.
stolen() { awk '/^cpu / { print $9 + 0; exit }' /proc/stat; }

again=() # suites that get another run, as lines for `run`
final=

# run NAME FOLDER COMMAND...: one suite
run() {
  local name=$1 place=$2 log start=$SECONDS taken status p f s line; line=$(printf '%q ' "$@"); shift 2
  taken=$(stolen)
  log=$(readlink -f "$LOGS")/${name//\//-}.log
  ( cd "$place" && timeout "$LONGEST" "$@" ) </dev/null >"$log" 2>&1; status=$?
  [ "$status" = 124 ] && echo "ended after $LONGEST s" >>"$log"
  read -r p f s < <(count "$log")
  # A suite that died without a count of its own counts as one failure.
  [ "$status" != 0 ] && [ "$f" = 0 ] && f=1
  taken=$(($(stolen) - taken))
  case $name in tests/* | peer/*)
    # More than a twentieth of one processor.
    if [ "$f" != 0 ] && [ -z "$final" ] && [ "$taken" -gt $(((SECONDS - start) * 5)) ]; then
      printf 'AGAIN  %-36s %4d passed %3d failed: the host took %d s of processor time in %d s\n' "$name" "$p" "$f" \
        $((taken / 100)) $((SECONDS - start))
      sed -n '/^failures:/,$p' "$log" | grep . | tail -n 40
      again+=("$line")
      return
    fi ;;
  esac
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
  printf '%-6s %-36s %4d passed %3d failed %3d skipped  %4d s\n' "$([ "$f" = 0 ] && echo ok || echo FAILED)" \
    "$name" "$p" "$f" "$s" $((SECONDS - start))
  [ "$f" = 0 ] || { sed -n '/^failures:/,$p' "$log" | grep . || tail -n 40 "$log"; } | tail -n 120
}

while IFS=$'\t' read -r executable manifest kind name; do
  crate=$(basename "$(dirname "$manifest")")
  case $kind in test) label=$crate/$name ;; bin) label=$crate/bin/$name ;; *) label=$crate ;; esac
  # A program without tests of its own adds nothing to the list. All of the list is read: one that cannot be written
  # to its end counts as failed, and with it the suite would be left out.
  if [ "$kind" = bin ] && ! "$executable" --list 2>/dev/null | grep ': test$' >/dev/null; then continue; fi
  # Suites that run whole networks in real time take one test after the other.
  threads=()
  case $label in tests/* | peer/*) threads=(--test-threads=1) ;; esac
  run "$label" "$(dirname "$manifest")" "$executable" ${threads[@]+"${threads[@]}"}
done < <(sed -n '/"profile":{[^}]*"test":true/s/.*"manifest_path":"\([^"]*\)","target":{"kind":\["\([^"]*\)"\][^}]*"name":"\([^"]*\)".*"executable":"\([^"]*\)".*/\4\t\1\t\2\t\3/p' "$suites" | sort -t $'\t' -k 2,4)
[ -n "$whole" ] && run documentation . cargo test --quiet --workspace --doc
final=1
if [ "${#again[@]}" != 0 ]; then
  say "${#again[@]} suites once more, after a rest"
  sleep 60
  for suite in "${again[@]}"; do eval "run $suite"; done
fi
finish
