#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# One connection without a limit for requests, and a short queue/io_timeout: what was under way is sent again soon
# after a replacement, a slow server is left alone. No socket shows then whether it was taken.

# timeout: 900

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../hostile/lib.sh
. "${BASH_SOURCE[0]%/*}/../hostile/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../byhand/lib.sh
. "${BASH_SOURCE[0]%/*}/../byhand/lib.sh"

make_disk /tmp/disk 64M
t "modprobe nbd" modprobe nbd nbds_max=2
dmesg_mark
t "nbdkit" serve
byhand_start

t "attach without a limit" hand connect 10800 1 0 1000 0
t "a load" load
for i in 1 2 3; do
	sleep 1
	t "death $i: the server is killed" server_killed
	t "death $i: it is told" says 'dead 0' event 5000
	t "death $i: the server is back" serve
	t "death $i: a new connection" hand open 10800
	t "death $i: offered again and again" hand blind 0
	t "death $i: it works" works 10
done
t "the load has not noticed" load_passed
t "no request waited for the kernel's own half a minute" longest_below 15000

t "a load" load
t "the server stops" server_signal STOP
sleep 4
t "a slow server is no dead one" says none event 0
t "the server goes on" server_signal CONT
t "it works" works 20
t "the load has not noticed" load_passed
released "in the end"
t "no error in the kernel's log" no_kernel_errors
t "byhand ends" byhand_end
finish
