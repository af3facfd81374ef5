/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "cli/opts.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../unit.h"

enum { MAX_WORDS = 16 };

/* A command line as one string; words are split at blanks, "''" is an empty one. */
static int parse(const char *line, char **argv, char *copy, size_t cap, struct opts *o,
		 struct err *e)
{
	char *save = NULL, *word;
	int argc = 0;

	ck_assert_uint_lt(strlen(line), cap);
	strcpy(copy, line);
	argv[argc++] = copy + strlen(line); /* "": the program's name is never looked at */
	for (word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
		ck_assert_int_lt(argc, MAX_WORDS);
		argv[argc++] = strcmp(word, "''") ? word : word + 2;
	}
	argv[argc] = NULL;
	err_clear(e);
	return opts_parse(argc, argv, o, e);
}

struct words {
	char *argv[MAX_WORDS + 1];
	char copy[512];
};

#define PARSE(w, line, o, e) parse(line, (w)->argv, (w)->copy, sizeof((w)->copy), o, e)

static const struct {
	const char *line;
	const char *says; /* part of the text */
} wrong[] = {
	{ "", "no HOST or URI" },
	{ "--bogus", "unknown option --bogus" },
	{ "-q", "unknown option -q" },
	{ "-rq host x nbd0", "unknown option -q" },
	{ "-b", "-b needs an argument" },
	{ "--timeout", "--timeout needs an argument" },
	{ "--read-only=yes host x nbd0", "--read-only=yes" },
	{ "host", "no HOST or URI" },
	{ "--nbdtab t host x nbd0", "--nbdtab is for --all and for a DEVICE alone" },
	{ "--nbdtab", "--nbdtab needs an argument" },
	{ "--all nbd0", "--all takes no operand" },
	{ "--all -r", "--read-only has no meaning with --all" },
	{ "--show nbd0", "--show is for --find and --all" },
	{ "-f nbd0", "HOST and EXPORT are needed" },
	{ "--command nbd0", "needs the server's" },
	{ "host nbd0", "HOST, EXPORT and DEVICE are needed" },
	{ "-f host", "HOST and EXPORT are needed" },
	{ "host x", "HOST, EXPORT and DEVICE are needed" },
	{ "nbd://host/x", "no HOST or URI" },
	{ "nbd://host/x nbd0 nbd1", "too many operands" },
	{ "host x nbd0 nbd1", "too many operands" },
	{ "-f host x nbd0", "none may be given" },
	{ "-f nbd://host/x nbd0", "none may be given" },
	{ "host x sda", "no nbd device" },
	{ "host x /dev/nbd0p1", "whole disk" },
	{ "host x nbd01", "no nbd device" },
	{ "host x nbd1048576", "no nbd device" },
	{ "host x /nowhere/at/all", "no nbd device" },
	{ "host:0 x nbd0", "port" },
	{ "http://host/x nbd0", "scheme" },
	{ "nbd://host/%00 nbd0", "export" },
	{ "host \xff nbd0", "UTF-8" },
	{ "-b 1000 host x nbd0", "power of two" },
	{ "-b 256 host x nbd0", "power of two" },
	{ "-b 4Q host x nbd0", "a number" },
	{ "-b 2M host x nbd0", "a number" },
	{ "-t -1 host x nbd0", "a number" },
	{ "-t 300000001 host x nbd0", "a number" },
	{ "-t 1.5 host x nbd0", "a number" },
	{ "-t 5K host x nbd0", "a number" },
	{ "--dead-timeout x host x nbd0", "a number" },
	{ "--dead-timeout 5 host x nbd0", "--dead-timeout is for --no-supervise" },
	{ "--peer-timeout 32768 host x nbd0", "a number" },
	{ "--reconnect-timeout x host x nbd0", "a number" },
	{ "--fence-delay -1 host x nbd0", "a number" },
	{ "--no-supervise --reconnect-timeout 5 host x nbd0", "are for a supervisor" },
	{ "--no-supervise --foreground host x nbd0", "--foreground is for a supervisor" },
	{ "--command --foreground nbd0 -- x", "--foreground is for a supervisor" },
	{ "--no-supervise --root host x nbd0", "are for a supervisor" },
	{ "--command --swap nbd0 -- x", "are for a supervisor" },
	{ "--no-supervise --keep-at-shutdown host x nbd0", "are for a supervisor" },
	{ "--no-supervise --fence-delay 5 host x nbd0", "are for a supervisor" },
	{ "--command --reconnect-timeout 5 nbd0 -- true", "are for a supervisor" },
	{ "--pause", "no DEVICE" },
	{ "--adopt bogus", "no nbd device" },
	{ "--resume --rescan nbd0", "exclude each other" },
	{ "--pause --peer-timeout 5 nbd0", "--peer-timeout has no meaning with --pause" },
	{ "nbd://a/x nbds://b/x nbd0", "are mixed" },
	{ "nbd://1/ nbd://2/ nbd://3/ nbd://4/ nbd://5/ nbd://6/ nbd://7/ nbd://8/ nbd://9/ nbd0",
	  "more than 8" },
	{ "--info nbd://a/x nbd://b/x", "too many operands" },
	{ "--connect-timeout 0 host x nbd0", "seconds" },
	{ "--connect-timeout 86401 host x nbd0", "seconds" },
	{ "--connect-timeout 1s host x nbd0", "seconds" },
	{ "--show host x nbd0", "--show is for --find" },
	{ "--list --detach nbd0", "exclude each other" },
	{ "--list -r", "--read-only has no meaning with --list" },
	{ "--detach -f nbd0", "--find has no meaning with --detach" },
	{ "--force host x nbd0", "--force has no meaning when attaching" },
	{ "--json host x nbd0", "--json has no meaning when attaching" },
	{ "--info -t 5 host x", "--timeout has no meaning with --info" },
	{ "--check --json nbd0", "--json has no meaning with --check" },
	{ "--list --command -- true", "--command has no meaning with --list" },
	{ "--detach", "no DEVICE" },
	{ "--detach nbd0 bogus", "no nbd device" },
	{ "--check", "one DEVICE" },
	{ "--check nbd0 nbd1", "one DEVICE" },
	{ "--list bogus", "no nbd device" },
	{ "--exports", "no HOST or URI" },
	{ "--exports host x", "too many operands" },
	{ "--info host", "HOST and EXPORT are needed" },
	{ "--map host", "HOST and EXPORT are needed" },
	{ "--map base:allocation host x", "the port \"allocation\"" },
	{ "--map= host x", "--map: \"\" is no meta context" },
	{ "--map=allocation host x", "\"allocation\" is no meta context" },
	{ "--map=a:b, host x", "\"\" is no meta context" },
	{ "--map=a:b,c:d,a:b host x", "\"a:b\" is given twice" },
	{ "--map=a:,b:,c:,d:,e:,f:,g:,h:,i:,j:,k:,l:,m:,n:,o:,p:,q: host x", "one too many" },
	{ "--map --info host x", "--map and --info exclude each other" },
	{ "--map -r host x", "--read-only has no meaning with --map" },
	{ "--map -O SIZE host x", "--output has no meaning with --map" },
	{ "--map --bytes host x", "--bytes has no meaning with --map" },
	{ "--map --tls-offload no host x", "--tls-offload has no meaning with --map" },
	{ "--info --totals host x", "--totals has no meaning with --info" },
	{ "--totals host x nbd0", "--totals has no meaning when attaching" },
	{ "--map host x nbd0", "too many operands" },
	{ "--info nbd://host/x nbd0", "too many operands" },
	{ "--command nbd0", "needs the server's command line" },
	{ "--command nbd0 --", "needs the server's command line" },
	{ "--command -- true", "no DEVICE" },
	{ "--command x y nbd0 -- true", "too many operands" },
	{ "-f --command x y -- true", "too many operands" },
	{ "--exports --command x y -- true", "too many operands" },
	{ "-C 0 host x nbd0", "auto or a number from 1 to 64" },
	{ "-C 65 host x nbd0", "auto or a number from 1 to 64" },
	{ "-C many host x nbd0", "--connections many: auto or a number" },
	{ "--info -C 2 host x", "--connections has no meaning with --info" },
	{ "-C 2 --command nbd0 -- true", "serves one connection" },
	{ "--force-multi-conn host x nbd0", "--force-multi-conn is for --connections" },
	{ "--force-multi-conn -C 1 host x nbd0", "--force-multi-conn is for --connections" },
	{ "-C 2 -t 0 host x nbd0", "several --connections need a time limit" },
	{ "--list --tls", "--tls has no meaning with --list" },
	{ "--list --tls-ca f", "--tls-ca has no meaning with --list" },
	{ "--check --tls-no-verify nbd0", "--tls-no-verify has no meaning with --check" },
	{ "--detach --tls-psk-file f nbd0", "--tls-psk-file has no meaning with --detach" },
	{ "--tls=yes host x nbd0", "--tls=yes" },
	{ "--tls-no-verify=1 host x nbd0", "--tls-no-verify=1" },
	{ "--tls-offload host x nbd0", "--tls-offload needs auto, require or no" },
	{ "--tls-offload yes host x nbd0", "--tls-offload needs auto" },
	{ "--tls-offload '' host x nbd0", "--tls-offload" },
	{ "--info --tls-offload no host x", "--tls-offload has no meaning with --info" },
	{ "--tls-ca", "--tls-ca needs an argument" },
	{ "--tls-priority", "--tls-priority needs an argument" },
	{ "--tls-ca '' host x nbd0", "--tls-ca needs 1 to 1023 bytes" },
	{ "--tls-crl '' host x nbd0", "--tls-crl needs 1 to 1023 bytes" },
	{ "--tls-cert '' host x nbd0", "--tls-cert needs 1 to 1023 bytes" },
	{ "--tls-key '' host x nbd0", "--tls-key needs 1 to 1023 bytes" },
	{ "--tls-psk-file '' host x nbd0", "--tls-psk-file needs 1 to 1023 bytes" },
	{ "--tls-psk-user '' host x nbd0", "--tls-psk-user needs 1 to 255 bytes" },
	{ "--tls-hostname '' host x nbd0", "--tls-hostname needs 1 to 255 bytes" },
	{ "--tls-priority '' host x nbd0", "--tls-priority needs 1 to 511 bytes" },
};

