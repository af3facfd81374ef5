/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "command.h"

#include <errno.h>

#include "world.h"

enum {
	WAKE_MS = 3,          /* delay of the thread, and of its result */
	RESULT_LATE_MS = 300, /* delay of a result at times */
	HANG_MS = 11000,      /* a command that takes so long must have been noted */
};

void command_begin(struct world *w)
{
	w->command = (struct command){ .mutex_free = 0 };
}

static bool is_ours(const struct world *w)
{
	return w->driver.owner == DRIVER_OURS;
}

static void tell_result(struct world *w, unsigned serial, unsigned packed)
{
	struct command *c = &w->command;
	struct err failure = { .kind = ERR_KERNEL, .code = EINVAL, .text = "RECONFIGURE refused" };
	struct rc_event ev = {
		.type = RC_COMMAND_DONE,
		.result = (enum rc_result)(packed >> 1),
		.taken = packed & 1,
	};

	if (c->serial != serial)
		return;
	if (c->life != w->shell.life || !w->shell.running) {
		c->busy = false;
		return;
	}
	if (!c->hang_noted &&
	    w->now - c->given_at - (w->jumped - c->jumped) > HANG_MS + w->set.late_ms)
		world_fail(w, RULE_CONTRACT, "a command took %lld ms without a note",
			   w->now - c->given_at);
	if (ev.result != RC_OK)
		ev.err = &failure;
	shell_poll_all(w);
	c->busy = false;
	c->done_at = w->now;
	shell_event(w, &ev);
}

static void finish_command(struct world *w, enum rc_result result, bool taken)
{
	struct command *c = &w->command;
	static const char *const names[] = {
		[RC_OK] = "done",
		[RC_FAILED] = "failed",
		[RC_DISCONNECTED] = "not connected",
		[RC_NOT_OURS] = "not ours",
	};

	if (w->options.plant == PLANT_NEVER_TAKEN)
		taken = false;
	if (w->options.plant == PLANT_ALWAYS_TAKEN)
		taken = c->kind == COMMAND_OFFER && result == RC_OK;
	STORY(w, "command: %s%s", names[result], taken ? ", taken" : "");
	world_after(w, world_random(w, world_chance(w, 50) ? RESULT_LATE_MS : WAKE_MS), tell_result,
		    c->serial, (unsigned)result << 1 | taken);
}

void command_resized(struct world *w)
{
	if (w->command.resizing)
		finish_command(w, RC_OK, false);
	w->command.resizing = false;
}

/* Another tool comes between comparison and offer: the socket is found astray, and cut. */
static void go_astray(struct world *w)
{
	STORY(w, "command: another tool was faster");
	chaos_detach(w, false);
	w->excuses[EXCUSE_ASTRAY]++;
	w->net.conn[w->command.conn].holder = NET_NOBODY;
	net_end(w, w->command.conn, NET_CUT);
	finish_command(w, RC_NOT_OURS, false);
}

static void offer(struct world *w)
{
	struct command *c = &w->command;
	struct net_conn *conn = &w->net.conn[c->conn];
	int ret;

	if (c->astray && !--c->astray) {
		go_astray(w);
		return;
	}
	ret = driver_offer(w, c->conn);
	finish_command(w, ret ? RC_DISCONNECTED : RC_OK, conn->marked);
	chaos_ambush(w);
}

static void resize(struct world *w)
{
	int ret;

	w->command.resizing = true;
	ret = driver_resize(w, w->command.size);
	if (ret == -EINPROGRESS)
		return;
	w->command.resizing = false;
	finish_command(w, ret ? RC_DISCONNECTED : RC_OK, false);
}

static void disconnect(struct world *w)
{
	struct driver *d = &w->driver;
	bool zombie = d->disconnected;

	if (d->owner == DRIVER_FOREIGN)
		world_fail(w, RULE_OURS, "another tool's device is disconnected");
	if (!zombie && !w->shell.unseen &&
	    w->now - d->none_since < 1000LL * w->set.reconnect_timeout_s)
		world_fail(w, RULE_PROGRESS, "given up %lld ms after the last connection ended",
			   w->now - d->none_since);
	driver_disconnect(w);
	d->given_up = true;
	finish_command(w, RC_OK, false);
}

static void execute(struct world *w, unsigned serial, unsigned unused)
{
	struct command *c = &w->command;

	(void)unused;
	if (c->serial != serial)
		return;
	if (w->now < c->mutex_free) {
		world_after(w, c->mutex_free - w->now + world_random(w, 5), execute, serial, 0);
		return;
	}
	if (!is_ours(w) && w->options.plant != PLANT_NO_IDENTITY) {
		finish_command(w, RC_NOT_OURS, false);
		return;
	}
	if (c->fails && c->kind != COMMAND_DISCONNECT && world_chance(w, 4)) {
		finish_command(w, RC_FAILED, false);
		return;
	}
	switch (c->kind) {
	case COMMAND_OFFER:
		offer(w);
		break;
	case COMMAND_PROBE:
		finish_command(w, driver_probe(w) ? RC_DISCONNECTED : RC_OK, false);
		break;
	case COMMAND_RESIZE:
		resize(w);
		break;
	case COMMAND_DISCONNECT:
		disconnect(w);
		break;
	}
}

void command_give(struct world *w, enum command_kind kind, unsigned conn, uint64_t size)
{
	struct command *c = &w->command;

	c->busy = true;
	c->kind = kind;
	c->conn = conn;
	c->size = size;
	c->life = w->shell.life;
	c->serial++;
	c->given_at = w->now;
	c->jumped = w->jumped;
	c->hang_noted = false;
	world_after(w, world_random(w, WAKE_MS), execute, c->serial, 0);
}
