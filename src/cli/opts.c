/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cli/opts.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "policy/plan.h"
#include "net/sockopt.h"
#include "base/text.h"

enum {
	CONNECT_TIMEOUT_DEFAULT_MS = 30000,
	CONNECT_TIMEOUT_MAX_MS = 86400 * 1000,
	PEER_TIMEOUT_DEFAULT = 15,
};

/* Commands as a set */
#define IN(command) (1U << (command))
#define NETWORK     (IN(OPTS_ATTACH) | IN(OPTS_EXPORTS) | IN(OPTS_INFO) | IN(OPTS_MAP))
#define TABLES      (IN(OPTS_LIST) | IN(OPTS_EXPORTS) | IN(OPTS_INFO))

/* Values of options without a letter */
enum {
	OPT_SHOW = 256,
	OPT_NBDTAB,
	OPT_FORCE,
	OPT_COMMAND,
	OPT_CONNECT_TIMEOUT,
	OPT_DEAD_TIMEOUT,
	OPT_FORCE_MULTI_CONN,
	OPT_PAUSE,
	OPT_RESUME,
	OPT_RESCAN,
	OPT_ADOPT,
	OPT_NO_SUPERVISE,
	OPT_FOREGROUND,
	OPT_ROOT,
	OPT_SWAP,
	OPT_KEEP,
	OPT_PEER_TIMEOUT,
	OPT_RECONNECT_TIMEOUT,
	OPT_FENCE_DELAY,
	OPT_EXPORTS,
	OPT_INFO,
	OPT_MAP,
	OPT_TOTALS,
	OPT_JSON,
	OPT_BYTES,
	OPT_TLS,
	OPT_TLS_OFFLOAD,
	OPT_TLS_CA,
	OPT_TLS_CRL,
	OPT_TLS_CERT,
	OPT_TLS_KEY,
	OPT_TLS_CERTIFICATES,
	OPT_TLS_HOSTNAME,
	OPT_TLS_NO_VERIFY,
	OPT_TLS_RENEW,
	OPT_TLS_PSK_FILE,
	OPT_TLS_PSK_USER,
	OPT_TLS_PRIORITY,
};

