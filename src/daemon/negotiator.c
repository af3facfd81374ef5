/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "daemon/negotiator.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <malloc.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernel/sandbox.h"
#include "net/ktls.h"
#include "net/transport.h"
#include "net/blocking_child.h"
#include "net/msg.h"
#include "base/text.h"

enum {
	START_MS = 30000,  /* limit for the child's start, in which it reads its keys */
	OVERDUE_MS = 5000, /* patience beyond the timeout of an attempt */
	STOP_MS = 1000,    /* limit for the child's end; then it is killed */
	DROP_MAX = 16,     /* stale answers read by one call */
	CHILD_FD = 3,
};

#define DIED UINT32_MAX /* number of the message that reports the death of a child's child */

/*
 * Messages are whole structs, since both ends are one program: another length is an error. The
 * supervisor's:
 */
struct question {
	bool cancel;
	uint32_t number;
	uint32_t server;
	uint32_t goal;
	uint32_t timeout_ms;
	struct plan_multi multi;
};

/* The child's. The first one has number 0 and reports its start. */
struct answer {
	uint32_t number;
	int32_t ret;
	struct sandbox_result confined;
	struct err err;
	struct connections rs;
};

/* fds has room for NEGOTIATOR_CONNECTED_MAX descriptors. */
static struct msg_in exact_message(void *data, size_t size, int *fds)
{
	return (struct msg_in){
		.data = data,
		.size = size,
		.min = size,
		.max = size,
		.fds = fds,
		.fds_max = NEGOTIATOR_CONNECTED_MAX,
	};
}

/* --- the child -------------------------------------------------------------------------------- */

struct child {
	const struct settings *settings;
	struct connector *links[NEGOTIATOR_SERVERS_MAX];
	/* Why a server has no address for good; code 0: it has one, or is looked up each time. */
	struct err unresolved[NEGOTIATOR_SERVERS_MAX];
};

/* Carries out one attempt. fds are used up. */
static int run_attempt(struct child *c, const struct question *q, const int *fds, unsigned count,
		       struct connections *rs, struct err *e)
{
	const struct connect_attempt a = {
		.goal = (enum neg_goal)q->goal,
		.timeout_ms = q->timeout_ms,
		.multi = q->multi,
		.locked = settings_is_vital(c->settings),
		/* The supervisor's next message can only cancel this attempt. */
		.cancel_fd = CHILD_FD,
		.connected = count,
		.fds = fds,
	};
	int ret;

	if (c->unresolved[q->server].code) {
		msg_close_fds(fds, count);
		*e = c->unresolved[q->server];
		return -e->code;
	}
	ret = connect_run(c->links[q->server], &a, NULL, NULL, rs, e);
	/* By the next attempt the name may have other addresses. */
	if (ret && ret != -ECANCELED && !settings_is_vital(c->settings))
		connect_refresh(c->links[q->server]);
	return ret;
}

/* Answers questions until the supervisor closes its end. */
static void answer_questions(struct child *c)
{
	int fds[NEGOTIATOR_CONNECTED_MAX];
	struct question q;
	struct answer a;
	struct msg_in in = exact_message(&q, sizeof(q), fds);

	while (!msg_receive(CHILD_FD, &in, -1)) {
		if (q.cancel || q.server >= c->settings->server_count) {
			msg_close_fds(fds, in.count);
			continue;
		}
		memset(&a, 0, sizeof(a));
		a.number = q.number;
		a.ret = run_attempt(c, &q, fds, in.count, &a.rs, &a.err);
		if (msg_send(CHILD_FD, &a, sizeof(a), a.rs.fds, a.rs.count, -1)) {
			connections_close(&a.rs, false);
			break;
		}
		connections_close(&a.rs, true);
		/*
		 * A TLS session takes as much memory as all the rest, and there may have been
		 * many.
		 */
		malloc_trim(0);
	}
	/* Whoever waits for the end of this process waits for the end of its look-ups too. */
	for (unsigned i = 0; i < c->settings->server_count; i++)
		connect_forget_refresh(c->links[i]);
}

/*
 * Where no file can be read any more, the process that has the keys and addresses talks to nobody.
 * It forks one that does, and another one when that is killed, until that one ends by itself
 * because the supervisor is gone.
 */
