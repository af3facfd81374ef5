#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# images: dracut-networkd
# timeout: 1800
#
# dracut with systemd-networkd, which does not call its handlers of network roots: a URI, a name, and a pre-shared key out of the image.

# shellcheck disable=SC2016,SC2317 # expanded in the guest; t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

tls=(--tls=require "--tls-psk=$cache/keys.psk")
boot dracut-networkd 'root=nbds://alice@one.nbd.test/ rootfstype=ext4 rd.neednet=1 ip=dhcp'
t "it says what it waits for" console 300 "nbd-attach: .*one.nbd.test.*refused"
t "the server comes" serve 10809 "${tls[@]}"
t "multi-user" up 600
diag "up after $(since) s"
t "its supervisor and two more are marked" marked
t "encrypted" guest 'nbd-attach --list -n -O TLS nbd0 | grep -E "TLS ?1|TLSv?1"'
t "reads and writes" load_start
t "the server is away for 10 s" outage 10 10809 "${tls[@]}"
t "no error" load_ok 150
diag "longest wait: $(longest) ms"
t "the poweroff begins" power_off
t "the server is away for 8 s" outage 8 10809 "${tls[@]}"
t "the guest ends" ended 800
diag "ended after $(since) s"
t "the root was unmounted" console_has 'Unmounted /oldroot'
t "the device was detached" console_has 'block nbd0: NBD_DISCONNECT'
t "the file system is clean" clean
t "the last sync is there" synced
finish
