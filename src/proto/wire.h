/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * wire: the constants of the NBD protocol under the names of its specification ("The NBD
 * protocol", section "Values"), their texts, and the fixed headers as they are on the wire. It
 * knows layouts and no conversations: neg and transmission know the order of messages. No
 * allocation and no I/O.
 *
 * <linux/nbd.h> defines some of the same names: a file that needs the kernel's header does not
 * include this one. The unit test compares the values.
 */
#ifndef NBD_ATTACH_WIRE_H
#define NBD_ATTACH_WIRE_H

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"

/* "Handshake": the server's greeting, and the numbers before options and their replies. */
#define NBD_INIT_MAGIC    UINT64_C(0x4e42444d41474943) /* "NBDMAGIC" */
#define NBD_CLISERV_MAGIC UINT64_C(0x0000420281861253) /* oldstyle */
#define NBD_OPTS_MAGIC    UINT64_C(0x49484156454f5054) /* "IHAVEOPT" */
#define NBD_REP_MAGIC     UINT64_C(0x0003e889045565a9)

/* "Request message" and the two kinds of reply. */
#define NBD_REQUEST_MAGIC          UINT32_C(0x25609513)
#define NBD_SIMPLE_REPLY_MAGIC     UINT32_C(0x67446698)
#define NBD_STRUCTURED_REPLY_MAGIC UINT32_C(0x668e33ef)

#define NBD_DEFAULT_PORT    10809
/* "Conventions": strings are UTF-8 of at most 4096 bytes. */
#define NBD_MAX_STRING      4096
/* "Size constraints": largest payload for a server that does not give one. */
#define NBD_MAX_BUFFER_SIZE (UINT32_C(32) * 1024 * 1024)

/* "Handshake flags" and "Client flags" */
enum {
	NBD_FLAG_FIXED_NEWSTYLE = 1 << 0,
	NBD_FLAG_NO_ZEROES = 1 << 1,
	NBD_FLAG_C_FIXED_NEWSTYLE = 1 << 0,
	NBD_FLAG_C_NO_ZEROES = 1 << 1,
};

/* "Transmission flags" */
enum {
	NBD_FLAG_HAS_FLAGS = 1 << 0,
	NBD_FLAG_READ_ONLY = 1 << 1,
	NBD_FLAG_SEND_FLUSH = 1 << 2,
	NBD_FLAG_SEND_FUA = 1 << 3,
	NBD_FLAG_ROTATIONAL = 1 << 4,
	NBD_FLAG_SEND_TRIM = 1 << 5,
	NBD_FLAG_SEND_WRITE_ZEROES = 1 << 6,
	NBD_FLAG_SEND_DF = 1 << 7,
	/* Bit 8 of qemu 3.0 means SEND_CACHE (fixed in 3.1); its connections share no cache. */
	NBD_FLAG_CAN_MULTI_CONN = 1 << 8,
	NBD_FLAG_SEND_RESIZE = 1 << 9,
	NBD_FLAG_SEND_CACHE = 1 << 10,
	NBD_FLAG_SEND_FAST_ZERO = 1 << 11,
	NBD_FLAG_BLOCK_STATUS_PAYLOAD = 1 << 12,
};

/* "Option types" */
enum {
	NBD_OPT_EXPORT_NAME = 1,
	NBD_OPT_ABORT = 2,
	NBD_OPT_LIST = 3,
	NBD_OPT_PEEK_EXPORT = 4, /* withdrawn */
	NBD_OPT_STARTTLS = 5,
	NBD_OPT_INFO = 6,
	NBD_OPT_GO = 7,
	NBD_OPT_STRUCTURED_REPLY = 8,
	NBD_OPT_LIST_META_CONTEXT = 9,
	NBD_OPT_SET_META_CONTEXT = 10,
};

/* "Option reply types" */
#define NBD_REP_ERR(value)          (UINT32_C(1) << 31 | (value))
#define NBD_REP_ACK                 UINT32_C(1)
#define NBD_REP_SERVER              UINT32_C(2)
#define NBD_REP_INFO                UINT32_C(3)
#define NBD_REP_META_CONTEXT        UINT32_C(4)
#define NBD_REP_ERR_UNSUP           NBD_REP_ERR(1)
#define NBD_REP_ERR_POLICY          NBD_REP_ERR(2)
#define NBD_REP_ERR_INVALID         NBD_REP_ERR(3)
#define NBD_REP_ERR_PLATFORM        NBD_REP_ERR(4)
#define NBD_REP_ERR_TLS_REQD        NBD_REP_ERR(5)
#define NBD_REP_ERR_UNKNOWN         NBD_REP_ERR(6)
#define NBD_REP_ERR_SHUTDOWN        NBD_REP_ERR(7)
#define NBD_REP_ERR_BLOCK_SIZE_REQD NBD_REP_ERR(8)
#define NBD_REP_ERR_TOO_BIG         NBD_REP_ERR(9)
#define NBD_REP_ERR_EXT_HEADER_REQD NBD_REP_ERR(10)

/* Information types of NBD_REP_INFO */
enum {
	NBD_INFO_EXPORT = 0,
	NBD_INFO_NAME = 1,
	NBD_INFO_DESCRIPTION = 2,
	NBD_INFO_BLOCK_SIZE = 3,
};

/* "Request types" */
enum {
	NBD_CMD_READ = 0,
	NBD_CMD_WRITE = 1,
	NBD_CMD_DISC = 2,
	NBD_CMD_FLUSH = 3,
	NBD_CMD_TRIM = 4,
	NBD_CMD_CACHE = 5,
	NBD_CMD_WRITE_ZEROES = 6,
	NBD_CMD_BLOCK_STATUS = 7,
	NBD_CMD_RESIZE = 8,
};

/* "Command flags", as they are on the wire; the kernel keeps FUA 16 bits higher */
enum {
	NBD_CMD_FLAG_FUA = 1 << 0,
	NBD_CMD_FLAG_NO_HOLE = 1 << 1,
	NBD_CMD_FLAG_DF = 1 << 2,
	NBD_CMD_FLAG_REQ_ONE = 1 << 3,
	NBD_CMD_FLAG_FAST_ZERO = 1 << 4,
};

/* "Structured reply flags" and "Structured reply types" */
enum {
	NBD_REPLY_FLAG_DONE = 1 << 0,
};
#define NBD_REPLY_ERR(value) (1 << 15 | (value))
enum {
	NBD_REPLY_TYPE_NONE = 0,
	NBD_REPLY_TYPE_OFFSET_DATA = 1,
	NBD_REPLY_TYPE_OFFSET_HOLE = 2,
	NBD_REPLY_TYPE_BLOCK_STATUS = 5,
	NBD_REPLY_TYPE_ERROR = NBD_REPLY_ERR(1),
	NBD_REPLY_TYPE_ERROR_OFFSET = NBD_REPLY_ERR(2),
};

/* Extent flags of "base:allocation", and of qemu's "qemu:dirty-bitmap" */
enum {
	NBD_STATE_HOLE = 1 << 0,
	NBD_STATE_ZERO = 1 << 1,
	NBD_STATE_DIRTY = 1 << 0,
};

/* "Error values": numbers of the protocol, whatever this machine's errno says */
enum {
	NBD_SUCCESS = 0,
	NBD_EPERM = 1,
	NBD_EIO = 5,
	NBD_ENOMEM = 12,
	NBD_EINVAL = 22,
	NBD_ENOSPC = 28,
	NBD_EOVERFLOW = 75,
	NBD_ENOTSUP = 95,
	NBD_ESHUTDOWN = 108,
};

/* Lengths on the wire, bytes */
enum {
	WIRE_GREETING_SIZE = 16, /* both magic numbers */
	WIRE_HANDSHAKE_FLAGS_SIZE = 2,
	WIRE_CLIENT_FLAGS_SIZE = 4,
	WIRE_OPTION_SIZE = 16, /* header */
	WIRE_REPLY_SIZE = 20,  /* header */
	WIRE_INFO_TYPE_SIZE = 2,
	WIRE_INFO_EXPORT_SIZE = 12,     /* includes the type */
	WIRE_INFO_BLOCK_SIZE_SIZE = 14, /* includes the type */
	WIRE_EXPORT_NAME_REPLY_SIZE = 10,
	WIRE_EXPORT_NAME_ZEROES = 124,
	WIRE_REQUEST_SIZE = 28,
	WIRE_SIMPLE_REPLY_SIZE = 16,
	WIRE_STRUCTURED_REPLY_SIZE = 20, /* header; its beginning is like a simple one */
};

struct wire_reply {
	uint64_t magic;
	uint32_t option;
	uint32_t type;
	uint32_t length;
};

/* "Simple reply message" */
struct wire_simple_reply {
	uint32_t magic;
	uint32_t error;
	uint64_t cookie;
};

void wire_put_option(struct bytes_writer *w, uint32_t option, uint32_t length);
void wire_get_reply(struct bytes_reader *r, struct wire_reply *h);
/* A request without payload ("Request message"), for example NBD_CMD_DISC. */
void wire_put_request(struct bytes_writer *w, uint16_t flags, uint16_t type, uint64_t cookie,
		      uint64_t offset, uint32_t length);
void wire_get_simple_reply(struct bytes_reader *r, struct wire_simple_reply *h);

/* "NBD_OPT_GO", "NBD_REP_ERR_POLICY", "CAN_MULTI_CONN"; NULL for a value without a name. */
const char *wire_option_name(uint32_t option);
const char *wire_reply_name(uint32_t type);
/* The name of the transmission flag with this bit, 0..15; NULL for a bit without a name. */
const char *wire_flag_name(unsigned bit);

#endif
