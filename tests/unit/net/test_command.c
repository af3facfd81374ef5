/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "net/command.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../leak.h"
#include "net/blocking_child.h"
#include "net/transport.h"
#include "../unit.h"

enum { SOON_MS = 20000 };

#define WORDS(...) ((const char *const[]){ __VA_ARGS__, NULL })

static int start(const char *const words[], pid_t *pid, int *log, struct err *e)
{
	char copy[1024], *argv[8] = { NULL };
	size_t used = 0;

	for (size_t i = 0; words[i]; i++) {
		ck_assert_uint_lt(i, 7);
		argv[i] = copy + used;
		used += (size_t)snprintf(copy + used, sizeof(copy) - used, "%s", words[i]) + 1;
		ck_assert_uint_le(used, sizeof(copy));
	}
	return command_start(argv, pid, log, e);
}

/* Waits for what poll calls events; the test fails when it does not come. */
static void wait_for(int fd, short events)
{
	struct pollfd p = { .fd = fd, .events = events };

	ck_assert_int_eq(poll(&p, 1, SOON_MS), 1);
}

/* Everything until the end, as text. */
static void read_all(int fd, char *buf, size_t cap)
{
	size_t used = 0;
	ssize_t n;

	do {
		wait_for(fd, POLLIN);
		n = read(fd, buf + used, cap - 1 - used);
		ck_assert_int_ge(n, 0);
		used += (size_t)n;
	} while (n);
	buf[used] = '\0';
}

