/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "base/text.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "../unit.h"

#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))
#define BYTES(s) s, sizeof(s) - 1

/* In each: what comes in, and what a terminal may see. */
static const struct {
	const char *in;
	size_t len;
	const char *out;
} escapes[] = {
	{ BYTES(""), "" },
	{ BYTES("disk 0"), "disk 0" },
	{ BYTES("a\\b"), "a\\\\b" },
	{ BYTES("\\x1b"), "\\\\x1b" },
	{ BYTES("\x1b[2J"), "\\x1b[2J" },
	{ BYTES("a\0b"), "a\\x00b" },
	{ BYTES("\t\r\n"), "\\x09\\x0d\\x0a" },
	{ BYTES("\x1f\x20\x7e\x7f"), "\\x1f ~\\x7f" },
	/* U+0080, U+009F (C1) and U+00A0, the first behind them */
	{ BYTES("\xc2\x80\xc2\x9f\xc2\xa0"), "\\xc2\\x80\\xc2\\x9f\xc2\xa0" },
	/* e acute, euro, an emoji: two, three and four bytes */
	{ BYTES("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"), "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80" },
	/* U+00AD soft hyphen, U+034F, U+061C Arabic letter mark */
	{ BYTES("\xc2\xad\xcd\x8f\xd8\x9c"), "\\xc2\\xad\\xcd\\x8f\\xd8\\x9c" },
	/* U+200A is a space, U+200B is not; U+200F is the last, U+2010 a hyphen */
	{ BYTES("\xe2\x80\x8a"), "\xe2\x80\x8a" },
	{ BYTES("\xe2\x80\x8b"), "\\xe2\\x80\\x8b" },
	{ BYTES("\xe2\x80\x8f"), "\\xe2\\x80\\x8f" },
	{ BYTES("\xe2\x80\x90"), "\xe2\x80\x90" },
	/* U+2027, U+2028, U+202E (right-to-left override), U+202F */
	{ BYTES("\xe2\x80\xa7"), "\xe2\x80\xa7" },
	{ BYTES("\xe2\x80\xa8"), "\\xe2\\x80\\xa8" },
	{ BYTES("\xe2\x80\xae"), "\\xe2\\x80\\xae" },
	{ BYTES("\xe2\x80\xaf"), "\xe2\x80\xaf" },
	/* U+205F, U+2060, U+2066 (isolate), U+206F, U+2070 */
	{ BYTES("\xe2\x81\x9f"), "\xe2\x81\x9f" },
	{ BYTES("\xe2\x81\xa0"), "\\xe2\\x81\\xa0" },
	{ BYTES("\xe2\x81\xa6"), "\\xe2\\x81\\xa6" },
	{ BYTES("\xe2\x81\xaf"), "\\xe2\\x81\\xaf" },
	{ BYTES("\xe2\x81\xb0"), "\xe2\x81\xb0" },
	/* U+3164 Hangul filler, U+FE0F variation selector, U+FEFF, U+FFA0 */
	{ BYTES("\xe3\x85\xa4"), "\\xe3\\x85\\xa4" },
	{ BYTES("\xef\xb8\x8f"), "\\xef\\xb8\\x8f" },
	{ BYTES("\xef\xbb\xbf"), "\\xef\\xbb\\xbf" },
	{ BYTES("\xef\xbe\xa0"), "\\xef\\xbe\\xa0" },
	/* U+FFF9, U+FFFB, U+FFFC, U+FFFD */
	{ BYTES("\xef\xbf\xb9"), "\\xef\\xbf\\xb9" },
	{ BYTES("\xef\xbf\xbb"), "\\xef\\xbf\\xbb" },
	{ BYTES("\xef\xbf\xbc\xef\xbf\xbd"), "\xef\xbf\xbc\xef\xbf\xbd" },
	/* U+E0001 language tag, U+E0041 tag A, U+E1000 behind them */
	{ BYTES("\xf3\xa0\x80\x81"), "\\xf3\\xa0\\x80\\x81" },
	{ BYTES("\xf3\xa0\x81\x81"), "\\xf3\\xa0\\x81\\x81" },
	{ BYTES("\xf3\xa1\x80\x80"), "\xf3\xa1\x80\x80" },
	/* not UTF-8: each byte alone, and what follows is read again */
	{ BYTES("\xff"
		"a"),
	  "\\xffa" },
	{ BYTES("\xc3("), "\\xc3(" },
	{ BYTES("\xe2\x82"), "\\xe2\\x82" },
	{ BYTES("\xe2\xc3\xa9"), "\\xe2\xc3\xa9" },
	{ BYTES("\xc0\x80"), "\\xc0\\x80" },
	{ BYTES("\xed\xa0\x80"), "\\xed\\xa0\\x80" },
};

