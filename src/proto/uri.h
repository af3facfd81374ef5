/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * uri: where an export is, parsed from an NBD URI (the document "The NBD Uniform Resource
 * Indicator (URI) format" of the NBD project) or from HOST and EXPORT of a command line, as one
 * flat struct that can be sent to another process. Never resolves a name and never looks at the
 * file system.
 */
#ifndef NBD_ATTACH_URI_H
#define NBD_ATTACH_URI_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

#define URI_HOST_MAX     255 /* RFC 1035, and a zone for IPv6 */
#define URI_PATH_MAX     107 /* sun_path without its NUL, unix(7) */
#define URI_FILE_MAX     1023
#define URI_USER_MAX     255
#define URI_EXPORT_MAX   4096 /* NBD specification, "Conventions": strings */
#define URI_PORT_MAX     10   /* 32 bits for vsock(7), 16 for TCP */
#define URI_PORT_DEFAULT "10809"
/* Longest text of uri_format: every byte of export, host and path percent-encoded. */
#define URI_TEXT_MAX     (3 * (URI_EXPORT_MAX + URI_HOST_MAX + URI_PATH_MAX) + 128)

enum uri_transport {
	URI_TCP,
	URI_UNIX,
	URI_VSOCK,
};

struct uri {
	enum uri_transport transport;
	bool tls;
	/* TCP: name or address without brackets, lower-case but for the zone of an IPv6 address */
	char host[URI_HOST_MAX + 1];     /* vsock: the context identifier, decimal */
	char port[URI_PORT_MAX + 1];     /* decimal; TCP: 1..65535, vsock: 0..4294967294 */
	char path[URI_PATH_MAX + 1];     /* Unix: file system path; abstract sockets are refused */
	char export[URI_EXPORT_MAX + 1]; /* "" is the default export */
	/*
	 * nbds URIs only, "" when missing. uri_format leaves them out: they do not name the
	 * export.
	 */
	char tls_hostname[URI_HOST_MAX + 1];
	char tls_psk_file[URI_FILE_MAX + 1];
	char tls_certificates[URI_FILE_MAX + 1];
	char tls_user[URI_USER_MAX + 1]; /* user name of the URI, for the pre-shared key */
};

/* True when s begins with a scheme and "://". */
bool uri_looks_like(const char *s);

/*
 * Parses nbd://, nbds://, nbd+unix://, nbds+unix://, nbd+vsock:// and nbds+vsock://. The path
 * without its first '/' is the export's name, percent-decoded; a missing or empty port is 10809;
 * the zone of an IPv6 address is written as in RFC 6874 ("[fe80::1%25eth0]"). For Unix sockets the
 * parameter "socket" is mandatory and a host or port is refused; for vsock the host is a context
 * identifier (not VMADDR_CID_ANY). nbds sets tls, and takes a user name, tls-hostname,
 * tls-psk-file and tls-certificates; this module does not interpret them.
 *
 * Returns 0, or -EINVAL (ERR_USAGE) with a text that names the part, for:
 * - anything that RFC 3986 does not allow, a fragment, and %00 (so abstract sockets too)
 * - an export's name or a host that is not UTF-8
 * - an empty host, or one that is neither a name (letters, digits, "-._" and what is not ASCII)
 *   nor an address
 * - a user name without TLS, or with a password (a ':'), which no text shows
 * - a port out of range, or a part that is too long
 * - a parameter given twice, or an unknown one (the document asks to diagnose these)
 *
 * Returns -ENOMEM (ERR_FAILED) without memory. After an error *u is all zero bytes, and two equal
 * structs are always equal under memcmp.
 */
int uri_parse(struct uri *u, const char *s, struct err *e);

/*
 * Parses HOST of the command line: name, name:port, v4, v4:port, [v6], [v6]:port, a bare v6 address
 * (two colons or more), each v6 with %zone if need be, or a Unix socket as a path with a '/' in it.
 * A URI is refused. export is taken as it is. Errors and *u as above.
 */
int uri_from_host(struct uri *u, const char *host, const char *export, struct err *e);

/*
 * The canonical text: lower-case scheme and host, the port always, everything outside RFC 3986's
 * unreserved characters percent-encoded with upper-case hex, but for '/' in the export's name and
 * the socket's path. For what uri_parse or uri_from_host made, uri_parse of the result gives a
 * struct that is equal but for the tls_ parameters. cap at least URI_TEXT_MAX. Returns the length.
 */
size_t uri_format(const struct uri *u, char *buf, size_t cap);

/*
 * Writes "host:port", "[v6]:port", "vsock:cid:port" or the path, for messages, as text_escape
 * does. cap > 0.
 */
void uri_endpoint(const struct uri *u, char *buf, size_t cap);

#endif
