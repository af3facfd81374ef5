/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * shell: the supervisor around the core, that is what daemon/supervise does with the actions of
 * reconnect.h, and how events get to it: in any order, late, also twice where poll would say so.
 * It checks the contract of the header on each action. A supervisor may be killed between any two
 * actions; another one adopts the device then with what was published last, or is handed it over.
 */
#ifndef NBD_ATTACH_SIM_SHELL_H
#define NBD_ATTACH_SIM_SHELL_H

#include <stdbool.h>
#include <stdint.h>

#include "policy/reconnect.h"

#include "limits.h"

struct world;

enum { SHELL_EVENTS = 256, SHELL_NONE = -1, SHELL_RATE = 64 };

enum shell_start {
	SHELL_FRESH,
	SHELL_ADOPTED,     /* no descriptors */
	SHELL_FROM_STORE,  /* the service manager had kept the descriptors */
	SHELL_HANDED_OVER, /* with descriptors and states */
};

struct shell {
	struct reconnect core;
	bool running;
	bool ended;    /* for good: nobody adopts the device again */
	int result;    /* of the end */
	unsigned life; /* number of this supervisor */
	bool carrying_out;
	int kill_in; /* it is killed after so many actions more; -1: it is not */
	int held[SIM_SLOTS], candidate[SIM_SLOTS]; /* connections; SHELL_NONE */
	bool end_told[SIM_SLOTS];                  /* candidate: CANDIDATE_ENDED was said */
	bool cutting[SIM_SLOTS];                   /* connection: CUT_DONE has not been said yet */
	bool has_store;                            /* the service manager keeps the descriptors */
	int stored[SIM_SLOTS]; /* descriptors that the service manager keeps; SHELL_NONE */
	bool unseen;           /* the driver uses a connection that was told to be lost */
	struct rc_event event[SHELL_EVENTS];
	unsigned first, count;
	long long tick_at;
	unsigned tick_serial, spins;
	struct rc_durable published;
	uint64_t told
		[SIM_SERVERS]; /* size that each server said last, the device's if it was unfit */
	bool stranger;         /* a command found that the device is not ours */
	unsigned strange_commands;
	bool replaced;           /* a successor has everything */
	bool heir;               /* this one was such a successor */
	long long handing_since; /* begin of the last hand-over */
	long long heard_at;      /* when the last notice of the driver was told */
	bool traffic_failed;     /* the counters could not be read once */
	long long drain_since;
	uint64_t in_flight; /* as told last */
	struct {
		int code;
		long long at;
	} noted[SIM_SERVERS]; /* last note of a failure to reach each server */
	long long flap_noted_at;
	long long started_at;
	long long dial_times[SHELL_RATE], offer_times[SHELL_RATE];
	unsigned dials, offers;
	struct rc_config config;
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
