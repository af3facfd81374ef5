/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "net/command.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/text.h"
#include "net/blocking_child.h"

/* Time for a command to say its last words, and to leave after each signal. */
enum { QUOTE_MS = 200, LEAVE_MS = 2000, LEAVE_STEP_MS = 20 };

/* A caller that has closed its own standard descriptors gets others under their numbers. */
static int above_standard(int fd)
{
	return fd > STDERR_FILENO ? fd : fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
}

_Noreturn static void run_command(char *const argv[], int fd, int log, int report)
{
	sigset_t none;
	int code;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	signal(SIGINT, SIG_DFL);
	signal(SIGHUP, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	fd = above_standard(fd);
	log = above_standard(log);
	report = above_standard(report);
	if (dup2(fd, STDIN_FILENO) >= 0 && dup2(fd, STDOUT_FILENO) >= 0 &&
	    dup2(log, STDERR_FILENO) >= 0)
		execvp(argv[0], argv);
	code = errno;
	if (write(report, &code, sizeof(code)) < 0)
		_exit(126);
	_exit(127);
}

static void close_pipes(const int *fds, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

int command_start(char *const argv[], pid_t *pid, int *log, struct err *e)
{
	/* The pair, the log, and a pipe that closes at exec or reports its failure. */
	int fds[6] = { -1, -1, -1, -1, -1, -1 };
	char shown[256];
	pid_t child;
	int code = 0;
	ssize_t n;

	text_escape(shown, sizeof(shown), argv[0], strlen(argv[0]));
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) || pipe2(fds + 2, O_CLOEXEC) ||
	    pipe2(fds + 4, O_CLOEXEC)) {
		code = errno;
		close_pipes(fds, 6);
		return err_sys(e, ERR_FAILED, code, "start %s: descriptors", shown);
	}
	child = fork();
	if (child < 0) {
		code = errno;
		close_pipes(fds, 6);
		return err_sys(e, ERR_FAILED, code, "start %s: fork", shown);
	}
	if (!child)
		run_command(argv, fds[1], fds[3], fds[5]);
	close(fds[1]);
	close(fds[3]);
	close(fds[5]);
	do {
		n = read(fds[4], &code, sizeof(code));
	} while (n < 0 && errno == EINTR);
	close(fds[4]);
	if (n == (ssize_t)sizeof(code)) {
		waitpid(child, NULL, 0);
		close(fds[0]);
		close(fds[2]);
		return err_sys(e, ERR_USAGE, code, "start %s", shown);
	}
	fcntl(fds[0], F_SETFL, O_NONBLOCK);
	fcntl(fds[2], F_SETFL, O_NONBLOCK);
	/* Room for what a talkative server logs before somebody reads it, if permitted. */
	fcntl(fds[2], F_SETPIPE_SZ, 1 << 20);
	*pid = child;
	*log = fds[2];
	return fds[0];
}

int command_start_server(const struct server_command *command, pid_t *pid, int *log, struct err *e)
{
	char copy[SETTINGS_COMMAND_MAX];
	char *argv[SETTINGS_WORDS_MAX + 1];
	char *arg = copy;

	/* execvp() wants writable strings. */
	memcpy(copy, command->words, sizeof(copy));
	for (unsigned i = 0; i < command->count; i++) {
		argv[i] = arg;
		arg += strlen(arg) + 1;
	}
	argv[command->count] = NULL;
	return command_start(argv, pid, log, e);
}

void command_quote(int log, struct err *e)
{
	char raw[400], shown[400];
	size_t len = 0;
	ssize_t n;
	struct pollfd p = { .fd = log, .events = POLLIN };
	const long long end = monotonic_ms() + QUOTE_MS;

	while (len < sizeof(raw)) {
		long long left = end - monotonic_ms();

		if (poll(&p, 1, left > 0 ? (int)left : 0) <= 0)
			break;
		n = read(log, raw + len, sizeof(raw) - len);
		if (n <= 0)
			break;
		len += (size_t)n;
	}
	while (len && (raw[len - 1] == '\n' || raw[len - 1] == ' '))
		len--;
	if (!len)
		return;
	text_escape(shown, sizeof(shown), raw, len);
	len = strlen(e->text);
	snprintf(e->text + len, sizeof(e->text) - len, "; the command says: \"%s\"", shown);
}

void command_end(pid_t *pid, int *log)
{
	static const int signals[] = { 0, SIGTERM, SIGKILL };

	for (size_t s = 0; *pid > 0 && s < sizeof(signals) / sizeof(signals[0]); s++) {
		kill(*pid, signals[s]);
		for (int ms = 0; ms < LEAVE_MS; ms += LEAVE_STEP_MS) {
			if (waitpid(*pid, NULL, WNOHANG)) {
				*pid = 0;
				break;
			}
			poll(NULL, 0, LEAVE_STEP_MS);
		}
	}
	if (*log >= 0)
		close(*log);
	*log = -1;
}
