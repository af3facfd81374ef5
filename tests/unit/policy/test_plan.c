/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
#include "policy/plan.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "../unit.h"
#include "policy/settings.h"
#include "proto/wire.h"

#define MIB (UINT64_C(1) << 20)
#define F   NBD_FLAG_HAS_FLAGS

/* What is wanted, and how many connections there are. */
struct request {
	bool read_only;
	uint32_t block_size, timeout_s, dead_timeout_s;
	unsigned connections;
	bool supervised, timeout_given;
};

static int attach(const struct request *rq, const struct export *x, const struct plan_kernel *k,
		  struct plan *p, struct err *e)
{
	static struct settings s;

	settings_init(&s);
	if (rq->timeout_given)
		ck_assert_int_eq(settings_set(&s, settings_find("timeout", SETTINGS_ATTACH), "",
					      "1", e),
				 0);
	s.read_only = rq->read_only;
	s.block_size = rq->block_size;
	s.timeout_s = rq->timeout_s;
	s.dead_timeout_s = rq->dead_timeout_s;
	s.supervision.none = !rq->supervised;
	return plan_attach(&s, rq->connections, x, k, p, e);
}

/*
 * One rule a row. What a row leaves out: pages of 4096 bytes, a server that says nothing of block
 * sizes and sets no flag, a user who wants nothing in particular; and what comes of it: blocks of
 * 512, requests of 4096 KiB, HAS_FLAGS alone, no time limits, all booleans false.
 */
