/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * healing: what must be true when all faults have ended. The servers are up, nobody pauses,
 * somebody supervises: all connections must be up again within a bounded time, a rescan must be
 * answered and grow the device to what all servers have, every request must be done, every block
 * must read as it was written, and then nothing at all may be due. A device that is not ours any
 * more, or was given up, must have no supervisor.
 */
#ifndef NBD_ATTACH_SIM_HEALING_H
#define NBD_ATTACH_SIM_HEALING_H

#include <stdbool.h>

struct world;

enum healing_stage {
	HEALING_NOT_YET,
	HEALING_SETTLE, /* all connections come up */
	HEALING_PAUSE,  /* the device is paused */
	HEALING_RESUME, /* the device is resumed */
	HEALING_RESCAN, /* the device grows */
	HEALING_READ,   /* requests end, and all blocks are read */
	HEALING_REST,   /* nothing is due */
};

struct healing {
	enum healing_stage stage;
	long long since; /* begin of the stage */
	int client;      /* waiting client; -1: none */
	unsigned tries;
	bool prompt;      /* nothing but the back-off stands in the way */
	bool refused;     /* the only server has refused all attempts for a while */
	int lame;         /* server that stays away until all connections are up; -1: none */
	bool lame_silent; /* the lame server is silent, rather than refusing */
};

void healing_begin(struct world *w);

/* All faults are about to end, but for a server that may stay away for a while. */
void healing_prepare(struct world *w);

/* All faults have ended. */
void healing_start(struct world *w);

#endif
