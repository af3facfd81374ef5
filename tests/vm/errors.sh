#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# Every way to fail has its own exit status and says why, ends in a bounded time and leaves
# nothing behind: no attached device, no record, no process.

# timeout: 900

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../hostile/lib.sh
. "${BASH_SOURCE[0]%/*}/../hostile/lib.sh"

# refused STATUS REGEX TEXT COMMAND...
refused() {
	local status=$1 regex=$2 text=$3

	shift 3
	t_fails "$status" "$text: exit $status" took "$@"
	t_says "$text: says why" "$regex"
	t "$text: nothing is left" nothing_left
}

# usage REGEX ARG...: whatever the arguments are, they are looked at before anything is done. No
# time limit of its own: it would double the time of each.
usage() {
	local regex=$1 text

	shift
	text="$*"
	t_fails 2 "wrong usage: ${text:0:60}" run_bare "$@"
	t_says "wrong usage is explained: ${text:0:60}" "^nbd-attach: .*$regex"
}
run_bare() { "$A" "$@"; }

to_full() { "$A" "$@" >/dev/full; }
contacted() { saw 12000 accepted; }
not_contacted() { ! contacted; }
module_loaded() { [[ -e /sys/module/nbd ]]; }
first_address() { [[ $(getent ahosts "$1") == "$2 "* ]]; }

install -m 755 "$A" /tmp/nbd-attach || bail "cannot copy the program"
modules=/lib/modules/$(uname -r)
mkdir /tmp/empty
make_disk /tmp/disk 16M
# Names come from /etc/hosts alone, until the silent name server.
echo 'hosts: files' >/etc/nsswitch.conf
dmesg_mark

t "servers that misbehave" serve_hostile 12001=absorb 12002=greet,absorb \
	12003=greet,flags,option,part,absorb 12004=greet,flags,option,info,absorb 12005=drip \
	12006=full 12007=text 12008=go 12009=go,junk 12010=go,absorb 12011=go,junk,absorb 12000=go,serve

# Without the privilege or the driver it is pointless to trouble a server.
refused 9 'CAP_SYS_ADMIN.*root' "not root" \
	setpriv --reuid=nobody --regid=nogroup --clear-groups /tmp/nbd-attach 127.0.0.1:12000 x nbd0
t "not root: the server is not contacted" not_contacted
t_fails 1 "not root: the module is not loaded" module_loaded
refused 9 'CAP_SYS_ADMIN' "root without CAP_SYS_ADMIN" \
	setpriv --bounding-set=-sys_admin "$A" 127.0.0.1:12000 x nbd0
t "root without CAP_SYS_ADMIN: the server is not contacted" not_contacted
if unshare -r true 2>/dev/null; then
	refused 9 'user namespace' "root of a user namespace" unshare -r "$A" 127.0.0.1:12000 x nbd0
	t "root of a user namespace: the server is not contacted" not_contacted
else
	skip "root of a user namespace" "this kernel has none"
fi
t "modules are hidden" mount --bind /tmp/empty "$modules"
refused 9 "no kernel module nbd.*$(uname -r)" "no nbd module" "$A" 127.0.0.1:12000 x nbd0
t "no nbd module: the server is not contacted" not_contacted
t_fails 1 "no nbd module: nothing to detach" "$A" --check nbd0
t_fails 8 "no nbd module: the device is not attached" "$A" --detach nbd0
t "modules are back" umount "$modules"
mkdir -p /etc/modprobe.d
echo 'install nbd /bin/false' >/etc/modprobe.d/no-nbd.conf
refused 9 'install command' "a module that must not be loaded" "$A" 127.0.0.1:12000 x nbd0
t "a module that must not be loaded: the server is not contacted" not_contacted
rm /etc/modprobe.d/no-nbd.conf

t_fails 1 "the module is not loaded so far" module_loaded
t "attach loads the module" "$A" 127.0.0.1:12000 x nbd0
t "it is loaded" module_loaded
t "that contacts the server" contacted
t "the device is attached" attached nbd0
t_fails 1 "--list to a full disk" to_full --list
t_says "--list to a full disk says why" 'write the output: No space left'
t_fails 1 "--list --json to a full disk" to_full --list --json
t_fails 1 "--check to a full disk" to_full --check nbd0
t "detach" "$A" --detach nbd0
t "nothing is left after that" nothing_left
t_fails 1 "--info to a full disk" to_full --info 127.0.0.1:12000 x
t_says "--info to a full disk says why" 'write the output: No space left'
t_fails 1 "--help to a full disk" to_full --help
t_fails 1 "--find --show to a full disk" to_full --find --show 127.0.0.1:12000 x
t "--find --show to a full disk leaves no device of unknown name" nothing_left
forget 12000

