// SPDX-License-Identifier: GPL-2.0-or-later
// SPDX-FileCopyrightText: The nbd-attach authors
/*
 * device_users on the recorded disk of sysfs/partitions (43:0, partitions 43:1 and 43:2) and /proc
 * trees made here. Device nodes cannot be recorded, so descriptors are links to a block device
 * that this machine has, whose number the disk is then given.
 */
#define _GNU_SOURCE /* mknodat, makedev */
#include "../unit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../tree.h"
#include "kernel/device_users.h"

/* A /proc with one process, the caller, that has nothing mounted. */
static int new_proc(void)
{
	int proc = tree_new();

	tree_link(proc, "self", "4242");
	tree_put(proc, "4242/mountinfo", "");
	tree_put(proc, "swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n");
	tree_mkdir(proc, "4242/fd");
	return proc;
}

static void assert_users(int proc, int sys, unsigned index, unsigned users, const char *text)
{
	struct device_users u;
	struct err e;
	int r;

	memset(&u, 0xa5, sizeof(u));
	err_clear(&e);
	r = device_users_find(proc, sys, index, &u, &e);
	ck_assert_msg(r == 0, "%d: %s", r, e.text);
	ck_assert_str_eq(u.text, text);
	ck_assert_uint_eq(u.users, users);
}

static void assert_error(int proc, int sys, int code, const char *words)
{
	struct device_users u;
	struct err e;

	err_clear(&e);
	ck_assert_int_eq(device_users_find(proc, sys, 0, &u, &e), -code);
	ck_assert_int_eq(e.code, code);
	ck_assert_msg(strstr(e.text, words) != NULL, "\"%s\" without \"%s\"", e.text, words);
}

START_TEST(nobody)
{
	int proc = new_proc(), sys = tree_recorded("sysfs/partitions");

	assert_users(proc, sys, 0, 0, "");
}
END_TEST

/* A partition mounted on a name with a space and a backslash, the other one used as swap. */
START_TEST(recorded)
{
	int proc = new_proc(), rec = tree_recorded("usage");
	int sys = tree_recorded("sysfs/partitions"), idle = tree_recorded("sysfs/idle");

	tree_put(proc, "4242/mountinfo", tree_text(rec, "mountinfo"));
	assert_users(proc, sys, 0, 1, "mounted on /mnt/a b\\\\c");
	tree_put(proc, "swaps", tree_text(rec, "swaps"));
	assert_users(proc, sys, 0, 2, "mounted on /mnt/a b\\\\c");
	tree_put(proc, "4242/mountinfo", "");
	assert_users(proc, sys, 0, 1, "used as swap");

	/* Another disk, and one that is not there. */
	tree_put(proc, "4242/mountinfo", tree_text(rec, "mountinfo"));
	assert_users(proc, sys, 1, 0, "");
	tree_put(proc, "4242/mountinfo", "30 1 0:0 / /a rw - btrfs /dev/nbd1 rw\n");
	assert_users(proc, sys, 1, 0, "");
	tree_put(proc, "4242/mountinfo", "22 21 43:16 / /mnt rw - ext4 /dev/nbd0x rw\n");
	tree_put(proc, "swaps", "");
	assert_users(proc, idle, 0, 0, "");
}
END_TEST

