/* SPDX-License-Identifier: GPL-2.0-or-later */
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
#include "net/blocking_child.h"
#include "base/text.h"

enum {
	START_MS = 30000,  /* for the child to read its keys */
	OVERDUE_MS = 5000, /* beyond the time an attempt has */
	STOP_MS = 1000,
	DROP_MAX = 16, /* stale answers in one look */
	CHILD_FD = 3,
};

#define DIED UINT32_MAX /* number of the message that tells the death of a child's child */

/* Messages are whole structs, both ends being one program. The supervisor's: */
struct question {
	bool cancel;
	uint32_t number;
	uint32_t server;
	uint32_t goal;
	uint32_t timeout_ms;
	struct plan_multi multi;
};

/* The child's. The first one, number 0, says how its start went. */
struct answer {
	uint32_t number;
	int32_t ret;
	struct sandbox_result confined;
	struct err err;
	struct connections rs;
};

union control {
	struct cmsghdr align;
	char buf[CMSG_SPACE(NEGOTIATOR_CONNECTED_MAX * sizeof(int))];
};

static ssize_t send_message(int fd, const void *message, size_t len, const int *fds, unsigned count,
			    int flags)
{
	/* sendmsg does not write to it */
	struct iovec iov = { .iov_base = (void *)(uintptr_t)message, .iov_len = len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	union control control = { 0 };
	struct cmsghdr *c;
	ssize_t n;

	if (count) {
		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(count * sizeof(int));
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(c), fds, count * sizeof(int));
	}
	do {
		n = sendmsg(fd, &msg, MSG_NOSIGNAL | flags);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

static void close_all(const int *fds, unsigned count)
{
	while (count)
		close(fds[--count]);
}

/*
 * One message, 0 for the hang-up, -EMSGSIZE for one of another length or with too much beside it. fds has room for
 * NEGOTIATOR_CONNECTED_MAX.
 */
static ssize_t receive_message(int fd, void *message, size_t len, int *fds, unsigned *count,
			       int flags)
{
	struct iovec iov = { .iov_base = message, .iov_len = len };
	union control control;
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf),
	};
	bool odd = false;
	ssize_t n;

	*count = 0;
	do {
		n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC | flags);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
		size_t more = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS ||
		    more > NEGOTIATOR_CONNECTED_MAX - *count) {
			odd = true;
			continue;
		}
		memcpy(fds + *count, CMSG_DATA(c), more * sizeof(int));
		*count += (unsigned)more;
	}
	if (n && (odd || n != (ssize_t)len || msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
		n = -EMSGSIZE;
	if (n <= 0) {
		close_all(fds, *count);
		*count = 0;
	}
	return n;
}

/* --- the child ---------------------------------------------------------------------------------- */

struct child {
	const struct settings *settings;
	struct connector *links[NEGOTIATOR_SERVERS_MAX];
	struct err unresolved
		[NEGOTIATOR_SERVERS_MAX]; /* why it will never be reached; code 0: it may be */
};

static int run(struct child *c, const struct question *q, const int *fds, unsigned count,
	       struct connections *rs, struct err *e)
{
	const struct connect_attempt a = {
		.goal = (enum neg_goal)q->goal,
		.timeout_ms = q->timeout_ms,
		.multi = q->multi,
		.locked = settings_is_vital(c->settings),
		/* the next message is that nobody wants to know any more */
		.cancel_fd = CHILD_FD,
		.connected = count,
		.fds = fds,
	};
	int ret;

	if (c->unresolved[q->server].code) {
		close_all(fds, count);
		*e = c->unresolved[q->server];
		return -e->code;
	}
	ret = connect_run(c->links[q->server], &a, NULL, NULL, rs, e);
	/* By the next attempt there may be other addresses. */
	if (ret && ret != -ECANCELED && !settings_is_vital(c->settings))
		connect_refresh(c->links[q->server]);
	return ret;
}

static void serve(struct child *c)
{
	int fds[NEGOTIATOR_CONNECTED_MAX];
	unsigned count;
	struct question q;
	struct answer a;

	while (receive_message(CHILD_FD, &q, sizeof(q), fds, &count, 0) > 0) {
		if (q.cancel || q.server >= c->settings->server_count) {
			close_all(fds, count);
			continue;
		}
		memset(&a, 0, sizeof(a));
		a.number = q.number;
		a.ret = run(c, &q, fds, count, &a.rs, &a.err);
		if (send_message(CHILD_FD, &a, sizeof(a), a.rs.fds, a.rs.count, 0) < 0) {
			connections_close(&a.rs, false);
			break;
		}
		connections_close(&a.rs, true);
		/* a session of TLS takes as much as all the rest, and there may have been many */
		malloc_trim(0);
	}
	/* Whoever waits for our end waits for theirs too. */
	for (unsigned i = 0; i < c->settings->server_count; i++)
		connect_forget_refresh(c->links[i]);
}

/*
 * Where no file can be read any more, the one that has the keys and addresses talks to nobody: it forks one that does, and
 * another one when that dies, until that ends because the supervisor has gone.
 */
static void serve_by_children(struct child *c)
{
	struct answer a = { .number = DIED };
	int status;
	pid_t pid;

	for (;;) {
		signal(SIGCHLD, SIG_DFL);
		pid = fork();
		if (pid < 0)
			return;
		if (!pid) {
			signal(SIGCHLD, SIG_IGN);
			/* not inherited, mlockall(2); where it is not permitted we are no worse off than others */
			mlockall(MCL_CURRENT | MCL_FUTURE);
			serve(c);
			_exit(0);
		}
		while (waitpid(pid, &status, 0) < 0)
			if (errno != EINTR)
				return;
		if (!WIFSIGNALED(status) || send_message(CHILD_FD, &a, sizeof(a), NULL, 0, 0) < 0)
			return;
	}
}

static bool has_token(const struct settings *s)
{
	return s->servers[0].tls &&
	       (!strncmp(s->tls.key, "pkcs11:", 7) || !strncmp(s->tls.cert, "pkcs11:", 7));
}

/* The servers' credentials, and where they are never to be looked up again, their addresses. */
static int prepare(struct child *c, struct err *e)
{
	const struct settings *s = c->settings;
	bool vital = settings_is_vital(s);
	unsigned found = 0;
	int ret;

	if (vital && has_token(s))
		return err_set(
			e, ERR_USAGE, EOPNOTSUPP,
			"a key in a token may need files at each handshake, which a device that has "
			"them cannot wait for: use a key file");
	for (unsigned i = 0; i < s->server_count; i++) {
		ret = connect_prepare(&c->links[i], s, i, e);
		if (ret)
			return ret;
	}
	/* The kernel loads its module for root only. */
	if (s->servers[0].tls && s->tls.offload != TLS_OFFLOAD_NO)
		ktls_available();
	for (unsigned i = 0; vital && i < s->server_count; i++)
		if (!connect_resolve(c->links[i], s->connect_timeout_ms, -1, &c->unresolved[i]))
			found++;
	if (found || !vital)
		return 0;
	*e = c->unresolved[0];
	return -e->code;
}

/* Nothing of the process it comes from is kept but the socket. */
static int settle(int *fd, struct err *e)
{
	static const int signals[] = { SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM };
	/* A service manager sends them to all of a service, of which only the supervisor knows when to end. */
	static const int ignored[] = { SIGHUP, SIGINT, SIGTERM, SIGPIPE };
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	sigset_t none;

	if (null < 0)
		return err_sys(e, ERR_FAILED, errno, "/dev/null");
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		signal(signals[i], SIG_DFL);
	for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
		signal(ignored[i], SIG_IGN);
	/* relays are nobody's to wait for */
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
	if (*fd != CHILD_FD && dup2(*fd, CHILD_FD) < 0)
		return err_sys(e, ERR_FAILED, errno, "descriptors");
	*fd = CHILD_FD;
	fcntl(CHILD_FD, F_SETFD, FD_CLOEXEC);
	close_range(CHILD_FD + 1, ~0U, 0);
	return 0;
}

_Noreturn static void process(int fd, const struct settings *settings,
			      const struct negotiator_params *p)
{
	const bool vital = settings_is_vital(settings);
	struct sandbox confine = {
		.user = p->user,
		.lookups = !vital,
		.locked = vital,
		.lenient = p->lenient,
		.token = has_token(settings),
	};
	struct child c = { .settings = settings };
	struct answer a = { 0 };

	a.ret = settle(&fd, &a.err);
	if (!a.ret)
		a.ret = prepare(&c, &a.err);
	/* what reading keys and certificates has needed */
	malloc_trim(0);
	if (!a.ret)
		a.ret = sandbox_enter(&confine, &a.confined, &a.err);
	if (send_message(fd, &a, sizeof(a), NULL, 0, 0) > 0 && !a.ret) {
		if (vital)
			serve_by_children(&c);
		else
			serve(&c);
	}
	_exit(a.ret ? 1 : 0);
}

/* --- the supervisor's end ----------------------------------------------------------------------- */

static int gone(struct err *e, const char *why)
{
	return err_set(e, ERR_FAILED, EPIPE, "the process that talks to servers %s", why);
}

/* What anybody may have put into a bool. */
static bool is_bool(const bool *b)
{
	unsigned char byte;

	memcpy(&byte, b, sizeof(byte));
	return byte <= 1;
}

/*
 * A text that is escaped already, or should be: what text_escape would not let through is made harmless, its
 * backslashes stay single. False where it has no end.
 */
static bool take_text(char *text, size_t cap)
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
	/* not in the middle of a character */
	while (*p && used && ((unsigned char)*p & 0xc0) == 0x80)
		p--, used--;
	text[used] = '\0';
	return true;
}

