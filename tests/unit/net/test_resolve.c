/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "net/resolve.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../leak.h"
#include "../unit.h"

/* --- order ------------------------------------------------------------------------------------ */

/* Addresses of families '4' and '6', told apart by their ports, which count up from 1. */
static void make(struct resolve_result *r, const char *families)
{
	memset(r, 0, sizeof(*r));
	for (; *families; families++) {
		union resolve_address *a = &r->address[r->count++];

		if (*families == '6') {
			a->v6.sin6_family = AF_INET6;
			a->v6.sin6_port = htons((uint16_t)r->count);
		} else {
			a->v4.sin_family = AF_INET;
			a->v4.sin_port = htons((uint16_t)r->count);
		}
	}
}

START_TEST(families_take_turns)
{
	static const struct {
		const char *families, *order;
	} table[] = {
		{ "", "" },
		{ "6", "1" },
		{ "46", "1 2" },
		{ "64", "1 2" },
		{ "444", "1 2 3" },
		{ "666", "1 2 3" },
		{ "6644", "1 3 2 4" },
		{ "4466", "1 3 2 4" },
		{ "6464", "1 2 3 4" },
		{ "4644", "1 2 3 4" },
		{ "66664", "1 5 2 3 4" },
		{ "46666", "1 2 3 4 5" },
		{ "44466", "1 4 2 5 3" },
		{ "66666666666666666666666666666664",
		  "1 32 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 "
		  "29 30 31" },
	};
	struct resolve_result r;
	char order[256] = "";
	size_t used = 0;

	make(&r, table[_i].families);
	resolve_interleave(&r);
	ck_assert_uint_eq(r.count, strlen(table[_i].families));
	for (unsigned i = 0; i < r.count; i++) {
		unsigned port = ntohs(r.address[i].sa.sa_family == AF_INET6 ?
					      r.address[i].v6.sin6_port :
					      r.address[i].v4.sin_port);

		used += (size_t)snprintf(order + used, sizeof(order) - used, "%s%u", i ? " " : "",
					 port);
		ck_assert_int_eq(r.address[i].sa.sa_family,
				 table[_i].families[port - 1] == '6' ? AF_INET6 : AF_INET);
	}
	ck_assert_str_eq(order, table[_i].order);
}
END_TEST

START_TEST(length)
{
	union resolve_address a = { .sa.sa_family = AF_INET };

	ck_assert_uint_eq(resolve_length(&a), sizeof(struct sockaddr_in));
	a.sa.sa_family = AF_INET6;
	ck_assert_uint_eq(resolve_length(&a), sizeof(struct sockaddr_in6));
}
END_TEST

/* --- look-up ---------------------------------------------------------------------------------- */

static int look_up(const char *host, const char *port, struct resolve_result *r, struct err *e)
{
	unsigned before = leak_fds();
	struct uri q = { 0 };
	struct blocking_child t;
	int ret;

	memset(e, 0, sizeof(*e));
	snprintf(q.host, sizeof(q.host), "%s", host);
	snprintf(q.port, sizeof(q.port), "%s", port);
	ck_assert_int_eq(resolve_start(&t, &q, e), 0);
	ret = resolve_finish(&t, &q, r, e);
	ck_assert_uint_eq(leak_fds(), before);
	ck_assert(leak_no_child());
	return ret;
}

START_TEST(numeric_v4)
{
	struct resolve_result r;
	struct err e;

	ck_assert_int_eq(look_up("192.0.2.7", "10809", &r, &e), 0);
	ck_assert_uint_eq(r.count, 1);
	ck_assert_int_eq(r.address[0].sa.sa_family, AF_INET);
	ck_assert_uint_eq(ntohl(r.address[0].v4.sin_addr.s_addr), 0xc0000207);
	ck_assert_uint_eq(ntohs(r.address[0].v4.sin_port), 10809);
}
END_TEST

