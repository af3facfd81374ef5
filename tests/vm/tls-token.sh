#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# Our certificate and its key in a PKCS#11 token: a server that wants to know its clients lets us in, and
# without the right PIN nobody is contacted. No message shows a PIN.

# timeout: 600

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

A=${NBD_ATTACH:?the program to be tested}
# shellcheck source-path=SCRIPTDIR source=tlslib
. "${BASH_SOURCE[0]%/*}/tlslib"

export SOFTHSM2_CONF=/run/softhsm2.conf
pin=493817

make_token() {
	mkdir -m 700 /run/tokens || return
	echo directories.tokendir = /run/tokens >"$SOFTHSM2_CONF"
	softhsm2-util --init-token --free --label nbd --so-pin 12345678 --pin "$pin" || return
	p11tool --login --set-pin "$pin" --write --load-privkey "$pki/leaf-key.pem" --label client pkcs11:token=nbd &&
		p11tool --login --set-pin "$pin" --write --load-certificate "$pki/client-cert.pem" --label client \
			pkcs11:token=nbd
}

# The last command has printed no PIN.
no_pin() {
	# shellcheck disable=SC2154 # of lib.sh
	! grep -F -e "$pin" -e 271828 "$lib_output"
}

attach_and_use() {
	local text=$1

	shift
	t "$text: attach" "$A" --tls-ca "$pki/ca-cert.pem" "$@" localhost:10901 '' nbd0
	t "$text: TLS is used" grep -q '^tls=TLS' /run/nbd-attach/nbd0
	t "$text: data" there_and_back /dev/nbd0
	t "$text: detach" "$A" -d nbd0
}

t "certificates" make_credentials || bail "no certificates"
t "a token" make_token || bail "no token"
t "nbdkit" serve_nbdkit 10901 --tls=require --tls-verify-peer --tls-certificates="$pki/server" memory 64M
t "modprobe tls" modprobe tls
(umask 077 && echo $pin >/run/pin && echo 271828 >/run/wrong-pin && cp /run/pin /run/open-pin && chmod 644 /run/open-pin)
dmesg_mark

cert=pkcs11:token=nbd\;object=client\;type=cert
key=pkcs11:token=nbd\;object=client

attach_and_use "key in the token" --tls-cert "$pki/client-cert.pem" --tls-key "$key?pin-source=file:/run/pin"
attach_and_use "both in the token" --tls-cert "$cert" --tls-key "$key?pin-source=file:/run/pin"
attach_and_use "TLS 1.2" --tls-cert "$cert" --tls-key "$key?pin-source=file:/run/pin" --tls-priority "$tls12"
attach_and_use "a relay, PIN in the URI" --tls-cert "$cert" --tls-key "$key?pin-value=$pin" --tls-offload no

# no TEXT REGEX KEY [CERT]
no() {
	local text=$1 regex=$2

	t_fails 6 "$text: exit 6" "$A" --tls-ca "$pki/ca-cert.pem" --tls-cert "${4:-$cert}" --tls-key "$3" \
		localhost:10901 '' nbd0
	t_says "$text: says why" "^nbd-attach: .*$regex"
	t "$text: shows no PIN" no_pin
	t "$text: nothing is left" nothing_left
}
no "no PIN" 'private key pkcs11:token=nbd;object=client: the token wants a PIN' "$key"
no "a wrong PIN" 'the token wants a PIN, or another one' "$key?pin-source=file:/run/wrong-pin"
no "a wrong PIN in the URI" 'the token wants a PIN, or another one' "$key?pin-value=271828"
no "a PIN that others can read" 'PIN /run/open-pin: other users may read' "$key?pin-source=file:/run/open-pin"
no "a PIN that is not there" 'PIN /run/none: No such file' "$key?pin-source=file:/run/none"
no "no such token" 'pkcs11:token=other: ' "pkcs11:token=other?pin-value=$pin"
no "no such key" 'pkcs11:token=nbd;object=other: ' "pkcs11:token=nbd;object=other?pin-value=$pin"
no "no such certificate" 'certificate and key' "$key?pin-value=$pin" "pkcs11:token=nbd;object=other;type=cert"
attach_and_use "the token is not locked" --tls-cert "$cert" --tls-key "$key?pin-source=file:/run/pin"

t "no errors in the kernel's log" no_kernel_errors
finish
