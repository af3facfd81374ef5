#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# A question about the size that a silent server does not answer is in nobody's way: not in that of a pause, a forced
# detach or another client. When the server is well again the device is connected, without being told twice.
# timeout: 400

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../hostile/lib.sh
. "${BASH_SOURCE[0]%/*}/../hostile/lib.sh"

T_LIMIT=45

field() { "$A" --list -n -O "$2" "$1" | tr -d ' '; }
is() { [[ $(field "$1" "$2") == "$3" ]]; }
signal_server() { kill -s "$1" -- "-${lib_pids[nbdkit:$2]}"; }
# quick COMMAND...: it is answered at once
quick() {
	local status=0

	took "$@" || status=$?
	echo "it took $TOOK ms"
	((TOOK < 8000)) && return "$status"
	return 125
}
mebibytes() { (($(</sys/block/"$1"/size) == $2 * 2048)); }

# A control group in which what a detach starts when it has waited in vain cannot be started
group=/run/cgroup/few
make_group() {
	mkdir /run/cgroup && mount -t cgroup2 none /run/cgroup &&
		echo +pids >/run/cgroup/cgroup.subtree_control && mkdir $group && echo 2 >$group/pids.max
}
make_group || skip_all "no control groups for processes"
# shellcheck disable=SC2016 # another shell's variables
in_group=(bash -c 'echo $$ >"$1/cgroup.procs" && shift && exec "$@"' - "$group")

modprobe nbd
for i in 0 1 2; do
	make_disk /tmp/disk$i 16M
	t "server $i" serve_nbdkit 1080$i file /tmp/disk$i
	t "attach nbd$i" "$A" --connect-timeout 90 127.0.0.1:1080$i '' nbd$i
	t "server $i stops" signal_server STOP 1080$i
done
for i in 0 1; do
	in_background rescan$i "$A" --rescan nbd$i
done

# --- whoever asked is gone

t_fails 124 "somebody asks, and is gone" timeout 3 "$A" --rescan nbd2
t "pause: is not refused for that" quick "$A" --pause nbd2
t "it is paused" is nbd2 PAUSED 1
t "the server is well" signal_server CONT 10802
t "resume" quick "$A" --resume nbd2
t "it is connected" wait_for 5 is nbd2 ALIVE 1
t "the device answers" reads nbd2
truncate -s 20M /tmp/disk2
t "somebody else asks" quick "$A" --rescan nbd2
t "the device grows" wait_for 30 mebibytes nbd2 20
t "detach" "$A" -d nbd2 || "$A" -d --force nbd2

# --- whoever asked was told that it is not done yet

for i in 0 1; do
	t_fails 3 "nbd$i: rescan is not done" outcome rescan$i
	t_says "nbd$i: not yet" 'not done yet'
	t "nbd$i: and has said so in time" took_from_to 25000 40000
done
in_background force "${in_group[@]}" "$A" -d --force nbd1

t "pause" quick "$A" --pause nbd0
t "it is paused" is nbd0 PAUSED 1
t "the server is well" signal_server CONT 10800
t "resume" quick "$A" --resume nbd0
t "it is connected, without another one" wait_for 5 is nbd0 ALIVE 1
t "the device answers" reads nbd0
truncate -s 20M /tmp/disk0
t "rescan" quick "$A" --rescan nbd0
t "the device grows" wait_for 30 mebibytes nbd0 20
t "detach" "$A" -d nbd0 || "$A" -d --force nbd0

# A forced detach that has cut the connections and cannot go on. One that can is done.
status=0
outcome force >/tmp/said 2>&1 || status=$?
diag "forced detach: exit $status after $TOOK ms" "$(</tmp/said)"
t "forced detach: comes back" test "$TOOK" -lt 30000
t "its server is well" signal_server CONT 10801
if ((status)); then
	t "forced detach: says why it is not done" grep -q '^nbd-attach: .*nbd1' /tmp/said
	t "it is connected again" wait_for 35 is nbd1 ALIVE 1
	t "the device answers" reads nbd1
	t "detach" "$A" -d nbd1 || start_afresh
fi
t "nothing is left" nothing_left
finish
