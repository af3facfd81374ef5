/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * contexts: a few meta contexts by their names ("Metadata querying" of the NBD specification), with
 * the numbers that a server gives them, and what the flags of the known ones mean. Flat, to be
 * copied between processes as it is. Memory only.
 */
#ifndef NBD_ATTACH_METACTX_H
#define NBD_ATTACH_METACTX_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum {
	METACTX_MAX = 16,
	METACTX_BYTES = 8192,  /* of all names together, each with its NUL */
	METACTX_TEXT_MAX = 64, /* of metactx_describe */
};

/* All zero is the empty set. */
struct metactx {
	unsigned count;
	uint32_t id[METACTX_MAX];  /* once agreed on */
	char names[METACTX_BYTES]; /* count NUL-terminated strings */
};

/*
 * Adds a name of len bytes: a namespace, a colon and the rest, in UTF-8. ERR_USAGE for what is no
 * such name (-EINVAL), is there already (-EEXIST), or is too long or one too many (-E2BIG).
 */
int metactx_add(struct metactx *c, const char *name, size_t len, struct err *e);

/* Of the one at place i, "" beyond the last. Safe for any content of c. */
const char *metactx_name(const struct metactx *c, unsigned i);

/* The place of a name, -1 for none. */
int metactx_find(const struct metactx *c, const char *name);

/*
 * What flags mean in the context of this name, as nbdinfo(1) puts it: "data", "hole", "zero", "hole,zero";
 * "clean", "dirty"; "absent", "local", "backing depth 2". Flags that the context does not
 * define are left out ("base:allocation": they "MUST be ignored"). Returns 0, or -ENOENT and "" for a
 * context that is not known.
 */
int metactx_describe(const char *name, uint32_t flags, char text[METACTX_TEXT_MAX]);

#endif
