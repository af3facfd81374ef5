/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "net/tls_verify.h"

#include <string.h>
#include <time.h>

enum { CHAIN_MAX = 16 };

static gnutls_x509_crt_t certificate_at(const struct tls *t, unsigned place)
{
	const gnutls_datum_t *list;
	gnutls_x509_crt_t crt = NULL;
	unsigned count = 0;

	list = gnutls_certificate_get_peers(t->session, &count);
	if (!list || place >= count || gnutls_x509_crt_init(&crt))
		return NULL;
	if (gnutls_x509_crt_import(crt, list + place, GNUTLS_X509_FMT_DER)) {
		gnutls_x509_crt_deinit(crt);
		return NULL;
	}
	return crt;
}

gnutls_x509_crt_t tls_peer_certificate(const struct tls *t)
{
	return certificate_at(t, 0);
}

void tls_chain_end(struct tls_chain *c)
{
	if (c->crt && !c->trusted)
		gnutls_x509_crt_deinit(c->crt);
	c->crt = NULL;
}

gnutls_x509_crt_t tls_chain_next(struct tls_chain *c, const struct tls *t)
{
	gnutls_x509_crt_t above = NULL;
	bool trusted = false;

	if (c->place < CHAIN_MAX && !c->trusted)
		above = certificate_at(t, c->place);
	if (c->place < CHAIN_MAX && !above && c->crt &&
	    !gnutls_certificate_get_issuer(t->creds->x509, c->crt, &above, 0)) {
		/* The certificate at the top is its own issuer. */
		trusted = above != c->crt;
		if (!trusted)
			above = NULL;
	}
	tls_chain_end(c);
	*c = (struct tls_chain){ .crt = above, .place = c->place + 1, .trusted = trusted };
	return above;
}

/* A list that does not say when the next one is due is valid for ever. */
static bool is_of_today(gnutls_x509_crl_t crl)
{
	const time_t now = time(NULL), next = gnutls_x509_crl_get_next_update(crl);

	return gnutls_x509_crl_get_this_update(crl) <= now && (next == (time_t)-1 || next >= now);
}

/* Finds a list by the authority that has signed crt that is not of today, unless another one is. */
static gnutls_x509_crl_t find_stale_crl_for(const struct tls_creds *c, gnutls_x509_crt_t crt)
{
	gnutls_datum_t signer = { 0 }, issuer;
	gnutls_x509_crl_t found = NULL;

	if (gnutls_x509_crt_get_raw_issuer_dn(crt, &signer))
		return NULL;
	for (unsigned i = 0; i < c->crl_count; i++) {
		bool same;

		if (gnutls_x509_crl_get_raw_issuer_dn(c->crls[i], &issuer))
			continue;
		same = issuer.size == signer.size && !memcmp(issuer.data, signer.data, signer.size);
		gnutls_free(issuer.data);
		if (!same)
			continue;
		found = c->crls[i];
		if (is_of_today(found)) {
			found = NULL;
			break;
		}
	}
	gnutls_free(signer.data);
	return found;
}

gnutls_x509_crl_t tls_find_stale_crl(const struct tls *t)
{
	gnutls_x509_crl_t found = NULL;
	struct tls_chain chain = { 0 };
	gnutls_x509_crt_t crt;

	while (!found && (crt = tls_chain_next(&chain, t)))
		found = find_stale_crl_for(t->creds, crt);
	tls_chain_end(&chain);
	return found;
}

int tls_verify(gnutls_session_t session)
{
	struct tls *t = gnutls_session_get_ptr(session);
	const char *hostname = t->creds->params.hostname;
	gnutls_typed_vdata_st expected[] = {
		{ GNUTLS_DT_DNS_HOSTNAME, (unsigned char *)(uintptr_t)hostname,
		  (unsigned)strlen(hostname) },
		{ GNUTLS_DT_KEY_PURPOSE_OID, (unsigned char *)(uintptr_t)GNUTLS_KP_TLS_WWW_SERVER,
		  0 },
	};
	gnutls_x509_crl_t stale;

	t->verdict = GNUTLS_CERT_INVALID;
	if (gnutls_certificate_verify_peers(session, expected, 2, &t->verdict))
		return GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR;
	stale = t->verdict ? NULL : tls_find_stale_crl(t);
	if (stale)
		t->verdict = GNUTLS_CERT_INVALID |
			     (gnutls_x509_crl_get_this_update(stale) > time(NULL) ?
				      GNUTLS_CERT_REVOCATION_DATA_ISSUED_IN_FUTURE :
				      GNUTLS_CERT_REVOCATION_DATA_SUPERSEDED);
	return t->verdict ? GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR : 0;
}
