/* SPDX-License-Identifier: GPL-2.0-or-later */
#define _GNU_SOURCE /* statx */
#include "kernel/device_users.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "kernel/sysfs.h"
#include "base/text.h"

#define DISK_MAX_PARTS 256   /* linux/genhd.h, block/partitions: no disk has more */
#define LINE_MAX_BYTES 65536 /* two paths of PATH_MAX bytes, each written as \NNN, and more */
#define NAME_LEN       256

struct seek {
	unsigned index;
	dev_t devs[1 + DISK_MAX_PARTS];
	size_t count;
	struct device_users *u;
	pid_t server; /* that serves the device itself, or 0 */
};

/* One user more; the first one is kept in words: before, name escaped, after. */
static void note(struct seek *s, const char *before, const char *name, const char *after)
{
	struct device_users *u = s->u;
	size_t used = strlen(before), tail = strlen(after) + 1;

	if (u->users++)
		return;
	memcpy(u->text, before, used);
	used += text_escape(u->text + used, sizeof(u->text) - used - tail, name, strlen(name));
	memcpy(u->text + used, after, tail);
}

static bool is_ours(const struct seek *s, dev_t dev)
{
	for (size_t i = 0; i < s->count; i++)
		if (s->devs[i] == dev)
			return true;
	return false;
}

struct lines {
	int fd;
	bool skipping; /* the rest of a line that was handed out cut */
	size_t start, end;
	char buf[LINE_MAX_BYTES];
};

/*
 * The next line without its newline, valid until the next call. A line that is longer than the
 * buffer is cut there. Returns 1, 0 at the end, -errno.
 */
static int next_line(struct lines *l, char **line)
{
	for (;;) {
		char *from = l->buf + l->start;
		char *nl = memchr(from, '\n', l->end - l->start);
		bool skipped = l->skipping;
		ssize_t n;

		if (nl) {
			*nl = '\0';
			l->start = (size_t)(nl + 1 - l->buf);
			l->skipping = false;
			if (skipped)
				continue;
			*line = from;
			return 1;
		}
		if (skipped)
			l->start = l->end;
		memmove(l->buf, l->buf + l->start, l->end - l->start);
		l->end -= l->start;
		l->start = 0;
		if (l->end == sizeof(l->buf) - 1) {
			l->buf[l->end] = '\0';
			l->start = l->end;
			l->skipping = true;
			*line = l->buf;
			return 1;
		}
		n = read(l->fd, l->buf + l->end, sizeof(l->buf) - 1 - l->end);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0) {
			if (l->end == 0)
				return 0;
			l->buf[l->end] = '\0';
			l->start = l->end;
			*line = l->buf;
			return 1;
		}
		l->end += (size_t)n;
	}
}

/* The \NNN of seq_path() and mangle() back to bytes, in place. */
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

static bool is_ours_text(const struct seek *s, char *text)
{
	uint64_t major_nr, minor_nr;
	char *colon = strchr(text, ':');

	if (!colon)
		return false;
	*colon = '\0';
	return !text_number(text, false, 0, UINT32_MAX, &major_nr) &&
	       !text_number(colon + 1, false, 0, UINT32_MAX, &minor_nr) &&
	       is_ours(s, makedev((unsigned)major_nr, (unsigned)minor_nr));
}

/*
 * proc_pid_mountinfo(5): "id parent major:minor root mount-point options [tag...] - type source
 * options". btrfs and others mount with a number that is no disk's, there only the source tells.
 * For fuse any user chooses the source, so it must not make a disk look used; fuseblk, which only
 * root mounts, has the number of its disk.
 */
static void mount_line(struct seek *s, char *line)
{
	enum { MAJOR_MINOR = 2, MOUNT_POINT = 4, FIELDS };
	char *field[FIELDS], *type, *source, *f;
	bool ours;

	for (size_t i = 0; i < FIELDS; i++) {
		field[i] = strsep(&line, " ");
		if (!field[i])
			return;
	}
	ours = is_ours_text(s, field[MAJOR_MINOR]);
	if (!ours) {
		do
			f = strsep(&line, " ");
		while (f && strcmp(f, "-"));
		type = strsep(&line, " ");
		source = strsep(&line, " ");
		if (!source || !strcmp(type, "fuse") || !strncmp(type, "fuse.", 5))
			return;
		unescape(source);
		ours = !strncmp(source, "/dev/", 5) && sysfs_is_part(source + 5, s->index);
	}
	if (ours) {
		unescape(field[MOUNT_POINT]);
		note(s, "mounted on ", field[MOUNT_POINT], "");
	}
}

/*
 * proc_swaps(5): "path type ...", the path as seen from the root of the reader, so that only its
 * last part can be relied on (the node may also have been deleted). A swap file is of type "file".
 */
