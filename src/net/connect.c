/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "net/connect.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/command.h"
#include "net/connect_race.h"
#include "net/handshake.h"
#include "net/ktls.h"
#include "net/relay.h"
#include "net/resolve.h"
#include "net/sockopt.h"
#include "net/tls_creds.h"
#include "net/transport.h"
#include "net/blocking_child.h"
#include "base/text.h"

struct connector {
	const struct settings *settings;
	unsigned server;                 /* number in settings */
	const struct uri *where;         /* the server itself */
	struct tls_creds *creds;         /* NULL: no TLS */
	struct resolve_result addresses; /* known ones; count 0: none yet */
	struct blocking_child lookup;    /* look-up of connect_refresh; pid < 0: none */
};

static bool is_command(const struct connector *c)
{
	return c->settings->command.count > 0;
}

/* Takes what the look-up of connect_refresh has found, if it is done. */
static void take_lookup(struct connector *c)
{
	struct pollfd p = { .fd = c->lookup.fd, .events = POLLIN };
	struct resolve_result r;
	struct err e;

	if (c->lookup.pid < 0 || poll(&p, 1, 0) <= 0)
		return;
	if (!resolve_finish(&c->lookup, c->where, &r, &e))
		c->addresses = r;
}

void connect_refresh(struct connector *c)
{
	const struct uri *where = c->where;
	struct resolve_result r;
	struct err e;

	if (is_command(c) || c->lookup.pid >= 0)
		return;
	/* A later failure asks again: an error here is no reason to fail. */
	if (!transport_of(where)->find_addresses(where, &r) && resolve_start(&c->lookup, where, &e))
		c->lookup.pid = -1;
}

/* Fills c->addresses, where there is anything to look up; timeout_ms is for the error text. */
static int resolve(struct connector *c, unsigned timeout_ms, long long deadline, int cancel_fd,
		   struct err *e)
{
	const struct uri *where = c->where;
	struct resolve_result *r = &c->addresses;
	struct blocking_child t;
	int ret;

	take_lookup(c);
	if (is_command(c) || r->count || transport_of(where)->find_addresses(where, r))
		return 0;
	ret = resolve_start(&t, where, e);
	if (ret)
		return ret;
	ret = blocking_child_wait(&t, deadline, cancel_fd);
	if (!ret) {
		ret = resolve_finish(&t, where, r, e);
		if (ret)
			r->count = 0;
		return ret;
	}
	blocking_child_abandon(&t);
	if (ret == -ETIMEDOUT)
		return err_set(e, ERR_UNREACHABLE, ETIMEDOUT,
			       "look up its addresses: not done within %.3g s", timeout_ms / 1e3);
	return err_sys(e, ERR_FAILED, -ret, "look up its addresses");
}

static int add_endpoint(const struct settings *settings, unsigned server, struct err *e)
{
	char endpoint[512];

	settings_endpoint(settings, server, endpoint, sizeof(endpoint));
	return err_wrap(e, "%s", endpoint);
}

int connect_resolve(struct connector *c, unsigned timeout_ms, int cancel_fd, struct err *e)
{
	if (resolve(c, timeout_ms, monotonic_ms() + timeout_ms, cancel_fd, e))
		return add_endpoint(c->settings, c->server, e);
	return 0;
}

int connections_explain(const struct settings *settings, unsigned server,
			struct connections *result, struct err *e)
{
	if (result->command)
		command_quote(result->command_log, e);
	return add_endpoint(settings, server, e);
}

