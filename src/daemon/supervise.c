/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "daemon/supervise.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "config.h"
#include "daemon/control.h"
#include "daemon/driver.h"
#include "daemon/publish.h"
#include "daemon/record.h"
#include "daemon/stopper.h"
#include "kernel/nbdevent.h"
#include "kernel/sockdiag.h"
#include "kernel/sysfs.h"
#include "net/blocking_child.h"
#include "net/sockopt.h"
#include "policy/reconnect.h"

enum {
	CUT_LOOK_MS = 50, /* between two looks whether a cut connection is drained */
	REOPEN_MS = 1000, /* to the next try to open the socket for the driver's events */
	LOCK_MS = 5000,   /* an earlier supervisor of this device ends within this time */
};

/* Places of the descriptors that are polled; the connections and the candidates come behind. */
enum {
	POLL_COMMAND, /* first: an end that led to its result is seen by the same poll */
	POLL_EVENTS,
	POLL_DIALER,
	POLL_CONTROL,
	POLL_SIGNALS,
	POLL_CONNECTIONS,
	POLL_CANDIDATES = POLL_CONNECTIONS + PLAN_CONNECTIONS_MAX,
	POLL_COUNT = POLL_CANDIDATES + PLAN_CONNECTIONS_MAX,
};

/* Times are boottime_ms, -1: never. */
struct supervisor {
	const struct supervise_request *rq;
	struct attached *a; /* its connections' descriptors are our copies of the driver's */
	struct err *e;
	struct reconnect core;
	struct publication told;
	struct record record; /* pid 0: there is none */
	struct control_server control;
	struct driver driver;
	int sysfd, dirfd, signals;
	int diag; /* sockdiag_open, or -1 */

	struct pollfd polled[POLL_COUNT];
	struct connections offered; /* the candidates; descriptor -1: given away */
	uint64_t ended_candidates;  /* candidates with a told end; bits */
	bool given_up;    /* the driver has ended a connection since the last note of a loss */
	uint64_t cutting; /* connections whose CUT_DONE has not been told */
	unsigned results; /* events that an action has led to at once; bits by type */
	long long cut_look, reopen_at, watchdog_at;

	struct stopper stopper;
	bool over;
	int result;
	struct err err; /* error of the next event */
};

