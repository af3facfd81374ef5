/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * sandbox: takes from the calling process, for good, all that a network client does not need: its
 * user, its capabilities, new privileges, unlimited memory, a view of it by others, and all system
 * calls that are not on a short list (seccomp). A child inherits everything. It never gives
 * anything back, and is not for a process with threads.
 */
#ifndef NBD_ATTACH_SANDBOX_H
#define NBD_ATTACH_SANDBOX_H

#include <stdbool.h>

#include "base/err.h"

struct sandbox {
	/*
	 * User that root becomes: a name of /etc/passwd; NULL: "nobody", or 65534 where that is
	 * unknown. "root" needs no file: the user stays and only its powers go. That is for a
	 * process started in an initramfs: when systemd leaves one, and at shutdown, it spares
	 * processes whose name begins with '@', and of these only root's.
	 */
	const char *user;
	bool lookups; /* host names are looked up: files are read, local services are asked */
	bool locked;  /* all memory stays in RAM: for a process behind its own programs' device */
	/*
	 * A key is in a PKCS#11 token, whose module may need anything: its owner's files, services,
	 * threads. The user stays, there is no filter and no limit of memory or file sizes;
	 * capabilities and new privileges go.
	 */
	bool token;
	bool lenient; /* neither filter nor limits, for valgrind's own calls and files */
};

/* What the kernel has granted. */
struct sandbox_result {
	bool filtered; /* false where the kernel has no seccomp, and with lenient or token */
	bool locked;   /* false where it is not asked for, or RLIMIT_MEMLOCK cannot be removed */
};

/*
 * Does all of it, in the order that each step permits. Without lookups, reading a file is refused
 * (EACCES): libraries look for changes of their configuration and get along without. Any other call
 * that is not on the list ends the process with SIGSYS. Open descriptors stay open. Errors are
 * ERR_USAGE for an unknown user, otherwise ERR_FAILED; a part of it may have been done then.
 */
int sandbox_enter(const struct sandbox *c, struct sandbox_result *r, struct err *e);

#endif
