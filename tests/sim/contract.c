/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "contract.h"

#include <errno.h>
#include <string.h>

#include "world.h"

enum {
	DIALS_A_SECOND = 24,
	CONNECTS = 60, /* most dials for connections in CONNECTS_MS */
	CONNECTS_MS = 10000,
	OFFERS_A_SECOND = 56,
	HANG_MS = 10000,      /* least time of a command that is noted */
	NOTE_MS = 60000,      /* least time between two notes of the same kind */
	SENT_AGAIN_MS = 2000, /* requests of a lost connection are in flight again by then */
	QUIET_MS = 20000,     /* longest wait for a moment without requests */
	QUIET_SLACK_MS = 100,
	STRANGE_COMMANDS = 3, /* most commands for a device found to be somebody else's */
	GIVE_UP_SLACK_MS = 3000,
	STEADY_MS = 300,  /* least time of a connection that is no flap */
	ABORT_MS = 20000, /* time without attempts after a forced detach */
	FIRST_MS = 40,    /* first attempt after a certain loss, at the latest */
	RECENT_MS = 100,
};

void contract_begin(struct world *w)
{
	memset(&w->contract, 0, sizeof(w->contract));
	w->contract.heard_at = w->contract.paused_at = w->contract.installed_at = -1;
}

void contract_renew(struct world *w)
{
	struct contract *c = &w->contract;

	for (unsigned i = 0; i < SIM_SERVERS; i++)
		c->told[i] = w->shell.config.durable.server_size[i];
	c->stranger = c->traffic_failed = c->shrunk = c->detached = c->refused = c->dialing =
		c->outage_noted = false;
	c->strange_commands = 0;
	c->drain_since = c->loss_at = c->dial_due = c->ended_at = -1;
	c->in_flight = 0;
	c->dials = c->offers = c->connects = 0;
	memset(c->noted, 0, sizeof(c->noted));
	c->flap_noted_at = -NOTE_MS;
}

unsigned contract_count_lost(const struct world *w, bool before)
{
	unsigned count = 0;

	for (unsigned i = 0; i < w->set.connections; i++) {
		const struct rc_conn *c = &w->shell.core.conn[i];

		count += c->state != RC_UP && c->state != RC_UNWATCHED &&
			 !(before && c->since == w->now);
	}
	return count;
}

static void require(struct world *w, bool condition, const char *what)
{
	if (!condition)
		world_fail(w, RULE_CONTRACT, "%s", what);
}

/* --- events ------------------------------------------------------------------------------- */

/* Whether the first end of a connection that lasted is about to be told, while all is well. */
static bool begins_outage(const struct world *w)
{
	const struct shell *s = &w->shell;

	for (unsigned i = 0; i < w->set.connections; i++)
		if (s->core.conn[i].state != RC_UP || w->now < s->core.conn[i].since + STEADY_MS)
			return false;
	return s->core.phase == RC_WATCHING && w->now >= w->contract.loss_at + 2 * RC_NOTICE_MS &&
	       (w->clients.aborted_at < 0 || w->now >= w->clients.aborted_at + ABORT_MS);
}

/* Whether ev makes the first loss of an outage certain: its end has been seen and reported. */
static bool makes_certain(struct world *w, const struct rc_event *ev)
{
	struct contract *c = &w->contract;

	if (ev->type == RC_SOCKET_ENDED && begins_outage(w)) {
		c->loss_at = w->now;
		c->detached = w->net.conn[w->shell.held[ev->conn]].how == NET_DISCONNECT &&
			      w->now - c->heard_at - (w->jumped - c->heard_jumped) >
				      2 * RC_NOTICE_MS + w->set.late_ms;
		return !c->heard_lost && c->heard_at >= w->now - RECENT_MS &&
		       c->heard_at > c->ended_at + 2 * RC_NOTICE_MS;
	}
	return ev->type == RC_LINK_DEAD && !ev->lost && c->dial_due > w->now + FIRST_MS &&
	       w->now < c->loss_at + RC_NOTICE_MS;
}

