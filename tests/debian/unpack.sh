#!/usr/bin/env bash
# Prints the folder into which packages of this distribution, Debian or what derives from it, are unpacked with all that they
# depend on and that is not installed, or by themselves with --alone.
#
# They are fetched once from the distribution's own mirrors into $XDG_CACHE_HOME/virtnet (else ~/.cache/virtnet). Nothing is
# installed: that would start daemons on this machine, and needs root.
#
# With --suite they come from that suite of Debian, whatever this machine has, and with all that they depend on down to the C
# library: programs of a later suite run by that one's loader alone. Of backports the suite below them is there too.
#
#     unpack.sh [--alone] [--suite SUITE] FOLDER PACKAGE...      FOLDER: below the cache
set -euo pipefail

alone=
suite=
while true; do
    case $1 in
    --alone) alone=yes && shift ;;
    --suite) suite=$2 && shift 2 ;;
    *) break ;;
    esac
done
cache=${XDG_CACHE_HOME:-$HOME/.cache}/virtnet/$1
shift
wanted=("$@")

fail() {
    printf '%s: %s\n' "${wanted[*]}" "$1" >&2
    exit 1
}

mkdir -p "$cache"
# Tests that run beside one another wait for one download.
exec 9>"$cache/.lock"
flock 9
root=$cache/root
contents="${suite:+$suite: }${wanted[*]}"
# Of one that is older than its list of contents no more is known than that it is complete.
if [ ! -e "$root/.complete" ] || { [ -s "$root/.complete" ] && [ "$(<"$root/.complete")" != "$contents" ]; }; then
    printf '%s: fetching the packages, once\n' "${wanted[*]}" >&2
    scratch=$(mktemp -d "$cache/.fetching-XXXXXX")
    trap 'rm -rf "$scratch"' EXIT
    mkdir -p "$scratch/lists/partial" "$scratch/archives/partial" "$scratch/root"
    # The machine's own lists of packages may be old or absent, and are not ours to write.
    options=(-q -o "Dir::State::Lists=$scratch/lists" -o "Dir::Cache=$scratch" -o "Dir::Cache::archives=$scratch/archives"
        -o Debug::NoLocking=1 -o APT::Sandbox::User=)
    if [ -n "$suite" ]; then
        keys=/usr/share/keyrings/debian-archive-keyring.gpg
        [ -e "$keys" ] || fail "missing: $keys (by it $suite of Debian is known): install debian-archive-keyring"
        # Where this machine has its own suite from, the others are too.
        mirror=$(apt-get --print-uris update | sed -nE "s,^'(.+)/dists/[^/ ]+/InRelease' .*,\1,p" | awk '!/-security$/ && !found++')
        [ -n "$mirror" ] || fail "this machine has no mirror of Debian in its apt sources"
        for each in "${suite%-backports}" "$suite"; do
            printf 'deb [signed-by=%s] %s %s main\n' "$keys" "$mirror" "$each"
        done | sort -u >"$scratch/sources.list"
        # Nothing counts as installed, and the wanted suite comes first.
        touch "$scratch/status"
        options+=(-o "Dir::Etc::sourcelist=$scratch/sources.list" -o Dir::Etc::sourceparts=/dev/null
            -o Dir::Etc::preferencesparts=/dev/null -o Dir::Etc::preferences=/dev/null
            -o "Dir::State::status=$scratch/status" -o "APT::Default-Release=$suite"
            # Else an index that can't be had is but a warning.
            -o APT::Update::Error-Mode=any)
    fi
    apt-get "${options[@]}" update >"$scratch/log" 2>&1 || {
        cat "$scratch/log" >&2
        fail "the lists of packages could not be fetched"
    }
    packages=("${wanted[@]}")
    if [ -z "$alone" ]; then
        apt-get "${options[@]}" install -s --no-install-recommends "${wanted[@]}" >"$scratch/log" 2>&1 || {
            cat "$scratch/log" >&2
            fail "the distribution has no such package, or none that goes with what it has"
        }
        mapfile -t packages < <(awk '$1 == "Inst" { print $2 }' "$scratch/log")
        [ "${#packages[@]}" -gt 0 ] || fail "the distribution has no such package"
    fi
    (cd "$scratch/archives" && apt-get "${options[@]}" download "${packages[@]}") >"$scratch/log" 2>&1 || {
        cat "$scratch/log" >&2
        fail "it could not be fetched"
    }
    for file in "$scratch"/archives/*.deb; do
        dpkg-deb -x "$file" "$scratch/root"
    done
    printf '%s\n' "$contents" >"$scratch/root/.complete"
    rm -rf "$root"
    mv "$scratch/root" "$root"
fi
printf '%s\n' "$root"
