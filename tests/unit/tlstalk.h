/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#ifndef TLSTALK_H
#define TLSTALK_H

/*
 * A client session of net/tls with a server in the same process, and a directory with certificates,
 * revocation lists and key files for both, in which the tests run. A failing call fails the test.
 */

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "net/tls.h"
#include "net/tls_creds.h"
#include "tlspeer.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))
#define ALL_PSK      ":+ECDHE-PSK:+DHE-PSK:+PSK"

/* --- what there is on disk -------------------------------------------------------------------- */

enum {
	CA = 1,
	OTHER_CA,
	OLD_CA, /* expired */
	NEW_CA, /* not yet valid */
	SERVER, /* server.example, alt.example, 127.0.0.1, ::1 */
	EXPIRED,
	FUTURE,
	COMMON_NAME, /* common.example, nothing else */
	NAMELESS,
	HOSTILE, /* a name that would harm a terminal */
	MANY,    /* more and longer names than any message has room for */
	WILDCARD,
	SELF_SIGNED,
	OF_OLD_CA,
	OF_NEW_CA,
	NO_SERVER, /* a certificate for clients only */
	CLIENT,
	OTHER_CLIENT,
	CERTS,
};

extern struct cert talk_certs[CERTS];

/*
 * Fixture: makes all of it in a directory of its own and goes there, so that file names are short
 * and known.
 */
void talk_setup(void);
void talk_teardown(void);

/* --- sessions --------------------------------------------------------------------------------- */

struct talk {
	struct tls_creds *creds;
	struct tls *t;
	struct peer p;
	int fd;
	int ret; /* result of our handshake */
	struct err e;
};

/*
 * Credentials and both ends, nothing said yet. fds are connected to each other, the second one
 * the server's.
 */
void talk_begin_over(struct talk *k, const int fds[2], const struct tls_params *params,
		     const struct peer_spec *spec);

/* Over Unix sockets. */
void talk_begin(struct talk *k, const struct tls_params *params, const struct peer_spec *spec);

/* The handshake, until both ends know. */
void talk_handshake(struct talk *k);

/* A moment, or until something has come. */
void talk_wait(const struct talk *k);

/* All of len, in one direction, whatever the sizes of buffers; got has room for len. */
void talk_send(struct talk *k, const char *data, size_t len, char *got);
void talk_receive(struct talk *k, const char *data, size_t len, char *got);

/* A word each way. */
void talk_exchange(struct talk *k);

void talk_finish(struct talk *k);

/* An error's text: UTF-8 without control characters, with all of parts in it, up to a NULL. */
void talk_check_text(const struct err *e, const char *const *parts, size_t count);

/* --- who is let in ---------------------------------------------------------------------------- */

/* Priorities of a server: TLS 1.2 and TLS 1.3. */
extern const char *const talk_versions[2];

enum versions { BOTH, ONLY_12, ONLY_13 };

struct talk_case {
	const char *name;
	struct tls_params params;
	int cert;             /* the server's */
	const char *psk_file; /* the server's */
	int client_ca;
	bool tickets, no_alert;
	enum versions versions;
	const char *priority; /* the server's, instead of talk_versions */
	int code;             /* 0: they talk */
	bool late;            /* TLS 1.3 only learns of it afterwards */
	const char *text[4];
	const char *peer; /* as described */
};

#define X509 .ca = "ca.pem", .hostname = "server.example"

/* One case, with a server of TLS 1.2 or 1.3: what both ends say, and what we are told. */
void talk_check(const struct talk_case *w, bool tls13);

#endif
