/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "net/blocking_child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../leak.h"
#include "../unit.h"

enum {
	LIMIT_MS = 300,
	LONG_MS = 60000,
	SOON_MS = 20000, /* far below LONG_MS, far above what a busy machine needs */
};

static void add(const void *arg, void *out)
{
	const int *n = arg;

	*(int *)out = n[0] + n[1];
}

static void leave(const void *arg, void *out)
{
	(void)arg;
	(void)out;
	_exit(0);
}

static void crash(const void *arg, void *out)
{
	(void)arg;
	(void)out;
	raise(SIGKILL);
}

static void hang(const void *arg, void *out)
{
	(void)arg;
	(void)out;
	for (;;)
		pause();
}

static void fill(const void *arg, void *out)
{
	memset(out, *(const char *)arg, BLOCKING_CHILD_RESULT_MAX);
}

struct view {
	pid_t pid, parent;
	bool zero;
};

static void look(const void *arg, void *out)
{
	struct view *v = out;

	(void)arg;
	v->zero = true;
	for (size_t i = 0; i < BLOCKING_CHILD_RESULT_MAX; i++)
		if (((const char *)out)[i] && i >= sizeof(*v))
			v->zero = false;
	v->pid = getpid();
	v->parent = getppid();
}

START_TEST(result)
{
	const int arg[2] = { 40, 2 };
	unsigned before = leak_fds();
	struct err e = { 0 };
	int out = 0;

	ck_assert_int_eq(blocking_child_run(add, arg, &out, sizeof(out), LONG_MS, -1, &e), 0);
	ck_assert_int_eq(out, 42);
	ck_assert_int_eq(e.kind, ERR_NONE);
	ck_assert_uint_eq(leak_fds(), before);
	ck_assert(leak_no_child());
}
END_TEST

START_TEST(result_in_two_steps)
{
	const int arg[2] = { -5, 2 };
	unsigned before = leak_fds();
	struct err e = { 0 };
	struct pollfd p;
	struct blocking_child t;
	int out = 0;

	ck_assert_int_eq(blocking_child_start(&t, add, arg, sizeof(out), &e), 0);
	ck_assert_int_gt(t.pid, 0);
	ck_assert_int_eq(fcntl(t.fd, F_GETFD), FD_CLOEXEC);
	p = (struct pollfd){ .fd = t.fd, .events = POLLIN };
	ck_assert_int_eq(poll(&p, 1, SOON_MS), 1);
	ck_assert_int_eq(blocking_child_collect(&t, &out, &e), 0);
	ck_assert_int_eq(out, -3);
	ck_assert_int_eq(t.pid, -1);
	ck_assert_int_eq(t.fd, -1);
	ck_assert_uint_eq(leak_fds(), before);
	ck_assert(leak_no_child());
	/* what is over can be given up once more */
	blocking_child_abandon(&t);
}
END_TEST

START_TEST(collect_waits)
{
	const int arg[2] = { 1, 1 };
	struct err e = { 0 };
	struct blocking_child t;
	int out = 0;

	ck_assert_int_eq(blocking_child_start(&t, add, arg, sizeof(out), &e), 0);
	ck_assert_int_eq(blocking_child_collect(&t, &out, &e), 0);
	ck_assert_int_eq(out, 2);
	ck_assert(leak_no_child());
}
END_TEST

START_TEST(runs_in_a_child_with_a_zeroed_result)
{
	struct err e = { 0 };
	struct view v;

	memset(&v, 0xff, sizeof(v));
	ck_assert_int_eq(blocking_child_run(look, NULL, &v, sizeof(v), LONG_MS, -1, &e), 0);
	ck_assert(v.zero);
	ck_assert_int_ne(v.pid, getpid());
	ck_assert_int_eq(v.parent, getpid());
}
END_TEST

START_TEST(largest_result)
{
	static char out[BLOCKING_CHILD_RESULT_MAX];
	struct err e = { 0 };

	ck_assert_int_eq(blocking_child_run(fill, "x", out, sizeof(out), LONG_MS, -1, &e), 0);
	ck_assert_int_eq(out[0], 'x');
	ck_assert_int_eq(out[sizeof(out) - 1], 'x');
}
END_TEST

