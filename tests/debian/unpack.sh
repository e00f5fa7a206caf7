#!/usr/bin/env bash
# Prints the folder into which a package of this distribution, Debian or what derives from it, is unpacked with all that it
# depends on and that is not installed, or by itself with --alone.
#
# It is fetched once from the distribution's own mirrors into $XDG_CACHE_HOME/virtnet (else ~/.cache/virtnet). Nothing is
# installed: that would start daemons on this machine, and needs root.
#
#     unpack.sh [--alone] FOLDER PACKAGE      FOLDER: below the cache
set -euo pipefail

alone=
if [ "$1" = --alone ]; then
    alone=yes
    shift
fi
cache=${XDG_CACHE_HOME:-$HOME/.cache}/virtnet/$1
package=$2

fail() {
    printf '%s: %s\n' "$package" "$1" >&2
    exit 1
}

mkdir -p "$cache"
# Tests that run beside one another wait for one download.
exec 9>"$cache/.lock"
flock 9
root=$cache/root
if [ ! -e "$root/.complete" ]; then
    printf '%s: fetching the package, once\n' "$package" >&2
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
    packages=("$package")
    if [ -z "$alone" ]; then
        mapfile -t packages < <(apt-get "${options[@]}" install -s --no-install-recommends "$package" | awk '$1 == "Inst" { print $2 }')
        [ "${#packages[@]}" -gt 0 ] || fail "the distribution has no such package"
    fi
    (cd "$scratch/archives" && apt-get "${options[@]}" download "${packages[@]}") >"$scratch/log" 2>&1 || {
        cat "$scratch/log" >&2
        fail "it could not be fetched"
    }
    for file in "$scratch"/archives/*.deb; do
        dpkg-deb -x "$file" "$scratch/root"
    done
    touch "$scratch/root/.complete"
    rm -rf "$root"
    mv "$scratch/root" "$root"
fi
printf '%s\n' "$root"
