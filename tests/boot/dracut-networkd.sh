#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
# images: dracut-networkd
# timeout: 1800
#
# dracut with systemd-networkd, which does not call its handlers of network roots: a URI, a name, and a pre-shared key out of the image.

# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

dracut_by_tls dracut-networkd nbds://alice@one.nbd.test/ "${psk[@]}"
finish
