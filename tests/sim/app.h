/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * app: applications that use the device, as jobs with one request at a time: writes, reads,
 * flushes. Each write of a block has the next higher version, and no block has two requests at a
 * time, so that what a read may show is an interval: from the version that cannot be lost to the
 * version that was acknowledged last. A version below is lost or stale data.
 */
#ifndef NBD_ATTACH_SIM_APP_H
#define NBD_ATTACH_SIM_APP_H

#include <stdbool.h>

#include "limits.h"

struct world;

enum app_op { APP_READ, APP_WRITE, APP_FLUSH };

struct app_job {
	enum app_op op;
	unsigned block, version;
	bool busy;
	unsigned flushing[SIM_BLOCKS]; /* APP_FLUSH: versions that it makes safe */
	unsigned to_read;              /* blocks, in the last round */
};

struct app {
	unsigned jobs;                /* 0: the device is idle */
	unsigned think_ms;            /* between two requests of a job, up to */
	bool open;                    /* somebody has the device open */
	bool stopping;                /* no new requests */
	bool reading;                 /* last round: each block is read once */
	bool failed;                  /* an I/O error was seen: the application ends */
	unsigned acked[SIM_BLOCKS];   /* last acknowledged version of each block */
	unsigned floor[SIM_BLOCKS];   /* version that cannot be lost, as things are */
	unsigned flushed[SIM_BLOCKS]; /* version that no crash can take */
	struct app_job job[SIM_JOBS];
};

void app_begin(struct world *w);

/* The request of job is done. version: of a read. */
void app_done(struct world *w, unsigned job, bool error, unsigned version);

/* A crash took blocks (bits) from a cache: what was not flushed may be lost. */
void app_excuse_lost(struct world *w, unsigned blocks);

/* A server writes version to block: whether that comes too late. */
bool app_is_stale(const struct world *w, unsigned block, unsigned version);

/* No new requests from now on. */
void app_stop(struct world *w);

/* Each block is read once more, by an idle application. */
void app_read_all(struct world *w);

bool app_is_idle(const struct world *w);

#endif
