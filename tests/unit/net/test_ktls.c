/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * What the kernel is told, by a kernel that this program plays (setsockopt and getsockopt below),
 * and what is done when it does not want it. Where the machine's kernel has TLS it is asked too;
 * one that has it for sure is that of tests/vm/tls.sh.
 */
#include "net/ktls.h"

#include <errno.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../leak.h"
#include "../tlstalk.h"
#include "../unit.h"

#ifndef SOL_TLS
#define SOL_TLS 282
#endif

/* --- a kernel --------------------------------------------------------------------------------- */

static struct {
	bool on;         /* else the real one is asked */
	int ulp, tx, rx; /* errno for each call, 0: it is done */
	bool lies[3];    /* in TLS_TX or TLS_RX it says that it has other keys */
	bool forgets[3]; /* says that it has none, or cannot say */
	unsigned ulp_calls;
	char ulp_name[8];
	socklen_t len[3]; /* by TLS_TX, TLS_RX; 0: none yet */
	unsigned char got[3][sizeof(struct tls12_crypto_info_aes_gcm_256)];
} kernel;

static int answer(int code)
{
	errno = code;
	return code ? -1 : 0;
}

int setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
	int code;

	if (!kernel.on)
		return (int)syscall(SYS_setsockopt, fd, level, name, value, len);
	if (level == IPPROTO_TCP && name == TCP_ULP) {
		kernel.ulp_calls++;
		ck_assert_uint_le(len, sizeof(kernel.ulp_name));
		memcpy(kernel.ulp_name, value, len);
		return answer(kernel.ulp);
	}
	ck_assert_int_eq(level, SOL_TLS);
	ck_assert(name == TLS_TX || name == TLS_RX);
	code = name == TLS_TX ? kernel.tx : kernel.rx;
	if (!code) {
		ck_assert_uint_le(len, sizeof(kernel.got[0]));
		ck_assert_uint_eq(kernel.len[name], 0);
		kernel.len[name] = len;
		memcpy(kernel.got[name], value, len);
	}
	return answer(code);
}

int getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
	unsigned char *bytes = value;

	if (!kernel.on)
		return (int)syscall(SYS_getsockopt, fd, level, name, value, len);
	ck_assert_int_eq(level, SOL_TLS);
	ck_assert(name == TLS_TX || name == TLS_RX);
	ck_assert_uint_ge(*len, kernel.len[name]);
	*len = kernel.len[name];
	if (kernel.forgets[name])
		return answer(EBUSY);
	memcpy(value, kernel.got[name], kernel.len[name]);
	/* in the middle of the key, whatever the cipher */
	if (kernel.lies[name])
		bytes[sizeof(struct tls_crypto_info) + 16] ^= 1;
	return 0;
}

/* --- sessions --------------------------------------------------------------------------------- */

static struct cert server_cert;

static void setup(void)
{
	cert_make(&server_cert, &(struct cert_spec){ .dns = { "server.example" } });
}

static void teardown(void)
{
	cert_free(&server_cert);
}

/* A test that ends without finish() must not leave its kernel to the next one. */
static void forget_kernel(void)
{
	memset(&kernel, 0, sizeof(kernel));
}

static void start(struct talk *k, const char *priority, bool tcp)
{
	struct tls_params params = { .no_verify = true };
	struct peer_spec spec = { .cert = &server_cert, .priority = priority };
	int fds[2];

	(tcp ? peer_tcp : peer_unix)(fds);
	strcpy(params.priority, priority);
	talk_begin_over(k, fds, &params, &spec);
	talk_handshake(k);
	ck_assert_msg(!k->ret && !k->p.result, "%d %s, %s", k->ret, k->e.text,
		      gnutls_strerror(k->p.result));
}

static void finish(struct talk *k)
{
	memset(&kernel, 0, sizeof(kernel));
	talk_finish(k);
}

static ssize_t server_reads(struct talk *k, char *got, size_t len)
{
	ssize_t n = GNUTLS_E_AGAIN;

	for (int i = 0; i < 500 && n == GNUTLS_E_AGAIN; i++) {
		n = gnutls_record_recv(k->p.session, got, len);
		if (n == GNUTLS_E_AGAIN)
			talk_wait(k);
	}
	return n;
}

/* The session is as good as before. */
static void goes_on(struct talk *k)
{
	char got[16];
	ssize_t n;

	kernel.on = false;
	ck_assert_int_eq(tls_send(k->t, "question", 8), 8);
	ck_assert_int_eq(server_reads(k, got, sizeof(got)), 8);
	ck_assert_mem_eq(got, "question", 8);
	ck_assert_int_eq(gnutls_record_send(k->p.session, "answer", 6), 6);
	for (int i = 0; (n = tls_recv(k->t, got, sizeof(got))) == -EAGAIN && i < 500; i++)
		talk_wait(k);
	ck_assert_int_eq(n, 6);
	ck_assert_mem_eq(got, "answer", 6);
}

