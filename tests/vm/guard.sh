#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
# timeout: 600
#
# What each server that there is says about several connections, and what becomes of them: all that
# permit them get them, none is taken for qemu 3.0. The table in the output has the flags that count.

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

a=${NBD_ATTACH:?the program to be tested}
row='%-70s %-5s %-5s %-5s %s'
permitted=0 asked=0

modprobe nbd nbds_max=2
make_disk /tmp/disk 16M
cp --sparse=always /tmp/disk /tmp/disk2
qemu-img create -q -f qcow2 /tmp/disk.qcow2 16M
printf 'label: dos\n2048,,L\n' | sfdisk -q /tmp/disk2
echo '0 8M' >/tmp/extents

said() { [[ ,$flags, == *,$1,* ]] && echo yes || echo no; }

# check NAME ADDRESS EXPORT: two connections, where the server permits them.
check() {
	local name=${1//--filter=/+} flags status=0 result n mc cache ro

	flags=$("$a" --info -n -O FLAGS "$2" "$3") || flags="$flags?"
	mc=$(said CAN_MULTI_CONN) cache=$(said SEND_CACHE) ro=$(said READ_ONLY)
	"$a" -C 2 --connect-timeout 10 "$2" "$3" nbd0 >/tmp/said 2>&1 || status=$?
	n=$(sed -n 's/^connections=//p' /run/nbd-attach/nbd0 2>/dev/null)
	result="${n:-no} connections"
	((!status)) || result="refused ($status)"
	# shellcheck disable=SC2059 # the same for all
	diag "$(printf "$row" "$name" "$mc" "$cache" "$ro" "$result")"
	if [[ $mc == yes ]]; then
		permitted=$((permitted + 1))
		[[ $cache == yes || $ro == yes ]] || asked=$((asked + 1))
		lib_report $((status == 0 && ${n:-0} == 2)) "$name: permits two, has two" /tmp/said
	else
		lib_report $((status == 10)) "$name: does not permit two, is refused" /tmp/said \
			"flags $flags, exit status $status"
	fi
	grep -q 'qemu 3\.0' /tmp/said
	lib_report $(($? == 1)) "$name: is not taken for qemu 3.0" /tmp/said
	((status)) || "$a" -d nbd0 >/dev/null || bail "cannot detach"
}

kit() {
	if ! serve_nbdkit 10809 "$@" >/tmp/said 2>&1; then
		lib_report 0 "nbdkit $*: starts" /tmp/said
		return
	fi
	check "nbdkit $*" localhost ''
	stop_server nbdkit:10809 KILL
}

qemu() {
	if ! serve_qemu 10810 "$@" >/tmp/said 2>&1; then
		lib_report 0 "qemu-nbd $*: starts" /tmp/said
		return
	fi
	shift
	check "qemu-nbd $*" localhost:10810 ''
	stop_server qemu-nbd:10810 KILL
}

# shellcheck disable=SC2059
diag "$(printf "$row" 'server' 'MULTI' 'CACHE' 'R/O' '-C 2')"

# nbdkit has NBD_CMD_CACHE for nearly every plugin: emulated, or its own.
kit memory 16M
kit -r memory 16M
kit file /tmp/disk
kit split /tmp/disk /tmp/disk

# Filters that have to do with caches or connections,
for filter in cache 'cache cache-on-read=true' cow 'cow cow-on-cache=true' \
	'nocache cachemode=none' 'nocache cachemode=emulate' 'nocache cachemode=nop' readahead \
	cacheextents 'multi-conn multi-conn-mode=emulate' 'multi-conn multi-conn-mode=disable' \
	'multi-conn multi-conn-mode=unsafe' 'noparallel serialize=connections' \
	'noparallel serialize=all-requests'; do
	# shellcheck disable=SC2086 # words: the filter and its arguments
	set -- $filter
	name=$1
	shift
	kit "--filter=$name" memory 16M "$@"
done
kit --filter=cache --filter=readahead --filter=cow file /tmp/disk
kit --filter=cow --filter=cache file /tmp/disk
kit --filter=cache --filter=multi-conn memory 16M multi-conn-mode=emulate
kit --filter=nocache --filter=cache memory 16M cachemode=none
# and all the others.
kit --filter=blocksize --filter=delay --filter=error --filter=exportname --filter=ip --filter=log \
	--filter=limit memory 16M rdelay=1ms exportname= logfile=/dev/null limit=2
kit --filter=stats --filter=noextents --filter=nofilter --filter=nozero --filter=offset \
	--filter=pause memory 16M statsfile=/dev/null pause-control=/tmp/pause
kit --filter=protect --filter=rate --filter=retry --filter=retry-request --filter=scan \
	--filter=swab --filter=truncate --filter=fua memory 16M protect=0-511 rate=100M \
	round-up=4096 fuamode=emulate
kit --filter=checkwrite --filter=extentlist --filter=partition --filter=blocksize-policy \
	file /tmp/disk2 partition=1 extentlist=/tmp/extents blocksize-minimum=4096

# qemu's own, today.
qemu /tmp/disk
qemu /tmp/disk -e 2
qemu /tmp/disk -e 8
qemu /tmp/disk -r -e 2
for cache in writethrough writeback unsafe; do
	qemu /tmp/disk -e 2 --cache=$cache
done
qemu /tmp/disk.qcow2 -f qcow2 -e 2
qemu /tmp/disk -e 2 --discard=unmap --detect-zeroes=unmap

t "nbd-server" serve_nbdserver 10811 plain=/tmp/disk flush=/tmp/disk,flush=true \
	fua=/tmp/disk,flush=true,fua=true ro=/tmp/disk,readonly=true \
	cow=/tmp/disk,copyonwrite=true trim=/tmp/disk,trim=true splice=/tmp/disk,splice=true
for export in plain flush fua ro cow trim splice; do
	check "nbd-server $export" localhost:10811 $export
done
stop_server nbd-server:10811 KILL

# The guard was needed to tell all these from qemu 3.0, and not to do anything else.
diag "$permitted servers permit several connections, $asked of these were asked for NBD_CMD_CACHE"
t "some were asked" test $asked -gt 5
t "no errors in the kernel's log" no_kernel_errors
finish
