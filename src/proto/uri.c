/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "proto/uri.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <uriparser/Uri.h>

#include "base/text.h"

#define QUOTE_MAX 100 /* bytes of a wrong part that an error shows */
#define ZONE_MAX  15  /* IFNAMSIZ without its NUL, netdevice(7) */

/* RFC 3986, section 2.3, without letters and digits */
#define UNRESERVED "-._~"

static const struct {
	const char *name;
	enum uri_transport transport;
	bool tls;
} schemes[] = {
	{ "nbd", URI_TCP, false },         { "nbds", URI_TCP, true },
	{ "nbd+unix", URI_UNIX, false },   { "nbds+unix", URI_UNIX, true },
	{ "nbd+vsock", URI_VSOCK, false }, { "nbds+vsock", URI_VSOCK, true },
};

static const char fragment[] = "the URI has a fragment, the part from '#'";

/* The classes of characters are those of RFC 3986, not those of a locale. */
static bool is_alpha(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_unreserved(char c)
{
	return is_alpha(c) || is_digit(c) || (c && strchr(UNRESERVED, c));
}

static bool is_percent_encoded(const char *s)
{
	static const char hex[] = "0123456789abcdefABCDEF";

	return s[0] == '%' && s[1] && strchr(hex, s[1]) && s[2] && strchr(hex, s[2]);
}

static char to_lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* Sets the error: PART "VALUE" WHY */
static int refuse_part(struct err *e, const char *part, const char *value, size_t len,
		       const char *why)
{
	char quoted[QUOTE_MAX];

	text_escape(quoted, sizeof(quoted), value, len);
	return err_set(e, ERR_USAGE, EINVAL, "%s \"%s\" %s", part, quoted, why);
}

static int refuse_whole(struct err *e, const char *why)
{
	return err_set(e, ERR_USAGE, EINVAL, "%s", why);
}

static int library_failed(struct err *e, int rc)
{
	int code = rc == URI_ERROR_MALLOC ? ENOMEM : EINVAL;

	return err_sys(e, ERR_FAILED, code, "parse the URI");
}

/* RFC 3986, section 3.1. Returns 0 when "://" does not follow the scheme. */
static size_t scheme_length(const char *s)
{
	size_t n = 0;

	if (!is_alpha(s[0]))
		return 0;
	while (is_alpha(s[n]) || is_digit(s[n]) || (s[n] && strchr("+-.", s[n])))
		n++;
	return strncmp(s + n, "://", 3) == 0 ? n : 0;
}

bool uri_looks_like(const char *s)
{
	return scheme_length(s) > 0;
}

static int set_scheme(struct uri *u, const char *s, size_t len, struct err *e)
{
	for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
		const char *name = schemes[i].name;
		size_t same = 0;

		while (same < len && name[same] && to_lower(s[same]) == name[same])
			same++;
		if (same == len && !name[same]) {
			u->transport = schemes[i].transport;
			u->tls = schemes[i].tls;
			return 0;
		}
	}
	return refuse_part(e, "the URI's scheme", s, len,
			   "is not nbd or nbds, perhaps with +unix or +vsock");
}

static int set_export_name(struct uri *u, const char *s, size_t len, struct err *e)
{
	if (len > URI_EXPORT_MAX)
		return refuse_part(e, "the export name", s, len, "is longer than 4096 bytes");
	if (!text_is_utf8(s, len))
		return refuse_part(e, "the export name", s, len, "is not UTF-8");
	memcpy(u->export, s, len);
	return 0;
}

static int set_path(struct uri *u, const char *s, size_t len, struct err *e)
{
	if (len == 0)
		return refuse_whole(e, "the socket's path is empty");
	if (len > URI_PATH_MAX)
		return refuse_part(e, "the socket's path", s, len, "is longer than 107 bytes");
	memcpy(u->path, s, len);
	return 0;
}

static int set_port(struct uri *u, const char *s, struct err *e)
{
	bool vsock = u->transport == URI_VSOCK;
	uint64_t port;

	if (text_number(s, false, vsock ? 0 : 1, vsock ? UINT32_MAX - 1 : UINT16_MAX, &port) < 0)
		return refuse_part(e, "the port", s, strlen(s),
				   vsock ? "is not a number below 4294967295" :
					   "is not a number from 1 to 65535");
	snprintf(u->port, sizeof(u->port), "%u", (uint32_t)port);
	return 0;
}

