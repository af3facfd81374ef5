/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "kernel/nbdnl.h"

#include <errno.h>
#include <linux/nbd.h>
#include <linux/nbd-netlink.h>
#include <netlink/genl/genl.h>
#include <netlink/netlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "../leak.h"
#include "../unit.h"

enum { FAMILY = 31 };

static const struct plan plan = {
	.size = UINT64_C(0x123456789a00),
	.block_size = 4096,
	.server_flags = 0x0105,
	.timeout_s = 30,
	.dead_timeout_s = 300000000,
	.backend = "nbd://server:10809/disk",
};

static const int sockets[] = { 17, 3, 250 };

/* The attributes of m by type; the test fails for one that is there twice or unknown. */
static void attributes(struct nl_msg *m, uint8_t command, struct nlattr *attrs[NBD_ATTR_MAX + 1])
{
	struct nlmsghdr *h = nlmsg_hdr(m);
	struct nlattr *a;
	int left;

	memset(attrs, 0, (NBD_ATTR_MAX + 1) * sizeof(attrs[0]));
	ck_assert_int_eq(h->nlmsg_type, FAMILY);
	ck_assert_int_eq(h->nlmsg_flags & (NLM_F_DUMP | NLM_F_CREATE), 0);
	ck_assert(genlmsg_valid_hdr(h, 0));
	ck_assert_uint_eq(genlmsg_hdr(h)->cmd, command);
	ck_assert_uint_eq(genlmsg_hdr(h)->version, NBD_GENL_VERSION);
	nla_for_each_attr(a, genlmsg_attrdata(genlmsg_hdr(h), 0),
			  genlmsg_attrlen(genlmsg_hdr(h), 0), left)
	{
		ck_assert_int_le(nla_type(a), NBD_ATTR_MAX);
		ck_assert_ptr_null(attrs[nla_type(a)]);
		attrs[nla_type(a)] = a;
	}
	ck_assert_int_eq(left, 0);
}

static void expect_u32(const struct nlattr *a, uint32_t value)
{
	ck_assert_ptr_nonnull(a);
	ck_assert_int_eq(nla_len(a), 4);
	ck_assert_uint_eq(nla_get_u32(a), value);
}

static void expect_u64(const struct nlattr *a, uint64_t value)
{
	ck_assert_ptr_nonnull(a);
	ck_assert_int_eq(nla_len(a), 8);
	ck_assert_uint_eq(nla_get_u64(a), value);
}

/* The kernel's nbd_genl_connect() reads a list of items, with a number in each. */
static void expect_sockets(struct nlattr *list, const int *fds, unsigned count)
{
	struct nlattr *item;
	unsigned n = 0;
	int left;

	ck_assert_ptr_nonnull(list);
	nla_for_each_nested(item, list, left)
	{
		struct nlattr *fd = nla_data(item);

		ck_assert_int_eq(nla_type(item), NBD_SOCK_ITEM);
		ck_assert_int_eq(nla_len(item), nla_total_size(4));
		ck_assert_int_eq(nla_type(fd), NBD_SOCK_FD);
		ck_assert_uint_lt(n, count);
		expect_u32(fd, (uint32_t)fds[n++]);
	}
	ck_assert_int_eq(left, 0);
	ck_assert_uint_eq(n, count);
}

static struct nl_msg *connect_message(const struct nbdnl_connect *c, struct nlattr **attrs)
{
	struct nl_msg *m = nlmsg_alloc();

	ck_assert_ptr_nonnull(m);
	ck_assert_int_eq(nbdnl_build_connect(m, FAMILY, c), 0);
	attributes(m, NBD_CMD_CONNECT, attrs);
	return m;
}

