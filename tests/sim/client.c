/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "client.h"

#include <errno.h>

#include "world.h"

enum {
	ANSWER_MS = 30000,
	SLACK_MS = 1500,
	AT_ONCE_MS = 500,
	ABORT_MS = 20000, /* a forced detach has that time to disconnect the device */
};

static const char *const request_names[] = {
	[RC_ASK_PAUSE] = "pause", [RC_ASK_RESUME] = "resume",       [RC_ASK_RESCAN] = "rescan",
	[RC_ASK_ABORT] = "abort", [RC_ASK_HAND_OVER] = "hand over",
};

void client_begin(struct world *w)
{
	w->clients.count = 0;
	w->clients.paused = false;
	w->clients.changed_at = w->now;
	w->clients.abort_until = 0;
	w->clients.aborted_at = -1;
}

unsigned client_ask(struct world *w, enum rc_request request)
{
	struct client_list *l = &w->clients;
	unsigned number = l->count++;
	struct client *c = &l->client[number];
	struct rc_event ev = { .type = RC_CLIENT, .client = number, .request = request };

	if (number == CLIENTS)
		world_fail(w, RULE_BOUNDED, "more than %u clients", CLIENTS);
	STORY(w, "client %u: %s", number, request_names[request]);
	*c = (struct client){ .request = request,
			      .asked = w->now,
			      .jumped = w->jumped,
			      .was_paused = w->shell.published.paused };
	if (request == RC_ASK_RESUME) {
		l->paused = false;
		l->abort_until = 0;
	}
	if (!w->shell.running) {
		c->state = CLIENT_ANSWERED;
		c->ret = -ENOENT;
		return number;
	}
	shell_event(w, &ev);
	return number;
}

static void check_paused(struct world *w)
{
	if (w->driver.owner != DRIVER_OURS)
		return;
	if (w->shell.unseen) {
		w->excuses[EXCUSE_UNSEEN]++;
		return;
	}
	if (driver_alive(w))
		world_fail(w, RULE_DURABLE, "a pause was answered while %u connections live",
			   driver_alive(w));
	w->clients.paused = true;
}

static void check_rescanned(struct world *w, const struct client *c)
{
	uint64_t size = UINT64_MAX;

	for (unsigned i = 0; i < w->set.servers; i++)
		if (w->contract.told_at[i] < c->asked)
			world_fail(w, RULE_ANSWER, "a rescan was answered, and server %u not asked",
				   i);
	if (w->clients.changed_at >= c->asked)
		return;
	for (unsigned i = 0; i < w->set.servers; i++)
		if (w->server[i].size < size)
			size = w->server[i].size;
	if (size > w->driver.size)
		world_fail(w, RULE_SIZE,
			   "a rescan was answered, and the device has %llu bytes of %llu",
			   (unsigned long long)w->driver.size, (unsigned long long)size);
}

static void check_aborted(struct world *w)
{
	for (unsigned i = 0; i < w->set.connections; i++)
		if (w->shell.held[i] != SHELL_NONE)
			world_fail(w, RULE_ANSWER, "connection %u is not cut for a forced detach",
				   i);
	w->clients.abort_until = w->now + ABORT_MS;
	w->clients.aborted_at = w->now;
}

static void check_resumed(struct world *w)
{
	for (unsigned i = 0; i < w->set.connections; i++) {
		const struct rc_conn *c = &w->shell.core.conn[i];

		/* What was due in the same event may have come after the answer. */
		if (c->state != RC_UP && c->state != RC_UNWATCHED && c->since < w->now)
			world_fail(w, RULE_ANSWER, "a resume was answered with connection %u lost",
				   i);
	}
}

static void check_promise(struct world *w, const struct client *c)
{
	switch (c->request) {
	case RC_ASK_PAUSE:
		check_paused(w);
		break;
	case RC_ASK_RESUME:
		check_resumed(w);
		break;
	case RC_ASK_RESCAN:
		check_rescanned(w, c);
		break;
	case RC_ASK_ABORT:
		check_aborted(w);
		break;
	case RC_ASK_HAND_OVER:
		world_fail(w, RULE_ANSWER, "a hand-over was answered without the descriptors");
	}
}

void client_reply(struct world *w, unsigned client, int ret, const char *text)
{
	struct client *c = &w->clients.client[client];
	long long took, limit = ANSWER_MS + SLACK_MS + w->set.late_ms;

	if (client >= w->clients.count)
		world_fail(w, RULE_ANSWER, "an answer for client %u, who does not exist", client);
	if (c->state != CLIENT_WAITS)
		world_fail(w, RULE_ANSWER, "an answer for client %u, who does not wait", client);
	took = w->now - c->asked - (w->jumped - c->jumped);
	STORY(w, "client %u: answered %d %s after %lld ms", client, ret, text, took);
	if (c->request == RC_ASK_ABORT)
		limit = AT_ONCE_MS;
	if (took > limit)
		world_fail(w, RULE_ANSWER, "client %u (%s) was answered after %lld ms", client,
			   request_names[c->request], took);
	c->state = CLIENT_ANSWERED;
	c->ret = ret;
	if (ret == -EBUSY && reconnect_durable(&w->shell.core)->paused != c->was_paused)
		world_fail(w, RULE_ANSWER, "a %s was refused, and done", request_names[c->request]);
	if (!ret)
		check_promise(w, c);
}

void client_handed(struct world *w, unsigned client)
{
	struct client *c = &w->clients.client[client];

	if (client >= w->clients.count || c->state != CLIENT_WAITS ||
	    c->request != RC_ASK_HAND_OVER)
		world_fail(w, RULE_ANSWER, "a hand-over to client %u, who does not wait for one",
			   client);
	c->state = CLIENT_ANSWERED;
}

void client_hang_up(struct world *w, unsigned client)
{
	struct rc_event ev = { .type = RC_CLIENT_GONE, .client = client };

	STORY(w, "client %u: hangs up", client);
	w->clients.client[client].state = CLIENT_HUNG_UP;
	shell_event(w, &ev);
}

void client_orphan(struct world *w)
{
	for (unsigned i = 0; i < w->clients.count; i++)
		if (w->clients.client[i].state == CLIENT_WAITS)
			w->clients.client[i].state = CLIENT_HUNG_UP;
}

unsigned client_waiting(const struct world *w)
{
	unsigned count = 0;

	for (unsigned i = 0; i < w->clients.count; i++)
		count += w->clients.client[i].state == CLIENT_WAITS;
	return count;
}

void client_check(struct world *w, bool may_wait)
{
	for (unsigned i = 0; i < w->clients.count; i++) {
		const struct client *c = &w->clients.client[i];
		long long waits = w->now - c->asked - (w->jumped - c->jumped);

		if (c->state == CLIENT_WAITS &&
		    (!may_wait || waits > ANSWER_MS + 2 * SLACK_MS + w->set.late_ms))
			world_fail(w, RULE_ANSWER, "client %u (%s) has had no answer for %lld ms",
				   i, request_names[c->request], waits);
	}
}
