/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * The kernel's header and wire.h have names in common. The kernel's values are kept here under
 * names of their own before wire.h comes: its enumerators are renamed while its header is read, its
 * macros are copied and removed after. Newer headers have more of them than the oldest supported.
 */
#define NBD_CMD_READ         KERNEL_CMD_READ
#define NBD_CMD_WRITE        KERNEL_CMD_WRITE
#define NBD_CMD_DISC         KERNEL_CMD_DISC
#define NBD_CMD_FLUSH        KERNEL_CMD_FLUSH
#define NBD_CMD_TRIM         KERNEL_CMD_TRIM
#define NBD_CMD_WRITE_ZEROES KERNEL_CMD_WRITE_ZEROES
#include <linux/nbd.h>
#undef NBD_CMD_READ
#undef NBD_CMD_WRITE
#undef NBD_CMD_DISC
#undef NBD_CMD_FLUSH
#undef NBD_CMD_TRIM
#undef NBD_CMD_WRITE_ZEROES

enum {
	KERNEL_FLAG_HAS_FLAGS = NBD_FLAG_HAS_FLAGS,
	KERNEL_FLAG_READ_ONLY = NBD_FLAG_READ_ONLY,
	KERNEL_FLAG_SEND_FLUSH = NBD_FLAG_SEND_FLUSH,
	KERNEL_FLAG_SEND_FUA = NBD_FLAG_SEND_FUA,
	KERNEL_FLAG_SEND_TRIM = NBD_FLAG_SEND_TRIM,
	KERNEL_FLAG_CAN_MULTI_CONN = NBD_FLAG_CAN_MULTI_CONN,
	KERNEL_CMD_FLAG_FUA = NBD_CMD_FLAG_FUA,
	KERNEL_REQUEST_MAGIC = NBD_REQUEST_MAGIC,
	KERNEL_REPLY_MAGIC = NBD_REPLY_MAGIC,
/* not in every header */
#ifdef NBD_FLAG_ROTATIONAL
	KERNEL_FLAG_ROTATIONAL = NBD_FLAG_ROTATIONAL,
#else
	KERNEL_FLAG_ROTATIONAL = 1 << 4,
#endif
#ifdef NBD_FLAG_SEND_WRITE_ZEROES
	KERNEL_FLAG_SEND_WRITE_ZEROES = NBD_FLAG_SEND_WRITE_ZEROES,
#else
	KERNEL_FLAG_SEND_WRITE_ZEROES = 1 << 6,
#endif
#ifdef NBD_CMD_FLAG_NO_HOLE
	KERNEL_CMD_FLAG_NO_HOLE = NBD_CMD_FLAG_NO_HOLE,
#else
	KERNEL_CMD_FLAG_NO_HOLE = 1 << 17,
#endif
};
#undef NBD_FLAG_HAS_FLAGS
#undef NBD_FLAG_READ_ONLY
#undef NBD_FLAG_SEND_FLUSH
#undef NBD_FLAG_SEND_FUA
#undef NBD_FLAG_SEND_TRIM
#undef NBD_FLAG_CAN_MULTI_CONN
#undef NBD_FLAG_ROTATIONAL
#undef NBD_FLAG_SEND_WRITE_ZEROES
#undef NBD_CMD_FLAG_FUA
#undef NBD_CMD_FLAG_NO_HOLE
#undef NBD_REQUEST_MAGIC

#include "proto/wire.h"

#include <string.h>

#include "../unit.h"