/* vsock(7): VMADDR_CID_ANY, which is all ones, names no machine. */
static int set_cid(struct uri *u, const char *s, struct err *e)
{
	uint64_t cid;

	if (text_number(s, false, 0, UINT32_MAX - 1, &cid) < 0)
		return refuse_part(e, "the context identifier", s, strlen(s),
				   "is not a number below 4294967295");
	snprintf(u->host, sizeof(u->host), "%u", (uint32_t)cid);
	return 0;
}

/* A colon in host means an IPv6 address from here on, so no name may have one. */
static int set_name(struct uri *u, const char *s, size_t len, struct err *e)
{
	if (len == 0)
		return refuse_whole(e, "the host is empty");
	if (len > URI_HOST_MAX)
		return refuse_part(e, "the host", s, len, "is longer than 255 bytes");
	if (!text_is_utf8(s, len))
		return refuse_part(e, "the host", s, len, "is not UTF-8");
	for (size_t i = 0; i < len; i++) {
		bool ascii = !((unsigned char)s[i] & 0x80);

		if (ascii && !is_alpha(s[i]) && !is_digit(s[i]) && !strchr("-._", s[i]))
			return refuse_part(e, "the host", s, len,
					   "is neither a name nor an address");
		u->host[i] = to_lower(s[i]);
	}
	return 0;
}

/* An interface's name by dev_valid_name() of net/core/dev.c, without a second '%'. */
static bool zone_valid(const char *s, size_t len)
{
	if (len == 0 || len > ZONE_MAX)
		return false;
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)s[i];

		if (c <= ' ' || c == 0x7f || strchr("/:%", c))
			return false;
	}
	return true;
}

/* An IPv6 address, perhaps with "%zone" (RFC 4007, section 11). The zone keeps its case. */
static int set_address(struct uri *u, const char *s, size_t len, struct err *e)
{
	struct in6_addr unused;
	char address[INET6_ADDRSTRLEN];
	const char *percent = memchr(s, '%', len);
	size_t n = percent ? (size_t)(percent - s) : len;

	if (n >= sizeof(address))
		return refuse_part(e, "the host", s, len, "is not an IPv6 address");
	for (size_t i = 0; i < n; i++)
		address[i] = to_lower(s[i]);
	address[n] = '\0';
	if (inet_pton(AF_INET6, address, &unused) != 1)
		return refuse_part(e, "the host", s, len, "is not an IPv6 address");
	if (percent && !zone_valid(percent + 1, len - n - 1))
		return refuse_part(e, "the host", s, len, "has a zone that can be no interface");
	memcpy(u->host, address, n);
	memcpy(u->host + n, s + n, len - n);
	return 0;
}

/* Percent-decodes raw in place. "%00" is refused before: it would hide the rest of the text. */
static int decode(char *raw, size_t *len, const char *part, struct err *e)
{
	if (strstr(raw, "%00"))
		return refuse_part(e, part, raw, strlen(raw), "contains %00");
	*len = (size_t)(uriUnescapeInPlaceExA(raw, URI_FALSE, URI_BR_DONT_TOUCH) - raw);
	return 0;
}

static void copy_range(char *to, const UriTextRangeA *range)
{
	size_t len = (size_t)(range->afterLast - range->first);

	memcpy(to, range->first, len);
	to[len] = '\0';
}

static int take_export(struct uri *u, const UriUriA *parsed, struct err *e)
{
	char raw[URI_TEXT_MAX];
	size_t len = 0;
	int rc;

	raw[0] = '\0';
	for (const UriPathSegmentA *p = parsed->pathHead; p; p = p->next) {
		if (p != parsed->pathHead)
			raw[len++] = '/';
		copy_range(raw + len, &p->text);
		len += strlen(raw + len);
	}
	rc = decode(raw, &len, "the export name", e);
	return rc < 0 ? rc : set_export_name(u, raw, len, e);
}

