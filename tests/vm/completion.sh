#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# Completion for bash: the exports of servers, whatever they are called, and devices that are attached or free.

# shellcheck disable=SC2317,SC2016,SC1003 # t calls the functions; names as they are
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

a=${NBD_ATTACH:?the program to be tested}
PATH=${a%/*}:$PATH
top=$(cd "${BASH_SOURCE[0]%/*}/../.." && pwd)
# shellcheck source-path=SCRIPTDIR source=../../scripts/completion/nbd-attach
. "$top/scripts/completion/nbd-attach"
# shellcheck source-path=SCRIPTDIR source=../complete.sh
. "$top/tests/complete.sh"

# offers LINE WORD...
offers() {
	local line=$1 got want=''

	shift
	got=$(completed "$line")
	(($# == 0)) || want=$(printf '%s\n' "$@" | sort -u)
	[[ $got == "$want" ]] || { diff <(echo "$want") <(echo "$got"); return 1; }
}
# The usual limit is for people's patience, not for an emulated machine.
export NBD_ATTACH_COMPLETION_SECONDS=30
quick() {
	local start=${EPOCHREALTIME/./} NBD_ATTACH_COMPLETION_SECONDS=2

	offers "$@" || return
	((${EPOCHREALTIME/./} - start < 15000000))
}

modprobe nbd nbds_max=3
mkdir /tmp/exports
# Names that a shell would act upon, and one that a terminal would.
for name in one other 'with blank' '$(touch evil)' '`touch evil`' ';touch evil' "quote'" $'esc\e[31m' '*'; do
	truncate -s 1M "/tmp/exports/$name"
done
truncate -s 4M /tmp/disk
t "a server with many exports" serve_nbdkit 10809 file dir=/tmp/exports
t "another one, with one" serve_nbdserver 10810 second=/tmp/disk
t "all exports of a host, each as one word, and not the one with an escape" offers 'nbd-attach localhost ' \
	one other 'with\ blank' '\$\(touch\ evil\)' '\`touch\ evil\`' '\;touch\ evil' "quote\\'" '\*'
t "those that begin so" offers 'nbd-attach localhost o' one other
t "as it was quoted" offers 'nbd-attach localhost with\' 'with\ blank'
t "with a port" offers 'nbd-attach localhost:10810 ' second
t "as a URI" offers 'nbd-attach nbd://localhost/o' '//localhost/one' '//localhost/other'
t "for --info" offers 'nbd-attach --info localhost:10810 s' second
t "for --exports there is nothing after the host" offers 'nbd-attach --exports localhost '
t "no server: nothing, soon" quick 'nbd-attach localhost:1 '
stopped() { kill -STOP "$SERVER"; }
t "a server" serve_nbdkit 10811 memory 1M
t "that is stopped" stopped
t "nothing, soon" quick 'nbd-attach localhost:10811 '
t "nothing was executed" test ! -e evil
t "TLS where there is none: nothing" offers 'nbd-attach --tls localhost '

t "free devices" offers 'nbd-attach localhost one ' nbd0 nbd1 nbd2
t "after a URI" offers 'nbd-attach nbd://localhost/one /dev/nbd' /dev/nbd0 /dev/nbd1 /dev/nbd2
t "none for --find" offers 'nbd-attach --find localhost one '
t "none is attached" offers 'nbd-attach --detach '
t "attach" "$a" localhost one nbd1
for command in --detach -d --list --pause --resume --rescan --adopt --check; do
	t "$command: the attached one" offers "nbd-attach $command " nbd1
done
t "by its path" offers 'nbd-attach --detach /dev/' /dev/nbd1
t "free is what is left" offers 'nbd-attach localhost one ' nbd0 nbd2
t "detach" "$a" -d nbd1
finish
