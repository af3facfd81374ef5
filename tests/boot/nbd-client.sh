#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
# images: nbd-client
# timeout: 1800
#
# The scripts of Debian's nbd-client for initramfs-tools, unchanged, with nbd-attach by the name of nbd-client.

# shellcheck disable=SC2016,SC2317 # expanded in the guest; t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

boot nbd-client 'root=/dev/nbd0 nbdroot=10.0.2.2:10809/rootfs ip=dhcp'
t "the server" serve 10809
come_up
t "it is Debian's script that attached" console_has 'Setting up nbd-client'
live 300 10809
finish
