/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * logger: where a process that nobody waits for says what happens, one line at a time. The floors
 * below the command line only know this; who writes the lines, and where, is its caller's business.
 */
#ifndef NBD_ATTACH_LOG_H
#define NBD_ATTACH_LOG_H

/* As in syslog(3). */
enum log_level {
	LOG_LEVEL_ERROR = 3,
	LOG_LEVEL_WARNING = 4,
	LOG_LEVEL_NOTICE = 5,
};

struct log {
	void (*line)(void *ctx, enum log_level level, const char *text);
	void *ctx;
};

/* One line, cut at 1023 bytes. l may be NULL. */
void log_say(const struct log *l, enum log_level level, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
