/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tls_params: what the user says of TLS, as one flat struct. Never reads a file, as tls_creds does.
 */
#ifndef NBD_ATTACH_TLS_PARAMS_H
#define NBD_ATTACH_TLS_PARAMS_H

#include <stdbool.h>

enum {
	TLS_PATH_MAX = 1023,
	TLS_NAME_MAX = 255,
	TLS_PRIORITY_MAX = 511,
};

/* What the user wants, flat. Texts are "" when not given. */
struct tls_params {
	bool no_verify;             /* take any certificate: no protection against a false server */
	char ca[TLS_PATH_MAX + 1];  /* PEM file of authorities; "": the system's */
	char crl[TLS_PATH_MAX + 1]; /* PEM file of revoked certificates, which must be of today */
	/* Our certificate and its key, each a PEM file or a PKCS#11 URI. */
	char cert[TLS_PATH_MAX + 1];
	char key[TLS_PATH_MAX + 1];
	/* Lines "user:hexadecimal key": a pre-shared key instead of certificates. */
	char psk_file[TLS_PATH_MAX + 1];
	char psk_user[TLS_NAME_MAX + 1];     /* a user in psk_file; "": the only one */
	char hostname[TLS_NAME_MAX + 1];     /* expected of the server's certificate */
	char priority[TLS_PRIORITY_MAX + 1]; /* GnuTLS priority string instead of the system's */
};

#endif