START_TEST(connect_has_every_attribute)
{
	const struct nbdnl_connect c = {
		.plan = &plan,
		.index = 7,
		.sockets = sockets,
		.count = 3,
	};
	struct nlattr *attrs[NBD_ATTR_MAX + 1];
	struct nl_msg *m = connect_message(&c, attrs);

	expect_u32(attrs[NBD_ATTR_INDEX], 7);
	expect_u64(attrs[NBD_ATTR_SIZE_BYTES], UINT64_C(0x123456789a00));
	expect_u64(attrs[NBD_ATTR_BLOCK_SIZE_BYTES], 4096);
	expect_u64(attrs[NBD_ATTR_TIMEOUT], 30);
	expect_u64(attrs[NBD_ATTR_DEAD_CONN_TIMEOUT], 300000000);
	expect_u64(attrs[NBD_ATTR_SERVER_FLAGS], 0x0105);
	expect_u64(attrs[NBD_ATTR_CLIENT_FLAGS], 0);
	ck_assert_ptr_nonnull(attrs[NBD_ATTR_BACKEND_IDENTIFIER]);
	ck_assert_int_eq(nla_len(attrs[NBD_ATTR_BACKEND_IDENTIFIER]),
			 (int)sizeof("nbd://server:10809/disk"));
	ck_assert_str_eq(nla_get_string(attrs[NBD_ATTR_BACKEND_IDENTIFIER]),
			 "nbd://server:10809/disk");
	expect_sockets(attrs[NBD_ATTR_SOCKETS], sockets, 3);
	ck_assert_ptr_null(attrs[NBD_ATTR_DEVICE_LIST]);
	nlmsg_free(m);
}
END_TEST

/* A 0 is sent as well: the kernel would keep an earlier attachment's value. */
START_TEST(connect_sends_zeroes)
{
	static const struct plan zero = { .size = 512, .block_size = 512, .server_flags = 1 };
	const struct nbdnl_connect c = {
		.plan = &zero,
		.index = 0,
		.sockets = sockets,
		.count = 1,
	};
	struct nlattr *attrs[NBD_ATTR_MAX + 1];
	struct nl_msg *m = connect_message(&c, attrs);

	expect_u32(attrs[NBD_ATTR_INDEX], 0);
	expect_u64(attrs[NBD_ATTR_TIMEOUT], 0);
	expect_u64(attrs[NBD_ATTR_DEAD_CONN_TIMEOUT], 0);
	expect_u64(attrs[NBD_ATTR_CLIENT_FLAGS], 0);
	expect_u64(attrs[NBD_ATTR_SERVER_FLAGS], 1);
	/* an empty identifier would be one that no other attachment fits */
	ck_assert_ptr_null(attrs[NBD_ATTR_BACKEND_IDENTIFIER]);
	expect_sockets(attrs[NBD_ATTR_SOCKETS], sockets, 1);
	nlmsg_free(m);
}
END_TEST

START_TEST(connect_to_any_device)
{
	const struct nbdnl_connect c = {
		.plan = &plan,
		.index = NBDNL_ANY_INDEX,
		.sockets = sockets,
		.count = 1,
	};
	struct nlattr *attrs[NBD_ATTR_MAX + 1];
	struct nl_msg *m = connect_message(&c, attrs);

	ck_assert_ptr_null(attrs[NBD_ATTR_INDEX]);
	expect_u64(attrs[NBD_ATTR_SIZE_BYTES], UINT64_C(0x123456789a00));
	nlmsg_free(m);
}
END_TEST

START_TEST(connect_to_a_device_that_goes_with_it)
{
	const struct nbdnl_connect c = {
		.plan = &plan,
		.index = 1048575,
		.destroy = true,
		.sockets = sockets,
		.count = 1,
	};
	struct nlattr *attrs[NBD_ATTR_MAX + 1];
	struct nl_msg *m = connect_message(&c, attrs);

	expect_u32(attrs[NBD_ATTR_INDEX], 1048575);
	expect_u64(attrs[NBD_ATTR_CLIENT_FLAGS], NBD_CFLAG_DESTROY_ON_DISCONNECT);
	nlmsg_free(m);
}
END_TEST