START_TEST(numeric_v6)
{
	struct resolve_result r;
	char text[INET6_ADDRSTRLEN];
	struct err e;

	ck_assert_int_eq(look_up("2001:db8::7", "65535", &r, &e), 0);
	ck_assert_uint_eq(r.count, 1);
	ck_assert_int_eq(r.address[0].sa.sa_family, AF_INET6);
	ck_assert_ptr_nonnull(inet_ntop(AF_INET6, &r.address[0].v6.sin6_addr, text, sizeof(text)));
	ck_assert_str_eq(text, "2001:db8::7");
	ck_assert_uint_eq(ntohs(r.address[0].v6.sin6_port), 65535);
	ck_assert_uint_eq(r.address[0].v6.sin6_scope_id, 0);
}
END_TEST

/* Without a child, and never more than addresses. */
START_TEST(numeric_at_once)
{
	static const struct {
		const char *host;
		bool numeric;
		int family;
	} table[] = {
		{ "192.0.2.7", true, AF_INET },
		{ "2001:db8::7", true, AF_INET6 },
		{ "localhost", false, 0 },
		{ "no-such-host.invalid.", false, 0 },
		{ "", false, 0 },
	};
	struct uri q = { .port = "10809" };
	struct resolve_result r;

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		memset(q.host, 0, sizeof(q.host));
		strcpy(q.host, table[i].host);
		ck_assert_msg(resolve_numeric(&q, &r) == table[i].numeric, "%s", q.host);
		if (!table[i].numeric)
			continue;
		ck_assert_uint_eq(r.count, 1);
		ck_assert_int_eq(r.address[0].sa.sa_family, table[i].family);
	}
	ck_assert(leak_no_child());
}
END_TEST

START_TEST(zone_of_an_address)
{
	struct resolve_result r;
	struct err e;

	ck_assert_int_eq(look_up("fe80::1%1", "1", &r, &e), 0);
	ck_assert_uint_eq(r.count, 1);
	ck_assert_uint_eq(r.address[0].v6.sin6_scope_id, 1);
}
END_TEST

START_TEST(localhost)
{
	struct resolve_result r;
	struct err e;

	ck_assert_int_eq(look_up("localhost", "1", &r, &e), 0);
	ck_assert_uint_ge(r.count, 1);
	for (unsigned i = 0; i < r.count; i++) {
		const union resolve_address *a = &r.address[i];

		if (a->sa.sa_family == AF_INET) {
			ck_assert_uint_eq(ntohl(a->v4.sin_addr.s_addr) >> 24, 127);
		} else {
			ck_assert_int_eq(a->sa.sa_family, AF_INET6);
			ck_assert(IN6_IS_ADDR_LOOPBACK(&a->v6.sin6_addr));
		}
		/* one entry for each address, not one for each kind of socket */
		for (unsigned k = 0; k < i; k++)
			ck_assert_int_ne(memcmp(&r.address[k], a, resolve_length(a)), 0);
	}
}
END_TEST

/*
 * RFC 6761 section 6.4: there is never such a name. The options are for a machine whose name server
 * does not answer.
 */
START_TEST(no_such_host)
{
	struct resolve_result r;
	struct err e;

	ck_assert_int_eq(setenv("RES_OPTIONS", "timeout:1 attempts:1", 1), 0);
	ck_assert_int_eq(look_up("no-such-host.invalid.", "1", &r, &e), -EHOSTUNREACH);
	ck_assert_int_eq(e.kind, ERR_UNREACHABLE);
	ck_assert_int_eq(strncmp(e.text, "look up host no-such-host.invalid.: ", 36), 0);
	ck_assert_uint_gt(strlen(e.text), 36);
}
END_TEST

START_TEST(hostile_host_is_escaped)
{
	char host[128] = "\x1b[31m";
	struct resolve_result r;
	struct err e;

	/* too long for a label: no name server is asked */
	memset(host + 5, 'a', 64);
	strcpy(host + 5 + 64, ".invalid.");
	ck_assert_int_lt(look_up(host, "1", &r, &e), 0);
	ck_assert_int_eq(e.kind, ERR_UNREACHABLE);
	ck_assert_ptr_null(strchr(e.text, '\x1b'));
	ck_assert_ptr_nonnull(strstr(e.text, "look up host \\x1b[31m"));
}
END_TEST

