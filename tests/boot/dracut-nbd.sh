#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# images: dracut-nbd
# timeout: 1800
#
# dracut's own nbd module, unchanged, with nbd-attach by the name of nbd-client.

# shellcheck disable=SC2016,SC2317 # expanded in the guest; t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

boot dracut-nbd 'root=nbd:10.0.2.2:rootfs:ext4:rw rd.neednet=1 ip=dhcp'
t "the server" serve 10809
t "multi-user" up 600
diag "up after $(since) s"
t "its supervisor and two more are marked" marked
t "reads and writes" load_start
t "the server is away for 10 s" outage 10 10809
t "no error" load_ok 150
diag "longest wait: $(longest) ms"
t "the poweroff begins" power_off
t "the server is away for 8 s" outage 8 10809
t "the guest ends" ended 800
diag "ended after $(since) s"
t "the root was unmounted" console_has 'Unmounted /oldroot'
t "the file system is clean" clean
t "the last sync is there" synced
finish