static const struct row {
	const char *rule;
	uint64_t size;
	uint16_t flags;
	uint32_t min, max; /* NBD_INFO_BLOCK_SIZE; min 0: not sent */
	struct request rq;
	uint32_t page;

	int code;
	enum err_kind kind;
	const char *says[3];

	uint32_t block_size, max_sectors_kb, timeout_s, dead_timeout_s;
	uint16_t server_flags;
	bool write_back, rotational, write_zeroes, made_read_only;
} rows[] = {
	/* block size */
	{ "a silent server: 512", .size = MIB },
	{ "minimum 1 is raised to a sector", .size = MIB, .min = 1, .max = 33554432 },
	{ "minimum 256 is raised to a sector", .size = MIB, .min = 256, .max = 33554432 },
	{ "minimum 512", .size = MIB, .min = 512, .max = 33554432 },
	{ "minimum 1024", .size = MIB, .min = 1024, .max = 33554432, .block_size = 1024 },
	{ "minimum as large as a page", .size = MIB, .min = 4096, .max = 33554432,
	  .block_size = 4096 },
	{ "minimum above the page", .size = MIB, .min = 8192, .max = 33554432, .code = EOPNOTSUPP,
	  .kind = ERR_FAILED, .says = { "8192", "4096", "server has to allow" } },
	{ "minimum above the page is no matter of -b", .size = MIB, .min = 65536, .max = 33554432,
	  .rq.block_size = 4096, .code = EOPNOTSUPP, .kind = ERR_FAILED, .says = { "65536" } },
	{ "minimum 65536 with such pages", .size = MIB, .min = 65536, .max = 33554432,
	  .page = 65536, .block_size = 65536 },
	{ "minimum 8192 with large pages", .size = MIB, .min = 8192, .max = 33554432, .page = 65536,
	  .block_size = 8192 },
	{ "-b 512", .size = MIB, .rq.block_size = 512 },
	{ "-b 1024 and a silent server", .size = MIB, .rq.block_size = 1024, .block_size = 1024 },
	{ "-b 4096 above the minimum", .size = MIB, .min = 1, .max = 33554432,
	  .rq.block_size = 4096, .block_size = 4096 },
	{ "-b 2048 as the minimum", .size = MIB, .min = 2048, .max = 33554432,
	  .rq.block_size = 2048, .block_size = 2048 },
	{ "-b 16384 with large pages", .size = MIB, .rq.block_size = 16384, .page = 65536,
	  .block_size = 16384 },
	{ "-b 1", .size = MIB, .rq.block_size = 1, .code = EINVAL, .kind = ERR_USAGE,
	  .says = { "block size 1:", "from 512 to 4096" } },
	{ "-b 256", .size = MIB, .rq.block_size = 256, .code = EINVAL, .kind = ERR_USAGE,
	  .says = { "block size 256:" } },
	{ "-b 8192 is above the page", .size = MIB, .rq.block_size = 8192, .code = EINVAL,
	  .kind = ERR_USAGE, .says = { "block size 8192:", "from 512 to 4096" } },
	{ "-b 131072 is above a large page", .size = MIB, .rq.block_size = 131072, .page = 65536,
	  .code = EINVAL, .kind = ERR_USAGE, .says = { "from 512 to 65536" } },
	{ "-b 2^31", .size = MIB, .rq.block_size = UINT32_C(1) << 31, .code = EINVAL,
	  .kind = ERR_USAGE, .says = { "2147483648" } },
	{ "-b 513 is no power of two", .size = 513 * MIB, .rq.block_size = 513, .code = EINVAL,
	  .kind = ERR_USAGE, .says = { "power of two" } },
	{ "-b 3072 is no power of two", .size = 3 * MIB, .rq.block_size = 3072, .code = EINVAL,
	  .kind = ERR_USAGE, .says = { "power of two" } },
	{ "-b below the server's minimum", .size = MIB, .min = 4096, .max = 33554432,
	  .rq.block_size = 512, .code = EINVAL, .kind = ERR_USAGE,
	  .says = { "block size 512:", "4096 bytes at least" } },

	/* size and block size */
	{ "one sector", .size = 512 },
	{ "less than a sector", .size = 511, .code = EINVAL, .kind = ERR_FAILED,
	  .says = { "511 bytes", "last 511 bytes", "pad it" } },
	{ "one byte more", .size = MIB + 1, .code = EINVAL, .kind = ERR_FAILED,
	  .says = { "1048577 bytes", "last 1 bytes", "pad it" } },
	{ "no multiple of the minimum", .size = MIB + 512, .min = 4096, .max = 33554432,
	  .code = EINVAL, .kind = ERR_FAILED, .says = { "block size of 4096", "512", "pad it" } },
	{ "no multiple of -b, but of a sector", .size = MIB + 512, .rq.block_size = 4096,
	  .code = EINVAL, .kind = ERR_USAGE, .says = { "block size of 4096", "smaller one (-b)" } },
	{ "no multiple of -b, but of the minimum", .size = MIB + 1024, .min = 1024, .max = 33554432,
	  .rq.block_size = 4096, .code = EINVAL, .kind = ERR_USAGE,
	  .says = { "smaller one (-b)" } },
	{ "no multiple of -b nor of the minimum, though of a sector", .size = MIB + 512,
	  .min = 1024, .max = 33554432, .rq.block_size = 4096, .code = EINVAL, .kind = ERR_FAILED,
	  .says = { "pad it" } },
	{ "no multiple of -b nor of a sector", .size = MIB + 100, .rq.block_size = 4096,
	  .code = EINVAL, .kind = ERR_FAILED, .says = { "last 100 bytes", "pad it" } },
	{ "no multiple of -b 512", .size = MIB + 511, .rq.block_size = 512, .code = EINVAL,
	  .kind = ERR_FAILED, .says = { "last 511 bytes", "pad it" } },

	/* size alone, before everything else */
	{ "nothing", .size = 0, .code = ENODATA, .kind = ERR_FAILED, .says = { "empty" } },
	{ "nothing, and a bad -b", .size = 0, .rq.block_size = 3, .code = ENODATA,
	  .kind = ERR_FAILED, .says = { "empty" } },
	{ "2^63 - 512", .size = (UINT64_C(1) << 63) - 512 },
	{ "2^63 - 1 can be addressed, but is odd", .size = (UINT64_C(1) << 63) - 1, .code = EINVAL,
	  .kind = ERR_FAILED, .says = { "9223372036854775807" } },
	{ "2^63", .size = UINT64_C(1) << 63, .code = EFBIG, .kind = ERR_FAILED,
	  .says = { "9223372036854775808", "kernel" } },
	{ "2^64 - 1", .size = UINT64_MAX, .code = EFBIG, .kind = ERR_FAILED },

	/* the largest request */
	{ "a page", .size = MIB, .min = 1, .max = 4096, .max_sectors_kb = 4 },
	{ "less than a page", .size = MIB, .min = 1, .max = 4095, .code = EOPNOTSUPP,
	  .kind = ERR_FAILED, .says = { "4095 bytes in one request", "page of 4096", "raise" } },
	{ "a sector only", .size = MIB, .min = 512, .max = 512, .code = EOPNOTSUPP,
	  .kind = ERR_FAILED, .says = { "512 bytes in one request" } },
	{ "a byte short of two pages", .size = MIB, .min = 1, .max = 8191, .max_sectors_kb = 4 },
	{ "two pages", .size = MIB, .min = 1, .max = 8192, .max_sectors_kb = 8 },
	{ "an odd maximum is cut to pages", .size = MIB, .min = 1, .max = 100000,
	  .max_sectors_kb = 96 },
	{ "64 KiB", .size = MIB, .min = 1, .max = 65536, .max_sectors_kb = 64 },
	{ "a byte short of the limit", .size = MIB, .min = 1, .max = 4194303,
	  .max_sectors_kb = 4092 },
	{ "the limit", .size = MIB, .min = 1, .max = 4194304, .max_sectors_kb = 4096 },
	{ "above the limit", .size = MIB, .min = 1, .max = 33554432, .max_sectors_kb = 4096 },
	{ "without end", .size = MIB, .min = 1, .max = UINT32_MAX, .max_sectors_kb = 4096 },
	{ "large pages and a silent server", .size = MIB, .page = 65536, .max_sectors_kb = 4096 },
	{ "one large page", .size = MIB, .min = 1, .max = 65536, .page = 65536,
	  .max_sectors_kb = 64 },
	{ "less than a large page", .size = MIB, .min = 1, .max = 32768, .page = 65536,
	  .code = EOPNOTSUPP, .kind = ERR_FAILED, .says = { "32768", "page of 65536" } },
	{ "large pages are kept whole", .size = MIB, .min = 1, .max = 200000, .page = 65536,
	  .max_sectors_kb = 192 },

	/* flags */
	{ "HAS_FLAGS", .size = MIB, .flags = F },
	{ "no flags: HAS_FLAGS is for the kernel", .size = MIB, .flags = 0, .server_flags = F },
	{ "FLUSH is a cache", .size = MIB, .flags = F | NBD_FLAG_SEND_FLUSH,
	  .server_flags = F | NBD_FLAG_SEND_FLUSH, .write_back = true },
	{ "FUA without FLUSH is none", .size = MIB, .flags = F | NBD_FLAG_SEND_FUA,
	  .server_flags = F | NBD_FLAG_SEND_FUA },
	{ "ROTATIONAL", .size = MIB, .flags = F | NBD_FLAG_ROTATIONAL,
	  .server_flags = F | NBD_FLAG_ROTATIONAL, .rotational = true },
	{ "TRIM", .size = MIB, .flags = F | NBD_FLAG_SEND_TRIM,
	  .server_flags = F | NBD_FLAG_SEND_TRIM },
	{ "WRITE_ZEROES", .size = MIB, .flags = F | NBD_FLAG_SEND_WRITE_ZEROES,
	  .server_flags = F | NBD_FLAG_SEND_WRITE_ZEROES, .write_zeroes = true },
	{ "CAN_MULTI_CONN", .size = MIB, .flags = F | NBD_FLAG_CAN_MULTI_CONN,
	  .server_flags = F | NBD_FLAG_CAN_MULTI_CONN },
	{ "read-only by the server", .size = MIB, .flags = F | NBD_FLAG_READ_ONLY,
	  .server_flags = F | NBD_FLAG_READ_ONLY, .made_read_only = true },
	{ "read-only by the user", .size = MIB, .flags = F, .rq.read_only = true,
	  .server_flags = F | NBD_FLAG_READ_ONLY },
	{ "read-only by both", .size = MIB, .flags = F | NBD_FLAG_READ_ONLY, .rq.read_only = true,
	  .server_flags = F | NBD_FLAG_READ_ONLY },
	{ "what the driver cannot use is masked", .size = MIB,
	  .flags = F | NBD_FLAG_SEND_DF | NBD_FLAG_SEND_RESIZE | NBD_FLAG_SEND_CACHE |
		   NBD_FLAG_SEND_FAST_ZERO | NBD_FLAG_BLOCK_STATUS_PAYLOAD },
	{ "what nobody knows is masked", .size = MIB, .flags = F | 0xe000 },
	{ "all bits", .size = MIB, .flags = 0xffff, .server_flags = 0x017f, .write_back = true,
	  .rotational = true, .write_zeroes = true, .made_read_only = true },
	{ "all bits but HAS_FLAGS: READ_ONLY alone is believed", .size = MIB, .flags = 0xfffe,
	  .server_flags = F | NBD_FLAG_READ_ONLY, .made_read_only = true },
	{ "no HAS_FLAGS, not read-only: nothing is believed", .size = MIB, .flags = 0xfffc },
	{ "no HAS_FLAGS, read-only by the user", .size = MIB, .flags = NBD_FLAG_SEND_FLUSH,
	  .rq.read_only = true, .server_flags = F | NBD_FLAG_READ_ONLY },

	/* time limits */
	{ "both time limits", .size = MIB, .rq.timeout_s = 30, .rq.dead_timeout_s = 7,
	  .timeout_s = 30, .dead_timeout_s = 7 },
	{ "the largest", .size = MIB, .rq.timeout_s = PLAN_TIMEOUT_MAX,
	  .rq.dead_timeout_s = PLAN_TIMEOUT_MAX, .timeout_s = 300000000,
	  .dead_timeout_s = 300000000 },
	{ "one more than the largest", .size = MIB, .rq.timeout_s = PLAN_TIMEOUT_MAX + 1,
	  .rq.dead_timeout_s = 1, .timeout_s = 300000000, .dead_timeout_s = 1 },
	{ "for ever", .size = MIB, .rq.timeout_s = 1, .rq.dead_timeout_s = UINT32_MAX,
	  .timeout_s = 1, .dead_timeout_s = 300000000 },
};

