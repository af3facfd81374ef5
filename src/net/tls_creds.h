/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * tls_creds: what TLS sessions are made of, loaded once and shared by all of them: authorities,
 * revocation lists, our certificate and its key (files or a PKCS#11 token) or a pre-shared key, and
 * the allowed ciphers. Finds every mistake in them before anybody is contacted. Never talks to a
 * server.
 */
#ifndef NBD_ATTACH_TLS_CREDS_H
#define NBD_ATTACH_TLS_CREDS_H

#include "base/err.h"
#include "policy/settings.h"

struct tls_creds;

/*
 * Takes the files of a directory laid out as libnbd, nbdkit and qemu do: ca-cert.pem, which must be
 * there, ca-crl.pem, and client-cert.pem with client-key.pem. Those that p has already stay.
 */
int tls_use_directory(struct tls_params *p, const char *dir, struct err *e);

/*
 * Loads what p names. Errors are ERR_TLS, or ERR_USAGE for options that contradict each other, more
 * than one user in a key file, or a bad priority string; a secret that others can read is an error.
 * *creds is the caller's, for tls_creds_free; NULL after an error.
 */
int tls_creds_load(struct tls_creds **creds, const struct tls_params *p, struct err *e);

/* No session may be left that was made of them. NULL is allowed. */
void tls_creds_free(struct tls_creds *creds);

#endif
