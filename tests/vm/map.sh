#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
# timeout: 720
#
# --map agrees with nbdinfo about every extent, whatever the server, the context and the transport; and a server that
# describes its blocks in a way that makes no sense gets an error and an end.

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

[[ -n ${NBD_ATTACH:-} ]] || bail 'NBD_ATTACH is not set'
for tool in nbdinfo qemu-img qemu-io qemu-nbd jq; do
	command -v "$tool" >/dev/null || skip_all "$tool is not installed"
done
diag "kernel $(uname -r), $(nbdinfo --version | head -n 1)"

# --- the same as nbdinfo ---------------------------------------------------------------------------

# as_nbdinfo MAP URI: text and JSON are the same as nbdinfo's but for padding and headings.
as_nbdinfo() {
	local map=$1 uri=$2

	timeout "$T_LIMIT" nbdinfo --map="$map" "$uri" >/tmp/theirs || return
	timeout "$T_LIMIT" "$NBD_ATTACH" --map="$map" -n "$uri" >/tmp/ours || return
	diff <(awk '{ $1 = $1 } 1' /tmp/theirs) <(awk '{ $1 = $1 } 1' /tmp/ours) | head -n 20
	((PIPESTATUS[0] == 0)) || return
	nbdinfo --map="$map" --json "$uri" >/tmp/theirs.json || return
	"$NBD_ATTACH" --map="$map" --json "$uri" >/tmp/ours.json || return
	diff <(jq -cS '.[]' /tmp/theirs.json) <(jq -cS '.[]' /tmp/ours.json) | head -n 20
	((PIPESTATUS[0] == 0)) || return
	nbdinfo --map="$map" --totals --json "$uri" >/tmp/theirs.json || return
	"$NBD_ATTACH" --map="$map" --totals --json "$uri" >/tmp/ours.json || return
	diff <(jq -cS '.[] | del(.percent)' /tmp/theirs.json) \
		<(jq -cS '.[] | del(.percent, .extents)' /tmp/ours.json)
}

# whole URI SIZE: the extents are those of an export without gaps, none the same as the one before.
whole() {
	"$NBD_ATTACH" --map -n "$1" >/tmp/ours || return
	awk -v size="$2" '
		$1 != at || !$2 || (NR > 1 && $3 == type) { print "line " NR ": " $0; exit bad = 1 }
		{ at += $2; type = $3 }
		END { exit bad || at != size }' /tmp/ours
}

t "nbdkit data" serve_nbdkit 10810 data \
	'( 1 2 3 )*512 @1048576 ( 0x55 )*65536 @5000000 7 @104857600 ( 9 )*300000 @1073741823 1'
t "as nbdinfo: nbdkit data" as_nbdinfo base:allocation nbd://localhost:10810
t "no gap and no repetition" whole nbd://localhost:10810 1073741824
t "nbdkit sparse-random" serve_nbdkit 10811 sparse-random size=32G percent=30 runlength=4194304 seed=7
t "as nbdinfo: beyond 4 GiB" as_nbdinfo base:allocation nbd://localhost:10811
t "there are thousands of extents" test "$(wc -l </tmp/ours)" -gt 2000
make_disk /tmp/sparse 100M
for mib in 3 4 50 99; do
	dd if=/dev/urandom of=/tmp/sparse bs=1M count=1 seek=$mib conv=notrunc status=none
done
t "nbdkit file on a Unix socket" serve_nbdkit_unix /tmp/socket file /tmp/sparse
t "as nbdinfo: over a Unix socket" as_nbdinfo base:allocation 'nbd+unix:///?socket=/tmp/socket'
t "nbdkit with blocks" serve_nbdkit 10812 --filter=blocksize-policy data '1 @65536 1 @200000 1' size=262144 \
	blocksize-minimum=4096 blocksize-preferred=4096 blocksize-maximum=65536 blocksize-error-policy=error
t "as nbdinfo: minimum block size" as_nbdinfo base:allocation nbd://localhost:10812
t "nbdkit, an empty export" serve_nbdkit 10813 null 0
t "as nbdinfo: nothing" as_nbdinfo base:allocation nbd://localhost:10813
t "nbdkit without extents" serve_nbdkit 10814 --filter=noextents memory 1M
t "as nbdinfo: all is data" as_nbdinfo base:allocation nbd://localhost:10814
t "nbdkit, an odd size" serve_nbdkit 10815 --filter=truncate data '1 @3000 1' truncate=5555
t "as nbdinfo: odd size" as_nbdinfo base:allocation nbd://localhost:10815

