#!/usr/bin/env bash
# Puts the recorded statuses to those who wait for them, and compares what they say with verdicts.yaml. Arguments go to
# `go test`; with -v each phase is printed. The Go modules that go.mod pins are fetched and built once, by Go's own caches.
set -euo pipefail
cd "$(dirname "$0")"

fail() {
    printf 'kstatus: %s\n' "$1" >&2
    exit 1
}

needed_go=$(awk '$1 == "go" { print $2 }' go.mod)
command -v go >/dev/null || fail "missing: go (judges the recorded statuses): install Go $needed_go or later"
found_go=$(go env GOVERSION)
found_go=${found_go#go}
[ "$(printf '%s\n' "$needed_go" "$found_go" | sort -V | head -n 1)" = "$needed_go" ] ||
    fail "go is $found_go, and $needed_go or later is needed: install that"
# Go does not see that a file outside the module has changed, so that what it remembers of a test is not asked.
GOTOOLCHAIN=local GOFLAGS=-mod=readonly CGO_ENABLED=0 exec go test -count=1 "$@" ./...