START_TEST(escape_makes_text_safe)
{
	char dst[64];
	size_t n;

	memset(dst, '#', sizeof(dst));
	n = text_escape(dst, sizeof(dst), escapes[_i].in, escapes[_i].len);
	ck_assert_str_eq(dst, escapes[_i].out);
	ck_assert_uint_eq(n, strlen(escapes[_i].out));
}
END_TEST

static const struct {
	const char *in;
	size_t cap;
	const char *out;
} cuts[] = {
	{ "abcdef", 7, "abcdef" },
	{ "abcdef", 6, "ab..." },
	{ "abcdef", 5, "a..." },
	{ "abcdef", 4, "..." },
	{ "abcdef", 3, ".." },
	{ "abcdef", 2, "." },
	{ "abcdef", 1, "" },
	{ "", 1, "" },
	{ "abc", 4, "abc" },
	{ "abcd", 4, "..." },
	/* an escape is whole or absent */
	{ "ab\n", 7, "ab\\x0a" },
	{ "ab\n", 6, "ab..." },
	{ "ab\nc", 7, "ab..." },
	{ "a\nbc", 8, "a\\x0abc" },
	{ "a\nbcdef", 9, "a\\x0a..." },
	{ "a\nbcdef", 8, "a..." },
	{ "a\\bcdef", 7, "a\\\\..." },
	{ "a\\bcdef", 6, "a..." },
	/* so is a character of several bytes */
	{ "a\xe2\x82\xac"
	  "bcdef",
	  8, "a\xe2\x82\xac..." },
	{ "a\xe2\x82\xac"
	  "bcdef",
	  7, "a..." },
	{ "\xe2\x80\xae"
	  "abc",
	  15, "..." },
	{ "\xe2\x80\xae"
	  "abc",
	  16,
	  "\\xe2\\x80\\xae"
	  "abc" },
	{ "\xe2\x80\xae"
	  "abcd",
	  16, "\\xe2\\x80\\xae..." },
	{ "\xf3\xa0\x80\x81", 17, "\\xf3\\xa0\\x80\\x81" },
	{ "\xf3\xa0\x80\x81", 16, "..." },
};

START_TEST(escape_cuts_between_characters)
{
	char dst[32];
	size_t n;

	memset(dst, '#', sizeof(dst));
	n = text_escape(dst, cuts[_i].cap, cuts[_i].in, strlen(cuts[_i].in));
	ck_assert_str_eq(dst, cuts[_i].out);
	ck_assert_uint_eq(n, strlen(cuts[_i].out));
	for (size_t i = cuts[_i].cap; i < sizeof(dst); i++)
		ck_assert_int_eq(dst[i], '#');
}
END_TEST

