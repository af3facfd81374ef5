// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * attachment: a row for each state in which an attach may find its device, and for each way in
 * which that is not what was asked for; and which free device is taken.
 */
#include "../unit.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "policy/attachment.h"

/* A row says in what it differs from the states below. */
#pragma GCC diagnostic ignored "-Woverride-init"

#define COUNT(a) (int)(sizeof(a) / sizeof((a)[0]))

#define EXPORT "nbd://h:10809/x"

/* Options, each a word of the table of settings. */
static const struct settings *settings_of(const char *line)
{
	static struct settings all[4];
	static unsigned next;
	struct settings *s = &all[next++ % 4];
	char copy[256], *save = NULL, *word;
	struct err e = { 0 };

	settings_init(s);
	snprintf(copy, sizeof(copy), "server=%s %s", EXPORT, line);
	for (word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
		const struct settings_row *row;
		char *equals = strchr(word, '=');

		if (equals)
			*equals++ = '\0';
		row = settings_find(word, SETTINGS_RECORD);
		ck_assert_msg(row && !settings_set(s, row, word, equals, &e), "%s: %s", word,
			      e.text);
	}
	ck_assert_msg(!settings_complete(s, "--", &e), "%s", e.text);
	return s;
}

/* What a supervised and an unsupervised device are where nothing is wrong. */
#define SEEN                                                                           \
	.index = 3, .attached = true, .pid = 77, .backend = EXPORT, .block_size = 512, \
	.recorded = true, .connections = 1, .last_error = "", .users = ""
#define SUPERVISED                                     \
	SEEN, .supervised = true, .owner_alive = true, \
	      .supervisor = ATTACHMENT_SUPERVISOR_ANSWERS, .supervisor_pid = 78, .alive = 1
#define LEFT   SEEN, .supervised = true
#define ALONE  SEEN, .driver = ATTACHMENT_DRIVER_CONNECTED, .data = ATTACHMENT_DATA_READABLE
#define NO_REC SEEN, .recorded = false, .connections = 0

static const char refused[] = "nbd3 is attached to this export already, ";

