#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
# timeout: 600
#
# --list, --check, --exports and --info tell the truth, whoever attached a device and whatever a
# server calls its exports.

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

# run_is STATUS STDOUT ARG...: exactly this output but for the padding of columns, nothing on stderr.
run_is() {
	local want=$1 text=$2 status=0 out

	shift 2
	out=$(timeout "$T_LIMIT" "$NBD_ATTACH" "$@" 2>/tmp/stderr) || status=$?
	out=$(sed -E 's/ +/ /g; s/^ | $//g' <<<"$out")
	[[ $status == "$want" && $out == "$text" && ! -s /tmp/stderr ]] && return
	printf 'status %s, stdout:\n%s\nstderr:\n' "$status" "$out"
	cat /tmp/stderr
	return 1
}

# json_is FILTER ARG...: what the command prints is JSON and the jq filter is true of it.
json_is() {
	local filter=$1

	shift
	timeout "$T_LIMIT" "$NBD_ATTACH" "$@" >/tmp/json || return
	jq -e "$filter" /tmp/json >/tmp/jq.out 2>&1 && return
	cat /tmp/jq.out /tmp/json
	return 1
}
# t_json DESCRIPTION FILTER ARG...
t_json() {
	local text=$1

	shift
	if [[ -n $have_jq ]]; then
		t "$text" json_is "$@"
	else
		skip "$text" "jq is not installed"
	fi
}

as_nobody() {
	setpriv --reuid=65534 --regid=65534 --clear-groups -- /tmp/program "$@"
}

[[ -n ${NBD_ATTACH:-} ]] || bail 'NBD_ATTACH is not set'
diag "kernel $(uname -r)"
have_jq=$(command -v jq)
# Somewhere where everybody may go.
install -m 755 "$NBD_ATTACH" /tmp/program
make_disk /tmp/disk 16M
make_disk /tmp/second 1536K

# Servers, which are asked before there is a driver.

t "nbd-server serves" serve_nbdserver 10811 disk=/tmp/disk,flush=true 'second one=/tmp/second' \
	fixed=/tmp/second,readonly=true
t "nbdkit serves several" serve_nbdkit 10809 --filter=exportname memory 1M default-export=b \
	exportname-list=explicit exportname=a exportname=b 'exportdesc=fixed:for tests'
t "nbdkit serves on a Unix socket" serve_nbdkit_unix /tmp/socket file /tmp/disk
t "qemu-nbd serves" serve_qemu 10810 /tmp/disk -x 'the disk' -D 'what it is' -e 8
t "there is no driver" test ! -e /sys/module/nbd

t "--exports: nbd-server" run_is 0 $'NAME DESCRIPTION\ndisk\nsecond one\nfixed' \
	--exports -O NAME,DESCRIPTION localhost:10811
t "--exports: nbdkit" run_is 0 $'NAME DESCRIPTION\na for tests\nb for tests' \
	--exports -O NAME,DESCRIPTION nbd://localhost
t "--exports: qemu-nbd" run_is 0 $'NAME DESCRIPTION\nthe disk what it is' \
	--exports -O NAME,DESCRIPTION localhost:10810
t "--exports: more about each, nbd-server" run_is 0 \
	$'NAME SIZE RO CONTEXTS DESCRIPTION\ndisk 16M 0\nsecond one 1.5M 0\nfixed 1.5M 1' \
	--exports localhost:10811
t "--exports: more about each, nbdkit" run_is 0 \
	$'NAME SIZE RO CONTEXTS DESCRIPTION\na 1M 0 base:allocation for tests\nb 1M 0 base:allocation for tests' \
	--exports localhost
qemu_flags=HAS_FLAGS,SEND_FLUSH,SEND_FUA,SEND_TRIM,SEND_WRITE_ZEROES,CAN_MULTI_CONN,SEND_CACHE,SEND_FAST_ZERO
t "--exports: block sizes and flags" run_is 0 "1 4096 33554432 $qemu_flags 16777216" --exports -n --bytes \
	-O MIN-BLOCK,PREF-BLOCK,MAX-PAYLOAD,FLAGS,SIZE localhost:10810
