/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "policy/reconnect.h"

#include <errno.h>
#include <string.h>

enum {
	FIRST_ATTEMPT_MS = 20, /* between a certain loss and the first attempt */
	STEADY_MS = 300,       /* a connection that does not last so long is a flap */
	FLAPS_NOTED = 3,       /* from here on the log has one note of them a minute */
	OFFER_MS = 20,         /* to the next offer of a candidate that was not taken */
	OFFERS_FAST = 50,      /* after so many the driver has no room, or needs long */
	OFFER_SLOW_MS = 500,
	ROOM_S = 5,        /* the driver has marked a dead slot so long after the request timeout */
	GROW_MS = 3000,    /* requests of a lost connection have been sent again by then */
	ABORT_MS = 20000,  /* a forced detach is over by then */
	CLIENT_MS = 30000, /* a client gets an answer by then */
	COMMAND_MS = 10000, /* a command that takes longer hangs */
	BUSY_MS = 1000,     /* to the next look whether it is over */
	NOTE_MS = 60000,    /* between two notes of the same failure */
};

/*
 * Without a request timeout the driver does not show what it has taken. A socket is offered again
 * at these intervals, which covers a driver that is late; where it was taken, the driver drops it.
 */
static const unsigned blind_ms[] = { OFFER_MS, 100, 500 };
enum { BLIND_OFFERS = 1 + sizeof(blind_ms) / sizeof(blind_ms[0]) };

/* Sets of connection states. */
enum {
	UP = 1 << RC_UP,
	UNWATCHED = 1 << RC_UNWATCHED,
	DOUBTFUL = 1 << RC_DOUBTFUL,
	CUTTING = 1 << RC_CUTTING,
	DOWN = 1 << RC_DOWN,
	UNKNOWN = UNWATCHED | DOUBTFUL,
	GONE = CUTTING | DOWN,
	LOST = GONE | DOUBTFUL,
};

static void choose_phase(struct reconnect *r);

/* --- actions, timers, answers ----------------------------------------------------------------- */

static struct rc_action *queue_action(struct reconnect *r, enum rc_action_type type)
{
	struct rc_action *a = &r->queue[r->queued++];

	*a = (struct rc_action){ .type = type };
	return a;
}

static struct rc_action *add_note(struct reconnect *r, enum rc_note note)
{
	struct rc_action *a = queue_action(r, RC_NOTE);

	a->note = note;
	return a;
}

/* Returns what is kept until the next one. */
static const struct err *set_error(struct reconnect *r, const struct err *e)
{
	r->error = *e;
	r->failures++;
	r->changed = true;
	return &r->error;
}

static void arm(struct reconnect *r, enum rc_timer timer, long long ms)
{
	r->timer[timer] = r->now + ms;
}

static void disarm(struct reconnect *r, enum rc_timer timer)
{
	r->timer[timer] = RC_NEVER;
}

static long long later(long long a, long long b)
{
	return a > b ? a : b;
}

static struct rc_action *submit_command(struct reconnect *r, enum rc_action_type type)
{
	r->busy = true;
	arm(r, RC_T_COMMAND, COMMAND_MS);
	return queue_action(r, type);
}

/* The error is kept until the next event. */
static void reply_to(struct reconnect *r, unsigned client, const struct err *e)
{
	struct rc_action *a = queue_action(r, RC_REPLY);

	a->client = client;
	a->ret = e ? -e->code : 0;
	a->err = e;
}

static void refuse_client(struct reconnect *r, unsigned client, const char *why)
{
	err_set(&r->refusal, ERR_BUSY, EBUSY, "%s", why);
	reply_to(r, client, &r->refusal);
}

static void forget_client(struct reconnect *r)
{
	r->client.waiting = false;
	disarm(r, RC_T_CLIENT);
}

/* The waiting client, if there is one, has what it waits for; or an error. */
static void answer_client(struct reconnect *r, const struct err *e)
{
	if (!r->client.waiting)
		return;
	if (e)
		r->answer = *e;
	reply_to(r, r->client.id, e ? &r->answer : NULL);
	forget_client(r);
}

static void fail_rescan(struct reconnect *r, const struct err *e)
{
	if (r->client.request == RC_ASK_RESCAN)
		answer_client(r, e);
}

/* --- connections ------------------------------------------------------------------------------ */

static bool is_in(const struct rc_conn *c, unsigned states)
{
	return 1U << c->state & states;
}

static unsigned count_in(const struct reconnect *r, unsigned states)
{
	unsigned count = 0;

	for (unsigned i = 0; i < r->config.connections; i++)
		count += is_in(&r->conn[i], states);
	return count;
}

static bool all_in(const struct reconnect *r, unsigned states)
{
	return count_in(r, states) == r->config.connections;
}

/* The one that has been in its state for the longest time; NULL: none. */
static struct rc_conn *find_oldest(struct reconnect *r, unsigned states, bool unreported)
{
	struct rc_conn *oldest = NULL;

	for (unsigned i = 0; i < r->config.connections; i++) {
		struct rc_conn *c = &r->conn[i];

		if (is_in(c, states) && !(unreported && c->reported) &&
		    (!oldest || c->since < oldest->since))
			oldest = c;
	}
	return oldest;
}

