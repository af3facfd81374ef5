/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "proto/extent_map.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../unit.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* Rows as text: "0+512=3 512+100=0". */
static void drain(struct extent_map *m, char *text, size_t cap)
{
	struct extent_map_row row;

	while (extent_map_row(m, &row)) {
		size_t used = strlen(text);

		used += (size_t)snprintf(text + used, cap - used, "%s%llu+%llu=%u", used ? " " : "",
					 (unsigned long long)row.offset,
					 (unsigned long long)row.length, row.flags[0]);
		for (unsigned c = 1; c < m->contexts; c++)
			used += (size_t)snprintf(text + used, cap - used, ",%u", row.flags[c]);
	}
}

/*
 * Answers of some extents each: "@512" is the request that must come next, "0:100=3" an extent of
 * context 0, 100 bytes with flags 3, which follows the last extent of its context.
 */
static const struct walk {
	const char *name;
	uint64_t size;
	uint32_t block;
	unsigned contexts;
	size_t room;
	const char *answers;
	const char *rows;
	const char *failure; /* error text of the last answer, NULL: none */
} walks[] = {
	{ "nothing", 0, 1, 1, 2, "", "", NULL },
	{ "one extent", 1000, 1, 1, 2, "@0 0:1000=3", "0+1000=3", NULL },
	{ "several", 1000, 1, 1, 2, "@0 0:1=3 0:9=0 0:990=3", "0+1=3 1+9=0 10+990=3", NULL },
	{ "what goes on as it began", 1000, 1, 1, 2,
	  "@0 0:100=3 0:100=3 0:100=0 @300 0:100=0 0:600=0", "0+200=3 200+800=0", NULL },
	{ "several answers", 1000, 1, 1, 2, "@0 0:512=3 @512 0:400=3 0:1=0 @913 0:87=1",
	  "0+912=3 912+1=0 913+87=1", NULL },
	{ "beyond the end", 1000, 1, 1, 2, "@0 0:4294967295=3", "0+1000=3", NULL },
	{ "flags of no meaning", 1000, 1, 1, 2, "@0 0:500=4294967295 0:500=4",
	  "0+500=4294967295 500+500=4", NULL },
	{ "two contexts alike", 1000, 1, 2, 4, "@0 0:1000=3 1:1000=1", "0+1000=3,1", NULL },
	{ "two contexts that end elsewhere", 1000, 1, 2, 4, "@0 0:100=3 0:900=0 1:400=1 1:600=0",
	  "0+100=3,1 100+300=0,1 400+600=0,0", NULL },
	{ "one context reaches less far", 1000, 1, 2, 4,
	  "@0 0:1000=3 1:400=1 @400 0:600=3 1:200=1 1:400=0", "0+600=3,1 600+400=3,0", NULL },
	{ "now one, now the other", 1000, 1, 2, 4,
	  "@0 0:500=3 1:400=1 @400 0:600=3 1:100=1 @500 0:500=0 1:500=2", "0+500=3,1 500+500=3,2",
	  NULL },
	{ "the other way round", 1000, 1, 2, 4, "@0 1:400=1 0:1000=3 @400 1:600=1", "0+1000=3,1",
	  NULL },
	{ "what is known already counts", 1000, 1, 2, 4, "@0 0:1000=3 1:500=1 @500 0:500=7 1:500=1",
	  "0+1000=3,1", NULL },
	{ "more than there is room for is asked for again", 1000, 1, 2, 2,
	  "@0 0:1=0 0:1=1 0:1=2 0:997=3 1:3=0 @2 0:1=2 0:997=3 1:1=0 1:997=5",
	  "0+1=0,0 1+1=1,0 2+1=2,0 3+997=3,5", NULL },
	{ "blocks, a piece of one", 1024, 512, 1, 2, "@0 0:600=3 @512 0:512=0", "0+600=3 600+424=0",
	  NULL },
	{ "blocks, answers in whole ones", 1024, 512, 1, 2, "@0 0:512=3 @512 0:512=0",
	  "0+512=3 512+512=0", NULL },
	{ "no step ahead", 1024, 512, 1, 2, "@0 0:600=3 @512 0:88=3", "",
	  "does not get ahead: asked for block status at 512" },
	{ "no extent", 1024, 1, 1, 2, "@0", "", "asked for block status at 0" },
	{ "one context stands still", 1024, 1, 2, 2, "@0 0:1024=0", "",
	  "asked for block status at 0" },
	{ "the largest export", UINT64_MAX, 1, 1, 2,
	  "@0 0:18446744073709551614=3 @18446744073709551614 0:9=1",
	  "0+18446744073709551614=3 18446744073709551614+1=1", NULL },
};

