#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
# A generator of units in the initramfs: systemd itself makes nothing of root=nbd:... The directory is the one whose units win.

# shellcheck source=/dev/null
command -v getarg >/dev/null || . /lib/dracut-lib.sh
# shellcheck source=../initramfs/functions
. /lib/nbd-attach-functions

dir=$2
[ -n "$dir" ] || exit 1
root=$(getarg root=)
spec=$root
case $root in
dhcp | dhcp6) # the second time it is known what that is
	[ -s /run/nbd-attach.root ] || exit 0
	read -r spec </run/nbd-attach.root
	root=$spec
	;;
esac
if ! nbd_asked "$root"; then
	# Any other root= is for systemd's own generator.
	[ -z "$root" ] || exit 0
	spec=$(getarg netroot=)
	nbd_asked "$spec" || spec=$(getarg nbdroot=)
	[ -n "$spec" ] || exit 0
fi
# An error is told where the command line is read.
nbd_parse "$spec" || exit 0
nbd_choose "$(getarg nbddev=)"

fstype=$(getarg rootfstype=) || fstype=$nbd_fstype
flags=$(getarg rootflags=) || flags=$nbd_flags
if getarg rw >/dev/null; then
	flags=${flags:+$flags,}rw
elif getarg ro >/dev/null; then
	flags=${flags:+$flags,}ro
fi

mkdir -p "$dir/initrd-root-fs.target.requires" "$dir/dev-$nbd_name.device.d"
{
	printf '%s\n' '[Unit]' 'Before=initrd-root-fs.target' \
		"Requires=systemd-fsck@dev-$nbd_name.service" \
		"After=systemd-fsck@dev-$nbd_name.service dracut-initqueue.service" \
		'[Mount]' 'Where=/sysroot' "What=/dev/$nbd_name"
	[ -z "$fstype" ] || echo "Type=$fstype"
	[ -z "$flags" ] || echo "Options=$flags"
} >"$dir/sysroot.mount"
ln -sf ../sysroot.mount "$dir/initrd-root-fs.target.requires/sysroot.mount"
# It is there when the server is; how long that may take is said elsewhere.
printf '%s\n' '[Unit]' 'JobTimeoutSec=0' 'JobRunningTimeoutSec=0' >"$dir/dev-$nbd_name.device.d/nbd-attach.conf"
exit 0
