/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * settings: what is to be attached and how, as one flat struct, and one table with a row for each
 * option. The command line, the nbdtab, the command line of nbd-client and the record of a device
 * read and write the struct through the table; everybody else gets a const pointer to it. Memory
 * only: no file is looked at, and the contents of a key file never get here.
 *
 * A new option is a row in settings.c, the code that uses the member, a paragraph of the manual and
 * a test.
 */
#ifndef NBD_ATTACH_SETTINGS_H
#define NBD_ATTACH_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "policy/limits.h"
#include "proto/uri.h"

enum {
	SETTINGS_SERVERS_MAX = 8,
	SETTINGS_COMMAND_MAX = 8192, /* bytes of all words, each with its NUL */
	SETTINGS_WORDS_MAX = 256,
	SETTINGS_PEER_TIMEOUT_MAX = 32767, /* seconds; MAX_TCP_KEEPIDLE of the kernel */
	SETTINGS_CONNECT_TIMEOUT_MAX_MS = 86400 * 1000,
	SETTINGS_VALUE_MAX = URI_TEXT_MAX, /* the longest text of settings_get, with its NUL */
	TLS_PATH_MAX = 1023,
	TLS_NAME_MAX = 255,
	TLS_PRIORITY_MAX = 511,
};

/* Who does the record layer of TLS, once the handshake is done. */
enum tls_offload {
	TLS_OFFLOAD_AUTO,    /* the kernel where it can, else a relay process */
	TLS_OFFLOAD_REQUIRE, /* the kernel, or failure */
	TLS_OFFLOAD_NO,      /* a relay process */
};

/* How TLS is done with a server whose uri.tls is set. Texts are "" when not given. */
struct tls_params {
	bool required; /* --tls, see settings_complete */
	enum tls_offload offload;
	uint32_t renew; /* records until a connection of the kernel is replaced; 0: never */
	bool no_verify; /* any certificate is accepted: no protection against a false server */
	char directory[TLS_PATH_MAX +
		       1];               /* files that are not named below, see tls_use_directory */
	char ca[TLS_PATH_MAX + 1];       /* PEM file of authorities; "": the system's */
	char crl[TLS_PATH_MAX + 1];      /* PEM file of revoked certificates, up to date */
	char cert[TLS_PATH_MAX + 1];     /* our certificate, a PEM file or a PKCS#11 URI */
	char key[TLS_PATH_MAX + 1];      /* private key, likewise */
	char psk_file[TLS_PATH_MAX + 1]; /* lines "user:hexadecimal key", instead of certificates */
	char psk_user[TLS_NAME_MAX + 1]; /* name in psk_file; "": the only one */
	char hostname[TLS_NAME_MAX + 1]; /* name expected in the server's certificate */
	char priority[TLS_PRIORITY_MAX + 1]; /* GnuTLS priority string; "": the system's */
};

/* A server that is a command on its standard input and output. */
struct server_command {
	unsigned count;                   /* 0: no command */
	char words[SETTINGS_COMMAND_MAX]; /* count strings, each with its NUL */
};

/* How a device is supervised. */
struct supervision {
	bool none;                    /* no process stays: a lost connection is an I/O error */
	bool root, swap;              /* use of the device, see settings_is_vital */
	bool keep;                    /* systemd spares the processes that stay */
	uint32_t reconnect_timeout_s; /* without a connection, to the end of the device; 0: none */
	uint32_t fence_delay_s;       /* see settings_fence_delay */
};

/* Made by settings_init. Two that were set to the same values are equal under memcmp. */
struct settings {
	uint64_t given; /* bit i: settings_rows[i] was set */
	/*
	 * Replicas of one export, in the order in which they are tried. The first one names it. A
	 * command is one server, of which only export and tls count.
	 */
	struct uri servers[SETTINGS_SERVERS_MAX];
	unsigned server_count;
	struct server_command command;
	struct tls_params tls;
	struct plan_multi multi; /* read_only is set by settings_complete */
	struct supervision supervision;
	bool read_only;
	bool allow_overlap;  /* another device of this machine may have the export for writing */
	uint32_t block_size; /* bytes, 0: as the server wants */
	uint32_t timeout_s;  /* limit of the answer to one request; 0: none */
	uint32_t dead_timeout_s; /* how long I/O waits for a replacement; 0: error at once */
	uint32_t peer_timeout_s; /* silence after which a peer is dead; 0: the system's default */
	uint32_t connect_timeout_ms; /* limit of look-up, connection and handshake together */
};

/* Where an option is allowed. The first ones are commands of the command line. */
enum settings_place {
	SETTINGS_ATTACH,
	SETTINGS_EXPORTS,
	SETTINGS_INFO,
	SETTINGS_MAP,
	SETTINGS_NBDTAB,
	SETTINGS_NBD_CLIENT, /* rows with a client name; they have no bit of their own */
	SETTINGS_RECORD,
	SETTINGS_PLACES, /* the number of places; opts.h counts its other commands from here */
};

