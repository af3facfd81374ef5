#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
# images: dracut-nbd
# timeout: 1800
#
# dracut's own nbd module, unchanged, with nbd-attach by the name of nbd-client.

# shellcheck disable=SC2016,SC2317 # expanded in the guest; t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

boot dracut-nbd 'root=nbd:10.0.2.2:rootfs:ext4:rw rd.neednet=1 ip=dhcp'
t "the server" serve 10809
come_up
dracut_lives 10809
finish