START_TEST(wrong_lines)
{
	struct words w;
	struct opts o;
	struct err e;

	ck_assert_int_eq(PARSE(&w, wrong[_i].line, &o, &e), -EINVAL);
	ck_assert_msg(e.kind == ERR_USAGE, "%s: kind %d", wrong[_i].line, e.kind);
	ck_assert_msg(strstr(e.text, wrong[_i].says) != NULL, "%s: %s", wrong[_i].line, e.text);
	ck_assert_ptr_null(strchr(e.text, '\n'));
}
END_TEST

/* What the wrong ones differ from; all that is not named has its default. */
static const struct {
	const char *line;
	enum opts_command command;
	unsigned index;
	unsigned devices;
	const char *host, *export;
} right[] = {
	{ "host x nbd0", OPTS_ATTACH, 0, 1, "host", "x" },
	{ "host x /dev/nbd15", OPTS_ATTACH, 15, 1, "host", "x" },
	{ "host '' nbd7", OPTS_ATTACH, 7, 1, "host", "" },
	{ "nbd://host/x nbd3", OPTS_ATTACH, 3, 1, "host", "x" },
	{ "host -r x nbd0", OPTS_ATTACH, 0, 1, "host", "x" },
	{ "-- host x nbd1", OPTS_ATTACH, 1, 1, "host", "x" },
	{ "host -- -x nbd1", OPTS_ATTACH, 1, 1, "host", "-x" },
	{ "-f host x", OPTS_ATTACH, 0, 0, "host", "x" },
	{ "--find --show nbd://host/x", OPTS_ATTACH, 0, 0, "host", "x" },
	{ "--command nbd2 -- true", OPTS_ATTACH, 2, 1, "", "" },
	{ "--command disk nbd2 -- true --list", OPTS_ATTACH, 2, 1, "", "disk" },
	{ "-f --command -- true", OPTS_ATTACH, 0, 0, "", "" },
	{ "-f --command disk -- true", OPTS_ATTACH, 0, 0, "", "disk" },
	{ "nbd5", OPTS_TAB, 5, 1, "", "" },
	{ "/dev/nbd5 -r --nbdtab t", OPTS_TAB, 5, 1, "", "" },
	{ "-- nbd6", OPTS_TAB, 6, 1, "", "" },
	{ "-a", OPTS_ALL, 0, 0, "", "" },
	{ "--all --nbdtab t --show", OPTS_ALL, 0, 0, "", "" },
	{ "-d nbd1", OPTS_DETACH, 1, 1, "", "" },
	{ "--detach --force nbd4 nbd5", OPTS_DETACH, 4, 2, "", "" },
	{ "-l", OPTS_LIST, 0, 0, "", "" },
	{ "--list --json -O SIZE --bytes nbd1 nbd2", OPTS_LIST, 1, 2, "", "" },
	{ "-c nbd9", OPTS_CHECK, 9, 1, "", "" },
	{ "--exports host", OPTS_EXPORTS, 0, 0, "host", "" },
	{ "--exports nbd://host/x", OPTS_EXPORTS, 0, 0, "host", "x" },
	{ "--exports --command -- true", OPTS_EXPORTS, 0, 0, "", "" },
	{ "--info host x", OPTS_INFO, 0, 0, "host", "x" },
	{ "--info nbd://host/x", OPTS_INFO, 0, 0, "host", "x" },
	{ "--info --command x -- true", OPTS_INFO, 0, 0, "", "x" },
	{ "--map host x", OPTS_MAP, 0, 0, "host", "x" },
	{ "--map=a:b,c:d nbd://host/x", OPTS_MAP, 0, 0, "host", "x" },
	{ "host x --map --json --totals -n -t 5", OPTS_MAP, 0, 0, "host", "x" },
	{ "--map --command -- true", OPTS_MAP, 0, 0, "", "" },
	{ "--help", OPTS_HELP, 0, 0, "", "" },
	{ "--list --help", OPTS_HELP, 0, 0, "", "" },
	{ "-V", OPTS_VERSION, 0, 0, "", "" },
};

