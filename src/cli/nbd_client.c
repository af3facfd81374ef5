/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cli/nbd_client.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

/* What is done with an option. */
enum kind {
	WORD,  /* it becomes our option */
	VALUE, /* so does its value */
	REFUSED,
	CHECK,
	DETACH,
	LIST,
	HELP,
	VERSION,
	NAME,
	UNIX,
	IOCTL,
	NO_FORK,
	PERSIST,
	SWAP,
	MARK,
};

static const struct option_row {
	int letter;
	const char *name;
	bool takes; /* a value */
	enum kind kind;
	const char *text; /* our option, or why it is refused */
} rows[] = {
	{ 'A', "cacertfile", true, VALUE, "tls-ca" },
	{ 'b', "block-size", true, VALUE, "block-size" },
	{ 'B', "size", true, REFUSED, "the size of the export is what the server says it is" },
	{ 'c', "check", true, CHECK, NULL },
	{ 'C', "connections", true, VALUE, "connections" },
	{ 'd', "disconnect", true, DETACH, NULL },
	{ 'F', "certfile", true, VALUE, "tls-cert" },
	{ 'g', "no-optgo", false, REFUSED,
	  "a server without NBD_OPT_GO is noticed, and one that stumbles over it cannot be used" },
	{ 'h', "help", false, HELP, NULL },
	{ 'H', "tlshostname", true, VALUE, "tls-hostname" },
	{ 'K', "keyfile", true, VALUE, "tls-key" },
	{ 'l', "list", false, LIST, NULL },
	{ 'L', "nonetlink", false, IOCTL, NULL },
	{ 'm', "systemd-mark", false, MARK, "keep-at-shutdown" },
	{ 'n', "nofork", false, NO_FORK, NULL },
	{ 'N', "name", true, NAME, NULL },
	{ 'p', "persist", false, PERSIST, NULL },
	{ 'P', "preinit", false, REFUSED, "there is no attachment without a handshake" },
	{ 'R', "readonly", false, WORD, "read-only" },
	{ 's', "swap", false, SWAP, "swap" },
	{ 'S', "sdp", false, REFUSED, "Linux has no Socket Direct Protocol" },
	{ 't', "timeout", true, VALUE, "timeout" },
	{ 'u', "unix", false, UNIX, NULL },
	{ 'V', "version", false, VERSION, NULL },
	{ 'x', "enable-tls", false, WORD, "tls" },
};
enum { ROWS = sizeof(rows) / sizeof(rows[0]) };

struct given {
	const char *operands[3]; /* HOST, PORT, DEVICE */
	unsigned count;          /* with a PORT that was left out */
	const char *name;
	const char *cert, *key;
	const char *detach;
	bool list, is_unix, no_fork, persist, swap, mark;
};

bool nbd_client_is_meant(const char *argv0)
{
	const char *slash = argv0 ? strrchr(argv0, '/') : NULL;

	if (!argv0)
		return false;
	return !strcmp(slash ? slash + 1 : argv0 + (argv0[0] == '@'), "nbd-client");
}

static int wrong(struct err *e, const char *what, const char *word, const char *why)
{
	char shown[160];

	text_escape(shown, sizeof(shown), word, strlen(word));
	return err_set(e, ERR_USAGE, EINVAL, "%s%s: %s", what, shown, why);
}

static int add(struct personality *p, struct err *e, const char *a, const char *b, const char *c,
	       const char *d)
{
	size_t room = sizeof(p->text) - p->used;
	int n = snprintf(p->text + p->used, room, "%s%s%s%s", a, b, c, d);

	if (p->word_count == NBD_CLIENT_WORDS_MAX || (size_t)n >= room)
		return err_set(e, ERR_USAGE, E2BIG, "the command line is too long");
	p->words[p->word_count++] = p->text + p->used;
	p->used += (unsigned)n + 1;
	return 0;
}

