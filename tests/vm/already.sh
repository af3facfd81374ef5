#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# "Attached to this export already" is success only for a device that can be used, and that is attached as it
# was asked for. One that is connecting is waited for, one that nobody will ever connect is attached anew, and
# of any other the message says what to do.
# timeout: 400

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../hostile/lib.sh
. "${BASH_SOURCE[0]%/*}/../hostile/lib.sh"

T_LIMIT=30

field() { "$A" --list -n -O "$1" nbd0 | tr -d ' '; }
is() {
	local value

	value=$(field "$1")
	[[ $value == "$2" ]] || { echo "$1 is '$value', not '$2'"; return 1; }
}
supervised() { [[ -n $(field SUPERVISOR) ]]; }
not_supervised() { [[ -z $(field SUPERVISOR) ]]; }
supervisor_of() { sed -n 's/^supervisor=//p' /run/nbd-attach/nbd0; }
# What tells one attachment from the next one
identity() { cat /sys/block/nbd0/pid /run/nbd-attach/nbd0 | grep -E '^[0-9]+$|^supervisor='; }
# The driver knows that the connection is dead: a read fails where nobody replaces it.
is_dead() { ! timeout 5 dd if=/dev/nbd0 of=/dev/null bs=4k count=1 iflag=direct status=none 2>/dev/null; }
serve() { serve_nbdkit 10809 file /tmp/disk; }
killed() { stop_server nbdkit:10809 KILL; }
# attach OPTION...: the command, with these; $TOOK
attach() { took "$A" --connect-timeout 4 "$@" 127.0.0.1 x nbd0; }
same() { attach "${options[@]}" "$@"; }
# begin TEXT OPTION...: a device that is attached like that
begin() {
	local text=$1

	shift
	options=("$@")
	t "$text: attach" attach "$@"
	before=$(identity)
}
untouched() { diff <(identity) <(echo "$before"); }
end() { t "$1: detach" "$A" -d nbd0 || start_afresh; }

modprobe nbd
make_disk /tmp/disk 16M
mkfs.ext4 -q /tmp/disk
t "a server" serve

# --- usable

begin "usable"
t "usable: success" same
t_says "usable: says so" 'attached to this export already'
t "usable: nothing has changed" untouched
end "usable"

# --- its server is down

begin "reconnecting"
t "reconnecting: the server is killed" killed
t "reconnecting: no connection is alive" wait_for 5 is ALIVE 0
t_fails 3 "reconnecting: exit 3" same
t_says "reconnecting: says what the matter is" 'refused'
t "reconnecting: after connect-timeout" took_from_to 3000 12000
t "reconnecting: nothing has changed" untouched
in_background waits "$A" --connect-timeout 20 127.0.0.1 x nbd0
sleep 2
t "reconnecting: the server is back" serve
t "reconnecting: then it is success" outcome waits
t "reconnecting: as soon as it is connected" took_from_to 2000 15000
t "reconnecting: the device answers" reads nbd0
t "reconnecting: nothing has changed" untouched
end "reconnecting"

# --- paused

begin "paused"
t "paused: pause" "$A" --pause nbd0
t_fails 7 "paused: exit 7" same
t_says "paused: says what to do" '--resume'
t "paused: it is paused still" is PAUSED 1
t "paused: resume" "$A" --resume nbd0
t "paused: the device answers" reads nbd0
end "paused"

# --- nobody will ever connect it

# lost TEXT COMMAND...: the connection is lost and the server back, the same command attaches it anew
lost() {
	local text=$1

	shift
	t "$text: the server is killed" killed
	t "$text: the server is back" serve
	t "$text: the device is useless" is_dead
	t "$text: the same command succeeds" "$@"
	t "$text: the device answers" reads nbd0
	t_fails 1 "$text: it has been attached anew" untouched
}

begin "not supervised" --no-supervise
lost "not supervised" same
t "not supervised: nor is it now" not_supervised
t "not supervised: the server is killed" killed
t "not supervised: the device is useless" is_dead
t "not supervised: the server is back" serve
exec 9</dev/nbd0
before=$(identity)
t_fails 7 "not supervised, but in use: exit 7" same
t "not supervised, but in use: nothing has changed" untouched
exec 9<&-
"$A" -d --force nbd0

ln -s "$A" /tmp/nbd-client
client=(/tmp/nbd-client 127.0.0.1 -N x /dev/nbd0)
t "nbd-client: attach" "${client[@]}"
before=$(identity)
lost "nbd-client" "${client[@]}"
t "nbd-client: says so" "${client[@]}"
t_says "nbd-client: as ever" 'Connected /dev/nbd0'
end "nbd-client"

begin "supervisor killed"
t "supervisor killed: it is killed" kill -KILL "$(supervisor_of)"
t "supervisor killed: the server is killed" killed
t "supervisor killed: the server is back" serve
t "supervisor killed: the same command succeeds" same
t "supervisor killed: the device answers" reads nbd0
t "supervisor killed: it has another one" supervised
end "supervisor killed"

# --- disconnected, and in use

begin "zombie"
t "zombie: mount" mount /dev/nbd0 /mnt
t "zombie: a forced detach" "$A" -d --force nbd0
t_fails 7 "zombie: exit 7" same
t_says "zombie: says what it waits for" 'waits for its users: .*/mnt'
t "zombie: soon" took_from_to 0 10000
umount /mnt
t "zombie: without users it can be attached" same
t "zombie: the device answers" reads nbd0
end "zombie"

# --- otherwise than asked for

# otherwise REGEX OPTION...: refused, and the text names it
otherwise() {
	local regex=$1

	shift
	t_fails 7 "otherwise, [${options[*]}] but now [$*]: exit 7" attach "$@"
	t_says "otherwise, [${options[*]}] but now [$*]: says which" "$regex"
	t "otherwise, [${options[*]}] but now [$*]: nothing has changed" untouched
}
begin "otherwise"
otherwise '--swap' --swap
otherwise '--root' --root
otherwise '--no-supervise|supervise' --no-supervise
otherwise '(-t|--timeout)' -t 7
end "otherwise"
begin "otherwise, not supervised" --no-supervise
otherwise 'supervise|--swap' --swap
otherwise 'supervise'
end "otherwise, not supervised"
begin "otherwise, with a limit" -t 7
t "otherwise: the same limit" same
otherwise '(-t|--timeout)' -t 8
end "otherwise, with a limit"
begin "otherwise, swap" --swap
t "otherwise: swap, as it is" same
end "otherwise, swap"
t "nothing is left" nothing_left
finish
