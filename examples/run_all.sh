#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# run_all.sh -- runs every example for a moment and checks what it does.
#
#     examples/run_all.sh [FOLDER]        of the built examples; build/release/examples if not given
#
# Each example is one line, `ok NAME` or `FAIL NAME (why)`; the last line is `N passed, N failed`.
# An example that has no case below fails: whoever adds one says here how it is run.
set -u

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "${1:-$root/build/release/examples}" || exit 1

passed=0 failed=0 server=
output=$(mktemp) || exit 1
# shellcheck disable=SC2317   # called by the trap
cleanup() {
    [ -z "$server" ] || kill -KILL "$server" 2>/dev/null
    rm -f "$output"
}
trap cleanup EXIT

# Waits until something listens on a port of this machine, the server died, or a minute is over.
await_port() {
    local deadline=$((SECONDS + 60))
    until (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null; do
        kill -0 "$server" 2>/dev/null || return 1
        [ $SECONDS -lt $deadline ] || return 1
        sleep 0.05
    done
}

free_port() {
    local port
    for port in $(shuf -i 20000-29999 -n 20); do
        (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
    done
}

# echo_server PORT STATUS COMMAND...: it must echo under load, and end with STATUS on SIGTERM.
echo_server() {
    local port=$1 want=$2 status=0
    shift 2
    "$@" >>"$output" 2>&1 &
    server=$!
    if ! await_port "$port"; then
        echo "does not listen on port $port" >>"$output"
        return 1
    fi
    timeout 60 ./echo_load "127.0.0.1:$port" --conns 20 --seconds 1 --warmup 0 >>"$output" 2>&1 ||
        status=$?
    kill -TERM "$server"
    timeout 60 tail --pid="$server" -f /dev/null || kill -KILL "$server"
    wait "$server" 2>/dev/null
    local end=$?
    server=
    [ $status -eq 0 ] || { echo "the load failed with status $status" >>"$output"; return 1; }
    [ $end -eq "$want" ] || { echo "ended with status $end, not $want" >>"$output"; return 1; }
}

# ever COMMAND...: whether it succeeds one time of five. The clock has its part in what it does, and
# a machine that stood still for a moment is no fault of its.
ever() {
    local try
    for try in 1 2 3 4 5; do
        [ "$try" -eq 1 ] || echo "once more" >>"$output"
        "$@" && return
    done
    return 1
}

# open_loop PORT: every request that was due must be answered and none dropped.
open_loop() {
    local status=0
    timeout 60 ./echo_load "127.0.0.1:$1" --conns 7 --rate 1000 --arrivals constant --json \
        --warmup 0 --seconds 1 >"$output" 2>&1 || status=$?
    [ $status -eq 0 ] || { echo "the open loop failed with status $status" >>"$output"; return 1; }
    if ! grep -q '"requests":1000,.*"dropped":0' "$output"; then
        echo "an open loop of 1000 requests did not count 1000" >>"$output"
        return 1
    fi
}

# The servers above are its real work; here its arithmetic, and an open loop against one of them.
echo_load_alone() {
    local port status=0
    ./echo_load --help >"$output" 2>&1 || return 1
    ./echo_load --self-test >>"$output" 2>&1 || return 1
    port=$(free_port)
    ./echo "127.0.0.1:$port" --workers 1 >>"$output" 2>&1 &
    server=$!
    await_port "$port" || return 1
    ever open_loop "$port" || status=1
    kill -TERM "$server"
    wait "$server" 2>/dev/null
    server=
    return $status
}

# tests/runtime/pipeline_test.c is where it is tried out; here it must do what its opening comment
# says that one can try: a client of four good lines and a bad one, and a subscriber.
pipeline_server() {
    local port subscribe_port file status=0
    port=$(free_port) subscribe_port=$port file=$(mktemp)
    while [ "$subscribe_port" = "$port" ]; do
        subscribe_port=$(free_port)
    done
    ./pipeline "127.0.0.1:$port" --subscribe "127.0.0.1:$subscribe_port" --out "$file" \
        >>"$output" 2>&1 &
    server=$!
    if await_port "$port" && await_port "$subscribe_port" &&
        exec 3<>"/dev/tcp/127.0.0.1/$port" 4<>"/dev/tcp/127.0.0.1/$subscribe_port"; then
        timeout 60 head -n 1 <&4 >>"$output" # the heading: from now on it hears everything
        # in one piece: printf writes line by line, and what comes late is in another window
        cat >&3 <<<$'cpu 3\ncpu 5\nroom.kitchen 21.5\ndebug.x 1\noops'
        timeout 60 head -n 2 <&3 >>"$output"
    fi
    kill -TERM "$server"
    timeout 60 cat <&4 >>"$output"
    exec 3>&- 4>&-
    wait "$server" || status=$?
    server=
    cat "$file" >>"$output"
    rm -f "$file"
    [ $status -eq 0 ] || { echo "ended with status $status" >>"$output"; return 1; }
    if [ "$(grep -c -e '^ok 5$' -e '^error 5: ' "$output")" -ne 2 ] ||
        [ "$(grep -c -e '^cpu 2 8 3 5$' -e '^room.kitchen 1 21.5 ' "$output")" -ne 4 ]; then
        echo "did not answer, publish and file what was sent" >>"$output"
        return 1
    fi
}

# prints PROGRAM: it must end well and print what its opening comment shows; dots are anything.
prints() {
    local want
    want=$(sed -n -e 1d -e '/\*\//q' -e 's/^ \*     //p' "$root/examples/$1.c" |
        sed -e 's/[][*?\]/\\&/g' -e 's/\.\.\./*/g')
    if ! timeout 60 "./$1" >"$output" 2>&1; then
        echo "did not end well" >>"$output"
        return 1
    fi
    # shellcheck disable=SC2053   # the right side is a pattern
    if [ -z "$want" ] || [[ $(<"$output") != $want ]]; then
        echo "does not print what its opening comment shows" >>"$output"
        return 1
    fi
}

run_example() {
    local port
    case $1 in
    echo)
        port=$(free_port)
        echo_server "$port" 0 ./echo "127.0.0.1:$port" --workers 2
        ;;
    01_echo)
        echo_server 7000 143 ./01_echo
        ;;
    0[2-9]_*|1[0-9]_*)
        ever prints "$1"
        ;;
    echo_load)
        echo_load_alone
        ;;
    pipeline)
        pipeline_server
        ;;
    *)
        echo "run_all.sh does not know how to run it" >"$output"
        return 1
        ;;
    esac
}

for program in *; do
    if [ ! -f "$program" ] || [ ! -x "$program" ]; then
        continue
    fi
    : >"$output"
    if run_example "$program"; then
        echo "ok $program"
        passed=$((passed + 1))
    else
        cat "$output"
        echo "FAIL $program ($(tail -n 1 "$output"))"
        failed=$((failed + 1))
    fi
done
echo "$passed passed, $failed failed"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
