#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# A server that takes longer for a request than -t permits loses its connections by the driver's timer, again and
# again, and by nobody else's fault: what is said about it names the option, so that another value can be chosen.
# timeout: 300

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../hostile/lib.sh
. "${BASH_SOURCE[0]%/*}/../hostile/lib.sh"

T_LIMIT=30
option='(^|[^-[:alnum:]])(-t|--timeout)([^-[:alnum:]]|$)'

field() { "$A" --list -n -O "$1" nbd0; }
# What the list and the supervisor's log say since the mark; the driver has its own words.
said() {
	local log

	field LAST-ERROR
	log=$(dmesg)
	grep 'nbd-attach' <<<"${log##*"$lib_mark"}"
}
names_the_option() { said | grep -E "$option"; }
lost_twice() { (($(field RECONNECTS) >= 2)); }

modprobe nbd
make_disk /tmp/disk 16M
for connections in 1 2; do
	text="$connections connections"
	attach=(timeout 25 "$A" -C "$connections" -t 2 --connect-timeout 10 127.0.0.1 '' nbd0)

	t "$text: a server that is slow to read" serve_nbdkit 10809 --filter=delay file /tmp/disk delay-read=4
	t_fails 3 "$text: an attach cannot read the device" "${attach[@]}"
	t_says "$text: and names the option" "$option"
	t "$text: nothing is left" nothing_left
	t "$text: the server is gone" stop_server nbdkit:10809 KILL

	t "$text: a server that is slow to write" serve_nbdkit 10809 --filter=delay file /tmp/disk delay-write=4
	t "$text: attach" "${attach[@]}"
	dmesg_mark
	dd if=/dev/urandom of=/dev/nbd0 bs=4k count=1 oflag=direct status=none &
	writer=$!
	t "$text: its connections are lost again and again" wait_for 20 lost_twice
	t "$text: the list or the log names the option" names_the_option
	diag "$(said)"
	t "$text: the server is gone" stop_server nbdkit:10809 KILL
	t "$text: another one is there" serve_nbdkit 10809 file /tmp/disk
	t "$text: the request is carried out" wait_for 20 ended $writer
	t "$text: detach" "$A" -d nbd0 || start_afresh
	t "$text: the server is gone" stop_server nbdkit:10809 KILL
done
finish
