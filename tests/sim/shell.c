/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "shell.h"

#include <errno.h>
#include <string.h>

#include "proto/wire.h"
#include "world.h"

enum {
	NOTICE_MS = 60, /* how late a notice may be read */
	DIALS_A_SECOND = 24,
	OFFERS_A_SECOND = 56,
	SPINS = 100,          /* ticks without any time between them */
	HANG_MS = 10000,      /* a command that takes so long is worth a note */
	NOTE_MS = 60000,      /* the same note comes once in that time */
	QUIET_MS = 20000,     /* the wait for a moment without requests, to grow */
	STRANGE_COMMANDS = 3, /* for a device that was found to be somebody else's */
	QUIET_SLACK_MS = 100,
	GIVE_UP_SLACK_MS = 3000,
	PROBE_MS = 2000, /* how long an adopting supervisor waits for a block */
	RECENT_MS = 100, /* a successor has heard a notice of that age as well */
};

static const struct plan plans[2] = {
	{ .size = SIM_SIZE,
	  .block_size = 512,
	  .max_sectors_kb = 1024,
	  .server_flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH,
	  .write_back = true },
	{ .size = SIM_SIZE,
	  .block_size = 512,
	  .max_sectors_kb = 1024,
	  .timeout_s = 30,
	  .server_flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_CAN_MULTI_CONN,
	  .write_back = true,
	  .multi_conn = true },
};

static void carry_out(struct world *w, const struct rc_action *a);

/* --- events ------------------------------------------------------------------------------------------------- */

static void push_event(struct world *w, const struct rc_event *ev)
{
	struct shell *s = &w->shell;

	if (s->count == SHELL_EVENTS)
		world_fail(w, RULE_BOUNDED, "more than %u events at once", SHELL_EVENTS);
	s->event[(s->first + s->count++) % SHELL_EVENTS] = *ev;
}

static void tick(struct world *w, unsigned serial, unsigned unused)
{
	struct rc_event ev = { .type = RC_TICK };

	(void)unused;
	if (!w->shell.running || w->shell.tick_serial != serial)
		return;
	w->shell.tick_at = RC_NEVER;
	shell_event(w, &ev);
}

static void arm_tick(struct world *w)
{
	struct shell *s = &w->shell;
	long long at = reconnect_deadline(&s->core);

	if (!s->running || at == s->tick_at)
		return;
	s->tick_at = at;
	s->tick_serial++;
	if (at == RC_NEVER)
		return;
	if (at <= w->now && ++s->spins > SPINS)
		world_fail(w, RULE_BOUNDED, "a deadline has passed and stays, phase %d",
			   (int)s->core.phase);
	if (at > w->now)
		s->spins = 0;
	at = at > w->now ? at - w->now : 0;
	if (w->set.late_ms && world_chance(w, 30))
		at += world_random(w, w->set.late_ms);
	world_after(w, at, tick, s->tick_serial, 0);
}

static bool is_published(const struct shell *s)
{
	const struct rc_durable *a = &s->published, *b = reconnect_durable(&s->core);

	return a->paused == b->paused && a->server == b->server &&
	       a->fenced_until == b->fenced_until && a->size == b->size &&
	       a->server_size[0] == b->server_size[0] && a->server_size[1] == b->server_size[1];
}

static void take_actions(struct world *w)
{
	struct shell *s = &w->shell;
	struct rc_action a;

	while (s->running && reconnect_action(&s->core, &a)) {
		if (s->ended)
			world_fail(w, RULE_CONTRACT, "action %d after the end", (int)a.type);
		carry_out(w, &a);
		if (s->kill_in >= 0 && !s->kill_in-- && !s->replaced)
			shell_kill(w);
	}
	if (s->running && !is_published(s))
		world_fail(w, RULE_DURABLE, "what must survive has changed and is not published");
}

static void watch_drain(struct world *w)
{
	struct shell *s = &w->shell;

	if (s->core.phase != RC_DRAINING)
		s->drain_since = -1;
	else if (s->drain_since < 0)
		s->drain_since = w->now;
}

static void finish_life(struct world *w);

