/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "proto/uri.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <uriparser/Uri.h>

#include "../unit.h"

#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))

/*
 * These take the place of the library's own, which are the same without the first two lines, so
 * that a test can let memory run out.
 */
static bool parse_without_memory, dissect_without_memory;

int uriParseSingleUriA(UriUriA *uri, const char *text, const char **errorPos)
{
	if (parse_without_memory)
		return URI_ERROR_MALLOC;
	return uriParseSingleUriExA(uri, text, NULL, errorPos);
}

int uriDissectQueryMallocExA(UriQueryListA **dest, int *itemCount, const char *first,
			     const char *afterLast, UriBool plusToSpace,
			     UriBreakConversion breakConversion)
{
	if (dissect_without_memory)
		return URI_ERROR_MALLOC;
	return uriDissectQueryMallocExMmA(dest, itemCount, first, afterLast, plusToSpace,
					  breakConversion, NULL);
}

static bool all_zero(const struct uri *u)
{
	const unsigned char *p = (const unsigned char *)u;

	for (size_t i = 0; i < sizeof(*u); i++)
		if (p[i])
			return false;
	return true;
}

/* The canonical text of u, and that it stands for u. */
static void check_format(const struct uri *u, const char *canonical)
{
	struct uri again;
	struct err e;
	char text[URI_TEXT_MAX];
	size_t n;

	memset(text, '#', sizeof(text));
	n = uri_format(u, text, sizeof(text));
	ck_assert_str_eq(text, canonical);
	ck_assert_uint_eq(n, strlen(canonical));
	err_clear(&e);
	memset(&again, 0xa5, sizeof(again));
	ck_assert_msg(uri_parse(&again, text, &e) == 0, "%s: %s", text, e.text);
	ck_assert_mem_eq(&again, u, sizeof(again));
}

static const struct {
	const char *text;
	enum uri_transport transport;
	bool tls;
	const char *host, *port, *path, *export, *canonical;
} good[] = {
	/* the examples of the document "The NBD URI format" */
	{ "nbd://example.com:10809/export", URI_TCP, false, "example.com", "10809", "", "export",
	  "nbd://example.com:10809/export" },
	{ "nbd+unix:///export?socket=nbd.sock", URI_UNIX, false, "", "", "nbd.sock", "export",
	  "nbd+unix:///export?socket=nbd.sock" },
	{ "nbd://example.com/disk", URI_TCP, false, "example.com", "10809", "", "disk",
	  "nbd://example.com:10809/disk" },
	{ "nbd+unix:///disk?socket=sock", URI_UNIX, false, "", "", "sock", "disk",
	  "nbd+unix:///disk?socket=sock" },
	{ "nbd://example.com/", URI_TCP, false, "example.com", "10809", "", "",
	  "nbd://example.com:10809/" },
	{ "nbd://example.com", URI_TCP, false, "example.com", "10809", "", "",
	  "nbd://example.com:10809/" },
	{ "nbd://example.com//disk", URI_TCP, false, "example.com", "10809", "", "/disk",
	  "nbd://example.com:10809//disk" },
	{ "nbd://example.com/hello%20world", URI_TCP, false, "example.com", "10809", "",
	  "hello world", "nbd://example.com:10809/hello%20world" },
	/* schemes */
	{ "nbds://h/x", URI_TCP, true, "h", "10809", "", "x", "nbds://h:10809/x" },
	{ "nbd+vsock://2/x", URI_VSOCK, false, "2", "10809", "", "x", "nbd+vsock://2:10809/x" },
	{ "nbd+vsock://0:0", URI_VSOCK, false, "0", "0", "", "", "nbd+vsock://0:0/" },
	{ "NBDs+VSock://4294967294:4294967294//y", URI_VSOCK, true, "4294967294", "4294967294", "",
	  "/y", "nbds+vsock://4294967294:4294967294//y" },
	{ "nbds+unix:///x?socket=/s", URI_UNIX, true, "", "", "/s", "x",
	  "nbds+unix:///x?socket=/s" },
	{ "NbD://h/X", URI_TCP, false, "h", "10809", "", "X", "nbd://h:10809/X" },
	{ "NBDS+Unix:///?socket=S", URI_UNIX, true, "", "", "S", "", "nbds+unix:///?socket=S" },
	/* hosts */
	{ "nbd://EXAMPLE.com", URI_TCP, false, "example.com", "10809", "", "",
	  "nbd://example.com:10809/" },
	{ "nbd://a_b-c.%65xample.", URI_TCP, false, "a_b-c.example.", "10809", "", "",
	  "nbd://a_b-c.example.:10809/" },
	{ "nbd://192.0.2.1:1", URI_TCP, false, "192.0.2.1", "1", "", "", "nbd://192.0.2.1:1/" },
	{ "nbd://[::1]", URI_TCP, false, "::1", "10809", "", "", "nbd://[::1]:10809/" },
	{ "nbd://[2001:DB8::A]:65535/x", URI_TCP, false, "2001:db8::a", "65535", "", "x",
	  "nbd://[2001:db8::a]:65535/x" },
	{ "nbd://[::ffff:192.0.2.1]/x", URI_TCP, false, "::ffff:192.0.2.1", "10809", "", "x",
	  "nbd://[::ffff:192.0.2.1]:10809/x" },
	{ "nbd://[FE80::1%25Eth0]:10/x", URI_TCP, false, "fe80::1%Eth0", "10", "", "x",
	  "nbd://[fe80::1%25Eth0]:10/x" },
	{ "nbd://[fe80::1%25a%5fb%2E1]", URI_TCP, false, "fe80::1%a_b.1", "10809", "", "",
	  "nbd://[fe80::1%25a_b.1]:10809/" },
	{ "nbd://b%C3%BCro/", URI_TCP, false, "b\xc3\xbcro", "10809", "", "",
	  "nbd://b%C3%BCro:10809/" },
	/* ports */
	{ "nbd://h:/x", URI_TCP, false, "h", "10809", "", "x", "nbd://h:10809/x" },
	{ "nbd://h:0080/x", URI_TCP, false, "h", "80", "", "x", "nbd://h:80/x" },
	{ "nbd://h:00000000000000000000000001/x", URI_TCP, false, "h", "1", "", "x",
	  "nbd://h:1/x" },
	/* export names */
	{ "nbd://h/a/b//c/", URI_TCP, false, "h", "10809", "", "a/b//c/", "nbd://h:10809/a/b//c/" },
	{ "nbd://h/../.", URI_TCP, false, "h", "10809", "", "../.", "nbd://h:10809/../." },
	{ "nbd://h/a%2fb", URI_TCP, false, "h", "10809", "", "a/b", "nbd://h:10809/a/b" },
	{ "nbd://h/%C3%A9%e2%82%ac", URI_TCP, false, "h", "10809", "", "\xc3\xa9\xe2\x82\xac",
	  "nbd://h:10809/%C3%A9%E2%82%AC" },
	{ "nbd://h/a+b:c@d,e;f=g&h!i'(j)*$~", URI_TCP, false, "h", "10809", "",
	  "a+b:c@d,e;f=g&h!i'(j)*$~",
	  "nbd://h:10809/a%2Bb%3Ac%40d%2Ce%3Bf%3Dg%26h%21i%27%28j%29%2A%24~" },
	{ "nbd://h/%3f%23%25%2500", URI_TCP, false, "h", "10809", "", "?#%%00",
	  "nbd://h:10809/%3F%23%25%2500" },
	{ "nbd://h/%0d%0a%0A%0D%01", URI_TCP, false, "h", "10809", "", "\r\n\n\r\x01",
	  "nbd://h:10809/%0D%0A%0A%0D%01" },
	{ "nbd+unix://?socket=s", URI_UNIX, false, "", "", "s", "", "nbd+unix:///?socket=s" },
	/* queries */
	{ "nbd://h/x?", URI_TCP, false, "h", "10809", "", "x", "nbd://h:10809/x" },
	{ "nbd://h?", URI_TCP, false, "h", "10809", "", "", "nbd://h:10809/" },
	{ "nbd://h/x?&&", URI_TCP, false, "h", "10809", "", "x", "nbd://h:10809/x" },
	{ "nbd+unix:///x?&socket=/run/n.sock&", URI_UNIX, false, "", "", "/run/n.sock", "x",
	  "nbd+unix:///x?socket=/run/n.sock" },
	{ "nbd+unix:///?%73ocket=%2ftmp%2Fa%20b+c", URI_UNIX, false, "", "", "/tmp/a b+c", "",
	  "nbd+unix:///?socket=/tmp/a%20b%2Bc" },
	{ "nbd+unix:///?socket=a=b?c:@", URI_UNIX, false, "", "", "a=b?c:@", "",
	  "nbd+unix:///?socket=a%3Db%3Fc%3A%40" },
	/* a path of the file system is bytes */
	{ "nbd+unix:///?socket=/%ff%26%01", URI_UNIX, false, "", "", "/\xff&\x01", "",
	  "nbd+unix:///?socket=/%FF%26%01" },
};