static int take_parameter(struct uri *u, const char *key, const char *value, struct err *e)
{
	static const char part[] = "the URI's parameter";
	const struct {
		const char *key;
		char *value;
		size_t size;
	} slots[] = {
		{ "tls-hostname", u->tls_hostname, sizeof(u->tls_hostname) },
		{ "tls-psk-file", u->tls_psk_file, sizeof(u->tls_psk_file) },
		{ "tls-certificates", u->tls_certificates, sizeof(u->tls_certificates) },
	};

	if (strcmp(key, "socket") == 0) {
		if (u->transport != URI_UNIX)
			return refuse_part(e, part, key, strlen(key),
					   "is for nbd+unix and nbds+unix only");
		if (u->path[0])
			return refuse_part(e, part, key, strlen(key), "is given twice");
		if (!value)
			return refuse_part(e, part, key, strlen(key), "has no value");
		return set_path(u, value, strlen(value), e);
	}
	for (size_t i = 0; i < sizeof(slots) / sizeof(slots[0]); i++) {
		if (strcmp(key, slots[i].key) != 0)
			continue;
		if (!u->tls)
			return refuse_part(e, part, key, strlen(key),
					   "is for nbds, nbds+unix and nbds+vsock only");
		if (slots[i].value[0])
			return refuse_part(e, part, key, strlen(key), "is given twice");
		if (!value || !value[0])
			return refuse_part(e, part, key, strlen(key), "has no value");
		if (strlen(value) >= slots[i].size)
			return refuse_part(e, part, key, strlen(key), "is too long");
		strcpy(slots[i].value, value);
		return 0;
	}
	if (strncmp(key, "tls-", 4) == 0)
		return refuse_part(e, part, key, strlen(key), "is not supported by this version");
	return refuse_part(e, part, key, strlen(key), "is not known");
}

static int take_query(struct uri *u, const UriUriA *parsed, struct err *e)
{
	char raw[URI_TEXT_MAX];
	UriQueryListA *list = NULL;
	int count, rc;

	if (!parsed->query.first)
		return 0;
	copy_range(raw, &parsed->query);
	if (strstr(raw, "%00"))
		return refuse_part(e, "the URI's query", raw, strlen(raw),
				   "contains %00, and abstract sockets are not supported");
	/* A plus stays a plus: it is a space in HTML forms, not in RFC 3986. */
	rc = uriDissectQueryMallocExA(&list, &count, parsed->query.first, parsed->query.afterLast,
				      URI_FALSE, URI_BR_DONT_TOUCH);
	if (rc != URI_SUCCESS)
		return library_failed(e, rc);
	for (const UriQueryListA *q = list; q && rc == 0; q = q->next)
		rc = take_parameter(u, q->key, q->value, e);
	uriFreeQueryListA(list);
	return rc;
}

static int take_uri_host(struct uri *u, const UriUriA *parsed, const char *zone, size_t zone_len,
			 struct err *e)
{
	char raw[URI_TEXT_MAX];
	size_t len;
	int rc;

	copy_range(raw, &parsed->hostText);
	len = strlen(raw);
	if (parsed->hostData.ipFuture.first)
		return refuse_part(e, "the host", raw, len, "is of an unknown kind of address");
	memcpy(raw + len, zone, zone_len);
	raw[len + zone_len] = '\0';
	rc = decode(raw, &len, "the host", e);
	if (rc < 0)
		return rc;
	if (u->transport == URI_VSOCK)
		return set_cid(u, raw, e);
	return parsed->hostData.ip6 ? set_address(u, raw, len, e) : set_name(u, raw, len, e);
}

/* No error shows the user name: the text before an '@' may be a password. */
static int take_user(struct uri *u, const UriUriA *parsed, struct err *e)
{
	char raw[URI_TEXT_MAX];
	size_t len;

	if (!parsed->userInfo.first)
		return 0;
	copy_range(raw, &parsed->userInfo);
	if (!u->tls)
		return refuse_whole(
			e,
			"the URI has a user name, which is for nbds, nbds+unix and nbds+vsock only");
	/* RFC 3986, section 3.2.1: "user:password" is deprecated. */
	if (strchr(raw, ':'))
		return refuse_whole(e,
				    "the URI has a password, but a pre-shared key is read from a "
				    "file only (tls-psk-file)");
	if (strstr(raw, "%00"))
		return refuse_whole(e, "the URI's user name contains %00");
	len = (size_t)(uriUnescapeInPlaceExA(raw, URI_FALSE, URI_BR_DONT_TOUCH) - raw);
	if (len == 0)
		return refuse_whole(e, "the URI's user name is empty");
	if (len > URI_USER_MAX)
		return refuse_whole(e, "the URI's user name is longer than 255 bytes");
	memcpy(u->tls_user, raw, len);
	return 0;
}

