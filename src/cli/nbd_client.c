/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "cli/nbd_client.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

enum own {
	REFUSED,
	ENDS, /* a command that ends the parsing */
	DETACH,
	LIST,
	NAME,
	UNIX,
	IOCTL,
	NO_FORK,
	PERSIST,
	MARK,
	OWN_KINDS,
};

/* Options that are no settings; the others are the rows of settings_rows with a client name. */
static const struct own_option {
	char letter;
	const char *name;
	bool takes_value;
	enum own own;
	enum opts_command command; /* command of ENDS */
	const char *why;           /* reason of REFUSED */
} own_options[] = {
	{ 'B', "size", true, REFUSED, 0, "the size of the export is what the server says it is" },
	{ 'c', "check", true, ENDS, OPTS_CHECK, NULL },
	{ 'd', "disconnect", true, DETACH, 0, NULL },
	{ 'g', "no-optgo", false, REFUSED, 0,
	  "a server without NBD_OPT_GO is noticed, and one that stumbles over it cannot be used" },
	{ 'h', "help", false, ENDS, OPTS_HELP, NULL },
	{ 'l', "list", false, LIST, 0, NULL },
	{ 'L', "nonetlink", false, IOCTL, 0, NULL },
	{ 'm', "systemd-mark", false, MARK, 0, NULL },
	{ 'n', "nofork", false, NO_FORK, 0, NULL },
	{ 'N', "name", true, NAME, 0, NULL },
	{ 'p', "persist", false, PERSIST, 0, NULL },
	{ 'P', "preinit", false, REFUSED, 0, "there is no attachment without a handshake" },
	{ 'S', "sdp", false, REFUSED, 0, "Linux has no Socket Direct Protocol" },
	{ 'u', "unix", false, UNIX, 0, NULL },
	{ 'V', "version", false, ENDS, OPTS_VERSION, NULL },
};
enum {
	OWN_OPTIONS = sizeof(own_options) / sizeof(own_options[0]),
	OPTIONS_MAX = OWN_OPTIONS + SETTINGS_ROWS_MAX,
};

/* What was given. Settings are set when the command is known: some commands ignore them. */
struct given {
	char *operands[3]; /* HOST, PORT, DEVICE */
	unsigned count;    /* operands, including a PORT that was left out */
	/* Values, "" where an option takes none; NULL: not given. */
	char *own[OWN_KINDS];
	char *setting[SETTINGS_ROWS_MAX]; /* by row of settings_rows */
	bool old_style;
};

bool nbd_client_is_meant(const char *argv0)
{
	const char *slash = argv0 ? strrchr(argv0, '/') : NULL;

	if (!argv0)
		return false;
	return !strcmp(slash ? slash + 1 : argv0 + (argv0[0] == '@'), "nbd-client");
}

static int refuse_word(struct err *e, const char *what, const char *word, const char *why)
{
	char shown[160];

	text_escape(shown, sizeof(shown), word, strlen(word));
	return err_set(e, ERR_USAGE, EINVAL, "%s%s: %s", what, shown, why);
}

/* An operand: "bs=" and "timeout=" from before there were options, HOST, PORT or DEVICE. */
static int take_operand(struct given *g, char *s, struct err *e)
{
	const bool bs = !strncmp(s, "bs=", 3), timeout = !strncmp(s, "timeout=", 8);
	const struct settings_row *row;

	if (bs || timeout) {
		row = settings_find(bs ? "block-size" : "timeout", SETTINGS_NBD_CLIENT);
		g->setting[row - settings_rows] = strchr(s, '=') + 1;
		g->old_style = true;
		return 0;
	}
	if (strchr(s, '='))
		return refuse_word(e, "", s, "bs= and timeout= are all that there is of this kind");
	/* A word that is no number is no PORT. */
	if (g->count == 1 && !strtol(s, NULL, 0))
		g->count++;
	if (g->count >= 3)
		return refuse_word(e, "", s, "too many operands");
	g->operands[g->count++] = s;
	return 0;
}

/* Tables for getopt. */
static void list_options(struct option longs[OPTIONS_MAX + 1], char letters[2 * OPTIONS_MAX + 3])
{
	const struct settings_row *row;
	const struct own_option *own;

	letters = stpcpy(letters, "-:");
	for (own = own_options; own < own_options + OWN_OPTIONS; own++) {
		*longs++ = (struct option){ own->name, own->takes_value, NULL, own->letter };
		letters += sprintf(letters, "%c%s", own->letter, own->takes_value ? ":" : "");
	}
	for (row = settings_rows; row->name; row++) {
		if (!row->client)
			continue;
		*longs++ =
			(struct option){ row->client, !!row->argument, NULL, row->client_letter };
		letters += sprintf(letters, "%c%s", row->client_letter, row->argument ? ":" : "");
	}
	*longs = (struct option){ 0 };
}

/* Returns 1 for an option that ends the parsing. */
static int take_word(struct opts *o, struct given *g, int letter, char *argv[], struct err *e)
{
	const struct own_option *own = own_options;
	const struct settings_row *row = settings_rows;
	static char none[] = "";

	while (own < own_options + OWN_OPTIONS && own->letter != letter)
		own++;
	if (own == own_options + OWN_OPTIONS) {
		while (row->client_letter != letter)
			row++;
		g->setting[row - settings_rows] = optarg ? optarg : none;
		return 0;
	}
	if (own->own == REFUSED)
		return refuse_word(e, "-", own->name, own->why);
	g->own[own->own] = optarg ? optarg : none;
	if (own->own != ENDS)
		return 0;
	o->command = own->command;
	o->device_count = own->takes_value;
	argv[0] = optarg;
	return 1;
}

