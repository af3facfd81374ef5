/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "policy/nbdtab.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"

enum { FIELDS_MAX = NBDTAB_SERVERS_MAX + 3 };

enum kind {
	FLAG, /* without a value */
	VALUE,
	REFUSED, /* as is the text of the row */
	PORT,
	UNIX,
	PERSIST,
	NO_AUTO,
};

static const struct option_row {
	const char *name;
	enum kind kind;
	const char *text; /* the option that it becomes, or why it is refused */
} rows[] = {
	/* nbdtab(5) of nbd-client */
	{ "bs", VALUE, "block-size" },
	{ "cacertfile", VALUE, "tls-ca" },
	{ "certfile", VALUE, "tls-cert" },
	{ "conns", VALUE, "connections" },
	{ "keyfile", VALUE, "tls-key" },
	{ "no_optgo", REFUSED,
	  "a server without NBD_OPT_GO is noticed, and one that stumbles over it cannot be used" },
	{ "port", PORT, NULL },
	{ "timeout", VALUE, "timeout" },
	{ "persist", PERSIST, NULL },
	{ "swap", FLAG, "swap" },
	{ "sdp", REFUSED, "Linux has no Socket Direct Protocol" },
	{ "tlshostname", VALUE, "tls-hostname" },
	{ "unix", UNIX, NULL },
	/* ours */
	{ "noauto", NO_AUTO, NULL },
	{ "read-only", FLAG, "read-only" },
	{ "block-size", VALUE, "block-size" },
	{ "connections", VALUE, "connections" },
	{ "force-multi-conn", FLAG, "force-multi-conn" },
	{ "peer-timeout", VALUE, "peer-timeout" },
	{ "reconnect-timeout", VALUE, "reconnect-timeout" },
	{ "fence-delay", VALUE, "fence-delay" },
	{ "connect-timeout", VALUE, "connect-timeout" },
	{ "root", FLAG, "root" },
	{ "keep-at-shutdown", FLAG, "keep-at-shutdown" },
	{ "no-supervise", FLAG, "no-supervise" },
	{ "dead-timeout", VALUE, "dead-timeout" },
	{ "tls", FLAG, "tls" },
	{ "tls-offload", VALUE, "tls-offload" },
	{ "tls-renew", VALUE, "tls-renew" },
	{ "tls-ca", VALUE, "tls-ca" },
	{ "tls-crl", VALUE, "tls-crl" },
	{ "tls-cert", VALUE, "tls-cert" },
	{ "tls-key", VALUE, "tls-key" },
	{ "tls-certificates", VALUE, "tls-certificates" },
	{ "tls-hostname", VALUE, "tls-hostname" },
	{ "tls-no-verify", FLAG, "tls-no-verify" },
	{ "tls-psk-file", VALUE, "tls-psk-file" },
	{ "tls-psk-user", VALUE, "tls-psk-user" },
	{ "tls-priority", VALUE, "tls-priority" },
};
enum { ROWS = sizeof(rows) / sizeof(rows[0]) };

_Static_assert((int)ROWS <= (int)NBDTAB_OPTIONS_MAX,
	       "each option once, and a certificate for a key");

struct field {
	const char *s;
	size_t len;
};

/* What the options said that does not become one. */
struct address {
	bool is_unix;
	char port[8];
	struct field key, cert;
};

static int wrong(struct err *e, const char *what, struct field f, const char *why)
{
	char shown[160];

	text_escape(shown, sizeof(shown), f.s, f.len);
	return err_set(e, ERR_USAGE, EINVAL, "%s%s: %s", what, shown, why);
}

/* A word of up to three pieces. The room is enough for a line of any kind. */
static char *add_word(struct nbdtab_entry *en, const char *a, const char *b, const char *s,
		      size_t len)
{
	char *word = en->text + en->used;
	int n = snprintf(word, sizeof(en->text) - en->used, "%s%s%.*s", a, b, (int)len, s);

	en->used += (size_t)n + 1;
	return word;
}

static bool is(struct field f, const char *word)
{
	return f.len == strlen(word) && !memcmp(f.s, word, f.len);
}

static bool begins(struct field f, const char *with)
{
	return f.len >= strlen(with) && !memcmp(f.s, with, strlen(with));
}

