/* SPDX-License-Identifier: GPL-2.0-or-later */
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
 * Longer than a number, a device number and "write through", the longest word asked for: what fills
 * it was cut and is none of them.
 */
#define SHORT_ATTR 32

/* Room for "block/loop1048575/loop/backing_file" and "nbd1048575p1048575/holders". */
#define PATH_LEN 64

int sysfs_open(const char *path, struct err *e)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return err_sys(e, ERR_KERNEL, errno, "open %s", path);
	return fd;
}

/*
 * The first cap - 1 bytes of an attribute, without the newline at the end. Returns the length or
 * -errno: -ENOENT as well when the device goes away between open and read (kernfs: ENODEV).
 */
static ssize_t attr_read(int dirfd, const char *name, char *buf, size_t cap)
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

/* The text of an attribute. Returns 1, 0 and "" when there is no such attribute, -errno. */
static int attr_text(int dirfd, const char *disk, const char *name, char *buf, size_t cap,
		     struct err *e)
{
	ssize_t n = attr_read(dirfd, name, buf, cap);

	if (n >= 0)
		return 1;
	buf[0] = '\0';
	if (n == -ENOENT)
		return 0;
	return err_sys(e, ERR_KERNEL, (int)-n, "read /sys/block/%s/%s", disk, name);
}

/* A number, 0 when there is no such attribute. */
static int attr_number(int dirfd, const char *disk, const char *name, uint64_t max, uint64_t *value,
		       struct err *e)
{
	char buf[SHORT_ATTR];
	int r;

	*value = 0;
	r = attr_text(dirfd, disk, name, buf, sizeof(buf), e);
	if (r <= 0)
		return r;
	if (strlen(buf) == sizeof(buf) - 1 || text_number(buf, false, 0, max, value))
		return err_set(e, ERR_KERNEL, EINVAL, "/sys/block/%s/%s is not a number", disk,
			       name);
	return 0;
}

/* "major:minor", 0 when there is no such attribute. */
static int attr_dev(int dirfd, const char *disk, const char *name, dev_t *dev, struct err *e)
{
	uint64_t major_nr, minor_nr;
	char buf[SHORT_ATTR], *colon;
	int r;

	*dev = 0;
	r = attr_text(dirfd, disk, name, buf, sizeof(buf), e);
	if (r <= 0)
		return r;
	colon = strchr(buf, ':');
	if (colon)
		*colon = '\0';
	if (!colon || strlen(colon + 1) > 7 ||
	    text_number(buf, false, 0, (1U << 12) - 1, &major_nr) ||
	    text_number(colon + 1, false, 0, MINORS - 1, &minor_nr))
		return err_set(e, ERR_KERNEL, EINVAL, "/sys/block/%s/%s is not a device number",
			       disk, name);
	*dev = makedev((unsigned)major_nr, (unsigned)minor_nr);
	return 0;
}

/*
 * The directory of the disk, -1 when there is no such disk. Without /sys/block nothing can be said
 * of any disk, so that is an error and not an absent one.
 */
