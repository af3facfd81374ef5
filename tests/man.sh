#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The manual is correct mdoc.
set -u
page=${srcdir:-.}/man/nbd-attach.8

if ! command -v mandoc >/dev/null; then
	echo "1..0 # SKIP mandoc is not installed"
	exit 0
fi
echo 1..2
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
