#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# Called as nbd-client this program does what nbd-client does: the same command lines for both, side by side, and
# their exit statuses, what a script reads from standard output, and the device compared.

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../hostile/lib.sh
. "${BASH_SOURCE[0]%/*}/../hostile/lib.sh"

real=$(type -P nbd-client) || skip_all "there is no nbd-client"
mkdir /tmp/ours
ln -s "$A" /tmp/ours/nbd-client
ours=/tmp/ours/nbd-client

modprobe nbd nbds_max=4
make_disk /tmp/disk 16M
t "a server" serve_nbdserver 10809 rootfs=/tmp/disk other=/tmp/disk,readonly=true
t "one with a default export" serve_nbdkit 10810 memory 4M
t "one on a Unix socket" serve_nbdkit_unix /tmp/socket memory 8M

# outcome_of PROGRAM FILE WORD...: in FILE the status, the last line of stdout, and the device after it.
outcome_of() {
	local program=$1 file=$2 status=0

	shift 2
	timeout 30 "$program" "$@" >/tmp/stdout 2>/tmp/stderr || status=$?
	{
		echo "status $status"
		((status)) || tail -n 1 <(grep . /tmp/stdout)
		if wait_for 1 attached nbd0; then
			echo "attached $(</sys/block/nbd0/size) ro $(</sys/block/nbd0/ro)" \
				"block $(</sys/block/nbd0/queue/logical_block_size)"
		fi
	} >"$file"
	sed 's/^/stderr: /' /tmp/stderr
}

detach() {
	attached nbd0 || return 0
	"$real" -d /dev/nbd0 >/dev/null
	wait_for 10 detached nbd0
}

both() {
	outcome_of "$real" /tmp/outcome.real "$@" || return
	detach || return
	outcome_of "$ours" /tmp/outcome.ours "$@" || return
	detach || return
	diff /tmp/outcome.real /tmp/outcome.ours
}

# same STATUS WORD...
same() {
	local status=$1

	shift
	t "nbd-client $*" both "$@"
	t "  ends with $status" grep -qx "status $status" /tmp/outcome.ours
}

same 0 127.0.0.1 -N rootfs /dev/nbd0 -b 512
t "  it is attached" grep -q '^attached 32768' /tmp/outcome.ours
t "  it says so" grep -qx 'Connected /dev/nbd0' /tmp/outcome.ours
same 0 127.0.0.1 10809 /dev/nbd0 -name other -block-size 4096
t "  read-only" grep -q 'ro 1 block 4096' /tmp/outcome.ours
same 0 -R 127.0.0.1 10810 /dev/nbd0
t "  read-only" grep -q 'ro 1' /tmp/outcome.ours
same 0 -unix /tmp/socket /dev/nbd0
same 0 -N '' -u /tmp/socket -b 1024 /dev/nbd0 -C 2
same 0 ::1 10810 /dev/nbd0 -timeout 10 bs=2048
t "  with the block size" grep -q 'block 2048' /tmp/outcome.ours
same 1 127.0.0.1 -N bogus /dev/nbd0
same 1 127.0.0.1 1 -N rootfs /dev/nbd0
same 1 127.0.0.1 10810 /dev/sda
same 1 -bogus
same 1
same 1 127.0.0.1 10810 /dev/nbd0 -P
same 1 127.0.0.1 10810 /dev/nbd0 what=4
same 1 -c /dev/nbd0
same 1 -check nbd0
same 1 -c /dev/nowhere
same 0 -d /dev/nbd0
same 0 -h
t "-help" "$ours" -help
t_says "tells dracut of -systemd-mark" 'systemd-mark'
same 1 nbd3

# --- one is attached by ours

t "the call of Debian's initramfs script, with bs= of LTSP" \
	"$ours" 127.0.0.1 -N rootfs 10809 /dev/nbd0 -persist -b 512
t_says "says so" '^Connected /dev/nbd0$'
busy() {
	local status=0

	"$real" 127.0.0.1 10810 /dev/nbd0 -N '' || status=$?
	((status == 1)) || return
	status=0
	"$ours" 127.0.0.1 10810 /dev/nbd0 -N '' || status=$?
	((status == 1))
}
t "a busy device is a failure for both" busy
t "-check of both is the same" diff <("$real" -c nbd0 | grep .) <("$ours" -c nbd0)
t "and of a partition" diff <("$real" -c /dev/nbd0p1 | grep .) <("$ours" -c /dev/nbd0p1)
t "it has a supervisor" test -n "$("$A" --list -n -O SUPERVISOR nbd0 | tr -d ' ')"
t "it can be adopted" "$A" --adopt nbd0
t "-d" "$ours" -d /dev/nbd0
t "detached" detached nbd0
t "without -persist" "$ours" 127.0.0.1 -N rootfs /dev/nbd0
t "there is none" test -z "$("$A" --list -n -O SUPERVISOR nbd0 | tr -d ' ')"
t "mounted" eval 'mkfs.ext4 -q -F /dev/nbd0 && mount /dev/nbd0 /mnt'
t_fails 1 "a mounted device is not detached" "$ours" -d /dev/nbd0
t "unmounted" umount /mnt
t "then it is" "$ours" -d nbd0

t "any device" "$ours" 127.0.0.1 10810
t_says "is named" '^Connected /dev/nbd[0-9]+$'
t "detached" "$ours" -d nbd0
t "the words of -nonetlink" "$ours" -nonetlink -persist 127.0.0.1 -N rootfs /dev/nbd0 -b 1024
t_says "are those of the ioctl form" '^bs=1024, sz=16777216 bytes$'
t "detached" "$ours" -d nbd0

lists() {
	"$1" -l 127.0.0.1 | tail -n +2 | grep . | sort
}
t "both list the same" diff <(lists "$real") <(lists "$ours")
t "and there is something to list" test "$(lists "$ours" | wc -l)" = 2

cat >/tmp/nbdtab <<'END'
nbd1 127.0.0.1 rootfs bs=512
nbd2 127.0.0.1 rootfs persist,allow-overlap
END
tab=$("$A" --help | sed -n 's/.*--nbdtab .*instead of //p')
t "a directory for it" mkdir -p "${tab%/*}"
t "the nbdtab" cp /tmp/nbdtab "$tab"
t "a device by its name" "$ours" nbd1
t_says "says so" '^Connected /dev/nbd1$'
t "without persist there is no supervisor" test -z "$("$A" --list -n -O SUPERVISOR nbd1 | tr -d ' ')"
t "another one" "$ours" /dev/nbd2
t "with it there is one" test -n "$("$A" --list -n -O SUPERVISOR nbd2 | tr -d ' ')"
t "detached" "$ours" -d nbd1
t "detached" "$ours" -d nbd2
t "nothing is left" nothing_left
finish
