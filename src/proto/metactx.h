/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * metactx: a few meta contexts by their names ("Metadata querying" of the NBD specification),
 * with the numbers that a server gives them, and the meaning of the flags of known ones. Flat, to
 * be copied between processes as it is. Never allocates and does no I/O.
 */
#ifndef NBD_ATTACH_METACTX_H
#define NBD_ATTACH_METACTX_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum {
	METACTX_MAX = 16,
	METACTX_BYTES = 8192,  /* all names together, each with its NUL */
	METACTX_TEXT_MAX = 64, /* text of metactx_describe with its NUL, bytes */
};

/* All zero is the empty set. */
struct metactx {
	unsigned count;
	uint32_t id[METACTX_MAX];  /* the server's number, once agreed on */
	char names[METACTX_BYTES]; /* count NUL-terminated strings */
};

/*
 * Adds a name of len bytes: a namespace, a colon and the rest, in UTF-8. ERR_USAGE for anything
 * else (-EINVAL), a name that is there already (-EEXIST), is too long or one too many (-E2BIG).
 */
int metactx_add(struct metactx *c, const char *name, size_t len, struct err *e);

/* The name at index i, "" beyond the last. Safe for any content of c. */
const char *metactx_name(const struct metactx *c, unsigned i);

/* The index of a name, -1 for none. */
int metactx_find(const struct metactx *c, const char *name);

/*
 * Writes the meaning of flags in the named context, in the words of nbdinfo(1): "data", "hole",
 * "zero", "hole,zero"; "clean", "dirty"; "absent", "local", "backing depth 2". Flags that the
 * context does not define are left out ("base:allocation": they "MUST be ignored"). Returns 0, or
 * -ENOENT and "" for an unknown context.
 */
int metactx_describe(const char *name, uint32_t flags, char text[METACTX_TEXT_MAX]);

#endif
