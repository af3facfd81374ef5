/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "cli/opts.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "config.h"

/* Argument of --map, NULL where it has none. */
static int read_contexts(void *of, const char *text, struct err *e)
{
	struct metactx *contexts = &((struct opts *)of)->contexts;
	const char *p = text ? text : "base:allocation";

	memset(contexts, 0, sizeof(*contexts));
	for (;;) {
		size_t len = strcspn(p, ",");

		if (metactx_add(contexts, p, len, e))
			return err_wrap(e, "--map");
		if (!p[len])
			return 0;
		p += len + 1;
	}
}

#define IN(command) (1U << (command))
#define NETWORK     (IN(OPTS_ATTACH) | IN(OPTS_EXPORTS) | IN(OPTS_INFO) | IN(OPTS_MAP))
#define TABLES      (IN(OPTS_LIST) | IN(OPTS_EXPORTS) | IN(OPTS_INFO))

/* A row without a place is a command, whose number is the default. */
#define COMMAND(number) .type = SETTINGS_SPECIAL, .normal = number, .group = SETTINGS_GROUP_COMMAND
#define FLAG(member)    .type = SETTINGS_FLAG, .offset = offsetof(struct opts, member)
#define WORD(member)    .type = SETTINGS_WORD, .offset = offsetof(struct opts, member)
#define ATTACHING       .group = SETTINGS_GROUP_ATTACH, .places
#define OUTPUT          .group = SETTINGS_GROUP_OUTPUT, .places

/* Options of the command line only. The others are settings_rows. */
static const struct settings_row own_rows[] = {
	{ "detach", 'd', NULL, COMMAND(OPTS_DETACH),
	  .help = "detach the devices, unless they are in use" },
	{ "list", 'l', NULL, COMMAND(OPTS_LIST), .help = "list attached devices" },
	{ "check", 'c', NULL, COMMAND(OPTS_CHECK),
	  .help = "print the pid that attached the device; exit 1 if none did" },
	{ "exports", 0, NULL, COMMAND(OPTS_EXPORTS), .help = "list the exports of a server" },
	{ "info", 0, NULL, COMMAND(OPTS_INFO), .help = "show what a server says about an export" },
	{ "pause", 0, NULL, COMMAND(OPTS_PAUSE),
	  .help = "break the connections and let all I/O wait, before the server is stopped" },
	{ "resume", 0, NULL, COMMAND(OPTS_RESUME), .help = "connect again after --pause" },
	{ "rescan", 0, NULL, COMMAND(OPTS_RESCAN),
	  .help = "ask the server for the size and grow the device" },
	{ "adopt", 0, NULL, COMMAND(OPTS_ADOPT),
	  .help = "supervise a device whose supervisor died, or take it over from one" },
	{ "map", 0, "[=CONTEXT,...]", COMMAND(OPTS_MAP), .read = read_contexts,
	  .help = "show where an export's data and holes are, or what else a meta context says (base:allocation)" },
	{ "all", 'a', NULL, COMMAND(OPTS_ALL),
	  .help = "attach all that the nbdtab has, but for the lines with noauto" },
	{ "help", 'h', NULL, COMMAND(OPTS_HELP), .help = "show this" },
	{ "version", 'V', NULL, COMMAND(OPTS_VERSION), .help = "show the version" },

	{ "find", 'f', NULL, FLAG(find), ATTACHING = IN(OPTS_ATTACH),
	  .help = "attach to any free device" },
	{ "show", 0, NULL, FLAG(show), ATTACHING = IN(OPTS_ATTACH) | IN(OPTS_ALL),
	  .help = "print the device, for --find and --all" },
	{ "nbdtab", 0, "FILE", WORD(nbdtab), ATTACHING = IN(OPTS_ATTACH) | IN(OPTS_ALL),
	  .help = "for a DEVICE alone and --all: instead of " NBD_ATTACH_NBDTAB },
	{ "command", 0, NULL, FLAG(has_command), ATTACHING = NETWORK,
	  .help = "the server is the command after --, on its standard input and output" },
	{ "foreground", 0, NULL, FLAG(foreground), .group = SETTINGS_GROUP_SUPERVISION,
	  .places = IN(OPTS_ATTACH),
	  .help = "stay until the device is detached, and tell a service manager how it is (sd_notify)" },

	{ "force", 0, NULL, FLAG(force), OUTPUT = IN(OPTS_DETACH),
	  .help = "detach in spite of users and of a silent server; unwritten data is lost" },
	{ "output", 'O', "COLUMNS", WORD(columns), OUTPUT = TABLES,
	  .help = "columns to show, comma-separated; see nbd-attach(8)" },
	{ "totals", 0, NULL, FLAG(totals), OUTPUT = IN(OPTS_MAP),
	  .help = "only how many bytes there are of each kind" },
	{ "noheadings", 'n', NULL, FLAG(no_headings), OUTPUT = TABLES | IN(OPTS_MAP),
	  .help = "no headings" },
	{ "json", 0, NULL, FLAG(json), OUTPUT = TABLES | IN(OPTS_MAP), .help = "JSON" },
	{ "bytes", 0, NULL, FLAG(bytes), OUTPUT = TABLES, .help = "sizes in bytes" },
};
enum {
	OWN_ROWS = sizeof(own_rows) / sizeof(own_rows[0]),
	ROWS_MAX = OWN_ROWS + SETTINGS_ROWS_MAX,
	LONG_VALUE = 256, /* value of row 0 for getopt; letters are smaller */
};