enum settings_type {
	SETTINGS_FLAG,     /* bool; "1", or no text at all */
	SETTINGS_NUMBER,   /* uint32_t from min to max */
	SETTINGS_SIZE,     /* uint32_t, a power of two from min to max; K and M are taken */
	SETTINGS_DURATION, /* uint32_t in milliseconds; the text is seconds, with decimals */
	SETTINGS_TEXT,     /* char[max + 1]; 1 to max bytes */
	SETTINGS_FILE,     /* the same; the name of a file or directory, or a URI of a token */
	SETTINGS_CHOICE,   /* an enum; the names of its values from 0 on */
	SETTINGS_WORD,     /* const char *; the text itself, which is not copied */
	SETTINGS_SPECIAL,  /* its own functions */
};

/* In which part of --help the option is. */
enum settings_group {
	SETTINGS_GROUP_COMMAND,
	SETTINGS_GROUP_ATTACH,
	SETTINGS_GROUP_SUPERVISION,
	SETTINGS_GROUP_TLS, /* any of these given means that TLS is required */
	SETTINGS_GROUP_OUTPUT,
	SETTINGS_GROUPS,
};

/* One option. */
struct settings_row {
	const char *name;     /* with two dashes on the command line */
	char letter;          /* with one dash; 0: none */
	const char *argument; /* placeholder; NULL: takes none; "[=...]": may take one, after "=" */
	enum settings_type type;
	size_t offset; /* in struct settings, or in the struct of whoever has such a table */
	uint64_t min, max;
	uint32_t normal;           /* the default of a number, a size or a duration */
	const char *const *choice; /* NULL-terminated */
	int (*read)(void *of, const char *text, struct err *e);
	/* As settings_get. NULL: not recorded. */
	bool (*write)(const struct settings *s, unsigned i, char *buf, size_t cap);
	unsigned places; /* a bit for each enum settings_place */
	enum settings_group group;
	const char *nbdtab; /* nbdtab(5)'s own name for it, or NULL */
	const char *client; /* nbd-client(8)'s name for it, or NULL: it has none */
	char client_letter;
	const char *help; /* NULL: no option of the command line */
};

/* At most SETTINGS_ROWS_MAX, and one more without a name at the end. */
enum { SETTINGS_ROWS_MAX = 64 };
extern const struct settings_row settings_rows[];

/* The defaults, and no server. */
void settings_init(struct settings *s);

/* The row by its name in a place, or NULL. */
const struct settings_row *settings_find(const char *name, enum settings_place place);

/*
 * Sets an option from its text, which may be NULL for a flag. "server" and "command" add one,
 * others replace an earlier value. called is the name in messages: "--block-size", "option bs".
 * -EINVAL or -E2BIG (ERR_USAGE), and nothing is set.
 */
int settings_set(struct settings *s, const struct settings_row *row, const char *called,
		 const char *text, struct err *e);

/* The same for a row of another table, whose offset counts from of. */
int settings_set_member(void *of, const struct settings_row *row, const char *called,
			const char *text, struct err *e);

/*
 * Value number i of an option as a text that settings_set takes. False where there is none: all but
 * "server" and "command" have one value, and none where it is the default and was not given. cap is
 * SETTINGS_VALUE_MAX or more.
 */
bool settings_get(const struct settings *s, const struct settings_row *row, unsigned i, char *buf,
		  size_t cap);

/* Whether an option was set. */
bool settings_row_given(const struct settings *s, const struct settings_row *row);

/* The same by the address of its member in s. */
bool settings_given(const struct settings *s, const void *member);

/* Sets in s all options that were given in over, but for servers and commands. */
void settings_override(struct settings *s, const struct settings *over);

/* Adds a server by its URI. -EINVAL (ERR_USAGE), also where only some servers have TLS. */
int settings_add_uri(struct settings *s, const char *text, struct err *e);

/*
 * Adds a server by its host, as uri_from_host takes it, and a port of its own or NULL; or by the
 * path of a Unix socket, even where it has no '/'. -EINVAL (ERR_USAGE).
 */
int settings_add_host(struct settings *s, const char *host, const char *port, bool is_unix,
		      const char *export, struct err *e);

/* Makes the server a command, argv NULL-terminated. -E2BIG (ERR_USAGE): too long or too many. */
int settings_set_command(struct settings *s, char *const argv[], const char *export, struct err *e);

/*
 * Derives what follows from all options: a command has no supervision, options of TLS require it of
 * all servers. -EINVAL (ERR_USAGE) where options contradict each other; the text has their names
 * with dashes, "--root", or as in a file, "root".
 */
int settings_complete(struct settings *s, bool dashes, struct err *e);

/*
 * Number of connections that --connections auto asks for on a machine with so many processors (or
 * -1): more than that would be spares, and several need a time limit for requests.
 */
uint32_t settings_automatic_connections(const struct settings *s, long processors);

/*
 * Whether the device may have our own programs or memory: nothing may wait for it before it is
 * connected again. No memory is allocated then, and files are opened only by descriptors of sysfs
 * and of the records' directory, so that a change of root does not matter.
 */
bool settings_is_vital(const struct settings *s);

/* Seconds before another server gets what a silent one may still execute. */
uint32_t settings_fence_delay(const struct settings *s);

/*
 * What a server is, for messages: "host:port", a path, or the command's name. Escaped, always
 * terminated.
 */
void settings_endpoint(const struct settings *s, unsigned server, char *buf, size_t cap);

#endif
