#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# Whatever becomes of servers, networks and our own processes: verified writes and reads, sixteen at a time, and a file
# system under fsync go on all the while, without one error, and the file system is clean after it.
#
# A usual run kills a server 40 times. By hand, ROUNDS says how often, FEW how often all else is done (a fourteenth of that when
# it is not said), DEVICES how many there are where there are many, AWAY is an outage in seconds:
#   tests/vm/boot -t 7200 -e NBD_ATTACH=$PWD/nbd-attach -e ROUNDS=200 -e AWAY=30 tests/vm/endure.sh
# SEED repeats the moments of an earlier run. PASSES names those that are wanted.

# timeout: 3600

# shellcheck disable=SC2317,SC2016 # t calls the functions; perl's variables
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

a=${NBD_ATTACH:?the program to be tested}
rounds=${ROUNDS:-40}
few=${FEW:-$(((rounds + 13) / 14))}
away=${AWAY:-10}
devices=${DEVICES:-32}
passes=${PASSES:-one servers four kernel relay many}
seed=${SEED:-$$}
RANDOM=$seed
exports=/tmp/exports
fs=/mnt/fs
there=10.9.0.2

# --- the load: nbd0 as it is, and nbd1 with ext4; with pauses, as all share one processor

declare -A loads=()
# fio_load NAME OPTION...: one process for all of a pass, as its start costs more than a hundred requests
fio_load() {
	fio --name="$1" --rw=randwrite --ioengine=libaio --verify=crc32c --verify_fatal=1 --randrepeat=0 --time_based --runtime=7200 \
		"${@:2}" >"/tmp/said.$1" 2>&1 &
	loads[$1]=$!
}

# New files in place of old ones, until the end, or an error; tells how many
files_load() {
	local count=0 n

	until [[ -e /tmp/end ]]; do
		n=$((count % 8))
		if ! { dd if=/dev/urandom of="$fs/new" bs=64k count=1 conv=fsync status=none &&
			(cd "$fs" && sha256sum new) >/tmp/sums/new &&
			mv "$fs/new" "$fs/file$n" && sed "s/new/file$n/" /tmp/sums/new >"/tmp/sums/$n" && sync -f "$fs"; }; then
			echo "file $count has failed"
			return 1
		fi
		count=$((count + 1))
		sleep 1
	done
	echo "$count"
	((count))
}

# So much that some of it has been verified; what was not written is zeros.
raw_has_begun() {
	local reads

	read -r reads _ </sys/block/nbd0/stat
	((reads >= $1 + 16))
}
fs_has_begun() { (($(cat "$fs"/fs.0.* | tr -d '\0' | wc -c) > 12 * 8192)); }

begin_load() {
	local reads

	rm -rf /tmp/end /tmp/sums
	mkdir -p /tmp/sums "$fs"
	mkfs.ext4 -q -F /dev/nbd1 && mount /dev/nbd1 "$fs" || return
	read -r reads _ </sys/block/nbd0/stat
	fio_load raw --filename=/dev/nbd0 --direct=1 --bs=4k --size=2M --iodepth=16 --verify_backlog=32 --thinktime=200ms --thinktime_blocks=32
	fio_load fs --directory="$fs" --nrfiles=4 --bs=8k --size=512k --fsync=1 --verify_backlog=8 --thinktime=100ms --thinktime_blocks=4
	files_load >/tmp/said.files 2>&1 &
	loads[files]=$!
	wait_for 120 raw_has_begun "$reads" && wait_for 120 fs_has_begun
}

# requests NAME: how many reads (of what was written) and writes
requests() { sed -n 's/.*issued rwts: total=\([0-9]*\),\([0-9]*\),.*/\1 \2/p' "/tmp/said.$1"; }
# By our signal, so that it had met no error until then, and not in vain.
fio_was_good() {
	local status=0 reads=0 writes=0

	wait "${loads[$1]}" || status=$?
	read -r reads writes < <(requests "$1")
	((status == 128 && reads > 0 && writes > 0)) && grep -q 'err= 0' "/tmp/said.$1" && return
	echo "status $status"
	cat "/tmp/said.$1"
	return 1
}
files_were_good() { wait "${loads[files]}" && return; cat /tmp/said.files; return 1; }
files_are_right() { (cd "$fs" && cat /tmp/sums/[0-7] | sha256sum -c --quiet) && (($(cat /tmp/sums/[0-7] | wc -l) > 0)); }