/* A dial, or a probe whether there is something to be dialled for. */
static void expect_attempt(struct world *w, long long ms)
{
	struct contract *c = &w->contract;

	c->dial_due = w->now + ms + w->set.late_ms;
	c->dial_jumped = w->jumped;
}

static void take_request(struct world *w, enum rc_request request)
{
	struct contract *c = &w->contract;
	const struct reconnect *core = &w->shell.core;

	c->dial_due = c->loss_at = -1;
	c->detached = false;
	if (request != RC_ASK_RESUME)
		return;
	c->connects = 0;
	if (client_waiting(w) > 1 || !contract_count_lost(w, false) || w->driver.disconnected)
		return;
	if (core->phase == RC_PAUSED || core->phase == RC_BACKING_OFF) {
		c->loss_at = w->now;
		expect_attempt(w, RC_NOTICE_MS + FIRST_MS);
	}
}

void contract_before_event(struct world *w, const struct rc_event *ev)
{
	struct contract *c = &w->contract;

	if (c->dial_due >= 0 && w->now > c->dial_due && w->jumped == c->dial_jumped)
		world_fail(w, RULE_PROGRESS, "no attempt %lld ms after a connection ended",
			   w->now - c->loss_at);
	if (makes_certain(w, ev))
		expect_attempt(w, FIRST_MS);
	else if (ev->type == RC_SOCKET_ENDED && c->loss_at == w->now)
		expect_attempt(w, RC_NOTICE_MS + FIRST_MS);
	switch (ev->type) {
	case RC_SOCKET_ENDED:
		c->ended_at = w->now;
		break;
	case RC_LINK_DEAD:
		c->heard_at = w->now;
		c->heard_jumped = w->jumped;
		c->heard_lost = ev->lost;
		c->detached = false;
		break;
	case RC_CLIENT:
		take_request(w, ev->request);
		break;
	case RC_DIAL_DONE:
		c->dialing = false;
		break;
	case RC_TRAFFIC:
		c->in_flight = driver_in_flight(w);
		c->traffic_failed |= ev->ret != 0;
		break;
	case RC_COMMAND_DONE:
		c->stranger |= ev->result == RC_NOT_OURS || ev->result == RC_DISCONNECTED;
		c->detached &= ev->result != RC_FAILED;
		c->refused |= ev->result == RC_FAILED && w->shell.core.phase == RC_RESIZING;
		break;
	default:
		break;
	}
}

void contract_after_event(struct world *w, const struct rc_event *ev)
{
	struct contract *c = &w->contract;

	if (!w->set.adopted && w->shell.life == 1)
		for (unsigned i = 0; i < w->set.connections; i++)
			require(w,
				w->shell.core.conn[i].state != RC_UNWATCHED &&
					w->shell.core.conn[i].state != RC_DOUBTFUL,
				"a connection that this supervisor has made is not known any more");
	if (ev->type == RC_SOCKET_ENDED && w->shell.held[ev->conn] != SHELL_NONE)
		world_fail(w, RULE_CONTRACT,
			   "connection %u has ended and is not cut: poll says so for ever",
			   ev->conn);
	if (w->shell.core.phase != RC_DRAINING)
		c->drain_since = -1;
	else if (c->drain_since < 0)
		c->drain_since = w->now;
}

static bool is_published(const struct shell *s)
{
	const struct rc_durable *a = &s->published, *b = reconnect_durable(&s->core);

	return a->paused == b->paused && a->server == b->server &&
	       a->fenced_until == b->fenced_until && a->size == b->size &&
	       a->server_size[0] == b->server_size[0] && a->server_size[1] == b->server_size[1];
}