START_TEST(connect_with_extremes)
{
	struct plan p = {
		.size = INT64_MAX,
		.block_size = 65536,
		.server_flags = UINT64_MAX,
		.timeout_s = UINT32_MAX,
		.dead_timeout_s = UINT32_MAX,
	};
	const struct nbdnl_connect c = { .plan = &p, .index = 1, .sockets = sockets, .count = 1 };
	struct nlattr *attrs[NBD_ATTR_MAX + 1];
	struct nl_msg *m;

	memset(p.backend, 'b', PLAN_BACKEND_MAX);
	m = connect_message(&c, attrs);
	expect_u64(attrs[NBD_ATTR_SIZE_BYTES], INT64_MAX);
	expect_u64(attrs[NBD_ATTR_BLOCK_SIZE_BYTES], 65536);
	expect_u64(attrs[NBD_ATTR_TIMEOUT], UINT32_MAX);
	expect_u64(attrs[NBD_ATTR_DEAD_CONN_TIMEOUT], UINT32_MAX);
	expect_u64(attrs[NBD_ATTR_SERVER_FLAGS], UINT64_MAX);
	ck_assert_int_eq(nla_len(attrs[NBD_ATTR_BACKEND_IDENTIFIER]), PLAN_BACKEND_MAX + 1);
	ck_assert_str_eq(nla_get_string(attrs[NBD_ATTR_BACKEND_IDENTIFIER]), p.backend);
	nlmsg_free(m);
}
END_TEST

START_TEST(disconnect)
{
	struct nlattr *attrs[NBD_ATTR_MAX + 1];
	struct nl_msg *m = nlmsg_alloc();

	ck_assert_int_eq(nbdnl_build_disconnect(m, FAMILY, 12), 0);
	attributes(m, NBD_CMD_DISCONNECT, attrs);
	expect_u32(attrs[NBD_ATTR_INDEX], 12);
	for (int i = 0; i <= NBD_ATTR_MAX; i++)
		if (i != NBD_ATTR_INDEX)
			ck_assert_ptr_null(attrs[i]);
	nlmsg_free(m);
}
END_TEST

/* --- RECONFIGURE ------------------------------------------------------------------------------ */

enum kind { OFFER, RESIZE, PROBE, KINDS };

static int build_kind(struct nl_msg *m, enum kind kind, const char *backend)
{
	switch (kind) {
	case OFFER:
		return nbdnl_build_offer(m, FAMILY, 1048575, backend, 17);
	case RESIZE:
		return nbdnl_build_resize(m, FAMILY, 1048575, backend, UINT64_C(0x123456789a00));
	default:
		return nbdnl_build_probe(m, FAMILY, 1048575, backend);
	}
}

/*
 * Each has its attributes and nothing else: a size beside a socket would hold up all generic
 * netlink, an attribute that is not meant would change the device.
 */
START_TEST(reconfigure)
{
	static const char *const backends[] = { "nbd://server:10809/disk", "" };
	static const int expected_fd = 17;
	struct nlattr *attrs[NBD_ATTR_MAX + 1];
	enum kind kind = (enum kind)_i;

	for (size_t i = 0; i < 2; i++) {
		struct nl_msg *m = nlmsg_alloc();
		unsigned count = 0;

		ck_assert_int_eq(build_kind(m, kind, backends[i]), 0);
		attributes(m, NBD_CMD_RECONFIGURE, attrs);
		for (int a = 0; a <= NBD_ATTR_MAX; a++)
			count += attrs[a] != NULL;
		expect_u32(attrs[NBD_ATTR_INDEX], 1048575);
		count--;
		if (backends[i][0]) {
			ck_assert_ptr_nonnull(attrs[NBD_ATTR_BACKEND_IDENTIFIER]);
			ck_assert_int_eq(nla_len(attrs[NBD_ATTR_BACKEND_IDENTIFIER]),
					 (int)strlen(backends[i]) + 1);
			ck_assert_str_eq(nla_get_string(attrs[NBD_ATTR_BACKEND_IDENTIFIER]),
					 backends[i]);
			count--;
		}
		if (kind == OFFER) {
			expect_sockets(attrs[NBD_ATTR_SOCKETS], &expected_fd, 1);
			count--;
		}
		if (kind == RESIZE) {
			expect_u64(attrs[NBD_ATTR_SIZE_BYTES], UINT64_C(0x123456789a00));
			count--;
		}
		ck_assert_uint_eq(count, 0);
		nlmsg_free(m);
	}
}
END_TEST

