/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * negotiator: a child process that does for a supervisor all that has to do with strangers: it resolves, connects,
 * shakes hands and does TLS (link), and hands the finished sockets back. It keeps credentials and addresses from one
 * attempt to the next. It has no privileges, sees no files once it has started, and nothing that it says is believed
 * unchecked. It sleeps until it is asked, and ends when the caller's end of its socket is closed.
 */
#ifndef NBD_ATTACH_NEGOTIATOR_H
#define NBD_ATTACH_NEGOTIATOR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "net/connect.h"
#include "proto/neg.h"
#include "policy/plan.h"
#include "policy/settings.h"

enum {
	NEGOTIATOR_SERVERS_MAX = SETTINGS_SERVERS_MAX,
	/* with those that plan_multi's guard can need again */
	NEGOTIATOR_CONNECTED_MAX = PLAN_CONNECTIONS_MAX + 8,
};

/* What the process is, which no setting says. */
struct negotiator_params {
	const char *user; /* whom to become when started as root, see struct sandbox */
	bool lenient; /* neither filter nor limits: for valgrind, whose own calls would be filtered too */
};

struct negotiator {
	pid_t pid;     /* for a vital device, of the one that talks to nobody */
	int fd;        /* readable when an answer is there or the child is gone; for polling only */
	bool busy;     /* asked and not answered */
	bool confined; /* the kernel filters its system calls; false where it cannot, with lenient, and for a key in a token */
	bool locked; /* all its memory stays in RAM; false where that is not permitted, and for devices that are not vital */
	long long
		due_ms; /* by monotonic_ms: it has hung if the answer is not there by then; where busy */
	/* the rest is the module's */
	unsigned servers;
	bool replaced; /* there is one behind the one that talks */
	uint8_t is_unix[NEGOTIATOR_SERVERS_MAX], is_tls[NEGOTIATOR_SERVERS_MAX];
	bool is_vsock[NEGOTIATOR_SERVERS_MAX];
	uint32_t number; /* of the last question */
	unsigned stale;  /* answers to come that nobody wants any more */
	unsigned server; /* what was asked */
	unsigned most;   /* connections */
};

/*
 * Starts the child for the servers of the settings, which are no command and need not live longer than the call. Their key
 * files are read before privileges are dropped, and never again: a mistake in them is the error here (ERR_TLS, ERR_USAGE).
 * Waits for the child's report, START_MS and for a vital device the servers' timeouts at most. A process forked later
 * by the caller keeps the child alive by what it has of fd.
 *
 * For a vital device (settings_is_vital) names are looked up once, at the start, no file is opened later, and all memory
 * (relays' too) stays in RAM where that is permitted. One server at least must have addresses then; one that has none
 * is unreachable for good. The child is two then, of which one only keeps what it has read, and replaces the other when
 * that dies: -ECHILD is the answer then.
 */
int negotiator_start(struct negotiator *n, const struct settings *settings,
		     const struct negotiator_params *p, struct err *e);

/*
 * Asks for server's connections, as many as m says (NEG_GOAL_GO), or for information only (NEG_GOAL_INFO, m may
 * be NULL). One at a time: -EBUSY. For a Unix socket the caller connects (the child has no access to
 * paths) and gives count connected sockets, of which duplicates are sent; see connect_attempt. timeout_ms bounds the
 * whole. -EPIPE: the child is gone, or does not listen.
 */
int negotiator_ask(struct negotiator *n, unsigned server, enum neg_goal goal,
		   const struct plan_multi *m, unsigned timeout_ms, const int *connected,
		   unsigned count, struct err *e);

/*
 * Never waits. 0 and *rs as connect_run gives it (command 0, the descriptors the caller's), the attempt's error,
 * -EAGAIN while there is no answer, or -EPIPE when the child is gone, talks nonsense or is overdue: stop it and
 * start another one. Texts are escaped, but for those of rs->export.
 */
int negotiator_answer(struct negotiator *n, struct connections *rs, struct err *e);

/* Gives up what was asked for; if an answer comes all the same it is dropped. The next question can be asked at once. */
void negotiator_cancel(struct negotiator *n);

/* Ends the child and reaps it, within a second or so. Also for one that failed, or was stopped before. */
void negotiator_stop(struct negotiator *n);

#endif