static int exit_of(pid_t pid)
{
	int status;

	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

START_TEST(command_on_its_standard_descriptors)
{
	unsigned before = leak_fds();
	char buf[64], peer[80];
	struct err e = { 0 };
	pid_t pid = 0;
	int log = -1, fd;

	fd = start(WORDS("cat"), &pid, &log, &e);
	ck_assert_msg(fd >= 0, "%s", e.text);
	ck_assert_int_gt(pid, 0);
	ck_assert(fcntl(fd, F_GETFL) & O_NONBLOCK);
	ck_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	ck_assert(fcntl(log, F_GETFL) & O_NONBLOCK);
	ck_assert(fcntl(log, F_GETFD) & FD_CLOEXEC);
	transport_peer_name(fd, peer, sizeof(peer));
	ck_assert_str_eq(peer, "local");
	ck_assert_int_eq(write(fd, "there and back", 14), 14);
	wait_for(fd, POLLIN);
	ck_assert_int_eq(read(fd, buf, sizeof(buf)), 14);
	ck_assert_mem_eq(buf, "there and back", 14);
	ck_assert_int_eq(read(log, buf, sizeof(buf)), -1);
	ck_assert_int_eq(errno, EAGAIN);
	/* ours is the only other end: it leaves when that is closed */
	close(fd);
	ck_assert_int_eq(exit_of(pid), 0);
	ck_assert_int_eq(read(log, buf, sizeof(buf)), 0);
	close(log);
	ck_assert_uint_eq(leak_fds(), before);
	ck_assert(leak_no_child());
}
END_TEST

START_TEST(command_logs_and_exits)
{
	struct err e = { 0 };
	char buf[64];
	pid_t pid;
	int log, fd;

	fd = start(WORDS("/bin/sh", "-c", "echo out; echo \"$1\" >&2; exit 7", "sh", "a word"),
		   &pid, &log, &e);
	ck_assert_msg(fd >= 0, "%s", e.text);
	read_all(log, buf, sizeof(buf));
	ck_assert_str_eq(buf, "a word\n");
	read_all(fd, buf, sizeof(buf));
	ck_assert_str_eq(buf, "out\n");
	ck_assert_int_eq(exit_of(pid), 7);
	close(fd);
	close(log);
}
END_TEST

/* A log that nobody reads yet does not stop the server, where large pipes can be had. */
START_TEST(command_may_be_talkative)
{
	struct err e = { 0 };
	pid_t pid;
	int pair[2], log, fd;
	bool large;

	ck_assert_int_eq(pipe(pair), 0);
	large = fcntl(pair[0], F_SETPIPE_SZ, 1 << 20) > 0;
	close(pair[0]);
	close(pair[1]);
	fd = start(WORDS("/bin/sh", "-c", "head -c 200000 /dev/zero >&2; echo done"), &pid, &log,
		   &e);
	ck_assert_msg(fd >= 0, "%s", e.text);
	if (large)
		wait_for(fd, POLLIN);
	close(log);
	close(fd);
	exit_of(pid);
}
END_TEST

START_TEST(command_that_cannot_be_started)
{
	static const struct {
		const char *name;
		int code;
		const char *text;
	} table[] = {
		{ "no-such-command-anywhere", ENOENT,
		  "start no-such-command-anywhere: No such file or directory" },
		{ "/no/such\x1b/command", ENOENT,
		  "start /no/such\\x1b/command: No such file or directory" },
		{ "/dev/null", EACCES, "start /dev/null: Permission denied" },
	};
	unsigned before = leak_fds();
	struct err e = { 0 };
	pid_t pid = 4711;
	int log = 4712;

	/* execvp(3): a directory that may not be searched would make EACCES of it */
	ck_assert_int_eq(setenv("PATH", "/usr/bin:/bin", 1), 0);
	ck_assert_int_eq(start(WORDS(table[_i].name), &pid, &log, &e), -table[_i].code);
	ck_assert_int_eq(e.kind, ERR_USAGE);
	ck_assert_str_eq(e.text, table[_i].text);
	ck_assert_int_eq(pid, 4711);
	ck_assert_int_eq(log, 4712);
	ck_assert_uint_eq(leak_fds(), before);
	ck_assert(leak_no_child());
}
END_TEST

/* A server must be stoppable, and told of a broken pipe, whatever its parent has blocked. */
START_TEST(command_has_default_signals)
{
	static const int signals[] = { SIGPIPE, SIGINT, SIGHUP, SIGTERM };
	char buf[4096], *blocked, *ignored;
	unsigned long long mask;
	struct err e = { 0 };
	sigset_t all, old;
	pid_t pid;
	int log, fd;

	sigfillset(&all);
	ck_assert_int_eq(sigprocmask(SIG_SETMASK, &all, &old), 0);
	for (size_t i = 0; i < 4; i++)
		signal(signals[i], SIG_IGN);
	fd = start(WORDS("cat", "/proc/self/status"), &pid, &log, &e);
	for (size_t i = 0; i < 4; i++)
		signal(signals[i], SIG_DFL);
	sigprocmask(SIG_SETMASK, &old, NULL);
	ck_assert_msg(fd >= 0, "%s", e.text);
	read_all(fd, buf, sizeof(buf));
	blocked = strstr(buf, "SigBlk:");
	ignored = strstr(buf, "SigIgn:");
	ck_assert_ptr_nonnull(blocked);
	ck_assert_ptr_nonnull(ignored);
	ck_assert_uint_eq(strtoull(blocked + 7, NULL, 16), 0);
	mask = strtoull(ignored + 7, NULL, 16);
	for (size_t i = 0; i < 4; i++)
		ck_assert_uint_eq(mask >> (signals[i] - 1) & 1, 0);
	close(fd);
	close(log);
	ck_assert_int_eq(exit_of(pid), 0);
}
END_TEST

/* In a child, because the standard descriptors are needed afterwards. Returns what is wrong. */
static int without_standard_descriptors(void)
{
	struct err e;
	struct pollfd p;
	char buf[16];
	pid_t pid;
	int log, fd;

	for (int i = 0; i <= STDERR_FILENO; i++)
		close(i);
	fd = start(WORDS("/bin/sh", "-c", "read a; echo \"$a\"; echo b >&2"), &pid, &log, &e);
	if (fd < 0)
		return 10;
	if (write(fd, "a\n", 2) != 2)
		return 11;
	p = (struct pollfd){ .fd = fd, .events = POLLIN };
	if (poll(&p, 1, SOON_MS) != 1 || read(fd, buf, sizeof(buf)) != 2 || memcmp(buf, "a\n", 2))
		return 12;
	p.fd = log;
	if (poll(&p, 1, SOON_MS) != 1 || read(log, buf, sizeof(buf)) != 2 || memcmp(buf, "b\n", 2))
		return 13;
	return exit_of(pid);
}

START_TEST(command_of_a_caller_without_standard_descriptors)
{
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (!pid)
		_exit(without_standard_descriptors());
	ck_assert_int_eq(exit_of(pid), 0);
}
END_TEST

START_TEST(no_descriptors_for_a_command)
{
	unsigned before = leak_fds(), reached = 0;
	struct rlimit old, few;

	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
	/* enough for none, some or all of the six it needs */
	for (rlim_t room = 0; room < 64; room++) {
		struct err e = { 0 };
		pid_t pid;
		int log, fd;

		few = old;
		few.rlim_cur = room;
		ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
		fd = start(WORDS("true"), &pid, &log, &e);
		ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
		if (fd >= 0) {
			close(fd);
			close(log);
			ck_assert_int_eq(exit_of(pid), 0);
			reached++;
		} else {
			ck_assert_int_eq(fd, -EMFILE);
			ck_assert_uint_eq(reached, 0);
		}
		ck_assert_uint_eq(leak_fds(), before);
	}
	ck_assert_uint_gt(reached, 0);
	ck_assert(leak_no_child());
}
END_TEST

/* Nobody may take the -1 of a failed fork for a process to be waited for or killed. */
START_TEST(no_process_for_a_command)
{
	unsigned before = leak_fds();
	struct err e = { 0 };
	struct no_fork nf;
	pid_t pid = 0;
	int log = -1, fd;

	if (!leak_forbid_fork(&nf))
		return;
	fd = start(WORDS("true"), &pid, &log, &e);
	leak_allow_fork(&nf);
	ck_assert_int_eq(fd, -EAGAIN);
	ck_assert_int_eq(e.kind, ERR_FAILED);
	ck_assert_ptr_nonnull(strstr(e.text, "fork"));
	ck_assert_int_eq(pid, 0);
	ck_assert_int_eq(log, -1);
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

/* --- last words ------------------------------------------------------------------------------- */

static int start_shell(const char *script, pid_t *pid, int *log)
{
	struct err e = { 0 };
	int fd = start(WORDS("/bin/sh", "-c", script), pid, log, &e);

	ck_assert_msg(fd >= 0, "%s", e.text);
	return fd;
}

START_TEST(last_words)
{
	static const struct {
		const char *script, *text;
	} table[] = {
		{ "echo cannot open disk >&2", "refused; the command says: \"cannot open disk\"" },
		{ "printf 'a\\033b \\n\\n' >&2", "refused; the command says: \"a\\x1bb\"" },
		{ "echo one >&2; echo two >&2", "refused; the command says: \"one\\x0atwo\"" },
		{ "printf ' \\n' >&2", "refused" },
		{ ":", "refused" },
	};
	struct err e = { .text = "refused" };
	pid_t pid;
	int log, fd;

	fd = start_shell(table[_i].script, &pid, &log);
	ck_assert_int_eq(exit_of(pid), 0);
	command_quote(log, &e);
	ck_assert_str_eq(e.text, table[_i].text);
	close(fd);
	close(log);
}
END_TEST

START_TEST(last_words_of_the_silent)
{
	struct err e = { .text = "refused" };
	long long began;
	pid_t pid;
	int log, fd;

	fd = start_shell("exec cat", &pid, &log);
	began = monotonic_ms();
	command_quote(log, &e);
	ck_assert_int_ge(monotonic_ms() - began, 200);
	ck_assert_str_eq(e.text, "refused");
	close(fd);
	command_end(&pid, &log);
}
END_TEST

START_TEST(last_words_without_end)
{
	struct err e = { .text = "refused" };
	pid_t pid;
	int log, fd;

	fd = start_shell("exec yes >&2", &pid, &log);
	command_quote(log, &e);
	ck_assert_ptr_nonnull(strstr(e.text, "; the command says: \"y\\x0ay"));
	ck_assert_uint_lt(strlen(e.text), sizeof(e.text));
	close(fd);
	ck_assert_int_eq(kill(pid, SIGKILL), 0);
	command_end(&pid, &log);
}
END_TEST

/* --- the end ---------------------------------------------------------------------------------- */

/* What it is like to end a command, whose socket is closed: milliseconds. */
static long long end_of(const char *script)
{
	unsigned before = leak_fds();
	long long began;
	char ready;
	pid_t pid;
	int log, fd;

	fd = start_shell(script, &pid, &log);
	wait_for(fd, POLLIN);
	ck_assert_int_eq(read(fd, &ready, 1), 1);
	close(fd);
	began = monotonic_ms();
	command_end(&pid, &log);
	ck_assert_int_eq(pid, 0);
	ck_assert_int_eq(log, -1);
	ck_assert(leak_no_child());
	ck_assert_uint_eq(leak_fds(), before);
	/* twice is as good as once */
	command_end(&pid, &log);
	return monotonic_ms() - began;
}

START_TEST(end_by_itself)
{
	ck_assert_int_lt(end_of("echo; exec cat"), 2000);
}
END_TEST

START_TEST(end_by_a_signal)
{
	long long ms = end_of("echo; exec sleep 60");

	ck_assert_int_ge(ms, 2000);
	ck_assert_int_lt(ms, 4000);
}
END_TEST

START_TEST(end_of_the_stubborn)
{
	ck_assert_int_ge(end_of("trap '' TERM; echo; while :; do sleep 1; done"), 4000);
}
END_TEST

START_TEST(end_of_none)
{
	pid_t pid = 0;
	int log = -1;

	command_end(&pid, &log);
	ck_assert_int_eq(pid, 0);
	ck_assert_int_eq(log, -1);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("command");
	TCase *t = tcase_create("start");

	tcase_set_timeout(t, 60);
	tcase_add_test(t, command_on_its_standard_descriptors);
	tcase_add_test(t, command_logs_and_exits);
	tcase_add_test(t, command_may_be_talkative);
	tcase_add_loop_test(t, command_that_cannot_be_started, 0, 3);
	tcase_add_test(t, command_has_default_signals);
	tcase_add_test(t, command_of_a_caller_without_standard_descriptors);
	tcase_add_test(t, no_descriptors_for_a_command);
	tcase_add_test(t, no_process_for_a_command);
	suite_add_tcase(s, t);

	t = tcase_create("last words");
	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, last_words, 0, 5);
	tcase_add_test(t, last_words_of_the_silent);
	tcase_add_test(t, last_words_without_end);
	suite_add_tcase(s, t);

	t = tcase_create("end");
	tcase_set_timeout(t, 60);
	tcase_add_test(t, end_by_itself);
	tcase_add_test(t, end_by_a_signal);
	tcase_add_test(t, end_of_the_stubborn);
	tcase_add_test(t, end_of_none);
	suite_add_tcase(s, t);
	return s;
}