# The servers refuse.
t "nbdkit" serve_nbdkit 10809 --filter=exportname file /tmp/disk \
	exportname-strict=true exportname=disk
t "qemu-nbd" serve_qemu 10810 /tmp/disk -x disk
t "nbd-server" serve_nbdserver 10811 disk=/tmp/disk
for server in nbdkit:10809 qemu-nbd:10810 nbd-server:10811; do
	refused 4 'export "nosuch".*no such export.*nbd-attach --exports' \
		"${server%:*}: an export it does not have" "$A" "127.0.0.1:${server#*:}" nosuch nbd0
	t "${server%:*} is stopped" stop_server "$server" KILL
done

t "oldstyle nbdkit" serve_nbdkit 10812 -o memory 1M
refused 5 'oldstyle' "an oldstyle server" "$A" 127.0.0.1:10812 x nbd0
stop_server nbdkit:10812
refused 5 'greets with "SSH-2.0' "a server of another protocol" "$A" 127.0.0.1:12007 x nbd0

echo user:0123456789abcdef0123456789abcdef >/tmp/psk
t "nbdkit that requires TLS" serve_nbdkit 10813 --tls=require --tls-psk=/tmp/psk memory 1M
refused 6 'requires TLS' "a server that requires TLS" "$A" 127.0.0.1:10813 x nbd0
stop_server nbdkit:10813
refused 6 'key file /no/such: No such file' "TLS without its key" "$A" --tls-psk-file /no/such \
	nbds://127.0.0.1:12000/x nbd0
t "TLS without its key: the server is not contacted" not_contacted

# An export that cannot be a device.
t "odd exports" serve_nbdkit 10814 --filter=blocksize-policy memory 1000 blocksize-minimum=1 \
	blocksize-preferred=512
refused 1 '1000 bytes is not a multiple of the block size of 512' "an export of no whole blocks" \
	"$A" 127.0.0.1:10814 '' nbd0
stop_server nbdkit:10814
t "an empty export" serve_nbdkit 10815 memory 0
refused 1 'is empty' "an export of 0 bytes" "$A" 127.0.0.1:10815 '' nbd0
stop_server nbdkit:10815
refused 2 'from 512 to 4096' "a block size above the page size" \
	"$A" -b 8192 127.0.0.1:12000 x nbd0

# No server.
refused 3 '127\.0\.0\.1:10899: Connection refused' "nobody listens" "$A" 127.0.0.1:10899 x nbd0
refused 3 '/tmp/no-socket: No such file' "no such Unix socket" "$A" /tmp/no-socket x nbd0
refused 3 'no\.such\.host.*not known' "an unknown host" "$A" no.such.host x nbd0
refused 3 '^nbd-attach: false: ' "a command that ends at once" "$A" --find --command -- false

# One address of two is dead: packets to it vanish.
t "a network that swallows packets" ip link add dead0 type dummy
t "it has an address" ip address add fd00:dead::1/64 dev dead0 nodad
t "it is up" ip link set dead0 up
printf '%s\n' 'fd00:dead::2 dead twofold' '127.0.0.1 twofold' >>/etc/hosts
t "the dead address comes first" first_address twofold fd00:dead::2
refused 3 'connect: not done within 1 s' "a dead address alone" \
	"$A" --connect-timeout 1 dead:12000 x nbd0
t "a dead address alone: within the time limit" took_from_to 1000 8000
t "a host whose first address is dead" took "$A" twofold:12000 x nbd0
t "a host whose first address is dead: attached long before the time limit" took_from_to 250 5000
t "a host whose first address is dead: attached" attached nbd0
t "a host whose first address is dead: detach" "$A" --detach nbd0

# A name server that is silent.
echo 'hosts: dns' >/etc/nsswitch.conf
echo 'nameserver fd00:dead::3' >/etc/resolv.conf
refused 3 'look up its addresses: not done within 1 s' "a name server that is silent" \
	"$A" --connect-timeout 1 host.example x nbd0
t "a name server that is silent: within the time limit" took_from_to 1000 8000
echo 'hosts: files' >/etc/nsswitch.conf

