#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# Connections that the kernel encrypts are replaced before the server wants new keys, which would end them: no I/O waits
# long, and none fails.

# timeout: 300

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

a=${NBD_ATTACH:?the program to be tested}

field() { "$a" --list -n -O "$1" nbd0 | tr -d ' '; }
reconnected() { (($(field RECONNECTS) >= $1)); }
renewed() { (($(dmesg | grep -c 'is renewed, before') >= $1)); }
reads() { [[ $(timeout 20 dd if=/dev/nbd0 bs=4k count="$1" iflag=direct | wc -c) == $((4096 * $1)) ]]; }
tlsd=${a%/*}/tests/hostile/tlsd
updated() { server_log "tlsd:$1" | grep -q 'keys updated'; }
not_updated() { ! updated "$1"; }

modprobe nbd
modprobe tls || skip_all "no kernel TLS"
dmesg_mark
(umask 077 && psktool -u alice -p /run/keys.psk >/dev/null 2>&1)
make_disk /tmp/disk 64M
t "nbdkit" serve_nbdkit 10809 --tls=require --tls-psk=/run/keys.psk file /tmp/disk

# --- idle: nothing happens; a few requests at a time: no one waits

attach() {
	"$a" --tls-offload require --tls-psk-file /run/keys.psk "$@" localhost '' nbd0
}
t "attach" attach --tls-renew 2000
sleep 2
t "nothing is renewed without need" reconnected 0
# 2.25 for each
t "as many records as are permitted" reads 900
t "renewed" wait_for 10 reconnected 1
sleep 1
t "once" test "$(field RECONNECTS)" = 1
t "between requests, so that none waited for a second sending" bash -c '! dmesg | grep -q "Possible stuck request"'
t "the device answers" reads 10

# --- under load, sixteen requests at a time

fio --name=load --filename=/dev/nbd0 --rw=randrw --bs=4k --size=8M --direct=1 --ioengine=libaio --iodepth=16 \
	--verify=crc32c --verify_fatal=1 --runtime=12 --time_based --output=/tmp/load >/dev/null 2>&1
good=$?
t "no error in the load" test $good = 0
diag "$(grep -E 'err=' /tmp/load | head -n 1); renewed $(field RECONNECTS) times; longest: $(grep -E ' clat.*max' /tmp/load | head -n 1)"
t "renewed at least twice more" reconnected 3
t "and told so" renewed 3
t "all are alive" test "$(field ALIVE)" = 1
before=$(field RECONNECTS)
t "a successor of the supervisor counts what there was" "$a" --adopt nbd0
t "so that it begins with a new one" wait_for 20 reconnected $((before + 1))
t "detach" "$a" -d nbd0

# --- never, and only where the kernel encrypts

t "attach, never" attach --tls-renew 0
t "many records" reads 1100
sleep 1.5
t "nothing is renewed" test "$(field RECONNECTS)" = 0
t "detach" "$a" -d nbd0
t "attach with a relay" "$a" --tls-offload no --tls-renew 1000 --tls-psk-file /run/keys.psk localhost '' nbd0
t "many records" reads 1100
sleep 1.5
t "nothing is renewed" test "$(field RECONNECTS)" = 0
t "detach" "$a" -d nbd0

# --- a server that has one client at a time: it goes on with the old one, and says so

stop_server nbdkit:10809
t "a server for one at a time" serve_nbdkit 10809 -t 1 --filter=limit --tls=require --tls-psk=/run/keys.psk file /tmp/disk limit=1
t "attach" attach --tls-renew 2000 --connect-timeout 3
t "many records" reads 1100
t "cannot be renewed" wait_for 20 bash -c 'dmesg | grep -q "cannot be renewed yet"'
t "is none the worse for it" reads 10
t "no connection was lost" test "$(field RECONNECTS)" = 0
t "detach" "$a" -d nbd0

# --- a server with new keys after 4000 answers

for renew in 2000 0; do
	port=$((10900 + renew / 2000))
	t "tlsd" lib_serve "tlsd:$port" tcp_listening $port lib_start "$tlsd" $port /run/keys.psk update 4000
	t "attach, --tls-renew $renew" "$a" --tls-offload require --tls-renew $renew --tls-psk-file /run/keys.psk \
		localhost:$port '' nbd0
	for _ in 1 2 3 4 5 6; do
		reads 1000 || break
		sleep 0.2
	done
	t "6000 answers" reads 1
	if ((renew)); then
		t "its keys were never changed" not_updated $port
		diag "renewed $(field RECONNECTS) times"
	else
		t "without renewal they are" updated $port
	fi
	t "detach" "$a" -d nbd0
done

t "no errors in the kernel's log" no_kernel_errors
finish