static const struct {
	const char *line;
	const char *text; /* "" when the disk is not used */
} mounts[] = {
	{ "30 1 43:0 / /a rw - ext4 /dev/nbd0 rw", "mounted on /a" },
	{ "30 1 43:2 / /a rw shared:1 master:2 propagate_from:3 - xfs /dev/root rw",
	  "mounted on /a" },
	{ "30 1 43:2 / / rw - ext4 /dev/disk/by-label/x rw", "mounted on /" },
	{ "30 1 43:1 /sub /a\\134b\\011c\\012d\\040e rw - ext4 x rw",
	  "mounted on /a\\\\b\\x09c\\x0ad e" },
	{ "30 1 43:1 / /\033[2J rw - ext4 x rw", "mounted on /\\x1b[2J" },
	{ "30 1 43:1 / /\\303\\244 rw - ext4 x rw", "mounted on /\303\244" },
	{ "30 1 43:1 / /x\\ rw - ext4 x rw", "mounted on /x\\\\" },
	{ "30 1 43:1 / /x\\40 rw - ext4 x rw", "mounted on /x\\\\40" },
	{ "30 1 43:1 / /x\\777 rw - ext4 x rw", "mounted on /x\\\\777" },
	/* No disk's number: the source tells. */
	{ "30 1 0:33 /@ /b rw - btrfs /dev/nbd0 rw", "mounted on /b" },
	{ "30 1 0:33 /@ /b rw shared:4 - btrfs /dev/nbd0p7 rw", "mounted on /b" },
	{ "30 1 0:33 /@ /b rw shared:4 - btrfs /dev/n\\142d0 rw", "mounted on /b" },
	{ "30 1 43:1 / /c rw - fuseblk /dev/nbd0p1 rw", "mounted on /c" },
	{ "30 1 0:33 / /c rw - btrfs /dev/nbd0p1", "mounted on /c" },
	{ "30 1 0:33 / /c rw - - /dev/nbd0p1 rw", "mounted on /c" },
	/* Others. */
	{ "30 1 43:3 / /d rw - ext4 /dev/nbd00 rw", "" },
	{ "30 1 43:16 / /d rw - ext4 /dev/nbd1 rw", "" },
	{ "30 1 4:31 / /d rw - ext4 /dev/nbd10 rw", "" },
	{ "30 1 0:0 / /d rw - tmpfs nbd0 rw", "" },
	{ "30 1 0:33 / /d rw - tmpfs /srv/nbd0 rw", "" },
	{ "30 1 0:33 / /d rw - tmpfs /dev/nbd0p1/x rw", "" },
	{ "30 1 0:33 / /dev/nbd0 rw - tmpfs tmpfs rw", "" },
	{ "30 1 0:33 /dev/nbd0 /d rw - tmpfs  rw", "" },
	/* Any user chooses the source of these. */
	{ "30 1 0:33 / /home/u/x rw - fuse /dev/nbd0 rw", "" },
	{ "30 1 0:33 / /home/u/x rw - fuse.sshfs /dev/nbd0 rw", "" },
	/* Broken lines. */
	{ "", "" },
	{ " ", "" },
	{ "30", "" },
	{ "30 1 43:1", "" },
	{ "30 1 43:1 /", "" },
	{ "30 1 43 / /e rw - ext4 x rw", "" },
	{ "30 1 :1 / /e rw - ext4 x rw", "" },
	{ "30 1 43: / /e rw - ext4 x rw", "" },
	{ "30 1 4294967339:1 / /e rw - ext4 x rw", "" },
	{ "30 1 0:33 / /e rw /dev/nbd0 /dev/nbd0", "" },
	{ "30 1 0:33 / /e rw -", "" },
	{ "30 1 0:33 / /e rw - btrfs", "" },
};

START_TEST(mounted)
{
	int proc = new_proc(), sys = tree_recorded("sysfs/partitions");
	char lines[512];

	/* Between others, and as a last line that no newline ends. */
	snprintf(lines, sizeof(lines),
		 "1 1 0:2 / / rw - rootfs rootfs rw\n%s\n"
		 "2 1 0:3 / /proc rw - proc proc rw\n",
		 mounts[_i].line);
	tree_put(proc, "4242/mountinfo", lines);
	assert_users(proc, sys, 0, mounts[_i].text[0] != '\0', mounts[_i].text);
	tree_put(proc, "4242/mountinfo", mounts[_i].line);
	assert_users(proc, sys, 0, mounts[_i].text[0] != '\0', mounts[_i].text);
}
END_TEST

