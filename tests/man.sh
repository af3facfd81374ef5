#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
# The manual is correct mdoc, and has all that the program has. Runs in the build directory.
set -u
dir=${srcdir:-.}/man

if ! command -v mandoc >/dev/null; then
	echo "1..0 # SKIP mandoc is not installed"
	exit 0
fi

count=0
# check TEXT PROBLEMS
check() {
	count=$((count + 1))
	if [ -z "$2" ]; then
		echo "ok $count - $1"
	else
		echo "not ok $count - $1"
		printf '# %s\n' "${2//$'\n'/$'\n'# }"
	fi
}

# page NAME SECTION...: the sections that it has.
page() {
	local name=$1 lint text section missing=

	shift
	# The examples are near the top on purpose, where a reader looks first.
	lint=$(mandoc -Tlint -Wwarning "$dir/$name" 2>&1 | grep -v 'sections out of conventional order: Sh FILES$')
	check "$name: mandoc finds nothing to warn of" "$lint"
	# A page can be free of warnings and empty.
	text=$(mandoc -Tascii "$dir/$name" 2>/dev/null | sed 's/.\x08//g')
	for section in "$@"; do
		grep -q "^$section\$" <<<"$text" || missing="$missing '$section'"
	done
	check "$name: it has the usual sections" "${missing:+missing:$missing}"
}

page nbd-attach.8 NAME SYNOPSIS DESCRIPTION 'EXIT STATUS' EXAMPLES 'SEE ALSO'
page nbd-attach-boot.7 NAME SYNOPSIS DESCRIPTION EXAMPLES 'KERNEL COMMAND LINE' KEYS FILES 'SEE ALSO'

# What the scripts read from the kernel's command line is in the manual, and the other way round.
boot=${srcdir:-.}/scripts
used=$(sed -n 's/^\tnbd\([a-z]*\)=\*).*/nbd\1/p' "$boot/initramfs-tools/local-top.in"
	grep -ho 'getargs* nbd[a-z]*=' "$boot"/dracut/* | sed 's/.* //; s/=//')
told=$(sed -n 's/^\.It Cm \(nbd[a-z]*\)=.*/\1/p' "$dir/nbd-attach-boot.7"
	sed -n 's/^\.It .*Cm \(nbd[a-z]*\)= .*/\1/p' "$dir/nbd-attach-boot.7")
check "nbd-attach-boot.7: it has the arguments that the scripts read" \
	"$(diff <(sort -u <<<"$used") <(sort -u <<<"$told"))"

# What it says of messages is what the scripts print, but for numbers and words in capitals.
messages=$(sed -n '/^\.Sh DIAGNOSTICS/,/^\.Sh SEE/s/^\.It "\(.*\)"$/\1/p' "$dir/nbd-attach-boot.7")
[ "$(wc -l <<<"$messages")" -gt 8 ] || messages='no messages'
unknown=
while IFS= read -r message; do
	pattern=$(sed 's/^nbdroot=VALUE: //; s/[].*[]/\\&/g; s/[0-9][0-9]*\|VALUE\|nbd0\|WORD/..*/g' <<<"$message")
	[ -n "$pattern" ] && grep -qr -- "$pattern" "$boot/initramfs" "$boot/initramfs-tools" "$boot/dracut" || unknown="$unknown$message"$'\n'
done <<<"$messages"
check "nbd-attach-boot.7: its messages are those of the scripts" "$unknown"

page=$dir/nbd-attach.8
options=$(./nbd-attach --help | sed -nE 's/^ {1,5}(-[A-Za-z],)? ?--([a-z-]+).*/\2/p' | sort)
[ "$(wc -l <<<"$options")" -gt 40 ] || options='--help shows no options'
items() { grep '^\.It Fl' | tr ' ' '\n' | sed -nE 's/^-([a-z][a-z-]+)$/\1/p' | sort -u; }
documented=$(items <"$page")
check "nbd-attach.8: every option is in it" "$(comm -23 <(echo "$options") <(echo "$documented"))"

# The rows of the table that have the place, by all their names, and what is the nbdtab's alone.
rows=$(tr '\n' ' ' <"${srcdir:-.}/src/policy/settings.c" | grep -oE '\{ "[a-z-]+", [^}]*\}' |
	grep -E ' (ATTACHING|SUPERVISION|TLS|TLS_ATTACHED),| = (ATTACH|NETWORK)\b')
tab=$(sed -nE 's/^\{ "([a-z-]+)".*/\1/p' <<<"$rows"
	sed -nE 's/.*\.nbdtab = "([a-z]+)".*/\1/p' <<<"$rows"
	sed -nE 's/^\t\{ "([a-z_]+)", [A-Z_]+,.*/\1/p' "${srcdir:-.}/src/policy/nbdtab.c")
tab=$(sort <<<"$tab")
[ "$(wc -l <<<"$tab")" -gt 30 ] || tab='the nbdtab has no options'
section=$(sed -n '/^\.Sh NBDTAB/,/^\.Sh [^N]/p' "$page" | grep -E '^\.(It )?Cm ' | tr -s ' =' '\n' | sort -u)
check "nbd-attach.8: every option of the nbdtab is in it" "$(comm -23 <(echo "$tab") <(echo "$section"))"

# What an attach takes, but for what a line of a file has no use for.
attaching=$(sed -n '/^\.Ss Attaching/,/^\.Ss Detaching/p' "$page" | items | grep -vxE 'find|show|nbdtab|foreground|command')
check "nbd-attach.8: every option of an attach can be in the nbdtab" "$(comm -23 <(echo "$attaching") <(echo "$tab"))"
echo "1..$count"
