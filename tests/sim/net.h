/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * net: TCP connections between this machine and the servers, and the requests that travel on
 * them. What is modelled: the send queue of this machine (a request may be slow to leave it, or
 * find the server's window shut), the receive queue of a server, which executes it even after
 * the connection has ended, and how a connection ends: by the server (FIN, reset), by somebody
 * in between, by silence (keepalive, TCP_USER_TIMEOUT), by the driver's timer, by the
 * supervisor's cut. A cut throws the send queue away; with kernel TLS it cannot, and the queue
 * goes on until the socket is closed. A request is executed in the order of its arrival at the
 * server, on whichever connection it came.
 */
#ifndef NBD_ATTACH_SIM_NET_H
#define NBD_ATTACH_SIM_NET_H

#include <stdbool.h>
#include <stdint.h>

struct world;

enum { NET_CONNS = 4096, NET_PACKETS = 512 };

enum net_end {
	NET_FIN,        /* the server has closed it */
	NET_RESET,      /* the server's process is gone */
	NET_BROKEN,     /* reset by somebody in between; the server is told as well */
	NET_SILENT,     /* nothing was heard of the server for the peer timeout */
	NET_FULL,       /* the server has taken nothing of the send queue for the peer timeout */
	NET_TIMER,      /* the driver waited too long for an answer and shut it down */
	NET_DISCONNECT, /* the driver was told to disconnect the device */
	NET_CUT,        /* by the supervisor */
};

enum net_holder {
	NET_NOBODY,
	NET_DIALER,
	NET_CANDIDATE,
	NET_INSTALLED,
};

struct net_conn {
	unsigned server;
	bool ended; /* this machine receives nothing any more */
	enum net_end how;
	bool server_closed; /* the server executes nothing of it any more */
	bool hung_up;       /* the server's kernel knows that we have ended it */
	bool lingers;       /* kernel TLS, cut: what is queued is sent all the same */
	long long cut_at;   /* begin of that */
	long long clogged;  /* nothing leaves the send queue before */
	int slot;           /* slot that has taken it; -1: none */
	bool marked;        /* SO_SNDTIMEO has been set by the driver */
	bool ours;          /* not another tool's */
	enum net_holder holder;
	unsigned index; /* number of the candidate or connection at the supervisor */
	uint64_t size;  /* export size that the server said in the handshake; bytes */
	unsigned life;  /* number of the supervisor that made it */
	uint64_t records_made, records_taken; /* TLS records of the device at these times */
	const char *unfit; /* why the export cannot take the place of ours; NULL: it fits */
};

struct net_packet {
	unsigned conn;
	unsigned char op; /* enum app_op */
	unsigned block, version;
	unsigned job, cookie; /* request of the driver */
	unsigned arrived;     /* order of arrival at the server; 0: in the send queue */
};

struct net {
	struct net_conn conn[NET_CONNS];
	unsigned conns;
	struct net_packet packet[NET_PACKETS]; /* in the order of sending */
	unsigned packets, arrivals;
};

void net_begin(struct world *w);

/* A new connection to server, which takes it. */
unsigned net_connect(struct world *w, unsigned server, enum net_holder holder, unsigned index);

/* Sends the request of job. */
void net_send(struct world *w, unsigned conn, unsigned job);

/* Moves what can be moved from send queues to the receive queue of server. */
void net_push(struct world *w, unsigned server);

void net_end(struct world *w, unsigned conn, enum net_end how);

/*
 * The supervisor cuts conn and closes it. True: nothing of it can reach the server any more.
 * False: it lingers, and shell_cut_done follows when it does not.
 */
bool net_cut(struct world *w, unsigned conn);

/* Nobody holds conn any more, and nobody cut it: what it would still send is excused. */
void net_abandon(struct world *w, unsigned conn);

/* The requests of server's connections for which is(conn) holds vanish, sent or received. */
void net_forget(struct world *w, unsigned conn, bool received);

/* A reset or FIN of ours reaches server, where it could not before. */
void net_hang_up_all(struct world *w, unsigned server);

/* Whether server may still execute a write of ours. */
bool net_owes_write(const struct world *w, unsigned server);

#endif
