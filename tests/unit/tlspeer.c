/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "tlspeer.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <check.h>

#define MUST(call)                                                                  \
	do {                                                                        \
		int code_ = (call);                                                 \
		ck_assert_msg(code_ >= 0, "%s: %s", #call, gnutls_strerror(code_)); \
	} while (0)

enum {
	YEAR_2000 = 946684800,
};
static const time_t year_2099 = 4070908800;

static void add_names(gnutls_x509_crt_t crt, const struct cert_spec *spec)
{
	unsigned char address[16], der[128] = { 0x30, 0, 0x82 };

	if (spec->raw_dns) {
		size_t len = strlen(spec->raw_dns);

		/* SEQUENCE of one [2] IA5String */
		ck_assert_uint_lt(len, 100);
		der[1] = (unsigned char)(len + 2);
		der[3] = (unsigned char)len;
		memcpy(der + 4, spec->raw_dns, len);
		MUST(gnutls_x509_crt_set_extension_by_oid(crt, GNUTLS_X509EXT_OID_SAN, der, len + 4,
							  0));
	}
	for (size_t i = 0; i < sizeof(spec->dns) / sizeof(spec->dns[0]) && spec->dns[i]; i++)
		MUST(gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_DNSNAME, spec->dns[i],
							  (unsigned)strlen(spec->dns[i]),
							  GNUTLS_FSAN_APPEND));
	for (size_t i = 0; i < sizeof(spec->ip) / sizeof(spec->ip[0]) && spec->ip[i]; i++) {
		bool v6 = strchr(spec->ip[i], ':');

		ck_assert_int_eq(inet_pton(v6 ? AF_INET6 : AF_INET, spec->ip[i], address), 1);
		MUST(gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_IPADDRESS, address,
							  v6 ? 16 : 4, GNUTLS_FSAN_APPEND));
	}
}

void cert_make(struct cert *c, const struct cert_spec *spec)
{
	static unsigned char serial[2];
	const struct cert *issuer = spec->issuer ? spec->issuer : c;

	MUST(gnutls_x509_privkey_init(&c->key));
	MUST(gnutls_x509_privkey_generate(c->key, GNUTLS_PK_ECDSA,
					  GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0));
	MUST(gnutls_x509_crt_init(&c->crt));
	MUST(gnutls_x509_crt_set_version(c->crt, 3));
	MUST(gnutls_x509_crt_set_key(c->crt, c->key));
	serial[0] = 1;
	serial[1]++;
	MUST(gnutls_x509_crt_set_serial(c->crt, serial, sizeof(serial)));
	MUST(gnutls_x509_crt_set_activation_time(c->crt, spec->from ? spec->from : YEAR_2000));
	MUST(gnutls_x509_crt_set_expiration_time(c->crt, spec->until ? spec->until : year_2099));
	if (spec->name)
		MUST(gnutls_x509_crt_set_dn_by_oid(c->crt, GNUTLS_OID_X520_COMMON_NAME, 0,
						   spec->name, (unsigned)strlen(spec->name)));
	add_names(c->crt, spec);
	MUST(gnutls_x509_crt_set_basic_constraints(c->crt, spec->ca, -1));
	MUST(gnutls_x509_crt_set_key_usage(c->crt, spec->ca ? GNUTLS_KEY_KEY_CERT_SIGN |
								      GNUTLS_KEY_CRL_SIGN :
							      GNUTLS_KEY_DIGITAL_SIGNATURE));
	if (!spec->ca)
		MUST(gnutls_x509_crt_set_key_purpose_oid(c->crt,
							 spec->client ? GNUTLS_KP_TLS_WWW_CLIENT :
									GNUTLS_KP_TLS_WWW_SERVER,
							 0));
	MUST(gnutls_x509_crt_sign2(c->crt, issuer->crt, issuer->key, GNUTLS_DIG_SHA256, 0));
}

void cert_free(struct cert *c)
{
	gnutls_x509_crt_deinit(c->crt);
	gnutls_x509_privkey_deinit(c->key);
}

static void write_file(const char *dir, const char *name, const void *data, size_t len,
		       unsigned mode)
{
	char path[PATH_MAX];
	int fd;

	ck_assert_int_lt(snprintf(path, sizeof(path), "%s/%s", dir, name), (int)sizeof(path));
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, data, len), (ssize_t)len);
	/* whatever the umask */
	ck_assert_int_eq(fchmod(fd, mode), 0);
	close(fd);
}

void peer_file(const char *dir, const char *name, const char *text, unsigned mode)
{
	write_file(dir, name, text, strlen(text), mode);
}

void cert_write(const struct cert *c, const char *dir, const char *crt, const char *key)
{
	gnutls_datum_t pem;

	if (crt) {
		MUST(gnutls_x509_crt_export2(c->crt, GNUTLS_X509_FMT_PEM, &pem));
		write_file(dir, crt, pem.data, pem.size, 0600);
		gnutls_free(pem.data);
	}
	if (key) {
		MUST(gnutls_x509_privkey_export2(c->key, GNUTLS_X509_FMT_PEM, &pem));
		write_file(dir, key, pem.data, pem.size, 0600);
		gnutls_free(pem.data);
	}
}

