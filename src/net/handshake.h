/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * conn: one connection on its way through the handshake: dialled, in plain text, with TLS, done.
 * Never waits: several go on side by side under a caller that polls what handshake_poll names and then
 * calls handshake_step.
 */
#ifndef NBD_ATTACH_HANDSHAKE_H
#define NBD_ATTACH_HANDSHAKE_H

#include <poll.h>
#include <stdbool.h>

#include "base/err.h"
#include "proto/neg.h"
#include "net/resolve.h"
#include "net/dial.h"
#include "net/tls.h"
#include "proto/wire.h"

/* Descriptors that one connection can have polled at a time. */
enum { HANDSHAKE_POLL_MAX = RESOLVE_MAX };

enum handshake_stage {
	HANDSHAKE_IDLE, /* nothing begun, or closed */
	HANDSHAKE_DIAL,
	HANDSHAKE_HANDSHAKE, /* of NBD */
	HANDSHAKE_TLS,       /* of TLS, in its middle */
	HANDSHAKE_DONE,
	HANDSHAKE_FAILED,
};

struct handshake {
	enum handshake_stage stage;
	struct dial dial;
	int fd;          /* -1: none yet, or taken by the caller */
	struct tls *tls; /* NULL: none wanted */
	bool encrypted;  /* tls is established and its records are ours to make */
	bool answered;   /* something has come through it */
	bool hurried;    /* there may be more than was looked at, no poll would tell */
	struct neg *neg;
	struct err err;                        /* at HANDSHAKE_FAILED */
	uint8_t reply[WIRE_SIMPLE_REPLY_SIZE]; /* of handshake_reply, so far */
	size_t got;
};

/*
 * tls (or NULL), of which no handshake has begun, becomes c's, also on failure. 0 or -ENOMEM. To be ended
 * by handshake_end; a c that is all zeros need not be.
 */
int handshake_init(struct handshake *c, const struct neg_params *params, struct tls *tls,
		   struct err *e);

/*
 * Begins: by connecting to the first address to answer, or with a connected non-blocking descriptor,
 * which is c's from then on.
 */
void handshake_dial(struct handshake *c, const struct resolve_result *addresses);
void handshake_use(struct handshake *c, int fd);

/*
 * Does what can be done at now (monotonic_ms) without waiting; true when the stage is HANDSHAKE_DONE or
 * HANDSHAKE_FAILED. item is called with ctx for each NEG_ITEM, or NULL.
 */
bool handshake_step(struct handshake *c, long long now,
		    void (*item)(void *ctx, const struct neg_item *item), void *ctx);

/* As dial_poll, for any stage; p has room for HANDSHAKE_POLL_MAX. */
unsigned handshake_poll(struct handshake *c, long long now, struct pollfd *p, int *timeout_ms);

/*
 * Gives up, for code (a positive errno; ETIMEDOUT: because timeout_ms are over): HANDSHAKE_FAILED with a text that
 * says in which stage. Where only a farewell was outstanding it is HANDSHAKE_DONE.
 */
void handshake_give_up(struct handshake *c, int code, unsigned timeout_ms);

/*
 * Whether the server was asked to enter the transmission phase and has not answered: nothing can be said to it then,
 * its answer has to come first.
 */
bool handshake_is_committed(const struct handshake *c);

/* Bytes over TLS or plain: what was moved, 0 for the end (handshake_recv), -EAGAIN or another -errno. */
ssize_t handshake_send(struct handshake *c, const void *buf, size_t len);
ssize_t handshake_recv(struct handshake *c, void *buf, size_t len);

/* What to poll for when either was -EAGAIN: POLLIN or POLLOUT. */
short handshake_wants(const struct handshake *c, bool sending);

/*
 * One request without payload in the transmission phase of HANDSHAKE_DONE, of which no other is under way;
 * 0 or -errno, where it could not be sent at once.
 */
int handshake_request(struct handshake *c, uint16_t command, uint64_t offset, uint32_t len);

/*
 * Its simple reply ("Simple reply message"): 0 and the server's error code, -EAGAIN, -EPROTO for
 * anything else that comes, or the -errno of the connection's end.
 */
int handshake_reply(struct handshake *c, uint32_t *error);

/* Says what the protocol wants to be said before the end, and closes; c may begin anew. */
void handshake_hang_up(struct handshake *c);

/* Closes without a word and frees all that c holds. */
void handshake_end(struct handshake *c);

#endif
