/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sessions with a server in the same process, over a socket pair: who is let in, what is said of those
 * who are not, and what comes out for the kernel. Each with TLS 1.2 and 1.3.
 */
#include "net/tls.h"

#include <errno.h>
#include <ftw.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../leak.h"
#include "base/text.h"
#include "../tlspeer.h"
#include "../unit.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))
#define ALL_PSK      ":+ECDHE-PSK:+DHE-PSK:+PSK"

/* --- what there is on disk -------------------------------------------------------------------- */

enum {
	CA = 1,
	OTHER_CA,
	OLD_CA, /* expired */
	NEW_CA, /* not yet valid */
	SERVER, /* server.example, alt.example, 127.0.0.1, ::1 */
	EXPIRED,
	FUTURE,
	COMMON_NAME, /* common.example, nothing else */
	NAMELESS,
	HOSTILE, /* a name that would harm a terminal */
	MANY,    /* more and longer names than any message has room for */
	WILDCARD,
	SELF_SIGNED,
	OF_OLD_CA,
	OF_NEW_CA,
	NO_SERVER, /* for clients only */
	CLIENT,
	OTHER_CLIENT,
	CERTS,
};

static struct cert certs[CERTS];
static char long_name[250];

static char start_dir[4096], dir[] = "/tmp/test_tls.XXXXXX";

static void make(int which, struct cert_spec spec, int issuer)
{
	spec.issuer = issuer ? &certs[issuer] : NULL;
	cert_make(&certs[which], &spec);
}

static void append(const char *from, const char *to)
{
	FILE *in = fopen(from, "r"), *out = fopen(to, "a");
	int c;

	ck_assert(in && out);
	while ((c = getc(in)) != EOF)
		putc(c, out);
	fclose(in);
	ck_assert_int_eq(fclose(out), 0);
}

/* In a directory of our own, so that file names in messages are short and known. */
static void setup(void)
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

	make(CA, (struct cert_spec){ .name = "authority", .ca = true }, 0);
	make(OTHER_CA, (struct cert_spec){ .name = "another authority", .ca = true }, 0);
	make(OLD_CA, (struct cert_spec){ .name = "old authority", .ca = true, .until = past }, 0);
	make(NEW_CA, (struct cert_spec){ .name = "new authority", .ca = true, .from = future }, 0);
	make(SERVER,
	     (struct cert_spec){ .name = "not.example",
				 .dns = { "server.example", "alt.example" },
				 .ip = { "127.0.0.1", "::1" } },
	     CA);
	make(EXPIRED, (struct cert_spec){ .dns = { "server.example" }, .until = past }, CA);
	make(FUTURE,
	     (struct cert_spec){
		     .dns = { "server.example" }, .from = future, .until = future + year },
	     CA);
	make(COMMON_NAME, (struct cert_spec){ .name = "common.example" }, CA);
	make(NAMELESS, (struct cert_spec){ 0 }, CA);
	make(HOSTILE, (struct cert_spec){ .raw_dns = "evil\x1b[2J\n.example" }, CA);
	make(MANY, (struct cert_spec){ .dns = { long_name, long_name, long_name, long_name } }, CA);
	make(WILDCARD, (struct cert_spec){ .dns = { "*.wild.example" } }, CA);
	make(SELF_SIGNED, (struct cert_spec){ .name = "self", .dns = { "server.example" } }, 0);
	make(OF_OLD_CA, (struct cert_spec){ .dns = { "server.example" } }, OLD_CA);
	make(OF_NEW_CA, (struct cert_spec){ .dns = { "server.example" } }, NEW_CA);
	make(NO_SERVER, (struct cert_spec){ .dns = { "server.example" }, .client = true }, CA);
	make(CLIENT, (struct cert_spec){ .name = "client", .client = true }, CA);
	make(OTHER_CLIENT, (struct cert_spec){ .name = "client", .client = true }, OTHER_CA);

	cert_write(&certs[CA], ".", "ca.pem", NULL);
	cert_write(&certs[OTHER_CA], ".", "other-ca.pem", NULL);
	cert_write(&certs[OLD_CA], ".", "old-ca.pem", NULL);
	cert_write(&certs[NEW_CA], ".", "new-ca.pem", NULL);
	cert_write(&certs[CLIENT], ".", "client.pem", "client-key.pem");
	cert_write(&certs[OTHER_CLIENT], ".", "other-client.pem", "other-client-key.pem");
	crl_write(&certs[CA], &certs[SERVER], 0, 0, ".", "crl.pem");
	crl_write(&certs[CA], NULL, 0, 0, ".", "empty-crl.pem");
	crl_write(&certs[CA], &certs[SERVER], 0, past, ".", "old-crl.pem");
	crl_write(&certs[CA], &certs[CLIENT], 0, past, ".", "late-crl.pem");
	crl_write(&certs[CA], NULL, future, future + year, ".", "early-crl.pem");
	/* another authority's has been overtaken as well, at another time */
	crl_write(&certs[OTHER_CA], NULL, 0, past - year, ".", "two-crl.pem");
	append("late-crl.pem", "two-crl.pem");
	crl_write(&certs[OTHER_CA], NULL, 0, past, ".", "stranger-crl.pem");

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

static int forget(const char *path, const struct stat *st, int type, struct FTW *f)
{
	(void)st;
	(void)type;
	(void)f;
	return remove(path);
}

