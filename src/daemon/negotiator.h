/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * negotiator: a child process that does for a supervisor all that has to do with strangers. It
 * resolves names, connects, does the handshake and TLS (connect), and hands the finished sockets
 * back. It keeps credentials and addresses from one attempt to the next. It has no privileges and
 * sees no files once it has started, and nothing that it sends is believed unchecked. It sleeps
 * until it is asked, and ends when the caller's end of its socket is closed.
 */
#ifndef NBD_ATTACH_NEGOTIATOR_H
#define NBD_ATTACH_NEGOTIATOR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "net/connect.h"
#include "net/transport.h"
#include "proto/neg.h"
#include "policy/plan.h"

enum {
	NEGOTIATOR_SERVERS_MAX = SETTINGS_SERVERS_MAX,
	/* Sockets beside a question, with spare ones for plan_multi's guard. */
	NEGOTIATOR_CONNECTED_MAX = PLAN_CONNECTIONS_MAX + 8,
};

struct negotiator_params {
	const char *user; /* user that root becomes, see struct sandbox */
	bool lenient;     /* neither filter nor limits: for valgrind, see struct sandbox */
};

struct negotiator {
	pid_t pid; /* child; for a vital device the process that only keeps what it has read */
	int fd;    /* readable: an answer is there, or the child is gone; for polling only */
	bool busy; /* asked and not answered */
	/* Its system calls are filtered; see struct sandbox_result. */
	bool confined;
	bool locked; /* all its memory stays in RAM: only for a vital device, where permitted */
	long long due_ms; /* time by which a busy child must answer; monotonic_ms */
	/* The rest is the module's. */
	unsigned server_count;
	struct negotiator_server {
		const struct transport *transport;
		bool tls;
	} servers[NEGOTIATOR_SERVERS_MAX];
	bool forks;      /* vital device: the child forks another one when that dies */
	uint32_t number; /* number of the last question */
	unsigned stale;  /* number of answers to come that nobody wants any more */
	unsigned server; /* server of the last question */
	unsigned wanted; /* connections that its answer has at most; 0: information only */
};

/*
 * Starts the child for the servers of the settings, which are no command and need not live longer
 * than the call. Their key files are read before privileges are dropped, and never again: a mistake
 * in them is the error here (ERR_TLS, ERR_USAGE). Waits for the child's report: at most half a
 * minute, and for a vital device the servers' timeouts. A process that the caller forks later keeps
 * the child alive by its copy of fd.
 *
 * For a vital device (settings_is_vital) names are looked up once, at the start, no file is opened
 * later, and all memory (relays' too) stays in RAM where that is permitted. At least one of the
 * servers must have addresses then; one that has none is unreachable for good. The child is two
 * processes: one only keeps what it has read, and replaces the other when that dies, which is
 * answered by -ECHILD.
 */
int negotiator_start(struct negotiator *n, const struct settings *settings,
		     const struct negotiator_params *p, struct err *e);

/*
 * Asks for connections to one server, as many as m says (NEG_GOAL_GO), or for information only
 * (NEG_GOAL_INFO, m may be NULL), within timeout_ms. One question at a time: -EBUSY. For a Unix
 * socket the caller connects, since the child has no access to paths, and gives count connected
 * sockets, of which duplicates are sent; see connect_attempt. -EPIPE: the child is gone, or does
 * not listen.
 */
int negotiator_ask(struct negotiator *n, unsigned server, enum neg_goal goal,
		   const struct plan_multi *m, unsigned timeout_ms, const int *connected,
		   unsigned count, struct err *e);

/*
 * Never waits. 0 and *rs as connect_run gives it (command 0, the descriptors the caller's); the
 * attempt's error; -EAGAIN while there is no answer; or -EPIPE when the child is gone, talks
 * nonsense or is overdue: stop it and start another one. Texts are escaped, except for those of
 * rs->export.
 */
int negotiator_answer(struct negotiator *n, struct connections *rs, struct err *e);

/* Cancels the question: a late answer is dropped. The next question can be asked at once. */
void negotiator_cancel(struct negotiator *n);

/* Ends and reaps the child within about a second. Also after a failed start, and twice. */
void negotiator_stop(struct negotiator *n);

#endif