static const struct option_row {
	int value; /* a letter, or one of the above */
	const char *name;
	const char *argument; /* NULL: takes none; "[=...]": may take one, after "=" */
	unsigned commands;    /* in which it means something; 0: it is a command itself */
	enum opts_command command;
	const char *help;
} rows[] = {
	{ 'd', "detach", NULL, 0, OPTS_DETACH, "detach the devices, unless they are in use" },
	{ 'l', "list", NULL, 0, OPTS_LIST, "list attached devices" },
	{ 'c', "check", NULL, 0, OPTS_CHECK,
	  "print the pid that attached the device; exit 1 if none did" },
	{ OPT_EXPORTS, "exports", NULL, 0, OPTS_EXPORTS, "list the exports of a server" },
	{ OPT_INFO, "info", NULL, 0, OPTS_INFO, "show what a server says about an export" },
	{ OPT_PAUSE, "pause", NULL, 0, OPTS_PAUSE,
	  "break the connections and let all I/O wait, before the server is stopped" },
	{ OPT_RESUME, "resume", NULL, 0, OPTS_RESUME, "connect again after --pause" },
	{ OPT_RESCAN, "rescan", NULL, 0, OPTS_RESCAN,
	  "ask the server for the size and grow the device" },
	{ OPT_ADOPT, "adopt", NULL, 0, OPTS_ADOPT,
	  "supervise a device whose supervisor died, or take it over from one" },
	{ OPT_MAP, "map", "[=CONTEXT,...]", 0, OPTS_MAP,
	  "show where an export's data and holes are, or what else a meta context says (base:allocation)" },
	{ 'a', "all", NULL, 0, OPTS_ALL,
	  "attach all that the nbdtab has, but for the lines with noauto" },
	{ 'h', "help", NULL, 0, OPTS_HELP, "show this" },
	{ 'V', "version", NULL, 0, OPTS_VERSION, "show the version" },

	{ 'f', "find", NULL, IN(OPTS_ATTACH), 0, "attach to any free device" },
	{ OPT_SHOW, "show", NULL, IN(OPTS_ATTACH) | IN(OPTS_ALL), 0,
	  "print the device, for --find and --all" },
	{ OPT_NBDTAB, "nbdtab", "FILE", IN(OPTS_ATTACH) | IN(OPTS_ALL), 0,
	  "for a DEVICE alone and --all: instead of " NBD_ATTACH_NBDTAB },
	{ 'r', "read-only", NULL, IN(OPTS_ATTACH), 0, "attach read-only" },
	{ 'b', "block-size", "BYTES", IN(OPTS_ATTACH), 0,
	  "logical block size, 512 to the page size (default: the server's minimum)" },
	{ 'C', "connections", "N|auto", IN(OPTS_ATTACH), 0,
	  "several, where the server permits it; auto: one per CPU, 8 at most, as far as it is safe (default 1)" },
	{ OPT_FORCE_MULTI_CONN, "force-multi-conn", NULL, IN(OPTS_ATTACH), 0,
	  "several on a read-only export whose server does not permit it, or without a guard against qemu 3.0" },
	{ 't', "timeout", "SECONDS", IN(OPTS_ATTACH) | IN(OPTS_MAP), 0,
	  "drop a connection that leaves a request unanswered so long (default 30, 0: never)" },
	{ OPT_DEAD_TIMEOUT, "dead-timeout", "SECONDS", IN(OPTS_ATTACH), 0,
	  "with --no-supervise: let I/O wait so long for somebody to replace a lost connection (default 0: fail at once)" },
	{ OPT_NO_SUPERVISE, "no-supervise", NULL, IN(OPTS_ATTACH), 0,
	  "leave no process; a lost connection is an I/O error" },
	{ OPT_FOREGROUND, "foreground", NULL, IN(OPTS_ATTACH), 0,
	  "stay until the device is detached, and tell a service manager how it is (sd_notify)" },
	{ OPT_ROOT, "root", NULL, IN(OPTS_ATTACH), 0,
	  "the device has the root file system: its supervisor needs no file, memory or name to reconnect" },
	{ OPT_SWAP, "swap", NULL, IN(OPTS_ATTACH), 0, "the device is swap: likewise" },
	{ OPT_KEEP, "keep-at-shutdown", NULL, IN(OPTS_ATTACH), 0,
	  "systemd shall spare the supervisor to the end; implied by --root in an initramfs" },
	{ OPT_PEER_TIMEOUT, "peer-timeout", "SECONDS", IN(OPTS_ATTACH), 0,
	  "take a server for dead that is silent so long (default 15, 0: the system's default)" },
	{ OPT_RECONNECT_TIMEOUT, "reconnect-timeout", "SECONDS", IN(OPTS_ATTACH), 0,
	  "give a device up that is without a connection so long (default 0: never)" },
	{ OPT_FENCE_DELAY, "fence-delay", "SECONDS", IN(OPTS_ATTACH), 0,
	  "wait so long before turning to another server when one fell silent (default: the peer timeout)" },
	{ OPT_CONNECT_TIMEOUT, "connect-timeout", "SECONDS", NETWORK, 0,
	  "limit for name resolution, connection and handshake together (default 30)" },
	{ OPT_COMMAND, "command", NULL, NETWORK, 0,
	  "the server is the command after --, on its standard input and output" },
	{ OPT_TLS, "tls", NULL, NETWORK, 0,
	  "require TLS; implied by an nbds URI and by all that follow" },
	{ OPT_TLS_OFFLOAD, "tls-offload", "WHO", IN(OPTS_ATTACH), 0,
	  "who encrypts: auto (the kernel, else a relay process), require (the kernel), no (a relay)" },
	{ OPT_TLS_RENEW, "tls-renew", "RECORDS", IN(OPTS_ATTACH), 0,
	  "replace a connection that the kernel encrypts after so many (default 12000000, 0: never)" },
	{ OPT_TLS_CA, "tls-ca", "FILE", NETWORK, 0,
	  "authorities that may have signed the server's certificate (default: the system's)" },
	{ OPT_TLS_CRL, "tls-crl", "FILE", NETWORK, 0, "certificates that are revoked" },
	{ OPT_TLS_CERT, "tls-cert", "FILE|URI", NETWORK, 0,
	  "our certificate, a file or a pkcs11: URI" },
	{ OPT_TLS_KEY, "tls-key", "FILE|URI", NETWORK, 0, "its private key, likewise" },
	{ OPT_TLS_CERTIFICATES, "tls-certificates", "DIR", NETWORK, 0,
	  "directory with ca-cert.pem, client-cert.pem, client-key.pem, ca-crl.pem" },
	{ OPT_TLS_HOSTNAME, "tls-hostname", "NAME", NETWORK, 0,
	  "name expected in the server's certificate (default: HOST)" },
	{ OPT_TLS_NO_VERIFY, "tls-no-verify", NULL, NETWORK, 0,
	  "accept any certificate: no protection against a false server" },
	{ OPT_TLS_PSK_FILE, "tls-psk-file", "FILE", NETWORK, 0,
	  "pre-shared key: lines of user:key, instead of certificates" },
	{ OPT_TLS_PSK_USER, "tls-psk-user", "NAME", NETWORK, 0,
	  "which line of it (default: the URI's user, or the only one)" },
	{ OPT_TLS_PRIORITY, "tls-priority", "STRING", NETWORK, 0,
	  "GnuTLS priority string (default: the system's, TLS 1.2 and 1.3)" },
	{ OPT_FORCE, "force", NULL, IN(OPTS_DETACH), 0,
	  "detach in spite of users and of a silent server; unwritten data is lost" },
	{ 'O', "output", "COLUMNS", TABLES, 0,
	  "columns to show, comma-separated; see nbd-attach(8)" },
	{ OPT_TOTALS, "totals", NULL, IN(OPTS_MAP), 0,
	  "only how many bytes there are of each kind" },
	{ 'n', "noheadings", NULL, TABLES | IN(OPTS_MAP), 0, "no headings" },
	{ OPT_JSON, "json", NULL, TABLES | IN(OPTS_MAP), 0, "JSON" },
	{ OPT_BYTES, "bytes", NULL, TABLES, 0, "sizes in bytes" },
};
enum { ROWS = sizeof(rows) / sizeof(rows[0]) };

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

