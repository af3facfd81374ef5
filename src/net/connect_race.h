/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * connect_race: several handshakes with one server side by side, under one deadline: leads them to
 * the same address, keeps as many as plan_multi permits, and compares their answers. Never resolves
 * a name, and knows no relay and no kernel.
 */
#ifndef NBD_ATTACH_CONNECT_RACE_H
#define NBD_ATTACH_CONNECT_RACE_H

#include <poll.h>
#include <stdbool.h>

#include "base/err.h"
#include "net/handshake.h"
#include "net/resolve.h"
#include "net/tls_creds.h"
#include "policy/plan.h"
#include "proto/neg.h"

/*
 * How long race_run waits for the answers on connections that it ends: only then it says goodbye.
 */
enum { RACE_GRACE_MS = 100 };

struct race_params {
	const struct neg_params *neg;
	const struct tls_creds *creds; /* NULL: no TLS */
	struct plan_multi multi;
	unsigned connections; /* to begin with, at least 1 */
	unsigned timeout_ms;  /* shown in error texts */
	long long deadline;   /* by monotonic_ms, as the other times are */
	int cancel_fd;        /* (or -1) ends it with -ECANCELED when it is readable or hangs up */
	/*
	 * Sockets that are connected already, instead of addresses. Those beyond the handshakes
	 * are for handshakes that begin anew. All are the race's from race_init on, also after an
	 * error.
	 */
	const int *fds;
	unsigned fd_count; /* 0: race_start dials */
	/* Takes each NEG_ITEM, or NULL. */
	void (*item)(void *ctx, const struct neg_item *item);
	void *ctx;
};

struct race {
	/* The result of race_run: the handshakes that are done. The caller may take them out. */
	struct handshake *handshakes;
	unsigned count;
	char note[512]; /* why there are fewer than wanted, or what was forced; "" */

	/* All of this is race_run's own. */
	struct race_params params;
	struct resolve_result addresses;
	unsigned fd_next; /* next one of params.fds to use */
	struct pollfd *polled;
	bool same_address; /* the address is known that all connect to */
	bool judged;       /* plan_multi has decided for good */
	/* Handshake that was asked for NBD_CMD_CACHE and has not answered; 0: none. */
	unsigned asked;
	enum plan_cache cache;
	long long began;
	/* End of the wait for others than the first, where multi.automatic; 0: not known yet. */
	long long spare_deadline;
};

/*
 * Prepares the handshakes. Copies p, but not what it points to. For race_end, also after an
 * error.
 */
int race_init(struct race *r, const struct race_params *p, struct err *e);

/* Begins all handshakes at once. addresses count for nothing where there are sockets. */
void race_start(struct race *r, const struct resolve_result *addresses);

/*
 * Carries the handshakes out. Connections beyond the first to be done are a guess until plan_multi
 * has judged its answer, and never hold it up: where several are not permitted they are ended. With
 * multi.automatic they have as long again as the first took, and those that fail are left out
 * (note); otherwise one that fails, and a server that permits only one, end everything.
 *
 * Returns 0, or the error of the first that failed. ERR_MULTI: several are not permitted, or the
 * answers differ.
 */
int race_run(struct race *r, struct err *e);

/* Ends what is left of the handshakes, as the protocol wants, and frees everything. */
void race_end(struct race *r);

#endif