/* An operand: "bs=" and "timeout=" from before there were options, HOST, PORT or DEVICE. */
static int take_operand(struct personality *p, struct given *g, const char *s, struct err *e)
{
	if (strchr(s, '=')) {
		p->old_style = true;
		if (!strncmp(s, "bs=", 3))
			return add(p, e, "--block-size=", s + 3, "", "");
		if (!strncmp(s, "timeout=", 8))
			return add(p, e, "--timeout=", s + 8, "", "");
		return wrong(e, "", s, "bs= and timeout= are all that there is of this kind");
	}
	/* what is no number can be no port */
	if (g->count == 1 && !strtol(s, NULL, 0))
		g->count++;
	if (g->count >= 3)
		return wrong(e, "", s, "too many operands");
	g->operands[g->count++] = s;
	return 0;
}

static int take(struct personality *p, struct given *g, const struct option_row *row,
		const char *value, struct err *e)
{
	int ret;

	switch (row->kind) {
	case VALUE:
		if (row->letter == 'F')
			g->cert = value;
		if (row->letter == 'K')
			g->key = value;
		return add(p, e, "--", row->text, "=", value);
	case WORD:
		return add(p, e, "--", row->text, "", "");
	case SWAP:
	case MARK:
		if (row->kind == SWAP ? g->swap : g->mark)
			return 0;
		*(row->kind == SWAP ? &g->swap : &g->mark) = true;
		/* who wants to be spared stands behind a root, whose files it must do without */
		if (row->kind == MARK && (ret = add(p, e, "--root", "", "", "")))
			return ret;
		return add(p, e, "--", row->text, "", "");
	case REFUSED:
		return wrong(e, "-", row->name, row->text);
	case DETACH:
		g->detach = value;
		return 0;
	case LIST:
		g->list = true;
		return 0;
	case NAME:
		g->name = value;
		return 0;
	case UNIX:
		g->is_unix = true;
		return 0;
	case IOCTL:
		p->ioctl_words = true;
		return 0;
	case NO_FORK:
		g->no_fork = true;
		return 0;
	default:
		g->persist = true;
		return 0;
	}
}

/* *ended: -check, -help or -version, which end it at once. */
static int options(int argc, char *argv[], struct personality *p, struct given *g, bool *ended,
		   struct err *e)
{
	char letters[2 * ROWS + 3] = "-:";
	struct option longs[ROWS + 1] = { { 0 } };
	size_t n = 2;
	int value;

	for (size_t i = 0; i < ROWS; i++) {
		longs[i] = (struct option){ rows[i].name,
					    rows[i].takes ? required_argument : no_argument, NULL,
					    rows[i].letter };
		letters[n++] = (char)rows[i].letter;
		if (rows[i].takes)
			letters[n++] = ':';
	}
	optind = 0; /* glibc: start anew */
	opterr = 0;
	while ((value = getopt_long_only(argc, argv, letters, longs, NULL)) != -1) {
		const struct option_row *row = NULL;

		if (value == 1) {
			if (take_operand(p, g, optarg, e))
				return -e->code;
			continue;
		}
		if (value == '?' || value == ':')
			return wrong(
				e, "option ", argv[optind - 1],
				value == ':' ?
					"it needs a value" :
					"unknown, ambiguous, or with a value that it does not take");
		for (size_t i = 0; i < ROWS; i++)
			if (rows[i].letter == value)
				row = &rows[i];
		*ended = row->kind == CHECK || row->kind == HELP || row->kind == VERSION;
		p->device = row->kind == CHECK ? optarg : NULL;
		p->task = row->kind == CHECK ? NBD_CLIENT_CHECK :
			  row->kind == HELP  ? NBD_CLIENT_HELP :
					       NBD_CLIENT_VERSION;
		if (*ended)
			return 0;
		if (take(p, g, row, optarg, e))
			return -e->code;
	}
	for (; optind < argc; optind++) /* after "--" */
		if (take_operand(p, g, argv[optind], e))
			return -e->code;
	return 0;
}