void contract_after_actions(struct world *w)
{
	const struct shell *s = &w->shell;
	const struct rc_status *shown = &w->contract.shown;
	struct rc_status status;

	reconnect_status(&s->core, &status);
	if (!is_published(s))
		world_fail(w, RULE_DURABLE, "what must survive has changed and is not published");
	if (status.alive != shown->alive || status.reconnects != shown->reconnects ||
	    status.failures != shown->failures)
		world_fail(w, RULE_CONTRACT, "the status has changed and is not published");
	for (unsigned i = 0; i < w->set.connections; i++)
		if (s->published.paused && s->held[i] != SHELL_NONE)
			world_fail(w, RULE_DURABLE, "connection %u is not cut in a pause", i);
}

/* --- actions ------------------------------------------------------------------------------ */

static void check_rate(struct world *w, long long *times, unsigned number, unsigned limit,
		       unsigned ms, const char *what)
{
	if (number >= limit && w->now - times[(number - limit) % CONTRACT_RATE] < ms)
		world_fail(w, RULE_BOUNDED, "more than %u %s in %u ms", limit, what, ms);
	times[number % CONTRACT_RATE] = w->now;
}

static void check_dial(struct world *w, const struct rc_action *a)
{
	struct contract *c = &w->contract;
	unsigned lost = contract_count_lost(w, false);

	require(w, !c->dialing, "DIAL while a dial is under way");
	c->dialing = true;
	require(w, a->server < w->set.servers && a->count <= w->set.connections,
		"DIAL of a server or a number that does not exist");
	for (unsigned i = 0; i < SIM_SLOTS; i++)
		require(w, w->shell.candidate[i] == SHELL_NONE, "DIAL while candidates are held");
	check_rate(w, c->dial_times, c->dials++, DIALS_A_SECOND, 1000, "dials");
	c->dial_due = -1;
	if (!a->count)
		return;
	check_rate(w, c->connect_times, c->connects++, CONNECTS, CONNECTS_MS,
		   "connections asked for");
	if (c->detached && lost)
		world_fail(w, RULE_OURS, "a server is asked for a device that was disconnected");
	if (w->clients.paused)
		world_fail(w, RULE_DURABLE, "a connection is asked for in a pause");
	if (lost && w->now < w->clients.abort_until)
		world_fail(w, RULE_ANSWER, "a connection is asked for in a forced detach");
	if (a->count != (lost ? lost : 1))
		world_fail(w, RULE_AT_ONCE, "%u connections are asked for, %u are lost", a->count,
			   lost);
}

static void check_command(struct world *w)
{
	struct contract *c = &w->contract;

	require(w, !w->command.busy, "a command while another is under way");
	c->dial_due = -1;
	if (c->stranger && ++c->strange_commands > STRANGE_COMMANDS)
		world_fail(w, RULE_OURS, "%u commands after the device was found not to be ours",
			   c->strange_commands);
}

static void check_candidate(struct world *w, unsigned candidate)
{
	require(w, candidate < SIM_SLOTS && w->shell.candidate[candidate] != SHELL_NONE,
		"OFFER, INSTALL or DROP of a candidate that is not held");
}

static void check_offer(struct world *w, const struct rc_action *a)
{
	struct shell *s = &w->shell;
	const struct net_conn *c;

	check_command(w);
	check_candidate(w, a->candidate);
	require(w, !s->end_told[a->candidate], "OFFER of a candidate that has ended");
	check_rate(w, w->contract.offer_times, w->contract.offers++, OFFERS_A_SECOND, 1000,
		   "offers");
	c = &w->net.conn[s->candidate[a->candidate]];
	for (unsigned i = 0; i < w->driver.slots; i++) {
		const struct driver_slot *slot = &w->driver.slot[i];
		const struct net_conn *other = &w->net.conn[slot->conn];

		if (w->driver.owner != DRIVER_OURS || slot->dead || other->ended ||
		    other->server == c->server)
			continue;
		if (!s->unseen)
			world_fail(w, RULE_ONE_SERVER,
				   "a connection to server %u is offered while slot %u has one "
				   "to server %u",
				   c->server, i, other->server);
		w->excuses[EXCUSE_UNSEEN]++;
	}
}

