/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "daemon/stopper.h"

#include <errno.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/detach.h"
#include "net/blocking_child.h"

enum {
	AGAIN_MS = 1000,
	SILENCE_MS = 20000, /* a detach gives a silent server up */
};

_Noreturn static void detach_in_child(const struct stopper *s)
{
	const struct detach_request rq = { .index = s->index, .silence_ms = SILENCE_MS };
	struct detach_result r;
	struct err e;
	int ret = detach_run(&rq, &r, &e);

	if (ret && s->logged != EBUSY)
		log_say(s->log, LOG_LEVEL_ERROR, "nbd%u: not detached%s: %s", s->index,
			s->persistent ? " yet" : "", e.text);
	_exit(ret ? 1 : 0);
}

static void try_again(struct stopper *s, int code)
{
	s->logged = code;
	s->due_ms = boottime_ms() + AGAIN_MS;
}

void stopper_start(struct stopper *s)
{
	int code;

	s->due_ms = -1;
	if (s->pid)
		return;
	if (!s->logged)
		log_say(s->log, LOG_LEVEL_NOTICE, "nbd%u: asked to stop, detaching", s->index);
	s->pid = fork();
	if (!s->pid)
		detach_in_child(s);
	if (s->pid > 0)
		return;
	code = errno;
	s->pid = 0;
	if (s->logged != code)
		log_say(s->log, LOG_LEVEL_ERROR, "nbd%u: cannot start the detach, trying again: %s",
			s->index, strerror(code));
	try_again(s, code);
}

bool stopper_reap(struct stopper *s)
{
	if (!s->pid || waitpid(s->pid, NULL, WNOHANG) != s->pid)
		return false;
	s->pid = 0;
	return true;
}

void stopper_refused(struct stopper *s)
{
	if (s->persistent)
		try_again(s, EBUSY);
}
