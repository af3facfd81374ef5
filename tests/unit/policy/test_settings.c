/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "policy/settings.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../settings_text.h"
#include "../unit.h"

static const struct settings_row *find(const char *name)
{
	const struct settings_row *row = settings_find(name, SETTINGS_RECORD);

	ck_assert_msg(row != NULL, "no row %s", name);
	return row;
}

static void set(struct settings *s, const char *name, const char *text)
{
	struct err e = { 0 };

	ck_assert_msg(!settings_set(s, find(name), name, text, &e), "%s %s: %s", name,
		      text ? text : "", e.text);
}

/* --- one value -------------------------------------------------------------------------------- */

/* What is taken, and what the record makes of it. */
static const struct {
	const char *name, *text, *record;
} values[] = {
	{ "read-only", NULL, "1" },
	{ "read-only", "1", "1" },
	{ "block-size", "512", "512" },
	{ "block-size", "4K", "4096" },
	{ "block-size", "1MiB", "1048576" },
	{ "connections", "auto", "auto" },
	{ "connections", "1", "1" },
	{ "connections", "64", "64" },
	{ "timeout", "0", "0" },
	{ "timeout", "30", "30" }, /* given, and so it stays */
	{ "timeout", "300000000", "300000000" },
	{ "peer-timeout", "0", "0" },
	{ "peer-timeout", "32767", "32767" },
	{ "connect-timeout", "0.001", "0.001" },
	{ "connect-timeout", "30", "30.000" },
	{ "connect-timeout", "86400", "86400.000" },
	{ "tls-renew", "0", "0" },
	{ "tls-renew", "4294967295", "4294967295" },
	{ "tls-offload", "auto", "auto" },
	{ "tls-offload", "require", "require" },
	{ "tls-offload", "no", "no" },
	{ "tls-ca", "x", "x" },
	{ "tls-ca", " \n%=,", " \n%=," },
	{ "server", "NBD://Host/x%2Fy", "nbd://host:10809/x/y" },
	{ "server", "nbds+unix:///?socket=/run/s", "nbds+unix:///?socket=/run/s" },
};

START_TEST(right_values)
{
	static struct settings s;
	char value[SETTINGS_VALUE_MAX];

	settings_init(&s);
	set(&s, values[_i].name, values[_i].text);
	ck_assert(settings_row_given(&s, find(values[_i].name)));
	ck_assert(settings_get(&s, find(values[_i].name), 0, value, sizeof(value)));
	ck_assert_str_eq(value, values[_i].record);
	ck_assert(!settings_get(&s, find(values[_i].name), 1, value, sizeof(value)));
}
END_TEST

static const struct {
	const char *name, *text;
	const char *says;
} wrong[] = {
	{ "read-only", "0", "CALLED is 1 or not there" },
	{ "read-only", "", "CALLED is 1" },
	{ "block-size", "", "CALLED : a number from 0 to 1048576 is needed" },
	{ "block-size", "0", "CALLED 0: a power of two of at least 512 is needed" },
	{ "block-size", "256", "CALLED 256: a power of two of at least 512 is needed" },
	{ "block-size", "1000", "CALLED 1000: a power of two" },
	{ "block-size", "2M", "CALLED 2M: a number" },
	{ "block-size", "-512", "CALLED -512: a number" },
	{ "connections", "0", "CALLED 0: auto or a number from 1 to 64 is needed" },
	{ "connections", "65", "CALLED 65: auto or" },
	{ "connections", "automatic", "CALLED automatic: auto or" },
	{ "timeout", "300000001", "CALLED 300000001: a number from 0 to 300000000 is needed" },
	{ "timeout", "1K", "CALLED 1K: a number" },
	{ "timeout", "1.5", "CALLED 1.5: a number" },
	{ "timeout", "\x1b[2J", "CALLED \\x1b[2J: a number" },
	{ "peer-timeout", "32768", "from 0 to 32767" },
	{ "tls-renew", "4294967296", "from 0 to 4294967295" },
	{ "connect-timeout", "0", "CALLED 0: seconds from 0.001 to 86400 are needed" },
	{ "connect-timeout", "0.0001", "seconds from" },
	{ "connect-timeout", "86400.001", "seconds from" },
	{ "connect-timeout", "1s", "seconds from" },
	{ "tls-offload", "yes", "CALLED needs auto, require or no" },
	{ "tls-offload", "", "CALLED needs auto" },
	{ "tls-offload", "requir", "CALLED needs auto" },
	{ "tls-ca", "", "CALLED needs 1 to 1023 bytes" },
	{ "tls-psk-user", "", "CALLED needs 1 to 255 bytes" },
	{ "tls-priority", "", "CALLED needs 1 to 511 bytes" },
	{ "server", "host", "scheme" },
	{ "server", "nbd://h/%00", "export" },
	{ "export", "\xff", "not UTF-8" },
};

