#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# The kernel's contract for a device that outlives its connection: what it tells of its death, when it
# takes a new one and how that shows, and how it grows. With a limit for requests; the other scripts of this
# name have several connections, no limit, peers that fall silent, and commands that hang.

# timeout: 900

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../hostile/lib.sh
. "${BASH_SOURCE[0]%/*}/../hostile/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../byhand/lib.sh
. "${BASH_SOURCE[0]%/*}/../byhand/lib.sh"

size_is() { [[ $(blockdev --getsize64 /dev/nbd0) == "$1" ]]; }

make_disk /tmp/disk 64M
t "modprobe nbd" modprobe nbd nbds_max=2
dmesg_mark
t "nbdkit" serve
byhand_start

t_fails 1 "nothing is attached: a probe fails" hand probe -
t_says "nothing is attached: it says so" 'not attached any more'
t "attach with one connection" hand connect 10800 1 5 0 0
t "a probe finds it" hand probe -
t_fails 1 "another backend is refused" hand probe other
t_says "the refusal says why" 'not attached any more, or to another export'
t "no connection is dead" says 0 dead
t "nothing is told" says none event 100

t "a surplus connection" hand open 10800
for i in 1 2 3; do
	t "offer $i of it is dropped without an error" says dropped offer
done
t "the device does not notice" works 10
t "nothing is told of it" says none event 100
# It was offered too early: there is nothing wrong with it.
t "the connection is cut" hand cut 0
t "that is told" says 'dead 0' event 2000
t "now it is taken" hand replace 0 10000

t "a load" load
for i in 1 2 3 4; do
	sleep 1
	t "death $i: the server is killed" server_killed
	t "death $i: it is told" says 'dead 0' event 5000
	t "death $i: once" says none event 200
	t "death $i: the socket shows it" says 1 dead
	t "death $i: the server is back" serve
	t "death $i: a new connection" hand open 10800
	t "death $i: it is taken" hand replace 0 10000
	t "death $i: it lives" says 0 dead
done
t "it works" works 20
t "the load has not noticed" load_passed
# What was under way is sent again when the limit is over, and not before.
t "no request took much longer than the limit" longest_below 15000
t "no error in the kernel's log" no_kernel_errors

# An offer at once comes too early now and then: only SO_SNDTIMEO tells.
t "60 deaths, each with an offer at once" hand race 60 10800 10000
diag "first offers that were dropped: $SAID of 60"
t "the device works" works 20

t "no room for notices" hand room 1
t "30 deaths that nobody listens to" hand race 30 10800 10000
t "notices were lost, and that is told" says lost event 1000
while hand event 0 >/dev/null && [[ $SAID != none ]]; do :; done
t "room again" hand room 200000
t "one more death" hand cut 0
t "it is told" says 'dead 0' event 2000
t "a new connection" hand open 10800
t "it is taken" hand replace 0 10000
t "the device works" works 20

# --- growth: first the connection, then, when all is well, the size

t "a load" load
truncate -s 96M /tmp/disk
t "growth: the server is killed" server_killed
t "growth: it is told" says 'dead 0' event 5000
t "growth: the server is back with a larger export" serve
t "growth: a new connection" hand open 10800
t "growth: it is taken" hand replace 0 10000
t "growth: it works" works 20
t "growth: the size is told" hand resize $((96 << 20))
t "growth: it is there" size_is $((96 << 20))
t "growth: the new part works" dd if=/dev/urandom of=/dev/nbd0 bs=1M count=8 seek=80 oflag=direct
t "growth: it reached the server" cmp -i $((80 << 20)) -n $((8 << 20)) /dev/nbd0 /tmp/disk
t "growth: the load has not noticed" load_passed
released "in the end"
t_fails 1 "in the end: a probe fails" hand probe -
t "in the end: there is no size" size_is 0
t "no error in the kernel's log" no_kernel_errors
t "byhand ends" byhand_end
finish
