/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "net/connect.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "net/handshake.h"
#include "net/ktls.h"
#include "net/relay.h"
#include "net/resolve.h"
#include "net/sockopt.h"
#include "net/blocking_child.h"
#include "base/text.h"

_Static_assert((int)SETTINGS_PEER_TIMEOUT_MAX == (int)SOCKOPT_PEER_TIMEOUT_MAX, "one limit");

struct connector {
	const struct settings *settings;
	unsigned server; /* number in settings */
	const struct uri *where;
	struct tls *tls;                 /* holds the credentials for all, or NULL */
	struct resolve_result addresses; /* count is 0 until they are known */
	struct blocking_child lookup;    /* for new ones, of connect_refresh; pid < 0: none */
};

/* The deadline of one connect_run and what else ends it. */
struct limit {
	unsigned timeout_ms;
	long long deadline;
	int cancel_fd;
};

/*
 * Waits for one of n descriptors (p has room for n + 1), at most timeout_ms (-1: no limit of its
 * own). Returns 0, -ETIMEDOUT when the deadline is over, -ECANCELED.
 */
static int wait_for(const struct limit *l, struct pollfd *p, unsigned n, int timeout_ms)
{
	long long left = l->deadline - monotonic_ms();
	int ret;

	if (left <= 0)
		return -ETIMEDOUT;
	if (timeout_ms < 0 || timeout_ms > left)
		timeout_ms = (int)left;
	p[n] = (struct pollfd){ .fd = l->cancel_fd, .events = POLLIN };
	ret = poll(p, n + 1, timeout_ms);
	if (ret < 0 && errno != EINTR)
		return -errno;
	return ret > 0 && p[n].revents ? -ECANCELED : 0;
}

static int gave_up(const struct limit *l, int code, const char *doing, struct err *e)
{
	if (code == -ETIMEDOUT)
		return err_set(e, ERR_UNREACHABLE, ETIMEDOUT, "%s: not done within %.3g s", doing,
			       l->timeout_ms / 1e3);
	return err_sys(e, ERR_FAILED, -code, "%s", doing);
}

static void query(const struct connector *l, struct resolve_query *q)
{
	memset(q, 0, sizeof(*q));
	memcpy(q->host, l->where->host, sizeof(q->host));
	memcpy(q->port, l->where->port, sizeof(q->port));
	q->vsock = l->where->transport == URI_VSOCK;
}

static bool has_addresses(const struct connector *l)
{
	return !l->settings->command.count && l->where->transport != URI_UNIX;
}

/* What connect_refresh has found, if it is done. */
static void take_lookup(struct connector *l)
{
	struct pollfd p = { .fd = l->lookup.fd, .events = POLLIN };
	struct resolve_result r;
	struct resolve_query q;
	struct err e;

	if (l->lookup.pid < 0 || poll(&p, 1, 0) <= 0)
		return;
	query(l, &q);
	if (!resolve_finish(&l->lookup, &q, &r, &e))
		l->addresses = r;
}

void connect_refresh(struct connector *l)
{
	struct resolve_result r;
	struct resolve_query q;
	struct err e;

	if (!has_addresses(l) || l->lookup.pid >= 0)
		return;
	query(l, &q);
	/* What cannot be looked up now may be another time. */
	if (!resolve_numeric(&q, &r) && resolve_start(&l->lookup, &q, &e))
		l->lookup.pid = -1;
}

static int resolve(struct connector *k, const struct limit *l, struct err *e)
{
	struct resolve_result *r = &k->addresses;
	struct resolve_query q;
	struct pollfd p[2];
	struct blocking_child t;
	int ret;

	take_lookup(k);
	if (!has_addresses(k) || r->count)
		return 0;
	query(k, &q);
	if (resolve_numeric(&q, r))
		return 0;
	ret = resolve_start(&t, &q, e);
	if (ret)
		return ret;
	do {
		p[0] = (struct pollfd){ .fd = t.fd, .events = POLLIN };
		ret = wait_for(l, p, 1, -1);
	} while (!ret && !p[0].revents);
	if (ret) {
		blocking_child_abandon(&t);
		return gave_up(l, ret, "look up its addresses", e);
	}
	ret = resolve_finish(&t, &q, r, e);
	if (ret)
		r->count = 0;
	return ret;
}

