#!/usr/bin/env bash
# Prints where etcd, kube-apiserver and kube-controller-manager are, a line each, having built those that were not there.
#
# What KUBEBUILDER_ASSETS holds is taken as it is. The rest is built from the Go modules that go.mod beside this pins, once
# for each content of go.mod and go.sum, into $XDG_CACHE_HOME/virtnet/control-plane (else ~/.cache): 2 GB of Go's own caches
# and some minutes the first time.
set -euo pipefail
cd "$(dirname "$0")"

needed_go=$(awk '$1 == "go" { print $2 }' go.mod)
kubernetes=$(awk '$1 == "k8s.io/kubernetes" { print $2 }' go.mod)
pinned=$(cat go.mod go.sum | sha256sum | cut -c1-12)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/virtnet/control-plane/$kubernetes-$pinned

fail() {
    printf 'control plane: %s\n' "$1" >&2
    exit 1
}

check_go() {
    command -v go >/dev/null || fail "missing: go (builds the API server of the tests): install Go $needed_go or later, or set KUBEBUILDER_ASSETS"
    local found
    found=$(go env GOVERSION)
    found=${found#go}
    if [ "$(printf '%s\n' "$needed_go" "$found" | sort -V | head -n 1)" != "$needed_go" ]; then
        fail "go is $found, and $needed_go or later is needed: install that, or set KUBEBUILDER_ASSETS"
    fi
}

build() { # name, package
    check_go
    printf 'control plane: building %s %s, once\n' "$1" "$kubernetes" >&2
    local minor=${kubernetes#v1.}
    local version=k8s.io/component-base/version
    local scratch
    scratch=$(mktemp -d "$cache/.building-XXXXXX")
    # shellcheck disable=SC2064 # the folder of now is meant
    trap "rm -rf '$scratch'" EXIT
    GOTOOLCHAIN=local GOFLAGS=-mod=readonly CGO_ENABLED=0 go build -trimpath -o "$scratch/$1" -ldflags \
        "-s -w -X $version.gitVersion=$kubernetes -X $version.gitMajor=1 -X $version.gitMinor=${minor%%.*}" "$2" >&2
    mv "$scratch/$1" "$cache/$1"
    rmdir "$scratch"
    trap - EXIT
}

provide() { # name, package
    if [ -x "${KUBEBUILDER_ASSETS:-/nowhere}/$1" ]; then
        printf '%s\n' "$KUBEBUILDER_ASSETS/$1"
        return
    fi
    [ -x "$cache/$1" ] || build "$1" "$2"
    printf '%s\n' "$cache/$1"
}

mkdir -p "$cache"
# Tests that run beside one another wait for one build.
exec 9>"$cache/.lock"
flock 9
provide etcd go.etcd.io/etcd/server/v3
provide kube-apiserver k8s.io/kubernetes/cmd/kube-apiserver
provide kube-controller-manager k8s.io/kubernetes/cmd/kube-controller-manager
