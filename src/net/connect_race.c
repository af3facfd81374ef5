/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "net/connect_race.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "net/blocking_child.h"
#include "proto/wire.h"

static bool is_done(const struct handshake *h)
{
	return h->stage == HANDSHAKE_DONE;
}

static bool is_settled(const struct handshake *h)
{
	return h->stage == HANDSHAKE_DONE || h->stage == HANDSHAKE_FAILED;
}

/* Ends a handshake that cannot even begin. */
static void fail_handshake(struct handshake *h, const struct err *e)
{
	h->err = *e;
	h->stage = HANDSHAKE_FAILED;
}

static void use_next_socket(struct race *r, struct handshake *h)
{
	struct err e;
	int fd;

	if (r->fd_next == r->params.fd_count) {
		err_set(&e, ERR_MULTI, EOPNOTSUPP, "no connection is left for one more handshake");
		fail_handshake(h, &e);
		return;
	}
	fd = r->params.fds[r->fd_next++];
	fcntl(fd, F_SETFL, O_NONBLOCK);
	handshake_use(h, fd);
}

static void start_handshake(struct race *r, unsigned i)
{
	struct resolve_result to = r->addresses;

	if (r->params.fd_count) {
		use_next_socket(r, &r->handshakes[i]);
		return;
	}
	/* All have to reach the server that the first one reaches, or is likely to. */
	if (i || r->same_address)
		to.count = 1;
	handshake_dial(&r->handshakes[i], &to);
}

static int init_handshake(struct race *r, unsigned i, struct err *e)
{
	struct handshake *h = &r->handshakes[i];
	struct tls *tls = NULL;
	int ret = 0;

	h->fd = -1;
	if (r->params.creds)
		ret = tls_new(&tls, r->params.creds, e);
	return ret ? ret : handshake_init(h, r->params.neg, tls, e);
}

/* Begins anew. An error is that of the handshake. */
static void restart_handshake(struct race *r, unsigned i)
{
	struct handshake *h = &r->handshakes[i];
	struct err e;

	handshake_hang_up(h);
	handshake_end(h);
	if (init_handshake(r, i, &e))
		fail_handshake(h, &e);
	else
		start_handshake(r, i);
}

/* Once the first is connected, the others have to reach the same one of several addresses. */
static void fix_address(struct race *r)
{
	unsigned winner = r->handshakes[0].dial.winner;

	if (r->same_address || r->handshakes[0].stage == HANDSHAKE_DIAL ||
	    r->handshakes[0].stage == HANDSHAKE_FAILED)
		return;
	r->same_address = true;
	if (!winner)
		return;
	r->addresses.address[0] = r->addresses.address[winner];
	for (unsigned i = 1; i < r->count; i++)
		restart_handshake(r, i);
}

static void swap_handshakes(struct race *r, unsigned a, unsigned b)
{
	struct handshake h = r->handshakes[a];

	r->handshakes[a] = r->handshakes[b];
	r->handshakes[b] = h;
}

static void put_first(struct race *r)
{
	for (unsigned i = 0; i < r->count; i++) {
		if (!is_done(&r->handshakes[i]))
			continue;
		swap_handshakes(r, 0, i);
		return;
	}
}

static void end_handshakes(struct race *r, unsigned from)
{
	for (unsigned i = from; i < r->count; i++) {
		handshake_hang_up(&r->handshakes[i]);
		handshake_end(&r->handshakes[i]);
	}
	if (from < r->count)
		r->count = from;
}

/* Finds a handshake beyond the first that is done. 0: none, and *hope: one may still be. */
static unsigned find_done_spare(const struct race *r, bool *hope)
{
	*hope = false;
	for (unsigned i = 1; i < r->count; i++) {
		if (is_done(&r->handshakes[i]))
			return i;
		*hope |= !is_settled(&r->handshakes[i]);
	}
	return 0;
}

/*
 * Asks for NBD_CMD_CACHE of the first block, on a connection beyond the first, or looks for the
 * answer, which goes to r->cache. late: there is no time left to wait for it.
 */
