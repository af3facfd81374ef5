/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * Handshakes replayed. A case is what the server says, what the client must have said in between,
 * byte for byte, and how it ends. Each is driven as fast as neg asks, byte by byte, and is broken
 * off at each byte of both directions.
 */
#include "proto/neg.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../pieces.h"
#include "base/text.h"
#include "../unit.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* --- what is said ----------------------------------------------------------------------------- */

/* clang-format off */
/* What servers say. */
#define GREETING(flags) RAW("NBDMAGICIHAVEOPT"), U16(flags), TURN
#define REPLY(option, type, length)                                                               \
	RAW("\x00\x03\xe8\x89\x04\x55\x65\xa9"), U32(option), U32(type), U32(length)
#define ACK(option) REPLY(option, 1, 0)
#define ERROR(option, number, length) REPLY(option, 0x80000000 | (number), length)
#define INFO(option, info, length) REPLY(option, 3, 2 + (length)), U16(info)
#define INFO_EXPORT(option, size, flags) INFO(option, 0, 10), U64(size), U16(flags)
#define INFO_NAME(option, length) INFO(option, 1, length)
#define INFO_DESCRIPTION(option, length) INFO(option, 2, length)
#define INFO_BLOCK_SIZE(option, min, pref, max) INFO(option, 3, 12), U32(min), U32(pref), U32(max)
#define SERVER(name_length, more) REPLY(LIST, 2, 4 + (name_length) + (more)), U32(name_length)
#define CONTEXT(option, id, length) REPLY(option, 4, 4 + (length)), U32(id)
#define UNSUP(option) ERROR(option, 1, 0), TURN
#define DISK(option) INFO_EXPORT(option, 1048576, 0x105)
enum {
	EXPORT_NAME = 1,
	ABORT = 2,
	LIST = 3,
	STARTTLS = 5,
	ASK = 6,
	GO = 7,
	STRUCTURED = 8,
	LIST_CONTEXTS = 9,
	SET_CONTEXTS = 10,
};

/* What the client says. */
#define OPTION(option, length) RAW("IHAVEOPT"), U32(option), U32(length)
#define WANTED U16(4), U16(0), U16(1), U16(2), U16(3)
#define HELLO(flags, option)                                                                      \
	U32(flags), OPTION(option, 4 + 4 + 10), U32(4), RAW("disk"), WANTED, TURN
#define HELLO_LIST(flags) U32(flags), OPTION(LIST, 0), TURN
#define BY_NAME OPTION(EXPORT_NAME, 4), RAW("disk"), TURN
#define FAREWELL OPTION(ABORT, 0)
/* After NBD_OPT_INFO; without structured replies contexts are not asked for. */
#define MORE OPTION(STRUCTURED, 0), TURN, ASK_CONTEXTS, OPTION(LIST, 0), TURN, FAREWELL
#define MORE_OLD OPTION(STRUCTURED, 0), TURN, OPTION(LIST, 0), TURN, FAREWELL
#define ASK_CONTEXTS OPTION(LIST_CONTEXTS, 12), U32(4), RAW("disk"), U32(0), TURN
#define HELLO_QUERY(flags) U32(flags), OPTION(STRUCTURED, 0), TURN
#define WANT_ALLOCATION                                                                           \
	OPTION(SET_CONTEXTS, 4 + 4 + 4 + 4 + 15), U32(4), RAW("disk"), U32(1), U32(15),            \
		RAW("base:allocation"), TURN
#define ASK_FOR_TLS(flags) U32(flags), OPTION(STARTTLS, 0), TURN
#define ASK_INSIDE(option) OPTION(option, 4 + 4 + 10), U32(4), RAW("disk"), WANTED, TURN
/* clang-format on */

/* The stretch that the byte at this place belongs to. */
static size_t stretch(const struct bytes *b, size_t at)
{
	size_t i = 0;

	while (i < b->turn_count && at >= b->turns[i])
		i++;
	return i;
}

static size_t stretch_end(const struct bytes *b, size_t i)
{
	return i < b->turn_count ? b->turns[i] : b->len;
}

/* --- the cases -------------------------------------------------------------------------------- */

/* Bits of struct replay.got */
enum {
	TRANSMISSION = 1 << 0,
	OLD_OPTION = 1 << 1,
	BLOCK_SIZE = 1 << 2,
	NAME = 1 << 3,
	DESCRIPTION = 1 << 4,
	STRUCTURED_REPLIES = 1 << 5,
	CONTEXTS = 1 << 6, /* listed */
	LISTED = 1 << 7,
	UNLISTED = 1 << 8,
};

struct replay {
	const char *name;
	enum neg_goal goal;
	const char *export;   /* "disk" */
	size_t export_len;    /* a name of this many 'n' instead */
	bool tls;             /* required */
	bool secured;         /* TLS comes about, after the server's second stretch */
	const char *contexts; /* wanted, comma-separated */
	uint32_t ids[2];      /* numbers of the contexts */
	const struct piece *server;
	const struct piece *client;
	/* failures */
	enum err_kind kind; /* ERR_NONE: NEG_DONE */
	int code;
	const char *text[5];
	/* exports */
	unsigned got;
	uint64_t size;
	uint16_t flags;
	uint32_t min, pref, max;
	const struct piece *canonical, *description;
	const struct piece *items; /* name, NUL, description, NUL, and so on */
};

#define BREACH   .kind = ERR_PROTOCOL, .code = EPROTO
#define ITS_DISK .got = TRANSMISSION, .size = 1048576, .flags = 0x105