#define SAY(s, level, fmt, ...) \
	log_say((s)->rq->log, level, "nbd%u: " fmt, (s)->told.index, ##__VA_ARGS__)

static bool is_ready(const struct supervisor *s, unsigned place)
{
	return s->polled[place].revents;
}

static void set_ready(struct supervisor *s, unsigned place, bool ready)
{
	s->polled[place].revents = ready ? POLLIN : 0;
}

static bool is_due(long long when, long long now)
{
	return when >= 0 && now >= when;
}

/* What cannot be read says nothing. */
static bool is_ours(const struct supervisor *s)
{
	struct err ignored;
	int ret = sysfs_check_identity(s->sysfd, &s->a->identity, &ignored);

	return ret != -ENODEV && ret != -ESTALE;
}

/* --- telling others --------------------------------------------------------------------------- */

static void collect_state(struct supervisor *s)
{
	struct rc_status status;

	reconnect_status(&s->core, &status);
	publish_collect(&s->told, &status, reconnect_durable(&s->core), s->offered.peer,
			time(NULL));
}

/* A record that was taken away is not made again: a detach is under way. */
static void update_record(struct supervisor *s)
{
	struct err e;

	if (!s->record.pid || !record_is_there(s->dirfd, s->told.index))
		return;
	publish_record(&s->told, &s->record);
	settings_endpoint(s->rq->settings, s->told.durable.server, s->record.host,
			  sizeof(s->record.host));
	if (record_write_at(s->dirfd, s->told.index, &s->record, &e))
		SAY(s, LOG_LEVEL_WARNING, "%s", e.text);
}

static void carry_out_publish(struct supervisor *s, const struct rc_action *a)
{
	char text[PUBLISH_TEXT_MAX];

	(void)a;
	collect_state(s);
	update_record(s);
	publish_status(&s->told, text);
	notify_say(s->rq->notify, "STATUS=%s", text);
}

static void carry_out_note(struct supervisor *s, const struct rc_action *a)
{
	char text[PUBLISH_TEXT_MAX];
	enum log_level level;

	/* Only now is it certain that it is no disconnection, which looks the same. */
	if (a->note == RC_NOTE_LOST) {
		publish_cause(&s->told, s->given_up ? s->a->plan.timeout_s : 0, time(NULL));
		s->given_up = false;
	}
	level = publish_note(&s->told, a, text);
	log_say(s->rq->log, level, "%s", text);
}

static void reply(struct supervisor *s, unsigned client, const struct err *e)
{
	struct control_answer answer;

	collect_state(s);
	publish_answer(&s->told, e, &answer);
	control_reply(&s->control, client, &answer);
}

static void carry_out_reply(struct supervisor *s, const struct rc_action *a)
{
	reply(s, a->client, a->err);
}

static void carry_out_hand_over(struct supervisor *s, const struct rc_action *a)
{
	struct control_answer answer;
	int fds[PLAN_CONNECTIONS_MAX];
	unsigned count = 0;

	collect_state(s);
	publish_answer(&s->told, NULL, &answer);
	for (unsigned i = 0; i < s->told.connections; i++)
		if (s->a->connections.fds[i] >= 0)
			fds[count++] = s->a->connections.fds[i];
	control_hand_over(&s->control, a->client, &answer, fds, count);
}

/* --- connections ------------------------------------------------------------------------------ */

static void store_connection(const struct supervisor *s, unsigned i)
{
	char name[NOTIFY_NAME_MAX + 1];

	takeover_stored_name(&s->a->identity, i, name);
	if (s->a->connections.fds[i] >= 0)
		notify_store(s->rq->notify, name, s->a->connections.fds[i]);
}

static void close_socket(int *fd)
{
	if (*fd >= 0)
		sockopt_close(*fd);
	*fd = -1;
}

static void cut_socket(const struct supervisor *s, int fd)
{
	struct err ignored;

	sockopt_cut(fd, &ignored);
	if (s->diag >= 0 && !sockopt_is_drained(fd))
		sockdiag_destroy(s->diag, fd, &ignored);
}

static void carry_out_cut(struct supervisor *s, const struct rc_action *a)
{
	char name[NOTIFY_NAME_MAX + 1];

	cut_socket(s, s->a->connections.fds[a->conn]);
	takeover_stored_name(&s->a->identity, a->conn, name);
	notify_unstore(s->rq->notify, name);
	s->cutting |= UINT64_C(1) << a->conn;
	s->cut_look = 0;
}

static bool next_cut(struct supervisor *s, struct rc_event *ev)
{
	long long now = boottime_ms();

	if (!s->cutting || now < s->cut_look)
		return false;
	for (unsigned i = 0; i < s->told.connections; i++) {
		if (!(s->cutting & UINT64_C(1) << i) ||
		    !sockopt_is_drained(s->a->connections.fds[i]))
			continue;
		s->cutting &= ~(UINT64_C(1) << i);
		close_socket(&s->a->connections.fds[i]);
		*ev = (struct rc_event){ .type = RC_CUT_DONE, .conn = i };
		return true;
	}
	s->cut_look = now + CUT_LOOK_MS;
	return false;
}

static void carry_out_install(struct supervisor *s, const struct rc_action *a)
{
	int *candidate = &s->offered.fds[a->candidate];

	s->a->connections.fds[a->conn] = *candidate;
	*candidate = -1;
	store_connection(s, a->conn);
}

static void carry_out_drop(struct supervisor *s, const struct rc_action *a)
{
	cut_socket(s, s->offered.fds[a->candidate]);
	close_socket(&s->offered.fds[a->candidate]);
}

/* The next socket of count from place on that poll has found ended and that is so; -1: none. */
static int next_ended(struct supervisor *s, unsigned place, const int *fds, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		if (!is_ready(s, place + i))
			continue;
		set_ready(s, place + i, false);
		/* An action may have changed the descriptor since. */
		if (fds[i] >= 0 && sockopt_is_dead(fds[i]))
			return (int)i;
	}
	return -1;
}