START_TEST(result_that_is_too_large)
{
	static char out[BLOCKING_CHILD_RESULT_MAX + 1];
	unsigned before = leak_fds();
	struct err e = { 0 };

	ck_assert_int_eq(blocking_child_run(fill, "x", out, sizeof(out), LONG_MS, -1, &e), -EINVAL);
	ck_assert_int_eq(e.kind, ERR_FAILED);
	ck_assert_ptr_nonnull(strstr(e.text, "4097 bytes"));
	ck_assert_int_eq(out[0], 0);
	ck_assert_uint_eq(leak_fds(), before);
	ck_assert(leak_no_child());
}
END_TEST

START_TEST(child_without_a_result)
{
	static const blocking_child_fn functions[] = { leave, crash };
	unsigned before = leak_fds();
	struct err e = { 0 };
	int out;

	ck_assert_int_eq(blocking_child_run(functions[_i], NULL, &out, sizeof(out), LONG_MS, -1,
					    &e),
			 -EIO);
	ck_assert_int_eq(e.kind, ERR_FAILED);
	ck_assert_ptr_nonnull(strstr(e.text, "child process died"));
	ck_assert_uint_eq(leak_fds(), before);
	ck_assert(leak_no_child());
}
END_TEST

/* The killed child may need longer than an instant on a busy machine, but not each time. */
static bool run_until_reaped(unsigned timeout_ms, int cancel_fd, int expected, struct err *e)
{
	for (int i = 0; i < 5; i++) {
		int out;

		ck_assert_int_eq(blocking_child_run(hang, NULL, &out, sizeof(out), timeout_ms,
						    cancel_fd, e),
				 expected);
		if (leak_no_child())
			return true;
		while (waitpid(-1, NULL, 0) > 0)
			;
	}
	return false;
}

