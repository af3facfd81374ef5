#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# Whoever is not whom he should be, or does not want TLS where it is required, gets nothing: exit
# status 6 with the reason, no device, and never the export's name in plain text.

# timeout: 1200

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

A=${NBD_ATTACH:?the program to be tested}
# shellcheck source-path=SCRIPTDIR source=tlslib
. "${BASH_SOURCE[0]%/*}/tlslib"
here=$(cd "${BASH_SOURCE[0]%/*}" && pwd)
logs=/tmp/starttls
name=secret-export

serve_starttls() {
	local last=${*: -1}

	lib_serve "starttls:${last%%=*}" tcp_listening "${last%%=*}" \
		lib_start "$here/../hostile/starttls" "$logs" "$@"
}

# The client has been there, and has not said what it wants.
never_said() {
	[[ -s $logs/$1 ]] || { echo "nobody came"; return 1; }
	! grep -aq "$name" "$logs/$1"
}

mkdir "$logs"
cd /tmp || bail "no /tmp"
t "certificates" make_credentials || bail "no certificates"
make_disk /tmp/disk 64M

t "nbdkit, certificate" serve_nbdkit 10901 --tls=require --tls-certificates=$pki/server memory 64M
t "nbdkit, certificates on both sides" serve_nbdkit 10902 --tls=require --tls-verify-peer \
	--tls-certificates=$pki/server memory 64M
t "nbdkit, key" serve_nbdkit 10903 --tls=require --tls-psk=$pki/psk/keys.psk memory 64M
t "nbdkit, expired" serve_nbdkit 10904 --tls=require --tls-certificates=$pki/expired memory 64M
t "nbdkit, plain" serve_nbdkit 10905 memory 64M
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
t "servers that want no TLS" serve_starttls 12101=none 12102=1 12103=2 12104=3 12105=4 12106=77 \
	12107=payload 12108=other 12109=export 12110=early 12111=plain 12112=close 12113=silent \
	12114=required
t "modprobe tls" modprobe tls
dmesg_mark
ca=(--tls-ca "$pki/ca-cert.pem")

# --- refused -----------------------------------------------------------------------------------

refused 'not trusted: no authority in .*/other-cert.pem' "wrong authority" \
	--tls-ca $pki/other-cert.pem localhost:10901 '' nbd0
refused 'not trusted: no authority in .*/wrong/ca-cert.pem' "wrong authority, qemu-nbd" \
	--tls-certificates $pki/wrong localhost:10906 disk nbd0
refused 'expired on 2020-02-03 04:05:06 UTC' "expired" "${ca[@]}" localhost:10904 '' nbd0
refused "revocation list $pki/old-crl.pem is out of date: its next issue was due on 2021-02-03 04:05:06 UTC" \
	"a revocation list of the past" "${ca[@]}" --tls-crl $pki/old-crl.pem localhost:10901 '' nbd0
t "a revocation list of today" "$A" --info "${ca[@]}" --tls-crl $pki/crl.pem localhost:10901 ''
refused 'certificate is revoked' "revoked" "${ca[@]}" --tls-crl $pki/revoking-crl.pem localhost:10901 '' nbd0
refused 'is for localhost, 127\.0\.0\.1, not for wrong.example' "wrong name" "${ca[@]}" \
	--tls-hostname wrong.example localhost:10901 '' nbd0
refused 'not for 127\.0\.0\.2' "wrong address" "${ca[@]}" 127.0.0.2:10901 '' nbd0
for port in 10903 10907; do
	refused 'key' "wrong key, $port" --tls-psk-file $pki/wrong.psk localhost:$port disk nbd0
	refused 'key' "wrong user, $port" --tls-psk-file $pki/mallory.psk localhost:$port disk nbd0
done
refused 'key' "wrong user in the URI" "nbds://mallory@localhost:10903/?tls-psk-file=$pki/many.psk" nbd0
refused 'no key for the user' "no such user in the URI" \
	"nbds://dave@localhost:10903/?tls-psk-file=$pki/many.psk" nbd0