START_TEST(right_lines)
{
	struct words w;
	struct opts o;
	struct err e;

	ck_assert_msg(!PARSE(&w, right[_i].line, &o, &e), "%s: %s", right[_i].line, e.text);
	ck_assert_int_eq((int)o.command, (int)right[_i].command);
	ck_assert_uint_eq(o.device_count, right[_i].devices);
	ck_assert_uint_eq(o.index, right[_i].index);
	ck_assert_str_eq(o.settings.servers[0].host, right[_i].host);
	ck_assert_str_eq(o.settings.servers[0].export, right[_i].export);
}
END_TEST

START_TEST(defaults)
{
	struct words w;
	struct opts o;
	struct err e;

	ck_assert_int_eq(PARSE(&w, "host x nbd0", &o, &e), 0);
	ck_assert_uint_eq(o.settings.block_size, 0);
	ck_assert_uint_eq(o.settings.timeout_s, 30);
	ck_assert_uint_eq(o.settings.dead_timeout_s, 0);
	ck_assert_uint_eq(o.settings.connect_timeout_ms, 30000);
	ck_assert(!o.find && !o.show && !o.settings.read_only && !o.force);
	ck_assert(o.settings.multi.wanted <= 1 && !o.settings.multi.automatic &&
		  !o.settings.multi.force && !o.settings.multi.read_only);
	ck_assert_uint_eq(o.settings.command.count, 0);
}
END_TEST

