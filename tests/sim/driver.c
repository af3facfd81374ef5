/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "driver.h"

#include <errno.h>
#include <string.h>

#include "world.h"

enum {
	NOTICE_LATE_MS =
		120, /* longest delay of death and of notice; below RC_NOTICE_MS together */
	TIMER_LATE_MS = 1000,     /* rounding of timers by blk-mq */
	REQUEUE_MS = 2000,        /* longest time to the next look with queue/io_timeout */
	UNTIMED_STALL_MS = 19000, /* longest stall of 7.2 without a request timeout */
};

static bool is_alive(const struct world *w, const struct driver_slot *slot)
{
	return !slot->dead && !w->net.conn[slot->conn].ended;
}

unsigned driver_alive(const struct world *w)
{
	unsigned alive = 0;

	for (unsigned i = 0; i < w->driver.slots; i++)
		alive += is_alive(w, &w->driver.slot[i]);
	return alive;
}

unsigned driver_in_flight(const struct world *w)
{
	unsigned count = 0;

	for (unsigned i = 0; i < SIM_JOBS; i++)
		count += w->driver.request[i].state == DRIVER_SENT;
	return count;
}

uint64_t driver_records(const struct world *w)
{
	return plan_records(w->driver.requests, w->driver.bytes);
}

/* --- slots -------------------------------------------------------------------------------- */

static void give_notice(struct world *w, unsigned slot, unsigned unused)
{
	struct driver *d = &w->driver;

	(void)unused;
	if (d->disconnected || d->owner == DRIVER_FREE)
		return;
	STORY(w, "driver: LINK_DEAD for slot %u", slot);
	shell_notice(w, w->set.loses_notices && world_chance(w, 8));
}

static void kick(struct world *w);

static void die(struct world *w, unsigned slot, unsigned life)
{
	struct driver_slot *s = &w->driver.slot[slot];

	if (s->life != life || s->dead)
		return;
	STORY(w, "driver: slot %u is dead", slot);
	s->dead = true;
	s->dying = s->stalled = false;
	kick(w);
}

/* The notice is queued before the slot is marked, and delivered by another worker. */
static void slot_dies(struct world *w, unsigned slot, unsigned life)
{
	struct driver_slot *s = &w->driver.slot[slot];
	unsigned late = world_random(w, world_chance(w, 20) ? NOTICE_LATE_MS : 4);

	if (s->life != life || s->dead || s->noticed)
		return;
	s->noticed = true;
	world_after(w, late, give_notice, slot, 0);
	if (w->set.smp && world_chance(w, 3))
		world_after(w, late + 1 + world_random(w, 3), die, slot, life);
	else
		die(w, slot, life);
}

void driver_conn_ended(struct world *w, unsigned conn)
{
	struct driver *d = &w->driver;
	struct net_conn *c = &w->net.conn[conn];
	struct driver_slot *s = &d->slot[c->slot];
	long long ms = world_random(w, world_chance(w, 20) ? NOTICE_LATE_MS : 4);

	if (s->conn != conn || s->dead || s->dying)
		return;
	s->dying = true;
	if (!driver_alive(w) && d->none_since < 0)
		d->none_since = w->now;
	if (w->set.stalls && c->how != NET_TIMER && world_chance(w, 8)) {
		s->stalled = true;
		ms = world_random(w, w->set.request_timeout_s ? 1000 * w->set.request_timeout_s :
								UNTIMED_STALL_MS);
		STORY(w, "driver: slot %u stays with its worker for %lld ms", (unsigned)c->slot,
		      ms);
	}
	world_after(w, ms, slot_dies, (unsigned)c->slot, s->life);
}

/* --- requests ----------------------------------------------------------------------------- */

static void end_freeze(struct world *w);

static void fail_request(struct world *w, unsigned job, unsigned cookie)
{
	struct driver_request *r = &w->driver.request[job];

	if (r->state == DRIVER_NONE || r->cookie != cookie)
		return;
	r->state = DRIVER_NONE;
	STORY(w, "driver: I/O error for job %u", job);
	app_done(w, job, true, 0);
	if (w->driver.frozen)
		end_freeze(w);
}