static unsigned index_of(const struct reconnect *r, const struct rc_conn *c)
{
	return (unsigned)(c - r->conn);
}

static void report_all(struct reconnect *r)
{
	for (unsigned i = 0; i < r->config.connections; i++)
		r->conn[i].reported = true;
}

/* When it is certain that a connection is lost; RC_NEVER: it is already, or none is lost. */
static long long certain_at(struct reconnect *r)
{
	const struct rc_conn *c = find_oldest(r, GONE, true);

	for (unsigned i = 0; i < r->config.connections; i++)
		if (is_in(&r->conn[i], GONE) && r->conn[i].reported)
			return RC_NEVER;
	return c ? c->since + RC_NOTICE_MS : RC_NEVER;
}

/* Nobody knows what the server in use has got of a lost connection, and may still carry out. */
static void fence_server(struct reconnect *r)
{
	r->durable.fenced_until = r->now + 1000LL * r->config.fence_delay_s;
	r->changed = true;
}

static void set_state(struct reconnect *r, struct rc_conn *c, enum rc_conn_state state)
{
	c->state = state;
	c->since = r->now;
	c->reported = false;
	if (r->lost_since == RC_NEVER)
		r->lost_since = r->now;
	fence_server(r);
}

/* A connection without a descriptor is DOWN at once: nobody can cut it. */
static void mark_down(struct reconnect *r, struct rc_conn *c)
{
	bool up = c->state == RC_UP;

	if (up)
		queue_action(r, RC_CUT)->conn = index_of(r, c);
	set_state(r, c, up ? RC_CUTTING : RC_DOWN);
}

static bool is_flapping(const struct reconnect *r)
{
	return r->flaps >= FLAPS_NOTED;
}

/* It has ended by itself. */
static void lose_connection(struct reconnect *r, struct rc_conn *c)
{
	r->lost_unnoted++;
	r->flaps = r->now - c->since < STEADY_MS ? r->flaps + 1 : 0;
	if (is_flapping(r) && r->now >= r->flap_note_at) {
		add_note(r, RC_NOTE_FLAPPING)->number = r->flaps;
		r->flap_note_at = r->now + NOTE_MS;
	}
	mark_down(r, c);
	/* Of what we cut ourselves no report can have come before. */
	if (r->unattributed) {
		c->reported = true;
		if (!--r->unattributed)
			disarm(r, RC_T_NOTICE);
	}
}

static void doubt_unwatched(struct reconnect *r)
{
	for (unsigned i = 0; i < r->config.connections; i++)
		if (r->conn[i].state == RC_UNWATCHED)
			set_state(r, &r->conn[i], RC_DOUBTFUL);
}

/* Whether every connection can be cut; "until" says what waits for that. */
static int check_known(const struct reconnect *r, const char *until, struct err *e)
{
	for (unsigned i = 0; i < r->config.connections; i++)
		if (is_in(&r->conn[i], UNKNOWN))
			return err_set(
				e, ERR_BUSY, EBUSY,
				"connection %u of %u was made by a supervisor that was killed, "
				"and cannot be broken; %s it has been lost",
				i + 1, r->config.connections, until);
	return 0;
}

/* --- candidates ------------------------------------------------------------------------------- */

static unsigned first_candidate(const struct reconnect *r)
{
	return (unsigned)__builtin_ctzll(r->candidates);
}

/* Only the first one may have ended, or have been offered. */
static void forget_candidate(struct reconnect *r, unsigned candidate)
{
	if (candidate == first_candidate(r)) {
		r->ended = false;
		r->offers = 0;
	}
	r->candidates &= ~(UINT64_C(1) << candidate);
}

static void drop_candidate(struct reconnect *r, unsigned candidate)
{
	queue_action(r, RC_DROP)->candidate = candidate;
	forget_candidate(r, candidate);
}

static void install_candidate(struct reconnect *r, struct rc_conn *c)
{
	struct rc_action *a = queue_action(r, RC_INSTALL);

	a->candidate = first_candidate(r);
	a->conn = index_of(r, c);
	*c = (struct rc_conn){
		.state = RC_UP,
		.kernel_tls = r->kernel_tls,
		.since = r->now,
		.size = r->durable.server_size[r->server],
		.records = r->records,
	};
	forget_candidate(r, a->candidate);
	r->reconnects++;
	r->rounds = r->tried = 0;
	r->changed = true;
	disarm(r, RC_T_GIVE_UP);
}

/* The connection that the driver gives a candidate to, as far as is known. */
static struct rc_conn *offer_target(struct reconnect *r)
{
	struct rc_conn *c = find_oldest(r, DOWN, false);

	return c ? c : find_oldest(r, DOUBTFUL, false);
}

/* Whether a candidate is with the driver, for all that is known. */
static bool may_be_taken(const struct reconnect *r)
{
	return r->offers && (r->busy || !r->config.request_timeout_s);
}

/*
 * Gives up the first candidate. Where the driver may have taken it, it becomes a connection, which
 * is returned and is to be marked down; else it is dropped, and NULL is returned.
 */
static struct rc_conn *release_candidate(struct reconnect *r)
{
	struct rc_conn *c = may_be_taken(r) ? offer_target(r) : NULL;
	bool doubtful;

