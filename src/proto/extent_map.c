/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "proto/extent_map.h"

#include <errno.h>
#include <string.h>

void extent_map_init(struct extent_map *m, uint64_t size, uint32_t block, unsigned contexts,
		     struct extent_map_extent *extents, size_t room)
{
	memset(m, 0, sizeof(*m));
	m->size = size;
	m->block = block ? block : 1;
	m->contexts = contexts < METACTX_MAX ? contexts : METACTX_MAX;
	m->extents = extents;
	m->room = room;
}

/* Everything before is known in all contexts. */
static uint64_t known_end(const struct extent_map *m)
{
	uint64_t end = m->size;

	for (unsigned c = 0; c < m->contexts; c++)
		if (m->of[c].end < end)
			end = m->of[c].end;
	return end;
}

bool extent_map_next(struct extent_map *m, uint64_t *offset)
{
	m->asked = known_end(m);
	*offset = m->asked - m->asked % m->block;
	return m->asked < m->size;
}

static struct extent_map_extent *extent_at(const struct extent_map *m, unsigned context, size_t i)
{
	return &m->extents[context * m->room + (m->of[context].first + i) % m->room];
}

void extent_map_extent(struct extent_map *m, unsigned context, uint64_t offset, uint64_t length,
		       uint32_t flags)
{
	uint64_t end = length < m->size - offset ? offset + length : m->size;
	struct extent_map_extent *last;
	size_t count;

	/* Known already; or the extent before it did not fit, and will be asked for again. */
	if (context >= m->contexts || offset > m->of[context].end || end <= m->of[context].end)
		return;
	count = m->of[context].count;
	last = count ? extent_at(m, context, count - 1) : NULL;
	if (last && last->flags == flags) {
		last->end = end;
	} else if (count < m->room) {
		*extent_at(m, context, count) =
			(struct extent_map_extent){ .end = end, .flags = flags };
		m->of[context].count++;
	} else {
		return;
	}
	m->of[context].end = end;
}

int extent_map_answered(struct extent_map *m, struct err *e)
{
	uint64_t end = known_end(m);

	if (end <= m->asked)
		return err_set(
			e, ERR_PROTOCOL, EPROTO,
			"the server does not get ahead: asked for block status at %llu it describes nothing "
			"that it has not described before; it is broken",
			(unsigned long long)(m->asked - m->asked % m->block));
	m->answers++;
	if (m->answers > EXTENT_MAP_PATIENCE && end < m->size &&
	    end / EXTENT_MAP_ADVANCE_MIN < m->answers)
		return err_set(
			e, ERR_PROTOCOL, EPROTO,
			"the server describes %llu bytes in %llu answers, too few to ever come to the end "
			"of the export; it is broken",
			(unsigned long long)end, (unsigned long long)m->answers);
	return 0;
}

/* Finds the next piece without a change in any context. False when one context is not known. */
static bool next_piece(const struct extent_map *m, struct extent_map_row *piece)
{
	uint64_t end = m->size;

	memset(piece, 0, sizeof(*piece));
	for (unsigned c = 0; c < m->contexts; c++) {
		const struct extent_map_extent *x = extent_at(m, c, 0);

		if (!m->of[c].count)
			return false;
		if (x->end < end)
			end = x->end;
		piece->flags[c] = x->flags;
	}
	piece->offset = m->done;
	piece->length = end - m->done;
	return piece->length;
}

static void drop_extents(struct extent_map *m, uint64_t end)
{
	m->done = end;
	for (unsigned c = 0; c < m->contexts; c++) {
		if (extent_at(m, c, 0)->end > end)
			continue;
		m->of[c].first = (m->of[c].first + 1) % m->room;
		m->of[c].count--;
	}
}

bool extent_map_row(struct extent_map *m, struct extent_map_row *row)
{
	struct extent_map_row piece;

	while (next_piece(m, &piece)) {
		bool grows = m->row.length &&
			     !memcmp(m->row.flags, piece.flags, sizeof(piece.flags));

		drop_extents(m, piece.offset + piece.length);
		if (grows) {
			m->row.length += piece.length;
			continue;
		}
		*row = m->row;
		m->row = piece;
		if (row->length)
			return true;
	}
	if (m->done < m->size || !m->row.length)
		return false;
	*row = m->row;
	m->row.length = 0;
	return true;
}

static int compare_flags(const uint32_t *a, const uint32_t *b)
{
	for (size_t i = 0; i < METACTX_MAX; i++)
		if (a[i] != b[i])
			return a[i] < b[i] ? -1 : 1;
	return 0;
}

int extent_map_add(struct extent_map_totals *t, const struct extent_map_row *row, struct err *e)
{
	size_t low = 0, high = t->count;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (compare_flags(t->total[middle].flags, row->flags) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == t->count || compare_flags(t->total[low].flags, row->flags)) {
		if (t->count == EXTENT_MAP_TOTALS_MAX)
			return err_set(
				e, ERR_FAILED, E2BIG,
				"the export has more than %d kinds of extents; ask for one meta context, "
				"or without --totals",
				EXTENT_MAP_TOTALS_MAX);
		memmove(&t->total[low + 1], &t->total[low], (t->count - low) * sizeof(*t->total));
		memset(&t->total[low], 0, sizeof(*t->total));
		memcpy(t->total[low].flags, row->flags, sizeof(row->flags));
		t->count++;
	}
	t->total[low].bytes += row->length;
	t->total[low].rows++;
	return 0;
}
