// SPDX-License-Identifier: GPL-2.0-or-later
// SPDX-FileCopyrightText: The nbd-attach authors
/*
 * sysfs on trees recorded from kernel 6.1 (tests/unit/data/sysfs) and on trees made here.
 * write-zeroes and write-through are what kernel 6.12 and later show after an earlier attachment;
 * in holder the disk is a symbolic link to ../devices/virtual/block, as on a running system.
 */
#define _GNU_SOURCE /* memfd_create, F_ADD_SEALS, posix_openpt */
#include "../unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sysmacros.h>
#include <termios.h>
#include <unistd.h>

#include "../leak.h"
#include "kernel/sysfs.h"
#include "../tree.h"

#define assert_ok(r, e) ck_assert_msg((r) == 0, "%d: %s", (r), (e).text)

static void assert_error(int r, int code, const struct err *e, const char *words)
{
	ck_assert_int_eq(r, -code);
	ck_assert_int_eq(e->code, code);
	ck_assert_int_eq(e->kind, ERR_KERNEL);
	ck_assert_msg(strstr(e->text, words) != NULL, "\"%s\" without \"%s\"", e->text, words);
}

static const struct {
	const char *tree;
	struct sysfs_device d;
} recorded[] = {
#define FRESH .present = true, .block_size = 512, .minimum_io_size = 512, .max_sectors_kb = 128
#define LIVE  FRESH, .attached = true, .size = 64 << 20
	{ "idle", { FRESH } },
	{ "attached", { LIVE, .pid = 723, .has_backend = true } },
	{ "backend",
	  { LIVE, .pid = 696, .has_backend = true, .backend = "unix:/run/nbd.sock#disk one" } },
	{ "ioctl", { LIVE, .pid = 819 } },
	{ "readonly", { LIVE, .pid = 877, .has_backend = true, .read_only = true } },
#undef FRESH
#define FRESH .present = true, .max_sectors_kb = 128, .minimum_io_size = 4096
	{ "blocks4096", { LIVE, .pid = 936, .has_backend = true, .block_size = 4096 } },
	{ "partitions", { LIVE, .pid = 995, .has_backend = true, .block_size = 512 } },
	{ "holder", { LIVE, .pid = 995, .has_backend = true, .block_size = 512 } },
#undef FRESH
#define FRESH .present = true, .block_size = 512, .minimum_io_size = 512, .max_sectors_kb = 1280
	{ "write-zeroes",
	  { LIVE, .pid = 723, .has_backend = true, .write_zeroes_max = 4294966784 } },
	{ "write-through", { LIVE, .pid = 723, .has_backend = true } },
#undef FRESH
#define FRESH .present = true, .block_size = 512, .minimum_io_size = 512, .max_sectors_kb = 4096
	{ "busy",
	  { LIVE, .pid = 703, .has_backend = true, .backend = "nbd://127.0.0.1:10800/disk" } },
};

START_TEST(device)
{
	const struct sysfs_device *want = &recorded[_i].d;
	struct sysfs_device d;
	struct err e;
	char tree[64];
	int sys, r;

	snprintf(tree, sizeof(tree), "sysfs/%s", recorded[_i].tree);
	sys = tree_recorded(tree);
	memset(&d, 0xa5, sizeof(d));
	err_clear(&e);
	r = sysfs_device(sys, 0, &d, &e);
	assert_ok(r, e);
	ck_assert_uint_eq(d.index, 0);
	ck_assert_int_eq(d.present, want->present);
	ck_assert_int_eq(d.attached, want->attached);
	ck_assert_int_eq(d.pid, want->pid);
	ck_assert_uint_eq(d.size, want->size);
	ck_assert_int_eq(d.read_only, want->read_only);
	ck_assert_int_eq(d.has_backend, want->has_backend);
	ck_assert_str_eq(d.backend, want->backend);
	ck_assert_uint_eq(d.dev, makedev(43, 0));
	ck_assert_uint_eq(d.block_size, want->block_size);
	ck_assert_uint_eq(d.minimum_io_size, want->minimum_io_size);
	ck_assert_uint_eq(d.max_sectors_kb, want->max_sectors_kb);
	ck_assert_uint_eq(d.write_zeroes_max, want->write_zeroes_max);
	close(sys);
}
END_TEST

/* The same, without a look at its queue, which has nothing that could be read here. */
START_TEST(attachment)
{
	const struct sysfs_device *want = &recorded[_i].d;
	int sys = tree_new(), r;
	struct sysfs_device d;
	char number[32];
	struct err e;

	snprintf(number, sizeof(number), "%llu\n", (unsigned long long)want->size / 512);
	tree_put(sys, "block/nbd7/size", number);
	tree_put(sys, "block/nbd7/ro", want->read_only ? "1\n" : "0\n");
	snprintf(number, sizeof(number), "%d\n", (int)want->pid);
	if (want->attached)
		tree_put(sys, "block/nbd7/pid", number);
	snprintf(number, sizeof(number), "%.20s\n", want->backend);
	if (want->has_backend)
		tree_put(sys, "block/nbd7/backend", number);
	tree_put(sys, "block/nbd7/dev", "43:7\n");
	tree_put(sys, "block/nbd7/queue/logical_block_size", "no number\n");
	memset(&d, 0xa5, sizeof(d));
	err_clear(&e);
	r = sysfs_attachment(sys, 7, &d, &e);
	assert_ok(r, e);
	ck_assert_uint_eq(d.index, 7);
	ck_assert_int_eq(d.present, true);
	ck_assert_int_eq(d.attached, want->attached);
	ck_assert_int_eq(d.pid, want->pid);
	ck_assert_uint_eq(d.size, want->size);
	ck_assert_int_eq(d.read_only, want->read_only);
	ck_assert_int_eq(d.has_backend, want->has_backend);
	ck_assert_int_eq(strncmp(d.backend, want->backend, 20), 0);
	ck_assert_uint_eq(d.dev, makedev(43, 7));
	ck_assert_uint_eq(d.block_size, 0);
	ck_assert_uint_eq(d.max_sectors_kb, 0);
	err_clear(&e);
	ck_assert_int_ne(sysfs_device(sys, 7, &d, &e), 0);
	close(sys);
}
END_TEST

