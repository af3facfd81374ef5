/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * negotiator: the supervisor's end of a child process that does all that has to do with strangers.
 * The child resolves names, connects, does the handshake and TLS (connect), and hands the finished
 * sockets back. It keeps credentials and addresses from one attempt to the next. It has no
 * privileges and sees no files once it has started, and nothing that it sends is believed
 * unchecked. Never waits for the child: deadlines are the caller's, which is dialer.
 */
#ifndef NBD_ATTACH_NEGOTIATOR_H
#define NBD_ATTACH_NEGOTIATOR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "daemon/negotiator_child.h"
#include "net/connect.h"
#include "net/transport.h"
#include "proto/neg.h"
#include "policy/plan.h"

enum negotiator_state {
	NEGOTIATOR_NONE, /* no child */
	NEGOTIATOR_STARTING,
	NEGOTIATOR_IDLE,
	NEGOTIATOR_BUSY, /* asked and not answered */
};

/* All zeros: no child. */
struct negotiator {
	enum negotiator_state state;
	pid_t pid; /* child; for a vital device the process that only keeps what it has read */
	int fd;    /* readable: there is something for negotiator_read; for polling only */
	/* Its system calls are filtered; see struct sandbox_result. */
	bool confined;
	bool locked; /* all its memory stays in RAM: only for a vital device, where permitted */
	/* The rest is the module's. */
	struct negotiator_server {
		const struct transport *transport;
		bool connected; /* sockets come with the question: the child cannot connect */
		bool tls;
	} servers[SETTINGS_SERVERS_MAX];
	unsigned server_count;
	bool forks;      /* vital device: the child forks another one when that dies */
	uint32_t number; /* number of the last question */
	unsigned stale;  /* number of answers to come that nobody wants any more */
	unsigned server; /* server of the last question */
	unsigned wanted; /* connections that its answer has at most; 0: information only */
};

/*
 * Starts the child for the servers of the settings, which need not live longer than the call. Does
 * not wait for it: NEGOTIATOR_STARTED follows. Its key files are read before privileges are
 * dropped, and never again. A process that the caller forks later keeps the child alive by its copy
 * of fd.
 *
 * For a vital device (settings_is_vital) names are looked up once, at the start, no file is opened
 * later, and all memory (relays' too) stays in RAM where that is permitted. At least one of the
 * servers must have addresses then; one that has none is unreachable for good. The child is two
 * processes: one only keeps what it has read, and replaces the other when that has died, which is
 * answered by -ECHILD.
 */
int negotiator_spawn(struct negotiator *n, const struct settings *settings,
		     const struct negotiator_params *params, struct err *e);

/*
 * Asks an idle one for connections to one server, as many as m says (NEG_GOAL_GO), or for
 * information only (NEG_GOAL_INFO, m may be NULL), within timeout_ms. For a Unix socket or a
 * command the caller connects, since the child cannot, and gives count connected sockets, of which
 * duplicates are sent; see connect_attempt. -EPIPE: the child is gone, or does not listen.
 */
int negotiator_ask(struct negotiator *n, unsigned server, enum neg_goal goal,
		   const struct plan_multi *m, unsigned timeout_ms, const int *connected,
		   unsigned count, struct err *e);

enum negotiator_event {
	NEGOTIATOR_NOTHING,  /* nothing new */
	NEGOTIATOR_STARTED,  /* *ret: 0, or a mistake in the keys (ERR_TLS, ERR_USAGE) */
	NEGOTIATOR_ANSWERED, /* *ret: 0 and *c, or the attempt's error */
	NEGOTIATOR_BROKEN,   /* dead, or it talks nonsense: e says which. It has to be ended */
};

/*
 * Reads one message, and never waits. *c is as connect_run gives it (command 0, the descriptors the
 * caller's). Each of its descriptors is a TCP or Unix stream socket, no two are the same, and
 * close(2) of it does not wait. Where *ret is not 0, e has the text. Texts are escaped, except for
 * those of the export.
 */
enum negotiator_event negotiator_read(struct negotiator *n, struct connections *c, int *ret,
				      struct err *e);

/* Cancels the question: a late answer is dropped. The next question can be asked at once. */
void negotiator_cancel(struct negotiator *n);

/*
 * Ends the process that talks and cancels the question, where another one then takes its place with
 * the same keys: for a vital device, after the start. False, and nothing is done, where there is
 * no way but to end all.
 */
bool negotiator_replace(struct negotiator *n);

/*
 * Closes the caller's end, at which the child ends soon unless it hangs. Returns its pid, for
 * waitpid, or 0: there was none. It is a process group, which does not contain relays.
 */
pid_t negotiator_hang_up(struct negotiator *n);

#endif
