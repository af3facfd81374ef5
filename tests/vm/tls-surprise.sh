#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# A server that speaks of TLS inside TLS: session tickets before and between the options of NBD are taken
# as they come, and all works. In the transmission phase a relay takes tickets and new keys as well; the
# kernel cannot: its connection ends, requests fail, and no byte that was read is wrong.

# timeout: 900

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

A=${NBD_ATTACH:?the program to be tested}
# shellcheck source-path=SCRIPTDIR source=tlslib
. "${BASH_SOURCE[0]%/*}/tlslib"
TLSD=${NBD_ATTACH%/*}/tests/hostile/tlsd

# What tlsd has: each sector holds its number.
make_expected() {
	perl -e 'print pack("V", $_) x 128 for 0 .. 8191' >/tmp/expected
}

# serve PORT CREDENTIALS WAY [N]
serve() {
	lib_serve "tlsd:$1" tcp_listening "$1" lib_start "$TLSD" "$@"
}

# did N|+ PORT TEXT: so often (or at least once), says its log
did() {
	local count

	server_log "tlsd:$2"
	count=$(server_log "tlsd:$2" | grep -c "$3")
	if [[ $1 == + ]]; then ((count)); else ((count == $1)); fi
}

all_right() {
	dd if="$1" of=/tmp/got bs=64k iflag=direct status=none && cmp /tmp/got /tmp/expected
}

# Reading ends with an error, somewhere in the middle, and what came until then is right.
right_until_error() {
	local size

	if dd if="$1" of=/tmp/got bs=16k iflag=direct; then
		echo "no error"
		return 1
	fi
	size=$(stat -c %s /tmp/got)
	echo "$size bytes"
	((size > 0 && size < 4 << 20)) && cmp -n "$size" /tmp/got /tmp/expected
}

# The sectors of a write that failed are as they were or as they should be.
old_or_new() {
	perl -e 'local $/ = \512; my $n = 0; while (<STDIN>) {
		die "sector $n\n" if $_ ne pack("V", $n) x 128 && $_ ne "\xa5" x 512; $n++ } die if $n != 8192'
}

write_until_error() {
	! perl -e 'print "\xa5" x 4194304' | dd of="$1" bs=16k iflag=fullblock oflag=direct
}

cert=(--tls-ca "$pki/ca-cert.pem") psk=(--tls-psk-file "$pki/psk/keys.psk")

is_by() {
	[[ $("$A" --list -n -O TLS "$1") == "TLS1.3 "*" $2" ]]
}

# attached OFFLOAD ARG...: as it was asked for, and nobody replaces a connection that ends
attached() {
	local who=kernel

	[[ $1 == require ]] || who=relay
	t "$text: attach" "$A" --no-supervise --tls-offload "$@" nbd0
	t "$text: by the $who" is_by nbd0 "$who"
}

t "certificates" make_credentials || bail "no certificates"
t "modprobe tls" modprobe tls
make_expected

t "tlsd, tickets" serve 10901 "$pki/server" tickets
t "tlsd, tickets, key" serve 10902 "$pki/psk/keys.psk" tickets
t "tlsd, tickets in an answer" serve 10903 "$pki/server" tickets-go
t "tlsd, tickets in an answer, key" serve 10904 "$pki/psk/keys.psk" tickets-go
t "tlsd, tickets in the data" serve 10905 "$pki/server" tickets-data 40
t "tlsd, new keys" serve 10906 "$pki/server" update 40
t "tlsd, new keys, key" serve 10907 "$pki/psk/keys.psk" update 40
t "tlsd, new keys of both" serve 10908 "$pki/server" update-both 40
t "tlsd, new keys again and again" serve 10909 "$pki/server" updates 8
dmesg_mark

# --- no surprise: the server itself is right -----------------------------------------------------

t "tlsd, plain" serve 10910 "$pki/server" plain
text=plain
attached require "${cert[@]}" localhost:10910 ''
t "$text: its data" all_right /dev/nbd0
t "$text: detach" "$A" -d nbd0

# --- tickets, before the data --------------------------------------------------------------------

for port in 10901 10902 10903 10904; do
	((port % 2)) && how=("${cert[@]}") || how=("${psk[@]}")
	for offload in require no; do
		text="tickets, $port, --tls-offload $offload"
		attached "$offload" "${how[@]}" localhost:$port ''
		t "$text: the data is right" all_right /dev/nbd0
		t "$text: detach" "$A" -d nbd0
	done
	t "$port: tickets were sent, to both" did 2 $port '2 tickets sent before'
done
t "no errors in the kernel's log" no_kernel_errors

# --- in the data, by a relay ---------------------------------------------------------------------

relayed() {
	text="$1, relay"
	attached no "${@:2:$#-2}" localhost:"${*: -1}" ''
	t "$text: the data is right" all_right /dev/nbd0
}
relayed "tickets" "${cert[@]}" 10905
t "$text: detach" "$A" -d nbd0
t "$text: it had them" did 1 10905 'tickets sent in the transmission phase'
relayed "new keys" "${cert[@]}" 10906
t "$text: detach" "$A" -d nbd0
t "$text: it had them" did 1 10906 'keys updated after 40 '
relayed "new keys, key" "${psk[@]}" 10907
t "$text: detach" "$A" -d nbd0
t "$text: it had them" did 1 10907 'keys updated after 40 '
relayed "new keys of both" "${cert[@]}" 10908
t "$text: requests of all sizes" random_io /dev/nbd0
t "$text: detach" "$A" -d nbd0
t "$text: it had them" did 1 10908 'keys updated after 40 '
relayed "new keys again and again" "${cert[@]}" 10909
t "$text: requests of all sizes" random_io /dev/nbd0
t "$text: again" random_io /dev/nbd0
t "$text: detach" "$A" -d nbd0
t "$text: it had several" test "$(server_log tlsd:10909 | grep -c 'keys updated')" -gt 1
t "no errors in the kernel's log" no_kernel_errors

# --- in the data, by the kernel ------------------------------------------------------------------

# A request in flight comes back from a dead connection only when its own time (-t) is up.
# ends TEXT PORT LOG ARG...
ends() {
	text="$1, kernel"
	attached require -t 3 "${@:4}" localhost:"$2" ''
	t "$text: an error, and nothing wrong before" right_until_error /dev/nbd0
	t "$text: it was this" did + "$2" "$3"
	t_fails 1 "$text: nothing more can be read" dd if=/dev/nbd0 of=/dev/null bs=4k count=1 iflag=direct
	t "$text: detach" "$A" --detach --force nbd0
	t "$text: nothing is left" wait_for 5 nothing_left
}
ends "tickets" 10905 'tickets sent in the transmission phase' "${cert[@]}"
ends "new keys" 10906 'keys updated after 40 ' "${cert[@]}"
ends "new keys, key" 10907 'keys updated after 40 ' "${psk[@]}"

text="new keys while writing, kernel"
attached require -t 3 "${cert[@]}" localhost:10906 ''
t "$text: an error" write_until_error /dev/nbd0
t "$text: detach" "$A" --detach --force nbd0
text="new keys while writing, seen by a relay"
attached no "${cert[@]}" localhost:10906 ''
t "$text: every sector is whole" old_or_new </dev/nbd0
t "$text: detach" "$A" -d nbd0

finish
