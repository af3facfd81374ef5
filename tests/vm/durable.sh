#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# What a supervisor has decided outlives it: after --adopt the fence of a silent server stands, and a pause
# lasts. And whoever adopts, and how often at the same moment: a device has one supervisor.
# timeout: 400

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../hostile/lib.sh
. "${BASH_SOURCE[0]%/*}/../hostile/lib.sh"

there=10.9.0.2
T_LIMIT=20

field() { "$A" --list -n -O "$1" nbd0 | tr -d ' '; }
is() {
	local value

	value=$(field "$1")
	[[ $value == "$2" ]] || { echo "$1 is '$value', not '$2'"; return 1; }
}
uses() { is ALIVE 1 && is PEER "$1"; }
# clients PORT COUNT: so many connections to a server here
clients() {
	local count

	count=$(ss -tnH state established "( sport = :$1 )" | wc -l)
	((count == $2)) || { echo "$count connections, not $2"; return 1; }
}
supervisor_of() { sed -n 's/^supervisor=//p' /run/nbd-attach/nbd0; }
kill_supervisor() {
	local pid

	pid=$(supervisor_of)
	kill -KILL "$pid" && wait_for 5 ended "$pid"
}
# What --pause and --list say, and nobody has connected.
paused() { is PAUSED 1 && is ALIVE 0 && clients 10810 0; }

modprobe nbd
make_disk /tmp/disk 16M
t "another network" far_network
t "a server there" serve_far 10809 nbdkit -f -p 10809 file /tmp/disk
t "one here" serve_nbdkit 10810 file /tmp/disk

# --- the fence

t "attach" "$A" --peer-timeout 2 --connect-timeout 2 --fence-delay 600 "nbd://$there:10809/" nbd://127.0.0.1:10810/ nbd0
t "the one there is used" uses $there:10809
ip -n far link set far0 down
t "it falls silent" wait_for 30 is ALIVE 0
sleep 2
t "the other one has to wait" clients 10810 0
t "the supervisor is killed" kill_supervisor
t "adopt" "$A" --adopt nbd0
# fence_holds TEXT SECONDS: all the time
fence_holds() {
	local i

	for ((i = 0; i < 4 * $2; i++)); do
		sleep 0.25
		clients 10810 0 || break
	done
	t "$1: the other one has to wait still" clients 10810 0
	t "$1: no connection is alive" is ALIVE 0
}
fence_holds "adopted" 12
t "adopt, from one that is alive" "$A" --adopt nbd0
fence_holds "handed over" 3
stop_server far:10809 KILL
ip -n far link set far0 up
t "it is back, without a server: the other one takes over" wait_for 30 uses 127.0.0.1:10810
t "the device answers" reads nbd0
t "detach" "$A" -d nbd0 || start_afresh

# --- a pause

t "attach" "$A" --connect-timeout 3 nbd://127.0.0.1:10810/ nbd0
t "pause" "$A" --pause nbd0
t "it is paused" paused
t "adopt, from one that is alive" "$A" --adopt nbd0
sleep 2
t "handed over: it is paused still" paused
# again, should that not be so
"$A" --pause nbd0 >/dev/null 2>&1
t "the supervisor is killed" kill_supervisor
t "adopt" "$A" --adopt nbd0
sleep 3
t "adopted: it is paused still" paused
t "resume" "$A" --resume nbd0
t "it is connected" wait_for 10 uses 127.0.0.1:10810
t "the device answers" reads nbd0

# --- one supervisor

one_supervisor() {
	pids_of nbd-attach
	((${#PIDS[@]} == 1)) || { echo "processes ${PIDS[*]}"; return 1; }
	[[ ${PIDS[0]} == "$(supervisor_of)" ]] || { echo "${PIDS[0]} is not in the record"; return 1; }
}
has_one_supervisor() {
	wait_for 5 one_supervisor >/tmp/crowd && return
	tail -n 1 /tmp/crowd
	return 1
}
# Where several stay, each offers the driver connections of its own.
adoptions=0 failed=0 crowded=0
for i in {1..10}; do
	((i % 2)) || kill_supervisor
	in_background one "$A" --adopt nbd0
	in_background other "$A" --adopt nbd0
	good=0
	outcome one >/tmp/one 2>&1 && good=$((good + 1))
	outcome other >/tmp/other 2>&1 && good=$((good + 1))
	adoptions=$((adoptions + good))
	((good)) || { failed=$((failed + 1)); diag "$i: nobody" "$(cat /tmp/one /tmp/other)"; }
	if ! has_one_supervisor >/tmp/has; then
		crowded=$((crowded + 1))
		diag "$i: $(cat /tmp/has /tmp/one /tmp/other)"
		((crowded < 3)) || break
	fi
done
diag "$adoptions adoptions of 20"
t "two at once: one of them has it" test $failed -eq 0
t "two at once: it has one supervisor each time" test $crowded -eq 0

# The same with a longer gap between a look whether there is one and taking its place: whoever removes what
# the one that was killed has left comes late.
t "the supervisor is killed" kill_supervisor
strace -f -qq -o /tmp/late -e trace=connect,unlink,unlinkat,bind,flock,fcntl -e inject=unlink,unlinkat:delay_enter=4000000 \
	"$A" --adopt nbd0 >/tmp/one 2>&1 &
disown $!
removes() { grep -q 'unlink.*nbd0' /tmp/late; } 2>/dev/null
wait_for 6 removes || diag "it has nothing to remove"
status=0
"$A" --adopt nbd0 >/tmp/other 2>&1 || status=$?
t "another one adopts meanwhile, or finds it busy" test $status -eq 0 -o $status -eq 7
sleep 5
diag "$(grep nbd0 /tmp/late)" "$(cat /tmp/one /tmp/other)"
t "one at a bad moment: it has one supervisor" has_one_supervisor
stop_server nbdkit:10810 KILL
t "the server is restarted" serve_nbdkit 10810 file /tmp/disk
t "the supervisor connects" wait_for 10 uses 127.0.0.1:10810
t "by one connection" clients 10810 1
t "the device answers" reads nbd0
t "detach" "$A" -d nbd0
# The one that strace delays needs seconds for each file that it removes.
wait_for 40 no_process "$OURS" >/dev/null
t "nothing is left" nothing_left
finish
