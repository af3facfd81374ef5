/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "net/tls_explain.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "base/text.h"
#include "net/tls_verify.h"

enum { CERTIFICATE_NAMES_MAX = 256 };

static void format_date(time_t when, char *buf, size_t cap)
{
	struct tm tm;

	if (when == (time_t)-1 || !gmtime_r(&when, &tm) ||
	    !strftime(buf, cap, "%Y-%m-%d %H:%M:%S UTC", &tm))
		snprintf(buf, cap, "an unknown date");
}

void tls_list_names(gnutls_x509_crt_t crt, char *buf, size_t cap)
{
	char name[256], shown[512];
	unsigned type;
	size_t len, used = 0;
	int ret;

	buf[0] = '\0';
	for (unsigned i = 0; used < cap && i < CERTIFICATE_NAMES_MAX; i++) {
		len = sizeof(name);
		ret = gnutls_x509_crt_get_subject_alt_name2(crt, i, name, &len, &type, NULL);
		if (ret == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE)
			break;
		if (ret < 0)
			continue;
		if (type == GNUTLS_SAN_IPADDRESS &&
		    !inet_ntop(len == 4 ? AF_INET : AF_INET6, name, shown, sizeof(shown)))
			continue;
		if (type == GNUTLS_SAN_DNSNAME)
			text_escape(shown, sizeof(shown), name, len);
		else if (type != GNUTLS_SAN_IPADDRESS)
			continue;
		used += (size_t)snprintf(buf + used, cap - used, "%s%s", used ? ", " : "", shown);
	}
	len = sizeof(name);
	if (!used &&
	    !gnutls_x509_crt_get_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, 0, 0, name, &len))
		text_escape(buf, cap, name, len);
}

/* Names the certificate whose time is over, or has not come: the server's, or one above it. */
static int explain_time(const struct tls *t, bool expired, struct err *e)
{
	struct tls_chain chain = { 0 };
	gnutls_x509_crt_t crt;
	const time_t now = time(NULL);
	const char *whose = "the server's certificate";
	char date[64] = "an unknown date";

	while ((crt = tls_chain_next(&chain, t))) {
		time_t limit = expired ? gnutls_x509_crt_get_expiration_time(crt) :
					 gnutls_x509_crt_get_activation_time(crt);

		if (limit == (time_t)-1 || (expired ? limit < now : limit > now)) {
			format_date(limit, date, sizeof(date));
			if (chain.place > 1)
				whose = "the certificate of an authority above the server's";
			break;
		}
	}
	tls_chain_end(&chain);
	return err_set(e, ERR_TLS, EACCES,
		       expired ? "%s has expired on %s" : "%s is not valid before %s", whose, date);
}

/* The revocation list is too old or too new: it says nothing about today. */
static int explain_stale_crl(const struct tls *t, bool old, struct err *e)
{
	const gnutls_x509_crl_t crl = tls_find_stale_crl(t);
	char date[64] = "an unknown date", shown[TLS_PATH_MAX];

	text_escape(shown, sizeof(shown), t->creds->params.crl, strlen(t->creds->params.crl));
	if (crl)
		format_date(old ? gnutls_x509_crl_get_next_update(crl) :
				  gnutls_x509_crl_get_this_update(crl),
			    date, sizeof(date));
	return err_set(
		e, ERR_TLS, EACCES,
		old ? "the revocation list %s is out of date: its next issue was due on %s (--tls-crl)" :
		      "the revocation list %s is of the future: it is issued on %s (--tls-crl)",
		shown, date);
}

static int explain_verdict(const struct tls *t, struct err *e)
{
	unsigned status = t->verdict;
	gnutls_x509_crt_t crt = tls_peer_certificate(t);
	char names[512] = "", host[512], ca[TLS_PATH_MAX];
	gnutls_datum_t words = { 0 };
	int ret;

	text_escape(host, sizeof(host), t->creds->params.hostname,
		    strlen(t->creds->params.hostname));
	text_escape(ca, sizeof(ca), t->creds->params.ca, strlen(t->creds->params.ca));
	if (crt)
		tls_list_names(crt, names, sizeof(names));

	if (status & GNUTLS_CERT_REVOKED)
		ret = err_set(e, ERR_TLS, EACCES, "the server's certificate is revoked");
	else if (status & (GNUTLS_CERT_SIGNER_NOT_FOUND | GNUTLS_CERT_SIGNER_NOT_CA |
			   GNUTLS_CERT_SIGNATURE_FAILURE))
		ret = err_set(
			e, ERR_TLS, EACCES,
			"the server's certificate is not trusted: no authority in %s has signed it "
			"(--tls-ca)",
			t->creds->params.ca[0] ? ca : "the system's list");
	else if (status & (GNUTLS_CERT_REVOCATION_DATA_SUPERSEDED |
			   GNUTLS_CERT_REVOCATION_DATA_ISSUED_IN_FUTURE))
		ret = explain_stale_crl(t, status & GNUTLS_CERT_REVOCATION_DATA_SUPERSEDED, e);
	else if (status & (GNUTLS_CERT_EXPIRED | GNUTLS_CERT_NOT_ACTIVATED))
		ret = explain_time(t, status & GNUTLS_CERT_EXPIRED, e);
	else if (status & GNUTLS_CERT_UNEXPECTED_OWNER)
		ret = err_set(e, ERR_TLS, EACCES,
			      "the server's certificate is for %s, not for %s (--tls-hostname)",
			      names[0] ? names : "nobody", host);
	else if (status & GNUTLS_CERT_PURPOSE_MISMATCH)
		ret = err_set(e, ERR_TLS, EACCES,
			      "the server's certificate is not made for servers (its key purpose)");
	else if (!gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &words, 0))
		ret = err_set(e, ERR_TLS, EACCES, "the server's certificate: %s", words.data);
	else
		ret = err_set(e, ERR_TLS, EACCES, "the server's certificate is not accepted");
	gnutls_free(words.data);
	if (crt)
		gnutls_x509_crt_deinit(crt);
	return ret;
}

