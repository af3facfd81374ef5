/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * nbd_client: the command line of nbd-client 3.24, for whoever calls this program by that name: it
 * becomes options as opts_parse makes them, or is refused with the reason. Touches nothing but
 * argv.
 *
 * Option by option, as nbd-client(8) lists them:
 *
 *     -block-size, bs=         --block-size           -persist         no --no-supervise
 *     -connections             --connections          -swap            --swap
 *     -timeout, timeout=       --timeout              -systemd-mark    --root --keep-at-shutdown
 *     -readonly                --read-only            -nofork          with -persist: --foreground
 *     -name, -unix             the operands           -check, -list, -disconnect
 *     -cacertfile, -certfile, -keyfile, -tlshostname, -enable-tls      --tls-...
 *     -nonetlink               still netlink, but the words printed are those of the ioctl form
 *     -size, -preinit, -sdp, -no-optgo                 refused
 * A lost connection is an I/O error without -persist, -swap and -systemd-mark, as with nbd-client.
 * With one of them it is replaced, which nbd-client 3.24 does not do over netlink.
 */
#ifndef NBD_ATTACH_NBD_CLIENT_H
#define NBD_ATTACH_NBD_CLIENT_H

#include <stdbool.h>

#include "base/err.h"
#include "cli/opts.h"

/*
 * Parses as nbd-client does: one dash or two for long options, their unique beginnings, options and
 * operands in any order; HOST [PORT] DEVICE, or DEVICE alone. -check, -help and -version end the
 * parsing; the operand of -check is o->devices[0], which has not been judged. *old_style: bs= or
 * timeout= was given, which is worth a warning. o points into argv, which is changed. Returns 0, or
 * -errno (ERR_USAGE).
 */
int nbd_client_parse(int argc, char *argv[], struct opts *o, bool *old_style, struct err *e);

/*
 * True when the program was called as nbd-client, from any directory, and with the mark '@' or not.
 */
bool nbd_client_is_meant(const char *argv0);

#endif
