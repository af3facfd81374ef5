/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/* The table; connecting to its addresses is in test_dial.c, to vsock in tests/vm/vsock.sh. */
#include "net/transport.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../leak.h"
#include "../loopback.h"
#include "../unit.h"

/* NULL: a name, which has to be looked up. */
static const struct {
	const char *uri, *shown;
	sa_family_t family;
	bool by_path, names_host, needs_relay;
} table[] = {
	{ "nbd://192.0.2.7:1/x", "192.0.2.7:1", AF_INET, false, true, false },
	{ "nbds://[2001:db8::7]/x", "[2001:db8::7]:10809", AF_INET6, false, true, false },
	{ "nbd://localhost/x", NULL, AF_INET, false, true, false },
	{ "nbd+unix:///x?socket=/run/s", "Unix socket /run/s", AF_UNIX, true, false, false },
	{ "nbds+unix:///x?socket=/a%0Ab", "Unix socket /a\\x0ab", AF_UNIX, true, false, false },
	{ "nbd+vsock://2:7/x", "vsock:2:7", AF_VSOCK, false, false, true },
	{ "nbds+vsock://4294967294:4294967294/", "vsock:4294967294:4294967294", AF_VSOCK, false,
	  false, true },
};

START_TEST(rows)
{
	struct err e = { 0 };
	struct uri u;
	const struct transport *t;

	ck_assert_msg(!uri_parse(&u, table[_i].uri, &e), "%s", e.text);
	t = transport_of(&u);
	ck_assert_int_eq(t->by_path, table[_i].by_path);
	ck_assert_int_eq(t->names_host, table[_i].names_host);
	ck_assert_int_eq(t->needs_relay, table[_i].needs_relay);
	ck_assert_ptr_eq(transport_of_family(table[_i].family), t);
}
END_TEST

START_TEST(addresses)
{
	char shown[TRANSPORT_TEXT_MAX];
	struct resolve_result r;
	struct err e = { 0 };
	struct uri u;

	ck_assert_int_eq(uri_parse(&u, table[_i].uri, &e), 0);
	ck_assert_int_eq(transport_of(&u)->find_addresses(&u, &r), table[_i].shown != NULL);
	if (!table[_i].shown)
		return;
	ck_assert_uint_eq(r.count, 1);
	ck_assert_int_eq(r.address[0].sa.sa_family, table[_i].family);
	transport_of(&u)->describe(&r.address[0], shown, sizeof(shown));
	ck_assert_str_eq(shown, table[_i].shown);
}
END_TEST

START_TEST(longest_path)
{
	char path[sizeof(((struct sockaddr_un *)0)->sun_path) + 1], shown[TRANSPORT_TEXT_MAX];
	union resolve_address a;
	struct err e = { 0 };

	memset(path, '\n', sizeof(path));
	path[sizeof(path) - 1] = '\0';
	ck_assert_int_eq(transport_unix_address(path, &a, &e), -ENAMETOOLONG);
	ck_assert_int_eq(e.kind, ERR_USAGE);
	path[sizeof(path) - 2] = '\0';
	ck_assert_int_eq(transport_unix_address(path, &a, &e), 0);
	ck_assert_str_eq(a.un.sun_path, path);
	transport_of_family(AF_UNIX)->describe(&a, shown, sizeof(shown));
	ck_assert_uint_eq(strlen(shown), strlen("Unix socket ") + 4 * strlen(path));
}
END_TEST

START_TEST(families_of_nobody)
{
	ck_assert_ptr_null(transport_of_family(AF_UNSPEC));
	ck_assert_ptr_null(transport_of_family(AF_PACKET));
}
END_TEST

/* --- the other end ---------------------------------------------------------------------------- */

START_TEST(peer_with_an_address)
{
	struct loopback l;
	char peer[80];
	int fd;

	if (!loopback_try(&l, _i ? AF_INET6 : AF_INET, 4))
		return;
	fd = socket(l.address.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(connect(fd, &l.address.sa, resolve_length(&l.address)), 0);
	transport_peer_name(fd, peer, sizeof(peer));
	ck_assert_str_eq(peer, l.text);
	close(fd);
	close(l.fd);
}
END_TEST

START_TEST(peer_that_has_no_address)
{
	char peer[80];
	int fds[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	transport_peer_name(fds[0], peer, sizeof(peer));
	ck_assert_str_eq(peer, "local");
	close(fds[0]);
	close(fds[1]);
	ck_assert_int_eq(pipe(fds), 0);
	transport_peer_name(fds[0], peer, sizeof(peer));
	ck_assert_str_eq(peer, "local");
	close(fds[0]);
	close(fds[1]);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("transport");
	TCase *t = tcase_create("table");

	tcase_add_loop_test(t, rows, 0, 7);
	tcase_add_loop_test(t, addresses, 0, 7);
	tcase_add_test(t, longest_path);
	tcase_add_test(t, families_of_nobody);
	suite_add_tcase(s, t);

	t = tcase_create("peer");
	tcase_add_loop_test(t, peer_with_an_address, 0, 2);
	tcase_add_test(t, peer_that_has_no_address);
	suite_add_tcase(s, t);
	return s;
}
