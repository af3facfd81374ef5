/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * module: a kernel module loaded as modprobe does it (aliases, dependencies, options and
 * blacklists of modprobe.d), through libkmod.
 */
#ifndef NBD_ATTACH_MODULE_H
#define NBD_ATTACH_MODULE_H

#include "base/err.h"

/*
 * Loads name. 0 when it is loaded, already was, or is built in. Errors are ERR_KERNEL and say which
 * it is: no such module for the running kernel (-ENOENT), not permitted or kept away by modprobe.d
 * (-EPERM), refused by the kernel. As with modprobe a blacklist stops aliases, not the name itself,
 * and an "install" line of modprobe.d is run by the shell.
 */
int module_load(const char *name, struct err *e);

#endif