static uint32_t otherwise(uint32_t v, uint32_t fallback)
{
	return v ? v : fallback;
}

START_TEST(rule)
{
	const struct row *r = &rows[_i];
	struct plan_kernel k = { .page_size = otherwise(r->page, 4096) };
	struct export x = { .size = r->size, .flags = r->flags };
	struct err e = { 0 };
	struct plan p;
	int ret;

	if (r->min) {
		x.has_block_size = true;
		x.block_min = r->min;
		x.block_pref = r->min < 4096 ? 4096 : r->min;
		x.payload_max = r->max;
	}
	memset(&p, 0xa5, sizeof(p));
	ret = attach(&r->rq, &x, &k, &p, &e);
	ck_assert_msg(ret == -r->code, "%s: returns %d (%s)", r->rule, ret, e.text);
	ck_assert_msg(e.kind == r->kind && e.code == r->code, "%s: kind %d, code %d", r->rule,
		      (int)e.kind, e.code);
	for (size_t i = 0; i < sizeof(r->says) / sizeof(r->says[0]) && r->says[i]; i++)
		ck_assert_msg(strstr(e.text, r->says[i]) != NULL, "%s: no \"%s\" in \"%s\"",
			      r->rule, r->says[i], e.text);
	if (r->code)
		return;
	ck_assert_uint_eq(p.size, r->size);
	ck_assert_uint_eq(p.block_size, otherwise(r->block_size, 512));
	ck_assert_uint_eq(p.max_sectors_kb, otherwise(r->max_sectors_kb, 4096));
	ck_assert_uint_eq(p.server_flags, otherwise(r->server_flags, F));
	ck_assert_uint_eq(p.timeout_s, r->timeout_s);
	ck_assert_uint_eq(p.dead_timeout_s, r->dead_timeout_s);
	ck_assert_int_eq(p.write_back, r->write_back);
	ck_assert_int_eq(p.rotational, r->rotational);
	ck_assert_int_eq(p.write_zeroes, r->write_zeroes);
	ck_assert_int_eq(p.made_read_only, r->made_read_only);
	ck_assert_str_eq(p.backend, "");
}
END_TEST

