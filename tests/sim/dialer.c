/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "dialer.h"

#include <errno.h>
#include <string.h>

#include "proto/wire.h"
#include "world.h"

enum {
	HANDSHAKE_MS = 30,
	TELL_MS = 5,        /* delay of the answer */
	TELL_LATE_MS = 400, /* delay of the answer at times */
};

void dialer_begin(struct world *w)
{
	struct dialer *d = &w->dialer;

	d->busy = d->connected = false;
	d->failed_at = 0;
	d->life = d->count = d->faults = 0;
}

/* What the supervisor knows from now on. */
static void note_size(struct world *w)
{
	struct dialer *d = &w->dialer;
	uint64_t *told = &w->contract.told[d->server];
	uint64_t size = d->unfit ? w->driver.size : d->export.size;

	if (!d->export.size)
		return;
	w->contract.told_at[d->server] = w->now;
	w->contract.shrunk |= size < *told;
	*told = size;
}

static void tell(struct world *w, unsigned life, unsigned unused)
{
	struct dialer *d = &w->dialer;
	struct rc_event ev = { .type = RC_DIAL_DONE, .kernel_tls = w->set.kernel_tls };

	(void)unused;
	if (!d->busy || d->life != life)
		return;
	d->busy = false;
	if (!d->connected) {
		STORY(w, "dialer: %s", d->err.text);
		ev.ret = -d->err.code;
		ev.err = &d->err;
		shell_event(w, &ev);
		return;
	}
	STORY(w, "dialer: %u candidates of server %u, %llu bytes", d->count, d->server,
	      (unsigned long long)d->export.size);
	note_size(w);
	ev.count = d->count;
	ev.export = &d->export;
	for (unsigned i = 0; i < d->count; i++) {
		struct net_conn *c = &w->net.conn[d->conn[i]];

		c->holder = NET_CANDIDATE;
		c->index = i;
		w->shell.candidate[i] = (int)d->conn[i];
		w->shell.end_told[i] = false;
		if (c->ended)
			world_after(w, 0, shell_poll, d->conn[i], 0);
	}
	if (w->options.plant == PLANT_SIZE_MADE_UP && world_chance(w, 4))
		d->export.size += SIM_GROWTH;
	shell_event(w, &ev);
}

static void answer(struct world *w, bool connected)
{
	struct dialer *d = &w->dialer;

	d->connected = connected;
	world_after(w, world_random(w, world_chance(w, 30) ? TELL_LATE_MS : TELL_MS), tell, d->life,
		    0);
}

static void fail_dial(struct world *w, enum err_kind kind, int code, const char *text)
{
	struct err *e = &w->dialer.err;

	if (w->dialer.fault != DIALER_WELL)
		w->dialer.failed_at = w->now;
	e->kind = kind;
	e->code = code;
	strcpy(e->text, text);
	answer(w, false);
}

static void connect_to(struct world *w, unsigned server)
{
	struct dialer *d = &w->dialer;
	struct server *s = &w->server[server];

	server_settle(w, server);
	d->count = d->asked < s->limit ? d->asked : s->limit;
	if (d->count > 1 && world_chance(w, 16))
		d->count = 1 + world_random(w, d->count - 1);
	for (unsigned i = 0; i < d->count; i++) {
		d->conn[i] = net_connect(w, server, NET_DIALER, i);
		chaos_connected(w, d->conn[i]);
	}
	d->unfit = server_unfit(w, server);
	d->export.size = s->size_late && !d->asked ? 0 : s->size;
	d->export.flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_CAN_MULTI_CONN | NBD_FLAG_SEND_FLUSH;
	if (s->read_only)
		d->export.flags |= NBD_FLAG_READ_ONLY;
	if (s->one_connection)
		d->export.flags &= (uint16_t)~NBD_FLAG_CAN_MULTI_CONN;
	if (s->no_flush)
		d->export.flags &= (uint16_t)~NBD_FLAG_SEND_FLUSH;
	d->export.has_name = true;
	strcpy(d->export.name, s->renamed ? "other" : "export");
	answer(w, true);
}

static void pass_deadline(struct world *w, unsigned life, unsigned unused)
{
	struct dialer *d = &w->dialer;

	(void)unused;
	if (d->busy && d->life == life && d->deadline >= 0) {
		d->deadline = -1;
		fail_dial(w, ERR_UNREACHABLE,
			  w->options.plant == PLANT_REFUSED ? ECONNREFUSED : ETIMEDOUT,
			  "no answer until the deadline");
	}
}

/* The handshake, as far as the server lets it come. */
static void shake_hands(struct world *w, unsigned life, unsigned unused)
{
	struct dialer *d = &w->dialer;
	unsigned server = d->server;
	const struct server *s;

	(void)unused;
	if (!d->busy || d->life != life || d->deadline < 0)
		return;
	if (w->options.plant == PLANT_OTHER_SERVER && w->set.servers > 1 && world_chance(w, 4))
		server = !server;
	s = &w->server[server];
	if (d->fault == DIALER_HANGS || !server_hears(s) || (s->running && s->stopped))
		return;
	d->deadline = -1;
	if (!s->running || s->refuses) {
		server_settle(w, server);
		fail_dial(w, ERR_UNREACHABLE, ECONNREFUSED, "connection refused");
	} else if (s->unknown) {
		server_settle(w, server);
		fail_dial(w, ERR_REFUSED, ENOENT, "no such export");
	} else {
		connect_to(w, server);
	}
}

void dialer_dial(struct world *w, unsigned server, unsigned count)
{
	struct dialer *d = &w->dialer;

	STORY(w, "dialer: asks server %u for %u", server, count);
	d->busy = true;
	d->connected = false;
	d->life++;
	d->server = server;
	d->asked = count;
	d->count = 0;
	d->deadline = w->now + w->set.attempt_timeout_ms;
	d->fault = d->faults ? d->next : DIALER_WELL;
	d->faults -= d->faults > 0;
	if (w->options.plant == PLANT_DIAL_LOST && world_chance(w, 8))
		return;
	if (d->fault == DIALER_NO_FORK || d->fault == DIALER_DIES) {
		d->deadline = -1;
		fail_dial(w, ERR_FAILED, d->fault == DIALER_DIES ? EPIPE : EAGAIN,
			  d->fault == DIALER_DIES ? "the negotiator is gone" :
						    "the negotiator cannot be started");
		return;
	}
	world_after(w, w->set.attempt_timeout_ms, pass_deadline, d->life, 0);
	world_after(w, 1 + world_random(w, HANDSHAKE_MS), shake_hands, d->life, 0);
}

void dialer_cancel(struct world *w)
{
	struct dialer *d = &w->dialer;

	if (!d->busy)
		return;
	STORY(w, "dialer: cancelled");
	d->busy = false;
	for (unsigned i = 0; d->connected && i < d->count; i++)
		net_abandon(w, d->conn[i]);
}

void dialer_wake(struct world *w, unsigned server)
{
	struct dialer *d = &w->dialer;

	if (d->busy && d->server == server)
		world_after(w, 1 + world_random(w, HANDSHAKE_MS), shake_hands, d->life, 0);
}
