/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "cli/cmd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/output.h"
#include "policy/plan.h"
#include "net/client.h"
#include "net/blocking_child.h"

enum {
	URI,
	NAME,
	DESCRIPTION,
	LISTED,
	SIZE,
	RO,
	MIN_BLOCK,
	PREF_BLOCK,
	MAX_PAYLOAD,
	FLAGS,
	KERNEL_USES,
	KERNEL_IGNORES,
	CONTEXTS,
	CONNECTIONS,
	PEER,
	TLS,
	TLS_PEER,
	NOTE,
};

static const struct output_column columns[] = {
	[URI] = { "URI", OUTPUT_TEXT },
	[NAME] = { "NAME", OUTPUT_TEXT },
	[DESCRIPTION] = { "DESCRIPTION", OUTPUT_TEXT },
	[LISTED] = { "LISTED", OUTPUT_BOOL },
	[SIZE] = { "SIZE", OUTPUT_SIZE },
	[RO] = { "RO", OUTPUT_BOOL },
	[MIN_BLOCK] = { "MIN-BLOCK", OUTPUT_NUMBER },
	[PREF_BLOCK] = { "PREF-BLOCK", OUTPUT_NUMBER },
	[MAX_PAYLOAD] = { "MAX-PAYLOAD", OUTPUT_NUMBER },
	[FLAGS] = { "FLAGS", OUTPUT_TEXT },
	[KERNEL_USES] = { "KERNEL-USES", OUTPUT_TEXT },
	[KERNEL_IGNORES] = { "KERNEL-IGNORES", OUTPUT_TEXT },
	[CONTEXTS] = { "CONTEXTS", OUTPUT_TEXT },
	[CONNECTIONS] = { "CONNECTIONS", OUTPUT_TEXT },
	[PEER] = { "PEER", OUTPUT_TEXT },
	[TLS] = { "TLS", OUTPUT_TEXT },
	[TLS_PEER] = { "TLS-PEER", OUTPUT_TEXT },
	[NOTE] = { "NOTE", OUTPUT_TEXT },
};

/*
 * nbd.c has no netlink attribute for io_opt of the queue, and sysfs does not let it be written: a
 * device has 0, or since 6.12 the kernel's value for every nbd device.
 */
static const char unheard[] =
	"PREF-BLOCK stays unknown to the kernel, which has no way to be told (optimal_io_size)";

static void fill_flags(struct output *out, const struct export *x)
{
	uint16_t used = plan_kernel_flags(x);
	char names[512];

	cmd_name_flags(x->flags, names, sizeof(names));
	output_text(out, FLAGS, names);
	cmd_name_flags(used, names, sizeof(names));
	output_text(out, KERNEL_USES, names);
	cmd_name_flags(x->flags & (uint16_t)~used, names, sizeof(names) - 32);
	/* Not a flag, but a capability of the server that the kernel does not use. */
	if (x->structured)
		strcat(names, names[0] ? ",STRUCTURED_REPLY" : "STRUCTURED_REPLY");
	output_text(out, KERNEL_IGNORES, names);
}

static void fill_info(struct output *out, const struct settings *s, const struct cmd_facts *f,
		      const char *connections)
{
	const struct connections *rs = &f->link;
	const struct export *x = &rs->export;
	char uri[URI_TEXT_MAX], tls[64];

	output_row(out);
	if (!s->command.count) {
		uri_format(&s->servers[0], uri, sizeof(uri));
		output_text(out, URI, uri);
	}
	output_text(out, NAME, x->has_name ? x->name : s->servers[0].export);
	if (x->has_description)
		output_text(out, DESCRIPTION, x->description);
	if (x->listed != EXPORT_LISTED_UNKNOWN)
		output_bool(out, LISTED, x->listed == EXPORT_LISTED);
	output_number(out, SIZE, x->size);
	output_bool(out, RO, x->flags & NBD_FLAG_READ_ONLY);
	if (x->has_block_size) {
		output_number(out, MIN_BLOCK, x->block_min);
		output_number(out, PREF_BLOCK, x->block_pref);
		output_number(out, MAX_PAYLOAD, x->payload_max);
		output_text(out, NOTE, unheard);
	}
	fill_flags(out, x);
	if (f->contexts)
		output_text(out, CONTEXTS, f->contexts);
	output_text(out, CONNECTIONS, connections);
	output_text(out, PEER, rs->peer);
	if (rs->encrypted) {
		snprintf(tls, sizeof(tls), "%s %s", rs->tls.version, rs->tls.cipher);
		output_text(out, TLS, tls);
		output_text(out, TLS_PEER, rs->tls.peer);
	}
}