START_TEST(parse_takes_the_parts)
{
	struct uri u;
	struct err e;
	int rc;

	err_clear(&e);
	memset(&u, 0xa5, sizeof(u));
	rc = uri_parse(&u, good[_i].text, &e);
	ck_assert_msg(rc == 0, "%s: %d %s", good[_i].text, rc, e.text);
	ck_assert_int_eq(u.transport, good[_i].transport);
	ck_assert_int_eq(u.tls, good[_i].tls);
	ck_assert_str_eq(u.host, good[_i].host);
	ck_assert_str_eq(u.port, good[_i].port);
	ck_assert_str_eq(u.path, good[_i].path);
	ck_assert_str_eq(u.export, good[_i].export);
	check_format(&u, good[_i].canonical);
	ck_assert_int_eq(e.code, 0);
}
END_TEST

static const struct {
	const char *text, *error;
} bad[] = {
	/* schemes */
	{ "", "the URI \"\" has no scheme with \"://\" behind it" },
	{ "example.com", "the URI \"example.com\" has no scheme with \"://\" behind it" },
	{ "nbd:/x", "the URI \"nbd:/x\" has no scheme with \"://\" behind it" },
	{ "1nbd://h", "the URI \"1nbd://h\" has no scheme with \"://\" behind it" },
	{ "\x1b://h", "the URI \"\\x1b://h\" has no scheme with \"://\" behind it" },
	{ "http://h/",
	  "the URI's scheme \"http\" is not nbd or nbds, perhaps with +unix or +vsock" },
	{ "nb://h/", "the URI's scheme \"nb\" is not nbd or nbds, perhaps with +unix or +vsock" },
	{ "nbdx://h/",
	  "the URI's scheme \"nbdx\" is not nbd or nbds, perhaps with +unix or +vsock" },
	{ "nbd+vsock:///x", "the context identifier \"\" is not a number below 4294967295" },
	{ "nbd+vsock://4294967295/x",
	  "the context identifier \"4294967295\" is not a number below 4294967295" },
	{ "nbd+vsock://host/x",
	  "the context identifier \"host\" is not a number below 4294967295" },
	{ "nbd+vsock://[::1]/x",
	  "the context identifier \"::1\" is not a number below 4294967295" },
	{ "nbd+vsock://2:4294967295/", "the port \"4294967295\" is not a number below 4294967295" },
	{ "nbd+vsock://2/?socket=/s",
	  "the URI's parameter \"socket\" is for nbd+unix and nbds+unix only" },
	/* what RFC 3986 does not allow */
	{ "nbd://h/a b", "the URI's export name \"a b\" breaks RFC 3986 at its byte 2" },
	{ "nbd://h/\xc3\xa9", "the URI's export name \"\xc3\xa9\" breaks RFC 3986 at its byte 1" },
	{ "nbd://h/\x1b[m", "the URI's export name \"\\x1b[m\" breaks RFC 3986 at its byte 1" },
	{ "nbd://h/%zz", "the URI's export name \"%zz\" breaks RFC 3986 at its byte 2" },
	{ "nbd://h/x/%4", "the URI's export name \"x/%4\" breaks RFC 3986 at its byte 5" },
	{ "nbd://h/%?a", "the URI's export name \"%\" breaks RFC 3986 at its byte 2" },
	{ "nbd://h/[x]?a=b#c", "the URI's export name \"[x]\" breaks RFC 3986 at its byte 1" },
	{ "nbd://h/?a=\"", "the URI's query \"a=\"\" breaks RFC 3986 at its byte 3" },
	{ "nbd://h?a%#c", "the URI's query \"a%\" breaks RFC 3986 at its byte 3" },
	{ "nbd+unix:///x?socket=[", "the URI's query \"socket=[\" breaks RFC 3986 at its byte 8" },
	{ "nbd://[fe80::1%25eth0]:1/a b",
	  "the URI's export name \"a b\" breaks RFC 3986 at its byte 2" },
	{ "nbd://h:x/a", "the URI's host or port \"h:x\" breaks RFC 3986" },
	{ "nbd://h:-1/a", "the URI's host or port \"h:-1\" breaks RFC 3986" },
	{ "nbd://h:1x/a", "the URI's host or port \"h:1x\" breaks RFC 3986" },
	{ "nbd://h i/a", "the URI's host or port \"h i\" breaks RFC 3986" },
	{ "nbd://[::1/a", "the URI's host or port \"[::1\" breaks RFC 3986" },
	{ "nbd://[::1]x/a", "the URI's host or port \"[::1]x\" breaks RFC 3986" },
	{ "nbd://[1::2::3]/a", "the URI's host or port \"[1::2::3]\" breaks RFC 3986" },
	{ "nbd://[fe80::1%eth0]/a", "the URI's host or port \"[fe80::1%eth0]\" breaks RFC 3986" },
	{ "nbd://[fe80::1%25a!b]/a", "the URI's host or port \"[fe80::1%25a!b]\" breaks RFC 3986" },
	{ "nbd://[fe80::1%25a%4]/a", "the URI's host or port \"[fe80::1%25a%4]\" breaks RFC 3986" },
	{ "nbd://[fe80::1%25eth0/a", "the URI's host or port \"[fe80::1%25eth0\" breaks RFC 3986" },
	{ "nbd://[fe8::x%25eth0]:1/a",
	  "the URI's host or port \"[fe8::x%25eth0]:1\" breaks RFC 3986" },
	{ "nbd://[]/a", "the URI's host or port \"[]\" breaks RFC 3986" },
	{ "nbd://h[::1%25lo]/a", "the URI's host or port \"h[::1%25lo]\" breaks RFC 3986" },
	{ "nbd://%5b::1%5d/a", "the URI's host or port \"%5b::1%5d\" breaks RFC 3986" },
	{ "nbd://h%4/a", "the URI's host or port \"h%4\" breaks RFC 3986" },
	/* a percent-encoded part of an address, which is no zone */
	{ "nbd://[::%31]/", "the URI's host or port \"[::%31]\" breaks RFC 3986" },
	{ "nbd://h:x", "the URI's host or port \"h:x\" breaks RFC 3986" },
	{ "nbd://h:\x1b?a", "the URI's host or port \"h:\\x1b\" breaks RFC 3986" },
	{ "nbds://user:sec ret@h/", "the URI's user name, host or port breaks RFC 3986" },
	{ "nbds://user%4@h/", "the URI's user name, host or port breaks RFC 3986" },
	{ "nbds://a@b@h/", "the URI's user name, host or port breaks RFC 3986" },
	{ "nbd://h/?a#b#c", "the URI has a fragment, the part from '#'" },
	/* authority */
	{ "nbd:///x", "the host is empty" },
	{ "nbd://", "the host is empty" },
	{ "nbd://?a", "the host is empty" },
	{ "nbd://:10809/x", "the host is empty" },
	{ "nbd://h,i/", "the host \"h,i\" is neither a name nor an address" },
	{ "nbd://h%20i/", "the host \"h i\" is neither a name nor an address" },
	{ "nbd://h%3A1/", "the host \"h:1\" is neither a name nor an address" },
	{ "nbd://h%2fi/", "the host \"h/i\" is neither a name nor an address" },
	{ "nbd://%1b%5Bm/", "the host \"\\x1b[m\" is neither a name nor an address" },
	{ "nbd://%ff/", "the host \"\\xff\" is not UTF-8" },
	{ "nbd://h%00/", "the host \"h%00\" contains %00" },
	{ "nbd://[v1.abc]/", "the host \"v1.abc\" is of an unknown kind of address" },
	{ "nbd://[v1.abc%25lo]/", "the host \"v1.abc\" is of an unknown kind of address" },
	{ "nbd://[fe80::1%25]/", "the host \"fe80::1%\" has a zone that can be no interface" },
	{ "nbd://[fe80::1%25a%2Fb]/",
	  "the host \"fe80::1%a/b\" has a zone that can be no interface" },
	{ "nbd://[fe80::1%25a%3Ab]/",
	  "the host \"fe80::1%a:b\" has a zone that can be no interface" },
	{ "nbd://[fe80::1%25a%20b]/",
	  "the host \"fe80::1%a b\" has a zone that can be no interface" },
	{ "nbd://[fe80::1%25a%7fb]/",
	  "the host \"fe80::1%a\\x7fb\" has a zone that can be no interface" },
	{ "nbd://[fe80::1%25a%25b]/",
	  "the host \"fe80::1%a%b\" has a zone that can be no interface" },
	{ "nbd://[fe80::1%25abcdefghijklmnop]/",
	  "the host \"fe80::1%abcdefghijklmnop\" has a zone that can be no interface" },
	{ "nbd://[fe80::1%25a%00]/", "the host \"fe80::1%25a%00\" contains %00" },
	{ "nbd://h:0/", "the port \"0\" is not a number from 1 to 65535" },
	{ "nbd://h:65536/", "the port \"65536\" is not a number from 1 to 65535" },
	{ "nbd://h:99999999999999999999/",
	  "the port \"99999999999999999999\" is not a number from 1 to 65535" },
	{ "nbd://user@h/",
	  "the URI has a user name, which is for nbds, nbds+unix and nbds+vsock only" },
	{ "nbd://user:secret@h/",
	  "the URI has a user name, which is for nbds, nbds+unix and nbds+vsock only" },
	{ "nbd://@h/",
	  "the URI has a user name, which is for nbds, nbds+unix and nbds+vsock only" },
	{ "nbd+unix://user@/x?socket=s",
	  "the URI has a user name, which is for nbds, nbds+unix and nbds+vsock only" },
	{ "nbds://@h/", "the URI's user name is empty" },
	{ "nbds+unix://@/x?socket=s", "the URI's user name is empty" },
	{ "nbds://user:secret@h/",
	  "the URI has a password, but a pre-shared key is read from a file "
	  "only (tls-psk-file)" },
	{ "nbds://user:@h/", "the URI has a password, but a pre-shared key is read from a file "
			     "only (tls-psk-file)" },
	{ "nbds://us%00er@h/", "the URI's user name contains %00" },
	{ "nbds+unix://user@h/x?socket=s", "the URI of a Unix socket has a host or port" },
	{ "nbds+unix://user@:1/x?socket=s", "the URI of a Unix socket has a host or port" },
	{ "nbd+unix://h/x?socket=s", "the URI of a Unix socket has a host or port" },
	{ "nbd+unix://:10809/x?socket=s", "the URI of a Unix socket has a host or port" },
	{ "nbd+unix://:/x?socket=s", "the URI of a Unix socket has a host or port" },
	{ "nbds+unix://[::1]/x?socket=s", "the URI of a Unix socket has a host or port" },
	/* export name */
	{ "nbd://h/a%00b", "the export name \"a%00b\" contains %00" },
	{ "nbd://h/%00", "the export name \"%00\" contains %00" },
	{ "nbd://h/a%ff", "the export name \"a\\xff\" is not UTF-8" },
	{ "nbd://h/%c0%80", "the export name \"\\xc0\\x80\" is not UTF-8" },
	{ "nbd://h/%ed%a0%80", "the export name \"\\xed\\xa0\\x80\" is not UTF-8" },
	{ "nbd+unix:///%e9?socket=s", "the export name \"\\xe9\" is not UTF-8" },
	/* query and fragment */
	{ "nbd://h/x#f", "the URI has a fragment, the part from '#'" },
	{ "nbd://h/x#", "the URI has a fragment, the part from '#'" },
	{ "nbd+unix:///x?socket=s#f", "the URI has a fragment, the part from '#'" },
	{ "nbd+unix:///x", "the URI of a Unix socket has no parameter \"socket\"" },
	{ "nbd+unix:///x?", "the URI of a Unix socket has no parameter \"socket\"" },
	{ "nbd+unix:///x?socket", "the URI's parameter \"socket\" has no value" },
	{ "nbd+unix:///x?socket=", "the socket's path is empty" },
	{ "nbd+unix:///x?socket=a&socket=a", "the URI's parameter \"socket\" is given twice" },
	{ "nbd+unix:///x?socket=a&%73ocket", "the URI's parameter \"socket\" is given twice" },
	{ "nbd+unix:///x?Socket=a", "the URI's parameter \"Socket\" is not known" },
	{ "nbd+unix:///?socket=%00/abstract",
	  "the URI's query \"socket=%00/abstract\" contains %00, "
	  "and abstract sockets are not supported" },
	{ "nbd+unix:///?socket=a%00", "the URI's query \"socket=a%00\" contains %00, "
				      "and abstract sockets are not supported" },
	{ "nbd://h/x?socket=/s",
	  "the URI's parameter \"socket\" is for nbd+unix and nbds+unix only" },
	{ "nbds://h/?tls-type=x509",
	  "the URI's parameter \"tls-type\" is not supported by this version" },
	{ "nbd://h/?tls-hostname=h",
	  "the URI's parameter \"tls-hostname\" is for nbds, nbds+unix and nbds+vsock only" },
	{ "nbds://h/?tls-hostname", "the URI's parameter \"tls-hostname\" has no value" },
	{ "nbds://h/?tls-psk-file=", "the URI's parameter \"tls-psk-file\" has no value" },
	{ "nbds://h/?tls-psk-file=a&tls-psk-file=b",
	  "the URI's parameter \"tls-psk-file\" is given twice" },
	{ "nbd+unix:///?tls-certificates=d&socket=s",
	  "the URI's parameter \"tls-certificates\" is for nbds, nbds+unix and nbds+vsock only" },
	{ "nbd+unix:///?tls-verify-peer=0&socket=s",
	  "the URI's parameter \"tls-verify-peer\" is not supported by this version" },
	{ "nbd+unix:///?socket=s&x-mine=1", "the URI's parameter \"x-mine\" is not known" },
	{ "nbd://h/?a%1bb=1", "the URI's parameter \"a\\x1bb\" is not known" },
	{ "nbd://h/?=1", "the URI's parameter \"\" is not known" },
	{ "nbd://h/?tls", "the URI's parameter \"tls\" is not known" },
};