/* Lines of any length are read whole, and so are the lines around them. */
START_TEST(long_lines)
{
	static const size_t lengths[] = { 65000, 65534, 65535, 65536, 65537, 131072, 200000 };
	int proc = new_proc(), sys = tree_recorded("sysfs/partitions");
	static char lines[300000];
	struct device_users u;
	struct err e;

	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		size_t at = (size_t)sprintf(lines, "29 1 43:1 / /first rw - ext4 x rw\n");
		size_t line = at;

		at += (size_t)sprintf(lines + at, "30 1 0:9 / /");
		memset(lines + at, 'm', lengths[i] - (at - line));
		at = line + lengths[i];
		at += (size_t)sprintf(lines + at, " rw - overlay o rw\n");
		sprintf(lines + at, "31 1 43:2 / /last rw - ext4 x rw\n");
		tree_put(proc, "4242/mountinfo", lines);
		assert_users(proc, sys, 0, 2, "mounted on /first");
		tree_put(proc, "4242/mountinfo", lines + line);
		assert_users(proc, sys, 0, 1, "mounted on /last");
	}

	/* "31 1 43:2 ..." is still line 30, also where a buffer of 64 KiB ends. */
	memset(lines, 'x', sizeof(lines));
	memcpy(lines, "30 1 0:9 / /", 12);
	strcpy(lines + 65535, "31 1 43:2 / /inside rw - ext4 /dev/sda rw\n");
	tree_put(proc, "4242/mountinfo", lines);
	assert_users(proc, sys, 0, 0, "");
	strcpy(lines + 65535, "31 1 43:2 / /inside rw - ext4 /dev/sda rw");
	tree_put(proc, "4242/mountinfo", lines);
	assert_users(proc, sys, 0, 0, "");

	/* The text of a long name is cut. */
	memset(lines, '\001', 100000);
	memcpy(lines, "30 1 43:1 / /", 13);
	strcpy(lines + 100000, " rw - ext4 x rw\n");
	tree_put(proc, "4242/mountinfo", lines);
	err_clear(&e);
	ck_assert_int_eq(device_users_find(proc, sys, 0, &u, &e), 0);
	ck_assert_uint_eq(u.users, 1);
	ck_assert_uint_lt(strlen(u.text), sizeof(u.text));
	ck_assert_int_eq(strncmp(u.text, "mounted on /\\x01\\x01", 20), 0);
	ck_assert_str_eq(u.text + strlen(u.text) - 3, "...");
}
END_TEST

static const struct {
	const char *line;
	unsigned users;
} swaps[] = {
	{ "/dev/nbd0                               partition\t16380\t\t0\t\t-2\n", 1 },
	{ "/dev/nbd0p2\t\tpartition\t16380\t\t0\t\t-2\n", 1 },
	{ "/dev/nbd0p2\\040(deleted)\t\tpartition\t1\t0\t-2\n", 1 },
	{ "/oldroot/dev/nbd0p2\t\tpartition\t1\t0\t-2\n", 1 },
	{ "/dev/nbd0 partition", 1 },
	{ "/dev/nbd0p1\t\tpartition\t1\t0\t-2\n/dev/nbd0p2\t\tpartition\t1\t0\t-3\n", 2 },
	{ "/dev/nbd1\t\tpartition\t1\t0\t-2\n", 0 },
	{ "/dev/nbd01\t\tpartition\t1\t0\t-2\n", 0 },
	{ "/srv/nbd0\t\tfile\t1\t0\t-2\n", 0 },
	{ "/srv/nbd0\\040partition\t\tfile\t1\t0\t-2\n", 0 },
	{ "nbd0\t\tpartition\t1\t0\t-2\n", 0 },
	{ "\\040(deleted)\t\tpartition\t1\t0\t-2\n", 0 },
	{ "/dev/nbd0\n", 0 },
	{ "/dev/nbd0\t\n", 0 },
	{ "\n\t\n \n", 0 },
};