static void check_failure(struct talk *k, int code, const char *text)
{
	ck_assert_int_eq(ktls_enable(k->fd, k->t, &k->e), -code);
	ck_assert_int_eq(k->e.kind, ERR_TLS);
	ck_assert_int_eq(k->e.code, code);
	ck_assert_msg(strstr(k->e.text, "kernel") && strstr(k->e.text, text), "\"%s\" lacks \"%s\"",
		      k->e.text, text);
}

static const struct {
	const char *priority;
	int version, cipher;
	size_t len;
} ciphers[] = {
	{ "NORMAL:-VERS-ALL:+VERS-TLS1.2:-CIPHER-ALL:+AES-128-GCM", 0x0303, 51, 40 },
	{ "NORMAL:-VERS-ALL:+VERS-TLS1.2:-CIPHER-ALL:+AES-256-GCM", 0x0303, 52, 56 },
	{ "NORMAL:-VERS-ALL:+VERS-TLS1.2:-CIPHER-ALL:+CHACHA20-POLY1305", 0x0303, 54, 56 },
	{ "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM", 0x0304, 51, 40 },
	{ "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-256-GCM", 0x0304, 52, 56 },
	{ "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+CHACHA20-POLY1305", 0x0304, 54, 56 },
};
enum { CIPHERS = sizeof(ciphers) / sizeof(ciphers[0]), SOME_CIPHER = 4 };

/*
 * The struct as Documentation/networking/tls.rst and <linux/tls.h> have it, from what the server
 * knows: version, cipher, IV, key, salt, number.
 */
static size_t expected(struct talk *k, bool receive, size_t i, unsigned char *out)
{
	gnutls_datum_t mac, iv, key;
	unsigned char seq[8];
	unsigned short head[2] = {
		(unsigned short)ciphers[i].version,
		(unsigned short)ciphers[i].cipher,
	};
	bool tls13 = ciphers[i].version == 0x0304, chacha = ciphers[i].cipher == 54;
	size_t len = sizeof(head);

	ck_assert_int_eq(gnutls_record_get_state(k->p.session, !receive, &mac, &iv, &key, seq), 0);
	memcpy(out, head, sizeof(head));
	if (chacha) {
		ck_assert_uint_eq(iv.size, 12);
		memcpy(out + len, iv.data, 12);
		len += 12;
	} else {
		/* TLS 1.2: any that is never used twice; the number of the record is such */
		memcpy(out + len, tls13 ? iv.data + 4 : seq, 8);
		len += 8;
	}
	memcpy(out + len, key.data, key.size);
	len += key.size;
	if (!chacha) {
		memcpy(out + len, iv.data, 4);
		len += 4;
	}
	memcpy(out + len, seq, sizeof(seq));
	return len + sizeof(seq);
}

START_TEST(what_the_kernel_is_told)
{
	unsigned char tx[64], rx[64];
	unsigned fds = leak_fds();
	struct talk k;
	char got[8];

	start(&k, ciphers[_i].priority, true);
	/* so that the two directions differ in their numbers too */
	ck_assert_int_eq(tls_send(k.t, "a", 1), 1);
	ck_assert_int_eq(server_reads(&k, got, sizeof(got)), 1);
	kernel.on = true;
	ck_assert_msg(!ktls_enable(k.fd, k.t, &k.e), "%s", k.e.text);
	kernel.on = false;
	ck_assert_uint_eq(kernel.ulp_calls, 1);
	ck_assert_str_eq(kernel.ulp_name, "tls");
	ck_assert_uint_eq(expected(&k, false, (size_t)_i, tx), ciphers[_i].len);
	ck_assert_uint_eq(expected(&k, true, (size_t)_i, rx), ciphers[_i].len);
	ck_assert_uint_eq(kernel.len[TLS_TX], ciphers[_i].len);
	ck_assert_uint_eq(kernel.len[TLS_RX], ciphers[_i].len);
	ck_assert_mem_eq(kernel.got[TLS_TX], tx, ciphers[_i].len);
	ck_assert_mem_eq(kernel.got[TLS_RX], rx, ciphers[_i].len);
	ck_assert(memcmp(tx, rx, ciphers[_i].len) != 0);
	finish(&k);
	ck_assert_uint_eq(leak_fds(), fds);
}
END_TEST

/* A kernel without the module: nothing else is tried. */
START_TEST(no_module)
{
	struct talk k;

	start(&k, ciphers[SOME_CIPHER].priority, true);
	kernel.on = true;
	kernel.ulp = ENOENT;
	check_failure(&k, EOPNOTSUPP, "no module tls");
	ck_assert_uint_eq(kernel.len[TLS_TX], 0);
	ck_assert_uint_eq(kernel.len[TLS_RX], 0);
	goes_on(&k);
	finish(&k);
}
END_TEST

/* One that lacks the cipher has changed nothing. */
START_TEST(no_cipher)
{
	struct talk k;

	start(&k, ciphers[_i].priority, true);
	kernel.on = true;
	kernel.tx = _i % 2 ? EINVAL : ENOENT;
	check_failure(&k, EOPNOTSUPP, strerror(kernel.tx));
	ck_assert_uint_eq(kernel.len[TLS_RX], 0);
	goes_on(&k);
	finish(&k);
}
END_TEST

