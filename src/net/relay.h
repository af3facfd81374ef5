/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * relay: a process between a descriptor with plain data and a server's connection: for TLS whose
 * records the kernel cannot make, and for sockets that the driver does not take (needs_relay of
 * struct transport). Serves both directions at once: neither waits for the other, and each stops
 * reading when its other end is full. Never looks at the data.
 */
#ifndef NBD_ATTACH_RELAY_H
#define NBD_ATTACH_RELAY_H

#include <stdbool.h>

#include "base/err.h"
#include "net/tls.h"

/*
 * Starts the process, with the session t over fd, whose handshake is done and of which nothing is
 * pending, or without TLS when t is NULL. Returns the descriptor with the plain data, a Unix
 * stream socket, which is the caller's. fd and t stay the caller's too, for close and tls_free
 * only.
 *
 * The process ends when either end does; after the plain one's end it still sends what came from
 * it, and a goodbye. locked: its memory never leaves RAM, as far as it may (RLIMIT_MEMLOCK),
 * since what it would be read from may be the device behind it.
 */
int relay_start(struct tls *t, int fd, bool locked, struct err *e);

#endif
