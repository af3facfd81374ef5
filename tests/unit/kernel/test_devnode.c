/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/* devnode on files that stand for /dev; tests/vm/partitions.sh shows the kernel's part. */
#include "kernel/devnode.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../leak.h"
#include "net/blocking_child.h"
#include "../tree.h"
#include "../unit.h"

/* A directory that stands for /dev, and a witness of what is done to the one node in it. */
struct dev {
	int fd;
	int witness;
};

static void dev_open(struct dev *d, const char *name)
{
	char path[64];
	struct err e;
	int fd = tree_new();

	if (name)
		tree_put(fd, name, "");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	d->fd = devnode_open_directory(path, &e);
	ck_assert_int_ge(d->fd, 0);
	ck_assert(fcntl(d->fd, F_GETFD) & FD_CLOEXEC);
	d->witness = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	ck_assert_int_ge(d->witness, 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", fd, name);
	if (name)
		ck_assert_int_ge(inotify_add_watch(d->witness, path, IN_ALL_EVENTS), 0);
	close(fd);
}

/*
 * Counts how often the node was opened for reading and closed since the last call, and nothing
 * else.
 */
static unsigned opens(const struct dev *d)
{
	_Alignas(struct inotify_event) char buf[4096];
	unsigned opened = 0, closed = 0;
	ssize_t n = read(d->witness, buf, sizeof(buf));

	for (ssize_t at = 0; at < n;) {
		const struct inotify_event *ev = (const void *)(buf + at);

		ck_assert(ev->mask == IN_OPEN || ev->mask == IN_CLOSE_NOWRITE);
		opened += ev->mask == IN_OPEN;
		closed += ev->mask == IN_CLOSE_NOWRITE;
		at += (ssize_t)(sizeof(*ev) + ev->len);
	}
	ck_assert_uint_eq(opened, closed);
	return opened;
}

static void dev_close(struct dev *d)
{
	close(d->fd);
	close(d->witness);
}

START_TEST(no_directory)
{
	struct err e = { 0 };

	ck_assert_int_eq(devnode_open_directory("/proc/self/none", &e), -ENOENT);
	ck_assert_ptr_nonnull(strstr(e.text, "open /proc/self/none"));
	ck_assert_int_eq(devnode_open_directory("/proc/self/stat", &e), -ENOTDIR);
}
END_TEST

START_TEST(scan)
{
	unsigned before = leak_fds();
	struct err e = { 0 };
	struct dev d;

	dev_open(&d, "nbd17");
	ck_assert_int_eq(devnode_scan_partitions(d.fd, 17, 0, &e), 0);
	ck_assert_uint_eq(opens(&d), 1);
	dev_close(&d);
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

/* The node is made while somebody waits for it. */
START_TEST(scan_of_a_late_node)
{
	struct err e = { 0 };
	long long begin;
	struct dev d;
	pid_t maker;

	dev_open(&d, NULL);
	maker = fork();
	if (!maker) {
		poll(NULL, 0, 200);
		_exit(mknodat(d.fd, "nbd3", S_IFREG | 0600, 0) != 0);
	}
	begin = monotonic_ms();
	ck_assert_int_eq(devnode_scan_partitions(d.fd, 3, 20000, &e), 0);
	ck_assert_int_ge(monotonic_ms() - begin, 190);
	ck_assert_int_lt(monotonic_ms() - begin, 10000);
	ck_assert_int_eq(waitpid(maker, NULL, 0), maker);
	dev_close(&d);
}
END_TEST

START_TEST(scan_of_no_node)
{
	struct err e = { 0 };
	long long begin;
	struct dev d;

	dev_open(&d, NULL);
	begin = monotonic_ms();
	ck_assert_int_eq(devnode_scan_partitions(d.fd, 3, 100, &e), -ENOENT);
	ck_assert_int_ge(monotonic_ms() - begin, 100);
	ck_assert_int_eq(e.kind, ERR_FAILED);
	ck_assert_str_eq(e.text, "open /dev/nbd3: No such file or directory");
	/* Waiting does not cure this error. */
	tree_link(d.fd, "nbd4", "nbd4");
	begin = monotonic_ms();
	ck_assert_int_eq(devnode_scan_partitions(d.fd, 4, 60000, &e), -ELOOP);
	ck_assert_int_lt(monotonic_ms() - begin, 30000);
	dev_close(&d);
}
END_TEST

/* A Unix socket's node: ENXIO, as from the node of a disk that is not made yet. */
START_TEST(scan_of_a_node_without_a_disk)
{
	struct err e = { 0 };
	struct dev d;

	dev_open(&d, NULL);
	ck_assert_int_eq(mknodat(d.fd, "nbd5", S_IFSOCK | 0600, 0), 0);
	ck_assert_int_eq(devnode_scan_partitions(d.fd, 5, 50, &e), -ENXIO);
	dev_close(&d);
}
END_TEST

#define SIZE "block/nbd0/size"

START_TEST(drop)
{
	unsigned before = leak_fds();
	int sys = tree_copy("sysfs/idle");
	struct dev d;

	dev_open(&d, "nbd0");
	devnode_drop_partitions(d.fd, sys, 0, 0);
	ck_assert_uint_eq(opens(&d), 1);
	/* one that went away altogether may have left its node; or not */
	devnode_drop_partitions(d.fd, sys, 1, 60000);
	dev_close(&d);
	close(sys);
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

START_TEST(drop_waits_for_the_size)
{
	int sys = tree_copy("sysfs/attached");
	long long begin;
	struct dev d;
	pid_t other;

	dev_open(&d, "nbd0");
	other = fork();
	if (!other) {
		poll(NULL, 0, 200);
		tree_put(sys, "block/nbd0/size.new", "0\n");
		_exit(renameat(sys, "block/nbd0/size.new", sys, SIZE) != 0);
	}
	begin = monotonic_ms();
	devnode_drop_partitions(d.fd, sys, 0, 60000);
	ck_assert_int_ge(monotonic_ms() - begin, 190);
	ck_assert_int_lt(monotonic_ms() - begin, 30000);
	ck_assert_uint_eq(opens(&d), 1);
	ck_assert_int_eq(waitpid(other, NULL, 0), other);
	dev_close(&d);
	close(sys);
}
END_TEST

/* An open while there is a size would read the table. */
START_TEST(drop_not_while_there_is_a_size)
{
	int sys = tree_copy("sysfs/attached");
	struct dev d;

	dev_open(&d, "nbd0");
	devnode_drop_partitions(d.fd, sys, 0, 100);
	ck_assert_uint_eq(opens(&d), 0);
	/* A size that cannot be read counts as one. */
	tree_put(sys, SIZE, "many\n");
	devnode_drop_partitions(d.fd, sys, 0, 60000);
	devnode_drop_partitions(d.fd, -1, 0, 60000);
	ck_assert_uint_eq(opens(&d), 0);
	dev_close(&d);
	close(sys);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("devnode");
	TCase *t = tcase_create("node");

	tcase_set_timeout(t, 60);
	tree_fixture(t);
	tcase_add_test(t, no_directory);
	tcase_add_test(t, scan);
	tcase_add_test(t, scan_of_a_late_node);
	tcase_add_test(t, scan_of_no_node);
	tcase_add_test(t, scan_of_a_node_without_a_disk);
	tcase_add_test(t, drop);
	tcase_add_test(t, drop_waits_for_the_size);
	tcase_add_test(t, drop_not_while_there_is_a_size);
	suite_add_tcase(s, t);
	return s;
}
