#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
# timeout: 600
#
# The rules for udev: links by the names of exports, on recorded devices and on real ones; what is linked, that
# nothing leads out of its directory, and that all goes with the detach.

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

a=${NBD_ATTACH:?the program to be tested}
top=$(cd "${BASH_SOURCE[0]%/*}/../.." && pwd)
record=/run/nbd-attach
by_nbd=/dev/disk/by-nbd

[[ -x /lib/systemd/systemd-udevd ]] || skip_all "there is no udev here"

# As they are installed, and to where udev looks.
make_rules() {
	mkdir -p /run/udev/rules.d && ln -sf "$a" /usr/local/sbin/nbd-attach &&
		sed -e "s|@statedir@|$record|" -e 's|@sbindir@|/usr/local/sbin|' \
			"$top/scripts/udev/61-nbd-attach.rules.in" >/run/udev/rules.d/61-nbd-attach.rules &&
		! grep @ /run/udev/rules.d/61-nbd-attach.rules
}
t "the rules" make_rules

# --- recorded devices -----------------------------------------------------------------------------

# recorded TREE NAME: the tree as a /sys that udevadm can read, and what the rules make of nbd0 (or its partition
# NAME) in it, in /tmp/events.
recorded() {
	local to=/tmp/sys.$1 disk

	disk=$to/devices/virtual/block/nbd0
	mkdir -p "$disk" "$to/block" "$to/class/block" &&
		cp -r "$top/tests/unit/data/sysfs/$1/block/nbd0/." "$disk" &&
		printf 'MAJOR=43\nMINOR=0\nDEVNAME=nbd0\nDEVTYPE=disk\n' >"$disk/uevent" || return
	ln -sfn ../devices/virtual/block/nbd0 "$to/block/nbd0"
	ln -sfn ../../../../class/block "$disk/subsystem"
	for name in "$disk"/nbd0p*; do
		[[ -d $name ]] || continue
		ln -sfn ../../../../../class/block "$name/subsystem"
		printf 'MAJOR=43\nMINOR=%s\nDEVNAME=%s\nDEVTYPE=partition\nPARTN=%s\n' "${name##*p}" "${name##*/}" \
			"${name##*p}" >"$name/uevent"
	done
	[[ -z ${3:-} ]] || printf '%s\n' "$3" >"$disk/backend"
	# shellcheck disable=SC2016 # another shell's
	unshare -m bash -c '
		mount --bind "$1" /sys && mkdir -p /tmp/rules &&
		cp /run/udev/rules.d/61-nbd-attach.rules /tmp/rules && mount --bind /tmp/rules /usr/lib/udev/rules.d &&
		export SYSTEMD_DEVICE_VERIFY_SYSFS=0 && shift
		for device; do udevadm test --action=change "$device" 2>&1 || exit; done' \
		recorded "$to" "/sys/devices/virtual/block/nbd0" ${2:+"/sys/devices/virtual/block/nbd0/$2"} >/tmp/events
}
links() { sed -n 's/^DEVLINKS=//p' /tmp/events | tail -n 1; }
# made LINKS TREE [NAME] [BACKEND]
made() {
	local expected=$1

	shift
	recorded "$@" || { cat /tmp/events; return 1; }
	[[ $(links) == "$expected" ]] || { echo "expected $expected"; cat /tmp/events; return 1; }
}

tree_pid() { cat "$top/tests/unit/data/sysfs/$1/block/nbd0/pid"; }
mkdir -p $record
t "recorded, idle: no link" made '' idle
t "recorded, set up by ioctl: no link" made '' ioctl
backend=$(cat "$top/tests/unit/data/sysfs/backend/block/nbd0/backend")
diag "$backend"
t "recorded, of another program with an identifier of its own: no link" made '' backend '' 'something/../else'
t "recorded, without our file: a link by the identifier" \
	made "$by_nbd/127.0.0.1:10809-a\x2fb\x20c" attached '' 'nbd://127.0.0.1:10809/a/b%20c'
t "recorded, an export that would lead out of the directory" \
	made "$by_nbd/h:10809-..\x2f..\x2fetc" attached '' 'nbd://h:10809/../../etc'
# shellcheck disable=SC2016
t "recorded, an export that would be a rule" \
	made "$by_nbd/h:10809-\x24env\x7bPATH\x7d\x22\x25k" attached '' 'nbd://h:10809/$env%7BPATH%7D%22%25k'
