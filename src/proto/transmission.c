/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "proto/transmission.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"

static void step(struct transmission *q);

/* The next len bytes belong to state; with none to wait for it is handled at once. */
static void expect(struct transmission *q, enum transmission_state state, size_t len)
{
	q->state = state;
	q->want = len;
	q->got = 0;
	if (!len)
		step(q);
}

static void expect_header(struct transmission *q)
{
	expect(q, TRANSMISSION_S_HEADER, WIRE_SIMPLE_REPLY_SIZE);
}

/* Payload of the current chunk: len of what is left of it. */
static void expect_payload(struct transmission *q, enum transmission_state state, uint32_t len)
{
	q->left -= len;
	expect(q, state, len);
}

static uint32_t at_most(uint32_t len, uint32_t limit)
{
	return len < limit ? len : limit;
}

static void end(struct transmission *q)
{
	q->state = TRANSMISSION_S_END;
}

static struct transmission_slot *current(struct transmission *q)
{
	return &q->slot[q->current];
}

/* "Either side MAY initiate a hard disconnect if it detects a violation by the other party" */
static __attribute__((format(printf, 2, 3))) void violation(struct transmission *q, const char *fmt,
							    ...)
{
	char what[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	err_set(&q->failure, ERR_PROTOCOL, EPROTO,
		"the server breaks the NBD protocol: %s; it is broken, and what else it says is not "
		"to be relied on",
		what);
	q->out_len = 0;
	q->out_done = 0;
	end(q);
}

/* --- requests --------------------------------------------------------------------------------- */

static void send_request(struct transmission *q, const struct transmission_request *r,
			 uint64_t cookie)
{
	struct bytes_writer w;

	memmove(q->out, q->out + q->out_done, q->out_len - q->out_done);
	q->out_len -= q->out_done;
	q->out_done = 0;
	bytes_write_init(&w, q->out + q->out_len, sizeof(q->out) - q->out_len);
	wire_put_request(&w, r->flags, r->type, cookie, r->offset, r->length);
	q->out_len += w.len;
}

static uint32_t block(const struct transmission *q)
{
	return q->params.block_min ? q->params.block_min : 1;
}

static uint32_t longest_of(const struct transmission *q, uint16_t type)
{
	if (type != NBD_CMD_READ)
		return UINT32_MAX;
	return q->params.payload_max ? q->params.payload_max : NBD_MAX_BUFFER_SIZE;
}

uint32_t transmission_longest(const struct transmission *q, uint16_t type, uint64_t offset)
{
	uint32_t longest = longest_of(q, type);
	/* no odd ones where it can be helped */
	uint32_t unit = block(q) < 512 && longest >= 512 ? 512 : block(q);

	if (offset >= q->end)
		return 0;
	if (q->end - offset <= longest)
		return (uint32_t)(q->end - offset);
	return longest - longest % unit;
}

/* "Size constraints": what "the client MUST ensure" */
static bool may_be_sent(const struct transmission *q, const struct transmission_request *r)
{
	uint16_t flags = 0;

	switch (r->type) {
	case NBD_CMD_READ:
		flags = q->params.structured ? NBD_CMD_FLAG_DF : 0;
		break;
	case NBD_CMD_CACHE:
		break;
	case NBD_CMD_BLOCK_STATUS:
		flags = NBD_CMD_FLAG_REQ_ONE;
		if (!q->params.structured || !q->params.contexts.count)
			return false;
		break;
	default:
		return false;
	}
	return !(r->flags & ~flags) && r->length && r->length <= longest_of(q, r->type) &&
	       r->offset < q->end && r->length <= q->end - r->offset && r->offset % block(q) == 0 &&
	       r->length % block(q) == 0;
}

int transmission_ask(struct transmission *q, const struct transmission_request *r, struct err *e)
{
	if (q->state == TRANSMISSION_S_END || q->disconnecting)
		return err_set(e, ERR_FAILED, EPIPE, "the connection has been ended");
	if (!may_be_sent(q, r))
		return err_set(
			e, ERR_FAILED, EINVAL,
			"a request of type %u for %u bytes at %llu with flags 0x%x does not suit the export",
			r->type, r->length, (unsigned long long)r->offset, r->flags);
	for (unsigned i = 0; i < TRANSMISSION_REQUESTS; i++) {
		struct transmission_slot *s = &q->slot[i];

		if (s->used)
			continue;
		memset(s, 0, sizeof(*s));
		s->used = true;
		s->request = *r;
		s->cookie = ++q->cookies;
		q->under_way++;
		send_request(q, r, s->cookie);
		return (int)i;
	}
	return err_set(e, ERR_FAILED, EBUSY, "%d requests are under way already",
		       TRANSMISSION_REQUESTS);
}

static void farewell(struct transmission *q)
{
	const struct transmission_request disc = { .type = NBD_CMD_DISC };

	send_request(q, &disc, ++q->cookies);
	end(q);
}

/* "SHOULD wait until there are no inflight requests first" */
void transmission_disconnect(struct transmission *q)
{
	if (q->disconnecting || q->state == TRANSMISSION_S_END)
		return;
	q->disconnecting = true;
	if (!q->under_way)
		farewell(q);
}

/* --- replies ---------------------------------------------------------------------------------- */

static const char *request_name(const struct transmission_slot *s)
{
	switch (s->request.type) {
	case NBD_CMD_READ:
		return "NBD_CMD_READ";
	case NBD_CMD_CACHE:
		return "NBD_CMD_CACHE";
	default:
		return "NBD_CMD_BLOCK_STATUS";
	}
}

/* The reply is complete. */
static void on_done(struct transmission *q)
{
	struct transmission_slot *s = current(q);
	const struct transmission_request *r = &s->request;

	/* "When no error is detected, the server MUST send enough data chunks to cover the entire region" */
	if (!s->error && r->type == NBD_CMD_READ &&
	    (s->ranges != 1 || s->range[0].end - s->range[0].begin != r->length)) {
		violation(q, "a reply to NBD_CMD_READ lacks a part of the data");
		return;
	}
	/* "containing exactly one chunk of type NBD_REPLY_TYPE_BLOCK_STATUS per selected context id" */
	for (unsigned i = 0; i < q->params.contexts.count; i++) {
		if (s->error || r->type != NBD_CMD_BLOCK_STATUS || s->described[i])
			continue;
		violation(q, "a reply to NBD_CMD_BLOCK_STATUS lacks one of the meta contexts");
		return;
	}
	q->state = TRANSMISSION_S_REPLY_EVENT;
}

static void chunk_ends(struct transmission *q)
{
	if (q->flags & NBD_REPLY_FLAG_DONE)
		on_done(q);
	else
		expect_header(q);
}

/* Of two errors the first has more to do with the cause. */
static void take_error(struct transmission_slot *s, uint32_t error, const void *text, size_t len)
{
	if (s->error)
		return;
	s->error = error;
	text_escape(s->text, sizeof(s->text), text, len);
}

/*
 * Notes what has come of a read. False when a part of it has come before; a mere mark (of the place of an error)
 * may lie anywhere.
 */
static bool add_range(struct transmission *q, uint64_t begin, uint64_t stop, bool mark)
{
	struct transmission_slot *s = current(q);
	struct transmission_range *r = s->range;
	unsigned i = 0, merged;

	while (i < s->ranges && r[i].end < begin)
		i++;
	/* r[i] is the first to touch or follow */
	for (unsigned j = i; j < s->ranges && r[j].begin < stop; j++)
		if (r[j].end > begin)
			return mark;
	merged = i;
	while (merged < s->ranges && r[merged].begin <= stop)
		merged++;
	if (merged > i) {
		r[i].begin = begin < r[i].begin ? begin : r[i].begin;
		r[i].end = stop > r[merged - 1].end ? stop : r[merged - 1].end;
		memmove(&r[i + 1], &r[merged], (s->ranges - merged) * sizeof(*r));
		s->ranges -= merged - i - 1;
		return true;
	}
	if (s->ranges == TRANSMISSION_RANGES)
		return mark;
	memmove(&r[i + 1], &r[i], (s->ranges - i) * sizeof(*r));
	r[i] = (struct transmission_range){ begin, stop };
	s->ranges++;
	return true;
}

/* A content chunk has to lie within the request and apart from all before. */
static bool take_content(struct transmission *q, uint64_t offset, uint32_t len)
{
	struct transmission_slot *s = current(q);
	const struct transmission_request *r = &s->request;

	if (offset < r->offset || len > r->length || offset - r->offset > r->length - len) {
		violation(q, "%u bytes at %llu in reply to a read of %u at %llu", len,
			  (unsigned long long)offset, r->length, (unsigned long long)r->offset);
		return false;
	}
	if (s->contents++ && r->flags & NBD_CMD_FLAG_DF) {
		violation(
			q,
			"the data of a read that was not to be fragmented comes in several chunks");
		return false;
	}
	if (!add_range(q, offset, offset + len, false)) {
		violation(
			q,
			s->ranges == TRANSMISSION_RANGES ?
				"the data of a read comes in more than 64 stretches apart from each other" :
				"the chunks of a read overlap");
		return false;
	}
	q->offset = offset;
	return true;
}

static void expect_data(struct transmission *q)
{
	expect_payload(q, TRANSMISSION_S_DATA, at_most(q->left, TRANSMISSION_PIECE));
}

static bool find_slot(struct transmission *q, uint64_t cookie)
{
	for (unsigned i = 0; i < TRANSMISSION_REQUESTS; i++) {
		if (!q->slot[i].used || q->slot[i].cookie != cookie)
			continue;
		q->current = i;
		return true;
	}
	violation(q,
		  "it answers a request (0x%llx) that was not made, or that it has answered before",
		  (unsigned long long)cookie);
	return false;
}

/* "Simple reply message" */
static void on_simple(struct transmission *q, uint32_t error)
{
	struct transmission_slot *s = current(q);
	uint16_t type = s->request.type;

	if (s->begun) {
		violation(q, "a simple reply after structured ones to the same %s",
			  request_name(s));
	} else if (q->params.structured && type == NBD_CMD_READ) {
		violation(
			q,
			"a simple reply to NBD_CMD_READ, although structured ones were agreed on");
	} else if (error) {
		take_error(s, error, "", 0);
		q->state = TRANSMISSION_S_REPLY_EVENT;
	} else if (type == NBD_CMD_BLOCK_STATUS) {
		violation(q, "a simple reply without an error to NBD_CMD_BLOCK_STATUS");
	} else if (type == NBD_CMD_READ) {
		q->left = s->request.length;
		if (take_content(q, s->request.offset, s->request.length))
			expect_data(q);
	} else {
		q->state = TRANSMISSION_S_REPLY_EVENT;
	}
}

static void on_header(struct transmission *q)
{
	struct bytes_reader r;
	uint32_t magic, error;
	uint64_t cookie;

	bytes_read_init(&r, q->in, q->got);
	magic = bytes_get_u32(&r);
	if (magic == NBD_SIMPLE_REPLY_MAGIC) {
		q->structured = false;
		error = bytes_get_u32(&r);
		cookie = bytes_get_u64(&r);
		if (find_slot(q, cookie))
			on_simple(q, error);
	} else if (magic == NBD_STRUCTURED_REPLY_MAGIC && q->params.structured) {
		q->structured = true;
		q->flags = bytes_get_u16(&r);
		q->type = bytes_get_u16(&r);
		cookie = bytes_get_u64(&r);
		if (find_slot(q, cookie))
			expect(q, TRANSMISSION_S_CHUNK_REST,
			       WIRE_STRUCTURED_REPLY_SIZE - WIRE_SIMPLE_REPLY_SIZE);
	} else {
		violation(q, "a reply begins with 0x%08x%s", magic,
			  magic == NBD_STRUCTURED_REPLY_MAGIC ?
				  ", a structured one, which was not agreed on" :
				  "");
	}
}

static void wrong_length(struct transmission *q, const char *what)
{
	violation(q, "%s of %u bytes in reply to %s", what, q->left, request_name(current(q)));
}

static void on_error_chunk(struct transmission *q)
{
	struct transmission_slot *s = current(q);
	uint32_t least = q->type == NBD_REPLY_TYPE_ERROR_OFFSET ? 14 : 6;

	if (q->left < least || q->left > TRANSMISSION_MAX_ERROR_LENGTH)
		wrong_length(q, "an error chunk");
	else if (++s->errors > TRANSMISSION_MAX_ERRORS)
		violation(q, "more than %d error chunks in a reply", TRANSMISSION_MAX_ERRORS);
	else
		expect_payload(q, TRANSMISSION_S_ERROR, 6);
}

static void on_status_chunk(struct transmission *q)
{
	const struct transmission_request *r = &current(q)->request;

	if (q->left < 4 + 8 || (q->left - 4) % 8 || (q->left - 4) / 8 > TRANSMISSION_MAX_EXTENTS)
		wrong_length(q, "a block status");
	else if (r->flags & NBD_CMD_FLAG_REQ_ONE && q->left > 4 + 8)
		violation(q, "more than one extent, although only one was asked for");
	else
		expect_payload(q, TRANSMISSION_S_CONTEXT, 4);
}

/* "Structured reply types": length and kind, each where it may come. */
static void on_chunk_rest(struct transmission *q)
{
	struct transmission_slot *s = current(q);
	uint16_t type = s->request.type;
	struct bytes_reader r;

	bytes_read_init(&r, q->in, q->got);
	q->left = bytes_get_u32(&r);
	s->begun = true;
	if (q->type == NBD_REPLY_TYPE_NONE) {
		if (q->left)
			wrong_length(q, "NBD_REPLY_TYPE_NONE");
		else if (!(q->flags & NBD_REPLY_FLAG_DONE))
			violation(q, "NBD_REPLY_TYPE_NONE without NBD_REPLY_FLAG_DONE");
		else
			chunk_ends(q);
	} else if (q->type & NBD_REPLY_ERR(0)) {
		on_error_chunk(q);
	} else if (q->type == NBD_REPLY_TYPE_OFFSET_DATA && type == NBD_CMD_READ) {
		if (q->left < 8 + 1)
			wrong_length(q, "NBD_REPLY_TYPE_OFFSET_DATA");
		else
			expect_payload(q, TRANSMISSION_S_DATA_OFFSET, 8);
	} else if (q->type == NBD_REPLY_TYPE_OFFSET_HOLE && type == NBD_CMD_READ) {
		if (q->left != 12)
			wrong_length(q, "NBD_REPLY_TYPE_OFFSET_HOLE");
		else
			expect_payload(q, TRANSMISSION_S_HOLE, 12);
	} else if (q->type == NBD_REPLY_TYPE_BLOCK_STATUS && type == NBD_CMD_BLOCK_STATUS) {
		on_status_chunk(q);
	} else {
		violation(q, "a chunk of type %u in reply to %s", q->type, request_name(s));
	}
}

static void on_data_offset(struct transmission *q)
{
	struct bytes_reader r;

	bytes_read_init(&r, q->in, q->got);
	if (take_content(q, bytes_get_u64(&r), q->left))
		expect_data(q);
}

static void on_data(struct transmission *q)
{
	q->length = (uint32_t)q->got;
	q->state = TRANSMISSION_S_DATA_EVENT;
}

static void data_used(struct transmission *q)
{
	q->offset += q->length;
	if (q->left)
		expect_data(q);
	else if (q->structured)
		chunk_ends(q);
	else
		on_done(q);
}

static void on_hole(struct transmission *q)
{
	struct bytes_reader r;
	uint64_t offset;

	bytes_read_init(&r, q->in, q->got);
	offset = bytes_get_u64(&r);
	q->length = bytes_get_u32(&r);
	if (!q->length)
		violation(q, "a hole of no bytes");
	else if (take_content(q, offset, q->length))
		q->state = TRANSMISSION_S_HOLE_EVENT;
}

static void expect_extents(struct transmission *q)
{
	expect_payload(q, TRANSMISSION_S_EXTENTS, at_most(q->left, TRANSMISSION_PIECE));
}

static void on_context(struct transmission *q)
{
	const struct metactx *c = &q->params.contexts;
	struct transmission_slot *s = current(q);
	struct bytes_reader r;
	uint32_t id;

	bytes_read_init(&r, q->in, q->got);
	id = bytes_get_u32(&r);
	for (q->context = 0; q->context < c->count; q->context++)
		if (c->id[q->context] == id)
			break;
	if (q->context == c->count) {
		violation(q, "a block status for meta context number %u, which was not agreed on",
			  id);
		return;
	}
	if (s->described[q->context]) {
		violation(q, "two block statuses for one meta context in one reply");
		return;
	}
	s->described[q->context] = true;
	q->offset = s->request.offset;
	expect_extents(q);
}

/*
 * "the sum of the length fields of the first N-1 extents (if any) MUST be less than the requested length, while
 * the length of the final extent MAY result in a sum larger"; what is beyond the export is of no interest.
 */
static void next_extent(struct transmission *q)
{
	const struct transmission_request *r = &current(q)->request;
	bool last = !q->left && q->at + 8 == q->got;
	uint64_t asked = r->offset + r->length;
	struct bytes_reader reader;

	bytes_read_init(&reader, q->in + q->at, 8);
	q->length = bytes_get_u32(&reader);
	q->extent_flags = bytes_get_u32(&reader);
	if (!q->length) {
		violation(q, "an extent of no bytes at %llu", (unsigned long long)q->offset);
	} else if (!last && q->length >= asked - q->offset) {
		violation(q, "extents go on beyond the %u bytes at %llu that were asked for",
			  r->length, (unsigned long long)r->offset);
	} else if (r->flags & NBD_CMD_FLAG_REQ_ONE && q->length > r->length) {
		violation(q, "an extent of %u bytes when %u at most were asked for", q->length,
			  r->length);
	} else {
		if (q->length > q->params.size - q->offset)
			q->length = (uint32_t)(q->params.size - q->offset);
		q->state = TRANSMISSION_S_EXTENT_EVENT;
	}
}

static void on_extents(struct transmission *q)
{
	q->at = 0;
	next_extent(q);
}

static void extent_used(struct transmission *q)
{
	q->offset += q->length;
	q->at += 8;
	if (q->at < q->got)
		next_extent(q);
	else if (q->left)
		expect_extents(q);
	else
		chunk_ends(q);
}

static void on_error(struct transmission *q)
{
	uint32_t after = q->type == NBD_REPLY_TYPE_ERROR_OFFSET ? 8 : 0;
	struct bytes_reader r;
	uint32_t message;

	bytes_read_init(&r, q->in, q->got);
	q->length = bytes_get_u32(&r);
	message = bytes_get_u16(&r);
	if (!q->length)
		violation(q, "an error chunk without an error");
	else if (message > NBD_MAX_STRING || message + after > q->left)
		violation(q, "an error chunk with %u bytes left and a text of %u", q->left,
			  message);
	else
		expect_payload(q, TRANSMISSION_S_ERROR_TEXT, message);
}

static void expect_error_skip(struct transmission *q)
{
	expect_payload(q, TRANSMISSION_S_ERROR_SKIP, at_most(q->left, TRANSMISSION_PIECE));
}

static void on_error_text(struct transmission *q)
{
	take_error(current(q), q->length, q->in, q->got);
	if (q->type == NBD_REPLY_TYPE_ERROR_OFFSET)
		expect_payload(q, TRANSMISSION_S_ERROR_OFFSET, 8);
	else
		expect_error_skip(q);
}

static void on_error_offset(struct transmission *q)
{
	const struct transmission_request *rq = &current(q)->request;
	struct bytes_reader r;
	uint64_t offset;

	bytes_read_init(&r, q->in, q->got);
	offset = bytes_get_u64(&r);
	if (offset < rq->offset || offset - rq->offset >= rq->length) {
		violation(q, "an error at %llu in reply to %s of %u bytes at %llu",
			  (unsigned long long)offset, request_name(current(q)), rq->length,
			  (unsigned long long)rq->offset);
		return;
	}
	/* no data may come for it later */
	if (rq->type == NBD_CMD_READ)
		add_range(q, offset, offset + 1, true);
	expect_error_skip(q);
}

static void on_error_skip(struct transmission *q)
{
	if (q->left)
		expect_error_skip(q);
	else
		chunk_ends(q);
}

static void step(struct transmission *q)
{
	static void (*const handlers[])(struct transmission *) = {
		[TRANSMISSION_S_HEADER] = on_header,
		[TRANSMISSION_S_CHUNK_REST] = on_chunk_rest,
		[TRANSMISSION_S_DATA_OFFSET] = on_data_offset,
		[TRANSMISSION_S_DATA] = on_data,
		[TRANSMISSION_S_HOLE] = on_hole,
		[TRANSMISSION_S_CONTEXT] = on_context,
		[TRANSMISSION_S_EXTENTS] = on_extents,
		[TRANSMISSION_S_ERROR] = on_error,
		[TRANSMISSION_S_ERROR_TEXT] = on_error_text,
		[TRANSMISSION_S_ERROR_OFFSET] = on_error_offset,
		[TRANSMISSION_S_ERROR_SKIP] = on_error_skip,
	};

	handlers[q->state](q);
}

static void reply_used(struct transmission *q)
{
	current(q)->used = false;
	q->under_way--;
	if (q->disconnecting && !q->under_way)
		farewell(q);
	else
		expect_header(q);
}

/* --- the loop --------------------------------------------------------------------------------- */

void transmission_params(struct transmission_params *p, const struct export *x,
			 const struct metactx *c)
{
	memset(p, 0, sizeof(*p));
	p->size = x->size;
	p->structured = x->structured;
	if (x->has_block_size) {
		p->block_min = x->block_min;
		p->payload_max = x->payload_max;
	}
	if (c)
		p->contexts = *c;
}

void transmission_init(struct transmission *q, const struct transmission_params *p)
{
	memset(q, 0, sizeof(*q));
	q->params = *p;
	if (q->params.contexts.count > METACTX_MAX)
		q->params.contexts.count = METACTX_MAX;
	q->end = p->size - p->size % block(q);
	expect_header(q);
}

enum transmission_want transmission_want(struct transmission *q, struct transmission_buf *buf)
{
	static const struct {
		enum transmission_state state;
		enum transmission_want want;
	} events[] = {
		{ TRANSMISSION_S_EXTENT_EVENT, TRANSMISSION_EXTENT },
		{ TRANSMISSION_S_DATA_EVENT, TRANSMISSION_DATA },
		{ TRANSMISSION_S_HOLE_EVENT, TRANSMISSION_HOLE },
		{ TRANSMISSION_S_REPLY_EVENT, TRANSMISSION_REPLY },
	};

	memset(buf, 0, sizeof(*buf));
	/* before anything is written, so that what was seen is consumed, whatever is asked for meanwhile */
	for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
		if (events[i].state != q->state)
			continue;
		buf->request = q->current;
		if (q->state == TRANSMISSION_S_REPLY_EVENT) {
			buf->error = current(q)->error;
			return TRANSMISSION_REPLY;
		}
		buf->offset = q->offset;
		buf->length = q->length;
		if (q->state == TRANSMISSION_S_EXTENT_EVENT) {
			buf->context = q->context;
			buf->flags = q->extent_flags;
		} else if (q->state == TRANSMISSION_S_DATA_EVENT) {
			buf->data = q->in;
		}
		return events[i].want;
	}
	if (q->out_done < q->out_len) {
		buf->out = q->out + q->out_done;
		buf->len = q->out_len - q->out_done;
		return TRANSMISSION_WRITE;
	}
	if (q->state == TRANSMISSION_S_END)
		return q->failure.kind == ERR_NONE ? TRANSMISSION_DONE : TRANSMISSION_FAILED;
	if (!q->under_way)
		return TRANSMISSION_IDLE;
	buf->in = q->in + q->got;
	buf->len = q->want - q->got;
	return TRANSMISSION_READ;
}

