/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "daemon/publish.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/text.h"

/*
 * Texts of the notes. %c: number of the connection, from 1 on; %C: connections of the device; %n:
 * number; %s: size; %t: duration; %p: server in use; %r: cause of a loss; %e: error.
 */
static const struct {
	enum log_level level;
	const char *text;
} notes[RC_NOTES] = {
	[RC_NOTE_LOST] = { LOG_LEVEL_WARNING, "lost %n of %C connections%r" },
	[RC_NOTE_RECONNECTED] = { LOG_LEVEL_NOTICE, "connected to %p again after %t" },
	[RC_NOTE_FAILED] = { LOG_LEVEL_WARNING, "cannot reconnect, trying again: %e" },
	[RC_NOTE_FLAPPING] = { LOG_LEVEL_WARNING,
			       "%n connections in turn did not last; the next ones wait longer" },
	[RC_NOTE_RENEWED] = { LOG_LEVEL_NOTICE,
			      "connection %c of %C is renewed, before its keys are worn out" },
	[RC_NOTE_RENEWED_SIZE] = { LOG_LEVEL_NOTICE,
				   "connection %c of %C is renewed, as the export has grown" },
	[RC_NOTE_NOT_RENEWED] = { LOG_LEVEL_WARNING,
				  "connection %c of %C cannot be renewed yet: %e" },
	[RC_NOTE_GROWN] = { LOG_LEVEL_NOTICE,
			    "the export has grown from %n to %s bytes, and so has the device" },
	[RC_NOTE_NOT_GROWN] = { LOG_LEVEL_ERROR, "cannot grow to %s bytes: %e" },
	[RC_NOTE_PAUSED] = { LOG_LEVEL_NOTICE, "paused: all I/O waits" },
	[RC_NOTE_HANGS] = { LOG_LEVEL_ERROR, "%e" },
	[RC_NOTE_DETACHED] = { LOG_LEVEL_NOTICE, "detached" },
	[RC_NOTE_DISCONNECTED] = { LOG_LEVEL_NOTICE,
				   "disconnected while somebody has it open: %e" },
	[RC_NOTE_SUCCEEDED] = { LOG_LEVEL_NOTICE, "another supervisor takes over" },
};

void publish_collect(struct publication *p, const struct rc_status *status,
		     const struct rc_durable *durable, const char *peer, int64_t now)
{
	if (p->reconnects != p->earlier + status->reconnects)
		snprintf(p->peer, sizeof(p->peer), "%s", peer);
	if (p->failures != status->failures) {
		p->error_time = now;
		snprintf(p->last_error, sizeof(p->last_error), "%.*s",
			 (int)sizeof(p->last_error) - 1, status->last_error->text);
	}
	p->failures = status->failures;
	p->alive = status->alive;
	p->reconnects = p->earlier + status->reconnects;
	p->durable = *durable;
}

void publish_cause(struct publication *p, unsigned request_timeout_s, int64_t now)
{
	p->cause[0] = '\0';
	if (!request_timeout_s)
		return;
	snprintf(p->cause, sizeof(p->cause),
		 "the server did not answer a request within %u s, the limit of --timeout",
		 request_timeout_s);
	snprintf(p->last_error, sizeof(p->last_error), "%s", p->cause);
	p->error_time = now;
}

void publish_status(const struct publication *p, char *text)
{
	size_t cap = PUBLISH_TEXT_MAX;

	if (p->durable.paused)
		snprintf(text, cap, "nbd%u: paused, all I/O waits", p->index);
	else if (p->alive == p->connections)
		snprintf(text, cap, "nbd%u: connected to %s", p->index,
			 p->peer[0] ? p->peer : "its server");
	else
		snprintf(text, cap, "nbd%u: %u of %u connections, reconnecting%s%s", p->index,
			 p->alive, p->connections, p->last_error[0] ? ": " : "", p->last_error);
}

static void format_time(int64_t seconds, char *buf, size_t cap)
{
	time_t when = (time_t)seconds;
	struct tm tm;

	buf[0] = '\0';
	if (when && gmtime_r(&when, &tm) && !strftime(buf, cap, "%Y-%m-%dT%H:%M:%SZ", &tm))
		buf[0] = '\0';
}

void publish_record(const struct publication *p, struct record *record)
{
	record->supervisor = p->pid;
	record->reconnects = p->reconnects;
	record->connections = p->connections;
	record->alive = p->alive;
	memcpy(record->peer, p->peer, sizeof(record->peer));
	memcpy(record->last_error, p->last_error, sizeof(record->last_error));
	format_time(p->error_time, record->error_time, sizeof(record->error_time));
	record->durable = p->durable;
}

void publish_answer(const struct publication *p, const struct err *e, struct control_answer *a)
{
	memset(a, 0, sizeof(*a));
	if (e) {
		a->ret = -e->code;
		a->err = *e;
	}
	a->pid = p->pid;
	a->connections = p->connections;
	a->alive = p->alive;
	a->reconnects = p->reconnects;
	a->paused = p->durable.paused;
	a->size = p->durable.size;
	a->error_time = p->error_time;
	memcpy(a->last_error, p->last_error, sizeof(a->last_error));
	memcpy(a->peer, p->peer, sizeof(a->peer));
	a->durable = p->durable;
}

/* What stands for one letter behind a '%'. */
static void put_part(struct text_writer *w, const struct publication *p,
		     const struct rc_action *note, char letter)
{
	char part[32] = "";

	if (letter == 'c')
		snprintf(part, sizeof(part), "%u", note->conn + 1);
	else if (letter == 'C')
		snprintf(part, sizeof(part), "%u", p->connections);
	else if (letter == 'n')
		snprintf(part, sizeof(part), "%llu", (unsigned long long)note->number);
	else if (letter == 's')
		snprintf(part, sizeof(part), "%llu", (unsigned long long)note->size);
	else if (letter == 't')
		snprintf(part, sizeof(part), "%.3g s", (double)note->ms / 1e3);
	else if (letter == 'p')
		text_put(w, p->peer[0] ? p->peer : "its server");
	else if (letter == 'r' && p->cause[0])
		text_put(w, ": ");
	else if (letter == 'e' && note->err)
		text_put(w, note->err->text);
	text_put(w, letter == 'r' ? p->cause : part);
}

enum log_level publish_note(const struct publication *p, const struct rc_action *note, char *text)
{
	struct text_writer w = { .dst = text, .cap = PUBLISH_TEXT_MAX };
	char plain[2] = "";

	snprintf(text, PUBLISH_TEXT_MAX, "nbd%u: ", p->index);
	w.len = strlen(text);
	for (const char *from = notes[note->note].text; *from; from++) {
		plain[0] = *from;
		if (*from == '%')
			put_part(&w, p, note, *++from);
		else
			text_put(&w, plain);
	}
	return notes[note->note].level;
}
