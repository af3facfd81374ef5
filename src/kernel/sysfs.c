/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "kernel/sysfs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/text.h"

#define MINORS (1U << 20) /* MINORBITS: no number of a disk or a partition reaches it */

/*
 * Longer than a number, a device number and "write through", the longest of the words that are
 * read: a text that fills it was cut and is none of them.
 */
#define SHORT_ATTR 32

/* Room for "block/loop1048575/loop/backing_file" and "nbd1048575p1048575/holders". */
#define PATH_LEN 64

/* The directory of a disk; its attributes are named relative to it. */
struct disk {
	int fd; /* -1: there is no such disk */
	char name[SHORT_ATTR];
};

int sysfs_open(const char *path, struct err *e)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return err_sys(e, ERR_KERNEL, errno, "open %s", path);
	return fd;
}

/*
 * Without /sys/block nothing can be said of any disk: that is an error and not an absent disk.
 * d->fd is the caller's to close.
 */
static int open_disk(int sysfd, unsigned index, struct disk *d, struct err *e)
{
	char path[PATH_LEN];

	snprintf(d->name, sizeof(d->name), "nbd%u", index);
	snprintf(path, sizeof(path), "block/%s", d->name);
	d->fd = openat(sysfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (d->fd >= 0)
		return 0;
	if (errno != ENOENT)
		return err_sys(e, ERR_KERNEL, errno, "open /sys/%s", path);
	if (faccessat(sysfd, "block", F_OK, 0))
		return err_sys(e, ERR_KERNEL, errno, "open /sys/block");
	return 0;
}

/*
 * Reads the first cap - 1 bytes of an attribute, without the newline at the end. Returns the length
 * or -errno: -ENOENT as well when the device goes away between open and read (kernfs: ENODEV).
 */
static ssize_t read_attr(int dirfd, const char *name, char *buf, size_t cap)
{
	size_t len = 0;
	ssize_t n = 0;
	int fd, code;

	fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	while (len < cap - 1) {
		n = read(fd, buf + len, cap - 1 - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		len += (size_t)n;
	}
	code = n < 0 ? errno : 0;
	close(fd);
	if (code)
		return code == ENODEV ? -ENOENT : -code;
	if (len && buf[len - 1] == '\n')
		len--;
	buf[len] = '\0';
	return (ssize_t)len;
}

/* Returns 1, 0 and "" when there is no such attribute, or -errno. */
static int read_text(const struct disk *d, const char *name, char *buf, size_t cap, struct err *e)
{
	ssize_t n = read_attr(d->fd, name, buf, cap);

	if (n >= 0)
		return 1;
	buf[0] = '\0';
	if (n == -ENOENT)
		return 0;
	return err_sys(e, ERR_KERNEL, (int)-n, "read /sys/block/%s/%s", d->name, name);
}

/* The number is 0 when there is no such attribute. */
static int read_number(const struct disk *d, const char *name, uint64_t max, uint64_t *value,
		       struct err *e)
{
	char buf[SHORT_ATTR];
	int r;

	*value = 0;
	r = read_text(d, name, buf, sizeof(buf), e);
	if (r <= 0)
		return r;
	if (strlen(buf) == sizeof(buf) - 1 || text_number(buf, false, 0, max, value))
		return err_set(e, ERR_KERNEL, EINVAL, "/sys/block/%s/%s is not a number", d->name,
			       name);
	return 0;
}

bool sysfs_parse_dev(char *text, dev_t *dev)
{
	uint64_t major_nr, minor_nr;
	char *colon = strchr(text, ':');

	if (!colon)
		return false;
	*colon = '\0';
	if (text_number(text, false, 0, (1U << 12) - 1, &major_nr) ||
	    text_number(colon + 1, false, 0, MINORS - 1, &minor_nr))
		return false;
	*dev = makedev((unsigned)major_nr, (unsigned)minor_nr);
	return true;
}

/* The device number is 0 when there is no such attribute. */
static int read_dev(const struct disk *d, const char *name, dev_t *dev, struct err *e)
{
	char buf[SHORT_ATTR];
	int r;

	*dev = 0;
	r = read_text(d, name, buf, sizeof(buf), e);
	if (r <= 0)
		return r;
	/* A text that fills the buffer was cut. */
	if (strlen(buf) == sizeof(buf) - 1 || !sysfs_parse_dev(buf, dev))
		return err_set(e, ERR_KERNEL, EINVAL, "/sys/block/%s/%s is not a device number",
			       d->name, name);
	return 0;
}

/* Reads everything except queue/. */
static int read_attachment(const struct disk *disk, struct sysfs_device *d, struct err *e)
{
	uint64_t size, ro, pid;
	int r = read_number(disk, "size", UINT64_MAX / 512, &size, e);

	if (!r)
		r = read_number(disk, "ro", 1, &ro, e);
	if (r)
		return r;
	d->size = size * 512;
	d->read_only = ro == 1;

	/* The file exists while the device is attached, whatever it contains. */
	d->attached = !faccessat(disk->fd, "pid", F_OK, 0);
	r = read_number(disk, "pid", INT32_MAX, &pid, e);
	if (r)
		return r;
	d->pid = (pid_t)pid;

	r = read_text(disk, "backend", d->backend, sizeof(d->backend), e);
	if (r < 0)
		return r;
	d->has_backend = r == 1;

	/*
	 * Read last: every device has it, so where it is missing the device was going away
	 * meanwhile.
	 */
	r = read_dev(disk, "dev", &d->dev, e);
	if (r)
		return r;
	d->present = d->dev != 0;
	return 0;
}

static int read_queue(const struct disk *disk, struct sysfs_device *d, struct err *e)
{
	enum { BLOCK, MIN_IO, MAX_KB, WRITE_ZEROES, NUMBERS };
	static const struct {
		const char *name;
		uint64_t max;
	} numbers[NUMBERS] = {
		[BLOCK] = { "queue/logical_block_size", UINT32_MAX },
		[MIN_IO] = { "queue/minimum_io_size", UINT32_MAX },
		[MAX_KB] = { "queue/max_sectors_kb", UINT32_MAX },
		[WRITE_ZEROES] = { "queue/write_zeroes_max_bytes", UINT64_MAX },
	};
	uint64_t v[NUMBERS];
	int r;

	for (size_t i = 0; i < NUMBERS; i++) {
		r = read_number(disk, numbers[i].name, numbers[i].max, &v[i], e);
		if (r)
			return r;
	}
	d->block_size = (uint32_t)v[BLOCK];
	d->minimum_io_size = (uint32_t)v[MIN_IO];
	d->max_sectors_kb = (uint32_t)v[MAX_KB];
	d->write_zeroes_max = v[WRITE_ZEROES];
	return 0;
}

static int read_device(int sysfd, unsigned index, bool queue, struct sysfs_device *d, struct err *e)
{
	struct disk disk;
	int r;

	memset(d, 0, sizeof(*d));
	d->index = index;
	r = open_disk(sysfd, index, &disk, e);
	if (r || disk.fd < 0)
		return r;
	if (queue)
		r = read_queue(&disk, d, e);
	if (!r)
		r = read_attachment(&disk, d, e);
	if (!r && !d->present) {
		memset(d, 0, sizeof(*d));
		d->index = index;
	}
	close(disk.fd);
	return r;
}

int sysfs_device(int sysfd, unsigned index, struct sysfs_device *d, struct err *e)
{
	return read_device(sysfd, index, true, d, e);
}

int sysfs_attachment(int sysfd, unsigned index, struct sysfs_device *d, struct err *e)
{
	return read_device(sysfd, index, false, d, e);
}

void sysfs_identify(const struct sysfs_device *d, struct sysfs_identity *id)
{
	memset(id, 0, sizeof(*id));
	id->index = d->index;
	id->pid = d->pid;
	memcpy(id->backend, d->backend, sizeof(id->backend) - 1);
}

int sysfs_check_identity(int sysfd, const struct sysfs_identity *id, struct err *e)
{
	struct sysfs_device d;
	int r = sysfs_attachment(sysfd, id->index, &d, e);

	if (r)
		return r;
	if (!d.attached)
		return err_set(e, ERR_ABSENT, ENODEV, "nbd%u is not attached any more", id->index);
	/* A backend that was cut is compared as far as it goes. */
	if (d.pid != id->pid || strncmp(d.backend, id->backend, sizeof(id->backend) - 1))
		return err_set(e, ERR_BUSY, ESTALE,
			       "nbd%u is another attachment by now, made by process %d", id->index,
			       (int)d.pid);
	return 0;
}

static int compare_numbers(const void *a, const void *b)
{
	unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;

	return (x > y) - (x < y);
}

/* Parses a name that is the prefix and a number as the kernel prints it. */
static bool parse_numbered(const char *name, const char *prefix, unsigned *number)
{
	size_t len = strlen(prefix);
	const char *digits = name + len;
	uint64_t v;

	if (strncmp(name, prefix, len) || (digits[0] == '0' && digits[1]) ||
	    text_number(digits, false, 0, MINORS - 1, &v))
		return false;
	*number = (unsigned)v;
	return true;
}

DIR *sysfs_opendir(int atfd, const char *path)
{
	int fd = openat(atfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), code;
	DIR *dir;

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

/* Lists the numbers of all entries of a directory that are the prefix and a number, ascending. */
static int list_numbered(int atfd, const char *path, const char *prefix, unsigned **numbers,
			 size_t *count)
{
	DIR *dir = sysfs_opendir(atfd, path);
	size_t room = 0, len = 0;
	unsigned *v = NULL, *grown, n;
	struct dirent *entry;
	int code;

	*numbers = NULL;
	*count = 0;
	if (!dir)
		return -errno;
	while (errno = 0, (entry = readdir(dir))) {
		if (!parse_numbered(entry->d_name, prefix, &n))
			continue;
		if (len == room) {
			room = room ? 2 * room : 16;
			grown = reallocarray(v, room, sizeof(*v));
			if (!grown)
				break;
			v = grown;
		}
		v[len++] = n;
	}
	code = errno;
	closedir(dir);
	if (code) {
		free(v);
		return -code;
	}
	if (len)
		qsort(v, len, sizeof(*v), compare_numbers);
	*numbers = v;
	*count = len;
	return 0;
}

int sysfs_indices(int sysfd, unsigned **indices, size_t *count, struct err *e)
{
	int r = list_numbered(sysfd, "block", "nbd", indices, count);

	return r ? err_sys(e, ERR_KERNEL, -r, "read /sys/block") : 0;
}

bool sysfs_is_part(const char *name, unsigned index)
{
	char prefix[SHORT_ATTR];
	unsigned number;

	snprintf(prefix, sizeof(prefix), "nbd%u", index);
	if (!strcmp(name, prefix))
		return true;
	snprintf(prefix, sizeof(prefix), "nbd%up", index);
	return parse_numbered(name, prefix, &number);
}

/* Lists the numbers of a disk's partitions. */
static int list_partitions(const struct disk *d, unsigned **numbers, size_t *count, struct err *e)
{
	char prefix[SHORT_ATTR + 1];
	int r;

	snprintf(prefix, sizeof(prefix), "%sp", d->name);
	r = list_numbered(d->fd, ".", prefix, numbers, count);
	return r ? err_sys(e, ERR_KERNEL, -r, "read /sys/block/%s", d->name) : 0;
}

int sysfs_partitions(int sysfd, unsigned index, dev_t *devs, size_t cap, size_t *count,
		     struct err *e)
{
	unsigned *numbers = NULL;
	char path[PATH_LEN];
	struct disk disk;
	size_t n = 0;
	dev_t dev;
	int r;

	*count = 0;
	r = open_disk(sysfd, index, &disk, e);
	if (r || disk.fd < 0)
		return r;
	r = list_partitions(&disk, &numbers, &n, e);
	for (size_t i = 0; !r && i < n; i++) {
		snprintf(path, sizeof(path), "%sp%u/dev", disk.name, numbers[i]);
		r = read_dev(&disk, path, &dev, e);
		/* A partition without a number has gone away since the directory was read. */
		if (r || !dev)
			continue;
		if (*count < cap)
			devs[*count] = dev;
		++*count;
	}
	free(numbers);
	close(disk.fd);
	return r;
}

static void copy_cut(char *dst, size_t cap, const char *src)
{
	size_t len = strnlen(src, cap - 1);

	memcpy(dst, src, len);
	dst[len] = '\0';
}

/*
 * Reads the name of any entry of a directory. Returns 1, 0 when it has none or does not exist,
 * -errno.
 */
static int read_any_entry(int atfd, const char *path, char *name, size_t cap)
{
	DIR *dir = sysfs_opendir(atfd, path);
	struct dirent *entry;
	int code;

	if (!dir)
		return errno == ENOENT ? 0 : -errno;
	do {
		errno = 0;
		entry = readdir(dir);
	} while (entry && entry->d_name[0] == '.');
	code = errno;
	if (entry)
		copy_cut(name, cap, entry->d_name);
	closedir(dir);
	return entry ? 1 : -code;
}

int sysfs_holder(int sysfd, unsigned index, char *name, size_t cap, struct err *e)
{
	char path[PATH_LEN] = "holders";
	unsigned *numbers = NULL;
	struct disk disk;
	size_t n = 0;
	int r;

	name[0] = '\0';
	r = open_disk(sysfd, index, &disk, e);
	if (r || disk.fd < 0)
		return r;
	r = list_partitions(&disk, &numbers, &n, e);
	if (r)
		goto out;
	r = read_any_entry(disk.fd, path, name, cap);
	for (size_t i = 0; !r && i < n; i++) {
		snprintf(path, sizeof(path), "%sp%u/holders", disk.name, numbers[i]);
		r = read_any_entry(disk.fd, path, name, cap);
	}
	if (r < 0)
		r = err_sys(e, ERR_KERNEL, -r, "read /sys/block/%s/%s", disk.name, path);
out:
	free(numbers);
	close(disk.fd);
	return r;
}

void sysfs_strip_deleted(char *path)
{
	static const char mark[] = " (deleted)";
	size_t len = strlen(path);

	if (len >= sizeof(mark) && !strcmp(path + len - (sizeof(mark) - 1), mark))
		path[len - (sizeof(mark) - 1)] = '\0';
}

int sysfs_loop(int sysfd, unsigned index, char *name, size_t cap, struct err *e)
{
	char path[PATH_LEN], file[4096];
	unsigned *numbers = NULL;
	size_t n = 0;
	ssize_t len;
	int r;

	name[0] = '\0';
	r = list_numbered(sysfd, "block", "loop", &numbers, &n);
	if (r)
		return err_sys(e, ERR_KERNEL, -r, "read /sys/block");
	for (size_t i = 0; !r && i < n; i++) {
		snprintf(path, sizeof(path), "block/loop%u/loop/backing_file", numbers[i]);
		len = read_attr(sysfd, path, file, sizeof(file));
		if (len == -ENOENT) /* a loop device that is not set up */
			continue;
		if (len < 0) {
			r = err_sys(e, ERR_KERNEL, (int)-len, "read /sys/%s", path);
			break;
		}
		sysfs_strip_deleted(file);
		if (strncmp(file, "/dev/", 5) || !sysfs_is_part(file + 5, index))
			continue;
		snprintf(path, sizeof(path), "loop%u", numbers[i]);
		copy_cut(name, cap, path);
		r = 1;
	}
	free(numbers);
	return r;
}

int sysfs_traffic(int sysfd, unsigned index, struct sysfs_traffic *t, struct err *e)
{
	/*
	 * Documentation/block/stat.rst: completed reads, writes, discards (since 4.18) and flushes
	 * (since 5.5). Sectors have 512 bytes always.
	 */
	static const unsigned completed[] = { 0, 4, 11, 15 };
	enum { SECTORS_READ = 2, SECTORS_WRITTEN = 6, IN_FLIGHT = 8 };
	uint64_t field[17] = { 0 };
	char text[512], *word, *rest = text;
	struct disk disk;
	unsigned n = 0;
	int r;

	memset(t, 0, sizeof(*t));
	r = open_disk(sysfd, index, &disk, e);
	if (r || disk.fd < 0)
		return r;
	r = read_text(&disk, "stat", text, sizeof(text), e);
	close(disk.fd);
	if (r <= 0)
		return r;
	while (n < sizeof(field) / sizeof(field[0]) && (word = strtok_r(rest, " ", &rest)))
		if (text_number(word, false, 0, UINT64_MAX, &field[n++]))
			return err_set(e, ERR_KERNEL, EINVAL,
				       "/sys/block/%s/stat has a word that is not a number",
				       disk.name);
	if (n <= completed[1])
		return err_set(e, ERR_KERNEL, EINVAL, "/sys/block/%s/stat has %u numbers only",
			       disk.name, n);
	for (size_t i = 0; i < sizeof(completed) / sizeof(completed[0]); i++)
		t->requests += field[completed[i]];
	t->bytes = (field[SECTORS_READ] + field[SECTORS_WRITTEN]) * 512;
	t->inflight = field[IN_FLIGHT];
	return 0;
}

/* Writes in one call, as queue_attr_store needs it. O_TRUNC is for recorded trees. */
static int write_attr(int dirfd, const char *name, const char *value)
{
	size_t len = strlen(value);
	int fd, r = 0;
	ssize_t n;

	fd = openat(dirfd, name, O_WRONLY | O_TRUNC | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	do
		n = write(fd, value, len);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		r = -errno;
	else if ((size_t)n != len)
		r = -EIO;
	close(fd);
	return r;
}

/*
 * A device that once served large requests keeps its limit for the next server, which drops the
 * connection at the first request that is too long for it. A lower limit than wanted is only
 * slower.
 */
static int write_max_sectors(const struct disk *d, uint32_t wanted, struct err *e)
{
	static const char name[] = "queue/max_sectors_kb";
	char value[SHORT_ATTR];
	uint64_t have, most;
	int r, failed = 0;

	r = read_number(d, name, UINT32_MAX, &have, e);
	if (!r)
		r = read_number(d, "queue/max_hw_sectors_kb", UINT32_MAX, &most, e);
	if (r)
		return r;
	if (most && wanted > most)
		wanted = (uint32_t)most;
	if (have != wanted) {
		snprintf(value, sizeof(value), "%u\n", wanted);
		failed = write_attr(d->fd, name, value);
		r = read_number(d, name, UINT32_MAX, &have, e);
		if (r)
			return r;
	}
	if (have && have <= wanted)
		return 0;
	if (failed)
		return err_sys(e, ERR_KERNEL, -failed, "write %u to /sys/block/%s/%s", wanted,
			       d->name, name);
	return err_set(e, ERR_KERNEL, EINVAL, "/sys/block/%s/%s is %llu after %u was written",
		       d->name, name, (unsigned long long)have, wanted);
}

/*
 * "write through" set by hand outlives the attachment (kernel 6.12 and later), and then an fsync
 * reaches no server.
 */
static int write_cache(const struct disk *d, bool back, struct err *e)
{
	static const char name[] = "queue/write_cache";
	const char *wanted = back ? "write back" : "write through";
	char have[SHORT_ATTR];
	int r, failed;

	r = read_text(d, name, have, sizeof(have), e);
	if (r < 0 || !strcmp(have, wanted))
		return r < 0 ? r : 0;
	failed = write_attr(d->fd, name, wanted);
	r = read_text(d, name, have, sizeof(have), e);
	if (r < 0 || !back || !strcmp(have, wanted))
		return r < 0 ? r : 0;
	if (failed)
		return err_sys(e, ERR_KERNEL, -failed, "write \"%s\" to /sys/block/%s/%s", wanted,
			       d->name, name);
	return err_set(e, ERR_KERNEL, EINVAL,
		       "/sys/block/%s/%s does not become \"%s\", no flush would be sent", d->name,
		       name, wanted);
}

/*
 * The attribute is in milliseconds and holds until NBD_ATTR_TIMEOUT is sent again. It is not read
 * back, because the kernel shows it rounded to its clock (HZ).
 */
static int write_io_timeout(const struct disk *d, uint32_t ms, struct err *e)
{
	static const char name[] = "queue/io_timeout";
	char value[SHORT_ATTR];
	int failed;

	snprintf(value, sizeof(value), "%u", ms);
	failed = write_attr(d->fd, name, value);
	if (failed)
		return err_sys(e, ERR_KERNEL, -failed, "write %u to /sys/block/%s/%s", ms, d->name,
			       name);
	return 0;
}

/* A failure has no consequence but speed. */
static void write_rotational(const struct disk *d, bool rotational)
{
	static const char name[] = "queue/rotational";
	const char *wanted = rotational ? "1" : "0";
	char have[SHORT_ATTR];

	if (read_attr(d->fd, name, have, sizeof(have)) >= 0 && strcmp(have, wanted))
		write_attr(d->fd, name, wanted);
}

int sysfs_limits_write(int sysfd, unsigned index, const struct sysfs_limits *l, struct err *e)
{
	struct disk disk;
	int r;

	r = open_disk(sysfd, index, &disk, e);
	if (r)
		return r;
	if (disk.fd < 0)
		return err_sys(e, ERR_KERNEL, ENODEV, "write the limits of %s", disk.name);
	r = write_max_sectors(&disk, l->max_sectors_kb, e);
	if (!r)
		r = write_cache(&disk, l->write_back, e);
	if (!r && l->io_timeout_ms)
		r = write_io_timeout(&disk, l->io_timeout_ms, e);
	if (!r)
		write_rotational(&disk, l->rotational);
	close(disk.fd);
	return r;
}

void sysfs_announce(int sysfd, unsigned index)
{
	struct err ignored;
	struct disk disk;

	if (open_disk(sysfd, index, &disk, &ignored) || disk.fd < 0)
		return;
	write_attr(disk.fd, "uevent", "change");
	close(disk.fd);
}
