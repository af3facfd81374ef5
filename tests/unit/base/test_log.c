/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/log.h"

#include <stdio.h>
#include <string.h>

#include "../unit.h"

struct heard {
	unsigned lines;
	enum logger_level level;
	char text[2048];
};

static void hear(void *ctx, enum logger_level level, const char *text)
{
	struct heard *h = ctx;

	h->lines++;
	h->level = level;
	snprintf(h->text, sizeof(h->text), "%s", text);
}

START_TEST(a_line_is_passed_on)
{
	struct heard h = { 0 };
	const struct logger l = { .line = hear, .ctx = &h };

	logger_say(&l, LOGGER_WARNING, "nbd%u: %s", 7, "lost");
	ck_assert_uint_eq(h.lines, 1);
	ck_assert_int_eq(h.level, LOGGER_WARNING);
	ck_assert_str_eq(h.text, "nbd7: lost");
}
END_TEST

START_TEST(a_long_line_is_cut)
{
	struct heard h = { 0 };
	const struct logger l = { .line = hear, .ctx = &h };
	char text[2000];

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	logger_say(&l, LOGGER_ERROR, "%s", text);
	ck_assert_uint_eq(strlen(h.text), 1023);
}
END_TEST

START_TEST(nobody_may_listen)
{
	const struct logger deaf = { 0 };

	logger_say(NULL, LOGGER_NOTICE, "x");
	logger_say(&deaf, LOGGER_NOTICE, "x");
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("logger");
	TCase *t = tcase_create("logger");

	tcase_add_test(t, a_line_is_passed_on);
	tcase_add_test(t, a_long_line_is_cut);
	tcase_add_test(t, nobody_may_listen);
	suite_add_tcase(s, t);
	return s;
}