static const struct replay replays[] = {
	/* --- NBD_OPT_GO and NBD_OPT_INFO --- */
	{
		.name = "go, the least that is allowed",
		.server = PIECES(GREETING(3), DISK(GO), ACK(GO)),
		.client = PIECES(HELLO(3, GO)),
		ITS_DISK,
	},
	{
		.name = "go, every information",
		.server = PIECES(GREETING(3), DISK(GO), INFO_NAME(GO, 5), RAW("Disk1"),
				 INFO_DESCRIPTION(GO, 6), RAW("a disk"),
				 INFO_BLOCK_SIZE(GO, 512, 4096, 33554432), ACK(GO)),
		.client = PIECES(HELLO(3, GO)),
		.got = TRANSMISSION | NAME | DESCRIPTION | BLOCK_SIZE,
		.size = 1048576,
		.flags = 0x105,
		.min = 512,
		.pref = 4096,
		.max = 33554432,
		.canonical = PIECES(RAW("Disk1")),
		.description = PIECES(RAW("a disk")),
	},
	{
		.name = "go, every information the other way round",
		.server = PIECES(GREETING(3), INFO_BLOCK_SIZE(GO, 1, 1, 0xffffffff),
				 INFO_DESCRIPTION(GO, 6), RAW("a disk"), INFO_NAME(GO, 5),
				 RAW("Disk1"), INFO_EXPORT(GO, UINT64_MAX, 0xffff), ACK(GO)),
		.client = PIECES(HELLO(3, GO)),
		.got = TRANSMISSION | NAME | DESCRIPTION | BLOCK_SIZE,
		.size = UINT64_MAX,
		.flags = 0xffff,
		.min = 1,
		.pref = 1,
		.max = 0xffffffff,
		.canonical = PIECES(RAW("Disk1")),
		.description = PIECES(RAW("a disk")),
	},
	{
		.name = "go, the export in the middle, empty texts, size 0",
		.server = PIECES(GREETING(3), INFO_NAME(GO, 0), INFO_EXPORT(GO, 0, 0),
				 INFO_DESCRIPTION(GO, 0), INFO_BLOCK_SIZE(GO, 65536, 65536, 65536),
				 ACK(GO)),
		.client = PIECES(HELLO(3, GO)),
		.got = TRANSMISSION | NAME | DESCRIPTION | BLOCK_SIZE,
		.min = 65536,
		.pref = 65536,
		.max = 65536,
	},
	{
		.name = "go, no zeroes even where the server has them",
		.server = PIECES(GREETING(1), DISK(GO), ACK(GO)),
		.client = PIECES(HELLO(1, GO)),
		ITS_DISK,
	},
	{
		.name = "go, handshake flags of the future are not answered",
		.server = PIECES(GREETING(0xffff), DISK(GO), ACK(GO)),
		.client = PIECES(HELLO(3, GO)),
		ITS_DISK,
	},
	{
		.name = "go, the empty name",
		.export = "",
		.server = PIECES(GREETING(3), DISK(GO), ACK(GO)),
		.client = PIECES(U32(3), OPTION(GO, 14), U32(0), WANTED, TURN),
		ITS_DISK,
	},
	{
		.name = "go, the longest name",
		.export_len = 4096,
		.server = PIECES(GREETING(3), INFO_NAME(GO, 4096), FILL('N', 4096), DISK(GO),
				 ACK(GO)),
		.client =
			PIECES(U32(3), OPTION(GO, 4110), U32(4096), FILL('n', 4096), WANTED, TURN),
		.got = TRANSMISSION | NAME,
		.size = 1048576,
		.flags = 0x105,
		.canonical = PIECES(FILL('N', 4096)),
	},
	{
		.name = "info",
		.goal = NEG_GOAL_INFO,
		.server = PIECES(GREETING(3), DISK(ASK), INFO_BLOCK_SIZE(ASK, 512, 512, 65536),
				 ACK(ASK), TURN, UNSUP(STRUCTURED), ERROR(LIST, 2, 0)),
		.client = PIECES(HELLO(3, ASK), MORE_OLD),
		.got = BLOCK_SIZE,
		.size = 1048576,
		.flags = 0x105,
		.min = 512,
		.pref = 512,
		.max = 65536,
	},
	{
		.name = "go, informations of the future",
		.server = PIECES(GREETING(3), INFO(GO, 4, 0), DISK(GO), INFO(GO, 5, 1), FILL(1, 1),
				 INFO(GO, 0xffff, 4096), FILL(2, 4096), INFO(GO, 6, 4097),
				 FILL(3, 4097), INFO(GO, 7, 12289), FILL(4, 12289), ACK(GO)),
		.client = PIECES(HELLO(3, GO)),
		ITS_DISK,
	},
	{
		.name = "go, the longest reply",
		.server = PIECES(GREETING(3), DISK(GO), INFO(GO, 9, (1 << 20) - 2),
				 FILL(5, (1 << 20) - 2), ACK(GO)),
		.client = PIECES(HELLO(3, GO)),
		ITS_DISK,
	},
	{
		.name = "go, a description of the greatest length",
		.server = PIECES(GREETING(3), DISK(GO), INFO_DESCRIPTION(GO, 4096), FILL('d', 4096),
				 ACK(GO)),
		.client = PIECES(HELLO(3, GO)),
		.got = TRANSMISSION | DESCRIPTION,
		.size = 1048576,
		.flags = 0x105,
		.description = PIECES(FILL('d', 4096)),
	},
	{
		.name = "go, a description that is cut",
		.server = PIECES(GREETING(3), INFO_DESCRIPTION(GO, 9000), FILL('d', 4096),
				 FILL('e', 4904), DISK(GO), ACK(GO)),
		.client = PIECES(HELLO(3, GO)),
		.got = TRANSMISSION | DESCRIPTION,
		.size = 1048576,
		.flags = 0x105,
		.description = PIECES(FILL('d', 4096)),
	},
	{
		.name = "go, a description ends at its zero byte",
		.server = PIECES(GREETING(3), INFO_DESCRIPTION(GO, 5), RAW("ab\0cd"), DISK(GO),
				 ACK(GO)),
		.client = PIECES(HELLO(3, GO)),
		.got = TRANSMISSION | DESCRIPTION,
		.size = 1048576,
		.flags = 0x105,
		.description = PIECES(RAW("ab")),
	},
	{
		.name = "go, harmless duplicates",
		.server = PIECES(GREETING(3), DISK(GO), INFO_BLOCK_SIZE(GO, 1, 4096, 1048576),
				 INFO_NAME(GO, 1), RAW("x"), INFO_DESCRIPTION(GO, 1), RAW("x"),
				 DISK(GO), INFO_BLOCK_SIZE(GO, 1, 4096, 1048576), INFO_NAME(GO, 1),
				 RAW("x"), INFO_DESCRIPTION(GO, 1), RAW("x"), ACK(GO)),
		.client = PIECES(HELLO(3, GO)),
		.got = TRANSMISSION | NAME | DESCRIPTION | BLOCK_SIZE,
		.size = 1048576,
		.flags = 0x105,
		.min = 1,
		.pref = 4096,
		.max = 1048576,
		.canonical = PIECES(RAW("x")),
		.description = PIECES(RAW("x")),
	},
	{
		.name = "go, of two names the later, nothing left of the longer",
		.server = PIECES(GREETING(3), DISK(GO), INFO_NAME(GO, 4), RAW("long"),
				 INFO_NAME(GO, 1), RAW("x"), INFO_DESCRIPTION(GO, 4), RAW("long"),
				 INFO_DESCRIPTION(GO, 0), ACK(GO)),
		.client = PIECES(HELLO(3, GO)),
		.got = TRANSMISSION | NAME | DESCRIPTION,
		.size = 1048576,
		.flags = 0x105,
		.canonical = PIECES(RAW("x")),
	},
	{
		.name = "go, 256 informations",
		.server = PIECES(GREETING(3), TIMES(256, DISK(GO)), ACK(GO)),
		.client = PIECES(HELLO(3, GO)),
		ITS_DISK,
	},
	{
		.name = "go, 257 informations",
		.server = PIECES(GREETING(3), TIMES(256, DISK(GO)), REPLY(GO, 3, 12)),
		.client = PIECES(HELLO(3, GO)),
		BREACH,
		.text = { "more than 256 replies to NBD_OPT_GO" },
	},
	{
		.name = "go, 257 unknown informations",
		.server = PIECES(GREETING(3), TIMES(256, INFO(GO, 77, 0)), REPLY(GO, 3, 2)),
		.client = PIECES(HELLO(3, GO)),
		BREACH,
		.text = { "more than 256 replies to NBD_OPT_GO" },
	},
	/* --- servers without "fixed", or without NBD_OPT_GO --- */
	{
		.name = "unfixed newstyle",
		.server = PIECES(GREETING(0), U64(1048576), U16(0x105), FILL(0, 124)),
		.client = PIECES(U32(0), BY_NAME),
		.got = TRANSMISSION | OLD_OPTION,
		.size = 1048576,
		.flags = 0x105,
	},
	{
		.name = "unfixed newstyle, no zeroes",
		.server = PIECES(GREETING(2), U64(1048576), U16(0x105)),
		.client = PIECES(U32(2), BY_NAME),
		.got = TRANSMISSION | OLD_OPTION,
		.size = 1048576,
		.flags = 0x105,
	},
	{
		.name = "unfixed newstyle, zeroes that are none",
		.server = PIECES(GREETING(0), U64(UINT64_MAX), U16(0xffff), FILL(0xff, 124)),
		.client = PIECES(U32(0), BY_NAME),
		.got = TRANSMISSION | OLD_OPTION,
		.size = UINT64_MAX,
		.flags = 0xffff,
	},
	{
		.name = "unfixed newstyle, information is had by attaching",
		.goal = NEG_GOAL_INFO,
		.server = PIECES(GREETING(2), U64(1048576), U16(0x105)),
		.client = PIECES(U32(2), BY_NAME),
		.got = TRANSMISSION | OLD_OPTION,
		.size = 1048576,
		.flags = 0x105,
	},
	{
		.name = "unfixed newstyle, the empty name",
		.export = "",
		.server = PIECES(GREETING(2), U64(1048576), U16(0x105)),
		.client = PIECES(U32(2), OPTION(EXPORT_NAME, 0), TURN),
		.got = TRANSMISSION | OLD_OPTION,
		.size = 1048576,
		.flags = 0x105,
	},
	{
		.name = "unfixed newstyle, the longest name",
		.export_len = 4096,
		.server = PIECES(GREETING(0), U64(1048576), U16(0x105), FILL(0, 124)),
		.client = PIECES(U32(0), OPTION(EXPORT_NAME, 4096), FILL('n', 4096), TURN),
		.got = TRANSMISSION | OLD_OPTION,
		.size = 1048576,
		.flags = 0x105,
	},
	{
		.name = "unfixed newstyle cannot list",
		.goal = NEG_GOAL_LIST,
		.server = PIECES(GREETING(2)),
		.client = PIECES(U32(2)),
		.kind = ERR_REFUSED,
		.code = EOPNOTSUPP,
		.text = { "unfixed newstyle", "cannot list exports" },
	},
	{
		.name = "go is unknown, no zeroes",
		.server = PIECES(GREETING(3), UNSUP(GO), U64(1048576), U16(0x105)),
		.client = PIECES(HELLO(3, GO), BY_NAME),
		.got = TRANSMISSION | OLD_OPTION,
		.size = 1048576,
		.flags = 0x105,
	},
	{
		.name = "go is unknown, zeroes, a word about it",
		.server = PIECES(GREETING(1), ERROR(GO, 1, 3), RAW("eh?"), TURN, U64(1048576),
				 U16(0x105), FILL(0, 124)),
		.client = PIECES(HELLO(1, GO), BY_NAME),
		.got = TRANSMISSION | OLD_OPTION,
		.size = 1048576,
		.flags = 0x105,
	},
	{
		.name = "go is unknown, 512 bytes about it",
		.server = PIECES(GREETING(3), ERROR(GO, 1, 512), FILL('u', 512), TURN, U64(1048576),
				 U16(0x105)),
		.client = PIECES(HELLO(3, GO), BY_NAME),
		.got = TRANSMISSION | OLD_OPTION,
		.size = 1048576,
		.flags = 0x105,
	},
	{
		.name = "go is unknown, 513 bytes about it",
		.server = PIECES(GREETING(3), ERROR(GO, 1, 513), FILL('u', 513), TURN, U64(1048576),
				 U16(0x105)),
		.client = PIECES(HELLO(3, GO), BY_NAME),
		.got = TRANSMISSION | OLD_OPTION,
		.size = 1048576,
		.flags = 0x105,
	},
	{
		.name = "go is unknown, more about it than any buffer holds",
		.server = PIECES(GREETING(3), ERROR(GO, 1, 8193), FILL('u', 8193), TURN,
				 U64(1048576), U16(0x105)),
		.client = PIECES(HELLO(3, GO), BY_NAME),
		.got = TRANSMISSION | OLD_OPTION,
		.size = 1048576,
		.flags = 0x105,
	},
	{
		.name = "go is unknown, the longest name",
		.export_len = 4096,
		.server = PIECES(GREETING(3), UNSUP(GO), U64(1048576), U16(0x105)),
		.client = PIECES(U32(3), OPTION(GO, 4110), U32(4096), FILL('n', 4096), WANTED, TURN,
				 OPTION(EXPORT_NAME, 4096), FILL('n', 4096), TURN),
		.got = TRANSMISSION | OLD_OPTION,
		.size = 1048576,
		.flags = 0x105,
	},
	{
		.name = "go is unknown, what was said before does not count",
		.server = PIECES(GREETING(3), INFO_EXPORT(GO, 1, 1), INFO_NAME(GO, 3), RAW("old"),
				 INFO_DESCRIPTION(GO, 3), RAW("old"),
				 INFO_BLOCK_SIZE(GO, 512, 512, 512), UNSUP(GO), U64(1048576),
				 U16(0x105)),
		.client = PIECES(HELLO(3, GO), BY_NAME),
		.got = TRANSMISSION | OLD_OPTION,
		.size = 1048576,
		.flags = 0x105,
	},
	{
		.name = "info is unknown",
		.goal = NEG_GOAL_INFO,
		.server = PIECES(GREETING(3), ERROR(ASK, 1, 5), RAW("what?"), TURN, U64(1048576),
				 U16(0x105)),
		.client = PIECES(HELLO(3, ASK), BY_NAME),
		.got = TRANSMISSION | OLD_OPTION,
		.size = 1048576,
		.flags = 0x105,
	},
	{
		.name = "list is unknown",
		.goal = NEG_GOAL_LIST,
		.server = PIECES(GREETING(3), ERROR(LIST, 1, 0)),
		.client = PIECES(HELLO_LIST(3), FAREWELL),
		.kind = ERR_REFUSED,
		.code = EOPNOTSUPP,
		.text = { "NBD_REP_ERR_UNSUP to NBD_OPT_LIST", "does not know this option" },
	},
	/* --- refusals (each code: see below) --- */
	{
		.name = "refused with a text",
		.server = PIECES(GREETING(3), ERROR(GO, 6, 12), RAW("no such disk")),
		.client = PIECES(HELLO(3, GO), FAREWELL),
		.kind = ERR_REFUSED,
		.code = ENOENT,
		.text = { "export \"disk\"", "no such export", "it says: \"no such disk\"",
			  "NBD_REP_ERR_UNKNOWN to NBD_OPT_GO" },
	},
	{
		.name = "refused after all informations",
		.goal = NEG_GOAL_INFO,
		.server = PIECES(GREETING(3), DISK(ASK), INFO_BLOCK_SIZE(ASK, 512, 4096, 65536),
				 ERROR(ASK, 7, 0)),
		.client = PIECES(HELLO(3, ASK), FAREWELL),
		.kind = ERR_REFUSED,
		.code = ESHUTDOWN,
		.text = { "shutting down", "NBD_REP_ERR_SHUTDOWN to NBD_OPT_INFO" },
	},
	{
		.name = "refused with a text that would harm a terminal",
		.server = PIECES(GREETING(3), ERROR(GO, 2, 26),
				 RAW("a\x1b[2J\r\nb\xe2\x80\xae"
				     "c\xc2\x9b"
				     "d\xff"
				     "e\0f\\g\x7f"
				     "h\xe2\x81\xa6")),
		.client = PIECES(HELLO(3, GO), FAREWELL),
		.kind = ERR_REFUSED,
		.code = EACCES,
		.text = { "it says: \"a\\x1b[2J\\x0d\\x0ab\\xe2\\x80\\xaec\\xc2\\x9bd\\xffe\\x00"
			  "f\\\\g\\x7fh\\xe2\\x81\\xa6\"" },
	},
	{
		.name = "refused with the longest text that is shown whole",
		.server = PIECES(GREETING(3), ERROR(GO, 2, 511), FILL('t', 510), RAW("!")),
		.client = PIECES(HELLO(3, GO), FAREWELL),
		.kind = ERR_REFUSED,
		.code = EACCES,
		.text = { "tttttt!\"" },
	},
	{
		.name = "refused with a text one byte longer",
		.server = PIECES(GREETING(3), ERROR(GO, 2, 512), FILL('t', 511), RAW("!")),
		.client = PIECES(HELLO(3, GO), FAREWELL),
		.kind = ERR_REFUSED,
		.code = EACCES,
		.text = { "tttttt...\"" },
	},
	{
		.name = "refused with more text than the buffer holds",
		.export_len = 4096,
		.server = PIECES(GREETING(3), ERROR(GO, 8, 9000), FILL(0x1b, 9000)),
		.client = PIECES(U32(3), OPTION(GO, 4110), U32(4096), FILL('n', 4096), WANTED, TURN,
				 FAREWELL),
		.kind = ERR_REFUSED,
		.code = EINVAL,
		.text = { "nnnn...\"", "\\x1b\\x1b...\"" },
	},
	{
		.name = "refused, an error of the future",
		.server = PIECES(GREETING(3), ERROR(GO, 0x1234, 4), RAW("tilt")),
		.client = PIECES(HELLO(3, GO), FAREWELL),
		.kind = ERR_REFUSED,
		.code = EREMOTEIO,
		.text = { "0x80001234", "does not know", "\"disk\"", "NBD_OPT_GO", "\"tilt\"" },
	},
	{
		.name = "refused, the least of errors",
		.goal = NEG_GOAL_INFO,
		.server = PIECES(GREETING(3), ERROR(ASK, 0, 0)),
		.client = PIECES(HELLO(3, ASK), FAREWELL),
		.kind = ERR_REFUSED,
		.code = EREMOTEIO,
		.text = { "0x80000000", "NBD_OPT_INFO" },
	},
	{
		.name = "refused, the greatest of errors",
		.goal = NEG_GOAL_LIST,
		.server = PIECES(GREETING(3), ERROR(LIST, 0x7fffffff, 1), RAW("\n")),
		.client = PIECES(HELLO_LIST(3), FAREWELL),
		.kind = ERR_REFUSED,
		.code = EREMOTEIO,
		.text = { "0xffffffff", "NBD_OPT_LIST", "\"\\x0a\"" },
	},
	{
		.name = "refused, the name would harm a terminal",
		.export = "a\x1b\n\xe2\x80\xae",
		.server = PIECES(GREETING(3), ERROR(GO, 6, 0)),
		.client = PIECES(U32(3), OPTION(GO, 20), U32(6), RAW("a\x1b\n\xe2\x80\xae"), WANTED,
				 TURN, FAREWELL),
		.kind = ERR_REFUSED,
		.code = ENOENT,
		.text = { "export \"a\\x1b\\x0a\\xe2\\x80\\xae\"" },
	},
	/* --- NBD_OPT_LIST --- */
	{
		.name = "list, no exports",
		.goal = NEG_GOAL_LIST,
		.server = PIECES(GREETING(3), ACK(LIST)),
		.client = PIECES(HELLO_LIST(3), FAREWELL),
	},
	{
		.name = "list, one export",
		.goal = NEG_GOAL_LIST,
		.server = PIECES(GREETING(1), SERVER(4, 0), RAW("disk"), ACK(LIST)),
		.client = PIECES(HELLO_LIST(1), FAREWELL),
		.items = PIECES(RAW("disk\0\0")),
	},
	{
		.name = "list, the default export, descriptions, hostile text as it is",
		.goal = NEG_GOAL_LIST,
		.server = PIECES(GREETING(3), SERVER(4, 6), RAW("disk"), RAW("a disk"),
				 SERVER(0, 0), SERVER(3, 0), RAW("iso"), SERVER(0, 1), RAW("d"),
				 SERVER(2, 2), RAW("\x1b\n"), RAW("\xff\x9b"), SERVER(1, 3),
				 RAW("z"), RAW("b\0c"), ACK(LIST)),
		.client = PIECES(HELLO_LIST(3), FAREWELL),
		.items = PIECES(RAW("disk\0a disk\0"
				    "\0\0"
				    "iso\0\0"
				    "\0d\0"
				    "\x1b\n\0\xff\x9b\0"
				    "z\0b\0")),
	},
	{
		.name = "list, the longest texts, and nothing of them in the next entry",
		.goal = NEG_GOAL_LIST,
		.server = PIECES(GREETING(3), SERVER(4096, 4096), FILL('n', 4096), FILL('d', 4096),
				 SERVER(1, 0), RAW("x"), ACK(LIST)),
		.client = PIECES(HELLO_LIST(3), FAREWELL),
		.items = PIECES(FILL('n', 4096), RAW("\0"), FILL('d', 4096), RAW("\0x\0\0")),
	},
	{
		.name = "list, descriptions that are cut",
		.goal = NEG_GOAL_LIST,
		.server = PIECES(GREETING(3), SERVER(1, 4097), RAW("a"), FILL('d', 4096), RAW("!"),
				 SERVER(1, 13000), RAW("b"), FILL('e', 4096), FILL('!', 8904),
				 SERVER(1, 1), RAW("cd"), ACK(LIST)),
		.client = PIECES(HELLO_LIST(3), FAREWELL),
		.items = PIECES(RAW("a\0"), FILL('d', 4096), RAW("\0b\0"), FILL('e', 4096),
				RAW("\0c\0d\0")),
	},
	{
		.name = "list, 65536 exports",
		.goal = NEG_GOAL_LIST,
		.server = PIECES(GREETING(3), TIMES(65536, SERVER(1, 1), RAW("ab")), ACK(LIST)),
		.client = PIECES(HELLO_LIST(3), FAREWELL),
		.items = PIECES(TIMES(65536, RAW("a\0b\0"))),
	},
	{
		.name = "list, 65537 exports",
		.goal = NEG_GOAL_LIST,
		.server = PIECES(GREETING(3), TIMES(65536, SERVER(0, 0)), REPLY(LIST, 2, 4)),
		.client = PIECES(HELLO_LIST(3)),
		.items = PIECES(TIMES(65536, RAW("\0\0"))),
		BREACH,
		.text = { "more than 65536 replies to NBD_OPT_LIST" },
	},
	{
		.name = "list, an error in the middle",
		.goal = NEG_GOAL_LIST,
		.server = PIECES(GREETING(3), SERVER(1, 0), RAW("a"), SERVER(1, 0), RAW("b"),
				 ERROR(LIST, 7, 3), RAW("bye")),
		.client = PIECES(HELLO_LIST(3), FAREWELL),
		.items = PIECES(RAW("a\0\0b\0\0")),
		.kind = ERR_REFUSED,
		.code = ESHUTDOWN,
		.text = { "shutting down", "NBD_OPT_LIST", "\"bye\"" },
	},
	{
		.name = "list, an entry without the length of its name",
		.goal = NEG_GOAL_LIST,
		.server = PIECES(GREETING(3), REPLY(LIST, 2, 3)),
		.client = PIECES(HELLO_LIST(3)),
		BREACH,
		.text = { "NBD_REP_SERVER of 3 bytes" },
	},
	{
		.name = "list, an empty entry",
		.goal = NEG_GOAL_LIST,
		.server = PIECES(GREETING(3), REPLY(LIST, 2, 0)),
		.client = PIECES(HELLO_LIST(3)),
		BREACH,
		.text = { "NBD_REP_SERVER of 0 bytes" },
	},
	{
		.name = "list, a name beyond its entry",
		.goal = NEG_GOAL_LIST,
		.server = PIECES(GREETING(3), SERVER(0, 0), REPLY(LIST, 2, 8), U32(5)),
		.client = PIECES(HELLO_LIST(3)),
		.items = PIECES(RAW("\0\0")),
		BREACH,
		.text = { "NBD_REP_SERVER of 8 bytes with a name of 5" },
	},
	{
		.name = "list, a name of four gigabytes",
		.goal = NEG_GOAL_LIST,
		.server = PIECES(GREETING(3), REPLY(LIST, 2, 8), U32(0xffffffff)),
		.client = PIECES(HELLO_LIST(3)),
		BREACH,
		.text = { "NBD_REP_SERVER of 8 bytes with a name of 4294967295" },
	},
	{
		.name = "list, a name that is too long",
		.goal = NEG_GOAL_LIST,
		.server = PIECES(GREETING(3), SERVER(4097, 0)),
		.client = PIECES(HELLO_LIST(3)),
		BREACH,
		.text = { "with a name of 4097" },
	},
	{
		.name = "list, a zero byte in a name",
		.goal = NEG_GOAL_LIST,
		.server = PIECES(GREETING(3), SERVER(3, 0), RAW("a\0b")),
		.client = PIECES(HELLO_LIST(3)),
		BREACH,
		.text = { "contains a zero byte" },
	},
	{
		.name = "list, an entry of another kind",
		.goal = NEG_GOAL_LIST,
		.server = PIECES(GREETING(3), REPLY(LIST, 3, 12)),
		.client = PIECES(HELLO_LIST(3)),
		BREACH,
		.text = { "answers NBD_OPT_LIST with reply type 3" },
	},
	{
		.name = "list, an oversize entry",
		.goal = NEG_GOAL_LIST,
		.server = PIECES(GREETING(3), REPLY(LIST, 2, (1 << 20) + 1)),
		.client = PIECES(HELLO_LIST(3)),
		BREACH,
		.text = { "a reply to NBD_OPT_LIST of 1048577 bytes" },
	},
	{
		.name = "list, the end with a payload",
		.goal = NEG_GOAL_LIST,
		.server = PIECES(GREETING(3), REPLY(LIST, 1, 1)),
		.client = PIECES(HELLO_LIST(3)),
		BREACH,
		.text = { "NBD_REP_ACK to NBD_OPT_LIST carries 1 bytes" },
	},
	{
		.name = "list, an answer to another option",
		.goal = NEG_GOAL_LIST,
		.server = PIECES(GREETING(3), ACK(STARTTLS)),
		.client = PIECES(HELLO_LIST(3)),
		BREACH,
		.text = { "answers option 5 when asked for NBD_OPT_LIST" },
	},
	/* --- no newstyle server at all --- */
	{
		.name = "oldstyle",
		.server = PIECES(RAW("NBDMAGIC"), U64(0x420281861253)),
		.client = NULL,
		.kind = ERR_PROTOCOL,
		.code = EPROTONOSUPPORT,
		.text = { "oldstyle", "newstyle" },
	},
	{
		.name = "a web server",
		.server = PIECES(RAW("HTTP/1.1 400 Bad")),
		.client = NULL,
		BREACH,
		.text = { "greets with \"HTTP/1.1 400 Bad\"", "no NBD server" },
	},
	{
		.name = "a secure shell",
		.goal = NEG_GOAL_LIST,
		.server = PIECES(RAW("SSH-2.0-OpenSSH_")),
		.client = NULL,
		BREACH,
		.text = { "greets with \"SSH-2.0-OpenSSH_\"" },
	},
	{
		.name = "a greeting that would harm a terminal",
		.goal = NEG_GOAL_INFO,
		.server = PIECES(RAW("\x1b]0;\a\r\n\0\xe2\x80\xae\xff\xc2\x9b\\!")),
		.client = NULL,
		BREACH,
		.text = { "greets with \"\\x1b]0;\\x07\\x0d\\x0a\\x00\\xe2\\x80\\xae\\xff\\xc2\\x9b"
			  "\\\\!\"" },
	},
	{
		.name = "the worst greeting",
		.server = PIECES(FILL(0x1b, 16)),
		.client = NULL,
		BREACH,
		.text = { "\\x1b\\x1b\\x1b\\x1b\\x1b\\x1b\\x1b\\x1b\\x1b\\x1b\\x1b\\x1b\\x1b\\x1b\\"
			  "x1b"
			  "\\x1b\";" },
	},
	{
		.name = "half a greeting",
		.server = PIECES(RAW("NBDMAGICIHAVEOPS")),
		.client = NULL,
		BREACH,
		.text = { "greets with \"NBDMAGICIHAVEOPS\"" },
	},
	{
		.name = "the other half of a greeting",
		.server = PIECES(RAW("NBDMAGICNBDMAGIC")),
		.client = NULL,
		BREACH,
		.text = { "greets with \"NBDMAGICNBDMAGIC\"" },
	},
	{
		.name = "a greeting the wrong way round",
		.server = PIECES(RAW("IHAVEOPTNBDMAGIC")),
		.client = NULL,
		BREACH,
		.text = { "greets with \"IHAVEOPTNBDMAGIC\"" },
	},
	/* --- breaches --- */
	{
		.name = "a wrong magic number",
		.server = PIECES(GREETING(3), U64(0x3e889045565a8), U32(GO), U32(1), U32(0)),
		.client = PIECES(HELLO(3, GO)),
		BREACH,
		.text = { "a reply to NBD_OPT_GO begins with 0x0003e889045565a8" },
	},
	{
		.name = "a wrong magic number after a right one",
		.goal = NEG_GOAL_INFO,
		.server = PIECES(GREETING(3), DISK(ASK), RAW("IHAVEOPT"), U32(ASK), U32(1), U32(0)),
		.client = PIECES(HELLO(3, ASK)),
		BREACH,
		.text = { "a reply to NBD_OPT_INFO begins with 0x49484156454f5054" },
	},
	{
		.name = "an answer to another option",
		.server = PIECES(GREETING(3), ACK(ASK)),
		.client = PIECES(HELLO(3, GO)),
		BREACH,
		.text = { "answers option 6 when asked for NBD_OPT_GO" },
	},
	{
		.name = "a refusal of another option",
		.server = PIECES(GREETING(3), ERROR(0xffffffff, 6, 0)),
		.client = PIECES(HELLO(3, GO)),
		BREACH,
		.text = { "answers option 4294967295 when asked for NBD_OPT_GO" },
	},
	{
		.name = "an oversize reply",
		.server = PIECES(GREETING(3), REPLY(GO, 3, (1 << 20) + 1)),
		.client = PIECES(HELLO(3, GO)),
		BREACH,
		.text = { "a reply to NBD_OPT_GO of 1048577 bytes", "1048576" },
	},
	{
		.name = "the largest reply",
		.server = PIECES(GREETING(3), REPLY(GO, 3, 0xffffffff)),
		.client = PIECES(HELLO(3, GO)),
		BREACH,
		.text = { "of 4294967295 bytes" },
	},
	{
		.name = "an oversize refusal",
		.server = PIECES(GREETING(3), ERROR(GO, 1, (1 << 20) + 1)),
		.client = PIECES(HELLO(3, GO)),
		BREACH,
		.text = { "a reply to NBD_OPT_GO of 1048577 bytes" },
	},
	{
		.name = "consent with a payload",
		.server = PIECES(GREETING(3), DISK(GO), REPLY(GO, 1, 124)),
		.client = PIECES(HELLO(3, GO)),
		BREACH,
		.text = { "NBD_REP_ACK to NBD_OPT_GO carries 124 bytes" },
	},
	{
		.name = "consent without an export",
		.server = PIECES(GREETING(3), ACK(GO)),
		.client = PIECES(HELLO(3, GO)),
		BREACH,
		.text = { "accepts NBD_OPT_GO without NBD_INFO_EXPORT" },
	},
	{
		.name = "consent with everything but the export",
		.goal = NEG_GOAL_INFO,
		.server = PIECES(GREETING(3), INFO_BLOCK_SIZE(ASK, 1, 1, 1), INFO_NAME(ASK, 1),
				 RAW("x"), INFO_DESCRIPTION(ASK, 1), RAW("x"), INFO(ASK, 8, 0),
				 ACK(ASK)),
		.client = PIECES(HELLO(3, ASK)),
		BREACH,
		.text = { "accepts NBD_OPT_INFO without NBD_INFO_EXPORT" },
	},
	{
		.name = "a list where none was asked for",
		.server = PIECES(GREETING(3), REPLY(GO, 2, 4)),
		.client = PIECES(HELLO(3, GO)),
		BREACH,
		.text = { "answers NBD_OPT_GO with reply type 2" },
	},
	{
		.name = "reply type 0",
		.server = PIECES(GREETING(3), REPLY(GO, 0, 0)),
		.client = PIECES(HELLO(3, GO)),
		BREACH,
		.text = { "answers NBD_OPT_GO with reply type 0" },
	},
	{
		.name = "a context where none was asked for",
		.goal = NEG_GOAL_INFO,
		.server = PIECES(GREETING(3), REPLY(ASK, 4, 4)),
		.client = PIECES(HELLO(3, ASK)),
		BREACH,
		.text = { "answers NBD_OPT_INFO with reply type 4" },
	},
	{
		.name = "a reply of the future",
		.server = PIECES(GREETING(3), REPLY(GO, 0x7fffffff, 0)),
		.client = PIECES(HELLO(3, GO)),
		BREACH,
		.text = { "answers NBD_OPT_GO with reply type 2147483647" },
	},
	{
		.name = "an information without a type",
		.server = PIECES(GREETING(3), REPLY(GO, 3, 0)),
		.client = PIECES(HELLO(3, GO)),
		BREACH,
		.text = { "NBD_REP_INFO of 0 bytes" },
	},
	{
		.name = "an information with half a type",
		.server = PIECES(GREETING(3), REPLY(GO, 3, 1)),
		.client = PIECES(HELLO(3, GO)),
		BREACH,
		.text = { "NBD_REP_INFO of 1 bytes" },
	},
	{
		.name = "an export that is too short",
		.server = PIECES(GREETING(3), INFO(GO, 0, 9)),
		.client = PIECES(HELLO(3, GO)),
		BREACH,
		.text = { "NBD_INFO_EXPORT of 11 bytes" },
	},
	{
		.name = "an export that is too long",
		.server = PIECES(GREETING(3), INFO(GO, 0, 134)),
		.client = PIECES(HELLO(3, GO)),
		BREACH,
		.text = { "NBD_INFO_EXPORT of 136 bytes" },
	},
	{
		.name = "block sizes that are too short",
		.server = PIECES(GREETING(3), INFO(GO, 3, 0)),
		.client = PIECES(HELLO(3, GO)),
		BREACH,
		.text = { "NBD_INFO_BLOCK_SIZE of 2 bytes" },
	},
	{
		.name = "block sizes that are too long",
		.server = PIECES(GREETING(3), INFO(GO, 3, 13)),
		.client = PIECES(HELLO(3, GO)),
		BREACH,
		.text = { "NBD_INFO_BLOCK_SIZE of 15 bytes" },
	},
	{
		.name = "a name that is too long",
		.server = PIECES(GREETING(3), INFO_NAME(GO, 4097)),
		.client = PIECES(HELLO(3, GO)),
		BREACH,
		.text = { "NBD_INFO_NAME of 4099 bytes" },
	},
	{
		.name = "a zero byte in the name",
		.server = PIECES(GREETING(3), INFO_NAME(GO, 4), RAW("abc\0")),
		.client = PIECES(HELLO(3, GO)),
		BREACH,
		.text = { "contains a zero byte" },
	},
	{
		.name = "two sizes of one export",
		.server = PIECES(GREETING(3), DISK(GO), INFO_EXPORT(GO, 1048577, 0x105)),
		.client = PIECES(HELLO(3, GO)),
		BREACH,
		.text = { "two different NBD_INFO_EXPORT" },
	},
	{
		.name = "two sets of flags of one export",
		.server = PIECES(GREETING(3), DISK(GO), INFO_EXPORT(GO, 1048576, 0x107)),
		.client = PIECES(HELLO(3, GO)),
		BREACH,
		.text = { "two different NBD_INFO_EXPORT" },
	},
	{
		.name = "two minimum block sizes",
		.server = PIECES(GREETING(3), INFO_BLOCK_SIZE(GO, 512, 4096, 65536),
				 INFO_BLOCK_SIZE(GO, 1024, 4096, 65536)),
		.client = PIECES(HELLO(3, GO)),
		BREACH,
		.text = { "two different NBD_INFO_BLOCK_SIZE" },
	},
	{
		.name = "two preferred block sizes",
		.server = PIECES(GREETING(3), INFO_BLOCK_SIZE(GO, 512, 4096, 65536),
				 INFO_BLOCK_SIZE(GO, 512, 8192, 65536)),
		.client = PIECES(HELLO(3, GO)),
		BREACH,
		.text = { "two different NBD_INFO_BLOCK_SIZE" },
	},
	{
		.name = "two maximum payloads",
		.server = PIECES(GREETING(3), INFO_BLOCK_SIZE(GO, 512, 4096, 65536),
				 INFO_BLOCK_SIZE(GO, 512, 4096, 65537)),
		.client = PIECES(HELLO(3, GO)),
		BREACH,
		.text = { "two different NBD_INFO_BLOCK_SIZE" },
	},
	/* "Size constraints" */
	{
		.name = "a minimum block size of 0",
		.server = PIECES(GREETING(3), INFO_BLOCK_SIZE(GO, 0, 4096, 65536)),
		.client = PIECES(HELLO(3, GO)),
		BREACH,
		.text = { "impossible block sizes: minimum 0, preferred 4096, maximum payload "
			  "65536" },
	},
	{
		.name = "a minimum block size between powers of 2",
		.server = PIECES(GREETING(3), INFO_BLOCK_SIZE(GO, 513, 4096, 65536)),
		.client = PIECES(HELLO(3, GO)),
		BREACH,
		.text = { "impossible block sizes: minimum 513" },
	},
	{
		.name = "a minimum block size of 128 KiB",
		.server = PIECES(GREETING(3), INFO_BLOCK_SIZE(GO, 131072, 131072, 131072)),
		.client = PIECES(HELLO(3, GO)),
		BREACH,
		.text = { "impossible block sizes: minimum 131072" },
	},
	{
		.name = "a preferred block size of 0",
		.server = PIECES(GREETING(3), INFO_BLOCK_SIZE(GO, 1, 0, 65536)),
		.client = PIECES(HELLO(3, GO)),
		BREACH,
		.text = { "impossible block sizes", "preferred 0" },
	},
	{
		.name = "a preferred block size between powers of 2",
		.server = PIECES(GREETING(3), INFO_BLOCK_SIZE(GO, 1, 6144, 65536)),
		.client = PIECES(HELLO(3, GO)),
		BREACH,
		.text = { "impossible block sizes", "preferred 6144" },
	},
	{
		.name = "a preferred block size below the minimum",
		.server = PIECES(GREETING(3), INFO_BLOCK_SIZE(GO, 4096, 2048, 65536)),
		.client = PIECES(HELLO(3, GO)),
		BREACH,
		.text = { "impossible block sizes: minimum 4096, preferred 2048" },
	},
	{
		.name = "a maximum payload below the minimum block size",
		.server = PIECES(GREETING(3), INFO_BLOCK_SIZE(GO, 4096, 4096, 4095)),
		.client = PIECES(HELLO(3, GO)),
		BREACH,
		.text = { "impossible block sizes", "maximum payload 4095" },
	},
	{
		.name = "go, a preferred block size larger than most",
		.server = PIECES(GREETING(3), INFO_BLOCK_SIZE(GO, 1, 0x80000000, 0xfffffffe),
				 DISK(GO), ACK(GO)),
		.client = PIECES(HELLO(3, GO)),
		.got = TRANSMISSION | BLOCK_SIZE,
		.size = 1048576,
		.flags = 0x105,
		.min = 1,
		.pref = 0x80000000,
		.max = 0xfffffffe,
	},
	/* --- NBD_OPT_STARTTLS (its refusals: see below) --- */
	{
		.name = "tls, go",
		.tls = true,
		.secured = true,
		.server = PIECES(GREETING(3), ACK(STARTTLS), TURN, DISK(GO), ACK(GO)),
		.client = PIECES(ASK_FOR_TLS(3), ASK_INSIDE(GO)),
		ITS_DISK,
	},
	{
		.name = "tls, info",
		.goal = NEG_GOAL_INFO,
		.tls = true,
		.secured = true,
		.server = PIECES(GREETING(3), ACK(STARTTLS), TURN, DISK(ASK),
				 INFO_BLOCK_SIZE(ASK, 512, 4096, 65536), ACK(ASK), TURN,
				 ACK(STRUCTURED), TURN, CONTEXT(LIST_CONTEXTS, 0, 15),
				 RAW("base:allocation"), ACK(LIST_CONTEXTS), TURN, SERVER(4, 0),
				 RAW("disk"), ACK(LIST)),
		.client = PIECES(ASK_FOR_TLS(3), ASK_INSIDE(ASK), MORE),
		.items = PIECES(RAW("base:allocation\0\0")),
		.got = BLOCK_SIZE | STRUCTURED_REPLIES | CONTEXTS | LISTED,
		.size = 1048576,
		.flags = 0x105,
		.min = 512,
		.pref = 4096,
		.max = 65536,
	},
	{
		.name = "tls, list",
		.goal = NEG_GOAL_LIST,
		.tls = true,
		.secured = true,
		.server = PIECES(GREETING(3), ACK(STARTTLS), TURN, SERVER(4, 0), RAW("disk"),
				 ACK(LIST)),
		.client = PIECES(ASK_FOR_TLS(3), OPTION(LIST, 0), TURN, FAREWELL),
		.items = PIECES(RAW("disk\0\0")),
	},
	{
		.name = "tls, the longest name",
		.export_len = 4096,
		.tls = true,
		.secured = true,
		.server = PIECES(GREETING(1), ACK(STARTTLS), TURN, DISK(GO), ACK(GO)),
		.client = PIECES(ASK_FOR_TLS(1), OPTION(GO, 4110), U32(4096), FILL('n', 4096),
				 WANTED, TURN),
		ITS_DISK,
	},
	{
		.name = "tls, go is unknown, no zeroes",
		.tls = true,
		.secured = true,
		.server = PIECES(GREETING(3), ACK(STARTTLS), TURN, UNSUP(GO), U64(1048576),
				 U16(0x105)),
		.client = PIECES(ASK_FOR_TLS(3), ASK_INSIDE(GO), BY_NAME),
		.got = TRANSMISSION | OLD_OPTION,
		.size = 1048576,
		.flags = 0x105,
	},
	{
		.name = "tls, info is unknown, zeroes",
		.goal = NEG_GOAL_INFO,
		.tls = true,
		.secured = true,
		.server = PIECES(GREETING(1), ACK(STARTTLS), TURN, UNSUP(ASK), U64(1048576),
				 U16(0x105), FILL(0, 124)),
		.client = PIECES(ASK_FOR_TLS(1), ASK_INSIDE(ASK), BY_NAME),
		.got = TRANSMISSION | OLD_OPTION,
		.size = 1048576,
		.flags = 0x105,
	},
	{
		.name = "tls, refused inside is no failure of tls",
		.tls = true,
		.secured = true,
		.server = PIECES(GREETING(3), ACK(STARTTLS), TURN, ERROR(GO, 6, 4), RAW("none")),
		.client = PIECES(ASK_FOR_TLS(3), ASK_INSIDE(GO), FAREWELL),
		.kind = ERR_REFUSED,
		.code = ENOENT,
		.text = { "the server refuses export \"disk\"", "it says: \"none\"" },
	},
	{
		.name = "tls, a breach inside",
		.tls = true,
		.secured = true,
		.server = PIECES(GREETING(3), ACK(STARTTLS), TURN, ACK(STARTTLS)),
		.client = PIECES(ASK_FOR_TLS(3), ASK_INSIDE(GO)),
		BREACH,
		.text = { "answers option 5 when asked for NBD_OPT_GO" },
	},
	{
		.name = "tls, a text about the refusal",
		.tls = true,
		.server = PIECES(GREETING(3), ERROR(STARTTLS, 2, 9), RAW("no\x1b[2Jtls")),
		.client = PIECES(ASK_FOR_TLS(3), FAREWELL),
		.kind = ERR_TLS,
		.code = EACCES,
		.text = { "it says: \"no\\x1b[2Jtls\"" },
	},
	{
		.name = "tls, unfixed newstyle",
		.tls = true,
		.server = PIECES(GREETING(2)),
		.client = PIECES(U32(2)),
		.kind = ERR_TLS,
		.code = EPROTONOSUPPORT,
		.text = { "unfixed newstyle", "TLS is required", "nothing was sent in plain text" },
	},
	{
		.name = "tls, unfixed newstyle, info, zeroes",
		.goal = NEG_GOAL_INFO,
		.tls = true,
		.server = PIECES(GREETING(0)),
		.client = PIECES(U32(0)),
		.kind = ERR_TLS,
		.code = EPROTONOSUPPORT,
		.text = { "unfixed newstyle", "nothing was sent in plain text" },
	},
	{
		.name = "tls, unfixed newstyle, list",
		.goal = NEG_GOAL_LIST,
		.tls = true,
		.server = PIECES(GREETING(2)),
		.client = PIECES(U32(2)),
		.kind = ERR_TLS,
		.code = EPROTONOSUPPORT,
		.text = { "unfixed newstyle", "nothing was sent in plain text" },
	},
	{
		.name = "tls, oldstyle",
		.tls = true,
		.server = PIECES(RAW("NBDMAGIC"), U64(0x420281861253)),
		.client = NULL,
		.kind = ERR_PROTOCOL,
		.code = EPROTONOSUPPORT,
		.text = { "oldstyle" },
	},
	{
		.name = "tls, consent with a payload",
		.tls = true,
		.server = PIECES(GREETING(3), REPLY(STARTTLS, 1, 4)),
		.client = PIECES(ASK_FOR_TLS(3)),
		BREACH,
		.text = { "NBD_REP_ACK to NBD_OPT_STARTTLS carries 4 bytes" },
	},
	{
		.name = "tls, consent to what was not asked for",
		.tls = true,
		.server = PIECES(GREETING(3), ACK(GO)),
		.client = PIECES(ASK_FOR_TLS(3)),
		BREACH,
		.text = { "answers option 7 when asked for NBD_OPT_STARTTLS" },
	},
	{
		.name = "tls, an export in plain text",
		.tls = true,
		.server = PIECES(GREETING(3), REPLY(STARTTLS, 3, 12)),
		.client = PIECES(ASK_FOR_TLS(3)),
		BREACH,
		.text = { "answers NBD_OPT_STARTTLS with reply type 3" },
	},
	{
		.name = "tls, a list in plain text",
		.goal = NEG_GOAL_LIST,
		.tls = true,
		.server = PIECES(GREETING(3), REPLY(STARTTLS, 2, 8)),
		.client = PIECES(ASK_FOR_TLS(3)),
		BREACH,
		.text = { "answers NBD_OPT_STARTTLS with reply type 2" },
	},
	{
		.name = "tls, reply type 0",
		.tls = true,
		.server = PIECES(GREETING(3), REPLY(STARTTLS, 0, 0)),
		.client = PIECES(ASK_FOR_TLS(3)),
		BREACH,
		.text = { "answers NBD_OPT_STARTTLS with reply type 0" },
	},
	{
		.name = "tls, an oversize refusal",
		.tls = true,
		.server = PIECES(GREETING(3), ERROR(STARTTLS, 1, (1 << 20) + 1)),
		.client = PIECES(ASK_FOR_TLS(3)),
		BREACH,
		.text = { "a reply to NBD_OPT_STARTTLS of 1048577 bytes" },
	},
	{
		.name = "tls, a record of tls instead of an answer",
		.tls = true,
		.server = PIECES(GREETING(3), RAW("\x16\x03\x03\0\x7a\x02\0\0\x76\x03\x03"),
				 FILL(0xaa, 9)),
		.client = PIECES(ASK_FOR_TLS(3)),
		BREACH,
		.text = { "a reply to NBD_OPT_STARTTLS begins with 0x160303007a020000" },
	},
	{
		.name = "tls is required by the server only",
		.server = PIECES(GREETING(3), ERROR(GO, 5, 0)),
		.client = PIECES(HELLO(3, GO), FAREWELL),
		.kind = ERR_TLS,
		.code = EPROTONOSUPPORT,
		.text = { "NBD_REP_ERR_TLS_REQD to NBD_OPT_GO", "it requires TLS", "--tls" },
	},
	/* --- what is asked after NBD_OPT_INFO: nothing of it can spoil the information --- */
	{
		.name = "info, contexts, listed",
		.goal = NEG_GOAL_INFO,
		.server = PIECES(GREETING(3), DISK(ASK), ACK(ASK), TURN, ACK(STRUCTURED), TURN,
				 CONTEXT(LIST_CONTEXTS, 0, 15), RAW("base:allocation"),
				 CONTEXT(LIST_CONTEXTS, 0, 20), RAW("qemu:dirty-bitmap:\x1b\xff"),
				 CONTEXT(LIST_CONTEXTS, 7, 0), ACK(LIST_CONTEXTS), TURN,
				 SERVER(5, 0), RAW("other"), SERVER(4, 3), RAW("disk"), RAW("its"),
				 SERVER(5, 0), RAW("disks"), ACK(LIST)),
		.client = PIECES(HELLO(3, ASK), MORE),
		.items = PIECES(RAW("base:allocation\0\0qemu:dirty-bitmap:\x1b\xff\0\0\0\0")),
		.got = STRUCTURED_REPLIES | CONTEXTS | LISTED,
		.size = 1048576,
		.flags = 0x105,
	},
	{
		.name = "info, no contexts, not listed",
		.goal = NEG_GOAL_INFO,
		.server = PIECES(GREETING(3), DISK(ASK), ACK(ASK), TURN, ACK(STRUCTURED), TURN,
				 ACK(LIST_CONTEXTS), TURN, SERVER(3, 0), RAW("dis"), SERVER(0, 4),
				 RAW("disk"), ACK(LIST)),
		.client = PIECES(HELLO(3, ASK), MORE),
		.got = STRUCTURED_REPLIES | CONTEXTS | UNLISTED,
		.size = 1048576,
		.flags = 0x105,
	},
	{
		.name = "info, listed under its canonical name",
		.goal = NEG_GOAL_INFO,
		.server = PIECES(GREETING(3), DISK(ASK), INFO_NAME(ASK, 5), RAW("Disk1"), ACK(ASK),
				 TURN, UNSUP(STRUCTURED), SERVER(5, 0), RAW("Disk1"), ACK(LIST)),
		.client = PIECES(HELLO(3, ASK), MORE_OLD),
		.got = NAME | LISTED,
		.size = 1048576,
		.flags = 0x105,
		.canonical = PIECES(RAW("Disk1")),
	},
	{
		.name = "info, the default export without a name is listed",
		.goal = NEG_GOAL_INFO,
		.export = "",
		.server = PIECES(GREETING(3), DISK(ASK), ACK(ASK), TURN, ERROR(STRUCTURED, 5, 3),
				 RAW("tls"), TURN, SERVER(0, 0), ACK(LIST)),
		.client = PIECES(U32(3), OPTION(ASK, 14), U32(0), WANTED, TURN, MORE_OLD),
		.got = LISTED,
		.size = 1048576,
		.flags = 0x105,
	},
	{
		.name = "info, contexts that an error takes back, a list that an error ends",
		.goal = NEG_GOAL_INFO,
		.server = PIECES(GREETING(3), DISK(ASK), ACK(ASK), TURN, ACK(STRUCTURED), TURN,
				 CONTEXT(LIST_CONTEXTS, 0, 3), RAW("x:y"),
				 ERROR(LIST_CONTEXTS, 9, 600), FILL('!', 600), TURN, SERVER(4, 0),
				 RAW("disk"), ERROR(LIST, 7, 0)),
		.client = PIECES(HELLO(3, ASK), MORE),
		.items = PIECES(RAW("x:y\0\0")),
		.got = STRUCTURED_REPLIES,
		.size = 1048576,
		.flags = 0x105,
	},
	{
		.name = "info, 1024 contexts, one of the greatest length",
		.goal = NEG_GOAL_INFO,
		.server = PIECES(GREETING(3), DISK(ASK), ACK(ASK), TURN, ACK(STRUCTURED), TURN,
				 CONTEXT(LIST_CONTEXTS, 0, 4096), FILL('c', 4096),
				 TIMES(1023, CONTEXT(LIST_CONTEXTS, 0, 1), RAW("c")),
				 ACK(LIST_CONTEXTS), TURN, ACK(LIST)),
		.client = PIECES(HELLO(3, ASK), MORE),
		.items = PIECES(FILL('c', 4096), RAW("\0\0"), TIMES(1023, RAW("c\0\0"))),
		.got = STRUCTURED_REPLIES | CONTEXTS | UNLISTED,
		.size = 1048576,
		.flags = 0x105,
	},
	{
		.name = "info, 1025 contexts",
		.goal = NEG_GOAL_INFO,
		.server = PIECES(GREETING(3), DISK(ASK), ACK(ASK), TURN, ACK(STRUCTURED), TURN,
				 TIMES(1024, CONTEXT(LIST_CONTEXTS, 0, 1), RAW("c")),
				 REPLY(LIST_CONTEXTS, 4, 5)),
		.client = PIECES(HELLO(3, ASK), OPTION(STRUCTURED, 0), TURN, ASK_CONTEXTS),
		.items = PIECES(TIMES(1024, RAW("c\0\0"))),
		BREACH,
		.text = { "more than 1024 replies to NBD_OPT_LIST_META_CONTEXT" },
	},
	{
		.name = "info, a context that is too long",
		.goal = NEG_GOAL_INFO,
		.server = PIECES(GREETING(3), DISK(ASK), ACK(ASK), TURN, ACK(STRUCTURED), TURN,
				 REPLY(LIST_CONTEXTS, 4, 4 + 4097)),
		.client = PIECES(HELLO(3, ASK), OPTION(STRUCTURED, 0), TURN, ASK_CONTEXTS),
		BREACH,
		.text = { "NBD_REP_META_CONTEXT of 4101 bytes" },
	},
	{
		.name = "info, an entry of another list",
		.goal = NEG_GOAL_INFO,
		.server = PIECES(GREETING(3), DISK(ASK), ACK(ASK), TURN, ACK(STRUCTURED), TURN,
				 REPLY(LIST_CONTEXTS, 2, 4)),
		.client = PIECES(HELLO(3, ASK), OPTION(STRUCTURED, 0), TURN, ASK_CONTEXTS),
		BREACH,
		.text = { "answers NBD_OPT_LIST_META_CONTEXT with reply type 2" },
	},
	{
		.name = "info, a payload with the consent to structured replies",
		.goal = NEG_GOAL_INFO,
		.server = PIECES(GREETING(3), DISK(ASK), ACK(ASK), TURN, REPLY(STRUCTURED, 1, 1)),
		.client = PIECES(HELLO(3, ASK), OPTION(STRUCTURED, 0), TURN),
		BREACH,
		.text = { "NBD_REP_ACK to NBD_OPT_STRUCTURED_REPLY carries 1 bytes" },
	},
	{
		.name = "info, a list with a broken entry",
		.goal = NEG_GOAL_INFO,
		.server = PIECES(GREETING(3), DISK(ASK), ACK(ASK), TURN, UNSUP(STRUCTURED),
				 SERVER(2, 0), RAW("a\0")),
		.client = PIECES(HELLO(3, ASK), OPTION(STRUCTURED, 0), TURN, OPTION(LIST, 0), TURN),
		BREACH,
		.text = { "the name of an export contains a zero byte" },
	},
	/* --- for a client in user space --- */
	{
		.name = "query, one context",
		.goal = NEG_GOAL_QUERY,
		.contexts = "base:allocation",
		.ids = { 7 },
		.server = PIECES(GREETING(3), ACK(STRUCTURED), TURN, CONTEXT(SET_CONTEXTS, 7, 15),
				 RAW("base:allocation"), ACK(SET_CONTEXTS), TURN, DISK(GO),
				 ACK(GO)),
		.client = PIECES(HELLO_QUERY(3), WANT_ALLOCATION, ASK_INSIDE(GO)),
		.got = TRANSMISSION | STRUCTURED_REPLIES,
		.size = 1048576,
		.flags = 0x105,
	},
	{
		.name = "query, two contexts the other way round",
		.goal = NEG_GOAL_QUERY,
		.contexts = "base:allocation,x:y",
		.ids = { 0, UINT32_MAX },
		.server = PIECES(GREETING(3), ACK(STRUCTURED), TURN,
				 CONTEXT(SET_CONTEXTS, UINT32_MAX, 3), RAW("x:y"),
				 CONTEXT(SET_CONTEXTS, 0, 15), RAW("base:allocation"),
				 ACK(SET_CONTEXTS), TURN, INFO_BLOCK_SIZE(GO, 512, 4096, 65536),
				 DISK(GO), ACK(GO)),
		.client = PIECES(HELLO_QUERY(3), OPTION(SET_CONTEXTS, 4 + 4 + 4 + 4 + 15 + 4 + 3),
				 U32(4), RAW("disk"), U32(2), U32(15), RAW("base:allocation"),
				 U32(3), RAW("x:y"), TURN, ASK_INSIDE(GO)),
		.got = TRANSMISSION | STRUCTURED_REPLIES | BLOCK_SIZE,
		.size = 1048576,
		.flags = 0x105,
		.min = 512,
		.pref = 4096,
		.max = 65536,
	},
	{
		.name = "query, no context",
		.goal = NEG_GOAL_QUERY,
		.server = PIECES(GREETING(3), ACK(STRUCTURED), TURN, DISK(GO), ACK(GO)),
		.client = PIECES(HELLO_QUERY(3), ASK_INSIDE(GO)),
		.got = TRANSMISSION | STRUCTURED_REPLIES,
		.size = 1048576,
		.flags = 0x105,
	},
	{
		.name = "query, simple replies must do",
		.goal = NEG_GOAL_QUERY,
		.server = PIECES(GREETING(3), ERROR(STRUCTURED, 1, 4), RAW("what"), TURN, DISK(GO),
				 ACK(GO)),
		.client = PIECES(HELLO_QUERY(3), ASK_INSIDE(GO)),
		.got = TRANSMISSION,
		.size = 1048576,
		.flags = 0x105,
	},
	{
		.name = "query, go is unknown",
		.goal = NEG_GOAL_QUERY,
		.contexts = "base:allocation",
		.ids = { 1 },
		.server = PIECES(GREETING(3), ACK(STRUCTURED), TURN, CONTEXT(SET_CONTEXTS, 1, 15),
				 RAW("base:allocation"), ACK(SET_CONTEXTS), TURN, UNSUP(GO),
				 U64(1048576), U16(0x105)),
		.client = PIECES(HELLO_QUERY(3), WANT_ALLOCATION, ASK_INSIDE(GO), BY_NAME),
		.got = TRANSMISSION | OLD_OPTION | STRUCTURED_REPLIES,
		.size = 1048576,
		.flags = 0x105,
	},
	{
		.name = "query, unfixed newstyle",
		.goal = NEG_GOAL_QUERY,
		.server = PIECES(GREETING(2), U64(1048576), U16(0x105)),
		.client = PIECES(U32(2), BY_NAME),
		.got = TRANSMISSION | OLD_OPTION,
		.size = 1048576,
		.flags = 0x105,
	},
	{
		.name = "query, unfixed newstyle knows no contexts",
		.goal = NEG_GOAL_QUERY,
		.contexts = "base:allocation",
		.server = PIECES(GREETING(2)),
		.client = PIECES(U32(2)),
		.kind = ERR_REFUSED,
		.code = EOPNOTSUPP,
		.text = { "unfixed newstyle", "no block status" },
	},
	{
		.name = "query, tls",
		.goal = NEG_GOAL_QUERY,
		.tls = true,
		.secured = true,
		.contexts = "base:allocation",
		.ids = { 1 },
		.server = PIECES(GREETING(3), ACK(STARTTLS), TURN, ACK(STRUCTURED), TURN,
				 CONTEXT(SET_CONTEXTS, 1, 15), RAW("base:allocation"),
				 ACK(SET_CONTEXTS), TURN, DISK(GO), ACK(GO)),
		.client = PIECES(ASK_FOR_TLS(3), OPTION(STRUCTURED, 0), TURN, WANT_ALLOCATION,
				 ASK_INSIDE(GO)),
		.got = TRANSMISSION | STRUCTURED_REPLIES,
		.size = 1048576,
		.flags = 0x105,
	},
	{
		.name = "query, the context is missing",
		.goal = NEG_GOAL_QUERY,
		.contexts = "base:allocation",
		.server = PIECES(GREETING(3), ACK(STRUCTURED), TURN, ACK(SET_CONTEXTS)),
		.client = PIECES(HELLO_QUERY(3), WANT_ALLOCATION, FAREWELL),
		.kind = ERR_REFUSED,
		.code = ENOENT,
		.text = { "no meta context \"base:allocation\" for export \"disk\"", "--info" },
	},
	{
		.name = "query, one of two contexts is missing",
		.goal = NEG_GOAL_QUERY,
		.contexts = "base:allocation,x:\xe2\x80\xae",
		.server = PIECES(GREETING(3), ACK(STRUCTURED), TURN, CONTEXT(SET_CONTEXTS, 1, 15),
				 RAW("base:allocation"), ACK(SET_CONTEXTS)),
		.client = PIECES(HELLO_QUERY(3), OPTION(SET_CONTEXTS, 4 + 4 + 4 + 4 + 15 + 4 + 5),
				 U32(4), RAW("disk"), U32(2), U32(15), RAW("base:allocation"),
				 U32(5), RAW("x:\xe2\x80\xae"), TURN, FAREWELL),
		.kind = ERR_REFUSED,
		.code = ENOENT,
		.text = { "no meta context \"x:\\xe2\\x80\\xae\"" },
	},
#define QUERY_BREACH(title, ...)                                              \
	.name = title, .goal = NEG_GOAL_QUERY, .contexts = "base:allocation", \
	.server = PIECES(GREETING(3), ACK(STRUCTURED), TURN, __VA_ARGS__),    \
	.client = PIECES(HELLO_QUERY(3), WANT_ALLOCATION), BREACH
	{
		QUERY_BREACH("query, another context", CONTEXT(SET_CONTEXTS, 1, 4), RAW("\x1b:bc")),
		.text = { "selects the meta context \"\\x1b:bc\", which was not asked for" },
	},
	{
		QUERY_BREACH("query, more contexts than wanted", CONTEXT(SET_CONTEXTS, 1, 15),
			     RAW("base:allocation"), REPLY(SET_CONTEXTS, 4, 19)),
		.text = { "more than 1 replies to NBD_OPT_SET_META_CONTEXT" },
	},
	{
		QUERY_BREACH("query, a context without a number", REPLY(SET_CONTEXTS, 4, 3)),
		.text = { "NBD_REP_META_CONTEXT of 3 bytes" },
	},
	{
		QUERY_BREACH("query, a context with a zero byte", CONTEXT(SET_CONTEXTS, 1, 16),
			     RAW("base:allocation\0")),
		.text = { "the name of a meta context contains a zero byte" },
	},
	{
		QUERY_BREACH("query, an information too early", REPLY(SET_CONTEXTS, 3, 12)),
		.text = { "answers NBD_OPT_SET_META_CONTEXT with reply type 3" },
	},
	{
		QUERY_BREACH("query, a selection with a payload", REPLY(SET_CONTEXTS, 1, 4)),
		.text = { "NBD_REP_ACK to NBD_OPT_SET_META_CONTEXT carries 4 bytes" },
	},
#define QUERY_TWO(title, ...)                                                                \
	.name = title, .goal = NEG_GOAL_QUERY, .contexts = "a:b,c:d",                        \
	.server = PIECES(GREETING(3), ACK(STRUCTURED), TURN, __VA_ARGS__),                   \
	.client = PIECES(HELLO_QUERY(3), OPTION(SET_CONTEXTS, 4 + 4 + 4 + 7 + 7), U32(4),    \
			 RAW("disk"), U32(2), U32(3), RAW("a:b"), U32(3), RAW("c:d"), TURN), \
	BREACH
	{
		QUERY_TWO("query, one context twice", CONTEXT(SET_CONTEXTS, 1, 3), RAW("a:b"),
			  CONTEXT(SET_CONTEXTS, 2, 3), RAW("a:b")),
		.text = { "selects the meta context \"a:b\", which was selected before" },
	},
	{
		QUERY_TWO("query, one number for two contexts", CONTEXT(SET_CONTEXTS, 9, 3),
			  RAW("a:b"), CONTEXT(SET_CONTEXTS, 9, 3), RAW("c:d")),
		.text = { "gives two meta contexts the number 9" },
	},
	{
		.name = "query, consent to structured replies with an export",
		.goal = NEG_GOAL_QUERY,
		.server = PIECES(GREETING(3), REPLY(STRUCTURED, 3, 12)),
		.client = PIECES(HELLO_QUERY(3)),
		BREACH,
		.text = { "answers NBD_OPT_STRUCTURED_REPLY with reply type 3" },
	},
};

