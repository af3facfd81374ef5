#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
# timeout: 600
#
# The partitions of an export are there when the attach returns and gone when the detach returns,
# without udev and with it. With udev each appears once, and links to it do not come and go.

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

dev=/dev/nbd0
name=nbd0
uuid=3f9a52d4-76c1-4f0e-9d3b-0c5c1d2e7a11

# partitions_are NAME...: exactly these, in sysfs and in /dev, now.
partitions_are() {
	local have=() nodes=() path

	for path in "/sys/block/$name/$name"p*; do
		[[ -e $path ]] && have+=("${path##*/}")
	done
	for path in "$dev"p*; do
		[[ -b $path ]] && nodes+=("${path##*/}")
	done
	[[ "${have[*]}" == "$*" && "${nodes[*]}" == "$*" ]] && return
	echo "in sysfs: ${have[*]}; in /dev: ${nodes[*]}"
	return 1
}

# attach_and_look ARG... -- NAME...: what is there when the command is over, before anything else runs.
attach_and_look() {
	local args=()

	while [[ $1 != -- ]]; do
		args+=("$1")
		shift
	done
	shift
	"$NBD_ATTACH" "${args[@]}" "$dev" || return
	partitions_are "$@"
}

detach_and_look() {
	"$NBD_ATTACH" -d "$dev" || return
	partitions_are
}

use_partition() {
	mkfs.ext4 -q -F -U "$uuid" "$1" && mount "$1" /mnt || return
	seq 10000 >/mnt/file || return
	umount /mnt
}

holds_file() {
	mount -o ro "$1" /mnt || return
	seq 10000 | cmp - /mnt/file || return
	umount /mnt
}

has_sectors() {
	local have

	have=$(<"/sys/class/block/$1/size")
	[[ $have == "$2" ]] || { echo "$have sectors"; return 1; }
}

[[ -n ${NBD_ATTACH:-} ]] || bail 'NBD_ATTACH is not set'
diag "kernel $(uname -r)"
dmesg_mark
make_disk /tmp/gpt 32M
make_disk /tmp/mbr 32M
make_disk /tmp/plain 32M
t "a GPT is made" sfdisk -q /tmp/gpt <<<$'label: gpt\nsize=8M\nsize=16M\n'
t "an MBR with a logical partition is made" \
	sfdisk -q /tmp/mbr <<<$'label: dos\nmbr1: size=8M\nmbr2: size=16M, type=5\nmbr5: size=4M\n'
t "a server serves all of them" \
	serve_nbdserver 10809 gpt=/tmp/gpt mbr=/tmp/mbr plain=/tmp/plain gpt-ro=/tmp/gpt,readonly=true
t "modprobe nbd" modprobe nbd nbds_max=4

# Without udev nobody but nbd-attach opens the device.
t "GPT: partitions are there when the attach returns" \
	attach_and_look localhost gpt -- nbd0p1 nbd0p2
t "GPT: the second one has its size" has_sectors nbd0p2 32768
t "GPT: a partition holds a file" use_partition ${dev}p2
t "GPT: mount a partition" mount ${dev}p2 /mnt
t_fails 7 "GPT: no detach while a partition is mounted" "$NBD_ATTACH" -d $dev
t_says "the error says where it is mounted" 'nbd0.* in use: .*mount.*/mnt'
t "GPT: the mounted partition still works" cp -r /mnt/file /mnt/copy
t "GPT: partitions are still there" partitions_are nbd0p1 nbd0p2
t "GPT: umount" umount /mnt
t "GPT: partitions are gone when the detach returns" detach_and_look

t "no partition table: no partitions, also after an export with some" \
	attach_and_look localhost plain --
t "no partition table: a file system on the whole" mkfs.ext4 -q -F $dev
t "no partition table: detach" detach_and_look
t "a file system on the whole: no partitions" attach_and_look localhost plain --
t "a file system on the whole: detach" detach_and_look

t "MBR: partitions are there when the attach returns" \
	attach_and_look localhost mbr -- nbd0p1 nbd0p2 nbd0p5
t "MBR: the logical one has its size" has_sectors nbd0p5 8192
t "MBR: the logical one holds a file" use_partition ${dev}p5
t "MBR: partitions are gone when the detach returns" detach_and_look

t "the same export again: partitions are there" attach_and_look localhost gpt -- nbd0p1 nbd0p2
t "the same export again: the file is there" holds_file ${dev}p2
t "the same export again: detach" detach_and_look

t "read-only: partitions are there" attach_and_look -r localhost gpt -- nbd0p1 nbd0p2
t "read-only: so are the partitions" grep -qx 1 /sys/block/$name/nbd0p1/ro
t_fails 1 "read-only: a partition cannot be written" \
	dd if=/dev/zero of=${dev}p1 bs=4k count=1 oflag=direct
t "read-only: detach" detach_and_look
t "read-only by the server: partitions are there" \
	attach_and_look localhost gpt-ro -- nbd0p1 nbd0p2
t "read-only by the server: the file is there" holds_file ${dev}p2
t "read-only by the server: detach" detach_and_look