START_TEST(parse_names_what_is_wrong)
{
	struct uri u;
	struct err e;
	int rc;

	err_clear(&e);
	memset(&u, 0xa5, sizeof(u));
	rc = uri_parse(&u, bad[_i].text, &e);
	ck_assert_msg(rc == -EINVAL, "%s: %d %s", bad[_i].text, rc, e.text);
	ck_assert_str_eq(e.text, bad[_i].error);
	ck_assert_int_eq(e.code, EINVAL);
	ck_assert_int_eq(e.kind, ERR_USAGE);
	ck_assert(all_zero(&u));
}
END_TEST

/* Limits: before, then count times unit, then after; the same for a command line. */
static const struct {
	const char *before, *unit;
	int count;
	const char *after, *error;
} sizes[] = {
	{ "nbd://h/", "x", 4096, "", NULL },
	{ "nbd://h/", "%78", 4096, "", NULL },
	{ "nbd+unix:///", "%C3%A9", 2048, "?socket=s", NULL },
	{ "nbd://h/", "x", 4097, "", "is longer than 4096 bytes" },
	{ "nbd://h/", "%C3%A9", 2049, "", "is longer than 4096 bytes" },
	{ "nbd://", "h", 255, "/x", NULL },
	{ "nbd://", "h", 256, "/x", "is longer than 255 bytes" },
	{ "nbd://[::", "0", 60, "]/x", "breaks RFC 3986" },
	{ "nbd://[fe80::1%25", "z", 15, "]", NULL },
	{ "nbd://[fe80::1%25", "z", 16, "]", "has a zone that can be no interface" },
	{ "nbd+unix:///x?socket=", "s", 107, "", NULL },
	{ "nbd+unix:///x?socket=", "%20", 107, "", NULL },
	{ "nbd+unix:///x?socket=", "s", 108, "", "is longer than 107 bytes" },
	{ "nbd://h/?", "a", 9000, "=1", "is not known" },
	{ "nbd://h/", "x", URI_TEXT_MAX - 9, "", "is longer than 4096 bytes" },
	{ "nbd://h/", "x", URI_TEXT_MAX - 8, "", "is too long" },
	{ "nbd://h/", "x", 90000, "", "is too long" },
	{ "nbd://h:", "0", 9000, "1/x", NULL },
};