static void answer_by_forks(struct child *c)
{
	const struct answer died = { .number = DIED };
	int status;
	pid_t pid;

	for (;;) {
		signal(SIGCHLD, SIG_DFL);
		pid = fork();
		if (pid < 0)
			return;
		if (!pid) {
			signal(SIGCHLD, SIG_IGN);
			/*
			 * A fork does not inherit memory locks, mlockall(2). Where they are not
			 * permitted, this process is no worse off than others.
			 */
			mlockall(MCL_CURRENT | MCL_FUTURE);
			answer_questions(c);
			_exit(0);
		}
		while (waitpid(pid, &status, 0) < 0)
			if (errno != EINTR)
				return;
		if (!WIFSIGNALED(status) || msg_send(CHILD_FD, &died, sizeof(died), NULL, 0, -1))
			return;
	}
}

static bool has_token(const struct settings *s)
{
	return s->servers[0].tls &&
	       (!strncmp(s->tls.key, "pkcs11:", 7) || !strncmp(s->tls.cert, "pkcs11:", 7));
}

/* Reads the servers' credentials and, where they are never looked up again, their addresses. */
static int prepare_servers(struct child *c, struct err *e)
{
	const struct settings *s = c->settings;
	const bool vital = settings_is_vital(s);
	bool found = !vital;
	int ret;

	if (vital && has_token(s))
		return err_set(e, ERR_USAGE, EOPNOTSUPP,
			       "a key in a token may need files at each handshake, which a device "
			       "that has them cannot wait for: use a key file");
	for (unsigned i = 0; i < s->server_count; i++) {
		ret = connect_prepare(&c->links[i], s, i, e);
		if (ret)
			return ret;
	}
	/* The kernel loads its TLS module for root only. */
	if (s->servers[0].tls && s->tls.offload != TLS_OFFLOAD_NO)
		ktls_available();
	for (unsigned i = 0; vital && i < s->server_count; i++)
		if (!connect_resolve(c->links[i], s->connect_timeout_ms, -1, &c->unresolved[i]))
			found = true;
	if (found)
		return 0;
	*e = c->unresolved[0];
	return -e->code;
}

/* Keeps nothing of the process that this one was forked from but its socket, as CHILD_FD. */
static int drop_inheritance(int fd, struct err *e)
{
	static const int reset[] = { SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM };
	/*
	 * A service manager sends the first three to every process of a service, but only the
	 * supervisor knows when to end.
	 */
	static const int ignored[] = { SIGHUP, SIGINT, SIGTERM, SIGPIPE };
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	sigset_t none;

	if (null < 0)
		return err_sys(e, ERR_FAILED, errno, "/dev/null");
	for (size_t i = 0; i < sizeof(reset) / sizeof(reset[0]); i++)
		signal(reset[i], SIG_DFL);
	for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
		signal(ignored[i], SIG_IGN);
	/* Relays are nobody's to wait for. */
	signal(SIGCHLD, SIG_IGN);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setsid();
	prctl(PR_SET_NAME, "nbd-negotiator");
	if (chdir("/"))
		return err_sys(e, ERR_FAILED, errno, "chdir /");
	for (int i = 0; i < CHILD_FD; i++)
		if (dup2(null, i) < 0)
			return err_sys(e, ERR_FAILED, errno, "descriptors");
	if (fd != CHILD_FD && dup2(fd, CHILD_FD) < 0)
		return err_sys(e, ERR_FAILED, errno, "descriptors");
	fcntl(CHILD_FD, F_SETFD, FD_CLOEXEC);
	close_range(CHILD_FD + 1, ~0U, 0);
	return 0;
}

_Noreturn static void child_main(int fd, const struct settings *settings,
				 const struct negotiator_params *p)
{
	const bool vital = settings_is_vital(settings);
	struct sandbox sandbox = {
		.user = p->user,
		.lookups = !vital,
		.locked = vital,
		.token = has_token(settings),
		.lenient = p->lenient,
	};
	struct child c = { .settings = settings };
	struct answer a = { 0 };

	a.ret = drop_inheritance(fd, &a.err);
	if (!a.ret) {
		fd = CHILD_FD;
		a.ret = prepare_servers(&c, &a.err);
	}
	/* Gives back what reading keys and certificates has needed. */
	malloc_trim(0);
	if (!a.ret)
		a.ret = sandbox_enter(&sandbox, &a.confined, &a.err);
	if (!msg_send(fd, &a, sizeof(a), NULL, 0, -1) && !a.ret) {
		if (vital)
			answer_by_forks(&c);
		else
			answer_questions(&c);
	}
	_exit(a.ret ? 1 : 0);
}

/* --- the supervisor's end --------------------------------------------------------------------- */

