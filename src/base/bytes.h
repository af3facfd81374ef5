/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * bytes: big-endian numbers read from and written to a buffer, never past its end. A cursor asked
 * for more than it has turns bad and stays bad: a bad reader returns zeros, a bad writer writes
 * nothing. So a whole message is decoded first and checked once. No allocation and no I/O.
 */
#ifndef NBD_ATTACH_BYTES_H
#define NBD_ATTACH_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bytes_reader {
	const uint8_t *data;
	size_t left;
	bool bad;
};

struct bytes_writer {
	uint8_t *data;
	size_t cap;
	size_t len;
	bool bad;
};

void bytes_read_init(struct bytes_reader *r, const void *data, size_t len);
uint16_t bytes_get_u16(struct bytes_reader *r);
uint32_t bytes_get_u32(struct bytes_reader *r);
uint64_t bytes_get_u64(struct bytes_reader *r);

void bytes_write_init(struct bytes_writer *w, void *data, size_t cap);
void bytes_put_u16(struct bytes_writer *w, uint16_t v);
void bytes_put_u32(struct bytes_writer *w, uint32_t v);
void bytes_put_u64(struct bytes_writer *w, uint64_t v);
void bytes_put(struct bytes_writer *w, const void *data, size_t len);

#endif
