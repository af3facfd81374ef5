/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "tlstalk.h"

#include <errno.h>
#include <ftw.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <check.h>

#include "leak.h"
#include "base/text.h"

/* --- what there is on disk -------------------------------------------------------------------- */

struct cert talk_certs[CERTS];
static char long_name[250];

static char start_dir[4096], dir[] = "/tmp/tlstalk.XXXXXX";

static void make_cert(int which, struct cert_spec spec, int issuer)
{
	spec.issuer = issuer ? &talk_certs[issuer] : NULL;
	cert_make(&talk_certs[which], &spec);
}

static void append_file(const char *from, const char *to)
{
	FILE *in = fopen(from, "r"), *out = fopen(to, "a");
	int c;

	ck_assert(in && out);
	while ((c = getc(in)) != EOF)
		putc(c, out);
	fclose(in);
	ck_assert_int_eq(fclose(out), 0);
}

void talk_setup(void)
{
	const time_t year = 365 * 86400;
	/* 2021-03-04 05:06:07 UTC, 2091-02-03 04:05:06 UTC */
	const time_t past = 1614834367, future = 3821313906;

	ck_assert_ptr_nonnull(getcwd(start_dir, sizeof(start_dir)));
	ck_assert_ptr_nonnull(mkdtemp(dir));
	ck_assert_int_eq(chdir(dir), 0);
	memset(long_name, 'l', sizeof(long_name) - 1);
	for (size_t i = 60; i < sizeof(long_name) - 1; i += 61)
		long_name[i] = '.';

	make_cert(CA, (struct cert_spec){ .name = "authority", .ca = true }, 0);
	make_cert(OTHER_CA, (struct cert_spec){ .name = "another authority", .ca = true }, 0);
	make_cert(OLD_CA, (struct cert_spec){ .name = "old authority", .ca = true, .until = past },
		  0);
	make_cert(NEW_CA, (struct cert_spec){ .name = "new authority", .ca = true, .from = future },
		  0);
	make_cert(SERVER,
		  (struct cert_spec){ .name = "not.example",
				      .dns = { "server.example", "alt.example" },
				      .ip = { "127.0.0.1", "::1" } },
		  CA);
	make_cert(EXPIRED, (struct cert_spec){ .dns = { "server.example" }, .until = past }, CA);
	make_cert(FUTURE,
		  (struct cert_spec){
			  .dns = { "server.example" }, .from = future, .until = future + year },
		  CA);
	make_cert(COMMON_NAME, (struct cert_spec){ .name = "common.example" }, CA);
	make_cert(NAMELESS, (struct cert_spec){ 0 }, CA);
	make_cert(HOSTILE, (struct cert_spec){ .raw_dns = "evil\x1b[2J\n.example" }, CA);
	make_cert(MANY, (struct cert_spec){ .dns = { long_name, long_name, long_name, long_name } },
		  CA);
	make_cert(WILDCARD, (struct cert_spec){ .dns = { "*.wild.example" } }, CA);
	make_cert(SELF_SIGNED, (struct cert_spec){ .name = "self", .dns = { "server.example" } },
		  0);
	make_cert(OF_OLD_CA, (struct cert_spec){ .dns = { "server.example" } }, OLD_CA);
	make_cert(OF_NEW_CA, (struct cert_spec){ .dns = { "server.example" } }, NEW_CA);
	make_cert(NO_SERVER, (struct cert_spec){ .dns = { "server.example" }, .client = true }, CA);
	make_cert(CLIENT, (struct cert_spec){ .name = "client", .client = true }, CA);
	make_cert(OTHER_CLIENT, (struct cert_spec){ .name = "client", .client = true }, OTHER_CA);

	cert_write(&talk_certs[CA], ".", "ca.pem", NULL);
	cert_write(&talk_certs[OTHER_CA], ".", "other-ca.pem", NULL);
	cert_write(&talk_certs[OLD_CA], ".", "old-ca.pem", NULL);
	cert_write(&talk_certs[NEW_CA], ".", "new-ca.pem", NULL);
	cert_write(&talk_certs[CLIENT], ".", "client.pem", "client-key.pem");
	cert_write(&talk_certs[OTHER_CLIENT], ".", "other-client.pem", "other-client-key.pem");
	crl_write(&talk_certs[CA], &talk_certs[SERVER], 0, 0, ".", "crl.pem");
	crl_write(&talk_certs[CA], NULL, 0, 0, ".", "empty-crl.pem");
	crl_write(&talk_certs[CA], &talk_certs[SERVER], 0, past, ".", "old-crl.pem");
	crl_write(&talk_certs[CA], &talk_certs[CLIENT], 0, past, ".", "late-crl.pem");
	crl_write(&talk_certs[CA], NULL, future, future + year, ".", "early-crl.pem");
	/* another authority's has been overtaken as well, at another time */
	crl_write(&talk_certs[OTHER_CA], NULL, 0, past - year, ".", "two-crl.pem");
	append_file("late-crl.pem", "two-crl.pem");
	crl_write(&talk_certs[OTHER_CA], NULL, 0, past, ".", "stranger-crl.pem");

	peer_file(".", "empty", "", 0600);
	peer_file(".", "junk", "-----BEGIN CERTIFICATE-----\nnot base64!\n", 0600);
	peer_file(".", "one.psk", "alice:00112233445566778899aabbccddeeff\n", 0600);
	peer_file(".", "wrong.psk", "alice:ff112233445566778899aabbccddeeff\n", 0600);
	peer_file(".", "mallory.psk", "mallory:00112233445566778899aabbccddeeff\n", 0600);
	peer_file(".", "many.psk",
		  "# people\n\nbob:0123456789abcdef\r\n"
		  "alice:00112233445566778899aabbccddeeff\ncarol:0123",
		  0600);
	peer_file(".", "group.psk", "alice:00112233445566778899aabbccddeeff\n", 0640);
	peer_file(".", "readable.psk", "alice:00112233445566778899aabbccddeeff\n", 0644);
	peer_file(".", "writable.psk", "alice:00112233445566778899aabbccddeeff\n", 0602);
	peer_file(".", "group-writable.psk", "alice:00112233445566778899aabbccddeeff\n", 0620);
	peer_file(".", "bad.psk", "alice:not hexadecimal\n", 0600);
	peer_file(".", "odd.psk", "alice:012\n", 0600);
	peer_file(".", "no-key.psk", "alice:\n", 0600);
	peer_file(".", "no-user.psk", "0123456789\n", 0600);
	peer_file(".", "colon.psk", "a:b:00112233445566778899aabbccddeeff\n", 0600);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *f)
{
	(void)st;
	(void)type;
	(void)f;
	return remove(path);
}

