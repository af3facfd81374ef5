#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# TLS with each server, version and cipher, done by the kernel: data goes both ways and stays right.

# timeout: 1200

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

A=${NBD_ATTACH:?the program to be tested}
# shellcheck source-path=SCRIPTDIR source=tlslib
. "${BASH_SOURCE[0]%/*}/tlslib"

file_system() {
	mkfs.ext4 -q -F "$1" && mount "$1" /mnt && seq 200000 >/mnt/file && umount /mnt &&
		mount -o ro "$1" /mnt && seq 200000 | cmp - /mnt/file && umount /mnt
}

declare -A counter=()
count() {
	local word value

	while read -r word value; do
		counter[$word]=$value
	done </proc/net/tls_stat
}

# counted: one more session in each direction, by software, since before the attachment; no error ever.
counted() {
	local tx=${counter[TlsTxSw]:-0} rx=${counter[TlsRxSw]:-0}

	count
	echo "sent by ${counter[TlsTxSw]}, received by ${counter[TlsRxSw]}"
	((counter[TlsTxSw] == tx + 1 && counter[TlsRxSw] == rx + 1 && !counter[TlsDecryptError]))
}
none_open() {
	count
	((!counter[TlsCurrTxSw] && !counter[TlsCurrRxSw]))
}

# good TEXT SHOWN CHECK ARG...: attach nbd0, use it by CHECK, detach; SHOWN is the TLS column.
good() {
	local text=$1 shown=$2 check=$3

	shift 3
	# A supervisor may have begun to connect again before it has seen that the end was a detach.
	count
	t "$text: attach" "$A" "$@" nbd0
	t "$text: listed as $shown" shown_as nbd0 "$shown"
	t "$text: counted by the kernel" counted
	t "$text: $check" "$check" /dev/nbd0
	t "$text: detach" "$A" -d nbd0
}

cd /tmp || bail "no /tmp"
t "certificates" make_credentials || bail "no certificates"
make_disk /tmp/disk 64M
t "nbdkit, certificate" serve_nbdkit 10901 --tls=require --tls-certificates=$pki/server memory 64M
t "nbdkit, certificates on both sides" serve_nbdkit 10902 --tls=require --tls-verify-peer \
	--tls-certificates=$pki/server memory 64M
t "nbdkit, key" serve_nbdkit 10903 --tls=require --tls-psk=$pki/psk/keys.psk memory 64M
t "nbdkit, expired" serve_nbdkit 10904 --tls=require --tls-certificates=$pki/expired memory 64M
t "nbdkit, optional" serve_nbdkit 10910 --tls=on --tls-certificates=$pki/server memory 64M
t "qemu-nbd, certificate" serve_qemu 10906 /tmp/disk -x disk --tls-creds t \
	--object tls-creds-x509,id=t,dir=$pki/server,endpoint=server,verify-peer=no
t "qemu-nbd, key" serve_qemu 10907 /tmp/disk -x disk --tls-creds t \
	--object tls-creds-psk,id=t,dir=$pki/psk,endpoint=server
t "qemu-nbd, certificates on both sides" serve_qemu 10909 /tmp/disk -x disk --tls-creds t \
	--object tls-creds-x509,id=t,dir=$pki/server,endpoint=server,verify-peer=yes
printf '%s\n' '[generic]' 'port = 10908' 'allowlist = true' 'force_tls = true' \
	"certfile = $pki/server-cert.pem" "keyfile = $pki/leaf-key.pem" \
	"cacertfile = $pki/ca-cert.pem" '[disk]' 'exportname = /tmp/disk' >/tmp/nbd-server.conf
t "nbd-server, certificates on both sides" lib_serve nbd-server:10908 tcp_listening 10908 \
	lib_start_nbdserver /tmp/nbd-server.conf
dmesg_mark

# --- a kernel without the module ---------------------------------------------------------------

