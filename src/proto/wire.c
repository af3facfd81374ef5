/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "proto/wire.h"

struct name {
	uint32_t value;
	const char *text;
};

#define NAME(value)           \
	{                     \
		value, #value \
	}

static const struct name options[] = {
	NAME(NBD_OPT_EXPORT_NAME),
	NAME(NBD_OPT_ABORT),
	NAME(NBD_OPT_LIST),
	NAME(NBD_OPT_PEEK_EXPORT),
	NAME(NBD_OPT_STARTTLS),
	NAME(NBD_OPT_INFO),
	NAME(NBD_OPT_GO),
	NAME(NBD_OPT_STRUCTURED_REPLY),
	NAME(NBD_OPT_LIST_META_CONTEXT),
	NAME(NBD_OPT_SET_META_CONTEXT),
};

static const struct name replies[] = {
	NAME(NBD_REP_ACK),          NAME(NBD_REP_SERVER),
	NAME(NBD_REP_INFO),         NAME(NBD_REP_META_CONTEXT),
	NAME(NBD_REP_ERR_UNSUP),    NAME(NBD_REP_ERR_POLICY),
	NAME(NBD_REP_ERR_INVALID),  NAME(NBD_REP_ERR_PLATFORM),
	NAME(NBD_REP_ERR_TLS_REQD), NAME(NBD_REP_ERR_UNKNOWN),
	NAME(NBD_REP_ERR_SHUTDOWN), NAME(NBD_REP_ERR_BLOCK_SIZE_REQD),
	NAME(NBD_REP_ERR_TOO_BIG),  NAME(NBD_REP_ERR_EXT_HEADER_REQD),
};

static const struct name flags[] = {
	{ NBD_FLAG_HAS_FLAGS, "HAS_FLAGS" },
	{ NBD_FLAG_READ_ONLY, "READ_ONLY" },
	{ NBD_FLAG_SEND_FLUSH, "SEND_FLUSH" },
	{ NBD_FLAG_SEND_FUA, "SEND_FUA" },
	{ NBD_FLAG_ROTATIONAL, "ROTATIONAL" },
	{ NBD_FLAG_SEND_TRIM, "SEND_TRIM" },
	{ NBD_FLAG_SEND_WRITE_ZEROES, "SEND_WRITE_ZEROES" },
	{ NBD_FLAG_SEND_DF, "SEND_DF" },
	{ NBD_FLAG_CAN_MULTI_CONN, "CAN_MULTI_CONN" },
	{ NBD_FLAG_SEND_RESIZE, "SEND_RESIZE" },
	{ NBD_FLAG_SEND_CACHE, "SEND_CACHE" },
	{ NBD_FLAG_SEND_FAST_ZERO, "SEND_FAST_ZERO" },
	{ NBD_FLAG_BLOCK_STATUS_PAYLOAD, "BLOCK_STATUS_PAYLOAD" },
};

#define LOOK_UP(table, value) name_of_value(table, sizeof(table) / sizeof((table)[0]), value)

static const char *name_of_value(const struct name *table, size_t count, uint32_t value)
{
	for (size_t i = 0; i < count; i++)
		if (table[i].value == value)
			return table[i].text;
	return NULL;
}

const char *wire_option_name(uint32_t option)
{
	return LOOK_UP(options, option);
}

const char *wire_reply_name(uint32_t type)
{
	return LOOK_UP(replies, type);
}

const char *wire_flag_name(unsigned bit)
{
	return bit < 16 ? LOOK_UP(flags, UINT32_C(1) << bit) : NULL;
}

void wire_put_option(struct bytes_writer *w, uint32_t option, uint32_t length)
{
	bytes_put_u64(w, NBD_OPTS_MAGIC);
	bytes_put_u32(w, option);
	bytes_put_u32(w, length);
}

void wire_get_reply(struct bytes_reader *r, struct wire_reply *h)
{
	h->magic = bytes_get_u64(r);
	h->option = bytes_get_u32(r);
	h->type = bytes_get_u32(r);
	h->length = bytes_get_u32(r);
}

void wire_put_request(struct bytes_writer *w, uint16_t cmd_flags, uint16_t type, uint64_t cookie,
		      uint64_t offset, uint32_t length)
{
	bytes_put_u32(w, NBD_REQUEST_MAGIC);
	bytes_put_u16(w, cmd_flags);
	bytes_put_u16(w, type);
	bytes_put_u64(w, cookie);
	bytes_put_u64(w, offset);
	bytes_put_u32(w, length);
}

void wire_get_simple_reply(struct bytes_reader *r, struct wire_simple_reply *h)
{
	h->magic = bytes_get_u32(r);
	h->error = bytes_get_u32(r);
	h->cookie = bytes_get_u64(r);
}