START_TEST(values)
{
	struct words w;
	struct opts o;
	struct err e;

	ck_assert_int_eq(
		PARSE(&w,
		      "-b 4K -t 0 --no-supervise --dead-timeout 60 --connect-timeout 0.25 -r host x "
		      "nbd0",
		      &o, &e),
		0);
	ck_assert_uint_eq(o.settings.block_size, 4096);
	ck_assert_uint_eq(o.settings.timeout_s, 0);
	ck_assert_uint_eq(o.settings.dead_timeout_s, 60);
	ck_assert_uint_eq(o.settings.connect_timeout_ms, 250);
	ck_assert(o.settings.read_only);
	ck_assert_int_eq(PARSE(&w, "-r -C 4 --force-multi-conn host x nbd0", &o, &e), 0);
	ck_assert_uint_eq(o.settings.multi.wanted, 4);
	ck_assert(!o.settings.multi.automatic && o.settings.multi.force &&
		  o.settings.multi.read_only);
	ck_assert_int_eq(PARSE(&w, "--connections auto host x nbd0", &o, &e), 0);
	ck_assert(o.settings.multi.automatic && !o.settings.multi.force &&
		  !o.settings.multi.read_only);
	ck_assert_int_eq(
		PARSE(&w,
		      "--peer-timeout 4 --reconnect-timeout 60 nbd://a/x nbd://b/y nbd://c/z nbd0",
		      &o, &e),
		0);
	ck_assert_uint_eq(o.settings.peer_timeout_s, 4);
	ck_assert_uint_eq(o.settings.supervision.reconnect_timeout_s, 60);
	ck_assert_uint_eq(settings_fence_delay(&o.settings), 4);
	ck_assert_uint_eq(o.settings.server_count, 3);
	ck_assert_str_eq(o.settings.servers[2].host, "c");
	ck_assert_str_eq(o.settings.servers[2].export, "z");
	ck_assert_int_eq(PARSE(&w, "--fence-delay 0 host x nbd0", &o, &e), 0);
	ck_assert_uint_eq(settings_fence_delay(&o.settings), 0);
	ck_assert(!o.settings.supervision.none &&
		  !settings_given(&o.settings, &o.settings.timeout_s));
	ck_assert_int_eq(PARSE(&w, "--tls nbd://a/x nbd://b/y nbd0", &o, &e), 0);
	ck_assert(o.settings.servers[0].tls && o.settings.servers[1].tls);
	ck_assert_int_eq(PARSE(&w, "-C auto --command nbd0 -- true", &o, &e), 0);
	ck_assert_int_eq(PARSE(&w, "-f --show host x", &o, &e), 0);
	ck_assert(o.find && o.show);
	ck_assert_int_eq(PARSE(&w, "--list -n --json --bytes -O SIZE,RO", &o, &e), 0);
	ck_assert(o.no_headings && o.json && o.bytes);
	ck_assert_str_eq(o.columns, "SIZE,RO");
}
END_TEST

