/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "text.h"

#define FILE_MAX (4 * (int)sizeof(struct state))

enum kind { NUMBER, TEXT };

static const struct {
	const char *key;
	enum kind kind;
	size_t offset;
	size_t size;
} fields[] = {
#define FIELD(key, kind, member) \
	{ key, kind, offsetof(struct state, member), sizeof(((struct state *)0)->member) }
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
	FIELD("server-flags", NUMBER, server_flags),
	FIELD("timeout", NUMBER, timeout_s),
	FIELD("name", TEXT, name),
	FIELD("last-error", TEXT, last_error),
	FIELD("error-time", TEXT, error_time),
	FIELD("command-line", TEXT, command_line),
};
enum { FIELDS = sizeof(fields) / sizeof(fields[0]) };

static void put_text(FILE *f, const char *s)
{
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c > ' ' && c < 0x7f && c != '%')
			fputc(c, f);
		else
			fprintf(f, "%%%02X", c);
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

static int put_fields(int fd, const struct state *s)
{
	FILE *f = fdopen(fd, "w");
	int bad;

	if (!f) {
		bad = errno;
		close(fd);
		return bad;
	}
	for (size_t i = 0; i < FIELDS; i++) {
		const char *member = (const char *)s + fields[i].offset;
		int number;

		fprintf(f, "%s=", fields[i].key);
		if (fields[i].kind == NUMBER) {
			memcpy(&number, member, sizeof(number));
			fprintf(f, "%d", number);
		} else {
			put_text(f, member);
		}
		fputc('\n', f);
	}
	bad = ferror(f) ? EIO : 0;
	return fclose(f) ? errno : bad;
}

int state_write(const char *dir, unsigned index, const struct state *s, struct err *e)
{
	char name[32], temporary[64];
	int dirfd, fd, code;

	if (mkdir(dir, 0755) && errno != EEXIST)
		return err_sys(e, ERR_FAILED, errno, "make directory %s", dir);
	dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dirfd < 0)
		return err_sys(e, ERR_FAILED, errno, "open directory %s", dir);
	snprintf(name, sizeof(name), "nbd%u", index);
	/* Only one process can have the device; what a killed one leaves is found by its name. */
	snprintf(temporary, sizeof(temporary), ".nbd%u", index);
	fd = openat(dirfd, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	code = fd < 0 ? errno : put_fields(fd, s);
	if (!code && renameat(dirfd, temporary, dirfd, name))
		code = errno;
	if (code)
		unlinkat(dirfd, temporary, 0);
	close(dirfd);
	return code ? err_sys(e, ERR_FAILED, code, "write %s/%s", dir, name) : 0;
}

static int parse_line(struct state *s, const char *key, const char *value)
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

static int parse(struct state *s, char *text)
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

int state_read(const char *dir, unsigned index, struct state *s, struct err *e)
{
	char path[4096];
	char *text = NULL;
	ssize_t n;
	int fd, ret;

	memset(s, 0, sizeof(*s));
	snprintf(path, sizeof(path), "%s/nbd%u", dir, index);
	fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
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

void state_remove(const char *dir, unsigned index)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/nbd%u", dir, index);
	unlink(path);
	snprintf(path, sizeof(path), "%s/.nbd%u", dir, index);
	unlink(path);
}

bool state_fits(const struct state *s, const struct sysfs_device *d)
{
	return d->attached && d->pid == s->pid && !strcmp(d->backend, s->backend);
}