/* Nothing is set then. */
START_TEST(wrong_values)
{
	static struct settings s, before;
	struct err e = { 0 };
	int ret;

	settings_init(&s);
	before = s;
	ret = settings_set(&s, find(wrong[_i].name), "CALLED", wrong[_i].text, &e);
	ck_assert_int_lt(ret, 0);
	ck_assert_int_eq((int)e.kind, ERR_USAGE);
	ck_assert_int_eq(e.code, -ret);
	ck_assert_msg(strstr(e.text, wrong[_i].says) != NULL, "%s: %s", wrong[_i].text, e.text);
	ck_assert_mem_eq(&s, &before, sizeof(s));
}
END_TEST

/* Every text, as long as it may be and one byte more; a shorter one leaves nothing of it. */
START_TEST(lengths)
{
	static struct settings s, short_one;
	char text[TLS_PATH_MAX + 2], value[SETTINGS_VALUE_MAX];
	struct err e = { 0 };
	unsigned texts = 0;

	for (const struct settings_row *row = settings_rows; row->name; row++) {
		if (row->type != SETTINGS_TEXT && row->type != SETTINGS_FILE)
			continue;
		texts++;
		ck_assert_uint_le(row->max, TLS_PATH_MAX);
		memset(text, 'x', sizeof(text));
		text[row->max + 1] = '\0';
		settings_init(&s);
		ck_assert_int_eq(settings_set(&s, row, "it", text, &e), -EINVAL);
		text[row->max] = '\0';
		ck_assert_int_eq(settings_set(&s, row, "it", text, &e), 0);
		ck_assert(settings_get(&s, row, 0, value, sizeof(value)));
		ck_assert_str_eq(value, text);
		ck_assert_int_eq(settings_set(&s, row, "it", "y", &e), 0);
		settings_init(&short_one);
		ck_assert_int_eq(settings_set(&short_one, row, "it", "y", &e), 0);
		ck_assert_mem_eq(&s, &short_one, sizeof(s));
	}
	ck_assert_uint_ge(texts, 9);
}
END_TEST

START_TEST(defaults)
{
	static struct settings s;
	static char line[SETTINGS_LINE_MAX];

	memset(&s, 0x5a, sizeof(s));
	settings_init(&s);
	ck_assert_uint_eq(s.timeout_s, 30);
	ck_assert_uint_eq(s.peer_timeout_s, 15);
	ck_assert_uint_eq(s.connect_timeout_ms, 30000);
	ck_assert_uint_eq(s.tls.renew, 12000000);
	ck_assert_uint_eq(s.block_size, 0);
	ck_assert_uint_eq(s.server_count, 0);
	ck_assert(!settings_given(&s, &s.timeout_s));
	ck_assert(!settings_is_vital(&s));
	ck_assert_uint_eq(settings_fence_delay(&s), 15);
	settings_line(&s, line);
	ck_assert_str_eq(line, "");
}
END_TEST

/* What was found out, and not given, is recorded as well. */
START_TEST(found_out)
{
	static struct settings s;
	static char line[SETTINGS_LINE_MAX];

	settings_init(&s);
	strcpy(s.tls.ca, "/etc/ca.pem");
	s.supervision.none = true;
	s.timeout_s = 7;
	settings_line(&s, line);
	ck_assert_str_eq(line, "--timeout=7 --no-supervise --tls-ca=/etc/ca.pem");
	ck_assert(!settings_given(&s, &s.timeout_s));
}
END_TEST

/* --- the record: every row -------------------------------------------------------------------- */

