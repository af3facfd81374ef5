/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * Transmission replayed. A case is what is asked for, what the server says, and what comes of it
 * in one line of text. Each is driven as fast as the engine asks, in odd pieces and byte by byte,
 * and is broken off at each byte.
 */
#include "proto/transmission.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../pieces.h"
#include "base/text.h"
#include "../unit.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* clang-format off */
/* What servers say; cookies are 1, 2, 3. */
#define SIMPLE(cookie, error) U32(0x67446698), U32(error), U64(cookie)
#define CHUNK(cookie, flags, type, length)                                                        \
	U32(0x668e33ef), U16(flags), U16(type), U64(cookie), U32(length)
#define NONE(cookie) CHUNK(cookie, 1, 0, 0)
#define STATUS(cookie, flags, context, extents)                                                   \
	CHUNK(cookie, flags, 5, 4 + 8 * (extents)), U32(context)
#define EXTENT(length, status) U32(length), U32(status)
#define ERROR(cookie, flags, error, text)                                                         \
	CHUNK(cookie, flags, 0x8001, 6 + sizeof(text) - 1), U32(error), U16(sizeof(text) - 1),     \
		RAW(text)
#define ERROR_AT(cookie, flags, error, offset)                                                    \
	CHUNK(cookie, flags, 0x8002, 14), U32(error), U16(0), U64(offset)
enum { DONE = 1 };

/* What is asked for. */
enum { READ = 0, CACHE = 5, BLOCK_STATUS = 7 };
#define ASK(type, offset, length) { type, offset, length }
#define ASK_STATUS(offset, length) ASK(BLOCK_STATUS, offset, length)
/* clang-format on */

struct replay {
	const char *name;
	uint64_t size; /* 0: 1 MiB */
	uint32_t min;
	bool simple; /* structured replies were not agreed on */
	bool two;    /* two contexts, with the numbers 7 and 0xfffffffe, not only the first */
	struct transmission_request ask[4]; /* asked one after the other, up to length 0 */
	bool disconnect;
	const struct piece *server;
	const char *events;  /* see record() */
	const char *failure; /* a breach, or NULL */
};