static int take_option(struct nbdtab_entry *en, struct address *a, bool given[],
		       struct field option, struct err *e)
{
	const char *equals = memchr(option.s, '=', option.len);
	struct field name = { option.s, equals ? (size_t)(equals - option.s) : option.len };
	struct field value = { name.s + name.len + 1, equals ? option.len - name.len - 1 : 0 };
	const struct option_row *row = NULL;

	if (name.len && name.s[0] == '_')
		return 0;
	for (size_t i = 0; i < ROWS; i++)
		if (is(name, rows[i].name))
			row = &rows[i];
	if (!row)
		return wrong(e, "option ", name, "there is none of this name");
	if (row->kind == REFUSED)
		return wrong(e, "option ", name, row->text);
	if (given[row - rows])
		return wrong(e, "option ", name, "it is given twice");
	given[row - rows] = true;
	if ((row->kind == VALUE || row->kind == PORT) && !value.len)
		return wrong(e, "option ", name, "it needs a value");
	if (row->kind != VALUE && row->kind != PORT && equals)
		return wrong(e, "option ", option, "it takes no value");

	switch (row->kind) {
	case PORT:
		if (value.len >= sizeof(a->port))
			return wrong(e, "option ", option, "the port is no number from 1 to 65535");
		memcpy(a->port, value.s, value.len);
		return 0;
	case UNIX:
		a->is_unix = true;
		return 0;
	case PERSIST:
		en->persist = true;
		return 0;
	case NO_AUTO:
		en->no_auto = true;
		return 0;
	default:
		break;
	}
	if (is(name, "certfile"))
		a->cert = value;
	if (is(name, "keyfile"))
		a->key = value;
	en->options[en->option_count++] =
		equals ? add_word(en, "--", row->text, option.s + name.len, option.len - name.len) :
			 add_word(en, "--", row->text, "", 0);
	return 0;
}

static int take_options(struct nbdtab_entry *en, struct address *a, struct field options,
			struct err *e)
{
	bool given[ROWS] = { false };

	while (options.len) {
		const char *comma = memchr(options.s, ',', options.len);
		struct field option = { options.s,
					comma ? (size_t)(comma - options.s) : options.len };
		size_t past = option.len + !!comma;

		if (!option.len)
			return wrong(e, "options ", options, "one of them is empty");
		if (take_option(en, a, given, option, e))
			return -EINVAL;
		options.s += past;
		options.len -= past;
	}
	/* nbd-client takes both from one file then */
	if (a->key.len && !a->cert.len && en->option_count < NBDTAB_OPTIONS_MAX)
		en->options[en->option_count++] =
			add_word(en, "--tls-cert=", "", a->key.s, a->key.len);
	return 0;
}

/* HOST and EXPORT of a line as the command line has them. */
static int take_host(struct nbdtab_entry *en, const struct address *a, struct field host,
		     struct field export, struct err *e)
{
	const char *colon = memchr(host.s, ':', host.len);
	bool bare6 = colon && memchr(colon + 1, ':', host.len - (size_t)(colon + 1 - host.s)) &&
		     host.s[0] != '[';
	char *word;

	if (host.len > 3 && colon && host.len - (size_t)(colon - host.s) > 2 && colon[1] == '/' &&
	    colon[2] == '/')
		return wrong(e, "host ", host,
			     "a URI is given as uri=URI, and has the export in it");
	if (a->is_unix) {
		if (a->port[0])
			return wrong(e, "host ", host, "a Unix socket has no port");
		/* a '/' is what tells a path */
		word = add_word(en, memchr(host.s, '/', host.len) ? "" : "./", "", host.s,
				host.len);
	} else if (memchr(host.s, '/', host.len)) {
		return wrong(e, "host ", host, "a path, without the option unix");
	} else if (a->port[0]) {
		if (colon && !bare6 && host.s[host.len - 1] != ']')
			return wrong(e, "host ", host,
				     "it has a port already, and there is an option port");
		word = add_word(en, bare6 ? "[" : "", "", host.s, host.len);
		en->used--;
		add_word(en, bare6 ? "]:" : ":", a->port, "", 0);
	} else {
		word = add_word(en, "", "", host.s, host.len);
	}
	en->operands[en->operand_count++] = word;
	en->operands[en->operand_count++] = add_word(en, "", "", export.s, export.len);
	return 0;
}