void transmission_moved(struct transmission *q, size_t len)
{
	switch (q->state) {
	case TRANSMISSION_S_EXTENT_EVENT:
		extent_used(q);
		return;
	case TRANSMISSION_S_DATA_EVENT:
		data_used(q);
		return;
	case TRANSMISSION_S_HOLE_EVENT:
		chunk_ends(q);
		return;
	case TRANSMISSION_S_REPLY_EVENT:
		reply_used(q);
		return;
	default:
		break;
	}
	if (q->out_done < q->out_len) {
		q->out_done += len;
	} else if (q->state != TRANSMISSION_S_END) {
		q->got += len;
		if (q->got == q->want)
			step(q);
	}
}

/* Nothing is lost when a server does not wait for the farewell. */
static bool only_farewell_is_left(struct transmission *q)
{
	bool over = q->state == TRANSMISSION_S_END;

	q->out_len = 0;
	q->out_done = 0;
	end(q);
	return over;
}

void transmission_broken(struct transmission *q, int code)
{
	struct err *e = &q->failure;

	if (only_farewell_is_left(q))
		return;
	if (code)
		err_sys(e, ERR_UNREACHABLE, code,
			"the connection broke with %u requests unanswered", q->under_way);
	else
		err_set(e, ERR_UNREACHABLE, ECONNRESET,
			"the server closed the connection with %u requests unanswered; see the "
			"server's log",
			q->under_way);
}

