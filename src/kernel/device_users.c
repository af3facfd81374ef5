/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "kernel/device_users.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "kernel/sysfs.h"
#include "base/text.h"

#define DISK_MAX_PARTS 256 /* linux/genhd.h, block/partitions: no disk has more */
#define NAME_LEN       256

struct search {
	unsigned index;
	dev_t devs[1 + DISK_MAX_PARTS]; /* the disk and its partitions */
	size_t count;
	struct device_users *found;
	pid_t server; /* thread that serves a device set up by ioctl, or 0 */
};

/* The text of the first user is kept: before, name escaped, after. */
static void add_user(struct search *s, const char *before, const char *name, const char *after)
{
	struct device_users *u = s->found;
	size_t used = strlen(before), tail = strlen(after) + 1;

	if (u->users++)
		return;
	memcpy(u->text, before, used);
	used += text_escape(u->text + used, sizeof(u->text) - used - tail, name, strlen(name));
	memcpy(u->text + used, after, tail);
}

static bool is_searched(const struct search *s, dev_t dev)
{
	for (size_t i = 0; i < s->count; i++)
		if (s->devs[i] == dev)
			return true;
	return false;
}

/* Turns the \NNN of seq_path() and mangle() back into bytes, in place. */
static void unescape(char *s)
{
	char *to = s;

	while (*s) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' &&
		    s[3] >= '0' && s[3] <= '7') {
			unsigned byte = (unsigned)(s[1] - '0') << 6 | (unsigned)(s[2] - '0') << 3 |
					(unsigned)(s[3] - '0');

			*to++ = (char)byte;
			s += 4;
		} else {
			*to++ = *s++;
		}
	}
	*to = '\0';
}

/*
 * proc_pid_mountinfo(5): "id parent major:minor root mount-point options [tag...] - type source
 * options". btrfs and others mount with a number that is no disk's: there only the source shows the
 * disk. For fuse any user chooses the source, so it must not make a disk look used; fuseblk, which
 * only root mounts, has the number of its disk.
 */
static void parse_mount(struct search *s, char *line)
{
	enum { MAJOR_MINOR = 2, MOUNT_POINT = 4, FIELDS };
	char *field[FIELDS], *type, *source, *f;
	bool used;
	dev_t dev;

	for (size_t i = 0; i < FIELDS; i++) {
		field[i] = strsep(&line, " ");
		if (!field[i])
			return;
	}
	used = sysfs_parse_dev(field[MAJOR_MINOR], &dev) && is_searched(s, dev);
	if (!used) {
		do
			f = strsep(&line, " ");
		while (f && strcmp(f, "-"));
		type = strsep(&line, " ");
		source = strsep(&line, " ");
		if (!source || !strcmp(type, "fuse") || !strncmp(type, "fuse.", 5))
			return;
		unescape(source);
		used = !strncmp(source, "/dev/", 5) && sysfs_is_part(source + 5, s->index);
	}
	if (used) {
		unescape(field[MOUNT_POINT]);
		add_user(s, "mounted on ", field[MOUNT_POINT], "");
	}
}

/*
 * proc_swaps(5): "path type ...", the path as seen from the root of the reader, so that only its
 * last part can be relied on (the node may also have been deleted). A swap file is of type "file".
 */
static void parse_swap(struct search *s, char *line)
{
	char *path = strsep(&line, " \t"), *type, *name;

	do
		type = strsep(&line, " \t");
	while (type && !*type);
	if (!type || strcmp(type, "partition"))
		return;
	unescape(path);
	sysfs_strip_deleted(path);
	name = strrchr(path, '/');
	if (name && sysfs_is_part(name + 1, s->index))
		add_user(s, "used as swap", "", "");
}

static int read_lines(struct search *s, int procfd, const char *name, bool optional,
		      void (*parse_line)(struct search *s, char *line), struct err *e)
{
	int fd = openat(procfd, name, O_RDONLY | O_CLOEXEC), code;
	char *line = NULL;
	size_t room = 0;
	ssize_t len;
	FILE *f;

	if (fd < 0 && optional && errno == ENOENT)
		return 0;
	if (fd < 0)
		return err_sys(e, ERR_FAILED, errno, "open /proc/%s", name);
	f = fdopen(fd, "r");
	if (!f) {
		close(fd);
		return err_sys(e, ERR_FAILED, ENOMEM, "read /proc/%s", name);
	}
	while (errno = 0, (len = getline(&line, &room, f)) >= 0) {
		if (len && line[len - 1] == '\n')
			line[len - 1] = '\0';
		parse_line(s, line);
	}
	code = feof(f) ? 0 : errno;
	free(line);
	fclose(f);
	return code ? err_sys(e, ERR_FAILED, code, "read /proc/%s", name) : 0;
}

/* True for the errors of a process that ends, or that may not be looked into. */
static bool is_passed_over(int code)
{
	return code == ENOENT || code == ESRCH || code == EACCES || code == EPERM;
}

/*
 * 1: the process has the disk or a partition open; 0 or -errno. Without AT_STATX_DONT_SYNC a file
 * on a network file system whose server is gone would hold up the search.
 */
