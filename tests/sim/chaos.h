/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * chaos: what goes wrong, and when. A table of faults and of their ends; each world has some of
 * them, at times of its own, until the moment when all faults end.
 */
#ifndef NBD_ATTACH_SIM_CHAOS_H
#define NBD_ATTACH_SIM_CHAOS_H

#include <stdbool.h>
#include <stdint.h>

struct world;

struct chaos {
	bool over;
	uint32_t kinds;    /* faults of this world: bits */
	unsigned pace_ms;  /* usual time between two */
	unsigned killings; /* times that the supervisor was killed */
	bool flapping;     /* servers close connections soon after they are made */
	unsigned flap_ms;  /* longest life of such a connection */
	bool detached;     /* somebody else has detached the device */
	bool ambush;       /* the supervisor is killed at moments that are chosen */
};

void chaos_begin(struct world *w);

/* The end of all faults. */
void chaos_end(struct world *w);

/* A new connection may be closed soon. */
void chaos_connected(struct world *w, unsigned conn);

/* A moment in which a supervisor had better not be killed. */
void chaos_ambush(struct world *w);

/* Another tool disconnects the device and, where attach is said, attaches its own export then. */
void chaos_detach(struct world *w, bool attach);

#endif
