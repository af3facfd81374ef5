/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "net/client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../leak.h"
#include "../loopback.h"
#include "../say.h"
#include "net/blocking_child.h"
#include "../unit.h"

enum {
	LIMIT_MS = 400,  /* where it is to run out */
	LONG_MS = 40000, /* where it is not */
};

/* What the client says for the export "disk". */
#define HELLO                                                                     \
	"\0\0\0\3"                                                                \
	"IHAVEOPT\0\0\0\10\0\0\0\0"                                               \
	"IHAVEOPT\0\0\0\12\0\0\0\x1f\0\0\0\4disk\0\0\0\1\0\0\0\17base:allocation" \
	"IHAVEOPT\0\0\0\7\0\0\0\x12\0\0\0\4disk\0\4\0\0\0\1\0\2\0\3"
#define STATUS(cookie)  "\x25\x60\x95\x13\0\0\0\7\0\0\0\0\0\0\0" cookie "\0\0\0\0\0\0\0\0\0\x10\0\0"
#define DISC(cookie)    "\x25\x60\x95\x13\0\0\0\2\0\0\0\0\0\0\0" cookie "\0\0\0\0\0\0\0\0\0\0\0\0"
#define LENGTH(literal) (sizeof(literal) - 1)

static void say_handshake(struct script *s)
{
	say_greeting(s, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	say_reply(s, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK, NULL, 0);
	say_reply(s, NBD_OPT_SET_META_CONTEXT, NBD_REP_META_CONTEXT, "\0\0\0\7base:allocation", 19);
	say_reply(s, NBD_OPT_SET_META_CONTEXT, NBD_REP_ACK, NULL, 0);
	say_info(s, NBD_OPT_GO);
}

/* Two extents that are all of the export, 1 MiB. */
static void say_status(struct script *s, uint64_t cookie)
{
	bytes_put_u32(&s->w, NBD_STRUCTURED_REPLY_MAGIC);
	bytes_put_u16(&s->w, NBD_REPLY_FLAG_DONE);
	bytes_put_u16(&s->w, NBD_REPLY_TYPE_BLOCK_STATUS);
	bytes_put_u64(&s->w, cookie);
	bytes_put_u32(&s->w, 4 + 2 * 8);
	bytes_put_u32(&s->w, 7);
	bytes_put_u32(&s->w, 4096);
	bytes_put_u32(&s->w, 0);
	bytes_put_u32(&s->w, (1 << 20) - 4096);
	bytes_put_u32(&s->w, 3);
}

/* --- a server of one connection, in a child --------------------------------------------------- */

struct server {
	struct loopback at;
	pid_t pid;
	int heard; /* pipe with all the bytes it gets */
};

/* Says s, after drip_from byte by byte; then hangs up, or listens until the client leaves. */
static void server_start(struct server *v, const struct script *s, size_t drip_from, bool listen_on)
{
	int fds[2];

	loopback_open(&v->at, 1);
	ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
	v->heard = fds[0];
	v->pid = fork();
	ck_assert_int_ge(v->pid, 0);
	if (!v->pid) {
		int fd = accept(v->at.fd, NULL, NULL);
		char buf[4096];
		ssize_t n;

		alarm(50);
		close(fds[0]);
		close(v->at.fd);
		if (send(fd, s->data, drip_from, MSG_NOSIGNAL) < 0)
			_exit(1);
		for (size_t i = drip_from; i < s->w.len; i++) {
			poll(NULL, 0, 20);
			if (send(fd, s->data + i, 1, MSG_NOSIGNAL) < 0)
				_exit(2);
		}
		/* what it is asked, at least, or a close would be a reset */
		for (size_t got = 0; listen_on || got < LENGTH(HELLO STATUS("\1"));
		     got += (size_t)n) {
			n = read(fd, buf, sizeof(buf));
			if (n <= 0)
				break;
			if (write(fds[1], buf, (size_t)n) != n)
				_exit(3);
		}
		_exit(0);
	}
	close(fds[1]);
}

static void server_end(struct server *v, const char *said, size_t len)
{
	uint8_t buf[1024];
	size_t used = 0;
	ssize_t n;

	while ((n = read(v->heard, buf + used, sizeof(buf) - used)) > 0)
		used += (size_t)n;
	ck_assert_int_eq(n, 0);
	close(v->heard);
	close(v->at.fd);
	ck_assert_int_eq(waitpid(v->pid, NULL, 0), v->pid);
	if (!said)
		return;
	ck_assert_uint_eq(used, len);
	ck_assert_mem_eq(buf, said, len);
}

struct request {
	struct settings settings;
	struct metactx contexts;
};

static void request(struct request *rq, const struct server *v)
{
	struct err e;

	memset(rq, 0, sizeof(*rq));
	rq->settings.server_count = 1;
	rq->settings.connect_timeout_ms = LONG_MS;
	if (v) {
		strcpy(rq->settings.servers[0].host, "127.0.0.1");
		strcpy(rq->settings.servers[0].port, v->at.port);
	}
	strcpy(rq->settings.servers[0].export, "disk");
	ck_assert_int_eq(metactx_add(&rq->contexts, "base:allocation", 15, &e), 0);
}

static struct client *open_session(const struct request *rq)
{
	struct client *s = NULL;
	struct err e = { 0 };

	ck_assert_msg(!client_open(&s, &rq->settings, &rq->contexts, -1, &e), "%s", e.text);
	ck_assert_ptr_nonnull(s);
	ck_assert_uint_eq(s->link.export.size, 1 << 20);
	ck_assert(s->link.export.structured);
	return s;
}

static void ask(struct client *s)
{
	const struct transmission_request r = { .type = NBD_CMD_BLOCK_STATUS, .length = 1 << 20 };
	struct err e = { 0 };

	ck_assert_msg(transmission_ask(&s->query, &r, &e) >= 0, "%s", e.text);
}

static int next(struct client *s, struct transmission_buf *b, struct err *e)
{
	memset(e, 0, sizeof(*e));
	return client_next(s, monotonic_ms() + LONG_MS, -1, b, e);
}

static void expect_status(struct client *s)
{
	struct transmission_buf b;
	struct err e;

	ck_assert_int_eq(next(s, &b, &e), TRANSMISSION_EXTENT);
	ck_assert(b.offset == 0 && b.length == 4096 && b.flags == 0 && b.context == 0);
	ck_assert_int_eq(next(s, &b, &e), TRANSMISSION_EXTENT);
	ck_assert(b.offset == 4096 && b.length == (1 << 20) - 4096 && b.flags == 3);
	ck_assert_int_eq(next(s, &b, &e), TRANSMISSION_REPLY);
	ck_assert_uint_eq(b.error, 0);
}

static void expect_error(int ret, int code, enum err_kind kind, const char *begin, const char *part,
			 const struct err *e)
{
	ck_assert_msg(ret == -code && e->code == code, "%d: %s", ret, e->text);
	ck_assert_msg(e->kind == kind, "%s", e->text);
	ck_assert_msg(!strncmp(e->text, begin, strlen(begin)), "%s", e->text);
	ck_assert_msg(strstr(e->text, part) != NULL, "%s", e->text);
}

/* --- tests ------------------------------------------------------------------------------------ */

/*
 * Two requests, the second before the reply to the first is consumed; with a farewell of our own
 * and without.
 */
START_TEST(two_requests)
{
	unsigned before = leak_fds();
	struct request *rq = malloc(sizeof(*rq));
	static struct script says;
	struct server v;
	struct client *s;
	struct transmission_buf b;
	struct err e;

	ck_assert_ptr_nonnull(rq);
	say_handshake(&says);
	say_status(&says, 1);
	say_status(&says, 2);
	server_start(&v, &says, says.w.len, true);
	request(rq, &v);
	s = open_session(rq);
	ck_assert_int_eq(next(s, &b, &e), TRANSMISSION_IDLE);
	ask(s);
	expect_status(s);
	ask(s);
	expect_status(s);
	if (_i) {
		transmission_disconnect(&s->query);
		ck_assert_int_eq(next(s, &b, &e), TRANSMISSION_DONE);
		ck_assert_int_eq(next(s, &b, &e), TRANSMISSION_DONE);
	} else {
		ck_assert_int_eq(next(s, &b, &e), TRANSMISSION_IDLE);
	}
	client_close(s);
	if (_i)
		server_end(&v, HELLO STATUS("\1") STATUS("\2") DISC("\3"),
			   LENGTH(HELLO STATUS("\1") STATUS("\2") DISC("\3")));
	else
		server_end(&v, HELLO STATUS("\1") STATUS("\2") DISC("\0"),
			   LENGTH(HELLO STATUS("\1") STATUS("\2") DISC("\0")));
	free(rq);
	ck_assert_uint_eq(leak_fds(), before);
	ck_assert(leak_no_child());
}
END_TEST

/* Silence, a reply byte by byte, a breach, an end, and what is said after each. */
START_TEST(what_goes_wrong)
{
	static const struct {
		const char *part;
		int code;
		enum err_kind kind;
		enum { SILENT, DRIPS, BREACH, HANGS_UP } what;
		bool farewell;
	} table[] = {
		{ "did not answer in time", ETIMEDOUT, ERR_UNREACHABLE, SILENT, false },
		{ "did not answer in time", ETIMEDOUT, ERR_UNREACHABLE, DRIPS, false },
		{ "breaks the NBD protocol", EPROTO, ERR_PROTOCOL, BREACH, false },
		{ "closed the connection", ECONNRESET, ERR_UNREACHABLE, HANGS_UP, false },
	};
	const bool slow = table[_i].what == SILENT || table[_i].what == DRIPS;
	struct request *rq = malloc(sizeof(*rq));
	unsigned before = leak_fds();
	static struct script says;
	long long began, took;
	struct transmission_buf b;
	struct client *s;
	struct server v;
	struct err e = { 0 };
	size_t drip;
	int ret;

	ck_assert_ptr_nonnull(rq);
	say_handshake(&says);
	drip = says.w.len;
	if (table[_i].what == DRIPS)
		say_status(&says, 1);
	if (table[_i].what == BREACH)
		say_status(&says, 99);
	if (table[_i].what != DRIPS)
		drip = says.w.len;
	server_start(&v, &says, drip, table[_i].what != HANGS_UP);
	request(rq, &v);
	s = open_session(rq);
	ask(s);
	began = monotonic_ms();
	ret = client_next(s, began + (slow ? LIMIT_MS : LONG_MS), -1, &b, &e);
	took = monotonic_ms() - began;
	expect_error(ret, table[_i].code, table[_i].kind, v.at.text, table[_i].part, &e);
	ck_assert_int_lt(took, LONG_MS / 2);
	if (slow)
		ck_assert_int_ge(took, LIMIT_MS);
	client_close(s);
	if (table[_i].what == DRIPS)
		server_end(&v, NULL, 0);
	else
		server_end(&v, HELLO STATUS("\1"), LENGTH(HELLO STATUS("\1")));
	free(rq);
	ck_assert_uint_eq(leak_fds(), before);
	ck_assert(leak_no_child());
}
END_TEST

START_TEST(it_can_be_cancelled)
{
	struct request *rq = malloc(sizeof(*rq));
	static struct script says;
	struct transmission_buf b;
	struct client *s;
	struct server v;
	struct err e = { 0 };
	int fds[2];

	ck_assert_ptr_nonnull(rq);
	say_handshake(&says);
	server_start(&v, &says, says.w.len, true);
	ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
	request(rq, &v);
	s = open_session(rq);
	ask(s);
	close(fds[1]);
	expect_error(client_next(s, monotonic_ms() + LONG_MS, fds[0], &b, &e), ECANCELED,
		     ERR_FAILED, v.at.text, "wait for the server", &e);
	client_close(s);
	/* a server that does nothing wrong is told */
	server_end(&v, HELLO STATUS("\1") DISC("\0"), LENGTH(HELLO STATUS("\1") DISC("\0")));
	close(fds[0]);
	free(rq);
}
END_TEST

START_TEST(a_failed_handshake_leaves_nothing)
{
	struct request *rq = malloc(sizeof(*rq));
	unsigned before = leak_fds();
	struct client *s = (void *)rq;
	static struct script says;
	struct server v;
	struct err e = { 0 };

	ck_assert_ptr_nonnull(rq);
	say_greeting(&says, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	say_reply(&says, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK, NULL, 0);
	say_reply(&says, NBD_OPT_SET_META_CONTEXT, NBD_REP_ACK, NULL, 0);
	server_start(&v, &says, says.w.len, true);
	request(rq, &v);
	expect_error(client_open(&s, &rq->settings, &rq->contexts, -1, &e), ENOENT, ERR_REFUSED,
		     v.at.text, "no meta context \"base:allocation\"", &e);
	ck_assert_ptr_null(s);
	client_close(s);
	server_end(&v, NULL, 0);
	free(rq);
	ck_assert_uint_eq(leak_fds(), before);
	ck_assert(leak_no_child());
}
END_TEST

/* It lives as long as the session, and its last words are part of an error. */
START_TEST(a_command)
{
	char sh[] = "/bin/sh", c[] = "-c", file[] = "/tmp/test_session.XXXXXX", all[8];
	char serve[] = "cat \"$1\"; exec cat >/dev/null";
	char end[] = "cat \"$1\"; head -c \"$2\" >/dev/null; echo out of paper >&2";
	char *argv[] = { sh, c, _i ? end : serve, sh, file, all, NULL };
	struct request *rq = malloc(sizeof(*rq));
	unsigned before = leak_fds();
	static struct script says;
	struct transmission_buf b;
	struct client *s;
	struct err e = { 0 };
	int fd = mkstemp(file);

	ck_assert_ptr_nonnull(rq);
	snprintf(all, sizeof(all), "%zu", LENGTH(HELLO STATUS("\1")));
	say_handshake(&says);
	if (!_i)
		say_status(&says, 1);
	ck_assert_int_eq(write(fd, says.data, says.w.len), (ssize_t)says.w.len);
	close(fd);
	request(rq, NULL);
	ck_assert_int_eq(settings_set_command(&rq->settings, argv, "disk", &e), 0);
	s = open_session(rq);
	ck_assert_int_gt(s->link.command, 0);
	unlink(file);
	ask(s);
	if (_i)
		expect_error(next(s, &b, &e), ECONNRESET, ERR_UNREACHABLE, "/bin/sh",
			     "the command says: \"out of paper\"", &e);
	else
		expect_status(s);
	client_close(s);
	free(rq);
	ck_assert_uint_eq(leak_fds(), before);
	ck_assert(leak_no_child());
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("session");
	TCase *t = tcase_create("session");

	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, two_requests, 0, 2);
	tcase_add_loop_test(t, what_goes_wrong, 0, 4);
	tcase_add_test(t, it_can_be_cancelled);
	tcase_add_test(t, a_failed_handshake_leaves_nothing);
	tcase_add_loop_test(t, a_command, 0, 2);
	suite_add_tcase(s, t);
	return s;
}
