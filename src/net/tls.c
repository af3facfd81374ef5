/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "net/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <gnutls/pkcs11.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"

#ifdef __aarch64__
#include <asm/hwcap.h>
#endif

/* Bytes from off on, len of them. */
struct buffer {
	uint8_t *data;
	size_t off, len, cap;
};

enum {
	CERTIFICATE_NAMES_MAX = 256, /* that are looked at */
	CHAIN_MAX = 16,
	WARNINGS_MAX = 8, /* in one handshake */
};

struct tls {
	gnutls_session_t session;
	gnutls_certificate_credentials_t x509;
	gnutls_psk_client_credentials_t psk;
	gnutls_x509_crl_t *lists; /* of revoked certificates */
	unsigned list_count;
	bool borrowed; /* all of these are another session's */
	struct tls_params params;
	unsigned warnings;
	int failure;      /* of gnutls_record_send or _recv, 0: none yet */
	unsigned verdict; /* GNUTLS_CERT_ flags on the server's certificate */
	/* records, after tls_detach_io */
	struct buffer in, out;
};

static bool is_token(const char *path)
{
	return !strncmp(path, "pkcs11:", 7);
}

/* For messages: a PIN may be in the query of a PKCS#11 URI. */
static void show_path(char *buf, size_t cap, const char *path)
{
	text_escape(buf, cap, path, is_token(path) ? strcspn(path, "?") : strlen(path));
}

/* What is wrong with a file, as GnuTLS tells it. */
static int file_error(const char *what, const char *path, int code, struct err *e)
{
	char shown[TLS_PATH_MAX];

	show_path(shown, sizeof(shown), path);
	return err_set(e, ERR_TLS, EINVAL, "%s %s: %s", what, shown, gnutls_strerror(code));
}

/*
 * RFC 7512 section 2.4: the file that "pin-source" in the query of a PKCS#11 URI names. The library
 * knows it as a path only, not as the "file:" URI of the standard.
 */
static bool find_pin_source(const char *uri, char *path, size_t cap)
{
	static const char key[] = "pin-source=";
	const char *p = strchr(uri, '?');
	size_t n = 0;

	while (p && strncmp(p + 1, key, strlen(key)))
		p = strchr(p + 1, '&');
	if (!p)
		return false;
	p += 1 + strlen(key);
	if (!strncmp(p, "file:", 5))
		p += strncmp(p, "file:///", 8) ? 5 : 7;
	while (*p && *p != '&' && n + 1 < cap) {
		unsigned byte = (unsigned char)*p++;
		int used = 0;

		if (byte == '%' && sscanf(p, "%2x%n", &byte, &used) == 1)
			p += used;
		path[n++] = (char)byte;
	}
	path[n] = '\0';
	return n;
}

/* A secret that anybody can read is none; one that others can write may be somebody else's. */
static int check_secret(const char *what, const char *path, struct err *e)
{
	char shown[TLS_PATH_MAX], pin[TLS_PATH_MAX + 1];
	struct stat st;

	if (is_token(path)) {
		if (!find_pin_source(path, pin, sizeof(pin)))
			return 0;
		what = "PIN";
		path = pin;
	}
	text_escape(shown, sizeof(shown), path, strlen(path));
	if (stat(path, &st))
		return err_sys(e, ERR_TLS, errno, "%s %s", what, shown);
	if (st.st_mode & (S_IROTH | S_IWOTH | S_IWGRP))
		return err_set(
			e, ERR_TLS, EACCES,
			"%s %s: other users may read or change it (mode %03o); chmod 600 it, and "
			"replace the key if they might have",
			what, shown, (unsigned)(st.st_mode & 0777));
	return 0;
}

static bool use_file(char *slot, const char *dir, const char *name)
{
	char path[TLS_PATH_MAX + 1];
	int n = snprintf(path, sizeof(path), "%s/%s", dir, name);

	if (slot[0] || n < 0 || (size_t)n >= sizeof(path) || access(path, F_OK))
		return slot[0];
	memcpy(slot, path, sizeof(path));
	return true;
}