/* All rows by number, NULL beyond the last. */
static const struct settings_row *row_at(unsigned i)
{
	const struct settings_row *row = i < OWN_ROWS ? &own_rows[i] : &settings_rows[i - OWN_ROWS];

	return row->name ? row : NULL;
}

static const char *const usages[] = {
	"nbd-attach [options] HOST EXPORT DEVICE",
	"nbd-attach [options] URI... DEVICE",
	"nbd-attach [options] --command [EXPORT] DEVICE -- COMMAND [ARGUMENT...]",
	"nbd-attach [options] DEVICE",
	"nbd-attach --all [--nbdtab FILE]",
	"nbd-attach [options] --find [--show] {HOST EXPORT | URI | --command [EXPORT] -- ...}",
	"nbd-attach --detach [--force] DEVICE...",
	"nbd-attach {--pause | --resume | --rescan | --adopt} DEVICE...",
	"nbd-attach --list [DEVICE...]",
	"nbd-attach --check DEVICE",
	"nbd-attach --exports {HOST | URI | --command -- COMMAND...}",
	"nbd-attach --info {HOST EXPORT | URI | --command [EXPORT] -- COMMAND...}",
	"nbd-attach --map[=CONTEXT,...] [--totals] {HOST EXPORT | URI | --command [EXPORT] -- ...}",
};

static const char *const groups[SETTINGS_GROUPS] = {
	[SETTINGS_GROUP_COMMAND] = "Commands",
	[SETTINGS_GROUP_ATTACH] = "Attaching",
	[SETTINGS_GROUP_SUPERVISION] = "Supervision",
	[SETTINGS_GROUP_TLS] = "TLS",
	[SETTINGS_GROUP_OUTPUT] = "Detaching and output",
};

static void help_option(FILE *f, const struct settings_row *row)
{
	char letter[] = { '-', row->letter, ',', '\0' };
	const char *space = row->argument && row->argument[0] != '[' ? " " : "";

	fprintf(f, " %s --%s%s%-*s %s\n", row->letter ? letter : "   ", row->name, space,
		26 - (int)strlen(row->name) - (int)strlen(space),
		row->argument ? row->argument : "", row->help);
}

void opts_help(FILE *f)
{
	const struct settings_row *row;

	fprintf(f, "Usage:\n");
	for (size_t i = 0; i < sizeof(usages) / sizeof(usages[0]); i++)
		fprintf(f, " %s\n", usages[i]);
	fprintf(f, "\nAttach a network block device export to the kernel.\n");
	for (int group = 0; group < SETTINGS_GROUPS; group++) {
		fprintf(f, "\n%s:\n", groups[group]);
		for (unsigned i = 0; (row = row_at(i)) != NULL; i++)
			if (row->help && row->group == (enum settings_group)group)
				help_option(f, row);
	}
	fprintf(f,
		"\nHOST is a name or an address, with :PORT unless it is 10809, or the path of a Unix socket.\n"
		"URI is nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH or\n"
		"nbd+vsock://CID[:PORT]/EXPORT, with nbds for TLS.\n"
		"DEVICE is /dev/nbdN or nbdN. Exit statuses and examples are in nbd-attach(8).\n");
	if (NBD_ATTACH_BUG_URL[0])
		fprintf(f, "Report bugs to <%s>.\n", NBD_ATTACH_BUG_URL);
}

static int usage_error(struct err *e, const char *text)
{
	return err_set(e, ERR_USAGE, EINVAL, "%s; see nbd-attach --help", text);
}

/* Row by the value that getopt returns. */
static const struct settings_row *find_row(int value, unsigned *i)
{
	const struct settings_row *row;

	for (*i = 0; (row = row_at(*i)) != NULL; ++*i)
		if (value == LONG_VALUE + (int)*i || (value && value == row->letter))
			break;
	return row;
}