	if (!c) {
		drop_candidate(r, first_candidate(r));
		return NULL;
	}
	doubtful = c->state == RC_DOUBTFUL;
	r->target = index_of(r, c);
	install_candidate(r, c);
	c->doubtful = doubtful;
	return c;
}

/* --- phases ----------------------------------------------------------------------------------- */

/* Ends all that is under way but a command. */
static void abandon_work(struct reconnect *r)
{
	struct rc_conn *c = r->candidates ? release_candidate(r) : NULL;
	struct err e;

	if (c)
		mark_down(r, c);
	while (r->candidates)
		drop_candidate(r, first_candidate(r));
	if (!r->dialing)
		return;
	queue_action(r, RC_CANCEL_DIAL);
	r->dialing = false;
	err_set(&e, ERR_BUSY, EBUSY, "a connection was lost or cut; try again when it is back");
	if (r->purpose == RC_RESCAN)
		fail_rescan(r, &e);
}

/* With nothing due in it. */
static void enter_phase(struct reconnect *r, enum rc_phase phase)
{
	if (phase != RC_DRAINING && phase != RC_OFFERING)
		abandon_work(r);
	disarm(r, RC_T_PHASE);
	disarm(r, RC_T_RENEW);
	disarm(r, RC_T_GROW);
	r->phase = phase;
}

/* Returns the last action. */
static struct rc_action *end_supervision(struct reconnect *r)
{
	struct err e;

	err_set(&e, ERR_ABSENT, ENODEV, "the device is not supervised any more");
	answer_client(r, &e);
	enter_phase(r, RC_ENDED);
	for (unsigned i = 0; i < RC_TIMERS; i++)
		disarm(r, i);
	return queue_action(r, RC_END);
}

/* The size that the device shall have: what every server has and the kernel has not refused. */
static uint64_t wanted_size(const struct reconnect *r)
{
	const struct rc_durable *d = &r->durable;
	uint64_t size = UINT64_MAX;

	for (unsigned i = 0; i < r->config.servers; i++)
		if (d->server_size[i] < size)
			size = d->server_size[i];
	return size > d->size && size != r->refused_size ? size : d->size;
}

static bool can_grow(const struct reconnect *r)
{
	return wanted_size(r) > r->durable.size && all_in(r, UP);
}

/* A connection to be made anew before the device can grow; -1: none. */
static int find_outdated(const struct reconnect *r)
{
	return can_grow(r) ? renew_outdated(r->conn, r->config.connections, wanted_size(r)) : -1;
}

static int find_worn_out(const struct reconnect *r, unsigned *look_ms)
{
	return renew_worn_out(r->conn, r->config.connections, r->config.tls_renew, r->records,
			      look_ms);
}

static void enter_watching(struct reconnect *r)
{
	bool outdated = find_outdated(r) >= 0;
	long long newest = 0;
	unsigned look_ms;

	enter_phase(r, RC_WATCHING);
	for (unsigned i = 0; i < r->config.connections; i++)
		newest = later(newest, r->conn[i].since);
	if (outdated || find_worn_out(r, &look_ms) >= 0 || look_ms)
		r->timer[RC_T_RENEW] = later(r->now, r->renew_after);
	if (can_grow(r) && !outdated)
		r->timer[RC_T_GROW] = later(r->now, newest + GROW_MS);
}

/* In the middle of a round the next server is asked at once. */
static void enter_backing_off(struct reconnect *r)
{
	unsigned ms;

	enter_phase(r, RC_BACKING_OFF);
	if (r->lost_unnoted && !is_flapping(r))
		add_note(r, RC_NOTE_LOST)->number = r->lost_unnoted;
	r->lost_unnoted = 0;
	r->random = r->random * 1664525 + 1013904223;
	ms = plan_backoff_ms(r->rounds + r->flaps, r->silent, r->random);
	arm(r, RC_T_PHASE, r->tried ? 0 : later(FIRST_ATTEMPT_MS, ms));
	r->timer[RC_T_PHASE] = later(r->timer[RC_T_PHASE], r->hold_until);
}

/* The connections alone decide what is to be done next. */
static void choose_phase(struct reconnect *r)
{
	if (r->busy)
		return;
	if (r->durable.paused) {
		enter_phase(r, RC_PAUSED);
	} else if (!count_in(r, LOST)) {
		enter_watching(r);
	} else if (certain_at(r) == RC_NEVER) {
		enter_backing_off(r);
	} else {
		enter_phase(r, RC_CONFIRMING);
		r->timer[RC_T_PHASE] = certain_at(r);
	}
}

/* --- attempts --------------------------------------------------------------------------------- */

static void dial_server(struct reconnect *r, enum rc_purpose purpose, unsigned server,
			unsigned count)
{
	struct rc_action *a;

	enter_phase(r, RC_DIALING);
	r->purpose = purpose;
	r->server = server;
	r->asked = count;
	r->dialing = true;
	a = queue_action(r, RC_DIAL);
	a->server = server;
	a->count = count;
}

/* How many servers may be asked: while one may still carry out what it was sent, no other. */
static unsigned count_choices(const struct reconnect *r)
{
	return all_in(r, DOWN) && r->now >= r->durable.fenced_until ? r->config.servers : 1;
}

