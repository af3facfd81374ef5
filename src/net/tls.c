/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "net/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "net/tls_explain.h"
#include "net/tls_internal.h"
#include "net/tls_verify.h"

/* A handshake with more alerts of that level fails. */
enum { WARNINGS_MAX = 8 };

static bool is_ip_address(const char *host)
{
	struct in6_addr a;

	return inet_pton(AF_INET, host, &a) == 1 || inet_pton(AF_INET6, host, &a) == 1;
}

static int start_session(struct tls *t, struct err *e)
{
	const struct tls_creds *c = t->creds;
	const char *hostname = c->params.hostname;
	int code;

	/* No tickets: one would end a connection of the kernel, and we resume nothing. */
	code = gnutls_init(&t->session,
			   GNUTLS_CLIENT | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL | GNUTLS_NO_TICKETS);
	if (code)
		return err_sys(e, ERR_FAILED, ENOMEM, "TLS");
	gnutls_session_set_ptr(t->session, t);
	code = gnutls_priority_set(t->session, c->priority);
	if (!code)
		code = c->psk ? gnutls_credentials_set(t->session, GNUTLS_CRD_PSK, c->psk) :
				gnutls_credentials_set(t->session, GNUTLS_CRD_CERTIFICATE, c->x509);
	if (!c->psk && !c->params.no_verify)
		gnutls_session_set_verify_function(t->session, tls_verify);
	/* RFC 6066: not for addresses. */
	if (!code && hostname[0] && !is_ip_address(hostname))
		code = gnutls_server_name_set(t->session, GNUTLS_NAME_DNS, hostname,
					      strlen(hostname));
	if (code)
		return err_set(e, ERR_TLS, EINVAL, "TLS: %s", gnutls_strerror(code));
	return 0;
}

int tls_new(struct tls **out, const struct tls_creds *creds, struct err *e)
{
	struct tls *t = calloc(1, sizeof(*t));
	int ret;

	*out = NULL;
	if (!t)
		return err_sys(e, ERR_FAILED, ENOMEM, "TLS");
	t->creds = creds;
	ret = start_session(t, e);
	if (ret)
		tls_free(t);
	else
		*out = t;
	return ret;
}

void tls_free(struct tls *t)
{
	if (!t)
		return;
	if (t->session)
		gnutls_deinit(t->session);
	free(t->in.data);
	free(t->out.data);
	explicit_bzero(t, sizeof(*t));
	free(t);
}

int tls_handshake(struct tls *t, int fd, struct err *e)
{
	gnutls_credentials_type_t wanted = t->creds->psk ? GNUTLS_CRD_PSK : GNUTLS_CRD_CERTIFICATE;
	int code;

	gnutls_transport_set_int(t->session, fd);
	/* Warnings without end must not keep us from the caller's deadline. */
	while ((code = gnutls_handshake(t->session)) == GNUTLS_E_INTERRUPTED ||
	       code == GNUTLS_E_WARNING_ALERT_RECEIVED || code == GNUTLS_E_GOT_APPLICATION_DATA)
		if (++t->warnings > WARNINGS_MAX)
			return err_set(e, ERR_TLS, EPROTO,
				       "the server sends warnings instead of a TLS handshake");
	if (code == GNUTLS_E_AGAIN)
		return -EAGAIN;
	if (code) {
		/* Tells the server, for its log, as far as it can be sent at once. */
		if (code != GNUTLS_E_FATAL_ALERT_RECEIVED)
			gnutls_alert_send_appropriate(t->session, code);
		return tls_explain_handshake(t, code, e);
	}
	/* GnuTLS sees to it, but a session without the right proof must never come through. */
	if (gnutls_auth_server_get_type(t->session) != wanted)
		return err_set(e, ERR_TLS, EACCES, "the server has not proved that it %s",
			       t->creds->psk ? "knows the pre-shared key" : "has a certificate");
	return 0;
}

bool tls_wants_write(const struct tls *t)
{
	return gnutls_record_get_direction(t->session);
}

static ssize_t count_or_error(struct tls *t, ssize_t n)
{
	if (n >= 0)
		return n;
	if (n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED)
		return -EAGAIN;
	/* NBD says its own goodbye: an end without close_notify is an end all the same. */
	if (n == GNUTLS_E_PREMATURE_TERMINATION)
		return 0;
	if (!t->failure)
		t->failure = (int)n;
	return n == GNUTLS_E_PULL_ERROR || n == GNUTLS_E_PUSH_ERROR ? -ECONNRESET : -EPROTO;
}

ssize_t tls_send(struct tls *t, const void *buf, size_t len)
{
	return count_or_error(t, gnutls_record_send(t->session, buf, len));
}

ssize_t tls_recv(struct tls *t, void *buf, size_t len)
{
	size_t before;
	ssize_t n;

	/*
	 * A ticket or new keys are "again" to GnuTLS, and no poll() wakes for what has been read
	 * beyond them.
	 */
	do {
		before = t->in.len;
		n = gnutls_record_recv(t->session, buf, len);
	} while (n == GNUTLS_E_AGAIN && t->in.len && t->in.len < before);
	return count_or_error(t, n);
}

int tls_failure(const struct tls *t, struct err *e)
{
	return tls_explain_end(t, e);
}

size_t tls_pending(const struct tls *t)
{
	return gnutls_record_check_pending(t->session);
}

static void compact_buffer(struct tls_buffer *b)
{
	if (b->off)
		memmove(b->data, b->data + b->off, b->len);
	b->off = 0;
}

