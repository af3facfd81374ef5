/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * driver: the kernel's nbd driver (drivers/block/nbd.c) for one index, after docs/nbd-driver.md,
 * whose sections are given in parentheses:
 * - A slot dies some milliseconds after its connection has ended. LINK_DEAD comes around that time,
 *   on SMP before the slot is dead (Races), and not at all while the device is being disconnected
 *   (Death and notice). On 7.2 a slot may take as long as the request timeout to die, and takes no
 *   socket before (A signal and a half-sent write).
 * - RECONFIGURE puts a socket into the first dead slot in index order, and drops it without a word
 *   where none is dead. Only with a request timeout it leaves a sign, SO_SNDTIMEO (Adoption).
 * - A request that was sent stays with its connection until its own timer: with a timeout the timer
 *   ends the connection, if that is still the same, and sends the request again; without (one
 *   connection only) it is sent again within two seconds of the connection's replacement (Timers).
 * - A request that finds no live slot waits without any timer until there is one.
 * - RESIZE waits on 6.12 and 7.2 for every request and lets none begin meanwhile (Deadlock).
 * - DISCONNECT ends all requests with an error; the device stays configured in name until it is
 *   closed by all (Disconnecting).
 *
 * Not modelled: dead_conn_timeout (ten years under a supervisor), error replies, partly sent
 * requests, the size of requests.
 */
#ifndef NBD_ATTACH_SIM_DRIVER_H
#define NBD_ATTACH_SIM_DRIVER_H

#include <stdbool.h>
#include <stdint.h>

#include "limits.h"

struct world;

enum driver_owner { DRIVER_FREE, DRIVER_OURS, DRIVER_FOREIGN };

/* What a device that is not ours is known by. */
enum driver_backend { DRIVER_BACKEND_OURS, DRIVER_BACKEND_OTHER, DRIVER_BACKEND_NONE };

struct driver_slot {
	unsigned conn;
	bool dead;
	bool dying;    /* the driver is about to see that its connection has ended */
	bool noticed;  /* LINK_DEAD is on its way */
	bool stalled;  /* a worker keeps the slot, and it takes no socket */
	unsigned life; /* number of sockets so far */
};

enum driver_state {
	DRIVER_NONE,
	DRIVER_HELD,    /* the queue is frozen */
	DRIVER_WAITING, /* no slot is alive */
	DRIVER_SENT,
};

struct driver_request {
	enum driver_state state;
	unsigned conn, slot, cookie;
	long long limit;  /* latest time of the answer */
	bool answered;    /* the answer is on its way */
	unsigned version; /* version that a read has found */
};

struct driver {
	enum driver_owner owner;
	enum driver_backend backend;
	bool disconnected; /* disconnected, and still open */
	bool given_up;     /* our supervisor has disconnected it */
	unsigned slots;
	struct driver_slot slot[SIM_SLOTS];
	struct driver_request request[SIM_JOBS]; /* each job's request */
	uint64_t size;
	bool frozen;          /* a RESIZE waits for the requests under way */
	uint64_t size_wanted; /* size that this RESIZE wants */
	bool timer_armed;
	unsigned cookies;
	uint64_t requests, bytes; /* finished since the attach */
	long long none_since;     /* all slots have been without a connection since; -1: one has */
};

void driver_begin(struct world *w);

/* The application sends the request of job. */
void driver_submit(struct world *w, unsigned job);

/* The answer to the request with this cookie is read from its connection. */
void driver_answer(struct world *w, unsigned job, unsigned cookie);

/* Answers that could not get through come now. */
void driver_answer_late(struct world *w, unsigned server);

/* conn has ended; it stands in a slot. */
void driver_conn_ended(struct world *w, unsigned conn);

/* NBD_CMD_RECONFIGURE with a socket: 0 (whether it was taken is another question), -EINVAL. */
int driver_offer(struct world *w, unsigned conn);

/* NBD_CMD_RECONFIGURE with nothing: 0, -EINVAL. */
int driver_probe(struct world *w);

/* NBD_CMD_RECONFIGURE with a size: 0, -EINVAL, or -EINPROGRESS: command_resized follows. */
int driver_resize(struct world *w, uint64_t size);

/* NBD_CMD_DISCONNECT. */
void driver_disconnect(struct world *w);

/* Nobody has the device open any more. */
void driver_close(struct world *w);

/* Another tool attaches its own export to the index, which must be free. */
void driver_attach_foreign(struct world *w);

/* Slots that have a connection which has not ended. */
unsigned driver_alive(const struct world *w);

unsigned driver_in_flight(const struct world *w);

/* TLS records that the device has used so far, as the supervisor counts them. */
uint64_t driver_records(const struct world *w);

#endif