static void dial_lost(struct reconnect *r)
{
	unsigned turn = r->tried % count_choices(r);

	dial_server(r, RC_REPLACE, (r->durable.server + turn) % r->config.servers,
		    count_in(r, LOST));
}

/* Whether the server is there, but refuses: it has nothing left of lost connections. */
static bool is_proof(const struct err *e)
{
	return e->code == ECONNREFUSED || e->kind == ERR_REFUSED || e->kind == ERR_PROTOCOL ||
	       e->kind == ERR_MULTI;
}

/* The next server at once, or, after the last one, the first again later. */
static void fail_attempt(struct reconnect *r, const struct err *e)
{
	struct rc_noted *noted = &r->noted[r->server];
	struct rc_action *a;

	set_error(r, e);
	if (noted->code != e->code || r->now >= noted->again_at) {
		*noted = (struct rc_noted){ e->code, r->now + NOTE_MS };
		a = add_note(r, RC_NOTE_FAILED);
		a->server = r->server;
		a->err = &r->error;
	}
	r->silent = e->code == ETIMEDOUT;
	if (r->server == r->durable.server && is_proof(e))
		r->durable.fenced_until = RC_NEVER;
	if (++r->tried >= count_choices(r)) {
		r->tried = 0;
		r->rounds++;
	}
	choose_phase(r);
}

static void offer_next(struct reconnect *r)
{
	if (!r->candidates || !count_in(r, LOST)) {
		choose_phase(r);
		return;
	}
	enter_phase(r, RC_OFFERING);
	arm(r, RC_T_PHASE, 0);
}

/* --- renewal, growth -------------------------------------------------------------------------- */

static void refuse_renewal(struct reconnect *r, const struct err *e)
{
	struct rc_action *a = add_note(r, RC_NOTE_NOT_RENEWED);

	a->conn = r->target;
	a->err = set_error(r, e);
	r->renew_after = r->now + RENEW_AGAIN_MS;
	fail_rescan(r, e);
	choose_phase(r);
}

static void look_at_keys(struct reconnect *r)
{
	queue_action(r, RC_READ_TRAFFIC);
}

static void start_draining(struct reconnect *r, enum rc_purpose purpose, long long limit_ms)
{
	enter_phase(r, RC_DRAINING);
	r->purpose = purpose;
	renew_quiet_begin(&r->quiet, limit_ms, r->now);
	arm(r, RC_T_PHASE, 0);
}

static void start_growth(struct reconnect *r)
{
	start_draining(r, RC_GROW, RENEW_GROW_MS);
}

/*
 * To grow, the kernel lets no request begin until those in flight are done, and carries out no
 * other command meanwhile: if a connection were lost then, nobody could give it a new one. Requests
 * in flight on a connection that is cut would be sent again only after a second or longer.
 */
static void end_draining(struct reconnect *r)
{
	struct rc_conn *c = &r->conn[r->target];
	bool outdated = c->size < wanted_size(r);

	if (r->purpose == RC_GROW) {
		enter_phase(r, RC_RESIZING);
		submit_command(r, RC_RESIZE)->size = wanted_size(r);
		return;
	}
	add_note(r, outdated ? RC_NOTE_RENEWED_SIZE : RC_NOTE_RENEWED)->conn = r->target;
	mark_down(r, c);
	offer_next(r);
}

static void look_at_traffic(struct reconnect *r)
{
	if (r->now >= r->quiet.until) {
		end_draining(r);
		return;
	}
	queue_action(r, RC_READ_TRAFFIC);
	r->timer[RC_T_PHASE] = r->quiet.until;
}

static void traffic_read(struct reconnect *r, const struct rc_event *ev)
{
	unsigned look_ms = 0;
	int conn;

	if (!ev->ret)
		r->records = plan_records(ev->requests, ev->bytes);
	if (r->phase == RC_DRAINING) {
		if (!ev->ret && renew_is_quiet(&r->quiet, ev->requests, ev->in_flight, r->now))
			end_draining(r);
		else
			arm(r, RC_T_PHASE, RENEW_LOOK_MS);
	} else if (r->phase == RC_WATCHING && r->timer[RC_T_RENEW] == RC_NEVER) {
		conn = find_outdated(r);
		if (conn < 0)
			conn = find_worn_out(r, &look_ms);
		if (conn >= 0) {
			r->target = (unsigned)conn;
			dial_server(r, RC_RENEW, r->durable.server, 1);
		} else if (look_ms) {
			arm(r, RC_T_RENEW, look_ms);
		}
	}
}

static void resize_done(struct reconnect *r, const struct rc_event *ev)
{
	bool grown = ev->result == RC_OK;
	struct rc_action *a = add_note(r, grown ? RC_NOTE_GROWN : RC_NOTE_NOT_GROWN);

	a->size = wanted_size(r);
	a->number = r->durable.size;
	if (grown) {
		r->durable.size = a->size;
		r->changed = true;
	} else {
		r->refused_size = a->size;
		a->err = set_error(r, ev->err);
		fail_rescan(r, ev->err);
	}
	choose_phase(r);
}

/* --- confirming, offering, giving up ---------------------------------------------------------- */

