/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "net/connect.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../leak.h"
#include "../loopback.h"
#include "../nbdserver.h"
#include "../say.h"
#include "net/blocking_child.h"
#include "../tree.h"
#include "../unit.h"
#include "proto/wire.h"

enum {
	LIMIT_MS = 400,  /* limit of connect_open that runs out */
	STEPS_MS = 2000, /* runs out at a later step: enough for those before */
	HELD = 16,
};

/* --- other requests --------------------------------------------------------------------------- */

static void request_unix(struct request *rq, enum neg_goal goal, const char *path)
{
	memset(rq, 0, sizeof(*rq));
	rq->goal = goal;
	rq->settings.server_count = 1;
	rq->settings.connect_timeout_ms = LONG_MS;
	rq->settings.servers[0].transport = URI_UNIX;
	strcpy(rq->settings.servers[0].path, path);
	strcpy(rq->settings.servers[0].export, "disk");
}

static void request_command(struct request *rq, enum neg_goal goal, const char *const words[])
{
	char copy[2048], *argv[8] = { NULL };
	struct err e = { 0 };
	size_t used = 0;

	memset(rq, 0, sizeof(*rq));
	rq->goal = goal;
	rq->settings.connect_timeout_ms = LONG_MS;
	strcpy(rq->settings.servers[0].export, "disk");
	for (size_t i = 0; words[i]; i++) {
		ck_assert_uint_lt(i, 7);
		argv[i] = copy + used;
		used += (size_t)snprintf(copy + used, sizeof(copy) - used, "%s", words[i]) + 1;
		ck_assert_uint_le(used, sizeof(copy));
	}
	ck_assert_int_eq(settings_set_command(&rq->settings, argv, "disk", &e), 0);
}

#define WORDS(...) ((const char *const[]){ __VA_ARGS__, NULL })

static void expect_disk(const struct export *x)
{
	ck_assert_uint_eq(x->size, 1 << 20);
	ck_assert_uint_eq(x->flags, NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH);
	ck_assert(x->has_block_size);
	ck_assert_uint_eq(x->block_min, 512);
	ck_assert_uint_eq(x->block_pref, 4096);
	ck_assert_uint_eq(x->payload_max, 33554432);
	ck_assert(x->has_description);
	ck_assert_str_eq(x->description, "a disk");
	ck_assert(!x->by_export_name);
}

static void expect_read(int fd, const char *text)
{
	char buf[64];
	struct pollfd p = { .fd = fd, .events = POLLIN };

	ck_assert_int_eq(poll(&p, 1, SOON_MS), 1);
	ck_assert_int_eq(recv(fd, buf, sizeof(buf), 0), (ssize_t)strlen(text));
	ck_assert_mem_eq(buf, text, strlen(text));
}

static void new_path(char *path, size_t cap, const char *name)
{
	char link[64], dir[PATH_MAX];
	int fd = tree_new();
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, dir, sizeof(dir) - 1);
	ck_assert_int_gt(n, 0);
	dir[n] = '\0';
	ck_assert_int_lt(snprintf(path, cap, "%s/%s", dir, name), (int)cap);
	close(fd);
}

/* --- GO --------------------------------------------------------------------------------------- */

/* Bytes after the handshake belong to the kernel, also when they come in the same packet. */
START_TEST(go_reads_not_one_byte_too_many)
{
	unsigned before = leak_fds();
	static struct script s;
	struct loopback l;
	struct server server;
	struct request rq;
	struct connections rs;
	struct err e = { 0 };

	say_go(&s);
	bytes_put(&s.w, "SENTINEL", 8);
	loopback_open(&l, 1);
	server_start(&server, l.fd,
		     (const struct step[]){ { SEND, 18, s.data, 0 },
					    { EXPECT, LENGTH(CLIENT_FLAGS OPTION_GO), NULL, 0 },
					    { SEND, s.w.len - 18, s.data + 18, 0 },
					    { .op = END } },
		     true);
	request(&rq, NEG_GOAL_GO, &l);
	memset(&rs, 0x5a, sizeof(rs));
	ck_assert_msg(!connect_open(&rq.settings, rq.goal, -1, NULL, NULL, &rs, &e), "%s", e.text);
	ck_assert_int_ge(rs.fds[0], 0);
	ck_assert_int_eq(fcntl(rs.fds[0], F_GETFL) & O_NONBLOCK, 0);
	ck_assert(fcntl(rs.fds[0], F_GETFD) & FD_CLOEXEC);
	ck_assert_int_eq(rs.command, 0);
	ck_assert_int_eq(rs.command_log, -1);
	ck_assert_str_eq(rs.peer, l.text);
	expect_disk(&rs.export);
	expect_read(rs.fds[0], "SENTINEL");
	connections_close(&rs, false);
	expect_nothing_held(&rs);
	server_end(&server, LISTENED_TO_THE_END, CLIENT_FLAGS OPTION_GO REQUEST_DISC,
		   LENGTH(CLIENT_FLAGS OPTION_GO REQUEST_DISC));
	close(l.fd);
	ck_assert_uint_eq(leak_fds(), before);
	ck_assert(leak_no_child());
}
END_TEST