START_TEST(reconfigure_without_room)
{
	enum kind kind = (enum kind)_i;
	struct nl_msg *m = nlmsg_alloc();
	size_t whole, size;
	int ret;

	ck_assert_int_eq(build_kind(m, kind, "backend"), 0);
	whole = nlmsg_hdr(m)->nlmsg_len;
	nlmsg_free(m);
	for (size = NLMSG_HDRLEN; size <= whole; size += 4) {
		m = nlmsg_alloc_size(size);
		ck_assert_ptr_nonnull(m);
		ret = build_kind(m, kind, "backend");
		ck_assert_msg(ret == (size < whole ? -ENOMEM : 0), "in %zu of %zu bytes: %d", size,
			      whole, ret);
		nlmsg_free(m);
	}
}
END_TEST

/* The longest identifier and many connections fit into the one message for all commands. */
START_TEST(connect_with_many_sockets)
{
	struct nlattr *attrs[NBD_ATTR_MAX + 1];
	struct plan p = plan;
	struct nl_msg *m;
	int fds[64];

	for (int i = 0; i < 64; i++)
		fds[i] = 1000 - i;
	memset(p.backend, 'b', PLAN_BACKEND_MAX);
	const struct nbdnl_connect c = { .plan = &p, .index = 1, .sockets = fds, .count = 64 };
	m = connect_message(&c, attrs);
	expect_sockets(attrs[NBD_ATTR_SOCKETS], fds, 64);
	nlmsg_free(m);
}
END_TEST

/* A message with too little room, whichever attribute it is that has none. */
START_TEST(no_room)
{
	const struct nbdnl_connect c = {
		.plan = &plan,
		.index = 7,
		.sockets = sockets,
		.count = 3,
	};
	struct nl_msg *m = nlmsg_alloc();
	size_t whole[2], size;

	ck_assert_int_eq(nbdnl_build_connect(m, FAMILY, &c), 0);
	whole[0] = nlmsg_hdr(m)->nlmsg_len;
	nlmsg_free(m);
	whole[1] = NLMSG_HDRLEN + GENL_HDRLEN + 8;
	for (int i = 0; i < 2; i++) {
		for (size = NLMSG_HDRLEN; size <= whole[i]; size += 4) {
			int ret;

			m = nlmsg_alloc_size(size);
			ck_assert_ptr_nonnull(m);
			ret = i ? nbdnl_build_disconnect(m, FAMILY, 1) :
				  nbdnl_build_connect(m, FAMILY, &c);
			ck_assert_msg(ret == (size < whole[i] ? -ENOMEM : 0),
				      "message %d in %zu of %zu bytes: %d", i, size, whole[i], ret);
			nlmsg_free(m);
		}
	}
}
END_TEST

/* --- what the kernel answers ------------------------------------------------------------------ */

static struct nl_msg *answer(uint8_t command, const void *index, int len)
{
	struct nl_msg *m = nlmsg_alloc();

	ck_assert_ptr_nonnull(genlmsg_put(m, 0, 0, FAMILY, 0, 0, command, NBD_GENL_VERSION));
	if (index)
		ck_assert_int_eq(nla_put(m, NBD_ATTR_INDEX, len, index), 0);
	return m;
}