static void probe_device(struct reconnect *r)
{
	submit_command(r, RC_PROBE);
}

static void probe_done(struct reconnect *r, const struct rc_event *ev)
{
	(void)ev;
	report_all(r);
	choose_phase(r);
}

/* Not while what was sent last on another connection may overtake what is sent again. */
static void offer_candidate(struct reconnect *r)
{
	long long certain = certain_at(r);

	if (r->server != r->durable.server && count_choices(r) == 1) {
		choose_phase(r);
		return;
	}
	if (count_in(r, CUTTING))
		return;
	if (!r->offers && r->now < certain) {
		r->timer[RC_T_PHASE] = certain;
		return;
	}
	r->offers++;
	/* In use from the first offer on: nobody may live to see that it was taken. */
	r->changed |= r->durable.server != r->server;
	r->durable.server = r->server;
	submit_command(r, RC_OFFER)->candidate = first_candidate(r);
}

/* What an offer waits for may be the case now. */
static void wake_offer(struct reconnect *r)
{
	if (r->phase == RC_OFFERING && !r->busy && (!r->offers || r->timer[RC_T_PHASE] == RC_NEVER))
		arm(r, RC_T_PHASE, 0);
}

static void end_outage(struct reconnect *r, bool noted)
{
	if (noted) {
		add_note(r, RC_NOTE_RECONNECTED)->ms = r->now - r->lost_since;
		memset(r->noted, 0, sizeof(r->noted));
	}
	r->lost_since = RC_NEVER;
	r->lost_unnoted = 0;
	r->rounds = 0;
	r->changed = true;
}

static void candidate_taken(struct reconnect *r)
{
	struct rc_conn *c = offer_target(r);
	bool ended = r->ended;

	install_candidate(r, c);
	if (ended)
		lose_connection(r, c);
	if (!count_in(r, LOST))
		end_outage(r, !is_flapping(r) || r->now - r->lost_since >= NOTE_MS);
	offer_next(r);
}

static void candidate_failed(struct reconnect *r, const struct err *e)
{
	struct rc_conn *c = release_candidate(r);

	if (c)
		lose_connection(r, c);
	if (r->candidates)
		offer_next(r);
	else
		fail_attempt(r, e);
}

static void candidate_has_ended(struct reconnect *r)
{
	struct err e;

	err_set(&e, ERR_UNREACHABLE, ECONNRESET, "the server closed the new connection at once");
	if (r->phase == RC_DRAINING)
		refuse_renewal(r, &e);
	else
		candidate_failed(r, &e);
}

/*
 * The driver takes none where no slot is dead; and one that is dead it may leave unmarked for as
 * long as the request timeout, while it sends to it (7.2). Where a DOUBTFUL connection lives, a
 * candidate may have replaced another one, which is DOWN then without a slot.
 */
static bool is_without_room(const struct reconnect *r)
{
	uint64_t limit_s = count_in(r, DOWN) ? r->config.request_timeout_s + ROOM_S : 0;

	return r->offers >= OFFERS_FAST + limit_s * 1000 / OFFER_SLOW_MS && !count_in(r, CUTTING);
}

/* Every connection lives. */
static void trust_lost(struct reconnect *r)
{
	for (unsigned i = 0; i < r->config.connections; i++)
		if (is_in(&r->conn[i], LOST))
			r->conn[i].state = RC_UNWATCHED;
	end_outage(r, false);
	choose_phase(r);
}

/* The candidate was given up while it was offered: if it was taken, it dies only now. */
static void released_offer_done(struct reconnect *r, bool taken)
{
	struct rc_conn *c = &r->conn[r->target];

	c->reported = !taken;
	if (taken) {
		c->since = r->now;
		fence_server(r);
		arm(r, RC_T_NOTICE, RC_NOTICE_MS);
	}
	choose_phase(r);
}

static void offer_done(struct reconnect *r, const struct rc_event *ev)
{
	bool blind = !r->config.request_timeout_s;

	if (!r->candidates)
		released_offer_done(r, blind || ev->taken);
	else if (!blind && ev->taken)
		candidate_taken(r);
	else if (ev->result == RC_FAILED)
		candidate_failed(r, ev->err);
	else if (r->ended)
		candidate_has_ended(r);
	else if (blind && r->offers == BLIND_OFFERS)
		candidate_taken(r);
	else if (blind)
		arm(r, RC_T_PHASE, blind_ms[r->offers - 1]);
	else if (is_without_room(r))
		trust_lost(r);
	else
		arm(r, RC_T_PHASE, r->offers < OFFERS_FAST ? OFFER_MS : OFFER_SLOW_MS);
}

static void disconnect_done(struct reconnect *r, const struct rc_event *ev)
{
	struct rc_action *a = end_supervision(r);
	struct err e;

	(void)ev;
	err_set(&e, ERR_UNREACHABLE, ETIMEDOUT, "given up after %u s without a connection: %.400s",
		r->config.reconnect_timeout_s, r->error.text);
	a->ret = -ETIMEDOUT;
	a->err = set_error(r, &e);
}