static void probe_cache(struct race *r, bool late)
{
	const struct export *x = neg_export(r->handshakes[0].neg);
	uint32_t len = x->has_block_size && x->block_min > PLAN_BLOCK_SIZE_MIN ?
			       x->block_min :
			       PLAN_BLOCK_SIZE_MIN;
	struct handshake *h;
	uint32_t error = 0;
	bool hope = true;
	int ret = -EAGAIN;

	if (r->asked) {
		h = &r->handshakes[r->asked];
		ret = handshake_reply(h, &error);
	} else {
		r->asked = find_done_spare(r, &hope);
		hope |= r->asked;
		h = &r->handshakes[r->asked];
		if (r->asked && handshake_request(h, NBD_CMD_CACHE, 0, len))
			ret = -EPIPE;
	}
	if (ret == -EAGAIN && hope && !late)
		return;
	if (!r->asked || ret == -EAGAIN)
		r->cache = PLAN_CACHE_SILENT;
	else
		r->cache = !ret && !error ? PLAN_CACHE_DONE : PLAN_CACHE_REFUSED;
	/*
	 * Some servers hang up at what they do not know, and an answer that is still to come must
	 * not reach the kernel.
	 */
	if (r->asked && ret)
		restart_handshake(r, r->asked);
	r->asked = 0;
}

/*
 * Ends all but the first. Those that have asked for the transmission phase wait for the answer,
 * RACE_GRACE_MS at most: only after it they can say goodbye.
 */
static void end_spares(struct race *r)
{
	const long long end = monotonic_ms() + RACE_GRACE_MS;
	long long left;

	for (unsigned i = 1; i < r->count; i++) {
		struct handshake *h = &r->handshakes[i];

		while (handshake_is_committed(h) && (left = end - monotonic_ms()) > 0) {
			int timeout_ms;
			unsigned n = handshake_poll(h, monotonic_ms(), r->polled, &timeout_ms);

			if (timeout_ms)
				poll(r->polled, n, (int)left);
			handshake_step(h, monotonic_ms(), NULL, NULL);
		}
	}
	end_handshakes(r, 1);
}

/* Decides by the first answer about the others. 0, or an error for the whole; late as above. */
static int judge_first(struct race *r, bool late, struct err *e)
{
	const struct plan_multi *m = &r->params.multi;
	const struct export *x = neg_export(r->handshakes[0].neg);
	long long now = monotonic_ms();
	enum plan_verdict v;

	if (r->judged)
		return 0;
	if (!r->spare_deadline)
		r->spare_deadline = 2 * now - r->began + RACE_GRACE_MS;
	v = plan_multi(m, x, r->cache, r->note, sizeof(r->note));
	if (v == PLAN_ASK && r->count > 1) {
		probe_cache(r, late || (m->automatic && now >= r->spare_deadline));
		if (r->cache == PLAN_CACHE_UNASKED)
			return 0;
		v = plan_multi(m, x, r->cache, r->note, sizeof(r->note));
	}
	r->judged = true;
	if (v != PLAN_ONE)
		return 0;
	end_spares(r);
	if (r->params.connections == 1 || m->automatic)
		return 0;
	return err_set(e, ERR_MULTI, EOPNOTSUPP, "%u connections: %s", r->params.connections,
		       r->note);
}

static bool race_is_over(const struct race *r, long long now)
{
	bool done = true;

	for (unsigned i = 0; i < r->count; i++)
		done &= is_settled(&r->handshakes[i]);
	if (!done && (!r->params.multi.automatic || !r->spare_deadline || now < r->spare_deadline))
		return false;
	/* Where no handshake is done there is nothing to judge. */
	return r->judged || !is_done(&r->handshakes[0]);
}

/* One step of each; 0 to go on, 1 at the end, or an error for the whole. */
static int step_handshakes(struct race *r, struct err *e)
{
	long long now = monotonic_ms();
	int ret;

	for (unsigned i = 0; i < r->count; i++)
		if (!is_settled(&r->handshakes[i]))
			handshake_step(&r->handshakes[i], now, r->params.item, r->params.ctx);
	fix_address(r);
	if (!is_done(&r->handshakes[0]))
		put_first(r);
	if (is_done(&r->handshakes[0])) {
		ret = judge_first(r, false, e);
		if (ret)
			return ret;
	}
	return race_is_over(r, monotonic_ms());
}

