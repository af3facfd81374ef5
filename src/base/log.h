/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * logger: where a process that nobody waits for says what happens, one line at a time. The floors
 * below the command line only know this; who writes the lines, and where, is its caller's business.
 */
#ifndef NBD_ATTACH_LOGGER_H
#define NBD_ATTACH_LOGGER_H

/* As in syslog(3). */
enum logger_level {
	LOGGER_ERROR = 3,
	LOGGER_WARNING = 4,
	LOGGER_NOTICE = 5,
};

struct logger {
	void (*line)(void *ctx, enum logger_level level, const char *text);
	void *ctx;
};

/* One line, cut at 1023 bytes. l may be NULL. */
void logger_say(const struct logger *l, enum logger_level level, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