START_TEST(device_absent)
{
	int sys = tree_recorded("sysfs/attached"), r;
	struct sysfs_device d;
	struct err e;

	memset(&d, 0xa5, sizeof(d));
	err_clear(&e);
	r = sysfs_device(sys, 1, &d, &e);
	assert_ok(r, e);
	ck_assert(!d.present && !d.attached && !d.has_backend);
	ck_assert_uint_eq(d.index, 1);
	ck_assert_uint_eq(d.dev, 0);
	ck_assert_uint_eq(d.size, 0);
	ck_assert_str_eq(d.backend, "");
	close(sys);
}
END_TEST

/* What is left of a device that goes away while it is read is not a device of size 0. */
START_TEST(device_going)
{
	int sys = tree_new(), r;
	struct sysfs_device d;
	struct err e;

	tree_put(sys, "block/nbd3/size", "131072\n");
	tree_put(sys, "block/nbd3/pid", "12\n");
	err_clear(&e);
	r = sysfs_device(sys, 3, &d, &e);
	assert_ok(r, e);
	ck_assert(!d.present && !d.attached);
	ck_assert_uint_eq(d.index, 3);
	ck_assert_uint_eq(d.size, 0);
	ck_assert_int_eq(d.pid, 0);
	close(sys);
}
END_TEST

/* Attributes that a kernel lacks are 0. */
START_TEST(device_bare)
{
	int sys = tree_new(), r;
	struct sysfs_device d;
	struct err e;

	tree_put(sys, "block/nbd1048575/dev", "43:1048575\n");
	memset(&d, 0xa5, sizeof(d));
	err_clear(&e);
	r = sysfs_device(sys, 1048575, &d, &e);
	assert_ok(r, e);
	ck_assert(d.present && !d.attached && !d.read_only && !d.has_backend);
	ck_assert_uint_eq(d.dev, makedev(43, 1048575));
	ck_assert_uint_eq(d.size, 0);
	ck_assert_uint_eq(d.block_size, 0);
	ck_assert_uint_eq(d.max_sectors_kb, 0);
	ck_assert_uint_eq(d.write_zeroes_max, 0);
	close(sys);
}
END_TEST

static const struct {
	const char *name, *pid, *backend; /* pid NULL: not attached; backend NULL: no attribute */
	int code;
	enum err_kind kind;
} identities[] = {
	{ "the same", "703\n", "nbd://127.0.0.1:10800/disk\n", 0, ERR_NONE },
	{ "detached", NULL, NULL, ENODEV, ERR_ABSENT },
	{ "another process", "704\n", "nbd://127.0.0.1:10800/disk\n", ESTALE, ERR_BUSY },
	{ "another export", "703\n", "nbd://127.0.0.1:10800/disk2\n", ESTALE, ERR_BUSY },
	{ "an export whose name begins alike", "703\n", "nbd://127.0.0.1:10800/dis\n", ESTALE,
	  ERR_BUSY },
	{ "another tool by netlink", "703\n", "\n", ESTALE, ERR_BUSY },
	{ "another tool by ioctl", "703\n", NULL, ESTALE, ERR_BUSY },
	{ "unreadable", "what?\n", "nbd://127.0.0.1:10800/disk\n", EINVAL, ERR_KERNEL },
};

START_TEST(identity)
{
	struct sysfs_identity id = { 7, 703, "nbd://127.0.0.1:10800/disk" };
	int sys = tree_new(), r;
	struct err e;

	if (identities[_i].pid)
		tree_put(sys, "block/nbd7/pid", identities[_i].pid);
	if (identities[_i].backend)
		tree_put(sys, "block/nbd7/backend", identities[_i].backend);
	tree_put(sys, "block/nbd7/dev", "43:7\n");
	/* Nothing of the queue is read: that can hang. */
	tree_put(sys, "block/nbd7/queue/logical_block_size", "no number\n");
	err_clear(&e);
	r = sysfs_check_identity(sys, &id, &e);
	ck_assert_msg(r == -identities[_i].code, "%s: %d: %s", identities[_i].name, r, e.text);
	ck_assert_int_eq(e.kind, identities[_i].kind);
	close(sys);
}
END_TEST

/* What sysfs_identify makes of a device is that device, whatever its backend. */
START_TEST(identity_of)
{
	static const struct {
		size_t len;
		char other; /* another last byte, 0: the same */
		int code;
	} backends[] = {
		{ 0, 0, 0 },
		{ 10, 0, 0 },
		{ 10, 'y', -ESTALE },
		{ PLAN_BACKEND_MAX, 0, 0 },
		{ PLAN_BACKEND_MAX, 'y', -ESTALE },
		{ PLAN_BACKEND_MAX + 1, 'y', 0 }, /* cut before it differs */
		{ SYSFS_BACKEND_MAX - 1, 0, 0 },
	};
	char text[SYSFS_BACKEND_MAX + 1] = "";
	size_t len = backends[_i].len;
	struct sysfs_identity id;
	struct sysfs_device d;
	int sys = tree_new();
	struct err e;

	memset(text, 'x', len);
	tree_put(sys, "block/nbd7/pid", "12\n");
	tree_put(sys, "block/nbd7/backend", text);
	tree_put(sys, "block/nbd7/dev", "43:7\n");
	err_clear(&e);
	assert_ok(sysfs_attachment(sys, 7, &d, &e), e);
	sysfs_identify(&d, &id);
	ck_assert_uint_eq(strlen(id.backend), len < PLAN_BACKEND_MAX ? len : PLAN_BACKEND_MAX);
	if (backends[_i].other) {
		text[len - 1] = backends[_i].other;
		tree_put(sys, "block/nbd7/backend", text);
	}
	ck_assert_int_eq(sysfs_check_identity(sys, &id, &e), backends[_i].code);
	close(sys);
}
END_TEST

