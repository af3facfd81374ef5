/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * The input is a server: one byte for the goal (bits 0 and 1), the number of meta contexts wanted
 * (bits 3 and 4) and TLS (bit 6: is required), one for the length of the export's name, one for
 * how small the pieces are in which bytes move (0: as large as asked for), and the stream itself.
 * The handshake is driven in one piece and in small ones; both must ask for the same bytes, send
 * the same and end the same, within bounds that follow from the stream's length.
 */
#include "fuzz.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "proto/neg.h"
#include "base/text.h"

enum {
	HEADER = 3,
	TLS_BIT = 0x40,
	/* client flags, NBD_OPT_STARTTLS */
	PLAIN_MAX = 4 + 16,
	/* NBD_OPT_GO, NBD_OPT_EXPORT_NAME and NBD_OPT_ABORT with the longest name */
	GO_MAX = (16 + 4 + NBD_MAX_STRING + 2 + 2 * 4) + (16 + NBD_MAX_STRING) + 16,
	/* NBD_OPT_STRUCTURED_REPLY, _LIST, and _LIST_META_CONTEXT or _SET_ with 3 short names */
	MORE_MAX = 2 * 16 + 16 + 4 + NBD_MAX_STRING + 4 + 3 * 32,
	CLIENT_MAX = PLAIN_MAX + GO_MAX + MORE_MAX,
};

/* What one drive did. */
struct drive {
	struct neg n;
	size_t consumed;
	size_t sent;
	size_t items;
	uint64_t sent_hash;
	uint64_t items_hash;
	bool starved;  /* the stream was over before the handshake */
	bool secured;  /* TLS has begun */
	bool farewell; /* the last thing sent was NBD_OPT_ABORT */
	uint8_t out[CLIENT_MAX];
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
	/* U+202A..U+202E and U+2066..U+2069 turn the direction of text. */
	for (char last = '\xaa'; last <= '\xae'; last++)
		require(!strstr(s, (char[]){ '\xe2', '\x80', last, '\0' }));
	for (char last = '\xa6'; last <= '\xa9'; last++)
		require(!strstr(s, (char[]){ '\xe2', '\x81', last, '\0' }));
}

static void check_string(const char *s, size_t cap)
{
	require(memchr(s, '\0', cap));
}

static void check_failure(const struct neg *n)
{
	const struct err *e = neg_failure(n);

	require(e->kind == ERR_REFUSED || e->kind == ERR_PROTOCOL || e->kind == ERR_TLS ||
		e->kind == ERR_UNREACHABLE);
	require(e->code > 0);
	check_safe(e->text, sizeof(e->text));
}

static void check_export(const struct neg *n)
{
	const struct export *x = neg_export(n);

	check_string(x->name, sizeof(x->name));
	check_string(x->description, sizeof(x->description));
	require(x->has_name || !x->name[0]);
	require(x->has_description || !x->description[0]);
	if (x->has_block_size) {
		require(x->block_min && !(x->block_min & (x->block_min - 1)));
		require(x->block_min <= 65536 && x->block_pref >= x->block_min);
		require(!(x->block_pref & (x->block_pref - 1)));
		require(x->payload_max >= x->block_min && !x->by_export_name);
	}
	require(x->structured || !x->has_contexts);
	require(n->params.goal == NEG_GOAL_INFO || !(x->has_contexts || x->listed));
	require(n->params.goal != NEG_GOAL_GO || !x->structured);
}

/* What was wanted is there, each under a number of its own. */
static void check_contexts(const struct neg *n, const struct neg_params *params)
{
	const struct metactx *c = neg_contexts(n);

	require(c->count == params->contexts.count && (!c->count || neg_export(n)->structured));
	for (unsigned i = 0; i < c->count; i++) {
		require(!strcmp(metactx_name(c, i), metactx_name(&params->contexts, i)));
		for (unsigned j = 0; j < i; j++)
			require(c->id[i] != c->id[j]);
	}
}

