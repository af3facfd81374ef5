/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "proto/transmission.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"

static void transmission_step(struct transmission *t);

/* Waits for the next len bytes in the given state; 0 bytes are handled at once. */
static void transmission_expect(struct transmission *t, enum transmission_state state, size_t len)
{
	t->state = state;
	t->want = len;
	t->got = 0;
	if (!len)
		transmission_step(t);
}

static void expect_header(struct transmission *t)
{
	transmission_expect(t, TRANSMISSION_S_HEADER, WIRE_SIMPLE_REPLY_SIZE);
}

/* Waits for the next len bytes of the current chunk's payload. */
static void expect_chunk(struct transmission *t, enum transmission_state state, uint32_t len)
{
	t->left -= len;
	transmission_expect(t, state, len);
}

/* Waits for the rest of the current chunk's payload, or as much of it as fits the buffer. */
static void expect_chunk_rest(struct transmission *t, enum transmission_state state)
{
	expect_chunk(t, state, t->left < sizeof(t->in) ? t->left : (uint32_t)sizeof(t->in));
}

/* Nothing more is sent or read. */
static void end_transmission(struct transmission *t)
{
	t->out_len = 0;
	t->out_done = 0;
	t->state = TRANSMISSION_S_END;
}

/* "Either side MAY initiate a hard disconnect if it detects a violation by the other party" */
static __attribute__((format(printf, 2, 3))) void transmission_violation(struct transmission *t,
									 const char *fmt, ...)
{
	char what[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	err_set(&t->failure, ERR_PROTOCOL, EPROTO,
		"the server breaks the NBD protocol: %s; it is broken, and what else it says is not "
		"to be relied on",
		what);
	end_transmission(t);
}

/* --- requests --------------------------------------------------------------------------------- */

static void send_request(struct transmission *t, const struct transmission_request *r)
{
	struct bytes_writer w;

	bytes_write_init(&w, t->out + t->out_len, sizeof(t->out) - t->out_len);
	wire_put_request(&w, 0, r->type, ++t->cookie, r->offset, r->length);
	t->out_len += w.len;
}

uint32_t transmission_longest(const struct transmission *t, uint64_t offset)
{
	/* Multiples of 512 even where the server allows smaller blocks */
	uint32_t unit = t->block < 512 ? 512 : t->block;

	if (offset >= t->end)
		return 0;
	if (t->end - offset <= UINT32_MAX)
		return (uint32_t)(t->end - offset);
	return UINT32_MAX - UINT32_MAX % unit;
}

/* "Size constraints" */
static bool may_be_sent(const struct transmission *t, const struct transmission_request *r)
{
	bool status = r->type == NBD_CMD_BLOCK_STATUS && t->structured && t->contexts.count;

	return (status || r->type == NBD_CMD_CACHE) && r->length && r->offset < t->end &&
	       r->length <= t->end - r->offset && r->offset % t->block == 0 &&
	       r->length % t->block == 0;
}

int transmission_ask(struct transmission *t, const struct transmission_request *r, struct err *e)
{
	if (t->state == TRANSMISSION_S_END)
		return err_set(e, ERR_FAILED, EPIPE, "the connection has been ended");
	if (t->state != TRANSMISSION_S_IDLE && t->state != TRANSMISSION_S_REPLY_EVENT)
		return err_set(e, ERR_FAILED, EBUSY, "a request is unanswered");
	if (!may_be_sent(t, r))
		return err_set(e, ERR_FAILED, EINVAL,
			       "a request of type %u for %u bytes at %llu does not suit the export",
			       r->type, r->length, (unsigned long long)r->offset);
	t->request = *r;
	memset(&t->reply, 0, sizeof(t->reply));
	send_request(t, r);
	expect_header(t);
	return 0;
}

void transmission_disconnect(struct transmission *t)
{
	const struct transmission_request disc = { .type = NBD_CMD_DISC };

	if (t->state == TRANSMISSION_S_END)
		return;
	send_request(t, &disc);
	t->state = TRANSMISSION_S_END;
}

/* --- replies ---------------------------------------------------------------------------------- */

static const char *request_name(const struct transmission *t)
{
	return t->request.type == NBD_CMD_CACHE ? "NBD_CMD_CACHE" : "NBD_CMD_BLOCK_STATUS";
}

/* "exactly one chunk of type NBD_REPLY_TYPE_BLOCK_STATUS per selected context id" */
static void on_reply_end(struct transmission *t)
{
	bool status = t->request.type == NBD_CMD_BLOCK_STATUS && !t->reply.error;

	for (unsigned i = 0; status && i < t->contexts.count; i++) {
		if (t->reply.described[i])
			continue;
		transmission_violation(
			t, "a reply to NBD_CMD_BLOCK_STATUS lacks one of the meta contexts");
		return;
	}
	t->state = TRANSMISSION_S_REPLY_EVENT;
}

static void on_chunk_end(struct transmission *t)
{
	if (t->flags & NBD_REPLY_FLAG_DONE)
		on_reply_end(t);
	else
		expect_header(t);
}

/* The first of several errors has more to do with the cause. */
static void keep_first_error(struct transmission *t, uint32_t error, const void *text, size_t len)
{
	struct transmission_reply *reply = &t->reply;

	if (reply->error)
		return;
	reply->error = error;
	text_escape(reply->text, sizeof(reply->text), text, len);
}

static bool is_answer(struct transmission *t, uint64_t cookie)
{
	if (cookie == t->cookie)
		return true;
	transmission_violation(
		t,
		"it answers a request (0x%llx) that was not made, or that it has answered before",
		(unsigned long long)cookie);
	return false;
}

/* "Simple reply message" */
static void on_simple_reply(struct transmission *t, uint32_t error)
{
	if (t->reply.structured) {
		transmission_violation(t, "a simple reply after structured ones to the same %s",
				       request_name(t));
	} else if (!error && t->request.type == NBD_CMD_BLOCK_STATUS) {
		transmission_violation(t,
				       "a simple reply without an error to NBD_CMD_BLOCK_STATUS");
	} else {
		keep_first_error(t, error, "", 0);
		t->state = TRANSMISSION_S_REPLY_EVENT;
	}
}

static void on_reply_header(struct transmission *t)
{
	struct bytes_reader r;
	uint32_t magic, error;

	bytes_read_init(&r, t->in, t->got);
	magic = bytes_get_u32(&r);
	if (magic == NBD_SIMPLE_REPLY_MAGIC) {
		error = bytes_get_u32(&r);
		if (is_answer(t, bytes_get_u64(&r)))
			on_simple_reply(t, error);
	} else if (magic == NBD_STRUCTURED_REPLY_MAGIC && t->structured) {
		t->flags = bytes_get_u16(&r);
		t->type = bytes_get_u16(&r);
		if (is_answer(t, bytes_get_u64(&r)))
			transmission_expect(t, TRANSMISSION_S_CHUNK_REST,
					    WIRE_STRUCTURED_REPLY_SIZE - WIRE_SIMPLE_REPLY_SIZE);
	} else {
		transmission_violation(t, "a reply begins with 0x%08x%s", magic,
				       magic == NBD_STRUCTURED_REPLY_MAGIC ?
					       ", a structured one, which was not agreed on" :
					       "");
	}
}

static void wrong_length(struct transmission *t, const char *what)
{
	transmission_violation(t, "%s of %u bytes in reply to %s", what, t->left, request_name(t));
}

static void on_error_header(struct transmission *t)
{
	uint32_t least = t->type == NBD_REPLY_TYPE_ERROR_OFFSET ? 14 : 6;

	if (t->left < least || t->left > TRANSMISSION_MAX_ERROR_LENGTH)
		wrong_length(t, "an error chunk");
	else if (++t->reply.errors > TRANSMISSION_MAX_ERRORS)
		transmission_violation(t, "more than %d error chunks in a reply",
				       TRANSMISSION_MAX_ERRORS);
	else
		expect_chunk(t, TRANSMISSION_S_ERROR, 6);
}

static void on_status_header(struct transmission *t)
{
	if (t->left < 4 + 8 || (t->left - 4) % 8 || (t->left - 4) / 8 > TRANSMISSION_MAX_EXTENTS)
		wrong_length(t, "a block status");
	else
		expect_chunk(t, TRANSMISSION_S_CONTEXT, 4);
}

/* "Structured reply types" */
static void on_chunk_header(struct transmission *t)
{
	struct bytes_reader r;

	bytes_read_init(&r, t->in, t->got);
	t->left = bytes_get_u32(&r);
	t->reply.structured = true;
	if (t->type == NBD_REPLY_TYPE_NONE) {
		if (t->left)
			wrong_length(t, "NBD_REPLY_TYPE_NONE");
		else if (!(t->flags & NBD_REPLY_FLAG_DONE))
			transmission_violation(t,
					       "NBD_REPLY_TYPE_NONE without NBD_REPLY_FLAG_DONE");
		else
			on_chunk_end(t);
	} else if (t->type & NBD_REPLY_ERR(0)) {
		on_error_header(t);
	} else if (t->type == NBD_REPLY_TYPE_BLOCK_STATUS &&
		   t->request.type == NBD_CMD_BLOCK_STATUS) {
		on_status_header(t);
	} else {
		transmission_violation(t, "a chunk of type %u in reply to %s", t->type,
				       request_name(t));
	}
}

static void on_context(struct transmission *t)
{
	const struct metactx *c = &t->contexts;
	bool *described;
	struct bytes_reader r;
	uint32_t id;

	bytes_read_init(&r, t->in, t->got);
	id = bytes_get_u32(&r);
	for (t->context = 0; t->context < c->count; t->context++)
		if (c->id[t->context] == id)
			break;
	if (t->context == c->count) {
		transmission_violation(
			t, "a block status for meta context number %u, which was not agreed on",
			id);
		return;
	}
	described = &t->reply.described[t->context];
	if (*described) {
		transmission_violation(t, "two block statuses for one meta context in one reply");
		return;
	}
	*described = true;
	t->offset = t->request.offset;
	expect_chunk_rest(t, TRANSMISSION_S_EXTENTS);
}

/*
 * "the sum of the length fields of the first N-1 extents (if any) MUST be less than the requested
 * length, while the length of the final extent MAY result in a sum larger"; what is beyond the
 * export does not matter.
 */
static void next_extent(struct transmission *t)
{
	const struct transmission_request *r = &t->request;
	bool last = !t->left && t->at + 8 == t->got;
	uint64_t asked = r->offset + r->length;
	struct bytes_reader reader;

	bytes_read_init(&reader, t->in + t->at, 8);
	t->length = bytes_get_u32(&reader);
	t->extent_flags = bytes_get_u32(&reader);
	if (!t->length) {
		transmission_violation(t, "an extent of no bytes at %llu",
				       (unsigned long long)t->offset);
	} else if (!last && t->length >= asked - t->offset) {
		transmission_violation(
			t, "extents go on beyond the %u bytes at %llu that were asked for",
			r->length, (unsigned long long)r->offset);
	} else {
		if (t->length > t->size - t->offset)
			t->length = (uint32_t)(t->size - t->offset);
		t->state = TRANSMISSION_S_EXTENT_EVENT;
	}
}

static void on_extents(struct transmission *t)
{
	t->at = 0;
	next_extent(t);
}

static void extent_used(struct transmission *t)
{
	t->offset += t->length;
	t->at += 8;
	if (t->at < t->got)
		next_extent(t);
	else if (t->left)
		expect_chunk_rest(t, TRANSMISSION_S_EXTENTS);
	else
		on_chunk_end(t);
}

static void on_error_fields(struct transmission *t)
{
	uint32_t after = t->type == NBD_REPLY_TYPE_ERROR_OFFSET ? 8 : 0;
	struct bytes_reader r;
	uint32_t message;

	bytes_read_init(&r, t->in, t->got);
	t->error = bytes_get_u32(&r);
	message = bytes_get_u16(&r);
	if (!t->error)
		transmission_violation(t, "an error chunk without an error");
	else if (message > NBD_MAX_STRING || message + after > t->left)
		transmission_violation(t, "an error chunk with %u bytes left and a text of %u",
				       t->left, message);
	else
		expect_chunk(t, TRANSMISSION_S_ERROR_TEXT, message);
}

static void on_error_chunk_text(struct transmission *t)
{
	keep_first_error(t, t->error, t->in, t->got);
	if (t->type == NBD_REPLY_TYPE_ERROR_OFFSET)
		expect_chunk(t, TRANSMISSION_S_ERROR_OFFSET, 8);
	else
		expect_chunk_rest(t, TRANSMISSION_S_ERROR_SKIP);
}

static void on_error_offset(struct transmission *t)
{
	const struct transmission_request *rq = &t->request;
	struct bytes_reader r;
	uint64_t offset;

	bytes_read_init(&r, t->in, t->got);
	offset = bytes_get_u64(&r);
	if (offset < rq->offset || offset - rq->offset >= rq->length) {
		transmission_violation(t, "an error at %llu in reply to %s of %u bytes at %llu",
				       (unsigned long long)offset, request_name(t), rq->length,
				       (unsigned long long)rq->offset);
		return;
	}
	expect_chunk_rest(t, TRANSMISSION_S_ERROR_SKIP);
}

static void on_error_skip(struct transmission *t)
{
	if (t->left)
		expect_chunk_rest(t, TRANSMISSION_S_ERROR_SKIP);
	else
		on_chunk_end(t);
}

static void transmission_step(struct transmission *t)
{
	static void (*const handlers[])(struct transmission *) = {
		[TRANSMISSION_S_HEADER] = on_reply_header,
		[TRANSMISSION_S_CHUNK_REST] = on_chunk_header,
		[TRANSMISSION_S_CONTEXT] = on_context,
		[TRANSMISSION_S_EXTENTS] = on_extents,
		[TRANSMISSION_S_ERROR] = on_error_fields,
		[TRANSMISSION_S_ERROR_TEXT] = on_error_chunk_text,
		[TRANSMISSION_S_ERROR_OFFSET] = on_error_offset,
		[TRANSMISSION_S_ERROR_SKIP] = on_error_skip,
	};

	handlers[t->state](t);
}

/* --- the loop --------------------------------------------------------------------------------- */

void transmission_init(struct transmission *t, const struct export *x, const struct metactx *c)
{
	memset(t, 0, sizeof(*t));
	t->size = x->size;
	t->block = x->has_block_size && x->block_min ? x->block_min : 1;
	t->end = t->size - t->size % t->block;
	t->structured = x->structured;
	t->contexts = *c;
}

enum transmission_want transmission_want(struct transmission *t, struct transmission_buf *buf)
{
	memset(buf, 0, sizeof(*buf));
	if (t->out_done < t->out_len) {
		buf->out = t->out + t->out_done;
		buf->len = t->out_len - t->out_done;
		return TRANSMISSION_WRITE;
	}
	switch (t->state) {
	case TRANSMISSION_S_IDLE:
		return TRANSMISSION_IDLE;
	case TRANSMISSION_S_EXTENT_EVENT:
		buf->context = t->context;
		buf->offset = t->offset;
		buf->length = t->length;
		buf->flags = t->extent_flags;
		return TRANSMISSION_EXTENT;
	case TRANSMISSION_S_REPLY_EVENT:
		buf->error = t->reply.error;
		return TRANSMISSION_REPLY;
	case TRANSMISSION_S_END:
		return t->failure.kind == ERR_NONE ? TRANSMISSION_DONE : TRANSMISSION_FAILED;
	default:
		buf->in = t->in + t->got;
		buf->len = t->want - t->got;
		return TRANSMISSION_READ;
	}
}

void transmission_moved(struct transmission *t, size_t len)
{
	if (t->out_done < t->out_len) {
		t->out_done += len;
		if (t->out_done == t->out_len)
			t->out_done = t->out_len = 0;
		return;
	}
	switch (t->state) {
	case TRANSMISSION_S_IDLE:
	case TRANSMISSION_S_END:
		break;
	case TRANSMISSION_S_EXTENT_EVENT:
		extent_used(t);
		break;
	case TRANSMISSION_S_REPLY_EVENT:
		t->state = TRANSMISSION_S_IDLE;
		break;
	default:
		t->got += len;
		if (t->got == t->want)
			transmission_step(t);
		break;
	}
}

/*
 * False when it had ended already: nothing is lost with a server that does not wait for
 * NBD_CMD_DISC.
 */
static bool cut_off(struct transmission *t)
{
	bool early = t->state != TRANSMISSION_S_END;

	end_transmission(t);
	return early;
}

void transmission_broken(struct transmission *t, int code)
{
	if (!cut_off(t))
		return;
	if (code)
		err_sys(&t->failure, ERR_UNREACHABLE, code,
			"the connection broke with a request unanswered");
	else
		err_set(&t->failure, ERR_UNREACHABLE, ECONNRESET,
			"the server closed the connection with a request unanswered; see the "
			"server's log");
}

void transmission_timed_out(struct transmission *t)
{
	if (cut_off(t))
		err_set(&t->failure, ERR_UNREACHABLE, ETIMEDOUT,
			"the server did not answer in time; it hangs or is overloaded");
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

int transmission_error(const struct transmission *t, struct err *e)
{
	const struct transmission_request *r = &t->request;
	const char *said = t->reply.text;
	const char *text = "an error that this client does not know; see its log";
	char number[32];
	int code = EINVAL;

	snprintf(number, sizeof(number), " %u:", t->reply.error);
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		if (errors[i].error != t->reply.error)
			continue;
		text = errors[i].text;
		code = errors[i].code;
		number[0] = '\0';
	}
	return err_set(e, ERR_REFUSED, code,
		       "the server answers %s of %u bytes at %llu with an error:%s %s%s%s%s",
		       request_name(t), r->length, (unsigned long long)r->offset, number, text,
		       said[0] ? "; it says: \"" : "", said, said[0] ? "\"" : "");
}

const struct err *transmission_failure(const struct transmission *t)
{
	return &t->failure;
}
