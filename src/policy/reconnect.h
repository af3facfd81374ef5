/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * reconnect: what is to be done about the connections of one attached device. A state machine
 * without I/O: events and the time go in, actions come out. It holds no descriptor, reads no clock
 * and never allocates. daemon/supervise carries the actions out; tests/sim runs it against a model
 * of the kernel's driver.
 *
 *	reconnect_init(&r, &config, now);
 *	for (;;) {
 *		while (reconnect_action(&r, &a))
 *			carry_out(&a);
 *		wait for an event, until reconnect_deadline(&r);
 *		reconnect_event(&r, &event, now);
 *	}
 *
 * Times are milliseconds of CLOCK_BOOTTIME (so that a fence holds over a suspend and over the
 * supervisor's death); RC_NEVER is no time. Every deadline is judged by the time that an event
 * carries, so that it does not matter how late the caller wakes up.
 *
 * An action that "ends in" an event is under way until that event; at most one dial and one command
 * (OFFER, PROBE, RESIZE, DISCONNECT) are under way at a time. All actions of one event are taken
 * and carried out before the next event is told.
 */
#ifndef NBD_ATTACH_RECONNECT_H
#define NBD_ATTACH_RECONNECT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "policy/plan.h"
#include "policy/rc_conn.h"
#include "policy/renew.h"
#include "proto/export.h"

#define RC_NEVER (-1LL)

enum {
	RC_SERVERS_MAX = 8,
	RC_NOTICE_MS = 300, /* the driver reports a death within this time, or not at all */
	/* Above what one event leads to: all connections cut, all candidates dropped, and a few. */
	RC_ACTIONS_MAX = 2 * PLAN_CONNECTIONS_MAX + 16,
};

enum rc_phase {
	RC_WATCHING,    /* nothing to do */
	RC_CONFIRMING,  /* a connection ended unreported: was it lost, or is the device detached? */
	RC_BACKING_OFF, /* waiting for the next attempt */
	RC_DIALING,     /* the negotiator is connecting */
	RC_DRAINING,    /* waiting for a moment without requests */
	RC_OFFERING,    /* the candidates are given to the driver, one at a time */
	RC_RESIZING,    /* the device grows */
	RC_PAUSED,      /* an operator lets all I/O wait */
	RC_DISCONNECTING, /* the device is given up */
	RC_HANDING_OVER,  /* a successor receives the descriptors */
	RC_ENDED,
	RC_PHASES,
};

/* Purpose of DIALING and DRAINING; OFFERING always replaces. It ends with the phase. */
enum rc_purpose {
	RC_REPLACE, /* connections that are down, or doubtful */
	RC_RENEW, /* one live connection: its keys are worn out, or it does not know the new size */
	RC_RESCAN, /* a client wants the size looked at, on every server */
	RC_GROW,   /* DRAINING: every connection knows the new size */
};

/* Of those that are due at the same time the first comes first. */
enum rc_timer {
	RC_T_NOTICE,  /* end of the wait for the driver's report, or for the socket of a report */
	RC_T_GIVE_UP, /* end of --reconnect-timeout */
	RC_T_PHASE,   /* next step of the phase */
	RC_T_RENEW,   /* WATCHING: next look at the TLS records, next renewal */
	RC_T_GROW,    /* WATCHING: next try to grow */
	RC_T_CLIENT,  /* the waiting client gets an answer by then */
	RC_T_COMMAND, /* a command hangs: time to say so */
	RC_TIMERS,
};

/* What survives a supervisor: kept in the record and handed over. */
struct rc_durable {
	bool paused;
	unsigned server; /* in use, or the last one in use */
	long long
		fenced_until; /* servers other than that one wait until then; RC_NEVER: no fence */
	uint64_t size;        /* size of the device; bytes */
	uint64_t server_size[RC_SERVERS_MAX]; /* as each server said last; bytes, 0: it has not */
};

struct rc_config {
	unsigned connections; /* slots of the driver */
	unsigned servers;     /* 1 to RC_SERVERS_MAX */
	uint32_t
		request_timeout_s; /* NBD_ATTR_TIMEOUT; 0: the driver does not show what it takes */
	uint32_t reconnect_timeout_s; /* 0: never give up */
	uint32_t fence_delay_s;
	uint64_t tls_renew;      /* records; 0: never */
	const struct plan *plan; /* the plan of the attach; stays the caller's */
	const char *export_name; /* canonical, or ""; stays the caller's */
	uint32_t seed;           /* seed of the back-off's jitter */
	struct rc_durable durable;
	/*
	 * First state of each connection: UP, UNWATCHED, DOUBTFUL, or DOWN for one known to be
	 * dead. With request_timeout_s == 0 there is one connection only, and it is not DOUBTFUL.
	 */
	struct rc_conn conn[PLAN_CONNECTIONS_MAX];
};

enum rc_event_type {
	RC_TICK,            /* the deadline has come */
	RC_SOCKET_ENDED,    /* conn: poll reports the end of an UP connection */
	RC_CANDIDATE_ENDED, /* candidate: the same of one not yet installed */
	RC_CUT_DONE,        /* conn: nothing of it can reach its server any more */
	RC_LINK_DEAD,       /* NBD_CMD_LINK_DEAD of this device; lost: the queue ran over */
	RC_DIAL_DONE,    /* ret, err; or count candidates, kept by the caller, export, kernel_tls */
	RC_COMMAND_DONE, /* result, err; taken for OFFER */
	RC_TRAFFIC,      /* ret; or requests, bytes, in_flight */
	RC_CLIENT,       /* client, request */
	RC_CLIENT_GONE,  /* client: it hung up */
	RC_HANDED_OVER,  /* ret: 0 when the successor has the descriptors */
	RC_DETACHED,     /* the device is not ours any more */
};

enum rc_request { RC_ASK_PAUSE, RC_ASK_RESUME, RC_ASK_RESCAN, RC_ASK_ABORT, RC_ASK_HAND_OVER };

enum rc_result {
	RC_OK,
	RC_FAILED,
	RC_DISCONNECTED, /* the driver does not know the device as connected (EINVAL) */
	RC_NOT_OURS,     /* identity differs: nothing was sent, or the socket was cut */
};

struct rc_event {
	enum rc_event_type type;
	unsigned conn, candidate, count;
	bool lost, taken, kernel_tls;
	int ret; /* 0 or -errno */
	enum rc_result result;
	const struct err *err;       /* a failure's; copied */
	const struct export *export; /* copied as far as it matters */
	uint64_t requests, bytes, in_flight;
	unsigned client; /* the caller's name for who asks */
	enum rc_request request;
};

enum rc_action_type {
	RC_DIAL, /* server, count connections (0: only look, NEG_GOAL_INFO); ends in DIAL_DONE */
	RC_CANCEL_DIAL,  /* no DIAL_DONE follows */
	RC_OFFER,        /* candidate, by NBD_CMD_RECONFIGURE; ends in COMMAND_DONE */
	RC_PROBE,        /* NBD_CMD_RECONFIGURE without a socket; ends in COMMAND_DONE */
	RC_RESIZE,       /* size; ends in COMMAND_DONE */
	RC_DISCONNECT,   /* ends in COMMAND_DONE */
	RC_INSTALL,      /* candidate is connection conn from now on */
	RC_DROP,         /* cut and close candidate */
	RC_CUT,          /* cut and close connection conn; ends in CUT_DONE */
	RC_READ_TRAFFIC, /* ends in TRAFFIC */
	RC_REPLY,        /* client, ret, err (NULL when ret is 0) */
	RC_HAND_OVER,    /* client gets the descriptors; ends in HANDED_OVER; no REPLY follows */
	RC_NOTE,         /* note, for the log */
	RC_PUBLISH,      /* status or record changed; the first action of its event */
	RC_END,          /* ret, err (NULL when ret is 0); the last one */
};

/*
 * Duties of the caller, as they need its eyes:
 * - DIAL, READ_TRAFFIC: it first looks whether the device is still its own, and tells DETACHED
 *   where it is not. Each command compares identity once more, directly before it is sent
 *   (NOT_OURS).
 * - COMMAND_DONE: it looks at all sockets before it tells it, and tells those that have ended.
 * - OFFER works on a copy of the descriptor: the candidate may be dropped, or installed and cut,
 *   before COMMAND_DONE.
 */

/* What the log is told; the caller has the texts. */
enum rc_note {
	RC_NOTE_LOST,        /* number connections are lost */
	RC_NOTE_RECONNECTED, /* all are up again, after ms milliseconds */
	RC_NOTE_FAILED,   /* server, err: an attempt; the first of its kind, then once a minute */
	RC_NOTE_FLAPPING, /* number connections in turn did not last; once a minute */
	RC_NOTE_RENEWED,  /* conn: keys worn out */
	RC_NOTE_RENEWED_SIZE, /* conn: it did not know of the growth */
	RC_NOTE_NOT_RENEWED,  /* conn, err */
	RC_NOTE_GROWN,        /* size, from number */
	RC_NOTE_NOT_GROWN,    /* size, err */
	RC_NOTE_PAUSED,
	RC_NOTE_HANGS, /* a command has not come back */
	RC_NOTE_DETACHED,
	RC_NOTE_DISCONNECTED, /* err: disconnected while somebody has the device open */
	RC_NOTE_SUCCEEDED,    /* a successor has taken over */
	RC_NOTES,
};

struct rc_action {
	enum rc_action_type type;
	unsigned conn, candidate, server, count, client;
	enum rc_note note;
	int ret;
	uint64_t size, number;
	long long ms;
	const struct err *err; /* good until the next event */
};

/* For whoever shows how the device is. */
struct rc_status {
	enum rc_phase phase;
	unsigned alive;               /* connections in use by the driver, as far as is known */
	unsigned reconnects;          /* connections installed since reconnect_init */
	unsigned failures;            /* changes when last_error is a new one */
	const struct err *last_error; /* code 0: none so far; good until the next event */
};

/* Of interest to the functions below only. */
struct reconnect {
	struct rc_config config; /* durable and conn of it are the first values only */
	struct rc_durable durable;
	struct rc_conn conn[PLAN_CONNECTIONS_MAX];
	enum rc_phase phase;
	enum rc_purpose purpose;
	long long now; /* time of the event that is being taken */
	long long timer[RC_TIMERS];
	uint32_t random;

	unsigned unattributed;  /* LINK_DEAD events that no lost connection accounts for */
	long long lost_since;   /* begin of the outage; RC_NEVER: all connections are up */
	unsigned lost_unnoted;  /* connections lost since the last note of it */
	unsigned flaps;         /* connections in turn that did not last */
	long long flap_note_at; /* no further note of it before */

	bool dialing;         /* a dial is under way */
	unsigned server;      /* asked now, or last */
	unsigned asked;       /* connections asked for */
	unsigned tried;       /* servers of this round that have failed */
	unsigned rounds;      /* failed rounds over all servers since the last installation */
	bool silent;          /* the last failure was a server's silence */
	long long hold_until; /* no attempt before: a forced detach is under way */

	uint64_t candidates; /* bit i: the caller has candidate i */
	bool ended;          /* the candidate that is offered has ended */
	unsigned offers;     /* offers of the candidate so far */
	unsigned target;     /* connection to be renewed, or with a candidate that may be taken */
	bool kernel_tls;     /* the candidates have kernel TLS */

	bool busy; /* a command or a hand-over is under way: the phase stays until it is done */
	struct renew_quiet quiet;
	uint64_t records;      /* TLS records of the device at the last look */
	long long renew_after; /* no renewal before */
	uint64_t refused_size; /* the kernel did not grow to it; 0: none */

	struct {
		bool waiting;
		unsigned id;
		enum rc_request request;
	} client;

	unsigned reconnects, failures;
	struct err error;   /* the last failure */
	struct err answer;  /* to the waiting client */
	struct err refusal; /* to a client that does not wait */
	struct rc_noted {
		int code;
		long long again_at; /* no further note of the same failure before */
	} noted[RC_SERVERS_MAX];    /* last noted failure of each server */

	bool changed; /* status or durable: PUBLISH is due */
	struct rc_action queue[RC_ACTIONS_MAX];
	unsigned queued, taken;
};

/* The configuration is copied. Actions may be due at once. */
void reconnect_init(struct reconnect *r, const struct rc_config *config, long long now);

/* Told when all actions have been taken. now never goes back. After RC_END events are ignored. */
void reconnect_event(struct reconnect *r, const struct rc_event *ev, long long now);

/* The next action to be carried out; false: none. */
bool reconnect_action(struct reconnect *r, struct rc_action *a);

/* When RC_TICK is due; RC_NEVER: only an event can change anything. */
long long reconnect_deadline(const struct reconnect *r);

/* To be kept in the record and handed over; good until the next event. */
const struct rc_durable *reconnect_durable(const struct reconnect *r);

void reconnect_status(const struct reconnect *r, struct rc_status *s);

#endif
