/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "daemon/control.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "net/blocking_child.h"

#include "../leak.h"
#include "../tree.h"
#include "../unit.h"

static void new_dir(char path[PATH_MAX])
{
	char link[64];
	int fd = tree_new();
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, PATH_MAX - 1);
	ck_assert_int_gt(n, 0);
	path[n] = '\0';
	close(fd);
}

static int open_dir(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	return fd;
}

static struct control_server opened(const char *dir)
{
	struct control_server s;
	struct err e = { 0 };

	ck_assert_msg(!control_open(&s, dir, 3, &e), "%s", e.text);
	return s;
}

static void end(struct control_server *s, const char *dir)
{
	int fd = open_dir(dir);

	control_close(s, fd, 3);
	close(fd);
}

/* What a client does within ms; false: nothing. */
static bool await(struct control_server *s, struct control_event *ev, int ms)
{
	const long long end = boottime_ms() + ms;
	struct pollfd p = { .fd = control_fd(s), .events = POLLIN };

	while (!control_next(s, ev)) {
		long long now = boottime_ms(), when = control_deadline(s);

		if (now >= end)
			return false;
		when = when >= 0 && when < end ? when : end;
		poll(&p, 1, when > now ? (int)(when - now) : 0);
	}
	return true;
}

/* A supervisor in a child: answers one question with count descriptors. */
static pid_t serve(struct control_server *s, int ret, unsigned count)
{
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (!pid) {
		struct control_answer a = { .ret = ret, .connections = 4, .size = 1 << 20 };
		struct control_event ev;
		int fds[CONTROL_FDS_MAX + 1] = { 0, 1 };

		if (!await(s, &ev, 10000) || ev.type != CONTROL_ASKED)
			_exit(1);
		if (ret)
			err_set(&a.err, ERR_BUSY, -ret, "not now");
		a.alive = ev.command;
		if (!count) {
			control_reply(s, ev.client, &a);
			_exit(0);
		}
		control_hand_over(s, ev.client, &a, fds, count);
		_exit(!await(s, &ev, 10000) || ev.type != CONTROL_RECEIVED || ev.ret);
	}
	return pid;
}

