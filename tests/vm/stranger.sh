#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# Another program takes the device while its supervisor waits for a server: its data stays its own.
# Nothing is offered to its device, and it is not disconnected.
# timeout: 600

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../hostile/lib.sh
. "${BASH_SOURCE[0]%/*}/../hostile/lib.sh"

supervisor_of() { sed -n 's/^supervisor=//p' /run/nbd-attach/nbd0; }
ended() { [[ ! -e /proc/$1 ]]; }
# established PORT: a client of it
established() { ss -tnH state established "( sport = :$1 )" | grep -q .; }
not_established() { ! established "$1"; }

# The first 4 KiB of each disk have its name.
write_name() { printf '%-4096s' "$2" | timeout 10 dd of="$1" bs=4k "oflag=${3:-dsync}" conv=notrunc status=none; }
name_of() { timeout 10 dd if="$1" bs=4k count=1 "iflag=$2" status=none | tr -d ' '; }
has_name() {
	local got

	got=$(name_of "$1" "${3:-fullblock}")
	echo "$1 has the name '$got'"
	[[ $got == "$2" ]]
}

# stolen TEXT ARG...: the server of a supervised device is in the middle of an answer, and the
# device becomes another program's
stolen() {
	local text=$1

	shift
	t "$text: server a" serve_nbdkit 10809 file /tmp/a
	t "$text: server b" serve_nbdkit 10810 file /tmp/b
	t "$text: attach" "$A" --connect-timeout 30 "$@" 127.0.0.1 '' nbd0
	supervisor=$(supervisor_of)
	t "$text: a is killed" stop_server nbdkit:10809 KILL
	t "$text: and started, and takes its time" serve_nbdkit 10809 --filter=delay file /tmp/a delay-open=6
	t "$text: the supervisor asks it" wait_for 10 established 10809
	t "$text: another program detaches the device" nbd-client -d /dev/nbd0
	t "$text: and attaches its own export" nbd-client 127.0.0.1 10810 -N b /dev/nbd0
	t "$text: which it reads" has_name /dev/nbd0 disk-b direct
}

modprobe nbd
make_disk /tmp/a 16M
make_disk /tmp/b 16M
write_name /tmp/a disk-a
write_name /tmp/b disk-b

# The driver takes a new connection only where one is dead.
stolen "the connection of the other program is lost"
t "b is killed" stop_server nbdkit:10810 KILL
t "the supervisor ends" wait_for 30 ended "$supervisor"
t_fails 1 "nothing of a is read from the device of the other program" has_name /dev/nbd0 disk-a direct
write_name /dev/nbd0 for-b direct 2>/dev/null
t "nothing that was written for b is on a" has_name /tmp/a disk-a
t "no connection to a is left" wait_for 10 not_established 10809
t "the device is still attached as the other program left it" attached nbd0
t "which detaches it" nbd-client -d /dev/nbd0
stop_server nbdkit:10809 KILL

stolen "--reconnect-timeout" --reconnect-timeout 4
t "the supervisor ends" wait_for 30 ended "$supervisor"
sleep 2
t "the device of the other program is not given up" has_name /dev/nbd0 disk-b direct
t "no connection to a is left" wait_for 10 not_established 10809
t "the other program detaches it" nbd-client -d /dev/nbd0
finish
