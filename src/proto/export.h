/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * export: all that a server said about one export, flat, to be copied between processes as it is.
 * The texts are a server's and hostile: NUL-terminated, but to be escaped before anybody reads them.
 */
#ifndef NBD_ATTACH_EXPORT_H
#define NBD_ATTACH_EXPORT_H

#include <stdbool.h>
#include <stdint.h>

/* Whether an export is on its server's list (NBD_OPT_LIST). */
enum export_listed {
	EXPORT_LISTED_UNKNOWN, /* not asked, or not answered */
	EXPORT_LISTED,
	EXPORT_UNLISTED,
};

struct export
{
	uint64_t size;       /* bytes */
	uint16_t flags;      /* transmission flags */
	bool has_block_size; /* the server sent NBD_INFO_BLOCK_SIZE: the next three, in bytes */
	uint32_t block_min;
	uint32_t block_pref;
	uint32_t payload_max; /* UINT32_MAX: no limit */
	bool has_name;        /* the server sent its canonical name */
	bool has_description;
	bool by_export_name; /* the server knows only NBD_OPT_EXPORT_NAME */
	/* Of goals INFO and QUERY only, since attaching never asks: */
	bool structured;   /* the server has structured replies */
	bool has_contexts; /* it listed its meta contexts */
	enum export_listed listed;
	char name[4097];
	char description[4097]; /* longer ones are cut */
};

#endif
