/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * nbdtab: the file that says which export belongs on which device, as nbdtab(5) of nbd-client has
 * it, and with URIs. A line becomes settings by the same table as a command line. Memory only.
 *
 *     DEVICE HOST EXPORT [OPTION,...]
 *     DEVICE uri=URI [uri=URI]... [OPTION,...]
 */
#ifndef NBD_ATTACH_NBDTAB_H
#define NBD_ATTACH_NBDTAB_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "policy/settings.h"

enum {
	NBDTAB_FILE_MAX = 1 << 20,
	NBDTAB_LINE_MAX = 8191,
};

struct nbdtab_entry {
	unsigned line;            /* line number in the file, from 1 on */
	unsigned index;           /* device number */
	bool has_device;          /* index is set, even where the line is wrong */
	bool persist;             /* option "persist" */
	bool no_auto;             /* option "noauto": not for --all */
	struct settings settings; /* not completed yet, see settings_complete */
};

/* Position in the text of a file, of len bytes. at and line begin with 0. */
struct nbdtab {
	const char *text;
	size_t len;
	size_t at;
	unsigned line;
};

/*
 * The next line that is not empty or a comment. Returns 1; 0 at the end; or -EINVAL (ERR_USAGE) for
 * a line that is wrong, after which one may go on with the next; the text begins with "line N: "
 * and names the option at fault. en->line, and as far as they are known has_device and index, are
 * set by 1 and -EINVAL.
 *
 * Wrong are: a NUL or a line above NBDTAB_LINE_MAX; too few or too many fields; a device that is
 * not nbdN; a host, export or URI that is none; an option that is unknown, lacks its value, has one
 * too many, has a wrong one or is given twice; and of those that nbdtab(5) documents "sdp" and
 * "no_optgo". An option that begins with '_' is somebody else's and passed over. Options that
 * contradict each other are left to settings_complete.
 */
int nbdtab_next(struct nbdtab *t, struct nbdtab_entry *en, struct err *e);

/*
 * The line of one device. -ENOENT (ERR_FAILED) when there is none; -EINVAL as above, also when
 * there is a second one. Lines of other devices may be wrong.
 */
int nbdtab_find(const char *text, size_t len, unsigned index, struct nbdtab_entry *en,
		struct err *e);

#endif