/* find_fallback() and the queue's own slot; -1: none can be used. */
static int find_slot(struct world *w, unsigned job)
{
	struct driver *d = &w->driver;

	for (unsigned i = 0; i < d->slots; i++) {
		unsigned slot = (job + i) % d->slots;
		struct driver_slot *s = &d->slot[slot];

		if (s->dead || s->stalled)
			continue;
		if (!w->net.conn[s->conn].ended)
			return (int)slot;
		/* sendmsg() fails, which ends the slot before its reader does */
		slot_dies(w, slot, s->life);
	}
	return -1;
}

static void check_timers(struct world *w, unsigned unused, unsigned unused2);

static void dispatch(struct world *w, unsigned job)
{
	struct driver *d = &w->driver;
	struct driver_request *r = &d->request[job];
	int slot;

	r->cookie = ++d->cookies;
	r->answered = false;
	if (d->disconnected || d->owner != DRIVER_OURS) {
		r->state = DRIVER_WAITING;
		world_after(w, 1, fail_request, job, r->cookie);
		return;
	}
	slot = find_slot(w, job);
	r->state = slot < 0 ? DRIVER_WAITING : DRIVER_SENT;
	if (slot < 0)
		return;
	r->slot = (unsigned)slot;
	r->conn = d->slot[slot].conn;
	if (w->set.request_timeout_s) {
		r->limit =
			w->now + 1000 * w->set.request_timeout_s + world_random(w, TIMER_LATE_MS);
		if (!d->timer_armed)
			world_after(w, r->limit - w->now, check_timers, 0, 0);
		d->timer_armed = true;
	}
	net_send(w, r->conn, job);
}

void driver_submit(struct world *w, unsigned job)
{
	struct driver_request *r = &w->driver.request[job];

	if (w->driver.frozen)
		r->state = DRIVER_HELD;
	else
		dispatch(w, job);
}

static void send_waiting(struct world *w, unsigned unused, unsigned unused2)
{
	struct driver *d = &w->driver;

	(void)unused;
	(void)unused2;
	for (unsigned i = 0; i < SIM_JOBS; i++)
		if (d->request[i].state == DRIVER_WAITING ||
		    (d->request[i].state == DRIVER_HELD && !d->frozen))
			dispatch(w, i);
}

/* Requests that wait may find a slot. */
static void kick(struct world *w)
{
	world_after(w, world_random(w, 3), send_waiting, 0, 0);
}

static void end_freeze(struct world *w)
{
	struct driver *d = &w->driver;

	for (unsigned i = 0; i < SIM_JOBS; i++)
		if (d->request[i].state == DRIVER_SENT || d->request[i].state == DRIVER_WAITING)
			return;
	d->frozen = false;
	d->size = d->size_wanted;
	STORY(w, "driver: %llu bytes now", (unsigned long long)d->size);
	kick(w);
	command_resized(w);
}

static void finish(struct world *w, unsigned job)
{
	struct driver *d = &w->driver;
	struct driver_request *r = &d->request[job];

	r->state = DRIVER_NONE;
	d->requests++;
	d->bytes += w->app.job[job].op == APP_FLUSH ? 0 : 4096;
	app_done(w, job, false, r->version);
	if (d->frozen)
		end_freeze(w);
}

void driver_answer(struct world *w, unsigned job, unsigned cookie)
{
	struct driver_request *r = &w->driver.request[job];

	if (r->state != DRIVER_SENT || r->cookie != cookie || w->net.conn[r->conn].ended)
		return;
	if (!server_hears(&w->server[w->net.conn[r->conn].server]))
		r->answered = true;
	else
		finish(w, job);
}

void driver_answer_late(struct world *w, unsigned server)
{
	for (unsigned i = 0; i < SIM_JOBS; i++) {
		const struct driver_request *r = &w->driver.request[i];

		if (r->state == DRIVER_SENT && r->answered && w->net.conn[r->conn].server == server)
			world_after(w, world_random(w, 20), driver_answer, i, r->cookie);
	}
}

