#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
# images: initramfs-tools
# timeout: 1800
#
# initramfs-tools with a pre-shared key out of the image, two connections, and two servers of which the first one goes for good.

# shellcheck disable=SC2016,SC2317 # expanded in the guest; t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

field() { guest "nbd-attach --list -n -O $1 nbd0" | tr -d ' '; }
is() {
	local value

	value=$(field "$1")
	[[ $value == "$2" ]] || { echo "$1 is $value"; return 1; }
}
by_kernel() { field TLS | grep 'kernel'; }

boot initramfs-tools 'nbdroot=nbds://alice@one.nbd.test/,nbds://alice@two.nbd.test:10810/ nbdopts=connections=2 root=/dev/nbd0 ip=dhcp'
t "it says what it waits for" console 300 "nbd-attach: .*nbd.test.*refused"
t "and for how long" console 60 "nbd-attach: waiting for the server, 1[0-9][0-9] s more"
t "two servers of the same disk come" serve 10809 "${psk[@]}"
t "the second one" serve 10810 "${psk[@]}"
come_up
t "they need no program in /run, where none can be executed" guest 'grep -E " /run tmpfs [^ ]*noexec" /proc/mounts'
t "two connections" is CONNECTIONS 2
t "the kernel encrypts" by_kernel
t "reads and writes" load_start
t "the first server is killed for good" stop_server nbdkit:10809 KILL
t "no error" load_ok 150
diag "longest wait: $(longest) ms"
t "both connections are back" wait_for 120 is ALIVE 2
t "those of the second server" is PEER 10.0.2.2:10810
t "the key is root's only" guest '[[ $(stat -c %a-%u /etc/nbd-attach/initramfs/keys.psk) == 600-0 ]]'
go_down 300 10810 "${psk[@]}"
finish
