#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
# timeout: 600
#
# Kernels keep limits of a device from one attachment to the next. None of them reaches a server
# that does not fit it, whoever set it; devices that are in use meanwhile are left alone.

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

# queue_is DEVICE ATTRIBUTE VALUE
queue_is() {
	local have

	have=$(<"/sys/block/${1#/dev/}/queue/$2")
	[[ $have == "$3" ]] || { echo "$2 is $have"; return 1; }
}
set_queue() {
	echo "$3" >"/sys/block/${1#/dev/}/queue/$2" && queue_is "$1" "$2" "$3"
}

# What a limit that was left behind would turn into requests that the server does not know.

fill() { dd if=/tmp/noise of="$1" bs=1M oflag=direct conv=notrunc status=none; }
# only_zeros DEVICE: as the server has it, not the page cache.
only_zeros() {
	dd if="$1" bs=1M iflag=direct status=none | cmp -n 8388608 - /dev/zero
}
# A device without discard says so; an error of the server would be another one.
discard() {
	local said

	said=$(LC_ALL=C blkdiscard -f "$1" 2>&1) && return
	echo "$said"
	[[ $said == *"Operation not supported"* ]]
}
make_file_system() {
	mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0,discard "$1" &&
		mount -o discard "$1" /mnt && seq 100000 >/mnt/file && sync /mnt/file &&
		rm /mnt/file && fallocate -l 1M /mnt/room && fallocate -z -l 512K /mnt/room &&
		umount /mnt && e2fsck -fn "$1"
}

# use_all TEXT DEVICE: zeroing and discarding in all ways, each checked for what it has to do.
use_all() {
	t "$1: fill" fill "$2"
	t "$1: blkdiscard -z" blkdiscard -f -z "$2"
	t "$1: it reads as zeros" only_zeros "$2"
	t "$1: fill" fill "$2"
	t "$1: fallocate -z" fallocate -z -l 8M "$2"
	t "$1: it reads as zeros" only_zeros "$2"
	t "$1: fill" fill "$2"
	t "$1: blkdiscard makes no I/O error" discard "$2"
	t "$1: a file system that discards and zeroes" make_file_system "$2"
}

[[ -n ${NBD_ATTACH:-} ]] || bail 'NBD_ATTACH is not set'
diag "kernel $(uname -r)"
head -c 8388608 /dev/urandom >/tmp/noise
make_disk /tmp/bare 8M
t "modprobe nbd" modprobe nbd nbds_max=4
dmesg_mark
rich=nbd://localhost:10809/ bare=nbd://localhost:10810/ nozero=nbd://localhost:10811/
t "a server that knows every request" serve_nbdkit 10809 memory 8M
t "a server that knows reading and writing" \
	serve_nbdkit 10810 --filter=nozero split /tmp/bare
t "it has no flags for others" "$NBD_ATTACH" --info -O FLAGS -n $bare
t_says "it says so" '^ *HAS_FLAGS(,SEND_CACHE)?$'
t "a server without WRITE_ZEROES" serve_nbdkit 10811 --filter=nozero memory 8M

# Somebody else's device, in use and with limits of its own.
make_disk /tmp/others 16M
mkdir /tmp/mounted
mkfs.ext4 -q -F /tmp/others
t "a bystander: its server" serve_nbdkit 10814 file /tmp/others
t "a bystander: attach" "$NBD_ATTACH" localhost:10814 '' /dev/nbd3
t "a bystander: max_sectors_kb of its own" set_queue /dev/nbd3 max_sectors_kb 64
t "a bystander: write cache of its own" set_queue /dev/nbd3 write_cache "write through"
t "a bystander: mount" mount /dev/nbd3 /tmp/mounted
pid=$(</sys/block/nbd3/pid)
sequence=$(cat /sys/block/nbd3/diskseq 2>/dev/null)
seq 50000 >/tmp/mounted/file
bystander_untouched() {
	queue_is /dev/nbd3 max_sectors_kb 64 && queue_is /dev/nbd3 write_cache "write through" ||
		return
	[[ $(</sys/block/nbd3/pid) == "$pid" && $(</sys/block/nbd3/size) == 32768 ]] || return
	[[ $(cat /sys/block/nbd3/diskseq 2>/dev/null) == "$sequence" ]] || return
	sync /tmp/mounted/file || return
	echo 3 >/proc/sys/vm/drop_caches
	cmp /tmp/mounted/file <(seq 50000)
}

