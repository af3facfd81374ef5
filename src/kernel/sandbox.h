/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * confine: takes from the calling process, for good, all that a network client has no use for: its user, its
 * capabilities, new privileges, memory without limit, a view of it by others, and the kernel's system calls but for a
 * short list (seccomp). A child inherits everything. Not for a process with threads.
 */
#ifndef NBD_ATTACH_SANDBOX_H
#define NBD_ATTACH_SANDBOX_H

#include <stdbool.h>

#include "base/err.h"

struct sandbox {
	/*
	 * Whom to become where we are root: a name of /etc/passwd; NULL: "nobody", or 65534 where that is unknown. For
	 * "root", which needs no file, the user stays and only its powers go, for a process started in an initramfs:
	 * when systemd leaves one, and at the end of all, it spares those whose name begins with '@', and of these only
	 * root's.
	 */
	const char *user;
	bool lookups; /* names of hosts will be looked up: that needs files to be read, and sockets of local services */
	bool locked; /* all memory stays where it is, as for the process behind the device that has its programs */
	/*
	 * A key is in a PKCS#11 token, whose module may need anything: its owner's files, services, threads. The user stays, there
	 * is no filter and no limit of memory or file sizes; capabilities and new privileges go.
	 */
	bool token;
	bool lenient; /* no filter and no limits, which valgrind's own calls and files would meet */
};

/* What the kernel has granted. */
struct sandbox_result {
	bool filtered; /* false where it has no seccomp filters, and with lenient or token */
	bool locked; /* false without privilege (RLIMIT_MEMLOCK has to be without limit), and where it was not asked for */
};

/*
 * Does all of it, in the order that each step permits. To read a file is refused (EACCES) without lookups, since
 * libraries look after their configuration and get along without; any other call that is not on the list ends
 * the process with SIGSYS. What it has open stays open. Errors are ERR_USAGE for an unknown user, else
 * ERR_FAILED; not all is as it was then.
 */
int sandbox_enter(const struct sandbox *c, struct sandbox_result *r, struct err *e);

#endif
