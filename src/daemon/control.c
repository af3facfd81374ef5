/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "daemon/control.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "net/blocking_child.h"
#include "net/msg.h"

enum {
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

static int open_listener(const struct sockaddr_un *a, struct err *e)
{
	int fd = open_socket(e), ret;
	mode_t mask;

	if (fd < 0)
		return fd;
	unlink(a->sun_path);
	mask = umask(0177);
	ret = bind(fd, (const struct sockaddr *)a, sizeof(*a)) || listen(fd, 8) ? -errno : 0;
	umask(mask);
	if (!ret)
		return fd;
	close(fd);
	return err_sys(e, ERR_FAILED, -ret, "listen on %s", a->sun_path);
}

/* The place of the listener among the clients, for epoll. */
enum { LISTENER = CONTROL_CLIENTS_MAX };

static int watch_fd(struct control_server *s, int fd, unsigned place)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u32 = place };

	return epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &ev);
}

int control_open(struct control_server *s, const char *dir, unsigned index, struct err *e)
{
	struct sockaddr_un a;
	int ret;

	*s = (struct control_server){ .listener = -1, .epoll = -1 };
	ret = make_address(dir, index, &a, e);
	if (ret)
		return ret;
	s->listener = open_listener(&a, e);
	if (s->listener < 0)
		return s->listener;
	s->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (s->epoll < 0 || watch_fd(s, s->listener, LISTENER))
		return err_sys(e, ERR_FAILED, errno, "watch the control socket");
	return 0;
}

static void hang_up(struct control_server *s, unsigned client)
{
	if (s->clients[client].state == CONTROL_CLIENT_NONE)
		return;
	/* A child may still have it open, so that its close is not enough. */
	epoll_ctl(s->epoll, EPOLL_CTL_DEL, s->clients[client].fd, NULL);
	close(s->clients[client].fd);
	s->clients[client].state = CONTROL_CLIENT_NONE;
}

void control_close(struct control_server *s, int dirfd, unsigned index)
{
	char name[32];

	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
		hang_up(s, i);
	if (s->listener >= 0) {
		snprintf(name, sizeof(name), "nbd%u.ctl", index);
		unlinkat(dirfd, name, 0);
		close(s->listener);
	}
	if (s->epoll >= 0)
		close(s->epoll);
	s->listener = s->epoll = -1;
}

int control_fd(const struct control_server *s)
{
	return s->epoll;
}

long long control_deadline(const struct control_server *s)
{
	long long when = -1;

	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
		if ((s->clients[i].state == CONTROL_CLIENT_ASKING ||
		     s->clients[i].state == CONTROL_CLIENT_RECEIVING) &&
		    (when < 0 || s->clients[i].until < when))
			when = s->clients[i].until;
	return when;
}

static bool may_ask(int fd)
{
	struct ucred who;
	socklen_t len = sizeof(who);

	return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) &&
	       (!who.uid || who.uid == geteuid());
}

static void accept_client(struct control_server *s)
{
	int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	unsigned i = 0;

	while (i < CONTROL_CLIENTS_MAX && s->clients[i].state != CONTROL_CLIENT_NONE)
		i++;
	if (fd < 0)
		return;
	if (i == CONTROL_CLIENTS_MAX || !may_ask(fd) || watch_fd(s, fd, i)) {
		close(fd);
		return;
	}
	s->clients[i].fd = fd;
	s->clients[i].state = CONTROL_CLIENT_ASKING;
	s->clients[i].until = boottime_ms() + CONTROL_REQUEST_MS;
}

/* The next word of a client; -errno where none comes, or it is none. */
static int receive_word(int fd, uint32_t *word)
{
	struct msg_in in = {
		.data = word,
		.size = sizeof(*word),
		.min = sizeof(*word),
		.max = SIZE_MAX,
	};

	return msg_receive(fd, &in, 0);
}

/* A client that can be read from, or whose time is over; false: that concerns nobody. */
static bool hear_client(struct control_server *s, unsigned client, struct control_event *ev)
{
	enum control_client_state state = s->clients[client].state;
	uint32_t word = 0;
	int ret = receive_word(s->clients[client].fd, &word);

	*ev = (struct control_event){ .client = client };
	if (state == CONTROL_CLIENT_ASKING && !ret && word < CONTROL_COMMANDS) {
		s->clients[client].state = CONTROL_CLIENT_WAITING;
		ev->type = CONTROL_ASKED;
		ev->command = (enum control_command)word;
		return true;
	}
	/* No client says more. */
	if (state == CONTROL_CLIENT_WAITING && !ret)
		return false;
	hang_up(s, client);
	ev->type = state == CONTROL_CLIENT_RECEIVING ? CONTROL_RECEIVED : CONTROL_GONE;
	ev->ret = ret == -EAGAIN ? -ETIMEDOUT : ret;
	return state != CONTROL_CLIENT_ASKING;
}

bool control_next(struct control_server *s, struct control_event *ev)
{
	long long now = boottime_ms();
	struct epoll_event ready;

	while (epoll_wait(s->epoll, &ready, 1, 0) > 0) {
		if (ready.data.u32 == LISTENER)
			accept_client(s);
		else if (hear_client(s, ready.data.u32, ev))
			return true;
	}
	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
		if ((s->clients[i].state == CONTROL_CLIENT_ASKING ||
		     s->clients[i].state == CONTROL_CLIENT_RECEIVING) &&
		    now >= s->clients[i].until && hear_client(s, i, ev))
			return true;
	return false;
}

void control_reply(struct control_server *s, unsigned client, const struct control_answer *a)
{
	if (s->clients[client].state != CONTROL_CLIENT_WAITING)
		return;
	msg_send(s->clients[client].fd, a, sizeof(*a), NULL, 0, 0);
	hang_up(s, client);
}

void control_hand_over(struct control_server *s, unsigned client, const struct control_answer *a,
		       const int *fds, unsigned count)
{
	/* A client that has gone shows by its hang-up. */
	msg_send(s->clients[client].fd, a, sizeof(*a), fds, count, 0);
	s->clients[client].state = CONTROL_CLIENT_RECEIVING;
	s->clients[client].until = boottime_ms() + CONTROL_RECEIVE_MS;
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
	if (!ret && command == CONTROL_HAND_OVER && !a->ret)
		msg_send(fd, &word, sizeof(word), NULL, 0, 0);
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
