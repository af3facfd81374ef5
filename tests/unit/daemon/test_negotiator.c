/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "daemon/negotiator.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../leak.h"
#include "../loopback.h"
#include "../say.h"
#include "net/dial.h"
#include "net/blocking_child.h"
#include "../tlspeer.h"
#include "../tree.h"
#include "../unit.h"
#include "proto/wire.h"

enum {
	LIMIT_MS = 400,  /* timeout of an attempt that is to run out */
	LONG_MS = 60000, /* timeout of other attempts */
	SOON_MS = 20000, /* limit for what comes at once, on the busiest machine */
};

#define MULTI \
	(NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_CAN_MULTI_CONN | NBD_FLAG_READ_ONLY)

/* --- a server in a child: says the same to all ------------------------------------------------ */

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

/* --- requests --------------------------------------------------------------------------------- */

static void add_server(struct settings *rq, const struct loopback *l)
{
	struct uri *u = &rq->servers[rq->server_count++];

	strcpy(u->host, "127.0.0.1");
	strcpy(u->port, l->port);
	strcpy(u->export, "disk");
}

static void request(struct settings *rq, const struct loopback *l)
{
	memset(rq, 0, sizeof(*rq));
	rq->connect_timeout_ms = LONG_MS;
	add_server(rq, l);
}

/* Waits for something to be read. */
static enum negotiator_event await_event(struct negotiator *n, struct connections *rs, int *ret,
					 struct err *e)
{
	const long long end = monotonic_ms() + SOON_MS;
	enum negotiator_event event = NEGOTIATOR_NOTHING;

	memset(e, 0, sizeof(*e));
	memset(rs, 0x5a, sizeof(*rs));
	while (event == NEGOTIATOR_NOTHING && monotonic_ms() < end) {
		struct pollfd p = { .fd = n->fd, .events = POLLIN };

		poll(&p, 1, 1000);
		event = negotiator_read(n, rs, ret, e);
	}
	return event;
}

static enum negotiator_event look(struct negotiator *n)
{
	struct connections rs;
	struct err e;
	int ret;

	return negotiator_read(n, &rs, &ret, &e);
}

/* Ends and reaps it. */
static void stop(struct negotiator *n)
{
	pid_t pid = negotiator_hang_up(n);

	ck_assert_int_eq(n->state, NEGOTIATOR_NONE);
	if (pid)
		ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}

static int try(struct negotiator *n, struct settings *rq, bool vital, struct err *e)
{
	const struct negotiator_params p = { .lenient = unit_under_valgrind() };
	struct connections rs;
	int ret;

	rq->supervision.root = vital;
	memset(e, 0, sizeof(*e));
	ret = negotiator_spawn(n, rq, &p, e);
	if (ret)
		return ret;
	ck_assert_int_eq(n->state, NEGOTIATOR_STARTING);
	ck_assert_int_eq(await_event(n, &rs, &ret, e), NEGOTIATOR_STARTED);
	return ret;
}

static void start(struct negotiator *n, struct settings *rq, bool vital)
{
	struct err e;

	ck_assert_msg(!try(n, rq, vital, &e), "%s", e.text);
	ck_assert_int_gt(n->pid, 0);
	ck_assert_int_eq(n->state, NEGOTIATOR_IDLE);
	ck_assert(n->confined != unit_under_valgrind());
}

static void expect_no_start(struct settings *rq, bool vital, int code, enum err_kind kind,
			    const char *part)
{
	unsigned before = leak_fds();
	struct negotiator n;
	struct err e;
	int ret = try(&n, rq, vital, &e);

	ck_assert_msg(ret == -code, "%d: %s", ret, e.text);
	ck_assert_int_eq(e.code, code);
	ck_assert_msg(e.kind == kind, "kind %d: %s", (int)e.kind, e.text);
	ck_assert_msg(strstr(e.text, part) != NULL, "no \"%s\" in \"%s\"", part, e.text);
	stop(&n);
	ck_assert_uint_eq(leak_fds(), before);
	ck_assert(leak_no_child());
}

static void ask(struct negotiator *n, unsigned server, enum neg_goal goal, unsigned wanted,
		unsigned timeout_ms)
{
	const struct plan_multi m = { .wanted = wanted, .read_only = true };
	struct err e = { 0 };

	ck_assert_msg(!negotiator_ask(n, server, goal, &m, timeout_ms, NULL, 0, &e), "%s", e.text);
	ck_assert_int_eq(n->state, NEGOTIATOR_BUSY);
}

/* Waits for the answer: its error, or 0. */
static int await(struct negotiator *n, struct connections *rs, struct err *e)
{
	int ret;

	ck_assert_int_eq(await_event(n, rs, &ret, e), NEGOTIATOR_ANSWERED);
	return ret;
}

static void expect_answer(struct negotiator *n, struct connections *rs)
{
	struct err e;

	ck_assert_msg(!await(n, rs, &e), "%s", e.text);
	ck_assert_int_eq(n->state, NEGOTIATOR_IDLE);
}

static void expect_broken(struct negotiator *n, const char *part)
{
	struct connections rs;
	struct err e;
	int ret;

	ck_assert_int_eq(await_event(n, &rs, &ret, &e), NEGOTIATOR_BROKEN);
	ck_assert_int_eq(e.code, EPIPE);
	ck_assert_int_eq(e.kind, ERR_FAILED);
	ck_assert_msg(strstr(e.text, part) != NULL, "no \"%s\" in \"%s\"", part, e.text);
}

static void new_dir(char *dir, size_t cap)
{
	char link[64];
	int fd = tree_new();
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, dir, cap - 1);
	ck_assert_int_gt(n, 0);
	dir[n] = '\0';
	close(fd);
}

static void expect_disk(const struct export *x)
{
	ck_assert_uint_eq(x->size, 1 << 20);
	ck_assert(x->has_block_size);
	ck_assert_uint_eq(x->payload_max, 33554432);
	ck_assert_str_eq(x->description, "a disk");
}

/* --- answers ---------------------------------------------------------------------------------- */

