/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sock: options and state of a connected socket that the kernel's driver reads and writes, or is about to,
 * and of which we keep a descriptor to watch it and to cut it. Nothing here moves data or waits.
 * Never poll such a descriptor for POLLIN: what arrives belongs to the driver.
 */
#ifndef NBD_ATTACH_SOCKOPT_H
#define NBD_ATTACH_SOCKOPT_H

#include <poll.h>
#include <stdbool.h>

#include "base/err.h"

enum {
	SOCKOPT_PEER_TIMEOUT_MAX = 32767, /* seconds; MAX_TCP_KEEPIDLE of the kernel */
	/*
	 * Room for a few of the largest requests, so that the driver never has one half sent: since 6.13 such
	 * a request fails when its writer gets a signal and then the connection dies.
	 */
	SOCKOPT_SEND_ROOM = 16 << 20,
};

/*
 * Has a TCP connection end when nothing has been heard of its peer for so many seconds (up to a fifth more, at
 * most twice that where something is sent in the middle of it): by keepalive where nothing is under
 * way, by TCP_USER_TIMEOUT where something is; either alone never notices some silent peers. The latter also ends
 * one whose peer is alive but has taken no byte of what waits for it for so long: a server that reads
 * nothing. 0: the system's defaults, as they are for a new socket. Other sockets have no silent
 * peers: nothing is done to them.
 */
int sockopt_set_peer_timeout(int fd, unsigned seconds, struct err *e);

/*
 * Asks for a send buffer of so many bytes, beyond the system's limit where we may (CAP_NET_ADMIN), else
 * within it. Returns what there is, or -errno.
 */
int sockopt_set_send_room(int fd, int bytes, struct err *e);

/* The events of poll() that say that a connection has ended, or that its peer has ended its half. */
#define SOCKOPT_DEAD (POLLRDHUP | POLLHUP | POLLERR)
bool sockopt_is_dead(int fd);

/*
 * Of a connection that has ended: whether its peer had been silent for about the seconds of its
 * peer timeout by then, so that nobody knows what became of it, rather than having said goodbye or reset it. A peer that
 * lives is heard of at least every third of that time. False for what is no TCP connection.
 */
bool sockopt_was_silent(int fd, unsigned seconds);

/*
 * Ends the connection at once, for every holder of the socket; who waits in it wakes up. What a TCP
 * connection has not sent is thrown away, so that it cannot reach the server later: at once, by a reset
 * (connect(2), AF_UNSPEC), or where the kernel refuses that (kernel TLS) when the last descriptor is closed, so close
 * yours before the driver is offered another, for which it closes its own. (Such a close can raise SIGPIPE:
 * the kernel tries once more to send. Ignore it.) Other sockets are shut down. One that has ended
 * already is no error.
 */
int sockopt_cut(int fd, struct err *e);

/*
 * SO_SNDTIMEO in milliseconds, 0 for none, or -errno. The driver sets it to the device's time limit when it takes
 * a socket, and that is the only sign that it has.
 */
int sockopt_send_timeout_ms(int fd);

#endif
