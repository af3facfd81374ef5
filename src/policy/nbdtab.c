/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "policy/nbdtab.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"

enum { FIELDS_MAX = SETTINGS_SERVERS_MAX + 3, PORT_MAX = 7 };

enum own { PORT, UNIX, PERSIST, NO_AUTO, REFUSED };

/* Options that are no settings. */
static const struct {
	const char *name;
	enum own own;
	const char *why; /* reason of REFUSED */
} own_options[] = {
	{ "port", PORT, NULL },
	{ "unix", UNIX, NULL },
	{ "persist", PERSIST, NULL },
	{ "noauto", NO_AUTO, NULL },
	{ "no_optgo", REFUSED,
	  "a server without NBD_OPT_GO is noticed, and one that stumbles over it cannot be used" },
	{ "sdp", REFUSED, "Linux has no Socket Direct Protocol" },
};
enum { OWN_OPTIONS = sizeof(own_options) / sizeof(own_options[0]) };

/* What the options of a line say besides its settings. */
struct line_options {
	const char *own[REFUSED]; /* value, "" where it takes none; NULL: not given */
	bool has_keyfile;
};

static int refuse_line(struct err *e, const char *what, const char *word, const char *why)
{
	char shown[160];

	text_escape(shown, sizeof(shown), word, strlen(word));
	return err_set(e, ERR_USAGE, EINVAL, "%s%s: %s", what, shown, why);
}

/* option is cut in two at equals, which is NULL where there is no "=". */
static int check_value(char *option, bool takes_value, char *equals, struct err *e)
{
	if (!takes_value && equals) {
		*equals = '=';
		return refuse_line(e, "option ", option, "it takes no value");
	}
	if (takes_value && (!equals || !equals[1]))
		return refuse_line(e, "option ", option, "it needs a value");
	return 0;
}

static int take_own_option(struct line_options *l, unsigned i, char *option, char *equals,
			   struct err *e)
{
	enum own own = own_options[i].own;

	if (own == REFUSED)
		return refuse_line(e, "option ", option, own_options[i].why);
	if (l->own[own])
		return refuse_line(e, "option ", option, "it is given twice");
	if (check_value(option, own == PORT, equals, e))
		return -EINVAL;
	l->own[own] = equals ? equals + 1 : "";
	if (own == PORT && strlen(l->own[PORT]) > PORT_MAX)
		return refuse_line(e, "option ", option, "the port is no number from 1 to 65535");
	return 0;
}

static int take_tab_option(struct nbdtab_entry *en, struct line_options *l, char *option,
			   struct err *e)
{
	char *equals = strchr(option, '=');
	const struct settings_row *row;
	char called[64];

	if (equals)
		*equals = '\0';
	if (option[0] == '_')
		return 0;
	for (unsigned i = 0; i < OWN_OPTIONS; i++)
		if (!strcmp(option, own_options[i].name))
			return take_own_option(l, i, option, equals, e);
	row = settings_find(option, SETTINGS_NBDTAB);
	if (!row)
		return refuse_line(e, "option ", option, "there is none of this name");
	if (settings_row_given(&en->settings, row))
		return refuse_line(e, "option ", option, "it is given twice");
	if (check_value(option, row->argument, equals, e))
		return -EINVAL;
	if (!strcmp(option, "keyfile"))
		l->has_keyfile = true;
	snprintf(called, sizeof(called), "option %s", option);
	return settings_set(&en->settings, row, called, equals ? equals + 1 : NULL, e);
}

static int take_options(struct nbdtab_entry *en, struct line_options *l, char *options,
			struct err *e)
{
	while (*options) {
		size_t len = strcspn(options, ",");
		char *next = options + len + !!options[len];

		if (!len)
			return refuse_line(e, "options ", options, "one of them is empty");
		options[len] = '\0';
		if (take_tab_option(en, l, options, e))
			return -e->code;
		options = next;
	}
	en->persist = l->own[PERSIST];
	en->no_auto = l->own[NO_AUTO];
	/* nbd-client reads the certificate from the file of the key then */
	if (l->has_keyfile && !en->settings.tls.cert[0])
		return settings_set(&en->settings, settings_find("tls-cert", SETTINGS_NBDTAB),
				    "option certfile", en->settings.tls.key, e);
	return 0;
}

