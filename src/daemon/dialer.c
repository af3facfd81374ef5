/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "daemon/dialer.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "net/blocking_child.h"
#include "net/command.h"
#include "net/dial.h"
#include "net/msg.h"
#include "net/transport.h"

enum {
	END_MS = 1000,   /* limit for a negotiator's end at the hang-up; then it is killed */
	KILLED_MS = 100, /* limit for its end then; a process that the kernel holds stays */
};

/* --- sockets that the negotiator cannot make itself ------------------------------------------- */

static int open_unix_dirs(struct dialer *d, struct err *e)
{
	const struct settings *s = d->settings;

	for (unsigned i = 0; settings_is_vital(s) && i < s->server_count; i++) {
		const struct uri *where = &s->servers[i];
		char dir[sizeof(where->path)];

		if (!transport_of(where)->by_path)
			continue;
		memcpy(dir, where->path, sizeof(dir));
		strrchr(dir, '/')[1] = '\0';
		d->unix_dirs[i] = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (d->unix_dirs[i] < 0)
			return err_sys(e, ERR_FAILED, errno, "open directory %s", dir);
	}
	return 0;
}

/* From its directory where that is open: the path may be gone by now. */
static int connect_by_path(const struct dialer *d, struct err *e)
{
	const char *path = d->settings->servers[d->server].path;
	const int dir = d->unix_dirs[d->server];
	int fd;

	if (dir < 0)
		return dial_unix(path, e);
	if (fchdir(dir))
		return err_sys(e, ERR_FAILED, errno, "change to the directory of %s", path);
	fd = dial_unix(strrchr(path, '/') + 1, e);
	/* A working directory keeps a file system busy. */
	if (fd >= 0 && chdir("/")) {
		close(fd);
		return err_sys(e, ERR_FAILED, errno, "change to /");
	}
	return fd;
}

static int start_server(struct dialer *d, struct err *e)
{
	char endpoint[512];
	int fd = command_start_server(&d->settings->command, &d->command, &d->command_log, e);

	if (fd >= 0)
		return fd;
	settings_endpoint(d->settings, d->server, endpoint, sizeof(endpoint));
	return err_wrap(e, "%s", endpoint);
}

/* Fewer than wanted may do, one must be. What was made is the caller's also after an error. */
static int make_sockets(struct dialer *d, int *fds, unsigned *count, struct err *e)
{
	const unsigned wanted = d->goal == NEG_GOAL_GO && d->multi.wanted ? d->multi.wanted : 1;
	int fd;

	if (d->settings->command.count) {
		fds[0] = start_server(d, e);
		*count = fds[0] >= 0;
		return fds[0] < 0 ? fds[0] : 0;
	}
	if (!transport_of(&d->settings->servers[d->server])->by_path)
		return 0;
	while (*count < wanted && *count < PLAN_CONNECTIONS_MAX) {
		fd = connect_by_path(d, e);
		if (fd < 0)
			return *count && d->multi.automatic ? 0 : fd;
		fds[(*count)++] = fd;
	}
	return 0;
}

/* --- the negotiator's life -------------------------------------------------------------------- */

/* Reaps those that have ended. True when all have. */
static bool reap_killed(struct dialer *d)
{
	bool all = true;

	for (unsigned i = 0; i < DIALER_KILLED_MAX; i++) {
		if (d->killed[i] && waitpid(d->killed[i], NULL, WNOHANG))
			d->killed[i] = 0;
		all &= !d->killed[i];
	}
	return all;
}

static bool reap_all(struct dialer *d, int limit_ms)
{
	bool all = reap_killed(d);

	while (!all && limit_ms-- > 0) {
		poll(NULL, 0, 1);
		all = reap_killed(d);
	}
	return all;
}

/* Room for one more process to be reaped, or NULL. */
static pid_t *find_room(struct dialer *d)
{
	reap_killed(d);
	for (unsigned i = 0; i < DIALER_KILLED_MAX; i++)
		if (!d->killed[i])
			return &d->killed[i];
	return NULL;
}

/* Also what it has started, but for relays. It may not have made itself a group yet. */
static void kill_process(pid_t pid)
{
	kill(pid, SIGKILL);
	kill(-pid, SIGKILL);
}

/* Nobody waits for its end, which the kernel can put off. */
static void kill_negotiator(struct dialer *d)
{
	pid_t pid = negotiator_hang_up(&d->negotiator);

	if (!pid)
		return;
	kill_process(pid);
	/* There is room, or this one had not been started. */
	*find_room(d) = pid;
}

