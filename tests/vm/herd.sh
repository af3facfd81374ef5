#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# All devices of a machine are back soon after their server is: 64 of them within 2.5 s after it listens again.
# timeout: 300

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../hostile/lib.sh
. "${BASH_SOURCE[0]%/*}/../hostile/lib.sh"

devices=64
limit=2500
slack=1000	# for looking, and for a busy machine
T_LIMIT=120

# One thread for each connection: sixteen, the default, cost more than all that is measured here.
serve() { serve_nbdkit 10809 -t 1 file /tmp/disk; }
# $COUNT devices are connected, by their records: --list asks each supervisor, which are busy now.
COUNT=0
look() { COUNT=$(grep -lx alive=1 /run/nbd-attach/nbd* 2>/dev/null | wc -l); }
all_are() {
	look
	((COUNT == $1))
}
listed() { (($("$A" --list -n -O ALIVE | grep -c 1) == $1)); }
milliseconds() { echo $((${EPOCHREALTIME/./} / 1000)); }

modprobe nbd nbds_max=80
make_disk /tmp/disk 16M
# Of the exports each is on one device.
for ((i = 0; i < devices; i++)); do
	echo "nbd$i 127.0.0.1 export$i"
done >/tmp/nbdtab
t "a server" serve
t "attach $devices devices" "$A" --all --nbdtab /tmp/nbdtab
t "all are connected" all_are $devices
t "the server is killed" stop_server nbdkit:10809 KILL
sleep 3
t "none is connected" all_are 0
t "the server is back" serve
began=$(milliseconds)
half=''
while look; (((now = $(milliseconds) - began) < 15000 && COUNT < devices)); do
	((COUNT < devices / 2)) || half=${half:-$now}
	sleep 0.1
done
diag "half of them after ${half:-$now} ms, $COUNT after $now ms"
t "all are connected" test "$COUNT" -eq $devices
t "the list has them" listed $devices
t "within $limit ms" test "$now" -le $((limit + slack))
for device in nbd0 nbd31 nbd63; do
	t "$device answers" reads $device
done
mapfile -t names < <("$A" --list -n -O DEVICE)
t "detach" "$A" -d "${names[@]}"
t "nothing is left" nothing_left
finish
