#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# A pause is a cut: when --pause has succeeded, nothing that was waiting to be sent reaches the server any more,
# also where the kernel encrypts the connection, and where a relay does.
# timeout: 400

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../hostile/lib.sh
. "${BASH_SOURCE[0]%/*}/../hostile/lib.sh"

field() { "$A" --list -n -O "$1" nbd0 | tr -d ' '; }
is() { [[ $(field "$1") == "$2" ]]; }
has_tls() { "$A" --list -n -O TLS nbd0 | grep "$1\$"; }
signal_server() { kill -s "$1" -- "-${lib_pids[nbdkit:10809]}"; }
# More waits than the server has room for.
is_queued() {
	local queued

	queued=$(ss -tnH state established '( dport = :10809 )' | awk '{ print $2 }')
	echo "$queued bytes wait"
	((queued > 200000))
}
written() { cmp -n $((8 << 20)) /tmp/data /tmp/disk; }
unchanged() { cmp /tmp/before /tmp/disk; }

# cut TEXT TLS ARG...: writes wait for a server that has stopped, the device is paused, the server goes on
cut() {
	local text=$1 tls=$2 writer status=0

	shift 2
	rm -f /tmp/disk
	make_disk /tmp/disk 16M
	t "$text: a server" serve_nbdkit 10809 "${server[@]}" file /tmp/disk
	t "$text: attach" "$A" --peer-timeout 8 "$@" 127.0.0.1:10809 '' nbd0
	[[ -z $tls ]] || t "$text: TLS by the $tls" has_tls "$tls"
	t "$text: the device answers" reads nbd0
	t "$text: the server stops" signal_server STOP
	cp /tmp/disk /tmp/before
	dd if=/tmp/data of=/dev/nbd0 bs=1M count=8 oflag=direct conv=notrunc status=none &
	writer=$!
	t "$text: writes wait to be sent" wait_for 5 is_queued
	sleep 0.3
	took "$A" --pause nbd0 >/tmp/paused 2>&1 || status=$?
	signal_server CONT
	diag "$text: pause: exit $status after $TOOK ms" "$(</tmp/paused)"
	if ((status)); then
		t "$text: it says why it is not done" grep -q '^nbd-attach: .*nbd0' /tmp/paused
		t "$text: and has come back itself" test $status -ne 124 -a $status -lt 128
	else
		sleep 3
		t "$text: nothing is written after a pause that has succeeded" unchanged
		t "$text: it is paused" is PAUSED 1
	fi
	t "$text: resume" "$A" --resume nbd0
	t "$text: the writer ends" wait_for 30 ended "$writer"
	t "$text: without an error" wait "$writer"
	t "$text: all is written" written
	t "$text: detach" "$A" -d nbd0 || start_afresh
	t "$text: the server is gone" stop_server nbdkit:10809 KILL
}

modprobe nbd
head -c 8M /dev/urandom >/tmp/data
psktool -u alice -p /run/keys.psk >/dev/null 2>&1
chmod 600 /run/keys.psk
# What a server has received it can carry out, whatever becomes of the connection. So that is less than one
# request here: none can be complete.
t "little room on the server's side" sysctl -q -w net.ipv4.tcp_rmem='4096 16384 32768'

server=()
cut "plain TCP" ''
server=(--tls=require --tls-psk=/run/keys.psk)
cut "TLS by the kernel" kernel --tls-offload require --tls-psk-file /run/keys.psk
cut "TLS by a relay" relay --tls-offload no --tls-psk-file /run/keys.psk
t "nothing is left" nothing_left
finish
