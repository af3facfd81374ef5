#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# A detach loses no data and takes nothing away from anybody, unless it is forced to. Servers that
# fall silent have a script of their own.

# timeout: 900

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../hostile/lib.sh
. "${BASH_SOURCE[0]%/*}/../hostile/lib.sh"

# refused TEXT REGEX: a detach of nbd0, which stays as it is
refused() {
	t_fails 7 "$1: refused" "$A" --detach nbd0
	t_says "$1: the user is named" "nbd0 is in use: $2; --force"
	t "$1: it stays attached" attached nbd0
}

# attach nbdN PORT [OPTION]...
attach() {
	local device=$1 port=$2

	shift 2
	t "attach $device" "$A" "$@" "127.0.0.1:$port" disk "$device"
}

gone() { detached "$1" && [[ ! -e /run/nbd-attach/$1 ]]; }
node_gone() { [[ ! -e /dev/$1 ]]; }
claimable() { "$A" --detach "$1"; }
same_content() { cmp -n "$3" "$1" "$2"; }

# hold DEVICE: a process has it open, its pid goes into $HOLDER
hold() {
	(
		exec 9<"/dev/$1" sleep 1000
	) &
	HOLDER=$!
	wait_for 10 test -e "/proc/$HOLDER/fd/9"
}
release() {
	kill "$HOLDER"
	wait "$HOLDER" 2>/dev/null
	return 0
}

statuses() {
	local status list=''

	for name; do
		read -r status _ <"/tmp/background/$name.status"
		list+=" $status"
	done
	echo "exit statuses:$list"
	[[ $list == *' 0'* && $list != *' 0'*' 0'* ]]
}

head -c 8M /dev/urandom >/tmp/data
for disk in /tmp/disk{0,4,5,6}; do
	make_disk "$disk" 48M
done
t "modprobe nbd" modprobe nbd nbds_max=8 max_part=15
dmesg_mark

t "nbdkit" serve_nbdkit 10800 file /tmp/disk0
fastest=100000
for _ in 1 2 3; do
	attach nbd0 10800
	t "detach" took "$A" --detach nbd0
	t "it is gone when the command returns" gone nbd0
	((TOOK >= fastest)) || fastest=$TOOK
done
TOOK=$fastest
t "an idle device takes no time worth mentioning" took_from_to 0 4000
t_fails 8 "a free device" "$A" --detach nbd0
t_says "a free device: says so" 'nbd0 is not attached'

t "nbdkit with a cache that wants flushing" serve_nbdkit 10804 --filter=cache file /tmp/disk4
attach nbd0 10804
t "a program writes and does not sync" \
	dd if=/tmp/data of=/dev/nbd0 bs=1M count=8 conv=notrunc
t_fails 1 "not all of it is on the server's disk" same_content /tmp/data /tmp/disk4 $((8 << 20))
t "detach" "$A" --detach nbd0
t "the server is killed" stop_server nbdkit:10804 KILL
t "all of it is on the server's disk" same_content /tmp/data /tmp/disk4 $((8 << 20))

# --- users ---------------------------------------------------------------------------------------

attach nbd0 10800
t "a file system" mkfs.ext4 -q -F /dev/nbd0
t "mounted" mount /dev/nbd0 /mnt
refused "mounted" 'mounted on /mnt'
attach nbd4 10800 --allow-overlap
attach nbd5 10800 --allow-overlap
t_fails 7 "several, one of which is mounted" "$A" --detach nbd4 nbd0 nbd5
t "the one before it is detached" gone nbd4
t "the one after it is detached" gone nbd5
t "the mounted one works" touch /mnt/file
attach nbd4 10800 --allow-overlap
t_fails 8 "several, the first not attached, another mounted: the first failure counts" \
	"$A" --detach nbd5 nbd0 nbd4
t_says "the first failure is told" 'nbd5 is not attached'
t_says "and so is the second" 'nbd0 is in use: mounted on /mnt'
t "the third is detached" gone nbd4
t "unmounted" umount /mnt

# shellcheck disable=SC2016 # another shell's
unshare -m bash -c 'mount /dev/nbd0 /mnt && : >/tmp/mounted && exec sleep 1000' &
other=$!
t "mounted in another mount namespace" wait_for 10 test -e /tmp/mounted
refused "mounted in another mount namespace" 'mounted in another namespace, or held by the kernel'
kill $other
wait $other 2>/dev/null

t "a process has it open for reading" wait_for 10 hold nbd0
refused "open" "open in process $HOLDER \\(sleep\\)"
release

t "swap space" mkswap /dev/nbd0
t "in use" swapon /dev/nbd0
refused "swap" 'used as swap'
t "not in use" swapoff /dev/nbd0

if command -v dmsetup >/dev/null && modprobe dm-mod; then
	t "a device mapper device" dmsetup create --noudevsync held --table '0 2048 linear /dev/nbd0 0'
	refused "device mapper" 'held by dm-0'
	t "no device mapper device" dmsetup remove --noudevsync held