static const char *const option_names[] = {
	[EXPORT_NAME] = "NBD_OPT_EXPORT_NAME",
	[ABORT] = "NBD_OPT_ABORT",
	[LIST] = "NBD_OPT_LIST",
	[STARTTLS] = "NBD_OPT_STARTTLS",
	[ASK] = "NBD_OPT_INFO",
	[GO] = "NBD_OPT_GO",
	[STRUCTURED] = "NBD_OPT_STRUCTURED_REPLY",
	[LIST_CONTEXTS] = "NBD_OPT_LIST_META_CONTEXT",
	[SET_CONTEXTS] = "NBD_OPT_SET_META_CONTEXT",
};

/* --- driving ---------------------------------------------------------------------------------- */

struct drive {
	const struct replay *r;
	struct bytes server, client, items;
	size_t read, written, shown;
	bool secured;  /* the server's and the client's bytes from here on are inside TLS */
	size_t stride; /* breaks come at every so many bytes */
	struct neg *n; /* allocated alone, so that AddressSanitizer sees the first byte beyond */
};

#define must(d, condition, ...) must_at(d, condition, #condition, __LINE__, " " __VA_ARGS__)

__attribute__((format(printf, 5, 6))) static void must_at(const struct drive *d, bool ok,
							  const char *condition, int line,
							  const char *fmt, ...)
{
	char more[2048];
	va_list ap;

	if (ok)
		return;
	va_start(ap, fmt);
	vsnprintf(more, sizeof(more), fmt, ap);
	va_end(ap);
	ck_abort_msg("line %d, \"%s\", %zu bytes read and %zu written: not %s%s", line, d->r->name,
		     d->read, d->written, condition, more);
}

