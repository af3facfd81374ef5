/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "cli/cmd.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "proto/extent_map.h"
#include "net/client.h"
#include "net/blocking_child.h"
#include "base/text.h"

enum {
	ROOM = 65536,              /* extents of one context that wait for those of the others */
	MODEST = 32 * 1024 * 1024, /* bytes; no server can find such a request too large */
	CELL_MAX = 16 + METACTX_TEXT_MAX,
};

/* State of one --map. */
struct walk {
	const struct opts *o;
	struct client *session;
	struct extent_map map;
	struct extent_map_extent *extents;
	struct extent_map_totals totals;
	uint64_t size;           /* bytes that can be asked about */
	uint32_t most;           /* bytes, the largest request */
	uint64_t rows;           /* number of printed rows */
	int width;               /* width of a column of byte counts */
	int cell[METACTX_MAX];   /* width of the column of a context */
	char *json[METACTX_MAX]; /* name of a context as a JSON string */
};

static const char *name_of(const struct walk *w, unsigned context)
{
	return metactx_name(&w->o->contexts, context);
}

static unsigned contexts_of(const struct walk *w)
{
	return w->o->contexts.count;
}

/* --- tables ----------------------------------------------------------------------------------- */

/* The cell of one of several contexts: "3:hole,zero", or a number alone. */
static void make_cell(const struct walk *w, unsigned context, uint32_t flags, char text[CELL_MAX])
{
	char words[METACTX_TEXT_MAX];

	metactx_describe(name_of(w, context), flags, words);
	snprintf(text, CELL_MAX, "%" PRIu32 "%s%s", flags, words[0] ? ":" : "", words);
}

static void print_kind(struct walk *w, const uint32_t *flags)
{
	char text[CELL_MAX];

	if (contexts_of(w) == 1) {
		metactx_describe(name_of(w, 0), flags[0], text);
		printf(" %4" PRIu32 "%s%s\n", flags[0], text[0] ? " " : "", text);
		return;
	}
	for (unsigned c = 0; c < contexts_of(w); c++) {
		make_cell(w, c, flags[c], text);
		/* The last column is not padded. */
		printf(" %-*s", c + 1 < contexts_of(w) ? w->cell[c] : 0, text);
	}
	putchar('\n');
}

static void print_kind_heading(struct walk *w)
{
	char shown[4 * NBD_MAX_STRING + 1];

	if (contexts_of(w) == 1) {
		printf(" TYPE DESCRIPTION\n");
		return;
	}
	for (unsigned c = 0; c < contexts_of(w); c++) {
		text_escape(shown, sizeof(shown), name_of(w, c), strlen(name_of(w, c)));
		printf(" %-*s", c + 1 < contexts_of(w) ? w->cell[c] : 0, shown);
	}
	putchar('\n');
}

static double percent_of(const struct walk *w, const struct extent_map_total *t)
{
	return 100.0 * (double)t->bytes / (double)w->size;
}

/* --- JSON: a list of objects, as nbdinfo's ---------------------------------------------------- */

/* A UTF-8 text as a JSON string, to be freed by the caller. NULL without memory. */
static char *to_json(const char *s)
{
	size_t len = strlen(s), n = 0;
	char *quoted = malloc(6 * len + 3);
	char *guarded = malloc(6 * (6 * len + 2) + 1);

	if (quoted && guarded) {
		quoted[n++] = '"';
		for (; *s; s++) {
			if (*s == '"' || *s == '\\')
				quoted[n++] = '\\';
			if ((unsigned char)*s < ' ')
				n += (size_t)sprintf(quoted + n, "\\u%04x", (unsigned)*s);
			else
				quoted[n++] = *s;
		}
		quoted[n++] = '"';
		text_guard_json(guarded, quoted, n);
	} else {
		free(guarded);
		guarded = NULL;
	}
	free(quoted);
	return guarded;
}