static void swap_line(struct seek *s, char *line)
{
	static const char gone[] = " (deleted)";
	char *path = strsep(&line, " \t"), *type, *name;
	size_t len;

	do
		type = strsep(&line, " \t");
	while (type && !*type);
	if (!type || strcmp(type, "partition"))
		return;
	unescape(path);
	len = strlen(path);
	if (len > sizeof(gone) - 1 && !strcmp(path + len - (sizeof(gone) - 1), gone))
		path[len - (sizeof(gone) - 1)] = '\0';
	name = strrchr(path, '/');
	if (name && sysfs_is_part(name + 1, s->index))
		note(s, "used as swap", "", "");
}

static int each_line(struct seek *s, int procfd, const char *name, bool optional,
		     void (*line_seen)(struct seek *s, char *line), struct err *e)
{
	struct lines *l;
	char *line = NULL;
	int fd, r;

	fd = openat(procfd, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0 && optional && errno == ENOENT)
		return 0;
	if (fd < 0)
		return err_sys(e, ERR_FAILED, errno, "open /proc/%s", name);
	l = calloc(1, sizeof(*l));
	if (!l) {
		close(fd);
		return err_sys(e, ERR_FAILED, ENOMEM, "read /proc/%s", name);
	}
	l->fd = fd;
	while ((r = next_line(l, &line)) > 0)
		line_seen(s, line);
	free(l);
	close(fd);
	return r ? err_sys(e, ERR_FAILED, -r, "read /proc/%s", name) : 0;
}

/* True for what a process that ends, or that may not be looked into, answers. */
static bool passed_over(int code)
{
	return code == ENOENT || code == ESRCH || code == EACCES || code == EPERM;
}

/* Directory of path as a stream, NULL with errno. */
static DIR *dir_open(int atfd, const char *path)
{
	int fd = openat(atfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir;
	int code;

	if (fd < 0)
		return NULL;
	dir = fdopendir(fd);
	if (!dir) {
		code = errno;
		close(fd);
		errno = code;
	}
	return dir;
}

/*
 * Does the process have one of the devices open? 1, 0 or -errno. Without AT_STATX_DONT_SYNC a file
 * on a network file system whose server is gone would hold up the search.
 */
static int process_has(const struct seek *s, int pidfd)
{
	struct dirent *entry;
	struct statx st;
	int r = 0, code;
	DIR *dir;

	dir = dir_open(pidfd, "fd");
	if (!dir)
		return passed_over(errno) ? 0 : -errno;
	while (errno = 0, (entry = readdir(dir))) {
		if (statx(dirfd(dir), entry->d_name, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT,
			  STATX_TYPE, &st) ||
		    !S_ISBLK(st.stx_mode) ||
		    !is_ours(s, makedev(st.stx_rdev_major, st.stx_rdev_minor)))
			continue;
		r = 1;
		break;
	}
	code = errno;
	closedir(dir);
	if (!r && !passed_over(code))
		r = -code;
	return r;
}

static void note_process(struct seek *s, int pidfd, const char *pid)
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
	note(s, before, comm, ")");
}

/*
 * A device set up by ioctl lives in a process that has it open all the time: nbd-client itself, or a
 * thread of qemu-nbd. /sys/block/nbdN/pid is that thread's.
 */
static bool is_server(const struct seek *s, int pidfd)
{
	char task[32];

	if (!s->server)
		return false;
	snprintf(task, sizeof(task), "task/%d", (int)s->server);
	return !faccessat(pidfd, task, F_OK, 0);
}

static int seek_processes(struct seek *s, int procfd, struct err *e)
{
	char self[32] = "";
	struct dirent *entry;
	int r = 0, pidfd;
	uint64_t pid;
	DIR *dir;

	if (readlinkat(procfd, "self", self, sizeof(self) - 1) < 0)
		return err_sys(e, ERR_FAILED, errno, "read /proc/self");
	dir = dir_open(procfd, ".");
	if (!dir)
		return err_sys(e, ERR_FAILED, errno, "open /proc");
	while (errno = 0, !r && (entry = readdir(dir))) {
		if (text_number(entry->d_name, false, 1, INT32_MAX, &pid) ||
		    !strcmp(entry->d_name, self))
			continue;
		pidfd = openat(procfd, entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (pidfd < 0) {
			r = passed_over(errno) ? 0 : -errno;
			continue;
		}
		r = process_has(s, pidfd);
		if (r > 0) {
			if (!is_server(s, pidfd))
				note_process(s, pidfd, entry->d_name);
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
	struct seek s = { .index = index, .u = u };
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

	r = each_line(&s, procfd, "self/mountinfo", false, mount_line, e);
	if (r)
		return r;
	/* A kernel without swap has no such file. */
	r = each_line(&s, procfd, "swaps", true, swap_line, e);
	if (r)
		return r;
	r = sysfs_holder(sysfd, index, name, sizeof(name), e);
	if (r < 0)
		return r;
	if (r)
		note(&s, "held by ", name, "");
	r = sysfs_loop(sysfd, index, name, sizeof(name), e);
	if (r < 0)
		return r;
	if (r)
		note(&s, "used by ", name, "");
	return seek_processes(&s, procfd, e);
}
