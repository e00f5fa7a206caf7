#!/usr/bin/env bash
# Names every tool that is needed and missing, one line each, and fails if there is one: of the tests, or of `make soft` alone.
#
#     prerequisites.sh [soft]
set -u
missing=0
of=${1:-tests}
need() { # command, what it is for, how to get it
    if ! command -v "$1" >/dev/null 2>&1; then
        printf 'missing: %s (%s): %s\n' "$1" "$2" "$3" >&2
        missing=1
    fi
}
need cargo 'builds everything' 'install Rust with rustup; rust-toolchain.toml names the version'
need cc 'links what cargo builds' 'it is in gcc'
need kubectl 'the API is tested with the real one, 1.32 or later' 'see https://kubernetes.io/docs/tasks/tools/'
need setpriv 'ends programs with the one that started them' 'it is in util-linux'
need nsenter 'starts the controller in a network namespace' 'it is in util-linux'
if [ "$of" = tests ]; then
    need ip 'sets up the netdevs of the tests' 'it is in iproute2'
    need unshare 'gives the controller service netdevs of its own' 'it is in util-linux'
    need mount 'the same' 'it is in mount'
    need script 'plays a terminal' 'it is in bsdutils'
    need systemd-analyze 'judges the systemd units' 'it is in systemd'
    need go 'builds the API server of the tests, once, and judges statuses' 'install Go 1.26 or later'
fi
if [ "$(id -u)" != 0 ]; then
    printf 'missing: root (makes network namespaces and TAPs): run as root, for instance in a container\n' >&2
    missing=1
fi
if [ ! -e /dev/net/tun ]; then
    printf 'missing: /dev/net/tun (representors without hardware are TAPs): modprobe tun\n' >&2
    missing=1
fi
exit "$missing"