/* Asks for NBD_CMD_CACHE as an attach does (see plan_multi), without attaching. */
static enum plan_cache ask_for_cache(const struct settings *settings)
{
	struct transmission_request r = { .type = NBD_CMD_CACHE };
	enum plan_cache cache = PLAN_CACHE_SILENT;
	struct client *s;
	struct transmission_buf buf;
	uint32_t longest;
	struct err e;

	if (client_open(&s, settings, NULL, -1, &e))
		return PLAN_CACHE_SILENT;
	longest = transmission_longest(&s->query, 0);
	r.length = s->link.export.block_min > PLAN_BLOCK_SIZE_MIN ? s->link.export.block_min :
								    PLAN_BLOCK_SIZE_MIN;
	if (r.length > longest)
		r.length = longest;
	if (!transmission_ask(&s->query, &r, &e)) {
		int ret =
			client_next(s, monotonic_ms() + settings->connect_timeout_ms, -1, &buf, &e);

		if (ret == TRANSMISSION_REPLY)
			cache = buf.error ? PLAN_CACHE_REFUSED : PLAN_CACHE_DONE;
		/* Some servers hang up at a command that they do not know. */
		else if (e.code != ETIMEDOUT)
			cache = PLAN_CACHE_REFUSED;
	}
	client_close(s);
	return cache;
}

/* Describes how many connections --connections auto would have, and why. */
static void judge_connections(const struct settings *s, const struct export *x, char *text,
			      size_t cap)
{
	const struct plan_multi m = {
		.wanted = settings_automatic_connections(s, sysconf(_SC_NPROCESSORS_ONLN)),
		.automatic = true,
	};
	enum plan_verdict v;
	char why[512];

	if (s->command.count) {
		snprintf(text, cap, "1: a command serves one");
		return;
	}
	if (m.wanted <= 1) {
		snprintf(text, cap, "1: there is one processor");
		return;
	}
	v = plan_multi(&m, x, PLAN_CACHE_UNASKED, why, sizeof(why));
	if (v == PLAN_ASK)
		v = plan_multi(&m, x, ask_for_cache(s), why, sizeof(why));
	snprintf(text, cap, "%u%s%s", v == PLAN_ALL ? m.wanted : 1, why[0] ? ": " : "", why);
}

int cmd_info(struct opts *o, struct err *e)
{
	const struct output_format format = {
		.json = o->json,
		.no_headings = o->no_headings,
		.bytes = o->bytes,
		.properties = true,
		.columns = o->columns,
	};
	const struct settings *s = &o->settings;
	struct cmd_facts *f = calloc(1, sizeof(*f));
	struct output *out = NULL;
	struct connector *l = NULL;
	char connections[640] = "";
	int ret;

	if (!f) {
		ret = err_sys(e, ERR_FAILED, ENOMEM, "begin");
		goto out;
	}
	ret = output_begin(&out, "exports", columns, sizeof(columns) / sizeof(columns[0]), &format,
			   e);
	if (!ret)
		ret = cmd_prepare_settings(&o->settings, e);
	if (!ret)
		ret = connect_prepare(&l, s, 0, e);
	if (!ret)
		ret = cmd_find_out(l, s, f, e);
	if (!ret && output_wants(out, CONNECTIONS))
		judge_connections(s, &f->link.export, connections, sizeof(connections));
	if (!ret) {
		fill_info(out, s, f, connections);
		ret = output_print(out, stdout, e);
	}
out:
	output_end(out);
	connect_free(l);
	if (f)
		cmd_forget(f);
	free(f);
	return ret;
}
