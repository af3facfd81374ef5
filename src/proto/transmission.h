/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * query: a client in user space for the transmission phase ("Transmission" of the NBD specification) as a
 * state machine without I/O, of the same shape as neg:
 *
 *	query_ask(&q, &request, e);
 *	for (;;) switch (query_want(&q, &buf)) {
 *	case QUERY_WRITE:  query_moved(&q, write(fd, buf.out, buf.len)); break;
 *	case QUERY_READ:   query_moved(&q, read(fd, buf.in, buf.len)); break; (0 bytes: query_broken)
 *	case QUERY_EXTENT: buf.offset, .length, .flags of buf.context; query_moved(&q, 0); break;
 *	case QUERY_DATA:   buf.length bytes at buf.data for buf.offset; query_moved(&q, 0); break;
 *	case QUERY_HOLE:   buf.length zeros for buf.offset; query_moved(&q, 0); break;
 *	case QUERY_REPLY:  buf.request is done, buf.error; query_moved(&q, 0); break;
 *	case QUERY_IDLE:   nothing is under way: query_ask again, or query_disconnect
 *	case QUERY_DONE: ... case QUERY_FAILED: ...
 *	}
 *
 * Reads and never writes to the export. Several requests may be under way; their replies come in any order, and chunks
 * of structured replies interleaved. Exactly the bytes of replies are asked for, none after the last. Never
 * allocates; what a reply carries goes through one buffer in pieces, and every length in it is checked
 * before it is believed. A server that keeps to the rules of the specification's "Structured reply types" in
 * all but one is failed for that one.
 */
#ifndef NBD_ATTACH_QUERY_H
#define NBD_ATTACH_QUERY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/metactx.h"
#include "base/err.h"
#include "proto/export.h"
#include "proto/wire.h"

enum {
	QUERY_REQUESTS = 16, /* under way at a time */
	QUERY_PIECE = 65536, /* bytes of a payload handled at a time */
	QUERY_RANGES = 64,   /* stretches, apart from each other, in which the data of a read may come */
	/* "Servers SHOULD NOT send more than 2^20 extents in a single reply chunk": four times that */
	QUERY_MAX_EXTENTS = 1 << 22,
	QUERY_MAX_ERRORS = 1024,        /* chunks of one reply */
	QUERY_MAX_ERROR_LENGTH = 65536, /* of such a chunk, with what this client does not know */
	QUERY_TEXT_MAX = 256,           /* of a server's words that are kept */
};

struct query_params {
	uint64_t size;        /* of the export, which no request goes beyond */
	uint32_t block_min;   /* requests are multiples of it, but for the end; 0 or 1: any */
	uint32_t payload_max; /* of NBD_CMD_READ; 0: what the specification grants (32 MiB) */
	bool structured;      /* structured replies were agreed on */
	struct contexts contexts; /* with their numbers */
};

/*
 * A request: NBD_CMD_READ, NBD_CMD_CACHE or NBD_CMD_BLOCK_STATUS, with NBD_CMD_FLAG_DF or
 * NBD_CMD_FLAG_REQ_ONE where these have a meaning.
 */
struct query_request {
	uint16_t type;
	uint16_t flags;
	uint64_t offset;
	uint32_t length;
};

enum query_want {
	QUERY_READ,
	QUERY_WRITE,
	QUERY_EXTENT,
	QUERY_DATA,
	QUERY_HOLE,
	QUERY_REPLY,
	QUERY_IDLE,
	QUERY_DONE,
	QUERY_FAILED,
};

struct query_buf {
	const uint8_t *out; /* QUERY_WRITE */
	uint8_t *in;        /* QUERY_READ */
	size_t len;         /* of both, never 0 there */
	/* of the rest: */
	unsigned request;    /* the number that query_ask gave */
	unsigned context;    /* QUERY_EXTENT: its place in the params' contexts */
	uint64_t offset;     /* in the export, QUERY_EXTENT, _DATA and _HOLE; */
	uint32_t length;     /* and its bytes, never 0 */
	uint32_t flags;      /* QUERY_EXTENT */
	const uint8_t *data; /* QUERY_DATA */
	uint32_t error;      /* QUERY_REPLY: 0, or NBD_EIO and so on; see query_error */
};