static bool next_ended_connection(struct supervisor *s, struct rc_event *ev)
{
	int i;

	while ((i = next_ended(s, POLL_CONNECTIONS, s->a->connections.fds, s->told.connections)) >=
	       0) {
		if (s->cutting & UINT64_C(1) << i)
			continue;
		s->given_up |= sockopt_was_given_up(s->a->connections.fds[i], s->a->plan.timeout_s);
		*ev = (struct rc_event){ .type = RC_SOCKET_ENDED, .conn = (unsigned)i };
		return true;
	}
	return false;
}

static bool next_ended_candidate(struct supervisor *s, struct rc_event *ev)
{
	int i = next_ended(s, POLL_CANDIDATES, s->offered.fds, s->offered.count);

	if (i < 0)
		return false;
	s->ended_candidates |= UINT64_C(1) << i;
	*ev = (struct rc_event){ .type = RC_CANDIDATE_ENDED, .candidate = (unsigned)i };
	return true;
}

/* --- dialing ---------------------------------------------------------------------------------- */

static void carry_out_dial(struct supervisor *s, const struct rc_action *a)
{
	struct plan_multi multi = s->rq->settings->multi;

	if (!is_ours(s)) {
		s->results |= 1U << RC_DETACHED;
		return;
	}
	multi.wanted = a->count;
	multi.automatic = true;
	dialer_ask(&s->a->dialer, a->server, a->count ? NEG_GOAL_GO : NEG_GOAL_INFO, &multi);
}

static void carry_out_cancel_dial(struct supervisor *s, const struct rc_action *a)
{
	(void)a;
	dialer_cancel(&s->a->dialer);
}

static bool next_answer(struct supervisor *s, struct rc_event *ev)
{
	struct dialer *d = &s->a->dialer;
	struct err ignored;
	int ret;

	if (!is_ready(s, POLL_DIALER) && !is_due(dialer_deadline(d), monotonic_ms()))
		return false;
	set_ready(s, POLL_DIALER, false);
	if (!dialer_answer(d, &s->offered, &ret, &s->err))
		return false;
	*ev = (struct rc_event){ .type = RC_DIAL_DONE, .ret = ret };
	s->ended_candidates = 0;
	if (ret) {
		s->offered.count = 0;
		ev->err = &s->err;
		return true;
	}
	/* Where it is not permitted the system's own will do. */
	for (unsigned i = 0; i < s->offered.count; i++)
		sockopt_set_send_room(s->offered.fds[i], SOCKOPT_SEND_ROOM, &ignored);
	ev->count = s->offered.count;
	ev->export = &s->offered.export;
	ev->kernel_tls = s->offered.encrypted && !s->offered.relayed;
	return true;
}

/* --- commands for the kernel ------------------------------------------------------------------ */

static void carry_out_command(struct supervisor *s, const struct rc_action *a)
{
	const struct driver_command c = {
		.type = a->type,
		.fd = a->type == RC_OFFER ? s->offered.fds[a->candidate] : -1,
		.size = a->size,
	};

	if (driver_submit(&s->driver, &s->a->identity, &c, &s->err))
		s->results |= 1U << RC_COMMAND_DONE;
}

static bool next_command(struct supervisor *s, struct rc_event *ev)
{
	struct driver_command c;

	if (!is_ready(s, POLL_COMMAND))
		return false;
	set_ready(s, POLL_COMMAND, false);
	if (!driver_collect(&s->driver, &c))
		return false;
	s->err = c.err;
	*ev = (struct rc_event){
		.type = RC_COMMAND_DONE,
		.result = c.result,
		.taken = c.taken,
		.err = &s->err,
	};
	return true;
}

/* --- events of the driver, results that are there at once ------------------------------------- */