/* How many fields a line has, up to its end or a comment; those beyond FIELDS_MAX are counted only. */
static unsigned split(const char *s, size_t len, struct field fields[])
{
	unsigned n = 0;
	size_t i = 0;

	for (;;) {
		size_t begin;

		while (i < len && (s[i] == ' ' || s[i] == '\t' || s[i] == '\r'))
			i++;
		if (i == len || s[i] == '#')
			return n;
		begin = i;
		while (i < len && s[i] != ' ' && s[i] != '\t' && s[i] != '\r')
			i++;
		if (n < FIELDS_MAX)
			fields[n] = (struct field){ s + begin, i - begin };
		n++;
	}
}

static int take_device(struct nbdtab_entry *en, struct field f, struct err *e)
{
	char name[32] = "";

	if (f.len >= sizeof(name) || memchr(f.s, '/', f.len))
		return wrong(e, "device ", f, "nbdN is needed");
	memcpy(name, f.s, f.len);
	if (text_nbd_index(name, &en->index))
		return wrong(e, "device ", f, "nbdN is needed");
	en->has_device = true;
	return 0;
}

static int take_fields(struct nbdtab_entry *en, const struct field *fields, unsigned count,
		       struct err *e)
{
	struct address a = { 0 };
	unsigned uris = 0, where;

	if (take_device(en, fields[0], e))
		return -EINVAL;
	while (1 + uris < count && uris < NBDTAB_SERVERS_MAX && begins(fields[1 + uris], "uri="))
		uris++;
	where = uris ? uris : 2;
	if (count < 1 + where)
		return err_set(e, ERR_USAGE, EINVAL,
			       "nbd%u: HOST and EXPORT, or uri=URI, are needed", en->index);
	if (count > 2 + where)
		return err_set(e, ERR_USAGE, EINVAL,
			       "nbd%u: there are too many fields; options are "
			       "separated by commas only, %d URIs are the most",
			       en->index, NBDTAB_SERVERS_MAX);
	if (count > 1 + where && take_options(en, &a, fields[1 + where], e))
		return -EINVAL;
	if (uris && (a.is_unix || a.port[0]))
		return err_set(e, ERR_USAGE, EINVAL, "option %s: a URI says it itself",
			       a.is_unix ? "unix" : "port");
	for (unsigned i = 0; i < uris; i++)
		en->operands[en->operand_count++] =
			add_word(en, "", "", fields[1 + i].s + 4, fields[1 + i].len - 4);
	if (!uris && take_host(en, &a, fields[1], fields[2], e))
		return -EINVAL;
	en->operands[en->operand_count++] = add_word(en, "", "", fields[0].s, fields[0].len);
	return 0;
}

int nbdtab_next(struct nbdtab *t, struct nbdtab_entry *en, struct err *e)
{
	struct field fields[FIELDS_MAX];
	unsigned count = 0;
	int ret = 0;

	while (!count && !ret) {
		const char *s = t->text + t->at;
		const char *newline;
		size_t len;

		if (t->at == t->len)
			return 0;
		newline = memchr(s, '\n', t->len - t->at);
		len = newline ? (size_t)(newline - s) : t->len - t->at;
		t->at += len + !!newline;
		t->line++;
		if (len > NBDTAB_LINE_MAX)
			ret = err_set(e, ERR_USAGE, EINVAL, "more than %d bytes", NBDTAB_LINE_MAX);
		else if (memchr(s, '\0', len))
			ret = err_set(e, ERR_USAGE, EINVAL, "a NUL byte");
		else
			count = split(s, len, fields);
	}
	memset(en, 0, sizeof(*en));
	en->line = t->line;
	if (!ret)
		ret = take_fields(en, fields, count, e);
	return ret ? err_wrap(e, "line %u", t->line) : 1;
}

int nbdtab_find(const char *text, size_t len, unsigned index, struct nbdtab_entry *en,
		struct err *e)
{
	struct nbdtab t = { .text = text, .len = len }, first = t;
	unsigned line = 0;
	struct err this;
	int ret;

	for (;;) {
		struct nbdtab before = t;

		ret = nbdtab_next(&t, en, &this);
		if (!ret)
			break;
		if (!en->has_device || en->index != index)
			continue;
		if (line)
			return err_set(e, ERR_USAGE, EINVAL, "line %u: nbd%u is in line %u already",
				       en->line, index, line);
		if (ret < 0) {
			*e = this;
			return ret;
		}
		line = en->line;
		first = before;
	}
	if (!line)
		return err_set(e, ERR_FAILED, ENOENT, "no line is about nbd%u", index);
	nbdtab_next(&first, en, e);
	return 0;
}
