/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#ifndef TLSPEER_H
#define TLSPEER_H

/*
 * The other end of a TLS session, in the same process, and the certificates for both ends. All is
 * made when the tests run: nothing expires in the source tree. A failing call fails the test.
 */

#include <stdbool.h>
#include <stddef.h>
#include <time.h>

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

struct cert {
	gnutls_x509_crt_t crt;
	gnutls_x509_privkey_t key;
};

struct cert_spec {
	const char *name;   /* common name, or NULL */
	const char *dns[4]; /* subject alternative names */
	const char *ip[2];
	const char *raw_dns;       /* one, as it is and not as the library would write it */
	time_t from, until;        /* 0: from the year 2000, until 2099 */
	bool ca, client;           /* else a server's */
	const struct cert *issuer; /* NULL: signed by itself */
};

void cert_make(struct cert *c, const struct cert_spec *spec);
void cert_free(struct cert *c);
/* PEM files, of the given name in dir, with mode 0600; either may be NULL. */
void cert_write(const struct cert *c, const char *dir, const char *crt, const char *key);
/*
 * A revocation list by issuer that has (or has not) revoked, issued at from (0: 2000), the next
 * one due at until (0: 2099).
 */
void crl_write(const struct cert *issuer, const struct cert *revoked, time_t from, time_t until,
	       const char *dir, const char *name);

/* A file in dir with this mode. */
void peer_file(const char *dir, const char *name, const char *text, unsigned mode);

struct peer_spec {
	const struct cert *cert;      /* NULL: none */
	const char *psk_file;         /* path, or NULL: none */
	const struct cert *client_ca; /* a certificate signed by this one is required of clients */
	const char *priority;         /* NULL: all there is, with pre-shared keys */
	bool tickets;
	bool no_alert; /* just closes when something is wrong, as some servers do */
};

/* A server on fd, which is non-blocking and belongs to it. */
struct peer {
	int fd;
	gnutls_session_t session;
	gnutls_certificate_credentials_t x509;
	gnutls_psk_server_credentials_t psk;
	gnutls_datum_t ticket_key;
	bool no_alert;
	int result; /* result of its handshake; GNUTLS_E_AGAIN: not known yet */
};

void peer_open(struct peer *p, int fd, const struct peer_spec *spec);
/* Goes on with the handshake; after a failure the connection is closed. */
void peer_step(struct peer *p);
void peer_close(struct peer *p);

/* Non-blocking, connected to each other: Unix sockets, or TCP on the loopback. */
void peer_unix(int fds[2]);
void peer_tcp(int fds[2]);

#endif
