/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * On loopback connections. A kernel without CONFIG_INET_DIAG_DESTROY, and a process without
 * CAP_NET_ADMIN, destroy nothing: then only that is seen.
 */
#include "kernel/sockdiag.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../leak.h"
#include "../loopback.h"
#include "../unit.h"

/* fd[0] is ours, fd[1] the peer's; false where this machine has no such transport. */
static bool connected(sa_family_t family, int fd[2])
{
	struct loopback l;

	if (!loopback_try(&l, family, 4))
		return false;
	fd[0] = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(connect(fd[0], &l.address.sa, resolve_length(&l.address)), 0);
	fd[1] = accept(l.fd, NULL, NULL);
	ck_assert_int_ge(fd[1], 0);
	close(l.fd);
	return true;
}

/* -1: this kernel does not do it. */
static int opened(void)
{
	struct err e = { 0 };
	int diag = sockdiag_open(&e);

	if (diag < 0) {
		ck_assert_int_eq(e.kind, ERR_KERNEL);
		ck_assert_ptr_nonnull(strstr(e.text, "connections"));
	}
	return diag;
}

START_TEST(destroys_that_connection_only)
{
	static const sa_family_t families[] = { AF_INET, AF_INET6 };
	unsigned before = leak_fds();
	struct err e = { 0 };
	struct pollfd p = { .events = POLLRDHUP };
	int diag = opened(), fd[2], other[2], ret;
	char c;

	if (diag < 0 || !connected(families[_i], fd) || !connected(families[_i], other))
		return;
	ret = sockdiag_destroy(diag, fd[0], &e);
	p.fd = fd[1];
	if (ret == -EPERM) {
		ck_assert_int_eq(poll(&p, 1, 100), 0);
	} else {
		ck_assert_msg(!ret, "%s", e.text);
		ck_assert_int_eq(poll(&p, 1, 10000), 1);
		ck_assert_int_eq(recv(fd[1], &c, 1, 0), -1);
		ck_assert_int_eq(errno, ECONNRESET);
		ck_assert_int_eq(sockdiag_destroy(diag, fd[0], &e), -ENOENT);
	}
	p.fd = other[1];
	ck_assert_int_eq(poll(&p, 1, 100), 0);
	for (int i = 0; i < 2; i++) {
		close(fd[i]);
		close(other[i]);
	}
	close(diag);
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

START_TEST(what_is_no_connection)
{
	struct err e = { 0 };
	int fd[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
	ck_assert_int_eq(sockdiag_destroy(-1, fd[0], &e), -EPROTONOSUPPORT);
	close(fd[0]);
	close(fd[1]);
	ck_assert_int_eq(sockdiag_destroy(-1, fd[0], &e), -EBADF);
	fd[0] = socket(AF_INET, SOCK_STREAM, 0);
	ck_assert_int_eq(sockdiag_destroy(-1, fd[0], &e), -ENOENT);
	close(fd[0]);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("sockdiag");
	TCase *t = tcase_create("sockdiag");

	tcase_add_loop_test(t, destroys_that_connection_only, 0, 2);
	tcase_add_test(t, what_is_no_connection);
	suite_add_tcase(s, t);
	return s;
}