static int take_port(struct uri *u, const UriUriA *parsed, struct err *e)
{
	char raw[URI_TEXT_MAX];

	/* RFC 3986, section 6.2.3: an empty port is a missing one. */
	if (parsed->portText.first == parsed->portText.afterLast)
		return set_port(u, URI_PORT_DEFAULT, e);
	copy_range(raw, &parsed->portText);
	return set_port(u, raw, e);
}

/*
 * RFC 6874, section 2, which the library does not know: copies s to plain without the "%25zone"
 * inside brackets, and points *zone and *zone_len to it. A zone that breaks the rules stays in
 * plain, for the library to refuse.
 */
static void split_zone(const char *s, char *plain, const char **zone, size_t *zone_len)
{
	const char *open = s + scheme_length(s) + 3;
	const char *percent, *p;

	open += strcspn(open, "[/?#");
	percent = open + strcspn(open, "%]/?#");
	p = percent;
	while (is_unreserved(*p) || is_percent_encoded(p))
		p += *p == '%' ? 3 : 1;
	if (*open != '[' || *p != ']' || strncmp(percent, "%25", 3) != 0)
		p = percent;
	*zone = percent;
	*zone_len = (size_t)(p - percent);
	memcpy(plain, s, (size_t)(percent - s));
	memcpy(plain + (percent - s), p, strlen(p) + 1);
}

/* Sets an error that names the part in which the library stopped, at s[at]. */
static int syntax_error(const char *s, size_t at, struct err *e)
{
	const char *host = s + scheme_length(s) + 3;
	const char *host_end = host + strcspn(host, "/?#");
	const char *path_end = host_end + strcspn(host_end, "?#");
	const char *query_end = path_end + strcspn(path_end, "#");
	const char *part, *start, *end;
	char quoted[QUOTE_MAX];

	if (s + at <= host_end) {
		/* Not shown: see take_user. */
		if (memchr(host, '@', (size_t)(host_end - host)))
			return refuse_whole(e, "the URI's user name, host or port breaks RFC 3986");
		/* Without the byte: the library stops at the end of a possible user name. */
		return refuse_part(e, "the URI's host or port", host, (size_t)(host_end - host),
				   "breaks RFC 3986");
	}
	if (s + at > query_end)
		return refuse_whole(e, fragment);
	part = s + at <= path_end ? "export name" : "query";
	start = (s + at <= path_end ? host_end : path_end) + 1;
	end = s + at <= path_end ? path_end : query_end;
	text_escape(quoted, sizeof(quoted), start, (size_t)(end - start));
	return err_set(e, ERR_USAGE, EINVAL, "the URI's %s \"%s\" breaks RFC 3986 at its byte %td",
		       part, quoted, s + at - start + 1);
}

static int take_parts(struct uri *u, const char *s, const UriUriA *parsed, const char *zone,
		      size_t zone_len, struct err *e)
{
	size_t scheme = scheme_length(s);
	const char *authority = s + scheme + 3;
	int rc = set_scheme(u, s, scheme, e);

	if (rc == 0 && parsed->fragment.first)
		rc = refuse_whole(e, fragment);
	if (rc == 0)
		rc = take_user(u, parsed, e);
	if (rc < 0)
		return rc;
	if (u->tls_user[0])
		authority = strchr(authority, '@') + 1;
	if (u->transport != URI_UNIX) {
		rc = take_uri_host(u, parsed, zone, zone_len, e);
		if (rc == 0)
			rc = take_port(u, parsed, e);
	} else if (authority[0] && !strchr("/?", authority[0])) {
		rc = refuse_whole(e, "the URI of a Unix socket has a host or port");
	}
	if (rc == 0)
		rc = take_export(u, parsed, e);
	if (rc == 0)
		rc = take_query(u, parsed, e);
	if (rc == 0 && u->transport == URI_UNIX && !u->path[0])
		rc = refuse_whole(e, "the URI of a Unix socket has no parameter \"socket\"");
	return rc;
}

