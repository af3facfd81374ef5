/* SPDX-License-Identifier: GPL-2.0-or-later */
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
	int *place; /* place of column i in the table, or -1 */
	int chosen;
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
	     /* text_escape has escaped it, and the library would escape the escapes */
	     scols_table_enable_noencoding(o->table, 1)))
		ret = out_of_memory(e);
	/* The value is the last column, and without headings the only one. */
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

static int new_line(struct output *o, struct err *e)
{
	o->line = scols_table_new_line(o->table, NULL);
	return o->line ? 0 : out_of_memory(e);
}

int output_row(struct output *o, struct err *e)
{
	if (!o->format.properties)
		return new_line(o, e);
	/* One line for each property, in the order chosen. set_cell fills it in. */
	for (int place = 0; place < o->chosen; place++) {
		if (new_line(o, e))
			return -ENOMEM;
		for (size_t i = 0; i < o->count; i++)
			if (o->place[i] == place && !o->format.no_headings &&
			    scols_line_set_data(o->line, 0, o->columns[i].name))
				return out_of_memory(e);
	}
	return 0;
}

static int set_cell(struct output *o, size_t column, const char *text, struct err *e)
{
	struct libscols_line *line = o->line;
	int place = o->place[column];

	if (place < 0)
		return 0;
	if (!o->format.properties)
		return scols_line_set_data(line, (size_t)place, text) ? out_of_memory(e) : 0;
	line = scols_table_get_line(o->table,
				    scols_table_get_nlines(o->table) - (size_t)(o->chosen - place));
	return line && !scols_line_set_data(line, !o->format.no_headings, text) ? 0 :
										  out_of_memory(e);
}

int output_text(struct output *o, size_t column, const char *text, struct err *e)
{
	size_t len = strlen(text);
	char *escaped;
	int ret;

	/* JSON has escapes of its own, but for bytes that are not UTF-8. */
	if (o->columns[column].type == OUTPUT_ENCODED ||
	    (o->format.json && text_is_utf8(text, len)))
		return set_cell(o, column, text, e);
	escaped = malloc(4 * len + 1);
	if (!escaped)
		return out_of_memory(e);
	text_escape(escaped, 4 * len + 1, text, len);
	ret = set_cell(o, column, escaped, e);
	free(escaped);
	return ret;
}

/* A size as losetup and lsblk show it: powers of 1024, three digits or so. */
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

int output_number(struct output *o, size_t column, uint64_t v, struct err *e)
{
	char buf[32];

	if (o->columns[column].type == OUTPUT_SIZE && !o->format.json && !o->format.bytes)
		human_size(v, buf, sizeof(buf));
	else
		snprintf(buf, sizeof(buf), "%" PRIu64, v);
	return set_cell(o, column, buf, e);
}

int output_bool(struct output *o, size_t column, bool v, struct err *e)
{
	return set_cell(o, column, v ? "1" : "0", e);
}

/* The table as text, to be freed by the caller. NULL without memory. */
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
		/* The library prints nothing for an empty table. */
		fprintf(f, "{\n   \"%s\": []\n}\n", scols_table_get_name(o->table));
	}
	if (fclose(f)) {
		free(text);
		return NULL;
	}
	if (!o->format.json)
		return text;
	/* The library escapes what JSON forbids, not what a terminal obeys. */
	guarded = malloc(6 * len + 1);
	if (guarded)
		text_guard_json(guarded, text, len);
	free(text);
	return guarded;
}

int output_print(struct output *o, FILE *f, struct err *e)
{
	char *text = to_text(o);

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