/* A value that is not the default. */
static const char *sample(const struct settings_row *row, char text[64])
{
	switch (row->type) {
	case SETTINGS_FLAG:
		return "1";
	case SETTINGS_NUMBER:
		snprintf(text, 64, "%llu", (unsigned long long)row->max - 1);
		return text;
	case SETTINGS_SIZE:
		return "2K";
	case SETTINGS_DURATION:
		return "0.25";
	case SETTINGS_TEXT:
	case SETTINGS_FILE:
		snprintf(text, 64, "/%s %%\n", row->name);
		return text;
	case SETTINGS_CHOICE:
		return row->choice[1];
	default:
		return !strcmp(row->name, "connections") ? "auto" :
		       !strcmp(row->name, "server")      ? "nbd://[::1]:7/x%20y" :
							   "a word";
	}
}

START_TEST(round_trip)
{
	static struct settings s, again, fresh;
	char value[SETTINGS_VALUE_MAX], text[64];
	struct err e = { 0 };
	unsigned rows = 0;

	settings_init(&fresh);
	for (const struct settings_row *row = settings_rows; row->name; row++, rows++) {
		settings_init(&s);
		settings_init(&again);
		/* its own text is another server's without one */
		if (!strcmp(row->name, "export")) {
			set(&s, "command", "true");
			set(&again, "command", "true");
		}
		ck_assert_msg(!settings_set(&s, row, row->name, sample(row, text), &e), "%s: %s",
			      row->name, e.text);
		fresh.given = s.given;
		ck_assert_msg(memcmp(&s, &fresh, sizeof(s)), "%s sets nothing", row->name);
		ck_assert_msg(settings_get(&s, row, 0, value, sizeof(value)), "%s is not recorded",
			      row->name);
		ck_assert_msg(!settings_set(&again, row, row->name, value, &e), "%s: %s", row->name,
			      e.text);
		ck_assert_msg(!memcmp(&s, &again, sizeof(s)), "%s %s differs", row->name, value);
	}
	ck_assert_uint_gt(rows, 28);
}
END_TEST

/* --- the table -------------------------------------------------------------------------------- */

static bool is_same(const char *a, const char *b)
{
	return a && b && !strcmp(a, b);
}

/* A name, or a letter, stands for one row in each place. */
START_TEST(names)
{
	for (const struct settings_row *a = settings_rows; a->name; a++) {
		ck_assert_msg(a->places & 1U << SETTINGS_RECORD, "%s is not recorded", a->name);
		ck_assert_msg(!a->nbdtab || a->places & 1U << SETTINGS_NBDTAB, "%s", a->name);
		ck_assert_msg(!a->client == !a->client_letter, "%s", a->name);
		ck_assert_msg(!a->nbdtab || strcmp(a->nbdtab, a->name), "%s twice", a->name);
		for (const struct settings_row *b = a + 1; b->name; b++) {
			ck_assert_msg(strcmp(a->name, b->name), "two rows %s", a->name);
			ck_assert_msg(!is_same(a->nbdtab, b->nbdtab), "two of %s", a->nbdtab);
			ck_assert_msg(!is_same(a->nbdtab, b->name), "two of %s", a->nbdtab);
			ck_assert_msg(!is_same(a->name, b->nbdtab), "two of %s", a->name);
			ck_assert_msg(!is_same(a->client, b->client), "two of %s", a->client);
			ck_assert_msg(!a->letter || a->letter != b->letter, "two of -%c",
				      a->letter);
			ck_assert_msg(!a->client || a->client_letter != b->client_letter,
				      "two of -%c", a->client_letter);
			ck_assert_msg(a->offset != b->offset, "%s and %s are one member", a->name,
				      b->name);
		}
	}
}
END_TEST

/* Whatever a user can write has a help text; what only the record has is nowhere else. */
START_TEST(helps)
{
	const unsigned users = (1U << SETTINGS_PLACES) - 1 - (1U << SETTINGS_RECORD);

	for (const struct settings_row *row = settings_rows; row->name; row++) {
		ck_assert_msg(!row->help == !(row->places & users), "%s", row->name);
		ck_assert_msg(!row->help || row->group != SETTINGS_GROUP_COMMAND, "%s", row->name);
		ck_assert_msg((row->type == SETTINGS_FLAG) == !row->argument, "%s", row->name);
		ck_assert_msg((row->type == SETTINGS_SPECIAL) == !!row->read, "%s", row->name);
		ck_assert_msg((row->type == SETTINGS_SPECIAL) == !!row->write, "%s", row->name);
		ck_assert_msg(row->type != SETTINGS_NUMBER || row->max, "%s has no limit",
			      row->name);
	}
}
END_TEST

