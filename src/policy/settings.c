/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "policy/settings.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"

enum {
	BLOCK_SIZE_MAX = 1 << 20,
	PEER_TIMEOUT_DEFAULT = 15,
	CONNECT_TIMEOUT_DEFAULT_MS = 30000,
};

static int fail(struct err *e, const char *text)
{
	return err_set(e, ERR_USAGE, EINVAL, "%s", text);
}

/* --- rows with functions of their own ----------------------------------------------------- */

static int read_connections(void *of, const char *text, struct err *e)
{
	struct plan_multi *m = &((struct settings *)of)->multi;
	bool automatic = !strcmp(text, "auto");
	uint64_t n = 0;

	if (!automatic && text_number(text, false, 1, PLAN_CONNECTIONS_MAX, &n))
		return err_set(e, ERR_USAGE, EINVAL, "auto or a number from 1 to %d is needed",
			       PLAN_CONNECTIONS_MAX);
	m->automatic = automatic;
	m->wanted = (uint32_t)n;
	return 0;
}

static bool write_connections(const struct settings *s, unsigned i, char *buf, size_t cap)
{
	if (s->multi.automatic)
		snprintf(buf, cap, "auto");
	else
		snprintf(buf, cap, "%u", s->multi.wanted);
	return !i && (s->multi.automatic || s->multi.wanted);
}

static int read_server(void *of, const char *text, struct err *e)
{
	struct uri u;

	return uri_parse(&u, text, e) ? -EINVAL : settings_add_server(of, &u, e);
}

static bool write_server(const struct settings *s, unsigned i, char *buf, size_t cap)
{
	if (i >= s->server_count || s->command.count)
		return false;
	uri_format(&s->servers[i], buf, cap);
	return true;
}

/* Where the next word goes. */
static size_t end_of_words(const struct server_command *c)
{
	size_t used = 0;

	for (unsigned i = 0; i < c->count; i++)
		used += strlen(c->words + used) + 1;
	return used;
}

static int read_word(void *of, const char *text, struct err *e)
{
	struct settings *s = of;
	size_t used = end_of_words(&s->command), len = strlen(text) + 1;

	if (len > sizeof(s->command.words) - used || s->command.count == SETTINGS_WORDS_MAX)
		return err_set(e, ERR_USAGE, E2BIG,
			       "the command is longer than %d bytes or %d arguments",
			       SETTINGS_COMMAND_MAX, SETTINGS_WORDS_MAX);
	memcpy(s->command.words + used, text, len);
	s->command.count++;
	s->server_count = 1;
	return 0;
}

static bool write_word(const struct settings *s, unsigned i, char *buf, size_t cap)
{
	const char *word = s->command.words;

	if (i >= s->command.count)
		return false;
	while (i--)
		word += strlen(word) + 1;
	snprintf(buf, cap, "%s", word);
	return true;
}

static int read_export(void *of, const char *text, struct err *e)
{
	struct settings *s = of;

	if (strlen(text) > URI_EXPORT_MAX)
		return err_set(e, ERR_USAGE, ENAMETOOLONG,
			       "the export's name has more than %d bytes", URI_EXPORT_MAX);
	if (!text_is_utf8(text, strlen(text)))
		return err_set(e, ERR_USAGE, EILSEQ, "the export's name is not UTF-8");
	memset(s->servers[0].export, 0, sizeof(s->servers[0].export));
	memcpy(s->servers[0].export, text, strlen(text));
	return 0;
}

/* Other servers have it in their URIs. */
static bool write_export(const struct settings *s, unsigned i, char *buf, size_t cap)
{
	snprintf(buf, cap, "%s", s->servers[0].export);
	return !i && s->command.count && buf[0];
}

/* --- the table ---------------------------------------------------------------------------- */

static const char *const offloads[] = {
	[TLS_OFFLOAD_AUTO] = "auto",
	[TLS_OFFLOAD_REQUIRE] = "require",
	[TLS_OFFLOAD_NO] = "no",
	NULL,
};

