#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# An attach that is killed or interrupted, whichever of its processes and at whatever moment, leaves
# either a device that is attached as if nothing had happened, or nothing at all.

# timeout: 1200

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../hostile/lib.sh
. "${BASH_SOURCE[0]%/*}/../hostile/lib.sh"

# start ARG...: the program in the background, its pid goes into $PARENT. Job control, for without
# it the shell makes its background ignore SIGINT.
start() {
	set -m
	"$A" --no-supervise "$@" >/tmp/output 2>&1 &
	PARENT=$!
	set +m
	# Until then it is this shell, which has other ideas about signals.
	wait_for 20 is_program "$PARENT"
}
is_program() {
	local name

	{ read -r name <"/proc/$1/comm"; } 2>/dev/null && [[ $name == nbd-attach ]]
}

# Puts the only child of $1 into $CHILD.
child_of() {
	local pid parent

	pids_of "$OURS"
	for pid in "${PIDS[@]}"; do
		{ read -r _ _ _ parent _ <"/proc/$pid/stat"; } 2>/dev/null || continue
		CHILD=$pid
		((parent != $1)) || return 0
	done
	return 1
}

# is_at STAGE: has the attach of $PARENT got there? Each stage is also the name of a server below.
is_at() {
	case $1 in
	connect) syn_sent 12001 && child_of "$PARENT" ;;
	greeting) saw 12002 absorb ;;
	options) saw 12003 absorb ;;
	scan) saw 12004 absorb && attached nbd0 && scanning ;;
	command-greeting | command-options) saw - absorb ;;
	command-scan) saw - absorb && attached nbd0 && scanning ;;
	esac
}
syn_sent() {
	local port remote state

	printf -v port ':%04X' "$1"
	while read -r _ _ remote state _; do
		[[ $state == 02 && $remote == *"$port" ]] && return
	done </proc/net/tcp
	return 1
}
# The child has a child of its own, which opens the device.
scanning() { child_of "$PARENT" && child_of "$CHILD"; }

# Starts an attach that stops at STAGE.
start_at() {
	forget 12001 12002 12003 12004 -
	case $1 in
	connect) start 127.0.0.1:12001 x nbd0 ;;
	greeting) start 127.0.0.1:12002 x nbd0 ;;
	options) start 127.0.0.1:12003 x nbd0 ;;
	scan) start 127.0.0.1:12004 x nbd0 ;;
	command-*) start --command nbd0 -- /tmp/nbd-command "$hostile_logs" "-=${steps[$1]}" ;;
	esac
	wait_for 20 is_at "$1"
}

# hit SIGNAL parent|child
hit() {
	local pid=$PARENT

	if [[ $2 != parent ]]; then
		child_of "$PARENT" || return
		pid=$CHILD
	fi
	kill -s "$1" "$pid"
}

# Its exit status, and its output; within the time limit.
parent_ends() {
	local status=0

	wait_for 5 parent_has_ended || return 125
	wait "$PARENT" 2>/dev/null || status=$?
	cat /tmp/output
	return "$status"
}
# A zombie is as good.
parent_has_ended() {
	local state

	{ read -r _ _ state _ <"/proc/$PARENT/stat"; } 2>/dev/null || return 0
	[[ $state == Z ]]
}

nothing_attached() {
	detached nbd0 && [[ ! -e /run/nbd-attach/nbd0 ]] && no_process "$OURS" &&
		no_process nbd-command
}

# strike STAGE SIGNAL VICTIM STATUS REGEX
strike() {
	local text="SIG$2 to the $3, ${1/-/, }"

	t "$text: gets there" start_at "$1"
	t "$text: sent" hit "$2" "$3"
	t_fails "$4" "$text: exit status $4" parent_ends
	[[ -z $5 ]] || t_says "$text: says so" "$5"
	# The dead cannot wait until all is taken back.
	if [[ $2 == KILL && $3 == parent ]]; then
		t "$text: nothing is attached soon" wait_for 5 nothing_attached
	fi
	t "$text: nothing is left" nothing_left
	[[ $1 != command-* ]] || t "$text: the command is gone" wait_for 5 no_process nbd-command
}