static void build(char *buf, const char *before, const char *unit, int count, const char *after)
{
	size_t n = strlen(before);

	memcpy(buf, before, n);
	for (int i = 0; i < count; i++) {
		memcpy(buf + n, unit, strlen(unit));
		n += strlen(unit);
	}
	memcpy(buf + n, after, strlen(after) + 1);
}

START_TEST(parse_keeps_the_limits)
{
	static char text[100000];
	struct uri u, again;
	struct err e;
	int rc;

	err_clear(&e);
	build(text, sizes[_i].before, sizes[_i].unit, sizes[_i].count, sizes[_i].after);
	rc = uri_parse(&u, text, &e);
	if (sizes[_i].error) {
		ck_assert_int_eq(rc, -EINVAL);
		ck_assert_msg(strstr(e.text, sizes[_i].error), "%s", e.text);
		ck_assert_uint_lt(strlen(e.text), 200);
		ck_assert(all_zero(&u));
		return;
	}
	ck_assert_msg(rc == 0, "%s", e.text);
	ck_assert_uint_lt(uri_format(&u, text, URI_TEXT_MAX), URI_TEXT_MAX);
	ck_assert_int_eq(uri_parse(&again, text, &e), 0);
	ck_assert_mem_eq(&again, &u, sizeof(u));
}
END_TEST