START_TEST(parse_the_index)
{
	static const uint32_t indices[] = { 0, 1, 15, 1048575, UINT32_MAX };

	for (size_t i = 0; i < sizeof(indices) / sizeof(indices[0]); i++) {
		struct nl_msg *m = answer(NBD_CMD_CONNECT, &indices[i], 4);
		uint32_t index = 4711;

		ck_assert_int_eq(nbdnl_parse_connect(nlmsg_hdr(m), &index), 0);
		ck_assert_uint_eq(index, indices[i]);
		nlmsg_free(m);
	}
}
END_TEST

START_TEST(parse_among_other_attributes)
{
	const uint32_t value = 9;
	struct nl_msg *m = answer(NBD_CMD_CONNECT, NULL, 0);
	uint32_t index = 4711;

	ck_assert_int_eq(nla_put_u64(m, NBD_ATTR_SIZE_BYTES, 1), 0);
	ck_assert_int_eq(nla_put_string(m, NBD_ATTR_MAX + 5, "of a later kernel"), 0);
	ck_assert_int_eq(nla_put(m, NBD_ATTR_INDEX, 4, &value), 0);
	ck_assert_int_eq(nbdnl_parse_connect(nlmsg_hdr(m), &index), 0);
	ck_assert_uint_eq(index, 9);
	nlmsg_free(m);
}
END_TEST

START_TEST(parse_no_answer)
{
	static const struct {
		uint8_t command;
		bool has_index;
		int len;
	} table[] = {
		{ NBD_CMD_CONNECT, false, 0 },   { NBD_CMD_STATUS, true, 4 },
		{ NBD_CMD_DISCONNECT, true, 4 }, { NBD_CMD_UNSPEC, true, 4 },
		{ NBD_CMD_CONNECT, true, 0 },    { NBD_CMD_CONNECT, true, 1 },
		{ NBD_CMD_CONNECT, true, 3 },
	};
	const uint32_t value = 5;
	uint32_t index = 4711;
	struct nl_msg *m =
		answer(table[_i].command, table[_i].has_index ? &value : NULL, table[_i].len);

	ck_assert_int_eq(nbdnl_parse_connect(nlmsg_hdr(m), &index), -EBADMSG);
	ck_assert_uint_eq(index, 4711);
	nlmsg_free(m);
}
END_TEST

/* Each in memory of just its length, so that a sanitizer sees a read beyond. */
START_TEST(parse_truncated)
{
	const uint32_t value = 5;
	struct nl_msg *m = answer(NBD_CMD_CONNECT, &value, 4);
	const uint32_t whole = nlmsg_hdr(m)->nlmsg_len;

	for (uint32_t len = NLMSG_HDRLEN; len < whole; len++) {
		struct nlmsghdr *h = malloc(len);
		uint32_t index = 4711;

		ck_assert_ptr_nonnull(h);
		memcpy(h, nlmsg_hdr(m), len);
		h->nlmsg_len = len;
		ck_assert_int_eq(nbdnl_parse_connect(h, &index), -EBADMSG);
		ck_assert_uint_eq(index, 4711);
		free(h);
	}
	nlmsg_free(m);
}
END_TEST

START_TEST(parse_an_attribute_longer_than_its_message)
{
	const uint32_t value = 5;
	struct nl_msg *m = answer(NBD_CMD_CONNECT, &value, 4);
	struct nlattr *a = genlmsg_attrdata(genlmsg_hdr(nlmsg_hdr(m)), 0);
	uint32_t index = 4711;

	a->nla_len = 200;
	ck_assert_int_eq(nbdnl_parse_connect(nlmsg_hdr(m), &index), -EBADMSG);
	ck_assert_uint_eq(index, 4711);
	nlmsg_free(m);
}
END_TEST

enum { SEQ = 77 };

/* Datagrams as the kernel makes them: messages one behind the other. */
struct datagram {
	_Alignas(struct nlmsghdr) char data[2048];
	size_t len;
};

