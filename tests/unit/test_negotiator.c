/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "negotiator.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "leak.h"
#include "loopback.h"
#include "say.h"
#include "task.h"
#include "tree.h"
#include "unit.h"
#include "wire.h"

enum {
	LIMIT_MS = 400,  /* of an attempt, where it is to run out */
	LONG_MS = 60000, /* where it is not */
	SOON_MS = 20000, /* what comes at once comes before that, on the busiest machine */
};

#define MULTI (NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_CAN_MULTI_CONN | NBD_FLAG_READ_ONLY)

/* --- a server in a child: says the same to all -------------------------------------------------- */

static pid_t server_start(int listener, const struct script *s)
{
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (pid)
		return pid;
	alarm(55);
	for (;;) {
		int fd = accept(listener, NULL, NULL);

		if (fd < 0 || send(fd, s->data, s->w.len, MSG_NOSIGNAL) < 0)
			_exit(1);
		/* open until the end */
	}
}

static void server_end(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void say_all(struct script *s, uint16_t flags)
{
	say_greeting(s, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	say_export(s, NBD_OPT_GO, 0x10, flags);
}

/* --- requests ----------------------------------------------------------------------------------- */

static void request(struct link_request *rq, const struct loopback *l)
{
	memset(rq, 0, sizeof(*rq));
	rq->timeout_ms = LONG_MS;
	strcpy(rq->where.host, "127.0.0.1");
	strcpy(rq->where.port, l->port);
	strcpy(rq->where.export, "disk");
}

/* valgrind preloads what is called vgpreload. */
static bool under_valgrind(void)
{
	const char *preload = getenv("LD_PRELOAD");

	return preload && strstr(preload, "vgpreload");
}

static void start(struct negotiator *n, const struct link_request *servers, unsigned count)
{
	const struct negotiator_params p = { .lenient = under_valgrind() };
	struct err e = { 0 };

	ck_assert_msg(!negotiator_start(n, servers, count, &p, &e), "%s", e.text);
	ck_assert_int_gt(n->pid, 0);
	ck_assert(!n->busy);
}

static void ask(struct negotiator *n, unsigned server, enum neg_goal goal, unsigned wanted,
		unsigned timeout_ms)
{
	const struct plan_multi m = { .wanted = wanted, .read_only = true };
	struct err e = { 0 };

	ck_assert_msg(!negotiator_ask(n, server, goal, &m, timeout_ms, NULL, 0, &e), "%s", e.text);
	ck_assert(n->busy);
}

static int await(struct negotiator *n, struct link_result *rs, struct err *e)
{
	const long long end = task_now_ms() + SOON_MS;
	struct pollfd p = { .fd = n->fd, .events = POLLIN };
	int ret = -EAGAIN;

	memset(e, 0, sizeof(*e));
	memset(rs, 0x5a, sizeof(*rs));
	while (ret == -EAGAIN && task_now_ms() < end) {
		poll(&p, 1, 1000);
		ret = negotiator_answer(n, rs, e);
	}
	return ret;
}

static void expect_disk(const struct export *x)
{
	ck_assert_uint_eq(x->size, 1 << 20);
	ck_assert(x->has_block_size);
	ck_assert_uint_eq(x->payload_max, 33554432);
	ck_assert_str_eq(x->description, "a disk");
}

/* --- answers ------------------------------------------------------------------------------------ */

START_TEST(connections)
{
	unsigned before = leak_fds(), wanted = (unsigned)_i;
	struct link_request rq;
	struct link_result rs;
	struct negotiator n;
	struct loopback l;
	struct script s;
	struct err e;
	pid_t server;

	loopback_open(&l, 8);
	say_all(&s, MULTI);
	server = server_start(l.fd, &s);
	request(&rq, &l);
	start(&n, &rq, 1);
	for (int again = 0; again < 2; again++) {
		ask(&n, 0, NEG_GOAL_GO, wanted, LONG_MS);
		ck_assert_msg(!await(&n, &rs, &e), "%s", e.text);
		ck_assert(!n.busy);
		ck_assert_uint_eq(rs.count, wanted);
		expect_disk(&rs.export);
		ck_assert_str_eq(rs.peer, l.text);
		ck_assert_int_eq(rs.command_log, -1);
		for (unsigned i = 0; i < rs.count; i++)
			ck_assert_int_eq(send(rs.fds[i], "x", 1, MSG_NOSIGNAL), 1);
		link_close(&rs, false);
	}
	negotiator_stop(&n);
	server_end(server);
	close(l.fd);
	ck_assert(leak_no_child());
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *suite = suite_create("negotiator");
	TCase *tc = tcase_create("answers");

	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, connections, 1, 2);
	tcase_add_loop_test(tc, connections, 4, 5);
	suite_add_tcase(suite, tc);
	return suite;
}
