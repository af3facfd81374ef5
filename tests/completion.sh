#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# Completion for bash, as far as it takes neither a device nor a server: it knows all that --help has, and how. Runs in the
# build directory; tests/vm/completion.sh has the rest.

set -u
# shellcheck source-path=SCRIPTDIR source=tap.sh
. "${BASH_SOURCE[0]%/*}/tap.sh"
PATH=$PWD:$PATH

# shellcheck source-path=SCRIPTDIR source=../scripts/completion/nbd-attach
. "$top/scripts/completion/nbd-attach"
# shellcheck source-path=SCRIPTDIR source=complete.sh
. "$top/tests/complete.sh"

help=$(nbd-attach --help)
# From the two columns of the lists, however they are spaced.
options=$(sed -n '/^Commands:/,/^HOST/p' <<<"$help" | grep -oE '^ {1,5}(-[A-Za-z],)? ?--[a-z-]+' | tr -d ' ' | tr , '\n' | sort -u)
ok "there are options" yes "$([ "$(wc -l <<<"$options")" -gt 40 ] && echo yes)"
ok "all that --help has, and no other" "$options" "$(completed 'nbd-attach -')"
ok "all that begin with --tls" "$(grep '^--tls' <<<"$options")" "$(completed 'nbd-attach --tls')"
ok "options after others" "--no-supervise
--noheadings" "$(completed 'nbd-attach -r --find --no')"
ok "after sudo too" "--version" "$(completed 'sudo nbd-attach --vers' nbd-attach)"
ok "nothing after --" "" "$(completed 'nbd-attach --command nbd0 -- --vers')"

# Whatever takes an argument must not be followed by an option or a host.
while read -r option; do
	ok "$option: what comes then is its argument" '' "$(completed "nbd-attach $option nbd" | grep -x 'nbd.*://\|nbd[0-9]*')"
done < <(sed -nE 's/^ {1,5}(-[A-Za-z],)? ?--([a-z-]+) ([^ ]+) .*/--\2/p' <<<"$help")

mkdir "$work/dir" && : >"$work/dir/file" && mkdir "$work/dir/below"
ok "a file" "$work/dir/below
$work/dir/file" "$(completed "nbd-attach --tls-ca $work/dir/")"
ok "after =" "$work/dir/file" "$(completed "nbd-attach --tls-ca=$work/dir/f")"
ok "a directory" "$work/dir/below" "$(completed "nbd-attach --tls-certificates $work/dir/")"
ok "a socket" "$work/dir/file" "$(completed "nbd-attach $work/dir/f")"
ok "--tls-offload" "auto
no
require" "$(completed "nbd-attach --tls-offload ")"
for word in $(completed "nbd-attach --tls-offload "); do
	nbd-attach --tls-offload "$word" --help >/dev/null
	ok "--tls-offload $word is accepted" 0 $?
done
ok "-C auto" "auto" "$(completed "nbd-attach -C a")"

for command in --list --exports --info; do
	columns=$(completed "nbd-attach $command -O ")
	ok "$command: there are columns" yes "$([ "$(wc -l <<<"$columns")" -gt 5 ] && echo yes)"
	nbd-attach $command -O "$(tr '\n' , <<<"$columns" | sed 's/,$//')" nbd+unix:///?socket=/nowhere 2>"$work/said"
	ok "$command: that there are" '' "$(grep 'unknown column' "$work/said")"
done
ok "further columns" "DEVICE,SIZE" "$(completed "nbd-attach --list -O DEVICE,SI")"

ok "kinds of URIs" "nbd+unix:///
nbd://
nbds+unix:///
nbds://" "$(completed 'nbd-attach nbd' | grep :)"
ok "the word ends at a colon" "//" "$(completed 'nbd-attach nbd:')"
plan
