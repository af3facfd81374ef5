/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "base/err.h"

#include <errno.h>
#include <string.h>

#include "../unit.h"

static void fill(char *buf, size_t cap, char c)
{
	memset(buf, c, cap - 1);
	buf[cap - 1] = '\0';
}

START_TEST(clear_leaves_no_error)
{
	struct err e = { .code = EIO, .kind = ERR_BUSY, .text = "old" };

	err_clear(&e);
	ck_assert_int_eq(e.code, 0);
	ck_assert_int_eq(e.kind, ERR_NONE);
	ck_assert_str_eq(e.text, "");
}
END_TEST

static const struct {
	enum err_kind kind;
	int code;
} kinds[] = {
	{ ERR_FAILED, ENOMEM },  { ERR_USAGE, EINVAL },    { ERR_UNREACHABLE, ETIMEDOUT },
	{ ERR_REFUSED, EACCES }, { ERR_PROTOCOL, EPROTO }, { ERR_TLS, EPROTONOSUPPORT },
	{ ERR_BUSY, EBUSY },     { ERR_ABSENT, ENODEV },   { ERR_KERNEL, EPERM },
};

START_TEST(set_returns_minus_code)
{
	struct err e = { .text = "something much longer than the new text" };
	int rc = err_set(&e, kinds[_i].kind, kinds[_i].code, "part %d of %s", 7, "it");

	ck_assert_int_eq(rc, -kinds[_i].code);
	ck_assert_int_eq(e.code, kinds[_i].code);
	ck_assert_int_eq(e.kind, kinds[_i].kind);
	ck_assert_str_eq(e.text, "part 7 of it");
}
END_TEST

START_TEST(sys_appends_the_words_of_the_system)
{
	struct err e;
	char expected[256] = "open nbd3: ";
	int rc = err_sys(&e, kinds[_i].kind, kinds[_i].code, "open %s%d", "nbd", 3);

	strcat(expected, strerror(kinds[_i].code));
	ck_assert_int_eq(rc, -kinds[_i].code);
	ck_assert_int_eq(e.code, kinds[_i].code);
	ck_assert_int_eq(e.kind, kinds[_i].kind);
	ck_assert_str_eq(e.text, expected);
}
END_TEST

START_TEST(wrap_puts_context_before_and_keeps_the_rest)
{
	struct err e;

	err_set(&e, ERR_REFUSED, EACCES, "not for you");
	ck_assert_int_eq(err_wrap(&e, "export \"%s\"", "disk"), -EACCES);
	ck_assert_int_eq(err_wrap(&e, "%s:%d", "host", 10809), -EACCES);
	ck_assert_str_eq(e.text, "host:10809: export \"disk\": not for you");
	ck_assert_int_eq(e.code, EACCES);
	ck_assert_int_eq(e.kind, ERR_REFUSED);
}
END_TEST

START_TEST(set_cuts_what_is_too_long)
{
	struct err e;
	char big[2 * sizeof(e.text)];

	fill(big, sizeof(big), 'x');
	ck_assert_int_eq(err_set(&e, ERR_FAILED, EIO, "%s", big), -EIO);
	ck_assert_uint_eq(strlen(e.text), sizeof(e.text) - 1);
	ck_assert_mem_eq(e.text, big, sizeof(e.text) - 1);
}
END_TEST

START_TEST(sys_cuts_what_is_too_long)
{
	struct err e;
	char text[sizeof(e.text) - 4];

	/* Space for ": " and one letter of the reason. */
	fill(text, sizeof(text), 'x');
	ck_assert_int_eq(err_sys(&e, ERR_FAILED, EIO, "%s", text), -EIO);
	ck_assert_uint_eq(strlen(e.text), sizeof(e.text) - 1);
	ck_assert_mem_eq(e.text, text, strlen(text));
	ck_assert_int_eq(e.text[strlen(text)], ':');
	ck_assert_int_eq(e.text[strlen(text) + 2], strerror(EIO)[0]);
}
END_TEST

START_TEST(wrap_cuts_the_end)
{
	struct err e;
	char big[2 * sizeof(e.text)];

	fill(big, sizeof(big), 'x');
	err_set(&e, ERR_FAILED, EIO, "%s", big);
	ck_assert_int_eq(err_wrap(&e, "first"), -EIO);
	ck_assert_uint_eq(strlen(e.text), sizeof(e.text) - 1);
	ck_assert_int_eq(strncmp(e.text, "first: xxx", 10), 0);
	ck_assert_int_eq(err_wrap(&e, "%s", big), -EIO);
	ck_assert_uint_eq(strlen(e.text), sizeof(e.text) - 1);
	ck_assert_mem_eq(e.text, big, sizeof(e.text) - 1);
	ck_assert_int_eq(e.kind, ERR_FAILED);
}
END_TEST

Suite *unit_suite(void)
{
	const int n = (int)(sizeof(kinds) / sizeof(kinds[0]));
	Suite *s = suite_create("err");
	TCase *t = tcase_create("err");

	tcase_add_test(t, clear_leaves_no_error);
	tcase_add_loop_test(t, set_returns_minus_code, 0, n);
	tcase_add_loop_test(t, sys_appends_the_words_of_the_system, 0, n);
	tcase_add_test(t, wrap_puts_context_before_and_keeps_the_rest);
	tcase_add_test(t, set_cuts_what_is_too_long);
	tcase_add_test(t, sys_cuts_what_is_too_long);
	tcase_add_test(t, wrap_cuts_the_end);
	suite_add_tcase(s, t);
	return s;
}