/* Without /sys/block nothing is known of any device: not the same as none. */
START_TEST(no_block)
{
	struct sysfs_limits l = { .max_sectors_kb = 128 };
	int sys = tree_new();
	struct sysfs_device d;
	struct err e;
	unsigned *v;
	char name[8];
	size_t n;

	err_clear(&e);
	assert_error(sysfs_device(sys, 0, &d, &e), ENOENT, &e, "/sys/block");
	ck_assert(!d.present);
	assert_error(sysfs_indices(sys, &v, &n, &e), ENOENT, &e, "/sys/block");
	assert_error(sysfs_partitions(sys, 0, NULL, 0, &n, &e), ENOENT, &e, "/sys/block");
	assert_error(sysfs_holder(sys, 0, name, sizeof(name), &e), ENOENT, &e, "/sys/block");
	assert_error(sysfs_loop(sys, 0, name, sizeof(name), &e), ENOENT, &e, "/sys/block");
	assert_error(sysfs_limits_write(sys, 0, &l, &e), ENOENT, &e, "/sys/block");
	close(sys);
}
END_TEST

START_TEST(parse_dev)
{
	static const struct {
		const char *text;
		bool good;
		unsigned major_nr, minor_nr;
	} rows[] = {
		{ "43:0", true, 43, 0 },
		{ "0:33", true, 0, 33 },
		{ "4095:1048575", true, 4095, 1048575 },
		{ "4096:0", false, 0, 0 },
		{ "43:1048576", false, 0, 0 },
		{ "4294967339:1", false, 0, 0 },
		{ "43:4294967296", false, 0, 0 },
		{ "", false, 0, 0 },
		{ "43", false, 0, 0 },
		{ ":", false, 0, 0 },
		{ "43:", false, 0, 0 },
		{ ":0", false, 0, 0 },
		{ "43:0:1", false, 0, 0 },
		{ "43:0 ", false, 0, 0 },
		{ " 43:0", false, 0, 0 },
		{ "-1:0", false, 0, 0 },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		dev_t dev = makedev(7, 11), want = makedev(7, 11);
		char text[32];

		strcpy(text, rows[i].text);
		if (rows[i].good)
			want = makedev(rows[i].major_nr, rows[i].minor_nr);
		ck_assert_msg(sysfs_parse_dev(text, &dev) == rows[i].good, "%s", rows[i].text);
		ck_assert_uint_eq(dev, want);
	}
}
END_TEST

START_TEST(strip_deleted)
{
	static const char *const rows[][2] = {
		{ "/dev/nbd0 (deleted)", "/dev/nbd0" },
		{ "x (deleted)", "x" },
		{ "x (deleted) (deleted)", "x (deleted)" },
		{ " (deleted)", " (deleted)" },
		{ "(deleted)", "(deleted)" },
		{ "/dev/nbd0 (deleted) ", "/dev/nbd0 (deleted) " },
		{ "/dev/nbd0", "/dev/nbd0" },
		{ "", "" },
	};
	char path[64];

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		strcpy(path, rows[i][0]);
		sysfs_strip_deleted(path);
		ck_assert_str_eq(path, rows[i][1]);
	}
}
END_TEST