#define BIT(place)           (1U << (place))
#define RECORD               BIT(SETTINGS_RECORD)
#define ATTACH               (BIT(SETTINGS_ATTACH) | BIT(SETTINGS_NBDTAB) | RECORD)
#define NETWORK              (ATTACH | BIT(SETTINGS_EXPORTS) | BIT(SETTINGS_INFO) | BIT(SETTINGS_MAP))
#define AT(member)           .offset = offsetof(struct settings, member)
#define ROOM(member)         (sizeof(((struct settings *)0)->member) - 1)
#define FLAG(member)         .type = SETTINGS_FLAG, AT(member)
#define NUMBER(member)       .type = SETTINGS_NUMBER, AT(member)
#define TEXT(member)         .type = SETTINGS_TEXT, AT(member), .min = 1, .max = ROOM(member)
#define FILE_(member)        .type = SETTINGS_FILE, AT(member), .min = 1, .max = ROOM(member)
#define ATTACHING            .group = SETTINGS_GROUP_ATTACH, .places = ATTACH
#define SUPERVISION          .group = SETTINGS_GROUP_SUPERVISION, .places = ATTACH
#define TLS                  .group = SETTINGS_GROUP_TLS, .places = NETWORK
#define TLS_ATTACHED         .group = SETTINGS_GROUP_TLS, .places = ATTACH
#define CLIENT(name, letter) .client = name, .client_letter = letter
#define RECORDED(name)       .type = SETTINGS_SPECIAL, .read = read_##name, .write = write_##name

