/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * command: a child process that serves NBD on its standard input and output. Starts it, quotes what
 * it has logged, and ends it. Never moves data, and knows nothing of NBD.
 */
#ifndef NBD_ATTACH_COMMAND_H
#define NBD_ATTACH_COMMAND_H

#include <sys/types.h>

#include "base/err.h"
#include "policy/settings.h"

/*
 * Starts argv (NULL-terminated, looked up in PATH) with one end of a socket pair as its standard
 * input and output and the write end of a pipe as its standard error. Returns our end of the pair,
 * non-blocking. *pid is a child of the caller, *log the other end of the pipe, non-blocking; both
 * are for command_end. A command that cannot be started is -errno (ERR_USAGE): no process is left,
 * and *pid and *log are as they were.
 */
int command_start(char *const argv[], pid_t *pid, int *log, struct err *e);

/* The same with the words of the settings. */
int command_start_server(const struct server_command *command, pid_t *pid, int *log, struct err *e);

/*
 * Appends the last words of a command that has failed to an error text: they are the best
 * explanation there is. Waits for them for 200 ms at most. Without any, e stays as it is.
 */
void command_quote(int log, struct err *e);

/*
 * Ends the command, whose socket the caller has closed: it has two seconds to leave by itself, then
 * gets SIGTERM, and two seconds later SIGKILL. *pid is 0 when it was reaped, *log is closed and -1.
 * Does nothing with a *pid of 0 and a *log of -1.
 */
void command_end(pid_t *pid, int *log);

#endif
