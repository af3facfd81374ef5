/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "daemon/negotiator_child.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "net/ktls.h"
#include "net/msg.h"

enum {
	CHILD_FD = 3,
	FORK_AGAIN_MS = 100, /* pause between the deaths of forked processes */
};

struct child {
	const struct settings *settings;
	struct connector *links[SETTINGS_SERVERS_MAX];
	/* Why a server has no address for good; code 0: it has one, or is looked up each time. */
	struct err unresolved[SETTINGS_SERVERS_MAX];
};

/* Carries out one attempt. fds are used up. */
static int run_attempt(struct child *c, const struct negotiator_question *q, const int *fds,
		       unsigned count, struct connections *rs, struct err *e)
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
	struct negotiator_question q;
	struct negotiator_answer a;
	struct msg_in in = {
		.data = &q,
		.size = sizeof(q),
		.min = sizeof(q),
		.max = sizeof(q),
		.fds = fds,
		.fds_max = NEGOTIATOR_CONNECTED_MAX,
	};

	while (!msg_receive(CHILD_FD, &in, -1)) {
		if (q.cancel || q.server >= c->settings->server_count) {
			msg_close_fds(fds, in.count);
			continue;
		}
		memset(&a, 0, sizeof(a));
		a.number = q.number;
		a.ret = run_attempt(c, &q, fds, in.count, &a.connections, &a.err);
		if (msg_send(CHILD_FD, &a, sizeof(a), a.connections.fds, a.connections.count, -1)) {
			connections_close(&a.connections, false);
			break;
		}
		connections_close(&a.connections, true);
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

/* True when the supervisor has closed its end; waits for that for a moment. */
static bool is_abandoned(void)
{
	struct pollfd p = { .fd = CHILD_FD };

	return poll(&p, 1, FORK_AGAIN_MS) > 0;
}

/*
 * Where no file can be read any more, the process that has the keys and addresses talks to nobody.
 * It forks one that does, and another one when that has ended, until the supervisor is gone. What
 * was asked meanwhile waits in the socket. The supervisor ends a forked one that hangs by SIGALRM
 * to both.
 */
static void answer_by_forks(struct child *c)
{
	const struct negotiator_answer died = { .number = NEGOTIATOR_DIED };
	pid_t pid;

	signal(SIGALRM, SIG_IGN);
	signal(SIGCHLD, SIG_DFL);
	do {
		pid = fork();
		if (!pid) {
			signal(SIGALRM, SIG_DFL);
			signal(SIGCHLD, SIG_IGN);
			/*
			 * A fork does not inherit memory locks, mlockall(2). Where they are not
			 * permitted, this process is no worse off than others.
			 */
			mlockall(MCL_CURRENT | MCL_FUTURE);
			answer_questions(c);
			_exit(0);
		}
		while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
		if (pid > 0)
			msg_send(CHILD_FD, &died, sizeof(died), NULL, 0, -1);
	} while (!is_abandoned());
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

_Noreturn void negotiator_child_run(int fd, const struct settings *settings,
				    const struct negotiator_params *params)
{
	const bool vital = settings_is_vital(settings);
	struct sandbox sandbox = {
		.user = params->user,
		.lookups = !vital && !settings->command.count,
		.locked = vital,
		.token = has_token(settings),
		.lenient = params->lenient,
	};
	struct child c = { .settings = settings };
	struct negotiator_answer a = { 0 };

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