/* Tells the core what is queued, and carries out what it wants. */
static void run_core(struct world *w)
{
	struct shell *s = &w->shell;
	struct rc_event now;

	s->carrying_out = true;
	take_actions(w);
	while (s->running && !s->ended && s->count) {
		now = s->event[s->first];
		s->first = (s->first + 1) % SHELL_EVENTS;
		s->count--;
		reconnect_event(&s->core, &now, w->now);
		take_actions(w);
		if (s->running && now.type == RC_SOCKET_ENDED && s->held[now.conn] != SHELL_NONE)
			world_fail(w, RULE_CONTRACT,
				   "connection %u has ended and is not cut: poll says so for ever",
				   now.conn);
		watch_drain(w);
	}
	s->carrying_out = false;
	if (s->ended)
		finish_life(w);
	else if (s->running)
		arm_tick(w);
}

void shell_event(struct world *w, const struct rc_event *ev)
{
	if (!w->shell.running)
		return;
	push_event(w, ev);
	if (!w->shell.carrying_out)
		run_core(w);
}

static void deliver_notice(struct world *w, unsigned life, unsigned lost)
{
	const struct shell *s = &w->shell;
	struct rc_event ev = { .type = RC_LINK_DEAD, .lost = lost };

	/* A successor listens before it asks for the hand-over. */
	if (life != s->life && !(s->heir && life + 1 == s->life))
		return;
	STORY(w, "supervisor: %s", lost ? "notices were lost" : "LINK_DEAD");
	w->shell.heard_at = w->now;
	w->shell.heard_lost = lost;
	w->shell.unseen |= lost && !w->set.request_timeout_s && driver_alive(w) &&
			   w->shell.core.conn[0].state == RC_UNWATCHED;
	shell_event(w, &ev);
}

void shell_notice(struct world *w, bool lost)
{
	world_after(w, world_random(w, world_chance(w, 20) ? NOTICE_MS : 3), deliver_notice,
		    w->shell.life, lost);
}

void shell_poll(struct world *w, unsigned conn, unsigned unused)
{
	struct shell *s = &w->shell;
	const struct net_conn *c = &w->net.conn[conn];
	struct rc_event ev = { 0 };

	(void)unused;
	if (!s->running || !c->ended)
		return;
	if (c->holder == NET_CANDIDATE && s->candidate[c->index] == (int)conn &&
	    !s->end_told[c->index]) {
		s->end_told[c->index] = true;
		ev.type = RC_CANDIDATE_ENDED;
		ev.candidate = c->index;
	} else if (c->holder == NET_INSTALLED && s->held[c->index] == (int)conn) {
		ev.type = RC_SOCKET_ENDED;
		ev.conn = c->index;
	} else {
		return;
	}
	STORY(w, "supervisor: %s %u has ended",
	      ev.type == RC_SOCKET_ENDED ? "connection" : "candidate", c->index);
	shell_event(w, &ev);
}

void shell_poll_all(struct world *w)
{
	struct shell *s = &w->shell;

	for (unsigned i = 0; i < SIM_SLOTS; i++) {
		if (s->held[i] != SHELL_NONE)
			shell_poll(w, (unsigned)s->held[i], 0);
		if (s->candidate[i] != SHELL_NONE)
			shell_poll(w, (unsigned)s->candidate[i], 0);
	}
}

void shell_cut_done(struct world *w, unsigned conn, unsigned index)
{
	struct shell *s = &w->shell;
	struct rc_event ev = { .type = RC_CUT_DONE, .conn = index };

	(void)conn;
	if (!s->running || index >= SIM_SLOTS || !s->cutting[index])
		return;
	s->cutting[index] = false;
	STORY(w, "supervisor: connection %u is cut for good", index);
	shell_event(w, &ev);
}

/* --- the contract --------------------------------------------------------------------------------------------- */

/* before: those only that were lost before this event, whose actions are seen when it is over. */
static unsigned count_lost(const struct world *w, bool before)
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

static void check_rate(struct world *w, long long *times, unsigned number, unsigned limit,
		       const char *what)
{
	if (number >= limit && w->now - times[(number - limit) % SHELL_RATE] < 1000)
		world_fail(w, RULE_BOUNDED, "more than %u %s in a second", limit, what);
	times[number % SHELL_RATE] = w->now;
}

