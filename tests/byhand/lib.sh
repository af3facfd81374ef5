# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# After lib.sh of the guest scripts and ../hostile/lib.sh: a device, nbd0, whose supervisor (byhand) does what a
# script tells it.
#
#   hand COMMAND...            one command of byhand (see byhand.c); prints it and its answer, which goes into
#                              $SAID without its "ok"
#   says RESULT COMMAND...     and its result is this one
#   byhand_start; byhand_end
#   serve                      nbdkit for /tmp/disk at port 10800; server_killed; server_signal SIGNAL
#   load                       a verified load on all of the first 16 MiB of nbd0 in the background, until
#   load_passed                which wants it to have met no error; $LONGEST: its longest request, ms
#   longest_below MS
#   too_much                   64 MiB are written at once, by $WRITER in the background
#   full; waits                the connection is so, with data that nobody takes
#   works SECONDS              something can be written and read
#   released NAME              disconnects; checks that this is told to nobody

# shellcheck disable=SC2034 # used by the scripts
byhand=${NBD_ATTACH%/*}/tests/byhand/byhand
[[ -x $byhand ]] || bail "there is no $byhand (make tests/byhand/byhand)"
SAID=''
LONGEST=0
UNSENT=0

byhand_start() {
	coproc BYHAND { exec "$byhand" 2>&1; }
	# shellcheck disable=SC2153 # coproc sets it
	byhand_pid=$BYHAND_PID
}

byhand_end() {
	local fd=${BYHAND[1]}

	exec {fd}>&-
	wait "$byhand_pid"
}

hand() {
	local answer=''

	echo "$*" >&"${BYHAND[1]}"
	if ! read -r -t "$T_LIMIT" -u "${BYHAND[0]}" answer; then
		echo "$*: no answer"
		return 1
	fi
	echo "$*: $answer"
	SAID=${answer#ok}
	SAID=${SAID# }
	[[ $answer == ok* ]]
}

says() {
	local result=$1

	shift
	hand "$@" && [[ $SAID == "$result" ]]
}

# One thread for each connection: with several nbdkit 1.32 aborts (an assertion in raw_send_socket) when a connection with
# requests is reset.
serve() { serve_nbdkit 10800 -t 1 file /tmp/disk; }
server_killed() { stop_server nbdkit:10800 KILL; }
# shellcheck disable=SC2154 # of lib.sh
server_signal() { kill -s "$1" -- "-${lib_pids[nbdkit:10800]}"; }

load() {
	fio --name=load --filename=/dev/nbd0 --size=16M --rw=randrw --bs=4k --direct=1 --ioengine=libaio \
		--iodepth=16 --verify=crc32c --verify_fatal=1 --verify_backlog=64 --time_based --runtime=3000 \
		--output-format=json --output=/tmp/load.json >/tmp/load 2>&1 &
	byhand_load=$!
	wait_for 20 load_runs
}

# Reads and writes: 11 fields and more in /sys/block/nbd0/stat, Documentation/block/stat.rst.
load_runs() {
	local fields before

	read -ra fields </sys/block/nbd0/stat
	before=${fields[4]}
	sleep 0.2
	read -ra fields </sys/block/nbd0/stat
	((fields[4] > before))
}

load_passed() {
	local status=0

	kill -INT "$byhand_load"
	wait "$byhand_load" || status=$?
	cat /tmp/load
	sed -n '/^{/,$p' /tmp/load.json >/tmp/load.result
	LONGEST=$(jq '[.jobs[0].read.clat_ns.max, .jobs[0].write.clat_ns.max] | max / 1e6 | floor' /tmp/load.result)
	jq -c '.jobs[0] | [.error, .read.total_ios, .write.total_ios]' /tmp/load.result
	echo "fio: status $status, the longest request took $LONGEST ms"
	# 128: by our signal, so that it ran until now.
	((status == 128)) && jq -e '.jobs[0] | .error == 0 and .read.total_ios > 100' /tmp/load.result >/dev/null
}

longest_below() {
	echo "the longest request took $LONGEST ms"
	((LONGEST < $1))
}

too_much() {
	dd if=/dev/zero of=/dev/nbd0 bs=64M count=1 oflag=direct conv=notrunc 2>/tmp/much &
	WRITER=$!
}

byhand_unsent() {
	local peer state queues

	UNSENT=0
	while read -r _ _ peer state queues _; do
		[[ $peer != *:2A30 || $state != 01 ]] || ((UNSENT += 16#${queues%:*}))
	done </proc/net/tcp
	echo "not acknowledged: $UNSENT"
}

waits() {
	byhand_unsent
	((UNSENT > 0))
}

full() {
	local before

	byhand_unsent
	before=$UNSENT
	sleep 1
	byhand_unsent
	((UNSENT > 8 << 20 && UNSENT == before))
}

works() {
	timeout "$1" dd if=/dev/urandom of=/dev/nbd0 bs=64k count=4 seek=400 oflag=direct conv=notrunc &&
		timeout "$1" dd if=/dev/nbd0 of=/dev/null bs=64k count=4 skip=400 iflag=direct
}

released() {
	t "$1: disconnect" says over disconnect 10000
	t "$1: nobody is told of a death" says none event 300
	t "$1: the device is free" wait_for 5 test ! -e /sys/block/nbd0/pid
}
