/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "cli/output.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <libsmartcols.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

struct output {
	struct output_format format;
	const struct output_column *columns;
	size_t count;
	struct libscols_table *table;
	struct libscols_line *line;
	int *place; /* position in the table for each of columns, -1: not chosen */
	int chosen;
	bool failed; /* a row or cell is missing: out of memory */
};

static int out_of_memory(struct err *e)
{
	return err_sys(e, ERR_FAILED, ENOMEM, "make a table");
}

static int add_column(struct output *o, size_t i, struct err *e)
{
	static const int json_types[] = {
		[OUTPUT_TEXT] = SCOLS_JSON_STRING,    [OUTPUT_NUMBER] = SCOLS_JSON_NUMBER,
		[OUTPUT_SIZE] = SCOLS_JSON_NUMBER,    [OUTPUT_BOOL] = SCOLS_JSON_BOOLEAN,
		[OUTPUT_ENCODED] = SCOLS_JSON_STRING,
	};
	const struct output_column *c = &o->columns[i];
	bool right = c->type == OUTPUT_NUMBER || c->type == OUTPUT_SIZE;
	struct libscols_column *col;
	char name[64];
	size_t n;

	if (o->place[i] >= 0)
		return err_set(e, ERR_USAGE, EINVAL, "column %s is given twice", c->name);
	o->place[i] = o->chosen++;
	if (o->format.properties)
		return 0;
	for (n = 0; c->name[n] && n + 1 < sizeof(name); n++)
		name[n] = o->format.json ? (char)tolower((unsigned char)c->name[n]) : c->name[n];
	name[n] = '\0';
	col = scols_table_new_column(o->table, name, 0, right ? SCOLS_FL_RIGHT : 0);
	if (!col || scols_column_set_json_type(col, json_types[c->type]))
		return out_of_memory(e);
	return 0;
}

static int choose_column(struct output *o, const char *name, size_t len, struct err *e)
{
	char known[512] = "", shown[80];

	for (size_t i = 0; i < o->count; i++) {
		if (strlen(o->columns[i].name) == len &&
		    !strncasecmp(o->columns[i].name, name, len))
			return add_column(o, i, e);
		if (i)
			strncat(known, ",", sizeof(known) - strlen(known) - 1);
		strncat(known, o->columns[i].name, sizeof(known) - strlen(known) - 1);
	}
	text_escape(shown, sizeof(shown), name, len);
	return err_set(e, ERR_USAGE, EINVAL, "unknown column \"%s\"; there are %s", shown, known);
}

static int choose_columns(struct output *o, struct err *e)
{
	const char *p = o->format.columns;
	int ret = 0;

	if (!p) {
		for (size_t i = 0; i < o->count && !ret; i++)
			ret = add_column(o, i, e);
		return ret;
	}
	for (;;) {
		size_t len = strcspn(p, ",");

		ret = choose_column(o, p, len, e);
		if (ret || !p[len])
			return ret;
		p += len + 1;
	}
}

int output_begin(struct output **out, const char *name, const struct output_column *columns,
		 size_t count, const struct output_format *f, struct err *e)
{
	struct output *o = calloc(1, sizeof(*o));
	int ret;

	*out = NULL;
	if (!o)
		return out_of_memory(e);
	o->format = *f;
	o->format.properties = f->properties && !f->json;
	o->columns = columns;
	o->count = count;
	o->place = calloc(count, sizeof(*o->place));
	o->table = scols_new_table();
	ret = o->place && o->table ? 0 : out_of_memory(e);
	for (size_t i = 0; i < count && !ret; i++)
		o->place[i] = -1;
	if (!ret &&
	    (scols_table_enable_json(o->table, f->json) || scols_table_set_name(o->table, name) ||
	     scols_table_enable_noheadings(o->table, f->no_headings || o->format.properties) ||
	     /* The library would escape the escapes of text_escape. */
	     scols_table_enable_noencoding(o->table, 1)))
		ret = out_of_memory(e);
	/* The value is the last column, and the only one without headings. */
	for (int i = f->no_headings; i < 2 && !ret && o->format.properties; i++)
		if (!scols_table_new_column(o->table, i ? "" : "NAME", 0, 0))
			ret = out_of_memory(e);
	if (!ret)
		ret = choose_columns(o, e);
	if (ret) {
		output_end(o);
		return ret;
	}
	*out = o;
	return 0;
}

bool output_wants(const struct output *o, size_t column)
{
	return o->place[column] >= 0;
}