/* --- identifiers ------------------------------------------------------------------------------ */

#define BACKEND_SIZE (PLAN_BACKEND_MAX + 1)
#define ALL_OF_IT    4096

static void host(struct uri *u, const char *name, const char *export)
{
	struct err e;

	ck_assert_msg(!uri_from_host(u, name, export, &e), "%s", e.text);
}

START_TEST(backend_is_the_canonical_uri)
{
	static const struct {
		const char *host, *export, *backend;
	} table[] = {
		{ "server", "disk", "nbd://server:10809/disk" },
		{ "SERVER:10809", "disk", "nbd://server:10809/disk" },
		{ "192.0.2.1:1", "", "nbd://192.0.2.1:1/" },
		{ "[2001:db8::1]:7", "a", "nbd://[2001:db8::1]:7/a" },
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		char backend[BACKEND_SIZE];
		struct uri u;

		host(&u, table[i].host, table[i].export);
		plan_backend(&u, backend);
		ck_assert_str_eq(backend, table[i].backend);
	}
}
END_TEST

START_TEST(backend_is_equal_for_equal_exports_only)
{
	static const char *const same[] = {
		"nbd://server/disk",
		"NBD://Server:10809/disk",
		"nbd://server:10809/%64isk",
	};
	static const char *const others[] = {
		"nbd://server/dis",
		"nbd://server/diskk",
		"nbd://server/Disk",
		"nbd://server:1/disk",
		"nbd://servers/disk",
		"nbds://server/disk",
		"nbd+unix:///disk?socket=/server",
	};
	char first[BACKEND_SIZE], backend[BACKEND_SIZE];
	struct uri u;
	struct err e;

	for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++) {
		ck_assert_msg(!uri_parse(&u, same[i], &e), "%s", e.text);
		plan_backend(&u, i ? backend : first);
		ck_assert_str_eq(i ? backend : first, first);
	}
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		ck_assert_msg(!uri_parse(&u, others[i], &e), "%s", e.text);
		plan_backend(&u, backend);
		ck_assert_str_ne(backend, first);
	}
}
END_TEST

/* An export's name that makes the canonical URI on host "h" len bytes long, ending in last. */
static void long_backend(size_t len, char last, char *backend)
{
	char name[URI_EXPORT_MAX + 1];
	size_t n = len - strlen("nbd://h:10809/");
	struct uri u;

	memset(name, 'n', n);
	name[n - 1] = last;
	name[n] = '\0';
	host(&u, "h", name);
	memset(backend, 0x5a, BACKEND_SIZE);
	plan_backend(&u, backend);
}

START_TEST(backend_at_the_limit_is_whole)
{
	char backend[BACKEND_SIZE];

	long_backend(PLAN_BACKEND_MAX, 'z', backend);
	ck_assert_uint_eq(strlen(backend), PLAN_BACKEND_MAX);
	ck_assert_int_eq(backend[PLAN_BACKEND_MAX - 1], 'z');
	ck_assert_ptr_null(strchr(backend, '~'));
	long_backend(PLAN_BACKEND_MAX - 1, 'z', backend);
	ck_assert_uint_eq(strlen(backend), PLAN_BACKEND_MAX - 1);
	ck_assert_ptr_null(strchr(backend, '~'));
}
END_TEST

START_TEST(backend_above_the_limit_is_cut_and_hashed)
{
	static const size_t lengths[] = { PLAN_BACKEND_MAX + 1, PLAN_BACKEND_MAX + 17, ALL_OF_IT };
	char a[BACKEND_SIZE], b[BACKEND_SIZE], again[BACKEND_SIZE];

	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		const size_t cut = PLAN_BACKEND_MAX - 17;

		long_backend(lengths[i], 'a', a);
		long_backend(lengths[i], 'b', b);
		long_backend(lengths[i], 'a', again);
		ck_assert_uint_eq(strlen(a), PLAN_BACKEND_MAX);
		ck_assert_uint_eq(strlen(b), PLAN_BACKEND_MAX);
		ck_assert_str_eq(a, again);
		ck_assert_mem_eq(a, b, cut);
		ck_assert_int_eq(a[cut], '~');
		ck_assert_uint_eq(strspn(a + cut + 1, "0123456789abcdef"), 16);
		ck_assert_str_ne(a + cut, b + cut);
	}
}
END_TEST

START_TEST(backend_keeps_its_hash)
{
	/* Attached by one version, asked for again by the next: FNV-1a, 64 bits, of the whole. */
	char backend[BACKEND_SIZE], expected[18];
	const char *prefix = "nbd://h:10809/";
	uint64_t h = UINT64_C(14695981039346656037);

	for (size_t i = 0; i < 2000; i++) {
		char c = i < strlen(prefix) ? prefix[i] : i == 1999 ? 'x' : 'n';

		h = (h ^ (uint8_t)c) * UINT64_C(1099511628211);
	}
	snprintf(expected, sizeof(expected), "~%016llx", (unsigned long long)h);
	long_backend(2000, 'x', backend);
	ck_assert_str_eq(backend + PLAN_BACKEND_MAX - 17, expected);
}
END_TEST