/* nbd_xmit_timeout() with a timeout. */
static void time_out(struct world *w, unsigned job)
{
	struct driver *d = &w->driver;
	struct driver_request *r = &d->request[job];
	struct driver_slot *s = &d->slot[r->slot];

	if (s->conn == r->conn && !s->dead && !s->stalled) {
		net_end(w, s->conn, NET_TIMER);
		slot_dies(w, r->slot, s->life);
	}
	STORY(w, "driver: the request of job %u is sent again", job);
	dispatch(w, job);
}

static void check_timers(struct world *w, unsigned unused, unsigned unused2)
{
	struct driver *d = &w->driver;
	long long next = -1;

	(void)unused;
	(void)unused2;
	d->timer_armed = false;
	for (unsigned i = 0; i < SIM_JOBS; i++)
		if (d->request[i].state == DRIVER_SENT && w->now >= d->request[i].limit)
			time_out(w, i);
	for (unsigned i = 0; i < SIM_JOBS; i++)
		if (d->request[i].state == DRIVER_SENT && (next < 0 || d->request[i].limit < next))
			next = d->request[i].limit;
	if (next < 0 || d->timer_armed)
		return;
	d->timer_armed = true;
	world_after(w, next > w->now ? next - w->now : 1, check_timers, 0, 0);
}

/* The same without a timeout: the connection is another one now. */
static void send_again(struct world *w, unsigned job, unsigned cookie)
{
	struct driver_request *r = &w->driver.request[job];

	if (r->state == DRIVER_SENT && r->cookie == cookie)
		dispatch(w, job);
}

/* --- commands ----------------------------------------------------------------------------- */

static void check_offer(struct world *w, unsigned slot, unsigned conn)
{
	const struct driver *d = &w->driver;
	const struct net_conn *c = &w->net.conn[conn];

	for (unsigned i = 0; i < d->slots; i++)
		if (i != slot && d->slot[i].conn == conn && !d->slot[i].dead)
			world_fail(w, RULE_ONE_SLOT, "connection %u stands in slots %u and %u",
				   conn, i, slot);
	if (d->owner == DRIVER_FOREIGN)
		world_fail(w, RULE_OURS, "another tool's device takes connection %u", conn);
	/* Nothing can be sent on a socket that was cut while the command was on its way. */
	if (c->ended)
		return;
	if (w->clients.paused)
		world_fail(w, RULE_DURABLE, "slot %u is given a connection in a pause", slot);
	server_check_switch(w, conn);
	if (c->unfit)
		world_fail(w, RULE_ONE_SERVER, "the device gets an export that is %s", c->unfit);
	if (c->size < d->size)
		world_fail(w, RULE_SIZE, "the device has %llu bytes and gets an export of %llu",
			   (unsigned long long)d->size, (unsigned long long)c->size);
}

static void take(struct world *w, unsigned slot, unsigned conn)
{
	struct driver *d = &w->driver;
	struct driver_slot *s = &d->slot[slot];
	struct net_conn *c = &w->net.conn[conn];

	STORY(w, "driver: slot %u takes connection %u to server %u", slot, conn, c->server);
	*s = (struct driver_slot){ .conn = conn, .life = s->life + 1 };
	c->slot = (int)slot;
	c->marked = w->set.request_timeout_s;
	c->records_taken = driver_records(w);
	if (!w->set.request_timeout_s)
		for (unsigned i = 0; i < SIM_JOBS; i++)
			if (d->request[i].state == DRIVER_SENT)
				world_after(w, world_random(w, REQUEUE_MS), send_again, i,
					    d->request[i].cookie);
	kick(w);
	w->shell.unseen = false;
	if (c->ended)
		driver_conn_ended(w, conn);
	else
		d->none_since = -1;
}

int driver_offer(struct world *w, unsigned conn)
{
	struct driver *d = &w->driver;

	if (d->owner == DRIVER_FREE || d->disconnected ||
	    (d->owner == DRIVER_FOREIGN && d->backend == DRIVER_BACKEND_OTHER))
		return -EINVAL;
	for (unsigned i = 0; i < d->slots; i++) {
		if (!d->slot[i].dead)
			continue;
		check_offer(w, i, conn);
		take(w, i, conn);
		return 0;
	}
	STORY(w, "driver: drops connection %u, no slot is dead", conn);
	return 0;
}

