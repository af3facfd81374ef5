#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
# timeout: 120
#
# A server that means CACHE by CAN_MULTI_CONN, as qemu 3.0 does, really corrupts data on several
# connections, and is not given several. What is written through one processor, with fsync, is read
# through the other: the kernel has a connection for each.

# shellcheck disable=SC2317,SC2086 # t calls the functions; words that are one
# shellcheck source-path=SCRIPTDIR source=../vm/lib.sh
. "${BASH_SOURCE[0]%/*}/../vm/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../hostile/lib.sh
. "${BASH_SOURCE[0]%/*}/../hostile/lib.sh"

dev=nbd0
disk=/tmp/disk
blocks=16
all=$((blocks * 3))
bs=4096

# has N: connections, by our record.
has() {
	local n

	n=$("$A" --list -n -O CONNECTIONS $dev | tr -d ' ')
	[[ $n == "$1" ]] || { echo "$n connections, not $1"; return 1; }
}

# pattern LETTER: a file of that name, as long as all blocks.
pattern() {
	head -c $((blocks * bs)) /dev/zero | tr '\0' "$1" >"/tmp/$1"
}

on_cpu() { taskset -c "$@" status=none; }
read_on() { on_cpu "$1" dd if=/dev/$dev of="$2" bs=$bs count=$blocks iflag=direct; }
write_on() { on_cpu "$1" dd if="$2" of=/dev/$dev bs=$bs count=$blocks oflag=direct conv="notrunc$3"; }

# differ FILE FILE: prints how many blocks do.
differ() {
	cmp -l "$1" "$2" | awk -v bs=$bs '{ n[int(($1 - 1) / bs)] } END { print length(n) }'
}

# Writes on one processor with fsync, reads on the other, and the other way round; $STALE: blocks
# that were not what had been written, in all rounds.
exercise() {
	local writer=0 letter

	STALE=0
	for letter in A B C; do
		pattern $letter
		# As any program may have: what was there before is cached by a server that caches.
		read_on $((1 - writer)) /tmp/before || return
		write_on $writer /tmp/$letter ,fsync || return
		read_on $((1 - writer)) /tmp/after || return
		STALE=$((STALE + $(differ /tmp/$letter /tmp/after)))
		writer=$((1 - writer))
	done
}

stale_is() {
	echo "$STALE of $all blocks are stale"
	test "$STALE" "$@"
}

# Writes on one processor, fsync on the other; $LOST: blocks of the server's file that are not what
# was written then.
fsync_elsewhere() {
	pattern "$1"
	write_on 0 "/tmp/$1" "" || return
	taskset -c 1 sync "/dev/$dev" || return
	head -c $((blocks * bs)) $disk >/tmp/arrived
	LOST=$(differ "/tmp/$1" /tmp/arrived)
}

lost_is() {
	echo "$LOST of $blocks blocks are not in the server's file after fsync"
	test "$LOST" "$@"
}

(($(nproc) >= 2)) || skip_all "this takes two processors"
t "modprobe nbd" modprobe nbd nbds_max=4
dmesg_mark

# measure NAME: both, as a line of the table in the output.
measure() {
	t "$1: written and read" exercise
	t "$1: written, and fsync on the other processor" fsync_elsewhere Z
	diag "$(printf '%-34s %2d of %d stale   %2d of %d lost' "$1" "$STALE" "$all" "$LOST" "$blocks")"
}

# A server of which each connection sees the same: nothing is wrong with this test, the kernel or us.
make_disk $disk 8M
t "nbdkit" serve_nbdkit 10809 file $disk
t "nbdkit: two connections" "$A" -C 2 localhost '' $dev
t "nbdkit: has two" has 2
measure "nbdkit, 2 connections"
t "nbdkit: nothing is stale" stale_is -eq 0
t "nbdkit: nothing is lost" lost_is -eq 0
t "nbdkit: detach" "$A" -d $dev
stop_server nbdkit:10809

# The bug is real.
make_disk $disk 8M
t "like qemu 3.0" serve_qemu30 10810 $disk
t "without the guard: two connections" "$A" -C 2 --force-multi-conn localhost:10810 '' $dev
t_says "without the guard: a warning" 'forced.*qemu 3\.0.*corrupts data'
t "without the guard: has two" has 2
measure "without the guard, 2 connections"
t "without the guard: blocks are stale" stale_is -gt 0
t "without the guard: fsync is no fsync" lost_is -gt 0
t "without the guard: detach" "$A" -d $dev
for i in 1 2; do
	t "without the guard: connection $i was read" grep -m 1 "^$i 0 " $hostile_logs/10810
	t "without the guard: connection $i was written" grep -m 1 "^$i 1 " $hostile_logs/10810
done

if nbd-client localhost 10810 /dev/$dev -N '' -C 2 >/tmp/said 2>&1; then
	measure "nbd-client, -C 2"
	t "nbd-client: detach" nbd-client -d /dev/$dev
else
	skip "nbd-client: the same" "it does not attach here"
fi

# The guard.
forget 10810
t_fails 10 "two connections are refused" "$A" -C 2 localhost:10810 '' $dev
t_says "the error names the bug" 'carries out NBD_CMD_CACHE unannounced, like qemu 3\.0'
t_says "what it leads to" 'several would corrupt data'
t_says "and what to do" 'update the server'
t "nothing is left" nothing_left
t_fails 1 "the server was neither read nor written" grep -E '^[0-9]+ [0134] ' $hostile_logs/10810
t "auto attaches" "$A" -C auto localhost:10810 '' $dev
t_says "auto says why there is one connection" 'carries out NBD_CMD_CACHE unannounced, like qemu 3\.0'
t "auto: has one" has 1
measure "-C auto, 1 connection"
t "auto: nothing is stale" stale_is -eq 0
t "auto: nothing is lost" lost_is -eq 0
t "auto: detach" "$A" -d $dev
t "one connection: attach" "$A" localhost:10810 '' $dev
measure "one connection"
t "one connection: nothing is stale" stale_is -eq 0
t "one connection: nothing is lost" lost_is -eq 0
t "one connection: detach" "$A" -d $dev
# Nothing is written there that another connection would not see.
t "read-only: two connections" "$A" -r -C 2 localhost:10810 '' $dev
t "read-only: has two" has 2
t "read-only: detach" "$A" -d $dev
t "nothing is left at the end" nothing_left
t "no errors in the kernel's log" no_kernel_errors
finish