void opts_help(FILE *f)
{
	fprintf(f, "Usage:\n");
	for (size_t i = 0; i < sizeof(usages) / sizeof(usages[0]); i++)
		fprintf(f, " %s\n", usages[i]);
	fprintf(f, "\nAttach a network block device export to the kernel.\n\nOptions:\n");
	for (size_t i = 0; i < ROWS; i++) {
		const struct option_row *row = &rows[i];
		char letter[] = { '-', row->value < 256 ? (char)row->value : ' ', ',', '\0' };
		const char *space = row->argument && row->argument[0] != '[' ? " " : "";

		fprintf(f, " %s --%s%s%-*s %s\n", row->value < 256 ? letter : "   ", row->name,
			space, 26 - (int)strlen(row->name) - (int)strlen(space),
			row->argument ? row->argument : "", row->help);
	}
	fprintf(f,
		"\nHOST is a name or an address, with :PORT unless it is 10809, or the path of a Unix socket.\n"
		"URI is nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH or\n"
		"nbd+vsock://CID[:PORT]/EXPORT, with nbds for TLS.\n"
		"DEVICE is /dev/nbdN or nbdN. Exit statuses and examples are in nbd-attach(8).\n");
}

static const struct option_row *row_of(int value)
{
	for (size_t i = 0; i < ROWS; i++)
		if (rows[i].value == value)
			return &rows[i];
	return NULL;
}

static int usage(struct err *e, const char *text)
{
	return err_set(e, ERR_USAGE, EINVAL, "%s; see nbd-attach --help", text);
}

static int number(const struct option_row *row, const char *s, bool suffixes, uint64_t max,
		  uint32_t *v, struct err *e)
{
	char shown[80];
	uint64_t n;

	text_escape(shown, sizeof(shown), s, strlen(s));
	if (text_number(s, suffixes, 0, max, &n))
		return err_set(e, ERR_USAGE, EINVAL, "--%s %s: a number from 0 to %llu is needed",
			       row->name, shown, (unsigned long long)max);
	*v = (uint32_t)n;
	return 0;
}

