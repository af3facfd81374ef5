/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "net/resolve.h"

#include <errno.h>
#include <netdb.h>
#include <stdbool.h>
#include <string.h>

#include "base/text.h"

_Static_assert(sizeof(struct resolve_result) <= BLOCKING_CHILD_RESULT_MAX, "a result is one write");

socklen_t resolve_length(const union resolve_address *a)
{
	switch (a->sa.sa_family) {
	case AF_VSOCK:
		return sizeof(a->vm);
	case AF_UNIX:
		return sizeof(a->un);
	case AF_INET6:
		return sizeof(a->v6);
	default:
		return sizeof(a->v4);
	}
}

void resolve_interleave(struct resolve_result *r)
{
	union resolve_address sorted[RESOLVE_MAX];
	bool used[RESOLVE_MAX] = { false };
	sa_family_t last = AF_UNSPEC;

	for (unsigned out = 0; out < r->count; out++) {
		unsigned pick = r->count;

		for (unsigned i = 0; i < r->count; i++) {
			if (used[i])
				continue;
			if (pick == r->count)
				pick = i;
			if (r->address[i].sa.sa_family != last) {
				pick = i;
				break;
			}
		}
		used[pick] = true;
		sorted[out] = r->address[pick];
		last = sorted[out].sa.sa_family;
	}
	memcpy(r->address, sorted, r->count * sizeof(sorted[0]));
}

static void find_ip_addresses(const struct uri *where, int flags, struct resolve_result *r)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | flags };
	struct addrinfo *list, *a;

	r->gai = getaddrinfo(where->host, where->port, &hints, &list);
	if (r->gai) {
		r->error = errno;
		return;
	}
	for (a = list; a && r->count < RESOLVE_MAX; a = a->ai_next) {
		if (a->ai_family != AF_INET && a->ai_family != AF_INET6)
			continue;
		if (a->ai_addrlen > sizeof(r->address[0]))
			continue;
		memcpy(&r->address[r->count++], a->ai_addr, a->ai_addrlen);
	}
	freeaddrinfo(list);
	resolve_interleave(r);
}

static void look_up_host(const void *arg, void *out)
{
	find_ip_addresses(arg, 0, out);
}

bool resolve_numeric(const struct uri *where, struct resolve_result *r)
{
	memset(r, 0, sizeof(*r));
	find_ip_addresses(where, AI_NUMERICHOST, r);
	return !r->gai && r->count;
}

int resolve_start(struct blocking_child *c, const struct uri *where, struct err *e)
{
	return blocking_child_start(c, look_up_host, where, sizeof(struct resolve_result), e);
}

int resolve_finish(struct blocking_child *c, const struct uri *where, struct resolve_result *r,
		   struct err *e)
{
	char host[2 * URI_HOST_MAX];
	int ret;

	text_escape(host, sizeof(host), where->host, strlen(where->host));
	ret = blocking_child_collect(c, r, e);
	if (ret)
		return err_wrap(e, "look up host %s", host);
	if (r->gai == EAI_SYSTEM)
		return err_sys(e, ERR_UNREACHABLE, r->error, "look up host %s", host);
	if (r->gai)
		return err_set(e, ERR_UNREACHABLE, EHOSTUNREACH, "look up host %s: %s", host,
			       gai_strerror(r->gai));
	if (!r->count || r->count > RESOLVE_MAX)
		return err_set(e, ERR_UNREACHABLE, EHOSTUNREACH,
			       "look up host %s: it has no IPv4 or IPv6 address", host);
	return 0;
}