# Both answer: only then is anything over.
served() {
	timeout 60 dd if=/dev/nbd0 of=/dev/null bs=4k count=1 iflag=direct status=none &&
		timeout 60 dd if=/dev/zero of="$fs/probe" bs=4k count=1 conv=fsync status=none
}

end_load() {
	touch /tmp/end
	kill -INT "${loads[raw]}" "${loads[fs]}"
	t "$1: no I/O error, and all as it was written" fio_was_good raw
	t "$1: none in the file system" fio_was_good fs
	t "$1: nor in its files" files_were_good
	diag "$1: reads and writes: $(requests raw), in the file system $(requests fs), $(</tmp/said.files) files; reconnected \
$(field 0 RECONNECTS) and $(field 1 RECONNECTS) times"
	t "$1: umount" umount "$fs"
	t "$1: the file system is clean" e2fsck -fn /dev/nbd1
	t "$1: mount" mount -o ro /dev/nbd1 "$fs"
	t "$1: its files are as they were written" files_are_right
	umount "$fs"
}

field() { "$a" --list -n -O "$2" "nbd$1" | tr -d ' '; }
# both COLUMN VALUE
both() { [[ $(field 0 "$1") == "$2" && $(field 1 "$1") == "$2" ]]; }
both_refused() {
	local i

	for i in 0 1; do
		"$a" --list -n -O LAST-ERROR "nbd$i" | grep -q "$1" || return
	done
	both ALIVE 0
}
supervisors() { field 0 SUPERVISOR; field 1 SUPERVISOR; }
detach() { "$a" -d nbd0 && "$a" -d nbd1; }
nothing_left() { no_process "$OURS" && [[ -z $(ls -A /run/nbd-attach) ]]; }
# a part of a second, of at most $1 milliseconds
nap() { sleep "$(printf '0.%03d' $((RANDOM % $1)))"; }

# --- servers, far away; all have the same files

# attach_both PASS OPTION...
attach_both() {
	t "$1: attach nbd0" "$a" "${@:2}" "$there:10809" raw nbd0
	t "$1: attach nbd1" "$a" "${@:2}" "$there:10809" fs nbd1
}
# One thread for each connection: with several, nbdkit 1.32 aborts when a connection is reset under requests.
good() { serve_far "$1" nbdkit -f -t 1 -p "$1" "${tls[@]}" file dir="$exports"; }
tls=()

# kills PASS COUNT PORT...: at any moment, also while it connects again
kills() {
	local pass=$1 count=$2 bad=0 i

	shift 2
	for ((i = 0; i < count; i++)); do
		nap 999
		stop_server "far:$1" KILL || bad=1
		nap 400
		good "$1" || bad=1
		# by turns
		set -- "${@:2}" "$1"
	done
	t "$pass: killed and back $count times" test "$bad" = 0
	t "$pass: both answer" served
}

modprobe nbd nbds_max=$((devices + 2))
modprobe tls
follow_kernel_log
diag "SEED=$seed"
mkdir -p "$exports" /tmp/empty
make_disk "$exports/raw" 64M
make_disk "$exports/fs" 64M
t "another network" far_network

# --- one server