/* Nothing that comes after the end changes it. */
static void check_end(struct neg *n, const struct neg_params *params, bool secured)
{
	enum neg_goal goal = params->goal;
	struct neg_buf buf;
	enum neg_want end = neg_want(n, &buf);
	bool transmission = neg_in_transmission(n);

	require(end == NEG_DONE || end == NEG_FAILED);
	require(buf.len == 0 && !buf.in && !buf.out);
	if (end == NEG_FAILED) {
		check_failure(n);
		require(!transmission);
	} else {
		require(neg_failure(n)->kind == ERR_NONE);
		require(secured == params->tls);
		require((goal != NEG_GOAL_GO && goal != NEG_GOAL_QUERY) || transmission);
		require(goal != NEG_GOAL_LIST || !transmission);
		require(goal != NEG_GOAL_INFO || transmission == neg_export(n)->by_export_name);
		if (goal != NEG_GOAL_LIST)
			check_export(n);
		if (goal == NEG_GOAL_QUERY)
			check_contexts(n, params);
	}
	for (int i = 0; i < 4; i++) {
		struct err before = *neg_failure(n);

		if (i == 0)
			neg_moved(n, 0);
		else if (i == 3)
			neg_timed_out(n);
		else
			neg_broken(n, i == 1 ? 0 : EPIPE);
		require(neg_want(n, &buf) == end && buf.len == 0);
		require(neg_in_transmission(n) == transmission);
		require(strcmp(before.text, neg_failure(n)->text) == 0);
		require(before.kind == neg_failure(n)->kind && before.code == neg_failure(n)->code);
	}
}

/* Whoever gives up here gets an error, or what had been reached when only the farewell is left. */
static void check_giving_up(const struct drive *d, const struct neg_params *params)
{
	for (int i = 0; i < 3; i++) {
		struct neg n = d->n;
		struct neg_buf buf;
		enum neg_want end;

		if (i == 2)
			neg_timed_out(&n);
		else
			neg_broken(&n, i ? ECONNRESET : 0);
		end = neg_want(&n, &buf);
		if (d->starved)
			require(end == (d->n.informed ? NEG_DONE : NEG_FAILED));
		check_end(&n, params, d->secured);
	}
}

static void require_inside(const void *outer, size_t outer_len, const void *p, size_t len)
{
	uintptr_t begin = (uintptr_t)outer, at = (uintptr_t)p;

	require(at >= begin && at - begin <= outer_len && len <= outer_len - (at - begin));
}

/* pieces: 0 for all at once, or the seed of how many bytes move at a time. */
static void run(struct drive *d, const struct neg_params *params, uint8_t pieces,
		const uint8_t *stream, size_t size)
{
	size_t steps = 0, limit = size + CLIENT_MAX + size / 24 + 8;
	struct neg *n = &d->n;

	memset(d, 0, sizeof(*d));
	neg_init(n, params);
	for (;;) {
		struct neg_buf buf;
		enum neg_want want = neg_want(n, &buf);
		size_t len = buf.len;

		require(++steps <= limit);
		if (pieces) {
			if (len > pieces)
				len = pieces;
			pieces = (uint8_t)(pieces * 5 + 1);
			if (!pieces)
				pieces = 1;
		}
		switch (want) {
		case NEG_READ:
			require(len > 0 && buf.in && !buf.out);
			require_inside(n->in, sizeof(n->in), buf.in, buf.len);
			if (len > size - d->consumed)
				len = size - d->consumed;
			if (len == 0) {
				d->starved = true;
				check_giving_up(d, params);
				return;
			}
			memcpy(buf.in, stream + d->consumed, len);
			d->consumed += len;
			break;
		case NEG_WRITE:
			require(len > 0 && buf.out && !buf.in);
			require_inside(n->out, sizeof(n->out), buf.out, buf.len);
			require(len <= sizeof(d->out) - d->sent);
			memcpy(d->out + d->sent, buf.out, len);
			d->sent += len;
			hash(&d->sent_hash, buf.out, len);
			/*
			 * In plain text there may be a farewell (NBD_OPT_ABORT), and no name ever.
			 */
			require(!params->tls || d->secured || d->sent <= PLAIN_MAX + 16);
			break;
		case NEG_ITEM:
			require(buf.len == 0);
			require(params->goal == NEG_GOAL_LIST || params->goal == NEG_GOAL_INFO);
			check_string(neg_item(n)->name, sizeof(neg_item(n)->name));
			check_string(neg_item(n)->description, sizeof(neg_item(n)->description));
			hash(&d->items_hash, neg_item(n)->name, strlen(neg_item(n)->name) + 1);
			hash(&d->items_hash, neg_item(n)->description,
			     strlen(neg_item(n)->description) + 1);
			require(++d->items <= NEG_MAX_EXPORTS);
			break;
		case NEG_TLS:
			require(buf.len == 0 && params->tls && !d->secured);
			require(d->sent == PLAIN_MAX);
			d->secured = true;
			break;
		case NEG_DONE:
		case NEG_FAILED:
			d->farewell = d->sent >= 16 && memcmp(d->out + d->sent - 16,
							      "IHAVEOPT\0\0\0\2\0\0\0", 16) == 0;
			/* A soft disconnect is for those who keep to the protocol. */
			if (want == NEG_FAILED)
				require(!d->farewell || neg_failure(n)->kind != ERR_PROTOCOL);
			else
				require(d->farewell == !neg_in_transmission(n));
			check_end(n, params, d->secured);
			return;
		}
		if (steps % 64 == 0 || (want == NEG_WRITE && d->sent < 64))
			check_giving_up(d, params);
		neg_moved(n, len);
	}
}

