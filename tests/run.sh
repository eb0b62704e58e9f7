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

outputs=$(mktemp -d) || exit 1
trap 'rm -rf "$outputs"' EXIT

# Two executables at a time where there are two processors. Not more: rings are locked memory, of
# which an ordinary user has little, and a few tests keep two threads busy.
JOBS=$(nproc)
[ "$JOBS" -le 2 ] || JOBS=2

finish() {
    if [ "$skipped" -gt 0 ]; then
        echo "$passed passed, $failed failed, $skipped skipped"
    else
        echo "$passed passed, $failed failed"
    fi
    [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
    exit
}

# run_one OUTPUT EXECUTABLE...: what it prints, and OUTPUT.done once that is all.
run_one() {
    local output=$1 status=0
    shift
    timeout -k 5 $SECONDS_EACH "$@" >"$output" 2>&1 </dev/null || status=$?
    if ! grep -q "^FAIL " "$output" && [ "$status" -ne 0 ] && [ "$status" -ne 77 ]; then
        echo "FAIL  (the executable ended with status $status)" >>"$output"
    fi
    : >"$output.done"
}

# report OUTPUT: its lines get the file's name, "ok sched.deque.a_stolen_task_runs_once".
report() {
    local prefix=${1##*/}
    if grep -q "^FAIL " "$1"; then
        sed -E "s/^(ok|skip|FAIL) /\1 $prefix./" "$1"
    else
        sed -n -E "s/^(ok|skip) /\1 $prefix./p" "$1"
    fi
    passed=$((passed + $(grep -c "^ok " "$1")))
    skipped=$((skipped + $(grep -c "^skip " "$1")))
    failed=$((failed + $(grep -c "^FAIL " "$1")))
    rm -f "$1" "$1.done"
}

report_done() {
    local mark
    for mark in "$outputs"/*.done; do
        [ ! -e "$mark" ] || report "${mark%.done}"
    done
}

# ThreadSanitizer needs its address ranges free, which address randomisation does not promise.
launcher() {
    case $1 in
    tsan | stalls) ! setarch -R true 2>/dev/null || echo "setarch -R" ;;
    esac
}

run_preset() {
    local preset=$1 prefix executable with running=0
    echo "== $preset"
    if ! configure_and_build "$preset"; then
        failed=$((failed + 1))
        return
    fi
    read -r -a with <<<"$(launcher "$preset")"
    while read -r prefix executable; do
        if [ "$running" -ge "$JOBS" ]; then
            wait -n
            running=$((running - 1))
            report_done
        fi
        run_one "$outputs/$prefix" "${with[@]}" "$executable" &
        running=$((running + 1))
    done <"build/$preset/tests/tests.txt"
    wait
    report_done
    if [ -n "$(ls -A "$outputs")" ]; then
        echo "FAIL  (executables that nobody saw end: $(ls "$outputs"))"
        failed=$((failed + 1))
        rm -rf "${outputs:?}"/*
    fi
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