# nbd-client's process keeps a device that it set up by ioctl until a moment after its end.
t "nbd-client by ioctl: attach" nbd-client -nonetlink localhost 10809 $dev -N gpt -b 512
t "nbd-client by ioctl: partitions appear" wait_for 20 partitions_are nbd0p1 nbd0p2
t "nbd-client by ioctl: partitions are gone when the detach returns" detach_and_look
t "nbd-client by ioctl: it has no size any more" has_sectors nbd0 0
t "no errors in the kernel's log" no_kernel_errors

# With udev, the host's rules and the kernel's events counted.

link=/dev/disk/by-uuid/$uuid

# start_monitor, stop_monitor: $events are the lines of the kernel's and of udev's events meanwhile.
start_monitor() {
	udevadm monitor --kernel --udev --subsystem-match=block >/tmp/monitor 2>&1 &
	monitor=$!
	# its heading, which it prints when it listens to both
	wait_for 20 grep -q '^KERNEL - ' /tmp/monitor
}
monitor_has() {
	grep -q "^UDEV .*$1" /tmp/monitor
}
stop_monitor() {
	local status=0

	udevadm settle -t 60 || status=1
	# Its own output comes after what settle waits for.
	wait_for 20 monitor_has "$1" || status=1
	kill "$monitor"
	wait "$monitor" 2>/dev/null
	return "$status"
}

# events SOURCE ACTION NAME: how many of them.
events() {
	grep -c "^$1 *\[[0-9.]*\] *$2 .*/$3 (block)" /tmp/monitor
}
events_are() {
	local count

	count=$(events "$1" "$2" "$3")
	[[ $count == "$4" ]] || { echo "$count times"; cat /tmp/monitor; return 1; }
}
last_event_is() {
	[[ $(grep '^KERNEL\[' /tmp/monitor | tail -n 1) =~ $1 ]] || { cat /tmp/monitor; return 1; }
}
link_leads() {
	[[ $(readlink -f "$link") == "$1" ]] || { ls -l "${link%/*}"; return 1; }
}

if ! start_udevd >/tmp/udevd.out 2>&1; then
	diag "$(</tmp/udevd.out)"
	skip "with udev" "udevd does not run here"
	t "no errors in the kernel's log" no_kernel_errors
	finish
fi

t "udev: the monitor runs" start_monitor
t "udev: partitions are there when the attach returns" \
	attach_and_look localhost gpt -- nbd0p1 nbd0p2
t "udev: it has seen all" stop_monitor 'nbd0p2 '
t "udev: a link by UUID leads to the partition" link_leads ${dev}p2
for event in 'add nbd0p1' 'add nbd0p2'; do
	# shellcheck disable=SC2086 # two words
	t "udev: the attach makes one event \"$event\"" events_are KERNEL $event 1
	# shellcheck disable=SC2086
	t "udev: it is handled once" events_are UDEV $event 1
done
for event in 'remove nbd0p1' 'remove nbd0p2' 'change nbd0p1' 'change nbd0p2' 'add nbd0'; do
	# shellcheck disable=SC2086
	t "udev: the attach makes no event \"$event\"" events_are KERNEL $event 0
done
# The kernel announces the size, then the table as it reads it. Whoever closes the device after
# writing makes udev ask for one more event, and for the table to be read once more.
t "udev: the attach makes no event after those of the partitions" last_event_is 'add .*nbd0p[12] '
t "udev: mount by UUID" mount UUID=$uuid /mnt
t "udev: the file is there" cmp <(seq 10000) /mnt/file
t_fails 7 "udev: no detach while it is mounted" "$NBD_ATTACH" -d $dev
t "udev: umount" umount /mnt
t "udev: settle" udevadm settle -t 60

t "udev: the monitor runs" start_monitor
t "udev: partitions are gone when the detach returns" detach_and_look
t "udev: it has seen all" stop_monitor 'remove .*nbd0p2 '
t "udev: the link by UUID is gone" test ! -e $link
for event in 'remove nbd0p1' 'remove nbd0p2'; do
	# shellcheck disable=SC2086
	t "udev: the detach makes one event \"$event\"" events_are KERNEL $event 1
done
for event in 'add nbd0p1' 'add nbd0p2'; do
	# shellcheck disable=SC2086
	t "udev: the detach makes no event \"$event\"" events_are KERNEL $event 0
done

# udev opens the device after each event: neither command may fail for that.
hurry() {
	local i

	for i in 1 2 3 4 5 6; do
		"$NBD_ATTACH" localhost gpt "$dev" || { echo "attach $i"; return 1; }
		"$NBD_ATTACH" -d "$dev" || { echo "detach $i"; return 1; }
		partitions_are || { echo "after detach $i"; return 1; }
	done
}
t "udev: attach and detach six times in a hurry" hurry
t "udev: settle" udevadm settle -t 60
t "udev: no partition is left" partitions_are
t "udev: no link is left" test ! -e $link
t "no errors in the kernel's log" no_kernel_errors

finish
