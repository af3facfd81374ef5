/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "policy/renew.h"

#include "policy/plan.h"
#include "policy/reconnect.h"

#include "../unit.h"

/* Records that make the look come after a second: more than plan_renewal_ms has as its least. */
enum { LEFT = 500000 };

START_TEST(worn_out)
{
	static const struct {
		const char *says;
		struct rc_conn conn[3];
		uint64_t limit, records;
		int found;
		unsigned look_ms;
	} rows[] = {
		{ "the limit is reached", { { .kernel_tls = true } }, 100, 100, 0, 0 },
		{ "and passed", { { .kernel_tls = true } }, 100, 101, 0, 0 },
		{ "one record is left", { { .kernel_tls = true } }, 100, 99, -1, 100 },
		{ "as many are left as a second takes",
		  { { .kernel_tls = true } },
		  LEFT + 7,
		  7,
		  -1,
		  1000 },
		{ "those of an earlier connection do not count",
		  { { .kernel_tls = true, .records = 100 } },
		  LEFT,
		  100,
		  -1,
		  1000 },
		{ "a device that counts anew has used none",
		  { { .kernel_tls = true, .records = 100 } },
		  LEFT,
		  5,
		  -1,
		  1000 },
		{ "no kernel TLS", { { .kernel_tls = false } }, 100, 1000, -1, 0 },
		{ "not up", { { .state = RC_UNWATCHED, .kernel_tls = true } }, 100, 1000, -1, 0 },
		{ "no limit", { { .kernel_tls = true } }, 0, 1000, -1, 0 },
		{ "the first one that is worn out",
		  { { .kernel_tls = true, .records = LEFT },
		    { .kernel_tls = true },
		    { .kernel_tls = true } },
		  LEFT,
		  LEFT,
		  1,
		  0 },
		{ "the one that wears out first decides when to look",
		  { { .kernel_tls = true, .records = LEFT },
		    { .kernel_tls = true, .records = LEFT / 2 },
		    { .kernel_tls = true, .records = LEFT } },
		  LEFT,
		  LEFT,
		  -1,
		  500 },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		unsigned look_ms = 77;
		int found =
			renew_worn_out(rows[i].conn, 3, rows[i].limit, rows[i].records, &look_ms);

		ck_assert_msg(found == rows[i].found, "%s: %d", rows[i].says, found);
		ck_assert_msg(found >= 0 || look_ms == rows[i].look_ms, "%s: %u ms", rows[i].says,
			      look_ms);
	}
	/* no further than the connections that there are */
	ck_assert_int_eq(renew_worn_out(rows[9].conn, 1, LEFT, LEFT, &(unsigned){ 0 }), -1);
}
END_TEST

START_TEST(outdated)
{
	static const struct rc_conn conn[] = {
		{ .state = RC_UP, .size = 20 },
		{ .state = RC_DOWN, .size = 10 },
		{ .state = RC_UNWATCHED, .size = 10 },
		{ .state = RC_UP, .size = 10 },
	};

	ck_assert_int_eq(renew_outdated(conn, 4, 10), -1);
	ck_assert_int_eq(renew_outdated(conn, 4, 11), 3);
	ck_assert_int_eq(renew_outdated(conn, 3, 11), -1);
	ck_assert_int_eq(renew_outdated(conn, 4, 20), 3);
	ck_assert_int_eq(renew_outdated(conn, 4, 21), 0);
}
END_TEST

/* Each row is the next look of a wait of three seconds that began at 1000. */
START_TEST(quiet)
{
	static const struct {
		const char *says;
		long long now;
		uint64_t requests, in_flight;
		bool quiet;
	} looks[] = {
		{ "the first look shows no pause", 1000, 5, 0, false },
		{ "a request has come between", 1005, 6, 0, false },
		{ "a pause", 1010, 6, 0, true },
		{ "a pause with a request that takes long", 1015, 6, 1, false },
		{ "requests until the first second is over", 1999, 7, 0, false },
		{ "any moment without requests in flight", 2000, 8, 0, true },
		{ "not with one in flight", 3999, 9, 1, false },
		{ "the end of the wait", 4000, 10, 1, true },
	};
	struct renew_quiet q;

	renew_quiet_begin(&q, RENEW_QUIET_MS, 1000);
	for (size_t i = 0; i < sizeof(looks) / sizeof(looks[0]); i++)
		ck_assert_msg(renew_is_quiet(&q, looks[i].requests, looks[i].in_flight,
					     looks[i].now) == looks[i].quiet,
			      "%s", looks[i].says);
	/* a new wait knows nothing of the last one */
	renew_quiet_begin(&q, RENEW_QUIET_MS, 5000);
	ck_assert(!renew_is_quiet(&q, 10, 0, 5000));
	/* nor are no requests at all a pause at the first look */
	renew_quiet_begin(&q, RENEW_QUIET_MS, 5000);
	ck_assert(!renew_is_quiet(&q, 0, 0, 5000));
	ck_assert(renew_is_quiet(&q, 0, 0, 5001));
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("renew");
	TCase *t = tcase_create("renew");

	tcase_add_test(t, worn_out);
	tcase_add_test(t, outdated);
	tcase_add_test(t, quiet);
	suite_add_tcase(s, t);
	return s;
}