static void check_dial(struct world *w, const struct rc_action *a)
{
	struct shell *s = &w->shell;
	unsigned lost = count_lost(w, false);

	require(w, !w->dialer.busy, "DIAL while a dial is under way");
	require(w, a->server < w->set.servers && a->count <= w->set.connections,
		"DIAL of a server or a number that does not exist");
	for (unsigned i = 0; i < SIM_SLOTS; i++)
		require(w, s->candidate[i] == SHELL_NONE, "DIAL while candidates are held");
	check_rate(w, s->dial_times, s->dials++, DIALS_A_SECOND, "dials");
	if (!a->count)
		return;
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
	struct shell *s = &w->shell;

	require(w, !w->command.busy, "a command while another is under way");
	if (s->stranger && ++s->strange_commands > STRANGE_COMMANDS)
		world_fail(w, RULE_OURS, "%u commands after the device was found not to be ours",
			   s->strange_commands);
}

static void check_offer(struct world *w, const struct rc_action *a)
{
	struct shell *s = &w->shell;
	const struct net_conn *c;

	require(w, a->candidate < SIM_SLOTS && s->candidate[a->candidate] != SHELL_NONE,
		"OFFER of a candidate that is not held");
	require(w, !s->end_told[a->candidate], "OFFER of a candidate that has ended");
	check_rate(w, s->offer_times, s->offers++, OFFERS_A_SECOND, "offers");
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
	const struct shell *s = &w->shell;

	for (unsigned i = 0; i < w->set.servers; i++)
		if (s->told[i] < size)
			world_fail(w, RULE_SIZE,
				   "the device grows to %llu bytes, and server %u said %llu last",
				   (unsigned long long)size, i, (unsigned long long)s->told[i]);
	if (count_lost(w, false))
		world_fail(w, RULE_PROGRESS, "RESIZE while a connection is lost");
	if (s->in_flight &&
	    (s->drain_since < 0 || w->now - s->drain_since < QUIET_MS - QUIET_SLACK_MS))
		world_fail(w, RULE_PROGRESS, "RESIZE while requests are in flight");
}

/* --- actions -------------------------------------------------------------------------------------------------- */

static void dial(struct world *w, const struct rc_action *a)
{
	struct rc_event ev = { .type = RC_DETACHED };

	check_dial(w, a);
	if (w->driver.owner == DRIVER_OURS || w->options.plant == PLANT_NO_IDENTITY) {
		dialer_dial(w, a->server, a->count);
		return;
	}
	STORY(w, "supervisor: the device is not ours any more");
	push_event(w, &ev);
}

static void give_command(struct world *w, const struct rc_action *a)
{
	struct shell *s = &w->shell;

	check_command(w);
	switch (a->type) {
	case RC_OFFER:
		check_offer(w, a);
		STORY(w, "supervisor: offers candidate %u, connection %d", a->candidate,
		      s->candidate[a->candidate]);
		command_give(w, COMMAND_OFFER, (unsigned)s->candidate[a->candidate], 0);
		break;
	case RC_RESIZE:
		STORY(w, "supervisor: resizes to %llu", (unsigned long long)a->size);
		check_resize(w, a->size);
		command_give(w, COMMAND_RESIZE, 0, a->size);
		break;
	case RC_DISCONNECT:
		STORY(w, "supervisor: gives up");
		if (w->clients.paused)
			world_fail(w, RULE_DURABLE, "given up in a pause");
		command_give(w, COMMAND_DISCONNECT, 0, 0);
		break;
	default:
		STORY(w, "supervisor: probes");
		command_give(w, COMMAND_PROBE, 0, 0);
		break;
	}
}

static void install(struct world *w, const struct rc_action *a)
{
	struct shell *s = &w->shell;
	struct net_conn *c;
	int conn;

	require(w, a->candidate < SIM_SLOTS && s->candidate[a->candidate] != SHELL_NONE,
		"INSTALL of a candidate that is not held");
	require(w,
		a->conn < w->set.connections && s->held[a->conn] == SHELL_NONE &&
			!s->cutting[a->conn],
		"INSTALL in the place of a connection that is there");
	conn = s->candidate[a->candidate];
	STORY(w, "supervisor: candidate %u is connection %u now", a->candidate, a->conn);
	s->candidate[a->candidate] = SHELL_NONE;
	s->held[a->conn] = conn;
	c = &w->net.conn[conn];
	s->installed_at = w->now;
	c->holder = NET_INSTALLED;
	c->index = a->conn;
	c->life = s->life;
	if (c->ended)
		world_after(w, 0, shell_poll, (unsigned)conn, 0);
}