static void want_contexts(struct metactx *c, const char *names)
{
	struct err e;

	for (const char *p = names; p && *p; p += p[strcspn(p, ",")] == ',') {
		size_t len = strcspn(p, ",");

		ck_assert_int_eq(metactx_add(c, p, len, &e), 0);
		p += len;
	}
}

static void begin(struct drive *d, const struct replay *r)
{
	struct neg_params *p = calloc(1, sizeof(*p));

	memset(d, 0, sizeof(*d));
	d->r = r;
	/* At every byte, but for a run that is slowed down by a tool (UNIT_STRIDE). */
	d->stride = getenv("UNIT_STRIDE") ? strtoul(getenv("UNIT_STRIDE"), NULL, 10) : 1;
	ck_assert_uint_gt(d->stride, 0);
	make_bytes(&d->server, r->server);
	make_bytes(&d->client, r->client);
	make_bytes(&d->items, r->items);
	d->n = malloc(sizeof(*d->n));
	ck_assert(p && d->n);
	p->goal = r->goal;
	p->tls = r->tls;
	if (r->export_len)
		memset(p->export, 'n', r->export_len);
	else
		strcpy(p->export, r->export ? r->export : "disk");
	want_contexts(&p->contexts, r->contexts);
	neg_init(d->n, p);
	/* The engine keeps no pointer to it. */
	free(p);
}

