/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cmd.h"

#include <errno.h>
#include <stdlib.h>

#include "output.h"

enum { NAME, DESCRIPTION };

static const struct output_column columns[] = {
	[NAME] = { "NAME", OUTPUT_TEXT },
	[DESCRIPTION] = { "DESCRIPTION", OUTPUT_TEXT },
};

struct listing {
	struct output *out;
	int ret;
	struct err err;
};

static void add(void *ctx, const struct neg_item *item)
{
	struct listing *l = ctx;

	if (l->ret)
		return;
	l->ret = output_row(l->out, &l->err);
	if (!l->ret)
		l->ret = output_text(l->out, NAME, item->name, &l->err);
	if (!l->ret && item->description[0])
		l->ret = output_text(l->out, DESCRIPTION, item->description, &l->err);
}

int cmd_exports(const struct opts *o, struct err *e)
{
	const struct output_format format = {
		.json = o->json, .no_headings = o->no_headings, .columns = o->columns,
	};
	struct link_request *rq = malloc(sizeof(*rq));
	struct link_result *rs = malloc(sizeof(*rs));
	struct listing l = { 0 };
	int ret;

	if (!rq || !rs) {
		ret = err_sys(e, ERR_FAILED, ENOMEM, "begin");
		goto out;
	}
	ret = output_begin(&l.out, "exports", columns, sizeof(columns) / sizeof(columns[0]),
			   &format, e);
	if (!ret)
		ret = cmd_link_request(o, NEG_GOAL_LIST, rq, e);
	if (!ret)
		ret = link_open(rq, -1, add, &l, rs, e);
	if (!ret && l.ret) {
		*e = l.err;
		ret = l.ret;
	}
	if (!ret)
		ret = output_print(l.out, stdout, e);
out:
	output_end(l.out);
	free(rq);
	free(rs);
	return ret;
}
