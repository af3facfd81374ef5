/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * plan: what to tell the kernel, decided from what the user wants, what the server said and what
 * the kernel can do. The only place that decides; pure functions, memory only.
 */
#ifndef NBD_ATTACH_PLAN_H
#define NBD_ATTACH_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "proto/export.h"
#include "proto/uri.h"

/*
 * /sys/block/nbdN/backend is printed into one page by the kernel without a check (nbd.c,
 * backend_show): stay well below.
 */
#define PLAN_BACKEND_MAX 1023

enum {
	PLAN_BLOCK_SIZE_MIN = 512, /* a sector of the block layer */
	/*
	 * Requests up to this size where the server allows them: what kernel 7.2 has by default, and
	 * little enough to fit the send buffer of a socket as a whole.
	 */
	PLAN_MAX_SECTORS_KB = 4096,
	PLAN_TIMEOUT_DEFAULT = 30,
	PLAN_IO_TIMEOUT_MS = 1000,
	/* nbd.c multiplies the seconds by HZ: ten years are as good as for ever and do not overflow */
	PLAN_TIMEOUT_MAX = 300000000,
};

struct settings;

enum {
	PLAN_CONNECTIONS_MAX = 64,
	PLAN_CONNECTIONS_AUTO_MAX = 8,
};

/* How many connections the user wants. */
struct plan_multi {
	uint32_t wanted; /* at most; 0 is 1 */
	bool automatic;  /* fewer will do */
	bool force;      /* --force-multi-conn */
	bool read_only;  /* nothing will be written, whatever the export permits */
};

/* What the server said when asked for NBD_CMD_CACHE. */
enum plan_cache {
	PLAN_CACHE_UNASKED,
	PLAN_CACHE_REFUSED, /* or nothing that can be understood */
	PLAN_CACHE_DONE,
	PLAN_CACHE_SILENT, /* no answer in time, or nobody to be asked */
};

enum plan_verdict {
	PLAN_ONE, /* connection only */
	PLAN_ASK, /* for NBD_CMD_CACHE, on a connection that nobody else uses */
	PLAN_ALL, /* that are wanted */
};

struct plan_kernel {
	uint32_t page_size; /* bytes */
};

struct plan {
	uint64_t size;         /* bytes */
	uint32_t block_size;   /* logical, bytes */
	uint64_t server_flags; /* those that the kernel's driver knows */
	uint32_t timeout_s;
	uint32_t dead_timeout_s;
	uint32_t max_sectors_kb;
	uint32_t io_timeout_ms; /* for queue/io_timeout; 0: as the timeout sets it */
	bool write_back;        /* the server has a cache that wants flushing */
	bool rotational;
	bool write_zeroes;                  /* the server takes NBD_CMD_WRITE_ZEROES */
	bool made_read_only;                /* by the server, not by the user */
	char backend[PLAN_BACKEND_MAX + 1]; /* names the export, see plan_backend */
};

/*
 * Rules, in this order; each failure is ERR_FAILED, or ERR_USAGE where the user's -b is at fault, says what the
 * server wants and what to do:
 * - A size of 0 or above 2^63 - 1 is an error.
 * - Logical block size: block_size of the settings, else the server's minimum, raised to 512. A
 *   power of two from 512 to the page size, not below the server's minimum, a divisor of the size.
 * - Requests up to PLAN_MAX_SECTORS_KB, within the server's maximum payload ("Size constraints": 32 MiB when
 *   silent), in whole pages; a maximum below a page or a block is an error.
 * - Without NBD_FLAG_HAS_FLAGS no flag but READ_ONLY is believed.
 * - Read-only when asked for or when the server says so.
 * - Supervised: requests wait for a replacement as long as it takes. With one connection and no timeout given by the user
 *   there is none, but the driver looks at requests under way every second: it sends those of a lost connection
 *   again then (nbd.c, nbd_xmit_timeout), and leaves a slow server alone. With several the same
 *   look would end connections, so that they have the timeout.
 * connections are those that are there, which plan_multi has permitted. Fills all but backend.
 */