/* Prints "type" and "description". With several contexts each is an object with their names. */
static void print_json_kind(struct walk *w, const uint32_t *flags)
{
	char words[METACTX_TEXT_MAX];
	const char *before = "{ ";

	if (contexts_of(w) == 1) {
		printf("\"type\": %" PRIu32, flags[0]);
		if (!metactx_describe(name_of(w, 0), flags[0], words))
			printf(", \"description\": \"%s\"", words);
		printf(" }");
		return;
	}
	printf("\"type\": ");
	for (unsigned c = 0; c < contexts_of(w); c++) {
		printf("%s%s: %" PRIu32, c ? ", " : "{ ", w->json[c], flags[c]);
	}
	printf(" }, \"description\": ");
	for (unsigned c = 0; c < contexts_of(w); c++) {
		if (metactx_describe(name_of(w, c), flags[c], words))
			continue;
		printf("%s%s: \"%s\"", before, w->json[c], words);
		before = ", ";
	}
	printf("%s } }", before[0] == '{' ? before : "");
}

/* --- rows, as they come ----------------------------------------------------------------------- */

static void print_headings(struct walk *w)
{
	if (w->o->json) {
		printf("[");
	} else if (!w->o->no_headings) {
		if (w->o->totals)
			printf("%*s PERCENT EXTENTS", w->width, "SIZE");
		else
			printf("%*s %*s", w->width, "OFFSET", w->width, "LENGTH");
		print_kind_heading(w);
	}
}

static void print_row(struct walk *w, const struct extent_map_row *r)
{
	if (w->o->json) {
		printf("%s\n{ \"offset\": %" PRIu64 ", \"length\": %" PRIu64 ", ",
		       w->rows++ ? "," : "", r->offset, r->length);
		print_json_kind(w, r->flags);
	} else {
		printf("%*" PRIu64 " %*" PRIu64, w->width, r->offset, w->width, r->length);
		print_kind(w, r->flags);
	}
}

static void print_totals(struct walk *w)
{
	for (size_t i = 0; i < w->totals.count; i++) {
		const struct extent_map_total *t = &w->totals.total[i];

		if (w->o->json) {
			printf("%s\n{ \"size\": %" PRIu64
			       ", \"percent\": %.6g, \"extents\": %" PRIu64 ", ",
			       i ? "," : "", t->bytes, percent_of(w, t), t->rows);
			print_json_kind(w, t->flags);
		} else {
			printf("%*" PRIu64 " %6.1f%% %7" PRIu64, w->width, t->bytes,
			       percent_of(w, t), t->rows);
			print_kind(w, t->flags);
		}
	}
}

static int take_rows(struct walk *w, struct err *e)
{
	struct extent_map_row row;

	while (extent_map_row(&w->map, &row)) {
		if (w->o->totals && extent_map_add(&w->totals, &row, e))
			return -e->code;
		if (!w->o->totals)
			print_row(w, &row);
	}
	/* The reader of a pipe may have gone. */
	return ferror(stdout) ? err_sys(e, ERR_FAILED, errno ? errno : EIO, "write the output") : 0;
}

/* --- the walk --------------------------------------------------------------------------------- */

/* A request may be too large for a server that was not asked for any data ("Size constraints"). */
static bool may_be_smaller(struct walk *w, const struct transmission_request *r, uint32_t error)
{
	uint32_t block = w->session->link.export.block_min;

	if ((error != NBD_EOVERFLOW && error != NBD_EINVAL) || r->length <= MODEST)
		return false;
	w->most = block > 1 ? MODEST - MODEST % block : MODEST;
	return true;
}

