#!/usr/bin/env bash
# Prints the path of promtool: an installed one, or that of Debian's package, which is fetched once and not installed.
set -euo pipefail

if command -v promtool; then
    exit
fi
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || {
    printf 'Prometheus: missing: promtool (which tests the alerts): install Prometheus\n' >&2
    exit 1
}
root=$("$(dirname "$0")/../debian/unpack.sh" --alone prometheus prometheus)
printf '%s\n' "$root/usr/bin/promtool"
