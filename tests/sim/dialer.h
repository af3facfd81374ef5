/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * dialer: the negotiator behind daemon/dialer, as the core sees it. Each dial is answered within
 * its deadline, whatever happens: refused, silent until the deadline, no such export, or
 * candidates, of which there may be fewer than asked for and which may have died before they are
 * told. A negotiator that hangs, dies or cannot be forked is a failed dial like any other.
 */
#ifndef NBD_ATTACH_SIM_DIALER_H
#define NBD_ATTACH_SIM_DIALER_H

#include <stdbool.h>

#include "base/err.h"
#include "proto/export.h"

#include "limits.h"

struct world;

enum dialer_fault { DIALER_WELL, DIALER_HANGS, DIALER_DIES, DIALER_NO_FORK };

struct dialer {
	bool busy, connected;
	bool unfit;    /* the export is not ours as it was */
	unsigned life; /* number of the dial */
	unsigned server, asked, count;
	unsigned conn[SIM_SLOTS];
	long long deadline;
	enum dialer_fault fault;
	long long failed_at; /* last dial that a fault of this machine has spoilt */
	unsigned faults;     /* number of dials that will go wrong */
	enum dialer_fault next;
	struct err err;
	struct export export;
};

void dialer_begin(struct world *w);
void dialer_dial(struct world *w, unsigned server, unsigned count);

/* Also what happens when the supervisor dies. */
void dialer_cancel(struct world *w);

/* A server that was silent may answer now. */
void dialer_wake(struct world *w, unsigned server);

#endif