START_TEST(nbdtab)
{
	struct words w;
	struct opts o;
	struct err e;

	ck_assert_int_eq(PARSE(&w, "nbd4", &o, &e), 0);
	ck_assert_str_eq(o.nbdtab, NBD_ATTACH_NBDTAB);
	ck_assert_int_eq(PARSE(&w, "--all --nbdtab t", &o, &e), 0);
	ck_assert_str_eq(o.nbdtab, "t");
	ck_assert_int_eq(PARSE(&w, "nbd4 --nbdtab t -r", &o, &e), 0);
	ck_assert_int_eq((int)o.command, OPTS_TAB);
	ck_assert(o.settings.read_only && o.index == 4);
	ck_assert_uint_eq(o.settings.server_count, 0);
}
END_TEST

START_TEST(metactx_of_a_map)
{
	struct words w;
	struct opts o;
	struct err e;

	ck_assert_int_eq(PARSE(&w, "--map host x", &o, &e), 0);
	ck_assert_uint_eq(o.contexts.count, 1);
	ck_assert_str_eq(metactx_name(&o.contexts, 0), "base:allocation");
	ck_assert(!o.totals);
	ck_assert_int_eq(PARSE(&w, "--map=qemu:dirty-bitmap:b,x: --totals host x", &o, &e), 0);
	ck_assert_uint_eq(o.contexts.count, 2);
	ck_assert_str_eq(metactx_name(&o.contexts, 0), "qemu:dirty-bitmap:b");
	ck_assert_str_eq(metactx_name(&o.contexts, 1), "x:");
	ck_assert(o.totals);
	/* the last one counts */
	ck_assert_int_eq(PARSE(&w, "--map=a:b --map host x", &o, &e), 0);
	ck_assert_uint_eq(o.contexts.count, 1);
	ck_assert_str_eq(metactx_name(&o.contexts, 0), "base:allocation");
	ck_assert_int_eq(PARSE(&w, "--info host x", &o, &e), 0);
	ck_assert_uint_eq(o.contexts.count, 0);
}
END_TEST

