/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * opts: the command line as a struct, checked as a whole: every option that is given is used by the
 * command it is given to, or refused. What describes the attachment goes into struct settings by
 * the table in policy/settings.c; the rest is here. Touches nothing but argv, and looks at links to
 * devices.
 */
#ifndef NBD_ATTACH_OPTS_H
#define NBD_ATTACH_OPTS_H

#include <stdbool.h>
#include <stdio.h>

#include "base/err.h"
#include "policy/settings.h"
#include "proto/metactx.h"

enum opts_command {
	OPTS_ATTACH = SETTINGS_ATTACH,
	OPTS_EXPORTS = SETTINGS_EXPORTS,
	OPTS_INFO = SETTINGS_INFO,
	OPTS_MAP = SETTINGS_MAP,
	OPTS_TAB = SETTINGS_PLACES, /* attach as the nbdtab has it; a DEVICE alone */
	OPTS_ALL,
	OPTS_DETACH,
	OPTS_LIST,
	OPTS_CHECK,
	OPTS_PAUSE,
	OPTS_RESUME,
	OPTS_RESCAN,
	OPTS_ADOPT,
	OPTS_HELP,
	OPTS_VERSION,
};

/* What an attach says when it is done. No option sets it. */
enum opts_client {
	OPTS_CLIENT_NO,
	OPTS_CLIENT_NETLINK, /* the words that scripts expect of nbd-client */
	OPTS_CLIENT_IOCTL,   /* the words of nbd-client -nonetlink */
};

/* Pointers are into argv. */
struct opts {
	enum opts_command command;
	enum opts_client client;
	bool find;
	bool show;
	bool foreground;
	bool force;
	bool no_headings;
	bool json;
	bool bytes;
	bool totals;
	bool has_command;    /* --command */
	bool persist_counts; /* OPTS_TAB: supervise lines with "persist" only; no option sets it */
	const char *columns; /* argument of --output, or NULL */
	const char *nbdtab;  /* path, for OPTS_TAB and OPTS_ALL */
	struct metactx contexts; /* OPTS_MAP: at least one */
	char **devices;          /* operands that are devices */
	unsigned device_count;
	unsigned index; /* device number of devices[0] */
	struct settings settings;
};

/* Parses argv, which is reordered. ERR_USAGE with a text for one line otherwise. */
int opts_parse(int argc, char *argv[], struct opts *o, struct err *e);

/* The number of the device of an operand: "nbd3", "/dev/nbd3", or a link to such a node. */
int opts_device(const char *operand, unsigned *index, struct err *e);

/* --help, generated from the tables that opts_parse uses. */
void opts_help(FILE *f);

#endif
