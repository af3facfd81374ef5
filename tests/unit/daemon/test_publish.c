/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "daemon/publish.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "../unit.h"

static struct publication sample(void)
{
	struct publication p = {
		.index = 3,
		.connections = 4,
		.pid = 99,
		.earlier = 5,
		.alive = 4,
		.reconnects = 7,
		.peer = "192.0.2.1:10809",
		.durable = {
			.server = 1,
			.fenced_until = 1000,
			.size = 1 << 20,
			.server_size = { 1 << 20, 1 << 21 },
		},
	};

	return p;
}

START_TEST(a_new_error_has_its_time)
{
	struct publication p = sample();
	struct err e = { .text = "refused" };
	struct rc_status st = { .alive = 2, .reconnects = 3, .last_error = &e };
	struct rc_durable d = { .paused = true, .size = 4096 };

	publish_collect(&p, &st, &d, "h:1", 1000);
	ck_assert_uint_eq(p.alive, 2);
	ck_assert_uint_eq(p.reconnects, 8);
	ck_assert_str_eq(p.peer, "h:1");
	ck_assert_str_eq(p.last_error, "");
	ck_assert_int_eq(p.error_time, 0);
	ck_assert(p.durable.paused);
	ck_assert_uint_eq(p.durable.size, 4096);
	st.failures = 1;
	publish_collect(&p, &st, &d, "h:1", 1001);
	ck_assert_str_eq(p.last_error, "refused");
	ck_assert_int_eq(p.error_time, 1001);
	publish_collect(&p, &st, &d, "h:1", 1002);
	ck_assert_int_eq(p.error_time, 1001);
	/* The same text again is another error; a long one is cut. */
	memset(e.text, 'x', sizeof(e.text) - 1);
	st.failures = 2;
	publish_collect(&p, &st, &d, "h:1", 1003);
	ck_assert_int_eq(p.error_time, 1003);
	ck_assert_uint_eq(strlen(p.last_error), sizeof(p.last_error) - 1);
}
END_TEST

/* The server that is asked is not in use before a connection to it is. */
START_TEST(the_peer_comes_with_a_connection)
{
	struct publication p = sample();
	struct err e = { 0 };
	struct rc_status st = { .reconnects = 2, .last_error = &e };
	struct rc_durable d = { 0 };

	publish_collect(&p, &st, &d, "h:1", 0);
	ck_assert_str_eq(p.peer, "192.0.2.1:10809");
	st.reconnects++;
	publish_collect(&p, &st, &d, "h:1", 0);
	ck_assert_str_eq(p.peer, "h:1");
	publish_collect(&p, &st, &d, "h:2", 0);
	ck_assert_str_eq(p.peer, "h:1");
}
END_TEST

static const struct {
	bool paused;
	unsigned alive;
	const char *peer, *error, *text;
} states[] = {
	{ false, 4, "h:1", "", "nbd3: connected to h:1" },
	{ false, 4, "", "", "nbd3: connected to its server" },
	{ false, 4, "h:1", "an old one", "nbd3: connected to h:1" },
	{ false, 1, "h:1", "", "nbd3: 1 of 4 connections, reconnecting" },
	{ false, 0, "h:1", "refused", "nbd3: 0 of 4 connections, reconnecting: refused" },
	{ true, 0, "h:1", "refused", "nbd3: paused, all I/O waits" },
	{ true, 4, "h:1", "", "nbd3: paused, all I/O waits" },
};

START_TEST(status)
{
	struct publication p = sample();
	char text[PUBLISH_TEXT_MAX];

	p.durable.paused = states[_i].paused;
	p.alive = states[_i].alive;
	strcpy(p.peer, states[_i].peer);
	strcpy(p.last_error, states[_i].error);
	publish_status(&p, text);
	ck_assert_str_eq(text, states[_i].text);
}
END_TEST

