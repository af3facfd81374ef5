/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "net.h"

#include <string.h>

#include "world.h"

enum {
	WINDOW = 2,      /* requests of one connection that fit a receive queue nobody reads */
	CLOG_MS = 200,   /* how long a request may take to leave the send queue */
	POLL_MS = 300,   /* how late poll may tell of an end */
	LINGER_MS = 400, /* between two looks at a socket that is being closed */
};

void net_begin(struct world *w)
{
	w->net.conns = w->net.packets = w->net.arrivals = 0;
}

unsigned net_connect(struct world *w, unsigned server, enum net_holder holder, unsigned index)
{
	struct net *n = &w->net;
	struct server *s = &w->server[server];
	struct net_conn *c = &n->conn[n->conns];

	if (n->conns == NET_CONNS)
		world_fail(w, RULE_BOUNDED, "more than %u connections were made", NET_CONNS);
	memset(c, 0, sizeof(*c));
	c->server = server;
	c->slot = -1;
	c->ours = true;
	c->holder = holder;
	c->index = index;
	c->size = s->size;
	c->records_made = driver_records(w);
	c->unfit = server_unfit(w, server);
	s->open++;
	return n->conns++;
}

static void remove_packet(struct net *n, unsigned i)
{
	n->packets--;
	memmove(&n->packet[i], &n->packet[i + 1], (n->packets - i) * sizeof(n->packet[0]));
}

static unsigned count_packets(const struct net *n, unsigned conn, bool received)
{
	unsigned count = 0;

	for (unsigned i = 0; i < n->packets; i++)
		count += n->packet[i].conn == conn && (n->packet[i].arrived > 0) == received;
	return count;
}

void net_forget(struct world *w, unsigned conn, bool received)
{
	struct net *n = &w->net;

	for (unsigned i = n->packets; i-- > 0;)
		if (n->packet[i].conn == conn && (n->packet[i].arrived > 0) == received)
			remove_packet(n, i);
}

bool net_owes_write(const struct world *w, unsigned server)
{
	for (unsigned i = 0; i < w->net.packets; i++) {
		const struct net_packet *p = &w->net.packet[i];

		if (p->op == APP_WRITE && w->net.conn[p->conn].server == server)
			return true;
	}
	return false;
}

/* --- from send queue to receive queue ----------------------------------------------------- */

static void hang_up(struct world *w, unsigned conn)
{
	struct net_conn *c = &w->net.conn[conn];

	if (!c->ended || c->server_closed || !server_hears(&w->server[c->server]) ||
	    count_packets(&w->net, conn, false))
		return;
	c->hung_up = true;
	server_close(w, conn);
}

void net_hang_up_all(struct world *w, unsigned server)
{
	for (unsigned i = 0; i < w->net.conns; i++) {
		struct net_conn *c = &w->net.conn[i];

		if (c->server != server)
			continue;
		if (c->server_closed)
			net_end(w, i, NET_RESET);
		else
			hang_up(w, i);
	}
}

static bool can_move(const struct world *w, unsigned i)
{
	const struct net *n = &w->net;
	unsigned conn = n->packet[i].conn;
	const struct net_conn *c = &n->conn[conn];
	const struct server *s = &w->server[c->server];

	if (w->now < c->clogged || !server_hears(s))
		return false;
	for (unsigned j = 0; j < i; j++)
		if (n->packet[j].conn == conn && !n->packet[j].arrived)
			return false;
	return server_reads(s) || c->server_closed || count_packets(n, conn, true) < WINDOW;
}

/* The packet at place i reaches its server. */
static void arrive(struct world *w, unsigned i)
{
	struct net_packet *p = &w->net.packet[i];
	struct net_conn *c = &w->net.conn[p->conn];

	if (w->clients.paused)
		world_fail(w, RULE_DURABLE,
			   "a request reached server %u on connection %u after a "
			   "pause was answered",
			   c->server, p->conn);
	p->arrived = ++w->net.arrivals;
	if (c->lingers)
		STORY(w, "net: connection %u, cut before, sends what it had queued", p->conn);
	server_wake(w, c->server);
}

void net_push(struct world *w, unsigned server)
{
	struct net *n = &w->net;

	for (unsigned i = 0; i < n->packets; i++) {
		unsigned conn = n->packet[i].conn;
		struct net_conn *c = &n->conn[conn];

		if (n->packet[i].arrived || c->server != server || !can_move(w, i))
			continue;
		if (c->server_closed) {
			remove_packet(n, i--);
			continue;
		}
		arrive(w, i);
		hang_up(w, conn);
	}
}

