/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "proto/neg.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"

enum {
	ERROR_TEXT_MAX = 512, /* bytes of a server's error text that are shown */
	QUOTED_NAME_MAX = 256,
};

static void neg_step(struct neg *n);

/* Waits for the next len bytes in the given state; 0 bytes are handled at once. */
static void neg_expect(struct neg *n, enum neg_state state, size_t len)
{
	n->state = state;
	n->want = len;
	n->got = 0;
	if (!len)
		neg_step(n);
}

static void expect_reply(struct neg *n)
{
	neg_expect(n, NEG_S_REPLY, WIRE_REPLY_SIZE);
}

/* Waits for the next len bytes of the current reply's payload. */
static void expect_payload(struct neg *n, enum neg_state state, uint32_t len)
{
	n->left -= len;
	neg_expect(n, state, len);
}

/* Waits for the rest of the current reply's payload, or as much of it as fits the buffer. */
static void expect_rest(struct neg *n, enum neg_state state)
{
	expect_payload(n, state, n->left < sizeof(n->in) ? n->left : (uint32_t)sizeof(n->in));
}

/* Nothing more is sent or read. */
static void end_handshake(struct neg *n)
{
	n->out_len = 0;
	n->out_done = 0;
	n->state = NEG_S_END;
}

/* "Termination of the session during option haggling": after a breach a hard disconnect is due. */
static __attribute__((format(printf, 2, 3))) void neg_violation(struct neg *n, const char *fmt, ...)
{
	char what[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	err_set(&n->failure, ERR_PROTOCOL, EPROTO,
		"the server breaks the NBD protocol: %s; it is broken, or no NBD server", what);
	end_handshake(n);
}

/* Appends to what is to be sent, so that the client flags and the first option are one packet. */
static void send_option(struct neg *n, uint32_t option, const struct bytes_writer *payload)
{
	struct bytes_writer w;

	bytes_write_init(&w, n->out + n->out_len, sizeof(n->out) - n->out_len);
	wire_put_option(&w, option, payload ? (uint32_t)payload->len : 0);
	if (payload)
		bytes_put(&w, payload->data, payload->len);
	n->out_len += w.len;
	n->option = option;
	n->replies = 0;
}

static void soft_disconnect(struct neg *n)
{
	end_handshake(n);
	send_option(n, NBD_OPT_ABORT, NULL);
}

static void send_export_name(struct neg *n)
{
	struct bytes_writer name;
	size_t len = strlen(n->params.export);

	bytes_write_init(&name, n->in, sizeof(n->in));
	bytes_put(&name, n->params.export, len);
	send_option(n, NBD_OPT_EXPORT_NAME, &name);
	n->export.by_export_name = true;
	neg_expect(n, NEG_S_EXPORT_NAME, WIRE_EXPORT_NAME_REPLY_SIZE);
}

/* "NBD_OPT_INFO and NBD_OPT_GO": the same data for both. */
static void send_info(struct neg *n, uint32_t option)
{
	static const uint16_t requests[] = {
		NBD_INFO_EXPORT,
		NBD_INFO_NAME,
		NBD_INFO_DESCRIPTION,
		NBD_INFO_BLOCK_SIZE,
	};
	enum { REQUESTS = sizeof(requests) / sizeof(requests[0]) };
	uint8_t data[4 + NBD_MAX_STRING + 2 + 2 * REQUESTS];
	size_t len = strlen(n->params.export);
	struct bytes_writer w;

	bytes_write_init(&w, data, sizeof(data));
	bytes_put_u32(&w, (uint32_t)len);
	bytes_put(&w, n->params.export, len);
	bytes_put_u16(&w, REQUESTS);
	for (size_t i = 0; i < REQUESTS; i++)
		bytes_put_u16(&w, requests[i]);
	send_option(n, option, &w);
	expect_reply(n);
}

/*
 * "NBD_OPT_SET_META_CONTEXT" has the contexts as queries; NBD_OPT_LIST_META_CONTEXT without any
 * lists all.
 */
static void send_contexts(struct neg *n, uint32_t option)
{
	const struct metactx *c = &n->params.contexts;
	unsigned count = option == NBD_OPT_SET_META_CONTEXT ? c->count : 0;
	uint8_t data[4 + NBD_MAX_STRING + 4 + 4 * METACTX_MAX + METACTX_BYTES];
	size_t len = strlen(n->params.export);
	struct bytes_writer w;

	bytes_write_init(&w, data, sizeof(data));
	bytes_put_u32(&w, (uint32_t)len);
	bytes_put(&w, n->params.export, len);
	bytes_put_u32(&w, count);
	for (unsigned i = 0; i < count; i++) {
		const char *name = metactx_name(c, i);

		len = strlen(name);
		bytes_put_u32(&w, (uint32_t)len);
		bytes_put(&w, name, len);
	}
	send_option(n, option, &w);
	expect_reply(n);
}

static void send_plain(struct neg *n, uint32_t option)
{
	send_option(n, option, NULL);
	expect_reply(n);
}

/* "Newstyle negotiation": without "fixed" any option but NBD_OPT_EXPORT_NAME ends the session. */
static void negotiate_unfixed(struct neg *n)
{
	if (n->params.tls) {
		err_set(&n->failure, ERR_TLS, EPROTONOSUPPORT,
			"TLS is required, and the server speaks the unfixed newstyle handshake, "
			"which has none; nothing was sent in plain text");
	} else if (n->params.goal == NEG_GOAL_LIST) {
		err_set(&n->failure, ERR_REFUSED, EOPNOTSUPP,
			"the server speaks the unfixed newstyle handshake, which cannot "
			"list exports");
	} else if (n->params.contexts.count) {
		err_set(&n->failure, ERR_REFUSED, EOPNOTSUPP,
			"the server speaks the unfixed newstyle handshake, which knows no "
			"block status");
	} else {
		send_export_name(n);
		return;
	}
	n->state = NEG_S_END;
}

static void send_first_option(struct neg *n)
{
	if (n->params.tls && !n->tls) {
		send_plain(n, NBD_OPT_STARTTLS);
		return;
	}
	switch (n->params.goal) {
	case NEG_GOAL_GO:
		send_info(n, NBD_OPT_GO);
		break;
	case NEG_GOAL_INFO:
		send_info(n, NBD_OPT_INFO);
		break;
	case NEG_GOAL_LIST:
		send_plain(n, NBD_OPT_LIST);
		break;
	case NEG_GOAL_QUERY:
		send_plain(n, NBD_OPT_STRUCTURED_REPLY);
		break;
	}
}

static void on_greeting(struct neg *n)
{
	struct bytes_reader r;
	uint64_t init, style;
	char shown[4 * WIRE_GREETING_SIZE + 1];

	bytes_read_init(&r, n->in, n->got);
	init = bytes_get_u64(&r);
	style = bytes_get_u64(&r);
	if (init == NBD_INIT_MAGIC && style == NBD_OPTS_MAGIC) {
		neg_expect(n, NEG_S_HANDSHAKE_FLAGS, WIRE_HANDSHAKE_FLAGS_SIZE);
	} else if (init == NBD_INIT_MAGIC && style == NBD_CLISERV_MAGIC) {
		err_set(&n->failure, ERR_PROTOCOL, EPROTONOSUPPORT,
			"the server speaks the oldstyle handshake, which knows no export names and no "
			"errors and is not supported; start it in newstyle mode (nbdkit without -o, "
			"nbd-server 3.10 or later)");
		n->state = NEG_S_END;
	} else {
		text_escape(shown, sizeof(shown), n->in, n->got);
		neg_violation(n, "it greets with \"%s\"", shown);
	}
}

static void on_handshake_flags(struct neg *n)
{
	struct bytes_reader r;
	struct bytes_writer w;
	uint16_t flags;
	uint32_t answer = 0;
	bool fixed;

	bytes_read_init(&r, n->in, n->got);
	flags = bytes_get_u16(&r);
	fixed = flags & NBD_FLAG_FIXED_NEWSTYLE;
	n->no_zeroes = flags & NBD_FLAG_NO_ZEROES;
	if (fixed)
		answer |= NBD_FLAG_C_FIXED_NEWSTYLE;
	if (n->no_zeroes)
		answer |= NBD_FLAG_C_NO_ZEROES;
	bytes_write_init(&w, n->out, sizeof(n->out));
	bytes_put_u32(&w, answer);
	n->out_len = w.len;
	if (fixed)
		send_first_option(n);
	else
		negotiate_unfixed(n);
}

static const char *option_name(const struct neg *n)
{
	return wire_option_name(n->option);
}

/* "It is not an error if [it] does not select any metadata context": for our user it is one. */
static bool all_selected(struct neg *n)
{
	char name[QUOTED_NAME_MAX], export[QUOTED_NAME_MAX];
	const char *missing;

	for (unsigned i = 0; i < n->params.contexts.count; i++) {
		if (n->selected[i])
			continue;
		missing = metactx_name(&n->params.contexts, i);
		text_escape(name, sizeof(name), missing, strlen(missing));
		text_escape(export, sizeof(export), n->params.export, strlen(n->params.export));
		err_set(&n->failure, ERR_REFUSED, ENOENT,
			"the server has no meta context \"%s\" for export \"%s\"; "
			"nbd-attach --info shows which there are",
			name, export);
		return false;
	}
	return true;
}

/* Goes on after the server's final reply to the current option: accepted, or refused. */
static void next_option(struct neg *n, bool accepted)
{
	bool query = n->params.goal == NEG_GOAL_QUERY;

	switch (n->option) {
	case NBD_OPT_STARTTLS:
		n->state = NEG_S_TLS;
		break;
	case NBD_OPT_GO:
		n->transmission = true;
		end_handshake(n);
		break;
	case NBD_OPT_INFO:
		/*
		 * Not before NBD_OPT_INFO: its flags are to be those that attaching sees, and a
		 * server that is surprised by these options has said what matters.
		 */
		n->informed = true;
		send_plain(n, NBD_OPT_STRUCTURED_REPLY);
		break;
	case NBD_OPT_STRUCTURED_REPLY:
		n->export.structured = accepted;
		if (query && !n->params.contexts.count)
			send_info(n, NBD_OPT_GO);
		else if (query)
			send_contexts(n, NBD_OPT_SET_META_CONTEXT);
		else if (accepted)
			send_contexts(n, NBD_OPT_LIST_META_CONTEXT);
		else
			send_plain(n, NBD_OPT_LIST);
		break;
	case NBD_OPT_SET_META_CONTEXT:
		if (all_selected(n))
			send_info(n, NBD_OPT_GO);
		else
			soft_disconnect(n);
		break;
	case NBD_OPT_LIST_META_CONTEXT:
		n->export.has_contexts = accepted;
		send_plain(n, NBD_OPT_LIST);
		break;
	default:
		/* NBD_OPT_LIST: this was the whole list. */
		if (!accepted)
			n->export.listed = EXPORT_LISTED_UNKNOWN;
		else if (n->export.listed == EXPORT_LISTED_UNKNOWN)
			n->export.listed = EXPORT_UNLISTED;
		soft_disconnect(n);
		break;
	}
}

static bool asks_for_export(const struct neg *n)
{
	return n->option == NBD_OPT_GO || n->option == NBD_OPT_INFO;
}

/* The final reply NBD_REP_ACK. */
static void on_ack(struct neg *n)
{
	if (n->reply.length)
		neg_violation(n, "NBD_REP_ACK to %s carries %u bytes", option_name(n),
			      n->reply.length);
	else if (asks_for_export(n) && !n->has_export)
		neg_violation(n, "it accepts %s without NBD_INFO_EXPORT", option_name(n));
	else
		next_option(n, true);
}

/* The only reply type to the current option besides NBD_REP_ACK and errors. */
static uint32_t expected_reply(const struct neg *n)
{
	switch (n->option) {
	case NBD_OPT_LIST:
		return NBD_REP_SERVER;
	case NBD_OPT_STARTTLS:
	case NBD_OPT_STRUCTURED_REPLY:
		return NBD_REP_ACK;
	case NBD_OPT_LIST_META_CONTEXT:
	case NBD_OPT_SET_META_CONTEXT:
		return NBD_REP_META_CONTEXT;
	default:
		return NBD_REP_INFO;
	}
}

static uint32_t replies_limit(const struct neg *n)
{
	switch (n->option) {
	case NBD_OPT_LIST:
		return NEG_MAX_EXPORTS;
	case NBD_OPT_LIST_META_CONTEXT:
		return NEG_MAX_LISTED_CONTEXTS;
	case NBD_OPT_SET_META_CONTEXT:
		return n->params.contexts.count;
	default:
		return NEG_MAX_INFO_REPLIES;
	}
}

static void on_reply(struct neg *n)
{
	struct bytes_reader r;
	struct wire_reply *h = &n->reply;
	uint32_t expected = expected_reply(n);
	uint32_t limit = replies_limit(n);

	bytes_read_init(&r, n->in, n->got);
	wire_get_reply(&r, h);
	if (h->magic != NBD_REP_MAGIC) {
		neg_violation(n, "a reply to %s begins with 0x%016llx", option_name(n),
			      (unsigned long long)h->magic);
		return;
	}
	if (h->option != n->option) {
		neg_violation(n, "it answers option %u when asked for %s", h->option,
			      option_name(n));
		return;
	}
	if (h->length > NEG_MAX_REPLY_LENGTH) {
		neg_violation(n, "a reply to %s of %u bytes, more than the limit of %d",
			      option_name(n), h->length, NEG_MAX_REPLY_LENGTH);
		return;
	}
	n->left = h->length;
	if (h->type == NBD_REP_ACK) {
		on_ack(n);
	} else if (h->type & NBD_REP_ERR(0)) {
		expect_rest(n, NEG_S_ERROR_TEXT);
	} else if (h->type != expected) {
		neg_violation(n, "it answers %s with reply type %u", option_name(n), h->type);
	} else if (++n->replies > limit) {
		neg_violation(n, "more than %u replies to %s", limit, option_name(n));
	} else if (h->type == NBD_REP_INFO) {
		if (h->length < WIRE_INFO_TYPE_SIZE)
			neg_violation(n, "NBD_REP_INFO of %u bytes", h->length);
		else
			expect_payload(n, NEG_S_INFO_TYPE, WIRE_INFO_TYPE_SIZE);
	} else if (h->type == NBD_REP_META_CONTEXT) {
		if (h->length < 4 || h->length - 4 > NBD_MAX_STRING)
			neg_violation(n, "NBD_REP_META_CONTEXT of %u bytes", h->length);
		else
			expect_payload(n, NEG_S_CONTEXT_ID, 4);
	} else {
		if (h->length < 4)
			neg_violation(n, "NBD_REP_SERVER of %u bytes", h->length);
		else
			expect_payload(n, NEG_S_ITEM_NAME_LENGTH, 4);
	}
}

static void on_info_type(struct neg *n)
{
	struct bytes_reader r;

	bytes_read_init(&r, n->in, n->got);
	n->info = bytes_get_u16(&r);
	switch (n->info) {
	case NBD_INFO_EXPORT:
		if (n->reply.length != WIRE_INFO_EXPORT_SIZE) {
			neg_violation(n, "NBD_INFO_EXPORT of %u bytes", n->reply.length);
			return;
		}
		break;
	case NBD_INFO_BLOCK_SIZE:
		if (n->reply.length != WIRE_INFO_BLOCK_SIZE_SIZE) {
			neg_violation(n, "NBD_INFO_BLOCK_SIZE of %u bytes", n->reply.length);
			return;
		}
		break;
	case NBD_INFO_NAME:
		if (n->left > NBD_MAX_STRING) {
			neg_violation(n, "NBD_INFO_NAME of %u bytes", n->reply.length);
			return;
		}
		break;
	case NBD_INFO_DESCRIPTION:
		break;
	default:
		/* "The client MUST ignore information replies it does not understand." */
		expect_rest(n, NEG_S_SKIP);
		return;
	}
	expect_rest(n, NEG_S_INFO);
}

/* A server may repeat the same information, but not contradict it. */
static bool on_info_export(struct neg *n)
{
	struct bytes_reader r;
	struct export *x = &n->export;
	uint64_t size;
	uint16_t flags;

	bytes_read_init(&r, n->in, n->got);
	size = bytes_get_u64(&r);
	flags = bytes_get_u16(&r);
	if (n->has_export && (x->size != size || x->flags != flags)) {
		neg_violation(n, "two different NBD_INFO_EXPORT for one export");
		return false;
	}
	n->has_export = true;
	x->size = size;
	x->flags = flags;
	return true;
}

static bool is_power_of_2(uint32_t v)
{
	return v && !(v & (v - 1));
}

/* "Size constraints": checks what a client needs to honour them. */
static bool on_info_block_size(struct neg *n)
{
	struct bytes_reader r;
	struct export *x = &n->export;
	uint32_t min, pref, max;

	bytes_read_init(&r, n->in, n->got);
	min = bytes_get_u32(&r);
	pref = bytes_get_u32(&r);
	max = bytes_get_u32(&r);
	if (!is_power_of_2(min) || min > 65536 || !is_power_of_2(pref) || pref < min || max < min) {
		neg_violation(
			n, "impossible block sizes: minimum %u, preferred %u, maximum payload %u",
			min, pref, max);
		return false;
	}
	if (x->has_block_size &&
	    (x->block_min != min || x->block_pref != pref || x->payload_max != max)) {
		neg_violation(n, "two different NBD_INFO_BLOCK_SIZE for one export");
		return false;
	}
	x->has_block_size = true;
	x->block_min = min;
	x->block_pref = pref;
	x->payload_max = max;
	return true;
}

/* "Conventions": a string has no NUL inside. An export with one could not be asked for again. */
static bool take_name(struct neg *n, const char *what, char *name)
{
	if (memchr(n->in, '\0', n->got)) {
		neg_violation(n, "the name of %s contains a zero byte", what);
		return false;
	}
	memcpy(name, n->in, n->got);
	name[n->got] = '\0';
	return true;
}

static void take_description(struct neg *n, char *description)
{
	memcpy(description, n->in, n->got);
	description[n->got] = '\0';
}

static void on_info(struct neg *n)
{
	struct export *x = &n->export;
	bool good = true;

	switch (n->info) {
	case NBD_INFO_EXPORT:
		good = on_info_export(n);
		break;
	case NBD_INFO_BLOCK_SIZE:
		good = on_info_block_size(n);
		break;
	case NBD_INFO_NAME:
		good = take_name(n, "an export", x->name);
		x->has_name = good;
		break;
	default:
		take_description(n, x->description);
		x->has_description = true;
		break;
	}
	if (good)
		expect_rest(n, NEG_S_SKIP);
}

static const struct {
	uint32_t type;
	enum err_kind kind;
	int code;
	const char *meaning;
	const char *advice;
} errors[] = {
	{ NBD_REP_ERR_UNSUP, ERR_REFUSED, EOPNOTSUPP, "it does not know this option",
	  "the server is too old for this" },
	{ NBD_REP_ERR_POLICY, ERR_REFUSED, EACCES, "its policy forbids it",
	  "check the server's access rules for this client" },
	{ NBD_REP_ERR_INVALID, ERR_REFUSED, EINVAL, "it takes the request for invalid",
	  "check the export's name and the server's log" },
	{ NBD_REP_ERR_PLATFORM, ERR_REFUSED, EOPNOTSUPP,
	  "its platform or build does not support it", "another build of the server is needed" },
	{ NBD_REP_ERR_TLS_REQD, ERR_TLS, EPROTONOSUPPORT, "it requires TLS",
	  "use --tls or an nbds:// address" },
	{ NBD_REP_ERR_UNKNOWN, ERR_REFUSED, ENOENT, "there is no such export",
	  "nbd-attach --exports HOST shows what there is" },
	{ NBD_REP_ERR_SHUTDOWN, ERR_REFUSED, ESHUTDOWN, "it is shutting down",
	  "try again when it is back" },
	{ NBD_REP_ERR_BLOCK_SIZE_REQD, ERR_REFUSED, EINVAL,
	  "it wants its block sizes honoured, which was promised",
	  "the server contradicts itself; see its log" },
	{ NBD_REP_ERR_TOO_BIG, ERR_REFUSED, EMSGSIZE, "the request or its answer is too large",
	  "use a shorter export name" },
	{ NBD_REP_ERR_EXT_HEADER_REQD, ERR_REFUSED, EOPNOTSUPP, "it requires extended headers",
	  "the kernel cannot speak them; relax the server" },
};

/* One text for an error reply: the request, the answer, the remedy, the server's own text. */
static void on_error_text(struct neg *n)
{
	struct err *e = &n->failure;
	char text[ERROR_TEXT_MAX], name[QUOTED_NAME_MAX], about[QUOTED_NAME_MAX + 16] = "";
	const char *meaning = "an error this client does not know";
	const char *advice = "see the server's log";
	enum err_kind kind = ERR_REFUSED;
	int code = EREMOTEIO;

	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		if (errors[i].type != n->reply.type)
			continue;
		meaning = errors[i].meaning;
		advice = errors[i].advice;
		kind = errors[i].kind;
		code = errors[i].code;
	}
	if (asks_for_export(n) || n->option == NBD_OPT_SET_META_CONTEXT) {
		text_escape(name, sizeof(name), n->params.export, strlen(n->params.export));
		snprintf(about, sizeof(about), " export \"%s\"", name);
	}
	text_escape(text, sizeof(text), n->in, n->got);
	err_set(e, kind, code, "the server refuses%s: %s (%s to %s); %s%s%s%s", about, meaning,
		wire_reply_name(n->reply.type) ? wire_reply_name(n->reply.type) : "unknown error",
		option_name(n), advice, n->got ? "; it says: \"" : "", n->got ? text : "",
		n->got ? "\"" : "");
	if (!wire_reply_name(n->reply.type))
		err_wrap(e, "reply 0x%08x", n->reply.type);
	if (n->option == NBD_OPT_STARTTLS) {
		err_wrap(e, "TLS is required; nothing was sent in plain text");
		e->kind = ERR_TLS;
	} else if (n->params.contexts.count && !asks_for_export(n)) {
		err_wrap(
			e,
			"block status is needed, which needs structured replies and meta contexts");
	}
	expect_rest(n, NEG_S_SKIP);
}

