/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "world.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum {
	STEPS_MAX = 200000, /* events of one world; more is a loop */
	BEGIN_MS = 1000000,
};

static const char *const rule_names[RULES] = {
	[RULE_PROGRESS] = "progress", [RULE_ONE_SLOT] = "one slot",
	[RULE_OURS] = "ours",         [RULE_ONE_SERVER] = "one server",
	[RULE_SIZE] = "size",         [RULE_DURABLE] = "durable",
	[RULE_ANSWER] = "answer",     [RULE_BOUNDED] = "bounded",
	[RULE_AT_ONCE] = "at once",   [RULE_DATA] = "data",
	[RULE_CONTRACT] = "contract",
};

static const char *const excuse_names[EXCUSES] = {
	[EXCUSE_FENCE] = "kept beyond the fence",
	[EXCUSE_UNFLUSHED] = "unflushed writes lost",
	[EXCUSE_FROZEN] = "connection lost in a resize",
	[EXCUSE_ASTRAY] = "device changed under a command",
	[EXCUSE_UNSEEN] = "connection in use unseen",
	[EXCUSE_LINGER] = "queue of a killed supervisor",
};

const char *world_rule_name(enum rule rule)
{
	return rule_names[rule];
}

const char *world_excuse_name(enum excuse excuse)
{
	return excuse_names[excuse];
}

