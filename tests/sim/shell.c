/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "shell.h"

#include <errno.h>
#include <string.h>

#include "proto/wire.h"
#include "world.h"

enum {
	NOTICE_MS = 60,  /* how late a notice may be read */
	SPINS = 100,     /* ticks without any time between them */
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

/* --- events ------------------------------------------------------------------------------- */

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

	/* A suspend puts off what poll waits for, until the next call. */
	if (!s->running || (at == s->tick_at && w->jumped == s->tick_jumped))
		return;
	s->tick_at = at;
	s->tick_jumped = w->jumped;
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

static void take_actions(struct world *w)
{
	struct shell *s = &w->shell;
	struct rc_action a;

	while (s->running && reconnect_action(&s->core, &a)) {
		contract_before_action(w, &a);
		carry_out(w, &a);
		if (s->kill_in >= 0 && !s->kill_in-- && !s->replaced)
			shell_kill(w);
	}
	if (s->running && !s->ended)
		contract_after_actions(w);
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
		contract_before_event(w, &now);
		reconnect_event(&s->core, &now, w->now);
		take_actions(w);
		if (s->running)
			contract_after_event(w, &now);
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
	w->shell.heard += !lost;
	w->shell.heard_lost += lost;
	STORY(w, "supervisor: %s", lost ? "notices were lost" : "LINK_DEAD");
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

/* --- actions ------------------------------------------------------------------------------ */

static void dial(struct world *w, const struct rc_action *a)
{
	struct rc_event ev = { .type = RC_DETACHED };

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

	switch (a->type) {
	case RC_OFFER:
		STORY(w, "supervisor: offers candidate %u, connection %d", a->candidate,
		      s->candidate[a->candidate]);
		command_give(w, COMMAND_OFFER, (unsigned)s->candidate[a->candidate], 0);
		break;
	case RC_RESIZE:
		STORY(w, "supervisor: resizes to %llu", (unsigned long long)a->size);
		command_give(w, COMMAND_RESIZE, 0, a->size);
		break;
	case RC_DISCONNECT:
		STORY(w, "supervisor: gives up");
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

	conn = s->candidate[a->candidate];
	STORY(w, "supervisor: candidate %u is connection %u now", a->candidate, a->conn);
	s->candidate[a->candidate] = SHELL_NONE;
	s->held[a->conn] = conn;
	c = &w->net.conn[conn];
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

	if (w->driver.owner != DRIVER_OURS)
		ev = (struct rc_event){ .type = RC_DETACHED };
	push_event(w, &ev);
}

static void reply(struct world *w, const struct rc_action *a)
{
	const char *text = a->ret && a->err ? a->err->text : "";

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
		w->shell.heard = w->shell.heard_lost = 0;
		client_handed(w, a->client);
		world_after(w, 1 + world_random(w, 100), hand_over, w->shell.life, 0);
		break;
	case RC_NOTE:
		STORY(w, "supervisor: note %d", (int)a->note);
		break;
	case RC_PUBLISH:
		w->shell.published = *reconnect_durable(&w->shell.core);
		break;
	case RC_END:
		STORY(w, "supervisor: ends, %d", a->ret);
		w->shell.ended = true;
		break;
	}
}

/* --- lives -------------------------------------------------------------------------------- */

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

/* What can be found out without a descriptor: with timeout 0 by reading a block. */
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
	w->clients.abort_until = 0;
	contract_renew(w);
	reconnect_init(&s->core, &s->config, w->now);
	s->published = *reconnect_durable(&s->core);
	run_core(w);
	/* With timeout 0 a connection of the store may be one that the driver never took. */
	if (how == SHELL_FROM_STORE && !w->set.request_timeout_s && guess_state(w, 0) == RC_DOWN)
		shell_notice(w, true);
	if (how != SHELL_HANDED_OVER)
		return;
	/* It has heard what its predecessor heard since it was asked, or a little more. */
	if (!s->heard && w->now - w->contract.heard_at < RECENT_MS && world_chance(w, 4))
		s->heard = !w->contract.heard_lost;
	for (; s->heard; s->heard--)
		shell_notice(w, false);
	for (; s->heard_lost; s->heard_lost--)
		shell_notice(w, true);
}

void shell_begin(struct world *w)
{
	struct shell *s = &w->shell;

	s->running = s->ended = s->unseen = s->replaced = s->heir = false;
	s->life = 0;
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

const char *shell_is_settled(struct world *w)
{
	const struct shell *s = &w->shell;

	if (!s->running)
		return "there is no supervisor";
	if (contract_count_lost(w, false))
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