void transmission_timed_out(struct transmission *q)
{
	if (only_farewell_is_left(q))
		return;
	err_set(&q->failure, ERR_UNREACHABLE, ETIMEDOUT,
		"the server did not answer in time, %u requests are waiting; it hangs or is overloaded",
		q->under_way);
}

/* "Error values"; for others "as if it had been NBD_EINVAL" */
static const struct {
	uint32_t error;
	int code;
	const char *text;
} errors[] = {
	{ NBD_EINVAL, EINVAL, "it takes the request for invalid (NBD_EINVAL); see its log" },
	{ NBD_EPERM, EPERM, "it does not permit that (NBD_EPERM); check its access rules" },
	{ NBD_EIO, EIO, "an input or output error on its side (NBD_EIO); see its log" },
	{ NBD_ENOMEM, ENOMEM, "it is out of memory (NBD_ENOMEM); try again later" },
	{ NBD_ENOSPC, ENOSPC, "it is out of space (NBD_ENOSPC); see its log" },
	{ NBD_EOVERFLOW, EOVERFLOW,
	  "the request is too large for it (NBD_EOVERFLOW); see its log" },
	{ NBD_ENOTSUP, EOPNOTSUPP,
	  "it does not support that (NBD_ENOTSUP); another server is needed" },
	{ NBD_ESHUTDOWN, ESHUTDOWN,
	  "it is shutting down (NBD_ESHUTDOWN); try again when it is back" },
};

int transmission_error(const struct transmission *q, struct err *e)
{
	const struct transmission_slot *s = &q->slot[q->current];
	const struct transmission_request *r = &s->request;
	const char *text = "an error that this client does not know; see its log";
	char number[32] = "";
	int code = EINVAL;
	bool known = false;

	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		if (errors[i].error != s->error)
			continue;
		text = errors[i].text;
		code = errors[i].code;
		known = true;
	}
	if (!known)
		snprintf(number, sizeof(number), " %u:", s->error);
	return err_set(e, ERR_REFUSED, code,
		       "the server answers %s of %u bytes at %llu with an error:%s %s%s%s%s",
		       request_name(s), r->length, (unsigned long long)r->offset, number, text,
		       s->text[0] ? "; it says: \"" : "", s->text, s->text[0] ? "\"" : "");
}

const struct err *transmission_failure(const struct transmission *q)
{
	return &q->failure;
}