/* splitmix64 */
static uint64_t next_number(struct world *w)
{
	uint64_t z = w->random += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

unsigned world_random(struct world *w, unsigned n)
{
	return (unsigned)((next_number(w) >> 32) * n >> 32);
}

bool world_chance(struct world *w, unsigned n)
{
	return !world_random(w, n);
}

/* --- the queue of events: a binary heap --------------------------------------------------- */

static bool is_before(const struct world_event *a, const struct world_event *b)
{
	return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void sift_up(struct world *w, unsigned i, struct world_event e)
{
	for (; i && is_before(&e, &w->heap[(i - 1) / 2]); i = (i - 1) / 2)
		w->heap[i] = w->heap[(i - 1) / 2];
	w->heap[i] = e;
}

static struct world_event take_first(struct world *w)
{
	struct world_event first = w->heap[0], last = w->heap[--w->events];
	unsigned i = 0, child;

	for (; (child = 2 * i + 1) < w->events; i = child) {
		if (child + 1 < w->events && is_before(&w->heap[child + 1], &w->heap[child]))
			child++;
		if (!is_before(&w->heap[child], &last))
			break;
		w->heap[i] = w->heap[child];
	}
	w->heap[i] = last;
	return first;
}

static void add_event(struct world *w, long long ms, world_fn *run, unsigned a, unsigned b,
		      bool local)
{
	struct world_event e = { w->now + ms, run, ++w->last_order, a, b, local };

	if (w->events == WORLD_EVENTS)
		world_fail(w, RULE_BOUNDED, "more than %u events are due", WORLD_EVENTS);
	sift_up(w, w->events++, e);
}

void world_after(struct world *w, long long ms, world_fn *run, unsigned a, unsigned b)
{
	add_event(w, ms, run, a, b, true);
}

void world_after_elsewhere(struct world *w, long long ms, world_fn *run, unsigned a, unsigned b)
{
	add_event(w, ms, run, a, b, false);
}

void world_suspend(struct world *w, long long ms)
{
	unsigned count = w->events;

	STORY(w, "machine: suspended for %lld ms", ms);
	w->now += ms;
	w->jumped += ms;
	w->events = 0;
	for (unsigned i = 0; i < count; i++) {
		struct world_event e = w->heap[i];

		e.at += e.local ? ms : 0;
		sift_up(w, w->events++, e);
	}
}

/* --- the story, and its end --------------------------------------------------------------- */

void world_tell(struct world *w, const char *fmt, ...)
{
	va_list args;

	printf("%10.3f  ", (double)(w->now - BEGIN_MS) / 1e3);
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	putchar('\n');
}

void world_fail(struct world *w, enum rule rule, const char *fmt, ...)
{
	va_list args;

	w->broken = rule;
	va_start(args, fmt);
	vsnprintf(w->failure, sizeof(w->failure), fmt, args);
	va_end(args);
	longjmp(w->failed, 1);
}

/* --- a world ------------------------------------------------------------------------------ */

static unsigned pick(struct world *w, int option, unsigned chosen)
{
	(void)w;
	return option >= 0 ? (unsigned)option : chosen;
}

static void choose_setting(struct world *w)
{
	static const unsigned connections[] = { 1, 2, 4 };
	const struct options *o = &w->options;
	struct setting *s = &w->set;

	s->connections = pick(w, o->connections, connections[world_random(w, 3)]);
	s->request_timeout_s = pick(w, o->request_timeout_s, world_random(w, 2) * 30);
	if (s->connections > 1)
		s->request_timeout_s = 30;
	s->servers = pick(w, o->servers, 1 + world_random(w, 2));
	s->adopted = pick(w, o->adopted, world_random(w, 2));
	s->kernel_tls = pick(w, o->kernel_tls, world_random(w, 2));
	s->fence_delay_s = world_chance(w, 8) ? 0 : 5 + world_random(w, 3) * 5;
	s->reconnect_timeout_s = world_chance(w, 8) ? 5 + world_random(w, 60) : 0;
	s->attempt_timeout_ms = world_chance(w, 2) ? 3000 : 10000;
	s->tls_renew = s->kernel_tls && world_chance(w, 2) ? 400 + world_random(w, 4000) : 0;
	s->volatile_cache = world_chance(w, 2);
	s->write_through = world_chance(w, 3);
	s->freezes = world_chance(w, 2);
	s->stalls = world_chance(w, 4);
	s->smp = world_chance(w, 2);
	s->loses_notices = world_chance(w, 3);
	s->late_ms = world_chance(w, 3) ? 1 + world_random(w, 2000) : 0;
	s->clog = world_chance(w, 3) ? 2 : 10;
}

/* What is read before it is set; the large arrays are not. */
static void begin(struct world *w, const struct options *o, uint64_t seed)
{
	w->options = *o;
	w->seed = seed;
	w->random = seed * UINT64_C(0xd1342543de82ef95) + 1;
	w->now = BEGIN_MS;
	w->jumped = 0;
	w->steps = 0;
	w->over = false;
	memset(w->excuses, 0, sizeof(w->excuses));
	w->events = w->last_order = 0;
	choose_setting(w);
	STORY(w, "seed %llu: connections %u, timeout %u, servers %u, %s, %s, fence %u, give up %u",
	      (unsigned long long)seed, w->set.connections, w->set.request_timeout_s,
	      w->set.servers, w->set.adopted ? "adopted" : "fresh",
	      w->set.kernel_tls ? "kernel TLS" : "plain", w->set.fence_delay_s,
	      w->set.reconnect_timeout_s);
	STORY(w, "  %s%s%s%s%s%s, renewal after %llu records, late by up to %u ms",
	      w->set.volatile_cache ? "volatile cache" : "safe cache",
	      w->set.write_through ? " written through" : "", w->set.freezes ? ", freezes" : "",
	      w->set.stalls ? ", stalls" : "", w->set.smp ? ", SMP" : "",
	      w->set.loses_notices ? ", notices lost" : "", (unsigned long long)w->set.tls_renew,
	      w->set.late_ms);
	net_begin(w);
	server_begin(w);
	app_begin(w);
	driver_begin(w);
	dialer_begin(w);
	command_begin(w);
	client_begin(w);
	chaos_begin(w);
	healing_begin(w);
	contract_begin(w);
	shell_begin(w);
}

int world_run(struct world *w, const struct options *o, uint64_t seed)
{
	if (setjmp(w->failed)) {
		STORY(w, "BROKEN RULE (%s): %s", rule_names[w->broken], w->failure);
		return -1;
	}
	begin(w, o, seed);
	while (!w->over && w->events) {
		struct world_event e = take_first(w);

		if (e.at > w->now)
			w->now = e.at;
		if (++w->steps > STEPS_MAX)
			world_fail(w, RULE_BOUNDED, "no end after %u events", STEPS_MAX);
		e.run(w, e.a, e.b);
	}
	return 0;
}