const struct settings_row settings_rows[] = {
	{ "read-only", 'r', NULL, FLAG(read_only), ATTACHING, CLIENT("readonly", 'R'),
	  .help = "attach read-only" },
	{ "block-size", 'b', "BYTES", .type = SETTINGS_SIZE, AT(block_size), ATTACHING,
	  .min = PLAN_BLOCK_SIZE_MIN, .max = BLOCK_SIZE_MAX, .nbdtab = "bs",
	  CLIENT("block-size", 'b'),
	  .help = "logical block size, 512 to the page size (default: the server's minimum)" },
	{ "connections", 'C', "N|auto", RECORDED(connections), AT(multi.wanted), ATTACHING,
	  .nbdtab = "conns", CLIENT("connections", 'C'),
	  .help = "several, where the server permits it; auto: one per CPU, 8 at most, as far as it is safe (default 1)" },
	{ "force-multi-conn", 0, NULL, FLAG(multi.force), ATTACHING,
	  .help = "several on a read-only export whose server does not permit it, or without a guard against qemu 3.0" },
	{ "timeout", 't', "SECONDS", NUMBER(timeout_s), .max = PLAN_TIMEOUT_MAX,
	  .normal = PLAN_TIMEOUT_DEFAULT, .group = SETTINGS_GROUP_ATTACH,
	  .places = ATTACH | BIT(SETTINGS_MAP), CLIENT("timeout", 't'),
	  .help = "drop a connection that leaves a request unanswered so long (default 30, 0: never)" },
	{ "peer-timeout", 0, "SECONDS", NUMBER(peer_timeout_s), .max = SETTINGS_PEER_TIMEOUT_MAX,
	  .normal = PEER_TIMEOUT_DEFAULT, ATTACHING,
	  .help = "take a server for dead that is silent so long (default 15, 0: the system's default)" },
	{ "allow-overlap", 0, NULL, FLAG(allow_overlap), ATTACHING,
	  .help = "also where another device of this machine has the export for writing" },
	{ "connect-timeout", 0, "SECONDS", .type = SETTINGS_DURATION, AT(connect_timeout_ms),
	  .min = 1, .max = SETTINGS_CONNECT_TIMEOUT_MAX_MS, .normal = CONNECT_TIMEOUT_DEFAULT_MS,
	  .group = SETTINGS_GROUP_ATTACH, .places = NETWORK,
	  .help = "limit for name resolution, connection and handshake together (default 30)" },

	{ "no-supervise", 0, NULL, FLAG(supervision.none), SUPERVISION,
	  .help = "leave no process; a lost connection is an I/O error" },
	{ "dead-timeout", 0, "SECONDS", NUMBER(dead_timeout_s), .max = PLAN_TIMEOUT_MAX,
	  SUPERVISION,
	  .help = "with --no-supervise: let I/O wait so long for somebody to replace a lost connection (default 0: fail at once)" },
	{ "root", 0, NULL, FLAG(supervision.root), SUPERVISION,
	  .help = "the device has the root file system: its supervisor needs no file, memory or name to reconnect" },
	{ "swap", 0, NULL, FLAG(supervision.swap), SUPERVISION, CLIENT("swap", 's'),
	  .help = "the device is swap: likewise" },
	{ "keep-at-shutdown", 0, NULL, FLAG(supervision.keep), SUPERVISION,
	  .help = "systemd shall spare the supervisor to the end; implied by --root in an initramfs" },
	{ "reconnect-timeout", 0, "SECONDS", NUMBER(supervision.reconnect_timeout_s),
	  .max = PLAN_TIMEOUT_MAX, SUPERVISION,
	  .help = "give a device up that is without a connection so long (default 0: never)" },
	{ "fence-delay", 0, "SECONDS", NUMBER(supervision.fence_delay_s), .max = PLAN_TIMEOUT_MAX,
	  SUPERVISION,
	  .help = "wait so long before turning to another server when one fell silent (default: the peer timeout)" },

	{ "tls", 0, NULL, FLAG(tls.required), TLS, CLIENT("enable-tls", 'x'),
	  .help = "require TLS; implied by an nbds URI and by all that follow" },
	{ "tls-offload", 0, "WHO", .type = SETTINGS_CHOICE, AT(tls.offload), .choice = offloads,
	  TLS_ATTACHED,
	  .help = "who encrypts: auto (the kernel, else a relay process), require (the kernel), no (a relay)" },
	{ "tls-renew", 0, "RECORDS", NUMBER(tls.renew), .max = UINT32_MAX,
	  .normal = PLAN_RENEW_DEFAULT, TLS_ATTACHED,
	  .help = "replace a connection that the kernel encrypts after so many (default 12000000, 0: never)" },
	{ "tls-ca", 0, "FILE", FILE_(tls.ca), TLS, .nbdtab = "cacertfile",
	  CLIENT("cacertfile", 'A'),
	  .help = "authorities that may have signed the server's certificate (default: the system's)" },
	{ "tls-crl", 0, "FILE", FILE_(tls.crl), TLS, .help = "certificates that are revoked" },
	{ "tls-cert", 0, "FILE|URI", FILE_(tls.cert), TLS, .nbdtab = "certfile",
	  CLIENT("certfile", 'F'), .help = "our certificate, a file or a pkcs11: URI" },
	{ "tls-key", 0, "FILE|URI", FILE_(tls.key), TLS, .nbdtab = "keyfile",
	  CLIENT("keyfile", 'K'), .help = "its private key, likewise" },
	{ "tls-certificates", 0, "DIR", FILE_(tls.directory), TLS,
	  .help = "directory with ca-cert.pem, client-cert.pem, client-key.pem, ca-crl.pem" },
	{ "tls-hostname", 0, "NAME", TEXT(tls.hostname), TLS, .nbdtab = "tlshostname",
	  CLIENT("tlshostname", 'H'),
	  .help = "name expected in the server's certificate (default: HOST)" },
	{ "tls-no-verify", 0, NULL, FLAG(tls.no_verify), TLS,
	  .help = "accept any certificate: no protection against a false server" },
	{ "tls-psk-file", 0, "FILE", FILE_(tls.psk_file), TLS,
	  .help = "pre-shared key: lines of user:key, instead of certificates" },
	{ "tls-psk-user", 0, "NAME", TEXT(tls.psk_user), TLS,
	  .help = "which line of it (default: the URI's user, or the only one)" },
	{ "tls-priority", 0, "STRING", TEXT(tls.priority), TLS,
	  .help = "GnuTLS priority string (default: the system's, TLS 1.2 and 1.3)" },

	/* What the operands of a command line and the fields of the nbdtab say. */
	{ "server", 0, "URI", RECORDED(server), AT(servers), .places = RECORD },
	{ "command", 0, "WORD", RECORDED(word), AT(command), .places = RECORD },
	{ "export", 0, "NAME", RECORDED(export), AT(servers[0].export), .places = RECORD },
	{ 0 }
};