static void drop(struct world *w, const struct rc_action *a)
{
	struct shell *s = &w->shell;
	int conn;

	require(w, a->candidate < SIM_SLOTS && s->candidate[a->candidate] != SHELL_NONE,
		"DROP of a candidate that is not held");
	conn = s->candidate[a->candidate];
	STORY(w, "supervisor: drops candidate %u", a->candidate);
	s->candidate[a->candidate] = SHELL_NONE;
	w->net.conn[conn].index = SIM_SLOTS;
	net_cut(w, (unsigned)conn);
}

static void cut(struct world *w, const struct rc_action *a)
{
	struct shell *s = &w->shell;
	int conn;

	require(w, a->conn < w->set.connections && s->held[a->conn] != SHELL_NONE,
		"CUT of a connection that is not there");
	conn = s->held[a->conn];
	STORY(w, "supervisor: cuts connection %u", a->conn);
	s->held[a->conn] = SHELL_NONE;
	s->cutting[a->conn] = true;
	if (w->options.plant == PLANT_NO_CUT) {
		w->net.conn[conn].holder = NET_NOBODY;
		shell_cut_done(w, (unsigned)conn, a->conn);
	} else if (net_cut(w, (unsigned)conn) || w->options.plant == PLANT_CUT_DONE_EARLY) {
		shell_cut_done(w, (unsigned)conn, a->conn);
	}
}

static void read_traffic(struct world *w)
{
	struct rc_event ev = {
		.type = RC_TRAFFIC,
		.ret = world_chance(w, 200) ? -EIO : 0,
		.requests = w->driver.requests,
		.bytes = w->driver.bytes,
		.in_flight = driver_in_flight(w),
	};

	w->shell.in_flight = ev.in_flight;
	w->shell.traffic_failed |= ev.ret != 0;
	if (w->driver.owner != DRIVER_OURS)
		ev = (struct rc_event){ .type = RC_DETACHED };
	push_event(w, &ev);
}

static void reply(struct world *w, const struct rc_action *a)
{
	const char *text = a->ret && a->err ? a->err->text : "";

	if (a->ret)
		require(w, a->err && a->err->code == -a->ret, "REPLY of an error without its text");
	if (w->options.plant == PLANT_NO_REPLY && world_chance(w, 4))
		return;
	client_reply(w, a->client, a->ret, text);
	if (w->options.plant == PLANT_TWO_REPLIES && world_chance(w, 4))
		client_reply(w, a->client, a->ret, text);
}

static void hand_over(struct world *w, unsigned life, unsigned unused)
{
	struct shell *s = &w->shell;
	struct rc_event ev = { .type = RC_HANDED_OVER };

	(void)unused;
	if (!s->running || s->life != life)
		return;
	ev.ret = world_chance(w, 4) ? -EPIPE : 0;
	STORY(w, "supervisor: the successor %s", ev.ret ? "is gone" : "has everything");
	s->replaced = !ev.ret;
	shell_event(w, &ev);
	if (!ev.ret && s->life == life)
		world_fail(w, RULE_CONTRACT, "no END after the hand-over");
}

static void check_hang_note(struct world *w)
{
	struct command *c = &w->command;

	STORY(w, "supervisor: notes that a command hangs");
	if (!c->busy || c->hang_noted || w->now - c->given_at < HANG_MS)
		world_fail(w, RULE_CONTRACT, "a note that a command hangs, %s",
			   c->busy ? "again, or too soon" : "and there is none");
	c->hang_noted = true;
}

static void check_failure_note(struct world *w, const struct rc_action *a)
{
	struct shell *s = &w->shell;

	require(w, a->err && a->server < w->set.servers, "a note of a failure without its text");
	if (s->noted[a->server].code == a->err->code && w->now < s->noted[a->server].at + NOTE_MS)
		world_fail(w, RULE_BOUNDED, "the same failure is noted after %lld ms",
			   w->now - s->noted[a->server].at);
	s->noted[a->server].code = a->err->code;
	s->noted[a->server].at = w->now;
}

