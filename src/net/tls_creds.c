/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "net/tls_creds.h"

#include <errno.h>
#include <gnutls/pkcs11.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"
#include "net/tls_internal.h"

#ifdef __aarch64__
#include <asm/hwcap.h>
#endif

static bool is_token(const char *path)
{
	return !strncmp(path, "pkcs11:", 7);
}

/* The path for messages, without the query of a PKCS#11 URI, which may have a PIN. */
static void show_path(char *buf, size_t cap, const char *path)
{
	text_escape(buf, cap, path, is_token(path) ? strcspn(path, "?") : strlen(path));
}

/* The error where GnuTLS does not take a file. */
static int gnutls_file_error(const char *what, const char *path, int code, struct err *e)
{
	char shown[TLS_PATH_MAX];

	show_path(shown, sizeof(shown), path);
	return err_set(e, ERR_TLS, EINVAL, "%s %s: %s", what, shown, gnutls_strerror(code));
}

/*
 * RFC 7512 section 2.4: the file that "pin-source" in the query of a PKCS#11 URI names. GnuTLS
 * takes it as a path only, not as the "file:" URI of the standard.
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

/* A secret that others can read is none; one that they can write may be theirs. */
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

static bool use_if_there(char *slot, const char *dir, const char *name)
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
	if (!use_if_there(p->ca, dir, "ca-cert.pem"))
		return err_set(e, ERR_TLS, ENOENT, "directory %s: there is no ca-cert.pem in it",
			       shown);
	use_if_there(p->crl, dir, "ca-crl.pem");
	if (use_if_there(p->cert, dir, "client-cert.pem") &&
	    !use_if_there(p->key, dir, "client-key.pem"))
		return err_set(e, ERR_TLS, ENOENT,
			       "directory %s: client-cert.pem without a client-key.pem", shown);
	return 0;
}

