/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * shell: the supervisor around the core, that is what daemon/supervise does with the actions of
 * reconnect.h, and how events get to it: in any order, late, also twice where poll would say so.
 * A supervisor may be killed between any two actions; another one adopts the device then with
 * what was published last, or is handed it over.
 */
#ifndef NBD_ATTACH_SIM_SHELL_H
#define NBD_ATTACH_SIM_SHELL_H

#include <stdbool.h>
#include <stdint.h>

#include "policy/reconnect.h"

#include "limits.h"

struct world;

enum { SHELL_EVENTS = 256, SHELL_NONE = -1 };

enum shell_start {
	SHELL_FRESH,
	SHELL_ADOPTED,     /* no descriptors */
	SHELL_FROM_STORE,  /* the service manager had kept the descriptors */
	SHELL_HANDED_OVER, /* with descriptors and states */
};

struct shell {
	struct reconnect core;
	struct rc_config config;
	struct rc_durable published;
	bool running;
	bool ended;    /* over for good, nobody adopts the device again */
	bool replaced; /* a successor has everything */
	bool heir;     /* this one was such a successor */
	bool unseen;   /* the driver uses a connection that was told to be lost */
	unsigned life; /* number of this supervisor */
	int kill_in;   /* actions until it is killed; -1: it is not */

	int held[SIM_SLOTS];      /* connections with a descriptor; SHELL_NONE */
	int candidate[SIM_SLOTS]; /* candidates; SHELL_NONE */
	int stored[SIM_SLOTS];    /* descriptors of the service manager; SHELL_NONE */
	bool has_store;           /* the service manager keeps the descriptors */
	bool end_told[SIM_SLOTS]; /* candidate: CANDIDATE_ENDED was said */
	bool cutting[SIM_SLOTS];  /* connection: CUT_DONE has not been said yet */

	bool carrying_out; /* events that come wait for the end of the actions */
	struct rc_event event[SHELL_EVENTS];
	unsigned first, count;
	long long tick_at, tick_jumped;
	unsigned tick_serial, spins;
	unsigned heard, heard_lost; /* notices that were told since the last hand-over began */
};

void shell_begin(struct world *w);

void shell_start(struct world *w, enum shell_start how);

/* The supervisor is told; nothing happens where there is none. */
void shell_event(struct world *w, const struct rc_event *ev);

/* A notice of the driver, of one connection or (lost) that notices are missing. */
void shell_notice(struct world *w, bool lost);

/* poll says that conn has ended, if the supervisor has it still. */
void shell_poll(struct world *w, unsigned conn, unsigned unused);

/* The same of all that it has, which it looks at before it tells of a command's end. */
void shell_poll_all(struct world *w);

/* Nothing of conn can reach its server any more. */
void shell_cut_done(struct world *w, unsigned conn, unsigned index);

void shell_kill(struct world *w);

/* Another supervisor takes over where one was killed, as soon as it can. */
void shell_adopt(struct world *w, unsigned unused, unsigned unused2);

/* Whether all is well by the supervisor's view and by the driver's; else why not. */
const char *shell_is_settled(struct world *w);

#endif