static const struct replay replays[] = {
	/* --- block status --- */
	{
		.name = "status, one extent",
		.ask = { ASK_STATUS(0, 1048576) },
		.server = PIECES(STATUS(1, DONE, 7, 1), EXTENT(1048576, 3)),
		.events = "E0:0+1048576=3 R",
	},
	{
		.name = "status, several, fewer bytes than asked for, a final chunk of its own",
		.ask = { ASK_STATUS(4096, 65536) },
		.server = PIECES(STATUS(1, 0, 7, 3), EXTENT(512, 0), EXTENT(1, 0xffffffff),
				 EXTENT(512, 2), NONE(1)),
		.events = "E0:4096+512=0 E0:4608+1=4294967295 E0:4609+512=2 R",
	},
	{
		.name = "status, the last goes beyond what was asked for",
		.ask = { ASK_STATUS(0, 512) },
		.server = PIECES(STATUS(1, DONE, 7, 2), EXTENT(511, 0), EXTENT(1000000, 3)),
		.events = "E0:0+511=0 E0:511+1000000=3 R",
	},
	{
		.name = "status, the last goes beyond the export",
		.size = 1048577,
		.ask = { ASK_STATUS(1048576, 1) },
		.server = PIECES(STATUS(1, DONE, 7, 1), EXTENT(0xffffffff, 3)),
		.events = "E0:1048576+1=3 R",
	},
	{
		.name = "status, at the end of the largest export",
		.size = UINT64_MAX,
		.ask = { ASK_STATUS(UINT64_MAX - 2, 2) },
		.server = PIECES(STATUS(1, DONE, 7, 2), EXTENT(1, 3), EXTENT(0xffffffff, 0)),
		.events = "E0:18446744073709551613+1=3 E0:18446744073709551614+1=0 R",
	},
	{
		.name = "status, two contexts",
		.two = true,
		.ask = { ASK_STATUS(0, 65536) },
		.server = PIECES(STATUS(1, 0, 7, 1), EXTENT(512, 3), STATUS(1, DONE, 0xfffffffe, 1),
				 EXTENT(65536, 1)),
		.events = "E0:0+512=3 E1:0+65536=1 R",
	},
	{
		.name = "status, two contexts the other way round",
		.two = true,
		.ask = { ASK_STATUS(512, 65536) },
		.server = PIECES(STATUS(1, 0, 0xfffffffe, 1), EXTENT(512, 1), STATUS(1, 0, 7, 2),
				 EXTENT(65535, 3), EXTENT(1, 0), NONE(1)),
		.events = "E1:512+512=1 E0:512+65535=3 E0:66047+1=0 R",
	},
	{
		.name = "status, flags of the future are ignored",
		.ask = { ASK_STATUS(0, 512) },
		.server = PIECES(STATUS(1, 0xfffe, 7, 1), EXTENT(512, 3), CHUNK(1, 0xffff, 0, 0)),
		.events = "E0:0+512=3 R",
	},
	{
		.name = "status, an error in a simple reply",
		.ask = { ASK_STATUS(0, 512) },
		.server = PIECES(SIMPLE(1, 5)),
		.events = "R!5",
	},
	{
		.name = "status, an error with a hostile text",
		.ask = { ASK_STATUS(0, 512) },
		.server = PIECES(ERROR(1, DONE, 22, "no\x1b[2J\n\xff")),
		.events = "R!22\"no\\x1b[2J\\x0a\\xff\"",
	},
	{
		.name = "status, extents before and after an error, the first error counts",
		.two = true,
		.ask = { ASK_STATUS(0, 512) },
		.server = PIECES(STATUS(1, 0, 7, 1), EXTENT(512, 3), ERROR_AT(1, 0, 5, 511),
				 ERROR(1, 0, 12, "later"), STATUS(1, 0, 0xfffffffe, 1),
				 EXTENT(512, 0), NONE(1)),
		.events = "E0:0+512=3 E1:0+512=0 R!5",
	},
	{
		.name = "status, an error of a kind of the future, with more fields",
		.ask = { ASK_STATUS(0, 512) },
		.server = PIECES(CHUNK(1, DONE, 0xffff, 6 + 3 + 70000 - 10000), U32(99), U16(3),
				 RAW("odd"), FILL(1, 60000)),
		.events = "R!99\"odd\"",
	},
	{
		.name = "status, an error with the longest text",
		.ask = { ASK_STATUS(0, 512) },
		.server = PIECES(CHUNK(1, DONE, 0x8002, 14 + 4096), U32(1), U16(4096),
				 FILL('t', 4096), U64(0)),
		.events =
			"R!1\"tttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttt"
			"tttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttt"
			"tttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttt"
			"tttttttttttttttttttttttttttttttt...\"",
	},
	{
		.name = "status, one request after the other",
		.ask = { ASK_STATUS(512, 512), ASK_STATUS(0, 512), ASK(CACHE, 0, 512) },
		.server = PIECES(STATUS(1, 0, 7, 1), EXTENT(512, 1), NONE(1),
				 ERROR(2, DONE, 5, "x"), SIMPLE(3, 0)),
		.events = "E0:512+512=1 R R!5\"x\" R",
	},
	{
		.name = "status, a farewell after all replies",
		.ask = { ASK(CACHE, 0, 512), ASK_STATUS(0, 512) },
		.disconnect = true,
		.server = PIECES(SIMPLE(1, 0), STATUS(2, DONE, 7, 1), EXTENT(512, 1)),
		.events = "R E0:0+512=1 R",
	},
	{
		.name = "a farewell at once",
		.disconnect = true,
		.events = "",
	},
/* --- block status, breaches ------------------------------------------------------------------- */
#define BREACH(title, text, ...)                                                             \
	{                                                                                    \
		.name = title, .ask = { ASK_STATUS(0, 512) }, .server = PIECES(__VA_ARGS__), \
		.events = "", .failure = text,                                               \
	}
	BREACH("an extent of no bytes", "an extent of no bytes at 0", STATUS(1, DONE, 7, 1),
	       EXTENT(0, 3)),
	{
		.name = "an extent of no bytes between others",
		.ask = { ASK_STATUS(0, 65536) },
		.server =
			PIECES(STATUS(1, DONE, 7, 3), EXTENT(512, 3), EXTENT(0, 0), EXTENT(512, 0)),
		.events = "E0:0+512=3",
		.failure = "an extent of no bytes at 512",
	},
	{
		.name = "an extent of no bytes at the end",
		.ask = { ASK_STATUS(0, 65536) },
		.server = PIECES(STATUS(1, DONE, 7, 2), EXTENT(512, 3), EXTENT(0, 0)),
		.events = "E0:0+512=3",
		.failure = "an extent of no bytes at 512",
	},
	{
		.name = "extents beyond what was asked for",
		.ask = { ASK_STATUS(512, 1024) },
		.server =
			PIECES(STATUS(1, DONE, 7, 3), EXTENT(1023, 3), EXTENT(1, 0), EXTENT(1, 3)),
		.events = "E0:512+1023=3",
		.failure = "extents go on beyond the 1024 bytes at 512",
	},
	BREACH("extents beyond anything", "extents go on beyond", STATUS(1, DONE, 7, 2),
	       EXTENT(0xffffffff, 3), EXTENT(0xffffffff, 3)),
	BREACH("another context", "meta context number 8", CHUNK(1, DONE, 5, 12), U32(8)),
	{
		.name = "one context twice",
		.two = true,
		.ask = { ASK_STATUS(0, 512) },
		.server = PIECES(STATUS(1, 0, 7, 1), EXTENT(512, 3), CHUNK(1, 0, 5, 12), U32(7)),
		.events = "E0:0+512=3",
		.failure = "two block statuses for one meta context",
	},
	{
		.name = "a context is missing",
		.two = true,
		.ask = { ASK_STATUS(0, 512) },
		.server = PIECES(STATUS(1, DONE, 7, 1), EXTENT(512, 3)),
		.events = "E0:0+512=3",
		.failure = "lacks one of the meta contexts",
	},
	BREACH("success without any extent", "lacks one of the meta contexts", NONE(1)),
	BREACH("success in a simple reply", "a simple reply without an error", SIMPLE(1, 0)),
	BREACH("a status without extents", "a block status of 4 bytes", CHUNK(1, DONE, 5, 4)),
	BREACH("a status of no bytes", "a block status of 0 bytes", CHUNK(1, DONE, 5, 0)),
	BREACH("half an extent", "a block status of 16 bytes", CHUNK(1, DONE, 5, 16)),
	BREACH("too many extents", "a block status of 33554444 bytes",
	       CHUNK(1, DONE, 5, 4 + 8 * ((1 << 22) + 1))),
	BREACH("data for a status", "a chunk of type 1 in reply to NBD_CMD_BLOCK_STATUS",
	       CHUNK(1, DONE, 1, 9)),
	BREACH("a chunk of the future", "a chunk of type 6", CHUNK(1, DONE, 6, 24)),
	BREACH("none with a payload", "NBD_REPLY_TYPE_NONE of 1 bytes", CHUNK(1, DONE, 0, 1)),
	BREACH("none that is not final", "without NBD_REPLY_FLAG_DONE", CHUNK(1, 0, 0, 0)),
	BREACH("no reply at all", "a reply begins with 0x25609513", U32(0x25609513), FILL(0, 12)),
	BREACH("a reply to nothing", "a request (0x2) that was not made", SIMPLE(2, 0)),
	BREACH("cookie 0", "a request (0x0) that was not made", SIMPLE(0, 0)),
	BREACH("a chunk for nothing", "a request (0xffffffffffffffff) that was not made",
	       U32(0x668e33ef), U16(1), U16(0), U64(UINT64_MAX)),
	BREACH("an error without an error", "an error chunk without an error",
	       CHUNK(1, DONE, 0x8001, 6), U32(0), U16(0)),
	BREACH("a short error", "an error chunk of 5 bytes", CHUNK(1, DONE, 0x8001, 5)),
	BREACH("a short error with an offset", "an error chunk of 13 bytes",
	       CHUNK(1, DONE, 0x8002, 13)),
	BREACH("an error without an end", "an error chunk of 4294967295 bytes",
	       CHUNK(1, DONE, 0x9000, 0xffffffff)),
	BREACH("an error longer than its chunk", "1 bytes left and a text of 2",
	       CHUNK(1, DONE, 0x8001, 7), U32(5), U16(2)),
	BREACH("an error over its offset", "8 bytes left and a text of 1",
	       CHUNK(1, DONE, 0x8002, 14), U32(5), U16(1)),
	BREACH("an error with a text that is too long", "a text of 4097",
	       CHUNK(1, DONE, 0x8001, 6 + 4097), U32(5), U16(4097)),
	BREACH("an error elsewhere", "an error at 512 in reply to NBD_CMD_BLOCK_STATUS",
	       ERROR_AT(1, DONE, 5, 512)),
	{
		.name = "an error before the beginning",
		.ask = { ASK(CACHE, 512, 512) },
		.server = PIECES(ERROR_AT(1, DONE, 5, 511)),
		.events = "",
		.failure = "an error at 511 in reply to NBD_CMD_CACHE of 512 bytes at 512",
	},
	BREACH("errors without end", "more than 1024 error chunks",
	       TIMES(1024, ERROR_AT(1, 0, 5, 0)), CHUNK(1, 0, 0x8002, 14)),
	{
		.name = "an answer twice",
		.ask = { ASK(CACHE, 0, 512), ASK(CACHE, 512, 512) },
		.server = PIECES(SIMPLE(1, 0), SIMPLE(1, 0)),
		.events = "R",
		.failure = "a request (0x1) that was not made, or that it has answered before",
	},
	{
		.name = "a simple reply in the middle of a structured one",
		.ask = { ASK_STATUS(0, 512) },
		.server = PIECES(STATUS(1, 0, 7, 1), EXTENT(512, 3), SIMPLE(1, 5)),
		.events = "E0:0+512=3",
		.failure = "a simple reply after structured ones to the same NBD_CMD_BLOCK_STATUS",
	},
	{
		.name = "an answer to the next request",
		.ask = { ASK_STATUS(0, 512), ASK(CACHE, 0, 512) },
		.server = PIECES(STATUS(1, 0, 7, 1), EXTENT(512, 3), SIMPLE(2, 0)),
		.events = "E0:0+512=3",
		.failure = "a request (0x2) that was not made",
	},
	/* --- cache --- */
	{
		.name = "cache, simple",
		.simple = true,
		.ask = { ASK(CACHE, 0, 512) },
		.server = PIECES(SIMPLE(1, 0)),
		.events = "R",
	},
	{
		.name = "cache, refused, an error of the future",
		.simple = true,
		.ask = { ASK(CACHE, 0, 1048576) },
		.server = PIECES(SIMPLE(1, 0xffffffff)),
		.events = "R!4294967295",
	},
	{
		.name = "cache, structured",
		.ask = { ASK(CACHE, 0, 512) },
		.server = PIECES(NONE(1)),
		.events = "R",
	},
	{
		.name = "cache, a structured reply where only simple ones may be",
		.simple = true,
		.ask = { ASK(CACHE, 0, 512) },
		.server = PIECES(U32(0x668e33ef), FILL(0, 12)),
		.events = "",
		.failure = "a structured one, which was not agreed on",
	},
	{
		.name = "cache, a hole",
		.ask = { ASK(CACHE, 0, 512) },
		.server = PIECES(CHUNK(1, DONE, 2, 12)),
		.events = "",
		.failure = "a chunk of type 2 in reply to NBD_CMD_CACHE",
	},
	{
		.name = "cache, a status",
		.ask = { ASK(CACHE, 0, 512) },
		.server = PIECES(CHUNK(1, DONE, 5, 12)),
		.events = "",
		.failure = "a chunk of type 5 in reply to NBD_CMD_CACHE",
	},
	{
		.name = "cache, data",
		.ask = { ASK(CACHE, 0, 512) },
		.server = PIECES(CHUNK(1, DONE, 1, 520)),
		.events = "",
		.failure = "a chunk of type 1 in reply to NBD_CMD_CACHE",
	},
	{
		.name = "cache, an error at the end",
		.ask = { ASK(CACHE, 512, 512) },
		.server = PIECES(ERROR_AT(1, DONE, 5, 1023)),
		.events = "R!5",
	},
	{
		.name = "cache, an error beyond the end",
		.ask = { ASK(CACHE, 512, 512) },
		.server = PIECES(ERROR_AT(1, DONE, 5, 1024)),
		.events = "",
		.failure = "an error at 1024 in reply to NBD_CMD_CACHE of 512 bytes at 512",
	},
};