static void finish(struct drive *d)
{
	free_bytes(&d->server);
	free_bytes(&d->client);
	free_bytes(&d->items);
	free(d->n);
}

static void check_safe(const struct drive *d, const char *s, size_t cap)
{
	size_t len = strnlen(s, cap);

	must(d, len > 0 && len < cap, "an error of %zu bytes", len);
	must(d, text_is_utf8(s, len), "%s", s);
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)s[i];

		must(d, c >= 0x20 && c != 0x7f, "byte 0x%02x in an error", c);
		/* U+0080..U+009F */
		must(d, c != 0xc2 || (unsigned char)s[i + 1] >= 0xa0, "C1 in an error");
	}
	must(d, !strstr(s, "\xe2\x80\xae") && !strstr(s, "\xe2\x81\xa6"), "bidi in an error");
}

static void check_text(const struct drive *d, const char *whole, const char *part)
{
	must(d, strstr(whole, part) != NULL, "\"%s\" lacks \"%s\"", whole, part);
}

static void check_string(const struct drive *d, const char *s, const struct piece *expected)
{
	struct bytes b;

	make_bytes(&b, expected);
	must(d, strlen(s) == b.len && memcmp(s, b.data, b.len) == 0, "\"%.100s\"", s);
	free_bytes(&b);
}

