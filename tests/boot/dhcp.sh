#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
# images: initramfs-tools dracut dracut-init
# timeout: 1800
#
# DHCP alone knows what the root is: initramfs-tools has the export of its root path and its server, dracut a URI, with systemd
# and without.

# shellcheck disable=SC2016,SC2317 # expanded in the guest; t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

own_network
t "DHCP" serve_dhcp
boot initramfs-tools 'nbdroot=dhcp root=/dev/nbd0 ip=dhcp nbdwait=15 panic=2'
t "initramfs-tools: it has no root path" console 300 'nbd-attach: .*DHCP has no root path'
t "ended" ended 300
stop_server udhcpd

t "DHCP with a root path" serve_dhcp "rootpath /disk"
boot initramfs-tools 'nbdroot=dhcp root=/dev/nbd0 ip=dhcp'
t "initramfs-tools: it waits for the server of DHCP" console 300 'nbd-attach: .*10.0.2.2.*refused'
t "the server comes" serve 10809
come_up
t "the export of the root path" guest '[[ $(nbd-attach --list -n -O EXPORT nbd0) == /disk ]]'
live 300 10809
stop_server nbdkit:10809
stop_server udhcpd

t "DHCP with a URI" serve_dhcp "rootpath nbd:nbd://10.0.2.2/other"
for image in dracut dracut-init; do
	boot "$image" 'root=dhcp rd.neednet=1 ip=dhcp'
	t "$image: it waits for the server" console 300 'nbd-attach: .*10.0.2.2.*refused'
	t "the server comes" serve 10809
	come_up
	t "the export of the root path" guest '[[ $(nbd-attach --list -n -O EXPORT nbd0) == other ]]'
	dracut_lives 10809
	t "the device was detached" detached
	stop_server nbdkit:10809
done
finish
