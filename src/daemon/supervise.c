/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "config.h"
#include "daemon/control.h"
#include "daemon/detach.h"
#include "kernel/blocking_thread.h"
#include "kernel/nbdevent.h"
#include "kernel/nbdnl.h"
#include "daemon/record.h"
#include "net/sockopt.h"
#include "net/dial.h"
#include "net/transport.h"
#include "kernel/sysfs.h"
#include "net/blocking_child.h"

enum {
	FIRST_ATTEMPT_MS = 20,
	NOTICE_MS = 300, /* the kernel's notice of a death comes within that, or never */
	STEADY_MS =
		300,   /* a connection that does not last so long is not worth a new one at once */
	AGAIN_MS = 20, /* after an offer that the kernel has dropped */
	DOUBT_OFFERS = 50,  /* that are dropped until it is believed that there is no place */
	GROW_MS = 3000,     /* requests that were lost have been sent again by then */
	SILENCE_MS = 20000, /* of a server in a detach */
	STOP_AGAIN_MS = 1000,
	CLIENT_MS = 30000, /* that a client waits */
	LOG_EVERY = 20,    /* attempts that fail in the same way */
	QUIET_MS =
		3000, /* that a moment without requests is waited for, to cut a connection that is renewed, */
	PAUSE_MS = 1000,       /* and of that, one in a pause between them */
	GROW_QUIET_MS = 20000, /* the same, to grow */
	QUIET_LOOK_MS = 5,
	RENEW_AGAIN_MS = 60000, /* after an attempt that failed */
	COMMAND_MS = 10000,     /* that the kernel takes for a command until it is told */
};

/* With a timeout the kernel marks a socket that it takes; without, it is offered at these times, which covers a slow one. */
static const unsigned offer_again_ms[] = { 20, 100, 500 };
enum { OFFERS_BLIND = 1 + sizeof(offer_again_ms) / sizeof(offer_again_ms[0]) };

enum job { JOB_OFFER, JOB_PROBE, JOB_RESIZE, JOB_GIVE_UP };

/* One command for the kernel, as a kcall's block. */
struct command {
	enum job job;
	struct nbdnl *nl;
	unsigned index;
	char backend[PLAN_BACKEND_MAX + 1];
	int fd;
	uint64_t size;
	int ret;
	struct err err;
};
_Static_assert(sizeof(struct command) <= BLOCKING_THREAD_BLOCK_MAX, "fits a blocking thread");

struct slot {
	int fd; /* our copy of the kernel's; -1: dead, or not known */
	bool dead;
	bool doubtful; /* nobody knows whether it is: one is offered, and seen whether it is taken */
	bool untold; /* that it is: it may be a detach, which takes the connections away before the device */
	long long since; /* it is dead, or alive */
	bool kernel_tls;
	uint64_t records; /* of the device when it began */
	uint64_t size;    /* of the export, as the server said then: it answers no request beyond */
};

/* A moment without requests is waited for. */
struct quiet {
	long long until; /* then any will do; 0: nobody waits */
	unsigned looks;
	uint64_t finished; /* requests, at the last of them */
};

/* A connection that is made and not the kernel's yet. */
struct offer {
	int fd; /* -1: none */
	unsigned slot;
	unsigned times;
	long long due;
	uint64_t grown;
	bool kernel_tls;
	struct quiet
		quiet; /* it replaces one that lives, which is cut then; until 0: the other one is dead */
};

/* Who waits for an answer, for one thing at a time. */
struct client {
	int fd; /* -1: nobody */
	enum control_command command;
	long long deadline;
};

struct supervisor {
	const struct supervise_request *rq;
	struct negotiator *n;
	struct nbdnl *nl;
	struct blocking_thread *kcall;
	int events, sysfd, records, listener, signals;
	int unix_dirs
		[NEGOTIATOR_SERVERS_MAX]; /* of servers' sockets, where paths may be gone one day; else -1 */
	bool calling;                     /* a kcall is under way */
	long long call_due;               /* when that is told, as it hangs; -1: it has been */
	bool over;
	int result;
	struct err *e;

	struct slot slots[PLAN_CONNECTIONS_MAX];
	unsigned notices; /* of deaths, that no replacement has answered */
	bool unnoticed;   /* one is dead without, and the next attempt waits for it */
	unsigned flaps;   /* connections in turn that did not last */
	long long
		unexplained; /* a notice without a death that we can see: when to look again, 0: none */
	long long lost_since; /* the first of those that are dead now */
	uint64_t size;

	unsigned server;        /* in use, or tried */
	unsigned tried;         /* in this round over all servers */
	unsigned rounds;        /* that failed */
	long long due;          /* the next attempt; -1: none */
	bool rescanning;        /* what the negotiator does is for a client */
	int renewing;           /* it is for this slot, whose connection lives; -1: no */
	long long look_due;     /* at the records; -1: they do not matter */
	unsigned fenced_server; /* fell silent, */
	long long fenced_until; /* so that others have to wait until then */
	struct offer offer;
	uint64_t grow_to; /* once all connections know it */
	long long grow_due;
	struct quiet grow_quiet;
	long long renew_due; /* of those that do not, by new ones */

	bool paused;
	struct client client;
	pid_t detacher;
	int detacher_fd;
	bool refused;       /* the detach was, and that has been told */
	long long stop_due; /* when to try once more; -1: not at all */
	uint32_t reconnects;
	long long watchdog_due; /* -1: nobody wants to know whether we are alive */
	char peer[80];
	char last_error[512];
	int64_t error_time;
	unsigned same_errors;

	/* here because there may be no memory later */
	struct record record; /* pid 0: there is none */
	struct connections answer;
};