/* Whether the goal can be reached without what the server just refused. */
static bool can_do_without(const struct neg *n)
{
	return n->informed || (n->option == NBD_OPT_STRUCTURED_REPLY && !n->params.contexts.count);
}

static void on_error(struct neg *n)
{
	if (can_do_without(n)) {
		err_clear(&n->failure);
		next_option(n, false);
		return;
	}
	if (n->reply.type == NBD_REP_ERR_UNSUP && asks_for_export(n)) {
		/* "clients SHOULD be prepared to also handle NBD_REP_ERR_UNSUP by falling back" */
		struct export fresh = { .structured = n->export.structured };

		err_clear(&n->failure);
		n->export = fresh;
		n->has_export = false;
		send_export_name(n);
		return;
	}
	soft_disconnect(n);
}

static void on_skip(struct neg *n)
{
	if (n->left)
		expect_rest(n, NEG_S_SKIP);
	else if (n->reply.type & NBD_REP_ERR(0))
		on_error(n);
	else
		expect_reply(n);
}

static void on_item_name_length(struct neg *n)
{
	struct bytes_reader r;
	uint32_t len;

	bytes_read_init(&r, n->in, n->got);
	len = bytes_get_u32(&r);
	if (len > n->left || len > NBD_MAX_STRING)
		neg_violation(n, "NBD_REP_SERVER of %u bytes with a name of %u", n->reply.length,
			      len);
	else
		expect_payload(n, NEG_S_ITEM_NAME, len);
}

