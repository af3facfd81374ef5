/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "daemon/control.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "net/msg.h"

enum {
	CLIENT_MS = 1000, /* limit for a client's request */
	/* Length of the first version's answer. Later versions add fields behind it. */
	ANSWER_MIN =
		offsetof(struct control_answer, peer) + sizeof(((struct control_answer *)0)->peer),
};

static int make_address(const char *dir, unsigned index, struct sockaddr_un *a, struct err *e)
{
	int n;

	memset(a, 0, sizeof(*a));
	a->sun_family = AF_UNIX;
	n = snprintf(a->sun_path, sizeof(a->sun_path), "%s/nbd%u.ctl", dir, index);
	if (n < 0 || (size_t)n >= sizeof(a->sun_path))
		return err_set(e, ERR_FAILED, ENAMETOOLONG, "directory %s: its name is too long",
			       dir);
	return 0;
}

static int open_socket(struct err *e)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	return fd >= 0 ? fd : err_sys(e, ERR_FAILED, errno, "control socket");
}

/* Connects to the supervisor of device index. -ENOENT (ERR_ABSENT): it has none. */
static int connect_supervisor(const char *dir, unsigned index, struct err *e)
{
	struct sockaddr_un a;
	int fd, ret;

	ret = make_address(dir, index, &a, e);
	if (ret)
		return ret;
	fd = open_socket(e);
	if (fd < 0)
		return fd;
	ret = connect(fd, (const struct sockaddr *)&a, sizeof(a)) ? -errno : 0;
	if (!ret)
		return fd;
	close(fd);
	if (ret == -ENOENT || ret == -ECONNREFUSED)
		return err_set(e, ERR_ABSENT, ENOENT, "nbd%u has no supervisor", index);
	return err_sys(e, ret == -EACCES ? ERR_KERNEL : ERR_FAILED, -ret,
		       "reach the supervisor of nbd%u", index);
}

int control_listen(const char *dir, unsigned index, struct err *e)
{
	struct sockaddr_un a;
	mode_t mask;
	int fd, ret;

	ret = make_address(dir, index, &a, e);
	if (ret)
		return ret;
	if (mkdir(dir, 0755) && errno != EEXIST)
		return err_sys(e, ERR_FAILED, errno, "make directory %s", dir);
	fd = connect_supervisor(dir, index, e);
	if (fd >= 0)
		close(fd);
	if (fd >= 0 || fd == -EAGAIN)
		return err_set(e, ERR_BUSY, EADDRINUSE, "nbd%u has a supervisor", index);
	if (fd != -ENOENT)
		return fd;
	/* A supervisor that was killed has left its name. */
	unlink(a.sun_path);
	fd = open_socket(e);
	if (fd < 0)
		return fd;
	mask = umask(0177);
	ret = bind(fd, (struct sockaddr *)&a, sizeof(a)) || listen(fd, 8) ? -errno : 0;
	umask(mask);
	if (ret) {
		close(fd);
		return err_sys(e, ERR_FAILED, -ret, "listen on %s", a.sun_path);
	}
	return fd;
}

void control_remove(int dirfd, unsigned index)
{
	char name[32];

	snprintf(name, sizeof(name), "nbd%u.ctl", index);
	unlinkat(dirfd, name, 0);
}

int control_accept(int listener, enum control_command *command)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct ucred who;
	socklen_t len = sizeof(who);
	uint32_t word;
	struct msg_in in = {
		.data = &word,
		.size = sizeof(word),
		.min = sizeof(word),
		.max = SIZE_MAX,
	};

	if (fd < 0)
		return -EAGAIN;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) ||
	    (who.uid && who.uid != geteuid()) || msg_receive(fd, &in, CLIENT_MS) ||
	    word >= CONTROL_COMMANDS) {
		close(fd);
		return -EAGAIN;
	}
	*command = (enum control_command)word;
	return fd;
}

void control_reply(int client, const struct control_answer *a, const int *fds, unsigned count)
{
	/* A client that has gone does not need the answer. */
	msg_send(client, a, sizeof(*a), fds, count, 0);
	close(client);
}

int control_ask(const char *dir, unsigned index, enum control_command command, unsigned timeout_ms,
		struct control_answer *a, int *fds, unsigned *count, struct err *e)
{
	const uint32_t word = command;
	struct msg_in in = {
		.data = a,
		.size = sizeof(*a),
		.min = ANSWER_MIN,
		.max = SIZE_MAX,
		.fds = fds,
		.fds_max = fds ? CONTROL_FDS_MAX : 0,
	};
	int fd, ret;

	memset(a, 0, sizeof(*a));
	if (count)
		*count = 0;
	fd = connect_supervisor(dir, index, e);
	if (fd < 0)
		return fd;
	ret = msg_send(fd, &word, sizeof(word), NULL, 0, 0) ? -EAGAIN :
							      msg_receive(fd, &in, (int)timeout_ms);
	close(fd);
	if (ret == -EAGAIN)
		return err_set(e, ERR_FAILED, ETIMEDOUT,
			       "the supervisor of nbd%u does not answer within %.3g s", index,
			       timeout_ms / 1e3);
	if (ret)
		return err_set(e, ERR_FAILED, EPROTO,
			       "the supervisor of nbd%u has ended, or is another version", index);
	if (count)
		*count = in.count;
	if (a->ret)
		*e = a->err;
	return a->ret;
}

int control_watch(const char *dir, unsigned index)
{
	struct ucred who;
	socklen_t len = sizeof(who);
	struct err ignored;
	int fd = connect_supervisor(dir, index, &ignored), ret;

	if (fd < 0)
		return fd;
	/* The credentials are those of the process that called listen, unix(7). */
	ret = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) ?
		      -1 :
		      (int)syscall(SYS_pidfd_open, who.pid, 0);
	if (ret < 0)
		ret = -errno;
	close(fd);
	return ret;
}