static const struct {
	const char *name;
	struct attachment a;
	const char *how;     /* options of the attach; NULL: not known */
	const char *wanted;  /* options */
	const char *backend; /* NULL: EXPORT */
	enum attachment_verdict verdict;
	int code;
	enum err_kind kind;
	const char *says; /* the end of the message */
} states[] = {
#define OK(v)         v, 0, ERR_NONE, NULL
#define BUSY(text)    ATTACHMENT_REFUSED, EBUSY, ERR_BUSY, text
#define LATER(text)   ATTACHMENT_BEGINNING, EBUSY, ERR_BUSY, text
#define NO_LINK(text) ATTACHMENT_RECONNECTING, ENOTCONN, ERR_UNREACHABLE, text
	{ "free", { .index = 3, .backend = "" }, "", "", NULL, OK(ATTACHMENT_FREE) },
	{ "usable", { SUPERVISED }, "", "", NULL, OK(ATTACHMENT_USABLE) },
	{ "some connections",
	  { SUPERVISED, .connections = 4 },
	  "connections=4",
	  "",
	  NULL,
	  OK(ATTACHMENT_USABLE) },
	{ "usable, record of another version",
	  { SUPERVISED },
	  NULL,
	  "swap",
	  NULL,
	  OK(ATTACHMENT_USABLE) },
	{ "usable without a record",
	  { SUPERVISED, .recorded = false },
	  NULL,
	  "",
	  NULL,
	  OK(ATTACHMENT_USABLE) },

	{ "another program",
	  { SEEN, .backend = "" },
	  NULL,
	  "",
	  NULL,
	  BUSY("nbd3 is attached already, by another program (pid 77)") },
	{ "another export",
	  { SUPERVISED, .backend = "nbd://h:10809/y\n" },
	  NULL,
	  "",
	  NULL,
	  BUSY("nbd3 is attached already, to nbd://h:10809/y\\x0a") },
	{ "an export that begins alike",
	  { SUPERVISED, .backend = EXPORT "y" },
	  NULL,
	  "",
	  NULL,
	  BUSY("nbd3 is attached already, to " EXPORT "y") },
	{ "another tool's identifier",
	  { SUPERVISED, .backend = "nb" },
	  NULL,
	  "",
	  NULL,
	  BUSY("nbd3 is attached already, to nb") },
	{ "the same command",
	  { ALONE, .backend = "command:a#" },
	  "",
	  "command=a",
	  "command:a#",
	  BUSY("nbd3 is attached already, to command:a#") },
	{ "with TLS",
	  { SUPERVISED, .backend = "nbds://h:10809/x" },
	  "",
	  "",
	  NULL,
	  BUSY("already, but by TLS (--tls)") },
	{ "without TLS",
	  { SUPERVISED },
	  "",
	  "tls",
	  "nbds://h:10809/x",
	  BUSY("already, but without TLS (--tls)") },
	{ "by TLS to another export",
	  { SUPERVISED, .backend = "nbds://h:10809/y" },
	  "",
	  "",
	  NULL,
	  BUSY("nbd3 is attached already, to nbds://h:10809/y") },

	{ "reconnecting",
	  { SUPERVISED, .alive = 0, .last_error = "refused\n" },
	  "",
	  "",
	  NULL,
	  NO_LINK("but has no connection now: refused\\x0a") },
	{ "reconnecting for the first time",
	  { SUPERVISED, .alive = 0 },
	  "",
	  "",
	  NULL,
	  NO_LINK("but has no connection now") },
	{ "paused",
	  { SUPERVISED, .alive = 0, .paused = true, .last_error = "x" },
	  "",
	  "",
	  NULL,
	  BUSY("but it is paused, so that its I/O waits for --resume") },
	{ "otherwise than asked before paused",
	  { SUPERVISED, .paused = true },
	  "",
	  "read-only",
	  NULL,
	  BUSY("but not read-only (--read-only)") },
	{ "otherwise than asked before reconnecting",
	  { SUPERVISED, .alive = 0 },
	  "",
	  "read-only",
	  NULL,
	  BUSY("but not read-only (--read-only)") },
	{ "a supervisor that hangs",
	  { SUPERVISED, .supervisor = ATTACHMENT_SUPERVISOR_SILENT },
	  "",
	  "",
	  NULL,
	  LATER("but its supervisor, process 78, does not answer") },

	{ "being attached",
	  { NO_REC, .owner_alive = true },
	  NULL,
	  "",
	  NULL,
	  LATER("process 77 is attaching nbd3 to this export and does not get on") },
	{ "recorded, its supervisor begins",
	  { LEFT, .owner_alive = true },
	  "",
	  "",
	  NULL,
	  LATER("process 77 is attaching nbd3 to this export and does not get on") },
	{ "unsupervised, another process has its number",
	  { ALONE, .owner_alive = true },
	  "no-supervise",
	  "no-supervise",
	  NULL,
	  OK(ATTACHMENT_USABLE) },

	{ "supervisor gone, the driver is asked",
	  { LEFT },
	  "",
	  "",
	  NULL,
	  OK(ATTACHMENT_ASK_DRIVER) },
	{ "supervisor gone",
	  { LEFT, .driver = ATTACHMENT_DRIVER_CONNECTED },
	  "",
	  "",
	  NULL,
	  OK(ATTACHMENT_ORPHAN) },
	{ "supervisor gone, detached",
	  { LEFT, .driver = ATTACHMENT_DRIVER_DISCONNECTED, .users = "mounted on /mnt" },
	  "",
	  "",
	  NULL,
	  BUSY("nbd3 is detached and waits for its users: mounted on /mnt") },
	{ "supervisor gone, otherwise than asked",
	  { LEFT, .driver = ATTACHMENT_DRIVER_CONNECTED },
	  "",
	  "read-only",
	  NULL,
	  BUSY("but not read-only (--read-only)") },
	{ "supervisor gone, none wanted",
	  { LEFT, .driver = ATTACHMENT_DRIVER_CONNECTED },
	  "",
	  "no-supervise",
	  NULL,
	  BUSY("but with a supervisor (--no-supervise)") },

	{ "no record, the driver is asked",
	  { NO_REC },
	  NULL,
	  "no-supervise",
	  NULL,
	  OK(ATTACHMENT_ASK_DRIVER) },
	{ "after a forced detach",
	  { NO_REC, .driver = ATTACHMENT_DRIVER_DISCONNECTED, .users = "mounted on /mnt" },
	  NULL,
	  "",
	  NULL,
	  BUSY("nbd3 is detached and waits for its users: mounted on /mnt") },
	{ "after a forced detach, nobody known",
	  { NO_REC, .driver = ATTACHMENT_DRIVER_DISCONNECTED },
	  NULL,
	  "",
	  NULL,
	  BUSY("waits for its users: not known which") },
	{ "no record, it is read",
	  { NO_REC, .driver = ATTACHMENT_DRIVER_CONNECTED },
	  NULL,
	  "",
	  NULL,
	  OK(ATTACHMENT_ASK_DATA) },
	{ "no record, dead",
	  { NO_REC, .driver = ATTACHMENT_DRIVER_CONNECTED, .data = ATTACHMENT_DATA_DEAD },
	  NULL,
	  "",
	  NULL,
	  OK(ATTACHMENT_DEAD) },
	{ "no record",
	  { ALONE, .recorded = false },
	  NULL,
	  "no-supervise",
	  NULL,
	  OK(ATTACHMENT_USABLE) },

	{ "unsupervised, the driver is asked",
	  { SEEN },
	  "no-supervise",
	  "no-supervise",
	  NULL,
	  OK(ATTACHMENT_ASK_DRIVER) },
	{ "unsupervised, it is read",
	  { SEEN, .driver = ATTACHMENT_DRIVER_CONNECTED },
	  "no-supervise",
	  "no-supervise",
	  NULL,
	  OK(ATTACHMENT_ASK_DATA) },
	{ "unsupervised", { ALONE }, "no-supervise", "no-supervise", NULL, OK(ATTACHMENT_USABLE) },
	{ "unsupervised, dead",
	  { ALONE, .data = ATTACHMENT_DATA_DEAD },
	  "no-supervise",
	  "no-supervise",
	  NULL,
	  OK(ATTACHMENT_DEAD) },
	{ "unsupervised, dead, otherwise than asked",
	  { ALONE, .data = ATTACHMENT_DATA_DEAD },
	  "no-supervise",
	  "read-only block-size=4096",
	  NULL,
	  OK(ATTACHMENT_DEAD) },
	{ "unsupervised, detached",
	  { ALONE, .driver = ATTACHMENT_DRIVER_DISCONNECTED, .users = "used as swap" },
	  "no-supervise",
	  "no-supervise",
	  NULL,
	  BUSY("waits for its users: used as swap") },
};