START_TEST(question_and_answer)
{
	char dir[PATH_MAX];
	struct control_answer a;
	struct control_server server;
	struct err e = { 0 };
	int fds[CONTROL_FDS_MAX], status;
	unsigned count = 7, before;
	pid_t pid;

	new_dir(dir);
	before = leak_fds();
	server = opened(dir);
	pid = serve(&server, 0, (unsigned)_i);
	ck_assert_msg(!control_ask(dir, 3, _i ? CONTROL_HAND_OVER : CONTROL_RESCAN, 10000, &a, fds,
				   &count, &e),
		      "%s", e.text);
	ck_assert_uint_eq(a.alive, _i ? CONTROL_HAND_OVER : CONTROL_RESCAN);
	ck_assert_uint_eq(a.connections, 4);
	ck_assert_uint_eq(a.size, 1 << 20);
	ck_assert_uint_eq(count, (unsigned)_i);
	while (count)
		close(fds[--count]);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	end(&server, dir);
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

/* A longer answer comes from a later version, one shorter than the first version's from none. */
START_TEST(answer_of_another_version)
{
	const struct {
		size_t len;
		int ret;
	} rows[] = {
		{ sizeof(struct control_answer) + 100, 0 },
		{ offsetof(struct control_answer, peer) +
			  sizeof(((struct control_answer *)0)->peer),
		  0 },
		{ offsetof(struct control_answer, peer), -EPROTO },
		{ 1, -EPROTO },
	};
	union {
		struct control_answer answer;
		char bytes[sizeof(struct control_answer) + 100];
	} sent;
	char dir[PATH_MAX];
	struct control_answer a;
	struct control_server server;
	struct err e = { 0 };
	int status;
	pid_t pid;

	new_dir(dir);
	server = opened(dir);
	memset(&sent, 0x7e, sizeof(sent));
	memset(&sent.answer, 0, sizeof(sent.answer));
	sent.answer.connections = 4;
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (!pid) {
		struct control_event ev;

		_exit(!await(&server, &ev, 10000) ||
		      send(server.clients[ev.client].fd, &sent, rows[_i].len, MSG_NOSIGNAL) !=
			      (ssize_t)rows[_i].len);
	}
	ck_assert_int_eq(control_ask(dir, 3, CONTROL_STATUS, 10000, &a, NULL, NULL, &e),
			 rows[_i].ret);
	if (!rows[_i].ret)
		ck_assert_uint_eq(a.connections, 4);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	end(&server, dir);
}
END_TEST

START_TEST(refusal_is_the_error)
{
	char dir[PATH_MAX];
	struct control_answer a;
	struct control_server server;
	struct err e = { 0 };
	pid_t pid;

	new_dir(dir);
	server = opened(dir);
	pid = serve(&server, -EBUSY, 2);
	/* Descriptors that nobody wants are closed. */
	ck_assert_int_eq(control_ask(dir, 3, CONTROL_PAUSE, 10000, &a, NULL, NULL, &e), -EBUSY);
	ck_assert_str_eq(e.text, "not now");
	ck_assert_int_eq(e.kind, ERR_BUSY);
	waitpid(pid, NULL, 0);
	end(&server, dir);
}
END_TEST

/* Part of a hand-over would leave connections that nobody watches. */
START_TEST(more_descriptors_than_connections)
{
	char dir[PATH_MAX];
	struct control_answer a;
	struct control_server server;
	struct err e = { 0 };
	int fds[CONTROL_FDS_MAX], status;
	unsigned count = 7, before;
	pid_t pid;

	new_dir(dir);
	before = leak_fds();
	server = opened(dir);
	pid = serve(&server, 0, CONTROL_FDS_MAX + 1);
	ck_assert_int_eq(control_ask(dir, 3, CONTROL_HAND_OVER, 10000, &a, fds, &count, &e),
			 -EPROTO);
	ck_assert_uint_eq(count, 0);
	/* The supervisor is told, and goes on. */
	waitpid(pid, &status, 0);
	ck_assert_int_eq(WEXITSTATUS(status), 1);
	end(&server, dir);
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

START_TEST(nobody_there)
{
	char dir[PATH_MAX];
	struct control_answer a;
	struct control_server server;
	struct err e = { 0 };

	new_dir(dir);
	if (_i) {
		/* A killed supervisor leaves its name. */
		server = opened(dir);
		close(server.listener);
		close(server.epoll);
	}
	ck_assert_int_eq(control_ask(dir, 3, CONTROL_STATUS, 100, &a, NULL, NULL, &e), -ENOENT);
	ck_assert_int_eq(e.kind, ERR_ABSENT);
	ck_assert_str_eq(e.text, "nbd3 has no supervisor");
	/* The name can be taken. */
	server = opened(dir);
	end(&server, dir);
}
END_TEST

START_TEST(the_name)
{
	char dir[PATH_MAX], path[PATH_MAX + 16];
	struct control_server server, failed;
	struct err e = { 0 };
	struct stat st;

	new_dir(dir);
	server = opened(dir);
	snprintf(path, sizeof(path), "%s/nbd3.ctl", dir);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 0777, 0600);
	/* One that was not opened removes nothing. */
	ck_assert_int_lt(control_open(&failed, "/no/such/directory", 3, &e), 0);
	end(&failed, dir);
	ck_assert_int_eq(stat(path, &st), 0);
	end(&server, dir);
	ck_assert_int_ne(stat(path, &st), 0);
	end(&server, dir);
}
END_TEST

/* Its end is seen from outside, also by whoever it does not answer. */
START_TEST(the_end_is_seen)
{
	char dir[PATH_MAX];
	struct pollfd p = { .events = POLLIN };
	unsigned before;
	int ready[2];
	pid_t pid;
	char c;

	new_dir(dir);
	before = leak_fds();
	ck_assert_int_eq(control_watch(dir, 3), -ENOENT);
	ck_assert_int_eq(pipe(ready), 0);
	pid = fork();
	if (!pid) {
		opened(dir);
		close(ready[1]);
		pause();
	}
	close(ready[1]);
	ck_assert_int_eq(read(ready[0], &c, 1), 0);
	p.fd = control_watch(dir, 3);
	if (p.fd != -ENOSYS) { /* valgrind has no pidfd_open */
		ck_assert_int_ge(p.fd, 0);
		ck_assert_int_eq(poll(&p, 1, 0), 0);
	}
	kill(pid, SIGKILL);
	if (p.fd >= 0) {
		ck_assert_int_eq(poll(&p, 1, 20000), 1);
		close(p.fd);
	}
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	ck_assert_int_eq(control_watch(dir, 3), -ENOENT);
	close(ready[0]);
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

START_TEST(silence_has_a_limit)
{
	char dir[PATH_MAX];
	struct control_answer a;
	struct control_server server;
	struct err e = { 0 };

	new_dir(dir);
	server = opened(dir);
	ck_assert_int_eq(control_ask(dir, 3, CONTROL_STATUS, 50, &a, NULL, NULL, &e), -ETIMEDOUT);
	end(&server, dir);
}
END_TEST

/* A client by hand. */
static int connected(const char *dir)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%.80s/nbd3.ctl", dir);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

static void ask(int fd, uint32_t word)
{
	ck_assert_int_eq(send(fd, &word, sizeof(word), MSG_NOSIGNAL), sizeof(word));
}

static bool is_hung_up(int fd, int ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	char c;

	return poll(&p, 1, ms) == 1 && recv(fd, &c, 1, MSG_DONTWAIT) <= 0;
}

/* Neither a word that is none nor one that does not come keeps the supervisor, or a place. */
START_TEST(nonsense_is_dropped)
{
	static const uint32_t words[] = { CONTROL_COMMANDS, UINT32_MAX };
	char dir[PATH_MAX];
	struct control_server server;
	struct control_event ev;
	unsigned before;
	int fd;

	new_dir(dir);
	before = leak_fds();
	server = opened(dir);
	ck_assert(!control_next(&server, &ev));
	ck_assert_int_eq(control_deadline(&server), -1);
	for (int i = 0; i < 2 * CONTROL_CLIENTS_MAX; i++) {
		fd = connected(dir);
		if (_i < 2)
			ask(fd, words[_i]);
		else if (_i == 2)
			ck_assert_int_eq(send(fd, "x", 1, MSG_NOSIGNAL), 1);
		else if (_i == 3)
			shutdown(fd, SHUT_RDWR);
		ck_assert(!control_next(&server, &ev));
		if (_i < 4)
			ck_assert(is_hung_up(fd, 0));
		close(fd);
	}
	end(&server, dir);
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

START_TEST(a_request_that_does_not_come)
{
	char dir[PATH_MAX];
	struct control_server server;
	struct control_event ev;
	int fd, more[CONTROL_CLIENTS_MAX];

	new_dir(dir);
	server = opened(dir);
	fd = connected(dir);
	ck_assert(!control_next(&server, &ev));
	ck_assert_int_gt(control_deadline(&server), boottime_ms());
	/* Meanwhile others are served, as many as there is room for. */
	for (int i = 0; i < CONTROL_CLIENTS_MAX; i++) {
		more[i] = connected(dir);
		ask(more[i], CONTROL_PAUSE);
		ck_assert_int_eq(await(&server, &ev, 0), i < CONTROL_CLIENTS_MAX - 1);
		ck_assert_int_eq(is_hung_up(more[i], 0), i == CONTROL_CLIENTS_MAX - 1);
	}
	ck_assert(!await(&server, &ev, 3 * CONTROL_REQUEST_MS / 2));
	ck_assert(is_hung_up(fd, 0));
	ck_assert_int_eq(control_deadline(&server), -1);
	close(fd);
	for (int i = 0; i < CONTROL_CLIENTS_MAX; i++)
		close(more[i]);
	end(&server, dir);
}
END_TEST

START_TEST(clients_that_go)
{
	char dir[PATH_MAX];
	struct control_server server;
	struct control_answer a = { 0 };
	struct control_event ev;
	unsigned first = 0;
	int fd[2], child_has;

	new_dir(dir);
	server = opened(dir);
	for (int i = 0; i < 2; i++) {
		fd[i] = connected(dir);
		ask(fd[i], CONTROL_RESUME);
		ck_assert(await(&server, &ev, 1000));
		ck_assert_int_eq(ev.type, CONTROL_ASKED);
		ck_assert_int_eq(ev.command, CONTROL_RESUME);
		if (!i)
			first = ev.client;
	}
	ck_assert_uint_ne(ev.client, first);
	/* What it says besides is nothing. */
	ask(fd[0], CONTROL_PAUSE);
	ck_assert(!await(&server, &ev, 0));
	close(fd[0]);
	ck_assert(await(&server, &ev, 1000));
	ck_assert_int_eq(ev.type, CONTROL_GONE);
	ck_assert_uint_eq(ev.client, first);
	/* A late answer to the one that has gone is nobody's. */
	control_reply(&server, first, &a);
	/* A child that has inherited the descriptor keeps it open. */
	child_has = dup(server.clients[!first].fd);
	control_reply(&server, !first, &a);
	close(fd[1]);
	ck_assert(!await(&server, &ev, 100));
	close(child_has);
	end(&server, dir);
}
END_TEST

/* The supervisor ends by 0 only. */
START_TEST(hand_over_is_confirmed)
{
	char dir[PATH_MAX];
	struct control_server server;
	struct control_answer a = { .connections = 1 };
	struct control_event ev;
	long long begin;
	int fd, mine = 0;

	new_dir(dir);
	server = opened(dir);
	fd = connected(dir);
	ask(fd, CONTROL_HAND_OVER);
	ck_assert(await(&server, &ev, 1000));
	begin = boottime_ms();
	control_hand_over(&server, ev.client, &a, &mine, 1);
	ck_assert(!await(&server, &ev, 0));
	if (_i == 0)
		ask(fd, CONTROL_HAND_OVER);
	else if (_i == 1)
		close(fd);
	ck_assert(await(&server, &ev, 2 * CONTROL_RECEIVE_MS));
	ck_assert_int_eq(ev.type, CONTROL_RECEIVED);
	if (_i == 0)
		ck_assert_int_eq(ev.ret, 0);
	else if (_i == 1)
		ck_assert(ev.ret == -EPIPE || ev.ret == -ECONNRESET);
	else
		ck_assert_int_eq(ev.ret, -ETIMEDOUT);
	if (_i == 2)
		ck_assert_int_ge(boottime_ms() - begin, CONTROL_RECEIVE_MS);
	else
		ck_assert_int_lt(boottime_ms() - begin, CONTROL_RECEIVE_MS);
	/* The place is free. */
	ck_assert_int_eq(server.clients[ev.client].state, CONTROL_CLIENT_NONE);
	if (_i != 1)
		close(fd);
	end(&server, dir);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("control");
	TCase *t = tcase_create("control");

	tcase_add_loop_test(t, question_and_answer, 0, 3);
	tcase_add_loop_test(t, answer_of_another_version, 0, 4);
	tcase_add_test(t, refusal_is_the_error);
	tcase_add_test(t, more_descriptors_than_connections);
	tcase_add_loop_test(t, nobody_there, 0, 2);
	tcase_add_test(t, the_name);
	tcase_add_test(t, the_end_is_seen);
	tcase_add_test(t, silence_has_a_limit);
	tcase_add_loop_test(t, nonsense_is_dropped, 0, 5);
	tcase_add_test(t, a_request_that_does_not_come);
	tcase_add_test(t, clients_that_go);
	tcase_add_loop_test(t, hand_over_is_confirmed, 0, 3);
	suite_add_tcase(s, t);
	return s;
}
