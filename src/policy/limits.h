/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * limits: what the table of options and the decisions about them share, so that neither needs the
 * other.
 */
#ifndef NBD_ATTACH_LIMITS_H
#define NBD_ATTACH_LIMITS_H

#include <stdbool.h>
#include <stdint.h>

enum {
	PLAN_BLOCK_SIZE_MIN = 512, /* bytes; a sector of the block layer */
	PLAN_CONNECTIONS_MAX = 64,
	PLAN_CONNECTIONS_AUTO_MAX = 8,
	PLAN_TIMEOUT_DEFAULT = 30, /* seconds */
	/* Ten years. nbd.c multiplies the seconds by HZ, which does not overflow with this. */
	PLAN_TIMEOUT_MAX = 300000000,
};

/*
 * Records after which a connection is replaced, before the server wants new keys, which the kernel
 * cannot do. GnuTLS wants them after 2^24.
 */
#define PLAN_RENEW_DEFAULT 12000000

/* The connections that the user wants. */
struct plan_multi {
	uint32_t wanted; /* number, 0 is 1 */
	bool automatic;  /* --connections auto: fewer will do */
	bool force;      /* --force-multi-conn */
	bool read_only;  /* nothing will be written, whatever the export permits */
};

#endif
