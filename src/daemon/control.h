/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * control: how a command reaches the supervisor of a device: a Unix socket beside the record, one
 * request and one answer a connection, both flat. Only for root, by the mode of the socket and by
 * the credentials of the client. A supervised device is one whose socket somebody listens on. It
 * never carries out a command.
 *
 * Supervisor and command may be of different versions, so that both lists below grow at their ends
 * only: unknown fields are ignored, missing ones are 0.
 */
#ifndef NBD_ATTACH_CONTROL_H
#define NBD_ATTACH_CONTROL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "policy/reconnect.h"

enum control_command {
	CONTROL_STATUS,  /* answered at once */
	CONTROL_RECHECK, /* checks the device; one that is detached ends the supervisor */
	CONTROL_ABORT,  /* breaks all connections, for a detach that must not wait for the server */
	CONTROL_PAUSE,  /* breaks all connections and lets I/O wait */
	CONTROL_RESUME, /* connects again */
	CONTROL_RESCAN, /* asks the server for the size */
	CONTROL_HAND_OVER, /* ends without a change to the device; the answer has the descriptors */
	CONTROL_COMMANDS,
};

enum {
	CONTROL_FDS_MAX = 64,
	CONTROL_CLIENTS_MAX = 8, /* at a time; another one is hung up on */
	CONTROL_REQUEST_MS = 1000,
	CONTROL_RECEIVE_MS = 2000,
};

struct control_answer {
	int ret; /* 0 or -errno, err says why */
	struct err err;
	pid_t pid;            /* supervisor */
	uint32_t alive;       /* connections that work */
	uint32_t connections; /* connections of the device */
	uint32_t reconnects;  /* connections replaced so far */
	bool paused;
	uint64_t size;      /* size of the device, bytes */
	int64_t error_time; /* time of last_error, seconds since 1970; 0: none */
	char last_error[512];
	char peer[80]; /* server in use */
	struct rc_durable durable;
};

/* A client of a supervisor. It is known by its place in struct control_server. */
enum control_client_state {
	CONTROL_CLIENT_NONE,
	CONTROL_CLIENT_ASKING,    /* its request has not come yet */
	CONTROL_CLIENT_WAITING,   /* control_reply is due */
	CONTROL_CLIENT_RECEIVING, /* descriptors were sent, their confirmation is due */
};

/* A supervisor's side. The members are the module's. */
struct control_server {
	int listener;
	int epoll; /* watches the listener and the clients */
	struct {
		int fd;
		enum control_client_state state;
		long long until; /* ASKING, RECEIVING: then it is given up; boottime_ms */
	} clients[CONTROL_CLIENTS_MAX];
};

/* What a client has done. */
struct control_event {
	enum {
		CONTROL_ASKED,    /* command; an answer is due */
		CONTROL_GONE,     /* a hang-up before the answer */
		CONTROL_RECEIVED, /* ret: 0, it has the descriptors; else it has not */
	} type;
	unsigned client;
	enum control_command command;
	int ret;
};

/*
 * Serves device index below dir, as its only supervisor (record_lock): a name that is there is of
 * one that was killed.
 */
int control_open(struct control_server *s, const char *dir, unsigned index, struct err *e);

/*
 * Hangs up, and removes the socket's name; dirfd is the directory. Also after a failed open, and
 * twice.
 */
void control_close(struct control_server *s, int dirfd, unsigned index);

/* Descriptor for polling (POLLIN). */
int control_fd(const struct control_server *s);

/* When control_next has something to do without it; boottime_ms, -1: never. */
long long control_deadline(const struct control_server *s);

/* Takes what the clients have done, one thing at a time; false: nothing. Never waits. */
bool control_next(struct control_server *s, struct control_event *ev);

/* Answers and forgets a client. Never waits: one that does not read its answer loses it. */
void control_reply(struct control_server *s, unsigned client, const struct control_answer *a);

/*
 * Answers with count descriptors. CONTROL_RECEIVED follows: when the client has confirmed them,
 * when it hangs up, or after CONTROL_RECEIVE_MS.
 */
void control_hand_over(struct control_server *s, unsigned client, const struct control_answer *a,
		       const int *fds, unsigned count);

/*
 * Asks the supervisor of device index. fds (room for CONTROL_FDS_MAX, or NULL) and *count (or NULL)
 * are the answer's descriptors; those of a hand-over are confirmed, so that the supervisor ends.
 * -ENOENT (ERR_ABSENT): the device has no supervisor. -ETIMEDOUT: no answer within timeout_ms.
 * -EPROTO: it has ended, or the answer is too short or has too many descriptors. Otherwise the
 * answer's own result, its text in e.
 */
int control_ask(const char *dir, unsigned index, enum control_command command, unsigned timeout_ms,
		struct control_answer *a, int *fds, unsigned *count, struct err *e);

/*
 * Watches for the end of the supervisor of device index, and sends it nothing: a descriptor
 * (pidfd_open(2)) that is readable when it has ended. -ENOENT: the device has none; or another
 * -errno.
 */
int control_watch(const char *dir, unsigned index);

#endif