enum { ROWS = sizeof(settings_rows) / sizeof(settings_rows[0]) - 1 };
_Static_assert((int)ROWS <= (int)SETTINGS_ROWS_MAX, "struct settings has a bit for each row");

const struct settings_row *settings_find(const char *name, enum settings_place place)
{
	for (const struct settings_row *row = settings_rows; row->name; row++) {
		if (place == SETTINGS_NBD_CLIENT) {
			if (row->client && !strcmp(name, row->client))
				return row;
			continue;
		}
		if (!(row->places & BIT(place)))
			continue;
		if (!strcmp(name, row->name))
			return row;
		if (place == SETTINGS_NBDTAB && row->nbdtab && !strcmp(name, row->nbdtab))
			return row;
	}
	return NULL;
}

/* --- one value ---------------------------------------------------------------------------- */

static int read_number(uint32_t *member, const struct settings_row *row, const char *called,
		       const char *text, struct err *e)
{
	char shown[80];
	uint64_t n;

	text_escape(shown, sizeof(shown), text, strlen(text));
	if (row->type == SETTINGS_DURATION) {
		if (text_seconds(text, row->min, row->max, &n))
			return err_set(e, ERR_USAGE, EINVAL,
				       "%s %s: seconds from %.3g to %llu are needed", called, shown,
				       (double)row->min / 1e3, (unsigned long long)row->max / 1000);
	} else if (row->type == SETTINGS_SIZE) {
		if (text_number(text, true, 0, row->max, &n))
			return err_set(e, ERR_USAGE, EINVAL,
				       "%s %s: a number from 0 to %llu is needed", called, shown,
				       (unsigned long long)row->max);
		if (n < row->min || n & (n - 1))
			return err_set(e, ERR_USAGE, EINVAL,
				       "%s %llu: a power of two of at least %llu is needed", called,
				       (unsigned long long)n, (unsigned long long)row->min);
	} else if (text_number(text, false, row->min, row->max, &n)) {
		return err_set(e, ERR_USAGE, EINVAL, "%s %s: a number from %llu to %llu is needed",
			       called, shown, (unsigned long long)row->min,
			       (unsigned long long)row->max);
	}
	*member = (uint32_t)n;
	return 0;
}

static int read_choice(void *member, const struct settings_row *row, const char *called,
		       const char *text, struct err *e)
{
	char names[128] = "";

	for (int i = 0; row->choice[i]; i++) {
		size_t used = strlen(names);

		if (!strcmp(text, row->choice[i])) {
			memcpy(member, &i, sizeof(i));
			return 0;
		}
		snprintf(names + used, sizeof(names) - used, "%s%s",
			 !i                 ? "" :
			 row->choice[i + 1] ? ", " :
					      " or ",
			 row->choice[i]);
	}
	return err_set(e, ERR_USAGE, EINVAL, "%s needs %s", called, names);
}

static int read_text(char *member, const struct settings_row *row, const char *called,
		     const char *text, struct err *e)
{
	size_t len = strlen(text);

	if (len < row->min || len > row->max)
		return err_set(e, ERR_USAGE, EINVAL, "%s needs %llu to %llu bytes", called,
			       (unsigned long long)row->min, (unsigned long long)row->max);
	memset(member, 0, row->max + 1);
	memcpy(member, text, len);
	return 0;
}

static int read_special(void *of, const struct settings_row *row, const char *called,
			const char *text, struct err *e)
{
	char shown[80];

	if (!row->read(of, text, e))
		return 0;
	/* Operands are no options: their texts speak for themselves. */
	if (!row->help)
		return -e->code;
	text_escape(shown, sizeof(shown), text, strlen(text));
	return err_wrap(e, "%s %s", called, shown);
}