static void end_hung(struct dialer *d)
{
	if (!negotiator_replace(&d->negotiator))
		kill_negotiator(d);
}

static int start_negotiator(struct dialer *d, struct err *e)
{
	const struct settings *s = d->settings;
	/* For a vital device it looks up all names. */
	const unsigned lookups = settings_is_vital(s) ? s->server_count : 0;

	if (!find_room(d))
		return err_set(e, ERR_FAILED, EBUSY,
			       "%d processes that talk to servers were killed and have not ended",
			       DIALER_KILLED_MAX);
	d->start_due =
		monotonic_ms() + DIALER_START_MS + lookups * (long long)s->connect_timeout_ms;
	return negotiator_spawn(&d->negotiator, s, &d->params, e);
}

/* --- questions -------------------------------------------------------------------------------- */

static void end_command(struct dialer *d)
{
	command_end(&d->command, &d->command_log);
}

static void fail_question(struct dialer *d, const struct err *e)
{
	if (d->state == DIALER_IDLE)
		return;
	d->state = DIALER_FAILED;
	d->failure = *e;
}

static int set_not_started(struct err *e)
{
	return err_set(e, ERR_FAILED, ETIMEDOUT,
		       "the process that talks to servers has not started in time");
}

/* The question's time is over. */
static void give_up_question(struct dialer *d)
{
	struct err e;

	if (d->state == DIALER_STARTING) {
		set_not_started(&e);
	} else {
		err_set(&e, ERR_FAILED, ETIMEDOUT,
			"the process that talks to servers did not answer in time and was ended");
		end_hung(d);
	}
	fail_question(d, &e);
}

static void send_question(struct dialer *d)
{
	const long long left = d->due - DIALER_MARGIN_MS - monotonic_ms();
	int fds[PLAN_CONNECTIONS_MAX], ret;
	unsigned count = 0;
	struct err e;

	if (left <= 0) {
		give_up_question(d);
		return;
	}
	ret = make_sockets(d, fds, &count, &e);
	if (!ret)
		ret = negotiator_ask(&d->negotiator, d->server, d->goal, &d->multi, (unsigned)left,
				     fds, count, &e);
	msg_close_fds(fds, count);
	if (ret == -EPIPE)
		end_hung(d);
	if (ret)
		fail_question(d, &e);
	else
		d->state = DIALER_ASKED;
}

/* What fails at a start is no matter of the server that is asked, whatever its kind. */
static void take_start(struct dialer *d, int ret, struct err *e)
{
	if (ret) {
		e->kind = ERR_FAILED;
		kill_negotiator(d);
		fail_question(d, e);
	} else if (d->state == DIALER_STARTING) {
		send_question(d);
	}
}

/* Takes what the negotiator says. True: it has done what was asked, and c is the result. */
static bool read_negotiator(struct dialer *d, struct connections *c)
{
	struct err e;
	int ret;

	switch (negotiator_read(&d->negotiator, c, &ret, &e)) {
	case NEGOTIATOR_NOTHING:
		return false;
	case NEGOTIATOR_STARTED:
		take_start(d, ret, &e);
		return false;
	case NEGOTIATOR_ANSWERED:
		if (!ret)
			return true;
		fail_question(d, &e);
		return false;
	default:
		kill_negotiator(d);
		fail_question(d, &e);
		return false;
	}
}

void dialer_ask(struct dialer *d, unsigned server, enum neg_goal goal, const struct plan_multi *m)
{
	struct connections none;
	struct err e;

	dialer_cancel(d);
	/* One that has died is not asked. */
	read_negotiator(d, &none);
	d->server = server;
	d->goal = goal;
	d->multi = m ? *m : (struct plan_multi){ 0 };
	d->due = monotonic_ms() + d->settings->connect_timeout_ms + DIALER_MARGIN_MS;
	d->state = DIALER_STARTING;
	if (d->negotiator.state == NEGOTIATOR_STARTING && monotonic_ms() >= d->start_due)
		kill_negotiator(d);
	if (d->negotiator.state == NEGOTIATOR_NONE && start_negotiator(d, &e))
		fail_question(d, &e);
	if (d->negotiator.state == NEGOTIATOR_IDLE)
		send_question(d);
}

int dialer_fd(const struct dialer *d)
{
	return d->negotiator.state == NEGOTIATOR_NONE ? -1 : d->negotiator.fd;
}

long long dialer_deadline(const struct dialer *d)
{
	switch (d->state) {
	case DIALER_IDLE:
		return -1;
	case DIALER_FAILED:
		return 0;
	default:
		return d->due;
	}
}

