#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# images: nbd-client
# timeout: 1800
#
# The scripts of Debian's nbd-client for initramfs-tools, unchanged, with nbd-attach by the name of nbd-client.

# shellcheck disable=SC2016,SC2317 # expanded in the guest; t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

boot nbd-client 'root=/dev/nbd0 nbdroot=10.0.2.2:10809/rootfs ip=dhcp'
t "the server" serve 10809
t "multi-user" up 600
diag "up after $(since) s"
t "it is Debian's script that attached" console_has 'Setting up nbd-client'
t "its supervisor and two more are marked" marked
t "reads and writes" load_start
t "the server is away for 10 s" outage 10 10809
t "no error" load_ok 150
diag "longest wait: $(longest) ms"
t "the poweroff begins" power_off
t "the server is away for 8 s" outage 8 10809
t "the guest ends" ended 300
diag "ended after $(since) s"
t "the file system is clean" clean
t "the last sync is there" synced
finish