static void on_item_name(struct neg *n)
{
	if (take_name(n, "an export", n->item.name))
		expect_rest(n, NEG_S_ITEM_DESCRIPTION);
}

static void on_item_description(struct neg *n)
{
	take_description(n, n->item.description);
	expect_rest(n, NEG_S_ITEM_SKIP);
}

static void on_item_skip(struct neg *n)
{
	struct export *x = &n->export;

	if (n->left) {
		expect_rest(n, NEG_S_ITEM_SKIP);
	} else if (n->params.goal == NEG_GOAL_LIST) {
		n->state = NEG_S_ITEM;
	} else {
		if (!strcmp(n->item.name, n->params.export) ||
		    (x->has_name && !strcmp(n->item.name, x->name)))
			x->listed = EXPORT_LISTED;
		expect_reply(n);
	}
}

static void on_context_id(struct neg *n)
{
	struct bytes_reader r;

	bytes_read_init(&r, n->in, n->got);
	n->context_id = bytes_get_u32(&r);
	expect_payload(n, NEG_S_CONTEXT_NAME, n->left);
}

/* "one for each selected metadata context, each with a unique metadata context ID" */
static void select_context(struct neg *n)
{
	struct metactx *c = &n->params.contexts;
	int place = metactx_find(c, n->item.name);
	char name[QUOTED_NAME_MAX];

	text_escape(name, sizeof(name), n->item.name, strlen(n->item.name));
	if (place < 0 || n->selected[place]) {
		neg_violation(n, "it selects the meta context \"%s\", which was %s", name,
			      place < 0 ? "not asked for" : "selected before");
		return;
	}
	for (unsigned i = 0; i < c->count; i++) {
		if (!n->selected[i] || c->id[i] != n->context_id)
			continue;
		neg_violation(n, "it gives two meta contexts the number %u", n->context_id);
		return;
	}
	n->selected[place] = true;
	c->id[place] = n->context_id;
	expect_reply(n);
}

