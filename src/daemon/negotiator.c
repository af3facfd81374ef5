/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "daemon/negotiator.h"

#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/text.h"
#include "net/msg.h"

enum { DROP_MAX = 16 }; /* stale answers read by one call */

static int child_failed(struct err *e, const char *how)
{
	return err_set(e, ERR_FAILED, EPIPE, "the process that talks to servers %s", how);
}

/* --- what it says ----------------------------------------------------------------------------- */

/* Anybody may have put anything into a bool. */
static bool is_bool(const bool *b)
{
	unsigned char byte;

	memcpy(&byte, b, sizeof(byte));
	return byte <= 1;
}

/*
 * For a text that should be escaped already: makes harmless what text_escape would not let through;
 * its backslashes stay single. False where it has no end.
 */
static bool sanitize_text(char *text, size_t cap)
{
	char escaped[4 * sizeof(((struct err *)NULL)->text)];
	size_t len = strnlen(text, cap), used = 0;
	const char *p = escaped;

	if (len == cap || cap > sizeof(escaped) / 4)
		return false;
	text_escape(escaped, sizeof(escaped), text, len);
	for (; *p && used < cap - 1; p++) {
		if (p[0] == '\\' && p[1] == '\\')
			p++;
		text[used++] = *p;
	}
	/* The cut is never in the middle of a character. */
	while (*p && used && ((unsigned char)*p & 0xc0) == 0x80)
		p--, used--;
	text[used] = '\0';
	return true;
}

#define SANITIZE_TEXT(array) sanitize_text((array), sizeof(array))

static bool has_end(const char *text, size_t cap)
{
	return strnlen(text, cap) < cap;
}

static bool get_option(int fd, int option, void *value, socklen_t size)
{
	socklen_t len = size;

	return !getsockopt(fd, SOL_SOCKET, option, value, &len) && len == size;
}

/* Whether such a socket can be the result of a connection to the server. */
static bool is_socket_of(int fd, const struct negotiator_server *server, bool relayed)
{
	int domain, type, protocol, listens;

	if (!get_option(fd, SO_DOMAIN, &domain, sizeof(domain)) ||
	    !get_option(fd, SO_TYPE, &type, sizeof(type)) ||
	    !get_option(fd, SO_PROTOCOL, &protocol, sizeof(protocol)) ||
	    !get_option(fd, SO_ACCEPTCONN, &listens, sizeof(listens)))
		return false;
	if (type != SOCK_STREAM || listens)
		return false;
	if (domain == AF_UNIX)
		return server->connected || relayed;
	return protocol == IPPROTO_TCP && !server->connected &&
	       transport_of_family((sa_family_t)domain) == server->transport;
}

static bool has_duplicates(const int *fds, unsigned count)
{
	uint64_t cookies[NEGOTIATOR_CONNECTED_MAX];

	for (unsigned i = 0; i < count; i++) {
		if (!get_option(fds[i], SO_COOKIE, &cookies[i], sizeof(cookies[i])))
			return true;
		for (unsigned k = 0; k < i; k++)
			if (cookies[k] == cookies[i])
				return true;
	}
	return false;
}

static bool are_sockets_good(const int *fds, unsigned count, const struct negotiator_server *server,
			     bool relayed)
{
	static const struct linger none = { 0 };

	for (unsigned i = 0; i < count; i++)
		/* A close must not wait for what the child may have put into a socket. */
		if (!is_socket_of(fds[i], server, relayed) ||
		    setsockopt(fds[i], SOL_SOCKET, SO_LINGER, &none, sizeof(none)))
			return false;
	return !has_duplicates(fds, count);
}

/* A server may have closed a connection meanwhile, at which nobody is to blame. */
static bool are_connected(const int *fds, unsigned count)
{
	struct sockaddr_storage peer;

	for (unsigned i = 0; i < count; i++) {
		socklen_t len = sizeof(peer);

		if (getpeername(fds[i], (struct sockaddr *)&peer, &len))
			return false;
	}
	return true;
}