START_TEST(state)
{
	struct attachment a = states[_i].a;
	enum attachment_verdict v;
	struct err e = { 0 };

	a.settings = states[_i].how ? settings_of(states[_i].how) : NULL;
	v = attachment_judge(&a, settings_of(states[_i].wanted),
			     states[_i].backend ? states[_i].backend : EXPORT, &e);
	ck_assert_msg(v == states[_i].verdict, "%s: verdict %d, %s", states[_i].name, v, e.text);
	ck_assert_int_eq(e.code, states[_i].code);
	ck_assert_int_eq(e.kind, states[_i].kind);
	if (!states[_i].says)
		return;
	ck_assert_msg(strlen(e.text) >= strlen(states[_i].says) &&
			      !strcmp(e.text + strlen(e.text) - strlen(states[_i].says),
				      states[_i].says),
		      "%s: %s", states[_i].name, e.text);
	/* Whatever the reason, it begins with the device. */
	ck_assert_msg(strstr(e.text, "nbd3 is") || strstr(e.text, "attaching nbd3"), "%s", e.text);
}
END_TEST

static const struct {
	struct attachment a;
	const char *how, *wanted;
	const char *says; /* after refused; NULL: it is what was asked for */
} options[] = {
	{ { SUPERVISED, .read_only = true, .asked_read_only = true },
	  "read-only",
	  "read-only",
	  NULL },
	{ { SUPERVISED, .read_only = true }, "", "", NULL },
	{ { SUPERVISED, .read_only = true }, "", "read-only", NULL },
	{ { SUPERVISED }, "", "read-only", "but not read-only (--read-only)" },
	{ { SUPERVISED, .read_only = true, .asked_read_only = true },
	  "read-only",
	  "",
	  "but read-only (--read-only)" },
	{ { SUPERVISED, .recorded = false, .read_only = true, .asked_read_only = true },
	  NULL,
	  "",
	  NULL },

	{ { SUPERVISED }, "", "block-size=512", NULL },
	{ { SUPERVISED }, "", "block-size=4096", "with blocks of 512 bytes (--block-size)" },
	{ { SUPERVISED, .recorded = false },
	  NULL,
	  "block-size=4096",
	  "with blocks of 512 bytes (--block-size)" },

	{ { SUPERVISED, .connections = 4 }, "connections=4", "connections=4", NULL },
	{ { SUPERVISED, .connections = 4 }, "connections=4", "connections=auto", NULL },
	{ { SUPERVISED, .connections = 4 }, "connections=4", "", NULL },
	{ { SUPERVISED, .connections = 4 },
	  "connections=4",
	  "connections=2",
	  "with 4 connections (--connections)" },
	{ { SUPERVISED }, "", "connections=2", "with 1 connection (--connections)" },
	{ { SUPERVISED, .recorded = false }, NULL, "connections=2", NULL },

	{ { SUPERVISED, .timeout_s = 30 }, "connections=4", "timeout=30", NULL },
	{ { SUPERVISED, .timeout_s = 0 }, "", "", NULL },
	{ { SUPERVISED, .timeout_s = 0 }, "", "timeout=30", "with a --timeout of 0 s" },
	{ { SUPERVISED, .timeout_s = 2 }, "timeout=2", "", NULL },
	{ { SUPERVISED, .timeout_s = 2 }, "timeout=2", "timeout=0", "with a --timeout of 2 s" },
	{ { SUPERVISED, .recorded = false }, NULL, "timeout=5", NULL },

	{ { SUPERVISED }, "", "no-supervise", "but with a supervisor (--no-supervise)" },
	{ { ALONE }, "no-supervise", "", "but without a supervisor (--no-supervise)" },
	{ { ALONE, .recorded = false }, NULL, "", "but without a supervisor (--no-supervise)" },

	{ { SUPERVISED }, "", "swap", "but without --swap" },
	{ { SUPERVISED }, "swap", "swap", NULL },
	{ { SUPERVISED }, "swap", "root", "but without --root" },
	{ { SUPERVISED }, "swap root", "", NULL },
	{ { SUPERVISED }, "", "keep-at-shutdown", "but without --keep-at-shutdown" },
	{ { SUPERVISED }, "", "reconnect-timeout=0", NULL },
	{ { SUPERVISED }, "reconnect-timeout=60", "reconnect-timeout=60", NULL },
	{ { SUPERVISED }, "reconnect-timeout=60", "", NULL },
	{ { SUPERVISED },
	  "reconnect-timeout=60",
	  "reconnect-timeout=0",
	  "but with --reconnect-timeout 60" },
	{ { SUPERVISED }, "", "reconnect-timeout=9", "but with --reconnect-timeout 0" },
	{ { SUPERVISED }, "fence-delay=7", "fence-delay=8", "but with --fence-delay 7" },
	{ { SUPERVISED }, NULL, "swap fence-delay=8", NULL },
	/* How to get there is nobody's business later. */
	{ { SUPERVISED }, "", "connect-timeout=3 peer-timeout=4 allow-overlap", NULL },

	/* A new supervisor goes by what is wanted now. */
	{ { LEFT, .driver = ATTACHMENT_DRIVER_CONNECTED }, "swap", "", "but with --swap" },
	{ { LEFT, .driver = ATTACHMENT_DRIVER_CONNECTED },
	  "reconnect-timeout=60",
	  "",
	  "but with --reconnect-timeout 60" },
	{ { LEFT, .driver = ATTACHMENT_DRIVER_CONNECTED }, "swap", "swap", NULL },
	{ { LEFT, .driver = ATTACHMENT_DRIVER_CONNECTED }, NULL, "swap", NULL },
};