#define TAKE_TEXT(array) take_text((array), sizeof(array))

static bool is_text(const char *text, size_t cap)
{
	return strnlen(text, cap) < cap;
}

static bool take_error(struct answer *a)
{
	return a->ret < 0 && a->ret >= -4095 && a->err.code == -a->ret && a->err.kind > ERR_NONE &&
	       a->err.kind <= ERR_MULTI && TAKE_TEXT(a->err.text);
}

static bool is_stream(int fd)
{
	int domain, type;
	socklen_t len = sizeof(int);

	return !getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) &&
	       !getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) && type == SOCK_STREAM &&
	       (domain == AF_INET || domain == AF_INET6 || domain == AF_UNIX);
}

static bool take_result(const struct negotiator *n, struct connections *rs, const int *fds,
			unsigned count)
{
	const struct export *x = &rs->export;

	if (rs->count != count || count > n->most || (n->most && !count))
		return false;
	for (unsigned i = 0; i < count; i++)
		if (!is_stream(fds[i]))
			return false;
	if (!is_bool(&rs->encrypted) || !is_bool(&rs->relayed) || !is_bool(&x->has_block_size) ||
	    !is_bool(&x->has_name) || !is_bool(&x->has_description) ||
	    !is_bool(&x->by_export_name) || !is_bool(&x->structured) ||
	    !is_bool(&x->has_contexts) || (unsigned)x->listed > EXPORT_UNLISTED)
		return false;
	if (rs->encrypted != n->is_tls[n->server] ||
	    (rs->relayed && !rs->encrypted && !n->is_vsock[n->server]))
		return false;
	if (!is_text(x->name, sizeof(x->name)) || !is_text(x->description, sizeof(x->description)))
		return false;
	memset(rs->fds, 0, sizeof(rs->fds));
	memcpy(rs->fds, fds, count * sizeof(fds[0]));
	rs->command = 0;
	rs->command_log = -1;
	return TAKE_TEXT(rs->peer) && TAKE_TEXT(rs->tls.version) && TAKE_TEXT(rs->tls.cipher) &&
	       TAKE_TEXT(rs->tls.peer) && TAKE_TEXT(rs->note);
}