/* One that takes half of it: what is sent from here on would be encrypted twice. */
START_TEST(one_direction_only)
{
	struct talk k;

	start(&k, ciphers[_i].priority, true);
	kernel.on = true;
	kernel.rx = EINVAL;
	check_failure(&k, EPROTO, "receive keys");
	finish(&k);
}
END_TEST

/* One that says it has keys and has others, or cannot say. */
START_TEST(other_keys)
{
	struct talk k;

	for (int way = 0; way < 4; way++) {
		int direction = way % 2 ? TLS_TX : TLS_RX;

		start(&k, ciphers[_i].priority, true);
		kernel.on = true;
		(way < 2 ? kernel.lies : kernel.forgets)[direction] = true;
		check_failure(&k, EPROTO, way % 2 ? "send keys" : "receive keys");
		finish(&k);
	}
}
END_TEST

static const char *const not_for_the_kernel[] = {
	"NORMAL:-VERS-ALL:+VERS-TLS1.2:-CIPHER-ALL:+AES-256-CBC",
	"NORMAL:-VERS-ALL:+VERS-TLS1.2:-CIPHER-ALL:+AES-128-CCM",
	"NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-CCM",
};

START_TEST(other_ciphers)
{
	struct talk k;

	start(&k, not_for_the_kernel[_i], true);
	kernel.on = true;
	check_failure(&k, EOPNOTSUPP, strrchr(not_for_the_kernel[_i], '+') + 1);
	ck_assert_uint_eq(kernel.ulp_calls, 0);
	goes_on(&k);
	finish(&k);
}
END_TEST

/* --- the real kernel, whatever it has --------------------------------------------------------- */

START_TEST(unix_socket)
{
	struct talk k;

	start(&k, ciphers[_i].priority, false);
	check_failure(&k, EOPNOTSUPP, "only TCP connections");
	goes_on(&k);
	finish(&k);
}
END_TEST

START_TEST(availability)
{
	unsigned fds = leak_fds();

	kernel.on = true;
	kernel.ulp = ENOENT;
	ck_assert(!ktls_available());
	kernel.ulp = EPERM;
	ck_assert(!ktls_available());
	/* tls_init in net/tls/tls_main.c: there is no connection yet */
	kernel.ulp = ENOTCONN;
	ck_assert(ktls_available());
	ck_assert_str_eq(kernel.ulp_name, "tls");
	ck_assert_uint_eq(leak_fds(), fds);
}
END_TEST

START_TEST(this_machine)
{
	struct talk k;
	char got[16];
	ssize_t n = -1;

	if (!ktls_available()) {
		printf("# no kernel TLS on this machine: that it refuses is tested\n");
		start(&k, ciphers[_i].priority, true);
		check_failure(&k, EOPNOTSUPP, "no module tls");
		goes_on(&k);
		finish(&k);
		return;
	}
	start(&k, ciphers[_i].priority, true);
	n = ktls_enable(k.fd, k.t, &k.e);
	if (n == -EOPNOTSUPP) {
		printf("# this kernel does not know it: %s\n", k.e.text);
		goes_on(&k);
		finish(&k);
		return;
	}
	ck_assert_msg(!n, "%s", k.e.text);
	ck_assert_int_eq(send(k.fd, "question", 8, 0), 8);
	ck_assert_int_eq(server_reads(&k, got, sizeof(got)), 8);
	ck_assert_mem_eq(got, "question", 8);
	ck_assert_int_eq(gnutls_record_send(k.p.session, "answer", 6), 6);
	for (int i = 0; (n = recv(k.fd, got, sizeof(got), 0)) < 0 && errno == EAGAIN && i < 500;
	     i++)
		talk_wait(&k);
	ck_assert_int_eq(n, 6);
	ck_assert_mem_eq(got, "answer", 6);
	finish(&k);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("ktls");
	TCase *t = tcase_create("ktls");

	tcase_set_timeout(t, 60);
	tcase_add_unchecked_fixture(t, setup, teardown);
	tcase_add_checked_fixture(t, forget_kernel, NULL);
	tcase_add_loop_test(t, what_the_kernel_is_told, 0, CIPHERS);
	tcase_add_test(t, no_module);
	tcase_add_loop_test(t, no_cipher, 0, CIPHERS);
	tcase_add_loop_test(t, one_direction_only, 0, CIPHERS);
	tcase_add_loop_test(t, other_keys, 0, CIPHERS);
	tcase_add_loop_test(t, other_ciphers, 0,
			    sizeof(not_for_the_kernel) / sizeof(not_for_the_kernel[0]));
	tcase_add_loop_test(t, unix_socket, 0, CIPHERS);
	tcase_add_test(t, availability);
	tcase_add_loop_test(t, this_machine, 0, CIPHERS);
	suite_add_tcase(s, t);
	return s;
}
