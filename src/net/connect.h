/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * link: from "where" to finished handshakes: name resolution, connections and neg, all side by side under
 * one deadline. Request and result are flat, so that they can become messages between processes;
 * the descriptors and the child of a result belong to whoever holds it. Never touches a device.
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
	unsigned count;                /* connections; 0 for all goals but GO */
	int fds[PLAN_CONNECTIONS_MAX]; /* that many, blocking */
	pid_t command;                 /* our child that serves the other end, or 0 */
	int command_log;               /* its standard error, non-blocking, or -1 */
	char peer[80];                 /* numeric address, or "local" */
	bool encrypted; /* by TLS; for NEG_GOAL_GO fds take plain data all the same */
	bool relayed; /* by a process for each, that ends with it: TLS that the kernel does not do, or vsock */
	struct tls_info tls;
	struct export export; /* the same on all */
	char note
		[512]; /* for the user: why there are fewer connections than wanted, or what was forced; or "" */
};

/*
 * One server of the settings, connected to again and again: its credentials are read once, and the addresses of its
 * host stay known. Neither is shared with anybody.
 */
struct connector;

/* What one connect_run is to do. */
struct connect_attempt {
	enum neg_goal goal;
	unsigned timeout_ms; /* for everything together */
	struct plan_multi
		multi; /* for NEG_GOAL_GO; the other goals have one connection, and so have commands */
	const struct metactx *contexts; /* for NEG_GOAL_QUERY, or NULL */
	bool locked;                    /* relays keep all their memory in RAM, see relay_start */
	int cancel_fd; /* (or -1) ends it with -ECANCELED when it is readable or hangs up */
	/*
	 * For a Unix socket that cannot be reached by its path: that many sockets connected to it, which become
	 * connect_run's; fewer than multi wants are as if it wanted no more, others are for connections that have to
	 * begin anew (plan_multi's guard). 0: connect_run connects.
	 */
	unsigned connected;
	const int *fds;
	/* For NEG_GOAL_QUERY: where the connection goes, which is the caller's then, for handshake_end. */
	struct handshake *keep;
};

/*
 * Reads the credentials, so that a mistake in them is found before anybody is contacted. settings must outlive *l, which
 * is the caller's, for connect_free, which lets go of all that was made here. server is its number in settings.
 */
int connect_prepare(struct connector **l, const struct settings *settings, unsigned server,
		    struct err *e);
void connect_free(struct connector *l);

/* Looks up the host's addresses now, where it has a name; later runs use those. ERR_UNREACHABLE. */
int connect_resolve(struct connector *l, unsigned timeout_ms, int cancel_fd, struct err *e);

/*
 * Begins to look them up once more, beside whatever else is done: for a name whose addresses have all been no
 * good. The next run after that is done uses the new ones; where it fails the old ones stay.
 */
void connect_refresh(struct connector *l);

/* Ends what connect_refresh has begun. */
void connect_forget_refresh(struct connector *l);

/*
 * Connects and does the handshake. On success of NEG_GOAL_GO rs->fds are in the transmission phase
 * and nothing after the handshake has been read from them; on success of NEG_GOAL_QUERY a->keep is, and a
 * command goes on until connections_close. For other goals the connection is ended in the way the protocol wants. item is called with ctx for each export of NEG_GOAL_LIST, may
 * be NULL for other goals. With TLS nothing but the wish for it is sent in plain text, and there is no way
 * back to that.
 *
 * All connections that multi wants begin at once, so that they take the round trips of one. Those
 * beyond the first to be done are a guess until plan_multi has judged that one's answer, and never hold
 * it up: where several are not allowed they are ended (CONNECT_GRACE_MS for the answer of those that have asked for
 * the transmission phase, so that they can say goodbye). With multi.automatic they have, after
 * that, as long again as the first took, and those that fail are done without (rs->note); otherwise one that
 * fails, and a server that permits only one, end everything.
 *
 * Errors: ERR_UNREACHABLE, ERR_REFUSED, ERR_PROTOCOL, ERR_TLS, ERR_MULTI (also for answers that
 * differ), ERR_USAGE for a command that cannot be started. Nothing is left behind then, and rs holds nothing.
 */
enum { CONNECT_GRACE_MS = 100 };
int connect_run(struct connector *l, const struct connect_attempt *a,
		void (*item)(void *ctx, const struct neg_item *item), void *ctx,
		struct connections *rs, struct err *e);

/* All of it, once, with the first server. cancel_fd as in struct connect_attempt. */
int connect_open(const struct settings *settings, enum neg_goal goal, int cancel_fd,
		 void (*item)(void *ctx, const struct neg_item *item), void *ctx,
		 struct connections *rs, struct err *e);

/* Puts to an error met on a connection of rs where that goes, and the last words of its command. Returns -e->code. */
int connections_explain(const struct settings *settings, unsigned server, struct connections *rs,
			struct err *e);

/*
 * Ends a result that is not (or no more) wanted: NBD_CMD_DISC, close, and the end of the command, which has two
 * seconds to leave by itself. For one whose connections the kernel has taken over, only lets go of them.
 */
void connections_close(struct connections *rs, bool kernel_has_it);

#endif
