# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# For the scripts that `run` runs: what tests/vm/lib.sh has, for servers on this side, and
#
#   boot IMAGE WORDS...           starts a guest with this initramfs, its root on $disk, WORDS on the kernel's command line
#   start_guest IMAGE WORDS ARG...    the same, but for the disk; ARGs are QEMU's
#   own_network                   the guest's network is not QEMU's, whose DHCP has no root path, but this side's, with the
#                                 same address; the script is skipped where that cannot be
#   serve_dhcp [OPTION]...        there; name udhcpd, options as its configuration has them
#   console SECONDS REGEX         waits for a line on the guest's console (extended, case counts)
#   guest COMMAND                 in the guest, when it is up: prints its output, returns its status
#   up SECONDS                    waits for multi-user.target; prints how long it took
#   ended SECONDS                 waits for the end of the guest
#   serve PORT [ARG]...      nbdkit with $disk on a port; stop_server nbdkit:PORT
#   load_start; load_ok SECONDS   the guest reads and writes: without an error, and goes on with both within this time
#   outage SECONDS PORT [ARG]...  the server is killed and comes back after this time
#   clean                         the file system on $disk, when the guest is gone
#   synced                        the last thing that the guest synced and told us is on $disk
#
# The server is "10.0.2.2" for the guest, and any name in .nbd.test.

cache=$BOOT_CACHE
work=$PWD/tests/boot/$BOOT_NAME.tmp
rm -rf "$work"
mkdir -p "$work" || exit 99
# Not of the process: each of these scripts is the first one in its namespace.
LIB_DIR=$work/lib

# shellcheck source-path=SCRIPTDIR source=../vm/lib.sh
. "${BASH_SOURCE[0]%/*}/../vm/lib.sh"

disk=$work/disk
tty=$work/console
guest_pid=''
netdev=user,id=net,ipv6=off
# A guest that is gone reads nothing any more.
trap "" PIPE
release=$(<"$cache/release")
# shellcheck disable=SC2034 # for scripts: what a server has for TLS
psk=(--tls=require "--tls-psk=$cache/keys.psk") x509=(--tls=require "--tls-certificates=$cache/pki")

bash -c 'exec "$1"' - "${BASH_SOURCE[0]%/*}/nameserver" &

boot() {
	local image=$1

	shift
	cp --sparse=always --reflink=auto "$cache/root.ext4" "$disk" || bail "no disk"
	case $image in
	dracut*) # its shutdown unpacks this
		debugfs -w -R "write $cache/$image boot/initrd.img-$release" "$disk" >/dev/null 2>&1 || bail "no initrd in the root"
		;;
	esac
	start_guest "$image" "$*"
}

# See tests/vm/boot for what makes an emulated machine bearable.
start_guest() {
	local image=$1 words=$2 cpu args

	shift 2
	cpu=max,vendor=GenuineIntel,family=6,model=94,-erms,-monitor,-smap,-smep,-pku,-la57
	args="console=ttyS0 panic=-1 random.trust_cpu=on mitigations=off norandmaps tsc=reliable no_timer_check net.ifnames=0 rw $words"
	rm -f "$work"/ctl.*
	mkfifo "$work/ctl.in" "$work/ctl.out" || bail "no FIFO"
	: >"$tty"
	boot_start=$EPOCHREALTIME
	qemu-system-x86_64 -no-user-config -nodefaults -display none -no-reboot -machine pc \
		-accel tcg,thread=multi -cpu "$cpu" -smp 2 -m 1024 \
		-serial "file:$tty" -chardev "pipe,id=ctl,path=$work/ctl" -serial chardev:ctl \
		-netdev "$netdev" ${BOOT_DUMP:+-object filter-dump,id=dump,netdev=net,file=$work/net.pcap} -device virtio-net-pci,netdev=net,romfile= \
		-kernel "$cache/vmlinuz" -initrd "$cache/$image" -append "$args" "$@" </dev/null >"$work/qemu.log" 2>&1 &
	guest_pid=$!
	exec {to_guest}>"$work/ctl.in" {from_guest}<"$work/ctl.out"
}

own_network() {
	ip tuntap add dev tap0 mode tap 2>"$work/tap.log" || skip_all "no tap device: $(<"$work/tap.log")"
	ip address add 10.0.2.2/24 dev tap0 || bail "no address"
	ip link set tap0 up || bail "no network"
	netdev=tap,id=net,ifname=tap0,script=no,downscript=no
}

udp_listening() { ss -Hlun "sport = :$1" | grep -q .; }
serve_dhcp() {
	printf '%s\n' 'interface tap0' 'start 10.0.2.15' 'end 10.0.2.15' 'siaddr 10.0.2.2' 'opt subnet 255.255.255.0' "${@/#/opt }" \
		"lease_file $work/leases" "pidfile $work/udhcpd.pid" >"$work/udhcpd.conf"
	: >"$work/leases"
	lib_serve udhcpd udp_listening 67 lib_start busybox udhcpd -f "$work/udhcpd.conf"
}

# since: how long ago the guest was started.
since() {
	local tenths=$(((${EPOCHREALTIME/./} - ${boot_start/./}) / 100000))

	echo "${tenths%?}.${tenths: -1}"
}