int plan_attach(const struct settings *s, unsigned connections, const struct export *x,
		const struct plan_kernel *k, struct plan *p, struct err *e);

/* Those of an export's flags that the kernel's driver acts upon, some of them in later versions only. */
uint16_t plan_kernel_flags(const struct export *x);

/*
 * Whether connections beyond the first may be used, by what the server answers on the first.
 * NBD_FLAG_CAN_MULTI_CONN permits it ("Transmission flags"), but qemu 3.0 means NBD_FLAG_SEND_CACHE by that bit and
 * keeps a cache for each connection: data written through one is not seen through the other. It is
 * told by its answer to NBD_CMD_CACHE, which it carries out without the bit that announces it; a server with
 * that bit is none. On an export that is only read there is nothing to flush, so that the guard is not needed, and
 * force replaces the permission. force also switches the guard off.
 * why (of cap bytes): a text for the user, "" when there is nothing to be said: what speaks against more than one, or
 * what was forced.
 */
enum plan_verdict plan_multi(const struct plan_multi *m, const struct export *x,
			     enum plan_cache cache, char *why, size_t cap);

/*
 * Whether two answers are about the same export: size, flags, block sizes and the canonical name, where both have one.
 * -ESTALE (ERR_MULTI): the text names the first difference, as "size: 1024 and 2048".
 */
int plan_same_export(const struct export *a, const struct export *b, struct err *e);

/*
 * Whether a connection to what x says may take the place of one that was lost, on a device that was
 * attached by p and has size bytes now: nothing that the kernel sends may be unknown to the server, nothing that the
 * kernel does not send may be needed, no data may be out of reach. name is the canonical name
 * known so far, or "". *larger: the export has grown, by whole blocks to *grown bytes. -ESTALE (ERR_REFUSED) with the difference.
 */
int plan_replacement(const struct plan *p, uint64_t size, const char *name, const struct export *x,
		     uint64_t *grown, struct err *e);

/*
 * How long to wait before attempt number attempt (from 0 on) to reach a server again, in milliseconds: none for the
 * first, then a random part of a limit that doubles from 100 ms to 5 s, so that many clients of
 * one server do not come at the same time. random is any number.
 */
unsigned plan_backoff_ms(unsigned attempt, uint32_t random);

/*
 * TLS: how many records requests with so many bytes of data have taken in either direction, at most: a record holds 16 KiB
 * (RFC 8446 section 5.1), and each request and each answer has one of its own for its head and one that is not full.
 */
uint64_t plan_records(uint64_t requests, uint64_t bytes);

/*
 * A connection to be replaced after so many records, before the server wants new keys, which the kernel does not do: GnuTLS
 * does after 2^24.
 */
#define PLAN_RENEW_DEFAULT 12000000

/* When to look again how many there are, milliseconds, where left are left: not before they can be used up. */
unsigned plan_renewal_ms(uint64_t left);

/*
 * The identifier that the kernel keeps with a device, so that no other export takes its place: the
 * canonical URI; a longer one is cut and ends in a hash of the whole. buf has PLAN_BACKEND_MAX + 1 bytes.
 */
void plan_backend(const struct uri *where, char *buf);

/* The same for a command, given as argc NUL-terminated strings: "command:" and its words, percent-encoded. */
void plan_backend_command(const char *args, unsigned argc, const char *export, char *buf);

/*
 * Whether an idle device still has limits of an earlier attachment that cannot be rewritten and do
 * not fit this plan (nbd.c never resets them): requests of a kind that the server does not know, or a minimum I/O
 * size above its block size. It has to be made anew then.
 */
bool plan_device_is_stale(const struct plan *p, uint64_t write_zeroes_max,
			  uint32_t minimum_io_size);

#endif