static void carry_out_read_traffic(struct supervisor *s, const struct rc_action *a)
{
	(void)a;
	s->results |= 1U << (is_ours(s) ? RC_TRAFFIC : RC_DETACHED);
}

static bool next_result(struct supervisor *s, struct rc_event *ev)
{
	struct sysfs_traffic t = { 0 };
	unsigned type = 0;

	if (!s->results)
		return false;
	while (!(s->results & 1U << type))
		type++;
	s->results &= ~(1U << type);
	*ev = (struct rc_event){ .type = type, .lost = true, .err = &s->err };
	if (type == RC_COMMAND_DONE)
		ev->result = RC_FAILED;
	if (type == RC_TRAFFIC) {
		ev->ret = sysfs_traffic(s->sysfd, s->told.index, &t, &s->err);
		ev->requests = t.requests;
		ev->bytes = t.bytes;
		ev->in_flight = t.inflight;
	}
	return true;
}

/* Anything may be missed until it is open again. */
static void reopen_events(struct supervisor *s)
{
	struct err ignored;

	if (s->a->events >= 0)
		close(s->a->events);
	s->a->events = nbdevent_open(&ignored);
	s->reopen_at = s->a->events < 0 ? boottime_ms() + REOPEN_MS : -1;
	if (s->a->events >= 0)
		s->results |= 1U << RC_LINK_DEAD;
}

static bool next_notice(struct supervisor *s, struct rc_event *ev)
{
	uint32_t index;
	int event;

	if (!is_ready(s, POLL_EVENTS))
		return false;
	while ((event = nbdevent_read(s->a->events, &index, &s->err)) == NBDEVENT_DEAD)
		if (index == s->told.index) {
			*ev = (struct rc_event){ .type = RC_LINK_DEAD };
			return true;
		}
	set_ready(s, POLL_EVENTS, event == NBDEVENT_LOST);
	*ev = (struct rc_event){ .type = RC_LINK_DEAD, .lost = true };
	if (event >= 0)
		return event == NBDEVENT_LOST;
	SAY(s, LOG_LEVEL_WARNING, "%s", s->err.text);
	reopen_events(s);
	return false;
}

/* --- clients ---------------------------------------------------------------------------------- */

/* Those that the core answers. */
static const int requests[CONTROL_COMMANDS] = {
	[CONTROL_STATUS] = -1,
	[CONTROL_RECHECK] = -1,
	[CONTROL_ABORT] = RC_ASK_ABORT,
	[CONTROL_PAUSE] = RC_ASK_PAUSE,
	[CONTROL_RESUME] = RC_ASK_RESUME,
	[CONTROL_RESCAN] = RC_ASK_RESCAN,
	[CONTROL_HAND_OVER] = RC_ASK_HAND_OVER,
};

static bool next_request(struct supervisor *s, struct rc_event *ev)
{
	struct control_event c;

	while (control_next(&s->control, &c)) {
		*ev = (struct rc_event){ .client = c.client, .ret = c.ret };
		if (c.type == CONTROL_ASKED && requests[c.command] < 0) {
			if (c.command == CONTROL_RECHECK && !is_ours(s))
				s->results |= 1U << RC_DETACHED;
			reply(s, c.client, NULL);
			continue;
		}
		if (c.type == CONTROL_ASKED)
			ev->request = (enum rc_request)requests[c.command];
		ev->type = c.type == CONTROL_ASKED ? RC_CLIENT :
			   c.type == CONTROL_GONE  ? RC_CLIENT_GONE :
						     RC_HANDED_OVER;
		return true;
	}
	return false;
}

/* --- signals, the end ------------------------------------------------------------------------- */

static void reap_detacher(struct supervisor *s)
{
	if (!stopper_reap(&s->stopper))
		return;
	if (is_ours(s))
		stopper_refused(&s->stopper);
	else
		s->results |= 1U << RC_DETACHED;
}

static void take_signals(struct supervisor *s)
{
	struct signalfd_siginfo si;

	while (read(s->signals, &si, sizeof(si)) == (ssize_t)sizeof(si)) {
		if (si.ssi_signo == SIGCHLD)
			reap_detacher(s);
		else if (s->rq->deaf)
			SAY(s, LOG_LEVEL_NOTICE,
			    "asked to stop by a signal, and stays: --detach ends it");
		else
			stopper_start(&s->stopper);
	}
}