int settings_set_member(void *of, const struct settings_row *row, const char *called,
			const char *text, struct err *e)
{
	void *member = (char *)of + row->offset;

	switch (row->type) {
	case SETTINGS_FLAG:
		if (text && strcmp(text, "1"))
			return err_set(e, ERR_USAGE, EINVAL, "%s is 1 or not there", called);
		*(bool *)member = true;
		return 0;
	case SETTINGS_NUMBER:
	case SETTINGS_SIZE:
	case SETTINGS_DURATION:
		return read_number(member, row, called, text, e);
	case SETTINGS_TEXT:
	case SETTINGS_FILE:
		return read_text(member, row, called, text, e);
	case SETTINGS_CHOICE:
		return read_choice(member, row, called, text, e);
	default:
		return read_special(of, row, called, text, e);
	}
}

int settings_set(struct settings *s, const struct settings_row *row, const char *called,
		 const char *text, struct err *e)
{
	int ret = settings_set_member(s, row, called, text, e);

	if (!ret)
		s->given |= UINT64_C(1) << (row - settings_rows);
	return ret;
}

bool settings_row_given(const struct settings *s, const struct settings_row *row)
{
	return s->given >> (row - settings_rows) & 1;
}

bool settings_given(const struct settings *s, const void *member)
{
	const struct settings_row *row = settings_rows;

	while (row->name && (const char *)s + row->offset != member)
		row++;
	return row->name && settings_row_given(s, row);
}

bool settings_get(const struct settings *s, const struct settings_row *row, unsigned i, char *buf,
		  size_t cap)
{
	const char *member = (const char *)s + row->offset;
	uint32_t number;

	if (row->type == SETTINGS_SPECIAL)
		return row->write(s, i, buf, cap);
	if (i)
		return false;
	switch (row->type) {
	case SETTINGS_FLAG:
		snprintf(buf, cap, "1");
		return *(const bool *)member;
	case SETTINGS_TEXT:
	case SETTINGS_FILE:
		snprintf(buf, cap, "%s", member);
		return member[0];
	default:
		memcpy(&number, member, sizeof(number));
	}
	if (row->type == SETTINGS_CHOICE)
		snprintf(buf, cap, "%s", row->choice[number]);
	else if (row->type == SETTINGS_DURATION)
		snprintf(buf, cap, "%u.%03u", number / 1000, number % 1000);
	else
		snprintf(buf, cap, "%u", number);
	return settings_row_given(s, row) || number != row->normal;
}

/* --- all of them -------------------------------------------------------------------------- */

void settings_init(struct settings *s)
{
	memset(s, 0, sizeof(*s));
	for (const struct settings_row *row = settings_rows; row->name; row++)
		if (row->normal)
			memcpy((char *)s + row->offset, &row->normal, sizeof(row->normal));
}

void settings_override(struct settings *s, const struct settings *over)
{
	char value[SETTINGS_VALUE_MAX];
	struct err never;

	for (const struct settings_row *row = settings_rows; row->name; row++)
		if (row->help && settings_row_given(over, row) &&
		    settings_get(over, row, 0, value, sizeof(value)))
			settings_set(s, row, row->name, value, &never);
}

int settings_add_server(struct settings *s, const struct uri *u, struct err *e)
{
	if (s->server_count == SETTINGS_SERVERS_MAX)
		return err_set(e, ERR_USAGE, EINVAL, "more than %d servers", SETTINGS_SERVERS_MAX);
	if (s->server_count && u->tls != s->servers[0].tls)
		return fail(e, "either all servers have TLS or none: nbds and nbd URIs are mixed");
	s->servers[s->server_count++] = *u;
	return 0;
}

