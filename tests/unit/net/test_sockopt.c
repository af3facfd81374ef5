/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/* Options and ends of connections over loopback; silent peers are in tests/vm/reconfigure.sh. */
#include "net/sockopt.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../leak.h"
#include "../loopback.h"
#include "net/blocking_child.h"
#include "../unit.h"

enum { SOON_MS = 20000 };

enum transport { TCP4, TCP6, UNIX, TRANSPORTS };

/* fd[0] is ours, fd[1] the peer's; false where this machine has no such transport. */
static bool connected(enum transport t, int fd[2])
{
	struct loopback l;

	if (t == UNIX) {
		ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
		return true;
	}
	if (!loopback_try(&l, t == TCP6 ? AF_INET6 : AF_INET, 4))
		return false;
	fd[0] = socket(l.address.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(connect(fd[0], &l.address.sa, resolve_length(&l.address)), 0);
	fd[1] = accept(l.fd, NULL, NULL);
	ck_assert_int_ge(fd[1], 0);
	close(l.fd);
	return true;
}

static void finish(const int fd[2])
{
	close(fd[0]);
	close(fd[1]);
}

static int option(int fd, int level, int name)
{
	socklen_t len = sizeof(int);
	int value = -1;

	ck_assert_int_eq(getsockopt(fd, level, name, &value, &len), 0);
	return value;
}

static bool soon(int fd, short events)
{
	struct pollfd p = { .fd = fd, .events = events };

	return poll(&p, 1, SOON_MS) == 1;
}

/* --- options ---------------------------------------------------------------------------------- */

START_TEST(peer_timeout)
{
	static const unsigned table[] = { 1,  2,  3,  4,  5,    7,
					  10, 15, 16, 60, 3600, SOCKOPT_PEER_TIMEOUT_MAX };
	struct err e = { 0 };
	int fd[2];

	if (!connected((enum transport)_i, fd))
		return;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		int t = (int)table[i], idle, interval, count, last;

		ck_assert_msg(!sockopt_set_peer_timeout(fd[0], table[i], &e), "%d s: %s", t,
			      e.text);
		ck_assert_int_eq(option(fd[0], SOL_SOCKET, SO_KEEPALIVE), 1);
		ck_assert_int_eq(option(fd[0], IPPROTO_TCP, TCP_USER_TIMEOUT), t * 1000);
		idle = option(fd[0], IPPROTO_TCP, TCP_KEEPIDLE);
		interval = option(fd[0], IPPROTO_TCP, TCP_KEEPINTVL);
		count = option(fd[0], IPPROTO_TCP, TCP_KEEPCNT);
		/* more than one lost probe is needed, and it is over in time */
		ck_assert_msg(t < 3 || idle + 2 * interval <= t, "%d s: %d + n * %d", t, idle,
			      interval);
		for (last = idle + interval; last < t; last += interval)
			;
		ck_assert_msg(last <= t + 1 || last <= t + t / 5, "%d s: %d", t, last);
		/* the count alone would not end it before */
		ck_assert_msg(idle + count * interval >= last, "%d s: %d + %d * %d", t, idle, count,
			      interval);
	}
	ck_assert_int_eq(sockopt_set_peer_timeout(fd[0], 0, &e), 0);
	ck_assert_int_eq(option(fd[0], SOL_SOCKET, SO_KEEPALIVE), 0);
	ck_assert_int_eq(option(fd[0], IPPROTO_TCP, TCP_USER_TIMEOUT), 0);
	ck_assert_int_eq(sockopt_set_peer_timeout(fd[0], SOCKOPT_PEER_TIMEOUT_MAX + 1, &e),
			 -ERANGE);
	ck_assert_ptr_nonnull(strstr(e.text, "32768 s, more than 32767"));
	ck_assert_int_eq(option(fd[0], SOL_SOCKET, SO_KEEPALIVE), 0);
	finish(fd);
}
END_TEST

START_TEST(peer_timeout_of_others)
{
	struct err e = { 0 };
	int fd[2];

	ck_assert(connected(UNIX, fd));
	ck_assert_int_eq(sockopt_set_peer_timeout(fd[0], 15, &e), 0);
	ck_assert_int_eq(option(fd[0], SOL_SOCKET, SO_KEEPALIVE), 0);
	finish(fd);
	ck_assert_int_eq(pipe(fd), 0);
	ck_assert_int_eq(sockopt_set_peer_timeout(fd[0], 15, &e), 0);
	finish(fd);
}
END_TEST