static void teardown(void)
{
	for (int i = 1; i < CERTS; i++)
		cert_free(&certs[i]);
	ck_assert_int_eq(chdir(start_dir), 0);
	ck_assert_int_eq(nftw(dir, forget, 8, FTW_DEPTH | FTW_PHYS), 0);
}

/* --- sessions --------------------------------------------------------------------------------- */

struct talk {
	struct tls *t;
	struct peer p;
	int fd;
	int ret; /* of our handshake */
	struct err e;
};

static void wait_a_little(const struct talk *k)
{
	struct pollfd fds[] = {
		{ .fd = k->fd, .events = POLLIN },
		{ .fd = k->p.fd, .events = POLLIN },
	};

	poll(fds, 2, 10);
}

static void begin(struct talk *k, const struct tls_params *params, const struct peer_spec *spec)
{
	int fds[2];

	memset(k, 0, sizeof(*k));
	peer_unix(fds);
	ck_assert_msg(!tls_new(&k->t, params, &k->e), "%s", k->e.text);
	k->fd = fds[0];
	peer_open(&k->p, fds[1], spec);
}

/* Until both ends know. */
static void handshake(struct talk *k)
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
		wait_a_little(k);
	}
	ck_abort_msg("no end: we %d, the server %s", k->ret, gnutls_strerror(k->p.result));
}

static void finish(struct talk *k)
{
	tls_free(k->t);
	peer_close(&k->p);
	close(k->fd);
}

/* All of len, in one direction, whatever the sizes of buffers. */
static void send_all(struct talk *k, const char *data, size_t len, char *got)
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

static void receive_all(struct talk *k, const char *data, size_t len, char *got)
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

/* A word each way. */
static void exchange(struct talk *k)
{
	char got[16] = "";

	send_all(k, "question", 8, got);
	ck_assert_mem_eq(got, "question", 8);
	receive_all(k, "answer", 6, got);
	ck_assert_mem_eq(got, "answer", 6);
	ck_assert_int_eq(tls_recv(k->t, got, sizeof(got)), -EAGAIN);
	ck_assert(!tls_wants_write(k->t));
}

static void check_text(const struct err *e, const char *const *parts, size_t count)
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

enum versions { BOTH, ONLY_12, ONLY_13 };

struct who {
	const char *name;
	struct tls_params params;
	int cert;             /* the server's */
	const char *psk_file; /* the server's */
	int client_ca;
	bool tickets, no_alert;
	enum versions versions;
	const char *priority; /* of the server, instead of the version's */
	int code;             /* 0: they talk */
	bool late;            /* TLS 1.3 only learns of it afterwards */
	const char *text[4];
	const char *peer; /* as described */
};

#define X509 .ca = "ca.pem", .hostname = "server.example"

