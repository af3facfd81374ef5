/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * sockopt: options and state of a connected socket that the kernel's driver reads and writes, or is
 * about to, and of which we keep a descriptor to watch it and to cut it. Never moves data, never
 * waits, and never polls such a descriptor for POLLIN: what arrives belongs to the driver.
 */
#ifndef NBD_ATTACH_SOCKOPT_H
#define NBD_ATTACH_SOCKOPT_H

#include <poll.h>
#include <stdbool.h>

#include "base/err.h"

enum {
	SOCKOPT_PEER_TIMEOUT_MAX = 32767, /* seconds; MAX_TCP_KEEPIDLE of the kernel */
	/*
	 * Room for a few of the largest requests, so that the driver never has one half sent: since
	 * Linux 6.13 a signal to its writer fails such a request, and then the connection.
	 */
	SOCKOPT_SEND_ROOM = 16 << 20,
	SOCKOPT_GIVEN_UP_MS = 500, /* since the peer's last data */
};

/*
 * Ends a TCP connection when nothing has been heard of its peer for so many seconds; up to a fifth
 * more, and at most twice that where something is sent in the middle of it. Keepalive does so where
 * nothing is under way, TCP_USER_TIMEOUT where something is; either alone never notices some silent
 * peers. TCP_USER_TIMEOUT also ends a connection whose peer is alive but has taken no byte for so
 * long of what waits for it: a server that reads nothing. 0: the system's defaults, as for a new
 * socket. Other sockets have no silent peers: nothing is done to them.
 */
int sockopt_set_peer_timeout(int fd, unsigned seconds, struct err *e);

/*
 * Asks for a send buffer of so many bytes, beyond the system's limit where we may (CAP_NET_ADMIN),
 * else within it. Returns what there is, or -errno.
 */
int sockopt_set_send_room(int fd, int bytes, struct err *e);

/* Events of poll(): the connection has ended, or its peer has ended its half. */
#define SOCKOPT_DEAD (POLLRDHUP | POLLHUP | POLLERR)
bool sockopt_is_dead(int fd);

/*
 * Whether the driver has given a connection up because an answer was late, by its request timeout
 * of so many seconds: nothing has come since a request that was sent before that time, or the peer
 * had not ended the connection, some time after its last data. A disconnection looks the same. What
 * the driver cannot read makes it shut down, too, but at once. False where that cannot be seen, for
 * a timeout of 0, and for everything but TCP.
 */
bool sockopt_was_given_up(int fd, unsigned seconds);

/*
 * Ends the connection at once, for every holder of the socket; who waits in it wakes up. What a
 * TCP connection has not sent is thrown away, so that it cannot reach the server later, by a reset
 * (connect(2), AF_UNSPEC). Where the kernel refuses that (kernel TLS), the connection is shut down,
 * and what it has not sent is sent still, until the last descriptor is closed by close(2):
 * sockopt_is_drained tells when it is over. Other sockets are shut down. A connection that has
 * ended already is no error.
 */
int sockopt_cut(int fd, struct err *e);

/*
 * Whether all that a TCP connection has sent has been acknowledged or thrown away, so that nothing
 * of it reaches the server later. True for every other socket.
 */
bool sockopt_is_drained(int fd);

/*
 * Closes a socket that another process has made, or had. It may have set SO_LINGER, by which the
 * last close would wait. Of kernel TLS such a close can raise SIGPIPE, because the kernel tries
 * once more to send: ignore it.
 */
void sockopt_close(int fd);

/*
 * SO_SNDTIMEO in milliseconds, 0 for none, or -errno. The driver sets it to the device's time limit
 * when it takes a socket, and that is the only sign of it.
 */
int sockopt_send_timeout_ms(int fd);

#endif