/*
 * The reason where a server has asked for a certificate and got none, which may be optional for it;
 * else NULL.
 */
static const char *certificate_missing(const struct tls *t)
{
	if (t->creds->psk || !gnutls_certificate_client_get_request_status(t->session) ||
	    gnutls_certificate_get_ours(t->session))
		return NULL;
	return t->creds->params.cert[0] ?
		       "it wants a certificate by another authority than ours is by" :
		       "it wants a certificate of ours (--tls-cert, --tls-key)";
}

static int explain_alert(const struct tls *t, struct err *e)
{
	gnutls_alert_description_t alert = gnutls_alert_get(t->session);
	const char *why = certificate_missing(t);

	if (why)
		goto out;
	switch (alert) {
	case GNUTLS_A_UNKNOWN_PSK_IDENTITY:
	case GNUTLS_A_DECRYPT_ERROR:
	case GNUTLS_A_BAD_RECORD_MAC:
	case GNUTLS_A_ILLEGAL_PARAMETER:
		why = t->creds->psk ? "it does not take our pre-shared key: another user or key" :
				      "it could not decrypt what we sent";
		break;
	case GNUTLS_A_CERTIFICATE_REQUIRED:
	case GNUTLS_A_BAD_CERTIFICATE:
	case GNUTLS_A_UNKNOWN_CA:
	case GNUTLS_A_ACCESS_DENIED:
	case GNUTLS_A_CERTIFICATE_EXPIRED:
		why = t->creds->params.cert[0] ?
			      "it does not take our certificate" :
			      "it wants a certificate of ours (--tls-cert, --tls-key)";
		break;
	case GNUTLS_A_HANDSHAKE_FAILURE:
	case GNUTLS_A_INSUFFICIENT_SECURITY:
	case GNUTLS_A_PROTOCOL_VERSION:
		why = "no common protocol version, cipher or kind of credentials";
		break;
	default:
		why = "see its log";
		break;
	}
out:
	return err_set(e, ERR_TLS, EACCES, "the server refuses TLS: %s (alert \"%s\")", why,
		       gnutls_alert_get_name(alert) ? gnutls_alert_get_name(alert) : "unknown");
}

/* GnuTLS takes an end in the middle of a record for a wrong record. */
static bool peer_has_closed(const struct tls *t)
{
	char byte;

	return !recv(gnutls_transport_get_int(t->session), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
}

static int explain_close(const struct tls *t, const char *when, struct err *e)
{
	const char *why = certificate_missing(t);

	return err_set(e, ERR_TLS, ECONNRESET, "the server closed the connection %s; %s", when,
		       why                      ? why :
		       t->creds->psk            ? "see its log, it may not know our key" :
		       t->creds->params.cert[0] ? "see its log, it may not take our certificate" :
						  "see its log");
}

int tls_explain_handshake(const struct tls *t, int code, struct err *e)
{
	if (code == GNUTLS_E_UNEXPECTED_PACKET_LENGTH && peer_has_closed(t))
		code = GNUTLS_E_PREMATURE_TERMINATION;
	/* nbd-server sends its error in plain text. */
	if (code == GNUTLS_E_UNEXPECTED_PACKET && certificate_missing(t))
		return err_set(e, ERR_TLS, EACCES, "the server breaks off the TLS handshake: %s",
			       certificate_missing(t));
	switch (code) {
	case GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR:
		return explain_verdict(t, e);
	case GNUTLS_E_FATAL_ALERT_RECEIVED:
		return explain_alert(t, e);
	case GNUTLS_E_PREMATURE_TERMINATION:
	case GNUTLS_E_SESSION_EOF:
	case GNUTLS_E_PULL_ERROR:
	case GNUTLS_E_PUSH_ERROR:
		return explain_close(t, "in the TLS handshake", e);
	case GNUTLS_E_UNSUPPORTED_VERSION_PACKET:
		return err_set(
			e, ERR_TLS, EPROTO,
			"the server speaks no version of TLS that is allowed here, or no TLS at all");
	case GNUTLS_E_UNEXPECTED_PACKET_LENGTH:
	case GNUTLS_E_UNEXPECTED_PACKET:
	case GNUTLS_E_RECORD_OVERFLOW:
		return err_set(
			e, ERR_TLS, EPROTO,
			"what the server sends after it agreed to TLS is not TLS: it is broken, or "
			"somebody interferes (%s)",
			gnutls_strerror(code));
	case GNUTLS_E_INSUFFICIENT_CREDENTIALS:
		return err_set(
			e, ERR_TLS, EACCES,
			t->creds->psk ?
				"the server wants to be known by its certificate, not by a pre-shared key" :
				"the server wants a pre-shared key (--tls-psk-file)");
	default:
		return err_set(e, ERR_TLS, EPROTO, "TLS handshake: %s", gnutls_strerror(code));
	}
}

int tls_explain_end(const struct tls *t, struct err *e)
{
	switch (t->failure) {
	case 0: /* end without an error */
	case GNUTLS_E_PULL_ERROR:
	case GNUTLS_E_PUSH_ERROR:
		return explain_close(t, "after the TLS handshake", e);
	case GNUTLS_E_FATAL_ALERT_RECEIVED:
		return explain_alert(t, e);
	default:
		return err_set(
			e, ERR_TLS, EPROTO,
			"the TLS session is damaged: the server is broken, or somebody interferes (%s)",
			gnutls_strerror(t->failure));
	}
}