static void unclog(struct world *w, unsigned conn, unsigned unused)
{
	(void)unused;
	net_push(w, w->net.conn[conn].server);
}

void net_send(struct world *w, unsigned conn, unsigned job)
{
	struct net *n = &w->net;
	struct net_conn *c = &n->conn[conn];
	const struct app_job *j = &w->app.job[job];

	if (n->packets == NET_PACKETS)
		world_fail(w, RULE_BOUNDED, "more than %u requests are on their way", NET_PACKETS);
	n->packet[n->packets++] = (struct net_packet){
		.conn = conn,
		.op = (unsigned char)j->op,
		.block = j->block,
		.version = j->version,
		.job = job,
		.cookie = w->driver.request[job].cookie,
	};
	if (world_chance(w, w->set.clog)) {
		unsigned ms = 1 + world_random(w, CLOG_MS);

		if (w->now + ms > c->clogged)
			c->clogged = w->now + ms;
		world_after(w, ms, unclog, conn, 0);
	}
	net_push(w, c->server);
}

/* --- ends --------------------------------------------------------------------------------- */

void net_end(struct world *w, unsigned conn, enum net_end how)
{
	struct net_conn *c = &w->net.conn[conn];
	static const char *const names[] = {
		[NET_FIN] = "closed by the server",
		[NET_RESET] = "reset by the server",
		[NET_BROKEN] = "broken",
		[NET_SILENT] = "silent",
		[NET_FULL] = "never read",
		[NET_TIMER] = "timed out",
		[NET_DISCONNECT] = "disconnected",
		[NET_CUT] = "cut",
	};

	if (c->ended)
		return;
	STORY(w, "net: connection %u to server %u: %s", conn, c->server, names[how]);
	c->ended = true;
	c->how = how;
	if (how != NET_TIMER && how != NET_CUT)
		net_forget(w, conn, false);
	if (how == NET_FIN || how == NET_RESET) {
		net_forget(w, conn, true);
		c->hung_up = true;
		server_close(w, conn);
	} else {
		hang_up(w, conn);
	}
	if (c->slot >= 0) {
		w->server[c->server].last_end = w->now;
		w->server[c->server].unseen = c->server != w->shell.published.server;
		driver_conn_ended(w, conn);
	}
	if (how == NET_SILENT || how == NET_FULL || how == NET_TIMER)
		chaos_ambush(w);
	if (c->holder != NET_NOBODY)
		world_after(w, world_random(w, world_chance(w, 20) ? POLL_MS : 3), shell_poll, conn,
			    0);
	else if (how == NET_TIMER)
		net_abandon(w, conn);
}

void net_abandon(struct world *w, unsigned conn)
{
	struct net_conn *c = &w->net.conn[conn];

	c->holder = NET_NOBODY;
	c->lingers = false;
	if (!c->ended && c->slot < 0) {
		net_end(w, conn, NET_CUT);
	} else if (c->ended && count_packets(&w->net, conn, false)) {
		w->excuses[EXCUSE_LINGER]++;
		net_forget(w, conn, false);
		hang_up(w, conn);
	}
}

/* Kernel TLS: the socket is gone when what it had queued is, or after the peer timeout. */
static void linger(struct world *w, unsigned conn, unsigned unused)
{
	struct net_conn *c = &w->net.conn[conn];
	bool queued = count_packets(&w->net, conn, false);

	(void)unused;
	if (!c->lingers)
		return;
	if (w->now - c->cut_at < SIM_PEER_MS && (queued || !server_hears(&w->server[c->server])) &&
	    !c->server_closed) {
		world_after(w, 50 + world_random(w, LINGER_MS), linger, conn, 0);
		return;
	}
	net_forget(w, conn, false);
	hang_up(w, conn);
	c->lingers = false;
	shell_cut_done(w, conn, c->index);
}

bool net_cut(struct world *w, unsigned conn)
{
	struct net_conn *c = &w->net.conn[conn];
	bool lingers = w->set.kernel_tls && (!c->ended || c->how == NET_TIMER);

	c->holder = NET_NOBODY;
	if (!lingers)
		net_forget(w, conn, false);
	net_end(w, conn, NET_CUT);
	hang_up(w, conn);
	if (!lingers)
		return true;
	c->lingers = true;
	c->cut_at = w->now;
	world_after(w, 1 + world_random(w, 30), linger, conn, 0);
	return false;
}
