/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "base/bytes.h"

#include <string.h>

#include "../unit.h"

static const uint8_t fourteen[] = {
	0x01, 0x02, 0xf3, 0x04, 0x05, 0x06, 0xf7, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e,
};

START_TEST(numbers_are_read_big_endian)
{
	struct bytes_reader r;

	bytes_read_init(&r, fourteen, sizeof(fourteen));
	ck_assert_uint_eq(bytes_get_u16(&r), 0x0102);
	ck_assert_uint_eq(r.left, 12);
	ck_assert_uint_eq(bytes_get_u32(&r), 0xf3040506);
	ck_assert_uint_eq(r.left, 8);
	ck_assert_uint_eq(bytes_get_u64(&r), UINT64_C(0xf708090a0b0c0d0e));
	ck_assert_uint_eq(r.left, 0);
	ck_assert(!r.bad);
}
END_TEST

START_TEST(numbers_are_written_big_endian)
{
	uint8_t out[sizeof(fourteen)];
	struct bytes_writer w;

	bytes_write_init(&w, out, sizeof(out));
	bytes_put_u16(&w, 0x0102);
	ck_assert_uint_eq(w.len, 2);
	bytes_put_u32(&w, 0xf3040506);
	ck_assert_uint_eq(w.len, 6);
	bytes_put_u64(&w, UINT64_C(0xf708090a0b0c0d0e));
	ck_assert_uint_eq(w.len, 14);
	ck_assert(!w.bad);
	ck_assert_mem_eq(out, fourteen, sizeof(out));
}
END_TEST

static const uint64_t edges[] = {
	0,          1,
	0x7f,       0x80,
	0xff,       0x100,
	0x7fff,     0x8000,
	0xffff,     0x10000,
	0x7fffffff, 0x80000000,
	0xffffffff, UINT64_C(0x100000000),
	INT64_MAX,  UINT64_C(1) << 63,
	UINT64_MAX,
};

START_TEST(what_was_written_is_read_again)
{
	uint64_t v = edges[_i];
	uint8_t buf[14];
	struct bytes_writer w;
	struct bytes_reader r;

	bytes_write_init(&w, buf, sizeof(buf));
	bytes_put_u16(&w, (uint16_t)v);
	bytes_put_u32(&w, (uint32_t)v);
	bytes_put_u64(&w, v);
	ck_assert(!w.bad);
	bytes_read_init(&r, buf, sizeof(buf));
	ck_assert_uint_eq(bytes_get_u16(&r), (uint16_t)v);
	ck_assert_uint_eq(bytes_get_u32(&r), (uint32_t)v);
	ck_assert_uint_eq(bytes_get_u64(&r), v);
	ck_assert(!r.bad);
}
END_TEST

/* One byte short of a number: nothing of it is taken, and the reader stays bad. */
START_TEST(a_short_read_gives_zeros_for_good)
{
	static const size_t sizes[] = { 2, 4, 8 };

	for (size_t i = 0; i < 3; i++) {
		struct bytes_reader r;
		uint64_t v;

		bytes_read_init(&r, fourteen, sizes[i] - 1);
		v = sizes[i] == 2 ? bytes_get_u16(&r) :
		    sizes[i] == 4 ? bytes_get_u32(&r) :
				    bytes_get_u64(&r);
		ck_assert_uint_eq(v, 0);
		ck_assert(r.bad);
		ck_assert_uint_eq(r.left, sizes[i] - 1);
		ck_assert_ptr_eq(r.data, fourteen);
	}
}
END_TEST

START_TEST(a_bad_reader_stays_bad)
{
	struct bytes_reader r;

	bytes_read_init(&r, fourteen, 3);
	ck_assert_uint_eq(bytes_get_u32(&r), 0);
	/* Two bytes are there, but the message is not what it should be. */
	ck_assert_uint_eq(bytes_get_u16(&r), 0);
	ck_assert_uint_eq(r.left, 3);
	ck_assert(r.bad);
	bytes_read_init(&r, fourteen, 3);
	ck_assert(!r.bad);
	ck_assert_uint_eq(bytes_get_u16(&r), 0x0102);
}
END_TEST

START_TEST(nothing_to_read)
{
	struct bytes_reader r;

	bytes_read_init(&r, NULL, 0);
	ck_assert(!r.bad);
	ck_assert_uint_eq(bytes_get_u16(&r), 0);
	ck_assert(r.bad);
}
END_TEST

/* What does not fit is left out whole, and nothing after it is written either. */
START_TEST(a_full_writer_writes_nothing_for_good)
{
	uint8_t buf[8];
	struct bytes_writer w;

	memset(buf, 0xee, sizeof(buf));
	bytes_write_init(&w, buf, 5);
	bytes_put_u16(&w, 0x0102);
	bytes_put_u32(&w, 0x03040506);
	ck_assert(w.bad);
	bytes_put_u16(&w, 0x0708);
	bytes_put(&w, "x", 1);
	bytes_put(&w, NULL, 0);
	ck_assert(w.bad);
	ck_assert_uint_eq(w.len, 2);
	ck_assert_mem_eq(buf, "\x01\x02\xee\xee\xee\xee\xee\xee", 8);
}
END_TEST

START_TEST(a_writer_takes_exactly_its_capacity)
{
	uint8_t buf[8];
	struct bytes_writer w;

	bytes_write_init(&w, buf, sizeof(buf));
	bytes_put(&w, fourteen, 3);
	bytes_put(&w, NULL, 0);
	bytes_put(&w, fourteen + 3, 5);
	ck_assert(!w.bad);
	ck_assert_uint_eq(w.len, 8);
	ck_assert_mem_eq(buf, fourteen, 8);
	bytes_put(&w, NULL, 0);
	ck_assert(!w.bad);
	bytes_put(&w, fourteen, 1);
	ck_assert(w.bad);
}
END_TEST

/* A length near SIZE_MAX must not wrap round to something that fits. */
START_TEST(an_absurd_length_does_not_wrap)
{
	uint8_t buf[8];
	struct bytes_writer w;

	bytes_write_init(&w, buf, sizeof(buf));
	bytes_put_u16(&w, 1);
	bytes_put(&w, fourteen, SIZE_MAX);
	ck_assert(w.bad);
	ck_assert_uint_eq(w.len, 2);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("bytes");
	TCase *t = tcase_create("bytes");

	tcase_add_test(t, numbers_are_read_big_endian);
	tcase_add_test(t, numbers_are_written_big_endian);
	tcase_add_loop_test(t, what_was_written_is_read_again, 0,
			    (int)(sizeof(edges) / sizeof(edges[0])));
	tcase_add_test(t, a_short_read_gives_zeros_for_good);
	tcase_add_test(t, a_bad_reader_stays_bad);
	tcase_add_test(t, nothing_to_read);
	tcase_add_test(t, a_full_writer_writes_nothing_for_good);
	tcase_add_test(t, a_writer_takes_exactly_its_capacity);
	tcase_add_test(t, an_absurd_length_does_not_wrap);
	suite_add_tcase(s, t);
	return s;
}
