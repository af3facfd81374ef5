# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# For the scripts of make check, which run in the build directory: $top, the source tree; $work, a directory until the end; TAP.
#
#   ok DESCRIPTION EXPECTED GOT    passes if the two are the same
#   plan                           how many there were

export LC_ALL=C
count=0 work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
# shellcheck disable=SC2034 # for scripts
top=$(cd "${srcdir:-.}" && pwd)

ok() {
	count=$((count + 1))
	if [ "$2" = "$3" ]; then
		echo "ok $count - $1"
	else
		echo "not ok $count - $1"
		diff <(echo "$2") <(echo "$3") | sed 's/^/# /'
	fi
}

plan() { echo "1..$count"; }
