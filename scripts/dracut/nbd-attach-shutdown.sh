#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
# dracut sources this in a shell of its own when everything is unmounted, and again if it failed: detaches, so that the server
# is told to write out, and sees an orderly end.

status=0
for disk in /sys/block/nbd*; do
	[ -e "$disk/pid" ] || continue
	said=$(nbd-attach --detach "${disk##*/}" 2>&1) && continue
	warn "$said"
	status=1
done
if [ "$status" -ne 0 ]; then
	# A server that does not answer costs 20 s each time.
	tries=0
	[ ! -e /run/nbd-attach.tries ] || read -r tries </run/nbd-attach.tries
	tries=$((tries + 1))
	echo "$tries" >/run/nbd-attach.tries
	[ "$tries" -lt 3 ] || status=0
fi
return "$status"
