/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * transmission: a client in user space for the transmission phase ("Transmission" of the NBD
 * specification) as a state machine of the same shape as neg. It asks for block status and for
 * caching, one request at a time. It never does I/O, never allocates, and never reads or writes
 * the data of the export.
 *
 *	transmission_ask(&t, &request, e);
 *	for (;;) switch (transmission_want(&t, &buf)) {
 *	case TRANSMISSION_WRITE:  transmission_moved(&t, write(fd, buf.out, buf.len)); break;
 *	case TRANSMISSION_READ:   transmission_moved(&t, read(fd, buf.in, buf.len)); break;
 *	case TRANSMISSION_EXTENT: use buf.context, .offset, .length, .flags;
 *				  transmission_moved(&t, 0); break;
 *	case TRANSMISSION_REPLY:  the request is done, use buf.error;
 *				  transmission_moved(&t, 0); break;
 *	case TRANSMISSION_IDLE:   transmission_ask again, or transmission_disconnect; break;
 *	case TRANSMISSION_DONE: ... case TRANSMISSION_FAILED: ...
 *	}
 *
 * An end of file is reported by transmission_broken. The engine asks for exactly the bytes of the
 * reply. The payload goes through one buffer in pieces, and every length is checked before it is
 * believed. A server that breaks one rule of the specification's "Structured reply types" is
 * failed for it.
 */
#ifndef NBD_ATTACH_TRANSMISSION_H
#define NBD_ATTACH_TRANSMISSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/metactx.h"
#include "base/err.h"
#include "proto/export.h"
#include "proto/wire.h"

enum {
	/* Bytes of a payload handled at a time */
	TRANSMISSION_PIECE = 65536,
	/* Four times what "Servers SHOULD NOT send [...] in a single reply chunk" */
	TRANSMISSION_MAX_EXTENTS = 1 << 22,
	/* Error chunks in one reply */
	TRANSMISSION_MAX_ERRORS = 1024,
	/* Bytes of one error chunk, with fields that this client does not know */
	TRANSMISSION_MAX_ERROR_LENGTH = 65536,
	/* Bytes kept of a server's error text, escaped */
	TRANSMISSION_TEXT_MAX = 256,
};

/* NBD_CMD_CACHE or NBD_CMD_BLOCK_STATUS. */
struct transmission_request {
	uint16_t type;
	uint64_t offset; /* bytes */
	uint32_t length; /* bytes */
};

enum transmission_want {
	TRANSMISSION_READ,
	TRANSMISSION_WRITE,
	TRANSMISSION_EXTENT,
	TRANSMISSION_REPLY,
	TRANSMISSION_IDLE,
	TRANSMISSION_DONE,
	TRANSMISSION_FAILED,
};

struct transmission_buf {
	const uint8_t *out; /* TRANSMISSION_WRITE */
	uint8_t *in;        /* TRANSMISSION_READ */
	size_t len;         /* TRANSMISSION_WRITE and _READ: bytes, never 0 */
	unsigned context;   /* TRANSMISSION_EXTENT: index into the contexts */
	uint64_t offset;    /* TRANSMISSION_EXTENT: bytes from the start of the export */
	uint32_t length;    /* TRANSMISSION_EXTENT: bytes, never 0 */
	uint32_t flags;     /* TRANSMISSION_EXTENT */
	uint32_t error;     /* TRANSMISSION_REPLY: 0, or NBD_EIO and so on */
};

enum transmission_state {
	TRANSMISSION_S_IDLE,
	TRANSMISSION_S_HEADER,
	TRANSMISSION_S_CHUNK_REST,
	TRANSMISSION_S_CONTEXT,
	TRANSMISSION_S_EXTENTS,
	TRANSMISSION_S_EXTENT_EVENT,
	TRANSMISSION_S_ERROR,
	TRANSMISSION_S_ERROR_TEXT,
	TRANSMISSION_S_ERROR_OFFSET,
	TRANSMISSION_S_ERROR_SKIP,
	TRANSMISSION_S_REPLY_EVENT,
	TRANSMISSION_S_END,
};

