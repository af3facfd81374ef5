/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * resolve: the addresses of a host's name, in the order in which to try them: RFC 6724 as the C
 * library sorts, with the families alternating as RFC 8305 section 4 says. A child process does the
 * look-up, because a resolver takes no deadline. Never connects.
 */
#ifndef NBD_ATTACH_RESOLVE_H
#define NBD_ATTACH_RESOLVE_H

#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <linux/vm_sockets.h>

#include "base/err.h"
#include "net/blocking_child.h"
#include "proto/uri.h"

enum { RESOLVE_MAX = 32 };

union resolve_address {
	struct sockaddr sa;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
	struct sockaddr_vm vm;
	struct sockaddr_un un;
};

struct resolve_result {
	int gai;   /* getaddrinfo(3) error; 0: count addresses are there */
	int error; /* errno, if gai is EAI_SYSTEM */
	unsigned count;
	union resolve_address address[RESOLVE_MAX];
};

/* True when the host is an IP address, so that nobody has to be asked: r is filled then. */
bool resolve_numeric(const struct uri *where, struct resolve_result *r);

/* Starts the look-up of host and port; where need not outlive the call. */
int resolve_start(struct blocking_child *c, const struct uri *where, struct err *e);

/*
 * The result of a child whose fd is readable: at least one address, or an ERR_UNREACHABLE that
 * names the host.
 */
int resolve_finish(struct blocking_child *c, const struct uri *where, struct resolve_result *r,
		   struct err *e);

/* The size of the address for bind(2) and connect(2). */
socklen_t resolve_length(const union resolve_address *a);

/* Lets the families alternate, beginning with the first one's; the order within each stays. */
void resolve_interleave(struct resolve_result *r);

#endif