START_TEST(places)
{
	static const struct {
		const char *name;
		enum settings_place place;
		const char *row; /* NULL: not there */
	} table[] = {
		{ "read-only", SETTINGS_ATTACH, "read-only" },
		{ "read-only", SETTINGS_NBDTAB, "read-only" },
		{ "read-only", SETTINGS_RECORD, "read-only" },
		{ "read-only", SETTINGS_MAP, NULL },
		{ "read-only", SETTINGS_INFO, NULL },
		{ "read-only", SETTINGS_EXPORTS, NULL },
		{ "readonly", SETTINGS_NBD_CLIENT, "read-only" },
		{ "read-only", SETTINGS_NBD_CLIENT, NULL },
		{ "readonly", SETTINGS_ATTACH, NULL },
		{ "bs", SETTINGS_NBDTAB, "block-size" },
		{ "bs", SETTINGS_ATTACH, NULL },
		{ "bs", SETTINGS_RECORD, NULL },
		{ "timeout", SETTINGS_MAP, "timeout" },
		{ "timeout", SETTINGS_INFO, NULL },
		{ "connect-timeout", SETTINGS_EXPORTS, "connect-timeout" },
		{ "cacertfile", SETTINGS_NBDTAB, "tls-ca" },
		{ "cacertfile", SETTINGS_NBD_CLIENT, "tls-ca" },
		{ "tls-ca", SETTINGS_INFO, "tls-ca" },
		{ "tls-offload", SETTINGS_INFO, NULL },
		{ "tls-offload", SETTINGS_ATTACH, "tls-offload" },
		{ "server", SETTINGS_RECORD, "server" },
		{ "server", SETTINGS_NBDTAB, NULL },
		{ "server", SETTINGS_ATTACH, NULL },
		{ "", SETTINGS_RECORD, NULL },
		{ "read-onl", SETTINGS_ATTACH, NULL },
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		const struct settings_row *row = settings_find(table[i].name, table[i].place);

		ck_assert_msg(!row == !table[i].row && (!row || !strcmp(row->name, table[i].row)),
			      "%s in place %d", table[i].name, (int)table[i].place);
	}
}
END_TEST

/* --- servers ---------------------------------------------------------------------------------- */

START_TEST(servers)
{
	static struct settings s;
	struct err e = { 0 };
	char uri[64];

	settings_init(&s);
	for (unsigned i = 0; i < SETTINGS_SERVERS_MAX; i++) {
		snprintf(uri, sizeof(uri), "nbds://h%u/x", i);
		set(&s, "server", uri);
	}
	ck_assert_uint_eq(s.server_count, 8);
	ck_assert_str_eq(s.servers[7].host, "h7");
	ck_assert_int_eq(settings_set(&s, find("server"), "", "nbds://h/x", &e), -EINVAL);
	ck_assert_str_eq(e.text, "more than 8 servers");
	settings_init(&s);
	set(&s, "server", "nbds://h/x");
	ck_assert_int_eq(settings_set(&s, find("server"), "", "nbd://h/x", &e), -EINVAL);
	ck_assert_ptr_nonnull(strstr(e.text, "mixed"));
	ck_assert_uint_eq(s.server_count, 1);
}
END_TEST

