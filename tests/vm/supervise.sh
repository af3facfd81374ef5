#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# A lost server is a pause: whatever becomes of the connections and of the processes that look after
# them, no I/O fails, no data is lost, and a detach leaves nothing.
# timeout: 1800

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

a=${NBD_ATTACH:?the program to be tested}
LOAD=''

# field DEVICE COLUMN
field() {
	"$a" --list -n -O "$2" "$1" | tr -d ' '
}

# is DEVICE COLUMN VALUE
is() {
	local value

	value=$(field "$1" "$2")
	[[ $value == "$3" ]] || echo "$2 of $1 is '$value', not '$3'"
	[[ $value == "$3" ]]
}

# load DEVICE SECONDS: verified writes and reads all the time, in the background.
load() {
	fio --name=load --filename="/dev/$1" --rw=randrw --bs=4k --size=8M --direct=1 --ioengine=libaio \
		--iodepth=16 --verify=crc32c --verify_fatal=1 --runtime="$2" --time_based \
		--output="/tmp/load.$1" >/dev/null 2>&1 &
	LOAD=$!
}

# What the load says at its end: no error, and something done.
load_was_good() {
	local status=0

	wait "$LOAD" || status=$?
	grep -q 'err= 0' "/tmp/load.$1" || status=1
	((!status)) || cat "/tmp/load.$1"
	return "$status"
}

ended() { [[ ! -e /proc/$1 ]]; }

reads() {
	timeout 20 dd if="/dev/$1" of=/dev/null bs=4k count=1 iflag=direct
}

nothing_left() {
	local left=0

	if pgrep -a nbd-attach; then left=1; fi
	if [[ -n $(ls /run/nbd-attach) ]]; then
		ls -la /run/nbd-attach
		left=1
	fi
	return "$left"
}

# --- the server goes and comes

modprobe nbd
make_disk /tmp/disk 16M
serve() {
	serve_nbdkit 10809 file /tmp/disk
}
t "nbdkit" serve
t "attach" "$a" localhost '' nbd0
supervisor=$(field nbd0 SUPERVISOR)
t "a supervisor stays" kill -0 "$supervisor"
t "it is the one that the kernel names" test "$(cat /sys/block/nbd0/pid)" = "$supervisor"
# The kernel says twice what was asked for. A request that is half sent when its connection dies can be lost.
send_room() { ss -tmnH state established '( dport = :10809 )' | grep -q tb33554432; }
t "the connection has room for whole requests" send_room
load nbd0 12
for i in 1 2 3; do
	sleep 1
	t "the server is killed, $i" stop_server nbdkit:10809 KILL
	t "and started, $i" serve
	t "the device answers" reads nbd0
done
t "no I/O error in the load" load_was_good nbd0
t "three times reconnected" wait_for 5 is nbd0 RECONNECTS 3
t "the new connection has room for whole requests" send_room
t "one connection is alive" is nbd0 ALIVE 1
t "the record has it, too" grep -qx alive=1 /run/nbd-attach/nbd0

