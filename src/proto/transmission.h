/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * query: a client in user space for the transmission phase ("Transmission" of the NBD specification) as a
 * state machine without I/O, of the same shape as neg:
 *
 *	transmission_ask(&q, &request, e);
 *	for (;;) switch (transmission_want(&q, &buf)) {
 *	case TRANSMISSION_WRITE:  transmission_moved(&q, write(fd, buf.out, buf.len)); break;
 *	case TRANSMISSION_READ:   transmission_moved(&q, read(fd, buf.in, buf.len)); break; (0 bytes: transmission_broken)
 *	case TRANSMISSION_EXTENT: buf.offset, .length, .flags of buf.context; transmission_moved(&q, 0); break;
 *	case TRANSMISSION_DATA:   buf.length bytes at buf.data for buf.offset; transmission_moved(&q, 0); break;
 *	case TRANSMISSION_HOLE:   buf.length zeros for buf.offset; transmission_moved(&q, 0); break;
 *	case TRANSMISSION_REPLY:  buf.request is done, buf.error; transmission_moved(&q, 0); break;
 *	case TRANSMISSION_IDLE:   nothing is under way: transmission_ask again, or transmission_disconnect
 *	case TRANSMISSION_DONE: ... case TRANSMISSION_FAILED: ...
 *	}
 *
 * Reads and never writes to the export. Several requests may be under way; their replies come in any order, and chunks
 * of structured replies interleaved. Exactly the bytes of replies are asked for, none after the last. Never
 * allocates; what a reply carries goes through one buffer in pieces, and every length in it is checked
 * before it is believed. A server that keeps to the rules of the specification's "Structured reply types" in
 * all but one is failed for that one.
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
	TRANSMISSION_REQUESTS = 16, /* under way at a time */
	TRANSMISSION_PIECE = 65536, /* bytes of a payload handled at a time */
	TRANSMISSION_RANGES =
		64, /* stretches, apart from each other, in which the data of a read may come */
	/* "Servers SHOULD NOT send more than 2^20 extents in a single reply chunk": four times that */
	TRANSMISSION_MAX_EXTENTS = 1 << 22,
	TRANSMISSION_MAX_ERRORS = 1024, /* chunks of one reply */
	TRANSMISSION_MAX_ERROR_LENGTH =
		65536,               /* of such a chunk, with what this client does not know */
	TRANSMISSION_TEXT_MAX = 256, /* of a server's words that are kept */
};

struct transmission_params {
	uint64_t size;           /* of the export, which no request goes beyond */
	uint32_t block_min;      /* requests are multiples of it, but for the end; 0 or 1: any */
	uint32_t payload_max;    /* of NBD_CMD_READ; 0: what the specification grants (32 MiB) */
	bool structured;         /* structured replies were agreed on */
	struct metactx contexts; /* with their numbers */
};

/*
 * A request: NBD_CMD_READ, NBD_CMD_CACHE or NBD_CMD_BLOCK_STATUS, with NBD_CMD_FLAG_DF or
 * NBD_CMD_FLAG_REQ_ONE where these have a meaning.
 */
struct transmission_request {
	uint16_t type;
	uint16_t flags;
	uint64_t offset;
	uint32_t length;
};

enum transmission_want {
	TRANSMISSION_READ,
	TRANSMISSION_WRITE,
	TRANSMISSION_EXTENT,
	TRANSMISSION_DATA,
	TRANSMISSION_HOLE,
	TRANSMISSION_REPLY,
	TRANSMISSION_IDLE,
	TRANSMISSION_DONE,
	TRANSMISSION_FAILED,
};

struct transmission_buf {
	const uint8_t *out; /* TRANSMISSION_WRITE */
	uint8_t *in;        /* TRANSMISSION_READ */
	size_t len;         /* of both, never 0 there */
	/* of the rest: */
	unsigned request;    /* the number that transmission_ask gave */
	unsigned context;    /* TRANSMISSION_EXTENT: its place in the params' contexts */
	uint64_t offset;     /* in the export, TRANSMISSION_EXTENT, _DATA and _HOLE; */
	uint32_t length;     /* and its bytes, never 0 */
	uint32_t flags;      /* TRANSMISSION_EXTENT */
	const uint8_t *data; /* TRANSMISSION_DATA */
	uint32_t error; /* TRANSMISSION_REPLY: 0, or NBD_EIO and so on; see transmission_error */
};