t "--exports: -n and -O" run_is 0 $'for tests a\nfor tests b' --exports -n -O description,NAME \
	localhost
t "--exports: over a Unix socket" "$NBD_ATTACH" --exports -n /tmp/socket
t "--exports: of a command" run_is 0 $'x\ny' --exports -n -O NAME --command -- \
	nbdkit -s --exit-with-parent --filter=exportname null exportname-list=explicit \
	exportname=x exportname=y
t_json "--exports: JSON of nbd-server" \
	'.exports == [{"name":"disk","description":null},
	  {"name":"second one","description":null}, {"name":"fixed","description":null}]' \
	--exports --json -O NAME,DESCRIPTION localhost:10811
t_json "--exports: JSON of qemu-nbd" \
	'.exports == [{"name":"the disk","size":16777216,"ro":false,"min-block":1,"pref-block":4096,
	  "max-payload":33554432,"flags":"'$qemu_flags'",
	  "contexts":"base:allocation","description":"what it is"}]' \
	--exports --json 'nbd://127.0.0.1:10810'
t_fails 2 "--exports: unknown column" "$NBD_ATTACH" --exports -O NAME,PID localhost
t_says "the error names those that there are" 'PID.*NAME,SIZE,RO,.*DESCRIPTION'
printf '%s\n' '[generic]' 'port = 10813' '[disk]' 'exportname = /tmp/disk' >/tmp/quiet.config
t "nbd-server serves without a list" \
	lib_serve nbd-server:10813 tcp_listening 10813 lib_start_nbdserver /tmp/quiet.config
t_fails 4 "--exports: a server that has no list for us" "$NBD_ATTACH" --exports localhost:10813

# info_has DESCRIPTION REGEX... -- ARG...: one check for each line that there must be.
info_has() {
	local text=$1 wanted=()

	shift
	while [[ $1 != -- ]]; do
		wanted+=("$1")
		shift
	done
	shift
	t "--info: $text" "$NBD_ATTACH" --info "$@"
	for regex in "${wanted[@]}"; do
		t_says "--info: $text: $regex" "^$regex\$"
	done
}
info_has "nbd-server" 'URI +nbd://localhost:10811/disk' 'NAME +disk' 'SIZE +16M' 'RO +0' \
	'FLAGS +HAS_FLAGS,SEND_FLUSH.*' 'PEER +(127\.0\.0\.1|\[::1\]):10811' -- localhost:10811 disk
info_has "nbd-server, read-only" 'NAME +fixed' 'SIZE +1\.5M' 'RO +1' 'FLAGS +.*READ_ONLY.*' -- \
	nbd://localhost:10811/fixed
info_has "qemu-nbd" 'URI +nbd://localhost:10810/the%20disk' 'NAME +the disk' \
	'DESCRIPTION +what it is' 'SIZE +16777216' 'MIN-BLOCK +1' 'PREF-BLOCK +4096' \
	'MAX-PAYLOAD +33554432' 'NOTE +PREF-BLOCK.*optimal_io_size.*' -- --bytes localhost:10810 \
	'the disk'
info_has "nbdkit, the default export has a name" 'URI +nbd://localhost:10809/' 'NAME +b' \
	'DESCRIPTION +for tests' 'FLAGS +.*CAN_MULTI_CONN.*' -- localhost ''
info_has "over a Unix socket" 'URI +nbd\+unix:///\?socket=/tmp/socket' 'SIZE +16M' 'PEER +local' -- \
	'nbd+unix:///?socket=/tmp/socket'
info_has "of a command" 'NAME +its name' 'SIZE +3M' 'MIN-BLOCK +4096' 'MAX-PAYLOAD +65536' -- \
	--command 'its name' -- nbdkit -s --exit-with-parent --filter=blocksize-policy null 3M \
	blocksize-minimum=4096 blocksize-maximum=64K
info_has "is it listed, what has it, what of it is used: nbd-server" 'LISTED +1' 'CONTEXTS *' \
	'KERNEL-USES +HAS_FLAGS,SEND_FLUSH.*' -- localhost:10811 disk
