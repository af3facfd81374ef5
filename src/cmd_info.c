/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cmd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "output.h"

enum {
	URI, NAME, DESCRIPTION, SIZE, RO, MIN_BLOCK, PREF_BLOCK, MAX_PAYLOAD, FLAGS, PEER,
	TLS, TLS_PEER, NOTE,
};

static const struct output_column columns[] = {
	[URI] = { "URI", OUTPUT_TEXT },
	[NAME] = { "NAME", OUTPUT_TEXT },
	[DESCRIPTION] = { "DESCRIPTION", OUTPUT_TEXT },
	[SIZE] = { "SIZE", OUTPUT_SIZE },
	[RO] = { "RO", OUTPUT_BOOL },
	[MIN_BLOCK] = { "MIN-BLOCK", OUTPUT_NUMBER },
	[PREF_BLOCK] = { "PREF-BLOCK", OUTPUT_NUMBER },
	[MAX_PAYLOAD] = { "MAX-PAYLOAD", OUTPUT_NUMBER },
	[FLAGS] = { "FLAGS", OUTPUT_TEXT },
	[PEER] = { "PEER", OUTPUT_TEXT },
	[TLS] = { "TLS", OUTPUT_TEXT },
	[TLS_PEER] = { "TLS-PEER", OUTPUT_TEXT },
	[NOTE] = { "NOTE", OUTPUT_TEXT },
};

/*
 * nbd.c has no netlink attribute for the queue's io_opt and sysfs does not let it be written: on a device it is 0, or
 * since 6.12 what the kernel takes for every nbd device.
 */
static const char unheard[] =
	"PREF-BLOCK stays unknown to the kernel, which has no way to be told (optimal_io_size)";

/* "READ_ONLY,SEND_FLUSH"; bits without a name by their number. */
static void name_flags(uint16_t flags, char *buf, size_t cap)
{
	size_t n = 0;

	buf[0] = '\0';
	for (unsigned bit = 0; bit < 16 && n < cap; bit++) {
		const char *name = wire_flag_name(bit);

		if (!(flags & 1U << bit))
			continue;
		if (name)
			n += (size_t)snprintf(buf + n, cap - n, "%s%s", n ? "," : "", name);
		else
			n += (size_t)snprintf(buf + n, cap - n, "%sbit%u", n ? "," : "", bit);
	}
}

static int fill(struct output *out, const struct link_request *rq, const struct link_result *rs,
		struct err *e)
{
	const struct export *x = &rs->export;
	char uri[URI_TEXT_MAX], flags[512], tls[64];
	int ret = output_row(out, e);

	if (!ret && !rq->command_args) {
		uri_format(&rq->where, uri, sizeof(uri));
		ret = output_text(out, URI, uri, e);
	}
	if (!ret)
		ret = output_text(out, NAME, x->has_name ? x->name : rq->where.export, e);
	if (!ret && x->has_description)
		ret = output_text(out, DESCRIPTION, x->description, e);
	if (!ret)
		ret = output_number(out, SIZE, x->size, e);
	if (!ret)
		ret = output_bool(out, RO, x->flags & NBD_FLAG_READ_ONLY, e);
	if (!ret && x->has_block_size)
		ret = output_number(out, MIN_BLOCK, x->block_min, e);
	if (!ret && x->has_block_size)
		ret = output_number(out, PREF_BLOCK, x->block_pref, e);
	if (!ret && x->has_block_size)
		ret = output_number(out, MAX_PAYLOAD, x->payload_max, e);
	name_flags(x->flags, flags, sizeof(flags));
	if (!ret)
		ret = output_text(out, FLAGS, flags, e);
	if (!ret)
		ret = output_text(out, PEER, rs->peer, e);
	if (!ret && rs->encrypted) {
		snprintf(tls, sizeof(tls), "%s %s", rs->tls.version, rs->tls.cipher);
		ret = output_text(out, TLS, tls, e);
	}
	if (!ret && rs->encrypted)
		ret = output_text(out, TLS_PEER, rs->tls.peer, e);
	if (!ret && x->has_block_size)
		ret = output_text(out, NOTE, unheard, e);
	return ret;
}

/*
 * nbd-server answers NBD_OPT_INFO before it opens the export, with a size of 0; NBD_OPT_GO makes it
 * look.
 */
static int look_again(struct link_request *rq, struct link_result *rs, struct err *e)
{
	int ret;

	rq->goal = NEG_GOAL_GO;
	ret = link_open(rq, -1, NULL, NULL, rs, e);
	if (!ret)
		link_close(rs, false);
	return ret;
}

int cmd_info(const struct opts *o, struct err *e)
{
	const struct output_format format = {
		.json = o->json, .no_headings = o->no_headings, .bytes = o->bytes,
		.properties = true, .columns = o->columns,
	};
	struct link_request *rq = malloc(sizeof(*rq));
	struct link_result *rs = malloc(sizeof(*rs));
	struct output *out = NULL;
	int ret;

	if (!rq || !rs) {
		ret = err_sys(e, ERR_FAILED, ENOMEM, "begin");
		goto out;
	}
	ret = output_begin(&out, "exports", columns, sizeof(columns) / sizeof(columns[0]), &format,
			   e);
	if (!ret)
		ret = cmd_link_request(o, NEG_GOAL_INFO, rq, e);
	if (!ret)
		ret = link_open(rq, -1, NULL, NULL, rs, e);
	if (!ret && !rs->export.size)
		ret = look_again(rq, rs, e);
	if (!ret)
		ret = fill(out, rq, rs, e);
	if (!ret)
		ret = output_print(out, stdout, e);
out:
	output_end(out);
	free(rq);
	free(rs);
	return ret;
}