/* Returns 1 where an option has ended the parsing. */
static int parse_words(int argc, char *argv[], struct opts *o, struct given *g, struct err *e)
{
	char letters[2 * OPTIONS_MAX + 3];
	struct option longs[OPTIONS_MAX + 1];
	int value, ret = 0;

	list_options(longs, letters);
	optind = 0; /* glibc: start anew */
	opterr = 0;
	while (!ret && (value = getopt_long_only(argc, argv, letters, longs, NULL)) != -1) {
		if (value == '?' || value == ':')
			return refuse_word(
				e, "option ", argv[optind - 1],
				value == ':' ?
					"it needs a value" :
					"unknown, ambiguous, or with a value that it does not take");
		ret = value == 1 ? take_operand(g, optarg, e) : take_word(o, g, value, argv, e);
	}
	for (; !ret && optind < argc; optind++) /* after "--" */
		ret = take_operand(g, argv[optind], e);
	return ret;
}

/* Sets the options that the command uses. nbd-client takes all options with all commands. */
static int set_settings(struct opts *o, const struct given *g, struct err *e)
{
	const bool attaches = o->command == OPTS_ATTACH || o->command == OPTS_TAB;
	struct tls_params *t = &o->settings.tls;
	char called[64];

	for (size_t i = 0; settings_rows[i].name; i++) {
		const struct settings_row *row = &settings_rows[i];

		if (!g->setting[i] ||
		    !(attaches || (o->command == OPTS_EXPORTS && row->group == SETTINGS_GROUP_TLS)))
			continue;
		snprintf(called, sizeof(called), "-%s", row->client);
		if (settings_set(&o->settings, row, called, row->argument ? g->setting[i] : NULL,
				 e))
			return -e->code;
	}
	/* nbd-client reads the certificate from the file of the key then */
	if (t->key[0] && !t->cert[0])
		return settings_set(&o->settings, settings_find("certfile", SETTINGS_NBD_CLIENT),
				    "-certfile", t->key, e);
	return 0;
}

/* Sets how the device is supervised. The nbdtab has a "persist" of its own. */
static int set_manner(struct opts *o, const struct given *g, struct err *e)
{
	/* A process that wants to be spared serves the root, and must do without its files. */
	static const char *const marks[] = { "root", "keep-at-shutdown" };
	struct settings *s = &o->settings;
	int ret = 0;

	if (o->command != OPTS_ATTACH && o->command != OPTS_TAB)
		return 0;
	for (unsigned i = 0; !ret && g->own[MARK] && i < 2; i++)
		ret = settings_set(s, settings_find(marks[i], SETTINGS_ATTACH), "-systemd-mark",
				   NULL, e);
	o->persist_counts = !g->own[PERSIST] && !settings_is_vital(s);
	if (!ret && o->persist_counts && o->command == OPTS_ATTACH)
		s->supervision.none = true;
	o->foreground = !o->persist_counts && g->own[NO_FORK];
	return ret;
}

static int add_host(struct opts *o, const struct given *g, struct err *e)
{
	const char *host = g->operands[0], *port = g->operands[1];
	const char *colon = strchr(host, ':'), *name = g->own[NAME];
	bool bare6 = host[0] != '[' && colon && strchr(colon + 1, ':');

	if (g->own[UNIX] && port)
		return refuse_word(e, "port ", port, "a Unix socket has none");
	if (!g->own[UNIX] && (!host[0] || strchr(host, '/') || (colon && !bare6 && host[0] != '[')))
		return refuse_word(
			e, "host ", host,
			"no name and no address; a path is for -unix, a port is a word of its own");
	return settings_add_host(&o->settings, host, port, g->own[UNIX],
				 o->command == OPTS_ATTACH && name ? name : "", e);
}

static int set_operands(struct opts *o, const struct given *g, char *argv[], struct err *e)
{
	char *device = o->command == OPTS_DETACH ? g->own[DETACH] :
		       o->command == OPTS_TAB    ? g->operands[0] :
						   g->operands[2];

	if ((o->command == OPTS_ATTACH || o->command == OPTS_EXPORTS) && add_host(o, g, e))
		return -e->code;
	o->find = o->command == OPTS_ATTACH && !device;
	if (!device || o->command == OPTS_EXPORTS)
		return 0;
	argv[0] = device;
	o->device_count = 1;
	return opts_device(device, &o->index, e);
}

int nbd_client_parse(int argc, char *argv[], struct opts *o, bool *old_style, struct err *e)
{
	struct given g = { .count = 0 };
	unsigned index;
	int ret;

	memset(o, 0, sizeof(*o));
	settings_init(&o->settings);
	o->client = OPTS_CLIENT_NETLINK;
	o->nbdtab = NBD_ATTACH_NBDTAB;
	o->devices = argv;
	ret = parse_words(argc, argv, o, &g, e);
	*old_style = g.old_style && !ret;
	if (ret)
		return ret > 0 ? 0 : ret;
	if (!g.own[DETACH] && !g.count)
		return err_set(e, ERR_USAGE, EINVAL,
			       "no host and no device is given; see nbd-client -help");
	if (g.own[DETACH])
		o->command = OPTS_DETACH;
	else if (g.own[LIST])
		o->command = OPTS_EXPORTS;
	else if (g.count == 1 && !text_nbd_index(g.operands[0], &index))
		o->command = OPTS_TAB;
	if (g.own[IOCTL])
		o->client = OPTS_CLIENT_IOCTL;
	ret = set_settings(o, &g, e);
	if (!ret)
		ret = set_manner(o, &g, e);
	if (!ret)
		ret = set_operands(o, &g, argv, e);
	return ret ? ret : settings_complete(&o->settings, false, e);
}
