#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-FileCopyrightText: The nbd-attach authors
#
# Proves from the sources and the compiled objects what the folders of src/ promise: who may include
# and call whom, which file owns which library, and which folders are memory only. Then it plants a
# violation of each rule in a temporary tree and proves that the rule finds it.
#
# Runs in the build directory (make check); srcdir names the source tree.
# shellcheck disable=SC2016 # awk expands what is in single quotes, or eval in planted()

set -u -o pipefail
export LC_ALL=C

# --- what is promised ------------------------------------------------------------------------

# A file uses its own folder and those to the left of it. Folders joined by | do not use each other.
FOLDERS='base proto policy net|kernel daemon cli'

# Groups of folders, as regular expressions.
PURE='(base|proto|policy)'
TESTED='(base|proto|policy|net|kernel)'
LIBRARY='(base|proto|policy|net|kernel|daemon)'

# library, files that may use it (without suffix), its headers, its functions
LIBRARIES='
libnl        kernel/nbd(nl|event) netlink/.*       (nl|nla|nlmsg|genl|genlmsg)_.*
libkmod      kernel/module        libkmod[.]h      kmod_.*
libsmartcols cli/output           libsmartcols.*   scols_.*
uriparser    proto/uri            uriparser/.*     uri[A-Z].*
GnuTLS       net/k?tls.*          gnutls/.*        gnutls_.*
libseccomp   kernel/sandbox       seccomp[.]h      seccomp_.*
'

# The only headers and functions from outside the project in base, proto and policy. inet_pton() is
# for literal addresses, stdio.h (in .c files) for snprintf(): both work in memory.
PURE_HEADERS='(stdarg|stdbool|stddef|stdint|inttypes|limits|errno|string|strings)[.]h|uriparser/.*'
PURE_HEADERS+='|arpa/inet[.]h'
PURE_SYMBOLS='mem(cpy|mem|move|set|cmp|chr|rchr)|mempcpy|bcmp|str(n?len|n?cmp|n?casecmp|r?chr|chrnul|str|c?spn|pbrk)'
PURE_SYMBOLS+='|v?snprintf|__(mem(cpy|move|set)|mempcpy|v?snprintf)_chk|strerror|strerror(name|desc)_np'
PURE_SYMBOLS+='|strcpy|__strcpy_chk|qsort|bsearch|inet_pton|uri[A-Z].*'

# What compilers add by themselves: stack protector, sanitizers, coverage.
COMPILER='__stack_chk_fail|_GLOBAL_OFFSET_TABLE_|_?__(asan|ubsan|sanitizer|sancov)_.*|__odr_asan.*'
COMPILER+='|__llvm_.*|__covrec_.*|__prof[cdn]_.*|__unnamed_[0-9]+'

# Nothing below cli/ prints or ends the process; _exit() is for a child of fork or of guard.
LOUD='(v?f?printf|v?dprintf|__v?f?printf_chk|__v?dprintf_chk|f?puts|f?putc|putchar|_IO_putc|perror|psignal'
LOUD+='|v?warnx?|v?errx?|error|v?syslog|stdout|stderr|exit|_Exit|quick_exit|abort|__assert_fail)'

# --- facts about a tree: everything below reads only $top, $src, $obj, $tests --------------------

# FOLDER/NAME.c and FOLDER/NAME.h
files() { (cd "$src" && find . -name '*.[ch]' | sed 's,^\./,,' | sort); }

# FILE KIND HEADER for each #include; KIND is " or <.
includes() {
	(cd "$src" && files | xargs awk '
		/^[ \t]*#[ \t]*include[ \t]*["<]/ {
			sub(/^[^"<]*/, ""); kind = substr($0, 1, 1); sub(/^./, ""); sub(/[">].*/, "")
			print FILENAME, kind, $0
		}')
}

# FOLDER/NAME.o for each source that was compiled. A build directory can have others: of removed files.
objects() {
	local o
	sed -n 's/c$/o/p' "$work/files" | while read -r o; do [ ! -e "$o" ] || echo "$o"; done
}

