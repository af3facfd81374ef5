#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# The environment has what the other guest scripts need: kernel modules, the servers, a reference
# client over each transport, file systems, network emulation. Nothing of this project is tested.

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

attached() { [[ -e /sys/block/${1#/dev/}/pid ]]; }
detached() { ! attached "$1"; }

# use_device DEVICE: a file system holds a file over an umount.
use_device() {
	mkfs.ext4 -q -F "$1" || return
	mount "$1" /mnt || return
	seq 100000 >/mnt/file || return
	umount /mnt || return
	mount -o ro "$1" /mnt || return
	seq 100000 | cmp - /mnt/file || return
	umount /mnt
}

# round_trip TEXT DEVICE SIZE nbd-client arguments...
round_trip() {
	local text=$1 dev=$2 size=$3

	shift 3
	t "$text: attach" nbd-client "$@" "$dev" -b 512
	t "$text: connected" wait_for 5 attached "$dev"
	t "$text: size" test "$(blockdev --getsize64 "$dev")" = "$size"
	t "$text: file system" use_device "$dev"
	t "$text: detach" nbd-client -d "$dev"
	t "$text: detached" wait_for 5 detached "$dev"
}

diag "kernel $(uname -r), $(date -u +%FT%TZ)"
dmesg_mark

t "modprobe nbd" modprobe nbd nbds_max=8
t "modprobe tls" modprobe tls
t "modprobe sch_netem" modprobe sch_netem
t "/dev/nbd0 is there" test -b /dev/nbd0
t "IPv6 on lo" grep -q '^0\{31\}1 ' /proc/net/if_inet6
t "random numbers without waiting" timeout 5 head -c 32 /dev/random
t "/dev/fd" bash -c 'cmp <(echo a) <(echo a)'
t "the output directory can be written" cp /proc/version "$OUTDIR/"
t "the root can be written" touch /usr/bin/smoke
t "/tmp was empty" test ! -e /tmp/systemd-private-*

make_disk /tmp/disk 64M
size=$((64 << 20))

t "nbdkit" serve_nbdkit 10809 memory "$size"
round_trip "nbdkit, IPv4" /dev/nbd0 $size 127.0.0.1 10809 -N ''
round_trip "nbdkit, IPv6" /dev/nbd0 $size ::1 10809 -N ''
t "nbdkit stops" stop_server nbdkit:10809
t_fails 1 "nobody listens any more" tcp_listening 10809

t "nbdkit on a Unix socket" serve_nbdkit_unix /tmp/socket file /tmp/disk
round_trip "nbdkit, Unix" /dev/nbd1 $size -unix /tmp/socket -N ''
t "nbdkit stops" stop_server "$SERVER"

t "qemu-nbd" serve_qemu 10810 /tmp/disk -x disk
round_trip "qemu-nbd, IPv4" /dev/nbd2 $size 127.0.0.1 10810 -N disk
t "qemu-nbd stops" stop_server qemu-nbd:10810
t "qemu-nbd on IPv6" serve_qemu 10810 /tmp/disk -x disk -b ::1
round_trip "qemu-nbd, IPv6" /dev/nbd2 $size ::1 10810 -N disk
t "qemu-nbd stops" stop_server qemu-nbd:10810

t "nbd-server" serve_nbdserver 10811 disk=/tmp/disk other=/tmp/disk,readonly=true
round_trip "nbd-server, IPv4" /dev/nbd3 $size 127.0.0.1 10811 -N disk
round_trip "nbd-server, IPv6" /dev/nbd3 $size ::1 10811 -N disk
t "nbd-server, read-only export" nbd-client 127.0.0.1 10811 /dev/nbd3 -N other -b 512
t "nbd-server, the device is read-only" grep -qx 1 /sys/block/nbd3/ro
t "nbd-server, detach" nbd-client -d /dev/nbd3
t "nbd-server is killed" stop_server nbd-server:10811 KILL

t "network namespace" ip netns add far
t "veth pair" ip link add near0 type veth peer name far0 netns far
t "netem" tc qdisc add dev near0 root netem delay 10ms loss 1%
t "no namespace is left" ip netns delete far

t "no errors in the kernel's log" no_kernel_errors
finish
