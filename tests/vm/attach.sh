#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
# timeout: 900
#
# An export can be attached, used and detached: each server over each transport, in each way to say
# where it is. What is written arrives in the server's file, and nothing is left behind.

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

disk=/tmp/disk
size=$((32 << 20))
dev=/dev/nbd0

none_running() { no_process "$OURS"; }
# A supervisor and its negotiator.
two_running() { running "$OURS" 2; }
# running PATTERN COUNT
running() {
	pids_of "$1"
	((${#PIDS[@]} == $2)) || { echo "${#PIDS[@]} processes $1"; return 1; }
}

# gone DEVICE: nothing of the attachment is there any more.
gone() {
	local name=${1#/dev/} status=0 left

	[[ ! -e /sys/block/$name/pid ]] || { echo "$name is attached"; status=1; }
	left=$(</sys/block/"$name"/size)
	[[ $left == 0 ]] || { echo "$name has $left sectors"; status=1; }
	[[ ! -e /run/nbd-attach/$name ]] || { echo "$name has a record"; status=1; }
	none_running || status=1
	return "$status"
}

# fio_verify DEVICE: random writes, 16 at a time, all read back and compared.
fio_verify() {
	timeout "$T_LIMIT" fio --name=verify --filename="$1" --ioengine=libaio --direct=1 --thread \
		--rw=randwrite --bs=8k --size=2m --iodepth=16 --verify=crc32c --do_verify=1 \
		--verify_fatal=1 --output=/tmp/fio.out >/tmp/fio.err 2>&1 && return
	cat /tmp/fio.err /tmp/fio.out
	return 1
}

# file_system DEVICE: a file in a new file system outlives an umount.
file_system() {
	mkfs.ext4 -q -F "$1" && mount "$1" /mnt || return
	cp /tmp/pattern /mnt/file || return
	umount /mnt && e2fsck -fn "$1" && mount -o ro "$1" /mnt || return
	cmp /tmp/pattern /mnt/file || return
	umount /mnt
}

# server_has FILE: its file system is sound and has the file that was written to the device.
server_has() {
	e2fsck -fn "$1" || return
	debugfs -R 'cat /file' "$1" 2>/dev/null | cmp - /tmp/pattern
}

# write_last DEVICE: through the page cache, and nobody asks for a flush.
write_last() {
	dd if=/tmp/pattern of="$1" bs=1M seek=8 conv=notrunc status=none
}

written() { cmp -n 4194304 -i 0:$((8 << 20)) /tmp/pattern "$1"; }

has_size() {
	local have

	have=$(blockdev --getsize64 "$1") || return
	[[ $have == "$2" ]] || { echo "$have bytes"; return 1; }
}

# full_round TEXT ARG...: attach to $dev with these arguments before it and use it in every way.
full_round() {
	local text=$1

	shift
	# Zeros again, but never shorter: its server has it open.
	fallocate -p -o 0 -l $size $disk
	t "$text: attach" "$NBD_ATTACH" "$@" $dev
	t "$text: it has the export's size at once" has_size $dev $size
	t "$text: its two processes stay" two_running
	t "$text: random writes are read back" fio_verify $dev
	t "$text: a file system holds a file" file_system $dev
	t "$text: the file is in the server's file" server_has $disk
	t "$text: write once more, without a sync" write_last $dev
	t "$text: detach" "$NBD_ATTACH" -d $dev
	t "$text: nothing is left" gone $dev
	t "$text: what was written last is in the server's file" written $disk
}

# short_round TEXT ARG...: the same place told in another way.
short_round() {
	local text=$1

	shift
	t "$text: attach" "$NBD_ATTACH" "$@" $dev
	t "$text: the data is that of the server" cmp -n 4194304 $dev $disk
	t "$text: detach" "$NBD_ATTACH" -d $dev
	t "$text: nothing is left" gone $dev
}

[[ -n ${NBD_ATTACH:-} ]] || bail 'NBD_ATTACH is not set'
diag "kernel $(uname -r)"
head -c 4194304 /dev/urandom >/tmp/pattern
t "modprobe nbd" modprobe nbd nbds_max=4
# A name for each family, and one whose first address nobody listens on.
printf '%s\n' '127.0.0.1 four.test' '::1 six.test' '127.0.0.9 many.test' '127.0.0.1 many.test' \
	>>/etc/hosts
dmesg_mark

make_disk $disk $size
t "nbdkit serves" serve_nbdkit 10809 file $disk
full_round "nbdkit, HOST EXPORT over 127.0.0.1" 127.0.0.1 ''
full_round "nbdkit, URI over ::1" 'nbd://[::1]/'
short_round "nbdkit, URI over 127.0.0.1" nbd://127.0.0.1
short_round "nbdkit, HOST EXPORT over ::1" ::1 ''
short_round "nbdkit, HOST EXPORT by name" localhost ''
short_round "nbdkit, URI by a name that is only IPv6" nbd://six.test/
t "nbdkit stops" stop_server nbdkit:10809
t "nbdkit serves on one address" serve_nbdkit 10809 -i 127.0.0.1 file $disk
short_round "nbdkit, by a name whose first address refuses" many.test ''
t "nbdkit stops" stop_server nbdkit:10809

t "nbdkit serves on a Unix socket" serve_nbdkit_unix /tmp/socket file $disk
full_round "nbdkit, HOST EXPORT over a Unix socket" /tmp/socket ''
short_round "nbdkit, URI over a Unix socket" 'nbd+unix:///?socket=/tmp/socket'
t "nbdkit stops" stop_server nbdkit:/tmp/socket

# The last close of a device writes its page cache out, but only a flush makes a server keep it.
t "a server that counts flushes" serve_nbdkit 10809 --filter=stats file $disk statsfile=/tmp/stats
t "a detach flushes: attach" "$NBD_ATTACH" localhost '' $dev
t "a detach flushes: write without a sync" write_last $dev
t "a detach flushes: detach" "$NBD_ATTACH" -d $dev
t "a detach flushes: nbdkit stops" stop_server nbdkit:10809
t "a detach flushes: the server was told" grep '^flush: [1-9]' /tmp/stats
t "a detach flushes: nothing is left" gone $dev

t "qemu-nbd serves" serve_qemu 10810 $disk -x 'a disk'
full_round "qemu-nbd, URI over 127.0.0.1" nbd://127.0.0.1:10810/a%20disk
short_round "qemu-nbd, HOST EXPORT over 127.0.0.1" 127.0.0.1:10810 'a disk'
short_round "qemu-nbd, by name" four.test:10810 'a disk'
t "qemu-nbd stops" stop_server qemu-nbd:10810
t "qemu-nbd serves on IPv6" serve_qemu 10810 $disk -x 'a disk' -b ::1
full_round "qemu-nbd, HOST EXPORT over ::1" '[::1]:10810' 'a disk'
short_round "qemu-nbd, URI by name" nbd://six.test:10810/a%20disk
t "qemu-nbd stops" stop_server qemu-nbd:10810

t "qemu-nbd serves on a Unix socket" \
	lib_serve qemu-nbd:/tmp/socket unix_listening /tmp/socket \
	lib_start qemu-nbd -t -k /tmp/socket -f raw -x disk $disk
full_round "qemu-nbd, URI over a Unix socket" 'nbd+unix:///disk?socket=/tmp/socket'
short_round "qemu-nbd, HOST EXPORT over a Unix socket" /tmp/socket disk
t "qemu-nbd stops" stop_server qemu-nbd:/tmp/socket

t "nbd-server serves" serve_nbdserver 10811 other=/proc/version disk=$disk,flush=true
full_round "nbd-server, HOST EXPORT over 127.0.0.1" 127.0.0.1:10811 disk
full_round "nbd-server, URI over ::1" 'nbd://[::1]:10811/disk'
short_round "nbd-server, by name" localhost:10811 disk
t "nbd-server stops" stop_server nbd-server:10811

printf '%s\n' '[generic]' 'unixsock = /tmp/socket.nbd-server' 'allowlist = true' \
	'[disk]' "exportname = $disk" >/tmp/nbd-server.config
t "nbd-server serves on a Unix socket" \
	lib_serve nbd-server:/tmp/socket.nbd-server unix_listening /tmp/socket.nbd-server \
	lib_start_nbdserver /tmp/nbd-server.config
full_round "nbd-server, HOST EXPORT over a Unix socket" /tmp/socket.nbd-server disk
short_round "nbd-server, URI over a Unix socket" 'nbd+unix:///disk?socket=/tmp/socket.nbd-server'
t "nbd-server stops" stop_server nbd-server:/tmp/socket.nbd-server

# A server that is a command of ours.

# The attachment's pid file names the process that stays, and it is the command's parent.
stays_as_parent() {
	local pid stat ours

	pid=$(</sys/block/"${dev#/dev/}"/pid)
	running "${NBD_ATTACH##*/}" 1 || return
	ours=${PIDS[0]}
	[[ $pid == "$ours" ]] || { echo "pid $pid, running is $ours"; return 1; }
	running nbdkit 1 || return
	stat=$(<"/proc/${PIDS[0]}/stat")
	[[ ${stat##*) } == [A-Z]" $ours "* ]] || { echo "parent: $stat"; return 1; }
}
lets_go() {
	local pid fd status=0

	pid=$(</sys/block/"${dev#/dev/}"/pid)
	for fd in 0 1 2; do
		[[ $(readlink "/proc/$pid/fd/$fd") == /dev/null ]] || status=1
	done
	[[ $(readlink "/proc/$pid/cwd") == / ]] || status=1
	((status == 0)) || ls -l "/proc/$pid/fd" "/proc/$pid/cwd"
	return "$status"
}
nothing_left() {
	wait_for 10 none_running
	wait_for 10 running nbdkit 0
	gone "$dev"
}

text="--command"
rm -f $disk
make_disk $disk $size
command=("$NBD_ATTACH" --command "$dev" -- nbdkit -s --exit-with-parent file "$disk")
t "$text: attach" "${command[@]}"
t "$text: it has the export's size at once" has_size $dev $size
t "$text: one process stays, the command's parent" stays_as_parent
t "$text: it holds no terminal, pipe or directory of the caller" lets_go
t "$text: random writes are read back" fio_verify $dev
t "$text: a file system holds a file" file_system $dev
t "$text: the file is in the server's file" server_has $disk
t "$text: write once more, without a sync" write_last $dev
t "$text: detach" "$NBD_ATTACH" -d $dev
t "$text: neither command nor parent nor anything else is left" nothing_left
t "$text: what was written last is in the server's file" written $disk

# Not with t alone: it has the output in a file, which nobody waits for.
# shellcheck disable=SC2016 # the other shell's arguments
t "$text: a command substitution of the caller ends" timeout 20 bash -c 'out=$("$@" 2>&1) &&
	[[ -z $out ]]' bash "${command[@]}"
t "$text: it is attached" has_size $dev $size
t "$text: detach" "$NBD_ATTACH" -d $dev
t "$text: nothing is left" nothing_left
# shellcheck disable=SC2016
t "$text: a pipeline of the caller ends" timeout 20 bash -c '"$@" 2>&1 | cat' bash "${command[@]}"
t "$text: it is attached" has_size $dev $size
t "$text: detach" "$NBD_ATTACH" -d $dev
t "$text: nothing is left" nothing_left

# shellcheck disable=SC2016 # the server's variables
t "$text with an export's name: attach" "$NBD_ATTACH" --command 'second one' $dev -- \
	nbdkit -s --exit-with-parent eval get_size='echo 1M' \
	open='echo "<$3>"' pread='test "$2" = "<second one>" && head -c $3 /dev/zero'
t "$text with an export's name: it can be read" cmp -n 1048576 $dev /dev/zero
t "$text with an export's name: detach" "$NBD_ATTACH" -d $dev
t "$text with an export's name: nothing is left" nothing_left

t_fails 3 "a command that dies at once" \
	"$NBD_ATTACH" --command $dev -- sh -c 'echo no disk today >&2; exit 1'
t_says "the error has its words" 'no disk today'
t "nothing is left of it" nothing_left
t_fails 3 "a command that cannot open its file" \
	"$NBD_ATTACH" --command $dev -- nbdkit -s --exit-with-parent file /tmp/absent
t_says "the error has its words" '/tmp/absent: No such file or directory'
t "nothing is left of it" nothing_left
t_fails 2 "a command that does not exist" "$NBD_ATTACH" --command $dev -- /tmp/absent
t_says "the error says which" '/tmp/absent: No such file or directory'
t "nothing is left of it" nothing_left
t_fails 5 "a command that speaks something else" \
	"$NBD_ATTACH" --command $dev -- sh -c 'echo HTTP/1.0 400 Bad Request; sleep 60'
t "nothing is left of it" nothing_left
t "no errors in the kernel's log" no_kernel_errors

# The connection is lost, which the kernel does log.
t "the command is killed under a device: attach" "${command[@]}"
pids_of nbdkit
t "the command is killed under a device: kill" kill -KILL "${PIDS[-1]}"
t "the command is killed under a device: its parent ends" wait_for 10 none_running
t_fails 1 "the command is killed under a device: an I/O error, not a wait" \
	dd if=$dev of=/dev/null bs=4k count=1 iflag=direct
t_fails 1 "the command is killed under a device: no detach, as nothing can be flushed" \
	"$NBD_ATTACH" -d $dev
t "the command is killed under a device: forced detach" "$NBD_ATTACH" -d --force $dev
t "the command is killed under a device: nothing is left" nothing_left

finish