int tls_use_directory(struct tls_params *p, const char *dir, struct err *e)
{
	char shown[TLS_PATH_MAX];

	text_escape(shown, sizeof(shown), dir, strlen(dir));
	if (strlen(dir) > TLS_PATH_MAX - 20)
		return err_set(e, ERR_USAGE, ENAMETOOLONG, "directory %s: name too long", shown);
	if (!use_file(p->ca, dir, "ca-cert.pem"))
		return err_set(e, ERR_TLS, ENOENT, "directory %s: there is no ca-cert.pem in it",
			       shown);
	use_file(p->crl, dir, "ca-crl.pem");
	if (use_file(p->cert, dir, "client-cert.pem") && !use_file(p->key, dir, "client-key.pem"))
		return err_set(e, ERR_TLS, ENOENT,
			       "directory %s: client-cert.pem without a client-key.pem", shown);
	return 0;
}

/* The library asks for the PIN of the token with our key, which is not in its URI. */
static int read_pin(void *ctx, int attempt, const char *token_url, const char *token_label,
		    unsigned flags, char *pin, size_t cap)
{
	const struct tls *t = ctx;
	char path[TLS_PATH_MAX + 1];
	int ret = GNUTLS_E_PKCS11_PIN_ERROR;
	FILE *f;

	(void)token_url;
	(void)token_label;
	/* A wrong one will not be right the next time, and a token locks itself after a few. */
	if (attempt || flags & GNUTLS_PIN_WRONG ||
	    !find_pin_source(t->params.key, path, sizeof(path)))
		return ret;
	f = fopen(path, "re");
	if (f && fgets(pin, (int)cap, f)) {
		pin[strcspn(pin, "\r\n")] = '\0';
		ret = 0;
	}
	if (f)
		fclose(f);
	return ret;
}

/* A key or certificate of ours that is not right, in a file or a token. */
static int own_error(const struct tls_params *p, int code, struct err *e)
{
	char shown[TLS_PATH_MAX];

	if (code != GNUTLS_E_PKCS11_PIN_ERROR)
		return file_error("certificate and key", is_token(p->key) ? p->key : p->cert, code,
				  e);
	show_path(shown, sizeof(shown), p->key);
	return err_set(e, ERR_TLS, EACCES,
		       "private key %s: the token wants a PIN, or another one "
		       "(?pin-source=file:PATH behind it)",
		       shown);
}

static int load_lists(struct tls *t)
{
	gnutls_datum_t pem = { 0 };
	int n = gnutls_load_file(t->params.crl, &pem);

	if (!n)
		n = gnutls_x509_crl_list_import2(&t->lists, &t->list_count, &pem,
						 GNUTLS_X509_FMT_PEM, 0);
	gnutls_free(pem.data);
	if (n < 0) {
		t->lists = NULL;
		t->list_count = 0;
		return n;
	}
	if (!t->list_count)
		return GNUTLS_E_NO_CERTIFICATE_FOUND;
	/* takes copies */
	return gnutls_certificate_set_x509_crl(t->x509, t->lists, (int)t->list_count);
}

static int load_x509(struct tls *t, struct err *e)
{
	const struct tls_params *p = &t->params;
	int n;

	if (gnutls_certificate_allocate_credentials(&t->x509))
		return err_sys(e, ERR_FAILED, ENOMEM, "TLS");
	n = p->ca[0] ? gnutls_certificate_set_x509_trust_file(t->x509, p->ca, GNUTLS_X509_FMT_PEM) :
		       gnutls_certificate_set_x509_system_trust(t->x509);
	if (n < 0)
		return file_error("certificate authorities", p->ca[0] ? p->ca : "of the system", n,
				  e);
	if (!n && p->ca[0])
		return file_error("certificate authorities", p->ca, GNUTLS_E_NO_CERTIFICATE_FOUND,
				  e);
	if (p->crl[0]) {
		n = load_lists(t);
		if (n < 0)
			return file_error("revocation list", p->crl, n, e);
	}
	if (!p->cert[0])
		return 0;
	n = check_secret("private key", p->key, e);
	if (n)
		return n;
	gnutls_certificate_set_pin_function(t->x509, read_pin, t);
	n = gnutls_certificate_set_x509_key_file2(t->x509, p->cert, p->key, GNUTLS_X509_FMT_PEM,
						  NULL, 0);
	return n < 0 ? own_error(p, n, e) : 0;
}