START_TEST(open_a_directory_as_a_stream)
{
	unsigned before = leak_fds();
	int sys = tree_new();
	struct dirent *entry;
	DIR *dir;

	tree_put(sys, "block/file", "");
	dir = sysfs_opendir(sys, "block");
	ck_assert_ptr_nonnull(dir);
	ck_assert(fcntl(dirfd(dir), F_GETFD) & FD_CLOEXEC);
	do
		entry = readdir(dir);
	while (entry && strcmp(entry->d_name, "file"));
	ck_assert_ptr_nonnull(entry);
	closedir(dir);
	ck_assert_ptr_null(sysfs_opendir(sys, "block/file"));
	ck_assert_int_eq(errno, ENOTDIR);
	ck_assert_ptr_null(sysfs_opendir(sys, "none"));
	ck_assert_int_eq(errno, ENOENT);
	close(sys);
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

START_TEST(open_directory)
{
	int sys = tree_new(), fd;
	char path[64];
	struct err e;

	tree_put(sys, "file", "");
	err_clear(&e);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", sys);
	fd = sysfs_open(path, &e);
	ck_assert_msg(fd >= 0, "%s", e.text);
	ck_assert_int_eq(faccessat(fd, "file", F_OK, 0), 0);
	ck_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	close(fd);
	snprintf(path, sizeof(path), "/proc/self/fd/%d/file", sys);
	assert_error(sysfs_open(path, &e), ENOTDIR, &e, path);
	snprintf(path, sizeof(path), "/proc/self/fd/%d/none", sys);
	assert_error(sysfs_open(path, &e), ENOENT, &e, path);
	close(sys);
}
END_TEST

static const struct {
	const char *name, *text;
} malformed[] = {
	{ "size", "12x\n" },
	{ "size", "" },
	{ "size", "\n" },
	{ "size", "-1\n" },
	{ "size", "1\n2\n" },
	{ "size", "36028797018963968\n" }, /* 2^64 bytes */
	{ "size", "99999999999999999999\n" },
	{ "size", "0000000000000000000000000000000000000000000000001\n" },
	{ "ro", "2\n" },
	{ "dev", "43\n" },
	{ "dev", "43:\n" },
	{ "dev", ":0\n" },
	{ "dev", "43:0:1\n" },
	{ "dev", "4096:0\n" },
	{ "dev", "43:00000000000000000000000000001\n" },
	{ "dev", "43:1048576\n" },
	{ "pid", "abc\n" },
	{ "pid", "2147483648\n" },
	{ "queue/logical_block_size", "4294967296\n" },
	{ "queue/minimum_io_size", "0x200\n" },
	{ "queue/max_sectors_kb", "many\n" },
	{ "queue/write_zeroes_max_bytes", "18446744073709551616\n" },
};

START_TEST(device_malformed)
{
	int sys = tree_copy("sysfs/attached");
	struct sysfs_device d;
	char path[64];
	struct err e;

	snprintf(path, sizeof(path), "block/nbd0/%s", malformed[_i].name);
	tree_put(sys, path, malformed[_i].text);
	err_clear(&e);
	assert_error(sysfs_device(sys, 0, &d, &e), EINVAL, &e, path);
	ck_assert(!d.present);
	close(sys);
}
END_TEST

static const char *const attributes[] = { "size", "ro",      "dev",
					  "pid",  "backend", "queue/max_sectors_kb" };

/* An attribute that is there and cannot be read is not the same as one that is lacking. */
START_TEST(device_unreadable)
{
	int sys = tree_copy("sysfs/attached");
	struct sysfs_device d;
	char path[64];
	struct err e;

	snprintf(path, sizeof(path), "block/nbd0/%s", attributes[_i]);
	ck_assert_int_eq(unlinkat(sys, path, 0), 0);
	tree_mkdir(sys, path);
	err_clear(&e);
	assert_error(sysfs_device(sys, 0, &d, &e), EISDIR, &e, path);
	ck_assert(!d.present);
	close(sys);
}
END_TEST

START_TEST(disk_is_no_directory)
{
	struct sysfs_limits l = { .max_sectors_kb = 128 };
	int sys = tree_new();
	struct sysfs_device d;
	struct err e;

	tree_put(sys, "block/nbd0", "");
	err_clear(&e);
	assert_error(sysfs_device(sys, 0, &d, &e), ENOTDIR, &e, "/sys/block/nbd0");
	assert_error(sysfs_limits_write(sys, 0, &l, &e), ENOTDIR, &e, "/sys/block/nbd0");
	close(sys);
}
END_TEST

/* The identifier is what was given at CONNECT, byte for byte, as far as one page shows it. */
START_TEST(backend)
{
	int sys = tree_copy("sysfs/attached"), r;
	struct sysfs_device d;
	struct err e;
	char text[6000];

	err_clear(&e);
	tree_put(sys, "block/nbd0/backend", "\033[2J\xff two  spaces \n\n");
	r = sysfs_device(sys, 0, &d, &e);
	assert_ok(r, e);
	ck_assert_str_eq(d.backend, "\033[2J\xff two  spaces \n");

	memset(text, 'b', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	tree_put(sys, "block/nbd0/backend", text);
	r = sysfs_device(sys, 0, &d, &e);
	assert_ok(r, e);
	ck_assert_uint_eq(strlen(d.backend), SYSFS_BACKEND_MAX);
	ck_assert_int_eq(strncmp(d.backend, text, SYSFS_BACKEND_MAX), 0);
	close(sys);
}
END_TEST

START_TEST(indices)
{
	static const char *const names[] = {
		"nbd10", "nbd2",   "nbd0", "nbd1048575", /* the rest are no disks */
		"nbd01", "nbd0p1", "nbdx", "nbd1048576", "nbd",           "nbd-1",
		"nbd+1", "nbd 1",  "sda",  "xnbd0",      "nbd4294967296",
	};
	int sys = tree_new(), r;
	char path[64];
	unsigned *v;
	struct err e;
	size_t n;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), "block/%s", names[i]);
		tree_mkdir(sys, path);
	}
	err_clear(&e);
	r = sysfs_indices(sys, &v, &n, &e);
	assert_ok(r, e);
	ck_assert_uint_eq(n, 4);
	ck_assert_uint_eq(v[0], 0);
	ck_assert_uint_eq(v[1], 2);
	ck_assert_uint_eq(v[2], 10);
	ck_assert_uint_eq(v[3], 1048575);
	free(v);
	close(sys);
}
END_TEST

START_TEST(indices_many_and_none)
{
	int sys = tree_new(), r;
	char path[64];
	unsigned *v;
	struct err e;
	size_t n;

	tree_mkdir(sys, "block");
	err_clear(&e);
	r = sysfs_indices(sys, &v, &n, &e);
	assert_ok(r, e);
	ck_assert_uint_eq(n, 0);
	free(v);

	for (unsigned i = 100; i > 0; i--) {
		snprintf(path, sizeof(path), "block/nbd%u", i - 1);
		tree_link(sys, path, "../devices/virtual/block/gone");
	}
	r = sysfs_indices(sys, &v, &n, &e);
	assert_ok(r, e);
	ck_assert_uint_eq(n, 100);
	for (unsigned i = 0; i < 100; i++)
		ck_assert_uint_eq(v[i], i);
	free(v);
	close(sys);
}
END_TEST

START_TEST(partitions)
{
	int sys = tree_recorded("sysfs/partitions"), r;
	dev_t devs[3] = { 7, 7, 7 };
	struct err e;
	size_t n;

	err_clear(&e);
	r = sysfs_partitions(sys, 0, devs, 3, &n, &e);
	assert_ok(r, e);
	ck_assert_uint_eq(n, 2);
	ck_assert_uint_eq(devs[0], makedev(43, 1));
	ck_assert_uint_eq(devs[1], makedev(43, 2));
	ck_assert_uint_eq(devs[2], 7);

	/* No room: still counted, and nothing written past it. */
	devs[1] = 7;
	r = sysfs_partitions(sys, 0, devs, 1, &n, &e);
	assert_ok(r, e);
	ck_assert_uint_eq(n, 2);
	ck_assert_uint_eq(devs[1], 7);

	r = sysfs_partitions(sys, 5, devs, 3, &n, &e);
	assert_ok(r, e);
	ck_assert_uint_eq(n, 0);
	close(sys);
}
END_TEST

START_TEST(partitions_odd)
{
	int sys = tree_new(), r;
	struct err e;
	dev_t devs[4];
	size_t n;

	tree_put(sys, "block/nbd1/nbd1p10/dev", "259:5\n");
	tree_put(sys, "block/nbd1/nbd1p9/dev", "43:41\n");
	tree_put(sys, "block/nbd1/nbd10p1/dev", "43:321\n");
	tree_put(sys, "block/nbd1/nbd1p01/dev", "43:33\n");
	tree_put(sys, "block/nbd1/nbd1p/dev", "43:33\n");
	tree_mkdir(sys, "block/nbd1/nbd1p3"); /* going away */
	err_clear(&e);
	r = sysfs_partitions(sys, 1, devs, 4, &n, &e);
	assert_ok(r, e);
	ck_assert_uint_eq(n, 2);
	ck_assert_uint_eq(devs[0], makedev(43, 41));
	ck_assert_uint_eq(devs[1], makedev(259, 5));

	tree_put(sys, "block/nbd1/nbd1p9/dev", "what\n");
	assert_error(sysfs_partitions(sys, 1, devs, 4, &n, &e), EINVAL, &e, "nbd1/nbd1p9/dev");
	close(sys);
}
END_TEST

