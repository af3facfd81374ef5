// SPDX-License-Identifier: GPL-2.0-or-later
// SPDX-FileCopyrightText: The nbd-attach authors
/*
 * module without loading anything: what is in the kernel already, what no kernel has. That modules
 * are really loaded is for a virtual machine to show.
 */
#include "../unit.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "kernel/module.h"

/* No such module, and it says for which kernel. */
START_TEST(unknown)
{
	struct utsname u;
	struct err e;

	ck_assert_int_eq(uname(&u), 0);
	err_clear(&e);
	ck_assert_int_eq(module_load("nbd_attach_no_such_module", &e), -ENOENT);
	ck_assert_int_eq(e.kind, ERR_KERNEL);
	ck_assert_int_eq(e.code, ENOENT);
	ck_assert_ptr_nonnull(strstr(e.text, "nbd_attach_no_such_module"));
	ck_assert_ptr_nonnull(strstr(e.text, u.release));
}
END_TEST

/* libkmod takes this name for a broken pattern: an error as well. */
START_TEST(broken_name)
{
	struct err e;

	err_clear(&e);
	ck_assert_int_eq(module_load("nbd[", &e), -EINVAL);
	ck_assert_int_eq(e.kind, ERR_KERNEL);
	ck_assert_ptr_nonnull(strstr(e.text, "nbd["));
}
END_TEST

/* A name of /sys/module whose module is part of the kernel: such have no initstate. */
static bool built_in(char *name, size_t cap)
{
	DIR *dir = opendir("/sys/module");
	struct dirent *entry;
	bool found = false;

	while (dir && !found && (entry = readdir(dir))) {
		char path[512];
		bool letter = entry->d_name[0] >= 'a' && entry->d_name[0] <= 'z';

		snprintf(path, sizeof(path), "/sys/module/%s/initstate", entry->d_name);
		if (letter && access(path, F_OK) && strlen(entry->d_name) < cap) {
			strcpy(name, entry->d_name);
			found = true;
		}
	}
	if (dir)
		closedir(dir);
	return found;
}

START_TEST(already_there)
{
	char name[128];
	struct err e;
	int r;

	if (!built_in(name, sizeof(name))) {
		puts("# SKIP already_there: /sys/module shows nothing that is built in");
		return;
	}
	err_clear(&e);
	r = module_load(name, &e);
	ck_assert_msg(r == 0, "%s: %s", name, e.text);
	ck_assert_int_eq(e.code, 0);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("module");
	TCase *tc = tcase_create("module");

	tcase_add_test(tc, unknown);
	tcase_add_test(tc, broken_name);
	tcase_add_test(tc, already_there);
	suite_add_tcase(s, tc);
	return s;
}