START_TEST(go_byte_by_byte)
{
	static struct script s;
	struct loopback l;
	struct server server;
	struct request rq;
	struct connections rs;
	struct err e = { 0 };

	say_go(&s);
	bytes_put(&s.w, "!", 1);
	loopback_open(&l, 1);
	server_start(&server, l.fd,
		     (const struct step[]){ { DRIP, s.w.len, s.data, 1 }, { .op = END } }, true);
	request(&rq, NEG_GOAL_GO, &l);
	ck_assert_msg(!connect_open(&rq.settings, rq.goal, -1, NULL, NULL, &rs, &e), "%s", e.text);
	expect_disk(&rs.export);
	expect_read(rs.fds[0], "!");
	connections_close(&rs, false);
	server_end(&server, LISTENED_TO_THE_END, CLIENT_FLAGS OPTION_GO REQUEST_DISC,
		   LENGTH(CLIENT_FLAGS OPTION_GO REQUEST_DISC));
	close(l.fd);
}
END_TEST

START_TEST(go_over_a_unix_socket)
{
	unsigned before = leak_fds();
	char path[URI_PATH_MAX + 1];
	static struct script s;
	struct server server;
	struct request rq;
	struct connections rs;
	struct err e = { 0 };
	int listener;

	say_go(&s);
	bytes_put(&s.w, "SENTINEL", 8);
	new_path(path, sizeof(path), "s");
	listener = loopback_unix(path, 1);
	server_start(&server, listener,
		     (const struct step[]){ { SEND, s.w.len, s.data, 0 }, { .op = END } }, true);
	request_unix(&rq, NEG_GOAL_GO, path);
	ck_assert_msg(!connect_open(&rq.settings, rq.goal, -1, NULL, NULL, &rs, &e), "%s", e.text);
	ck_assert_str_eq(rs.peer, "local");
	ck_assert_int_eq(fcntl(rs.fds[0], F_GETFL) & O_NONBLOCK, 0);
	expect_disk(&rs.export);
	expect_read(rs.fds[0], "SENTINEL");
	connections_close(&rs, false);
	server_end(&server, LISTENED_TO_THE_END, CLIENT_FLAGS OPTION_GO REQUEST_DISC,
		   LENGTH(CLIENT_FLAGS OPTION_GO REQUEST_DISC));
	close(listener);
	ck_assert_uint_eq(leak_fds(), before);
	ck_assert(leak_no_child());
}
END_TEST

/* The kernel's reference must go on working: no farewell, no shutdown. */
START_TEST(close_leaves_the_kernel_its_connection)
{
	static struct script s;
	struct loopback l;
	struct server server;
	struct request rq;
	struct connections rs;
	struct err e = { 0 };
	int kept;

	say_go(&s);
	loopback_open(&l, 1);
	server_start(&server, l.fd,
		     (const struct step[]){ { SEND, s.w.len, s.data, 0 }, { .op = END } }, true);
	request(&rq, NEG_GOAL_GO, &l);
	ck_assert_msg(!connect_open(&rq.settings, rq.goal, -1, NULL, NULL, &rs, &e), "%s", e.text);
	kept = dup(rs.fds[0]);
	connections_close(&rs, true);
	ck_assert_uint_eq(rs.count, 0);
	ck_assert_int_eq(send(kept, "still here", 10, MSG_NOSIGNAL), 10);
	close(kept);
	server_end(&server, LISTENED_TO_THE_END, CLIENT_FLAGS OPTION_GO "still here",
		   LENGTH(CLIENT_FLAGS OPTION_GO "still here"));
	/* and once more does no harm */
	connections_close(&rs, true);
	connections_close(&rs, false);
	close(l.fd);
}
END_TEST

START_TEST(close_after_the_server_has_gone)
{
	static struct script s;
	struct loopback l;
	struct server server;
	struct request rq;
	struct connections rs;
	struct err e = { 0 };

	say_go(&s);
	loopback_open(&l, 1);
	server_start(&server, l.fd,
		     (const struct step[]){ { SEND, s.w.len, s.data, 0 },
					    { EXPECT, LENGTH(CLIENT_FLAGS OPTION_GO), NULL, 0 },
					    { .op = END } },
		     false);
	request(&rq, NEG_GOAL_GO, &l);
	ck_assert_msg(!connect_open(&rq.settings, rq.goal, -1, NULL, NULL, &rs, &e), "%s", e.text);
	server_end(&server, LISTENED_TO_THE_END, CLIENT_FLAGS OPTION_GO,
		   LENGTH(CLIENT_FLAGS OPTION_GO));
	send(rs.fds[0], "x", 1, MSG_NOSIGNAL);
	poll(NULL, 0, 50);
	/* a SIGPIPE would end the test */
	connections_close(&rs, false);
	expect_nothing_held(&rs);
	close(l.fd);
}
END_TEST

/* --- time limits ------------------------------------------------------------------------------ */

static void expect_in_time(long long start, int limit_ms)
{
	ck_assert_int_ge(monotonic_ms() - start, limit_ms);
	ck_assert_int_lt(monotonic_ms() - start, limit_ms + 4000);
}