/* Of interest to the functions below only. */
enum transmission_state {
	TRANSMISSION_S_HEADER,
	TRANSMISSION_S_CHUNK_REST,
	TRANSMISSION_S_DATA_OFFSET,
	TRANSMISSION_S_DATA,
	TRANSMISSION_S_DATA_EVENT,
	TRANSMISSION_S_HOLE,
	TRANSMISSION_S_HOLE_EVENT,
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

struct transmission_range {
	uint64_t begin, end;
};

struct transmission_slot {
	bool used;
	struct transmission_request request;
	uint64_t cookie;
	uint32_t error;                   /* the first of the reply */
	char text[TRANSMISSION_TEXT_MAX]; /* the server's words for it, escaped */
	bool begun;                       /* a structured reply has */
	unsigned errors;                  /* its chunks of errors so far, */
	unsigned contents;                /* and those of data and holes */
	bool described[METACTX_MAX];      /* BLOCK_STATUS: the context's chunk has come */
	unsigned ranges;
	struct transmission_range range[TRANSMISSION_RANGES]; /* READ: what has come, in order */
};

struct transmission {
	struct transmission_params params;
	uint64_t end; /* of the last whole block */
	enum transmission_state state;
	bool disconnecting;
	uint64_t cookies; /* given out */
	unsigned under_way;
	struct transmission_slot slot[TRANSMISSION_REQUESTS];
	unsigned current; /* slot of the reply that is being read */
	bool structured;  /* it is a chunk: */
	uint16_t flags;
	uint16_t type;
	uint32_t left;   /* of the chunk's payload, not yet asked for */
	uint64_t offset; /* of the next extent or piece of data */
	unsigned context;
	size_t at;       /* in in[], of the next extent */
	uint32_t length; /* of the extent, the hole or the data at hand */
	uint32_t extent_flags;
	size_t want; /* bytes of in[] that the state needs */
	size_t got;
	size_t out_len;
	size_t out_done;
	struct err failure; /* kind ERR_NONE: none */
	uint8_t in[TRANSMISSION_PIECE];
	uint8_t out[(TRANSMISSION_REQUESTS + 1) * WIRE_REQUEST_SIZE];
};

void transmission_init(struct transmission *q, const struct transmission_params *p);

/* The params for an export and contexts as neg has them after NEG_GOAL_QUERY (or GO, with contexts NULL). */
void transmission_params(struct transmission_params *p, const struct export *x,
			 const struct metactx *c);

/*
 * Takes on a request. Returns its number, to be used again once its TRANSMISSION_REPLY was consumed, or -EBUSY when
 * TRANSMISSION_REQUESTS are under way, -EINVAL (ERR_FAILED) for one that may not be sent: beyond the export, not a
 * multiple of its blocks, longer than it takes, block status without contexts; -EPIPE after the end.
 */
int transmission_ask(struct transmission *q, const struct transmission_request *r, struct err *e);

/*
 * Longest request of this type that may begin at offset: a multiple of the blocks, to the end of the export
 * at most; 0 when not even one block is left.
 */
uint32_t transmission_longest(const struct transmission *q, uint16_t type, uint64_t offset);

/* After what is under way, NBD_CMD_DISC and TRANSMISSION_DONE ("Terminating the transmission phase"). */
void transmission_disconnect(struct transmission *q);

/* What is wanted now; see above. To be asked anew after transmission_ask and transmission_disconnect. */
enum transmission_want transmission_want(struct transmission *q, struct transmission_buf *buf);

/* len of the bytes that transmission_want named were moved, at most all; or the rest was used (len 0). */
void transmission_moved(struct transmission *q, size_t len);

/* The connection ended or broke (code: positive errno, 0 for an end of file): TRANSMISSION_FAILED, but for a last farewell. */
void transmission_broken(struct transmission *q, int code);

/* As transmission_broken, for whoever gives up by a deadline. */
void transmission_timed_out(struct transmission *q);

/*
 * At TRANSMISSION_REPLY with an error: "read of 4096 bytes at 8192: input/output error (NBD_EIO); it says: ...", ERR_REFUSED. Returns
 * the negative errno for it.
 */
int transmission_error(const struct transmission *q, struct err *e);

/* Valid at TRANSMISSION_FAILED: ERR_PROTOCOL or ERR_UNREACHABLE. */
const struct err *transmission_failure(const struct transmission *q);

#endif
