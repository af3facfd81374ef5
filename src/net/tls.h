/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tls: a TLS client session over a connected descriptor, by GnuTLS: credentials, verification, bytes
 * in and out, and at the end the keys of the record layer for the kernel (ktls). Never falls back to
 * anything weaker; knows nothing of NBD.
 */
#ifndef NBD_ATTACH_TLS_H
#define NBD_ATTACH_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "policy/settings.h"

/*
 * Takes the files of a directory laid out as libnbd, nbdkit and qemu do: ca-cert.pem, which must be
 * there, ca-crl.pem, and client-cert.pem with client-key.pem. Those that p has already stay.
 */
int tls_use_directory(struct tls_params *p, const char *dir, struct err *e);

struct tls;

/*
 * Loads the credentials, so that a mistake in them is found before anybody is contacted.
 * ERR_TLS, or ERR_USAGE for options that contradict each other, a key file that others can read
 * or a bad priority string; *t is the caller's, for tls_free.
 */
int tls_new(struct tls **t, const struct tls_params *p, struct err *e);

/*
 * One more session with the credentials of like, which are neither read nor checked again; like must outlive it.
 * Its own handshake is still to come.
 */
int tls_again(struct tls **t, const struct tls *like, struct err *e);

/* Ends the session without a word (tls_bye says it) and wipes its keys. The descriptor stays open. */
void tls_free(struct tls *t);

/*
 * The handshake over fd (non-blocking, not owned): 0 when it is done and the server is whom it should be, -EAGAIN
 * when fd has to become ready (tls_wants_write tells for what), or another -errno: each reason has its own
 * text (not trusted, expired with the date, wrong name with those it has, key refused, no common cipher).
 */
int tls_handshake(struct tls *t, int fd, struct err *e);
bool tls_wants_write(const struct tls *t);

/*
 * As send(2) and recv(2) with -errno: -EAGAIN as above, 0 for the end (recv). Messages of the handshake that arrive
 * later (tickets) are taken care of.
 */
ssize_t tls_send(struct tls *t, const void *buf, size_t len);
ssize_t tls_recv(struct tls *t, void *buf, size_t len);

/*
 * Why tls_send or tls_recv has failed, or the server has ended the session where it should not have:
 * an error of kind ERR_TLS. In TLS 1.3 a server refuses our certificate or key only then.
 */
int tls_failure(const struct tls *t, struct err *e);

/* Bytes that are decrypted and not yet taken. */
size_t tls_pending(const struct tls *t);

/*
 * From here on the session reads and writes memory, so that many records are one call: tls_fill
 * puts what fd has there, tls_flush sends what has been made. There is always room for as much as the
 * network sends at once; tls_room is what tls_send takes now, at most twice size. 0 or -ENOMEM.
 */
int tls_detach_io(struct tls *t, size_t size);

/* 0, or -errno: -ECONNRESET also for an end of file. Nothing to be had or sent now is no error. */
int tls_fill(struct tls *t, int fd);
int tls_flush(struct tls *t, int fd);

/* Bytes of records that wait for tls_flush; bytes of plain data that tls_send has room for. */
size_t tls_unsent(const struct tls *t);
size_t tls_room(const struct tls *t);

/* Says goodbye (close_notify), as far as fd takes it at once. */
void tls_bye(struct tls *t);

/* "TLS1.3", "AES-128-GCM", and the server's certificate's name or "pre-shared key"; escaped. */
struct tls_info {
	char version[16];
	char cipher[32];
	char peer[256];
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
	uint8_t seq[8]; /* of the next record, big-endian */
};

/* Of what we send, or (receive) of what we get. -EOPNOTSUPP for a cipher that is none of the above. */
int tls_get_keys(const struct tls *t, bool receive, struct tls_keys *k, struct err *e);

#endif