/* Of interest to the functions below only. */
enum query_state {
	QUERY_S_HEADER,
	QUERY_S_CHUNK_REST,
	QUERY_S_DATA_OFFSET,
	QUERY_S_DATA,
	QUERY_S_DATA_EVENT,
	QUERY_S_HOLE,
	QUERY_S_HOLE_EVENT,
	QUERY_S_CONTEXT,
	QUERY_S_EXTENTS,
	QUERY_S_EXTENT_EVENT,
	QUERY_S_ERROR,
	QUERY_S_ERROR_TEXT,
	QUERY_S_ERROR_OFFSET,
	QUERY_S_ERROR_SKIP,
	QUERY_S_REPLY_EVENT,
	QUERY_S_END,
};

struct query_range {
	uint64_t begin, end;
};

struct query_slot {
	bool used;
	struct query_request request;
	uint64_t cookie;
	uint32_t error;     /* the first of the reply */
	char text[QUERY_TEXT_MAX]; /* the server's words for it, escaped */
	bool begun;         /* a structured reply has */
	unsigned errors;    /* its chunks of errors so far, */
	unsigned contents;  /* and those of data and holes */
	bool described[CONTEXTS_MAX]; /* BLOCK_STATUS: the context's chunk has come */
	unsigned ranges;
	struct query_range range[QUERY_RANGES]; /* READ: what has come, in order */
};

struct query {
	struct query_params params;
	uint64_t end;       /* of the last whole block */
	enum query_state state;
	bool disconnecting;
	uint64_t cookies;   /* given out */
	unsigned under_way;
	struct query_slot slot[QUERY_REQUESTS];
	unsigned current;   /* slot of the reply that is being read */
	bool structured;    /* it is a chunk: */
	uint16_t flags;
	uint16_t type;
	uint32_t left;      /* of the chunk's payload, not yet asked for */
	uint64_t offset;    /* of the next extent or piece of data */
	unsigned context;
	size_t at;          /* in in[], of the next extent */
	uint32_t length;    /* of the extent, the hole or the data at hand */
	uint32_t extent_flags;
	size_t want;        /* bytes of in[] that the state needs */
	size_t got;
	size_t out_len;
	size_t out_done;
	struct err failure; /* kind ERR_NONE: none */
	uint8_t in[QUERY_PIECE];
	uint8_t out[(QUERY_REQUESTS + 1) * WIRE_REQUEST_SIZE];
};

void query_init(struct query *q, const struct query_params *p);

/* The params for an export and contexts as neg has them after NEG_GOAL_QUERY (or GO, with contexts NULL). */
void query_params(struct query_params *p, const struct export *x, const struct contexts *c);

/*
 * Takes on a request. Returns its number, to be used again once its QUERY_REPLY was consumed, or -EBUSY when
 * QUERY_REQUESTS are under way, -EINVAL (ERR_FAILED) for one that may not be sent: beyond the export, not a
 * multiple of its blocks, longer than it takes, block status without contexts; -EPIPE after the end.
 */
int query_ask(struct query *q, const struct query_request *r, struct err *e);

/*
 * Longest request of this type that may begin at offset: a multiple of the blocks, to the end of the export
 * at most; 0 when not even one block is left.
 */
uint32_t query_longest(const struct query *q, uint16_t type, uint64_t offset);

/* After what is under way, NBD_CMD_DISC and QUERY_DONE ("Terminating the transmission phase"). */
void query_disconnect(struct query *q);

/* What is wanted now; see above. To be asked anew after query_ask and query_disconnect. */
enum query_want query_want(struct query *q, struct query_buf *buf);

/* len of the bytes that query_want named were moved, at most all; or the rest was used (len 0). */
void query_moved(struct query *q, size_t len);

/* The connection ended or broke (code: positive errno, 0 for an end of file): QUERY_FAILED, but for a last farewell. */
void query_broken(struct query *q, int code);

/* As query_broken, for whoever gives up by a deadline. */
void query_timed_out(struct query *q);

/*
 * At QUERY_REPLY with an error: "read of 4096 bytes at 8192: input/output error (NBD_EIO); it says: ...", ERR_REFUSED. Returns
 * the negative errno for it.
 */
int query_error(const struct query *q, struct err *e);

/* Valid at QUERY_FAILED: ERR_PROTOCOL or ERR_UNREACHABLE. */
const struct err *query_failure(const struct query *q);

#endif