/* HOST and PORT as one word. */
static int add_host(struct personality *p, const struct given *g, struct err *e)
{
	const char *host = g->operands[0], *port = g->operands[1];
	const char *colon = strchr(host, ':');
	bool bare6 = host[0] != '[' && colon && strchr(colon + 1, ':');

	if (g->is_unix) {
		if (port)
			return wrong(e, "port ", port, "a Unix socket has none");
		/* a '/' is what tells a path */
		return add(p, e, strchr(host, '/') ? "" : "./", host, "", "");
	}
	if (!host[0] || strchr(host, '/') || (colon && !bare6 && host[0] != '['))
		return wrong(
			e, "host ", host,
			"no name and no address; a path is for -unix, a port is a word of its own");
	if (!port)
		return add(p, e, bare6 ? "[" : "", host, bare6 ? "]" : "", "");
	return add(p, e, bare6 ? "[" : "", host, bare6 ? "]:" : ":", port);
}

static int add_operands(struct personality *p, const struct given *g, struct err *e)
{
	const char *device = g->operands[2];

	p->any_device = p->task == NBD_CLIENT_ATTACH && !device;
	p->default_export = p->task == NBD_CLIENT_ATTACH && (!g->name || !g->name[0]);
	if (p->task == NBD_CLIENT_DETACH || p->task == NBD_CLIENT_TAB)
		return add(p, e, p->task == NBD_CLIENT_DETACH ? g->detach : g->operands[0], "", "",
			   "");
	if (add_host(p, g, e))
		return -e->code;
	if (p->task == NBD_CLIENT_LIST)
		return 0;
	if (add(p, e, g->name ? g->name : "", "", "", ""))
		return -e->code;
	return device ? add(p, e, device, "", "", "") : 0;
}

/* The words that stand for no single option. */
static int add_manner(struct personality *p, const struct given *g, struct err *e)
{
	int ret = 0;

	if (p->task == NBD_CLIENT_DETACH)
		return add(p, e, "--detach", "", "", "");
	if (p->task == NBD_CLIENT_LIST)
		ret = add(p, e, "--exports", "", "", "");
	p->supervised = g->persist || g->swap || g->mark;
	/* the nbdtab has its own "persist" */
	if (!p->supervised && p->task == NBD_CLIENT_ATTACH)
		ret = add(p, e, "--no-supervise", "", "", "");
	if (!ret && p->supervised && g->no_fork && p->task != NBD_CLIENT_LIST)
		ret = add(p, e, "--foreground", "", "", "");
	if (!ret && p->task == NBD_CLIENT_ATTACH && !g->operands[2])
		ret = add(p, e, "--find", "", "", "");
	/* nbd-client takes both from one file then */
	if (!ret && g->key && !g->cert)
		ret = add(p, e, "--tls-cert=", g->key, "", "");
	return ret;
}

/* What only means something to an attach: nbd-client takes it elsewhere too. */
static void keep_for_task(struct personality *p)
{
	int n = 1;

	if (p->task == NBD_CLIENT_ATTACH || p->task == NBD_CLIENT_TAB)
		return;
	for (int i = 1; i < p->word_count; i++)
		if (p->task == NBD_CLIENT_LIST && !strncmp(p->words[i], "--tls", 5))
			p->words[n++] = p->words[i];
	p->word_count = n;
}

int nbd_client_parse(int argc, char *argv[], struct personality *p, struct err *e)
{
	struct given g = { 0 };
	bool ended = false;
	unsigned index;
	int ret;

	memset(p, 0, sizeof(*p));
	ret = add(p, e, "nbd-attach", "", "", "");
	if (!ret)
		ret = options(argc, argv, p, &g, &ended, e);
	if (ret || ended)
		return ret;
	if (g.detach || g.list) {
		p->task = g.detach ? NBD_CLIENT_DETACH : NBD_CLIENT_LIST;
	} else {
		p->task = g.count == 1 && !text_nbd_index(g.operands[0], &index) ?
				  NBD_CLIENT_TAB :
				  NBD_CLIENT_ATTACH;
	}
	if (!g.detach && !g.count)
		return err_set(e, ERR_USAGE, EINVAL,
			       "no host and no device is given; see nbd-client -help");
	keep_for_task(p);
	ret = add_manner(p, &g, e);
	if (!ret)
		ret = add(p, e, "--", "", "", "");
	return ret ? ret : add_operands(p, &g, e);
}
