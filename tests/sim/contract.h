/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * contract: what the core may want, and when. Each event is seen before the core is told, each
 * action before it is carried out: whether it keeps the order that reconnect.h promises and the
 * rules that can be judged by what the supervisor knows. Rules that need to know what really
 * happened are checked where it happens, in driver and server.
 */
#ifndef NBD_ATTACH_SIM_CONTRACT_H
#define NBD_ATTACH_SIM_CONTRACT_H

#include <stdbool.h>
#include <stdint.h>

#include "limits.h"
#include "policy/reconnect.h"

struct world;

enum { CONTRACT_RATE = 64 };

struct contract {
	uint64_t told[SIM_SERVERS]; /* last size of each server, or the device's for an unfit one */
	long long told_at[SIM_SERVERS]; /* times of that */
	bool shrunk; /* a server said less than before: a renewal may be needless */

	struct rc_status shown; /* as published last */
	bool stranger;          /* a command found that the device is not ours */
	unsigned strange_commands;
	long long paused_at;    /* last time with a pause */
	long long installed_at; /* last INSTALL */
	long long heard_at;     /* last notice of the driver */
	long long heard_jumped; /* total of suspends at that time */
	bool heard_lost;        /* the last notice said that others are missing */
	long long drain_since;  /* begin of DRAINING; -1 in other phases */
	uint64_t in_flight;     /* requests that were told last */
	bool traffic_failed;    /* the counters could not be read once */

	long long ended_at;    /* last end or cut of a connection */
	long long loss_at;     /* end of the first connection of an outage; -1: none */
	long long dial_due;    /* a dial or a probe is due by then; -1 */
	bool detached;         /* the outage is that of a device which was disconnected */
	bool refused;          /* the driver has refused to grow */
	bool dialing;          /* a dial is under way for the core */
	bool outage_noted;     /* the log has a loss, and not yet its end */
	long long dial_jumped; /* total of suspends at that time */

	struct {
		int code;
		long long at;
	} noted[SIM_SERVERS]; /* last note of a failure to reach each server */
	long long flap_noted_at;
	long long dial_times[CONTRACT_RATE], offer_times[CONTRACT_RATE];
	long long connect_times[CONTRACT_RATE]; /* dials for connections, since the last resume */
	unsigned dials, offers, connects;
};

void contract_begin(struct world *w);

/* Another supervisor. */
void contract_renew(struct world *w);

void contract_before_event(struct world *w, const struct rc_event *ev);
void contract_after_event(struct world *w, const struct rc_event *ev);
void contract_after_actions(struct world *w);
void contract_before_action(struct world *w, const struct rc_action *a);

/* Fails if the device should have been given up by now. */
void contract_check(struct world *w);

/* Connections that are lost for the core. before: not in the event whose actions are seen now. */
unsigned contract_count_lost(const struct world *w, bool before);

#endif