pass_one() {
	local i old

	t "one: a server" good 10809
	attach_both one --peer-timeout 3 --connect-timeout 3
	t "one: begin" begin_load || bail "there is no load"
	kills one "$rounds" 10809

	stop_server far:10809 KILL
	sleep "$away"
	t "one: back after $away s" good 10809
	t "one: both answer" served

	# It accepts, and no more.
	stop_server far:10809 KILL
	t "one: a server that never answers" serve_far 10809 perl -MSocket -e 'socket S, AF_INET, SOCK_STREAM, 0;
		setsockopt S, SOL_SOCKET, SO_REUSEADDR, 1; bind S, pack_sockaddr_in(10809, INADDR_ANY) or die; listen S, 9;
		for (;;) { accept my $c, S; push @c, $c; }'
	t "one: and that is told" wait_for 20 both_refused 'not done in time'
	stop_server far:10809 KILL
	t "one: a good one in its place" good 10809
	t "one: both answer" served

	# What was offered is counted when it is known to be taken, which the first answer may come before.
	t "one: both are connected" wait_for 20 both ALIVE 1
	# Stopped, but alive: waited for.
	old=$(field 0 RECONNECTS)
	kill -STOP -- "-${lib_pids[far:10809]}"
	sleep 3
	kill -CONT -- "-${lib_pids[far:10809]}"
	t "one: it was stopped for 3 s: both answer" served
	t "one: by the same connection" test "$(field 0 RECONNECTS)" = "$old"

	for i in 1 2; do
		ip -n far link set far0 down
		t "one: silence is noticed, $i" wait_for 20 both ALIVE 0
		ip -n far link set far0 up
		t "one: the network is back, $i: both answer" served
	done

	stop_server far:10809 KILL
	t "one: a smaller export" serve_far 10809 nbdkit -f -p 10809 memory 8M
	t "one: is refused" wait_for 20 both_refused shrunk
	stop_server far:10809 KILL
	t "one: one that cannot be written" serve_far 10809 nbdkit -f -p 10809 pattern 64M
	t "one: is refused" wait_for 20 both_refused read-only
	stop_server far:10809 KILL
	t "one: a server without them" serve_far 10809 nbdkit -f -p 10809 file dir=/tmp/empty
	sleep 2
	t "one: is refused" both ALIVE 0
	stop_server far:10809 KILL
	truncate -s 80M "$exports/raw" "$exports/fs"
	t "one: the right ones, larger" good 10809
	t "one: both answer" served
	t "one: both have grown" wait_for 20 both_sizes 80
	t "one: the file system does" resize2fs /dev/nbd1
	truncate -s 96M "$exports/fs"
	t "one: rescan" "$a" --rescan nbd1
	t "one: it has grown at once" test "$(blockdev --getsize64 /dev/nbd1)" = $((96 << 20))
	t "one: and the file system does" resize2fs /dev/nbd1

	for ((i = 0; i < few; i++)); do
		for old in $(supervisors); do
			nap 300
			pkill -KILL -P "$old"
		done
		nap 300
		stop_server far:10809 KILL
		good 10809
	done
	t "one: negotiators are killed $few times: both answer" served
	for ((i = 0; i < few; i++)); do
		nap 500
		# shellcheck disable=SC2046 # words
		kill -KILL $(supervisors)
		((i % 2)) || { stop_server far:10809 KILL; nap 300; good 10809; }
		t "one: supervisors are killed, adopt, $i" "$a" --adopt nbd0
		t "one: adopt, $i" "$a" --adopt nbd1
	done
	t "one: both answer" served
	end_load one
	t "one: detach" detach
	t "one: nothing is left" wait_for 5 nothing_left
	stop_server far:10809
}
both_sizes() { (($(blockdev --getsize64 /dev/nbd0) == $1 << 20 && $(blockdev --getsize64 /dev/nbd1) == $1 << 20)); }

# --- two servers, of which one is there

pass_servers() {
	local i

	for i in 10809 10810; do
		t "servers: $i" good "$i"
	done
	t "servers: attach nbd0" "$a" "nbd://$there:10809/raw" "nbd://$there:10810/raw" nbd0
	t "servers: attach nbd1" "$a" "nbd://$there:10809/fs" "nbd://$there:10810/fs" nbd1
	t "servers: begin" begin_load || bail "there is no load"
	for ((i = 0; i < few; i++)); do
		nap 999
		stop_server far:10809 KILL
		t "servers: the other one takes over, $i" served
		good 10809
		nap 999
		stop_server far:10810 KILL
		t "servers: and back, $i" served
		good 10810
	done
	kills servers "$few" 10809 10810
	end_load servers
	t "servers: detach" detach
	t "servers: nothing is left" wait_for 5 nothing_left
	stop_server far:10809
	stop_server far:10810
}

# --- four connections; a process of the server for each

pass_four() {
	local i

	four() { serve_nbdserver 10820 "raw=$exports/raw,flush=true" "fs=$exports/fs,flush=true"; }
	t "four: nbd-server" four
	t "four: attach nbd0" "$a" -C 4 -t 5 localhost:10820 raw nbd0
	t "four: attach nbd1" "$a" -C 4 -t 5 localhost:10820 fs nbd1
	t "four: begin" begin_load || bail "there is no load"
	for ((i = 0; i < few; i++)); do
		nap 999
		# the first one carries the load
		pkill -KILL -o -P "$SERVER"
		nap 500
		pkill -KILL -n -P "$SERVER"
	done
	t "four: one is lost $((2 * few)) times: both answer" served
	t "four: four are alive" wait_for 20 both ALIVE 4
	for ((i = 0; i < few; i++)); do
		nap 999
		stop_server nbd-server:10820 KILL
		nap 400
		four
	done
	t "four: all are lost $few times: both answer" served
	t "four: four are alive" wait_for 20 both ALIVE 4
	end_load four
	t "four: detach" detach
	t "four: nothing is left" wait_for 5 nothing_left
	stop_server nbd-server:10820
}

