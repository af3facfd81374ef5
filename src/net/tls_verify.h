/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * tls_verify: whether a server's certificate is good: everything that GnuTLS looks at, and the age
 * of revocation lists, at which it does not look. Never words an error (tls_explain does). For
 * net/tls*.c only.
 */
#ifndef NBD_ATTACH_TLS_VERIFY_H
#define NBD_ATTACH_TLS_VERIFY_H

#include <stdbool.h>

#include "net/tls_internal.h"

/*
 * For gnutls_session_set_verify_function, in a session with struct tls as its pointer. Fills the
 * verdict; returns 0 or GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR.
 */
int tls_verify(gnutls_session_t session);

/* The server's own certificate; the caller's, for gnutls_x509_crt_deinit, or NULL. */
gnutls_x509_crt_t tls_peer_certificate(const struct tls *t);

/*
 * A walk up the server's chain: its own certificate, the others that it has sent, and above them
 * those that we trust. Begins with all zeros; tls_chain_next returns the next certificate, which is
 * good until the next call, or NULL at the end, or call tls_chain_end before it.
 */
struct tls_chain {
	gnutls_x509_crt_t crt;
	unsigned place; /* number of the next one, 0 is the server's own */
	bool trusted;   /* crt is one of ours, and not to be freed */
};
gnutls_x509_crt_t tls_chain_next(struct tls_chain *c, const struct tls *t);
void tls_chain_end(struct tls_chain *c);

/*
 * A revocation list that is not of today, of an authority in the server's chain that has no better
 * one; or NULL.
 */
gnutls_x509_crl_t tls_find_stale_crl(const struct tls *t);

#endif
