/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/* guard: each of the two processes is ended at each moment, and the other one sees it. */
#include "../unit.h"

#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/guard.h"

enum { LONG_MS = 10000 };

struct report {
	int number;
	char text[2000];
};

static bool is_readable(int fd, int ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, ms) > 0;
}

static void send_number(int control, int number)
{
	struct report r = { .number = number, .text = "whole" };

	if (!guard_report(control, &r, sizeof(r)))
		_exit(2);
}

static bool wait_number(const struct guard *g, int *number, bool *interrupted)
{
	struct report r = { 0 };
	bool taken = guard_wait(g, &r, sizeof(r), interrupted);

	*number = r.number;
	if (taken)
		ck_assert_str_eq(r.text, "whole");
	return taken;
}

static struct guard start(void (*work)(void *ctx, int control), void *ctx)
{
	struct guard g = { .signals = -1 };
	struct err e;

	ck_assert_int_eq(guard_start_worker(&g, work, ctx, &e), 0);
	ck_assert_int_gt(g.worker, 0);
	return g;
}

static void assert_no_child(void)
{
	ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1);
}

/* --- the caller watches -------------------------------------------------------------------- */

static void report_and_stay(void *ctx, int control)
{
	(void)ctx;
	send_number(control, 7);
	pause();
}

START_TEST(reported)
{
	struct guard g = start(report_and_stay, NULL);
	bool interrupted;
	int number;

	ck_assert(wait_number(&g, &number, &interrupted));
	ck_assert_int_eq(number, 7);
	ck_assert(!interrupted);
	kill(g.worker, SIGKILL);
	guard_close(&g, true);
	assert_no_child();
}
END_TEST

static void report_and_end(void *ctx, int control)
{
	(void)ctx;
	send_number(control, 8);
}

/* What was sent before the end counts, though the end may be seen first. */
START_TEST(reported_and_ended)
{
	struct guard g = start(report_and_end, NULL);
	bool interrupted;
	int number;

	ck_assert(is_readable(g.death, LONG_MS));
	ck_assert(wait_number(&g, &number, &interrupted));
	ck_assert_int_eq(number, 8);
	guard_close(&g, true);
	assert_no_child();
}
END_TEST

static void end_silently(void *ctx, int control)
{
	(void)ctx;
	(void)control;
}

static void kill_self(void *ctx, int control)
{
	(void)ctx;
	(void)control;
	raise(SIGKILL);
}

/* As of a worker whose child waits in the kernel. */
static void leave_a_child(void *ctx, int control)
{
	(void)ctx;
	(void)control;
	if (!fork()) {
		sleep(2 * LONG_MS / 1000);
		_exit(0);
	}
	raise(SIGKILL);
}

START_TEST(died)
{
	static void (*const ways[])(void *, int) = { end_silently, kill_self, leave_a_child };
	struct guard g = start(ways[_i], NULL);
	bool interrupted;
	int number;

	ck_assert(!wait_number(&g, &number, &interrupted));
	ck_assert(!interrupted);
	guard_close(&g, true);
	assert_no_child();
}
END_TEST

/* ctx: what it reports when it is told, 0: nothing. */
static void work_until_told(void *ctx, int control)
{
	const int *number = ctx;

	if (is_readable(control, LONG_MS) && *number)
		send_number(control, *number);
}

START_TEST(interrupted)
{
	int wanted = _i, number;
	struct guard g = start(work_until_told, &wanted);
	bool was_interrupted, taken;

	/* Readable as a signalfd is. */
	g.signals = eventfd(1, EFD_CLOEXEC);
	taken = wait_number(&g, &number, &was_interrupted);
	ck_assert(was_interrupted);
	ck_assert_int_eq(taken, wanted > 0);
	ck_assert_int_eq(number, wanted);
	close(g.signals);
	guard_close(&g, true);
	assert_no_child();
}
END_TEST

/* ctx: a pipe, on which the worker says what it sees of its watcher's end. */
static void work_alone(void *ctx, int control)
{
	const int *to = ctx;
	char seen = 'n';

	if (is_readable(control, LONG_MS) && !guard_report(control, &seen, 1))
		seen = 'y';
	if (write(to[1], &seen, 1) != 1)
		_exit(1);
}

START_TEST(watcher_dies)
{
	char seen = 0;
	int to[2];
	pid_t watcher;

	ck_assert_int_eq(pipe(to), 0);
	watcher = fork();
	ck_assert_int_ge(watcher, 0);
	if (!watcher) {
		start(work_alone, to);
		raise(SIGKILL);
	}
	close(to[1]);
	ck_assert_int_eq(waitpid(watcher, NULL, 0), watcher);
	ck_assert_int_eq(read(to[0], &seen, 1), 1);
	ck_assert_int_eq(seen, 'y');
	close(to[0]);
}
END_TEST

/* --- a child watches ----------------------------------------------------------------------- */

/* ctx: a pipe, for the number of the report; -1: the caller has died without one. */
static void watch(void *ctx, struct guard *g)
{
	const int *to = ctx;
	bool was_interrupted;
	int number;

	if (!wait_number(g, &number, &was_interrupted))
		number = -1;
	if (write(to[1], &number, sizeof(number)) != sizeof(number))
		_exit(1);
}

/* ways in which the caller ends: 0: a report, 1: killed, 2: killed, and its child stays */
START_TEST(caller_is_watched)
{
	int to[2], control, number = 0;
	pid_t caller, watcher;
	struct err e;

	ck_assert_int_eq(pipe(to), 0);
	caller = fork();
	ck_assert_int_ge(caller, 0);
	if (!caller) {
		control = guard_start_watcher(watch, to, &watcher, &e);
		if (control < 0)
			_exit(1);
		if (_i == 2 && !fork()) {
			close(to[1]);
			sleep(2 * LONG_MS / 1000);
			_exit(0);
		}
		if (_i)
			raise(SIGKILL);
		send_number(control, 9);
		_exit(waitpid(watcher, NULL, 0) == watcher ? 0 : 1);
	}
	close(to[1]);
	ck_assert_int_eq(read(to[0], &number, sizeof(number)), sizeof(number));
	ck_assert_int_eq(number, _i ? -1 : 9);
	ck_assert_int_eq(waitpid(caller, NULL, 0), caller);
	close(to[0]);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("guard");
	TCase *tc = tcase_create("guard");

	tcase_set_timeout(tc, 30);
	tcase_add_test(tc, reported);
	tcase_add_test(tc, reported_and_ended);
	tcase_add_loop_test(tc, died, 0, 3);
	tcase_add_loop_test(tc, interrupted, 0, 2);
	tcase_add_test(tc, watcher_dies);
	tcase_add_loop_test(tc, caller_is_watched, 0, 3);
	suite_add_tcase(s, tc);
	return s;
}