/* --- driving ---------------------------------------------------------------------------------- */

struct drive {
	const struct replay *r;
	struct bytes server;
	uint8_t client[5 * 28]; /* bytes that the client has to send */
	size_t client_len, read, written;
	unsigned asked;
	char events[4096];
	struct transmission
		*q; /* allocated alone, so that AddressSanitizer sees the first byte beyond */
};

#define must(d, condition, ...) must_at(d, condition, #condition, __LINE__, " " __VA_ARGS__)

__attribute__((format(printf, 5, 6))) static void must_at(const struct drive *d, bool ok,
							  const char *condition, int line,
							  const char *fmt, ...)
{
	char more[5000];
	va_list ap;

	if (ok)
		return;
	va_start(ap, fmt);
	vsnprintf(more, sizeof(more), fmt, ap);
	va_end(ap);
	ck_abort_msg("line %d, \"%s\", %zu bytes read and %zu written: not %s%s", line, d->r->name,
		     d->read, d->written, condition, more);
}

/* "Request message", byte for byte */
static void expect_request(struct drive *d, const struct transmission_request *r, uint64_t cookie)
{
	struct bytes b;

	make_bytes(&b, PIECES(U32(0x25609513), U16(0), U16(r->type), U64(cookie), U64(r->offset),
			      U32(r->length)));
	ck_assert_uint_eq(b.len, 28);
	memcpy(d->client + d->client_len, b.data, b.len);
	d->client_len += b.len;
	free_bytes(&b);
}