int uri_parse(struct uri *u, const char *s, struct err *e)
{
	char plain[URI_TEXT_MAX];
	const char *zone, *at = NULL;
	size_t zone_len;
	UriUriA parsed;
	int rc;

	memset(u, 0, sizeof(*u));
	if (!uri_looks_like(s))
		return refuse_part(e, "the URI", s, strlen(s),
				   "has no scheme with \"://\" behind it");
	if (strlen(s) >= sizeof(plain))
		return refuse_part(e, "the URI", s, strlen(s), "is too long");
	split_zone(s, plain, &zone, &zone_len);
	rc = uriParseSingleUriA(&parsed, plain, &at);
	if (rc == URI_ERROR_SYNTAX) {
		size_t n = (size_t)(at - plain);

		return syntax_error(s, n > (size_t)(zone - s) ? n + zone_len : n, e);
	}
	if (rc != URI_SUCCESS)
		return library_failed(e, rc);
	rc = take_parts(u, s, &parsed, zone, zone_len, e);
	uriFreeUriMembersA(&parsed);
	if (rc < 0)
		memset(u, 0, sizeof(*u));
	return rc;
}

/* Takes name, name:port, [v6], [v6]:port or a bare v6 address. */
static int take_endpoint(struct uri *u, const char *host, struct err *e)
{
	const char *colon = strchr(host, ':');
	size_t len = strlen(host);
	int rc;

	if (host[0] == '[') {
		const char *close = strchr(host, ']');

		if (!close)
			return refuse_part(e, "the host", host, len, "has no ']'");
		if (close[1] && close[1] != ':')
			return refuse_part(e, "the host", host, len, "has no ':' behind its ']'");
		colon = close[1] ? close + 1 : NULL;
		rc = set_address(u, host + 1, (size_t)(close - host - 1), e);
	} else if (colon && strchr(colon + 1, ':')) {
		colon = NULL;
		rc = set_address(u, host, len, e);
	} else {
		rc = set_name(u, host, colon ? (size_t)(colon - host) : len, e);
	}
	return rc < 0 ? rc : set_port(u, colon ? colon + 1 : URI_PORT_DEFAULT, e);
}

int uri_from_host(struct uri *u, const char *host, const char *export, struct err *e)
{
	int rc;

	memset(u, 0, sizeof(*u));
	if (uri_looks_like(host))
		return refuse_part(e, "the host", host, strlen(host), "is a URI");
	if (strchr(host, '/')) {
		u->transport = URI_UNIX;
		rc = set_path(u, host, strlen(host), e);
	} else {
		u->transport = URI_TCP;
		rc = take_endpoint(u, host, e);
	}
	if (rc == 0)
		rc = set_export_name(u, export, strlen(export), e);
	if (rc < 0)
		memset(u, 0, sizeof(*u));
	return rc;
}

static bool is_ipv6_host(const struct uri *u)
{
	return strchr(u->host, ':');
}

size_t uri_format(const struct uri *u, char *buf, size_t cap)
{
	struct text_writer w = { .dst = buf, .cap = cap };

	for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++)
		if (schemes[i].transport == u->transport && schemes[i].tls == u->tls)
			text_put(&w, schemes[i].name);
	text_put(&w, "://");
	if (u->transport != URI_UNIX) {
		text_put(&w, is_ipv6_host(u) ? "[" : "");
		text_put_percent(&w, u->host, is_ipv6_host(u) ? UNRESERVED ":" : UNRESERVED);
		text_put(&w, is_ipv6_host(u) ? "]:" : ":");
		text_put(&w, u->port);
	}
	text_put(&w, "/");
	text_put_percent(&w, u->export, UNRESERVED "/");
	if (u->transport == URI_UNIX) {
		text_put(&w, "?socket=");
		text_put_percent(&w, u->path, UNRESERVED "/");
	}
	return w.len;
}

void uri_endpoint(const struct uri *u, char *buf, size_t cap)
{
	char plain[URI_HOST_MAX + URI_PORT_MAX + sizeof("[]:")];
	struct text_writer w = { .dst = plain, .cap = sizeof(plain) };

	if (u->transport == URI_UNIX) {
		text_escape(buf, cap, u->path, strlen(u->path));
		return;
	}
	text_put(&w, u->transport == URI_VSOCK ? "vsock:" : is_ipv6_host(u) ? "[" : "");
	text_put(&w, u->host);
	text_put(&w, is_ipv6_host(u) ? "]:" : ":");
	text_put(&w, u->port);
	text_escape(buf, cap, plain, w.len);
}
