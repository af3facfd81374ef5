/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "cli/output.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../unit.h"

enum { NAME, SIZE, COUNT, RO };

static const struct output_column columns[] = {
	[NAME] = { "NAME", OUTPUT_TEXT },
	[SIZE] = { "SIZE", OUTPUT_SIZE },
	[COUNT] = { "COUNT", OUTPUT_NUMBER },
	[RO] = { "RO", OUTPUT_BOOL },
};
enum { COLUMNS = sizeof(columns) / sizeof(columns[0]) };

static void add(struct output *o, const char *name, uint64_t size, uint64_t count, bool ro)
{
	output_row(o);
	if (name)
		output_text(o, NAME, name);
	output_number(o, SIZE, size);
	output_number(o, COUNT, count);
	output_bool(o, RO, ro);
}

/* The text of a table of one or two rows; the caller's. */
static char *print(const struct output_format *f, const char *first, const char *second)
{
	struct output *o;
	struct err e;
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	ck_assert_msg(!output_begin(&o, "things", columns, COLUMNS, f, &e), "%s", e.text);
	if (first)
		add(o, first, 1536, 7, true);
	if (second)
		add(o, second, 3ULL << 30, 0, false);
	ck_assert_int_eq(output_print(o, out, &e), 0);
	output_end(o);
	fclose(out);
	return text;
}

static void check(const struct output_format *f, const char *first, const char *second,
		  const char *expected)
{
	char *text = print(f, first, second);

	ck_assert_str_eq(text, expected);
	free(text);
}

START_TEST(table)
{
	struct output_format f = { 0 };

	check(&f, "a", "bb",
	      "NAME SIZE COUNT RO\n"
	      "a    1.5K     7 1\n"
	      "bb     3G     0 0\n");
	f.bytes = true;
	check(&f, "a", "bb",
	      "NAME       SIZE COUNT RO\n"
	      "a          1536     7 1\n"
	      "bb   3221225472     0 0\n");
	f.no_headings = true;
	check(&f, "a", NULL, "a    1536     7 1\n");
	check(&f, NULL, NULL, "");
}
END_TEST

START_TEST(chosen_columns)
{
	struct output_format f = { .columns = "ro,Name" };

	check(&f, "a", "bb",
	      "RO NAME\n"
	      "1  a\n"
	      "0  bb\n");
	f.properties = true;
	check(&f, "a", NULL,
	      "RO   1\n"
	      "NAME a\n");
}
END_TEST

START_TEST(wanted_columns)
{
	struct output_format f = { .columns = "size" };
	struct output *out = NULL;
	struct err e;

	ck_assert_int_eq(output_begin(&out, "things", columns, COLUMNS, &f, &e), 0);
	for (size_t i = 0; i < COLUMNS; i++)
		ck_assert_int_eq(output_wants(out, i), !strcmp(columns[i].name, "SIZE"));
	output_end(out);
	f.columns = NULL;
	ck_assert_int_eq(output_begin(&out, "things", columns, COLUMNS, &f, &e), 0);
	for (size_t i = 0; i < COLUMNS; i++)
		ck_assert(output_wants(out, i));
	output_end(out);
}
END_TEST

START_TEST(properties)
{
	struct output_format f = { .properties = true };

	check(&f, "a", NULL,
	      "NAME  a\n"
	      "SIZE  1.5K\n"
	      "COUNT 7\n"
	      "RO    1\n");
	f.no_headings = true;
	f.columns = "SIZE";
	check(&f, "a", "b",
	      "1.5K\n"
	      "3G\n");
}
END_TEST

START_TEST(json)
{
	struct output_format f = { .json = true, .properties = true, .columns = "NAME,SIZE,RO" };

	check(&f, "a", "q\"\n",
	      "{\n"
	      "   \"things\": [\n"
	      "      {\n"
	      "         \"name\": \"a\",\n"
	      "         \"size\": 1536,\n"
	      "         \"ro\": true\n"
	      "      },{\n"
	      "         \"name\": \"q\\\"\\n\",\n"
	      "         \"size\": 3221225472,\n"
	      "         \"ro\": false\n"
	      "      }\n"
	      "   ]\n"
	      "}\n");
	check(&f, NULL, NULL, "{\n   \"things\": []\n}\n");
}
END_TEST

/* Nothing of a server moves the cursor, whatever the format. */
START_TEST(hostile_text)
{
	static const char hostile[] = "\x1b[2J\x9b\r\xe2\x80\xae"
				      "\xff";
	struct output_format formats[] = {
		{ .columns = "NAME" },
		{ .columns = "NAME", .properties = true },
		{ .columns = "NAME", .json = true },
	};

	for (size_t i = 0; i < 3; i++) {
		char *text = print(&formats[i], hostile, NULL);

		for (const char *p = text; *p; p++)
			ck_assert_msg(*p == '\n' || (*p >= ' ' && *p < 0x7f), "0x%02x in %s",
				      (unsigned char)*p, text);
		ck_assert_ptr_nonnull(strstr(text, "xff"));
		free(text);
	}
	/* valid UTF-8 is kept in JSON, where only what JSON forbids is escaped */
	char *text = print(&formats[2], "gr\xc3\xbc\xc3\x9f", NULL);

	ck_assert_ptr_nonnull(strstr(text, "gr\xc3\xbc\xc3\x9f"));
	free(text);

	/* what a terminal obeys is written otherwise, and is the same to who reads JSON */
	text = print(&formats[2], "\xc2\x9b\xe2\x80\xae\xf3\xa0\x80\x81\x7f", NULL);
	ck_assert_ptr_nonnull(strstr(text, "\"\\u009b\\u202e\\udb40\\udc01\\u007f\""));
	free(text);
}
END_TEST