START_TEST(walk)
{
	const struct walk *w = &walks[_i];
	struct extent_map_extent *extents = malloc(w->contexts * w->room * sizeof(*extents));
	uint64_t at[METACTX_MAX] = { 0 }, offset = 0;
	char rows[1024] = "";
	const char *p = w->answers;
	struct err e = { 0 };
	struct extent_map m;
	int ret = 0;

	ck_assert_ptr_nonnull(extents);
	extent_map_init(&m, w->size, w->block, w->contexts, extents, w->room);
	while (*p) {
		unsigned long long want, length;
		unsigned context, flags;
		int used = 0;

		if (sscanf(p, "@%llu%n", &want, &used) == 1) {
			if (p != w->answers) {
				ret = extent_map_answered(&m, &e);
				ck_assert_msg(!ret, "%s", e.text);
			}
			ck_assert(extent_map_next(&m, &offset));
			ck_assert_msg(offset == want, "asks at %llu, not %llu",
				      (unsigned long long)offset, want);
			for (unsigned c = 0; c < w->contexts; c++)
				at[c] = offset;
		} else {
			ck_assert_int_eq(sscanf(p, "%u:%llu=%u%n", &context, &length, &flags,
						&used),
					 3);
			extent_map_extent(&m, context, at[context], length, flags);
			at[context] += length;
			drain(&m, rows, sizeof(rows));
		}
		p += used;
		p += strspn(p, " ");
	}
	if (w->answers[0])
		ret = extent_map_answered(&m, &e);
	if (w->failure) {
		ck_assert_int_eq(ret, -EPROTO);
		ck_assert_int_eq(e.kind, ERR_PROTOCOL);
		ck_assert_msg(strstr(e.text, w->failure) != NULL, "%s", e.text);
	} else {
		ck_assert_msg(!ret, "%s", e.text);
		drain(&m, rows, sizeof(rows));
		ck_assert_str_eq(rows, w->rows);
		ck_assert(!extent_map_next(&m, &offset));
	}
	free(extents);
}
END_TEST

/* Whatever the pieces, the rows are those of a bitmap that is drawn byte by byte. */
START_TEST(any_pieces_make_the_same_map)
{
	enum { SIZE = 400, CONTEXTS = 3 };
	uint8_t drawn[CONTEXTS][SIZE];
	unsigned seed = (unsigned)_i * 2654435761u + 1;
	struct extent_map_extent extents[CONTEXTS * 3];
	struct extent_map_row row;
	uint64_t offset, done = 0;
	uint32_t last[CONTEXTS] = { 9, 9, 9 };
	struct err e;
	struct extent_map m;

#define RANDOM(n) ((seed = seed * 1103515245u + 12345u) >> 16) % (n)
	for (unsigned c = 0; c < CONTEXTS; c++)
		for (unsigned at = 0; at < SIZE;) {
			unsigned len = 1 + RANDOM(40), flags = RANDOM(3);

			for (; len && at < SIZE; len--)
				drawn[c][at++] = (uint8_t)flags;
		}
	extent_map_init(&m, SIZE, 4, CONTEXTS, extents, 3);
	for (;;) {
		bool more = extent_map_next(&m, &offset);

		while (extent_map_row(&m, &row)) {
			bool differs = false;

			ck_assert_uint_eq(row.offset, done);
			ck_assert_uint_gt(row.length, 0);
			for (unsigned c = 0; c < CONTEXTS; c++) {
				differs |= row.flags[c] != last[c];
				last[c] = row.flags[c];
				for (uint64_t at = done; at < done + row.length; at++)
					ck_assert_uint_eq(drawn[c][at], row.flags[c]);
			}
			ck_assert(differs);
			done += row.length;
		}
		if (!more)
			break;
		for (unsigned c = 0; c < CONTEXTS; c++) {
			uint64_t at = offset;

			/* at least a block, so that it gets ahead */
			for (unsigned n = 4 + RANDOM(4); n && at < SIZE; n--) {
				unsigned len = 1, max = 1 + RANDOM(9);

				while (len < max && at + len < SIZE &&
				       drawn[c][at + len] == drawn[c][at])
					len++;
				extent_map_extent(&m, c, at, len, drawn[c][at]);
				at += len;
			}
		}
		if (extent_map_answered(&m, &e))
			ck_assert_msg(m.of[0].count <= 3, "%s", e.text);
	}
	ck_assert_uint_eq(done, SIZE);
}
END_TEST