static void carry_out_end(struct supervisor *s, const struct rc_action *a)
{
	s->over = true;
	s->result = a->ret;
	if (a->err)
		*s->e = *a->err;
}

/* --- the loop --------------------------------------------------------------------------------- */

static void (*const actions[])(struct supervisor *s, const struct rc_action *a) = {
	[RC_DIAL] = carry_out_dial,       [RC_CANCEL_DIAL] = carry_out_cancel_dial,
	[RC_OFFER] = carry_out_command,   [RC_PROBE] = carry_out_command,
	[RC_RESIZE] = carry_out_command,  [RC_DISCONNECT] = carry_out_command,
	[RC_INSTALL] = carry_out_install, [RC_DROP] = carry_out_drop,
	[RC_CUT] = carry_out_cut,         [RC_READ_TRAFFIC] = carry_out_read_traffic,
	[RC_REPLY] = carry_out_reply,     [RC_HAND_OVER] = carry_out_hand_over,
	[RC_NOTE] = carry_out_note,       [RC_PUBLISH] = carry_out_publish,
	[RC_END] = carry_out_end,
};

static bool next_tick(struct supervisor *s, struct rc_event *ev)
{
	*ev = (struct rc_event){ .type = RC_TICK };
	return is_due(reconnect_deadline(&s->core), boottime_ms());
}

/* Sockets stand before commands: a slot that took a candidate may be that of one that has ended. */
static bool (*const sources[])(struct supervisor *s, struct rc_event *ev) = {
	next_result,          next_cut,     next_ended_connection,
	next_ended_candidate, next_notice,  next_command,
	next_answer,          next_request, next_tick,
};

static bool next_event(struct supervisor *s, struct rc_event *ev)
{
	for (size_t i = 0; i < sizeof(sources) / sizeof(sources[0]); i++)
		if (sources[i](s, ev))
			return true;
	return false;
}

/* What concerns the process and not the connections. */
static void attend_process(struct supervisor *s)
{
	long long now = boottime_ms();

	if (is_ready(s, POLL_SIGNALS))
		take_signals(s);
	set_ready(s, POLL_SIGNALS, false);
	if (is_due(s->stopper.due_ms, now))
		stopper_start(&s->stopper);
	if (is_due(s->reopen_at, now))
		reopen_events(s);
	if (is_due(s->watchdog_at, now)) {
		notify_say(s->rq->notify, "WATCHDOG=1");
		s->watchdog_at = now + s->rq->notify->watchdog_ms;
	}
}

static int poll_timeout(const struct supervisor *s)
{
	const long long due[] = {
		reconnect_deadline(&s->core),
		control_deadline(&s->control),
		s->cutting ? s->cut_look : -1,
		s->reopen_at,
		s->watchdog_at,
		s->stopper.due_ms,
	};
	long long now = boottime_ms(), dial = dialer_deadline(&s->a->dialer);
	long long left = s->results ? 0 : dial < 0 ? INT_MAX : dial - monotonic_ms();

	for (size_t i = 0; i < sizeof(due) / sizeof(due[0]); i++)
		if (due[i] >= 0 && due[i] - now < left)
			left = due[i] - now;
	return left < 0 ? 0 : left == INT_MAX ? -1 : (int)left;
}

