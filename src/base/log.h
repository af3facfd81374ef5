/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * log: one line at a time about what happens in a process that nobody waits for. The layers below
 * the command line use only this; the caller decides who writes the lines, and where. Never
 * fails, allocates or prints by itself.
 */
#ifndef NBD_ATTACH_LOG_H
#define NBD_ATTACH_LOG_H

/* Values as in syslog(3). */
enum log_level {
	LOG_LEVEL_ERROR = 3,
	LOG_LEVEL_WARNING = 4,
	LOG_LEVEL_NOTICE = 5,
};

struct log {
	void (*line)(void *ctx, enum log_level level, const char *text);
	void *ctx;
};

/* Writes one line, cut at 1023 bytes. l may be NULL: then nothing happens. */
void log_say(const struct log *l, enum log_level level, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