/* Asks for what comes next, or says farewell. False when nothing is left to do. */
static bool ask_next(struct drive *d)
{
	const struct transmission_request farewell = { .type = 2 };
	const struct replay *r = d->r;
	struct err e = { 0 };

	if (d->asked < COUNT(r->ask) && r->ask[d->asked].length) {
		must(d, !transmission_ask(d->q, &r->ask[d->asked], &e), "%s", e.text);
		must(d, transmission_ask(d->q, &r->ask[d->asked], &e) == -EBUSY);
		expect_request(d, &r->ask[d->asked], d->asked + 1);
		d->asked++;
		return true;
	}
	if (!r->disconnect)
		return false;
	transmission_disconnect(d->q);
	transmission_disconnect(d->q);
	expect_request(d, &farewell, d->asked + 1);
	must(d, transmission_ask(d->q, &r->ask[0], &e) == -EPIPE);
	return true;
}

static void init(struct transmission *q, const struct export *x, bool two)
{
	struct metactx c = { 0 };
	struct err e;

	ck_assert_int_eq(metactx_add(&c, "base:allocation", 15, &e), 0);
	c.id[0] = 7;
	if (two) {
		ck_assert_int_eq(metactx_add(&c, "x:y", 3, &e), 0);
		c.id[1] = 0xfffffffe;
	}
	transmission_init(q, x, &c);
}

static void begin(struct drive *d, const struct replay *r)
{
	const struct export x = {
		.size = r->size ? r->size : 1048576,
		.has_block_size = r->min,
		.block_min = r->min,
		.structured = !r->simple,
	};

	memset(d, 0, sizeof(*d));
	d->r = r;
	make_bytes(&d->server, r->server);
	d->q = malloc(sizeof(*d->q));
	ck_assert(d->q);
	init(d->q, &x, r->two);
	ask_next(d);
}

static void finish(struct drive *d)
{
	free_bytes(&d->server);
	free(d->q);
}

__attribute__((format(printf, 2, 3))) static void record(struct drive *d, const char *fmt, ...)
{
	size_t used = strlen(d->events);
	va_list ap;

	if (used && used + 1 < sizeof(d->events))
		d->events[used++] = ' ';
	va_start(ap, fmt);
	vsnprintf(d->events + used, sizeof(d->events) - used, fmt, ap);
	va_end(ap);
}

/*
 * "E1:512+4=3": an extent in context 1 of 4 bytes at 512 with flags 3. "R": a reply, "R!5": with
 * an error, and its text.
 */
static void on_event(struct drive *d, enum transmission_want want, const struct transmission_buf *b)
{
	unsigned long long at = b->offset;
	struct err e;

	must(d, !b->in && !b->out && b->len == 0);
	if (want == TRANSMISSION_EXTENT) {
		record(d, "E%u:%llu+%u=%u", b->context, at, b->length, b->flags);
	} else if (!b->error) {
		record(d, "R");
	} else {
		const char *text;

		must(d, transmission_error(d->q, &e) == -e.code && e.code > 0 &&
				e.kind == ERR_REFUSED);
		must(d, text_is_utf8(e.text, strlen(e.text)) && !strchr(e.text, '\x1b'), "%s",
		     e.text);
		text = strstr(e.text, "it says: ");
		record(d, "R!%u%s", b->error, text ? text + 9 : "");
	}
	transmission_moved(d->q, 0);
}