/* Tables for getopt. */
static void list_rows(struct option longs[ROWS_MAX + 1], char letters[2 * ROWS_MAX + 2])
{
	const struct settings_row *row;

	letters = stpcpy(letters, ":");
	for (unsigned i = 0; (row = row_at(i)) != NULL; i++) {
		const char *a = row->argument;

		if (!row->help)
			continue;
		*longs++ = (struct option){
			.name = row->name,
			.has_arg = !a        ? no_argument :
				   *a == '[' ? optional_argument :
					       required_argument,
			.val = LONG_VALUE + (int)i,
		};
		if (row->letter)
			letters += sprintf(letters, "%c%s", row->letter, a ? ":" : "");
	}
	*longs = (struct option){ 0 };
}

/* optopt is the value of the option at fault, 0 for an unknown long one. */
static int refuse_option(int value, const char *last, struct err *e)
{
	char letter[] = { '-', (char)optopt, '\0' }, shown[80];
	bool is_long = !optopt || optopt >= LONG_VALUE;
	const char *word = is_long ? last : letter;

	text_escape(shown, sizeof(shown), word, strlen(word));
	return err_set(e, ERR_USAGE, EINVAL,
		       value == ':' ? "option %s needs an argument; see nbd-attach --help" :
				      "unknown option %s; see nbd-attach --help",
		       shown);
}

/* Takes a command. *chosen is the one so far, or NULL. */
static int choose_command(struct opts *o, const struct settings_row **chosen,
			  const struct settings_row *row, struct err *e)
{
	bool is_last = row->normal == OPTS_HELP || row->normal == OPTS_VERSION;

	if (*chosen && *chosen != row && !is_last)
		return err_set(e, ERR_USAGE, EINVAL, "--%s and --%s exclude each other",
			       (*chosen)->name, row->name);
	*chosen = row;
	o->command = (enum opts_command)row->normal;
	return row->read ? row->read(o, optarg, e) : 0;
}

static int set_option(struct opts *o, const struct settings_row *row, bool own, struct err *e)
{
	char called[64];

	snprintf(called, sizeof(called), "--%s", row->name);
	return own ? settings_set_member(o, row, called, optarg, e) :
		     settings_set(&o->settings, row, called, optarg, e);
}

/* Takes the options of argv[0..argc). */
static int parse_options(int argc, char *argv[], struct opts *o, struct err *e)
{
	char letters[2 * ROWS_MAX + 2];
	struct option longs[ROWS_MAX + 1];
	bool given[ROWS_MAX] = { false };
	const struct settings_row *chosen = NULL, *row;
	unsigned i;
	int value;

	list_rows(longs, letters);
	optind = 0; /* glibc: start anew */
	opterr = 0;
	while ((value = getopt_long(argc, argv, letters, longs, NULL)) != -1) {
		row = value == '?' || value == ':' ? NULL : find_row(value, &i);
		if (!row)
			return refuse_option(value, argv[optind - 1], e);
		given[i] = true;
		if (row->places ? set_option(o, row, i < OWN_ROWS, e) :
				  choose_command(o, &chosen, row, e))
			return -EINVAL;
		if (o->command == OPTS_HELP || o->command == OPTS_VERSION)
			return 0;
	}
	for (i = 0; (row = row_at(i)) != NULL; i++)
		if (given[i] && row->places && !(row->places & IN(o->command)))
			return err_set(e, ERR_USAGE, EINVAL, "--%s has no meaning %s%s", row->name,
				       chosen ? "with --" : "when attaching",
				       chosen ? chosen->name : "");
	return 0;
}

int opts_device(const char *operand, unsigned *index, struct err *e)
{
	char shown[256];
	char *real = NULL;
	int ret = text_nbd_index(operand, index);

	if (ret && strchr(operand, '/')) {
		real = realpath(operand, NULL);
		if (real)
			ret = text_nbd_index(real, index);
		free(real);
	}
	if (!ret)
		return 0;
	text_escape(shown, sizeof(shown), operand, strlen(operand));
	return err_set(e, ERR_USAGE, EINVAL,
		       "%s is no nbd device: /dev/nbdN or nbdN is needed, a whole disk", shown);
}

/*
 * Takes the operands that name the export, but for the last ones (after). command is the command
 * line of the server, or NULL. Returns the number of operands taken, or -EINVAL.
 */