void talk_teardown(void)
{
	for (int i = 1; i < CERTS; i++)
		cert_free(&talk_certs[i]);
	ck_assert_int_eq(chdir(start_dir), 0);
	ck_assert_int_eq(nftw(dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS), 0);
}

/* --- sessions --------------------------------------------------------------------------------- */

void talk_wait(const struct talk *k)
{
	struct pollfd fds[] = {
		{ .fd = k->fd, .events = POLLIN },
		{ .fd = k->p.fd, .events = POLLIN },
	};

	poll(fds, 2, 10);
}

void talk_begin_over(struct talk *k, const int fds[2], const struct tls_params *params,
		     const struct peer_spec *spec)
{
	memset(k, 0, sizeof(*k));
	ck_assert_msg(!tls_creds_load(&k->creds, params, &k->e), "%s", k->e.text);
	ck_assert_msg(!tls_new(&k->t, k->creds, &k->e), "%s", k->e.text);
	k->fd = fds[0];
	peer_open(&k->p, fds[1], spec);
}

void talk_begin(struct talk *k, const struct tls_params *params, const struct peer_spec *spec)
{
	int fds[2];

	peer_unix(fds);
	talk_begin_over(k, fds, params, spec);
}

void talk_handshake(struct talk *k)
{
	k->ret = -EAGAIN;
	for (int i = 0; i < 500; i++) {
		if (k->ret == -EAGAIN) {
			k->ret = tls_handshake(k->t, k->fd, &k->e);
			if (k->ret && k->ret != -EAGAIN)
				shutdown(k->fd, SHUT_WR);
		}
		peer_step(&k->p);
		if (k->ret != -EAGAIN && k->p.result != GNUTLS_E_AGAIN)
			return;
		talk_wait(k);
	}
	ck_abort_msg("no end: we %d, the server %s", k->ret, gnutls_strerror(k->p.result));
}

void talk_finish(struct talk *k)
{
	tls_free(k->t);
	tls_creds_free(k->creds);
	peer_close(&k->p);
	close(k->fd);
}

void talk_send(struct talk *k, const char *data, size_t len, char *got)
{
	size_t sent = 0, received = 0;
	ssize_t n;

	for (int i = 0; i < 100000 && received < len; i++) {
		if (sent < len) {
			n = tls_send(k->t, data + sent, len - sent);
			ck_assert_msg(n > 0 || n == -EAGAIN, "tls_send: %zd", n);
			sent += n > 0 ? (size_t)n : 0;
		}
		n = gnutls_record_recv(k->p.session, got + received, len - received);
		ck_assert_msg(n > 0 || n == GNUTLS_E_AGAIN, "the server: %s",
			      gnutls_strerror((int)n));
		received += n > 0 ? (size_t)n : 0;
	}
	ck_assert_uint_eq(received, len);
}