static ssize_t pull_records(gnutls_transport_ptr_t p, void *buf, size_t len)
{
	struct tls *t = p;
	struct tls_buffer *b = &t->in;

	if (!b->len) {
		gnutls_transport_set_errno(t->session, EAGAIN);
		return -1;
	}
	if (len > b->len)
		len = b->len;
	memcpy(buf, b->data + b->off, len);
	b->off += len;
	b->len -= len;
	return (ssize_t)len;
}

static ssize_t push_records(gnutls_transport_ptr_t p, const void *buf, size_t len)
{
	struct tls *t = p;
	struct tls_buffer *b = &t->out;

	compact_buffer(b);
	if (len > b->cap - b->len)
		len = b->cap - b->len;
	if (!len) {
		gnutls_transport_set_errno(t->session, EAGAIN);
		return -1;
	}
	memcpy(b->data + b->len, buf, len);
	b->len += len;
	return (ssize_t)len;
}

/* A record of 16 KiB grows by 5 + 8 + 16 bytes at most (TLS 1.2), by 5 + 1 + 16 in TLS 1.3. */
enum { RECORD = 16384, RECORD_OVERHEAD = 64 };

int tls_detach_io(struct tls *t, size_t size)
{
	size_t cap = 2 * size + 2 * (size / RECORD + 2) * RECORD_OVERHEAD;

	t->in.data = malloc(cap);
	t->out.data = malloc(cap);
	if (!t->in.data || !t->out.data)
		return -ENOMEM;
	t->in.cap = t->out.cap = cap;
	gnutls_transport_set_ptr(t->session, t);
	gnutls_transport_set_pull_function(t->session, pull_records);
	gnutls_transport_set_push_function(t->session, push_records);
	return 0;
}

int tls_fill(struct tls *t, int fd)
{
	struct tls_buffer *b = &t->in;
	ssize_t n;

	compact_buffer(b);
	if (b->len == b->cap)
		return 0;
	n = recv(fd, b->data + b->len, b->cap - b->len, MSG_DONTWAIT);
	if (n > 0)
		b->len += (size_t)n;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	return n > 0 ? 0 : n < 0 ? -errno : -ECONNRESET;
}

int tls_flush(struct tls *t, int fd)
{
	struct tls_buffer *b = &t->out;
	ssize_t n = send(fd, b->data + b->off, b->len, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n >= 0) {
		b->off += (size_t)n;
		b->len -= (size_t)n;
		return 0;
	}
	return errno == EAGAIN || errno == EINTR ? 0 : -errno;
}

size_t tls_unsent(const struct tls *t)
{
	return t->out.len;
}

size_t tls_room(const struct tls *t)
{
	size_t left = t->out.cap - t->out.len;
	size_t records = left / (RECORD + RECORD_OVERHEAD) + 1;

	return left > records * RECORD_OVERHEAD ? left - records * RECORD_OVERHEAD : 0;
}

void tls_bye(struct tls *t)
{
	gnutls_bye(t->session, GNUTLS_SHUT_WR);
}

void tls_describe(const struct tls *t, struct tls_info *i)
{
	gnutls_x509_crt_t crt = t->creds->psk ? NULL : tls_peer_certificate(t);

	memset(i, 0, sizeof(*i));
	snprintf(i->version, sizeof(i->version), "%s",
		 gnutls_protocol_get_name(gnutls_protocol_get_version(t->session)));
	snprintf(i->cipher, sizeof(i->cipher), "%s",
		 gnutls_cipher_get_name(gnutls_cipher_get(t->session)));
	if (t->creds->psk)
		snprintf(i->peer, sizeof(i->peer), "pre-shared key");
	if (crt) {
		tls_list_names(crt, i->peer, sizeof(i->peer));
		gnutls_x509_crt_deinit(crt);
	}
}

int tls_get_keys(const struct tls *t, bool receive, struct tls_keys *k, struct err *e)
{
	static const struct {
		gnutls_cipher_algorithm_t gnutls;
		enum tls_cipher cipher;
	} ciphers[] = {
		{ GNUTLS_CIPHER_AES_128_GCM, TLS_AES_128_GCM },
		{ GNUTLS_CIPHER_AES_256_GCM, TLS_AES_256_GCM },
		{ GNUTLS_CIPHER_CHACHA20_POLY1305, TLS_CHACHA20_POLY1305 },
	};
	gnutls_cipher_algorithm_t cipher = gnutls_cipher_get(t->session);
	gnutls_protocol_t version = gnutls_protocol_get_version(t->session);
	gnutls_datum_t mac, iv, key;
	size_t i, count = sizeof(ciphers) / sizeof(ciphers[0]);
	int code;

	memset(k, 0, sizeof(*k));
	for (i = 0; i < count && ciphers[i].gnutls != cipher; i++)
		;
	if (i == count || (version != GNUTLS_TLS1_2 && version != GNUTLS_TLS1_3))
		return err_set(e, ERR_TLS, EOPNOTSUPP, "%s with %s is not for the kernel",
			       gnutls_protocol_get_name(version), gnutls_cipher_get_name(cipher));
	k->tls13 = version == GNUTLS_TLS1_3;
	k->cipher = ciphers[i].cipher;
	code = gnutls_record_get_state(t->session, receive, &mac, &iv, &key, k->seq);
	if (code || key.size > sizeof(k->key) || iv.size > sizeof(k->iv))
		return err_set(e, ERR_TLS, EPROTO, "state of the TLS record layer: %s",
			       code ? gnutls_strerror(code) : "sizes");
	memcpy(k->key, key.data, key.size);
	k->key_len = key.size;
	memcpy(k->iv, iv.data, iv.size);
	k->iv_len = iv.size;
	return 0;
}
