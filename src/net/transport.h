/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * transport: a table of what differs between the transports of a URI: TCP, Unix sockets, vsock(7).
 * Whoever asks which transport it is asks a row. Adding one is a row and its functions. Never opens
 * a socket (dial does) and never waits.
 */
#ifndef NBD_ATTACH_TRANSPORT_H
#define NBD_ATTACH_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

#include "net/resolve.h"
#include "proto/uri.h"

struct transport {
	sa_family_t families[2];    /* address families; AF_UNSPEC: no second one */
	bool by_path;               /* only a process that sees the file system can connect */
	bool names_host;            /* the server's certificate names the host of the URI */
	bool needs_relay;           /* the driver does not take its sockets (nbd_get_socket()) */
	const char *busy_by_eagain; /* meaning of EAGAIN from connect(2), or NULL */

	/* Fills r where the URI holds an address. False: it holds a name, for resolve_start. */
	bool (*find_addresses)(const struct uri *where, struct resolve_result *r);

	/* The address for messages, escaped and cut to cap bytes. */
	void (*describe)(const union resolve_address *a, char *buf, size_t cap);
};

/* Room for the text of any address. */
enum { TRANSPORT_TEXT_MAX = 1100 };

/* The row of a URI's transport. */
const struct transport *transport_of(const struct uri *where);

/* The row of an address family, or NULL. */
const struct transport *transport_of_family(sa_family_t family);

/* Makes an address of a Unix socket's path. -ENAMETOOLONG (ERR_USAGE) for one that is too long. */
int transport_unix_address(const char *path, union resolve_address *a, struct err *e);

/*
 * The other end of a connected socket: "192.0.2.1:10809", "[2001:db8::1]:10809" or "vsock:2:10809";
 * "local" for everything that has no network address.
 */
void transport_peer_name(int fd, char *buf, size_t cap);

#endif