START_TEST(timeout)
{
	unsigned before = leak_fds();
	long long start = monotonic_ms();
	struct err e = { 0 };

	ck_assert(run_until_reaped(LIMIT_MS, -1, -ETIMEDOUT, &e));
	ck_assert_int_ge(monotonic_ms() - start, LIMIT_MS);
	ck_assert_int_lt(monotonic_ms() - start, SOON_MS);
	ck_assert_int_eq(e.code, ETIMEDOUT);
	ck_assert_str_eq(e.text, "not done within 0.3 s");
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

START_TEST(no_time_at_all)
{
	struct err e = { 0 };

	ck_assert(run_until_reaped(0, -1, -ETIMEDOUT, &e));
}
END_TEST

START_TEST(cancel)
{
	long long start = monotonic_ms();
	struct err e = { 0 };
	unsigned before;
	int fds[2];

	ck_assert_int_eq(pipe(fds), 0);
	if (_i == 0)
		ck_assert_int_eq(write(fds[1], "", 1), 1);
	else
		close(fds[1]);
	before = leak_fds();
	ck_assert(run_until_reaped(LONG_MS, fds[0], -ECANCELED, &e));
	ck_assert_int_lt(monotonic_ms() - start, SOON_MS);
	ck_assert_int_eq(e.code, ECANCELED);
	ck_assert_uint_eq(leak_fds(), before);
	close(fds[0]);
	if (_i == 0)
		close(fds[1]);
}
END_TEST

START_TEST(quiet_cancel_fd_does_not_disturb)
{
	const int arg[2] = { 3, 4 };
	struct err e = { 0 };
	int fds[2], out = 0;

	ck_assert_int_eq(pipe(fds), 0);
	ck_assert_int_eq(blocking_child_run(add, arg, &out, sizeof(out), LONG_MS, fds[0], &e), 0);
	ck_assert_int_eq(out, 7);
	close(fds[0]);
	close(fds[1]);
}
END_TEST

START_TEST(abandon)
{
	unsigned before = leak_fds();
	struct err e = { 0 };
	struct blocking_child t;
	pid_t pid;

	ck_assert_int_eq(blocking_child_start(&t, hang, NULL, 1, &e), 0);
	pid = t.pid;
	blocking_child_abandon(&t);
	ck_assert_int_eq(t.pid, -1);
	ck_assert_int_eq(t.fd, -1);
	ck_assert_uint_eq(leak_fds(), before);
	/* killed, whoever had to take it away */
	while (waitpid(pid, NULL, 0) > 0)
		;
	ck_assert_int_eq(kill(pid, 0), -1);
	ck_assert_int_eq(errno, ESRCH);
}
END_TEST

static pid_t late_for;

/* Takes the place of the C library's: a child is so slow that its parent has ended before. */
int prctl(int option, ...)
{
	va_list list;
	unsigned long arg;

	va_start(list, option);
	arg = va_arg(list, unsigned long);
	va_end(list);
	while (late_for && getppid() == late_for)
		usleep(1000);
	return (int)syscall(SYS_prctl, option, arg, 0, 0, 0);
}

START_TEST(child_ends_with_its_parent)
{
	int fds[2], status;
	struct pollfd p;
	pid_t pid;

	ck_assert_int_eq(pipe(fds), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (!pid) {
		struct err e;
		struct blocking_child t;

		/* the task inherits the pipe's write end, which closes with the last of the two */
		close(fds[0]);
		late_for = _i ? getpid() : 0;
		if (blocking_child_start(&t, hang, NULL, 1, &e))
			_exit(1);
		/* Its first act must have happened, or must not. */
		if (!_i)
			poll(NULL, 0, 200);
		_exit(0);
	}
	close(fds[1]);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	p = (struct pollfd){ .fd = fds[0], .events = POLLIN };
	ck_assert_int_eq(poll(&p, 1, SOON_MS), 1);
	ck_assert(p.revents & POLLHUP);
	close(fds[0]);
}
END_TEST

START_TEST(no_descriptors)
{
	struct rlimit old, few;
	struct err e = { 0 };
	struct blocking_child t;
	int ret;

	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
	few = old;
	few.rlim_cur = 0;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
	ret = blocking_child_start(&t, hang, NULL, 1, &e);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
	ck_assert_int_eq(ret, -EMFILE);
	ck_assert_int_eq(e.kind, ERR_FAILED);
	ck_assert_int_eq(t.pid, -1);
	ck_assert_int_eq(t.fd, -1);
	ck_assert(leak_no_child());
}
END_TEST

START_TEST(no_process)
{
	unsigned before = leak_fds();
	struct err e = { 0 };
	struct no_fork nf;
	struct blocking_child t;
	int ret;

	if (!leak_forbid_fork(&nf))
		return;
	ret = blocking_child_start(&t, hang, NULL, 1, &e);
	leak_allow_fork(&nf);
	ck_assert_int_eq(ret, -EAGAIN);
	ck_assert_int_eq(e.kind, ERR_FAILED);
	ck_assert_ptr_nonnull(strstr(e.text, "fork"));
	ck_assert_int_eq(t.pid, -1);
	ck_assert_int_eq(t.fd, -1);
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

START_TEST(clock_goes_on)
{
	long long start = monotonic_ms(), later;

	poll(NULL, 0, 50);
	later = monotonic_ms();
	ck_assert_int_ge(later - start, 49);
	ck_assert_int_lt(later - start, SOON_MS);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("task");
	TCase *t = tcase_create("task");

	tcase_set_timeout(t, 60);
	tcase_add_test(t, result);
	tcase_add_test(t, result_in_two_steps);
	tcase_add_test(t, collect_waits);
	tcase_add_test(t, runs_in_a_child_with_a_zeroed_result);
	tcase_add_test(t, largest_result);
	tcase_add_test(t, result_that_is_too_large);
	tcase_add_loop_test(t, child_without_a_result, 0, 2);
	tcase_add_test(t, timeout);
	tcase_add_test(t, no_time_at_all);
	tcase_add_loop_test(t, cancel, 0, 2);
	tcase_add_test(t, quiet_cancel_fd_does_not_disturb);
	tcase_add_test(t, abandon);
	tcase_add_loop_test(t, child_ends_with_its_parent, 0, 2);
	tcase_add_test(t, no_descriptors);
	tcase_add_test(t, no_process);
	tcase_add_test(t, clock_goes_on);
	suite_add_tcase(s, t);
	return s;
}