START_TEST(option)
{
	struct attachment a = options[_i].a;
	enum attachment_verdict v;
	char whole[sizeof(refused) + 128];
	struct err e = { 0 };

	a.settings = options[_i].how ? settings_of(options[_i].how) : NULL;
	v = attachment_judge(&a, settings_of(options[_i].wanted), EXPORT, &e);
	if (!options[_i].says) {
		ck_assert_msg(v == ATTACHMENT_USABLE || v == ATTACHMENT_ORPHAN, "%d: %s", _i,
			      e.text);
		return;
	}
	snprintf(whole, sizeof(whole), "%s%s", refused, options[_i].says);
	ck_assert_int_eq(v, ATTACHMENT_REFUSED);
	ck_assert_str_eq(e.text, whole);
	ck_assert_int_eq(e.kind, ERR_BUSY);
}
END_TEST

/* nbd-client without -persist wants no supervisor, but has not said so. */
START_TEST(unsupervised_by_default)
{
	struct attachment a = { SUPERVISED };
	struct settings wanted = *settings_of("");
	struct err e;

	a.settings = settings_of("swap");
	wanted.supervision.none = true;
	ck_assert_int_eq(attachment_judge(&a, &wanted, EXPORT, &e), ATTACHMENT_USABLE);
}
END_TEST

