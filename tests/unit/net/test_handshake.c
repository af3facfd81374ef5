/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "net/handshake.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../leak.h"
#include "../loopback.h"
#include "../say.h"
#include "net/blocking_child.h"
#include "../unit.h"

/* One end is the connection's, the other one ours, in one process: nothing here waits. */
struct pair {
	struct handshake c;
	int peer;
	unsigned fds;
};

static void open_pair(struct pair *p, enum neg_goal goal)
{
	static struct neg_params params;
	struct err e;
	int fds[2];

	p->fds = leak_fds();
	memset(&params, 0, sizeof(params));
	params.goal = goal;
	strcpy(params.export, "disk");
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds),
			 0);
	ck_assert_int_eq(handshake_init(&p->c, &params, NULL, &e), 0);
	ck_assert_int_eq(p->c.stage, HANDSHAKE_IDLE);
	handshake_use(&p->c, fds[0]);
	p->peer = fds[1];
}

static void close_pair(struct pair *p)
{
	handshake_end(&p->c);
	handshake_end(&p->c);
	close(p->peer);
	ck_assert_uint_eq(leak_fds(), p->fds);
}

static void say(struct pair *p, const void *data, size_t len)
{
	ck_assert_int_eq(send(p->peer, data, len, MSG_NOSIGNAL), (ssize_t)len);
}

static size_t hear(struct pair *p, uint8_t *buf, size_t cap)
{
	ssize_t n = recv(p->peer, buf, cap, 0);

	ck_assert_int_ge(n, 0);
	return (size_t)n;
}

static bool step(struct pair *p)
{
	return handshake_step(&p->c, monotonic_ms(), NULL, NULL);
}

static short polled(struct pair *p)
{
	struct pollfd fds[HANDSHAKE_POLL_MAX];
	int timeout_ms;

	ck_assert_uint_eq(handshake_poll(&p->c, monotonic_ms(), fds, &timeout_ms), 1);
	ck_assert_int_eq(fds[0].fd, p->c.fd);
	ck_assert_int_eq(timeout_ms, p->c.hurried ? 0 : -1);
	return fds[0].events;
}

/* Byte by byte: never done too soon, never waiting for anything but more. */
START_TEST(handshake_in_pieces)
{
	static struct script s;
	struct pair p;
	uint8_t buf[512];

	open_pair(&p, NEG_GOAL_GO);
	say_go(&s);
	ck_assert(!step(&p));
	for (size_t i = 0; i < s.w.len; i++) {
		ck_assert_int_eq(polled(&p), POLLIN);
		ck_assert(!handshake_is_committed(&p.c) ==
			  (i < WIRE_GREETING_SIZE + WIRE_HANDSHAKE_FLAGS_SIZE));
		say(&p, s.data + i, 1);
		ck_assert_int_eq(step(&p), i + 1 == s.w.len);
	}
	ck_assert_int_eq(p.c.stage, HANDSHAKE_DONE);
	ck_assert(!handshake_is_committed(&p.c));
	ck_assert_uint_eq(neg_export(p.c.neg)->size, 1 << 20);
	ck_assert_uint_eq(hear(&p, buf, sizeof(buf)), 4 + 16 + 18);
	handshake_hang_up(&p.c);
	ck_assert_int_eq(p.c.stage, HANDSHAKE_IDLE);
	ck_assert_uint_eq(hear(&p, buf, sizeof(buf)), WIRE_REQUEST_SIZE);
	ck_assert_uint_eq(buf[7], NBD_CMD_DISC);
	ck_assert_uint_eq(hear(&p, buf, sizeof(buf)), 0);
	close_pair(&p);
}
END_TEST

START_TEST(failures_end_it)
{
	struct pair p;

	open_pair(&p, NEG_GOAL_GO);
	if (_i)
		say(&p, "SSH-2.0-OpenSSH_9.2p1", 21);
	else
		shutdown(p.peer, SHUT_WR);
	ck_assert(step(&p));
	ck_assert_int_eq(p.c.stage, HANDSHAKE_FAILED);
	ck_assert_int_eq(p.c.err.kind, _i ? ERR_PROTOCOL : ERR_UNREACHABLE);
	close_pair(&p);
}
END_TEST

/* A server that never stops talking does not keep the caller for ever. */
START_TEST(endless_talk_is_taken_in_turns)
{
	static uint8_t flood[65536];
	struct bytes_writer w;
	struct pair p;
	unsigned turns = 0;

	open_pair(&p, NEG_GOAL_GO);
	bytes_write_init(&w, flood, sizeof(flood));
	bytes_put_u64(&w, NBD_INIT_MAGIC);
	bytes_put_u64(&w, NBD_OPTS_MAGIC);
	bytes_put_u16(&w, NBD_FLAG_FIXED_NEWSTYLE);
	while (w.len + WIRE_REPLY_SIZE + 2 <= sizeof(flood)) {
		bytes_put_u64(&w, NBD_REP_MAGIC);
		bytes_put_u32(&w, NBD_OPT_GO);
		bytes_put_u32(&w, NBD_REP_INFO);
		bytes_put_u32(&w, WIRE_INFO_TYPE_SIZE);
		bytes_put_u16(&w, 77);
	}
	say(&p, flood, w.len);
	while (!step(&p)) {
		ck_assert(p.c.hurried);
		polled(&p);
		ck_assert_uint_lt(++turns, 100);
	}
	ck_assert_uint_gt(turns, 1);
	ck_assert_int_eq(p.c.err.kind, ERR_PROTOCOL);
	close_pair(&p);
}
END_TEST