static int child_failed(struct err *e, const char *how)
{
	return err_set(e, ERR_FAILED, EPIPE, "the process that talks to servers %s", how);
}

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

static bool sanitize_failure(struct answer *a)
{
	return a->ret < 0 && a->ret >= -4095 && a->err.code == -a->ret && a->err.kind > ERR_NONE &&
	       a->err.kind <= ERR_MULTI && SANITIZE_TEXT(a->err.text);
}

static bool is_stream(int fd)
{
	int domain, type;
	socklen_t len = sizeof(int);

	return !getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) &&
	       !getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) && type == SOCK_STREAM &&
	       (domain == AF_INET || domain == AF_INET6 || domain == AF_UNIX);
}

/* False for what a good child does not send as the result of the last question. */
static bool sanitize_result(const struct negotiator *n, struct connections *rs, const int *fds,
			    unsigned count)
{
	const struct negotiator_server *server = &n->servers[n->server];
	const struct export *x = &rs->export;

	if (rs->count != count || count > n->wanted || (n->wanted && !count))
		return false;
	for (unsigned i = 0; i < count; i++)
		if (!is_stream(fds[i]))
			return false;
	if (!is_bool(&rs->encrypted) || !is_bool(&rs->relayed) || !is_bool(&x->has_block_size) ||
	    !is_bool(&x->has_name) || !is_bool(&x->has_description) ||
	    !is_bool(&x->by_export_name) || !is_bool(&x->structured) ||
	    !is_bool(&x->has_contexts) || (unsigned)x->listed > EXPORT_UNLISTED)
		return false;
	if (rs->encrypted != server->tls ||
	    (rs->relayed && !rs->encrypted && !server->transport->needs_relay))
		return false;
	if (!has_end(x->name, sizeof(x->name)) || !has_end(x->description, sizeof(x->description)))
		return false;
	memset(rs->fds, 0, sizeof(rs->fds));
	memcpy(rs->fds, fds, count * sizeof(fds[0]));
	rs->command = 0;
	rs->command_log = -1;
	return SANITIZE_TEXT(rs->peer) && SANITIZE_TEXT(rs->tls.version) &&
	       SANITIZE_TEXT(rs->tls.cipher) && SANITIZE_TEXT(rs->tls.peer) &&
	       SANITIZE_TEXT(rs->note);
}

/*
 * For the answer to the last question, or the report of the start. Closes fds that are not taken.
 */
static int check_answer(const struct negotiator *n, struct answer *a, const int *fds,
			unsigned count, struct err *e)
{
	bool good;

	if (a->ret)
		good = !count && sanitize_failure(a);
	else if (!a->number)
		good = !count;
	else
		good = sanitize_result(n, &a->rs, fds, count);
	if (good)
		return 0;
	msg_close_fds(fds, count);
	return child_failed(e, "talks nonsense (contents)");
}

/*
 * The child's child has died. Nobody knows whether it or the next one has read the question: an
 * answer may still come.
 */
static void answer_for_the_dead(struct negotiator *n, struct answer *a)
{
	n->busy = false;
	n->stale++;
	a->ret = err_set(&a->err, ERR_FAILED, ECHILD,
			 "the process that talks to servers died and was started again");
}

/*
 * Reads the answer to the last question; returns as negotiator_answer, without the answer's own
 * error.
 */
static int read_answer(struct negotiator *n, struct answer *a, struct err *e)
{
	int fds[NEGOTIATOR_CONNECTED_MAX], ret;
	struct msg_in in = exact_message(a, sizeof(*a), fds);

	for (unsigned i = 0; i <= DROP_MAX; i++) {
		ret = msg_receive(n->fd, &in, 0);
		if (ret == -EAGAIN)
			break;
		if (ret)
			return child_failed(e,
					    ret == -EMSGSIZE ? "talks nonsense (size)" : "is gone");
		if (n->busy && a->number == n->number) {
			n->busy = false;
			return check_answer(n, a, fds, in.count, e);
		}
		msg_close_fds(fds, in.count);
		if (n->forks && a->number == DIED) {
			if (!n->busy)
				continue;
			answer_for_the_dead(n, a);
			return 0;
		}
		if (!n->stale)
			return child_failed(e, "talks without being asked");
		n->stale--;
	}
	if (n->busy && monotonic_ms() > n->due_ms)
		return child_failed(e, "does not answer");
	return -EAGAIN;
}

