/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "kernel/protect_self.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/asan.h"
#include "../unit.h"

#ifndef PR_GET_IO_FLUSHER
#define PR_GET_IO_FLUSHER 58
#endif

enum { REFUSED = 90, WITHOUT_TEXT };

static int in_a_child(int (*f)(void))
{
	pid_t pid = fork();
	int status;

	ck_assert_int_ge(pid, 0);
	if (!pid)
		_exit(f());
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static long number_of(const char *path, const char *name)
{
	FILE *f = fopen(path, "re");
	char line[256];
	long value = -1;

	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, name, strlen(name)))
			value = strtol(line + strlen(name), NULL, 10);
	if (f)
		fclose(f);
	return value;
}

static int protect_and_check(void)
{
	struct err e = { 0 };
	long before;
	char *p;

	if (protect_self(&e))
		return e.kind == ERR_KERNEL && strstr(e.text, "root's capabilities") ? REFUSED :
										       WITHOUT_TEXT;
	if (number_of("/proc/self/oom_score_adj", "") != -1000)
		return 1;
	before = number_of("/proc/self/status", "VmLck:");
	if (before <= 0)
		return 2;
	if (prctl(PR_GET_IO_FLUSHER, 0, 0, 0, 0) != 1 && errno != EINVAL)
		return 3;
	/* Later memory is locked as well. */
	p = malloc(4 << 20);
	return p && number_of("/proc/self/status", "VmLck:") >= before + (3 << 10) ? 0 : 4;
}

START_TEST(all_of_it)
{
	int status;

	/* valgrind's own memory is more than may be locked, and AddressSanitizer locks none */
	if (SANITIZED || unit_under_valgrind())
		return;
	status = in_a_child(protect_and_check);
	/* root of a container may lack the capabilities */
	ck_assert_msg(!status || status == REFUSED, "%d", status);
}
END_TEST

/* Whoever may not is told. */
static int without_privilege(void)
{
	const struct rlimit none = { 0, 0 };
	struct err e = { 0 };

	if (setrlimit(RLIMIT_MEMLOCK, &none) || (!geteuid() && setuid(65534)))
		return 1;
	if (SANITIZED)
		return 0;
	if (protect_self(&e) != -EACCES && e.code != EPERM && e.code != ENOMEM)
		return 2;
	return e.kind == ERR_KERNEL && e.text[0] ? 0 : 3;
}

START_TEST(privilege_is_needed)
{
	ck_assert_int_eq(in_a_child(without_privilege), 0);
}
END_TEST

START_TEST(mark)
{
	char arg0[] = "/sbin/nbd-attach";

	protect_self_mark(arg0);
	ck_assert_str_eq(arg0, "@sbin/nbd-attach");
}
END_TEST

Suite *unit_suite(void)
{
	Suite *suite = suite_create("protect_self");
	TCase *tc = tcase_create("protect_self");

	tcase_add_test(tc, all_of_it);
	tcase_add_test(tc, privilege_is_needed);
	tcase_add_test(tc, mark);
	suite_add_tcase(suite, tc);
	return suite;
}