START_TEST(command_words)
{
	static const char words[] = "nbdkit\0-s\0--\0--list";
	struct words w;
	struct opts o;
	struct err e;

	ck_assert_int_eq(PARSE(&w, "--command nbd0 -- nbdkit -s -- --list", &o, &e), 0);
	ck_assert_uint_eq(o.settings.command.count, 4);
	ck_assert_mem_eq(o.settings.command.words, words, sizeof(words));
	ck_assert(o.settings.supervision.none);
}
END_TEST

START_TEST(long_export)
{
	char line[URI_EXPORT_MAX + 64], copy[sizeof(line)], *argv[MAX_WORDS + 1];
	struct opts o;
	struct err e;
	int n = sprintf(line, "-f --command ");

	memset(line + n, 'x', URI_EXPORT_MAX);
	strcpy(line + n + URI_EXPORT_MAX, " -- true");
	ck_assert_int_eq(parse(line, argv, copy, sizeof(copy), &o, &e), 0);
	memset(line + n, 'x', URI_EXPORT_MAX + 1);
	strcpy(line + n + URI_EXPORT_MAX + 1, " -- true");
	ck_assert_int_lt(parse(line, argv, copy, sizeof(copy), &o, &e), 0);
	ck_assert_ptr_nonnull(strstr(e.text, "4096"));
}
END_TEST

/* --- TLS -------------------------------------------------------------------------------------- */

/* Where each text of TLS goes, and how long it may be. */
static const struct {
	const char *name;
	size_t offset, max;
} tls_texts[] = {
	{ "--tls-ca", offsetof(struct tls_params, ca), 1023 },
	{ "--tls-crl", offsetof(struct tls_params, crl), 1023 },
	{ "--tls-cert", offsetof(struct tls_params, cert), 1023 },
	{ "--tls-key", offsetof(struct tls_params, key), 1023 },
	{ "--tls-psk-file", offsetof(struct tls_params, psk_file), 1023 },
	{ "--tls-psk-user", offsetof(struct tls_params, psk_user), 255 },
	{ "--tls-hostname", offsetof(struct tls_params, hostname), 255 },
	{ "--tls-priority", offsetof(struct tls_params, priority), 511 },
};
enum { TLS_TEXTS = sizeof(tls_texts) / sizeof(tls_texts[0]) };

static const char *tls_text(const struct opts *o, size_t i)
{
	return (const char *)&o->settings.tls + tls_texts[i].offset;
}

