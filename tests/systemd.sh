#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# What systemd gets: its own checks of the unit, and the units that the generator asks for. Runs in the build directory.

set -u
# shellcheck source-path=SCRIPTDIR source=tap.sh
. "${BASH_SOURCE[0]%/*}/tap.sh"

# --- the unit -------------------------------------------------------------------------------------

unit="$work/nbd-attach@.service"
sed -e "s|@sbindir@|$PWD|" -e "s|@statedir@|/run/nbd-attach|" -e "s|@nbdtab@|/etc/nbdtab|" \
	-e "s|@documentation@|man:nbd-attach(8) https://example.org/a|" \
	"$top/scripts/systemd/nbd-attach@.service.in" >"$unit"
ok "no place holder is left" '' "$(grep '@[a-z]*@' "$unit")"
if command -v systemd-analyze >/dev/null && [ -x /lib/systemd/systemd ]; then
	ok "systemd finds nothing to warn of" '' \
		"$(SYSTEMD_LOG_LEVEL=warning systemd-analyze verify --man=no "$work/nbd-attach@nbd0.service" 2>&1)"
	# Of what it does not want to be exposed to, 10 is all.
	exposure=$(systemd-analyze security --offline=yes "$unit" 2>&1 | sed -n 's/.*exposure level.*: \([0-9]*\)\..*/\1/p')
	ok "it is confined" yes "$([ -n "$exposure" ] && [ "$exposure" -lt 5 ] && echo yes || echo "exposure $exposure")"
else
	for what in "systemd finds nothing to warn of" "it is confined"; do
		count=$((count + 1))
		echo "ok $count - $what # SKIP no systemd-analyze here"
	done
fi
for line in 'Wants=remote-fs-pre.target' 'Before=remote-fs-pre.target' 'Before=shutdown.target' \
	'Conflicts=shutdown.target' 'SendSIGKILL=no' 'Type=notify'; do
	ok "the unit has $line, without which data is lost" 1 "$(grep -cx "$line" "$unit")"
done

# --- the generator ----------------------------------------------------------------------------------

ln -s "$PWD/nbd-attach" "$work/nbd-attach-generator" || exit 1

# generated: what is made of $work/nbdtab; what is said goes to $work/said.
generated() {
	rm -rf "$work/units"
	mkdir "$work/units"
	NBD_ATTACH_NBDTAB="$work/nbdtab" "$work/nbd-attach-generator" "$work/units" "$work/early" "$work/late" \
		2>"$work/said"
	status=$?
	(cd "$work/units" && find . -type l | sort)
	return "$status"
}
boot() { echo "./remote-fs.target.wants/nbd-attach@nbd$1.service"; }
mount() { echo "./dev-nbd$1.device.wants/nbd-attach@nbd$1.service"; }

got=$(generated)
ok "no nbdtab: nothing" '0' "$?$got"
ok "and nothing said" '' "$(cat "$work/said")"

: >"$work/nbdtab"
got=$(generated)
ok "an empty one: nothing" '0' "$?$got"

cat >"$work/nbdtab" <<'END'
# a comment
nbd0 server disk
nbd1	/run/s	x	unix,persist   # another
nbd12 uri=nbds://one/disk uri=nbds://two/disk tls-psk-file=/k,noauto
END
got=$(generated)
ok "good lines: it succeeds" 0 $?
ok "a mount asks for each, the boot for all but noauto" \
	"$({ mount 0; mount 1; mount 12; boot 0; boot 1; } | sort)" "$got"
ok "and says nothing" '' "$(cat "$work/said")"
ok "they lead to the unit" 'nbd-attach@.service' \
	"$(basename "$(readlink "$work/units/remote-fs.target.wants/nbd-attach@nbd0.service")")"

{
	printf 'nbd0 server disk\n'
	printf 'nbd1 server\nnbd2 server disk bogus\n../nbd3 server disk\nnbd4/../../x server disk\n'
	printf 'nbd5 server disk\nnbd5 server other\n'
	printf 'nbd6 a\0b disk\n%09000d\n\xff\xfe\n' 0
	printf 'nbd99999999999 server disk\nsda server disk\nnbd7 server disk'
} >"$work/nbdtab"
got=$(generated)
ok "garbage: it succeeds" 0 $?
ok "the good lines count" "$({ mount 0; mount 7; boot 0; boot 7; } | sort)" "$got"
ok "each of the others is told" 11 "$(grep -c '^nbd-attach-generator: .*nbdtab: line ' "$work/said")"
ok "nothing else is" 0 "$(grep -cv ': line ' "$work/said")"

head -c 100000 /dev/urandom >"$work/nbdtab"
got=$(generated)
ok "noise: it succeeds, without a unit" '0' "$?$got"

rm "$work/nbdtab"
mkdir "$work/nbdtab"
got=$(generated)
ok "a directory: an error" 1 $?
ok "that says so" 1 "$(grep -c 'Is a directory' "$work/said")"
rmdir "$work/nbdtab"

echo 'nbd0 server disk' >"$work/nbdtab"
"$work/nbd-attach-generator" 2>/dev/null
ok "called without systemd: wrong usage" 2 $?
NBD_ATTACH_NBDTAB="$work/nbdtab" "$work/nbd-attach-generator" "$work/nowhere" 2>"$work/said"
ok "a directory that there is not: an error" 1 $?

plan
