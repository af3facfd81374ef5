/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "proto/metactx.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "../unit.h"

static int add(struct metactx *c, const char *name, struct err *e)
{
	err_clear(e);
	return metactx_add(c, name, strlen(name), e);
}

START_TEST(names_are_kept_in_order)
{
	struct metactx c = { 0 };
	struct err e;

	ck_assert_str_eq(metactx_name(&c, 0), "");
	ck_assert_int_eq(metactx_find(&c, ""), -1);
	ck_assert_int_eq(add(&c, "base:allocation", &e), 0);
	ck_assert_int_eq(metactx_add(&c, "qemu:dirty-bitmap:b and more", 19, &e), 0);
	ck_assert_int_eq(add(&c, "x-\xc3\xa9:", &e), 0);
	ck_assert_uint_eq(c.count, 3);
	ck_assert_str_eq(metactx_name(&c, 0), "base:allocation");
	ck_assert_str_eq(metactx_name(&c, 1), "qemu:dirty-bitmap:b");
	ck_assert_str_eq(metactx_name(&c, 2), "x-\xc3\xa9:");
	ck_assert_str_eq(metactx_name(&c, 3), "");
	ck_assert_str_eq(metactx_name(&c, 4000000000), "");
	ck_assert_int_eq(metactx_find(&c, "base:allocation"), 0);
	ck_assert_int_eq(metactx_find(&c, "qemu:dirty-bitmap:b"), 1);
	ck_assert_int_eq(metactx_find(&c, "qemu:dirty-bitmap:"), -1);
	ck_assert_int_eq(metactx_find(&c, ""), -1);
}
END_TEST

static const struct {
	const char *name;
	size_t len; /* 0: all */
} wrong[] = {
	{ "", 0 },       { "allocation", 0 },     { ":allocation", 0 }, { ":", 0 },
	{ "a b:c", 0 },  { " a:c", 0 },           { "a\t:c", 0 },       { "a\x7f:c", 0 },
	{ "a:\xff", 0 }, { "a:\xed\xa0\x80", 0 }, { "a:b\0c", 5 },      { "\x1b[2J", 0 },
};

START_TEST(what_is_no_name_is_refused)
{
	struct metactx c = { 0 };
	struct err e;
	size_t len = wrong[_i].len ? wrong[_i].len : strlen(wrong[_i].name);

	ck_assert_int_eq(metactx_add(&c, wrong[_i].name, len, &e), -EINVAL);
	ck_assert_int_eq(e.kind, ERR_USAGE);
	ck_assert_ptr_nonnull(strstr(e.text, "is no meta context"));
	ck_assert_ptr_null(strchr(e.text, '\x1b'));
	ck_assert_uint_eq(c.count, 0);
}
END_TEST

START_TEST(a_name_is_taken_once)
{
	struct metactx c = { 0 };
	struct err e;

	ck_assert_int_eq(add(&c, "a:b", &e), 0);
	ck_assert_int_eq(add(&c, "a:", &e), 0);
	ck_assert_int_eq(add(&c, "a:b", &e), -EEXIST);
	ck_assert_int_eq(e.kind, ERR_USAGE);
	ck_assert_ptr_nonnull(strstr(e.text, "\"a:b\" is given twice"));
	ck_assert_uint_eq(c.count, 2);
}
END_TEST

START_TEST(there_is_room_for_so_many)
{
	struct metactx c = { 0 };
	char name[16];
	struct err e;

	for (int i = 0; i < METACTX_MAX; i++) {
		snprintf(name, sizeof(name), "x:%d", i);
		ck_assert_int_eq(add(&c, name, &e), 0);
	}
	ck_assert_int_eq(add(&c, "x:more", &e), -E2BIG);
	ck_assert_int_eq(e.kind, ERR_USAGE);
	ck_assert_uint_eq(c.count, METACTX_MAX);
	ck_assert_str_eq(metactx_name(&c, METACTX_MAX - 1), "x:15");
}
END_TEST