/* The text is where it belongs and nowhere else, and means that TLS is required. */
START_TEST(tls_text_goes_to_its_place)
{
	static const struct {
		const char *before, *after;
	} around[] = {
		{ "", "host x nbd0" },
		{ "-f", "nbd://host/x" },
		{ "--info", "host x" },
		{ "--exports", "host" },
		{ "--map", "host x" },
		{ "--command", "nbd0 -- true" },
		{ "nbd+unix:///x?socket=s nbd0", "" },
	};
	char line[128];
	struct words w;
	struct opts o;
	struct err e;

	for (size_t f = 0; f < sizeof(around) / sizeof(around[0]); f++) {
		snprintf(line, sizeof(line), "%s %s /a/b:c %s", around[f].before,
			 tls_texts[_i].name, around[f].after);
		ck_assert_msg(!PARSE(&w, line, &o, &e), "%s: %s", line, e.text);
		ck_assert_msg(o.settings.servers[0].tls, "%s does not require TLS", line);
		ck_assert(!o.settings.tls.no_verify && !o.settings.tls.directory[0]);
		for (size_t i = 0; i < TLS_TEXTS; i++)
			ck_assert_msg(!strcmp(tls_text(&o, i), i == (size_t)_i ? "/a/b:c" : ""),
				      "%s: %s is \"%s\"", line, tls_texts[i].name, tls_text(&o, i));
	}
}
END_TEST

START_TEST(tls_text_has_a_length)
{
	char value[1100], name[64], host[] = "host", x[] = "x", dev[] = "nbd0";
	char *argv[] = { host, name, value, host, x, dev, NULL };
	size_t max = tls_texts[_i].max;
	struct opts o;
	struct err e;

	strcpy(name, tls_texts[_i].name);
	memset(value, 'v', sizeof(value));
	value[max] = '\0';
	ck_assert_int_eq(opts_parse(6, argv, &o, &e), 0);
	ck_assert_str_eq(tls_text(&o, (size_t)_i), value);
	memset(value, 'v', sizeof(value));
	value[max + 1] = '\0';
	ck_assert_int_eq(opts_parse(6, argv, &o, &e), -EINVAL);
	ck_assert_int_eq(e.kind, ERR_USAGE);
	ck_assert_ptr_nonnull(strstr(e.text, tls_texts[_i].name));
}
END_TEST

START_TEST(tls_without_a_text)
{
	struct words w;
	struct opts o;
	struct err e;

	ck_assert_int_eq(PARSE(&w, "host x nbd0", &o, &e), 0);
	ck_assert(!o.settings.servers[0].tls && !o.settings.tls.no_verify &&
		  !o.settings.tls.directory[0]);
	ck_assert_int_eq(PARSE(&w, "nbd://host/x nbd0", &o, &e), 0);
	ck_assert(!o.settings.servers[0].tls);
	ck_assert_int_eq(PARSE(&w, "nbds://host/x nbd0", &o, &e), 0);
	ck_assert(o.settings.servers[0].tls);
	ck_assert_int_eq(PARSE(&w, "--tls host x nbd0", &o, &e), 0);
	ck_assert(o.settings.servers[0].tls && !o.settings.tls.no_verify &&
		  !o.settings.tls.directory[0]);
	ck_assert_int_eq(PARSE(&w, "--tls nbd://host/x nbd0", &o, &e), 0);
	ck_assert(o.settings.servers[0].tls);
	ck_assert_int_eq(PARSE(&w, "--command --tls nbd0 -- true", &o, &e), 0);
	ck_assert(o.settings.servers[0].tls);
	/* those of a command are its own */
	ck_assert_int_eq(PARSE(&w, "--command nbd0 -- true --tls", &o, &e), 0);
	ck_assert(!o.settings.servers[0].tls);
	ck_assert_int_eq(PARSE(&w, "--tls-no-verify host x nbd0", &o, &e), 0);
	ck_assert(o.settings.servers[0].tls && o.settings.tls.no_verify);
	ck_assert_int_eq(PARSE(&w, "--tls-certificates /d host x nbd0", &o, &e), 0);
	ck_assert(o.settings.servers[0].tls);
	ck_assert_str_eq(o.settings.tls.directory, "/d");
	for (size_t i = 0; i < TLS_TEXTS; i++)
		ck_assert_str_eq(tls_text(&o, i), "");
	ck_assert_int_eq((int)o.settings.tls.offload, TLS_OFFLOAD_AUTO);
	ck_assert_int_eq(PARSE(&w, "--tls-offload auto host x nbd0", &o, &e), 0);
	ck_assert(o.settings.servers[0].tls && o.settings.tls.offload == TLS_OFFLOAD_AUTO);
	ck_assert_int_eq(PARSE(&w, "--tls-offload require host x nbd0", &o, &e), 0);
	ck_assert(o.settings.servers[0].tls && o.settings.tls.offload == TLS_OFFLOAD_REQUIRE);
	ck_assert_int_eq(PARSE(&w, "--tls-offload no host x nbd0", &o, &e), 0);
	ck_assert(o.settings.servers[0].tls && o.settings.tls.offload == TLS_OFFLOAD_NO);
}
END_TEST