static int has_disk_open(const struct search *s, int pidfd)
{
	struct dirent *entry;
	struct statx st;
	int r = 0, code;
	DIR *dir;

	dir = sysfs_opendir(pidfd, "fd");
	if (!dir)
		return is_passed_over(errno) ? 0 : -errno;
	while (errno = 0, (entry = readdir(dir))) {
		if (statx(dirfd(dir), entry->d_name, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT,
			  STATX_TYPE, &st) ||
		    !S_ISBLK(st.stx_mode) ||
		    !is_searched(s, makedev(st.stx_rdev_major, st.stx_rdev_minor)))
			continue;
		r = 1;
		break;
	}
	code = errno;
	closedir(dir);
	if (!r && !is_passed_over(code))
		r = -code;
	return r;
}

static void add_process(struct search *s, int pidfd, const char *pid)
{
	char comm[64] = "", before[64];
	ssize_t n;
	int fd;

	fd = openat(pidfd, "comm", O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		n = read(fd, comm, sizeof(comm) - 1);
		if (n > 0 && comm[n - 1] == '\n')
			comm[n - 1] = '\0';
		close(fd);
	}
	snprintf(before, sizeof(before), "open in process %.20s (", pid);
	add_user(s, before, comm, ")");
}

/*
 * A device set up by ioctl lives in a process that has it open all the time: nbd-client itself, or
 * a thread of qemu-nbd. /sys/block/nbdN/pid is that thread's.
 */
static bool is_ioctl_server(const struct search *s, int pidfd)
{
	char task[32];

	if (!s->server)
		return false;
	snprintf(task, sizeof(task), "task/%d", (int)s->server);
	return !faccessat(pidfd, task, F_OK, 0);
}

/*
 * A process that was killed uses nothing any more. It can be there as long as the kernel waits for
 * the device's server in it, and what it has open is closed when it ends: nobody can do anything
 * about it.
 */
static bool was_killed(int pidfd)
{
	static const char field[] = "\nSigPnd:\t";
	char status[4096];
	const char *pending;
	ssize_t n = -1;
	int fd;

	fd = openat(pidfd, "status", O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		n = read(fd, status, sizeof(status) - 1);
		close(fd);
	}
	if (n < 0)
		return false;
	status[n] = '\0';
	pending = strstr(status, field);
	return pending && strtoull(pending + strlen(field), NULL, 16) >> (SIGKILL - 1) & 1;
}

static int search_processes(struct search *s, int procfd, struct err *e)
{
	char self[32] = "";
	struct dirent *entry;
	int r = 0, pidfd;
	uint64_t pid;
	DIR *dir;

	if (readlinkat(procfd, "self", self, sizeof(self) - 1) < 0)
		return err_sys(e, ERR_FAILED, errno, "read /proc/self");
	dir = sysfs_opendir(procfd, ".");
	if (!dir)
		return err_sys(e, ERR_FAILED, errno, "open /proc");
	while (errno = 0, !r && (entry = readdir(dir))) {
		if (text_number(entry->d_name, false, 1, INT32_MAX, &pid) ||
		    !strcmp(entry->d_name, self))
			continue;
		pidfd = openat(procfd, entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (pidfd < 0) {
			r = is_passed_over(errno) ? 0 : -errno;
			continue;
		}
		r = has_disk_open(s, pidfd);
		if (r > 0) {
			if (!is_ioctl_server(s, pidfd) && !was_killed(pidfd))
				add_process(s, pidfd, entry->d_name);
			r = 0;
		}
		close(pidfd);
	}
	if (!r)
		r = -errno;
	closedir(dir);
	return r ? err_sys(e, ERR_FAILED, -r, "search the processes in /proc") : 0;
}

int device_users_find(int procfd, int sysfd, unsigned index, struct device_users *u, struct err *e)
{
	struct search s = { .index = index, .found = u };
	struct sysfs_device d;
	char name[NAME_LEN];
	size_t parts;
	int r;

	u->users = 0;
	u->text[0] = '\0';
	r = sysfs_attachment(sysfd, index, &d, e);
	if (r || !d.present)
		return r;
	s.devs[0] = d.dev;
	s.server = d.has_backend ? 0 : d.pid;
	r = sysfs_partitions(sysfd, index, s.devs + 1, DISK_MAX_PARTS, &parts, e);
	if (r)
		return r;
	s.count = 1 + (parts < DISK_MAX_PARTS ? parts : DISK_MAX_PARTS);

	r = read_lines(&s, procfd, "self/mountinfo", false, parse_mount, e);
	if (r)
		return r;
	/* A kernel without swap has no such file. */
	r = read_lines(&s, procfd, "swaps", true, parse_swap, e);
	if (r)
		return r;
	r = sysfs_holder(sysfd, index, name, sizeof(name), e);
	if (r < 0)
		return r;
	if (r)
		add_user(&s, "held by ", name, "");
	r = sysfs_loop(sysfd, index, name, sizeof(name), e);
	if (r < 0)
		return r;
	if (r)
		add_user(&s, "used by ", name, "");
	return search_processes(&s, procfd, e);
}
