/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * server: processes that serve an export, and what they have stored. Our servers share one
 * stable storage. Each has a cache of its own, as two machines before one disk have: it is
 * written back by a flush and, where there are two servers, when the last of our connections has
 * been closed. A server that is killed loses its receive queue, and a volatile cache with it.
 * One that is stopped, or whose machine stands still, keeps both, and executes its queue when it
 * goes on: the stale writes of docs/nbd-driver.md.
 *
 * Two assumptions, without which no client is safe with one server even: a server executes
 * requests in the order of their arrival, and it has executed those of connections that ended
 * before it accepts, or refuses, a new one.
 *
 * SIM_FOREIGN is the server of another tool's device.
 */
#ifndef NBD_ATTACH_SIM_SERVER_H
#define NBD_ATTACH_SIM_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "limits.h"

struct world;
struct net_packet;

struct server {
	bool running;     /* false: new connections are refused by its machine */
	bool stopped;     /* its machine acknowledges what the process does not read */
	bool frozen;      /* its machine stands still */
	bool unreachable; /* no packet gets through, in either direction */
	bool refuses;     /* new connections; those that stand go on */
	bool unknown;     /* the export is denied */
	bool read_only, one_connection, no_flush, renamed; /* said of the export */
	bool size_late;       /* size 0 for who only looks, as with nbd-server */
	unsigned limit;       /* most connections taken from one dial */
	uint64_t size;        /* export size; bytes */
	unsigned service_ms;  /* longest time for one request */
	long long changed_at; /* last fault, or end of one */
	unsigned silence;     /* number of the silence, to know an old one */
	unsigned open;        /* our connections that it knows of and has not closed */
	bool serving;         /* the next request's execution is due */
	long long last_end;   /* end of the last of our connections that the driver used */
	bool unseen; /* at that time the supervisor took another server for the one in use */
	uint8_t cached, dirty;      /* blocks of the cache: bits */
	unsigned cache[SIM_BLOCKS]; /* version of each block */
};

void server_begin(struct world *w);

/* Whether the process takes requests. */
bool server_reads(const struct server *s);

/* Whether its machine takes packets. */
bool server_hears(const struct server *s);

/* Why its export cannot take the place of ours; NULL: it can, but for its size. */
const char *server_unfit(const struct world *w, unsigned server);

/* A request has arrived. */
void server_wake(struct world *w, unsigned server);

/* Executes all that has arrived. */
void server_settle(struct world *w, unsigned server);

/* The server closes its end of a connection that has been hung up and has nothing left. */
void server_close(struct world *w, unsigned conn);

/* Faults, and their ends. */
void server_kill(struct world *w, unsigned server);
void server_start(struct world *w, unsigned server);
void server_stop(struct world *w, unsigned server, bool frozen);
void server_go_on(struct world *w, unsigned server);
void server_cut_off(struct world *w, unsigned server);
void server_rejoin(struct world *w, unsigned server);

/* The driver is about to use conn: judges what that does to the other servers' promises. */
void server_check_switch(struct world *w, unsigned conn);

#endif