START_TEST(swap)
{
	int proc = new_proc(), sys = tree_recorded("sysfs/partitions");
	char lines[512];

	snprintf(lines, sizeof(lines), "Filename\tType\tSize\tUsed\tPriority\n%s", swaps[_i].line);
	tree_put(proc, "swaps", lines);
	assert_users(proc, sys, 0, swaps[_i].users, swaps[_i].users ? "used as swap" : "");
}
END_TEST

START_TEST(no_swap_in_kernel)
{
	int proc = new_proc(), sys = tree_recorded("sysfs/partitions");

	ck_assert_int_eq(unlinkat(proc, "swaps", 0), 0);
	assert_users(proc, sys, 0, 0, "");
}
END_TEST

START_TEST(held)
{
	int proc = new_proc(), sys = tree_copy("sysfs/partitions");

	assert_users(proc, tree_recorded("sysfs/holder"), 0, 1, "held by dm-0");
	tree_put(sys, "block/loop3/loop/backing_file", "/dev/nbd0p1\n");
	assert_users(proc, sys, 0, 1, "used by loop3");
	tree_link(sys, "block/nbd0/holders/md\033[m", "../../md");
	assert_users(proc, sys, 0, 2, "held by md\\x1b[m");
	assert_users(proc, sys, 1, 0, "");
}
END_TEST

/* --- processes -------------------------------------------------------------------------------- */

/*
 * Path and number of two block devices of this machine; false when it shows none. No nbd devices:
 * an open can wait for a server, and takes an idle one away from who wants to attach.
 */
static bool block_devices(char path[2][300], dev_t dev[2])
{
	DIR *dir = opendir("/dev");
	struct dirent *entry;
	unsigned found = 0;
	struct stat st;

	ck_assert_ptr_nonnull(dir);
	while (found < 2 && (entry = readdir(dir))) {
		if (!strncmp(entry->d_name, "nbd", 3))
			continue;
		snprintf(path[found], 300, "/dev/%s", entry->d_name);
		if (lstat(path[found], &st) || !S_ISBLK(st.st_mode))
			continue;
		dev[found++] = st.st_rdev;
	}
	closedir(dir);
	/* A node of a driver that is not there is as good as any, root may make it. */
	for (; found < 2; found++) {
		int at = tree_new();
		char self[64];
		ssize_t n;

		dev[found] = makedev(240, found);
		if (mknodat(at, "node", S_IFBLK | 0600, dev[found])) {
			printf("# SKIP: no block devices in /dev, and mknod: %s\n",
			       strerror(errno));
			return false;
		}
		snprintf(self, sizeof(self), "/proc/self/fd/%d", at);
		n = readlink(self, path[found], 290);
		ck_assert_int_gt(n, 0);
		strcpy(path[found] + n, "/node");
	}
	return true;
}

/* A disk with one partition. */
static int sys_with(dev_t disk, dev_t part)
{
	int sys = tree_new();
	char text[32];

	snprintf(text, sizeof(text), "%u:%u\n", major(disk), minor(disk));
	tree_put(sys, "block/nbd0/dev", text);
	snprintf(text, sizeof(text), "%u:%u\n", major(part), minor(part));
	tree_put(sys, "block/nbd0/nbd0p1/dev", text);
	return sys;
}