START_TEST(backend_of_a_command)
{
	static const struct {
		const char *words;
		unsigned count;
		const char *export, *backend;
	} table[] = {
		{ "nbdkit\0", 1, "", "command:nbdkit#" },
		{ "nbdkit\0-s\0memory\0"
		  "1G\0",
		  4, "disk", "command:nbdkit+-s+memory+1G#disk" },
		{ "a+b\0", 1, "", "command:a%2Bb#" },
		{ "a\0b\0", 2, "", "command:a+b#" },
		{ "a#b\0", 1, "c", "command:a%23b#c" },
		{ "a\0", 1, "b#c", "command:a#b%23c" },
		{ "a%2Bb\0", 1, "", "command:a%252Bb#" },
		{ "a b\0\n\0\0", 3, "", "command:a%20b+%0A+#" },
		{ "\x7f\0\xc3\xa9\0\x01\0", 3, "\xff", "command:%7F+%C3%A9+%01#%FF" },
		{ "!\0~\0", 2, "/x", "command:!+~#/x" },
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		char backend[BACKEND_SIZE];

		plan_backend_command(table[i].words, table[i].count, table[i].export, backend);
		ck_assert_str_eq(backend, table[i].backend);
	}
}
END_TEST

START_TEST(backend_of_a_long_command_is_cut_and_hashed)
{
	char words[2][8192], export[ALL_OF_IT + 1], a[BACKEND_SIZE], b[BACKEND_SIZE];

	/* The longest there can be: all of it three times as long when encoded. */
	memset(words, ' ', sizeof(words));
	words[0][8191] = words[1][8191] = '\0';
	words[1][8190] = '#';
	memset(export, ' ', ALL_OF_IT);
	export[ALL_OF_IT] = '\0';
	plan_backend_command(words[0], 1, export, a);
	plan_backend_command(words[1], 1, export, b);
	ck_assert_uint_eq(strlen(a), PLAN_BACKEND_MAX);
	ck_assert_int_eq(strncmp(a, "command:%20%20", 14), 0);
	ck_assert_str_ne(a, b);
	plan_backend_command(words[0], 1, export + 1, b);
	ck_assert_str_ne(a, b);
	export[ALL_OF_IT - 1] = '!';
	plan_backend_command(words[0], 1, export, b);
	ck_assert_str_ne(a, b);
}
END_TEST

/* --- a device that was used before ------------------------------------------------------------ */

START_TEST(stale)
{
	static const struct {
		bool write_zeroes;
		uint32_t block_size;
		uint64_t write_zeroes_max;
		uint32_t minimum_io_size;
		bool stale;
	} table[] = {
		{ false, 512, 0, 512, false },      { false, 512, 0, 0, false },
		{ true, 512, 0, 512, false },       { true, 512, 4194304, 512, false },
		{ false, 512, 4194304, 512, true }, { false, 512, UINT64_C(1) << 32, 512, true },
		{ false, 512, 0, 4096, true },      { true, 512, 4194304, 1024, true },
		{ true, 4096, 0, 4096, false },     { true, 4096, 0, 512, false },
		{ false, 4096, 0, 4097, true },
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct plan p = {
			.write_zeroes = table[i].write_zeroes,
			.block_size = table[i].block_size,
		};

		ck_assert_msg(plan_device_is_stale(&p, table[i].write_zeroes_max,
						   table[i].minimum_io_size) == table[i].stale,
			      "row %zu", i);
	}
}
END_TEST

#define M     (F | NBD_FLAG_CAN_MULTI_CONN)
#define RO    NBD_FLAG_READ_ONLY
#define CACHE NBD_FLAG_SEND_CACHE

/* How many connections, by the first answer. */
static const struct {
	const char *rule;
	uint16_t flags;
	struct plan_multi m;
	enum plan_cache cache;
	enum plan_verdict verdict;
	const char *says; /* NULL: nothing */
} multis[] = {
	{ "one is wanted", M | CACHE, { .wanted = 1 }, 0, PLAN_ONE, NULL },
	{ "none is one", M | CACHE, { 0 }, 0, PLAN_ONE, NULL },
	{ "permitted, and surely not qemu 3.0", M | CACHE, { .wanted = 2 }, 0, PLAN_ALL, NULL },
	{ "not permitted", F | CACHE, { .wanted = 2 }, 0, PLAN_ONE, "does not permit" },
	{ "not permitted, not even by force",
	  F,
	  { .wanted = 2, .force = true },
	  0,
	  PLAN_ONE,
	  "does not permit" },
	{ "flags that are none permit nothing",
	  NBD_FLAG_CAN_MULTI_CONN | CACHE,
	  { .wanted = 2 },
	  0,
	  PLAN_ONE,
	  "does not permit" },
	{ "read-only and not permitted",
	  F | RO,
	  { .wanted = 2 },
	  0,
	  PLAN_ONE,
	  "--force-multi-conn" },
	{ "read-only by force", F | RO, { .wanted = 2, .force = true }, 0, PLAN_ALL, "forced" },
	{ "our own read-only by force",
	  F,
	  { .wanted = 2, .force = true, .read_only = true },
	  0,
	  PLAN_ALL,
	  "forced" },
	{ "read-only needs no guard", M | RO, { .wanted = 2 }, 0, PLAN_ALL, NULL },
	{ "nor does our own", M, { .wanted = 2, .read_only = true }, 0, PLAN_ALL, NULL },
	{ "it may be qemu 3.0", M, { .wanted = 2 }, PLAN_CACHE_UNASKED, PLAN_ASK, NULL },
	{ "it is qemu 3.0", M, { .wanted = 2 }, PLAN_CACHE_DONE, PLAN_ONE, "qemu 3.1" },
	{ "it is not", M, { .wanted = 2 }, PLAN_CACHE_REFUSED, PLAN_ALL, NULL },
	{ "nobody knows",
	  M,
	  { .wanted = 2 },
	  PLAN_CACHE_SILENT,
	  PLAN_ONE,
	  "could not be found out" },
	{ "the guard by force",
	  M,
	  { .wanted = 2, .force = true },
	  PLAN_CACHE_UNASKED,
	  PLAN_ALL,
	  "forced" },
};