static const struct {
	void (*due)(struct reconnect *r);
	void (*command_done)(struct reconnect *r, const struct rc_event *ev);
} phases[RC_PHASES] = {
	[RC_CONFIRMING] = { probe_device, probe_done },
	[RC_BACKING_OFF] = { dial_lost, NULL },
	[RC_DRAINING] = { look_at_traffic, NULL },
	[RC_OFFERING] = { offer_candidate, offer_done },
	[RC_RESIZING] = { NULL, resize_done },
	[RC_DISCONNECTING] = { NULL, disconnect_done },
};

static void command_done(struct reconnect *r, const struct rc_event *ev)
{
	r->busy = false;
	disarm(r, RC_T_COMMAND);
	if (ev->result == RC_NOT_OURS) {
		add_note(r, RC_NOTE_DETACHED);
		end_supervision(r);
	} else if (ev->result == RC_DISCONNECTED && r->phase != RC_DISCONNECTING) {
		add_note(r, RC_NOTE_DISCONNECTED)->err = set_error(r, ev->err);
		end_supervision(r);
	} else {
		phases[r->phase].command_done(r, ev);
	}
}

/* --- timers ----------------------------------------------------------------------------------- */

static void phase_due(struct reconnect *r)
{
	phases[r->phase].due(r);
}

/*
 * The driver has had its time for connections that were cut. An end that it has reported and nobody
 * has seen is that of a connection without a descriptor; or, where the driver does not show what it
 * takes, of one that it never took.
 */
static void notice_due(struct reconnect *r)
{
	unsigned suspects = r->config.request_timeout_s ? UNKNOWN : UNKNOWN | UP;

	if (r->durable.paused)
		report_all(r);
	if (!r->unattributed)
		return;
	if (r->config.connections == 1 && is_in(&r->conn[0], suspects))
		lose_connection(r, &r->conn[0]);
	else
		doubt_unwatched(r);
	r->unattributed = 0;
}

static void give_up_device(struct reconnect *r)
{
	if (r->busy || may_be_taken(r)) {
		arm(r, RC_T_GIVE_UP, BUSY_MS);
		return;
	}
	enter_phase(r, RC_DISCONNECTING);
	submit_command(r, RC_DISCONNECT);
}

static void client_timed_out(struct reconnect *r)
{
	struct err e;

	if (r->client.request == RC_ASK_PAUSE)
		err_set(&e, ERR_BUSY, ETIMEDOUT,
			"paused, but what was sent last may still reach the server");
	else
		err_set(&e, ERR_UNREACHABLE, ETIMEDOUT, "not done yet, it goes on trying: %.400s",
			r->error.text);
	answer_client(r, &e);
}

/* Nothing else can be done for the device until the command is over; nobody can take it back. */
static void command_hangs(struct reconnect *r)
{
	struct err e;

	err_set(&e, ERR_KERNEL, ETIMEDOUT,
		"the kernel has not carried out a command for %d s: another one hangs, or requests "
		"that it waits for do",
		COMMAND_MS / 1000);
	add_note(r, RC_NOTE_HANGS)->err = set_error(r, &e);
}

static void (*const timers[RC_TIMERS])(struct reconnect *r) = {
	[RC_T_PHASE] = phase_due,        [RC_T_NOTICE] = notice_due,
	[RC_T_GIVE_UP] = give_up_device, [RC_T_RENEW] = look_at_keys,
	[RC_T_GROW] = start_growth,      [RC_T_CLIENT] = client_timed_out,
	[RC_T_COMMAND] = command_hangs,
};

/* Carries out one timer that is due; false: none is. */
static bool fire_timer(struct reconnect *r)
{
	for (unsigned i = 0; i < RC_TIMERS; i++) {
		if (r->timer[i] == RC_NEVER || r->now < r->timer[i])
			continue;
		disarm(r, i);
		timers[i](r);
		return true;
	}
	return false;
}

/* --- requests of clients ---------------------------------------------------------------------- */

static void wait_for_request(struct reconnect *r, unsigned client, enum rc_request request)
{
	r->client.waiting = true;
	r->client.id = client;
	r->client.request = request;
	arm(r, RC_T_CLIENT, CLIENT_MS);
}

static void cut_all_up(struct reconnect *r)
{
	abandon_work(r);
	for (unsigned i = 0; i < r->config.connections; i++)
		if (r->conn[i].state == RC_UP)
			mark_down(r, &r->conn[i]);
}

static void pause_device(struct reconnect *r, unsigned client)
{
	if (check_known(r, "there is no pause until", &r->refusal)) {
		reply_to(r, client, &r->refusal);
		return;
	}
	if (r->phase == RC_RESIZING) {
		refuse_client(r, client, "the device grows at this moment");
		return;
	}
	if (!r->durable.paused)
		add_note(r, RC_NOTE_PAUSED);
	r->durable.paused = true;
	r->changed = true;
	wait_for_request(r, client, RC_ASK_PAUSE);
	cut_all_up(r);
	arm(r, RC_T_NOTICE, RC_NOTICE_MS);
	choose_phase(r);
}

static bool is_cut(const struct reconnect *r)
{
	for (unsigned i = 0; i < r->config.connections; i++)
		if (r->conn[i].state != RC_DOWN || !r->conn[i].reported)
			return false;
	return true;
}