/* The reply to the request, as far as it has come. */
struct transmission_reply {
	uint32_t error;                   /* first error, 0: none */
	char text[TRANSMISSION_TEXT_MAX]; /* server's text for it, escaped */
	bool structured;                  /* a chunk has come: no simple reply may follow */
	unsigned errors;                  /* error chunks so far */
	bool described[METACTX_MAX];      /* contexts that have had their chunk */
};

/* Private to transmission.c. */
struct transmission {
	uint64_t size;   /* export, bytes */
	uint64_t end;    /* end of the last whole block, bytes */
	uint32_t block;  /* offsets and lengths are multiples of it, bytes */
	bool structured; /* structured replies were agreed on */
	struct metactx contexts;
	enum transmission_state state;
	struct transmission_request request; /* last one sent */
	uint64_t cookie;                     /* cookie of the last request sent */
	struct transmission_reply reply;
	uint16_t flags;        /* current chunk */
	uint16_t type;         /* current chunk */
	uint32_t left;         /* current chunk: payload not yet asked for, bytes */
	unsigned context;      /* current chunk: index of its context */
	size_t at;             /* next extent in in[] */
	uint64_t offset;       /* current extent, bytes */
	uint32_t length;       /* current extent, bytes */
	uint32_t extent_flags; /* current extent */
	uint32_t error;        /* current error chunk */
	size_t want;           /* bytes of in[] that the state needs */
	size_t got;            /* bytes of in[] that have come */
	size_t out_len;
	size_t out_done;
	struct err failure; /* kind ERR_NONE: none */
	uint8_t in[TRANSMISSION_PIECE];
	uint8_t out[2 * WIRE_REQUEST_SIZE]; /* a request and NBD_CMD_DISC */
};

/* x and c: the export and the contexts as neg has them after NEG_GOAL_QUERY. Neither is kept. */
void transmission_init(struct transmission *t, const struct export *x, const struct metactx *c);

/*
 * Sends a request. To be called at TRANSMISSION_IDLE, or at TRANSMISSION_REPLY instead of
 * transmission_moved. Returns 0, -EBUSY while a request is unanswered, -EINVAL for a request that
 * may not be sent (beyond the export, not whole blocks, block status without contexts), -EPIPE
 * after the end; all are ERR_FAILED.
 */
int transmission_ask(struct transmission *t, const struct transmission_request *r, struct err *e);

/*
 * Longest request that may begin at offset, bytes: a multiple of the blocks, within the export. 0
 * when no whole block is left.
 */
uint32_t transmission_longest(const struct transmission *t, uint64_t offset);

/*
 * Sends NBD_CMD_DISC and ends ("Terminating the transmission phase"). An outstanding reply is not
 * read any more.
 */
void transmission_disconnect(struct transmission *t);

/*
 * What is wanted now; see above. To be asked anew after transmission_ask and
 * transmission_disconnect.
 */
enum transmission_want transmission_want(struct transmission *t, struct transmission_buf *buf);

/*
 * len of the bytes that transmission_want named were moved, at most all; or the event was used
 * (len 0).
 */
void transmission_moved(struct transmission *t, size_t len);

/*
 * The connection ended or broke (code: positive errno, 0 for an end of file): TRANSMISSION_FAILED,
 * or TRANSMISSION_DONE where only NBD_CMD_DISC was left to send.
 */
void transmission_broken(struct transmission *t, int code);

/* As transmission_broken, for a caller that gives up at a deadline. */
void transmission_timed_out(struct transmission *t);

/*
 * At TRANSMISSION_REPLY with an error: sets ERR_REFUSED with the request, the error's meaning and
 * the server's text. Returns the negative errno for it.
 */
int transmission_error(const struct transmission *t, struct err *e);

/* Valid at TRANSMISSION_FAILED: ERR_PROTOCOL or ERR_UNREACHABLE. */
const struct err *transmission_failure(const struct transmission *t);

#endif
