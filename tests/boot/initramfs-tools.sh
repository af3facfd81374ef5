#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
# images: initramfs-tools
# timeout: 1800
#
# initramfs-tools, by name: the server comes up late, is killed for 10 s under a busy root, and away while the guest goes down.

# shellcheck disable=SC2016,SC2317 # expanded in the guest; t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

boot initramfs-tools 'root=nbd:nbd://one.nbd.test/ ip=dhcp'
t "it says what it waits for" console 300 'nbd-attach: .*one.nbd.test.*refused'
t "and for how long" console 60 'nbd-attach: waiting for the server, 1[0-9][0-9] s more'
sleep 5
t "the server comes" serve 10809
come_up
t "they need no program in /run, where none can be executed" guest 'grep -E " /run tmpfs [^ ]*noexec" /proc/mounts'
live 300 10809
finish
