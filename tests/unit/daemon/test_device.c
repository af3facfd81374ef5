/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * device, as far as it goes without the driver: the first use of a device that a recorded tree of
 * /sys and a FIFO stand for, whose open hangs as that of a device without an answer does.
 */
#include "../unit.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../tree.h"
#include "daemon/device.h"
#include "net/blocking_child.h"

enum { NOBODY = 65534, SHORT_MS = 300, LONG_MS = 10000 };

/* What the recorded tree shows. */
static const struct sysfs_identity identity = { 0, 696, "unix:/run/nbd.sock#disk one" };
static const struct plan plan = {
	.size = 64 << 20,
	.block_size = 512,
	.max_sectors_kb = 128,
};

struct device {
	struct device_kernel kernel;
	struct connections link;
	int server; /* other end of the connection */
};

static void open_device(struct device *d)
{
	int pair[2];

	memset(d, 0, sizeof(*d));
	d->kernel.sysfd = tree_copy("sysfs/backend");
	d->kernel.devfd = tree_new();
	tree_put(d->kernel.devfd, "nbd0", "");
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	d->link.count = 1;
	d->link.fds[0] = pair[0];
	d->server = pair[1];
}

/* An open waits until somebody writes, and nobody does. */
static void let_it_hang(struct device *d)
{
	ck_assert_int_eq(unlinkat(d->kernel.devfd, "nbd0", 0), 0);
	ck_assert_int_eq(mkfifoat(d->kernel.devfd, "nbd0", 0600), 0);
}

static int make_usable(struct device *d, unsigned timeout_ms, int cancel_fd, struct err *e)
{
	err_clear(e);
	return device_make_usable(&d->kernel, &identity, &plan, &d->link, timeout_ms, cancel_fd, e);
}

static void assert_ends(int ret, int code, const struct err *e, enum err_kind kind,
			const char *says)
{
	ck_assert_msg(ret == -code && e->code == code, "%d: %s", ret, e->text);
	ck_assert_int_eq(e->kind, kind);
	ck_assert_msg(strstr(e->text, says), "%s", e->text);
	ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1);
}

START_TEST(usable)
{
	struct device d;
	struct err e;
	int ret;

	open_device(&d);
	ret = make_usable(&d, LONG_MS, -1, &e);
	ck_assert_msg(!ret, "%s", e.text);
	ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1);
}
END_TEST

static const struct {
	const char *path, *text;
	int code;
	enum err_kind kind;
	const char *says;
} changes[] = {
	{ "block/nbd0/size", "8\n", EIO, ERR_KERNEL, "another program interferes" },
	{ "block/nbd0/queue/logical_block_size", "4096\n", EIO, ERR_KERNEL, "in blocks of 4096" },
	{ "block/nbd0/queue/minimum_io_size", "4096\n", EBUSY, ERR_BUSY, "take another device" },
	{ "block/nbd0/queue/write_zeroes_max_bytes", "512\n", EBUSY, ERR_BUSY, "earlier" },
	{ "block/nbd0/pid", "697\n", ESTALE, ERR_BUSY, "another attachment" },
	{ "block/nbd0/backend", "unix:/run/nbd.sock#two\n", ESTALE, ERR_BUSY,
	  "another attachment" },
};

/* What is there in the end is not what was attached. */
START_TEST(changed)
{
	struct device d;
	struct err e;
	int ret;

	open_device(&d);
	tree_put(d.kernel.sysfd, changes[_i].path, changes[_i].text);
	ret = make_usable(&d, LONG_MS, -1, &e);
	assert_ends(ret, changes[_i].code, &e, changes[_i].kind, changes[_i].says);
}
END_TEST

START_TEST(no_limits)
{
	struct device d;
	struct err e;
	int ret;

	open_device(&d);
	ck_assert_int_eq(unlinkat(d.kernel.sysfd, "block/nbd0/queue/max_sectors_kb", 0), 0);
	ret = make_usable(&d, LONG_MS, -1, &e);
	ck_assert_int_lt(ret, 0);
	ck_assert_int_eq(e.kind, ERR_KERNEL);
}
END_TEST