int driver_probe(struct world *w)
{
	const struct driver *d = &w->driver;

	return d->owner == DRIVER_FREE || d->disconnected ? -EINVAL : 0;
}

static void check_resize(struct world *w, uint64_t size)
{
	const struct driver *d = &w->driver;

	if (d->owner == DRIVER_FOREIGN)
		world_fail(w, RULE_OURS, "another tool's device is resized");
	if (size < d->size)
		world_fail(w, RULE_SIZE, "the device shrinks from %llu to %llu bytes",
			   (unsigned long long)d->size, (unsigned long long)size);
	for (unsigned i = 0; i < d->slots; i++) {
		const struct net_conn *c = &w->net.conn[d->slot[i].conn];

		if (!is_alive(w, &d->slot[i]) || c->size >= size)
			continue;
		w->excuses[EXCUSE_UNSEEN] += w->shell.unseen;
		if (!w->shell.unseen)
			world_fail(w, RULE_SIZE,
				   "the device grows to %llu bytes, and slot %u knows of %llu",
				   (unsigned long long)size, i, (unsigned long long)c->size);
	}
}

int driver_resize(struct world *w, uint64_t size)
{
	struct driver *d = &w->driver;

	if (d->owner == DRIVER_FREE || d->disconnected)
		return -EINVAL;
	check_resize(w, size);
	d->size_wanted = size;
	if (!w->set.freezes) {
		d->size = size;
		STORY(w, "driver: %llu bytes now", (unsigned long long)d->size);
		return 0;
	}
	d->frozen = true;
	end_freeze(w);
	return -EINPROGRESS;
}

void driver_disconnect(struct world *w)
{
	struct driver *d = &w->driver;

	if (d->owner == DRIVER_FREE || d->disconnected)
		return;
	STORY(w, "driver: disconnected%s", w->app.open ? ", but open" : "");
	d->disconnected = true;
	for (unsigned i = 0; i < d->slots; i++)
		if (is_alive(w, &d->slot[i]))
			net_end(w, d->slot[i].conn, NET_DISCONNECT);
	for (unsigned i = 0; i < SIM_JOBS; i++) {
		struct driver_request *r = &d->request[i];

		if (r->state == DRIVER_SENT || r->state == DRIVER_WAITING)
			world_after(w, world_random(w, 3), fail_request, i, r->cookie);
	}
	if (!w->app.open)
		driver_close(w);
}

void driver_close(struct world *w)
{
	struct driver *d = &w->driver;

	if (!d->disconnected)
		return;
	STORY(w, "driver: free");
	d->owner = DRIVER_FREE;
	d->disconnected = false;
	for (unsigned i = 0; i < d->slots; i++)
		d->slot[i].life++;
	d->slots = 0;
}

void driver_attach_foreign(struct world *w)
{
	struct driver *d = &w->driver;

	d->owner = DRIVER_FOREIGN;
	d->backend = (enum driver_backend)world_random(w, 3);
	d->slots = 1 + world_random(w, 2);
	STORY(w, "driver: another tool attaches its export, %u slots", d->slots);
	for (unsigned i = 0; i < d->slots; i++) {
		unsigned conn = net_connect(w, SIM_FOREIGN, NET_NOBODY, 0);

		w->net.conn[conn].ours = false;
		w->net.conn[conn].slot = (int)i;
		d->slot[i] = (struct driver_slot){ .conn = conn, .life = d->slot[i].life + 1 };
	}
}

void driver_begin(struct world *w)
{
	struct driver *d = &w->driver;

	memset(d, 0, sizeof(*d));
	d->owner = DRIVER_OURS;
	d->slots = w->set.connections;
	d->size = SIM_SIZE;
	d->none_since = -1;
	for (unsigned i = 0; i < d->slots; i++) {
		unsigned conn = net_connect(w, 0, NET_NOBODY, i);

		w->net.conn[conn].slot = (int)i;
		w->net.conn[conn].marked = w->set.request_timeout_s;
		d->slot[i] = (struct driver_slot){ .conn = conn, .life = 1 };
	}
}
