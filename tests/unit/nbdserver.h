/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#ifndef NBDSERVER_H
#define NBDSERVER_H

/*
 * A server of one connection that plays a script, in a child process, and requests to it for the
 * export "disk". A failing call fails the test.
 */

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "loopback.h"
#include "net/connect.h"

enum {
	LONG_MS = 60000, /* a time limit that does not run out */
	SOON_MS = 20000, /* enough for what comes at once, on the busiest machine */
};

/* What the client says for the export "disk". */
#define CLIENT_FLAGS             "\0\0\0\3"
#define OPTION_GO                "IHAVEOPT\0\0\0\7\0\0\0\x12\0\0\0\4disk\0\4\0\0\0\1\0\2\0\3"
#define OPTION_INFO              "IHAVEOPT\0\0\0\6\0\0\0\x12\0\0\0\4disk\0\4\0\0\0\1\0\2\0\3"
#define OPTION_LIST              "IHAVEOPT\0\0\0\3\0\0\0\0"
#define OPTION_STRUCTURED_REPLY  "IHAVEOPT\0\0\0\10\0\0\0\0"
#define OPTION_LIST_META_CONTEXT "IHAVEOPT\0\0\0\11\0\0\0\14\0\0\0\4disk\0\0\0\0"
#define OPTION_ABORT             "IHAVEOPT\0\0\0\2\0\0\0\0"
#define OPTION_EXPORT_NAME       "IHAVEOPT\0\0\0\1\0\0\0\4disk"
#define REQUEST_DISC             "\x25\x60\x95\x13\0\0\0\2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
#define SAID                     CLIENT_FLAGS OPTION_GO
#define LENGTH(literal)          (sizeof(literal) - 1)

/* --- the server ------------------------------------------------------------------------------- */

struct step {
	enum { END, EXPECT, SEND, DRIP, SLEEP } op;
	size_t len; /* EXPECT: bytes to wait for, SEND and DRIP: of data */
	const void *data;
	int ms; /* SLEEP: how long, DRIP: after each byte */
};

struct server {
	pid_t pid;
	int heard; /* pipe with all the bytes it gets */
};

enum { LISTENED_TO_THE_END, HUNG_UP, CUT_OFF };

/*
 * Reads len bytes from fd and writes them to heard. False, and *how: HUNG_UP or CUT_OFF, when the
 * client has left before.
 */
bool server_hear(int fd, int heard, size_t len, int *how);

/* Serves the next client by the script; after it, closes, or listens until the client leaves. */
void server_start(struct server *s, int listener, const struct step *script, bool listen_on);

/* The server's end: how the client left, and what it said as a whole. */
void server_end(struct server *s, int how, const char *said, size_t len);

/* Without a look at how it ended. */
void server_kill(struct server *s);

/* --- requests --------------------------------------------------------------------------------- */

struct request {
	struct settings settings;
	enum neg_goal goal;
};

void request(struct request *rq, enum neg_goal goal, const struct loopback *l);

void expect_nothing_held(const struct connections *rs);

/* Prepares, runs once and frees, for the first server. cancel_fd as in struct connect_attempt. */
int connect_open(const struct settings *settings, enum neg_goal goal, int cancel_fd,
		 void (*item)(void *ctx, const struct neg_item *item), void *ctx,
		 struct connections *result, struct err *e);

/* A request that fails: nothing is held, nothing is left. */
void expect_failure(const struct request *rq, int cancel_fd, int code, enum err_kind kind,
		    struct err *e);

void expect_text(const struct err *e, const char *begin, const char *part);

#endif
