/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * negotiator_child: the process that talks to servers, and the messages that it exchanges with the
 * supervisor. It reads credentials, drops its privileges, answers questions, and ends when the
 * other end of its socket is closed. It parses what strangers send: nothing that it says may be
 * believed unchecked. It never touches a device.
 */
#ifndef NBD_ATTACH_NEGOTIATOR_CHILD_H
#define NBD_ATTACH_NEGOTIATOR_CHILD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "kernel/sandbox.h"
#include "net/connect.h"
#include "policy/plan.h"
#include "policy/settings.h"

/* Sockets beside a question, with spare ones for plan_multi's guard. */
enum { NEGOTIATOR_CONNECTED_MAX = PLAN_CONNECTIONS_MAX + 8 };

struct negotiator_params {
	const char *user; /* user that root becomes, see struct sandbox */
	bool lenient;     /* neither filter nor limits: for valgrind, see struct sandbox */
};

/*
 * Messages are whole structs, since both ends are one program: another length is an error. The
 * supervisor's:
 */
struct negotiator_question {
	bool cancel;
	uint32_t number; /* from 1 on */
	uint32_t server;
	uint32_t goal;
	uint32_t timeout_ms;
	struct plan_multi multi;
};

/* The child's. The first one has number 0 and reports its start. */
struct negotiator_answer {
	uint32_t number;
	int32_t ret;
	struct sandbox_result confined;
	struct err err;
	struct connections connections; /* its descriptors come beside the message */
};

/* Number of the message that reports the death of the process that talked for a vital device. */
#define NEGOTIATOR_DIED UINT32_MAX

/* The child's whole life, with fd as the only descriptor that it keeps. */
_Noreturn void negotiator_child_run(int fd, const struct settings *settings,
				    const struct negotiator_params *params);

#endif
