/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * plan: decides what to tell the kernel from what the user wants, what the server said and what
 * the kernel can do. Pure functions: no allocation, no I/O, no clock; a random number is an
 * argument.
 */
#ifndef NBD_ATTACH_PLAN_H
#define NBD_ATTACH_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "policy/limits.h"
#include "policy/settings.h"
#include "proto/export.h"
#include "proto/uri.h"

/*
 * Bytes without the NUL. The kernel prints /sys/block/nbdN/backend into one page without a check
 * (nbd.c, backend_show): this stays well below.
 */
#define PLAN_BACKEND_MAX 1023

enum {
	/*
	 * Largest request where the server allows it: the default of kernel 7.2, and small enough
	 * to fit the send buffer of a socket.
	 */
	PLAN_MAX_SECTORS_KB = 4096,
	PLAN_IO_TIMEOUT_MS = 1000,
};

/* The server's answer to NBD_CMD_CACHE. */
enum plan_cache {
	PLAN_CACHE_UNASKED,
	PLAN_CACHE_REFUSED, /* an error, or an answer that breaks the protocol */
	PLAN_CACHE_DONE,
	PLAN_CACHE_SILENT, /* no answer in time, or no connection to ask on */
};

enum plan_verdict {
	PLAN_ONE, /* one connection only */
	PLAN_ASK, /* NBD_CMD_CACHE has to be sent first, on a connection of its own */
	PLAN_ALL, /* all wanted connections */
};

struct plan_kernel {
	uint32_t page_size; /* bytes */
};

struct plan {
	uint64_t size;         /* bytes */
	uint32_t block_size;   /* logical block, bytes */
	uint64_t server_flags; /* transmission flags that the kernel's driver knows */
	uint32_t timeout_s;
	uint32_t dead_timeout_s;
	uint32_t max_sectors_kb;
	uint32_t io_timeout_ms; /* value of queue/io_timeout; 0: as timeout_s sets it */
	bool write_back;        /* the server has a cache that has to be flushed */
	bool rotational;
	bool write_zeroes;   /* the server takes NBD_CMD_WRITE_ZEROES */
	bool made_read_only; /* the server made it read-only, not the user */
	bool multi_conn;     /* several connections, which the server has permitted */
	char backend[PLAN_BACKEND_MAX + 1]; /* identifier of the export, see plan_backend */
};

/*
 * Fills *p, all but backend, by these rules in this order. A failure is ERR_FAILED, or ERR_USAGE
 * where the user's -b is at fault; its text says what the server wants and what to do.
 * - A size of 0 or above 2^63 - 1 is an error.
 * - Logical block size: block_size of the settings, else the server's minimum, raised to 512. It is
 *   a power of two from 512 to the page size, not below the server's minimum, and divides the
 *   size.
 * - Requests up to PLAN_MAX_SECTORS_KB, within the server's maximum payload ("Size constraints":
 *   32 MiB for a server that gives none), in whole pages. A maximum below a page or a block is an
 *   error.
 * - Without NBD_FLAG_HAS_FLAGS no flag but READ_ONLY is believed.
 * - Read-only when the user asks for it or the server says so.
 * - Supervised: requests wait for a replacement as long as it takes. With one connection and no
 *   timeout given by the user there is none, but the driver looks at requests under way every
 *   second: it sends those of a lost connection again (nbd.c, nbd_xmit_timeout) and leaves a slow
 *   server alone. With several connections the same look would end connections, so they have the
 *   timeout.
 * connections are those that were made, which plan_multi has permitted. Fills all but backend.
 */
int plan_attach(const struct settings *s, unsigned connections, const struct export *x,
		const struct plan_kernel *k, struct plan *p, struct err *e);

/* The flags of an export that the kernel's driver acts upon, some in later versions only. */
uint16_t plan_kernel_flags(const struct export *x);

/*
 * Decides whether connections beyond the first may be used, from the server's answers on the
 * first. NBD_FLAG_CAN_MULTI_CONN permits it ("Transmission flags"), but qemu 3.0 means
 * NBD_FLAG_SEND_CACHE by that bit and keeps a cache for each connection: data written through one
 * is not seen through the other. Its mark is that it carries out NBD_CMD_CACHE without the bit
 * that announces it; a server with that bit is not qemu 3.0. An export that is only read has
 * nothing to flush, so there the question is not needed and force replaces the permission. force
 * also skips the question.
 *
 * why (cap bytes): a text for the user, with what speaks against more than one connection or what
 * was forced; "" for nothing to say.
 */
enum plan_verdict plan_multi(const struct plan_multi *m, const struct export *x,
			     enum plan_cache cache, char *why, size_t cap);

/*
 * Whether two answers are about the same export: size, flags, block sizes, and the canonical name
 * where both have one. -ESTALE (ERR_MULTI): the text names the first difference, as "size: 1024
 * and 2048".
 */
int plan_same_export(const struct export *a, const struct export *b, struct err *e);

/*
 * Whether a connection to the export x may replace a lost one, on a device that was attached by p
 * and has size bytes now: the server has to know everything that the kernel sends, must not need
 * what the kernel does not send, must have all the data, and several connections need
 * NBD_FLAG_CAN_MULTI_CONN, unless the attach did without. name: the canonical name known so far, or
 * "". *grown: size that the device may have with this export, in whole blocks; size where it is
 * refused. -ESTALE (ERR_REFUSED): the text names the difference.
 */
int plan_replacement(const struct plan *p, uint64_t size, const char *name, const struct export *x,
		     uint64_t *grown, struct err *e);

/*
 * Pause before attempt number attempt (from 0 on) to reach a server again, ms: none before the
 * first, then a random part of a limit that doubles from 100 ms, so that the clients of one server
 * do not come all at the same time. The limit ends at 2 s, as a SYN every other second costs
 * nobody; where the server is silent, at 5 s. random is any number.
 */
unsigned plan_backoff_ms(unsigned attempt, bool silent, uint32_t random);

/*
 * Largest number of TLS records that requests with so many bytes of data have taken in either
 * direction. A record holds 16 KiB (RFC 8446 section 5.1); each request and each answer has one
 * record of its own for its header, and one that is not full.
 */
uint64_t plan_records(uint64_t requests, uint64_t bytes);

/*
 * Pause before the records are counted again, ms; left: records that remain. They cannot be used
 * up before.
 */
unsigned plan_renewal_ms(uint64_t left);

/*
 * Writes the identifier that the kernel keeps with a device, so that no other export takes its
 * place: the canonical URI, or where that is too long its beginning and a hash of the whole. buf
 * has PLAN_BACKEND_MAX + 1 bytes.
 */
void plan_backend(const struct uri *where, char *buf);

/*
 * The same for a command (args: argc NUL-terminated strings): "command:", its words and the
 * export, percent-encoded.
 */
void plan_backend_command(const char *args, unsigned argc, const char *export, char *buf);

/*
 * Whether an idle device has limits of an earlier attachment that cannot be rewritten (nbd.c never
 * resets them) and do not fit this plan: requests of a kind that the server does not know, or a
 * minimum I/O size above its block size. It has to be removed and made anew then.
 */
bool plan_device_is_stale(const struct plan *p, uint64_t write_zeroes_max,
			  uint32_t minimum_io_size);

#endif