static const struct {
	const char *s;
	size_t len;
	bool valid;
} utf8[] = {
	{ BYTES(""), true },
	{ BYTES("disk"), true },
	{ BYTES("\x01\x7f"), true },
	{ BYTES("\xc2\x80"), true },
	{ BYTES("\xdf\xbf"), true },
	{ BYTES("\xe0\xa0\x80"), true },
	{ BYTES("\xed\x9f\xbf"), true },
	{ BYTES("\xee\x80\x80"), true },
	{ BYTES("\xef\xbf\xbf"), true },
	{ BYTES("\xf0\x90\x80\x80"), true },
	{ BYTES("\xf4\x8f\xbf\xbf"), true },
	{ BYTES("a\0b"), false },
	{ BYTES("\x80"), false },
	{ BYTES("\xbf"), false },
	{ BYTES("\xc0\x80"), false },
	{ BYTES("\xc1\xbf"), false },
	{ BYTES("\xe0\x9f\xbf"), false },
	{ BYTES("\xf0\x8f\xbf\xbf"), false },
	{ BYTES("\xed\xa0\x80"), false },
	{ BYTES("\xed\xbf\xbf"), false },
	{ BYTES("\xf4\x90\x80\x80"), false },
	{ BYTES("\xf5\x80\x80\x80"), false },
	{ BYTES("\xf8\x88\x80\x80\x80"), false },
	{ BYTES("\xfe"), false },
	{ BYTES("\xff"), false },
	{ BYTES("\xc3"), false },
	{ BYTES("\xe2\x82"), false },
	{ BYTES("\xf0\x9f\x98"), false },
	{ BYTES("\xc3"
		"a"),
	  false },
	{ BYTES("\xe2\x82"
		"a"),
	  false },
	{ BYTES("good, then \xe9"), false },
};

START_TEST(utf8_is_of_rfc_3629)
{
	char copy[32];

	/* Ends with the array, so that valgrind and the sanitizer see a byte read too far. */
	memcpy(copy + sizeof(copy) - utf8[_i].len, utf8[_i].s, utf8[_i].len);
	ck_assert_int_eq(text_is_utf8(copy + sizeof(copy) - utf8[_i].len, utf8[_i].len),
			 utf8[_i].valid);
}
END_TEST

static const struct {
	const char *s;
	bool suffixes;
	uint64_t min, max;
	int rc;
	uint64_t value;
} numbers[] = {
	{ "0", false, 0, 10, 0, 0 },
	{ "10", false, 0, 10, 0, 10 },
	{ "007", false, 0, 10, 0, 7 },
	{ "11", false, 0, 10, -ERANGE, 0 },
	{ "1", false, 2, 10, -ERANGE, 0 },
	{ "2", false, 2, 10, 0, 2 },
	{ "18446744073709551615", false, 0, UINT64_MAX, 0, UINT64_MAX },
	{ "18446744073709551616", false, 0, UINT64_MAX, -ERANGE, 0 },
	{ "184467440737095516150", false, 0, UINT64_MAX, -ERANGE, 0 },
	{ "99999999999999999999999", false, 0, UINT64_MAX, -ERANGE, 0 },
	{ "", false, 0, 10, -EINVAL, 0 },
	{ " 1", false, 0, 10, -EINVAL, 0 },
	{ "1 ", false, 0, 10, -EINVAL, 0 },
	{ "+1", false, 0, 10, -EINVAL, 0 },
	{ "-1", false, 0, UINT64_MAX, -EINVAL, 0 },
	{ "0x1", false, 0, 10, -EINVAL, 0 },
	{ "1.0", false, 0, 10, -EINVAL, 0 },
	{ "1k", false, 0, UINT64_MAX, -EINVAL, 0 },
	{ "99999999999999999999999x", false, 0, UINT64_MAX, -EINVAL, 0 },
	{ "512", true, 0, UINT64_MAX, 0, 512 },
	{ "4K", true, 0, UINT64_MAX, 0, 4096 },
	{ "4k", true, 0, UINT64_MAX, 0, 4096 },
	{ "4KiB", true, 0, UINT64_MAX, 0, 4096 },
	{ "4kiB", true, 0, UINT64_MAX, 0, 4096 },
	{ "3M", true, 0, UINT64_MAX, 0, 3145728 },
	{ "3m", true, 0, UINT64_MAX, 0, 3145728 },
	{ "1GiB", true, 0, UINT64_MAX, 0, 1073741824 },
	{ "2T", true, 0, UINT64_MAX, 0, UINT64_C(2199023255552) },
	{ "5p", true, 0, UINT64_MAX, 0, UINT64_C(5629499534213120) },
	{ "15E", true, 0, UINT64_MAX, 0, UINT64_C(17293822569102704640) },
	{ "16E", true, 0, UINT64_MAX, -ERANGE, 0 },
	{ "0E", true, 0, UINT64_MAX, 0, 0 },
	{ "18446744073709551616K", true, 0, UINT64_MAX, -ERANGE, 0 },
	{ "1K", true, 0, 1023, -ERANGE, 0 },
	{ "1K", true, 0, 1024, 0, 1024 },
	{ "K", true, 0, UINT64_MAX, -EINVAL, 0 },
	{ "1B", true, 0, UINT64_MAX, -EINVAL, 0 },
	{ "1iB", true, 0, UINT64_MAX, -EINVAL, 0 },
	{ "1KB", true, 0, UINT64_MAX, -EINVAL, 0 },
	{ "1Ki", true, 0, UINT64_MAX, -EINVAL, 0 },
	{ "1KIB", true, 0, UINT64_MAX, -EINVAL, 0 },
	{ "1KiBx", true, 0, UINT64_MAX, -EINVAL, 0 },
	{ "1KK", true, 0, UINT64_MAX, -EINVAL, 0 },
	{ "1 K", true, 0, UINT64_MAX, -EINVAL, 0 },
	{ "1Z", true, 0, UINT64_MAX, -EINVAL, 0 },
};