static void check_same(const struct drive *a, const struct drive *b)
{
	const struct export *x = neg_export(&a->n), *y = neg_export(&b->n);

	require(a->consumed == b->consumed && a->starved == b->starved);
	require(a->sent == b->sent && a->sent_hash == b->sent_hash);
	require(a->items == b->items && a->items_hash == b->items_hash);
	require(a->farewell == b->farewell && a->secured == b->secured);
	require(neg_in_transmission(&a->n) == neg_in_transmission(&b->n));
	require(strcmp(neg_failure(&a->n)->text, neg_failure(&b->n)->text) == 0);
	require(x->size == y->size && x->flags == y->flags && x->has_name == y->has_name);
	require(x->has_block_size == y->has_block_size && x->block_min == y->block_min);
	require(x->block_pref == y->block_pref && x->payload_max == y->payload_max);
	require(x->has_description == y->has_description);
	require(x->by_export_name == y->by_export_name && x->structured == y->structured);
	require(x->has_contexts == y->has_contexts && x->listed == y->listed);
	require(strcmp(x->name, y->name) == 0 && strcmp(x->description, y->description) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const enum neg_goal goals[] = {
		NEG_GOAL_GO,
		NEG_GOAL_INFO,
		NEG_GOAL_LIST,
		NEG_GOAL_QUERY,
	};
	static const char *const contexts[] = { "base:allocation", "qemu:dirty-bitmap:b",
						"x\xc3\xa9:" };
	struct neg_params *params;
	struct drive *whole, *pieces;
	struct err e;
	size_t name;

	if (size < HEADER)
		return -1;
	/* On the heap each, so that AddressSanitizer sees the first byte beyond. */
	params = calloc(1, sizeof(*params));
	whole = malloc(sizeof(*whole));
	pieces = malloc(sizeof(*pieces));
	require(params && whole && pieces);
	params->goal = goals[data[0] & 3];
	params->tls = data[0] & TLS_BIT;
	for (int i = 0; i < (data[0] >> 3 & 3); i++)
		require(!metactx_add(&params->contexts, contexts[i], strlen(contexts[i]), &e));
	name = data[1] == UINT8_MAX ? NBD_MAX_STRING : data[1];
	/* ESC among the letters: the name is quoted in errors too. */
	for (size_t i = 0; i < name; i++)
		params->export[i] = i % 16 == 15 ? '\x1b' : (char)('a' + i % 26);

	run(whole, params, 0, data + HEADER, size - HEADER);
	run(pieces, params, 1, data + HEADER, size - HEADER);
	check_same(whole, pieces);
	if (data[2]) {
		run(pieces, params, data[2], data + HEADER, size - HEADER);
		check_same(whole, pieces);
	}
	free(params);
	free(whole);
	free(pieces);
	return 0;
}
