#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# TLS with each server, version and cipher, done by the kernel: data goes both ways and stays right.
# Whoever is not whom he should be, or does not want TLS where it is required, gets nothing: exit
# status 6 with the reason, no device, and never the export's name in plain text.

# timeout: 400

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

A=${NBD_ATTACH:?the program to be tested}
here=$(cd "${BASH_SOURCE[0]%/*}" && pwd)
pki=/run/pki
logs=/tmp/starttls
tls12=NORMAL:-VERS-ALL:+VERS-TLS1.2
tls13=NORMAL:-VERS-ALL:+VERS-TLS1.3
name=secret-export

# --- certificates ------------------------------------------------------------------------------

# cert NAME SIGNER KEY LINE...: with SIGNER "" by itself
cert() {
	local out=$pki/$1 signer=$2 key=$3
	local by=(--generate-certificate --load-ca-certificate "$pki/$2-cert.pem"
		--load-ca-privkey "$pki/$2-key.pem")

	shift 3
	[[ -n $signer ]] || by=(--generate-self-signed)
	printf '%s\n' "$@" >/tmp/template
	certtool "${by[@]}" --load-privkey "$pki/$key.pem" --template /tmp/template \
		--outfile "$out-cert.pem"
}

key() {
	certtool --generate-privkey --key-type ecdsa --curve secp256r1 --outfile "$pki/$1.pem"
}

# What the servers and the client look for in their directories.
make_credentials() {
	local server=('cn = server' 'dns_name = localhost' tls_www_server signing_key)
	local years='expiration_days = 3650' dir

	mkdir -m 700 "$pki" "$pki"/{server,expired,client,psk,wrong} || return
	key ca-key && key leaf-key && cp "$pki/leaf-key.pem" "$pki/other-key.pem" || return
	cert ca '' ca-key 'cn = authority' ca cert_signing_key "$years" &&
		cert other '' leaf-key 'cn = another authority' ca cert_signing_key "$years" &&
		cert server ca leaf-key "${server[@]}" 'ip_address = 127.0.0.1' "$years" &&
		cert expired ca leaf-key "${server[@]}" 'activation_date = 2020-01-01 00:00:00 UTC' \
			'expiration_date = 2020-02-03 04:05:06 UTC' &&
		cert client ca leaf-key 'cn = client' tls_www_client signing_key "$years" || return
	for dir in server expired; do
		cp "$pki/ca-cert.pem" "$pki/$dir/"
		cp "$pki/$dir-cert.pem" "$pki/$dir/server-cert.pem"
		cp "$pki/leaf-key.pem" "$pki/$dir/server-key.pem"
	done
	cp "$pki/ca-cert.pem" "$pki/client-cert.pem" "$pki/client/"
	cp "$pki/leaf-key.pem" "$pki/client/client-key.pem"
	cp "$pki/other-cert.pem" "$pki/wrong/ca-cert.pem"
	echo alice:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff >"$pki/psk/keys.psk"
	echo alice:ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff >"$pki/wrong.psk"
	echo mallory:00112233445566778899aabbccddeeff >"$pki/mallory.psk"
	chmod 600 "$pki"/*.pem "$pki"/*.psk "$pki"/*/*
}

# --- what is checked ---------------------------------------------------------------------------

random_io() {
	fio --name=x --filename="$1" --direct=1 --rw=randwrite --bsrange=4k-128k --size=4M \
		--iodepth=16 --ioengine=libaio --verify=crc32c --verify_fatal=1 --output=/tmp/fio ||
		{ cat /tmp/fio; return 1; }
}

file_system() {
	mkfs.ext4 -q -F "$1" && mount "$1" /mnt && seq 200000 >/mnt/file && umount /mnt &&
		mount -o ro "$1" /mnt && seq 200000 | cmp - /mnt/file && umount /mnt
}

shown_as() {
	local line

	line=$("$A" --list --noheadings --output TLS "$1") && echo "$line" && [[ $line == "$2" ]]
}

declare -A counter=()
count() {
	local word value

	while read -r word value; do
		counter[$word]=$value
	done </proc/net/tls_stat
}

# counted: one more session in each direction, by software, since the last count; no error ever.
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

nothing_left() {
	local file comm status=0

	for file in /sys/block/nbd*/pid /run/nbd-attach/nbd*; do
		[[ ! -e $file ]] || { echo "$file is left"; status=1; }
	done
	for file in /proc/[0-9]*/comm; do
		read -r comm 2>/dev/null <"$file" || continue
		[[ $comm != nbd-attach ]] || { echo "$file is left"; status=1; }
	done
	return "$status"
}

# good TEXT SHOWN CHECK ARG...: attach nbd0, use it by CHECK, detach; SHOWN is the TLS column.
good() {
	local text=$1 shown=$2 check=$3

	shift 3
	t "$text: attach" "$A" "$@" nbd0
	t "$text: listed as $shown" shown_as nbd0 "$shown"
	t "$text: counted by the kernel" counted
	t "$text: $check" "$check" /dev/nbd0
	t "$text: detach" "$A" -d nbd0
}