static const struct {
	const char *name;
	unsigned index;
	bool is;
} part_names[] = {
	{ "nbd0", 0, true },       { "nbd0p1", 0, true },   { "nbd0p128", 0, true },
	{ "nbd12", 12, true },     { "nbd12p3", 12, true }, { "nbd1", 12, false },
	{ "nbd12", 1, false },     { "nbd12p1", 1, false }, { "nbd0p", 0, false },
	{ "nbd0p01", 0, false },   { "nbd0p1x", 0, false }, { "nbd0q1", 0, false },
	{ "/dev/nbd0", 0, false }, { "", 0, false },        { "nbd0p-1", 0, false },
	{ "nbd00", 0, false },
};

START_TEST(is_part)
{
	ck_assert_int_eq(sysfs_is_part(part_names[_i].name, part_names[_i].index),
			 part_names[_i].is);
}
END_TEST

START_TEST(holder)
{
	static const char *const free_ones[] = { "sysfs/partitions", "sysfs/idle" };
	char name[32] = "x";
	struct err e;
	int sys;

	err_clear(&e);
	sys = tree_recorded("sysfs/holder");
	ck_assert_int_eq(sysfs_holder(sys, 0, name, sizeof(name), &e), 1);
	ck_assert_str_eq(name, "dm-0");
	ck_assert_int_eq(sysfs_holder(sys, 0, name, 3, &e), 1);
	ck_assert_str_eq(name, "dm");
	ck_assert_int_eq(sysfs_holder(sys, 9, name, sizeof(name), &e), 0);
	ck_assert_str_eq(name, "");
	close(sys);

	for (size_t i = 0; i < 2; i++) {
		sys = tree_recorded(free_ones[i]);
		strcpy(name, "x");
		ck_assert_int_eq(sysfs_holder(sys, 0, name, sizeof(name), &e), 0);
		ck_assert_str_eq(name, "");
		close(sys);
	}

	/* A running system has the directories, and only one is not empty. */
	sys = tree_copy("sysfs/partitions");
	tree_mkdir(sys, "block/nbd0/holders");
	tree_mkdir(sys, "block/nbd0/nbd0p1/holders");
	tree_mkdir(sys, "block/nbd0/nbd0p2/holders");
	ck_assert_int_eq(sysfs_holder(sys, 0, name, sizeof(name), &e), 0);
	tree_link(sys, "block/nbd0/nbd0p1/holders/md127", "../../../../md127");
	ck_assert_int_eq(sysfs_holder(sys, 0, name, sizeof(name), &e), 1);
	ck_assert_str_eq(name, "md127");
	tree_link(sys, "block/nbd0/holders/bcache0", "../../bcache0");
	ck_assert_int_eq(sysfs_holder(sys, 0, name, sizeof(name), &e), 1);
	ck_assert_str_eq(name, "bcache0");
	close(sys);

	sys = tree_copy("sysfs/partitions");
	tree_put(sys, "block/nbd0/nbd0p2/holders", "");
	assert_error(sysfs_holder(sys, 0, name, sizeof(name), &e), ENOTDIR, &e, "nbd0p2/holders");
	close(sys);
}
END_TEST

START_TEST(loop)
{
	static const struct {
		const char *file;
		int found;
	} cases[] = {
		{ "/dev/nbd0\n", 1 },
		{ "/dev/nbd0p2\n", 1 },
		{ "/dev/nbd0 (deleted)\n", 1 },
		{ "/dev/nbd1\n", 0 },
		{ "/srv/nbd0\n", 0 },
		{ "/dev/nbd0 (deleted) (deleted)\n", 0 },
		{ "\n", 0 },
		{ "/dev/nbd0/x\n", 0 },
	};
	int sys = tree_copy("sysfs/attached");
	char name[16];
	struct err e;

	tree_mkdir(sys, "block/loop0");
	tree_put(sys, "block/loop1/loop/backing_file", "/srv/image\n");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		tree_put(sys, "block/loop12/loop/backing_file", cases[i].file);
		err_clear(&e);
		strcpy(name, "x");
		ck_assert_msg(sysfs_loop(sys, 0, name, sizeof(name), &e) == cases[i].found, "%s",
			      cases[i].file);
		ck_assert_str_eq(name, cases[i].found ? "loop12" : "");
	}
	ck_assert_int_eq(unlinkat(sys, "block/loop12/loop/backing_file", 0), 0);
	tree_mkdir(sys, "block/loop12/loop/backing_file");
	assert_error(sysfs_loop(sys, 0, name, sizeof(name), &e), EISDIR, &e, "loop12");
	close(sys);
}
END_TEST

/* busy: recorded after 58 reads, 7 writes, a discard and a flush. */
START_TEST(traffic)
{
	static const struct {
		const char *stat;
		uint64_t requests;
	} cases[] = {
		{ "       0        0        0        0        0        0        0        0        0        "
		  "0        0\n",
		  0 },
		/* kernels without counts of flushes, and of discards */
		{ "5 100 100 100 7 100 100 100 1 100 100 9 100 100 100\n", 21 },
		{ "5 100 100 100 7 100 100 100 1 100 100\n", 12 },
		/* later kernels may have more */
		{ "1 0 0 0 2 0 0 0 9 9 9 4 9 9 9 8 9 9 9 9 9 9\n", 15 },
		{ "18446744073709551615 0 0 0 0\n", UINT64_MAX },
	};
	int sys = tree_recorded("sysfs/busy"), r;
	struct sysfs_traffic t = { .requests = 4711 };
	struct err e;

	err_clear(&e);
	r = sysfs_traffic(sys, 0, &t, &e);
	assert_ok(r, e);
	ck_assert_uint_eq(t.requests, 58 + 7 + 1 + 1);
	r = sysfs_traffic(sys, 1, &t, &e);
	assert_ok(r, e);
	ck_assert_uint_eq(t.requests, 0);
	close(sys);

	sys = tree_copy("sysfs/attached");
	t.requests = 4711;
	r = sysfs_traffic(sys, 0, &t, &e);
	assert_ok(r, e);
	ck_assert_uint_eq(t.requests, 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		tree_put(sys, "block/nbd0/stat", cases[i].stat);
		r = sysfs_traffic(sys, 0, &t, &e);
		assert_ok(r, e);
		ck_assert_msg(t.requests == cases[i].requests, "%s: %llu", cases[i].stat,
			      (unsigned long long)t.requests);
	}
	tree_put(sys, "block/nbd0/stat", "5 1 100 3 7 1 11 3 4 1 1\n");
	ck_assert_int_eq(sysfs_traffic(sys, 0, &t, &e), 0);
	ck_assert_uint_eq(t.requests, 12);
	ck_assert_uint_eq(t.bytes, 111 * 512);
	ck_assert_uint_eq(t.inflight, 4);
	close(sys);
}
END_TEST

