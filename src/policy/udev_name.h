/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * alias: the name of an export among the links of /dev/disk/by-nbd, which udev makes: its rules have no means to
 * encode what a user or a server wrote. Memory only.
 */
#ifndef NBD_ATTACH_UDEV_NAME_H
#define NBD_ATTACH_UDEV_NAME_H

#include "proto/uri.h"

/* With "-part128" behind it still a file's name of 255 bytes. */
enum { UDEV_NAME_MAX = 200 };

/*
 * "HOST:PORT-EXPORT", or the path of a socket instead of the first two; of an export without a name "HOST:PORT"; of
 * vsock "vsock:CID:PORT". All but letters, digits and "#+-.:=@_" is written as \xNN, as udev encodes labels: so no name
 * leads to another directory, and none means something to a rule. A longer one is cut and ends in '=' and a hash
 * of the whole. buf has UDEV_NAME_MAX + 1 bytes.
 */
void udev_name_of(const struct uri *u, char *buf);

#endif
