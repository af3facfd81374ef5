/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "net/msg.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "../leak.h"
#include "../unit.h"
#include "net/blocking_child.h"

enum {
	SOON_MS = 20000, /* limit for what comes at once, on the busiest machine */
	SHORT_MS = 60,   /* limit that is to be reached */
	KERNEL_FDS_MAX = 253,
};

/* A struct that has grown: c was added by the second version. */
struct note {
	uint32_t a, b, c;
};

enum { FIRST_VERSION = offsetof(struct note, c) };

static const struct note example = { 1, 2, 3 };

/* Both ends of a socket, and how many descriptors there were before. */
struct pair {
	int fd[2];
	unsigned fds_before;
};

static void pair_open(struct pair *p)
{
	p->fds_before = leak_fds();
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, p->fd), 0);
}

static void pair_close(const struct pair *p)
{
	msg_close_fds(p->fd, 2);
	ck_assert_uint_eq(leak_fds(), p->fds_before);
}

/* Accepts exactly a note and up to fds_max descriptors. */
static struct msg_in note_in(struct note *note, int *fds, unsigned fds_max)
{
	memset(note, 0x5a, sizeof(*note));
	return (struct msg_in){
		.data = note,
		.size = sizeof(*note),
		.min = sizeof(*note),
		.max = sizeof(*note),
		.fds = fds,
		.fds_max = fds_max,
		.count = 4711,
	};
}

/* Sends count times the descriptor fd, more than msg_send would. */
static void send_many(int to, const void *data, size_t size, int fd, unsigned count)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)data, .iov_len = size };
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(KERNEL_FDS_MAX * sizeof(int))];
	} control = { 0 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = CMSG_SPACE(count * sizeof(int)),
	};

	control.align.cmsg_level = SOL_SOCKET;
	control.align.cmsg_type = SCM_RIGHTS;
	control.align.cmsg_len = CMSG_LEN(count * sizeof(int));
	for (unsigned i = 0; i < count; i++)
		memcpy(CMSG_DATA(&control.align) + i * sizeof(fd), &fd, sizeof(fd));
	ck_assert_int_eq(sendmsg(to, &msg, MSG_NOSIGNAL), (ssize_t)size);
}