static int disk_open(int sysfd, unsigned index, int *fd, struct err *e)
{
	char path[PATH_LEN];

	snprintf(path, sizeof(path), "block/nbd%u", index);
	*fd = openat(sysfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (*fd >= 0)
		return 0;
	if (errno != ENOENT)
		return err_sys(e, ERR_KERNEL, errno, "open /sys/%s", path);
	if (faccessat(sysfd, "block", F_OK, 0))
		return err_sys(e, ERR_KERNEL, errno, "open /sys/block");
	return 0;
}

/* All but queue/. */
static int read_attachment(int fd, const char *disk, struct sysfs_device *d, struct err *e)
{
	uint64_t size, ro, pid;
	int r = attr_number(fd, disk, "size", UINT64_MAX / 512, &size, e);

	if (!r)
		r = attr_number(fd, disk, "ro", 1, &ro, e);
	if (r)
		return r;
	d->size = size * 512;
	d->read_only = ro == 1;

	/* Its existence is the sign, whatever it says. */
	d->attached = !faccessat(fd, "pid", F_OK, 0);
	r = attr_number(fd, disk, "pid", INT32_MAX, &pid, e);
	if (r)
		return r;
	d->pid = (pid_t)pid;

	r = attr_text(fd, disk, "backend", d->backend, sizeof(d->backend), e);
	if (r < 0)
		return r;
	d->has_backend = r == 1;

	/* Last, because every device has it: where it is missing the rest was read from a ruin. */
	r = attr_dev(fd, disk, "dev", &d->dev, e);
	if (r)
		return r;
	d->present = d->dev != 0;
	return 0;
}

static int read_queue(int fd, const char *disk, struct sysfs_device *d, struct err *e)
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
		r = attr_number(fd, disk, numbers[i].name, numbers[i].max, &v[i], e);
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
	char disk[SHORT_ATTR];
	int fd, r;

	memset(d, 0, sizeof(*d));
	d->index = index;
	r = disk_open(sysfd, index, &fd, e);
	if (r || fd < 0)
		return r;
	snprintf(disk, sizeof(disk), "nbd%u", index);
	if (queue)
		r = read_queue(fd, disk, d, e);
	if (!r)
		r = read_attachment(fd, disk, d, e);
	if (!r && !d->present) {
		memset(d, 0, sizeof(*d));
		d->index = index;
	}
	close(fd);
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

static int by_value(const void *a, const void *b)
{
	unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;

	return (x > y) - (x < y);
}

/* The number in a name that is the prefix and a number as the kernel prints it. */
static bool number_after(const char *name, const char *prefix, unsigned *number)
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

/* The numbers of all entries of the directory that are called prefix and a number, ascending. */
static int numbers_after(int atfd, const char *path, const char *prefix, unsigned **numbers,
			 size_t *count)
{
	size_t room = 0, len = 0;
	unsigned *v = NULL, n;
	struct dirent *entry;
	int fd, code;
	DIR *dir;

	*numbers = NULL;
	*count = 0;
	fd = openat(atfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	dir = fdopendir(fd);
	if (!dir) {
		code = errno;
		close(fd);
		return -code;
	}
	while (errno = 0, (entry = readdir(dir))) {
		if (!number_after(entry->d_name, prefix, &n))
			continue;
		if (len == room) {
			unsigned *grown;

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
		qsort(v, len, sizeof(*v), by_value);
	*numbers = v;
	*count = len;
	return 0;
}

int sysfs_indices(int sysfd, unsigned **indices, size_t *count, struct err *e)
{
	int r = numbers_after(sysfd, "block", "nbd", indices, count);

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
	return number_after(name, prefix, &number);
}

/* The numbers of the partitions of a disk that is open as fd. */
static int parts(int fd, unsigned index, unsigned **numbers, size_t *count, struct err *e)
{
	char prefix[SHORT_ATTR];
	int r;

	snprintf(prefix, sizeof(prefix), "nbd%up", index);
	r = numbers_after(fd, ".", prefix, numbers, count);
	return r ? err_sys(e, ERR_KERNEL, -r, "read /sys/block/nbd%u", index) : 0;
}

int sysfs_partitions(int sysfd, unsigned index, dev_t *devs, size_t cap, size_t *count,
		     struct err *e)
{
	char disk[SHORT_ATTR], path[PATH_LEN];
	unsigned *numbers = NULL;
	size_t n = 0;
	int fd, r;
	dev_t dev;

	*count = 0;
	r = disk_open(sysfd, index, &fd, e);
	if (r || fd < 0)
		return r;
	snprintf(disk, sizeof(disk), "nbd%u", index);
	r = parts(fd, index, &numbers, &n, e);
	for (size_t i = 0; !r && i < n; i++) {
		snprintf(path, sizeof(path), "%sp%u/dev", disk, numbers[i]);
		r = attr_dev(fd, disk, path, &dev, e);
		if (r || !dev) /* gone since the directory was read */
			continue;
		if (*count < cap)
			devs[*count] = dev;
		++*count;
	}
	free(numbers);
	close(fd);
	return r;
}

static void cut_copy(char *dst, size_t cap, const char *src)
{
	size_t len = strnlen(src, cap - 1);

	memcpy(dst, src, len);
	dst[len] = '\0';
}

/* The name of an entry of a directory. Returns 1, 0 when it has none or does not exist, -errno. */
static int any_entry(int atfd, const char *path, char *name, size_t cap)
{
	struct dirent *entry;
	int fd, code;
	DIR *dir;

	fd = openat(atfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	dir = fdopendir(fd);
	if (!dir) {
		code = errno;
		close(fd);
		return -code;
	}
	do {
		errno = 0;
		entry = readdir(dir);
	} while (entry && entry->d_name[0] == '.');
	code = errno;
	if (entry)
		cut_copy(name, cap, entry->d_name);
	closedir(dir);
	return entry ? 1 : -code;
}

int sysfs_holder(int sysfd, unsigned index, char *name, size_t cap, struct err *e)
{
	char path[PATH_LEN] = "holders";
	unsigned *numbers = NULL;
	size_t n = 0;
	int fd, r;

	name[0] = '\0';
	r = disk_open(sysfd, index, &fd, e);
	if (r || fd < 0)
		return r;
	r = parts(fd, index, &numbers, &n, e);
	if (r)
		goto out;
	r = any_entry(fd, path, name, cap);
	for (size_t i = 0; !r && i < n; i++) {
		snprintf(path, sizeof(path), "nbd%up%u/holders", index, numbers[i]);
		r = any_entry(fd, path, name, cap);
	}
	if (r < 0)
		r = err_sys(e, ERR_KERNEL, -r, "read /sys/block/nbd%u/%s", index, path);
out:
	free(numbers);
	close(fd);
	return r;
}

int sysfs_loop(int sysfd, unsigned index, char *name, size_t cap, struct err *e)
{
	static const char gone[] = " (deleted)";
	char path[PATH_LEN], file[4096];
	unsigned *numbers = NULL;
	size_t n = 0;
	int r;

	name[0] = '\0';
	r = numbers_after(sysfd, "block", "loop", &numbers, &n);
	if (r)
		return err_sys(e, ERR_KERNEL, -r, "read /sys/block");
	for (size_t i = 0; !r && i < n; i++) {
		ssize_t len;

		snprintf(path, sizeof(path), "block/loop%u/loop/backing_file", numbers[i]);
		len = attr_read(sysfd, path, file, sizeof(file));
		if (len == -ENOENT)
			continue; /* as for every loop that is not set up */
		if (len < 0) {
			r = err_sys(e, ERR_KERNEL, (int)-len, "read /sys/%s", path);
			break;
		}
		if ((size_t)len > sizeof(gone) - 1 &&
		    !strcmp(file + len - (sizeof(gone) - 1), gone))
			file[(size_t)len - (sizeof(gone) - 1)] = '\0';
		if (strncmp(file, "/dev/", 5) || !sysfs_is_part(file + 5, index))
			continue;
		snprintf(path, sizeof(path), "loop%u", numbers[i]);
		cut_copy(name, cap, path);
		r = 1;
	}
	free(numbers);
	return r;
}

int sysfs_traffic(int sysfd, unsigned index, struct sysfs_traffic *t, struct err *e)
{
	/*
	 * Documentation/block/stat.rst: reads, writes, discards (4.18) and flushes (5.5) completed; sectors, always of 512
	 * bytes, read and written; in flight.
	 */
	static const unsigned completed[] = { 0, 4, 11, 15 };
	enum { SECTORS_READ = 2, SECTORS_WRITTEN = 6, IN_FLIGHT = 8 };
	uint64_t field[17] = { 0 };
	char disk[SHORT_ATTR], text[512], *word, *rest = text;
	unsigned n = 0;
	int fd, r;

	memset(t, 0, sizeof(*t));
	r = disk_open(sysfd, index, &fd, e);
	if (r || fd < 0)
		return r;
	snprintf(disk, sizeof(disk), "nbd%u", index);
	r = attr_text(fd, disk, "stat", text, sizeof(text), e);
	close(fd);
	if (r <= 0)
		return r;
	while (n < sizeof(field) / sizeof(field[0]) && (word = strtok_r(rest, " ", &rest)))
		if (text_number(word, false, 0, UINT64_MAX, &field[n++]))
			return err_set(e, ERR_KERNEL, EINVAL,
				       "/sys/block/%s/stat has a word that is not a number", disk);
	if (n <= completed[1])
		return err_set(e, ERR_KERNEL, EINVAL, "/sys/block/%s/stat has %u numbers only",
			       disk, n);
	for (size_t i = 0; i < sizeof(completed) / sizeof(completed[0]); i++)
		t->requests += field[completed[i]];
	t->bytes = (field[SECTORS_READ] + field[SECTORS_WRITTEN]) * 512;
	t->inflight = field[IN_FLIGHT];
	return 0;
}

/* One write, as queue_attr_store wants it. O_TRUNC is for recorded trees. */
static int attr_write(int dirfd, const char *name, const char *value)
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
 * connection at the first request it finds too long. Lower than wanted is only slower.
 */
static int write_max_sectors(int fd, const char *disk, uint32_t wanted, struct err *e)
{
	static const char name[] = "queue/max_sectors_kb";
	char value[SHORT_ATTR];
	uint64_t have, most;
	int r, failed = 0;

	r = attr_number(fd, disk, name, UINT32_MAX, &have, e);
	if (r)
		return r;
	r = attr_number(fd, disk, "queue/max_hw_sectors_kb", UINT32_MAX, &most, e);
	if (r)
		return r;
	if (most && wanted > most)
		wanted = (uint32_t)most;
	if (have != wanted) {
		snprintf(value, sizeof(value), "%u\n", wanted);
		failed = attr_write(fd, name, value);
		r = attr_number(fd, disk, name, UINT32_MAX, &have, e);
		if (r)
			return r;
	}
	if (have && have <= wanted)
		return 0;
	if (failed)
		return err_sys(e, ERR_KERNEL, -failed, "write %u to /sys/block/%s/%s", wanted, disk,
			       name);
	return err_set(e, ERR_KERNEL, EINVAL, "/sys/block/%s/%s is %llu after %u was written", disk,
		       name, (unsigned long long)have, wanted);
}

/*
 * "write through" set by hand outlives the attachment (kernel 6.12 and later), and then an fsync
 * reaches no server.
 */
static int write_cache(int fd, const char *disk, bool back, struct err *e)
{
	static const char name[] = "queue/write_cache";
	const char *wanted = back ? "write back" : "write through";
	char have[SHORT_ATTR];
	int r, failed;

	r = attr_text(fd, disk, name, have, sizeof(have), e);
	if (r < 0 || !strcmp(have, wanted))
		return r < 0 ? r : 0;
	failed = attr_write(fd, name, wanted);
	r = attr_text(fd, disk, name, have, sizeof(have), e);
	if (r < 0 || !back || !strcmp(have, wanted))
		return r < 0 ? r : 0;
	if (failed)
		return err_sys(e, ERR_KERNEL, -failed, "write \"%s\" to /sys/block/%s/%s", wanted,
			       disk, name);
	return err_set(e, ERR_KERNEL, EINVAL,
		       "/sys/block/%s/%s does not become \"%s\", no flush would be sent", disk,
		       name, wanted);
}

/*
 * The attribute is in milliseconds and holds until NBD_ATTR_TIMEOUT is sent again. Reading it back
 * would show what a clock of HZ makes of it.
 */
static int write_io_timeout(int fd, const char *disk, uint32_t ms, struct err *e)
{
	static const char name[] = "queue/io_timeout";
	char value[SHORT_ATTR];
	int failed;

	snprintf(value, sizeof(value), "%u", ms);
	failed = attr_write(fd, name, value);
	if (failed)
		return err_sys(e, ERR_KERNEL, -failed, "write %u to /sys/block/%s/%s", ms, disk,
			       name);
	return 0;
}

int sysfs_limits_write(int sysfd, unsigned index, const struct sysfs_limits *l, struct err *e)
{
	const char *rotational = l->rotational ? "1" : "0";
	char disk[SHORT_ATTR], have[SHORT_ATTR];
	ssize_t n;
	int fd, r;

	r = disk_open(sysfd, index, &fd, e);
	if (r)
		return r;
	snprintf(disk, sizeof(disk), "nbd%u", index);
	if (fd < 0)
		return err_sys(e, ERR_KERNEL, ENODEV, "write the limits of %s", disk);
	r = write_max_sectors(fd, disk, l->max_sectors_kb, e);
	if (!r)
		r = write_cache(fd, disk, l->write_back, e);
	if (!r && l->io_timeout_ms)
		r = write_io_timeout(fd, disk, l->io_timeout_ms, e);
	if (!r) {
		n = attr_read(fd, "queue/rotational", have, sizeof(have));
		if (n >= 0 && strcmp(have, rotational))
			attr_write(fd, "queue/rotational", rotational);
	}
	close(fd);
	return r;
}

void sysfs_announce(int sysfd, unsigned index)
{
	struct err ignored;
	int fd;

	if (disk_open(sysfd, index, &fd, &ignored) || fd < 0)
		return;
	attr_write(fd, "uevent", "change");
	close(fd);
}
