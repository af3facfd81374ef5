#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# The process that talks to servers hangs, dies at once or cannot fork: each is a failed attempt to reach
# that server. It is over in time, it is noted, and the next server is tried.
# timeout: 600

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../hostile/lib.sh
. "${BASH_SOURCE[0]%/*}/../hostile/lib.sh"

T_LIMIT=20
# On top of --connect-timeout, for a program that hangs to be noticed and ended, and for a busy machine.
slack=7000

field() { "$A" --list -n -O "$1" nbd0; }
is() { [[ $(field "$1" | tr -d ' ') == "$2" ]]; }
is_set() { [[ -n $(field "$1" | tr -d ' ') ]]; }
supervisor_of() { sed -n 's/^supervisor=//p' /run/nbd-attach/nbd0; }
# All that the supervisor has started.
negotiators() { pgrep -P "$(supervisor_of)"; }
# asked PORT: the server of this port has a client. No process, so that a test can be quick.
asked() {
	local port address state

	printf -v port ':%04X' "$1"
	while read -r _ address _ state _; do
		[[ $state == 01 && $address == *"$port" ]] && return
	done </proc/net/tcp
	return 1
}
connected_to() { is PEER "127.0.0.1:$1" && is ALIVE 1; }
# within MS COMMAND...: waits for it and says how long that was; at most 15 s
within() {
	local limit=$1 begin=${EPOCHREALTIME/./} status=0

	shift
	wait_for 15 "$@" || status=1
	TOOK=$(((${EPOCHREALTIME/./} - begin) / 1000))
	echo "it took $TOOK ms"
	((!status && TOOK <= limit))
}
attach() { "$A" --connect-timeout 3 --fence-delay 1 "$@" nbd0; }
detach() {
	t "$1: detach" "$A" -d nbd0 || start_afresh
}

modprobe nbd
make_disk /tmp/disk 16M
a=nbd://127.0.0.1:10809/ b=nbd://127.0.0.1:10810/
serve() { serve_nbdkit "$1" file /tmp/disk; }
# serve_slowly PORT SECONDS: for each connection to become useful
serve_slowly() { serve_nbdkit "$1" --filter=delay file /tmp/disk "delay-open=$2"; }

# --- it hangs: at a reconnection

t "server a" serve 10809
t "server b" serve 10810
t "attach" attach $a $b
negotiator=$(negotiators)
t "the negotiator hangs" kill -STOP "$negotiator"
t "a is killed" stop_server nbdkit:10809 KILL
t "b takes over within connect-timeout and 5 s" within $((3000 + slack)) connected_to 10810
t "the device answers" reads nbd0
t "the one that hung has ended" wait_for 5 ended "$negotiator"
detach "two servers"
stop_server nbdkit:10810 KILL

t "server b" serve 10810
t "attach, to one server" attach $b
t "b is killed" stop_server nbdkit:10810 KILL
t "and takes its time" serve_slowly 10810 2
t "it is asked" wait_for 10 asked 10810
t "the negotiator hangs in the middle" kill -STOP "$(negotiators)"
t "it goes on within connect-timeout and 5 s, and what b needs" within $((3000 + slack + 3000)) connected_to 10810
t "the device answers" reads nbd0
detach "one server"
stop_server nbdkit:10810 KILL

# --- it hangs: at the first attach

t "a server that takes too long" serve_slowly 10809 60
for care in "" --no-supervise; do
	# shellcheck disable=SC2086 # none or one
	in_background first "$A" --connect-timeout 3 $care 127.0.0.1:10809 '' nbd0
	t "attach $care: the server is asked" wait_for 10 asked 10809
	pids_of 'nbd-negotiator'
	t "attach $care: the negotiator hangs" kill -STOP "${PIDS[@]}"
	t_fails 1 "attach $care: exit 1" outcome first
	t_says "attach $care: says why" '^nbd-attach: .*(time|answer|hang|hung)'
	t "attach $care: within connect-timeout and 5 s" took_from_to 0 $((3000 + slack))
	t "attach $care: nothing is left" nothing_left
	start_afresh
done
stop_server nbdkit:10809 KILL

# --- it dies, again and again