/* Options of TLS that are a text of their own: where it goes. */
static int take_tls_text(struct opts *o, const struct option_row *row, const char *argument,
			 struct err *e)
{
	struct tls_params *t = &o->tls;
	const struct {
		int value;
		char *slot;
		size_t size;
	} slots[] = {
		{ OPT_TLS_CA, t->ca, sizeof(t->ca) },
		{ OPT_TLS_CRL, t->crl, sizeof(t->crl) },
		{ OPT_TLS_CERT, t->cert, sizeof(t->cert) },
		{ OPT_TLS_KEY, t->key, sizeof(t->key) },
		{ OPT_TLS_HOSTNAME, t->hostname, sizeof(t->hostname) },
		{ OPT_TLS_PSK_FILE, t->psk_file, sizeof(t->psk_file) },
		{ OPT_TLS_PSK_USER, t->psk_user, sizeof(t->psk_user) },
		{ OPT_TLS_PRIORITY, t->priority, sizeof(t->priority) },
	};

	for (size_t i = 0; i < sizeof(slots) / sizeof(slots[0]); i++) {
		if (slots[i].value != row->value)
			continue;
		if (!argument[0] || strlen(argument) >= slots[i].size)
			return err_set(e, ERR_USAGE, EINVAL, "--%s needs 1 to %zu bytes", row->name,
				       slots[i].size - 1);
		strcpy(slots[i].slot, argument);
	}
	return 0;
}

static int take_connections(struct opts *o, const char *argument, struct err *e)
{
	char shown[80];
	uint64_t n;

	o->multi.automatic = !strcmp(argument, "auto");
	if (o->multi.automatic) {
		o->multi.wanted = 0;
		return 0;
	}
	text_escape(shown, sizeof(shown), argument, strlen(argument));
	if (text_number(argument, false, 1, PLAN_CONNECTIONS_MAX, &n))
		return err_set(e, ERR_USAGE, EINVAL,
			       "--connections %s: auto or a number from 1 to %d is needed", shown,
			       PLAN_CONNECTIONS_MAX);
	o->multi.wanted = (uint32_t)n;
	return 0;
}

static int take(struct opts *o, const struct option_row *row, const char *argument, bool *command,
		struct err *e)
{
	static const char *const offloads[] = {
		[TLS_OFFLOAD_AUTO] = "auto",
		[TLS_OFFLOAD_REQUIRE] = "require",
		[TLS_OFFLOAD_NO] = "no",
	};
	char shown[80];
	uint64_t ms;

	switch (row->value) {
	case 'f':
		o->find = true;
		return 0;
	case OPT_SHOW:
		o->show = true;
		return 0;
	case 'r':
		o->read_only = true;
		return 0;
	case OPT_FORCE:
		o->force = true;
		return 0;
	case OPT_NBDTAB:
		o->nbdtab = argument;
		return 0;
	case 'n':
		o->no_headings = true;
		return 0;
	case OPT_JSON:
		o->json = true;
		return 0;
	case OPT_BYTES:
		o->bytes = true;
		return 0;
	case OPT_TOTALS:
		o->totals = true;
		return 0;
	case OPT_COMMAND:
		*command = true;
		return 0;
	case 'O':
		o->columns = argument;
		return 0;
	case 'b':
		if (number(row, argument, true, 1 << 20, &o->block_size, e))
			return -EINVAL;
		if (o->block_size < PLAN_BLOCK_SIZE_MIN || o->block_size & (o->block_size - 1))
			return err_set(e, ERR_USAGE, EINVAL,
				       "--%s %u: a power of two of at least %d is needed",
				       row->name, o->block_size, PLAN_BLOCK_SIZE_MIN);
		return 0;
	case 'C':
		return take_connections(o, argument, e);
	case OPT_FORCE_MULTI_CONN:
		o->multi.force = true;
		return 0;
	case OPT_NO_SUPERVISE:
		o->no_supervise = true;
		return 0;
	case OPT_FOREGROUND:
		o->foreground = true;
		return 0;
	case OPT_ROOT:
		o->root = true;
		return 0;
	case OPT_SWAP:
		o->swap = true;
		return 0;
	case OPT_KEEP:
		o->keep = true;
		return 0;
	case OPT_PEER_TIMEOUT:
		return number(row, argument, false, SOCKOPT_PEER_TIMEOUT_MAX, &o->peer_timeout_s,
			      e);
	case OPT_RECONNECT_TIMEOUT:
		return number(row, argument, false, PLAN_TIMEOUT_MAX, &o->reconnect_timeout_s, e);
	case OPT_FENCE_DELAY:
		o->fence_given = true;
		return number(row, argument, false, PLAN_TIMEOUT_MAX, &o->fence_delay_s, e);
	case 't':
		o->timeout_given = true;
		return number(row, argument, false, PLAN_TIMEOUT_MAX, &o->timeout_s, e);
	case OPT_DEAD_TIMEOUT:
		return number(row, argument, false, PLAN_TIMEOUT_MAX, &o->dead_timeout_s, e);
	case OPT_TLS:
		return 0;
	case OPT_TLS_NO_VERIFY:
		o->tls.no_verify = true;
		return 0;
	case OPT_TLS_OFFLOAD:
		for (size_t i = 0; i < sizeof(offloads) / sizeof(offloads[0]); i++) {
			if (strcmp(argument, offloads[i]))
				continue;
			o->offload = (enum tls_offload)i;
			return 0;
		}
		return err_set(e, ERR_USAGE, EINVAL, "--%s needs auto, require or no", row->name);
	case OPT_TLS_RENEW:
		return number(row, argument, false, UINT32_MAX, &o->tls_renew, e);
	case OPT_TLS_CERTIFICATES:
		o->tls_directory = argument;
		return 0;
	default:
		return take_tls_text(o, row, argument, e);
	case OPT_CONNECT_TIMEOUT:
		text_escape(shown, sizeof(shown), argument, strlen(argument));
		if (text_seconds(argument, 1, CONNECT_TIMEOUT_MAX_MS, &ms))
			return err_set(e, ERR_USAGE, EINVAL,
				       "--%s %s: seconds from 0.001 to %d are needed", row->name,
				       shown, CONNECT_TIMEOUT_MAX_MS / 1000);
		o->connect_timeout_ms = (uint32_t)ms;
		return 0;
	}
}

