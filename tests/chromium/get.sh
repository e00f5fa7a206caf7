#!/usr/bin/env bash
# Prints where Chromium is, as lines NAME=VALUE: its program, and where it is not installed the folders of its libraries, with
# colons between, and of fonts.
#
# An installed one is taken as it is. Else, on Debian and what derives from it, its packages are fetched once, and not installed.
set -euo pipefail

if command -v chromium >/dev/null; then
    printf 'program=%s\n' "$(command -v chromium)"
    exit
fi
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || {
    printf 'Chromium: missing: chromium (the browser in which the page is tested): install Chromium\n' >&2
    exit 1
}
root=$("$(dirname "$0")/../debian/unpack.sh" chromium chromium)
# Past the package's own script, which looks for the program where it would be installed.
program=$root/usr/lib/chromium/chromium
[ -x "$program" ] || {
    printf 'Chromium: %s is missing: remove %s and run this again\n' "$program" "$root" >&2
    exit 1
}
printf 'program=%s\n' "$program"
printf 'libraries=%s\n' "$(find "$root/usr/lib" "$root/lib" -name 'lib*.so*' -printf '%h\n' 2>/dev/null | sort -u | paste -sd:)"
printf 'fonts=%s\n' "$root/usr/share/fonts"
