#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# demo.sh -- builds reeve, shows its echo server beside a raw epoll and a raw io_uring one, and its
# pipeline server with nc for clients.
#
# It runs from any directory, on loopback only, and takes about 40 seconds after the build.
set -u

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 1
# shellcheck source=cmake/deps.sh
. cmake/deps.sh

need_packages || exit 1
configure_and_build release || exit 1
echo
timeout -k 5 120 build/release/tests/bench/bench_echo --demo || exit 1
cat <<'TEXT'

Each server answered the same load, one after the other on the same CPU. A ratio is reeve's cost
divided by the other server's: below 1 reeve, with a stack, deadlines and cancellation for every
connection, spent less CPU on a request than the server written by hand on epoll or io_uring.
TEXT

echo
exec examples/pipeline_demo.sh build/release/examples/pipeline
