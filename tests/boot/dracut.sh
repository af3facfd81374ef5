#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
# images: dracut
# timeout: 1800
#
# dracut with systemd, in its own syntax: the server comes up late, is killed for 10 s under a busy root, and away while the guest
# goes down. At the end the device is detached.

# shellcheck disable=SC2016,SC2317 # expanded in the guest; t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

boot dracut 'root=nbd:10.0.2.2:10809/rootfs:ext4:rw,noatime:block-size=4096 rd.neednet=1 ip=dhcp'
t "it says what it waits for" console 300 'nbd-attach: .*10.0.2.2.*refused'
sleep 5
t "the server comes" serve 10809
come_up
t "options of the mount" guest 'grep -E " / ext4 [^ ]*noatime" /proc/mounts'
t "options of the attachment" guest '[[ $(</sys/block/nbd0/queue/logical_block_size) == 4096 ]]'
dracut_lives 10809
t "the device was detached" detached
finish
