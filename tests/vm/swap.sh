#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# Swap on a device whose server is killed and restarted while its users have more memory than they may keep. The processes that
# look after the device are among them: one that needed memory to reconnect would wait for itself.
#
# Usage: swap.sh [RESTARTS]

# timeout: 400

# shellcheck disable=SC2317 # t calls the functions
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

a=${NBD_ATTACH:?the program to be tested}
rounds=${1:-3}
group=/run/cgroup/hogs

# In memory that is never swapped: its own would wait for itself.
mkdir /run/never
mount -t ramfs never /run/never
serve() { serve_nbdkit 10809 --swap file /run/never/swap; }

mem() { awk -v name="$1:" '$1 == name { print int($2 / 1024) }' /proc/meminfo; }
swapped() { (($(mem SwapTotal) - $(mem SwapFree) >= $1)); }
reconnected() { (($("$a" --list -n -O RECONNECTS nbd0) >= $1)); }

# hog MIB END: takes that much memory, each page with a number of its own, and looks at all of it again and again until
# END is there. Prints how often.
cat >/tmp/hog <<'END'
my ($mib, $end) = @ARGV;
my @chunk;
for my $n (1 .. $mib) {
	$chunk[$n - 1] = ' ' x 1048576;
	substr($chunk[$n - 1], 4096 * $_, 4096) = pack('N', $n * 256 + $_) x 1024 for 0 .. 255;
}
my $rounds = 0;
open my $ready, '>', "$end.$$";
until (-e $end && $rounds) {
	for my $n (1 .. $mib) {
		for my $page (0 .. 255) {
			die "wrong: chunk $n, page $page\n"
				if substr($chunk[$n - 1], 4096 * $page + 4 * $page, 4) ne pack('N', $n * 256 + $page);
		}
	}
	$rounds++;
}
print "$rounds\n";
END

modprobe nbd
dmesg_mark
mkdir /run/cgroup
make_group() {
	mount -t cgroup2 none /run/cgroup && echo +memory >/run/cgroup/cgroup.subtree_control && mkdir "$group"
}
make_group || skip_all "no memory cgroups"
echo 64M >"$group/memory.max"
truncate -s 128M /run/never/swap
mkswap /run/never/swap >/dev/null 2>&1
t "nbdkit" serve
# in_group COMMAND...
in_group() { bash -c 'echo $$ >"$1/cgroup.procs" && shift && exec "$@"' - "$group" "$@"; }
t "attach" in_group "$a" --swap localhost '' nbd0
t "swapon" swapon /dev/nbd0
t "it is there" test "$(mem SwapTotal)" -ge 127
hogs=()
for _ in 1 2; do
	in_group perl /tmp/hog 48 /tmp/end >>/tmp/hog.out 2>&1 &
	hogs+=($!)
done
all_ready() { [[ $(find /tmp -name 'end.*' | wc -l) == 2 ]]; }
t "96 MiB are in use where 64 are permitted" wait_for 100 all_ready
t "some of it is swapped" wait_for 60 swapped 16
for ((i = 1; i <= rounds; i++)); do
	stop_server nbdkit:10809 KILL
	sleep 1
	t "the server is killed and back, $i" serve
	t "connected again, $i" wait_for 60 reconnected "$i"
	sleep 2
done
diag "$(($(mem SwapTotal) - $(mem SwapFree))) MiB swapped, $(awk '/^pswp/ { printf "%s %s ", $1, $2 }' /proc/vmstat)pages"
t "its processes are in the same group" bash -c "grep -qx $("$a" --list -n -O SUPERVISOR nbd0 | tr -d ' ') $group/cgroup.procs"
t "nobody was killed for memory" grep -qx 'oom_kill 0' "$group/memory.events"
touch /tmp/end
for hog in "${hogs[@]}"; do
	t "all memory is as it was written" wait "$hog"
done
diag "each looked at all of its own this often: $(tr '\n' ' ' </tmp/hog.out)"
t "swapoff" swapoff /dev/nbd0
t "detach" "$a" -d nbd0
t "no errors in the kernel's log" no_kernel_errors
finish
