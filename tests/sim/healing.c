/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "healing.h"

#include <errno.h>

#include "world.h"

enum {
	LOOK_MS = 700,
	STAGE_MS = 240000, /* longest stage */
	RESUME_MS = 5000,
	SILENCE_MS = 36000, /* longest time until a silent server is noticed */
	REFUSED_MS = 4500,  /* back-off of 2 s behind refusals, blind offers, and some */
	REFUSING_MS = 8000, /* all attempts after that time were refused */
	PROMPT_MS = 9000,   /* back-off of 5 s, notice of the driver, and some */
	GONE_MS = 120000,   /* time for the supervisor to see that its device is gone */
};

void healing_begin(struct world *w)
{
	w->healing = (struct healing){ .client = -1, .lame = -1 };
}

static void enter(struct world *w, enum healing_stage stage)
{
	static const char *const names[] = {
		[HEALING_NOT_YET] = "",
		[HEALING_SETTLE] = "all connections come up",
		[HEALING_PAUSE] = "pause",
		[HEALING_RESUME] = "resume",
		[HEALING_RESCAN] = "rescan",
		[HEALING_READ] = "all blocks are read",
		[HEALING_REST] = "nothing is due",
	};
	struct healing *h = &w->healing;

	STORY(w, "--- to come: %s", names[stage]);
	h->stage = stage;
	h->since = w->now;
	h->client = -1;
	h->tries = 0;
	if (stage == HEALING_READ)
		app_stop(w);
}

static bool has_answer(const struct world *w, int client)
{
	return client < 0 || w->clients.client[client].state != CLIENT_WAITS;
}

/* How long it may take until all connections are up, where nothing else stands in the way. */
static long long prompt_ms(const struct world *w)
{
	long long ms = (w->healing.refused ? REFUSED_MS : PROMPT_MS) + 2 * w->set.late_ms;

	if (w->healing.lame >= 0 && w->healing.lame_silent)
		ms += SILENCE_MS + 1000LL * w->set.fence_delay_s + 2 * w->set.attempt_timeout_ms;
	return ms;
}

static bool uses_lame(const struct world *w)
{
	for (unsigned i = 0; i < w->set.connections; i++)
		if ((int)w->net.conn[w->driver.slot[i].conn].server == w->healing.lame)
			return true;
	return false;
}

static void revive_lame(struct world *w)
{
	if (w->healing.lame < 0)
		return;
	server_start(w, (unsigned)w->healing.lame);
	server_go_on(w, (unsigned)w->healing.lame);
	w->healing.lame = -1;
}

/* What is known already must do without a rescan as well. */
static void enter_growth(struct world *w)
{
	enter(w, world_chance(w, 2) ? HEALING_RESCAN : HEALING_READ);
}

static void settle(struct world *w)
{
	struct healing *h = &w->healing;
	const char *why;

	if (reconnect_durable(&w->shell.core)->paused) {
		if (has_answer(w, h->client) && w->now >= h->since + h->tries * RESUME_MS) {
			h->tries++;
			h->client = (int)client_ask(w, RC_ASK_RESUME);
		}
		return;
	}
	why = shell_is_settled(w);
	if (!why && uses_lame(w))
		why = "a connection is to a server that is gone";
	if (h->prompt && !w->driver.frozen && w->now - h->since > prompt_ms(w))
		world_fail(w, RULE_PROGRESS, "%s after %lld ms", why ? why : "all is well only",
			   w->now - h->since);
	if (why)
		return;
	revive_lame(w);
	if (world_chance(w, 4))
		enter(w, HEALING_PAUSE);
	else
		enter_growth(w);
}

/* A connection of a killed supervisor cannot be made to know a new size. */
static bool may_be_refused(const struct world *w, int ret)
{
	for (unsigned i = 0; ret == -EBUSY && i < w->set.connections; i++)
		if (w->shell.core.conn[i].state == RC_UNWATCHED)
			return true;
	return false;
}

static void ask_again(struct world *w, enum rc_request request)
{
	struct healing *h = &w->healing;

	if (w->now < h->since + h->tries * RESUME_MS)
		return;
	h->tries++;
	h->client = (int)client_ask(w, request);
}

/* A pause and its end are answered with success, unless something else is done at that moment. */
static void pause_or_resume(struct world *w)
{
	struct healing *h = &w->healing;
	bool pause = h->stage == HEALING_PAUSE;
	int ret;

	if (!has_answer(w, h->client))
		return;
	ret = h->client < 0 ? -EBUSY : w->clients.client[h->client].ret;
	if (ret == -EBUSY && (h->client < 0 || !may_be_refused(w, ret)))
		ask_again(w, pause ? RC_ASK_PAUSE : RC_ASK_RESUME);
	else if (ret && ret != -EBUSY && !w->set.stalls)
		world_fail(w, RULE_ANSWER, "a %s fails with %d", pause ? "pause" : "resume", ret);
	else if (pause && !ret)
		enter(w, HEALING_RESUME);
	else
		enter_growth(w);
}

static void rescan(struct world *w)
{
	struct healing *h = &w->healing;
	int ret;

	if (!has_answer(w, h->client))
		return;
	if (h->client >= 0) {
		ret = w->clients.client[h->client].ret;
		if (!ret || may_be_refused(w, ret)) {
			enter(w, HEALING_READ);
			return;
		}
	}
	ask_again(w, RC_ASK_RESCAN);
}

static void read_all(struct world *w)
{
	if (!app_is_idle(w))
		return;
	if (!w->app.reading)
		app_read_all(w);
	else
		enter(w, HEALING_REST);
}

/* Keys wear out also while nothing else happens. */
static bool may_look_at_keys(const struct world *w)
{
	return w->set.kernel_tls && w->set.tls_renew;
}