static void add_message(struct datagram *d, struct nl_msg *m, uint32_t seq)
{
	uint32_t len = nlmsg_hdr(m)->nlmsg_len;

	nlmsg_hdr(m)->nlmsg_seq = seq;
	memcpy(d->data + d->len, nlmsg_hdr(m), len);
	d->len += NLMSG_ALIGN(len);
	nlmsg_free(m);
}

static void add_index(struct datagram *d, uint32_t index, uint32_t seq)
{
	add_message(d, answer(NBD_CMD_CONNECT, &index, 4), seq);
}

/* netlink_ack() of the kernel: the verdict, then the command's header or all of it. */
static void add_verdict(struct datagram *d, int code, size_t echo, uint32_t seq)
{
	struct nl_msg *m = nlmsg_alloc();
	struct nlmsgerr *error;

	ck_assert_ptr_nonnull(nlmsg_put(m, 0, 0, NLMSG_ERROR, (int)(sizeof(*error) + echo), 0));
	error = nlmsg_data(nlmsg_hdr(m));
	memset(error, 0xa5, sizeof(*error) + echo);
	error->error = code;
	add_message(d, m, seq);
}

START_TEST(answer_of_connect)
{
	struct datagram d = { .len = 0 };
	struct nbdnl_answer a = { 0 };

	add_index(&d, 5, SEQ);
	nbdnl_parse_answer(d.data, d.len, SEQ, &a);
	ck_assert(a.has_index && !a.done);
	ck_assert_uint_eq(a.index, 5);
	d.len = 0;
	add_verdict(&d, 0, 0, SEQ);
	nbdnl_parse_answer(d.data, d.len, SEQ, &a);
	ck_assert(a.has_index && a.done);
	ck_assert_uint_eq(a.index, 5);
	ck_assert_int_eq(a.code, 0);
}
END_TEST

START_TEST(answer_in_one_datagram)
{
	struct datagram d = { .len = 0 };
	struct nbdnl_answer a = { 0 };

	add_index(&d, 6, SEQ);
	add_verdict(&d, 0, 0, SEQ);
	nbdnl_parse_answer(d.data, d.len, SEQ, &a);
	ck_assert(a.has_index && a.done);
	ck_assert_uint_eq(a.index, 6);
}
END_TEST

START_TEST(answer_that_is_no)
{
	static const int codes[] = { -EBUSY, -EINVAL, -EPERM, -EBADF };

	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
		struct datagram d = { .len = 0 };
		struct nbdnl_answer a = { 0 };

		add_verdict(&d, codes[i], 700, SEQ);
		nbdnl_parse_answer(d.data, d.len, SEQ, &a);
		ck_assert(a.done && !a.has_index);
		ck_assert_int_eq(a.code, codes[i]);
	}
}
END_TEST

/* Answers to a command before this one, or to nobody. */
START_TEST(answer_to_others)
{
	struct datagram d = { .len = 0 };
	struct nbdnl_answer a = { 0 };

	add_index(&d, 9, SEQ - 1);
	add_verdict(&d, -EBUSY, 0, SEQ - 1);
	add_verdict(&d, -EINVAL, 0, 0);
	nbdnl_parse_answer(d.data, d.len, SEQ, &a);
	ck_assert(!a.done && !a.has_index);
	add_verdict(&d, 0, 0, SEQ);
	nbdnl_parse_answer(d.data, d.len, SEQ, &a);
	ck_assert(a.done && !a.has_index);
	ck_assert_int_eq(a.code, 0);
}
END_TEST