/* Half of the limit is the least that can be called worn out, where it is known how much was used. */
static void check_renewal(struct world *w, const struct rc_action *a)
{
	const struct shell *s = &w->shell;
	const struct net_conn *c = &w->net.conn[s->held[a->conn]];

	require(w, s->held[a->conn] != SHELL_NONE, "a renewal of a connection that is not there");
	if (!s->traffic_failed && !s->shrunk && c->life == s->life &&
	    2 * (driver_records(w) - c->records_made) < w->set.tls_renew)
		world_fail(w, RULE_BOUNDED, "connection %u is renewed after %llu records", a->conn,
			   (unsigned long long)(driver_records(w) - c->records_made));
}

/* The log tells what has happened, and is not flooded. */
static void check_note(struct world *w, const struct rc_action *a)
{
	struct shell *s = &w->shell;

	switch (a->note) {
	case RC_NOTE_HANGS:
		check_hang_note(w);
		break;
	case RC_NOTE_FAILED:
		check_failure_note(w, a);
		break;
	case RC_NOTE_FLAPPING:
		if (w->now < s->flap_noted_at + NOTE_MS)
			world_fail(w, RULE_BOUNDED, "flapping is noted twice a minute");
		s->flap_noted_at = w->now;
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
		break;
	case RC_NOTE_RECONNECTED:
		require(w, a->ms >= 0 && !count_lost(w, true),
			"a note of a reconnection that is none");
		memset(s->noted, 0, sizeof(s->noted));
		break;
	default:
		break;
	}
}

static void end(struct world *w, const struct rc_action *a)
{
	struct shell *s = &w->shell;
	const struct driver *d = &w->driver;

	STORY(w, "supervisor: ends, %d", a->ret);
	if (a->ret && !d->given_up)
		world_fail(w, RULE_PROGRESS, "the supervisor ends with an error: %s",
			   a->err ? a->err->text : "");
	if (d->owner == DRIVER_OURS && !d->disconnected && !s->replaced)
		world_fail(w, RULE_PROGRESS, "the supervisor ends, and the device is ours");
	s->ended = true;
	client_check(w, false);
}

static void carry_out(struct world *w, const struct rc_action *a)
{
	switch (a->type) {
	case RC_DIAL:
		dial(w, a);
		break;
	case RC_CANCEL_DIAL:
		dialer_cancel(w);
		break;
	case RC_OFFER:
	case RC_PROBE:
	case RC_RESIZE:
	case RC_DISCONNECT:
		give_command(w, a);
		break;
	case RC_INSTALL:
		install(w, a);
		break;
	case RC_DROP:
		drop(w, a);
		break;
	case RC_CUT:
		cut(w, a);
		break;
	case RC_READ_TRAFFIC:
		read_traffic(w);
		break;
	case RC_REPLY:
		reply(w, a);
		break;
	case RC_HAND_OVER:
		require(w, !w->command.busy, "HAND_OVER while a command is under way");
		w->shell.handing_since = w->now;
		client_handed(w, a->client);
		world_after(w, 1 + world_random(w, 100), hand_over, w->shell.life, 0);
		break;
	case RC_NOTE:
		check_note(w, a);
		break;
	case RC_PUBLISH:
		if (w->shell.published.paused)
			w->shell.paused_at = w->now;
		w->shell.published = *reconnect_durable(&w->shell.core);
		break;
	case RC_END:
		end(w, a);
		break;
	}
}

/* --- lives ---------------------------------------------------------------------------------------------------- */

static void clear_hands(struct shell *s)
{
	for (unsigned i = 0; i < SIM_SLOTS; i++) {
		s->held[i] = s->candidate[i] = SHELL_NONE;
		s->cutting[i] = false;
	}
	s->first = s->count = 0;
	s->kill_in = -1;
	s->carrying_out = false;
}

static void let_go(struct world *w)
{
	struct shell *s = &w->shell;

	dialer_cancel(w);
	for (unsigned i = 0; i < SIM_SLOTS; i++) {
		s->stored[i] = s->has_store ? s->held[i] : SHELL_NONE;
		if (s->candidate[i] != SHELL_NONE)
			net_abandon(w, (unsigned)s->candidate[i]);
		if (s->held[i] != SHELL_NONE && !s->has_store)
			net_abandon(w, (unsigned)s->held[i]);
	}
	for (unsigned i = 0; i < w->net.conns; i++)
		if (w->net.conn[i].lingers)
			net_abandon(w, i);
}

