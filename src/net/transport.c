/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "net/transport.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

static void describe_ip(const union resolve_address *a, char *buf, size_t cap)
{
	char host[NI_MAXHOST], port[NI_MAXSERV];

	if (getnameinfo(&a->sa, resolve_length(a), host, sizeof(host), port, sizeof(port),
			NI_NUMERICHOST | NI_NUMERICSERV))
		snprintf(buf, cap, "?");
	else
		snprintf(buf, cap, a->sa.sa_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

static bool find_unix(const struct uri *where, struct resolve_result *r)
{
	struct err e;

	memset(r, 0, sizeof(*r));
	/* URI_PATH_MAX: the path of a URI is never too long. */
	r->count = !transport_unix_address(where->path, &r->address[0], &e);
	return true;
}

static void describe_unix(const union resolve_address *a, char *buf, size_t cap)
{
	char shown[4 * sizeof(a->un.sun_path)];

	text_escape(shown, sizeof(shown), a->un.sun_path, strlen(a->un.sun_path));
	snprintf(buf, cap, "Unix socket %s", shown);
}

static bool find_vsock(const struct uri *where, struct resolve_result *r)
{
	memset(r, 0, sizeof(*r));
	r->address[0].vm = (struct sockaddr_vm){
		.svm_family = AF_VSOCK,
		.svm_cid = (unsigned)strtoul(where->host, NULL, 10),
		.svm_port = (unsigned)strtoul(where->port, NULL, 10),
	};
	r->count = 1;
	return true;
}

static void describe_vsock(const union resolve_address *a, char *buf, size_t cap)
{
	snprintf(buf, cap, "vsock:%u:%u", a->vm.svm_cid, a->vm.svm_port);
}

static const struct transport transports[] = {
	[URI_TCP] = {
		.families = { AF_INET, AF_INET6 },
		.names_host = true,
		.find_addresses = resolve_numeric,
		.describe = describe_ip,
	},
	[URI_UNIX] = {
		.families = { AF_UNIX },
		.by_path = true,
		/* unix(7): for non-blocking sockets, and there is nothing to wait for. */
		.busy_by_eagain = "its server has a full backlog",
		.find_addresses = find_unix,
		.describe = describe_unix,
	},
	[URI_VSOCK] = {
		.families = { AF_VSOCK },
		/* Not since Linux 6.18, nor in the stable kernels of that time. */
		.needs_relay = true,
		.find_addresses = find_vsock,
		.describe = describe_vsock,
	},
};

const struct transport *transport_of(const struct uri *where)
{
	return &transports[where->transport];
}

const struct transport *transport_of_family(sa_family_t family)
{
	for (size_t i = 0; i < sizeof(transports) / sizeof(transports[0]); i++)
		for (size_t f = 0; f < 2; f++)
			if (family != AF_UNSPEC && transports[i].families[f] == family)
				return &transports[i];
	return NULL;
}

int transport_unix_address(const char *path, union resolve_address *a, struct err *e)
{
	char shown[4 * sizeof(a->un.sun_path)];
	size_t len = strlen(path);

	memset(a, 0, sizeof(*a));
	if (len >= sizeof(a->un.sun_path)) {
		text_escape(shown, sizeof(shown), path, len);
		return err_set(e, ERR_USAGE, ENAMETOOLONG, "Unix socket %s: longer than %zu bytes",
			       shown, sizeof(a->un.sun_path) - 1);
	}
	a->un.sun_family = AF_UNIX;
	memcpy(a->un.sun_path, path, len + 1);
	return 0;
}

void transport_peer_name(int fd, char *buf, size_t cap)
{
	union resolve_address a;
	socklen_t len = sizeof(a);
	const struct transport *t = NULL;

	if (!getpeername(fd, &a.sa, &len))
		t = transport_of_family(a.sa.sa_family);
	if (t && !t->by_path)
		t->describe(&a, buf, cap);
	else
		snprintf(buf, cap, "local");
}