/* False for what a good child does not send as the result of the last question. */
static bool sanitize_result(const struct negotiator *n, struct connections *c, const int *fds,
			    unsigned count)
{
	const struct negotiator_server *server = &n->servers[n->server];
	const struct export *x = &c->export;

	if (c->count != count || count > n->wanted || (n->wanted && !count))
		return false;
	if (!is_bool(&c->encrypted) || !is_bool(&c->relayed) || !is_bool(&x->has_block_size) ||
	    !is_bool(&x->has_name) || !is_bool(&x->has_description) ||
	    !is_bool(&x->by_export_name) || !is_bool(&x->structured) ||
	    !is_bool(&x->has_contexts) || (unsigned)x->listed > EXPORT_UNLISTED)
		return false;
	if (c->encrypted != server->tls ||
	    (c->relayed && !c->encrypted && !server->transport->needs_relay))
		return false;
	if (!are_sockets_good(fds, count, server, c->relayed))
		return false;
	if (!has_end(x->name, sizeof(x->name)) || !has_end(x->description, sizeof(x->description)))
		return false;
	memset(c->fds, 0, sizeof(c->fds));
	memcpy(c->fds, fds, count * sizeof(fds[0]));
	c->command = 0;
	c->command_log = -1;
	return SANITIZE_TEXT(c->peer) && SANITIZE_TEXT(c->tls.version) &&
	       SANITIZE_TEXT(c->tls.cipher) && SANITIZE_TEXT(c->tls.peer) && SANITIZE_TEXT(c->note);
}

static bool sanitize_failure(struct negotiator_answer *a)
{
	return a->ret < 0 && a->ret >= -4095 && a->err.code == -a->ret && a->err.kind > ERR_NONE &&
	       a->err.kind <= ERR_MULTI && SANITIZE_TEXT(a->err.text);
}

static bool sanitize_start(const struct sandbox_result *confined)
{
	return is_bool(&confined->filtered) && is_bool(&confined->locked);
}

/*
 * For the answer to the last question, or the report of the start. False for what a good child does
 * not send.
 */
static bool sanitize_answer(const struct negotiator *n, struct negotiator_answer *a, const int *fds,
			    unsigned count)
{
	if (a->ret)
		return !count && sanitize_failure(a);
	if (n->state == NEGOTIATOR_STARTING)
		return !count && sanitize_start(&a->confined);
	return sanitize_result(n, &a->connections, fds, count);
}

/* --- events ----------------------------------------------------------------------------------- */

static enum negotiator_event break_off(struct err *e, const char *how)
{
	child_failed(e, how);
	return NEGOTIATOR_BROKEN;
}

static enum negotiator_event finish_start(struct negotiator *n, const struct negotiator_answer *a)
{
	n->state = NEGOTIATOR_IDLE;
	n->confined = a->confined.filtered;
	n->locked = a->confined.locked;
	return NEGOTIATOR_STARTED;
}

static enum negotiator_event take_result(struct negotiator *n, const struct negotiator_answer *a,
					 struct connections *c, int *ret, struct err *e)
{
	n->state = NEGOTIATOR_IDLE;
	if (!*ret && !are_connected(a->connections.fds, a->connections.count)) {
		msg_close_fds(a->connections.fds, a->connections.count);
		*ret = err_set(e, ERR_UNREACHABLE, ECONNRESET,
			       "the server closed the connection right after the handshake");
	}
	if (!*ret)
		*c = a->connections;
	return NEGOTIATOR_ANSWERED;
}

/*
 * The process that talked for a vital device has died. Nobody knows whether it or the next one has
 * read the question: an answer may still come.
 */
static enum negotiator_event answer_for_the_dead(struct negotiator *n, int *ret, struct err *e)
{
	n->state = NEGOTIATOR_IDLE;
	n->stale++;
	*ret = err_set(e, ERR_FAILED, ECHILD,
		       "the process that talks to servers died and was started again");
	return NEGOTIATOR_ANSWERED;
}

static bool is_expected(const struct negotiator *n, const struct negotiator_answer *a)
{
	return (n->state == NEGOTIATOR_STARTING && !a->number) ||
	       (n->state == NEGOTIATOR_BUSY && a->number == n->number);
}

enum negotiator_event negotiator_read(struct negotiator *n, struct connections *c, int *ret,
				      struct err *e)
{
	int fds[NEGOTIATOR_CONNECTED_MAX], code;
	struct negotiator_answer a;
	struct msg_in in = {
		.data = &a,
		.size = sizeof(a),
		.min = sizeof(a),
		.max = sizeof(a),
		.fds = fds,
		.fds_max = NEGOTIATOR_CONNECTED_MAX,
	};

	for (unsigned i = 0; n->state != NEGOTIATOR_NONE && i <= DROP_MAX; i++) {
		code = msg_receive(n->fd, &in, 0);
		if (code == -EAGAIN)
			break;
		if (code)
			return break_off(e,
					 code == -EMSGSIZE ? "talks nonsense (size)" : "is gone");
		if (is_expected(n, &a)) {
			if (!sanitize_answer(n, &a, fds, in.count)) {
				msg_close_fds(fds, in.count);
				return break_off(e, "talks nonsense (contents)");
			}
			*ret = a.ret;
			if (a.ret)
				*e = a.err;
			return n->state == NEGOTIATOR_STARTING ? finish_start(n, &a) :
								 take_result(n, &a, c, ret, e);
		}
		msg_close_fds(fds, in.count);
		if (n->forks && a.number == NEGOTIATOR_DIED && n->state != NEGOTIATOR_STARTING) {
			if (n->state == NEGOTIATOR_BUSY)
				return answer_for_the_dead(n, ret, e);
		} else if (!n->stale) {
			return break_off(e, "talks without being asked");
		} else {
			n->stale--;
		}
	}
	return NEGOTIATOR_NOTHING;
}