/* Root gets what it asks for, others what /proc/sys/net/core/wmem_max allows. */
START_TEST(send_room)
{
	struct err e = { 0 };
	int fd[2], room, pid, status;

	if (!connected((enum transport)_i, fd))
		return;
	room = sockopt_set_send_room(fd[0], SOCKOPT_SEND_ROOM, &e);
	ck_assert_int_gt(room, 4096);
	ck_assert_int_eq(room, option(fd[0], SOL_SOCKET, SO_SNDBUF) / 2);
	if (!getuid())
		ck_assert_int_eq(room, SOCKOPT_SEND_ROOM);
	pid = fork();
	if (!pid) {
		if (!getuid() && setresuid(65534, 65534, 65534))
			_exit(77);
		room = sockopt_set_send_room(fd[0], SOCKOPT_SEND_ROOM, &e);
		if (room <= 4096 || room > SOCKOPT_SEND_ROOM)
			_exit(1);
		/* less than the limit is given to anybody */
		_exit(sockopt_set_send_room(fd[0], 65536, &e) == 65536 ? 0 : 2);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status));
	if (WEXITSTATUS(status) != 77)
		ck_assert_int_eq(WEXITSTATUS(status), 0);
	finish(fd);
}
END_TEST

START_TEST(send_timeout)
{
	static const int table[] = { 1000, 3000, 0, 30000, 1500, 300000000 };
	struct timeval tv;
	int fd[2], dup_fd;

	if (!connected((enum transport)_i, fd))
		return;
	/* The driver sets it through the socket, not through our descriptor. */
	dup_fd = dup(fd[0]);
	ck_assert_int_eq(sockopt_send_timeout_ms(fd[0]), 0);
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		tv.tv_sec = table[i] / 1000;
		tv.tv_usec = table[i] % 1000 * 1000;
		ck_assert_int_eq(setsockopt(dup_fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)), 0);
		ck_assert_int_eq(sockopt_send_timeout_ms(fd[0]), table[i]);
	}
	close(dup_fd);
	finish(fd);
}
END_TEST

/* Seconds that do not fit into milliseconds are still not 0. */
START_TEST(send_timeout_of_years)
{
	struct timeval tv = { .tv_sec = 300000000 };
	int fd[2];

	ck_assert(connected(UNIX, fd));
	ck_assert_int_eq(setsockopt(fd[0], SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)), 0);
	ck_assert_int_eq(sockopt_send_timeout_ms(fd[0]), INT32_MAX);
	finish(fd);
}
END_TEST

START_TEST(no_socket)
{
	struct err e = { 0 };
	int fds[2];

	ck_assert_int_eq(pipe(fds), 0);
	ck_assert_int_eq(sockopt_set_send_room(fds[0], 65536, &e), -ENOTSOCK);
	ck_assert_int_eq(sockopt_send_timeout_ms(fds[0]), -ENOTSOCK);
	ck_assert_int_eq(sockopt_cut(fds[0], &e), -ENOTSOCK);
	ck_assert_str_eq(e.text, "cut a connection: Socket operation on non-socket");
	close(fds[0]);
	close(fds[1]);
	ck_assert(sockopt_is_dead(fds[0]));
}
END_TEST

/* --- ends ------------------------------------------------------------------------------------- */

START_TEST(death_by_end)
{
	char c;
	int fd[2];

	if (!connected((enum transport)_i, fd))
		return;
	ck_assert(!sockopt_is_dead(fd[0]));
	/* an answer is no death */
	ck_assert_int_eq(write(fd[1], "x", 1), 1);
	ck_assert(soon(fd[0], POLLIN));
	ck_assert(!sockopt_is_dead(fd[0]));
	ck_assert_int_eq(shutdown(fd[1], SHUT_WR), 0);
	ck_assert(soon(fd[0], SOCKOPT_DEAD));
	ck_assert(sockopt_is_dead(fd[0]));
	/* what came before it is still there */
	ck_assert_int_eq(read(fd[0], &c, 1), 1);
	ck_assert(sockopt_is_dead(fd[0]));
	ck_assert(!sockopt_is_dead(fd[1]));
	close(fd[1]);
	ck_assert(sockopt_is_dead(fd[0]));
	close(fd[0]);
}
END_TEST