/* The line of the user wanted, or the only one: "user:hexadecimal key", as psktool writes it. */
static int find_key(const struct tls_params *p, FILE *f, char *user, size_t cap, char **key,
		    struct err *e)
{
	char *line = NULL, *colon;
	size_t size = 0;
	unsigned found = 0;
	ssize_t len;
	int ret = 0;

	while (!ret && (len = getline(&line, &size, f)) > 0) {
		while (len && strchr("\r\n", line[len - 1]))
			line[--len] = '\0';
		colon = strrchr(line, ':');
		if (!colon || line[0] == '#')
			continue;
		*colon = '\0';
		if (p->psk_user[0] && strcmp(p->psk_user, line))
			continue;
		if (found++)
			continue;
		if (strlen(line) >= cap) {
			ret = err_set(e, ERR_TLS, ENAMETOOLONG, "the user's name is too long");
			continue;
		}
		strcpy(user, line);
		*key = strdup(colon + 1);
		if (!*key)
			ret = err_sys(e, ERR_FAILED, ENOMEM, "read");
	}
	if (line) {
		explicit_bzero(line, size);
		free(line);
	}
	if (ret)
		return ret;
	if (!found)
		return err_set(e, ERR_TLS, ENOKEY, "no key for the user in it");
	if (found > 1 && !p->psk_user[0])
		return err_set(e, ERR_USAGE, EINVAL,
			       "more than one user in it, which one? (--tls-psk-user)");
	return 0;
}

static int load_psk(struct tls *t, struct err *e)
{
	const struct tls_params *p = &t->params;
	char user[TLS_NAME_MAX + 1], shown[TLS_PATH_MAX], *key = NULL;
	gnutls_datum_t hex;
	FILE *f;
	int ret;

	ret = check_secret("key file", p->psk_file, e);
	if (ret)
		return ret;
	text_escape(shown, sizeof(shown), p->psk_file, strlen(p->psk_file));
	f = fopen(p->psk_file, "re");
	if (!f)
		return err_sys(e, ERR_TLS, errno, "key file %s", shown);
	ret = find_key(p, f, user, sizeof(user), &key, e);
	fclose(f);
	if (ret) {
		err_wrap(e, "key file %s", shown);
		goto out;
	}
	hex = (gnutls_datum_t){ .data = (unsigned char *)key, .size = (unsigned)strlen(key) };
	ret = gnutls_psk_allocate_client_credentials(&t->psk);
	if (!ret)
		ret = gnutls_psk_set_client_credentials(t->psk, user, &hex, GNUTLS_PSK_KEY_HEX);
	if (ret)
		ret = file_error("key file", p->psk_file, ret, e);
out:
	if (key)
		explicit_bzero(key, strlen(key));
	free(key);
	return ret;
}

static bool is_address(const char *host)
{
	struct in6_addr a;

	return inet_pton(AF_INET, host, &a) == 1 || inet_pton(AF_INET6, host, &a) == 1;
}

/* Whether AES-GCM is done by instructions of the processor: else CHACHA20 is several times as fast. */
static bool has_aes(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_cpu_init();
	return __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul");
#elif defined(__aarch64__)
	return (getauxval(AT_HWCAP) & (HWCAP_AES | HWCAP_PMULL)) == (HWCAP_AES | HWCAP_PMULL);
#elif defined(__s390x__) || (defined(__powerpc64__) && defined(__LITTLE_ENDIAN__))
	return true;
#else
	return false;
#endif
}

static void add_cipher(char *buf, size_t cap, gnutls_cipher_algorithm_t cipher)
{
	size_t len = strlen(buf);

	snprintf(buf + len, cap - len, ":+%s", gnutls_cipher_get_name(cipher));
}

/*
 * Appends to base the same ciphers that the system's policy has with it, in another order: those for the
 * kernel (tls_get_keys) come first, of them the one that is the fastest on this processor.
 */
