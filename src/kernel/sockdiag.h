/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * sockdiag: destroys a TCP connection by the kernel's socket diagnostics (SOCK_DESTROY of
 * sock_diag(7)): it is reset, and what is in its send queue is thrown away. That is the only way
 * where the kernel encrypts the connection (kernel TLS). It needs CAP_NET_ADMIN and a kernel with
 * CONFIG_INET_DIAG_DESTROY, and never touches any other connection. Never waits and allocates
 * nothing.
 */
#ifndef NBD_ATTACH_SOCKDIAG_H
#define NBD_ATTACH_SOCKDIAG_H

#include "base/err.h"

/*
 * Opens a socket for sockdiag_destroy, which the caller closes, and sees to it that the kernel's
 * module is loaded. -EOPNOTSUPP (ERR_KERNEL): this kernel cannot destroy connections.
 */
int sockdiag_open(struct err *e);

/*
 * Destroys the TCP connection that fd is a descriptor of, for all its holders. diag is of
 * sockdiag_open. -ENOENT: it has ended already; -EPERM; -EPROTONOSUPPORT for a socket of another
 * kind; or another -errno.
 */
int sockdiag_destroy(int diag, int fd, struct err *e);

#endif
