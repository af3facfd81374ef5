#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# Peers that fall silent are noticed, with requests under way and without.

# timeout: 900

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../hostile/lib.sh
. "${BASH_SOURCE[0]%/*}/../hostile/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../byhand/lib.sh
. "${BASH_SOURCE[0]%/*}/../byhand/lib.sh"

# Time from COMMAND... to the notice goes into $TOOK.
told_after() {
	local begin=${EPOCHREALTIME/./} status=0

	"$@" && says 'dead 0' event 20000 || status=$?
	TOOK=$(((${EPOCHREALTIME/./} - begin) / 1000))
	return "$status"
}

# silent NAME: a network that is gone for a while
silent() {
	t "$1: the network goes, and that is told" told_after ip link set lo down
	t "$1: in time" took_from_to 1500 9000
	t "$1: the network is back" ip link set lo up
	t "$1: a new connection" hand open 10800
	t "$1: offered again and again" hand blind 0
	t "$1: it works" works 10
}

make_disk /tmp/disk 64M
t "modprobe nbd" modprobe nbd nbds_max=2
dmesg_mark
t "nbdkit" serve
byhand_start

t "attach with a limit of 3 s" hand connect 10800 1 0 1000 3
t "it works" works 10
sleep 6
t "a living peer is left alone" says none event 0
silent "an idle peer"
t "a load" load
silent "a busy peer"
t "the server stops; its machine acknowledges" server_signal STOP
sleep 7
t "that is no death" says none event 0
t "the server goes on" server_signal CONT
t "it works" works 20
t "the load has not noticed" load_passed

# But data that nobody takes ends the connection: TCP_USER_TIMEOUT counts closed windows.
t "the server stops" server_signal STOP
too_much
t "no byte is taken: that is told" told_after wait_for 20 waits
t "no byte is taken: in time" took_from_to 1500 15000
t "the server goes on" server_signal CONT
t "a new connection" hand open 10800
t "offered again and again" hand blind 0
t "the writer ends without an error" wait "$WRITER"
released "in the end"
t "no error in the kernel's log" no_kernel_errors
t "byhand ends" byhand_end
finish