info_has "is it listed, what has it, what of it is used: qemu-nbd" 'LISTED +1' \
	'CONTEXTS +base:allocation' 'KERNEL-USES +HAS_FLAGS,SEND_FLUSH,SEND_FUA,SEND_TRIM,SEND_WRITE_ZEROES,CAN_MULTI_CONN' \
	'KERNEL-IGNORES +SEND_CACHE,SEND_FAST_ZERO,STRUCTURED_REPLY' 'CONNECTIONS +[1-8].*' -- localhost:10810 'the disk'
info_has "one that is not listed" 'LISTED +0' 'NAME +hidden' -- localhost hidden
info_has "a server without structured replies" 'CONTEXTS *' 'LISTED +1' \
	'KERNEL-IGNORES +SEND_CACHE,SEND_FAST_ZERO' -- --command -- nbdkit -s --exit-with-parent --no-sr null 1M
info_has "the list is a secret" 'LISTED *' 'SIZE +16M' -- localhost:10813 disk
t "nbd-server stops" stop_server nbd-server:10813
info_has "a command has one connection" 'CONNECTIONS +1: a command serves one' -- \
	--command -- nbdkit -s --exit-with-parent null 1M
t "--info: -n and -O" run_is 0 $'1.5M\n1' --info -n -O size,RO localhost:10811 fixed
t_json "--info: JSON" '.exports[0] | .uri == "nbd://localhost:10811/second%20one" and
	.name == "second one" and .description == null and .size == 1572864 and .ro == false and
	."min-block" == null and (.flags | test("^HAS_FLAGS"))' \
	--info --json localhost:10811 'second one'
t_json "--info: JSON of block sizes" '.exports[0] | ."min-block" == 1 and ."pref-block" == 4096 and
	."max-payload" == 33554432' --info --json localhost:10810 'the disk'
t_json "--info: JSON of a command" '.exports[0] | .uri == null and .size == 1048576' \
	--info --json --command -- nbdkit -s --exit-with-parent null 1M
t_fails 4 "--info: an export that there is not" "$NBD_ATTACH" --info localhost:10811 absent
t_fails 3 "--info: nobody listens" "$NBD_ATTACH" --info localhost:10899 absent
t "none of this takes root" as_nobody --info -n -O SIZE localhost:10811 disk
t "nor does a list of exports" as_nobody --exports localhost:10811

# Devices.

t "--list: without the driver there is nothing" run_is 0 '' --list
t_json "--list: JSON of nothing" '. == {"devices":[]}' --list --json
t "--check: without the driver" run_is 1 '' --check /dev/nbd0
t "there is still no driver" test ! -e /sys/module/nbd
t "modprobe nbd" modprobe nbd nbds_max=8
dmesg_mark
t "--list: without a device that is attached" run_is 0 '' --list
t "--check: not attached" run_is 1 '' --check nbd0
t "--check: no such device" run_is 1 '' --check nbd77
t_fails 2 "--check: no device at all" "$NBD_ATTACH" --check /dev/null

t "attach by TCP" "$NBD_ATTACH" localhost:10811 disk nbd0
t "attach a command" "$NBD_ATTACH" --command 'a name' nbd1 -- nbdkit -s --exit-with-parent null 3M
t "attach by a Unix socket" "$NBD_ATTACH" -r -b 4096 'nbd+unix:///?socket=/tmp/socket' nbd2
t "nbd-client attaches by netlink" nbd-client localhost 10811 /dev/nbd3 -N disk -b 1024
t "nbd-client attaches by ioctl" nbd-client -nonetlink localhost 10811 /dev/nbd4 -N fixed -b 512
ioctl_is_ready() { [[ -e /sys/block/nbd4/pid && $(</sys/block/nbd4/size) == 3072 ]]; }
t "it is ready" wait_for 20 ioctl_is_ready
for n in 0 1 2 3 4; do
	pid[n]=$(<"/sys/block/nbd$n/pid")
done

