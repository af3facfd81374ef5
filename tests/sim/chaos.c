/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "chaos.h"

#include <string.h>

#include "world.h"

enum {
	CLIENTS_SOME = CLIENTS / 2,
	FLAP_MS = 30,
	ATTACH_AGAIN_MS = 300,
	RECHECK_MS = 500,
	SLOW_MS = 300, /* think time of applications in the end, so that keys last for a while */
	TRIES = 4,     /* attempts to find a fault of this world */
};

static unsigned any_server(struct world *w)
{
	return world_random(w, w->set.servers);
}

/* --- servers ------------------------------------------------------------------------------ */

static void kill_server(struct world *w)
{
	server_kill(w, any_server(w));
}

static void stop_server(struct world *w)
{
	server_stop(w, any_server(w), false);
}

static void freeze_server(struct world *w)
{
	server_stop(w, any_server(w), true);
}

static void cut_off_server(struct world *w)
{
	server_cut_off(w, any_server(w));
}

static void refuse_connections(struct world *w)
{
	struct server *s = &w->server[any_server(w)];

	s->refuses = !s->refuses;
	s->unknown = !s->refuses && world_chance(w, 4);
	STORY(w, "server %u: %s", (unsigned)(s - w->server),
	      s->refuses ? "refuses new connections" :
	      s->unknown ? "has no such export" :
			   "takes new connections");
}

static void change_export(struct world *w)
{
	struct server *s = &w->server[any_server(w)];

	s->read_only = world_chance(w, 4);
	s->one_connection = world_chance(w, 3);
	s->no_flush = world_chance(w, 6);
	s->renamed = world_chance(w, 6);
	s->size_late = world_chance(w, 4);
	s->limit = world_chance(w, 2) ? SIM_SLOTS : 1 + world_random(w, SIM_SLOTS);
	STORY(w, "server %u: %s%s%s%s%s%u connections at most", (unsigned)(s - w->server),
	      s->read_only ? "read-only, " : "", s->one_connection ? "no CAN_MULTI_CONN, " : "",
	      s->no_flush ? "no FLUSH, " : "", s->renamed ? "renamed, " : "",
	      s->size_late ? "size 0 at a look, " : "", s->limit);
}

static void change_size(struct world *w)
{
	unsigned server = any_server(w);
	uint64_t size = w->server[server].size;

	size = world_chance(w, 4) ? size - SIM_GROWTH : size + SIM_GROWTH;
	if (!world_chance(w, 3)) {
		STORY(w, "servers: all have %llu bytes", (unsigned long long)size);
		for (unsigned i = 0; i < w->set.servers; i++)
			w->server[i].size = size;
		return;
	}
	STORY(w, "server %u: %llu bytes", server, (unsigned long long)size);
	w->server[server].size = size;
}

/* One of the ends of what the above began. */
static void recover(struct world *w)
{
	unsigned server = any_server(w);

	server_start(w, server);
	if (world_chance(w, 2))
		server_go_on(w, server);
	if (world_chance(w, 2))
		server_rejoin(w, server);
}

/* --- connections -------------------------------------------------------------------------- */

static void break_connections(struct world *w)
{
	unsigned share = 1 + world_random(w, 3);
	enum net_end how = world_chance(w, 2) ? NET_FIN : NET_BROKEN;

	for (unsigned i = 0; i < w->net.conns; i++) {
		const struct net_conn *c = &w->net.conn[i];

		/* A reset in the name of a server that does nothing cannot be told from its own. */
		if (c->ended || !server_reads(&w->server[c->server]) ||
		    !server_hears(&w->server[c->server]) || !world_chance(w, share))
			continue;
		net_end(w, i, how);
	}
}

static void flap(struct world *w)
{
	w->chaos.flapping = !w->chaos.flapping;
	w->chaos.flap_ms = world_chance(w, 2) ? 500 : FLAP_MS;
	STORY(w, "servers: connections %s", w->chaos.flapping ? "do not last" : "last again");
}

static void close_again(struct world *w, unsigned conn, unsigned unused)
{
	const struct net_conn *c = &w->net.conn[conn];

	(void)unused;
	if (server_reads(&w->server[c->server]) && server_hears(&w->server[c->server]))
		net_end(w, conn, NET_FIN);
}

void chaos_connected(struct world *w, unsigned conn)
{
	/* Where they last very shortly, none lasts. */
	if (w->chaos.flapping && (w->chaos.flap_ms == FLAP_MS || !world_chance(w, 4)))
		world_after_elsewhere(w, world_random(w, w->chaos.flap_ms), close_again, conn, 0);
}

