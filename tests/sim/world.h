/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * world: one seed is one world, with one device, its servers, its supervisor and whoever else
 * touches them. This module has the clock, the queue of events, the only random number
 * generator, the story that is told with -v, and the end of a world that breaks a rule. The
 * parts are modelled in the modules that it includes. Nothing here reads a real clock or opens
 * anything.
 *
 * The time is that of CLOCK_BOOTTIME, in milliseconds. A suspend moves it forward: what this
 * machine had scheduled is put off, what happens elsewhere is not.
 */
#ifndef NBD_ATTACH_SIM_WORLD_H
#define NBD_ATTACH_SIM_WORLD_H

#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>

#include "app.h"
#include "chaos.h"
#include "client.h"
#include "command.h"
#include "contract.h"
#include "dialer.h"
#include "driver.h"
#include "healing.h"
#include "limits.h"
#include "net.h"
#include "server.h"
#include "shell.h"

/* What must hold in every world: the rules of docs/architecture.md, and those of reconnect.h. */
enum rule {
	RULE_PROGRESS,   /* all connections are up again, and then nothing is due */
	RULE_ONE_SLOT,   /* a socket stands in one slot */
	RULE_OURS,       /* no command and no socket for a device that is not ours */
	RULE_ONE_SERVER, /* one server at a time, the fence, and only an export that fits */
	RULE_SIZE,       /* the device never outgrows a server or a connection */
	RULE_DURABLE,    /* pause, fence and server survive the supervisor */
	RULE_ANSWER,     /* one answer to each client, in time */
	RULE_BOUNDED,    /* attempts and offers come at a bounded rate */
	RULE_AT_ONCE,    /* all lost connections are asked for at once */
	RULE_DATA,       /* no write is lost, none is executed too late */
	RULE_CONTRACT,   /* order of actions and events as in reconnect.h */
	RULES,
};

/* What the driver or the protocol makes impossible: seen, counted and let pass. */
enum excuse {
	EXCUSE_FENCE,     /* a write that a server kept for longer than the fence */
	EXCUSE_UNFLUSHED, /* acknowledged writes that a crash took from a volatile cache */
	EXCUSE_FROZEN,    /* the queue was frozen for a resize when its last connection died */
	EXCUSE_ASTRAY, /* another tool changed the device between the comparison and the command */
	EXCUSE_UNSEEN, /* timeout 0 gives no sign of a connection that is used still */
	EXCUSE_LINGER, /* a killed supervisor's connection sent after it what was in its queue */
	EXCUSES,
};

/* Faults planted in the models around the core, to prove that the rules can be broken. */
enum plant {
	PLANT_NOTHING,
	PLANT_NO_IDENTITY,    /* commands do not compare identities */
	PLANT_NO_REPLY,       /* some answers are forgotten */
	PLANT_TWO_REPLIES,    /* some clients are answered twice */
	PLANT_NO_CUT,         /* connections are let go without being cut */
	PLANT_CUT_DONE_EARLY, /* the end of a cut is told at once, whatever is still queued */
	PLANT_FORGETFUL,      /* an adopted device has an empty record */
	PLANT_NEVER_TAKEN,    /* offers seem never to be taken */
	PLANT_ALWAYS_TAKEN,   /* offers seem always to be taken */
	PLANT_DIAL_LOST,      /* some dials are never answered */
	PLANT_REFUSED,        /* a silent server seems to refuse */
	PLANT_OTHER_SERVER,   /* some dials reach the other server */
	PLANT_SIZE_MADE_UP,   /* some exports seem larger than they are */
	PLANTS,
};

/* Given on the command line; -1: chosen by the seed. */
struct options {
	int connections, request_timeout_s, servers, adopted, kernel_tls;
	enum plant plant;
	bool story;
};

/* Chosen by the seed, the same for the whole life of a world. */
struct setting {
	unsigned connections, servers;
	uint32_t request_timeout_s;
	bool adopted, kernel_tls;
	uint32_t reconnect_timeout_s, fence_delay_s, attempt_timeout_ms;
	uint64_t tls_renew;
	bool volatile_cache; /* a server that is killed loses what was not flushed */
	bool write_through;  /* servers have no cache */
	bool freezes;        /* kernels 6.12 and 7.2: RESIZE waits for all requests */
	bool stalls;         /* kernel 7.2: a slot may take long to be dead */
	bool smp;            /* LINK_DEAD may come before the slot is dead */
	bool loses_notices;  /* the queue of events runs over at times */
	unsigned late_ms;    /* the supervisor may wake up so late */
	unsigned clog;       /* one request in so many is slow to leave */
};

struct world;
typedef void world_fn(struct world *w, unsigned a, unsigned b);

struct world_event {
	long long at;
	world_fn *run;
	unsigned order, a, b;
	bool local; /* put off by a suspend */
};

enum { WORLD_EVENTS = 4096 };

struct world {
	struct options options;
	struct setting set;
	uint64_t seed, random;
	long long now;
	long long jumped; /* total of all suspends */
	unsigned steps;
	bool over;
	unsigned excuses[EXCUSES];
	struct chaos chaos;
	struct healing healing;
	struct app app;
	struct dialer dialer;
	struct command command;
	struct contract contract;
	struct driver driver;
	struct server server[SIM_SERVERS + 1];
	unsigned disk[SIM_BLOCKS]; /* stable storage of our export: version of each block */
	struct client_list clients;
	struct shell shell;
	struct net net;

	enum rule broken;
	char failure[300];
	jmp_buf failed;
	unsigned events, last_order;
	struct world_event heap[WORLD_EVENTS];
};

/* Lives through the world of one seed: 0, or -1 when a rule was broken (broken, failure). */
int world_run(struct world *w, const struct options *o, uint64_t seed);

/* From 0 to n - 1. */
unsigned world_random(struct world *w, unsigned n);

/* True once in n times. */
bool world_chance(struct world *w, unsigned n);

/* run(w, a, b) in ms milliseconds, on this machine or elsewhere. */
void world_after(struct world *w, long long ms, world_fn *run, unsigned a, unsigned b);
void world_after_elsewhere(struct world *w, long long ms, world_fn *run, unsigned a, unsigned b);

/* A suspend of ms milliseconds. */
void world_suspend(struct world *w, long long ms);

_Noreturn void world_fail(struct world *w, enum rule rule, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

const char *world_rule_name(enum rule rule);
const char *world_excuse_name(enum excuse excuse);

void world_tell(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
#define STORY(w, ...)                               \
	do {                                        \
		if ((w)->options.story)             \
			world_tell(w, __VA_ARGS__); \
	} while (0)

#endif