START_TEST(given_up)
{
	struct pair p;

	open_pair(&p, NEG_GOAL_GO);
	ck_assert(!step(&p));
	handshake_give_up(&p.c, _i ? ECANCELED : ETIMEDOUT, 1500);
	ck_assert_int_eq(p.c.stage, HANDSHAKE_FAILED);
	ck_assert_int_eq(p.c.err.code, _i ? ECANCELED : ETIMEDOUT);
	ck_assert_ptr_nonnull(strstr(p.c.err.text, _i ? "handshake: Operation canceled" :
							"still waiting for its greeting"));
	close_pair(&p);
}
END_TEST

START_TEST(given_up_while_dialling)
{
	static struct neg_params params;
	struct resolve_result r = { .count = 1 };
	struct loopback l;
	struct handshake c;
	struct err e;
	int held[16];
	unsigned n, fds;

	loopback_open(&l, 0);
	n = loopback_fill(&l, held, 16);
	r.address[0] = l.address;
	fds = leak_fds();
	ck_assert_int_eq(handshake_init(&c, &params, NULL, &e), 0);
	handshake_dial(&c, &r);
	ck_assert(!handshake_step(&c, monotonic_ms(), NULL, NULL));
	ck_assert_int_eq(c.stage, HANDSHAKE_DIAL);
	handshake_give_up(&c, ETIMEDOUT, 1500);
	ck_assert_str_eq(c.err.text, "connect: not done within 1.5 s");
	handshake_end(&c);
	ck_assert_uint_eq(leak_fds(), fds);
	loopback_drop(held, n);
	close(l.fd);
}
END_TEST

/* A request of our own and its reply, also in pieces. */
START_TEST(request_and_reply)
{
	static struct script s;
	static const uint8_t reply[] = "\x67\x44\x66\x98\0\0\0\x16\0\0\0\0\0\0\0\0";
	struct pair p;
	uint8_t buf[512];
	uint32_t error = 0;

	open_pair(&p, NEG_GOAL_GO);
	say_go(&s);
	say(&p, s.data, s.w.len);
	ck_assert(step(&p));
	hear(&p, buf, sizeof(buf));
	ck_assert_int_eq(handshake_request(&p.c, NBD_CMD_CACHE, 0, 512), 0);
	ck_assert_uint_eq(hear(&p, buf, sizeof(buf)), WIRE_REQUEST_SIZE);
	ck_assert_mem_eq(buf + 4, "\0\0\0\5", 4);
	ck_assert_mem_eq(buf + 24, "\0\0\2\0", 4);
	for (size_t i = 0; i < WIRE_SIMPLE_REPLY_SIZE; i++) {
		ck_assert_int_eq(handshake_reply(&p.c, &error), -EAGAIN);
		say(&p, reply + i, 1);
	}
	ck_assert_int_eq(handshake_reply(&p.c, &error), 0);
	ck_assert_uint_eq(error, NBD_EINVAL);

	ck_assert_int_eq(handshake_request(&p.c, NBD_CMD_CACHE, 0, 512), 0);
	say(&p, "sixteen bytes or", WIRE_SIMPLE_REPLY_SIZE);
	ck_assert_int_eq(handshake_reply(&p.c, &error), -EPROTO);
	ck_assert_int_eq(handshake_request(&p.c, NBD_CMD_CACHE, 0, 512), 0);
	shutdown(p.peer, SHUT_WR);
	ck_assert_int_eq(handshake_reply(&p.c, &error), -ECONNRESET);
	close_pair(&p);
}
END_TEST

static void count(void *ctx, const struct neg_item *item)
{
	unsigned *n = ctx;

	ck_assert_str_eq(item->name, "disk");
	++*n;
}

/* One item a turn: what the caller does with it may take its time. */
START_TEST(items_are_given_one_a_turn)
{
	static struct script s;
	struct pair p;
	unsigned n = 0;

	open_pair(&p, NEG_GOAL_LIST);
	say_greeting(&s, NBD_FLAG_FIXED_NEWSTYLE);
	say_item(&s, "disk", "");
	say_item(&s, "disk", "");
	say_reply(&s, NBD_OPT_LIST, NBD_REP_ACK, NULL, 0);
	say(&p, s.data, s.w.len);
	for (unsigned i = 1; i <= 2; i++) {
		ck_assert(!handshake_step(&p.c, monotonic_ms(), count, &n));
		ck_assert_uint_eq(n, i);
		ck_assert(p.c.hurried);
	}
	ck_assert(handshake_step(&p.c, monotonic_ms(), count, &n));
	ck_assert_int_eq(p.c.stage, HANDSHAKE_DONE);
	close_pair(&p);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("conn");
	TCase *t = tcase_create("conn");

	tcase_add_test(t, handshake_in_pieces);
	tcase_add_loop_test(t, failures_end_it, 0, 2);
	tcase_add_test(t, endless_talk_is_taken_in_turns);
	tcase_add_loop_test(t, given_up, 0, 2);
	tcase_add_test(t, given_up_while_dialling);
	tcase_add_test(t, request_and_reply);
	tcase_add_test(t, items_are_given_one_a_turn);
	suite_add_tcase(s, t);
	return s;
}
