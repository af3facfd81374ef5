# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# For the scripts that run in the guest of `boot`: TAP output and NBD servers. A script sources
# this file, makes its checks and ends with `finish`; one that ends without it has failed.
#
#   t DESCRIPTION COMMAND [ARG]...            passes if the command succeeds
#   t_fails STATUS DESCRIPTION COMMAND...     passes if it exits with exactly this status
#   t_says DESCRIPTION REGEX                  passes if the last t or t_fails command printed a
#                                             line that matches (extended, case counts)
#   skip DESCRIPTION REASON                   one check that cannot be made here
#   skip_all REASON                           the whole script: ends it with status 77
#   bail REASON                               no point in going on: ends it with status 99
#   finish                                    prints the plan; status 1 if a check failed
#   diag TEXT...                              a comment line for each argument
#
# A command may be a function; then it runs in this shell. Others are killed after $T_LIMIT
# seconds (default 60). What a failed command printed follows as comment lines.
#
#   wait_for SECONDS COMMAND...               until it succeeds; status 1 if it never does
#   make_disk FILE SIZE                       a sparse file of zeros
#   pids_of PATTERN                           sets $PIDS: the processes with such a name; no_process PATTERN
#   dmesg_mark; no_kernel_errors              none in the kernel's log since the mark (or boot)
#   follow_kernel_log                         from now on no_kernel_errors knows all of it, even
#                                             what the kernel has no room for any more
#
# Servers return when the kernel queues connections for them, and put their pid into $SERVER:
#
#   serve_nbdkit PORT ARG...                  name nbdkit:PORT
#   serve_nbdkit_unix PATH ARG...             name nbdkit:PATH
#   serve_qemu PORT FILE ARG...               name qemu-nbd:PORT; raw unless the arguments say else,
#                                             one client at a time unless they have -e
#   serve_nbdserver PORT EXPORT=FILE[,KEY=VALUE]...    name nbd-server:PORT; keys of its config file
#   stop_server NAME|PID [SIGNAL]             signals the server and its children and waits for
#                                             their end; after 5 s they are killed (status 1)
# `server_log NAME|PID` prints what a server printed, also when it is gone. nbd-server prints only
# what it says before it goes into the background.
#
#   far_network                               a network "far", 10.9.0.2 for us, by a cable whose far
#                                             end is far0
#   serve_far PORT COMMAND...                 a server there; name far:PORT
#   start_udevd                               the host's udevd and rules, until the guest ends
#
# $OURS is a pattern for the names of nbd-attach's processes.

T_LIMIT=${T_LIMIT:-60}
SERVER=''
PIDS=()
# shellcheck disable=SC2034 # for scripts
OURS='nbd-@(attach|negotiator|relay)'

lib_dir=${LIB_DIR:-/tmp/lib.$$}
lib_count=0
lib_failed=0
lib_skipped=0
lib_output=/dev/null
lib_finished=''
declare -A lib_pids=()	# by name
declare -A lib_names=()	# by pid
declare -A lib_logs=()	# by both, also of servers that are gone
lib_log=''
mkdir "$lib_dir" || exit 99

lib_end() {
	local status=$? pid

	for pid in "${!lib_names[@]}"; do
		kill -KILL -- "-$pid" 2>/dev/null
	done
	rm -rf "$lib_dir"
	if [[ -z $lib_finished ]]; then
		echo "Bail out! The script ended early (status $status)"
		exit 99
	fi
}
trap lib_end EXIT

diag() {
	printf '# %s\n' "$@"
}

bail() {
	echo "Bail out! $*"
	lib_finished=1
	exit 99
}

skip_all() {
	echo "1..0 # SKIP $*"
	lib_finished=1
	exit 77
}

finish() {
	echo "1..$lib_count"
	diag "$lib_count checks, $lib_failed failed, $lib_skipped skipped"
	lib_finished=1
	exit $((lib_failed != 0))
}