/* --- this machine ------------------------------------------------------------------------- */

static void spoil_dials(struct world *w)
{
	w->dialer.next = (enum dialer_fault)(DIALER_HANGS + world_random(w, 3));
	w->dialer.faults = 1 + world_random(w, 4);
	STORY(w, "dialer: %u dials will go wrong", w->dialer.faults);
}

static void hold_mutex(struct world *w)
{
	unsigned ms = world_random(w, world_chance(w, 3) ? 20000 : 500);

	STORY(w, "netlink: another command holds the mutex for %u ms", ms);
	if (w->command.mutex_free < w->now + ms)
		w->command.mutex_free = w->now + ms;
}

static void refuse_commands(struct world *w)
{
	w->command.fails = !w->command.fails;
	STORY(w, "driver: commands %s", w->command.fails ? "fail" : "succeed");
}

static void kill_supervisor(struct world *w)
{
	if (world_chance(w, 2) || !w->shell.running)
		shell_kill(w);
	else
		w->shell.kill_in = (int)world_random(w, 6);
}

void chaos_ambush(struct world *w)
{
	if (w->chaos.ambush && !w->chaos.over && world_chance(w, 4))
		shell_kill(w);
}

static void suspend(struct world *w)
{
	world_suspend(w, world_random(w, world_chance(w, 2) ? 2000 : 60000));
}

static void lose_notices(struct world *w)
{
	if (w->set.loses_notices)
		shell_notice(w, true);
}

static void wake_supervisor(struct world *w)
{
	const struct rc_event ev = { .type = RC_TICK };

	shell_event(w, &ev);
}

/* --- clients ------------------------------------------------------------------------------ */

static void ask(struct world *w, enum rc_request request)
{
	if (w->clients.count < CLIENTS_SOME)
		client_ask(w, request);
}

static void pause_or_resume(struct world *w)
{
	ask(w, world_chance(w, 2) ? RC_ASK_RESUME : RC_ASK_PAUSE);
}

static void rescan(struct world *w)
{
	ask(w, RC_ASK_RESCAN);
}

static void hand_over(struct world *w)
{
	ask(w, RC_ASK_HAND_OVER);
}

static void hang_up(struct world *w)
{
	/* Also one that was answered before, and whose end is seen only now. */
	for (unsigned i = w->clients.count; i-- > 0;)
		if (world_chance(w, 2)) {
			client_hang_up(w, i);
			return;
		}
}

static void detach_now(struct world *w, unsigned attach, unsigned unused)
{
	(void)unused;
	if (!w->chaos.over)
		chaos_detach(w, attach);
}

static void abort_connections(struct world *w)
{
	ask(w, RC_ASK_ABORT);
	if (world_chance(w, 4))
		world_after(w, world_random(w, 15000), detach_now, 0, 0);
}

/* --- other tools -------------------------------------------------------------------------- */

static void attach_foreign(struct world *w, unsigned unused, unsigned unused2)
{
	(void)unused;
	(void)unused2;
	if (w->driver.owner == DRIVER_FREE)
		driver_attach_foreign(w);
	else if (w->driver.owner == DRIVER_OURS && w->driver.disconnected)
		world_after(w, 1 + world_random(w, ATTACH_AGAIN_MS), attach_foreign, 0, 0);
}

static void recheck(struct world *w, unsigned unused, unsigned unused2)
{
	const struct rc_event ev = { .type = RC_DETACHED };

	(void)unused;
	(void)unused2;
	if (w->driver.owner != DRIVER_OURS)
		shell_event(w, &ev);
}

void chaos_detach(struct world *w, bool attach)
{
	if (w->driver.owner != DRIVER_OURS || w->driver.disconnected)
		return;
	STORY(w, "another tool: detaches");
	w->chaos.detached = true;
	driver_disconnect(w);
	if (attach)
		world_after(w, world_random(w, ATTACH_AGAIN_MS), attach_foreign, 0, 0);
	if (world_chance(w, 2))
		world_after(w, world_random(w, RECHECK_MS), recheck, 0, 0);
}

static void detach(struct world *w)
{
	if (world_chance(w, 8))
		chaos_detach(w, !world_chance(w, 3));
	else if (world_chance(w, 8))
		w->command.astray = 1 + world_random(w, 3);
}

/* --- all of it ---------------------------------------------------------------------------- */