# kill_each MS CONDITION...: each negotiator for so long, as soon as there is one and the condition holds;
# $KILLED of them, and $FIRST of those while the first server was asked
kill_each() {
	local end=$((${EPOCHREALTIME/./} + $1 * 1000)) pid is_first
	local -A seen=() first=()

	shift
	while ((${EPOCHREALTIME/./} < end)); do
		pids_of nbd-negotiator
		for pid in "${PIDS[@]}"; do
			"$@" || continue
			is_first=''
			! asked 10809 || is_first=1
			kill -KILL "$pid" 2>/dev/null || continue
			seen[$pid]=1
			[[ -z $is_first ]] || first[$pid]=1
		done
		sleep 0.02
	done
	KILLED=${#seen[@]} FIRST=${#first[@]}
}
KILLED=0 FIRST=0

serve_proxy() { lib_serve "proxy:$1" tcp_listening "$1" lib_start "$hostile_dir/proxy" "$1" "$2"; }
either_asked() { asked 10809 || asked 10810; }
t "the server behind a" serve 10808
t "server a" serve_proxy 10809 10808
proxy=$SERVER
t "server b" serve_hostile 10810=absorb
t "attach" attach $a $b
forget 10810
kill -HUP "$proxy"
kill_each 5000 true
diag "$KILLED negotiators were killed in 5 s, each as soon as it was there"
t "the reason is in the list" is_set LAST-ERROR
diag "$(field LAST-ERROR)"
kill_each 10000 either_asked
diag "$KILLED negotiators were killed in 10 s, each when it had been asked; $FIRST of them about a"
# The pauses have grown by now.
t "neither server is asked again without a pause" test "$FIRST" -le 12 -a $((KILLED - FIRST)) -le 12
t "each of them is asked" test "$FIRST" -ge 2 -a $((KILLED - FIRST)) -ge 2
t "the reason is in the list" is_set LAST-ERROR
diag "$(field LAST-ERROR)"
t "the second server says so, too" saw 10810 accepted
kill -USR2 "$proxy"
t "no longer killed, it connects" wait_for 20 connected_to 10809
t "the device answers" reads nbd0
detach "killed"
stop_server hostile:10810 KILL
stop_server proxy:10809 KILL

# --- it cannot fork

# A control group with a limit for its processes
group=/run/cgroup/few
make_group() {
	mkdir /run/cgroup && mount -t cgroup2 none /run/cgroup &&
		echo +pids >/run/cgroup/cgroup.subtree_control && mkdir $group
}
if ! make_group 2>/dev/null; then
	skip "it cannot fork" "no control groups for processes"
	finish
fi
limit() { echo "$1" >$group/pids.max; }
# shellcheck disable=SC2016 # another shell's variables
in_group=(bash -c 'echo $$ >"$1/cgroup.procs" && shift && exec "$@"' - "$group")

psktool -u alice -p /run/keys.psk >/dev/null 2>&1
chmod 600 /run/keys.psk
tls=(--tls-offload no --tls-psk-file /run/keys.psk)
serve_tls() { serve_nbdkit 10813 --tls=require --tls-psk=/run/keys.psk file /tmp/disk; }
t "a server with TLS" serve_tls

# refused TEXT ARG...: no attach with three processes
refused() {
	local text=$1 status=0

	shift
	in_background refused "${in_group[@]}" "$A" --connect-timeout 5 "$@" nbd0
	outcome refused >/tmp/refused 2>&1 || status=$?
	diag "$text: exit $status after $TOOK ms" "$(</tmp/refused)"
	# 124: the limit of this test ended it
	t "$text: fails" test $status -ne 0 -a $status -ne 124
	t "$text: within connect-timeout and 10 s" test "$TOOK" -lt 15000
	t "$text: says why" grep -Pq '^nbd-attach: (?!interrupted)' /tmp/refused
	t "$text: nothing is left" nothing_left
	start_afresh
}
limit 3
refused "a name to be looked up" localhost ''
refused "a relay to be started" "${tls[@]}" 127.0.0.1:10813 ''
limit max

t "attach by a relay" "${in_group[@]}" "$A" --connect-timeout 5 "${tls[@]}" 127.0.0.1:10813 '' nbd0
t "the device answers" reads nbd0
limit $(($(<$group/pids.current) - 1))
t "the server is killed" stop_server nbdkit:10813 KILL
t "and is back" serve_tls
sleep 6
t "no relay can be started" is ALIVE 0
# not that the server refused, before it was back
t "the reason is in the list" grep -qiE 'fork|process|resource' <(field LAST-ERROR)
diag "$(field LAST-ERROR)"
limit max
t "it can: connected again" within 15000 is ALIVE 1
t "the device answers" reads nbd0
detach "by a relay"
finish
