#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# run.sh -- builds reeve and runs its tests: tests/run.sh [PRESET ...], from any directory.
#
# Presets are those of CMakePresets.json; without any it is dev. Each test is one line; what a test
# printed is shown if its executable failed. The last line is `N passed, N failed`, with `, N
# skipped` if there are any, and the exit status says whether all is well.
set -u

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 1
# shellcheck source=cmake/deps.sh
. cmake/deps.sh

passed=0 failed=0 skipped=0
SECONDS_EACH=900    # for one executable; each test in it has a limit of its own

output=$(mktemp) || exit 1
trap 'rm -f "$output"' EXIT

finish() {
    if [ "$skipped" -gt 0 ]; then
        echo "$passed passed, $failed failed, $skipped skipped"
    else
        echo "$passed passed, $failed failed"
    fi
    [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
    exit
}

count() {
    grep -c "^$1 " "$output"
}

# run_one PREFIX EXECUTABLE...: its lines get the prefix, "ok sched.deque.a_stolen_task_runs_once".
run_one() {
    local prefix=$1 status=0 bad
    shift
    timeout -k 5 $SECONDS_EACH "$@" >"$output" 2>&1 </dev/null || status=$?
    bad=$(count FAIL)
    if [ "$bad" -eq 0 ] && [ "$status" -ne 0 ] && [ "$status" -ne 77 ]; then
        echo "FAIL  (the executable ended with status $status)" >>"$output"
        bad=1
    fi
    if [ "$bad" -eq 0 ]; then
        sed -n -E "s/^(ok|skip) /\1 $prefix./p" "$output"
    else
        sed -E "s/^(ok|skip|FAIL) /\1 $prefix./" "$output"
    fi
    passed=$((passed + $(count ok)))
    skipped=$((skipped + $(count skip)))
    failed=$((failed + bad))
}

# ThreadSanitizer needs its address ranges free, which address randomisation does not promise.
launcher() {
    if [ "$1" = tsan ] && setarch -R true 2>/dev/null; then
        echo "setarch -R"
    fi
}

run_preset() {
    local preset=$1 prefix executable with
    echo "== $preset"
    if ! configure_and_build "$preset"; then
        failed=$((failed + 1))
        return
    fi
    read -r -a with <<<"$(launcher "$preset")"
    while read -r prefix executable; do
        run_one "$prefix" "${with[@]}" "$executable"
    done <"build/$preset/tests/tests.txt"
}

if ! need_packages; then
    failed=1
    finish
fi
want_packages
export UBSAN_OPTIONS=${UBSAN_OPTIONS-print_stacktrace=1}
[ $# -gt 0 ] || set -- dev
for preset in "$@"; do
    run_preset "$preset"
done
finish
