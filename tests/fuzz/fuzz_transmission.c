/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * The input is a server in the transmission phase. One byte: structured replies (bit 0), the number
 * of meta contexts (bits 1 and 2, under the numbers 0, 1 and 0xffffffff), the number of requests
 * less one (bits 3 and 4), a farewell after them (bit 5). One for how small the pieces are in which
 * bytes move (0: as large as asked for). For each request one for its type (bit 1: BLOCK_STATUS,
 * else CACHE) and two each for its offset, in units of 16 bytes, and its length less one. The rest
 * is the stream itself. It is driven in one piece and in small ones, which must come to the same,
 * within bounds that follow from the stream's length.
 */
#include "fuzz.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "proto/transmission.h"
#include "base/text.h"

enum {
	EXPORT_SIZE = 1 << 20,
	REQUESTS = 4,
};

struct input {
	struct export export;
	struct metactx contexts;
	struct transmission_request request[REQUESTS];
	unsigned requests;
	bool farewell;
	uint8_t pieces;
	const uint8_t *stream;
	size_t size;
};

/* What one drive did. */
struct drive {
	struct transmission q;
	size_t consumed;
	size_t sent;
	uint64_t events; /* hash of all events */
	enum transmission_want end;
	unsigned asked;
	bool answered;              /* the last request asked is answered */
	uint64_t next[METACTX_MAX]; /* offset of a context's next extent */
	bool over[METACTX_MAX];
};

static void require(bool ok)
{
	if (!ok)
		abort();
}

static void hash(uint64_t *h, const void *data, size_t len)
{
	const uint8_t *p = data;

	for (size_t i = 0; i < len; i++)
		*h = (*h ^ p[i]) * UINT64_C(0x100000001b3);
}

static void check_safe(const char *s, size_t cap)
{
	size_t len = strnlen(s, cap);

	require(len > 0 && len < cap);
	require(text_is_utf8(s, len));
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)s[i];

		require(c >= 0x20 && c != 0x7f);
		/* U+0080..U+009F */
		require(c != 0xc2 || (unsigned char)s[i + 1] >= 0xa0);
	}
}

static void check_end(struct transmission *q)
{
	const struct transmission_request r = { .type = NBD_CMD_CACHE, .length = 1 };
	struct transmission_buf buf;
	enum transmission_want end = transmission_want(q, &buf);
	struct err before = *transmission_failure(q), e;

	require(end == TRANSMISSION_DONE || end == TRANSMISSION_FAILED);
	if (end == TRANSMISSION_FAILED) {
		require(before.kind == ERR_PROTOCOL || before.kind == ERR_UNREACHABLE);
		require(before.code > 0);
		check_safe(before.text, sizeof(before.text));
	} else {
		require(before.kind == ERR_NONE);
	}
	for (int i = 0; i < 5; i++) {
		require(transmission_want(q, &buf) == end && !buf.len && !buf.in && !buf.out);
		require(!strcmp(before.text, transmission_failure(q)->text));
		require(transmission_ask(q, &r, &e) == -EPIPE);
		if (i == 0)
			transmission_moved(q, 0);
		else if (i == 1)
			transmission_broken(q, 0);
		else if (i == 2)
			transmission_timed_out(q);
		else
			transmission_disconnect(q);
	}
}

static void check_giving_up(const struct drive *d)
{
	static struct transmission copy;
	struct transmission *q = &copy;

	for (int i = 0; i < 3; i++) {
		memcpy(q, &d->q, sizeof(*q));
		if (i == 2)
			transmission_timed_out(q);
		else
			transmission_broken(q, i ? ECONNRESET : 0);
		check_end(q);
	}
}

static void on_event(struct drive *d, const struct input *in, enum transmission_want want,
		     const struct transmission_buf *buf)
{
	const struct transmission_request *r = &in->request[d->asked - 1];
	uint64_t asked = r->offset + r->length;
	struct err e;

	require(!buf->in && !buf->out && !buf->len && !d->answered);
	hash(&d->events, &want, sizeof(want));
	hash(&d->events, &buf->offset, sizeof(buf->offset));
	hash(&d->events, &buf->length, sizeof(buf->length));
	if (want == TRANSMISSION_EXTENT) {
		require(r->type == NBD_CMD_BLOCK_STATUS && buf->context < in->contexts.count);
		require(buf->offset == d->next[buf->context] && buf->offset < asked);
		require(buf->length && buf->length <= EXPORT_SIZE - buf->offset);
		/* nothing after one that went beyond */
		require(!d->over[buf->context]);
		d->next[buf->context] = buf->offset + buf->length;
		d->over[buf->context] = buf->offset + buf->length >= asked;
		hash(&d->events, &buf->flags, sizeof(buf->flags));
		return;
	}
	require(want == TRANSMISSION_REPLY);
	d->answered = true;
	if (buf->error) {
		require(transmission_error(&d->q, &e) == -e.code && e.code > 0);
		require(e.kind == ERR_REFUSED);
		check_safe(e.text, sizeof(e.text));
		hash(&d->events, e.text, strlen(e.text));
	} else if (r->type == NBD_CMD_BLOCK_STATUS) {
		/* each context has advanced */
		for (unsigned c = 0; c < in->contexts.count; c++)
			require(d->next[c] > r->offset);
	}
}

