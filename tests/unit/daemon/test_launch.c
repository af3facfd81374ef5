/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * launch, as far as it goes without the driver: an attach that fails leaves no process, no blocked
 * signal and no descriptor. What is killed while a device is attached is tests/vm/kill.sh.
 */
#include "../unit.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/launch.h"

enum { NOBODY = 65534 };

static struct settings settings;

static int called;

static int attached(const void *ctx, const struct attach_result *r, struct err *e)
{
	(void)ctx;
	(void)r;
	(void)e;
	called++;
	return 0;
}

static struct launch_request request(void)
{
	struct err e;
	int ret;

	settings_init(&settings);
	ret = settings_add_host(&settings, "127.0.0.1", "1", false, "x", &e);
	if (!ret)
		ret = settings_complete(&settings, true, &e);
	ck_assert_msg(!ret, "%s", e.text);
	/* Whoever may configure devices would have the driver loaded. */
	if (!geteuid())
		ck_assert_int_eq(setresuid(NOBODY, NOBODY, NOBODY), 0);
	return (struct launch_request){
		.attach = { .settings = &settings, .index = 1048575 },
		.log_fd = -1,
		.attached = attached,
	};
}

static unsigned count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned count = 0;

	ck_assert_ptr_nonnull(dir);
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

static void assert_nothing_left(const sigset_t *before, unsigned fds)
{
	sigset_t now;

	ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1);
	ck_assert_int_eq(errno, ECHILD);
	sigprocmask(SIG_SETMASK, NULL, &now);
	for (int i = 1; i < 32; i++)
		ck_assert_int_eq(sigismember(&now, i), sigismember(before, i));
	ck_assert_uint_eq(count_fds(), fds);
	ck_assert_int_eq(called, 0);
}

START_TEST(attach_fails)
{
	struct launch_request rq = request();
	unsigned fds = count_fds();
	sigset_t before;
	struct err e = { 0 };

	sigprocmask(SIG_SETMASK, NULL, &before);
	ck_assert_int_eq(launch_attach(&rq, &e), -EPERM);
	ck_assert_int_eq(e.kind, ERR_KERNEL);
	ck_assert_ptr_nonnull(strstr(e.text, "CAP_SYS_ADMIN"));
	assert_nothing_left(&before, fds);
}
END_TEST

/* One that came before is not lost: the attach gives up by it. */
START_TEST(interrupted)
{
	struct launch_request rq = request();
	sigset_t term, before;
	struct err e = { 0 };

	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	sigprocmask(SIG_BLOCK, &term, NULL);
	sigprocmask(SIG_SETMASK, NULL, &before);
	raise(SIGTERM);
	ck_assert_int_lt(launch_attach(&rq, &e), 0);
	/* Heeded, or too late: it does not end us when the mask goes. */
	sigprocmask(SIG_UNBLOCK, &term, NULL);
	sigprocmask(SIG_BLOCK, &term, NULL);
	assert_nothing_left(&before, count_fds());
}
END_TEST

START_TEST(stay_fails)
{
	struct launch_request rq = request();
	struct err e = { 0 };

	ck_assert_int_eq(launch_stay(&rq, &e), -EPERM);
	ck_assert_int_eq(e.kind, ERR_KERNEL);
	ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1);
	ck_assert_int_eq(called, 0);
}
END_TEST

START_TEST(takeover_fails)
{
	struct launch_request rq = request();
	unsigned fds = count_fds();
	struct err e = { 0 };
	sigset_t before;

	if (access("/sys/block", R_OK)) {
		puts("# SKIP takeover_fails: no /sys");
		return;
	}
	sigprocmask(SIG_SETMASK, NULL, &before);
	ck_assert_int_eq(launch_takeover(&rq, &e), -ENODEV);
	ck_assert_int_eq(e.kind, ERR_ABSENT);
	assert_nothing_left(&before, fds);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("launch");
	TCase *tc = tcase_create("launch");

	tcase_set_timeout(tc, 30);
	tcase_add_test(tc, attach_fails);
	tcase_add_test(tc, interrupted);
	tcase_add_test(tc, stay_fails);
	tcase_add_test(tc, takeover_fails);
	suite_add_tcase(s, tc);
	return s;
}