/* Ten seconds in single bytes: each is progress, none moves the deadline. */
START_TEST(dripping_server)
{
	char path[URI_PATH_MAX + 1];
	static struct script s;
	struct server server;
	struct request rq;
	struct err e;
	long long start;
	int listener;

	say_greeting(&s, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	for (int i = 0; i < 5; i++)
		say_reply(&s, NBD_OPT_GO, NBD_REP_INFO, "\0\2a long description of a slow disk",
			  36);
	ck_assert_uint_gt(s.w.len, 200);
	new_path(path, sizeof(path), "s");
	listener = loopback_unix(path, 1);
	server_start(&server, listener,
		     (const struct step[]){ { DRIP, s.w.len, s.data, 50 }, { .op = END } }, true);
	request_unix(&rq, NEG_GOAL_GO, path);
	rq.settings.connect_timeout_ms = LIMIT_MS;
	start = monotonic_ms();
	expect_failure(&rq, -1, ETIMEDOUT, ERR_UNREACHABLE, &e);
	expect_in_time(start, LIMIT_MS);
	expect_text(&e, path, "handshake was not done in time");
	server_kill(&server);
	close(listener);
}
END_TEST

struct dawdler {
	unsigned items;
	int cancel; /* write end of a pipe, or -1 to let time go by */
};

static void dawdle(void *ctx, const struct neg_item *item)
{
	struct dawdler *d = ctx;

	(void)item;
	if (d->items++)
		return;
	if (d->cancel < 0)
		poll(NULL, 0, LIMIT_MS + 100);
	else
		ck_assert_int_eq(write(d->cancel, "", 1), 1);
}

/* A server that keeps the client busy, all its bytes being there, does not escape the limits. */
START_TEST(limits_while_bytes_are_there)
{
	struct dawdler d = { .cancel = -1 };
	static struct script s;
	struct loopback l;
	struct server server;
	struct request rq;
	struct connections rs;
	struct err e = { 0 };
	int fds[2];

	say_greeting(&s, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	for (int i = 0; i < 50; i++)
		say_item(&s, "disk", "");
	say_reply(&s, NBD_OPT_LIST, NBD_REP_ACK, NULL, 0);
	ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
	loopback_open(&l, 1);
	server_start(&server, l.fd,
		     (const struct step[]){ { SEND, s.w.len, s.data, 0 }, { .op = END } }, true);
	request(&rq, NEG_GOAL_LIST, &l);
	if (_i)
		d.cancel = fds[1];
	else
		rq.settings.connect_timeout_ms = LIMIT_MS;
	ck_assert_int_eq(connect_open(&rq.settings, rq.goal, fds[0], dawdle, &d, &rs, &e),
			 _i ? -ECANCELED : -ETIMEDOUT);
	/* none, where the machine is so busy that time is over before */
	ck_assert_uint_le(d.items, 1);
	expect_nothing_held(&rs);
	server_kill(&server);
	close(fds[0]);
	close(fds[1]);
	close(l.fd);
}
END_TEST

START_TEST(silent_server)
{
	char path[URI_PATH_MAX + 1];
	struct request rq;
	struct err e;
	long long start;
	int listener;

	/* the kernel accepts, nobody takes the connection up */
	new_path(path, sizeof(path), "s");
	listener = loopback_unix(path, 1);
	request_unix(&rq, NEG_GOAL_GO, path);
	rq.settings.connect_timeout_ms = LIMIT_MS;
	start = monotonic_ms();
	expect_failure(&rq, -1, ETIMEDOUT, ERR_UNREACHABLE, &e);
	expect_in_time(start, LIMIT_MS);
	expect_text(&e, path, "still waiting for its greeting");
	close(listener);
	ck_assert(leak_no_child());
}
END_TEST

START_TEST(server_that_falls_silent)
{
	static struct script s;
	struct loopback l;
	struct server server;
	struct request rq;
	struct err e;
	long long start;

	say_greeting(&s, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	loopback_open(&l, 1);
	server_start(&server, l.fd,
		     (const struct step[]){ { SEND, s.w.len, s.data, 0 }, { .op = END } }, true);
	request(&rq, NEG_GOAL_GO, &l);
	rq.settings.connect_timeout_ms = STEPS_MS;
	start = monotonic_ms();
	expect_failure(&rq, -1, ETIMEDOUT, ERR_UNREACHABLE, &e);
	expect_in_time(start, STEPS_MS);
	expect_text(&e, l.text, "still waiting for NBD_OPT_GO");
	server_end(&server, LISTENED_TO_THE_END, CLIENT_FLAGS OPTION_GO,
		   LENGTH(CLIENT_FLAGS OPTION_GO));
	close(l.fd);
}
END_TEST

START_TEST(server_that_cannot_be_reached)
{
	struct loopback l;
	struct request rq;
	struct err e;
	long long start;
	int held[HELD];
	unsigned held_count;

	loopback_open(&l, 0);
	held_count = loopback_fill(&l, held, HELD);
	request(&rq, NEG_GOAL_GO, &l);
	rq.settings.connect_timeout_ms = STEPS_MS;
	start = monotonic_ms();
	expect_failure(&rq, -1, ETIMEDOUT, ERR_UNREACHABLE, &e);
	expect_in_time(start, STEPS_MS);
	expect_text(&e, l.text, ": connect: not done within 2 s");
	loopback_drop(held, held_count);
	close(l.fd);
}
END_TEST

START_TEST(no_time_for_a_look_up)
{
	struct loopback l = { .port = "1" };
	struct request rq;
	struct err e;

	request(&rq, NEG_GOAL_GO, &l);
	strcpy(rq.settings.servers[0].host, "localhost"); /* an address is not looked up */
	rq.settings.connect_timeout_ms = 0;
	expect_failure(&rq, -1, ETIMEDOUT, ERR_UNREACHABLE, &e);
	expect_text(&e, "localhost:1: look up its addresses", "not done within 0 s");
}
END_TEST

/* --- cancelling ------------------------------------------------------------------------------- */

/* A pipe whose read end is readable, or at its end, after ms (at once for 0). */
static int cancel_after(int ms, bool by_hanging_up, pid_t *pid)
{
	int fds[2];

	ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
	*pid = fork();
	ck_assert_int_ge(*pid, 0);
	if (!*pid) {
		poll(NULL, 0, ms);
		_exit(!by_hanging_up && write(fds[1], "", 1) != 1);
	}
	close(fds[1]);
	if (!ms)
		waitpid(*pid, NULL, 0);
	return fds[0];
}

START_TEST(cancelled)
{
	static const struct {
		int ms;
		bool by_hanging_up, reachable;
		const char *part;
	} table[] = {
		{ 0, false, true, "Operation canceled" },
		{ 0, true, true, "Operation canceled" },
		{ 500, false, true, "handshake: Operation canceled" },
		{ 500, true, true, "handshake: Operation canceled" },
		{ 500, false, false, "connect: Operation canceled" },
		{ 500, true, false, "connect: Operation canceled" },
	};
	long long start = monotonic_ms();
	unsigned held_count = 0;
	struct request rq;
	struct loopback l;
	int held[HELD], fd;
	struct err e;
	pid_t pid;

	loopback_open(&l, table[_i].reachable ? 4 : 0);
	if (!table[_i].reachable)
		held_count = loopback_fill(&l, held, HELD);
	request(&rq, NEG_GOAL_GO, &l);
	fd = cancel_after(table[_i].ms, table[_i].by_hanging_up, &pid);
	expect_failure(&rq, fd, ECANCELED, ERR_FAILED, &e);
	ck_assert_int_lt(monotonic_ms() - start, SOON_MS);
	/* what is under way at that moment depends on the machine's speed */
	if (strstr(e.text, table[_i].part))
		expect_text(&e, l.text, table[_i].part);
	else
		expect_text(&e, l.text, "Operation canceled");
	waitpid(pid, NULL, 0);
	close(fd);
	loopback_drop(held, held_count);
	close(l.fd);
}
END_TEST

START_TEST(cancelled_while_bytes_come)
{
	char path[URI_PATH_MAX + 1];
	static struct script s;
	struct server server;
	struct request rq;
	struct err e;
	int fd, listener;
	pid_t pid;

	say_go(&s);
	new_path(path, sizeof(path), "s");
	listener = loopback_unix(path, 1);
	server_start(&server, listener,
		     (const struct step[]){ { DRIP, s.w.len, s.data, 1000 }, { .op = END } }, true);
	request_unix(&rq, NEG_GOAL_GO, path);
	fd = cancel_after(0, true, &pid);
	expect_failure(&rq, fd, ECANCELED, ERR_FAILED, &e);
	expect_text(&e, path, ": handshake: Operation canceled");
	server_kill(&server);
	close(fd);
	close(listener);
}
END_TEST

START_TEST(quiet_cancel_fd_does_not_disturb)
{
	static struct script s;
	struct loopback l;
	struct server server;
	struct request rq;
	struct connections rs;
	struct err e = { 0 };
	int fds[2];

	say_go(&s);
	loopback_open(&l, 1);
	ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
	server_start(&server, l.fd,
		     (const struct step[]){ { SEND, s.w.len, s.data, 0 }, { .op = END } }, true);
	request(&rq, NEG_GOAL_GO, &l);
	ck_assert_msg(!connect_open(&rq.settings, rq.goal, fds[0], NULL, NULL, &rs, &e), "%s",
		      e.text);
	connections_close(&rs, false);
	server_kill(&server);
	close(fds[0]);
	close(fds[1]);
	close(l.fd);
}
END_TEST

/* --- servers that say no ---------------------------------------------------------------------- */

START_TEST(server_that_closes)
{
	struct loopback l;
	struct server server;
	struct request rq;
	struct err e;

	loopback_open(&l, 1);
	server_start(&server, l.fd, (const struct step[]){ { .op = END } }, false);
	request(&rq, NEG_GOAL_GO, &l);
	expect_failure(&rq, -1, ECONNRESET, ERR_UNREACHABLE, &e);
	expect_text(&e, l.text, "closed the connection without a word");
	server_end(&server, LISTENED_TO_THE_END, NULL, 0);
	close(l.fd);
}
END_TEST

/* With our option unread its end is a reset: an end like the other. */
START_TEST(server_that_closes_in_the_middle)
{
	static struct script s;
	struct loopback l;
	struct server server;
	struct request rq;
	struct err e;

	say_greeting(&s, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	loopback_open(&l, 1);
	server_start(&server, l.fd,
		     (const struct step[]){
			     { SEND, s.w.len, s.data, 0 },
			     { EXPECT, _i ? 4 : LENGTH(CLIENT_FLAGS OPTION_GO), NULL, 0 },
			     { SLEEP, 0, NULL, 100 },
			     { .op = END } },
		     false);
	request(&rq, NEG_GOAL_GO, &l);
	expect_failure(&rq, -1, ECONNRESET, ERR_UNREACHABLE, &e);
	expect_text(&e, l.text, "in the middle of the handshake, in NBD_OPT_GO");
	server_end(&server, LISTENED_TO_THE_END, CLIENT_FLAGS OPTION_GO,
		   _i ? 4 : LENGTH(CLIENT_FLAGS OPTION_GO));
	close(l.fd);
}
END_TEST

START_TEST(nobody_there)
{
	struct loopback l;
	struct request rq;
	char expected[160];
	struct err e;

	loopback_open(&l, LOOPBACK_REFUSE);
	request(&rq, NEG_GOAL_GO, &l);
	expect_failure(&rq, -1, ECONNREFUSED, ERR_UNREACHABLE, &e);
	snprintf(expected, sizeof(expected), "%s: connect to %s: Connection refused", l.text,
		 l.text);
	ck_assert_str_eq(e.text, expected);
	close(l.fd);
	ck_assert(leak_no_child());
}
END_TEST

START_TEST(no_unix_socket_there)
{
	char path[URI_PATH_MAX + 1];
	struct request rq;
	struct err e;

	new_path(path, sizeof(path), "absent");
	request_unix(&rq, NEG_GOAL_GO, path);
	expect_failure(&rq, -1, ENOENT, ERR_UNREACHABLE, &e);
	expect_text(&e, path, "No such file or directory");
}
END_TEST

START_TEST(no_such_host)
{
	struct loopback l = { .port = "1" };
	struct request rq;
	struct err e;

	/* a label longer than 63 bytes: no name server is asked */
	request(&rq, NEG_GOAL_GO, &l);
	memset(rq.settings.servers[0].host, 'h', 64);
	strcpy(rq.settings.servers[0].host + 64, ".invalid.");
	expect_failure(&rq, -1, EHOSTUNREACH, ERR_UNREACHABLE, &e);
	expect_text(&e, "hhhh", ":1: look up host hhhh");
	ck_assert(leak_no_child());
}
END_TEST

/* The farewell of the protocol is sent after a refusal, and nothing after a breach. */
START_TEST(refusals)
{
	static const struct {
		uint32_t reply;
		const char *data;
		int code;
		enum err_kind kind;
		const char *part;
		bool farewell;
	} table[] = {
		{ NBD_REP_ERR_UNKNOWN, "no such disk\x1b[2J", ENOENT, ERR_REFUSED,
		  "it says: \"no such disk\\x1b[2J\"", true },
		{ NBD_REP_ERR_POLICY, "", EACCES, ERR_REFUSED, "NBD_REP_ERR_POLICY", true },
		{ NBD_REP_ERR_TLS_REQD, "", EPROTONOSUPPORT, ERR_TLS, "requires TLS", true },
		{ NBD_REP_META_CONTEXT, "", EPROTO, ERR_PROTOCOL, "breaks the NBD protocol",
		  false },
	};
	static struct script s;
	struct loopback l;
	struct server server;
	struct request rq;
	struct err e;

	say_greeting(&s, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	say_reply(&s, NBD_OPT_GO, table[_i].reply, table[_i].data, strlen(table[_i].data));
	loopback_open(&l, 1);
	server_start(&server, l.fd,
		     (const struct step[]){ { SEND, s.w.len, s.data, 0 }, { .op = END } }, true);
	request(&rq, NEG_GOAL_GO, &l);
	expect_failure(&rq, -1, table[_i].code, table[_i].kind, &e);
	expect_text(&e, l.text, table[_i].part);
	server_end(&server, LISTENED_TO_THE_END, CLIENT_FLAGS OPTION_GO OPTION_ABORT,
		   LENGTH(CLIENT_FLAGS OPTION_GO) +
			   (table[_i].farewell ? LENGTH(OPTION_ABORT) : 0));
	close(l.fd);
}
END_TEST

/* Refused before the server is contacted: nothing of what was to be secret is seen. */
START_TEST(bad_credentials_are_found_before_connecting)
{
	char path[URI_PATH_MAX + 1];
	struct request rq;
	struct pollfd p[2];
	struct loopback l;
	struct err e;

	loopback_open(&l, 4);
	request(&rq, NEG_GOAL_GO, &l);
	rq.settings.servers[0].tls = true;
	strcpy(rq.settings.tls.psk_file, "/no/such/keys.psk");
	expect_failure(&rq, -1, ENOENT, ERR_TLS, &e);
	expect_text(&e, l.text, "/no/such/keys.psk");

	new_path(path, sizeof(path), "s");
	request_unix(&rq, NEG_GOAL_INFO, path);
	rq.settings.servers[0].tls = true;
	p[0] = (struct pollfd){ .fd = l.fd, .events = POLLIN };
	p[1] = (struct pollfd){ .fd = loopback_unix(path, 4), .events = POLLIN };
	expect_failure(&rq, -1, EINVAL, ERR_USAGE, &e);
	expect_text(&e, path, "--tls-hostname");
	ck_assert_int_eq(poll(p, 2, 200), 0);
	close(l.fd);
	close(p[1].fd);
	ck_assert(leak_no_child());
}
END_TEST

/* --- LIST and INFO ---------------------------------------------------------------------------- */

static void collect(void *ctx, const struct neg_item *item)
{
	char *text = ctx;
	size_t used = strlen(text);

	snprintf(text + used, 256 - used, "[%s|%s]", item->name, item->description);
}

START_TEST(list)
{
	unsigned before = leak_fds();
	char items[256] = "";
	static struct script s;
	struct loopback l;
	struct server server;
	struct request rq;
	struct connections rs;
	struct err e = { 0 };

	say_greeting(&s, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	say_item(&s, "disk", "the first");
	say_item(&s, "", "");
	say_item(&s, "other", "");
	say_reply(&s, NBD_OPT_LIST, NBD_REP_ACK, NULL, 0);
	loopback_open(&l, 1);
	server_start(&server, l.fd,
		     (const struct step[]){ { SEND, s.w.len, s.data, 0 }, { .op = END } }, true);
	request(&rq, NEG_GOAL_LIST, &l);
	/* the second time nobody wants them */
	ck_assert_msg(!connect_open(&rq.settings, rq.goal, -1, _i ? NULL : collect, items, &rs, &e),
		      "%s", e.text);
	ck_assert_str_eq(items, _i ? "" : "[disk|the first][|][other|]");
	expect_nothing_held(&rs);
	ck_assert_str_eq(rs.peer, l.text);
	server_end(&server, LISTENED_TO_THE_END, CLIENT_FLAGS OPTION_LIST OPTION_ABORT,
		   LENGTH(CLIENT_FLAGS OPTION_LIST OPTION_ABORT));
	close(l.fd);
	ck_assert_uint_eq(leak_fds(), before);
	ck_assert(leak_no_child());
}
END_TEST

START_TEST(info_says_farewell)
{
	unsigned before = leak_fds();
	char items[256] = "";
	static struct script s;
	struct loopback l;
	struct server server;
	struct request rq;
	struct connections rs;
	struct err e = { 0 };

	say_greeting(&s, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	say_info(&s, NBD_OPT_INFO);
	say_reply(&s, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK, NULL, 0);
	say_reply(&s, NBD_OPT_LIST_META_CONTEXT, NBD_REP_META_CONTEXT, "\0\0\0\0x:y", 7);
	say_reply(&s, NBD_OPT_LIST_META_CONTEXT, NBD_REP_ACK, NULL, 0);
	say_item(&s, "disk", "");
	say_reply(&s, NBD_OPT_LIST, NBD_REP_ACK, NULL, 0);
	loopback_open(&l, 1);
	server_start(&server, l.fd,
		     (const struct step[]){ { SEND, s.w.len, s.data, 0 }, { .op = END } }, true);
	request(&rq, NEG_GOAL_INFO, &l);
	ck_assert_msg(!connect_open(&rq.settings, rq.goal, -1, _i ? NULL : collect, items, &rs, &e),
		      "%s", e.text);
	expect_disk(&rs.export);
	ck_assert_str_eq(items, _i ? "" : "[x:y|]");
	ck_assert(rs.export.structured && rs.export.has_contexts);
	ck_assert_int_eq(rs.export.listed, EXPORT_LISTED);
	expect_nothing_held(&rs);
	server_end(&server, LISTENED_TO_THE_END,
		   CLIENT_FLAGS OPTION_INFO OPTION_STRUCTURED_REPLY OPTION_LIST_META_CONTEXT
			   OPTION_LIST OPTION_ABORT,
		   LENGTH(CLIENT_FLAGS OPTION_INFO OPTION_STRUCTURED_REPLY OPTION_LIST_META_CONTEXT
				  OPTION_LIST OPTION_ABORT));
	close(l.fd);
	ck_assert_uint_eq(leak_fds(), before);
	ck_assert(leak_no_child());
}
END_TEST

/* Such a server is in the transmission phase then, where a farewell is a request. */
START_TEST(info_from_an_old_server_ends_with_a_request)
{
	static const uint8_t zeroes[WIRE_EXPORT_NAME_ZEROES];
	static const struct {
		uint16_t flags;
		const char *said;
		size_t len;
	} table[] = {
		{ 0, "\0\0\0\0" OPTION_EXPORT_NAME REQUEST_DISC,
		  LENGTH("\0\0\0\0" OPTION_EXPORT_NAME REQUEST_DISC) },
		{ NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES,
		  CLIENT_FLAGS OPTION_INFO OPTION_EXPORT_NAME REQUEST_DISC,
		  LENGTH(CLIENT_FLAGS OPTION_INFO OPTION_EXPORT_NAME REQUEST_DISC) },
	};
	static struct script s;
	struct loopback l;
	struct server server;
	struct request rq;
	struct connections rs;
	struct err e = { 0 };

	say_greeting(&s, table[_i].flags);
	if (table[_i].flags & NBD_FLAG_FIXED_NEWSTYLE)
		say_reply(&s, NBD_OPT_INFO, NBD_REP_ERR_UNSUP, NULL, 0);
	bytes_put_u64(&s.w, 4096);
	bytes_put_u16(&s.w, NBD_FLAG_HAS_FLAGS | NBD_FLAG_READ_ONLY);
	if (!(table[_i].flags & NBD_FLAG_NO_ZEROES))
		bytes_put(&s.w, zeroes, sizeof(zeroes));
	loopback_open(&l, 1);
	server_start(&server, l.fd,
		     (const struct step[]){ { SEND, s.w.len, s.data, 0 }, { .op = END } }, true);
	request(&rq, NEG_GOAL_INFO, &l);
	ck_assert_msg(!connect_open(&rq.settings, rq.goal, -1, NULL, NULL, &rs, &e), "%s", e.text);
	ck_assert_uint_eq(rs.export.size, 4096);
	ck_assert_uint_eq(rs.export.flags, NBD_FLAG_HAS_FLAGS | NBD_FLAG_READ_ONLY);
	ck_assert(rs.export.by_export_name);
	expect_nothing_held(&rs);
	server_end(&server, LISTENED_TO_THE_END, table[_i].said, table[_i].len);
	close(l.fd);
}
END_TEST

/* --- commands --------------------------------------------------------------------------------- */

/* A directory with the bytes of a server in "says"; "heard" is for what it gets. */
static void command_files(const struct script *s, char *says, char *heard, size_t cap)
{
	FILE *f;

	new_path(says, cap, "says");
	new_path(heard, cap, "heard");
	f = fopen(says, "w");
	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fwrite(s->data, 1, s->w.len, f), s->w.len);
	fclose(f);
}

static void expect_file(const char *path, const char *text, size_t len)
{
	char buf[4096];
	FILE *f = fopen(path, "r");

	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fread(buf, 1, sizeof(buf), f), len);
	ck_assert_mem_eq(buf, text, len);
	fclose(f);
}

START_TEST(go_with_a_command)
{
	char says[PATH_MAX], heard[PATH_MAX];
	static struct script s;
	struct request rq;
	struct connections rs;
	struct err e = { 0 };
	unsigned before;

	say_go(&s);
	bytes_put(&s.w, "SENTINEL", 8);
	command_files(&s, says, heard, sizeof(says));
	before = leak_fds();
	request_command(&rq, NEG_GOAL_GO,
			WORDS("/bin/sh", "-c", "cat \"$1\"; exec cat >\"$2\"", "sh", says, heard));
	ck_assert_msg(!connect_open(&rq.settings, rq.goal, -1, NULL, NULL, &rs, &e), "%s", e.text);
	ck_assert_int_gt(rs.command, 0);
	ck_assert_int_ge(rs.command_log, 0);
	ck_assert_str_eq(rs.peer, "local");
	expect_disk(&rs.export);
	expect_read(rs.fds[0], "SENTINEL");
	connections_close(&rs, false);
	expect_nothing_held(&rs);
	expect_file(heard, CLIENT_FLAGS OPTION_GO REQUEST_DISC,
		    LENGTH(CLIENT_FLAGS OPTION_GO REQUEST_DISC));
	ck_assert_uint_eq(leak_fds(), before);
	ck_assert(leak_no_child());
}
END_TEST

START_TEST(close_leaves_the_kernel_its_command)
{
	char says[PATH_MAX], heard[PATH_MAX];
	static struct script s;
	struct request rq;
	struct connections rs;
	struct err e = { 0 };
	pid_t pid;
	int kept;

	say_go(&s);
	command_files(&s, says, heard, sizeof(says));
	request_command(&rq, NEG_GOAL_GO,
			WORDS("/bin/sh", "-c", "cat \"$1\"; exec cat >\"$2\"", "sh", says, heard));
	ck_assert_msg(!connect_open(&rq.settings, rq.goal, -1, NULL, NULL, &rs, &e), "%s", e.text);
	pid = rs.command;
	kept = dup(rs.fds[0]);
	connections_close(&rs, true);
	ck_assert_uint_eq(rs.count, 0);
	ck_assert_int_eq(waitpid(pid, NULL, WNOHANG), 0);
	ck_assert_int_eq(send(kept, "still here", 10, MSG_NOSIGNAL), 10);
	close(kept);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	expect_file(heard, CLIENT_FLAGS OPTION_GO "still here",
		    LENGTH(CLIENT_FLAGS OPTION_GO "still here"));
	if (rs.command_log >= 0)
		close(rs.command_log);
}
END_TEST

/* Neither the end of its input nor SIGTERM: it is killed, and not before four seconds are over. */
START_TEST(command_that_does_not_leave)
{
	char says[PATH_MAX], heard[PATH_MAX];
	static struct script s;
	struct request rq;
	struct connections rs;
	struct err e = { 0 };
	long long start;
	unsigned before;

	say_go(&s);
	command_files(&s, says, heard, sizeof(says));
	before = leak_fds();
	request_command(&rq, NEG_GOAL_GO,
			WORDS("/bin/sh", "-c", "trap '' TERM; cat \"$1\"; exec sleep 1000", "sh",
			      says));
	ck_assert_msg(!connect_open(&rq.settings, rq.goal, -1, NULL, NULL, &rs, &e), "%s", e.text);
	start = monotonic_ms();
	connections_close(&rs, false);
	ck_assert_int_ge(monotonic_ms() - start, 2000);
	ck_assert_int_lt(monotonic_ms() - start, SOON_MS);
	expect_nothing_held(&rs);
	ck_assert_uint_eq(leak_fds(), before);
	ck_assert(leak_no_child());
}
END_TEST

START_TEST(list_of_a_command)
{
	char says[PATH_MAX], heard[PATH_MAX], items[256] = "";
	static struct script s;
	struct request rq;
	struct connections rs;
	struct err e = { 0 };
	unsigned before;

	say_greeting(&s, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	say_item(&s, "only", "");
	say_reply(&s, NBD_OPT_LIST, NBD_REP_ACK, NULL, 0);
	command_files(&s, says, heard, sizeof(says));
	before = leak_fds();
	request_command(&rq, NEG_GOAL_LIST,
			WORDS("/bin/sh", "-c", "cat \"$1\"; exec cat >\"$2\"", "sh", says, heard));
	ck_assert_msg(!connect_open(&rq.settings, rq.goal, -1, collect, items, &rs, &e), "%s",
		      e.text);
	ck_assert_str_eq(items, "[only|]");
	expect_nothing_held(&rs);
	expect_file(heard, CLIENT_FLAGS OPTION_LIST OPTION_ABORT,
		    LENGTH(CLIENT_FLAGS OPTION_LIST OPTION_ABORT));
	ck_assert_uint_eq(leak_fds(), before);
	ck_assert(leak_no_child());
}
END_TEST

START_TEST(command_that_fails_is_quoted)
{
	struct request rq;
	struct err e;

	request_command(&rq, NEG_GOAL_GO,
			WORDS("/bin/sh", "-c",
			      "echo 'disk.img: cannot open' >&2;"
			      "printf 'what\\033[2J now? \\n\\n' >&2; exit 1"));
	expect_failure(&rq, -1, ECONNRESET, ERR_UNREACHABLE, &e);
	expect_text(&e, "/bin/sh: the server closed the connection without a word",
		    "; the command says: \"disk.img: cannot open\\x0awhat\\x1b[2J now?\"");
	ck_assert(leak_no_child());
}
END_TEST

START_TEST(command_that_fails_silently_is_not_quoted)
{
	struct request rq;
	struct err e;

	request_command(&rq, NEG_GOAL_GO, WORDS("false"));
	expect_failure(&rq, -1, ECONNRESET, ERR_UNREACHABLE, &e);
	expect_text(&e, "false: ", "closed the connection");
	ck_assert_ptr_null(strstr(e.text, "the command says"));
	ck_assert(leak_no_child());
}
END_TEST

/* Its words come one by one and without end: they are not waited for. */
START_TEST(command_that_is_silent_as_a_server_only)
{
	struct request rq;
	long long start = monotonic_ms();
	struct err e;

	request_command(&rq, NEG_GOAL_GO,
			WORDS("/bin/sh", "-c",
			      "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14; do "
			      "for k in 1 2 3 4 5 6 7 8 9 10; do "
			      "echo hm >&2; sleep 0.1; done; done"));
	rq.settings.connect_timeout_ms = LIMIT_MS;
	expect_failure(&rq, -1, ETIMEDOUT, ERR_UNREACHABLE, &e);
	expect_text(&e, "/bin/sh: connected, but the handshake was not done in time",
		    "the command says: \"hm");
	/* four hundred bytes of these are 13 s */
	ck_assert_int_lt(monotonic_ms() - start, LIMIT_MS + 9000);
	ck_assert(leak_no_child());
}
END_TEST

START_TEST(command_that_cannot_be_started)
{
	struct request rq;
	struct err e;

	/* execvp(3): a directory that may not be searched would make EACCES of it */
	ck_assert_int_eq(setenv("PATH", "/usr/bin:/bin", 1), 0);
	request_command(&rq, NEG_GOAL_GO, WORDS("no-such-command-anywhere", "-x"));
	expect_failure(&rq, -1, ENOENT, ERR_USAGE, &e);
	ck_assert_str_eq(e.text, "no-such-command-anywhere: start no-such-command-anywhere: "
				 "No such file or directory");
	ck_assert(leak_no_child());
}
END_TEST

START_TEST(command_without_a_process)
{
	struct request rq;
	struct no_fork nf;
	struct connections rs;
	struct err e = { 0 };
	int ret;

	request_command(&rq, NEG_GOAL_GO, WORDS("true"));
	if (!leak_forbid_fork(&nf))
		return;
	ret = connect_open(&rq.settings, rq.goal, -1, NULL, NULL, &rs, &e);
	leak_allow_fork(&nf);
	ck_assert_int_eq(ret, -EAGAIN);
	expect_nothing_held(&rs);
	expect_text(&e, "true: start true: fork", "Resource temporarily unavailable");
}
END_TEST

/* --- requests --------------------------------------------------------------------------------- */

/* As many words as there may be arrive as that many arguments. */
START_TEST(command_of_many_words)
{
	char script[] = "echo \"got $# words\" >&2; exit 1";
	char sh[] = "/bin/sh", c[] = "-c", x[] = "x";
	char *argv[SETTINGS_WORDS_MAX + 1];
	struct request rq;
	struct err e = { 0 };

	memset(&rq, 0, sizeof(rq));
	rq.settings.connect_timeout_ms = LONG_MS;
	for (unsigned i = 0; i < SETTINGS_WORDS_MAX; i++)
		argv[i] = x;
	argv[0] = sh;
	argv[1] = c;
	argv[2] = script;
	argv[SETTINGS_WORDS_MAX] = NULL;
	ck_assert_int_eq(settings_set_command(&rq.settings, argv, "disk", &e), 0);
	expect_failure(&rq, -1, ECONNRESET, ERR_UNREACHABLE, &e);
	expect_text(&e, "/bin/sh: ", "got 252 words");
}
END_TEST

static TCase *new_case(Suite *s, const char *name)
{
	TCase *t = tcase_create(name);

	tcase_set_timeout(t, 60);
	tree_fixture(t);
	suite_add_tcase(s, t);
	return t;
}

Suite *unit_suite(void)
{
	Suite *s = suite_create("connect");
	TCase *t = new_case(s, "go");

	tcase_add_test(t, go_reads_not_one_byte_too_many);
	tcase_add_test(t, go_byte_by_byte);
	tcase_add_test(t, go_over_a_unix_socket);
	tcase_add_test(t, close_leaves_the_kernel_its_connection);
	tcase_add_test(t, close_after_the_server_has_gone);

	t = new_case(s, "time");
	tcase_add_test(t, dripping_server);
	tcase_add_loop_test(t, limits_while_bytes_are_there, 0, 2);
	tcase_add_test(t, silent_server);
	tcase_add_test(t, server_that_falls_silent);
	tcase_add_test(t, server_that_cannot_be_reached);
	tcase_add_test(t, no_time_for_a_look_up);

	t = new_case(s, "cancel");
	tcase_add_loop_test(t, cancelled, 0, 6);
	tcase_add_test(t, cancelled_while_bytes_come);
	tcase_add_test(t, quiet_cancel_fd_does_not_disturb);

	t = new_case(s, "no");
	tcase_add_test(t, server_that_closes);
	tcase_add_loop_test(t, server_that_closes_in_the_middle, 0, 2);
	tcase_add_test(t, nobody_there);
	tcase_add_test(t, no_unix_socket_there);
	tcase_add_test(t, no_such_host);
	tcase_add_loop_test(t, refusals, 0, 4);
	tcase_add_test(t, bad_credentials_are_found_before_connecting);

	t = new_case(s, "queries");
	tcase_add_loop_test(t, list, 0, 2);
	tcase_add_loop_test(t, info_says_farewell, 0, 2);
	tcase_add_loop_test(t, info_from_an_old_server_ends_with_a_request, 0, 2);

	t = new_case(s, "command");
	tcase_add_test(t, go_with_a_command);
	tcase_add_test(t, close_leaves_the_kernel_its_command);
	tcase_add_test(t, command_that_does_not_leave);
	tcase_add_test(t, list_of_a_command);
	tcase_add_test(t, command_that_fails_is_quoted);
	tcase_add_test(t, command_that_fails_silently_is_not_quoted);
	tcase_add_test(t, command_that_is_silent_as_a_server_only);
	tcase_add_test(t, command_that_cannot_be_started);
	tcase_add_test(t, command_without_a_process);

	t = new_case(s, "request");
	tcase_add_test(t, command_of_many_words);
	return s;
}