static void check_sticky(const struct drive *d, struct transmission *q, enum transmission_want end)
{
	const struct transmission_request r = ASK(CACHE, 0, 512);
	struct err before = *transmission_failure(q), e;
	struct transmission_buf b;

	for (int i = 0; i < 5; i++) {
		must(d, transmission_want(q, &b) == end);
		must(d, b.len == 0 && !b.in && !b.out);
		must(d, strcmp(transmission_failure(q)->text, before.text) == 0, "%s", before.text);
		must(d, transmission_failure(q)->kind == before.kind &&
				transmission_failure(q)->code == before.code);
		must(d, transmission_ask(q, &r, &e) == -EPIPE);
		if (i == 0)
			transmission_moved(q, 0);
		else if (i == 1)
			transmission_broken(q, 0);
		else if (i == 2)
			transmission_broken(q, EPIPE);
		else if (i == 3)
			transmission_timed_out(q);
		else
			transmission_disconnect(q);
	}
}

/* Gives up here, in each of the three ways, on a copy of the engine. */
static void check_broken(const struct drive *d)
{
	static struct transmission copy;
	struct transmission *q = &copy;
	struct transmission_buf b;

	for (int way = 0; way < 3; way++) {
		const struct err *e = transmission_failure(q);
		bool said;

		memcpy(q, d->q, sizeof(*q));
		said = q->state == TRANSMISSION_S_END;
		if (way == 2)
			transmission_timed_out(q);
		else
			transmission_broken(q, way ? ECONNRESET : 0);
		if (said) {
			must(d, transmission_want(q, &b) ==
					(d->r->failure ? TRANSMISSION_FAILED : TRANSMISSION_DONE));
			continue;
		}
		must(d, transmission_want(q, &b) == TRANSMISSION_FAILED);
		must(d, e->kind == ERR_UNREACHABLE, "%s", e->text);
		must(d, e->code == (way == 2 ? ETIMEDOUT : ECONNRESET), "%s", e->text);
		check_sticky(d, q, TRANSMISSION_FAILED);
	}
}

/* Long streams are all alike in the middle. */
static bool worth_breaking(const struct drive *d)
{
	/* At every byte, but for a run that is slowed down by a tool. */
	const char *stride = getenv("UNIT_STRIDE");

	if (stride && (d->read + d->written) % strtoul(stride, NULL, 10))
		return false;
	return d->server.len < 4096 || d->read < 256 || d->server.len - d->read < 64 ||
	       d->read % 1999 == 0;
}

static void drive(const struct replay *r, size_t limit, bool breaking)
{
	enum transmission_want want, end = TRANSMISSION_IDLE;
	struct transmission_buf b;
	struct drive d;

	begin(&d, r);
	if (r->failure)
		end = TRANSMISSION_FAILED;
	else if (r->disconnect)
		end = TRANSMISSION_DONE;
	while (((want = transmission_want(d.q, &b)) != TRANSMISSION_IDLE || ask_next(&d)) &&
	       want != TRANSMISSION_DONE && want != TRANSMISSION_FAILED) {
		size_t len = b.len < limit ? b.len : limit;

		if (breaking && worth_breaking(&d))
			check_broken(&d);
		if (want == TRANSMISSION_IDLE)
			continue;
		if (want == TRANSMISSION_WRITE) {
			must(&d, b.len > 0 && b.out && !b.in && b.len <= d.client_len - d.written);
			must(&d, memcmp(b.out, d.client + d.written, b.len) == 0);
			d.written += len;
			transmission_moved(d.q, len);
		} else if (want == TRANSMISSION_READ) {
			must(&d, b.len > 0 && b.in && !b.out);
			must(&d, b.in >= d.q->in && b.in + b.len <= d.q->in + sizeof(d.q->in));
			/* Nothing is read that is not there. */
			must(&d, b.len <= d.server.len - d.read, "%zu asked for, %zu left", b.len,
			     d.server.len - d.read);
			memcpy(b.in, d.server.data + d.read, len);
			d.read += len;
			transmission_moved(d.q, len);
		} else {
			on_event(&d, want, &b);
		}
	}
	must(&d, want == end, "%d: %s", want, transmission_failure(d.q)->text);
	must(&d, d.read == d.server.len && d.written == d.client_len);
	if (r->events)
		must(&d, strcmp(d.events, r->events) == 0, "\n%s\n%s", d.events, r->events);
	if (r->failure) {
		const struct err *e = transmission_failure(d.q);

		must(&d, e->kind == ERR_PROTOCOL && e->code == EPROTO, "%s", e->text);
		must(&d, strstr(e->text, r->failure) != NULL, "%s", e->text);
		check_sticky(&d, d.q, end);
	}
	finish(&d);
}

START_TEST(replay)
{
	drive(&replays[_i], SIZE_MAX, false);
	drive(&replays[_i], 7, false);
}
END_TEST

START_TEST(replay_broken_off_at_each_byte)
{
	drive(&replays[_i], 1, true);
}
END_TEST