static void check_resize(struct world *w, uint64_t size)
{
	const struct contract *c = &w->contract;

	check_command(w);
	for (unsigned i = 0; i < w->set.servers; i++)
		if (c->told[i] < size)
			world_fail(w, RULE_SIZE,
				   "the device grows to %llu bytes, and server %u said %llu last",
				   (unsigned long long)size, i, (unsigned long long)c->told[i]);
	if (contract_count_lost(w, false))
		world_fail(w, RULE_PROGRESS, "RESIZE while a connection is lost");
	if (w->now < c->installed_at + SENT_AGAIN_MS)
		world_fail(w, RULE_PROGRESS,
			   "RESIZE before the requests of a lost connection are sent again");
	if (c->in_flight &&
	    (c->drain_since < 0 || w->now - c->drain_since < QUIET_MS - QUIET_SLACK_MS))
		world_fail(w, RULE_PROGRESS, "RESIZE while requests are in flight");
}

static void check_disconnect(struct world *w)
{
	check_command(w);
	if (w->clients.paused)
		world_fail(w, RULE_DURABLE, "given up in a pause");
}

static void check_install(struct world *w, const struct rc_action *a)
{
	const struct shell *s = &w->shell;

	check_candidate(w, a->candidate);
	require(w,
		a->conn < w->set.connections && s->held[a->conn] == SHELL_NONE &&
			!s->cutting[a->conn],
		"INSTALL in the place of a connection that is there");
	w->contract.installed_at = w->now;
}

static void check_cut(struct world *w, const struct rc_action *a)
{
	require(w, a->conn < w->set.connections && w->shell.held[a->conn] != SHELL_NONE,
		"CUT of a connection that is not there");
	w->contract.ended_at = w->now;
}

static void check_reply(struct world *w, const struct rc_action *a)
{
	if (a->ret)
		require(w, a->err && a->err->code == -a->ret && a->err->kind && *a->err->text,
			"REPLY of an error without its text");
}

static void note_publication(struct world *w)
{
	if (w->shell.published.paused)
		w->contract.paused_at = w->now;
	reconnect_status(&w->shell.core, &w->contract.shown);
}

static void check_end(struct world *w, const struct rc_action *a)
{
	const struct driver *d = &w->driver;

	if (a->ret && !d->given_up)
		world_fail(w, RULE_PROGRESS, "the supervisor ends with an error: %s",
			   a->err ? a->err->text : "");
	if (d->owner == DRIVER_OURS && !d->disconnected && !w->shell.replaced)
		world_fail(w, RULE_PROGRESS, "the supervisor ends, and the device is ours");
	if (d->given_up && a->ret != -ETIMEDOUT)
		world_fail(w, RULE_CONTRACT, "given up, and the end says %d", a->ret);
	client_check(w, false);
}

/* --- notes -------------------------------------------------------------------------------- */

static void check_hang_note(struct world *w)
{
	struct command *c = &w->command;

	if (!c->busy || c->hang_noted || w->now - c->given_at < HANG_MS)
		world_fail(w, RULE_CONTRACT, "a note that a command hangs, %s",
			   c->busy ? "again, or too soon" : "and there is none");
	c->hang_noted = true;
}

static void check_failure_note(struct world *w, const struct rc_action *a)
{
	struct contract *c = &w->contract;

	require(w, a->err && a->server < w->set.servers, "a note of a failure without its text");
	if (c->noted[a->server].code == a->err->code && w->now < c->noted[a->server].at + NOTE_MS)
		world_fail(w, RULE_BOUNDED, "the same failure is noted after %lld ms",
			   w->now - c->noted[a->server].at);
	c->noted[a->server].code = a->err->code;
	c->noted[a->server].at = w->now;
}

/* Half of the limit is the least that can be called worn out, where the use is known. */
static void check_renewal(struct world *w, const struct rc_action *a)
{
	const struct shell *s = &w->shell;
	const struct net_conn *c = &w->net.conn[s->held[a->conn]];

	require(w, s->held[a->conn] != SHELL_NONE, "a renewal of a connection that is not there");
	if (!w->contract.traffic_failed && !w->contract.shrunk && c->life == s->life &&
	    2 * (driver_records(w) - c->records_made) < w->set.tls_renew)
		world_fail(w, RULE_BOUNDED, "connection %u is renewed after %llu records", a->conn,
			   (unsigned long long)(driver_records(w) - c->records_made));
}