START_TEST(hosts)
{
	static const struct {
		const char *host, *port;
		bool is_unix;
		const char *uri; /* NULL: wrong */
	} table[] = {
		{ "h", NULL, false, "nbd://h:10809/x" },
		{ "h:7", NULL, false, "nbd://h:7/x" },
		{ "h", "7", false, "nbd://h:7/x" },
		{ "::1", NULL, false, "nbd://[::1]:10809/x" },
		{ "::1", "7", false, "nbd://[::1]:7/x" },
		{ "[::1]", "7", false, "nbd://[::1]:7/x" },
		{ "/run/s", NULL, true, "nbd+unix:///x?socket=/run/s" },
		{ "/run/s", NULL, false, "nbd+unix:///x?socket=/run/s" },
		{ "s", NULL, true, "nbd+unix:///x?socket=./s" },
		{ "a:b:c", NULL, true, "nbd+unix:///x?socket=./a%3Ab%3Ac" },
		{ "h:7", "7", false, NULL },
		{ "h", "70000", false, NULL },
		{ "", NULL, false, NULL },
		{ "nbd://h/x", NULL, false, NULL },
	};
	static struct settings s;
	char uri[SETTINGS_VALUE_MAX], longest[300];
	struct err e;

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		int ret;

		settings_init(&s);
		ret = settings_add_host(&s, table[i].host, table[i].port, table[i].is_unix, "x",
					&e);
		ck_assert_msg(ret == (table[i].uri ? 0 : -EINVAL), "%s: %d", table[i].host, ret);
		ck_assert_uint_eq(s.server_count, !ret);
		if (!ret && settings_get(&s, find("server"), 0, uri, sizeof(uri)))
			ck_assert_str_eq(uri, table[i].uri);
	}
	memset(longest, 'h', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	ck_assert_int_eq(settings_add_host(&s, longest, NULL, false, "x", &e), -EINVAL);
	ck_assert_int_eq(settings_add_host(&s, longest, "7", false, "x", &e), -EINVAL);
	ck_assert_int_eq(settings_add_host(&s, longest, NULL, true, "x", &e), -EINVAL);
}
END_TEST

START_TEST(command_words)
{
	char a[] = "nbdkit", b[] = "", c[] = "a b";
	static struct settings s;
	struct err e = { 0 };

	settings_init(&s);
	ck_assert_int_eq(settings_set_command(&s, (char *const[]){ a, b, c, NULL }, "disk", &e), 0);
	ck_assert_uint_eq(s.command.count, 3);
	ck_assert_mem_eq(s.command.words, "nbdkit\0\0a b\0", 12);
	ck_assert_str_eq(s.servers[0].export, "disk");
	ck_assert_uint_eq(s.server_count, 1);
}
END_TEST

START_TEST(command_limits)
{
	static char word[SETTINGS_COMMAND_MAX + 1], *argv[SETTINGS_WORDS_MAX + 2];
	static const struct {
		unsigned args;
		size_t length; /* length of the first one, bytes */
		int code;
	} table[] = {
		{ 1, SETTINGS_COMMAND_MAX - 1, 0 }, { 1, SETTINGS_COMMAND_MAX, E2BIG },
		{ 2, SETTINGS_COMMAND_MAX - 3, 0 }, { 2, SETTINGS_COMMAND_MAX - 2, E2BIG },
		{ SETTINGS_WORDS_MAX, 1, 0 },       { SETTINGS_WORDS_MAX + 1, 1, E2BIG },
	};
	char one[] = "x";
	static struct settings s;
	struct err e = { 0 };

	settings_init(&s);
	memset(word, 'w', table[_i].length);
	word[table[_i].length] = '\0';
	for (unsigned i = 0; i < table[_i].args; i++)
		argv[i] = i ? one : word;
	argv[table[_i].args] = NULL;
	ck_assert_int_eq(settings_set_command(&s, argv, "", &e), -table[_i].code);
	if (table[_i].code) {
		ck_assert_int_eq(e.kind, ERR_USAGE);
		ck_assert_ptr_nonnull(strstr(e.text, "8192 bytes or 256 arguments"));
	} else {
		ck_assert_uint_eq(s.command.count, table[_i].args);
		ck_assert_str_eq(s.command.words, word);
	}
}
END_TEST

START_TEST(endpoints)
{
	char a[] = "nbd\nkit", b[] = "-s";
	static struct settings s;
	char buf[64], small[8];
	struct err e;

	settings_init(&s);
	set(&s, "server", "nbd://127.0.0.1:7/disk");
	set(&s, "server", "nbd://[::1]:7/disk");
	set(&s, "server", "nbd+unix:///disk?socket=/run/s%1b");
	settings_endpoint(&s, 0, buf, sizeof(buf));
	ck_assert_str_eq(buf, "127.0.0.1:7");
	settings_endpoint(&s, 1, buf, sizeof(buf));
	ck_assert_str_eq(buf, "[::1]:7");
	settings_endpoint(&s, 2, buf, sizeof(buf));
	ck_assert_str_eq(buf, "/run/s\\x1b");
	settings_init(&s);
	ck_assert_int_eq(settings_set_command(&s, (char *const[]){ a, b, NULL }, "disk", &e), 0);
	settings_endpoint(&s, 0, buf, sizeof(buf));
	ck_assert_str_eq(buf, "nbd\\x0akit");
	settings_endpoint(&s, 0, small, sizeof(small));
	ck_assert_uint_lt(strlen(small), sizeof(small));
}
END_TEST