# qemu: a backing file, an overlay with a bitmap that saw some of the writes
qemu-img create -q -f qcow2 /tmp/base.qcow2 300M
qemu-io -c 'write 0 1M' -c 'write 200M 3M' /tmp/base.qcow2 >/dev/null
qemu-img create -q -f qcow2 -F qcow2 -b /tmp/base.qcow2 /tmp/disk.qcow2
qemu-io -c 'write 10M 5M' -c 'write -z 150M 1M' /tmp/disk.qcow2 >/dev/null
qemu-img bitmap --add -g 65536 /tmp/disk.qcow2 'monday, early'
qemu-io -c 'write 11M 100k' -c 'write 64M 2M' -c 'write -z 70M 64k' -c 'discard 12M 1M' \
	/tmp/disk.qcow2 >/dev/null
qemu-img bitmap --add /tmp/disk.qcow2 b
qemu-io -c 'write 299M 1M' /tmp/disk.qcow2 >/dev/null
for i in {0..499}; do
	echo "write $((i * 256 + 128 * 1024))k 4k"
done | qemu-io /tmp/disk.qcow2 >/dev/null
t "qemu-nbd with bitmaps" lib_serve qemu-nbd:10820 tcp_listening 10820 lib_start \
	qemu-nbd -t -e 8 -p 10820 -f qcow2 -x disk -A -B b /tmp/disk.qcow2
for context in base:allocation qemu:dirty-bitmap:b qemu:allocation-depth; do
	t "as nbdinfo: qemu-nbd, $context" as_nbdinfo $context nbd://localhost:10820/disk
	t "there is more than one extent" test "$(wc -l </tmp/ours)" -gt 3
done

# --- several contexts at once ----------------------------------------------------------------------

# cut MAP...: what the maps of single contexts say, put together line by line: their numbers at each change.
cut_together() {
	local map i=0

	for map in "$@"; do
		"$NBD_ATTACH" --map="$map" -n nbd://localhost:10820/disk | awk -v i="$i" '{ print $1, i, $3, $1 + $2 }'
		i=$((i + 1))
	done | sort -n -k1,1 | awk -v n=$# '
		BEGIN { at = 0 }
		function flush(end) {
			if (seen >= n && at < end) print at, end - at, kind()
			at = end
		}
		function kind(   j, k) { for (j = 0; j < n; j++) k = k (j ? " " : "") type[j]; return k }
		$1 != at { flush($1) }
		{ if (!($2 in type)) seen++; type[$2] = $3; if ($4 > size) size = $4 }
		END { flush(size) }'
}
together() {
	"$NBD_ATTACH" --map=base:allocation,qemu:dirty-bitmap:b,qemu:allocation-depth -n \
		nbd://localhost:10820/disk | sed -E 's/:[a-z,]+( depth [0-9]+)?//g; s/:backing depth [0-9]+//g' |
		awk '{ $1 = $1 } 1' >/tmp/ours
	cut_together base:allocation qemu:dirty-bitmap:b qemu:allocation-depth >/tmp/theirs
	diff /tmp/ours /tmp/theirs
}
t "three contexts are the maps of each, cut where one changes" together
t "that are hundreds of lines" test "$(wc -l </tmp/ours)" -gt 900
t "headings" "$NBD_ATTACH" --map=qemu:dirty-bitmap:b,base:allocation nbd://localhost:10820/disk
t_says "headings: the contexts" '^ +OFFSET +LENGTH qemu:dirty-bitmap:b base:allocation$'
t_says "headings: what they say" ' 1:dirty +0:data$'
several_json() {
	"$NBD_ATTACH" --map=base:allocation,qemu:dirty-bitmap:b --json nbd://localhost:10820/disk |
		jq -e 'any(.[]; .type == { "base:allocation": 0, "qemu:dirty-bitmap:b": 1 } and
			.description == { "base:allocation": "data", "qemu:dirty-bitmap:b": "dirty" }) and
			(map(.length) | add) == 314572800'
}
t "JSON" several_json
t "totals" "$NBD_ATTACH" --map=base:allocation,qemu:dirty-bitmap:b --totals nbd://localhost:10820/disk
t_says "totals: a line for each pair" '^ +[0-9]+ +[0-9.]+% +[0-9]+ 0:data +1:dirty$'