/* NBD_CMD_DISC to a descriptor with plain data. A server that is gone needs none. */
static void send_disc(int fd)
{
	uint8_t request[WIRE_REQUEST_SIZE];
	struct bytes_writer w;

	bytes_write_init(&w, request, sizeof(request));
	wire_put_request(&w, 0, NBD_CMD_DISC, 0, 0, 0);
	if (send(fd, request, sizeof(request), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		return;
}

void connections_close(struct connections *result, bool kernel_has_it)
{
	for (unsigned i = 0; i < result->count; i++) {
		if (result->fds[i] < 0)
			continue;
		if (!kernel_has_it) {
			send_disc(result->fds[i]);
			/* A plain close with unread bytes of the server would be a reset. */
			shutdown(result->fds[i], SHUT_WR);
		}
		close(result->fds[i]);
	}
	result->count = 0;
	if (!kernel_has_it)
		command_end(&result->command, &result->command_log);
}

static int load_creds(struct connector *c, struct err *e)
{
	struct tls_params params;
	int ret;

	if (!c->where->tls)
		return 0;
	params = c->settings->tls;
	if (!params.hostname[0] && !is_command(c) && transport_of(c->where)->names_host)
		memcpy(params.hostname, c->where->host, sizeof(params.hostname));
	ret = tls_creds_load(&c->creds, &params, e);
	explicit_bzero(&params, sizeof(params));
	return ret;
}

int connect_prepare(struct connector **out, const struct settings *settings, unsigned server,
		    struct err *e)
{
	struct connector *c = calloc(1, sizeof(*c));

	*out = NULL;
	if (!c)
		return err_sys(e, ERR_FAILED, ENOMEM, "connect");
	c->settings = settings;
	c->server = server;
	c->where = &settings->servers[server];
	c->lookup.pid = -1;
	if (load_creds(c, e)) {
		connect_free(c);
		return add_endpoint(settings, server, e);
	}
	*out = c;
	return 0;
}

void connect_free(struct connector *c)
{
	if (!c)
		return;
	blocking_child_abandon(&c->lookup);
	tls_creds_free(c->creds);
	free(c);
}

void connect_forget_refresh(struct connector *c)
{
	blocking_child_abandon(&c->lookup);
}

/* --- one attempt ------------------------------------------------------------------------------ */

/* Puts a relay between the driver and h, and closes h's descriptor. Returns the plain one. */
static int put_relay(struct handshake *h, struct tls *tls, bool locked, bool *relayed,
		     struct err *e)
{
	int fd = relay_start(tls, h->fd, locked, e);

	if (fd >= 0) {
		*relayed = true;
		close(h->fd);
	}
	return fd;
}

/* Returns the descriptor with plain data: h's own, whose records the kernel makes, or a relay's. */
static int offload_tls(struct handshake *h, enum tls_offload offload, bool locked, bool *relayed,
		       struct err *e)
{
	int ret = -EOPNOTSUPP;

	if (tls_pending(h->tls))
		return err_set(
			e, ERR_PROTOCOL, EPROTO,
			"the server breaks the NBD protocol: it sends more after the handshake "
			"than it was asked for");
	if (offload != TLS_OFFLOAD_NO)
		ret = ktls_enable(h->fd, h->tls, e);
	if (!ret)
		return h->fd;
	if (ret != -EOPNOTSUPP || offload == TLS_OFFLOAD_REQUIRE)
		return ret;
	return put_relay(h, h->tls, locked, relayed, e);
}

/* Moves the descriptors to the result, for the driver, which knows nothing of TLS. */
static int hand_over_sockets(const struct connector *c, struct race *r, bool locked,
			     struct connections *result, struct err *e)
{
	const bool relay = !is_command(c) && transport_of(c->where)->needs_relay;

	for (unsigned i = 0; i < r->count; i++) {
		struct handshake *h = &r->handshakes[i];
		int fd = h->fd;

		if (sockopt_set_peer_timeout(fd, c->settings->peer_timeout_s, e))
			return -e->code;
		if (h->encrypted)
			fd = offload_tls(h, c->settings->tls.offload, locked, &result->relayed, e);
		else if (relay)
			fd = put_relay(h, NULL, locked, &result->relayed, e);
		if (fd < 0) {
			/* Another byte might be encrypted twice, or not at all: no goodbye. */
			handshake_end(h);
			return fd;
		}
		fcntl(fd, F_SETFL, 0);
		result->fds[result->count++] = fd;
		h->encrypted = false;
		h->fd = -1;
	}
	return 0;
}

static unsigned count_wanted(const struct connector *c, const struct connect_attempt *a)
{
	unsigned n = a->multi.wanted;

	/* A command serves one client; another one of it would have caches of its own. */
	if (a->goal != NEG_GOAL_GO || is_command(c) || !n)
		n = 1;
	if (n > PLAN_CONNECTIONS_MAX)
		n = PLAN_CONNECTIONS_MAX;
	return a->connected && n > a->connected ? a->connected : n;
}

static void describe_first(const struct race *r, struct connections *result)
{
	const struct handshake *h = &r->handshakes[0];

	transport_peer_name(h->fd, result->peer, sizeof(result->peer));
	result->export = *neg_export(h->neg);
	result->encrypted = h->encrypted;
	if (h->encrypted)
		tls_describe(h->tls, &result->tls);
}

static int run_race(struct connector *c, const struct connect_attempt *a, struct race *r,
		    struct connections *result, struct err *e)
{
	int ret = resolve(c, a->timeout_ms, r->params.deadline, a->cancel_fd, e);

	if (ret)
		return ret;
	race_start(r, &c->addresses);
	ret = race_run(r, e);
	memcpy(result->note, r->note, sizeof(result->note));
	if (ret)
		return ret;
	describe_first(r, result);
	if (a->goal == NEG_GOAL_GO)
		return hand_over_sockets(c, r, a->locked, result, e);
	if (a->goal == NEG_GOAL_QUERY) {
		*a->keep = r->handshakes[0];
		r->count = 0;
	}
	return 0;
}

int connect_run(struct connector *c, const struct connect_attempt *a,
		void (*item)(void *ctx, const struct neg_item *item), void *ctx,
		struct connections *result, struct err *e)
{
	struct neg_params neg = { .goal = a->goal, .tls = c->where->tls };
	struct race_params params = {
		.neg = &neg,
		.creds = c->creds,
		.multi = a->multi,
		.connections = count_wanted(c, a),
		.timeout_ms = a->timeout_ms,
		.deadline = monotonic_ms() + a->timeout_ms,
		.cancel_fd = a->cancel_fd,
		.fds = a->fds,
		.fd_count = a->connected,
		.item = item,
		.ctx = ctx,
	};
	struct race r;
	int ret = 0, command;

	if (a->contexts)
		neg.contexts = *a->contexts;
	memcpy(neg.export, c->where->export, sizeof(neg.export));
	memset(result, 0, sizeof(*result));
	result->command_log = -1;
	if (is_command(c) && !a->connected) {
		command = command_start_server(&c->settings->command, &result->command,
					       &result->command_log, e);
		if (command < 0)
			return add_endpoint(c->settings, c->server, e);
		params.fds = &command;
		params.fd_count = 1;
	}
	ret = race_init(&r, &params, e);
	if (!ret)
		ret = run_race(c, a, &r, result, e);
	if (ret)
		connections_explain(c->settings, c->server, result, e);
	race_end(&r);
	if (ret)
		connections_close(result, false);
	if (a->goal != NEG_GOAL_GO && a->goal != NEG_GOAL_QUERY)
		command_end(&result->command, &result->command_log);
	return ret;
}
