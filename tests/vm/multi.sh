#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# Several connections: made where each of the servers there are permits them, and only there.
# timeout: 720

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

a=${NBD_ATTACH:?the program to be tested}

# has DEVICE N: connections, by our record.
has() {
	local n

	n=$("$a" --list -n -O CONNECTIONS "$1" | tr -d ' ')
	[[ $n == "$2" ]] || echo "$1 has '$n' connections, not $2"
	[[ $n == "$2" ]]
}

# established PORT N: that many connections to it.
established() {
	local n

	n=$(ss -Htn state established "( dport = :$1 )" | wc -l)
	((n == $2)) || ss -tn
	((n == $2))
}

reads_and_writes() {
	fio --name=v --filename="/dev/$1" --rw=randrw --bs=4k --size=8M --direct=1 --ioengine=libaio \
		--iodepth=16 --verify=crc32c --output="/tmp/fio.$1" || { cat "/tmp/fio.$1"; return 1; }
}

modprobe nbd
make_disk /tmp/disk 16M

# --- nbdkit: by default its memory has CAN_MULTI_CONN, and no CACHE

t "nbdkit serves memory" serve_nbdkit 10809 memory 16M
t "four connections" "$a" -C 4 localhost '' nbd0
t_says "more than processors are spares, it says" 'fewer processors \(1\) than connections'
t "the list has four" has nbd0 4
t "the server has four" established 10809 4
t "data survives" reads_and_writes nbd0
t "again the same is fine" "$a" -C 4 localhost '' nbd0
t_fails 7 "another number is not" "$a" -C 2 localhost '' nbd0
t_says "and says what there is" 'already, with 4 connections'
t "auto takes what there is" "$a" -C auto localhost '' nbd0
t "detached" "$a" -d nbd0
t "all four are gone" wait_for 5 established 10809 0
t "auto, with one processor" "$a" -C auto localhost '' nbd0
t "is one" has nbd0 1
t "detached" "$a" -d nbd0
stop_server nbdkit:10809

t "nbdkit without the flag" serve_nbdkit 10809 --filter=multi-conn memory 16M multi-conn-mode=disable
t_fails 10 "four are refused" "$a" -C 4 localhost '' nbd0
t_says "with the reason" 'does not permit several connections'
t_fails 10 "by force, too" "$a" -C 4 --force-multi-conn localhost '' nbd0
t "nothing is attached" bash -c '! test -e /sys/block/nbd0/pid'
t "nothing is connected" wait_for 5 established 10809 0
t_fails 10 "nor read-only" "$a" -r -C 4 localhost '' nbd0
t_says "but that could be forced" 'force-multi-conn'
t "read-only by force" "$a" -r -C 4 --force-multi-conn localhost '' nbd0
t_says "and it says so" 'forced'
t "has four" has nbd0 4
t "which read" dd if=/dev/nbd0 of=/dev/null bs=64k iflag=direct
t "detached" "$a" -d nbd0
stop_server nbdkit:10809

for cache in none emulate nop; do
	t "nbdkit with CACHE $cache" serve_nbdkit 10809 --filter=nocache memory 16M cachemode=$cache
	t "is no qemu 3.0" "$a" -C 2 localhost '' nbd0
	t "two connections" has nbd0 2
	t "detached" "$a" -d nbd0
	stop_server nbdkit:10809
done

# --- qemu-nbd: one client unless it has -e

t "qemu-nbd with -e 4" serve_qemu 10810 /tmp/disk -e 4
t "three connections" "$a" -C 3 localhost:10810 '' nbd1
t "has three" has nbd1 3
t "data survives" reads_and_writes nbd1
t "detached" "$a" -d nbd1
t_fails 3 "five are more than it serves" "$a" --connect-timeout 3 -C 5 localhost:10810 '' nbd1
t_says "and it says how many were not answered" '1 of 5 connections failed'
t "nothing is attached" bash -c '! test -e /sys/block/nbd1/pid'
stop_server qemu-nbd:10810

t "qemu-nbd with one client" serve_qemu 10810 /tmp/disk
start=${EPOCHREALTIME/./}
t_fails 10 "two are refused" "$a" --connect-timeout 60 -C 2 localhost:10810 '' nbd1
t "at once, whatever waits in the backlog" test $((${EPOCHREALTIME/./} - start)) -lt 30000000
t "one attaches" "$a" localhost:10810 '' nbd1
t "detached" "$a" -d nbd1
stop_server qemu-nbd:10810

t "qemu-nbd read-only with one client" serve_qemu 10810 /tmp/disk -r
"$a" -C 2 --connect-timeout 3 localhost:10810 '' nbd1 >/tmp/said 2>&1
status=$?
diag "two on a read-only export with one client: status $status" "$(cat /tmp/said)"
t "is refused or not answered, never attached" test "$status" -eq 10 -o "$status" -eq 3
stop_server qemu-nbd:10810

# --- nbd-server

t "nbd-server" serve_nbdserver 10811 disk=/tmp/disk
"$a" -C 2 localhost:10811 disk nbd2 >/tmp/said 2>&1
status=$?
diag "nbd-server with two connections: status $status" "$(cat /tmp/said)"
t "attaches two, or says why not" test "$status" -eq 0 -o "$status" -eq 10
if ((!status)); then
	t "two connections" has nbd2 2
	t "data survives" reads_and_writes nbd2
	t "detached" "$a" -d nbd2
fi
stop_server nbd-server:10811

# --- a Unix socket, TLS by a relay, a command

t "nbdkit on a Unix socket" serve_nbdkit_unix /tmp/sock memory 16M
t "three connections" "$a" -C 3 /tmp/sock '' nbd3
t "has three" has nbd3 3
t "data survives" reads_and_writes nbd3
t "detached" "$a" -d nbd3
stop_server nbdkit:/tmp/sock

(umask 077 && psktool -u alice -p /tmp/keys.psk >/dev/null 2>&1)
t "nbdkit with TLS" serve_nbdkit 10812 --tls=require --tls-psk=/tmp/keys.psk memory 16M
for offload in require no; do
	t "three connections, offload $offload" "$a" -C 3 --tls-offload $offload --tls-psk-file /tmp/keys.psk \
		localhost:10812 '' nbd4
	t "has three" has nbd4 3
	t "data survives" reads_and_writes nbd4
	t "detached" "$a" -d nbd4
	t "no relay is left" wait_for 5 bash -c '! pgrep -x nbd-relay'
done
stop_server nbdkit:10812

t_fails 2 "a command serves one connection" "$a" -C 2 --command nbd5 -- nbdkit -s memory 16M
t "auto is one there" "$a" -C auto --command nbd5 -- nbdkit -s memory 16M
t "one" has nbd5 1
t "detached" "$a" -d nbd5

t_fails 2 "no number" "$a" -C many localhost '' nbd0
t_fails 2 "none" "$a" -C 0 localhost '' nbd0
t_fails 2 "too many" "$a" -C 65 localhost '' nbd0
t_fails 2 "force of nothing" "$a" --force-multi-conn localhost '' nbd0
t "the kernel has nothing to complain about" no_kernel_errors
finish
