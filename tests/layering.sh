#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Proves from the sources and the compiled objects what the floors of src/ promise: who may include
# and call whom, which module owns which library, and that floors 0-2 are memory only. Then it
# plants a violation of each rule in a temporary tree and proves that the rule finds it.
#
# Runs in the build directory (make check); srcdir names the source tree.

set -u -o pipefail
export LC_ALL=C

# --- the table -------------------------------------------------------------------------------

# floor, then its modules: NAME stands for src/NAME.c and src/NAME.h, or the one that exists.
FLOORS='
0 err bytes text logger sanitized
1 wire uri export contexts
2 neg query map plan nbdtab alias
3 task resolve stream sock tls ktls relay conn link session notify
4 nbdnl nbdevent kcall sysfs node module usage confine vital
5 state negotiator control attach detach adopt supervise worker
6 main opts personality output cmd cmd_attach cmd_tab cmd_client cmd_generator cmd_adopt cmd_control cmd_detach cmd_list cmd_check cmd_exports cmd_info cmd_map
'

# Two floors side by side: neither includes the other.
APART='3 4'

# library | modules that may use it | its headers | its functions
LIBRARIES='
libnl|nbdnl nbdevent|netlink/.*|(nl|nla|nlmsg|genl|genlmsg)_.*
libkmod|module|libkmod[.]h|kmod_.*
libsmartcols|output|libsmartcols.*|scols_.*
uriparser|uri|uriparser/.*|uri[A-Z].*
GnuTLS|tls ktls|gnutls/.*|gnutls_.*
libseccomp|confine|seccomp[.]h|seccomp_.*
'

# Floors 0-2: the only headers and functions from outside the project (inet_pton() is for literal
# addresses: text to bytes in memory).
PURE_HEADERS='(stdarg|stdbool|stddef|stdint|inttypes|limits|errno|string|strings)[.]h|uriparser/.*'
PURE_HEADERS+='|arpa/inet[.]h'
# These format text in memory and need the declaration of snprintf(); the list below keeps
# everything else of stdio out of their objects.
PURE_STDIO='err text logger uri contexts neg query plan nbdtab alias'
PURE_SYMBOLS='mem(cpy|mem|move|set|cmp|chr|rchr)|mempcpy|bcmp|str(n?len|n?cmp|n?casecmp|r?chr|chrnul|str|c?spn|pbrk)'
PURE_SYMBOLS+='|v?snprintf|__(mem(cpy|move|set)|mempcpy|v?snprintf)_chk|strerror|strerror(name|desc)_np'
PURE_SYMBOLS+='|strcpy|__strcpy_chk|qsort|bsearch|inet_pton|uri[A-Z].*'

# What compilers add by themselves: stack protector, sanitizers, coverage.
COMPILER='__stack_chk_fail|_GLOBAL_OFFSET_TABLE_|_?__(asan|ubsan|sanitizer|sancov)_.*|__odr_asan.*'
COMPILER+='|__gcov.*|__llvm_.*|llvm_gc(da|ov)_.*|__unnamed_[0-9]+'

# Floors 0-5 neither print nor end the process.
LOUD='(v?f?printf|v?dprintf|__v?f?printf_chk|__v?dprintf_chk|f?puts|f?putc|putchar|_IO_putc|perror|psignal'
LOUD+='|v?warnx?|v?errx?|error|v?syslog|stdout|stderr|exit|_exit|_Exit|quick_exit|abort|__assert_fail)'
# module:symbol that are right nevertheless.
# module:symbol (a regular expression) that are right nevertheless: the end of a forked child.
LOUD_OK='relay:_exit|negotiator:_exit|supervise:_exit|stream:_exit|task:_exit|worker:_exit'

# --- facts about a tree: everything below reads only $src, $obj, $tests -----------------------