# FOLDER/NAME CLASS SECTION SYMBOL for each symbol of each object.
symbols() {
	(cd "$obj" && objects | xargs "${NM:-nm}" -A -f sysv | awk -F'|' '
		NF >= 7 && $3 !~ /Class/ {
			gsub(/ /, "")
			at = index($1, ".o:")
			print substr($1, 1, at - 1), $3, $7, substr($1, at + 3)
		}')
}

facts() {
	files >"$work/files" && includes >"$work/includes" && symbols >"$work/symbols"
}

# For awk: may_use(A, B), a file of folder A may use one of folder B.
ORDER='
	function folder(file) { return file ~ /\// ? substr(file, 1, index(file, "/") - 1) : "" }
	function may_use(a, b) { return a == b || rank[b] < rank[a] }
	BEGIN {
		sides = split(folders, side, " ")
		for (i = 1; i <= sides; i++) {
			n = split(side[i], name, "|")
			for (j = 1; j <= n; j++) rank[name[j]] = i
		}
	}'

ordered() { # ordered PROGRAM FILE...
	local program=$1
	shift
	awk -v folders="$FOLDERS" "$ORDER $program" "$@"
}

# --- the rules: each prints one line per violation ----------------------------------------------

rule_folders() {
	ordered '!(folder($0) in rank) || gsub(/\//, "/") != 1 { print $0 " is in no folder of the order" }' \
		"$work/files"
}

rule_includes() {
	ordered '
		FNR == NR { is[$1] = 1; next }
		$2 == "\"" && $3 != "config.h" && !($3 in is) {
			print $1 " includes \"" $3 "\", which names no file by its folder"
		}
		$2 == "<" && ($3 in is) { print $1 " includes <" $3 "> and not \"" $3 "\"" }
		($3 in is) && !may_use(folder($1), folder($3)) { print $1 " includes " $3 }' \
		"$work/files" "$work/includes"
}

rule_cycles() {
	awk '$2 == "\"" { sub(/\.[ch]$/, "", $1); sub(/\.h$/, "", $3); if ($1 != $3) print $1, $3 }' \
		"$work/includes" | tsort 2>&1 >/dev/null | sed 's/^tsort: //'
}

rule_library_headers() {
	local library owners headers
	while read -r library owners headers _; do
		[ -n "$library" ] || continue
		awk -v library="$library" -v owners="^${owners}[.][ch]\$" -v headers="^$headers\$" '
			$3 ~ headers && $1 !~ owners {
				print $1 " includes " $3 ": " library " belongs to " owners
			}' "$work/includes"
	done <<<"$LIBRARIES"
}

rule_objects() {
	local file
	grep '\.c$' "$work/files" | while read -r file; do
		[ -e "$obj/${file%.c}.o" ] || echo "$file has no object in $obj"
	done
}

rule_library_calls() {
	local library owners calls
	while read -r library owners _ calls; do
		[ -n "$library" ] || continue
		awk -v library="$library" -v owners="^$owners\$" -v calls="^$calls\$" '
			FNR == NR { if ($2 ~ /^[TDBRC]$/) own[$4]; next }
			$2 == "U" && $4 ~ calls && $1 !~ owners && !($4 in own) {
				print $1 " calls " $4 ": " library " belongs to " owners
			}' "$work/symbols" "$work/symbols"
	done <<<"$LIBRARIES"
}

rule_calls() {
	ordered '
		FNR == NR { if ($2 ~ /^[TDBRC]$/) home[$4] = $1; next }
		$2 == "U" && ($4 in home) && !may_use(folder($1), folder(home[$4])) {
			print $1 " calls " $4 " of " home[$4]
		}' "$work/symbols" "$work/symbols"
}

rule_pure_headers() {
	awk -v pure="^$PURE/" -v ok="^($PURE_HEADERS)\$" '
		$1 ~ pure && $2 == "<" && $3 !~ ok && !($3 == "stdio.h" && $1 ~ /\.c$/) {
			print $1 " includes <" $3 ">"
		}' "$work/includes"
}

rule_pure_calls() {
	awk -v pure="^$PURE/" -v ok="^($PURE_SYMBOLS|$COMPILER)\$" '
		FNR == NR { if ($2 ~ /^[TDBRC]$/) own[$4]; next }
		$1 ~ pure && $2 ~ /^[UwW]$/ && $4 !~ ok && !($4 in own) { print $1 " uses " $4 }' \
		"$work/symbols" "$work/symbols"
}

rule_loud() {
	awk -v library="^$LIBRARY/" -v loud="^$LOUD\$" '
		FNR == NR { if ($4 ~ /^(v?fork|guard_start_.*)$/) forks[$1]; next }
		$1 ~ library && $2 == "U" && ($4 ~ loud || ($4 == "_exit" && !($1 in forks))) {
			print $1 " uses " $4
		}' "$work/symbols" "$work/symbols"
}

rule_mutable() {
	awk -v library="^$LIBRARY/" -v compiler="^($COMPILER)\$" '
		$1 ~ library && $4 !~ compiler && $3 !~ /^\.data\.rel\.ro/ &&
			($3 ~ /^\.(data|bss|tdata|tbss)(\.|$)/ || $2 == "C" || $2 == "V") {
			print $1 " has the variable " $4 " in " $3
		}' "$work/symbols"
}

# built FILE: tests/Makefile.inc has it as a word, but not in a comment.
built() { grep -Eq "^[^#]*(^|[[:space:]])$1([[:space:]]|\$)" "$tests/Makefile.inc"; }

rule_unit_tests() {
	local file test
	grep -E "^$TESTED/.*\.c\$" "$work/files" | while read -r file; do
		test=$tests/unit/${file%/*}/test_${file##*/}
		[ -e "$test" ] || echo "$file has no tests/unit/${test#"$tests/unit/"}"
	done
	(cd "$tests/unit" && find . -name 'test_*.c') | sed 's,^\./,,' | sort | while read -r test; do
		file=${test/test_/}
		grep -qxF -e "$file" -e "${file%.c}.h" "$work/files" ||
			echo "tests/unit/$test tests no file of src/"
		built "tests/unit/${test%.c}" || echo "tests/unit/$test is not listed in tests/Makefile.inc"
	done
}

rule_guest_tests() {
	local file
	(cd "$tests" && find vm smp boot -name '*.sh' ! -name lib.sh) | sort | while read -r file; do
		built "tests/$file" || echo "tests/$file is not listed in tests/Makefile.inc"
	done
}

rule_makefile() {
	tr -cs '[:alnum:]_./' '\n' <"$src/Makefile.inc" | awk '
		FNR == NR { listed[$0]++; next }
		listed["src/" $0] != 1 {
			print "src/" $0 " is listed " listed["src/" $0] + 0 " times in src/Makefile.inc"
		}' - "$work/files"
}

# Definitions begin in the first column; a type that is long stands on a line of its own.
rule_names() {
	(cd "$src" && xargs awk '
		FNR == 1 { type = "" }
		/^static [^({;=]*$/ { type = $0 " "; next }
		{ line = type $0; type = "" }
		line ~ /^static / {
			gsub(/__attribute__\(\(.*\)\)/, "", line)
			if (line !~ /^static [^=;\[(]*[A-Za-z0-9_]\(/)
				next
			sub(/\(.*/, "", line)
			sub(/.*[^A-Za-z0-9_]/, "", line)
			if (!((line, FILENAME) in seen)) {
				seen[line, FILENAME]
				files[line] = files[line] " " FILENAME
				count[line]++
			}
		}
		END {
			for (name in count)
				if (count[name] > 1) print name " is a static function of" files[name]
		}' <"$work/files")
}

rule_gnu_source() {
	(cd "$src" && xargs grep -HnE '^[ 	]*#[ 	]*define[ 	]+_GNU_SOURCE' <"$work/files")
}

rule_licence() {
	(cd "$top" && find configure.ac Makefile.am src tests scripts -type f \
		\( -name '*.[ch]' -o -name '*.sh' -o -name '*.ac' -o -name '*.am' -o -name '*.inc' \) -exec awk '
		FNR == 1 { licence[FILENAME]; copyright[FILENAME] }
		FNR <= 2 && /SPDX-License-Identifier: GPL-2.0-or-later/ { delete licence[FILENAME] }
		FNR <= 3 && /SPDX-FileCopyrightText: The nbd-attach authors/ { delete copyright[FILENAME] }
		END {
			for (f in licence) print f " has no SPDX-License-Identifier"
			for (f in copyright) print f " has no SPDX-FileCopyrightText"
		}' {} +)
}

RULES='
rule_folders: every file of src/ is in a folder of the order
rule_includes: includes name the folder, and point to the left
rule_cycles: no cycle of includes
rule_library_headers: each library is included by its own files only
rule_objects: every source was compiled
rule_library_calls: each library is called by its own files only
rule_calls: calls point to the left like includes
rule_pure_headers: base, proto and policy include nothing of descriptors, clocks, environment or stdio
rule_pure_calls: the objects of base, proto and policy call nothing but memory functions
rule_loud: nothing below cli/ prints or exits
rule_mutable: nothing below cli/ has a mutable variable
rule_unit_tests: every source below daemon/ has a unit test that is built
rule_guest_tests: every script of tests/vm, smp and boot but lib.sh is a test that is run
rule_makefile: every file of src/ is listed once in src/Makefile.inc
rule_names: the name of a static function stands in one file only
rule_gnu_source: no file of src/ defines _GNU_SOURCE
rule_licence: every source says its licence and its copyright
'

run_rules() { # run_rules VERDICT: facts, then VERDICT NAME OUTPUT for each rule
	local rule name
	facts
	while IFS=: read -r rule name; do
		[ -z "$rule" ] || "$1" "${name# }" "$("$rule")"
	done <<<"$RULES"
}

# --- planted violations -------------------------------------------------------------------------

# A small tree that keeps every rule, and its objects: one source and one header in each folder.
make_good_tree() {
	local file name
	mkdir -p "$good"/{src,scripts,tests/{vm,smp,boot}}
	for file in configure.ac Makefile.am {src,tests}/Makefile.inc scripts/run.sh; do
		cat >"$good/$file" <<-END
			# SPDX-License-Identifier: GPL-2.0-or-later
			# SPDX-FileCopyrightText: The nbd-attach authors
		END
	done
	for file in base/err proto/wire policy/plan net/dial kernel/sysfs daemon/record cli/output; do
		name=${file#*/}
		mkdir -p "$good"/{src,obj,tests/unit}/"${file%/*}"
		cat >"$good/src/$file.h" <<-END
			/* SPDX-License-Identifier: GPL-2.0-or-later */
			/* SPDX-FileCopyrightText: The nbd-attach authors */
			int ${name}_f(const char *p);
		END
		cat >"$good/src/$file.c" <<-END
			// SPDX-License-Identifier: GPL-2.0-or-later
			// SPDX-FileCopyrightText: The nbd-attach authors
			#include "$file.h"
			#include "base/err.h"
			#include <string.h>
			int $name(const char *p);
			static const char *const names[] = { "a", "bc" };
			static int ${name}_length(const char *p)
			{
				return (int)strlen(p);
			}
			int ${name}_f(const char *p) { return ${name}_length(p) + err_f(p); }
			int $name(const char *p) { return ${name}_f(names[p[0] & 1]); }
		END
		head -n 2 "$good/src/$file.c" >"$good/tests/unit/${file%/*}/test_$name.c"
		echo "src/$file.c src/$file.h" >>"$good/src/Makefile.inc"
		echo "	tests/unit/${file%/*}/test_$name \\" >>"$good/tests/Makefile.inc"
	done
	in_tree "$good"
	find "$good" -exec touch -d '2000-01-01' {} +
	compile
}

in_tree() { top=$1 src=$1/src obj=$1/obj tests=$1/tests; }

# Objects are compiled as the build does it, so that a sanitizer's additions cannot hide a violation.
compile() {
	local file
	(cd "$src" && find . -name '*.c') | while read -r file; do
		[ "$src/$file" -nt "$obj/${file%.c}.o" ] || continue
		# shellcheck disable=SC2086 # both are lists of words
		${CC:-cc} ${TEST_CFLAGS:--O2} -w -Wno-error -I"$src" -c "$src/$file" -o "$obj/${file%.c}.o" || exit 1
	done
}

# planted RULE WHAT CODE [LATER]: CODE changes the good tree, LATER what was compiled from it; RULE
# must then complain.
planted() {
	rm -rf "$work/bad" && cp -a "$good" "$work/bad" && in_tree "$work/bad"
	eval "$3"
	if ! compile; then
		report "planted: $2" "cannot compile the planted tree"
		return
	fi
	eval "${4:-}"
	facts
	if [ -n "$("$1")" ]; then report "planted: $2" ''; else report "planted: $2" "$1 did not find it"; fi
}

code() { # code FILE TEXT: append to a file of the planted tree
	echo "$2" >>"$src/$1"
}

selftest() {
	if ! make_good_tree; then
		report 'the planted tree compiles' 'cannot compile'
		return
	fi
	violations=''
	run_rules collect
	report 'planted: a tree without a violation passes every rule' "$violations"

	planted rule_folders 'a file in no folder' 'code stray.h "int x;"'
	planted rule_folders 'a file in an unknown folder' 'mkdir "$src/misc"; code misc/a.h "int x;"'
	planted rule_folders 'a file in a folder of a folder' 'mkdir "$src/net/tls"; code net/tls/a.h "int x;"'
	planted rule_includes 'policy includes net' 'code policy/plan.c "#include \"net/dial.h\""'
	planted rule_includes 'net includes kernel' 'code net/dial.c "#include \"kernel/sysfs.h\""'
	planted rule_includes 'kernel includes net' 'code kernel/sysfs.h "# include \"net/dial.h\""'
	planted rule_includes 'an include without a folder' \
		'code daemon/record.c "#include \"other.h\""; touch "$src/daemon/other.h"'
	planted rule_includes 'an include in angle brackets' 'code daemon/record.c "#include <base/err.h>"'
	planted rule_cycles 'two files of one folder include each other' \
		'code net/dial.h "#include \"net/b.h\""; code net/b.h "#include \"net/dial.h\""; : >"$src/net/dial.c"'
	planted rule_library_headers 'libnl included by daemon/record' 'code daemon/record.c "#if 0
#include <netlink/netlink.h>
#endif"'
	planted rule_library_headers 'GnuTLS included by net/dial' 'code net/dial.c "#if 0
#include <gnutls/gnutls.h>
#endif"'
	planted rule_objects 'a source that is not compiled' : 'rm "$obj/policy/plan.o"'
	planted rule_library_calls 'libkmod called by kernel/sysfs' \
		'code kernel/sysfs.c "int kmod_new(void); int g(void) { return kmod_new(); }"'
	planted rule_library_calls 'uriparser called by proto/wire' \
		'code proto/wire.c "int uriParseUriA(void); int g(void) { return uriParseUriA(); }"'
	planted rule_calls 'base calls daemon without including it' \
		'code base/err.c "int record_f(const char *); int g(void) { return record_f(\"\"); }"'
	planted rule_calls 'kernel calls net' \
		'code kernel/sysfs.c "int dial_f(const char *); int g(void) { return dial_f(\"\"); }"'
	planted rule_pure_headers 'policy includes unistd.h' 'code policy/plan.c "#include <unistd.h>"'
	planted rule_pure_headers 'a header of base includes stdio.h' 'code base/err.h "#include <stdio.h>"'
	planted rule_pure_calls 'proto reads a descriptor' \
		'code proto/wire.c "long read(int, void *, unsigned long); long g(char *p) { return read(0, p, 1); }"'
	planted rule_pure_calls 'policy asks the clock' \
		'code policy/plan.c "long time(long *); long g(void) { return time((long *)0); }"'
	planted rule_pure_calls 'base reads the environment' \
		'code base/err.c "char *getenv(const char *); char *g(void) { return getenv(\"A\"); }"'
	planted rule_pure_calls 'proto prints' \
		'code proto/wire.c "int printf(const char *, ...); int g(int i) { return printf(\"%d\", i); }"'
	planted rule_loud 'daemon prints to standard error' \
		'code daemon/record.c "#include <stdio.h>
int g(int i) { return fprintf(stderr, \"%d\", i); }"'
	planted rule_loud 'net ends the process' 'code net/dial.c "void exit(int); void g(void) { exit(1); }"'
	planted rule_loud 'kernel ends a process that it has not forked' \
		'code kernel/sysfs.c "void _exit(int); void g(void) { _exit(1); }"'
	planted rule_mutable 'kernel has a counter' \
		'code kernel/sysfs.c "static int n; int g(void); int g(void) { return ++n; }"'
	planted rule_mutable 'base has an initialised variable' 'code base/err.c "int level = 3;"'
	planted rule_mutable 'policy has a thread variable' 'code policy/plan.c "_Thread_local int last;"'
	planted rule_mutable 'a table of proto is not constant' \
		'code proto/wire.c "const char *words[] = { \"a\", \"b\" };"'
	planted rule_unit_tests 'a source without a unit test' 'rm "$tests/unit/policy/test_plan.c"'
	planted rule_unit_tests 'a unit test in another folder' \
		'mv "$tests/unit/net/test_dial.c" "$tests/unit/kernel/"'
	planted rule_unit_tests 'a unit test that is not built' \
		'sed -i "s,tests/unit/policy/test_plan,# &," "$tests/Makefile.inc"'
	planted rule_unit_tests 'a unit test of nothing' 'echo "// x" >"$tests/unit/daemon/test_ghost.c"'
	planted rule_guest_tests 'a guest test that is not listed' 'echo "# x" >"$tests/vm/new.sh"'
	planted rule_makefile 'a header that is not listed' 'sed -i "s,src/policy/plan.h,," "$src/Makefile.inc"'
	planted rule_makefile 'a source that is listed twice' 'echo src/base/err.c >>"$src/Makefile.inc"'
	planted rule_names 'a static function of two files' 'code net/dial.c "static void sysfs_length(void)
{
}"'
	planted rule_names 'the same with its type on a line of its own' \
		'code net/dial.c "static const char *
sysfs_length(int a,
	     int b)
{
}"'
	planted rule_gnu_source 'a source with _GNU_SOURCE' 'code net/dial.h "#define _GNU_SOURCE"'
	planted rule_licence 'a source without a licence' 'sed -i 1d "$src/policy/plan.c"'
	planted rule_licence 'a script without a copyright' 'sed -i 2d "$top/scripts/run.sh"'
}

# --- run ----------------------------------------------------------------------------------------

count=0
report() { # report NAME VIOLATIONS
	count=$((count + 1))
	if [ -z "$2" ]; then
		echo "ok $count - $1"
	else
		echo "not ok $count - $1"
		printf '# %s\n' "${2//$'\n'/$'\n'# }"
	fi
}

collect() { # collect NAME VIOLATIONS
	[ -z "$2" ] || violations+="$1: $2"$'\n'
}

work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
good=$work/good

top=$(cd "${srcdir:-.}" && pwd) || exit 1
in_tree "$top"
obj=$PWD/src
run_rules report
selftest
echo "1..$count"
