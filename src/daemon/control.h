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

enum { CONTROL_FDS_MAX = 64 };

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
};

/*
 * Listens, as the calling process, for device index below dir; a non-blocking descriptor.
 * -EADDRINUSE (ERR_BUSY): it has a supervisor.
 */
int control_listen(const char *dir, unsigned index, struct err *e);

/* Removes the socket's name; dirfd is the directory. */
void control_remove(int dirfd, unsigned index);

/*
 * Accepts one client and its request, which must come within a second: a descriptor for
 * control_reply, or -EAGAIN when there is no client, or none that may ask.
 */
int control_accept(int listener, enum control_command *command);

/* Answers, with count descriptors, and closes the client. Never waits. */
void control_reply(int client, const struct control_answer *a, const int *fds, unsigned count);

/*
 * Asks the supervisor of device index. fds (room for CONTROL_FDS_MAX, or NULL) and *count (or NULL)
 * are the answer's descriptors. -ENOENT (ERR_ABSENT): the device has no supervisor. -ETIMEDOUT: no
 * answer within timeout_ms. -EPROTO: it has ended, or the answer is too short or has too many
 * descriptors. Otherwise the answer's own result, its text in e.
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