START_TEST(descriptors)
{
	int proc = new_proc(), sys;
	char path[2][300];
	dev_t dev[2];

	if (!block_devices(path, dev))
		return;
	sys = sys_with(dev[0], makedev(43, 1));
	tree_put(proc, "77/comm", "dd\n");
	tree_link(proc, "77/fd/0", "/dev/null");
	tree_link(proc, "77/fd/1", "gone");
	tree_link(proc, "77/fd/2", path[1]);
	tree_put(proc, "77/fd/9", "a file\n");
	assert_users(proc, sys, 0, 0, "");
	tree_link(proc, "77/fd/3", path[0]);
	assert_users(proc, sys, 0, 1, "open in process 77 (dd)");
	tree_link(proc, "77/fd/4", path[0]);
	assert_users(proc, sys, 0, 1, "open in process 77 (dd)");

	/* A partition is as much in use as the disk. */
	assert_users(proc, sys_with(makedev(43, 0), dev[0]), 0, 1, "open in process 77 (dd)");
	assert_users(proc, sys_with(makedev(43, 0), makedev(43, 1)), 0, 0, "");

	/* A second process, after what else uses it. */
	tree_put(proc, "78/comm", "dd\n");
	tree_link(proc, "78/fd/5", path[0]);
	tree_put(sys, "block/nbd0/holders/dm-1", "");
	assert_users(proc, sys, 0, 3, "held by dm-1");
}
END_TEST

/* The caller, and what is no process. */
START_TEST(descriptors_not_counted)
{
	static const char *const names[] = { "4242", "x77", "77x", "0", "self2", "2147483648" };
	int proc = new_proc();
	char path[2][300], name[64];
	dev_t dev[2];

	if (!block_devices(path, dev))
		return;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(name, sizeof(name), "%s/fd/3", names[i]);
		tree_link(proc, name, path[0]);
	}
	assert_users(proc, sys_with(dev[0], dev[0]), 0, 0, "");
	tree_link(proc, "424/fd/3", path[0]);
	assert_users(proc, sys_with(dev[0], dev[0]), 0, 1, "open in process 424 ()");
}
END_TEST

/* /dev/null is 1:3, and so is a RAM disk: only a block device is one. */
START_TEST(character_device)
{
	int proc = new_proc();

	tree_link(proc, "77/fd/3", "/dev/null");
	assert_users(proc, sys_with(makedev(1, 3), makedev(1, 4)), 0, 0, "");
}
END_TEST

static const struct {
	const char *comm, *text;
} names[] = {
	{ "dd\n", "open in process 77 (dd)" },
	{ "dd", "open in process 77 (dd)" },
	{ "", "open in process 77 ()" },
	{ "a) (b\n", "open in process 77 (a) (b)" },
	{ "\033]0;x\007\n\n", "open in process 77 (\\x1b]0;x\\x07\\x0a)" },
	{ "kworker/u16:2-events_power_efficient_and_some_more_so_that_it_is_long\n",
	  "open in process 77 (kworker/u16:2-events_power_efficient_and_some_more_so_that_it_i)" },
};

START_TEST(process_names)
{
	int proc = new_proc();
	char path[2][300];
	dev_t dev[2];

	if (!block_devices(path, dev))
		return;
	tree_link(proc, "77/fd/3", path[0]);
	tree_put(proc, "77/comm", names[_i].comm);
	assert_users(proc, sys_with(dev[0], dev[0]), 0, 1, names[_i].text);
}
END_TEST

static const struct {
	const char *status;
	unsigned users;
} pending[] = {
	{ "Name:\tdd\nSigQ:\t0/7\nSigPnd:\t0000000000000100\nShdPnd:\t0000000000000100\n", 0 },
	{ "Name:\tdd\nSigPnd:\t0000000000004102\n", 0 },
	{ "Name:\tdd\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000000\n", 1 },
	/* SIGTERM, SIGUSR1: it may not end by them. */
	{ "Name:\tdd\nSigPnd:\t0000000000004200\n", 1 },
	{ "Name:\tSigPnd:\t100\n", 1 },
	{ "", 1 },
};

/* One that was killed and waits in the kernel. */
START_TEST(killed)
{
	int proc = new_proc();
	char path[2][300];
	dev_t dev[2];

	if (!block_devices(path, dev))
		return;
	tree_link(proc, "77/fd/3", path[0]);
	tree_put(proc, "77/comm", "dd\n");
	tree_put(proc, "77/status", pending[_i].status);
	assert_users(proc, sys_with(dev[0], dev[0]), 0, pending[_i].users,
		     pending[_i].users ? "open in process 77 (dd)" : "");
}
END_TEST