/* --- all of them ------------------------------------------------------------------------------ */

/* A line of options, each with one dash before its text. */
static void set_line(struct settings *s, const char *line)
{
	char copy[256], *save = NULL, *word;

	settings_init(s);
	strcpy(copy, line);
	for (word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
		char *equals = strchr(word, '=');

		if (equals)
			*equals++ = '\0';
		set(s, word, equals);
	}
}

START_TEST(contradictions)
{
	static const struct {
		const char *line;
		const char *says; /* NULL: right */
	} table[] = {
		{ "dead-timeout=5", "--dead-timeout is for --no-supervise: " },
		{ "dead-timeout=0", NULL },
		{ "dead-timeout=5 no-supervise", NULL },
		{ "dead-timeout=5 command=true", NULL },
		{ "reconnect-timeout=5 no-supervise", "--reconnect-timeout and --fence-delay are" },
		{ "fence-delay=0 no-supervise", "--reconnect-timeout and --fence-delay are" },
		{ "fence-delay=0 command=true", "--reconnect-timeout and --fence-delay are" },
		{ "reconnect-timeout=5 fence-delay=0", NULL },
		{ "root no-supervise", "--root, --swap and --keep-at-shutdown are for" },
		{ "swap command=true", "--root, --swap and --keep-at-shutdown are for" },
		{ "keep-at-shutdown no-supervise", "--root, --swap and --keep-at-shutdown are" },
		{ "root swap keep-at-shutdown", NULL },
		{ "connections=2 command=true", "a --command serves one connection" },
		{ "connections=1 command=true", NULL },
		{ "connections=auto command=true", NULL },
		{ "force-multi-conn", "--force-multi-conn is for --connections" },
		{ "force-multi-conn connections=1", "--force-multi-conn is for --connections" },
		{ "force-multi-conn connections=2", NULL },
		{ "force-multi-conn connections=auto", NULL },
		{ "connections=2 timeout=0",
		  "several --connections need a time limit for requests" },
		{ "connections=2 timeout=0 read-only", "with --timeout 0 a lost one could not" },
		{ "connections=2 timeout=0 no-supervise",
		  "several --connections need a time limit" },
		{ "connections=2 timeout=1", NULL },
		{ "connections=2", NULL },
		{ "connections=1 timeout=0", NULL },
		{ "connections=auto timeout=0", NULL },
		{ "timeout=0", NULL },
	};
	static struct settings s;

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct err e = { 0 };
		int ret;

		set_line(&s, table[i].line);
		ret = settings_complete(&s, true, &e);
		ck_assert_msg(ret == (table[i].says ? -EINVAL : 0), "%s: %s", table[i].line,
			      e.text);
		ck_assert_msg(!table[i].says || strstr(e.text, table[i].says), "%s: %s",
			      table[i].line, e.text);
		ck_assert_msg(!ret || e.kind == ERR_USAGE, "%s", table[i].line);
		/* as a file has it */
		if (ret && !settings_complete(&s, false, &e))
			ck_abort_msg("%s", table[i].line);
		ck_assert_ptr_null(strstr(e.text, "--"));
	}
}
END_TEST

/* Any option of TLS requires it of every server, whatever the address says. */
START_TEST(tls_is_required)
{
	static struct settings s;
	char text[64];
	struct err e;

	for (const struct settings_row *row = settings_rows; row->name; row++) {
		bool tls = row->group == SETTINGS_GROUP_TLS;

		if (!row->help)
			continue;
		set_line(&s, "server=nbd://a/x server=nbd://b/x");
		set(&s, row->name, sample(row, text));
		settings_complete(&s, false, &e);
		ck_assert_msg(s.servers[0].tls == tls && s.servers[1].tls == tls, "%s", row->name);
		ck_assert_int_eq(!strncmp(row->name, "tls", 3), tls);
	}
	set_line(&s, "server=nbds://a/x server=nbds://b/x");
	ck_assert_int_eq(settings_complete(&s, false, &e), 0);
	ck_assert(s.servers[0].tls && s.servers[1].tls);
}
END_TEST

