#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# Comments in C files keep two rules. A comment behind code can be read alone: it does not go on with
# the sentence that a name began. A line with a comment has at most 100 columns, which clang-format
# does not see to.
set -u
. "${srcdir:-.}/tests/tap.sh"

# FILE:LINE <tab> trailing|long <tab> COMMENT for each violation in FILE...
# shellcheck disable=SC2016 # the program is awk's
violations() {
	awk '
		BEGIN {
			words = "that|of|for|what|when|which|it|and|or|nor|who|whose|until|then|so that"
			begins = "^[ \t*]*(" words ")([^a-z]|$)"
		}
		function found(rule, text) { gsub(/[\t ]+/, " ", text); print FILENAME ":" FNR "\t" rule "\t" text }
		function columns(line, i, n) {
			gsub(/[\200-\277]/, "", line)	# what follows the first byte of a character
			for (n = 0; (i = index(line, "\t")); line = substr(line, i + 1))
				n += i - 1 + 8 - (n + i - 1) % 8
			return n + length(line)
		}
		FNR == 1 { inside = 0 }
		{
			rest = $0; code = 0; comment = inside
			for (;;) {
				if (inside) {
					if (!(at = index(rest, "*/")))
						break
					rest = substr(rest, at + 2)
					inside = 0
				}
				if (!match(rest, /["\047]|\/[\/*]/))
					break
				if (substr(rest, 1, RSTART - 1) ~ /[^ \t]/)
					code = 1
				mark = substr(rest, RSTART, RLENGTH)
				rest = substr(rest, RSTART + RLENGTH)
				if (mark ~ /^\//) {
					comment = 1
					if (code && tolower(rest) ~ begins)
						found("trailing", $0)
					if (mark == "//")
						break
					inside = 1
				} else {
					code = 1
					if (mark == "\"")
						match(rest, /^([^"\\]|\\.)*"/)
					else
						match(rest, /^([^\047\\]|\\.)*\047/)
					rest = substr(rest, RLENGTH + 1)
				}
			}
			if (comment && columns($0) > 100)
				found("long", $0)
		}' "$@"
}

# --- planted ------------------------------------------------------------------------------------

cat >"$work/good.c" <<'END'
/* That a comment above code begins so is right, and that it goes on: */
int a; /* Thatch is a word of its own, and formats, orders and itself are */
const char *b = "\" /* of */"; char c = '"', d = '\''; // a quotation mark
int e; /* the first line
	* of several */
END
{
	printf '/* %090d\t*/\n' 0
	printf '/* %s */\n' "$(printf 'é%.0s' {1..94})"
	printf 'char f[] = "%0100d";\n' 0
} >>"$work/good.c"
ok 'planted: comments that keep the rules' '' "$(violations "$work/good.c")"

cat >"$work/bad.c" <<'END'
int a; /* that the device has */
int b; // Of the server
int c = '"'; /* whose turn it is */ int d;
char *e = "// \\"; /* which the user gave */
	f(0 /* for all */);
int g; /* so that nothing is lost */
int h; /*until then*/
/* one */ int i; /* or another */
END
ok 'planted: trailing comments that continue a name' "$(seq 8)" \
	"$(violations "$work/bad.c" | sed -n 's/.*:\([0-9]*\)\ttrailing\t.*/\1/p')"

{
	printf 'int a; /* %0100d */\n' 0
	printf '\t\t\t\t\t\t\t\t\t\t\t// %012d\n' 0
	printf '/*\n * %098d\n */\n' 0
} >"$work/long.c"
ok 'planted: comments beyond 100 columns' $'1\n2\n4' \
	"$(violations "$work/long.c" | sed -n 's/.*:\([0-9]*\)\tlong\t.*/\1/p')"

# --- the tree -----------------------------------------------------------------------------------

cd "$top" || exit 1
mapfile -t files < <(find src tests -name '*.[ch]' | sort)
ok 'there are C files' yes "$([ "${#files[@]}" -gt 100 ] && echo yes)"
violations "${files[@]}" >"$work/here"

of_rule() { awk -F'\t' -v rule="$1" '$2 == rule { print $1 ": " $3 }' "$work/here"; }
ok 'no comment behind code continues a name' '' "$(of_rule trailing)"
ok 'no line with a comment has more than 100 columns' '' "$(of_rule long)"

awk -F'\t' '
	{ sub(/\/[^\/]*$/, "", $1); folder[$1]; here[$1, $2]++ }
	END {
		for (f in folder)
			print "# " f ": " here[f, "trailing"] + 0 " trailing, " here[f, "long"] + 0 " long"
	}' "$work/here" | sort
plan
