#!/usr/bin/env bash
# Prints where the guest of the tests is, as lines NAME=PATH: its kernel, and its initramfs, which has busybox, ip, ethtool and
# iperf3 and does what `init` beside this says.
#
# Debian's kernel and programs are fetched once and put together in $XDG_CACHE_HOME/virtnet (else ~/.cache/virtnet).
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
suite=trixie
cache=${XDG_CACHE_HOME:-$HOME/.cache}/virtnet
modules=(failover net_failover virtio_net)

fail() {
    printf 'the guest of the tests: %s\n' "$1" >&2
    exit 1
}

command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
    fail 'missing: apt-get and dpkg-deb (its kernel and programs are Debian packages): run on Debian or what derives from it'
root=$("$here/../debian/unpack.sh" --suite "$suite" guest linux-image-cloud-amd64 busybox-static iproute2 ethtool iperf3)

# What it is made of and by names it: one of another make is another file.
made_of=$({ find "$root/boot" -name 'vmlinuz-*'; cat "$here/init" "$here/build.sh"; } | sha256sum | cut -c 1-16)
initramfs=$cache/guest/initramfs-$made_of
kernel=$(find "$root/boot" -name 'vmlinuz-*' -print -quit)
[ -n "$kernel" ] || fail "$root has no kernel: remove that folder and run this again"

exec 9>"$cache/guest/.lock"
flock 9
if [ ! -e "$initramfs" ]; then
    scratch=$(mktemp -d "$cache/guest/.making-XXXXXX")
    trap 'rm -rf "$scratch"' EXIT
    tree=$scratch/tree
    mkdir -p "$tree"/{proc,sys,dev,tmp,run,bin,lib/modules,lib64,usr/bin,usr/sbin,usr/lib}
    busybox=$root/usr/bin/busybox
    cp "$busybox" "$tree/bin/busybox"
    for applet in $("$busybox" --list); do
        # It lists itself.
        [ "$applet" = busybox ] || ln -s busybox "$tree/bin/$applet"
    done
    programs=("$root/usr/bin/ip" "$root/usr/sbin/ethtool" "$root/usr/bin/iperf3")
    cp "${programs[@]}" "$tree/usr/bin/"
    # The libraries that they name, and those that these name: the loader itself tells, without running anything.
    loader=$(find "$root/usr/lib" -name 'ld-linux-x86-64.so.2' -print -quit)
    libraries=$(dirname "$loader")
    cp -L "$loader" "$tree/lib64/"
    for program in "${programs[@]}"; do
        "$loader" --library-path "$libraries" --list "$program" || fail "$program lacks a library"
    done | awk '$2 == "=>" { print $3 }' | sort -u | while read -r library; do
        cp -L "$library" "$tree/usr/lib/"
    done
    # The C library loads it by itself when a thread is cancelled, as iperf3 does.
    cp -L "$libraries/libgcc_s.so.1" "$tree/usr/lib/"
    for module in "${modules[@]}"; do
        file=$(find "$root/usr/lib/modules" -name "$module.ko*" -print -quit)
        case $file in
        *.xz) "$busybox" xz -dc "$file" >"$tree/lib/modules/$module.ko" ;;
        *.ko) cp "$file" "$tree/lib/modules/" ;;
        *) fail "the kernel's module $module is not there or of a kind not known: '$file'" ;;
        esac
    done
    cp "$here/init" "$tree/init"
    chmod +x "$tree/init"
    # Not compressed: an emulated processor takes longer to unpack it than to read it.
    (cd "$tree" && find . -print | sort | "$busybox" cpio -o -H newc -R 0:0) >"$scratch/initramfs" 2>"$scratch/log" || {
        cat "$scratch/log" >&2
        fail 'the initramfs could not be written'
    }
    mv "$scratch/initramfs" "$initramfs"
fi
printf 'kernel=%s\n' "$kernel"
printf 'initramfs=%s\n' "$initramfs"