START_TEST(cases_are_complete)
{
	bool seen[TRANSMISSION_S_END + 1] = { false };

	for (size_t i = 0; i < COUNT(replays); i++) {
		struct transmission_buf b;
		enum transmission_want want;
		struct drive d;

		for (size_t j = 0; j < i; j++)
			ck_assert_str_ne(replays[i].name, replays[j].name);
		begin(&d, &replays[i]);
		while (((want = transmission_want(d.q, &b)) != TRANSMISSION_IDLE || ask_next(&d)) &&
		       d.q->state != TRANSMISSION_S_END) {
			seen[d.q->state] = true;
			if (want == TRANSMISSION_IDLE)
				continue;
			if (want == TRANSMISSION_READ) {
				memcpy(b.in, d.server.data + d.read, b.len);
				d.read += b.len;
			}
			transmission_moved(d.q, b.len);
		}
		seen[d.q->state] = true;
		finish(&d);
	}
	for (size_t i = 0; i < COUNT(seen); i++)
		ck_assert_msg(seen[i], "no replay reaches state %zu", i);
}
END_TEST

/* --- what no replay shows --------------------------------------------------------------------- */

static void init_sized(struct transmission *q, uint64_t size, uint32_t block, bool structured)
{
	const struct export x = {
		.size = size,
		.has_block_size = block,
		.block_min = block,
		.structured = structured,
	};

	init(q, &x, false);
}

static void feed(struct transmission *q, const void *data, size_t len)
{
	const uint8_t *p = data;
	struct transmission_buf b;

	while (len) {
		size_t n;

		ck_assert_int_eq(transmission_want(q, &b), TRANSMISSION_READ);
		n = b.len < len ? b.len : len;
		memcpy(b.in, p, n);
		transmission_moved(q, n);
		p += n;
		len -= n;
	}
}

/* More extents than fit into the buffer. */
START_TEST(many_extents)
{
	static const uint32_t counts[] = { 8192, 8193, 100000 };
	const struct transmission_request r = ASK(BLOCK_STATUS, 0, 0xfffffe00);
	uint32_t count = counts[_i], seen = 0;
	static struct transmission q;
	struct transmission_buf b;
	struct bytes head;
	struct err e;

	init_sized(&q, UINT64_C(1) << 40, 0, true);
	ck_assert_int_eq(transmission_ask(&q, &r, &e), 0);
	ck_assert_int_eq(transmission_want(&q, &b), TRANSMISSION_WRITE);
	transmission_moved(&q, b.len);
	make_bytes(&head, PIECES(STATUS(1, DONE, 7, count)));
	feed(&q, head.data, head.len);
	free_bytes(&head);
	while (seen < count) {
		enum transmission_want want = transmission_want(&q, &b);

		if (want == TRANSMISSION_READ) {
			/*
			 * length 512, flags 1: the byte counts from the start of the chunk's
			 * extents
			 */
			ck_assert_uint_eq(b.len % 8, 0);
			for (size_t i = 0; i < b.len; i += 8)
				memcpy(b.in + i, "\0\0\2\0\0\0\0\1", 8);
			transmission_moved(&q, b.len);
			continue;
		}
		ck_assert_int_eq(want, TRANSMISSION_EXTENT);
		ck_assert_uint_eq(b.offset, UINT64_C(512) * seen);
		ck_assert_uint_eq(b.length, 512);
		ck_assert_uint_eq(b.flags, 1);
		transmission_moved(&q, 0);
		seen++;
	}
	ck_assert_int_eq(transmission_want(&q, &b), TRANSMISSION_REPLY);
	ck_assert_uint_eq(b.error, 0);
	transmission_moved(&q, 0);
	ck_assert_int_eq(transmission_want(&q, &b), TRANSMISSION_IDLE);
}
END_TEST

START_TEST(the_most_extents)
{
	const struct transmission_request r = ASK(BLOCK_STATUS, 0, 0xfffffe00);
	static struct transmission q;
	struct transmission_buf b;
	struct bytes head;
	struct err e;

	init_sized(&q, UINT64_C(1) << 40, 0, true);
	ck_assert_int_eq(transmission_ask(&q, &r, &e), 0);
	ck_assert_int_eq(transmission_want(&q, &b), TRANSMISSION_WRITE);
	transmission_moved(&q, b.len);
	make_bytes(&head,
		   PIECES(STATUS(1, DONE, 7, (uint32_t)TRANSMISSION_MAX_EXTENTS + (uint32_t)_i)));
	feed(&q, head.data, head.len - (_i ? 4 : 0));
	free_bytes(&head);
	ck_assert_int_eq(transmission_want(&q, &b), _i ? TRANSMISSION_FAILED : TRANSMISSION_READ);
}
END_TEST

