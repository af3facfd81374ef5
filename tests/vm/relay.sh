#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# TLS where the kernel does not do it: a relay process carries all that there is, ends when the
# device does, and its death is the end of a connection and nothing worse.

# timeout: 600

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

A=$NBD_ATTACH

relays() { pgrep -x nbd-relay >/dev/null; }
no_relays() { ! relays; }
no_command() { ! pgrep -x nbdkit -f -- '-s --exit' >/dev/null; }
tls_of() { "$A" --list -n -O TLS "$1"; }
is_relayed() { [[ $(tls_of "$1") == *" relay" ]]; }
free() { [[ ! -e /sys/block/$1/pid && ! -e /run/nbd-attach/$1 ]]; }

# Requests of all sizes, both directions at once.
io() {
	fio --name=io --filename="/dev/$1" --direct=1 --ioengine=libaio --iodepth=16 --rw=randrw \
		--bsrange=4k-1M --size=16M --verify=crc32c --verify_fatal=1 --output=/tmp/fio.out ||
		{ cat /tmp/fio.out; return 1; }
}

# round_trip TEXT DEVICE: attached already
round_trip() {
	local text=$1 dev=$2

	t "$text: a relay does it" is_relayed "$dev"
	t "$text: there is its process" relays
	t "$text: requests of 4 KiB to 1 MiB come back as they went" io "$dev"
	t "$text: a file system" mkfs.ext4 -q -F "/dev/$dev"
	t "$text: mount" mount "/dev/$dev" /mnt
	t "$text: a file" cp /bin/bash /mnt/file
	t "$text: umount" umount /mnt
	t "$text: it is clean" e2fsck -fn "/dev/$dev"
	t "$text: detach" "$A" --detach "$dev"
	t "$text: nothing is attached" free "$dev"
	t "$text: the relay is gone" wait_for 5 no_relays
}

modprobe nbd
dmesg_mark
cd /run || exit
printf "user:%s\n" "$(od -An -tx1 -N32 /dev/urandom | tr -d " \n")" >keys.psk
chmod 600 keys.psk

t "a server on TCP" serve_nbdkit 10809 --tls=require --tls-psk=/run/keys.psk memory 64M
t "a server on a Unix socket" serve_nbdkit_unix /run/socket --tls=require --tls-psk=/run/keys.psk memory 64M

t "TCP" "$A" --tls-psk-file keys.psk --tls-offload no localhost '' nbd0
round_trip TCP nbd0
t "TCP, TLS 1.2" "$A" --tls-psk-file keys.psk --tls-offload no \
	--tls-priority NORMAL:-VERS-ALL:+VERS-TLS1.2:+ECDHE-PSK localhost '' nbd0
round_trip "TCP, TLS 1.2" nbd0
# a cipher that no kernel has
t "TCP, AES-128-CBC" "$A" --tls-psk-file keys.psk \
	--tls-priority NORMAL:-VERS-ALL:+VERS-TLS1.2:-CIPHER-ALL:+AES-128-CBC:+ECDHE-PSK localhost '' nbd0
round_trip "TCP, AES-128-CBC" nbd0
t "Unix socket" "$A" --tls-psk-file keys.psk /run/socket '' nbd0
round_trip "Unix socket" nbd0
t "command" "$A" --tls-psk-file keys.psk --command nbd0 -- \
	nbdkit -s --exit-with-parent --tls=require --tls-psk=/run/keys.psk memory 64M
round_trip command nbd0
t "command: it is gone" wait_for 5 no_command

t_fails 6 "the kernel is required and cannot: Unix socket" "$A" --tls-psk-file keys.psk \
	--tls-offload require /run/socket '' nbd0
t_says "it says why" "only TCP"
t_fails 6 "the kernel is required and cannot: cipher" "$A" --tls-psk-file keys.psk --tls-offload require \
	--tls-priority NORMAL:-VERS-ALL:+VERS-TLS1.2:-CIPHER-ALL:+AES-128-CBC:+ECDHE-PSK localhost '' nbd0
t_says "it says which" "AES-128-CBC"
t "no relay is left" no_relays
t "nothing is attached" free nbd0

t "two devices" "$A" --no-supervise --tls-psk-file keys.psk --tls-offload no localhost '' nbd0
t "the second" "$A" --no-supervise --tls-psk-file keys.psk /run/socket '' nbd1
t "each has a relay" test "$(pgrep -cx nbd-relay)" = 2
t "nothing of ours is open in a relay" test "$(find "/proc/$(pgrep -nx nbd-relay)/fd" -type l | wc -l)" = 5
t "no errors in the kernel's log" no_kernel_errors
t "the relays are killed" pkill -KILL -x nbd-relay
t_fails 1 "reads fail, and do not hang" dd if=/dev/nbd0 of=/dev/null bs=4k count=1 iflag=direct
t "detach" "$A" --detach --force nbd0 nbd1
t "the first is free" free nbd0
t "the second is free" free nbd1

# The server's end is one of the relay, too.
t "attach" "$A" --no-supervise --tls-psk-file keys.psk --tls-offload no localhost '' nbd0
t "the server is killed" stop_server nbdkit:10809 KILL
t "its relay ends" wait_for 5 no_relays
t "detach" "$A" --detach --force nbd0
t "it is free" free nbd0

finish