/* The kernel's own links: a process that really has it open, seen through its real directory. */
START_TEST(real_process)
{
	int proc = new_proc(), to_child[2], from_child[2], status;
	char path[2][300], name[32], target[64], want[64], c = 'n';
	bool opened;
	dev_t dev[2];
	pid_t child;

	if (!block_devices(path, dev))
		return;
	ck_assert_int_eq(pipe(to_child), 0);
	ck_assert_int_eq(pipe(from_child), 0);
	child = fork();
	ck_assert_int_ge(child, 0);
	if (child == 0) {
		int fd = open(path[0], O_RDONLY | O_NONBLOCK);

		c = fd >= 0 ? 'y' : 'n';
		close(to_child[1]);
		if (write(from_child[1], &c, 1) != 1 || read(to_child[0], &c, 1) < 0)
			_exit(1);
		_exit(0);
	}
	close(to_child[0]);
	ck_assert_int_eq(read(from_child[0], &c, 1), 1);
	opened = c == 'y';
	if (opened) {
		struct device_users u;
		struct err e;
		int r;

		snprintf(name, sizeof(name), "%d", child);
		snprintf(target, sizeof(target), "/proc/%d", child);
		tree_link(proc, name, target);
		/* Its name is not the same under valgrind or libtool. */
		snprintf(want, sizeof(want), "open in process %d (", child);
		err_clear(&e);
		r = device_users_find(proc, sys_with(dev[0], dev[0]), 0, &u, &e);
		ck_assert_msg(r == 0, "%d: %s", r, e.text);
		ck_assert_uint_eq(u.users, 1);
		ck_assert_msg(!strncmp(u.text, want, strlen(want)), "%s", u.text);

		/*
		 * The process that serves the device is no user, if set up by ioctl (no backend).
		 */
		int by_ioctl = sys_with(dev[0], dev[0]);

		tree_put(by_ioctl, "block/nbd0/pid", name);
		assert_users(proc, by_ioctl, 0, 0, "");
		tree_put(by_ioctl, "block/nbd0/backend", "\n");
		err_clear(&e);
		ck_assert_int_eq(device_users_find(proc, by_ioctl, 0, &u, &e), 0);
		ck_assert_uint_eq(u.users, 1);
	} else {
		printf("# SKIP real_process: may not open %s\n", path[0]);
	}
	close(to_child[1]);
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(status, 0);
	/* The process has ended: the link leads nowhere. */
	if (opened)
		assert_users(proc, sys_with(dev[0], dev[0]), 0, 0, "");
}
END_TEST

/* --- errors ----------------------------------------------------------------------------------- */

START_TEST(unreadable)
{
	int sys = tree_recorded("sysfs/partitions"), proc, odd;

	proc = new_proc();
	ck_assert_int_eq(unlinkat(proc, "4242/mountinfo", 0), 0);
	assert_error(proc, sys, ENOENT, "/proc/self/mountinfo");
	tree_mkdir(proc, "4242/mountinfo");
	assert_error(proc, sys, EISDIR, "/proc/self/mountinfo");

	proc = new_proc();
	ck_assert_int_eq(unlinkat(proc, "swaps", 0), 0);
	tree_mkdir(proc, "swaps");
	assert_error(proc, sys, EISDIR, "/proc/swaps");

	proc = new_proc();
	ck_assert_int_eq(unlinkat(proc, "self", 0), 0);
	tree_put(proc, "self/mountinfo", "");
	assert_error(proc, sys, EINVAL, "/proc/self");

	/* A process that is none: not passed over in silence. */
	proc = new_proc();
	tree_put(proc, "77", "");
	assert_error(proc, sys, ENOTDIR, "processes");
	proc = new_proc();
	tree_put(proc, "77/fd", "");
	assert_error(proc, sys, ENOTDIR, "processes");

	proc = new_proc();
	odd = tree_copy("sysfs/partitions");
	tree_put(odd, "block/nbd0/nbd0p1/dev", "x");
	assert_error(proc, odd, EINVAL, "nbd0p1/dev");
	tree_put(odd, "block/nbd0/dev", "x");
	assert_error(proc, odd, EINVAL, "nbd0/dev");
	odd = tree_copy("sysfs/partitions");
	tree_put(odd, "block/nbd0/holders", "");
	assert_error(proc, odd, ENOTDIR, "holders");
	odd = tree_copy("sysfs/partitions");
	tree_mkdir(odd, "block/loop0");
	tree_mkdir(odd, "block/loop0/loop");
	tree_mkdir(odd, "block/loop0/loop/backing_file");
	assert_error(proc, odd, EISDIR, "loop0");
	assert_error(proc, tree_new(), ENOENT, "/sys/block");
}
END_TEST