static void on_context_name(struct neg *n)
{
	if (!take_name(n, "a meta context", n->item.name))
		return;
	n->item.description[0] = '\0';
	if (n->option == NBD_OPT_SET_META_CONTEXT)
		select_context(n);
	else
		n->state = NEG_S_ITEM;
}

static void on_export_name(struct neg *n)
{
	struct bytes_reader r;

	bytes_read_init(&r, n->in, n->got);
	n->export.size = bytes_get_u64(&r);
	n->export.flags = bytes_get_u16(&r);
	n->has_export = true;
	neg_expect(n, NEG_S_ZEROES, n->no_zeroes ? 0 : WIRE_EXPORT_NAME_ZEROES);
}

static void on_zeroes(struct neg *n)
{
	n->transmission = true;
	end_handshake(n);
}

static void neg_step(struct neg *n)
{
	static void (*const handlers[])(struct neg *) = {
		[NEG_S_GREETING] = on_greeting,
		[NEG_S_HANDSHAKE_FLAGS] = on_handshake_flags,
		[NEG_S_REPLY] = on_reply,
		[NEG_S_INFO_TYPE] = on_info_type,
		[NEG_S_INFO] = on_info,
		[NEG_S_ERROR_TEXT] = on_error_text,
		[NEG_S_ITEM_NAME_LENGTH] = on_item_name_length,
		[NEG_S_ITEM_NAME] = on_item_name,
		[NEG_S_ITEM_DESCRIPTION] = on_item_description,
		[NEG_S_ITEM_SKIP] = on_item_skip,
		[NEG_S_CONTEXT_ID] = on_context_id,
		[NEG_S_CONTEXT_NAME] = on_context_name,
		[NEG_S_SKIP] = on_skip,
		[NEG_S_EXPORT_NAME] = on_export_name,
		[NEG_S_ZEROES] = on_zeroes,
	};

	handlers[n->state](n);
}