int negotiator_answer(struct negotiator *n, struct connections *rs, struct err *e)
{
	struct answer a;
	int ret;

	if (n->fd < 0)
		return child_failed(e, "is gone");
	ret = read_answer(n, &a, e);
	if (ret)
		return ret;
	if (a.ret) {
		*e = a.err;
		return a.ret;
	}
	*rs = a.rs;
	return 0;
}

int negotiator_ask(struct negotiator *n, unsigned server, enum neg_goal goal,
		   const struct plan_multi *m, unsigned timeout_ms, const int *connected,
		   unsigned count, struct err *e)
{
	struct question q = {
		.number = n->number + 1,
		.server = server,
		.goal = goal,
		.timeout_ms = timeout_ms,
	};
	int ret;

	if (n->fd < 0)
		return child_failed(e, "is gone");
	if (n->busy)
		return err_set(e, ERR_FAILED, EBUSY, "the process that talks to servers is busy");
	if (server >= n->server_count || (goal != NEG_GOAL_GO && goal != NEG_GOAL_INFO) ||
	    count > NEGOTIATOR_CONNECTED_MAX ||
	    (count > 0) != n->servers[server].transport->by_path)
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
	n->busy = true;
	n->server = server;
	n->wanted = goal != NEG_GOAL_GO ? 0 : q.multi.wanted ? q.multi.wanted : 1;
	if (n->wanted > PLAN_CONNECTIONS_MAX)
		n->wanted = PLAN_CONNECTIONS_MAX;
	n->due_ms = monotonic_ms() + timeout_ms + OVERDUE_MS;
	return 0;
}

void negotiator_cancel(struct negotiator *n)
{
	const struct question q = { .cancel = true, .number = n->number };

	if (!n->busy)
		return;
	n->busy = false;
	n->stale++;
	/* The next question finds out about a child that does not get this. */
	msg_send(n->fd, &q, sizeof(q), NULL, 0, 0);
}

void negotiator_stop(struct negotiator *n)
{
	const long long end = monotonic_ms() + STOP_MS;

	if (n->fd >= 0)
		close(n->fd);
	n->fd = -1;
	n->busy = false;
	if (n->pid <= 0)
		return;
	while (!waitpid(n->pid, NULL, WNOHANG)) {
		poll(NULL, 0, 1);
		if (monotonic_ms() > end)
			kill(n->pid, SIGKILL);
	}
	/*
	 * Ends a look-up that nobody waits for any more; relays have process groups of their own.
	 */
	kill(-n->pid, SIGKILL);
	n->pid = -1;
}

/* Waits for the child's report of its start. */
static int await_start(struct negotiator *n, struct err *e)
{
	struct pollfd p = { .fd = n->fd, .events = POLLIN };
	struct answer a;
	int ret;

	do {
		long long left = n->due_ms - monotonic_ms();

		poll(&p, 1, left > 0 ? (int)left + 1 : 0);
		ret = read_answer(n, &a, e);
	} while (ret == -EAGAIN);
	if (ret)
		return ret;
	if (a.ret) {
		*e = a.err;
		return a.ret;
	}
	if (!is_bool(&a.confined.filtered) || !is_bool(&a.confined.locked))
		return child_failed(e, "talks nonsense (start)");
	n->confined = a.confined.filtered;
	n->locked = a.confined.locked;
	return 0;
}

int negotiator_start(struct negotiator *n, const struct settings *settings,
		     const struct negotiator_params *p, struct err *e)
{
	int pair[2], ret;

	memset(n, 0, sizeof(*n));
	n->pid = -1;
	n->fd = -1;
	if (!settings->server_count || settings->server_count > NEGOTIATOR_SERVERS_MAX)
		return err_set(e, ERR_USAGE, EINVAL, "%u servers: 1 to %d are possible",
			       settings->server_count, NEGOTIATOR_SERVERS_MAX);
	if (settings->command.count)
		return err_set(e, ERR_USAGE, EINVAL, "a command cannot be started again by itself");
	n->server_count = settings->server_count;
	n->forks = settings_is_vital(settings);
	n->busy = true;
	n->due_ms = monotonic_ms() + START_MS;
	for (unsigned i = 0; i < n->server_count; i++) {
		n->servers[i].transport = transport_of(&settings->servers[i]);
		n->servers[i].tls = settings->servers[i].tls;
		if (n->forks)
			n->due_ms += settings->connect_timeout_ms;
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
		child_main(pair[1], settings, p);
	close(pair[1]);
	n->fd = pair[0];
	ret = await_start(n, e);
	if (ret)
		negotiator_stop(n);
	return ret;
}
