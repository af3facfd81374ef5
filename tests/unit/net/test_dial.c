/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "net/dial.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../leak.h"
#include "../loopback.h"
#include "net/blocking_child.h"
#include "net/transport.h"
#include "../tree.h"
#include "../unit.h"

enum { SOON_MS = 20000, HELD = 16 };

/* --- several addresses ------------------------------------------------------------------------ */

static void targets(struct dial *d, const struct loopback *const *l, unsigned count)
{
	struct resolve_result r = { .count = count };

	for (unsigned i = 0; i < count; i++)
		r.address[i] = l[i]->address;
	dial_init(d, &r);
}

/* Steps until there is an answer, the clock standing still at now. */
static int dial_at(struct dial *d, long long now, struct err *e)
{
	long long limit = monotonic_ms() + SOON_MS;
	struct pollfd p[RESOLVE_MAX];
	int ret;

	while ((ret = dial_step(d, now, e)) == -EAGAIN && monotonic_ms() < limit) {
		int timeout_ms;
		unsigned n = dial_poll(d, now, p, RESOLVE_MAX, &timeout_ms);

		ck_assert_uint_ge(n, 1);
		poll(p, n, 10);
	}
	return ret;
}

static void expect_connected(int fd, const struct loopback *l)
{
	char peer[80];

	ck_assert_int_ge(fd, 0);
	ck_assert(fcntl(fd, F_GETFL) & O_NONBLOCK);
	ck_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	transport_peer_name(fd, peer, sizeof(peer));
	ck_assert_str_eq(peer, l->text);
}

