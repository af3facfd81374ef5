/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/* On a device that there is not, whose detach fails. */
#include "daemon/stopper.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "../leak.h"
#include "../unit.h"
#include "net/blocking_child.h"

enum { NO_DEVICE = 1048574, SOON_MS = 20000 };

struct lines {
	unsigned count;
	char last[1024];
};

static void add_line(void *ctx, enum log_level level, const char *text)
{
	struct lines *l = ctx;

	(void)level;
	l->count++;
	snprintf(l->last, sizeof(l->last), "%s", text);
}

static bool reaped(struct stopper *s)
{
	const long long end = monotonic_ms() + SOON_MS;

	while (!stopper_reap(s)) {
		if (monotonic_ms() > end)
			return false;
		poll(NULL, 0, 1);
	}
	return true;
}

START_TEST(a_refused_detach)
{
	struct lines lines = { 0 };
	const struct log log = { .line = add_line, .ctx = &lines };
	struct stopper s = { .index = NO_DEVICE, .persistent = _i, .log = &log, .due_ms = -1 };
	pid_t pid;

	ck_assert(!stopper_reap(&s));
	stopper_start(&s);
	ck_assert_int_gt(s.pid, 0);
	ck_assert_str_eq(lines.last, "nbd1048574: asked to stop, detaching");
	/* One at a time. */
	pid = s.pid;
	stopper_start(&s);
	ck_assert_int_eq(s.pid, pid);
	ck_assert_uint_eq(lines.count, 1);
	ck_assert(reaped(&s));
	ck_assert_int_eq(s.pid, 0);
	ck_assert(!stopper_reap(&s));
	stopper_refused(&s);
	if (!_i) {
		ck_assert_int_eq(s.due_ms, -1);
		return;
	}
	ck_assert_int_gt(s.due_ms, boottime_ms());
	/* Again and again, but the log is told once. */
	stopper_start(&s);
	ck_assert_int_eq(s.due_ms, -1);
	ck_assert_uint_eq(lines.count, 1);
	ck_assert(reaped(&s));
	ck_assert(leak_no_child());
}
END_TEST

START_TEST(no_process_for_it)
{
	struct lines lines = { 0 };
	const struct log log = { .line = add_line, .ctx = &lines };
	struct stopper s = { .index = NO_DEVICE, .log = &log, .due_ms = -1 };
	struct no_fork nf;

	if (!leak_forbid_fork(&nf))
		return;
	for (int i = 0; i < 3; i++) {
		stopper_start(&s);
		ck_assert_int_eq(s.pid, 0);
		ck_assert_int_gt(s.due_ms, boottime_ms());
	}
	leak_allow_fork(&nf);
	ck_assert_uint_eq(lines.count, 2);
	ck_assert_str_eq(lines.last, "nbd1048574: cannot start the detach, trying again: Resource "
				     "temporarily unavailable");
	stopper_start(&s);
	ck_assert_int_gt(s.pid, 0);
	ck_assert(reaped(&s));
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("stopper");
	TCase *t = tcase_create("stopper");

	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, a_refused_detach, 0, 2);
	tcase_add_test(t, no_process_for_it);
	suite_add_tcase(s, t);
	return s;
}
