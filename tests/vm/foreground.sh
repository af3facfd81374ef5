#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# --foreground: one process from the attach to the end, which tells a service manager how it is; whatever
# becomes of it, nothing is half attached, and the next one goes on where it ended.

# timeout: 600

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

a=${NBD_ATTACH:?the program to be tested}
PID=''
MANAGER=''

# manager ADDRESS: collects datagrams, a line each (newlines become spaces), in /tmp/told
manager() {
	: >/tmp/told
	perl -MSocket -e '
		my $to = $ARGV[0];
		unlink $to;
		$to =~ s/^@/\0/;
		my $s;
		socket($s, AF_UNIX, SOCK_DGRAM, 0) && bind($s, pack_sockaddr_un($to)) or die $!;
		open(my $out, ">>", "/tmp/told") or die $!;
		$out->autoflush;
		print $out "open\n";
		while (defined recv($s, my $said, 65536, 0)) { $said =~ tr/\n/ /; print $out "$said\n"; }
	' "$1" &
	MANAGER=$!
	wait_for 10 grep -q open /tmp/told
}

told() { grep -E "^$1" /tmp/told || { cat /tmp/told; return 1; }; }
told_times() { (($(grep -cE "^$1" /tmp/told) >= $2)); }
gone() { [[ ! -e /sys/block/nbd0/pid ]]; }
ended() { ! kill -0 "$1" 2>/dev/null; }
reads() { [[ $(timeout 20 dd if=/dev/nbd0 bs=4k count=1 iflag=direct | wc -c) == 4096 ]]; }

# start ENVIRONMENT... -- ARG...: in the background, $PID
start() {
	local environment=()

	while [[ $1 != -- ]]; do
		environment+=("$1")
		shift
	done
	shift
	env "${environment[@]}" "$a" --foreground "$@" >/tmp/stdout 2>/tmp/stderr &
	PID=$!
}

nothing_left() {
	local left=0

	if pgrep -a nbd-attach || pgrep -a nbd-negotiator; then left=1; fi
	if [[ -n $(ls /run/nbd-attach) ]]; then
		ls -la /run/nbd-attach
		left=1
	fi
	return "$left"
}

# status_is STATUS: of $PID, which has ended
status_is() {
	local status=0

	wait "$PID" || status=$?
	((status == $1)) || { echo "exit status $status"; cat /tmp/stderr; return 1; }
}

modprobe nbd
make_disk /tmp/disk 16M
serve() { serve_nbdkit 10809 file /tmp/disk; }
t "nbdkit" serve

for address in /run/notify @nbd-attach-test; do
	t "$address: a manager" manager "$address"
	start "NOTIFY_SOCKET=$address" WATCHDOG_USEC=1000000 -- localhost '' nbd0
	t "$address: it is ready" wait_for 20 told 'READY=1'
	t "$address: so is the device" reads
	t "$address: the process is ours" test "$(cat /sys/block/nbd0/pid)" = "$PID"
	t "$address: says where to" wait_for 5 told 'STATUS=nbd0: connected to 127.0.0.1'
	t "$address: no watcher has stayed" test "$(pgrep -c nbd-attach)" = 1
	t "$address: it is alive" wait_for 5 told_times 'WATCHDOG=1' 3
	t "$address: the server is killed" stop_server nbdkit:10809 KILL
	t "$address: that is told" wait_for 10 told 'STATUS=nbd0: 0 of 1 connections, reconnecting: .*refused'
	t "$address: and logged here" wait_for 5 grep -q '^nbd-attach: nbd0: lost 1 of 1 connections' /tmp/stderr
	t "$address: the server is back" serve
	t "$address: connected again" wait_for 15 told_times 'STATUS=nbd0: connected to' 2
	t "$address: pause" "$a" --pause nbd0
	t "$address: is told" wait_for 5 told 'STATUS=nbd0: paused'
	t "$address: resume" "$a" --resume nbd0
	t "$address: not the end yet" bash -c '! grep STOPPING /tmp/told'
	t "$address: SIGHUP" kill -HUP "$PID"
	t "$address: is nothing" reads
	exec 9</dev/nbd0
	t "$address: SIGTERM while it is in use" kill "$PID"
	t "$address: is refused" wait_for 20 grep -q 'not detached yet: nbd0 is in use' /tmp/stderr
	sleep 3
	t "$address: which is said once" test "$(grep -c 'is in use' /tmp/stderr)" = 1
	t "$address: and not told" bash -c '! grep STOPPING /tmp/told'
	t "$address: the device is there" reads
	exec 9<&-
	# it was asked already
	t "$address: detaches" wait_for 15 gone
	t "$address: with success" status_is 0
	t "$address: the end is told" told 'STOPPING=1'
	t "$address: nothing is left" wait_for 5 nothing_left
	kill "$MANAGER"
