#!/usr/bin/env bash
# Prints where QEMU is, as lines NAME=VALUE: its program, and where it is not installed the loader that runs it, its libraries
# and the folders of its firmware, with colons between. Version 11.1 or later: earlier ones know no VFs of virtio-net.
#
# An installed one that is new enough is taken as it is. Else, on Debian and what derives from it, that of Debian's backports is
# fetched once with its libraries, and not installed.
set -euo pipefail

suite=trixie-backports
least=11.1
# The distribution's processors, as Debian and QEMU name them.
case $(uname -m) in
x86_64) package=qemu-system-x86 program=qemu-system-x86_64 loader=usr/lib64/ld-linux-x86-64.so.2 ;;
*) printf 'QEMU: the guests of the tests are x86_64, this machine is %s\n' "$(uname -m)" >&2 && exit 1 ;;
esac

fail() {
    printf 'QEMU: %s\n' "$1" >&2
    exit 1
}

if installed=$(command -v "$program"); then
    version=$("$installed" --version | sed -nE '1s/.*version ([0-9]+\.[0-9]+).*/\1/p')
    if [ "$(printf '%s\n' "$least" "$version" | sort -V | head -n 1)" = "$least" ]; then
        printf 'program=%s\n' "$installed"
        exit
    fi
fi

command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
    fail "missing: $program $least or later (guests that tests drive functions from): install it"

root=$("$(dirname "$0")/../debian/unpack.sh" --suite "$suite" qemu "$package")
for file in "$root/usr/bin/$program" "$root/$loader"; do
    [ -e "$file" ] || fail "$file is missing: remove $root and run this again"
done
printf 'program=%s\n' "$root/usr/bin/$program"
printf 'loader=%s\n' "$root/$loader"
printf 'libraries=%s\n' "$(find "$root/usr/lib" -name 'lib*.so*' -printf '%h\n' | sort -u | paste -sd:)"
printf 'firmware=%s\n' "$root/usr/share/qemu:$root/usr/share/seabios"
printf 'modules=%s\n' "$(find "$root/usr/lib" -name 'accel-*.so' -printf '%h\n' -quit)"