START_TEST(death_by_reset)
{
	struct linger now = { .l_onoff = 1 };
	int fd[2];

	if (!connected((enum transport)_i, fd))
		return;
	ck_assert_int_eq(setsockopt(fd[1], SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
	close(fd[1]);
	ck_assert(soon(fd[0], SOCKOPT_DEAD));
	ck_assert(sockopt_is_dead(fd[0]));
	close(fd[0]);
}
END_TEST

START_TEST(death_of_one_that_never_was)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ck_assert(sockopt_is_dead(fd));
	close(fd);
}
END_TEST

/*
 * Sends until nothing more is taken, also not a moment later (poll() tells of a third of the room
 * only).
 */
static size_t stuff(int fd)
{
	static char buf[65536];
	size_t sum = 0, before;
	ssize_t n;

	do {
		before = sum;
		while ((n = send(fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0 ||
		       (n = send(fd, buf, 1, MSG_DONTWAIT)) > 0)
			sum += (size_t)n;
		poll(NULL, 0, 200);
	} while (sum != before);
	return sum;
}

static size_t drain(int fd, int *code)
{
	static char buf[65536];
	size_t sum = 0;
	ssize_t n;

	while ((n = read(fd, buf, sizeof(buf))) > 0)
		sum += (size_t)n;
	*code = n < 0 ? errno : 0;
	return sum;
}

START_TEST(cut)
{
	unsigned before = leak_fds();
	struct err e = { 0 };
	int fd[2], other, code;
	size_t sent, got;

	if (!connected((enum transport)_i, fd))
		return;
	/* the kernel's reference */
	other = dup(fd[0]);
	ck_assert_int_gt(sockopt_set_send_room(fd[0], 1 << 20, &e), 0);
	sent = stuff(fd[0]);
	ck_assert_int_eq(sockopt_cut(fd[0], &e), 0);
	ck_assert(sockopt_is_dead(fd[0]));
	ck_assert(sockopt_is_dead(other));
	ck_assert(soon(fd[1], SOCKOPT_DEAD));
	got = drain(fd[1], &code);
	if (_i == UNIX) {
		ck_assert_uint_eq(got, sent);
		ck_assert_int_eq(code, 0);
	} else {
		/* what had not been sent will never be */
		ck_assert_uint_lt(got, sent);
		ck_assert_int_eq(code, ECONNRESET);
	}
	ck_assert_int_eq(sockopt_cut(fd[0], &e), 0);
	ck_assert_int_eq(sockopt_cut(other, &e), 0);
	close(other);
	finish(fd);
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

/* As the driver's sender waits in a full connection, and its receiver in an empty one. */
START_TEST(cut_wakes_up_who_waits)
{
	long long begin;
	struct err e = { 0 };
	int fd[2], status;
	pid_t waiter;
	char c;

	for (int sender = 0; sender < 2; sender++) {
		if (!connected((enum transport)_i, fd))
			return;
		if (sender)
			stuff(fd[0]);
		waiter = fork();
		if (!waiter) {
			close(fd[1]);
			if (sender)
				_exit(send(fd[0], "x", 1, MSG_NOSIGNAL) >= 0);
			_exit(read(fd[0], &c, 1) > 0);
		}
		poll(NULL, 0, 100);
		ck_assert_int_eq(waitpid(waiter, &status, WNOHANG), 0);
		begin = monotonic_ms();
		ck_assert_int_eq(sockopt_cut(fd[0], &e), 0);
		ck_assert_int_eq(waitpid(waiter, &status, 0), waiter);
		ck_assert_int_eq(status, 0);
		ck_assert_int_lt(monotonic_ms() - begin, SOON_MS);
		finish(fd);
	}
}
END_TEST

START_TEST(cut_what_is_dead)
{
	struct err e = { 0 };
	int fd[2];

	if (!connected((enum transport)_i, fd))
		return;
	close(fd[1]);
	ck_assert(soon(fd[0], SOCKOPT_DEAD));
	ck_assert_int_eq(sockopt_cut(fd[0], &e), 0);
	ck_assert(sockopt_is_dead(fd[0]));
	close(fd[0]);

	fd[0] = socket(_i == UNIX ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(sockopt_cut(fd[0], &e), 0);
	close(fd[0]);
}
END_TEST

/* As the driver does it: an answer is late, or what has come is nonsense. */
START_TEST(given_up)
{
	int fd[2];
	char c;

	if (!connected((enum transport)_i, fd))
		return;
	ck_assert_int_eq(send(fd[1], "x", 1, 0), 1);
	ck_assert_int_eq(read(fd[0], &c, 1), 1);
	shutdown(fd[0], SHUT_RDWR);
	ck_assert(!sockopt_was_given_up(fd[0], 1));
	poll(NULL, 0, SOCKOPT_GIVEN_UP_MS + 100);
	ck_assert_int_eq(sockopt_was_given_up(fd[0], 1), _i != UNIX);
	ck_assert(!sockopt_was_given_up(fd[0], 0));
	finish(fd);
	/* The peer was first. */
	ck_assert(connected((enum transport)_i, fd));
	poll(NULL, 0, SOCKOPT_GIVEN_UP_MS + 100);
	close(fd[1]);
	ck_assert(soon(fd[0], SOCKOPT_DEAD));
	shutdown(fd[0], SHUT_RDWR);
	ck_assert(!sockopt_was_given_up(fd[0], 1));
	close(fd[0]);
}
END_TEST

/* The peer ends its side at the same moment. */
START_TEST(given_up_unanswered)
{
	int fd[2];

	if (!connected((enum transport)_i, fd))
		return;
	poll(NULL, 0, 100);
	ck_assert_int_eq(send(fd[0], "x", 1, 0), 1);
	poll(NULL, 0, 1100);
	close(fd[1]);
	ck_assert(soon(fd[0], SOCKOPT_DEAD));
	ck_assert_int_eq(sockopt_was_given_up(fd[0], 1), _i != UNIX);
	/* Its time was not over. */
	ck_assert(!sockopt_was_given_up(fd[0], 2));
	close(fd[0]);
}
END_TEST

/* What the peer has not acknowledged can still reach it, until the connection is cut. */
START_TEST(drained)
{
	struct err e = { 0 };
	int fd[2], code;

	if (!connected((enum transport)_i, fd))
		return;
	ck_assert(sockopt_is_drained(fd[0]));
	ck_assert_int_gt(sockopt_set_send_room(fd[0], 1 << 20, &e), 0);
	stuff(fd[0]);
	ck_assert_int_eq(sockopt_is_drained(fd[0]), _i == UNIX);
	/* Shut down it is sent all the same. */
	shutdown(fd[0], SHUT_RDWR);
	ck_assert_int_eq(sockopt_is_drained(fd[0]), _i == UNIX);
	if (_i == TCP4) {
		drain(fd[1], &code);
		close(fd[1]);
		fd[1] = dup(fd[0]);
		for (int i = 0; i < SOON_MS && !sockopt_is_drained(fd[0]); i++)
			poll(NULL, 0, 1);
	} else {
		ck_assert_int_eq(sockopt_cut(fd[0], &e), 0);
	}
	ck_assert(sockopt_is_drained(fd[0]));
	finish(fd);
	/* Nobody waits for what cannot be asked. */
	ck_assert(sockopt_is_drained(-1));
}
END_TEST

/* By SO_LINGER the last close waits for the peer. */
START_TEST(close_does_not_wait)
{
	static const struct linger wait = { .l_onoff = 1, .l_linger = 30 };
	struct err e = { 0 };
	long long begin;
	int fd[2];

	if (!connected(TCP4, fd))
		return;
	ck_assert_int_gt(sockopt_set_send_room(fd[0], 1 << 20, &e), 0);
	stuff(fd[0]);
	ck_assert_int_eq(setsockopt(fd[0], SOL_SOCKET, SO_LINGER, &wait, sizeof(wait)), 0);
	fcntl(fd[0], F_SETFL, 0);
	begin = monotonic_ms();
	sockopt_close(fd[0]);
	ck_assert_int_lt(monotonic_ms() - begin, 10000);
	ck_assert_int_eq(fcntl(fd[0], F_GETFD), -1);
	close(fd[1]);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("sock");
	TCase *t = tcase_create("options");

	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, peer_timeout, TCP4, UNIX);
	tcase_add_test(t, peer_timeout_of_others);
	tcase_add_loop_test(t, send_room, 0, TRANSPORTS);
	tcase_add_loop_test(t, send_timeout, 0, TRANSPORTS);
	tcase_add_test(t, send_timeout_of_years);
	tcase_add_test(t, no_socket);
	suite_add_tcase(s, t);
	t = tcase_create("ends");
	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, death_by_end, 0, TRANSPORTS);
	tcase_add_loop_test(t, death_by_reset, 0, TRANSPORTS);
	tcase_add_test(t, death_of_one_that_never_was);
	tcase_add_loop_test(t, cut, 0, TRANSPORTS);
	tcase_add_loop_test(t, cut_wakes_up_who_waits, 0, TRANSPORTS);
	tcase_add_loop_test(t, given_up, 0, TRANSPORTS);
	tcase_add_loop_test(t, given_up_unanswered, 0, TRANSPORTS);
	tcase_add_loop_test(t, drained, 0, TRANSPORTS);
	tcase_add_test(t, close_does_not_wait);
	tcase_add_loop_test(t, cut_what_is_dead, 0, TRANSPORTS);
	suite_add_tcase(s, t);
	return s;
}