START_TEST(record_fields)
{
	struct publication p = sample();
	struct record r = { .pid = 1, .timeout_s = 30, .host = "server:10809" };

	publish_record(&p, &r);
	ck_assert_int_eq(r.supervisor, 99);
	ck_assert_uint_eq(r.reconnects, 7);
	ck_assert_uint_eq(r.connections, 4);
	ck_assert_uint_eq(r.alive, 4);
	ck_assert_str_eq(r.peer, "192.0.2.1:10809");
	ck_assert_str_eq(r.last_error, "");
	ck_assert_str_eq(r.error_time, "");
	ck_assert_uint_eq(r.durable.server, 1);
	ck_assert_int_eq(r.durable.fenced_until, 1000);
	ck_assert_uint_eq(r.durable.server_size[1], 1 << 21);
	/* The rest is the attach's. */
	ck_assert_int_eq(r.pid, 1);
	ck_assert_uint_eq(r.timeout_s, 30);
	ck_assert_str_eq(r.host, "server:10809");
	strcpy(p.last_error, "refused");
	p.error_time = 981173106;
	publish_record(&p, &r);
	ck_assert_str_eq(r.last_error, "refused");
	ck_assert_str_eq(r.error_time, "2001-02-03T04:05:06Z");
}
END_TEST

START_TEST(answer_fields)
{
	struct publication p = sample();
	struct control_answer a;
	struct err e = { 0 };

	p.durable.paused = true;
	p.error_time = 5;
	strcpy(p.last_error, "refused");
	publish_answer(&p, NULL, &a);
	ck_assert_int_eq(a.ret, 0);
	ck_assert_int_eq(a.err.code, 0);
	ck_assert_int_eq(a.pid, 99);
	ck_assert_uint_eq(a.alive, 4);
	ck_assert_uint_eq(a.connections, 4);
	ck_assert_uint_eq(a.reconnects, 7);
	ck_assert(a.paused);
	ck_assert_uint_eq(a.size, 1 << 20);
	ck_assert_int_eq(a.error_time, 5);
	ck_assert_str_eq(a.last_error, "refused");
	ck_assert_str_eq(a.peer, "192.0.2.1:10809");
	ck_assert_uint_eq(a.durable.server, 1);
	err_set(&e, ERR_BUSY, EBUSY, "not now");
	publish_answer(&p, &e, &a);
	ck_assert_int_eq(a.ret, -EBUSY);
	ck_assert_str_eq(a.err.text, "not now");
}
END_TEST

static const struct err failure = { .code = ECONNREFUSED, .text = "refused 100%" };

static const struct {
	struct rc_action note;
	enum log_level level;
	const char *text;
} notes[] = {
	{ { .note = RC_NOTE_LOST, .number = 2 },
	  LOG_LEVEL_WARNING,
	  "nbd3: lost 2 of 4 connections" },
	{ { .note = RC_NOTE_RECONNECTED, .ms = 1234 },
	  LOG_LEVEL_NOTICE,
	  "nbd3: connected to 192.0.2.1:10809 again after 1.23 s" },
	{ { .note = RC_NOTE_FAILED, .err = &failure },
	  LOG_LEVEL_WARNING,
	  "nbd3: cannot reconnect, trying again: refused 100%" },
	{ { .note = RC_NOTE_FLAPPING, .number = 5 },
	  LOG_LEVEL_WARNING,
	  "nbd3: 5 connections in turn did not last; the next ones wait longer" },
	{ { .note = RC_NOTE_RENEWED, .conn = 0 },
	  LOG_LEVEL_NOTICE,
	  "nbd3: connection 1 of 4 is renewed, before its keys are worn out" },
	{ { .note = RC_NOTE_RENEWED_SIZE, .conn = 3 },
	  LOG_LEVEL_NOTICE,
	  "nbd3: connection 4 of 4 is renewed, as the export has grown" },
	{ { .note = RC_NOTE_NOT_RENEWED, .conn = 1, .err = &failure },
	  LOG_LEVEL_WARNING,
	  "nbd3: connection 2 of 4 cannot be renewed yet: refused 100%" },
	{ { .note = RC_NOTE_GROWN, .number = 4096, .size = 1ULL << 63 },
	  LOG_LEVEL_NOTICE,
	  "nbd3: the export has grown from 4096 to 9223372036854775808 bytes, and so has the "
	  "device" },
	{ { .note = RC_NOTE_NOT_GROWN, .size = 8192, .err = &failure },
	  LOG_LEVEL_ERROR,
	  "nbd3: cannot grow to 8192 bytes: refused 100%" },
	{ { .note = RC_NOTE_PAUSED }, LOG_LEVEL_NOTICE, "nbd3: paused: all I/O waits" },
	{ { .note = RC_NOTE_HANGS, .err = &failure }, LOG_LEVEL_ERROR, "nbd3: refused 100%" },
	{ { .note = RC_NOTE_DETACHED }, LOG_LEVEL_NOTICE, "nbd3: detached" },
	{ { .note = RC_NOTE_DISCONNECTED, .err = &failure },
	  LOG_LEVEL_NOTICE,
	  "nbd3: disconnected while somebody has it open: refused 100%" },
	{ { .note = RC_NOTE_SUCCEEDED }, LOG_LEVEL_NOTICE, "nbd3: another supervisor takes over" },
};