static void check_export(const struct drive *d)
{
	const struct replay *r = d->r;
	const struct export *x = neg_export(d->n);

	must(d, x->size == r->size, "%llu", (unsigned long long)x->size);
	must(d, x->flags == r->flags, "0x%x", x->flags);
	must(d, x->by_export_name == !!(r->got & OLD_OPTION));
	must(d, x->has_block_size == !!(r->got & BLOCK_SIZE));
	must(d, x->block_min == r->min, "%u", x->block_min);
	must(d, x->block_pref == r->pref, "%u", x->block_pref);
	must(d, x->payload_max == r->max, "%u", x->payload_max);
	must(d, x->has_name == !!(r->got & NAME));
	must(d, x->has_description == !!(r->got & DESCRIPTION));
	check_string(d, x->name, r->canonical);
	check_string(d, x->description, r->description);
	must(d, x->structured == !!(r->got & STRUCTURED_REPLIES));
	must(d, x->has_contexts == !!(r->got & CONTEXTS));
	must(d, (x->listed == EXPORT_LISTED) == !!(r->got & LISTED));
	must(d, (x->listed == EXPORT_UNLISTED) == !!(r->got & UNLISTED));
	for (unsigned i = 0; i < neg_contexts(d->n)->count; i++)
		must(d, neg_contexts(d->n)->id[i] == r->ids[i]);
}