# --- over what else a server can be reached -----------------------------------------------------------

t "a command" "$NBD_ATTACH" --map -n --command -- nbdkit -s --exit-with-parent data '1 @1048576 1'
t_says "a command: what it says" '^ +0 +32768 +0 data$'
t "keys" sh -c 'psktool -u user -p /tmp/keys.psk >/dev/null 2>&1 && test -s /tmp/keys.psk'
t "nbdkit with TLS" serve_nbdkit 10830 --tls=require --tls-psk=/tmp/keys.psk data '1 @1048576 ( 2 )*100000'
t "TLS" "$NBD_ATTACH" --map -n --tls-psk-file /tmp/keys.psk nbds://localhost:10830
"$NBD_ATTACH" --map -n --tls-psk-file /tmp/keys.psk nbds://localhost:10830 | awk '{ $1 = $1 } 1' >/tmp/ours
nbdinfo --map 'nbds://user@localhost:10830?tls-psk-file=/tmp/keys.psk' | awk '{ $1 = $1 } 1' >/tmp/theirs
t "as nbdinfo: TLS" diff /tmp/ours /tmp/theirs
t_fails 6 "without TLS" "$NBD_ATTACH" --map nbd://localhost:10830
t "no connection, no process is left" wait_for 5 sh -c '! pgrep -x nbd-attach && ! pgrep -x nbd-relay'

# --- what cannot be had ------------------------------------------------------------------------------

