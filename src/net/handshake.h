/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * handshake: one connection on its way through the handshake: dialled, in plain text, with TLS,
 * done. Never waits: several go on side by side under a caller that polls as handshake_poll says
 * and then calls handshake_step.
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

/* Descriptors that one handshake can have polled at a time. */
enum { HANDSHAKE_POLL_MAX = RESOLVE_MAX };

enum handshake_stage {
	HANDSHAKE_IDLE, /* not begun, or closed */
	HANDSHAKE_DIAL,
	HANDSHAKE_HANDSHAKE, /* NBD, in plain text or over TLS */
	HANDSHAKE_TLS,       /* handshake of TLS, in the middle of that of NBD */
	HANDSHAKE_DONE,
	HANDSHAKE_FAILED,
};

struct handshake {
	enum handshake_stage stage;
	struct dial dial;
	int fd;          /* -1: none yet, or taken by the caller */
	struct tls *tls; /* NULL: none wanted */
	bool encrypted;  /* tls is established, and we make its records */
	bool answered;   /* the server has sent something through tls */
	bool hurried;    /* more may be there to do, about which poll() says nothing */
	struct neg *neg;
	struct err err;                        /* reason of HANDSHAKE_FAILED */
	uint8_t reply[WIRE_SIMPLE_REPLY_SIZE]; /* beginning of the reply for handshake_reply */
	size_t got;                            /* bytes in reply */
};

/*
 * tls (or NULL), whose handshake has not begun, becomes h's, also on failure. 0 or -ENOMEM. For
 * handshake_end; an h that is all zeros need not be ended.
 */
int handshake_init(struct handshake *h, const struct neg_params *params, struct tls *tls,
		   struct err *e);

/*
 * Begins, by connecting to the first address that answers, or with a connected non-blocking
 * descriptor, which is h's from then on.
 */
void handshake_dial(struct handshake *h, const struct resolve_result *addresses);
void handshake_use(struct handshake *h, int fd);

/*
 * Does what can be done at now (monotonic_ms) without waiting; true when the stage is
 * HANDSHAKE_DONE or HANDSHAKE_FAILED. Calls item, unless it is NULL, with ctx for each NEG_ITEM.
 */
bool handshake_step(struct handshake *h, long long now,
		    void (*item)(void *ctx, const struct neg_item *item), void *ctx);

/* As dial_poll, for any stage; p has room for HANDSHAKE_POLL_MAX. */
unsigned handshake_poll(struct handshake *h, long long now, struct pollfd *p, int *timeout_ms);

/*
 * Gives up because of code, a positive errno (ETIMEDOUT: timeout_ms are over): HANDSHAKE_FAILED,
 * with a text that says in which stage. HANDSHAKE_DONE where only a farewell was outstanding.
 */
void handshake_give_up(struct handshake *h, int code, unsigned timeout_ms);

/*
 * Whether the server was asked to enter the transmission phase and has not answered: nothing can be
 * said to it before its answer.
 */
bool handshake_is_committed(const struct handshake *h);

/*
 * Sends or receives bytes, over TLS or plain. Returns their number, 0 for the end (handshake_recv),
 * -EAGAIN or another -errno.
 */
ssize_t handshake_send(struct handshake *h, const void *buf, size_t len);
ssize_t handshake_recv(struct handshake *h, void *buf, size_t len);

/* What to poll for after -EAGAIN: POLLIN or POLLOUT. */
short handshake_wants(const struct handshake *h, bool sending);

/*
 * Sends one request without payload, in the transmission phase after HANDSHAKE_DONE, with no other
 * one under way. 0, or -errno where it could not be sent at once.
 */
int handshake_request(struct handshake *h, uint16_t command, uint64_t offset, uint32_t len);

/*
 * Receives its simple reply ("Simple reply message"): 0 and the server's error code, -EAGAIN,
 * -EPROTO for anything else that comes, or the -errno of the connection's end.
 */
int handshake_reply(struct handshake *h, uint32_t *error);

/* Says what the protocol wants to be said before the end, and closes; h may begin anew. */
void handshake_hang_up(struct handshake *h);

/* Closes without a word and frees all that h holds. */
void handshake_end(struct handshake *h);

#endif