# lib_report PASSED DESCRIPTION [FILE WITH DETAILS] [LINE]...
lib_report() {
	local passed=$1 text=$2 details=${3:-/dev/null} line

	shift $(($# < 3 ? $# : 3))
	lib_count=$((lib_count + 1))
	if ((passed)); then
		echo "ok $lib_count - $text"
		return 0
	fi
	lib_failed=$((lib_failed + 1))
	echo "not ok $lib_count - $text"
	(($#)) && diag "$@"
	while IFS= read -r line || [[ -n $line ]]; do
		diag "  $line"
	done <"$details"
	return 1
}

# Everything about a command that did not end as expected.
lib_expect() {
	local expected=$1 text=$2 status=0 note=''

	shift 2
	lib_output=$lib_dir/output.$((lib_count + 1))
	if [[ $(type -t -- "$1") == file ]]; then
		timeout -k 5 "$T_LIMIT" "$@" >"$lib_output" 2>&1 || status=$?
		((status != 124)) || note=" (the time limit, $T_LIMIT s?)"
	else
		"$@" >"$lib_output" 2>&1 || status=$?
	fi
	lib_report $((status == expected)) "$text" "$lib_output" "command: $*" \
		"exit status $status$note, expected $expected; output:"
}

t() {
	lib_expect 0 "$@"
}

t_fails() {
	lib_expect "$@"
}

t_says() {
	local text=$1 regex=$2 line passed=0

	while IFS= read -r line || [[ -n $line ]]; do
		[[ $line =~ $regex ]] && passed=1
	done <"$lib_output"
	lib_report $passed "$text" "$lib_output" "no line matches $regex in:"
}

skip() {
	lib_count=$((lib_count + 1))
	lib_skipped=$((lib_skipped + 1))
	echo "ok $lib_count - $1 # SKIP $2"
}

wait_for() {
	local end=$((${EPOCHREALTIME/./} + $1 * 1000000))

	shift
	until "$@"; do
		((${EPOCHREALTIME/./} < end)) || return 1
		sleep 0.05
	done
}

# One may end meanwhile.
pids_of() {
	local file name pid

	PIDS=()
	for file in /proc/[0-9]*/comm; do
		{ read -r name <"$file"; } 2>/dev/null || continue
		pid=${file#/proc/}
		# shellcheck disable=SC2053 # a pattern
		[[ $name != $1 ]] || PIDS+=("${pid%/comm}")
	done
}

no_process() {
	pids_of "$1"
	((${#PIDS[@]} == 0)) || { echo "processes ${PIDS[*]} are there ($1)"; return 1; }
}

make_disk() {
	truncate -s "$2" "$1"
}

lib_mark=''
dmesg_mark() {
	lib_mark="mark $EPOCHREALTIME"
	echo "<6>$lib_mark" >/dev/kmsg
}

lib_kernel_log=''
follow_kernel_log() {
	lib_kernel_log=$lib_dir/kernel
	perl -e '$| = 1; open my $log, "<", "/dev/kmsg" or die; for (;;) { my $n = sysread $log, my $line, 8192;
		print defined $n ? $line : "BUG: lines were lost\n"; }' >"$lib_kernel_log" &
	disown $!
}

no_kernel_errors() {
	local log

	if [[ -n $lib_kernel_log ]]; then
		sleep 0.2
		log=$(<"$lib_kernel_log")
	else
		log=$(dmesg) || return
	fi
	if [[ -n $lib_mark ]]; then
		if [[ $log != *"$lib_mark"* ]]; then
			echo "the kernel's log has lost the mark"
			return 1
		fi
		log=${log##*"$lib_mark"}
	fi
	! grep -E 'I/O error|critical .* error|EXT4-fs error|lost .*page write|BUG|WARNING|Oops|Call Trace|blocked for more than' <<<"$log"
}

# A connection would tell more, but a server may stop after its first client.
lib_net=/proc/net	# of a process elsewhere, for servers there
tcp_listening() {
	local port file address state

	printf -v port ':%04X' "$1"
	for file in "$lib_net/tcp" "$lib_net/tcp6"; do
		[[ -e $file ]] || continue
		while read -r _ address _ state _; do
			[[ $state == 0A && $address == *"$port" ]] && return 0
		done <"$file"
	done
	return 1
}

unix_listening() {
	local flags path

	while read -r _ _ _ flags _ _ _ path; do
		# __SO_ACCEPTCON
		[[ $path == "$1" && $flags == 00010000 ]] && return 0
	done </proc/net/unix
	return 1
}

lib_pid() {
	if [[ -n ${lib_pids[$1]:-} ]]; then
		echo "${lib_pids[$1]}"
	elif [[ -n ${lib_names[$1]:-} ]]; then
		echo "$1"
	else
		echo "no such server: $1" >&2
		return 1
	fi
}

server_log() {
	if [[ -z ${lib_logs[$1]:-} ]]; then
		echo "no such server: $1" >&2
		return 1
	fi
	cat "${lib_logs[$1]}"
}

lib_listening_or_dead() {
	"$@" || ! kill -0 "$SERVER" 2>/dev/null
}

# lib_start COMMAND...: as the leader of a process group, for the children that it may make.
lib_start() {
	set -m
	"$@" </dev/null >"$lib_log" 2>&1 &
	SERVER=$!
	set +m
	disown "$SERVER"
}

# nbd-server -d serves one client and exits; without it only the file has the pid.
lib_start_nbdserver() {
	local pidfile=$lib_dir/nbd-server.pid

	rm -f "$pidfile"
	nbd-server -C "$1" -p "$pidfile" </dev/null >"$lib_log" 2>&1 &&
		wait_for 5 test -s "$pidfile" && SERVER=$(<"$pidfile")
}

# lib_serve NAME IS_LISTENING ADDRESS START ARG...
lib_serve() {
	local name=$1 listening=$2 address=$3

	shift 3
	if "$listening" "$address"; then
		echo "$address is taken"
		return 1
	fi
	lib_log=$lib_dir/log.${#lib_logs[@]}
	lib_logs[$name]=$lib_log
	if "$@"; then
		lib_pids[$name]=$SERVER
		lib_names[$SERVER]=$name
		lib_logs[$SERVER]=$lib_log
		wait_for 60 lib_listening_or_dead "$listening" "$address"
		"$listening" "$address" && return
	fi
	echo "$name does not listen; it said:"
	cat "$lib_log"
	[[ -z ${lib_pids[$name]:-} ]] || stop_server "$name" KILL
	return 1
}

serve_nbdkit() {
	local port=$1

	shift
	lib_serve "nbdkit:$port" tcp_listening "$port" lib_start nbdkit -f -p "$port" "$@"
}

serve_nbdkit_unix() {
	local path=$1

	shift
	rm -f "$path"
	lib_serve "nbdkit:$path" unix_listening "$path" lib_start nbdkit -f -U "$path" "$@"
}

serve_qemu() {
	local port=$1 file=$2

	shift 2
	lib_serve "qemu-nbd:$port" tcp_listening "$port" \
		lib_start qemu-nbd -t -p "$port" -f raw "$@" "$file"
}

serve_nbdserver() {
	local port=$1 config=$lib_dir/nbd-server.$1 item

	shift
	printf '[generic]\nport = %s\nallowlist = true\n' "$port" >"$config"
	for item in "$@"; do
		printf '[%s]\nexportname = %s\n' "${item%%=*}" "${item#*=}" | tr , '\n' >>"$config"
	done
	lib_serve "nbd-server:$port" tcp_listening "$port" lib_start_nbdserver "$config"
}

lib_group_gone() {
	! kill -0 -- "-$1" 2>/dev/null
}

# Not "ip netns exec" for what is there: it keeps mounts of its own.
far_network() {
	ip netns add far || return
	nsenter --net=/run/netns/far sleep infinity &
	lib_far=$!
	disown "$lib_far"
	ip link add near0 type veth peer name far0 netns far &&
		ip addr add 10.9.0.1/24 dev near0 &&
		ip link set near0 up &&
		ip -n far addr add 10.9.0.2/24 dev far0 &&
		ip -n far link set far0 up &&
		ip -n far link set lo up
}

serve_far() {
	local port=$1 lib_net=/proc/$lib_far/net

	shift
	lib_serve "far:$port" tcp_listening "$port" lib_start nsenter --net=/run/netns/far "$@"
}

stop_server() {
	local pid signal=${2:-TERM} status=0

	pid=$(lib_pid "$1") || return
	kill -s "$signal" -- "-$pid" 2>/dev/null
	if ! wait_for 5 lib_group_gone "$pid"; then
		kill -KILL -- "-$pid"
		wait_for 5 lib_group_gone "$pid"
		status=1
	fi
	unset "lib_pids[${lib_names[$pid]}]" "lib_names[$pid]"
	return $status
}

start_udevd() {
	mkdir -p /run/udev
	/lib/systemd/systemd-udevd --daemon || return
	wait_for 10 udevadm control --ping || return
	udevadm trigger --action=add --subsystem-match=block
	udevadm settle -t 30
}