bool dialer_answer(struct dialer *d, struct connections *c, int *ret, struct err *e)
{
	reap_killed(d);
	if (read_negotiator(d, c)) {
		d->state = DIALER_IDLE;
		c->command = d->command;
		c->command_log = d->command_log;
		d->command = 0;
		d->command_log = -1;
		*ret = 0;
		return true;
	}
	if ((d->state == DIALER_STARTING || d->state == DIALER_ASKED) && monotonic_ms() >= d->due)
		give_up_question(d);
	if (d->state != DIALER_FAILED)
		return false;
	d->state = DIALER_IDLE;
	*e = d->failure;
	*ret = -e->code;
	if (d->command)
		command_quote(d->command_log, e);
	end_command(d);
	return true;
}

/* Waits for the negotiator until due. */
static int wait_for_negotiator(const struct dialer *d, long long due, int cancel_fd, struct err *e)
{
	const long long left = due - monotonic_ms();
	struct pollfd p[] = {
		{ .fd = dialer_fd(d), .events = POLLIN },
		{ .fd = cancel_fd, .events = POLLIN },
	};

	if (poll(p, 2, left <= 0 ? 0 : left < INT_MAX ? (int)left : INT_MAX) > 0 && p[1].revents)
		return err_set(e, ERR_FAILED, ECANCELED, "interrupted");
	return 0;
}

int dialer_wait(struct dialer *d, int cancel_fd, struct connections *c, struct err *e)
{
	int ret;

	while (!dialer_answer(d, c, &ret, e)) {
		ret = wait_for_negotiator(d, dialer_deadline(d), cancel_fd, e);
		if (!ret)
			continue;
		dialer_cancel(d);
		return ret;
	}
	return ret;
}

void dialer_cancel(struct dialer *d)
{
	negotiator_cancel(&d->negotiator);
	end_command(d);
	d->state = DIALER_IDLE;
}

/* --- begin and end ---------------------------------------------------------------------------- */

static int await_start(struct dialer *d, int cancel_fd, struct err *e)
{
	enum negotiator_event event = NEGOTIATOR_NOTHING;
	struct connections none;
	int ret = 0;

	while (!ret && event == NEGOTIATOR_NOTHING) {
		if (monotonic_ms() >= d->start_due)
			return set_not_started(e);
		ret = wait_for_negotiator(d, d->start_due, cancel_fd, e);
		if (!ret)
			event = negotiator_read(&d->negotiator, &none, &ret, e);
	}
	return event == NEGOTIATOR_BROKEN ? -e->code : ret;
}

int dialer_open(struct dialer *d, const struct settings *settings,
		const struct negotiator_params *params, int cancel_fd, struct err *e)
{
	int ret;

	memset(d, 0, sizeof(*d));
	d->settings = settings;
	d->params = *params;
	d->command_log = -1;
	for (unsigned i = 0; i < SETTINGS_SERVERS_MAX; i++)
		d->unix_dirs[i] = -1;
	ret = open_unix_dirs(d, e);
	if (!ret)
		ret = start_negotiator(d, e);
	if (!ret)
		ret = await_start(d, cancel_fd, e);
	if (ret) {
		kill_negotiator(d);
		dialer_close(d);
	}
	return ret;
}

unsigned dialer_fds(const struct dialer *d, int *fds)
{
	unsigned count = 0;

	if (!d->settings)
		return 0;
	if (dialer_fd(d) >= 0)
		fds[count++] = dialer_fd(d);
	if (d->command_log >= 0)
		fds[count++] = d->command_log;
	for (unsigned i = 0; i < SETTINGS_SERVERS_MAX; i++)
		if (d->unix_dirs[i] >= 0)
			fds[count++] = d->unix_dirs[i];
	return count;
}

void dialer_close(struct dialer *d)
{
	pid_t pid;

	if (!d->settings)
		return;
	dialer_cancel(d);
	pid = negotiator_hang_up(&d->negotiator);
	if (pid)
		*find_room(d) = pid;
	if (!reap_all(d, END_MS)) {
		for (unsigned i = 0; i < DIALER_KILLED_MAX; i++)
			if (d->killed[i])
				kill_process(d->killed[i]);
		reap_all(d, KILLED_MS);
	}
	for (unsigned i = 0; i < SETTINGS_SERVERS_MAX; i++)
		if (d->unix_dirs[i] >= 0)
			close(d->unix_dirs[i]);
	memset(d, 0, sizeof(*d));
}
