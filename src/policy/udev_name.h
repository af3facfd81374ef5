/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * udev_name: the name of an export among udev's links in /dev/disk/by-nbd. udev's rules cannot
 * encode what a user or a server wrote. No allocation and no I/O.
 */
#ifndef NBD_ATTACH_UDEV_NAME_H
#define NBD_ATTACH_UDEV_NAME_H

#include "proto/uri.h"

/* Bytes without the NUL. With "-part128" at its end it still fits a file name of 255 bytes. */
enum { UDEV_NAME_MAX = 200 };

/*
 * Writes "HOST:PORT-EXPORT" to buf (UDEV_NAME_MAX + 1 bytes); for a Unix socket its path instead
 * of HOST:PORT, for vsock "vsock:CID:PORT-EXPORT". For an export without a name "-EXPORT" is left
 * out. Everything but letters, digits and "#+-.:=@_" is written as \xNN, as udev encodes labels:
 * so no name leads to another directory, and none has a meaning in a rule. A longer name is cut
 * and ends in '=' and a hash of the whole.
 */
void udev_name_of(const struct uri *u, char *buf);

#endif
