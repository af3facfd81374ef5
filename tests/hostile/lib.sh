# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# After lib.sh of the guest scripts: servers that misbehave, and what is left of an attachment.
#
#   serve_hostile PORT=STEP,...[ PORT=...]...    one process (see `server`), name hostile:LASTPORT
#   serve_qemu30 PORT FILE         a server with the bug of qemu 3.0 (see `qemu30`), name qemu30:PORT
#   saw PORT LINE                  has the server's log of this port got this line?
#   forget PORT...                 empties the logs
#   took COMMAND...                runs it with the usual time limit, $TOOK: milliseconds
#   took_from_to MIN MAX           whether that was in this range
#   in_background NAME COMMAND...  with a limit and took; then
#   outcome NAME                   waits for it: its output, status and $TOOK
#   ended PID                      the process is gone
#   reads DEVICE [SECONDS]         it answers within 20 s; a reader that waits in the kernel is left alone
#   nothing_left                   no device attached, no record, no process of nbd-attach
#   attached DEVICE; detached DEVICE
#   start_afresh                   ends all of nbd-attach and detaches what there is, whatever state it is in,
#                                  so that a check that failed is no trouble to the next ones
#   kernel_survived                nothing worse than I/O errors in the kernel's log since the mark

# shellcheck disable=SC2034 # used by the scripts
A=${NBD_ATTACH:?the program to be tested}
hostile_dir=$(cd "${BASH_SOURCE[0]%/*}" && pwd)
hostile_logs=/tmp/hostile
mkdir "$hostile_logs" /tmp/background
TOOK=0
declare -A background_pids=()

serve_hostile() {
	local last=${*: -1}

	lib_serve "hostile:${last%%=*}" tcp_listening "${last%%=*}" \
		lib_start "$hostile_dir/server" "$hostile_logs" "$@"
}

serve_qemu30() {
	lib_serve "qemu30:$1" tcp_listening "$1" \
		lib_start "$hostile_dir/qemu30" "$1" "$2" "$hostile_logs/$1"
}

saw() {
	local line

	[[ -e $hostile_logs/$1 ]] || return
	while read -r line; do
		[[ $line != "$2" ]] || return 0
	done <"$hostile_logs/$1"
	return 1
}

forget() {
	local port

	for port; do
		: >"$hostile_logs/$port"
	done
}

took() {
	local begin=${EPOCHREALTIME/./} status=0

	timeout -k 5 "$T_LIMIT" "$@" || status=$?
	TOOK=$(((${EPOCHREALTIME/./} - begin) / 1000))
	return $status
}

took_from_to() {
	echo "it took $TOOK ms"
	((TOOK >= $1 && TOOK <= $2))
}

in_background() {
	local file=/tmp/background/$1

	(
		status=0
		shift
		took "$@" >"$file" 2>&1 || status=$?
		echo "$status $TOOK" >"$file.status"
	) &
	background_pids[$1]=$!
}

outcome() {
	local file=/tmp/background/$1 status=125

	wait "${background_pids[$1]}"
	cat "$file"
	read -r status TOOK <"$file.status"
	return "$status"
}

attached() { [[ -e /sys/block/${1#/dev/}/pid ]]; }
detached() { ! attached "$1"; }

ended() { [[ ! -e /proc/$1 ]]; }

# No time limit ends a process that waits for a connection, nor whoever waits for that process.
reads() {
	local reader

	dd "if=/dev/$1" of=/dev/null bs=4k count=1 iflag=direct status=none &
	reader=$!
	if ! wait_for "${2:-20}" ended "$reader"; then
		echo "no answer in ${2:-20} s"
		disown "$reader"
		return 1
	fi
	wait "$reader"
}

nothing_left() {
	local file status=0

	for file in /sys/block/nbd*/pid /run/nbd-attach/* /run/nbd-attach/.[!.]*; do
		[[ -e $file ]] || continue
		echo "there is $file"
		status=1
	done
	# Process 1 buries orphans now and then.
	wait_for 2 no_process "$OURS" && return $status
	echo "there are processes of nbd-attach:"
	ps -o pid,ppid,stat,wchan:20,args -p "${PIDS[*]}"
	return 1
}

start_afresh() {
	local file device

	pids_of "$OURS"
	((!${#PIDS[@]})) || kill -KILL "${PIDS[@]}"
	for file in /sys/block/nbd*/pid; do
		[[ -e $file ]] || continue
		device=${file%/pid}
		timeout -k 1 20 "$A" -d --force "${device##*/}"
	done >/dev/null 2>&1
	rm -f /run/nbd-attach/nbd*
}

kernel_survived() {
	local log

	log=$(dmesg) || return
	! grep -E 'BUG|WARNING|Oops|Call Trace|blocked for more than' <<<"${log##*"${lib_mark:-no mark}"}"
}