START_TEST(number_is_strict)
{
	uint64_t v = 4711;
	int rc = text_number(numbers[_i].s, numbers[_i].suffixes, numbers[_i].min, numbers[_i].max,
			     &v);

	ck_assert_msg(rc == numbers[_i].rc, "\"%s\": %d", numbers[_i].s, rc);
	ck_assert_uint_eq(v, rc == 0 ? numbers[_i].value : 4711);
}
END_TEST

static const struct {
	const char *s;
	uint64_t min, max;
	int rc;
	uint64_t ms;
} seconds[] = {
	{ "30", 0, 60000, 0, 30000 },
	{ "0", 0, 60000, 0, 0 },
	{ "0.5", 0, 60000, 0, 500 },
	{ "0.05", 0, 60000, 0, 50 },
	{ "0.005", 0, 60000, 0, 5 },
	{ "1.234", 0, 60000, 0, 1234 },
	{ "1.000", 0, 60000, 0, 1000 },
	{ "60", 0, 60000, 0, 60000 },
	{ "60.001", 0, 60000, -ERANGE, 0 },
	{ "0.099", 100, 60000, -ERANGE, 0 },
	{ "0.1", 100, 60000, 0, 100 },
	{ "18446744073709551.615", 0, UINT64_MAX, 0, UINT64_MAX },
	{ "18446744073709551.616", 0, UINT64_MAX, -ERANGE, 0 },
	{ "18446744073709552", 0, UINT64_MAX, -ERANGE, 0 },
	{ "99999999999999999999", 0, UINT64_MAX, -ERANGE, 0 },
	{ "", 0, 60000, -EINVAL, 0 },
	{ ".", 0, 60000, -EINVAL, 0 },
	{ ".5", 0, 60000, -EINVAL, 0 },
	{ "1.", 0, 60000, -EINVAL, 0 },
	{ "1.2345", 0, 60000, -EINVAL, 0 },
	{ "1.2000", 0, 60000, -EINVAL, 0 },
	{ "1.2.3", 0, 60000, -EINVAL, 0 },
	{ "1.5s", 0, 60000, -EINVAL, 0 },
	{ "1,5", 0, 60000, -EINVAL, 0 },
	{ "1s", 0, 60000, -EINVAL, 0 },
	{ "1e1", 0, 60000, -EINVAL, 0 },
	{ "-1", 0, 60000, -EINVAL, 0 },
	{ "1.-5", 0, 60000, -EINVAL, 0 },
	{ " 1", 0, 60000, -EINVAL, 0 },
	{ "99999999999999999999x", 0, UINT64_MAX, -EINVAL, 0 },
};

START_TEST(seconds_are_strict)
{
	uint64_t v = 4711;
	int rc = text_seconds(seconds[_i].s, seconds[_i].min, seconds[_i].max, &v);

	ck_assert_msg(rc == seconds[_i].rc, "\"%s\": %d", seconds[_i].s, rc);
	ck_assert_uint_eq(v, rc == 0 ? seconds[_i].ms : 4711);
}
END_TEST

