/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "server.h"

#include <string.h>

#include "world.h"

enum { FULL_AGAIN_MS = 5000 };

void server_begin(struct world *w)
{
	memset(w->server, 0, sizeof(w->server));
	memset(w->disk, 0, sizeof(w->disk));
	for (unsigned i = 0; i <= SIM_SERVERS; i++) {
		w->server[i].running = true;
		w->server[i].size = SIM_SIZE;
		w->server[i].limit = SIM_SLOTS;
		w->server[i].last_end = w->now - 3600000;
		w->server[i].service_ms = world_chance(w, 6) ? 1 + world_random(w, 2000) : 3;
	}
}

bool server_reads(const struct server *s)
{
	return s->running && !s->stopped && !s->frozen;
}

bool server_hears(const struct server *s)
{
	return !s->frozen && !s->unreachable;
}

const char *server_unfit(const struct world *w, unsigned server)
{
	const struct server *s = &w->server[server];

	return s->read_only                                ? "read-only" :
	       s->no_flush                                 ? "without FLUSH" :
	       s->renamed                                  ? "another export" :
	       s->one_connection && w->set.connections > 1 ? "without CAN_MULTI_CONN" :
							     NULL;
}

/* --- storage ------------------------------------------------------------------------------ */

static void write_back(struct world *w, struct server *s)
{
	for (unsigned i = 0; i < SIM_BLOCKS; i++)
		if (s->dirty & 1U << i)
			w->disk[i] = s->cache[i];
	s->dirty = 0;
}

static unsigned read_block(struct world *w, struct server *s, unsigned block)
{
	if (!(s->cached & 1U << block))
		s->cache[block] = w->disk[block];
	s->cached |= (uint8_t)(1U << block);
	return s->cache[block];
}

static void write_block(struct world *w, struct server *s, unsigned block, unsigned version)
{
	s->cache[block] = version;
	s->cached |= (uint8_t)(1U << block);
	s->dirty |= (uint8_t)(1U << block);
	if (w->set.write_through)
		write_back(w, s);
}

/* --- requests ----------------------------------------------------------------------------- */

static void execute(struct world *w, unsigned server, const struct net_packet *p)
{
	struct server *s = &w->server[server];
	struct driver_request *r = &w->driver.request[p->job];
	unsigned version = 0;

	switch ((enum app_op)p->op) {
	case APP_WRITE:
		STORY(w, "server %u: writes version %u of block %u, from connection %u", server,
		      p->version, p->block, p->conn);
		if (app_is_stale(w, p->block, p->version))
			world_fail(w, RULE_DATA,
				   "server %u writes version %u of block %u after version %u was "
				   "acknowledged",
				   server, p->version, p->block, w->app.acked[p->block]);
		write_block(w, s, p->block, p->version);
		break;
	case APP_READ:
		version = read_block(w, s, p->block);
		break;
	case APP_FLUSH:
		write_back(w, s);
		break;
	}
	if (r->state != DRIVER_SENT || r->cookie != p->cookie)
		return;
	r->version = version;
	world_after(w, world_random(w, 3), driver_answer, p->job, p->cookie);
}

/* The packet that arrived first; -1: none. */
static int find_first(const struct world *w, unsigned server)
{
	int first = -1;

	for (unsigned i = 0; i < w->net.packets; i++) {
		const struct net_packet *p = &w->net.packet[i];

		if (p->arrived && w->net.conn[p->conn].server == server &&
		    (first < 0 || p->arrived < w->net.packet[first].arrived))
			first = (int)i;
	}
	return first;
}

/* False: there is none. */
static bool execute_first(struct world *w, unsigned server)
{
	struct net *n = &w->net;
	int i = find_first(w, server);
	struct net_packet p;

	if (i < 0)
		return false;
	p = n->packet[i];
	n->packets--;
	memmove(&n->packet[i], &n->packet[i + 1],
		(n->packets - (unsigned)i) * sizeof(n->packet[0]));
	execute(w, server, &p);
	if (n->conn[p.conn].hung_up)
		server_close(w, p.conn);
	return true;
}

static void serve(struct world *w, unsigned server, unsigned unused)
{
	struct server *s = &w->server[server];

	(void)unused;
	s->serving = false;
	if (!server_reads(s) || !execute_first(w, server))
		return;
	net_push(w, server);
	if (find_first(w, server) >= 0)
		server_wake(w, server);
}

void server_wake(struct world *w, unsigned server)
{
	struct server *s = &w->server[server];

	if (s->serving || !server_reads(s))
		return;
	s->serving = true;
	world_after_elsewhere(w, world_random(w, s->service_ms), serve, server, 0);
}

void server_settle(struct world *w, unsigned server)
{
	while (execute_first(w, server))
		;
}

void server_close(struct world *w, unsigned conn)
{
	struct net_conn *c = &w->net.conn[conn];
	struct server *s = &w->server[c->server];

	if (c->server_closed)
		return;
	for (unsigned i = 0; i < w->net.packets; i++)
		if (w->net.packet[i].conn == conn)
			return;
	if (s->running && !server_reads(s))
		return;
	c->server_closed = true;
	s->open--;
	if (s->open || w->set.servers < 2)
		return;
	write_back(w, s);
	s->cached = 0;
}

/* --- faults ------------------------------------------------------------------------------- */

static void end_all(struct world *w, unsigned server, enum net_end how)
{
	for (unsigned i = 0; i < w->net.conns; i++)
		if (w->net.conn[i].server == server && !w->net.conn[i].ended)
			net_end(w, i, how);
}

