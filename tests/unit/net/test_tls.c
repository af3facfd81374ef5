/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * Sessions with a server in the same process, over a socket pair: bytes, ends, and what comes out
 * for the kernel. Each with TLS 1.2 and 1.3.
 */
#include "net/tls.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../tlstalk.h"
#include "../unit.h"

/* --- our credentials -------------------------------------------------------------------------- */

static const struct talk_case cases[] = {
	{ .name = "a server with tickets",
	  .params = { X509 },
	  .cert = SERVER,
	  .tickets = true,
	  .peer = "server.example, alt.example, 127.0.0.1, ::1" },
	{ .name = "our certificate",
	  .cert = SERVER,
	  .client_ca = CA,
	  .params = { X509, .cert = "client.pem", .key = "client-key.pem" },
	  .peer = "server.example, alt.example, 127.0.0.1, ::1" },
	{ .name = "our certificate, which nobody wants",
	  .cert = SERVER,
	  .params = { X509, .cert = "client.pem", .key = "client-key.pem" },
	  .peer = "server.example, alt.example, 127.0.0.1, ::1" },
	{ .name = "key",
	  .params = { .psk_file = "one.psk" },
	  .psk_file = "one.psk",
	  .priority = "NORMAL" ALL_PSK,
	  .peer = "pre-shared key" },
	{ .name = "key, an expected name makes no difference",
	  .params = { .psk_file = "one.psk", .hostname = "wrong.example" },
	  .psk_file = "one.psk",
	  .peer = "pre-shared key" },
	{ .name = "key, user chosen",
	  .params = { .psk_file = "many.psk", .psk_user = "alice" },
	  .psk_file = "one.psk",
	  .peer = "pre-shared key" },
	{ .name = "key, file for the group",
	  .params = { .psk_file = "group.psk" },
	  .psk_file = "one.psk",
	  .peer = "pre-shared key" },
	{ .name = "key, the server has a certificate too",
	  .params = { .psk_file = "one.psk" },
	  .psk_file = "one.psk",
	  .cert = SERVER,
	  .peer = "pre-shared key" },
	{ .name = "key, a server with tickets",
	  .params = { .psk_file = "one.psk" },
	  .psk_file = "one.psk",
	  .tickets = true,
	  .peer = "pre-shared key" },
};

START_TEST(accepted)
{
	talk_check(&cases[(size_t)_i / 2], _i % 2);
}
END_TEST

START_TEST(nothing_to_free)
{
	tls_free(NULL);
}
END_TEST

/* --- handshakes that somebody disturbs -------------------------------------------------------- */

/* Nobody is kept busy by warnings, for which there would be no deadline. */
START_TEST(warnings_without_end)
{
	static const unsigned char record[] = { 0x15, 3, 3, 0, 2, 1, 90 };
	struct tls_params params = { X509 };
	struct peer_spec spec = { .cert = &talk_certs[SERVER] };
	struct talk k;
	int fed = 0;

	talk_begin(&k, &params, &spec);
	ck_assert_int_eq(tls_handshake(k.t, k.fd, &k.e), -EAGAIN);
	do {
		for (int i = 0; i < 20; i++, fed++)
			ck_assert_int_eq(write(k.p.fd, record, sizeof(record)), sizeof(record));
		k.ret = tls_handshake(k.t, k.fd, &k.e);
	} while (k.ret == -EAGAIN && fed < 10000);
	ck_assert_int_eq(k.ret, -EPROTO);
	ck_assert_int_lt(fed, 1000);
	ck_assert_int_eq(k.e.kind, ERR_TLS);
	talk_check_text(&k.e, (const char *const[]){ "warnings" }, 1);
	talk_finish(&k);
}
END_TEST

/* The handshake cut off at each of the server's bytes ends. */
START_TEST(cut_off)
{
	struct tls_params params = { X509 };
	struct peer_spec spec = {
		.cert = &talk_certs[SERVER],
		.priority = talk_versions[_i],
	};
	size_t step = getenv("UNIT_STRIDE") ? strtoul(getenv("UNIT_STRIDE"), NULL, 10) : 1;
	unsigned char flight[8192];
	ssize_t len;
	struct talk k;

	for (size_t cut = 0;; cut += step) {
		talk_begin(&k, &params, &spec);
		ck_assert_int_eq(tls_handshake(k.t, k.fd, &k.e), -EAGAIN);
		peer_step(&k.p);
		len = recv(k.fd, flight, sizeof(flight), 0);
		ck_assert_int_gt(len, 500);
		if (cut > (size_t)len) {
			talk_finish(&k);
			return;
		}
		ck_assert_int_eq(send(k.p.fd, flight, cut, 0), (ssize_t)cut);
		shutdown(k.p.fd, SHUT_WR);
		k.ret = tls_handshake(k.t, k.fd, &k.e);
		if (_i == 0 || cut < (size_t)len) {
			if (k.ret == -EAGAIN)
				k.ret = tls_handshake(k.t, k.fd, &k.e);
			ck_assert_int_eq(k.ret, -ECONNRESET);
			ck_assert_int_eq(k.e.kind, ERR_TLS);
		}
		talk_finish(&k);
	}
}
END_TEST