START_TEST(multi)
{
	struct export x = { .size = MIB, .flags = multis[_i].flags };
	char why[512];

	ck_assert_msg(plan_multi(&multis[_i].m, &x, multis[_i].cache, why, sizeof(why)) ==
			      multis[_i].verdict,
		      "%s: %s", multis[_i].rule, why);
	if (multis[_i].says)
		ck_assert_msg(strstr(why, multis[_i].says) != NULL, "%s: %s", multis[_i].rule, why);
	else
		ck_assert_msg(!why[0], "%s: %s", multis[_i].rule, why);
}
END_TEST

/* Each difference is named, and a name only where there are two. */
START_TEST(same_export)
{
	const struct export a = {
		.size = MIB,
		.flags = M,
		.has_block_size = true,
		.block_min = 512,
		.block_pref = 4096,
		.payload_max = 65536,
		.has_name = true,
		.name = "a\nb",
		.description = "one",
	};
	struct export b[8];
	static const char *const says[8] = {
		"size: 1048576 and 2097152",
		"transmission flags: 257 and 1",
		"whether block sizes are given: 1 and 0",
		"minimum block size: 512 and 1",
		"preferred block size: 4096 and 8192",
		"maximum payload: 65536 and 131072",
		"name: \"a\\x0ab\" and \"c\"",
		NULL,
	};

	for (int i = 0; i < 8; i++)
		b[i] = a;
	b[0].size = 2 * MIB;
	b[1].flags = F;
	b[2].has_block_size = false;
	b[3].block_min = 1;
	b[4].block_pref = 8192;
	b[5].payload_max = 131072;
	strcpy(b[6].name, "c");
	b[7].has_name = false;
	b[7].name[0] = '\0';
	strcpy(b[7].description, "another");
	for (int i = 0; i < 8; i++) {
		struct err e = { 0 };
		int ret = plan_same_export(&a, &b[i], &e);

		ck_assert_int_eq(ret, says[i] ? -ESTALE : 0);
		if (says[i]) {
			ck_assert_str_eq(e.text, says[i]);
			ck_assert_int_eq(e.kind, ERR_MULTI);
		}
	}
}
END_TEST

/* The kernel takes several only with the flag. */
START_TEST(forced_connections_are_permitted_to_the_kernel)
{
	struct request rq = { .connections = 1 };
	struct export x = { .size = MIB, .flags = F | RO };
	struct plan_kernel k = { .page_size = 4096 };
	struct plan p;
	struct err e;

	ck_assert_int_eq(attach(&rq, &x, &k, &p, &e), 0);
	ck_assert_uint_eq(p.server_flags, F | RO);
	rq.connections = 2;
	ck_assert_int_eq(attach(&rq, &x, &k, &p, &e), 0);
	ck_assert_uint_eq(p.server_flags, M | RO);
	/* and the server of a replacement need not permit them either */
	ck_assert(!p.multi_conn);
}
END_TEST

START_TEST(permitted_connections_need_the_permission_again)
{
	struct request rq = { .connections = 2 };
	struct export x = { .size = MIB, .flags = M };
	struct plan_kernel k = { .page_size = 4096 };
	uint64_t grown;
	struct plan p;
	struct err e;

	ck_assert_int_eq(attach(&rq, &x, &k, &p, &e), 0);
	ck_assert(p.multi_conn);
	ck_assert_int_eq(plan_replacement(&p, MIB, "", &x, &grown, &e), 0);
	x.flags = F;
	ck_assert_int_eq(plan_replacement(&p, MIB, "", &x, &grown, &e), -ESTALE);
	ck_assert_int_eq(e.kind, ERR_REFUSED);
	ck_assert_ptr_nonnull(strstr(e.text, "CAN_MULTI_CONN"));
	/* without HAS_FLAGS it is not believed */
	x.flags = NBD_FLAG_CAN_MULTI_CONN;
	ck_assert_int_eq(plan_replacement(&p, MIB, "", &x, &grown, &e), -ESTALE);
	/* one connection never needs it */
	rq.connections = 1;
	x.flags = M;
	ck_assert_int_eq(attach(&rq, &x, &k, &p, &e), 0);
	ck_assert(!p.multi_conn);
	x.flags = F;
	ck_assert_int_eq(plan_replacement(&p, MIB, "", &x, &grown, &e), 0);
}
END_TEST