static const struct {
	const char *s;
	int rc;
	unsigned index;
} devices[] = {
	{ "nbd0", 0, 0 },
	{ "nbd3", 0, 3 },
	{ "/dev/nbd3", 0, 3 },
	{ "/dev/nbd10", 0, 10 },
	{ "nbd1048575", 0, 1048575 },
	{ "nbd1048576", -EINVAL, 0 },
	{ "nbd4294967296", -EINVAL, 0 },
	{ "nbd18446744073709551616", -EINVAL, 0 },
	{ "", -EINVAL, 0 },
	{ "3", -EINVAL, 0 },
	{ "nbd", -EINVAL, 0 },
	{ "/dev/", -EINVAL, 0 },
	{ "/dev/nbd", -EINVAL, 0 },
	{ "/dev/3", -EINVAL, 0 },
	{ "nbd03", -EINVAL, 0 },
	{ "nbd00", -EINVAL, 0 },
	{ "nbd-1", -EINVAL, 0 },
	{ "nbd+1", -EINVAL, 0 },
	{ "nbd 1", -EINVAL, 0 },
	{ "nbd1 ", -EINVAL, 0 },
	{ "nbd3p1", -EINVAL, 0 },
	{ "/dev/nbd3p1", -EINVAL, 0 },
	{ "NBD3", -EINVAL, 0 },
	{ "dev/nbd3", -EINVAL, 0 },
	{ "//dev/nbd3", -EINVAL, 0 },
	{ "/dev//nbd3", -EINVAL, 0 },
	{ "/dev/dev/nbd3", -EINVAL, 0 },
	{ "/dev//dev/nbd3", -EINVAL, 0 },
	{ "/dev/sda", -EINVAL, 0 },
	{ "nbd1K", -EINVAL, 0 },
};

START_TEST(nbd_index_is_of_a_whole_device)
{
	unsigned index = 4711;
	int rc = text_nbd_index(devices[_i].s, &index);

	ck_assert_msg(rc == devices[_i].rc, "\"%s\": %d", devices[_i].s, rc);
	ck_assert_uint_eq(index, rc == 0 ? devices[_i].index : 4711);
}
END_TEST

/* Every byte but NUL is written as it is or encoded, nothing else. */
START_TEST(put_encodes_all_but_what_is_plain)
{
	static const char letters_and_digits[] =
		"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

	for (int c = 1; c < 256; c++) {
		char s[2] = { (char)c }, percent[8], hex[8], expected[8];
		struct text_writer w = { percent, sizeof(percent), 0 };
		struct text_writer x = { hex, sizeof(hex), 0 };
		bool plain = strchr(letters_and_digits, c) || strchr("-%", c);

		text_put_percent(&w, s, "-%");
		text_put_hex(&x, s, "-%");
		snprintf(expected, sizeof(expected), plain ? "%c" : "%%%02X", c);
		ck_assert_str_eq(percent, expected);
		ck_assert_uint_eq(w.len, strlen(expected));
		snprintf(expected, sizeof(expected), plain ? "%c" : "\\x%02x", c);
		ck_assert_str_eq(hex, expected);
		ck_assert_uint_eq(x.len, strlen(expected));
	}
}
END_TEST

START_TEST(put_appends)
{
	char buf[32];
	struct text_writer w = { buf, sizeof(buf), 0 };

	text_put(&w, "");
	ck_assert_str_eq(buf, "");
	text_put(&w, "a b%");
	text_put_percent(&w, "c d/\xff", "/");
	text_put_hex(&w, "e f\\", "");
	ck_assert_str_eq(buf, "a b%c%20d/%FFe\\x20f\\x5c");
	ck_assert_uint_eq(w.len, strlen(buf));
}
END_TEST