#define SAY(s, level, fmt, ...) \
	log_say((s)->rq->logger, level, "nbd%u: " fmt, (s)->rq->index, ##__VA_ARGS__)

static unsigned count_dead(const struct supervisor *s)
{
	unsigned dead = 0;

	for (unsigned i = 0; i < s->rq->connections; i++)
		dead += s->slots[i].dead;
	return dead;
}

static void tell_status(const struct supervisor *s)
{
	const char *peer = s->peer[0] ? s->peer : "its server";
	unsigned alive = s->rq->connections - count_dead(s);
	char text[700];

	if (!s->rq->notify)
		return;
	if (s->paused)
		snprintf(text, sizeof(text), "paused, all I/O waits");
	else if (alive == s->rq->connections)
		snprintf(text, sizeof(text), "connected to %s", peer);
	else
		snprintf(text, sizeof(text), "%u of %u connections, reconnecting%s%s", alive,
			 s->rq->connections, s->last_error[0] ? ": " : "", s->last_error);
	notify_say(s->rq->notify, "STATUS=nbd%u: %s", s->rq->index, text);
}

static void note_error(struct supervisor *s, const char *text)
{
	s->same_errors =
		strncmp(s->last_error, text, sizeof(s->last_error) - 1) ? 0 : s->same_errors + 1;
	snprintf(s->last_error, sizeof(s->last_error), "%.*s", (int)sizeof(s->last_error) - 1,
		 text);
	s->error_time = time(NULL);
}

static void format_time(int64_t seconds, char *buf, size_t cap)
{
	time_t when = (time_t)seconds;
	struct tm tm;

	buf[0] = '\0';
	if (when && gmtime_r(&when, &tm) && !strftime(buf, cap, "%Y-%m-%dT%H:%M:%SZ", &tm))
		buf[0] = '\0';
}

/* A convenience, of which nothing depends. One that was taken away is not made again: a detach is under way. */
static void update_record(struct supervisor *s)
{
	struct record *st = &s->record;
	struct err e;

	if (!st->pid || !record_is_there(s->records, s->rq->index))
		return;
	st->supervisor = getpid();
	st->reconnects = s->reconnects;
	st->connections = s->rq->connections;
	st->alive = st->connections - count_dead(s);
	memcpy(st->peer, s->peer, sizeof(st->peer));
	snprintf(st->last_error, sizeof(st->last_error), "%s", s->last_error);
	format_time(s->error_time, st->error_time, sizeof(st->error_time));
	settings_endpoint(s->rq->settings, s->server, st->host, sizeof(st->host));
	if (record_write_at(s->records, s->rq->index, st, &e))
		SAY(s, LOG_LEVEL_WARNING, "%s", e.text);
}

/* --- whether the device is still ours ------------------------------------------------------------- */

static void end(struct supervisor *s, int result)
{
	s->over = true;
	s->result = result;
}

static bool is_ours(struct supervisor *s)
{
	struct sysfs_device d;
	struct err ignored;

	/* What cannot be read says nothing. */
	return sysfs_attachment(s->sysfd, s->rq->index, &d, &ignored) ||
	       (d.attached && !strcmp(d.backend, s->rq->plan->backend));
}

static bool look(struct supervisor *s)
{
	if (!s->over && !is_ours(s)) {
		SAY(s, LOG_LEVEL_NOTICE, "detached");
		end(s, 0);
	}
	return !s->over;
}

/* --- deaths --------------------------------------------------------------------------------------- */

static void schedule(struct supervisor *s, long long when)
{
	if (!s->paused && (s->due < 0 || when < s->due))
		s->due = when;
}

static long long after_backoff(unsigned rounds, long long now)
{
	uint32_t number = 0;

	if (getrandom(&number, sizeof(number), GRND_NONBLOCK) < 0)
		number = (uint32_t)now;
	return now + plan_backoff_ms(rounds, true, number);
}

/* As soon as it is certain that one is dead. */
static void schedule_first(struct supervisor *s, long long now)
{
	long long when = after_backoff(s->flaps, now);

	if (s->unnoticed)
		s->due = -1;
	s->unnoticed = false;
	schedule(s, when > now + FIRST_ATTEMPT_MS ? when : now + FIRST_ATTEMPT_MS);
}

/* Connection i is no more, or shall be no more. */
static void lose(struct supervisor *s, unsigned i, long long now)
{
	struct slot *slot = &s->slots[i];
	bool silent = false;
	struct err ignored;

	if (slot->fd >= 0) {
		silent = sockopt_was_silent(slot->fd, s->rq->settings->peer_timeout_s);
		/* What the server has not got yet it shall never get: the kernel sends it again. */
		sockopt_cut(slot->fd, &ignored);
		close(slot->fd);
	}
	slot->fd = -1;
	if (slot->dead)
		return;
	s->flaps = now - slot->since < STEADY_MS ? s->flaps + 1 : 0;
	slot->dead = true;
	slot->since = now;
	if (!s->lost_since)
		s->lost_since = now;
	if (silent) {
		s->fenced_server = s->server;
		s->fenced_until = now + 1000LL * settings_fence_delay(s->rq->settings);
	}
	tell_status(s);
	if (s->notices) {
		schedule_first(s, now);
	} else {
		s->unnoticed = true;
		schedule(s, now + NOTICE_MS);
	}
}

/* The kernel has said so, or the time for that is over: it is no detach. */
static void tell_losses(struct supervisor *s)
{
	bool any = false;

	for (unsigned i = 0; i < s->rq->connections; i++) {
		if (s->slots[i].untold && !s->paused)
			SAY(s, LOG_LEVEL_WARNING, "connection %u of %u is lost", i + 1,
			    s->rq->connections);
		any |= s->slots[i].untold;
		s->slots[i].untold = false;
	}
	if (any)
		update_record(s);
}

static void find_dead(struct supervisor *s, long long now)
{
	for (unsigned i = 0; i < s->rq->connections; i++) {
		struct slot *slot = &s->slots[i];

		if (slot->fd < 0 || !sockopt_is_dead(slot->fd))
			continue;
		lose(s, i, now);
		slot->untold = true;
		if (s->unexplained)
			s->unexplained = 0;
	}
}

/* The kernel says that some died which we do not see: they were adopted, or it never took them. */
static void explain(struct supervisor *s, long long now)
{
	s->unexplained = 0;
	for (unsigned i = 0; i < s->rq->connections && s->notices > count_dead(s); i++) {
		if (s->slots[i].dead)
			continue;
		if (s->slots[i].fd >= 0 && s->rq->plan->timeout_s)
			continue; /* that the kernel had taken it was seen */
		SAY(s, LOG_LEVEL_WARNING, "connection %u of %u is lost, says the kernel", i + 1,
		    s->rq->connections);
		lose(s, i, now);
		/* Which one it was is the kernel's secret, and a notice that was lost may have been another device's. */
		s->slots[i].doubtful = s->rq->plan->timeout_s;
	}
}

static void hear(struct supervisor *s, long long now)
{
	uint32_t index;
	struct err e;
	int event;

	while ((event = nbdevent_read(s->events, &index, &e)) != NBDEVENT_NONE) {
		if (event < 0) {
			/* Anything may have been missed; a new descriptor may be of more use. */
			SAY(s, LOG_LEVEL_WARNING, "%s", e.text);
			close(s->events);
			s->events = nbdevent_open(&e);
			event = NBDEVENT_LOST;
		}
		if (event == NBDEVENT_DEAD && index != s->rq->index)
			continue;
		s->notices++;
		find_dead(s, now);
		if (s->unnoticed)
			schedule_first(s, now);
		tell_losses(s);
		if (s->notices > count_dead(s) && !s->unexplained)
			s->unexplained = now + NOTICE_MS;
	}
}

/* --- commands for the kernel ------------------------------------------------------------------------ */

static void do_command(void *block)
{
	struct command *c = block;

	switch (c->job) {
	case JOB_OFFER:
		c->ret = nbdnl_offer(c->nl, c->index, c->backend, c->fd, &c->err);
		break;
	case JOB_PROBE:
		c->ret = nbdnl_probe(c->nl, c->index, c->backend, &c->err);
		break;
	case JOB_RESIZE:
		c->ret = nbdnl_resize(c->nl, c->index, c->backend, c->size, &c->err);
		break;
	case JOB_GIVE_UP:
		c->ret = nbdnl_disconnect(c->nl, c->index, &c->err);
		break;
	}
}

static void submit(struct supervisor *s, enum job job, int fd, uint64_t size)
{
	struct command c = {
		.job = job,
		.nl = s->nl,
		.index = s->rq->index,
		.fd = fd,
		.size = size,
	};
	struct err e;

	memcpy(c.backend, s->rq->plan->backend, sizeof(c.backend));
	if (blocking_thread_submit(s->kcall, do_command, &c, sizeof(c), &e)) {
		SAY(s, LOG_LEVEL_ERROR, "%s", e.text);
		return;
	}
	s->calling = true;
	s->call_due = monotonic_ms() + COMMAND_MS;
}

/* Nothing else can be done for the device until it comes back; there is no way to take it back. */
static void tell_hanging(struct supervisor *s)
{
	char text[128];

	s->call_due = -1;
	snprintf(
		text, sizeof(text),
		"the kernel has not carried out a command for %d s: another one hangs, or requests "
		"that it waits for do",
		COMMAND_MS / 1000);
	note_error(s, text);
	SAY(s, LOG_LEVEL_ERROR, "%s", text);
	tell_status(s);
	update_record(s);
}

/* --- attempts ----------------------------------------------------------------------------------------- */

static void drop_offer(struct supervisor *s)
{
	struct err ignored;

	if (s->offer.fd >= 0) {
		sockopt_cut(s->offer.fd, &ignored);
		close(s->offer.fd);
	}
	s->offer.fd = -1;
}

/* --- keys do not last for ever, nor does a size --------------------------------------------------------- */

static void answer_waiting(struct supervisor *s, const struct err *e);

/* Of the whole device: no connection has carried more. What cannot be read says nothing. */
static uint64_t count_records(const struct supervisor *s)
{
	struct sysfs_traffic t;
	struct err ignored;

	return sysfs_traffic(s->sysfd, s->rq->index, &t, &ignored) ?
		       0 :
		       plan_records(t.requests, t.bytes);
}

static void begin_to_count(struct supervisor *s, unsigned i, bool kernel_tls, uint64_t records)
{
	s->slots[i].kernel_tls = kernel_tls && s->rq->settings->tls.renew;
	s->slots[i].records = records;
	if (s->slots[i].kernel_tls && s->look_due < 0)
		s->look_due = monotonic_ms() + plan_renewal_ms(s->rq->settings->tls.renew);
}

static void not_renewed(struct supervisor *s, long long now, const struct err *why)
{
	SAY(s, LOG_LEVEL_WARNING, "connection %d of %u cannot be renewed yet: %s", s->renewing + 1,
	    s->rq->connections, why->text);
	s->renewing = -1;
	s->look_due = s->renew_due = now + RENEW_AGAIN_MS;
	if (s->client.fd >= 0 && s->client.command == CONTROL_RESCAN)
		answer_waiting(s, why);
}

/* The kernel's alone, since an earlier supervisor was killed: nobody can break it. */
static bool is_unknown(const struct slot *slot)
{
	return !slot->dead && slot->fd < 0;
}

/* Whether all can be broken; "until" says what waits for that. */
static int check_known(const struct supervisor *s, const char *until, struct err *e)
{
	for (unsigned i = 0; i < s->rq->connections; i++)
		if (is_unknown(&s->slots[i]))
			return err_set(
				e, ERR_BUSY, EBUSY,
				"connection %u of %u was made by a supervisor that was killed, "
				"and cannot be broken; %s it has been lost",
				i + 1, s->rq->connections, until);
	return 0;
}

/* A connection that does not know of the growth. An NBD server says the size once, and most of them look at it once. */
static bool is_outdated(const struct supervisor *s, const struct slot *slot)
{
	return !slot->dead && s->grow_to > s->size && slot->size < s->grow_to;
}

static unsigned count_outdated(const struct supervisor *s)
{
	unsigned count = 0;

	for (unsigned i = 0; i < s->rq->connections; i++)
		count += is_outdated(s, &s->slots[i]);
	return count;
}

/* One of them that can be replaced; -1: none. */
static int first_outdated(const struct supervisor *s)
{
	for (unsigned i = 0; i < s->rq->connections; i++)
		if (is_outdated(s, &s->slots[i]) && !is_unknown(&s->slots[i]))
			return (int)i;
	return -1;
}

/* Which connection is worn out; -1: none, and when to look again. */
static int worn_out(struct supervisor *s, long long now)
{
	uint64_t limit = s->rq->settings->tls.renew, records = count_records(s), left = limit;
	bool any = false;

	for (unsigned i = 0; i < s->rq->connections; i++) {
		const struct slot *slot = &s->slots[i];
		uint64_t used = records > slot->records ? records - slot->records : 0;

		if (!slot->kernel_tls || slot->dead || is_unknown(slot))
			continue;
		any = true;
		if (used >= limit)
			return (int)i;
		if (limit - used < left)
			left = limit - used;
	}
	s->look_due = any ? now + plan_renewal_ms(left) : -1;
	return -1;
}

static void failed(struct supervisor *s, long long now, const struct err *why)
{
	s->renewing = -1;
	note_error(s, why->text);
	/* It is there again, without the process that had our requests. */
	if (s->server == s->fenced_server && why->code == ECONNREFUSED)
		s->fenced_until = 0;
	if (!s->same_errors)
		tell_status(s);
	if (!(s->same_errors % LOG_EVERY)) {
		SAY(s, LOG_LEVEL_WARNING, "cannot reconnect, trying again: %s", why->text);
		update_record(s);
	}
	s->server = (s->server + 1) % s->rq->settings->server_count;
	if (++s->tried < s->rq->settings->server_count) {
		schedule(s, now);
		return;
	}
	s->tried = 0;
	s->rounds++;
	schedule(s, after_backoff(s->rounds, now));
}

static int first_dead(const struct supervisor *s)
{
	for (unsigned i = 0; i < s->rq->connections; i++)
		if (s->slots[i].dead)
			return (int)i;
	return -1;
}

static void restart_negotiator(struct supervisor *s, long long now)
{
	struct err e;

	SAY(s, LOG_LEVEL_WARNING, "the negotiator is gone and is started again");
	negotiator_stop(s->n);
	if (negotiator_start(s->n, s->rq->settings, &s->rq->negotiator, &e))
		failed(s, now, &e);
	else
		schedule(s, now + FIRST_ATTEMPT_MS);
}

static int connect_unix(const struct supervisor *s, const char *path, struct err *e)
{
	int dir = s->unix_dirs[s->server], fd;

	if (dir < 0)
		return dial_unix(path, e);
	if (fchdir(dir))
		return err_sys(e, ERR_FAILED, errno, "change to the directory of %s", path);
	fd = dial_unix(strrchr(path, '/') + 1, e);
	/* not to keep a file system busy */
	if (chdir("/"))
		SAY(s, LOG_LEVEL_WARNING, "cannot change to /: %s", strerror(errno));
	return fd;
}

static int ask(struct supervisor *s, enum neg_goal goal, struct err *e)
{
	const struct uri *server = &s->rq->settings->servers[s->server];
	const struct plan_multi one = { .wanted = 1 };
	int fd = -1, ret;

	if (transport_of(server)->by_path) {
		fd = connect_unix(s, server->path, e);
		if (fd < 0)
			return fd;
	}
	ret = negotiator_ask(s->n, s->server, goal, &one, s->rq->settings->connect_timeout_ms, &fd,
			     fd >= 0, e);
	if (fd >= 0)
		close(fd);
	return ret;
}

static void attempt(struct supervisor *s, long long now)
{
	struct err e;
	int ret;

	s->due = -1;
	if (!look(s) || first_dead(s) < 0)
		return;
	if (s->unnoticed) {
		/* A device that is disconnected stays until nobody has it open; only the kernel knows. */
		s->unnoticed = false;
		s->due = now;
		submit(s, JOB_PROBE, -1, 0);
		return;
	}
	tell_losses(s);
	if (now < s->fenced_until && s->server != s->fenced_server) {
		/* It may still have writes of ours in its queue, and execute them when others have come after. */
		s->server = s->fenced_server;
		s->tried = 0;
	}
	ret = ask(s, NEG_GOAL_GO, &e);
	if (ret == -EPIPE)
		restart_negotiator(s, now);
	else if (ret)
		failed(s, now, &e);
}

/* Makes a new connection beside one that lives, to take its place. */
static void begin_renewal(struct supervisor *s, long long now)
{
	struct err e;

	s->renewing = first_outdated(s);
	if (s->renewing < 0)
		s->renewing = worn_out(s, now);
	if (s->renewing < 0)
		return;
	s->look_due = -1;
	if (ask(s, NEG_GOAL_GO, &e))
		not_renewed(s, now, &e);
}

static void take_answer(struct supervisor *s, long long now, struct connections *rs)
{
	const struct supervise_request *rq = s->rq;
	bool renewing = s->renewing >= 0 && first_dead(s) < 0;
	int slot = renewing ? s->renewing : first_dead(s);
	struct err e;

	if (plan_replacement(rq->plan, s->size, rq->export->has_name ? rq->export->name : "",
			     &rs->export, &s->offer.grown, &e)) {
		connections_close(rs, false);
		if (renewing)
			not_renewed(s, now, &e);
		else
			failed(s, now, &e);
		return;
	}
	s->renewing = -1;
	if (slot < 0 || s->paused) {
		connections_close(rs, false);
		return;
	}
	s->offer.fd = rs->fds[0];
	s->offer.slot = (unsigned)slot;
	s->offer.times = 0;
	s->offer.due = now;
	s->offer.kernel_tls = rs->encrypted && !rs->relayed;
	s->offer.quiet = (struct quiet){ .until = renewing ? now + QUIET_MS : 0 };
	memcpy(s->peer, rs->peer, sizeof(s->peer));
	/* Where it is not permitted the system's own will do. */
	sockopt_set_send_room(s->offer.fd, SOCKOPT_SEND_ROOM, &e);
}

/* --- offers --------------------------------------------------------------------------------------------- */

static void settle(struct supervisor *s, long long now)
{
	struct slot *slot = &s->slots[s->offer.slot];

	slot->fd = s->offer.fd;
	slot->dead = slot->doubtful = false;
	slot->since = now;
	begin_to_count(s, s->offer.slot, s->offer.kernel_tls,
		       s->offer.kernel_tls ? count_records(s) : 0);
	s->offer.fd = -1;
	s->notices -= s->notices > 0;
	s->reconnects++;
	s->rounds = 0;
	s->tried = 0;
	slot->size = s->offer.grown;
	s->grow_quiet.until = 0;
	if (slot->size != s->grow_to) {
		s->grow_to = slot->size;
		s->grow_due = now + GROW_MS;
	}
	if (count_dead(s)) {
		schedule(s, now);
	} else {
		SAY(s, LOG_LEVEL_NOTICE, "connected to %s again after %.3g s", s->peer,
		    (double)(now - s->lost_since) / 1e3);
		s->lost_since = 0;
		s->notices = 0;
		s->unexplained = 0;
	}
	tell_status(s);
	update_record(s);
}

/* A request that comes a moment after it is none of a pause, which is looked for in the first of limit_ms. */
static bool is_quiet(const struct supervisor *s, struct quiet *q, long long limit_ms, long long now)
{
	long long left = q->until - now;
	struct sysfs_traffic t;
	struct err ignored;
	bool paused;

	if (left <= 0 || sysfs_traffic(s->sysfd, s->rq->index, &t, &ignored))
		return true;
	paused = q->looks++ && t.requests == q->finished;
	q->finished = t.requests;
	return !t.inflight && (paused || left <= limit_ms - PAUSE_MS);
}

/*
 * Cuts the connection that the offer is to replace. Requests under way would be sent again only after a second or longer, so
 * that a moment without any is better.
 */
static void make_room(struct supervisor *s, long long now)
{
	if (!is_quiet(s, &s->offer.quiet, QUIET_MS, now)) {
		s->offer.due = now + QUIET_LOOK_MS;
		return;
	}
	SAY(s, LOG_LEVEL_NOTICE, "connection %u of %u is renewed, %s", s->offer.slot + 1,
	    s->rq->connections,
	    is_outdated(s, &s->slots[s->offer.slot]) ? "as the export has grown" :
						       "before its keys are worn out");
	s->offer.quiet.until = 0;
	lose(s, s->offer.slot, now);
	s->offer.due = now;
}

static void offer(struct supervisor *s, long long now)
{
	bool dead = sockopt_is_dead(s->offer.fd), renews = !s->slots[s->offer.slot].dead;
	struct err e;

	if (renews && !dead) {
		make_room(s, now);
		return;
	}
	if (renews) {
		drop_offer(s);
		s->look_due = s->renew_due = now + RENEW_AGAIN_MS;
		return;
	}
	if (dead) {
		drop_offer(s);
		err_set(&e, ERR_UNREACHABLE, ECONNRESET,
			"the server closed the new connection at once");
		failed(s, now, &e);
		return;
	}
	/* Before it the kernel would drop the socket: the other one is still alive for it. */
	if (!s->notices && !s->offer.times && now - s->slots[s->offer.slot].since < NOTICE_MS) {
		s->offer.due = s->slots[s->offer.slot].since + NOTICE_MS;
		return;
	}
	submit(s, JOB_OFFER, s->offer.fd, 0);
}

/* And somebody has it open still: there is no way back. */
static bool was_disconnected(struct supervisor *s, const struct command *c)
{
	if (c->ret == -EINVAL && look(s)) {
		SAY(s, LOG_LEVEL_NOTICE, "disconnected while somebody has it open: %s",
		    c->err.text);
		end(s, 0);
	}
	return s->over;
}

static void offered(struct supervisor *s, long long now, const struct command *c)
{
	const struct plan *p = s->rq->plan;

	if (s->offer.fd < 0)
		return;
	if (s->paused) {
		drop_offer(s);
		return;
	}
	if (c->ret) {
		drop_offer(s);
		if (!was_disconnected(s, c))
			failed(s, now, &c->err);
		return;
	}
	s->offer.times++;
	if (p->timeout_s ? sockopt_send_timeout_ms(s->offer.fd) > 0 :
			   s->offer.times == OFFERS_BLIND) {
		settle(s, now);
		return;
	}
	if (p->timeout_s && s->slots[s->offer.slot].doubtful && s->offer.times >= DOUBT_OFFERS) {
		/* The kernel has no place for it: all are alive. */
		drop_offer(s);
		for (unsigned i = 0; i < s->rq->connections; i++)
			if (s->slots[i].doubtful)
				s->slots[i].dead = s->slots[i].doubtful = false;
		return;
	}
	s->offer.due = now + (p->timeout_s ? AGAIN_MS : offer_again_ms[s->offer.times - 1]);
}

/*
 * The kernel lets no request begin until those under way are done, and carries out no other command meanwhile. If the connection died
 * then, nobody could give it a new one, and all of generic netlink would wait with it; so there had better be none.
 */
static void grow(struct supervisor *s, long long now)
{
	if (!s->grow_quiet.until)
		s->grow_quiet = (struct quiet){ .until = now + GROW_QUIET_MS };
	if (!is_quiet(s, &s->grow_quiet, GROW_QUIET_MS, now)) {
		s->grow_due = now + QUIET_LOOK_MS;
		return;
	}
	s->grow_quiet.until = 0;
	s->grow_due = 0;
	submit(s, JOB_RESIZE, -1, s->grow_to);
}

static void grown(struct supervisor *s, const struct command *c)
{
	if (c->ret) {
		SAY(s, LOG_LEVEL_ERROR, "cannot grow to %llu bytes: %s",
		    (unsigned long long)c->size, c->err.text);
		s->grow_to = s->size;
		if (s->client.fd >= 0 && s->client.command == CONTROL_RESCAN)
			answer_waiting(s, &c->err);
		return;
	}
	SAY(s, LOG_LEVEL_NOTICE,
	    "the export has grown from %llu to %llu bytes, and so has the device",
	    (unsigned long long)s->size, (unsigned long long)c->size);
	s->size = c->size;
}

/* --- clients ---------------------------------------------------------------------------------------------- */

static void fill(const struct supervisor *s, struct control_answer *a)
{
	memset(a, 0, sizeof(*a));
	a->pid = getpid();
	a->connections = s->rq->connections;
	a->alive = s->rq->connections - count_dead(s);
	a->reconnects = s->reconnects;
	a->paused = s->paused;
	a->size = s->size;
	a->error_time = s->error_time;
	memcpy(a->last_error, s->last_error, sizeof(a->last_error));
	memcpy(a->peer, s->peer, sizeof(a->peer));
}

static void answer(const struct supervisor *s, int fd, const struct err *e)
{
	struct control_answer a;

	fill(s, &a);
	if (e) {
		a.ret = -e->code;
		a.err = *e;
	}
	control_reply(fd, &a, NULL, 0);
}

static void answer_waiting(struct supervisor *s, const struct err *e)
{
	answer(s, s->client.fd, e);
	s->client.fd = -1;
}

static void cut_all(struct supervisor *s, long long now)
{
	negotiator_cancel(s->n);
	s->renewing = -1;
	if (!s->calling)
		drop_offer(s);
	for (unsigned i = 0; i < s->rq->connections; i++)
		if (!s->slots[i].dead)
			lose(s, i, now);
}

static void retire(struct supervisor *s, int fd)
{
	struct control_answer a;
	int fds[PLAN_CONNECTIONS_MAX];
	unsigned count = 0;

	fill(s, &a);
	for (unsigned i = 0; i < s->rq->connections; i++)
		if (s->slots[i].fd >= 0)
			fds[count++] = s->slots[i].fd;
	SAY(s, LOG_LEVEL_NOTICE, "another supervisor takes over");
	/* It listens at our place next. */
	control_remove(s->records, s->rq->index);
	close(s->listener);
	s->listener = -1;
	control_reply(fd, &a, fds, count);
	end(s, 0);
}

static void wait_for(struct supervisor *s, int fd, enum control_command command, long long now)
{
	s->client = (struct client){ .fd = fd, .command = command, .deadline = now + CLIENT_MS };
}

static void begin_rescan(struct supervisor *s, int fd, long long now)
{
	struct err e;

	if (s->n->busy || first_dead(s) >= 0) {
		err_set(&e, ERR_BUSY, EBUSY, "it is reconnecting; the size is looked at then");
		answer(s, fd, &e);
	} else if (ask(s, NEG_GOAL_INFO, &e)) {
		answer(s, fd, &e);
	} else {
		s->rescanning = true;
		wait_for(s, fd, CONTROL_RESCAN, now);
	}
}

static void serve(struct supervisor *s, long long now)
{
	enum control_command command;
	struct err e;
	int fd = control_accept(s->listener, &command);

	if (fd < 0)
		return;
	if (s->client.fd >= 0 && command != CONTROL_STATUS && command != CONTROL_RECHECK &&
	    command != CONTROL_ABORT) {
		err_set(&e, ERR_BUSY, EBUSY, "the supervisor does something for somebody else");
		answer(s, fd, &e);
		return;
	}
	switch (command) {
	case CONTROL_RECHECK:
		look(s);
		answer(s, fd, NULL);
		break;
	case CONTROL_ABORT:
		cut_all(s, now);
		s->due = now + SILENCE_MS;
		s->unnoticed = false;
		answer(s, fd, NULL);
		break;
	case CONTROL_PAUSE:
		if (check_known(s, "there is no pause until", &e)) {
			answer(s, fd, &e);
			break;
		}
		s->paused = true;
		cut_all(s, now);
		s->due = -1;
		tell_status(s);
		update_record(s);
		SAY(s, LOG_LEVEL_NOTICE, "paused: all I/O waits");
		wait_for(s, fd, command, now);
		break;
	case CONTROL_RESUME:
		s->paused = false;
		s->rounds = s->tried = 0;
		tell_status(s);
		if (!count_dead(s)) {
			answer(s, fd, NULL);
			break;
		}
		schedule(s, now);
		wait_for(s, fd, command, now);
		break;
	case CONTROL_RESCAN:
		begin_rescan(s, fd, now);
		break;
	case CONTROL_HAND_OVER:
		retire(s, fd);
		break;
	default:
		answer(s, fd, NULL);
		break;
	}
}

/* What a client waits for may have come, or will not any more. */
static void check_client(struct supervisor *s, long long now)
{
	const struct client *c = &s->client;
	struct err e;

	if (c->fd < 0)
		return;
	if (c->command == CONTROL_PAUSE && s->notices >= s->rq->connections)
		answer_waiting(s, NULL);
	else if (c->command == CONTROL_RESUME && !count_dead(s))
		answer_waiting(s, NULL);
	else if (c->command == CONTROL_RESCAN && !s->rescanning && s->grow_to <= s->size)
		answer_waiting(s, NULL);
	else if (now >=
		 c->deadline - (c->command == CONTROL_PAUSE ? CLIENT_MS - 2 * NOTICE_MS : 0)) {
		if (c->command == CONTROL_PAUSE) {
			answer_waiting(s, NULL);
			return;
		}
		err_set(&e, ERR_UNREACHABLE, ETIMEDOUT, "not done yet, it goes on trying: %.400s",
			s->last_error);
		answer_waiting(s, &e);
	}
}

static void rescanned(struct supervisor *s, long long now, const struct connections *rs,
		      const struct err *failure)
{
	const struct supervise_request *rq = s->rq;
	struct err e;
	uint64_t size;

	if (failure) {
		s->rescanning = false;
		answer_waiting(s, failure);
		return;
	}
	/* nbd-server opens the export only for the transmission phase, and says 0 before. */
	if (!rs->export.size && !rs->count) {
		if (ask(s, NEG_GOAL_GO, &e)) {
			s->rescanning = false;
			answer_waiting(s, &e);
		}
		return;
	}
	s->rescanning = false;
	if (plan_replacement(rq->plan, s->size, rq->export->has_name ? rq->export->name : "",
			     &rs->export, &size, &e)) {
		answer_waiting(s, &e);
		return;
	}
	if (size > s->size) {
		s->grow_to = size;
		s->grow_due = s->renew_due = now;
		if (check_known(s, "the device grows when", &e))
			answer_waiting(s, &e);
	}
}

static void answered(struct supervisor *s, long long now)
{
	struct connections *rs = &s->answer;
	bool rescanning = s->rescanning;
	struct err e;
	int ret;

	ret = negotiator_answer(s->n, rs, &e);
	if (ret && ret != -EAGAIN && s->renewing >= 0 && first_dead(s) < 0) {
		not_renewed(s, now, &e);
		if (ret == -EPIPE)
			restart_negotiator(s, now);
		return;
	}
	if (ret == -EPIPE) {
		err_set(&e, ERR_FAILED, EPIPE, "the negotiator is gone");
		if (rescanning)
			rescanned(s, now, NULL, &e);
		restart_negotiator(s, now);
	} else if (ret != -EAGAIN && rescanning) {
		rescanned(s, now, rs, ret ? &e : NULL);
		if (!ret)
			connections_close(rs, false);
	} else if (!ret) {
		take_answer(s, now, rs);
	} else if (ret != -EAGAIN) {
		failed(s, now, &e);
	}
}

/* --- signals, and the end ---------------------------------------------------------------------------------- */

/* A manager that has asked for the end waits for it; whoever else asks looks at the answer. */
static bool is_managed(const struct supervisor *s)
{
	return s->rq->notify && s->rq->notify->fd >= 0;
}

_Noreturn static void detach_in_child(const struct supervisor *s)
{
	const struct detach_request rq = { .index = s->rq->index, .silence_ms = SILENCE_MS };
	struct detach_result r;
	struct err e;
	int ret = detach_run(&rq, &r, &e);

	if (ret && !s->refused)
		SAY(s, LOG_LEVEL_ERROR, "not detached%s: %s", is_managed(s) ? " yet" : "", e.text);
	_exit(ret ? 1 : 0);
}

static void stop_politely(struct supervisor *s)
{
	if (s->detacher > 0)
		return;
	s->stop_due = -1;
	if (!s->refused)
		SAY(s, LOG_LEVEL_NOTICE, "asked to stop, detaching");
	s->detacher = fork();
	if (!s->detacher)
		detach_in_child(s);
	if (s->detacher < 0) {
		SAY(s, LOG_LEVEL_ERROR, "cannot start the detach: %s", strerror(errno));
		return;
	}
	s->detacher_fd = (int)syscall(SYS_pidfd_open, s->detacher, 0);
}

static void detacher_ended(struct supervisor *s, long long now)
{
	if (waitpid(s->detacher, NULL, WNOHANG) != s->detacher)
		return;
	close(s->detacher_fd);
	s->detacher_fd = -1;
	s->detacher = 0;
	look(s);
	if (s->over || !is_managed(s))
		return;
	s->refused = true;
	s->stop_due = now + STOP_AGAIN_MS;
}

static void signalled(struct supervisor *s)
{
	struct signalfd_siginfo si;

	while (read(s->signals, &si, sizeof(si)) == (ssize_t)sizeof(si)) {
		if (s->rq->deaf)
			SAY(s, LOG_LEVEL_NOTICE,
			    "asked to stop by a signal, and stays: --detach ends it");
		else
			stop_politely(s);
	}
}

static void called(struct supervisor *s, long long now)
{
	struct command c;

	if (blocking_thread_collect(s->kcall, &c) == -EAGAIN)
		return;
	s->calling = false;
	switch (c.job) {
	case JOB_OFFER:
		offered(s, now, &c);
		break;
	case JOB_PROBE:
		was_disconnected(s, &c);
		break;
	case JOB_RESIZE:
		grown(s, &c);
		break;
	case JOB_GIVE_UP:
		err_set(s->e, ERR_UNREACHABLE, ETIMEDOUT,
			"given up after %u s without a connection: %.400s",
			s->rq->settings->supervision.reconnect_timeout_s, s->last_error);
		end(s, -ETIMEDOUT);
		break;
	}
}

static long long give_up_due(const struct supervisor *s)
{
	uint32_t limit = s->rq->settings->supervision.reconnect_timeout_s;

	/* One that lives carries the I/O of all. */
	if (!limit || !s->lost_since || s->paused || count_dead(s) < s->rq->connections)
		return -1;
	return s->lost_since + 1000LL * limit;
}

/* One after the other, and only while all are alive. */
static long long renewal_due(const struct supervisor *s)
{
	if (count_dead(s))
		return -1;
	return first_outdated(s) >= 0 && (s->look_due < 0 || s->renew_due < s->look_due) ?
		       s->renew_due :
		       s->look_due;
}

static long long growth_due(const struct supervisor *s)
{
	return s->grow_due && s->grow_to > s->size && !count_dead(s) && !count_outdated(s) ?
		       s->grow_due :
		       -1;
}

static bool is_due(long long when, long long now)
{
	return when >= 0 && now >= when;
}

/* Whether a connection may be asked for: none is under way, at the negotiator or on its way to the kernel. */
static bool may_ask(const struct supervisor *s)
{
	return s->offer.fd < 0 && !s->calling && !s->n->busy && !s->paused;
}

/* All that is due at now. */
static void step(struct supervisor *s, long long now)
{
	if (s->unexplained && now >= s->unexplained)
		explain(s, now);
	if (s->calling && is_due(s->call_due, now))
		tell_hanging(s);
	if (is_due(give_up_due(s), now) && !s->calling) {
		negotiator_cancel(s->n);
		drop_offer(s);
		submit(s, JOB_GIVE_UP, -1, 0);
	}
	if (s->offer.fd >= 0 && !s->calling && now >= s->offer.due)
		offer(s, now);
	if (may_ask(s) && is_due(s->due, now))
		attempt(s, now);
	if (may_ask(s) && is_due(renewal_due(s), now))
		begin_renewal(s, now);
	if (!s->calling && is_due(growth_due(s), now))
		grow(s, now);
	check_client(s, now);
	if (is_due(s->stop_due, now))
		stop_politely(s);
	if (is_due(s->watchdog_due, now)) {
		notify_say(s->rq->notify, "WATCHDOG=1");
		s->watchdog_due = now + s->rq->notify->watchdog_ms;
	}
}

static void sooner(long long *when, long long other)
{
	if (other >= 0 && (*when < 0 || other < *when))
		*when = other;
}

/* When step has something to do next; -1: never, by the clock. */
static long long next_due(const struct supervisor *s)
{
	long long when = s->watchdog_due;

	sooner(&when, s->stop_due);
	if (s->unexplained)
		sooner(&when, s->unexplained);
	if (s->calling) {
		sooner(&when, s->call_due);
	} else {
		sooner(&when, give_up_due(s));
		if (s->offer.fd >= 0)
			sooner(&when, s->offer.due);
		if (may_ask(s)) {
			sooner(&when, s->due);
			sooner(&when, renewal_due(s));
		}
		sooner(&when, growth_due(s));
	}
	if (s->client.fd >= 0)
		sooner(&when, s->client.command == CONTROL_PAUSE ?
				      s->client.deadline - CLIENT_MS + 2 * NOTICE_MS :
				      s->client.deadline);
	return when;
}

enum { EVENTS, NEGOTIATOR, KCALL, LISTENER, SIGNALS, DETACHER, SLOTS };

static void wait_and_hear(struct supervisor *s)
{
	struct pollfd p[SLOTS + PLAN_CONNECTIONS_MAX] = {
		[EVENTS] = { .fd = s->events, .events = POLLIN },
		[NEGOTIATOR] = { .fd = s->n->fd, .events = POLLIN },
		[KCALL] = { .fd = blocking_thread_fd(s->kcall), .events = POLLIN },
		[LISTENER] = { .fd = s->listener, .events = POLLIN },
		[SIGNALS] = { .fd = s->signals, .events = POLLIN },
		[DETACHER] = { .fd = s->detacher_fd, .events = POLLIN },
	};
	long long when = next_due(s), now = monotonic_ms();

	for (unsigned i = 0; i < s->rq->connections; i++)
		p[SLOTS + i] = (struct pollfd){ .fd = s->slots[i].fd, .events = POLLRDHUP };
	if (poll(p, SLOTS + s->rq->connections,
		 when < 0   ? -1 :
		 when > now ? (int)(when - now) :
			      0) < 0)
		return;
	now = monotonic_ms();
	find_dead(s, now);
	if (p[EVENTS].revents)
		hear(s, now);
	if (p[NEGOTIATOR].revents)
		answered(s, now);
	if (p[KCALL].revents)
		called(s, now);
	if (p[SIGNALS].revents)
		signalled(s);
	if (p[DETACHER].revents)
		detacher_ended(s, now);
	if (p[LISTENER].revents)
		serve(s, now);
}

static int open_unix_dirs(struct supervisor *s)
{
	for (unsigned i = 0; i < s->rq->settings->server_count; i++) {
		const struct uri *where = &s->rq->settings->servers[i];
		char dir[sizeof(where->path)];

		if (!transport_of(where)->by_path)
			continue;
		memcpy(dir, where->path, sizeof(dir));
		strrchr(dir, '/')[1] = '\0';
		s->unix_dirs[i] = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (s->unix_dirs[i] < 0)
			return err_sys(s->e, ERR_FAILED, errno, "open directory %s", dir);
	}
	return 0;
}

static int begin(struct supervisor *s)
{
	const struct supervise_request *rq = s->rq;
	struct err ignored;
	sigset_t set;
	int ret;

	s->listener = control_listen(NBD_ATTACH_STATEDIR, rq->index, s->e);
	if (s->listener < 0)
		return s->listener;
	s->records = record_open(NBD_ATTACH_STATEDIR, s->e);
	if (s->records < 0)
		return s->records;
	if (record_read_at(s->records, rq->index, &s->record, &ignored))
		s->record.pid = 0;
	s->record.settings = rq->settings;
	s->sysfd = sysfs_open("/sys", s->e);
	if (s->sysfd < 0)
		return s->sysfd;
	ret = settings_is_vital(rq->settings) ? open_unix_dirs(s) : 0;
	if (ret)
		return ret;
	/* The end of a session is none of a device. */
	signal(SIGHUP, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	s->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (s->signals < 0)
		return err_sys(s->e, ERR_FAILED, errno, "signals");
	ret = nbdnl_open(&s->nl, s->e);
	if (!ret)
		ret = blocking_thread_open(&s->kcall, s->e);
	return ret;
}

static void finish(struct supervisor *s)
{
	struct err ignored;

	notify_say(s->rq->notify, "STOPPING=1");
	if (s->client.fd >= 0)
		answer_waiting(s, NULL);
	for (unsigned i = 0; i < s->rq->connections; i++)
		if (s->slots[i].fd >= 0)
			close(s->slots[i].fd);
	if (s->offer.fd >= 0)
		close(s->offer.fd);
	if (s->events >= 0)
		close(s->events);
	/* Not where a successor has them now. */
	if (s->listener >= 0) {
		control_remove(s->records, s->rq->index);
		close(s->listener);
		if (!is_ours(s) &&
		    !record_read_at(s->records, s->rq->index, &s->record, &ignored) &&
		    s->record.supervisor == getpid())
			record_remove_at(s->records, s->rq->index);
	}
	if (s->kcall)
		blocking_thread_close(s->kcall);
	nbdnl_close(s->nl);
	if (s->signals >= 0)
		close(s->signals);
	if (s->sysfd >= 0)
		close(s->sysfd);
	if (s->records >= 0)
		close(s->records);
	for (unsigned i = 0; i < NEGOTIATOR_SERVERS_MAX; i++)
		if (s->unix_dirs[i] >= 0)
			close(s->unix_dirs[i]);
	negotiator_stop(s->n);
}

static void take_connections(struct supervisor *s, long long now)
{
	uint64_t records = s->rq->kernel_tls ? count_records(s) : 0;

	for (unsigned i = 0; i < s->rq->connections; i++) {
		struct slot *slot = &s->slots[i];

		slot->fd = s->rq->fds[i];
		slot->size = s->size;
		begin_to_count(s, i, s->rq->kernel_tls, s->rq->adopted ? 0 : records);
		if (slot->fd >= 0)
			continue;
		if (s->rq->lost) {
			lose(s, i, now);
		} else if (s->rq->plan->timeout_s) {
			slot->dead = slot->doubtful = true;
			slot->since = now - NOTICE_MS;
			schedule(s, now);
		}
	}
}

int supervise_run(const struct supervise_request *rq, struct negotiator *n, struct err *e)
{
	struct supervisor *s = calloc(1, sizeof(*s));
	int ret;

	if (!s)
		return err_sys(e, ERR_FAILED, ENOMEM, "supervise nbd%u", rq->index);
	s->rq = rq;
	s->n = n;
	s->e = e;
	s->sysfd = s->records = s->listener = s->signals = -1;
	for (unsigned i = 0; i < NEGOTIATOR_SERVERS_MAX; i++)
		s->unix_dirs[i] = -1;
	s->detacher_fd = s->offer.fd = s->client.fd = -1;
	s->events = rq->events;
	s->due = s->watchdog_due = s->look_due = s->stop_due = -1;
	s->renewing = -1;
	s->size = s->grow_to = rq->plan->size;
	s->server = rq->server;
	for (unsigned i = 0; i < PLAN_CONNECTIONS_MAX; i++)
		s->slots[i].fd = -1;
	s->reconnects = rq->reconnects;
	ret = begin(s);
	if (!ret) {
		take_connections(s, monotonic_ms());
		if (rq->fds[0] >= 0)
			transport_peer_name(rq->fds[0], s->peer, sizeof(s->peer));
		update_record(s);
		notify_say(rq->notify, "READY=1");
		tell_status(s);
		if (rq->notify && rq->notify->watchdog_ms)
			s->watchdog_due = monotonic_ms();
		while (!s->over) {
			step(s, monotonic_ms());
			if (!s->over)
				wait_and_hear(s);
		}
		ret = s->result;
	}
	finish(s);
	free(s);
	return ret;
}
