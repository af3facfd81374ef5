/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "base/log.h"

#include <stdio.h>
#include <string.h>

#include "../unit.h"

struct heard {
	unsigned lines;
	enum log_level level;
	char text[2048];
};

static void hear(void *ctx, enum log_level level, const char *text)
{
	struct heard *h = ctx;

	h->lines++;
	h->level = level;
	snprintf(h->text, sizeof(h->text), "%s", text);
}

START_TEST(a_line_is_passed_on)
{
	struct heard h = { 0 };
	const struct log l = { .line = hear, .ctx = &h };

	log_say(&l, LOG_LEVEL_WARNING, "nbd%u: %s", 7, "lost");
	ck_assert_uint_eq(h.lines, 1);
	ck_assert_int_eq(h.level, LOG_LEVEL_WARNING);
	ck_assert_str_eq(h.text, "nbd7: lost");
}
END_TEST

START_TEST(a_long_line_is_cut)
{
	struct heard h = { 0 };
	const struct log l = { .line = hear, .ctx = &h };
	char text[2000];

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	log_say(&l, LOG_LEVEL_ERROR, "%s", text);
	ck_assert_uint_eq(strlen(h.text), 1023);
}
END_TEST

START_TEST(nobody_may_listen)
{
	const struct log deaf = { 0 };

	log_say(NULL, LOG_LEVEL_NOTICE, "x");
	log_say(&deaf, LOG_LEVEL_NOTICE, "x");
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("log");
	TCase *t = tcase_create("log");

	tcase_add_test(t, a_line_is_passed_on);
	tcase_add_test(t, a_long_line_is_cut);
	tcase_add_test(t, nobody_may_listen);
	suite_add_tcase(s, t);
	return s;
}