/* What is encoded already is not encoded again, but by JSON. */
START_TEST(encoded_cells)
{
	static const struct output_column link[] = { { "LINK", OUTPUT_ENCODED } };
	struct output_format f = { .no_headings = true };
	struct output *o;
	struct err e;

	for (int in_json = 0; in_json < 2; in_json++) {
		char *text = NULL;
		size_t len = 0;
		FILE *out = open_memstream(&text, &len);

		f.json = in_json;
		ck_assert_int_eq(output_begin(&o, "things", link, 1, &f, &e), 0);
		output_row(o);
		output_text(o, 0, "h-a\\x2fb");
		ck_assert_int_eq(output_print(o, out, &e), 0);
		output_end(o);
		fclose(out);
		if (in_json)
			ck_assert_ptr_nonnull(strstr(text, "\"link\": \"h-a\\\\x2fb\""));
		else
			ck_assert_str_eq(text, "h-a\\x2fb\n");
		free(text);
	}
}
END_TEST

START_TEST(empty_cells)
{
	struct output_format f = { .json = true, .columns = "NAME,COUNT" };
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);
	struct output *o;
	struct err e;

	ck_assert_int_eq(output_begin(&o, "things", columns, COLUMNS, &f, &e), 0);
	output_row(o);
	ck_assert_int_eq(output_print(o, out, &e), 0);
	output_end(o);
	fclose(out);
	ck_assert_ptr_nonnull(strstr(text, "\"name\": null"));
	ck_assert_ptr_nonnull(strstr(text, "\"count\": null"));
	free(text);
}
END_TEST

START_TEST(wrong_columns)
{
	static const char *const wrong[] = {
		"BOGUS", "", "NAME,", "NAME,NAME", "NAME;RO", "NAMES"
	};
	struct output_format f = { .columns = wrong[_i] };
	struct output *o;
	struct err e;

	ck_assert_int_eq(output_begin(&o, "things", columns, COLUMNS, &f, &e), -EINVAL);
	ck_assert_ptr_null(o);
	ck_assert_int_eq((int)e.kind, (int)ERR_USAGE);
	ck_assert_ptr_nonnull(
		strstr(e.text, strcmp(wrong[_i], "NAME,NAME") ? "NAME,SIZE,COUNT,RO" : "twice"));
}
END_TEST

START_TEST(full_stream)
{
	struct output_format f = { 0 };
	FILE *out = fopen("/dev/full", "w");
	struct output *o;
	struct err e;

	ck_assert_ptr_nonnull(out);
	ck_assert_int_eq(output_begin(&o, "things", columns, COLUMNS, &f, &e), 0);
	add(o, "a", 1, 2, true);
	ck_assert_int_eq(output_print(o, out, &e), -ENOSPC);
	ck_assert_ptr_nonnull(strstr(e.text, "write the output"));
	output_end(o);
	fclose(out);
}
END_TEST

/* A cell that could not be set (here: without a row) fails the whole; nothing is printed. */
START_TEST(errors_are_kept)
{
	struct output_format f = { .properties = _i };
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);
	struct output *o;
	struct err e;

	ck_assert_int_eq(output_begin(&o, "things", columns, COLUMNS, &f, &e), 0);
	output_text(o, NAME, "lost");
	add(o, "a", 1, 2, true);
	ck_assert_int_eq(output_print(o, out, &e), -ENOMEM);
	ck_assert_ptr_nonnull(strstr(e.text, "make a table"));
	output_end(o);
	fclose(out);
	ck_assert_uint_eq(len, 0);
	free(text);
}
END_TEST

static const struct {
	uint64_t bytes;
	const char *text;
} sizes[] = {
	{ 0, "0B" },       { 512, "512B" },        { 1023, "1023B" },     { 1024, "1K" },
	{ 1075, "1K" },    { 1076, "1.1K" },       { 2047, "2K" },        { 1048575, "1M" },
	{ 1 << 20, "1M" }, { 10737418240, "10G" }, { UINT64_MAX, "16E" },
};

START_TEST(human_sizes)
{
	struct output_format f = { .columns = "SIZE", .properties = true };
	char *text = NULL, expected[32];
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);
	struct output *o;
	struct err e;

	ck_assert_int_eq(output_begin(&o, "things", columns, COLUMNS, &f, &e), 0);
	output_row(o);
	output_number(o, SIZE, sizes[_i].bytes);
	ck_assert_int_eq(output_print(o, out, &e), 0);
	output_end(o);
	fclose(out);
	snprintf(expected, sizeof(expected), "SIZE %s\n", sizes[_i].text);
	ck_assert_str_eq(text, expected);
	free(text);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("output");
	TCase *t = tcase_create("output");

	tcase_add_test(t, table);
	tcase_add_test(t, chosen_columns);
	tcase_add_test(t, wanted_columns);
	tcase_add_test(t, properties);
	tcase_add_test(t, json);
	tcase_add_test(t, hostile_text);
	tcase_add_test(t, encoded_cells);
	tcase_add_test(t, empty_cells);
	tcase_add_loop_test(t, wrong_columns, 0, 6);
	tcase_add_test(t, full_stream);
	tcase_add_loop_test(t, errors_are_kept, 0, 2);
	tcase_add_loop_test(t, human_sizes, 0, sizeof(sizes) / sizeof(sizes[0]));
	suite_add_tcase(s, t);
	return s;
}