void talk_receive(struct talk *k, const char *data, size_t len, char *got)
{
	size_t sent = 0, received = 0;
	ssize_t n;

	for (int i = 0; i < 100000 && received < len; i++) {
		if (sent < len) {
			n = gnutls_record_send(k->p.session, data + sent, len - sent);
			ck_assert_msg(n > 0 || n == GNUTLS_E_AGAIN, "the server: %s",
				      gnutls_strerror((int)n));
			sent += n > 0 ? (size_t)n : 0;
		}
		n = tls_recv(k->t, got + received, len - received);
		ck_assert_msg(n > 0 || n == -EAGAIN, "tls_recv: %zd", n);
		received += n > 0 ? (size_t)n : 0;
	}
	ck_assert_uint_eq(received, len);
}

void talk_exchange(struct talk *k)
{
	char got[16] = "";

	talk_send(k, "question", 8, got);
	ck_assert_mem_eq(got, "question", 8);
	talk_receive(k, "answer", 6, got);
	ck_assert_mem_eq(got, "answer", 6);
	ck_assert_int_eq(tls_recv(k->t, got, sizeof(got)), -EAGAIN);
	ck_assert(!tls_wants_write(k->t));
}

void talk_check_text(const struct err *e, const char *const *parts, size_t count)
{
	size_t len = strnlen(e->text, sizeof(e->text));

	ck_assert_uint_gt(len, 0);
	ck_assert_uint_lt(len, sizeof(e->text));
	ck_assert_msg(text_is_utf8(e->text, len), "%s", e->text);
	for (size_t i = 0; i < len; i++)
		ck_assert_msg((unsigned char)e->text[i] >= 0x20 && e->text[i] != 0x7f,
			      "byte 0x%02x in an error", (unsigned char)e->text[i]);
	for (size_t i = 0; i < count && parts[i]; i++)
		ck_assert_msg(strstr(e->text, parts[i]) != NULL, "\"%s\" lacks \"%s\"", e->text,
			      parts[i]);
}

/* --- who is let in ---------------------------------------------------------------------------- */

const char *const talk_versions[2] = {
	"NORMAL:-VERS-ALL:+VERS-TLS1.2" ALL_PSK,
	"NORMAL:-VERS-ALL:+VERS-TLS1.3" ALL_PSK,
};

static void check_refused(struct talk *k, const struct talk_case *w, bool tls13)
{
	char got[16];
	ssize_t n;

	if (!w->late || !tls13) {
		ck_assert_msg(k->ret == -w->code, "%s: %d, %s", w->name, k->ret, k->e.text);
		ck_assert_int_eq(k->e.kind, ERR_TLS);
		ck_assert_int_eq(k->e.code, w->code);
		talk_check_text(&k->e, w->text, COUNT(w->text));
		/* Whoever we refuse has not been told that all is well. */
		ck_assert_int_ne(k->p.result, GNUTLS_E_SUCCESS);
		/* Where it is we who refuse, its log can say so. */
		if (w->code == EACCES && !strncmp(k->e.text, "the server's certificate", 24))
			ck_assert_int_eq(k->p.result, GNUTLS_E_FATAL_ALERT_RECEIVED);
		return;
	}
	/* Our part is done before the server has seen it: it says so where an answer is awaited. */
	ck_assert_msg(!k->ret, "%s: %s", w->name, k->e.text);
	ck_assert_int_lt(k->p.result, 0);
	for (int i = 0; (n = tls_recv(k->t, got, sizeof(got))) == -EAGAIN && i < 100; i++)
		talk_wait(k);
	ck_assert_msg(n != -EAGAIN && (n < 0 || (!n && w->no_alert)), "%s: %zd", w->name, n);
	ck_assert_int_eq(tls_failure(k->t, &k->e), -w->code);
	ck_assert_int_eq(k->e.kind, ERR_TLS);
	talk_check_text(&k->e, w->text, COUNT(w->text));
}

void talk_check(const struct talk_case *w, bool tls13)
{
	struct peer_spec spec = {
		.cert = w->cert ? &talk_certs[w->cert] : NULL,
		.psk_file = w->psk_file,
		.client_ca = w->client_ca ? &talk_certs[w->client_ca] : NULL,
		.priority = w->priority ? w->priority : talk_versions[tls13],
		.tickets = w->tickets,
		.no_alert = w->no_alert,
	};
	unsigned fds = leak_fds();
	struct tls_info info;
	struct talk k;

	if (w->versions == (tls13 ? ONLY_12 : ONLY_13))
		return;
	talk_begin(&k, &w->params, &spec);
	talk_handshake(&k);
	if (w->code) {
		check_refused(&k, w, tls13);
	} else {
		ck_assert_msg(!k.ret, "%s: %s", w->name, k.e.text);
		ck_assert_msg(!k.p.result, "%s: the server: %s", w->name,
			      gnutls_strerror(k.p.result));
		tls_describe(k.t, &info);
		ck_assert_str_eq(info.version,
				 tls13 || (w->priority && w->psk_file) ? "TLS1.3" : "TLS1.2");
		ck_assert_ptr_nonnull(strstr(info.cipher, "-"));
		ck_assert_str_eq(info.peer, w->peer);
		talk_exchange(&k);
	}
	talk_finish(&k);
	ck_assert_uint_eq(leak_fds(), fds);
}
