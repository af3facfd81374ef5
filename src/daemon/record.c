/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/record.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"

#define ALIAS_LINE_MAX 511
#define FILE_MAX       (4 * (int)sizeof(struct record))

enum kind { NUMBER, TEXT };

static const struct {
	const char *key;
	enum kind kind;
	size_t offset;
	size_t size;
} fields[] = {
#define FIELD(key, kind, member)                                                                 \
	{                                                                                        \
		key, kind, offsetof(struct record, member), sizeof(((struct record *)0)->member) \
	}
	FIELD("pid", NUMBER, pid),
	FIELD("connections", NUMBER, connections),
	FIELD("read-only", NUMBER, read_only),
	FIELD("backend", TEXT, backend),
	FIELD("host", TEXT, host),
	FIELD("export", TEXT, export),
	FIELD("peer", TEXT, peer),
	FIELD("tls", TEXT, tls),
	FIELD("supervisor", NUMBER, supervisor),
	FIELD("reconnects", NUMBER, reconnects),
	FIELD("alive", NUMBER, alive),
	FIELD("server-flags", NUMBER, server_flags),
	FIELD("timeout", NUMBER, timeout_s),
	FIELD("name", TEXT, name),
	FIELD("last-error", TEXT, last_error),
	FIELD("error-time", TEXT, error_time),
	FIELD("command-line", TEXT, command_line),
};
enum { FIELDS = sizeof(fields) / sizeof(fields[0]) };

/* What is to be written: no memory is asked for, since the one who writes may be who the memory waits for. */
struct out {
	int fd, code;
	size_t used;
	char buf[1024];
};

static void flush(struct out *o)
{
	for (size_t done = 0; !o->code && done < o->used;) {
		ssize_t n = write(o->fd, o->buf + done, o->used - done);

		if (n > 0)
			done += (size_t)n;
		else if (n == 0 || errno != EINTR)
			o->code = n ? errno : EIO;
	}
	o->used = 0;
}

static void put(struct out *o, char c)
{
	if (o->used == sizeof(o->buf))
		flush(o);
	o->buf[o->used++] = c;
}

static void put_plain(struct out *o, const char *s)
{
	while (*s)
		put(o, *s++);
}

static void put_text(struct out *o, const char *s)
{
	char byte[2] = "", encoded[sizeof("%XX")];

	for (; *s; s++) {
		struct text_writer w = { .dst = encoded, .cap = sizeof(encoded) };

		byte[0] = *s;
		text_put_percent(&w, byte, "!\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~");
		put_plain(o, encoded);
	}
}

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool get_text(const char *s, char *dst, size_t cap)
{
	size_t n = 0;

	for (; *s; s++) {
		char c = *s;

		if (c == '%') {
			int high = hex(s[1]), low = high < 0 ? -1 : hex(s[2]);

			if (low < 0)
				return false;
			c = (char)(high << 4 | low);
			s += 2;
		}
		if (!c || n + 1 >= cap)
			return false;
		dst[n++] = c;
	}
	dst[n] = '\0';
	return true;
}

static void put_fields(struct out *o, const struct record *s)
{
	char text[16];
	int number;

	for (size_t i = 0; i < FIELDS; i++) {
		const char *member = (const char *)s + fields[i].offset;

		put_plain(o, fields[i].key);
		put(o, '=');
		if (fields[i].kind == NUMBER) {
			memcpy(&number, member, sizeof(number));
			snprintf(text, sizeof(text), "%d", number);
			put_plain(o, text);
		} else {
			put_text(o, member);
		}
		put(o, '\n');
	}
}

int record_open(const char *dir, struct err *e)
{
	int fd;

	if (mkdir(dir, 0755) && errno != EEXIST)
		return err_sys(e, ERR_FAILED, errno, "make directory %s", dir);
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd >= 0 ? fd : err_sys(e, ERR_FAILED, errno, "open directory %s", dir);
}

/* A file that is written under another name first, ".NAME": what a killed process leaves is found by that. */
static void begin_file(struct out *o, int dirfd, const char *name, char *temporary, size_t cap)
{
	snprintf(temporary, cap, ".%s", name);
	o->used = 0;
	o->fd = openat(dirfd, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC,
		       0600);
	o->code = o->fd < 0 ? errno : 0;
}

/* dir is for messages. */
static int end_file(struct out *o, int dirfd, const char *dir, const char *name,
		    const char *temporary, struct err *e)
{
	flush(o);
	if (o->fd >= 0 && close(o->fd) && !o->code)
		o->code = errno;
	if (!o->code && renameat(dirfd, temporary, dirfd, name))
		o->code = errno;
	if (o->code)
		unlinkat(dirfd, temporary, 0);
	return o->code ? err_sys(e, ERR_FAILED, o->code, "write %s/%s", dir, name) : 0;
}

static int write_record(int dirfd, const char *dir, unsigned index, const struct record *s,
			struct err *e)
{
	char name[32], temporary[sizeof(name) + 1];
	struct out o;

	/* Only one process can have the device. */
	snprintf(name, sizeof(name), "nbd%u", index);
	begin_file(&o, dirfd, name, temporary, sizeof(temporary));
	put_fields(&o, s);
	return end_file(&o, dirfd, dir, name, temporary, e);
}

int record_write_at(int dirfd, unsigned index, const struct record *s, struct err *e)
{
	return write_record(dirfd, "record", index, s, e);
}

