/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "policy/renew.h"

#include "policy/plan.h"

int renew_worn_out(const struct rc_conn *conn, unsigned count, uint64_t limit, uint64_t records,
		   unsigned *look_ms)
{
	*look_ms = 0;
	for (unsigned i = 0; limit && i < count; i++) {
		uint64_t used = records > conn[i].records ? records - conn[i].records : 0;
		unsigned ms;

		if (conn[i].state != RC_UP || !conn[i].kernel_tls)
			continue;
		if (used >= limit)
			return (int)i;
		ms = plan_renewal_ms(limit - used);
		if (!*look_ms || ms < *look_ms)
			*look_ms = ms;
	}
	return -1;
}

int renew_outdated(const struct rc_conn *conn, unsigned count, uint64_t size)
{
	for (unsigned i = 0; i < count; i++)
		if (conn[i].state == RC_UP && conn[i].size < size)
			return (int)i;
	return -1;
}

void renew_quiet_begin(struct renew_quiet *q, long long limit_ms, long long now)
{
	*q = (struct renew_quiet){ .pause_until = now + RENEW_PAUSE_MS, .until = now + limit_ms };
}

bool renew_is_quiet(struct renew_quiet *q, uint64_t requests, uint64_t in_flight, long long now)
{
	bool pause = q->looked && requests == q->requests;

	q->looked = true;
	q->requests = requests;
	return now >= q->until || (!in_flight && (pause || now >= q->pause_until));
}
