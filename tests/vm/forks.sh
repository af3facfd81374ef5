#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# Wherever the limit of processes is reached: an attach succeeds or leaves nothing, a detach succeeds or
# changes nothing. And a detach that was given up is no user of the device to the next one.
# timeout: 400

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../hostile/lib.sh
. "${BASH_SOURCE[0]%/*}/../hostile/lib.sh"

T_LIMIT=20

# A control group with a limit for its processes
group=/run/cgroup/few
make_group() {
	mkdir /run/cgroup && mount -t cgroup2 none /run/cgroup &&
		echo +pids >/run/cgroup/cgroup.subtree_control && mkdir $group
}
make_group || skip_all "no control groups for processes"
limit() { echo "$1" >$group/pids.max; }
# shellcheck disable=SC2016 # another shell's variables
in_group=(bash -c 'echo $$ >"$1/cgroup.procs" && shift && exec "$@"' - "$group")

modprobe nbd
make_disk /tmp/disk 16M
psktool -u alice -p /run/keys.psk >/dev/null 2>&1
chmod 600 /run/keys.psk
tls=(--tls-offload no --tls-psk-file /run/keys.psk)
t "a server" serve_nbdkit 10809 file /tmp/disk
t "a server with TLS" serve_nbdkit 10813 --tls=require --tls-psk=/run/keys.psk file /tmp/disk

# --- attach

works() { attached nbd0 && reads nbd0; }
# attach_with COUNT TEXT ARG...: with so many processes at most; $STATUS
attach_with() {
	local count=$1 text="$2, $1 processes"

	shift 2
	STATUS=0
	limit "$count"
	took "${in_group[@]}" "$A" --connect-timeout 5 "$@" nbd0 >/tmp/said 2>&1 || STATUS=$?
	diag "$text: exit $STATUS after $TOOK ms" "$(</tmp/said)"
	t "$text: comes back" test "$TOOK" -lt 15000
	if ((!STATUS)); then
		t "$text: the device works" works
		t "$text: detach" "$A" -d nbd0
	else
		t "$text: says why" grep -Pq '^nbd-attach: (?!interrupted)' /tmp/said
	fi
	t "$text: nothing is left" nothing_left
	start_afresh
}
# ways TEXT ARG...: with one process, two and so on, until it succeeds
ways() {
	local count

	for ((count = 1; count <= 8; count++)); do
		attach_with $count "$@"
		((STATUS)) || return
	done
	t "$1: eight are enough" false
}
STATUS=0
ways "supervised" 127.0.0.1 ''
ways "not supervised" --no-supervise 127.0.0.1 ''
ways "by a relay" "${tls[@]}" 127.0.0.1:10813 ''

# --- detach

for count in 1 2 3; do
	limit max
	t "attach" "$A" 127.0.0.1 '' nbd0
	limit $count
	status=0
	took "${in_group[@]}" "$A" -d nbd0 >/tmp/said 2>&1 || status=$?
	diag "detach with $count processes: exit $status after $TOOK ms" "$(</tmp/said)"
	t "detach, $count processes: comes back" test "$TOOK" -lt 15000
	if ((status)); then
		t "detach, $count processes: says why" grep -Pq '^nbd-attach: (?!interrupted)' /tmp/said
		t "detach, $count processes: the device works" works
		t "detach, $count processes: with more of them" "$A" -d nbd0
	fi
	t "detach, $count processes: nothing is left" nothing_left
	start_afresh
done

# The first one is in the kernel, writing out what is cached, and stays there until there is a connection.
t "attach" "$A" 127.0.0.1 '' nbd0
t "the server is killed" stop_server nbdkit:10809 KILL
t_fails 124 "a detach waits, and is given up" timeout 4 "$A" -d nbd0
status=0
timeout 4 "$A" -d nbd0 >/tmp/said 2>&1 || status=$?
diag "the next one: exit $status" "$(</tmp/said)"
t "the next one does not find it in use" test $status -ne 7
t_fails 1 "nor says so" grep 'in use' /tmp/said
t "a forced one succeeds" took "$A" -d --force nbd0
t "soon" took_from_to 0 15000
t "nothing is left" nothing_left
finish
