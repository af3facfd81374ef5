/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "kernel/protect_self.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

enum { HEAP_ROOM = 256 << 10 }; /* spare bytes of the heap */

static int forbid_oom_kill(struct err *e)
{
	static const char score[] = "-1000";
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC), code = 0;

	if (fd < 0 || write(fd, score, sizeof(score) - 1) < 0)
		code = errno;
	if (fd >= 0)
		close(fd);
	return code ? err_sys(e, ERR_KERNEL, code, "/proc/self/oom_score_adj") : 0;
}

static int lock_memory(struct err *e)
{
	const struct rlimit none = { RLIM_INFINITY, RLIM_INFINITY };

	/* Memory that is given back might not be available again. */
	mallopt(M_TRIM_THRESHOLD, -1);
	mallopt(M_MMAP_MAX, 0);
	mallopt(M_TOP_PAD, HEAP_ROOM);
	/* CAP_IPC_LOCK is enough for this process, but a child may not have it. */
	setrlimit(RLIMIT_MEMLOCK, &none);
	return mlockall(MCL_CURRENT | MCL_FUTURE) ?
		       err_sys(e, ERR_KERNEL, errno, "lock all memory") :
		       0;
}

int protect_self(struct err *e)
{
	int ret = forbid_oom_kill(e);

	/* The C library would read its time zone at the first use of a date. */
	tzset();
	if (!ret && prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) && errno != EINVAL)
		ret = err_sys(e, ERR_KERNEL, errno, "PR_SET_IO_FLUSHER");
	if (!ret)
		ret = lock_memory(e);
	return ret ? err_wrap(e,
			      "become independent of a device (this takes root's capabilities)") :
		     0;
}

void protect_self_mark(char *arg0)
{
	/* systemd looks at the first byte of /proc/PID/cmdline, see its ROOT_STORAGE_DAEMONS. */
	if (arg0[0])
		arg0[0] = '@';
}
