/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#ifndef SAY_H
#define SAY_H

/* What a server says in a handshake, put together in memory. */

#include <stdint.h>
#include <string.h>

#include "base/bytes.h"
#include "proto/wire.h"

struct script {
	uint8_t data[65536];
	struct bytes_writer w;
};

static inline void say_greeting(struct script *s, uint16_t flags)
{
	bytes_write_init(&s->w, s->data, sizeof(s->data));
	bytes_put_u64(&s->w, NBD_INIT_MAGIC);
	bytes_put_u64(&s->w, NBD_OPTS_MAGIC);
	bytes_put_u16(&s->w, flags);
}

static inline void say_reply(struct script *s, uint32_t option, uint32_t type, const void *data,
			     size_t len)
{
	bytes_put_u64(&s->w, NBD_REP_MAGIC);
	bytes_put_u32(&s->w, option);
	bytes_put_u32(&s->w, type);
	bytes_put_u32(&s->w, (uint32_t)len);
	bytes_put(&s->w, data, len);
}

/* An export "a disk" of size_16 times 64 KiB. */
static inline void say_export(struct script *s, uint32_t option, uint8_t size_16, uint16_t flags)
{
	const uint8_t export[] = {
		0, 0, 0, 0, 0, 0, 0, size_16, 0, 0, (uint8_t)(flags >> 8), (uint8_t)flags,
	};
	static const uint8_t sizes[] = { 0, 3, 0, 0, 2, 0, 0, 0, 0x10, 0, 2, 0, 0, 0 };

	say_reply(s, option, NBD_REP_INFO, export, sizeof(export));
	say_reply(s, option, NBD_REP_INFO, sizes, sizeof(sizes));
	say_reply(s, option, NBD_REP_INFO, "\0\2a disk", 8);
	say_reply(s, option, NBD_REP_ACK, NULL, 0);
}

static inline void say_info(struct script *s, uint32_t option)
{
	say_export(s, option, 0x10, NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH);
}

/* All of a handshake with GO, without waiting to be asked. */
static inline void say_go(struct script *s)
{
	say_greeting(s, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	say_info(s, NBD_OPT_GO);
}

static inline void say_item(struct script *s, const char *name, const char *description)
{
	uint8_t data[256];
	struct bytes_writer w;

	bytes_write_init(&w, data, sizeof(data));
	bytes_put_u32(&w, (uint32_t)strlen(name));
	bytes_put(&w, name, strlen(name));
	bytes_put(&w, description, strlen(description));
	say_reply(s, NBD_OPT_LIST, NBD_REP_SERVER, data, w.len);
}

#endif