t "--list" "$NBD_ATTACH" --list
t_says "--list: headings" '^DEVICE +HOST +EXPORT +SIZE +RO +BLOCK-SIZE +CONNECTIONS +PID$'
t_says "--list: TCP" "^/dev/nbd0 +localhost:10811 +disk +16M +0 +512 +1 +${pid[0]}\$"
t_says "--list: a command" "^/dev/nbd1 +nbdkit +a name +3M +0 +512 +1 +${pid[1]}\$"
t_says "--list: a Unix socket" "^/dev/nbd2 +/tmp/socket +16M +1 +4096 +1 +${pid[2]}\$"
t_says "--list: nbd-client by netlink" "^/dev/nbd3 +16M +0 +1024 +${pid[3]}\$"
t_says "--list: nbd-client by ioctl" "^/dev/nbd4 +1\.5M +1 +512 +${pid[4]}\$"
t "--list: nothing else" test "$("$NBD_ATTACH" --list -n | wc -l)" = 5
t "--list: those named, in order of their numbers" run_is 0 $'/dev/nbd0\n/dev/nbd2' \
	--list -n -O DEVICE /dev/nbd2 nbd0 nbd7
t "--list: all of the columns" run_is 0 \
	'nbd+unix:///?socket=/tmp/socket local 16777216 /tmp/socket 1' \
	--list -n --bytes -O uri,PEER,Size,host,ro nbd2
t_fails 2 "--list: unknown column" "$NBD_ATTACH" --list -O DEVICE,NAME
t_says "the error names those that there are" 'NAME.*DEVICE,HOST,EXPORT,SIZE'
t_json "--list: JSON" '.devices | map(.device) ==
	["/dev/nbd0","/dev/nbd1","/dev/nbd2","/dev/nbd3","/dev/nbd4"]' --list --json
t_json "--list: JSON of one" ".devices == [{\"device\":\"/dev/nbd0\",\"host\":\"localhost:10811\",
	\"export\":\"disk\",\"size\":16777216,\"ro\":false,\"block-size\":512,\"connections\":1,
	\"pid\":${pid[0]}}]" --list --json nbd0
t_json "--list: JSON of another program's" ".devices[0] | .host == null and .export == null and
	.connections == null and .uri == null and .pid == ${pid[4]} and .ro == true" \
	--list --json -O HOST,EXPORT,CONNECTIONS,URI,PID,RO nbd4

for n in 0 1 3 4; do
	t "--check: nbd$n" run_is 0 "${pid[n]}" --check /dev/nbd$n
done
t "--check: not attached" run_is 1 '' -c /dev/nbd5

t "the record is nobody else's to read" \
	setpriv --reuid=65534 --regid=65534 --clear-groups -- test ! -r /run/nbd-attach/nbd0
t "--list as another user" as_nobody --list
t_says "--list as another user: what the kernel has says the same" \
	"^/dev/nbd0 +localhost:10811 +disk +16M +0 +512 +${pid[0]}\$"
t_says "--list as another user: nbd-client's" "^/dev/nbd3 +16M +0 +1024 +${pid[3]}\$"
t "--check as another user" as_nobody --check nbd0
t_says "--check as another user: the pid" "^${pid[0]}\$"
t "the records are gone" rm -r /run/nbd-attach
t "--list without a record" "$NBD_ATTACH" --list -n nbd0
t_says "--list without a record: the same" "^/dev/nbd0 +localhost:10811 +disk +16M .*${pid[0]}\$"

# Nothing is asked of the server or the device.
kill -STOP -- "-$(lib_pid nbdkit:/tmp/socket)"
t "silent server: --list" timeout 20 "$NBD_ATTACH" --list -n nbd2
t_says "silent server: --list shows it" '^/dev/nbd2 '
t "silent server: --check" run_is 0 "${pid[2]}" --check nbd2
kill -CONT -- "-$(lib_pid nbdkit:/tmp/socket)"