START_TEST(answer_cut)
{
	struct datagram d = { .len = 0 };
	struct nbdnl_answer a;
	size_t whole, verdict = 0;

	add_index(&d, 5, SEQ);
	verdict = d.len;
	add_verdict(&d, -EBUSY, 0, SEQ);
	whole = d.len;
	for (size_t len = 0; len < whole; len++) {
		char *copy = malloc(len ? len : 1);

		ck_assert_ptr_nonnull(copy);
		memcpy(copy, d.data, len);
		a = (struct nbdnl_answer){ 0 };
		nbdnl_parse_answer(copy, len, SEQ, &a);
		ck_assert(!a.done);
		ck_assert_int_eq(a.has_index, len >= verdict);
		free(copy);
	}
	/* a verdict without room for one */
	d.len = 0;
	add_verdict(&d, -EBUSY, 0, SEQ);
	for (uint32_t len = NLMSG_HDRLEN; len < NLMSG_HDRLEN + 4; len++) {
		((struct nlmsghdr *)(void *)d.data)->nlmsg_len = len;
		a = (struct nbdnl_answer){ 0 };
		nbdnl_parse_answer(d.data, len, SEQ, &a);
		ck_assert(!a.done);
	}
}
END_TEST

/* --- this machine's kernel -------------------------------------------------------------------- */

START_TEST(open_and_close)
{
	unsigned before = leak_fds();
	struct nbdnl *nl = (struct nbdnl *)&before;
	struct err e = { 0 };
	int ret = nbdnl_open(&nl, &e);

	/* asking for the family may load the module: look afterwards */
	if (!access("/sys/module/nbd", F_OK)) {
		ck_assert_msg(!ret, "%s", e.text);
		ck_assert_ptr_nonnull(nl);
		nbdnl_close(nl);
	} else {
		ck_assert_int_eq(ret, -ENOENT);
		ck_assert_ptr_null(nl);
		ck_assert_int_eq(e.kind, ERR_KERNEL);
		ck_assert_int_eq(e.code, ENOENT);
		ck_assert_ptr_nonnull(strstr(e.text, "family \"nbd\""));
		ck_assert_ptr_nonnull(strstr(e.text, "driver is not loaded"));
	}
	ck_assert_uint_eq(leak_fds(), before);
	nbdnl_close(NULL);
}
END_TEST

START_TEST(open_without_descriptors)
{
	struct rlimit old, few;
	struct nbdnl *nl = (struct nbdnl *)&old;
	struct err e = { 0 };
	int ret;

	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
	few = old;
	few.rlim_cur = 0;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
	ret = nbdnl_open(&nl, &e);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
	ck_assert_int_eq(ret, -EIO);
	ck_assert_int_eq(e.kind, ERR_KERNEL);
	ck_assert_ptr_nonnull(strstr(e.text, "open generic netlink"));
	ck_assert_ptr_null(nl);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("nbdnl");
	TCase *t = tcase_create("build");

	tcase_add_test(t, connect_has_every_attribute);
	tcase_add_test(t, connect_sends_zeroes);
	tcase_add_test(t, connect_to_any_device);
	tcase_add_test(t, connect_to_a_device_that_goes_with_it);
	tcase_add_test(t, connect_with_extremes);
	tcase_add_test(t, disconnect);
	tcase_add_test(t, connect_with_many_sockets);
	tcase_add_test(t, no_room);
	tcase_add_loop_test(t, reconfigure, 0, KINDS);
	tcase_add_loop_test(t, reconfigure_without_room, 0, KINDS);
	suite_add_tcase(s, t);
	t = tcase_create("parse");
	tcase_add_test(t, parse_the_index);
	tcase_add_test(t, parse_among_other_attributes);
	tcase_add_loop_test(t, parse_no_answer, 0, 7);
	tcase_add_test(t, parse_truncated);
	tcase_add_test(t, parse_an_attribute_longer_than_its_message);
	tcase_add_test(t, answer_of_connect);
	tcase_add_test(t, answer_in_one_datagram);
	tcase_add_test(t, answer_that_is_no);
	tcase_add_test(t, answer_to_others);
	tcase_add_test(t, answer_cut);
	suite_add_tcase(s, t);
	t = tcase_create("kernel");
	tcase_set_timeout(t, 60);
	tcase_add_test(t, open_and_close);
	tcase_add_test(t, open_without_descriptors);
	suite_add_tcase(s, t);
	return s;
}