/* Whether NBD_OPT_INFO has been answered: nothing that comes after that is needed. */
static bool is_informed(const struct drive *d)
{
	size_t last = d->r->tls ? 2 : 1;

	return d->r->goal == NEG_GOAL_INFO && !(d->r->got & OLD_OPTION) &&
	       d->server.turn_count > last + 1 && d->read >= d->server.turns[last];
}

/* What is reached by giving up then. */
static void check_informed(const struct drive *d, struct neg *n)
{
	const struct export *x = neg_export(n);
	struct neg_buf buf;

	must(d, neg_want(n, &buf) == NEG_DONE, "%s", neg_failure(n)->text);
	must(d, neg_failure(n)->kind == ERR_NONE && !neg_failure(n)->text[0]);
	must(d, !neg_in_transmission(n));
	must(d, x->size == 1048576 && x->flags == 0x105);
	must(d, x->listed != EXPORT_UNLISTED);
}

/* What has been reached is not changed by anything that comes later. */
static void check_sticky(const struct drive *d, struct neg *n, enum neg_want end)
{
	struct neg_buf buf;
	struct err before = *neg_failure(n);
	bool transmission = neg_in_transmission(n);

	for (int i = 0; i < 5; i++) {
		must(d, neg_want(n, &buf) == end);
		must(d, buf.len == 0 && !buf.in && !buf.out);
		must(d, neg_in_transmission(n) == transmission);
		must(d, neg_failure(n)->kind == before.kind && neg_failure(n)->code == before.code);
		must(d, strcmp(neg_failure(n)->text, before.text) == 0, "%s", before.text);
		if (i == 0)
			neg_moved(n, 0);
		else if (i == 1)
			neg_broken(n, 0);
		else if (i == 2)
			neg_broken(n, EPIPE);
		else
			neg_timed_out(n);
	}
}

/* The end as the case has it. */
static void check_end(const struct drive *d, struct neg *n)
{
	const struct replay *r = d->r;
	const struct err *e = neg_failure(n);
	struct neg_buf buf;
	enum neg_want end = neg_want(n, &buf);

	must(d, end == (r->kind == ERR_NONE ? NEG_DONE : NEG_FAILED), "%d: %s", end, e->text);
	must(d, e->kind == r->kind, "%d: %s", e->kind, e->text);
	must(d, e->code == r->code, "%d: %s", e->code, e->text);
	must(d, neg_in_transmission(n) == !!(r->got & TRANSMISSION));
	if (end == NEG_FAILED) {
		check_safe(d, e->text, sizeof(e->text));
		for (size_t i = 0; i < COUNT(r->text) && r->text[i]; i++)
			check_text(d, e->text, r->text[i]);
	} else if (r->goal != NEG_GOAL_LIST) {
		check_export(d);
	}
	check_sticky(d, n, end);
}

static bool only_farewell_is_left(const struct drive *d)
{
	return d->read == d->server.len && d->shown == d->items.len;
}

/* The option that is being sent or answered; 0 before the first. */
static unsigned current_option(const struct drive *d, enum neg_want want)
{
	size_t i = want == NEG_WRITE ? stretch(&d->client, d->written) :
				       stretch(&d->server, d->read);
	size_t at;

	if (want == NEG_TLS)
		return STARTTLS;
	if (want != NEG_WRITE) {
		if (i == 0)
			return 0;
		i--;
	}
	at = i ? stretch_end(&d->client, i - 1) : 4;
	return d->client.data[at + 11];
}

/* Gives up here, in each of the three ways, on a copy of the engine. */
static void check_broken(const struct drive *d, enum neg_want want)
{
	enum { END_OF_FILE, RESET, DEADLINE, WAYS };
	size_t turn = stretch(&d->server, d->read);
	bool first = d->read == (turn ? d->server.turns[turn - 1] : 0);
	struct neg *n = malloc(sizeof(*n));
	struct neg_buf buf;

	ck_assert_ptr_nonnull(n);
	for (int way = 0; way < WAYS; way++) {
		const struct err *e = neg_failure(n);
		unsigned option;

		memcpy(n, d->n, sizeof(*n));
		if (way == DEADLINE)
			neg_timed_out(n);
		else
			neg_broken(n, way == RESET ? ECONNRESET : 0);
		if (only_farewell_is_left(d)) {
			check_end(d, n);
			continue;
		}
		if (is_informed(d)) {
			check_informed(d, n);
			check_sticky(d, n, NEG_DONE);
			continue;
		}
		must(d, neg_want(n, &buf) == NEG_FAILED);
		must(d, !neg_in_transmission(n));
		check_safe(d, e->text, sizeof(e->text));
		option = current_option(d, want);
		if (way == END_OF_FILE && option == EXPORT_NAME && (want == NEG_WRITE || first)) {
			must(d, e->kind == ERR_REFUSED, "%d: %s", e->kind, e->text);
			must(d, e->code == ENOENT, "%d", e->code);
		} else {
			must(d, e->kind == ERR_UNREACHABLE, "%d: %s", e->kind, e->text);
			must(d, e->code == (way == DEADLINE ? ETIMEDOUT : ECONNRESET), "%d",
			     e->code);
		}
		if (option)
			check_text(d, e->text, option_names[option]);
		else
			check_text(d, e->text,
				   way == END_OF_FILE && first ? "without a word" : "its greeting");
		if (way == RESET)
			check_text(d, e->text, strerror(ECONNRESET));
		if (way == DEADLINE)
			check_text(d, e->text, "not done in time");
		check_sticky(d, n, NEG_FAILED);
	}
	free(n);
}

static void check_inside(const struct drive *d, const void *outer, size_t outer_len, const void *p,
			 size_t len)
{
	uintptr_t begins = (uintptr_t)outer, at = (uintptr_t)p;

	must(d, at >= begins && at + len <= begins + outer_len);
}

static void on_read(struct drive *d, const struct neg_buf *buf, size_t limit)
{
	size_t len = buf->len < limit ? buf->len : limit;
	size_t turn = stretch(&d->server, d->read);

	must(d, buf->in && !buf->out && buf->len > 0);
	check_inside(d, d->n->in, sizeof(d->n->in), buf->in, buf->len);
	/* What comes after the handshake is somebody else's. */
	must(d, buf->len <= d->server.len - d->read, "%zu bytes asked for, %zu left", buf->len,
	     d->server.len - d->read);
	/* Nor is more asked for than the server says before it waits for the client. */
	must(d, d->read + buf->len <= stretch_end(&d->server, turn));
	must(d, d->written == (turn ? stretch_end(&d->client, turn - 1) : 0));
	memcpy(buf->in, d->server.data + d->read, len);
	d->read += len;
	neg_moved(d->n, len);
}

static void on_write(struct drive *d, const struct neg_buf *buf, size_t limit)
{
	size_t len = buf->len < limit ? buf->len : limit;
	size_t turn = stretch(&d->client, d->written);

	must(d, buf->out && !buf->in && buf->len > 0);
	check_inside(d, d->n->out, sizeof(d->n->out), buf->out, buf->len);
	must(d, d->read == stretch_end(&d->server, turn), "the client speaks too early");
	must(d, buf->len <= d->client.len - d->written, "%zu bytes too many to send",
	     buf->len - (d->client.len - d->written));
	must(d, memcmp(buf->out, d->client.data + d->written, buf->len) == 0,
	     "other bytes to send");
	/* Whatever the case says: in plain text nothing is said about what is wanted. */
	if (d->r->tls && !d->secured) {
		must(d, !memmem(buf->out, buf->len, "disk", 4));
		must(d, !memmem(buf->out, buf->len, "nnnn", 4));
		must(d, d->written + buf->len <= 4 + 2 * 16, "%zu bytes in plain text",
		     d->written + buf->len);
	}
	d->written += len;
	neg_moved(d->n, len);
}

static void on_item(struct drive *d, const struct neg_buf *buf)
{
	const struct neg_item *item = neg_item(d->n);
	const char *texts[] = { item->name, item->description };

	must(d, !buf->in && !buf->out && buf->len == 0);
	for (int i = 0; i < 2; i++) {
		size_t len = strlen(texts[i]) + 1;

		must(d,
		     len <= d->items.len - d->shown &&
			     memcmp(texts[i], d->items.data + d->shown, len) == 0,
		     "\"%.100s\"", texts[i]);
		d->shown += len;
	}
	neg_moved(d->n, 0);
}

static void on_tls(struct drive *d, const struct neg_buf *buf)
{
	must(d, !buf->in && !buf->out && buf->len == 0);
	must(d, d->r->secured && !d->secured);
	must(d, d->read == d->server.turns[1] && d->written == d->client.turns[0]);
	d->secured = true;
	neg_moved(d->n, 0);
}

/* Long streams are all alike in the middle. */
static bool worth_breaking(const struct drive *d)
{
	if ((d->read + d->written) % d->stride)
		return false;
	return d->server.len < 20000 || d->read < 2000 || d->server.len - d->read < 200 ||
	       d->read % 1999 == 0;
}

/* Moves at most limit bytes at a time. */
static void drive(const struct replay *r, size_t limit, bool breaking)
{
	struct drive d;
	struct neg_buf buf;
	enum neg_want want;

	begin(&d, r);
	while ((want = neg_want(d.n, &buf)) != NEG_DONE && want != NEG_FAILED) {
		if (breaking && worth_breaking(&d))
			check_broken(&d, want);
		if (want == NEG_READ)
			on_read(&d, &buf, limit);
		else if (want == NEG_WRITE)
			on_write(&d, &buf, limit);
		else if (want == NEG_TLS)
			on_tls(&d, &buf);
		else
			on_item(&d, &buf);
	}
	must(&d, d.secured == r->secured);
	must(&d, d.read == d.server.len, "%s", neg_failure(d.n)->text);
	must(&d, d.written == d.client.len, "%s", neg_failure(d.n)->text);
	must(&d, d.shown == d.items.len, "%s", neg_failure(d.n)->text);
	check_end(&d, d.n);
	finish(&d);
}

START_TEST(replay_whole)
{
	drive(&replays[_i], SIZE_MAX, false);
}
END_TEST

START_TEST(replay_byte_by_byte)
{
	drive(&replays[_i], 1, false);
}
END_TEST

START_TEST(replay_in_odd_pieces)
{
	drive(&replays[_i], 7, false);
}
END_TEST

START_TEST(replay_broken_off_at_each_byte)
{
	drive(&replays[_i], 1, true);
}
END_TEST

/* --- the error replies, each to each option --------------------------------------------------- */

/* NBD_REP_ERR_UNSUP is above: it refuses NBD_OPT_LIST only. */
static const struct {
	uint32_t number;
	enum err_kind kind;
	int code;
	const char *name;
	const char *meaning;
} refusals[] = {
	{ 2, ERR_REFUSED, EACCES, "NBD_REP_ERR_POLICY", "policy forbids it" },
	{ 3, ERR_REFUSED, EINVAL, "NBD_REP_ERR_INVALID", "invalid" },
	{ 4, ERR_REFUSED, EOPNOTSUPP, "NBD_REP_ERR_PLATFORM", "platform or build" },
	{ 5, ERR_TLS, EPROTONOSUPPORT, "NBD_REP_ERR_TLS_REQD", "requires TLS" },
	{ 6, ERR_REFUSED, ENOENT, "NBD_REP_ERR_UNKNOWN", "no such export" },
	{ 7, ERR_REFUSED, ESHUTDOWN, "NBD_REP_ERR_SHUTDOWN", "shutting down" },
	{ 8, ERR_REFUSED, EINVAL, "NBD_REP_ERR_BLOCK_SIZE_REQD", "block sizes" },
	{ 9, ERR_REFUSED, EMSGSIZE, "NBD_REP_ERR_TOO_BIG", "too large" },
	{ 10, ERR_REFUSED, EOPNOTSUPP, "NBD_REP_ERR_EXT_HEADER_REQD", "extended headers" },
	{ 11, ERR_REFUSED, EREMOTEIO, "unknown error", "reply 0x8000000b" },
};

static const struct {
	enum neg_goal goal;
	unsigned option;
} goals[] = {
	{ NEG_GOAL_GO, GO },
	{ NEG_GOAL_INFO, ASK },
	{ NEG_GOAL_LIST, LIST },
	{ NEG_GOAL_QUERY, STRUCTURED },
	{ NEG_GOAL_QUERY, SET_CONTEXTS },
};