#define SENT \
	(NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES)

/* A device of 1 MiB, blocks of 512, requests up to 128 KiB, and who may serve it next. */
static const struct {
	const char *rule;
	uint16_t had; /* flags of the device */
	struct export x;
	const char *name; /* known so far */
	const char *says; /* NULL: it may */
	uint64_t grown;   /* 0: as it was */
} replacements[] = {
	{ "the same", F | SENT, { .size = MIB, .flags = F | SENT }, "", NULL, 0 },
	{ "more flags",
	  F,
	  { .size = MIB, .flags = F | NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_CACHE },
	  "",
	  NULL,
	  0 },
	{ "larger", F, { .size = 2 * MIB, .flags = F }, "", NULL, 2 * MIB },
	{ "larger, in blocks", F, { .size = MIB + 700, .flags = F }, "", NULL, MIB + 512 },
	{ "larger by less than a block", F, { .size = MIB + 7, .flags = F }, "", NULL, 0 },
	{ "smaller",
	  F,
	  { .size = MIB - 512, .flags = F },
	  "",
	  "shrunk from 1048576 to 1048064",
	  0 },
	{ "empty", F, { .size = 0, .flags = F }, "", "shrunk", 0 },
	{ "beyond the kernel", F, { .size = UINT64_MAX, .flags = F }, "", NULL, 0 },
	{ "another name",
	  F,
	  { .size = MIB, .flags = F, .has_name = true, .name = "b" },
	  "a",
	  "its name was \"a\" and is \"b\"",
	  0 },
	{ "the same name",
	  F,
	  { .size = MIB, .flags = F, .has_name = true, .name = "a" },
	  "a",
	  NULL,
	  0 },
	{ "no name any more", F, { .size = MIB, .flags = F }, "a", NULL, 0 },
	{ "a name that nobody knew",
	  F,
	  { .size = MIB, .flags = F, .has_name = true, .name = "b" },
	  "",
	  NULL,
	  0 },
	{ "read-only now", F, { .size = MIB, .flags = F | RO }, "", "has become read-only", 0 },
	{ "read-only as before", F | RO, { .size = MIB, .flags = F | RO }, "", NULL, 0 },
	{ "writable, for a device that is not",
	  F | RO | NBD_FLAG_SEND_FLUSH,
	  { .size = MIB, .flags = F },
	  "",
	  NULL,
	  0 },
	{ "no flush",
	  F | SENT,
	  { .size = MIB, .flags = F | (SENT & ~NBD_FLAG_SEND_FLUSH) },
	  "",
	  "has no SEND_FLUSH",
	  0 },
	{ "no trim",
	  F | SENT,
	  { .size = MIB, .flags = F | (SENT & ~NBD_FLAG_SEND_TRIM) },
	  "",
	  "has no SEND_TRIM",
	  0 },
	{ "a cache",
	  F,
	  { .size = MIB, .flags = F | NBD_FLAG_SEND_FLUSH },
	  "",
	  "has a cache now",
	  0 },
	{ "larger blocks",
	  F,
	  { .size = MIB,
	    .flags = F,
	    .has_block_size = true,
	    .block_min = 4096,
	    .payload_max = 1 << 20 },
	  "",
	  "wants blocks of 4096",
	  0 },
	{ "smaller blocks",
	  F,
	  { .size = MIB,
	    .flags = F,
	    .has_block_size = true,
	    .block_min = 1,
	    .payload_max = 1 << 20 },
	  "",
	  NULL,
	  0 },
	{ "blocks as large as the device's",
	  F,
	  { .size = MIB,
	    .flags = F,
	    .has_block_size = true,
	    .block_min = 512,
	    .payload_max = 1 << 20 },
	  "",
	  NULL,
	  0 },
	{ "requests as large as the device's",
	  F,
	  { .size = MIB,
	    .flags = F,
	    .has_block_size = true,
	    .block_min = 1,
	    .payload_max = 1 << 17 },
	  "",
	  NULL,
	  0 },
	{ "as large as the kernel can address",
	  F,
	  { .size = INT64_MAX, .flags = F },
	  "",
	  NULL,
	  INT64_MAX - 511 },
	{ "smaller requests",
	  F,
	  { .size = MIB, .flags = F, .has_block_size = true, .block_min = 1, .payload_max = 65536 },
	  "",
	  "takes 65536 bytes in one request",
	  0 },
};

START_TEST(replacement)
{
	const struct plan p = { .server_flags = replacements[_i].had,
				.block_size = 512,
				.max_sectors_kb = 128 };
	struct err e = { 0 };
	uint64_t grown = 1;
	int ret = plan_replacement(&p, MIB, replacements[_i].name, &replacements[_i].x, &grown, &e);

	ck_assert_msg(ret == (replacements[_i].says ? -ESTALE : 0), "%s: %d %s",
		      replacements[_i].rule, ret, e.text);
	if (ret)
		ck_assert_msg(strstr(e.text, replacements[_i].says) != NULL, "%s: %s",
			      replacements[_i].rule, e.text);
	else
		ck_assert_msg(grown == (replacements[_i].grown ? replacements[_i].grown : MIB),
			      "%s: %llu", replacements[_i].rule, (unsigned long long)grown);
}
END_TEST

