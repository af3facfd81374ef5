/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * extent_map: an export from its beginning to its end in rows of one kind each, put together from
 * a server's answers to NBD_CMD_BLOCK_STATUS. The extents of several meta contexts need not end
 * at the same places, may reach less far than asked for, and may continue the one before. No I/O
 * and no allocation: the caller owns a fixed amount of memory, and an extent that does not fit is
 * forgotten and asked for again.
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
	EXTENT_MAP_ROOM_MIN = 2,      /* extents per context */
	EXTENT_MAP_TOTALS_MAX = 4096, /* kinds of rows */
	/*
	 * "Servers SHOULD use descriptor lengths that are an integer multiple of 512": a server
	 * with fewer bytes per answer on average, after so many answers, keeps a client asking
	 * for ever.
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
	uint32_t flags[METACTX_MAX]; /* one for each context, 0 beyond the last */
};

/* Private to extent_map.c. */
struct extent_map {
	uint64_t size;
	uint32_t block;
	unsigned contexts;
	size_t room; /* extents per context */
	struct extent_map_extent *extents;
	struct {
		uint64_t end; /* everything before is known */
		size_t first; /* index into its part of extents, a ring */
		size_t count;
	} of[METACTX_MAX];
	uint64_t done;             /* everything before is in rows */
	struct extent_map_row row; /* last row, which may still grow */
	uint64_t asked;            /* offset in the last extent_map_next */
	uint64_t answers;
};

/*
 * size: bytes of the export. block: a power of two; requests begin at multiples of it. contexts:
 * 1 to METACTX_MAX. extents: the caller's memory, contexts * room elements.
 */
void extent_map_init(struct extent_map *m, uint64_t size, uint32_t block, unsigned contexts,
		     struct extent_map_extent *extents, size_t room);

/* Finds the offset of the next request. False when nothing is left to ask about. */
bool extent_map_next(struct extent_map *m, uint64_t *offset);

/* Takes one extent of the answer: length bytes at offset have these flags. */
void extent_map_extent(struct extent_map *m, unsigned context, uint64_t offset, uint64_t length,
		       uint32_t flags);

/*
 * To be called after each answer. -EPROTO (ERR_PROTOCOL) when it brought nothing new, or the
 * answers bring so little that they never end.
 */
int extent_map_answered(struct extent_map *m, struct err *e);

/*
 * Takes the next complete row; neighbours differ. False at the end, or when more has to be known
 * first.
 */
bool extent_map_row(struct extent_map *m, struct extent_map_row *row);

/* All rows of one kind. */
struct extent_map_total {
	uint32_t flags[METACTX_MAX];
	uint64_t bytes;
	uint64_t rows;
};

/*
 * Totals in the order of their flags. total has EXTENT_MAP_TOTALS_MAX elements; count is 0 at
 * first.
 */
struct extent_map_totals {
	struct extent_map_total *total;
	size_t count;
};

/* Adds a row to the total of its kind. -E2BIG (ERR_FAILED) for one kind too many. */
int extent_map_add(struct extent_map_totals *t, const struct extent_map_row *row, struct err *e);

#endif
