/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * conn: one connection on its way through the handshake: dialled, in plain text, with TLS, done.
 * Never waits: several go on side by side under a caller that polls what conn_poll names and then
 * calls conn_step.
 */
#ifndef NBD_ATTACH_CONN_H
#define NBD_ATTACH_CONN_H

#include <poll.h>
#include <stdbool.h>

#include "base/err.h"
#include "proto/neg.h"
#include "net/resolve.h"
#include "net/dial.h"
#include "net/tls.h"
#include "proto/wire.h"

/* Descriptors that one connection can have polled at a time. */
enum { CONN_POLL_MAX = RESOLVE_MAX };

enum conn_stage {
	CONN_IDLE,      /* nothing begun, or closed */
	CONN_DIAL,
	CONN_HANDSHAKE, /* of NBD */
	CONN_TLS,       /* of TLS, in its middle */
	CONN_DONE,
	CONN_FAILED,
};

struct conn {
	enum conn_stage stage;
	struct stream_dial dial;
	int fd;           /* -1: none yet, or taken by the caller */
	struct tls *tls;  /* NULL: none wanted */
	bool encrypted;   /* tls is established and its records are ours to make */
	bool answered;    /* something has come through it */
	bool hurried;     /* there may be more than was looked at, no poll would tell */
	struct neg *neg;
	struct err err;   /* at CONN_FAILED */
	uint8_t reply[WIRE_SIMPLE_REPLY_SIZE]; /* of conn_reply, so far */
	size_t got;
};

/*
 * tls (or NULL), of which no handshake has begun, becomes c's, also on failure. 0 or -ENOMEM. To be ended
 * by conn_end; a c that is all zeros need not be.
 */
int conn_init(struct conn *c, const struct neg_params *params, struct tls *tls, struct err *e);

/*
 * Begins: by connecting to the first address to answer, to a Unix socket, or with a connected
 * non-blocking descriptor, which is c's from then on.
 */
void conn_dial(struct conn *c, const struct resolve_result *addresses);
void conn_unix(struct conn *c, const char *path);
void conn_use(struct conn *c, int fd);

/*
 * Does what can be done at now (task_now_ms) without waiting; true when the stage is CONN_DONE or
 * CONN_FAILED. item is called with ctx for each NEG_ITEM, or NULL.
 */
bool conn_step(struct conn *c, long long now, void (*item)(void *ctx, const struct neg_item *item),
	       void *ctx);

/* As stream_dial_poll, for any stage; p has room for CONN_POLL_MAX. */
unsigned conn_poll(struct conn *c, long long now, struct pollfd *p, int *timeout_ms);

/*
 * Gives up, for code (a positive errno; ETIMEDOUT: because timeout_ms are over): CONN_FAILED with a text that
 * says in which stage. Where only a farewell was outstanding it is CONN_DONE.
 */
void conn_give_up(struct conn *c, int code, unsigned timeout_ms);

/*
 * Whether the server was asked to enter the transmission phase and has not answered: nothing can be said to it then,
 * its answer has to come first.
 */
bool conn_is_committed(const struct conn *c);

/* Bytes over TLS or plain: what was moved, 0 for the end (conn_recv), -EAGAIN or another -errno. */
ssize_t conn_send(struct conn *c, const void *buf, size_t len);
ssize_t conn_recv(struct conn *c, void *buf, size_t len);

/* What to poll for when either was -EAGAIN: POLLIN or POLLOUT. */
short conn_wants(const struct conn *c, bool sending);

/*
 * One request without payload in the transmission phase of CONN_DONE, of which no other is under way;
 * 0 or -errno, where it could not be sent at once.
 */
int conn_request(struct conn *c, uint16_t command, uint64_t offset, uint32_t len);

/*
 * Its simple reply ("Simple reply message"): 0 and the server's error code, -EAGAIN, -EPROTO for
 * anything else that comes, or the -errno of the connection's end.
 */
int conn_reply(struct conn *c, uint32_t *error);

/* Says what the protocol wants to be said before the end, and closes; c may begin anew. */
void conn_hang_up(struct conn *c);

/* Closes without a word and frees all that c holds. */
void conn_end(struct conn *c);

#endif