/* Nor is a byte taken that somebody has changed. */
START_TEST(changed)
{
	struct tls_params params = { X509 };
	struct peer_spec spec = {
		.cert = &talk_certs[SERVER],
		.priority = talk_versions[_i],
	};
	size_t step = getenv("UNIT_STRIDE") ? strtoul(getenv("UNIT_STRIDE"), NULL, 10) : 7;
	unsigned char flight[8192];
	ssize_t len;
	struct talk k;

	for (size_t at = 0;; at += step) {
		talk_begin(&k, &params, &spec);
		ck_assert_int_eq(tls_handshake(k.t, k.fd, &k.e), -EAGAIN);
		peer_step(&k.p);
		len = recv(k.fd, flight, sizeof(flight), 0);
		ck_assert_int_gt(len, 500);
		if (at >= (size_t)len) {
			talk_finish(&k);
			return;
		}
		flight[at] ^= 0x41;
		ck_assert_int_eq(send(k.p.fd, flight, (size_t)len, 0), len);
		shutdown(k.p.fd, SHUT_WR);
		talk_handshake(&k);
		ck_assert_msg(k.ret < 0, "byte %zu of %zd", at, len);
		ck_assert_int_eq(k.e.kind, ERR_TLS);
		talk_finish(&k);
	}
}
END_TEST

/* --- data ------------------------------------------------------------------------------------- */

static void start(struct talk *k, const char *priority)
{
	struct tls_params params = { X509 };
	struct peer_spec spec = { .cert = &talk_certs[SERVER], .priority = priority };

	ck_assert_uint_lt(strlen(priority), sizeof(params.priority));
	strcpy(params.priority, priority);
	talk_begin(k, &params, &spec);
	talk_handshake(k);
	ck_assert_msg(!k->ret && !k->p.result, "%s: %s", k->e.text, gnutls_strerror(k->p.result));
}

START_TEST(data_both_ways)
{
	enum { SIZE = 1 << 20 };
	char *data = malloc(SIZE), *got = malloc(SIZE);
	struct talk k;

	ck_assert(data && got);
	for (size_t i = 0; i < SIZE; i++)
		data[i] = (char)(i * 7 + (i >> 8));
	start(&k, talk_versions[_i]);
	talk_send(&k, data, SIZE, got);
	ck_assert(!memcmp(data, got, SIZE));
	memset(got, 0, SIZE);
	talk_receive(&k, data, SIZE, got);
	ck_assert(!memcmp(data, got, SIZE));
	talk_finish(&k);
	free(data);
	free(got);
}
END_TEST

/* A full socket is said to be one, and what is wanted then is to write. */
START_TEST(full_socket)
{
	static char data[8192], got[8192];
	struct talk k;
	size_t sent = 0, received = 0;
	ssize_t n;

	start(&k, talk_versions[_i]);
	while ((n = tls_send(k.t, data, sizeof(data))) > 0)
		sent += (size_t)n;
	ck_assert_int_eq(n, -EAGAIN);
	ck_assert(tls_wants_write(k.t));
	ck_assert_uint_gt(sent, 8192);
	/* the same bytes again, as send(2) wants it too */
	for (int i = 0; i < 1000 && received < sent + sizeof(data); i++) {
		if (n == -EAGAIN)
			n = tls_send(k.t, data, sizeof(data));
		ssize_t r = gnutls_record_recv(k.p.session, got, sizeof(got));

		received += r > 0 ? (size_t)r : 0;
	}
	ck_assert_int_eq(n, sizeof(data));
	ck_assert_uint_eq(received, sent + sizeof(data));
	talk_finish(&k);
}
END_TEST

START_TEST(pending_bytes)
{
	char got[8];
	struct talk k;

	start(&k, talk_versions[_i]);
	ck_assert_uint_eq(tls_pending(k.t), 0);
	ck_assert_int_eq(gnutls_record_send(k.p.session, "0123456789", 10), 10);
	ck_assert_int_eq(tls_recv(k.t, got, 4), 4);
	ck_assert_mem_eq(got, "0123", 4);
	ck_assert_uint_eq(tls_pending(k.t), 6);
	ck_assert_int_eq(tls_recv(k.t, got, 8), 6);
	ck_assert_uint_eq(tls_pending(k.t), 0);
	talk_finish(&k);
}
END_TEST

