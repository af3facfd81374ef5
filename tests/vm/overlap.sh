#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# An export that is written to is on one device of a machine: two file systems on it, or one that is mounted
# twice, destroy it. A second device is refused, and the first one named, unless both are read-only or
# --allow-overlap is given.
#
# Of a device that another program has attached (nbd-client) it cannot be known what is on it: the driver keeps no
# name of the export unless it was given one, and the process that attached it is gone. So there is no check of it.
# timeout: 300

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../hostile/lib.sh
. "${BASH_SOURCE[0]%/*}/../hostile/lib.sh"

T_LIMIT=20

attached_count() { (($("$A" --list -n -O DEVICE | wc -l) == $1)); }
# clients COUNT: so many connections to the server
clients() { (($(ss -tnH state established '( sport = :10809 )' | wc -l) == $1)); }
detach_all() {
	local device

	for device in $("$A" --list -n -O DEVICE); do
		"$A" -d "$device" || return
	done
}
# refused TEXT ARG...: exit 7 and nbd0 named; it is the only device
refused() {
	local text=$1

	shift
	t_fails 7 "$text: exit 7" "$A" "$@"
	t_says "$text: names the other device" '^nbd-attach: .*nbd0'
	t "$text: one device" attached_count 1
	t "$text: one connection" wait_for 5 clients 1
	# For the next check where this one has failed.
	! attached nbd1 || "$A" -d nbd1
}
# permitted TEXT ARG...: a second device
permitted() {
	local text=$1

	shift
	t "$text: attach" "$A" "$@"
	t "$text: two devices" attached_count 2
}

modprobe nbd nbds_max=4
make_disk /tmp/disk 16M
x=127.0.0.1
t "a server" serve_nbdkit 10809 file /tmp/disk
t "one that is read-only" serve_nbdkit 10810 -r file /tmp/disk

t "attach" "$A" $x x nbd0
refused "the same" $x x nbd1
refused "the same, as a URI" nbd://127.0.0.1:10809/x nbd1
refused "the same, without a supervisor" --no-supervise $x x nbd1
refused "the same, on any device" --find --show $x x
t "the first answers" reads nbd0
permitted "another export" $x y nbd1
t "detach" "$A" -d nbd1
permitted "--allow-overlap" --allow-overlap $x x nbd1
t "detach" detach_all
t "the first is gone: the second takes its place" "$A" $x x nbd1
t "detach" detach_all

t "any device" "$A" --find $x x
refused "any device, again" --find $x x
permitted "any device, with --allow-overlap" --allow-overlap --find $x x
t "detach" detach_all

t "read-only" "$A" -r $x x nbd0
permitted "read-only, both of them" -r $x x nbd1
t "detach" detach_all
t "a read-only export" "$A" 127.0.0.1:10810 x nbd0
permitted "a read-only export, on both of them" 127.0.0.1:10810 x nbd1
t "detach" detach_all

# The lines of an nbdtab are attached side by side.
printf '%s\n' "nbd0 $x x" "nbd1 $x x" >/tmp/nbdtab
t_fails 7 "two lines with one export: exit 7" "$A" --all --nbdtab /tmp/nbdtab
t_says "two lines with one export: names both" 'nbd0.*nbd1|nbd1.*nbd0'
t "two lines with one export: one device" attached_count 1
t "detach" detach_all
t "nothing is left" nothing_left
finish