# A record that is not about what is attached now.
t "detach" "$NBD_ATTACH" -d nbd0
# A supervisor would take it away.
t "attach again" "$NBD_ATTACH" --no-supervise localhost:10811 disk nbd0
t "it has a record" grep -q '^host=localhost:10811$' /run/nbd-attach/nbd0
cp /run/nbd-attach/nbd0 /tmp/record
t "nbd-client detaches it" nbd-client -d /dev/nbd0
t "its record is still there" test -e /run/nbd-attach/nbd0
t "--list: no record makes a device" run_is 0 '' --list nbd0
t "nbd-client attaches something else" nbd-client localhost 10811 /dev/nbd0 -N 'second one' -b 512
t "--list: the old record is not believed" run_is 0 "1.5M ${pid0:=$(</sys/block/nbd0/pid)}" \
	--list -n -O HOST,EXPORT,SIZE,PID nbd0
t "--check: who did it" run_is 0 "$pid0" --check nbd0
t "detach what nbd-client attached" "$NBD_ATTACH" -d nbd0
t "the old record is gone with it" test ! -e /run/nbd-attach/nbd0
t "attach something else" "$NBD_ATTACH" localhost:10811 fixed nbd0
cp /tmp/record /run/nbd-attach/nbd0
t "--list: another attachment's record is not believed" run_is 0 'localhost:10811 fixed' \
	--list -n -O HOST,EXPORT nbd0
for garbage in '' 'pid' 'pid=-1' $'pid=1\nbackend=%zz\n' $'\x00\xff'; do
	printf '%s' "$garbage" >/run/nbd-attach/nbd0
	"$NBD_ATTACH" --list -n -O HOST,EXPORT nbd0
done >/tmp/garbage 2>&1
t "--list: nor is garbage" cmp /tmp/garbage <(for _ in 1 2 3 4 5; do echo localhost:10811 fixed; done)
t "detach all" "$NBD_ATTACH" -d nbd0 nbd1 nbd2 nbd3 nbd4
t "--list: nothing is left" run_is 0 '' --list
t "no errors in the kernel's log" no_kernel_errors

# A server that says what a terminal should not see. All of it is text to NBD.

cat >/tmp/hostile <<'SERVER'
use strict;
use warnings;
sub get {
	my ($n) = @_;
	my $data = '';
	while (length $data < $n) {
		sysread(STDIN, $data, $n - length $data, length $data) or exit 0;
	}
	return $data;
}
sub put { my $all = join '', @_; syswrite(STDOUT, $all) == length $all or exit 1 }
sub reply {
	my ($option, $type, $data) = @_;
	put(pack 'NNNNN a*', 0x3e889, 0x045565a9, $option, $type, length $data, $data);
}
# Escape sequences, a line of its own, C1 controls, direction, an end of JSON's string, no UTF-8.
my @names = ("\e[31mred\e]0;title\a", "two\nlines\r\t", "c1\xc2\x9b31m", "rtl\xe2\x80\xae",
	"quote\"}]\\", "bad\xff\xc3(", "d\xc3\xa9j\xc3\xa0");
my $long = join ' ', @names;
put('NBDMAGIC', 'IHAVEOPT', pack 'n', 3);
get(4);
while (1) {
	my (undef, undef, $option, $len) = unpack 'NNNN', get(16);
	my $data = get($len);
	if ($option == 3) {
		reply(3, 2, pack 'N/a* a*', $_, "of $_") for @names;
		reply(3, 1, '');
	} elsif ($option == 6 || $option == 7) {
		my $name = unpack 'N/a*', $data;
		if ($name ne '') {
			reply($option, 0x80000006, $long);
			next;
		}
		reply($option, 3, pack 'nNNn', 0, 0, 1048576, 1);
		reply($option, 3, pack 'n a*', 2, "about $names[0] $names[1] $names[2] $names[3]" .
			($ARGV[0] ? " $names[5]" : ''));
		reply($option, 1, '');
	} elsif ($option == 8) {
		reply(8, 1, '');
	} elsif ($option == 9) {
		reply(9, 4, pack 'N a*', 0, "x:$_") for @names;
		reply(9, 1, '');
	} elsif ($option == 2) {
		reply(2, 1, '');
		exit 0;
	} else {
		reply($option, 0x80000001, '');
	}
}
SERVER
hostile=(-- perl /tmp/hostile)