int settings_add_host(struct settings *s, const char *host, const char *port, bool is_unix,
		      const char *export, struct err *e)
{
	const char *colon = strchr(host, ':');
	bool bare6 = host[0] != '[' && colon && strchr(colon + 1, ':');
	char whole[URI_HOST_MAX + URI_PORT_MAX + 8];
	struct uri u;
	int n = 0;

	if (is_unix && !strchr(host, '/'))
		n = snprintf(whole, sizeof(whole), "./%s", host);
	else if (port)
		n = snprintf(whole, sizeof(whole), bare6 ? "[%s]:%s" : "%s:%s", host, port);
	if ((size_t)n >= sizeof(whole))
		return fail(e, "host and port are too long");
	return uri_from_host(&u, n ? whole : host, export, e) ? -EINVAL :
								settings_add_server(s, &u, e);
}

int settings_set_command(struct settings *s, char *const argv[], const char *export, struct err *e)
{
	const struct settings_row *row = settings_find("command", SETTINGS_RECORD);

	for (unsigned i = 0; argv[i]; i++)
		if (settings_set(s, row, "", argv[i], e))
			return -e->code;
	return settings_set(s, settings_find("export", SETTINGS_RECORD), "", export, e);
}

/* Options that mean nothing together. */
static int find_contradiction(const struct settings *s, const char *dashes, struct err *e)
{
	const struct supervision *v = &s->supervision;
	const char *d = dashes;

	if (s->dead_timeout_s && !v->none)
		return err_set(
			e, ERR_USAGE, EINVAL,
			"%sdead-timeout is for %sno-supervise: a supervisor lets I/O wait as long as it takes",
			d, d);
	if ((v->reconnect_timeout_s || settings_given(s, &v->fence_delay_s)) && v->none)
		return err_set(e, ERR_USAGE, EINVAL,
			       "%sreconnect-timeout and %sfence-delay are for a supervisor", d, d);
	if ((v->root || v->swap || v->keep) && v->none)
		return err_set(e, ERR_USAGE, EINVAL,
			       "%sroot, %sswap and %skeep-at-shutdown are for a supervisor", d, d,
			       d);
	if (s->command.count && s->multi.wanted > 1)
		return err_set(e, ERR_USAGE, EINVAL, "a %scommand serves one connection", d);
	/*
	 * Without a limit the driver shows no sign of having taken a new connection, and one
	 * that is offered to it twice could get into two slots.
	 */
	if (s->multi.wanted > 1 && !s->multi.automatic && !s->timeout_s)
		return err_set(
			e, ERR_USAGE, EINVAL,
			"several %sconnections need a time limit for requests: with %stimeout 0 "
			"a lost one could not be replaced safely",
			d, d);
	if (s->multi.force && s->multi.wanted <= 1 && !s->multi.automatic)
		return err_set(e, ERR_USAGE, EINVAL, "%sforce-multi-conn is for %sconnections", d,
			       d);
	return 0;
}

int settings_complete(struct settings *s, const char *dashes, struct err *e)
{
	bool tls = false;

	s->multi.read_only = s->read_only;
	if (s->command.count)
		s->supervision.none = true; /* nobody could start it again as it was */
	for (const struct settings_row *row = settings_rows; row->name; row++)
		tls = tls || (row->group == SETTINGS_GROUP_TLS && settings_row_given(s, row));
	for (unsigned i = 0; i < s->server_count; i++)
		s->servers[i].tls = s->servers[i].tls || tls;
	return find_contradiction(s, dashes, e);
}

uint32_t settings_automatic_connections(const struct settings *s, long processors)
{
	if (processors < 1 || !s->timeout_s)
		return 1;
	return processors > PLAN_CONNECTIONS_AUTO_MAX ? PLAN_CONNECTIONS_AUTO_MAX :
							(uint32_t)processors;
}

bool settings_is_vital(const struct settings *s)
{
	return s->supervision.root || s->supervision.swap;
}

uint32_t settings_fence_delay(const struct settings *s)
{
	return settings_given(s, &s->supervision.fence_delay_s) ? s->supervision.fence_delay_s :
								  s->peer_timeout_s;
}

void settings_endpoint(const struct settings *s, unsigned server, char *buf, size_t cap)
{
	if (s->command.count)
		text_escape(buf, cap, s->command.words, strlen(s->command.words));
	else
		uri_endpoint(&s->servers[server], buf, cap);
}
