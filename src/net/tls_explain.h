/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * tls_explain: turns a handshake or a session that has failed into an error that says why, with the
 * names, dates and options that help. Decides nothing. For net/tls*.c only.
 */
#ifndef NBD_ATTACH_TLS_EXPLAIN_H
#define NBD_ATTACH_TLS_EXPLAIN_H

#include <stddef.h>

#include "base/err.h"
#include "net/tls_internal.h"

/* What code of gnutls_handshake means. ERR_TLS; returns -e->code. */
int tls_explain_handshake(const struct tls *t, int code, struct err *e);

/* Why the session has ended after its handshake: t->failure, or 0 for an end without a word. */
int tls_explain_end(const struct tls *t, struct err *e);

/* The names a certificate is for, escaped, separated by commas; "" for none. */
void tls_list_names(gnutls_x509_crt_t crt, char *buf, size_t cap);

#endif