void neg_init(struct neg *n, const struct neg_params *p)
{
	memset(n, 0, sizeof(*n));
	n->params = *p;
	n->params.export[NBD_MAX_STRING] = '\0';
	if (p->goal != NEG_GOAL_QUERY)
		n->params.contexts.count = 0;
	else if (n->params.contexts.count > METACTX_MAX)
		n->params.contexts.count = METACTX_MAX;
	neg_expect(n, NEG_S_GREETING, WIRE_GREETING_SIZE);
}

enum neg_want neg_want(struct neg *n, struct neg_buf *buf)
{
	memset(buf, 0, sizeof(*buf));
	if (n->out_done < n->out_len) {
		buf->out = n->out + n->out_done;
		buf->len = n->out_len - n->out_done;
		return NEG_WRITE;
	}
	if (n->state == NEG_S_END)
		return n->failure.kind == ERR_NONE ? NEG_DONE : NEG_FAILED;
	if (n->state == NEG_S_ITEM)
		return NEG_ITEM;
	if (n->state == NEG_S_TLS)
		return NEG_TLS;
	buf->in = n->in + n->got;
	buf->len = n->want - n->got;
	return NEG_READ;
}

void neg_moved(struct neg *n, size_t len)
{
	if (n->out_done < n->out_len) {
		n->out_done += len;
		if (n->out_done < n->out_len)
			return;
		n->out_done = 0;
		n->out_len = 0;
	} else if (n->state == NEG_S_ITEM) {
		expect_reply(n);
	} else if (n->state == NEG_S_TLS) {
		n->tls = true;
		send_first_option(n);
	} else if (n->state != NEG_S_END) {
		n->got += len;
		if (n->got == n->want)
			neg_step(n);
	}
}

