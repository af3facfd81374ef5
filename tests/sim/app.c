/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "app.h"

#include <string.h>

#include "world.h"

enum {
	CLOSE_MS = 3000, /* an application that saw an error closes the device within that */
	OWN_BLOCKS = SIM_BLOCKS / SIM_JOBS,
};

static void begin_request(struct world *w, unsigned job)
{
	struct app *a = &w->app;
	struct app_job *j = &a->job[job];
	unsigned kind = world_random(w, 10);

	j->busy = true;
	j->op = kind < 6 ? APP_WRITE : kind < 9 ? APP_READ : APP_FLUSH;
	j->block = job * OWN_BLOCKS + world_random(w, OWN_BLOCKS);
	j->version = a->acked[j->block] + 1;
	if (a->reading) {
		j->op = APP_READ;
		j->block = job * OWN_BLOCKS + --j->to_read;
	}
	if (j->op == APP_FLUSH)
		memcpy(j->flushing, a->floor, sizeof(j->flushing));
	driver_submit(w, job);
}

static void next_request(struct world *w, unsigned job, unsigned unused)
{
	(void)unused;
	if (!w->app.stopping && !w->app.failed && !w->app.job[job].busy)
		begin_request(w, job);
}

void app_begin(struct world *w)
{
	struct app *a = &w->app;

	memset(a, 0, sizeof(*a));
	a->open = !world_chance(w, 8);
	a->jobs = a->open && !world_chance(w, 8) ? 1 + world_random(w, SIM_JOBS) : 0;
	a->think_ms = world_chance(w, 2) ? 300 : world_chance(w, 2) ? 30 : 3000;
	for (unsigned i = 0; i < a->jobs; i++)
		world_after(w, world_random(w, 100), next_request, i, 0);
}

static void close_device(struct world *w, unsigned unused, unsigned unused2)
{
	(void)unused;
	(void)unused2;
	w->app.open = false;
	driver_close(w);
}

static void check_read(struct world *w, const struct app_job *j, unsigned version)
{
	struct app *a = &w->app;

	if (version < a->floor[j->block] || version > a->acked[j->block])
		world_fail(w, RULE_DATA, "block %u reads as version %u, not %u to %u", j->block,
			   version, a->floor[j->block], a->acked[j->block]);
	a->floor[j->block] = a->acked[j->block] = version;
}

void app_done(struct world *w, unsigned job, bool error, unsigned version)
{
	struct app *a = &w->app;
	struct app_job *j = &a->job[job];

	j->busy = false;
	if (error) {
		if (!a->failed)
			world_after(w, world_random(w, CLOSE_MS), close_device, 0, 0);
		a->failed = true;
		return;
	}
	switch (j->op) {
	case APP_WRITE:
		a->acked[j->block] = a->floor[j->block] = j->version;
		break;
	case APP_READ:
		check_read(w, j, version);
		break;
	case APP_FLUSH:
		for (unsigned i = 0; i < SIM_BLOCKS; i++)
			if (j->flushing[i] > a->flushed[i])
				a->flushed[i] = j->flushing[i];
		break;
	}
	if (a->reading && j->to_read)
		begin_request(w, job);
	else if (!a->reading && !a->stopping)
		world_after(w, 1 + world_random(w, a->think_ms), next_request, job, 0);
}

void app_excuse_lost(struct world *w, unsigned blocks)
{
	struct app *a = &w->app;

	for (unsigned i = 0; i < SIM_BLOCKS; i++) {
		if (!(blocks & 1U << i) || a->flushed[i] >= a->floor[i])
			continue;
		a->floor[i] = a->flushed[i];
		w->excuses[EXCUSE_UNFLUSHED]++;
		/* A flush under way will succeed elsewhere, and flush nothing of it. */
		for (unsigned k = 0; k < SIM_JOBS; k++)
			a->job[k].flushing[i] = 0;
	}
}

bool app_is_stale(const struct world *w, unsigned block, unsigned version)
{
	return version < w->app.acked[block];
}

void app_stop(struct world *w)
{
	w->app.stopping = true;
}

void app_read_all(struct world *w)
{
	w->app.reading = w->app.open = true;
	for (unsigned i = 0; i < SIM_JOBS; i++) {
		w->app.job[i].to_read = OWN_BLOCKS;
		begin_request(w, i);
	}
}

bool app_is_idle(const struct world *w)
{
	for (unsigned i = 0; i < SIM_JOBS; i++)
		if (w->app.job[i].busy)
			return false;
	return true;
}
