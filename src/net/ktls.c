/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "net/ktls.h"

#include <errno.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef SOL_TLS
#define SOL_TLS 282
#endif

/* The structs of the kernel for its ciphers, which all begin alike. */
union crypto_info {
	struct tls_crypto_info info;
	struct tls12_crypto_info_aes_gcm_128 aes_128_gcm;
	struct tls12_crypto_info_aes_gcm_256 aes_256_gcm;
	struct tls12_crypto_info_chacha20_poly1305 chacha20;
};

static const char ulp[] = "tls";

bool ktls_available(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool there;

	/* net/ipv4/tcp_ulp.c looks for the protocol first, then tls_init for a connection. */
	there = fd >= 0 && setsockopt(fd, IPPROTO_TCP, TCP_ULP, ulp, sizeof(ulp)) &&
		errno == ENOTCONN;
	if (fd >= 0)
		close(fd);
	return there;
}

/* RFC 8446 5.3: salt and IV are one nonce; RFC 5288 (TLS 1.2): the explicit part is the number. */
static void fill_gcm(const struct tls_keys *k, unsigned char *salt, unsigned char *iv,
		     unsigned char *key, unsigned char *seq)
{
	memcpy(salt, k->iv, TLS_CIPHER_AES_GCM_128_SALT_SIZE);
	if (k->tls13)
		memcpy(iv, k->iv + TLS_CIPHER_AES_GCM_128_SALT_SIZE,
		       TLS_CIPHER_AES_GCM_128_IV_SIZE);
	else
		memcpy(iv, k->seq, TLS_CIPHER_AES_GCM_128_IV_SIZE);
	memcpy(key, k->key, k->key_len);
	memcpy(seq, k->seq, sizeof(k->seq));
}

/* Returns the length of the struct that was filled, 0 for keys that do not fit it. */
static socklen_t fill_crypto_info(const struct tls_keys *k, union crypto_info *c)
{
	size_t iv_len = k->tls13 ? 12 : 4;

	memset(c, 0, sizeof(*c));
	c->info.version = k->tls13 ? TLS_1_3_VERSION : TLS_1_2_VERSION;
	switch (k->cipher) {
	case TLS_AES_128_GCM:
		if (k->key_len != sizeof(c->aes_128_gcm.key) || k->iv_len < iv_len)
			return 0;
		c->info.cipher_type = TLS_CIPHER_AES_GCM_128;
		fill_gcm(k, c->aes_128_gcm.salt, c->aes_128_gcm.iv, c->aes_128_gcm.key,
			 c->aes_128_gcm.rec_seq);
		return sizeof(c->aes_128_gcm);
	case TLS_AES_256_GCM:
		if (k->key_len != sizeof(c->aes_256_gcm.key) || k->iv_len < iv_len)
			return 0;
		c->info.cipher_type = TLS_CIPHER_AES_GCM_256;
		fill_gcm(k, c->aes_256_gcm.salt, c->aes_256_gcm.iv, c->aes_256_gcm.key,
			 c->aes_256_gcm.rec_seq);
		return sizeof(c->aes_256_gcm);
	case TLS_CHACHA20_POLY1305:
		if (k->key_len != sizeof(c->chacha20.key) || k->iv_len != sizeof(c->chacha20.iv))
			return 0;
		c->info.cipher_type = TLS_CIPHER_CHACHA20_POLY1305;
		memcpy(c->chacha20.iv, k->iv, sizeof(c->chacha20.iv));
		memcpy(c->chacha20.key, k->key, sizeof(c->chacha20.key));
		memcpy(c->chacha20.rec_seq, k->seq, sizeof(c->chacha20.rec_seq));
		return sizeof(c->chacha20);
	}
	return 0;
}

/* Finds the key in what the kernel gives back. */
static const unsigned char *kernel_key(const struct tls_keys *k, const union crypto_info *c)
{
	switch (k->cipher) {
	case TLS_AES_128_GCM:
		return c->aes_128_gcm.key;
	case TLS_AES_256_GCM:
		return c->aes_256_gcm.key;
	default:
		return c->chacha20.key;
	}
}

/* *taken: the kernel has keys, whatever the result. */
static int give_keys(int fd, const struct tls *t, bool receive, bool *taken, struct err *e)
{
	int direction = receive ? TLS_RX : TLS_TX;
	union crypto_info info, got;
	socklen_t len, got_len;
	struct tls_keys keys;
	int ret;

	ret = tls_get_keys(t, receive, &keys, e);
	if (ret)
		goto out;
	len = got_len = fill_crypto_info(&keys, &info);
	if (!len) {
		ret = err_set(e, ERR_TLS, EOPNOTSUPP, "kernel TLS: keys of an unexpected size");
		goto out;
	}
	got.info = info.info;
	*taken = !setsockopt(fd, SOL_TLS, direction, &info, len);
	if (!*taken)
		ret = err_sys(e, ERR_TLS, errno, "kernel TLS: %s keys",
			      receive ? "receive" : "send");
	/* The kernel must say that it has what it was given. */
	else if (getsockopt(fd, SOL_TLS, direction, &got, &got_len) || got_len != len ||
		 got.info.cipher_type != info.info.cipher_type ||
		 memcmp(kernel_key(&keys, &got), keys.key, keys.key_len))
		ret = err_set(e, ERR_TLS, EPROTO,
			      "kernel TLS: the kernel has not taken the %s keys",
			      receive ? "receive" : "send");
out:
	explicit_bzero(&keys, sizeof(keys));
	explicit_bzero(&info, sizeof(info));
	explicit_bzero(&got, sizeof(got));
	return ret;
}

int ktls_enable(int fd, const struct tls *t, struct err *e)
{
	struct tls_keys probe;
	bool taken = false;
	int ret;

	/* Does the kernel have the cipher? Asked before anything is done to the socket. */
	ret = tls_get_keys(t, false, &probe, e);
	explicit_bzero(&probe, sizeof(probe));
	if (ret)
		return ret;
	if (setsockopt(fd, IPPROTO_TCP, TCP_ULP, ulp, sizeof(ulp)))
		return err_set(e, ERR_TLS, EOPNOTSUPP, "kernel TLS: %s",
			       errno == ENOENT ? "the kernel has no module tls" :
						 "only TCP connections can have it");
	/* Without keys the socket is as before: a cipher that the kernel lacks is no harm. */
	ret = give_keys(fd, t, false, &taken, e);
	if (ret)
		return -(e->code = taken ? EPROTO : EOPNOTSUPP);
	ret = give_keys(fd, t, true, &taken, e);
	if (ret)
		return -(e->code = EPROTO);
	return 0;
}