/* At each size of the buffer the beginning of the same text, and nothing behind it. */
START_TEST(put_stays_in_its_buffer)
{
	static const char whole[] = "ab%2Fc\\x2f";
	char buf[sizeof(whole) + 2];
	size_t cap = (size_t)_i;
	struct text_writer w = { buf, cap, 0 };

	memset(buf, 'G', sizeof(buf));
	text_put(&w, "ab");
	text_put_percent(&w, "/c", "");
	text_put_hex(&w, "/", "");
	ck_assert_uint_eq(w.len, cap - 1 < strlen(whole) ? cap - 1 : strlen(whole));
	ck_assert_mem_eq(buf, whole, w.len);
	ck_assert_int_eq(buf[w.len], '\0');
	ck_assert_int_eq(buf[cap], 'G');
}
END_TEST

START_TEST(a_long_text_is_cut_and_hashed)
{
	/* '@' stands for the hash. */
	static const struct {
		const char *in, *out;
		char escape;
	} table[] = {
		{ "", "", '\\' },
		{ "short", "short", '\0' },
		{ "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", '\0' },
		{ "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "xxxxxxxxxxxxx~@", '\0' },
		{ "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxy", "xxxxxxxxxxxxx~@", '\0' },
		{ "xxxxxxxxx\\x2fxxxxxxxxxxxxxxxxxxxx", "xxxxxxxxx\\x2f~@", '\\' },
		{ "xxxxxxxxxx\\x2fxxxxxxxxxxxxxxxxxxxx", "xxxxxxxxxx~@", '\\' },
		{ "xxxxxxxxxx\\x2fxxxxxxxxxxxxxxxxxxxx", "xxxxxxxxxx\\x2~@", '\0' },
		{ "xxxxxxxxxxxx\\x2fxxxxxxxxxxxxxxxxxxxx", "xxxxxxxxxxxx~@", '\\' },
		{ "xxxxxxxxxxxxx\\x2fxxxxxxxxxxxxxxxxxxxx", "xxxxxxxxxxxxx~@", '\\' },
	};
	char buf[32] = "", expected[64];
	uint64_t hash = UINT64_C(0xcbf29ce484222325);
	const char *at = strchr(table[_i].out, '@');

	buf[31] = 'G';
	text_cut_and_hash(buf, 30, table[_i].in, '~', table[_i].escape);
	for (const char *s = table[_i].in; *s; s++)
		hash = (hash ^ (unsigned char)*s) * UINT64_C(0x100000001b3);
	snprintf(expected, sizeof(expected), "%.*s%016llx",
		 at ? (int)(at - table[_i].out) : (int)strlen(table[_i].out), table[_i].out,
		 (unsigned long long)hash);
	if (!at)
		expected[strlen(table[_i].out)] = '\0';
	ck_assert_str_eq(buf, expected);
	ck_assert_int_eq(buf[31], 'G');
}
END_TEST

/* A known value, so that names stay the same from version to version. */
START_TEST(the_hash_is_fnv_1a)
{
	char buf[31];

	text_cut_and_hash(buf, 30, "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", '~', '\0');
	ck_assert_str_eq(buf, "xxxxxxxxxxxxx~1bb98f0fae83573f");
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("text");
	TCase *t = tcase_create("text");

	tcase_add_loop_test(t, escape_makes_text_safe, 0, COUNT(escapes));
	tcase_add_loop_test(t, escape_cuts_between_characters, 0, COUNT(cuts));
	tcase_add_test(t, put_encodes_all_but_what_is_plain);
	tcase_add_test(t, put_appends);
	tcase_add_loop_test(t, put_stays_in_its_buffer, 1, 12);
	tcase_add_loop_test(t, a_long_text_is_cut_and_hashed, 0, 10);
	tcase_add_test(t, the_hash_is_fnv_1a);
	tcase_add_loop_test(t, utf8_is_of_rfc_3629, 0, COUNT(utf8));
	tcase_add_loop_test(t, number_is_strict, 0, COUNT(numbers));
	tcase_add_loop_test(t, seconds_are_strict, 0, COUNT(seconds));
	tcase_add_loop_test(t, nbd_index_is_of_a_whole_device, 0, COUNT(devices));
	suite_add_tcase(s, t);
	return s;
}