START_TEST(connections)
{
	unsigned before = leak_fds(), wanted = _i % 2 ? 4 : 1;
	struct settings rq;
	struct connections rs;
	struct negotiator n;
	struct loopback l;
	struct script s;
	pid_t server;

	loopback_open(&l, 8);
	say_all(&s, MULTI);
	server = server_start(l.fd, &s);
	request(&rq, &l);
	start(&n, &rq, _i > 1);
	for (int again = 0; again < 2; again++) {
		ask(&n, 0, NEG_GOAL_GO, wanted, LONG_MS);
		expect_answer(&n, &rs);
		ck_assert_uint_eq(rs.count, wanted);
		expect_disk(&rs.export);
		ck_assert_str_eq(rs.peer, l.text);
		ck_assert(!rs.encrypted);
		ck_assert_int_eq(rs.command, 0);
		ck_assert_int_eq(rs.command_log, -1);
		for (unsigned i = 0; i < rs.count; i++) {
			ck_assert_int_eq(fcntl(rs.fds[i], F_GETFL) & O_NONBLOCK, 0);
			ck_assert_int_ne(fcntl(rs.fds[i], F_GETFD) & FD_CLOEXEC, 0);
			ck_assert_int_eq(send(rs.fds[i], "x", 1, MSG_NOSIGNAL), 1);
		}
		connections_close(&rs, false);
	}
	stop(&n);
	server_end(server);
	close(l.fd);
	ck_assert(leak_no_child());
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

START_TEST(information)
{
	static struct script s;
	struct settings rq;
	struct connections rs;
	struct negotiator n;
	struct loopback l;
	struct err e;
	pid_t server;

	say_greeting(&s, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	say_info(&s, NBD_OPT_INFO);
	say_reply(&s, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ERR_UNSUP, NULL, 0);
	say_item(&s, "disk", "");
	say_reply(&s, NBD_OPT_LIST, NBD_REP_ACK, NULL, 0);
	say_reply(&s, NBD_OPT_ABORT, NBD_REP_ACK, NULL, 0);
	loopback_open(&l, 8);
	server = server_start(l.fd, &s);
	request(&rq, &l);
	start(&n, &rq, false);
	ck_assert_int_eq(negotiator_ask(&n, 0, NEG_GOAL_INFO, NULL, LONG_MS, NULL, 0, &e), 0);
	expect_answer(&n, &rs);
	ck_assert_uint_eq(rs.count, 0);
	expect_disk(&rs.export);
	ck_assert(!rs.export.structured && !rs.export.has_contexts);
	ck_assert_int_eq(rs.export.listed, EXPORT_LISTED);
	stop(&n);
	server_end(server);
	close(l.fd);
}
END_TEST

START_TEST(connected_unix_sockets)
{
	unsigned before = leak_fds();
	char dir[512], path[600];
	int fds[5], listener;
	const struct plan_multi m = { .wanted = 4, .read_only = true };
	struct settings rq = { .server_count = 1, .servers[0].transport = URI_UNIX };
	struct connections rs;
	struct negotiator n;
	struct script s;
	struct err e;
	pid_t server;

	new_dir(dir, sizeof(dir));
	snprintf(path, sizeof(path), "%s/s", dir);
	ck_assert_uint_lt(strlen(path), sizeof(rq.servers[0].path));
	strcpy(rq.servers[0].path, path);
	listener = loopback_unix(path, 8);
	say_all(&s, MULTI);
	server = server_start(listener, &s);
	start(&n, &rq, _i);
	ck_assert_int_eq(negotiator_ask(&n, 0, NEG_GOAL_GO, &m, LONG_MS, NULL, 0, &e), -EINVAL);
	for (unsigned given = 3; given < 6; given++) {
		for (unsigned i = 0; i < given; i++) {
			fds[i] = dial_unix(path, &e);
			ck_assert_int_ge(fds[i], 0);
		}
		ck_assert_int_eq(negotiator_ask(&n, 0, NEG_GOAL_GO, &m, LONG_MS, fds, given, &e),
				 0);
		for (unsigned i = 0; i < given; i++)
			close(fds[i]);
		expect_answer(&n, &rs);
		ck_assert_uint_eq(rs.count, given < 4 ? given : 4);
		expect_disk(&rs.export);
		ck_assert_str_eq(rs.peer, "local");
		connections_close(&rs, false);
	}
	stop(&n);
	server_end(server);
	close(listener);
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

/* The caller starts it, and has one socket of it. */
START_TEST(command)
{
	static struct script s;
	const struct plan_multi m = { .wanted = 4, .automatic = true };
	struct settings rq = { .server_count = 1, .command = { 1, "serve" } };
	struct connections rs;
	struct negotiator n;
	struct err e;
	int pair[2];

	strcpy(rq.servers[0].export, "disk");
	say_all(&s, MULTI);
	start(&n, &rq, false);
	for (int again = 0; again < 2; again++) {
		ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
		ck_assert_int_eq(send(pair[1], s.data, s.w.len, 0), (ssize_t)s.w.len);
		ck_assert_int_eq(negotiator_ask(&n, 0, NEG_GOAL_GO, &m, LONG_MS, NULL, 0, &e),
				 -EINVAL);
		ck_assert_int_eq(negotiator_ask(&n, 0, NEG_GOAL_GO, &m, LONG_MS, pair, 1, &e), 0);
		close(pair[0]);
		expect_answer(&n, &rs);
		ck_assert_uint_eq(rs.count, 1);
		ck_assert_int_eq(rs.command, 0);
		ck_assert_int_eq(rs.command_log, -1);
		expect_disk(&rs.export);
		connections_close(&rs, false);
		close(pair[1]);
	}
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	ck_assert_int_eq(negotiator_ask(&n, 0, NEG_GOAL_GO, &m, LONG_MS, pair, 1, &e), 0);
	close(pair[0]);
	close(pair[1]);
	ck_assert_int_eq(await(&n, &rs, &e), -ECONNRESET);
	ck_assert_int_eq(strncmp(e.text, "serve: ", 7), 0);
	stop(&n);
}
END_TEST

START_TEST(errors_come_with_their_text)
{
	static struct script s;
	struct settings rq;
	struct connections rs;
	struct negotiator n;
	struct loopback l, closed;
	struct err e;
	pid_t server;
	int ret;

	say_greeting(&s, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	say_reply(&s, NBD_OPT_GO, NBD_REP_ERR_UNKNOWN, "no \\ disk\x1b[2J", 13);
	loopback_open(&l, 8);
	loopback_open(&closed, LOOPBACK_REFUSE);
	server = server_start(l.fd, &s);
	request(&rq, &l);
	add_server(&rq, &closed);
	start(&n, &rq, _i);

	ask(&n, 0, NEG_GOAL_GO, 1, LONG_MS);
	ret = await(&n, &rs, &e);
	ck_assert_msg(ret == -ENOENT && e.kind == ERR_REFUSED, "%d: %s", ret, e.text);
	ck_assert_ptr_nonnull(strstr(e.text, "it says: \"no \\\\ disk\\x1b[2J\""));
	ask(&n, 1, NEG_GOAL_GO, 1, LONG_MS);
	ret = await(&n, &rs, &e);
	ck_assert_msg(ret == -ECONNREFUSED && e.kind == ERR_UNREACHABLE, "%d: %s", ret, e.text);
	ck_assert_ptr_nonnull(strstr(e.text, closed.text));
	stop(&n);
	server_end(server);
	close(l.fd);
	close(closed.fd);
}
END_TEST

START_TEST(nobody_is_asked_twice_at_once)
{
	struct settings rq;
	struct connections rs;
	struct negotiator n;
	struct loopback l;
	struct err e;
	int ret;

	/* accepts, and is silent */
	loopback_open(&l, 8);
	request(&rq, &l);
	start(&n, &rq, false);
	ck_assert_int_eq(look(&n), NEGOTIATOR_NOTHING);
	ask(&n, 0, NEG_GOAL_GO, 1, LIMIT_MS);
	ck_assert_int_eq(look(&n), NEGOTIATOR_NOTHING);
	ck_assert_int_eq(negotiator_ask(&n, 0, NEG_GOAL_INFO, NULL, LONG_MS, NULL, 0, &e), -EINVAL);
	ck_assert_int_eq(n.state, NEGOTIATOR_BUSY);
	ret = await(&n, &rs, &e);
	ck_assert_msg(ret == -ETIMEDOUT && e.kind == ERR_UNREACHABLE, "%d: %s", ret, e.text);
	ck_assert_int_eq(negotiator_ask(&n, 1, NEG_GOAL_GO, NULL, LONG_MS, NULL, 0, &e), -EINVAL);
	ck_assert_int_eq(negotiator_ask(&n, 0, NEG_GOAL_LIST, NULL, LONG_MS, NULL, 0, &e), -EINVAL);
	ck_assert_int_eq(n.state, NEGOTIATOR_IDLE);
	stop(&n);
	close(l.fd);
}
END_TEST

/* --- given up --------------------------------------------------------------------------------- */

START_TEST(given_up_at_work)
{
	unsigned before = leak_fds();
	struct loopback silent, l;
	struct settings rq;
	struct connections rs;
	struct negotiator n;
	struct script s;
	long long began;
	pid_t server;

	loopback_open(&silent, 8);
	loopback_open(&l, 8);
	say_all(&s, MULTI);
	server = server_start(l.fd, &s);
	request(&rq, &silent);
	add_server(&rq, &l);
	start(&n, &rq, false);
	negotiator_cancel(&n); /* no question to cancel */
	began = monotonic_ms();
	for (int again = 0; again < 3; again++) {
		ask(&n, 0, NEG_GOAL_GO, 1, LONG_MS);
		/* also when it has barely begun */
		poll(NULL, 0, again * 50);
		negotiator_cancel(&n);
		ck_assert_int_eq(n.state, NEGOTIATOR_IDLE);
		ask(&n, 1, NEG_GOAL_GO, 4, LONG_MS);
		expect_answer(&n, &rs);
		ck_assert_uint_eq(rs.count, 4);
		ck_assert_str_eq(rs.peer, l.text);
		connections_close(&rs, false);
	}
	ck_assert_int_lt(monotonic_ms() - began, SOON_MS);
	stop(&n);
	server_end(server);
	close(l.fd);
	close(silent.fd);
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

START_TEST(given_up_when_it_was_done)
{
	unsigned before = leak_fds();
	struct settings rq;
	struct connections rs;
	struct negotiator n;
	struct loopback l;
	struct script s;
	struct pollfd p;
	pid_t server;

	loopback_open(&l, 8);
	say_all(&s, MULTI);
	server = server_start(l.fd, &s);
	request(&rq, &l);
	start(&n, &rq, false);
	for (int again = 0; again < 3; again++) {
		ask(&n, 0, NEG_GOAL_GO, 1, LONG_MS);
		p = (struct pollfd){ .fd = n.fd, .events = POLLIN };
		ck_assert_int_eq(poll(&p, 1, SOON_MS), 1);
		negotiator_cancel(&n);
		if (again != 1)
			continue;
		/* The answer that is there may be the one before the last. */
		while (n.stale) {
			ck_assert_int_eq(poll(&p, 1, SOON_MS), 1);
			ck_assert_int_eq(look(&n), NEGOTIATOR_NOTHING);
		}
		ck_assert_int_eq(poll(&p, 1, 0), 0);
	}
	ask(&n, 0, NEG_GOAL_GO, 4, LONG_MS);
	expect_answer(&n, &rs);
	ck_assert_uint_eq(rs.count, 4);
	connections_close(&rs, false);
	stop(&n);
	server_end(server);
	close(l.fd);
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

/* --- its end ---------------------------------------------------------------------------------- */

START_TEST(killed)
{
	unsigned before = leak_fds();
	struct settings rq;
	struct negotiator n;
	struct loopback l;
	struct err e;

	loopback_open(&l, 8);
	request(&rq, &l);
	start(&n, &rq, false);
	ask(&n, 0, NEG_GOAL_GO, 1, LONG_MS);
	ck_assert_int_eq(kill(n.pid, SIGKILL), 0);
	expect_broken(&n, "is gone");
	stop(&n);
	ck_assert(leak_no_child());
	ck_assert_int_eq(negotiator_ask(&n, 0, NEG_GOAL_INFO, NULL, LONG_MS, NULL, 0, &e), -EINVAL);
	ck_assert_int_eq(look(&n), NEGOTIATOR_NOTHING);

	/* while nobody asks */
	start(&n, &rq, false);
	ck_assert_int_eq(kill(n.pid, SIGKILL), 0);
	expect_broken(&n, "is gone");
	ck_assert_int_eq(negotiator_ask(&n, 0, NEG_GOAL_INFO, NULL, LONG_MS, NULL, 0, &e), -EPIPE);
	ck_assert_ptr_nonnull(strstr(e.text, "is gone"));
	stop(&n);
	stop(&n);
	close(l.fd);
	ck_assert(leak_no_child());
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

static pid_t wait_for_child(pid_t pid, pid_t other)
{
	pid_t child = 0;

	for (int i = 0; i < 500 && (!child || child == other); i++) {
		usleep(10000);
		child = leak_only_child(pid);
	}
	ck_assert(child && child != other);
	return child;
}

/* Where nothing can be read again, somebody stands behind the one that talks. */
START_TEST(replaced)
{
	unsigned before = leak_fds();
	struct settings rq;
	struct connections rs;
	struct negotiator n;
	struct loopback l, silent;
	struct script s;
	struct err e;
	pid_t server, child;

	loopback_open(&l, 8);
	loopback_open(&silent, 8);
	say_all(&s, MULTI);
	server = server_start(l.fd, &s);
	request(&rq, &l);
	start(&n, &rq, true);
	child = wait_for_child(n.pid, 0);
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(kill(child, SIGKILL), 0);
		child = wait_for_child(n.pid, child);
		/* the news, of no importance now */
		ck_assert_int_eq(look(&n), NEGOTIATOR_NOTHING);
		ask(&n, 0, NEG_GOAL_GO, 1, LONG_MS);
		expect_answer(&n, &rs);
		ck_assert_uint_eq(rs.count, 1);
		connections_close(&rs, false);
	}
	stop(&n);
	ck_assert(kill(child, 0) && errno == ESRCH);

	/* while somebody waits for its answer */
	request(&rq, &silent);
	start(&n, &rq, true);
	child = wait_for_child(n.pid, 0);
	ask(&n, 0, NEG_GOAL_GO, 1, LONG_MS);
	usleep(100000);
	ck_assert_int_eq(kill(child, SIGKILL), 0);
	ck_assert_int_eq(await(&n, &rs, &e), -ECHILD);
	ck_assert_int_eq(e.kind, ERR_FAILED);
	ck_assert_int_eq(n.state, NEGOTIATOR_IDLE);
	ask(&n, 0, NEG_GOAL_GO, 1, 100);
	stop(&n);
	server_end(server);
	close(l.fd);
	close(silent.fd);
	ck_assert(leak_no_child());
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

/* One that hangs is replaced, also when the process behind it is stopped as well. */
START_TEST(replaced_when_it_hangs)
{
	unsigned before = leak_fds();
	struct loopback l, silent;
	struct settings rq;
	struct connections rs;
	struct negotiator n;
	struct script s;
	pid_t server, child;

	loopback_open(&l, 8);
	loopback_open(&silent, 8);
	say_all(&s, MULTI);
	server = server_start(l.fd, &s);
	request(&rq, &silent);
	add_server(&rq, &l);
	start(&n, &rq, true);
	child = wait_for_child(n.pid, 0);
	for (int i = 0; i < 3; i++) {
		ask(&n, 0, NEG_GOAL_GO, 1, LONG_MS);
		ck_assert_int_eq(kill(child, SIGSTOP), 0);
		if (i == 1)
			ck_assert_int_eq(kill(n.pid, SIGSTOP), 0);
		ck_assert(negotiator_replace(&n));
		ck_assert_int_eq(n.state, NEGOTIATOR_IDLE);
		child = wait_for_child(n.pid, child);
		ck_assert_int_eq(look(&n), NEGOTIATOR_NOTHING);
		ask(&n, 1, NEG_GOAL_GO, 1, LONG_MS);
		expect_answer(&n, &rs);
		connections_close(&rs, false);
	}
	/* also when nobody has asked */
	ck_assert(negotiator_replace(&n));
	wait_for_child(n.pid, child);
	stop(&n);
	ck_assert(!negotiator_replace(&n));
	server_end(server);
	close(l.fd);
	close(silent.fd);
	ck_assert(leak_no_child());
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

/* The keys are not lost where no process can be forked; root can, and nobody cannot. */
START_TEST(replaced_when_it_can_be)
{
	struct rlimit now, none;
	struct settings rq;
	struct connections rs;
	struct negotiator n;
	struct loopback l;
	struct script s;
	pid_t server;

	if (geteuid())
		return;
	loopback_open(&l, 8);
	say_all(&s, MULTI);
	server = server_start(l.fd, &s);
	request(&rq, &l);
	ck_assert_int_eq(getrlimit(RLIMIT_NPROC, &now), 0);
	none = (struct rlimit){ 0, now.rlim_max };
	ck_assert_int_eq(setrlimit(RLIMIT_NPROC, &none), 0);
	start(&n, &rq, true);
	ck_assert_int_eq(setrlimit(RLIMIT_NPROC, &now), 0);
	ask(&n, 0, NEG_GOAL_GO, 1, LONG_MS);
	usleep(300000);
	ck_assert_int_eq(look(&n), NEGOTIATOR_NOTHING);
	ck_assert_int_eq(leak_only_child(n.pid), 0);
	/* Where the test may not change the limit of another user's process, this is all. */
	if (!prlimit(n.pid, RLIMIT_NPROC, &now, NULL)) {
		expect_answer(&n, &rs);
		ck_assert_uint_eq(rs.count, 1);
		connections_close(&rs, false);
	}
	stop(&n);
	server_end(server);
	close(l.fd);
}
END_TEST

START_TEST(hung)
{
	struct settings rq;
	struct negotiator n;
	struct loopback l;
	struct err e = { 0 };
	pid_t pid;
	int ret = 0;

	loopback_open(&l, 8);
	request(&rq, &l);
	start(&n, &rq, false);
	ck_assert_int_eq(kill(n.pid, SIGSTOP), 0);
	ask(&n, 0, NEG_GOAL_GO, 1, LIMIT_MS);
	ck_assert(!negotiator_replace(&n));
	ck_assert_int_eq(n.state, NEGOTIATOR_BUSY);
	/* One that is always given up does not fill the memory. */
	for (int i = 0; i < 100000 && !ret; i++) {
		negotiator_cancel(&n);
		ret = negotiator_ask(&n, 0, NEG_GOAL_GO, NULL, LIMIT_MS, NULL, 0, &e);
	}
	ck_assert_msg(ret == -EPIPE && strstr(e.text, "does not listen"), "%d: %s", ret, e.text);
	pid = negotiator_hang_up(&n);
	ck_assert_int_eq(kill(-pid, SIGKILL), 0);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	close(l.fd);
}
END_TEST

/* At the hang-up, also in the middle of an attempt. */
START_TEST(ends_by_itself)
{
	struct settings rq;
	struct negotiator n;
	struct loopback l;
	int status;

	loopback_open(&l, 8);
	request(&rq, &l);
	start(&n, &rq, false);
	if (_i)
		ask(&n, 0, NEG_GOAL_GO, 1, LONG_MS);
	close(n.fd);
	ck_assert_int_eq(waitpid(n.pid, &status, 0), n.pid);
	ck_assert(WIFEXITED(status));
	ck_assert_int_eq(WEXITSTATUS(status), 0);
	close(l.fd);
}
END_TEST

/* --- what it is ------------------------------------------------------------------------------- */

static void read_status(pid_t pid, char *buf, size_t cap)
{
	char path[64];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	n = read(fd, buf, cap - 1);
	ck_assert_int_gt(n, 0);
	buf[n] = '\0';
	close(fd);
}

static void expect_status(const char *status, const char *line)
{
	ck_assert_msg(strstr(status, line) != NULL, "no \"%s\" in %s", line, status);
}

START_TEST(has_nothing_but_its_socket)
{
	struct settings rq;
	struct negotiator n;
	struct loopback l;
	char status[8192], path[64], c;
	int held[2];
	DIR *dir;
	unsigned count = 0;

	ck_assert_int_eq(pipe(held), 0);
	loopback_open(&l, 8);
	request(&rq, &l);
	start(&n, &rq, _i);
	close(held[1]);
	ck_assert_int_eq(read(held[0], &c, 1), 0);
	close(held[0]);
	read_status(n.pid, status, sizeof(status));
	expect_status(status, &"\nName:\tnbd-negotiator\n"[1]);
	expect_status(status, "\nNoNewPrivs:\t1\n");
	expect_status(status, "\nCapPrm:\t0000000000000000\n");
	if (n.confined)
		expect_status(status, "\nSeccomp:\t2\n");
	if (!geteuid()) {
		expect_status(status, "\nUid:\t65534\t65534\t65534\t65534\n");
		expect_status(status, "\nGid:\t65534\t65534\t65534\t65534\n");
		expect_status(status, "\nGroups:\t \n");
		ck_assert_int_eq(getsid(n.pid), n.pid);
		snprintf(path, sizeof(path), "/proc/%d/fd", (int)n.pid);
		dir = opendir(path);
		ck_assert_ptr_nonnull(dir);
		while (readdir(dir))
			count++;
		closedir(dir);
		/* The two more are . and ..; valgrind has more open. */
		if (!unit_under_valgrind())
			ck_assert_uint_eq(count, 4 + 2);
	}
	stop(&n);
	close(l.fd);
}
END_TEST

START_TEST(starts_that_fail)
{
	struct settings rq;
	struct loopback l = { .port = "1" };

	request(&rq, &l);
	add_server(&rq, &l);
	rq.server_count = 0;
	expect_no_start(&rq, false, EINVAL, ERR_USAGE, "1 to 8");
	rq.server_count = SETTINGS_SERVERS_MAX + 1;
	expect_no_start(&rq, false, EINVAL, ERR_USAGE, "1 to 8");
	rq.server_count = 2;
	rq.servers[0].tls = rq.servers[1].tls = true;
	strcpy(rq.tls.psk_file, "/no/such/keys.psk");
	expect_no_start(&rq, false, ENOENT, ERR_TLS, "/no/such/keys.psk");
	rq.tls.psk_file[0] = '\0';
	strcpy(rq.tls.cert, "/no/such/cert.pem");
	strcpy(rq.tls.key, "pkcs11:token=x");
	expect_no_start(&rq, true, EOPNOTSUPP, ERR_USAGE, "key file");
	expect_no_start(&rq, false, EINVAL, ERR_TLS, "pkcs11:token=x");
}
END_TEST

START_TEST(names)
{
	struct settings rq;
	struct connections rs;
	struct negotiator n;
	struct loopback l;
	struct script s;
	struct err e;
	pid_t server, group;
	int ret;

	loopback_open(&l, 8);
	say_all(&s, MULTI);
	server = server_start(l.fd, &s);
	request(&rq, &l);
	add_server(&rq, &l);
	/* a label longer than 63 bytes: no name server is asked */
	memset(rq.servers[0].host, 'h', 64);
	strcpy(rq.servers[0].host + 64, ".invalid.");
	strcpy(rq.servers[1].host, "localhost");
	start(&n, &rq, _i);
	for (int again = 0; again < 2; again++) {
		ask(&n, 0, NEG_GOAL_GO, 1, LONG_MS);
		ret = await(&n, &rs, &e);
		ck_assert_msg(ret == -EHOSTUNREACH && e.kind == ERR_UNREACHABLE, "%d: %s", ret,
			      e.text);
		ck_assert_ptr_nonnull(strstr(e.text, "look up host hhhh"));
		ask(&n, 1, NEG_GOAL_GO, 4, LONG_MS);
		expect_answer(&n, &rs);
		ck_assert_uint_eq(rs.count, 4);
		connections_close(&rs, false);
	}
	/* the addresses known are no good any more, until they are again */
	server_end(server);
	close(l.fd);
	ask(&n, 1, NEG_GOAL_GO, 1, LONG_MS);
	ret = await(&n, &rs, &e);
	ck_assert_msg(ret == -ECONNREFUSED && e.kind == ERR_UNREACHABLE, "%d: %s", ret, e.text);
	/* they are looked up once more, which ends with the rest */
	group = n.pid;
	stop(&n);
	ck_assert_int_eq(kill(-group, 0), -1);
	ck_assert_int_eq(errno, ESRCH);
	rq.server_count = _i ? 1 : 0;
	expect_no_start(&rq, _i, _i ? EHOSTUNREACH : EINVAL, _i ? ERR_UNREACHABLE : ERR_USAGE,
			_i ? "look up host hhhh" : "servers");
}
END_TEST

/* --- TLS -------------------------------------------------------------------------------------- */

enum {
	OPTION_STARTTLS_LEN = 4 + 16,
	OPTION_GO_LEN = 16 + 18, /* length, "disk", two kinds of information */
};

static ssize_t tls_all(struct peer *p, void *buf, size_t len, bool out)
{
	size_t done = 0;

	while (done < len) {
		char *at = (char *)buf + done;
		ssize_t n = out ? gnutls_record_send(p->session, at, len - done) :
				  gnutls_record_recv(p->session, at, len - done);
		struct pollfd ready = { .fd = p->fd, .events = out ? POLLOUT : POLLIN };

		if (n == GNUTLS_E_AGAIN)
			poll(&ready, 1, -1);
		else if (n <= 0)
			return -1;
		else
			done += (size_t)n;
	}
	return 0;
}

/* One client at a time: greets it, does TLS, says all, and sends back what it gets after that. */
static pid_t tls_server_start(int listener, const struct peer_spec *spec)
{
	static struct script hello, all;
	char buf[64];
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (pid)
		return pid;
	alarm(55);
	say_greeting(&hello, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	say_reply(&hello, NBD_OPT_STARTTLS, NBD_REP_ACK, NULL, 0);
	bytes_write_init(&all.w, all.data, sizeof(all.data));
	say_export(&all, NBD_OPT_GO, 0x10, MULTI);
	for (;;) {
		int fd = accept(listener, NULL, NULL);
		struct peer p;

		if (fd < 0 || send(fd, hello.data, hello.w.len, MSG_NOSIGNAL) < 0 ||
		    recv(fd, buf, OPTION_STARTTLS_LEN, MSG_WAITALL) != OPTION_STARTTLS_LEN)
			_exit(1);
		fcntl(fd, F_SETFL, O_NONBLOCK);
		peer_open(&p, fd, spec);
		while (p.result == GNUTLS_E_AGAIN) {
			struct pollfd ready = { .fd = fd, .events = POLLIN };

			peer_step(&p);
			if (p.result == GNUTLS_E_AGAIN)
				poll(&ready, 1, -1);
		}
		if (!p.result && !tls_all(&p, buf, OPTION_GO_LEN, false) &&
		    !tls_all(&p, all.data, all.w.len, true))
			while (!tls_all(&p, buf, 1, false) && !tls_all(&p, buf, 1, true))
				;
		peer_close(&p);
	}
}

static void expect_echo(int fd)
{
	char buf[5] = "";

	ck_assert_int_eq(send(fd, "echo", 4, MSG_NOSIGNAL), 4);
	ck_assert_int_eq(recv(fd, buf, 4, MSG_WAITALL), 4);
	ck_assert_str_eq(buf, "echo");
}

/*
 * Keys are read at the start only. Relays outlive their maker, under both variants of the filter.
 */
START_TEST(tls_with_a_key)
{
	char dir[512], path[600], other[600];
	struct peer_spec spec = { .psk_file = other };
	struct settings rq;
	struct connections rs;
	struct negotiator n;
	struct loopback l;
	pid_t server;

	new_dir(dir, sizeof(dir));
	peer_file(dir, "keys.psk", "user:00112233445566778899aabbccddeeff\n", 0600);
	peer_file(dir, "server.psk", "user:00112233445566778899aabbccddeeff\n", 0600);
	snprintf(path, sizeof(path), "%s/keys.psk", dir);
	snprintf(other, sizeof(other), "%s/server.psk", dir);
	loopback_open(&l, 8);
	server = tls_server_start(l.fd, &spec);
	request(&rq, &l);
	rq.servers[0].tls = true;
	rq.tls.offload = TLS_OFFLOAD_NO;
	snprintf(rq.tls.psk_file, sizeof(rq.tls.psk_file), "%s", path);
	start(&n, &rq, _i);
	ck_assert_int_eq(unlink(path), 0);
	for (int again = 0; again < 2; again++) {
		ask(&n, 0, NEG_GOAL_GO, 1, LONG_MS);
		expect_answer(&n, &rs);
		ck_assert_uint_eq(rs.count, 1);
		expect_disk(&rs.export);
		ck_assert(rs.encrypted);
		ck_assert(rs.relayed);
		ck_assert_str_eq(rs.tls.peer, "pre-shared key");
		expect_echo(rs.fds[0]);
		if (again) {
			stop(&n);
			expect_echo(rs.fds[0]);
		}
		connections_close(&rs, false);
	}
	server_end(server);
	close(l.fd);
}
END_TEST

START_TEST(tls_with_certificates)
{
	struct cert ca, cert;
	char dir[512];
	const struct cert_spec authority = { .name = "authority", .ca = true };
	struct cert_spec named = {
		.dns = { "localhost" },
		.ip = { "127.0.0.1" },
		.issuer = &ca,
		.until = _i > 1 ? 1000000000 : 0,
	};
	const struct peer_spec spec = { .cert = &cert };
	struct settings rq;
	struct connections rs;
	struct negotiator n;
	struct loopback l;
	struct err e;
	pid_t server;
	int ret;

	new_dir(dir, sizeof(dir));
	cert_make(&ca, &authority);
	cert_write(&ca, dir, "ca.pem", NULL);
	cert_make(&cert, &named);
	loopback_open(&l, 8);
	server = tls_server_start(l.fd, &spec);
	request(&rq, &l);
	rq.servers[0].tls = true;
	snprintf(rq.tls.ca, sizeof(rq.tls.ca), "%s/ca.pem", dir);
	start(&n, &rq, _i % 2);
	ask(&n, 0, NEG_GOAL_GO, 1, LONG_MS);
	if (_i > 1) {
		ret = await(&n, &rs, &e);
		ck_assert_msg(ret == -EACCES && e.kind == ERR_TLS, "%d: %s", ret, e.text);
		ck_assert_msg(strstr(e.text, "has expired on 2001-09-09") != NULL, "%s", e.text);
	} else {
		expect_answer(&n, &rs);
		ck_assert(rs.encrypted);
		ck_assert_ptr_nonnull(strstr(rs.tls.peer, "localhost"));
		expect_echo(rs.fds[0]);
		connections_close(&rs, false);
	}
	stop(&n);
	server_end(server);
	close(l.fd);
	cert_free(&cert);
	cert_free(&ca);
}
END_TEST

/* --- a child that is not to be trusted -------------------------------------------------------- */

enum { MESSAGE_MAX = 32768 };

/* Another end that the test has in its hand, asked for two connections. */
static int fake(struct negotiator *n, bool tls)
{
	int pair[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	memset(n, 0, sizeof(*n));
	n->state = NEGOTIATOR_IDLE;
	n->fd = pair[0];
	n->server_count = 1;
	n->servers[0].tls = tls;
	n->servers[0].transport = transport_of(&(struct uri){ .transport = URI_TCP });
	ask(n, 0, NEG_GOAL_GO, 2, LONG_MS);
	return pair[1];
}

static void say(int fd, const void *message, size_t len, const int *fds, unsigned count)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)message, .iov_len = len };
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(250 * sizeof(int))];
	} control = { 0 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (count) {
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(count * sizeof(int));
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(&control.align), fds, count * sizeof(int));
	}
	ck_assert_int_eq(sendmsg(fd, &msg, 0), (ssize_t)len);
}

/* Records a good child's answer to the question of fake(), as its first one too. */
static size_t record(uint8_t *message, struct settings *rq)
{
	struct negotiator n;
	struct pollfd p;
	ssize_t len;

	start(&n, rq, false);
	ask(&n, 0, NEG_GOAL_GO, 2, LONG_MS);
	p = (struct pollfd){ .fd = n.fd, .events = POLLIN };
	ck_assert_int_eq(poll(&p, 1, SOON_MS), 1);
	/* without room for descriptors: they are closed */
	len = recv(n.fd, message, MESSAGE_MAX, 0);
	ck_assert_int_gt(len, 0);
	stop(&n);
	return (size_t)len;
}

/* What negotiator_read makes of a message that is there; -EPIPE: the end of the child. */
static int reply_of(struct negotiator *n, struct connections *rs, struct err *e)
{
	int ret;

	switch (negotiator_read(n, rs, &ret, e)) {
	case NEGOTIATOR_ANSWERED:
		return ret;
	case NEGOTIATOR_BROKEN:
		ck_assert_int_eq(e->kind, ERR_FAILED);
		return -EPIPE;
	default:
		ck_abort_msg("no answer");
		return 1;
	}
}

/* The answer to message: ret, and that nothing is left. */
static int reply(bool tls, const void *message, size_t len, const int *fds, unsigned count,
		 struct connections *rs, struct err *e)
{
	struct negotiator n;
	int peer = fake(&n, tls), ret;

	say(peer, message, len, fds, count);
	memset(e, 0, sizeof(*e));
	ret = reply_of(&n, rs, e);
	close(peer);
	stop(&n);
	return ret;
}

static bool is_sane(const struct connections *rs)
{
	const bool *flags[] = {
		&rs->encrypted,
		&rs->relayed,
		&rs->export.has_block_size,
		&rs->export.has_name,
		&rs->export.has_description,
		&rs->export.by_export_name,
	};

	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		unsigned char c;

		memcpy(&c, flags[i], 1);
		if (c > 1)
			return false;
	}
	return rs->count == 2 && !rs->command && rs->command_log == -1 &&
	       strnlen(rs->peer, sizeof(rs->peer)) < sizeof(rs->peer) &&
	       strnlen(rs->note, sizeof(rs->note)) < sizeof(rs->note) &&
	       !strpbrk(rs->note, "\n\033\377") && !strpbrk(rs->peer, "\n\033\377") &&
	       strnlen(rs->export.name, sizeof(rs->export.name)) < sizeof(rs->export.name) &&
	       strnlen(rs->export.description, sizeof(rs->export.description)) <
		       sizeof(rs->export.description);
}

static int connected_to(const struct loopback *l)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ck_assert_int_eq(connect(fd, &l->address.sa, resolve_length(&l->address)), 0);
	return fd;
}

START_TEST(nonsense)
{
	static uint8_t message[MESSAGE_MAX + 1], changed[MESSAGE_MAX];
	static const uint8_t values[] = { 0xff, 0x1b, 0x02 };
	struct settings rq;
	struct connections rs;
	struct loopback l;
	struct script s;
	struct err e;
	int good[66], file = open("/dev/null", O_RDONLY | O_CLOEXEC);
	int bad[2] = { -1, file },
	    datagram[2] = { -1, socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0) };
	unsigned before, accepted = 0, refused = 0;
	pid_t server;
	size_t len;

	loopback_open(&l, 128);
	say_all(&s, MULTI);
	server = server_start(l.fd, &s);
	request(&rq, &l);
	len = record(message, &rq);
	server_end(server);
	for (unsigned i = 0; i < 66; i++)
		good[i] = connected_to(&l);
	bad[0] = datagram[0] = good[0];
	before = leak_fds();

	ck_assert_msg(!reply(false, message, len, good, 2, &rs, &e), "%s", e.text);
	ck_assert(is_sane(&rs));
	connections_close(&rs, true);
	/* A connection in plain text, but TLS was wanted. */
	ck_assert_int_eq(reply(true, message, len, good, 2, &rs, &e), -EPIPE);
	/* descriptors */
	for (unsigned count = 0; count < 66; count += count < 4 ? 1 : 31)
		if (count != 2)
			ck_assert_int_eq(reply(false, message, len, good, count, &rs, &e), -EPIPE);
	ck_assert_int_eq(reply(false, message, len, bad, 2, &rs, &e), -EPIPE);
	ck_assert_int_eq(reply(false, message, len, datagram, 2, &rs, &e), -EPIPE);
	/* length */
	for (size_t cut = 1; cut < len; cut += 97)
		ck_assert_int_eq(reply(false, message, cut, good, 2, &rs, &e), -EPIPE);
	ck_assert_int_eq(reply(false, message, len + 1, good, 2, &rs, &e), -EPIPE);
	ck_assert_uint_eq(leak_fds(), before);
	/* contents */
	for (size_t i = 0; i < len; i += unit_under_valgrind() ? 101 : 1) {
		int ret;

		memcpy(changed, message, len);
		changed[i] = values[i % sizeof(values)];
		ret = reply(false, changed, len, good, 2, &rs, &e);
		ck_assert_msg(ret == -EPIPE || (!ret && is_sane(&rs)), "byte %zu: %d", i, ret);
		if (!ret)
			connections_close(&rs, true);
		ret ? refused++ : accepted++;
	}
	ck_assert_uint_gt(accepted, refused);
	ck_assert_uint_gt(refused, 0);
	memset(changed, 0xff, len);
	ck_assert_int_eq(reply(false, changed, len, good, 2, &rs, &e), -EPIPE);
	ck_assert_uint_eq(leak_fds(), before);
	close(l.fd);
}
END_TEST

/* The same for two sockets, of a server that is connected to by the caller or not. */
static int reply_with(const void *message, size_t len, bool connected, int a, int b, struct err *e)
{
	const int fds[2] = { a, b };
	struct connections rs;
	struct negotiator n;
	int peer = fake(&n, false), ret;

	n.servers[0].connected = connected;
	say(peer, message, len, fds, 2);
	ret = reply_of(&n, &rs, e);
	if (!ret)
		connections_close(&rs, true);
	close(peer);
	stop(&n);
	return ret;
}

START_TEST(sockets)
{
	static uint8_t message[MESSAGE_MAX];
	struct linger linger = { .l_onoff = 1, .l_linger = 5 };
	socklen_t size = sizeof(linger);
	int good[2], pair[2], other[2], fresh, again, mptcp;
	struct settings rq;
	struct loopback l, ear;
	struct script s;
	struct err e;
	unsigned before;
	pid_t server;
	size_t len;

	loopback_open(&l, 8);
	say_all(&s, MULTI);
	server = server_start(l.fd, &s);
	request(&rq, &l);
	len = record(message, &rq);
	for (int i = 0; i < 2; i++)
		good[i] = connected_to(&l);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, other), 0);
	fresh = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	loopback_open(&ear, 8);
	again = dup(good[0]);
	before = leak_fds();

	/* close(2) does not wait for what the server does not read */
	ck_assert_int_eq(setsockopt(good[1], SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), 0);
	ck_assert_int_eq(reply_with(message, len, false, good[0], good[1], &e), 0);
	ck_assert_int_eq(getsockopt(good[1], SOL_SOCKET, SO_LINGER, &linger, &size), 0);
	ck_assert_int_eq(linger.l_onoff, 0);

	ck_assert_int_eq(reply_with(message, len, false, good[0], ear.fd, &e), -EPIPE);
	ck_assert_int_eq(reply_with(message, len, false, good[0], again, &e), -EPIPE);
	ck_assert_int_eq(reply_with(message, len, false, good[0], pair[0], &e), -EPIPE);
	ck_assert_int_eq(reply_with(message, len, true, good[0], pair[0], &e), -EPIPE);
	ck_assert_int_eq(reply_with(message, len, true, pair[0], pair[1], &e), 0);
	ck_assert_int_eq(reply_with(message, len, true, pair[0], other[0], &e), -EPIPE);
	mptcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_MPTCP);
	if (mptcp >= 0) {
		ck_assert_int_eq(connect(mptcp, &l.address.sa, resolve_length(&l.address)), 0);
		ck_assert_int_eq(reply_with(message, len, false, good[0], mptcp, &e), -EPIPE);
		close(mptcp);
	}
	/* the server may have reset it by now */
	ck_assert_int_eq(reply_with(message, len, false, good[0], fresh, &e), -ECONNRESET);
	ck_assert_int_eq(e.kind, ERR_UNREACHABLE);
	ck_assert_uint_eq(leak_fds(), before);
	server_end(server);
	close(ear.fd);
	close(l.fd);
}
END_TEST