static int with_endpoint(const struct settings *settings, unsigned server, struct err *e)
{
	char endpoint[512];

	settings_endpoint(settings, server, endpoint, sizeof(endpoint));
	return err_wrap(e, "%s", endpoint);
}

int connect_resolve(struct connector *l, unsigned timeout_ms, int cancel_fd, struct err *e)
{
	const struct limit limit = {
		.timeout_ms = timeout_ms,
		.deadline = monotonic_ms() + timeout_ms,
		.cancel_fd = cancel_fd,
	};

	return resolve(l, &limit, e) ? with_endpoint(l->settings, l->server, e) : 0;
}

static int command(const struct server_command *c, struct connections *rs, struct err *e)
{
	char copy[sizeof(c->words)];
	char *argv[SETTINGS_WORDS_MAX + 1];
	char *arg = copy;

	/* execvp wants writable strings */
	memcpy(copy, c->words, sizeof(copy));
	for (unsigned i = 0; i < c->count; i++) {
		argv[i] = arg;
		arg += strlen(arg) + 1;
	}
	argv[c->count] = NULL;
	return command_start(argv, &rs->command, &rs->command_log, e);
}

/* The last words of a command that failed are the best explanation there is. */
static void quote_log(struct connections *rs, struct err *e)
{
	char raw[400], shown[400];
	size_t len = 0;
	ssize_t n;
	struct pollfd p = { .fd = rs->command_log, .events = POLLIN };
	const long long end = monotonic_ms() + 200;

	while (len < sizeof(raw)) {
		long long left = end - monotonic_ms();

		if (poll(&p, 1, left > 0 ? (int)left : 0) <= 0)
			break;
		n = read(rs->command_log, raw + len, sizeof(raw) - len);
		if (n <= 0)
			break;
		len += (size_t)n;
	}
	while (len && (raw[len - 1] == '\n' || raw[len - 1] == ' '))
		len--;
	if (!len)
		return;
	text_escape(shown, sizeof(shown), raw, len);
	len = strlen(e->text);
	snprintf(e->text + len, sizeof(e->text) - len, "; the command says: \"%s\"", shown);
}

int connections_explain(const struct settings *settings, unsigned server, struct connections *rs,
			struct err *e)
{
	if (rs->command)
		quote_log(rs, e);
	return with_endpoint(settings, server, e);
}

/* Its socket is closed: it has a moment to leave by itself, then is told to, then made to. */
static void end_command(struct connections *rs)
{
	static const int signals[] = { 0, SIGTERM, SIGKILL };

	for (size_t s = 0; rs->command > 0 && s < sizeof(signals) / sizeof(signals[0]); s++) {
		kill(rs->command, signals[s]);
		for (int i = 0; i < 100; i++) {
			if (waitpid(rs->command, NULL, WNOHANG)) {
				rs->command = 0;
				break;
			}
			poll(NULL, 0, 20);
		}
	}
	if (rs->command_log >= 0)
		close(rs->command_log);
	rs->command_log = -1;
}

