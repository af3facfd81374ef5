/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * map: an export from its beginning to its end in rows of one kind each, put together from what a
 * server says in answer to NBD_CMD_BLOCK_STATUS: extents of several meta contexts that need not end at the
 * same places, reach less far than was asked for, or go on as they began. No I/O and a fixed amount of
 * memory, which is the caller's: what does not fit is forgotten and asked for again.
 *
 *	while (extent_map_next(&m, &offset)) {
 *		ask for block status at offset; for each extent of the answer {
 *			extent_map_extent(&m, context, offset, length, flags);
 *			while (extent_map_row(&m, &row)) use row;
 *		}
 *		extent_map_answered(&m, e);
 *	}
 *	while (extent_map_row(&m, &row)) use row;
 */
#ifndef NBD_ATTACH_EXTENT_MAP_H
#define NBD_ATTACH_EXTENT_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/metactx.h"
#include "base/err.h"

enum {
	EXTENT_MAP_ROOM_MIN = 2,      /* extents of each context */
	EXTENT_MAP_TOTALS_MAX = 4096, /* kinds of rows that are told apart */
	/*
	 * "Servers SHOULD use descriptor lengths that are an integer multiple of 512": who stays below that on average
	 * after so many answers would have us ask for ever.
	 */
	EXTENT_MAP_ADVANCE_MIN = 512,
	EXTENT_MAP_PATIENCE = 1024,
};

struct extent_map_extent {
	uint64_t end;
	uint32_t flags;
};

struct extent_map_row {
	uint64_t offset;
	uint64_t length;
	uint32_t flags[METACTX_MAX]; /* of each context, 0 beyond the last */
};

/* Of interest to the functions below only. */
struct extent_map {
	uint64_t size;
	uint32_t block;
	unsigned contexts;
	size_t room; /* extents of each context */
	struct extent_map_extent *extents;
	struct {
		uint64_t end; /* all before is known */
		size_t first; /* in its part of extents, a ring */
		size_t count;
	} of[METACTX_MAX];
	uint64_t done;             /* rows have been made of all before, */
	struct extent_map_row row; /* the last of which may yet grow */
	uint64_t asked;            /* where extent_map_next pointed */
	uint64_t answers;
};

/*
 * For an export of size bytes, requests about which have to begin at multiples of block (a power of two), in 1 to
 * METACTX_MAX contexts. extents is memory for contexts * room of them, the caller's.
 */
void extent_map_init(struct extent_map *m, uint64_t size, uint32_t block, unsigned contexts,
		     struct extent_map_extent *extents, size_t room);

/* Where to ask next. False when there is nothing left to ask about. */
bool extent_map_next(struct extent_map *m, uint64_t *offset);

/* What a server says about length bytes at offset. */
void extent_map_extent(struct extent_map *m, unsigned context, uint64_t offset, uint64_t length,
		       uint32_t flags);

/* After an answer. ERR_PROTOCOL (-EPROTO) when nothing is known that was not before, or too little to ever end. */
int extent_map_answered(struct extent_map *m, struct err *e);

/* The next row that is complete; neighbours differ. False: more has to be known first, or the end. */
bool extent_map_row(struct extent_map *m, struct extent_map_row *row);

/* Rows of one kind taken together, in the order of their flags. */
struct extent_map_total {
	uint32_t flags[METACTX_MAX];
	uint64_t bytes;
	uint64_t rows;
};

/* total has room for EXTENT_MAP_TOTALS_MAX; all else is 0 at the beginning. */
struct extent_map_totals {
	struct extent_map_total *total;
	size_t count;
};

/* -E2BIG (ERR_FAILED) for a kind too many. */
int extent_map_add(struct extent_map_totals *t, const struct extent_map_row *row, struct err *e);

#endif