START_TEST(backoff)
{
	static const struct {
		bool silent;
		unsigned limits[10];
	} servers[] = {
		{ false, { 0, 100, 200, 400, 800, 1600, 2000, 2000, 2000, 2000 } },
		{ true, { 0, 100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000 } },
	};

	for (unsigned i = 0; i < 20; i++) {
		unsigned most = 0, limit = servers[i / 10].limits[i % 10];

		for (uint32_t n = 0; n < 6000; n++) {
			unsigned ms = plan_backoff_ms(i % 10, servers[i / 10].silent, n);

			ck_assert_uint_le(ms, limit);
			most = ms > most ? ms : most;
		}
		ck_assert_uint_eq(most, limit);
	}
	ck_assert_uint_eq(plan_backoff_ms(UINT32_MAX, false, 2000), 2000);
	ck_assert_uint_eq(plan_backoff_ms(UINT32_MAX, true, 5000), 5000);
}
END_TEST

START_TEST(renewal)
{
	ck_assert_uint_eq(plan_records(0, 0), 0);
	ck_assert_uint_eq(plan_records(1, 4096), 2);
	ck_assert_uint_eq(plan_records(10, 1 << 20), 20 + 64);
	/* One gigabit/s of the smallest requests cannot pass the limit of GnuTLS unnoticed. */
	ck_assert_uint_lt(PLAN_RENEW_DEFAULT, 1 << 24);
	ck_assert_uint_ge(plan_renewal_ms(PLAN_RENEW_DEFAULT), 10000);
	ck_assert_uint_le(plan_renewal_ms(UINT64_MAX), 60000);
	ck_assert_uint_ge(plan_renewal_ms(0), 100);
	for (uint64_t left = 1; left < 1 << 24; left *= 2)
		ck_assert_uint_le(plan_renewal_ms(left) * (uint64_t)500, left + 500 * 100);
}
END_TEST

/* TIMEOUT, DEAD_CONN_TIMEOUT and queue/io_timeout go together. */
START_TEST(supervised)
{
	static const struct {
		struct request rq;
		uint32_t timeout_s, dead_s, io_ms;
	} table[] = {
		{ { .connections = 1, .timeout_s = 30, .dead_timeout_s = 5 }, 30, 5, 0 },
		{ { .connections = 1, .timeout_s = 30, .supervised = true }, 0, 300000000, 1000 },
		{ { .connections = 1, .timeout_s = 7, .supervised = true, .timeout_given = true },
		  7,
		  300000000,
		  0 },
		{ { .connections = 4, .timeout_s = 30, .supervised = true }, 30, 300000000, 0 },
	};
	struct export x = { .size = MIB, .flags = M };
	struct plan_kernel k = { .page_size = 4096 };

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct plan p;
		struct err e;

		ck_assert_int_eq(attach(&table[i].rq, &x, &k, &p, &e), 0);
		ck_assert_uint_eq(p.timeout_s, table[i].timeout_s);
		ck_assert_uint_eq(p.dead_timeout_s, table[i].dead_s);
		ck_assert_uint_eq(p.io_timeout_ms, table[i].io_ms);
	}
}
END_TEST

START_TEST(flags_of_the_kernel)
{
	static const struct {
		uint16_t said, used;
	} table[] = {
		{ 0xffff, 0x017f },
		{ 0x0001, 0x0001 },
		{ 0x0e81, 0x0001 },
		{ 0x0105, 0x0105 },
		/* without HAS_FLAGS nothing but READ_ONLY is believed */
		{ 0xfffe, 0x0002 },
		{ 0x0104, 0 },
		{ 0, 0 },
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		const struct export x = { .flags = table[i].said };

		ck_assert_uint_eq(plan_kernel_flags(&x), table[i].used);
	}
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("plan");
	TCase *t = tcase_create("attach");

	tcase_add_loop_test(t, rule, 0, (int)(sizeof(rows) / sizeof(rows[0])));
	suite_add_tcase(s, t);
	t = tcase_create("multi");
	tcase_add_loop_test(t, multi, 0, (int)(sizeof(multis) / sizeof(multis[0])));
	tcase_add_test(t, same_export);
	tcase_add_test(t, flags_of_the_kernel);
	tcase_add_test(t, forced_connections_are_permitted_to_the_kernel);
	tcase_add_test(t, permitted_connections_need_the_permission_again);
	suite_add_tcase(s, t);
	t = tcase_create("supervised");
	tcase_add_loop_test(t, replacement, 0,
			    (int)(sizeof(replacements) / sizeof(replacements[0])));
	tcase_add_test(t, backoff);
	tcase_add_test(t, renewal);
	tcase_add_test(t, supervised);
	suite_add_tcase(s, t);
	t = tcase_create("backend");
	tcase_add_test(t, backend_is_the_canonical_uri);
	tcase_add_test(t, backend_is_equal_for_equal_exports_only);
	tcase_add_test(t, backend_at_the_limit_is_whole);
	tcase_add_test(t, backend_above_the_limit_is_cut_and_hashed);
	tcase_add_test(t, backend_keeps_its_hash);
	tcase_add_test(t, backend_of_a_command);
	tcase_add_test(t, backend_of_a_long_command_is_cut_and_hashed);
	suite_add_tcase(s, t);
	t = tcase_create("stale");
	tcase_add_test(t, stale);
	suite_add_tcase(s, t);
	return s;
}
