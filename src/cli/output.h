/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * output: tables, lists of properties and JSON on a stream, through libsmartcols. Cells may be a
 * server's text: what is not plain is escaped here, in each format in its own way.
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
	OUTPUT_SIZE, /* bytes; tables show a unit unless bytes are wanted */
	OUTPUT_BOOL,
	OUTPUT_ENCODED, /* a text of printable ASCII, shown as it is */
};

struct output_column {
	const char *name; /* upper case; JSON has it in lower case */
	enum output_type type;
};

struct output_format {
	bool json;
	bool no_headings;
	bool bytes;
	bool properties;     /* a line for each cell, "NAME value"; not with json */
	const char *columns; /* names, comma-separated; NULL: all */
};

struct output;

/*
 * Starts a table of the chosen columns. name is the name of the list in JSON. ERR_USAGE for an
 * unknown column; the text names all columns. *out is the caller's, for output_end.
 */
int output_begin(struct output **out, const char *name, const struct output_column *columns,
		 size_t count, const struct output_format *f, struct err *e);

/* Whether a column was chosen. column is its place in columns. */
bool output_wants(const struct output *o, size_t column);

/* Starts a row; its cells are empty (JSON: null) until they are set. */
int output_row(struct output *o, struct err *e);

/* Set a cell of the row that was begun last. Cells of columns that were not chosen are dropped. */
int output_text(struct output *o, size_t column, const char *text, struct err *e);
int output_number(struct output *o, size_t column, uint64_t v, struct err *e);
int output_bool(struct output *o, size_t column, bool v, struct err *e);

/* Prints all to f. -errno when writing fails. */
int output_print(struct output *o, FILE *f, struct err *e);

void output_end(struct output *o);

#endif