static int take_servers(struct opts *o, char **command, char **operand, unsigned count,
			unsigned after, struct err *e)
{
	unsigned mine = count > after ? count - after : 0, used = 0;

	if (command) {
		/* [EXPORT] */
		if (mine > 1)
			return usage_error(e, "too many operands before --");
		return settings_set_command(&o->settings, command, mine ? operand[0] : "", e) ?
			       -EINVAL :
			       (int)mine;
	}
	if (!mine)
		return usage_error(e, "no HOST or URI is given");
	while (used < mine && uri_looks_like(operand[used]) && (!used || o->command == OPTS_ATTACH))
		if (settings_add_uri(&o->settings, operand[used++], e))
			return -EINVAL;
	if (used)
		return (int)used;
	if (o->command == OPTS_EXPORTS)
		return settings_add_host(&o->settings, operand[0], NULL, false, "", e) ? -EINVAL :
											 1;
	if (mine < 2)
		return usage_error(
			e,
			after ? "HOST, EXPORT and DEVICE are needed (\"\" is the default export)" :
				"HOST and EXPORT are needed (\"\" is the default export)");
	return settings_add_host(&o->settings, operand[0], NULL, false, operand[1], e) ? -EINVAL :
											 2;
}

/* Takes the operands of a command that connects to a server. Returns as take_servers. */
static int network_operands(struct opts *o, char **command, char **operand, unsigned count,
			    struct err *e)
{
	unsigned after = o->command == OPTS_ATTACH && !o->find;
	int used = take_servers(o, command, operand, count, after, e);

	if (used < 0)
		return used;
	if (count < (unsigned)used + after)
		return usage_error(e, "no DEVICE is given (--find takes any)");
	if (count > (unsigned)used + after)
		return usage_error(e, o->find ? "--find chooses the device, none may be given" :
						"too many operands");
	return used;
}

static int parse_operands(struct opts *o, char **command, char **operand, unsigned count,
			  struct err *e)
{
	int used = 0;

	/* A device alone, but for a link: the nbdtab has none. */
	if (o->command == OPTS_ATTACH && count == 1 && !command && !o->find &&
	    !text_nbd_index(operand[0], &o->index))
		o->command = OPTS_TAB;
	if (IN(o->command) & NETWORK)
		used = network_operands(o, command, operand, count, e);
	else if (o->command == OPTS_ALL && count)
		return usage_error(e, "--all takes no operand");
	else if (o->command == OPTS_CHECK && count != 1)
		return usage_error(e, "one DEVICE is needed");
	else if (o->command != OPTS_ALL && o->command != OPTS_LIST && !count)
		return usage_error(e, "no DEVICE is given");
	if (used < 0)
		return used;
	o->devices = operand + used;
	o->device_count = count - (unsigned)used;
	/* All are checked now: a wrong one must not be found after others were detached. */
	for (unsigned i = o->device_count; i > 0; i--)
		if (opts_device(o->devices[i - 1], &o->index, e))
			return -EINVAL;
	return 0;
}

/* Judges all options together. */
static int check_options(struct opts *o, struct err *e)
{
	struct err inside;

	if (o->show && !o->find && o->command != OPTS_ALL)
		return usage_error(e, "--show is for --find and --all");
	if (settings_complete(&o->settings, true, &inside))
		return usage_error(e, inside.text);
	if (o->foreground && o->settings.supervision.none)
		return usage_error(
			e,
			"--foreground is for a supervisor: --no-supervise and --command have none");
	if (o->nbdtab && o->command == OPTS_ATTACH)
		return usage_error(e, "--nbdtab is for --all and for a DEVICE alone");
	if (!o->nbdtab)
		o->nbdtab = NBD_ATTACH_NBDTAB;
	return 0;
}

int opts_parse(int argc, char *argv[], struct opts *o, struct err *e)
{
	int words = argc, ret;

	memset(o, 0, sizeof(*o));
	settings_init(&o->settings);
	/* getopt does not say where "--" was. The words after it belong to --command. */
	for (int i = 1; i < words; i++)
		if (!strcmp(argv[i], "--"))
			words = i;
	ret = parse_options(words, argv, o, e);
	if (ret || o->command == OPTS_HELP || o->command == OPTS_VERSION)
		return ret;
	if (o->has_command && words + 1 >= argc)
		return usage_error(e, "--command needs the server's command line after --");
	if (!o->has_command && words < argc) {
		/* Operands after "--" join those before it. */
		memmove(argv + words, argv + words + 1, sizeof(*argv) * (size_t)(argc - words));
		words = argc - 1;
	}
	ret = parse_operands(o, o->has_command ? argv + words + 1 : NULL, argv + optind,
			     (unsigned)(words - optind), e);
	return ret ? ret : check_options(o, e);
}