/* --- questions -------------------------------------------------------------------------------- */

static bool can_ask(const struct negotiator *n, unsigned server, enum neg_goal goal, unsigned count)
{
	return n->state == NEGOTIATOR_IDLE && server < n->server_count &&
	       (goal == NEG_GOAL_GO || goal == NEG_GOAL_INFO) &&
	       count <= NEGOTIATOR_CONNECTED_MAX && (count > 0) == n->servers[server].connected;
}

int negotiator_ask(struct negotiator *n, unsigned server, enum neg_goal goal,
		   const struct plan_multi *m, unsigned timeout_ms, const int *connected,
		   unsigned count, struct err *e)
{
	struct negotiator_question q = {
		.number = n->number + 1,
		.server = server,
		.goal = goal,
		.timeout_ms = timeout_ms,
	};
	int ret;

	if (!can_ask(n, server, goal, count))
		return err_set(e, ERR_FAILED, EINVAL, "server %u: a question that cannot be asked",
			       server);
	if (m)
		q.multi = *m;
	ret = msg_send(n->fd, &q, sizeof(q), connected, count, 0);
	if (ret == -EPIPE || ret == -ECONNRESET)
		return child_failed(e, "is gone");
	if (ret == -EAGAIN)
		return child_failed(e, "does not listen");
	if (ret)
		return err_sys(e, ERR_FAILED, -ret, "ask the process that talks to servers");
	n->number++;
	n->state = NEGOTIATOR_BUSY;
	n->server = server;
	n->wanted = goal != NEG_GOAL_GO ? 0 : q.multi.wanted ? q.multi.wanted : 1;
	if (n->wanted > PLAN_CONNECTIONS_MAX)
		n->wanted = PLAN_CONNECTIONS_MAX;
	return 0;
}

void negotiator_cancel(struct negotiator *n)
{
	const struct negotiator_question q = { .cancel = true, .number = n->number };

	if (n->state != NEGOTIATOR_BUSY)
		return;
	n->state = NEGOTIATOR_IDLE;
	n->stale++;
	/* The next question finds out about a child that does not get this. */
	msg_send(n->fd, &q, sizeof(q), NULL, 0, 0);
}

/* --- its life --------------------------------------------------------------------------------- */

int negotiator_spawn(struct negotiator *n, const struct settings *settings,
		     const struct negotiator_params *params, struct err *e)
{
	int pair[2], ret;

	memset(n, 0, sizeof(*n));
	if (!settings->server_count || settings->server_count > SETTINGS_SERVERS_MAX)
		return err_set(e, ERR_USAGE, EINVAL, "%u servers: 1 to %d are possible",
			       settings->server_count, SETTINGS_SERVERS_MAX);
	n->server_count = settings->server_count;
	n->forks = settings_is_vital(settings);
	for (unsigned i = 0; i < n->server_count; i++) {
		n->servers[i].transport = transport_of(&settings->servers[i]);
		n->servers[i].connected = settings->command.count ||
					  n->servers[i].transport->by_path;
		n->servers[i].tls = settings->servers[i].tls;
	}
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return err_sys(e, ERR_FAILED, errno, "socket pair");
	n->pid = fork();
	if (n->pid < 0) {
		ret = err_sys(e, ERR_FAILED, errno, "start the process that talks to servers");
		close(pair[0]);
		close(pair[1]);
		return ret;
	}
	if (!n->pid)
		negotiator_child_run(pair[1], settings, params);
	close(pair[1]);
	n->fd = pair[0];
	n->state = NEGOTIATOR_STARTING;
	return 0;
}

bool negotiator_replace(struct negotiator *n)
{
	if (!n->forks || n->state < NEGOTIATOR_IDLE)
		return false;
	negotiator_cancel(n);
	/* The process that keeps the keys ignores SIGALRM. One that is stopped takes it later. */
	kill(-n->pid, SIGALRM);
	kill(-n->pid, SIGCONT);
	return true;
}

pid_t negotiator_hang_up(struct negotiator *n)
{
	if (n->state == NEGOTIATOR_NONE)
		return 0;
	close(n->fd);
	n->fd = -1;
	n->state = NEGOTIATOR_NONE;
	return n->pid;
}
