#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
# images: initramfs-tools dracut
# timeout: 1800
#
# A server that never comes, and one that has no such export: the wait has an end, and the console says why.

# shellcheck disable=SC2016,SC2317 # expanded in the guest; t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

boot initramfs-tools 'nbdroot=10.0.2.2:10809/rootfs root=LABEL=rootfs nbdwait=15 ip=dhcp panic=2'
t "initramfs-tools: it waits" console 300 'nbd-attach: waiting for the server, [0-9]+ s more'
t "not for ever" console 180 'nbd-attach: no server in 15 s'
t "it says what has failed" console 60 'nbd-attach: cannot attach nbd0 as root file system'
t "the rest is the policy of panic=" ended 300

boot initramfs-tools 'nbdroot=nbds://10.0.2.2/ nbdopts=tls-no-verify ip=dhcp panic=2'
t "a server without TLS" serve 10809
t "is not worth waiting for" console 300 'nbd-attach: .*TLS'
t "it says what has failed" console 60 'nbd-attach: cannot attach nbd0 as root file system'
t "ended" ended 300
stop_server nbdkit:10809

boot dracut 'root=nbd:nbd://10.0.2.2/ rd.neednet=1 ip=dhcp nbdwait=15 rd.shell=0 rd.emergency=poweroff'
t "dracut: it waits" console 300 'nbd-attach: waiting for the server'
t "not for ever" console 180 'nbd-attach: cannot attach nbd0 as root file system: no server in 15 s'
t "ended" ended 300
finish