t_fails 2 "a user in the URI, but no key" "$A" "${ca[@]}" nbds://alice@localhost:10901/ nbd0
t_says "a user in the URI, but no key: says so" 'no key file \(--tls-psk-file\)'
refused 'by its certificate, not by a pre-shared key' "a key where the server has certificates" \
	--tls-psk-file $pki/psk/keys.psk localhost:10901 '' nbd0
refused '(kind of credentials|closed the connection)' "a certificate where the server has keys" "${ca[@]}" localhost:10903 '' nbd0
for port in 10902 10909 10908; do
	refused 'certificate of ours' "no certificate of ours, $port" "${ca[@]}" \
		localhost:$port disk nbd0
	refused 'certificate of ours' "no certificate of ours, TLS 1.2, $port" "${ca[@]}" \
		--tls-priority $tls12 localhost:$port disk nbd0
done
refused '(no common protocol version, cipher|closed the connection)' "no common cipher" "${ca[@]}" \
	--tls-priority $tls12:-CIPHER-ALL:+CAMELLIA-128-GCM localhost:10908 disk nbd0
refused 'nothing was sent in plain text.*(does not know|policy|platform)' "nbdkit is plain" \
	"${ca[@]}" localhost:10905 '' nbd0
for port in 10901 10903 10906 10908; do
	refused '--tls' "TLS is required by the server, $port" localhost:$port disk nbd0
done
refused 'it requires TLS' "TLS is required, --info" --info localhost:10901 ''
refused 'it requires TLS' "TLS is required, --exports" --exports localhost:10906
chmod 644 $pki/mallory.psk
refused 'other users may read.*chmod 600' "a key that others can read" \
	--tls-psk-file $pki/mallory.psk localhost:10903 '' nbd0

# --- somebody in between -----------------------------------------------------------------------

# between PORT REGEX TEXT: what he said, and what he was told
between() {
	refused "$2" "$3" --tls-no-verify "127.0.0.1:$1" $name nbd0
	t "$3: the export was not named" never_said "$1"
}
between 12101 'unfixed newstyle.*nothing was sent in plain text' "no options"
between 12102 'nothing was sent in plain text.*does not know' "STARTTLS is unknown"
between 12103 'nothing was sent in plain text.*policy' "against the policy"
between 12104 'nothing was sent in plain text.*invalid' "invalid"
between 12105 'nothing was sent in plain text.*platform' "not on this platform"
between 12106 'nothing was sent in plain text.*0x8000004d' "an error of the future"
between 12110 'plain text where the TLS handshake begins' "plain text with the consent"
between 12111 'is not TLS' "plain text instead of a handshake"
between 12112 'closed the connection in the TLS handshake' "an end instead of a handshake"
for port in 12107 12108 12109; do
	t_fails 5 "a breach, $port" "$A" --tls-no-verify 127.0.0.1:$port $name nbd0
	t "a breach, $port: nothing is left" nothing_left
	t "a breach, $port: the export was not named" never_said $port
done
t_fails 3 "silence instead of a handshake" "$A" --tls-no-verify --connect-timeout 4 \
	127.0.0.1:12113 $name nbd0
t_says "silence instead of a handshake: says where" 'TLS handshake: not done within 4 s'
t "silence: the export was not named" never_said 12113
# what the proof is worth
refused 'it requires TLS.*--tls' "without --tls" 127.0.0.1:12114 $name nbd0
t_fails 1 "without --tls the export is named" never_said 12114
for command in --info --exports; do
	[[ $command == --info ]] && words=("$name") || words=()
	refused 'nothing was sent in plain text' "$command, STARTTLS is unknown" $command --tls-no-verify \
		127.0.0.1:12102 "${words[@]}"
	refused 'plain text where the TLS handshake begins' "$command, plain text with the consent" \
		$command --tls-no-verify 127.0.0.1:12110 "${words[@]}"
done
t "--info, --exports: the export was not named" never_said 12102
t "--info, --exports: nor after consent" never_said 12110

t "no errors in the kernel's log" no_kernel_errors
finish
