#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# A device is attached by its name alone as the nbdtab has it, and all of them side by side, where one line
# that fails holds up no other.

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../hostile/lib.sh
. "${BASH_SOURCE[0]%/*}/../hostile/lib.sh"

tab=/tmp/nbdtab
field() { "$A" --list -n -O "$2" "$1" | tr -d ' '; }
is() { diff <(field "$1" "$2") <(echo "$3"); }
none_shown() { "$A" --all --nbdtab "$tab" --show >/dev/full; }
none() { ! "$A" --list -n | grep .; }
# with LINE: attach its device
with() {
	echo "$*" >/tmp/line
	"$A" --nbdtab /tmp/line "$1"
}
detach_all() {
	local device

	for device in $("$A" --list -n -O DEVICE); do
		"$A" -d "$device" || return
	done
}

modprobe nbd nbds_max=8
make_disk /tmp/disk 16M
make_disk /tmp/other 8M
t "a server" serve_nbdkit 10809 file /tmp/disk
t "one on a Unix socket" serve_nbdkit_unix /tmp/socket file /tmp/other
t "one with several connections" serve_nbdkit 10810 memory 4M
t "servers that never answer" serve_hostile 12001=absorb 12002=absorb
cat >"$tab" <<'END'
# DEVICE HOST EXPORT OPTIONS

nbd0	localhost x bs=4096,timeout=7,persist
nbd1	/tmp/socket y	unix,_distribution=1	# a comment
nbd2	uri=nbd://127.0.0.1:1/z uri=nbd://[::1]:10810/z conns=2,read-only
nbd3	localhost x port=10810,noauto,no-supervise
END

t "a device by its name" "$A" --nbdtab "$tab" nbd0
t "its export" is nbd0 EXPORT x
t "its block size" is nbd0 BLOCK-SIZE 4096
t "it has a supervisor" test -n "$(field nbd0 SUPERVISOR)"
t_fails 7 "its path, with an option that wins" "$A" --nbdtab "$tab" -b 512 /dev/nbd0
t_says "that is not how it is attached" 'already, with blocks of 4096 bytes'
t "again, as the line has it" "$A" --nbdtab "$tab" /dev/nbd0
t_says "that is no error" 'attached to this export already'
t_fails 7 "a line with another export does not take its place" \
	with nbd0 localhost other
t_fails 1 "a device that has no line" "$A" --nbdtab "$tab" nbd7
t_says "says so" 'nbdtab: no line is about nbd7'
t_fails 2 "a line with an option that there is not" with nbd7 h x bogus
t_fails 1 "no file" "$A" --nbdtab /nowhere nbd7
t_fails 1 "a directory" "$A" --nbdtab /tmp nbd7

supervisor=$(field nbd0 SUPERVISOR)
kill -KILL "$supervisor"
t "it can be adopted, without the file" env -C / "$A" --adopt nbd0
t "there is another supervisor" test "$(field nbd0 SUPERVISOR)" != "$supervisor"
t "detached" detach_all

t "all of them" "$A" --all --nbdtab "$tab" --show
t_says "each is shown" '^/dev/nbd1$'
t "the first" is nbd0 EXPORT x
t "the second, on a Unix socket" is nbd1 HOST /tmp/socket
t "the third, from its second server" is nbd2 CONNECTIONS 2
t_fails 1 "again, with nowhere to show them" none_shown
t "but they stay attached" test "$("$A" --list -n | wc -l)" = 3
t "read-only" is nbd2 RO 1
t "not the one with noauto" detached nbd3
t "all of them again" "$A" --all --nbdtab "$tab"
t "the last one by name" "$A" --nbdtab "$tab" nbd3
t "without a supervisor" is nbd3 SUPERVISOR ""
t "detached" detach_all

cat >"$tab" <<'END'
nbd0 localhost x port=1
nbd1 localhost x
nbd2 localhost x port=12001,connect-timeout=5
nbd3 localhost x port=12002,connect-timeout=5
nbd4 localhost x bogus
nbd5 localhost x
nbd5 localhost y
nbd6
END
connected() { ss -Htn state established "dport = :$1" | grep .; }
both_connected() { connected 12001 && connected 12002; }
in_background all "$A" --all --nbdtab "$tab"
t "the two silent ones are waited for together" wait_for 20 both_connected
t_fails 3 "some that fail: the status of the first" outcome all
t_says "one that refuses the connection" 'nbd0: .*refused'
t_says "one that is silent" 'nbd2: .*12001'
t_says "another one" 'nbd3: .*12002'
t_says "a line that is wrong" 'nbd4: .*nbdtab: line 5: option bogus'
t_says "one that is not the only one" 'nbd5: .*line 7: nbd5 is in line 6 already'
t_says "one that lacks its fields" 'line 8'
t "the good one is attached" attached nbd1
t "and no other" test "$("$A" --list -n | wc -l)" = 1
t "detached" detach_all

cat >"$tab" <<'END'
nbd1 localhost x
nbd2 localhost x port=12001
END
killed() {
	"$A" --all --nbdtab "$tab" --show >/tmp/shown &
	wait_for 20 grep nbd1 /tmp/shown || return
	kill -TERM $!
	wait $!
	[[ $? == 143 ]] || return
	wait_for 10 saw 12001 end
}
forget 12001 12002
t "killed while it waits for one" killed
t "the one that was done stays" attached nbd1
t "the other one is not there" detached nbd2
t "detached" detach_all
t "nothing is left" nothing_left
t "no errors in the kernel's log" no_kernel_errors
finish