START_TEST(abandoned)
{
	unsigned before = leak_fds();
	struct uri q = { .host = "no-such-host.invalid.", .port = "1" };
	struct err e = { 0 };
	struct blocking_child t;
	pid_t pid;

	ck_assert_int_eq(resolve_start(&t, &q, &e), 0);
	pid = t.pid;
	blocking_child_abandon(&t);
	ck_assert_uint_eq(leak_fds(), before);
	while (waitpid(pid, NULL, 0) > 0)
		;
	ck_assert_int_eq(kill(pid, 0), -1);
	ck_assert_int_eq(errno, ESRCH);
}
END_TEST

/* --- what a child reports, good or not -------------------------------------------------------- */

static void copy(const void *arg, void *out)
{
	memcpy(out, arg, sizeof(struct resolve_result));
}

static void die(const void *arg, void *out)
{
	(void)arg;
	(void)out;
	_exit(0);
}

START_TEST(bad_reports)
{
	static const struct {
		struct resolve_result r;
		int code;
		const char *text;
	} table[] = {
		{ { .gai = EAI_SYSTEM, .error = ENETDOWN },
		  ENETDOWN,
		  "look up host h: Network is down" },
		{ { .gai = EAI_FAIL }, EHOSTUNREACH, "look up host h: Non-recoverable" },
		{ { .gai = EAI_AGAIN }, EHOSTUNREACH, "look up host h: Temporary failure" },
		{ { .count = 0 }, EHOSTUNREACH, "look up host h: it has no IPv4 or IPv6 address" },
		{ { .count = RESOLVE_MAX + 1 }, EHOSTUNREACH, "look up host h: it has no" },
	};
	struct uri q = { .host = "h", .port = "1" };
	struct resolve_result r;
	struct err e = { 0 };
	struct blocking_child t;

	ck_assert_int_eq(blocking_child_start(&t, copy, &table[_i].r, sizeof(r), &e), 0);
	ck_assert_int_eq(resolve_finish(&t, &q, &r, &e), -table[_i].code);
	ck_assert_int_eq(e.kind, ERR_UNREACHABLE);
	ck_assert_msg(!strncmp(e.text, table[_i].text, strlen(table[_i].text)), "%s", e.text);
	ck_assert(leak_no_child());
}
END_TEST

START_TEST(no_report)
{
	struct uri q = { .host = "h", .port = "1" };
	struct resolve_result r;
	struct err e = { 0 };
	struct blocking_child t;

	ck_assert_int_eq(blocking_child_start(&t, die, NULL, sizeof(r), &e), 0);
	ck_assert_int_eq(resolve_finish(&t, &q, &r, &e), -EIO);
	ck_assert_int_eq(strncmp(e.text, "look up host h: ", 16), 0);
	ck_assert(leak_no_child());
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("resolve");
	TCase *t = tcase_create("order");

	tcase_add_loop_test(t, families_take_turns, 0, 14);
	tcase_add_test(t, length);
	suite_add_tcase(s, t);
	t = tcase_create("look-up");
	tcase_set_timeout(t, 60);
	tcase_add_test(t, numeric_v4);
	tcase_add_test(t, numeric_v6);
	tcase_add_test(t, numeric_at_once);
	tcase_add_test(t, zone_of_an_address);
	tcase_add_test(t, localhost);
	tcase_add_test(t, no_such_host);
	tcase_add_test(t, hostile_host_is_escaped);
	tcase_add_test(t, abandoned);
	tcase_add_loop_test(t, bad_reports, 0, 5);
	tcase_add_test(t, no_report);
	suite_add_tcase(s, t);
	return s;
}
