#!/usr/bin/env bash
# Prints where DPDK's dpdk-testpmd is, as lines NAME=PATH: the program, the folder of its drivers, and the folders of its
# libraries with colons between them (empty: the system's own).
#
# An installed one is taken as it is. Else, on Debian and what derives from it, its packages are fetched once, and not installed.
set -euo pipefail

fail() {
    printf 'DPDK: %s\n' "$1" >&2
    exit 1
}

print_from() { # root of the file system that it is in, program
    local drivers libraries=
    # Drivers are loaded from a folder that has the version of the interface in its name.
    drivers=$(find "$1/usr/lib" -maxdepth 3 -type d -path '*/dpdk/pmds-*' -print -quit)
    [ -n "$drivers" ] || fail "no folder of drivers (dpdk/pmds-*) below $1/usr/lib: remove $1 and run this again"
    # Some of what it needs is in /usr/lib and some in /lib.
    [ -z "$1" ] || libraries=$(find "$1/lib" "$1/usr/lib" -maxdepth 1 -type d -name '*-linux-gnu*' -printf '%p:')
    printf 'testpmd=%s\ndrivers=%s\nlibraries=%s\n' "$2" "$drivers" "${libraries%:}"
}

if program=$(command -v dpdk-testpmd); then
    print_from '' "$program"
    exit
fi

command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
    fail "missing: dpdk-testpmd (a virtio driver that tests run): install DPDK 22.11 or later with its virtio and vhost drivers"

root=$("$(dirname "$0")/../debian/unpack.sh" dpdk dpdk-dev)
[ -x "$root/usr/bin/dpdk-testpmd" ] || fail "dpdk-testpmd is missing below $root: remove that folder and run this again"
print_from "$root" "$root/usr/bin/dpdk-testpmd"
