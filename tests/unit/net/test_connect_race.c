/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * Several connections to a server, by way of connect_open, and over sockets that are connected
 * already.
 */
#include "net/connect_race.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../leak.h"
#include "../loopback.h"
#include "../nbdserver.h"
#include "../say.h"
#include "net/blocking_child.h"
#include "net/connect.h"
#include "proto/wire.h"
#include "../unit.h"

#define MULTI         (NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_CAN_MULTI_CONN)
#define SURE          (MULTI | NBD_FLAG_SEND_CACHE) /* not qemu 3.0 */
#define REQUEST_CACHE "\x25\x60\x95\x13\0\0\0\5\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\2\0"
#define REPLY_DONE    "\x67\x44\x66\x98\0\0\0\0\0\0\0\0\0\0\0\0"
#define REPLY_EINVAL  "\x67\x44\x66\x98\0\0\0\x16\0\0\0\0\0\0\0\0"

/*
 * Of a connection that turned out not to be wanted: it says all or, if it was that early,
 * nothing.
 */
static void server_end_politely(struct server *s)
{
	struct pollfd p = { .fd = s->heard, .events = POLLIN };

	ck_assert_int_eq(poll(&p, 1, SOON_MS), 1);
	if (p.revents & POLLIN)
		server_end(s, LISTENED_TO_THE_END, SAID REQUEST_DISC, LENGTH(SAID REQUEST_DISC));
	else
		server_end(s, HUNG_UP, "", 0);
}