/* --- other devices -------------------------------------------------------------------------- */

#define STALE .minimum_io_size = 4096
#define FIT   .minimum_io_size = 512

static const struct {
	const char *name;
	struct attachment_device devices[4];
	size_t count;
	int64_t pick;
} picks[] = {
	{ "none", { { 0 } }, 0, -1 },
	{ "all attached",
	  { { .attached = true }, { .index = 1, .attached = true, STALE } },
	  2,
	  -1 },
	{ "all fit",
	  { { .attached = true, STALE }, { .index = 1, FIT }, { .index = 2, FIT } },
	  3,
	  -1 },
	{ "the first is stale", { { STALE }, { .index = 5, FIT }, { .index = 7, FIT } }, 3, 5 },
	{ "a later one is stale", { { .index = 4, FIT }, { .index = 5, STALE } }, 2, 4 },
	{ "all are stale",
	  { { .attached = true }, { .index = 6, STALE }, { .index = 9, STALE } },
	  3,
	  6 },
	{ "the fit one is attached", { { .attached = true, FIT }, { .index = 6, STALE } }, 2, 6 },
	{ "zeroes are written", { { .write_zeroes_max = 1 }, { .index = 8, FIT } }, 2, 8 },
};

START_TEST(pick)
{
	static const struct plan p = { .block_size = 512 };

	ck_assert_msg(attachment_pick(picks[_i].devices, picks[_i].count, &p) == picks[_i].pick,
		      "%s", picks[_i].name);
}
END_TEST

#define SAME .attached = true, .same_backend = true

static const struct {
	const char *name;
	struct attachment_device devices[4];
	int64_t index;
	const char *says; /* NULL: there is none */
} overlaps[] = {
	{ "others", { { .attached = true }, { .index = 1 } }, 2, NULL },
	{ "the same",
	  { { .attached = true }, { .index = 1, SAME } },
	  2,
	  "nbd1 is attached to this export" },
	{ "the same, any device wanted", { { SAME } }, -1, "nbd0 is attached to this export" },
	{ "the device itself", { { .index = 2, SAME } }, 2, NULL },
	{ "read-only", { { .index = 1, SAME, .read_only = true } }, 2, NULL },
	{ "not attached", { { .index = 1, .same_backend = true } }, 2, NULL },
	{ "the last of them",
	  { { .index = 1 }, { .index = 2, SAME }, { .index = 3 }, { .index = 4, SAME } },
	  2,
	  "nbd4 is attached to this export" },
};

START_TEST(overlap)
{
	struct err e = { 0 };
	int ret = attachment_find_overlap(overlaps[_i].devices, 4, overlaps[_i].index, &e);

	ck_assert_msg(ret == (overlaps[_i].says ? -EEXIST : 0), "%s: %s", overlaps[_i].name,
		      e.text);
	if (!overlaps[_i].says)
		return;
	ck_assert_int_eq(e.kind, ERR_BUSY);
	ck_assert_ptr_nonnull(strstr(e.text, overlaps[_i].says));
	ck_assert_ptr_nonnull(strstr(e.text, "read-only"));
	ck_assert_ptr_nonnull(strstr(e.text, "allow-overlap"));
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("attachment");
	TCase *tc = tcase_create("judge");

	tcase_add_loop_test(tc, state, 0, COUNT(states));
	tcase_add_loop_test(tc, option, 0, COUNT(options));
	tcase_add_test(tc, unsupervised_by_default);
	suite_add_tcase(s, tc);
	tc = tcase_create("other devices");
	tcase_add_loop_test(tc, pick, 0, COUNT(picks));
	tcase_add_loop_test(tc, overlap, 0, COUNT(overlaps));
	suite_add_tcase(s, tc);
	return s;
}