t_fails 4 "no such context" "$NBD_ATTACH" --map=qemu:dirty-bitmap:c nbd://localhost:10820/disk
t_says "no such context: which" 'no meta context "qemu:dirty-bitmap:c" for export "disk"; nbd-attach --info'
t_fails 4 "no such export" "$NBD_ATTACH" --map nbd://localhost:10820/other
t "nbd-server" serve_nbdserver 10816 disk=/tmp/sparse
t_fails 4 "a server without structured replies" "$NBD_ATTACH" --map nbd://localhost:10816/disk
t_says "a server without structured replies: what is missing" 'block status is needed.*NBD_OPT_STRUCTURED_REPLY'
# shellcheck disable=SC2016 # the inner shell expands it
t_fails 1 "nobody listens" sh -c 'exec 2>&1; "$NBD_ATTACH" --map nbd://localhost:10811 >/dev/full'
t_says "nobody listens: why" 'write the output'
early_end() {
	[[ $("$NBD_ATTACH" --map -n nbd://localhost:10811 2>/dev/null | head -n 1 | wc -l) == 1 ]]
}
t "a reader that leaves early" early_end

# --- servers that make no sense ----------------------------------------------------------------------

# server KIND: on standard input and output.
cat >/tmp/server.pl <<'SERVER'
use strict;
use warnings;
my $kind = $ARGV[0];
my $size = 1 << 40;
sub get {
	my ($n) = @_;
	my $data = '';
	while (length $data < $n) {
		sysread(STDIN, $data, $n - length $data, length $data) or exit 0;
	}
	return $data;
}
sub put {
	my $all = join '', @_;
	while (length $all) {
		my $n = syswrite(STDOUT, $all) or exit 1;
		$all = substr $all, $n;
	}
}
sub reply {
	my ($option, $type, $data) = @_;
	put(pack 'NNNNN a*', 0x3e889, 0x045565a9, $option, $type, length $data, $data);
}
sub chunk {
	my ($cookie, $flags, $type, $payload) = @_;
	put(pack 'Nnn a8 N a*', 0x668e33ef, $flags, $type, $cookie, length $payload, $payload);
}
sub status {
	my ($cookie, @extents) = @_;
	chunk($cookie, 1, 5, pack 'N N*', 7, @extents);
}
put('NBDMAGIC', 'IHAVEOPT', pack 'n', 3);
get(4);
while (1) {
	my (undef, undef, $option, $len) = unpack 'NNNN', get(16);
	get($len);
	if ($option == 10) {
		reply(10, 4, pack 'N a*', 7, 'base:allocation');
	} elsif ($option == 7) {
		reply(7, 3, pack 'n Q> n', 0, $size, 1);
		reply(7, 3, pack 'n NNN', 3, 4096, 4096, 33554432) if $kind eq 'retreats';
	}
	reply($option, 1, '');
	last if $option == 7;
}
my $n = 0;
while (1) {
	my ($magic, $flags, $type, $cookie, $offset, $length) = unpack 'N n n a8 Q> N', get(28);
	exit 0 if $type == 2;
	$n++;
	if ($kind eq 'nothing') { status($cookie, 0, 0) }
	elsif ($kind eq 'nothing-later') { status($cookie, 4096, 3, 0, 0, 4096, 3) }
	elsif ($kind eq 'overlap') { status($cookie, $length, 3, $length, 0) }
	elsif ($kind eq 'endless') { status($cookie, (0xfffffe00, 3) x 1000) }
	elsif ($kind eq 'flood') { put(pack 'Nnn a8 N', 0x668e33ef, 1, 5, $cookie, 0xfffffff4); put("\0\0\2\0" x 4096) while 1 }
	elsif ($kind eq 'twice') { chunk($cookie, 0, 5, pack 'N*', 7, 4096, 3) for 1, 2 }
	elsif ($kind eq 'bytes') { status($cookie, 1, $n & 1) }
	elsif ($kind eq 'retreats') { status($cookie, 100, 3) }
	elsif ($kind eq 'errors') { chunk($cookie, 0, 0x8002, pack 'N n Q>', 5, 0, $offset) while 1 }
	elsif ($kind eq 'refuses') { chunk($cookie, 1, 0x8001, pack 'N n/a*', 5, "\e[31mred\n") }
	elsif ($kind eq 'too-large') { $length > 33554432 ? chunk($cookie, 1, 0x8001, pack 'N n', 75, 0) : status($cookie, 0x40000000, 3) }
	elsif ($kind eq 'shutdown') { chunk($cookie, 1, 0x8001, pack 'N n', 108, 0) }
	elsif ($kind eq 'drips') { put(pack 'Nnn a8 N N', 0x668e33ef, 1, 5, $cookie, 8004, 7); while (1) { put("\0"); select undef, undef, undef, 0.1 } }
	elsif ($kind eq 'silent') { sleep 1000 }
	elsif ($kind eq 'leaves') { exit 0 }
	elsif ($kind eq 'simple') { put(pack 'NN a8', 0x67446698, 0, $cookie) }
	elsif ($kind eq 'data') { chunk($cookie, 1, 1, pack 'Q> a*', $offset, 'x' x 512) }
}
SERVER
# hostile STATUS REGEX KIND [ARG]...: the error, its text, an end in time, and nothing a terminal should not see.
hostile() {
	local want=$1 regex=$2 kind=$3 began=$SECONDS

	shift 3
	t_fails "$want" "hostile: $kind" "$NBD_ATTACH" --map --totals "$@" --command -- perl /tmp/server.pl "$kind"
	t_says "hostile: $kind: $regex" "$regex"
	t "hostile: $kind: soon, and harmless" sh -c "test $((SECONDS - began)) -lt 40 && ! grep -q '[[:cntrl:]]' '$lib_output'"
}
hostile 5 'an extent of no bytes at 0' nothing
hostile 5 'an extent of no bytes at 4096' nothing-later
hostile 5 'extents go on beyond the 4294966784 bytes at 0' overlap
hostile 5 'extents go on beyond the 4294966784 bytes at 0' endless
hostile 5 'a block status of 4294967284 bytes' flood
hostile 5 'two block statuses for one meta context' twice
hostile 5 'describes 1025 bytes in 1025 answers' bytes
hostile 5 'the server does not get ahead: asked for block status at 0' retreats
hostile 5 'more than 1024 error chunks' errors
hostile 4 'NBD_EIO.*it says: "\\x1b\[31mred\\x0a"' refuses
hostile 4 'NBD_ESHUTDOWN' shutdown
hostile 3 'did not answer in time' drips -t 1
hostile 3 'did not answer in time' silent -t 1
hostile 3 'closed the connection with a request unanswered' leaves
hostile 5 'a simple reply without an error' simple
hostile 5 'a chunk of type 1 in reply to NBD_CMD_BLOCK_STATUS' data
t "a server that wants smaller requests gets them" "$NBD_ATTACH" --map -n --command -- perl /tmp/server.pl too-large
t_says "a server that wants smaller requests: the map" '^ +0 1099511627776 +3 hole,zero$'

finish