# --- TLS: the kernel's, and a relay's

encrypted() {
	local i

	(umask 077 && psktool -u alice -p /run/keys.psk >/dev/null 2>&1)
	tls=(--tls=require --tls-psk=/run/keys.psk)
	t "$1: a server" good 10809
	attach_both "$1" --tls-offload "$2" --tls-psk-file /run/keys.psk
	t "$1: begin" begin_load || bail "there is no load"
	kills "$1" "$few" 10809
	if [[ $1 == relay ]]; then
		for ((i = 0; i < few; i++)); do
			nap 999
			pkill -KILL -x nbd-relay
		done
		t "relay: relays are killed $few times: both answer" served
	fi
	end_load "$1"
	t "$1: detach" detach
	t "$1: nothing is left" wait_for 5 nothing_left
	stop_server far:10809 KILL
	tls=()
}
pass_kernel() {
	if [[ -d /sys/module/tls ]]; then encrypted kernel require; else skip "TLS in the kernel" "there is none"; fi
}
pass_relay() { encrypted relay no; }

# --- many devices, whose server restarts

# everybody COMMAND...: for each device at the same time, its name at the end
everybody() {
	local i status=0 pids=()

	for ((i = 0; i < devices; i++)); do
		"$@" "nbd$i" &
		pids+=($!)
	done
	for i in "${pids[@]}"; do
		wait "$i" || status=1
	done
	return "$status"
}
answers() { timeout 120 dd if="/dev/$1" of=/dev/null bs=4k count=1 iflag=direct status=none; }
# Field 5 is the number of writes.
all_have_written() { awk -v n="$devices" '$5 >= 16 { count++ } END { exit count < n }' /sys/block/nbd*/stat; }
all_reconnected() {
	"$a" --list -n -O ALIVE,RECONNECTS,DEVICE | awk -v n="$devices" '{ print } $1 == 1 && $2 > 0 { good++ } END { exit good != n }'
}
all_detached() {
	local names

	printf -v names 'nbd%d ' $(seq 0 $((devices - 1)))
	# shellcheck disable=SC2086 # words
	"$a" -d $names
}

pass_many() {
	local i failed=0 began

	for ((i = 2; i < devices; i++)); do
		make_disk "$exports/d$i" 1M
	done
	t "many: a server" good 10809
	attach_both many
	for ((i = 2; i < devices; i++)); do
		"$a" "$there:10809" "d$i" "nbd$i" || failed=1
	done
	t "many: $devices are attached" test "$failed" = 0
	t "many: begin" begin_load || bail "there is no load"
	{
		printf '[global]\nrw=randwrite\nbs=4k\nsize=1M\ndirect=1\nioengine=libaio\niodepth=16\nverify=crc32c\nverify_backlog=16\n'
		printf 'verify_fatal=1\ntime_based\nruntime=7200\nthread\ngroup_reporting\nthinktime=2s\nthinktime_blocks=16\n'
		for ((i = 2; i < devices; i++)); do
			printf '[d%s]\nfilename=/dev/nbd%s\n' "$i" "$i"
		done
	} >/tmp/many.fio
	fio /tmp/many.fio >/tmp/said.many 2>&1 &
	loads[many]=$!
	t "many: all have begun" wait_for 120 all_have_written
	for ((i = 0; i < few; i++)); do
		stop_server far:10809 KILL
		nap 999
		good 10809
		nap 999
	done
	began=${EPOCHREALTIME/./}
	t "many: restarted $few times: all answer" everybody answers
	diag "many: all had answered $(((${EPOCHREALTIME/./} - began) / 1000)) ms later"
	kill -INT "${loads[many]}"
	t "many: no I/O error in $((devices - 2)) of them" fio_was_good many
	diag "many: reads and writes of these: $(requests many)"
	end_load many
	t "many: all had been connected again" all_reconnected
	t "many: detach" all_detached
	t "many: nothing is left" wait_for 10 nothing_left
	stop_server far:10809
}

for pass in $passes; do
	began=$SECONDS
	"pass_$pass"
	diag "$pass: $((SECONDS - began)) s"
	t "$pass: no error in the kernel's log" no_kernel_errors
done
finish
