/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "daemon/notify.h"

#include <errno.h>
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

Suite *unit_suite(void)
{
	Suite *suite = suite_create("notify");
	TCase *tc = tcase_create("notify");

	tcase_add_loop_test(tc, is_told, 0, 2);
	tcase_add_loop_test(tc, nobody_wants_to_know, 0, 2);
	tcase_add_loop_test(tc, watchdog, 0, sizeof(watchdogs) / sizeof(watchdogs[0]));
	tcase_add_test(tc, what_cannot_be);
	suite_add_tcase(suite, tc);
	return suite;
}
