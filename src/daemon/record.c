/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
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
#define SETTINGS       "settings." /* prefix of keys that are settings */
/* An encoded byte takes three, or five where it is in a URI. */
#define FILE_MAX       (4 * (int)(sizeof(struct record) + sizeof(struct settings)))

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
	FIELD("paused", NUMBER, durable.paused),
	FIELD("server", NUMBER, durable.server),
	FIELD("fenced-until", NUMBER, durable.fenced_until),
	FIELD("size", NUMBER, durable.size),
	FIELD("server-size.0", NUMBER, durable.server_size[0]),
	FIELD("server-size.1", NUMBER, durable.server_size[1]),
	FIELD("server-size.2", NUMBER, durable.server_size[2]),
	FIELD("server-size.3", NUMBER, durable.server_size[3]),
	FIELD("server-size.4", NUMBER, durable.server_size[4]),
	FIELD("server-size.5", NUMBER, durable.server_size[5]),
	FIELD("server-size.6", NUMBER, durable.server_size[6]),
	FIELD("server-size.7", NUMBER, durable.server_size[7]),
};
enum { FIELDS = sizeof(fields) / sizeof(fields[0]) };

/*
 * A file that is being written. No memory is asked for: the writer may be the one that the memory
 * waits for.
 */
struct out {
	int fd, code;
	size_t used;
	char buf[1024];
};

static void flush_out(struct out *o)
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

static void put_char(struct out *o, char c)
{
	if (o->used == sizeof(o->buf))
		flush_out(o);
	o->buf[o->used++] = c;
}

static void put_plain(struct out *o, const char *s)
{
	while (*s)
		put_char(o, *s++);
}

