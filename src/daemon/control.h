/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * control: how a command reaches the supervisor of a device: a Unix socket beside the record, one
 * request and one answer a connection, both flat. Only for root, by the mode of the socket and by a look
 * at who asks. That somebody listens is the proof that a device is supervised.
 *
 * Supervisor and command may be of different versions, so that both lists below grow at their ends only: what is not known is
 * not looked at, and what does not come is 0.
 */
#ifndef NBD_ATTACH_CONTROL_H
#define NBD_ATTACH_CONTROL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

enum control_command {
	CONTROL_STATUS,  /* answered at once */
	CONTROL_RECHECK, /* is the device still there? One that is not ends the supervisor */
	CONTROL_ABORT,  /* breaks all connections, for a detach that must not wait for the server */
	CONTROL_PAUSE,  /* breaks all connections and lets I/O wait */
	CONTROL_RESUME, /* connects again */
	CONTROL_RESCAN, /* asks the server for the size */
	CONTROL_HAND_OVER, /* ends without a change to the device; the descriptors come with the answer */
	CONTROL_COMMANDS,
};

enum { CONTROL_FDS_MAX = 64 };

struct control_answer {
	int ret; /* 0 or -errno, err says why */
	struct err err;
	pid_t pid;      /* of the supervisor */
	uint32_t alive; /* connections that are */
	uint32_t connections;
	uint32_t reconnects;
	bool paused;
	uint64_t size;      /* of the device, bytes */
	int64_t error_time; /* of last_error, seconds since 1970; 0: none */
	char last_error[512];
	char peer[80]; /* server in use */
};

/* Listens, as the calling process, for device index below dir; a non-blocking descriptor. -EADDRINUSE: it has a supervisor. */
int control_listen(const char *dir, unsigned index, struct err *e);

/* Takes the name away; dirfd is the directory. */
void control_remove(int dirfd, unsigned index);

/*
 * Accepts one client and its request (within a second, or it is dropped): a descriptor for
 * control_reply, or -EAGAIN when there is none, or none that may ask.
 */
int control_accept(int listener, enum control_command *command);

/* Answers and closes the client; count descriptors go along. */
void control_reply(int client, const struct control_answer *a, const int *fds, unsigned count);

/*
 * Asks the supervisor of device index. -ENOENT (ERR_ABSENT): it has none. -ETIMEDOUT: no answer within
 * timeout_ms. fds (room for CONTROL_FDS_MAX, or NULL) and *count are what came along. Otherwise the answer's own result,
 * its text in e.
 */
int control_ask(const char *dir, unsigned index, enum control_command command, unsigned timeout_ms,
		struct control_answer *a, int *fds, unsigned *count, struct err *e);

/*
 * Watches for the end of the supervisor of device index, without a word to it: a descriptor (pidfd_open(2)) that is
 * readable when it has ended. -ENOENT: it has none; or another -errno.
 */
int control_watch(const char *dir, unsigned index);

#endif
