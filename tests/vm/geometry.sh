#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
# timeout: 600
#
# Sizes, block sizes, limits and flags of the device are those that fit the server and the options;
# what cannot fit is refused, says why and leaves nothing.

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

dev=/dev/nbd0
sys=/sys/block/nbd0

# queue_is ATTRIBUTE VALUE
queue_is() {
	local have

	have=$(<"$sys/queue/$1")
	[[ $have == "$2" ]] || { echo "$1 is $have"; return 1; }
}

# blocks_are BYTES: logical and physical block, smallest request, as the kernel and user space see it.
blocks_are() {
	local name status=0

	for name in logical_block_size physical_block_size minimum_io_size; do
		queue_is "$name" "$1" || status=1
	done
	[[ $(blockdev --getss "$dev") == "$1" ]] || status=1
	return "$status"
}

size_is() {
	local have

	have=$(blockdev --getsize64 "$dev")
	[[ $have == "$1" ]] || { echo "$have bytes"; return 1; }
}

not_attached() {
	[[ ! -e $sys/pid && $(<"$sys/size") == 0 && ! -e /run/nbd-attach/nbd0 ]]
}

# attach DESCRIPTION ARG..., detach: as checks.
attach() {
	local text=$1

	shift
	t "$text: attach" "$NBD_ATTACH" "$@" $dev
}
detach() {
	t "$1: detach" "$NBD_ATTACH" -d $dev
}

# refused STATUS DESCRIPTION WORDS ARG...
refused() {
	local status=$1 text=$2 words=$3

	shift 3
	t_fails "$status" "$text: refused" "$NBD_ATTACH" "$@" $dev
	t_says "$text: the error says why" "$words"
	t "$text: nothing is attached" not_attached
}

# serve ARG..., and quiet: nbdkit on the default port, one after the other.
serve() {
	[[ -z ${lib_pids[nbdkit:10809]:-} ]] || stop_server nbdkit:10809 KILL
	serve_nbdkit 10809 "$@"
}
policy() { serve --filter=blocksize-policy "$@" blocksize-error-policy=error; }

[[ -n ${NBD_ATTACH:-} ]] || bail 'NBD_ATTACH is not set'
diag "kernel $(uname -r)"
t "modprobe nbd" modprobe nbd nbds_max=4
page=$(getconf PAGESIZE)
dmesg_mark

# Block sizes.
t "a server without an opinion" serve memory 1M
attach "no opinion" localhost ''
t "no opinion: blocks of 512 bytes" blocks_are 512
t "no opinion: the export's size" size_is 1048576
detach "no opinion"
attach "-b 4096" -b 4096 localhost ''
t "-b 4096: blocks of 4096 bytes" blocks_are 4096
t "-b 4096: the export's size" size_is 1048576
detach "-b 4096"
attach "-b 1K" -b 1K localhost ''
t "-b 1K: blocks of 1024 bytes" blocks_are 1024
detach "-b 1K"
refused 2 "-b above the page size" "a power of two from 512 to $page is needed" \
	-b $((2 * page)) localhost ''
refused 2 "-b that is no power of two" 'a power of two' -b 1536 localhost ''

t "a server whose minimum is 4096" policy memory 1M blocksize-minimum=4096
attach "minimum 4096" localhost ''
t "minimum 4096: blocks of 4096 bytes" blocks_are 4096
detach "minimum 4096"
refused 2 "-b below the minimum" 'block size 512: the server wants blocks of 4096 bytes at least' \
	-b 512 localhost ''
t "a server whose minimum is 1" policy memory 1M blocksize-minimum=1
attach "minimum 1" localhost ''
t "minimum 1: blocks of 512 bytes" blocks_are 512
detach "minimum 1"
t "a server whose minimum is above the page size" policy memory 1M \
	blocksize-minimum=$((2 * page)) blocksize-preferred=$((2 * page)) blocksize-maximum=1M
refused 1 "minimum above the page size" "blocks of $((2 * page)) bytes at least.* $page at most" \
	localhost ''

# Sizes.
t "a size of whole sectors only" serve memory $((1048576 + 512))
attach "one sector more than whole pages" localhost ''
t "one sector more: the export's size" size_is $((1048576 + 512))
t "one sector more: the last one can be written" \
	dd if=/dev/urandom of=$dev bs=512 seek=2048 count=1 oflag=direct
