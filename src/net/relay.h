/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * relay: a process that stands between a descriptor with plain data and a TLS session, for
 * connections whose record layer the kernel cannot take over, or a socket that the kernel's driver does not take at all
 * (nbd_get_socket() of drivers/block/nbd.c: since 6.18 and in the stable kernels of that time TCP and Unix only). Both directions at once: neither
 * waits for the other, and each stops reading when its other end is full.
 */
#ifndef NBD_ATTACH_RELAY_H
#define NBD_ATTACH_RELAY_H

#include <stdbool.h>

#include "base/err.h"
#include "net/tls.h"

/*
 * Starts the process with the session t over fd, whose handshake is done and of which nothing is
 * pending; without TLS when t is NULL. Returns the descriptor with the plain data, a Unix stream socket, the caller's. Both stay
 * the caller's too, who must not use them but for close and tls_free. The process ends when either end
 * does: of the plain one after all that came from it was sent and a goodbye. locked: its memory never leaves RAM,
 * as far as it may (RLIMIT_MEMLOCK), since what it would be read from may be the device behind it.
 */
int relay_start(struct tls *t, int fd, bool locked, struct err *e);

#endif