static void say_multi(struct script *s, uint8_t size_16, uint16_t flags)
{
	say_greeting(s, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	say_export(s, NBD_OPT_GO, size_16, flags);
}

static void request_multi(struct request *rq, const struct loopback *l, unsigned wanted,
			  bool automatic)
{
	request(rq, NEG_GOAL_GO, l);
	rq->settings.multi.wanted = wanted;
	rq->settings.multi.automatic = automatic;
}

/* The first n bytes that the server hears are the handshake, then maybe a request. */
static void start_all(struct server *servers, unsigned n, int listener, const struct script *s,
		      const char *answer, bool listen_on)
{
	for (unsigned i = 0; i < n; i++)
		server_start(&servers[i], listener,
			     (const struct step[]){ { SEND, s->w.len, s->data, 0 },
						    { EXPECT, LENGTH(SAID), NULL, 0 },
						    { answer ? EXPECT : SEND,
						      answer ? LENGTH(REQUEST_CACHE) : 0, "", 0 },
						    { SEND, answer ? LENGTH(REPLY_DONE) : 0,
						      answer ? answer : "", 0 },
						    { .op = END } },
			     listen_on);
}

START_TEST(several_connections)
{
	enum { N = 4 };
	static struct script s;
	static struct request rq;
	struct connections rs;
	struct server servers[N];
	struct loopback l;
	struct err e = { 0 };
	unsigned before = leak_fds();

	loopback_open(&l, N);
	say_multi(&s, 16, SURE);
	start_all(servers, N, l.fd, &s, NULL, true);
	request_multi(&rq, &l, N, _i);
	ck_assert_msg(!connect_open(&rq.settings, rq.goal, -1, NULL, NULL, &rs, &e), "%s", e.text);
	ck_assert_uint_eq(rs.count, N);
	ck_assert_str_eq(rs.note, "");
	ck_assert_uint_eq(rs.export.size, 1 << 20);
	for (unsigned i = 0; i < N; i++)
		ck_assert_int_eq(fcntl(rs.fds[i], F_GETFL) & O_NONBLOCK, 0);
	connections_close(&rs, false);
	ck_assert_uint_eq(rs.count, 0);
	for (unsigned i = 0; i < N; i++)
		server_end(&servers[i], LISTENED_TO_THE_END, SAID REQUEST_DISC,
			   LENGTH(SAID REQUEST_DISC));
	close(l.fd);
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

/*
 * Each of its words goes to all connections, when it has heard from all. Two round trips, and no
 * more.
 */
static void serve_in_step(int listener, unsigned n)
{
	static struct script greeting, export;
	int fds[PLAN_CONNECTIONS_MAX], how, null = open("/dev/null", O_WRONLY);
	char heard[LENGTH(SAID)];

	alarm(20);
	say_greeting(&greeting, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	bytes_write_init(&export.w, export.data, sizeof(export.data));
	say_export(&export, NBD_OPT_GO, 16, SURE);
	for (unsigned i = 0; i < n; i++)
		if ((fds[i] = accept(listener, NULL, NULL)) < 0)
			_exit(1);
	for (unsigned i = 0; i < n; i++)
		if (send(fds[i], greeting.data, greeting.w.len, MSG_NOSIGNAL) < 0)
			_exit(2);
	for (unsigned i = 0; i < n; i++)
		if (recv(fds[i], heard, sizeof(heard), MSG_WAITALL) != sizeof(heard) ||
		    memcmp(heard, SAID, sizeof(heard)))
			_exit(3);
	for (unsigned i = 0; i < n; i++)
		if (send(fds[i], export.data, export.w.len, MSG_NOSIGNAL) < 0)
			_exit(4);
	for (unsigned i = 0; i < n; i++)
		if (server_hear(fds[i], null, LENGTH(REQUEST_DISC) + 1, &how) || how != HUNG_UP)
			_exit(5);
	_exit(0);
}

/* However many they are, they take the round trips of one: none waits for another. */
START_TEST(several_in_the_time_of_one)
{
	static const unsigned table[] = { 1, 4, 16, PLAN_CONNECTIONS_MAX };
	static struct request rq;
	struct connections rs;
	struct loopback l;
	struct err e = { 0 };
	int status;
	pid_t pid;

	loopback_open(&l, PLAN_CONNECTIONS_MAX);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (!pid)
		serve_in_step(l.fd, table[_i]);
	request_multi(&rq, &l, table[_i], false);
	ck_assert_msg(!connect_open(&rq.settings, rq.goal, -1, NULL, NULL, &rs, &e), "%s", e.text);
	ck_assert_uint_eq(rs.count, table[_i]);
	connections_close(&rs, false);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(WIFEXITED(status) && !WEXITSTATUS(status), "status %#x", (unsigned)status);
	close(l.fd);
}
END_TEST

/* The first answer permits no others: refused, or done with one; each hears a goodbye. */
START_TEST(several_where_one_is_permitted)
{
	enum { N = 3 };
	static struct script s;
	static struct request rq;
	struct connections rs;
	struct server servers[N];
	struct loopback l;
	struct err e = { 0 };

	loopback_open(&l, N);
	say_multi(&s, 16, NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH);
	start_all(servers, N, l.fd, &s, NULL, true);
	request_multi(&rq, &l, N, _i);
	if (_i) {
		ck_assert_msg(!connect_open(&rq.settings, rq.goal, -1, NULL, NULL, &rs, &e), "%s",
			      e.text);
		ck_assert_uint_eq(rs.count, 1);
		ck_assert_ptr_nonnull(strstr(rs.note, "CAN_MULTI_CONN"));
		connections_close(&rs, false);
	} else {
		expect_failure(&rq, -1, EOPNOTSUPP, ERR_MULTI, &e);
		expect_text(&e, l.text, "3 connections: the server does not permit several");
	}
	for (unsigned i = 0; i < N; i++)
		server_end_politely(&servers[i]);
	close(l.fd);
}
END_TEST

/* As qemu-nbd without -e: others wait in the backlog and never hear a word. */
START_TEST(others_never_hold_up_the_first)
{
	static struct script s;
	static struct request rq;
	long long start = monotonic_ms();
	struct connections rs;
	struct server server;
	struct loopback l;
	struct err e = { 0 };

	loopback_open(&l, 8);
	say_multi(&s, 16, _i ? SURE : NBD_FLAG_HAS_FLAGS);
	server_start(&server, l.fd,
		     (const struct step[]){ { SEND, s.w.len, s.data, 0 }, { .op = END } }, true);
	request_multi(&rq, &l, 4, true);
	ck_assert_msg(!connect_open(&rq.settings, rq.goal, -1, NULL, NULL, &rs, &e), "%s", e.text);
	ck_assert_int_lt(monotonic_ms() - start, SOON_MS);
	ck_assert_uint_eq(rs.count, 1);
	ck_assert_ptr_nonnull(strstr(rs.note, _i ? "3 of 4 connections failed" : "CAN_MULTI_CONN"));
	connections_close(&rs, false);
	server_end(&server, LISTENED_TO_THE_END, SAID REQUEST_DISC, LENGTH(SAID REQUEST_DISC));
	close(l.fd);
}
END_TEST

START_TEST(one_that_fails_fails_all)
{
	static struct script s;
	static struct request rq;
	struct server servers[2];
	struct loopback l;
	struct err e = { 0 };

	loopback_open(&l, 4);
	say_multi(&s, 16, SURE);
	start_all(servers, 1, l.fd, &s, NULL, true);
	server_start(&servers[1], l.fd, (const struct step[]){ { .op = END } }, false);
	request_multi(&rq, &l, 2, false);
	expect_failure(&rq, -1, ECONNRESET, ERR_UNREACHABLE, &e);
	expect_text(&e, l.text, "1 of 2 connections failed: the server closed the connection");
	server_end(&servers[0], LISTENED_TO_THE_END, SAID REQUEST_DISC, LENGTH(SAID REQUEST_DISC));
	server_kill(&servers[1]);
	close(l.fd);
}
END_TEST

START_TEST(answers_that_differ)
{
	static struct script one, other;
	static struct request rq;
	struct server servers[2];
	struct loopback l;
	struct err e = { 0 };

	loopback_open(&l, 4);
	say_multi(&one, 16, SURE);
	say_multi(&other, 32, SURE);
	start_all(servers, 1, l.fd, &one, NULL, true);
	start_all(servers + 1, 1, l.fd, &other, NULL, true);
	request_multi(&rq, &l, 2, _i);
	expect_failure(&rq, -1, ESTALE, ERR_MULTI, &e);
	expect_text(&e, l.text, "different answers on different connections: size: ");
	for (int i = 0; i < 2; i++)
		server_end(&servers[i], LISTENED_TO_THE_END, SAID REQUEST_DISC,
			   LENGTH(SAID REQUEST_DISC));
	close(l.fd);
}
END_TEST

/* CAN_MULTI_CONN without SEND_CACHE: one of them is asked. */
START_TEST(guard)
{
	static const struct {
		const char *answer;
		bool automatic, force, read_only;
		unsigned servers, count;
		const char *says;
	} table[] = {
		{ REPLY_EINVAL, false, false, false, 2, 2, "" },
		{ REPLY_EINVAL, true, false, false, 2, 2, "" },
		{ REPLY_DONE, false, false, false, 2, 0,
		  "2 connections: the server says CAN_MULTI_CONN but" },
		{ REPLY_DONE, true, false, false, 2, 1, "qemu 3.0" },
		/* not asked */
		{ NULL, false, true, false, 2, 2, "forced" },
		{ NULL, false, false, true, 2, 2, "" },
		/* nonsense, and what comes after that is another connection */
		{ "nonsense of 16 b", false, false, false, 3, 2, "" },
		/* silence */
		{ "", true, false, false, 2, 1, "unanswered" },
	};
	static struct script s;
	static struct request rq;
	struct server servers[3];
	struct connections rs;
	struct loopback l;
	struct err e = { 0 };

	loopback_open(&l, 4);
	say_multi(&s, 16, MULTI);
	for (unsigned i = 0; i < table[_i].servers; i++)
		if (table[_i].answer && !table[_i].answer[0])
			start_all(servers + i, 1, l.fd, &s, NULL, true);
		else
			start_all(servers + i, 1, l.fd, &s, table[_i].answer, true);
	request_multi(&rq, &l, 2, table[_i].automatic);
	rq.settings.multi.force = table[_i].force;
	rq.settings.multi.read_only = table[_i].read_only;
	if (!table[_i].count) {
		expect_failure(&rq, -1, EOPNOTSUPP, ERR_MULTI, &e);
		expect_text(&e, l.text, table[_i].says);
	} else {
		ck_assert_msg(!connect_open(&rq.settings, rq.goal, -1, NULL, NULL, &rs, &e), "%s",
			      e.text);
		ck_assert_uint_eq(rs.count, table[_i].count);
		ck_assert_msg(strstr(rs.note, table[_i].says) != NULL, "%s", rs.note);
		ck_assert(!table[_i].says[0] == !rs.note[0]);
		connections_close(&rs, false);
	}
	for (unsigned i = 0; i < table[_i].servers; i++)
		server_kill(&servers[i]);
	close(l.fd);
}
END_TEST

/* What is asked is the first block, and the connection is used after it. */
START_TEST(guard_leaves_the_connection_clean)
{
	static struct script s;
	static struct request rq;
	struct server servers[2];
	struct connections rs;
	struct loopback l;
	struct err e = { 0 };
	unsigned asked = 0;

	loopback_open(&l, 4);
	say_multi(&s, 16, MULTI);
	start_all(servers, 2, l.fd, &s, REPLY_EINVAL, true);
	request_multi(&rq, &l, 2, false);
	ck_assert_msg(!connect_open(&rq.settings, rq.goal, -1, NULL, NULL, &rs, &e), "%s", e.text);
	connections_close(&rs, false);
	for (int i = 0; i < 2; i++) {
		uint8_t buf[512];
		size_t used = 0;
		ssize_t n;

		while ((n = read(servers[i].heard, buf + used, sizeof(buf) - used)) > 0)
			used += (size_t)n;
		if (used == LENGTH(SAID REQUEST_CACHE REQUEST_DISC)) {
			ck_assert_mem_eq(buf, SAID REQUEST_CACHE REQUEST_DISC, used);
			asked++;
		} else {
			ck_assert_uint_eq(used, LENGTH(SAID REQUEST_DISC));
		}
		server_kill(&servers[i]);
	}
	ck_assert_uint_eq(asked, 1);
	close(l.fd);
}
END_TEST

/* localhost has two addresses and the server one: all go where the first one gets through. */
START_TEST(several_to_the_same_address)
{
	static struct script s;
	static struct request rq;
	struct server servers[3];
	struct connections rs;
	struct loopback l;
	struct err e = { 0 };

	loopback_open(&l, 4);
	say_multi(&s, 16, SURE);
	start_all(servers, 3, l.fd, &s, NULL, true);
	request_multi(&rq, &l, 3, false);
	strcpy(rq.settings.servers[0].host, "localhost");
	ck_assert_msg(!connect_open(&rq.settings, rq.goal, -1, NULL, NULL, &rs, &e), "%s", e.text);
	ck_assert_uint_eq(rs.count, 3);
	ck_assert_str_eq(rs.peer, l.text);
	connections_close(&rs, false);
	for (int i = 0; i < 3; i++)
		server_kill(&servers[i]);
	close(l.fd);
}
END_TEST

/* --- connected sockets ------------------------------------------------------------------------ */

/* Two handshakes, with as many sockets as there are servers. */
static void race_over_sockets(struct race *r, const struct neg_params *neg, int *fds,
			      unsigned count, const struct loopback *l, bool automatic)
{
	struct race_params p = {
		.neg = neg,
		.multi = { .wanted = 2, .automatic = automatic },
		.connections = 2,
		.timeout_ms = LONG_MS,
		.deadline = monotonic_ms() + LONG_MS,
		.cancel_fd = -1,
		.fds = fds,
		.fd_count = count,
	};
	static const struct resolve_result none;
	struct err e = { 0 };

	for (unsigned i = 0; i < count; i++) {
		fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		ck_assert_int_eq(connect(fds[i], &l->address.sa, resolve_length(&l->address)), 0);
	}
	ck_assert_int_eq(race_init(r, &p, &e), 0);
	race_start(r, &none);
}

/* Nonsense from the one that is asked: what takes its place needs a socket of its own. */
START_TEST(guard_with_sockets)
{
	const bool spare = _i % 2, automatic = _i / 2;
	const unsigned count = spare ? 3 : 2;
	const struct neg_params neg = { .goal = NEG_GOAL_GO, .export = "disk" };
	unsigned before = leak_fds();
	static struct script s;
	struct server servers[3];
	struct loopback l;
	struct race r;
	struct err e = { 0 };
	int fds[3], ret;

	loopback_open(&l, 4);
	say_multi(&s, 16, MULTI);
	start_all(servers, count, l.fd, &s, "nonsense of 16 b", true);
	race_over_sockets(&r, &neg, fds, count, &l, automatic);
	ret = race_run(&r, &e);
	if (spare || automatic) {
		ck_assert_msg(!ret, "%s", e.text);
		ck_assert_uint_eq(r.count, spare ? 2 : 1);
		ck_assert_str_eq(r.note, spare ? "" :
						 "1 of 2 connections failed and are done without: "
						 "no connection is left for one more handshake");
	} else {
		ck_assert_int_eq(ret, -EOPNOTSUPP);
		ck_assert_int_eq(e.kind, ERR_MULTI);
		ck_assert_str_eq(e.text, "1 of 2 connections failed: no connection is left for one "
					 "more handshake");
	}
	race_end(&r);
	for (unsigned i = 0; i < count; i++)
		server_kill(&servers[i]);
	close(l.fd);
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

/* Sockets that no handshake has used are closed, also where nothing was started. */
START_TEST(sockets_that_are_left)
{
	const struct neg_params neg = { .goal = NEG_GOAL_GO, .export = "disk" };
	unsigned before = leak_fds();
	struct loopback l;
	struct race r;
	int fds[3];

	loopback_open(&l, 4);
	race_over_sockets(&r, &neg, fds, 3, &l, true);
	race_end(&r);
	close(l.fd);
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("connect_race");
	TCase *t = tcase_create("several");

	tcase_set_timeout(t, 60);
	suite_add_tcase(s, t);
	tcase_add_loop_test(t, several_in_the_time_of_one, 0, 4);
	tcase_add_loop_test(t, several_connections, 0, 2);
	tcase_add_loop_test(t, several_where_one_is_permitted, 0, 2);
	tcase_add_loop_test(t, others_never_hold_up_the_first, 0, 2);
	tcase_add_test(t, one_that_fails_fails_all);
	tcase_add_loop_test(t, answers_that_differ, 0, 2);
	tcase_add_loop_test(t, guard, 0, 8);
	tcase_add_test(t, guard_leaves_the_connection_clean);
	tcase_add_test(t, several_to_the_same_address);
	tcase_add_loop_test(t, guard_with_sockets, 0, 4);
	tcase_add_test(t, sockets_that_are_left);
	return s;
}