/* Waits until something can go on: 0, -ETIMEDOUT at the deadline, -ECANCELED. */
static int wait_for_any(struct race *r)
{
	const long long now = monotonic_ms();
	long long wake = r->params.deadline;
	int timeout_ms, ret;
	unsigned n = 0;

	if (now >= wake)
		return -ETIMEDOUT;
	for (unsigned i = 0; i < r->count; i++) {
		n += handshake_poll(&r->handshakes[i], now, r->polled + n, &timeout_ms);
		if (timeout_ms >= 0 && now + timeout_ms < wake)
			wake = now + timeout_ms;
	}
	if (r->asked)
		r->polled[n++] = (struct pollfd){
			.fd = r->handshakes[r->asked].fd,
			.events = handshake_wants(&r->handshakes[r->asked], false),
		};
	if (r->params.multi.automatic && r->spare_deadline && r->spare_deadline < wake)
		wake = r->spare_deadline;
	r->polled[n] = (struct pollfd){ .fd = r->params.cancel_fd, .events = POLLIN };
	ret = poll(r->polled, n + 1, wake > now ? (int)(wake - now) : 0);
	if (ret < 0 && errno != EINTR)
		return -errno;
	return ret > 0 && r->polled[n].revents ? -ECANCELED : 0;
}

/* Ends what is not done: at the deadline, or when the caller wants no more. */
static void give_up_unsettled(struct race *r, int code)
{
	for (unsigned i = 0; i < r->count; i++)
		if (!is_settled(&r->handshakes[i]))
			handshake_give_up(&r->handshakes[i], code, r->params.timeout_ms);
	if (!is_done(&r->handshakes[0]))
		put_first(r);
}

/* Leaves out the handshakes that have failed; an error where that is not allowed. */
static int drop_failed(struct race *r, struct err *e)
{
	struct err first = { 0 };
	unsigned good = 0, lost;

	for (unsigned i = 0; i < r->count; i++) {
		if (is_done(&r->handshakes[i]))
			swap_handshakes(r, good++, i);
		else if (!first.code && r->handshakes[i].err.code)
			first = r->handshakes[i].err;
	}
	lost = r->count - good;
	if (!lost)
		return 0;
	if (!first.code)
		err_set(&first, ERR_UNREACHABLE, ETIMEDOUT,
			"no answer in as long again as the first took");
	if (!good || !r->params.multi.automatic) {
		*e = first;
		return good ? err_wrap(e, "%u of %u connections failed", lost,
				       r->params.connections) :
			      -e->code;
	}
	snprintf(r->note, sizeof(r->note),
		 "%u of %u connections failed and are done without: %.300s", lost,
		 r->params.connections, first.text);
	end_handshakes(r, good);
	return 0;
}

static int compare_exports(const struct race *r, struct err *e)
{
	for (unsigned i = 1; i < r->count; i++)
		if (plan_same_export(neg_export(r->handshakes[0].neg),
				     neg_export(r->handshakes[i].neg), e))
			return err_wrap(
				e, "the server gives different answers on different connections");
	return 0;
}

int race_run(struct race *r, struct err *e)
{
	int ret;

	while (!(ret = step_handshakes(r, e))) {
		ret = wait_for_any(r);
		if (!ret)
			continue;
		give_up_unsettled(r, -ret);
		if (ret != -ETIMEDOUT) {
			if (is_done(&r->handshakes[0]))
				return err_sys(e, ERR_FAILED, -ret, "handshake");
			*e = r->handshakes[0].err;
			return -e->code;
		}
		/* Handshakes that were done in time are good. */
		ret = is_done(&r->handshakes[0]) ? judge_first(r, true, e) : 0;
		break;
	}
	if (ret < 0)
		return ret;
	ret = drop_failed(r, e);
	return ret ? ret : compare_exports(r, e);
}

int race_init(struct race *r, const struct race_params *p, struct err *e)
{
	int ret = 0;

	memset(r, 0, sizeof(*r));
	r->params = *p;
	r->handshakes = calloc(p->connections, sizeof(*r->handshakes));
	r->polled = calloc(p->connections + HANDSHAKE_POLL_MAX + 2, sizeof(*r->polled));
	if (!r->handshakes || !r->polled)
		return err_sys(e, ERR_FAILED, ENOMEM, "connect");
	for (; !ret && r->count < p->connections; r->count++)
		ret = init_handshake(r, r->count, e);
	return ret;
}

void race_start(struct race *r, const struct resolve_result *addresses)
{
	r->addresses = *addresses;
	r->began = monotonic_ms();
	for (unsigned i = 0; i < r->count; i++)
		start_handshake(r, i);
}

void race_end(struct race *r)
{
	end_handshakes(r, 0);
	while (r->fd_next < r->params.fd_count)
		close(r->params.fds[r->fd_next++]);
	free(r->handshakes);
	free(r->polled);
}