/* After END. */
static void finish_life(struct world *w)
{
	struct shell *s = &w->shell;

	s->running = s->has_store = false;
	if (s->replaced) {
		s->ended = false;
		shell_start(w, SHELL_HANDED_OVER);
	} else {
		let_go(w);
		clear_hands(s);
		w->clients.paused = false;
	}
}

void shell_kill(struct world *w)
{
	struct shell *s = &w->shell;

	if (!s->running || s->replaced)
		return;
	STORY(w, "supervisor: killed");
	s->running = false;
	s->has_store = world_chance(w, 4);
	let_go(w);
	clear_hands(s);
	client_orphan(w);
	world_after(w, 10 + world_random(w, world_chance(w, 3) ? 20000 : 500), shell_adopt, 0, 0);
}

void shell_adopt(struct world *w, unsigned unused, unsigned unused2)
{
	struct shell *s = &w->shell;

	(void)unused;
	(void)unused2;
	if (s->running || s->ended)
		return;
	if (w->command.busy) {
		world_after(w, 100, shell_adopt, 0, 0);
		return;
	}
	if (w->driver.owner != DRIVER_OURS || w->driver.disconnected) {
		STORY(w, "supervisor: nothing to adopt");
		s->ended = true;
		return;
	}
	shell_start(w, s->has_store ? SHELL_FROM_STORE : SHELL_ADOPTED);
}

/* What can be found out without a descriptor: with timeout 0 by reading a block, which takes a server. */
static enum rc_conn_state guess_state(struct world *w, unsigned i)
{
	const struct driver_slot *slot = &w->driver.slot[i];
	const struct net_conn *c = &w->net.conn[slot->conn];
	const struct server *server = &w->server[c->server];

	if (w->set.request_timeout_s)
		return RC_DOUBTFUL;
	if (slot->dead || slot->dying || c->ended)
		return RC_DOWN;
	if (server_reads(server) && server_hears(server) && server->service_ms < PROBE_MS)
		return RC_UNWATCHED;
	w->shell.unseen = true;
	return RC_DOWN;
}

/* The service manager may have kept one that was installed and that the driver never took. */
static int find_descriptor(struct world *w, enum shell_start how, unsigned i)
{
	int stored = w->shell.stored[i];

	if (how == SHELL_FRESH)
		return (int)w->driver.slot[i].conn;
	if (how != SHELL_FROM_STORE || stored == SHELL_NONE)
		return SHELL_NONE;
	if (!w->set.request_timeout_s || w->net.conn[stored].marked)
		return stored;
	net_abandon(w, (unsigned)stored);
	return SHELL_NONE;
}

static void configure_conn(struct world *w, enum shell_start how, unsigned i)
{
	struct shell *s = &w->shell;
	struct rc_conn *c = &s->config.conn[i];

	if (how == SHELL_HANDED_OVER) {
		*c = s->core.conn[i];
		if (c->state == RC_CUTTING)
			c->state = RC_DOWN;
		s->cutting[i] = false;
		return;
	}
	*c = (struct rc_conn){
		.state = RC_UP,
		.kernel_tls = w->set.kernel_tls,
		.since = w->now,
		.size = s->config.durable.size,
	};
	s->held[i] = find_descriptor(w, how, i);
	if (s->held[i] == SHELL_NONE) {
		c->state = guess_state(w, i);
		c->reported = c->state == RC_DOWN;
		return;
	}
	w->net.conn[s->held[i]].holder = NET_INSTALLED;
	w->net.conn[s->held[i]].index = i;
	if (w->net.conn[s->held[i]].ended)
		world_after(w, world_random(w, 3), shell_poll, (unsigned)s->held[i], 0);
}

static void configure(struct world *w, enum shell_start how)
{
	struct shell *s = &w->shell;
	struct rc_config *c = &s->config;

	c->connections = w->set.connections;
	c->servers = w->set.servers;
	c->request_timeout_s = w->set.request_timeout_s;
	c->reconnect_timeout_s = w->set.reconnect_timeout_s;
	c->fence_delay_s = w->set.fence_delay_s;
	c->tls_renew = w->set.tls_renew;
	c->plan = &plans[w->set.connections > 1];
	c->export_name = "export";
	c->seed = world_random(w, 1U << 31);
	c->durable = s->published;
	if (w->options.plant == PLANT_FORGETFUL)
		c->durable = (struct rc_durable){ .fenced_until = RC_NEVER };
	c->durable.size = w->driver.size;
	for (unsigned i = 0; i < SIM_SERVERS; i++)
		s->told[i] = c->durable.server_size[i];
	s->unseen &= how == SHELL_HANDED_OVER || how == SHELL_FROM_STORE;
	for (unsigned i = 0; i < w->set.connections; i++)
		configure_conn(w, how, i);
}

