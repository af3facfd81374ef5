/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#ifndef LEAK_H
#define LEAK_H

/*
 * What a test may not leave behind: open descriptors and children, dead ones too; and a way to make
 * fork() fail.
 */

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <check.h>

static inline unsigned leak_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	ck_assert_ptr_nonnull(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

/* Takes a zombie away, so that it is found once only. */
static inline bool leak_no_child(void)
{
	return waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD;
}

/* The only child of pid, 0: it has none; proc_pid_task_children(5). */
static inline pid_t leak_only_child(pid_t pid)
{
	char path[64];
	int child = 0, more;
	FILE *list;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)pid, (int)pid);
	list = fopen(path, "re");
	ck_assert_ptr_nonnull(list);
	ck_assert_int_le(fscanf(list, "%d %d", &child, &more), 1);
	fclose(list);
	return child;
}

struct no_fork {
	struct rlimit limit;
	bool was_root;
};

static inline void leak_allow_fork(const struct no_fork *nf)
{
	if (nf->was_root)
		ck_assert_int_eq(setresuid(0, 0, 0), 0);
	ck_assert_int_eq(setrlimit(RLIMIT_NPROC, &nf->limit), 0);
	/* which a change of identity takes away, and LeakSanitizer needs */
	prctl(PR_SET_DUMPABLE, 1);
}

/*
 * The limit does not count for root (copy_process in kernel/fork.c): root is somebody else
 * meanwhile. False, and nothing is changed, in a namespace that has nobody else.
 */
static inline bool leak_forbid_fork(struct no_fork *nf)
{
	struct rlimit none;
	pid_t pid;

	ck_assert_int_eq(getrlimit(RLIMIT_NPROC, &nf->limit), 0);
	none = nf->limit;
	none.rlim_cur = 0;
	ck_assert_int_eq(setrlimit(RLIMIT_NPROC, &none), 0);
	nf->was_root = !getuid() && !setresuid(65534, 65534, 0);
	pid = fork();
	if (!pid)
		_exit(0);
	if (pid < 0)
		return true;
	waitpid(pid, NULL, 0);
	leak_allow_fork(nf);
	return false;
}

#endif
