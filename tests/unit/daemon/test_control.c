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

static void remove_from(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	control_remove(fd, 3);
	close(fd);
}

static int listen_on(const char *dir)
{
	struct err e = { 0 };
	int fd = control_listen(dir, 3, &e);

	ck_assert_msg(fd >= 0, "%s", e.text);
	return fd;
}

/* A supervisor in a child: answers one question with count descriptors. */
static pid_t serve(int listener, int ret, unsigned count)
{
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (!pid) {
		struct pollfd p = { .fd = listener, .events = POLLIN };
		struct control_answer a = { .ret = ret, .connections = 4, .size = 1 << 20 };
		enum control_command command;
		int fds[CONTROL_FDS_MAX + 1] = { 0, 1 }, client;

		poll(&p, 1, 10000);
		client = control_accept(listener, &command);
		if (ret)
			err_set(&a.err, ERR_BUSY, -ret, "not now");
		a.alive = command;
		if (client >= 0)
			control_reply(client, &a, fds, count);
		_exit(client < 0);
	}
	return pid;
}

START_TEST(question_and_answer)
{
	char dir[PATH_MAX];
	struct control_answer a;
	struct err e = { 0 };
	int fds[CONTROL_FDS_MAX], listener, status;
	unsigned count = 7, before;
	pid_t pid;

	new_dir(dir);
	before = leak_fds();
	listener = listen_on(dir);
	pid = serve(listener, 0, (unsigned)_i);
	ck_assert_msg(!control_ask(dir, 3, CONTROL_RESCAN, 10000, &a, fds, &count, &e), "%s",
		      e.text);
	ck_assert_uint_eq(a.alive, CONTROL_RESCAN);
	ck_assert_uint_eq(a.connections, 4);
	ck_assert_uint_eq(a.size, 1 << 20);
	ck_assert_uint_eq(count, (unsigned)_i);
	while (count)
		close(fds[--count]);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	close(listener);
	remove_from(dir);
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
	struct err e = { 0 };
	int listener, status;
	pid_t pid;

	new_dir(dir);
	listener = listen_on(dir);
	memset(&sent, 0x7e, sizeof(sent));
	memset(&sent.answer, 0, sizeof(sent.answer));
	sent.answer.connections = 4;
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (!pid) {
		struct pollfd p = { .fd = listener, .events = POLLIN };
		enum control_command command;
		int client;

		poll(&p, 1, 10000);
		client = control_accept(listener, &command);
		_exit(client < 0 ||
		      send(client, &sent, rows[_i].len, MSG_NOSIGNAL) != (ssize_t)rows[_i].len);
	}
	ck_assert_int_eq(control_ask(dir, 3, CONTROL_STATUS, 10000, &a, NULL, NULL, &e),
			 rows[_i].ret);
	if (!rows[_i].ret)
		ck_assert_uint_eq(a.connections, 4);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	close(listener);
}
END_TEST

START_TEST(refusal_is_the_error)
{
	char dir[PATH_MAX];
	struct control_answer a;
	struct err e = { 0 };
	int listener;
	pid_t pid;

	new_dir(dir);
	listener = listen_on(dir);
	pid = serve(listener, -EBUSY, 2);
	/* descriptors that nobody wants are closed */
	ck_assert_int_eq(control_ask(dir, 3, CONTROL_PAUSE, 10000, &a, NULL, NULL, &e), -EBUSY);
	ck_assert_str_eq(e.text, "not now");
	ck_assert_int_eq(e.kind, ERR_BUSY);
	waitpid(pid, NULL, 0);
	close(listener);
}
END_TEST

/* Part of a hand-over would leave connections that nobody watches. */
START_TEST(more_descriptors_than_connections)
{
	char dir[PATH_MAX];
	struct control_answer a;
	struct err e = { 0 };
	int fds[CONTROL_FDS_MAX], listener;
	unsigned count = 7, before;
	pid_t pid;

	new_dir(dir);
	before = leak_fds();
	listener = listen_on(dir);
	pid = serve(listener, 0, CONTROL_FDS_MAX + 1);
	ck_assert_int_eq(control_ask(dir, 3, CONTROL_HAND_OVER, 10000, &a, fds, &count, &e),
			 -EPROTO);
	ck_assert_uint_eq(count, 0);
	waitpid(pid, NULL, 0);
	close(listener);
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

START_TEST(nobody_there)
{
	char dir[PATH_MAX];
	struct control_answer a;
	struct err e = { 0 };

	new_dir(dir);
	if (_i)
		close(listen_on(dir)); /* a killed supervisor leaves its name */
	ck_assert_int_eq(control_ask(dir, 3, CONTROL_STATUS, 100, &a, NULL, NULL, &e), -ENOENT);
	ck_assert_int_eq(e.kind, ERR_ABSENT);
	ck_assert_str_eq(e.text, "nbd3 has no supervisor");
	/* The name can be taken. */
	close(listen_on(dir));
}
END_TEST

START_TEST(one_listens)
{
	char dir[PATH_MAX], path[PATH_MAX + 16];
	struct err e = { 0 };
	struct stat st;
	int listener;

	new_dir(dir);
	listener = listen_on(dir);
	snprintf(path, sizeof(path), "%s/nbd3.ctl", dir);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 0777, 0600);
	ck_assert_int_eq(control_listen(dir, 3, &e), -EADDRINUSE);
	close(listener);
	remove_from(dir);
	ck_assert_int_ne(stat(path, &st), 0);
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
		listen_on(dir);
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
	remove_from(dir);
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

START_TEST(silence_has_a_limit)
{
	char dir[PATH_MAX];
	struct control_answer a;
	struct err e = { 0 };
	int listener;

	new_dir(dir);
	listener = listen_on(dir);
	ck_assert_int_eq(control_ask(dir, 3, CONTROL_STATUS, 50, &a, NULL, NULL, &e), -ETIMEDOUT);
	close(listener);
}
END_TEST

/* Neither a word that is none nor one that does not come keeps the supervisor. */
START_TEST(nonsense_is_dropped)
{
	static const uint32_t words[] = { CONTROL_COMMANDS, UINT32_MAX };
	char dir[PATH_MAX];
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	enum control_command command;
	int listener, fd;

	new_dir(dir);
	listener = listen_on(dir);
	ck_assert_int_eq(control_accept(listener, &command), -EAGAIN);
	snprintf(a.sun_path, sizeof(a.sun_path), "%.80s/nbd3.ctl", dir);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	if (_i < 2)
		ck_assert_int_eq(send(fd, &words[_i], sizeof(words[_i]), MSG_NOSIGNAL), 4);
	else if (_i == 2)
		ck_assert_int_eq(send(fd, "x", 1, MSG_NOSIGNAL), 1);
	ck_assert_int_eq(control_accept(listener, &command), -EAGAIN);
	close(fd);
	close(listener);
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
	tcase_add_test(t, one_listens);
	tcase_add_test(t, the_end_is_seen);
	tcase_add_test(t, silence_has_a_limit);
	tcase_add_loop_test(t, nonsense_is_dropped, 0, 4);
	suite_add_tcase(s, t);
	return s;
}