static int order_ciphers(const char *base, char *buf, size_t cap)
{
	static const gnutls_cipher_algorithm_t orders[2][3] = {
		{ GNUTLS_CIPHER_CHACHA20_POLY1305, GNUTLS_CIPHER_AES_128_GCM,
		  GNUTLS_CIPHER_AES_256_GCM },
		{ GNUTLS_CIPHER_AES_128_GCM, GNUTLS_CIPHER_AES_256_GCM,
		  GNUTLS_CIPHER_CHACHA20_POLY1305 },
	};
	const gnutls_cipher_algorithm_t *first = orders[has_aes()];
	const unsigned *list;
	gnutls_priority_t p;
	int code, count;

	code = gnutls_priority_init2(&p, base, NULL, GNUTLS_PRIORITY_INIT_DEF_APPEND);
	if (code)
		return code;
	count = gnutls_priority_cipher_list(p, &list);
	snprintf(buf, cap, "%s:-CIPHER-ALL", base);
	for (int k = 0; k < 3; k++)
		for (int i = 0; i < count; i++)
			if (list[i] == first[k])
				add_cipher(buf, cap, first[k]);
	for (int i = 0; i < count; i++)
		if (list[i] != first[0] && list[i] != first[1] && list[i] != first[2])
			add_cipher(buf, cap, list[i]);
	gnutls_priority_deinit(p);
	return 0;
}

static int set_priority(struct tls *t, struct err *e)
{
	const char *where = NULL;
	char shown[80], ordered[1024];
	int code;

	if (t->params.priority[0]) {
		code = gnutls_priority_set_direct(t->session, t->params.priority, &where);
		if (!code)
			return 0;
		where = where ? where : t->params.priority;
		text_escape(shown, sizeof(shown), where, strlen(where));
		return err_set(e, ERR_USAGE, EINVAL, "TLS priority string, at \"%s\": %s", shown,
			       gnutls_strerror(code));
	}
	/*
	 * The system's policy, but nothing below TLS 1.2; a key that both know only where that is
	 * what we have.
	 */
	code = order_ciphers(
		t->psk ?
			"-VERS-TLS1.1:-VERS-TLS1.0:-VERS-DTLS-ALL:-KX-ALL:+ECDHE-PSK:+DHE-PSK:+PSK" :
			"-VERS-TLS1.1:-VERS-TLS1.0:-VERS-DTLS-ALL",
		ordered, sizeof(ordered));
	if (!code)
		code = gnutls_set_default_priority_append(t->session, ordered, &where, 0);
	if (code)
		return err_set(e, ERR_TLS, EINVAL, "TLS priorities of the system: %s",
			       gnutls_strerror(code));
	return 0;
}

/* The certificate at a place of the server's chain, its own is at 0; the caller's, or NULL. */
static gnutls_x509_crt_t peer_certificate(const struct tls *t, unsigned place)
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

/*
 * Up the server's chain: the certificate at a place of it, among those that the server has sent and, above
 * them, among those that we trust (then *ours, and not to be freed), or NULL. Takes crt, the one below.
 */
static gnutls_x509_crt_t climb(const struct tls *t, unsigned place, gnutls_x509_crt_t crt,
			       bool *ours)
{
	gnutls_x509_crt_t above = NULL;
	bool trusted = false;

	if (place < CHAIN_MAX && !*ours)
		above = peer_certificate(t, place);
	if (place < CHAIN_MAX && !above && crt &&
	    !gnutls_certificate_get_issuer(t->x509, crt, &above, 0)) {
		/* the top is its own issuer */
		trusted = above != crt;
		if (!trusted)
			above = NULL;
	}
	if (crt && !*ours)
		gnutls_x509_crt_deinit(crt);
	*ours = trusted;
	return above;
}

/* Whether the list is good for today. One that does not say when the next is due is good for ever. */
static bool is_of_today(gnutls_x509_crl_t crl)
{
	const time_t now = time(NULL), next = gnutls_x509_crl_get_next_update(crl);

	return gnutls_x509_crl_get_this_update(crl) <= now && (next == (time_t)-1 || next >= now);
}

/* Among the lists of the authority that has signed crt, one that is not of today where none is; or NULL. */
static gnutls_x509_crl_t find_wrong_list_for(const struct tls *t, gnutls_x509_crt_t crt)
{
	gnutls_datum_t signer = { 0 }, issuer;
	gnutls_x509_crl_t found = NULL;

	if (gnutls_x509_crt_get_raw_issuer_dn(crt, &signer))
		return NULL;
	for (unsigned i = 0; i < t->list_count; i++) {
		bool same;

		if (gnutls_x509_crl_get_raw_issuer_dn(t->lists[i], &issuer))
			continue;
		same = issuer.size == signer.size && !memcmp(issuer.data, signer.data, signer.size);
		gnutls_free(issuer.data);
		if (!same)
			continue;
		found = t->lists[i];
		if (is_of_today(found)) {
			found = NULL;
			break;
		}
	}
	gnutls_free(signer.data);
	return found;
}

