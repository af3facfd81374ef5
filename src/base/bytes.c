/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "base/bytes.h"

#include <string.h>

void bytes_read_init(struct bytes_reader *r, const void *data, size_t len)
{
	r->data = data;
	r->left = len;
	r->bad = false;
}

static uint64_t get_number(struct bytes_reader *r, size_t len)
{
	uint64_t v = 0;

	if (r->bad || r->left < len) {
		r->bad = true;
		return 0;
	}
	for (size_t i = 0; i < len; i++)
		v = v << 8 | r->data[i];
	r->data += len;
	r->left -= len;
	return v;
}

uint16_t bytes_get_u16(struct bytes_reader *r)
{
	return (uint16_t)get_number(r, 2);
}

uint32_t bytes_get_u32(struct bytes_reader *r)
{
	return (uint32_t)get_number(r, 4);
}

uint64_t bytes_get_u64(struct bytes_reader *r)
{
	return get_number(r, 8);
}

void bytes_write_init(struct bytes_writer *w, void *data, size_t cap)
{
	w->data = data;
	w->cap = cap;
	w->len = 0;
	w->bad = false;
}

void bytes_put(struct bytes_writer *w, const void *data, size_t len)
{
	if (w->bad || w->cap - w->len < len) {
		w->bad = true;
		return;
	}
	if (len)
		memcpy(w->data + w->len, data, len);
	w->len += len;
}

static void put_number(struct bytes_writer *w, uint64_t v, size_t len)
{
	uint8_t be[8];

	for (size_t i = 0; i < len; i++)
		be[i] = (uint8_t)(v >> (8 * (len - 1 - i)));
	bytes_put(w, be, len);
}

void bytes_put_u16(struct bytes_writer *w, uint16_t v)
{
	put_number(w, v, 2);
}

void bytes_put_u32(struct bytes_writer *w, uint32_t v)
{
	put_number(w, v, 4);
}

void bytes_put_u64(struct bytes_writer *w, uint64_t v)
{
	put_number(w, v, 8);
}
