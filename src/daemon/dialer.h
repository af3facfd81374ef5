/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * dialer: asks a negotiator for connections to a server, one question at a time, and always has an
 * answer in time. A negotiator that hangs, dies or cannot be started is a failed attempt like any
 * other, and the next question starts a new one. The deadline runs from the asking. It waits in
 * dialer_open, dialer_wait and dialer_close only, and parses nothing that a server sent.
 */
#ifndef NBD_ATTACH_DIALER_H
#define NBD_ATTACH_DIALER_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"
#include "daemon/negotiator.h"
#include "net/connect.h"
#include "policy/settings.h"

enum {
	DIALER_MARGIN_MS = 3000, /* beyond the time that the negotiator has for an attempt */
	DIALER_START_MS = 30000, /* limit for a negotiator's start, in which it reads its keys */
	DIALER_KILLED_MAX = 4,
	DIALER_FDS_MAX = 2 + SETTINGS_SERVERS_MAX,
};

enum dialer_state {
	DIALER_IDLE,
	DIALER_STARTING, /* the question is sent when the negotiator has started */
	DIALER_ASKED,
	DIALER_FAILED, /* the answer is there: failure */
};

/* The members are the module's. All zeros: closed. */
struct dialer {
	const struct settings *settings; /* NULL: closed */
	struct negotiator_params params;
	struct negotiator negotiator;
	long long start_due;                 /* a negotiator that has not started by then hangs */
	int unix_dirs[SETTINGS_SERVERS_MAX]; /* directory of each server's socket, or -1 */
	pid_t killed[DIALER_KILLED_MAX];     /* negotiators not reaped yet; 0: none */
	enum dialer_state state;
	unsigned server;
	enum neg_goal goal;
	struct plan_multi multi;
	long long due; /* STARTING, ASKED: the answer is there by then, or it is failure */
	struct err failure;
	pid_t command; /* child that serves the question, or 0 */
	int command_log;
};

/*
 * Starts the negotiator and waits for its report, so that a mistake in the settings (a key that
 * cannot be read) is found before anybody is contacted. settings must live as long as d. Where the
 * device is vital the directories of Unix sockets are opened now. -ECANCELED when cancel_fd (or -1)
 * is readable or hangs up before. After an error d is closed.
 */
int dialer_open(struct dialer *d, const struct settings *settings,
		const struct negotiator_params *params, int cancel_fd, struct err *e);

/*
 * Asks server for as many connections as m says (NEG_GOAL_GO), or for information only
 * (NEG_GOAL_INFO), within the connect timeout of the settings. Whatever fails is the answer. One
 * question at a time: one that is under way is cancelled. m may be NULL: one connection.
 */
void dialer_ask(struct dialer *d, unsigned server, enum neg_goal goal, const struct plan_multi *m);

/* Descriptor for polling (POLLIN), or -1. It can change with each call. */
int dialer_fd(const struct dialer *d);

/* When dialer_answer has something to do without the descriptor; monotonic_ms, -1: never. */
long long dialer_deadline(const struct dialer *d);

/*
 * True when the question is answered: *ret is 0 and *c as connect_run gives it, or *ret is the
 * -errno of the attempt and e its text. Never waits, but for a command that has failed: for its
 * last words and its end (command_quote, command_end). To be called also when nothing is asked and
 * the descriptor is readable.
 *
 * What fails here and not at the server is ERR_FAILED or ERR_USAGE: -ETIMEDOUT for a negotiator
 * that hangs, -EPIPE and -ECHILD for one that died.
 */
bool dialer_answer(struct dialer *d, struct connections *c, int *ret, struct err *e);

/* Waits for the answer, as above; -ECANCELED when cancel_fd is readable or hangs up before. */
int dialer_wait(struct dialer *d, int cancel_fd, struct connections *c, struct err *e);

/* Cancels the question; no answer follows. */
void dialer_cancel(struct dialer *d);

/*
 * Fills the descriptors that are open now, for a process that closes all others; fds has room for
 * DIALER_FDS_MAX. Returns their number.
 */
unsigned dialer_fds(const struct dialer *d, int *fds);

/* Ends the negotiator, and waits for its end for about a second. Does nothing for a closed one. */
void dialer_close(struct dialer *d);

#endif
