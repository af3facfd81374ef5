/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * module: loads a kernel module as modprobe does it (aliases, dependencies, options and blacklists
 * of modprobe.d), through libkmod. It never prints.
 */
#ifndef NBD_ATTACH_MODULE_H
#define NBD_ATTACH_MODULE_H

#include "base/err.h"

/*
 * Loads name. 0 when it is loaded, already was, or is built in. Errors are ERR_KERNEL: no such
 * module for the running kernel (-ENOENT), not permitted or kept away by modprobe.d (-EPERM),
 * refused by the kernel. As with modprobe, a blacklist stops aliases and not the name itself, and
 * the shell runs an "install" line of modprobe.d.
 */
int module_load(const char *name, struct err *e);

#endif
