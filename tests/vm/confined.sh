#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# The processes that talk to a server have no privileges, as the kernel sees them, and connect again
# all the same: by name and by address, over TCP and Unix sockets, with keys that only root can read.

# timeout: 600

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

A=${NBD_ATTACH:?the program to be tested}
# shellcheck source-path=SCRIPTDIR source=tlslib
. "${BASH_SOURCE[0]%/*}/tlslib"

negotiator() {
	pgrep -P "$("$A" --list -n -O SUPERVISOR nbd0 | tr -d ' ')" -x nbd-negotiator
}

# has PID FIELD REGEX: of /proc/PID/status
has() {
	grep -E "^$2:[[:space:]]*($3)\$" "/proc/$1/status" || { grep "^$2:" "/proc/$1/status"; return 1; }
}

# is_harmless TEXT PID
is_harmless() {
	local nobody=65534 field

	nobody="(${nobody}[[:space:]]*){4}"
	t "$1: its user is nobody" has "$2" Uid "$nobody"
	t "$1: its group, too" has "$2" Gid "$nobody"
	t "$1: it is in no other" has "$2" Groups '[[:space:]]*'
	for field in CapInh CapPrm CapEff CapAmb; do
		t "$1: no $field" has "$2" "$field" '0+'
	done
	t "$1: no new privileges" has "$2" NoNewPrivs 1
	t "$1: a filter of system calls" has "$2" Seccomp 2
	t "$1: it cannot write files" grep -Eq '^Max file size +0 +0 ' "/proc/$2/limits"
}

reads() {
	timeout 20 dd if=/dev/nbd0 of=/dev/null bs=4k count=1 iflag=direct
}

reconnected() {
	[[ $("$A" --list -n -O RECONNECTS nbd0 | tr -d ' ') == "$1" ]]
}

# restart SERVER START...: it is connected to again, by the same process
restart() {
	local text=$1 name=$2 pid

	shift 2
	pid=$(negotiator)
	t "$text: the server is killed" stop_server "$name" KILL
	t "$text: and started" "$@"
	t "$text: the device answers" reads
	t "$text: it is connected again" wait_for 5 reconnected 1
	t "$text: by the same process" test "$(negotiator)" = "$pid"
}

t "certificates" make_credentials || bail "no certificates"
modprobe nbd
dmesg_mark
make_disk /tmp/disk 16M

plain() { serve_nbdkit 10809 file /tmp/disk; }
t "nbdkit" plain
t "by name: attach" "$A" localhost '' nbd0
is_harmless "by name" "$(negotiator)"
restart "by name" nbdkit:10809 plain
t "detach" "$A" -d nbd0
t "by address: attach" "$A" 127.0.0.1 '' nbd0
restart "by address" nbdkit:10809 plain
t "detach" "$A" -d nbd0

# Where only root may go.
mkdir -m 700 /run/private
unix() { rm -f /run/private/socket; serve_nbdkit_unix /run/private/socket file /tmp/disk; }
t "nbdkit on a Unix socket" unix
t "Unix: attach" "$A" /run/private/socket '' nbd0
is_harmless "Unix" "$(negotiator)"
restart "Unix" nbdkit:/run/private/socket unix
t "detach" "$A" -d nbd0

tls() {
	serve_nbdkit 10901 --tls=require --tls-verify-peer --tls-certificates="$pki/server" file /tmp/disk
}
t "nbdkit with TLS" tls
for offload in auto no; do
	t "TLS, offload $offload: attach" "$A" --tls-ca "$pki/ca-cert.pem" --tls-cert "$pki/client-cert.pem" \
		--tls-key "$pki/leaf-key.pem" --tls-offload $offload localhost:10901 '' nbd0
	is_harmless "TLS, offload $offload" "$(negotiator)"
	[[ $offload != no ]] || is_harmless "its relay" "$(pgrep -x nbd-relay)"
	restart "TLS, offload $offload" nbdkit:10901 tls
	t "detach" "$A" -d nbd0
done

# A token's module needs more: what its owner may, and nothing that root may.
export SOFTHSM2_CONF=/run/softhsm2.conf
mkdir -m 700 /run/tokens
echo directories.tokendir = /run/tokens >"$SOFTHSM2_CONF"
(umask 077 && echo 4938 >/run/pin)
make_token() {
	softhsm2-util --init-token --free --label nbd --so-pin 12345678 --pin 4938 &&
		p11tool --login --set-pin 4938 --write --load-privkey "$pki/leaf-key.pem" --label client \
			pkcs11:token=nbd
}
t "a token" make_token
t "token: attach" "$A" --tls-ca "$pki/ca-cert.pem" --tls-cert "$pki/client-cert.pem" \
	--tls-key "pkcs11:token=nbd;object=client?pin-source=file:/run/pin" localhost:10901 '' nbd0
t "token: no capabilities" has "$(negotiator)" CapEff '0+'
t "token: no new privileges" has "$(negotiator)" NoNewPrivs 1
restart token nbdkit:10901 tls
t "detach" "$A" -d nbd0

t "no errors in the kernel's log" no_kernel_errors
finish