START_TEST(goodbye)
{
	char got[8];
	struct talk k;

	/* by us */
	start(&k, talk_versions[_i]);
	tls_bye(k.t);
	ck_assert_int_eq(gnutls_record_recv(k.p.session, got, sizeof(got)), 0);
	talk_finish(&k);
	/* by the server, with a word and without */
	start(&k, talk_versions[_i]);
	ck_assert_int_eq(gnutls_bye(k.p.session, GNUTLS_SHUT_WR), 0);
	ck_assert_int_eq(tls_recv(k.t, got, sizeof(got)), 0);
	talk_finish(&k);
	start(&k, talk_versions[_i]);
	shutdown(k.p.fd, SHUT_RDWR);
	ck_assert_int_eq(tls_recv(k.t, got, sizeof(got)), 0);
	talk_finish(&k);
	start(&k, talk_versions[_i]);
	shutdown(k.p.fd, SHUT_RDWR);
	ck_assert_int_eq(tls_send(k.t, got, sizeof(got)), -ECONNRESET);
	ck_assert_int_eq(tls_failure(k.t, &k.e), -ECONNRESET);
	talk_check_text(&k.e,
			(const char *const[]){ "closed the connection after the TLS handshake" },
			1);
	tls_bye(k.t);
	talk_finish(&k);
	/* an end that somebody has forged in plain text is an error */
	start(&k, talk_versions[_i]);
	ck_assert_int_eq(write(k.p.fd, "\x15\3\3\0\2\1\0", 7), 7);
	ck_assert_int_lt(tls_recv(k.t, got, sizeof(got)), 0);
	talk_finish(&k);
}
END_TEST

START_TEST(changed_data)
{
	unsigned char record[256];
	char got[64];
	struct talk k;
	ssize_t len;

	start(&k, talk_versions[_i]);
	ck_assert_int_eq(gnutls_record_send(k.p.session, "0123456789", 10), 10);
	len = recv(k.fd, record, sizeof(record), 0);
	ck_assert_int_gt(len, 10);
	record[len - 1] ^= 1;
	ck_assert_int_eq(send(k.p.fd, record, (size_t)len, 0), len);
	ck_assert_int_eq(tls_recv(k.t, got, sizeof(got)), -EPROTO);
	ck_assert_int_eq(tls_failure(k.t, &k.e), -EPROTO);
	ck_assert_int_eq(k.e.kind, ERR_TLS);
	talk_check_text(&k.e, (const char *const[]){ "somebody interferes" }, 1);
	talk_finish(&k);
}
END_TEST

/* New keys in the middle (TLS 1.3), by the other side: nothing is lost. */
START_TEST(key_update)
{
	char got[16];
	struct talk k;

	start(&k, talk_versions[1]);
	ck_assert_int_eq(gnutls_session_key_update(k.p.session, 0), 0);
	ck_assert_int_eq(gnutls_record_send(k.p.session, "after", 5), 5);
	for (int i = 0; i < 10 && (k.ret = (int)tls_recv(k.t, got, sizeof(got))) == -EAGAIN; i++)
		;
	ck_assert_int_eq(k.ret, 5);
	talk_exchange(&k);
	talk_finish(&k);
}
END_TEST

/* --- keys for the kernel ---------------------------------------------------------------------- */

static const struct {
	const char *priority;
	const char *version, *name;
	bool tls13;
	enum tls_cipher cipher;
	size_t key_len, iv_len;
} ciphers[] = {
	{ "NORMAL:-VERS-ALL:+VERS-TLS1.2:-CIPHER-ALL:+AES-128-GCM", "TLS1.2", "AES-128-GCM", false,
	  TLS_AES_128_GCM, 16, 4 },
	{ "NORMAL:-VERS-ALL:+VERS-TLS1.2:-CIPHER-ALL:+AES-256-GCM", "TLS1.2", "AES-256-GCM", false,
	  TLS_AES_256_GCM, 32, 4 },
	{ "NORMAL:-VERS-ALL:+VERS-TLS1.2:-CIPHER-ALL:+CHACHA20-POLY1305", "TLS1.2",
	  "CHACHA20-POLY1305", false, TLS_CHACHA20_POLY1305, 32, 12 },
	{ "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM", "TLS1.3", "AES-128-GCM", true,
	  TLS_AES_128_GCM, 16, 12 },
	{ "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-256-GCM", "TLS1.3", "AES-256-GCM", true,
	  TLS_AES_256_GCM, 32, 12 },
	{ "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+CHACHA20-POLY1305", "TLS1.3",
	  "CHACHA20-POLY1305", true, TLS_CHACHA20_POLY1305, 32, 12 },
};

static uint64_t number(const struct tls_keys *k)
{
	uint64_t n = 0;

	for (size_t i = 0; i < sizeof(k->seq); i++)
		n = n << 8 | k->seq[i];
	return n;
}