static void put_encoded(struct out *o, const char *s)
{
	char byte[2] = "", encoded[sizeof("%XX")];

	for (; *s; s++) {
		struct text_writer w = { .dst = encoded, .cap = sizeof(encoded) };

		byte[0] = *s;
		text_put_percent(&w, byte, "!\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~");
		put_plain(o, encoded);
	}
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool get_decoded(const char *s, char *dst, size_t cap)
{
	size_t n = 0;

	for (; *s; s++) {
		char c = *s;

		if (c == '%') {
			int high = hex_digit(s[1]), low = high < 0 ? -1 : hex_digit(s[2]);

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

/* A number is a bool, an int or 64 bits, and none of those here is below 0 but RC_NEVER. */
static uint64_t number_of_member(const char *member, size_t size)
{
	int64_t number = 0;
	int word;

	if (size == sizeof(number)) {
		memcpy(&number, member, sizeof(number));
	} else if (size == sizeof(word)) {
		memcpy(&word, member, sizeof(word));
		number = word;
	} else {
		number = *member;
	}
	return number < 0 ? 0 : (uint64_t)number;
}

static int set_member_number(const char *text, char *member, size_t size)
{
	uint64_t max = size == sizeof(uint64_t) ? INT64_MAX : size == sizeof(int) ? INT32_MAX : 1;
	uint64_t number;
	int word;

	if (text_number(text, false, 0, max, &number))
		return -EBADMSG;
	word = (int)number;
	if (size == sizeof(number))
		memcpy(member, &number, size);
	else if (size == sizeof(word))
		memcpy(member, &word, size);
	else
		*member = (char)number;
	return 0;
}

static void put_fields(struct out *o, const struct record *s)
{
	char text[24];

	for (size_t i = 0; i < FIELDS; i++) {
		const char *member = (const char *)s + fields[i].offset;

		put_plain(o, fields[i].key);
		put_char(o, '=');
		if (fields[i].kind == NUMBER) {
			snprintf(text, sizeof(text), "%llu",
				 (unsigned long long)number_of_member(member, fields[i].size));
			put_plain(o, text);
		} else {
			put_encoded(o, member);
		}
		put_char(o, '\n');
	}
}

static void put_settings(struct out *o, const struct settings *s)
{
	char value[SETTINGS_VALUE_MAX];

	for (const struct settings_row *row = settings_rows; row->name; row++) {
		for (unsigned i = 0; settings_get(s, row, i, value, sizeof(value)); i++) {
			put_plain(o, SETTINGS);
			put_plain(o, row->name);
			put_char(o, '=');
			put_encoded(o, value);
			put_char(o, '\n');
		}
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

/* Opens a file as ".NAME", by which the file of a killed writer is found. */
static void begin_file(struct out *o, int dirfd, const char *name, char *temporary, size_t cap)
{
	snprintf(temporary, cap, ".%s", name);
	o->used = 0;
	o->fd = openat(dirfd, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC,
		       0600);
	o->code = o->fd < 0 ? errno : 0;
}

/* Completes a file by renaming it. Messages name dir. */
static int end_file(struct out *o, int dirfd, const char *dir, const char *name,
		    const char *temporary, struct err *e)
{
	flush_out(o);
	if (o->fd >= 0 && close(o->fd) && !o->code)
		o->code = errno;
	if (!o->code && renameat(dirfd, temporary, dirfd, name))
		o->code = errno;
	if (o->code)
		unlinkat(dirfd, temporary, 0);
	return o->code ? err_sys(e, ERR_FAILED, o->code, "write %s/%s", dir, name) : 0;
}

static bool is_same_file(int fd, int dirfd, const char *name)
{
	struct stat open_one, named;

	return !fstat(fd, &open_one) && !fstatat(dirfd, name, &named, AT_SYMLINK_NOFOLLOW) &&
	       open_one.st_dev == named.st_dev && open_one.st_ino == named.st_ino;
}

int record_lock(int dirfd, unsigned index, struct err *e)
{
	struct flock lock;
	char name[32];
	int fd;

	snprintf(name, sizeof(name), "nbd%u.lock", index);
	for (;;) {
		fd = openat(dirfd, name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
		if (fd < 0)
			return err_sys(e, ERR_FAILED, errno, "open the lock of nbd%u", index);
		lock = (struct flock){ .l_type = F_WRLCK, .l_whence = SEEK_SET };
		if (fcntl(fd, F_SETLK, &lock))
			break;
		/* Who had the lock before may have removed its name meanwhile. */
		if (is_same_file(fd, dirfd, name))
			return fd;
		close(fd);
	}
	if (fcntl(fd, F_GETLK, &lock) || lock.l_type == F_UNLCK)
		lock.l_pid = 0;
	close(fd);
	return err_set(e, ERR_BUSY, EBUSY, "nbd%u is supervised by process %d", index,
		       (int)lock.l_pid);
}

void record_unlock(int dirfd, unsigned index, int lock)
{
	char name[32];

	snprintf(name, sizeof(name), "nbd%u.lock", index);
	unlinkat(dirfd, name, 0);
	close(lock);
}

static int write_record(int dirfd, const char *dir, unsigned index, const struct record *s,
			struct err *e)
{
	char name[32], temporary[sizeof(name) + 1];
	struct out o;

	/* Only one process at a time attaches a device, so that the temporary name is its own. */
	snprintf(name, sizeof(name), "nbd%u", index);
	begin_file(&o, dirfd, name, temporary, sizeof(temporary));
	put_fields(&o, s);
	if (s->settings)
		put_settings(&o, s->settings);
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
	put_char(&o, '\n');
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

/* "nbdN.PID.udev" or ".nbdN.PID.udev", for any PID. */
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

/* Takes one line into a struct record. An unknown key belongs to a later version: 0. */
static int parse_field(void *record, const char *key, const char *value)
{
	for (size_t i = 0; i < FIELDS; i++) {
		char *member = (char *)record + fields[i].offset;

		if (strcmp(fields[i].key, key))
			continue;
		if (fields[i].kind == TEXT)
			return get_decoded(value, member, fields[i].size) ? 0 : -EBADMSG;
		return set_member_number(value, member, fields[i].size);
	}
	return 0;
}

static int parse_setting(void *settings, const char *key, const char *value)
{
	const struct settings_row *row = NULL;
	char text[SETTINGS_VALUE_MAX];
	struct err ignored;

	if (!strncmp(key, SETTINGS, strlen(SETTINGS)))
		row = settings_find(key + strlen(SETTINGS), SETTINGS_RECORD);
	if (!row)
		return 0;
	return !get_decoded(value, text, sizeof(text)) ||
			       settings_set(settings, row, key, text, &ignored) ?
		       -EBADMSG :
		       0;
}

static int parse_lines(char *text, int (*parse_line)(void *to, const char *key, const char *value),
		       void *to)
{
	char *line, *save = NULL;

	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *equals = strchr(line, '=');

		if (!equals)
			return -EBADMSG;
		*equals = '\0';
		if (parse_line(to, line, equals + 1))
			return -EBADMSG;
	}
	return 0;
}

static int not_a_record(const char *path, struct err *e)
{
	return err_set(e, ERR_FAILED, EBADMSG, "read %s: not a record of nbd-attach", path);
}

/* Calls parse_line for each line of a file. path is relative to dirfd. */
static int read_record_lines(int dirfd, const char *path,
			     int (*parse_line)(void *to, const char *key, const char *value),
			     void *to, struct err *e)
{
	int fd = openat(dirfd, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC), ret = 0;
	char *text = fd < 0 ? NULL : malloc(FILE_MAX + 1);
	ssize_t n = text ? read(fd, text, FILE_MAX + 1) : -1;

	if (n < 0)
		ret = err_sys(e, ERR_FAILED, errno, "read %s", path);
	else
		text[n < FILE_MAX ? n : FILE_MAX] = '\0';
	if (!ret && (n > FILE_MAX || parse_lines(text, parse_line, to)))
		ret = not_a_record(path, e);
	free(text);
	if (fd >= 0)
		close(fd);
	return ret;
}

static int read_record(int dirfd, const char *path, struct record *s, struct err *e)
{
	int ret;

	memset(s, 0, sizeof(*s));
	ret = read_record_lines(dirfd, path, parse_field, s, e);
	return ret || s->pid > 0 ? ret : not_a_record(path, e);
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

int record_read_settings(const char *dir, unsigned index, struct settings *settings, struct err *e)
{
	char path[4096];
	int ret;

	snprintf(path, sizeof(path), "%s/nbd%u", dir, index);
	settings_init(settings);
	ret = read_record_lines(AT_FDCWD, path, parse_setting, settings, e);
	if (!ret && !settings->server_count)
		return err_set(e, ERR_FAILED, ENODATA,
			       "nbd%u: its record, of another version, does not say how it was "
			       "attached; detach it and attach it again",
			       index);
	if (!ret && settings_complete(settings, false, e))
		ret = err_wrap(e, "nbd%u: as it was attached", index);
	return ret;
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

/* What a supervisor that was killed has left: its socket and its lock. */
static void remove_leftovers(int dirfd, unsigned index)
{
	struct err ignored;
	char name[32];
	int lock;

	snprintf(name, sizeof(name), "nbd%u.lock", index);
	if (faccessat(dirfd, name, F_OK, AT_SYMLINK_NOFOLLOW))
		return;
	lock = record_lock(dirfd, index, &ignored);
	if (lock < 0)
		return;
	snprintf(name, sizeof(name), "nbd%u.ctl", index);
	unlinkat(dirfd, name, 0);
	record_unlock(dirfd, index, lock);
}

void record_remove(const char *dir, unsigned index)
{
	int dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (dirfd < 0)
		return;
	record_remove_at(dirfd, index);
	remove_leftovers(dirfd, index);
	close(dirfd);
}

bool record_fits(const struct record *s, const struct sysfs_device *d)
{
	return d->attached && d->pid == s->pid && !strcmp(d->backend, s->backend);
}