# refused REGEX TEXT ARG...
refused() {
	local regex=$1 text=$2

	shift 2
	t_fails 6 "$text: exit 6" "$A" "$@"
	t_says "$text: says why" "^nbd-attach: .*$regex"
	t "$text: nothing is left" nothing_left
}

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
t "servers that want no TLS" serve_starttls 12101=none 12102=1 12103=2 12104=3 12105=4 12106=77 \
	12107=payload 12108=other 12109=export 12110=early 12111=plain 12112=close 12113=silent \
	12114=required
dmesg_mark

# --- a kernel without the module ---------------------------------------------------------------

ca=(--tls-ca "$pki/ca-cert.pem")
mkdir -p /etc/modprobe.d
echo 'install tls /bin/false' >/etc/modprobe.d/no-tls.conf
refused 'no module tls' "the kernel has no TLS" "${ca[@]}" --tls-offload require localhost:10901 '' nbd0
t "no TLS in the kernel: a relay" "$A" "${ca[@]}" localhost:10901 '' nbd0
t "no TLS in the kernel: listed as relay" shown_as nbd0 "TLS1.3 AES-256-GCM relay"
t "no TLS in the kernel: random_io" random_io /dev/nbd0
t "no TLS in the kernel: detach" "$A" -d nbd0
t "no TLS in the kernel: nothing is left" wait_for 5 nothing_left
t_fails 1 "the module was not loaded" test -e /sys/module/tls
rm /etc/modprobe.d/no-tls.conf
t "modprobe tls" modprobe tls
count

# --- good --------------------------------------------------------------------------------------

good "nbdkit" "TLS1.3 AES-256-GCM kernel" file_system "${ca[@]}" localhost:10901 ''
for cipher in AES-128-GCM AES-256-GCM CHACHA20-POLY1305; do
	good "TLS 1.2 $cipher" "TLS1.2 $cipher kernel" random_io "${ca[@]}" \
		--tls-priority $tls12:-CIPHER-ALL:+$cipher localhost:10901 ''
	good "TLS 1.3 $cipher" "TLS1.3 $cipher kernel" random_io "${ca[@]}" \
		--tls-offload require --tls-priority $tls13:-CIPHER-ALL:+$cipher localhost:10901 ''
done
good "nbdkit, by address, both sides" "TLS1.3 AES-256-GCM kernel" random_io \
	--tls-certificates $pki/client 127.0.0.1:10902 ''
good "nbdkit, both sides, TLS 1.2" "TLS1.2 AES-256-GCM kernel" random_io \
	--tls-certificates $pki/client --tls-priority $tls12 localhost:10902 ''
good "nbdkit, key" "TLS1.3 CHACHA20-POLY1305 kernel" random_io \
	--tls-psk-file $pki/psk/keys.psk localhost:10903 ''
good "nbdkit, optional, by URI" "TLS1.3 AES-256-GCM kernel" random_io \
	"nbds://localhost:10910/?tls-certificates=$pki/client"
good "unverified" "TLS1.3 AES-256-GCM kernel" random_io --tls-no-verify 127.0.0.1:10904 ''
good "qemu-nbd" "TLS1.3 AES-256-GCM kernel" file_system "${ca[@]}" localhost:10906 disk
good "qemu-nbd, key" "TLS1.3 CHACHA20-POLY1305 kernel" random_io \
	--tls-psk-file $pki/psk/keys.psk --tls-psk-user alice localhost:10907 disk
good "qemu-nbd, both sides" "TLS1.3 AES-256-GCM kernel" random_io \
	--tls-certificates $pki/client localhost:10909 disk
good "nbd-server" "TLS1.3 AES-256-GCM kernel" random_io \
	--tls-certificates $pki/client localhost:10908 disk
t "all sessions have ended" wait_for 5 none_open
t "--info" "$A" --info -n -O TLS,TLS-PEER "${ca[@]}" localhost:10901 ''
t_says "--info: version and cipher" '^TLS1\.3 AES-256-GCM$'
t_says "--info: the server's names" '^localhost, 127\.0\.0\.1$'
t "--exports" "$A" --exports -n "${ca[@]}" localhost:10906
t_says "--exports: what there is" '^disk'

# --- refused -----------------------------------------------------------------------------------

refused 'not trusted: no authority in .*/other-cert.pem' "wrong authority" \
	--tls-ca $pki/other-cert.pem localhost:10901 '' nbd0
refused 'not trusted: no authority in .*/wrong/ca-cert.pem' "wrong authority, qemu-nbd" \
	--tls-certificates $pki/wrong localhost:10906 disk nbd0
refused 'expired on 2020-02-03 04:05:06 UTC' "expired" "${ca[@]}" localhost:10904 '' nbd0
refused 'is for localhost, 127\.0\.0\.1, not for wrong.example' "wrong name" "${ca[@]}" \
	--tls-hostname wrong.example localhost:10901 '' nbd0
refused 'not for 127\.0\.0\.2' "wrong address" "${ca[@]}" 127.0.0.2:10901 '' nbd0
for port in 10903 10907; do
	refused 'key' "wrong key, $port" --tls-psk-file $pki/wrong.psk localhost:$port disk nbd0
	refused 'key' "wrong user, $port" --tls-psk-file $pki/mallory.psk localhost:$port disk nbd0
done
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

t "all sessions have ended again" wait_for 5 none_open
t "no errors in the kernel's log" no_kernel_errors
finish
