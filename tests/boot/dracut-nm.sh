#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
# images: dracut-nm
# timeout: 1800
#
# dracut with NetworkManager: a URI, a name, and a pre-shared key out of the image.

# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

dracut_by_tls dracut-nm nbds://alice@one.nbd.test/ "${psk[@]}"
finish