# Servers that stop at any point of the handshake.
stalls() {
	refused 3 "$1" "$2" "$A" --connect-timeout 1 "127.0.0.1:$3" x nbd0
	t "$2: within the time limit" took_from_to 1000 8000
}
stalls 'connect: not done within 1 s' "a server with a full backlog" 12006
stalls 'waiting for its greeting' "a server that is silent" 12001
stalls 'waiting for its greeting' "a server that sends a byte a second" 12005
stalls 'waiting for NBD_OPT_GO' "a server that stops after the greeting" 12002
stalls 'waiting for NBD_OPT_GO' "a server that stops within a reply" 12003
stalls 'waiting for NBD_OPT_GO' "a server that stops between two replies" 12004

# Servers that complete it and then fail.
refused 3 'the server closed the connection' "a server that closes after the handshake" \
	"$A" --connect-timeout 20 127.0.0.1:12008 x nbd0
t "a server that closes after the handshake: noticed, not timed out" took_from_to 0 8000
refused 3 'what the kernel cannot read' "a server that sends junk after the handshake" \
	"$A" --connect-timeout 20 127.0.0.1:12009 x nbd0
t "a server that sends junk after the handshake: noticed, not timed out" took_from_to 0 8000
refused 3 'what the kernel cannot read' "a server that sends junk and keeps the connection" \
	"$A" --connect-timeout 20 127.0.0.1:12011 x nbd0
t "a server that sends junk and keeps the connection: noticed" took_from_to 0 8000
refused 3 'does not answer the first read within 2 s' "a server that never answers a request" \
	"$A" --connect-timeout 2 127.0.0.1:12010 x nbd0
t "a server that never answers a request: within the time limit" took_from_to 2000 8000
t "a server that never answers a request: it sees the end" wait_for 5 saw 12010 end

# Usage.
forget 12000
h=127.0.0.1:12000
printf -v long '%4097s' ''
usage 'no HOST or URI'
usage 'HOST, EXPORT and DEVICE' $h nbd0
usage 'needed' $h x
usage 'too many operands' $h x nbd0 nbd1
usage '/dev/sda is no nbd device' $h x /dev/sda
usage 'nbd0p1 is no nbd device.*whole disk' $h x /dev/nbd0p1
usage 'is no nbd device' $h x nbd
usage 'is no nbd device' $h x nbd99999999999
usage 'is no nbd device' $h x ''
usage 'unknown option.*frobnicate' --frobnicate $h x nbd0
usage 'unknown option -Z' -Z $h x nbd0
usage 'needs an argument' $h x nbd0 -b
usage 'block-size 1000: a power of two' -b 1000 $h x nbd0
usage 'block-size 256: a power of two' -b 256 $h x nbd0
usage 'block-size -1: a number' -b -1 $h x nbd0
usage 'block-size 4Q: a number' -b 4Q $h x nbd0
usage 'block-size : a number' -b '' $h x nbd0
usage 'timeout -1: a number' -t -1 $h x nbd0
usage 'timeout 5x: a number' -t 5x $h x nbd0
usage 'dead-timeout x: a number' --dead-timeout x $h x nbd0
usage 'connect-timeout 0: seconds' --connect-timeout 0 $h x nbd0
usage 'connect-timeout nan: seconds' --connect-timeout nan $h x nbd0
usage '--show is for --find' --show $h x nbd0
usage '--find chooses the device' --find $h x nbd0
usage 'force has no meaning when attaching' --force $h x nbd0
usage 'json has no meaning when attaching' --json $h x nbd0
usage 'read-only has no meaning with --detach' --detach -r nbd0
usage 'connect-timeout has no meaning with --list' --list --connect-timeout 3
usage 'detach and --list exclude each other' --detach --list nbd0
usage 'no DEVICE' --detach
usage '/dev/null is no nbd device' --detach nbd0 /dev/null
usage 'one DEVICE' --check nbd0 nbd1
usage 'NOSUCH' --list -O NOSUCH
usage 'after --' --command nbd0
usage 'after --' --command nbd0 --
usage 'start /no/such/program: No such file' --command nbd0 -- /no/such/program
usage 'longer than 4096 bytes' $h "$long" nbd0
usage 'is not UTF-8' $h $'\xff' nbd0
usage 'http' http://$h/x nbd0
usage 'socket' nbd+unix:///x nbd0
usage '70000' 127.0.0.1:70000 x nbd0
t "wrong usage: the server was never contacted" not_contacted
t "wrong usage: nothing is left" nothing_left

t "after all that the device works" "$A" $h x nbd0
t "it can be read" head -c 4096 /dev/nbd0
t "and detached" "$A" --detach nbd0
t "nothing is left in the end" nothing_left
t "the kernel has survived it" kernel_survived
finish