# Nothing shows whether the kernel has taken a connection without a limit for requests. It is offered again and again, one that was
# dropped is taken then. Writing to the queue while requests wait could wait for them.
strace -f -qq -ttt -o /tmp/offers -e trace=sendmsg,openat -p "$supervisor" &
tracer=$!
t "traced" wait_for 10 bash -c "grep -q 'TracerPid:[[:space:]]*[1-9]' /proc/$supervisor/status"
t "the server is killed" stop_server nbdkit:10809 KILL
t "and started" serve
t "reconnected" wait_for 10 is nbd0 RECONNECTS 4
kill $tracer
wait $tracer
# offers COUNT MS: so many, from the first to the last at least so long
offers() { awk -v n="$1" -v ms="$2" '/AF_NETLINK/ { if (!i++) first = $2; last = $2 } { print }
	END { exit i < n || (last - first) * 1000 < ms }' /tmp/offers; }
t "the connection was offered four times, in 0.6 s" offers 4 600
t "nothing of the queue was opened" bash -c '! grep queue/ /tmp/offers'

# --- a long time without a server; the reason is told

load nbd0 4
t "the server is killed" stop_server nbdkit:10809 KILL
sleep 6
t "no connection is alive" is nbd0 ALIVE 0
"$a" --list --json -O DEVICE,CONNECTIONS,ALIVE,RECONNECTS,LAST-ERROR,ERROR-TIME,PEER,TLS,SUPERVISOR,PAUSED nbd0 >/tmp/json
t "the record has it, too" grep -qx alive=0 /run/nbd-attach/nbd0
t "the reason is in the list" jq -e '.devices[0]."last-error" | test("Connection refused")' /tmp/json
t "and when that was" jq -e '.devices[0]."error-time" | test("^20[0-9]{2}-[0-9]{2}-[0-9]{2}T.*Z$")' /tmp/json
t "and what it is about" jq -e '.devices[0] | .alive == 0 and .connections == 1 and .reconnects >= 3 and .paused == false and
	(.peer | test(":10809$")) and .tls == null and .supervisor > 1' /tmp/json
t "the server comes back" serve
t "no I/O error in the load" load_was_good nbd0

# --- what was under way at the death is sent again within seconds, for one connection by a short timer without a limit

io_timeout() { [[ $(</sys/block/nbd0/queue/io_timeout) == "$1" ]]; }
t "the timer is short, also after reconnections" io_timeout 1000
# inflight DEVICE
inflight() { awk '{ exit $9 < 1 }' "/sys/block/$1/stat"; }
kill -STOP -- "-$SERVER"
dd if=/dev/nbd0 of=/dev/null bs=4k count=1 skip=100 iflag=direct 2>/dev/null &
reader=$!
t "a request is under way" wait_for 10 inflight nbd0
sleep 3
t "and waits for a slow server" kill -0 $reader
t "by the same connection" is nbd0 ALIVE 1
t "the server is killed" stop_server nbdkit:10809 KILL
t "and comes back" serve
began=$SECONDS
t "the request is answered" wait $reader
t "within seconds" test $((SECONDS - began)) -lt 15

# Whoever writes to the queue waits for the requests that wait for the connection, and whoever reads it then waits, too. That is not to
# be the one who makes the connection.
t "the server is killed" stop_server nbdkit:10809 KILL
t "no connection is alive" wait_for 5 is nbd0 ALIVE 0
dd if=/dev/nbd0 of=/dev/null bs=4k count=1 skip=200 iflag=direct 2>/dev/null &
reader=$!
sleep 0.5
bash -c 'echo 100 >/sys/block/nbd0/queue/nr_requests' &
writer=$!
sleep 0.5
t "a request waits" kill -0 $reader
t "who sets the queue's depth waits for it" kill -0 $writer
t "who asks whether it is alive does not" timeout 5 "$a" --list -n -O ALIVE,LAST-ERROR nbd0
t "the server comes back" serve
t "a request is answered all the same" wait_for 20 ended $reader
t "and the depth is set" wait_for 5 ended $writer

# --- planned: nbdkit that is asked to stop answers ESHUTDOWN to whom it still serves

load nbd0 8
sleep 1
t "pause" "$a" --pause nbd0
t "it is paused" is nbd0 PAUSED 1
t "nbdkit is asked to stop" stop_server nbdkit:10809 TERM
t "nbdkit again" serve
sleep 1
t "nobody has come back by himself" is nbd0 ALIVE 0
t "resume" "$a" --resume nbd0
t "it is not paused" is nbd0 PAUSED 0
t "no I/O error in the load" load_was_good nbd0

# --- another export in its place is refused, until the right one is back; a larger one makes the device grow

t "the server is killed" stop_server nbdkit:10809 KILL
t "a smaller export in its place" serve_nbdkit 10809 memory 8M
is_refused() {
	"$a" --list -n -O LAST-ERROR nbd0 | grep -q "$1"
}
t "is not connected" wait_for 10 is_refused shrunk
t "no connection is alive" is nbd0 ALIVE 0
stop_server nbdkit:10809 KILL
t "one that is read-only" serve_nbdkit 10809 pattern 16M
t "is not connected either" wait_for 10 is_refused 'read-only'
stop_server nbdkit:10809 KILL
truncate -s 32M /tmp/disk
t "the right one, larger" serve
t "the device answers" reads nbd0
grown() {
	[[ $(blockdev --getsize64 /dev/nbd0) == "$1" ]]
}
t "it has grown" wait_for 15 grown 33554432
truncate -s 48M /tmp/disk
t "rescan" "$a" --rescan nbd0
t "it has grown at once" grown 50331648
# The server tells each connection the size, and holds it to that.
end_of() { timeout 20 dd if="/dev/$1" of=/dev/null bs=512 skip=$(($2 - 1)) count=1 iflag=direct; }
t "and can be read to its end" end_of nbd0 98304

# --- those who look after it are killed

load nbd0 14
negotiator() {
	pgrep -P "$(field nbd0 SUPERVISOR)"
}
t "the negotiator is killed" kill -KILL "$(negotiator)"
sleep 1
t "there is another one" negotiator
stop_server nbdkit:10809 KILL
t "the server is restarted" serve
t "the device answers" reads nbd0
supervisor=$(field nbd0 SUPERVISOR)
t "the supervisor is killed" kill -KILL "$supervisor"
t "the list shows none" wait_for 5 is nbd0 SUPERVISOR ''
# An older version's record has less in it, a later one's more.
sed -i '/^\(name\|tls\|alive\|last-error\|error-time\)=/d; $a later=1' /run/nbd-attach/nbd0
t "adopt, by a record of another version" "$a" --adopt nbd0
t "there is another one" test "$(field nbd0 SUPERVISOR)" != "$supervisor"
stop_server nbdkit:10809 KILL
t "the server is restarted" serve
t "the device answers" reads nbd0
kill -KILL "$(field nbd0 SUPERVISOR)"
stop_server nbdkit:10809 KILL
t "the server is restarted without a supervisor" serve
t "adopt, of a device without a connection" "$a" --adopt nbd0
t "the device answers" reads nbd0
before=$(field nbd0 SUPERVISOR)
t "adopt, from one that is alive" "$a" --adopt nbd0
t "it has ended" wait_for 5 bash -c "! kill -0 $before"
t "no I/O error in the load" load_was_good nbd0

# --- the end

exec 9</dev/nbd0
t "SIGTERM while it is in use" kill "$(field nbd0 SUPERVISOR)"
t "is refused, and why is logged" wait_for 30 bash -c 'dmesg | grep -q "not detached: nbd0 is in use"'
t "the device is still there" reads nbd0
exec 9<&-
t "SIGTERM when it is not" kill "$(field nbd0 SUPERVISOR)"
t "detaches" wait_for 15 bash -c '! test -e /sys/block/nbd0/pid'
t "nothing is left" wait_for 5 nothing_left
t "attach" "$a" localhost '' nbd0
t "detach" "$a" -d nbd0
t "nothing is left" nothing_left
# A detach takes the connection away before the device, which stays as long as somebody has it open.
t "nbdkit with a log" serve_nbdkit 10814 --filter=log memory 16M logfile=/tmp/log
t "attach" "$a" localhost:10814 '' nbd0
dmesg -C
connections() { (($(ss -Htn state established "( dport = :$1 )" | wc -l) == $2)); }
exec 9</dev/nbd0
"$a" -d --force nbd0 9<&- &
t "the connection goes" wait_for 20 connections 10814 0
sleep 0.3
t "the device is there still" test -e /sys/block/nbd0/pid
exec 9<&-
t "detach" wait $!
t "nothing is left" wait_for 5 nothing_left
t "a detach is taken for no loss" bash -c '! dmesg | grep "lost . of"'
connects() { (($(grep -cw Connect /tmp/log) == $1)) || { cat /tmp/log; return 1; }; }
t "nor is there a connection after it" connects 1
stop_server nbdkit:10814
t "attach" "$a" --no-supervise localhost '' nbd0
t "without a supervisor no process is there" bash -c '! pgrep -a nbd-attach'
t_fails 8 "nor anybody to pause" "$a" --pause nbd0
t_fails 7 "nor to adopt" "$a" --adopt nbd0
t "detach" "$a" -d nbd0

# Without a supervisor a lost connection is an error, at once or after a while.
# fails_after DEAD-TIMEOUT: $TOOK, seconds until the error
fails_after() {
	local began status=0

	"$a" --no-supervise --dead-timeout "$1" localhost '' nbd0 || return
	stop_server nbdkit:10809 KILL
	began=$SECONDS
	reads nbd0 || status=$?
	TOOK=$((SECONDS - began))
	# of dd, not of its time limit
	((status == 1)) && "$a" -d --force nbd0 && serve
}
TOOK=0
t "a lost connection is an error" fails_after 0
t "at once" test $TOOK -lt 6
t "with --dead-timeout it is one, too" fails_after 6
t "but later" test $TOOK -ge 5

# --- no way back: given up

t "attach" "$a" --reconnect-timeout 2 localhost '' nbd0
stop_server nbdkit:10809 KILL
t "given up after two seconds" wait_for 15 bash -c '! test -e /sys/block/nbd0/pid'
t "nothing is left" wait_for 5 nothing_left

# --- several connections, and several servers

# nbd-server has a process for each connection.
served() { (($(pgrep -c -P "$SERVER") == $1)) || { pgrep -a -P "$SERVER"; return 1; }; }
t "nbd-server" serve_nbdserver 10810 disk=/tmp/disk
t "four connections" "$a" -C 4 -t 3 localhost:10810 disk nbd1
t "several have a limit for each request" test "$(</sys/block/nbd1/queue/io_timeout)" = 3000
load nbd1 8
t "one of them is lost" pkill -KILL -o -P "$SERVER"
t "it is replaced" wait_for 10 is nbd1 RECONNECTS 1
t "four are alive" wait_for 5 is nbd1 ALIVE 4
t "no I/O error in the load" load_was_good nbd1
t "all are lost" stop_server nbd-server:10810 KILL
t "nbd-server" serve_nbdserver 10810 disk=/tmp/disk
t "four are alive" wait_for 15 is nbd1 ALIVE 4
# Which of them are alive shows only by whether the kernel takes another one.
load nbd1 10
t "the supervisor is killed" kill -KILL "$(field nbd1 SUPERVISOR)"
t "and one connection lost" pkill -KILL -n -P "$SERVER"
t "adopt" "$a" --adopt nbd1
t "that one is replaced, and no other" wait_for 15 served 4
t "four are alive" wait_for 10 is nbd1 ALIVE 4
t "another one is lost" pkill -KILL -o -P "$SERVER"
t "and replaced" wait_for 15 served 4
t "four are alive" wait_for 5 is nbd1 ALIVE 4
t "no I/O error in the load" load_was_good nbd1
# The others are the kernel's alone.
t_fails 7 "there is no pause for connections that cannot be broken" "$a" --pause nbd1
t_says "and why" 'connection . of 4 was made by a supervisor that was killed'
truncate -s 64M /tmp/disk
t_fails 7 "nor growth" "$a" --rescan nbd1
# The one that asked for the size is going.
t "none was made to replace them" wait_for 5 served 4
t "all are lost" stop_server nbd-server:10810 KILL
t "nbd-server" serve_nbdserver 10810 disk=/tmp/disk
t "four are alive" wait_for 15 is nbd1 ALIVE 4
t "it grows then" wait_for 30 end_of nbd1 131072
t "pause" "$a" --pause nbd1
t "resume" "$a" --resume nbd1
dmesg -C
truncate -s 72M /tmp/disk
t "rescan" "$a" --rescan nbd1
t "it can be read to its new end" end_of nbd1 147456
t "all of them were replaced" test "$(dmesg | grep -c 'nbd1: connection . of 4 is renewed, as the export has grown')" = 4
t "four are alive" is nbd1 ALIVE 4
t "detach" "$a" -d nbd1

# For a new size the kernel waits for all requests, and takes no new connection while it waits.
t "one connection, ten seconds for each request" "$a" -t 10 localhost:10810 disk nbd1
kill -STOP "$(pgrep -n -P "$SERVER")"
dd if=/dev/nbd1 of=/dev/null bs=4k count=1 skip=100 iflag=direct 2>/dev/null &
reader=$!
t "a request is under way" wait_for 10 inflight nbd1
truncate -s 80M /tmp/disk
t "rescan" "$a" --rescan nbd1
t_fails 1 "it grows when no request is under way" inflight nbd1
t "the one that was is answered" wait $reader
t "it can be read to its new end" end_of nbd1 163840
t "detach" "$a" -d nbd1
stop_server nbd-server:10810

t "a first server" serve_qemu 10811 /tmp/disk -e 8
t "a second one" serve_qemu 10812 /tmp/disk -e 8
t "attach to both" "$a" nbd://localhost:10811 nbd://localhost:10812 nbd2
t "the first is used" bash -c "'$a' --list -n -O PEER nbd2 | grep -q 10811"
load nbd2 10
stop_server qemu-nbd:10811 KILL
t "the second takes over" wait_for 5 bash -c "'$a' --list -n -O PEER nbd2 | grep -q 10812"
t "the device answers" reads nbd2
t "the first is back" serve_qemu 10811 /tmp/disk -e 8
stop_server qemu-nbd:10812 KILL
t "and takes over" wait_for 5 bash -c "'$a' --list -n -O PEER nbd2 | grep -q 10811"
t "no I/O error in the load" load_was_good nbd2
t "detach" "$a" -d nbd2
stop_server qemu-nbd:10811

# --- TLS, by the kernel and by a relay

(umask 077 && psktool -u alice -p /tmp/keys.psk >/dev/null 2>&1)
for offload in require no; do
	t "nbdkit with TLS" serve_nbdkit 10813 --tls=require --tls-psk=/tmp/keys.psk file /tmp/disk
	t "attach, offload $offload" "$a" --tls-offload $offload --tls-psk-file /tmp/keys.psk localhost:10813 '' nbd3
	load nbd3 6
	sleep 1
	t "the server is killed" stop_server nbdkit:10813 KILL
	t "nbdkit with TLS" serve_nbdkit 10813 --tls=require --tls-psk=/tmp/keys.psk file /tmp/disk
	t "the device answers" reads nbd3
	t "no I/O error in the load" load_was_good nbd3
	t "detach" "$a" -d nbd3
	t "nothing is left" wait_for 5 nothing_left
	stop_server nbdkit:10813 KILL
done
t "no relay is left" wait_for 5 bash -c '! pgrep -x nbd-relay'
finish
