/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "kernel/blocking_thread.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "../leak.h"
#include "net/blocking_child.h"
#include "../unit.h"

enum { SOON_MS = 20000 };

static struct blocking_thread *opened(void)
{
	struct err e = { 0 };
	struct blocking_thread *k;
	int ret = blocking_thread_open(&k, &e);

	ck_assert_msg(!ret, "%s", e.text);
	ck_assert_ptr_nonnull(k);
	return k;
}

static bool is_readable(const struct blocking_thread *k, int timeout_ms)
{
	struct pollfd p = { .fd = blocking_thread_fd(k), .events = POLLIN };

	return poll(&p, 1, timeout_ms) == 1 && p.revents == POLLIN;
}

struct sum {
	int a, b, result;
	pthread_t thread;
};

static void add(void *block)
{
	struct sum *s = block;

	s->result = s->a + s->b;
	s->thread = pthread_self();
}

/* A command that hangs until somebody writes to a pipe. */
struct hang {
	int fd;
	int result;
};

static void hang(void *block)
{
	struct hang *h = block;
	char c;

	if (read(h->fd, &c, 1) == 1)
		h->result = c;
}

START_TEST(one_call_after_the_other)
{
	unsigned before = leak_fds();
	struct blocking_thread *k = opened();
	struct err e = { 0 };
	struct sum s = { 0 };

	ck_assert(!is_readable(k, 0));
	ck_assert_int_eq(blocking_thread_collect(k, &s), -EAGAIN);
	for (int i = 0; i < 2000; i++) {
		s = (struct sum){ .a = i, .b = 7 };
		ck_assert_int_eq(blocking_thread_submit(k, add, &s, sizeof(s), &e), 0);
		/* The thread works on a copy. */
		s.a = -1000000;
		ck_assert(is_readable(k, SOON_MS));
		ck_assert_int_eq(blocking_thread_collect(k, &s), 0);
		ck_assert_int_eq(s.result, i + 7);
		ck_assert(!pthread_equal(s.thread, pthread_self()));
		ck_assert(!is_readable(k, 0));
		ck_assert_int_eq(blocking_thread_collect(k, &s), -EAGAIN);
		ck_assert_int_eq(s.result, i + 7);
	}
	blocking_thread_close(k);
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

/* Collected without a look at the descriptor, by a caller that is as fast as it can be. */
START_TEST(collect_by_trying)
{
	struct blocking_thread *k = opened();
	struct err e = { 0 };

	for (int i = 0; i < 2000; i++) {
		struct sum s = { .a = i, .b = i };
		int ret;

		ck_assert_int_eq(blocking_thread_submit(k, add, &s, sizeof(s), &e), 0);
		while ((ret = blocking_thread_collect(k, &s)) == -EAGAIN)
			sched_yield();
		ck_assert_int_eq(ret, 0);
		ck_assert_int_eq(s.result, 2 * i);
		ck_assert(!is_readable(k, 0));
	}
	blocking_thread_close(k);
}
END_TEST

START_TEST(one_at_a_time)
{
	struct blocking_thread *k = opened();
	struct hang h = { 0 };
	struct sum s = { 0 };
	struct err e = { 0 };
	int fds[2];

	ck_assert_int_eq(pipe(fds), 0);
	h.fd = fds[0];
	ck_assert_int_eq(blocking_thread_submit(k, hang, &h, sizeof(h), &e), 0);
	ck_assert_int_eq(blocking_thread_submit(k, add, &s, sizeof(s), &e), -EBUSY);
	ck_assert_int_eq(e.kind, ERR_KERNEL);
	ck_assert_str_eq(e.text, "an earlier kernel command is under way");
	ck_assert(!is_readable(k, 50));
	ck_assert_int_eq(blocking_thread_collect(k, &h), -EAGAIN);
	ck_assert_int_eq(write(fds[1], "x", 1), 1);
	ck_assert(is_readable(k, SOON_MS));
	/* The call has returned, but its result is not collected. */
	ck_assert_int_eq(blocking_thread_submit(k, add, &s, sizeof(s), &e), -EBUSY);
	ck_assert_int_eq(blocking_thread_collect(k, &h), 0);
	ck_assert_int_eq(h.result, 'x');
	s = (struct sum){ .a = 1, .b = 2 };
	ck_assert_int_eq(blocking_thread_submit(k, add, &s, sizeof(s), &e), 0);
	ck_assert(is_readable(k, SOON_MS));
	ck_assert_int_eq(blocking_thread_collect(k, &s), 0);
	ck_assert_int_eq(s.result, 3);
	blocking_thread_close(k);
	close(fds[0]);
	close(fds[1]);
}
END_TEST

/* A call that was submitted is made, also when the end is announced before it has begun. */
START_TEST(close_before_it_begins)
{
	struct err e = { 0 };
	struct hang h;
	int fds[2];
	char c;

	ck_assert_int_eq(pipe(fds), 0);
	h.fd = fds[0];
	for (int i = 0; i < 200; i++) {
		long long limit = monotonic_ms() + SOON_MS;
		struct blocking_thread *k = opened();
		int left = 1;

		ck_assert_int_eq(write(fds[1], "x", 1), 1);
		ck_assert_int_eq(blocking_thread_submit(k, hang, &h, sizeof(h), &e), 0);
		blocking_thread_close(k);
		while (!ioctl(fds[0], FIONREAD, &left) && left && monotonic_ms() < limit)
			sched_yield();
		ck_assert_int_eq(left, 0);
	}
	fcntl(fds[0], F_SETFL, O_NONBLOCK);
	ck_assert_int_eq(read(fds[0], &c, 1), -1);
	close(fds[0]);
	close(fds[1]);
	poll(NULL, 0, 100);
}
END_TEST

/* The thread takes all it has with it when the call comes back at last. */
START_TEST(close_while_one_hangs)
{
	unsigned before = leak_fds();
	long long limit = monotonic_ms() + SOON_MS;
	struct blocking_thread *k = opened();
	struct hang h = { 0 };
	struct err e = { 0 };
	int fds[2];

	ck_assert_int_eq(pipe(fds), 0);
	h.fd = fds[0];
	ck_assert_int_eq(blocking_thread_submit(k, hang, &h, sizeof(h), &e), 0);
	/* It is told, as what the call uses may not go. */
	ck_assert(!blocking_thread_close(k));
	ck_assert_uint_eq(leak_fds(), before + 3);
	ck_assert_int_eq(write(fds[1], "z", 1), 1);
	while (leak_fds() != before + 2 && monotonic_ms() < limit)
		poll(NULL, 0, 1);
	close(fds[0]);
	close(fds[1]);
	ck_assert_uint_eq(leak_fds(), before);
	/* the memory goes right after the descriptor: a leak checker looks at exit */
	poll(NULL, 0, 100);
}
END_TEST

START_TEST(close_what_was_not_collected)
{
	unsigned before = leak_fds();
	struct sum s = { 0 };
	struct err e = { 0 };
	struct blocking_thread *k;

	for (int i = 0; i < 200; i++) {
		k = opened();
		ck_assert_int_eq(blocking_thread_submit(k, add, &s, sizeof(s), &e), 0);
		if (i % 2)
			ck_assert(is_readable(k, SOON_MS));
		blocking_thread_close(k);
	}
	for (int i = 0; i < 200 && leak_fds() != before; i++)
		poll(NULL, 0, 10);
	ck_assert_uint_eq(leak_fds(), before);
	poll(NULL, 0, 100);
	ck_assert(blocking_thread_close(NULL));
}
END_TEST

static void fill(void *block)
{
	char *c = block;

	for (int i = 0; i < BLOCKING_THREAD_BLOCK_MAX; i++)
		c[i]++;
}

START_TEST(size_of_a_block)
{
	static char block[BLOCKING_THREAD_BLOCK_MAX + 2];
	struct blocking_thread *k = opened();
	struct err e = { 0 };

	memset(block, 'a', sizeof(block));
	ck_assert_int_eq(blocking_thread_submit(k, fill, block, BLOCKING_THREAD_BLOCK_MAX + 1, &e),
			 -EINVAL);
	ck_assert_ptr_nonnull(strstr(e.text, "8193 bytes"));
	ck_assert_int_eq(blocking_thread_submit(k, fill, block, BLOCKING_THREAD_BLOCK_MAX, &e), 0);
	ck_assert(is_readable(k, SOON_MS));
	ck_assert_int_eq(blocking_thread_collect(k, block), 0);
	for (int i = 0; i < BLOCKING_THREAD_BLOCK_MAX + 2; i++)
		ck_assert_int_eq(block[i], i < BLOCKING_THREAD_BLOCK_MAX ? 'b' : 'a');
	blocking_thread_close(k);
}
END_TEST

struct view {
	size_t stack;
	bool blocked[2];
};

static void look(void *block)
{
	struct view *v = block;
	pthread_attr_t attr;
	sigset_t mask;

	pthread_sigmask(SIG_BLOCK, NULL, &mask);
	v->blocked[0] = sigismember(&mask, SIGTERM);
	v->blocked[1] = sigismember(&mask, SIGUSR1);
	if (!pthread_getattr_np(pthread_self(), &attr)) {
		pthread_attr_getstacksize(&attr, &v->stack);
		pthread_attr_destroy(&attr);
	}
}

/* All of the stack is locked in memory for the life of a supervisor. */
START_TEST(thread_is_small_and_takes_no_signals)
{
	struct blocking_thread *k = opened();
	struct view v = { 0 };
	struct err e = { 0 };
	sigset_t mask;

	ck_assert_int_eq(blocking_thread_submit(k, look, &v, sizeof(v), &e), 0);
	ck_assert(is_readable(k, SOON_MS));
	ck_assert_int_eq(blocking_thread_collect(k, &v), 0);
	ck_assert_uint_ge(v.stack, BLOCKING_THREAD_STACK);
	ck_assert_uint_le(v.stack, 4 * BLOCKING_THREAD_STACK);
	ck_assert(v.blocked[0] && v.blocked[1]);
	pthread_sigmask(SIG_BLOCK, NULL, &mask);
	ck_assert(!sigismember(&mask, SIGTERM));
	blocking_thread_close(k);
}
END_TEST

START_TEST(open_without_descriptors)
{
	struct blocking_thread *k = (struct blocking_thread *)&k;
	struct rlimit old, few;
	struct err e = { 0 };
	int ret;

	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
	few = old;
	few.rlim_cur = 0;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
	ret = blocking_thread_open(&k, &e);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
	ck_assert_int_eq(ret, -EMFILE);
	ck_assert_ptr_nonnull(strstr(e.text, "thread"));
	ck_assert_ptr_null(k);
}
END_TEST

START_TEST(open_without_a_thread)
{
	unsigned before = leak_fds();
	struct err e = { 0 };
	struct no_fork nf;
	struct blocking_thread *k;
	int ret;

	if (!leak_forbid_fork(&nf))
		return;
	ret = blocking_thread_open(&k, &e);
	leak_allow_fork(&nf);
	ck_assert_int_eq(ret, -EAGAIN);
	ck_assert_ptr_null(k);
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("blocking_thread");
	TCase *t = tcase_create("blocking_thread");

	tcase_set_timeout(t, 60);
	tcase_add_test(t, one_call_after_the_other);
	tcase_add_test(t, collect_by_trying);
	tcase_add_test(t, one_at_a_time);
	tcase_add_test(t, close_before_it_begins);
	tcase_add_test(t, close_while_one_hangs);
	tcase_add_test(t, close_what_was_not_collected);
	tcase_add_test(t, size_of_a_block);
	tcase_add_test(t, thread_is_small_and_takes_no_signals);
	tcase_add_test(t, open_without_descriptors);
	tcase_add_test(t, open_without_a_thread);
	suite_add_tcase(s, t);
	return s;
}