static void resume_device(struct reconnect *r, unsigned client)
{
	r->durable.paused = false;
	r->changed = true;
	r->rounds = r->flaps = r->tried = 0;
	r->hold_until = r->now;
	wait_for_request(r, client, RC_ASK_RESUME);
	if (r->phase == RC_PAUSED || r->phase == RC_BACKING_OFF)
		choose_phase(r);
}

static bool is_whole(const struct reconnect *r)
{
	return !count_in(r, LOST);
}

static void rescan_servers(struct reconnect *r, unsigned client)
{
	if (r->phase != RC_WATCHING) {
		refuse_client(r, client,
			      "it is paused or reconnecting; the size is looked at then");
		return;
	}
	r->refused_size = 0;
	r->renew_after = r->now;
	wait_for_request(r, client, RC_ASK_RESCAN);
	dial_server(r, RC_RESCAN, 0, 0);
}

static bool is_rescanned(const struct reconnect *r)
{
	return !(r->phase == RC_DIALING && r->purpose == RC_RESCAN) &&
	       wanted_size(r) == r->durable.size;
}

static void rescan_next(struct reconnect *r, int ret, struct err *e)
{
	if (!ret && r->server + 1 < r->config.servers) {
		dial_server(r, RC_RESCAN, r->server + 1, 0);
		return;
	}
	if (ret && r->config.servers > 1)
		err_wrap(e, "server %u of %u", r->server + 1, r->config.servers);
	if (!ret && wanted_size(r) > r->durable.size)
		ret = check_known(r, "the device grows when", e);
	if (ret)
		fail_rescan(r, e);
	choose_phase(r);
}

/* For a forced detach: nothing is sent any more, and the device is let alone for a while. */
static void abort_connections(struct reconnect *r, unsigned client)
{
	cut_all_up(r);
	r->hold_until = r->now + ABORT_MS;
	reply_to(r, client, NULL);
	choose_phase(r);
}

static void hand_device_over(struct reconnect *r, unsigned client)
{
	if (r->busy || may_be_taken(r) || r->unattributed || count_in(r, CUTTING)) {
		refuse_client(r, client,
			      "the supervisor waits for the kernel or the end of a connection");
		return;
	}
	enter_phase(r, RC_HANDING_OVER);
	r->busy = true;
	queue_action(r, RC_HAND_OVER)->client = client;
}

static const struct {
	void (*start)(struct reconnect *r, unsigned client);
	bool (*is_done)(const struct reconnect *r);
} requests[] = {
	[RC_ASK_PAUSE] = { pause_device, is_cut },
	[RC_ASK_RESUME] = { resume_device, is_whole },
	[RC_ASK_RESCAN] = { rescan_servers, is_rescanned },
	[RC_ASK_ABORT] = { abort_connections, NULL },
	[RC_ASK_HAND_OVER] = { hand_device_over, NULL },
};

static void client_asks(struct reconnect *r, const struct rc_event *ev)
{
	bool ending = r->phase == RC_DISCONNECTING || r->phase == RC_HANDING_OVER;

	if (ev->request != RC_ASK_ABORT && r->client.waiting)
		refuse_client(r, ev->client, "the supervisor does something for somebody else");
	else if (ev->request != RC_ASK_ABORT && ending)
		refuse_client(r, ev->client, "the supervisor is about to end");
	else
		requests[ev->request].start(r, ev->client);
}

/* --- other events ----------------------------------------------------------------------------- */

static void candidate_ended(struct reconnect *r, const struct rc_event *ev)
{
	if (!(r->candidates & UINT64_C(1) << ev->candidate))
		return;
	if (ev->candidate != first_candidate(r)) {
		drop_candidate(r, ev->candidate);
		return;
	}
	r->ended = true;
	if (!r->busy)
		candidate_has_ended(r);
}

static void cut_done(struct reconnect *r, struct rc_conn *c)
{
	if (c->state != RC_CUTTING)
		return;
	c->state = c->doubtful ? RC_DOUBTFUL : RC_DOWN;
	wake_offer(r);
}

static void link_dead(struct reconnect *r, bool lost)
{
	struct rc_conn *c = find_oldest(r, GONE, true);

	fence_server(r);
	if (lost)
		report_all(r);
	if (lost && r->config.request_timeout_s) {
		doubt_unwatched(r);
	} else if (c) {
		c->reported = true;
	} else {
		r->unattributed++;
		arm(r, RC_T_NOTICE, RC_NOTICE_MS);
		disarm(r, RC_T_GIVE_UP);
	}
	if (r->phase == RC_CONFIRMING)
		choose_phase(r);
	wake_offer(r);
}

