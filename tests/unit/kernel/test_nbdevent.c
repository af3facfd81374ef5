/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/* Events made in memory, and a netlink group without the driver; tests/vm/reconfigure.sh has it. */
#include "kernel/nbdevent.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/nbd-netlink.h>
#include <linux/netlink.h>
#include <netlink/genl/genl.h>
#include <netlink/netlink.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../leak.h"
#include "../unit.h"

enum { FAMILY = 31 };

static struct nl_msg *notice(uint8_t command, const void *index, int len)
{
	struct nl_msg *m = nlmsg_alloc();

	ck_assert_ptr_nonnull(m);
	ck_assert_ptr_nonnull(genlmsg_put(m, 0, 0, FAMILY, 0, 0, command, NBD_GENL_VERSION));
	if (index)
		ck_assert_int_eq(nla_put(m, NBD_ATTR_INDEX, len, index), 0);
	return m;
}

START_TEST(parse)
{
	static const uint32_t indices[] = { 0, 1, 15, 1048575, UINT32_MAX };

	for (size_t i = 0; i < sizeof(indices) / sizeof(indices[0]); i++) {
		struct nl_msg *m = notice(NBD_CMD_LINK_DEAD, &indices[i], 4);
		uint32_t index = 4711;

		ck_assert_int_eq(nbdevent_parse(nlmsg_hdr(m), nlmsg_hdr(m)->nlmsg_len, &index),
				 NBDEVENT_DEAD);
		ck_assert_uint_eq(index, indices[i]);
		nlmsg_free(m);
	}
}
END_TEST

START_TEST(parse_other_messages)
{
	static const struct {
		uint8_t command;
		bool has_index;
		int len;
	} table[] = {
		{ NBD_CMD_LINK_DEAD, false, 0 }, { NBD_CMD_LINK_DEAD, true, 0 },
		{ NBD_CMD_LINK_DEAD, true, 3 },  { NBD_CMD_CONNECT, true, 4 },
		{ NBD_CMD_STATUS, true, 4 },     { NBD_CMD_UNSPEC, true, 4 },
	};
	const uint32_t value = 5;

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct nl_msg *m =
			notice(table[i].command, table[i].has_index ? &value : NULL, table[i].len);
		uint32_t index = 4711;

		ck_assert_int_eq(nbdevent_parse(nlmsg_hdr(m), nlmsg_hdr(m)->nlmsg_len, &index),
				 NBDEVENT_NONE);
		ck_assert_uint_eq(index, 4711);
		nlmsg_free(m);
	}
}
END_TEST

/* A message of netlink itself (NLMSG_ERROR, ...) has no generic header, whatever follows. */
START_TEST(parse_control_messages)
{
	const uint32_t value = 5;
	struct nl_msg *m = notice(NBD_CMD_LINK_DEAD, &value, 4);
	uint32_t index = 4711;

	for (uint16_t type = 0; type < NLMSG_MIN_TYPE; type++) {
		nlmsg_hdr(m)->nlmsg_type = type;
		ck_assert_int_eq(nbdevent_parse(nlmsg_hdr(m), nlmsg_hdr(m)->nlmsg_len, &index),
				 NBDEVENT_NONE);
	}
	ck_assert_uint_eq(index, 4711);
	nlmsg_free(m);
}
END_TEST

/* Each in memory of just its length, so that a sanitizer sees a read beyond. */
START_TEST(parse_cut)
{
	const uint32_t value = 5;
	struct nl_msg *m = notice(NBD_CMD_LINK_DEAD, &value, 4);
	const uint32_t whole = nlmsg_hdr(m)->nlmsg_len;

	for (uint32_t len = 0; len < whole; len++) {
		struct nlmsghdr *h = malloc(len ? len : 1);
		uint32_t index = 4711;

		ck_assert_ptr_nonnull(h);
		memcpy(h, nlmsg_hdr(m), len);
		ck_assert_int_eq(nbdevent_parse(h, len, &index), NBDEVENT_NONE);
		if (len >= NLMSG_HDRLEN) {
			h->nlmsg_len = len;
			ck_assert_int_eq(nbdevent_parse(h, len, &index), NBDEVENT_NONE);
		}
		ck_assert_uint_eq(index, 4711);
		free(h);
	}
	nlmsg_free(m);
}
END_TEST

/* --- a group of this machine's kernel that processes may send to ------------------------------ */

/* False where that takes a privilege that we lack. */
static bool group(int *receiver, int *sender)
{
	struct sockaddr_nl any = { .nl_family = AF_NETLINK };
	int number = 1;

	*receiver = socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_USERSOCK);
	*sender = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_USERSOCK);
	ck_assert_int_ge(*receiver, 0);
	ck_assert_int_ge(*sender, 0);
	ck_assert_int_eq(bind(*receiver, (struct sockaddr *)&any, sizeof(any)), 0);
	return !setsockopt(*receiver, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &number, sizeof(number));
}