START_TEST(parse_says_that_memory_ran_out)
{
	struct uri u;
	struct err e;

	parse_without_memory = _i == 0;
	dissect_without_memory = _i == 1;
	ck_assert_int_eq(uri_parse(&u, "nbd+unix:///x?socket=s", &e), -ENOMEM);
	parse_without_memory = dissect_without_memory = false;
	ck_assert_int_eq(e.kind, ERR_FAILED);
	ck_assert_int_eq(strncmp(e.text, "parse the URI: ", 15), 0);
	ck_assert(all_zero(&u));
}
END_TEST

static const struct {
	const char *host, *export;
	enum uri_transport transport;
	const char *want_host, *want_port, *want_path, *canonical;
} hosts[] = {
	{ "example.com", "disk", URI_TCP, "example.com", "10809", "",
	  "nbd://example.com:10809/disk" },
	{ "Example.COM:2000", "", URI_TCP, "example.com", "2000", "", "nbd://example.com:2000/" },
	{ "192.0.2.1", "a b", URI_TCP, "192.0.2.1", "10809", "", "nbd://192.0.2.1:10809/a%20b" },
	{ "192.0.2.1:1", "/d", URI_TCP, "192.0.2.1", "1", "", "nbd://192.0.2.1:1//d" },
	{ "h:010", "", URI_TCP, "h", "10", "", "nbd://h:10/" },
	{ "[::1]", "x", URI_TCP, "::1", "10809", "", "nbd://[::1]:10809/x" },
	{ "[2001:DB8::1]:65535", "x", URI_TCP, "2001:db8::1", "65535", "",
	  "nbd://[2001:db8::1]:65535/x" },
	{ "::1", "x", URI_TCP, "::1", "10809", "", "nbd://[::1]:10809/x" },
	{ "::", "x", URI_TCP, "::", "10809", "", "nbd://[::]:10809/x" },
	{ "1:2:3:4:5:6:7:8", "x", URI_TCP, "1:2:3:4:5:6:7:8", "10809", "",
	  "nbd://[1:2:3:4:5:6:7:8]:10809/x" },
	{ "FE80::1%Eth0", "x", URI_TCP, "fe80::1%Eth0", "10809", "",
	  "nbd://[fe80::1%25Eth0]:10809/x" },
	{ "[fe80::1%br-0]:7", "x", URI_TCP, "fe80::1%br-0", "7", "", "nbd://[fe80::1%25br-0]:7/x" },
	{ "fe80::1%a[b]", "x", URI_TCP, "fe80::1%a[b]", "10809", "",
	  "nbd://[fe80::1%25a%5Bb%5D]:10809/x" },
	{ "/run/nbd.sock", "disk", URI_UNIX, "", "", "/run/nbd.sock",
	  "nbd+unix:///disk?socket=/run/nbd.sock" },
	{ "./nbd sock", "", URI_UNIX, "", "", "./nbd sock", "nbd+unix:///?socket=./nbd%20sock" },
	{ "a/b:c", "x", URI_UNIX, "", "", "a/b:c", "nbd+unix:///x?socket=a/b%3Ac" },
	{ "/a://b", "x", URI_UNIX, "", "", "/a://b", "nbd+unix:///x?socket=/a%3A//b" },
	{ "/\xff", "%41?#", URI_UNIX, "", "", "/\xff", "nbd+unix:///%2541%3F%23?socket=/%FF" },
};

