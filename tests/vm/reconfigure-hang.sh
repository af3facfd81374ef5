#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# Commands that hang in the kernel do not hold up who gave them, and come back when the connection is cut.

# timeout: 900

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../hostile/lib.sh
. "${BASH_SOURCE[0]%/*}/../hostile/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../byhand/lib.sh
. "${BASH_SOURCE[0]%/*}/../byhand/lib.sh"

ended() { ! kill -0 "$1" 2>/dev/null; }

make_disk /tmp/disk 64M
t "modprobe nbd" modprobe nbd nbds_max=2
dmesg_mark
t "nbdkit" serve
byhand_start

t "attach without any limit" hand connect 10800 1 0 0 0
t "the server stops" server_signal STOP
too_much
t "the connection is full" wait_for 30 full
t "a disconnection hangs" says hangs disconnect 2000
t_fails 1 "no command meanwhile" hand probe -
t_says "it says why" 'an earlier kernel command is under way'
t_fails 1 "it hangs on" hand await 1000
t "the connection is cut" hand cut 0
t "now the disconnection comes back" hand await 10000
t_fails 1 "there is no device any more" hand probe -
t_says "the next command says so" 'not attached any more'
t "the server goes on" server_signal CONT
t "the writer ends" wait_for 20 ended "$WRITER"

# The kernel refuses connect(AF_UNSPEC); the unsent data has to go all the same.
t "modprobe tls" modprobe tls
t "a socket with kernel TLS is cut and closed" hand ktls
t "its peer sees a reset" test "${SAID%% *}" = reset
diag "kernel TLS: $SAID"
t "the kernel has survived it" kernel_survived
t "byhand ends" byhand_end
finish
