/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "cli/cmd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/output.h"
#include "base/text.h"

enum { NAME, SIZE, RO, MIN_BLOCK, PREF_BLOCK, MAX_PAYLOAD, FLAGS, CONTEXTS, DESCRIPTION };

static const struct output_column columns[] = {
	[NAME] = { "NAME", OUTPUT_TEXT },
	[SIZE] = { "SIZE", OUTPUT_SIZE },
	[RO] = { "RO", OUTPUT_BOOL },
	[MIN_BLOCK] = { "MIN-BLOCK", OUTPUT_NUMBER },
	[PREF_BLOCK] = { "PREF-BLOCK", OUTPUT_NUMBER },
	[MAX_PAYLOAD] = { "MAX-PAYLOAD", OUTPUT_NUMBER },
	[FLAGS] = { "FLAGS", OUTPUT_TEXT },
	[CONTEXTS] = { "CONTEXTS", OUTPUT_TEXT },
	[DESCRIPTION] = { "DESCRIPTION", OUTPUT_TEXT },
};
enum { COLUMNS = sizeof(columns) / sizeof(columns[0]) };

/* Columns that fit a line. JSON has all columns. */
static const char default_columns[] = "NAME,SIZE,RO,CONTEXTS,DESCRIPTION";

struct entry {
	char *name;
	char *description;
};

struct listing {
	struct entry *entries;
	size_t count, room;
	bool failed;
};

static void add_export(void *ctx, const struct neg_item *item)
{
	struct listing *l = ctx;
	struct entry *x;

	if (!l->failed && l->count == l->room) {
		size_t room = l->room ? 2 * l->room : 16;
		struct entry *more = realloc(l->entries, room * sizeof(*more));

		l->failed = !more;
		if (more) {
			l->entries = more;
			l->room = room;
		}
	}
	if (l->failed)
		return;
	x = &l->entries[l->count++];
	x->name = strdup(item->name);
	x->description = strdup(item->description);
	l->failed = !x->name || !x->description;
}

static void fill_details(struct output *out, const struct cmd_facts *f)
{
	const struct export *x = &f->link.export;
	char flags[512];

	output_number(out, SIZE, x->size);
	output_bool(out, RO, x->flags & NBD_FLAG_READ_ONLY);
	if (x->has_block_size) {
		output_number(out, MIN_BLOCK, x->block_min);
		output_number(out, PREF_BLOCK, x->block_pref);
		output_number(out, MAX_PAYLOAD, x->payload_max);
	}
	cmd_name_flags(x->flags, flags, sizeof(flags));
	output_text(out, FLAGS, flags);
	if (f->contexts)
		output_text(out, CONTEXTS, f->contexts);
}

/*
 * Fills in what the server says about one export. What cannot be had is left out, with a note. *on
 * is false where asking about the others is pointless.
 */
static int add_details(struct output *out, struct connector *l, struct settings *s,
		       const char *name, bool *on, struct err *e)
{
	struct cmd_facts *f = malloc(sizeof(*f));
	char shown[256];
	int ret;

	if (!f)
		return err_sys(e, ERR_FAILED, ENOMEM, "ask");
	memcpy(s->servers[0].export, name, strlen(name) + 1);
	ret = cmd_find_out(l, s, f, e);
	if (!ret) {
		fill_details(out, f);
	} else {
		*on = e->kind == ERR_REFUSED || e->kind == ERR_TLS;
		text_escape(shown, sizeof(shown), name, strlen(name));
		fprintf(stderr, "nbd-attach: about export \"%s\"%s: %s\n", shown,
			*on ? "" : ", and those after it, nothing is known", e->text);
		err_clear(e);
		ret = 0;
	}
	cmd_forget(f);
	free(f);
	return ret;
}

static int print_exports(struct output *out, struct connector *l, struct settings *s,
			 const struct listing *list, struct err *e)
{
	bool on = false;
	int ret = 0;

	for (size_t i = NAME + 1; i < DESCRIPTION; i++)
		on |= output_wants(out, i);
	for (size_t i = 0; i < list->count && !ret; i++) {
		const struct entry *x = &list->entries[i];

		output_row(out);
		output_text(out, NAME, x->name);
		if (x->description[0])
			output_text(out, DESCRIPTION, x->description);
		if (on)
			ret = add_details(out, l, s, x->name, &on, e);
	}
	return ret ? ret : output_print(out, stdout, e);
}

int cmd_exports(struct opts *o, struct err *e)
{
	const struct output_format format = {
		.json = o->json,
		.no_headings = o->no_headings,
		.bytes = o->bytes,
		.columns = o->columns || o->json ? o->columns : default_columns,
	};
	struct connect_attempt a = { .goal = NEG_GOAL_LIST, .cancel_fd = -1 };
	struct connections *rs = malloc(sizeof(*rs));
	struct listing list = { 0 };
	struct output *out = NULL;
	struct connector *l = NULL;
	int ret;

	if (!rs) {
		ret = err_sys(e, ERR_FAILED, ENOMEM, "begin");
		goto out;
	}
	ret = output_begin(&out, "exports", columns, COLUMNS, &format, e);
	if (!ret)
		ret = cmd_prepare_settings(&o->settings, e);
	if (!ret)
		ret = connect_prepare(&l, &o->settings, 0, e);
	if (!ret) {
		a.timeout_ms = o->settings.connect_timeout_ms;
		ret = connect_run(l, &a, add_export, &list, rs, e);
	}
	if (!ret && list.failed)
		ret = err_sys(e, ERR_FAILED, ENOMEM, "list exports");
	if (!ret)
		ret = print_exports(out, l, &o->settings, &list, e);
out:
	for (size_t i = 0; i < list.count; i++) {
		free(list.entries[i].name);
		free(list.entries[i].description);
	}
	free(list.entries);
	output_end(out);
	connect_free(l);
	free(rs);
	return ret;
}
