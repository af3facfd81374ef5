/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "nbdserver.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <check.h>

#include "leak.h"

/* --- the server ------------------------------------------------------------------------------- */

bool server_hear(int fd, int heard, size_t len, int *how)
{
	while (len) {
		uint8_t buf[4096];
		ssize_t n = read(fd, buf, len < sizeof(buf) ? len : sizeof(buf));

		if (n <= 0) {
			*how = n ? CUT_OFF : HUNG_UP;
			return false;
		}
		if (write(heard, buf, (size_t)n) != n)
			return false;
		len -= (size_t)n;
	}
	return true;
}

/* Returns how the client left: before the script's end, after it, or by a reset. */
static int play(int fd, int heard, const struct step *step)
{
	int how = CUT_OFF;

	for (; step->op != END; step++) {
		switch (step->op) {
		case EXPECT:
			if (!server_hear(fd, heard, step->len, &how))
				return how;
			break;
		case SEND:
			if (send(fd, step->data, step->len, MSG_NOSIGNAL) < 0)
				return CUT_OFF;
			break;
		case DRIP:
			for (size_t i = 0; i < step->len; i++) {
				if (send(fd, (const uint8_t *)step->data + i, 1, MSG_NOSIGNAL) < 0)
					return CUT_OFF;
				poll(NULL, 0, step->ms);
			}
			break;
		default:
			poll(NULL, 0, step->ms);
			break;
		}
	}
	return LISTENED_TO_THE_END;
}

void server_start(struct server *s, int listener, const struct step *script, bool listen_on)
{
	int fds[2];

	ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
	s->heard = fds[0];
	s->pid = fork();
	ck_assert_int_ge(s->pid, 0);
	if (!s->pid) {
		int fd, how;

		alarm(55);
		close(fds[0]);
		fd = accept(listener, NULL, NULL);
		close(listener);
		how = play(fd, fds[1], script);
		if (how == LISTENED_TO_THE_END && listen_on) {
			server_hear(fd, fds[1], SIZE_MAX, &how);
			how = how == HUNG_UP ? LISTENED_TO_THE_END : how;
		}
		_exit(how);
	}
	close(fds[1]);
}

void server_end(struct server *s, int how, const char *said, size_t len)
{
	uint8_t buf[8192];
	size_t used = 0;
	int status;

	for (;;) {
		ssize_t n = read(s->heard, buf + used, sizeof(buf) - used);

		ck_assert_int_ge(n, 0);
		if (!n)
			break;
		used += (size_t)n;
		ck_assert_uint_lt(used, sizeof(buf));
	}
	close(s->heard);
	ck_assert_int_eq(waitpid(s->pid, &status, 0), s->pid);
	ck_assert(WIFEXITED(status));
	ck_assert_int_eq(WEXITSTATUS(status), how);
	ck_assert_uint_eq(used, len);
	if (len)
		ck_assert_mem_eq(buf, said, len);
}

void server_kill(struct server *s)
{
	close(s->heard);
	kill(s->pid, SIGKILL);
	waitpid(s->pid, NULL, 0);
}

/* --- requests --------------------------------------------------------------------------------- */

void request(struct request *rq, enum neg_goal goal, const struct loopback *l)
{
	memset(rq, 0, sizeof(*rq));
	rq->goal = goal;
	rq->settings.server_count = 1;
	rq->settings.connect_timeout_ms = LONG_MS;
	strcpy(rq->settings.servers[0].host, "127.0.0.1");
	strcpy(rq->settings.servers[0].port, l->port);
	strcpy(rq->settings.servers[0].export, "disk");
}

void expect_nothing_held(const struct connections *rs)
{
	ck_assert_uint_eq(rs->count, 0);
	ck_assert_int_eq(rs->command, 0);
	ck_assert_int_eq(rs->command_log, -1);
}

int connect_open(const struct settings *settings, enum neg_goal goal, int cancel_fd,
		 void (*item)(void *ctx, const struct neg_item *item), void *ctx,
		 struct connections *result, struct err *e)
{
	const struct connect_attempt a = {
		.goal = goal,
		.timeout_ms = settings->connect_timeout_ms,
		.multi = settings->multi,
		.cancel_fd = cancel_fd,
	};
	struct connector *c;
	int ret;

	memset(result, 0, sizeof(*result));
	result->command_log = -1;
	ret = connect_prepare(&c, settings, 0, e);
	if (ret)
		return ret;
	ret = connect_run(c, &a, item, ctx, result, e);
	connect_free(c);
	return ret;
}

void expect_failure(const struct request *rq, int cancel_fd, int code, enum err_kind kind,
		    struct err *e)
{
	unsigned before = leak_fds();
	struct connections rs;
	int ret;

	memset(e, 0, sizeof(*e));
	memset(&rs, 0x5a, sizeof(rs));
	ret = connect_open(&rq->settings, rq->goal, cancel_fd, NULL, NULL, &rs, e);
	ck_assert_msg(ret == -code, "returns %d: %s", ret, e->text);
	ck_assert_int_eq(e->code, code);
	ck_assert_msg(e->kind == kind, "kind %d: %s", (int)e->kind, e->text);
	expect_nothing_held(&rs);
	ck_assert_uint_eq(leak_fds(), before);
}

void expect_text(const struct err *e, const char *begin, const char *part)
{
	ck_assert_msg(!strncmp(e->text, begin, strlen(begin)), "\"%s\" does not begin with \"%s\"",
		      e->text, begin);
	ck_assert_msg(strstr(e->text, part) != NULL, "no \"%s\" in \"%s\"", part, e->text);
}
