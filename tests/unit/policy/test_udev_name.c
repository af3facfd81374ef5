/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "policy/udev_name.h"

#include <string.h>

#include "../unit.h"

static const struct {
	const char *uri, *alias;
} rows[] = {
	{ "nbd://server.example.com/disk", "server.example.com:10809-disk" },
	{ "nbds://u@H:1/Disk%231", "h:1-Disk#1" },
	{ "nbd://h:1/", "h:1" },
	{ "nbd://[fe80::1%25eth0]/x", "fe80::1\\x25eth0:10809-x" },
	{ "nbd://h/vol/a%20b;c", "h:10809-vol\\x2fa\\x20b\\x3bc" },
	{ "nbd://h/../../../etc", "h:10809-..\\x2f..\\x2f..\\x2fetc" },
	{ "nbd://h/%22$env%7bX%7d%5c%0a", "h:10809-\\x22\\x24env\\x7bX\\x7d\\x5c\\x0a" },
	{ "nbd://h/%C3%A4", "h:10809-\\xc3\\xa4" },
	{ "nbd+unix:///x?socket=/run/s", "\\x2frun\\x2fs-x" },
	{ "nbd+vsock://2/x", "vsock:2:10809-x" },
};

START_TEST(names)
{
	char buf[UDEV_NAME_MAX + 1];
	struct uri u;
	struct err e;

	ck_assert_msg(!uri_parse(&u, rows[_i].uri, &e), "%s: %s", rows[_i].uri, e.text);
	memset(buf, 'X', sizeof(buf));
	udev_name_of(&u, buf);
	ck_assert_str_eq(buf, rows[_i].alias);
}
END_TEST

/* Every length around the limit: whole escapes, never longer, and no two the same. */
START_TEST(long_names)
{
	char buf[UDEV_NAME_MAX + 2], last[UDEV_NAME_MAX + 2] = "";
	struct uri u = { .transport = URI_TCP, .host = "h", .port = "1" };

	for (int plain = 0; plain < 4; plain++) {
		memset(u.export, '/', sizeof(u.export));
		memset(u.export, 'x', (size_t)plain);
		for (size_t len = 40; len < 60; len++) {
			const char *p = buf;

			u.export[len] = '\0';
			buf[UDEV_NAME_MAX + 1] = 'G';
			udev_name_of(&u, buf);
			u.export[len] = '/';
			ck_assert_uint_le(strlen(buf), UDEV_NAME_MAX);
			ck_assert_int_eq(buf[UDEV_NAME_MAX + 1], 'G');
			while ((p = strchr(p, '\\')) != NULL) {
				ck_assert(!strncmp(p, "\\x2f", 4));
				p += 4;
			}
			ck_assert_str_ne(buf, last);
			strcpy(last, buf);
		}
		ck_assert_ptr_nonnull(strchr(buf, '='));
	}
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("udev_name");
	TCase *c = tcase_create("udev_name");

	tcase_add_loop_test(c, names, 0, sizeof(rows) / sizeof(rows[0]));
	tcase_add_test(c, long_names);
	suite_add_tcase(s, c);
	return s;
}
