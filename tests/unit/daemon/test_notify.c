/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "daemon/notify.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../leak.h"
#include "../unit.h"

/* Address i of a manager, "" and the socket it listens on. */
static int manager(int i, char *address, size_t cap)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	socklen_t len;

	snprintf(address, cap, "%s/nbd-attach-notify.%d", i ? "@" : "/tmp", (int)getpid());
	strcpy(a.sun_path, address);
	len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(address));
	if (i)
		a.sun_path[0] = '\0';
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&a, len), 0);
	return fd;
}

static void expect_told(int fd, const char *text)
{
	char buf[2048] = "";
	ssize_t n = recv(fd, buf, sizeof(buf) - 1, 0);

	ck_assert_int_ge(n, 0);
	buf[n] = '\0';
	ck_assert_str_eq(buf, text);
	ck_assert_int_lt(recv(fd, buf, sizeof(buf), 0), 0);
}

START_TEST(is_told)
{
	unsigned before = leak_fds();
	char address[100], huge[4000];
	struct notify n;
	struct err e;
	int fd = manager(_i, address, sizeof(address));

	ck_assert_int_eq(notify_open(&n, address, NULL, NULL, getpid(), &e), 0);
	ck_assert_uint_eq(n.watchdog_ms, 0);
	notify_say(&n, "READY=1\nSTATUS=%s", "well");
	expect_told(fd, "READY=1\nSTATUS=well");
	/* cut, not overflown */
	memset(huge, 'x', sizeof(huge) - 1);
	huge[sizeof(huge) - 1] = '\0';
	notify_say(&n, "%s", huge);
	huge[1023] = '\0';
	expect_told(fd, huge);
	/* somebody else at the same address */
	close(fd);
	notify_say(&n, "lost");
	if (!_i)
		unlink(address);
	fd = manager(_i, address, sizeof(address));
	notify_say(&n, "STOPPING=1");
	expect_told(fd, "STOPPING=1");
	/* A manager that does not read does not hold us up. */
	for (int i = 0; i < 2000; i++)
		notify_say(&n, "WATCHDOG=1");
	notify_close(&n);
	close(fd);
	if (!_i)
		unlink(address);
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

START_TEST(nobody_wants_to_know)
{
	struct notify n;
	struct err e;

	ck_assert_int_eq(notify_open(&n, _i ? "" : NULL, "1000000", NULL, getpid(), &e), 0);
	ck_assert_int_eq(n.fd, -1);
	ck_assert_uint_eq(n.watchdog_ms, 0);
	notify_say(&n, "READY=1");
	notify_say(NULL, "READY=1");
	notify_close(&n);
}
END_TEST

static const struct {
	const char *usec, *pid;
	unsigned ms;
} watchdogs[] = {
	{ "3000000", NULL, 1500 },
	{ "3000000", "me", 1500 },
	{ "3000000", "1", 0 },
	{ "3000000", "many", 0 },
	{ NULL, "me", 0 },
	{ "1", NULL, 1 },
	{ "9000000000000000000", NULL, INT32_MAX },
};

START_TEST(watchdog)
{
	char address[100], me[20];
	const char *pid = watchdogs[_i].pid;
	struct notify n;
	struct err e;
	int fd = manager(1, address, sizeof(address));

	snprintf(me, sizeof(me), "%d", (int)getpid());
	if (pid && !strcmp(pid, "me"))
		pid = me;
	ck_assert_int_eq(notify_open(&n, address, watchdogs[_i].usec, pid, getpid(), &e), 0);
	ck_assert_uint_eq(n.watchdog_ms, watchdogs[_i].ms);
	notify_close(&n);
	close(fd);
}
END_TEST

START_TEST(what_cannot_be)
{
	unsigned before = leak_fds();
	char address[200];
	struct notify n;
	struct err e;
	int fd;

	ck_assert_int_eq(notify_open(&n, "vsock:2:1", NULL, NULL, 1, &e), -EAFNOSUPPORT);
	ck_assert_int_eq(e.kind, ERR_USAGE);
	ck_assert_int_eq(notify_open(&n, "/", NULL, NULL, 1, &e), -EAFNOSUPPORT);
	memset(address, 'a', sizeof(address));
	address[0] = '/';
	address[sizeof(n.to.sun_path)] = '\0';
	ck_assert_int_eq(notify_open(&n, address, NULL, NULL, 1, &e), -EAFNOSUPPORT);
	ck_assert_int_eq(notify_open(&n, "/no/such\033socket", NULL, NULL, 1, &e), -ENOENT);
	ck_assert_ptr_nonnull(strstr(e.text, "/no/such\\x1bsocket"));
	ck_assert_int_eq(n.fd, -1);
	fd = manager(1, address, sizeof(address));
	ck_assert_int_eq(notify_open(&n, address, "soon", NULL, 1, &e), -EINVAL);
	ck_assert_int_eq(n.fd, -1);
	close(fd);
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

/* What the manager got beside the text; -1: nothing. */
static int expect_stored(int fd, const char *text)
{
	union {
		char buf[CMSG_SPACE(4 * sizeof(int))];
		struct cmsghdr align;
	} control;
	char got[2048] = "";
	struct iovec iov = { .iov_base = got, .iov_len = sizeof(got) - 1 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf),
	};
	struct cmsghdr *c;
	int stored = -1;

	ck_assert_int_gt(recvmsg(fd, &msg, 0), 0);
	ck_assert_str_eq(got, text);
	c = CMSG_FIRSTHDR(&msg);
	if (c) {
		ck_assert_uint_eq(c->cmsg_len, CMSG_LEN(sizeof(stored)));
		memcpy(&stored, CMSG_DATA(c), sizeof(stored));
	}
	return stored;
}

START_TEST(descriptors_are_left_with_the_manager)
{
	unsigned before = leak_fds();
	char address[100];
	struct notify n;
	struct err e;
	int fd, pair[2], stored;
	char c;

	fd = manager(1, address, sizeof(address));
	ck_assert_int_eq(notify_open(&n, address, NULL, NULL, getpid(), &e), 0);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	notify_store(&n, "nbd0-1-0", pair[0]);
	stored = expect_stored(fd, "FDSTORE=1\nFDNAME=nbd0-1-0");
	ck_assert_int_ge(stored, 0);
	/* It is that socket. */
	close(pair[0]);
	ck_assert_int_eq(write(stored, "x", 1), 1);
	ck_assert_int_eq(read(pair[1], &c, 1), 1);
	close(stored);
	close(pair[1]);
	notify_unstore(&n, "nbd0-1-0");
	ck_assert_int_eq(expect_stored(fd, "FDSTOREREMOVE=1\nFDNAME=nbd0-1-0"), -1);
	notify_close(&n);
	/* Without a manager nothing happens. */
	notify_store(&n, "nbd0-1-0", 0);
	notify_store(NULL, "nbd0-1-0", 0);
	notify_drop_stored(NULL);
	close(fd);
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

/* Descriptors first to first + count - 1, as a manager passes them on. */
static int pass_on(int count)
{
	enum { FIRST = 100 };

	for (int i = 0; i < count; i++)
		ck_assert_int_eq(dup2(0, FIRST + i), FIRST + i);
	return FIRST;
}

START_TEST(descriptors_come_back)
{
	unsigned before = leak_fds();
	char address[100], me[20];
	struct notify n;
	struct err e;
	int fd = manager(1, address, sizeof(address)), first;

	snprintf(me, sizeof(me), "%d", (int)getpid());
	ck_assert_int_eq(notify_open(&n, address, NULL, NULL, getpid(), &e), 0);
	first = pass_on(4);
	notify_take_stored(&n, first, "4", "one:two:three:two", me, getpid());
	ck_assert_int_eq(fcntl(first, F_GETFD), FD_CLOEXEC);
	ck_assert_int_eq(notify_claim(&n, "three"), first + 2);
	ck_assert_int_eq(notify_claim(&n, "three"), -1);
	ck_assert_int_eq(notify_claim(&n, "one"), first);
	ck_assert_int_eq(notify_claim(&n, ""), -1);
	close(first);
	close(first + 2);
	notify_drop_stored(&n);
	ck_assert_int_eq(expect_stored(fd, "FDSTOREREMOVE=1\nFDNAME=two"), -1);
	ck_assert_int_eq(expect_stored(fd, "FDSTOREREMOVE=1\nFDNAME=two"), -1);
	/* Those that nobody has asked for are closed at the end, too. */
	first = pass_on(2);
	notify_take_stored(&n, first, "2", "one:two", me, getpid());
	notify_close(&n);
	close(fd);
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

static const struct {
	const char *count, *names, *pid;
	unsigned taken;
} passed[] = {
	{ "2", "a:b", "me", 2 },
	{ "2", "a", "me", 2 },
	{ "2", "a:b:c", "me", 2 },
	{ "1", "a:b", "me", 1 },
	{ "2", "a:b", "1", 0 },
	{ "2", "a:b", "", 0 },
	{ "2", "a:b", NULL, 0 },
	{ "2", NULL, "me", 0 },
	{ NULL, "a:b", "me", 0 },
	{ "0", "a:b", "me", 0 },
	{ "-2", "a:b", "me", 0 },
	{ "many", "a:b", "me", 0 },
	/* more than there are */
	{ "9", "a:b:c:d:e:f:g:h:i", "me", 2 },
	{ "2", "a:0123456789012345678901234567890123456789012345678901234567890123456789", "me",
	  1 },
};

START_TEST(what_is_passed_on)
{
	const char *pid = passed[_i].pid;
	char me[20];
	struct notify n;
	struct err e;
	int first;

	snprintf(me, sizeof(me), "%d", (int)getpid());
	ck_assert_int_eq(notify_open(&n, NULL, NULL, NULL, getpid(), &e), 0);
	first = pass_on(2);
	notify_take_stored(&n, first, passed[_i].count, passed[_i].names,
			   pid && !strcmp(pid, "me") ? me : pid, getpid());
	ck_assert_uint_eq(n.stored_count, passed[_i].taken);
	notify_close(&n);
}
END_TEST

START_TEST(more_than_there_is_room_for)
{
	enum { COUNT = NOTIFY_STORED_MAX + 3 };
	unsigned before = leak_fds();
	char me[20];
	struct notify n;
	struct err e;
	int first;

	snprintf(me, sizeof(me), "%d", (int)getpid());
	ck_assert_int_eq(notify_open(&n, NULL, NULL, NULL, getpid(), &e), 0);
	first = pass_on(COUNT);
	notify_take_stored(&n, first, "67", "a:a", me, getpid());
	ck_assert_uint_eq(n.stored_count, NOTIFY_STORED_MAX);
	notify_drop_stored(&n);
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *suite = suite_create("notify");
	TCase *tc = tcase_create("notify");

	tcase_add_loop_test(tc, is_told, 0, 2);
	tcase_add_loop_test(tc, nobody_wants_to_know, 0, 2);
	tcase_add_loop_test(tc, watchdog, 0, sizeof(watchdogs) / sizeof(watchdogs[0]));
	tcase_add_test(tc, what_cannot_be);
	tcase_add_test(tc, descriptors_are_left_with_the_manager);
	tcase_add_test(tc, descriptors_come_back);
	tcase_add_loop_test(tc, what_is_passed_on, 0, sizeof(passed) / sizeof(passed[0]));
	tcase_add_test(tc, more_than_there_is_room_for);
	suite_add_tcase(suite, tc);
	return suite;
}