static void dial_done(struct reconnect *r, const struct rc_event *ev)
{
	unsigned count = ev->ret ? 0 : ev->count;
	int ret = ev->ret;
	struct err e;

	r->dialing = false;
	r->candidates = count ? UINT64_MAX >> (PLAN_CONNECTIONS_MAX - count) : 0;
	r->kernel_tls = ev->kernel_tls && r->config.tls_renew;
	/* nbd-server opens the export only for the transmission phase, and says 0 before. */
	if (!ret && !r->asked && !ev->export->size) {
		dial_server(r, r->purpose, r->server, 1);
		return;
	}
	/* The size of a server that is refused counts as the device's: nothing grows beyond it. */
	if (!ret)
		ret = plan_replacement(r->config.plan, r->durable.size, r->config.export_name,
				       ev->export, &r->durable.server_size[r->server], &e);
	else
		e = *ev->err;
	r->changed = true;
	if (r->purpose == RC_RESCAN) {
		rescan_next(r, ret, &e);
	} else if (r->purpose == RC_RENEW && ret) {
		refuse_renewal(r, &e);
	} else if (r->purpose == RC_RENEW) {
		start_draining(r, RC_RENEW, RENEW_QUIET_MS);
	} else if (ret) {
		fail_attempt(r, &e);
	} else {
		if (r->kernel_tls)
			queue_action(r, RC_READ_TRAFFIC);
		offer_next(r);
	}
}

static void take_event(struct reconnect *r, const struct rc_event *ev)
{
	switch (ev->type) {
	case RC_TICK:
		break;
	case RC_SOCKET_ENDED:
		if (r->conn[ev->conn].state == RC_UP)
			lose_connection(r, &r->conn[ev->conn]);
		break;
	case RC_CANDIDATE_ENDED:
		candidate_ended(r, ev);
		break;
	case RC_CUT_DONE:
		cut_done(r, &r->conn[ev->conn]);
		break;
	case RC_LINK_DEAD:
		link_dead(r, ev->lost);
		break;
	case RC_DIAL_DONE:
		dial_done(r, ev);
		break;
	case RC_COMMAND_DONE:
		command_done(r, ev);
		break;
	case RC_TRAFFIC:
		traffic_read(r, ev);
		break;
	case RC_CLIENT:
		client_asks(r, ev);
		break;
	case RC_CLIENT_GONE:
		if (r->client.waiting && r->client.id == ev->client)
			forget_client(r);
		break;
	case RC_HANDED_OVER:
		r->busy = false;
		if (ev->ret) {
			choose_phase(r);
			break;
		}
		add_note(r, RC_NOTE_SUCCEEDED);
		end_supervision(r);
		break;
	case RC_DETACHED:
		add_note(r, RC_NOTE_DETACHED);
		end_supervision(r);
		break;
	}
}

/* --- the machine ------------------------------------------------------------------------------ */

/* What follows from the state, whatever led to it. */
static void review_state(struct reconnect *r)
{
	bool idle = r->phase == RC_WATCHING || r->phase == RC_DRAINING ||
		    (r->phase == RC_DIALING && r->purpose != RC_REPLACE);
	uint32_t limit_s = r->config.reconnect_timeout_s;

	if (idle && count_in(r, LOST))
		choose_phase(r);
	if (!limit_s || r->durable.paused || !all_in(r, GONE))
		disarm(r, RC_T_GIVE_UP);
	else if (r->timer[RC_T_GIVE_UP] == RC_NEVER)
		arm(r, RC_T_GIVE_UP, 1000LL * limit_s);
	if (r->client.waiting && requests[r->client.request].is_done(r))
		answer_client(r, NULL);
}

static void settle_state(struct reconnect *r)
{
	do {
		if (r->phase == RC_ENDED)
			return;
		review_state(r);
	} while (fire_timer(r));
}

void reconnect_init(struct reconnect *r, const struct rc_config *config, long long now)
{
	memset(r, 0, sizeof(*r));
	r->config = *config;
	r->durable = config->durable;
	memcpy(r->conn, config->conn, sizeof(r->conn));
	r->now = now;
	r->random = config->seed;
	r->lost_since = count_in(r, LOST) ? now : RC_NEVER;
	r->changed = true;
	if (count_in(r, LOST) && r->durable.fenced_until < now + 1000LL * config->fence_delay_s)
		fence_server(r);
	for (unsigned i = 0; i < RC_TIMERS; i++)
		disarm(r, i);
	if (r->durable.paused)
		cut_all_up(r);
	choose_phase(r);
	settle_state(r);
}

void reconnect_event(struct reconnect *r, const struct rc_event *ev, long long now)
{
	if (r->phase == RC_ENDED)
		return;
	r->now = now;
	take_event(r, ev);
	settle_state(r);
}

bool reconnect_action(struct reconnect *r, struct rc_action *a)
{
	if (r->changed) {
		r->changed = false;
		*a = (struct rc_action){ .type = RC_PUBLISH };
		return true;
	}
	if (r->taken == r->queued) {
		r->taken = r->queued = 0;
		return false;
	}
	*a = r->queue[r->taken++];
	return true;
}

long long reconnect_deadline(const struct reconnect *r)
{
	long long when = RC_NEVER;

	for (unsigned i = 0; i < RC_TIMERS; i++)
		if (r->timer[i] != RC_NEVER && (when == RC_NEVER || r->timer[i] < when))
			when = r->timer[i];
	return when;
}

const struct rc_durable *reconnect_durable(const struct reconnect *r)
{
	return &r->durable;
}

void reconnect_status(const struct reconnect *r, struct rc_status *s)
{
	*s = (struct rc_status){
		.phase = r->phase,
		.alive = count_in(r, UP | UNWATCHED),
		.reconnects = r->reconnects,
		.failures = r->failures,
		.last_error = &r->error,
	};
}