module_of() { local b=${1##*/}; echo "${b%.*}"; }

floor_of() { awk -v m="$1" '{ for (i = 2; i <= NF; i++) if ($i == m) print $1 }' <<<"$FLOORS"; }

modules() { # modules FIRST LAST: names on these floors
	awk -v a="$1" -v b="$2" 'NF && $1 >= a && $1 <= b { for (i = 2; i <= NF; i++) print $i }' <<<"$FLOORS"
}

files() { find "$src" -maxdepth 1 -name '*.[ch]' | sort; }

# FILE MODULE FLOOR KIND HEADER for each #include; KIND is " or <.
# shellcheck disable=SC2016 # the program is awk's
includes() {
	files | xargs awk -v floors="$FLOORS" '
		BEGIN {
			n = split(floors, line, "\n")
			for (i = 1; i <= n; i++) {
				k = split(line[i], w, " ")
				for (j = 2; j <= k; j++) floor[w[j]] = w[1]
			}
		}
		FNR == 1 { file = FILENAME; sub(/.*\//, "", file); m = file; sub(/\.[ch]$/, "", m) }
		/^[ \t]*#[ \t]*include[ \t]*["<]/ {
			sub(/^[^"<]*/, ""); kind = substr($0, 1, 1); sub(/^./, ""); sub(/[">].*/, "")
			print file, m, (m in floor ? floor[m] : "none"), kind, $0
		}'
}

# MODULE CLASS SECTION SYMBOL for each symbol of each module's object.
symbols() {
	local m
	modules 0 6 | while read -r m; do
		[ -e "$obj/$m.o" ] || continue
		"${NM:-nm}" -f sysv "$obj/$m.o" | awk -F'|' -v m="$m" 'NF >= 7 && $3 !~ /Class/ {
			gsub(/ /, ""); print m, $3, $7, $1 }'
	done
}

# may_see A B: a module of floor A may use one of floor B.
may_see() {
	local side="$1 $2"
	[ "$2" -le "$1" ] && [ "$side" != "$APART" ] && [ "$side" != "${APART#* } ${APART% *}" ]
}

# --- the rules: each prints one line per violation ----------------------------------------------

rule_table() {
	local f m
	modules 0 6 | sort | uniq -d | sed 's/$/ is on the table twice/'
	files | while read -r f; do
		[ -n "$(floor_of "$(module_of "$f")")" ] || echo "${f##*/} is on no floor"
	done
	modules 0 6 | while read -r m; do
		[ -e "$src/$m.c" ] || [ -e "$src/$m.h" ] || echo "$m is on the table and has no file"
	done
}

rule_includes() {
	local file m floor kind header target
	includes | while read -r file m floor kind header; do
		if [ "$kind" = '<' ] || [ "$header" = config.h ]; then continue; fi
		target=$(floor_of "${header%.h}" | head -n 1)
		if [ -z "$target" ]; then
			echo "$file includes \"$header\", which is on no floor"
		elif ! may_see "$floor" "$target"; then
			echo "$file (floor $floor) includes $header (floor $target)"
		fi
	done
}

rule_cycles() {
	includes | awk '$4 == "\"" { sub(/\.h$/, "", $5); if ($2 != $5) print $2, $5 }' |
		tsort 2>&1 >/dev/null | sed 's/^tsort: //'
}

rule_library_headers() {
	local lib owners headers file m header
	while IFS='|' read -r lib owners headers _; do
		[ -n "$lib" ] || continue
		includes | while read -r file m _ _ header; do
			[[ $header =~ ^($headers)$ ]] && [[ " $owners " != *" $m "* ]] &&
				echo "$file includes $header: $lib belongs to $owners"
		done
	done <<<"$LIBRARIES"
	return 0
}

rule_library_calls() {
	local lib owners calls m symbol own
	own=$(own_symbols)
	while IFS='|' read -r lib owners _ calls; do
		[ -n "$lib" ] || continue
		awk '$2 == "U"' <<<"$symbols" | while read -r m _ _ symbol; do
			[[ $symbol =~ ^($calls)$ ]] && [[ " $owners " != *" $m "* ]] &&
				! grep -qx "$symbol" <<<"$own" &&
				echo "$m calls $symbol: $lib belongs to $owners"
		done
	done <<<"$LIBRARIES"
	return 0
}

own_symbols() { awk '$2 ~ /^[TDBRC]$/ { print $4 }' <<<"$symbols" | sort -u; }

rule_objects() {
	local m
	modules 0 6 | while read -r m; do
		[ ! -e "$src/$m.c" ] || [ -e "$obj/$m.o" ] || echo "$m.c has no object in $obj"
	done
}

rule_calls() {
	awk -v floors="$FLOORS" -v apart="$APART" '
		BEGIN {
			split(apart, ap, " ")
			n = split(floors, line, "\n")
			for (i = 1; i <= n; i++) {
				k = split(line[i], w, " ")
				for (j = 2; j <= k; j++) floor[w[j]] = w[1]
			}
		}
		$2 ~ /^[TDBRC]$/ { home[$4] = $1 }
		$2 == "U" { use[++uses] = $1 " " $4 }
		END {
			for (i = 1; i <= uses; i++) {
				split(use[i], u, " ")
				if (!(u[2] in home)) continue
				a = floor[u[1]]; b = floor[home[u[2]]]
				if (b > a || (a == ap[1] && b == ap[2]) || (a == ap[2] && b == ap[1]))
					print u[1] " (floor " a ") calls " u[2] " of " home[u[2]] " (floor " b ")"
			}
		}' <<<"$symbols"
}

rule_pure_headers() {
	includes | awk -v ok="^($PURE_HEADERS)\$" -v stdio=" $PURE_STDIO " '
		$3 <= 2 && $4 == "<" && $5 !~ ok {
			if ($5 == "stdio.h" && $1 ~ /\.c$/ && index(stdio, " " $2 " ")) next
			print $1 " (floor " $3 ") includes <" $5 ">"
		}'
}

rule_pure_calls() {
	local pure
	pure=$(modules 0 2)
	awk -v pure="$pure" -v ok="^($PURE_SYMBOLS|$COMPILER)\$" '
		BEGIN { n = split(pure, p, "\n"); for (i = 1; i <= n; i++) is[p[i]] = 1 }
		$2 ~ /^[TDBRC]$/ { own[$4] = 1 }
		$2 ~ /^[UwW]$/ && ($1 in is) && $4 !~ ok { use[$1 " uses " $4] = $4 }
		END { for (u in use) if (!(use[u] in own)) print u }' <<<"$symbols"
}

rule_loud() {
	awk -v low="$(modules 0 5)" -v loud="^$LOUD\$" -v ok="^($LOUD_OK)\$" '
		BEGIN { n = split(low, p, "\n"); for (i = 1; i <= n; i++) is[p[i]] = 1 }
		$2 == "U" && ($1 in is) && $4 ~ loud && ($1 ":" $4) !~ ok {
			print $1 " uses " $4
		}' <<<"$symbols"
}

rule_mutable() {
	awk -v low="$(modules 0 5)" -v compiler="^($COMPILER)\$" '
		BEGIN { n = split(low, p, "\n"); for (i = 1; i <= n; i++) is[p[i]] = 1 }
		($1 in is) && $4 !~ compiler && $3 !~ /^\.data\.rel\.ro/ &&
			($3 ~ /^\.(data|bss|tdata|tbss)(\.|$)/ || $2 == "C" || $2 == "V") {
			print $1 " has the variable " $4 " in " $3
		}' <<<"$symbols"
}

rule_unit_tests() {
	local m t
	modules 0 4 | while read -r m; do
		[ ! -e "$src/$m.c" ] || [ -e "$tests/unit/test_$m.c" ] ||
			echo "$m.c has no tests/unit/test_$m.c"
	done
	find "$tests/unit" -name 'test_*.c' | sort | while read -r t; do
		t=$(module_of "$t")
		[ -n "$(floor_of "${t#test_}")" ] || echo "tests/unit/$t.c tests no module of src/"
		grep -Eq "(^|[[:space:]])tests/unit/$t([[:space:]]|\$)" "$tests/Makefile.inc" ||
			echo "tests/unit/$t.c is not listed in tests/Makefile.inc"
	done
}

rule_vm_tests() {
	local f
	find "$tests/vm" -name '*.sh' ! -name lib.sh | sort | while read -r f; do
		f=tests/vm/${f##*/}
		grep -Eq "(^|[[:space:]])$f([[:space:]]|\$)" "$tests/Makefile.inc" ||
			echo "$f is not listed in tests/Makefile.inc"
	done
}

rule_makefile() {
	tr -cs '[:alnum:]_./' '\n' <"$src/Makefile.inc" | awk -v files="$(files)" '
		{ listed[$0]++ }
		END {
			n = split(files, f, "\n")
			for (i = 1; i <= n; i++) {
				sub(/.*\//, "src/", f[i])
				if (listed[f[i]] != 1)
					print f[i] " is listed " listed[f[i]] + 0 " times in src/Makefile.inc"
			}
		}'
}

rule_licence() {
	find "$src" "$tests" \( -name '*.[ch]' -o -name '*.sh' \) -exec awk '
		FNR == 1 { file[FILENAME] = 1 }
		FNR <= 2 && /SPDX-License-Identifier: GPL-2.0-or-later/ { delete file[FILENAME] }
		END { for (f in file) print f " has no SPDX line" }' {} +
}

RULES='
rule_table: every file of src/ is on exactly one floor
rule_includes: includes point down, and floors 3 and 4 do not include each other
rule_cycles: no cycle of includes
rule_library_headers: each library is included by its own module only
rule_objects: every source of the table was compiled
rule_library_calls: each library is called by its own module only
rule_calls: calls point down like includes
rule_pure_headers: floors 0-2 include nothing of descriptors, clocks, environment or stdio
rule_pure_calls: the objects of floors 0-2 call nothing but memory functions
rule_loud: the objects of floors 0-5 neither print nor exit
rule_mutable: the objects of floors 0-5 have no mutable variables
rule_unit_tests: every module of floors 0-4 has a unit test that is built
rule_vm_tests: every script of tests/vm/ but lib.sh is a test that is run
rule_makefile: every file of src/ is listed once in src/Makefile.inc
rule_licence: every source has an SPDX line
'

# --- planted violations -------------------------------------------------------------------------

# A small tree that keeps every rule: five modules of the real table and only their rows.
plant_tree() {
	rm -rf "$plant"
	mkdir -p "$plant/src" "$plant/tests/unit" "$plant/tests/vm" "$plant/obj"
	src=$plant/src obj=$plant/obj tests=$plant/tests
	FLOORS=$'\n0 err\n1 wire export\n2 neg\n3 stream\n4 nbdnl\n5 state\n6 output\n'
	local m
	for m in err wire neg stream nbdnl state output; do
		cat >"$src/$m.h" <<-END
			/* SPDX-License-Identifier: GPL-2.0-or-later */
			int ${m}_f(const char *p);
		END
		cat >"$src/$m.c" <<-END
			// SPDX-License-Identifier: GPL-2.0-or-later
			#include "$m.h"
			#include <string.h>
			int $m(const char *p);
			int ${m}_f(const char *p) { return (int)strlen(p); }
			static const char *const names[] = { "a", "bc" };
			int $m(const char *p) { return ${m}_f(names[p[0] & 1]); }
		END
		echo '// SPDX-License-Identifier: GPL-2.0-or-later' >"$tests/unit/test_$m.c"
		echo "src/$m.c src/$m.h tests/unit/test_$m" >>"$src/Makefile.inc"
	done
	echo '/* SPDX-License-Identifier: GPL-2.0-or-later */' >"$src/export.h"
	echo 'src/export.h' >>"$src/Makefile.inc"
	cp "$src/Makefile.inc" "$tests/Makefile.inc"
	touch -d '2000-01-01' "$src"/*
	cp -p "$work"/*.o "$obj/" 2>/dev/null
	return 0
}

# Objects are compiled as the build does it, so that a sanitizer's additions cannot hide a violation.
plant_compile() {
	local f
	for f in "$src"/*.c; do
		[ "$f" -nt "$obj/$(module_of "$f").o" ] || continue
		# shellcheck disable=SC2086 # both are lists of words
		${CC:-cc} ${TEST_CFLAGS:--O2} -w -Wno-error -c "$f" -o "$obj/$(module_of "$f").o" || return 1
	done
	symbols=$(symbols)
}

# planted RULE WHAT CODE [LATER]: CODE changes the good tree, LATER what was compiled from it; RULE
# must then complain.
planted() {
	local out
	plant_tree
	eval "$3"
	if ! plant_compile; then
		report 1 "planted: $2" "cannot compile the planted tree"
		return
	fi
	eval "${4:-}"
	out=$("$1")
	if [ -n "$out" ]; then report 0 "planted: $2" ""; else report 1 "planted: $2" "$1 did not find it"; fi
}

count=0
report() { # report STATUS NAME DETAILS
	count=$((count + 1))
	if [ "$1" -eq 0 ]; then
		echo "ok $count - $2"
	else
		echo "not ok $count - $2"
		[ -z "$3" ] || printf '# %s\n' "${3//$'\n'/$'\n'# }"
	fi
}

code() { # code MODULE TEXT: append to the planted module's source
	echo "$2" >>"$src/$1.c"
}

# shellcheck disable=SC2016 # what is planted is expanded by planted()
selftest() {
	local rule out bad=''
	plant_tree
	plant_compile || { report 1 "the planted tree compiles" "cannot compile"; return; }
	cp -p "$obj"/*.o "$work/"
	while IFS=: read -r rule _; do
		[ -n "$rule" ] || continue
		out=$("$rule")
		[ -z "$out" ] || bad+="$rule: $out"$'\n'
	done <<<"$RULES"
	report "$([ -z "$bad" ]; echo $?)" 'planted: a tree without a violation passes every rule' "$bad"

	planted rule_table 'a file on no floor' 'echo "int x;" >"$src/stray.c"'
	planted rule_table 'a module on two floors' 'FLOORS+="3 err"'
	planted rule_table 'a module without a file' 'FLOORS+="3 ghost"'
	planted rule_includes 'floor 2 includes floor 3' 'code neg "#include \"stream.h\""'
	planted rule_includes 'floor 3 includes floor 4' 'code stream "#include \"nbdnl.h\""'
	planted rule_includes 'floor 4 includes floor 3' 'code nbdnl "# include \"stream.h\""'
	planted rule_includes 'an include of an unknown file' \
		'code state "#include \"other.h\""; : >"$src/other.h"'
	planted rule_cycles 'two modules of one floor include each other' \
		'echo "#include \"export.h\"" >>"$src/wire.h"; echo "#include \"wire.h\"" >>"$src/export.h"; : >"$src/wire.c"'
	planted rule_library_headers 'libnl included outside nbdnl' 'code state "#if 0
#include <netlink/netlink.h>
#endif"'
	planted rule_library_headers 'GnuTLS included by stream' 'code stream "#if 0
#include <gnutls/gnutls.h>
#endif"'
	planted rule_library_calls 'libkmod called outside module' \
		'code state "int kmod_new(void); int g(void) { return kmod_new(); }"'
	planted rule_library_calls 'uriparser called outside uri' \
		'code wire "int uriParseUriA(void); int g(void) { return uriParseUriA(); }"'
	planted rule_objects 'a source that is not compiled' : 'rm "$obj/neg.o"'
	planted rule_calls 'floor 0 calls floor 5 without including it' \
		'code err "int state_f(const char *); int g(void) { return state_f(\"\"); }"'
	planted rule_calls 'floor 4 calls floor 3' \
		'code nbdnl "int stream_f(const char *); int g(void) { return stream_f(\"\"); }"'
	planted rule_pure_headers 'floor 2 includes unistd.h' 'code neg "#include <unistd.h>"'
	planted rule_pure_headers 'a header of floor 0 includes stdio.h' 'echo "#include <stdio.h>" >>"$src/err.h"'
	planted rule_pure_headers 'floor 1 includes stdio.h' 'code wire "#include <stdio.h>"'
	planted rule_pure_calls 'floor 1 reads a descriptor' \
		'code wire "long read(int, void *, unsigned long); long g(char *p) { return read(0, p, 1); }"'
	planted rule_pure_calls 'floor 2 asks the clock' \
		'code neg "long time(long *); long g(void) { return time((long *)0); }"'
	planted rule_pure_calls 'floor 0 reads the environment' \
		'code err "char *getenv(const char *); char *g(void) { return getenv(\"A\"); }"'
	planted rule_pure_calls 'floor 2 prints' \
		'code neg "int printf(const char *, ...); int g(int i) { return printf(\"%d\", i); }"'
	planted rule_loud 'floor 5 prints to standard error' \
		'code state "#include <stdio.h>
int g(int i) { return fprintf(stderr, \"%d\", i); }"'
	planted rule_loud 'floor 3 ends the process' \
		'code stream "void exit(int); void g(void) { exit(1); }"'
	planted rule_mutable 'floor 4 has a counter' \
		'code nbdnl "static int n; int g(void); int g(void) { return ++n; }"'
	planted rule_mutable 'floor 0 has an initialised variable' 'code err "int level = 3;"'
	planted rule_mutable 'floor 2 has a thread variable' 'code neg "_Thread_local int last;"'
	planted rule_mutable 'a table of floor 1 is not constant' \
		'code wire "const char *words[] = { \"a\", \"b\" };"'
	planted rule_unit_tests 'a module without a unit test' 'rm "$tests/unit/test_neg.c"'
	planted rule_unit_tests 'a unit test that is not built' 'sed -i "s, tests/unit/test_neg,," "$tests/Makefile.inc"'
	planted rule_unit_tests 'a unit test of no module' 'echo "// x" >"$tests/unit/test_ghost.c"'
	planted rule_vm_tests 'a virtual machine test that is not listed' \
		'echo "# x" >"$tests/vm/new.sh"'
	planted rule_makefile 'a source that is not listed' 'sed -i "s,src/neg.h,," "$src/Makefile.inc"'
	planted rule_licence 'a source without an SPDX line' 'sed -i 1d "$src/neg.c"'
}

# --- run ----------------------------------------------------------------------------------------

work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
plant=$work/plant

src=${srcdir:-.}/src obj=src tests=${srcdir:-.}/tests
symbols=$(symbols)
while IFS=: read -r rule name; do
	[ -n "$rule" ] || continue
	out=$("$rule")
	if [ -z "$out" ]; then report 0 "${name# }" ""; else report 1 "${name# }" "$out"; fi
done <<<"$RULES"

(
	selftest
	echo "$count" >"$work/count"
)
echo "1..$(cat "$work/count")"