detach "one sector more"
refused 2 "a size that is no multiple of -b" \
	'1049088 bytes is not a multiple of the block size of 4096: its last 512 bytes.*use a smaller one \(-b\)' \
	-b 4096 localhost ''
t "a size that the server's minimum does not divide" \
	policy memory $((1048576 + 512)) blocksize-minimum=4096
refused 1 "a size that the minimum does not divide" \
	'1049088 bytes is not a multiple of the block size of 4096: its last 512 bytes' localhost ''
t "one byte more than whole sectors" serve memory 1048577
refused 1 "one byte too many" \
	'1048577 bytes is not a multiple of the block size of 512: its last 1 bytes' localhost ''
t "fewer bytes than a sector" serve memory 511
refused 1 "less than a sector" '511 bytes is not a multiple' localhost ''
t "an empty export" serve memory 0
refused 1 "an empty export" 'is empty \(0 bytes\)' localhost ''
t "one sector" serve memory 512
attach "one sector" localhost ''
t "one sector: that size" size_is 512
detach "one sector"

# last_block_works: what is written into the last block can be read there.
last_block_works() {
	local last=$(($1 / 4096 - 1))

	head -c 4096 /dev/urandom >/tmp/block
	dd if=/tmp/block of="$dev" bs=4k seek="$last" oflag=direct conv=notrunc || return
	dd if="$dev" of=/tmp/back bs=4k skip="$last" count=1 iflag=direct || return
	cmp /tmp/block /tmp/back
}
huge=$((1 << 60))
t "an export of 2^60 bytes" serve memory $huge
attach "2^60 bytes" localhost ''
t "2^60 bytes: that size" size_is $huge
t "2^60 bytes: the last block works" last_block_works $huge
t "2^60 bytes: --list knows it" "$NBD_ATTACH" --list -n -O SIZE --bytes $dev
t_says "2^60 bytes: it says so" "^ *$huge\$"
detach "2^60 bytes"
t "an export of nearly 2^63 bytes" serve memory $(((1 << 62) - 4096 + (1 << 62)))
attach "nearly 2^63 bytes" -b 4096 localhost ''
t "nearly 2^63 bytes: that size" size_is $(((1 << 62) - 4096 + (1 << 62)))
detach "nearly 2^63 bytes"

# Read-only.

write_fails() {
	! dd if=/dev/zero of="$dev" bs=4k count=1 oflag=direct
}
# Either is what mount(8) may do with a device that is read-only.
mounts_read_only() {
	local where flags last=''

	if mount -o rw "$dev" /mnt; then
		while read -r _ where _ flags _; do
			[[ $where == /mnt ]] && last=$flags
		done </proc/mounts
		umount /mnt
		[[ ,$last, == *,ro,* ]]
	else
		mount -o ro "$dev" /mnt && umount /mnt
	fi
}
is_read_only() {
	[[ $(blockdev --getro "$dev") == 1 && $(<"$sys/ro") == 1 ]]
}
make_disk /tmp/disk 16M
mkfs.ext4 -q -F /tmp/disk
cp /tmp/disk /tmp/copy
t "a writable export" serve file /tmp/disk
attach "read-only by -r" -r localhost ''
t "read-only by -r: the device is" is_read_only
t "read-only by -r: a write fails" write_fails
t "read-only by -r: so does a writable mount" mounts_read_only
detach "read-only by -r"
attach "without -r" localhost ''
t "without -r: the device is writable" test "$(blockdev --getro $dev)" = 0
detach "without -r"
t "a read-only export" serve -r file /tmp/disk
attach "read-only by the server" localhost ''
t_says "read-only by the server: the user is told" 'the export is read-only'
t "read-only by the server: the device is" is_read_only
t "read-only by the server: a write fails" write_fails
t "read-only by the server: so does a writable mount" mounts_read_only
detach "read-only by the server"
t "nothing was written" cmp /tmp/disk /tmp/copy

# Limits of requests.

# largest DESCRIPTION KIB ARG...: what the server says, and how large requests may be then.
largest() {
	local text=$1 kib=$2

	shift 2
	t "$text: serve" policy "$@"
	attach "$text" localhost ''
	t "$text: requests up to $kib KiB" queue_is max_sectors_kb "$kib"
	t "$text: one of 8 MiB is cut as needed" dd if=$dev of=/dev/null bs=8M count=1 iflag=direct
	detach "$text"
}
largest "a maximum of 64 KiB" 64 memory 8M blocksize-minimum=1 blocksize-maximum=64K
largest "a maximum of 1 MiB" 1024 memory 8M blocksize-minimum=1 blocksize-maximum=1M
largest "a maximum of 32 MiB" 4096 memory 8M blocksize-minimum=1 blocksize-maximum=32M
largest "an odd maximum" 96 memory 8M blocksize-minimum=1 blocksize-maximum=99K
t "no maximum" serve memory 8M
attach "no maximum" localhost ''
t "no maximum: requests up to 4096 KiB" queue_is max_sectors_kb 4096
detach "no maximum"

