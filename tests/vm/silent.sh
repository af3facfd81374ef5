#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# A detach always comes back, also when the server has stopped and never answers: without force
# after half a minute and with nothing changed, forced with what the kernel can still do.

# timeout: 900

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../hostile/lib.sh
. "${BASH_SOURCE[0]%/*}/../hostile/lib.sh"

gone() { detached "$1" && [[ ! -e /run/nbd-attach/$1 ]]; }
signal_server() { kill -s "$1" -- "-${lib_pids[$2]}"; }
# Its descriptor is closed and it still waits in that close().
closing() { [[ -e /proc/$1 && ! -e /proc/$1/fd/1 ]]; }
ended() { [[ ! -e /proc/$1 ]]; }
same_content() { cmp -n "$3" "$1" "$2"; }
list_says() { "$A" --list -n -O "$2" "$1" | grep -q "$3"; }

# dirty nbdN BYTES: data that only the kernel has, and nobody who has the device open: its
# writer waits in the last close(). No sync() in this script from here on, it would wait as well.
declare -A writers=()
dirty() {
	dd if=/tmp/data "of=/dev/$1" bs=4096 count=$(($2 / 4096)) conv=notrunc 2>/dev/null &
	writers[$1]=$!
	wait_for 20 closing "${writers[$1]}"
}

# Seven servers, so that all the waiting is done at once: nbdN has /tmp/diskN.
# More than the buffers of a connection have room for
many=$((16 << 20))
few=65536
huge=$((64 << 20))	# or those that a supervisor gives it
head -c "$huge" /dev/urandom >/tmp/data
t "modprobe nbd" modprobe nbd nbds_max=8
dmesg_mark
make_disk /tmp/disk1 16M
t "qemu-nbd" serve_qemu 10801 /tmp/disk1 -x disk
for i in {2..7}; do
	make_disk "/tmp/disk$i" 16M
	t "nbdkit $i" serve_nbdkit "1080$i" file "/tmp/disk$i"
done
# -t 0: else the kernel takes the connection away after half a minute, too.
limits=('' 0 0 0 30 30 3 0)
for i in {1..7}; do
	t "attach nbd$i" "$A" --no-supervise --peer-timeout 0 -t "${limits[i]}" "127.0.0.1:1080$i" disk "nbd$i"
done
make_disk /tmp/disk0 64M
t "nbdkit" serve_nbdkit 10800 file /tmp/disk0
t "attach nbd0 with a supervisor" "$A" --peer-timeout 0 127.0.0.1:10800 disk nbd0
servers=(qemu-nbd:10801 nbdkit:1080{2..7})
for server in "${servers[@]}"; do
	t "${server%:*} falls silent" signal_server STOP "$server"
done
t "some data is dirty" dirty nbd2 $few
t "so much is dirty that the connection is full" dirty nbd3 $many
for i in 1 2 3; do
	in_background "silent$i" "$A" --detach "nbd$i"
done

t "force: some data is dirty" dirty nbd5 $few
t "force: so much is dirty that the connection is full" dirty nbd6 $many
for i in 4 5 6; do
	in_background "forced$i" "$A" --detach --force "nbd$i"
done
for i in 4 5 6; do
	t "force, silent server $i: success" outcome "forced$i"
	t_says "force, silent server $i: the loss is said" "nbd$i: detached without a flush.*lost"
	t "force, silent server $i: within the time limit" took_from_to 3000 20000
	t "force, silent server $i: it is gone" gone "nbd$i"
done
for i in 5 6; do
	t "force, silent server $i: the writer ends" wait_for 10 ended "${writers[nbd$i]}"
done

# The kernel's disconnection waits for its own sender, which waits for the server. Until then no
# other device can be attached or detached.
t "without a limit, so much is dirty that the connection is full" dirty nbd7 $many
t_fails 1 "force, a full connection without a limit: not done" took "$A" --detach --force nbd7
t_says "force, a full connection without a limit: says so" 'disconnect nbd7: not done within'
t "force, a full connection without a limit: comes back" took_from_to 5000 20000
t "force, a full connection without a limit: the kernel waits" attached nbd7
t "meanwhile a supervised device loses its server" stop_server nbdkit:10800 KILL
t "which is back" serve_nbdkit 10800 file /tmp/disk0
t "its supervisor tells that the kernel hangs" wait_for 30 list_says nbd0 LAST-ERROR 'not carried out a command for 10 s'
t "and does not hang itself" list_says nbd0 ALIVE 0
t "the server is killed" stop_server nbdkit:10807 KILL
t "now the kernel completes it" wait_for 10 gone nbd7
t "and the writer ends" wait_for 10 ended "${writers[nbd7]}"
t "and the supervised device is connected again" wait_for 10 list_says nbd0 ALIVE 1
t "it can be read" dd if=/dev/nbd0 of=/dev/null bs=64k count=1 iflag=direct
# It has no limit either, but somebody who can free the sender.
t "its server falls silent" signal_server STOP nbdkit:10800
t "so much is dirty that the connection is full" dirty nbd0 $huge
t "force, a full connection with a supervisor: success" took "$A" --detach --force nbd0
t "force, a full connection with a supervisor: within the time limit" took_from_to 3000 20000
t "force, a full connection with a supervisor: it is gone" gone nbd0
t "and the writer ends" wait_for 10 ended "${writers[nbd0]}"

for i in 1 2 3; do
	t_fails 3 "silent server $i: exit 3" outcome "silent$i"
	t_says "silent server $i: says why" "nbd$i has finished no request for 20 s.*--force"
	t "silent server $i: after 20 s" took_from_to 20000 35000
	t "silent server $i: it stays attached" attached "nbd$i"
	t "silent server $i: its record stays" test -e "/run/nbd-attach/nbd$i"
done
for server in "${servers[@]:0:3}"; do
	t "${server%:*} goes on" signal_server CONT "$server"
done
t "some data: the writer ends" wait_for 20 ended "${writers[nbd2]}"
t "much data: the writer ends" wait_for 20 ended "${writers[nbd3]}"
t "no process of the attempt is left" wait_for 10 no_process "$OURS"
t "the idle device works" dd if=/tmp/data of=/dev/nbd1 bs=1M count=4 conv=notrunc
t "now all can be detached" "$A" --detach nbd1 nbd2 nbd3
t "idle: what was written is there" same_content /tmp/data /tmp/disk1 $((4 << 20))
t "some data: it is there" same_content /tmp/data /tmp/disk2 $few
t "much data: it is there" same_content /tmp/data /tmp/disk3 $many
t "nothing is left" nothing_left
t "a device works after a forced detach" "$A" 127.0.0.1:10802 disk nbd5
t "it can be read" same_content /dev/nbd5 /tmp/data $few
t "and detached" "$A" --detach nbd5
t "the kernel has survived it" kernel_survived
finish
