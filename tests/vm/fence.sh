#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# Of two servers with the same export one falls silent: it may still have writes of ours in its queue, so the other one has to wait.
# It need not once it is certain that the process is gone.

# timeout: 400

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

a=${NBD_ATTACH:?the program to be tested}
there=10.9.0.2

field() { "$a" --list -n -O "$1" nbd0 | tr -d ' '; }
alive() { [[ $(field ALIVE) == "$1" ]]; }
uses() { alive 1 && [[ $(field PEER) == "$1" ]]; }
milliseconds() { echo $((${EPOCHREALTIME/./} / 1000)); }
reads() { timeout 20 dd if=/dev/nbd0 of=/dev/null bs=4k count=1 iflag=direct status=none; }
far() { serve_far 10809 nbdkit -f -p 10809 file /tmp/disk; }
attach() {
	"$a" --peer-timeout 2 --connect-timeout 2 --fence-delay "$1" "nbd://$there:10809/" nbd://127.0.0.1:10810/ nbd0
}
falls_silent() {
	ip -n far link set far0 down
	wait_for 30 alive 0
}

modprobe nbd
make_disk /tmp/disk 16M
t "another network" far_network
t "a server there" far
t "one here" serve_nbdkit 10810 file /tmp/disk

t "attach" attach 12
t "the one there is used" uses $there:10809
t "it falls silent" falls_silent
began=$(milliseconds)
t "the other one takes over" wait_for 60 uses 127.0.0.1:10810
took=$(($(milliseconds) - began))
diag "after $took ms"
# less what it took to see it
t "not before its time" test $took -gt 10000
t "the device answers" reads

ip -n far link set far0 up
began=$(milliseconds)
stop_server nbdkit:10810 KILL
t "one that is killed was not silent: there and back" wait_for 60 uses $there:10809
took=$(($(milliseconds) - began))
diag "after $took ms"
t "at once" test $took -lt 10000
t "one here" serve_nbdkit 10810 file /tmp/disk
t "detach" "$a" -d nbd0

t "attach" attach 600
t "the one there is used" uses $there:10809
t "it falls silent" falls_silent
sleep 3
t "the other one has to wait" alive 0
stop_server far:10809 KILL
ip -n far link set far0 up
t "it is back, without a server: the other one takes over" wait_for 60 uses 127.0.0.1:10810
t "the device answers" reads
t "detach" "$a" -d nbd0
finish