done

# --- without a manager; a detach by another process

start -- -f --show localhost ''
t "the device is shown" wait_for 20 grep -q '^/dev/nbd0$' /tmp/stdout
exec 9</dev/nbd0
t "SIGTERM while it is in use" kill "$PID"
t "is refused" wait_for 20 grep -q 'not detached: nbd0 is in use' /tmp/stderr
exec 9<&-
sleep 3
t "for good" reads
t "SIGINT" kill -INT "$PID"
t "is the end" status_is 0
start JOURNAL_STREAM=1:2 -- localhost '' nbd0
t "attached" wait_for 20 reads
t "detach" "$a" -d nbd0
t "ends it" status_is 0
t "the journal gets the level" grep -q '^<5>nbd-attach: nbd0: detached' /tmp/stderr
t "nothing is left" nothing_left

# --- killed: the device stays, and the next one takes it over

start -- localhost '' nbd0
t "attached" wait_for 20 "$a" -c nbd0
wait_for 5 test -e /run/nbd-attach/nbd0.ctl
kill -KILL "$PID"
wait "$PID" 2>/dev/null
t "killed, the device is there" reads
t "a manager" manager /run/notify
start NOTIFY_SOCKET=/run/notify -- localhost '' nbd0
t "the next one takes over" wait_for 20 told 'READY=1'
t "it is the supervisor" test "$("$a" --list -n -O SUPERVISOR nbd0 | tr -d ' ')" = "$PID"
t_fails 7 "a third one has nothing to do" "$a" --foreground localhost '' nbd0
t_says "and says why" "supervised by process $PID"
t_fails 7 "nor for another export" "$a" --foreground localhost other nbd0
t "the server is killed" stop_server nbdkit:10809 KILL
t "and back" serve
t "the device answers" reads
t "detach" "$a" -d nbd0
t "is the end" status_is 0
kill "$MANAGER"

# --- before it is attached

t_fails 2 "an address that cannot be" env NOTIFY_SOCKET=vsock:2:3 "$a" --foreground localhost '' nbd0
t_fails 3 "no server" "$a" --foreground localhost:1 '' nbd0
stop_server nbdkit:10809
stopped() { kill -STOP "$SERVER"; }
t "a server" serve
t "that is stopped" stopped
start -- localhost '' nbd0
sleep 1
t "SIGTERM during the attach" kill "$PID"
t "is the end of it" status_is 1
t "it says so" grep -q 'interrupted; nothing is attached' /tmp/stderr
# Killed at moments all over the attach: the watcher takes back what there is.
kill -CONT "$SERVER"
for delay in 0.02 0.05 0.1 0.15 0.2 0.3; do
	start -- localhost '' nbd0
	sleep $delay
	kill -KILL "$PID"
	wait "$PID" 2>/dev/null
	settled() { ! pgrep nbd-attach && { gone || [[ -e /run/nbd-attach/nbd0 ]]; }; }
	t "killed after $delay s: nothing is half attached" wait_for 15 settled
	"$a" -d nbd0 2>/dev/null
	rm -f /run/nbd-attach/*
done

# --- given up

start -- --reconnect-timeout 2 localhost '' nbd0
t "attached" wait_for 20 "$a" -c nbd0
stop_server nbdkit:10809 KILL
t "given up is a failure" status_is 3
t "that is told" grep -q 'given up after 2 s' /tmp/stderr
t "nothing is left" wait_for 5 nothing_left
finish
