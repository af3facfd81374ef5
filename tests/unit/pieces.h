/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#ifndef PIECES_H
#define PIECES_H

/*
 * Byte streams as constants, for the tests of protocols: PIECES(RAW("NBD"), U32(7), FILL('x', 9)).
 * The numbers on the wire are written out, not made by the functions under test.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <check.h>

/* clang-format off */
enum piece_kind {
	STOP,
	BYTES,      /* len bytes of text */
	NUMBER,     /* len bytes, big-endian */
	FILLER,     /* len times the byte value */
	GROUP,      /* value times sub */
	OTHER_SIDE, /* the peer speaks next */
};

struct piece {
	enum piece_kind kind;
	uint64_t value;
	size_t len;
	const char *text;
	const struct piece *sub;
};

#define PIECES(...) (const struct piece[]){ __VA_ARGS__, { .kind = STOP } }
#define RAW(literal) { .kind = BYTES, .text = literal, .len = sizeof(literal) - 1 }
#define U16(v) { .kind = NUMBER, .value = v, .len = 2 }
#define U32(v) { .kind = NUMBER, .value = v, .len = 4 }
#define U64(v) { .kind = NUMBER, .value = v, .len = 8 }
#define FILL(byte, n) { .kind = FILLER, .value = byte, .len = n }
#define TIMES(n, ...) { .kind = GROUP, .value = n, .sub = PIECES(__VA_ARGS__) }
#define TURN { .kind = OTHER_SIDE }
/* clang-format on */

struct bytes {
	uint8_t *data;
	size_t len;
	size_t turns[8]; /* where each stretch ends, the last at len */
	size_t turn_count;
};

static inline size_t size_of(const struct piece *p)
{
	size_t len = 0;

	for (; p && p->kind != STOP; p++)
		len += p->kind == GROUP ? (size_t)p->value * size_of(p->sub) : p->len;
	return len;
}

static inline void append(struct bytes *b, const struct piece *p)
{
	for (; p && p->kind != STOP; p++) {
		switch (p->kind) {
		case BYTES:
			memcpy(b->data + b->len, p->text, p->len);
			break;
		case NUMBER:
			for (size_t i = 0; i < p->len; i++)
				b->data[b->len + i] = (uint8_t)(p->value >> 8 * (p->len - 1 - i));
			break;
		case FILLER:
			memset(b->data + b->len, (int)p->value, p->len);
			break;
		case GROUP:
			for (uint64_t i = 0; i < p->value; i++)
				append(b, p->sub);
			break;
		default:
			ck_assert_uint_lt(b->turn_count,
					  sizeof(b->turns) / sizeof(b->turns[0]) - 1);
			b->turns[b->turn_count++] = b->len;
			break;
		}
		b->len += p->len;
	}
}

/* Of exactly the right size, for AddressSanitizer. free_bytes() afterwards. */
static inline void make_bytes(struct bytes *b, const struct piece *p)
{
	size_t len = size_of(p);

	memset(b, 0, sizeof(*b));
	b->data = malloc(len ? len : 1);
	ck_assert_ptr_nonnull(b->data);
	append(b, p);
	ck_assert_uint_eq(b->len, len);
	b->turns[b->turn_count++] = len;
}

static inline void free_bytes(struct bytes *b)
{
	free(b->data);
}

#endif