static const struct fault {
	void (*happen)(struct world *w);
	unsigned weight; /* one world in so many has it */
} faults[] = {
	{ kill_server, 2 },
	{ stop_server, 2 },
	{ freeze_server, 2 },
	{ cut_off_server, 3 },
	{ refuse_connections, 4 },
	{ change_export, 5 },
	{ change_size, 3 },
	{ break_connections, 2 },
	{ flap, 6 },
	{ spoil_dials, 4 },
	{ hold_mutex, 4 },
	{ refuse_commands, 8 },
	{ kill_supervisor, 3 },
	{ suspend, 6 },
	{ lose_notices, 6 },
	{ wake_supervisor, 8 },
	{ pause_or_resume, 3 },
	{ rescan, 3 },
	{ hand_over, 5 },
	{ hang_up, 4 },
	{ abort_connections, 8 },
	{ detach, 8 },
};
enum { FAULTS = sizeof(faults) / sizeof(faults[0]) };

static void step(struct world *w, unsigned unused, unsigned unused2)
{
	struct chaos *c = &w->chaos;
	unsigned kind;

	(void)unused;
	(void)unused2;
	if (c->over)
		return;
	w->clients.changed_at = w->now;
	if (world_chance(w, 3))
		recover(w);
	for (unsigned i = 0; i < TRIES; i++) {
		kind = world_random(w, FAULTS);
		if (c->kinds & 1U << kind) {
			faults[kind].happen(w);
			break;
		}
	}
	client_check(w, true);
	contract_check(w);
	world_after_elsewhere(w, 1 + world_random(w, world_chance(w, 6) ? 20000 : c->pace_ms), step,
			      0, 0);
}

static void end_faults(struct world *w, unsigned unused, unsigned unused2)
{
	(void)unused;
	(void)unused2;
	chaos_end(w);
}

void chaos_begin(struct world *w)
{
	static const unsigned pace_ms[] = { 50, 400, 3000 };
	struct chaos *c = &w->chaos;

	memset(c, 0, sizeof(*c));
	c->ambush = world_chance(w, 8);
	for (unsigned i = 0; i < FAULTS; i++)
		c->kinds |= (uint32_t)world_chance(w, faults[i].weight) << i;
	c->pace_ms = pace_ms[world_random(w, 3)];
	world_after_elsewhere(w, world_random(w, c->pace_ms), step, 0, 0);
	world_after(w, 500 + world_random(w, c->pace_ms * 20), end_faults, 0, 0);
}

/* What the device has, or may be about to grow to. */
static uint64_t largest_size(const struct world *w)
{
	uint64_t size = w->driver.size;

	for (unsigned i = 0; i < w->set.servers; i++)
		if (w->contract.told[i] > size)
			size = w->contract.told[i];
	return size;
}

/* A server that stays away: its machine stands still, or refuses. */
static void end_with(struct world *w, unsigned server)
{
	if (!w->healing.lame_silent) {
		server_kill(w, server);
		return;
	}
	server_start(w, server);
	server_go_on(w, server);
	server_stop(w, server, true);
}

void chaos_end(struct world *w)
{
	uint64_t least = largest_size(w), size = least;

	STORY(w, "--- all faults end");
	w->chaos.over = true;
	w->chaos.flapping = false;
	w->dialer.faults = 0;
	w->command.astray = 0;
	w->command.fails = false;
	w->shell.kill_in = -1;
	if (w->app.think_ms < SLOW_MS)
		w->app.think_ms = SLOW_MS;
	if (w->command.mutex_free > w->now + 5000)
		w->command.mutex_free = w->now + 5000;
	healing_prepare(w);
	for (unsigned i = 0; i < w->set.servers; i++)
		if (w->server[i].size > size)
			size = w->server[i].size;
	for (unsigned i = 0; i < w->set.servers; i++) {
		struct server *s = &w->server[i];

		s->refuses = s->unknown = s->read_only = s->one_connection = s->no_flush =
			s->renamed = false;
		s->limit = SIM_SLOTS;
		s->service_ms = 3;
		/* A replica may stay larger, none may stay smaller than the device. */
		if (world_chance(w, 2) || s->size < least)
			s->size = size;
		server_rejoin(w, i);
		if ((int)i == w->healing.lame) {
			end_with(w, i);
			continue;
		}
		server_start(w, i);
		server_go_on(w, i);
	}
	w->clients.changed_at = w->now;
	healing_start(w);
}