static const struct who whos[] = {
	{ .name = "good",
	  .params = { X509 },
	  .cert = SERVER,
	  .peer = "server.example, alt.example, 127.0.0.1, ::1" },
	{ .name = "second name",
	  .params = { .ca = "ca.pem", .hostname = "alt.example" },
	  .cert = SERVER,
	  .peer = "server.example, alt.example, 127.0.0.1, ::1" },
	{ .name = "name in other letters",
	  .params = { .ca = "ca.pem", .hostname = "SERVER.Example" },
	  .cert = SERVER,
	  .peer = "server.example, alt.example, 127.0.0.1, ::1" },
	{ .name = "address",
	  .params = { .ca = "ca.pem", .hostname = "127.0.0.1" },
	  .cert = SERVER,
	  .peer = "server.example, alt.example, 127.0.0.1, ::1" },
	{ .name = "IPv6 address",
	  .params = { .ca = "ca.pem", .hostname = "::1" },
	  .cert = SERVER,
	  .peer = "server.example, alt.example, 127.0.0.1, ::1" },
	{ .name = "IPv6 address in another way",
	  .cert = SERVER,
	  .params = { .ca = "ca.pem", .hostname = "0:0:0:0:0:0:0:1" },
	  .peer = "server.example, alt.example, 127.0.0.1, ::1" },
	{ .name = "only a common name",
	  .params = { .ca = "ca.pem", .hostname = "common.example" },
	  .cert = COMMON_NAME,
	  .peer = "common.example" },
	{ .name = "wildcard",
	  .params = { .ca = "ca.pem", .hostname = "a.wild.example" },
	  .cert = WILDCARD,
	  .peer = "*.wild.example" },
	{ .name = "a server with tickets",
	  .params = { X509 },
	  .cert = SERVER,
	  .tickets = true,
	  .peer = "server.example, alt.example, 127.0.0.1, ::1" },
	{ .name = "another authority",
	  .params = { .ca = "other-ca.pem", .hostname = "server.example" },
	  .cert = SERVER,
	  .code = EACCES,
	  .text = { "is not trusted", "no authority in other-ca.pem", "--tls-ca" } },
	{ .name = "the system's authorities",
	  .params = { .hostname = "server.example" },
	  .cert = SERVER,
	  .code = EACCES,
	  .text = { "is not trusted", "the system's list" } },
	{ .name = "signed by itself",
	  .params = { X509 },
	  .cert = SELF_SIGNED,
	  .code = EACCES,
	  .text = { "is not trusted", "ca.pem" } },
	{ .name = "expired",
	  .params = { X509 },
	  .cert = EXPIRED,
	  .code = EACCES,
	  .text = { "the server's certificate has expired on 2021-03-04 05:06:07 UTC" } },
	{ .name = "not yet valid",
	  .params = { X509 },
	  .cert = FUTURE,
	  .code = EACCES,
	  .text = { "the server's certificate is not valid before 2091-02-03 04:05:06 UTC" } },
	{ .name = "expired authority",
	  .cert = OF_OLD_CA,
	  .code = EACCES,
	  .params = { .ca = "old-ca.pem", .hostname = "server.example" },
	  .text = { "authority above the server's has expired on 2021-03-04 05:06:07 UTC" } },
	{ .name = "authority of the future",
	  .cert = OF_NEW_CA,
	  .code = EACCES,
	  .params = { .ca = "new-ca.pem", .hostname = "server.example" },
	  .text = { "authority above the server's is not valid before 2091-02-03 04:05:06 UTC" } },
	{ .name = "wrong name",
	  .params = { .ca = "ca.pem", .hostname = "wrong.example" },
	  .cert = SERVER,
	  .code = EACCES,
	  .text = { "is for server.example, alt.example, 127.0.0.1, ::1, not for wrong.example",
		    "--tls-hostname" } },
	{ .name = "the common name does not count besides names",
	  .cert = SERVER,
	  .code = EACCES,
	  .params = { .ca = "ca.pem", .hostname = "not.example" },
	  .text = { "is for server.example", "not for not.example" } },
	{ .name = "wrong address",
	  .params = { .ca = "ca.pem", .hostname = "127.0.0.2" },
	  .cert = SERVER,
	  .code = EACCES,
	  .text = { "127.0.0.1", "not for 127.0.0.2" } },
	{ .name = "too much for a wildcard",
	  .cert = WILDCARD,
	  .code = EACCES,
	  .params = { .ca = "ca.pem", .hostname = "a.b.wild.example" },
	  .text = { "is for *.wild.example, not for a.b.wild.example" } },
	{ .name = "no name at all",
	  .params = { X509 },
	  .cert = NAMELESS,
	  .code = EACCES,
	  .text = { "is for nobody, not for server.example" } },
	{ .name = "a name that would harm a terminal",
	  .params = { X509 },
	  .cert = HOSTILE,
	  .code = EACCES,
	  .text = { "is for evil\\x1b[2J\\x0a.example, not for" } },
	{ .name = "an expected name that would",
	  .cert = SERVER,
	  .code = EACCES,
	  .params = { .ca = "ca.pem", .hostname = "a\x1b[2J" },
	  .text = { "not for a\\x1b[2J" } },
	{ .name = "names without end",
	  .params = { X509 },
	  .cert = MANY,
	  .code = EACCES,
	  .text = { "is for llll", "not for server.example" } },
	{ .name = "a certificate for clients",
	  .params = { X509 },
	  .cert = NO_SERVER,
	  .code = EACCES,
	  .text = { "is not made for servers" } },
	{ .name = "revoked",
	  .params = { X509, .crl = "crl.pem" },
	  .cert = SERVER,
	  .code = EACCES,
	  .text = { "the server's certificate is revoked" } },
	{ .name = "another one is revoked",
	  .params = { .ca = "ca.pem", .crl = "crl.pem", .hostname = "common.example" },
	  .cert = COMMON_NAME,
	  .peer = "common.example" },
	{ .name = "none is revoked",
	  .params = { X509, .crl = "empty-crl.pem" },
	  .cert = SERVER,
	  .peer = "server.example, alt.example, 127.0.0.1, ::1" },
	{ .name = "revoked, by a list that should have been renewed",
	  .cert = SERVER,
	  .params = { X509, .crl = "old-crl.pem" },
	  .code = EACCES,
	  .text = { "the server's certificate is revoked" } },
	{ .name = "not revoked by a list that should have been renewed",
	  .cert = SERVER,
	  .params = { X509, .crl = "late-crl.pem" },
	  .code = EACCES,
	  .text = { "the revocation list late-crl.pem is out of date: its next issue was due on "
		    "2021-03-04 05:06:07 UTC (--tls-crl)" } },
	{ .name = "two lists that should have been renewed",
	  .cert = SERVER,
	  .params = { X509, .crl = "two-crl.pem" },
	  .code = EACCES,
	  .text = { "two-crl.pem is out of date", "due on 2021-03-04 05:06:07 UTC" } },
	{ .name = "a list of somebody else that should have been renewed",
	  .cert = SERVER,
	  .params = { X509, .crl = "stranger-crl.pem" },
	  .peer = "server.example, alt.example, 127.0.0.1, ::1" },
	{ .name = "a list of the future",
	  .cert = SERVER,
	  .params = { X509, .crl = "early-crl.pem" },
	  .code = EACCES,
	  .text = { "early-crl.pem is of the future: it is issued on 2091-02-03 04:05:06 UTC" } },

	{ .name = "unverified: another authority",
	  .cert = SELF_SIGNED,
	  .params = { .no_verify = true, .ca = "ca.pem" },
	  .peer = "server.example" },
	{ .name = "unverified: another name",
	  .cert = SERVER,
	  .params = { .no_verify = true, .hostname = "wrong.example" },
	  .peer = "server.example, alt.example, 127.0.0.1, ::1" },
	{ .name = "unverified: expired",
	  .cert = EXPIRED,
	  .params = { .no_verify = true },
	  .peer = "server.example" },
	{ .name = "unverified: no name",
	  .cert = NAMELESS,
	  .params = { .no_verify = true },
	  .peer = "" },
	{ .name = "unverified: a name that would harm a terminal",
	  .cert = HOSTILE,
	  .params = { .no_verify = true },
	  .peer = "evil\\x1b[2J\\x0a.example" },

	{ .name = "our certificate",
	  .cert = SERVER,
	  .client_ca = CA,
	  .params = { X509, .cert = "client.pem", .key = "client-key.pem" },
	  .peer = "server.example, alt.example, 127.0.0.1, ::1" },
	{ .name = "our certificate, which nobody wants",
	  .cert = SERVER,
	  .params = { X509, .cert = "client.pem", .key = "client-key.pem" },
	  .peer = "server.example, alt.example, 127.0.0.1, ::1" },
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

static const char *const version_priorities[] = {
	"NORMAL:-VERS-ALL:+VERS-TLS1.2" ALL_PSK,
	"NORMAL:-VERS-ALL:+VERS-TLS1.3" ALL_PSK,
};

static void check_refused(struct talk *k, const struct who *w, bool tls13)
{
	char got[16];
	ssize_t n;

	if (!w->late || !tls13) {
		ck_assert_msg(k->ret == -w->code, "%s: %d, %s", w->name, k->ret, k->e.text);
		ck_assert_int_eq(k->e.kind, ERR_TLS);
		ck_assert_int_eq(k->e.code, w->code);
		check_text(&k->e, w->text, COUNT(w->text));
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
		wait_a_little(k);
	ck_assert_msg(n != -EAGAIN && (n < 0 || (!n && w->no_alert)), "%s: %zd", w->name, n);
	ck_assert_int_eq(tls_failure(k->t, &k->e), -w->code);
	ck_assert_int_eq(k->e.kind, ERR_TLS);
	check_text(&k->e, w->text, COUNT(w->text));
}

/* Nobody has asked for a cipher: the fastest for this processor, of those that the kernel can have. */
START_TEST(which_cipher)
{
	bool tls13 = _i % 2, psk = _i / 2;
	struct tls_params params = { X509 }, keys = { .psk_file = "one.psk" };
	struct peer_spec spec = {
		.cert = psk ? NULL : &certs[SERVER],
		.psk_file = psk ? "one.psk" : NULL,
		.priority = version_priorities[tls13],
	};
	const char *fast = "CHACHA20-POLY1305";
	struct tls_info info;
	struct talk k;

#if defined(__x86_64__)
	/* in TLS 1.2 there is no AES-GCM with ECDHE-PSK, which hides the past even if the key is lost */
	if ((tls13 || !psk) && __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul"))
		fast = "AES-128-GCM";
#else
	return;
#endif
	begin(&k, psk ? &keys : &params, &spec);
	handshake(&k);
	ck_assert_msg(!k.ret, "%s", k.e.text);
	tls_describe(k.t, &info);
	ck_assert_str_eq(info.cipher, fast);
	exchange(&k);
	finish(&k);
}
END_TEST

/* The order has changed, not what is taken. */
START_TEST(every_cipher)
{
	static const char *const ciphers[] = {
		"AES-128-GCM", "AES-256-GCM", "CHACHA20-POLY1305", "AES-128-CCM",
		"AES-256-CCM", "AES-128-CBC", "AES-256-CBC",
	};
	struct tls_params params = { X509 };
	struct peer_spec spec = { .cert = &certs[SERVER] };
	char priority[100];
	struct tls_info info;
	struct talk k;

	for (size_t i = 0; i < COUNT(ciphers); i++) {
		snprintf(priority, sizeof(priority),
			 "NORMAL:-VERS-ALL:+VERS-TLS1.2:-CIPHER-ALL:+%s", ciphers[i]);
		spec.priority = priority;
		begin(&k, &params, &spec);
		handshake(&k);
		ck_assert_msg(!k.ret, "%s: %s", ciphers[i], k.e.text);
		tls_describe(k.t, &info);
		ck_assert_str_eq(info.cipher, ciphers[i]);
		finish(&k);
	}
}
END_TEST

START_TEST(who_is_let_in)
{
	const struct who *w = &whos[(size_t)_i / 2];
	bool tls13 = _i % 2;
	struct peer_spec spec = {
		.cert = w->cert ? &certs[w->cert] : NULL,
		.psk_file = w->psk_file,
		.client_ca = w->client_ca ? &certs[w->client_ca] : NULL,
		.priority = w->priority ? w->priority : version_priorities[tls13],
		.tickets = w->tickets,
		.no_alert = w->no_alert,
	};
	unsigned fds = leak_fds();
	struct tls_info info;
	struct talk k;

	if (w->versions == (tls13 ? ONLY_12 : ONLY_13))
		return;
	begin(&k, &w->params, &spec);
	handshake(&k);
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
		exchange(&k);
	}
	finish(&k);
	ck_assert_uint_eq(leak_fds(), fds);
}
END_TEST

/* --- mistakes that are found before anybody is contacted -------------------------------------- */

static const struct {
	const char *name;
	struct tls_params params;
	enum err_kind kind;
	int code;
	const char *text[3];
} mistakes[] = {
	{ "key and authority",
	  { .psk_file = "one.psk", .ca = "ca.pem" },
	  ERR_USAGE,
	  EINVAL,
	  { "exclude each other" } },
	{ "key and revocation",
	  { .psk_file = "one.psk", .crl = "crl.pem" },
	  ERR_USAGE,
	  EINVAL,
	  { "exclude each other" } },
	{ "key and certificate",
	  { .psk_file = "one.psk", .cert = "client.pem", .key = "client-key.pem" },
	  ERR_USAGE,
	  EINVAL,
	  { "exclude each other" } },
	{ "key and no verification",
	  { .psk_file = "one.psk", .no_verify = true },
	  ERR_USAGE,
	  EINVAL,
	  { "exclude each other" } },
	{ "user without keys",
	  { X509, .psk_user = "alice" },
	  ERR_USAGE,
	  EINVAL,
	  { "no key file" } },
	{ "certificate without key",
	  { X509, .cert = "client.pem" },
	  ERR_USAGE,
	  EINVAL,
	  { "belong together" } },
	{ "key without certificate",
	  { X509, .key = "client-key.pem" },
	  ERR_USAGE,
	  EINVAL,
	  { "belong together" } },
	{ "nobody is expected", { .ca = "ca.pem" }, ERR_USAGE, EINVAL, { "--tls-hostname" } },
	{ "nobody at all", { .priority = "NORMAL" }, ERR_USAGE, EINVAL, { "--tls-hostname" } },
	{ "bad priority",
	  { X509, .priority = "NORMAL:+BOGUS" },
	  ERR_USAGE,
	  EINVAL,
	  { "priority string", "BOGUS" } },
	{ "hostile priority",
	  { X509, .priority = "\x1b[2J" },
	  ERR_USAGE,
	  EINVAL,
	  { "priority string", "\\x1b[2J" } },
	{ "priority without anything",
	  { X509, .priority = "NONE:" },
	  ERR_USAGE,
	  EINVAL,
	  { "priority string" } },
	{ "no file of authorities",
	  { .ca = "none.pem", .hostname = "h" },
	  ERR_TLS,
	  EINVAL,
	  { "certificate authorities none.pem" } },
	{ "hostile file name",
	  { .ca = "n\n.pem", .hostname = "h" },
	  ERR_TLS,
	  EINVAL,
	  { "certificate authorities n\\x0a.pem" } },
	{ "no authorities in it",
	  { .ca = "empty", .hostname = "h" },
	  ERR_TLS,
	  EINVAL,
	  { "certificate authorities empty" } },
	{ "junk for authorities",
	  { .ca = "junk", .hostname = "h" },
	  ERR_TLS,
	  EINVAL,
	  { "certificate authorities junk" } },
	{ "no revocation list",
	  { X509, .crl = "none.pem" },
	  ERR_TLS,
	  EINVAL,
	  { "revocation list none.pem" } },
	{ "nothing in it", { X509, .crl = "empty" }, ERR_TLS, EINVAL, { "revocation list empty" } },
	{ "no certificate",
	  { X509, .cert = "none.pem", .key = "client-key.pem" },
	  ERR_TLS,
	  EINVAL,
	  { "certificate and key none.pem" } },
	{ "no private key",
	  { X509, .cert = "client.pem", .key = "none.pem" },
	  ERR_TLS,
	  ENOENT,
	  { "private key none.pem" } },
	{ "another's private key",
	  { X509, .cert = "client.pem", .key = "other-client-key.pem" },
	  ERR_TLS,
	  EINVAL,
	  { "certificate and key client.pem" } },
	{ "PIN that is not there",
	  { X509, .cert = "client.pem", .key = "pkcs11:object=x?pin-source=file:no%6ee" },
	  ERR_TLS,
	  ENOENT,
	  { "PIN none: No such file" } },
	{ "PIN that others read",
	  { X509, .cert = "client.pem", .key = "pkcs11:object=x?a=b&pin-source=readable.psk&c" },
	  ERR_TLS,
	  EACCES,
	  { "PIN readable.psk", "mode 644", "chmod 600" } },
	{ "PIN by half an escape",
	  { X509, .cert = "client.pem", .key = "pkcs11:object=x?pin-source=file:///none%" },
	  ERR_TLS,
	  ENOENT,
	  { "PIN /none%: No such file" } },
	{ "private key that others read",
	  { X509, .cert = "client.pem", .key = "readable-key.pem" },
	  ERR_TLS,
	  EACCES,
	  { "private key readable-key.pem", "mode 604", "chmod 600" } },
	{ "no key file", { .psk_file = "none.psk" }, ERR_TLS, ENOENT, { "key file none.psk" } },
	{ "key file that others read",
	  { .psk_file = "readable.psk" },
	  ERR_TLS,
	  EACCES,
	  { "key file readable.psk", "mode 644", "chmod 600" } },
	{ "key file that others write",
	  { .psk_file = "writable.psk" },
	  ERR_TLS,
	  EACCES,
	  { "key file writable.psk", "mode 602" } },
	{ "key file that the group writes",
	  { .psk_file = "group-writable.psk" },
	  ERR_TLS,
	  EACCES,
	  { "key file group-writable.psk", "mode 620" } },
	{ "key file is empty", { .psk_file = "empty" }, ERR_TLS, ENOKEY, { "key file empty" } },
	{ "key file is a directory",
	  { .psk_file = "private" },
	  ERR_TLS,
	  ENOKEY,
	  { "key file private" } },
	{ "key file without users",
	  { .psk_file = "no-user.psk" },
	  ERR_TLS,
	  ENOKEY,
	  { "key file no-user.psk" } },
	{ "no such user",
	  { .psk_file = "many.psk", .psk_user = "dave" },
	  ERR_TLS,
	  ENOKEY,
	  { "key file many.psk", "no key for the user" } },
	{ "which user",
	  { .psk_file = "many.psk" },
	  ERR_USAGE,
	  EINVAL,
	  { "key file many.psk", "more than one user", "--tls-psk-user" } },
	{ "part of a user's name",
	  { .psk_file = "many.psk", .psk_user = "ali" },
	  ERR_TLS,
	  ENOKEY,
	  { "no key for the user" } },
	{ "key not hexadecimal",
	  { .psk_file = "bad.psk" },
	  ERR_TLS,
	  EINVAL,
	  { "key file bad.psk" } },
	{ "half a byte", { .psk_file = "odd.psk" }, ERR_TLS, EINVAL, { "key file odd.psk" } },
	{ "empty key", { .psk_file = "no-key.psk" }, ERR_TLS, EINVAL, { "key file no-key.psk" } },
	{ "user's name too long",
	  { .psk_file = "long.psk" },
	  ERR_TLS,
	  ENAMETOOLONG,
	  { "key file long.psk", "too long" } },
};

START_TEST(mistake)
{
	struct tls *t = (struct tls *)&t;
	unsigned fds = leak_fds();
	struct err e = { 0 };
	char line[400];

	cert_write(&certs[CLIENT], ".", NULL, "readable-key.pem");
	ck_assert_int_eq(chmod("readable-key.pem", 0604), 0);
	memset(line, 'u', 256);
	strcpy(line + 256, ":0011\n");
	peer_file(".", "long.psk", line, 0600);
	mkdir("private", 0700);
	ck_assert_msg(tls_new(&t, &mistakes[_i].params, &e) == -mistakes[_i].code, "%s: %d, %s",
		      mistakes[_i].name, e.code, e.text);
	ck_assert_ptr_null(t);
	ck_assert_int_eq(e.kind, mistakes[_i].kind);
	ck_assert_int_eq(e.code, mistakes[_i].code);
	check_text(&e, mistakes[_i].text, COUNT(mistakes[_i].text));
	/* No error shows a part of a secret. */
	ck_assert_ptr_null(strstr(e.text, "0011"));
	ck_assert_ptr_null(strstr(e.text, "hexadecimal\""));
	ck_assert_uint_eq(leak_fds(), fds);
}
END_TEST

START_TEST(nothing_to_free)
{
	tls_free(NULL);
}
END_TEST

/* --- directories ------------------------------------------------------------------------------ */

START_TEST(directories)
{
	struct tls_params p = { 0 };
	struct err e = { 0 };
	char longest[TLS_PATH_MAX + 2];

	mkdir("d", 0700);
	ck_assert_int_eq(tls_use_directory(&p, "d", &e), -ENOENT);
	ck_assert_int_eq(e.kind, ERR_TLS);
	check_text(&e, (const char *const[]){ "directory d", "no ca-cert.pem" }, 2);
	ck_assert_int_eq(tls_use_directory(&p, "nowhere\n", &e), -ENOENT);
	check_text(&e, (const char *const[]){ "directory nowhere\\x0a" }, 1);

	cert_write(&certs[CA], "d", "ca-cert.pem", NULL);
	ck_assert_int_eq(tls_use_directory(&p, "d", &e), 0);
	ck_assert_str_eq(p.ca, "d/ca-cert.pem");
	ck_assert(!p.crl[0] && !p.cert[0] && !p.key[0] && !p.psk_file[0] && !p.no_verify);

	crl_write(&certs[CA], NULL, 0, 0, "d", "ca-crl.pem");
	cert_write(&certs[CLIENT], "d", "client-cert.pem", NULL);
	memset(&p, 0, sizeof(p));
	ck_assert_int_eq(tls_use_directory(&p, "d", &e), -ENOENT);
	check_text(&e, (const char *const[]){ "client-cert.pem without a client-key.pem" }, 1);
	cert_write(&certs[CLIENT], "d", NULL, "client-key.pem");
	memset(&p, 0, sizeof(p));
	ck_assert_int_eq(tls_use_directory(&p, "d", &e), 0);
	ck_assert_str_eq(p.crl, "d/ca-crl.pem");
	ck_assert_str_eq(p.cert, "d/client-cert.pem");
	ck_assert_str_eq(p.key, "d/client-key.pem");

	/* what is given stays */
	p = (struct tls_params){ .ca = "ca", .crl = "crl", .cert = "cert", .key = "key" };
	ck_assert_int_eq(tls_use_directory(&p, "d", &e), 0);
	ck_assert_str_eq(p.ca, "ca");
	ck_assert_str_eq(p.crl, "crl");
	ck_assert_str_eq(p.cert, "cert");
	ck_assert_str_eq(p.key, "key");

	memset(longest, 'x', sizeof(longest));
	longest[TLS_PATH_MAX] = '\0';
	memset(&p, 0, sizeof(p));
	ck_assert_int_eq(tls_use_directory(&p, longest, &e), -ENAMETOOLONG);
	ck_assert_int_eq(e.kind, ERR_USAGE);
	/* of what can be there, none is cut */
	strcpy(longest, "d");
	for (size_t n = 1; n < TLS_PATH_MAX - 21; n += 2)
		strcpy(longest + n, "/.");
	ck_assert_int_eq(tls_use_directory(&p, longest, &e), 0);
	ck_assert_uint_gt(strlen(p.cert), 1000);
	ck_assert_int_eq(access(p.cert, R_OK), 0);
	ck_assert_int_eq(access(p.key, R_OK), 0);
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
	struct peer_spec spec = { .cert = &certs[SERVER] };
	struct talk k;
	char got[4096];

	begin(&k, &params, &spec);
	ck_assert_int_eq(tls_handshake(k.t, k.fd, &k.e), -EAGAIN);
	/* What has been said is a hello, and has the expected name in it, but nothing else of ours. */
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
	check_text(&k.e, &impostors[_i].text, 1);
	finish(&k);
}
END_TEST

/* An alert instead of an answer, each number there may be: an error with words, never an endless loop. */
START_TEST(alert)
{
	struct tls_params params = { X509 };
	struct peer_spec spec = { .cert = &certs[SERVER] };
	unsigned char record[7] = { 0x15, 3, 3, 0, 2, 2, (unsigned char)_i };
	struct talk k;

	begin(&k, &params, &spec);
	ck_assert_int_eq(tls_handshake(k.t, k.fd, &k.e), -EAGAIN);
	ck_assert_int_eq(write(k.p.fd, record, sizeof(record)), sizeof(record));
	shutdown(k.p.fd, SHUT_WR);
	k.ret = tls_handshake(k.t, k.fd, &k.e);
	ck_assert_int_lt(k.ret, 0);
	ck_assert_int_ne(k.ret, -EAGAIN);
	ck_assert_int_eq(k.e.kind, ERR_TLS);
	check_text(&k.e, (const char *const[]){ "the server" }, 1);
	finish(&k);
}
END_TEST

/* Nor is anybody kept busy by warnings, for which there would be no deadline. */
START_TEST(warnings_without_end)
{
	static const unsigned char record[] = { 0x15, 3, 3, 0, 2, 1, 90 };
	struct tls_params params = { X509 };
	struct peer_spec spec = { .cert = &certs[SERVER] };
	struct talk k;
	int fed = 0;

	begin(&k, &params, &spec);
	ck_assert_int_eq(tls_handshake(k.t, k.fd, &k.e), -EAGAIN);
	do {
		for (int i = 0; i < 20; i++, fed++)
			ck_assert_int_eq(write(k.p.fd, record, sizeof(record)), sizeof(record));
		k.ret = tls_handshake(k.t, k.fd, &k.e);
	} while (k.ret == -EAGAIN && fed < 10000);
	ck_assert_int_eq(k.ret, -EPROTO);
	ck_assert_int_lt(fed, 1000);
	ck_assert_int_eq(k.e.kind, ERR_TLS);
	check_text(&k.e, (const char *const[]){ "warnings" }, 1);
	finish(&k);
}
END_TEST

/* The handshake cut off at each of the server's bytes ends. */
START_TEST(cut_off)
{
	struct tls_params params = { X509 };
	struct peer_spec spec = {
		.cert = &certs[SERVER],
		.priority = version_priorities[_i],
	};
	size_t step = getenv("UNIT_STRIDE") ? strtoul(getenv("UNIT_STRIDE"), NULL, 10) : 1;
	unsigned char flight[8192];
	ssize_t len;
	struct talk k;

	for (size_t cut = 0;; cut += step) {
		begin(&k, &params, &spec);
		ck_assert_int_eq(tls_handshake(k.t, k.fd, &k.e), -EAGAIN);
		peer_step(&k.p);
		len = recv(k.fd, flight, sizeof(flight), 0);
		ck_assert_int_gt(len, 500);
		if (cut > (size_t)len) {
			finish(&k);
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
		finish(&k);
	}
}
END_TEST

/* Nor is a byte taken that somebody has changed. */
START_TEST(changed)
{
	struct tls_params params = { X509 };
	struct peer_spec spec = {
		.cert = &certs[SERVER],
		.priority = version_priorities[_i],
	};
	size_t step = getenv("UNIT_STRIDE") ? strtoul(getenv("UNIT_STRIDE"), NULL, 10) : 7;
	unsigned char flight[8192];
	ssize_t len;
	struct talk k;

	for (size_t at = 0;; at += step) {
		begin(&k, &params, &spec);
		ck_assert_int_eq(tls_handshake(k.t, k.fd, &k.e), -EAGAIN);
		peer_step(&k.p);
		len = recv(k.fd, flight, sizeof(flight), 0);
		ck_assert_int_gt(len, 500);
		if (at >= (size_t)len) {
			finish(&k);
			return;
		}
		flight[at] ^= 0x41;
		ck_assert_int_eq(send(k.p.fd, flight, (size_t)len, 0), len);
		shutdown(k.p.fd, SHUT_WR);
		handshake(&k);
		ck_assert_msg(k.ret < 0, "byte %zu of %zd", at, len);
		ck_assert_int_eq(k.e.kind, ERR_TLS);
		finish(&k);
	}
}
END_TEST

/* --- data ------------------------------------------------------------------------------------- */

static void start(struct talk *k, const char *priority)
{
	struct tls_params params = { X509 };
	struct peer_spec spec = { .cert = &certs[SERVER], .priority = priority };

	ck_assert_uint_lt(strlen(priority), sizeof(params.priority));
	strcpy(params.priority, priority);
	begin(k, &params, &spec);
	handshake(k);
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
	start(&k, version_priorities[_i]);
	send_all(&k, data, SIZE, got);
	ck_assert(!memcmp(data, got, SIZE));
	memset(got, 0, SIZE);
	receive_all(&k, data, SIZE, got);
	ck_assert(!memcmp(data, got, SIZE));
	finish(&k);
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

	start(&k, version_priorities[_i]);
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
	finish(&k);
}
END_TEST

START_TEST(pending_bytes)
{
	char got[8];
	struct talk k;

	start(&k, version_priorities[_i]);
	ck_assert_uint_eq(tls_pending(k.t), 0);
	ck_assert_int_eq(gnutls_record_send(k.p.session, "0123456789", 10), 10);
	ck_assert_int_eq(tls_recv(k.t, got, 4), 4);
	ck_assert_mem_eq(got, "0123", 4);
	ck_assert_uint_eq(tls_pending(k.t), 6);
	ck_assert_int_eq(tls_recv(k.t, got, 8), 6);
	ck_assert_uint_eq(tls_pending(k.t), 0);
	finish(&k);
}
END_TEST

START_TEST(goodbye)
{
	char got[8];
	struct talk k;

	/* by us */
	start(&k, version_priorities[_i]);
	tls_bye(k.t);
	ck_assert_int_eq(gnutls_record_recv(k.p.session, got, sizeof(got)), 0);
	finish(&k);
	/* by the server, with a word and without */
	start(&k, version_priorities[_i]);
	ck_assert_int_eq(gnutls_bye(k.p.session, GNUTLS_SHUT_WR), 0);
	ck_assert_int_eq(tls_recv(k.t, got, sizeof(got)), 0);
	finish(&k);
	start(&k, version_priorities[_i]);
	shutdown(k.p.fd, SHUT_RDWR);
	ck_assert_int_eq(tls_recv(k.t, got, sizeof(got)), 0);
	finish(&k);
	start(&k, version_priorities[_i]);
	shutdown(k.p.fd, SHUT_RDWR);
	ck_assert_int_eq(tls_send(k.t, got, sizeof(got)), -ECONNRESET);
	ck_assert_int_eq(tls_failure(k.t, &k.e), -ECONNRESET);
	check_text(&k.e, (const char *const[]){ "closed the connection after the TLS handshake" },
		   1);
	tls_bye(k.t);
	finish(&k);
	/* an end that somebody has forged in plain text is an error */
	start(&k, version_priorities[_i]);
	ck_assert_int_eq(write(k.p.fd, "\x15\3\3\0\2\1\0", 7), 7);
	ck_assert_int_lt(tls_recv(k.t, got, sizeof(got)), 0);
	finish(&k);
}
END_TEST

START_TEST(changed_data)
{
	unsigned char record[256];
	char got[64];
	struct talk k;
	ssize_t len;

	start(&k, version_priorities[_i]);
	ck_assert_int_eq(gnutls_record_send(k.p.session, "0123456789", 10), 10);
	len = recv(k.fd, record, sizeof(record), 0);
	ck_assert_int_gt(len, 10);
	record[len - 1] ^= 1;
	ck_assert_int_eq(send(k.p.fd, record, (size_t)len, 0), len);
	ck_assert_int_eq(tls_recv(k.t, got, sizeof(got)), -EPROTO);
	ck_assert_int_eq(tls_failure(k.t, &k.e), -EPROTO);
	ck_assert_int_eq(k.e.kind, ERR_TLS);
	check_text(&k.e, (const char *const[]){ "somebody interferes" }, 1);
	finish(&k);
}
END_TEST

/* New keys in the middle (TLS 1.3), by the other side: nothing is lost. */
START_TEST(key_update)
{
	char got[16];
	struct talk k;

	start(&k, version_priorities[1]);
	ck_assert_int_eq(gnutls_session_key_update(k.p.session, 0), 0);
	ck_assert_int_eq(gnutls_record_send(k.p.session, "after", 5), 5);
	for (int i = 0; i < 10 && (k.ret = (int)tls_recv(k.t, got, sizeof(got))) == -EAGAIN; i++)
		;
	ck_assert_int_eq(k.ret, 5);
	exchange(&k);
	finish(&k);
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
		send_all(&k, "a", 1, got);
		send_all(&k, "bc", 2, got);
		receive_all(&k, "defg", 4, got);
	}
	finish(&k);
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
		check_text(&k.e, (const char *const[]){ name, "not for the kernel" }, 2);
		ck_assert_mem_eq(&keys, &none, sizeof(keys));
	}
	exchange(&k);
	finish(&k);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("tls");
	TCase *t = tcase_create("tls");

	tcase_set_timeout(t, 60);
	tcase_add_unchecked_fixture(t, setup, teardown);
	tcase_add_loop_test(t, who_is_let_in, 0, 2 * (int)COUNT(whos));
	tcase_add_loop_test(t, which_cipher, 0, 4);
	tcase_add_test(t, every_cipher);
	tcase_add_loop_test(t, mistake, 0, (int)COUNT(mistakes));
	tcase_add_test(t, nothing_to_free);
	tcase_add_test(t, directories);
	tcase_add_loop_test(t, impostor, 0, (int)COUNT(impostors));
	tcase_add_loop_test(t, alert, 0, 256);
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
