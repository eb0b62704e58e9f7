# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# deps.sh -- sourced by tests/run.sh and examples/demo.sh: makes sure that what reeve is built with
# is there. On Debian and Ubuntu it installs what is missing, if it may; elsewhere it says what to
# get.
#
# need_packages looks for the things themselves, not for packages, so a machine that got them some
# other way is left alone, and no package list is fetched unless something is missing.

# Each: package, and the test for what it brings.
deps_missing() {
    command -v cmake >/dev/null || echo cmake
    command -v ninja >/dev/null || echo ninja-build
    command -v pkg-config >/dev/null || echo pkg-config
    if ! command -v "${CC:-cc}" >/dev/null; then
        echo gcc
        echo libc6-dev
    elif ! deps_has_header stdio.h; then
        echo libc6-dev
    fi
    deps_has_header liburing.h || echo liburing-dev
    deps_has_header ck_stack.h || echo libck-dev
    deps_has_header mimalloc.h || echo libmimalloc-dev
    deps_has_header zlib.h || echo zlib1g-dev
}

# What only some tests use; without it they are skipped.
deps_optional() {
    command -v spin >/dev/null || echo spin
}

deps_has_header() {
    echo "#include <$1>" | "${CC:-cc}" -E -xc - >/dev/null 2>&1
}

# Says in one line what it did; returns 1 if something is missing and stays missing.
need_packages() {
    local missing command
    mapfile -t missing < <(deps_missing)
    if [ ${#missing[@]} -eq 0 ]; then
        echo "packages: all there, nothing was installed"
        return 0
    fi
    command="apt-get install -y --no-install-recommends ${missing[*]}"
    if ! command -v apt-get >/dev/null; then
        echo "packages: ${missing[*]} (their Debian names) are missing; please install them with" \
            "this system's package manager." >&2
        return 1
    fi
    if [ "$(id -u)" -ne 0 ]; then
        echo "packages: ${missing[*]} are missing; please run: sudo $command" >&2
        return 1
    fi
    if deps_apt update && deps_apt install -y --no-install-recommends "${missing[@]}"; then
        echo "packages: installed ${missing[*]} with apt-get"
    else
        echo "packages: apt-get could not install ${missing[*]}; its messages are above." >&2
        return 1
    fi
}

# Installs the optional ones where that needs no question; says so in one line, and never fails.
want_packages() {
    local wanted
    mapfile -t wanted < <(deps_optional)
    [ ${#wanted[@]} -gt 0 ] || return 0
    if command -v apt-get >/dev/null && [ "$(id -u)" -eq 0 ] &&
        { deps_apt install -y --no-install-recommends "${wanted[@]}" ||
            { deps_apt update && deps_apt install -y --no-install-recommends "${wanted[@]}"; }
        } 2>/dev/null; then
        echo "packages: installed ${wanted[*]} with apt-get, for the tests"
    else
        echo "packages: without ${wanted[*]} (the Debian name) some tests will be skipped"
    fi
}

# apt-get, silent unless it fails.
deps_apt() {
    local log status=0
    log=$(DEBIAN_FRONTEND=noninteractive apt-get -q "$@" 2>&1) || status=$?
    [ $status -eq 0 ] || echo "$log" >&2
    return $status
}

# configure_and_build PRESET [cmake --build arguments]: in the current directory; silent unless it
# fails, except for one line that says what it did.
configure_and_build() {
    local preset=$1 log start=$SECONDS
    shift
    if log=$(cmake --preset "$preset" 2>&1 && cmake --build --preset "$preset" "$@" 2>&1); then
        echo "built build/$preset in $((SECONDS - start)) s"
    else
        echo "$log" >&2
        echo "building build/$preset failed; the messages are above." >&2
        return 1
    fi
}