/* The log tells what has happened, and is not flooded. */
static void check_note(struct world *w, const struct rc_action *a)
{
	struct contract *c = &w->contract;

	switch (a->note) {
	case RC_NOTE_HANGS:
		check_hang_note(w);
		break;
	case RC_NOTE_FAILED:
		check_failure_note(w, a);
		break;
	case RC_NOTE_FLAPPING:
		if (w->now < c->flap_noted_at + NOTE_MS)
			world_fail(w, RULE_BOUNDED, "flapping is noted twice a minute");
		c->flap_noted_at = w->now;
		c->outage_noted = false;
		break;
	case RC_NOTE_RENEWED:
		check_renewal(w, a);
		break;
	case RC_NOTE_DISCONNECTED:
		require(w, a->err && !strcmp(a->err->text, "RECONFIGURE refused"),
			"a note without the reason that was given");
		break;
	case RC_NOTE_LOST:
		require(w, a->number, "a note that nothing is lost");
		c->outage_noted = true;
		break;
	case RC_NOTE_RECONNECTED:
		require(w, a->ms >= 0 && !contract_count_lost(w, true),
			"a note of a reconnection that is none");
		memset(c->noted, 0, sizeof(c->noted));
		c->outage_noted = false;
		break;
	default:
		break;
	}
}

void contract_before_action(struct world *w, const struct rc_action *a)
{
	if (w->shell.ended)
		world_fail(w, RULE_CONTRACT, "action %d after the end", (int)a->type);
	switch (a->type) {
	case RC_DIAL:
		check_dial(w, a);
		break;
	case RC_OFFER:
		check_offer(w, a);
		break;
	case RC_PROBE:
		check_command(w);
		break;
	case RC_RESIZE:
		check_resize(w, a->size);
		break;
	case RC_DISCONNECT:
		check_disconnect(w);
		break;
	case RC_INSTALL:
		check_install(w, a);
		break;
	case RC_DROP:
		check_candidate(w, a->candidate);
		break;
	case RC_CUT:
		check_cut(w, a);
		break;
	case RC_REPLY:
		check_reply(w, a);
		break;
	case RC_HAND_OVER:
		require(w, !w->command.busy, "HAND_OVER while a command is under way");
		break;
	case RC_NOTE:
		check_note(w, a);
		break;
	case RC_PUBLISH:
		note_publication(w);
		break;
	case RC_END:
		check_end(w, a);
		break;
	case RC_CANCEL_DIAL:
		require(w, w->contract.dialing, "CANCEL_DIAL, and no dial is under way");
		w->contract.dialing = false;
		break;
	case RC_READ_TRAFFIC:
		break;
	}
}

static long long latest(long long a, long long b)
{
	return a > b ? a : b;
}

void contract_check(struct world *w)
{
	const struct contract *c = &w->contract;
	const struct shell *s = &w->shell;
	const struct driver *d = &w->driver;
	long long since =
		latest(latest(d->none_since, c->paused_at), latest(c->installed_at, c->heard_at));
	long long slack = GIVE_UP_SLACK_MS + w->set.late_ms;

	/* Only the first supervisor knows all the time that no connection lives. */
	if (!w->set.reconnect_timeout_s || w->set.adopted || s->life > 1 || w->set.stalls ||
	    w->jumped || !s->running || w->command.busy || d->none_since < 0 ||
	    s->published.paused || d->owner != DRIVER_OURS || d->disconnected)
		return;
	if (w->now > since + 1000LL * w->set.reconnect_timeout_s + slack &&
	    w->now > w->command.done_at + slack)
		world_fail(w, RULE_PROGRESS, "not given up %lld ms after the last connection ended",
			   w->now - since);
}
