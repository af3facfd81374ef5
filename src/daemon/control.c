/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/control.h"

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

enum {
	CLIENT_MS = 1000,
	/* What the first version sent; what came later is added behind it. */
	ANSWER_MIN =
		offsetof(struct control_answer, peer) + sizeof(((struct control_answer *)0)->peer),
};

union fd_message {
	struct cmsghdr header;
	char space[CMSG_SPACE(CONTROL_FDS_MAX * sizeof(int))];
};

static int address(const char *dir, unsigned index, struct sockaddr_un *a, struct err *e)
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

static int new_socket(struct err *e)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	return fd >= 0 ? fd : err_sys(e, ERR_FAILED, errno, "control socket");
}

/* 0: somebody listens there, -ECONNREFUSED: nobody does, or another -errno. */
static int connect_to(int fd, const struct sockaddr_un *a)
{
	return connect(fd, (const struct sockaddr *)a, sizeof(*a)) ? -errno : 0;
}

int control_listen(const char *dir, unsigned index, struct err *e)
{
	struct sockaddr_un a;
	mode_t mask;
	int fd, ret;

	ret = address(dir, index, &a, e);
	if (ret)
		return ret;
	if (mkdir(dir, 0755) && errno != EEXIST)
		return err_sys(e, ERR_FAILED, errno, "make directory %s", dir);
	fd = new_socket(e);
	if (fd < 0)
		return fd;
	ret = connect_to(fd, &a);
	close(fd);
	if (!ret || ret == -EAGAIN)
		return err_set(e, ERR_BUSY, EADDRINUSE, "nbd%u has a supervisor", index);
	/* What a killed one has left. */
	unlink(a.sun_path);
	fd = new_socket(e);
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

static bool wait_readable(int fd, unsigned timeout_ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, (int)timeout_ms) > 0;
}

int control_accept(int listener, enum control_command *command)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct ucred who;
	socklen_t len = sizeof(who);
	uint32_t word;

	if (fd < 0)
		return -EAGAIN;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) ||
	    (who.uid && who.uid != geteuid()) || !wait_readable(fd, CLIENT_MS) ||
	    recv(fd, &word, sizeof(word), 0) != sizeof(word) || word >= CONTROL_COMMANDS) {
		close(fd);
		return -EAGAIN;
	}
	*command = (enum control_command)word;
	return fd;
}

void control_reply(int client, const struct control_answer *a, const int *fds, unsigned count)
{
	struct iovec io = { .iov_base = (void *)(uintptr_t)a, .iov_len = sizeof(*a) };
	struct msghdr m = { .msg_iov = &io, .msg_iovlen = 1 };
	union fd_message control;
	struct cmsghdr *c;

	if (count && count <= CONTROL_FDS_MAX) {
		memset(&control, 0, sizeof(control));
		m.msg_control = control.space;
		m.msg_controllen = CMSG_SPACE(count * sizeof(int));
		c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(c), fds, count * sizeof(int));
	}
	/* A client that has gone does not want to know. */
	sendmsg(client, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
	close(client);
}

static int receive(int fd, struct control_answer *a, int *fds, unsigned *count)
{
	struct iovec io = { .iov_base = a, .iov_len = sizeof(*a) };
	union fd_message control;
	struct msghdr m = {
		.msg_iov = &io,
		.msg_iovlen = 1,
		.msg_control = control.space,
		.msg_controllen = sizeof(control.space),
	};
	ssize_t n = recvmsg(fd, &m, MSG_CMSG_CLOEXEC);
	struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;
	int got[CONTROL_FDS_MAX];
	unsigned here = 0;

	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
		here = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(got, CMSG_DATA(c), here * sizeof(int));
	}
	for (unsigned i = 0; i < here; i++) {
		if (fds)
			fds[i] = got[i];
		else
			close(got[i]);
	}
	if (count)
		*count = fds ? here : 0;
	return n >= (ssize_t)ANSWER_MIN ? 0 : -EPROTO;
}

/* Connected to the supervisor of device index. -ENOENT (ERR_ABSENT): it has none. */
static int reach(const char *dir, unsigned index, struct err *e)
{
	struct sockaddr_un to;
	int fd, ret;

	ret = address(dir, index, &to, e);
	if (ret)
		return ret;
	fd = new_socket(e);
	if (fd < 0)
		return fd;
	ret = connect_to(fd, &to);
	if (!ret)
		return fd;
	close(fd);
	if (ret == -ENOENT || ret == -ECONNREFUSED)
		return err_set(e, ERR_ABSENT, ENOENT, "nbd%u has no supervisor", index);
	return err_sys(e, ret == -EACCES ? ERR_KERNEL : ERR_FAILED, -ret,
		       "reach the supervisor of nbd%u", index);
}

int control_ask(const char *dir, unsigned index, enum control_command command, unsigned timeout_ms,
		struct control_answer *a, int *fds, unsigned *count, struct err *e)
{
	uint32_t word = command;
	int fd, ret;

	memset(a, 0, sizeof(*a));
	if (count)
		*count = 0;
	fd = reach(dir, index, e);
	if (fd < 0)
		return fd;
	if (send(fd, &word, sizeof(word), MSG_NOSIGNAL) != sizeof(word) ||
	    !wait_readable(fd, timeout_ms)) {
		ret = err_set(e, ERR_FAILED, ETIMEDOUT,
			      "the supervisor of nbd%u does not answer within %.3g s", index,
			      timeout_ms / 1e3);
		goto out;
	}
	ret = receive(fd, a, fds, count);
	if (ret) {
		ret = err_set(e, ERR_FAILED, EPROTO,
			      "the supervisor of nbd%u has ended, or is another version", index);
		goto out;
	}
	if (a->ret)
		*e = a->err;
	ret = a->ret;
out:
	close(fd);
	return ret;
}

int control_watch(const char *dir, unsigned index)
{
	struct ucred who;
	socklen_t len = sizeof(who);
	struct err ignored;
	int fd = reach(dir, index, &ignored), ret;

	if (fd < 0)
		return fd;
	/* of the one that listens, unix(7) */
	ret = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) ?
		      -1 :
		      (int)syscall(SYS_pidfd_open, who.pid, 0);
	if (ret < 0)
		ret = -errno;
	close(fd);
	return ret;
}
