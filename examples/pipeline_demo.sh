#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# pipeline_demo.sh -- shows the pipeline server to somebody who has not seen it: with nc for clients
# and for a subscriber, and a SIGTERM in the middle of four streams. Loopback only; a few seconds.
#
#     examples/pipeline_demo.sh [PROGRAM]    build/release/examples/pipeline if not given
#
# The status is 0 if it did what is said here.
set -u

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
program=$(realpath "${1:-$root/build/release/examples/pipeline}")
cd "$root" || exit 1
# shellcheck source=cmake/deps.sh
. cmake/deps.sh

folder=$(mktemp -d) || exit 1
started=()
# shellcheck disable=SC2317   # called by the trap
cleanup() {
    [ ${#started[@]} -eq 0 ] || kill -KILL "${started[@]}" 2>/dev/null
    rm -rf "$folder"
}
trap cleanup EXIT

# The nc that closes its sending side at the end of its input, by -N: OpenBSD's.
find_nc() {
    local each
    for each in nc.openbsd nc; do
        if command -v "$each" >/dev/null && "$each" -h 2>&1 | grep -q -e '-[A-Za-z]*N'; then
            echo "$each"
            return 0
        fi
    done
    return 1
}

need_nc() {
    nc=$(find_nc) && return
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null &&
        deps_apt update && deps_apt install -y --no-install-recommends netcat-openbsd; then
        echo "packages: installed netcat-openbsd with apt-get"
        nc=$(find_nc) && return
    fi
    echo "The pipeline server is shown with nc (Debian's netcat-openbsd), which is not here."
    exit 0
}

# await COMMAND...: until it succeeds, for a minute at most.
await() {
    local deadline=$((SECONDS + 60))
    until "$@"; do
        [ $SECONDS -lt $deadline ] || return 1
        sleep 0.05
    done
}

# port_of WHO: where the server says that it listens to clients or subscribers.
port_of() {
    sed -n -E "s/^pipeline: $1 on .*:([0-9]+)$/\1/p" "$folder/said"
}

# Starts it; what it listens on is in $port and $subscribe_port.
serve() {
    : >"$folder/said"
    rm -f "$folder/out"
    "$program" 127.0.0.1:0 --subscribe 127.0.0.1:0 --out "$folder/out" 2>"$folder/said" &
    server=$!
    started+=("$server")
    await grep -q '^pipeline: subscribers on' "$folder/said" || failed "it does not listen"
    await grep -q '^pipeline: clients on' "$folder/said" || failed "it does not listen"
    port=$(port_of clients) subscribe_port=$(port_of subscribers)
}

stop() {
    local status=0
    kill -TERM "$server"
    wait "$server" || status=$?
    return $status
}

failed() {
    echo "pipeline_demo.sh: $1; the server said:"
    cat "$folder/said"
    exit 1
}

show() {
    sed 's/^/    /' "$folder/$1"
}

few_lines() {
    serve
    : >"$folder/subscriber"
    "$nc" 127.0.0.1 "$subscribe_port" </dev/null >"$folder/subscriber" &
    started+=("$!")
    await grep -q '^# KEY' "$folder/subscriber" || failed "the subscriber hears nothing"
    printf '%s\n' 'cpu 3' 'cpu 5' 'room.kitchen 21.5' 'debug.x 1' 'oops' >"$folder/sent"
    timeout 60 "$nc" -N 127.0.0.1 "$port" <"$folder/sent" >"$folder/heard"
    stop || failed "it ended with status $?"
    echo "A client sends:"
    show sent
    echo "it is told what became of that, once it is in the file:"
    show heard
    echo "and whoever is connected to the second port hears what the file gets, without debug.*:"
    show subscriber
    grep -q '^ok 5$' "$folder/heard" || failed "the client was not told"
    grep -q '^cpu 2 8 3 5$' "$folder/subscriber" || failed "the subscriber was not told"
}

# Four clients that never stop, and a SIGTERM.
streams() {
    local i acked=0 last filed lines clients=()
    serve
    for i in 1 2 3 4; do
        seq -f "client.$i %.0f" 1 100000000 2>/dev/null |
            timeout 120 "$nc" 127.0.0.1 "$port" >"$folder/acks.$i" 2>/dev/null &
        clients+=("$!")
        started+=("$!")
    done
    for i in 1 2 3 4; do
        await test -s "$folder/acks.$i" || failed "a client is not answered"
    done
    sleep 1
    stop || failed "it ended with status $?"
    wait "${clients[@]}" 2>/dev/null
    for i in 1 2 3 4; do
        last=$(sed -n -E 's/^ok ([0-9]+)$/\1/p' "$folder/acks.$i" | tail -n 1)
        acked=$((acked + ${last:-0}))
        filed=$(awk -v key="client.$i" '$1 == key { n += $2 } END { print n + 0 }' "$folder/out")
        [ "$filed" -ge "${last:-0}" ] || failed "client $i has $last acknowledged and $filed filed"
    done
    lines=$(awk '{ n += $2 } END { print n }' "$folder/out")
    echo "Four clients send all they can for a second, then SIGTERM comes, in the midst of it:"
    echo "    $acked lines were acknowledged, and $lines are in the file, those among them."
    echo "The server's own account:"
    sed -n 's/^pipeline: clients=/    clients=/p' "$folder/said"
}

need_nc
echo "The pipeline server (examples/pipeline.c): clients, filter, aggregate, file and subscribers."
echo
few_lines
echo
streams
