#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# A device that is attached already, or is being attached at the same moment: the same export is
# success and changes nothing, anything else is refused and changes nothing.

# timeout: 900

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../hostile/lib.sh
. "${BASH_SOURCE[0]%/*}/../hostile/lib.sh"

# connections PORT COUNT: so many are established on the server's side.
connections() {
	local port address state count=0

	printf -v port ':%04X' "$1"
	while read -r _ address _ state _; do
		[[ $state == 01 && $address == *"$port" ]] && count=$((count + 1))
	done </proc/net/tcp
	echo "$count connections"
	((count == $2))
}

# Everything that a second attach might have changed goes into $SNAPSHOT.
snapshot() {
	local dir=/sys/block/$1 file line

	SNAPSHOT=''
	for file in "$dir"/{pid,backend,ro,size} "$dir"/queue/{logical_block_size,max_sectors_kb} \
		"/run/nbd-attach/$1"; do
		[[ -e $file ]] || continue
		while read -r line; do
			SNAPSHOT+="$file: $line"$'\n'
		done <"$file"
	done
}
untouched() {
	snapshot nbd0
	echo "before: $before"
	echo "now: $SNAPSHOT"
	[[ $SNAPSHOT == "$before" ]]
}

# Writes past the page cache and reads it back.
healthy() {
	local text="this is $1 at $EPOCHREALTIME" back

	printf '%-4096s' "$text" | dd of="/dev/$1" bs=4096 oflag=direct conv=notrunc || return
	back=$(dd "if=/dev/$1" bs=4096 count=1 iflag=direct) || return
	[[ $back == "$text"* ]]
}

# again STATUS REGEX TEXT ARG...: a second attach to nbd0, of which $before must not change
again() {
	local status=$1 regex=$2 text=$3

	shift 3
	t_fails "$status" "$text: exit $status" "$A" "$@"
	t_says "$text: says so" "$regex"
	t "$text: nothing has changed" untouched
}

# race NAME: waits for eight in the background; $WON and $LOST count exit 0 and 7, $ALREADY those
# that found it attached
race() {
	local i status output

	WON=0 LOST=0 ALREADY=0
	for i in {1..8}; do
		status=0
		wait "${background_pids[$1.$i]}"
		read -r status TOOK <"/tmp/background/$1.$i.status"
		output=$(<"/tmp/background/$1.$i")
		echo "$i: exit $status, $TOOK ms: $output"
		case $status in
		0) WON=$((WON + 1)) ;;
		7) LOST=$((LOST + 1)) ;;
		esac
		[[ $output != *already ]] || ALREADY=$((ALREADY + 1))
	done
}
all_won() { race "$1"; ((WON == 8 && ALREADY == 7)); }
one_won() { race "$1"; ((WON == 1 && LOST == 7)); }

make_disk /tmp/disk 8M
t "modprobe nbd" modprobe nbd nbds_max=8
dmesg_mark
t "nbdkit" serve_nbdkit 10809 memory 8M
t "a read-only nbdkit" serve_nbdkit 10810 -r memory 8M
# All clients of a race are in the handshake when the first of them gets its answer.
t "a slow nbdkit" serve_nbdkit 10811 --filter=delay memory 8M delay-open=3
t "a server that never answers a request" serve_hostile 12000=go,absorb

t "attach" "$A" 127.0.0.1 a nbd0
snapshot nbd0
before=$SNAPSHOT
t "one connection" connections 10809 1
again 0 '/dev/nbd0 is attached to this export already' "the same" 127.0.0.1 a nbd0
again 0 'already' "the same, as a URI" nbd://127.0.0.1:10809/a nbd0
again 0 'already' "the same, with the block size that it has" -b 512 127.0.0.1 a nbd0
again 7 'attached already, to nbd://127.0.0.1:10809/a' "another export" 127.0.0.1 b nbd0
again 7 'attached already, to nbd://127.0.0.1:10809/a' "another server" 127.0.0.1:10810 a nbd0
again 7 'already, but not read-only' "the same, but read-only" -r 127.0.0.1 a nbd0
again 7 'already, with blocks of 512 bytes' "the same, but other blocks" -b 4096 127.0.0.1 a nbd0
again 7 'attached already' "a command" --command nbd0 -- nbdkit -s memory 8M
t "still one connection" wait_for 5 connections 10809 1
t "the device is healthy" healthy nbd0
t "the same export on another device" "$A" --allow-overlap 127.0.0.1 a nbd1
t "both" "$A" --detach nbd0 nbd1

