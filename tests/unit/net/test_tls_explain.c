/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/* What is said of servers that refuse, fall silent, or speak something else. */
#include "net/tls_explain.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../tlstalk.h"
#include "../unit.h"

/* --- servers that refuse ---------------------------------------------------------------------- */

static const struct talk_case cases[] = {
	{ .name = "we have no certificate",
	  .params = { X509 },
	  .cert = SERVER,
	  .client_ca = CA,
	  .code = EACCES,
	  .late = true,
	  .text = { "it wants a certificate of ours", "--tls-cert" } },
	{ .name = "our certificate is by another authority",
	  .cert = SERVER,
	  .client_ca = CA,
	  .params = { X509, .cert = "other-client.pem", .key = "other-client-key.pem" },
	  .code = EACCES,
	  .late = true,
	  .text = { "it wants a certificate by another authority than ours is by" } },
	{ .name = "we have no certificate, and the server just closes",
	  .params = { X509 },
	  .cert = SERVER,
	  .client_ca = CA,
	  .no_alert = true,
	  .code = ECONNRESET,
	  .late = true,
	  .text = { "the server closed the connection", "it wants a certificate of ours" } },
	{ .name = "key, wrong",
	  .params = { .psk_file = "wrong.psk" },
	  .psk_file = "one.psk",
	  .code = EACCES,
	  .text = { "it does not take our pre-shared key" } },
	{ .name = "key, wrong, a server of few words",
	  .params = { .psk_file = "wrong.psk" },
	  .psk_file = "one.psk",
	  .no_alert = true,
	  .code = ECONNRESET,
	  .text = { "the server closed the connection", "it may not know our key" } },
	{ .name = "key, wrong user",
	  .params = { .psk_file = "mallory.psk" },
	  .psk_file = "one.psk",
	  .code = EACCES,
	  .text = { "it does not take our pre-shared key" } },
	{ .name = "key, but the server has a certificate",
	  .params = { .psk_file = "one.psk" },
	  .cert = SERVER,
	  .code = EACCES,
	  .text = { "the server", "certificate", "pre-shared key" },
	  .versions = ONLY_13 },
	{ .name = "key, but the server has a certificate, TLS 1.2",
	  .versions = ONLY_12,
	  .params = { .psk_file = "one.psk" },
	  .cert = SERVER,
	  .code = EACCES,
	  .text = { "kind of credentials" } },
	{ .name = "certificate, but the server has a key",
	  .params = { X509 },
	  .psk_file = "one.psk",
	  .code = EACCES,
	  .text = { "kind of credentials" } },
	{ .name = "no common cipher",
	  .cert = SERVER,
	  .priority = "NORMAL:-VERS-ALL:+VERS-TLS1.2",
	  .params = { X509, .priority = "NORMAL:-VERS-ALL:+VERS-TLS1.3" },
	  .code = EACCES,
	  .text = { "no common protocol version, cipher or kind of credentials" } },
	{ .name = "no common cipher, TLS 1.3",
	  .cert = SERVER,
	  .versions = ONLY_13,
	  .priority = "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM",
	  .params = { X509, .priority = "NORMAL:-CIPHER-ALL:+AES-256-GCM" },
	  .code = EACCES,
	  .text = { "no common protocol version, cipher or kind of credentials" } },
	{ .name = "the server is too old",
	  .cert = SERVER,
	  .versions = ONLY_12,
	  .priority = "NORMAL:-VERS-ALL:+VERS-TLS1.1",
	  .params = { X509 },
	  .code = EPROTO,
	  .text = { "the server speaks no version of TLS that is allowed" } },
	{ .name = "the server just closes",
	  .cert = SERVER,
	  .no_alert = true,
	  .priority = "NORMAL:-VERS-ALL:+VERS-TLS1.2",
	  .params = { X509, .priority = "NORMAL:-VERS-ALL:+VERS-TLS1.3" },
	  .code = ECONNRESET,
	  .text = { "the server closed the connection in the TLS handshake" } },
};