# Requests that the next server does not know.
round() {
	t "$1: an export that knows all" "$NBD_ATTACH" $rich "$2"
	t "$1: discard and zero there" blkdiscard -f -z "$2"
	t "$1: detach" "$NBD_ATTACH" -d "$2"
	t "$1: then one that does not" "$NBD_ATTACH" "$3" "$2"
	t "$1: no WRITE_ZEROES is left" queue_is "$2" write_zeroes_max_bytes 0
	use_all "$1" "$2"
	t "$1: detach" "$NBD_ATTACH" -d "$2"
}
round "same device" /dev/nbd0 $bare
t "no discard is left where TRIM is unknown" grep -qx 0 /sys/block/nbd0/queue/discard_max_bytes
round "another device" /dev/nbd1 $nozero
t "and back: an export that knows all" "$NBD_ATTACH" $rich /dev/nbd0
use_all "and back" /dev/nbd0
t "and back: detach" "$NBD_ATTACH" -d /dev/nbd0

# By another program: it leaves the same behind.
t "nbd-client attaches an export that knows all" nbd-client localhost 10809 /dev/nbd0 -N '' -b 4096
t "nbd-client detaches" nbd-client -d /dev/nbd0
t "after nbd-client: attach" "$NBD_ATTACH" $bare /dev/nbd0
t "after nbd-client: no WRITE_ZEROES is left" queue_is /dev/nbd0 write_zeroes_max_bytes 0
t "after nbd-client: blocks of 512 bytes" queue_is /dev/nbd0 minimum_io_size 512
t "after nbd-client: zero" blkdiscard -f -z /dev/nbd0
t "after nbd-client: it reads as zeros" only_zeros /dev/nbd0
t "after nbd-client: detach" "$NBD_ATTACH" -d /dev/nbd0

# Block sizes.
t "-b 4096: attach" "$NBD_ATTACH" -b 4096 $rich /dev/nbd0
t "-b 4096: so it is" queue_is /dev/nbd0 minimum_io_size 4096
t "-b 4096: detach" "$NBD_ATTACH" -d /dev/nbd0
t "-b 512 after it: attach" "$NBD_ATTACH" -b 512 $rich /dev/nbd0
for name in minimum_io_size logical_block_size physical_block_size; do
	t "-b 512 after it: $name" queue_is /dev/nbd0 $name 512
done
t "-b 512 after it: one sector is written" \
	dd if=/tmp/noise of=/dev/nbd0 bs=512 seek=1 count=1 oflag=direct conv=notrunc
t "-b 512 after it: detach" "$NBD_ATTACH" -d /dev/nbd0

# Limits that somebody wrote by hand.
t "by hand: attach" "$NBD_ATTACH" -t 5 $rich /dev/nbd0
planned=$(</sys/block/nbd0/queue/max_sectors_kb)
t "by hand: max_sectors_kb lowered" set_queue /dev/nbd0 max_sectors_kb 16
t "by hand: write through" set_queue /dev/nbd0 write_cache "write through"
t "by hand: rotational" set_queue /dev/nbd0 rotational 1
t "by hand: detach" "$NBD_ATTACH" -d /dev/nbd0
t "attach again" "$NBD_ATTACH" --no-supervise $rich /dev/nbd0
t "attach again: max_sectors_kb as planned" queue_is /dev/nbd0 max_sectors_kb "$planned"
t "attach again: 4096 is what is planned" test "$planned" = 4096
t "attach again: write back" queue_is /dev/nbd0 write_cache "write back"
t "attach again: not rotational" queue_is /dev/nbd0 rotational 0
t "attach again: the default timeout, not an earlier one" queue_is /dev/nbd0 io_timeout 30000
t "attach again: max_sectors_kb raised by hand" set_queue /dev/nbd0 max_sectors_kb 32768
t "attach again: detach" "$NBD_ATTACH" -d /dev/nbd0
t "a server with a small maximum" \
	serve_nbdkit 10812 --filter=blocksize-policy memory 8M blocksize-minimum=512 \
	blocksize-maximum=64K blocksize-error-policy=error