/* Of --map, which may have no argument. */
static int take_contexts(struct opts *o, const char *argument, struct err *e)
{
	const char *p = argument ? argument : "base:allocation";

	memset(&o->contexts, 0, sizeof(o->contexts));
	for (;;) {
		size_t len = strcspn(p, ",");

		if (metactx_add(&o->contexts, p, len, e))
			return err_wrap(e, "--map");
		if (!p[len])
			return 0;
		p += len + 1;
	}
}

static int argument_of(const struct option_row *row)
{
	if (!row->argument)
		return no_argument;
	return row->argument[0] == '[' ? optional_argument : required_argument;
}

/* Options of argv[0..argc); which were given goes into given[], by row. */
static int options(int argc, char *argv[], struct opts *o, bool given[], bool *command,
		   struct err *e)
{
	char letters[2 * ROWS + 2] = ":";
	struct option longs[ROWS + 1] = { { 0 } };
	const struct option_row *chosen = NULL;
	size_t n = 1;
	int value;

	for (size_t i = 0; i < ROWS; i++) {
		longs[i] = (struct option){
			rows[i].name,
			argument_of(&rows[i]),
			NULL,
			rows[i].value,
		};
		if (rows[i].value < 256) {
			letters[n++] = (char)rows[i].value;
			if (rows[i].argument)
				letters[n++] = ':';
		}
	}
	optind = 0; /* glibc: start anew */
	opterr = 0;
	while ((value = getopt_long(argc, argv, letters, longs, NULL)) != -1) {
		const struct option_row *row = row_of(value);

		if (!row) {
			/* getopt names a letter, even of a long option, and 0 for an unknown one */
			char letter[] = { '-', (char)optopt, '\0' }, shown[80];
			const char *last = argv[optind - 1];
			bool is_long = !optopt || (row_of(optopt) && !strncmp(last, "--", 2));
			const char *word = is_long ? last : letter;

			text_escape(shown, sizeof(shown), word, strlen(word));
			return err_set(
				e, ERR_USAGE, EINVAL,
				value == ':' ?
					"option %s needs an argument; see nbd-attach --help" :
					"unknown option %s; see nbd-attach --help",
				shown);
		}
		given[row - rows] = true;
		if (row->commands) {
			if (take(o, row, optarg, command, e))
				return -EINVAL;
			continue;
		}
		if (chosen && chosen != row && row->command != OPTS_HELP &&
		    row->command != OPTS_VERSION)
			return err_set(e, ERR_USAGE, EINVAL, "--%s and --%s exclude each other",
				       chosen->name, row->name);
		chosen = row;
		o->command = row->command;
		if (o->command == OPTS_MAP && take_contexts(o, optarg, e))
			return -EINVAL;
		if (o->command == OPTS_HELP || o->command == OPTS_VERSION)
			return 0;
	}
	for (size_t i = 0; i < ROWS; i++)
		if (given[i] && rows[i].commands && !(rows[i].commands & IN(o->command)))
			return err_set(e, ERR_USAGE, EINVAL, "--%s has no meaning %s%s",
				       rows[i].name, chosen ? "with --" : "when attaching",
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
	if (ret) {
		text_escape(shown, sizeof(shown), operand, strlen(operand));
		return err_set(e, ERR_USAGE, EINVAL,
			       "%s is no nbd device: /dev/nbdN or nbdN is "
			       "needed, a whole disk",
			       shown);
	}
	return 0;
}

static int set_export(struct opts *o, const char *export, struct err *e)
{
	if (strlen(export) > URI_EXPORT_MAX)
		return err_set(e, ERR_USAGE, ENAMETOOLONG,
			       "the export's name has more than %d bytes", URI_EXPORT_MAX);
	if (!text_is_utf8(export, strlen(export)))
		return err_set(e, ERR_USAGE, EILSEQ, "the export's name is not UTF-8");
	memcpy(o->where.export, export, strlen(export) + 1);
	return 0;
}

/* Further URIs after the first. Returns how many operands these all are. */
static int more_servers(struct opts *o, char **operand, unsigned count, struct err *e)
{
	unsigned used = 1;

	for (; used < count && uri_looks_like(operand[used]); used++) {
		if (used == OPTS_SERVERS_MAX)
			return err_set(e, ERR_USAGE, EINVAL, "more than %d servers",
				       OPTS_SERVERS_MAX);
		if (uri_parse(&o->others[used - 1], operand[used], e))
			return -EINVAL;
		if (o->others[used - 1].tls != o->where.tls)
			return err_set(
				e, ERR_USAGE, EINVAL,
				"either all servers have TLS or none: nbds and nbd URIs are mixed");
		o->other_count = used;
	}
	return (int)used;
}

/*
 * Takes the operands that say where the export is. Returns how many these are, or -EINVAL. At most
 * count - after are taken.
 */
static int where(struct opts *o, char **operand, unsigned count, unsigned after, struct err *e)
{
	unsigned mine = count > after ? count - after : 0;

	if (o->argv) {
		/* [EXPORT] */
		if (mine > 1)
			return usage(e, "too many operands before --");
		if (mine && set_export(o, operand[0], e))
			return -EINVAL;
		return (int)mine;
	}
	if (!mine)
		return usage(e, "no HOST or URI is given");
	if (uri_looks_like(operand[0])) {
		if (uri_parse(&o->where, operand[0], e))
			return -EINVAL;
		return o->command == OPTS_ATTACH ? more_servers(o, operand, mine, e) : 1;
	}
	if (o->command == OPTS_EXPORTS)
		return uri_from_host(&o->where, operand[0], "", e) ? -EINVAL : 1;
	if (mine < 2)
		return usage(
			e,
			after ? "HOST, EXPORT and DEVICE are needed (\"\" is the default export)" :
				"HOST and EXPORT are needed (\"\" is the default export)");
	return uri_from_host(&o->where, operand[0], operand[1], e) ? -EINVAL : 2;
}

/* Any option of TLS means that it is required, whatever the address says. */
static bool tls_given(const bool given[])
{
	for (size_t i = 0; i < ROWS; i++)
		if (given[i] && rows[i].value >= OPT_TLS && rows[i].value <= OPT_TLS_PRIORITY)
			return true;
	return false;
}

/* A device and nothing else; not a link to one, which would not be in the file. */
static bool is_device_alone(const struct opts *o, char **operand, unsigned count)
{
	unsigned index;

	return count == 1 && !o->argv && !o->find && !text_nbd_index(operand[0], &index);
}

static int operands(struct opts *o, char **operand, unsigned count, bool entry, struct err *e)
{
	unsigned after = o->command == OPTS_ATTACH && !o->find;
	int used = 0;

	if (o->command == OPTS_ATTACH && !entry && is_device_alone(o, operand, count))
		o->command = OPTS_TAB;
	switch (o->command) {
	case OPTS_ALL:
		if (count)
			return usage(e, "--all takes no operand");
		break;
	case OPTS_ATTACH:
	case OPTS_EXPORTS:
	case OPTS_INFO:
	case OPTS_MAP:
		used = where(o, operand, count, after, e);
		if (used < 0)
			return used;
		if (count < (unsigned)used + after)
			return usage(e, "no DEVICE is given (--find takes any)");
		if (count > (unsigned)used + after)
			return usage(e, o->find ? "--find chooses the device, none may be given" :
						  "too many operands");
		if (!after)
			return 0;
		break;
	case OPTS_DETACH:
	case OPTS_PAUSE:
	case OPTS_RESUME:
	case OPTS_RESCAN:
	case OPTS_ADOPT:
		if (!count)
			return usage(e, "no DEVICE is given");
		break;
	case OPTS_CHECK:
		if (count != 1)
			return usage(e, "one DEVICE is needed");
		break;
	default:
		break;
	}
	o->devices = operand + used;
	o->device_count = count - (unsigned)used;
	/* All are looked at now: a wrong one must not be found when others are detached already. */
	for (unsigned i = o->device_count; i > 0; i--)
		if (opts_device(o->devices[i - 1], &o->index, e))
			return -EINVAL;
	return 0;
}

static int parse(int argc, char *argv[], bool entry, struct opts *o, struct err *e)
{
	bool given[ROWS] = { false };
	bool command = false;
	int words = argc, ret;

	memset(o, 0, sizeof(*o));
	o->timeout_s = PLAN_TIMEOUT_DEFAULT;
	o->peer_timeout_s = PEER_TIMEOUT_DEFAULT;
	o->connect_timeout_ms = CONNECT_TIMEOUT_DEFAULT_MS;
	o->tls_renew = PLAN_RENEW_DEFAULT;
	/* getopt forgets where "--" was, and what follows it belongs to --command */
	for (int i = 1; i < words; i++)
		if (!strcmp(argv[i], "--"))
			words = i;
	ret = options(words, argv, o, given, &command, e);
	if (ret || o->command == OPTS_HELP || o->command == OPTS_VERSION)
		return ret;
	if (command && words + 1 >= argc)
		return usage(e, "--command needs the server's command line after --");
	if (command)
		o->argv = argv + words + 1;
	if (o->show && !o->find && o->command != OPTS_ALL)
		return usage(e, "--show is for --find and --all");
	if (!o->fence_given)
		o->fence_delay_s = o->peer_timeout_s;
	if (command)
		o->no_supervise = true; /* nobody could start it again as it was */
	if (o->dead_timeout_s && !o->no_supervise)
		return usage(
			e,
			"--dead-timeout is for --no-supervise: a supervisor lets I/O wait as long as it takes");
	if ((o->reconnect_timeout_s || o->fence_given) && o->no_supervise)
		return usage(e, "--reconnect-timeout and --fence-delay are for a supervisor");
	if (o->foreground && o->no_supervise)
		return usage(
			e,
			"--foreground is for a supervisor: --no-supervise and --command have none");
	if ((o->root || o->swap || o->keep) && o->no_supervise)
		return usage(e, "--root, --swap and --keep-at-shutdown are for a supervisor");
	if (command && o->multi.wanted > 1)
		return usage(e, "a --command serves one connection");
	if (o->multi.force && o->multi.wanted <= 1 && !o->multi.automatic)
		return usage(e, "--force-multi-conn is for --connections");
	o->multi.read_only = o->read_only;
	if (!command && words < argc) {
		/* operands after "--" join those before it */
		memmove(argv + words, argv + words + 1, sizeof(*argv) * (size_t)(argc - words));
		argc--;
		words = argc;
	}
	ret = operands(o, argv + optind, (unsigned)(words - optind), entry, e);
	o->where.tls |= tls_given(given);
	for (unsigned i = 0; i < o->other_count; i++)
		o->others[i].tls = o->where.tls;
	if (!ret && o->nbdtab && o->command == OPTS_ATTACH && !entry)
		return usage(e, "--nbdtab is for --all and for a DEVICE alone");
	if (!o->nbdtab)
		o->nbdtab = NBD_ATTACH_NBDTAB;
	return ret;
}

int opts_parse(int argc, char *argv[], struct opts *o, struct err *e)
{
	return parse(argc, argv, false, o, e);
}

int opts_parse_entry(int argc, char *argv[], struct opts *o, struct err *e)
{
	return parse(argc, argv, true, o, e);
}
