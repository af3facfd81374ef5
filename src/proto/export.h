/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * export: everything that a server said about one export, flat, to be copied between processes as
 * it is. Its texts are hostile: they are NUL-terminated, but must be escaped before anybody reads
 * them.
 */
#ifndef NBD_ATTACH_EXPORT_H
#define NBD_ATTACH_EXPORT_H

#include <stdbool.h>
#include <stdint.h>

/* Whether an export is on its server's list (NBD_OPT_LIST). */
enum export_listed {
	EXPORT_LISTED_UNKNOWN, /* the list was not asked for, or not answered */
	EXPORT_LISTED,
	EXPORT_UNLISTED,
};

struct export
{
	uint64_t size;        /* bytes */
	uint16_t flags;       /* transmission flags */
	bool has_block_size;  /* the server sent NBD_INFO_BLOCK_SIZE, the next three fields */
	uint32_t block_min;   /* bytes */
	uint32_t block_pref;  /* bytes */
	uint32_t payload_max; /* bytes; UINT32_MAX: no limit */
	bool has_name;        /* the server sent its canonical name */
	bool has_description;
	bool by_export_name; /* the server knows only NBD_OPT_EXPORT_NAME */
	/* Known after NEG_GOAL_INFO and NEG_GOAL_QUERY only: attaching never asks. */
	bool structured;   /* the server has structured replies */
	bool has_contexts; /* the server listed its meta contexts */
	enum export_listed listed;
	char name[4097];
	char description[4097]; /* cut where longer */
};

#endif