START_TEST(device_by_link)
{
	char dir[] = "/tmp/test_opts.XXXXXX", path[64];
	struct err e;
	unsigned index = 0;

	/* Neither a link that leads nowhere is a device, nor one to another name. */
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/link", dir);
	ck_assert_int_eq(symlink("/dev/null", path), 0);
	ck_assert_int_eq(opts_device(path, &index, &e), -EINVAL);
	unlink(path);
	if (!access("/dev/nbd5", F_OK)) {
		ck_assert_int_eq(symlink("/dev/nbd5", path), 0);
		ck_assert_int_eq(opts_device(path, &index, &e), 0);
		ck_assert_uint_eq(index, 5);
		unlink(path);
	}
	rmdir(dir);
}
END_TEST

START_TEST(help_names_every_option)
{
	static const char *const names[] = {
		"--detach",
		"--list",
		"--check",
		"--exports",
		"--info",
		"--map[=CONTEXT,...]",
		"--totals",
		"--help",
		"--version",
		"--find",
		"--show",
		"--read-only",
		"--block-size BYTES",
		"--timeout SECONDS",
		"--dead-timeout SECONDS",
		"--connect-timeout SECONDS",
		"--command",
		"--force",
		"--connections N|auto",
		"--force-multi-conn",
		"--allow-overlap",
		"--no-supervise",
		"--foreground",
		"--root",
		"--swap",
		"--keep-at-shutdown",
		"--peer-timeout SECONDS",
		"--reconnect-timeout SECONDS",
		"--fence-delay SECONDS",
		"--pause",
		"--resume",
		"--rescan",
		"--adopt",
		"--output COLUMNS",
		"--noheadings",
		"--json",
		"--bytes",
		"--tls ",
		"--tls-ca FILE",
		"--tls-crl FILE",
		"--tls-cert FILE",
		"--tls-key FILE",
		"--tls-certificates DIR",
		"--tls-offload WHO",
		"--tls-renew RECORDS",
		"--tls-hostname NAME",
		"--tls-no-verify",
		"--tls-psk-file FILE",
		"--tls-psk-user NAME",
		"--tls-priority STRING",
	};
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	opts_help(f);
	fclose(f);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		ck_assert_msg(strstr(text, names[i]) != NULL, "%s is not in --help", names[i]);
	free(text);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("opts");
	TCase *t = tcase_create("opts");

	tcase_add_loop_test(t, wrong_lines, 0, sizeof(wrong) / sizeof(wrong[0]));
	tcase_add_loop_test(t, right_lines, 0, sizeof(right) / sizeof(right[0]));
	tcase_add_test(t, defaults);
	tcase_add_test(t, values);
	tcase_add_test(t, nbdtab);
	tcase_add_test(t, metactx_of_a_map);
	tcase_add_test(t, command_words);
	tcase_add_test(t, long_export);
	tcase_add_loop_test(t, tls_text_goes_to_its_place, 0, TLS_TEXTS);
	tcase_add_loop_test(t, tls_text_has_a_length, 0, TLS_TEXTS);
	tcase_add_test(t, tls_without_a_text);
	tcase_add_test(t, device_by_link);
	tcase_add_test(t, help_names_every_option);
	suite_add_tcase(s, t);
	return s;
}