/* The next request that the export takes, or the farewell. */
static void ask_next(struct drive *d, const struct input *in)
{
	bool status = in->export.structured && in->contexts.count;
	struct err e;

	while (d->asked < in->requests) {
		const struct transmission_request *r = &in->request[d->asked++];
		int ret = transmission_ask(&d->q, r, &e);

		require(ret == (r->length <= EXPORT_SIZE - r->offset &&
						(status || r->type != NBD_CMD_BLOCK_STATUS) ?
					0 :
					-EINVAL));
		if (ret)
			continue;
		require(transmission_ask(&d->q, r, &e) == -EBUSY);
		d->answered = false;
		for (unsigned c = 0; c < METACTX_MAX; c++) {
			d->next[c] = r->offset;
			d->over[c] = false;
		}
		return;
	}
	transmission_disconnect(&d->q);
}

/* pieces: 0 for all at once, or the seed of how many bytes move at a time. */
static void run(struct drive *d, const struct input *in, uint8_t pieces)
{
	/* one for each byte, an event for 8 of them at least, and what is sent */
	size_t steps = 0, limit = 2 * in->size + (REQUESTS + 1) * WIRE_REQUEST_SIZE + 64;

	memset(d, 0, sizeof(*d));
	transmission_init(&d->q, &in->export, &in->contexts);
	d->answered = true;
	for (;;) {
		struct transmission_buf buf;
		enum transmission_want want = transmission_want(&d->q, &buf);
		size_t len = buf.len;

		d->end = want;
		require(++steps <= limit);
		if (pieces) {
			if (len > pieces)
				len = pieces;
			pieces = (uint8_t)(pieces * 5 + 1);
			if (!pieces)
				pieces = 1;
		}
		switch (want) {
		case TRANSMISSION_READ:
			require(len > 0 && buf.in && !buf.out);
			require(buf.in >= d->q.in && buf.in + buf.len <= d->q.in + sizeof(d->q.in));
			if (len > in->size - d->consumed)
				len = in->size - d->consumed;
			if (!len) {
				check_giving_up(d);
				return;
			}
			memcpy(buf.in, in->stream + d->consumed, len);
			d->consumed += len;
			break;
		case TRANSMISSION_WRITE:
			require(len > 0 && buf.out && !buf.in);
			d->sent += len;
			require(d->sent <= (in->requests + 1) * (size_t)WIRE_REQUEST_SIZE);
			break;
		case TRANSMISSION_IDLE:
			require(d->answered);
			if (d->asked == in->requests && !in->farewell) {
				check_giving_up(d);
				return;
			}
			ask_next(d, in);
			continue;
		case TRANSMISSION_DONE:
		case TRANSMISSION_FAILED:
			check_end(&d->q);
			return;
		default:
			on_event(d, in, want, &buf);
			break;
		}
		if (steps % 2048 == 0)
			check_giving_up(d);
		transmission_moved(&d->q, len);
	}
}

static void check_same(const struct drive *a, const struct drive *b)
{
	require(a->consumed == b->consumed && a->sent == b->sent && a->events == b->events);
	require(a->end == b->end);
	require(!strcmp(transmission_failure(&a->q)->text, transmission_failure(&b->q)->text));
}

static bool take(const uint8_t **data, size_t *size, uint8_t *to, size_t len)
{
	if (*size < len)
		return false;
	memcpy(to, *data, len);
	*data += len;
	*size -= len;
	return true;
}

static bool parse(struct input *in, const uint8_t *data, size_t size)
{
	static const uint32_t ids[] = { 0, 1, UINT32_MAX };
	static const char *const names[] = { "base:allocation", "a:b", "c:d" };
	uint8_t head[2], r[5];
	struct err e;

	if (!take(&data, &size, head, sizeof(head)))
		return false;
	in->export.size = EXPORT_SIZE;
	in->export.structured = head[0] & 1;
	for (int i = 0; i < (head[0] >> 1 & 3); i++) {
		require(!metactx_add(&in->contexts, names[i], strlen(names[i]), &e));
		in->contexts.id[i] = ids[i];
	}
	in->requests = 1 + (head[0] >> 3 & 3);
	in->farewell = head[0] & 0x20;
	in->pieces = head[1];
	for (unsigned i = 0; i < in->requests; i++) {
		struct transmission_request *q = &in->request[i];

		if (!take(&data, &size, r, sizeof(r)))
			return false;
		q->type = r[0] & 2 ? NBD_CMD_BLOCK_STATUS : NBD_CMD_CACHE;
		q->offset = 16 * (uint64_t)(r[1] << 8 | r[2]);
		q->length = 1 + (uint32_t)(r[3] << 8 | r[4]);
	}
	in->stream = data;
	in->size = size;
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* On the heap each, so that AddressSanitizer sees the first byte beyond. */
	struct input *in = calloc(1, sizeof(*in));
	struct drive *whole = malloc(sizeof(*whole)), *pieces = malloc(sizeof(*pieces));
	int ret = -1;

	require(in && whole && pieces);
	if (!parse(in, data, size))
		goto out;
	run(whole, in, 0);
	run(pieces, in, in->pieces ? in->pieces : 1);
	check_same(whole, pieces);
	ret = 0;
out:
	free(in);
	free(whole);
	free(pieces);
	return ret;
}