static gnutls_x509_crl_t find_wrong_list(const struct tls *t)
{
	gnutls_x509_crl_t found = NULL;
	gnutls_x509_crt_t crt = NULL;
	bool ours = false;

	for (unsigned i = 0; !found && (crt = climb(t, i, crt, &ours)); i++)
		found = find_wrong_list_for(t, crt);
	if (crt && !ours)
		gnutls_x509_crt_deinit(crt);
	return found;
}

/*
 * Called in the handshake when the server's certificate is there: everything that the library looks at,
 * and the age of revocation lists, at which it does not look.
 */
static int verify(gnutls_session_t session)
{
	struct tls *t = gnutls_session_get_ptr(session);
	gnutls_typed_vdata_st expected[] = {
		{ GNUTLS_DT_DNS_HOSTNAME, (unsigned char *)t->params.hostname,
		  (unsigned)strlen(t->params.hostname) },
		{ GNUTLS_DT_KEY_PURPOSE_OID, (unsigned char *)(uintptr_t)GNUTLS_KP_TLS_WWW_SERVER,
		  0 },
	};
	gnutls_x509_crl_t list;

	t->verdict = GNUTLS_CERT_INVALID;
	if (gnutls_certificate_verify_peers(session, expected, 2, &t->verdict))
		return GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR;
	list = t->verdict ? NULL : find_wrong_list(t);
	if (list)
		t->verdict = GNUTLS_CERT_INVALID |
			     (gnutls_x509_crl_get_this_update(list) > time(NULL) ?
				      GNUTLS_CERT_REVOCATION_DATA_ISSUED_IN_FUTURE :
				      GNUTLS_CERT_REVOCATION_DATA_SUPERSEDED);
	return t->verdict ? GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR : 0;
}

static int start_session(struct tls *t, struct err *e)
{
	struct tls_params *p = &t->params;
	int code;

	/* No tickets: one that reached the kernel would end the connection, and we resume nothing. */
	code = gnutls_init(&t->session,
			   GNUTLS_CLIENT | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL | GNUTLS_NO_TICKETS);
	if (code)
		return err_sys(e, ERR_FAILED, ENOMEM, "TLS");
	code = set_priority(t, e);
	if (code)
		return code;
	if (t->psk) {
		code = gnutls_credentials_set(t->session, GNUTLS_CRD_PSK, t->psk);
	} else {
		code = gnutls_credentials_set(t->session, GNUTLS_CRD_CERTIFICATE, t->x509);
		if (!p->no_verify) {
			gnutls_session_set_ptr(t->session, t);
			gnutls_session_set_verify_function(t->session, verify);
		}
	}
	/* RFC 6066: addresses are not sent */
	if (!code && p->hostname[0] && !is_address(p->hostname))
		code = gnutls_server_name_set(t->session, GNUTLS_NAME_DNS, p->hostname,
					      strlen(p->hostname));
	if (code)
		return err_set(e, ERR_TLS, EINVAL, "TLS: %s", gnutls_strerror(code));
	return 0;
}

int tls_new(struct tls **out, const struct tls_params *p, struct err *e)
{
	struct tls *t = calloc(1, sizeof(*t));
	int ret;

	*out = NULL;
	if (!t)
		return err_sys(e, ERR_FAILED, ENOMEM, "TLS");
	t->params = *p;
	if (p->psk_file[0] && (p->ca[0] || p->crl[0] || p->cert[0] || p->key[0] || p->no_verify))
		ret = err_set(e, ERR_USAGE, EINVAL,
			      "a pre-shared key and certificates exclude each other");
	else if (p->psk_user[0] && !p->psk_file[0])
		ret = err_set(e, ERR_USAGE, EINVAL,
			      "the user of a pre-shared key is given, but no key file "
			      "(--tls-psk-file)");
	else if (!p->cert[0] != !p->key[0])
		ret = err_set(e, ERR_USAGE, EINVAL, "a certificate and its key belong together");
	else if (!p->psk_file[0] && !p->no_verify && !p->hostname[0])
		ret = err_set(
			e, ERR_USAGE, EINVAL,
			"whose certificate is expected? a socket that is not TCP has no host name "
			"(--tls-hostname)");
	else
		ret = p->psk_file[0] ? load_psk(t, e) : load_x509(t, e);
	if (!ret)
		ret = start_session(t, e);
	if (ret) {
		tls_free(t);
		return ret;
	}
	*out = t;
	return 0;
}

