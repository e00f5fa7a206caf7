#!/usr/bin/env bash
# Prints where Open vSwitch is, as lines NAME=PATH: its programs, its schema, and the folder of its libraries (empty: the
# system's own).
#
# An installed one is taken as it is. Else, on Debian and what derives from it, its packages are fetched once from the
# distribution's own mirrors and unpacked into $XDG_CACHE_HOME/virtnet/open-vswitch (else ~/.cache). Nothing is installed:
# that would start daemons on this machine, and needs root.
set -euo pipefail

cache=${XDG_CACHE_HOME:-$HOME/.cache}/virtnet/open-vswitch
programs=(ovsdb-server ovs-vswitchd ovs-vsctl ovsdb-tool ovsdb-client ovs-appctl)

fail() {
    printf 'Open vSwitch: %s\n' "$1" >&2
    exit 1
}

# The folders of programs are not in everybody's PATH.
PATH=$PATH:/usr/sbin:/sbin

print_from() { # root of the file system that it is in, folder of libraries
    local program path
    for program in "${programs[@]}"; do
        path=
        # Debian's ovs-vswitchd is an alternative, a link that installing makes.
        for folder in "$1"/usr/sbin "$1"/usr/bin "$1"/usr/lib/openvswitch-switch; do
            [ -x "$folder/$program" ] && path=$folder/$program
        done
        [ -n "$path" ] || fail "$program is missing below $1: remove that folder and run this again"
        printf '%s=%s\n' "$program" "$path"
    done
    printf 'schema=%s\n' "$1/usr/share/openvswitch/vswitch.ovsschema"
    printf 'libraries=%s\n' "$2"
}

if command -v ovs-vswitchd >/dev/null && [ -e /usr/share/openvswitch/vswitch.ovsschema ]; then
    print_from '' ''
    exit
fi

command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
    fail "missing: ovs-vswitchd (the switch that tests run against): install Open vSwitch 2.15 or later"

mkdir -p "$cache"
# Tests that run beside one another wait for one download.
exec 9>"$cache/.lock"
flock 9
root=$cache/root
if [ ! -e "$root/.complete" ]; then
    printf 'Open vSwitch: fetching its packages, once\n' >&2
    scratch=$(mktemp -d "$cache/.fetching-XXXXXX")
    trap 'rm -rf "$scratch"' EXIT
    mkdir -p "$scratch/lists/partial" "$scratch/archives/partial" "$scratch/root"
    # The machine's own lists of packages may be old or absent, and are not ours to write.
    options=(-q -o "Dir::State::Lists=$scratch/lists" -o "Dir::Cache=$scratch" -o "Dir::Cache::archives=$scratch/archives"
        -o Debug::NoLocking=1 -o APT::Sandbox::User=)
    apt-get "${options[@]}" update >"$scratch/log" 2>&1 || {
        cat "$scratch/log" >&2
        fail "the lists of packages could not be fetched"
    }
    mapfile -t packages < <(apt-get "${options[@]}" install -s --no-install-recommends openvswitch-switch | awk '$1 == "Inst" { print $2 }')
    [ "${#packages[@]}" -gt 0 ] || fail "the distribution has no package openvswitch-switch"
    (cd "$scratch/archives" && apt-get "${options[@]}" download "${packages[@]}") >"$scratch/log" 2>&1 || {
        cat "$scratch/log" >&2
        fail "its packages could not be fetched"
    }
    for package in "$scratch"/archives/*.deb; do
        dpkg-deb -x "$package" "$scratch/root"
    done
    touch "$scratch/root/.complete"
    rm -rf "$root"
    mv "$scratch/root" "$root"
fi
libraries=$(dirname "$(find "$root" -name 'lib*.so*' -print -quit)")
print_from "$root" "$libraries"