START_TEST(traffic_malformed)
{
	static const char *const cases[] = {
		"",
		"\n",
		"1 2 3 4\n",
		"1 2 3 4 x\n",
		"-1 2 3 4 5\n",
		"1 2 3 4 5 0x6\n",
		"1\t2 3 4 5\n",
		"18446744073709551616 0 0 0 0\n",
	};
	int sys = tree_copy("sysfs/attached");
	struct sysfs_traffic t;
	struct err e;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		tree_put(sys, "block/nbd0/stat", cases[i]);
		err_clear(&e);
		t.requests = 4711;
		assert_error(sysfs_traffic(sys, 0, &t, &e), EINVAL, &e, "/sys/block/nbd0/stat");
		ck_assert_uint_eq(t.requests, 0);
	}
	unlinkat(sys, "block/nbd0/stat", 0);
	tree_mkdir(sys, "block/nbd0/stat");
	assert_error(sysfs_traffic(sys, 0, &t, &e), EISDIR, &e, "/sys/block/nbd0/stat");
	close(sys);
}
END_TEST

/* Out of descriptors is an error and never "absent", "none" or "nobody". */
START_TEST(no_descriptors)
{
	int sys = tree_recorded("sysfs/holder"), sys2 = tree_new(), spare;
	struct rlimit old, low;
	unsigned errors = 0;

	tree_put(sys2, "block/nbd0/stat", "1 0 0 0 2\n");
	tree_put(sys2, "block/loop0/loop/backing_file", "/dev/nbd0\n");
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
	spare = dup(sys);
	ck_assert_int_ge(spare, 0);
	close(spare);
	for (rlim_t room = 0; room < 5; room++) {
		struct sysfs_device d;
		struct err e[6];
		unsigned *v;
		char name[8];
		struct sysfs_traffic t;
		size_t n, found;
		int r[6];

		low = old;
		low.rlim_cur = (rlim_t)spare + room;
		ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
		r[0] = sysfs_device(sys, 0, &d, &e[0]);
		r[1] = sysfs_indices(sys, &v, &n, &e[1]);
		r[2] = sysfs_partitions(sys, 0, NULL, 0, &found, &e[2]);
		r[3] = sysfs_holder(sys, 0, name, sizeof(name), &e[3]);
		r[4] = sysfs_loop(sys2, 0, name, sizeof(name), &e[4]);
		r[5] = sysfs_traffic(sys2, 0, &t, &e[5]);
		ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
		ck_assert(r[0] == -EMFILE || (r[0] == 0 && d.present && d.size));
		ck_assert(r[1] == -EMFILE || (r[1] == 0 && n == 1));
		ck_assert(r[2] == -EMFILE || (r[2] == 0 && found == 2));
		ck_assert(r[3] == -EMFILE || r[3] == 1);
		ck_assert(r[4] == -EMFILE || r[4] == 1);
		ck_assert(r[5] == -EMFILE || (r[5] == 0 && t.requests == 3));
		if (!r[1])
			free(v);
		for (size_t i = 0; i < 6; i++)
			errors += r[i] == -EMFILE;
		if (room == 4)
			for (size_t i = 0; i < 6; i++)
				ck_assert_int_ne(r[i], -EMFILE);
	}
	ck_assert_uint_ge(errors, 5);
	close(sys);
	close(sys2);
}
END_TEST

/* --- limits ----------------------------------------------------------------------------------- */

#define QUEUE "block/nbd0/queue/"

START_TEST(limits_written)
{
	struct sysfs_limits l = { .max_sectors_kb = 4096, .write_back = true, .rotational = true };
	int sys = tree_copy("sysfs/write-through"), r;
	struct err e;

	err_clear(&e);
	r = sysfs_limits_write(sys, 0, &l, &e);
	assert_ok(r, e);
	ck_assert_str_eq(tree_text(sys, QUEUE "max_sectors_kb"), "4096\n");
	ck_assert_str_eq(tree_text(sys, QUEUE "write_cache"), "write back");
	ck_assert_str_eq(tree_text(sys, QUEUE "rotational"), "1");

	l = (struct sysfs_limits){ .max_sectors_kb = 32 };
	r = sysfs_limits_write(sys, 0, &l, &e);
	assert_ok(r, e);
	ck_assert_str_eq(tree_text(sys, QUEUE "max_sectors_kb"), "32\n");
	ck_assert_str_eq(tree_text(sys, QUEUE "write_cache"), "write through");
	ck_assert_str_eq(tree_text(sys, QUEUE "rotational"), "0");
	close(sys);
}
END_TEST

/* Written when wanted, and only then; the kernel's own value stays otherwise. */
START_TEST(limits_io_timeout)
{
	struct sysfs_limits l = { .max_sectors_kb = 4096, .write_back = true };
	int sys = tree_copy("sysfs/busy"), r;
	struct err e;

	err_clear(&e);
	r = sysfs_limits_write(sys, 0, &l, &e);
	assert_ok(r, e);
	ck_assert_str_eq(tree_text(sys, QUEUE "io_timeout"), "30000\n");
	l.io_timeout_ms = 1000;
	r = sysfs_limits_write(sys, 0, &l, &e);
	assert_ok(r, e);
	ck_assert_str_eq(tree_text(sys, QUEUE "io_timeout"), "1000");
	l.io_timeout_ms = UINT32_MAX;
	r = sysfs_limits_write(sys, 0, &l, &e);
	assert_ok(r, e);
	ck_assert_str_eq(tree_text(sys, QUEUE "io_timeout"), "4294967295");
	close(sys);
}
END_TEST