ca=(--tls-ca "$pki/ca-cert.pem")
mkdir -p /etc/modprobe.d
echo 'install tls /bin/false' >/etc/modprobe.d/no-tls.conf
refused 'no module tls' "the kernel has no TLS" "${ca[@]}" --tls-offload require localhost:10901 '' nbd0
t "no TLS in the kernel: a relay" "$A" "${ca[@]}" localhost:10901 '' nbd0
t "no TLS in the kernel: listed as relay" shown_as nbd0 "TLS1.3 $x509_cipher relay"
t "no TLS in the kernel: random_io" random_io /dev/nbd0
t "no TLS in the kernel: detach" "$A" -d nbd0
t "no TLS in the kernel: nothing is left" wait_for 5 nothing_left
t_fails 1 "the module was not loaded" test -e /sys/module/tls
rm /etc/modprobe.d/no-tls.conf
t "modprobe tls" modprobe tls
count

# --- good --------------------------------------------------------------------------------------

good "nbdkit" "TLS1.3 $x509_cipher kernel" file_system "${ca[@]}" localhost:10901 ''
for cipher in AES-128-GCM AES-256-GCM CHACHA20-POLY1305; do
	good "TLS 1.2 $cipher" "TLS1.2 $cipher kernel" random_io "${ca[@]}" \
		--tls-priority $tls12:-CIPHER-ALL:+$cipher localhost:10901 ''
	good "TLS 1.3 $cipher" "TLS1.3 $cipher kernel" random_io "${ca[@]}" \
		--tls-offload require --tls-priority $tls13:-CIPHER-ALL:+$cipher localhost:10901 ''
done
good "nbdkit, by address, both sides" "TLS1.3 $x509_cipher kernel" there_and_back \
	--tls-certificates $pki/client 127.0.0.1:10902 ''
# In the order that the priority string has itself.
good "nbdkit, both sides, TLS 1.2" "TLS1.2 AES-256-GCM kernel" there_and_back \
	--tls-certificates $pki/client --tls-priority $tls12 localhost:10902 ''
good "nbdkit, key" "TLS1.3 $psk_cipher kernel" random_io \
	--tls-psk-file $pki/psk/keys.psk localhost:10903 ''
good "nbdkit, key, user in the URI" "TLS1.3 $psk_cipher kernel" there_and_back \
	"nbds://alice@localhost:10903/?tls-psk-file=$pki/many.psk"
good "nbdkit, key, an option's user wins" "TLS1.3 $psk_cipher kernel" there_and_back \
	--tls-psk-user alice "nbds://mallory@localhost:10903/?tls-psk-file=$pki/many.psk"
t "the user is not told to the kernel" "$A" "nbds://alice@localhost:10903/?tls-psk-file=$pki/many.psk" nbd0
t "the kernel knows the place only" grep -qx nbds://localhost:10903/ /sys/block/nbd0/backend
t "the same place, for another user" "$A" --tls-psk-file $pki/psk/keys.psk nbds://localhost:10903/ nbd0
t_says "the same place, for another user: is attached already" 'attached to this export already'
t "detach" "$A" -d nbd0
count
good "nbdkit, optional, by URI" "TLS1.3 $x509_cipher kernel" there_and_back \
	"nbds://localhost:10910/?tls-certificates=$pki/client"
good "unverified" "TLS1.3 $x509_cipher kernel" there_and_back --tls-no-verify 127.0.0.1:10904 ''
good "qemu-nbd" "TLS1.3 $x509_cipher kernel" file_system "${ca[@]}" localhost:10906 disk
good "qemu-nbd, key" "TLS1.3 $psk_cipher kernel" there_and_back \
	--tls-psk-file $pki/psk/keys.psk --tls-psk-user alice localhost:10907 disk
good "qemu-nbd, both sides" "TLS1.3 $x509_cipher kernel" there_and_back \
	--tls-certificates $pki/client localhost:10909 disk
good "nbd-server" "TLS1.3 $x509_cipher kernel" random_io \
	--tls-certificates $pki/client localhost:10908 disk
t "all sessions have ended" wait_for 5 none_open
t "--info" "$A" --info -n -O TLS,TLS-PEER "${ca[@]}" localhost:10901 ''
t_says "--info: version and cipher" "^TLS1\.3 $x509_cipher\$"
t_says "--info: the server's names" '^localhost, 127\.0\.0\.1$'
t "--exports" "$A" --exports -n "${ca[@]}" localhost:10906
t_says "--exports: what there is" '^disk'
t "no errors in the kernel's log" no_kernel_errors
finish
