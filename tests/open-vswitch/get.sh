#!/usr/bin/env bash
# Prints where Open vSwitch is, as lines NAME=PATH: its programs, its schema, and the folder of its libraries (empty: the
# system's own).
#
# An installed one is taken as it is. Else, on Debian and what derives from it, its packages are fetched once, and not installed.
set -euo pipefail

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

root=$("$(dirname "$0")/../debian/unpack.sh" open-vswitch openvswitch-switch)
libraries=$(dirname "$(find "$root" -name 'lib*.so*' -print -quit)")
print_from "$root" "$libraries"