# harmless FILE: only UTF-8, lines, and nothing that moves a cursor or changes direction.
harmless() {
	perl -e 'local $/; open my $f, "<", $ARGV[0] or die; $_ = <$f>;
		utf8::decode($_) or exit 1;
		exit(/[\x00-\x09\x0b-\x1f\x7f-\x9f\x{200b}-\x{200f}\x{2028}-\x{202e}]/)' "$1" && return
	od -c "$1"
	return 1
}
# says_safely STATUS ARG...: what is printed, on both streams.
says_safely() {
	local want=$1 status=0

	shift
	timeout "$T_LIMIT" "$NBD_ATTACH" "$@" >/tmp/said 2>&1 || status=$?
	[[ $status == "$want" ]] || { echo "status $status"; cat -v /tmp/said; return 1; }
	harmless /tmp/said
}
t_fails 1 "an escape sequence is found" harmless <(printf 'a\e[31m')
t "hostile names: --exports" says_safely 0 --exports --command "${hostile[@]}"
t "hostile names: a line for each, and for each that nothing is known of" test "$(wc -l </tmp/said)" = 15
t "hostile names: they can be told" grep -qF '\x1b[31mred\x1b]0;title\x07' /tmp/said
t "hostile names: plain text stays" grep -q '^déjà' /tmp/said
t "hostile names: --exports --json" says_safely 0 --exports --json --command "${hostile[@]}"
t_json "hostile names: JSON has them all" '.exports | length == 7' \
	--exports --json --command "${hostile[@]}"
t_json "hostile names: JSON has them as they are" '.exports | map(.name) | .[0:5] + .[6:] ==
	["\u001b[31mred\u001b]0;title\u0007", "two\nlines\r\t", "c1\u009b31m", "rtl\u202e",
	 "quote\"}]\\", "d\u00e9j\u00e0"]' --exports --json --command "${hostile[@]}"
t "hostile description: --info" says_safely 0 --info --command "${hostile[@]}"
t "hostile description: one line" test "$(grep -c DESCRIPTION /tmp/said)" = 1
t "hostile contexts: one line" test "$(grep -c '^CONTEXTS *x:.*31mred' /tmp/said)" = 1
t "hostile description: --info --json" says_safely 0 --info --json --command "${hostile[@]}"
t_json "hostile description: JSON" '.exports[0].description | test("^about \u001b\\[31mred")' \
	--info --json --command "${hostile[@]}"
t "hostile description, no UTF-8: --info" says_safely 0 --info --command "${hostile[@]}" bad
t "hostile description, no UTF-8: --info --json" \
	says_safely 0 --info --json --command "${hostile[@]}" bad
t_json "hostile description, no UTF-8: JSON" '.exports[0].description | test("bad")' \
	--info --json --command "${hostile[@]}" bad
t "hostile refusal: --info" says_safely 4 --info --command absent "${hostile[@]}"
t "hostile refusal: it is told" grep -qF '\x1b[31mred' /tmp/said
t "hostile refusal: attach" says_safely 4 --command absent nbd0 "${hostile[@]}"
t "hostile words of a command" says_safely 3 --command nbd0 -- \
	sh -c 'printf "\033[31mred\n\233\377\n" >&2; exit 1'

# What a user says of an export comes back as safely.
name=$'\e[31m two\nlines'
t "odd name: attach" "$NBD_ATTACH" --command "$name" nbd0 -- nbdkit -s --exit-with-parent null 1M
t "odd name: --list" says_safely 0 --list
t "odd name: one line" test "$(wc -l </tmp/said)" = 2
t "odd name: --list with all columns" says_safely 0 --list -O EXPORT,URI,HOST
t "odd name: --list --json" says_safely 0 --list --json
t_json "odd name: JSON has it as it is" '.devices[0].export == "\u001b[31m two\nlines"' --list --json
t "odd name: detach" "$NBD_ATTACH" -d nbd0

finish