# mixed MINIMUM MAXIMUM: requests of all sizes against a server that fails each one outside.
mixed() {
	timeout "$T_LIMIT" fio --name=mixed --filename="$dev" --ioengine=libaio --direct=1 --thread \
		--rw=randwrite --bsrange="$1-$2" --blockalign="$1" --size=8m --io_size=8m \
		--iodepth=16 --verify=crc32c --verify_interval="$1" --do_verify=1 --verify_fatal=1 \
		--output=/tmp/fio.out >/tmp/fio.err 2>&1 && return
	cat /tmp/fio.err /tmp/fio.out
	return 1
}
unaligned_files() {
	mkfs.ext4 -q -F "$dev" && mount "$dev" /mnt || return
	seq 70000 >/mnt/a && head -c 12345 /dev/urandom >/mnt/b && sync /mnt/a || return
	umount /mnt && mount -o ro "$dev" /mnt && cmp /mnt/a <(seq 70000) || return
	umount /mnt
}
t "a strict server, 4096 to 65536" \
	policy memory 8M blocksize-minimum=4096 blocksize-preferred=16K blocksize-maximum=64K
attach "strict" localhost ''
t "strict: random requests of 4 KiB to 1 MiB make no error" mixed 4k 1m
t "strict: nor does a file system" unaligned_files
t "strict: nor do unaligned buffered writes" \
	dd if=/dev/urandom of=$dev bs=777 count=100 conv=notrunc,fsync
detach "strict"
t "a strict server, 512 to 128 KiB" policy memory 8M blocksize-minimum=512 blocksize-maximum=128K
attach "strict, 512" localhost ''
t "strict, 512: random requests of 512 bytes to 1 MiB make no error" mixed 512 1m
detach "strict, 512"

# Timeouts.
t "a plain server" serve memory 1M
attach "no -t, no supervisor" --no-supervise localhost ''
t "no -t, no supervisor: 30 seconds" queue_is io_timeout 30000
detach "no -t, no supervisor"
# One connection, supervised: no limit, but what was under way when it died is sent again soon.
attach "no -t" localhost ''
t "no -t: a second" queue_is io_timeout 1000
detach "no -t"
attach "-t 7" -t 7 localhost ''
t "-t 7: 7 seconds" queue_is io_timeout 7000
detach "-t 7"
attach "-t 0 after it" -t 0 localhost ''
# No limit: at the kernel's own interval it only looks whether the connection is alive.
t "-t 0 after it: not the 7 seconds" queue_is io_timeout 30000
detach "-t 0"

# Flags.

# flags DESCRIPTION CACHE FUA KEYS: of nbd-server, whose exports have what the configuration says.
flags() {
	t "$1: attach" "$NBD_ATTACH" localhost:10811 "$4" $dev
	t "$1: write cache" queue_is write_cache "$2"
	t "$1: FUA" queue_is fua "$3"
	t "$1: detach" "$NBD_ATTACH" -d $dev
}
t "nbd-server serves" serve_nbdserver 10811 none=/tmp/disk flush=/tmp/disk,flush=true \
	both=/tmp/disk,flush=true,fua=true fua=/tmp/disk,fua=true
flags "flush" "write back" 0 flush
flags "neither flush nor FUA" "write through" 0 none
flags "flush and FUA" "write back" 1 both
# FUA without flush is nothing that the block layer could use.
flags "FUA alone" "write through" 0 fua
t "a server with a cache that counts" serve --filter=stats memory 1M statsfile=/tmp/stats
attach "a flush" localhost ''
t "a flush: write and sync" dd if=/dev/urandom of=$dev bs=4k count=1 conv=notrunc,fsync
detach "a flush"
t "a flush: nbdkit stops" stop_server nbdkit:10809
t "a flush: has reached the server" grep -E '^flush: [1-9]' /tmp/stats

t "no errors in the kernel's log" no_kernel_errors
finish