void shell_start(struct world *w, enum shell_start how)
{
	static const char *const names[] = {
		[SHELL_FRESH] = "starts",
		[SHELL_ADOPTED] = "adopts the device",
		[SHELL_FROM_STORE] = "adopts the device, with descriptors",
		[SHELL_HANDED_OVER] = "takes over",
	};
	struct shell *s = &w->shell;

	STORY(w, "supervisor: %s", names[how]);
	configure(w, how);
	s->running = true;
	s->replaced = false;
	s->heir = how == SHELL_HANDED_OVER;
	s->life++;
	s->tick_at = RC_NEVER;
	s->tick_serial++;
	s->spins = 0;
	s->first = s->count = 0;
	s->kill_in = -1;
	s->stranger = s->traffic_failed = s->shrunk = false;
	s->strange_commands = 0;
	s->drain_since = -1;
	s->in_flight = 0;
	s->dials = s->offers = 0;
	memset(s->noted, 0, sizeof(s->noted));
	s->flap_noted_at = -NOTE_MS;
	w->clients.abort_until = 0;
	reconnect_init(&s->core, &s->config, w->now);
	s->published = *reconnect_durable(&s->core);
	run_core(w);
	/* With timeout 0 a connection of the store may be one that the driver never took. */
	if (how == SHELL_FROM_STORE && !w->set.request_timeout_s && guess_state(w, 0) == RC_DOWN)
		shell_notice(w, true);
	if (how != SHELL_HANDED_OVER)
		return;
	/* It has heard what its predecessor heard since it was asked, and may have heard a little more. */
	if (s->heard_at >= s->handing_since ||
	    (w->now - s->heard_at < RECENT_MS && world_chance(w, 4)))
		shell_notice(w, s->heard_lost);
}

void shell_begin(struct world *w)
{
	struct shell *s = &w->shell;

	s->running = s->ended = s->unseen = s->replaced = s->heir = false;
	s->life = 0;
	s->heard_at = s->paused_at = s->installed_at = -1;
	clear_hands(s);
	s->has_store = world_chance(w, 4);
	for (unsigned i = 0; i < SIM_SLOTS; i++)
		s->stored[i] = i < w->driver.slots ? (int)w->driver.slot[i].conn : SHELL_NONE;
	s->published = (struct rc_durable){
		.fenced_until = RC_NEVER,
		.size = w->driver.size,
		.server_size = { w->driver.size },
	};
	if (!w->set.adopted) {
		shell_start(w, SHELL_FRESH);
		return;
	}
	s->published.paused = world_chance(w, 10);
	for (unsigned i = 0; i < w->driver.slots; i++)
		if (s->published.paused || world_chance(w, 4))
			net_end(w, w->driver.slot[i].conn, NET_BROKEN);
	world_after(w, world_random(w, 1000), shell_adopt, 0, 0);
}

static long long latest(long long a, long long b)
{
	return a > b ? a : b;
}

void shell_check(struct world *w)
{
	const struct shell *s = &w->shell;
	const struct driver *d = &w->driver;
	long long since =
		latest(latest(d->none_since, s->paused_at), latest(s->installed_at, s->heard_at));
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

const char *shell_is_settled(struct world *w)
{
	const struct shell *s = &w->shell;

	if (!s->running)
		return "there is no supervisor";
	if (count_lost(w, false))
		return "the supervisor knows of a lost connection";
	for (unsigned i = 0; i < w->set.connections; i++) {
		const struct driver_slot *slot = &w->driver.slot[i];
		const struct net_conn *c = &w->net.conn[slot->conn];

		if (slot->dead || c->ended)
			return "a slot has no connection";
		if (s->held[i] == SHELL_NONE)
			continue;
		if (w->net.conn[s->held[i]].ended)
			return "a connection has ended";
		if (w->set.request_timeout_s && w->net.conn[s->held[i]].slot < 0)
			return "a connection is not used by the driver";
	}
	return NULL;
}