/* Processes that end, or that may not be looked into, are passed over. */
START_TEST(passed_over)
{
	int proc = new_proc(), sys = tree_recorded("sysfs/partitions");

	tree_mkdir(proc, "77");
	tree_link(proc, "78", "gone");
	tree_mkdir(proc, "79");
	tree_mkdir(proc, "79/fd");
	ck_assert_int_eq(fchmodat(proc, "79/fd", 0, 0), 0);
	tree_mkdir(proc, "80");
	ck_assert_int_eq(fchmodat(proc, "80", 0, 0), 0);
	assert_users(proc, sys, 0, 0, "");
	ck_assert_int_eq(fchmodat(proc, "79/fd", 0700, 0), 0);
	ck_assert_int_eq(fchmodat(proc, "80", 0700, 0), 0);
}
END_TEST

/* Out of descriptors is an error and never "nobody". */
START_TEST(no_descriptors)
{
	int proc = new_proc(), sys, spare;
	struct rlimit old, low;
	unsigned errors = 0;
	char path[2][300];
	dev_t dev[2];

	if (!block_devices(path, dev))
		return;
	sys = sys_with(dev[0], dev[1]);
	tree_link(proc, "77/fd/3", path[0]);
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
	spare = dup(sys);
	ck_assert_int_ge(spare, 0);
	close(spare);
	for (rlim_t room = 0; room < 5; room++) {
		struct device_users u;
		struct err e;
		int r;

		low = old;
		low.rlim_cur = (rlim_t)spare + room;
		ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
		err_clear(&e);
		r = device_users_find(proc, sys, 0, &u, &e);
		ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
		ck_assert_msg(r == -EMFILE || (r == 0 && u.users == 1), "%d %u", r, u.users);
		ck_assert(room < 4 || r == 0);
		errors += r == -EMFILE;
	}
	ck_assert_uint_ge(errors, 3);
}
END_TEST

#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))

Suite *unit_suite(void)
{
	Suite *s = suite_create("device_users");
	TCase *tc = tcase_create("device_users");

	tree_fixture(tc);
	tcase_add_test(tc, nobody);
	tcase_add_test(tc, recorded);
	tcase_add_loop_test(tc, mounted, 0, COUNT(mounts));
	tcase_add_test(tc, long_lines);
	tcase_add_loop_test(tc, swap, 0, COUNT(swaps));
	tcase_add_test(tc, no_swap_in_kernel);
	tcase_add_test(tc, held);
	tcase_add_test(tc, descriptors);
	tcase_add_test(tc, descriptors_not_counted);
	tcase_add_test(tc, character_device);
	tcase_add_loop_test(tc, process_names, 0, COUNT(names));
	tcase_add_loop_test(tc, killed, 0, COUNT(pending));
	tcase_add_test(tc, real_process);
	tcase_add_test(tc, unreadable);
	tcase_add_test(tc, passed_over);
	tcase_add_test(tc, no_descriptors);
	suite_add_tcase(s, tc);
	return s;
}