static void send_notice(int sender)
{
	struct sockaddr_nl to = { .nl_family = AF_NETLINK, .nl_groups = 1 };
	const uint32_t index = 3;
	struct nl_msg *m = notice(NBD_CMD_LINK_DEAD, &index, 4);

	/* the kernel is a receiver, too, and does not listen */
	ck_assert_int_eq(sendto(sender, nlmsg_hdr(m), nlmsg_hdr(m)->nlmsg_len, 0,
				(struct sockaddr *)&to, sizeof(to)),
			 -1);
	ck_assert_int_eq(errno, ECONNREFUSED);
	nlmsg_free(m);
}

/* Only the kernel may say that a connection is dead. */
START_TEST(notice_of_a_process)
{
	struct err e = { 0 };
	uint32_t index = 4711;
	int receiver, sender;
	char c;

	if (group(&receiver, &sender)) {
		ck_assert_int_eq(nbdevent_read(receiver, &index, &e), NBDEVENT_NONE);
		send_notice(sender);
		ck_assert_int_eq(recv(receiver, &c, 1, MSG_PEEK), 1);
		ck_assert_int_eq(nbdevent_read(receiver, &index, &e), NBDEVENT_NONE);
		ck_assert_uint_eq(index, 4711);
		ck_assert_int_eq(recv(receiver, &c, 1, MSG_PEEK), -1);
	}
	close(receiver);
	close(sender);
}
END_TEST

/* Each overflow is told, and what comes later is received again. */
START_TEST(queue_that_runs_over)
{
	struct err e = { 0 };
	uint32_t index = 4711;
	int receiver, sender, tiny = 1;

	if (group(&receiver, &sender)) {
		ck_assert_int_eq(setsockopt(receiver, SOL_SOCKET, SO_RCVBUF, &tiny, sizeof(tiny)),
				 0);
		for (int round = 0; round < 2; round++) {
			for (int i = 0; i < 1000; i++)
				send_notice(sender);
			ck_assert_int_eq(nbdevent_read(receiver, &index, &e), NBDEVENT_LOST);
			ck_assert_int_eq(nbdevent_read(receiver, &index, &e), NBDEVENT_NONE);
			ck_assert_uint_eq(index, 4711);
		}
	}
	close(receiver);
	close(sender);
}
END_TEST

START_TEST(read_of_no_socket)
{
	struct err e = { 0 };
	uint32_t index;
	int fds[2];

	ck_assert_int_eq(pipe(fds), 0);
	ck_assert_int_eq(nbdevent_read(fds[0], &index, &e), -ENOTSOCK);
	ck_assert_int_eq(e.kind, ERR_KERNEL);
	ck_assert_ptr_nonnull(strstr(e.text, "dead connections"));
	close(fds[0]);
	close(fds[1]);
}
END_TEST

/* --- this machine's kernel -------------------------------------------------------------------- */

START_TEST(open_and_close)
{
	unsigned before = leak_fds();
	struct err e = { 0 };
	uint32_t index;
	int fd = nbdevent_open(&e);

	/* asking for the family may load the module: look afterwards */
	if (!access("/sys/module/nbd", F_OK)) {
		ck_assert_msg(fd >= 0, "%s", e.text);
		ck_assert(fcntl(fd, F_GETFL) & O_NONBLOCK);
		ck_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
		ck_assert_int_eq(nbdevent_read(fd, &index, &e), NBDEVENT_NONE);
		close(fd);
	} else {
		ck_assert_int_eq(fd, -ENOENT);
		ck_assert_int_eq(e.kind, ERR_KERNEL);
		ck_assert_ptr_nonnull(strstr(e.text, "driver is not loaded"));
	}
	ck_assert_uint_eq(leak_fds(), before);
}
END_TEST

START_TEST(open_without_descriptors)
{
	struct rlimit old, few;
	struct err e = { 0 };
	int ret;

	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
	few = old;
	few.rlim_cur = 0;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
	ret = nbdevent_open(&e);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
	ck_assert_int_eq(ret, -EIO);
	ck_assert_int_eq(e.kind, ERR_KERNEL);
	ck_assert_ptr_nonnull(strstr(e.text, "open generic netlink"));
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("nbdevent");
	TCase *t = tcase_create("parse");

	tcase_add_test(t, parse);
	tcase_add_test(t, parse_other_messages);
	tcase_add_test(t, parse_control_messages);
	tcase_add_test(t, parse_cut);
	suite_add_tcase(s, t);
	t = tcase_create("kernel");
	tcase_set_timeout(t, 60);
	tcase_add_test(t, notice_of_a_process);
	tcase_add_test(t, queue_that_runs_over);
	tcase_add_test(t, read_of_no_socket);
	tcase_add_test(t, open_and_close);
	tcase_add_test(t, open_without_descriptors);
	suite_add_tcase(s, t);
	return s;
}