void server_kill(struct world *w, unsigned server)
{
	struct server *s = &w->server[server];
	bool heard = server_hears(s);

	if (!s->running)
		return;
	STORY(w, "server %u: killed", server);
	if (w->set.volatile_cache && s->dirty)
		app_excuse_lost(w, s->dirty);
	else
		write_back(w, s);
	s->cached = s->dirty = 0;
	s->changed_at = w->now;
	s->running = s->stopped = s->frozen = false;
	for (unsigned i = 0; i < w->net.conns; i++) {
		struct net_conn *c = &w->net.conn[i];

		if (c->server != server || c->server_closed)
			continue;
		net_forget(w, i, true);
		c->server_closed = true;
	}
	s->open = 0;
	if (heard)
		end_all(w, server, NET_RESET);
	else if (server_hears(s))
		net_hang_up_all(w, server);
	dialer_wake(w, server);
}

void server_start(struct world *w, unsigned server)
{
	struct server *s = &w->server[server];

	if (s->running)
		return;
	STORY(w, "server %u: started", server);
	s->running = true;
	s->refuses = false;
}

/* A machine of which nothing has been heard for the peer timeout. */
static void fall_silent(struct world *w, unsigned server, unsigned silence)
{
	struct server *s = &w->server[server];

	if (s->silence == silence && !server_hears(s))
		end_all(w, server, NET_SILENT);
}

/* A process that has read nothing for the peer timeout. */
static void fill_up(struct world *w, unsigned server, unsigned silence)
{
	struct server *s = &w->server[server];

	if (s->silence != silence || !s->stopped)
		return;
	for (unsigned i = 0; i < w->net.packets; i++) {
		unsigned conn = w->net.packet[i].conn;

		if (w->net.conn[conn].server != server || w->net.packet[i].arrived ||
		    w->net.conn[conn].ended)
			continue;
		net_end(w, conn, NET_FULL);
		i = 0;
	}
	world_after(w, FULL_AGAIN_MS, fill_up, server, silence);
}

void server_stop(struct world *w, unsigned server, bool frozen)
{
	struct server *s = &w->server[server];

	if (!server_reads(s))
		return;
	STORY(w, "server %u: %s", server, frozen ? "its machine stands still" : "stopped");
	s->stopped = !frozen;
	s->frozen = frozen;
	s->silence++;
	world_after(w, SIM_PEER_MS + world_random(w, 3000), frozen ? fall_silent : fill_up, server,
		    s->silence);
}

/* Packets pass again, and are read again. */
static void reconnect_server(struct world *w, unsigned server)
{
	if (!server_hears(&w->server[server]))
		return;
	driver_answer_late(w, server);
	net_push(w, server);
	net_hang_up_all(w, server);
	server_wake(w, server);
	dialer_wake(w, server);
}

void server_go_on(struct world *w, unsigned server)
{
	struct server *s = &w->server[server];

	if (!s->stopped && !s->frozen)
		return;
	STORY(w, "server %u: goes on", server);
	s->stopped = s->frozen = false;
	s->silence++;
	server_wake(w, server);
	reconnect_server(w, server);
}

void server_cut_off(struct world *w, unsigned server)
{
	struct server *s = &w->server[server];

	if (s->unreachable)
		return;
	STORY(w, "server %u: unreachable", server);
	s->unreachable = true;
	s->silence++;
	world_after(w, SIM_PEER_MS + world_random(w, 3000), fall_silent, server, s->silence);
}

void server_rejoin(struct world *w, unsigned server)
{
	struct server *s = &w->server[server];

	if (!s->unreachable)
		return;
	STORY(w, "server %u: reachable again", server);
	s->unreachable = false;
	s->changed_at = w->now;
	s->silence++;
	reconnect_server(w, server);
}

/* --- one server --------------------------------------------------------------------------- */

/* The fence is over, and with it what anybody can promise. */
static void excuse_rest(struct world *w, unsigned server)
{
	struct server *s = &w->server[server];

	w->excuses[EXCUSE_FENCE]++;
	STORY(w, "server %u: whatever it still has is too late now, and excused", server);
	for (unsigned i = 0; i < w->net.conns; i++) {
		if (w->net.conn[i].server != server)
			continue;
		net_forget(w, i, false);
		net_forget(w, i, true);
	}
	if (s->dirty)
		app_excuse_lost(w, s->dirty);
	s->dirty = s->cached = 0;
}

/*
 * With timeout 0 nobody knows that an offer to another server was not taken; nor that a
 * connection which seemed to be lost has ended only now, as long as the driver's notice is on
 * its way.
 */
static bool is_unseen(const struct world *w, const struct server *s)
{
	return !w->set.request_timeout_s &&
	       (s->unseen || (w->shell.unseen && w->contract.heard_at < s->last_end));
}

void server_check_switch(struct world *w, unsigned conn)
{
	unsigned to = w->net.conn[conn].server;

	for (unsigned i = 0; i < w->driver.slots; i++) {
		const struct driver_slot *slot = &w->driver.slot[i];
		const struct net_conn *c = &w->net.conn[slot->conn];

		if (!slot->dead && !c->ended && c->server != to)
			world_fail(w, RULE_ONE_SERVER,
				   "slot %u has a connection to server %u, and another slot gets "
				   "one to server %u",
				   i, c->server, to);
	}
	for (unsigned i = 0; i < w->set.servers; i++) {
		const struct server *s = &w->server[i];

		if (i == to || !(net_owes_write(w, i) || s->dirty))
			continue;
		if (is_unseen(w, s))
			w->excuses[EXCUSE_UNSEEN]++;
		else if (w->now < s->last_end + 1000LL * w->set.fence_delay_s)
			world_fail(w, RULE_ONE_SERVER,
				   "server %u is used while server %u may still write, %lld ms "
				   "after its last connection ended",
				   to, i, w->now - s->last_end);
		excuse_rest(w, i);
	}
}