START_TEST(from_host_takes_the_command_line)
{
	struct uri u;
	struct err e;
	int rc;

	err_clear(&e);
	memset(&u, 0xa5, sizeof(u));
	rc = uri_from_host(&u, hosts[_i].host, hosts[_i].export, &e);
	ck_assert_msg(rc == 0, "%s: %d %s", hosts[_i].host, rc, e.text);
	ck_assert_int_eq(u.transport, hosts[_i].transport);
	ck_assert(!u.tls);
	ck_assert_str_eq(u.host, hosts[_i].want_host);
	ck_assert_str_eq(u.port, hosts[_i].want_port);
	ck_assert_str_eq(u.path, hosts[_i].want_path);
	ck_assert_str_eq(u.export, hosts[_i].export);
	check_format(&u, hosts[_i].canonical);
}
END_TEST

static const struct {
	const char *host, *export, *error;
} bad_hosts[] = {
	{ "", "x", "the host is empty" },
	{ ":10809", "x", "the host is empty" },
	{ "h:", "x", "the port \"\" is not a number from 1 to 65535" },
	{ "h:0", "x", "the port \"0\" is not a number from 1 to 65535" },
	{ "h:65536", "x", "the port \"65536\" is not a number from 1 to 65535" },
	{ "h:nbd", "x", "the port \"nbd\" is not a number from 1 to 65535" },
	{ "h:1 ", "x", "the port \"1 \" is not a number from 1 to 65535" },
	{ "h:+1", "x", "the port \"+1\" is not a number from 1 to 65535" },
	{ "h i", "x", "the host \"h i\" is neither a name nor an address" },
	{ "h\n", "x", "the host \"h\\x0a\" is neither a name nor an address" },
	{ "user@h", "x", "the host \"user@h\" is neither a name nor an address" },
	{ "h%00", "x", "the host \"h%00\" is neither a name nor an address" },
	{ "h]", "x", "the host \"h]\" is neither a name nor an address" },
	{ "\xe9", "x", "the host \"\\xe9\" is not UTF-8" },
	{ "a:b:c", "x", "the host \"a:b:c\" is not an IPv6 address" },
	{ "h:1:", "x", "the host \"h:1:\" is not an IPv6 address" },
	{ "::1:12345", "x", "the host \"::1:12345\" is not an IPv6 address" },
	{ "1:2:3:4:5:6:7:8:9", "x", "the host \"1:2:3:4:5:6:7:8:9\" is not an IPv6 address" },
	{ "0000:0000:0000:0000:0000:0000:0000:00000000000001", "x",
	  "the host \"0000:0000:0000:0000:0000:0000:0000:00000000000001\" "
	  "is not an IPv6 address" },
	{ "0000:0000:0000:0000:0000:0000:0000:0000:0000:0", "x",
	  "the host \"0000:0000:0000:0000:0000:0000:0000:0000:0000:0\" is not an IPv6 address" },
	{ "[h]", "x", "the host \"h\" is not an IPv6 address" },
	{ "[192.0.2.1]:1", "x", "the host \"192.0.2.1\" is not an IPv6 address" },
	{ "[]", "x", "the host \"\" is not an IPv6 address" },
	{ "[::1", "x", "the host \"[::1\" has no ']'" },
	{ "[::1]x", "x", "the host \"[::1]x\" has no ':' behind its ']'" },
	{ "[::1]10809", "x", "the host \"[::1]10809\" has no ':' behind its ']'" },
	{ "[::1]:", "x", "the port \"\" is not a number from 1 to 65535" },
	{ "[::1]:x", "x", "the port \"x\" is not a number from 1 to 65535" },
	{ "fe80::1%", "x", "the host \"fe80::1%\" has a zone that can be no interface" },
	{ "fe80::1%a:b", "x", "the host \"fe80::1%a:b\" has a zone that can be no interface" },
	{ "fe80::1%a%b", "x", "the host \"fe80::1%a%b\" has a zone that can be no interface" },
	{ "fe80::1%a\tb", "x", "the host \"fe80::1%a\\x09b\" has a zone that can be no interface" },
	{ "fe80::1%abcdefghijklmnop", "x",
	  "the host \"fe80::1%abcdefghijklmnop\" has a zone that can be no interface" },
	{ "nbd://h/x", "x", "the host \"nbd://h/x\" is a URI" },
	{ "http://h", "x", "the host \"http://h\" is a URI" },
	{ "h", "\xff", "the export name \"\\xff\" is not UTF-8" },
	{ "/s", "a\xc3", "the export name \"a\\xc3\" is not UTF-8" },
};