START_TEST(refusal)
{
	talk_check(&cases[(size_t)_i / 2], _i % 2);
}
END_TEST

/* --- servers that are none -------------------------------------------------------------------- */

#define SAID(literal)                                      \
	{                                                  \
		literal, sizeof(literal) - 1, "is not TLS" \
	}

static const struct {
	const char *data;
	size_t len;
	const char *text;
} impostors[] = {
	SAID("\0\3\xe8\x89\4\x55\x65\xa9\0\0\0\7\0\0\0\3\0\0\0\14\0\0\0\0\0\0\0\20\0\0\1\5"),
	SAID("\0\3\xe8\x89\4\x55\x65\xa9\0\0\0\5\0\0\0\1\0\0\0\0"),
	SAID("NBDMAGICIHAVEOPT\0\3"),
	SAID("HTTP/1.1 400 Bad Request\r\n\r\n"),
	SAID("\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
	SAID("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
	/* the beginning of a record, and its end */
	{ "\x16\3\3\0\x7a\2\0", 7, "the server closed the connection" },
	/* a goodbye, of those that are no alarm */
	{ "\x15\3\3\0\2\1\0", 7, "the server closed the connection" },
	{ "", 0, "the server closed the connection" },
};

START_TEST(impostor)
{
	struct tls_params params = { X509 };
	struct peer_spec spec = { .cert = &talk_certs[SERVER] };
	struct talk k;
	char got[4096];

	talk_begin(&k, &params, &spec);
	ck_assert_int_eq(tls_handshake(k.t, k.fd, &k.e), -EAGAIN);
	/*
	 * What has been said is a hello, and has the expected name in it, but nothing else of
	 * ours.
	 */
	ck_assert_int_gt(read(k.p.fd, got, sizeof(got)), 0);
	ck_assert_int_eq(write(k.p.fd, impostors[_i].data, impostors[_i].len),
			 (ssize_t)impostors[_i].len);
	shutdown(k.p.fd, SHUT_WR);
	do {
		k.ret = tls_handshake(k.t, k.fd, &k.e);
	} while (k.ret == -EAGAIN);
	ck_assert_int_lt(k.ret, 0);
	ck_assert_int_eq(k.e.kind, ERR_TLS);
	ck_assert_int_eq(k.e.code, -k.ret);
	talk_check_text(&k.e, &impostors[_i].text, 1);
	talk_finish(&k);
}
END_TEST

/*
 * An alert instead of an answer, each number there may be: an error with words, never an endless
 * loop.
 */
START_TEST(alert)
{
	struct tls_params params = { X509 };
	struct peer_spec spec = { .cert = &talk_certs[SERVER] };
	unsigned char record[7] = { 0x15, 3, 3, 0, 2, 2, (unsigned char)_i };
	struct talk k;

	talk_begin(&k, &params, &spec);
	ck_assert_int_eq(tls_handshake(k.t, k.fd, &k.e), -EAGAIN);
	ck_assert_int_eq(write(k.p.fd, record, sizeof(record)), sizeof(record));
	shutdown(k.p.fd, SHUT_WR);
	k.ret = tls_handshake(k.t, k.fd, &k.e);
	ck_assert_int_lt(k.ret, 0);
	ck_assert_int_ne(k.ret, -EAGAIN);
	ck_assert_int_eq(k.e.kind, ERR_TLS);
	talk_check_text(&k.e, (const char *const[]){ "the server" }, 1);
	talk_finish(&k);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("tls_explain");
	TCase *t = tcase_create("tls_explain");

	tcase_set_timeout(t, 60);
	tcase_add_unchecked_fixture(t, talk_setup, talk_teardown);
	tcase_add_loop_test(t, refusal, 0, 2 * (int)COUNT(cases));
	tcase_add_loop_test(t, impostor, 0, (int)COUNT(impostors));
	tcase_add_loop_test(t, alert, 0, 256);
	suite_add_tcase(s, t);
	return s;
}
