/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * neg: one connection's handshake ("Handshake phase" of the NBD specification) as a state machine.
 * The caller asks what is wanted, moves bytes, and says how many:
 *
 *	for (;;) switch (neg_want(&n, &buf)) {
 *	case NEG_WRITE: neg_moved(&n, write(fd, buf.out, buf.len)); break;
 *	case NEG_READ:  neg_moved(&n, read(fd, buf.in, buf.len)); break; (0 bytes: neg_broken)
 *	case NEG_ITEM:  use neg_item(&n); neg_moved(&n, 0); break;
 *	case NEG_TLS:   TLS handshake; neg_moved(&n, 0); break;
 *	case NEG_DONE:  ... case NEG_FAILED: ...
 *	}
 *
 * It asks for exactly the bytes of the next step, and so for none after the handshake: those
 * belong to the next user of the connection. It never does I/O, never allocates, and keeps no
 * pointer into the caller's memory. The number of replies to an option and the length of a reply
 * are limited; the unused part of a reply is read in small pieces and dropped.
 */
#ifndef NBD_ATTACH_NEG_H
#define NBD_ATTACH_NEG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/metactx.h"
#include "base/err.h"
#include "proto/export.h"
#include "proto/wire.h"

/* Limits on what a server may send: more than any server needs, and soon read. */
enum {
	NEG_MAX_INFO_REPLIES = 256,
	NEG_MAX_EXPORTS = 65536,
	NEG_MAX_LISTED_CONTEXTS = 1024,
	NEG_MAX_REPLY_LENGTH = 1 << 20,
};

enum neg_goal {
	/* Ends in the transmission phase with simple replies: the kernel reads no others. */
	NEG_GOAL_GO,
	/*
	 * Ends with NBD_OPT_ABORT, or see neg_in_transmission for old servers. One NEG_ITEM for
	 * each meta context; they are complete when the export has has_contexts at the end.
	 * Options after NBD_OPT_INFO that the server does not know are left out.
	 */
	NEG_GOAL_INFO,
	/* One NEG_ITEM for each export. Ends with NBD_OPT_ABORT. */
	NEG_GOAL_LIST,
	/*
	 * Ends in the transmission phase for a client in user space (transmission.h): with
	 * structured replies where the server has them, and with all of the contexts, or it fails.
	 */
	NEG_GOAL_QUERY,
};

struct neg_params {
	enum neg_goal goal;
	bool tls; /* required: without it nothing but NBD_OPT_STARTTLS is sent */
	char export[NBD_MAX_STRING + 1];
	struct metactx contexts; /* NEG_GOAL_QUERY only */
};

enum neg_want {
	NEG_READ,
	NEG_WRITE,
	NEG_ITEM,
	NEG_TLS, /* the server waits for a TLS handshake; bytes that have come already are forged */
	NEG_DONE,
	NEG_FAILED,
};

struct neg_buf {
	const uint8_t *out; /* NEG_WRITE */
	uint8_t *in;        /* NEG_READ */
	size_t len;
};

/* One entry of NBD_OPT_LIST or NBD_OPT_LIST_META_CONTEXT; hostile text, see export.h. */
struct neg_item {
	char name[NBD_MAX_STRING + 1];
	char description[NBD_MAX_STRING + 1]; /* "" for none and for contexts; cut where longer */
};

enum neg_state {
	NEG_S_GREETING,
	NEG_S_HANDSHAKE_FLAGS,
	NEG_S_REPLY,
	NEG_S_INFO_TYPE,
	NEG_S_INFO,
	NEG_S_ERROR_TEXT,
	NEG_S_ITEM_NAME_LENGTH,
	NEG_S_ITEM_NAME,
	NEG_S_ITEM_DESCRIPTION,
	NEG_S_ITEM_SKIP,
	NEG_S_ITEM,
	NEG_S_CONTEXT_ID,
	NEG_S_CONTEXT_NAME,
	NEG_S_SKIP,
	NEG_S_EXPORT_NAME,
	NEG_S_ZEROES,
	NEG_S_TLS,
	NEG_S_END,
};

/* Private to neg.c. */
struct neg {
	struct neg_params params;
	enum neg_state state;
	bool no_zeroes;  /* agreed on */
	bool has_export; /* NBD_INFO_EXPORT has come */
	bool informed;   /* NEG_GOAL_INFO: NBD_OPT_INFO is answered, the other options may fail */
	bool transmission;
	bool tls;         /* TLS is established */
	uint32_t option;  /* option being answered */
	uint32_t replies; /* replies to the option so far */
	struct wire_reply reply;
	uint32_t left; /* payload of the reply not yet asked for, bytes */
	uint16_t info; /* type of the information being read */
	uint32_t context_id;
	bool selected[METACTX_MAX]; /* the server has selected this one of params.contexts */
	size_t want;                /* bytes of in[] that the state needs */
	size_t got;                 /* bytes of in[] that have come */
	size_t out_len;
	size_t out_done;
	struct err failure; /* kind ERR_NONE: none */
	struct export export;
	struct neg_item item;
	uint8_t in[NBD_MAX_STRING];
	uint8_t out[WIRE_CLIENT_FLAGS_SIZE + WIRE_OPTION_SIZE + 4 + NBD_MAX_STRING + 4 +
		    4 * METACTX_MAX + METACTX_BYTES];
};

void neg_init(struct neg *n, const struct neg_params *p);

/* What is wanted now. buf is filled for NEG_READ and NEG_WRITE; its len is never 0. */
enum neg_want neg_want(struct neg *n, struct neg_buf *buf);

/*
 * len of the bytes that neg_want named were moved, at most all; or the item was used or TLS is
 * established (len 0).
 */
void neg_moved(struct neg *n, size_t len);

/*
 * The connection ended or broke where neg_want wanted more (code: positive errno, 0 for an end of
 * file). The state becomes NEG_FAILED, with a text about the step that the server owes, or
 * NEG_DONE where the goal was reached before.
 */
void neg_broken(struct neg *n, int code);

/* As neg_broken, for a caller that gives up at a deadline. */
void neg_timed_out(struct neg *n);

/* Valid at NEG_ITEM until neg_moved. */
const struct neg_item *neg_item(const struct neg *n);

/* Valid at NEG_DONE for all goals but NEG_GOAL_LIST. */
const struct export *neg_export(const struct neg *n);

/* The contexts of the params with the server's numbers; valid at NEG_DONE of NEG_GOAL_QUERY. */
const struct metactx *neg_contexts(const struct neg *n);

/*
 * True at NEG_DONE when the connection is in the transmission phase: it is to be given to the
 * kernel or to be ended with NBD_CMD_DISC. This can be so for NEG_GOAL_INFO as well, with a server
 * that knows only NBD_OPT_EXPORT_NAME.
 */
bool neg_in_transmission(const struct neg *n);

/*
 * True from when the server is asked to enter the transmission phase until its answer is complete:
 * nothing else can be sent meanwhile.
 */
bool neg_is_committed(const struct neg *n);

/* Valid at NEG_FAILED: the error, ERR_REFUSED, ERR_PROTOCOL, ERR_TLS or ERR_UNREACHABLE. */
const struct err *neg_failure(const struct neg *n);

#endif