START_TEST(refusal)
{
	size_t i = (size_t)_i / COUNT(goals), g = (size_t)_i % COUNT(goals);
	unsigned option = goals[g].option;
	char words[64], quoted[sizeof(words) + 16];
	struct replay r = {
		.name = refusals[i].name,
		.goal = goals[g].goal,
		.contexts = goals[g].goal == NEG_GOAL_QUERY ? "base:allocation" : NULL,
		.kind = refusals[i].kind,
		.code = refusals[i].code,
		.text = { refusals[i].name, refusals[i].meaning, option_names[option],
			  option == LIST || option == STRUCTURED ?
				  "the server refuses: " :
				  "the server refuses export \"disk\": ",
			  quoted },
	};
	struct piece said = { .kind = BYTES, .text = words };

	/* no statements under an if: the pieces would not outlive them */
	r.client = option == LIST         ? PIECES(HELLO_LIST(3), FAREWELL) :
		   option == STRUCTURED   ? PIECES(HELLO_QUERY(3), FAREWELL) :
		   option == SET_CONTEXTS ? PIECES(HELLO_QUERY(3), WANT_ALLOCATION, FAREWELL) :
					    PIECES(HELLO(3, option), FAREWELL);
	said.len = (size_t)snprintf(words, sizeof(words), "number %zu", i);
	snprintf(quoted, sizeof(quoted), "it says: \"%s\"", words);
	r.server = option == SET_CONTEXTS ?
			   PIECES(GREETING(3), ACK(STRUCTURED), TURN,
				  ERROR(option, refusals[i].number, said.len), said) :
			   PIECES(GREETING(3), ERROR(option, refusals[i].number, said.len), said);
	drive(&r, SIZE_MAX, false);
	drive(&r, 1, true);
	/* Without a text there is none to quote. */
	r.text[4] = goals[g].goal == NEG_GOAL_QUERY ? "block status is needed" : NULL;
	r.server = option == SET_CONTEXTS ?
			   PIECES(GREETING(3), ACK(STRUCTURED), TURN,
				  ERROR(option, refusals[i].number, 0)) :
			   PIECES(GREETING(3), ERROR(option, refusals[i].number, 0));
	drive(&r, 1, true);
}
END_TEST

/*
 * Each code, even an unknown one, ends a handshake that requires TLS, and says what was not sent.
 */
START_TEST(refusal_of_tls)
{
	static const struct {
		uint32_t number;
		const char *name;
		int code;
	} unsup = { 1, "NBD_REP_ERR_UNSUP", EOPNOTSUPP };
	size_t i = (size_t)_i / COUNT(goals), g = (size_t)_i % COUNT(goals);
	bool first = i == COUNT(refusals);
	uint32_t number = first ? unsup.number : refusals[i].number;
	struct replay r = {
		.name = "refusal of tls",
		.goal = goals[g].goal,
		.tls = true,
		.client = PIECES(ASK_FOR_TLS(3), FAREWELL),
		.kind = ERR_TLS,
		.code = first ? unsup.code : refusals[i].code,
		.text = { "TLS is required", "nothing was sent in plain text", "NBD_OPT_STARTTLS",
			  first ? unsup.name : refusals[i].name },
	};

	r.server = PIECES(GREETING(3), ERROR(STARTTLS, number, 0));
	drive(&r, SIZE_MAX, false);
	drive(&r, 1, true);
	r.server = PIECES(GREETING(3), ERROR(STARTTLS, number, 600), FILL('t', 600));
	r.text[4] = "ttt...\"";
	drive(&r, 1, false);
}
END_TEST

static void failure_of(struct err *e, const struct piece *server)
{
	struct replay r = { .name = "failure", .server = server };
	struct drive d;
	struct neg_buf buf;
	enum neg_want want;

	begin(&d, &r);
	while ((want = neg_want(d.n, &buf)) == NEG_READ || want == NEG_WRITE) {
		if (want == NEG_READ) {
			must(&d, buf.len <= d.server.len - d.read);
			memcpy(buf.in, d.server.data + d.read, buf.len);
			d.read += buf.len;
		}
		neg_moved(d.n, buf.len);
	}
	ck_assert_int_eq(want, NEG_FAILED);
	*e = *neg_failure(d.n);
	finish(&d);
}

/* The name of the reply aside, no two errors have the same meaning or the same advice. */
START_TEST(each_refusal_has_its_own_words)
{
	struct err e[COUNT(refusals)];

	for (size_t i = 0; i < COUNT(refusals); i++) {
		const char *words;

		failure_of(&e[i], PIECES(GREETING(3), ERROR(GO, refusals[i].number, 0)));
		words = strstr(e[i].text, "NBD_OPT_GO); ");
		ck_assert_ptr_nonnull(words);
		ck_assert_msg(strlen(words) > 20, "no advice in %s", e[i].text);
		ck_assert_ptr_null(strstr(e[i].text, "it says"));
		for (size_t j = 0; j < i; j++) {
			size_t meaning = strcspn(e[i].text, "(");

			ck_assert_str_ne(strstr(e[j].text, "NBD_OPT_GO); "), words);
			ck_assert_msg(strncmp(e[i].text, e[j].text, meaning) != 0, "%s\n%s",
				      e[i].text, e[j].text);
		}
	}
}
END_TEST

/* The longest of everything at once still ends in the closing quote. */
START_TEST(the_longest_refusal_fits)
{
	for (size_t i = 0; i < COUNT(refusals); i++) {
		struct replay r = {
			.name = refusals[i].name,
			.goal = NEG_GOAL_INFO,
			.export_len = 4096,
			.server = PIECES(GREETING(3), ERROR(ASK, refusals[i].number, 4000),
					 FILL('t', 4000)),
			.client = PIECES(U32(3), OPTION(ASK, 4110), U32(4096), FILL('n', 4096),
					 WANTED, TURN, FAREWELL),
			.kind = refusals[i].kind,
			.code = refusals[i].code,
			.text = { "nnn...\"", "ttt...\"", refusals[i].name, refusals[i].meaning },
		};

		drive(&r, SIZE_MAX, false);
	}
}
END_TEST

/* --- what no replay shows --------------------------------------------------------------------- */

START_TEST(an_unterminated_name_is_cut)
{
	struct neg_params p = { .goal = NEG_GOAL_GO };
	static struct neg n;
	struct neg_buf buf;

	memset(p.export, 'n', sizeof(p.export));
	neg_init(&n, &p);
	ck_assert_int_eq(neg_want(&n, &buf), NEG_READ);
	ck_assert_uint_eq(buf.len, 16);
	memcpy(buf.in, "NBDMAGICIHAVEOPT", 16);
	neg_moved(&n, 16);
	ck_assert_int_eq(neg_want(&n, &buf), NEG_READ);
	ck_assert_uint_eq(buf.len, 2);
	memcpy(buf.in, "\0\3", 2);
	neg_moved(&n, 2);
	ck_assert_int_eq(neg_want(&n, &buf), NEG_WRITE);
	ck_assert_uint_eq(buf.len, 4 + 16 + 4 + 4096 + 10);
}
END_TEST

/* The longest names there can be, and a set of contexts that makes no sense. */
START_TEST(the_longest_contexts_fit)
{
	static struct neg_params p;
	static char name[NBD_MAX_STRING];
	static struct neg n;
	const size_t rest = METACTX_BYTES - (NBD_MAX_STRING + 1) - 1;
	struct neg_buf buf;
	struct err e;

	p.goal = NEG_GOAL_QUERY;
	memset(p.export, 'n', NBD_MAX_STRING);
	memset(name, 'c', sizeof(name));
	memcpy(name, "x:", 2);
	ck_assert_int_eq(metactx_add(&p.contexts, name, sizeof(name), &e), 0);
	memcpy(name, "y:", 2);
	ck_assert_int_eq(metactx_add(&p.contexts, name, rest, &e), 0);
	for (int wild = 0; wild < 2; wild++) {
		size_t names = 2 * 4 + NBD_MAX_STRING + rest;

		neg_init(&n, &p);
		ck_assert_int_eq(neg_want(&n, &buf), NEG_READ);
		memcpy(buf.in, "NBDMAGICIHAVEOPT", 16);
		neg_moved(&n, 16);
		ck_assert_int_eq(neg_want(&n, &buf), NEG_READ);
		memcpy(buf.in, "\0\3", 2);
		neg_moved(&n, 2);
		ck_assert_int_eq(neg_want(&n, &buf), NEG_WRITE);
		ck_assert_uint_eq(buf.len, 4 + 16);
		neg_moved(&n, 20);
		ck_assert_int_eq(neg_want(&n, &buf), NEG_READ);
		ck_assert_uint_eq(buf.len, 20);
		memcpy(buf.in, "\0\x03\xe8\x89\x04\x55\x65\xa9\0\0\0\x08\0\0\0\1\0\0\0\0", 20);
		neg_moved(&n, 20);
		ck_assert_int_eq(neg_want(&n, &buf), NEG_WRITE);
		/* names that have no end are taken for empty ones */
		if (wild)
			names = METACTX_MAX * 4;
		ck_assert_uint_eq(buf.len, 16 + 4 + 4096 + 4 + names);
		p.contexts.count = 1000;
		memset(p.contexts.names, 'c', sizeof(p.contexts.names));
	}
}
END_TEST

/* A caller may ask as often as it likes. */
START_TEST(asking_changes_nothing)
{
	struct neg_params p = { .goal = NEG_GOAL_LIST };
	static struct neg n, before;
	struct neg_buf a, b;

	neg_init(&n, &p);
	for (int i = 0; i < 18; i++) {
		ck_assert_int_eq(neg_want(&n, &a), NEG_READ);
		memcpy(&before, &n, sizeof(n));
		ck_assert_int_eq(neg_want(&n, &b), NEG_READ);
		ck_assert_mem_eq(&before, &n, sizeof(n));
		ck_assert_ptr_eq(a.in, b.in);
		ck_assert_uint_eq(a.len, b.len);
		/* An interrupted call moves nothing. */
		neg_moved(&n, 0);
		ck_assert_mem_eq(&before, &n, sizeof(n));
		*a.in = (uint8_t) "NBDMAGICIHAVEOPT\0\3"[i];
		neg_moved(&n, 1);
	}
	ck_assert_int_eq(neg_want(&n, &a), NEG_WRITE);
	neg_moved(&n, 0);
	ck_assert_int_eq(neg_want(&n, &b), NEG_WRITE);
	ck_assert_ptr_eq(a.out, b.out);
	ck_assert_uint_eq(a.len, b.len);
}
END_TEST

/* Each case has a name of its own, and each state of the engine is a case's. */
START_TEST(cases_are_complete)
{
	bool seen[NEG_S_END + 1] = { false };

	for (size_t i = 0; i < COUNT(replays); i++) {
		struct drive d;
		struct neg_buf buf;
		enum neg_want want;

		for (size_t j = 0; j < i; j++)
			ck_assert_str_ne(replays[i].name, replays[j].name);
		if (size_of(replays[i].server) > 20000)
			continue;
		begin(&d, &replays[i]);
		while ((want = neg_want(d.n, &buf)) != NEG_DONE && want != NEG_FAILED) {
			seen[d.n->state] = true;
			if (want == NEG_READ)
				on_read(&d, &buf, 1);
			else if (want == NEG_WRITE)
				on_write(&d, &buf, 1);
			else if (want == NEG_TLS)
				on_tls(&d, &buf);
			else
				on_item(&d, &buf);
		}
		seen[d.n->state] = true;
		finish(&d);
	}
	for (size_t i = 0; i < COUNT(seen); i++)
		ck_assert_msg(seen[i], "no replay reaches state %zu", i);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("neg");
	TCase *t = tcase_create("neg");
	int n = (int)COUNT(replays);

	tcase_set_timeout(t, 60);
	tcase_add_test(t, cases_are_complete);
	tcase_add_loop_test(t, replay_whole, 0, n);
	tcase_add_loop_test(t, replay_byte_by_byte, 0, n);
	tcase_add_loop_test(t, replay_in_odd_pieces, 0, n);
	tcase_add_loop_test(t, replay_broken_off_at_each_byte, 0, n);
	tcase_add_loop_test(t, refusal, 0, (int)(COUNT(refusals) * COUNT(goals)));
	tcase_add_loop_test(t, refusal_of_tls, 0, (int)((COUNT(refusals) + 1) * COUNT(goals)));
	tcase_add_test(t, each_refusal_has_its_own_words);
	tcase_add_test(t, the_longest_refusal_fits);
	tcase_add_test(t, an_unterminated_name_is_cut);
	tcase_add_test(t, the_longest_contexts_fit);
	tcase_add_test(t, asking_changes_nothing);
	suite_add_tcase(s, t);
	return s;
}