#define SAME(ours, kernels) \
	_Static_assert((uint64_t)(ours) == (uint64_t)(kernels), #ours " is not the kernel's")

SAME(NBD_CMD_READ, KERNEL_CMD_READ);
SAME(NBD_CMD_WRITE, KERNEL_CMD_WRITE);
SAME(NBD_CMD_DISC, KERNEL_CMD_DISC);
SAME(NBD_CMD_FLUSH, KERNEL_CMD_FLUSH);
SAME(NBD_CMD_TRIM, KERNEL_CMD_TRIM);
SAME(NBD_FLAG_HAS_FLAGS, KERNEL_FLAG_HAS_FLAGS);
SAME(NBD_FLAG_READ_ONLY, KERNEL_FLAG_READ_ONLY);
SAME(NBD_FLAG_SEND_FLUSH, KERNEL_FLAG_SEND_FLUSH);
SAME(NBD_FLAG_SEND_FUA, KERNEL_FLAG_SEND_FUA);
SAME(NBD_FLAG_ROTATIONAL, KERNEL_FLAG_ROTATIONAL);
SAME(NBD_FLAG_SEND_TRIM, KERNEL_FLAG_SEND_TRIM);
SAME(NBD_FLAG_SEND_WRITE_ZEROES, KERNEL_FLAG_SEND_WRITE_ZEROES);
SAME(NBD_FLAG_CAN_MULTI_CONN, KERNEL_FLAG_CAN_MULTI_CONN);
SAME(NBD_CMD_FLAG_FUA << 16, KERNEL_CMD_FLAG_FUA);
SAME(NBD_CMD_FLAG_NO_HOLE << 16, KERNEL_CMD_FLAG_NO_HOLE);
SAME(NBD_REQUEST_MAGIC, KERNEL_REQUEST_MAGIC);
SAME(NBD_SIMPLE_REPLY_MAGIC, KERNEL_REPLY_MAGIC);
SAME(WIRE_REQUEST_SIZE, sizeof(struct nbd_request));

/* The numbers of the specification, section by section. */
#define VALUE(name, number)         \
	{                           \
#name, name, number \
	}
static const struct {
	const char *name;
	uint64_t value;
	uint64_t specified;
} values[] = {
	/* "Oldstyle negotiation", "Newstyle negotiation", "Fixed newstyle negotiation" */
	VALUE(NBD_INIT_MAGIC, UINT64_C(0x4e42444d41474943)),
	VALUE(NBD_CLISERV_MAGIC, UINT64_C(0x420281861253)),
	VALUE(NBD_OPTS_MAGIC, UINT64_C(0x49484156454f5054)),
	VALUE(NBD_REP_MAGIC, UINT64_C(0x3e889045565a9)),
	/* "Request message", "Simple reply message", "Structured reply chunk message" */
	VALUE(NBD_REQUEST_MAGIC, 0x25609513),
	VALUE(NBD_SIMPLE_REPLY_MAGIC, 0x67446698),
	VALUE(NBD_STRUCTURED_REPLY_MAGIC, 0x668e33ef),
	VALUE(NBD_DEFAULT_PORT, 10809),
	VALUE(NBD_MAX_STRING, 4096),
	VALUE(NBD_MAX_BUFFER_SIZE, 33554432),
	/* "Handshake flags", "Client flags" */
	VALUE(NBD_FLAG_FIXED_NEWSTYLE, 1),
	VALUE(NBD_FLAG_NO_ZEROES, 2),
	VALUE(NBD_FLAG_C_FIXED_NEWSTYLE, 1),
	VALUE(NBD_FLAG_C_NO_ZEROES, 2),
	/* "Transmission flags" */
	VALUE(NBD_FLAG_HAS_FLAGS, 0x1),
	VALUE(NBD_FLAG_READ_ONLY, 0x2),
	VALUE(NBD_FLAG_SEND_FLUSH, 0x4),
	VALUE(NBD_FLAG_SEND_FUA, 0x8),
	VALUE(NBD_FLAG_ROTATIONAL, 0x10),
	VALUE(NBD_FLAG_SEND_TRIM, 0x20),
	VALUE(NBD_FLAG_SEND_WRITE_ZEROES, 0x40),
	VALUE(NBD_FLAG_SEND_DF, 0x80),
	VALUE(NBD_FLAG_CAN_MULTI_CONN, 0x100),
	VALUE(NBD_FLAG_SEND_RESIZE, 0x200),
	VALUE(NBD_FLAG_SEND_CACHE, 0x400),
	VALUE(NBD_FLAG_SEND_FAST_ZERO, 0x800),
	VALUE(NBD_FLAG_BLOCK_STATUS_PAYLOAD, 0x1000),
	/* "Option types" */
	VALUE(NBD_OPT_EXPORT_NAME, 1),
	VALUE(NBD_OPT_ABORT, 2),
	VALUE(NBD_OPT_LIST, 3),
	VALUE(NBD_OPT_PEEK_EXPORT, 4),
	VALUE(NBD_OPT_STARTTLS, 5),
	VALUE(NBD_OPT_INFO, 6),
	VALUE(NBD_OPT_GO, 7),
	VALUE(NBD_OPT_STRUCTURED_REPLY, 8),
	VALUE(NBD_OPT_LIST_META_CONTEXT, 9),
	VALUE(NBD_OPT_SET_META_CONTEXT, 10),
	/* "Option reply types" */
	VALUE(NBD_REP_ACK, 1),
	VALUE(NBD_REP_SERVER, 2),
	VALUE(NBD_REP_INFO, 3),
	VALUE(NBD_REP_META_CONTEXT, 4),
	VALUE(NBD_REP_ERR(0), 0x80000000),
	VALUE(NBD_REP_ERR_UNSUP, 0x80000001),
	VALUE(NBD_REP_ERR_POLICY, 0x80000002),
	VALUE(NBD_REP_ERR_INVALID, 0x80000003),
	VALUE(NBD_REP_ERR_PLATFORM, 0x80000004),
	VALUE(NBD_REP_ERR_TLS_REQD, 0x80000005),
	VALUE(NBD_REP_ERR_UNKNOWN, 0x80000006),
	VALUE(NBD_REP_ERR_SHUTDOWN, 0x80000007),
	VALUE(NBD_REP_ERR_BLOCK_SIZE_REQD, 0x80000008),
	VALUE(NBD_REP_ERR_TOO_BIG, 0x80000009),
	VALUE(NBD_REP_ERR_EXT_HEADER_REQD, 0x8000000a),
	/* NBD_REP_INFO */
	VALUE(NBD_INFO_EXPORT, 0),
	VALUE(NBD_INFO_NAME, 1),
	VALUE(NBD_INFO_DESCRIPTION, 2),
	VALUE(NBD_INFO_BLOCK_SIZE, 3),
	/* "Request types" */
	VALUE(NBD_CMD_READ, 0),
	VALUE(NBD_CMD_WRITE, 1),
	VALUE(NBD_CMD_DISC, 2),
	VALUE(NBD_CMD_FLUSH, 3),
	VALUE(NBD_CMD_TRIM, 4),
	VALUE(NBD_CMD_CACHE, 5),
	VALUE(NBD_CMD_WRITE_ZEROES, 6),
	VALUE(NBD_CMD_BLOCK_STATUS, 7),
	VALUE(NBD_CMD_RESIZE, 8),
	/* "Command flags" */
	VALUE(NBD_CMD_FLAG_FUA, 0x1),
	VALUE(NBD_CMD_FLAG_NO_HOLE, 0x2),
	VALUE(NBD_CMD_FLAG_DF, 0x4),
	VALUE(NBD_CMD_FLAG_REQ_ONE, 0x8),
	VALUE(NBD_CMD_FLAG_FAST_ZERO, 0x10),
	/* "Structured reply flags", "Structured reply types" */
	VALUE(NBD_REPLY_FLAG_DONE, 1),
	VALUE(NBD_REPLY_ERR(0), 0x8000),
	VALUE(NBD_REPLY_TYPE_NONE, 0),
	VALUE(NBD_REPLY_TYPE_OFFSET_DATA, 1),
	VALUE(NBD_REPLY_TYPE_OFFSET_HOLE, 2),
	VALUE(NBD_REPLY_TYPE_BLOCK_STATUS, 5),
	VALUE(NBD_REPLY_TYPE_ERROR, 0x8001),
	VALUE(NBD_REPLY_TYPE_ERROR_OFFSET, 0x8002),
	/* "base:allocation metadata context" */
	VALUE(NBD_STATE_HOLE, 1),
	VALUE(NBD_STATE_ZERO, 2),
	VALUE(NBD_STATE_DIRTY, 1),
	/* "Error values" */
	VALUE(NBD_SUCCESS, 0),
	VALUE(NBD_EPERM, 1),
	VALUE(NBD_EIO, 5),
	VALUE(NBD_ENOMEM, 12),
	VALUE(NBD_EINVAL, 22),
	VALUE(NBD_ENOSPC, 28),
	VALUE(NBD_EOVERFLOW, 75),
	VALUE(NBD_ENOTSUP, 95),
	VALUE(NBD_ESHUTDOWN, 108),
	/* layouts, added up field by field */
	VALUE(WIRE_GREETING_SIZE, 8 + 8),
	VALUE(WIRE_HANDSHAKE_FLAGS_SIZE, 2),
	VALUE(WIRE_CLIENT_FLAGS_SIZE, 4),
	VALUE(WIRE_OPTION_SIZE, 8 + 4 + 4),
	VALUE(WIRE_REPLY_SIZE, 8 + 4 + 4 + 4),
	VALUE(WIRE_INFO_TYPE_SIZE, 2),
	VALUE(WIRE_INFO_EXPORT_SIZE, 2 + 8 + 2),
	VALUE(WIRE_INFO_BLOCK_SIZE_SIZE, 2 + 4 + 4 + 4),
	VALUE(WIRE_EXPORT_NAME_REPLY_SIZE, 8 + 2),
	VALUE(WIRE_EXPORT_NAME_ZEROES, 124),
	VALUE(WIRE_REQUEST_SIZE, 4 + 2 + 2 + 8 + 8 + 4),
};
#define COUNT(table) ((int)(sizeof(table) / sizeof((table)[0])))

START_TEST(values_are_those_of_the_specification)
{
	ck_assert_msg(values[_i].value == values[_i].specified, "%s is 0x%llx, not 0x%llx",
		      values[_i].name, (unsigned long long)values[_i].value,
		      (unsigned long long)values[_i].specified);
}
END_TEST

/* The magic numbers are text, but for two. */
START_TEST(magic_numbers_are_text)
{
	uint8_t buf[16];
	struct bytes_writer w;

	bytes_write_init(&w, buf, sizeof(buf));
	bytes_put_u64(&w, NBD_INIT_MAGIC);
	bytes_put_u64(&w, NBD_OPTS_MAGIC);
	ck_assert_mem_eq(buf, "NBDMAGICIHAVEOPT", sizeof(buf));
}
END_TEST

static const struct {
	uint32_t value;
	const char *name;
} option_names[] = {
	{ 1, "NBD_OPT_EXPORT_NAME" },
	{ 2, "NBD_OPT_ABORT" },
	{ 3, "NBD_OPT_LIST" },
	{ 4, "NBD_OPT_PEEK_EXPORT" },
	{ 5, "NBD_OPT_STARTTLS" },
	{ 6, "NBD_OPT_INFO" },
	{ 7, "NBD_OPT_GO" },
	{ 8, "NBD_OPT_STRUCTURED_REPLY" },
	{ 9, "NBD_OPT_LIST_META_CONTEXT" },
	{ 10, "NBD_OPT_SET_META_CONTEXT" },
	{ 0, NULL },
	{ 11, NULL },
	{ 0x80000001, NULL },
	{ UINT32_MAX, NULL },
}, reply_names[] = {
	{ 1, "NBD_REP_ACK" },
	{ 2, "NBD_REP_SERVER" },
	{ 3, "NBD_REP_INFO" },
	{ 4, "NBD_REP_META_CONTEXT" },
	{ 0x80000001, "NBD_REP_ERR_UNSUP" },
	{ 0x80000002, "NBD_REP_ERR_POLICY" },
	{ 0x80000003, "NBD_REP_ERR_INVALID" },
	{ 0x80000004, "NBD_REP_ERR_PLATFORM" },
	{ 0x80000005, "NBD_REP_ERR_TLS_REQD" },
	{ 0x80000006, "NBD_REP_ERR_UNKNOWN" },
	{ 0x80000007, "NBD_REP_ERR_SHUTDOWN" },
	{ 0x80000008, "NBD_REP_ERR_BLOCK_SIZE_REQD" },
	{ 0x80000009, "NBD_REP_ERR_TOO_BIG" },
	{ 0x8000000a, "NBD_REP_ERR_EXT_HEADER_REQD" },
	{ 0, NULL },
	{ 5, NULL },
	{ 0x80000000, NULL },
	{ 0x8000000b, NULL },
	{ UINT32_MAX, NULL },
}, flag_names[] = {
	{ 0, "HAS_FLAGS" },
	{ 1, "READ_ONLY" },
	{ 2, "SEND_FLUSH" },
	{ 3, "SEND_FUA" },
	{ 4, "ROTATIONAL" },
	{ 5, "SEND_TRIM" },
	{ 6, "SEND_WRITE_ZEROES" },
	{ 7, "SEND_DF" },
	{ 8, "CAN_MULTI_CONN" },
	{ 9, "SEND_RESIZE" },
	{ 10, "SEND_CACHE" },
	{ 11, "SEND_FAST_ZERO" },
	{ 12, "BLOCK_STATUS_PAYLOAD" },
	{ 13, NULL },
	{ 14, NULL },
	{ 15, NULL },
	{ 16, NULL },
	{ 32, NULL },
	{ UINT32_MAX, NULL },
};

static void same_name(uint32_t value, const char *name, const char *expected)
{
	ck_assert_msg(expected ? name && !strcmp(name, expected) : !name, "%u is called %s, not %s",
		      value, name ? name : "nothing", expected ? expected : "nothing");
}

START_TEST(names)
{
	for (int i = 0; i < COUNT(option_names); i++)
		same_name(option_names[i].value, wire_option_name(option_names[i].value),
			  option_names[i].name);
	for (int i = 0; i < COUNT(reply_names); i++)
		same_name(reply_names[i].value, wire_reply_name(reply_names[i].value),
			  reply_names[i].name);
	for (int i = 0; i < COUNT(flag_names); i++)
		same_name(flag_names[i].value, wire_flag_name(flag_names[i].value),
			  flag_names[i].name);
}
END_TEST

START_TEST(option_header)
{
	uint8_t buf[WIRE_OPTION_SIZE];
	struct bytes_writer w;

	bytes_write_init(&w, buf, sizeof(buf));
	wire_put_option(&w, NBD_OPT_GO, 0x01020304);
	ck_assert(!w.bad);
	ck_assert_uint_eq(w.len, sizeof(buf));
	ck_assert_mem_eq(buf, "IHAVEOPT\0\0\0\7\1\2\3\4", sizeof(buf));
	wire_put_option(&w, NBD_OPT_ABORT, 0);
	ck_assert(w.bad);
}
END_TEST

START_TEST(reply_header)
{
	static const uint8_t buf[] = "\x00\x03\xe8\x89\x04\x55\x65\xa9\0\0\0\7\x80\0\0\1\1\2\3\4";
	struct bytes_reader r;
	struct wire_reply h;

	bytes_read_init(&r, buf, WIRE_REPLY_SIZE);
	wire_get_reply(&r, &h);
	ck_assert(!r.bad);
	ck_assert_uint_eq(r.left, 0);
	ck_assert_uint_eq(h.magic, NBD_REP_MAGIC);
	ck_assert_uint_eq(h.option, NBD_OPT_GO);
	ck_assert_uint_eq(h.type, NBD_REP_ERR_UNSUP);
	ck_assert_uint_eq(h.length, 0x01020304);

	bytes_read_init(&r, buf, WIRE_REPLY_SIZE - 1);
	wire_get_reply(&r, &h);
	ck_assert(r.bad);
	ck_assert_uint_eq(h.length, 0);
}
END_TEST

START_TEST(request_header)
{
	uint8_t buf[WIRE_REQUEST_SIZE];
	struct bytes_writer w;

	bytes_write_init(&w, buf, sizeof(buf));
	wire_put_request(&w, 0x0102, 0x0304, UINT64_C(0x1112131415161718),
			 UINT64_C(0x2122232425262728), 0x31323334);
	ck_assert(!w.bad);
	ck_assert_uint_eq(w.len, sizeof(buf));
	ck_assert_mem_eq(buf,
			 "\x25\x60\x95\x13\1\2\3\4\x11\x12\x13\x14\x15\x16\x17\x18"
			 "\x21\x22\x23\x24\x25\x26\x27\x28\x31\x32\x33\x34",
			 sizeof(buf));
}
END_TEST

START_TEST(simple_reply_header)
{
	static const uint8_t buf[] = "\x67\x44\x66\x98\0\0\0\x16\1\2\3\4\5\6\7\x08";
	struct wire_simple_reply h;
	struct bytes_reader r;

	bytes_read_init(&r, buf, WIRE_SIMPLE_REPLY_SIZE);
	wire_get_simple_reply(&r, &h);
	ck_assert(!r.bad);
	ck_assert_uint_eq(r.left, 0);
	ck_assert_uint_eq(h.magic, NBD_SIMPLE_REPLY_MAGIC);
	ck_assert_uint_eq(h.error, NBD_EINVAL);
	ck_assert_uint_eq(h.cookie, UINT64_C(0x0102030405060708));
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("wire");
	TCase *t = tcase_create("wire");

	tcase_add_loop_test(t, values_are_those_of_the_specification, 0, COUNT(values));
	tcase_add_test(t, magic_numbers_are_text);
	tcase_add_test(t, names);
	tcase_add_test(t, option_header);
	tcase_add_test(t, reply_header);
	tcase_add_test(t, request_header);
	tcase_add_test(t, simple_reply_header);
	suite_add_tcase(s, t);
	return s;
}
