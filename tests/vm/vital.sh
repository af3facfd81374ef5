#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# --root and --swap: the processes behind a device that they may live on themselves. All their memory is locked, they are not
# killed for memory, they reconnect when every file is gone, and the record goes on being kept.

# timeout: 600

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

a=${NBD_ATTACH:?the program to be tested}

field() { "$a" --list -n -O "$2" "$1" | tr -d ' '; }
is() {
	local value

	value=$(field "$1" "$2")
	[[ $value == "$3" ]] || { echo "$2 of $1 is '$value', not '$3'"; return 1; }
}
reads() { [[ $(timeout 20 dd if="/dev/$1" bs=4k count=1 iflag=direct | wc -c) == 4096 ]]; }
kib() { awk -v name="$2:" '$1 == name { print $2 }' "/proc/$1/status"; }
# all_of PID: it and all processes that come from it
all_of() {
	local child

	echo "$1"
	for child in $(pgrep -P "$1"); do
		all_of "$child"
	done
}
marked() { [[ $(head -c 1 "/proc/$1/cmdline") == @ ]]; }
is_user() { grep -Eq "^Uid:[[:space:]]*($2[[:space:]]*){4}$" "/proc/$1/status"; }
free_of() { [[ ! -e /sys/block/$1/pid ]]; }

# is_vital TEXT PID
is_vital() {
	local rss locked

	rss=$(kib "$2" VmRSS)
	locked=$(kib "$2" VmLck)
	diag "$1: ${locked} KiB locked, $rss KiB resident, $(awk '/^Private/ { n += $2 } END { print n }' "/proc/$2/smaps_rollup") KiB private"
	# but for what the kernel itself maps into all
	t "$1: all memory is locked" test $((locked + 16)) -ge "$rss"
	t "$1: it is not killed for memory" grep -qx -e -1000 "/proc/$2/oom_score_adj"
}

serve() { serve_nbdkit 10809 file /tmp/disk; }
restart() {
	t "$1: the server is killed" stop_server nbdkit:10809 KILL
	t "$1: and back" serve
}

modprobe nbd
make_disk /tmp/disk 64M
t "nbdkit" serve

# --- --root; no initramfs here

t "attach" "$a" --root localhost '' nbd0
s=$(field nbd0 SUPERVISOR)
is_vital supervisor "$s"
for pid in $(all_of "$s" | tail -n +2); do
	is_vital "negotiator $pid" "$pid"
	t "negotiator $pid: is nobody" is_user "$pid" 65534
	t "negotiator $pid: filtered" grep -Eq '^Seccomp:[[:space:]]*2$' "/proc/$pid/status"
done
t "it has no mark" bash -c "[[ \$(head -c 1 /proc/$s/cmdline) != @ ]]"
t "names are not looked up again: their file is gone" mount --bind /dev/null /etc/hosts
restart "--root"
t "the device answers" reads nbd0
umount /etc/hosts

# The one that talks to servers is replaced without any file.
talker=$(all_of "$s" | tail -n 1)
t "the negotiator is killed" kill -KILL "$talker"
t "another one is there" wait_for 5 bash -c "[[ \$(pgrep -P \$(pgrep -P $s)) != $talker ]] && pgrep -P \$(pgrep -P $s)"
restart "after that"
t "the device answers" reads nbd0

# What is opened from the loss to the first answer.
for pid in $(all_of "$s"); do
	strace -f -qq -o "/tmp/trace.$pid" -e trace=%file,openat,clone,fork,brk,mmap -p "$pid" &
done
sleep 3
restart "traced"
t "the device answers" reads nbd0
t "and is recorded" wait_for 5 is nbd0 RECONNECTS 3
pkill -INT strace
wait_for 5 bash -c '! pgrep strace'
cat /tmp/trace.* >/tmp/trace
# Allowed: what is relative to a descriptor (sysfs, the record); what the filter refuses.
absolute() {
	! grep -E 'AT_FDCWD|open\(|"/' /tmp/trace | grep -v EACCES
}
t "no file was opened by its path" absolute
t "the record was, by its directory" grep -Eq 'openat\([0-9]+, "\.nbd0"' /tmp/trace
allocates() {
	! grep -E 'brk|mmap' "/tmp/trace.$s"
}
t "the supervisor asked for no memory" allocates
diag "calls that open, fork or allocate, in all processes: $(grep -cE 'open|clone|brk|mmap' /tmp/trace)"
t "stopped and continued" kill -STOP "$s"
sleep 1
kill -CONT "$s"
t "SIGTERM" kill "$s"
t "detaches, as there is no mark" wait_for 15 free_of nbd0