int record_write(const char *dir, unsigned index, const struct record *s, struct err *e)
{
	int dirfd = record_open(dir, e), ret;

	if (dirfd < 0)
		return dirfd;
	ret = write_record(dirfd, dir, index, s, e);
	close(dirfd);
	return ret;
}

int record_write_udev_name(const char *dir, unsigned index, pid_t pid, const char *alias,
			   struct err *e)
{
	static const char key[] = "NBD_ATTACH_ALIAS=";
	char name[64], temporary[sizeof(name) + 1];
	int dirfd, ret;
	struct out o;

	if (strlen(key) + strlen(alias) + 1 > ALIAS_LINE_MAX)
		return err_sys(e, ERR_FAILED, ENAMETOOLONG, "write the alias of nbd%u", index);
	dirfd = record_open(dir, e);
	if (dirfd < 0)
		return dirfd;
	snprintf(name, sizeof(name), "nbd%u.%d.udev", index, (int)pid);
	begin_file(&o, dirfd, name, temporary, sizeof(temporary));
	put_plain(&o, key);
	put_plain(&o, alias);
	put(&o, '\n');
	ret = end_file(&o, dirfd, dir, name, temporary, e);
	close(dirfd);
	return ret;
}

void record_remove_udev_name(const char *dir, unsigned index, pid_t pid)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/nbd%u.%d.udev", dir, index, (int)pid);
	unlink(path);
}

/* "nbdN.PID.udev" of any process, with a dot before it or not. */
static bool is_alias(const char *name, unsigned index)
{
	char begin[32];
	int len = snprintf(begin, sizeof(begin), "nbd%u.", index);
	size_t all;

	name += name[0] == '.';
	all = strlen(name);
	return !strncmp(name, begin, (size_t)len) && all > 5 && !strcmp(name + all - 5, ".udev");
}

static void remove_aliases(int at, unsigned index)
{
	int fd = openat(at, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	if (!d) {
		if (fd >= 0)
			close(fd);
		return;
	}
	while ((entry = readdir(d)) != NULL)
		if (is_alias(entry->d_name, index))
			unlinkat(at, entry->d_name, 0);
	closedir(d);
}

static int parse_line(struct record *s, const char *key, const char *value)
{
	for (size_t i = 0; i < FIELDS; i++) {
		char *member = (char *)s + fields[i].offset;
		uint64_t number;
		int n;

		if (strcmp(fields[i].key, key))
			continue;
		if (fields[i].kind == TEXT)
			return get_text(value, member, fields[i].size) ? 0 : -EBADMSG;
		if (text_number(value, false, 0, INT32_MAX, &number))
			return -EBADMSG;
		n = (int)number;
		memcpy(member, &n, sizeof(n));
		return 0;
	}
	return 0; /* a later version's */
}

static int parse(struct record *s, char *text)
{
	char *line, *save = NULL;

	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *equals = strchr(line, '=');

		if (!equals)
			return -EBADMSG;
		*equals = '\0';
		if (parse_line(s, line, equals + 1))
			return -EBADMSG;
	}
	return s->pid > 0 ? 0 : -EBADMSG;
}

/* path, by which it is told, is relative to dirfd. */
static int read_record(int dirfd, const char *path, struct record *s, struct err *e)
{
	char *text = NULL;
	ssize_t n;
	int fd, ret;

	memset(s, 0, sizeof(*s));
	fd = openat(dirfd, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return err_sys(e, ERR_FAILED, errno, "read %s", path);
	text = malloc(FILE_MAX + 1);
	if (!text) {
		ret = err_sys(e, ERR_FAILED, ENOMEM, "read %s", path);
		goto out;
	}
	n = read(fd, text, FILE_MAX + 1);
	if (n < 0) {
		ret = err_sys(e, ERR_FAILED, errno, "read %s", path);
		goto out;
	}
	ret = -EBADMSG;
	if (n <= FILE_MAX) {
		text[n] = '\0';
		ret = parse(s, text);
	}
	if (ret)
		ret = err_set(e, ERR_FAILED, EBADMSG, "read %s: not a record of nbd-attach", path);
out:
	free(text);
	close(fd);
	return ret;
}

int record_read(const char *dir, unsigned index, struct record *s, struct err *e)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/nbd%u", dir, index);
	return read_record(AT_FDCWD, path, s, e);
}

int record_read_at(int dirfd, unsigned index, struct record *s, struct err *e)
{
	char name[32];

	snprintf(name, sizeof(name), "nbd%u", index);
	return read_record(dirfd, name, s, e);
}

bool record_is_there(int dirfd, unsigned index)
{
	char name[32];

	snprintf(name, sizeof(name), "nbd%u", index);
	return !faccessat(dirfd, name, F_OK, AT_SYMLINK_NOFOLLOW);
}

void record_remove_at(int dirfd, unsigned index)
{
	char name[32];

	snprintf(name, sizeof(name), ".nbd%u", index);
	unlinkat(dirfd, name + 1, 0);
	unlinkat(dirfd, name, 0);
	remove_aliases(dirfd, index);
}

void record_remove(const char *dir, unsigned index)
{
	int dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (dirfd < 0)
		return;
	record_remove_at(dirfd, index);
	close(dirfd);
}

bool record_fits(const struct record *s, const struct sysfs_device *d)
{
	return d->attached && d->pid == s->pid && !strcmp(d->backend, s->backend);
}