/* More than the driver takes is cut to what it takes. */
START_TEST(limits_cut)
{
	struct sysfs_limits l = { .max_sectors_kb = UINT32_MAX, .write_back = true };
	int sys = tree_copy("sysfs/holder"), r;
	struct err e;

	err_clear(&e);
	r = sysfs_limits_write(sys, 0, &l, &e);
	assert_ok(r, e);
	ck_assert_str_eq(tree_text(sys, QUEUE "max_sectors_kb"), "32768\n");

	ck_assert_int_eq(unlinkat(sys, QUEUE "max_hw_sectors_kb", 0), 0);
	r = sysfs_limits_write(sys, 0, &l, &e);
	assert_ok(r, e);
	ck_assert_str_eq(tree_text(sys, QUEUE "max_sectors_kb"), "4294967295\n");
	close(sys);
}
END_TEST

/* A queue file that nobody may write, not even root: a sealed memory file. */
static int put_sealed(int sys, const char *path, const char *text)
{
	int fd = memfd_create("sealed", MFD_ALLOW_SEALING | MFD_CLOEXEC);
	char target[64];

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW), 0);
	snprintf(target, sizeof(target), "/proc/self/fd/%d", fd);
	tree_link(sys, path, target);
	return fd;
}

/*
 * A queue file that says what it likes and takes note of what is written: a terminal, where each
 * open reads one line and ^D. Returns the other end, *keep holds the lines that are not read yet.
 */
static int put_scripted(int sys, const char *path, const char *first, const char *second, int *keep)
{
	int fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	struct termios t;
	char name[64], text[128];

	ck_assert_msg(fd >= 0, "no pseudo terminal: %s", strerror(errno));
	ck_assert_int_eq(grantpt(fd), 0);
	ck_assert_int_eq(unlockpt(fd), 0);
	ck_assert_int_eq(ptsname_r(fd, name, sizeof(name)), 0);
	*keep = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	ck_assert_int_ge(*keep, 0);
	ck_assert_int_eq(tcgetattr(*keep, &t), 0);
	t.c_lflag &= ~(tcflag_t)ECHO;
	t.c_oflag &= ~(tcflag_t)OPOST;
	ck_assert_int_eq(tcsetattr(*keep, TCSANOW, &t), 0);
	snprintf(text, sizeof(text), "%s\n\004%s\n\004", first, second);
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	tree_link(sys, path, name);
	return fd;
}