START_TEST(one_that_answers)
{
	unsigned before = leak_fds();
	struct loopback l;
	struct dial d;
	struct err e = { 0 };
	int fd, other;
	char c;

	loopback_open(&l, 4);
	targets(&d, (const struct loopback *[]){ &l }, 1);
	fd = dial_at(&d, 0, &e);
	expect_connected(fd, &l);
	other = accept(l.fd, NULL, NULL);
	ck_assert_int_ge(other, 0);
	ck_assert_int_eq(write(fd, "x", 1), 1);
	ck_assert_int_eq(read(other, &c, 1), 1);
	ck_assert_int_eq(c, 'x');
	close(other);
	close(fd);
	close(l.fd);
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

START_TEST(one_that_refuses)
{
	unsigned before = leak_fds();
	struct loopback l;
	struct dial d;
	struct err e = { 0 };
	char expected[128];

	loopback_open(&l, LOOPBACK_REFUSE);
	targets(&d, (const struct loopback *[]){ &l }, 1);
	ck_assert_int_eq(dial_at(&d, 0, &e), -ECONNREFUSED);
	ck_assert_int_eq(e.kind, ERR_UNREACHABLE);
	snprintf(expected, sizeof(expected), "connect to %s: Connection refused", l.text);
	ck_assert_str_eq(e.text, expected);
	close(l.fd);
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

/* Where one has failed in another way nobody knows that no server is there. */
START_TEST(refused_by_all_or_not)
{
	struct loopback l;
	struct dial d;
	struct err e = { 0 };

	loopback_open(&l, LOOPBACK_REFUSE);
	targets(&d, (const struct loopback *[]){ &l, &l }, 2);
	ck_assert_int_eq(dial_at(&d, 0, &e), -ECONNREFUSED);
	for (unsigned odd = 0; odd < 2; odd++) {
		targets(&d, (const struct loopback *[]){ &l, &l }, 2);
		/* without SO_BROADCAST: EACCES, or there is no route */
		d.addresses.address[odd].v4.sin_addr.s_addr = INADDR_BROADCAST;
		ck_assert_int_ne(dial_at(&d, 0, &e), -ECONNREFUSED);
		ck_assert((strstr(e.text, "Connection refused") != NULL) == !odd);
	}
	close(l.fd);
}
END_TEST

/* RFC 8305 section 5: the second address gets its turn after the delay, and not before. */
START_TEST(silence_lets_the_next_begin_after_the_delay)
{
	unsigned before = leak_fds(), held_count;
	struct loopback dead, alive;
	int held[HELD], timeout_ms, fd;
	struct pollfd p[RESOLVE_MAX];
	const long long start = 1000000;
	struct dial d;
	struct err e = { 0 };

	loopback_open(&dead, 0);
	loopback_open(&alive, 4);
	held_count = loopback_fill(&dead, held, HELD);
	targets(&d, (const struct loopback *[]){ &dead, &alive }, 2);

	ck_assert_int_eq(dial_step(&d, start, &e), -EAGAIN);
	ck_assert_uint_eq(dial_poll(&d, start, p, RESOLVE_MAX, &timeout_ms), 1);
	ck_assert_int_eq(p[0].events, POLLOUT);
	ck_assert_int_eq(timeout_ms, 250);
	ck_assert_int_eq(dial_step(&d, start + 249, &e), -EAGAIN);
	ck_assert_uint_eq(dial_poll(&d, start + 249, p, RESOLVE_MAX, &timeout_ms), 1);
	ck_assert_int_eq(timeout_ms, 1);
	ck_assert_uint_eq(dial_poll(&d, start + 300, p, RESOLVE_MAX, &timeout_ms), 1);
	ck_assert_int_eq(timeout_ms, 0);
	fd = dial_at(&d, start + 250, &e);
	expect_connected(fd, &alive);
	close(fd);
	loopback_drop(held, held_count);
	close(dead.fd);
	close(alive.fd);
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

START_TEST(silence_by_the_clock)
{
	struct loopback dead, alive;
	unsigned held_count;
	struct dial d;
	struct err e = { 0 };
	long long start;
	int held[HELD], fd;

	loopback_open(&dead, 0);
	loopback_open(&alive, 4);
	held_count = loopback_fill(&dead, held, HELD);
	targets(&d, (const struct loopback *[]){ &dead, &alive }, 2);
	start = monotonic_ms();
	while ((fd = dial_step(&d, monotonic_ms(), &e)) == -EAGAIN) {
		struct pollfd p[RESOLVE_MAX];
		int timeout_ms;
		unsigned n = dial_poll(&d, monotonic_ms(), p, RESOLVE_MAX, &timeout_ms);

		ck_assert_int_lt(monotonic_ms() - start, SOON_MS);
		poll(p, n, timeout_ms);
	}
	expect_connected(fd, &alive);
	ck_assert_int_ge(monotonic_ms() - start, DIAL_STAGGER_MS);
	/* not by any retransmission to the first */
	ck_assert_int_lt(monotonic_ms() - start, 1500);
	close(fd);
	loopback_drop(held, held_count);
	close(dead.fd);
	close(alive.fd);
}
END_TEST

START_TEST(silence_everywhere_leaves_nothing_to_wait_for)
{
	unsigned before = leak_fds(), held_count;
	struct pollfd p[RESOLVE_MAX];
	struct dial d;
	struct loopback dead;
	struct err e = { 0 };
	int held[HELD], timeout_ms;

	loopback_open(&dead, 0);
	held_count = loopback_fill(&dead, held, HELD);
	targets(&d, (const struct loopback *[]){ &dead, &dead, &dead }, 3);
	ck_assert_int_eq(dial_step(&d, 0, &e), -EAGAIN);
	ck_assert_int_eq(dial_step(&d, 250, &e), -EAGAIN);
	ck_assert_int_eq(dial_step(&d, 500, &e), -EAGAIN);
	ck_assert_uint_eq(dial_poll(&d, 500, p, RESOLVE_MAX, &timeout_ms), 3);
	ck_assert_int_eq(timeout_ms, -1);
	/* never more than there is room for */
	ck_assert_uint_eq(dial_poll(&d, 500, p, 2, &timeout_ms), 2);
	dial_cancel(&d);
	ck_assert_uint_eq(dial_poll(&d, 500, p, RESOLVE_MAX, &timeout_ms), 0);
	/* twice is as good as once */
	dial_cancel(&d);
	loopback_drop(held, held_count);
	close(dead.fd);
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

/* The clock stands still: had a refusal to wait for the delay, there would be no end. */
START_TEST(refusal_lets_the_next_begin_at_once)
{
	unsigned before = leak_fds();
	struct loopback refusing, alive;
	struct dial d;
	struct err e = { 0 };
	int fd;

	loopback_open(&refusing, LOOPBACK_REFUSE);
	loopback_open(&alive, 4);
	targets(&d, (const struct loopback *[]){ &refusing, &refusing, &alive }, 3);
	fd = dial_at(&d, 5, &e);
	expect_connected(fd, &alive);
	close(fd);
	close(refusing.fd);
	close(alive.fd);
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

/* As before, and while the first attempt goes on: the third need not wait for its own delay. */
START_TEST(refusal_after_silence_lets_the_next_begin_at_once)
{
	unsigned before = leak_fds(), held_count;
	struct loopback dead, refusing, alive;
	struct dial d;
	struct err e = { 0 };
	int held[HELD], fd;

	loopback_open(&dead, 0);
	loopback_open(&refusing, LOOPBACK_REFUSE);
	loopback_open(&alive, 4);
	held_count = loopback_fill(&dead, held, HELD);
	targets(&d, (const struct loopback *[]){ &dead, &refusing, &alive }, 3);
	ck_assert_int_eq(dial_step(&d, 0, &e), -EAGAIN);
	fd = dial_at(&d, 250, &e);
	expect_connected(fd, &alive);
	close(fd);
	loopback_drop(held, held_count);
	close(dead.fd);
	close(refusing.fd);
	close(alive.fd);
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

START_TEST(refusal_everywhere_names_the_count_and_the_last)
{
	unsigned before = leak_fds();
	struct loopback a, b, c;
	struct dial d;
	struct err e = { 0 };
	char expected[160];

	loopback_open(&a, LOOPBACK_REFUSE);
	loopback_open(&b, LOOPBACK_REFUSE);
	loopback_open(&c, LOOPBACK_REFUSE);
	targets(&d, (const struct loopback *[]){ &a, &b, &c }, 3);
	ck_assert_int_eq(dial_at(&d, 0, &e), -ECONNREFUSED);
	ck_assert_int_eq(e.kind, ERR_UNREACHABLE);
	snprintf(expected, sizeof(expected),
		 "none of 3 addresses answers; the last: connect to %s: Connection refused",
		 c.text);
	ck_assert_str_eq(e.text, expected);
	close(a.fd);
	close(b.fd);
	close(c.fd);
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

START_TEST(address_that_cannot_be_tried)
{
	unsigned before = leak_fds();
	union resolve_address multicast = { .v4.sin_family = AF_INET };
	struct resolve_result r = { .count = 2 };
	struct dial d;
	struct err e = { 0 };
	struct loopback l;
	int fd;

	/* TCP does not go there: connect() itself fails */
	multicast.v4.sin_addr.s_addr = htonl(0xe0000001);
	multicast.v4.sin_port = htons(1);
	loopback_open(&l, 4);
	r.address[0] = multicast;
	r.address[1] = l.address;
	dial_init(&d, &r);
	fd = dial_at(&d, 0, &e);
	expect_connected(fd, &l);
	close(fd);
	close(l.fd);
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

/*
 * connect(2) can fail by it, for a route that waits for keys of IPsec: that is a failure all the
 * same.
 */
START_TEST(again_is_a_failure)
{
	const struct resolve_result none = { .count = 0 };
	struct dial d;
	struct err e = { 0 };

	dial_init(&d, &none);
	err_sys(&d.last, ERR_UNREACHABLE, EAGAIN, "connect");
	ck_assert_int_eq(dial_step(&d, 0, &e), -EHOSTUNREACH);
	ck_assert_int_eq(e.kind, ERR_UNREACHABLE);
	ck_assert_int_eq(e.code, EHOSTUNREACH);
}
END_TEST

START_TEST(no_descriptors_to_dial_with)
{
	struct rlimit old, few;
	struct loopback l;
	struct dial d;
	struct err e = { 0 };
	int ret;

	loopback_open(&l, 4);
	targets(&d, (const struct loopback *[]){ &l, &l }, 2);
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
	few = old;
	few.rlim_cur = 0;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
	ret = dial_step(&d, 0, &e);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
	ck_assert_int_eq(ret, -EMFILE);
	ck_assert_ptr_nonnull(strstr(e.text, "none of 2 addresses answers"));
	close(l.fd);
}
END_TEST

/* Without IPv6 on this machine its address fails, which is a way to go on too. */
START_TEST(both_families)
{
	unsigned before = leak_fds();
	struct loopback v6, v4;
	struct dial d;
	struct err e = { 0 };
	bool has_v6;
	int fd;

	has_v6 = loopback_try(&v6, AF_INET6, _i == 0 ? 4 : LOOPBACK_REFUSE);
	loopback_open(&v4, 4);
	targets(&d, (const struct loopback *[]){ &v6, &v4 }, 2);
	if (!has_v6) {
		d.addresses.address[0].v6.sin6_addr = in6addr_loopback;
		d.addresses.address[0].v6.sin6_port = htons(9);
	}
	fd = dial_at(&d, 0, &e);
	expect_connected(fd, has_v6 && _i == 0 ? &v6 : &v4);
	close(fd);
	close(v4.fd);
	if (has_v6)
		close(v6.fd);
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

START_TEST(refusal_by_v6_is_told_in_brackets)
{
	struct loopback v4, v6 = { .text = "[::1]:9" };
	struct dial d;
	struct err e = { 0 };

	loopback_open(&v4, LOOPBACK_REFUSE);
	if (!loopback_try(&v6, AF_INET6, LOOPBACK_REFUSE)) {
		v6.address.v6.sin6_family = AF_INET6;
		v6.address.v6.sin6_addr = in6addr_loopback;
		v6.address.v6.sin6_port = htons(9);
		snprintf(v6.text, sizeof(v6.text), "[::1]:9");
	}
	targets(&d, (const struct loopback *[]){ &v4, &v6 }, 2);
	ck_assert_int_lt(dial_at(&d, 0, &e), 0);
	ck_assert_ptr_nonnull(strstr(e.text, "2 addresses"));
	ck_assert_ptr_nonnull(strstr(e.text, v6.text));
}
END_TEST

/* --- Unix sockets ----------------------------------------------------------------------------- */

/* A path in a directory of the test's own. */
static void new_path(char *path, size_t cap, const char *name)
{
	char link[64], dir[PATH_MAX];
	int fd = tree_new();
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, dir, sizeof(dir) - 1);
	ck_assert_int_gt(n, 0);
	dir[n] = '\0';
	ck_assert_int_lt(snprintf(path, cap, "%s/%s", dir, name), (int)cap);
	close(fd);
}

START_TEST(unix_that_answers)
{
	char path[URI_PATH_MAX + 1], peer[80], c;
	struct err e = { 0 };
	unsigned before;
	int listener, fd, other;

	new_path(path, sizeof(path), "s");
	before = leak_fds();
	listener = loopback_unix(path, 4);
	fd = dial_unix(path, &e);
	ck_assert_int_ge(fd, 0);
	ck_assert(fcntl(fd, F_GETFL) & O_NONBLOCK);
	ck_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	transport_peer_name(fd, peer, sizeof(peer));
	ck_assert_str_eq(peer, "local");
	other = accept(listener, NULL, NULL);
	ck_assert_int_eq(write(other, "y", 1), 1);
	ck_assert_int_eq(read(fd, &c, 1), 1);
	ck_assert_int_eq(c, 'y');
	close(other);
	close(fd);
	close(listener);
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

START_TEST(unix_that_is_not_there)
{
	char path[URI_PATH_MAX + 1], expected[256];
	struct err e = { 0 };
	unsigned before;

	new_path(path, sizeof(path), "absent");
	before = leak_fds();
	ck_assert_int_eq(dial_unix(path, &e), -ENOENT);
	ck_assert_int_eq(e.kind, ERR_UNREACHABLE);
	snprintf(expected, sizeof(expected), "connect to Unix socket %s: No such file or directory",
		 path);
	ck_assert_str_eq(e.text, expected);
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

START_TEST(unix_without_a_server)
{
	char path[URI_PATH_MAX + 1];
	struct err e = { 0 };

	new_path(path, sizeof(path), "left");
	close(loopback_unix(path, 4));
	ck_assert_int_eq(dial_unix(path, &e), -ECONNREFUSED);
	ck_assert_int_eq(e.kind, ERR_UNREACHABLE);
	ck_assert_ptr_nonnull(strstr(e.text, path));
}
END_TEST

START_TEST(unix_with_a_full_backlog)
{
	char path[URI_PATH_MAX + 1];
	struct err e = { 0 };
	int listener, held[HELD];
	unsigned n, before;

	new_path(path, sizeof(path), "full");
	listener = loopback_unix(path, 0);
	for (n = 0; n < HELD; n++) {
		before = leak_fds();
		held[n] = dial_unix(path, &e);
		if (held[n] < 0)
			break;
	}
	ck_assert_uint_ge(n, 1);
	ck_assert_uint_lt(n, HELD);
	ck_assert_int_eq(held[n], -EHOSTUNREACH);
	ck_assert_int_eq(e.kind, ERR_UNREACHABLE);
	ck_assert_ptr_nonnull(strstr(e.text, "full backlog"));
	ck_assert_uint_eq(leak_fds(), before);
	loopback_drop(held, n);
	close(listener);
}
END_TEST

START_TEST(unix_path_lengths)
{
	char path[URI_PATH_MAX + 2];
	unsigned before = leak_fds();
	struct err e = { 0 };

	memset(path, 'p', sizeof(path));
	path[0] = '/';
	path[URI_PATH_MAX + 1] = '\0';
	ck_assert_int_eq(dial_unix(path, &e), -ENAMETOOLONG);
	ck_assert_int_eq(e.kind, ERR_USAGE);
	ck_assert_ptr_nonnull(strstr(e.text, "longer than 107 bytes"));
	path[URI_PATH_MAX] = '\0';
	ck_assert_int_eq(dial_unix(path, &e), -ENOENT);
	ck_assert_ptr_nonnull(strstr(e.text, path));
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

START_TEST(unix_path_is_escaped)
{
	struct err e = { 0 };

	ck_assert_int_eq(dial_unix("/no\nwhere\x1b", &e), -ENOENT);
	ck_assert_ptr_nonnull(strstr(e.text, "/no\\x0awhere\\x1b"));
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("dial");
	TCase *t = tcase_create("addresses");

	tcase_set_timeout(t, 60);
	tcase_add_test(t, one_that_answers);
	tcase_add_test(t, one_that_refuses);
	tcase_add_test(t, refused_by_all_or_not);
	tcase_add_test(t, silence_lets_the_next_begin_after_the_delay);
	tcase_add_test(t, silence_by_the_clock);
	tcase_add_test(t, silence_everywhere_leaves_nothing_to_wait_for);
	tcase_add_test(t, refusal_lets_the_next_begin_at_once);
	tcase_add_test(t, refusal_after_silence_lets_the_next_begin_at_once);
	tcase_add_test(t, refusal_everywhere_names_the_count_and_the_last);
	tcase_add_test(t, address_that_cannot_be_tried);
	tcase_add_test(t, again_is_a_failure);
	tcase_add_test(t, no_descriptors_to_dial_with);
	tcase_add_loop_test(t, both_families, 0, 2);
	tcase_add_test(t, refusal_by_v6_is_told_in_brackets);
	suite_add_tcase(s, t);

	t = tcase_create("unix");
	tcase_set_timeout(t, 60);
	tree_fixture(t);
	tcase_add_test(t, unix_that_answers);
	tcase_add_test(t, unix_that_is_not_there);
	tcase_add_test(t, unix_without_a_server);
	tcase_add_test(t, unix_with_a_full_backlog);
	tcase_add_test(t, unix_path_lengths);
	tcase_add_test(t, unix_path_is_escaped);
	suite_add_tcase(s, t);
	return s;
}