static bool is_due_nothing(const struct world *w)
{
	return reconnect_deadline(&w->shell.core) == RC_NEVER ||
	       (may_look_at_keys(w) && w->shell.core.phase == RC_WATCHING);
}

static bool is_worn_out(const struct world *w)
{
	for (unsigned i = 0; may_look_at_keys(w) && i < w->set.connections; i++) {
		int conn = w->shell.held[i];

		if (conn != SHELL_NONE && w->net.conn[conn].slot >= 0 &&
		    driver_records(w) - w->net.conn[conn].records_taken >= w->set.tls_renew)
			return true;
	}
	return false;
}

/* All servers have said more than the device has, and each connection can be made to know it. */
static bool should_grow(const struct world *w)
{
	if (w->contract.refused)
		return false;
	for (unsigned i = 0; i < w->set.servers; i++)
		if (w->contract.told[i] <= w->driver.size)
			return false;
	for (unsigned i = 0; i < w->set.connections; i++)
		if (w->shell.held[i] == SHELL_NONE)
			return false;
	return true;
}

static void rest(struct world *w)
{
	if (is_worn_out(w) || should_grow(w))
		return;
	if (shell_is_settled(w) || client_waiting(w) || w->dialer.busy || w->command.busy)
		return;
	w->over = is_due_nothing(w);
	/* One that began with connections that did not last has had a note of that instead. */
	if (w->over && w->contract.outage_noted && w->contract.flap_noted_at < 0 &&
	    w->shell.life == 1 && !w->set.adopted)
		world_fail(w, RULE_CONTRACT, "the log has no end of an outage");
}

/* The device is not ours, or disconnected by us. Whoever has something of it must notice. */
static void look_at_end(struct world *w)
{
	const struct shell *s = &w->shell;
	bool holds = false;

	if (!s->running) {
		w->over = true;
		return;
	}
	if (w->now - w->healing.since < GONE_MS)
		return;
	/* With timeout 0 it may hold one that the driver never took, and no sign of that. */
	for (unsigned i = 0; i < SIM_SLOTS; i++)
		holds |= s->candidate[i] != SHELL_NONE ||
			 (s->held[i] != SHELL_NONE && w->net.conn[s->held[i]].slot >= 0);
	if (holds || !is_due_nothing(w))
		world_fail(w, RULE_PROGRESS, "the device is gone, and its supervisor stays busy");
	w->over = true;
}

static void look_at_stage(struct world *w)
{
	struct healing *h = &w->healing;
	const char *why;

	if (!w->shell.running && !w->command.busy)
		shell_adopt(w, 0, 0);
	switch (w->shell.running ? h->stage : HEALING_NOT_YET) {
	case HEALING_NOT_YET:
		break;
	case HEALING_SETTLE:
		settle(w);
		break;
	case HEALING_PAUSE:
	case HEALING_RESUME:
		pause_or_resume(w);
		break;
	case HEALING_RESCAN:
		rescan(w);
		break;
	case HEALING_READ:
		read_all(w);
		break;
	case HEALING_REST:
		rest(w);
		break;
	}
	if (w->over || w->now - h->since < STAGE_MS)
		return;
	if (w->driver.frozen) {
		w->excuses[EXCUSE_FROZEN]++;
		w->over = true;
		return;
	}
	why = shell_is_settled(w);
	world_fail(w, RULE_PROGRESS, "%s after %d s without any fault (stage %d, phase %d%s)",
		   why                        ? why :
		   h->stage == HEALING_RESCAN ? "no rescan succeeds" :
		   h->stage == HEALING_READ   ? "requests are not done" :
		   is_worn_out(w)             ? "keys are worn out" :
		   should_grow(w)             ? "the device does not grow" :
						"something is still due",
		   STAGE_MS / 1000, (int)h->stage, (int)w->shell.core.phase,
		   reconnect_deadline(&w->shell.core) == RC_NEVER ? ", nothing is due" : "");
}

static void look(struct world *w, unsigned unused, unsigned unused2)
{
	(void)unused;
	(void)unused2;
	client_check(w, true);
	contract_check(w);
	if (w->shell.ended || w->driver.owner != DRIVER_OURS || w->driver.disconnected)
		look_at_end(w);
	else
		look_at_stage(w);
	if (!w->over)
		world_after(w, LOOK_MS, look, 0, 0);
}

/* Whether all connections can be back as soon as they are asked for. */
static bool is_free(const struct world *w)
{
	for (unsigned i = 0; i < w->net.conns; i++)
		if (w->net.conn[i].lingers)
			return false;
	return w->shell.running && !w->jumped && !reconnect_durable(&w->shell.core)->paused &&
	       !(w->set.adopted || w->shell.life > 1) && !w->set.stalls &&
	       w->now >= w->command.mutex_free && !w->command.busy && w->clients.aborted_at < 0 &&
	       !(w->dialer.busy && w->dialer.fault == DIALER_HANGS) && !w->driver.frozen;
}

void healing_prepare(struct world *w)
{
	struct healing *h = &w->healing;

	h->prompt = is_free(w);
	h->refused = w->set.servers == 1 && !w->server[0].running && !w->server[0].unreachable &&
		     w->now > w->server[0].changed_at + REFUSING_MS &&
		     w->now > w->dialer.failed_at + REFUSING_MS;
	if (w->set.servers < 2 || !h->prompt || !world_chance(w, 3))
		return;
	h->lame = (int)world_random(w, w->set.servers);
	h->lame_silent = world_chance(w, 2);
	STORY(w, "--- server %d comes back later", h->lame);
}

void healing_start(struct world *w)
{
	enter(w, HEALING_SETTLE);
	look(w, 0, 0);
}
