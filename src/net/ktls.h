/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ktls: the record layer of a TLS session handed to the kernel (Documentation/networking/tls.rst), so
 * that whoever has the socket reads and writes plain data, the nbd driver too. TCP only.
 */
#ifndef NBD_ATTACH_KTLS_H
#define NBD_ATTACH_KTLS_H

#include <stdbool.h>

#include "base/err.h"
#include "net/tls.h"

/* Whether the kernel has TLS for sockets at all (the module may be loaded by this). */
bool ktls_available(void);

/*
 * Gives the keys of both directions of t, whose handshake is done and of which nothing is pending,
 * to the kernel for fd, and asks what it has got. fd carries records from then on; t is only good for
 * tls_free. Errors are ERR_TLS: -EOPNOTSUPP where the kernel, the transport or the cipher is not made for it: nothing has
 * been changed then and the session goes on in user space. Any other: the connection is lost.
 */
int ktls_enable(int fd, const struct tls *t, struct err *e);

#endif