console_has() { tr -d '\r' <"$tty" | grep -Eq -- "$1"; }
guest_gone() { ! kill -0 "$guest_pid" 2>/dev/null; }
console_or_gone() { console_has "$1" || guest_gone; }
last_words() {
	tr -d '\r' <"$tty" | tail -n "${1:-25}" | cut -c 1-200
	cat "$work/qemu.log"
}

console() {
	wait_for "$1" console_or_gone "$2"
	console_has "$2" && return
	echo "not on the console: $2; the last lines of it:"
	last_words 40
	return 1
}

up() {
	console "$1" 'AGENT: ' || return
	console_has 'AGENT: active running' && return
	tr -d '\r' <"$tty" | grep AGENT
	# shellcheck disable=SC2016 # expanded there
	guest 'systemctl --failed --no-legend; systemctl status --no-pager $(systemctl --failed --no-legend --plain | cut -d " " -f 1)'
	return 1
}

# guest COMMAND: answered within $guest_limit seconds.
guest() {
	local line

	printf '%s\n' "$1" >&"$to_guest"
	while IFS= read -r -t "${guest_limit:-180}" -u "$from_guest" line; do
		line=${line%$'\r'}
		if [[ $line == '= '* ]]; then
			return "${line#= }"
		fi
		printf '%s\n' "$line"
	done
	echo "no answer from the guest to: $1"
	return 1
}

ended() {
	wait_for "$1" guest_gone && return
	echo "the guest is still there; the last lines of its console:"
	last_words 40
	return 1
}

serve() {
	local port=$1

	shift
	serve_nbdkit "$port" "$@" file "$disk"
}

load_start() {
	guest "(setsid boot-load </dev/null >/dev/null 2>&1 &)" && console 180 "SYNCED 3"
}

synced_last() { tr -d '\r' <"$tty" | sed -n 's/^.*SYNCED \([0-9][0-9]*\)$/\1/p' | tail -n 1; }
more_synced() {
	local last

	last=$(synced_last)
	((${last:-0} >= $1))
}

load_ok() {
	local last

	last=$(synced_last)
	wait_for "$1" more_synced $((last + 3)) || {
		echo "nothing was synced for $1 s; the last lines of the console:"
		last_words
		return 1
	}
	guest '! grep -n bad /run/load'
}
# The longest wait of a read or a write, in seconds.
longest() { guest "sort -n -k 3 /run/load | tail -n 1 | cut -d ' ' -f 3; sort -n -k 4 /run/load | tail -n 1 | cut -d ' ' -f 4" | sort -n | tail -n 1; }

outage() {
	local secs=$1 port=$2

	shift
	stop_server "nbdkit:$port" KILL
	sleep "$secs"
	serve "$@"
}

clean() { e2fsck -fn "$disk"; }
synced() {
	local have want

	want=$(synced_last)
	have=$(debugfs -R 'cat /var/load' "$disk" 2>/dev/null)
	echo "synced $want, on the disk $have"
	[[ -n $want && $have -ge $want ]]
}

# marked: the supervisor, the keeper of keys and the one that connects; systemd spares those with a mark.
marked() {
	local count

	count=$(guest "grep -las ^@ /proc/[0-9]*/cmdline | wc -l")
	echo "$count processes"
	((count == 3))
}

# power_off: asks for it and waits until systemd has begun.
power_off() {
	guest 'systemctl poweroff --no-block' && console 120 'Stopp(ing|ed)|Removed slice'
}

# come_up: to multi-user.target
come_up() {
	t "multi-user" up 600
	diag "up after $(since) s"
	t "its supervisor and two more are marked" marked
}

# go_down SECONDS PORT [ARG]...: without a server at first, with which it ends within this time
go_down() {
	t "the poweroff begins" power_off
	t "the server is away for 8 s" outage 8 "${@:2}"
	t "the guest ends" ended "$1"
	diag "ended after $(since) s"
	t "the file system is clean" clean
	t "the last sync is there" synced
}

# live SECONDS PORT [ARG]...: with a server that goes for a while under a busy root, and again when it goes down
live() {
	t "reads and writes" load_start
	t "the server is away for 10 s" outage 10 "${@:2}"
	t "no error" load_ok 150
	diag "longest wait: $(longest) ms"
	go_down "$@"
}

# dracut_lives PORT [ARG]...: the same, and it goes back into its image at the end. It may have to unpack that.
dracut_lives() {
	live 800 "$@"
	t "the root was unmounted" console_has 'Unmounted /oldroot'
}
detached() { console_has 'block nbd0: NBD_DISCONNECT'; }

# dracut_by_tls IMAGE URI ARG...: dracut with a name and a key out of the image, whatever configures its network
dracut_by_tls() {
	local image=$1 uri=$2

	shift 2
	boot "$image" "root=$uri rootfstype=ext4 rd.neednet=1 ip=dhcp"
	t "it says what it waits for" console 300 'nbd-attach: .*one.nbd.test.*refused'
	t "the server comes" serve 10809 "$@"
	come_up
	t "encrypted" guest 'nbd-attach --list -n -O TLS nbd0 | grep TLS'
	dracut_lives 10809 "$@"
	t "the device was detached" detached
}