/* Sends one request, and adds its answer to the map. */
static int request_status(struct walk *w, uint64_t offset, struct err *e)
{
	struct transmission *q = &w->session->query;
	struct transmission_request r = { .type = NBD_CMD_BLOCK_STATUS, .offset = offset };
	const uint32_t limit_s = w->o->settings.timeout_s;
	long long deadline = limit_s ? monotonic_ms() + 1000LL * limit_s : LLONG_MAX;
	struct transmission_buf buf;
	int ret;

	r.length = transmission_longest(q, offset);
	if (r.length > w->most)
		r.length = w->most;
	ret = transmission_ask(q, &r, e);
	if (ret)
		return ret;
	while ((ret = client_next(w->session, deadline, -1, &buf, e)) == TRANSMISSION_EXTENT) {
		extent_map_extent(&w->map, buf.context, buf.offset, buf.length, buf.flags);
		ret = take_rows(w, e);
		if (ret)
			return ret;
	}
	if (ret < 0)
		return ret;
	if (!buf.error)
		return extent_map_answered(&w->map, e) ?
			       connections_explain(&w->o->settings, 0, &w->session->link, e) :
			       0;
	if (may_be_smaller(w, &r, buf.error))
		return 0;
	transmission_error(q, e);
	return connections_explain(&w->o->settings, 0, &w->session->link, e);
}

static int say_goodbye(struct walk *w, struct err *e)
{
	struct transmission_buf buf;
	int ret;

	transmission_disconnect(&w->session->query);
	/* The map is complete: a failure does not matter any more. */
	ret = client_next(w->session, monotonic_ms() + 1000, -1, &buf, e);
	if (ret < 0)
		err_clear(e);
	return 0;
}

static int print_map(struct walk *w, struct err *e)
{
	uint64_t offset;
	int ret;

	print_headings(w);
	while (extent_map_next(&w->map, &offset)) {
		ret = request_status(w, offset, e);
		if (ret)
			return ret;
	}
	ret = take_rows(w, e);
	if (ret)
		return ret;
	print_totals(w);
	if (w->o->json)
		printf("\n]\n");
	return say_goodbye(w, e);
}

static int digits(uint64_t v)
{
	int n = 1;

	while (v /= 10)
		n++;
	return n;
}

static int begin_map(struct walk *w, struct err *e)
{
	const struct export *x = &w->session->link.export;
	uint32_t block = x->has_block_size ? x->block_min : 1;
	unsigned contexts = contexts_of(w);
	size_t room = contexts > 1 ? ROOM : EXTENT_MAP_ROOM_MIN;
	char shown[4 * NBD_MAX_STRING + 1];

	w->size = x->size - x->size % block;
	w->most = UINT32_MAX;
	w->extents = calloc(contexts * room, sizeof(*w->extents));
	if (w->o->totals)
		w->totals.total = calloc(EXTENT_MAP_TOTALS_MAX, sizeof(*w->totals.total));
	if (!w->extents || (w->o->totals && !w->totals.total))
		return err_sys(e, ERR_FAILED, ENOMEM, "make a map");
	extent_map_init(&w->map, w->size, block, contexts, w->extents, room);
	w->width = digits(w->size) < 6 ? 6 : digits(w->size);
	for (unsigned c = 0; c < contexts; c++) {
		w->cell[c] = (int)text_escape(shown, sizeof(shown), name_of(w, c),
					      strlen(name_of(w, c)));
		if (w->cell[c] < 11)
			w->cell[c] = 11;
		w->json[c] = to_json(name_of(w, c));
		if (!w->json[c])
			return err_sys(e, ERR_FAILED, ENOMEM, "make a map");
	}
	if (w->size < x->size)
		fprintf(stderr,
			"nbd-attach: the last %" PRIu64 " bytes are less than a block (%" PRIu32
			") and cannot be asked about\n",
			x->size - w->size, block);
	return 0;
}

int cmd_map(struct opts *o, struct err *e)
{
	struct walk w = { .o = o };
	int ret;

	ret = cmd_prepare_settings(&o->settings, e);
	if (!ret)
		ret = client_open(&w.session, &o->settings, &o->contexts, -1, e);
	if (!ret)
		ret = begin_map(&w, e);
	if (!ret)
		ret = print_map(&w, e);
	client_close(w.session);
	for (unsigned c = 0; c < METACTX_MAX; c++)
		free(w.json[c]);
	free(w.extents);
	free(w.totals.total);
	return ret;
}