t "attach read-only" "$A" -r 127.0.0.1 a nbd0
snapshot nbd0
before=$SNAPSHOT
again 0 'already' "the same, read-only again" -r 127.0.0.1 a nbd0
again 7 'already, but read-only' "the same, but for writing" 127.0.0.1 a nbd0
t "detach" "$A" --detach nbd0

t "attach a read-only export" "$A" 127.0.0.1:10810 a nbd0
t_says "that it is read-only is said" 'the export is read-only'
snapshot nbd0
before=$SNAPSHOT
again 0 'already' "the same read-only export" 127.0.0.1:10810 a nbd0
again 0 'already' "the same read-only export, read-only" -r 127.0.0.1:10810 a nbd0
t "detach" "$A" --detach nbd0

t "attach a command" "$A" --command nbd0 -- nbdkit -s --exit-with-parent memory 8M
snapshot nbd0
before=$SNAPSHOT
again 7 'attached already, to command:nbdkit' "the same command is another server" \
	--command nbd0 -- nbdkit -s --exit-with-parent memory 8M
t "detach" "$A" --detach nbd0

t "nbd-client attaches" nbd-client 127.0.0.1 10809 -N a /dev/nbd0 -b 512
snapshot nbd0
before=$SNAPSHOT
again 7 'attached already, by another program' "attached by nbd-client" 127.0.0.1 a nbd0
t "detach" "$A" --detach nbd0
t "no connection is left" wait_for 5 connections 10809 0

# In use, not attached.
exec 9</dev/nbd0
t_fails 7 "a device that a process holds open" took "$A" 127.0.0.1 a nbd0
t_says "a device that a process holds open: says so" 'some program has the device open'
t "a device that a process holds open: within 10 s" took_from_to 0 10000
t "a device that a process holds open: no connection is left" wait_for 5 connections 10809 0
t "a device that a process holds open: nothing is left" nothing_left
exec 9<&-
(
	exec 9</dev/nbd0
	sleep 1
) &
t "a device that is open for a moment" "$A" 127.0.0.1 a nbd0
wait $!
t "detach" "$A" --detach nbd0

# A supervisor and its negotiator.
two_processes() {
	pids_of "$OURS"
	((${#PIDS[@]} == 2))
}

# Eight at once.
for i in {1..8}; do
	in_background "same.$i" "$A" 127.0.0.1:10811 a nbd0
done
t "eight attach the same: all succeed, one of them does it" all_won same
t "eight attach the same: one connection remains" wait_for 5 connections 10811 1
t "eight attach the same: the device is healthy" healthy nbd0
t "eight attach the same: one pair of processes is left" wait_for 5 two_processes
t "detach" "$A" --detach nbd0
t "nothing is left" nothing_left

for i in {1..8}; do
	in_background "other.$i" "$A" 127.0.0.1:10811 "export$i" nbd0
done
t "eight attach different exports: one wins, the others see it" one_won other
for i in {1..8}; do
	read -r status _ <"/tmp/background/other.$i.status"
	((status == 0)) && winner=$i
done
t "eight attach different exports: the winner's is attached" \
	grep -qx "nbd://127.0.0.1:10811/export${winner:-none}" /sys/block/nbd0/backend
t "eight attach different exports: one connection remains" wait_for 5 connections 10811 1
t "eight attach different exports: the device is healthy" healthy nbd0
t "detach" "$A" --detach nbd0
t "nothing is left" nothing_left

# The first one is not done yet, and will fail: the second must not call that attached.
in_background first "$A" --connect-timeout 4 127.0.0.1:12000 a nbd0
t "a first attach has connected the device" wait_for 10 attached nbd0
in_background second "$A" --connect-timeout 4 127.0.0.1:12000 a nbd0
t_fails 3 "the first fails, for the server does not answer" outcome first
t_fails 3 "the second has waited for it and fails alike" outcome second
t "nothing is left" nothing_left

t "the kernel has survived it" kernel_survived
finish
