#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
# images: initramfs-tools
# timeout: 1800
#
# Devices of the nbdtab, mounted by fstab, under a real systemd: attached by the boot, also from a server that is late, looked
# after again when a supervisor is killed, and detached after the unmount, so that what nobody has synced survives the poweroff.

# shellcheck disable=SC2317,SC2016 # t calls the functions; the guest expands
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

data=$work/data secret=$work/secret swap=$work/swap

# put PATH: standard input as a file on the root file system
put() {
	cat >"$work/put"
	debugfs -w "$disk" >/dev/null 2>&1 <<-END
		rm $1
		write $work/put $1
		set_inode_field $1 mode 0100${2:-644}
	END
}

prepare() {
	cp --sparse=always "$cache/root.ext4" "$disk" || return
	debugfs -w "$disk" >/dev/null 2>&1 <<-END
		mkdir /etc/systemd/system/nbd-attach@nbd1.service.d
		mkdir /etc/systemd/system/nbd-attach@.service.d
		mkdir /etc/systemd/system/network-online.target.wants
		symlink /etc/systemd/system/network-online.target.wants/net.service /etc/systemd/system/net.service
	END
	put /etc/nbdtab <<-'END'
		nbd0 10.0.2.2 data
		nbd1 uri=nbds://alice@10.0.2.2:10810/secret tls-psk-file=/run/credentials/nbd-attach@nbd1.service/psk
		nbd2 10.0.2.2 third noauto
		nbd3 10.0.2.2 wrong option
		nbd4 10.0.2.2 swap port=10811,swap
	END
	put /etc/fstab <<-'END'
		/dev/nbd0 /mnt ext4 _netdev 0 0
		/dev/disk/by-nbd/10.0.2.2:10810-secret /srv ext4 _netdev 0 0
		/dev/nbd2 /media ext4 _netdev,noauto 0 0
		/dev/nbd4 none swap nofail,x-systemd.after=nbd-attach@nbd4.service 0 0
	END
	put /etc/systemd/system/nbd-attach@nbd1.service.d/key.conf <<-'END'
		[Service]
		LoadCredential=psk:/etc/key.psk
	END
	put /etc/systemd/system/nbd-attach@.service.d/log.conf <<-'END'
		[Service]
		StandardError=journal+console
	END
	put /etc/key.psk 600 <"$cache/keys.psk"
	# The network goes down when its service stops, as that of a real machine may.
	put /etc/systemd/system/net.service <<-'END'
		[Unit]
		DefaultDependencies=no
		After=systemd-udevd.service systemd-udev-trigger.service
		Before=network.target network-online.target shutdown.target
		Conflicts=shutdown.target
		[Service]
		Type=oneshot
		RemainAfterExit=yes
		ExecStart=/bin/sh -c 'until ip link set eth0 up; do sleep 0.2; done; ip addr add 10.0.2.15/24 dev eth0'
		ExecStop=ip link set eth0 down
		[Install]
		WantedBy=network-online.target
	END
	truncate -s 128M "$data" "$secret" "$swap"
	mkswap "$swap" || return
	mkfs.ext4 -q -F -E nodiscard "$data" && mkfs.ext4 -q -F -E nodiscard "$secret"
}

# boot_disk IMAGE WORDS...: as boot, with the root on a disk of the machine's own.
boot_disk() {
	local image=$1

	shift
	start_guest "$image" "root=/dev/vda $*" -drive "file=$disk,format=raw,if=virtio,cache=unsafe"
}

serve_data() { serve_nbdkit 10809 file "$data"; }
serve_secret() { serve_nbdkit 10810 --tls=require --tls-psk="$cache/keys.psk" file "$secret"; }
active() { guest "systemctl is-active nbd-attach@$1" >/dev/null; }
main_pid() { guest "systemctl show -P MainPID nbd-attach@$1"; }
restarted() { [[ $(main_pid "$1") != "$2" ]] && active "$1"; }
# The console says "Unmounting /mnt..." and "Stopping nbd-attach@nbd0..." at the end.
line_of() { tr -d '\r' <"$tty" | grep -En -- "$1" | tail -n 1 | cut -d : -f 1; }
before() {
	local one two

	one=$(line_of "$1")
	two=$(line_of "$2")
	[[ -n $one && -n $two ]] && ((one < two)) && return
	echo "line ${one:-none}: $1; line ${two:-none}: $2"
	last_words 40
	return 1
}
# holds IMAGE: what was written last
holds() {
	debugfs -R "dump /late $work/late" "$1" >/dev/null 2>&1
	cmp "$work/late" <(yes "late $2" | head -c 30000000)
}