/* The answer to the last question, as in the header. */
static int receive(struct negotiator *n, struct answer *a, struct err *e)
{
	int fds[NEGOTIATOR_CONNECTED_MAX];
	unsigned count;
	ssize_t got;

	for (unsigned i = 0; i <= DROP_MAX; i++) {
		got = receive_message(n->fd, a, sizeof(*a), fds, &count, MSG_DONTWAIT);
		if (got == -EAGAIN)
			break;
		if (got == -EMSGSIZE)
			return gone(e, "talks nonsense (size)");
		if (got <= 0)
			return gone(e, "is gone");
		if (n->replaced && a->number == DIED) {
			close_all(fds, count);
			if (!n->busy)
				continue;
			/* Whether the dead one or the next has read the question nobody knows: an answer may come. */
			n->busy = false;
			n->stale++;
			a->ret = err_set(
				&a->err, ERR_FAILED, ECHILD,
				"the process that talks to servers died and was started again");
			return 0;
		}
		if (n->busy && a->number == n->number) {
			n->busy = false;
			if (a->ret || !a->number ? !count && (!a->ret || take_error(a)) :
						   take_result(n, &a->rs, fds, count))
				return 0;
			close_all(fds, count);
			return gone(e, "talks nonsense (contents)");
		}
		close_all(fds, count);
		if (!n->stale)
			return gone(e, "talks without being asked");
		n->stale--;
	}
	if (n->busy && monotonic_ms() > n->due_ms)
		return gone(e, "does not answer");
	return -EAGAIN;
}