static int take_tab_host(struct nbdtab_entry *en, const struct line_options *l, const char *host,
			 const char *export, struct err *e)
{
	const char *colon = strchr(host, ':');
	bool bare6 = colon && strchr(colon + 1, ':') && host[0] != '[';

	if (uri_looks_like(host))
		return refuse_line(e, "host ", host,
				   "a URI is given as uri=URI, and has the export in it");
	if (l->own[UNIX] && l->own[PORT])
		return refuse_line(e, "host ", host, "a Unix socket has no port");
	if (!l->own[UNIX] && strchr(host, '/'))
		return refuse_line(e, "host ", host, "a path, without the option unix");
	if (l->own[PORT] && colon && !bare6 && host[strlen(host) - 1] != ']')
		return refuse_line(e, "host ", host,
				   "it has a port already, and there is an option port");
	return settings_add_host(&en->settings, host, l->own[PORT], l->own[UNIX], export, e);
}

/*
 * Number of fields up to the end of the line or a comment. Those beyond FIELDS_MAX are only
 * counted.
 */
static unsigned split_line(char *s, char *fields[])
{
	unsigned n = 0;

	for (;;) {
		s += strspn(s, " \t\r");
		if (!*s || *s == '#')
			return n;
		if (n < FIELDS_MAX)
			fields[n] = s;
		n++;
		s += strcspn(s, " \t\r");
		if (*s)
			*s++ = '\0';
	}
}

static int take_device(struct nbdtab_entry *en, const char *name, struct err *e)
{
	if (strchr(name, '/') || text_nbd_index(name, &en->index))
		return refuse_line(e, "device ", name, "nbdN is needed");
	en->has_device = true;
	return 0;
}

static int take_uris(struct nbdtab_entry *en, char *fields[], unsigned count,
		     const struct line_options *l, struct err *e)
{
	if (l->own[UNIX] || l->own[PORT])
		return err_set(e, ERR_USAGE, EINVAL, "option %s: a URI says it itself",
			       l->own[UNIX] ? "unix" : "port");
	for (unsigned i = 0; i < count; i++)
		if (settings_add_uri(&en->settings, fields[i] + strlen("uri="), e))
			return -e->code;
	return 0;
}

static int take_fields(struct nbdtab_entry *en, char *fields[], unsigned count, struct err *e)
{
	struct line_options l = { .has_keyfile = false };
	unsigned uris = 0, where;

	if (take_device(en, fields[0], e))
		return -EINVAL;
	while (1 + uris < count && uris < SETTINGS_SERVERS_MAX &&
	       !strncmp(fields[1 + uris], "uri=", 4))
		uris++;
	where = uris ? uris : 2;
	if (count < 1 + where)
		return err_set(e, ERR_USAGE, EINVAL,
			       "nbd%u: HOST and EXPORT, or uri=URI, are needed", en->index);
	if (count > 2 + where)
		return err_set(e, ERR_USAGE, EINVAL,
			       "nbd%u: there are too many fields; options are "
			       "separated by commas only, %d URIs are the most",
			       en->index, SETTINGS_SERVERS_MAX);
	if (count > 1 + where && take_options(en, &l, fields[1 + where], e))
		return -e->code;
	return uris ? take_uris(en, fields + 1, uris, &l, e) :
		      take_tab_host(en, &l, fields[1], fields[2], e);
}

/* Copies the next line without its newline. Returns 1, 0 at the end, or -EINVAL. */
static int copy_line(struct nbdtab *t, char line[NBDTAB_LINE_MAX + 1], struct err *e)
{
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
		return err_set(e, ERR_USAGE, EINVAL, "more than %d bytes", NBDTAB_LINE_MAX);
	if (memchr(s, '\0', len))
		return err_set(e, ERR_USAGE, EINVAL, "a NUL byte");
	memcpy(line, s, len);
	line[len] = '\0';
	return 1;
}

int nbdtab_next(struct nbdtab *t, struct nbdtab_entry *en, struct err *e)
{
	char line[NBDTAB_LINE_MAX + 1];
	char *fields[FIELDS_MAX];
	unsigned count = 0;
	int ret;

	do {
		ret = copy_line(t, line, e);
		if (ret > 0)
			count = split_line(line, fields);
	} while (ret > 0 && !count);
	if (!ret)
		return 0;
	memset(en, 0, sizeof(*en));
	settings_init(&en->settings);
	en->line = t->line;
	if (ret > 0 && !take_fields(en, fields, count, e))
		return 1;
	err_wrap(e, "line %u", t->line);
	return -EINVAL;
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
