/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * tls_internal: the structs that the files net/tls*.c share, and their GnuTLS types. Nobody else
 * includes it.
 */
#ifndef NBD_ATTACH_TLS_INTERNAL_H
#define NBD_ATTACH_TLS_INTERNAL_H

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stddef.h>
#include <stdint.h>

#include "policy/settings.h"

/* Either psk is there, or x509 with its revocation lists. */
struct tls_creds {
	struct tls_params params;
	gnutls_priority_t priority;
	gnutls_certificate_credentials_t x509;
	gnutls_psk_client_credentials_t psk;
	gnutls_x509_crl_t *crls;
	unsigned crl_count;
};

/* Records in memory: len bytes from off on. */
struct tls_buffer {
	uint8_t *data;
	size_t off, len, cap;
};

struct tls {
	const struct tls_creds *creds;
	gnutls_session_t session;
	unsigned warnings;         /* alerts of that level in the handshake */
	int failure;               /* first error of gnutls_record_send or _recv, 0: none */
	unsigned verdict;          /* GNUTLS_CERT_ flags on the server's certificate */
	struct tls_buffer in, out; /* records, after tls_detach_io */
};

#endif