START_TEST(from_host_names_what_is_wrong)
{
	struct uri u;
	struct err e;
	int rc;

	err_clear(&e);
	memset(&u, 0xa5, sizeof(u));
	rc = uri_from_host(&u, bad_hosts[_i].host, bad_hosts[_i].export, &e);
	ck_assert_msg(rc == -EINVAL, "%s: %d %s", bad_hosts[_i].host, rc, e.text);
	ck_assert_str_eq(e.text, bad_hosts[_i].error);
	ck_assert_int_eq(e.code, EINVAL);
	ck_assert_int_eq(e.kind, ERR_USAGE);
	ck_assert(all_zero(&u));
}
END_TEST

START_TEST(from_host_keeps_the_limits)
{
	static char text[8192];
	struct uri u;
	struct err e;

	build(text, "", "h", 255, "");
	ck_assert_int_eq(uri_from_host(&u, text, "", &e), 0);
	build(text, "", "h", 256, "");
	ck_assert_int_eq(uri_from_host(&u, text, "", &e), -EINVAL);
	ck_assert_ptr_nonnull(strstr(e.text, "the host \"hhh"));
	ck_assert_ptr_nonnull(strstr(e.text, "is longer than 255 bytes"));
	build(text, "/", "s", 106, "");
	ck_assert_int_eq(uri_from_host(&u, text, "", &e), 0);
	build(text, "/", "s", 107, "");
	ck_assert_int_eq(uri_from_host(&u, text, "", &e), -EINVAL);
	ck_assert_ptr_nonnull(strstr(e.text, "the socket's path \"/sss"));
	ck_assert_ptr_nonnull(strstr(e.text, "is longer than 107 bytes"));
	build(text, "", "x", 4096, "");
	ck_assert_int_eq(uri_from_host(&u, "h", text, &e), 0);
	ck_assert_str_eq(u.export, text);
	build(text, "", "x", 4097, "");
	ck_assert_int_eq(uri_from_host(&u, "h", text, &e), -EINVAL);
	ck_assert_ptr_nonnull(strstr(e.text, "the export name \"xxx"));
	ck_assert_ptr_nonnull(strstr(e.text, "is longer than 4096 bytes"));
}
END_TEST

static const struct {
	const char *text;
	bool looks;
} looks[] = {
	{ "nbd://h", true },      { "nbds+unix:///", true },
	{ "NBD://", true },       { "a1+.-://", true },
	{ "http://h", true },     { "", false },
	{ "://h", false },        { "h", false },
	{ "h:10809", false },     { "nbd:h", false },
	{ "nbd:/h", false },      { "nbd:", false },
	{ "/a://b", false },      { "./a://b", false },
	{ "1a://b", false },      { "+a://b", false },
	{ "a_b://c", false },     { "[::1]:1", false },
	{ "\xc3\xa9://", false }, { "nb d://h", false },
};

START_TEST(looks_like_wants_a_scheme)
{
	ck_assert_msg(uri_looks_like(looks[_i].text) == looks[_i].looks, "%s", looks[_i].text);
}
END_TEST

static const struct {
	const char *text;
	size_t cap;
	const char *endpoint;
} endpoints[] = {
	{ "nbd://Example.com/x", 64, "example.com:10809" },
	{ "nbds://192.0.2.1:1/x", 64, "192.0.2.1:1" },
	{ "nbd://[::1]:2/x", 64, "[::1]:2" },
	{ "nbd://[fe80::1%25eth0]:2/x", 64, "[fe80::1%eth0]:2" },
	{ "nbd://b%C3%BCro/", 64, "b\xc3\xbcro:10809" },
	{ "nbd://a%E2%80%AEb/", 64, "a\\xe2\\x80\\xaeb:10809" },
	{ "nbd+unix:///x?socket=/run/a.sock", 64, "/run/a.sock" },
	{ "nbd+unix:///x?socket=/%1b%5B2J%ff", 64, "/\\x1b[2J\\xff" },
	{ "nbds+vsock://2/x", 64, "vsock:2:10809" },
	{ "nbd://example.com/x", 10, "exampl..." },
	{ "nbd+unix:///x?socket=/run/a.sock", 8, "/run..." },
	{ "nbd://example.com/x", 1, "" },
};

START_TEST(endpoint_is_for_messages)
{
	struct uri u;
	struct err e;
	char buf[64];

	ck_assert_int_eq(uri_parse(&u, endpoints[_i].text, &e), 0);
	memset(buf, '#', sizeof(buf));
	uri_endpoint(&u, buf, endpoints[_i].cap);
	ck_assert_str_eq(buf, endpoints[_i].endpoint);
	for (size_t i = endpoints[_i].cap; i < sizeof(buf); i++)
		ck_assert_int_eq(buf[i], '#');
}
END_TEST

/* The longest name with the longest port and zone fits, as does the longest host alone. */
START_TEST(endpoint_holds_the_longest_host)
{
	char text[URI_TEXT_MAX], buf[URI_HOST_MAX + 16];
	struct uri u;
	struct err e;

	build(text, "nbd://", "h", 255, ":65535/");
	ck_assert_int_eq(uri_parse(&u, text, &e), 0);
	uri_endpoint(&u, buf, sizeof(buf));
	build(text, "", "h", 255, ":65535");
	ck_assert_str_eq(buf, text);
}
END_TEST