/* All that was written to the scripted file. */
static const char *written(int fd)
{
	static char text[64];
	ssize_t n;

	ck_assert_int_eq(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	n = read(fd, text, sizeof(text) - 1);
	text[n > 0 ? n : 0] = '\0';
	return text;
}

static const struct {
	const char *name;           /* attribute that does not take what is written */
	const char *before, *after; /* contents; after NULL: it cannot be written */
	struct sysfs_limits l;
	int code;
	const char *words; /* part of the error, or the text written where code is 0 */
} stubborn[] = {
	/* Larger than the server takes: unsafe. */
	{ "max_sectors_kb", "1280", NULL, { 512, true, false, 0 }, EPERM, "write 512 to" },
	{ "max_sectors_kb", "1280", "1280", { 512, true, false, 0 }, EINVAL, "is 1280 after 512" },
	{ "max_sectors_kb", "1280", "513", { 512, true, false, 0 }, EINVAL, "is 513 after 512" },
	{ "max_sectors_kb", "0", "0", { 512, true, false, 0 }, EINVAL, "is 0 after 512" },
	{ "max_sectors_kb", "1280", "", { 512, true, false, 0 }, EINVAL, "not a number" },
	{ "max_sectors_kb", "1280", "0", { 0, true, false, 0 }, EINVAL, "is 0 after 0" },
	/* Smaller: only slower. */
	{ "max_sectors_kb", "128", NULL, { 512, true, false, 0 }, 0, NULL },
	{ "max_sectors_kb", "128", "128", { 512, true, false, 0 }, 0, "512\n" },
	{ "max_sectors_kb", "1280", "508", { 511, true, false, 0 }, 0, "511\n" },
	/* Right already: not written. */
	{ "max_sectors_kb", "512", NULL, { 512, true, false, 0 }, 0, NULL },
	{ "max_sectors_kb", "512", "512", { 512, true, false, 0 }, 0, "" },
	/* No flush would reach the server: unsafe. */
	{ "write_cache",
	  "write through",
	  NULL,
	  { 512, true, false, 0 },
	  EPERM,
	  "\"write back\" to" },
	{ "write_cache",
	  "write through",
	  "write through",
	  { 512, true, false, 0 },
	  EINVAL,
	  "no flush" },
	{ "write_cache", "what", "what", { 512, true, false, 0 }, EINVAL, "no flush" },
	{ "write_cache", "write through", "write back", { 512, true, false, 0 }, 0, "write back" },
	/* The server does not flush anyway. */
	{ "write_cache", "write back", NULL, { 512, false, false, 0 }, 0, NULL },
	{ "write_cache", "write back", "write back", { 512, false, false, 0 }, 0, "write through" },
	{ "write_cache", "write back", "write back", { 512, true, false, 0 }, 0, "" },
	/* Only a hint. */
	{ "rotational", "0", NULL, { 512, true, true, 0 }, 0, NULL },
	{ "rotational", "0", "0", { 512, true, true, 0 }, 0, "1" },
	{ "rotational", "1", "1", { 512, true, true, 0 }, 0, "" },
	/* A reconnection would stall for half a minute. */
	{ "io_timeout", "30000", NULL, { 512, true, false, 1000 }, EPERM, "write 1000 to" },
};

START_TEST(limits_stubborn)
{
	int sys = tree_copy("sysfs/busy"), fd, keep = -1, r;
	char path[64];
	struct err e;

	snprintf(path, sizeof(path), QUEUE "%s", stubborn[_i].name);
	if (stubborn[_i].after)
		fd = put_scripted(sys, path, stubborn[_i].before, stubborn[_i].after, &keep);
	else
		fd = put_sealed(sys, path, stubborn[_i].before);
	err_clear(&e);
	r = sysfs_limits_write(sys, 0, &stubborn[_i].l, &e);
	if (stubborn[_i].code) {
		assert_error(r, stubborn[_i].code, &e, stubborn[_i].words);
		ck_assert_ptr_nonnull(strstr(e.text, path));
	} else {
		assert_ok(r, e);
		if (stubborn[_i].words)
			ck_assert_str_eq(written(fd), stubborn[_i].words);
	}
	close(fd);
	close(keep);
	close(sys);
}
END_TEST

static const struct {
	const char *name;
	struct sysfs_limits l;
	int code;
} lacking[] = {
	{ "max_sectors_kb", { 512, true, false, 0 }, ENOENT },
	{ "max_hw_sectors_kb", { 512, true, false, 0 }, 0 },
	{ "write_cache", { 512, true, false, 0 }, ENOENT },
	{ "write_cache", { 512, false, false, 0 }, 0 },
	{ "rotational", { 512, true, true, 0 }, 0 },
	{ "io_timeout", { 512, true, false, 1000 }, ENOENT },
	{ "io_timeout", { 512, true, false, 0 }, 0 },
};

START_TEST(limits_lacking)
{
	int sys = tree_copy("sysfs/busy"), r;
	char path[64];
	struct err e;

	snprintf(path, sizeof(path), QUEUE "%s", lacking[_i].name);
	ck_assert_int_eq(unlinkat(sys, path, 0), 0);
	err_clear(&e);
	r = sysfs_limits_write(sys, 0, &lacking[_i].l, &e);
	if (lacking[_i].code)
		assert_error(r, lacking[_i].code, &e, path);
	else
		assert_ok(r, e);
	ck_assert_int_ne(faccessat(sys, path, F_OK, 0), 0);
	close(sys);
}
END_TEST

static const char *const queue_files[] = { "max_sectors_kb", "max_hw_sectors_kb", "write_cache" };

START_TEST(limits_unreadable)
{
	struct sysfs_limits l = { .max_sectors_kb = 512, .write_back = true };
	int sys = tree_copy("sysfs/attached");
	char path[64];
	struct err e;

	snprintf(path, sizeof(path), QUEUE "%s", queue_files[_i]);
	ck_assert_int_eq(unlinkat(sys, path, 0), 0);
	tree_mkdir(sys, path);
	err_clear(&e);
	assert_error(sysfs_limits_write(sys, 0, &l, &e), EISDIR, &e, path);
	close(sys);
}
END_TEST

/* A device that went away has no limits, and that is not success. */
START_TEST(limits_absent)
{
	struct sysfs_limits l = { .max_sectors_kb = 512 };
	int sys = tree_recorded("sysfs/attached");
	struct err e;

	err_clear(&e);
	assert_error(sysfs_limits_write(sys, 4, &l, &e), ENODEV, &e, "nbd4");
	close(sys);
}
END_TEST

/* One device gets the event. Without the device nothing happens. */
START_TEST(announce)
{
	int sys = tree_new();
	unsigned before;

	tree_put(sys, "block/nbd1/uevent", "");
	tree_put(sys, "block/nbd10/uevent", "");
	before = leak_fds();
	sysfs_announce(sys, 1);
	sysfs_announce(sys, 7);
	ck_assert_str_eq(tree_text(sys, "block/nbd1/uevent"), "change");
	ck_assert_str_eq(tree_text(sys, "block/nbd10/uevent"), "");
	ck_assert_int_eq(faccessat(sys, "block/nbd7", F_OK, 0), -1);
	ck_assert_uint_eq(leak_fds(), before);
	close(sys);
}
END_TEST

#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))

Suite *unit_suite(void)
{
	Suite *s = suite_create("sysfs");
	TCase *read = tcase_create("read"), *limits = tcase_create("limits");

	tree_fixture(read);
	tcase_add_loop_test(read, device, 0, COUNT(recorded));
	tcase_add_loop_test(read, attachment, 0, COUNT(recorded));
	tcase_add_test(read, device_absent);
	tcase_add_test(read, device_going);
	tcase_add_test(read, device_bare);
	tcase_add_test(read, no_block);
	tcase_add_test(read, open_directory);
	tcase_add_test(read, parse_dev);
	tcase_add_test(read, strip_deleted);
	tcase_add_test(read, open_a_directory_as_a_stream);
	tcase_add_loop_test(read, identity, 0, COUNT(identities));
	tcase_add_loop_test(read, identity_of, 0, 7);
	tcase_add_loop_test(read, device_malformed, 0, COUNT(malformed));
	tcase_add_loop_test(read, device_unreadable, 0, COUNT(attributes));
	tcase_add_test(read, disk_is_no_directory);
	tcase_add_test(read, backend);
	tcase_add_test(read, indices);
	tcase_add_test(read, indices_many_and_none);
	tcase_add_test(read, partitions);
	tcase_add_test(read, partitions_odd);
	tcase_add_loop_test(read, is_part, 0, COUNT(part_names));
	tcase_add_test(read, holder);
	tcase_add_test(read, loop);
	tcase_add_test(read, traffic);
	tcase_add_test(read, traffic_malformed);
	tcase_add_test(read, no_descriptors);
	suite_add_tcase(s, read);

	tree_fixture(limits);
	tcase_add_test(limits, limits_written);
	tcase_add_test(limits, limits_io_timeout);
	tcase_add_test(limits, limits_cut);
	tcase_add_loop_test(limits, limits_stubborn, 0, COUNT(stubborn));
	tcase_add_loop_test(limits, limits_lacking, 0, COUNT(lacking));
	tcase_add_loop_test(limits, limits_unreadable, 0, COUNT(queue_files));
	tcase_add_test(limits, limits_absent);
	tcase_add_test(limits, announce);
	suite_add_tcase(s, limits);
	return s;
}