/* What we send with is what the server receives with, and so on. */
static void check_keys(const struct talk *k, bool receive, const struct tls_keys *mine, size_t i)
{
	gnutls_datum_t mac, iv, key;
	unsigned char seq[8];

	ck_assert_int_eq(gnutls_record_get_state(k->p.session, !receive, &mac, &iv, &key, seq), 0);
	ck_assert_int_eq(mine->tls13, ciphers[i].tls13);
	ck_assert_int_eq((int)mine->cipher, (int)ciphers[i].cipher);
	ck_assert_uint_eq(mine->key_len, ciphers[i].key_len);
	ck_assert_uint_eq(mine->iv_len, ciphers[i].iv_len);
	ck_assert_uint_eq(key.size, mine->key_len);
	ck_assert_mem_eq(key.data, mine->key, key.size);
	ck_assert_uint_eq(iv.size, mine->iv_len);
	ck_assert_mem_eq(iv.data, mine->iv, iv.size);
	ck_assert_mem_eq(seq, mine->seq, sizeof(seq));
}

START_TEST(keys_for_the_kernel)
{
	struct tls_keys tx, rx;
	struct tls_info info;
	struct talk k;
	char got[64];
	/* TLS 1.2: the last message of the handshake was under these keys already */
	uint64_t first = ciphers[_i].tls13 ? 0 : 1;

	start(&k, ciphers[_i].priority);
	tls_describe(k.t, &info);
	ck_assert_str_eq(info.version, ciphers[_i].version);
	ck_assert_str_eq(info.cipher, ciphers[_i].name);
	for (uint64_t n = 0; n < 3; n++) {
		ck_assert_int_eq(tls_get_keys(k.t, false, &tx, &k.e), 0);
		ck_assert_int_eq(tls_get_keys(k.t, true, &rx, &k.e), 0);
		check_keys(&k, false, &tx, (size_t)_i);
		check_keys(&k, true, &rx, (size_t)_i);
		ck_assert(memcmp(tx.key, rx.key, tx.key_len) != 0);
		ck_assert_uint_eq(number(&tx), first + n * 2);
		ck_assert_uint_eq(number(&rx), first + n);
		/* two records there, one back */
		talk_send(&k, "a", 1, got);
		talk_send(&k, "bc", 2, got);
		talk_receive(&k, "defg", 4, got);
	}
	talk_finish(&k);
}
END_TEST

static const char *const not_for_the_kernel[] = {
	"NORMAL:-VERS-ALL:+VERS-TLS1.2:-CIPHER-ALL:+AES-256-CBC",
	"NORMAL:-VERS-ALL:+VERS-TLS1.2:-CIPHER-ALL:+AES-128-CCM",
	"NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-CCM",
};

/* They are good enough to talk, and say why they are no more. */
START_TEST(cipher_not_for_the_kernel)
{
	const char *name = strrchr(not_for_the_kernel[_i], '+') + 1;
	static const struct tls_keys none;
	struct tls_keys keys;
	struct talk k;

	start(&k, not_for_the_kernel[_i]);
	for (int receive = 0; receive < 2; receive++) {
		memset(&keys, 0x55, sizeof(keys));
		ck_assert_int_eq(tls_get_keys(k.t, receive, &keys, &k.e), -EOPNOTSUPP);
		ck_assert_int_eq(k.e.kind, ERR_TLS);
		talk_check_text(&k.e, (const char *const[]){ name, "not for the kernel" }, 2);
		ck_assert_mem_eq(&keys, &none, sizeof(keys));
	}
	talk_exchange(&k);
	talk_finish(&k);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("tls");
	TCase *t = tcase_create("tls");

	tcase_set_timeout(t, 60);
	tcase_add_unchecked_fixture(t, talk_setup, talk_teardown);
	tcase_add_loop_test(t, accepted, 0, 2 * (int)COUNT(cases));
	tcase_add_test(t, nothing_to_free);
	tcase_add_test(t, warnings_without_end);
	tcase_add_loop_test(t, cut_off, 0, 2);
	tcase_add_loop_test(t, changed, 0, 2);
	tcase_add_loop_test(t, data_both_ways, 0, 2);
	tcase_add_loop_test(t, full_socket, 0, 2);
	tcase_add_loop_test(t, pending_bytes, 0, 2);
	tcase_add_loop_test(t, goodbye, 0, 2);
	tcase_add_loop_test(t, changed_data, 0, 2);
	tcase_add_test(t, key_update);
	tcase_add_loop_test(t, keys_for_the_kernel, 0, (int)COUNT(ciphers));
	tcase_add_loop_test(t, cipher_not_for_the_kernel, 0, (int)COUNT(not_for_the_kernel));
	suite_add_tcase(s, t);
	return s;
}