static bool is_same_file(int a, int b)
{
	struct stat x, y;

	return !fstat(a, &x) && !fstat(b, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* --- descriptors ------------------------------------------------------------------------------ */

START_TEST(struct_and_descriptors)
{
	static const unsigned counts[] = { 0, 1, 2, 3, MSG_FDS_MAX };
	const unsigned count = counts[_i];
	int sent[MSG_FDS_MAX], fds[MSG_FDS_MAX], pipes[2];
	struct note note;
	struct msg_in in = note_in(&note, fds, MSG_FDS_MAX);
	struct pair p;

	pair_open(&p);
	ck_assert_int_eq(pipe(pipes), 0);
	for (unsigned i = 0; i < count; i++)
		sent[i] = i % 2 ? pipes[0] : p.fd[0];
	ck_assert_int_eq(msg_send(p.fd[0], &example, sizeof(example), sent, count, 0), 0);
	ck_assert_int_eq(msg_receive(p.fd[1], &in, 0), 0);
	ck_assert_mem_eq(&note, &example, sizeof(note));
	ck_assert_uint_eq(in.count, count);
	for (unsigned i = 0; i < count; i++) {
		ck_assert(is_same_file(fds[i], sent[i]));
		ck_assert(fcntl(fds[i], F_GETFD) & FD_CLOEXEC);
	}
	msg_close_fds(fds, in.count);
	msg_close_fds(pipes, 2);
	pair_close(&p);
}
END_TEST

/* The padding of a control message has room for one more than an odd number of descriptors. */
START_TEST(more_descriptors_than_wanted)
{
	static const unsigned rows[][2] = {
		{ 1, 2 },
		{ 1, 3 },
		{ 2, 3 },
		{ 3, 4 },
		{ 2, KERNEL_FDS_MAX },
		{ MSG_FDS_MAX, MSG_FDS_MAX + 1 },
	};
	int fds[MSG_FDS_MAX];
	struct note note;
	struct msg_in in = note_in(&note, fds, rows[_i][0]);
	struct pair p;

	pair_open(&p);
	send_many(p.fd[0], &example, sizeof(example), p.fd[0], rows[_i][1]);
	ck_assert_int_eq(msg_receive(p.fd[1], &in, 0), -EMSGSIZE);
	ck_assert_uint_eq(in.count, 0);
	/* The next message is not harmed. */
	ck_assert_int_eq(msg_send(p.fd[0], &example, sizeof(example), NULL, 0, 0), 0);
	ck_assert_int_eq(msg_receive(p.fd[1], &in, 0), 0);
	ck_assert_mem_eq(&note, &example, sizeof(note));
	pair_close(&p);
}
END_TEST

START_TEST(unwanted_descriptors_are_dropped)
{
	struct note note;
	struct msg_in in = note_in(&note, NULL, 0);
	struct pair p;

	pair_open(&p);
	send_many(p.fd[0], &example, sizeof(example), p.fd[0], 5);
	ck_assert_int_eq(msg_receive(p.fd[1], &in, 0), 0);
	ck_assert_uint_eq(in.count, 0);
	ck_assert_mem_eq(&note, &example, sizeof(note));
	pair_close(&p);
}
END_TEST

/* A receiver that has no room for all of them gets none. */
START_TEST(no_room_for_descriptors)
{
	int fds[MSG_FDS_MAX];
	struct note note;
	struct msg_in in = note_in(&note, fds, MSG_FDS_MAX);
	struct rlimit old, low;
	struct pair p;
	int ret;

	pair_open(&p);
	send_many(p.fd[0], &example, sizeof(example), p.fd[0], 4);
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
	low = old;
	low.rlim_cur = (rlim_t)p.fd[1] + 3;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
	ret = msg_receive(p.fd[1], &in, 0);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
	ck_assert_int_eq(ret, -EMSGSIZE);
	ck_assert_uint_eq(in.count, 0);
	pair_close(&p);
}
END_TEST

/* Credentials come beside a message when the receiver has asked for them, which no caller does. */
START_TEST(something_else_beside_it)
{
	static const int on = 1;
	int fds[4];
	struct note note;
	struct msg_in in = note_in(&note, fds, 4);
	struct pair p;

	pair_open(&p);
	ck_assert_int_eq(setsockopt(p.fd[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)), 0);
	ck_assert_int_eq(msg_send(p.fd[0], &example, sizeof(example), p.fd, 2, 0), 0);
	ck_assert_int_eq(msg_receive(p.fd[1], &in, 0), -EMSGSIZE);
	ck_assert_uint_eq(in.count, 0);
	pair_close(&p);
}
END_TEST

START_TEST(too_many_to_be_sent)
{
	static const int fds[MSG_FDS_MAX + 1];
	struct note note;
	struct msg_in in = note_in(&note, NULL, 0);
	struct pair p;

	pair_open(&p);
	ck_assert_int_eq(msg_send(p.fd[0], &example, sizeof(example), fds, MSG_FDS_MAX + 1, 0),
			 -EINVAL);
	ck_assert_int_eq(msg_send(p.fd[0], &example, sizeof(example), (int[]){ -1 }, 1, 0), -EBADF);
	ck_assert_int_eq(msg_receive(p.fd[1], &in, 0), -EAGAIN);
	pair_close(&p);
}
END_TEST

/* --- length ----------------------------------------------------------------------------------- */

START_TEST(length)
{
	static const struct {
		size_t min, max, sent;
		int ret;
		struct note note;
	} rows[] = {
		/* Both ends are one program. */
		{ 12, 12, 12, 0, { 1, 2, 3 } },
		{ 12, 12, 11, -EMSGSIZE, { 0 } },
		{ 12, 12, 13, -EMSGSIZE, { 0 } },
		{ 12, 12, 4096, -EMSGSIZE, { 0 } },
		{ 12, 12, 1, -EMSGSIZE, { 0 } },
		/* The sender is older, as old, newer, or none. */
		{ FIRST_VERSION, SIZE_MAX, FIRST_VERSION, 0, { 1, 2, 0 } },
		{ FIRST_VERSION, SIZE_MAX, 12, 0, { 1, 2, 3 } },
		{ FIRST_VERSION, SIZE_MAX, 16, 0, { 1, 2, 3 } },
		{ FIRST_VERSION, SIZE_MAX, 4096, 0, { 1, 2, 3 } },
		{ FIRST_VERSION, SIZE_MAX, FIRST_VERSION - 1, -EMSGSIZE, { 0 } },
	};
	char message[4096];
	int fds[2];
	/* What is behind the struct stays as it is. */
	struct note notes[2];
	struct msg_in in = note_in(&notes[0], fds, 2);
	struct pair p;

	pair_open(&p);
	memset(notes, 0x5a, sizeof(notes));
	memset(message, 0x7e, sizeof(message));
	memcpy(message, &example, sizeof(example));
	in.min = rows[_i].min;
	in.max = rows[_i].max;
	ck_assert_int_eq(msg_send(p.fd[0], message, rows[_i].sent, p.fd, 2, 0), 0);
	ck_assert_int_eq(msg_receive(p.fd[1], &in, 0), rows[_i].ret);
	ck_assert_uint_eq(in.count, rows[_i].ret ? 0 : 2);
	if (!rows[_i].ret)
		ck_assert_mem_eq(&notes[0], &rows[_i].note, sizeof(notes[0]));
	ck_assert_uint_eq(notes[1].a, 0x5a5a5a5a);
	msg_close_fds(fds, in.count);
	pair_close(&p);
}
END_TEST

/* --- the end, and time ------------------------------------------------------------------------ */

START_TEST(other_end_is_closed)
{
	int fds[2];
	struct note note;
	struct msg_in in = note_in(&note, fds, 2);
	struct pair p;

	pair_open(&p);
	ck_assert_int_eq(msg_send(p.fd[0], &example, sizeof(example), NULL, 0, 0), 0);
	close(p.fd[0]);
	/* What was sent before is still there. */
	ck_assert_int_eq(msg_receive(p.fd[1], &in, -1), 0);
	ck_assert_int_eq(msg_receive(p.fd[1], &in, -1), -EPIPE);
	ck_assert_uint_eq(in.count, 0);
	ck_assert_int_eq(msg_send(p.fd[1], &example, sizeof(example), NULL, 0, -1), -EPIPE);
	close(p.fd[1]);
	ck_assert_int_eq(msg_receive(p.fd[1], &in, -1), -EBADF);
	ck_assert_uint_eq(leak_fds(), p.fds_before);
}
END_TEST

/* A message of no bytes cannot be told from the end; its descriptors are closed. */
START_TEST(message_without_bytes)
{
	int fds[2];
	struct note note;
	struct msg_in in = note_in(&note, fds, 2);
	struct pair p;

	pair_open(&p);
	in.min = 0;
	send_many(p.fd[0], &example, 0, p.fd[0], 2);
	ck_assert_int_eq(msg_receive(p.fd[1], &in, 0), -EPIPE);
	ck_assert_uint_eq(in.count, 0);
	pair_close(&p);
}
END_TEST

static void on_alarm(int signal)
{
	(void)signal;
}

/* Signals that interrupt every call, beginning soon. */
static void interrupt_often(void)
{
	const struct sigaction sa = { .sa_handler = on_alarm };
	const struct itimerval often = { { 0, 5000 }, { 0, 5000 } };

	ck_assert_int_eq(sigaction(SIGALRM, &sa, NULL), 0);
	ck_assert_int_eq(setitimer(ITIMER_REAL, &often, NULL), 0);
}

static void interrupt_no_more(void)
{
	static const struct itimerval never;

	ck_assert_int_eq(setitimer(ITIMER_REAL, &never, NULL), 0);
}

START_TEST(nothing_comes)
{
	struct note note;
	struct msg_in in = note_in(&note, NULL, 0);
	long long began;
	struct pair p;

	pair_open(&p);
	ck_assert_int_eq(msg_receive(p.fd[1], &in, 0), -EAGAIN);
	interrupt_often();
	began = monotonic_ms();
	ck_assert_int_eq(msg_receive(p.fd[1], &in, SHORT_MS), -EAGAIN);
	ck_assert_int_ge(monotonic_ms() - began, SHORT_MS);
	ck_assert_int_lt(monotonic_ms() - began, SOON_MS);
	interrupt_no_more();
	pair_close(&p);
}
END_TEST

/* Waits, with a limit and without, also where signals interrupt it. */
START_TEST(comes_late)
{
	struct note note;
	struct msg_in in = note_in(&note, NULL, 0);
	struct pair p;
	pid_t pid;

	pair_open(&p);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (!pid) {
		usleep(2 * SHORT_MS * 1000);
		_exit(msg_send(p.fd[0], &example, sizeof(example), NULL, 0, 0) != 0);
	}
	interrupt_often();
	ck_assert_int_eq(msg_receive(p.fd[1], &in, _i ? SOON_MS : -1), 0);
	interrupt_no_more();
	ck_assert_mem_eq(&note, &example, sizeof(note));
	waitpid(pid, NULL, 0);
	pair_close(&p);
}
END_TEST

/* A receiver that does not read holds up the sender as long as that wants, and no longer. */
START_TEST(no_room_for_messages)
{
	static char big[4096];
	char got[sizeof(big)];
	struct msg_in in = { .data = got, .size = sizeof(got), .min = 1, .max = sizeof(got) };
	unsigned sent = 0, received = 0;
	long long began;
	struct pair p;
	pid_t pid;
	int ret;

	pair_open(&p);
	while (!(ret = msg_send(p.fd[0], big, sizeof(big), NULL, 0, 0)))
		ck_assert_uint_lt(++sent, 100000);
	ck_assert_int_eq(ret, -EAGAIN);
	interrupt_often();
	began = monotonic_ms();
	ck_assert_int_eq(msg_send(p.fd[0], big, sizeof(big), NULL, 0, SHORT_MS), -EAGAIN);
	ck_assert_int_ge(monotonic_ms() - began, SHORT_MS);
	interrupt_no_more();
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (!pid) {
		interrupt_often();
		ret = msg_send(p.fd[0], big, sizeof(big), NULL, 0, _i ? SOON_MS : -1);
		_exit(ret != 0);
	}
	usleep(SHORT_MS * 1000);
	while (received <= sent && !msg_receive(p.fd[1], &in, SOON_MS))
		received++;
	ck_assert_uint_eq(received, sent + 1);
	ck_assert_int_eq(waitpid(pid, &ret, 0), pid);
	ck_assert_int_eq(ret, 0);
	pair_close(&p);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("msg");
	TCase *t = tcase_create("descriptors");

	tcase_add_loop_test(t, struct_and_descriptors, 0, 5);
	tcase_add_loop_test(t, more_descriptors_than_wanted, 0, 6);
	tcase_add_test(t, unwanted_descriptors_are_dropped);
	/* valgrind keeps descriptors of its own above the limit. */
	if (!unit_under_valgrind())
		tcase_add_test(t, no_room_for_descriptors);
	tcase_add_test(t, something_else_beside_it);
	tcase_add_test(t, too_many_to_be_sent);
	suite_add_tcase(s, t);
	t = tcase_create("length");
	tcase_add_loop_test(t, length, 0, 10);
	suite_add_tcase(s, t);
	t = tcase_create("end and time");
	tcase_set_timeout(t, 60);
	tcase_add_test(t, other_end_is_closed);
	tcase_add_test(t, message_without_bytes);
	tcase_add_test(t, nothing_comes);
	tcase_add_loop_test(t, comes_late, 0, 2);
	tcase_add_loop_test(t, no_room_for_messages, 0, 2);
	suite_add_tcase(s, t);
	return s;
}
