#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The manual is correct mdoc, and has all that the program has. Runs in the build directory.
set -u
page=${srcdir:-.}/man/nbd-attach.8

if ! command -v mandoc >/dev/null; then
	echo "1..0 # SKIP mandoc is not installed"
	exit 0
fi
echo 1..5
# The examples are near the top on purpose, where a reader looks first.
lint=$(mandoc -Tlint -Wwarning "$page" 2>&1 | grep -v 'sections out of conventional order: Sh FILES$')
if [ -z "$lint" ]; then
	echo "ok 1 - mandoc finds nothing to warn of"
else
	echo "not ok 1 - mandoc finds nothing to warn of"
	printf '# %s\n' "${lint//$'\n'/$'\n'# }"
fi
# A page can be free of warnings and empty.
text=$(mandoc -Tascii "$page" 2>/dev/null | sed 's/.\x08//g')
missing=
for section in NAME SYNOPSIS DESCRIPTION 'EXIT STATUS' EXAMPLES 'SEE ALSO'; do
	grep -q "^$section\$" <<<"$text" || missing="$missing '$section'"
done
if [ -z "$missing" ]; then
	echo "ok 2 - it has the usual sections"
else
	echo "not ok 2 - it has the usual sections"
	echo "# missing:$missing"
fi

none() { # none NUMBER DESCRIPTION WORDS: passes if there are no WORDS
	if [ -z "$3" ]; then
		echo "ok $1 - $2"
	else
		echo "not ok $1 - $2"
		printf '# not there: %s\n' "${3//$'\n'/ }"
	fi
}

options=$(./nbd-attach --help | sed -nE 's/^ {1,5}(-[A-Za-z],)? ?--([a-z-]+).*/\2/p' | sort)
[ "$(wc -l <<<"$options")" -gt 40 ] || options='--help shows no options'
items() { grep '^\.It Fl' | tr ' ' '\n' | sed -nE 's/^-([a-z][a-z-]+)$/\1/p' | sort -u; }
documented=$(items <"$page")
none 3 "every option is in it" "$(comm -23 <(echo "$options") <(echo "$documented"))"

tab=$(sed -nE 's/^\t\{ "([a-z_-]+)", [A-Z_]+, .*/\1/p' "${srcdir:-.}/src/nbdtab.c" | sort)
[ "$(wc -l <<<"$tab")" -gt 30 ] || tab='nbdtab.c has no options'
section=$(sed -n '/^\.Sh NBDTAB/,/^\.Sh [^N]/p' "$page" | grep -E '^\.(It )?Cm ' | tr -s ' =' '\n' | sort -u)
none 4 "every option of the nbdtab is in it" "$(comm -23 <(echo "$tab") <(echo "$section"))"

# What an attach takes, but for what a line of a file has no use for.
attaching=$(sed -n '/^\.Ss Attaching/,/^\.Ss Detaching/p' "$page" | items | grep -vxE 'find|show|nbdtab|foreground|command')
none 5 "every option of an attach can be in the nbdtab" "$(comm -23 <(echo "$attaching") <(echo "$tab"))"