START_TEST(talks_without_being_asked)
{
	unsigned before = leak_fds();
	static uint8_t message[MESSAGE_MAX];
	struct settings rq;
	struct negotiator n;
	struct loopback l;
	struct script s;
	pid_t server;
	size_t len;
	int peer;

	loopback_open(&l, 8);
	say_all(&s, MULTI);
	server = server_start(l.fd, &s);
	request(&rq, &l);
	len = record(message, &rq);
	server_end(server);
	peer = fake(&n, false);
	/* A question that was cancelled may be answered once, and no more. */
	negotiator_cancel(&n);
	say(peer, message, len, (int[]){ peer, l.fd }, 2);
	ck_assert_int_eq(look(&n), NEGOTIATOR_NOTHING);
	say(peer, message, len, (int[]){ peer, l.fd }, 2);
	expect_broken(&n, "without being asked");
	close(peer);
	stop(&n);
	close(l.fd);
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *suite = suite_create("negotiator");
	TCase *tc = tcase_create("answers");

	tcase_set_timeout(tc, 60);
	tree_fixture(tc);
	tcase_add_loop_test(tc, connections, 0, 4);
	tcase_add_test(tc, information);
	tcase_add_loop_test(tc, connected_unix_sockets, 0, 2);
	tcase_add_test(tc, command);
	tcase_add_loop_test(tc, errors_come_with_their_text, 0, 2);
	tcase_add_test(tc, nobody_is_asked_twice_at_once);
	suite_add_tcase(suite, tc);

	tc = tcase_create("given up");
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, given_up_at_work);
	tcase_add_test(tc, given_up_when_it_was_done);
	suite_add_tcase(suite, tc);

	tc = tcase_create("end");
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, killed);
	tcase_add_test(tc, replaced);
	tcase_add_test(tc, replaced_when_it_hangs);
	tcase_add_test(tc, replaced_when_it_can_be);
	tcase_add_test(tc, hung);
	tcase_add_loop_test(tc, ends_by_itself, 0, 2);
	suite_add_tcase(suite, tc);

	tc = tcase_create("start");
	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, has_nothing_but_its_socket, 0, 2);
	tcase_add_test(tc, starts_that_fail);
	tcase_add_loop_test(tc, names, 0, 2);
	suite_add_tcase(suite, tc);

	tc = tcase_create("tls");
	tcase_set_timeout(tc, 60);
	tree_fixture(tc);
	tcase_add_loop_test(tc, tls_with_a_key, 0, 2);
	tcase_add_loop_test(tc, tls_with_certificates, 0, 4);
	suite_add_tcase(suite, tc);

	tc = tcase_create("trust");
	tcase_set_timeout(tc, 300);
	tcase_add_test(tc, nonsense);
	tcase_add_test(tc, sockets);
	tcase_add_test(tc, talks_without_being_asked);
	suite_add_tcase(suite, tc);
	return suite;
}