t "a root file system with an nbdtab and a fstab" prepare
t "a server" serve_data
t "one with swap" serve_nbdkit 10811 file "$swap"
boot_disk initramfs-tools
t "a server that is late" console 300 'nbd-attach.*10.0.2.2:10810: .*refused'
t "comes, and has TLS" serve_secret
t "multi-user" up 600
diag "up after $(since) s"
t "one is mounted" guest 'findmnt -n /mnt | grep /dev/nbd0'
t "the other one is, by its link, with a key from systemd" guest 'findmnt -n /srv | grep /dev/nbd1'
t "there is swap" guest 'grep /dev/nbd4 /proc/swaps || { systemctl status --no-pager dev-nbd4.swap; false; }'
t "what is noauto is not attached" guest '! /usr/sbin/nbd-attach --check nbd2'
t "a line that is wrong is in the journal" guest 'journalctl -b | grep "nbd-attach.*nbdtab: line 4: option option"'
t "they are confined" guest 'grep -q "^NoNewPrivs:.*1" /proc/$(systemctl show -P MainPID nbd-attach@nbd0)/status'
t "a mount asks for the device" guest '! mount /media 2>/dev/null; mkfs.ext4 -q /dev/nbd2 || systemctl start media.mount; nbd-attach --check nbd2'
guest 'systemctl stop media.mount nbd-attach@nbd2' >/dev/null
t "and it can be stopped" guest '! nbd-attach --check nbd2'

for device in nbd0 nbd1; do
	pid=$(main_pid $device)
	t "$device: its supervisor is killed" guest "kill -KILL $pid"
	t "$device: another one takes over" wait_for 90 restarted $device "$pid"
done
t "nothing has happened to what is mounted" guest 'echo x >/mnt/x && echo x >/srv/x && sync /mnt/x /srv/x && sed -n /x/p /mnt/x'
t "the service with TLS still has its device" guest 'nbd-attach --list -n -O TLS nbd1 | grep TLS'

t "a stop while it is mounted" guest 'systemctl stop --no-block nbd-attach@nbd0; sleep 4; echo y >/mnt/y && sync /mnt/y'
t "waits" guest '[ "$(systemctl is-active nbd-attach@nbd0)" = deactivating ]'
t "until that is over" guest 'umount /mnt; for i in $(seq 20); do sleep 0.5; systemctl is-active nbd-attach@nbd0 | grep -x inactive && break; done'
t "it is detached" guest '! nbd-attach --check nbd0'
t "started and mounted again" guest 'systemctl start mnt.mount && findmnt /mnt'

t "data that nobody syncs" guest 'echo 1000000 >/proc/sys/vm/dirty_writeback_centisecs; echo 90 >/proc/sys/vm/dirty_ratio
	echo 90 >/proc/sys/vm/dirty_background_ratio; for d in /mnt /srv; do yes "late $d" | head -c 30000000 >$d/late; done'
t "poweroff" guest 'systemctl poweroff --no-block'
t "the guest ends" ended 300
diag "ended after $(since) s"
for what in 'mnt nbd0' 'srv nbd1'; do
	t "/${what% *}: unmounted before ${what#* } stops" before "Unmounted .*/${what% *}" "Stopping .*/dev/${what#* }"
done
t "swap: off before nbd4 stops" before 'Deactivated .*/dev/nbd4' 'Stopping .*/dev/nbd4'
t "all before the network goes" before 'Stopped .*/dev/nbd[014]' 'Stopping .*net.service'
t "no I/O error" bash -c "! grep -aE '[Ii]/O error[, ]*(dev|on)|EXT4-fs error' '$tty'"
for what in "$data /mnt" "$secret /srv"; do
	t "${what#* }: the file system is clean" e2fsck -fn "${what% *}"
	t "${what#* }: what was written last is there" holds "${what% *}" "${what#* }"
done
finish