static void poll_sources(struct supervisor *s)
{
	struct pollfd *p = s->polled;

	p[POLL_COMMAND].fd = driver_fd(&s->driver);
	p[POLL_EVENTS].fd = s->a->events;
	p[POLL_DIALER].fd = dialer_fd(&s->a->dialer);
	p[POLL_CONTROL].fd = control_fd(&s->control);
	p[POLL_SIGNALS].fd = s->signals;
	for (unsigned i = 0; i < POLL_CONNECTIONS; i++)
		p[i].events = POLLIN;
	for (unsigned i = 0; i < PLAN_CONNECTIONS_MAX; i++) {
		bool cut = s->cutting & UINT64_C(1) << i;
		bool ended = s->ended_candidates & UINT64_C(1) << i;

		p[POLL_CONNECTIONS + i].fd =
			i < s->told.connections && !cut ? s->a->connections.fds[i] : -1;
		p[POLL_CANDIDATES + i].fd = i < s->offered.count && !ended ? s->offered.fds[i] : -1;
		p[POLL_CONNECTIONS + i].events = p[POLL_CANDIDATES + i].events = POLLRDHUP;
	}
	if (poll(p, POLL_COUNT, poll_timeout(s)) < 0)
		for (unsigned i = 0; i < POLL_COUNT; i++)
			p[i].revents = 0;
}

static void supervise(struct supervisor *s)
{
	struct rc_action action;
	struct rc_event ev;

	while (!s->over) {
		while (!s->over && reconnect_action(&s->core, &action))
			actions[action.type](s, &action);
		if (s->over)
			break;
		if (next_event(s, &ev)) {
			reconnect_event(&s->core, &ev, boottime_ms());
			continue;
		}
		poll_sources(s);
		attend_process(s);
	}
}

/* --- begin and end ---------------------------------------------------------------------------- */

/* The supervisor of an earlier attachment may not have noticed yet that that one has ended. */
static int await_lock(struct supervisor *s)
{
	const unsigned index = s->a->identity.index;
	long long end = boottime_ms() + LOCK_MS;
	struct control_answer answer;
	struct err ignored;

	while (s->a->lock < 0) {
		s->a->lock = record_lock(s->dirfd, index, s->e);
		if (s->a->lock != -EBUSY || boottime_ms() >= end)
			break;
		control_ask(NBD_ATTACH_STATEDIR, index, CONTROL_RECHECK, LOCK_MS, &answer, NULL,
			    NULL, &ignored);
		poll(NULL, 0, 20);
	}
	return s->a->lock < 0 ? s->a->lock : 0;
}

