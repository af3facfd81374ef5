#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# Several servers with the same export: one at a time serves the device, whatever becomes of single
# connections; and the device grows only as far as each of them does.
# timeout: 600

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../hostile/lib.sh
. "${BASH_SOURCE[0]%/*}/../hostile/lib.sh"

field() { "$A" --list -n -O "$1" nbd0 | tr -d ' '; }
is() { [[ $(field "$1") == "$2" ]]; }
# has_clients PORT COUNT: so many connections to this port are established
has_clients() { (($(ss -tnH state established "( sport = :$1 )" | wc -l) == $2)); }
# mebibytes COUNT: the size of the device
mebibytes() {
	local sectors

	sectors=$(</sys/block/nbd0/size)
	echo "$((sectors / 2048)) MiB"
	((sectors == $1 * 2048))
}

modprobe nbd
make_disk /tmp/disk 16M

# --- connections are not spread over servers

serve_proxy() { lib_serve "proxy:$1" tcp_listening "$1" lib_start "$hostile_dir/proxy" "$1" "$2"; }
t "the server behind a" serve_nbdkit 10808 file /tmp/disk
t "server a" serve_proxy 10809 10808
proxy=$SERVER
t "server b" serve_nbdkit 10810 file /tmp/disk
t "attach by two connections" "$A" -C 2 -t 10 nbd://127.0.0.1:10809/ nbd://127.0.0.1:10810/ nbd0
t "a has both" has_clients 10808 2
kill -USR1 "$proxy"
t "a breaks one, and refuses others" wait_for 10 is ALIVE 1
sleep 3
t "one is alive" is ALIVE 1
t "it is a's" has_clients 10808 1
t "b has none, as long as a has one" has_clients 10810 0
t "the device answers" reads nbd0
kill -USR2 "$proxy"
t "a accepts again: both are alive" wait_for 10 is ALIVE 2
t "both are a's again" has_clients 10808 2
t "the device answers" reads nbd0
stop_server "proxy:10809" KILL
t "a is gone: both are b's" wait_for 20 has_clients 10810 2
t "both are alive" wait_for 10 is ALIVE 2
t "the device answers" reads nbd0
t "detach" "$A" -d nbd0
stop_server nbdkit:10808 KILL
stop_server nbdkit:10810 KILL

# --- a server that does not permit several connections takes no part in that

t "server a" serve_nbdkit 10809 file /tmp/disk
t "server b, which has no CAN_MULTI_CONN" serve_nbdkit 10810 --filter=multi-conn file /tmp/disk multi-conn-mode=disable
t "attach by two connections" "$A" -C 2 -t 10 nbd://127.0.0.1:10809/ nbd://127.0.0.1:10810/ nbd0
t "a is killed" stop_server nbdkit:10809 KILL
sleep 3
t "b is no replacement" is ALIVE 0
t "the reason is in the list" grep -qi 'connections' <(field LAST-ERROR)
t "a is back" serve_nbdkit 10809 file /tmp/disk
t "both connections are alive" wait_for 20 is ALIVE 2
t "detach" "$A" -d nbd0
stop_server nbdkit:10809 KILL
stop_server nbdkit:10810 KILL

# --- a larger replica is no trap

make_disk /tmp/larger 17M
t "server a" serve_nbdkit 10809 file /tmp/disk
t "server b, which has 1 MiB more" serve_nbdkit 10810 file /tmp/larger
t "attach" "$A" nbd://127.0.0.1:10809/ nbd://127.0.0.1:10810/ nbd0
t "16 MiB" mebibytes 16
t "a is killed" stop_server nbdkit:10809 KILL
t "b takes over" wait_for 20 is PEER 127.0.0.1:10810
sleep 5
t "the device does not grow beyond a" mebibytes 16
t "a is back" serve_nbdkit 10809 file /tmp/disk
t "b is killed" stop_server nbdkit:10810 KILL
t "a takes over" wait_for 20 is PEER 127.0.0.1:10809
t "the device answers" reads nbd0
t "both grow: a" truncate -s 18M /tmp/disk
t "both grow: b" truncate -s 18M /tmp/larger
t "b is back" serve_nbdkit 10810 file /tmp/larger
t "--rescan asks both" "$A" --rescan nbd0
t "and the device grows" wait_for 30 mebibytes 18
t "detach" "$A" -d nbd0
finish
