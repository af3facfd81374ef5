#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
# timeout: 1200
#
# Every request keeps to the sizes that a server has announced, whatever the load. The servers fail
# each one that does not, and their log is looked at: the table in the output has what has arrived.
# What is not announced is left as it is.

# shellcheck disable=SC2317,SC2086 # t calls the functions; words that are one
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

A=${NBD_ATTACH:?the program to be tested}
dev=/dev/nbd0
queue=/sys/block/nbd0/queue
log=/tmp/requests
size=64M

[[ $(getconf PAGESIZE) == 4096 ]] || skip_all "the sizes here are for pages of 4096 bytes"
t "modprobe nbd" modprobe nbd nbds_max=2

# Reads, writes and verification of what was written, trims and zeros side by side, each in a region
# of its own but for the last, in which all go on at random. $1: the smallest block; $2: how many MiB each.
load() {
	local common=(--filename="$dev" --ioengine=libaio --direct=1 --thread --group_reporting
		--bsrange="$1-4M" --blockalign="$1" --iodepth=8 --output=/tmp/fio.out)

	timeout "$T_LIMIT" fio "${common[@]}" \
		--name=verify --rw=randwrite --offset=0 --size=${2}M --io_size=${2}M \
		--verify=crc32c --verify_interval="$1" --do_verify=1 --verify_fatal=1 \
		--name=mixed --rw=randrw --offset=16M --size=16M --io_size=${2}M \
		--name=trims --rw=randtrim --offset=32M --size=16M --io_size=$(($2 * 2))M \
		--name=over --rw=randrw --offset=48M --size=16M --io_size=${2}M \
		--name=under --rw=randtrim --offset=48M --size=16M --io_size=${2}M \
		>/tmp/fio.err 2>&1 && return
	cat /tmp/fio.err /tmp/fio.out
	return 1
}

# Zeros and trims of odd places and lengths, and of all at once.
zeros_and_trims() {
	local at length

	for length in $1 $((3 * $1)) 1048576 $((5 * 1048576 + $1)) $((16 << 20)); do
		at=$((7 * $1))
		blkdiscard -z -o $at -l $length $dev || return
		blkdiscard -o $at -l $length $dev || return
	done
	blkdiscard -z $dev && blkdiscard $dev
}

# The page cache, which knows pages only.
buffered() {
	dd if=/dev/urandom of=$dev bs=777 count=3000 conv=notrunc,fsync status=none &&
		dd if=$dev of=/dev/null bs=5000 count=500 skip=100 status=none
}

