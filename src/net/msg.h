/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * msg: one flat struct, and descriptors beside it (SCM_RIGHTS), over a Unix socket that keeps
 * messages apart (SOCK_SEQPACKET). It trusts neither the length nor the number of descriptors that
 * the other end sends: the caller bounds both, and a message that is refused leaves no descriptor
 * open. It never looks into the struct: its contents are the caller's to check.
 */
#ifndef NBD_ATTACH_MSG_H
#define NBD_ATTACH_MSG_H

#include <stddef.h>

enum { MSG_FDS_MAX = 128 }; /* descriptors beside one message; the kernel's own limit is 253 */

/*
 * Sends size bytes and count descriptors, which stay the caller's. Waits for room up to timeout_ms;
 * 0: not at all, -1: without limit. -EAGAIN: no room in time; -EPIPE, -ECONNRESET: the other end is
 * closed; -EINVAL: more than MSG_FDS_MAX descriptors; or another -errno.
 */
int msg_send(int fd, const void *data, size_t size, const int *fds, unsigned count, int timeout_ms);

/* What a receiver accepts, and where it goes. */
struct msg_in {
	void *data;
	size_t size;     /* size of data: a longer message is cut, the rest of a shorter one is 0 */
	size_t min, max; /* length of a message, bytes, min above 0 */
	int *fds;        /* room for fds_max descriptors, which are the caller's afterwards */
	unsigned fds_max; /* 0: descriptors are not wanted and are dropped */
	unsigned count;   /* descriptors received */
};

/*
 * Receives one message; timeout_ms as in msg_send. 0; -EAGAIN: none came in time; -EPIPE: the other
 * end is closed; -EMSGSIZE: a message outside of the bounds, or with something else beside it; or
 * another -errno. Then data is undefined and count is 0. Descriptors are close-on-exec.
 */
int msg_receive(int fd, struct msg_in *m, int timeout_ms);

/* Closes count descriptors. */
void msg_close_fds(const int *fds, unsigned count);

#endif
