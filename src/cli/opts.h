/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * opts: the command line as a struct, checked as a whole: every option that is given is used by
 * the command it is given to, or refused. Touches nothing but argv.
 */
#ifndef NBD_ATTACH_OPTS_H
#define NBD_ATTACH_OPTS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "proto/metactx.h"
#include "base/err.h"
#include "net/connect.h"
#include "daemon/negotiator.h"
#include "policy/plan.h"
#include "net/tls.h"
#include "proto/uri.h"

enum opts_command {
	OPTS_ATTACH,
	OPTS_TAB, /* attach as the nbdtab has it; a DEVICE alone */
	OPTS_ALL,
	OPTS_DETACH,
	OPTS_LIST,
	OPTS_CHECK,
	OPTS_EXPORTS,
	OPTS_INFO,
	OPTS_PAUSE,
	OPTS_RESUME,
	OPTS_RESCAN,
	OPTS_ADOPT,
	OPTS_MAP,
	OPTS_HELP,
	OPTS_VERSION,
	OPTS_COMMANDS,
};

enum { OPTS_SERVERS_MAX = NEGOTIATOR_SERVERS_MAX };

/* What an attach says when it is done. */
enum opts_client {
	OPTS_CLIENT_NO,
	OPTS_CLIENT_NETLINK, /* what scripts expect of nbd-client */
	OPTS_CLIENT_IOCTL,   /* and of nbd-client -nonetlink */
};

struct opts {
	enum opts_command command;
	enum opts_client client; /* not parsed, no option says it; as persist_counts */
	bool find;
	bool show;
	bool read_only;
	bool force;
	bool no_headings;
	bool json;
	bool bytes;
	char **words; /* the whole command line, as it was given */
	int word_count;
	bool totals;
	const char *columns;     /* of -O, or NULL; points into argv, as do the next two */
	uint32_t block_size;     /* 0: not given */
	struct metactx contexts; /* of map, at least one */
	uint32_t timeout_s;
	uint32_t dead_timeout_s;
	uint32_t connect_timeout_ms;
	struct plan_multi multi;
	bool no_supervise;
	bool foreground;
	bool root;
	bool swap;
	bool keep; /* --keep-at-shutdown */
	bool timeout_given;
	bool fence_given;
	uint32_t peer_timeout_s;
	uint32_t reconnect_timeout_s; /* 0: for ever */
	uint32_t fence_delay_s;
	struct uri
		others[OPTS_SERVERS_MAX - 1]; /* of attach: further servers with the same export */
	unsigned other_count;
	struct uri
		where; /* of attach, exports, info and map; of a command only the export and tls */
	struct tls_params tls; /* for where.tls, which any option of TLS sets */
	enum tls_offload offload;
	uint32_t tls_renew; /* records; 0: never */
	const char *nbdtab; /* its path, for tab and all */
	bool persist_counts; /* of tab: supervise only where the line says "persist", as nbd-client has it */
	const char *tls_directory; /* of --tls-certificates, or NULL */
	char **argv;               /* of --command, NULL-terminated, or NULL */
	char **devices;            /* operands of detach, list and check, and the one of attach */
	unsigned device_count;
	unsigned index; /* of attach (unless find) and check */
};

/*
 * Parses argv, which is reordered. ERR_USAGE with a text for one line otherwise. All else than
 * pointers into argv is copied.
 */
int opts_parse(int argc, char *argv[], struct opts *o, struct err *e);

/*
 * The same for a command line that was put together from a line of the nbdtab: it attaches, and an --nbdtab among the
 * words has been followed.
 */
int opts_parse_entry(int argc, char *argv[], struct opts *o, struct err *e);

/*
 * The number of the device of an operand: "nbd3", "/dev/nbd3", or a link to such a node.
 */
int opts_device(const char *operand, unsigned *index, struct err *e);

/* --help, generated from the table that opts_parse uses. */
void opts_help(FILE *f);

#endif