# summary MINIMUM MAXIMUM: a line for each kind of request in the log: how many, the smallest, the
# largest, and how many are not on whole blocks, too small, too large or failed.
summary() {
	perl -ne '
		BEGIN { ($min, $max) = splice @ARGV, 0, 2 }
		$failed{$1}++ if /\.\.\.(\w+) id=\d+ return=-1/;
		next if !/ (\w+) id=\d+ offset=0x([0-9a-f]+) count=0x([0-9a-f]+)/;
		($kind, $at, $len) = ($1, hex $2, hex $3);
		$n{$kind}++;
		$small{$kind} = $len if !defined $small{$kind} || $len < $small{$kind};
		$large{$kind} = $len if $len > ($large{$kind} // 0);
		$odd{$kind}++ if $at % $min || $len % $min || $len < $min;
		$over{$kind}++ if $len > $max;
		END {
			printf "%s %d %d %d %d %d %d\n", $_, $n{$_}, $small{$_}, $large{$_},
				$odd{$_} // 0, $over{$_} // 0, $failed{$_} // 0 for sort keys %n;
		}' "$1" "$2" $log
}

none_outside() {
	local kind n small large odd over failed seen='' status=0

	while read -r kind n small large odd over failed; do
		seen+=" $kind"
		echo "$kind: $n, $small to $large bytes, $odd odd, $over above the maximum, $failed failed"
		((odd == 0 && failed == 0)) || status=1
		# What carries no data may be of any length.
		[[ $kind == Trim || $kind == Zero ]] || ((over == 0)) || status=1
	done </tmp/summary
	[[ $seen == *Read* && $seen == *Trim* && $seen == *Write* ]] || status=1
	return $status
}

# The largest requests are as large as the server takes: not more by luck.
maximum_is_used() {
	local kind n large status=1

	while read -r kind n _ large _; do
		[[ $kind == Write ]] || continue
		echo "the largest of $n writes has $large bytes"
		((large == $1)) && status=0
	done </tmp/summary
	return $status
}

trim_is_whole() {
	local kind large over

	while read -r kind _ _ large _ over _; do
		[[ $kind == Trim ]] || continue
		echo "the largest trim has $large bytes, $over are above the maximum"
		((large == 64 << 20)) && return
	done </tmp/summary
	return 1
}

diag 'server: minimum/preferred/maximum, limit' '  kind number smallest largest odd above-maximum failed'

# sizes MINIMUM PREFERRED MAXIMUM LIMIT: the last is that of max_sectors_kb.
sizes() {
	local name="$1/$2/$3" minimum maximum block line mib=16
	local policy=(--filter=log --filter=blocksize-policy memory "$size" logfile="$log"
		blocksize-error-policy=error blocksize-minimum="$1" blocksize-preferred="$2"
		blocksize-maximum="$3")

	minimum=$(numfmt --from=iec "$1") maximum=$(numfmt --from=iec "$3")
	block=$((minimum < 512 ? 512 : minimum))
	# small requests take their time
	((maximum > 65536)) || mib=4
	((maximum > 4096)) || mib=1
	rm -f $log
	dmesg_mark
	t "$name: server" serve_nbdkit 10809 "${policy[@]}"
	t "$name: attach" "$A" localhost '' $dev
	t "$name: requests up to $4 KiB" test "$(<$queue/max_sectors_kb)" = "$4"
	t "$name: mixed load" load $block $mib
	t "$name: zeros and trims" zeros_and_trims $block
	t "$name: buffered writes and reads" buffered
	t "$name: detach" "$A" -d $dev
	stop_server nbdkit:10809
	summary $minimum $maximum >/tmp/summary
	diag "$name, $4 KiB"
	while read -r line; do
		diag "  $line"
	done </tmp/summary
	t "$name: no request was outside" none_outside
	t "$name: writes reach the limit" maximum_is_used $(($4 * 1024))
	t "$name: a trim of everything is one request" trim_is_whole
	t "$name: no errors in the kernel's log" no_kernel_errors
}
sizes 1 4K 64K 64
sizes 512 512 4K 4
sizes 512 4K 100K 100
sizes 4K 1M 32M 4096
sizes 512 32K 4294967295 4096

# What the server's sizes say nothing about.
others="nr_requests scheduler read_ahead_kb nomerges rq_affinity wbt_lat_usec add_random"
# After each other: of the second device, which nobody touches, and of ours.
values() {
	local name

	for name in $others; do
		echo "$name $(<"/sys/block/$1/queue/$name")"
	done
}
t "server" serve_nbdkit 10809 --filter=blocksize-policy memory 1M blocksize-preferred=64K
values nbd0 >/tmp/before
t "attach" "$A" localhost '' $dev
values nbd0 >/tmp/after
t "an attachment leaves all other settings as they are" cmp /tmp/before /tmp/after
while read -r line; do
	diag "$line"
done </tmp/after
t "detach" "$A" -d $dev
own_choice() {
	echo none >$queue/scheduler && echo 64 >$queue/nr_requests && echo 512 >$queue/read_ahead_kb
}
t "the administrator's own choice" own_choice
values nbd0 >/tmp/before
t "attach" "$A" -C auto localhost '' $dev
values nbd0 >/tmp/after
t "the choice stays" cmp /tmp/before /tmp/after
t "depth" grep -qx 'nr_requests 64' /tmp/after
t "scheduler" grep -q '^scheduler \[none\]' /tmp/after

# The kernel's driver has no place for it.
diag "preferred 65536, optimal_io_size $(<$queue/optimal_io_size)"
t "--info" "$A" --info localhost ''
t_says "--info has the preferred size" '^PREF-BLOCK +65536$'
t_says "--info says that the kernel does not get to know it" '^NOTE +PREF-BLOCK stays unknown .*optimal_io_size'
t "detach" "$A" -d $dev
finish