START_TEST(silent)
{
	struct device d;
	struct err e;
	int ret;

	open_device(&d);
	let_it_hang(&d);
	ret = make_usable(&d, SHORT_MS, -1, &e);
	assert_ends(ret, ETIMEDOUT, &e, ERR_UNREACHABLE, "does not answer the first read");
}
END_TEST

/* The end of the connection is seen at once, not when the time is over. */
START_TEST(hung_up)
{
	long long begin = monotonic_ms();
	struct device d;
	struct err e;
	int ret;

	open_device(&d);
	let_it_hang(&d);
	close(d.server);
	ret = make_usable(&d, 3 * LONG_MS, -1, &e);
	assert_ends(ret, ECONNRESET, &e, ERR_UNREACHABLE, "closed the connection");
	ck_assert_int_lt(monotonic_ms() - begin, LONG_MS);
}
END_TEST

START_TEST(hung_up_afterwards)
{
	struct device d;
	struct err e;
	int ret;

	open_device(&d);
	shutdown(d.server, SHUT_WR);
	ret = make_usable(&d, LONG_MS, -1, &e);
	assert_ends(ret, ECONNRESET, &e, ERR_UNREACHABLE, "closed the connection");
}
END_TEST

START_TEST(cancelled)
{
	int cancel = eventfd(1, EFD_CLOEXEC), ret;
	struct device d;
	struct err e;

	open_device(&d);
	let_it_hang(&d);
	ret = make_usable(&d, LONG_MS, cancel, &e);
	assert_ends(ret, ECANCELED, &e, ERR_FAILED, "interrupted");
}
END_TEST

START_TEST(paused)
{
	int cancel = eventfd(0, EFD_CLOEXEC);
	long long begin = monotonic_ms();
	struct err e = { 0 };

	ck_assert_int_eq(device_pause(SHORT_MS, cancel, &e), 0);
	ck_assert_int_ge(monotonic_ms() - begin, SHORT_MS - 1);
	ck_assert_int_eq(device_pause(1, -1, &e), 0);
	ck_assert_int_eq(eventfd_write(cancel, 1), 0);
	ck_assert_int_eq(device_pause(3 * LONG_MS, cancel, &e), -ECANCELED);
	ck_assert_int_lt(monotonic_ms() - begin, LONG_MS);
}
END_TEST

START_TEST(unprivileged)
{
	struct device_kernel k;
	struct err e = { 0 };

	if (!geteuid())
		ck_assert_int_eq(setresuid(NOBODY, NOBODY, NOBODY), 0);
	ck_assert_int_eq(device_open_kernel(&k, &e), -EPERM);
	ck_assert_int_eq(e.kind, ERR_KERNEL);
	ck_assert_ptr_nonnull(strstr(e.text, "CAP_SYS_ADMIN"));
	device_close_kernel(&k);
	device_close_kernel(&k);
}
END_TEST

START_TEST(no_node)
{
	struct err e = { 0 };

	ck_assert_int_eq(device_read_first(1048575, LONG_MS, -1, &e), -EIO);
	ck_assert_ptr_nonnull(strstr(e.text, "read nbd1048575"));
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("device");
	TCase *tc = tcase_create("first use");

	tree_fixture(tc);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, usable);
	tcase_add_loop_test(tc, changed, 0, sizeof(changes) / sizeof(changes[0]));
	tcase_add_test(tc, no_limits);
	tcase_add_test(tc, silent);
	tcase_add_test(tc, hung_up);
	tcase_add_test(tc, hung_up_afterwards);
	tcase_add_test(tc, cancelled);
	suite_add_tcase(s, tc);
	tc = tcase_create("kernel");
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, paused);
	tcase_add_test(tc, unprivileged);
	tcase_add_test(tc, no_node);
	suite_add_tcase(s, tc);
	return s;
}