else
	skip "held by a device mapper device" "no dmsetup here"
fi
t "modprobe loop" modprobe loop
t "a loop device" losetup /dev/loop0 /dev/nbd0
refused "loop device" 'used by loop0'
t "no loop device" losetup -d /dev/loop0
t "nobody uses it any more" wait_for 10 claimable nbd0
t "it is gone" gone nbd0

t "a partition table" sfdisk -q /tmp/disk5 <<<'1M,16M,L
17M,16M,L'
t "nbdkit" serve_nbdkit 10805 file /tmp/disk5
attach nbd0 10805
t "the partitions are there when attach returns" test -b /dev/nbd0p2
t "a file system in a partition" mkfs.ext4 -q -F /dev/nbd0p2
t "mounted" mount /dev/nbd0p2 /mnt
refused "a mounted partition" 'mounted on /mnt'
t "unmounted" umount /mnt
t "detach" "$A" --detach nbd0
t "the partitions are gone when it returns" node_gone nbd0p1
t "both" node_gone nbd0p2

attach nbd0 10805
in_background one "$A" --detach nbd0
in_background two "$A" --detach nbd0
wait "${background_pids[one]}" "${background_pids[two]}"
t "of two at once one succeeds" statuses one two
t "it is gone" gone nbd0

# --- forced, with users --------------------------------------------------------------------------

attach nbd0 10800
t "a file system" mkfs.ext4 -q -F /dev/nbd0
t "mounted" mount /dev/nbd0 /mnt
t "force, mounted" took "$A" --detach --force nbd0
t_says "force, mounted: that it stays is said" 'stays until its users close it'
t "force, mounted: within the time limit" took_from_to 0 20000
t "force, mounted: no record is left" test ! -e /run/nbd-attach/nbd0
t_fails 1 "force, mounted: its user cannot read" stat /mnt/file
t_says "force, mounted: its user gets an I/O error" 'Input/output error'
umount /mnt
t "it is gone when its user is" wait_for 5 gone nbd0
attach nbd0 10800
t "a process has it open" wait_for 10 hold nbd0
t "force, open" took "$A" --detach --force nbd0
t_says "force, open: that it stays is said" 'stays until its users close it'
t "force, open: within the time limit" took_from_to 0 20000
release
t "it is gone when its user is" wait_for 5 gone nbd0

# --- attached by others --------------------------------------------------------------------------

t "nbd-client attaches by netlink" nbd-client 127.0.0.1 10800 -N disk /dev/nbd0 -b 512
t "detach" "$A" --detach nbd0
t "it is gone" gone nbd0
t "nbd-client attaches by ioctl" nbd-client -nonetlink 127.0.0.1 10800 -N disk /dev/nbd0 -b 512
t "it is attached" wait_for 10 attached nbd0
t "detach" "$A" --detach nbd0
t "it is gone" gone nbd0
t "nbd-client has ended" wait_for 5 no_process nbd-client

# --- dead servers --------------------------------------------------------------------------------

# What the server has acknowledged and not flushed may be lost, so this is worth an error.
t "nbdkit" serve_nbdkit 10806 file /tmp/disk6
attach nbd0 10806 --no-supervise
attach nbd4 10806 -r --no-supervise
t "the server is killed" stop_server nbdkit:10806 KILL
t_fails 1 "dead server: refused, for the flush fails" took "$A" --detach nbd0
t_says "dead server: --force is named" 'flush nbd0 .*--force.*Input/output error'
t "dead server: within the time limit" took_from_to 0 35000
t "dead server: it stays attached" attached nbd0
t_fails 1 "dead server: data becomes dirty" dd if=/tmp/data of=/dev/nbd0 bs=4096 count=4 conv=fsync
t_fails 1 "dead server, dirty data: refused" "$A" --detach nbd0
t "dead server, dirty data: force" took "$A" --detach --force nbd0
t_says "dead server, dirty data: the loss is said" 'without a flush.*lost'
t "dead server, dirty data: within the time limit" took_from_to 0 20000
t "dead server, dirty data: it is gone" gone nbd0
t "dead server, read-only: no force is needed" "$A" --detach nbd4
t "dead server, read-only: it is gone" gone nbd4

t "nothing is left" nothing_left
t "after all that a device works" "$A" 127.0.0.1:10800 disk nbd0
t "and is detached" "$A" --detach nbd0
# Its supervisor cannot end.
t "one more nbdkit" serve_nbdkit 10809 memory 8M
t "attach" "$A" 127.0.0.1:10809 '' nbd0
supervisor=$("$A" --list -n -O SUPERVISOR nbd0 | tr -d ' ')
kill -STOP "$supervisor"
t "a stopped supervisor" took "$A" --detach nbd0
t "a stopped supervisor: not waited for for ever" took_from_to 0 25000
t "a stopped supervisor: detached" gone nbd0
kill -CONT "$supervisor"
t "it ends when it goes on" wait_for 20 no_process "$OURS"

t "the kernel has survived it" kernel_survived
finish
