# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# completed LINE [PROGRAM]: what the function of the completion offers at the end of LINE, sorted, a line each.
completed() {
	COMP_LINE=$1 COMP_POINT=${#1} COMP_CWORD=0
	read -ra COMP_WORDS <<<"$1"
	COMP_WORDS[0]=${2:-${COMP_WORDS[0]}}
	COMPREPLY=()
	_nbd_attach "${COMP_WORDS[0]}" '' '' 2>/dev/null
	(("${#COMPREPLY[@]}" == 0)) || printf '%s\n' "${COMPREPLY[@]}" | sort -u
}