# Waits without a process.
exec {never}<> <(:)
nap() {
	local seconds

	printf -v seconds '%d.%03d' $(($1 / 1000)) $(($1 % 1000))
	read -r -t "$seconds" -u "$never"
}

# The device is attached in all respects, or nothing is there. $STATE says which.
settled() {
	local line

	no_process "$OURS" || return
	STATE=free
	nothing_attached && return
	STATE=half
	attached nbd0 && [[ -e /run/nbd-attach/nbd0 ]] || return
	read -r line <"/run/nbd-attach/nbd0"
	[[ $line == "pid=$(</sys/block/nbd0/pid)" ]] || return
	STATE=attached
}

t "modprobe nbd" modprobe nbd nbds_max=4
dmesg_mark
cp "$hostile_dir/server" /tmp/nbd-command || bail "cannot copy the server"
declare -A steps=(
	[command-greeting]='absorb'
	[command-options]='greet,flags,option,part,absorb'
	[command-scan]='go,absorb'
)
t "servers that stop at each stage" serve_hostile 12001=full 12002=absorb \
	12003=greet,flags,option,part,absorb 12004=go,absorb

for stage in connect greeting options scan command-greeting command-options command-scan; do
	strike "$stage" KILL parent 137 ''
	strike "$stage" KILL child 1 'the working process was killed; nothing is attached'
	strike "$stage" TERM parent 1 'interrupted; nothing is attached'
done
strike options INT parent 1 'interrupted; nothing is attached'
strike scan INT parent 1 'interrupted; nothing is attached'
strike scan HUP parent 1 'interrupted; nothing is attached'

# --- at any moment -------------------------------------------------------------------------------

t "nbdkit" serve_nbdkit 10809 memory 8M
t "an attach that nobody disturbs" took "$A" --no-supervise 127.0.0.1:10809 x nbd0
t "detach" "$A" --detach nbd0
range=$((TOOK > 400 ? TOOK : 400))
diag "it took $TOOK ms"

# usable: the device gives what the server has, and can be detached
usable() {
	head -c 65536 /dev/nbd0 | cmp -n 65536 - /dev/zero && "$A" --detach nbd0
}

# at_random SIGNAL VICTIM TIMES MS: within MS after the start. After each the device is attached
# in all respects, or nothing is there; a parent that could still tell has told the truth.
at_random() {
	local i status pause attached=0 free=0 bad=0

	for ((i = 0; i < $3; i++)); do
		pause=$(((RANDOM << 15 | RANDOM) % $4))
		start 127.0.0.1:10809 x nbd0
		nap "$pause"
		hit "$1" "$2"
		status=0
		parent_ends || status=$?
		# By a signal: it could not wait for the other.
		((status == 0 || status == 1)) || wait_for 5 settled
		settled || wait_for 2 no_process "$OURS"
		settled
		echo "after $pause ms: exit status $status, $STATE"
		case $status.$STATE in
		0.attached | 137.attached | 143.attached)
			attached=$((attached + 1))
			usable || bad=$((bad + 1))
			;;
		1.free | 137.free | 143.free)
			free=$((free + 1))
			;;
		*)
			bad=$((bad + 1))
			nothing_left
			"$A" --detach --force nbd0
			;;
		esac
	done
	echo "$attached attached, $free free, $bad neither"
	((bad == 0 && attached + free == $3))
}
t "SIGKILL to the parent, 40 times at any moment" at_random KILL parent 40 $range
diag "$(tail -n 1 "$lib_output")"
t "SIGKILL to the child, 15 times at any moment" at_random KILL child 15 $((range / 4))
diag "$(tail -n 1 "$lib_output")"
t "SIGTERM to the parent, 15 times at any moment" at_random TERM parent 15 $range
diag "$(tail -n 1 "$lib_output")"
t "nothing is left" nothing_left

# A finished attach with a command has a process that stays with it; both end with the device.
t "attach a command" "$A" --command nbd0 -- /tmp/nbd-command "$hostile_logs" -=go,serve
t_fails 1 "the command runs" no_process nbd-command
t "detach" "$A" --detach nbd0
t "the command is gone" wait_for 5 no_process nbd-command
t "nothing is left in the end" nothing_left
t "the kernel has survived it" kernel_survived
finish