START_TEST(there_is_room_for_so_much)
{
	static char longest[4098];
	struct metactx c = { 0 };
	struct err e;

	memset(longest, 'x', sizeof(longest) - 1);
	longest[1] = ':';
	/* one byte more than a string may have */
	ck_assert_int_eq(add(&c, longest, &e), -E2BIG);
	ck_assert_int_eq(metactx_add(&c, longest, 4096, &e), 0);
	/* the room that is left has to hold the NUL too */
	longest[2] = 'y';
	ck_assert_int_eq(metactx_add(&c, longest, METACTX_BYTES - 4097, &e), -E2BIG);
	ck_assert_int_eq(metactx_add(&c, longest, METACTX_BYTES - 4098, &e), 0);
	ck_assert_uint_eq(strlen(metactx_name(&c, 1)), METACTX_BYTES - 4098);
	ck_assert_int_eq(add(&c, "a:", &e), -E2BIG);
	ck_assert_uint_eq(c.count, 2);
	ck_assert_uint_eq(strlen(metactx_name(&c, 0)), 4096);
}
END_TEST

/* It may come out of another process. */
START_TEST(any_content_is_safe)
{
	static struct metactx c;

	memset(&c, 'a', sizeof(c));
	for (unsigned i = 0; i < 20; i++)
		ck_assert_str_eq(metactx_name(&c, i), "");
	ck_assert_int_eq(metactx_find(&c, "aaa"), -1);
	c.names[sizeof(c.names) - 1] = '\0';
	ck_assert_uint_eq(strlen(metactx_name(&c, 0)), METACTX_BYTES - 1);
	ck_assert_str_eq(metactx_name(&c, 1), "");
}
END_TEST

static const struct {
	const char *name;
	uint32_t flags;
	const char *text; /* NULL: not known */
} meanings[] = {
	{ "base:allocation", 0, "data" },
	{ "base:allocation", 1, "hole" },
	{ "base:allocation", 2, "zero" },
	{ "base:allocation", 3, "hole,zero" },
	{ "base:allocation", 0xfffffffc, "data" },
	{ "base:allocation", 0x80000003, "hole,zero" },
	{ "qemu:dirty-bitmap:b", 0, "clean" },
	{ "qemu:dirty-bitmap:", 1, "dirty" },
	{ "qemu:dirty-bitmap:x", 2, "clean" },
	{ "qemu:allocation-depth", 0, "absent" },
	{ "qemu:allocation-depth", 1, "local" },
	{ "qemu:allocation-depth", 2, "backing depth 2" },
	{ "qemu:allocation-depth", UINT32_MAX, "backing depth 4294967295" },
	{ "base:allocation2", 0, NULL },
	{ "base:", 0, NULL },
	{ "qemu:dirty-bitmap", 1, NULL },
	{ "qemu:allocation-depth:", 1, NULL },
	{ "", 0, NULL },
};

START_TEST(flags_have_a_meaning)
{
	char text[METACTX_TEXT_MAX] = "before";
	const char *want = meanings[_i].text;

	ck_assert_int_eq(metactx_describe(meanings[_i].name, meanings[_i].flags, text),
			 want ? 0 : -ENOENT);
	ck_assert_str_eq(text, want ? want : "");
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("metactx");
	TCase *t = tcase_create("metactx");

	tcase_add_test(t, names_are_kept_in_order);
	tcase_add_loop_test(t, what_is_no_name_is_refused, 0, sizeof(wrong) / sizeof(wrong[0]));
	tcase_add_test(t, a_name_is_taken_once);
	tcase_add_test(t, there_is_room_for_so_many);
	tcase_add_test(t, there_is_room_for_so_much);
	tcase_add_test(t, any_content_is_safe);
	tcase_add_loop_test(t, flags_have_a_meaning, 0, sizeof(meanings) / sizeof(meanings[0]));
	suite_add_tcase(s, t);
	return s;
}