t "small maximum: attach" "$NBD_ATTACH" localhost:10812 '' /dev/nbd0
t "small maximum: it counts" queue_is /dev/nbd0 max_sectors_kb 64
t "small maximum: no request is larger" fill /dev/nbd0
t "small maximum: detach" "$NBD_ATTACH" -d /dev/nbd0

make_disk /tmp/spinning 8M
t "a server with a rotational export" \
	serve_nbdserver 10813 spinning=/tmp/spinning,rotational=true,flush=true plain=/tmp/spinning
t "rotational: attach" "$NBD_ATTACH" localhost:10813 spinning /dev/nbd0
t "rotational: so it is" queue_is /dev/nbd0 rotational 1
t "rotational: write back" queue_is /dev/nbd0 write_cache "write back"
t "rotational: detach" "$NBD_ATTACH" -d /dev/nbd0
t "not rotational after it: attach" "$NBD_ATTACH" localhost:10813 plain /dev/nbd0
t "not rotational after it: so it is" queue_is /dev/nbd0 rotational 0
t "without flush after it: write through" queue_is /dev/nbd0 write_cache "write through"
t "not rotational after it: detach" "$NBD_ATTACH" -d /dev/nbd0

t "the bystander is untouched" bystander_untouched
t "the bystander: umount" umount /tmp/mounted
t "the bystander: detach" "$NBD_ATTACH" -d /dev/nbd3

# Any free device.

# find_is DEVICE ARG...
find_is() {
	local want=$1 have

	shift
	have=$("$NBD_ATTACH" --find --show "$@") || return
	[[ $have == "$want" ]] || { echo "it took $have"; return 1; }
}
t "no device: unload" rmmod nbd
t "two devices: load" modprobe nbd nbds_max=2
t "two devices: the first one has larger blocks" "$NBD_ATTACH" -b 4096 $rich /dev/nbd0
t "two devices: detach" "$NBD_ATTACH" -d /dev/nbd0
t "two devices: --find takes the one that fits" find_is /dev/nbd1 $rich
t "two devices: blocks of 512 bytes" queue_is /dev/nbd1 minimum_io_size 512
t "two devices: --find renews the other" find_is /dev/nbd0 $bare
t "two devices: blocks of 512 bytes" queue_is /dev/nbd0 minimum_io_size 512
t "two devices: detach both" "$NBD_ATTACH" -d /dev/nbd0 /dev/nbd1
t "two devices: --find takes the first when both fit" find_is /dev/nbd0 -b 4096 $rich
t "two devices: detach" "$NBD_ATTACH" -d /dev/nbd0
t "two devices: unload" rmmod nbd

t "one device: load" modprobe nbd nbds_max=1
t "one device: larger blocks" "$NBD_ATTACH" -b 4096 $rich /dev/nbd0
t "one device: detach" "$NBD_ATTACH" -d /dev/nbd0
t "one device: --find renews it" find_is /dev/nbd0 $rich
t "one device: blocks of 512 bytes" queue_is /dev/nbd0 minimum_io_size 512
t "one device: discard and zero" blkdiscard -f -z /dev/nbd0
t "one device: detach" "$NBD_ATTACH" -d /dev/nbd0
t "one device: --find without WRITE_ZEROES" find_is /dev/nbd0 $bare
t "one device: no WRITE_ZEROES is left" queue_is /dev/nbd0 write_zeroes_max_bytes 0
use_all "one device" /dev/nbd0
t "one device: --find makes a second when all are taken" find_is /dev/nbd1 $rich
t "one device: detach both" "$NBD_ATTACH" -d /dev/nbd0 /dev/nbd1

# A stale device that somebody has open cannot be renewed, and is not used as it is.
t "held open: a device with larger blocks" "$NBD_ATTACH" -b 4096 $rich /dev/nbd0
t "held open: detach" "$NBD_ATTACH" -d /dev/nbd0
exec 9</dev/nbd0
t_fails 7 "held open: it is refused" "$NBD_ATTACH" $rich /dev/nbd0
t_says "held open: the error says why" 'some program has the device open'
t "held open: it is not attached" test ! -e /sys/block/nbd0/pid
exec 9<&-
t "closed: attach" "$NBD_ATTACH" $rich /dev/nbd0
t "closed: blocks of 512 bytes" queue_is /dev/nbd0 minimum_io_size 512
t "closed: detach" "$NBD_ATTACH" -d /dev/nbd0

t "no errors in the kernel's log" no_kernel_errors
finish