static int open_signals(struct supervisor *s)
{
	sigset_t set;

	/* The end of a session is none of a device. */
	signal(SIGHUP, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	s->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return s->signals < 0 ? err_sys(s->e, ERR_FAILED, errno, "signals") : 0;
}

static int open_all(struct supervisor *s)
{
	const unsigned index = s->a->identity.index;
	struct err ignored;
	int ret;

	s->dirfd = record_open(NBD_ATTACH_STATEDIR, s->e);
	if (s->dirfd < 0)
		return s->dirfd;
	ret = await_lock(s);
	if (ret)
		return ret;
	if (record_read_at(s->dirfd, index, &s->record, &ignored))
		s->record.pid = 0;
	s->record.settings = s->rq->settings;
	ret = control_open(&s->control, NBD_ATTACH_STATEDIR, index, s->e);
	if (ret)
		return ret;
	s->sysfd = sysfs_open("/sys", s->e);
	if (s->sysfd < 0)
		return s->sysfd;
	ret = open_signals(s);
	if (!ret)
		ret = driver_open(&s->driver, s->e);
	if (s->rq->settings->servers[0].tls)
		s->diag = sockdiag_open(&ignored);
	return ret;
}

/* Records that the whole device has had so far, so that no connection has had more. */
static uint64_t count_records(const struct supervisor *s)
{
	struct sysfs_traffic t;
	struct err ignored;

	return sysfs_traffic(s->sysfd, s->told.index, &t, &ignored) ?
		       0 :
		       plan_records(t.requests, t.bytes);
}

static void start_core(struct supervisor *s)
{
	const struct takeover_result *adopted = s->rq->adopted;
	const struct attached *a = s->a;
	const struct connections *c = &a->connections;
	long long now = boottime_ms();
	struct rc_config config = {
		.connections = c->count,
		.servers = s->rq->settings->server_count,
		.request_timeout_s = a->plan.timeout_s,
		.reconnect_timeout_s = s->rq->settings->supervision.reconnect_timeout_s,
		.fence_delay_s = settings_fence_delay(s->rq->settings),
		.tls_renew = s->rq->settings->tls.renew,
		.plan = &a->plan,
		.export_name = c->export.has_name ? c->export.name : "",
		.seed = (uint32_t)now,
		.durable = {
			.server = a->server,
			.fenced_until = RC_NEVER,
			.size = a->plan.size,
		},
	};
	struct rc_conn conn = {
		.kernel_tls = adopted ? adopted->kernel_tls : c->encrypted && !c->relayed,
		.since = now,
		.size = a->plan.size,
		.records = adopted ? 0 : count_records(s),
	};

	config.durable.server_size[a->server] = a->plan.size;
	if (adopted)
		config.durable = adopted->durable;
	for (unsigned i = 0; i < c->count; i++) {
		conn.state = c->fds[i] >= 0 ? RC_UP : adopted ? adopted->unknown : RC_UNWATCHED;
		config.conn[i] = conn;
		store_connection(s, i);
	}
	if (getrandom(&config.seed, sizeof(config.seed), GRND_NONBLOCK) < 0)
		config.seed ^= (uint32_t)getpid();
	reconnect_init(&s->core, &config, now);
	if (adopted && adopted->suspect)
		s->results |= 1U << RC_LINK_DEAD;
}

static void finish(struct supervisor *s)
{
	const unsigned index = s->told.index;
	struct err ignored;

	notify_say(s->rq->notify, "STOPPING=1");
	for (unsigned i = 0; i < s->offered.count; i++)
		close_socket(&s->offered.fds[i]);
	for (unsigned i = 0; i < s->told.connections; i++)
		close_socket(&s->a->connections.fds[i]);
	control_close(&s->control, s->dirfd, index);
	if (s->a->lock >= 0) {
		if (s->sysfd >= 0 && !is_ours(s) &&
		    !record_read_at(s->dirfd, index, &s->record, &ignored) &&
		    s->record.supervisor == s->told.pid)
			record_remove_at(s->dirfd, index);
		record_unlock(s->dirfd, index, s->a->lock);
		s->a->lock = -1;
	}
	driver_close(&s->driver);
	for (int *fd = (int[]){ s->signals, s->sysfd, s->dirfd, s->diag, INT_MIN }; *fd != INT_MIN;
	     fd++)
		if (*fd >= 0)
			close(*fd);
	attached_close(s->a, true);
}

int supervise_run(const struct supervise_request *rq, struct attached *a, struct err *e)
{
	struct supervisor *s = calloc(1, sizeof(*s));
	int ret;

	if (!s) {
		attached_close(a, true);
		return err_sys(e, ERR_FAILED, ENOMEM, "supervise nbd%u", a->identity.index);
	}
	s->rq = rq;
	s->a = a;
	s->e = e;
	s->sysfd = s->dirfd = s->signals = s->diag = s->driver.sysfd = -1;
	s->control.listener = s->control.epoll = -1;
	s->reopen_at = s->watchdog_at = -1;
	/* A manager that has asked for the end waits for it. Others look at the answer. */
	s->stopper = (struct stopper){
		.index = a->identity.index,
		.persistent = rq->notify && rq->notify->fd >= 0,
		.log = rq->log,
		.due_ms = -1,
	};
	s->told = (struct publication){
		.index = a->identity.index,
		.connections = a->connections.count,
		.pid = getpid(),
		.earlier = rq->adopted ? rq->adopted->reconnects : 0,
		.reconnects = rq->adopted ? rq->adopted->reconnects : 0,
	};
	memcpy(s->told.peer, a->connections.peer, sizeof(s->told.peer));
	ret = open_all(s);
	if (!ret && rq->started)
		ret = rq->started(rq->ctx, e);
	if (!ret) {
		start_core(s);
		notify_say(rq->notify, "READY=1");
		if (rq->notify && rq->notify->watchdog_ms)
			s->watchdog_at = 0;
		supervise(s);
		ret = s->result;
	}
	finish(s);
	free(s);
	return ret;
}