int negotiator_answer(struct negotiator *n, struct connections *rs, struct err *e)
{
	struct answer a;
	int ret;

	if (n->fd < 0)
		return gone(e, "is gone");
	ret = receive(n, &a, e);
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
	ssize_t sent;

	if (n->fd < 0)
		return gone(e, "is gone");
	if (n->busy)
		return err_set(e, ERR_FAILED, EBUSY, "the process that talks to servers is busy");
	if (server >= n->servers || (goal != NEG_GOAL_GO && goal != NEG_GOAL_INFO) ||
	    count > NEGOTIATOR_CONNECTED_MAX || !count != !n->is_unix[server])
		return err_set(e, ERR_FAILED, EINVAL, "server %u: a question that cannot be asked",
			       server);
	if (m)
		q.multi = *m;
	sent = send_message(n->fd, &q, sizeof(q), connected, count, MSG_DONTWAIT);
	if (sent == -EPIPE || sent == -ECONNRESET)
		return gone(e, "is gone");
	if (sent == -EAGAIN)
		return gone(e, "does not listen");
	if (sent < 0)
		return err_sys(e, ERR_FAILED, (int)-sent, "ask the process that talks to servers");
	n->number++;
	n->busy = true;
	n->server = server;
	n->most = goal != NEG_GOAL_GO ? 0 : q.multi.wanted ? q.multi.wanted : 1;
	if (n->most > PLAN_CONNECTIONS_MAX)
		n->most = PLAN_CONNECTIONS_MAX;
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
	/* one that cannot be told is found out about at the next question */
	send_message(n->fd, &q, sizeof(q), NULL, 0, MSG_DONTWAIT);
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
	/* A look-up that nobody waits for any more; relays are in groups of their own. */
	kill(-n->pid, SIGKILL);
	n->pid = -1;
}

/* Until the child has said how its start went. */
static int await_start(struct negotiator *n, struct err *e)
{
	struct pollfd p = { .fd = n->fd, .events = POLLIN };
	struct answer a;
	int ret;

	do {
		long long left = n->due_ms - monotonic_ms();

		poll(&p, 1, left > 0 ? (int)left + 1 : 0);
		ret = receive(n, &a, e);
	} while (ret == -EAGAIN);
	if (ret)
		return ret;
	if (a.ret) {
		*e = a.err;
		return a.ret;
	}
	if (!is_bool(&a.confined.filtered) || !is_bool(&a.confined.locked))
		return gone(e, "talks nonsense (start)");
	n->confined = a.confined.filtered;
	n->locked = a.confined.locked;
	return 0;
}

int negotiator_start(struct negotiator *n, const struct settings *settings,
		     const struct negotiator_params *p, struct err *e)
{
	unsigned count = settings->server_count;
	int pair[2], ret;

	memset(n, 0, sizeof(*n));
	n->pid = -1;
	n->fd = -1;
	if (!count || count > NEGOTIATOR_SERVERS_MAX)
		return err_set(e, ERR_USAGE, EINVAL, "%u servers: 1 to %d are possible", count,
			       NEGOTIATOR_SERVERS_MAX);
	if (settings->command.count)
		return err_set(e, ERR_USAGE, EINVAL, "a command cannot be started again by itself");
	n->servers = count;
	n->replaced = settings_is_vital(settings);
	n->busy = true;
	n->due_ms = monotonic_ms() + START_MS;
	if (n->replaced)
		n->due_ms += (long long)count * settings->connect_timeout_ms;
	for (unsigned i = 0; i < count; i++) {
		n->is_unix[i] = settings->servers[i].transport == URI_UNIX;
		n->is_tls[i] = settings->servers[i].tls;
		n->is_vsock[i] = settings->servers[i].transport == URI_VSOCK;
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
		process(pair[1], settings, p);
	close(pair[1]);
	n->fd = pair[0];
	ret = await_start(n, e);
	if (ret)
		negotiator_stop(n);
	return ret;
}