echo 'NBD_ATTACH_ALIAS=from:1-file' >"$record/nbd0.$(tree_pid attached).udev"
t "recorded, with our file: the link by it" made "$by_nbd/from:1-file" attached
t "recorded, a partition" made "$by_nbd/one:1-part-part2" partitions nbd0p2 'nbd://one:1/part'
rm -f $record/*.udev
echo 'NBD_ATTACH_ALIAS=of:1-another' >$record/nbd0.1.udev
t "recorded, a file of another process counts for nothing" \
	made "$by_nbd/h:10809-x" attached '' 'nbd://h:10809/x'
rm -rf $record /run/udev/data /run/udev/links $by_nbd

# --- real devices -----------------------------------------------------------------------------------

uuid=3f9a52d4-76c1-4f0e-9d3b-0c5c1d2e7a11
names() { (shopt -s nullglob; cd $by_nbd 2>/dev/null || exit 0; echo ./*) | sed 's|\./||g'; }
names_are() {
	udevadm settle -t 60
	[[ $(names) == "$*" ]] || { names; return 1; }
}
leads() { [[ $(readlink -f "$by_nbd/$1") == "/dev/$2" ]] || { ls -l "$by_nbd"; return 1; }; }
property() { udevadm info -q property -n "$1" | sed -n "s/^$2=//p"; }
no_record_left() { [[ -z $(ls "$record") ]] || { ls -la "$record"; return 1; }; }

modprobe nbd nbds_max=3 max_part=15
make_disk /tmp/gpt 32M
make_disk /tmp/plain 32M
sfdisk -q /tmp/gpt <<<$'label: gpt\nsize=8M\nsize=16M\n'
mkfs.ext4 -q -F -U $uuid -L whole /tmp/plain
t "a server" serve_nbdserver 10809 gpt=/tmp/gpt plain=/tmp/plain
t "a server of any name" serve_nbdkit 10810 memory 4M
t "one on a socket" serve_nbdkit_unix /tmp/socket memory 4M
t "udevd" start_udevd

t "attach" "$a" localhost gpt nbd0
t "links to the disk and its partitions" \
	names_are localhost:10809-gpt localhost:10809-gpt-part1 localhost:10809-gpt-part2
t "to the disk" leads localhost:10809-gpt nbd0
t "to a partition" leads localhost:10809-gpt-part2 nbd0p2
t "systemd may use the disk" test "$(property nbd0 SYSTEMD_READY)" = ''
t "the program knows the name too" test "$("$a" --list -n -O LINK nbd0)" = localhost:10809-gpt
t "settled" udevadm settle -t 60
t "the device's links do not flap: nobody opened it for writing" \
	bash -c '! udevadm info -q property -n nbd0p2 | grep ACTION=remove'
t "a file system by its UUID on another device" "$a" localhost plain nbd1
t "udev is done" udevadm settle -t 60
t "the link by UUID is there" test -b /dev/disk/by-uuid/$uuid
t "and by label" test -b /dev/disk/by-label/whole
t "both have their links" leads localhost:10809-plain nbd1
t "detach" "$a" -d nbd0 nbd1
t "the links are gone" names_are
t "so is the one by UUID" test ! -e /dev/disk/by-uuid/$uuid
t "and by label" test ! -e /dev/disk/by-label/whole
t "systemd may not use the disk" test "$(property nbd0 SYSTEMD_READY)" = 0
t "nothing is left" no_record_left

is_cut() { [[ $(names) =~ ^localhost:10810-.*=[0-9a-f]{16}$ ]] || { names; return 1; }; }

# Whatever is in a name.
# shellcheck disable=SC2016
for row in 'a/b c|a\x2fb\x20c' '../../../../etc/passwd|..\x2f..\x2f..\x2f..\x2fetc\x2fpasswd' '.|.' \
	'a" SYMLINK+="sda|a\x22\x20SYMLINK+=\x22sda' '$kernel %k|\x24kernel\x20\x25k' $'two\nlines|two\\x0alines' \
	'grün|gr\xc3\xbcn' '\x2f|\x5cx2f' "$(printf %0300d 0 | tr 0 /)|"; do
	name=${row%|*}
	shown=${name:0:40}
	t "\"${shown//$'\n'/\\n}\": attach" "$a" localhost:10810 "$name" nbd0
	udevadm settle -t 60
	if [[ -n ${row##*|} ]]; then
		t "has its link" names_are "localhost:10810-${row##*|}"
	else
		t "has a link that was cut" is_cut
	fi
	t "that leads to it" leads "$(names)" nbd0
	t "it is detached" "$a" -d nbd0
	t "the link is gone" names_are
done
t "no link elsewhere" bash -c '! find /dev -path /dev/block -prune -o -path /dev/disk/by-diskseq -prune -o -type l -lname "*nbd0*" -print | grep .'

t "a free device, chosen by the kernel" "$a" -f localhost:10810 found
t "has its link" names_are localhost:10810-found
t "detach" "$a" -d nbd0
t "a socket" "$a" /tmp/socket x nbd0
t "has its link" names_are '\x2ftmp\x2fsocket-x'
t "detach" "$a" -d nbd0
t "the default export" "$a" localhost:10810 '' nbd0
t "has its link" names_are 'localhost:10810'
t "a record that is lost: the link stays" bash -c "rm -f $record/*.udev; udevadm trigger -c change -s block; udevadm settle"
t "by what the kernel has" names_are localhost:10810
t "detach" "$a" -d nbd0
t "no link" names_are
t "nbd-client's device" nbd-client localhost 10809 /dev/nbd0 -N plain
t "has none" names_are
t "nbd-client -d" nbd-client -d /dev/nbd0
t "a command" "$a" --command nbd0 -- nbdkit -s --exit-with-parent memory 1M
t "has none" names_are
t "detach" "$a" -d nbd0

# Its supervisor is killed, and what is there belongs to an attachment that is over.
t "attach" "$a" localhost:10810 old nbd0
t "its supervisor is killed" kill -KILL "$("$a" --list -n -O SUPERVISOR nbd0 | tr -d ' ')"
t "another program detaches it" nbd-client -d /dev/nbd0
t "no link" names_are
t "attach something else" "$a" localhost:10810 new nbd0
t "a link to that" names_are localhost:10810-new
t "adopted" "$a" --adopt nbd0
udevadm trigger -c change -s block
t "it has kept its link" names_are localhost:10810-new
t "detach" "$a" -d nbd0
t "nothing is left" wait_for 10 no_record_left
t "no errors in the kernel's log" no_kernel_errors

finish
