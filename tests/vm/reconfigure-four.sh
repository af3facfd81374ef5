#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# Several connections: each dies and is replaced by itself, one is enough.

# timeout: 900

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../hostile/lib.sh
. "${BASH_SOURCE[0]%/*}/../hostile/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../byhand/lib.sh
. "${BASH_SOURCE[0]%/*}/../byhand/lib.sh"

# Where the kernel is slow to make threads, one of them (the rescuer of the driver's work queue) is to receive for
# several connections, and does for the first only, as long as that lives. The end of the others goes
# unnoticed then, and they cannot be replaced until something is sent through them.
receivers() {
	pids_of '*+nbd0-recv'
	((${#PIDS[@]} == $1))
}

make_disk /tmp/disk 64M
t "modprobe nbd" modprobe nbd nbds_max=2
dmesg_mark
t "nbdkit" serve
byhand_start

for try in 1 2 3 4 5; do
	t "attach with four connections" hand connect 10800 4 3 0 0
	wait_for 2 receivers 4 && break
	diag "attempt $try: ${#PIDS[@]} receivers for four connections"
	hand disconnect 10000
	wait_for 5 test ! -e /sys/block/nbd0/pid
done
t "each has a receiver" receivers 4
t "all live" says 0000 dead
t "a load" load
for i in 0 2; do
	t "connection $i is cut" hand cut "$i"
	t "connection $i: it is told" says 'dead 0' event 5000
	t "connection $i: once" says none event 200
done
t "two are dead" says 1010 dead
t "the others carry on" works 20
for i in 0 2; do
	t "connection $i: a new one" hand open 10800
	t "connection $i: it is taken" hand replace "$i" 5000
done
t "all live again" says 0000 dead
t "a fifth connection" hand open 10800
t "it is dropped" says dropped offer
t "and goes" hand drop
t "the server is killed" server_killed
for i in 1 2 3 4; do
	t "death $i of four is told" says 'dead 0' event 5000
done
t "all are dead" says 1111 dead
t "the server is back" serve
t "one new connection" hand open 10800
t "it is taken" hand replace 0 5000
t "one is enough to work" works 20
for i in 1 2 3; do
	t "new connection $i" hand open 10800
	t "new connection $i: it is taken" hand replace "$i" 5000
done
t "all live" says 0000 dead
t "it works" works 20
t "the load has not noticed" load_passed
t "no request took longer than two limits and a bit" longest_below 15000
released "in the end"
t "no error in the kernel's log" no_kernel_errors
t "byhand ends" byhand_end
finish
