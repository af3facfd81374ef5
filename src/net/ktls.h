/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * ktls: hands the record layer of a TLS session to the kernel (Documentation/networking/tls.rst),
 * so that whoever has the socket reads and writes plain data, the nbd driver too. TCP only. Never
 * does a handshake.
 */
#ifndef NBD_ATTACH_KTLS_H
#define NBD_ATTACH_KTLS_H

#include <stdbool.h>

#include "base/err.h"
#include "net/tls.h"

/* Whether the kernel has TLS for sockets at all. Asking may load the module. */
bool ktls_available(void);

/*
 * Gives the keys of both directions of t to the kernel for fd, and asks what it has got. The
 * handshake of t is done and nothing is pending. fd carries records from then on; t is only good
 * for tls_free. Errors are ERR_TLS. -EOPNOTSUPP: the kernel, the transport or the cipher is not
 * made for it; nothing has changed and the session goes on in user space. Any other: the
 * connection is lost.
 */
int ktls_enable(int fd, const struct tls *t, struct err *e);

#endif
