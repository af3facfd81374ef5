/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * connect: from a server to connections in the transmission phase: look-up, handshakes, relays, all
 * under one deadline. The result is flat, so that it can become a message between processes;
 * whoever holds it owns its descriptors and its child. Never touches a device.
 */
#ifndef NBD_ATTACH_CONNECT_H
#define NBD_ATTACH_CONNECT_H

#include <stdbool.h>
#include <sys/types.h>

#include "net/handshake.h"
#include "proto/metactx.h"
#include "base/err.h"
#include "proto/export.h"
#include "proto/neg.h"
#include "policy/plan.h"
#include "policy/settings.h"
#include "net/tls.h"

struct connections {
	unsigned count;                /* connections; 0 for all goals but NEG_GOAL_GO */
	int fds[PLAN_CONNECTIONS_MAX]; /* blocking, count of them */
	pid_t command;                 /* our child that serves the other end, or 0 */
	int command_log;               /* its standard error, non-blocking, or -1 */
	char peer[80];                 /* numeric address, or "local" */
	bool encrypted;       /* the server is reached by TLS; fds take plain data all the same */
	bool relayed;         /* each of fds goes to a relay process, which ends with it */
	struct tls_info tls;  /* filled if encrypted */
	struct export export; /* the same on all */
	/* Why there are fewer connections than wanted, or what was forced: for the user; or "". */
	char note[512];
};

/*
 * One server of the settings that is connected to again and again: its credentials are read once,
 * and the addresses of its host stay known. Neither is shared with anybody.
 */
struct connector;

/* What one connect_run is to do. */
struct connect_attempt {
	enum neg_goal goal;
	unsigned timeout_ms; /* limit for everything together */
	/* For NEG_GOAL_GO: the other goals have one connection, and so have commands. */
	struct plan_multi multi;
	const struct metactx *contexts; /* NEG_GOAL_QUERY only, or NULL */
	bool locked;                    /* relays keep all their memory in RAM, see relay_start */
	int cancel_fd; /* (or -1) ends it with -ECANCELED when it is readable or hangs up */
	/*
	 * Connected sockets, for a process that sees no paths (by_path of struct transport),
	 * which become connect_run's. Fewer than multi wants are as if it wanted no more; those
	 * beyond are for handshakes that begin anew. 0: connect_run connects.
	 */
	unsigned connected;
	const int *fds;
	/*
	 * NEG_GOAL_QUERY: takes the connection, which is the caller's then, for handshake_end
	 * before connect_free.
	 */
	struct handshake *keep;
};

/*
 * Reads the credentials, so that a mistake in them is found before anybody is contacted. server
 * is its number in settings, which must outlive *c. *c is the caller's, for connect_free.
 */
int connect_prepare(struct connector **c, const struct settings *settings, unsigned server,
		    struct err *e);
void connect_free(struct connector *c);

/* Looks up the host's addresses now, where it has a name; later runs use those. ERR_UNREACHABLE. */
int connect_resolve(struct connector *c, unsigned timeout_ms, int cancel_fd, struct err *e);

/*
 * Begins to look them up once more, beside whatever else is done: for a name whose addresses have
 * all failed. The next run after the look-up is done uses the new ones; where it fails the old
 * ones stay.
 */
void connect_refresh(struct connector *c);

/* Ends what connect_refresh has begun. */
void connect_forget_refresh(struct connector *c);

/*
 * Connects and does the handshakes, as race_run says. On success of NEG_GOAL_GO result->fds are
 * in the transmission phase and nothing after the handshake has been read from them. On success
 * of NEG_GOAL_QUERY a->keep is, and a command goes on until connections_close. For other goals
 * the connection is ended as the protocol wants. Calls item, which may be NULL for other goals,
 * with ctx for each export of NEG_GOAL_LIST. With TLS nothing but the wish for it is sent in
 * plain text, and there is no way back to plain text.
 *
 * Errors: ERR_UNREACHABLE, ERR_REFUSED, ERR_PROTOCOL, ERR_TLS, ERR_MULTI (also for answers that
 * differ), ERR_USAGE for a command that cannot be started. Nothing is left behind then, and
 * result holds nothing.
 */
int connect_run(struct connector *c, const struct connect_attempt *a,
		void (*item)(void *ctx, const struct neg_item *item), void *ctx,
		struct connections *result, struct err *e);

/*
 * Adds to an error met on one of the connections the name of the server, and the last words of its
 * command. Returns -e->code.
 */
int connections_explain(const struct settings *settings, unsigned server, struct connections *c,
			struct err *e);

/*
 * Ends connections that are not wanted (any more): NBD_CMD_DISC, close, and the end of the
 * command (command_end). kernel_has_it: the kernel has taken them over, and only our descriptors
 * are closed.
 */
void connections_close(struct connections *c, bool kernel_has_it);

#endif