/* A server that gets ahead by single bytes is given up, one by sectors is not. */
START_TEST(tiny_answers_end)
{
	static const struct {
		uint64_t step;
		bool good;
	} table[] = { { 1, false }, { 511, false }, { 512, true }, { 4096, true } };
	struct extent_map_extent extents[EXTENT_MAP_ROOM_MIN];
	uint64_t offset, answers = 0;
	struct extent_map_row row;
	struct err e;
	struct extent_map m;
	int ret = 0;

	extent_map_init(&m, UINT64_C(1) << 40, 1, 1, extents, EXTENT_MAP_ROOM_MIN);
	while (!ret && answers < 10000 && extent_map_next(&m, &offset)) {
		extent_map_extent(&m, 0, offset, table[_i].step, (uint32_t)(answers++ & 1));
		while (extent_map_row(&m, &row))
			ck_assert_uint_eq(row.length, table[_i].step);
		ret = extent_map_answered(&m, &e);
	}
	ck_assert_int_eq(ret, table[_i].good ? 0 : -EPROTO);
	if (ret) {
		ck_assert_uint_eq(answers, EXTENT_MAP_PATIENCE + 1);
		ck_assert_ptr_nonnull(strstr(e.text, "too few to ever come to the end"));
	}
}
END_TEST

/* A small export may be described as it likes. */
START_TEST(a_small_export_may_have_tiny_answers)
{
	struct extent_map_extent extents[EXTENT_MAP_ROOM_MIN];
	uint64_t offset, rows = 0;
	struct extent_map_row row;
	struct err e;
	struct extent_map m;

	extent_map_init(&m, EXTENT_MAP_PATIENCE + 1, 1, 1, extents, EXTENT_MAP_ROOM_MIN);
	while (extent_map_next(&m, &offset)) {
		extent_map_extent(&m, 0, offset, 1, (uint32_t)(offset & 1));
		while (extent_map_row(&m, &row))
			rows++;
		ck_assert_int_eq(extent_map_answered(&m, &e), 0);
	}
	while (extent_map_row(&m, &row))
		rows++;
	ck_assert_uint_eq(rows, EXTENT_MAP_PATIENCE + 1);
}
END_TEST

START_TEST(totals)
{
	static const struct extent_map_row rows[] = {
		{ 0, 10, { 3, 1 } },
		{ 10, 5, { 0 } },
		{ 15, 1, { 3, 0 } },
		{ 16, 10, { 3, 1 } },
		{ 26, UINT32_MAX, { UINT32_MAX, 0 } },
		{ 26, UINT64_C(1) << 40, { 0 } },
	};
	static const struct extent_map_total wanted[] = {
		{ { 0 }, (UINT64_C(1) << 40) + 5, 2 },
		{ { 3, 0 }, 1, 1 },
		{ { 3, 1 }, 20, 2 },
		{ { UINT32_MAX, 0 }, UINT32_MAX, 1 },
	};
	static struct extent_map_total room[EXTENT_MAP_TOTALS_MAX];
	struct extent_map_totals t = { .total = room };
	struct err e;

	for (size_t i = 0; i < COUNT(rows); i++)
		ck_assert_int_eq(extent_map_add(&t, &rows[i], &e), 0);
	ck_assert_uint_eq(t.count, COUNT(wanted));
	for (size_t i = 0; i < COUNT(wanted); i++) {
		ck_assert_mem_eq(room[i].flags, wanted[i].flags, sizeof(room[i].flags));
		ck_assert_uint_eq(room[i].bytes, wanted[i].bytes);
		ck_assert_uint_eq(room[i].rows, wanted[i].rows);
	}
}
END_TEST

START_TEST(totals_are_bounded)
{
	struct extent_map_total *room = malloc(EXTENT_MAP_TOTALS_MAX * sizeof(*room));
	struct extent_map_totals t = { .total = room };
	struct extent_map_row row = { .length = 1 };
	struct err e;

	ck_assert_ptr_nonnull(room);
	for (uint32_t i = 0; i < EXTENT_MAP_TOTALS_MAX; i++) {
		row.flags[0] = i * 7919 % EXTENT_MAP_TOTALS_MAX;
		ck_assert_int_eq(extent_map_add(&t, &row, &e), 0);
	}
	for (uint32_t i = 0; i < EXTENT_MAP_TOTALS_MAX; i++)
		ck_assert(room[i].flags[0] == i && room[i].bytes == 1);
	ck_assert_int_eq(extent_map_add(&t, &row, &e), 0);
	row.flags[15] = 1;
	ck_assert_int_eq(extent_map_add(&t, &row, &e), -E2BIG);
	ck_assert_int_eq(e.kind, ERR_FAILED);
	ck_assert_uint_eq(t.count, EXTENT_MAP_TOTALS_MAX);
	free(room);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("extent_map");
	TCase *t = tcase_create("extent_map");

	tcase_add_loop_test(t, walk, 0, COUNT(walks));
	tcase_add_loop_test(t, any_pieces_make_the_same_map, 0, 50);
	tcase_add_loop_test(t, tiny_answers_end, 0, 4);
	tcase_add_test(t, a_small_export_may_have_tiny_answers);
	tcase_add_test(t, totals);
	tcase_add_test(t, totals_are_bounded);
	suite_add_tcase(s, t);
	return s;
}
