/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * The input is three things at once: a URI; HOST and EXPORT of a command line, separated by the
 * first newline; and the text of a server. What parses must come back from its canonical text as
 * it was, and no text made of the input may harm a terminal.
 */
#include "fuzz.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "proto/uri.h"

static void require(bool ok)
{
	if (!ok)
		abort();
}

static void check_safe(const char *s, size_t len)
{
	require(strlen(s) == len);
	require(text_is_utf8(s, len));
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)s[i];

		require(c >= 0x20 && c != 0x7f);
		/* U+0080..U+009F */
		require(c != 0xc2 || (unsigned char)s[i + 1] >= 0xa0);
	}
	/* U+202A..U+202E turn the direction of text, U+FEFF is nothing to see. */
	for (char last = '\xaa'; last <= '\xae'; last++)
		require(!strstr(s, (char[]){ '\xe2', '\x80', last, '\0' }));
	require(!strstr(s, "\xef\xbb\xbf"));
}

static void check_error(const struct uri *u, int rc, const struct err *e)
{
	static const struct uri zero;

	require(rc == -EINVAL && e->code == EINVAL && e->kind == ERR_USAGE && e->text[0]);
	check_safe(e->text, strlen(e->text));
	require(memcmp(u, &zero, sizeof(*u)) == 0);
}

static void check_uri(struct uri *u)
{
	char text[URI_TEXT_MAX], twice[URI_TEXT_MAX], endpoint[64];
	struct uri again;
	struct err e;
	uint64_t port;
	size_t len;

	require(memchr(u->host, 0, sizeof(u->host)) && memchr(u->path, 0, sizeof(u->path)));
	require(text_is_utf8(u->export, strlen(u->export)));
	if (u->transport == URI_TCP) {
		require(u->host[0] && !u->path[0]);
		require(text_number(u->port, false, 1, 65535, &port) == 0 && u->port[0] != '0');
	} else {
		require(!u->host[0] && !u->port[0] && u->path[0]);
	}

	len = uri_format(u, text, sizeof(text));
	require(len < sizeof(text) - 1);
	check_safe(text, len);
	require(uri_looks_like(text));
	require(uri_parse(&again, text, &e) == 0);
	require(u->tls || !(u->tls_hostname[0] || u->tls_psk_file[0] || u->tls_certificates[0] ||
			    u->tls_user[0]));
	memset(u->tls_hostname, 0, sizeof(u->tls_hostname));
	memset(u->tls_psk_file, 0, sizeof(u->tls_psk_file));
	memset(u->tls_certificates, 0, sizeof(u->tls_certificates));
	memset(u->tls_user, 0, sizeof(u->tls_user));
	require(memcmp(&again, u, sizeof(again)) == 0);
	require(uri_format(&again, twice, sizeof(twice)) == len && strcmp(text, twice) == 0);

	uri_endpoint(u, endpoint, sizeof(endpoint));
	check_safe(endpoint, strlen(endpoint));
}

static void fuzz_parse(const char *s)
{
	struct uri u;
	struct err e;
	int rc = uri_parse(&u, s, &e);

	if (rc == 0) {
		require(uri_looks_like(s));
		check_uri(&u);
	} else {
		check_error(&u, rc, &e);
	}
}

static void fuzz_from_host(const char *s)
{
	const char *newline = strchr(s, '\n');
	const char *export = newline ? newline + 1 : "";
	char *host = newline ? strndup(s, (size_t)(newline - s)) : strdup(s);
	struct uri u;
	struct err e;
	int rc;

	require(host);
	rc = uri_from_host(&u, host, export, &e);
	if (rc == 0) {
		require(strcmp(u.export, export) == 0 && !u.tls);
		check_uri(&u);
	} else {
		check_error(&u, rc, &e);
	}
	free(host);
}

static void fuzz_escape(const uint8_t *data, size_t size)
{
	static const size_t caps[] = { 1, 2, 3, 4, 5, 8, 13, 16, 17, 64, 1024 };
	size_t whole_cap = 4 * size + 1, whole_len;
	char *whole = malloc(whole_cap);

	/* Four bytes for one is the most, so nothing is cut here. */
	require(whole);
	whole_len = text_escape(whole, whole_cap, data, size);
	require(whole_len < whole_cap && whole_len >= size);
	check_safe(whole, whole_len);

	for (size_t i = 0; i < sizeof(caps) / sizeof(caps[0]); i++) {
		char *dst = malloc(caps[i]);
		size_t len;

		require(dst);
		len = text_escape(dst, caps[i], data, size);
		require(len < caps[i]);
		check_safe(dst, len);
		if (whole_len < caps[i]) {
			require(strcmp(dst, whole) == 0);
		} else {
			size_t dots = caps[i] - 1 < 3 ? caps[i] - 1 : 3;

			require(len >= dots && memcmp(dst + len - dots, "...", dots) == 0);
			require(memcmp(dst, whole, len - dots) == 0);
		}
		free(dst);
	}
	free(whole);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *s = malloc(size + 1);

	require(s);
	if (size)
		memcpy(s, data, size);
	s[size] = '\0';
	fuzz_parse(s);
	fuzz_from_host(s);
	fuzz_escape(data, size);
	free(s);
	return 0;
}