static void set_cell(struct output *o, struct libscols_line *line, int place, const char *text)
{
	if (!line || scols_line_set_data(line, (size_t)place, text))
		o->failed = true;
}

void output_row(struct output *o)
{
	/* Properties have a line for each column, in the order chosen. */
	int lines = o->format.properties ? o->chosen : 1;
	bool names = o->format.properties && !o->format.no_headings;

	for (int place = 0; place < lines; place++) {
		o->line = scols_table_new_line(o->table, NULL);
		if (!o->line)
			o->failed = true;
		for (size_t i = 0; names && i < o->count; i++)
			if (o->place[i] == place)
				set_cell(o, o->line, 0, o->columns[i].name);
	}
}

static void set_column(struct output *o, size_t column, const char *text)
{
	struct libscols_line *line = o->line;
	int place = o->place[column];

	if (place < 0 || o->failed)
		return;
	if (o->format.properties) {
		line = scols_table_get_line(o->table, scols_table_get_nlines(o->table) -
							      (size_t)(o->chosen - place));
		place = !o->format.no_headings;
	}
	set_cell(o, line, place, text);
}

void output_text(struct output *o, size_t column, const char *text)
{
	size_t len = strlen(text);
	char *escaped;

	/* The library escapes JSON itself, but cannot write bytes that are not UTF-8. */
	if (o->columns[column].type == OUTPUT_ENCODED ||
	    (o->format.json && text_is_utf8(text, len))) {
		set_column(o, column, text);
		return;
	}
	escaped = malloc(4 * len + 1);
	if (!escaped) {
		o->failed = true;
		return;
	}
	text_escape(escaped, 4 * len + 1, text, len);
	set_column(o, column, escaped);
	free(escaped);
}

/* A size as losetup and lsblk show it: some three digits, powers of 1024. */
static void human_size(uint64_t v, char *buf, size_t cap)
{
	static const char units[] = "BKMGTPE";
	unsigned unit = 0;
	uint64_t rest = 0;

	while (v >= 1024 && units[unit + 1]) {
		rest = v % 1024;
		v /= 1024;
		unit++;
	}
	rest = (rest * 10 + 512) / 1024;
	if (rest == 10) {
		v++;
		rest = 0;
	}
	if (v == 1024 && units[unit + 1]) {
		v = 1;
		unit++;
	}
	if (rest)
		snprintf(buf, cap, "%" PRIu64 ".%" PRIu64 "%c", v, rest, units[unit]);
	else
		snprintf(buf, cap, "%" PRIu64 "%c", v, units[unit]);
}

void output_number(struct output *o, size_t column, uint64_t v)
{
	char buf[32];

	if (o->columns[column].type == OUTPUT_SIZE && !o->format.json && !o->format.bytes)
		human_size(v, buf, sizeof(buf));
	else
		snprintf(buf, sizeof(buf), "%" PRIu64, v);
	set_column(o, column, buf);
}

void output_bool(struct output *o, size_t column, bool v)
{
	set_column(o, column, v ? "1" : "0");
}

/* The table as text, which the caller frees; NULL without memory. */
static char *to_text(struct output *o)
{
	char *text = NULL, *guarded;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	if (!f)
		return NULL;
	if (scols_table_get_nlines(o->table)) {
		scols_table_set_stream(o->table, f);
		if (scols_print_table(o->table)) {
			fclose(f);
			free(text);
			return NULL;
		}
	} else if (o->format.json) {
		/* The library prints nothing at all for an empty table. */
		fprintf(f, "{\n   \"%s\": []\n}\n", scols_table_get_name(o->table));
	}
	if (fclose(f)) {
		free(text);
		return NULL;
	}
	if (!o->format.json)
		return text;
	/* The library escapes what JSON forbids, but not what a terminal obeys. */
	guarded = malloc(6 * len + 1);
	if (guarded)
		text_guard_json(guarded, text, len);
	free(text);
	return guarded;
}

int output_print(struct output *o, FILE *f, struct err *e)
{
	char *text = o->failed ? NULL : to_text(o);

	if (!text)
		return out_of_memory(e);
	fputs(text, f);
	free(text);
	if (fflush(f) || ferror(f))
		return err_sys(e, ERR_FAILED, errno ? errno : EIO, "write the output");
	return 0;
}

void output_end(struct output *o)
{
	if (!o)
		return;
	scols_unref_table(o->table);
	free(o->place);
	free(o);
}