/* GnuTLS asks for the PIN of the token with our key, which is not in its URI. */
static int read_pin(void *ctx, int attempt, const char *token_url, const char *token_label,
		    unsigned flags, char *pin, size_t cap)
{
	const struct tls_creds *c = ctx;
	char path[TLS_PATH_MAX + 1];
	int ret = GNUTLS_E_PKCS11_PIN_ERROR;
	FILE *f;

	(void)token_url;
	(void)token_label;
	/* A wrong PIN stays wrong, and a token locks itself after a few attempts. */
	if (attempt || flags & GNUTLS_PIN_WRONG ||
	    !find_pin_source(c->params.key, path, sizeof(path)))
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

/* GnuTLS does not take our key or certificate, of a file or a token. */
static int own_key_error(const struct tls_params *p, int code, struct err *e)
{
	char shown[TLS_PATH_MAX];

	if (code != GNUTLS_E_PKCS11_PIN_ERROR)
		return gnutls_file_error("certificate and key", is_token(p->key) ? p->key : p->cert,
					 code, e);
	show_path(shown, sizeof(shown), p->key);
	return err_set(e, ERR_TLS, EACCES,
		       "private key %s: the token wants a PIN, or another one "
		       "(?pin-source=file:PATH behind it)",
		       shown);
}

static int load_crls(struct tls_creds *c)
{
	gnutls_datum_t pem = { 0 };
	int n = gnutls_load_file(c->params.crl, &pem);

	if (!n)
		n = gnutls_x509_crl_list_import2(&c->crls, &c->crl_count, &pem, GNUTLS_X509_FMT_PEM,
						 0);
	gnutls_free(pem.data);
	if (n < 0) {
		c->crls = NULL;
		c->crl_count = 0;
		return n;
	}
	if (!c->crl_count)
		return GNUTLS_E_NO_CERTIFICATE_FOUND;
	/* GnuTLS copies them. */
	return gnutls_certificate_set_x509_crl(c->x509, c->crls, (int)c->crl_count);
}

static int load_x509(struct tls_creds *c, struct err *e)
{
	const struct tls_params *p = &c->params;
	int n;

	if (gnutls_certificate_allocate_credentials(&c->x509))
		return err_sys(e, ERR_FAILED, ENOMEM, "TLS");
	n = p->ca[0] ? gnutls_certificate_set_x509_trust_file(c->x509, p->ca, GNUTLS_X509_FMT_PEM) :
		       gnutls_certificate_set_x509_system_trust(c->x509);
	if (n < 0)
		return gnutls_file_error("certificate authorities",
					 p->ca[0] ? p->ca : "of the system", n, e);
	if (!n && p->ca[0])
		return gnutls_file_error("certificate authorities", p->ca,
					 GNUTLS_E_NO_CERTIFICATE_FOUND, e);
	if (p->crl[0]) {
		n = load_crls(c);
		if (n < 0)
			return gnutls_file_error("revocation list", p->crl, n, e);
	}
	if (!p->cert[0])
		return 0;
	n = check_secret("private key", p->key, e);
	if (n)
		return n;
	gnutls_certificate_set_pin_function(c->x509, read_pin, c);
	n = gnutls_certificate_set_x509_key_file2(c->x509, p->cert, p->key, GNUTLS_X509_FMT_PEM,
						  NULL, 0);
	return n < 0 ? own_key_error(p, n, e) : 0;
}

/*
 * Finds the line of psk_user, or the only one: "user:hexadecimal key", as psktool writes it. *key
 * is the caller's, also after an error.
 */
static int find_psk(const struct tls_params *p, FILE *f, char *user, size_t cap, char **key,
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

static int load_psk(struct tls_creds *c, struct err *e)
{
	const struct tls_params *p = &c->params;
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
	ret = find_psk(p, f, user, sizeof(user), &key, e);
	fclose(f);
	if (ret) {
		err_wrap(e, "key file %s", shown);
		goto out;
	}
	hex = (gnutls_datum_t){ .data = (unsigned char *)key, .size = (unsigned)strlen(key) };
	ret = gnutls_psk_allocate_client_credentials(&c->psk);
	if (!ret)
		ret = gnutls_psk_set_client_credentials(c->psk, user, &hex, GNUTLS_PSK_KEY_HEX);
	if (ret)
		ret = gnutls_file_error("key file", p->psk_file, ret, e);
out:
	if (key)
		explicit_bzero(key, strlen(key));
	free(key);
	return ret;
}

/* Whether the processor has instructions for AES-GCM: else CHACHA20 is several times as fast. */
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
 * Makes a priority string of base, with the ciphers that the system's policy has, in another order:
 * those for the kernel (tls_get_keys) come first, the fastest on this processor before the others.
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

/*
 * The system's policy, but nothing below TLS 1.2, in our order of ciphers. Pre-shared keys are
 * allowed only where we have one, and nothing else then.
 */
static int load_default_priority(struct tls_creds *c, struct err *e)
{
	static const char versions[] = "-VERS-TLS1.1:-VERS-TLS1.0:-VERS-DTLS-ALL";
	static const char psk[] =
		"-VERS-TLS1.1:-VERS-TLS1.0:-VERS-DTLS-ALL:-KX-ALL:+ECDHE-PSK:+DHE-PSK:+PSK";
	char ordered[1024];
	int code = order_ciphers(c->psk ? psk : versions, ordered, sizeof(ordered));

	if (!code)
		code = gnutls_priority_init2(&c->priority, ordered, NULL,
					     GNUTLS_PRIORITY_INIT_DEF_APPEND);
	if (!code)
		return 0;
	return err_set(e, ERR_TLS, EINVAL, "TLS priorities of the system: %s",
		       gnutls_strerror(code));
}

static int load_priority(struct tls_creds *c, struct err *e)
{
	const char *where = NULL;
	char shown[80];
	int code;

	if (!c->params.priority[0])
		return load_default_priority(c, e);
	code = gnutls_priority_init(&c->priority, c->params.priority, &where);
	if (!code)
		return 0;
	where = where ? where : c->params.priority;
	text_escape(shown, sizeof(shown), where, strlen(where));
	return err_set(e, ERR_USAGE, EINVAL, "TLS priority string, at \"%s\": %s", shown,
		       gnutls_strerror(code));
}

/* Options that contradict each other, or that need another one. */
static int check_params(const struct tls_params *p, struct err *e)
{
	if (p->psk_file[0] && (p->ca[0] || p->crl[0] || p->cert[0] || p->key[0] || p->no_verify))
		return err_set(e, ERR_USAGE, EINVAL,
			       "a pre-shared key and certificates exclude each other");
	if (p->psk_user[0] && !p->psk_file[0])
		return err_set(e, ERR_USAGE, EINVAL,
			       "the user of a pre-shared key is given, but no key file "
			       "(--tls-psk-file)");
	if (!p->cert[0] != !p->key[0])
		return err_set(e, ERR_USAGE, EINVAL, "a certificate and its key belong together");
	if (!p->psk_file[0] && !p->no_verify && !p->hostname[0])
		return err_set(
			e, ERR_USAGE, EINVAL,
			"whose certificate is expected? a socket that is not TCP has no host name "
			"(--tls-hostname)");
	return 0;
}

int tls_creds_load(struct tls_creds **out, const struct tls_params *p, struct err *e)
{
	struct tls_creds *c;
	int ret;

	*out = NULL;
	ret = check_params(p, e);
	if (ret)
		return ret;
	c = calloc(1, sizeof(*c));
	if (!c)
		return err_sys(e, ERR_FAILED, ENOMEM, "TLS");
	c->params = *p;
	ret = p->psk_file[0] ? load_psk(c, e) : load_x509(c, e);
	if (!ret)
		ret = load_priority(c, e);
	if (ret)
		tls_creds_free(c);
	else
		*out = c;
	return ret;
}

void tls_creds_free(struct tls_creds *c)
{
	if (!c)
		return;
	if (c->priority)
		gnutls_priority_deinit(c->priority);
	if (c->x509)
		gnutls_certificate_free_credentials(c->x509);
	if (c->psk)
		gnutls_psk_free_client_credentials(c->psk);
	for (unsigned i = 0; i < c->crl_count; i++)
		gnutls_x509_crl_deinit(c->crls[i]);
	gnutls_free(c->crls);
	explicit_bzero(c, sizeof(*c));
	free(c);
}