# --- the mark, for systemd: all processes, all of root's, which keep none of its powers

(umask 077 && psktool -u alice -p /run/keys.psk >/dev/null 2>&1)
t "nbdkit with TLS" serve_nbdkit 10813 --tls=require --tls-psk=/run/keys.psk file /tmp/disk
t "attach with the mark, by a relay" "$a" --root --keep-at-shutdown --tls-offload no \
	--tls-psk-file /run/keys.psk localhost:10813 '' nbd0
s=$(field nbd0 SUPERVISOR)
t "the supervisor has it" marked "$s"
for pid in $(all_of "$s" | tail -n +2) $(pgrep -x nbd-relay); do
	t "process $pid has it" marked "$pid"
	t "process $pid is root" is_user "$pid" 0
	t "process $pid has no powers" grep -Eq '^CapEff:[[:space:]]*0+$' "/proc/$pid/status"
	t "process $pid: filtered" grep -Eq '^Seccomp:[[:space:]]*2$' "/proc/$pid/status"
	is_vital "process $pid" "$pid"
done
for signal in TERM INT HUP; do
	t "SIG$signal to the supervisor" kill -s $signal "$s"
	t "SIG$signal to the relay" kill -s $signal "$(pgrep -x nbd-relay)"
	t "SIG$signal to the negotiator" kill -s $signal "$(all_of "$s" | tail -n 1)"
done
t "is noted" wait_for 5 bash -c 'dmesg | grep -q "asked to stop by a signal, and stays"'
sleep 1
t "no more: the device answers" reads nbd0
t "it has never lost its connection" is nbd0 RECONNECTS 0
t "detach" "$a" -d nbd0
stop_server nbdkit:10813 KILL

# --- everything is gone: a supervisor whose root was left and emptied

cat >/tmp/initramfs.sh <<'END'
set -e
mount --make-rprivate /
mkdir -p /mnt/new
mount -t tmpfs new /mnt/new
mkdir -p /mnt/new/{bin,lib,lib64,usr,etc,run,dev,proc,sys,tmp,old,work,sbin}
for d in bin lib lib64 sbin usr etc dev proc sys run; do mount --rbind /$d /mnt/new/$d; done
mkdir -p "/mnt/new${1%/*}"
cp "$1" "/mnt/new$1"
cd /mnt/new
pivot_root . old
umount -l /old
touch /etc/initrd-release 2>/dev/null || { mkdir -p /tmp/etc; cp /etc/hosts /etc/passwd /etc/nsswitch.conf /tmp/etc; umount -l /etc; cp /tmp/etc/* /etc; touch /etc/initrd-release; }
"$1" --root localhost '' nbd0
# What switch_root(8) does: nothing is left in there.
exec umount -n -l /dev /sys /run /etc /sbin /lib64 /lib /bin /usr /proc
END
# From outside of that namespace, so that its files are not needed.
t "started in another root" unshare -m bash /tmp/initramfs.sh "$a"
s=$(field nbd0 SUPERVISOR)
t "in an initramfs it has the mark" marked "$s"
t "its root has nothing left" bash -c "! ls /proc/$s/root/usr/bin 2>/dev/null | grep ."
t "not even /run" bash -c "! ls /proc/$s/root/run 2>/dev/null | grep ."
for i in 1 2; do
	restart "without files, $i"
	t "without files, $i: the device answers" reads nbd0
	t "without files, $i: the record is kept" wait_for 5 is nbd0 RECONNECTS "$i"
	kill -KILL "$(all_of "$s" | tail -n 1)"
	sleep 0.5
done
t "SIGTERM" kill "$s"
t "is noted" wait_for 5 bash -c 'dmesg | grep -c "asked to stop by a signal, and stays" | grep -vqx 0'
t "detach, from here" "$a" -d nbd0
t "the supervisor is gone" wait_for 10 bash -c "! kill -0 $s"
t "nothing is left" bash -c 'ls -A /run/nbd-attach | (! grep .)'

# --- a Unix socket, of which the path is gone

mkdir -p /run/sockets
unix() { rm -f "$1/socket"; serve_nbdkit_unix "$1/socket" file /tmp/disk; }
t "nbdkit on a Unix socket" unix /run/sockets
t "attach" "$a" --root /run/sockets/socket '' nbd0
stop_server nbdkit:/run/sockets/socket KILL
mv /run/sockets /run/elsewhere
t "the same directory at another place" unix /run/elsewhere
t "the device answers" reads nbd0
t "detach" "$a" -d nbd0
finish
