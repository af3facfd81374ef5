#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
# timeout: 200
#
# -C auto on two processors: a connection for each where the server permits it and answers, fewer
# with a warning where one of them fails; a number that was asked for is never made smaller.

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=../vm/lib.sh
. "${BASH_SOURCE[0]%/*}/../vm/lib.sh"

a=${NBD_ATTACH:?the program to be tested}
(($(nproc) == 2)) || skip_all "needs two processors"

has() {
	local n

	n=$("$a" --list -n -O CONNECTIONS nbd0 | tr -d ' ')
	[[ $n == "$1" ]] || { echo "$n connections, not $1"; return 1; }
}

established() { (($(ss -Htn state established "( dport = :10809 )" | wc -l) == $1)); }
verify() {
	fio --name=v --filename=/dev/nbd0 --rw=randrw --bs=4k --size=8M --numjobs=2 --offset_increment=8M --direct=1 \
		--ioengine=libaio --iodepth=8 --verify=crc32c --output=/tmp/fio || { cat /tmp/fio; return 1; }
}

modprobe nbd nbds_max=2
t "a server that permits several" serve_nbdkit 10809 memory 16M
t "auto" "$a" -C auto localhost '' nbd0
t "a connection for each processor" has 2
t "to the server, too" established 2
t "data from both survives" verify
t "--info says so" "$a" --info localhost ''
t_says "two" '^CONNECTIONS +2'
t "detach" "$a" -d nbd0
stop_server nbdkit:10809

t "a server that takes one client" serve_nbdkit 10809 --filter=limit memory 16M limit=1
t_fails 4 "two were asked for" "$a" -C 2 --connect-timeout 10 localhost '' nbd0
t "nothing is attached" test ! -e /sys/block/nbd0/pid
t "nor connected" wait_for 5 established 0
t "auto" "$a" -C auto --connect-timeout 10 localhost '' nbd0
t_says "warns" '1 of 2 connections failed'
t "one connection" has 1
t "data survives" verify
t "detach" "$a" -d nbd0
stop_server nbdkit:10809

t "a server that does not permit it" serve_nbdkit 10809 --filter=multi-conn memory 16M multi-conn-mode=disable
t "auto" "$a" -C auto localhost '' nbd0
t "one connection" has 1
t "detach" "$a" -d nbd0
t "no process is left" wait_for 5 bash -c '! pgrep -x nbd-attach'
finish