START_TEST(format_never_leaves_its_buffer)
{
	static const char whole[] = "nbd://h:10809/x%20y";
	struct uri u;
	struct err e;
	char buf[32];

	ck_assert_int_eq(uri_parse(&u, whole, &e), 0);
	for (size_t cap = 1; cap <= sizeof(whole); cap++) {
		memset(buf, '#', sizeof(buf));
		ck_assert_uint_eq(uri_format(&u, buf, cap), cap - 1);
		ck_assert_mem_eq(buf, whole, cap - 1);
		ck_assert_int_eq(buf[cap - 1], '\0');
		ck_assert_int_eq(buf[cap], '#');
	}
}
END_TEST

START_TEST(tls_parameters)
{
	static struct uri u;
	char text[URI_TEXT_MAX], *p = text;
	struct err e;

	ck_assert_int_eq(uri_parse(&u,
				   "nbds://h/x?tls-hostname=n.example&tls-psk-file=/a%20b&"
				   "tls-certificates=/c",
				   &e),
			 0);
	ck_assert(u.tls);
	ck_assert_str_eq(u.tls_hostname, "n.example");
	ck_assert_str_eq(u.tls_psk_file, "/a b");
	ck_assert_str_eq(u.tls_certificates, "/c");
	uri_format(&u, text, sizeof(text));
	ck_assert_str_eq(text, "nbds://h:10809/x");
	ck_assert_int_eq(uri_parse(&u, "nbds+unix:///?socket=s&tls-hostname=n", &e), 0);
	ck_assert_str_eq(u.tls_hostname, "n");

	p += sprintf(p, "nbds://h/?tls-psk-file=");
	memset(p, 'x', URI_FILE_MAX + 1);
	p[URI_FILE_MAX] = '\0';
	ck_assert_int_eq(uri_parse(&u, text, &e), 0);
	p[URI_FILE_MAX] = 'x';
	p[URI_FILE_MAX + 1] = '\0';
	ck_assert_int_lt(uri_parse(&u, text, &e), 0);
	ck_assert_ptr_nonnull(strstr(e.text, "is too long"));
}
END_TEST

/* Decoded, with the place of the host unharmed, and in no text that others see. */
static const struct {
	const char *text, *user, *canonical;
} users[] = {
	{ "nbds://alice@h/x", "alice", "nbds://h:10809/x" },
	{ "nbds://a%3Ab%40c%2f@H:1/", "a:b@c/", "nbds://h:1/" },
	{ "nbds://%C3%A9%ff%01@h", "\xc3\xa9\xff\x01", "nbds://h:10809/" },
	{ "nbds://a!$&'()*+,;=~@[fe80::1%25eth0]:2/x@y", "a!$&'()*+,;=~",
	  "nbds://[fe80::1%25eth0]:2/x%40y" },
	{ "nbds+unix://alice@/x?socket=s", "alice", "nbds+unix:///x?socket=s" },
	{ "nbds+unix://alice@?socket=s@t", "alice", "nbds+unix:///?socket=s%40t" },
	{ "nbds+unix:///x@y?socket=s", "", "nbds+unix:///x%40y?socket=s" },
};

START_TEST(user_is_beside_the_place)
{
	static struct uri u;
	char text[URI_TEXT_MAX], endpoint[300];
	struct err e;

	err_clear(&e);
	ck_assert_msg(!uri_parse(&u, users[_i].text, &e), "%s: %s", users[_i].text, e.text);
	ck_assert_str_eq(u.tls_user, users[_i].user);
	uri_format(&u, text, sizeof(text));
	ck_assert_str_eq(text, users[_i].canonical);
	uri_endpoint(&u, endpoint, sizeof(endpoint));
	ck_assert(!users[_i].user[0] || !strstr(endpoint, users[_i].user));
}
END_TEST

START_TEST(user_keeps_the_limit)
{
	static struct uri u;
	char text[URI_TEXT_MAX];
	struct err e;

	build(text, "nbds://", "%41", URI_USER_MAX, "@h/");
	ck_assert_int_eq(uri_parse(&u, text, &e), 0);
	ck_assert_uint_eq(strlen(u.tls_user), URI_USER_MAX);
	ck_assert_str_eq(u.host, "h");
	build(text, "nbds://", "%41", URI_USER_MAX + 1, "@h/");
	ck_assert_int_eq(uri_parse(&u, text, &e), -EINVAL);
	ck_assert_str_eq(e.text, "the URI's user name is longer than 255 bytes");
	ck_assert(all_zero(&u));
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("uri");
	TCase *t = tcase_create("uri");
	tcase_add_test(t, tls_parameters);
	tcase_add_loop_test(t, user_is_beside_the_place, 0, COUNT(users));
	tcase_add_test(t, user_keeps_the_limit);

	tcase_add_loop_test(t, parse_takes_the_parts, 0, COUNT(good));
	tcase_add_loop_test(t, parse_names_what_is_wrong, 0, COUNT(bad));
	tcase_add_loop_test(t, parse_keeps_the_limits, 0, COUNT(sizes));
	tcase_add_loop_test(t, parse_says_that_memory_ran_out, 0, 2);
	tcase_add_loop_test(t, from_host_takes_the_command_line, 0, COUNT(hosts));
	tcase_add_loop_test(t, from_host_names_what_is_wrong, 0, COUNT(bad_hosts));
	tcase_add_test(t, from_host_keeps_the_limits);
	tcase_add_loop_test(t, looks_like_wants_a_scheme, 0, COUNT(looks));
	tcase_add_loop_test(t, endpoint_is_for_messages, 0, COUNT(endpoints));
	tcase_add_test(t, endpoint_holds_the_longest_host);
	tcase_add_test(t, format_never_leaves_its_buffer);
	suite_add_tcase(s, t);
	return s;
}
