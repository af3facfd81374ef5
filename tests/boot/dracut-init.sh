#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
# images: dracut-init
# timeout: 1800
#
# dracut without systemd in the initramfs: a URI, a name, and a certificate that is verified by what is in the image.

# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

dracut_by_tls dracut-init 'nbds://one.nbd.test/?tls-certificates=/etc/nbd-attach/initramfs' "${x509[@]}"
finish