START_TEST(note)
{
	struct publication p = sample();
	char text[PUBLISH_TEXT_MAX];

	ck_assert_int_eq(publish_note(&p, &notes[_i].note, text), notes[_i].level);
	ck_assert_str_eq(text, notes[_i].text);
}
END_TEST

START_TEST(cause_of_a_loss)
{
	static const char why[] =
		"the server did not answer a request within 2 s, the limit of --timeout";
	struct publication p = sample();
	struct rc_action a = { .note = RC_NOTE_LOST, .number = 1 };
	struct err e = { .text = "refused" };
	struct rc_status st = { .last_error = &e };
	char text[PUBLISH_TEXT_MAX], wanted[PUBLISH_TEXT_MAX];

	publish_cause(&p, 2, 1000);
	ck_assert_str_eq(p.last_error, why);
	ck_assert_int_eq(p.error_time, 1000);
	publish_note(&p, &a, text);
	snprintf(wanted, sizeof(wanted), "nbd3: lost 1 of 4 connections: %s", why);
	ck_assert_str_eq(text, wanted);
	/* The next loss has another cause, which is not known, and the error stays. */
	publish_cause(&p, 0, 1001);
	publish_note(&p, &a, text);
	ck_assert_str_eq(text, "nbd3: lost 1 of 4 connections");
	publish_collect(&p, &st, &p.durable, "h:1", 1002);
	ck_assert_str_eq(p.last_error, why);
	st.failures++;
	publish_collect(&p, &st, &p.durable, "h:1", 1003);
	ck_assert_str_eq(p.last_error, "refused");
}
END_TEST

START_TEST(notes_are_whole)
{
	struct publication p = sample();
	struct err e = { 0 };
	struct rc_action a = { .err = &e };
	char text[PUBLISH_TEXT_MAX];

	/* Every note has a text, and what does not fit is cut. */
	memset(e.text, 'x', sizeof(e.text) - 1);
	for (int i = 0; i < RC_NOTES; i++) {
		a.note = (enum rc_note)i;
		publish_note(&p, &a, text);
		ck_assert_uint_gt(strlen(text), strlen("nbd3: "));
		ck_assert_uint_lt(strlen(text), sizeof(text));
	}
	ck_assert_int_eq(RC_NOTES, sizeof(notes) / sizeof(notes[0]));
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("publish");
	TCase *t = tcase_create("publish");

	tcase_add_test(t, a_new_error_has_its_time);
	tcase_add_test(t, the_peer_comes_with_a_connection);
	tcase_add_loop_test(t, status, 0, sizeof(states) / sizeof(states[0]));
	tcase_add_test(t, record_fields);
	tcase_add_test(t, answer_fields);
	tcase_add_loop_test(t, note, 0, sizeof(notes) / sizeof(notes[0]));
	tcase_add_test(t, cause_of_a_loss);
	tcase_add_test(t, notes_are_whole);
	suite_add_tcase(s, t);
	return s;
}
