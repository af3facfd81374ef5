/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * tls: a TLS client session over a connected descriptor, by GnuTLS: handshake, bytes in and out,
 * and at the end the keys of the record layer for the kernel (ktls). Never falls back to anything
 * weaker, and knows nothing of NBD.
 */
#ifndef NBD_ATTACH_TLS_H
#define NBD_ATTACH_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

struct tls_creds;
struct tls;

/*
 * Makes a session with these credentials, which must outlive it. *t is the caller's, for tls_free;
 * NULL after an error.
 */
int tls_new(struct tls **t, const struct tls_creds *creds, struct err *e);

/*
 * Ends the session without a word (tls_bye says it) and wipes its keys. Its descriptor stays
 * open.
 */
void tls_free(struct tls *t);

/*
 * Goes on with the handshake over fd, which is non-blocking and stays the caller's. 0: it is done
 * and the server is the expected one. -EAGAIN: fd has to become ready (tls_wants_write). Any
 * other -errno has a text of its own: not trusted, expired with the date, wrong name with the
 * right ones, key refused, no common cipher.
 */
int tls_handshake(struct tls *t, int fd, struct err *e);
bool tls_wants_write(const struct tls *t);

/*
 * As send(2) and recv(2), but with -errno: -EAGAIN as above, 0 for the end (recv). Both take care
 * of handshake messages that arrive later (tickets).
 */
ssize_t tls_send(struct tls *t, const void *buf, size_t len);
ssize_t tls_recv(struct tls *t, void *buf, size_t len);

/*
 * Says why tls_send or tls_recv has failed, or why the server may have ended the session where it
 * should not have. ERR_TLS; returns -e->code. In TLS 1.3 a server refuses our certificate or key
 * only then.
 */
int tls_failure(const struct tls *t, struct err *e);

/* Bytes that are decrypted and not yet taken. */
size_t tls_pending(const struct tls *t);

/*
 * From here on the session reads and writes memory, so that many records are one call: tls_fill
 * receives what fd has, tls_flush sends what has been made. There is always room for as much as the
 * network sends at once; tls_room is what tls_send takes now, at most twice size. 0 or -ENOMEM.
 */
int tls_detach_io(struct tls *t, size_t size);

/* 0, or -errno: -ECONNRESET also for an end of file. No error where nothing can be moved now. */
int tls_fill(struct tls *t, int fd);
int tls_flush(struct tls *t, int fd);

/* Bytes of records that wait for tls_flush; bytes of plain data that tls_send has room for. */
size_t tls_unsent(const struct tls *t);
size_t tls_room(const struct tls *t);

/* Says goodbye (close_notify), as far as fd takes it at once. */
void tls_bye(struct tls *t);

struct tls_info {
	char version[16]; /* "TLS1.3" */
	char cipher[32];  /* "AES-128-GCM" */
	char peer[256];   /* names in the server's certificate, escaped, or "pre-shared key" */
};
void tls_describe(const struct tls *t, struct tls_info *i);

enum tls_cipher {
	TLS_AES_128_GCM,
	TLS_AES_256_GCM,
	TLS_CHACHA20_POLY1305,
};

/* State of the record layer in one direction. Wipe it (explicit_bzero) after use. */
struct tls_keys {
	bool tls13; /* else TLS 1.2 */
	enum tls_cipher cipher;
	uint8_t key[32];
	size_t key_len;
	uint8_t iv[12];
	size_t iv_len;  /* 4 (TLS 1.2 with GCM: the implicit part) or 12 */
	uint8_t seq[8]; /* number of the next record, big-endian */
};

/*
 * The keys to send with, or (receive) to receive with. -EOPNOTSUPP for a cipher that is none of
 * ours.
 */
int tls_get_keys(const struct tls *t, bool receive, struct tls_keys *k, struct err *e);

#endif
