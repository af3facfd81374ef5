#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
# timeout: 240
#
# A server behind vsock(7): attached, lost and found again, plain and with TLS.

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

a=${NBD_ATTACH:?the program to be tested}
log=/tmp/supervisor.log

modprobe vsock_loopback || skip_all "this kernel has no vsock_loopback"
modprobe nbd nbds_max=2

vsock_listening() { ss -Hln --vsock | grep -q ":$1[[:space:]]"; }

# serve PORT ARG...: nbdkit, which answers at the context identifier of this machine itself
serve() {
	local port=$1

	shift
	lib_serve "nbdkit:$port" vsock_listening "$port" lib_start nbdkit -f --vsock -p "$port" "$@"
}

pattern() { dd if=/dev/nbd0 bs=1M count=8 iflag=direct status=none | cmp - /tmp/pattern; }
write_pattern() { dd if=/tmp/pattern of=/dev/nbd0 bs=1M oflag=direct conv=notrunc status=none; }

make_disk /tmp/disk 8M
head -c 8M /dev/urandom >/tmp/pattern
t_fails 3 "nobody listens" "$a" --connect-timeout 5 nbd+vsock://1:10809/ nbd0
t_says "says where" 'vsock:1:10809'
t "server" serve 10809 file /tmp/disk
t "--info" "$a" --info nbd+vsock://1/
t_says "has the URI" '^URI +nbd\+vsock://1:10809/'
t_says "has the peer" '^PEER +vsock:1:10809'
t "--exports" "$a" --exports nbd+vsock://1/
t "--map" "$a" --map nbd+vsock://1/
t "attach" "$a" nbd+vsock://1/ nbd0
t "write" write_pattern
t "read" pattern
t "the same again is fine" "$a" nbd+vsock://1/ nbd0
t_fails 7 "another port is not" "$a" nbd+vsock://1:10810/ nbd0
dmesg_mark
stop_server nbdkit:10809 KILL
pattern >/tmp/said 2>&1 &
reader=$!
sleep 2
t "server again" serve 10809 file /tmp/disk
t "what was asked in between arrives" wait $reader
t "no errors in the kernel's log" no_kernel_errors
t "detach" "$a" -d nbd0
t "two connections" "$a" -C 2 nbd+vsock://1/ nbd0
t "read" pattern
t "detach" "$a" -d nbd0
t "no process is left" wait_for 5 bash -c '! pgrep -x "nbd-attach|nbd-relay"'
stop_server nbdkit:10809

(umask 077 && psktool -u alice -p /tmp/keys.psk >/dev/null 2>&1)
t "server with TLS" serve 10812 --tls=require --tls-psk=/tmp/keys.psk file /tmp/disk
t_fails 6 "no plain text" "$a" nbd+vsock://1:10812/ nbd0
t_fails 6 "the kernel's TLS is for TCP" "$a" --tls-offload require --tls-psk-file /tmp/keys.psk \
	nbds+vsock://1:10812/ nbd0
t "TLS by a relay" "$a" --tls-psk-file /tmp/keys.psk nbds+vsock://alice@1:10812/ nbd0
t "a relay" pgrep -x nbd-relay
t "read" pattern
t "detach" "$a" -d nbd0
t "no process is left" wait_for 5 bash -c '! pgrep -x "nbd-attach|nbd-relay"'
finish
