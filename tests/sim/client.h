/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * client: commands of people and programs to the supervisor: pause, resume, rescan, abort (a
 * detach that must not wait), hand-over. Each waits for one answer; some hang up before it
 * comes. What an answer promises is checked here.
 */
#ifndef NBD_ATTACH_SIM_CLIENT_H
#define NBD_ATTACH_SIM_CLIENT_H

#include <stdbool.h>

#include "policy/reconnect.h"

struct world;

enum { CLIENTS = 256 };

enum client_state { CLIENT_WAITS, CLIENT_ANSWERED, CLIENT_HUNG_UP };

struct client {
	enum client_state state;
	enum rc_request request;
	long long asked, jumped;
	int ret;
	bool was_paused; /* the device, when the client asked */
};

struct client_list {
	struct client client[CLIENTS];
	unsigned count;
	bool paused;           /* an answer has promised that all I/O waits */
	long long abort_until; /* the device is let alone until then, unless somebody resumes it */
	long long aborted_at;  /* last forced detach */
	long long changed_at;  /* last change of a server's size or state */
};

void client_begin(struct world *w);

/* A new client asks; its number. */
unsigned client_ask(struct world *w, enum rc_request request);

/* The supervisor answers. */
void client_reply(struct world *w, unsigned client, int ret, const char *text);

/* The client has the descriptors, which are its answer. */
void client_handed(struct world *w, unsigned client);

void client_hang_up(struct world *w, unsigned client);

/* The supervisor is gone: whoever waits sees that. */
void client_orphan(struct world *w);

unsigned client_waiting(const struct world *w);

/* Fails if one has waited for too long, or if any waits and none may. */
void client_check(struct world *w, bool may_wait);

#endif