static const char *awaited(const struct neg *n)
{
	switch (n->state) {
	case NEG_S_GREETING:
	case NEG_S_HANDSHAKE_FLAGS:
		return "its greeting";
	default:
		return option_name(n);
	}
}

/*
 * True at the end, and where only optional questions are left (after NBD_OPT_INFO): a server that
 * hangs up then, or does not wait for NBD_OPT_ABORT, has said everything that matters.
 */
static bool end_if_informed(struct neg *n)
{
	if (n->state != NEG_S_END && !n->informed)
		return false;
	if (n->state != NEG_S_END)
		err_clear(&n->failure);
	end_handshake(n);
	return true;
}

void neg_broken(struct neg *n, int code)
{
	struct err *e = &n->failure;
	char name[QUOTED_NAME_MAX];

	if (end_if_informed(n))
		return;
	if (code) {
		err_sys(e, ERR_UNREACHABLE, code, "the connection broke while waiting for %s",
			awaited(n));
	} else if (n->state == NEG_S_GREETING && !n->got) {
		err_set(e, ERR_UNREACHABLE, ECONNRESET,
			"the server closed the connection without a word; it may have as many "
			"clients as it takes, or not admit this one");
	} else if (n->state == NEG_S_EXPORT_NAME && !n->got) {
		text_escape(name, sizeof(name), n->params.export, strlen(n->params.export));
		err_set(e, ERR_REFUSED, ENOENT,
			"the server closed the connection when asked for export \"%s\" by "
			"NBD_OPT_EXPORT_NAME, as servers do that have no such export or do not admit "
			"this client",
			name);
	} else {
		err_set(e, ERR_UNREACHABLE, ECONNRESET,
			"the server closed the connection in the middle of the handshake, in %s; "
			"see the server's log",
			awaited(n));
	}
	end_handshake(n);
}

void neg_timed_out(struct neg *n)
{
	if (end_if_informed(n))
		return;
	err_set(&n->failure, ERR_UNREACHABLE, ETIMEDOUT,
		"connected, but the handshake was not done in time, still waiting for %s; the server "
		"hangs, is overloaded, or serves another client only",
		awaited(n));
	end_handshake(n);
}

const struct neg_item *neg_item(const struct neg *n)
{
	return &n->item;
}

const struct export *neg_export(const struct neg *n)
{
	return &n->export;
}

const struct metactx *neg_contexts(const struct neg *n)
{
	return &n->params.contexts;
}

bool neg_in_transmission(const struct neg *n)
{
	return n->transmission;
}

bool neg_is_committed(const struct neg *n)
{
	return n->state != NEG_S_END &&
	       (n->option == NBD_OPT_GO || n->option == NBD_OPT_EXPORT_NAME);
}

const struct err *neg_failure(const struct neg *n)
{
	return &n->failure;
}