/* "Size constraints", and what was negotiated */
START_TEST(what_may_not_be_sent_is_refused)
{
	static const struct {
		uint64_t size;
		uint32_t block;
		bool simple;
		struct transmission_request r;
		bool good;
	} table[] = {
		{ 1000, 0, false, ASK(CACHE, 0, 1000), true },
		{ 1000, 1, false, ASK(CACHE, 999, 1), true },
		{ 1000, 1, false, ASK(CACHE, 999, 2), false },
		{ 1000, 1, false, ASK(CACHE, 1000, 1), false },
		{ 1000, 1, false, ASK(CACHE, 0, 0), false },
		{ 1000, 1, false, ASK(CACHE, UINT64_MAX, 2), false },
		{ 1000, 512, false, ASK(CACHE, 0, 512), true },
		{ 1000, 512, false, ASK(CACHE, 0, 1000), false },
		{ 1000, 512, false, ASK(CACHE, 0, 511), false },
		{ 1000, 512, false, ASK(CACHE, 1, 511), false },
		{ 1000, 512, false, ASK(CACHE, 512, 488), false },
		{ 1 << 26, 1, false, ASK(CACHE, 0, 1 << 26), true },
		{ 1 << 26, 1, false, ASK(BLOCK_STATUS, 0, 1 << 26), true },
		{ 1 << 26, 1, true, ASK(BLOCK_STATUS, 0, 1 << 26), false },
		/* read, write, disconnect, flush, trim, write zeroes, resize */
		{ 1000, 1, false, ASK(0, 0, 1), false },
		{ 1000, 1, false, ASK(1, 0, 1), false },
		{ 1000, 1, false, ASK(2, 0, 1), false },
		{ 1000, 1, false, ASK(3, 0, 1), false },
		{ 1000, 1, false, ASK(4, 0, 1), false },
		{ 1000, 1, false, ASK(6, 0, 1), false },
		{ 1000, 1, false, ASK(8, 0, 1), false },
		{ 0, 1, false, ASK(CACHE, 0, 1), false },
		{ 100, 512, false, ASK(CACHE, 0, 100), false },
	};

	for (size_t i = 0; i < COUNT(table); i++) {
		static struct transmission q;
		struct transmission_buf b;
		struct err e = { 0 };
		int ret;

		init_sized(&q, table[i].size, table[i].block, !table[i].simple);
		ret = transmission_ask(&q, &table[i].r, &e);
		ck_assert_msg(ret == (table[i].good ? 0 : -EINVAL), "row %zu: %d", i, ret);
		ck_assert_int_eq(transmission_want(&q, &b),
				 table[i].good ? TRANSMISSION_WRITE : TRANSMISSION_IDLE);
		if (!table[i].good)
			ck_assert_ptr_nonnull(strstr(e.text, "does not suit the export"));
	}
}
END_TEST

/* A set without contexts cannot be asked about. */
START_TEST(status_needs_a_context)
{
	static const struct export x = { .size = 512, .structured = true };
	const struct metactx none = { 0 };
	const struct transmission_request r = ASK_STATUS(0, 512);
	static struct transmission q;
	struct err e;

	transmission_init(&q, &x, &none);
	ck_assert_int_eq(transmission_ask(&q, &r, &e), -EINVAL);
}
END_TEST

START_TEST(the_longest_request)
{
	static const struct {
		uint64_t size;
		uint32_t block;
		uint64_t offset;
		uint32_t longest;
	} table[] = {
		{ 1000, 0, 0, 1000 },
		{ 1000, 1, 999, 1 },
		{ 1000, 1, 1000, 0 },
		{ 1000, 1, UINT64_MAX, 0 },
		{ 1000, 512, 0, 512 },
		{ 1000, 512, 512, 0 },
		{ 100, 512, 0, 0 },
		{ 0, 0, 0, 0 },
		{ UINT64_C(1) << 40, 1, 0, 0xfffffe00 },
		{ UINT64_C(1) << 40, 4096, 0, 0xfffff000 },
		{ UINT64_C(1) << 40, 65536, 0, 0xffff0000 },
		{ UINT32_MAX, 1, 0, UINT32_MAX },
		{ UINT64_C(1) << 32, 1, 0, 0xfffffe00 },
		{ UINT64_C(1) << 32, 1, 1, UINT32_MAX },
	};

	for (size_t i = 0; i < COUNT(table); i++) {
		static struct transmission q;
		uint32_t longest;

		init_sized(&q, table[i].size, table[i].block, true);
		longest = transmission_longest(&q, table[i].offset);
		ck_assert_msg(longest == table[i].longest, "row %zu: %u", i, longest);
		if (longest) {
			const struct transmission_request r =
				ASK(BLOCK_STATUS, table[i].offset, longest);
			struct err e = { 0 };

			ck_assert_msg(transmission_ask(&q, &r, &e) == 0, "row %zu: %s", i, e.text);
		}
	}
}
END_TEST

/* Events are seen once, in whatever way they are used; the cookies go up. */
START_TEST(asked_at_an_event)
{
	const struct transmission_request r = ASK_STATUS(0, 512);
	static struct transmission q;
	struct transmission_buf b;
	struct bytes reply;
	struct err e;

	init_sized(&q, 1 << 20, 1, true);
	ck_assert_int_eq(transmission_ask(&q, &r, &e), 0);
	for (uint64_t cookie = 1; cookie < 100; cookie++) {
		ck_assert_int_eq(transmission_want(&q, &b), TRANSMISSION_WRITE);
		ck_assert_uint_eq(b.len, 28);
		ck_assert_uint_eq(b.out[15], cookie);
		transmission_moved(&q, 5);
		ck_assert_int_eq(transmission_ask(&q, &r, &e), -EBUSY);
		ck_assert_ptr_nonnull(strstr(e.text, "unanswered"));
		ck_assert_int_eq(transmission_want(&q, &b), TRANSMISSION_WRITE);
		ck_assert_uint_eq(b.len, 23);
		transmission_moved(&q, b.len);
		make_bytes(&reply, PIECES(STATUS(cookie, DONE, 7, 1), EXTENT(512, 3)));
		feed(&q, reply.data, reply.len);
		free_bytes(&reply);
		ck_assert_int_eq(transmission_want(&q, &b), TRANSMISSION_EXTENT);
		ck_assert_int_eq(transmission_ask(&q, &r, &e), -EBUSY);
		ck_assert_int_eq(transmission_want(&q, &b), TRANSMISSION_EXTENT);
		transmission_moved(&q, 0);
		ck_assert_int_eq(transmission_want(&q, &b), TRANSMISSION_REPLY);
		ck_assert_int_eq(transmission_want(&q, &b), TRANSMISSION_REPLY);
		if (cookie % 2) {
			transmission_moved(&q, 0);
			ck_assert_int_eq(transmission_want(&q, &b), TRANSMISSION_IDLE);
			transmission_moved(&q, 0);
			ck_assert_int_eq(transmission_want(&q, &b), TRANSMISSION_IDLE);
		}
		ck_assert_int_eq(transmission_ask(&q, &r, &e), 0);
	}
}
END_TEST