int tls_again(struct tls **out, const struct tls *like, struct err *e)
{
	struct tls *t = calloc(1, sizeof(*t));
	int ret;

	*out = NULL;
	if (!t)
		return err_sys(e, ERR_FAILED, ENOMEM, "TLS");
	t->params = like->params;
	t->x509 = like->x509;
	t->psk = like->psk;
	t->lists = like->lists;
	t->list_count = like->list_count;
	t->borrowed = true;
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
	if (t->x509 && !t->borrowed)
		gnutls_certificate_free_credentials(t->x509);
	if (t->psk && !t->borrowed)
		gnutls_psk_free_client_credentials(t->psk);
	for (unsigned i = 0; i < t->list_count && !t->borrowed; i++)
		gnutls_x509_crl_deinit(t->lists[i]);
	if (!t->borrowed)
		gnutls_free(t->lists);
	free(t->in.data);
	free(t->out.data);
	explicit_bzero(t, sizeof(*t));
	free(t);
}

static void format_date(time_t when, char *buf, size_t cap)
{
	struct tm tm;

	if (when == (time_t)-1 || !gmtime_r(&when, &tm) ||
	    !strftime(buf, cap, "%Y-%m-%d %H:%M:%S UTC", &tm))
		snprintf(buf, cap, "an unknown date");
}

/* The names a certificate is for, escaped, separated by commas. */
static void list_names(gnutls_x509_crt_t crt, char *buf, size_t cap)
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

/*
 * Whose time is over, or has not come: the server's certificate, or an authority's above it, among
 * those that it sent or those that we trust.
 */
static int wrong_time(const struct tls *t, bool expired, struct err *e)
{
	gnutls_x509_crt_t crt = NULL;
	const time_t now = time(NULL);
	const char *whose = "the server's certificate";
	char date[64] = "an unknown date";
	bool ours = false;
	time_t limit;

	for (unsigned i = 0; (crt = climb(t, i, crt, &ours)); i++) {
		limit = expired ? gnutls_x509_crt_get_expiration_time(crt) :
				  gnutls_x509_crt_get_activation_time(crt);
		if (limit == (time_t)-1 || (expired ? limit < now : limit > now)) {
			format_date(limit, date, sizeof(date));
			if (i)
				whose = "the certificate of an authority above the server's";
			break;
		}
	}
	if (crt && !ours)
		gnutls_x509_crt_deinit(crt);
	return err_set(e, ERR_TLS, EACCES,
		       expired ? "%s has expired on %s" : "%s is not valid before %s", whose, date);
}