void crl_write(const struct cert *issuer, const struct cert *revoked, time_t from, time_t until,
	       const char *dir, const char *name)
{
	static const unsigned char number = 1;
	gnutls_x509_crl_t crl;
	gnutls_datum_t pem;

	MUST(gnutls_x509_crl_init(&crl));
	MUST(gnutls_x509_crl_set_version(crl, 2));
	MUST(gnutls_x509_crl_set_this_update(crl, from ? from : YEAR_2000));
	MUST(gnutls_x509_crl_set_next_update(crl, until ? until : year_2099));
	MUST(gnutls_x509_crl_set_number(crl, &number, sizeof(number)));
	if (revoked)
		MUST(gnutls_x509_crl_set_crt(crl, revoked->crt, YEAR_2000));
	MUST(gnutls_x509_crl_sign2(crl, issuer->crt, issuer->key, GNUTLS_DIG_SHA256, 0));
	MUST(gnutls_x509_crl_export2(crl, GNUTLS_X509_FMT_PEM, &pem));
	write_file(dir, name, pem.data, pem.size, 0644);
	gnutls_free(pem.data);
	gnutls_x509_crl_deinit(crl);
}

void peer_open(struct peer *p, int fd, const struct peer_spec *spec)
{
	memset(p, 0, sizeof(*p));
	p->fd = fd;
	p->no_alert = spec->no_alert;
	p->result = GNUTLS_E_AGAIN;
	MUST(gnutls_init(&p->session, GNUTLS_SERVER | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL));
	MUST(gnutls_priority_set_direct(p->session,
					spec->priority ? spec->priority :
							 "NORMAL:+ECDHE-PSK:+DHE-PSK:+PSK",
					NULL));
	if (spec->cert) {
		MUST(gnutls_certificate_allocate_credentials(&p->x509));
		MUST(gnutls_certificate_set_x509_key(p->x509,
						     (gnutls_x509_crt_t[]){ spec->cert->crt }, 1,
						     spec->cert->key));
		MUST(gnutls_credentials_set(p->session, GNUTLS_CRD_CERTIFICATE, p->x509));
	}
	if (spec->client_ca) {
		MUST(gnutls_certificate_set_x509_trust(p->x509,
						       (gnutls_x509_crt_t[]){
							       spec->client_ca->crt },
						       1));
		gnutls_certificate_server_set_request(p->session, GNUTLS_CERT_REQUIRE);
		gnutls_session_set_verify_cert(p->session, NULL, 0);
	}
	if (spec->psk_file) {
		MUST(gnutls_psk_allocate_server_credentials(&p->psk));
		MUST(gnutls_psk_set_server_credentials_file(p->psk, spec->psk_file));
		MUST(gnutls_credentials_set(p->session, GNUTLS_CRD_PSK, p->psk));
	}
	if (spec->tickets) {
		MUST(gnutls_session_ticket_key_generate(&p->ticket_key));
		MUST(gnutls_session_ticket_enable_server(p->session, &p->ticket_key));
	}
	gnutls_transport_set_int(p->session, fd);
}

void peer_step(struct peer *p)
{
	int code;

	if (p->result != GNUTLS_E_AGAIN)
		return;
	do {
		code = gnutls_handshake(p->session);
	} while (code == GNUTLS_E_INTERRUPTED || code == GNUTLS_E_WARNING_ALERT_RECEIVED);
	p->result = code;
	if (code >= 0 || code == GNUTLS_E_AGAIN)
		return;
	if (!p->no_alert)
		gnutls_alert_send_appropriate(p->session, code);
	shutdown(p->fd, SHUT_WR);
}

void peer_close(struct peer *p)
{
	gnutls_deinit(p->session);
	if (p->x509)
		gnutls_certificate_free_credentials(p->x509);
	if (p->psk)
		gnutls_psk_free_server_credentials(p->psk);
	gnutls_free(p->ticket_key.data);
	close(p->fd);
}

void peer_unix(int fds[2])
{
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds),
			 0);
}

void peer_tcp(int fds[2])
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t len = sizeof(a);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	ck_assert_int_ge(listener, 0);
	ck_assert_int_eq(bind(listener, (struct sockaddr *)&a, len), 0);
	ck_assert_int_eq(listen(listener, 1), 0);
	ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&a, &len), 0);
	fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_ge(fds[0], 0);
	ck_assert_int_eq(connect(fds[0], (struct sockaddr *)&a, len), 0);
	fds[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	ck_assert_int_ge(fds[1], 0);
	close(listener);
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(fcntl(fds[i], F_SETFL, O_NONBLOCK), 0);
		setsockopt(fds[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	}
}