START_TEST(automatic_connections)
{
	static const struct {
		const char *line;
		long processors;
		uint32_t connections;
	} table[] = {
		{ "connections=auto", -1, 1 },
		{ "connections=auto", 1, 1 },
		{ "connections=auto", 3, 3 },
		{ "connections=auto", PLAN_CONNECTIONS_AUTO_MAX, PLAN_CONNECTIONS_AUTO_MAX },
		{ "connections=auto", 1000, PLAN_CONNECTIONS_AUTO_MAX },
		{ "connections=auto timeout=0", 4, 1 },
		{ "connections=auto timeout=1", 4, 4 },
	};
	static struct settings s;

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		set_line(&s, table[i].line);
		ck_assert_uint_eq(settings_automatic_connections(&s, table[i].processors),
				  table[i].connections);
	}
}
END_TEST

START_TEST(what_follows)
{
	static struct settings s;
	struct err e;

	set_line(&s, "read-only command=true");
	ck_assert_int_eq(settings_complete(&s, false, &e), 0);
	ck_assert(s.multi.read_only && s.supervision.none);
	set_line(&s, "server=nbd://h/x peer-timeout=4");
	ck_assert_int_eq(settings_complete(&s, false, &e), 0);
	ck_assert(!s.multi.read_only && !s.supervision.none);
	ck_assert_uint_eq(settings_fence_delay(&s), 4);
	set_line(&s, "peer-timeout=4 fence-delay=0");
	ck_assert_uint_eq(settings_fence_delay(&s), 0);
	set_line(&s, "root");
	ck_assert(settings_is_vital(&s));
	set_line(&s, "swap");
	ck_assert(settings_is_vital(&s));
	set_line(&s, "keep-at-shutdown");
	ck_assert(!settings_is_vital(&s));
}
END_TEST

/* What was given wins, and what was not changes nothing; servers stay. */
START_TEST(override)
{
	static struct settings s, over, expected;
	static char line[SETTINGS_LINE_MAX];
	char text[64];

	set_line(&s, "server=nbd://h/x timeout=7 read-only connections=auto tls-ca=/long/name");
	expected = s;
	settings_init(&over);
	over.dead_timeout_s = 9; /* not given */
	settings_override(&s, &over);
	ck_assert_mem_eq(&s, &expected, sizeof(s));
	set_line(&over, "server=nbd://other/y timeout=30 connections=2 tls-ca=/s command=x");
	settings_override(&s, &over);
	settings_line(&s, line);
	ck_assert_str_eq(line, "--read-only --connections=2 --timeout=30 --tls-ca=/s "
			       "nbd://h:10809/x");
	/* every option */
	settings_init(&s);
	settings_init(&over);
	for (const struct settings_row *row = settings_rows; row->name; row++)
		if (row->help)
			set(&over, row->name, sample(row, text));
	settings_override(&s, &over);
	ck_assert_mem_eq(&s, &over, sizeof(s));
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("settings");
	TCase *t = tcase_create("settings");

	tcase_add_loop_test(t, right_values, 0, sizeof(values) / sizeof(values[0]));
	tcase_add_loop_test(t, wrong_values, 0, sizeof(wrong) / sizeof(wrong[0]));
	tcase_add_test(t, lengths);
	tcase_add_test(t, defaults);
	tcase_add_test(t, found_out);
	tcase_add_test(t, round_trip);
	tcase_add_test(t, names);
	tcase_add_test(t, helps);
	tcase_add_test(t, places);
	tcase_add_test(t, servers);
	tcase_add_test(t, hosts);
	tcase_add_test(t, command_words);
	tcase_add_loop_test(t, command_limits, 0, 6);
	tcase_add_test(t, endpoints);
	tcase_add_test(t, contradictions);
	tcase_add_test(t, tls_is_required);
	tcase_add_test(t, what_follows);
	tcase_add_test(t, automatic_connections);
	tcase_add_test(t, override);
	suite_add_tcase(s, t);
	return s;
}