/* The revocation list has been overtaken by time, or is too early: it says nothing about today. */
static int wrong_list(const struct tls *t, bool old, struct err *e)
{
	const gnutls_x509_crl_t crl = find_wrong_list(t);
	char date[64] = "an unknown date", shown[TLS_PATH_MAX];

	text_escape(shown, sizeof(shown), t->params.crl, strlen(t->params.crl));
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

static int not_verified(const struct tls *t, struct err *e)
{
	unsigned status = t->verdict;
	gnutls_x509_crt_t crt = peer_certificate(t, 0);
	char names[512] = "", host[512], ca[TLS_PATH_MAX];
	gnutls_datum_t words = { 0 };
	int ret;

	text_escape(host, sizeof(host), t->params.hostname, strlen(t->params.hostname));
	text_escape(ca, sizeof(ca), t->params.ca, strlen(t->params.ca));
	if (crt)
		list_names(crt, names, sizeof(names));

	if (status & GNUTLS_CERT_REVOKED)
		ret = err_set(e, ERR_TLS, EACCES, "the server's certificate is revoked");
	else if (status & (GNUTLS_CERT_SIGNER_NOT_FOUND | GNUTLS_CERT_SIGNER_NOT_CA |
			   GNUTLS_CERT_SIGNATURE_FAILURE))
		ret = err_set(
			e, ERR_TLS, EACCES,
			"the server's certificate is not trusted: no authority in %s has signed it "
			"(--tls-ca)",
			t->params.ca[0] ? ca : "the system's list");
	else if (status & (GNUTLS_CERT_REVOCATION_DATA_SUPERSEDED |
			   GNUTLS_CERT_REVOCATION_DATA_ISSUED_IN_FUTURE))
		ret = wrong_list(t, status & GNUTLS_CERT_REVOCATION_DATA_SUPERSEDED, e);
	else if (status & (GNUTLS_CERT_EXPIRED | GNUTLS_CERT_NOT_ACTIVATED))
		ret = wrong_time(t, status & GNUTLS_CERT_EXPIRED, e);
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

/* A server has asked for a certificate and got none; optional for some. NULL where that is not so. */
static const char *certificate_missing(const struct tls *t)
{
	if (t->psk || !gnutls_certificate_client_get_request_status(t->session) ||
	    gnutls_certificate_get_ours(t->session))
		return NULL;
	return t->params.cert[0] ? "it wants a certificate by another authority than ours is by" :
				   "it wants a certificate of ours (--tls-cert, --tls-key)";
}

static int alert_received(const struct tls *t, struct err *e)
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
		why = t->psk ? "it does not take our pre-shared key: another user or key" :
			       "it could not decrypt what we sent";
		break;
	case GNUTLS_A_CERTIFICATE_REQUIRED:
	case GNUTLS_A_BAD_CERTIFICATE:
	case GNUTLS_A_UNKNOWN_CA:
	case GNUTLS_A_ACCESS_DENIED:
	case GNUTLS_A_CERTIFICATE_EXPIRED:
		why = t->params.cert[0] ? "it does not take our certificate" :
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

/* In the middle of a record an end looks to the library as a record that is wrong. */
static bool is_over(const struct tls *t)
{
	char byte;

	return !recv(gnutls_transport_get_int(t->session), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
}

static int closed(const struct tls *t, const char *when, struct err *e)
{
	const char *why = certificate_missing(t);

	return err_set(e, ERR_TLS, ECONNRESET, "the server closed the connection %s; %s", when,
		       why               ? why :
		       t->psk            ? "see its log, it may not know our key" :
		       t->params.cert[0] ? "see its log, it may not take our certificate" :
					   "see its log");
}

static int handshake_failed(const struct tls *t, int code, struct err *e)
{
	if (code == GNUTLS_E_UNEXPECTED_PACKET_LENGTH && is_over(t))
		code = GNUTLS_E_PREMATURE_TERMINATION;
	/* nbd-server falls back to plain text for its error */
	if (code == GNUTLS_E_UNEXPECTED_PACKET && certificate_missing(t))
		return err_set(e, ERR_TLS, EACCES, "the server breaks off the TLS handshake: %s",
			       certificate_missing(t));
	switch (code) {
	case GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR:
		return not_verified(t, e);
	case GNUTLS_E_FATAL_ALERT_RECEIVED:
		return alert_received(t, e);
	case GNUTLS_E_PREMATURE_TERMINATION:
	case GNUTLS_E_SESSION_EOF:
	case GNUTLS_E_PULL_ERROR:
	case GNUTLS_E_PUSH_ERROR:
		return closed(t, "in the TLS handshake", e);
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
			t->psk ?
				"the server wants to be known by its certificate, not by a pre-shared key" :
				"the server wants a pre-shared key (--tls-psk-file)");
	default:
		return err_set(e, ERR_TLS, EPROTO, "TLS handshake: %s", gnutls_strerror(code));
	}
}

int tls_handshake(struct tls *t, int fd, struct err *e)
{
	gnutls_credentials_type_t wanted = t->psk ? GNUTLS_CRD_PSK : GNUTLS_CRD_CERTIFICATE;
	int code;

	gnutls_transport_set_int(t->session, fd);
	/* Nobody can keep us from the caller's deadline by warnings without end. */
	while ((code = gnutls_handshake(t->session)) == GNUTLS_E_INTERRUPTED ||
	       code == GNUTLS_E_WARNING_ALERT_RECEIVED || code == GNUTLS_E_GOT_APPLICATION_DATA)
		if (++t->warnings > WARNINGS_MAX)
			return err_set(e, ERR_TLS, EPROTO,
				       "the server sends warnings instead of a TLS handshake");
	if (code == GNUTLS_E_AGAIN)
		return -EAGAIN;
	if (code) {
		/* for its log, as far as it can be said at once */
		if (code != GNUTLS_E_FATAL_ALERT_RECEIVED)
			gnutls_alert_send_appropriate(t->session, code);
		return handshake_failed(t, code, e);
	}
	/* The library sees to it; a session that is authenticated otherwise must never come through. */
	if (gnutls_auth_server_get_type(t->session) != wanted)
		return err_set(e, ERR_TLS, EACCES, "the server has not proved that it %s",
			       t->psk ? "knows the pre-shared key" : "has a certificate");
	return 0;
}

bool tls_wants_write(const struct tls *t)
{
	return gnutls_record_get_direction(t->session);
}

static ssize_t result(struct tls *t, ssize_t n)
{
	if (n >= 0)
		return n;
	if (n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED)
		return -EAGAIN;
	/* An end without close_notify is an end all the same for a protocol that says its own goodbye */
	if (n == GNUTLS_E_PREMATURE_TERMINATION)
		return 0;
	if (!t->failure)
		t->failure = (int)n;
	return n == GNUTLS_E_PULL_ERROR || n == GNUTLS_E_PUSH_ERROR ? -ECONNRESET : -EPROTO;
}

ssize_t tls_send(struct tls *t, const void *buf, size_t len)
{
	return result(t, gnutls_record_send(t->session, buf, len));
}

ssize_t tls_recv(struct tls *t, void *buf, size_t len)
{
	size_t before;
	ssize_t n;

	/* A ticket or new keys are "again" to the library, and no poll wakes for what has been read beyond them. */
	do {
		before = t->in.len;
		n = gnutls_record_recv(t->session, buf, len);
	} while (n == GNUTLS_E_AGAIN && t->in.len && t->in.len < before);
	return result(t, n);
}

int tls_failure(const struct tls *t, struct err *e)
{
	switch (t->failure) {
	case 0: /* an end without a word */
	case GNUTLS_E_PULL_ERROR:
	case GNUTLS_E_PUSH_ERROR:
		return closed(t, "after the TLS handshake", e);
	case GNUTLS_E_FATAL_ALERT_RECEIVED:
		return alert_received(t, e);
	default:
		return err_set(
			e, ERR_TLS, EPROTO,
			"the TLS session is damaged: the server is broken, or somebody interferes (%s)",
			gnutls_strerror(t->failure));
	}
}

size_t tls_pending(const struct tls *t)
{
	return gnutls_record_check_pending(t->session);
}

static void compact(struct buffer *b)
{
	if (b->off)
		memmove(b->data, b->data + b->off, b->len);
	b->off = 0;
}

static ssize_t pull(gnutls_transport_ptr_t p, void *buf, size_t len)
{
	struct tls *t = p;
	struct buffer *b = &t->in;

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

static ssize_t push(gnutls_transport_ptr_t p, const void *buf, size_t len)
{
	struct tls *t = p;
	struct buffer *b = &t->out;

	compact(b);
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
	gnutls_transport_set_pull_function(t->session, pull);
	gnutls_transport_set_push_function(t->session, push);
	return 0;
}

int tls_fill(struct tls *t, int fd)
{
	struct buffer *b = &t->in;
	ssize_t n;

	compact(b);
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
	struct buffer *b = &t->out;
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
	gnutls_x509_crt_t crt = t->psk ? NULL : peer_certificate(t, 0);

	memset(i, 0, sizeof(*i));
	snprintf(i->version, sizeof(i->version), "%s",
		 gnutls_protocol_get_name(gnutls_protocol_get_version(t->session)));
	snprintf(i->cipher, sizeof(i->cipher), "%s",
		 gnutls_cipher_get_name(gnutls_cipher_get(t->session)));
	if (t->psk)
		snprintf(i->peer, sizeof(i->peer), "pre-shared key");
	if (crt) {
		list_names(crt, i->peer, sizeof(i->peer));
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
