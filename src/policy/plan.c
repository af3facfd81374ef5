/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "policy/plan.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "policy/settings.h"
#include "proto/wire.h"

/* The flags that drivers/block/nbd.c acts upon; it cannot use the others (DF, SEND_CACHE, ...). */
static const uint16_t kernel_flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_READ_ONLY | NBD_FLAG_SEND_FLUSH |
				     NBD_FLAG_SEND_FUA | NBD_FLAG_ROTATIONAL | NBD_FLAG_SEND_TRIM |
				     NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_CAN_MULTI_CONN;

enum {
	BACKOFF_MIN_MS = 100,
	BACKOFF_MAX_MS = 2000,
	BACKOFF_SILENT_MS = 5000,
	RECORD_MAX = 16384,       /* bytes */
	RECORDS_PER_MS_MAX = 500, /* more than any processor encrypts */
	RENEWAL_MIN_MS = 100,
	RENEWAL_MAX_MS = 60000,
};

static uint32_t lesser(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static int plan_block_size(uint32_t wanted, const struct export *x, const struct plan_kernel *k,
			   struct plan *p, struct err *e)
{
	uint32_t min = x->has_block_size ? x->block_min : 1;
	uint32_t smallest = min < PLAN_BLOCK_SIZE_MIN ? PLAN_BLOCK_SIZE_MIN : min;
	uint32_t bs = wanted ? wanted : smallest;

	if (min > k->page_size)
		return err_set(
			e, ERR_FAILED, EOPNOTSUPP,
			"the server wants blocks of %u bytes at least and the kernel takes %u at "
			"most; the server has to allow smaller ones",
			min, k->page_size);
	if (bs < PLAN_BLOCK_SIZE_MIN || bs > k->page_size || bs & (bs - 1))
		return err_set(e, ERR_USAGE, EINVAL,
			       "block size %u: a power of two from %u to %u is needed", bs,
			       PLAN_BLOCK_SIZE_MIN, k->page_size);
	if (bs < min)
		return err_set(e, ERR_USAGE, EINVAL,
			       "block size %u: the server wants blocks of %u bytes at least", bs,
			       min);
	if (x->size % bs) {
		bool smaller_will_do = !(x->size % smallest);

		return err_set(
			e, smaller_will_do ? ERR_USAGE : ERR_FAILED, EINVAL,
			"the export's size of %llu bytes is not a multiple of the block size "
			"of %u: its last %llu bytes could not be reached; %s",
			(unsigned long long)x->size, bs, (unsigned long long)(x->size % bs),
			smaller_will_do ? "use a smaller one (-b)" :
					  "have the server pad it to whole blocks");
	}
	p->block_size = bs;
	return 0;
}

static int plan_max_sectors(const struct export *x, const struct plan_kernel *k, struct plan *p,
			    struct err *e)
{
	uint32_t max = x->has_block_size ? x->payload_max : NBD_MAX_BUFFER_SIZE;
	uint32_t page_kb = k->page_size / 1024;

	if (max < k->page_size)
		return err_set(e, ERR_FAILED, EOPNOTSUPP,
			       "the server takes %u bytes in one request at most and the kernel "
			       "cannot be held below a page of %u; raise the server's maximum",
			       max, k->page_size);
	p->max_sectors_kb = lesser(max / 1024 / page_kb * page_kb, PLAN_MAX_SECTORS_KB);
	return 0;
}

uint16_t plan_kernel_flags(const struct export *x)
{
	/* "NBD_FLAG_HAS_FLAGS: MUST always be 1": without it the others mean nothing. */
	if (!(x->flags & NBD_FLAG_HAS_FLAGS))
		return x->flags & NBD_FLAG_READ_ONLY;
	return x->flags & kernel_flags;
}

int plan_attach(const struct settings *s, unsigned connections, const struct export *x,
		const struct plan_kernel *k, struct plan *p, struct err *e)
{
	uint16_t flags;
	int ret;

	memset(p, 0, sizeof(*p));
	if (!x->size)
		return err_set(e, ERR_FAILED, ENODATA, "the export is empty (0 bytes)");
	if (x->size > INT64_MAX)
		return err_set(e, ERR_FAILED, EFBIG,
			       "the export has %llu bytes, more than the kernel can address",
			       (unsigned long long)x->size);
	ret = plan_block_size(s->block_size, x, k, p, e);
	if (ret)
		return ret;
	ret = plan_max_sectors(x, k, p, e);
	if (ret)
		return ret;

	flags = plan_kernel_flags(x);
	p->made_read_only = flags & NBD_FLAG_READ_ONLY && !s->read_only;
	flags |= NBD_FLAG_HAS_FLAGS;
	if (s->read_only)
		flags |= NBD_FLAG_READ_ONLY;
	/* Without this flag the driver takes one connection only; the user may have forced more. */
	if (connections > 1)
		flags |= NBD_FLAG_CAN_MULTI_CONN;
	p->multi_conn = connections > 1 && plan_kernel_flags(x) & NBD_FLAG_CAN_MULTI_CONN;
	p->server_flags = flags;
	p->write_back = flags & NBD_FLAG_SEND_FLUSH;
	p->rotational = flags & NBD_FLAG_ROTATIONAL;
	p->write_zeroes = flags & NBD_FLAG_SEND_WRITE_ZEROES;
	p->size = x->size;
	p->timeout_s = lesser(s->timeout_s, PLAN_TIMEOUT_MAX);
	p->dead_timeout_s = lesser(s->dead_timeout_s, PLAN_TIMEOUT_MAX);
	if (!s->supervision.none) {
		p->dead_timeout_s = PLAN_TIMEOUT_MAX;
		if (connections <= 1 && !settings_given(s, &s->timeout_s)) {
			p->timeout_s = 0;
			p->io_timeout_ms = PLAN_IO_TIMEOUT_MS;
		}
	}
	return 0;
}

int plan_replacement(const struct plan *p, uint64_t size, const char *name, const struct export *x,
		     uint64_t *grown, struct err *e)
{
	/* The kernel goes on sending these. */
	static const uint16_t sent = NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_TRIM |
				     NBD_FLAG_SEND_WRITE_ZEROES;
	bool writable = !(p->server_flags & NBD_FLAG_READ_ONLY);
	uint16_t missing = (uint16_t)(p->server_flags & sent & ~x->flags);
	char one[128], other[128];

	*grown = size;
	if (x->size < size)
		return err_set(
			e, ERR_REFUSED, ESTALE,
			"the export has shrunk from %llu to %llu bytes; it is not connected again "
			"until it has its size",
			(unsigned long long)size, (unsigned long long)x->size);
	if (name[0] && x->has_name && strcmp(name, x->name)) {
		text_escape(one, sizeof(one), name, strlen(name));
		text_escape(other, sizeof(other), x->name, strlen(x->name));
		return err_set(e, ERR_REFUSED, ESTALE,
			       "it is another export: its name was \"%s\" and is "
			       "\"%s\" now",
			       one, other);
	}
	if (p->multi_conn && !(plan_kernel_flags(x) & NBD_FLAG_CAN_MULTI_CONN))
		return err_set(e, ERR_REFUSED, ESTALE,
			       "the server does not permit several connections any more (it does "
			       "not say CAN_MULTI_CONN)");
	if (writable && x->flags & NBD_FLAG_READ_ONLY)
		return err_set(e, ERR_REFUSED, ESTALE, "the export has become read-only");
	if (writable && missing)
		return err_set(e, ERR_REFUSED, ESTALE,
			       "the server has no %s any more, which the "
			       "kernel goes on sending",
			       wire_flag_name((unsigned)__builtin_ctz(missing)));
	if (writable && x->flags & NBD_FLAG_SEND_FLUSH && !(p->server_flags & NBD_FLAG_SEND_FLUSH))
		return err_set(e, ERR_REFUSED, ESTALE,
			       "the server has a cache now, which the kernel would never flush");
	if (x->has_block_size && x->block_min > p->block_size)
		return err_set(e, ERR_REFUSED, ESTALE,
			       "the server wants blocks of %u bytes now, and the "
			       "device has %u",
			       x->block_min, p->block_size);
	if (x->has_block_size && x->payload_max / 1024 < p->max_sectors_kb)
		return err_set(e, ERR_REFUSED, ESTALE,
			       "the server takes %u bytes in one request now, and "
			       "the device sends up to %u KiB",
			       x->payload_max, p->max_sectors_kb);
	if (x->size <= INT64_MAX)
		*grown = x->size - x->size % p->block_size;
	return 0;
}

uint64_t plan_records(uint64_t requests, uint64_t bytes)
{
	return 2 * requests + bytes / RECORD_MAX;
}

unsigned plan_renewal_ms(uint64_t left)
{
	uint64_t ms = left / RECORDS_PER_MS_MAX;

	return ms < RENEWAL_MIN_MS ? RENEWAL_MIN_MS :
	       ms > RENEWAL_MAX_MS ? RENEWAL_MAX_MS :
				     (unsigned)ms;
}

unsigned plan_backoff_ms(unsigned attempt, bool silent, uint32_t random)
{
	uint32_t max = silent ? BACKOFF_SILENT_MS : BACKOFF_MAX_MS, limit = BACKOFF_MIN_MS;

	if (!attempt)
		return 0;
	while (--attempt && limit < max)
		limit *= 2;
	return random % (lesser(limit, max) + 1);
}

enum plan_verdict plan_multi(const struct plan_multi *m, const struct export *x,
			     enum plan_cache cache, char *why, size_t cap)
{
	bool flags = x->flags & NBD_FLAG_HAS_FLAGS;
	bool read_only = m->read_only || x->flags & NBD_FLAG_READ_ONLY;
	const char *text = "";
	enum plan_verdict verdict = PLAN_ALL;

	if (m->wanted <= 1) {
		verdict = PLAN_ONE;
	} else if (!flags || !(x->flags & NBD_FLAG_CAN_MULTI_CONN)) {
		verdict = m->force && read_only ? PLAN_ALL : PLAN_ONE;
		text = verdict == PLAN_ALL ?
			       "several connections are forced on a server that does not permit them; nothing is "
			       "written, so that there is nothing to flush" :
		       read_only ?
			       "the server does not permit several connections (it does not say CAN_MULTI_CONN); as the "
			       "export is only read, --force-multi-conn would be safe unless somebody else writes to it" :
			       "the server does not permit several connections (it does not say CAN_MULTI_CONN): what is "
			       "written through one might not be seen through another";
	} else if (read_only || x->flags & NBD_FLAG_SEND_CACHE) {
		verdict = PLAN_ALL;
	} else if (m->force) {
		text = "several connections are forced without a look whether the server means CACHE by "
		       "CAN_MULTI_CONN, as qemu 3.0 does, which corrupts data";
	} else if (cache == PLAN_CACHE_UNASKED) {
		verdict = PLAN_ASK;
	} else if (cache == PLAN_CACHE_SILENT) {
		verdict = PLAN_ONE;
		text = "it could not be found out whether the server means CACHE by CAN_MULTI_CONN, as qemu "
		       "3.0 does: it leaves NBD_CMD_CACHE unanswered, or takes no other connection";
	} else if (cache == PLAN_CACHE_DONE) {
		verdict = PLAN_ONE;
		text = "the server says CAN_MULTI_CONN but carries out NBD_CMD_CACHE unannounced, like qemu "
		       "3.0, which means CACHE by that bit: each connection has a cache of its own, and several "
		       "would corrupt data; update the server (qemu 3.1), or use --force-multi-conn if it is "
		       "certain that it is another one";
	}
	snprintf(why, cap, "%s", text);
	return verdict;
}

int plan_same_export(const struct export *a, const struct export *b, struct err *e)
{
	/* A value that a server leaves out is not the same as one that it gives. */
	const struct {
		const char *what;
		uint64_t a, b;
	} numbers[] = {
		{ "size", a->size, b->size },
		{ "transmission flags", a->flags, b->flags },
		{ "whether block sizes are given", a->has_block_size, b->has_block_size },
		{ "minimum block size", a->block_min, b->block_min },
		{ "preferred block size", a->block_pref, b->block_pref },
		{ "maximum payload", a->payload_max, b->payload_max },
	};
	char one[128], other[128];

	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		if (numbers[i].a != numbers[i].b)
			return err_set(e, ERR_MULTI, ESTALE, "%s: %llu and %llu", numbers[i].what,
				       (unsigned long long)numbers[i].a,
				       (unsigned long long)numbers[i].b);
	if (a->has_name && b->has_name && strcmp(a->name, b->name)) {
		text_escape(one, sizeof(one), a->name, strlen(a->name));
		text_escape(other, sizeof(other), b->name, strlen(b->name));
		return err_set(e, ERR_MULTI, ESTALE, "name: \"%s\" and \"%s\"", one, other);
	}
	return 0;
}

void plan_backend(const struct uri *where, char *buf)
{
	char full[URI_TEXT_MAX];

	uri_format(where, full, sizeof(full));
	text_cut_and_hash(buf, PLAN_BACKEND_MAX, full, '~', '\0');
}

void plan_backend_command(const char *args, unsigned argc, const char *export, char *buf)
{
	/* Printable, without '%' and the separators '+' and '#' */
	static const char plain[] = "!\"$&'()*,-./:;<=>?@[\\]^_`{|}~";
	char full[65536];
	struct text_writer w = { .dst = full, .cap = sizeof(full) };

	text_put(&w, "command:");
	for (unsigned i = 0; i < argc; i++) {
		text_put(&w, i ? "+" : "");
		text_put_percent(&w, args, plain);
		args += strlen(args) + 1;
	}
	text_put(&w, "#");
	text_put_percent(&w, export, plain);
	text_cut_and_hash(buf, PLAN_BACKEND_MAX, full, '~', '\0');
}

bool plan_device_is_stale(const struct plan *p, uint64_t write_zeroes_max, uint32_t minimum_io_size)
{
	return (write_zeroes_max && !p->write_zeroes) || minimum_io_size > p->block_size;
}