/* To a descriptor with plain data; a server that is gone needs no goodbye. */
static void send_disc(int fd)
{
	uint8_t request[WIRE_REQUEST_SIZE];
	struct bytes_writer w;

	bytes_write_init(&w, request, sizeof(request));
	wire_put_request(&w, 0, NBD_CMD_DISC, 0, 0, 0);
	if (send(fd, request, sizeof(request), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		return;
}

void connections_close(struct connections *rs, bool kernel_has_it)
{
	for (unsigned i = 0; i < rs->count; i++) {
		if (rs->fds[i] < 0)
			continue;
		if (!kernel_has_it) {
			send_disc(rs->fds[i]);
			/* Not a plain close: bytes of the server still unread would make that a reset. */
			shutdown(rs->fds[i], SHUT_WR);
		}
		close(rs->fds[i]);
	}
	rs->count = 0;
	if (!kernel_has_it)
		end_command(rs);
}

/* --- several connections side by side ------------------------------------------------------------- */

/* All of one connect_run. */
struct set {
	const struct settings *settings;
	const struct uri *where;
	const struct connect_attempt *a;
	struct connector *link;
	struct limit limit;
	struct connections *rs;
	void (*item)(void *ctx, const struct neg_item *item);
	void *ctx;
	struct resolve_result addresses;
	unsigned connected; /* of a->fds, the next one */
	unsigned wanted;
	unsigned count;          /* of conns */
	struct handshake *conns; /* the first to be done is put first */
	struct pollfd *polled;
	bool placed;    /* the address is known that all go to */
	bool judged;    /* by plan_multi, for good */
	unsigned asked; /* which one was asked for NBD_CMD_CACHE and has not answered; 0: none */
	enum plan_cache cache;
	long long began;
	long long
		patience; /* automatic: when those that are not done are done without; 0: not yet */
};

static bool is_done(const struct handshake *c)
{
	return c->stage == HANDSHAKE_DONE;
}

static bool is_settled(const struct handshake *c)
{
	return c->stage == HANDSHAKE_DONE || c->stage == HANDSHAKE_FAILED;
}

static void use_connected(struct set *s, struct handshake *c)
{
	int fd;

	if (s->connected == s->a->connected) {
		err_set(&c->err, ERR_MULTI, EOPNOTSUPP,
			"no connection is left for one more handshake");
		c->stage = HANDSHAKE_FAILED;
		return;
	}
	fd = s->a->fds[s->connected++];
	fcntl(fd, F_SETFL, O_NONBLOCK);
	handshake_use(c, fd);
}

static void start(struct set *s, unsigned i)
{
	struct handshake *c = &s->conns[i];
	struct resolve_result one;

	if (s->a->connected) {
		use_connected(s, c);
	} else if (s->where->transport == URI_UNIX) {
		handshake_unix(c, s->where->path);
	} else if (!i && !s->placed) {
		handshake_dial(c, &s->addresses);
	} else {
		/* Where the first one goes, or is likely to go: all have to reach the same server. */
		one = s->addresses;
		one.count = 1;
		handshake_dial(c, &one);
	}
}

static int prepare(struct set *s, unsigned i, struct err *e)
{
	struct neg_params params = { .goal = s->a->goal, .tls = s->where->tls };
	struct tls *tls = NULL;
	int ret;

	memcpy(params.export, s->where->export, sizeof(params.export));
	if (s->a->contexts)
		params.contexts = *s->a->contexts;
	if (s->link->tls) {
		ret = tls_again(&tls, s->link->tls, e);
		if (ret)
			return ret;
	}
	return handshake_init(&s->conns[i], &params, tls, e);
}

/* From the beginning. What fails now fails as that connection. */
static void restart(struct set *s, unsigned i)
{
	struct handshake *c = &s->conns[i];
	struct err e;

	handshake_hang_up(c);
	handshake_end(c);
	if (!prepare(s, i, &e)) {
		start(s, i);
		return;
	}
	c->stage = HANDSHAKE_FAILED;
	c->err = e;
}

/* Once the first is connected it is known which of several addresses all have to go to. */
static void place(struct set *s)
{
	unsigned winner = s->conns[0].dial.winner;

	if (s->placed || s->conns[0].stage == HANDSHAKE_DIAL ||
	    s->conns[0].stage == HANDSHAKE_FAILED)
		return;
	s->placed = true;
	if (!winner)
		return;
	s->addresses.address[0] = s->addresses.address[winner];
	for (unsigned i = 1; i < s->count; i++)
		restart(s, i);
}

static void swap(struct set *s, unsigned a, unsigned b)
{
	struct handshake c = s->conns[a];

	s->conns[a] = s->conns[b];
	s->conns[b] = c;
}

static void put_first(struct set *s)
{
	for (unsigned i = 0; i < s->count; i++) {
		if (!is_done(&s->conns[i]))
			continue;
		swap(s, 0, i);
		return;
	}
}

static void drop(struct set *s, unsigned from)
{
	for (unsigned i = from; i < s->count; i++) {
		handshake_hang_up(&s->conns[i]);
		handshake_end(&s->conns[i]);
	}
	if (from < s->count)
		s->count = from;
}

/* The first beyond the first that is done; 0 for none, and *hope whether one may still come. */
static unsigned find_other(const struct set *s, bool *hope)
{
	*hope = false;
	for (unsigned i = 1; i < s->count; i++) {
		if (is_done(&s->conns[i]))
			return i;
		*hope |= !is_settled(&s->conns[i]);
	}
	return 0;
}

/* NBD_CMD_CACHE of the first block, by a connection beyond the first; late: there is no time left. */
static void ask(struct set *s, bool late)
{
	const struct export *x = neg_export(s->conns[0].neg);
	uint32_t len = x->has_block_size && x->block_min > PLAN_BLOCK_SIZE_MIN ?
			       x->block_min :
			       PLAN_BLOCK_SIZE_MIN;
	struct handshake *c;
	uint32_t error = 0;
	bool hope = true;
	int ret = -EAGAIN;

	if (s->asked) {
		c = &s->conns[s->asked];
		ret = handshake_reply(c, &error);
	} else {
		s->asked = find_other(s, &hope);
		hope |= s->asked;
		c = &s->conns[s->asked];
		if (s->asked && handshake_request(c, NBD_CMD_CACHE, 0, len))
			ret = -EPIPE;
	}
	if (ret == -EAGAIN && hope && !late)
		return;
	if (!s->asked || ret == -EAGAIN)
		s->cache = PLAN_CACHE_SILENT;
	else
		s->cache = !ret && !error ? PLAN_CACHE_DONE : PLAN_CACHE_REFUSED;
	/* Some hang up at what they do not know. An answer that is still to come is not for the kernel. */
	if (s->asked && ret)
		restart(s, s->asked);
	s->asked = 0;
}

/* Lets those that have asked for the transmission phase hear the answer, for a moment: they can say goodbye then. */
static void wind_up(struct set *s)
{
	const long long end = monotonic_ms() + CONNECT_GRACE_MS;
	long long left;

	for (unsigned i = 1; i < s->count; i++) {
		struct handshake *c = &s->conns[i];

		while (handshake_is_committed(c) && (left = end - monotonic_ms()) > 0) {
			int timeout_ms;
			unsigned n = handshake_poll(c, monotonic_ms(), s->polled, &timeout_ms);

			if (timeout_ms)
				poll(s->polled, n, (int)left);
			handshake_step(c, monotonic_ms(), NULL, NULL);
		}
	}
	drop(s, 1);
}

/* What the first answer means for the others. 0, or an error for the whole; late as above. */
static int judge(struct set *s, bool late, struct err *e)
{
	const struct plan_multi *m = &s->a->multi;
	const struct export *x = neg_export(s->conns[0].neg);
	struct connections *rs = s->rs;
	long long now = monotonic_ms();
	enum plan_verdict v;

	if (s->judged)
		return 0;
	if (!s->patience)
		s->patience = 2 * now - s->began + CONNECT_GRACE_MS;
	v = plan_multi(m, x, s->cache, rs->note, sizeof(rs->note));
	if (v == PLAN_ASK && s->count > 1) {
		ask(s, late || (m->automatic && now >= s->patience));
		if (s->cache == PLAN_CACHE_UNASKED)
			return 0;
		v = plan_multi(m, x, s->cache, rs->note, sizeof(rs->note));
	}
	s->judged = true;
	if (v != PLAN_ONE)
		return 0;
	wind_up(s);
	if (s->wanted == 1 || m->automatic)
		return 0;
	return err_set(e, ERR_MULTI, EOPNOTSUPP, "%u connections: %s", s->wanted, rs->note);
}

static bool is_over(const struct set *s, long long now)
{
	bool done = true;

	for (unsigned i = 0; i < s->count; i++)
		done &= is_settled(&s->conns[i]);
	if (!done && (!s->a->multi.automatic || !s->patience || now < s->patience))
		return false;
	/* Nothing is judged where nobody is done. */
	return s->judged || !is_done(&s->conns[0]);
}

/* One turn for all; 0 to go on, 1 at the end, or an error for the whole. */
static int turn(struct set *s, struct err *e)
{
	long long now = monotonic_ms();
	int ret;

	for (unsigned i = 0; i < s->count; i++)
		if (!is_settled(&s->conns[i]))
			handshake_step(&s->conns[i], now, s->item, s->ctx);
	place(s);
	if (!is_done(&s->conns[0]))
		put_first(s);
	if (is_done(&s->conns[0])) {
		ret = judge(s, false, e);
		if (ret)
			return ret;
	}
	return is_over(s, monotonic_ms());
}

/* Until something can go on: 0, -ETIMEDOUT at the deadline, -ECANCELED. */
static int wait_for_all(struct set *s)
{
	long long now = monotonic_ms();
	int timeout_ms = -1, one;
	unsigned n = 0;

	for (unsigned i = 0; i < s->count; i++) {
		n += handshake_poll(&s->conns[i], now, s->polled + n, &one);
		if (one >= 0 && (timeout_ms < 0 || one < timeout_ms))
			timeout_ms = one;
	}
	if (s->asked)
		s->polled[n++] = (struct pollfd){
			.fd = s->conns[s->asked].fd,
			.events = handshake_wants(&s->conns[s->asked], false),
		};
	if (s->a->multi.automatic && s->patience) {
		one = s->patience > now ? (int)(s->patience - now) : 0;
		if (timeout_ms < 0 || one < timeout_ms)
			timeout_ms = one;
	}
	return wait_for(&s->limit, s->polled, n, timeout_ms);
}

/* At the deadline, or when the caller wants no more. */
static void give_up(struct set *s, int code)
{
	for (unsigned i = 0; i < s->count; i++)
		if (!is_settled(&s->conns[i]))
			handshake_give_up(&s->conns[i], code, s->a->timeout_ms);
	if (!is_done(&s->conns[0]))
		put_first(s);
}

/* Without those that have failed, where that is allowed. */
static int keep_good(struct set *s, struct err *e)
{
	struct err first = { 0 };
	unsigned good = 0, lost;

	for (unsigned i = 0; i < s->count; i++) {
		if (is_done(&s->conns[i]))
			swap(s, good++, i);
		else if (!first.code && s->conns[i].err.code)
			first = s->conns[i].err;
	}
	lost = s->count - good;
	if (!lost)
		return 0;
	if (!first.code)
		err_set(&first, ERR_UNREACHABLE, ETIMEDOUT,
			"no answer in as long again as the first took");
	if (!good || !s->a->multi.automatic) {
		*e = first;
		return good ? err_wrap(e, "%u of %u connections failed", lost, s->wanted) :
			      -e->code;
	}
	snprintf(s->rs->note, sizeof(s->rs->note),
		 "%u of %u connections failed and are done without: %.300s", lost, s->wanted,
		 first.text);
	drop(s, good);
	return 0;
}

static int compare(const struct set *s, struct err *e)
{
	for (unsigned i = 1; i < s->count; i++)
		if (plan_same_export(neg_export(s->conns[0].neg), neg_export(s->conns[i].neg), e))
			return err_wrap(
				e, "the server gives different answers on different connections");
	return 0;
}

static int run(struct set *s, struct err *e)
{
	int ret;

	while (!(ret = turn(s, e))) {
		ret = wait_for_all(s);
		if (!ret)
			continue;
		give_up(s, -ret);
		if (ret != -ETIMEDOUT) {
			if (is_done(&s->conns[0]))
				return err_sys(e, ERR_FAILED, -ret, "handshake");
			*e = s->conns[0].err;
			return -e->code;
		}
		/* What was done in time is good. */
		ret = is_done(&s->conns[0]) ? judge(s, true, e) : 0;
		break;
	}
	if (ret < 0)
		return ret;
	ret = keep_good(s, e);
	return ret ? ret : compare(s, e);
}

/* --- the whole ---------------------------------------------------------------------------------- */

/* Credentials are looked at before anybody is contacted. */
static int prepare_tls(struct connector *l, struct err *e)
{
	struct tls_params params;
	int ret;

	if (!l->where->tls)
		return 0;
	params = l->settings->tls;
	if (!params.hostname[0] && !l->settings->command.count && l->where->transport == URI_TCP)
		memcpy(params.hostname, l->where->host, sizeof(params.hostname));
	ret = tls_new(&l->tls, &params, e);
	explicit_bzero(&params, sizeof(params));
	return ret;
}

static int relay(const struct set *s, struct handshake *c, struct tls *tls, bool *relayed,
		 struct err *e)
{
	int fd = relay_start(tls, c->fd, s->a->locked, e);

	if (fd >= 0) {
		*relayed = true;
		close(c->fd);
	}
	return fd;
}

/* The descriptor with the plain data: c's own, whose records are the kernel's now, or a relay's. */
static int offload(const struct set *s, struct handshake *c, bool *relayed, struct err *e)
{
	enum tls_offload offload = s->settings->tls.offload;
	int ret = -EOPNOTSUPP;

	if (tls_pending(c->tls))
		return err_set(
			e, ERR_PROTOCOL, EPROTO,
			"the server breaks the NBD protocol: it sends more after the handshake "
			"than it was asked for");
	if (offload != TLS_OFFLOAD_NO)
		ret = ktls_enable(c->fd, c->tls, e);
	if (!ret)
		return c->fd;
	if (ret != -EOPNOTSUPP || offload == TLS_OFFLOAD_REQUIRE)
		return ret;
	return relay(s, c, c->tls, relayed, e);
}

/* From here on the descriptors are for somebody who knows nothing of TLS. */
static int hand_over(struct set *s, struct err *e)
{
	struct connections *rs = s->rs;

	for (unsigned i = 0; i < s->count; i++) {
		struct handshake *c = &s->conns[i];
		int fd = c->fd;

		if (sockopt_set_peer_timeout(fd, s->settings->peer_timeout_s, e))
			return -e->code;
		if (c->encrypted)
			fd = offload(s, c, &rs->relayed, e);
		else if (s->where->transport == URI_VSOCK && !s->settings->command.count)
			fd = relay(s, c, NULL, &rs->relayed, e);
		if (fd < 0) {
			/* Nobody knows what would be encrypted now, and how often: not another byte. */
			handshake_end(c);
			return fd;
		}
		fcntl(fd, F_SETFL, 0);
		rs->fds[rs->count++] = fd;
		c->encrypted = false;
		c->fd = -1;
	}
	return 0;
}

int connect_prepare(struct connector **out, const struct settings *settings, unsigned server,
		    struct err *e)
{
	struct connector *l = calloc(1, sizeof(*l));

	*out = NULL;
	if (!l)
		return err_sys(e, ERR_FAILED, ENOMEM, "connect");
	l->settings = settings;
	l->server = server;
	l->where = &settings->servers[server];
	l->lookup.pid = -1;
	if (prepare_tls(l, e)) {
		connect_free(l);
		return with_endpoint(settings, server, e);
	}
	*out = l;
	return 0;
}

void connect_free(struct connector *l)
{
	if (!l)
		return;
	blocking_child_abandon(&l->lookup);
	tls_free(l->tls);
	free(l);
}

void connect_forget_refresh(struct connector *l)
{
	blocking_child_abandon(&l->lookup);
}

static unsigned wanted(const struct set *s)
{
	const struct connect_attempt *a = s->a;
	unsigned n = a->multi.wanted;

	/* Its process serves one client, and another one would have caches of its own. */
	if (a->goal != NEG_GOAL_GO || s->settings->command.count || !n)
		n = 1;
	if (n > PLAN_CONNECTIONS_MAX)
		n = PLAN_CONNECTIONS_MAX;
	return a->connected && n > a->connected ? a->connected : n;
}

static int begin(struct set *s, struct err *e)
{
	int ret = 0;

	s->wanted = wanted(s);
	s->conns = calloc(s->wanted, sizeof(*s->conns));
	s->polled = calloc(s->wanted + HANDSHAKE_POLL_MAX + 2, sizeof(*s->polled));
	if (!s->conns || !s->polled)
		return err_sys(e, ERR_FAILED, ENOMEM, "connect");
	for (; !ret && s->count < s->wanted; s->count++)
		ret = prepare(s, s->count, e);
	if (!ret)
		ret = resolve(s->link, &s->limit, e);
	if (ret)
		return ret;
	s->addresses = s->link->addresses;
	if (s->settings->command.count) {
		ret = command(&s->settings->command, s->rs, e);
		if (ret < 0)
			return ret;
		handshake_use(&s->conns[0], ret);
		return 0;
	}
	s->began = monotonic_ms();
	for (unsigned i = 0; i < s->count; i++)
		start(s, i);
	return 0;
}

static void take_answer(struct set *s)
{
	struct connections *rs = s->rs;
	const struct handshake *c = &s->conns[0];

	dial_peer_name(c->fd, rs->peer, sizeof(rs->peer));
	rs->export = *neg_export(c->neg);
	rs->encrypted = c->encrypted;
	if (c->encrypted)
		tls_describe(c->tls, &rs->tls);
}

int connect_run(struct connector *l, const struct connect_attempt *a,
		void (*item)(void *ctx, const struct neg_item *item), void *ctx,
		struct connections *rs, struct err *e)
{
	struct set s = {
		.settings = l->settings,
		.where = l->where,
		.a = a,
		.link = l,
		.limit = {
			.timeout_ms = a->timeout_ms,
			.deadline = monotonic_ms() + a->timeout_ms,
			.cancel_fd = a->cancel_fd,
		},
		.rs = rs,
		.item = item,
		.ctx = ctx,
	};
	int ret;

	memset(rs, 0, sizeof(*rs));
	rs->command_log = -1;
	ret = begin(&s, e);
	if (!ret)
		ret = run(&s, e);
	if (!ret) {
		take_answer(&s);
		if (a->goal == NEG_GOAL_GO)
			ret = hand_over(&s, e);
	}
	if (!ret && a->goal == NEG_GOAL_QUERY) {
		*a->keep = s.conns[0];
		s.count = 0;
	}
	if (ret)
		connections_explain(l->settings, l->server, rs, e);
	drop(&s, 0);
	if (ret)
		connections_close(rs, false);
	if (a->goal != NEG_GOAL_GO && a->goal != NEG_GOAL_QUERY)
		end_command(rs);
	while (s.connected < a->connected)
		close(a->fds[s.connected++]);
	free(s.conns);
	free(s.polled);
	return ret;
}

int connect_open(const struct settings *settings, enum neg_goal goal, int cancel_fd,
		 void (*item)(void *ctx, const struct neg_item *item), void *ctx,
		 struct connections *rs, struct err *e)
{
	const struct connect_attempt a = {
		.goal = goal,
		.timeout_ms = settings->connect_timeout_ms,
		.multi = settings->multi,
		.cancel_fd = cancel_fd,
	};
	struct connector *l;
	int ret;

	memset(rs, 0, sizeof(*rs));
	rs->command_log = -1;
	ret = connect_prepare(&l, settings, 0, e);
	if (ret)
		return ret;
	ret = connect_run(l, &a, item, ctx, rs, e);
	connect_free(l);
	return ret;
}
