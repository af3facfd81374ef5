#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# --find gives everybody a device of his own, however many ask at once, also when the driver was
# loaded with fewer devices; numbers beyond those can be asked for as well.

# timeout: 720

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../hostile/lib.sh
. "${BASH_SOURCE[0]%/*}/../hostile/lib.sh"

# has_signature DEVICE TEXT: at its begin and at its end
has_signature() {
	local line

	{
		IFS= read -r line
		echo "$1 begins with: $line"
	} <"$1"
	[[ $line == "$2" ]] || return
	line=$(tail -c 64 "$1") || return
	echo "$1 ends with: $line"
	[[ $line == *"$2" ]]
}

# sign FILE TEXT
sign() {
	printf '%s\n' "$2" >"$1"
	truncate -s "$(((1 << 20) - ${#2}))" "$1"
	printf '%s' "$2" >>"$1"
}

# find_device ARG...: $DEVICE is the only word that it printed
find_device() {
	local words

	DEVICE=''
	"$A" --find --show "$@" >/tmp/shown || return
	mapfile -t words </tmp/shown
	printf '%s\n' "${words[@]}"
	((${#words[@]} == 1)) || return
	DEVICE=${words[0]}
	[[ $DEVICE =~ ^/dev/nbd[0-9]+$ && -b $DEVICE ]]
}

prints_nothing() {
	"$@" >/tmp/printed || return
	[[ ! -s /tmp/printed ]]
}

# Fills $DEVICES; eight words on eight lines, none of them twice.
eight_devices() {
	local i words
	local -A seen=()

	DEVICES=()
	for i in {1..8}; do
		mapfile -t words <"/tmp/background/find.$i"
		echo "$i: ${words[*]}"
		DEVICES[i]=${words[0]}
		[[ ${#words[@]} == 1 && ${words[0]} =~ ^/dev/nbd[0-9]+$ ]] || return
		[[ -z ${seen[${words[0]}]:-} ]] || return
		seen[${words[0]}]=1
	done
}

listed() {
	local line

	while read -r line; do
		[[ $line != "$1 $2" ]] || return 0
	done </tmp/list
	cat /tmp/list
	return 1
}

t "modprobe nbd for two devices" modprobe nbd nbds_max=2
dmesg_mark
mkdir /tmp/images
for i in {1..8}; do
	sign "/tmp/images/disk$i" "this is image $i"
done
t "nbdkit with an export for each image" serve_nbdkit 10809 file dir=/tmp/images

for i in {1..8}; do
	in_background "find.$i" "$A" --find --show 127.0.0.1 "disk$i"
done
for i in {1..8}; do
	t "eight at once: number $i succeeds" outcome "find.$i"
done
t "eight at once: each has a device of its own" eight_devices
t "the list of them" "$A" --list -n -O DEVICE,EXPORT
while read -r device export; do
	echo "$device $export"
done <"$lib_output" >/tmp/list
for i in {1..8}; do
	t "number $i has the content of its own image" has_signature "${DEVICES[i]}" "this is image $i"
	t "number $i is listed with its own export" listed "${DEVICES[i]}" "disk$i"
done
t "there are more devices than the driver was loaded with" test -b /dev/nbd7
t "detach all of them" "$A" --detach "${DEVICES[@]}"
t "nothing is left" nothing_left

t "without --show nothing is printed" prints_nothing "$A" --find 127.0.0.1 disk1
t "that takes the first device" attached nbd0
t "the same export once more takes another device" find_device --allow-overlap 127.0.0.1 disk1
t "it is the second" test "$DEVICE" = /dev/nbd1
t "nbd-client attaches the third" nbd-client 127.0.0.1 10809 -N disk2 /dev/nbd2 -b 512
exec 9</dev/nbd3
t "neither nbd-client's nor one that is held open is taken" find_device 127.0.0.1 disk3
t "it is the fifth" test "$DEVICE" = /dev/nbd4
exec 9<&-
t "--find with a URI, read-only, other blocks" find_device -r -b 4096 nbd://127.0.0.1/disk4
t "it is the fourth" test "$DEVICE" = /dev/nbd3
t "it is read-only" grep -qx 1 /sys/block/nbd3/ro
t "it has blocks of 4096 bytes" grep -qx 4096 /sys/block/nbd3/queue/logical_block_size
t "--find with a command" find_device --command -- nbdkit -s --exit-with-parent \
	file /tmp/images/disk5
t "it has the command's content" has_signature "$DEVICE" "this is image 5"
t "detach" "$A" --detach nbd0 nbd1 nbd2 nbd3 nbd4 "$DEVICE"
t "nothing is left" nothing_left

# nbd3 has kept its block size in the kernel; smaller blocks on it would be cut off at that.
t "attach nbd0" \
	"$A" 127.0.0.1 disk1 nbd0
for i in 1 2; do
	t "attach nbd$i" "$A" --allow-overlap 127.0.0.1 "disk$i" "nbd$i"
done
t "--find after an attachment with other blocks" find_device 127.0.0.1 disk4
t "that has blocks of 512 bytes" \
	grep -qx 512 "/sys/block/${DEVICE#/dev/}/queue/logical_block_size"
t "that has no limits of 4096 bytes left" \
	grep -qx 512 "/sys/block/${DEVICE#/dev/}/queue/minimum_io_size"
t "detach" "$A" --detach nbd0 nbd1 nbd2 "$DEVICE"

# Far beyond nbds_max.
t_fails 1 "there is no nbd40" test -e /sys/block/nbd40
t "nbd40 by its number" "$A" 127.0.0.1 disk6 nbd40
t "it has the right content" has_signature /dev/nbd40 "this is image 6"
t "detach" "$A" --detach nbd40
t "again by its path" "$A" 127.0.0.1 disk7 /dev/nbd40
t "it has the right content" has_signature /dev/nbd40 "this is image 7"
t "detach" "$A" --detach /dev/nbd40
t_fails 8 "a device that never was is not attached" "$A" --detach nbd41
t_fails 1 "and not made by asking" test -e /sys/block/nbd41
t "nothing is left" nothing_left
t "no errors in the kernel's log" no_kernel_errors
finish
