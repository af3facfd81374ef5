/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * output: tables, lists of properties and JSON on a stream, through libsmartcols. Cells may be a
 * server's text: each format escapes it in its own way. Prints nothing before output_print.
 */
#ifndef NBD_ATTACH_OUTPUT_H
#define NBD_ATTACH_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"

enum output_type {
	OUTPUT_TEXT,
	OUTPUT_NUMBER,
	OUTPUT_SIZE, /* bytes; in tables with a unit unless bytes are asked for */
	OUTPUT_BOOL,
	OUTPUT_ENCODED, /* printable ASCII, which is not escaped */
};

struct output_column {
	const char *name; /* upper case, in tables and for -O; lower case in JSON */
	enum output_type type;
};

struct output_format {
	bool json;
	bool no_headings;
	bool bytes;
	bool properties;     /* not JSON: a line for each cell, "NAME value" */
	const char *columns; /* argument of -O: names, comma-separated; NULL: all */
};

struct output;

/*
 * Starts a table of the chosen columns; name is that of JSON's list. ERR_USAGE for an unknown
 * column, with a text that names the known ones. The caller owns *out and ends it by output_end.
 */
int output_begin(struct output **out, const char *name, const struct output_column *columns,
		 size_t count, const struct output_format *f, struct err *e);

/* Whether the column with this index in columns was chosen. */
bool output_wants(const struct output *o, size_t column);

/*
 * Starts a row; its cells are empty (JSON: null) until they are set. An error of this function and
 * the next three is kept and reported by output_print.
 */
void output_row(struct output *o);

/* Set a cell of the last row by the column's index in columns. Columns not chosen are skipped. */
void output_text(struct output *o, size_t column, const char *text);
void output_number(struct output *o, size_t column, uint64_t v);
void output_bool(struct output *o, size_t column, bool v);

/* Prints all rows to f. -ENOMEM when a row or cell is missing, or the -errno of writing to f. */
int output_print(struct output *o, FILE *f, struct err *e);

/* Frees o, which may be NULL. */
void output_end(struct output *o);

#endif