/* Also behind a request that is half sent. */
START_TEST(farewell_at_any_time)
{
	const struct transmission_request r = ASK(CACHE, 0, 512);
	static struct transmission q;
	struct transmission_buf b;
	struct err e;

	init_sized(&q, 1 << 20, 1, false);
	ck_assert_int_eq(transmission_ask(&q, &r, &e), 0);
	transmission_moved(&q, (size_t)_i);
	transmission_disconnect(&q);
	ck_assert_int_eq(transmission_want(&q, &b), TRANSMISSION_WRITE);
	ck_assert_uint_eq(b.len, 28 - (size_t)_i % 28 + (_i < 28 ? 28 : 0));
	ck_assert_mem_eq(b.out + b.len - 28, "\x25\x60\x95\x13\0\0\0\2", 8);
	transmission_moved(&q, b.len);
	ck_assert_int_eq(transmission_want(&q, &b), TRANSMISSION_DONE);
}
END_TEST

START_TEST(each_error_has_its_words)
{
	static const struct {
		uint32_t error;
		int code;
		const char *text;
	} table[] = {
		{ 1, EPERM, "NBD_EPERM" },
		{ 5, EIO, "NBD_EIO" },
		{ 12, ENOMEM, "NBD_ENOMEM" },
		{ 22, EINVAL, "NBD_EINVAL" },
		{ 28, ENOSPC, "NBD_ENOSPC" },
		{ 75, EOVERFLOW, "NBD_EOVERFLOW" },
		{ 95, EOPNOTSUPP, "NBD_ENOTSUP" },
		{ 108, ESHUTDOWN, "NBD_ESHUTDOWN" },
		{ 2, EINVAL, " 2: an error that this client does not know" },
	};
	const struct transmission_request r = ASK(CACHE, 4096, 512);

	for (size_t i = 0; i < COUNT(table); i++) {
		static struct transmission q;
		struct transmission_buf b;
		struct bytes reply;
		struct err e = { 0 };

		init_sized(&q, 1 << 20, 1, false);
		ck_assert_int_eq(transmission_ask(&q, &r, &e), 0);
		ck_assert_int_eq(transmission_want(&q, &b), TRANSMISSION_WRITE);
		transmission_moved(&q, b.len);
		make_bytes(&reply, PIECES(SIMPLE(1, table[i].error)));
		feed(&q, reply.data, reply.len);
		free_bytes(&reply);
		ck_assert_int_eq(transmission_want(&q, &b), TRANSMISSION_REPLY);
		ck_assert_int_eq(transmission_error(&q, &e), -table[i].code);
		ck_assert_int_eq(e.kind, ERR_REFUSED);
		ck_assert_ptr_nonnull(strstr(e.text, table[i].text));
		ck_assert_ptr_nonnull(strstr(e.text, "NBD_CMD_CACHE of 512 bytes at 4096"));
	}
}
END_TEST

START_TEST(blocks_of_an_export)
{
	static struct export x = {
		.size = 4096 + 511,
		.has_block_size = true,
		.block_min = 512,
		.structured = true,
	};
	static struct transmission q;

	init(&q, &x, false);
	ck_assert_uint_eq(transmission_longest(&q, 0), 4096);
	x.has_block_size = false;
	init(&q, &x, false);
	ck_assert_uint_eq(transmission_longest(&q, 0), 4096 + 511);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("transmission");
	TCase *t = tcase_create("transmission");
	int n = (int)COUNT(replays);

	tcase_set_timeout(t, 60);
	tcase_add_test(t, cases_are_complete);
	tcase_add_loop_test(t, replay, 0, n);
	tcase_add_loop_test(t, replay_broken_off_at_each_byte, 0, n);
	tcase_add_loop_test(t, many_extents, 0, 3);
	tcase_add_loop_test(t, the_most_extents, 0, 2);
	tcase_add_test(t, what_may_not_be_sent_is_refused);
	tcase_add_test(t, status_needs_a_context);
	tcase_add_test(t, the_longest_request);
	tcase_add_test(t, asked_at_an_event);
	tcase_add_loop_test(t, farewell_at_any_time, 0, 29);
	tcase_add_test(t, each_error_has_its_words);
	tcase_add_test(t, blocks_of_an_export);
	suite_add_tcase(s, t);
	return s;
}
