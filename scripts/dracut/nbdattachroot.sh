#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
# The handler of netroot=nbdattach:..., which dracut calls when an interface is up, and our hook when it is time to try again: tries
# once. Another interface may be needed yet, so it neither waits nor fails for good.

# shellcheck source=/dev/null
command -v getarg >/dev/null || . /lib/dracut-lib.sh
# shellcheck source=../initramfs/functions
. /lib/nbd-attach-functions

[ -e "$nbd_tab" ] || exit 1
read -r nbd_name _ <"$nbd_tab"
: >/tmp/nbd-attach.online
! nbd-attach --check "$nbd_name" >/dev/null 2>&1 || exit 0

if nbd_try; then
	need_shutdown
	# What comes back at shutdown is executed there. Without systemd dracut mounts it such that nothing can be, and then there is no
	# way back, and no word of it.
	[ -n "$DRACUT_SYSTEMD" ] || mount -o remount,exec,nosuid,nodev /run
	# Where only DHCP knows what the root is, the generator had nothing to make a unit of, and the target is waiting for none.
	if [ -e /run/nbd-attach.root ] && [ -n "$DRACUT_SYSTEMD" ]; then
		systemctl daemon-reload
		systemctl --no-block start sysroot.mount
	fi
	exit 0
fi

nbd_clock
last=-10
[ ! -e /tmp/nbd-attach.said ] || read -r last </tmp/nbd-attach.said
if ! nbd_may_come; then
	echo "$nbd_said" >/tmp/nbd-attach.failed
	warn "${nbd_said#nbd-attach: }"
elif [ $((nbd_now - last)) -ge 10 ]; then
	echo "$nbd_now" >/tmp/nbd-attach.said
	warn "nbd-attach: ${nbd_said#nbd-attach: }"
	warn "nbd-attach: waiting for the server"
fi
exit 1
