#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
# shellcheck disable=SC3043 # "local": dash and busybox have it
# Sourced in each turn of dracut's main loop: tries again as long as it may last, and calls dracut's handler where the network
# is systemd-networkd's, which does not.

# networkd_online: prints the interface that is up.
nbd_attach_networkd() {
	local link name

	systemctl --quiet is-active systemd-networkd.service || systemctl --no-block start systemd-networkd.service
	for link in /run/systemd/netif/links/*; do
		[ -e "$link" ] || continue
		grep -q '^OPER_STATE=routable' "$link" || continue
		for name in /sys/class/net/*; do
			[ "$(cat "$name/ifindex" 2>/dev/null)" = "${link##*/}" ] || continue
			if [ ! -s /etc/resolv.conf ]; then
				sed -n 's/^DNS=//p' "$link" | tr ' ' '\n' | sed '/./!d; s/^/nameserver /' >/etc/resolv.conf
			fi
			echo "${name##*/}"
			return
		done
	done
}

nbd_attach_settled() {
	# shellcheck source=../initramfs/functions
	command -v nbd_parse >/dev/null || . /lib/nbd-attach-functions
	[ -e "$nbd_tab" ] || return 0
	read -r nbd_name _ <"$nbd_tab"
	! nbd-attach --check "$nbd_name" >/dev/null 2>&1 || return 0

	nbd_clock
	[ -n "$nbd_attach_start" ] || nbd_attach_start=$nbd_now
	if [ -e /tmp/nbd-attach.online ]; then
		/sbin/nbdattachroot '' '' '' && return 0
	elif [ -e /tmp/nbd-attach.networkd ]; then
		nbd_one=$(nbd_attach_networkd)
		[ -z "$nbd_one" ] || /sbin/netroot "$nbd_one"
	fi

	nbd_rest=$(getarg nbdwait=)
	nbd_is_number "$nbd_rest" || nbd_rest=180
	nbd_clock
	if [ -e /tmp/nbd-attach.failed ] ||
		{ [ "$nbd_rest" -gt 0 ] && [ $((nbd_now - nbd_attach_start)) -ge "$nbd_rest" ]; }; then
		if [ -e /tmp/nbd-attach.failed ]; then
			nbd_said=$(cat /tmp/nbd-attach.failed)
		elif [ -e /tmp/nbd-attach.online ]; then
			nbd_said="no server in $nbd_rest s (nbdwait=)"
		else
			nbd_said="no network in $nbd_rest s (nbdwait=)"
		fi
		# Whoever leaves the shell wants another try.
		rm -f /tmp/nbd-attach.failed
		emergency_shell -n nbd-attach "nbd-attach: cannot attach $nbd_name as root file system: ${nbd_said#nbd-attach: }"
		nbd_attach_start=
	fi
	# It is us who say how long this may take.
	# shellcheck disable=SC2034
	main_loop=0
	return 0
}
nbd_attach_settled
