#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# Several connections need a time limit for requests: without one the driver shows no sign of having taken
# a new connection, and one that is offered twice can land in two slots. So several without a limit are
# refused, and "auto" is content with one.
# timeout: 300

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../hostile/lib.sh
. "${BASH_SOURCE[0]%/*}/../hostile/lib.sh"

# The text names both sides of the conflict, in whatever order.
why='connections.*(time limit|timeout|-t )|(time limit|timeout|-t ).*connections'

field() { "$A" --list -n -O "$1" nbd0 | tr -d ' '; }
is() {
	local value

	value=$(field "$1")
	[[ $value == "$2" ]] || { echo "$1 is '$value', not '$2'"; return 1; }
}
# established COUNT: so many connections to the servers
established() {
	local count

	count=$(ss -tnH state established '( sport = :10809 or sport = :10810 )' | wc -l)
	((count == $1)) || { echo "$count connections, not $1"; return 1; }
}

# refused TEXT ARG...: exit 2, a text that says why, nothing attached
refused() {
	local text=$1

	shift
	t_fails 2 "$text: exit 2" "$A" "$@"
	t_says "$text: says why" "$why"
	t "$text: nothing is left" nothing_left
	# For the next check where this one has failed.
	! attached nbd0 || "$A" -d --force nbd0 >/dev/null 2>&1
}

# attaches TEXT CONNECTIONS ARG...
attaches() {
	local text=$1 connections=$2

	shift 2
	t "$text: attach" "$A" "$@"
	t "$text: connections: $connections" is CONNECTIONS "$connections"
	t "$text: as the server sees it" established "$connections"
	t "$text: the device answers" reads nbd0
	t "$text: detach" "$A" -d nbd0
}

modprobe nbd
make_disk /tmp/disk 16M
t "a server that permits several connections" serve_nbdkit 10809 file /tmp/disk
# The others have as long again as the first took: else one of four may be done without.
t "one that takes its time" serve_nbdkit 10810 --filter=delay file /tmp/disk delay-open=1

refused "two" -C 2 -t 0 127.0.0.1 x nbd0
refused "two, for reading" -C 2 -t 0 -r 127.0.0.1 x nbd0
refused "two, without a supervisor" -C 2 -t 0 --no-supervise 127.0.0.1 x nbd0
t "a line of the nbdtab" tee /tmp/nbdtab <<<'nbd0 127.0.0.1 x conns=2,timeout=0'
refused "two, by the nbdtab" --nbdtab /tmp/nbdtab nbd0
refused "two, by the nbdtab, and all of its lines" --all --nbdtab /tmp/nbdtab

# On a machine with four processors, for all that the program can see.
echo 0-3 >/tmp/online
t "four processors" mount --bind /tmp/online /sys/devices/system/cpu/online
t "are what programs see" test "$(getconf _NPROCESSORS_ONLN)" = 4
attaches "auto" 1 -C auto -t 0 127.0.0.1 x nbd0
attaches "auto, without a supervisor" 1 -C auto -t 0 --no-supervise 127.0.0.1 x nbd0
t "a line of the nbdtab" tee /tmp/nbdtab <<<'nbd0 127.0.0.1 x conns=auto,timeout=0'
attaches "auto, by the nbdtab" 1 --nbdtab /tmp/nbdtab nbd0
attaches "auto, with a limit" 4 -C auto -t 10 127.0.0.1:10810 x nbd0
attaches "one" 1 -C 1 -t 0 127.0.0.1 x nbd0
attaches "two, with a limit" 2 -C 2 -t 10 127.0.0.1 x nbd0
attaches "two, with the default of it" 2 -C 2 127.0.0.1 x nbd0
finish
